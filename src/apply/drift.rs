//! What servers say of their configuration at the end of a run, kept to tell later what was set on them by
//! hand.

use super::{Run, live};
use crate::instance::Target;
use crate::plan::{Note, Plan, drift};
use crate::step::Step;
use crate::topology::Name;

impl Run<'_> {
    /// Asks the servers that this run touched, and those that were never asked.
    pub(super) fn remember_effective(&mut self, plan: &Plan) {
        for (name, kept) in &mut self.state.instances {
            if !kept.active || !(kept.effective.is_empty() || is_touched(plan, name)) {
                continue;
            }
            let target = Target::of_record(name, kept, None);
            let ask = || {
                let wire = live::reach(self.host, &target, &live::passwords(self.host, &target));
                wire.ok().and_then(|mut wire| wire.config())
            };
            // Asked again, as a connection can break. One that does not let us ask is one of which nothing can
            // be told later.
            kept.effective = drift::effective(ask().or_else(ask).unwrap_or_default());
            if !is_new(plan, name) {
                kept.effective.extend(left_as_it_is(plan, name));
            }
        }
    }
}

/// What was set by hand before this run, and stays to be told of.
fn left_as_it_is(plan: &Plan, name: &Name) -> Vec<(String, String)> {
    let set = plan.notes.iter().filter_map(|note| match note {
        Note::SetLive { instance, directive, was, .. } if instance == name => {
            Some((directive.clone(), was.clone()))
        }
        _ => None,
    });
    set.collect()
}

/// Whether its server is another one than before the run.
fn is_new(plan: &Plan, name: &Name) -> bool {
    plan.steps.iter().any(|step| match step {
        Step::Start { targets } => targets.iter().any(|target| target.name == *name),
        Step::Restart { target, .. } => target.name == *name,
        _ => false,
    })
}

fn is_touched(plan: &Plan, name: &Name) -> bool {
    let told = plan.steps.iter().any(|step| match step {
        Step::Set { target, .. } => target.name == *name,
        Step::Keep { path, .. } | Step::Write { path, .. } => {
            plan.record.get(name).is_some_and(|kept| kept.engine.conf(name.as_str()) == *path)
        }
        _ => false,
    });
    told || is_new(plan, name)
}
