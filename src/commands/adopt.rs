//! `redis-tp adopt`: takes over a Redis that somebody set up by hand, by the same road as every change.

use anyhow::Result;

use super::converge::{Session, converge_in};
use super::needs_root;
use super::scene::{Scene, Wish};
use super::status;
use crate::adopt::{self, Taken};
use crate::cli;
use crate::engine::Engine;
use crate::exit::{Code, Fault};
use crate::facts::found::{self, Found};
use crate::host::Host;
use crate::layout;
use crate::plan::adopt::Adopted;
use crate::plan::{self, Consent, Plan};
use crate::report::console::{self, FAINT, GOOD, NOTE, styled};
use crate::report::plan as show_plan;
use crate::secret::Secret;
use crate::secrets;
use crate::topology::{self, EMPTY, Topology};

/// Finds what is there, writes the topology that says so, and repairs what is not sound.
///
/// # Errors
/// What cannot be taken over (5), and see [`converge_in`].
pub fn run(host: &Host, args: &cli::Adopt) -> Result<Code> {
    if layout::here().login.is_some() {
        return Err(needs_root("what runs by a file in /etc/redis is root's to hand over").into());
    }
    let given = args.password_file.as_deref().map(|source| secrets::given(host, source)).transpose()?;
    // What a run that was killed left behind is not what somebody set up.
    let session = Session::open(host, args.dry_run)?;
    let found = find(host, args.engine, given.as_ref())?;
    if let Some(unread) = found.unread.first() {
        return Err(Fault::refused(unread.why.clone())
            .hint("move it away, or give the server one that it can read")
            .into());
    }
    let taken = take(host, &found, args, given.as_ref())?;
    if taken.names.is_empty() {
        match args.json {
            true => console::json(&show_plan::json("adopt", &Plan::default()))?,
            false => console::out(format_args!(
                "{} All that is here is in the topology already.",
                styled(GOOD, "No changes.")
            )),
        }
        return Ok(Code::Done);
    }
    let change = cli::Change { dry_run: args.dry_run, json: args.json, ..cli::Change::default() };
    let names = taken.names.clone();
    let wish = |host: &Host| {
        let mut wish = Wish::standing_or(host, EMPTY)?;
        wish.document = taken.document;
        wish.password = taken.password.filter(|_| wish.standing.is_none());
        wish.upstream = taken.upstream;
        wish.parsed().map_err(|fault| {
            let hint = fault.cure().unwrap_or_default().to_owned();
            Fault::refused(format!("what was found does not fit a topology: {fault}")).hint(hint)
        })?;
        Ok(wish)
    };
    let consent = Consent { adopt: true, ..Consent::default() };
    let plan = |scene: &Scene| -> Result<Plan> {
        let mut plan = plan::plan(&scene.wanted(consent), &scene.facts)?;
        plan.adopted =
            plan::adopt::told(&scene.wanted(consent), &scene.facts, &plan, &names, &taken.repairs)?;
        if !args.json {
            plan.adopted.iter().for_each(show);
        }
        Ok(plan)
    };
    let outcome = converge_in(&session, "adopt", &change, wish, plan)?;
    let code = outcome.finish("adopt", &change, None)?;
    if outcome.changed && !args.json {
        console::out("");
        status::print_tree(host, &Scene::standing(host)?)?;
        console::next(&[
            ("redis-tp plan", "what differs from the topology: nothing"),
            ("redis-tp verify", "prove that it works"),
        ]);
    }
    Ok(code)
}

/// What there is of the engine that was asked for, or of the one that is here.
fn find(host: &Host, engine: Option<Engine>, given: Option<&Secret>) -> Result<Found> {
    let engines = engine.map_or_else(|| vec![Engine::Redis, Engine::Valkey], |engine| vec![engine]);
    let processes = found::processes(host)?;
    let mut all = Vec::new();
    for engine in engines {
        let found = found::look(host, engine, given, &processes)?;
        if !(found.sites.is_empty() && found.strays.is_empty() && found.unread.is_empty()) {
            all.push(found);
        }
    }
    match (all.pop(), all.pop()) {
        (Some(found), None) => Ok(found),
        (Some(valkey), Some(redis)) => {
            let what = format!("{} and {} were both set up here", redis.engine, valkey.engine);
            Err(Fault::refused(what)
                .hint("a topology has one of them; say which:\nredis-tp adopt --engine redis")
                .into())
        }
        (None, _) => {
            Err(Fault::refused("there is no Redis here to take over: no file in /etc/redis, no server")
                .hint("set one up:\nredis-tp up")
                .into())
        }
    }
}

fn take(host: &Host, found: &Found, args: &cli::Adopt, given: Option<&Secret>) -> Result<Taken> {
    let text = host.text(topology::file())?;
    let standing = text.as_deref().map(|text| Topology::parse(text, topology::file())).transpose()?;
    let standing = text.as_deref().zip(standing.as_ref());
    if let Some((_, topology)) = standing.filter(|(_, topology)| topology.engine != found.engine) {
        let (file, engine) = (topology.file.display(), topology.engine);
        return Err(Fault::refused(format!(
            "{file} is one of {engine}, and what was found is {}",
            found.engine
        ))
        .hint("a topology has one engine; take ours away first:\nredis-tp uninstall")
        .into());
    }
    Ok(adopt::topology(found, standing, &args.names, given)?)
}

/// One instance: what was found, what stays, and each repair with its reason.
fn show(adopted: &Adopted) {
    let Adopted { instance, address, file, server, repairs } = adopted;
    console::out(format_args!("{instance}  {address}  {}", file.display()));
    console::out(format_args!("  {}", styled(FAINT, server)));
    if repairs.is_empty() {
        console::out(format_args!("  {} as it is", styled(GOOD, "stays")));
    }
    for repair in repairs {
        console::out(format_args!("  {} {}", styled(NOTE, "repair:"), repair.what));
        console::out(format_args!("          {}", styled(FAINT, &repair.why)));
    }
}
