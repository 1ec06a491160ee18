//! A key with a TTL: it counts down on the master and on every replica, and is gone when it has run
//! out. It is set early, and the wait is only for what is left then.

use std::time::{Duration, Instant};

use super::{Look, Place, Proof};
use crate::finding::Finding;
use crate::instance::Instance;
use crate::wire::Trouble;

/// How long a key may take to a replica, and how long it may be there too long.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often a key is set that has run out before it was looked at.
const LOOKS: u32 = 3;

/// What TTL and PTTL answer for a key that is not there.
const GONE: i64 = -2;

fn key(proof: &Proof<'_>) -> String {
    proof.keys.key("ttl")
}

pub fn did_ttl(proof: &Proof<'_>, instance: &Instance) -> String {
    format!(
        "SET {} EX {} on {}, TTL on {}",
        key(proof),
        proof.options.ttl.as_secs_f64(),
        proof.root_word(instance),
        instance.name
    )
}

/// The TTL is there, no longer than it was set, and falls.
pub fn ttl(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let root = proof.root(instance)?;
    let (host, place, key) = (proof.host, Place::of(instance), key(proof));
    let mut looks = 0;
    let first = loop {
        let began = set(proof, &root, instance)?;
        let there = host.poll(PATIENCE, || match proof.servers.ask::<i64>(&place, &["PTTL", &key]) {
            Ok(GONE) => Ok(None),
            answer => Ok(Some(answer)),
        });
        if let Ok(Some(first)) = there {
            break first?;
        }
        looks += 1;
        if looks == LOOKS || host.now() < began + proof.options.ttl {
            return Ok(absent(&root, instance));
        }
        // It may have run out before anybody looked: then this machine was slow, and no server.
        proof.keys.expiring.retain(|(at, _)| *at != root);
    };
    host.sleep(Duration::from_millis(2));
    let second: i64 = proof.servers.ask(&place, &["PTTL", &key])?;
    Ok(judge(first, second, proof.options.ttl, instance))
}

fn absent(root: &Place, instance: &Instance) -> Finding {
    Finding::fail(
        format!("no such key on {}", instance.name),
        format!("{} does not keep up with {root}, or its clock is ahead", instance.name),
        format!("{} INFO replication", super::cli(instance)),
    )
}

/// Judges two looks at a TTL, in milliseconds.
fn judge(first: i64, second: i64, set: Duration, instance: &Instance) -> Finding {
    let seconds = |ms: i64| Duration::from_millis(ms.unsigned_abs()).as_secs_f64();
    let longest = i64::try_from(set.as_millis()).unwrap_or(i64::MAX);
    let bad = |found: String, cause: &str, cure: &str| Finding::fail(found, cause, cure);
    match (first, second) {
        (..0, _) => bad(
            "the key has no TTL".into(),
            "the EX of the SET was lost on the way",
            &format!("{} INFO server", super::cli(instance)),
        ),
        (first, _) if first > longest => bad(
            format!("TTL {:.3} s, longer than it was set", seconds(first)),
            "the clocks of the two machines differ",
            "timedatectl",
        ),
        (first, second) if second >= first => {
            bad(format!("TTL stays at {:.3} s", seconds(first)), "its clock stands still", "timedatectl")
        }
        _ => Finding::pass(format!("TTL {:.3} s and falling", seconds(first))),
    }
}

/// Sets the key that has to run out, once a master.
fn set(proof: &mut Proof<'_>, root: &Place, of: &Instance) -> Result<Instant, Finding> {
    let known = proof.keys.expiring.iter().find(|(at, _)| at == root);
    let set = match known {
        Some((_, set)) => set.clone(),
        None => {
            let (began, key) = (proof.host.now(), key(proof));
            let set = proof.write(root, &key, proof.options.ttl).map(|()| began);
            proof.keys.expiring.push((root.clone(), set.clone()));
            set
        }
    };
    set.map_err(|trouble| match (*root == Place::of(of), trouble) {
        (true, Trouble::Other(said)) => no_write(of, &said),
        (false, Trouble::Other(said)) => {
            Finding::unknown(format!("{root} takes no key: {said}"), "redis-tp status")
        }
        (_, trouble) => proof.servers.silent(root, &trouble),
    })
}

/// A master that takes no writes.
fn no_write(instance: &Instance, said: &str) -> Finding {
    let ask = |what: &str| format!("{} {what}", super::cli(instance));
    let (cause, cure) = match said.split(' ').next().unwrap_or_default() {
        "NOREPLICAS" => {
            ("fewer replicas follow it than min-replicas-to-write asks for", ask("INFO replication"))
        }
        "MISCONF" => ("it cannot save its data, and so takes no more", ask("INFO persistence")),
        "OOM" => ("its memory is used up (maxmemory)", ask("INFO memory")),
        "NOPERM" => ("the default user may not write here", ask("ACL GETUSER default")),
        _ => ("it refuses", ask("INFO")),
    };
    Finding::fail(said, cause, cure)
}

pub fn did_gone(proof: &Proof<'_>, instance: &Instance) -> String {
    format!("waited until {} on {} ran out, TTL on {}", key(proof), proof.root_word(instance), instance.name)
}

/// The key is gone (-2) once its TTL has run out.
pub fn gone(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let root = proof.root(instance)?;
    let began = set(proof, &root, instance)?;
    let (host, place, key) = (proof.host, Place::of(instance), key(proof));
    host.sleep((began + proof.options.ttl).saturating_duration_since(host.now()));
    let mut last = 0;
    let answer = host.poll(PATIENCE, || match proof.servers.ask::<i64>(&place, &["TTL", &key]) {
        Ok(GONE) => Ok(Some(Ok(host.now() - began))),
        Ok(left) => {
            last = left;
            Ok(None)
        }
        Err(finding) => Ok(Some(Err(finding))),
    });
    match answer {
        Ok(Some(after)) => Ok(Finding::pass(format!("TTL -2, {:.3} s after the SET", after?.as_secs_f64()))),
        Ok(None) | Err(_) => Ok(Finding::fail(
            format!("TTL {last} a second after it should be gone"),
            "its clock is behind, or the key was set anew",
            format!("{} TTL {key}", super::cli(instance)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::instance;
    use super::*;

    #[test]
    fn a_ttl_that_is_absent_too_long_or_still_is_no_pass() {
        let bad = |first, second| {
            let finding = judge(first, second, Duration::from_secs(1), &instance("master", 1));
            matches!(finding, Finding::Fail { .. })
        };
        assert!(bad(-1, -1) && bad(1001, 1000) && bad(900, 900) && !bad(1000, 998) && !bad(3, -2));
    }
}
