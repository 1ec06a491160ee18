//! What somebody set up by hand and handed over: what is sound of it stays, and what is not is repaired,
//! each repair with its reason.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::{Plan, Wanted};
use crate::adopt::Repair;
use crate::conf::{self, Conf};
use crate::directives;
use crate::facts::{Facts, Process, Role, data};
use crate::host::Stat;
use crate::instance::Instance;
use crate::layout;
use crate::runtime::{Runtime, systemd};
use crate::step::{Owner, Step};
use crate::topology::Name;

/// The process of an instance that is not where it belongs: in no unit, or another user's.
pub fn misplaced<'a>(facts: &'a Facts, instance: &Instance) -> Option<&'a Process> {
    let running = facts.running.get(&instance.name)?;
    if instance.plain.is_none() || running.file.as_ref() != Some(&instance.conf) {
        return None;
    }
    let owners = facts.listeners.iter().filter(|listener| listener.port == instance.port);
    let process = owners.filter_map(|listener| listener.owner.as_ref()).find(|it| it.pid == running.pid)?;
    let right = match instance.runtime {
        Runtime::Systemd => process.unit.as_ref() == Some(&instance.unit),
        Runtime::Process => facts.user.is_some_and(|user| user.uid == process.uid),
        Runtime::Container(_) => true,
    };
    (!right).then_some(process)
}

/// Ends the servers that are to start where they belong. Replicas go first.
pub fn end_servers(wanted: &Wanted<'_>, facts: &Facts, plan: &mut Plan) {
    for instance in super::by_depth(wanted.instances).into_iter().rev() {
        if let Some((process, saves)) = misplaced(facts, instance).zip(data::named(instance)) {
            let (pid, uid) = (process.pid, process.uid);
            plan.steps.push(Step::End { target: instance.target(), pid, uid, saves });
        }
    }
}

/// Hands over what the server has to write to and cannot, and closes a file with a password in it.
pub fn owners(wanted: &Wanted<'_>, facts: &Facts, plan: &mut Plan) {
    let by_hand = |instance: &&Instance| instance.plain.is_some() && !instance.runtime.is_container();
    for instance in wanted.instances.iter().filter(by_hand) {
        let owner = Owner::Server(instance.engine);
        let data = not_its_own(facts, instance);
        if !data.is_empty() {
            plan.steps.push(Step::Own { paths: data, owner, mode: None });
        }
        if let Some(log) = log_of_another(facts, instance) {
            let owner = Owner::ServerAdm(instance.engine);
            plan.steps.push(Step::Own { paths: vec![log], owner, mode: None });
        }
        if closed_or_open(facts, instance).is_some() {
            let paths = vec![instance.conf.clone()];
            plan.steps.push(Step::Own { paths, owner, mode: Some(0o640) });
        }
    }
}

fn is_the_servers(facts: &Facts, stat: &Stat) -> bool {
    layout::here().login.is_some() || facts.user.is_none_or(|user| user.uid == stat.uid)
}

/// The data of an instance that is another's: its directory, and the files in it that it writes to.
pub fn not_its_own(facts: &Facts, instance: &Instance) -> Vec<PathBuf> {
    let Some(dir) = instance.store.path() else { return Vec::new() };
    let within = facts.paths.iter().filter(|(path, _)| path.starts_with(dir));
    within.filter(|(_, stat)| !is_the_servers(facts, stat)).map(|(path, _)| path.clone()).collect()
}

/// The log of an instance, if it is another's.
pub fn log_of_another(facts: &Facts, instance: &Instance) -> Option<PathBuf> {
    let log = instance.logfile.as_ref()?;
    facts.path(log).filter(|stat| !is_the_servers(facts, stat)).map(|_| log.clone())
}

/// What is wrong with the mode of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The server's user cannot read it.
    Closed,
    /// Everybody can read it, and there is a password in it.
    Open,
}

/// Whether a configuration is one that its server cannot read, or that others can and must not.
pub fn closed_or_open(facts: &Facts, instance: &Instance) -> Option<Access> {
    let (stat, user) = (facts.path(&instance.conf)?, facts.user?);
    let text = facts.text(&instance.conf).unwrap_or_default();
    let secret = || {
        let conf = Conf::parse(text).unwrap_or_default();
        conf.directives.iter().any(|line| directives::secret(&line.name))
    };
    let bits = match (stat.uid == user.uid, stat.gid == user.gid) {
        (true, _) => stat.mode >> 6,
        (false, true) => stat.mode >> 3,
        (false, false) => stat.mode,
    };
    match bits & 0o4 == 0 {
        true => Some(Access::Closed),
        false if stat.mode & 0o004 != 0 && secret() => Some(Access::Open),
        false => None,
    }
}

// ---- what there is to tell ------------------------------------------------------------------

/// An instance that is taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Adopted {
    /// The instance.
    pub instance: Name,
    /// Where it is reached.
    pub address: String,
    /// Its configuration.
    pub file: PathBuf,
    /// How it runs.
    pub server: String,
    /// What is not sound, and why.
    pub repairs: Vec<Repair>,
}

