//! Pictures: one file each that needs no other, light or dark as the reader's screen is, with a title
//! and a description for those who do not see them. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::bench::{errors, heading, hits, marks, verdict};
use super::text::{bytes, grouped, precise};
use crate::bench::{Load, Report};

/// The width of a measurement's picture; of one in a page, which may be a telephone's; and the margin
/// at the sides.
const WIDE: f64 = 760.0;
const NARROW: f64 = 520.0;
const MARGIN: f64 = 24.0;
/// The height that a bar takes with its words, and the bar alone.
const ROW: f64 = 56.0;
const BAR: f64 = 16.0;
/// The height of a chart.
const CHART: f64 = 150.0;

/// Classes under one of our own, for a picture may stand within a page.
const STYLE: &str = "\
.rtp{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',sans-serif;font-variant-numeric:tabular-nums}\
.rtp .p{fill:#fff}.rtp text{fill:#1c2430;font-size:14px}.rtp .b{font-weight:600}.rtp .h{font-size:20px;font-weight:600}\
.rtp .f{fill:#566270;font-size:12px}.rtp .v{font-size:17px;font-weight:600}\
.rtp .track{fill:#eef1f4}.rtp .cold{fill:#1d53aa}.rtp .warm{fill:#b5380f}.rtp .count{fill:#64748b}\
.rtp .axis{stroke:#9aa5b1;stroke-width:1}.rtp .mark{stroke:#566270;stroke-width:1;stroke-dasharray:3 3}\
.rtp .line{fill:none;stroke:#b5380f;stroke-width:2}\
@media (prefers-color-scheme:dark){.rtp .p{fill:#14181d}.rtp text{fill:#e6e9ed}.rtp .f{fill:#a3aeb9}\
.rtp .track{fill:#232a32}.rtp .cold{fill:#8ab4ff}.rtp .warm{fill:#ff925f}.rtp .count{fill:#94a3b8}\
.rtp .axis{stroke:#5b6672}.rtp .mark{stroke:#a3aeb9}.rtp .line{stroke:#ff925f}}";

/// What a bar stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// An answer from the database.
    Cold,
    /// An answer from the cache.
    Warm,
}

/// A bar with its words.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What was timed.
    pub label: String,
    /// More about it, of less weight.
    pub note: String,
    /// How long it took.
    pub time: Duration,
    /// Its colour.
    pub tone: Tone,
}

/// Times as bars on one scale, the longest as wide as the picture.
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let words: Vec<String> = bars.iter().map(|bar| format!("{} {}", bar.label, precise(bar.time))).collect();
    let mut sheet = Sheet::new(title, NARROW);
    sheet.bars(bars);
    sheet.finish(title, &words.join(", "))
}

/// A lifetime as it runs out: how much is left (none: the key is gone) at a time since the key was set.
pub fn countdown(title: &str, ttl: Duration, points: &[(Duration, Option<Duration>)]) -> String {
    let mut sheet = Sheet::new(title, NARROW);
    sheet.countdown(ttl.as_secs_f64(), points);
    let gone = points.iter().find(|(_, left)| left.is_none());
    let end = match gone {
        Some((at, _)) => format!("gone when looked at {} after it was set", precise(*at)),
        None => "never seen gone".into(),
    };
    sheet.finish(title, &format!("A lifetime of {}, looked at {} times; {end}.", precise(ttl), points.len()))
}

/// A measurement: cold and warm as bars, the load as a histogram, and the figures.
pub fn bench(report: &Report) -> String {
    let title = format!("Cold against warm: {}", verdict(report));
    let load = &report.load;
    let mut sheet = Sheet::new(&title, WIDE);
    sheet.faint(&report.url);
    sheet.bars(&[
        Bar {
            label: "cold".into(),
            note: format!("from the {}", report.cold_source),
            time: report.cold,
            tone: Tone::Cold,
        },
        Bar {
            label: "warm".into(),
            note: format!("from the {}", report.warm_source),
            time: report.warm,
            tone: Tone::Warm,
        },
    ]);
    sheet.y += 12.0;
    sheet.faint(&heading(load));
    sheet.histogram(load);
    sheet.figures(&[
        ("requests a second", grouped(load.requests_per_second.round() as u64)),
        ("p50", precise(load.p50)),
        ("p99", precise(load.p99)),
        ("max", precise(load.max)),
        ("from the cache", hits(load)),
        ("errors", if load.errors == 0 { "none".into() } else { grouped(load.errors) }),
    ]);
    let description = format!(
        "{}: cold {}, warm {}. Under load {} requests a second, p50 {}, p95 {}, p99 {}, max {}, {} from the cache, errors: {}, {} of answers.",
        report.url,
        precise(report.cold),
        precise(report.warm),
        grouped(load.requests_per_second.round() as u64),
        precise(load.p50),
        precise(load.p95),
        precise(load.p99),
        precise(load.max),
        hits(load),
        errors(load),
        bytes(load.bytes),
    );
    sheet.finish(&title, &description)
}

