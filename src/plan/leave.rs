//! The way out: stop instances, take our files away, put back what was there before; data and
//! packages go only when a purge is asked for.

use std::path::{Path, PathBuf};

use super::{Note, Plan, Wanted, containers, stock_unit};
use crate::engine::MASTER;
use crate::facts::Facts;
use crate::instance::Target;
use crate::kernel::Setting;
use crate::layout;
use crate::runtime::{Runtime, systemd};
use crate::secret::Secret;
use crate::software;
use crate::state::{Kept, KeptApp};
use crate::step::Step;
use crate::store::Store;
use crate::topology::{Name, Topology};

/// Everything of ours, gone. What somebody changed in our files goes with them: see
/// [`super::refuse::edited`].
pub fn leave(topology: Option<&Topology>, facts: &Facts, password: Option<Secret>, purge: bool) -> Plan {
    let state = &facts.state;
    let mut plan = Plan::default();
    let mut instances: Vec<(&Name, &Kept)> = state.instances.iter().collect();
    instances.sort_by_key(|(_, kept)| !kept.replica);
    super::app::retire(facts, &mut plan);
    for (name, kept) in &instances {
        retire(name, kept, facts, password.clone(), purge, &mut plan.steps);
    }
    one_reload(&mut plan.steps);
    plan.steps.extend(kernel_as_before(facts));
    let runtimes = instances.iter().map(|(_, kept)| kept.runtime);
    plan.steps.extend(runtimes.clone().find_map(|runtime| containers::no_network(runtime, facts)));
    if purge {
        purge_all(topology, facts, &instances, &mut plan);
        plan.forget = true;
    } else {
        plan.record = state.instances.clone();
        plan.record.values_mut().for_each(|kept| kept.active = false);
        plan.app = state.app.clone().map(|kept| KeptApp { active: false, ..kept });
        // We have left already: what became of the distribution's service since is not our doing.
        if plan.steps.is_empty() && !state.instances.values().any(|kept| kept.active) {
            return plan;
        }
    }
    // Last: started before a purge, it would read our data and write it out again.
    units_as_before(facts, purge, &instances, &mut plan.steps);
    plan
}

/// The steps that give the kernel the settings back that it had before us.
fn kernel_as_before(facts: &Facts) -> Vec<Step> {
    let state = &facts.state;
    let files = Setting::ALL.into_iter().map(Setting::file).filter(|path| state.files.contains_key(path));
    let values = state.kernel.iter().map(|(path, before)| (path.clone(), before.clone()));
    let values = values.map(|(path, value)| Step::Kernel { path, value });
    files.map(|path| Step::Remove { path }).chain(values).collect()
}

/// The steps that stop an instance and take its files away; with `lose`, data that it cannot save goes.
pub fn retire(
    name: &Name,
    kept: &Kept,
    facts: &Facts,
    password: Option<Secret>,
    lose: bool,
    steps: &mut Vec<Step>,
) {
    let target = Target::of_record(name, kept, password);
    if kept.active {
        steps.push(Step::Stop { target: target.clone(), lose: kept.replica || lose });
        if kept.runtime == Runtime::Systemd {
            steps.push(Step::Disable { unit: target.unit() });
        }
    }
    if let Runtime::Container(program) = kept.runtime {
        steps.extend(containers::retire(program, &target.container(), kept.engine, facts));
        return;
    }
    files_of(&target, facts, steps);
    if kept.active && kept.runtime == Runtime::Systemd {
        steps.push(Step::Reload);
    }
}

/// The step that takes a file of ours away, or puts back what stood there before us.
pub fn away(path: PathBuf, facts: &Facts) -> Step {
    match facts.state.files.get(&path) {
        Some(true) => Step::GiveBack { path },
        _ => Step::Remove { path },
    }
}

/// The steps that take the files of an instance away.
fn files_of(target: &Target, facts: &Facts, steps: &mut Vec<Step>) {
    let ours = |path: &PathBuf| facts.state.files.contains_key(path);
    let files: Vec<PathBuf> =
        [target.conf()].into_iter().chain(systemd::files(&target.unit())).filter(ours).collect();
    let drop_in = systemd::drop_in(&target.unit());
    let dir = drop_in.parent();
    let emptied = dir.filter(|_| files.iter().any(|file| file.parent() == dir)).map(Path::to_path_buf);
    steps.extend(files.into_iter().map(|path| away(path, facts)));
    steps.extend(emptied.map(|path| Step::RemoveEmpty { path }));
}

