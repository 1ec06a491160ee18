//! The audit beside somebody who knows that it will come: servers that listen for passwords or never stop talking,
//! names that move the cursor, files that are none.

use crate::machine::{Init, Machine, Release};
use crate::story::bare;

/// A server of anybody's: it keeps what it hears in /tmp/heard.PORT.
const SERVER: &str = r#"use Socket; my ($port, $way) = @ARGV;
open(my $comm, '>', '/proc/self/comm'); print $comm "redis-server"; close $comm;
socket(S, PF_INET, SOCK_STREAM, 6); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
bind(S, sockaddr_in($port, inet_aton("127.0.0.1"))) or die; listen(S, 20);
open(L, '>>', "/tmp/heard.$port"); select((select(L), $| = 1)[0]);
while (accept(C, S)) {
    next if fork();
    while (sysread(C, my $said, 4096)) {
        print L $said;
        next if $way eq 'mute';
        if ($way eq 'drip') { while (syswrite(C, '$')) { select(undef, undef, undef, 0.3) } exit }
        if ($way eq 'flood') { syswrite(C, "\$4000000000\r\n"); while (syswrite(C, 'x' x 65536)) {} exit }
        if ($way eq 'rubbish') { syswrite(C, "\x1b[2J\$999999999\r\nxx\r\n*1000000000\r\n" x 10); next }
        syswrite(C, "-NOAUTH Authentication required.\r\n");
    }
    exit;
}
"#;

/// A server that says that its log is another file.
const LIAR: &str = r#"use Socket; my ($port, $log) = @ARGV; my $pid = $$;
open(my $comm, '>', '/proc/self/comm'); print $comm "redis-server"; close $comm;
socket(S, PF_INET, SOCK_STREAM, 6); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1);
bind(S, sockaddr_in($port, inet_aton("127.0.0.1"))) or die; listen(S, 20);
sub bulk { my $text = shift; return '$' . length($text) . "\r\n$text\r\n" }
while (accept(C, S)) {
    next if fork();
    while (sysread(C, my $said, 4096)) {
        for (split /(?=\*\d+\r\n)/, $said) {
            my $answer = "+OK\r\n";
            $answer = "*2\r\n" . bulk('logfile') . bulk($log) if /\r\nCONFIG\r\n/;
            $answer = bulk("redis_version:7.0.15\r\nprocess_id:$pid\r\nrole:master\r\n") if /\r\nINFO\r\n/;
            $answer = "+PONG\r\n" if /\r\nPING\r\n/;
            syswrite(C, $answer);
        }
    }
    exit;
}
"#;

fn with_mallory(release: Release, init: Init) -> Option<Machine> {
    let machine = bare(release, init)?;
    machine.run("useradd -m mallory").ok();
    machine.write("/opt/server", SERVER);
    Some(machine)
}

fn serve(machine: &Machine, user: &str, port: u16, way: &str) {
    let start = format!(
        "setpriv --reuid {user} --regid {user} --clear-groups setsid perl /opt/server {port} {way} </dev/null >/dev/null 2>&1 &
        until grep -q {} /proc/net/tcp; do sleep 0.05; done",
        format_args!("'0100007F:{port:04X} 00000000:0000 0A'")
    );
    machine.run(&start).ok();
}

#[test]
fn who_waits_for_a_password_hears_none() {
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = with_mallory(release, init) else { return };
        machine.run("redis-tp install").ok();
        serve(&machine, "mallory", 7000, "locked");
        machine.run("redis-tp check --except let-in --fail-on critical").ok();
        machine.run("redis-tp service stop master").ok();
        serve(&machine, "mallory", 6379, "locked");
        let out = machine.run("redis-tp cli -- PING").exits(5);
        assert!(out.stderr.contains("who is not told the password"), "{out}");
        for command in [
            "check",
            "status",
            "verify",
            "cli -- PING",
            "plan",
            "up --no-app",
            "install --port 6390",
            "backup",
            "check --fix",
            "service start master",
            "adopt",
            "rollback",
            "uninstall",
        ] {
            let out = machine.run(&format!("redis-tp {command}"));
            assert_ne!(out.status, 124, "{command} waits for ever: {out}");
            let heard = machine.read("/tmp/heard.6379");
            assert!(!heard.contains("AUTH"), "{command}: {out}: {heard}");
        }
        // The one is looked at, and the other is asked for what it is; but nobody logs in.
        assert!(machine.read("/tmp/heard.7000").contains("PING"));
        for port in [7000, 6379] {
            let heard = machine.read(format!("/tmp/heard.{port}"));
            let told = heard.contains("AUTH") || heard.contains("requirepass");
            assert!(
                !told && !heard.contains(machine.read("/etc/redis-tp/password").trim()),
                "{port}: {heard}"
            );
        }
    }
}

