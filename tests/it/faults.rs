//! kill -9 and failures at any step: the next run recovers and converges, or the former state is back.

mod bench;
mod crowd;
mod disks;
mod dpkg;
pub mod promoted;
mod syscalls;

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::machine::{Alike, Init, Machine, Out, Release, Snapshot, differences};
use crate::story::{bare, places};

/// A command to disturb, on a machine that `prepare` made ready for it.
struct Case {
    name: &'static str,
    prepare: &'static str,
    command: &'static str,
}

const CASES: [Case; 8] = [
    Case { name: "install", prepare: "true", command: "redis-tp install --password-file /root/password" },
    Case {
        name: "replica add",
        prepare: "redis-tp install --password-file /root/password",
        command: "redis-tp replica add --port 6380",
    },
    Case {
        name: "a changed directive",
        prepare: "redis-tp install --password-file /root/password && redis-tp replica add --port 6380",
        command: "redis-tp install --set maxclients=500",
    },
    Case {
        name: "a changed directive that needs a restart",
        prepare: "redis-tp install --password-file /root/password && redis-tp replica add --port 6380",
        command: "redis-tp install --set databases=20",
    },
    Case {
        name: "another password",
        prepare: "redis-tp install --password-file /root/password && redis-tp replica add --port 6380",
        command: "redis-tp install --password-file /root/another",
    },
    Case {
        name: "replica remove",
        prepare: "redis-tp install --password-file /root/password && redis-tp replica add --port 6380",
        command: "redis-tp replica remove slave",
    },
    Case {
        name: "app install",
        prepare: "redis-tp install --password-file /root/password",
        command: "redis-tp app install --slow 0.1",
    },
    Case {
        name: "a changed lifetime of the app's",
        prepare: "redis-tp install --password-file /root/password && redis-tp app install --slow 0.1",
        command: "redis-tp app install --ttl 5",
    },
];

/// Passwords that are there before the run, so that two runs can be compared.
const FIXED: &str = "mkdir -p /etc/redis-tp && chmod 755 /etc/redis-tp && for user in replica app; do
    (umask 077; echo \"fixed-for-$user\" > /etc/redis-tp/$user.password)
done";

/// A machine with the package on it and nothing of ours.
fn with_package(release: Release, init: Init) -> Option<Machine> {
    let machine = bare(release, init)?;
    machine
        .run("apt-get install -y redis-server && echo secret > /root/password && echo other > /root/another")
        .ok();
    machine.run("systemctl stop redis-server 2>/dev/null || true").ok();
    Some(machine)
}

/// What has to be alike in the end; not the servers' own data and logs, nor our history of runs.
fn lasting(machine: &Machine) -> Snapshot {
    let mut snapshot = places(machine);
    let passing = ["/run/", "/var/log/", "/runs", ".rdb", "/var/lib/redis-tp/lock"];
    snapshot.retain(|path, _| !passing.iter().any(|part| path.to_string_lossy().contains(part)));
    snapshot
}

/// How many effects the run in progress, or one that was killed, has announced; none when it came to its end.
pub fn announced(machine: &Machine) -> usize {
    let open = last_journal(machine).filter(|text| !text.contains(END));
    open.map_or(0, |text| text.lines().count())
}

/// How the last line of a journal begins.
const END: &str = "{\"end\"";

fn last_journal(machine: &Machine) -> Option<String> {
    let runs = machine.root().join("var/lib/redis-tp/runs");
    let last = std::fs::read_dir(runs).ok()?.flatten().map(|entry| entry.path()).max()?;
    std::fs::read_to_string(last.join("journal")).ok()
}

/// What came of a signal to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Struck {
    /// It met the run. A killed one died of it: one that has ended but is not waited for takes any signal.
    Hit,
    /// The run was at its end before anybody had looked: this machine was slow.
    Missed,
    /// The run has no so many effects.
    Over,
}

impl Struck {
    /// Of a run that came to its end by itself.
    fn not(machine: &Machine, lines: usize) -> Self {
        let last = last_journal(machine).filter(|text| text.contains(END));
        if last.is_some_and(|text| text.lines().count() > lines) { Self::Missed } else { Self::Over }
    }
}

/// Runs a command, and sends it a signal when it has announced `lines` effects.
pub fn disturb(machine: &Machine, command: &str, lines: usize, signal: Signal) -> (Struck, Out) {
    disturb_later(machine, command, lines, signal, Duration::ZERO)
}

