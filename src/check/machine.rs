//! The checks that look at the machine as a whole.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Subject, refused};
use crate::apply::package;
use crate::engine::Version;
use crate::facts::{Facts, containers, dpkg};
use crate::finding::Finding;
use crate::host::{Host, Kind};
use crate::instance::refuse_open_doors;
use crate::journal;
use crate::layout;
use crate::plan::refuse;
use crate::runtime::{Runtime, systemd};
use crate::secrets::{self, password_file, upstream_file, user_file};
use crate::software;
use crate::state;
use crate::step::Inside;
use crate::topology::ReplicaOf;
use crate::users;

/// The oldest version that this program was tried with.
const OLDEST: Version = Version::new(6, 0);

/// The package, or a program on PATH.
pub(super) fn engine_installed(host: &Host, subject: &Subject<'_>) -> Result<Finding> {
    let (engine, facts) = (subject.topology.engine, subject.facts);
    if let Some(inside) = subject.inside {
        return Ok(image(inside, facts));
    }
    let program = software::find(host, engine, engine.server());
    Ok(match (&facts.package, &facts.server) {
        (Some(package), Some(_)) if package.installed() => {
            Finding::pass(format!("{} {}", engine.package(), package.version))
        }
        (Some(package), None) if package.installed() => Finding::fail(
            format!("dpkg has {} installed, but its program is gone", engine.package()),
            "somebody removed files of the package",
            format!("apt-get install --reinstall {}", engine.package()),
        ),
        (Some(package), _) if package.status != "config-files" && package.status != "not-installed" => {
            Finding::fail(
                format!("dpkg left {} {}", engine.package(), package.status),
                "an installation was interrupted",
                "redis-tp up",
            )
        }
        (None, Some(server)) if server.unpacked => {
            let version = facts.state.software.get(engine.package()).map_or("", String::as_str);
            let all = facts.state.software.len();
            let place = server.path.display();
            Finding::pass(format!("{} {version} (one of {all} packages unpacked: {place})", engine.package()))
        }
        (None, Some(server)) => Finding::pass(format!("{} (of no package)", server.path.display())),
        (None, None) if program.is_some() => Finding::fail(
            format!("{} does not tell its version", engine.server()),
            "it cannot be run, or is something else",
            format!("{} --version", engine.server()),
        ),
        _ if facts.apt => Finding::fail(
            format!("{} is not on this machine", engine.server()),
            "nobody installed it yet",
            "redis-tp up",
        ),
        _ => Finding::fail(
            format!("{} is not on this machine", engine.server()),
            "there is no apt to install it with",
            format!("command -v {}    # after an install by your distribution's means", engine.server()),
        ),
    })
}

/// The image has what a package has elsewhere.
fn image(inside: &Inside, facts: &Facts) -> Finding {
    let Inside { program, image, .. } = inside;
    if facts.containers.trouble.is_some() {
        return Finding::skip(format!("{program} does not answer"));
    }
    match (&facts.containers.image, &facts.server) {
        (Some(id), Some(server)) => {
            let id = id.get(..12).unwrap_or(id);
            Finding::pass(format!("{} in {image} ({id})", server.path.display()))
        }
        _ => Finding::fail(
            format!("the image {image} is not here"),
            "the next run pulls it, if it can",
            format!("{program} pull {image}"),
        ),
    }
}

/// A version that this program was tried with.
pub(super) fn engine_version(_: &Host, subject: &Subject<'_>) -> Result<Finding> {
    let engine = subject.topology.engine;
    Ok(match &subject.facts.server {
        None => Finding::skip("no server to tell it"),
        Some(server) if server.version < OLDEST => Finding::fail(
            format!("{engine} {}", server.version),
            format!("redis-tp is known to work with {}.{} and later", OLDEST.major, OLDEST.minor),
            format!("apt-get update && apt-get install {}", engine.package()),
        ),
        Some(server) => Finding::pass(format!("{engine} {}", server.version)),
    })
}

