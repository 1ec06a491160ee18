//! Bad input on real machines: a clear error that names object and cure, the right exit code, and
//! nothing changed. The cases are data, in `bad_input/cases.rs`; here is what each is held to.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::machine::{Alike, FileState, Init, Machine, Out, Release, Running, Snapshot, differences};
use crate::story::{PROGRAM, bare};

mod cases;

pub use cases::HOLD_APTS_LOCK;
mod states;

/// One way to go wrong.
#[derive(Clone, Copy)]
pub struct Case {
    /// What would be broken, for the message.
    what: &'static str,
    /// Shell that makes the trouble, and shell that ends it.
    given: (&'static str, &'static str),
    run: &'static str,
    input: &'static str,
    exit: i32,
    /// What stderr has to say: the object and the cure.
    says: &'static [&'static str],
    /// Servers may have been started anew on the way back.
    restarts: bool,
    /// A copy was looked at beside the place that it was for.
    stages: bool,
}

impl Case {
    /// A command that has to fail like this.
    pub const fn new(
        what: &'static str,
        run: &'static str,
        exit: i32,
        says: &'static [&'static str],
    ) -> Self {
        Self { what, given: ("", ""), run, input: "", exit, says, restarts: false, stages: false }
    }

    /// A topology that has to be refused like this.
    pub const fn topology(what: &'static str, text: &'static str, says: &'static [&'static str]) -> Self {
        Self { input: text, ..Self::new(what, "redis-tp apply -f -", 5, says) }
    }

    /// With this on standard input.
    pub const fn input(self, input: &'static str) -> Self {
        Self { input, ..self }
    }

    /// On a machine with this trouble.
    pub const fn given(self, make: &'static str, end: &'static str) -> Self {
        Self { given: (make, end), ..self }
    }

    /// That takes servers down and has to bring them back.
    pub const fn restarts(self) -> Self {
        Self { restarts: true, ..self }
    }

    /// That has to be looked at where it was to be.
    pub const fn stages(self) -> Self {
        Self { stages: true, ..self }
    }

    /// What is wrong with how the machine takes it; nothing, if all is well.
    fn try_on(&self, machine: &Machine) -> Option<String> {
        let (made, before) = (machine.run(self.given.0), State::of(machine, self));
        let out = machine.run_with_input(self.run, self.input);
        let (after, ended) = (State::of(machine, self), machine.run(self.given.1));
        let mut wrong = self.judge(&out);
        wrong.extend(before.compare(&after, self));
        let given = [made, ended].into_iter().filter(|out| out.status != 0);
        wrong.extend(given.map(|out| format!("the case itself is wrong: {out}")));
        (!wrong.is_empty()).then(|| format!("## {}\n- {}\n{out}", self.what, wrong.join("\n- ")))
    }

    fn judge(&self, out: &Out) -> Vec<String> {
        let mut wrong = Vec::new();
        if out.status != self.exit {
            wrong.push(format!("exit code {}, not {}", out.status, self.exit));
        }
        for text in self.says {
            if !out.stderr.contains(text) {
                wrong.push(format!("stderr does not say: {text}"));
            }
        }
        // A usage error is clap's to print, and a failed step need not have a cure of ours.
        if matches!(self.exit, 5..=7) && !out.stderr.contains("\nhint: ") {
            wrong.push("no hint".into());
        }
        // Scratch files, probes and panics are nothing that a user could act on; nor is boilerplate.
        for noise in ["/tmp/redis-tp-", "candidate.conf", "redis-tp-eof", "panicked", "Memory overcommit"] {
            if out.stderr.contains(noise) {
                wrong.push(format!("stderr says: {noise}"));
            }
        }
        if !out.stdout.is_empty() {
            wrong.push("an error is no data: stdout must be empty".into());
        }
        wrong
    }
}

/// What must be the same after a failure.
struct State {
    files: Snapshot,
    /// Packages and users of ours.
    engine: String,
    /// The command lines of the servers.
    servers: String,
    /// Their processes and run ids.
    lives: String,
}

