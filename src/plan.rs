//! From what is wanted and what is there to an ordered list of steps. Pure: no file, no child, no
//! clock. Dry run, diff, explanation and test vector are all this same data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use crate::app::App;
use crate::engine::{Engine, Version};
use crate::facts::containers::Seen;
use crate::facts::{Facts, Role, Upstream};
use crate::host::Kind;
use crate::instance::{Instance, Target};
use crate::layout;
use crate::live::Setting;
use crate::runtime::{Runtime, process, systemd};
use crate::secrets::Secrets;
use crate::software;
use crate::state::{Kept, KeptApp, UnitBefore};
use crate::step::{Body, Candidate, Inside, Origin, Owner, Step};
use crate::store::Store;
use crate::topology::{self, Image, Name, Topology};

pub mod adopt;
pub mod app;
pub mod app_refuse;
pub mod backup;
pub mod certificates;
mod change;
pub mod containers;
pub mod drift;
pub mod fix;
mod handed;
mod leave;
pub mod live;
mod lost;
mod memory;
mod note;
mod record;
pub mod refuse;
mod renamed;
pub mod restore;
mod whole;

pub use leave::leave;
pub use note::Note;

use change::Change;

/// Everything that is wanted.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The topology, parsed.
    pub topology: &'a Topology,
    /// Its text, if the file on disk has to become that.
    pub text: Option<&'a str>,
    /// Its instances with their defaults.
    pub instances: &'a [Instance],
    /// The web app with its defaults, if it is wanted.
    pub app: Option<&'a App>,
    /// The image of containers.
    pub image: &'a Image,
    /// Their passwords.
    pub secrets: &'a Secrets,
    /// What the user has agreed to.
    pub consent: Consent,
    /// Take the data of this instance, which is no longer wanted, too.
    pub purge: Option<&'a Name>,
}

/// What the user has agreed to beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// Take our value where somebody edited a file by hand.
    pub overwrite: bool,
    /// Lose what a server holds and never saves.
    pub force: bool,
    /// What is there and what is wanted were made alike: record it as ours.
    pub adopt: bool,
    /// Take no backup of data before they go.
    pub no_backup: bool,
}

/// What is to be done, and what there is to say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// What differs and stays as it is.
    pub notes: Vec<Note>,
    /// What is taken over that somebody set up by hand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adopted: Vec<adopt::Adopted>,
    /// What is ours beside files, where the record was lost.
    #[serde(skip)]
    pub found: lost::Found,
    /// What our record will say of instances afterwards.
    #[serde(skip)]
    pub record: BTreeMap<Name, Kept>,
    /// What our record will say of the web app.
    #[serde(skip)]
    pub app: Option<KeptApp>,
    /// How units are now, for the day they are to be so again.
    #[serde(skip)]
    pub units: BTreeMap<String, UnitBefore>,
    /// Our state directory goes, too.
    #[serde(skip)]
    pub forget: bool,
    /// It leaves nothing behind that could be undone.
    #[serde(skip)]
    pub passing: bool,
    /// The image that containers of this plan run in.
    #[serde(skip)]
    pub inside: Option<Inside>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether somebody's hand made the machine differ from the topology.
    pub fn has_drift(&self) -> bool {
        self.notes.iter().any(Note::is_drift)
    }

    /// What a running server is told.
    fn told(&self, name: &Name) -> &[Setting] {
        let told = self.steps.iter().find_map(|step| match step {
            Step::Set { target, settings } if target.name == *name => Some(settings.as_slice()),
            _ => None,
        });
        told.unwrap_or_default()
    }

    /// What becomes of a file.
    fn written(&self, file: &Path) -> Option<&str> {
        self.steps.iter().find_map(|step| match step {
            Step::Write { path, body, .. } if path == file => Some(body.expose()),
            _ => None,
        })
    }
}

