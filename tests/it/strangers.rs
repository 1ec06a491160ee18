//! Who must not get in, tried on real machines: a stranger on the network, a user of the machine, and whoever has
//! the server's own user and plants links where root will write.

use crate::faults::promoted::WIPE;
use crate::machine::{Init, Machine, Release};
use crate::readme::says;
use crate::story::bare;

/// A network beside the machine's own, and a stranger in it.
pub const FAR: &str = "ip netns add far && ip link add near type veth peer name eth0 netns far
    ip addr add 10.9.1.1/24 dev near && ip link set near up
    ip -n far addr add 10.9.1.2/24 dev eth0 && ip -n far link set eth0 up";

/// What a stranger tries at an open port, most of it out of known attacks.
const TRIED: &[&str] = &[
    "PING",
    "INFO",
    "GET precious",
    "SET x y",
    "KEYS '*'",
    "CONFIG GET '*'",
    "CONFIG SET dir /root/.ssh",
    "CONFIG SET dbfilename authorized_keys",
    "REPLICAOF 10.9.1.2 6379",
    "SLAVEOF 10.9.1.2 6379",
    "MODULE LOAD /tmp/exp.so",
    "EVAL 'return 1' 0",
    "FLUSHALL",
    "SAVE",
    "DEBUG SLEEP 1",
    "ACL LIST",
    "ACL SETUSER x on nopass '~*' +@all",
    "MONITOR",
    "PSYNC ? -1",
    "SYNC",
    "SHUTDOWN NOSAVE",
    "CLIENT LIST",
    "AUTH default",
    "AUTH default password",
    "HELLO 3 AUTH default foobared",
    "MIGRATE 10.9.1.2 6379 precious 0 1000",
    "FUNCTION LIST",
    "SUBSCRIBE news",
];

#[test]
fn a_stranger_on_the_network_gets_no_answer_but_no() {
    assert!(
        says(&format!("the {} that known attacks begin with", TRIED.len())),
        "the README has another number"
    );
    for release in Release::ALL {
        let Some(machine) = bare(release, Init::Systemd) else { return };
        machine.run(FAR).ok();
        machine.run("redis-tp install --bind 0.0.0.0 && redis-tp cli -- SET precious data").ok();
        for tried in TRIED {
            let out = machine.run(&format!("ip netns exec far timeout 3 redis-cli -h 10.9.1.1 {tried}"));
            let said = format!("{}{}", out.stdout, out.stderr);
            let refused =
                ["NOAUTH", "WRONGPASS", "DENIED", "Server closed the connection", "ERR AUTH", "not allowed"];
            assert!(refused.iter().any(|no| said.contains(no)), "{tried}: {out}");
        }
        // On loopback, which is where it is without --bind, there is no door at all.
        machine.run("redis-tp install --bind 127.0.0.1").ok();
        let out = machine.run("ip netns exec far timeout 3 redis-cli -h 10.9.1.1 PING");
        assert!(out.stderr.contains("refused") || out.stdout.contains("refused"), "{out}");
        assert_eq!(machine.run("redis-tp cli -- GET precious").ok().stdout, "data\n");
    }
}

