//! Findings as one page that needs no other file: for eyes, for paper, and with the findings as JSON
//! in it for programs.

use anyhow::{Context as _, Result};
use serde::Serialize;
use tera::{Context, Tera};

use super::text::took;
use crate::finding::{Check, Finding, Findings};
use crate::moment::utc;

const PAGE: &str = include_str!("../../templates/report.html");

/// A picture for the page.
#[derive(Clone, Debug, Serialize)]
pub struct Picture {
    /// What it shows.
    pub title: String,
    /// An `<svg>` element of `svg.rs`: it goes into the page as it is.
    pub svg: String,
}

/// The checks of one subject.
#[derive(Serialize)]
struct Group<'a> {
    subject: &'a str,
    bad: usize,
    checks: Vec<Row<'a>>,
}

/// A check as the page shows it.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    /// `pass`, `fail`, `skip` or `unknown`: the class.
    result: &'static str,
    /// The same as a word.
    word: &'static str,
    mark: &'static str,
    did: &'a str,
    found: &'a str,
    cause: &'a str,
    cure: &'a str,
    time: String,
}

/// The page. `when` is when the findings were made, in seconds since 1970.
///
/// # Errors
/// None that can happen: the template is tested.
pub fn page(findings: &Findings, pictures: &[Picture], when: u64) -> Result<String> {
    let (passed, bad, skipped) = findings.count();
    let could_not = |check: &&Check| matches!(check.finding, Finding::Unknown { .. });
    let unknown = findings.checks.iter().filter(could_not).count();
    let mut context = Context::new();
    context.insert("command", findings.command);
    context.insert("version", env!("CARGO_PKG_VERSION"));
    context.insert("when", &utc(when));
    context.insert("time", &took(findings.time));
    context.insert("passed", &passed);
    context.insert("failed", &(bad - unknown));
    context.insert("unknown", &unknown);
    context.insert("skipped", &skipped);
    context.insert("groups", &groups(findings));
    context.insert("pictures", pictures);
    context.insert("json", &json(findings)?);
    Tera::one_off(PAGE, &context, true).context("cannot render the report")
}

/// The checks by subject, in the order in which the subjects first come.
fn groups(findings: &Findings) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for check in &findings.checks {
        let row = row(check);
        match groups.iter_mut().find(|group| group.subject == check.subject) {
            Some(group) => {
                group.bad += usize::from(check.is_bad());
                group.checks.push(row);
            }
            None => groups.push(Group {
                subject: &check.subject,
                bad: usize::from(check.is_bad()),
                checks: vec![row],
            }),
        }
    }
    groups
}

fn row(check: &Check) -> Row<'_> {
    let (result, word, mark, found, cause, cure) = match &check.finding {
        Finding::Pass { found } => ("pass", "passed", "✓", found, "", ""),
        Finding::Fail { found, cause, cure } => ("fail", "failed", "✗", found, cause.as_str(), cure.as_str()),
        Finding::Skip { why } => ("skip", "skipped", "–", why, "", ""),
        Finding::Unknown { why, cure } => ("unknown", "could not be looked at", "?", why, "", cure.as_str()),
    };
    Row { id: check.id, result, word, mark, did: &check.did, found, cause, cure, time: took(check.time) }
}

/// JSON within a script: a `<` could end it, and is written so that it cannot.
fn json(findings: &Findings) -> Result<String> {
    Ok(serde_json::to_string(findings)?.replace('<', "\\u003c").replace('&', "\\u0026"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::samples;

    fn sample() -> String {
        let svg = "<svg xmlns=\"http://www.w3.org/2000/svg\"><title>t</title></svg>".to_owned();
        page(&samples(), &[Picture { title: "Cold & <warm>".into(), svg }], 1_769_862_840).unwrap()
    }

    #[test]
    fn everything_is_escaped_but_the_picture() {
        let page = sample();
        assert!(page.contains("CONFIG is &lt;renamed&gt;") && !page.contains("is <renamed>"), "{page}");
        assert!(
            page.contains("Cold &amp; &lt;warm&gt;") && page.contains("<title>t</title></svg>"),
            "{page}"
        );
        let mut evil = samples();
        evil.checks[0].subject = "</script><script>alert(1)</script>".into();
        assert!(!super::page(&evil, &[], 0).unwrap().contains("<script>alert"));
    }

    #[test]
    fn the_page_asks_for_nothing_else() {
        let page = sample().replace("http://www.w3.org/2000/svg", "");
        for asset in ["http:", "https:", "src=", "<link", "@import", "url("] {
            assert!(!page.contains(asset), "{asset}");
        }
    }

    #[test]
    fn a_program_finds_the_findings_in_it() {
        let page = sample();
        let (_, rest) = page.split_once("<script type=\"application/json\" id=\"findings\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        let read: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(read, serde_json::to_value(samples()).unwrap());
    }

    #[test]
    fn checks_stand_with_their_subject_and_their_cure() {
        let page = sample();
        let place = |text: &str| page.find(text).expect(text);
        assert!(place("<h2>master") < place("ping") && place("ping") < place("<h2>slave"));
        assert!(place("down for 12 s") < place("redis-tp apply"));
        for total in
            ["<b>1</b> passed", "<b>1</b> failed", "<b>1</b> could not be looked at", "<b>1</b> skipped"]
        {
            assert!(page.contains(total), "{total}");
        }
    }

    #[test]
    fn a_time_is_a_date() {
        let dates = [0, 951_782_400, 1_709_164_799, 1_769_862_840].map(utc);
        let expected =
            ["1970-01-01 00:00 UTC", "2000-02-29 00:00 UTC", "2024-02-28 23:59 UTC", "2026-01-31 12:34 UTC"];
        assert_eq!(dates, expected);
    }
}
