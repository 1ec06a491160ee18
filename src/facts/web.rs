//! What there is of the web app: its files, its unit or supervisor, and our own program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Facts, Program, about};
use crate::app::App;
use crate::app::service::{self, COMM, UNIT, USER};
use crate::host::{Host, Kind};
use crate::layout;
use crate::runtime::{Runtime, process};
use crate::topology::Source;

/// The unit in question, if there is one.
pub fn unit(app: Option<&App>, facts: &Facts) -> Option<String> {
    let kept = facts.state.app.as_ref().filter(|kept| kept.active);
    (app.is_some() || kept.is_some()).then(|| UNIT.to_owned())
}

/// The paths in question, and those of which the text matters.
pub fn files(app: Option<&App>) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let Some(app) = app else { return Default::default() };
    let texts = BTreeSet::from([app.settings_file(), service::unit_file()]);
    let mut paths = texts.clone();
    for file in [service::program_copy(), service::pidfile(), service::logfile(), app.settings_file()] {
        paths.extend(file.parent().map(Path::to_path_buf));
        paths.insert(file);
    }
    if let Source::Sqlite(file) = &app.section().source {
        paths.extend(file.ancestors().map(Path::to_path_buf));
    }
    (paths, texts)
}

/// Our program, and the app as it runs.
pub fn gather(host: &Host, app: Option<&App>, facts: &mut Facts) -> Result<()> {
    let first = host.text(Path::new("/proc/sys/net/ipv4/ip_unprivileged_port_start"))?;
    facts.app.first_port = first.and_then(|port| port.trim().parse().ok()).unwrap_or_default();
    let kept = facts.state.app.as_ref().filter(|kept| kept.active);
    if app.is_none() && kept.is_none() {
        return Ok(());
    }
    facts.program = program(host)?;
    facts.app.user = layout::here().ids(host, USER)?;
    let by_systemd = facts.unit(UNIT).map(|unit| unit.pid).filter(|pid| *pid > 0);
    facts.app.pid = match kept.map(|kept| kept.target.runtime) {
        Some(Runtime::Process) => supervisor(host)?,
        Some(Runtime::Systemd) | None => by_systemd,
        Some(Runtime::Container(_)) => {
            let name = kept.map(|kept| kept.target.container()).unwrap_or_default();
            facts.containers.containers.get(&name).map(|seen| seen.pid).filter(|pid| *pid > 0)
        }
    };
    facts.app.workers = facts.app.pid.map(|pid| workers(host, pid)).unwrap_or_default();
    facts.app.exe = facts.app.pid.and_then(|pid| host.link(Path::new(&format!("/proc/{pid}/exe"))));
    Ok(())
}

fn program(host: &Host) -> Result<Program> {
    let path = host.own_program()?;
    let copy = service::program_copy();
    Ok(Program {
        fit: is_fit(host, &path)?,
        copied: host.same_file(&path, &copy)?,
        edition: host.edition(&path)?,
        path,
    })
}

/// Whether a program and the way to it are root's alone to change and everybody's to use, in a place that
/// lasts and that a service sees. A user's service sees what the user does, and may have a program of its.
fn is_fit(host: &Host, path: &Path) -> Result<bool> {
    let passing = ["/tmp", "/var/tmp", "/run"].as_slice();
    let hidden = if layout::here().login.is_none() { ["/home", "/root"].as_slice() } else { &[] };
    if passing.iter().chain(hidden).any(|place| path.starts_with(place)) {
        return Ok(false);
    }
    let own = layout::here().own().uid;
    for part in path.ancestors() {
        let fit = host.stat(part)?.is_some_and(|stat| {
            let open = stat.mode & 0o001 != 0 || (stat.uid == own && stat.mode & 0o100 != 0);
            stat.kind != Kind::Link && [0, own].contains(&stat.uid) && stat.mode & 0o022 == 0 && open
        });
        if !fit {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The app's supervisor, where there is no systemd. Its pid file is the app's own to write, so it is a
/// hint: the process is the app's if it is its user's and our program.
///
/// # Errors
/// /proc cannot be read.
pub fn supervisor(host: &Host) -> Result<Option<u32>> {
    let Some(uid) = uid(host)? else { return Ok(None) };
    let ours = |pid: &u32| {
        let process = about(host, *pid).filter(|_| layout::here().login.is_none() || is_kept(host, *pid));
        // One that has ended and that nobody asked for has no program any more.
        process.is_some_and(|process| process.program == COMM && process.uid == uid)
            && host.link(Path::new(&format!("/proc/{pid}/exe"))).is_some()
    };
    let named = host.tail(&service::pidfile(), 32, Some(uid)).unwrap_or_default();
    if let Some(pid) = named.trim().parse::<u32>().ok().filter(|pid| *pid > 1).filter(ours) {
        return Ok(Some(pid));
    }
    // Without it: the one of the app's processes that is no child of another.
    let all: Vec<u32> = host.list(Path::new("/proc"))?.iter().filter_map(|name| name.parse().ok()).collect();
    let all: Vec<u32> = all.into_iter().filter(ours).collect();
    Ok(all.iter().copied().find(|pid| host.parent_of(*pid).is_none_or(|parent| !all.contains(&parent))))
}

/// Whether a process was started as the app's supervisor: where the app's user is a person, others of the
/// program's processes are that person's, too.
fn is_kept(host: &Host, pid: u32) -> bool {
    let words = host.text(Path::new(&format!("/proc/{pid}/cmdline"))).ok().flatten().unwrap_or_default();
    let pidfile = service::pidfile();
    words.split('\0').skip_while(|word| *word != "--supervise").nth(1) == pidfile.to_str()
}

/// The app's user by its number, which outlives an account that somebody deleted.
fn uid(host: &Host) -> Result<Option<u32>> {
    if let Some(user) = layout::here().ids(host, USER)? {
        return Ok(Some(user.uid));
    }
    let run = host.stat(&process::run_dir(&service::pidfile()))?;
    Ok(run.map(|stat| stat.uid).filter(|uid| *uid != 0))
}

/// The processes that may listen for the app: one, and its children.
fn workers(host: &Host, pid: u32) -> BTreeSet<u32> {
    let children = host.text(Path::new(&format!("/proc/{pid}/task/{pid}/children"))).ok().flatten();
    let children = children.unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).chain([pid]).collect()
}
