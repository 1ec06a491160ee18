//! A plan for eyes: its steps, its diffs, and the commands that a person would have typed.

use std::path::Path;

use serde::Serialize;
use similar::TextDiff;

use super::console::{BAD, FAINT, GOOD, NOTE, styled};
use super::text::bytes;
use crate::conf;
use crate::facts::Facts;
use crate::plan::adopt::Adopted;
use crate::plan::{Note, Plan};
use crate::step::{Body, Step};

/// A plan, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Json<'a> {
    schema: u32,
    command: &'a str,
    /// Whether there is something to do.
    pending: bool,
    /// Whether somebody's hand made the machine differ from the topology.
    drift: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    adopted: &'a [Adopted],
    steps: Vec<StepJson<'a>>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StepJson<'a> {
    #[serde(flatten)]
    step: &'a Step,
    description: String,
}

/// A run that failed, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Failed<'a> {
    schema: u32,
    command: &'a str,
    /// `failed`
    outcome: &'static str,
    error: String,
    /// The backups that were taken before, which stay.
    backups: Vec<Taken<'a>>,
}

#[derive(Debug, Serialize)]
struct Taken<'a> {
    instance: &'a str,
    path: &'a Path,
    bytes: u64,
}

/// A run that failed, and the backups that it had taken by then, for `--json`.
pub fn failed<'a>(
    command: &'a str,
    error: &anyhow::Error,
    done: &[&'a Step],
    length: impl Fn(&Path) -> u64,
) -> Failed<'a> {
    let taken = |step: &&'a Step| match step {
        Step::Backup { target, path, .. } => {
            Some(Taken { instance: target.name.as_str(), path, bytes: length(path) })
        }
        _ => None,
    };
    Failed {
        schema: 1,
        command,
        outcome: "failed",
        error: format!("{error:#}"),
        backups: done.iter().filter_map(taken).collect(),
    }
}

/// A plan for `--json`.
pub fn json<'a>(command: &'a str, plan: &'a Plan) -> Json<'a> {
    let step = |step: &'a Step| StepJson { step, description: step.describe() };
    Json {
        schema: 1,
        command,
        pending: !plan.is_empty(),
        drift: plan.has_drift(),
        adopted: &plan.adopted,
        steps: plan.steps.iter().map(step).collect(),
        notes: plan.notes.iter().map(ToString::to_string).collect(),
    }
}

/// The steps, one a line.
pub fn steps(plan: &Plan) -> Vec<String> {
    let lines = plan.steps.iter().enumerate().flat_map(|(index, step)| {
        let cost = step.cost().map(|cost| format!("     {}", styled(NOTE, cost)));
        std::iter::once(format!("{:>3}. {}", index + 1, step.describe())).chain(cost)
    });
    lines.collect()
}

/// What is left as it is, one a line.
pub fn notes(notes: &[Note]) -> Vec<String> {
    notes.iter().map(|note| format!("{} {note}", styled(NOTE, "note:"))).collect()
}

/// Where the backups of some steps are, one a line.
pub fn backups<'a>(steps: impl IntoIterator<Item = &'a Step>, length: impl Fn(&Path) -> u64) -> Vec<String> {
    let line = |step: &Step| match step {
        Step::Backup { target, path, .. } => {
            Some(format!("backup of {}: {} ({})", target.name, path.display(), bytes(length(path))))
        }
        _ => None,
    };
    steps.into_iter().filter_map(line).collect()
}

/// What a person would have typed.
pub fn shell(plan: &Plan) -> Vec<String> {
    plan.steps.iter().flat_map(Step::shell).collect()
}

/// What changes in each file, as unified diffs with the secrets masked.
pub fn diff(plan: &Plan, facts: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &plan.steps {
        if let Step::Write { path, body, .. } = step {
            let old = match body {
                Body::Secret(_) => String::new(),
                Body::Conf(_) | Body::Plain(_) => conf::mask(facts.text(path).unwrap_or_default()),
            };
            let from = if old.is_empty() { "/dev/null".into() } else { path.display().to_string() };
            let new = body.masked();
            // The topology is written as it is, for a copy of it.
            if !old.is_empty() && facts.text(path) == Some(body.expose()) {
                continue;
            }
            let text = TextDiff::from_lines(&old, &new);
            let unified =
                text.unified_diff().context_radius(2).header(&from, &path.display().to_string()).to_string();
            // A secret that changed looks the same behind its mask.
            if unified.is_empty() {
                lines.push(styled(FAINT, format_args!("{}: only what is masked changes", path.display())));
            }
            lines.extend(unified.lines().map(paint));
        }
    }
    lines
}

fn paint(line: &str) -> String {
    match line.get(..1) {
        Some("+") => styled(GOOD, line),
        Some("-") => styled(BAD, line),
        Some("@") => styled(FAINT, line),
        _ => line.to_owned(),
    }
}
