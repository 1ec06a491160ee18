//! Whether each user of an instance is held to its rules, by asking as that user for what it must not have. What is
//! asked for changes nothing, should it be let through.

use super::{Look, Place, Proof};
use crate::finding::Finding;
use crate::instance::Instance;
use crate::secret::Secret;
use crate::users::{self, App};
use crate::wire::{Login, Trouble, Wire};

/// What neither the replicas nor the app may. Each has a word too many or hits nothing.
const NOBODYS: [&[&str]; 8] = [
    &["CONFIG", "GET", "port"],
    &["FLUSHALL", "redis-tp"],
    &["KEYS", "redis-tp-none"],
    &["EVAL", "return 1", "0"],
    &["ACL", "WHOAMI"],
    &["MODULE", "LIST"],
    &["SHUTDOWN", "redis-tp"],
    &["REPLICAOF", "redis-tp", "port"],
];

pub fn did_default(_: &Proof<'_>, instance: &Instance) -> String {
    format!("AUTH without a user on {}", instance.address())
}

/// Beyond loopback a client has to name its user.
pub fn default(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let Some((users, password)) = instance.users.as_ref().zip(instance.requirepass.as_ref()) else {
        return Err(none());
    };
    let opened = Wire::open(proof.host, &instance.address(), Some(password)).map(drop);
    match (opened, users.default) {
        (Err(Trouble::WrongPassword), false) => Ok(Finding::pass("refused: the user is off")),
        (Ok(()), true) => Ok(Finding::pass("on loopback it is let in by the password")),
        (Ok(()), false) => Ok(Finding::fail(
            "let in without a user's name",
            "the default user is on, and other machines reach this instance",
            cure(instance),
        )),
        (Err(Trouble::WrongPassword), true) => Ok(Finding::fail(
            "refused, though the password is right",
            "the default user was switched off, or has another password",
            cure(instance),
        )),
        (Err(trouble), _) => Err(proof.servers.silent(&Place::of(instance), &trouble)),
    }
}

pub fn did_replica(_: &Proof<'_>, instance: &Instance) -> String {
    format!("what {} may do on {}", users::REPLICA, instance.address())
}

/// A replica copies, and neither reads nor writes by itself.
pub fn replica(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let users = instance.users.as_ref().ok_or_else(none)?;
    let keys: [&[&str]; 2] = [&["GET", "redis-tp-none"], &["DEL", "redis-tp-none"]];
    let refused = [&NOBODYS[..], &keys].concat();
    held(proof, instance, users::REPLICA, &users.replica, &refused, &[&["PING"]])
}

pub fn did_app(_: &Proof<'_>, instance: &Instance) -> String {
    format!("what {} may do on {}", users::APP, instance.address())
}

/// The web app reads and writes keys of its own.
pub fn app(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let Some(App { password, prefix }) = instance.users.as_ref().and_then(|users| users.app.as_ref()) else {
        return Err(none());
    };
    let foreign = foreign_key(prefix);
    let own = format!("{prefix}redis-tp-none");
    let mut refused = NOBODYS.to_vec();
    let get = foreign.as_deref().map(|key| ["GET", key]);
    refused.extend(get.iter().map(|words| words.as_slice()));
    held(proof, instance, users::APP, password, &refused, &[&["PTTL", &own], &["INFO", "replication"]])
}

/// A key that is not the app's; none where every key is.
fn foreign_key(prefix: &str) -> Option<String> {
    let first = prefix.chars().next()?;
    Some(format!("{}redis-tp-none", if first == '!' { '+' } else { '!' }))
}

/// Asks for each as this user.
fn held(
    proof: &Proof<'_>,
    instance: &Instance,
    user: &str,
    password: &Secret,
    refused: &[&[&str]],
    allowed: &[&[&str]],
) -> Look {
    let silent = |trouble: &Trouble| proof.servers.silent(&Place::of(instance), trouble);
    let login = Login { user: Some(user), password };
    let mut wire = match Wire::open_as(proof.host, &instance.address(), Some(login)) {
        Ok(wire) => wire,
        Err(Trouble::WrongPassword) => {
            return Ok(Finding::fail(
                format!("{user} is refused"),
                "the running server has no such user, or it has another password",
                cure(instance),
            ));
        }
        Err(trouble) => return Err(silent(&trouble)),
    };
    for (words, may) in
        refused.iter().map(|words| (words, false)).chain(allowed.iter().map(|words| (words, true)))
    {
        let denied = match wire.ask::<redis::Value>(words) {
            Err(Trouble::Other(said)) if said.starts_with("NOPERM") => true,
            // A complaint of the server's comes when the door is behind one.
            Err(Trouble::Other(said)) if said.starts_with("ERR") => false,
            Err(trouble) => return Err(silent(&trouble)),
            Ok(_) => false,
        };
        if denied == may {
            let (found, why) = match may {
                true => ("may not", "its rules in the running server are narrower than its file's"),
                false => ("may", "its rules in the running server are wider than its file's"),
            };
            return Ok(Finding::fail(format!("{user} {found}: {}", words.join(" ")), why, cure(instance)));
        }
    }
    Ok(Finding::pass(format!("{} refused, {} allowed", refused.len(), allowed.len())))
}

/// A server has the users of its file when it starts.
fn cure(instance: &Instance) -> String {
    format!("redis-tp apply && redis-tp service restart {}", instance.name)
}

fn none() -> Finding {
    Finding::skip("it has no users of redis-tp's")
}
