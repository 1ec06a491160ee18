//! Findings for GitHub Actions: annotations on the run, and the step's summary as Markdown.

use crate::finding::{Check, Finding, Findings};

/// A workflow command for each check that is bad: an error for a failure, a warning for what could
/// not be looked at.
pub fn annotations(findings: &Findings) -> Vec<String> {
    findings.checks.iter().filter_map(|check| annotation(findings.command, check)).collect()
}

fn annotation(command: &str, check: &Check) -> Option<String> {
    let (level, message) = match &check.finding {
        Finding::Fail { found, cause, cure } => ("error", format!("{found}\ncause: {cause}\ncure: {cure}")),
        Finding::Unknown { why, cure } => ("warning", format!("unknown: {why}\ncure: {cure}")),
        Finding::Pass { .. } | Finding::Skip { .. } => return None,
    };
    let title = format!("redis-tp {command}: {} {}", check.id, check.subject);
    let title = data(&title).replace(':', "%3A").replace(',', "%2C");
    Some(format!("::{level} title={title}::{}", data(&message)))
}

/// A workflow command is one line; the runner undoes these three.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// The step's summary: one sentence and a table.
pub fn summary(findings: &Findings) -> String {
    let (passed, bad, skipped) = findings.count();
    let verdict = if bad == 0 { "✅" } else { "❌" };
    let mut text = format!(
        "### {verdict} redis-tp {}\n\n{passed} passed, {bad} failed, {skipped} skipped in {:.0} ms\n\n\
         | | check | of | what was done | what was found | ms |\n|---|---|---|---|---|---:|\n",
        findings.command,
        findings.time.as_secs_f64() * 1e3
    );
    text.extend(findings.checks.iter().map(row));
    text
}

fn row(check: &Check) -> String {
    let (mark, found) = match &check.finding {
        Finding::Pass { found } => ("✅", found.clone()),
        Finding::Skip { why } => ("⏭️", why.clone()),
        Finding::Fail { found, cause, cure } => ("❌", format!("{found}\ncause: {cause}\ncure: {cure}")),
        Finding::Unknown { why, cure } => ("❓", format!("{why}\ncure: {cure}")),
    };
    let cells = [check.id, &check.subject, &check.did, &found].map(cell).join(" | ");
    format!("| {mark} | {cells} | {:.1} |\n", check.time.as_secs_f64() * 1e3)
}

/// Text that stays in its cell and is no markup.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\r' => {}
            '\n' => safe.push_str("<br>"),
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' => safe.extend(['\\', c]),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::samples;

    #[test]
    fn an_annotation_stays_on_its_line() {
        let expected = [
            "::error title=redis-tp verify%3A link slave::down for 12 s%0Acause: 100%25: the \"password\"%0Ais | wrong%0Acure: redis-tp apply",
            "::warning title=redis-tp verify%3A config slave::unknown: CONFIG is <renamed>%0Acure: redis-tp status",
        ];
        assert_eq!(annotations(&samples()), expected);
    }

    #[test]
    fn a_row_of_the_summary_stays_in_its_cells() {
        let text = summary(&samples());
        assert!(text.contains("1 passed, 2 failed, 1 skipped"), "{text}");
        assert!(text.contains("the \"password\"<br>is \\| wrong"), "{text}");
        assert!(text.contains("CONFIG is &lt;renamed>"), "{text}");
        let row = |line: &&str| line.starts_with("| ");
        assert!(
            text.lines().filter(row).all(|line| line.replace("\\|", "").matches('|').count() == 7),
            "{text}"
        );
    }
}
