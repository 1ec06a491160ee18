//! What would become the server's because its own configuration names it. That file lies where the server's user
//! may write it, so its word is not root's: `dir /etc/cron.d` must not make that directory the server's.

use std::path::Path;

use super::Wanted;
use super::adopt::{log_of_another, not_its_own};
use crate::backup;
use crate::engine::Engine;
use crate::exit::Fault;
use crate::facts::Facts;
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
    if facts.path(dir).is_none() || not_its_own(facts, instance).iter().any(|path| path == dir) {
        place(instance, dir, "dir")?;
        if let Some(entry) = facts.crowded.get(dir) {
            return Err(anothers(instance, dir, &format!("{} is in it, too", entry.display())));
        }
    }
    if let Some(link) = not_its_own(facts, instance).iter().find(|path| is_link(facts, path)) {
        return Err(Fault::refused(format!("{} is a link, and is handed to nobody", link.display())).hint(
            format!("see where it leads, and put a directory in its place:\nls -l {}", link.display()),
        ));
    }
    let made = instance.log_dir().filter(|dir| facts.path(dir).is_none()).map(Path::to_path_buf);
    for path in made.into_iter().chain(log_of_another(facts, instance)) {
        if !path.starts_with(dir) {
            place(instance, &path, "logfile")?;
        }
    }
    Ok(())
}

fn is_link(facts: &Facts, path: &Path) -> bool {
    facts.path(path).is_some_and(|stat| stat.kind == Kind::Link)
}

/// Refuses a place that is none for what a server writes.
fn place(instance: &Instance, path: &Path, key: &str) -> Result<(), Fault> {
    let below = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    let ours = path.starts_with(state::dir()) || path.starts_with(backup::dir());
    if below(&EACH_ITS_OWN) && !ours {
        return match is_named(instance.engine, path) {
            true => Ok(()),
            false => Err(anothers(instance, path, "nothing in its name says that it is a server's")),
        };
    }
    if below(&SYSTEM) || ours {
        return Err(Fault::refused(format!(
            "[{}] {key} = {}: that is the system's, and is handed to no server",
            instance.name,
            path.display()
        ))
        .hint(format!("write another {key} into {}", instance.conf.display())));
    }
    Ok(())
}

fn is_named(engine: Engine, path: &Path) -> bool {
    let word = engine.name();
    path.iter().any(|part| part.to_string_lossy().contains(word))
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
