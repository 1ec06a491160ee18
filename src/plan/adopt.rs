//! What somebody set up by hand and handed over: what is sound of it stays, and what is not is repaired,
//! each repair with its reason.

use std::path::PathBuf;

use super::{Plan, Wanted};
use crate::conf::Conf;
use crate::directives;
use crate::facts::{Facts, Process};
use crate::host::Stat;
use crate::instance::Instance;
use crate::layout;
use crate::runtime::Runtime;
use crate::step::{Owner, Step};

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
        if let Some(process) = misplaced(facts, instance) {
            let (pid, uid) = (process.pid, process.uid);
            plan.steps.push(Step::End { target: instance.target(), pid, uid });
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
