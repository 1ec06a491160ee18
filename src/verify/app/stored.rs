//! The app's key as Redis has it: there, with a TTL that is not too long and falls, and then gone.

use std::time::{Duration, Instant};

use super::super::{Look, Place};
use super::{AppProof, see};
use crate::finding::Finding;

/// What is left of a TTL may be waited for without being asked.
const WAIT: Duration = Duration::from_secs(5);
/// How long a key may be there too long.
const PATIENCE: Duration = Duration::from_secs(1);
/// How far apart two looks at a TTL are.
const APART: Duration = Duration::from_millis(20);
/// How many looks a wait has, at the most.
const LOOKS: u32 = 50;

/// What PTTL answers for a key that is not there.
const GONE: i64 = -2;

/// The key, found.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The master that has it.
    root: Place,
    /// Its name there.
    name: String,
    /// When it was looked at.
    at: Instant,
    /// How long it would live from then on.
    left: Duration,
}

pub fn did_key(proof: &AppProof<'_>) -> String {
    format!("TTL {} on the master", proof.stored_as("key").join(" or "))
}

/// The key is in Redis, and its TTL no longer than claimed.
pub fn key(proof: &mut AppProof<'_>) -> Look {
    if proof.seen.first.is_none() {
        return Err(see("app-cold"));
    }
    let root = proof.root()?;
    let mut found = None;
    for name in proof.stored_as("key") {
        let left: i64 = proof.servers.ask(&root, &["PTTL", &name])?;
        if left != GONE {
            found = Some((name, left));
            break;
        }
    }
    let Some((name, left)) = found else { return Ok(absent(proof, &root)) };
    let claimed = proof.ttl;
    let finding = judge(&root, &name, left, claimed, &by_hand(proof, &root, &name));
    if matches!(finding, Finding::Pass { .. }) {
        let left = millis(left);
        let kept = Kept { root, name, at: proof.host.now(), left };
        proof.seen.kept = Some(kept);
    }
    Ok(finding)
}

fn absent(proof: &AppProof<'_>, root: &Place) -> Finding {
    match proof.seen.warm {
        true => Finding::fail(
            format!("no such key on {root}, and yet the app has it cached"),
            "the app uses another Redis, another database of it, or a name of its own for the key",
            format!("redis-tp cli {} -- MONITOR", cli_word(root)),
        ),
        false => see("app-warm"),
    }
}

/// Judges what PTTL answered for a key that is there.
fn judge(root: &Place, name: &str, left: i64, claimed: Option<Duration>, cure: &str) -> Finding {
    let seconds = millis(left).as_secs_f64();
    match claimed {
        _ if left < 0 => Finding::fail(
            format!("{name} has no TTL: it stays for ever"),
            "the app stores it without one (SET without EX, where SETEX belongs)",
            cure,
        ),
        Some(claimed) if millis(left) > claimed => Finding::fail(
            format!("TTL {seconds:.3} s, longer than the {} s that are claimed", claimed.as_secs_f64()),
            "the app stores it for longer than is said here (--ttl)",
            cure,
        ),
        _ => Finding::pass(format!("on {root}, TTL {seconds:.3} s")),
    }
}

pub fn did_ttl(proof: &AppProof<'_>) -> String {
    format!("{} again", did_key(proof))
}

/// The TTL falls.
pub fn ttl(proof: &mut AppProof<'_>) -> Look {
    let kept = proof.seen.kept.clone().ok_or_else(|| see("app-key"))?;
    proof.host.sleep((kept.at + APART).saturating_duration_since(proof.host.now()));
    // Before the question: an answer that comes late is not time in which the key grew older.
    let passed = proof.host.now() - kept.at;
    let left = look(proof, &kept)?;
    let seconds = millis(left).as_secs_f64();
    if falls(kept.left, left, passed) {
        return Ok(Finding::pass(format!("TTL {seconds:.3} s and falling")));
    }
    // Its end would be waited for in vain.
    proof.seen.kept = None;
    Ok(Finding::fail(
        format!("TTL stays at {seconds:.3} s"),
        "the app, or something else, stores the key over and over",
        by_hand(proof, &kept.root, &kept.name),
    ))
}

/// Whether a TTL has fallen as time has passed; half of that will do, for the two looks take a moment.
fn falls(before: Duration, left: i64, passed: Duration) -> bool {
    left < 0 || millis(left) + passed / 2 <= before
}

