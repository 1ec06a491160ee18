//! Redis stopped: the app still answers, and comes back by itself. Asked for by name, for other clients
//! notice it, too.

use std::time::Duration;

use super::super::{Look, Place, Servers, ms, restart};
use super::reply::{Reply, word};
use super::{AppProof, see};
use crate::finding::Finding;

/// What an answer without the cache may take beyond the database's time.
const MORE: Duration = Duration::from_secs(1);
/// How long the app may take until it uses the cache again.
const BACK: Duration = Duration::from_secs(15);

pub fn did(proof: &AppProof<'_>) -> String {
    format!(
        "stopped the master, {}, started it, and asked until it came from the cache",
        proof.question("outage")
    )
}

/// While the master is away the app answers from the database and says so; after that, from the cache.
pub fn outage(proof: &mut AppProof<'_>) -> Look {
    let first = proof.seen.first.clone().ok_or_else(|| see("app-cold"))?;
    // The restarts before this one broke every connection.
    proof.servers = Servers::new(proof.host, proof.subject.instances);
    let root = proof.root()?;
    let instance = match &root {
        Place::Ours(name) => proof.servers.instance(name),
        Place::Elsewhere { .. } => None,
    };
    let Some(instance) = instance else {
        return Err(Finding::skip(format!("the master, {root}, is no instance of this machine")));
    };
    if !restart::is_kept(&mut proof.servers, &root)? {
        return Err(Finding::skip(format!("{root} keeps nothing on disk: a stop would lose what it holds")));
    }
    let links = restart::links(&mut proof.servers, proof.subject.instances);
    let mut interrupted = false;
    let asked = restart::cycle(proof.host, &instance.target(), &mut interrupted, || proof.ask("outage"));
    proof.interrupted |= interrupted;
    proof.servers.forget(&root);
    let asked = asked?;
    // Interrupted, nobody waits for the app any more.
    let back = if interrupted { Ok(Duration::ZERO) } else { comes_back(proof) };
    restart::await_links(proof.host, &links)?;
    let found = judge(&asked?, proof.slow.unwrap_or(first.time), &proof.curl("outage"))?;
    let after = back?.as_secs_f64();
    Ok(Finding::pass(format!("{found} while {root} was away; 'cache' {after:.1} s after its start")))
}

/// Judges the answer without a cache.
fn judge(reply: &Reply, slow: Duration, curl: &str) -> Result<String, Finding> {
    let found = format!("{} after {}", word(&reply.source), ms(reply.time));
    let bad = |cause: &str| Err(Finding::fail(found.clone(), cause, curl));
    if !reply.is_read() {
        return bad("it cannot be from the cache: that was away");
    }
    if !reply.bypassed {
        return bad("it does not say that the cache was away ('cache unavailable', or X-Cache: BYPASS)");
    }
    match reply.time > slow + MORE {
        true => bad("it waits for the cache before it asks the database"),
        false => Ok(found),
    }
}

/// Asks until a value comes from the cache, and tells after how long.
fn comes_back(proof: &AppProof<'_>) -> Result<Duration, Finding> {
    let (began, mut last) = (proof.host.now(), None);
    let back = proof.host.poll(BACK, || {
        let reply = proof.ask("after");
        let cached = reply.as_ref().is_ok_and(Reply::is_cached);
        last = Some(reply);
        Ok(cached.then_some(()))
    });
    match (back, last) {
        (Ok(Some(())), _) => Ok(proof.host.now() - began),
        (_, Some(Err(finding))) => Err(finding),
        (_, last) => {
            let source = last.and_then(Result::ok).map(|reply| word(&reply.source)).unwrap_or_default();
            Err(Finding::fail(
                format!("still {source}, {} s after the master was started again", BACK.as_secs()),
                "it does not connect again by itself",
                proof.curl("after"),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_hides_the_outage_or_waits_for_its_end_fails() {
        let slow = Duration::from_millis(200);
        let passes = |source: &str, bypassed, ms| {
            let time = Duration::from_millis(ms);
            let reply = Reply { value: "K".into(), source: source.into(), bypassed, time };
            judge(&reply, slow, "curl").is_ok()
        };
        assert!(passes("database (slow, cache unavailable)", true, 1200));
        assert!(!passes("database (slow, cache unavailable)", true, 1201));
        assert!(!passes("database (slow)", false, 200) && !passes("cache", true, 200));
    }
}
