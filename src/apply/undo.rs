//! The way back: what the journal announced, in reverse; services come last, when their files are
//! back. Every undo may be repeated.

use anyhow::{Context, Result, bail};

use super::{
    Event, Listener, adopt, app, certificates, containers, live, package, rdb, role, service, set_enabled,
    systemctl,
};
use crate::conf::{self, By, Conf};
use crate::exit::{Code, Fault};
use crate::host::{Host, Kind, Stat, Taken};
use crate::instance::Target;
use crate::journal::{self, End, Record, Saved, Undo};
use crate::runtime::systemd;
use crate::secret::Secret;
use crate::secrets;
use crate::state::State;
use crate::store::Store;
use crate::tls::Tls;

/// What becomes of packages that the run installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packages {
    /// They go: the former state is asked for.
    Go,
    /// They stay: the next run needs them.
    Stay,
}

/// Undoes a run that was killed, before another one begins; or goes on with a rollback that was. Says what
/// it was, if there was one.
///
/// # Errors
/// The way back failed (exit code 9).
pub fn recover(host: &Host, tell: Listener<'_>) -> Result<Option<Record>> {
    let Some(record) = journal::open_run(host)? else { return Ok(None) };
    if record.undo.iter().any(|undo| matches!(undo, Undo::Packages { .. })) {
        // Its apt may have outlived it.
        package::await_lock(host, tell)?;
    }
    host.ignore_interruptions();
    let ended = go_back(host, &record);
    host.heed_interruptions();
    ended.map(|()| Some(record))
}

/// Brings a run that was killed to an end.
fn go_back(host: &Host, record: &Record) -> Result<()> {
    if record.no_return {
        // Former data that were set aside were to go.
        for undo in &record.undo {
            if let Undo::Replaced { aside: Some(aside), .. } = undo {
                rdb::take_away(host, aside)?;
            }
        }
        return journal::close(host, record.run, End::Done);
    }
    if record.undoing {
        walk_back(host, record, Packages::Go)?;
    } else {
        walk_back(host, record, Packages::Stay)?;
        keep_packages(host, record)?;
    }
    journal::close(host, record.run, End::Undone)
}

/// What apt installed for a run that was killed is still ours to remove one day.
fn keep_packages(host: &Host, record: &Record) -> Result<()> {
    let mut state = State::load(host)?;
    let before = state.packages.len();
    for undo in &record.undo {
        if let Undo::Packages { mark, .. } = undo {
            state.packages.extend(package::installed_by(host, mark)?);
        }
    }
    state.packages.sort();
    state.packages.dedup();
    if state.packages.len() != before { state.save(host) } else { Ok(()) }
}

/// Undoes a run of this very process.
pub fn roll_back_run(host: &Host, run: u32, packages: Packages) -> Result<()> {
    let record = journal::run(host, run)?.context("its journal is gone")?;
    if record.no_return {
        anyhow::bail!("data was purged already; run the same command again to finish it");
    }
    if record.end.is_some() {
        // What failed was to make sure that its last line is on the disk.
        journal::reopen(host, run)?;
    }
    walk_back(host, &record, packages)?;
    journal::close(host, run, End::Undone)
}

/// Undoes the last run that was done (`redis-tp rollback`).
///
/// # Errors
/// Something was changed by hand since (exit code 5), or the way back failed (9).
pub fn roll_back(host: &Host, record: &Record, overwrite: bool) -> Result<()> {
    if record.no_return {
        return Err(Fault::refused(format!(
            "'{}' purged data, which no rollback brings back",
            record.command
        ))
        .into());
    }
    if !overwrite {
        record.undo.iter().try_for_each(|undo| refuse_edited(host, undo))?;
    }
    record.undo.iter().try_for_each(|undo| refuse_locked(host, undo))?;
    journal::reopen(host, record.run)?;
    walk_back(host, record, Packages::Go)?;
    journal::close(host, record.run, End::Undone).map_err(incomplete)
}

/// What cannot be written to now is told before the first step back.
fn refuse_locked(host: &Host, undo: &Undo) -> Result<()> {
    let Undo::File { path, .. } = undo else { return Ok(()) };
    match path.parent() {
        Some(dir) if host.stat(dir)?.is_some() && !host.may_write(dir) => {
            Err(Fault::refused(format!("{} cannot be written to: it is read-only", dir.display()))
                .hint(format!("look why, and undo that:\nlsattr -d {0}\nfindmnt -T {0}", dir.display()))
                .into())
        }
        _ => Ok(()),
    }
}

