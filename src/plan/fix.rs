//! What the audit found and no topology says: modes of files, the kernel, and a server that runs an old program.

use std::path::Path;

use super::live::{cost, refuse_loss};
use super::{Plan, Wanted};
use crate::audit::fix::Fix;
use crate::exit::Fault;
use crate::facts::Facts;
use crate::kernel::Setting;
use crate::step::{Body, Owner, Step};

/// Adds to a plan what its fixes are beside the topology.
///
/// # Errors
/// See [`refuse_loss`].
pub fn add(wanted: &Wanted<'_>, facts: &Facts, fixes: &[Fix], plan: &mut Plan) -> Result<(), Fault> {
    for fix in fixes {
        match fix {
            Fix::Close { path, inode, mode } if !owned(plan, path) => {
                plan.steps.insert(0, Step::Mode { path: path.clone(), inode: *inode, mode: *mode });
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
                    refuse_loss(plan, facts, wanted.consent).map_err(|fault| {
                        fault
                            .hint(format!("restart it yourself before:\nredis-tp service restart {instance}"))
                    })?;
                }
            }
            Fix::Kernel { setting, value } => kernel(*setting, value, plan),
            Fix::Close { .. } | Fix::Set { .. } | Fix::Overwrite | Fix::Renew | Fix::Password { .. } => {}
        }
    }
    Ok(())
}

/// A setting of the kernel's, which servers that want more of it than others ask for more than once.
fn kernel(setting: Setting, value: &str, plan: &mut Plan) {
    let number = |text: &str| text.parse::<u64>().unwrap_or_default();
    let asked = plan.steps.iter().any(|step| match step {
        Step::Kernel { path, value: other } => path == setting.path() && number(other) >= number(value),
        _ => false,
    });
    if asked {
        return;
    }
    let file = setting.file();
    plan.steps.retain(|step| match step {
        Step::Kernel { path, .. } => path != setting.path(),
        Step::Write { path, .. } => *path != file,
        _ => true,
    });
    let body = Body::Plain(setting.line(value));
    plan.steps.push(Step::Write { path: file, body, ours: None, owner: Owner::Root, mode: 0o644 });
    plan.steps.push(Step::Kernel { path: setting.path().into(), value: value.to_owned() });
}

/// Whether a plan gives a file its owner and mode in any case.
fn owned(plan: &Plan, path: &Path) -> bool {
    plan.steps.iter().any(|step| match step {
        Step::Own { paths, .. } => paths.iter().any(|own| own == path),
        Step::Write { path: own, .. } | Step::Directory { path: own, .. } | Step::Mode { path: own, .. } => {
            own == path
        }
        _ => false,
    })
}
