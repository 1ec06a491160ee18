//! A disk that is really full, or read-only: where configuration, state, data or logs lie.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::announced;
use super::syscalls::all;
use crate::machine::{Alike, Init, Machine, Out, Release, Snapshot, differences};
use crate::story::bare;

/// What may lie on a disk of its own.
const PLACES: [&str; 6] =
    ["/etc/redis", "/etc/redis-tp", "/var/lib/redis-tp", "/var/lib/redis", "/var/log/redis", "/run"];

/// What a run is to change.
const PREPARE: &str = "redis-tp install --password-file /root/password && redis-tp replica add --port 6380 &&
    redis-tp cli -- SET bonjour monde && until redis-tp cli slave -- GET bonjour | grep -q monde; do sleep 0.02; done";
/// The same, where the data are there.
const PREPARE_AGAIN: &str =
    "redis-tp install --password-file /root/password && redis-tp replica add --port 6380";
const COMMANDS: [&str; 4] = [
    "redis-tp install --set databases=20",
    "redis-tp replica add --port 6381",
    "redis-tp rollback",
    "redis-tp uninstall",
];

/// What is left on the disk. A run wants a MiB beforehand; a disk with room that takes no more files fails
/// it in its middle.
const LEFT: [Left; 7] = [
    Left::KiB(0),
    Left::KiB(8),
    Left::KiB(1000),
    Left::Files(0),
    Left::Files(1),
    Left::Files(2),
    Left::Files(4),
];

#[derive(Clone, Copy, Debug)]
enum Left {
    KiB(u32),
    Files(u32),
}

/// What has to be as it was: not the data, the logs, and our history of runs.
fn lasting(machine: &Machine) -> Snapshot {
    let mut snapshot = machine.snapshot(&["/etc/redis", "/etc/redis-tp", "/var/lib/redis-tp"]);
    let passing = ["/var/lib/redis-tp/runs", "/var/lib/redis-tp/lock"];
    let filled = |path: &Path| path.components().any(|part| part.as_os_str() == "fill");
    snapshot.retain(|path, _| !passing.iter().any(|place| path.starts_with(place)) && !filled(path));
    snapshot
}

/// A machine with master and replica, one of whose directories lies on a small disk.
fn with_disk(machine: &Machine, place: &str) {
    // A server that runs would go on in the directory beneath, and save there.
    machine
        .run(&format!(
            "redis-tp service stop slave && redis-tp service stop master && mkdir -p /root/was &&
            (cd {place} && tar --one-file-system --exclude=./host -c .) | tar -C /root/was -x &&
            mount -t tmpfs -o size=4m,nr_inodes=200,mode=$(stat -c %a {place}) tmpfs {place} &&
            cp -a /root/was/. {place}/ && chown --reference=/root/was {place} && rm -rf /root/was &&
            redis-tp service start master && redis-tp service start slave"
        ))
        .ok();
}

fn fill(machine: &Machine, place: &str, left: Left) {
    let fill = match left {
        Left::KiB(left) => format!(
            "dd if=/dev/zero of={place}/fill/blocks bs=1k 2>/dev/null
            truncate -s -{left}K {place}/fill/blocks"
        ),
        Left::Files(left) => format!(
            "n=0; while touch {place}/fill/$n 2>/dev/null; do n=$((n + 1)); done
            i=0; while [ $i -lt {left} ]; do i=$((i + 1)); rm {place}/fill/$((n - i)); done"
        ),
    };
    machine.run(&format!("mkdir -m 700 {place}/fill; {fill}; true")).ok();
}

fn with_both() -> Option<Machine> {
    let machine = bare(Release::Bookworm, Init::None)?;
    machine.run("apt-get install -y redis-server && service redis-server stop").ok();
    machine.run("umask 077; echo secret-enough >/root/password").ok();
    machine.run(PREPARE).ok();
    Some(machine)
}

/// The servers answer and have their data; nothing is left half-way.
fn stands(machine: &Machine, what: &str) {
    let out = machine.run(
        "redis-tp cli -- GET bonjour
        for i in $(seq 100); do redis-tp cli slave -- GET bonjour | grep . && break; sleep 0.02; done",
    );
    assert_eq!(out.stdout, "monde\nmonde\n", "{what}: {out}");
    let left = machine
        .run("find /etc /var/lib /var/log /run /tmp -xdev -name '*redis-tp-new' -o -path '*/redis-tp-*-*'");
    assert_eq!(left.stdout, "", "{what}: left over");
}

