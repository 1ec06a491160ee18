//! The way that every change takes: lock, recover, facts, plan, apply. There is one planner and no
//! second path; `install`, `replica add` and `up` only edit the topology first.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use super::scene::{Scene, Wish};
use crate::apply::{self, Event};
use crate::cli;
use crate::exit::Code;
use crate::finding::Findings;
use crate::host::Host;
use crate::journal::{self, Lock};
use crate::plan::{self, Consent, Plan};
use crate::prove;
use crate::report::console::{self, FAINT, GOOD, NOTE, styled};
use crate::report::progress::{Progress, human};
use crate::report::{self, plan as show};
use crate::state::State;
use crate::step::Step;

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What was planned, and done unless it was a dry run.
    pub plan: Plan,
    /// The scene before it.
    pub scene: Scene,
    /// Whether anything was done.
    pub changed: bool,
    started: Instant,
}

/// A run's result as `--json` prints it.
#[derive(Debug, Serialize)]
struct Json<'a> {
    /// `changed`, `no-changes` or `planned`.
    outcome: &'static str,
    #[serde(flatten)]
    plan: show::Json<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<&'a Findings>,
}

/// Brings the machine to a wish.
///
/// # Errors
/// Refused, failed and rolled back, or worse; see [`crate::exit::Fault`].
pub fn converge(
    host: &Host,
    command: &str,
    change: &cli::Change,
    wish: impl FnOnce(&Host) -> Result<Wish>,
    plan: impl FnOnce(&Scene) -> Result<Plan>,
) -> Result<Outcome> {
    let session = Session::open(host, change.dry_run)?;
    converge_in(&session, command, change, wish, plan)
}

/// [`converge`] by those who had to look at the machine before, under the same lock.
///
/// # Errors
/// As there.
pub fn converge_in(
    session: &Session<'_>,
    command: &str,
    change: &cli::Change,
    wish: impl FnOnce(&Host) -> Result<Wish>,
    plan: impl FnOnce(&Scene) -> Result<Plan>,
) -> Result<Outcome> {
    let host = session.host;
    let started = host.now();
    let mut wish = wish(host)?;
    let scene = Scene::load(host, &wish)?;
    let scene = if change.adopt { scene.adopting(host, &mut wish)? } else { scene };
    let plan = plan(&scene)?;
    if change.dry_run {
        prove_now(host, &scene, &plan)?;
        return Ok(Outcome { plan, scene, changed: false, started });
    }
    let changed = !plan.is_empty();
    if changed {
        carry_out(host, &plan, &scene.facts.state, command, change.json)?;
        show::backups(&plan.steps, |path| host.length(path)).into_iter().for_each(console::err);
    }
    Ok(Outcome { plan, scene, changed, started })
}

/// Carries a plan out, and shows how it goes. Where it fails, the backups that were taken by then stay, and it
/// is told where they are.
///
/// # Errors
/// See [`apply::apply`].
pub fn carry_out(host: &Host, plan: &Plan, state: &State, command: &str, json: bool) -> Result<()> {
    let mut progress = Progress::new();
    let mut done = 0;
    let ended = apply::apply(host, plan, state, command, &mut |event: Event<'_>| {
        done += usize::from(matches!(event, Event::Done(..)));
        progress.tell(&event);
    });
    drop(progress);
    if let Err(error) = &ended {
        let done: Vec<&Step> = plan.steps.iter().take(done).collect();
        let length = |path: &Path| host.length(path);
        if json {
            console::json(&show::failed(command, error, &done, length))?;
        }
        show::backups(done, length).into_iter().for_each(console::err);
    }
    ended.map(drop)
}

/// A dry run may look as closely as a real one: a proof has no effect.
fn prove_now(host: &Host, scene: &Scene, plan: &Plan) -> Result<()> {
    // A signal ends a proof early, and its scratch directory goes with it.
    host.catch_signals()?;
    let proofs = plan.steps.iter().filter_map(|step| match step {
        Step::Prove { candidates, inside } if scene.facts.installed() => Some((candidates, inside)),
        _ => None,
    });
    proofs
        .into_iter()
        .try_for_each(|(candidates, inside)| prove::prove_all(host, candidates, inside.as_ref()).map(drop))
}

/// The right to change the machine, after what a killed run left behind is cleared away. A dry run
/// takes none, and clears nothing.
#[derive(Debug)]
pub struct Session<'a> {
    lock: Option<Lock>,
    host: &'a Host,
}