/// [`disturb`], a moment later than that.
pub fn disturb_later(
    machine: &Machine,
    command: &str,
    lines: usize,
    signal: Signal,
    pause: Duration,
) -> (Struck, Out) {
    let mut running = machine.spawn(command);
    let end = Instant::now() + Duration::from_secs(60);
    while running.is_running() && Instant::now() < end {
        if announced(machine) >= lines {
            thread::sleep(pause);
            let sent = running.signal(signal);
            let out = running.wait();
            let hit = sent && (signal != Signal::SIGKILL || out.status == 137);
            return (if hit { Struck::Hit } else { Struck::not(machine, lines) }, out);
        }
        thread::sleep(Duration::from_micros(200));
    }
    let out = running.wait();
    (Struck::not(machine, lines), out)
}

/// Disturbs each case at every effect, until a run ends undisturbed.
fn at_every_effect(init: Init, signal: Signal, check: impl Fn(&Machine, &Case, &Out, [&Snapshot; 2])) {
    let Some(machine) = with_package(Release::Bookworm, init) else { return };
    for case in &CASES {
        machine.run(&format!("{FIXED}\n{}", case.prepare)).ok();
        let before = lasting(&machine);
        machine.run(case.command).ok();
        let after = lasting(&machine);
        machine.run("redis-tp uninstall --purge").ok();
        let mut hits = 0;
        for lines in 1..60 {
            machine.run(&format!("{FIXED}\n{}", case.prepare)).ok();
            let (struck, out) = disturb(&machine, case.command, lines, signal);
            if struck == Struck::Hit {
                hits += 1;
                check(&machine, case, &out, [&before, &after]);
            }
            machine.run("redis-tp uninstall --purge").ok();
            if struck == Struck::Over {
                break;
            }
        }
        assert!(hits > 3, "{}: only {hits} disturbances", case.name);
    }
}

fn killed(machine: &Machine, case: &Case, out: &Out, [_, after]: [&Snapshot; 2]) {
    let again = machine.run(case.command).ok();
    let left = differences(after, &lasting(machine), Alike::Equivalent);
    assert_eq!(left, [""; 0], "{} killed, then again:\n{out}\n{again}", case.name);
    machine.run("redis-tp status").ok();
}

fn ended(machine: &Machine, case: &Case, out: &Out, [before, after]: [&Snapshot; 2]) {
    let expected = match out.status {
        8 => before,
        // The signal came behind the last step.
        0 => after,
        _ => panic!("{}: {out}", case.name),
    };
    let left = differences(expected, &lasting(machine), Alike::Equivalent);
    assert_eq!(left, [""; 0], "{} ended by SIGTERM:\n{out}", case.name);
}

#[test]
fn killed_at_any_effect_the_same_command_again_converges() {
    at_every_effect(Init::None, Signal::SIGKILL, killed);
}

#[test]
fn killed_at_any_effect_under_systemd_the_same_command_again_converges() {
    at_every_effect(Init::Systemd, Signal::SIGKILL, killed);
}

#[test]
fn ended_between_any_two_steps_the_former_state_is_back() {
    at_every_effect(Init::None, Signal::SIGTERM, ended);
}

#[test]
fn ended_between_any_two_steps_under_systemd_the_former_state_is_back() {
    at_every_effect(Init::Systemd, Signal::SIGTERM, ended);
}

