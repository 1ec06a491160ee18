//! A measurement on a terminal, and as Markdown for a README.

use std::fmt::Write as _;
use std::time::Duration;

use super::console::{BAD, FAINT, GOOD, NOTE, TYPE, styled};
use super::text::{WIDTH, bar, bytes, columns, edge, grouped, precise, times, wrap};
use crate::bench::{Bucket, Load, Pace, Report};

/// The columns of a bucket's edge, of its count, and of the percentiles beside it.
const EDGE: usize = 10;
const COUNT: usize = 9;
const MARKS: usize = 20;

/// All of it, at most 80 columns wide.
pub fn terminal(report: &Report) -> String {
    let room = (WIDTH - 2).saturating_sub(columns(&report.url));
    let server: String = line(report.server.as_deref().unwrap_or_default()).chars().take(room).collect();
    let mut text = styled(TYPE, &report.url);
    if !server.is_empty() {
        let _ = write!(text, "  {}", styled(FAINT, server));
    }
    text.push_str("\n\n");
    for (name, style, time, source) in
        [("cold", NOTE, report.cold, &report.cold_source), ("warm", GOOD, report.warm, &report.warm_source)]
    {
        let room = WIDTH - 28;
        let bar = bar(time.as_secs_f64() / report.cold.max(report.warm).as_secs_f64(), room);
        let pad = " ".repeat(room - columns(&bar));
        let _ = writeln!(text, "{name}  {}{pad}  {:>9}", styled(style, bar), precise(time));
        let _ = writeln!(text, "      {}", styled(FAINT, format_args!("from the {}", line(source))));
    }
    let _ = writeln!(text, "\n      {}\n", styled(TYPE, verdict(report)));
    let load = &report.load;
    let _ = writeln!(text, "{}", heading(load));
    text.push_str(&histogram(load, true));
    let _ = writeln!(text, "\n{}", figures(load));
    text
}

/// What the two times come to.
pub fn verdict(report: &Report) -> String {
    match report.factor {
        factor if factor >= 1.05 => format!("{} times faster from the cache", times(factor)),
        _ => "no faster from the cache".into(),
    }
}

/// What the load was.
pub fn heading(load: &Load) -> String {
    let many = |count: u16, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let pace = match load.pace {
        Pace::Closed { concurrency } => {
            format!("{}, each asks when answered", many(concurrency, "connection"))
        }
        Pace::Open { rate, .. } => format!("{} requests a second, sent on time", grouped(rate.into())),
    };
    let ended = if load.interrupted { ", interrupted" } else { "" };
    format!("load  {:.1} s, {}, {pace}{ended}", load.seconds, many(load.keys, "key"))
}

/// A row for each bucket: where it begins, how many, a bar, and the percentiles that fall into it.
fn histogram(load: &Load, colour: bool) -> String {
    let most = load.histogram.iter().map(|row| row.count).max().unwrap_or(0);
    let room = WIDTH - EDGE - COUNT - MARKS - 4;
    let mut text = String::new();
    if most > 0 {
        let head = format!("{:>EDGE$}  {:>COUNT$}", "from", "answers");
        let _ = writeln!(text, "{}", if colour { styled(FAINT, head) } else { head });
    }
    for (index, row) in load.histogram.iter().enumerate() {
        let last = index + 1 == load.histogram.len();
        let drawn = bar(row.count as f64 / most as f64, room);
        let marks = marks(load, row, last).join(" ");
        let pad = room - columns(&drawn);
        let (from, count) = (edge(row.from), grouped(row.count));
        let drawn = if colour && !drawn.is_empty() { styled(GOOD, drawn) } else { drawn };
        let beside = match (marks.is_empty(), colour) {
            (true, _) => String::new(),
            (false, true) => format!("{:pad$}  {}", "", styled(FAINT, marks)),
            (false, false) => format!("{:pad$}  {marks}", ""),
        };
        let shown = format!("{from:>EDGE$}  {count:>COUNT$}  {drawn}{beside}");
        let _ = writeln!(text, "{}", shown.trim_end());
    }
    text
}

/// The percentiles that fall into a bucket.
pub fn marks(load: &Load, row: &Bucket, last: bool) -> Vec<&'static str> {
    let inside = |time: Duration| row.from <= time && (time < row.to || last);
    let all = [("p50", load.p50), ("p90", load.p90), ("p95", load.p95), ("p99", load.p99), ("max", load.max)];
    all.into_iter().filter(|(_, time)| inside(*time)).map(|(name, _)| name).collect()
}

fn figures(load: &Load) -> String {
    let line = |name: &str, what: String| format!("{}{what}\n", styled(FAINT, format_args!("{name:<12}")));
    let mut text = String::new();
    if load.requests > 0 {
        let times =
            [("p50", load.p50), ("p90", load.p90), ("p95", load.p95), ("p99", load.p99), ("max", load.max)];
        let shown = times.map(|(name, time)| format!("{} {}", styled(FAINT, name), precise(time)));
        text.push_str(&line("latency", shown.join("  ")));
    }
    let rate = grouped(load.requests_per_second.round() as u64);
    text.push_str(&line(
        "requests",
        format!("{} a second, {} in all", styled(TYPE, rate), grouped(load.requests)),
    ));
    text.push_str(&line("from cache", hits(load)));
    let errors = match load.errors {
        0 => "none".into(),
        _ => styled(BAD, wrap(&errors(load), WIDTH - 12).join("\n            ")),
    };
    text.push_str(&line("errors", errors));
    let connections = match load.connections {
        1 => "1 connection".into(),
        count => format!("{} connections", grouped(count)),
    };
    text.push_str(&line("traffic", format!("{} of answers over {connections}", bytes(load.bytes))));
    text.trim_end().to_owned()
}