/// Decides what to do.
///
/// # Errors
/// A [`crate::exit::Fault`] with code 5 where the machine or the topology does not allow it.
pub fn plan(wanted: &Wanted<'_>, facts: &Facts) -> Result<Plan> {
    containers::impossible(wanted, facts)?;
    refuse::impossible(wanted, facts)?;
    certificates::impossible(wanted, facts)?;
    app_refuse::impossible(wanted, facts)?;
    lost::refuse(wanted, facts)?;
    let version = facts.server.as_ref().map_or(ASSUMED, |server| server.version);
    let order = by_depth(wanted.instances);
    let mut changes = Vec::new();
    for instance in &order {
        changes.push(change::of(wanted, facts, instance, version)?);
    }
    let app = app::of(wanted, facts)?;
    let mut plan = Plan::default();
    software(wanted, facts, &changes, &mut plan);
    retire_dropped(wanted, facts, &mut plan);
    change_runtime(wanted, facts, &mut plan);
    adopt::end_servers(wanted, facts, &mut plan);
    places(wanted, facts, &order, &mut plan);
    certificates::places(wanted, facts, &mut plan);
    adopt::owners(wanted, facts, &mut plan);
    containers::places(wanted, facts, &mut plan);
    app.iter().for_each(|app| app.places(facts, &mut plan));
    live::before_files(facts, &changes, &mut plan);
    certificates::files(wanted, facts, &changes, &mut plan);
    files(wanted, facts, &changes, &mut plan);
    app.iter().for_each(|app| app.files(&mut plan));
    live::after_files(&changes, &mut plan);
    containers::make(wanted, facts, &changes, &mut plan);
    app.iter().for_each(|app| app.container(&mut plan));
    services(facts, &changes, app.as_ref(), &mut plan);
    app.iter().for_each(|app| app.service(&mut plan));
    live::at_the_end(&changes, &mut plan);
    backup::before_demotion(wanted, facts, &mut plan)?;
    if let Some(name) = wanted.purge {
        backup::before(&mut plan, facts, &[name], wanted.secrets.password.as_ref(), wanted.consent)?;
    }
    live::refuse_loss(&plan, facts, wanted.consent)?;
    backup::before_loss(&mut plan, facts, wanted.consent);
    plan.units = facts
        .units
        .iter()
        .map(|(name, unit)| {
            (name.clone(), UnitBefore { enabled: unit.enabled, active: unit.active == "active" })
        })
        .collect();
    plan.notes.extend(changes.iter().flat_map(|change| change.notes.clone()));
    plan.notes.extend(wanted.instances.iter().filter_map(|instance| record::moved(facts, instance)));
    plan.notes.extend(changes.iter().filter_map(|change| live::replicas_elsewhere(facts, change)));
    plan.notes.extend(app.iter().flat_map(|app| app.notes.clone()));
    plan.notes.extend(certificates::elsewhere(wanted, facts));
    plan.notes.extend(certificates::plain(wanted));
    // A link that this very plan waits for is none that stays down.
    let Plan { steps, notes, .. } = &mut plan;
    let awaited = |name: &Name| {
        steps.iter().any(|step| matches!(step, Step::AwaitLink { target, .. } if target.name == *name))
    };
    notes.retain(|note| !matches!(note, Note::LinkDown { instance } if awaited(instance)));
    lost::known_again(wanted, facts, version, &mut plan)?;
    plan.record = record::of(wanted, facts);
    plan.inside = containers::inside(wanted, facts);
    plan.app = match &app {
        Some(app) => Some(app.record()),
        None => facts.state.app.clone().map(|kept| KeptApp { active: false, ..kept }),
    };
    keep_topology(facts, &mut plan);
    if !plan.is_empty() {
        refuse::full_disks(facts)?;
    }
    Ok(plan)
}

/// The version that configurations are rendered for while none is installed: that of Debian 12.
pub const ASSUMED: Version = Version::new(7, 0);

/// Masters before their replicas.
pub fn by_depth(instances: &[Instance]) -> Vec<&Instance> {
    let depth = |instance: &Instance| {
        let mut depth = 0;
        let mut at = instance;
        while let Some(of) = at.upstream.as_ref().and_then(|of| of.instance.as_ref()) {
            depth += 1;
            match instances.iter().find(|other| &other.name == of) {
                Some(next) if depth <= instances.len() => at = next,
                _ => break,
            }
        }
        depth
    };
    let mut order: Vec<&Instance> = instances.iter().collect();
    order.sort_by_key(|instance| depth(instance));
    order
}

