//! Who must not get in, tried on real machines: a stranger on the network, and a user of the machine who reads what
//! he may.

use crate::machine::{Init, Release};
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
            let out = machine.run(&format!("ip netns exec far timeout 30 redis-cli -h 10.9.1.1 {tried}"));
            let said = format!("{}{}", out.stdout, out.stderr);
            let refused =
                ["NOAUTH", "WRONGPASS", "DENIED", "Server closed the connection", "ERR AUTH", "not allowed"];
            assert!(refused.iter().any(|no| said.contains(no)), "{tried}: {out}");
        }
        // On loopback, which is where it is without --bind, there is no door at all.
        machine.run("redis-tp install --bind 127.0.0.1").ok();
        let out = machine.run("ip netns exec far timeout 30 redis-cli -h 10.9.1.1 PING");
        assert!(out.stderr.contains("refused") || out.stdout.contains("refused"), "{out}");
        assert_eq!(machine.run("redis-tp cli -- GET precious").ok().stdout, "data\n");
    }
}

/// Reads every entry of /proc that a user may, over and over, for the words of a file. It is quick, for a child that
/// has a word among its arguments lives for a moment only; and it asks what it has just read whose that is.
const READ_PROC: &str = r#"
$| = 1; my $rounds = 0;
until (-e '/tmp/enough') {
    open(my $list, '<', '/opt/words'); chomp(my @words = <$list>); close $list;
    opendir(my $proc, '/proc'); my @pids = grep { /^\d+$/ } readdir $proc; closedir $proc;
    for my $pid (@pids) {
        for my $name ('cmdline', 'environ', 'status', 'maps', 'mem', map { "fd/$_" } 0 .. 9) {
            # Behind those of its own may be a pipe.
            next if $name =~ /^fd/ and ((lstat "/proc/$pid/$name")[4] // $<) == $<;
            open(my $file, '<', "/proc/$pid/$name") or next;
            my $owner = (stat $file)[4];
            next if $owner == $<;
            my $text = ''; read($file, $text, 1 << 20) unless $name eq 'mem';
            print "uid $owner /proc/$pid/$name: opened\n" if $name eq 'mem';
            index($text, $_) < 0 or print "uid $owner /proc/$pid/$name: $_\n" for @words;
        }
    }
    $rounds++;
}
print "rounds $rounds\n";"#;

/// Reads every file that a user may.
const READ_FILES: &str = r"until [ -e /tmp/enough ]; do
        grep -raFs -f /opt/words /etc /var /run /tmp/control /tmp/redis* /home /srv /usr/local /root /dev/shm
        echo round
    done";

/// Holds each child of root's up at its beginning, for as long as the reader needs to come by; a server that goes on
/// does not keep the command.
const SLOWLY: &str =
    "strace -DDfqq --seccomp-bpf -o /dev/null -e trace=execve -e inject=execve:delay_exit=30000 sh -c";

/// Adds every secret that there is to the words, a line of each private key included.
const LEARN: &str = "umask 077; cd /etc/redis-tp; { cat /opt/words password *.password; tail -qn +3 tls/*.key | grep -v -e --; } 2>/dev/null |
    sort -u >/opt/words.new; chown mallory /opt/words.new; mv /opt/words.new /opt/words";

#[test]
fn a_user_of_the_machine_reads_no_password_anywhere_during_any_run() {
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        machine.run("useradd -m mallory").ok();
        machine.write("/opt/proc", READ_PROC);
        machine.write("/opt/files", READ_FILES);
        machine.run_with_input("cat >/opt/words", "Kanaria7-mallory\nKontrolle-7\n").ok();
        machine.run("cd /opt; chown mallory words; chmod 600 words; cp words /tmp/control; chmod 644 /tmp/control").ok();
        let user = "setpriv --reuid mallory --regid mallory --clear-groups";
        let readers = [
            machine.spawn(&format!("{user} perl /opt/proc >/opt/seen")),
            machine.spawn(&format!("{user} sh /opt/files >/opt/seen.files")),
        ];
        for (command, input) in [
            ("redis-tp install --password-file -", "Kanaria7-mallory\n"),
            ("redis-tp replica add --port 6380", ""),
            ("redis-tp app install --slow 0.1", ""),
            ("redis-tp cli -- SET a b; redis-tp cli --as app -- GET a", ""),
            ("redis-tp backup", ""),
            ("redis-tp install --set databases=20", ""),
            ("redis-tp check --fix --except password", ""),
            ("redis-tp verify", ""),
            ("redis-tp check; redis-tp status", ""),
            ("redis-tp users rotate", ""),
            ("redis-tp install --tls", ""),
            ("redis-tp tls client laptop /root/laptop; redis-tp tls rotate --ca", ""),
            ("redis-tp cli -- SET a b; redis-tp verify; redis-tp bench --duration 0.2", ""),
            ("redis-tp rollback", ""),
            ("redis-tp adopt; redis-tp uninstall", ""),
        ] {
            let out = machine.run_with_input(&format!("{SLOWLY} '{command}'"), input);
            assert!(out.status < 100, "{out}");
            machine.run(LEARN).ok();
        }
        // What could have been found is found: in a file, and in a child of root's that lives for a millisecond.
        machine.run("echo Kontrolle-7 >/root/control; until [ $(grep -c round /opt/seen.files) -gt 2 ]; do sleep 0.2; done").ok();
        for _ in 0..50 {
            machine.run(&format!("{SLOWLY} 'for i in 1 2 3; do xargs -a /root/control true; done'")).ok();
            if machine.read("/opt/seen").contains("cmdline: Kontrolle-7") {
                break;
            }
        }
        machine.run("touch /tmp/enough").ok();
        readers.into_iter().for_each(|reader| drop(reader.wait().ok()));
        let (proc, files) = (machine.read("/opt/seen"), machine.read("/opt/seen.files"));
        assert!(proc.contains("cmdline: Kontrolle-7"), "a child's arguments are not seen: {proc}");
        assert!(
            files.contains("/tmp/control:Kanaria7-mallory"),
            "what may be read is not found either: {files}"
        );
        let seen = proc + &files;
        let control = |line: &&str| line.ends_with("Kontrolle-7") || line.starts_with("/tmp/control:");
        let stolen: Vec<&str> = seen
            .lines()
            .filter(|line| *line != "round" && !line.starts_with("rounds ") && !control(line))
            .collect();
        assert_eq!(stolen, [""; 0]);
    }
}
