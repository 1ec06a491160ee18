//! The checks that look at one instance.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Subject, refused};
use crate::conf::Conf;
use crate::exit::Fault;
use crate::facts::{Facts, Unit, containers};
use crate::finding::Finding;
use crate::host::{Host, Ids, Kind, Stat};
use crate::instance::Instance;
use crate::layout;
use crate::plan::refuse;
use crate::prove;
use crate::runtime::container::NETWORK;
use crate::runtime::{Program, Runtime, systemd};
use crate::secret::Secret;
use crate::step::{Body, Candidate};
use crate::store::Store;
use crate::unit;

/// A port that is free, or the instance's own.
pub(super) fn ports(_: &Host, subject: &Subject<'_>, instance: &Instance) -> Result<Finding> {
    let facts = subject.facts;
    if let Err(fault) = refuse::port(facts, instance) {
        return Ok(refused(&fault, "two programs cannot listen on one port"));
    }
    let own = facts.listeners.iter().find(|listener| listener.port == instance.port);
    Ok(Finding::pass(match own.and_then(|listener| listener.owner.as_ref()) {
        Some(owner) => format!("{} is its own (pid {})", instance.port, owner.pid),
        None => format!("{} is free", instance.port),
    }))
}

/// Directories that the server can use and others cannot look into.
pub(super) fn directories(host: &Host, subject: &Subject<'_>, instance: &Instance) -> Result<Finding> {
    let facts = subject.facts;
    if let Err(fault) = refuse::places(facts, instance) {
        return Ok(refused(&fault, "the server could not keep its data there"));
    }
    if let Runtime::Container(_) = instance.runtime {
        return Ok(mounted(facts, instance));
    }
    let log = instance.log_dir();
    let places: Vec<&Path> = [instance.dir.as_path()].into_iter().chain(log).collect();
    for path in &places {
        if facts.path(path).is_none() {
            let cause = "the next run makes it";
            return Ok(Finding::fail(format!("{} is not there", path.display()), cause, "redis-tp up"));
        }
        if let Some(finding) = unreachable(host, facts, instance, path) {
            return Ok(finding);
        }
    }
    let logs = || log.and_then(|log| logs(facts, instance, log));
    if let Some(finding) = data(host, facts, instance).or_else(logs) {
        return Ok(finding);
    }
    let places: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
    Ok(Finding::pass(places.join(", ")))
}

/// What a container has in place of directories: a volume, and the directory of its configuration.
fn mounted(facts: &Facts, instance: &Instance) -> Finding {
    let dir = instance.conf.parent().unwrap_or(&instance.conf);
    let shown = dir.display();
    let Store::Volume { program, volume } = &instance.store else {
        return Finding::skip("it is in no container");
    };
    if facts.containers.trouble.is_some() {
        return Finding::skip(format!("{program} does not answer"));
    }
    if !facts.containers.volumes.contains_key(volume) {
        return Finding::fail(
            format!("there is no {program} volume {volume}"),
            "the next run makes it",
            "redis-tp up",
        );
    }
    match facts.path(dir) {
        None => Finding::fail(format!("{shown} is not there"), "the next run makes it", "redis-tp up"),
        Some(stat) if facts.user.is_some_and(|user| user.uid != stat.uid) || stat.mode & 0o077 != 0 => {
            Finding::fail(
                format!("{shown} has owner {} and mode {:04o}", stat.uid, stat.mode),
                "it is to be readable by the container's user, and by no other",
                "redis-tp apply",
            )
        }
        Some(_) => Finding::pass(format!("volume {volume}, {shown}")),
    }
}

/// A directory above that the server's user may not pass.
fn unreachable(host: &Host, facts: &Facts, instance: &Instance, path: &Path) -> Option<Finding> {
    let user = facts.user?;
    let closed = path
        .ancestors()
        .skip(1)
        .find(|above| facts.path(above).is_some_and(|stat| stat.kind == Kind::Dir && !may(*stat, user, 1)))?;
    let owner = facts.path(closed).map(|stat| host.user_name(stat.uid)).unwrap_or_default();
    Some(Finding::fail(
        format!("{} cannot reach {}", layout::here().account(instance.engine.user()), path.display()),
        format!("{} belongs to {owner} and is closed to others", closed.display()),
        format!("chmod o+x {}", closed.display()),
    ))
}

/// Whether the mode grants a user this (4 read, 2 write, 1 enter). Its other groups are not counted.
fn may(stat: Stat, user: Ids, what: u32) -> bool {
    let shift = match (stat.uid == user.uid, stat.gid == user.gid) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    stat.mode >> shift & what == what
}

