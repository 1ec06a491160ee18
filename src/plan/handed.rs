//! What would become the server's because its own configuration names it. That file lies where the server's user
//! may write it, so its word is not root's: `dir /etc/cron.d` must not make that directory the server's.

use std::ffi::OsStr;
use std::path::Path;

use super::Wanted;
use super::adopt::{log_of_another, not_its_own};
use crate::backup;
use crate::exit::Fault;
use crate::facts::{Facts, data};
use crate::host::Kind;
use crate::instance::Instance;
use crate::layout;
use crate::state;

/// Where nothing is ever a server's data.
const SYSTEM: [&str; 16] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/root", "/run",
    "/sbin", "/sys", "/tmp", "/usr", "/var",
];

/// The parts of `/var` in which each program has a directory of its own (hier(7)).
const EACH_ITS_OWN: [&str; 3] = ["/var/lib", "/var/log", "/var/opt"];

/// Refuses to make or to hand over what is no server's.
///
/// # Errors
/// A [`Fault`] that names the path and the way.
pub fn impossible(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let its_word = instance.plain.is_some() || wanted.consent.adopt;
    if !its_word || instance.runtime.is_container() || layout::here().login.is_some() {
        return Ok(());
    }
    let dir = instance.dir.as_path();
    let others = not_its_own(facts, instance);
    if facts.path(dir).is_none() || others.iter().any(|path| path == dir) {
        directory(facts, instance)?;
    }
    for path in &others {
        match facts.path(path) {
            Some(stat) if stat.kind == Kind::File && stat.links > 1 => return Err(second_name(path)),
            Some(stat) if stat.kind == Kind::Link => return Err(link(path)),
            _ => {}
        }
    }
    if let Some(made) = instance.log_dir().filter(|dir| facts.path(dir).is_none()) {
        is_allowed(made, "logfile", instance)?;
        named(made, instance)?;
    }
    match log_of_another(facts, instance) {
        Some(log) => self::log(facts, instance, &log),
        None => Ok(()),
    }
}

/// A directory that is to be made, or is another user's: by its name it is a server's, or by the data in it.
fn directory(facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let dir = instance.dir.as_path();
    is_allowed(dir, "dir", instance)?;
    let held = facts.held.get(dir);
    if let Some(entry) = held.and_then(|held| held.foreign.as_ref()) {
        return Err(anothers(instance, dir, &format!("{} is in it, too", entry.display())));
    }
    if held.is_some_and(|held| held.data) { Ok(()) } else { named(dir, instance) }
}

/// A log that is another user's.
fn log(facts: &Facts, instance: &Instance, log: &Path) -> Result<(), Fault> {
    is_allowed(log, "logfile", instance)?;
    if !log.starts_with(&instance.dir) {
        named(log, instance)?;
    }
    match facts.path(log) {
        Some(stat) if stat.links > 1 => Err(second_name(log)),
        Some(stat) if !stat.is_plain() || !data::is_log(log) => {
            Err(anothers(instance, log, "it is no log by its name or its mode"))
        }
        _ => Ok(()),
    }
}

/// Refuses the system's own places, and ours.
fn is_allowed(path: &Path, key: &str, instance: &Instance) -> Result<(), Fault> {
    let below = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    let ours = path.starts_with(state::dir()) || path.starts_with(backup::dir());
    // As Redis's own documentation has it: /var/redis/6379.
    let its_own = first_below("/var", path).is_some_and(|first| is_of_server(instance, first));
    if !ours && (its_own || below(&EACH_ITS_OWN) || !below(&SYSTEM)) {
        return Ok(());
    }
    Err(Fault::refused(format!(
        "[{}] {key} = {}: that is the system's, and is handed to no server",
        instance.name,
        path.display()
    ))
    .hint(format!("write another {key} into {}", instance.conf.display())))
}

/// Refuses what has no name of a server's: in `/var` that is the first one, which says whose all below is.
fn named(path: &Path, instance: &Instance) -> Result<(), Fault> {
    let in_var = EACH_ITS_OWN.iter().find_map(|place| first_below(place, path));
    let is = match in_var {
        Some(first) => is_of_server(instance, first),
        None => path.iter().any(|part| is_of_server(instance, part)),
    };
    match is {
        true => Ok(()),
        false => Err(anothers(instance, path, "nothing in its name says that it is a server's")),
    }
}

fn first_below<'a>(place: &str, path: &'a Path) -> Option<&'a OsStr> {
    path.strip_prefix(place).ok()?.iter().next()
}

fn is_of_server(instance: &Instance, name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.strip_prefix(instance.engine.name())
        .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric()))
}

fn link(path: &Path) -> Fault {
    Fault::refused(format!("{} is a link, and is handed to nobody", path.display())).hint(format!(
        "see where it leads, and put what it stands for in its place:\nls -l {}",
        path.display()
    ))
}

fn second_name(path: &Path) -> Fault {
    Fault::refused(format!("{} has a second name, and is handed to nobody", path.display()))
        .hint(format!("see what the other one is:\nfind / -xdev -samefile {}", path.display()))
}

fn anothers(instance: &Instance, path: &Path, why: &str) -> Fault {
    let account = layout::here().account(instance.engine.user());
    Fault::refused(format!("{} is another user's, and {why}: it is not handed to {account}", path.display()))
        .hint(format!(
            "if it is [{}]'s alone, hand it over yourself:\nchown {account}: {}",
            instance.name,
            path.display()
        ))
}