/// Kills a run when it starts its servers, or a moment later, and goes on at once: until a server has left
/// its pid file, nothing tells of it.
const JUST_STARTED: &str = r#"
    redis-tp up --no-app & run=$!
    until grep -qs '"undo":"stop"' /var/lib/redis-tp/runs/*/journal; do kill -0 $run || break; done
    sleep PAUSE; kill -9 $run; wait $run; [ $? = 137 ] && echo killed
    # What it was about to start keeps its lock until it is another program.
    until redis-tp uninstall --purge; do [ $? = 6 ] || exit 1; done
    sleep 0.3; for try in $(seq 100); do pgrep -a redis-server || exit 0; sleep 0.05; done; exit 1"#;

#[test]
fn a_server_that_was_just_started_does_not_outlive_its_killed_run() {
    let Some(machine) = with_package(Release::Bookworm, Init::None) else { return };
    let before = lasting(&machine);
    let mut hits = 0;
    for round in 0..24 {
        let pause = format!("0.{:04}", round % 12 * 25);
        let out = machine.run(&JUST_STARTED.replace("PAUSE", &pause)).ok();
        hits += usize::from(out.stdout.contains("killed"));
    }
    assert!(hits > 12, "only {hits} runs were killed half-way");
    assert_eq!(differences(&before, &lasting(&machine), Alike::Equivalent), [""; 0]);
}

#[test]
fn killed_while_apt_works_no_policy_stays_and_the_next_run_converges() {
    for pause in [0, 150, 600, 1200] {
        let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
        let mut running = machine.spawn("redis-tp up");
        while running.is_running() && !machine.exists("/usr/sbin/policy-rc.d") {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(pause));
        running.signal(Signal::SIGKILL);
        drop(running);
        machine.run("redis-tp up").ok();
        assert!(!machine.exists("/usr/sbin/policy-rc.d"), "a policy-rc.d is left behind");
        machine.run("redis-tp verify").ok();
        machine.run("redis-tp uninstall --purge").ok();
        machine.run("dpkg -s redis-server").exits(1);
    }
}

#[test]
fn a_failing_systemctl_brings_the_former_state_back() {
    let Some(machine) = with_package(Release::Bookworm, Init::Systemd) else { return };
    let before = lasting(&machine);
    for verb in ["start", "enable", "daemon-reload"] {
        let wrapper = format!("#!/bin/sh\n[ \"$1\" = {verb} ] && exit 1\nexec /usr/bin/systemctl \"$@\"\n");
        machine.write("/usr/local/sbin/systemctl", wrapper);
        machine.run("chmod 755 /usr/local/sbin/systemctl").ok();
        let out = machine.run("redis-tp up");
        // The way back needs systemctl too: where it cannot reload, the journal is kept.
        assert!(if verb == "daemon-reload" { out.status == 9 } else { out.status == 8 }, "{verb}: {out}");
        machine.run("rm /usr/local/sbin/systemctl").ok();
        if verb == "daemon-reload" {
            machine.run("redis-tp rollback").ok();
        }
        assert_eq!(differences(&before, &lasting(&machine), Alike::Equivalent), [""; 0], "{verb}: {out}");
    }
}

#[test]
fn a_link_that_never_comes_up_brings_the_former_state_back() {
    let Some(machine) = with_package(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install --password-file /root/password").ok();
    machine.run("chmod 600 /etc/redis-tp/topology.ini").ok();
    let before = lasting(&machine);
    let topology = machine.read("/etc/redis-tp/topology.ini");
    let wrong = format!("{topology}\n[slave]\nport = 6380\nreplicaof = master\nmasterauth = wrong\n");
    machine.write("/root/wrong.ini", wrong);
    machine.run("chmod 600 /root/wrong.ini").ok();
    let out = machine.run("redis-tp apply -f /root/wrong.ini").exits(8);
    assert!(out.stderr.contains("slave has no link to 127.0.0.1:6379"), "{out}");
    assert_eq!(differences(&before, &lasting(&machine), Alike::Equivalent), [""; 0], "{out}");
    assert_eq!(machine.run("ss -Hltn sport = :6380").ok().stdout, "", "the replica still runs");
}

#[test]
fn a_rollback_undoes_runs_one_by_one() {
    let Some(machine) = with_package(Release::Bookworm, Init::Systemd) else { return };
    let mut states = vec![lasting(&machine)];
    for command in
        [CASES[0].command, "redis-tp replica add --port 6380", "redis-tp install --set maxclients=500"]
    {
        machine.run(command).ok();
        states.push(lasting(&machine));
    }
    while states.len() > 1 {
        states.pop();
        machine.run("redis-tp rollback").ok();
        let expected = states.last().expect("the first state stays");
        let now = lasting(&machine);
        assert_eq!(
            differences(expected, &now, Alike::Equivalent),
            [""; 0],
            "rollback to state {}",
            states.len()
        );
    }
    let none = machine.run("redis-tp rollback").ok();
    assert!(none.stdout.contains("No changes"), "{none}");
}

#[test]
fn a_rollback_does_not_overwrite_a_hand_edit_in_silence() {
    let Some(machine) = with_package(Release::Bookworm, Init::None) else { return };
    machine.run(CASES[0].command).ok();
    machine.run("redis-tp install --set maxclients=500").ok();
    machine.run("echo 'timeout 5' >> /etc/redis/redis.conf").ok();
    let refused = machine.run("redis-tp rollback").exits(5);
    assert!(refused.stderr.contains("/etc/redis/redis.conf was changed by hand since"), "{refused}");
    machine.run("redis-tp rollback --overwrite").ok();
    assert!(!machine.read("/etc/redis/redis.conf").contains("timeout 5"));
}
