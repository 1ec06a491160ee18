//! `redis-tp up`: everything, in one word.

use anyhow::Result;

use super::app::tries;
use super::converge::{converge, whole};
use super::scene::{Scene, Wish};
use super::{prove, status, word};
use crate::cli;
use crate::exit::{Code, Fault};
use crate::host::Host;
use crate::instance::yes_no;
use crate::report::console;
use crate::topology::{APP, Document, Image, LAB, RuntimeChoice};

/// Brings the machine to its topology, the lab's two instances where there is none, and proves it.
///
/// # Errors
/// See [`converge`].
pub fn run(host: &Host, args: cli::Up) -> Result<Code> {
    let wish = |host: &Host| {
        let mut wish = Wish::standing_or(host, LAB)?;
        if args.no_app && wish.standing.is_none() {
            wish.document.remove(APP);
        }
        if let Some(runtime) = args.runtime {
            wish.document.set("redis-tp", "runtime", &word(runtime));
        }
        if let Some(engine) = args.engine {
            wish.document.set("redis-tp", "engine", &word(engine));
        }
        if args.plain {
            wish.document.set("redis-tp", "users", "plain");
        }
        set_tls(&mut wish.document, args.tls, args.no_tls);
        set_image(&mut wish, args.image.as_ref())?;
        Ok(wish)
    };
    let outcome = converge(host, "up", &args.change, wish, whole(args.change.consent()))?;
    if !outcome.changed {
        let code = outcome.finish("up", &args.change, None)?;
        return Ok(code);
    }
    let scene = Scene::standing(host)?;
    let findings = prove::proof(host, &scene, !args.change.json)?;
    let code = outcome.finish("up", &args.change, Some(&findings))?;
    if !args.change.json {
        console::out("");
        status::print_tree(host, &scene)?;
        next(&scene);
    }
    Ok(code)
}

fn next(scene: &Scene) {
    let Some(app) = &scene.app else {
        return console::next(&[
            ("redis-tp cli -- SET bonjour monde", "write on the master"),
            ("redis-tp cli slave -- GET bonjour", "read on the replica"),
            ("redis-tp verify --ttl 60", "the proof, with the lab's lifetime"),
            (scene.replica_add().as_str(), "one more replica"),
        ]);
    };
    let tries = tries(app);
    let mut rows: Vec<(&str, &str)> = tries.iter().map(|(command, what)| (command.as_str(), *what)).collect();
    rows.push(("redis-tp verify --lab", "the proof, with the lab's times"));
    console::next(&rows);
}

/// Writes whether TLS is spoken into the topology, if a flag says so.
pub fn set_tls(document: &mut Document, on: bool, off: bool) {
    if on || off {
        document.set("redis-tp", "tls", yes_no(on));
    }
}

/// Writes the image into the topology.
///
/// # Errors
/// Nothing of it would run in a container.
pub fn set_image(wish: &mut Wish, image: Option<&Image>) -> Result<()> {
    let Some(image) = image else { return Ok(()) };
    if !matches!(wish.parsed()?.runtime, RuntimeChoice::Docker | RuntimeChoice::Podman) {
        return Err(Fault::usage("--image is for containers, and the topology's runtime is none")
            .hint(format!("say so:\nredis-tp up --runtime docker --image {image}"))
            .into());
    }
    wish.document.set("redis-tp", "image", image.as_str());
    Ok(())
}
