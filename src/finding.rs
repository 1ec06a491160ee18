//! What a check found. Two layers: "could not look" is something else than "looked, and it is bad".

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::audit::Severity;
use crate::exit::Code;

/// One check, done.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// A stable name, such as `replica-readonly`.
    pub id: &'static str,
    /// How bad a failure is; the audit's checks have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// What was looked at: an instance, a file, the machine.
    pub subject: String,
    /// What was done to find out.
    pub did: String,
    /// What came of it.
    #[serde(flatten)]
    pub finding: Finding,
    /// How long it took; in JSON as `ms`.
    #[serde(rename = "ms", serialize_with = "milliseconds")]
    pub time: Duration,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Finding {
    /// It is as it should be.
    Pass {
        /// What was found.
        found: String,
    },
    /// It is not.
    Fail {
        /// What was found.
        found: String,
        /// Why that is, as far as can be told.
        cause: String,
        /// The command that cures it.
        cure: String,
    },
    /// It does not apply here.
    Skip {
        /// Why not.
        why: String,
    },
    /// It could not be looked at. That is no pass.
    Unknown {
        /// Why not.
        why: String,
        /// The command that makes it possible.
        cure: String,
    },
}

impl Finding {
    /// It is as it should be.
    pub fn pass(found: impl Into<String>) -> Self {
        Self::Pass { found: visible(&found.into()) }
    }

    /// It is not.
    pub fn fail(found: impl Into<String>, cause: impl Into<String>, cure: impl Into<String>) -> Self {
        let [found, cause, cure] = [found.into(), cause.into(), cure.into()].map(|text| visible(&text));
        Self::Fail { found, cause, cure }
    }

    /// It does not apply here.
    pub fn skip(why: impl Into<String>) -> Self {
        Self::Skip { why: visible(&why.into()) }
    }

    /// It could not be looked at.
    pub fn unknown(why: impl Into<String>, cure: impl Into<String>) -> Self {
        let [why, cure] = [why.into(), cure.into()].map(|text| visible(&text));
        Self::Unknown { why, cure }
    }
}

/// A text whose characters can all be seen: what a server or a file calls itself may move the cursor, and show
/// something else than it is.
pub fn visible(text: &str) -> String {
    let hides = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if hides(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

impl Check {
    /// Whether it stands in the way of an exit code of 0.
    pub fn is_bad(&self) -> bool {
        matches!(self.finding, Finding::Fail { .. } | Finding::Unknown { .. })
    }
}

/// All checks of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// The format.
    pub schema: u32,
    /// `verify` or `check`.
    pub command: &'static str,
    /// The checks in their order.
    pub checks: Vec<Check>,
    /// How long all took; in JSON as `ms`.
    #[serde(rename = "ms", serialize_with = "milliseconds")]
    pub time: Duration,
}

impl Findings {
    /// How many passed, failed (or could not be looked at), and did not apply.
    pub fn count(&self) -> (usize, usize, usize) {
        let bad = self.checks.iter().filter(|check| check.is_bad()).count();
        let skipped =
            self.checks.iter().filter(|check| matches!(check.finding, Finding::Skip { .. })).count();
        (self.checks.len() - bad - skipped, bad, skipped)
    }

    /// 0, or 4 when something is bad.
    pub fn code(&self) -> Code {
        if self.checks.iter().any(Check::is_bad) { Code::Findings } else { Code::Done }
    }
}

/// A time in JSON.
pub(crate) fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Microseconds are enough, and keep the numbers short.
    serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e3)
}

/// One finding of each kind, with characters that every format has to mind; for the reports' tests.
#[cfg(test)]
pub(crate) fn samples() -> Findings {
    let check = |id, subject: &str, did: &str, micros, finding| Check {
        id,
        severity: None,
        subject: subject.into(),
        did: did.into(),
        finding,
        time: Duration::from_micros(micros),
    };
    let cause = "100%: the \"password\"\nis | wrong";
    Findings {
        schema: 1,
        command: "verify",
        checks: vec![
            check("ping", "master", "PING", 250, Finding::pass("PONG after 0.1 ms")),
            check(
                "link",
                "slave",
                "INFO replication on slave",
                1500,
                Finding::fail("down for 12 s", cause, "redis-tp apply"),
            ),
            check("auth-wrong", "slave", "AUTH", 0, Finding::skip("no password is wanted")),
            check(
                "config",
                "slave",
                "CONFIG GET #*",
                0,
                Finding::unknown("CONFIG is <renamed>", "redis-tp status"),
            ),
        ],
        time: Duration::from_millis(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_move_the_cursor() {
        let found = Finding::pass("the user \u{1b}[2Jx\u{202e}\r is\non");
        assert_eq!(found, Finding::Pass { found: "the user \\u{1b}[2Jx\\u{202e}\\r is\non".into() });
    }
}
