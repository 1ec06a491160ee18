//! The herd: many ask at once for a key that nobody has asked for. All have to be answered; an app that
//! lets one of them read the database for all says so in its metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::{Look, ms};
use super::reply::{Reply, word};
use super::{AppProof, see};
use crate::finding::Finding;
use crate::http::{self, Answer, Url};

/// How many ask.
const HERD: usize = 100;
/// The metric that counts the reads of the database.
const METRIC: &str = "redis_tp_app_slow_reads_total";

pub fn did(proof: &AppProof<'_>) -> String {
    format!("{HERD} times at once {}, {METRIC} before and after", proof.question("herd"))
}

/// All are answered, with one value, and by one slow read.
pub fn herd(proof: &mut AppProof<'_>) -> Look {
    if proof.seen.first.is_none() {
        return Err(see("app-cold"));
    }
    let url = proof.url.clone()?;
    let before = slow_reads(proof, &url);
    let answers = http::together(proof.host, &url, &proof.path("herd"), HERD, proof.limit());
    let after = slow_reads(proof, &url);
    proof.curves.herd = answers.iter().flatten().map(|answer| answer.time).collect();
    let slowest = proof.curves.herd.iter().max().copied().unwrap_or_default();
    let reads = before.zip(after).map(|(before, after)| after.saturating_sub(before));
    let curl = proof.curl("herd");
    Ok(match judge(&answers, &proof.key("herd")) {
        Err((found, cause)) => Finding::fail(found, cause, curl),
        Ok(()) => count(slowest, reads, &curl),
    })
}

/// Judges the answers.
///
/// # Errors
/// What is wrong with them, and why that may be.
fn judge(answers: &[Result<Answer, http::Trouble>], key: &str) -> Result<(), (String, &'static str)> {
    let read = |answer: &Result<Answer, http::Trouble>| match answer {
        Ok(answer) => Reply::read(answer, key),
        Err(trouble) => Err(trouble.to_string()),
    };
    let replies: Vec<Result<Reply, String>> = answers.iter().map(read).collect();
    if let Some(Err(said)) = replies.iter().find(|reply| reply.is_err()) {
        let bad = replies.iter().filter(|reply| reply.is_err()).count();
        let found = format!("{bad} of {HERD} were not answered: {said}");
        return Err((found, "the app cannot stand so many at once"));
    }
    let values: BTreeSet<&str> = replies.iter().flatten().map(|reply| reply.value.as_str()).collect();
    if values.len() > 1 {
        let some: Vec<String> = values.iter().take(2).map(|value| word(value)).collect();
        let found = format!("{} values for one key: {}, …", values.len(), some.join(", "));
        return Err((found, "each request has read the database, which changes meanwhile"));
    }
    Ok(())
}

/// Judges how often the database was read for them.
fn count(slowest: Duration, reads: Option<u64>, curl: &str) -> Finding {
    let all = format!("{HERD} of {HERD} answered within {}", ms(slowest));
    match reads {
        Some(1) => Finding::pass(format!("{all}, with one slow read")),
        Some(0) => {
            Finding::fail(format!("{all}, with no slow read"), "its metric does not count, or lags", curl)
        }
        Some(reads) => Finding::fail(
            format!("{all}, with {reads} slow reads"),
            "those that come while the database is being read do not wait for that (or others asked, too)",
            curl,
        ),
        None => Finding::skip(format!("{all}; it does not tell with how many slow reads (no {METRIC})")),
    }
}

/// How often the app has read the database so far; none if it does not tell.
fn slow_reads(proof: &AppProof<'_>, url: &Url) -> Option<u64> {
    let answer = http::get(proof.host, url, "/metrics", super::PATIENCE).ok()?;
    (answer.status == 200).then(|| metric(&answer.text())).flatten()
}

/// The value of the metric in Prometheus's text.
fn metric(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(METRIC)?.strip_prefix(' '))?;
    let number: f64 = value.split_whitespace().next()?.parse().ok()?;
    (number >= 0.0).then_some(number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metric_is_found_among_others() {
        let text = format!("# HELP {METRIC} reads\n# TYPE {METRIC} counter\n{METRIC}_x 3\n{METRIC} 42\n");
        assert_eq!(metric(&text), Some(42));
        assert_eq!(metric(&format!("{METRIC} 1e3 1700000000\n")), Some(1000));
        assert_eq!(metric(&format!("# {METRIC} 1\n{METRIC} NaN\n")), None);
    }

    #[test]
    fn one_that_is_not_answered_or_answered_otherwise_is_told() {
        let answer = |status, value: &str| {
            let body = format!(r#"{{"key":"k","value":"{value}","source":"cache"}}"#).into_bytes();
            Ok(Answer { status, headers: Vec::new(), body, time: Duration::ZERO })
        };
        assert_eq!(judge(&[answer(200, "K"), answer(200, "K")], "k"), Ok(()));
        let said = |answers: &[_]| judge(answers, "k").unwrap_err().0;
        assert!(said(&[answer(200, "K"), answer(200, "L")]).contains("2 values"));
        assert!(
            said(&[answer(200, "K"), answer(503, "")]).contains("1 of 100 were not answered: it answers 503")
        );
        assert!(said(&[Err(http::Trouble::Refused)]).contains("nobody listens"));
    }

    #[test]
    fn more_than_one_slow_read_fails_and_none_told_is_skipped() {
        let of = |reads| count(Duration::ZERO, reads, "curl");
        assert!(matches!(of(Some(1)), Finding::Pass { .. }) && matches!(of(None), Finding::Skip { .. }));
        assert!([0, 2, 100].map(Some).map(of).iter().all(|of| matches!(of, Finding::Fail { .. })));
    }
}