/// Somebody to run as who is not root.
pub(super) fn user(_: &Host, subject: &Subject<'_>) -> Result<Finding> {
    let (engine, facts) = (subject.topology.engine, subject.facts);
    let user = layout::here().account(engine.user());
    if subject.inside.is_some() && facts.user.is_none() {
        return Ok(Finding::skip("no image to look for it in"));
    }
    Ok(match facts.user {
        Some(ids) if ids.uid == 0 => Finding::fail(
            format!("{user} is another name for root"),
            "a server must not run as root",
            format!("vipw    # give {user} a number of its own"),
        ),
        Some(ids) => Finding::pass(format!("{user} (uid {})", ids.uid)),
        None if facts.installed() => Finding::fail(
            format!("there is no user {user}"),
            "the server needs one to run as, and must not run as root",
            format!(
                "useradd --system --user-group --home-dir {} --shell /usr/sbin/nologin {user}",
                engine.data(crate::engine::MASTER).display()
            ),
        ),
        None => Finding::fail(
            format!("there is no user {user}"),
            format!("it comes with {}", engine.tools_package()),
            "redis-tp up",
        ),
    })
}

/// A package manager that an install would not stumble over.
pub(super) fn apt(host: &Host, subject: &Subject<'_>) -> Result<Finding> {
    if subject.inside.is_some() {
        return Ok(Finding::skip("containers need no package"));
    }
    if !subject.facts.apt {
        return Ok(Finding::skip("no apt here"));
    }
    if layout::here().login.is_some() {
        return Ok(Finding::skip("packages are root's to look after"));
    }
    if let Some(who) = package::lock_holder(host) {
        return Ok(Finding::unknown(format!("{who} is at work"), "redis-tp check    # when it has ended"));
    }
    let text = dpkg::status(host)?.unwrap_or_default();
    let torn = dpkg::half_way(&text);
    if let Some((name, state)) = torn.first() {
        let more = if torn.len() > 1 { format!(" and {} more", torn.len() - 1) } else { String::new() };
        let broken = torn.iter().any(|(_, state)| *state == "half-installed");
        let cure = if broken { "apt-get --fix-broken install" } else { "dpkg --configure -a" };
        let cause = "an installation was interrupted";
        return Ok(Finding::fail(format!("{name} is {state}{more}"), cause, cure));
    }
    // The journal's row tells of a run that can take it away itself.
    let policy = Path::new(package::POLICY);
    if subject.facts.text(policy).is_some_and(package::is_policy) && journal::unfinished(host)?.is_none() {
        return Ok(Finding::fail(
            format!("{} of ours is left", policy.display()),
            "it keeps every package from starting its services",
            format!("rm {}", policy.display()),
        ));
    }
    Ok(Finding::pass("no package is half-way, no lock is held"))
}

/// What the topology asks to keep instances running is here.
pub(super) fn runtime(host: &Host, subject: &Subject<'_>) -> Result<Finding> {
    let facts = subject.facts;
    Ok(match Runtime::settle(subject.topology.runtime, facts.means) {
        Ok(Runtime::Systemd) => match (&layout::here().login, systemd::lasts(host)?) {
            (None, _) => Finding::pass("systemd is PID 1"),
            (Some(login), true) => Finding::pass(format!("{}'s systemd, which lingers", login.name)),
            (Some(login), false) => Finding::fail(
                format!("{}'s systemd ends with the last login", login.name),
                "and with it all that it keeps running",
                format!("loginctl enable-linger {}", login.name),
            ),
        },
        Ok(Runtime::Process) if facts.systemd => Finding::pass("processes, as the topology says"),
        Ok(Runtime::Process) if layout::here().login.is_some() => Finding::pass("processes: not root"),
        Ok(Runtime::Process) => Finding::pass("processes: systemd is not PID 1"),
        Ok(Runtime::Container(program)) => match &facts.containers.trouble {
            Some(trouble) => {
                refused(&containers::refused(program, trouble), "nothing can be asked of its containers")
            }
            None => Finding::pass(format!("{program} answers")),
        },
        Err(fault) => Finding::fail(
            fault.to_string(),
            format!("{} asks for what is not here", subject.topology.file.display()),
            "redis-tp up --runtime auto",
        ),
    })
}

/// A topology that can be had on this machine, and that opens no door to everybody.
pub(super) fn topology(host: &Host, subject: &Subject<'_>) -> Result<Finding> {
    let (topology, facts) = (subject.topology, subject.facts);
    if let Err(fault) = refuse_open_doors(subject.instances) {
        return Ok(refused(&fault, "redis-tp refuses to set that up"));
    }
    if let Err(fault) = refuse::readable_secrets(topology, facts) {
        return Ok(refused(&fault, "every user of this machine could read it"));
    }
    for instance in subject.instances {
        if let Err(fault) = refuse::addresses(topology, facts, instance) {
            return Ok(refused(&fault, "the server would not start"));
        }
        if let Err(fault) = refuse::master_elsewhere(facts, instance, true) {
            return Ok(refused(&fault, "a replica without its master has no data"));
        }
    }
    let names: Vec<&str> = subject.instances.iter().map(|instance| instance.name.as_str()).collect();
    let names = names.join(", ");
    Ok(Finding::pass(match host.stat(&topology.file)? {
        Some(_) => format!("{}: {names}", topology.file.display()),
        None => format!("none yet; `redis-tp up` makes {names}"),
    }))
}

