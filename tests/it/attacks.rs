//! What the server's user could put in root's way: pid files that lie, links to secrets, units that
//! failed too often, and what a killed run leaves behind.

use nix::sys::signal::Signal;

use crate::machine::{Init, Machine, Release};
use crate::story::bare;

/// A server of the same user that is none of ours.
const FOREIGN: &str = "setpriv --reuid=redis --regid=redis --clear-groups redis-server --port 7777 \
    --daemonize yes --dir /tmp --save '' && until redis-cli -p 7777 PING; do sleep 0.05; done";

/// The process that listens on a port, 0 for none.
fn listener(machine: &Machine, port: u16) -> u32 {
    let out = machine.run(&format!("ss -Hltnp sport = :{port}")).ok().stdout;
    let pid = out.split("pid=").nth(1).and_then(|rest| rest.split(',').next());
    pid.and_then(|pid| pid.parse().ok()).unwrap_or(0)
}

#[test]
fn a_pid_file_is_a_hint_and_no_more() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up").ok();
    machine.run(FOREIGN).ok();
    let (ours, foreign) = (listener(&machine, 6379), listener(&machine, 7777));
    assert!(ours > 0 && foreign > 0);
    let slave = listener(&machine, 6380);

    // Lost, somebody else's, another instance's, a fifo: ours is found each time, and only ours.
    for lie in [
        "true".to_owned(),
        format!("echo {foreign} > /run/redis/redis-server.pid"),
        format!("echo {slave} > /run/redis/redis-server.pid"),
        "mkfifo /run/redis/redis-server.pid".to_owned(),
    ] {
        machine.run(&format!("rm -f /run/redis/redis-server.pid; {lie}")).ok();
        let again = machine.run("redis-tp up").ok();
        assert!(again.stdout.contains("No changes"), "{lie}: {again}");
        machine.run("redis-tp service stop master").ok();
        assert_eq!(listener(&machine, 6379), 0, "{lie}: master still runs");
        assert_eq!(listener(&machine, 7777), foreign, "{lie}: a foreign server is gone");
        machine.run("rm -f /run/redis/redis-server.pid && redis-tp service start master").ok();
    }

    // One that ended leaves a file with the other instance's number: it does not run.
    machine.run("redis-tp service stop master").ok();
    machine.run(&format!("echo {slave} > /run/redis/redis-server.pid")).ok();
    machine.run("redis-tp up").ok();
    assert!(listener(&machine, 6379) > 0, "master was believed to run");

    // What cannot be told to be ours is not ended, but then nothing is said to be gone.
    machine.run("redis-tp service stop master").ok();
    machine.run(&FOREIGN.replace("7777", "6379")).ok();
    let purge = machine.run("redis-tp uninstall --purge");
    assert!(purge.status != 0 && purge.stderr.contains("still holds port 6379"), "{purge}");
    machine.run(&format!("kill {}", listener(&machine, 6379))).ok();
    machine.run("until [ -z \"$(ss -Hltn sport = :6379)\" ]; do sleep 0.05; done").ok();

    machine.run("redis-tp up && rm -f /run/redis*/redis-server.pid && redis-tp uninstall --purge").ok();
    assert_eq!(listener(&machine, 6379), 0, "a server outlived the purge");
}

#[test]
fn root_prints_no_file_through_a_link() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up && echo TOP-SECRET > /root/secret && chmod 600 /root/secret").ok();
    let log = "/var/log/redis/redis-server.log";
    for trap in ["ln -s /root/secret", "ln /root/secret", "mkfifo #"] {
        machine.run(&format!("rm -f {log}; {} {log}", trap.trim_end_matches(" #"))).ok();
        let out = machine.run("timeout 10 redis-tp service logs master");
        assert!(out.status != 0 && out.status != 124, "{trap}: {out}");
        assert!(!format!("{out}").contains("TOP-SECRET"), "{trap}: {out}");
    }
    // The log's path is out of a file that the server's user writes.
    machine.run("redis-tp service stop master").ok();
    machine.run("sed -i 's|^logfile .*|logfile /root/secret|' /etc/redis/redis.conf").ok();
    let out = machine.run("redis-tp status; redis-tp service start master");
    assert!(!format!("{out}").contains("TOP-SECRET"), "{out}");
}

