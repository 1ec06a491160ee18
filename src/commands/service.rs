//! `redis-tp service`: the same steps as everywhere, over the instances that are named.

use anyhow::Result;
use serde::Serialize;

use super::converge::{Session, carry_out};
use super::scene::Scene;
use super::status;
use crate::app::service::{UNIT, program};
use crate::apply::{app as apply_app, service};
use crate::cli::{self, Action, Served};
use crate::conf::{self, Conf};
use crate::exit::{Code, Fault};
use crate::facts::{Facts, Role};
use crate::host::Host;
use crate::instance::Instance;
use crate::plan::{self, Consent, Plan};
use crate::report::console::{self, GOOD, styled};
use crate::report::plan as show;
use crate::runtime::Runtime;
use crate::step::Step;
use crate::topology::{APP, Name};

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
    let mut steps = steps(host, args, &chosen, &scene.facts)?;
    if matches!(args.action, Action::Start | Action::Restart) && !steps.is_empty() {
        steps.extend(links(&followers(&scene, &chosen), &scene.facts));
    }
    with_app(host, args, &scene, &mut steps)?;
    let state = &scene.facts.state;
    let mut plan = Plan { steps, record: state.instances.clone(), app: state.app.clone(), ..Plan::default() };
    let consent = Consent { force: args.force, no_backup: args.no_backup, ..Consent::default() };
    plan::live::refuse_loss(&plan, &scene.facts, consent)?;
    plan::backup::before_loss(&mut plan, &scene.facts, consent);
    let act = !args.dry_run && !plan.is_empty();
    if act {
        carry_out(host, &plan, &scene.facts.state, "service", args.json)?;
    }
    if args.json {
        console::json(&show::json("service", &plan))?;
    } else if plan.is_empty() {
        console::out(styled(GOOD, "No changes."));
    } else if args.dry_run {
        show::steps(&plan).into_iter().for_each(console::out);
    } else {
        status::print_tree_after(host);
        show::backups(&plan.steps, |path| host.length(path)).into_iter().for_each(console::err);
    }
    Ok(Code::Done)
}

/// Masters before their replicas.
fn chosen<'a>(scene: &'a Scene, args: &cli::Service) -> Result<Vec<&'a Instance>> {
    match &args.name {
        Some(Served::Instance(name)) => return Ok(vec![scene.pick(Some(name))?]),
        Some(Served::App) => return Ok(Vec::new()),
        None => {}
    }
    Ok(plan::by_depth(&scene.instances))
}

fn steps(host: &Host, args: &cli::Service, chosen: &[&Instance], facts: &Facts) -> Result<Vec<Step>> {
    let mut running = Vec::new();
    for instance in chosen {
        running.push((*instance, service::runs(host, &instance.target())?));
    }
    let up = || running.iter().filter(|(_, runs)| *runs).map(|(instance, _)| *instance);
    let down: Vec<&Instance> =
        running.iter().filter(|(_, runs)| !*runs).map(|(instance, _)| *instance).collect();
    let bootable = || chosen.iter().filter(|instance| instance.runtime != Runtime::Process);
    let enabled = |instance: &Instance| match instance.runtime {
        Runtime::Container(_) => {
            facts.containers.containers.get(&instance.container()).is_some_and(|seen| seen.boot)
        }
        _ => facts.unit(&instance.unit).is_some_and(|unit| unit.enabled),
    };
    let change = |on: bool| {
        bootable()
            .filter(move |instance| enabled(instance) != on)
            .map(move |instance| plan::boot(instance, on))
    };
    Ok(match args.action {
        Action::Start => {
            down.iter().try_for_each(|instance| set_up(instance, facts))?;
            start(&down, facts)
        }
        Action::Stop => {
            up().rev().map(|instance| Step::Stop { target: instance.target(), lose: args.force }).collect()
        }
        Action::Restart => {
            let restart = |instance: &Instance| Step::Restart {
                target: instance.target(),
                why: "as asked".into(),
                cost: plan::live::cost(facts, &instance.name, &[]),
            };
            down.iter().try_for_each(|instance| set_up(instance, facts))?;
            let mut steps: Vec<Step> = up().rev().map(restart).collect();
            steps.extend(start(&down, facts));
            steps.extend(links(&up().collect::<Vec<_>>(), facts));
            steps
        }
        Action::Enable => boot(change(true)),
        Action::Disable => boot(change(false)),
        Action::Logs => Vec::new(),
    })
}

