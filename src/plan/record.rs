//! What our record will say of instances after a plan: what is theirs now, what was theirs once, and
//! what was there before us.

use std::collections::BTreeMap;

use super::{Note, Wanted};
use crate::facts::Facts;
use crate::instance::Instance;
use crate::state::Kept;
use crate::store::Store;
use crate::topology::Name;

/// The whole record.
pub fn of(wanted: &Wanted<'_>, facts: &Facts) -> BTreeMap<Name, Kept> {
    let inactive = |kept: &Kept| Kept { active: false, ..kept.clone() };
    let mut record: BTreeMap<Name, Kept> = facts
        .state
        .instances
        .iter()
        .filter(|(name, _)| Some(*name) != wanted.purge)
        .map(|(name, kept)| (name.clone(), inactive(kept)))
        .collect();
    record.extend(wanted.instances.iter().map(|instance| (instance.name.clone(), one(facts, instance))));
    record
}

/// One instance: what it leaves behind is kept in mind, for a purge is to take that, too.
fn one(facts: &Facts, instance: &Instance) -> Kept {
    let mut kept = instance.record();
    let (all, dir) = (&facts.state.instances, &instance.store);
    let before = all.get(&instance.name);
    kept.foreign = before.map(|before| before.foreign.clone()).unwrap_or_default();
    let foreign = all.values().any(|other| other.foreign.contains(dir));
    let known = all.values().any(|other| other.dir == *dir || other.former.contains(dir));
    let there = || instance.plain.is_some() && dir.path().is_some_and(|path| facts.path(path).is_some());
    let found = !known && (facts.occupied.contains(dir) || there());
    if (foreign || found) && !kept.foreign.contains(dir) {
        kept.foreign.push(dir.clone());
    }
    // So is its log.
    let log = instance.logfile.as_deref().filter(|log| there() && !known && facts.path(log).is_some());
    kept.foreign.extend(log.map(Store::from));
    let Some(before) = before else { return kept };
    kept.effective.clone_from(&before.effective);
    kept.former.clone_from(&before.former);
    if !before.foreign.contains(&before.dir) {
        kept.former.push(before.dir.clone());
    }
    kept.former.extend(before.logfile.as_deref().map(Store::from));
    let log = kept.logfile.as_deref().map(Store::from);
    kept.former.retain(|store| *store != kept.dir && Some(store) != log.as_ref());
    kept.former.sort();
    kept.former.dedup();
    kept
}

/// A directory that an instance gives up stays where it is.
pub fn moved(facts: &Facts, instance: &Instance) -> Option<Note> {
    let before = facts.state.instances.get(&instance.name).filter(|before| before.dir != instance.store)?;
    // A move to another runtime has a note of its own.
    (before.runtime.program() == instance.runtime.program())
        .then(|| Note::DirectoryStays { instance: instance.name.clone(), store: before.dir.clone() })
}
