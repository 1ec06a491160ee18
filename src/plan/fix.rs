//! What the audit found and no topology says: modes of files, and a server that runs an old program.

use std::path::Path;

use super::live::cost;
use super::{Plan, Wanted};
use crate::audit::fix::Fix;
use crate::facts::Facts;
use crate::step::{Owner, Step};

/// Adds to a plan what its fixes are beside the topology.
pub fn add(wanted: &Wanted<'_>, facts: &Facts, fixes: &[Fix], plan: &mut Plan) {
    for fix in fixes {
        match fix {
            Fix::Close { path, ids, mode } if !owned(plan, path) => {
                let (paths, owner) = (vec![path.clone()], Owner::As(*ids));
                plan.steps.insert(0, Step::Own { paths, owner, mode: Some(*mode) });
            }
            Fix::Restart { instance, why } => {
                let restarts = |step: &Step| matches!(step, Step::Restart { target, .. } | Step::Stop { target, .. } if target.name == *instance);
                let known = wanted.instances.iter().find(|known| known.name == *instance);
                if let Some(known) = known.filter(|_| !plan.steps.iter().any(restarts)) {
                    let cost = cost(facts, instance, &[]);
                    plan.steps.push(Step::Restart { target: known.target(), why: (*why).into(), cost });
                    if let Some(upstream) = &known.upstream {
                        let master = upstream.address.clone();
                        plan.steps.push(Step::AwaitLink { target: known.target(), master });
                    }
                }
            }
            Fix::Close { .. } | Fix::Set { .. } | Fix::Overwrite | Fix::Renew | Fix::Password { .. } => {}
        }
    }
}

/// Whether a plan gives a file its owner and mode in any case.
fn owned(plan: &Plan, path: &Path) -> bool {
    plan.steps.iter().any(|step| match step {
        Step::Own { paths, .. } => paths.iter().any(|own| own == path),
        Step::Write { path: own, .. } | Step::Directory { path: own, .. } => own == path,
        _ => false,
    })
}