/// A picture that grows downwards.
struct Sheet {
    body: String,
    width: f64,
    y: f64,
}

impl Sheet {
    fn new(title: &str, width: f64) -> Self {
        let mut sheet = Self { body: String::new(), width, y: 38.0 };
        sheet.text(MARGIN, 0.0, "h", title);
        sheet
    }

    /// Where the right margin begins.
    fn right(&self) -> f64 {
        self.width - MARGIN
    }

    /// What is between the margins.
    fn inner(&self) -> f64 {
        self.width - 2.0 * MARGIN
    }

    /// A text whose line is `below` the present height.
    fn text(&mut self, x: f64, below: f64, class: &str, text: &str) {
        let y = self.y + below;
        let _ = write!(self.body, r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{}</text>"#, escape(text));
    }

    /// The same, with its middle or its end at `x`.
    fn anchored(&mut self, x: f64, below: f64, anchor: &str, class: &str, text: &str) {
        let (y, text) = (self.y + below, escape(text));
        let _ = write!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{text}</text>"#
        );
    }

    fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str) {
        let _ = write!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2" class="{class}"/>"#
        );
    }

    fn stroke(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        );
    }

    fn faint(&mut self, text: &str) {
        self.y += 22.0;
        self.text(MARGIN, 0.0, "f", text);
    }

    fn bars(&mut self, bars: &[Bar]) {
        let longest = bars.iter().map(|bar| bar.time).max().unwrap_or_default().as_secs_f64().max(1e-9);
        for bar in bars {
            self.y += ROW;
            let (label, note) = (escape(&bar.label), escape(&bar.note));
            let _ = write!(
                self.body,
                r#"<text x="{MARGIN}" y="{:.1}"><tspan class="b">{label}</tspan><tspan dx="10" class="f">{note}</tspan></text>"#,
                self.y - 24.0
            );
            self.anchored(self.right(), -24.0, "end", "b", &precise(bar.time));
            self.rect(MARGIN, self.y - BAR, self.inner(), BAR, "track");
            let width = (bar.time.as_secs_f64() / longest * self.inner()).max(1.5);
            let class = match bar.tone {
                Tone::Cold => "cold",
                Tone::Warm => "warm",
            };
            self.rect(MARGIN, self.y - BAR, width, BAR, class);
        }
    }

    fn histogram(&mut self, load: &Load) {
        let rows = &load.histogram;
        let most = rows.iter().map(|row| row.count).max().unwrap_or(0).max(1) as f64;
        let step = self.inner() / rows.len().max(1) as f64;
        // The names of the percentiles stand above the bars, one below the other where they would touch.
        let base = self.y + 64.0 + CHART;
        let mut free = [f64::MIN; 5];
        for (index, row) in rows.iter().enumerate() {
            let left = MARGIN + step * index as f64;
            let height = match row.count {
                0 => 0.0,
                count => (count as f64 / most * CHART).max(1.5),
            };
            self.rect(left + 1.0, base - height, step - 2.0, height, "count");
            for name in marks(load, row, index + 1 == rows.len()) {
                let x = left + step / 2.0;
                let place = free.iter().position(|end| *end < x - 2.0).unwrap_or(0);
                if let Some(end) = free.get_mut(place) {
                    *end = x + 30.0;
                }
                let top = base - CHART - 8.0 - 12.0 * place as f64;
                if place == 0 {
                    self.stroke((x, top + 3.0), (x, base - height), "mark");
                }
                self.anchored(x, top - self.y, "middle", "f", name);
            }
        }
        self.stroke((MARGIN, base), (self.right(), base), "axis");
        self.ticks(load, base, step);
        self.y = base + 34.0;
        self.anchored(self.right(), 0.0, "end", "f", "milliseconds, on a logarithmic scale");
    }

    /// Where the buckets begin, and where the last one ends.
    fn ticks(&mut self, load: &Load, base: f64, step: f64) {
        let below = base + 15.0 - self.y;
        let edges = load.histogram.iter().map(|row| row.from).chain(load.histogram.last().map(|row| row.to));
        for (index, edge) in edges.enumerate() {
            let milliseconds = (edge.as_secs_f64() * 1e6).round() / 1e3;
            self.anchored(MARGIN + step * index as f64, below, "middle", "f", &milliseconds.to_string());
        }
    }

    fn figures(&mut self, figures: &[(&str, String)]) {
        let step = self.inner() / figures.len().max(1) as f64;
        self.y += 34.0;
        for (index, (name, value)) in figures.iter().enumerate() {
            let x = MARGIN + step * index as f64;
            self.text(x, 0.0, "f", name);
            self.text(x, 22.0, "v", value);
        }
        self.y += 22.0;
    }

    fn countdown(&mut self, ttl: f64, points: &[(Duration, Option<Duration>)]) {
        let (left, right, top) = (MARGIN + 44.0, self.right(), self.y + 28.0);
        let (base, last) = (top + CHART, points.iter().map(|(at, _)| at.as_secs_f64()).fold(ttl, f64::max));
        let x = |seconds: f64| left + seconds / last.max(1e-9) * (right - left);
        let y = |seconds: f64| base - (seconds / ttl.max(1e-9)).clamp(0.0, 1.1) * CHART;
        self.stroke((left, base), (right, base), "axis");
        self.stroke((left, top), (left, base), "axis");
        self.stroke((x(0.0), y(ttl)), (x(ttl), base), "mark");
        let alive: Vec<String> = points
            .iter()
            .filter_map(|(at, rest)| rest.map(|rest| (at.as_secs_f64(), rest.as_secs_f64())))
            .map(|(at, rest)| format!("{:.1},{:.1}", x(at), y(rest)))
            .collect();
        let _ = write!(self.body, r#"<polyline points="{}" class="line"/>"#, alive.join(" "));
        for (at, rest) in points {
            let (at, class) = (at.as_secs_f64(), if rest.is_some() { "warm" } else { "cold" });
            let height = y(rest.unwrap_or_default().as_secs_f64());
            let _ =
                write!(self.body, r#"<circle cx="{:.1}" cy="{height:.1}" r="4" class="{class}"/>"#, x(at));
        }
        if let Some((at, _)) = points.iter().find(|(_, rest)| rest.is_none()) {
            self.anchored(x(at.as_secs_f64()), base - 42.0 - self.y, "end", "b", "gone (-2)");
        }
        for part in [0.0, 0.5, 1.0] {
            let words = seconds(ttl * part);
            self.anchored(left - 6.0, y(ttl * part) + 4.0 - self.y, "end", "f", &words);
            self.anchored(x(ttl * part), base + 16.0 - self.y, "middle", "f", &words);
        }
        self.y = base + 36.0;
        self.anchored(right, 0.0, "end", "f", "time left, over the time since the key was set");
    }

    fn finish(self, title: &str, description: &str) -> String {
        let (width, height) = (self.width, (self.y + 24.0).ceil());
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"rtp\" role=\"img\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\"><title>{}</title><desc>{}</desc><style>{STYLE}</style>\
             <rect class=\"p\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>{}</svg>\n",
            escape(title),
            escape(description),
            self.body
        )
    }
}

