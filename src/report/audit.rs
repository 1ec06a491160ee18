//! The audit for eyes: what was found, the worst first, and how much passed.

use std::fmt::Write as _;

use super::console::{BAD, FAINT, GOOD, NOTE, TYPE, styled};
use super::table;
use super::text::{WIDTH, took, wrap};
use crate::audit::fix::Fix;
use crate::audit::{Audited, Severity};
use crate::finding::{Check, Finding, Findings};

/// The checks of the audit among others.
fn audited(findings: &Findings) -> impl Iterator<Item = &Check> {
    findings.checks.iter().filter(|check| check.severity.is_some())
}

/// A line for each that did not pass, the worst first; with `all` the others, too.
pub fn lines(findings: &Findings, all: bool) -> Vec<String> {
    let mut checks: Vec<&Check> = audited(findings).filter(|check| all || check.is_bad()).collect();
    checks.sort_by_key(|check| (!check.is_bad(), std::cmp::Reverse(check.severity)));
    checks.into_iter().map(table::line).collect()
}

/// How many passed, and how many of which severity did not.
pub fn count(findings: &Findings) -> String {
    let number = |is: &dyn Fn(&Check) -> bool| audited(findings).filter(|check| is(check)).count();
    let passed = number(&|check| matches!(check.finding, Finding::Pass { .. }));
    let unknown = number(&|check| matches!(check.finding, Finding::Unknown { .. }));
    let mut counts = vec![format!("audit: {passed} passed")];
    for severity in [Severity::Critical, Severity::High, Severity::Medium, Severity::Low] {
        let bad = number(&|check| {
            check.severity == Some(severity) && matches!(check.finding, Finding::Fail { .. })
        });
        if bad > 0 {
            counts.push(format!("{bad} {}", severity.word()));
        }
    }
    if unknown > 0 {
        counts.push(format!("{unknown} could not be looked at"));
    }
    let worst = audited(findings).filter(|check| check.is_bad()).filter_map(|check| check.severity).max();
    let style = match worst {
        None => GOOD,
        Some(Severity::Low | Severity::Medium) => NOTE,
        Some(Severity::High | Severity::Critical) => BAD,
    };
    styled(style, counts.join(", ")).to_string()
}

/// The lines below all of it, with what to type next.
pub fn closing(fit: &Findings, all: &Findings, next: &[&str]) -> String {
    let mut text = count(all);
    let _ =
        write!(text, " {}", styled(FAINT, format_args!("in {}", took(all.time.saturating_sub(fit.time)))));
    let fitness = table::closing(fit);
    let (count, typed) = fitness.split_once("\n\n").unwrap_or((&fitness, ""));
    let _ = write!(text, "\n{count}");
    match (next, typed) {
        ([], "") => {}
        // The machine comes first.
        ([], typed) => drop(write!(text, "\n\n{typed}")),
        (next, _) => {
            for (at, command) in next.iter().enumerate() {
                let label = if at == 0 { "\n\nnext:" } else { "\n     " };
                let _ = write!(text, "{label} {}", styled(TYPE, command));
            }
        }
    }
    text
}

/// Why each of the fixes is, before they are made.
pub fn reasons(done: &[Audited]) -> Vec<String> {
    let mut lines = Vec::new();
    for audited in done.iter().filter(|audited| !audited.fixes.is_empty()) {
        let Finding::Fail { found, .. } = &audited.check.finding else { continue };
        let Check { id, subject, .. } = &audited.check;
        let head = format!("{id} {subject}: ");
        // The first line is shorter by its id, and all others by what is before them.
        for (at, line) in wrap(&format!("{head}{found}"), WIDTH - 2).into_iter().enumerate() {
            lines.push(match line.strip_prefix(id).filter(|_| at == 0) {
                Some(rest) => format!("{}{rest}", styled(NOTE, id)),
                None => format!("  {line}"),
            });
        }
        for (at, line) in wrap(&words(&audited.fixes), WIDTH - 7).into_iter().enumerate() {
            let label = if at == 0 { "fix:" } else { "" };
            lines.push(format!("  {} {line}", styled(FAINT, format_args!("{label:<4}"))));
        }
    }
    lines
}

/// What some fixes are, in a line.
pub fn words(fixes: &[Fix]) -> String {
    let all: Vec<String> = fixes.iter().filter_map(Fix::words).collect();
    match all.is_empty() {
        // By hand it was made otherwise.
        true => "back to what the topology says".into(),
        false => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::text::columns;
    use super::*;

    #[test]
    fn a_reason_fits_the_screen_and_every_fix_says_what_it_is() {
        let audited = |fixes: Vec<Fix>| Audited {
            check: Check {
                id: "master-host",
                severity: Some(Severity::High),
                subject: "slave".into(),
                did: String::new(),
                finding: Finding::fail("it follows ".repeat(12), "", ""),
                time: Duration::ZERO,
            },
            fixes,
        };
        let close =
            Fix::Close { path: format!("/srv/{}", "long name ".repeat(9)).into(), inode: 7, mode: 0o640 };
        let shown = reasons(&[audited(vec![Fix::Overwrite]), audited(vec![close, Fix::Overwrite])]);
        let plain: Vec<String> =
            shown.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert!(plain.iter().all(|line| columns(line) <= WIDTH), "{plain:#?}");
        assert!(plain.iter().all(|line| line.trim() != "fix:"), "{plain:#?}");
        assert!(plain.contains(&"  fix: back to what the topology says".to_owned()), "{plain:#?}");
    }
}
