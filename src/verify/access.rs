//! Whether an instance answers, and to whom: the right password, a wrong one, none.

use super::{Look, Place, Proof, cli, ms};
use crate::apply::service::log_lines;
use crate::conf::Conf;
use crate::facts::Auth;
use crate::finding::Finding;
use crate::instance::Instance;
use crate::secret::Secret;
use crate::wire::{Trouble, Wire};

pub fn did_ping(_: &Proof<'_>, instance: &Instance) -> String {
    let with = if instance.requirepass.is_some() { "AUTH and PING" } else { "PING" };
    format!("{with} on {}", instance.address())
}

/// It answers. All that needs an answer comes after this.
pub fn ping(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let began = proof.host.now();
    let answer = proof.servers.wire(&Place::of(instance)).and_then(Wire::ping);
    match answer {
        Ok(()) => Ok(Finding::pass(format!("PONG after {}", ms(proof.host.now() - began)))),
        Err(trouble) => Ok(no_answer(proof, instance, &trouble)),
    }
}

fn no_answer(proof: &Proof<'_>, instance: &Instance, trouble: &Trouble) -> Finding {
    let (name, at) = (&instance.name, instance.address());
    let log = || log_lines(proof.host, &instance.target());
    match trouble {
        Trouble::Refused => Finding::fail(
            format!("nobody listens on {at}"),
            format!("{name} does not run{}", log()),
            format!("redis-tp service start {name}"),
        ),
        Trouble::NoAuth | Trouble::WrongPassword => wrong_lock(proof, instance, trouble),
        Trouble::Stranger(uid) => Finding::fail(
            format!("user {uid} listens on {at}"),
            format!("{name} does not run, and somebody waits in its place for a password"),
            format!("ss -ltnp 'sport = :{}'    # end that one, and then: redis-tp up", at.port),
        ),
        Trouble::Loading => Finding::unknown("it is still loading its data", "redis-tp verify"),
        Trouble::Tls(said) => Finding::fail(
            format!("no TLS with {at}: {said}"),
            format!(
                "it hangs, is full of clients, or shows or speaks what the topology does not say{}",
                log()
            ),
            "redis-tp apply",
        ),
        Trouble::Untrusted(said) => Finding::fail(
            format!("no TLS with {at}: {said}"),
            format!("its certificate, or ours, is not what the topology comes to{}", log()),
            "redis-tp apply",
        ),
        Trouble::Other(said) => Finding::fail(
            format!("no PONG from {at}: {said}"),
            format!("something listens there, but not as a server that is well{}", log()),
            format!("redis-tp service restart {name}"),
        ),
    }
}

/// It answers, but wants another password than the topology says.
fn wrong_lock(proof: &Proof<'_>, instance: &Instance, trouble: &Trouble) -> Finding {
    let found = match trouble {
        Trouble::NoAuth => "it asks for a password, and none is wanted",
        _ => "it does not take the wanted password",
    };
    let name = &instance.name;
    let (cause, cure) = match proof.subject.facts.running.get(name).map(|running| running.auth) {
        Some(Auth::Former) => ("it has the password that its file had before", "redis-tp apply".into()),
        Some(Auth::Open) => ("it asks for no password at all", lock_again(proof, instance)),
        _ => ("its password was changed while it ran", lock_again(proof, instance)),
    };
    Finding::fail(found, cause, cure)
}

/// The command that makes a server ask for the wanted password: it reads its file when it starts,
/// and a `user default` line there would win over `requirepass`.
fn lock_again(proof: &Proof<'_>, instance: &Instance) -> String {
    let text = proof.subject.facts.text(&instance.conf).unwrap_or_default();
    let file = Conf::parse(text).unwrap_or_default();
    let default_user = |line: &crate::conf::Directive| {
        line.name == "user" && line.args.first().is_some_and(|user| user == "default")
    };
    match file.directives.iter().any(default_user) {
        true => "redis-tp apply --overwrite".into(),
        false => format!("redis-tp service restart {}", instance.name),
    }
}

pub fn did_wrong(_: &Proof<'_>, instance: &Instance) -> String {
    format!("AUTH with a wrong password on {}", instance.address())
}

/// A wrong password is refused.
pub fn wrong_password(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    reachable(proof, instance)?;
    let wrong = Secret::new(proof.host.random_hex(16).unwrap_or_else(|_| "wrong".into()));
    match Wire::open(proof.host, &instance.address(), Some(&wrong)) {
        Err(Trouble::WrongPassword) => Ok(Finding::pass("refused")),
        Err(trouble) => Err(proof.servers.silent(&Place::of(instance), &trouble)),
        Ok(_) => Ok(Finding::fail(
            "a password made up on the spot was taken",
            "the default user takes any password (`nopass`)",
            lock_again(proof, instance),
        )),
    }
}

pub fn did_missing(_: &Proof<'_>, instance: &Instance) -> String {
    format!("PING without a password on {}", instance.address())
}

/// A client that gives no password is refused.
pub fn no_password(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    reachable(proof, instance)?;
    let answer = Wire::open(proof.host, &instance.address(), None).and_then(|mut wire| wire.ping());
    match answer {
        Err(Trouble::NoAuth) => Ok(Finding::pass("refused: NOAUTH")),
        Err(trouble) => Err(proof.servers.silent(&Place::of(instance), &trouble)),
        Ok(()) => Ok(Finding::fail(
            "PONG: it lets anybody in",
            format!(
                "a password is wanted, but the running server asks for none; see: {} ACL LIST",
                cli_open(instance)
            ),
            lock_again(proof, instance),
        )),
    }
}

/// The command that asks a server that wants no password.
fn cli_open(instance: &Instance) -> String {
    cli(&Instance { requirepass: None, ..instance.clone() })
}

/// Ends a check of passwords where none is wanted, or where nobody asks for one: a server that takes
/// no password of ours can still be asked.
fn reachable(proof: &mut Proof<'_>, instance: &Instance) -> Result<(), Finding> {
    if instance.requirepass.is_none() {
        return Err(Finding::skip("the topology wants no password"));
    }
    let place = Place::of(instance);
    match proof.servers.wire(&place).map(drop) {
        Ok(()) | Err(Trouble::NoAuth | Trouble::WrongPassword) => Ok(()),
        Err(trouble) => Err(proof.servers.silent(&place, &trouble)),
    }
}
