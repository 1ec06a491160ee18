//! Whether an instance speaks TLS, by a certificate that serves, and to nobody that has none.

use super::{Look, Place, Proof};
use crate::certificates::{self, days_left};
use crate::finding::Finding;
use crate::instance::Instance;
use crate::moment;
use crate::tls::issue::{Authority, Holder};
use crate::tls::{Pem, judge};
use crate::wire::{Address, Trouble, Wire};

pub fn did_certificate(_: &Proof<'_>, instance: &Instance) -> String {
    format!("a handshake with {}, and the certificate that it shows", instance.address())
}

/// It shows the certificate that is kept for it, signed by the authority, for its address, and of this time.
pub fn certificate(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let place = Place::of(instance);
    let shown = match proof.servers.wire(&place) {
        Ok(wire) => wire.peer_certificate(),
        Err(trouble) => return Err(proof.servers.silent(&place, &trouble)),
    };
    let files = instance.tls.as_ref().map(|tls| tls.files.clone()).ok_or_else(none)?;
    let unread = |error: anyhow::Error| Finding::unknown(format!("{error:#}"), "redis-tp apply");
    let kept = certificates::read(proof.host, &files).map_err(unread)?;
    let (now, at) = (proof.host.unix_time(), instance.address().host);
    let again =
        |cause: String| Finding::fail("it shows another certificate than it is to", cause, "redis-tp apply");
    let chain = judge::chain(&kept.cert).unwrap_or_default();
    if shown.as_deref() != chain.first().map(AsRef::as_ref) {
        return Ok(again(format!("it has not read {} since that was written", files.cert.display())));
    }
    match judge::server(&kept, std::slice::from_ref(&at), now) {
        Ok(validity) => Ok(Finding::pass(format!(
            "for {at}, until {}, {} days left",
            moment::day(validity.until),
            days_left(validity, now)
        ))),
        Err(flaw) => Ok(Finding::fail(
            format!("its certificate {}", flaw.words()),
            format!("{} does not serve", files.cert.display()),
            "redis-tp apply",
        )),
    }
}

pub fn did_plain(_: &Proof<'_>, instance: &Instance) -> String {
    format!("PING without TLS on {}", instance.address())
}

/// Who speaks no TLS is not heard.
pub fn plain(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    heard(proof, instance)?;
    let at = Address { tls: None, ..instance.address() };
    match Wire::open(proof.host, &at, None).and_then(|mut wire| wire.ping()) {
        Ok(()) | Err(Trouble::NoAuth | Trouble::WrongPassword | Trouble::Loading) => Ok(Finding::fail(
            "it answers without TLS",
            "its port speaks both, or another server has it",
            format!("redis-tp service restart {}", instance.name),
        )),
        Err(_) => Ok(Finding::pass("refused: it speaks TLS only")),
    }
}

pub fn did_client(_: &Proof<'_>, instance: &Instance) -> String {
    format!("PING with a certificate of another authority on {}", instance.address())
}

/// Who shows a certificate that its authority did not sign is not heard.
pub fn client(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    heard(proof, instance)?;
    let asks = instance.directives.iter().rev().find(|named| named.name == "tls-auth-clients");
    if let Some(word) = asks.and_then(|named| named.args.first()).filter(|word| *word != "yes") {
        return Err(Finding::skip(format!("tls-auth-clients is {word}: whoever has the password is heard")));
    }
    let stranger = stranger(proof, instance).map_err(|error| {
        Finding::unknown(format!("{error:#}"), format!("redis-tp cli {} -- PING", instance.name))
    })?;
    match Wire::open_showing(proof.host, &instance.address(), &stranger).and_then(|mut wire| wire.ping()) {
        Ok(()) | Err(Trouble::NoAuth | Trouble::WrongPassword | Trouble::Loading) => Ok(Finding::fail(
            "it hears a client whose certificate another authority signed",
            "tls-auth-clients was switched off, or it trusts more than its authority",
            "redis-tp apply --overwrite",
        )),
        Err(Trouble::Tls(_) | Trouble::Untrusted(_)) => {
            Ok(Finding::pass("refused: it is signed by another authority"))
        }
        Err(trouble) => Err(proof.servers.silent(&Place::of(instance), &trouble)),
    }
}

/// A client with a certificate of an authority that exists for this moment only.
fn stranger(proof: &Proof<'_>, instance: &Instance) -> anyhow::Result<Pem> {
    let (host, now) = (proof.host, proof.host.unix_time());
    let authority = Authority::new(host.new_key()?, "nobody", now)?;
    let key = host.new_key()?;
    let cert = authority.sign(&Holder { name: "stranger", reached: &[] }, &key, now)?;
    let files = instance.tls.as_ref().map(|tls| &tls.files);
    let ca = files.map(|files| host.text(&files.ca)).transpose()?.flatten().unwrap_or_default();
    Ok(Pem { ca, cert, key })
}

/// Ends a check of who is refused where nobody is heard.
fn heard(proof: &mut Proof<'_>, instance: &Instance) -> Result<(), Finding> {
    let place = Place::of(instance);
    match proof.servers.wire(&place).map(drop) {
        Ok(()) | Err(Trouble::NoAuth | Trouble::WrongPassword) => Ok(()),
        Err(trouble) => Err(proof.servers.silent(&place, &trouble)),
    }
}

fn none() -> Finding {
    Finding::skip("it speaks no TLS")
}
