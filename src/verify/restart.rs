//! Whether data survives a restart: asked for by name, for clients notice it.

use std::time::Duration;

use super::servers::Servers;
use super::{Look, Place, Proof};
use crate::apply::{role, service};
use crate::finding::Finding;
use crate::host::Host;
use crate::instance::{Instance, Target};
use crate::wire::{Address, Trouble};

/// How long the key lives if even its removal is prevented: a large server takes its time to load.
const EXPIRY: Duration = Duration::from_secs(300);
/// How long the key may take to a replica.
const ARRIVAL: Duration = Duration::from_secs(1);

fn key(proof: &Proof<'_>, instance: &Instance) -> String {
    proof.keys.key(&format!("restart-{}", instance.name))
}

pub fn did(proof: &Proof<'_>, instance: &Instance) -> String {
    let key = key(proof, instance);
    format!("SET {key} on {}, restarted {1}, GET on {1}", proof.root_word(instance), instance.name)
}

/// A key is there again after a restart, and every link too.
pub fn restart(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let place = Place::of(instance);
    if !is_kept(&mut proof.servers, &place)? {
        return Err(Finding::skip(
            "neither snapshots nor appendonly are on: what it holds is meant to be gone after a restart",
        ));
    }
    let root = proof.root(instance)?;
    let key = key(proof, instance);
    proof.write_above(&root, &key, EXPIRY)?;
    if !arrived(proof, &place, &key)? {
        return Err(Finding::unknown(format!("the key did not reach {place}"), "redis-tp verify"));
    }
    let links = links(&mut proof.servers, proof.subject.instances);
    let target = instance.target();
    let began = proof.host.now();
    cycle(proof.host, &target, &mut proof.interrupted, || ())?;
    let seconds = (proof.host.now() - began).as_secs_f64();
    proof.servers.forget(&place);
    if !arrived(proof, &place, &key)? {
        return Ok(Finding::fail(
            "the key is gone after the restart",
            "it did not save when it stopped, or did not load what it had saved",
            format!("redis-tp service logs {}", instance.name),
        ));
    }
    await_links(proof.host, &links)?;
    Ok(Finding::pass(format!("the key is there, {seconds:.1} s after the stop, and every link is up")))
}

/// Stops, does something meanwhile, and starts. Whatever comes in between, it is started again.
pub fn cycle<T>(
    host: &Host,
    target: &Target,
    interrupted: &mut bool,
    meanwhile: impl FnOnce() -> T,
) -> Result<T, Finding> {
    if role::differs(host, target) {
        let why = "it has another role than its file says, and a restart would forget it";
        return Err(Finding::unknown(why, format!("redis-tp cli {} -- CONFIG REWRITE", target.name)));
    }
    let name = &target.name;
    let stopped = service::stop(host, target, false).map(|()| meanwhile());
    if host.interrupted() {
        *interrupted = true;
        host.ignore_interruption();
    }
    let started = service::start(host, std::slice::from_ref(target));
    let done = stopped.map_err(|error| {
        Finding::fail(
            format!("{name} does not stop"),
            format!("{error:#}"),
            format!("redis-tp service logs {name}"),
        )
    })?;
    started.map_err(|error| {
        Finding::fail(
            format!("{name} does not start again"),
            format!("{error:#}"),
            format!("redis-tp service start {name}"),
        )
    })?;
    Ok(done)
}

/// Whether the server keeps its data: snapshots or the append-only file.
pub fn is_kept(servers: &mut Servers<'_>, place: &Place) -> Result<bool, Finding> {
    let mut value = |name: &str| -> Result<String, Finding> {
        let answer: Vec<String> = servers.ask(place, &["CONFIG", "GET", name])?;
        Ok(answer.into_iter().nth(1).unwrap_or_default())
    };
    Ok(!value("save")?.is_empty() || value("appendonly")? == "yes")
}

/// Whether the key is read, within its time; a server that is loading still may.
fn arrived(proof: &mut Proof<'_>, place: &Place, key: &str) -> Result<bool, Finding> {
    let host = proof.host;
    let read = host.poll(ARRIVAL, || {
        match proof.servers.wire(place).and_then(|wire| wire.ask::<Option<String>>(&["GET", key])) {
            Ok(value) => Ok(value.map(|_| Ok(()))),
            Err(Trouble::Loading) => Ok(None),
            Err(trouble) => Ok(Some(Err(proof.servers.silent(place, &trouble)))),
        }
    });
    match read {
        Ok(Some(read)) => read.map(|()| true),
        Ok(None) | Err(_) => Ok(false),
    }
}

/// The links that are up, and so have to be up again.
pub fn links(servers: &mut Servers<'_>, instances: &[Instance]) -> Vec<(Target, Address)> {
    let mut links = Vec::new();
    for instance in instances {
        let Some((master, true)) = servers.follows(&Place::of(instance)) else { continue };
        let address = match &master {
            Place::Ours(name) => servers.instance(name).map(Instance::address),
            Place::Elsewhere { address, .. } => Some(address.clone()),
        };
        links.extend(address.map(|address| (instance.target(), address)));
    }
    links
}

/// Waits until links are up again.
pub fn await_links(host: &Host, links: &[(Target, Address)]) -> Result<(), Finding> {
    for (replica, master) in links {
        service::await_link(host, replica, master, &mut |_| {}).map_err(|error| {
            Finding::fail(
                format!("the link of {} did not come up again", replica.name),
                format!("{error:#}"),
                format!("redis-tp service restart {}", replica.name),
            )
        })?;
    }
    Ok(())
}
