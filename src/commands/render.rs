//! `redis-tp render`: the configuration as it is wanted, to stdout.

use anyhow::Result;

use super::scene::{Scene, Wish};
use crate::app::service;
use crate::cli::{self, Served};
use crate::conf;
use crate::exit::{Code, Fault};
use crate::host::{Host, Ids};
use crate::instance::Instance;
use crate::plan::{ASSUMED, containers};
use crate::report::console;
use crate::runtime::compose::{self, Service};
use crate::runtime::{Program, Runtime};
use crate::topology::{self, LAB};

/// Prints one configuration, or all of them one after the other.
///
/// # Errors
/// There is no such instance.
pub fn run(host: &Host, args: &cli::Render) -> Result<Code> {
    let mut wish = Wish::standing_or(host, LAB)?;
    // As it would be in containers; no engine has to be here for that.
    wish.runtime = args.compose.then_some(Runtime::Container(Program::Docker));
    let scene = Scene::load(host, &wish)?;
    if args.compose {
        console::out(compose(&scene, args.reveal)?.trim_end());
        return Ok(Code::Done);
    }
    let version = scene.facts.server.as_ref().map_or(ASSUMED, |server| server.version);
    let chosen: Vec<&Instance> = match &args.name {
        Some(Served::App) => return app(&scene, args.reveal),
        Some(Served::Instance(name)) => vec![scene.pick(Some(name))?],
        None => scene.instances.iter().collect(),
    };
    for (index, instance) in chosen.iter().enumerate() {
        let text = instance.configuration(topology::file(), version, &[])?;
        if chosen.len() > 1 {
            let gap = if index == 0 { "" } else { "\n" };
            console::out(format_args!("{gap}## {}", instance.conf.display()));
        }
        let text = if args.reveal { text } else { conf::mask(&text) };
        console::out(text.trim_end());
    }
    Ok(Code::Done)
}

/// The whole as a compose file.
fn compose(scene: &Scene, reveal: bool) -> Result<String> {
    let facts = &scene.facts;
    let version = facts.server.as_ref().map_or(ASSUMED, |server| server.version);
    let mut services = Vec::new();
    for instance in &scene.instances {
        let text = instance.configuration(topology::file(), version, &[])?;
        let container = containers::of_instance(instance, &scene.image, facts);
        services.extend(container.map(|container| Service {
            container,
            file: "redis.conf",
            text: if reveal { text } else { conf::mask(&text) },
        }));
    }
    if let Some(app) = &scene.app {
        let program = service::program(&facts.program);
        let settings = if reveal { app.settings.text() } else { app.settings.masked().text() };
        let container = containers::of_app(app, &program, &scene.image, facts);
        services.extend(container.map(|container| Service {
            container,
            file: "app.json",
            text: settings.expose().to_owned(),
        }));
    }
    let note = if reveal { "" } else { "# Passwords are masked: redis-tp render --compose --reveal\n" };
    // The user of the official images, where there is none to look into.
    let user = facts.user.unwrap_or(Ids { uid: 999, gid: 999 });
    Ok(format!("{note}{}", compose::render(&services, user)))
}

/// Prints the web app's settings and, where systemd runs, its unit.
fn app(scene: &Scene, reveal: bool) -> Result<Code> {
    let Some(app) = &scene.app else {
        return Err(Fault::usage("the topology has no [app]").hint("add one:\nredis-tp app install").into());
    };
    if app.runtime == Runtime::Systemd {
        let facts = &scene.facts;
        console::out(format_args!("## {}", service::unit_file().display()));
        console::out(app.unit(&service::program(&facts.program), facts.namespaces)?.trim_end());
        console::out("");
    }
    console::out(format_args!("## {}", app.settings_file().display()));
    let text = if reveal { app.settings.text() } else { app.settings.masked().text() };
    console::out(text.expose().trim_end());
    Ok(Code::Done)
}
