//! Without root, on real machines without a server: an ordinary user goes from nothing to a verified pair
//! and back, beside root's own, and leaves nothing behind.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::machine::{Alike, Init, Machine, Out, Release, Snapshot, differences};
use crate::story::{bare, places};

const HOME: &str = "/home/ann";

const MACHINES: [(Release, Init); 4] = [
    (Release::Bookworm, Init::Systemd),
    (Release::Trixie, Init::Systemd),
    (Release::Bookworm, Init::None),
    (Release::Trixie, Init::None),
];

/// A machine without a server, with a user who is nobody in particular, and with packages to be had.
pub fn with_ann(release: Release, init: Init) -> Option<Machine> {
    let machine = bare(release, init)?;
    machine.run("useradd --create-home --shell /bin/sh ann").ok();
    machine.empty_package_index();
    Some(machine)
}

/// What the user types, as a login has it.
pub fn ann(machine: &Machine, command: &str) -> Out {
    machine.run(&as_ann(command))
}

fn as_ann(command: &str) -> String {
    let env = format!("env -i HOME={HOME} USER=ann PATH=/usr/local/bin:/usr/bin:/bin");
    let word = command.replace('\'', "'\\''");
    format!("setpriv --reuid=ann --regid=ann --init-groups {env} sh -c 'cd; exec {word}'")
}

fn home(machine: &Machine) -> Snapshot {
    machine.snapshot(&[HOME])
}

/// A server may have something to say at any moment.
fn without_logs(mut files: Snapshot) -> Snapshot {
    files.retain(|path, _| path.extension().is_none_or(|extension| extension != "log"));
    files
}

/// What is not the user's and must stay as it is: root's places, and what is installed.
fn roots(machine: &Machine) -> (Snapshot, String) {
    (places(machine), machine.read("/var/lib/dpkg/status"))
}

/// The processes of the user's servers and app.
fn processes(machine: &Machine) -> String {
    machine.run("ps -u ann -o pid=,comm= | grep redis || true").ok().stdout
}

/// A server that has given up its port may take a moment more to end.
fn nothing_runs(machine: &Machine) {
    machine.run("for try in $(seq 100); do pgrep -u ann redis || exit 0; sleep 0.05; done; exit 1").ok();
}

fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "no '{part}' in:\n{text}");
}

#[test]
fn a_user_goes_from_nothing_to_a_proven_pair_and_leaves_nothing() {
    for pair in MACHINES.chunks(2) {
        thread::scope(|scope| {
            for (release, init) in pair {
                scope.spawn(move || {
                    if let Some(machine) = with_ann(*release, *init) {
                        there_and_back(&machine);
                    }
                });
            }
        });
    }
}

fn there_and_back(machine: &Machine) {
    let (before, others) = (home(machine), roots(machine));
    let up = ann(machine, "redis-tp up").ok();
    contains(&up.stdout, "next:");
    contains(&up.stderr, "unpack redis-server in /home/ann/.local/share/redis-tp/software/redis");
    ann(machine, "redis-tp verify").ok();
    let check = ann(machine, "redis-tp check").ok();
    contains(&check.stdout, "packages unpacked");
    assert!(machine.exists("/home/ann/.config/redis/redis-slave.conf"));
    assert!(!machine.exists("/usr/bin/redis-server"));

    let (files, running) = (without_logs(home(machine)), processes(machine));
    contains(&ann(machine, "redis-tp up").ok().stdout, "No changes.");
    assert_eq!(differences(&files, &without_logs(home(machine)), Alike::Untouched), [""; 0]);
    assert_eq!(running, processes(machine), "a server was restarted");

    every_verb(machine);
    ann(machine, "redis-tp uninstall").ok();
    assert!(machine.exists("/home/ann/.local/share/redis/dump.rdb"), "data stays");
    ann(machine, "redis-tp up").ok();
    ann(machine, "redis-tp uninstall --purge --no-backup").ok();
    assert_eq!(differences(&before, &home(machine), Alike::Equivalent), [""; 0]);
    nothing_runs(machine);
    assert_eq!(differences(&others.0, &places(machine), Alike::Equivalent), [""; 0]);
    assert_eq!(others.1, machine.read("/var/lib/dpkg/status"), "packages are root's");
}

