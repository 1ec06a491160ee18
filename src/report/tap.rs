//! Findings as TAP, version 14: a line a check, and below a bad one its diagnostics as YAML.

use std::fmt::Write as _;

use crate::finding::{Check, Finding, Findings};

/// The findings as a TAP stream.
pub fn tap(findings: &Findings) -> String {
    let mut stream = format!("TAP version 14\n1..{}\n", findings.checks.len());
    for (number, check) in (1..).zip(&findings.checks) {
        let point = if check.is_bad() { "not ok" } else { "ok" };
        let name = escape(&format!("{} {}", check.id, check.subject));
        let _ = match &check.finding {
            Finding::Skip { why } => writeln!(stream, "{point} {number} - {name} # SKIP {}", one_line(why)),
            _ => writeln!(stream, "{point} {number} - {name}"),
        };
        stream.push_str(&diagnostics(check));
    }
    stream
}

/// The YAML block of a check that is bad; nothing for any other.
fn diagnostics(check: &Check) -> String {
    let told = match &check.finding {
        Finding::Fail { found, cause, cure } => vec![("found", found), ("cause", cause), ("cure", cure)],
        Finding::Unknown { why, cure } => vec![("unknown", why), ("cure", cure)],
        Finding::Pass { .. } | Finding::Skip { .. } => return String::new(),
    };
    let mut block = format!("  ---\n  did: {}\n", quoted(&check.did));
    for (name, text) in told {
        let _ = writeln!(block, "  {name}: {}", quoted(text));
    }
    let _ = writeln!(block, "  duration_ms: {:.3}\n  ...", check.time.as_secs_f64() * 1e3);
    block
}

/// JSON's strings are YAML's double-quoted ones.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `#` would begin a directive.
fn escape(text: &str) -> String {
    one_line(text).replace('\\', "\\\\").replace('#', "\\#")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::samples;

    #[test]
    fn every_result_has_its_line_and_a_failure_its_diagnostics() {
        let expected = r#"TAP version 14
1..4
ok 1 - ping master
not ok 2 - link slave
  ---
  did: "INFO replication on slave"
  found: "down for 12 s"
  cause: "100%: the \"password\"\nis | wrong"
  cure: "redis-tp apply"
  duration_ms: 1.500
  ...
ok 3 - auth-wrong slave # SKIP no password is wanted
not ok 4 - config slave
  ---
  did: "CONFIG GET #*"
  unknown: "CONFIG is <renamed>"
  cure: "redis-tp status"
  duration_ms: 0.000
  ...
"#;
        assert_eq!(tap(&samples()), expected);
    }

    #[test]
    fn a_name_cannot_become_a_directive() {
        assert_eq!(escape("a # SKIP\nb\\"), "a \\# SKIP b\\\\");
    }
}
