//! `redis-tp restore`: a backup in the place of what an instance holds.

use std::path::Path;

use anyhow::Result;

use super::converge::{Session, carry_out};
use super::scene::Scene;
use super::status;
use crate::apply::holdings;
use crate::backup::{HEAD, Head, head};
use crate::cli;
use crate::exit::{Code, Fault};
use crate::host::Host;
use crate::plan::Consent;
use crate::plan::restore::{self, Wish};
use crate::report::console;
use crate::report::plan as show;

/// Runs the verb.
///
/// # Errors
/// The file is no sound RDB, or none for this server; a step failed and was undone.
pub fn run(host: &Host, args: &cli::Restore) -> Result<Code> {
    let file = std::path::absolute(&args.file)?;
    let head = look(host, &file)?;
    let _session = Session::open(host, args.dry_run)?;
    let mut scene = Scene::standing(host)?;
    scene.facts.state.refuse_lost(host)?;
    let password = scene.secrets.password.clone();
    scene.facts.holdings = holdings::of(host, &scene.facts.state, password.as_ref())?;
    let data = restore::data(scene.pick(args.name.as_ref())?, &scene.facts);
    for path in data {
        if let Some(stat) = host.stat(&path)? {
            scene.facts.paths.insert(path, stat);
        }
    }
    let wish = Wish {
        file: &host.real_path(&file),
        head,
        length: host.length(&file),
        instance: scene.pick(args.name.as_ref())?,
        instances: &scene.instances,
    };
    let consent = Consent { no_backup: args.no_backup, ..Consent::default() };
    let plan = restore::plan(&wish, &scene.facts, consent)?;
    if !args.dry_run {
        carry_out(host, &plan, &scene.facts.state, "restore", args.json)?;
    }
    if args.json {
        console::json(&show::json("restore", &plan))?;
    } else if args.dry_run {
        show::steps(&plan).into_iter().for_each(console::out);
    } else {
        status::print_tree(host, &Scene::standing(host)?)?;
        show::backups(&plan.steps, |path| host.length(path)).into_iter().for_each(console::err);
        console::next(&[("redis-tp verify", "prove that it works")]);
    }
    Ok(Code::Done)
}

/// The head of a backup.
fn look(host: &Host, file: &Path) -> Result<Head> {
    let name = file.display();
    let cure = "give an RDB: what redis-tp backup made, or a dump.rdb";
    let bytes = host
        .beginning(file, HEAD)
        .map_err(|error| Fault::refused(format!("{error:#}")).hint(cure))?
        .ok_or_else(|| Fault::refused(format!("there is no file {name}")).hint(cure))?;
    Ok(head(&bytes).map_err(|why| Fault::refused(format!("{name} {why}")).hint(cure))?)
}
