//! What changes for the web app: its user, program, settings and unit, and whether it has to start or
//! restart.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::containers::{self, Due};
use super::leave::away;
use super::{Note, Plan, Wanted, lost, whole};
use crate::app::service::{self, UNIT};
use crate::app::{App, Settings};
use crate::engine::Engine;
use crate::facts::Facts;
use crate::host::Kind;
use crate::layout;
use crate::runtime::Runtime;
use crate::runtime::container::{self, Container};
use crate::secret::Secret;
use crate::state::KeptApp;
use crate::step::{Body, Owner, Step};
use crate::topology::AppSection;
use crate::unit;

/// The change of the app.
#[derive(Debug)]
pub struct AppChange<'a> {
    app: &'a App,
    /// Our program, where the service finds it.
    program: PathBuf,
    /// Its settings, if the file has to be written.
    settings: Option<Secret>,
    /// Its unit, if the file has to be written.
    unit: Option<String>,
    /// Why it has to restart.
    restart: Option<String>,
    /// It does not run and has to.
    start: bool,
    /// It does not start at boot and has to.
    enable: bool,
    /// Its container as wanted, if it is to run in one.
    spec: Option<Container>,
    /// What is to become of that.
    due: Due,
    /// It runs in a container that is made anew.
    moves: bool,
    /// What is left as it is.
    pub notes: Vec<Note>,
}

/// Works out the change of the app; none where none is wanted.
///
/// # Errors
/// The unit cannot be rendered.
pub fn of<'a>(wanted: &Wanted<'a>, facts: &Facts) -> Result<Option<AppChange<'a>>> {
    let Some(app) = wanted.app else { return Ok(None) };
    let program = service::program(&facts.program);
    let mut notes = Vec::new();
    let text = app.settings.text();
    let same = |a: &str, b: &str| a == b;
    let settings = whole::is_due(wanted, facts, &app.settings_file(), text.expose(), same, &mut notes);
    let unit_text = app.unit(&program, facts.namespaces)?;
    let systemd = app.runtime == Runtime::Systemd;
    let unit =
        systemd && whole::is_due(wanted, facts, &service::unit_file(), &unit_text, unit::same, &mut notes);
    let alive = is_alive(facts, app);
    let AppSection { bind, prefix, .. } = app.section();
    if !bind.is_loopback() {
        notes.push(Note::AppReachable { bind: *bind, prefix: prefix.as_str().to_owned() });
    }
    let spec = containers::of_app(app, &program, wanted.image, facts);
    let due = spec.as_ref().map_or(Due::Nothing, |spec| containers::due(spec, facts));
    let made = due == Due::Made;
    let boots = match app.runtime {
        Runtime::Container(_) => {
            facts.containers.containers.get(&container::of_app(app.engine)).is_none_or(|seen| seen.boot)
        }
        _ => !systemd || facts.unit(UNIT).is_some_and(|unit| unit.enabled),
    };
    let sees_topology =
        !app.runtime.is_container() && !wanted.topology.instances.iter().any(super::has_secret);
    let last = facts.written.get(&app.settings_file()).and_then(|text| Settings::parse(text.expose()).ok());
    let other = settings && !last.is_some_and(|last| last.may_go_on(&app.settings, sees_topology));
    let change = AppChange {
        app,
        restart: (alive && !made).then(|| why(facts, app, &program, other, unit)).flatten(),
        start: !alive || made,
        enable: !boots,
        moves: alive && made,
        spec,
        due,
        settings: settings.then_some(text),
        unit: unit.then_some(unit_text),
        program,
        notes,
    };
    Ok(Some(change))
}

