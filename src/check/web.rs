//! The check that looks at the web app.

use anyhow::Result;

use super::{Subject, refused};
use crate::app::service::UNIT;
use crate::apply::app as service;
use crate::finding::Finding;
use crate::host::Host;
use crate::plan::app_refuse;
use crate::runtime::Runtime;

/// It is there, starts at boot, and answers as ours.
pub(super) fn app(host: &Host, subject: &Subject<'_>) -> Result<Finding> {
    let facts = subject.facts;
    let Some(app) = subject.app else {
        return Ok(Finding::skip("the topology has no [app]"));
    };
    for (found, cause) in [
        (app_refuse::port(facts, app), "two programs cannot listen on one port"),
        (app_refuse::unit(facts, app), "it would not start"),
        (app_refuse::database(facts, app), "it would have nothing to answer with"),
    ] {
        if let Err(fault) = found {
            return Ok(refused(&fault, cause));
        }
    }
    let Some(kept) = facts.state.app.as_ref().filter(|kept| kept.active) else {
        let cause = "the topology has [app], and nobody applied it yet";
        return Ok(Finding::fail("it is not set up", cause, "redis-tp up"));
    };
    if let Err(fault) = app_refuse::files(facts, app) {
        return Ok(refused(&fault, "it would not start again"));
    }
    if kept.target.url() != app.url() {
        let found = format!("it is on {}, and [app] says {}", kept.target.url(), app.url());
        return Ok(Finding::fail(
            found,
            "the topology was changed, and nobody applied it yet",
            "redis-tp apply",
        ));
    }
    let systemd = app.runtime == Runtime::Systemd;
    if systemd && !facts.unit(UNIT).is_some_and(|unit| unit.enabled) {
        let cause = "it would be gone after a reboot";
        return Ok(Finding::fail(format!("{UNIT} is not enabled"), cause, "redis-tp service enable app"));
    }
    Ok(match service::health(host, &kept.target.url()) {
        Ok(_) => Finding::pass(format!("it answers on {}", app.url())),
        Err(trouble) => Finding::fail(
            format!("it does not answer on {}: {trouble}", app.url()),
            "it was stopped, or it failed",
            if facts.app.pid.is_some() {
                "redis-tp service restart app"
            } else {
                "redis-tp service start app"
            },
        ),
    })
}
