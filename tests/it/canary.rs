//! The canary: passwords that all have one word in them, which is then looked for everywhere a password
//! must not get to: output, command lines, environments, logs, journals, other people's reach. So is every secret that
//! was generated: passwords and private keys.

use crate::machine::{Init, Machine, Out, Release};
use crate::story::bare;

/// The word. No command of this file has it in it: it goes in by standard input alone.
const CANARY: &str = "Kanaria7";

/// What is run, with what on standard input, in this order; the exit code, or none where it does not
/// matter. Together they take every way that a password goes.
const RUNS: &[(&str, &str, Option<i32>)] = &[
    ("redis-tp install --password-file -", "Kanaria7-one\n", Some(0)),
    ("redis-tp replica add --port 6380 --json", "", Some(0)),
    ("redis-tp replica add --port 6390 --of 127.0.0.1:6379 --password-file -", "Kanaria7-one\n", Some(0)),
    // A topology with passwords of its own
    ("umask 077; cat >/root/lines", "maxmemory = 64mb\nuser = bob on >Kanaria7-two ~* +@read\n", Some(0)),
    ("umask 077; sed '/^.master/r /root/lines' /etc/redis-tp/topology.ini >/root/t.ini", "", Some(0)),
    ("redis-tp plan -f /root/t.ini --diff", "", Some(0)),
    ("redis-tp plan -f /root/t.ini --json", "", Some(0)),
    ("redis-tp plan -f /root/t.ini --shell", "", Some(0)),
    ("redis-tp apply -f /root/t.ini --dry-run", "", Some(0)),
    ("redis-tp apply -f /root/t.ini --json", "", Some(0)),
    // Reports
    ("redis-tp verify", "", None),
    ("redis-tp verify --json --junit /root/junit.xml", "", None),
    ("redis-tp verify --tap", "", None),
    ("redis-tp verify --restart", "", None),
    ("redis-tp verify --shell", "", Some(0)),
    ("GITHUB_ACTIONS=true GITHUB_STEP_SUMMARY=/root/summary redis-tp verify", "", None),
    ("redis-tp check; redis-tp check --json; redis-tp check --all", "", None),
    ("redis-tp check --fix --except password --dry-run; redis-tp adopt --dry-run", "", None),
    ("redis-tp status; redis-tp status --json; redis-tp replica list --json", "", None),
    ("redis-tp render", "", Some(0)),
    // The web app
    ("redis-tp app install --slow 0.1 --json", "", Some(0)),
    ("redis-tp app install --ttl 5", "", Some(0)),
    (
        "redis-tp plan --diff; redis-tp plan --shell; redis-tp render app; redis-tp service logs app",
        "",
        Some(0),
    ),
    (
        "timeout 1 redis-tp app serve --redis 127.0.0.1:6379 --port 5001 --password-file -",
        "Kanaria7-one\n",
        None,
    ),
    (
        "timeout 1 redis-tp app serve --redis 127.0.0.1:6379 --port 5001 --password-file -",
        "Kanaria7-bad\n",
        None,
    ),
    ("redis-tp app serve --config -", "{\"app\":{},\"nodes\":[{\"password\":\"Kanaria7\"}]}", Some(5)),
    ("redis-tp bench -d 1; redis-tp bench -d 1 --json --svg /root/bench.svg", "", Some(0)),
    ("redis-tp verify --html /root/report.html", "", None),
    ("redis-tp service restart app; redis-tp service stop app; redis-tp service start app", "", Some(0)),
    // What fails
    ("redis-tp install --set unixsocket=/nonexistent/socket", "", Some(8)),
    ("redis-tp install --set appendonly=maybe", "", Some(5)),
    ("redis-tp apply -f -", "[redis-tp]\npassword = Kanaria7\n[master]\nport = 6379\n", Some(5)),
    ("redis-tp apply -f -", "[master]\nport = 6379\nrequirepass Kanaria7\n", Some(5)),
    ("redis-tp apply -f -", "[master]\nport = 6379\nrequirepass = 'Kanaria7\n", Some(5)),
    ("redis-tp apply -f -", "[master]\nport = 6379\nmasterauth = Kanaria7 Kanaria7\n", Some(5)),
    ("redis-tp apply -f -", "[master]\nport = 6379\nuser = bob on >Kanaria7 +@bogus\n", Some(5)),
    ("redis-tp apply -f -", "[master]\nport = 6379\nuser = bob on <Kanaria7\n", Some(5)),
    ("redis-tp apply -f -", "[master]\nport = 6379\ntls-key-file-pass = Kanaria7 Kanaria7\n", Some(5)),
    ("redis-tp replica add --port 6391 --of 127.0.0.1:6379 --password-file -", "Kanaria7-bad\n", Some(5)),
    ("redis-tp replica add --port 6391 --of 127.0.0.1:1 --password-file -", "Kanaria7-bad\n", Some(5)),
    ("timeout -s KILL 0.1 redis-tp install --set maxmemory=65mb; redis-tp up", "", None),
    // What the server itself writes, and what somebody does by hand
    ("redis-cli", "AUTH Kanaria7-one\nCONFIG REWRITE\n", Some(0)),
    ("redis-tp plan --diff; redis-tp plan --json; redis-tp up", "", None),
    ("redis-cli", "AUTH Kanaria7-one\nCONFIG SET masterauth Kanaria7-hand\nCONFIG REWRITE\n", Some(0)),
    (
        "redis-tp plan; redis-tp plan --diff --overwrite; redis-tp up; redis-tp check; redis-tp status",
        "",
        None,
    ),
    ("redis-tp apply --overwrite --json", "", None),
    // Another password, and back
    ("redis-tp replica remove slave-6390 --purge", "", Some(0)),
    ("redis-tp install --password-file - --dry-run", "Kanaria7-three\n", Some(0)),
    ("redis-tp install --password-file -", "Kanaria7-three\n", Some(0)),
    ("redis-tp rollback --dry-run; redis-tp rollback --json", "", None),
    ("redis-cli", "AUTH Kanaria7-one\nSET a b\n", Some(0)),
    ("redis-tp backup --to /root/b.rdb && redis-tp backup --json", "", Some(0)),
    ("redis-tp restore /root/b.rdb --dry-run; redis-tp restore /root/b.rdb --json", "", None),
    ("redis-tp restore /root/b.rdb", "", Some(0)),
    ("redis-tp service restart", "", None),
    ("redis-tp service logs -n 200; redis-tp service logs --json", "", Some(0)),
    ("redis-tp status --json; redis-tp uninstall --dry-run", "", None),
    // Passwords that nobody gave, and private keys
    ("redis-tp users rotate --json; redis-tp users rotate app", "", Some(0)),
    ("redis-tp rollback --json", "", Some(0)),
    ("redis-tp install --tls --json", "", Some(0)),
    ("redis-tp tls show; redis-tp tls show --json; redis-tp render; redis-tp plan --shell", "", Some(0)),
    ("redis-tp tls client laptop /root/laptop", "", Some(0)),
    ("redis-tp tls rotate --json; redis-tp tls rotate --ca", "", Some(0)),
    ("redis-tp verify --shell; redis-tp check --all; redis-tp status; redis-tp bench -d 1", "", None),
    ("redis-tp verify --restart; redis-tp backup", "", None),
    (
        "redis-tp apply -f -",
        "[redis-tp]\ntls = yes\n[master]\nport = 6379\ntls-key-file = /root/laptop/laptop.key\n",
        Some(5),
    ),
    ("redis-tp install --no-tls --password-file -", "Kanaria7\n", Some(0)),
];

