//! `redis-tp render`: the configuration as it is wanted, to stdout.

use anyhow::Result;

use super::scene::{Scene, Wish};
use crate::app::{Settings, service};
use crate::cli::{self, Served};
use crate::conf;
use crate::exit::{Code, Fault};
use crate::host::Host;
use crate::instance::Instance;
use crate::plan::ASSUMED;
use crate::report::console;
use crate::runtime::Runtime;
use crate::topology::{self, LAB};

/// Prints one configuration, or all of them one after the other.
///
/// # Errors
/// There is no such instance.
pub fn run(host: &Host, args: &cli::Render) -> Result<Code> {
    let scene = Scene::load(host, &Wish::standing_or(host, LAB)?)?;
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

/// Prints the web app's settings and, where systemd runs, its unit.
fn app(scene: &Scene, reveal: bool) -> Result<Code> {
    let Some(app) = &scene.app else {
        return Err(Fault::usage("the topology has no [app]").hint("add one:\nredis-tp app install").into());
    };
    if app.runtime == Runtime::Systemd {
        let facts = &scene.facts;
        console::out(format_args!("## {}", service::unit_file().display()));
        console::out(app.unit(&service::program(&facts.program))?.trim_end());
        console::out("");
    }
    console::out(format_args!("## {}", Settings::file().display()));
    let text = if reveal { app.settings.text() } else { app.settings.masked().text() };
    console::out(text.expose().trim_end());
    Ok(Code::Done)
}
