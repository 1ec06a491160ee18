//! A fault at every system call that changes something: strace(1) lets it fail, or ends the program there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::bench::{Bench, Case};
use crate::machine::Init;

/// The system calls that change something, or make what is needed for it: a file, a connection, a child.
const CALLS: [&str; 40] = [
    "openat",
    "write",
    "pwrite64",
    "writev",
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "symlink",
    "symlinkat",
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "chmod",
    "fchmod",
    "fchmodat",
    "flock",
    "copy_file_range",
    "socket",
    "bind",
    "connect",
    "sendto",
    "sendmsg",
    "pipe2",
    "socketpair",
    "clone",
    "clone3",
    "vfork",
    "execve",
    "kill",
];

/// What happens at one of them.
const FAULTS: [&str; 7] = [
    "signal=SIGKILL",
    "signal=SIGINT",
    "signal=SIGTERM",
    "error=ENOSPC",
    "error=EIO",
    "error=EROFS",
    "error=EMFILE",
];

const INSTALL: &str = "redis-tp install --password-file /root/password";

/// Keys in the master; then the runs until now are forgotten, as they are after ten more.
macro_rules! with_data {
    ($prepare:literal) => {
        concat!(
            "redis-tp install --password-file /root/password && ",
            $prepare,
            "redis-tp cli -- EVAL \"for i = 1, 100 do redis.call('SET', i, i) end\" 0 && ",
            "redis-tp cli -- -n 1 SET precious data",
        )
    };
}

const CASES: [Case; 6] = [
    Case {
        name: "install",
        // The password of replicas is there before: two runs that make one could not be compared.
        prepare: concat!(
            with_data!(""),
            " && redis-tp uninstall && rm -rf /etc/redis-tp /var/lib/redis-tp && mkdir -m 755 /etc/redis-tp",
            " && (umask 077; echo fixed >/etc/redis-tp/replica.password)",
        ),
        command: INSTALL,
    },
    Case { name: "replica add", prepare: with_data!(""), command: "redis-tp replica add --port 6380" },
    Case {
        name: "apply, with a restart",
        prepare: concat!(
            with_data!("redis-tp replica add --port 6380 && "),
            r" && sed -i 's/^\[master\]/&\ndatabases = 20/' /etc/redis-tp/topology.ini",
        ),
        command: "redis-tp apply",
    },
    Case {
        name: "apply, set live",
        prepare: concat!(
            with_data!("redis-tp replica add --port 6380 && "),
            r" && sed -i 's/^\[master\]/&\nmaxclients = 500/' /etc/redis-tp/topology.ini",
        ),
        command: "redis-tp apply",
    },
    Case {
        name: "rollback",
        prepare: concat!(
            with_data!("redis-tp replica add --port 6380 && rm -r /var/lib/redis-tp/runs/* && "),
            " && redis-tp install --set databases=20",
        ),
        command: "redis-tp rollback",
    },
    Case {
        name: "uninstall",
        prepare: with_data!("redis-tp replica add --port 6380 && "),
        command: "redis-tp uninstall",
    },
];

/// A system call of an undisturbed run.
#[derive(Clone, Debug)]
struct Point {
    call: &'static str,
    /// It is the n-th of its kind in its thread.
    n: usize,
    /// Not in the first thread: then it is the n-th in every thread that has so many.
    threads: bool,
}

/// How many faults there were and what became of them.
#[derive(Default)]
struct Tally {
    tried: usize,
    broken: Vec<String>,
}

impl Tally {
    /// Says it, also where the test passes, and leaves it for the sum that `tests/run` prints.
    fn tell(&self, name: &str) {
        let (tried, broken) = (self.tried, self.broken.len());
        let survived = tried - broken;
        // Not eprintln!: the test harness would swallow that.
        let _ = writeln!(io::stderr(), "faults, {name}: {tried} tried, {survived} survived, {broken} broken");
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults");
        let line = format!("{tried} {survived} {broken}\n");
        fs::create_dir_all(&dir).and_then(|()| fs::write(dir.join(name.replace(' ', "-")), line)).unwrap();
    }
}

/// All of it, and not a sample: `tests/run --all-faults`.
pub(super) fn all() -> bool {
    std::env::var_os("REDIS_TP_TEST_FAULTS").is_some_and(|which| which == "all")
}

fn at_every_call(name: &'static str, init: Init) {
    let case = CASES.iter().find(|case| case.name == name).expect("a case");
    let Some(bench) = Bench::prepare(case, init) else { return };
    let points = points(&bench);
    // With systemd the former state takes seconds to come back.
    let each = if init == Init::Systemd { 2 } else { 4 };
    let mut tally = Tally::default();
    for (index, fault) in FAULTS.iter().enumerate() {
        if all() {
            every(&bench, &points, fault, &mut tally);
        } else {
            for point in sample(&points, index, each) {
                disturb(&bench, point, fault, &mut tally);
            }
        }
    }
    tally.tell(&format!("{name} {init:?}"));
    assert!(tally.broken.is_empty(), "{}", tally.broken.join("\n\n"));
}