/// The same where something was done by hand, after all that redis-tp made is gone.
const BY_HAND: &[(&str, &str, Option<i32>)] = &[
    // What --fix changes: first all but the password, and then that, too
    ("chmod 755 /var/lib/redis-slave; redis-tp check --fix --except password --fail-on critical", "", Some(0)),
    ("test $(stat -c %a /var/lib/redis-slave) = 750", "", Some(0)),
    ("redis-tp check --fix --fail-on critical; ! grep -qF -f /root/canary /etc/redis-tp/password", "", Some(0)),
    ("redis-tp uninstall --purge --no-backup", "", Some(0)),
    (
        "sh",
        "apt-get install -y redis-server >/dev/null 2>&1; cd /etc/redis; ask() { { echo AUTH Kanaria7-lab; echo $2; } | redis-cli -p $1; }
        printf 'requirepass Kanaria7-lab\nprotected-mode no\n' >>redis.conf
        systemctl restart redis-server 2>/dev/null || setpriv --reuid redis --regid redis --clear-groups redis-server /etc/redis/redis.conf
        sed 's/^port .*/port 6380/; s#^dir .*#dir /var/lib/redis-slave#; s#^logfile .*#logfile /var/log/redis/redis-slave.log#' redis.conf >redis-slave.conf
        printf 'replicaof 127.0.0.1 6379\nmasterauth Kanaria7-lab\n' >>redis-slave.conf; chmod 640 redis-slave.conf; chown redis: redis-slave.conf
        mkdir /var/lib/redis-slave && redis-server /etc/redis/redis-slave.conf >/dev/null
        until ask 6380 'INFO replication' | grep -q master_link_status:up; do sleep 0.1; done",
        Some(0),
    ),
    ("redis-tp check --all; redis-tp plan; redis-tp adopt --dry-run", "", None),
    ("redis-tp adopt --json", "", Some(0)),
    ("redis-tp plan --diff; redis-tp verify; redis-tp status --json; redis-tp check", "", None),
    ("redis-cli", "AUTH Kanaria7-lab\nCONFIG SET maxmemory 64mb\nCONFIG SET masterauth Kanaria7-hand\n", Some(0)),
    ("redis-tp plan; redis-tp apply --adopt --json", "", None),
];