/// Whether it runs as it is wanted to.
fn is_alive(facts: &Facts, app: &App) -> bool {
    let kept = facts.state.app.as_ref().filter(|kept| kept.active);
    let lost = || facts.state.instances.is_empty() && lost::is_ours(facts, &app.settings_file());
    let runtime = kept.map_or_else(lost, |kept| kept.target.runtime == app.runtime);
    runtime
        && match app.runtime {
            Runtime::Process => facts.app.pid.is_some(),
            // One that fails again and again is `activating` in between.
            Runtime::Systemd => facts.unit(UNIT).is_some_and(|unit| unit.active == "active"),
            Runtime::Container(_) => {
                let seen = facts.containers.containers.get(&container::of_app(app.engine));
                seen.is_some_and(|seen| seen.is_up())
            }
        }
}

/// Why it has to restart.
fn why(facts: &Facts, app: &App, program: &Path, settings: bool, unit: bool) -> Option<String> {
    if settings {
        return Some("its settings change".into());
    }
    if unit {
        return Some("its unit changes".into());
    }
    let copy = !facts.program.fit && !facts.program.copied;
    // In a container its path is another; the container itself tells what it was made of.
    let other = !app.runtime.is_container() && facts.app.exe.as_ref().is_some_and(|exe| exe != program);
    (copy || other).then(|| "its program was replaced".into())
}

impl AppChange<'_> {
    /// What has to be there before it can start.
    pub fn places(&self, facts: &Facts, plan: &mut Plan) {
        let steps = &mut plan.steps;
        if !facts.program.fit && !facts.program.copied {
            missing(facts, &self.program, Owner::Root, steps);
            steps.push(Step::Program { path: self.program.clone() });
        }
        if self.app.runtime != Runtime::Process {
            return;
        }
        if facts.app.user.is_none() {
            steps.push(Step::User { name: service::USER.into() });
        }
        missing(facts, &service::logfile(), Owner::Root, steps);
        missing(facts, &service::pidfile(), Owner::App, steps);
    }

    /// Its files.
    pub fn files(&self, plan: &mut Plan) {
        if let Some(text) = &self.settings {
            let (path, body) = (self.app.settings_file(), Body::Secret(text.clone()));
            let owner = if self.app.runtime.is_container() { Owner::Image } else { Owner::Root };
            plan.steps.push(Step::Write { path, body, ours: None, owner, mode: 0o600 });
        }
        if let Some(text) = &self.unit {
            let (path, body) = (service::unit_file(), Body::Plain(text.clone()));
            plan.steps.push(Step::Write { path, body, ours: None, owner: Owner::Root, mode: 0o644 });
        }
    }

    /// Its container; one that is made anew stops first.
    pub fn container(&self, plan: &mut Plan) {
        let Some(spec) = &self.spec else { return };
        if self.moves {
            plan.steps.push(Step::StopApp { app: self.app.target(&self.program) });
        }
        match self.due {
            Due::Made => plan
                .steps
                .push(Step::Container { container: Box::new(spec.clone()), engine: self.app.engine }),
            Due::Joined => {
                plan.steps.push(Step::Join { program: spec.program, name: spec.name.clone() });
            }
            Due::Nothing => {}
        }
    }

    /// The step that lets it start at boot, if it does not.
    pub fn boot(&self) -> Option<Step> {
        self.enable.then(|| boot(self.app.runtime, self.app.engine, true))
    }

    /// Whether systemd has to read its unit again.
    pub fn reload(&self, facts: &Facts) -> bool {
        let enable = self.enable && self.app.runtime == Runtime::Systemd;
        self.unit.is_some() || enable || facts.unit(UNIT).is_some_and(|unit| unit.needs_reload)
    }

    /// Its start, when the instances are there.
    pub fn service(&self, plan: &mut Plan) {
        let app = self.app.target(&self.program);
        match &self.restart {
            Some(why) => plan.steps.push(Step::RestartApp { app, why: why.clone() }),
            None if self.start => plan.steps.push(Step::StartApp { app }),
            None => {}
        }
    }

    /// What our record will say of it.
    pub fn record(&self) -> KeptApp {
        KeptApp { target: self.app.target(&self.program), active: true }
    }
}