/// Each verb does for a user what it does for root.
fn every_verb(machine: &Machine) {
    ann(machine, "redis-tp replica add --port 6381 --of slave").ok();
    contains(&ann(machine, "redis-tp status").ok().stdout, "slave-6381");
    ann(machine, "redis-tp replica remove slave-6381 --purge").ok();
    contains(&ann(machine, "redis-tp cli -- SET k v").ok().stdout, "OK");
    ann(machine, "redis-tp service stop").ok();
    nothing_runs(machine);
    ann(machine, "redis-tp service start").ok();
    ann(machine, "redis-tp service restart").ok();
    contains(&ann(machine, "redis-tp cli slave -- GET k").ok().stdout, "v");
    contains(&ann(machine, "redis-tp service logs master").ok().stdout, "Ready to accept connections");
    let shell = "sh -c 'eval \"$(redis-tp env)\"; redis-cli PING'";
    contains(&ann(machine, shell).ok().stdout, "PONG");
    ann(machine, "redis-tp install --set maxmemory=90mb").ok();
    ann(machine, "redis-tp rollback").ok();
    contains(&ann(machine, "redis-tp up").ok().stdout, "No changes.");
}

/// A systemd of the user's own. These machines have no PAM module that would tell it its directory.
const OWN_SYSTEMD: &str = "mkdir -p /etc/systemd/system/user@.service.d /var/lib/systemd/linger
    printf '[Service]\\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\\n' >/etc/systemd/system/user@.service.d/dir.conf
    touch /var/lib/systemd/linger/ann && systemctl daemon-reload && systemctl start user@$(id -u ann)";

#[test]
fn units_of_the_users_own_are_kept_by_the_users_systemd() {
    thread::scope(|scope| {
        for release in [Release::Bookworm, Release::Trixie] {
            scope.spawn(move || {
                if let Some(machine) = with_ann(release, Init::Systemd) {
                    by_own_systemd(&machine);
                }
            });
        }
    });
}

fn by_own_systemd(machine: &Machine) {
    machine.run(OWN_SYSTEMD).ok();
    let before = (home(machine), roots(machine));
    ann(machine, "redis-tp up --runtime systemd").ok();
    contains(&ann(machine, "redis-tp check").ok().stdout, "ann's systemd, which lingers");
    let cgroup = "sh -c 'cat /proc/$(pgrep -o redis-server)/cgroup'";
    contains(&ann(machine, cgroup).ok().stdout, "/user@1000.service/");
    let verify = "XDG_RUNTIME_DIR=/run/user/$(id -u) systemd-analyze --user verify --man=no --recursive-errors=no .config/systemd/user/*.service";
    assert_eq!(ann(machine, &format!("sh -c '{verify}'")).ok().stderr, "");
    are_closed(machine, " 1.7 OK");
    let elsewhere = machine.run("nsenter -t $(pgrep -o redis-server) -m touch /home/ann/.profile");
    contains(&elsewhere.stderr, "Read-only file system");

    let (files, running) = (home(machine), processes(machine));
    contains(&ann(machine, "redis-tp up").ok().stdout, "No changes.");
    assert_eq!(differences(&files, &home(machine), Alike::Untouched), [""; 0]);
    assert_eq!(running, processes(machine), "a server was restarted");

    // The whole systemd of the user's anew, as after a restart of the machine.
    machine.run("systemctl restart user@$(id -u ann)").ok();
    ann(machine, "sh -c 'until redis-tp cli slave -- PING; do sleep 0.1; done'").ok();
    every_verb(machine);
    ann(machine, "redis-tp verify --restart").ok();
    ann(machine, "redis-tp up --runtime process").ok();
    ann(machine, "redis-tp up --runtime systemd").ok();
    without_namespaces(machine);
    ann(machine, "redis-tp uninstall --purge --no-backup").ok();
    assert_eq!(differences(&before.0, &home(machine), Alike::Equivalent), [""; 0]);
    assert_eq!(differences(&before.1.0, &places(machine), Alike::Equivalent), [""; 0]);
}

/// Every unit has the score that the README tells of.
fn are_closed(machine: &Machine, score: &str) {
    for unit in ["redis-server", "redis-server@slave", "redis-tp-app"] {
        let analyze =
            format!("XDG_RUNTIME_DIR=/run/user/$(id -u) systemd-analyze --user security --no-pager {unit}");
        contains(&ann(machine, &format!("sh -c '{analyze} | tail -1'")).ok().stdout, score);
    }
}

/// Where nothing tells that users may have namespaces, what runs stays, and what starts does without.
fn without_namespaces(machine: &Machine) {
    machine.run("mv /usr/bin/unshare /usr/bin/unshare.away").ok();
    contains(&ann(machine, "redis-tp plan").ok().stdout, "No changes.");
    ann(machine, "redis-tp service stop").ok();
    ann(machine, "sh -c 'XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user stop redis-tp-app'").ok();
    ann(machine, "redis-tp apply").ok();
    are_closed(machine, " 6.3 MEDIUM");
    ann(machine, "redis-tp verify").ok();
    machine.run("mv /usr/bin/unshare.away /usr/bin/unshare").ok();
    ann(machine, "redis-tp apply").ok();
    are_closed(machine, " 1.7 OK");
    ann(machine, "redis-tp verify").ok();
}

