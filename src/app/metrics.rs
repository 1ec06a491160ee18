//! What the app counts, and the text that Prometheus reads it in. Counting is an addition or two.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How a request for a value ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The cache had it.
    Hit,
    /// It was read from the database and is in the cache now.
    Miss,
    /// Another request was reading it from the database already.
    Shared,
    /// It was read from the database, and the cache could not be used.
    Bypass,
    /// There is no answer but an error.
    Error,
}

impl Ended {
    const ALL: [Self; 5] = [Self::Hit, Self::Miss, Self::Shared, Self::Bypass, Self::Error];

    fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Shared => "shared",
            Self::Bypass => "bypass",
            Self::Error => "error",
        }
    }
}

/// The upper ends of the histogram's buckets, in microseconds, and as Prometheus reads them.
const BUCKETS: [(u64, &str); 14] = [
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
];

/// The requests that ended in one way.
#[derive(Debug, Default)]
struct Series {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
    /// How long the last one took, in microseconds.
    last: AtomicU64,
}

/// The counters.
#[derive(Debug, Default)]
pub struct Metrics {
    hit: Series,
    miss: Series,
    shared: Series,
    bypass: Series,
    error: Series,
    /// Reads of the database.
    pub slow_reads: AtomicU64,
    /// Operations on the cache that failed.
    pub cache_errors: AtomicU64,
    /// Times that another server became the master.
    pub master_changes: AtomicU64,
    /// Requests for a value that are under way.
    pub in_flight: AtomicU64,
}

/// A request that is under way until it is dropped, also by a client that went away.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a Metrics);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// Counts a request as under way.
    pub fn begin(&self) -> UnderWay<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        UnderWay(self)
    }

    /// Counts a request that ended.
    pub fn count(&self, ended: Ended, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let series = self.series(ended);
        let bucket = BUCKETS.iter().position(|(end, _)| micros <= *end);
        if let Some(bucket) = bucket.and_then(|at| series.buckets.get(at)) {
            bucket.fetch_add(1, Relaxed);
        }
        series.count.fetch_add(1, Relaxed);
        series.micros.fetch_add(micros, Relaxed);
        series.last.store(micros, Relaxed);
    }

    /// How many requests ended in this way.
    pub fn ended(&self, ended: Ended) -> u64 {
        self.series(ended).count.load(Relaxed)
    }

    /// How many milliseconds the last request took that ended in this way; none when there was none.
    pub fn last_ms(&self, ended: Ended) -> Option<f64> {
        let series = self.series(ended);
        (series.count.load(Relaxed) > 0).then(|| series.last.load(Relaxed) as f64 / 1e3)
    }

    fn series(&self, ended: Ended) -> &Series {
        match ended {
            Ended::Hit => &self.hit,
            Ended::Miss => &self.miss,
            Ended::Shared => &self.shared,
            Ended::Bypass => &self.bypass,
            Ended::Error => &self.error,
        }
    }

    /// The text for Prometheus; `up` says which servers answer, `memory` is in bytes.
    pub fn text(&self, up: &[(String, bool)], memory: Option<u64>) -> String {
        let mut text = String::with_capacity(8192);
        head(&mut text, "redis_tp_app_requests_total", "counter", "Requests for a value, by how they ended.");
        for ended in Ended::ALL {
            let count = self.ended(ended);
            line(&mut text, "redis_tp_app_requests_total", &format!("result=\"{}\"", ended.name()), count);
        }
        self.histogram(&mut text);
        for (name, kind, help, value) in [
            ("redis_tp_app_slow_reads_total", "counter", "Reads of the database.", &self.slow_reads),
            (
                "redis_tp_app_cache_errors_total",
                "counter",
                "Operations on the cache that failed.",
                &self.cache_errors,
            ),
            (
                "redis_tp_app_master_changes_total",
                "counter",
                "Times that another server became the master.",
                &self.master_changes,
            ),
            ("redis_tp_app_in_flight", "gauge", "Requests for a value under way.", &self.in_flight),
        ] {
            head(&mut text, name, kind, help);
            line(&mut text, name, "", value.load(Relaxed));
        }
        head(&mut text, "redis_tp_app_redis_up", "gauge", "Whether a Redis server answers.");
        for (node, up) in up {
            line(&mut text, "redis_tp_app_redis_up", &format!("node=\"{}\"", label(node)), u64::from(*up));
        }
        if let Some(memory) = memory {
            head(&mut text, "process_resident_memory_bytes", "gauge", "Resident memory.");
            line(&mut text, "process_resident_memory_bytes", "", memory);
        }
        head(&mut text, "redis_tp_app_build_info", "gauge", "The program.");
        let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
        line(&mut text, "redis_tp_app_build_info", &version, 1);
        text
    }

    fn histogram(&self, text: &mut String) {
        const NAME: &str = "redis_tp_app_request_seconds";
        head(text, NAME, "histogram", "How long requests for a value took, by how they ended.");
        for ended in Ended::ALL {
            let (series, result) = (self.series(ended), format!("result=\"{}\"", ended.name()));
            let mut sum = 0;
            for (bucket, (_, end)) in series.buckets.iter().zip(BUCKETS) {
                sum += bucket.load(Relaxed);
                line(text, &format!("{NAME}_bucket"), &format!("{result},le=\"{end}\""), sum);
            }
            // Counted a moment later than its bucket, perhaps: the last one is never below the others.
            let count = series.count.load(Relaxed).max(sum);
            line(text, &format!("{NAME}_bucket"), &format!("{result},le=\"+Inf\""), count);
            let seconds = series.micros.load(Relaxed) as f64 / 1e6;
            let _ = writeln!(text, "{NAME}_sum{{{result}}} {seconds}");
            line(text, &format!("{NAME}_count"), &result, count);
        }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        _ => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

/// A text as the value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_all_that_took_no_longer() {
        let metrics = Metrics::default();
        for micros in [100, 101, 20_000_000] {
            metrics.count(Ended::Hit, Duration::from_micros(micros));
        }
        let text = metrics.text(&[("a\"b".into(), true)], Some(4096));
        for line in [
            "redis_tp_app_requests_total{result=\"hit\"} 3",
            "redis_tp_app_request_seconds_bucket{result=\"hit\",le=\"0.0001\"} 1",
            "redis_tp_app_request_seconds_bucket{result=\"hit\",le=\"10\"} 2",
            "redis_tp_app_request_seconds_bucket{result=\"hit\",le=\"+Inf\"} 3",
            "redis_tp_app_request_seconds_sum{result=\"hit\"} 20.000201",
            "redis_tp_app_redis_up{node=\"a\\\"b\"} 1",
            "process_resident_memory_bytes 4096",
        ] {
            assert!(text.lines().any(|at| at == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_request_that_was_given_up_is_under_way_no_more() {
        let metrics = Metrics::default();
        drop(metrics.begin());
        assert_eq!(metrics.in_flight.load(Relaxed), 0);
    }
}