/// The step that lets an app start at boot, or no longer.
pub fn boot(runtime: Runtime, engine: Engine, on: bool) -> Step {
    match (runtime, on) {
        (Runtime::Container(program), on) => Step::Boot { program, name: container::of_app(engine), on },
        (_, true) => Step::Enable { unit: UNIT.into() },
        (_, false) => Step::Disable { unit: UNIT.into() },
    }
}

/// The directory of a file, if it is not there yet, and those above it.
fn missing(facts: &Facts, file: &Path, owner: Owner, steps: &mut Vec<Step>) {
    let Some(dir) = file.parent() else { return };
    let above = layout::here().above(dir).into_iter().map(|above| (above, Owner::Root, 0o700));
    for (path, owner, mode) in above.chain([(dir, owner, 0o755)]) {
        let there = facts.path(path).is_some_and(|stat| stat.kind == Kind::Dir);
        let planned = |step: &Step| matches!(step, Step::Directory { path: other, .. } if other == path);
        if !there && !steps.iter().any(planned) {
            steps.push(Step::Directory { path: path.to_path_buf(), owner, mode, copy: false });
        }
    }
}

/// The steps that stop an app which is no longer wanted, or not like this, and take its files away.
pub fn retire(facts: &Facts, plan: &mut Plan) {
    let Some(kept) = facts.state.app.as_ref().filter(|kept| kept.active) else { return };
    halt(kept, plan);
    if let Runtime::Container(program) = kept.target.runtime {
        let name = kept.target.container();
        plan.steps.extend(containers::retire(program, &name, kept.target.engine, facts));
    }
    let files = [service::unit_file(), Settings::file(), service::program_copy()];
    let ours = files.into_iter().filter(|path| facts.state.files.contains_key(path));
    plan.steps.extend(ours.map(|path| away(path, facts)));
    let program = service::program_copy().parent().map(Path::to_path_buf);
    let made = program.filter(|path| facts.state.directories.contains(path));
    plan.steps.extend(made.map(|path| Step::RemoveEmpty { path }));
    if kept.target.runtime == Runtime::Systemd {
        plan.steps.push(Step::Reload);
    }
}

/// Stops it, and lets it start at boot no longer.
fn halt(kept: &KeptApp, plan: &mut Plan) {
    plan.steps.push(Step::StopApp { app: kept.target.clone() });
    if kept.target.runtime == Runtime::Systemd {
        plan.steps.push(Step::Disable { unit: UNIT.into() });
    }
}

/// An app that another runtime keeps running is stopped there, to start anew in the wanted one.
pub fn change_runtime(wanted: &Wanted<'_>, facts: &Facts, plan: &mut Plan) {
    let Some(kept) = facts.state.app.as_ref().filter(|kept| kept.active) else { return };
    if wanted.app.is_some_and(|app| app.runtime != kept.target.runtime) {
        halt(kept, plan);
        if let Runtime::Container(program) = kept.target.runtime {
            let name = kept.target.container();
            plan.steps.extend(containers::retire(program, &name, kept.target.engine, facts));
        }
        let systemd = kept.target.runtime == Runtime::Systemd;
        if systemd && facts.state.files.contains_key(&service::unit_file()) {
            plan.steps.push(away(service::unit_file(), facts));
            plan.steps.push(Step::Reload);
        }
    }
}

/// What a purge takes of it: what it said, and its user.
pub fn purge(facts: &Facts, plan: &mut Plan) {
    if facts.state.app.is_some() {
        for file in [service::logfile(), service::pidfile()] {
            let made = file.parent().filter(|path| facts.state.directories.contains(&path.to_path_buf()));
            plan.steps.extend(made.map(|path| Step::Purge { path: path.to_path_buf(), keep: false }));
        }
    }
    plan.steps.extend(facts.state.users.iter().map(|name| Step::RemoveUser { name: name.clone() }));
}