/// Adds every secret that there is to the words that are looked for: passwords that nobody gave, and a line of each
/// private key.
const LEARN: &str = "umask 077; { cat /root/words; cd /etc/redis-tp && cat *password && tail -qn +3 tls/*.key | grep -v -e --; } 2>/dev/null |
    grep . | sort -u >/root/words.new; mv /root/words.new /root/words";

/// Writes down every program that is begun, with arguments and environment; one that goes on keeps no command.
const TRACE: &str =
    "strace -DDfqq --seccomp-bpf -A -v -s 4096 -o /root/begun -e trace=execve sh /root/command";

/// Looks into every process there is, over and over.
const WATCH: &str = "while :; do
    grep -aF -f /root/words /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' ' >>/root/seen
    echo >>/root/rounds
done";

/// Stands before a program on PATH and writes down how it is called: no child is too short for that.
const SHIM: &str = "#!/bin/sh\n{ echo \"$0 $*\"; env; } >>/run/children\nexec /usr/bin/${0##*/} \"$@\"\n";
const SHIMS: &str = "cd /usr/local/sbin; touch /run/children; chmod 666 /run/children
    for program in redis-server systemctl journalctl apt-get dpkg; do cp /root/shim $program; chmod 755 $program; done";

#[test]
fn no_password_gets_out_where_systemd_runs_redis_7() {
    keeps_its_passwords(Release::Bookworm, Init::Systemd);
}

#[test]
fn no_password_gets_out_where_redis_8_runs_without_systemd() {
    keeps_its_passwords(Release::Trixie, Init::None);
}

