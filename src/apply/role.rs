//! What a server is now, and that no restart makes it another: a promotion need not have reached the file, and
//! a server that starts as a replica throws away what it held.

use std::time::Duration;

use anyhow::Result;

use super::live::{self, holds_more};
use super::service::{conf_of, runs};
use crate::conf::{self, Conf};
use crate::directives;
use crate::facts::{Role, parse};
use crate::host::Host;
use crate::instance::Target;
use crate::journal::{self, Record, Undo};
use crate::wire::Trouble;

/// How long a daemon that left no pid file may take to answer.
const BORN: Duration = Duration::from_secs(3);

/// What a server is now; none where it does not tell.
pub fn now(host: &Host, target: &Target) -> Option<Role> {
    let mut wire = live::reach(host, target, &live::passwords(host, target)).ok()?;
    Some(parse::role(&wire.info("replication").ok()?)).filter(|role| *role != Role::Unknown)
}

/// The configuration of an instance with a role, where that is another than its file says.
pub fn conf_with(host: &Host, target: &Target, role: &Role) -> Option<String> {
    let text = host.text(&target.conf()).ok()??;
    let conf = Conf::parse(&text).ok()?;
    let now = match role {
        Role::Master => None,
        Role::Replica { host, port, .. } => Some([host.clone(), port.to_string()]),
        Role::Unknown => return None,
    };
    if conf.get("replicaof") == now.as_ref().map(<[String; 2]>::as_slice) {
        return None;
    }
    let follows = |line: &&str| {
        let word = line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        directives::canonical(&word) != "replicaof"
    };
    let mut lines: Vec<String> = text.lines().filter(follows).map(str::to_owned).collect();
    lines.extend(now.map(|[host, port]| format!("replicaof {} {port}", conf::quote(&host))));
    Some(lines.join("\n") + "\n")
}

/// Whether a server is another now than its file says: a restart would forget that.
pub fn differs(host: &Host, target: &Target) -> bool {
    now(host, target).is_some_and(|role| conf_with(host, target, &role).is_some())
}

/// Puts a role into the file of an instance, unless it has that.
///
/// # Errors
/// It cannot be written.
pub fn write(host: &Host, target: &Target, role: &Role) -> Result<()> {
    let path = target.conf();
    match (conf_with(host, target, role), host.stat(&path)?) {
        (Some(text), Some(stat)) => host.write(&path, text.as_bytes(), stat.ids(), stat.mode),
        _ => Ok(()),
    }
}

/// A run with the roles that its servers keep on the way back, in the journal before any file goes back: what
/// one became since the run, or holds alone, stays; else it is what it was when the run ended it.
///
/// # Errors
/// The journal cannot be written.
pub fn kept(host: &Host, record: &Record) -> Result<Record> {
    let mut record = record.clone();
    for undo in record.undo.clone() {
        let (Undo::Start { target, .. } | Undo::Revive { target, .. }) = undo else { continue };
        let Some(role) = now(host, &target) else { continue };
        let own = role == Role::Master && holds_its_own(host, &target);
        let differs = conf_with(host, &target, &role).is_some();
        let undo = Undo::Role { target: target.without_password(), role };
        if (own || differs) && !record.undo.contains(&undo) {
            journal::add_undo(host, record.run, &undo)?;
            record.undo.push(undo);
        }
    }
    Ok(record)
}

/// Puts the role that an instance keeps into its former file.
///
/// # Errors
/// It cannot be written.
pub fn write_kept(host: &Host, record: &Record, target: &Target) -> Result<()> {
    let last = record.undo.iter().rev().find_map(|undo| match undo {
        Undo::Role { target: other, role } if other.name == target.name => Some(role),
        _ => None,
    });
    last.map_or(Ok(()), |role| write(host, target, role))
}

fn holds_its_own(host: &Host, target: &Target) -> bool {
    live::reach(host, target, &live::passwords(host, target)).is_ok_and(|mut wire| holds_more(&mut wire))
}

/// Whether all that an instance holds is held elsewhere, or is nothing: it follows a master by a link that
/// is up, or it has no key in any database. What cannot be asked may hold anything; one that does not run
/// is a copy if its file says replica, for a promotion that mattered was written there.
pub fn is_copy(host: &Host, target: &Target) -> Result<bool> {
    let answer = host.poll(BORN, || {
        if !runs(host, target)? {
            return Ok(Some(target.replica && conf_of(host, target).get("replicaof").is_some()));
        }
        Ok(match is_copy_now(host, target) {
            Ok(copy) => copy,
            // One that a run started just before it was killed does not listen yet.
            Err(Trouble::Refused | Trouble::Loading) => None,
            Err(_) => Some(false),
        })
    })?;
    Ok(answer.unwrap_or(false))
}

/// Whether a server says that what it holds is a copy, or nothing; none where a link that comes up now may
/// make it one.
fn is_copy_now(host: &Host, target: &Target) -> Result<Option<bool>, Trouble> {
    let mut wire = target.connect(host)?;
    let (role, keys) = (wire.info("replication")?, wire.info("keyspace")?);
    let empty = !keys.keys().any(|name| name.starts_with("db"));
    Ok(match parse::role(&role) {
        _ if empty => Some(true),
        Role::Replica { up, .. } => up.then_some(true),
        Role::Master | Role::Unknown => Some(false),
    })
}