impl<'a> Session<'a> {
    /// Opens a session.
    ///
    /// # Errors
    /// Another run is at work (6); an open journal cannot be undone (9).
    pub fn open(host: &'a Host, dry_run: bool) -> Result<Self> {
        if dry_run {
            if journal::unfinished(host)?.is_some() {
                console::err(format_args!(
                    "{} an interrupted run is open; the next real run undoes it first",
                    styled(NOTE, "note:")
                ));
            }
            return Ok(Self { lock: None, host });
        }
        // From here on there is something to be taken away again, whatever comes.
        host.catch_signals()?;
        let session = Self { lock: Some(Lock::take(host)?), host };
        host.sweep()?;
        let mut progress = Progress::new();
        if let Some(run) = apply::recover(host, &mut |event: Event<'_>| progress.tell(&event))? {
            let what = match (run.no_return, run.undoing) {
                (true, _) => "did not end, and data had gone already; the same command finishes it",
                (_, true) => "was being rolled back when that was interrupted; now it is",
                _ => "was interrupted; what it had begun is undone",
            };
            console::err(format_args!("{} an earlier '{}' {what}", styled(NOTE, "note:"), run.command));
        }
        Ok(session)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.lock.take().map(|lock| lock.release(self.host)) {
            console::err(format_args!("{} {error:#}", styled(NOTE, "note:")));
        }
    }
}

impl Outcome {
    /// What became of it, in a word.
    pub fn word(&self, dry_run: bool) -> &'static str {
        match (dry_run, self.changed) {
            (true, _) => "planned",
            (false, true) => "changed",
            (false, false) => "no-changes",
        }
    }

    /// Prints the result, and gives the exit code.
    pub fn finish(&self, command: &str, change: &cli::Change, verify: Option<&Findings>) -> Result<Code> {
        let code = match verify.map(Findings::code) {
            Some(Code::Findings) => Code::Findings,
            _ if self.plan.has_drift() && !change.dry_run => Code::Pending,
            _ => Code::Done,
        };
        if change.json {
            let outcome = self.word(change.dry_run);
            console::json(&Json { outcome, plan: show::json(command, &self.plan), verify })?;
            return Ok(code);
        }
        if change.dry_run {
            print_plan(&self.plan);
        } else if !self.changed {
            console::out(format_args!(
                "{} {}",
                styled(GOOD, "No changes."),
                styled(FAINT, human(self.started.elapsed()))
            ));
        }
        report::plan::notes(&self.plan.notes).into_iter().for_each(console::err);
        Ok(code)
    }
}

fn print_plan(plan: &Plan) {
    if plan.is_empty() {
        console::out(styled(GOOD, "No changes."));
    }
    show::steps(plan).into_iter().for_each(console::out);
}

/// The planner over the whole topology.
pub fn whole(consent: Consent) -> impl FnOnce(&Scene) -> Result<Plan> {
    move |scene| plan::plan(&scene.wanted(consent), &scene.facts)
}

/// `redis-tp apply`
///
/// # Errors
/// See [`converge`].
pub fn apply(host: &Host, args: cli::Apply) -> Result<Code> {
    let wish = |host: &Host| {
        let wish = match &args.file {
            Some(file) => Wish::from_file(host, file)?,
            None => Wish::standing(host)?,
        };
        wish.refuse_nothing()?;
        Ok(wish)
    };
    let outcome = converge(host, "apply", &args.change, wish, whole(args.change.consent()))?;
    let code = outcome.finish("apply", &args.change, None)?;
    if outcome.changed && !args.change.json {
        console::next(&[
            ("redis-tp verify", "prove it over the wire"),
            ("redis-tp status", "the tree of instances"),
        ]);
    }
    Ok(code)
}

/// `redis-tp plan`
///
/// # Errors
/// The topology cannot be read, or the machine does not allow it.
pub fn plan(host: &Host, args: cli::Plan) -> Result<Code> {
    let mut wish = match &args.file {
        Some(file) => Wish::from_file(host, file)?,
        None => Wish::standing_or(host, crate::topology::LAB)?,
    };
    wish.refuse_nothing()?;
    let _session = Session::open(host, true)?;
    let scene = Scene::load(host, &wish)?;
    let scene = if args.adopt { scene.adopting(host, &mut wish)? } else { scene };
    let plan = plan::plan(
        &scene.wanted(Consent {
            overwrite: args.overwrite,
            force: args.force,
            adopt: args.adopt,
            ..Consent::default()
        }),
        &scene.facts,
    )?;
    prove_now(host, &scene, &plan)?;
    if args.json {
        console::json(&show::json("plan", &plan))?;
    } else if args.diff {
        show::diff(&plan, &scene.facts).into_iter().for_each(console::out);
    } else if args.shell {
        show::shell(&plan).into_iter().for_each(console::out);
    } else {
        print_plan(&plan);
    }
    if !args.json {
        show::notes(&plan.notes).into_iter().for_each(console::err);
        if !plan.is_empty() && !args.shell && !args.diff {
            let file = args.file.as_ref().map_or_else(String::new, |file| format!(" -f {}", file.display()));
            let verb = if wish.standing.is_none() && args.file.is_none() {
                "up".into()
            } else {
                format!("apply{file}")
            };
            console::next(&[
                (&format!("redis-tp {verb}"), "take these steps"),
                ("redis-tp plan --diff", "what changes in each file"),
            ]);
        }
    }
    Ok(match args.detailed_exitcode && (!plan.is_empty() || plan.has_drift()) {
        true => Code::Pending,
        false => Code::Done,
    })
}
