//! `redis-tp uninstall`: everything of ours, gone.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::converge::{Session, carry_out};
use crate::apply::containers::sweep;
use crate::apply::holdings;
use crate::backup as backups;
use crate::cli;
use crate::engine::MASTER;
use crate::exit::{Code, Fault};
use crate::facts::{Facts, Holding, containers};
use crate::host::{Host, Kind};
use crate::plan::{Consent, backup, containers as plan_containers, leave, refuse};
use crate::report::console;
use crate::report::plan as show;
use crate::secret::Secret;
use crate::secrets;
use crate::state::{Kept, State};
use crate::topology::{self, Name, Topology};

/// Takes away what our record names.
///
/// # Errors
/// A step failed; a purge that was interrupted is finished by the same command.
pub fn run(host: &Host, args: &cli::Uninstall) -> Result<Code> {
    let _session = Session::open(host, args.dry_run)?;
    let text = host.text(topology::file())?;
    let topology = text.as_deref().and_then(|text| Topology::parse(text, topology::file()).ok());
    let mut facts = facts(host)?;
    facts.state.refuse_lost(host)?;
    refuse::exchanged(&facts)?;
    if let Some(program) = containers::recorded(host, &mut facts) {
        plan_containers::answers(program, &facts)?;
        if !args.dry_run {
            sweep(host, program)?;
        }
    }
    // With --purge all goes, and says so.
    if !args.purge && !args.overwrite {
        refuse::edited(&facts)?;
    }
    if args.purge && !facts.state.packages.is_empty() {
        refuse_mounted(host, &facts.state)?;
    }
    let password = host.text(&secrets::password_file())?.and_then(|text| Secret::parse(&text).ok());
    if !args.no_backup {
        facts.holdings = holdings::of(host, &facts.state, password.as_ref())?;
    }
    let mut plan = leave(topology.as_ref(), &facts, password.clone(), args.purge);
    // Without a purge only that goes which no server ever saves.
    let goes = |holding: &Holding| args.purge || matches!(holding, Holding::Unsaved(_));
    let names: Vec<&Name> =
        facts.holdings.iter().filter(|(_, holding)| goes(holding)).map(|(name, _)| name).collect();
    let consent = Consent { no_backup: args.no_backup, ..Consent::default() };
    backup::before(&mut plan, &facts, &names, password.as_ref(), consent)?;
    let known = facts.state != State::default() && (args.purge || !plan.is_empty());
    if !args.dry_run && (known || (args.purge && topology.is_some())) {
        carry_out(host, &plan, &facts.state, "uninstall", args.json)?;
    }
    if args.json {
        console::json(&show::json("uninstall", &plan))?;
    } else if args.dry_run {
        show::steps(&plan).into_iter().for_each(console::out);
        show::notes(&plan.notes).into_iter().for_each(console::err);
    } else {
        say(known, args.purge, &facts);
        show::backups(&plan.steps, |path| host.length(path)).into_iter().for_each(console::out);
        show::notes(&plan.notes).into_iter().for_each(console::err);
    }
    Ok(Code::Done)
}

/// What our record names, and how its files and its data are now.
fn facts(host: &Host) -> Result<Facts> {
    let mut facts = Facts {
        state: State::load(host)?,
        backups: backups::there(host)?,
        time: host.unix_time(),
        ..Facts::default()
    };
    for path in facts.state.instances.values().flat_map(Kept::paths) {
        if host.stat(path)?.is_some_and(|stat| stat.kind == Kind::Link) {
            facts.links.insert(path.to_path_buf(), host.real_path(path));
        }
    }
    for path in facts.state.files.keys() {
        facts.paths.extend(host.stat(path)?.map(|stat| (path.clone(), stat)));
        // What is not text any more is left to the eyes: it cannot be compared.
        if let (Ok(Some(there)), Some(written)) = (host.text(path), host.text(&State::written(path))?) {
            facts.texts.insert(path.clone(), Secret::new(there));
            facts.written.insert(path.clone(), Secret::new(written));
        }
    }
    Ok(facts)
}

/// The package's own purge takes its directories away, and cannot take one that is a disk of its own: it would
/// fail when the data have gone.
fn refuse_mounted(host: &Host, state: &State) -> Result<()> {
    let mounts = host.lossy(Path::new("/proc/self/mounts"))?.unwrap_or_default();
    let mounted = |dir: &PathBuf| mounts.lines().any(|line| line.split(' ').nth(1) == dir.to_str());
    let dirs = state.instances.values().flat_map(|kept| [kept.engine.data(MASTER), kept.engine.log()]);
    match dirs.into_iter().find(mounted) {
        None => Ok(()),
        Some(dir) => Err(Fault::refused(format!(
            "{} is a disk of its own, and the purge of the package would not get over it",
            dir.display()
        ))
        .hint(format!(
            "stop what writes to it, take it out, and take the rest away:\nredis-tp backup\nredis-tp uninstall\numount {}\nredis-tp uninstall --purge",
            dir.display()
        ))
        .into()),
    }
}

fn say(known: bool, purge: bool, facts: &Facts) {
    if !known {
        console::out("No changes: nothing of redis-tp's runs here.");
    } else if purge {
        console::out("Everything of redis-tp's is gone.");
    } else {
        console::out("The instances are stopped and our files are gone. Data, topology and package stay:");
        for kept in facts.state.instances.values() {
            console::out(format_args!("  {}", kept.dir));
        }
        console::next(&[
            ("redis-tp up", "bring it all back"),
            ("redis-tp uninstall --purge", "take data, passwords and package, too"),
        ]);
    }
}