/// Instances that we set up and that the topology no longer names go before others come: they may hold a
/// port.
fn retire_dropped(wanted: &Wanted<'_>, facts: &Facts, plan: &mut Plan) {
    let dropped = |name: &Name| !wanted.instances.iter().any(|instance| &instance.name == name);
    let mut gone: Vec<(&Name, &Kept)> = facts
        .state
        .instances
        .iter()
        .filter(|(name, kept)| dropped(name) && (kept.active || wanted.purge == Some(*name)))
        .collect();
    gone.sort_by_key(|(_, kept)| !kept.replica);
    if wanted.app.is_none() {
        app::retire(facts, plan);
    }
    let purged = |name: &Name| wanted.purge == Some(name);
    for (name, kept) in &gone {
        let password = wanted.secrets.password.clone();
        leave::retire(name, kept, facts, password, purged(name), &mut plan.steps);
        let used = wanted.instances.iter().any(|instance| instance.store == kept.dir);
        if !purged(name) && !used {
            plan.notes.push(Note::DataStays { instance: (*name).clone(), store: kept.dir.clone() });
        }
    }
    leave::one_reload(&mut plan.steps);
    for (name, _) in gone.into_iter().filter(|(name, _)| purged(name)) {
        let used_by_others: Vec<Store> = wanted
            .instances
            .iter()
            .flat_map(|instance| [Some(instance.store.clone()), instance.logfile.as_deref().map(Store::from)])
            .flatten()
            .collect();
        leave::purge_data(facts, &[name], &used_by_others, plan);
    }
}

/// An instance that another runtime keeps running is stopped there, to start anew in the wanted one.
fn change_runtime(wanted: &Wanted<'_>, facts: &Facts, plan: &mut Plan) {
    app::change_runtime(wanted, facts, plan);
    for instance in by_depth(wanted.instances).into_iter().rev() {
        let Some(kept) = under_another_runtime(facts, instance) else { continue };
        let target = Target::of_record(&instance.name, kept, wanted.secrets.password.clone());
        plan.steps.push(Step::Stop { target, lose: kept.replica });
        if kept.runtime == Runtime::Systemd {
            plan.steps.push(Step::Disable { unit: instance.unit.clone() });
        }
    }
    leave::behind(wanted, facts, plan);
}

/// Our record of an instance that runs, but not as it is wanted to.
fn under_another_runtime<'a>(facts: &'a Facts, instance: &Instance) -> Option<&'a Kept> {
    let kept = facts.state.instances.get(&instance.name)?;
    let runs = match kept.runtime {
        Runtime::Process => facts.pids.contains_key(&instance.name),
        Runtime::Systemd => facts.unit(&instance.unit).is_some_and(|unit| unit.active == "active"),
        Runtime::Container(_) => {
            facts.containers.containers.get(&instance.container()).is_some_and(Seen::runs)
        }
    };
    (kept.active && kept.runtime != instance.runtime && runs).then_some(kept)
}

/// Drop-ins, package, proof. The drop-ins come before the package: its postinst makes systemd read
/// its files anyway, and that spares a reload of our own.
fn software(wanted: &Wanted<'_>, facts: &Facts, changes: &[Change<'_>], plan: &mut Plan) {
    let (engine, inside) = (wanted.topology.engine, containers::inside(wanted, facts));
    if let Some(Inside { program, image, .. }) = &inside {
        if facts.containers.image.is_none() {
            plan.steps.push(Step::Pull { program: *program, image: image.clone() });
        }
    } else if let Some(path) = software::unpacked(engine).filter(|_| !facts.installed()) {
        let above = layout::here().above(&path).into_iter().filter(|above| facts.path(above).is_none());
        plan.steps.extend(above.map(|above| Step::Directory {
            path: above.to_path_buf(),
            owner: Owner::Root,
            mode: 0o700,
            copy: false,
        }));
        plan.steps.push(Step::Fetch { engine, path });
    } else if !facts.installed() {
        unit_files(facts, changes, plan);
        plan.steps.push(Step::Install {
            engine,
            repair: facts.package.as_ref().is_some_and(|package| package.status != "config-files"),
        });
    }
    let candidates: Vec<Candidate> =
        changes.iter().filter_map(|change| candidate(wanted, facts, change)).collect();
    if !candidates.is_empty() {
        plan.steps.push(Step::Prove { candidates, inside });
    }
}

