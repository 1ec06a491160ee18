//! What came of a load, counted as it goes, and summed up in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Pace, contract};
use crate::finding::milliseconds;
use crate::http::{Answer, Trouble};

/// The longest latency that is told from a longer one: an hour, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;
/// How many rows a histogram may have.
const ROWS: usize = 16;
/// Where buckets begin, as tenths of a power of ten: the first that needs no more than [`ROWS`].
const SERIES: [&[u64]; 4] =
    [&[10, 12, 15, 20, 25, 30, 40, 50, 60, 80], &[10, 15, 20, 30, 50, 70], &[10, 20, 50], &[10]];

/// What came of a load.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// How the requests followed one another.
    #[serde(flatten)]
    pub pace: Pace,
    /// How many keys were asked for.
    pub keys: u16,
    /// How long it lasted.
    pub seconds: f64,
    /// Whether it was ended before its time.
    pub interrupted: bool,
    /// Requests that were answered by the contract.
    pub requests: u64,
    /// Those that were answered before the end, by the second.
    pub requests_per_second: f64,
    /// Answers from the cache.
    pub hits: u64,
    /// Their share; none where nothing was answered.
    pub hit_ratio: Option<f64>,
    /// Requests without an answer by the contract.
    pub errors: u64,
    /// The same by kind: `refused`, `timeout`, `broken`, `contract`, `unsent`, `http_503` and the like.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// Bytes of all bodies.
    pub bytes: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// The shortest latency.
    #[serde(rename = "min_ms", serialize_with = "milliseconds")]
    pub min: Duration,
    /// The mean.
    #[serde(rename = "mean_ms", serialize_with = "milliseconds")]
    pub mean: Duration,
    /// The median.
    #[serde(rename = "p50_ms", serialize_with = "milliseconds")]
    pub p50: Duration,
    /// Nine of ten are no longer.
    #[serde(rename = "p90_ms", serialize_with = "milliseconds")]
    pub p90: Duration,
    /// Nineteen of twenty are no longer.
    #[serde(rename = "p95_ms", serialize_with = "milliseconds")]
    pub p95: Duration,
    /// 99 of a hundred are no longer.
    #[serde(rename = "p99_ms", serialize_with = "milliseconds")]
    pub p99: Duration,
    /// The longest.
    #[serde(rename = "max_ms", serialize_with = "milliseconds")]
    pub max: Duration,
    /// How many took how long.
    pub histogram: Vec<Bucket>,
}

/// A row of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// From here on,
    #[serde(rename = "from_ms", serialize_with = "milliseconds")]
    pub from: Duration,
    /// and shorter than this:
    #[serde(rename = "to_ms", serialize_with = "milliseconds")]
    pub to: Duration,
    /// so many.
    pub count: u64,
}

/// The count as it goes.
#[derive(Debug)]
pub struct Tally {
    latencies: Histogram<u64>,
    answered: u64,
    in_time: u64,
    hits: u64,
    bytes: u64,
    errors: BTreeMap<String, u64>,
    /// Connections that were opened.
    pub connections: u64,
}

impl Tally {
    /// Nothing counted yet.
    ///
    /// # Errors
    /// None that can happen: the bounds are fixed.
    pub fn new() -> Result<Self> {
        let latencies = Histogram::new_with_bounds(1000, LONGEST, 3).context("cannot count latencies")?;
        Ok(Self {
            latencies,
            answered: 0,
            in_time: 0,
            hits: 0,
            bytes: 0,
            errors: BTreeMap::new(),
            connections: 0,
        })
    }

    /// Counts what became of a request. A latency is counted of every one that was answered, and of one
    /// that was given up: to leave these out would make a slow app look fast.
    pub fn count(&mut self, outcome: &Result<Answer, Trouble>, latency: Duration, in_time: bool) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LONGEST);
        if matches!(outcome, Ok(_) | Err(Trouble::TimedOut)) {
            self.latencies.saturating_record(nanoseconds);
        }
        let answer = match outcome {
            Ok(answer) => answer,
            Err(Trouble::Refused) => return self.miss("refused", 1),
            Err(Trouble::TimedOut) => return self.miss("timeout", 1),
            Err(Trouble::Other(_)) => return self.miss("broken", 1),
        };
        self.bytes += answer.body.len() as u64;
        match (answer.status, contract::is_hit(&answer.body)) {
            (200, Some(hit)) => {
                self.answered += 1;
                self.in_time += u64::from(in_time);
                self.hits += u64::from(hit);
            }
            (200, None) => self.miss("contract", 1),
            (status, _) => self.miss(&format!("http_{status}"), 1),
        }
    }

    /// Counts requests that got no answer by the contract.
    pub fn miss(&mut self, kind: &str, count: u64) {
        *self.errors.entry(kind.to_owned()).or_default() += count;
    }

    /// The sum after `seconds`.
    pub fn sum(self, pace: Pace, keys: u16, seconds: f64, interrupted: bool) -> Load {
        let at = |quantile| Duration::from_nanos(self.latencies.value_at_quantile(quantile));
        let share = self.hits as f64 / self.answered as f64;
        Load {
            pace,
            keys,
            seconds: round(seconds, 1e3),
            interrupted,
            requests: self.answered,
            requests_per_second: round(self.in_time as f64 / seconds.max(1e-9), 10.0),
            hits: self.hits,
            hit_ratio: (self.answered > 0).then(|| round(share, 1e4)),
            errors: self.errors.values().sum(),
            bytes: self.bytes,
            connections: self.connections,
            min: Duration::from_nanos(self.latencies.min()),
            mean: Duration::from_nanos(self.latencies.mean() as u64),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            max: Duration::from_nanos(self.latencies.max()),
            histogram: buckets(&self.latencies),
            errors_by_kind: self.errors,
        }
    }
}

