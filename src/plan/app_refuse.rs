//! What cannot be of the web app: found out before anything is changed, and said with its cure.

use std::net::IpAddr;
use std::path::Path;

use super::refuse::{free_port, kind};
use super::{Wanted, containers, may_be_directory};
use crate::app::App;
use crate::app::service::{self, COMM, UNIT};
use crate::exit::Fault;
use crate::facts::{Facts, Listener};
use crate::host::Kind;
use crate::layout;
use crate::runtime::{Runtime, systemd};
use crate::topology::Source;

/// The first thing that stands in the way.
///
/// # Errors
/// A [`Fault`] that says what it is and how to get it out of the way.
pub fn impossible(wanted: &Wanted<'_>, facts: &Facts) -> Result<(), Fault> {
    let Some(app) = wanted.app else { return Ok(()) };
    instances(wanted)?;
    address(facts, app)?;
    low_port(facts, app)?;
    port(facts, app)?;
    unit(facts, app)?;
    places(facts, app)?;
    database(facts, app)
}

/// A cache-aside app has a cache.
fn instances(wanted: &Wanted<'_>) -> Result<(), Fault> {
    match wanted.instances.is_empty() {
        true => Err(Fault::refused("[app] has no Redis to be in front of")
            .hint("add an instance to the topology:\nredis-tp install")),
        false => Ok(()),
    }
}

/// An address that this machine does not have.
fn address(facts: &Facts, app: &App) -> Result<(), Fault> {
    let bind = app.section().bind;
    match facts.unbindable.contains(&bind) {
        true => Err(Fault::refused(format!(
            "the web app cannot listen on {bind}: this machine does not have the address"
        ))
        .hint("give it one that it has:\nredis-tp app install --bind 127.0.0.1")),
        false => Ok(()),
    }
}

/// A port that is root's alone; under systemd the unit hands it over.
fn low_port(facts: &Facts, app: &App) -> Result<(), Fault> {
    let port = app.section().port;
    let handed = app.runtime != Runtime::Process && layout::here().login.is_none();
    if handed || app.runtime.is_container() || port >= facts.app.first_port {
        return Ok(());
    }
    Err(Fault::refused(format!("the web app's user may not listen on port {port}"))
        .hint(format!("choose one from {} on:\nredis-tp app install --port 5000", facts.app.first_port)))
}

/// A port that another program holds.
///
/// # Errors
/// A [`Fault`] that names the holder and another port.
pub fn port(facts: &Facts, app: &App) -> Result<(), Fault> {
    let section = app.section();
    let taken = facts.listeners.iter().find(|listener| {
        listener.port == section.port && overlaps(section.bind, listener.address) && !is_ours(facts, listener)
    });
    let Some(listener) = taken else { return Ok(()) };
    Err(Fault::refused(format!("port {} for the web app is taken by {}", section.port, listener.holder()))
        .hint(format!(
            "choose another port, or stop that one first:\nredis-tp app install --port {}",
            free_port(facts, section.port)
        )))
}

fn overlaps(bind: IpAddr, listener: IpAddr) -> bool {
    bind == listener || bind.is_unspecified() || listener.is_unspecified()
}

fn is_ours(facts: &Facts, listener: &Listener) -> bool {
    if containers::publishes(facts, listener.port) {
        return true;
    }
    let Some(owner) = &listener.owner else { return false };
    let of_user = facts.app.user.is_some_and(|user| user.uid == owner.uid) && owner.program == COMM;
    // Where the app's user is a person, another program of the same name may be that person's, too.
    let worker = layout::here().login.is_none() || facts.app.workers.contains(&owner.pid);
    (of_user && worker) || owner.unit.as_deref() == Some(UNIT)
}

/// A unit that somebody forbade to start, or keeps running where it is to be none.
pub fn unit(facts: &Facts, app: &App) -> Result<(), Fault> {
    let Some(unit) = facts.unit(UNIT) else { return Ok(()) };
    if app.runtime == Runtime::Systemd && unit.load == "masked" {
        return Err(Fault::refused(format!("{UNIT} is masked")).hint(format!(
            "somebody forbade it to start; to allow it:\n{} unmask {UNIT}",
            systemd::typed("systemctl")
        )));
    }
    Ok(())
}

/// A file that is gone, without which it does not start.
///
/// # Errors
/// A [`Fault`] that names it.
pub fn files(facts: &Facts, app: &App) -> Result<(), Fault> {
    let unit = (app.runtime == Runtime::Systemd).then(service::unit_file);
    let mut files = [app.settings_file()].into_iter().chain(unit);
    match files.find(|file| facts.path(file).is_none()) {
        Some(file) => Err(Fault::refused(format!("{} of the web app is gone", file.display()))
            .hint("write it again:\nredis-tp apply")),
        None => Ok(()),
    }
}

/// What is no directory where one has to be.
fn places(facts: &Facts, app: &App) -> Result<(), Fault> {
    if app.runtime.is_container() {
        return Ok(());
    }
    for file in [service::logfile(), service::pidfile(), service::program_copy()] {
        let dir = file.parent().unwrap_or(&file);
        if let Some(stat) = facts.path(dir).filter(|_| !may_be_directory(facts, dir)) {
            return Err(Fault::refused(format!("{} is {}, not a directory", dir.display(), kind(stat)))
                .hint(format!("move it away:\nmv {0} {0}.aside", dir.display())));
        }
    }
    Ok(())
}

/// A database that the app's user would not find, or not be let at.
///
/// # Errors
/// A [`Fault`] with the way to open it.
pub fn database(facts: &Facts, app: &App) -> Result<(), Fault> {
    let Source::Sqlite(file) = &app.section().source else { return Ok(()) };
    let shown = file.display();
    let Some(stat) = facts.path(file) else {
        return Err(Fault::refused(format!("the web app's database {shown} is not there")).hint(format!(
            "make it, with a table `{}` of the columns key and value:\nsqlite3 {shown} 'CREATE TABLE {0} (key TEXT PRIMARY KEY, value TEXT)'",
            app.section().table.as_str()
        )));
    };
    let closed = |what: &Path, bit: &str| {
        Fault::refused(format!("{} is closed to the web app's user", what.display()))
            .hint(format!("let it in:\nchmod o+{bit} {}", what.display()))
    };
    if stat.kind == Kind::Dir || stat.kind == Kind::Other {
        return Err(Fault::refused(format!("the web app's database {shown} is {}", kind(stat)))
            .hint("give it a file:\nredis-tp app install --source sqlite:/srv/lab.db"));
    }
    let hidden = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
    if app.runtime == Runtime::Systemd
        && layout::here().login.is_none()
        && hidden.iter().any(|place| file.starts_with(place))
    {
        return Err(Fault::refused(format!("{shown} is in a place that the web app's unit does not see"))
            .hint(format!("put it below /srv:\ninstall -m 0644 {shown} /srv/")));
    }
    let ours = |uid: u32| layout::here().login.as_ref().is_some_and(|login| login.ids.uid == uid);
    for (above, stat) in file.ancestors().skip(1).filter_map(|path| Some((path, facts.path(path)?))) {
        if stat.mode & 0o001 == 0 && stat.kind == Kind::Dir && !ours(stat.uid) {
            return Err(closed(above, "x"));
        }
    }
    match stat.kind == Kind::File && stat.mode & 0o004 == 0 && !ours(stat.uid) {
        true => Err(closed(file, "r")),
        false => Ok(()),
    }
}