fn unit_files(facts: &Facts, changes: &[Change<'_>], plan: &mut Plan) {
    for change in changes {
        plan.steps.extend(change.stale.iter().map(|path| leave::away(path.clone(), facts)));
        let Some((path, text)) = change.unit_file.clone() else {
            let emptied = change.stale.first().and_then(|path| path.parent());
            plan.steps.extend(emptied.map(|path| Step::RemoveEmpty { path: path.to_path_buf() }));
            continue;
        };
        let body = Body::Plain(text);
        plan.steps.push(Step::Write { path, body, ours: None, owner: Owner::Root, mode: 0o644 });
    }
}

fn candidate(wanted: &Wanted<'_>, facts: &Facts, change: &Change<'_>) -> Option<Candidate> {
    // One that is kept as it is has to start from it.
    let kept = || facts.texts.get(&change.instance.conf).filter(|_| change.keep.is_some() && change.start);
    let text = change.text.as_ref().or_else(kept).cloned()?;
    let file = wanted.topology.file.display();
    let section = wanted.topology.instance(change.instance.name.as_str());
    let named = section.map(|section| section.directives.as_slice()).unwrap_or_default();
    let origins = named
        .iter()
        .map(|named| Origin { directive: named.name.clone(), place: format!("{file}:{}", named.line) })
        .collect();
    let ask = change.live.unknown();
    Some(Candidate { target: change.instance.target(), text: Body::Conf(text), origins, ask })
}

/// Directories, parents first.
fn places(wanted: &Wanted<'_>, facts: &Facts, order: &[&Instance], plan: &mut Plan) {
    let engine = wanted.topology.engine;
    let here = layout::here();
    let mut planned: Vec<PathBuf> = plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Directory { path, .. } => Some(path.clone()),
            _ => None,
        })
        .collect();
    // systemd takes a run directory away together with the unit.
    let leaves_unit = |instance: &&&Instance| under_another_runtime(facts, instance).is_some();
    let go_with_units: Vec<PathBuf> =
        order.iter().filter(leaves_unit).map(|instance| process::run_dir(&instance.pidfile)).collect();
    let mut step = |path: &Path, owner: Owner, mode: u32, copy: bool, correct: bool| {
        let right = match facts.path(path) {
            _ if go_with_units.iter().any(|gone| gone == path) => false,
            Some(stat) if correct => stat.mode == mode && owns(facts, owner, stat.uid),
            Some(_) => true,
            None => false,
        };
        let above = if right { Vec::new() } else { here.above(path) };
        let above = above.into_iter().filter(|above| facts.path(above).is_none());
        let mut missing: Vec<_> = above.map(|above| (above, Owner::Root, 0o700, false)).collect();
        missing.extend((!right).then_some((path, owner, mode, copy)));
        for (path, owner, mode, copy) in missing {
            let path = path.to_path_buf();
            if !planned.contains(&path) {
                planned.push(path.clone());
                plan.steps.push(Step::Directory { path, owner, mode, copy });
            }
        }
    };
    let contained = order.iter().any(|instance| instance.runtime.is_container());
    // A user's software brings no directories.
    let (ours, packaged) = (crate::secrets::dir(), !facts.installed() && here.login.is_none());
    step(ours, Owner::Root, 0o755, false, false);
    if contained {
        return;
    }
    if !packaged {
        step(&engine.etc(), Owner::Server(engine), 0o2770, false, false);
        step(&engine.log(), Owner::ServerAdm(engine), 0o2750, false, false);
    }
    for instance in order {
        // The package makes the distribution's own directories itself.
        let by_package = |path: &Path| packaged && (path == engine.data("master") || path == engine.log());
        // Of what somebody set up by hand, only the owner matters: see `adopt::owners`.
        let ours = instance.plain.is_none();
        let dir = (instance.dir.as_path(), Owner::Server(engine), 0o750, instance.upstream.is_some(), ours);
        let log = instance.log_dir().map(|log| (log, Owner::ServerAdm(engine), 0o2750, false, false));
        for (path, owner, mode, copy, correct) in [dir].into_iter().chain(log) {
            if by_package(path) {
                continue;
            }
            for parent in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                if parent != Path::new("/")
                    && here.login.is_none()
                    && !matches!(parent.to_str(), Some("/var" | "/var/lib" | "/var/log"))
                {
                    step(parent, Owner::Root, 0o755, false, false);
                }
            }
            step(path, owner, mode, copy, correct);
        }
        if here.login.is_some() && instance.runtime == Runtime::Systemd {
            step(&systemd::wants(), Owner::Root, 0o755, false, false);
        }
        if here.login.is_some() || instance.runtime == Runtime::Process {
            step(&process::run_dir(&instance.pidfile), Owner::Server(engine), 0o2755, false, false);
        }
    }
}

