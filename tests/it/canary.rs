//! The canary: passwords that all have one word in them, which is then looked for everywhere a password
//! must not get to: output, command lines, environments, logs, journals, other people's reach.

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
];

/// Looks into every process there is, over and over.
const WATCH: &str = "while :; do
    grep -aF -f /root/canary /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' ' >>/root/seen
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
    machine.run_with_input("umask 077; cat >/root/canary", CANARY).ok();
    machine.write("/root/shim", SHIM);
    machine.write("/root/watch", WATCH);
    machine.run(SHIMS).ok();
    let watch = machine.spawn("sh /root/watch");
    let mut wrong: Vec<String> = RUNS.iter().filter_map(|run| sings(&machine, run)).collect();
    drop(watch);
    let rounds = machine.read("/root/rounds").len();
    assert!(rounds > 100, "the processes were looked at {rounds} times only");
    wrong.extend(found(&machine));
    wrong.extend(told_when_asked(&machine));
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Runs a command; says if the canary is in its output, or it ended otherwise than expected.
fn sings(machine: &Machine, (command, input, exit): &(&str, &str, Option<i32>)) -> Option<String> {
    let out = machine.run_with_input(command, input);
    let told = says(&out) && !command.contains("redis-cli");
    let panicked = out.stderr.contains("panicked");
    (told || panicked || exit.is_some_and(|exit| exit != out.status))
        .then(|| format!("## expected exit code {exit:?} and no word\n{out}"))
}

fn says(out: &Out) -> bool {
    out.stdout.contains(CANARY) || out.stderr.contains(CANARY)
}

/// The places where no canary may be, each with a command that finds it there.
const PLACES: &[(&str, &str)] = &[
    ("a command line or an environment", "cat /root/seen"),
    ("a child's arguments or environment", "grep -aF -f /root/canary /run/children"),
    ("systemd's journal", "[ ! -d /run/systemd/system ] || journalctl --no-pager | grep -aF -f /root/canary"),
    // What systemd hands to a service lies below /run/credentials, for that service's user alone.
    (
        "logs, scratch files, run time files",
        "grep -rlaF --exclude-dir=credentials -f /root/canary /var/log /tmp /var/tmp /run",
    ),
    ("our journal", "grep -laF -f /root/canary /var/lib/redis-tp/state.json /var/lib/redis-tp/runs/*/journal"),
    ("reports", "grep -laF -f /root/canary /root/junit.xml /root/summary /root/report.html /root/bench.svg"),
    (
        "a file that is not for root or the server alone",
        "find / -xdev -type f -size -1024k -exec grep -laF -f /root/canary {} + | xargs stat -c '%U:%G %a %n' |
            grep -Ev '^(root:root 600 |redis:redis 640 /etc/redis/redis[-a-z0-9]*.conf$)'",
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
