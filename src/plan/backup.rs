//! Backups that a plan takes before data go: of what instances hold that is nowhere else.

use super::memory::{self, Shortage};
use super::{Consent, Plan, Wanted};
use crate::backup;
use crate::conf::Conf;
use crate::exit::Fault;
use crate::facts::{Facts, Holding, Role};
use crate::instance::{Instance, Target};
use crate::live::Setting;
use crate::secret::Secret;
use crate::step::{Source, Step};
use crate::topology::Name;

/// Puts backups of some instances of our record in front of a plan.
///
/// # Errors
/// One holds something that cannot be read.
pub fn before(
    plan: &mut Plan,
    facts: &Facts,
    names: &[&Name],
    password: Option<&Secret>,
    consent: Consent,
) -> Result<(), Fault> {
    if consent.no_backup {
        return Ok(());
    }
    let mut steps = Vec::new();
    for name in names {
        let Some(kept) = facts.state.instances.get(*name) else { continue };
        let target = Target::of_record(name, kept, password.cloned());
        steps.extend(of(facts, target)?);
    }
    plan.steps.splice(0..0, steps);
    Ok(())
}

/// The backup of one instance, if it holds anything.
///
/// # Errors
/// What it holds cannot be read.
pub fn of(facts: &Facts, target: Target) -> Result<Option<Step>, Fault> {
    let source = match facts.holdings.get(&target.name) {
        None | Some(Holding::Nothing) => return Ok(None),
        Some(Holding::Keys(_) | Holding::Unsaved(_)) => Source::Server,
        Some(Holding::File(path)) => Source::File { path: path.clone() },
        Some(Holding::Closed(why)) => {
            let name = &target.name;
            let active = facts.state.instances.get(name).is_some_and(|kept| kept.active);
            let start = if active { format!("redis-tp service start {name}") } else { "redis-tp up".into() };
            return Err(Fault::refused(format!("no backup of {name} can be taken: {why}")).hint(format!(
                "cure that, or start it; or let its data go without one:\n{start}\nthe same command with --no-backup"
            )));
        }
    };
    Ok(Some(step(facts, target, source)))
}

/// A backup in the usual place.
pub fn step(facts: &Facts, target: Target, source: Source) -> Step {
    let path = backup::path(&backup::dir(), &target.name, facts.time, |path| facts.backups.contains(path));
    Step::Backup { target, source, path }
}

/// A master that may lose what it never saves, because somebody said so, is backed up before its end.
pub fn before_loss(plan: &mut Plan, facts: &Facts, consent: Consent) {
    if !consent.force || consent.no_backup {
        return;
    }
    let mut short = memory::shortages(plan, facts);
    short.retain(Shortage::evicts);
    let evicts = |target: &Target| short.iter().any(|shortage| shortage.instance == target.name);
    let ends = |step: &Step| match step {
        Step::Restart { target, .. } | Step::Stop { target, .. } => Some(target.clone()),
        Step::Set { target, .. } if evicts(target) => Some(target.clone()),
        _ => None,
    };
    let holds = |target: &Target| {
        let running = facts.running.get(&target.name).filter(|running| running.role == Role::Master);
        running.is_some_and(|running| running.keys > 0 && (running.unsaved > 0 || evicts(target)))
    };
    let taken = |target: &Target| {
        plan.steps
            .iter()
            .any(|step| matches!(step, Step::Backup { target: other, .. } if other.name == target.name))
    };
    let lost = plan.steps.iter().filter_map(ends).filter(|target| holds(target) && !taken(target));
    let backups: Vec<Step> =
        lost.map(|target| step(facts, super::where_it_is(facts, target), Source::Server)).collect();
    // By then it takes the password that is wanted.
    let at = plan.steps.iter().position(|step| ends(step).is_some()).unwrap_or(0);
    plan.steps.splice(at..at, backups);
}

/// Whether a master that does not run is to come up as a replica: what is in its directory goes.
pub fn is_demoted_at_rest(facts: &Facts, instance: &Instance) -> bool {
    let Some(kept) = facts.state.instances.get(&instance.name) else { return false };
    // Its file tells of a promotion, too; after an uninstall another's may stand there.
    let conf = facts.text(&instance.conf).filter(|_| kept.active).and_then(|text| Conf::parse(text).ok());
    let was_master = conf.map_or(!kept.replica, |conf| conf.get("replicaof").is_none());
    let rests = !facts.running.contains_key(&instance.name) && facts.occupied.contains(&kept.dir);
    instance.upstream.is_some() && was_master && rests && instance.store == kept.dir
}

/// A master that is to follow another loses what it holds.
///
/// # Errors
/// One does not run, and holds something that cannot be read.
pub fn before_demotion(wanted: &Wanted<'_>, facts: &Facts, plan: &mut Plan) -> Result<(), Fault> {
    if wanted.consent.no_backup {
        return Ok(());
    }
    let follows = |step: &Step, name: &Name| match step {
        Step::Set { target, settings } => target.name == *name && settings.iter().any(Setting::follows),
        Step::Restart { target, .. } => target.name == *name && target.replica,
        Step::Start { targets } => targets.iter().any(|target| target.name == *name && target.replica),
        _ => false,
    };
    let demoted = wanted.instances.iter().filter(|instance| {
        let running = facts.running.get(&instance.name);
        let holds = running.is_some_and(|running| running.role == Role::Master && running.keys > 0);
        // A role of another's hand that stays is no demotion.
        let stays = plan.notes.iter().any(
            |note| matches!(note, super::Note::Promoted { instance: promoted, .. } if *promoted == instance.name),
        );
        holds && !stays && plan.steps.iter().any(|step| follows(step, &instance.name))
    });
    let mut backups: Vec<Step> =
        demoted.map(|instance| step(facts, super::as_it_runs(facts, instance), Source::Server)).collect();
    let starts = |name: &Name| plan.steps.iter().any(|step| follows(step, name));
    for instance in wanted.instances.iter().filter(|instance| is_demoted_at_rest(facts, instance)) {
        if starts(&instance.name) {
            backups.extend(of(facts, super::as_it_runs(facts, instance))?);
        }
    }
    let at = plan.steps.iter().position(|step| !matches!(step, Step::Prove { .. })).unwrap_or(0);
    plan.steps.splice(at..at, backups);
    Ok(())
}