/// What instances leave behind that move into containers, or out of them: their files go, and their data
/// and logs are told of.
pub fn behind(wanted: &Wanted<'_>, facts: &Facts, plan: &mut Plan) {
    for instance in wanted.instances {
        let Some(kept) = facts.state.instances.get(&instance.name).filter(|kept| kept.active) else {
            continue;
        };
        if kept.runtime.program() == instance.runtime.program() {
            continue;
        }
        let target = Target::of_record(&instance.name, kept, None);
        match kept.runtime {
            Runtime::Container(program) => {
                plan.steps.extend(containers::retire(program, &target.container(), kept.engine, facts));
            }
            Runtime::Systemd | Runtime::Process => files_of(&target, facts, &mut plan.steps),
        }
        let log = kept.logfile.as_deref().map(Store::from);
        let there = |store: &Store| match store {
            Store::Path(path) => facts.path(path).is_some(),
            Store::Volume { volume, .. } => facts.containers.volumes.contains_key(volume),
        };
        plan.notes.push(Note::RuntimeLeft {
            instance: instance.name.to_string(),
            from: kept.runtime,
            to: instance.runtime,
            stays: [Some(kept.dir.clone()), log].into_iter().flatten().filter(there).collect(),
        });
    }
    let left = |kept: &&Kept| kept.active && kept.runtime.is_container();
    let stays = wanted.instances.iter().any(|instance| instance.runtime.is_container());
    if let Some(kept) = facts.state.instances.values().find(left).filter(|_| !stays) {
        plan.steps.extend(containers::no_network(kept.runtime, facts));
    }
}

/// One reload behind the last instance does for all.
pub fn one_reload(steps: &mut Vec<Step>) {
    let before = steps.len();
    steps.retain(|step| *step != Step::Reload);
    if steps.len() != before {
        steps.push(Step::Reload);
    }
}

/// The steps that take the data of instances away, and all that they had before. What was there before
/// us stays, and so does what is in use.
pub fn purge_data(facts: &Facts, names: &[&Name], used: &[Store], plan: &mut Plan) {
    let all = &facts.state.instances;
    let foreign: Vec<&Store> = all.values().flat_map(|kept| &kept.foreign).collect();
    let mut done: Vec<Store> = Vec::new();
    for kept in names.iter().filter_map(|name| all.get(*name)) {
        let log = kept.logfile.as_deref().map(Store::from);
        for store in [kept.dir.clone()].into_iter().chain(log).chain(kept.former.iter().cloned()) {
            if done.contains(&store) || used.iter().any(|used| used.is_within(&store)) {
                continue;
            }
            done.push(store.clone());
            if foreign.iter().any(|foreign| foreign.is_within(&store)) {
                plan.notes.push(Note::NotOurs { store });
                continue;
            }
            if let Some((link, target)) = store.path().and_then(|path| facts.links.get_key_value(path)) {
                plan.notes.push(Note::Behind { link: link.clone(), target: target.clone() });
            }
            plan.steps.push(match store {
                Store::Volume { program, volume } => Step::PurgeVolume { program, name: volume },
                // The distribution's own directory stays for its package.
                Store::Path(path) => {
                    let packaged = layout::here().login.is_none() && path == kept.engine.data(MASTER);
                    Step::Purge { path, keep: packaged }
                }
            });
        }
    }
}

/// Whether a purge of our packages would take what was there before us: their postrm removes the
/// distribution's own directory.
fn package_holds_foreign_data(facts: &Facts) -> bool {
    let held = |kept: &Kept| {
        let packaged = Store::Path(kept.engine.data(MASTER));
        kept.foreign.iter().any(|foreign| foreign.is_within(&packaged))
    };
    facts.state.instances.values().any(held)
}

/// The distribution's service as it was before our first run, and the units of what was taken over.
fn units_as_before(facts: &Facts, purge: bool, instances: &[(&Name, &Kept)], steps: &mut Vec<Step>) {
    let package_goes = purge && !facts.state.packages.is_empty() && !package_holds_foreign_data(facts);
    let stock = instances.first().map(|(_, kept)| stock_unit(kept.engine));
    let own = instances.iter().rev().map(|(name, kept)| kept.engine.unit(name.as_str()));
    let mut units: Vec<String> = Vec::new();
    for unit in stock.into_iter().chain(own).filter(|_| !package_goes) {
        if !units.contains(&unit) {
            units.push(unit);
        }
    }
    for unit in units {
        let before = facts.state.units.get(&unit).copied().unwrap_or_default();
        if before.enabled {
            steps.retain(|step| !matches!(step, Step::Disable { unit: disabled } if *disabled == unit));
        }
        if before.active {
            steps.push(Step::StartUnit { unit });
        }
    }
}

fn purge_all(topology: Option<&Topology>, facts: &Facts, instances: &[(&Name, &Kept)], plan: &mut Plan) {
    let state = &facts.state;
    let names: Vec<&Name> = instances.iter().map(|(name, _)| *name).collect();
    purge_data(facts, &names, &[], plan);
    super::app::purge(facts, plan);
    if !state.packages.is_empty() {
        if package_holds_foreign_data(facts) {
            plan.notes.push(Note::PackagesStay { packages: state.packages.clone() });
        } else {
            plan.steps.push(Step::RemovePackages { packages: state.packages.clone() });
        }
    }
    let steps = &mut plan.steps;
    let software = software::place().filter(|_| !state.software.is_empty());
    steps.extend(software.map(|path| Step::Purge { path, keep: false }));
    let mut own: Vec<_> = topology.map(|topology| topology.file.clone()).into_iter().collect();
    own.extend(state.files.keys().filter(|path| path.starts_with(crate::secrets::dir())).cloned());
    own.sort();
    own.dedup();
    for path in own {
        steps.push(Step::Purge { path, keep: false });
    }
    for path in state.directories.iter().rev() {
        steps.push(Step::RemoveEmpty { path: path.clone() });
    }
}