fn round(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

/// The latencies in buckets that grow evenly on a logarithmic scale.
fn buckets(latencies: &Histogram<u64>) -> Vec<Bucket> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let (low, high) = (latencies.min().max(10), latencies.max().max(10));
    let all = SERIES.map(|series| edges(series, low, high));
    let fits = |edges: &&Vec<u64>| edges.len() <= ROWS + 1;
    let Some(edges) = all.iter().find(fits).or(all.last()) else { return Vec::new() };
    let mut rows: Vec<Bucket> = edges
        .windows(2)
        .filter_map(|pair| match pair {
            [from, to] => {
                Some(Bucket { from: Duration::from_nanos(*from), to: Duration::from_nanos(*to), count: 0 })
            }
            _ => None,
        })
        .collect();
    for step in latencies.iter_recorded() {
        let value = Duration::from_nanos(step.value_iterated_to());
        if let Some(row) = rows.iter_mut().find(|row| value < row.to) {
            row.count += step.count_since_last_iteration();
        }
    }
    rows
}

/// The edges from the last one that is not above `low` to the first that is above `high`.
fn edges(series: &[u64], low: u64, high: u64) -> Vec<u64> {
    let powers = std::iter::successors(Some(1_u64), |power| power.checked_mul(10));
    let all: Vec<u64> =
        powers.take(16).flat_map(|power| series.iter().map(move |tenths| tenths * power)).collect();
    let from = all.iter().rposition(|edge| *edge <= low).unwrap_or(0);
    let to = all.iter().position(|edge| *edge > high).unwrap_or(all.len());
    all.get(from..=to).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(source: &str) -> Result<Answer, Trouble> {
        let body = format!("{{\"key\":\"a\",\"value\":\"A\",\"source\":\"{source}\"}}").into_bytes();
        Ok(Answer { status: 200, headers: Vec::new(), body, time: Duration::ZERO })
    }

    fn load(tally: Tally) -> Load {
        tally.sum(Pace::Closed { concurrency: 1 }, 1, 2.0, false)
    }

    #[test]
    fn percentiles_are_those_of_the_latencies() {
        let mut tally = Tally::new().unwrap();
        for milliseconds in 1..=100 {
            tally.count(&answer("cache"), Duration::from_millis(milliseconds), true);
        }
        let load = load(tally);
        let near = |time: Duration, ms: f64| (time.as_secs_f64() * 1e3 / ms - 1.0).abs() < 0.002;
        assert!(near(load.p50, 50.0) && near(load.p90, 90.0) && near(load.p99, 99.0), "{load:?}");
        assert!(near(load.min, 1.0) && near(load.max, 100.0) && near(load.mean, 50.5), "{load:?}");
        assert_eq!((load.requests, load.requests_per_second), (100, 50.0));
        assert_eq!(load.histogram.iter().map(|row| row.count).sum::<u64>(), 100);
    }

    #[test]
    fn an_error_is_no_hit_and_a_timeout_no_short_latency() {
        let mut tally = Tally::new().unwrap();
        tally.count(&answer("cache"), Duration::from_millis(1), true);
        tally.count(&answer("database (slow)"), Duration::from_millis(1), false);
        tally.count(&Err(Trouble::TimedOut), Duration::from_secs(10), true);
        tally.count(&Err(Trouble::Refused), Duration::ZERO, true);
        let busy = Answer { status: 503, ..answer("cache").unwrap() };
        tally.count(&Ok(busy), Duration::from_millis(1), true);
        let page = Answer { body: b"<html>".to_vec(), ..answer("cache").unwrap() };
        tally.count(&Ok(page), Duration::from_millis(1), true);
        let load = load(tally);
        assert_eq!((load.requests, load.hits, load.hit_ratio), (2, 1, Some(0.5)));
        assert_eq!((load.requests_per_second, load.errors), (0.5, 4));
        let kinds: Vec<&str> = load.errors_by_kind.keys().map(String::as_str).collect();
        assert_eq!(kinds, ["contract", "http_503", "refused", "timeout"]);
        assert!(load.max >= Duration::from_secs(10));
    }

    #[test]
    fn a_histogram_covers_everything_in_a_few_rows() {
        for (low, high) in
            [(50_000, 60_000), (90_000, 40_000_000), (1000, LONGEST - 1), (1_000_000, 1_000_000)]
        {
            let mut latencies = Histogram::new_with_bounds(1000, LONGEST, 3).unwrap();
            latencies.record(low).unwrap();
            latencies.record(high).unwrap();
            let rows = buckets(&latencies);
            assert!((1..=ROWS).contains(&rows.len()), "{low} to {high}: {rows:?}");
            assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 2, "{low} to {high}: {rows:?}");
            assert!(rows.windows(2).all(|pair| pair[0].to == pair[1].from));
        }
        assert_eq!(load(Tally::new().unwrap()).histogram, []);
    }
}
