//! `redis-tp check`: is the machine fit, and is nobody let in who does not belong? With `--fix` what can be put
//! right is.

use anyhow::Result;
use serde::Serialize;

use super::converge::{Session, converge_in};
use super::needs_root;
use super::scene::{Scene, Wish};
use crate::audit::fix::{self, Fix};
use crate::audit::{self, Audited, Seen, Severity};
use crate::check;
use crate::cli;
use crate::exit::Code;
use crate::finding::{Check, Finding, Findings};
use crate::host::Host;
use crate::layout;
use crate::plan::{self, Consent, Plan};
use crate::report::{audit as report, console, table};
use crate::topology::LAB;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    findings: &'a Findings,
    /// The least severity that ends in exit code 4.
    fail_on: Severity,
}

/// Looks, and tells or puts right.
///
/// # Errors
/// The topology cannot be read; with `--fix` see [`converge_in`].
pub fn run(host: &Host, args: &cli::Check) -> Result<Code> {
    if args.fix { put_right(host, args) } else { tell(host, args) }
}

fn tell(host: &Host, args: &cli::Check) -> Result<Code> {
    let scene = Scene::load(host, &Wish::standing_or(host, LAB)?)?;
    let mut line = |check: &Check| {
        if !args.json {
            console::out(table::line(check))
        }
    };
    let mut findings = with_subject(&scene, |subject| check::check(host, subject, &mut line))?;
    let start = host.now();
    let seen = look(host, &scene);
    let unmanaged = seen.as_ref().is_ok_and(|seen| !seen.managed && !seen.servers.is_empty());
    let audited = match seen {
        Ok(seen) => audit::audit(host, &seen, &args.except),
        Err(error) => vec![blind(&error)],
    };
    let fit = findings.clone();
    findings.time += start.elapsed();
    let fixable = audited.iter().any(|done| done.check.is_bad() && !done.fixes.is_empty());
    findings.checks.extend(audited.into_iter().map(|done| done.check));
    let code = code(&findings, args.fail_on);
    if args.json {
        console::json(&Json { findings: &findings, fail_on: args.fail_on })?;
        return Ok(code);
    }
    console::out("");
    report::lines(&findings, args.all).into_iter().for_each(console::out);
    console::out("");
    let fit_to_run = !fit.checks.iter().any(Check::is_bad);
    let next: &[&str] = match (unmanaged, fixable && fit_to_run) {
        (true, _) => &["redis-tp adopt --dry-run", "redis-tp adopt"],
        (false, true) => &["redis-tp check --fix --dry-run", "redis-tp check --fix"],
        (false, false) => &[],
    };
    console::out(report::closing(&fit, &findings, next));
    Ok(code)
}

/// What is looked at, for one of both.
fn with_subject<T>(scene: &Scene, look: impl FnOnce(&check::Subject<'_>) -> T) -> T {
    let inside = plan::containers::inside(&scene.wanted(Consent::default()), &scene.facts);
    look(&check::Subject {
        topology: &scene.topology,
        inside: inside.as_ref(),
        instances: &scene.instances,
        app: scene.app.as_ref(),
        facts: &scene.facts,
    })
}

fn look(host: &Host, scene: &Scene) -> Result<Seen> {
    with_subject(scene, |subject| audit::look(host, subject, scene.secrets.password.as_ref()))
}

/// The whole audit could not look.
fn blind(error: &anyhow::Error) -> Audited {
    let check = Check {
        id: "audit",
        severity: Some(Severity::Critical),
        subject: "machine".into(),
        did: "looked at servers, processes and files".into(),
        finding: Finding::unknown(crate::conf::redact(&format!("{error:#}")), "sudo redis-tp check"),
        time: std::time::Duration::ZERO,
    };
    Audited { check, fixes: Vec::new() }
}

/// 4 if the machine is not fit, or something as severe was found.
fn code(findings: &Findings, fail_on: Severity) -> Code {
    let counts = |check: &Check| check.severity.is_none_or(|severity| severity >= fail_on);
    match findings.checks.iter().any(|check| check.is_bad() && counts(check)) {
        true => Code::Findings,
        false => Code::Done,
    }
}

/// Puts right what can be, by the same road as every change.
fn put_right(host: &Host, args: &cli::Check) -> Result<Code> {
    if layout::here().login.is_none() && host.euid() != 0 {
        return Err(needs_root("what is wrong here is root's to put right").into());
    }
    let session = Session::open(host, args.dry_run)?;
    let standing = Wish::standing(host)?;
    let scene = Scene::load(host, &standing)?;
    let seen = look(host, &scene)?;
    let audited = audit::audit(host, &seen, &args.except);
    let fixes: Vec<Fix> = audited.iter().flat_map(|done| done.fixes.clone()).collect();
    fix::refuse_lock_out(&seen, &audited)?;
    let consent = Consent { overwrite: fixes.contains(&Fix::Overwrite), ..Consent::default() };
    let wish = |host: &Host| {
        let mut wish = standing;
        fix::edit(&mut wish.document, &fixes);
        if fixes.iter().any(|fix| matches!(fix, Fix::Password { .. })) {
            wish.password = Some(host.generate_password()?);
        }
        Ok(wish)
    };
    let plan = |scene: &Scene| -> Result<Plan> {
        let wanted = scene.wanted(consent);
        let mut plan = plan::plan(&wanted, &scene.facts)?;
        plan::fix::add(&wanted, &scene.facts, &fixes, &mut plan);
        if !args.json {
            report::reasons(&audited).into_iter().for_each(console::out);
        }
        Ok(plan)
    };
    let change = cli::Change { dry_run: args.dry_run, json: args.json, ..cli::Change::default() };
    let outcome = converge_in(&session, "check --fix", &change, wish, plan)?;
    let code = outcome.finish("check --fix", &change, None)?;
    drop(session);
    if args.dry_run || args.json {
        return Ok(code);
    }
    left(host, args)
}

/// What is left for a person to do.
fn left(host: &Host, args: &cli::Check) -> Result<Code> {
    let scene = Scene::standing(host)?;
    let checks = audit::audit(host, &look(host, &scene)?, &args.except);
    let findings = Findings {
        schema: check::SCHEMA,
        command: "check",
        checks: checks.into_iter().map(|done| done.check).collect(),
        time: std::time::Duration::ZERO,
    };
    console::out("");
    report::lines(&findings, false).into_iter().for_each(console::out);
    console::out(report::count(&findings));
    Ok(code(&findings, args.fail_on))
}