const FILES: &str = "ls -d /etc/redis /etc/redis-tp /etc/systemd/system /var/lib/redis* /var/log/redis \
    /usr/sbin/policy-rc.d 2>/dev/null || :";
const ENGINE: &str = "dpkg-query -W -f '${Package} ${Status}\\n' 'redis*' '*lzf*' 2>/dev/null
    getent passwd redis; getent group redis; :";
const LIVES: &str = "ps -C redis-server -o pid=,lstart=
    password=$([ ! -f /etc/redis-tp/password ] || cat /etc/redis-tp/password)
    for port in $(ss -Hltnp | sed -n '/redis-server/s/.*127.0.0.1:\\(6[0-9]*\\) .*/\\1/p'); do
        REDISCLI_AUTH=$password redis-cli -p $port INFO server 2>/dev/null | grep run_id
    done; :";

impl State {
    fn of(machine: &Machine, case: &Case) -> Self {
        let paths = machine.run(FILES).ok().stdout;
        let mut files = machine.snapshot(&paths.lines().collect::<Vec<_>>());
        // Servers write their own files, a failed run leaves its journal: that they are there is enough.
        files.retain(|path, _| case.exit != 8 || !is_record(path));
        for (path, file) in &mut files {
            if path.starts_with("/var/log") || path.extension().is_some_and(|kind| kind == "rdb") {
                *file = FileState { size: 0, mtime_ns: 0, content: 0, ..file.clone() };
            }
        }
        let said = |command: &str| machine.run(command).ok().stdout;
        Self {
            files,
            engine: said(ENGINE),
            servers: said("ps -C redis-server -o user=,args= | sort; :"),
            lives: said(LIVES),
        }
    }

    fn compare(&self, after: &Self, case: &Case) -> Vec<String> {
        // What was begun and undone may be a new file with the old content.
        let alike = if case.exit == 8 || case.stages { Alike::Equivalent } else { Alike::Untouched };
        let mut changed = differences(&self.files, &after.files, alike);
        for (what, before, after) in [
            ("packages or users", &self.engine, &after.engine),
            ("servers", &self.servers, &after.servers),
            ("processes or run ids", &self.lives, &after.lives),
        ] {
            if before != after && !(case.restarts && what == "processes or run ids") {
                changed.push(format!("{what} changed from\n{before}to\n{after}"));
            }
        }
        changed
    }
}

fn is_record(path: &Path) -> bool {
    let state = Path::new("/var/lib/redis-tp");
    path == state || path == state.join("lock") || path.starts_with(state.join("runs"))
}