/// Reads all that a user of the machine may, over and over, for a password in it.
const READ_ALL: &str = r"
    while [ ! -e /tmp/enough ]; do
        for pid in /proc/[0-9]*; do
            grep -aFl -f /opt/word $pid/cmdline $pid/environ $pid/status $pid/maps $pid/fd/* $pid/mem 2>/dev/null
        done
        grep -raFls -f /opt/word /etc /var /run /tmp /home /srv /usr/local /root 2>/dev/null
        echo round
    done >>/tmp/seen 2>/dev/null";

#[test]
fn a_user_of_the_machine_reads_no_password_anywhere_during_any_run() {
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        // Half of the word each, so that what looks for it has not got it.
        machine.run("useradd -m mallory; umask 022; printf 'Kanaria%s' 7-mallory >/opt/word").ok();
        machine.write("/opt/read", READ_ALL);
        machine.run("chmod 755 /opt/read; cp /opt/word /tmp/control; chmod 600 /opt/word; chown mallory /opt/word").ok();
        let mut reader = machine.spawn("setpriv --reuid mallory --regid mallory --clear-groups sh /opt/read");
        for (command, input) in [
            ("redis-tp install --password-file -", "Kanaria7-mallory\n"),
            ("redis-tp replica add --port 6380", ""),
            ("redis-tp app install --slow 0.1", ""),
            ("redis-tp cli -- SET a b", ""),
            ("redis-tp backup", ""),
            ("redis-tp install --set databases=20", ""),
            ("redis-tp check --fix --except password", ""),
            ("redis-tp verify", ""),
            ("redis-tp check; redis-tp status", ""),
            ("redis-tp rollback", ""),
            ("until [ $(grep -c round /tmp/seen) -gt 3 ]; do sleep 0.2; done", ""),
        ] {
            machine.run_with_input(command, input);
        }
        assert!(reader.is_running());
        machine.run("touch /tmp/enough").ok();
        drop(reader);
        let seen = machine.read("/tmp/seen");
        assert!(seen.contains("/tmp/control"), "what may be read is not found either: {seen}");
        let stolen: Vec<&str> = seen
            .lines()
            .filter(|line| !["round", "/tmp/control", "/opt/word"].contains(line))
            .filter(|line| !is_its_own(&machine, line))
            .collect();
        assert_eq!(stolen, [""; 0]);
    }
}

/// The reader's own processes have the word in their memory.
fn is_its_own(machine: &Machine, line: &str) -> bool {
    let uid = machine.run("id -u mallory").ok().stdout;
    let stat = line.strip_prefix("/proc/").and_then(|rest| rest.split('/').next());
    // One that is gone by now was a grep: servers and runs of root's cannot be read at all.
    stat.is_some_and(|pid| {
        let owner = machine.run(&format!("stat -c %u /proc/{pid} 2>/dev/null")).stdout;
        owner.is_empty() || owner == uid
    })
}

/// What must not change, whatever is planted: contents, owners and modes.
const VICTIMS: &str = "for f in /etc/passwd /etc/shadow /root/precious /etc/cron.d/precious; do
    sha256sum $f; stat -c '%u %g %a %n' $f; done; ls -A /etc/cron.d /root/dir";

/// Links, planted by the server's user where root is going to write. `$to` is what they stand for.
const PLANTED: &[(&str, &str)] = &[
    ("the next configuration", "ln -sf $to /etc/redis/redis-slave.conf"),
    ("the configuration that is there", "ln -sf $to /etc/redis/redis.conf"),
    (
        "its staging file",
        "for n in .redis-slave.conf.redis-tp .redis.conf.redis-tp; do ln -sf $to /etc/redis/$n; done",
    ),
    ("the log to be", "ln -sf $to /var/log/redis/redis-slave.log"),
    ("the log that is there", "ln -sf $to /var/log/redis/redis-server.log"),
    ("the data", "rm -f /var/lib/redis/dump.rdb; ln -sf $to /var/lib/redis/dump.rdb"),
    ("the pid file", "ln -sf $to /run/redis/redis-server.pid"),
    ("a directory of append only files", "ln -sfn /root/dir /var/lib/redis/appendonlydir"),
    ("a hard link, where the kernel lets it be", "ln -f $to /etc/redis/redis-slave.conf"),
    ("a hard link in the data", "ln -f $to /var/lib/redis/dump.rdb"),
];

/// What root does then, one after the other; it may be refused, and must not write through.
const RUNS: &[&str] = &[
    "redis-tp install --set hz=20",
    "redis-tp apply --overwrite",
    "redis-tp replica add --port 6380",
    "redis-tp check; redis-tp check --fix",
    "redis-tp backup",
    "redis-tp verify",
    "redis-tp service restart",
    "redis-tp rollback",
    "redis-tp adopt",
    "redis-tp uninstall --overwrite",
];

#[test]
fn a_link_planted_by_the_servers_user_leads_root_nowhere() {
    for (at, init) in [Init::Systemd, Init::None].into_iter().enumerate() {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        machine
            .run(
                "apt-get install -y redis-server >/dev/null 2>&1; mkdir /root/dir /etc/cron.d
                umask 077; echo precious | tee /root/precious >/etc/cron.d/precious; chmod 644 /etc/cron.d/precious",
            )
            .ok();
        machine.run("cp -a /etc/redis /root/package").ok();
        let before = machine.run(VICTIMS).ok().stdout;
        let victims = ["/root/precious", "/etc/shadow", "/etc/cron.d/precious"];
        for ((what, plant), victim) in PLANTED.iter().zip(victims.iter().cycle()).skip(at).step_by(2) {
            machine.run(WIPE).ok();
            machine.run("redis-tp install").ok();
            machine.write("/opt/plant", format!("to={victim}; {plant}"));
            machine.run("setpriv --reuid redis --regid redis --clear-groups sh /opt/plant");
            for run in RUNS {
                let out = machine.run(run);
                assert!(out.status < 100, "{what}: {out}");
                let after = machine.run(VICTIMS).ok().stdout;
                assert_eq!(after, before, "{what} -> {victim}: {out}");
            }
        }
    }
}
