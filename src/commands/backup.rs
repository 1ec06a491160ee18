//! `redis-tp backup`: a checked RDB of what instances hold.

use std::path::Path;

use anyhow::Result;

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
    let _session = Session::open(host, args.dry_run)?;
    let mut scene = Scene::standing(host)?;
    let password = scene.secrets.password.clone();
    scene.facts.holdings = holdings::of(host, &scene.facts.state, password.as_ref())?;
    let chosen: Vec<&Instance> = match &args.name {
        Some(name) => vec![scene.pick(Some(name))?],
        None => scene.instances.iter().collect(),
    };
    let mut steps = Vec::new();
    for instance in chosen {
        let facts = &scene.facts;
        let step = plan::backup::of(facts, instance.target(), &backup::dir())?;
        // Who names a replica, or an empty one, wants it.
        let named = args.name.is_some() && facts.running.contains_key(&instance.name);
        let whole = || Step::Backup {
            target: instance.target(),
            source: Source::Server,
            path: backup::path(&backup::dir(), &instance.name, facts.time),
        };
        steps.extend(step.or_else(|| named.then(whole)));
    }
    if let Some(to) = &args.to {
        put(host, to, &mut steps)?;
    }
    let plan = Plan { steps, passing: true, ..Plan::default() };
    if args.json {
        console::json(&show::json("backup", &plan))?;
    } else if args.dry_run {
        show::steps(&plan).into_iter().for_each(console::out);
    }
    if plan.is_empty() && !args.json {
        console::out("There is nothing to back up: no instance holds a key of its own.");
    }
    if args.dry_run || plan.is_empty() {
        return Ok(Code::Done);
    }
    carry_out(host, &plan, &scene.facts.state, "backup")?;
    if !args.json {
        show::backups(&plan, |path| host.length(path)).into_iter().for_each(console::out);
    }
    Ok(Code::Done)
}

/// Puts backups where the user wants them: several into a directory, a single one also into a file.
fn put(host: &Host, to: &Path, steps: &mut [Step]) -> Result<(), Fault> {
    let to = std::path::absolute(to).unwrap_or_else(|_| to.to_path_buf());
    let at = |path: &Path| host.stat(path).ok().flatten().map(|stat| stat.kind);
    let into = match at(&to) {
        Some(Kind::Dir) => true,
        Some(_) => {
            return Err(Fault::refused(format!("{} is there already", to.display()))
                .hint("give another file, or a directory"));
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
    for step in steps {
        if let Step::Backup { path, .. } = step {
            *path = match into {
                true => to.join(path.file_name().unwrap_or_default()),
                false => to.clone(),
            };
        }
    }
    Ok(())
}