/// What is left of the key's TTL now, kept for the picture, too.
fn look(proof: &mut AppProof<'_>, kept: &Kept) -> Result<i64, Finding> {
    let left: i64 = proof.servers.ask(&kept.root, &["PTTL", &kept.name])?;
    let lifetime = proof.ttl.unwrap_or(kept.left);
    let before = lifetime.saturating_sub(kept.left);
    let since = before + (proof.host.now() - kept.at);
    let curves = &mut proof.curves;
    if curves.left.is_empty() {
        curves.lifetime = lifetime;
        curves.left.push((before, Some(kept.left)));
    }
    curves.left.push((since, (left != GONE).then(|| millis(left))));
    Ok(left)
}

pub fn did_gone(proof: &AppProof<'_>) -> String {
    format!("waited until it ran out, {}", did_key(proof))
}

/// The key is gone (-2) once its TTL has run out.
pub fn gone(proof: &mut AppProof<'_>) -> Look {
    let kept = proof.seen.kept.clone().ok_or_else(|| see("app-ttl"))?;
    let end = kept.at + kept.left;
    let wait = end.saturating_duration_since(proof.host.now());
    if proof.ttl.is_none() && wait > WAIT {
        let seconds = kept.left.as_secs_f64().ceil();
        return Err(Finding::skip(format!(
            "{:.0} s are left of its TTL; to wait for that: --ttl {seconds}, or --lab",
            wait.as_secs_f64()
        )));
    }
    let pause = (wait / LOOKS).max(APART);
    while proof.host.now() < end && !proof.host.interrupted() {
        look(proof, &kept)?;
        proof.host.sleep(pause.min(end.saturating_duration_since(proof.host.now())));
    }
    let host = proof.host;
    let mut last = Ok(0);
    let ran_out = host.poll(PATIENCE, || {
        last = look(proof, &kept);
        Ok((!matches!(last, Ok(left) if left != GONE)).then_some(()))
    });
    last?;
    match ran_out {
        Ok(Some(())) => {
            proof.seen.gone = true;
            let late = (host.now() - end).as_millis();
            Ok(Finding::pass(format!("TTL -2, {late} ms after its time was up")))
        }
        Ok(None) | Err(_) => Ok(Finding::fail(
            format!("still there, {} s after its time was up", PATIENCE.as_secs()),
            "the app, or something else, stored it anew",
            by_hand(proof, &kept.root, &kept.name),
        )),
    }
}

fn millis(left: i64) -> Duration {
    Duration::from_millis(u64::try_from(left).unwrap_or_default())
}

/// The command that looks at a key by hand.
fn by_hand(proof: &AppProof<'_>, root: &Place, name: &str) -> String {
    let instance = match root {
        Place::Ours(at) => proof.servers.instance(at),
        Place::Elsewhere { .. } => None,
    };
    match (instance, root) {
        (Some(instance), _) => format!("{} TTL {name}", super::super::cli(instance)),
        (None, root) => format!("redis-tp cli {} -- TTL {name}", cli_word(root)),
    }
}

/// The instance by which `redis-tp cli` comes nearest to a place.
fn cli_word(root: &Place) -> String {
    match root {
        Place::Ours(name) | Place::Elsewhere { by: name, .. } => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::instance;
    use super::*;

    #[test]
    fn a_ttl_that_is_absent_or_longer_than_claimed_is_no_pass() {
        let root = Place::of(&instance("master", 1));
        let passes = |left, claimed: Option<u64>| {
            matches!(judge(&root, "k", left, claimed.map(Duration::from_secs), "cure"), Finding::Pass { .. })
        };
        assert!(passes(2000, Some(2)) && passes(60_000, None) && passes(0, Some(1)));
        assert!(!passes(2001, Some(2)) && !passes(-1, Some(2)) && !passes(-1, None));
    }

    #[test]
    fn a_ttl_that_is_renewed_meanwhile_does_not_fall() {
        let ms = Duration::from_millis;
        assert!(falls(ms(1000), 980, ms(21)) && falls(ms(1000), GONE, ms(21)));
        assert!(
            !falls(ms(995), 990, ms(20)) && !falls(ms(1000), 1000, ms(20)) && !falls(ms(900), 1000, ms(20))
        );
    }
}
