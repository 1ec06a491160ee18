//! Checks as lines of a table, and the lines that close it.

use std::fmt::Write as _;
use std::time::Duration;

use super::console::{BAD, FAINT, GOOD, NOTE, TYPE, styled};
use super::text::{WIDTH, columns, took, wrap};
use crate::finding::{Check, Finding, Findings};

/// The columns of an id and of a subject; longer ones push the rest to the right.
const ID: usize = 16;
const SUBJECT: usize = 7;
/// The column of the time: a blank and `999 ms`; and where there are severities, a blank and `critical`.
const TIME: usize = 7;
const SEVERITY: usize = 9;

/// A check as one line, its finding wrapped below itself where it is long; a failure is followed by
/// its cause and the command that cures it.
pub fn line(check: &Check) -> String {
    let mark = match &check.finding {
        Finding::Pass { .. } => styled(GOOD, "✓"),
        Finding::Fail { .. } => styled(BAD, "✗"),
        Finding::Unknown { .. } => styled(NOTE, "?"),
        Finding::Skip { .. } => styled(FAINT, "-"),
    };
    let found = match &check.finding {
        Finding::Pass { found } | Finding::Fail { found, .. } => found,
        Finding::Skip { why } | Finding::Unknown { why, .. } => why,
    };
    let head = format!("{:<ID$}  {:<SUBJECT$}  ", check.id, check.subject);
    let indent = 2 + columns(&head);
    let last = if check.severity.is_some() { SEVERITY } else { TIME };
    let room = WIDTH.saturating_sub(indent + last).max(20);
    let mut found = wrap(found, room).into_iter();
    // How bad it is counts more than how long the look at it took.
    let time = match check.severity.filter(|_| check.is_bad()) {
        Some(severity) => format!("{:>last$}", severity.word()),
        None => format!("{:>last$}", took(check.time)),
    };
    let mut text = format!("{mark} {head}{:<room$}{}", found.next().unwrap_or_default(), styled(FAINT, time));
    for more in found {
        let _ = write!(text, "\n{:indent$}{more}", "");
    }
    match &check.finding {
        Finding::Fail { cause, cure, .. } => {
            text.push_str(&below("cause:", cause));
            text.push_str(&commands(cure));
        }
        Finding::Unknown { cure, .. } => text.push_str(&commands(cure)),
        Finding::Pass { .. } | Finding::Skip { .. } => {}
    }
    text
}

/// The lines below a table: how many passed, how long it took, and what to type when some did not.
pub fn closing(findings: &Findings) -> String {
    let count = |is: fn(&Finding) -> bool| findings.checks.iter().filter(|check| is(&check.finding)).count();
    let (passed, bad, skipped) = findings.count();
    let unknown = count(|finding| matches!(finding, Finding::Unknown { .. }));
    let style = if bad == 0 { GOOD } else { BAD };
    let mut counts = vec![format!("{passed} passed")];
    for (count, what) in
        [(bad - unknown, "failed"), (unknown, "could not be looked at"), (skipped, "skipped")]
    {
        if count > 0 {
            counts.push(format!("{count} {what}"));
        }
    }
    let total: Duration = findings.time;
    let mut text =
        format!("{} {}", styled(style, counts.join(", ")), styled(FAINT, format_args!("in {}", took(total))));
    // The first failure is mostly the root of the others.
    let first = findings.checks.iter().find_map(|check| match &check.finding {
        // What one may do instead is no command.
        Finding::Fail { cure, .. } | Finding::Unknown { cure, .. } => {
            cure.lines().rev().find(|line| !line.starts_with("or "))
        }
        Finding::Pass { .. } | Finding::Skip { .. } => None,
    });
    if let Some(cure) = first {
        let again = format!("redis-tp {}", findings.command);
        let _ = write!(text, "\n\nnext: {}", styled(TYPE, cure));
        // A change may be followed by a proof; a second look at the same is none.
        if cure != again {
            let _ = write!(text, "\n      {}", styled(TYPE, again));
        }
    }
    text
}

/// A label and a text beneath a check.
fn below(label: &str, text: &str) -> String {
    let lines = wrap(text, WIDTH - 12);
    let mut shown = String::new();
    for (index, line) in lines.iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        let _ = write!(shown, "\n    {} {line}", styled(FAINT, format_args!("{label:<6}")));
    }
    shown
}

/// A cure's lines as they are to be typed: never wrapped.
fn commands(cure: &str) -> String {
    let mut shown = String::new();
    for (index, line) in cure.lines().enumerate() {
        let label = if index == 0 { "cure:" } else { "" };
        let _ = write!(shown, "\n    {} {}", styled(FAINT, format_args!("{label:<6}")), styled(TYPE, line));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(finding: Finding) -> Check {
        Check {
            id: "ports",
            severity: None,
            subject: "master".into(),
            did: String::new(),
            finding,
            time: Duration::from_micros(420),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_pass_is_one_line_of_80_columns() {
        let text = plain(&line(&check(Finding::pass("6379 is free"))));
        assert_eq!(columns(&text), WIDTH, "{text}");
        assert!(text.starts_with("✓ ports             master   6379 is free") && text.ends_with("  0.4 ms"));
    }

    #[test]
    fn a_long_finding_wraps_and_a_command_does_not() {
        let command = format!("redis-tp {}", "x".repeat(90));
        let text = plain(&line(&check(Finding::fail("word ".repeat(30), "cause ".repeat(30), &command))));
        assert!(
            text.lines().filter(|line| !line.contains(&command)).all(|line| columns(line) <= WIDTH),
            "{text}"
        );
        assert!(text.ends_with(&format!("    cure:  {command}")), "{text}");
    }

    #[test]
    fn the_closing_tells_what_to_type() {
        let failed = check(Finding::fail("a", "b", "redis-tp up"));
        let unknown = check(Finding::unknown("c", "sudo redis-tp check"));
        let passed = check(Finding::pass("d"));
        let findings =
            |checks| Findings { schema: 1, command: "check", checks, time: Duration::from_millis(43) };
        assert_eq!(
            plain(&closing(&findings(vec![passed.clone(), failed, unknown]))),
            "1 passed, 1 failed, 1 could not be looked at in 43 ms\n\nnext: redis-tp up\n      redis-tp check"
        );
        assert_eq!(plain(&closing(&findings(vec![passed]))), "1 passed in 43 ms");
        let choice = check(Finding::fail("a", "b", "redis-tp up\nor accept it: edit the topology"));
        assert!(plain(&closing(&findings(vec![choice]))).contains("next: redis-tp up\n"));
    }
}