fn owns(facts: &Facts, owner: Owner, uid: u32) -> bool {
    match owner {
        Owner::Root => uid == layout::here().own().uid,
        Owner::App => facts.app.user.is_some_and(|user| user.uid == uid),
        Owner::Image => facts.user.is_some_and(|user| user.uid == uid),
        Owner::Server(_) | Owner::ServerAdm(_) => facts.user.is_some_and(|user| user.uid == uid),
    }
}

/// Secrets, the topology itself, configurations, drop-ins.
fn files(wanted: &Wanted<'_>, facts: &Facts, changes: &[Change<'_>], plan: &mut Plan) {
    for (path, secret) in &wanted.secrets.fresh {
        let text = crate::secret::Secret::new(format!("{}\n", secret.expose()));
        plan.steps.push(Step::Write {
            path: path.clone(),
            body: Body::Secret(text),
            ours: None,
            owner: Owner::Root,
            mode: 0o600,
        });
    }
    if let Some(text) = wanted.text {
        // A topology with a password in it is nobody's to read.
        let mode = if wanted.topology.instances.iter().any(has_secret) { 0o600 } else { 0o644 };
        let body = Body::Conf(crate::secret::Secret::new(text));
        plan.steps.push(Step::Write {
            path: topology::file().into(),
            body,
            ours: None,
            owner: Owner::Root,
            mode,
        });
    }
    for change in changes {
        if let Some(ours) = &change.keep {
            let (path, ours) = (change.instance.conf.clone(), Body::Conf(ours.clone()));
            plan.steps.push(Step::Keep { path, ours });
        }
        if let Some(text) = &change.text {
            plan.steps.push(Step::Write {
                path: change.instance.conf.clone(),
                body: Body::Conf(text.clone()),
                ours: change.ours.clone().map(Body::Conf),
                owner: match change.instance.runtime {
                    Runtime::Container(_) => Owner::Image,
                    _ => Owner::Server(change.instance.engine),
                },
                mode: if change.instance.runtime.is_container() { 0o600 } else { 0o640 },
            });
        }
    }
    if facts.installed() || layout::here().login.is_some() {
        unit_files(facts, changes, plan);
    }
}

/// A topology that was edited in its place is written once more as it is, so that there is a copy of what
/// was applied last. Only root's own plain file, and only along with other steps: it is no change itself.
fn keep_topology(facts: &Facts, plan: &mut Plan) {
    let path = topology::file();
    let planned = plan.steps.iter().position(|step| matches!(step, Step::Write { .. }));
    let (Some(at), Some(text), Some(stat)) = (planned, facts.texts.get(path), facts.path(path)) else {
        return;
    };
    let written =
        plan.steps.iter().any(|step| matches!(step, Step::Write { path, .. } if path == topology::file()));
    if written
        || facts.written.get(path) == Some(text)
        || stat.kind != Kind::File
        || stat.uid != layout::here().own().uid
    {
        return;
    }
    let body = Body::Conf(text.clone());
    let mode = stat.mode & 0o777;
    plan.steps.insert(at, Step::Write { path: path.into(), body, ours: None, owner: Owner::Root, mode });
}

fn has_secret(section: &crate::topology::Section) -> bool {
    section.directives.iter().any(|named| crate::directives::secret(&named.name))
}