fn data(host: &Host, facts: &Facts, instance: &Instance) -> Option<Finding> {
    let (stat, user) = (facts.path(&instance.dir)?, facts.user?);
    let (dir, name) = (instance.dir.display(), layout::here().account(instance.engine.user()));
    if stat.uid != user.uid {
        return Some(Finding::fail(
            format!("{dir} belongs to {}", host.user_name(stat.uid)),
            format!("the server runs as {name} and could not save"),
            "redis-tp apply",
        ));
    }
    if !may(*stat, user, 7) {
        return Some(Finding::fail(
            format!("{dir} has mode {:04o}", stat.mode),
            format!("{name} itself cannot write there"),
            "redis-tp apply",
        ));
    }
    (stat.mode & 0o007 != 0).then(|| {
        Finding::fail(
            format!("{dir} has mode {:04o}", stat.mode),
            "every user of this machine can look into the data",
            // That of a server that was taken over no run changes.
            format!("chmod o-rwx {dir}"),
        )
    })
}

/// A server that cannot open its log does not start.
fn logs(facts: &Facts, instance: &Instance, dir: &Path) -> Option<Finding> {
    let user = facts.user?;
    let logfile = instance.logfile.as_deref()?;
    let file = facts.path(logfile);
    let writable = match file {
        Some(stat) => may(*stat, user, 2),
        None => facts.path(dir).is_some_and(|stat| may(*stat, user, 3)),
    };
    let name = layout::here().account(instance.engine.user());
    (!writable).then(|| {
        let path = if file.is_some() { logfile } else { dir };
        Finding::fail(
            format!("{name} cannot write to {}", path.display()),
            "a server that cannot open its log does not start",
            format!("chown {name} {}", path.display()),
        )
    })
}

/// A file that the installed server takes, and that others cannot read.
pub(super) fn configuration(host: &Host, subject: &Subject<'_>, instance: &Instance) -> Result<Finding> {
    let (facts, path) = (subject.facts, instance.conf.as_path());
    let Some(stat) = facts.path(path) else {
        let cause = "this instance is not set up yet";
        return Ok(Finding::fail(format!("{} is not there", path.display()), cause, "redis-tp up"));
    };
    if let Some(finding) = access(host, facts, instance, *stat) {
        return Ok(finding);
    }
    let text = facts.text(path).with_context(|| format!("{} is no text", path.display()))?;
    if let Err(bad) = Conf::parse(text) {
        return Ok(Finding::fail(
            format!("{} has unbalanced quotes in line {}", path.display(), bad.line),
            "the server would not start with it",
            cure(facts, path, text),
        ));
    }
    if facts.server.is_none() {
        return Ok(Finding::unknown("there is no server to prove it with", "redis-tp up"));
    }
    let as_it = facts.user.is_some_and(|user| [0, user.uid].contains(&host.euid()));
    if !as_it && host.euid() != 0 {
        bail!("only root can prove it as {}", layout::here().account(instance.engine.user()));
    }
    let body = Body::Conf(Secret::new(text));
    let candidate = Candidate { target: instance.target(), text: body, origins: Vec::new(), ask: Vec::new() };
    match prove::prove_all(host, &[candidate], subject.inside) {
        Ok(_) => Ok(Finding::pass(format!("{} is proved", path.display()))),
        Err(error) => match error.downcast_ref::<Fault>() {
            Some(fault) => Ok(Finding::fail(
                fault.to_string(),
                "the server would not start with it",
                cure(facts, path, text),
            )),
            None => Err(error),
        },
    }
}

/// A file as we left it is the topology's fault, another's hand is not.
fn cure(facts: &Facts, path: &Path, text: &str) -> &'static str {
    match facts.written.get(path).map(Secret::expose) {
        Some(written) if written == text => "redis-tp apply    # after a correction of the topology",
        Some(_) | None => "redis-tp apply --overwrite",
    }
}

fn access(host: &Host, facts: &Facts, instance: &Instance, stat: Stat) -> Option<Finding> {
    let (path, name) = (instance.conf.display(), layout::here().account(instance.engine.user()));
    if stat.kind != Kind::File {
        return Some(Finding::fail(
            format!("{path} is no file"),
            "somebody put something else there",
            format!("mv {path} {path}.aside"),
        ));
    }
    if facts.user.is_some_and(|user| !may(stat, user, 4)) {
        let owner = host.user_name(stat.uid);
        return Some(Finding::fail(
            format!("{path} belongs to {owner}, mode {:04o}", stat.mode),
            format!("{name} cannot read it, and would not start"),
            format!("chown {name}:{name} {path} && chmod 640 {path}"),
        ));
    }
    // What is mounted into a container lies in a closed directory.
    (stat.mode & 0o007 != 0 && !instance.runtime.is_container()).then(|| {
        Finding::fail(
            format!("{path} has mode {:04o}", stat.mode),
            "every user of this machine can read the password in it",
            format!("chmod 640 {path}"),
        )
    })
}

/// A unit that runs, comes back after a reboot, and lets the server write where it has to.
pub(super) fn units(_: &Host, subject: &Subject<'_>, instance: &Instance) -> Result<Finding> {
    let facts = subject.facts;
    match instance.runtime {
        Runtime::Systemd => {}
        Runtime::Process => return Ok(process(facts, instance)),
        Runtime::Container(program) => return Ok(container(facts, program, instance)),
    }
    let known = facts.unit(&instance.unit).context("systemctl does not tell of it")?;
    if !facts.installed() && known.load != "loaded" {
        let name = systemd::unit_word(&instance.unit);
        let cause = format!("it comes with {}", instance.engine.package());
        return Ok(Finding::fail(format!("there is no {name}"), cause, "redis-tp up"));
    }
    if let Err(fault) = refuse::unit(facts, instance) {
        return Ok(refused(&fault, "systemd cannot start it"));
    }
    Ok(closed(facts, instance).unwrap_or_else(|| service(facts, instance, known)))
}