#[test]
fn a_unit_that_failed_too_often_is_started_and_the_cause_comes_first() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install && redis-tp service stop master").ok();
    machine.run("cp -p /etc/redis/redis.conf /root/ && echo nonsense 1 >> /etc/redis/redis.conf").ok();
    let tries =
        "for i in 1 2 3 4 5 6 7; do systemctl start redis-server; done; truncate -s 0 /var/log/redis/*";
    machine.run(tries);
    let failed = machine.run("redis-tp service start master");
    assert!(failed.status != 0 && !failed.stderr.contains("error: :"), "{failed}");
    let (cause, logs) = (failed.stderr.find("systemctl start"), failed.stderr.find("the last lines of"));
    assert!(cause.is_some() && logs.is_none_or(|logs| cause < Some(logs)), "{failed}");

    machine.run("cp -p /root/redis.conf /etc/redis/redis.conf").ok();
    machine.run(tries);
    machine.run("cp -p /root/redis.conf /etc/redis/redis.conf; systemctl stop redis-server").ok();
    machine.run("echo nonsense 1 >> /etc/redis/redis.conf").ok();
    machine.run(tries);
    machine.run("cp -p /root/redis.conf /etc/redis/redis.conf && redis-tp service start master").ok();
}

#[test]
fn a_killed_proof_leaves_no_way_in_no_server_and_no_password() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install").ok();
    let at_work = "/run/redis-tp/*/server";
    let caught = (0..20).any(|_| {
        let mut running = machine.spawn("redis-tp install --set maxclients=500 --dry-run");
        while running.is_running() && machine.run(&format!("test -e {at_work}")).status != 0 {}
        running.signal(Signal::SIGKILL);
        drop(running);
        // One that was hit while it made its directory, or took it away, is no proof at work.
        machine
            .run(&format!("[ \"$(stat -c %U {at_work})\" = redis ] || {{ rm -rf /run/redis-tp; false; }}"))
            .status
            == 0
    });
    assert!(caught, "no proof was caught at work");
    let left = machine.run(&format!("stat -c '%U:%G %a' /run/redis-tp /run/redis-tp/* {at_work}")).ok();
    assert_eq!(left.stdout, "root:root 711\nroot:root 711\nredis:redis 700\n");
    let password = machine.read("/etc/redis-tp/password");
    machine.run(&format!("grep -r {} /run/redis-tp", password.trim())).exits(1);
    machine
        .run("for n in $(seq 100); do [ $(pgrep -c redis-server) = 1 ] && exit; sleep 0.05; done; exit 1")
        .ok();
    machine.run("redis-tp install").ok();
    assert!(!machine.exists("/run/redis-tp"), "a scratch directory is left");
    // Ended by a signal, it leaves none in the first place.
    let mut running = machine.spawn("redis-tp install --set maxclients=500 --dry-run");
    while running.is_running() && !machine.exists("/run/redis-tp") {}
    running.signal(Signal::SIGTERM);
    running.wait();
    assert!(!machine.exists("/run/redis-tp"), "SIGTERM left a scratch directory");
}

#[test]
fn the_policy_of_a_killed_run_forbids_nothing() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    let mut running = machine.spawn("redis-tp install");
    // It is there before it is a program.
    let mut forbids = false;
    while running.is_running() && !forbids {
        forbids = machine.run("/usr/sbin/policy-rc.d redis-server start").status == 101;
    }
    assert!(forbids, "nothing was ever forbidden");
    running.signal(Signal::SIGKILL);
    drop(running);
    machine.run("/usr/sbin/policy-rc.d redis-server start").exits(0);
}
