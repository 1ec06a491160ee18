//! With which program: old, replaced, or from nowhere.

use std::path::PathBuf;

use super::apt;
use super::fix::Fix;
use super::seen::{Seen, Server};
use super::{Severity, Verdict};
use crate::commands::shell_word;
use crate::finding::Finding;

/// How old apt's index may be, in days, until its answer is none.
const STALE: u64 = 30;

/// The package is the newest that apt knows.
pub(super) fn package(seen: &Seen) -> Verdict {
    let Some(package) = &seen.package else {
        return match seen.missing.get("package") {
            Some(why) => Finding::unknown(why, "apt-get update").into(),
            None => Finding::skip("the server is of no package").into(),
        };
    };
    let (name, installed) = (&package.name, &package.installed);
    if package.older {
        let suite = if package.security { "the security suite has" } else { "apt has" };
        let severity = if package.security { Severity::High } else { Severity::Medium };
        return Verdict::from(Finding::fail(
            format!("{name} {installed}, and {suite} {}", package.candidate),
            "what was repaired since is known to everybody",
            format!("apt-get install --only-upgrade {name} {}", seen.engine.tools_package()),
        ))
        .rated(severity);
    }
    if package.days > STALE {
        return Verdict::from(Finding::unknown(
            format!("{name} {installed}; apt's index is {} days old", package.days),
            "apt-get update",
        ))
        .rated(Severity::Medium);
    }
    Finding::pass(format!("{name} {installed}")).into()
}

/// apt hears of repairs.
pub(super) fn origin(seen: &Seen) -> Verdict {
    let Some(sources) = &seen.sources else { return Finding::skip("there is no apt here").into() };
    let has = |(path, text): &(PathBuf, String)| {
        let paragraphs = path.extension().is_some_and(|end| end == "sources");
        apt::has_security(text, paragraphs, seen.release.as_deref())
    };
    match sources.iter().any(has) {
        true => Finding::pass("the security suite is among apt's sources").into(),
        false => Finding::fail(
            "the security suite of this release is not among apt's sources",
            "apt never hears of repairs",
            "echo \"deb http://deb.debian.org/debian-security $(. /etc/os-release; echo $VERSION_CODENAME)-security main\" > /etc/apt/sources.list.d/security.list && apt-get update",
        )
        .into(),
    }
}

/// What runs is what is installed.
pub(super) fn replaced(_: &Seen, server: &Server) -> Verdict {
    let Some(process) = &server.process else { return Finding::skip("no process of this machine").into() };
    if !process.replaced {
        return Finding::pass("it runs the program that is on disk").into();
    }
    let why = "its program was replaced while it ran";
    let cure = match &server.instance {
        Some(name) => format!("redis-tp service restart {name}"),
        None => match &process.unit {
            Some(unit) => format!("systemctl restart {}", shell_word(unit)),
            None => format!("redis-tp adopt    # or restart pid {} yourself", process.pid),
        },
    };
    let verdict = Verdict::from(Finding::fail(
        "it runs a program that is gone from the disk",
        "an upgrade replaced it: the faults that it repaired are still there",
        cure,
    ));
    match &server.instance {
        Some(instance) => verdict.with(Fix::Restart { instance: instance.clone(), why }),
        None => verdict,
    }
}
