//! Times commands in a machine. The clock runs inside: this program is copied there and starts each
//! command itself, so that neither the way into the machine nor a shell is part of a time.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::machine::Machine;

/// The argument that makes this program the clock, followed by the number of rounds.
pub const INSIDE: &str = "--inside";
const THERE: &str = "/usr/local/bin/redis-tp-clock";

/// What a round consists of.
pub enum Act<'a> {
    /// A program and its arguments, timed.
    Time(&'a str),
    /// A shell command, not timed: it makes things as they were.
    Do(&'a str),
}

/// Puts the clock into a machine.
pub fn install(machine: &Machine) {
    let this = std::env::current_exe().and_then(std::fs::read).expect("this program can be read");
    machine.write(THERE, this);
    machine.run(&format!("chmod 755 {THERE}")).ok();
}

/// The time of a command that can be run only once.
pub fn once(machine: &Machine, command: &str) -> Duration {
    run(machine, 1, &[Act::Time(command)])[0][0]
}

/// The times of each timed command over a number of rounds, after one that is not counted.
pub fn rounds(machine: &Machine, count: usize, acts: &[Act<'_>]) -> Vec<Vec<Duration>> {
    let mut times = run(machine, count + 1, acts);
    for times in &mut times {
        times.remove(0);
    }
    times
}

fn run(machine: &Machine, count: usize, acts: &[Act<'_>]) -> Vec<Vec<Duration>> {
    let line = |act: &Act<'_>| match act {
        Act::Time(command) => format!("time {command}\n"),
        Act::Do(command) => format!("do {command}\n"),
    };
    let lines: String = acts.iter().map(line).collect();
    let told = machine.run_with_input(&format!("{THERE} {INSIDE} {count}"), lines).ok().stdout;
    let mut times = vec![Vec::new(); acts.iter().filter(|act| matches!(act, Act::Time(_))).count()];
    for line in told.lines() {
        for (times, nanos) in times.iter_mut().zip(line.split(' ')) {
            times.push(Duration::from_nanos(nanos.parse().expect("the clock tells nanoseconds")));
        }
    }
    times
}

/// The clock: reads acts from standard input, and prints a line of nanoseconds a round.
pub fn inside(count: usize) {
    let mut acts = String::new();
    std::io::stdin().read_to_string(&mut acts).expect("standard input can be read");
    for _ in 0..count {
        let mut nanos = Vec::new();
        for act in acts.lines() {
            match act.split_once(' ') {
                Some(("time", command)) => {
                    let mut words = command.split(' ');
                    let time = time(Command::new(words.next().unwrap_or_default()).args(words));
                    nanos.push(time.as_nanos().to_string());
                }
                Some(("do", command)) => {
                    time(Command::new("sh").args(["-c", command]));
                }
                _ => panic!("no act: {act}"),
            }
        }
        println!("{}", nanos.join(" "));
    }
}

/// How long a command takes from its start to its end. What it says of trouble is passed on.
fn time(command: &mut Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status();
    let time = start.elapsed();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{command:?}: {status:?}");
    time
}
