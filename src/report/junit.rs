//! Findings as JUnit XML: a suite for each thing that was looked at, a case for each check.

use anyhow::Result;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::finding::{Check, Finding, Findings};

/// The findings as a JUnit document.
///
/// # Errors
/// The document cannot be written.
pub fn junit(findings: &Findings) -> Result<String> {
    let name = format!("redis-tp {}", findings.command);
    let mut report = Report::new(name.as_str());
    report.set_time(findings.time);
    let mut subjects: Vec<&str> = Vec::new();
    for check in &findings.checks {
        if !subjects.contains(&check.subject.as_str()) {
            subjects.push(&check.subject);
        }
    }
    for subject in subjects {
        let checks = findings.checks.iter().filter(|check| check.subject == subject);
        let mut suite = TestSuite::new(subject);
        suite.set_time(checks.clone().map(|check| check.time).sum());
        suite.add_test_cases(checks.map(|check| case(&name, check)));
        report.add_test_suite(suite);
    }
    Ok(report.to_string()?)
}

fn case(report: &str, check: &Check) -> TestCase {
    let mut status = match &check.finding {
        Finding::Pass { .. } => TestCaseStatus::success(),
        Finding::Skip { .. } => TestCaseStatus::skipped(),
        Finding::Fail { .. } => TestCaseStatus::non_success(NonSuccessKind::Failure),
        // JUnit's word for a test that could not be carried out.
        Finding::Unknown { .. } => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    let did = &check.did;
    match &check.finding {
        Finding::Pass { .. } => {}
        Finding::Skip { why } => {
            status.set_message(why.as_str());
        }
        Finding::Fail { found, cause, cure } => {
            status.set_message(found.as_str()).set_type("failed");
            status.set_description(format!("did: {did}\nfound: {found}\ncause: {cause}\ncure: {cure}"));
        }
        Finding::Unknown { why, cure } => {
            status.set_message(why.as_str()).set_type("unknown");
            status.set_description(format!("did: {did}\nunknown: {why}\ncure: {cure}"));
        }
    }
    let mut case = TestCase::new(check.id, status);
    case.set_classname(format!("{report}.{}", check.subject)).set_time(check.time);
    if let Finding::Pass { found } = &check.finding {
        case.set_system_out(format!("did: {did}\nfound: {found}"));
    }
    case
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::samples;

    #[test]
    fn failures_errors_and_skips_are_counted_apart() {
        let xml = junit(&samples()).unwrap();
        assert!(xml.contains(r#"tests="4" skipped="1" failures="1" errors="1""#), "{xml}");
        assert!(
            xml.contains(r#"<testsuite name="slave" tests="3" skipped="1" errors="1" failures="1""#),
            "{xml}"
        );
        assert!(xml.contains(r#"classname="redis-tp verify.slave""#), "{xml}");
    }

    #[test]
    fn what_xml_cannot_hold_is_escaped() {
        let xml = junit(&samples()).unwrap();
        assert!(xml.contains("CONFIG is &lt;renamed&gt;"), "{xml}");
        assert!(xml.contains("cure: redis-tp apply"), "{xml}");
    }
}