#[test]
fn valkey_is_unpacked_like_redis() {
    let Some(machine) = with_ann(Release::Trixie, Init::None) else { return };
    let before = home(&machine);
    ann(&machine, "redis-tp up --engine valkey --no-app").ok();
    ann(&machine, "redis-tp verify").ok();
    assert!(machine.exists("/home/ann/.config/valkey/valkey-slave.conf"));
    contains(&ann(&machine, "redis-tp cli slave -- PING").ok().stdout, "PONG");
    ann(&machine, "redis-tp uninstall --purge").ok();
    assert_eq!(differences(&before, &home(&machine), Alike::Equivalent), [""; 0]);
}

/// An index of packages that are no longer where it says, beside a repository that has them.
const STALE: &str = "rm -f /var/cache/apt/*.bin && cat /srv/repo/offline.list >>/etc/apt/sources.list";

#[test]
fn an_index_that_does_not_serve_is_fetched_anew_without_root() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("useradd --create-home --shell /bin/sh ann").ok();
    machine.run(STALE).ok();
    let lists = machine.snapshot(&["/var/lib/apt", "/var/cache/apt"]);
    let up = ann(&machine, "redis-tp install").ok();
    contains(&up.stderr, "apt's index does not serve");
    let after = machine.snapshot(&["/var/lib/apt", "/var/cache/apt"]);
    assert_eq!(differences(&lists, &after, Alike::Untouched), [""; 0], "the system's index is root's");
    ann(&machine, "redis-tp uninstall --purge").ok();

    // The same by hand, as the plan has it.
    let typed =
        "redis-tp plan --shell | sed -n '/^mkdir -p/,/^export/p' >fetch; . ./fetch; redis-server --version";
    contains(&ann(&machine, &format!("sh -ec \"{typed}\"")).ok().stdout, "v=7.0.15");
}

#[test]
fn a_rollback_of_the_first_run_takes_the_software_along() {
    let Some(machine) = with_ann(Release::Bookworm, Init::None) else { return };
    let before = home(&machine);
    ann(&machine, "redis-tp install").ok();
    ann(&machine, "redis-tp rollback").ok();
    assert!(!machine.exists("/home/ann/.local/share/redis-tp"));
    ann(&machine, "redis-tp uninstall --purge").ok();
    assert_eq!(differences(&before, &home(&machine), Alike::Equivalent), [""; 0]);
}

#[test]
fn roots_and_a_users_instances_do_not_touch_each_other() {
    let Some(machine) = with_ann(Release::Bookworm, Init::Systemd) else { return };
    let before = home(&machine);
    ann(&machine, "redis-tp up").ok();
    let (files, running) = (home(&machine), processes(&machine));

    let refused = machine.run("redis-tp up").exits(5);
    contains(&refused.stderr, "port 6379 for master is taken by redis-server (pid ");
    machine.run("redis-tp install --port 7001 && redis-tp replica add --port 7002").ok();
    machine.run("redis-tp app install --port 7003 --slow 0.1 && redis-tp verify").ok();
    assert_eq!(differences(&files, &home(&machine), Alike::Untouched), [""; 0]);
    assert_eq!(running, processes(&machine));

    // Root's server is on PATH now; nothing of the user's changes by that.
    contains(&ann(&machine, "redis-tp up").ok().stdout, "No changes.");
    assert_eq!(running, processes(&machine));
    let theirs = places(&machine);
    let refused = ann(&machine, "redis-tp replica add --port 7002 --name other").exits(5);
    contains(&refused.stderr, "port 7002 for other is taken by ");
    ann(&machine, "redis-tp service restart").ok();
    ann(&machine, "redis-tp uninstall --purge").ok();
    assert_eq!(differences(&before, &home(&machine), Alike::Equivalent), [""; 0]);
    assert_eq!(differences(&theirs, &places(&machine), Alike::Untouched), [""; 0]);
    machine.run("redis-tp verify").ok();
    let asked = ann(&machine, "redis-tp status").exits(7);
    contains(&asked.stderr, "sudo redis-tp status");
}

/// How many effects the user's run in progress has announced.
fn announced(machine: &Machine) -> usize {
    let runs = machine.root().join("home/ann/.local/state/redis-tp/runs");
    let names = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let Some(last) = names.map(|entry| entry.path()).max() else { return 0 };
    std::fs::read_to_string(last.join("journal")).unwrap_or_default().lines().count()
}

