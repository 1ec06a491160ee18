//! `redis-tp backup`: a checked RDB of what instances hold.

use std::path::{Path, PathBuf};

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
    let place = Place::of(host, args.to.as_deref(), chosen.len())?;
    let mut steps = Vec::new();
    for instance in chosen {
        let mut step = plan::backup::of(&scene.facts, instance.target(), place.dir())?;
        let named = args.name.is_some();
        // Who names a replica, or an empty one, wants it.
        if named && step.is_none() && scene.facts.running.contains_key(&instance.name) {
            let path = backup::path(place.dir(), &instance.name, scene.facts.time);
            step = Some(Step::Backup { target: instance.target(), source: Source::Server, path });
        }
        if let (Some(Step::Backup { path, .. }), Place::File(file)) = (&mut step, &place) {
            path.clone_from(file);
        }
        steps.extend(step);
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

/// Where backups go.
enum Place {
    /// One, to this file.
    File(PathBuf),
    /// To this directory.
    Dir(PathBuf),
}

impl Place {
    fn of(host: &Host, to: Option<&Path>, count: usize) -> Result<Self, Fault> {
        let Some(to) = to else { return Ok(Self::Dir(backup::dir())) };
        let to = std::path::absolute(to).unwrap_or_else(|_| to.to_path_buf());
        let at = |path: &Path| host.stat(path).ok().flatten().map(|stat| stat.kind);
        match at(&to) {
            Some(Kind::Dir) => Ok(Self::Dir(to)),
            Some(_) => Err(Fault::refused(format!("{} is there already", to.display()))
                .hint("give another file, or a directory")),
            None if count > 1 => Err(Fault::refused(format!("{} is no directory", to.display()))
                .hint(format!("make it, or name one instance:\nmkdir {}", to.display()))),
            None if to.parent().is_some_and(|parent| at(parent) == Some(Kind::Dir)) => Ok(Self::File(to)),
            None => Err(Fault::refused(format!("there is no directory for {}", to.display()))
                .hint(format!("make it:\nmkdir -p {}", to.parent().unwrap_or(&to).display()))),
        }
    }

    fn dir(&self) -> &Path {
        match self {
            Self::File(file) => file.parent().unwrap_or(file),
            Self::Dir(dir) => dir,
        }
    }
}