fn keeps_its_passwords(release: Release, init: Init) {
    let Some(machine) = bare(release, init) else { return };
    machine.run_with_input("umask 077; cat >/root/canary; cp /root/canary /root/words", CANARY).ok();
    machine.write("/root/shim", SHIM);
    machine.write("/root/watch", WATCH);
    machine.run(SHIMS).ok();
    let watch = machine.spawn("sh /root/watch");
    let mut wrong = Vec::new();
    let mut said = Vec::new();
    for runs in [RUNS, BY_HAND] {
        for (command, input, exit) in runs {
            machine.write("/root/command", command);
            let out = machine.run_with_input(TRACE, input);
            machine.run(LEARN).ok();
            if out.stderr.contains("panicked") || exit.is_some_and(|exit| exit != out.status) {
                wrong.push(format!("## expected exit code {exit:?} of {command}\n{out}"));
            }
            said.push((*command, out));
        }
        wrong.extend(found(&machine));
    }
    drop(watch);
    let rounds = machine.read("/root/rounds").len();
    assert!(rounds > 100, "the processes were looked at {rounds} times only");
    let begun = machine.read("/root/begun");
    assert!(begun.contains("redis-server") && begun.contains("dpkg"), "no program's beginning was seen");
    let words = machine.read("/root/words");
    assert!(words.lines().count() > 20, "what was generated is not known: {words}");
    let sings = |out: &Out| words.lines().any(|word| out.stdout.contains(word) || out.stderr.contains(word));
    let sung = said.iter().filter(|(command, out)| *command != "redis-cli" && sings(out));
    wrong.extend(sung.map(|(command, out)| format!("## a secret in what this said: {command}\n{out}")));
    wrong.extend(told_when_asked(&machine));
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn says(out: &Out) -> bool {
    out.stdout.contains(CANARY) || out.stderr.contains(CANARY)
}

/// The places where no canary may be, each with a command that finds it there.
const PLACES: &[(&str, &str)] = &[
    ("a command line or an environment", "cat /root/seen"),
    ("a child's arguments or environment", "grep -aF -f /root/words /run/children"),
    ("a program's arguments or environment", "grep -aF -f /root/words /root/begun"),
    ("systemd's journal", "[ ! -d /run/systemd/system ] || journalctl --no-pager | grep -aF -f /root/words"),
    // What systemd hands to a service lies below /run/credentials, for that service's user alone.
    (
        "logs, scratch files, run time files",
        "grep -rlaF --exclude-dir=credentials -f /root/words /var/log /tmp /var/tmp /run",
    ),
    ("our journal", "grep -laF -f /root/words /var/lib/redis-tp/state.json /var/lib/redis-tp/runs/*/journal"),
    ("backups", "grep -rlaF -f /root/words /var/backups/redis-tp /root/b.rdb"),
    ("reports", "grep -laF -f /root/words /root/junit.xml /root/summary /root/report.html /root/bench.svg"),
    (
        "a file that is not for root or the server alone",
        "find / -xdev -type f -size -1024k -exec grep -laF -f /root/words {} + | xargs stat -c '%U:%G %a %n' |
            grep -Ev '^(root:root 600 |redis:redis 640 (/etc/redis/redis[-a-z0-9]*.conf$|/var/lib/redis-tp/original/)|redis:redis 400 /etc/redis-tp/tls/server.key$)'",
    ),
];

fn found(machine: &Machine) -> Vec<String> {
    let look = |(place, command): &(&str, &str)| {
        let out = machine.run(command).stdout;
        (!out.is_empty()).then(|| format!("## in {place}:\n{out}"))
    };
    let mut wrong: Vec<String> = PLACES.iter().filter_map(look).collect();
    // That nothing was found proves something only if it can be found where it may be.
    let kept = machine.run("grep -lF -f /root/canary /etc/redis-tp/password /etc/redis/redis.conf").stdout;
    if kept.lines().count() != 2 {
        wrong.push(format!("## the canary is not even where it belongs, but only in:\n{kept}"));
    }
    wrong
}

/// The two that print a password, because they were asked to; and the one that hands it on.
fn told_when_asked(machine: &Machine) -> Option<String> {
    let asked = ["redis-tp env", "redis-tp env --json", "redis-tp render master --reveal"];
    let silent = asked.iter().map(|command| machine.run(command)).find(|out| !says(out));
    let handed = machine.run("redis-tp cli -- PING");
    let silent = silent.or((handed.stdout != "PONG\n" || says(&handed)).then_some(handed));
    silent.map(|out| format!("## not what was asked for:\n{out}"))
}

#[test]
fn a_run_killed_during_the_proof_leaves_no_server_and_no_password() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run_with_input("redis-tp install --password-file -", "Kanaria7-one\n").ok();
    machine.run_with_input("umask 077; cat >/root/canary", CANARY).ok();
    // The parse probe ends by itself within milliseconds, the neutral boot never would.
    let alone =
        "for try in $(seq 50); do [ $(pgrep -c redis-server) = 1 ] && exit; sleep 0.02; done; ps ax; exit 1";
    for delay in (10..100).step_by(5).map(|ms| format!("0.{ms:03}")) {
        machine.run(&format!("timeout -s KILL {delay} redis-tp install --set maxmemory=1mb --dry-run"));
        machine.run(alone).ok();
        let left = machine.run("grep -rlaF -f /root/canary /tmp").stdout;
        assert_eq!(left, "", "after {delay} s");
    }
}
