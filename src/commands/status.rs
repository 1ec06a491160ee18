//! `redis-tp status` and `replica list`: the tree of instances.

use std::time::Duration;

use anyhow::Result;

use super::scene::Scene;
use crate::cli;
use crate::exit::Code;
use crate::host::Host;
use crate::report::{console, tree};
use crate::status::{Status, status};

/// Shows the tree; with `--watch` again every second.
///
/// # Errors
/// Nothing is set up here.
pub fn run(host: &Host, args: &cli::Status) -> Result<Code> {
    if !args.watch {
        return once(host, args.json);
    }
    host.catch_signals()?;
    while !host.interrupted() {
        let shown = look(host, &Scene::standing(host)?)?;
        if args.json {
            console::out(serde_json::to_string(&shown)?);
        } else {
            // Home, then erase what is below: no flicker, and no old line is left.
            console::out(format_args!("\x1b[H\x1b[2J{}", tree::tree(&shown)));
        }
        host.sleep(Duration::from_secs(1));
    }
    Ok(Code::Done)
}

fn once(host: &Host, json: bool) -> Result<Code> {
    let shown = look(host, &Scene::standing(host)?)?;
    if json {
        console::json(&shown)?;
    } else {
        console::out(tree::tree(&shown).trim_end());
    }
    Ok(if shown.is_healthy() { Code::Done } else { Code::Findings })
}

/// The tree behind a change: that is done, also where a look at it fails.
pub fn print_tree_after(host: &Host) -> Option<Scene> {
    let shown = Scene::standing(host).and_then(|scene| print_tree(host, &scene).map(|()| scene));
    shown
        .inspect_err(|error| {
            console::err(format_args!(
                "{} that is done, but what there is now cannot be told: {error:#}",
                console::styled(console::NOTE, "note:")
            ));
        })
        .ok()
}

/// The tree of a scene, on stdout.
///
/// # Errors
/// The instances cannot be asked.
pub fn print_tree(host: &Host, scene: &Scene) -> Result<()> {
    console::out(tree::tree(&look(host, scene)?).trim_end());
    Ok(())
}

/// `redis-tp replica list`
///
/// # Errors
/// Nothing is set up here.
pub fn replicas(host: &Host, json: bool) -> Result<Code> {
    let scene = Scene::standing(host)?;
    let mut shown = status(host, &scene.instances, None, &scene.facts)?;
    let replica = |name: &str| {
        scene.instances.iter().any(|instance| instance.name.as_str() == name && instance.upstream.is_some())
    };
    if json {
        shown.nodes.retain(|node| replica(node.name.as_str()));
        console::json(&shown)?;
        return Ok(Code::Done);
    }
    let names: Vec<&crate::instance::Instance> =
        scene.instances.iter().filter(|instance| instance.upstream.is_some()).collect();
    if names.is_empty() {
        console::out("No replicas.");
        console::next(&[(scene.replica_add().as_str(), "add one")]);
        return Ok(Code::Done);
    }
    console::out(tree::tree(&shown).trim_end());
    Ok(Code::Done)
}

fn look(host: &Host, scene: &Scene) -> Result<Status> {
    status(host, &scene.instances, scene.app.as_ref(), &scene.facts)
}
