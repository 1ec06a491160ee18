//! Data that the next start of a server would not find: by its file it reads what is called otherwise than what it
//! saves to.

use std::path::Path;

use super::Plan;
use super::live::can_be_told;
use crate::conf::Conf;
use crate::exit::Fault;
use crate::facts::{Facts, Role, Running, data};
use crate::instance::{Instance, Target};
use crate::live::Setting;
use crate::runtime::Runtime;
use crate::step::Step;

/// A server that would start without what it has: it was told otherwise than its file says, or its file changes.
pub fn running(plan: &Plan, facts: &Facts) -> Option<Fault> {
    plan.steps.iter().find_map(|step| {
        let (target, starts) = match step {
            Step::Restart { target, .. } | Step::End { target, .. } => (target, true),
            Step::Stop { target, lose: false } => (target, false),
            _ => return None,
        };
        let running = facts.running.get(&target.name)?;
        if running.role != Role::Master || running.keys == 0 || !can_be_told(running) {
            return None;
        }
        let conf = target.conf();
        let there = Conf::parse(facts.text(&conf)?).ok()?;
        let written = plan.written(&conf).filter(|_| starts).and_then(|text| Conf::parse(text).ok());
        let next = written.as_ref().unwrap_or(&there);
        let off = switched_off(facts, target, running, next, plan.told(&target.name));
        // One that stops for now is where its data can be taken along.
        off.or_else(|| elsewhere(facts, target, running, [&there, next]).filter(|_| starts))
    })
}

/// A server that was told `appendonly no` saves a snapshot at its end; by a file that says yes it starts with the
/// append only file of the time before.
fn switched_off(
    facts: &Facts,
    target: &Target,
    running: &Running,
    next: &Conf,
    told: &[Setting],
) -> Option<Fault> {
    let is_told = told.iter().any(|setting| setting.directive == "appendonly");
    let off = running.config.get("appendonly").is_some_and(|now| now == "no") && !is_told;
    let (name, path) = (&target.name, target.conf());
    (off && next.is_on("appendonly")).then(|| {
        Fault::refused(format!(
            "{name} was told appendonly no, and {} says yes: it would start without what it saves at its end",
            path.display()
        ))
        .hint(format!(
            "let it write its append only file again:\n{} CONFIG SET appendonly yes",
            cli(facts, target)
        ))
    })
}

/// A server that saves to a file, and would read another.
fn elsewhere(facts: &Facts, target: &Target, running: &Running, [there, next]: [&Conf; 2]) -> Option<Fault> {
    data::names(next.is_on("appendonly")).iter().find_map(|(directive, default)| {
        let now = running.config.get(*directive)?;
        let [before, then] = [there, next].map(|conf| conf.word(directive).unwrap_or(default));
        let managed = facts.state.instances.contains_key(&target.name);
        // Since 7.0 that is forbidden unless the file allows it; the other names are never changed live.
        let protected = running.config.get("enable-protected-configs").is_some_and(|is| is == "no");
        let hint = match (&target.runtime, *directive) {
            (_, "dbfilename") if before != now && !protected => format!(
                "let it save where it will look for them:\n{} CONFIG SET {directive} {before}",
                cli(facts, target)
            ),
            _ if !managed => {
                format!("let {} say what it saves to: {directive} {now}", target.conf().display())
            }
            // A file of that name is named in others, and a volume is entered by its engine.
            (Runtime::Container(_), _) | (_, "appendfilename") => keep(target, directive, now),
            _ => {
                let dir = running.config.get("dir")?;
                format!(
                    "take it along, and run this again:\nredis-tp service stop {}\n{}",
                    target.name,
                    copy_of(Path::new(dir), now, then)
                )
            }
        };
        (now != then).then(|| empty(target, now, then).hint(hint))
    })
}

/// An instance that rests, and whose file is to name data that are not there.
///
/// # Errors
/// It has data under another name.
pub fn resting(facts: &Facts, instance: &Instance, wanted: &Conf, there: &Conf) -> Result<(), Fault> {
    let on = wanted.is_on("appendonly");
    let copy = wanted.get("replicaof").is_some() && there.get("replicaof").is_some();
    let runs = facts.running.contains_key(&instance.name);
    if copy || runs || on != there.is_on("appendonly") || !facts.occupied.contains(&instance.store) {
        return Ok(());
    }
    let target = instance.target();
    let lost = data::names(on).iter().find_map(|(directive, default)| {
        let [before, then] = [there, wanted].map(|conf| conf.word(directive).unwrap_or(default));
        let hint = match instance.store.path().filter(|_| *directive != "appendfilename") {
            Some(dir) if facts.path(&dir.join(then)).is_some() => return None,
            // Something else lies there.
            Some(dir) if before == *default && facts.path(&dir.join(before)).is_none() => return None,
            Some(dir) => format!("take it along, and run this again:\n{}", copy_of(dir, before, then)),
            None => keep(&target, directive, before),
        };
        (before != then).then(|| empty(&target, before, then).hint(hint))
    });
    lost.map_or(Ok(()), Err)
}

fn empty(target: &Target, now: &str, then: &str) -> Fault {
    Fault::refused(format!("{} would start empty: its data is in {now}, not in {then}", target.name))
}

fn keep(target: &Target, directive: &str, value: &str) -> String {
    format!("let [{}] keep {directive} = {value}", target.name)
}

fn copy_of(dir: &Path, from: &str, to: &str) -> String {
    format!("cp -a {0}/{from} {0}/{to}", dir.display())
}

/// How a server is told something.
fn cli(facts: &Facts, target: &Target) -> String {
    match facts.state.instances.contains_key(&target.name) {
        true => format!("redis-tp cli {} --", target.name),
        false => format!("redis-cli -p {}", target.address.port),
    }
}
