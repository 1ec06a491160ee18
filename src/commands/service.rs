//! `redis-tp service`: the same steps as everywhere, over the instances that are named.

use anyhow::Result;
use serde::Serialize;

use super::converge::{Session, carry_out};
use super::scene::Scene;
use super::status;
use crate::apply::service;
use crate::cli::{self, Action};
use crate::conf::{self, Conf};
use crate::exit::Code;
use crate::facts::{Facts, Role};
use crate::host::Host;
use crate::instance::Instance;
use crate::plan::Plan;
use crate::report::console::{self, GOOD, styled};
use crate::report::plan as show;
use crate::runtime::Runtime;
use crate::step::Step;

#[derive(Debug, Serialize)]
struct Log {
    instance: String,
    file: String,
    lines: Vec<String>,
}

/// Runs the verb.
///
/// # Errors
/// A step failed and was undone.
pub fn run(host: &Host, args: &cli::Service) -> Result<Code> {
    if args.action == Action::Logs {
        return logs(host, args);
    }
    let _session = Session::open(host, args.dry_run)?;
    let scene = Scene::standing(host)?;
    let chosen = chosen(&scene, args)?;
    let plan = Plan {
        steps: steps(host, args, &chosen, &scene.facts)?,
        record: scene.facts.state.instances.clone(),
        ..Plan::default()
    };
    if args.json {
        console::json(&show::json("service", &plan))?;
    } else if args.dry_run {
        show::steps(&plan).into_iter().for_each(console::out);
    }
    if plan.is_empty() && !args.json {
        console::out(styled(GOOD, "No changes."));
    }
    if args.dry_run || plan.is_empty() {
        return Ok(Code::Done);
    }
    carry_out(host, &plan, &scene.facts.state, "service")?;
    if !args.json {
        status::print_tree(host, &Scene::standing(host)?)?;
    }
    Ok(Code::Done)
}

/// Masters before their replicas.
fn chosen<'a>(scene: &'a Scene, args: &cli::Service) -> Result<Vec<&'a Instance>> {
    if let Some(cli::Served::Instance(name)) = &args.name {
        return Ok(vec![scene.pick(Some(name))?]);
    }
    Ok(crate::plan::by_depth(&scene.instances))
}

fn steps(host: &Host, args: &cli::Service, chosen: &[&Instance], facts: &Facts) -> Result<Vec<Step>> {
    let mut running = Vec::new();
    for instance in chosen {
        running.push((*instance, service::runs(host, &instance.target())?));
    }
    let up = || running.iter().filter(|(_, runs)| *runs).map(|(instance, _)| *instance);
    let down: Vec<&Instance> =
        running.iter().filter(|(_, runs)| !*runs).map(|(instance, _)| *instance).collect();
    let units = || {
        chosen
            .iter()
            .filter(|instance| instance.runtime == Runtime::Systemd)
            .map(|instance| instance.unit.clone())
    };
    let enabled = |unit: &String| facts.unit(unit).is_some_and(|unit| unit.enabled);
    Ok(match args.action {
        Action::Start => start(&down, facts),
        Action::Stop => {
            up().rev().map(|instance| Step::Stop { target: instance.target(), lose: args.force }).collect()
        }
        Action::Restart => {
            let restart =
                |instance: &Instance| Step::Restart { target: instance.target(), why: "as asked".into() };
            let mut steps: Vec<Step> = up().rev().map(restart).collect();
            steps.extend(start(&down, facts));
            steps.extend(links(&up().collect::<Vec<_>>(), facts));
            steps
        }
        Action::Enable => boot(units().filter(|unit| !enabled(unit)).map(|unit| Step::Enable { unit })),
        Action::Disable => boot(units().filter(enabled).map(|unit| Step::Disable { unit })),
        Action::Logs => Vec::new(),
    })
}

/// What starts at boot, and systemd told of it.
fn boot(steps: impl Iterator<Item = Step>) -> Vec<Step> {
    let mut steps: Vec<Step> = steps.collect();
    if !steps.is_empty() {
        steps.push(Step::Reload);
    }
    steps
}

fn start(instances: &[&Instance], facts: &Facts) -> Vec<Step> {
    if instances.is_empty() {
        return Vec::new();
    }
    let mut steps =
        vec![Step::Start { targets: instances.iter().map(|instance| instance.target()).collect() }];
    steps.extend(links(instances, facts));
    steps
}

/// The links to wait for: those of instances that follow somebody now, or by their file when they start;
/// one that was promoted has none.
fn links(instances: &[&Instance], facts: &Facts) -> Vec<Step> {
    let follows = |instance: &Instance| match facts.running.get(&instance.name).map(|running| &running.role) {
        Some(role) => !matches!(role, Role::Master),
        None => {
            let conf = Conf::parse(facts.text(&instance.conf).unwrap_or_default()).unwrap_or_default();
            conf.get("replicaof").is_some()
        }
    };
    let link = |instance: &&Instance| {
        let of = instance.upstream.as_ref().filter(|_| follows(instance))?;
        Some(Step::AwaitLink { target: instance.target(), master: of.address.clone() })
    };
    instances.iter().filter_map(link).collect()
}

fn logs(host: &Host, args: &cli::Service) -> Result<Code> {
    let scene = Scene::standing(host)?;
    let mut logs = Vec::new();
    for instance in chosen(&scene, args)? {
        // A line of a log is some hundred bytes; twice that leaves room.
        let owner = service::log_owner(host, instance.engine)?;
        let text = host.tail(&instance.logfile, 256 * (args.lines as u64 + 1), owner)?;
        let lines: Vec<String> = text.lines().map(conf::mask_line).collect();
        let lines = lines.get(lines.len().saturating_sub(args.lines)..).unwrap_or_default().to_vec();
        logs.push(Log {
            instance: instance.name.to_string(),
            file: instance.logfile.display().to_string(),
            lines,
        });
    }
    if args.json {
        console::json(&serde_json::json!({ "schema": 1, "command": "service", "logs": logs }))?;
        return Ok(Code::Done);
    }
    for log in logs {
        console::out(styled(console::TYPE, format_args!("{}: {}", log.instance, log.file)));
        log.lines.iter().for_each(console::out);
    }
    Ok(Code::Done)
}