fn seconds(seconds: f64) -> String {
    format!("{} s", (seconds * 100.0).round() / 100.0)
}

/// Text as XML has it; what no XML may hold is left out.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::bench::tests::sample;
    use super::*;

    /// Every element that is opened is closed, in order, and no text holds a bare `<` or `&`.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for piece in svg.trim().split('<').skip(1) {
            let (tag, text) = piece.split_once('>').expect(piece);
            assert!(tag.matches('"').count() % 2 == 0, "{tag}");
            let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap();
            match (tag.starts_with('/'), tag.ends_with('/')) {
                (true, _) => assert_eq!(open.pop(), Some(name), "{tag}"),
                (_, true) => {}
                _ => open.push(name),
            }
            for entity in text.split('&').skip(1) {
                let known = ["lt;", "gt;", "amp;", "quot;", "#39;"];
                assert!(known.iter().any(|name| entity.starts_with(name)), "{text}");
            }
        }
        assert_eq!(open, Vec::<&str>::new());
        assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
    }

    #[test]
    fn a_picture_is_well_formed_and_asks_for_nothing_else() {
        let mut odd = sample();
        odd.cold_source = "a<b>&\"'\x1b\u{ffff}".into();
        odd.load.histogram.clear();
        for report in [sample(), odd] {
            let svg = bench(&report);
            assert_well_formed(&svg);
            let without = svg.replace("http://www.w3.org/2000/svg", "").replace(&report.url, "");
            assert!(!without.contains("http") && !without.contains("href") && !without.contains("url("));
        }
    }

    #[test]
    fn those_who_do_not_see_it_are_told_the_figures() {
        let svg = bench(&sample());
        assert!(svg.contains("<title>Cold against warm: 4 862 times faster from the cache</title>"), "{svg}");
        assert!(svg.contains("<desc>") && svg.contains("p99 1.50 ms"), "{svg}");
    }

    #[test]
    fn a_lifetime_runs_down_to_gone() {
        let at = Duration::from_millis;
        let points = [(at(1), Some(at(999))), (at(500), Some(at(500))), (at(1005), None)];
        let svg = countdown("<TTL>", at(1000), &points);
        assert_well_formed(&svg);
        assert!(svg.contains("gone (-2)") && svg.contains("&lt;TTL&gt;"), "{svg}");
        assert_well_formed(&countdown("", at(0), &[]));
    }

    #[test]
    fn a_bar_of_nothing_is_drawn_too() {
        let bar = |time| Bar { label: "a".into(), note: String::new(), time, tone: Tone::Warm };
        assert_well_formed(&bars("t", &[bar(Duration::ZERO), bar(Duration::ZERO)]));
        assert_well_formed(&bars("t", &[]));
    }
}