/// The system calls of an undisturbed run, in their order.
fn points(bench: &Bench) -> Vec<Point> {
    let traced =
        format!("strace -f -b execve -o /root/calls -e trace={} {}", CALLS.join(","), bench.case.command);
    bench.machine.run(&traced).ok();
    bench.reset();
    let mut points = Vec::new();
    let (mut main, mut seen, mut known) = (None, BTreeMap::new(), BTreeSet::new());
    let mut printing = false;
    for line in bench.machine.read("/root/calls").lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some(call) = CALLS
            .iter()
            .find(|call| rest.trim_start().strip_prefix(**call).is_some_and(|rest| rest.starts_with('(')))
        else {
            continue;
        };
        let threads = *main.get_or_insert_with(|| thread.to_owned()) != thread;
        let n: &mut usize = seen.entry((thread.to_owned(), *call)).or_default();
        *n += 1;
        // A line on the terminal comes in several pieces.
        let prints = rest.contains(" write(1,") || rest.contains(" write(2,");
        let again = printing && prints;
        printing = prints;
        let first = *call == "execve" && !threads;
        if again || first || only_reads(rest) || !known.insert((*call, *n, threads)) {
            continue;
        }
        points.push(Point { call, n: *n, threads });
    }
    assert!(points.len() > 20, "only {} system calls", points.len());
    points
}

fn only_reads(line: &str) -> bool {
    let opens = line.contains("openat(");
    let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| line.contains(flag));
    (opens && !writes) || line.contains("nscd")
}

/// Some of the points: not the same for two faults.
fn sample(points: &[Point], fault: usize, each: usize) -> impl Iterator<Item = &Point> {
    let stride = (points.len() / each).max(1);
    points.iter().skip(fault * stride / FAULTS.len()).step_by(stride).take(each)
}

/// Every point, and beyond, until a run is undisturbed: one that waits longer has more calls.
fn every(bench: &Bench, points: &[Point], fault: &str, tally: &mut Tally) {
    for point in points {
        disturb(bench, point, fault, tally);
    }
    let mut last = BTreeMap::new();
    for point in points.iter().filter(|point| !point.threads) {
        last.insert(point.call, point.n);
    }
    for (call, n) in last {
        for n in n + 1..n + 50 {
            if !disturb(bench, &Point { call, n, threads: false }, fault, tally) {
                break;
            }
        }
    }
}

/// Runs the case's command with one fault. False if it did not come to it.
fn disturb(bench: &Bench, point: &Point, fault: &str, tally: &mut Tally) -> bool {
    bench.reset();
    let Point { call, n, threads } = point;
    let threads = if *threads { "-f -b execve" } else { "" };
    let strace =
        format!("strace {threads} -y -o /root/trace -e trace={call} -e inject={call}:{fault}:when={n}");
    let out = bench.machine.run(&format!("rm -f /root/trace; {strace} {}; exit $?", bench.case.command));
    let trace = bench.machine.read("/root/trace");
    let hit = trace.lines().find(|line| {
        line.contains("(INJECTED)") || line.contains("SI_KERNEL") || line.contains("killed by SIGKILL")
    });
    let Some(hit) = hit else { return false };
    tally.tried += 1;
    let wrong = bench.judge(&out);
    if !wrong.is_empty() {
        let at = trace.lines().take_while(|line| *line != hit).last().unwrap_or_default();
        let broken = format!(
            "{} {fault} at {call} {n} {threads}: {at} {hit}\n{out}\n  {}",
            bench.case.name,
            wrong.join("\n  ")
        );
        let _ = writeln!(io::stderr(), "{broken}");
        tally.broken.push(broken);
    }
    true
}

#[test]
fn no_fault_at_a_system_call_of_install_breaks_anything() {
    at_every_call("install", Init::None);
}

#[test]
fn no_fault_at_a_system_call_of_install_under_systemd_breaks_anything() {
    at_every_call("install", Init::Systemd);
}

#[test]
fn no_fault_at_a_system_call_of_replica_add_breaks_anything() {
    at_every_call("replica add", Init::None);
}

#[test]
fn no_fault_at_a_system_call_of_replica_add_under_systemd_breaks_anything() {
    at_every_call("replica add", Init::Systemd);
}

#[test]
fn no_fault_at_a_system_call_of_apply_with_a_restart_breaks_anything() {
    at_every_call("apply, with a restart", Init::None);
}

#[test]
fn no_fault_at_a_system_call_of_apply_with_a_restart_under_systemd_breaks_anything() {
    at_every_call("apply, with a restart", Init::Systemd);
}

#[test]
fn no_fault_at_a_system_call_of_apply_that_sets_live_breaks_anything() {
    at_every_call("apply, set live", Init::None);
}

#[test]
fn no_fault_at_a_system_call_of_rollback_breaks_anything() {
    at_every_call("rollback", Init::None);
}

#[test]
fn no_fault_at_a_system_call_of_rollback_under_systemd_breaks_anything() {
    at_every_call("rollback", Init::Systemd);
}

#[test]
fn no_fault_at_a_system_call_of_uninstall_breaks_anything() {
    at_every_call("uninstall", Init::None);
}

#[test]
fn no_fault_at_a_system_call_of_uninstall_under_systemd_breaks_anything() {
    at_every_call("uninstall", Init::Systemd);
}
