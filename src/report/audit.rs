//! The audit for eyes: what was found, the worst first, and how much passed.

use std::fmt::Write as _;

use super::console::{BAD, FAINT, GOOD, NOTE, TYPE, styled};
use super::table;
use super::text::took;
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
        let what: Vec<String> = audited.fixes.iter().filter_map(Fix::words).collect();
        let Check { id, subject, .. } = &audited.check;
        lines.push(format!("{} {subject}: {found}", styled(NOTE, id)));
        lines.push(format!("  {} {}", styled(FAINT, "fix:"), what.join(", ")));
    }
    lines
}