/// Enable, reload, restart (replicas before their masters), start (masters before their replicas), and
/// the links awaited. systemd 257 takes the links that `enable` makes for a change of its units, so the
/// reload comes behind.
fn services(facts: &Facts, changes: &[Change<'_>], app: Option<&app::AppChange<'_>>, plan: &mut Plan) {
    for change in changes.iter().filter(|change| change.enable) {
        plan.steps.push(boot(change.instance, true));
    }
    plan.steps.extend(app.and_then(app::AppChange::boot));
    let own = layout::here().login.is_some();
    let changed = |change: &Change<'_>| change.unit_file.is_some() || !change.stale.is_empty();
    let written = (facts.installed() || own) && changes.iter().any(changed);
    let units = |change: &&Change<'_>| change.instance.runtime == Runtime::Systemd;
    let enabled = changes.iter().filter(units).any(|change| change.enable);
    let stale =
        changes.iter().any(|change| facts.unit(&change.instance.unit).is_some_and(|unit| unit.needs_reload));
    if written || enabled || stale || app.is_some_and(|app| app.reload(facts)) {
        plan.steps.push(Step::Reload);
    }
    let swap = ports_change_hands(facts, changes);
    for change in changes.iter().rev() {
        let Some(why) = &change.restart else { continue };
        if swap {
            let target = as_it_runs(facts, change.instance);
            plan.steps.push(Step::Stop { target, lose: change.instance.upstream.is_some() });
        } else {
            plan.steps.push(Step::Restart {
                target: change.instance.target(),
                why: why.clone(),
                cost: live::cost(facts, &change.instance.name, &change.live.settings),
            });
        }
    }
    let targets: Vec<Target> = changes
        .iter()
        .filter(|change| if swap { change.moves() } else { change.start })
        .map(|change| change.instance.target())
        .collect();
    if !targets.is_empty() {
        plan.steps.push(Step::Start { targets });
    }
    let moved = |name: &Name| changes.iter().any(|change| &change.instance.name == name && change.moves());
    for change in changes {
        let Some(of) = &change.instance.upstream else { continue };
        let master_moved = of.instance.as_ref().is_some_and(moved);
        let away = master_is_away(facts, change.instance);
        if (change.moves() || change.live.follows() || master_moved) && !change.promoted && !away {
            plan.steps.push(Step::AwaitLink { target: change.instance.target(), master: of.address.clone() });
        }
    }
}

/// The step that lets an instance start at boot, or no longer.
pub fn boot(instance: &Instance, on: bool) -> Step {
    match (instance.runtime, on) {
        (Runtime::Container(program), on) => Step::Boot { program, name: instance.container(), on },
        (_, true) => Step::Enable { unit: instance.unit.clone() },
        (_, false) => Step::Disable { unit: instance.unit.clone() },
    }
}

/// Whether one that restarts is to have the port that another holds which restarts, too: one by one, they
/// would stand in each other's way.
fn ports_change_hands(facts: &Facts, changes: &[Change<'_>]) -> bool {
    let restarting = || changes.iter().filter(|change| change.restart.is_some());
    let holds = |change: &Change<'_>| Some(facts.state.instances.get(&change.instance.name)?.port);
    restarting().any(|taker| {
        restarting().any(|holder| {
            holder.instance.name != taker.instance.name && holds(holder) == Some(taker.instance.port)
        })
    })
}

/// An instance where it can be reached before it moves.
fn as_it_runs(facts: &Facts, instance: &Instance) -> Target {
    match facts.state.instances.get(&instance.name) {
        Some(kept) => Target::of_record(&instance.name, kept, instance.requirepass.clone()),
        None => instance.target(),
    }
}

/// The same of an instance that a step is about.
fn where_it_is(facts: &Facts, target: Target) -> Target {
    match facts.state.instances.get(&target.name) {
        Some(kept) => Target::of_record(&target.name, kept, target.password),
        None => target,
    }
}

/// Whether the server that runs follows the wanted master by an up link.
fn linked(facts: &Facts, instance: &Instance) -> bool {
    matches!(
        facts.running.get(&instance.name).map(|running| &running.role),
        Some(Role::Replica { up: true, .. })
    )
}

/// Whether its master is on another machine and does not answer.
fn master_is_away(facts: &Facts, instance: &Instance) -> bool {
    matches!(facts.upstreams.get(&instance.name), Some(Upstream::Trouble(_) | Upstream::Untrusted(_)))
}

/// Whether a path is a directory, or nothing yet.
fn may_be_directory(facts: &Facts, path: &Path) -> bool {
    facts.path(path).is_none_or(|stat| stat.kind == Kind::Dir)
}

/// The unit's name for an engine's stock service.
fn stock_unit(engine: Engine) -> String {
    engine.unit(crate::engine::MASTER)
}