/// A container that runs, is ours, is made of what is wanted, and comes back after a reboot.
fn container(facts: &Facts, program: Program, instance: &Instance) -> Finding {
    let name = instance.container();
    if let Some(trouble) = &facts.containers.trouble {
        return refused(&containers::refused(program, trouble), "nothing can be asked of it");
    }
    let Some(seen) = facts.containers.containers.get(&name) else {
        let what = format!("there is no {program} container {name}");
        return Finding::fail(what, "it is not set up, or somebody removed it", "redis-tp up");
    };
    if seen.layout != containers::layout() {
        return Finding::fail(
            format!("the {program} container {name} is somebody else's"),
            "it has not our label",
            format!("{program} inspect {name}"),
        );
    }
    if !seen.is_up() {
        return Finding::fail(
            format!("the {program} container {name} {}", seen.word()),
            "somebody stopped it, or it failed",
            format!("redis-tp service start {}", instance.name),
        );
    }
    if !seen.joined {
        return Finding::fail(
            format!("the {program} container {name} is not on the network {NETWORK}"),
            "somebody disconnected it",
            "redis-tp apply",
        );
    }
    if !seen.boot {
        return Finding::fail(
            format!("the {program} container {name} has no restart policy"),
            "it would be gone after a reboot",
            format!("redis-tp service enable {}", instance.name),
        );
    }
    Finding::pass(format!("{program} container {name} runs, and starts by itself"))
}

/// Where there are no units, a pid file stands for one.
fn process(facts: &Facts, instance: &Instance) -> Finding {
    if let Some(pid) = facts.pids.get(&instance.name) {
        return Finding::pass(format!("process {pid}, in no unit"));
    }
    match facts.path(&instance.conf) {
        None => Finding::fail("it does not run", "this instance is not set up yet", "redis-tp up"),
        Some(_) => Finding::fail(
            "it does not run",
            "somebody ended it, or the machine was restarted, after which nothing starts it by itself",
            format!("redis-tp service start {}", instance.name),
        ),
    }
}

/// A directory that the unit's sandbox does not open.
fn closed(facts: &Facts, instance: &Instance) -> Option<Finding> {
    // A unit of our own opens all that it needs itself.
    facts.package.as_ref()?;
    let drop_in = systemd::drop_in(&instance.unit);
    let opened = facts.text(&drop_in).map(opened_by).unwrap_or_default();
    let closed = systemd::closed_to(instance);
    let missing =
        closed.into_iter().find(|path| !opened.iter().any(|open| Path::new(path).starts_with(open)))?;
    // One that somebody edited is left alone by a run.
    let cure = match facts.path(&drop_in) {
        Some(_) => format!("rm {} && redis-tp apply", drop_in.display()),
        None => "redis-tp apply".into(),
    };
    Some(Finding::fail(
        format!("its drop-in does not open {missing}"),
        format!(
            "the unit runs with ProtectSystem=strict: without a line in {} the server could neither save nor stop",
            drop_in.display()
        ),
        cure,
    ))
}

/// The directories that a drop-in opens.
fn opened_by(text: &str) -> Vec<PathBuf> {
    let values = unit::parse(text).unwrap_or_default();
    let paths = values.get(&("Service".to_owned(), "ReadWritePaths".to_owned())).cloned().unwrap_or_default();
    let words = paths.iter().flat_map(|line| line.split_whitespace());
    words.map(|word| PathBuf::from(word.trim_start_matches('-'))).collect()
}

fn service(facts: &Facts, instance: &Instance, unit: &Unit) -> Finding {
    let (name, word) = (&instance.name, systemd::unit_word(&instance.unit));
    if facts.path(&instance.conf).is_none() {
        return Finding::fail(
            format!("{word} is {}", unit.active),
            "it has no configuration yet",
            "redis-tp up",
        );
    }
    match unit.active.as_str() {
        "active" => {}
        state @ ("activating" | "reloading" | "deactivating") => {
            return Finding::unknown(format!("{word} is {state}"), "redis-tp check    # in a moment");
        }
        state => {
            let cause = if state == "failed" { "it ended with an error" } else { "somebody stopped it" };
            return Finding::fail(
                format!("{word} is {state}"),
                cause,
                format!("redis-tp service start {name}"),
            );
        }
    }
    if unit.needs_reload {
        return Finding::fail(
            format!("{word}: its files changed since systemd read them"),
            "the next start would use the old ones",
            format!("{} daemon-reload", systemd::typed("systemctl")),
        );
    }
    if !unit.enabled {
        return Finding::fail(
            format!("{word} is not enabled"),
            "it would be gone after a reboot",
            format!("redis-tp service enable {name}"),
        );
    }
    Finding::pass(format!("{word} is active and enabled"))
}
