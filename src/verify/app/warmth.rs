//! Cold, warm, and cold again: where an answer comes from, and how long it takes.

use std::time::Duration;

use super::super::{Look, ms};
use super::reply::{Reply, word};
use super::{AppProof, see};
use crate::finding::Finding;

/// How many times faster than the database a cache is, at the least.
const FACTOR: u32 = 5;
/// A database that takes less cannot be told from a cache by its time.
const TELLING: Duration = Duration::from_millis(50);
/// How often the warm key is asked for: the fastest answer counts, for a machine may be busy.
const LOOKS: usize = 3;

pub fn did_cold(proof: &AppProof<'_>) -> String {
    format!("{}, a key that nobody has asked for yet", proof.question("key"))
}

/// The first answer is slow, and from the database.
pub fn cold(proof: &mut AppProof<'_>) -> Look {
    let reply = proof.ask("key")?;
    proof.curves.cold.push(reply.time);
    if reply.bypassed {
        // Why, the master may tell. Without a cache there is nothing more to prove.
        proof.root()?;
        return Ok(away(proof, &reply));
    }
    let finding = judge_cold(&reply, proof.slow, &proof.curl("key"));
    proof.seen.cold = matches!(finding, Finding::Pass { .. });
    proof.seen.first = Some(reply);
    Ok(finding)
}

/// The app does not reach a Redis that is there.
fn away(proof: &AppProof<'_>, reply: &Reply) -> Finding {
    Finding::fail(
        format!("it passes the cache by: {}", word(&reply.source)),
        "it does not reach its Redis, or is not let in there; /readyz tells which",
        proof.curl("key"),
    )
}

/// Judges an answer that has to be the database's.
fn judge_cold(reply: &Reply, slow: Option<Duration>, curl: &str) -> Finding {
    let found = format!("{} after {}", word(&reply.source), ms(reply.time));
    if reply.is_cached() {
        let cause = "it says so without a look, or has a cache that is not by key";
        return Finding::fail(format!("{found}, where nothing can be cached"), cause, curl);
    }
    if !reply.is_read() {
        return Finding::fail(found, "the contract knows 'cache' and 'database (slow)' only", curl);
    }
    match slow {
        Some(slow) if reply.time < slow => Finding::fail(
            format!("{found}, and its database takes {} s", slow.as_secs_f64()),
            "the value is not from there, or the database is quicker than claimed (--slow)",
            curl,
        ),
        _ => Finding::pass(found),
    }
}

pub fn did_warm(proof: &AppProof<'_>) -> String {
    format!("{} again", proof.question("key"))
}

/// The second answer is fast, from the cache, and the same.
pub fn warm(proof: &mut AppProof<'_>) -> Look {
    let first = proof.seen.first.clone().ok_or_else(|| see("app-cold"))?;
    proof.settle("key");
    let mut replies = Vec::new();
    for _ in 0..LOOKS {
        let reply = proof.ask("key")?;
        let cached = reply.is_cached();
        replies.push(reply);
        if !cached {
            break;
        }
    }
    let cached = || replies.iter().filter(|reply| reply.is_cached());
    proof.curves.warm.extend(cached().map(|reply| reply.time));
    proof.seen.warm = cached().count() == LOOKS;
    let timed = proof.seen.cold && proof.slow.is_none_or(|slow| slow >= TELLING);
    Ok(judge_warm(&first, &replies, timed, &proof.curl("key")))
}

/// Judges answers that have to be the cache's; `timed`: also by how long they took.
fn judge_warm(first: &Reply, replies: &[Reply], timed: bool, curl: &str) -> Finding {
    if let Some(reply) = replies.iter().find(|reply| !reply.is_cached()) {
        let found = format!("{} after {}, and not 'cache'", word(&reply.source), ms(reply.time));
        let cause = "it does not store what it has read, or does not look there first";
        return Finding::fail(found, cause, curl);
    }
    if let Some(reply) = replies.iter().find(|reply| reply.value != first.value) {
        let found = format!("{}, and the database had {}", word(&reply.value), word(&first.value));
        return Finding::fail(found, "what it stores is not what it has read", curl);
    }
    let Some(time) = replies.iter().map(|reply| reply.time).min() else { return see("app-cold") };
    let found = format!("'cache' after {}", ms(time));
    if !timed {
        return Finding::pass(found);
    }
    let times = first.time.as_secs_f64() / time.as_secs_f64().max(1e-6);
    match first.time < time * FACTOR {
        true => Finding::fail(
            format!("{found}, and the database took {}: {times:.1} times as long", ms(first.time)),
            format!("less than {FACTOR} times is no cache: it reads the database as well, or Redis is far"),
            curl,
        ),
        false => Finding::pass(format!("{found}: {times:.0} times as fast")),
    }
}

pub fn did_again(proof: &AppProof<'_>) -> String {
    format!("{} once more, when it was gone", proof.question("key"))
}

/// Once the key has run out, the answer is the database's again.
pub fn again(proof: &mut AppProof<'_>) -> Look {
    let first = proof.seen.first.clone().filter(|_| proof.seen.cold).ok_or_else(|| see("app-cold"))?;
    if !proof.seen.gone {
        return Err(Finding::skip("it is not known that the key is gone: see app-gone"));
    }
    let reply = proof.ask("key")?;
    proof.curves.cold.push(reply.time);
    // Where nothing is claimed, the first answer tells what slow is. The value may have changed.
    let slow = proof.slow.unwrap_or(first.time / FACTOR);
    Ok(judge_cold(&reply, Some(slow), &proof.curl("key")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(value: &str, source: &str, ms: u64) -> Reply {
        Reply { value: value.into(), source: source.into(), bypassed: false, time: Duration::from_millis(ms) }
    }

    #[test]
    fn only_a_slow_answer_of_the_database_is_cold() {
        let passes = |reply: &Reply, slow| {
            matches!(judge_cold(reply, Some(Duration::from_millis(slow)), "curl"), Finding::Pass { .. })
        };
        assert!(passes(&reply("K", "database (slow)", 200), 200) && passes(&reply("K", "database", 0), 0));
        assert!(!passes(&reply("K", "database (slow)", 199), 200));
        assert!(!passes(&reply("K", "cache", 200), 200) && !passes(&reply("K", "Database", 200), 200));
    }

    #[test]
    fn only_a_fast_answer_of_the_cache_with_the_same_value_is_warm() {
        let cold = reply("K", "database (slow)", 200);
        let passes = |replies: &[Reply], timed| {
            matches!(judge_warm(&cold, replies, timed, "curl"), Finding::Pass { .. })
        };
        let warm = |ms| reply("K", "cache", ms);
        assert!(passes(&[warm(90), warm(40), warm(90)], true), "the fastest counts");
        assert!(!passes(&[warm(41)], true) && passes(&[warm(41)], false));
        assert!(!passes(&[warm(1), reply("L", "cache", 1)], false));
        assert!(!passes(&[warm(1), reply("K", "database (slow)", 1)], false));
    }
}