/// What is to be told of each instance that is taken over; `found` are repairs that are known already.
///
/// # Errors
/// A configuration cannot be rendered.
pub fn told(
    wanted: &Wanted<'_>,
    facts: &Facts,
    plan: &Plan,
    names: &[Name],
    found: &[Repair],
) -> Result<Vec<Adopted>> {
    let taken = wanted.instances.iter().filter(|instance| names.contains(&instance.name));
    let one = |instance: &Instance| {
        let mut repairs: Vec<Repair> =
            found.iter().filter(|repair| repair.instance == instance.name).cloned().collect();
        let mut tell = |what: String, why: &str| {
            repairs.push(Repair { instance: instance.name.clone(), what, why: why.into() });
        };
        for (what, why) in directives_of(wanted, facts, instance)? {
            tell(what, &why);
        }
        places_of(facts, instance).into_iter().for_each(|(what, why)| tell(what, why));
        service_of(facts, plan, instance).into_iter().for_each(|(what, why)| tell(what, why));
        Ok(Adopted {
            instance: instance.name.clone(),
            address: instance.address().to_string(),
            file: instance.conf.clone(),
            server: server_of(facts, instance),
            repairs,
        })
    };
    taken.map(one).collect()
}

fn server_of(facts: &Facts, instance: &Instance) -> String {
    let Some(running) = facts.running.get(&instance.name) else { return "does not run".into() };
    let role = match &running.role {
        Role::Replica { host, port, up } => {
            format!("replica of {host} {port}, link {}", if *up { "up" } else { "down" })
        }
        Role::Master | Role::Unknown => "master".into(),
    };
    let owner = facts.listeners.iter().filter_map(|listener| listener.owner.as_ref());
    let unit = owner.filter(|owner| owner.pid == running.pid).find_map(|owner| owner.unit.clone());
    let keeper = match unit.filter(|unit| *unit == instance.unit) {
        Some(unit) => systemd::unit_word(&unit),
        None => "no unit".into(),
    };
    format!("{role} · {keeper} · pid {} · data in {}", running.pid, instance.store)
}

/// What its file has to gain or to change.
fn directives_of(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance) -> Result<Vec<(String, String)>> {
    let version = facts.server.as_ref().map_or(super::ASSUMED, |server| server.version);
    let ours = instance.configuration(&wanted.topology.file, version, &[])?;
    let (Some(there), Ok(want)) = (facts.text(&instance.conf), Conf::parse(&ours)) else {
        return Ok(Vec::new());
    };
    let Ok(there) = Conf::parse(there) else { return Ok(Vec::new()) };
    let file = instance.conf.display();
    let told = conf::compare(&there, &there, &want).into_iter().filter_map(|difference| {
        let (name, to) = (difference.directive.as_str(), &difference.wanted);
        match name {
            "replicaof" if to == "-" => Some((
                format!("{file} loses replicaof"),
                "it was promoted, and a restart would undo that".into(),
            )),
            "replicaof" => Some((
                format!("{file} gets replicaof {to}"),
                "that is whom it follows, and a restart would undo that".into(),
            )),
            "masterauth" => Some((
                format!("{file} gets masterauth"),
                "its master asks for a password: without it there is no link".into(),
            )),
            "requirepass" => Some((
                format!("{file} gets requirepass"),
                "its server asks for this password, and a restart would forget it".into(),
            )),
            // Told already, with what was found.
            _ => None,
        }
    });
    Ok(told.collect())
}

fn places_of(facts: &Facts, instance: &Instance) -> Vec<(String, &'static str)> {
    let owner = Owner::Server(instance.engine).word();
    let mut told = Vec::new();
    if let Some(first) = not_its_own(facts, instance).first() {
        let (store, first) = (&instance.store, first.display());
        let what =
            if store.to_string() == first.to_string() { format!("{store}") } else { format!("{first}") };
        told.push((
            format!("{what} is handed over to {owner}"),
            "it is another user's: the server could not save its data there",
        ));
    }
    if let Some(log) = log_of_another(facts, instance) {
        let owner = Owner::ServerAdm(instance.engine).word();
        told.push((
            format!("{} is handed over to {owner}", log.display()),
            "it is another user's: a server that cannot open its log does not start",
        ));
    }
    match closed_or_open(facts, instance) {
        Some(Access::Closed) => told.push((
            format!("{} is handed over to {owner}, 0640", instance.conf.display()),
            "the server's user cannot read it",
        )),
        Some(Access::Open) => told.push((
            format!("{} becomes {owner}, 0640", instance.conf.display()),
            "there is a password in it, and everybody can read it",
        )),
        None => {}
    }
    told
}

fn service_of(facts: &Facts, plan: &Plan, instance: &Instance) -> Vec<(String, &'static str)> {
    let mut told = Vec::new();
    let drop_in = systemd::drop_in(&instance.unit);
    if plan.steps.iter().any(|step| matches!(step, Step::Write { path, .. } if *path == drop_in)) {
        told.push((
            format!("{} opens {} to its unit", drop_in.display(), systemd::closed_to(instance).join(" and ")),
            "the unit has ProtectSystem=strict: the server could never save there, nor end",
        ));
    }
    let starts = plan.steps.iter().any(|step| {
        matches!(step, Step::Start { targets } if targets.iter().any(|target| target.name == instance.name))
    });
    let home = match instance.runtime {
        Runtime::Systemd => systemd::unit_word(&instance.unit),
        _ => format!("a process of {}", layout::here().account(instance.engine.user())),
    };
    match misplaced(facts, instance) {
        Some(process) if process.uid == 0 => told.push((
            format!("its server (pid {}) is ended, its data saved, and started as {home}", process.pid),
            "it runs as root, and nothing starts it again after a crash or at boot",
        )),
        Some(process) => told.push((
            format!("its server (pid {}) is ended, its data saved, and started as {home}", process.pid),
            "it runs in no unit: nothing starts it again after a crash or at boot",
        )),
        None if starts => told.push((format!("it is started as {home}"), "it does not run")),
        None => {}
    }
    let enabled = |step: &Step| matches!(step, Step::Enable { unit } if *unit == instance.unit);
    if plan.steps.iter().any(enabled) {
        told.push((format!("{home} is enabled"), "it would not start at boot"));
    }
    told
}