/// A file that somebody changed since the run is not overwritten in silence. What is as we wrote it, or
/// as it will be again, is no loss: a line of another's hand that the run kept comes back with the file.
fn refuse_edited(host: &Host, undo: &Undo) -> Result<()> {
    let Undo::File { path, before } = undo else { return Ok(()) };
    let (Some(written), Some(there)) = (host.text(&State::written(path))?, host.text(path)?) else {
        return Ok(());
    };
    if written == there {
        return Ok(());
    }
    let former = match before {
        Some(saved) => host.text(&saved.copy)?.unwrap_or_default(),
        None => String::new(),
    };
    if let [Ok(written), Ok(there), Ok(former)] = [&written, &there, &former].map(|text| Conf::parse(text))
        && conf::compare(&written, &there, &former).iter().all(|difference| difference.by == By::Topology)
    {
        return Ok(());
    }
    Err(Fault::refused(format!("{} was changed by hand since", path.display()))
        .hint(
            "to see the change, and then to roll back over it:\nredis-tp plan\nredis-tp rollback --overwrite",
        )
        .into())
}

fn walk_back(host: &Host, record: &Record, packages: Packages) -> Result<()> {
    back(host, record, packages).map_err(incomplete)
}

fn incomplete(error: anyhow::Error) -> anyhow::Error {
    let fault = Fault::new(Code::RollbackIncomplete, "the way back failed; the journal is kept")
        .hint("when the cause is gone, finish it:\nredis-tp rollback");
    error.context(fault)
}

fn back(host: &Host, record: &Record, packages: Packages) -> Result<()> {
    for undo in &record.undo {
        if let Undo::Stop { target } | Undo::Start { target, .. } = undo {
            service::await_born(host, target)?;
        }
    }
    live::take_back(host, record)?;
    let told = certificates::connect(host, record);
    let record = &role::kept(host, record)?;
    let mut reload = false;
    let mut kept = Vec::new();
    for undo in record.undo.iter().rev() {
        match undo {
            Undo::Reload => reload = true,
            Undo::Start { .. }
            | Undo::Role { .. }
            | Undo::StartUnit { .. }
            | Undo::StartApp { .. }
            | Undo::Revive { .. } => {}
            Undo::Packages { engine, mark } if packages == Packages::Go => {
                remove_packages(host, *engine, mark)?
            }
            Undo::Packages { .. } => {}
            undo => {
                reload |= matches!(undo, Undo::Enabled { .. });
                one(host, undo, &mut kept)?;
            }
        }
    }
    let deaf = certificates::former(host, told)?;
    live::former_password_only(host, record)?;
    if reload {
        systemctl(host, &["daemon-reload"])?;
    }
    let mut again: Vec<Target> = Vec::new();
    for undo in record.undo.iter().rev() {
        match undo {
            Undo::Start { target, pid } => {
                // Each once, however often the run restarted it; and not the one that never stopped.
                let listed = again.iter().any(|other| other.name == target.name);
                let now = current(host, target);
                let lives = |pid| Ok(service::pid(host, &now)? == Some(pid));
                let stays = |pid| service::will_stay(host, &now, || lives(pid));
                if !listed && !pid.map(stays).transpose()?.unwrap_or(false) {
                    again.push(target.clone());
                }
            }
            Undo::StartUnit { unit } => service::start_units(host, std::slice::from_ref(unit))?,
            Undo::Revive { target, ids, pid } => {
                let lives = |pid| adopt::lives(host, &current(host, target), pid);
                if !pid.map(lives).transpose()?.unwrap_or(false) {
                    role::write_kept(host, record, target)?;
                    adopt::revive(host, target, *ids)?;
                }
            }
            _ => {}
        }
    }
    for target in deaf {
        if !again.iter().any(|other| other.name == target.name) {
            again.push(target);
        }
    }
    for target in &again {
        let target = current(host, target);
        service::stop(host, &target, false)?;
        role::write_kept(host, record, &target)?;
        service::start(host, std::slice::from_ref(&target))?;
    }
    live::save_as_before(host, record)?;
    apps_back(host, record)
}