/// Passwords that only their owner can read.
pub(super) fn secrets(host: &Host, subject: &Subject<'_>) -> Result<Finding> {
    let mut files: Vec<PathBuf> = Vec::new();
    if subject.topology.password {
        files.push(password_file());
    }
    if subject.topology.has_users() {
        files.push(user_file(users::REPLICA));
        files.extend(subject.topology.app.as_ref().map(|_| user_file(users::APP)));
    }
    for section in &subject.topology.instances {
        let path = upstream_file(&section.name);
        if matches!(section.replicaof, Some(ReplicaOf::Remote { .. })) && host.stat(&path)?.is_some() {
            files.push(path);
        }
    }
    let mut places: Vec<(PathBuf, Kind, u32)> =
        files.iter().map(|path| (path.clone(), Kind::File, 0o077)).collect();
    // Ours has copies of configurations in it; the other may be read, for the topology's sake.
    places.push((secrets::dir().to_path_buf(), Kind::Dir, 0o022));
    places.push((state::dir().to_path_buf(), Kind::Dir, 0o077));
    for (path, kind, closed) in &places {
        if let Some(finding) = secret_place(host, path, *kind, *closed)? {
            return Ok(finding);
        }
    }
    for path in &files {
        if host.stat(path)?.is_none() {
            return Ok(no_password(subject.facts, path));
        }
    }
    let whose = layout::here().account("root");
    Ok(match files.len() {
        0 => Finding::pass("no password is kept"),
        1 => Finding::pass(format!("1 file, {whose}'s, 0600")),
        count => Finding::pass(format!("{count} files, {whose}'s, 0600")),
    })
}

/// What is wrong with a place that holds secrets; an absent one holds none.
fn secret_place(host: &Host, path: &Path, kind: Kind, closed: u32) -> Result<Option<Finding>> {
    let Some(stat) = host.stat(path)? else { return Ok(None) };
    let shown = path.display();
    if stat.kind != kind {
        let what = if kind == Kind::Dir { "directory" } else { "file" };
        return Ok(Some(Finding::fail(
            format!("{shown} is no {what}"),
            "passwords would be kept where somebody else chose",
            format!("mv {shown} {shown}.aside"),
        )));
    }
    if stat.uid != layout::here().own().uid {
        return Ok(Some(Finding::fail(
            format!("{shown} belongs to {}", host.user_name(stat.uid)),
            "its owner can read and change passwords",
            format!("chown {} {shown}", layout::here().owner_word("root", "root")),
        )));
    }
    Ok((stat.mode & closed != 0).then(|| {
        Finding::fail(
            format!("{shown} has mode {:04o}", stat.mode),
            format!("others than {} can read or change passwords", layout::here().account("root")),
            match (kind, closed) {
                (Kind::Dir, 0o022) => format!("chmod 755 {shown}"),
                (Kind::Dir, _) => format!("chmod 700 {shown}"),
                _ => format!("chmod 600 {shown}"),
            },
        )
    }))
}

fn no_password(facts: &Facts, path: &Path) -> Finding {
    let cause = match facts.state.instances.is_empty() {
        true => "it is made by the first run",
        false => "somebody removed it; the next run makes another password",
    };
    Finding::fail(format!("{} is not there", path.display()), cause, "redis-tp up")
}

/// No run that was killed half-way.
pub(super) fn journal(host: &Host, _: &Subject<'_>) -> Result<Finding> {
    let Some(run) = journal::unfinished(host)? else { return Ok(Finding::pass("no run is open")) };
    let own = std::process::id().to_string();
    Ok(match journal::at_work(host).filter(|pid| *pid != own) {
        Some(pid) => Finding::unknown(
            format!("a redis-tp is at work (pid {pid})"),
            "redis-tp check    # when it has ended",
        ),
        None => Finding::fail(
            format!("run {} ({}) was interrupted", run.run, run.command),
            "the next run that changes something undoes it first",
            "redis-tp rollback",
        ),
    })
}
