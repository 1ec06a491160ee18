//! `redis-tp backup`: a checked RDB of what instances hold.

use std::path::Path;

use anyhow::Result;

use super::backups;
use super::converge::{Session, carry_out};
use super::scene::Scene;
use crate::apply::holdings;
use crate::backup;
use crate::cli;
use crate::exit::{Code, Fault};
use crate::host::{Host, Kind};
use crate::instance::Instance;
use crate::plan::{self, Plan};
use crate::report::console;
use crate::report::plan as show;
use crate::step::{Source, Step};

/// Runs the verb.
///
/// # Errors
/// An instance cannot be read; there is no room; what came is not sound.
pub fn run(host: &Host, args: &cli::Backup) -> Result<Code> {
    if args.list {
        return backups::list(host, args);
    }
    let _session = Session::open(host, args.dry_run)?;
    let mut scene = Scene::standing(host)?;
    scene.facts.state.refuse_lost(host)?;
    let password = scene.secrets.password.clone();
    scene.facts.holdings = holdings::of(host, &scene.facts.state, password.as_ref())?;
    let chosen: Vec<&Instance> = match &args.name {
        Some(name) => vec![scene.pick(Some(name))?],
        None => scene.instances.iter().collect(),
    };
    let mut steps = Vec::new();
    for instance in chosen {
        let facts = &scene.facts;
        let step = plan::backup::of(facts, instance.target())?;
        // Who names a replica, or an empty one, wants it.
        let named = args.name.is_some() && facts.running.contains_key(&instance.name);
        let whole = || plan::backup::step(facts, instance.target(), Source::Server);
        steps.extend(step.or_else(|| named.then(whole)));
    }
    if let Some(to) = &args.to {
        put(host, to, scene.facts.time, &mut steps)?;
    }
    let plan = Plan { steps, passing: true, ..Plan::default() };
    if !args.dry_run && !plan.is_empty() {
        carry_out(host, &plan, &scene.facts.state, "backup", args.json)?;
    }
    if args.json {
        console::json(&show::json("backup", &plan))?;
    } else if plan.is_empty() {
        console::out("There is nothing to back up: no instance holds a key of its own.");
    } else if args.dry_run {
        show::steps(&plan).into_iter().for_each(console::out);
    } else {
        show::backups(&plan.steps, |path| host.length(path)).into_iter().for_each(console::out);
    }
    Ok(Code::Done)
}

/// Puts backups where the user wants them: several into a directory, a single one also into a file.
fn put(host: &Host, to: &Path, time: u64, steps: &mut [Step]) -> Result<(), Fault> {
    let to = std::path::absolute(to).unwrap_or_else(|_| to.to_path_buf());
    if to.to_str().is_none() {
        return Err(Fault::refused(format!("the name {} is no UTF-8 text", to.display()))
            .hint("the journal could not tell of it; give another place:\nredis-tp backup --to DIRECTORY"));
    }
    let at = |path: &Path| host.stat(path).ok().flatten().map(|stat| stat.kind);
    // With a slash behind it, it is a directory or nothing.
    let slash = to.as_os_str().as_encoded_bytes().ends_with(b"/");
    let into = match at(&to) {
        Some(Kind::Dir) => true,
        Some(_) => {
            return Err(Fault::refused(format!("{} is there already", to.display()))
                .hint("give another file, or a directory"));
        }
        None if slash => {
            return Err(Fault::refused(format!("there is no directory {}", to.display()))
                .hint(format!("make it:\nmkdir -p {}", to.display())));
        }
        None if steps.len() > 1 => {
            return Err(Fault::refused(format!("{} is no directory", to.display()))
                .hint(format!("make it, or name one instance:\nmkdir {}", to.display())));
        }
        None if to.parent().is_some_and(|parent| at(parent) == Some(Kind::Dir)) => false,
        None => {
            return Err(Fault::refused(format!("there is no directory for {}", to.display()))
                .hint(format!("make it:\nmkdir -p {}", to.parent().unwrap_or(&to).display())));
        }
    };
    let dir = if into { to.as_path() } else { to.parent().unwrap_or(&to) };
    if !host.may_write(dir) {
        return Err(Fault::refused(format!("{} cannot be written to", dir.display()))
            .hint("give another place:\nredis-tp backup --to DIRECTORY"));
    }
    for step in steps {
        if let Step::Backup { target, path, .. } = step {
            *path = match into {
                true => backup::path(&to, &target.name, time, |path| at(path).is_some()),
                false => to.clone(),
            };
        }
    }
    Ok(())
}