/// Tries all cases before it fails, one after the other on one machine: each leaves it as it was.
#[track_caller]
fn try_all(machine: &Machine, cases: &[&[Case]]) {
    let wrong: Vec<String> = cases.concat().iter().filter_map(|case| case.try_on(machine)).collect();
    assert!(wrong.is_empty(), "{} of the cases:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

/// A machine with the lab's two instances at work.
fn standing(release: Release, init: Init) -> Option<Machine> {
    let machine = bare(release, init)?;
    machine.run("redis-tp up").ok();
    // The data is on the disk: what a server writes when it ends is no change of ours.
    machine.run(
        "for port in 6379 6380; do REDISCLI_AUTH=$(cat /etc/redis-tp/password) redis-cli -p $port SAVE; done",
    );
    Some(machine)
}

#[test]
fn a_command_line_that_cannot_be_understood_is_a_usage_error() {
    for words in cases::USAGE {
        let run = Command::new(PROGRAM).args(*words).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!((run.status.code(), run.stdout.len()), (Some(2), 0), "{words:?}: {said}");
        assert!(!said.contains("panicked"), "{words:?}: {said}");
    }
}

#[test]
fn bad_input_changes_nothing_where_systemd_runs_redis_7() {
    let Some(machine) = standing(Release::Bookworm, Init::Systemd) else { return };
    try_all(&machine, &[cases::STANDING, cases::UNITS, cases::FULL_DISK]);
    machine.run("redis-tp up").ok();
}

#[test]
fn damaged_state_and_backups_are_named_with_their_cure() {
    let Some(machine) = standing(Release::Bookworm, Init::Systemd) else { return };
    try_all(&machine, &[states::STATES]);
    machine.run("redis-tp up").ok();
}

/// The README tells how many there are.
#[test]
fn the_readme_counts_the_bad_input() {
    let tables = [
        cases::STANDING,
        cases::UNITS,
        cases::FULL_DISK,
        cases::BARE,
        cases::NO_ENGINE,
        cases::NO_IPV6,
        states::STATES,
    ];
    let count = cases::USAGE.len() + tables.iter().map(|table| table.len()).sum::<usize>();
    assert!(crate::readme::says(&format!(" {count} bad inputs,")), "there are {count} bad inputs");
}

#[test]
fn bad_input_changes_nothing_where_redis_8_runs_without_systemd() {
    let Some(machine) = standing(Release::Trixie, Init::None) else { return };
    try_all(&machine, &[cases::STANDING, cases::FULL_DISK]);
    machine.run("redis-tp up").ok();
}

#[test]
fn a_failed_first_run_leaves_a_machine_bare() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    try_all(&machine, &[cases::BARE]);
    machine.run("redis-tp up").ok();
}

/// Waits until a command has said something on standard error.
pub fn until_it_says(running: &Running, words: &str) {
    let begun = Instant::now();
    while !running.said().contains(words) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not say '{words}': {}", running.said());
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn apts_lock_is_waited_for_and_said() {
    let Some(machine) = bare(Release::Trixie, Init::Systemd) else { return };
    let mut apt = machine.spawn(HOLD_APTS_LOCK);
    machine.run("until [ -e /run/held ]; do sleep 0.02; done").ok();
    let install = machine.spawn("redis-tp install");
    until_it_says(&install, "waiting for apt: perl (pid ");
    machine.run("touch /run/enough").ok();
    let out = install.wait().ok();
    assert!(!apt.is_running(), "it did not wait:\n{out}");
}

#[test]
fn an_empty_package_index_is_fetched() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.empty_package_index();
    let out = machine.run("redis-tp install").ok();
    assert!(out.stderr.contains("apt-get update"), "{out}");
    assert!(!machine.exists("/usr/sbin/policy-rc.d"));
}

#[test]
fn ipv6_switched_off_is_no_obstacle_unless_it_is_asked_for() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; ! ip -6 address | grep -q inet6").ok();
    machine.run("redis-tp up").ok();
    try_all(&machine, &[cases::NO_IPV6]);
    machine.run("redis-tp install --bind '127.0.0.1 -::1'").ok();
}

/// A server under /usr/local, and neither apt nor dpkg, as on a machine that is no Debian.
pub const BY_HAND: &str = "set -e; mkdir /opt/redis /opt/away
    for deb in /srv/repo/*.deb; do dpkg-deb -x \"$deb\" /opt/redis; done
    cp -a /opt/redis/usr/lib/. /usr/lib/; ldconfig
    cp -L /opt/redis/usr/bin/redis-server /opt/redis/usr/bin/redis-cli /opt/away/
    rm -rf /usr/lib/systemd/system/redis* /lib/systemd/system/redis*
    mv /usr/bin/apt-get /usr/bin/apt /usr/bin/dpkg /opt/away/";

#[test]
fn a_machine_without_apt_is_told_what_it_lacks_until_it_works() {
    for (release, init) in [(Release::Trixie, Init::None), (Release::Bookworm, Init::Systemd)] {
        let Some(machine) = bare(release, init) else { return };
        machine.run(BY_HAND).ok();
        try_all(&machine, &[cases::NO_ENGINE]);
        machine.run("cp /opt/away/redis-server /opt/away/redis-cli /usr/local/bin/").ok();
        let out = machine.run("redis-tp up").exits(5);
        assert!(out.stderr.contains("there is no user 'redis'"), "{out}");
        machine.run(out.stderr.lines().last().unwrap()).ok();
        machine.run("redis-tp up").ok();
        let users = machine.run("ps -C redis-server -o user=").ok().stdout;
        assert_eq!(users.split_whitespace().collect::<Vec<_>>(), ["redis", "redis"]);
    }
}
