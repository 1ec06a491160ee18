//! `redis-tp check`: is the machine fit, and is nobody let in who does not belong? With `--fix` what can be put
//! right is.

use std::time::Duration;

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
use crate::finding::{Check, Finding, Findings, milliseconds};
use crate::host::Host;
use crate::layout;
use crate::plan::{self, Consent, Plan};
use crate::report::{audit as report, console, plan as show, table};
use crate::topology::LAB;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    findings: &'a Findings,
    /// The least severity that ends in exit code 4.
    fail_on: Severity,
}

/// What `--fix --json` prints: the plan, what there is to find after it (with `--dry-run` before it), and what was done
/// about what was found.
#[derive(Debug, Serialize)]
struct FixJson<'a> {
    outcome: &'static str,
    #[serde(flatten)]
    plan: show::Json<'a>,
    checks: Vec<&'a Check>,
    #[serde(rename = "ms", serialize_with = "milliseconds")]
    time: Duration,
    fail_on: Severity,
    fixes: Vec<Fixed<'a>>,
}

/// What is done about one finding.
#[derive(Debug, Serialize)]
struct Fixed<'a> {
    id: &'static str,
    subject: &'a str,
    severity: Option<Severity>,
    #[serde(flatten)]
    finding: &'a Finding,
    fix: String,
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
    let start = host.now();
    let seen = look(host, &scene);
    let looked = start.elapsed();
    let unmanaged = seen.as_ref().is_ok_and(|seen| !seen.managed && !seen.servers.is_empty());
    let taken = unmanaged && layout::here().login.is_none() && up_is_refused(&scene);
    let mut line = |check: &Check| {
        if !args.json {
            console::out(table::line(&with_cure(check.clone(), taken)))
        }
    };
    let mut findings = with_subject(&scene, |subject| check::check(host, subject, &mut line))?;
    findings.checks = findings.checks.into_iter().map(|check| with_cure(check, taken)).collect();
    let start = host.now();
    let audited = match seen {
        Ok(seen) => audit::audit(host, &seen, &args.except),
        Err(error) => vec![blind(&error)],
    };
    let fit = findings.clone();
    findings.time += looked + start.elapsed();
    let fixable = audited.iter().any(|done| done.check.is_bad() && !done.fixes.is_empty());
    findings.checks.extend(audited.into_iter().map(|done| done.check));
    let code = code(&findings.checks, args.fail_on);
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

/// Whether what others set up here stands in the way of what a first `up` would make.
fn up_is_refused(scene: &Scene) -> bool {
    plan::plan(&scene.wanted(Consent::default()), &scene.facts).is_err()
}

/// Where that is so, what is to be set up here is first to be taken over.
fn with_cure(mut check: Check, taken: bool) -> Check {
    if let Finding::Fail { cure, .. } | Finding::Unknown { cure, .. } = &mut check.finding {
        let sets_up = ["redis-tp up", "redis-tp apply", "redis-tp adopt", "redis-tp replica add"];
        if taken && sets_up.iter().any(|command| cure.starts_with(command)) {
            "redis-tp adopt".clone_into(cure);
        }
    }
    check
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
        time: Duration::ZERO,
    };
    Audited { check, fixes: Vec::new() }
}

/// 4 if the machine is not fit, or something as severe was found.
fn code<'a>(checks: impl IntoIterator<Item = &'a Check>, fail_on: Severity) -> Code {
    let counts = |check: &Check| check.severity.is_none_or(|severity| severity >= fail_on);
    match checks.into_iter().any(|check| check.is_bad() && counts(check)) {
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
        plan::fix::add(&wanted, &scene.facts, &fixes, &mut plan)?;
        if !args.json {
            report::reasons(&audited).into_iter().for_each(console::out);
        }
        Ok(plan)
    };
    let change = cli::Change { dry_run: args.dry_run, json: args.json, ..cli::Change::default() };
    let outcome = converge_in(&session, "check --fix", &change, wish, plan)?;
    if !args.json {
        outcome.finish("check --fix", &change, None)?;
    }
    drop(session);
    let (left, time) = match args.dry_run {
        true => (None, Duration::ZERO),
        false => {
            let start = host.now();
            (Some(audit::audit(host, &look(host, &Scene::standing(host)?)?, &args.except)), start.elapsed())
        }
    };
    let found = left.as_ref().unwrap_or(&audited);
    let code = match args.dry_run {
        true => Code::Done,
        false => code(found.iter().map(|done| &done.check), args.fail_on),
    };
    if args.json {
        let fixes = audited.iter().filter_map(fixed).collect();
        console::json(&FixJson {
            outcome: outcome.word(args.dry_run),
            plan: show::json("check --fix", &outcome.plan),
            checks: found.iter().map(|done| &done.check).collect(),
            time,
            fail_on: args.fail_on,
            fixes,
        })?;
        return Ok(code);
    }
    tell_left(found, args, time);
    Ok(code)
}

fn fixed(done: &Audited) -> Option<Fixed<'_>> {
    let Audited { check, fixes } = done;
    let Check { id, subject, severity, finding, .. } = check;
    (!fixes.is_empty()).then(|| Fixed {
        id,
        subject,
        severity: *severity,
        finding,
        fix: report::words(fixes),
    })
}

/// What is left for a person to do; before a dry run's fixes, those have theirs.
fn tell_left(found: &[Audited], args: &cli::Check, time: Duration) {
    let findings = |checks| Findings { schema: check::SCHEMA, command: "check", checks, time };
    let left = found.iter().filter(|done| done.fixes.is_empty() || !args.dry_run);
    let left = findings(left.map(|done| done.check.clone()).collect());
    console::out("");
    report::lines(&left, args.all).into_iter().for_each(console::out);
    let all = findings(found.iter().map(|done| done.check.clone()).collect());
    console::out(report::count(&all));
}