/// The web app that ran, started again once, behind the servers that it reads.
fn apps_back(host: &Host, record: &Record) -> Result<()> {
    let first = record.undo.iter().find_map(|undo| match undo {
        Undo::StartApp { app, pid } => Some((app, pid)),
        _ => None,
    });
    match first {
        Some((now, pid)) if pid.is_none() || app::pid(host, now)? != *pid => {
            app::stop(host, now)?;
            match app::settings(host, now) {
                Ok(_) => app::start(host, now),
                // Somebody took them away before the run; no way back would ever be complete.
                Err(_) => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn one(host: &Host, undo: &Undo, kept: &mut Vec<Store>) -> Result<()> {
    match undo {
        Undo::File { path, before } => {
            host.remove(&Host::staging(path))?;
            match before {
                Some(saved) => put_back(host, path, saved),
                None => host.remove(path),
            }
        }
        Undo::Directory { path, before, copy } => match (before, host.stat(path)?.map(|stat| stat.kind)) {
            (Some(stat), _) => host.directory(path, stat.ids(), stat.mode),
            (None, Some(Kind::Dir)) if *copy && !kept.contains(&Store::from(path.as_path())) => {
                host.remove_tree(path)
            }
            (None, Some(Kind::Dir)) => host.remove_empty(path).map(drop),
            (None, _) => Ok(()),
        },
        Undo::Owner { path, ids, mode, inode } => host.give_back(path, *inode, *ids, *mode),
        Undo::Stop { target } => {
            let target = current(host, target);
            let copy = role::is_copy(host, &target)?;
            if copy {
                service::forget_data(host, &target);
            } else {
                // Somebody promoted it, or wrote to it: what it holds is nowhere else.
                kept.extend(service::store(host, &target));
            }
            service::stop(host, &target, copy)
        }
        Undo::Kernel { path, before } => host.set_kernel(path, before),
        Undo::StopUnit { unit } => systemctl(host, &["stop", unit]),
        Undo::Enabled { unit, before } => match systemd::is_enabled(host, unit)? == *before {
            true => Ok(()),
            false => set_enabled(host, unit, *before),
        },
        Undo::StopApp { app } => app::stop(host, app),
        Undo::User { name } => app::remove_user(host, name),
        Undo::Container { .. } | Undo::Network { .. } | Undo::Volume { .. } | Undo::Boot { .. } => {
            let held = |name: &str| {
                kept.iter().any(|store| matches!(store, Store::Volume { volume, .. } if volume == name))
            };
            containers::undo(host, undo, held)
        }
        Undo::Replaced { target, path, aside } => {
            if let Some(aside) = aside
                && host.stat(aside)?.is_some()
            {
                // A restart of the machine may have brought it up: at its end it would write what it has over
                // what comes back.
                let target = current(host, target);
                service::forget_data(host, &target);
                service::stop(host, &target, true)?;
            }
            rdb::put_back(host, path, aside.as_deref())
        }
        Undo::Staged { path } => host.remove(&Host::staging(path)),
        Undo::Reload
        | Undo::Set { .. }
        | Undo::Password { .. }
        | Undo::Users { .. }
        | Undo::Certificates { .. }
        | Undo::Start { .. }
        | Undo::Role { .. }
        | Undo::Revive { .. }
        | Undo::StartApp { .. }
        | Undo::StartUnit { .. }
        | Undo::Packages { .. } => Ok(()),
    }
}

fn put_back(host: &Host, path: &std::path::Path, saved: &Saved) -> Result<()> {
    if let Some(target) = &saved.link {
        return host.put(path, &Taken::Link { target: target.clone(), ids: saved.ids });
    }
    let there = host.stat(path)?;
    let Some(bytes) = host.read(&saved.copy)? else {
        // Gone into its place already, where there was no room for another (see below).
        let same = there.is_some_and(|stat| stat.kind == Kind::File && stat.mode == saved.mode);
        return if same { Ok(()) } else { bail!("the copy of {} is gone", path.display()) };
    };
    // What was never changed is not written anew: the disk may be full, which is why we are here.
    let same = |stat: Stat| {
        (stat.kind, stat.uid, stat.gid, stat.mode) == (Kind::File, saved.ids.uid, saved.ids.gid, saved.mode)
    };
    if there.is_some_and(same) && host.read(path)?.as_ref() == Some(&bytes) {
        return Ok(());
    }
    // Where the disk is full, a copy that lies on it needs no more room.
    host.write(path, &bytes, saved.ids, saved.mode)
        .or_else(|error| host.move_into(&saved.copy, path, saved.ids, saved.mode).map_err(|_| error))
}

/// Takes packages away that a run brought; with data in the engine's directory they are removed and
/// not purged, for the purge would take the data.
fn remove_packages(host: &Host, engine: crate::engine::Engine, mark: &str) -> Result<()> {
    let names = package::installed_by(host, mark)?;
    let data = !host.list(&engine.data(crate::engine::MASTER))?.is_empty();
    let removal = if data { package::Removal::Keep } else { package::Removal::Purge };
    package::remove(host, removal, &names, &mut |_: Event<'_>| {})
}

/// A target of the journal with the password that its file has now.
pub(super) fn current(host: &Host, target: &Target) -> Target {
    let text = host.text(&target.conf()).ok().flatten().unwrap_or_default();
    let conf = Conf::parse(&text).unwrap_or_default();
    let mut current = target.clone();
    current.password = conf.word("requirepass").map(Secret::new).or_else(|| {
        let kept = host.text(&secrets::password_file()).ok().flatten()?;
        Secret::parse(&kept).ok()
    });
    if let Some((port, tls)) = conf.listens() {
        current.address.port = port;
        let named = Tls::of(&conf).filter(|_| !target.runtime.is_container());
        current.address.tls = named
            .or_else(|| target.address.tls.clone().or_else(|| Some(crate::certificates::of_servers())))
            .filter(|_| tls);
    }
    current
}
