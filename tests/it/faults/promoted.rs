//! A replica that somebody promoted, and a run that is killed at any effect: nothing that only this server holds
//! is lost, and the same command again converges.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Struck, disturb_later};
use crate::machine::{Init, Release};
use crate::story::bare;

/// The package as it came, and nothing else.
pub const WIPE: &str = r#"
    umask 022
    for pid in $(pidof redis-server); do
        [ $pid = "$(systemctl show -P MainPID redis-server 2>/dev/null)" ] || kill -9 $pid
    done
    systemctl stop redis-server redis-server@slave 2>/dev/null
    while pidof redis-server >/dev/null; do sleep 0.01; done
    rm -rf /etc/redis-tp /var/lib/redis-tp /var/lib/redis-slave /var/lib/redis/* /var/log/redis/* /etc/redis/* /etc/redis/.[a-z]*
    rm -rf /etc/systemd/system/redis-server* /etc/systemd/system/multi-user.target.wants/redis-server*
    cp -a /root/package/. /etc/redis/
    systemctl daemon-reload 2>/dev/null; systemctl enable redis-server 2>/dev/null"#;

/// The lab by hand: a replica that root started, that saves nothing.
const LAB: &str = r#"
    cd /etc/redis
    sed -i 's/^bind .*/bind 0.0.0.0/; s/^protected-mode .*/protected-mode no/; s/^# requirepass .*/requirepass s3cret/
        s/^\(repl-diskless-sync-delay\) .*/\1 0/' redis.conf
    systemctl start redis-server 2>/dev/null ||
        setpriv --reuid redis --regid redis --clear-groups redis-server /etc/redis/redis.conf
    cp redis.conf redis-slave.conf
    sed -i 's/^port .*/port 6380/; s#^dir .*#dir /var/lib/redis-slave#
        s#^logfile .*#logfile /var/log/redis/redis-slave.log#' redis-slave.conf
    printf 'replicaof 127.0.0.1 6379\nmasterauth s3cret\n' >>redis-slave.conf
    mkdir /var/lib/redis-slave
    redis-server /etc/redis/redis-slave.conf >/dev/null 2>&1
    ask() { redis-cli --no-auth-warning -a s3cret -p "$@"; }
    until ask 6379 SET precious data; do sleep 0.01; done >/dev/null 2>&1
    until ask 6380 CONFIG SET save ''; do sleep 0.01; done >/dev/null 2>&1"#;

/// Both as redis-tp makes them, and a change that restarts both.
const OURS: &str = r"
    (umask 077; echo s3cret >/root/password; mkdir -p /etc/redis-tp; echo fixed >/etc/redis-tp/replica.password)
    chmod 755 /etc/redis-tp
    redis-tp install --password-file /root/password && redis-tp replica add --port 6380
    redis-tp cli -- SET precious data
    sed -i '/^port/adatabases = 20' /etc/redis-tp/topology.ini";

/// A promotion that no file has, and a key that no file has.
const PROMOTE: &str = r#"
    ask() { redis-cli --no-auth-warning -a s3cret -p "$@"; }
    until ask 6380 INFO replication | grep -q link_status:up; do sleep 0.01; done
    ask 6380 REPLICAOF NO ONE; ask 6380 SET own data"#;

/// What the servers hold, as who they run, whether a run is open, and what is in the files.
const JUDGE: &str = r#"
    redis-cli --no-auth-warning -a s3cret -p 6379 GET precious
    redis-cli --no-auth-warning -a s3cret -p 6380 GET own
    ps -C redis-server -o user --no-headers
    redis-tp plan --detailed-exitcode 2>&1 | head -1
    sha256sum /etc/redis/* /etc/redis-tp/*
    find /etc/systemd/system /var/lib/redis-tp/runs/*/journal /etc/redis /etc/redis-tp | wc -l
    stat -c '%U %a %n' /var/lib/redis-slave /var/lib/redis-slave/* /var/log/redis/*"#;

const WHOLE: &str = "data\ndata\nredis\nredis\nNo changes.\n";

fn killed_at_every_effect(init: Init, prepare: &str, command: &str, code: i32) {
    let Some(machine) = bare(Release::Bookworm, init) else { return };
    machine.run("apt-get install -y redis-server >/dev/null 2>&1 && cp -a /etc/redis /root/package").ok();
    let prepare = format!("{WIPE}\n{prepare}\n{PROMOTE}");
    machine.run(&prepare).ok();
    machine.run(command).exits(code);
    let after = machine.run(JUDGE).ok().stdout;
    assert!(after.starts_with(WHOLE), "{after}");
    for pause in [0, 4].map(Duration::from_millis) {
        let mut hits = 0;
        for lines in 1..60 {
            machine.run(&prepare).ok();
            let (struck, out) = disturb_later(&machine, command, lines, Signal::SIGKILL, pause);
            if struck != Struck::Hit {
                out.clone().exits(code);
            }
            match struck {
                Struck::Hit => hits += 1,
                Struck::Missed => continue,
                Struck::Over => break,
            }
            let again = machine.run(command).exits(code);
            let story = format!("killed at {lines}, {pause:?} later:\n{out}\n{again}");
            assert_eq!(machine.run(JUDGE).ok().stdout, after, "{story}");
        }
        assert!(hits > 8, "only {hits} kills");
    }
}

#[test]
fn a_takeover_killed_at_any_effect_loses_nothing() {
    killed_at_every_effect(Init::None, LAB, "redis-tp adopt", 0);
}

#[test]
fn a_takeover_killed_at_any_effect_under_systemd_loses_nothing() {
    killed_at_every_effect(Init::Systemd, LAB, "redis-tp adopt", 0);
}

#[test]
fn a_restart_of_a_promoted_replica_killed_at_any_effect_loses_nothing() {
    killed_at_every_effect(Init::None, OURS, "redis-tp apply", 3);
}

#[test]
fn a_restart_of_a_promoted_replica_killed_at_any_effect_under_systemd_loses_nothing() {
    killed_at_every_effect(Init::Systemd, OURS, "redis-tp apply", 3);
}
