//! `redis-tp render`: the configuration as it is wanted, to stdout.

use std::path::Path;

use anyhow::Result;

use super::scene::{Scene, Wish};
use crate::cli;
use crate::conf;
use crate::exit::Code;
use crate::host::Host;
use crate::instance::Instance;
use crate::plan::ASSUMED;
use crate::report::console;
use crate::topology::{LAB, SYSTEM_FILE};

/// Prints one configuration, or all of them one after the other.
///
/// # Errors
/// There is no such instance.
pub fn run(host: &Host, args: &cli::Render) -> Result<Code> {
    let scene = Scene::load(host, &Wish::standing_or(host, LAB)?)?;
    let version = scene.facts.server.as_ref().map_or(ASSUMED, |server| server.version);
    let chosen: Vec<&Instance> = match &args.name {
        Some(name) => vec![scene.pick(Some(name))?],
        None => scene.instances.iter().collect(),
    };
    for (index, instance) in chosen.iter().enumerate() {
        let text = instance.configuration(Path::new(SYSTEM_FILE), version, &[])?;
        if chosen.len() > 1 {
            let gap = if index == 0 { "" } else { "\n" };
            console::out(format_args!("{gap}## {}", instance.conf.display()));
        }
        let text = if args.reveal { text } else { conf::mask(&text) };
        console::out(text.trim_end());
    }
    Ok(Code::Done)
}