#[test]
fn a_run_of_a_user_that_is_killed_is_undone_by_the_next() {
    let Some(machine) = with_ann(Release::Trixie, Init::None) else { return };
    let before = home(&machine);
    let mut hits = 0;
    for lines in [1, 4, 6, 8, 12, 18, 24, 30] {
        let mut running = machine.spawn(&as_ann("redis-tp up --no-app"));
        let end = Instant::now() + Duration::from_secs(60);
        while running.is_running() && announced(&machine) < lines && Instant::now() < end {
            thread::sleep(Duration::from_micros(200));
        }
        hits += usize::from(running.signal(Signal::SIGKILL));
        running.wait();
        ann(&machine, "redis-tp up --no-app").ok();
        contains(&ann(&machine, "redis-tp up --no-app").ok().stdout, "No changes.");
        ann(&machine, "redis-tp uninstall --purge").ok();
        let left = differences(&before, &home(&machine), Alike::Equivalent);
        assert_eq!(left, [""; 0], "after {lines} effects");
        nothing_runs(&machine);
    }
    assert!(hits >= 5, "only {hits} runs were killed half-way");
}

#[test]
fn places_of_the_users_own_choice_are_kept_to() {
    let Some(machine) = with_ann(Release::Bookworm, Init::None) else { return };
    let before = home(&machine);
    let env = "env XDG_CONFIG_HOME=relative XDG_DATA_HOME='/home/ann/my data' XDG_STATE_HOME=/home/ann/state";
    ann(&machine, &format!("{env} redis-tp up --no-app")).ok();
    assert!(machine.exists("/home/ann/.config/redis/redis.conf"), "a relative path counts for nothing");
    assert!(machine.exists("/home/ann/my data/redis-slave") && !machine.exists("/home/ann/.local"));
    contains(&ann(&machine, &format!("{env} redis-tp up")).ok().stdout, "No changes.");
    ann(&machine, &format!("{env} redis-tp check")).ok();
    ann(&machine, &format!("{env} redis-tp uninstall --purge")).ok();
    assert_eq!(differences(&before, &home(&machine), Alike::Equivalent), [""; 0]);
}

/// What cannot be: how it is typed, the exit code, and what has to be said.
const REFUSALS: [(&str, i32, &[&str]); 9] = [
    ("env -u HOME redis-tp up", 5, &["HOME does not say where ann keeps its files", "getent passwd"]),
    ("env HOME=ann redis-tp up", 5, &["HOME does not say where ann keeps its files"]),
    (
        "env HOME=/root redis-tp up",
        5,
        &["/root/.config is no place of ann's to write to", "XDG_CONFIG_HOME="],
    ),
    ("env XDG_DATA_HOME=/srv/data redis-tp up", 5, &["/srv/data is no place of ann's", "XDG_DATA_HOME="]),
    ("redis-tp install --port 80", 5, &["ann may not listen on port 80", "choose one from 1024 on"]),
    (
        "redis-tp install --runtime systemd",
        5,
        &["no systemd of ann's runs here", "loginctl enable-linger ann"],
    ),
    ("redis-tp install --set dir=/srv/other", 5, &["/srv is not ann's to write to", "another place"]),
    ("redis-tp install --engine valkey", 8, &["valkey-server", "everything is back as it was"]),
    ("redis-tp status", 5, &["/home/ann/.config/redis-tp/topology.ini", "redis-tp up"]),
];

/// Somebody else's program has the master's port.
const HOLD: &str = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1\", LocalPort => 6379, Listen => 1) or die; sleep 600' &
    for try in $(seq 500); do ss -Hltn | grep -q :6379 && break; sleep 0.02; done";

#[test]
fn what_a_user_cannot_have_is_refused_with_its_cure_and_leaves_nothing() {
    let Some(machine) = with_ann(Release::Bookworm, Init::Systemd) else { return };
    let before = (home(&machine), roots(&machine));
    let refuse = |command: &str, code: i32, says: &[&str]| {
        let out = ann(&machine, command).exits(code);
        says.iter().for_each(|part| contains(&out.stderr, part));
        let left = differences(&before.0, &home(&machine), Alike::Equivalent);
        assert_eq!(left, [""; 0], "{command}");
        assert_eq!((places(&machine), processes(&machine)), (before.1.0.clone(), String::new()), "{command}");
    };
    for (command, code, says) in REFUSALS {
        refuse(command, code, says);
    }
    machine.run(HOLD).ok();
    refuse("redis-tp up", 5, &["port 6379 for master is taken by a process that the kernel does not show"]);
    machine.run("mv /usr/bin/apt-get /usr/bin/apt-get.aside").ok();
    refuse("redis-tp install --port 6400", 5, &["redis-server is not on this machine, and neither is apt"]);
}