#[test]
fn a_server_that_says_rubbish_or_nothing_to_an_end_does_not_hold_up_the_audit() {
    let Some(machine) = with_mallory(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install").ok();
    let ways = ["mute", "drip", "flood", "rubbish"];
    for (port, way) in (7000..).zip(ways) {
        serve(&machine, "mallory", port, way);
    }
    // Whoever has the server's own user is asked, and not for ever.
    serve(&machine, "redis", 7010, "drip");
    let out = machine.run("ulimit -v 2000000; timeout 60 redis-tp check --all --fail-on critical");
    let seen = |id: &str| out.stdout.lines().filter(|line| line.starts_with(&format!("? {id} "))).count();
    assert_eq!(seen("let-in"), ways.len() + 1, "{out}");
    assert!(out.stdout.contains("✓ users "), "nothing else was looked at: {out}");
}

#[test]
fn what_something_calls_itself_neither_moves_the_cursor_nor_runs() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install").ok();
    let name = r#"$(printf '\033[2Jx;touch${IFS}/tmp/in')"#;
    for (rules, cure) in
        [("on nopass +get", "redis-tp apply --overwrite"), ("on '>long-enough-for-all' +@all", "")]
    {
        machine.run(&format!("redis-tp cli -- ACL SETUSER \"{name}\" {rules}")).ok();
        for command in
            ["check", "check --json", "plan", "plan --shell --overwrite", "apply --dry-run --overwrite"]
        {
            let out = machine.run(&format!("script -qec 'redis-tp {command}' /dev/null"));
            assert!(!out.stdout.contains("\u{1b}[2J"), "{command}: {out}");
        }
        let out = machine.run("redis-tp check").exits(4).stdout;
        assert!(out.contains(r"\u{1b}[2Jx") && out.contains(cure), "{out}");
    }
    machine.run("redis-tp cli -- ACL SETUSER 'a;touch${IFS}/tmp/in' on nopass +get").ok();
    let out = machine.run("redis-tp check").stdout;
    let cure = out.lines().find_map(|line| line.trim().strip_prefix("cure:  redis-tp cli")).expect("a cure");
    machine.run(&format!("redis-tp cli{cure}")).ok();
    assert!(!machine.exists("/tmp/in"), "{cure}");
}

#[test]
fn no_fix_closes_a_directory_that_only_a_server_says_is_its_own() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install && mkdir -m 755 /srv/shared").ok();
    let modes = "stat -c '%a %n' / /srv/shared /etc";
    let before = machine.run(modes).ok().stdout;
    for (port, dir) in [(7001, "/"), (7002, "/srv/shared"), (7003, "/etc")] {
        machine
            .run(&format!("cd {dir} && redis-server --port {port} --daemonize yes --save '' && until redis-cli -p {port} PING; do sleep 0.05; done"))
            .ok();
    }
    let out = machine.run("redis-tp check --fix --fail-on critical");
    assert!(!out.stdout.contains("chmod"), "{out}");
    assert_eq!(machine.run(modes).ok().stdout, before);
    // Its file is another matter.
    machine.run("redis-cli -p 7002 SET a b && redis-cli -p 7002 SAVE && chmod 644 /srv/shared/dump.rdb").ok();
    let out = machine.run("redis-tp check");
    assert!(out.stdout.contains("/srv/shared/dump.rdb has mode 0644"), "{out}");
}

#[test]
fn no_fix_closes_a_file_to_which_a_log_leads_out_of_its_directory() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install").ok();
    machine.write("/opt/server", LIAR);
    serve(&machine, "redis", 7005, "/var/log/redis/../../../etc/passwd");
    let out = machine.run("redis-tp check --fix --fail-on critical");
    assert!(out.stdout.contains("/var/log/redis/../../../etc/passwd has"), "{out}");
    assert_eq!(machine.run("stat -c %a /etc/passwd").stdout, "644\n", "{out}");
}

#[test]
fn a_configuration_that_cannot_be_read_is_no_pass_and_hides_no_other() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install").ok();
    machine
        .run(
            "cd /etc/redis && chmod 755 . && truncate -s 80M redis-huge.conf && printf 'requirepass \\377\\n' > redis-bytes.conf
            printf 'requirepass \"\\033[2J' > redis-torn.conf && mkfifo redis-fifo.conf && ln -s redis-loop.conf redis-loop.conf
            ln -s /dev/zero redis-zero.conf && chmod 644 redis-*.conf; chown redis: redis-*.conf; true",
        )
        .ok();
    let out = machine.run("timeout 60 redis-tp check --all").exits(4);
    for name in ["huge", "bytes", "torn"] {
        let line = format!("/etc/redis/redis-{name}.conf has");
        assert!(out.stdout.split_whitespace().collect::<Vec<_>>().join(" ").contains(&line), "{name}: {out}");
    }
    assert!(out.stdout.contains("✓ users ") && !out.stdout.contains("\u{1b}[2J"), "{out}");
    machine.run("redis-tp adopt").exits(5);
}

#[test]
fn a_user_who_is_logged_in_is_not_taken_away_by_a_fix() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install --bind 0.0.0.0").ok();
    machine
        .run(
            "redis-tp cli -- ACL SETUSER metrics on '>some-thing-very-long-indeed' +info +client +blpop '~*'",
        )
        .ok();
    let mut client =
        machine.spawn("redis-cli --user metrics --pass some-thing-very-long-indeed BLPOP nothing 0");
    machine.run("until redis-tp cli -- CLIENT LIST | grep -q user=metrics; do sleep 0.05; done").ok();
    let out = machine.run("redis-tp check --fix").exits(5);
    assert!(out.stderr.contains("the user metrics is logged in to master"), "{out}");
    assert!(client.is_running() && machine.run("redis-tp cli -- ACL USERS").stdout.contains("metrics"));
}

#[test]
fn whoever_fills_a_directory_is_told_and_holds_nothing_up() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install").ok();
    machine.run("for i in $(seq 600); do truncate -s 1M /tmp/$i; done").ok();
    let out = machine.run("timeout 120 redis-tp check").ok();
    assert!(out.stdout.contains("? secrets-files "), "{out}");
    machine.run("rm /tmp/*; redis-tp check --fail-on high").ok();
}
