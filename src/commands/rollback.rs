//! `redis-tp rollback`: undo the last run, or finish the way back of one that was interrupted.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::converge::Session;
use crate::apply;
use crate::cli;
use crate::exit::Code;
use crate::host::Host;
use crate::journal::{self, Record, Undo};
use crate::report::console;
use crate::state;

#[derive(Debug, Serialize)]
struct Json<'a> {
    schema: u32,
    command: &'static str,
    /// The command that is undone, if there is one.
    undone: Option<&'a str>,
    steps: Vec<String>,
}

/// Undoes the last run.
///
/// # Errors
/// Something was changed by hand since (5); the way back failed (9).
pub fn run(host: &Host, args: &cli::Rollback) -> Result<Code> {
    let interrupted = journal::unfinished(host)?;
    let session = Session::open(host, args.dry_run)?;
    let record = match interrupted {
        // Opening the session has undone it.
        Some(record) => Some(record),
        None => journal::last_done(host)?,
    };
    let open = record.as_ref().is_some_and(|record| record.end.is_none());
    if let Some(record) = record.as_ref().filter(|_| !args.dry_run && !open) {
        host.ignore_interruptions();
        apply::roll_back(host, record, args.overwrite)?;
    }
    drop(session);
    report(args, record.as_ref())
}

fn report(args: &cli::Rollback, record: Option<&Record>) -> Result<Code> {
    let mut steps: Vec<String> = Vec::new();
    for step in record.iter().flat_map(|record| record.undo.iter().rev()).filter_map(describe) {
        // What was announced twice is done once.
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    if args.json {
        console::json(&Json {
            schema: 1,
            command: "rollback",
            undone: record.map(|record| record.command.as_str()),
            steps,
        })?;
        return Ok(Code::Done);
    }
    match record {
        None => console::out("No changes: there is no run to undo."),
        Some(record) if args.dry_run => {
            console::out(format_args!("'redis-tp {}' would be undone:", record.command));
            steps.iter().for_each(|step| console::out(format_args!("  {step}")));
        }
        Some(record) => {
            console::out(format_args!("'redis-tp {}' is undone.", record.command));
            console::next(&[("redis-tp status", "what there is now")]);
        }
    }
    Ok(Code::Done)
}

/// An undo in words; none for our own bookkeeping.
fn describe(undo: &Undo) -> Option<String> {
    let ours = |path: &Path| path.starts_with(state::dir());
    Some(match undo {
        Undo::File { path, .. } | Undo::Directory { path, .. } if ours(path) => return None,
        Undo::File { path, before: Some(_) } => format!("put {} back", path.display()),
        Undo::File { path, before: None } => format!("remove {}", path.display()),
        Undo::Directory { path, before: Some(_), .. } => {
            format!("give {} its owner and mode back", path.display())
        }
        Undo::Directory { path, before: None, copy: true } => format!("remove {}", path.display()),
        Undo::Directory { path, before: None, copy: false } => {
            format!("remove {} if it is empty", path.display())
        }
        Undo::Owner { path, .. } => format!("give {} its owner and mode back", path.display()),
        Undo::Revive { target, .. } => format!("start {} as it was started by hand", target.name),
        Undo::Stop { target } => format!("stop {}", target.name),
        Undo::Start { target, .. } => format!("start {} with its former configuration", target.name),
        Undo::StartUnit { unit } => format!("start {unit}"),
        Undo::StopUnit { unit } => format!("stop {unit}"),
        Undo::Enabled { unit, before: true } => format!("enable {unit}"),
        Undo::Enabled { unit, before: false } => format!("disable {unit}"),
        Undo::Set { target, before, secret } => {
            let mut names: Vec<&str> = before.keys().chain(secret).map(String::as_str).collect();
            names.sort_unstable();
            format!("set {} on {} back", names.join(", "), target.name)
        }
        Undo::Password { target } => format!("let {} take the former password only", target.name),
        Undo::Users { target, .. } => format!("let {} take its former users only", target.name),
        Undo::Certificates { target } => format!("let {} read its former certificates", target.name),
        Undo::Replaced { path, aside: Some(_), .. } => format!("put the former {} back", path.display()),
        Undo::Replaced { path, aside: None, .. } => format!("remove {}", path.display()),
        Undo::Role { .. } | Undo::Staged { .. } => return None,
        Undo::Kernel { path, before } => format!("set {} to {before} again", path.display()),
        Undo::Reload => "let systemd read its units again".into(),
        Undo::StopApp { .. } => "stop the web app".into(),
        Undo::StartApp { .. } => "start the web app again".into(),
        Undo::User { name } => format!("remove the user {name}"),
        Undo::Container { program, name, before: None, .. } => {
            format!("remove the {program} container {name}")
        }
        Undo::Container { program, name, before: Some(_), .. } => {
            format!("make the {program} container {name} as it was")
        }
        Undo::Network { program, before: false } => format!("remove the {program} network"),
        Undo::Network { program, before: true } => format!("make the {program} network again"),
        Undo::Volume { program, name, copy: true } => format!("remove the {program} volume {name}"),
        Undo::Volume { program, name, copy: false } => {
            format!("remove the {program} volume {name} if it is empty")
        }
        Undo::Boot { name, before: true, .. } => format!("start {name} at boot"),
        Undo::Boot { name, before: false, .. } => format!("no longer start {name} at boot"),
        Undo::Packages { engine, .. } => format!("take {} away", engine.package()),
    })
}