/// The share of answers from the cache: never 100 % when one was not.
pub fn hits(load: &Load) -> String {
    match load.hit_ratio {
        None => "nothing was answered".into(),
        Some(_) if load.hits == load.requests => "100 %".into(),
        Some(ratio) => format!("{:.2} %", (ratio * 100.0).min(99.99)),
    }
}

/// How many requests got no answer, and why.
pub fn errors(load: &Load) -> String {
    let words = |kind: &str| match kind {
        "refused" => "nobody listened".to_owned(),
        "timeout" => "not in time".to_owned(),
        "broken" => "hung up".to_owned(),
        "contract" => "not by the contract".to_owned(),
        "unsent" => "not sent, too many were under way".to_owned(),
        kind => kind.replace("http_", "status "),
    };
    let kinds = load.errors_by_kind.iter();
    let kinds: Vec<String> =
        kinds.map(|(kind, count)| format!("{} {}", grouped(*count), words(kind))).collect();
    match load.errors {
        0 => "none".into(),
        _ => kinds.join(", "),
    }
}

/// As Markdown: a table, and the histogram as it stands on a terminal.
pub fn markdown(report: &Report) -> String {
    let load = &report.load;
    let mut text = String::from("| | time | from |\n|---|---:|---|\n");
    for (name, time, source) in
        [("cold", report.cold, &report.cold_source), ("warm", report.warm, &report.warm_source)]
    {
        let _ = writeln!(text, "| {name} | {} | {} |", precise(time), cell(source));
    }
    let _ = writeln!(text, "| | **{}×** | |\n", times(report.factor));
    let _ = writeln!(text, "| under load | |\n|---|---:|");
    let rows = [
        ("requests a second", grouped(load.requests_per_second.round() as u64)),
        ("p50", precise(load.p50)),
        ("p90", precise(load.p90)),
        ("p95", precise(load.p95)),
        ("p99", precise(load.p99)),
        ("max", precise(load.max)),
        ("from the cache", hits(load)),
        ("errors", errors(load)),
    ];
    for (name, value) in rows {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    let _ = write!(text, "\n```text\n{}\n{}```\n", heading(load), histogram(load, false));
    text
}

/// Another server's words, which stay in their cell and are no markup.
fn cell(text: &str) -> String {
    line(text).replace('&', "&amp;").replace('<', "&lt;").replace('|', "\\|")
}

/// Another server's words on one line, without what would move the cursor.
fn line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(50).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A measurement with figures of all sizes, for the reports' tests.
    pub(crate) fn sample() -> Report {
        let row = |from, to, count| Bucket {
            from: Duration::from_micros(from),
            to: Duration::from_micros(to),
            count,
        };
        let us = Duration::from_micros;
        Report {
            schema: 1,
            command: "bench",
            url: "http://127.0.0.1:5000".into(),
            server: Some("<lab> & \"co\"".into()),
            key: "redis-tp-bench-0-0".into(),
            cold: us(2_003_100),
            cold_source: "database (slow)".into(),
            warm: us(412),
            warm_source: "cache".into(),
            factor: 4861.9,
            load: Load {
                pace: Pace::Closed { concurrency: 16 },
                keys: 16,
                seconds: 5.0,
                interrupted: false,
                requests: 123_456,
                requests_per_second: 24_691.2,
                hits: 123_455,
                hit_ratio: Some(1.0),
                errors: 3,
                errors_by_kind: [("timeout".to_owned(), 1), ("http_503".to_owned(), 2)].into(),
                bytes: 9_876_543,
                connections: 16,
                min: us(150),
                mean: us(420),
                p50: us(400),
                p90: us(700),
                p95: us(800),
                p99: us(1500),
                max: us(12_000),
                histogram: vec![
                    row(100, 200, 456),
                    row(200, 500, 100_000),
                    row(500, 1000, 22_000),
                    row(1000, 2000, 1_000),
                    row(2000, 5000, 0),
                    row(5000, 10_000, 0),
                    row(10_000, 20_000, 1),
                ],
            },
        }
    }

    #[test]
    fn a_terminal_of_80_columns_holds_it_whatever_the_server_calls_itself() {
        let mut report = sample();
        report.server = Some("x\x1b[2J\n".repeat(30));
        let text = anstream::adapter::strip_str(&terminal(&report)).to_string();
        assert!(text.lines().all(|line| columns(line) <= WIDTH && line.trim_end() == line), "{text}");
        for words in
            ["4 862 times faster", "24 691 a second", "99.99 %", "p90 p95", "2 status 503, 1 not in time"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("[2J\n"), "{text}");
    }

    #[test]
    fn markdown_has_all_figures_and_no_colour() {
        let text = markdown(&Report { cold_source: "a|b<c>".into(), ..sample() });
        assert!(text.contains("| cold | 2.00 s | a\\|b&lt;c> |"), "{text}");
        assert!(text.contains("| requests a second | 24 691 |") && text.contains("| **4 862×** |"), "{text}");
        assert!(!text.contains('\x1b') && text.lines().all(|line| line.trim_end() == line), "{text}");
    }
}