#[test]
fn a_disk_that_is_full_at_any_level_keeps_the_former_state_or_lets_the_new_one_be() {
    let (mut failed, mut index) = (0, 0);
    for place in PLACES {
        let Some(machine) = with_both() else { return };
        with_disk(&machine, place);
        for left in LEFT {
            for command in COMMANDS {
                index += 1;
                // Prime to the number of commands and of levels: each comes with each in turn.
                if !all() && index % 11 != 0 {
                    continue;
                }
                let what = format!("{left:?} left in {place}: {command}");
                let before = lasting(&machine);
                fill(&machine, place, left);
                let out = machine.run(command);
                let differ = differences(&before, &lasting(&machine), Alike::Equivalent);
                match out.status {
                    0 => {}
                    1 | 5 | 8 => {
                        failed += 1;
                        assert_eq!(differ, [""; 0], "{what}: {out}");
                        stands(&machine, &what);
                    }
                    // A way back needs room, too; but then the same command ends it.
                    9 if command == "redis-tp rollback" => failed += 1,
                    _ => panic!("{what}: {out}"),
                }
                machine.run(&format!("rm -rf {place}/fill")).ok();
                if out.status != 0 {
                    let again = machine.run(command);
                    assert_eq!(again.status, 0, "{what}\n{out}\nthen, with room: {again}");
                }
                machine.run("redis-tp uninstall --purge --no-backup; true").ok();
                machine.run(PREPARE).ok();
            }
        }
    }
    assert!(failed > 3, "only {failed} of them failed");
}

#[test]
fn a_file_system_that_is_read_only_is_named_and_nothing_is_changed() {
    for place in PLACES.iter().filter(|place| **place != "/run") {
        let Some(machine) = with_both() else { return };
        let lock = format!("mount --bind {place} {place} && mount -o remount,bind,ro {place}");
        let unlock = format!("umount {place}");
        for (index, command) in COMMANDS.iter().enumerate() {
            if !all() && index % 2 == place.len() % 2 {
                continue;
            }
            machine.run(&lock).ok();
            let what = format!("{place} read-only: {command}");
            let before = lasting(&machine);
            let out = machine.run(command);
            // What lies elsewhere can still be changed.
            if out.status != 0 {
                assert!(matches!(out.status, 1 | 5 | 8), "{what}: {out}");
                let named = ["ead-only", "may not write", "nobody can write"];
                assert!(named.iter().any(|words| out.stderr.contains(words)), "{what}: {out}");
                assert_eq!(
                    differences(&before, &lasting(&machine), Alike::Equivalent),
                    [""; 0],
                    "{what}: {out}"
                );
                stands(&machine, &what);
            }
            machine.run(&unlock).ok();
            if out.status != 0 {
                let again = machine.run(command);
                assert_eq!(again.status, 0, "{what}\n{out}\nthen, writable: {again}");
            }
            machine.run("redis-tp uninstall --purge --no-backup").ok();
            machine.run(PREPARE).ok();
        }
    }
}

/// Starts a command, and fills the disk to the last byte when it has announced so many effects.
fn filled_midway(machine: &Machine, command: &str, place: &str, lines: usize) -> (bool, Out) {
    let mut running = machine.spawn(command);
    while running.is_running() {
        if announced(machine) >= lines {
            fill(machine, place, Left::KiB(0));
            return (running.is_running(), running.wait());
        }
        thread::sleep(Duration::from_millis(1));
    }
    (false, running.wait())
}

#[test]
fn a_disk_that_fills_up_half_way_costs_no_data_and_no_server() {
    const COMMANDS: [&str; 3] =
        ["redis-tp install --set databases=20", "redis-tp replica add --port 6381", "redis-tp uninstall"];
    let (mut hits, mut failed) = (0, 0);
    for place in ["/etc/redis", "/var/lib/redis-tp", "/var/lib/redis"] {
        let Some(machine) = with_both() else { return };
        with_disk(&machine, place);
        for command in COMMANDS {
            for lines in [1, 4, 8] {
                if !all() && lines != 4 {
                    continue;
                }
                let what = format!("{place} full after {lines} effects: {command}");
                let before = lasting(&machine);
                let (hit, out) = filled_midway(&machine, command, place, lines);
                hits += usize::from(hit);
                let differ = differences(&before, &lasting(&machine), Alike::Equivalent);
                match out.status {
                    0 => {}
                    8 => {
                        failed += 1;
                        assert_eq!(differ, [""; 0], "{what}: {out}");
                        stands(&machine, &what);
                    }
                    // The way back needs room, too; with room the same command walks it first.
                    9 => failed += 1,
                    _ => panic!("{what}: {out}"),
                }
                machine.run(&format!("rm -rf {place}/fill")).ok();
                let again = machine.run(command);
                assert_eq!(again.status, 0, "{what}\n{out}\nthen, with room: {again}");
                // After an uninstall the data are there for the next install.
                machine.run(PREPARE_AGAIN).ok();
                stands(&machine, &what);
                machine.run("redis-tp uninstall --purge --no-backup; true").ok();
                machine.run(PREPARE).ok();
            }
        }
    }
    let least = if all() { [9, 3] } else { [3, 1] };
    assert!(
        hits > least[0] && failed > least[1],
        "{hits} disks filled up half-way, {failed} of the runs failed"
    );
}
