//! Runs a plan: each step's effects, a journal line before each effect, and the way back when one
//! fails or the run is interrupted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::app::AppTarget;
use crate::backup;
use crate::exit::{self, Code, Fault};
use crate::facts;
use crate::facts::Role;
use crate::facts::parse::Tally;
use crate::host::{Host, Ids, Kind};
use crate::instance::Target;
use crate::journal::{self, End, Journal, Undo};
use crate::kernel;
use crate::layout;
use crate::plan::Plan;
use crate::prove::{self, Proved};
use crate::runtime::{Runtime, systemd};
use crate::secrets;
use crate::state::{self, State};
use crate::step::{Body, Inside, Owner, Step};
use crate::templates;
use crate::topology::Name;

mod adopt;
pub mod app;
mod certificates;
pub mod containers;
mod drift;
pub mod holdings;
mod live;
pub mod package;
pub mod rdb;
pub mod role;
pub mod service;
mod software;
pub mod sync;
mod undo;

pub use undo::{recover, roll_back};

/// What a run tells while it is at work.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step begins.
    Begin(&'a Step),
    /// It is done, in this time.
    Done(&'a Step, Duration),
    /// Something that takes its time: apt's lock, a long sync.
    Waiting(&'a str),
    /// The steps are being undone, because of this error.
    Undoing(&'a anyhow::Error),
}

/// Where events go.
pub type Listener<'a> = &'a mut dyn FnMut(Event<'_>);

/// A run at work.
struct Run<'a> {
    host: &'a Host,
    journal: Journal,
    state: State,
    /// The files that this run wrote.
    wrote: Vec<PathBuf>,
    /// The instances that it told whom to follow.
    told: Vec<Name>,
    /// What the proof of an instance's configuration told, for directives that somebody asks for.
    proved: Proved,
    /// What is in the backup that was brought.
    brought: Tally,
    /// The image that its containers run in.
    inside: Option<Inside>,
    /// The user that they run as, once it was asked for.
    image: Option<Ids>,
    tell: Listener<'a>,
}

/// Carries a plan out. Either all of it happens, or none of it.
///
/// # Errors
/// The first step's failure: with code 5 if nothing had been changed yet, 8 if everything is back as
/// it was, 9 if not.
pub fn apply(host: &Host, plan: &Plan, state: &State, command: &str, tell: Listener<'_>) -> Result<State> {
    let mut run = Run {
        host,
        journal: Journal::new(host, command)?,
        state: state.clone(),
        wrote: Vec::new(),
        told: Vec::new(),
        proved: Proved::new(),
        brought: Tally::default(),
        inside: plan.inside.clone(),
        image: None,
        tell,
    };
    match run.all(plan) {
        Ok(()) => Ok(run.state),
        Err(error) => Err(run.back_out(error)),
    }
}

impl Run<'_> {
    fn all(&mut self, plan: &Plan) -> Result<()> {
        for (unit, before) in &plan.units {
            self.state.units.entry(unit.clone()).or_insert(*before);
        }
        for container in &plan.found.containers {
            self.state.containers.entry(container.name.clone()).or_insert_with(|| container.clone());
        }
        for directory in &plan.found.directories {
            if !self.state.directories.contains(directory) {
                self.state.directories.push(directory.clone());
            }
        }
        for step in &plan.steps {
            if self.host.interrupted() {
                bail!("interrupted");
            }
            (self.tell)(Event::Begin(step));
            let start = self.host.now();
            self.step(step).map_err(|error| match error.is::<Fault>() {
                true => error,
                false => error.context(format!("'{}' failed", step.describe())),
            })?;
            (self.tell)(Event::Done(step, start.elapsed()));
        }
        self.state.instances = plan.record.clone();
        self.state.app = plan.app.clone();
        // All is done: a signal has nothing to end any more.
        self.host.ignore_interruptions();
        self.finish(plan)?;
        self.host.heed_interruptions();
        Ok(())
    }

    fn finish(&mut self, plan: &Plan) -> Result<()> {
        if plan.forget {
            // The last of ours; the lock is given back by its holder.
            self.journal.end(self.host, End::Done)?;
            for name in self.host.list(state::dir())?.iter().filter(|name| *name != "lock") {
                let path = state::dir().join(name);
                match self.host.stat(&path)?.map(|stat| stat.kind) {
                    Some(Kind::Dir) => self.host.remove_tree(&path)?,
                    _ => self.host.remove(&path)?,
                }
            }
            return Ok(());
        }
        if plan.passing {
            return self.journal.forget(self.host);
        }
        self.remember_effective(plan);
        self.journal.announce_file(self.host, &State::path())?;
        self.state.save(self.host)?;
        self.journal.end(self.host, End::Done)
    }

    fn back_out(&mut self, error: anyhow::Error) -> anyhow::Error {
        if !self.journal.announced {
            return match self.journal.abandon(self.host) {
                true => error.context(Fault::new(Code::RolledBack, "failed; nothing had been changed")),
                false => error,
            };
        }
        // A copy that was looked at and does not serve: that is a refusal.
        let only_looked = exit::code_of(&error) == Code::Refused && self.has_only_staged();
        if !only_looked {
            (self.tell)(Event::Undoing(&error));
        }
        self.host.ignore_interruptions();
        match undo::roll_back_run(self.host, self.journal.run, undo::Packages::Go) {
            Ok(()) if only_looked => error,
            Ok(()) => error.context(Fault::new(Code::RolledBack, "failed; everything is back as it was")),
            Err(back) => error.context(
                Fault::new(Code::RollbackIncomplete, format!("failed, and could not be undone: {back:#}"))
                    .hint("the journal is kept; when the cause is gone, finish the way back:\nredis-tp rollback"),
            ),
        }
    }

    fn has_only_staged(&self) -> bool {
        let record = journal::run(self.host, self.journal.run).ok().flatten();
        record.is_some_and(|record| record.undo.iter().all(|undo| matches!(undo, Undo::Staged { .. })))
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Install { engine, repair } => self.install(*engine, *repair),
            Step::Fetch { engine, path } => self.fetch(*engine, path),
            Step::Prove { candidates, inside } => {
                if let Some(inside) = inside {
                    containers::sweep(self.host, inside.program)?;
                }
                self.proved = prove::prove_all(self.host, candidates, inside.as_ref())?;
                Ok(())
            }
            Step::Pull { program, image } => self.pull(*program, image),
            Step::Network { program } => self.network(*program),
            Step::RemoveNetwork { program } => self.remove_network(*program),
            Step::Volumes { inside, volumes } => self.volumes(inside, volumes),
            Step::PurgeVolume { program, name } => self.purge_volume(*program, name),
            Step::Container { container, engine } => self.container(container, *engine),
            Step::RemoveContainer { program, name, engine } => self.remove_container(*program, name, *engine),
            Step::Join { program, name } => containers::join(self.host, *program, name),
            Step::Boot { program, name, on } => self.boot(*program, name, *on),
            Step::Directory { path, owner, mode, copy } => self.directory(path, *owner, *mode, *copy),
            Step::Write { path, body, ours, owner, mode } => {
                self.put(path, [body, ours.as_ref().unwrap_or(body)], *owner, *mode)
            }
            Step::Keep { path, ours } => self.keep(path, ours),
            Step::Own { paths, owner, mode } => self.own(paths, *owner, *mode),
            Step::Mode { path, inode, mode } => self.mode(path, *inode, *mode),
            Step::End { target, pid, uid, saves } => self.end_by_hand(target, *pid, *uid, saves),
            Step::Remove { path } | Step::GiveBack { path } => self.take_away(path),
            Step::RemoveEmpty { path } => self.remove_empty(path),
            Step::Purge { path, keep } => self.purge(path, *keep),
            Step::Kernel { path, value } => self.kernel(path, value),
            Step::Reload => {
                self.announce(Undo::Reload)?;
                systemctl(self.host, &["daemon-reload"])
            }
            Step::Enable { unit } => self.enable(unit, true),
            Step::Disable { unit } => self.enable(unit, false),
            Step::Start { targets } => {
                for target in targets {
                    self.announce_log(target)?;
                    self.announce(Undo::Stop { target: target.without_password() })?;
                }
                service::start(self.host, targets)
            }
            Step::Restart { target, .. } => {
                // It may speak another way, or listen elsewhere, than it is to.
                let now = self.as_it_runs(target);
                self.announce_stop(&now)?;
                service::stop(self.host, &now, false)?;
                service::start(self.host, std::slice::from_ref(target))
            }
            Step::Bring { target, file, place } => self.bring(target, file, place),
            Step::Count { target } => self.count(target),
            Step::Replace { target, places } => self.replace(target, places),
            Step::Backup { target, source, path } => self.backup(target, source, path),
            Step::Set { target, settings } => self.set(target, settings),
            Step::Admit { target } => self.admit(target),
            Step::Password { target } => self.password(target),
            Step::Certificates { target } => self.certificates(target),
            Step::LetIn { target, users } => self.users(target, users, &[]),
            Step::Users { target, users, gone } => self.users(target, users, gone),
            Step::Stop { target, lose } => {
                if service::runs(self.host, target)? {
                    self.announce_stop(target)?;
                    service::stop(self.host, target, *lose)?;
                }
                service::assert_gone(self.host, target)
            }
            Step::StartUnit { unit } => {
                self.announce(Undo::StopUnit { unit: unit.clone() })?;
                service::start_units(self.host, std::slice::from_ref(unit))
            }
            Step::AwaitLink { target, master } => service::await_link(self.host, target, master, self.tell),
            Step::User { name } => {
                self.announce(Undo::User { name: name.clone() })?;
                app::make_user(self.host, name)?;
                self.state.users.retain(|made| made != name);
                self.state.users.push(name.clone());
                Ok(())
            }
            Step::Program { path } => self.program(path),
            Step::StartApp { app } => {
                self.announce_app_log(app)?;
                self.announce(Undo::StopApp { app: app.clone() })?;
                app::start(self.host, app)
            }
            Step::RestartApp { app, .. } => {
                // While it runs it does without them, and it would not come back.
                app::settings(self.host, app)?;
                self.stop_app(app)?;
                app::start(self.host, app)
            }
            Step::StopApp { app } => self.stop_app(app),
            Step::RemoveUser { name } => {
                self.journal.no_return(self.host)?;
                app::remove_user(self.host, name)?;
                self.state.users.retain(|made| made != name);
                Ok(())
            }
            Step::RemovePackages { packages } => {
                self.journal.no_return(self.host)?;
                package::remove(self.host, package::Removal::Purge, packages, self.tell)?;
                self.state.packages.clear();
                Ok(())
            }
        }
    }

    /// Sets one of the kernel's settings. What it was before us is kept, for the day when we go.
    fn kernel(&mut self, path: &Path, value: &str) -> Result<()> {
        let text = self.host.text(path)?.with_context(|| format!("{} is not there", path.display()))?;
        let before = kernel::value(&text).to_owned();
        self.announce(Undo::Kernel { path: path.into(), before: before.clone() })?;
        self.host.set_kernel(path, value)?;
        match self.state.kernel.get(path).is_some_and(|first| first == value) {
            true => drop(self.state.kernel.remove(path)),
            false => drop(self.state.kernel.entry(path.into()).or_insert(before)),
        }
        Ok(())
    }

    fn announce(&mut self, undo: Undo) -> Result<()> {
        self.journal.announce(self.host, undo)
    }

    /// An instance where it has been reached since the last run.
    fn as_it_runs(&self, target: &Target) -> Target {
        let kept = self.state.instances.get(&target.name);
        match kept.filter(|kept| kept.active && kept.runtime == target.runtime) {
            Some(kept) => Target::of_record(&target.name, kept, target.password.clone()),
            None => target.clone(),
        }
    }

    /// What is done before a server is stopped: the role that it has now is put into its file, unless this
    /// very run wrote another one there.
    fn announce_stop(&mut self, target: &Target) -> Result<()> {
        let path = target.conf();
        let wrote = self.wrote.contains(&path);
        if let Some(role) = role::now(self.host, target) {
            let differs = role::conf_with(self.host, target, &role).is_some();
            if wrote || differs {
                self.announce_role(target, &role)?;
            }
            if !wrote && differs {
                self.journal.announce_file(self.host, &path)?;
                role::write(self.host, target, &role)?;
            }
        }
        let pid = service::pid(self.host, target)?;
        self.announce(Undo::Start { target: target.without_password(), pid })
    }

    /// What a server is before it ends: on the way back, its former file may say otherwise.
    fn announce_role(&mut self, target: &Target, role: &Role) -> Result<()> {
        // What this run made of it is not what it was.
        if matches!(role, Role::Replica { .. }) && self.told.contains(&target.name) {
            return Ok(());
        }
        self.announce(Undo::Role { target: target.without_password(), role: role.clone() })
    }

    fn stop_app(&mut self, app: &AppTarget) -> Result<()> {
        // As it runs now, not as it is to be.
        let now = self.state.app.as_ref().map_or(app, |kept| &kept.target).clone();
        // One that fails again and again cannot be brought back.
        if app::is_up(self.host, &now)? {
            let pid = app::pid(self.host, &now)?;
            self.announce(Undo::StartApp { app: now.clone(), pid })?;
        }
        app::stop(self.host, &now)
    }

    /// Copies this program. No copy of what is ours is kept: it is compared with the program itself.
    fn program(&mut self, path: &Path) -> Result<()> {
        self.remember_original(path)?;
        self.journal.announce_file(self.host, path)?;
        self.host.copy_own_program(path)
    }

    fn ids(&mut self, owner: Owner) -> Result<Ids> {
        match (owner, &self.inside, self.image) {
            (Owner::Image, Some(inside), None) => {
                let Inside { program, image, engine, .. } = inside;
                let ids = facts::containers::user_of(self.host, *program, image, *engine, &self.state)?;
                self.image = Some(ids);
                Ok(ids)
            }
            (Owner::Image, _, image) => image.context("there is no image whose user it could be"),
            (owner, ..) => ids(self.host, owner),
        }
    }

    fn directory(&mut self, path: &Path, owner: Owner, mode: u32, copy: bool) -> Result<()> {
        let before = self.host.stat(path)?;
        self.announce(Undo::Directory { path: path.to_path_buf(), before, copy })?;
        let ids = self.ids(owner)?;
        self.host.directory(path, ids, mode)?;
        if before.is_none() && !self.state.directories.contains(&path.to_path_buf()) {
            self.state.directories.push(path.to_path_buf());
        }
        Ok(())
    }

    /// Writes a file, a copy of what stood there before us, and a copy of what in it is ours: what a
    /// hand added must not pass for ours the next time, when it would be taken away in silence.
    fn put(&mut self, path: &Path, [body, ours]: [&Body; 2], owner: Owner, mode: u32) -> Result<()> {
        let ids = self.ids(owner)?;
        self.make_parent(path)?;
        self.remember_original(path)?;
        self.journal.announce_file(self.host, path)?;
        self.host.write(path, body.expose().as_bytes(), ids, mode)?;
        self.wrote.push(path.to_path_buf());
        if secrets::is_secret(path) { Ok(()) } else { self.keep_written(path, ours) }
    }

    /// Takes a file that stays as it is for ours. One that is ours already, and of which the record was lost, is not
    /// what stood there before us.
    fn keep(&mut self, path: &Path, ours: &Body) -> Result<()> {
        if secrets::is_secret(path) {
            self.state.files.entry(path.to_path_buf()).or_insert(false);
            return Ok(());
        }
        if self.host.text(path)?.is_some_and(|text| templates::is_ours(&text)) {
            let before = self.host.stat(&State::original(path))?.is_some();
            self.state.files.entry(path.to_path_buf()).or_insert(before);
        }
        self.remember_original(path)?;
        self.keep_written(path, ours)
    }

    /// Keeps what of a file is ours.
    fn keep_written(&mut self, path: &Path, ours: &Body) -> Result<()> {
        let written = State::written(path);
        self.make_parent(&written)?;
        self.journal.announce_file(self.host, &written)?;
        self.host.write(&written, ours.expose().as_bytes(), layout::here().own(), 0o600)
    }

    fn remember_original(&mut self, path: &Path) -> Result<()> {
        if self.state.files.contains_key(path) {
            return Ok(());
        }
        let there = self.host.take(path)?;
        if let Some(taken) = &there {
            let copy = State::original(path);
            self.make_parent(&copy)?;
            self.journal.announce_file(self.host, &copy)?;
            self.host.put(&copy, taken)?;
        }
        self.state.files.insert(path.to_path_buf(), there.is_some());
        Ok(())
    }

    /// Drop-ins and our own copies lie in directories that may not be there yet.
    fn make_parent(&mut self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if self.host.stat(parent)?.is_some() {
            return Ok(());
        }
        self.make_parent(parent)?;
        let closed = parent.starts_with(state::dir()) || parent.starts_with(backup::dir());
        let mode = if closed { 0o700 } else { 0o755 };
        self.announce(Undo::Directory { path: parent.to_path_buf(), before: None, copy: false })?;
        self.host.directory(parent, layout::here().own(), mode)
    }

    fn take_away(&mut self, path: &Path) -> Result<()> {
        let original = State::original(path);
        self.journal.announce_file(self.host, path)?;
        match self.host.take(&original)? {
            Some(taken) => self.host.put(path, &taken)?,
            None => self.host.remove(path)?,
        }
        for copy in [original, State::written(path)] {
            self.journal.announce_file(self.host, &copy)?;
            self.host.remove(&copy)?;
        }
        self.state.files.remove(path);
        Ok(())
    }

    fn remove_empty(&mut self, path: &Path) -> Result<()> {
        let before = self.host.stat(path)?;
        if before.is_some() {
            self.announce(Undo::Directory { path: path.to_path_buf(), before, copy: false })?;
            self.host.remove_empty(path)?;
        }
        self.state.directories.retain(|made| made != path);
        Ok(())
    }

    fn purge(&mut self, path: &Path, keep: bool) -> Result<()> {
        self.journal.no_return(self.host)?;
        match self.host.stat(path)?.map(|stat| stat.kind) {
            Some(Kind::Dir) if keep => {
                for name in self.host.list(path)? {
                    self.purge(&path.join(name), false)?;
                }
            }
            Some(Kind::Dir) => self.host.remove_tree(path)?,
            Some(_) => self.host.remove(path)?,
            None => {}
        }
        if !keep {
            self.state.directories.retain(|made| made != path);
            self.state.files.remove(path);
        }
        Ok(())
    }

    fn enable(&mut self, unit: &str, on: bool) -> Result<()> {
        let before = systemd::is_enabled(self.host, unit)?;
        if before == on {
            return Ok(());
        }
        self.announce(Undo::Enabled { unit: unit.to_owned(), before })?;
        set_enabled(self.host, unit, on)
    }

    /// A log that the server will make is taken away again with it.
    fn announce_log(&mut self, target: &Target) -> Result<()> {
        let conf = self.host.text(&target.conf())?.unwrap_or_default();
        let conf = crate::conf::Conf::parse(&conf).unwrap_or_default();
        let log = conf.word("logfile").map(PathBuf::from).filter(|log| log.is_absolute());
        if let Some(log) = log.filter(|log| matches!(self.host.stat(log), Ok(None))) {
            self.announce(Undo::File { path: log, before: None })?;
        }
        Ok(())
    }

    /// The same for the web app's, where no journal takes what it says.
    fn announce_app_log(&mut self, app: &AppTarget) -> Result<()> {
        let path = crate::app::service::logfile();
        match app.runtime == Runtime::Process && self.host.stat(&path)?.is_none() {
            true => self.announce(Undo::File { path, before: None }),
            false => Ok(()),
        }
    }

    fn install(&mut self, engine: crate::engine::Engine, repair: bool) -> Result<()> {
        let mark = format!("RedisTp::Run={}-{}", self.journal.run, self.host.random_hex(4)?);
        package::await_lock(self.host, self.tell)?;
        self.announce(Undo::Packages { engine, mark: mark.clone() })?;
        let policy = Path::new(package::POLICY);
        let before = self.host.take(policy)?;
        self.journal.announce_file(self.host, policy)?;
        self.host.write(
            policy,
            package::policy(&self.host.birth()?).as_bytes(),
            layout::here().own(),
            0o755,
        )?;
        let installed = package::install(self.host, engine, repair, &mark, self.tell);
        match before {
            Some(taken) => self.host.put(policy, &taken)?,
            None => self.host.remove(policy)?,
        }
        installed?;
        self.state.packages.extend(package::installed_by(self.host, &mark)?);
        self.state.packages.sort();
        self.state.packages.dedup();
        Ok(())
    }

    /// Unpacks software where none was. What a killed run left half-way goes as a whole.
    fn fetch(&mut self, engine: crate::engine::Engine, path: &Path) -> Result<()> {
        let work = Host::staging(path);
        for place in [work.as_path(), path] {
            self.announce(Undo::Directory { path: place.to_path_buf(), before: None, copy: true })?;
            self.host.remove_tree(place)?;
        }
        self.host.directory(&work, layout::here().own(), 0o700)?;
        let (root, packages) = software::fetch(self.host, engine, &work, self.tell)?;
        self.host.rename(&root, path)?;
        self.host.remove_tree(&work)?;
        software::try_out(self.host, engine)?;
        self.state.software.extend(packages);
        Ok(())
    }
}

/// The numbers of an owner.
pub fn ids(host: &Host, owner: Owner) -> Result<Ids> {
    if let Some(login) = &layout::here().login {
        return Ok(login.ids);
    }
    let server = |engine: crate::engine::Engine| {
        host.user(engine.user())?.with_context(|| format!("there is no user '{}'", engine.user()))
    };
    Ok(match owner {
        Owner::Root => layout::here().own(),
        Owner::App => {
            let user = crate::app::service::USER;
            host.user(user)?.with_context(|| format!("there is no user '{user}'"))?
        }
        Owner::Server(engine) => server(engine)?,
        Owner::Image => bail!("only an image tells who its user is"),
        Owner::ServerAdm(engine) => {
            let ids = server(engine)?;
            Ids { gid: host.group("adm")?.unwrap_or(ids.gid), ..ids }
        }
    })
}

/// Enables or disables a unit. The links are all there is to it, so systemd need not read its files
/// again, which would cost more than the rest of the run.
fn set_enabled(host: &Host, unit: &str, on: bool) -> Result<()> {
    systemctl(host, &[if on { "enable" } else { "disable" }, "--quiet", "--no-reload", unit])
}

/// Runs systemctl, and takes a status other than 0 for a failure.
fn systemctl(host: &Host, args: &[&str]) -> Result<()> {
    let done =
        host.run(systemd::child("systemctl").args(args.iter().copied()).deadline(Duration::from_secs(120)))?;
    if !done.ok() {
        bail!("systemctl {}: {}", args.join(" "), done.tail());
    }
    Ok(())
}
