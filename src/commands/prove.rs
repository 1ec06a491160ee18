//! `redis-tp verify`: runs the checks, and shows them in the form that is asked for.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::converge::Session;
use super::env::programs;
use super::scene::Scene;
use crate::cli;
use crate::exit::Code;
use crate::finding::{Check, Findings};
use crate::host::Host;
use crate::report::{console, curves, github, html, junit, table, tap};
use crate::verify;

/// How long the keys of a proof live that have to be gone.
const TTL: Duration = Duration::from_secs(1);
/// How long the database of an app takes that is started for a proof.
const SLOW: Duration = Duration::from_millis(200);

/// `redis-tp verify`
///
/// # Errors
/// Nothing is set up here; a report cannot be written; interrupted.
pub fn verify(host: &Host, args: &cli::Verify) -> Result<Code> {
    let options = options(args);
    // A restart changes what runs: one at a time.
    let _session = Session::open(host, !args.restart)?;
    let scene = Scene::standing(host)?;
    let subject = subject(&scene);
    if args.shell {
        programs(host, scene.topology.engine).into_iter().for_each(console::out);
        verify::shell(&subject, &options).into_iter().for_each(console::out);
        return Ok(Code::Done);
    }
    host.catch_signals()?;
    let text = !args.json && !args.tap;
    let mut tell = |check: &Check| {
        if text {
            console::out(table::line(check))
        }
    };
    let (findings, curves) = verify::verify(host, &subject, &options, &mut tell)?;
    if args.json {
        console::json(&findings)?;
    } else if args.tap {
        console::out(tap::tap(&findings).trim_end());
    } else {
        console::out("");
        console::out(table::closing(&findings));
    }
    if let Some(file) = &args.junit {
        let path = std::path::absolute(file)?;
        host.report(&path, junit::junit(&findings)?.as_bytes())?;
    }
    if let Some(file) = &args.html {
        let page = html::page(&findings, &curves::pictures(&curves), host.unix_time())?;
        host.report(&std::path::absolute(file)?, page.as_bytes())?;
    }
    tell_github(host, &findings)?;
    Ok(findings.code())
}

/// How to verify, by the flags; without one everything takes about a second.
fn options(args: &cli::Verify) -> verify::Options {
    let lab = |seconds| args.lab.then_some(Duration::from_secs(seconds));
    let (ttl, slow) = (args.ttl.or(lab(60)), args.slow.or(lab(2)));
    let app = match args.url.clone() {
        Some(url) => verify::App::At { url, ttl, slow },
        None => verify::App::Own { slow: slow.unwrap_or(SLOW) },
    };
    verify::Options { ttl: ttl.unwrap_or(TTL), restart: args.restart, app: Some(app) }
}

fn subject(scene: &Scene) -> verify::Subject<'_> {
    verify::Subject { instances: &scene.instances, facts: &scene.facts, app: scene.topology.app.as_ref() }
}

/// Annotations and a step summary, where GitHub runs us.
fn tell_github(host: &Host, findings: &Findings) -> Result<()> {
    if host.env("GITHUB_ACTIONS").as_deref() != Some("true") {
        return Ok(());
    }
    github::annotations(findings).into_iter().for_each(console::err);
    match host.env("GITHUB_STEP_SUMMARY") {
        Some(file) => host.append(Path::new(&file), github::summary(findings).as_bytes()),
        None => Ok(()),
    }
}

/// The proof at the end of `up`: only its failures are shown line by line.
///
/// # Errors
/// Interrupted.
pub fn proof(host: &Host, scene: &Scene, text: bool) -> Result<Findings> {
    let subject = subject(scene);
    let app = subject.app.map(|_| verify::App::Own { slow: SLOW });
    let options = verify::Options { ttl: TTL, restart: false, app };
    let mut tell = |check: &Check| {
        if text && check.is_bad() {
            console::out(table::line(check));
        }
    };
    let (findings, _) = verify::verify(host, &subject, &options, &mut tell)?;
    if text {
        console::out("");
        console::out(table::closing(&findings));
    }
    tell_github(host, &findings)?;
    Ok(findings)
}
