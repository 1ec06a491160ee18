//! How the web app fares: asked over HTTP for what it says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Log;
use crate::app::App;
use crate::app::service::{UNIT, logfile};
use crate::apply::app as service;
use crate::facts::{Facts, Role};
use crate::host::Host;
use crate::http::{self, Trouble, Url};
use crate::plan::app_refuse;
use crate::runtime::Runtime;

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many lines of what it said are shown.
const SHOWN: usize = 4;

/// The web app. What could not be found out is none.
#[derive(Clone, Debug, Serialize)]
pub struct WebApp {
    /// Where it answers.
    pub url: String,
    /// Whether it does.
    pub up: bool,
    /// The master that it writes to; none while it has no cache.
    pub master: Option<String>,
    /// How long it keeps a value in the cache, in seconds.
    pub ttl_seconds: u64,
    /// Which instances it reads.
    pub read_from: String,
    /// Where values come from that are not in the cache.
    pub source: String,
    /// Requests answered from the cache since it started.
    pub hits: Option<u64>,
    /// Requests that had to be answered from the database.
    pub misses: Option<u64>,
    /// Its unit, under systemd.
    pub unit: Option<String>,
    /// Its unit's state.
    pub unit_state: Option<String>,
    /// Its process, or its supervisor where there is no systemd.
    pub pid: Option<u32>,
    /// What is wrong with it; none for a healthy one.
    pub problem: Option<String>,
    /// The command that cures it, or that tells more.
    pub cure: Option<String>,
    /// What it last said, where that may tell why.
    pub log: Option<Log>,
}

/// Asks the app.
pub fn look(host: &Host, app: &App, facts: &Facts) -> WebApp {
    let systemd = app.runtime == Runtime::Systemd;
    let url = app.url();
    let health = service::health(host, &url);
    // Where a server has just been started, the app needs a moment to find it again.
    let there = facts.running.values().any(|running| running.role == Role::Master);
    let patience = if there { service::MOMENT } else { Duration::ZERO };
    let mut shown = WebApp {
        url: url.to_string(),
        up: health.is_ok(),
        master: health.is_ok().then(|| service::master(host, &url, patience)).flatten(),
        ttl_seconds: app.section().ttl.as_secs(),
        read_from: app.section().read_from.to_string(),
        source: app.section().source.to_string(),
        hits: None,
        misses: None,
        unit: systemd.then(|| UNIT.to_owned()),
        unit_state: facts.unit(UNIT).filter(|_| systemd).map(|unit| unit.active.clone()),
        pid: facts.app.pid,
        problem: None,
        cure: None,
        log: None,
    };
    if let Some(counts) = health.is_ok().then(|| requests(host, &url)).flatten() {
        shown.hits = counts.get("hit").copied();
        shown.misses =
            Some(counts.iter().filter(|(result, _)| *result != "hit").map(|(_, count)| count).sum());
    }
    if let Some((problem, cure, log)) = problem(app, facts, &health, &shown) {
        let target = app.target(&facts.program.path);
        let lines = if log { service::last_lines(host, &target, SHOWN) } else { Vec::new() };
        let source = match app.runtime {
            Runtime::Systemd | Runtime::Container(_) => service::log_command(&target),
            Runtime::Process => logfile().display().to_string(),
        };
        shown.log = (!lines.is_empty()).then_some(Log { source, lines });
        (shown.problem, shown.cure) = (Some(problem), Some(cure));
    }
    shown
}

/// How many requests came to what, as /metrics tells.
fn requests(host: &Host, url: &Url) -> Option<BTreeMap<String, u64>> {
    let answer = http::get(host, url, "/metrics", PATIENCE).ok()?;
    let text = answer.text();
    let counts = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("redis_tp_app_requests_total{result=\"")?;
        let (result, count) = rest.split_once("\"} ")?;
        Some((result.to_owned(), count.trim().parse().ok()?))
    });
    Some(counts.collect())
}

/// What is wrong, what to type, and whether its log may tell why.
fn problem(
    app: &App,
    facts: &Facts,
    health: &Result<serde_json::Value, Trouble>,
    shown: &WebApp,
) -> Option<(String, String, bool)> {
    if let Err(trouble) = health {
        let active = facts.state.app.as_ref().is_some_and(|kept| kept.active);
        let files = if active { app_refuse::files(facts, app) } else { Ok(()) };
        if let Err(fault) = app_refuse::port(facts, app).and(files) {
            let cure = fault.cure().and_then(|cure| cure.lines().last()).unwrap_or("redis-tp check");
            return Some((fault.to_string(), cure.to_owned(), false));
        }
        let state = shown.unit_state.as_deref();
        let moved = facts.state.app.as_ref().is_some_and(|kept| kept.target.url() != app.url());
        return Some(match (trouble, state, active) {
            (_, _, false) => ("it is not set up yet".into(), "redis-tp apply".into(), false),
            _ if moved => {
                (format!("it is not on {} yet: [app] was changed", shown.url), "redis-tp apply".into(), false)
            }
            (Trouble::Refused, Some("failed"), _) => {
                (format!("{UNIT} has failed"), "redis-tp service start app".into(), true)
            }
            (Trouble::Refused, _, _) if shown.pid.is_none() => {
                ("it does not run".into(), "redis-tp service start app".into(), true)
            }
            (trouble, _, _) => {
                let what = format!("it does not answer on {}: {trouble}", shown.url);
                (what, "redis-tp service restart app".into(), true)
            }
        });
    }
    shown.master.is_none().then(|| {
        let what = "it has no cache, and answers from the database".to_owned();
        (what, service::log_command(&app.target(&facts.program.path)), true)
    })
}