/// The web app's part: it starts behind the instances, and stops before them. A restart of theirs is none
/// of its own: it finds them again.
fn with_app(host: &Host, args: &cli::Service, scene: &Scene, steps: &mut Vec<Step>) -> Result<()> {
    let kept = scene.facts.state.app.as_ref().filter(|kept| kept.active && scene.app.is_some());
    let by_name = args.name == Some(Served::App);
    let Some(kept) = kept.filter(|_| by_name || args.name.is_none()) else {
        return match by_name {
            true => Err(Fault::refused("the web app is not installed")
                .hint("install it:\nredis-tp app install")
                .into()),
            false => Ok(()),
        };
    };
    let app = kept.target.clone();
    let (runs, up) = (apply_app::runs(host, &app)?, apply_app::is_up(host, &app)?);
    let enabled = match app.runtime {
        Runtime::Container(_) => {
            scene.facts.containers.containers.get(&app.container()).is_some_and(|seen| seen.boot)
        }
        _ => scene.facts.unit(UNIT).is_some_and(|unit| unit.enabled),
    };
    let systemd = app.runtime == Runtime::Systemd;
    let (runtime, engine) = (app.runtime, app.engine);
    let boot = |on| plan::app::boot(runtime, engine, on);
    let (bootable, front) = (app.runtime != Runtime::Process, steps.len());
    match args.action {
        Action::Start | Action::Restart if !up => steps.push(Step::StartApp { app }),
        Action::Restart if by_name => steps.push(Step::RestartApp { app, why: "as asked".into() }),
        Action::Stop if runs => steps.insert(0, Step::StopApp { app }),
        Action::Enable if bootable && !enabled => steps.insert(0, boot(true)),
        Action::Disable if bootable && enabled => steps.insert(0, boot(false)),
        _ => {}
    }
    let boots = matches!(args.action, Action::Enable | Action::Disable) && systemd;
    if boots && front == 0 && !steps.is_empty() {
        steps.push(Step::Reload);
    }
    Ok(())
}

/// What starts at boot, and systemd told of it.
fn boot(steps: impl Iterator<Item = Step>) -> Vec<Step> {
    let mut steps: Vec<Step> = steps.collect();
    if steps.iter().any(|step| matches!(step, Step::Enable { .. } | Step::Disable { .. })) {
        steps.push(Step::Reload);
    }
    steps
}

/// What an uninstall took away would start from another's file, without its data.
fn set_up(instance: &Instance, facts: &Facts) -> Result<(), Fault> {
    let name = &instance.name;
    match facts.state.instances.get(name) {
        Some(kept) if !kept.active => Err(Fault::refused(format!("{name} was taken away; its data stayed"))
            .hint("set it up again:\nredis-tp up")),
        _ => Ok(()),
    }
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

/// The instances that follow one of these and run: they find it again.
fn followers<'a>(scene: &'a Scene, of: &[&Instance]) -> Vec<&'a Instance> {
    let is_of = |instance: &&Instance| {
        let master = instance.upstream.as_ref().and_then(|upstream| upstream.instance.as_ref());
        let runs = scene.facts.running.contains_key(&instance.name);
        let chosen = |name: &Name| of.iter().any(|other| other.name == *name);
        runs && !chosen(&instance.name) && master.is_some_and(chosen)
    };
    scene.instances.iter().filter(is_of).collect()
}

fn logs(host: &Host, args: &cli::Service) -> Result<Code> {
    let scene = Scene::standing(host)?;
    let mut logs = Vec::new();
    for instance in chosen(&scene, args)? {
        let Some(file) = &instance.logfile else {
            let said = service::last_lines(host, &instance.target(), args.lines);
            let (file, lines) = said.unwrap_or_default();
            logs.push(Log { instance: instance.name.to_string(), file, lines });
            continue;
        };
        // A line of a log is some hundred bytes; twice that leaves room.
        let owner = service::log_owner(host, instance.engine)?;
        let text = host.tail(file, 256 * (args.lines as u64 + 1), owner)?;
        let lines: Vec<String> = text.lines().map(conf::mask_line).collect();
        let lines = lines.get(lines.len().saturating_sub(args.lines)..).unwrap_or_default().to_vec();
        logs.push(Log { instance: instance.name.to_string(), file: file.display().to_string(), lines });
    }
    if let (Some(app), None | Some(Served::App)) = (&scene.app, &args.name) {
        let target = app.target(&program(&scene.facts.program));
        logs.push(Log {
            instance: APP.into(),
            file: apply_app::log_command(&target),
            lines: apply_app::last_lines(host, &target, args.lines),
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
