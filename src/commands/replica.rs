//! `redis-tp replica add|remove|list`.

use anyhow::Result;

use super::converge::{converge, whole};
use super::install::access;
use super::scene::{Scene, Wish};
use super::status;
use crate::apply::holdings;
use crate::cli::{self, Replica};
use crate::engine::MASTER;
use crate::exit::{Code, Fault};
use crate::host::Host;
use crate::plan;
use crate::report::console;
use crate::secrets;
use crate::state::State;
use crate::topology::{Name, ReplicaOf, Topology, did_you_mean};

/// Runs the verb.
///
/// # Errors
/// See [`converge`].
pub fn run(host: &Host, command: Replica) -> Result<Code> {
    match command {
        Replica::Add(args) => add(host, &args),
        Replica::Remove(args) => remove(host, &args),
        Replica::List(args) => status::replicas(host, args.json),
    }
}

fn add(host: &Host, args: &cli::ReplicaAdd) -> Result<Code> {
    let wish = |host: &Host| {
        let mut wish = Wish::standing_or(host, crate::topology::EMPTY)?;
        let topology = wish.parsed()?;
        let name = name(args, &topology)?;
        let of = args.of.clone().map_or_else(|| default_master(&topology, &name), Ok)?;
        known_master(&topology, &of)?;
        wish.document.set(name.as_str(), "port", &args.port.to_string());
        wish.document.set(name.as_str(), "replicaof", &of.to_string());
        access(&mut wish.document, name.as_str(), &args.access)?;
        if let Some(source) = &args.access.password_file {
            if let ReplicaOf::Instance(of) = &of {
                return Err(Fault::usage(format!(
                    "{of} is an instance of this machine: its password is known"
                ))
                .hint("leave --password-file away; it is for a master elsewhere (--of HOST:PORT)")
                .into());
            }
            wish.upstream.push((name, secrets::given(host, source)?));
        }
        Ok(wish)
    };
    let outcome = converge(host, "replica add", &args.change, wish, whole(args.change.consent()))?;
    let code = outcome.finish("replica add", &args.change, None)?;
    if outcome.changed && !args.change.json {
        status::print_tree(host, &Scene::standing(host)?)?;
        let name = name(args, &outcome.scene.topology)?;
        console::next(&[
            ("redis-tp verify", "prove that it works"),
            (&format!("redis-tp cli {name} -- INFO replication"), "what it says itself"),
        ]);
    }
    Ok(code)
}

/// The name that was asked for, or that of the instance on this port, or the next in the row.
fn name(args: &cli::ReplicaAdd, topology: &Topology) -> Result<Name> {
    let on_port = topology.instances.iter().find(|section| section.port == args.port);
    match (&args.name, on_port) {
        (Some(name), Some(other)) if *name != other.name => Err(taken(args.port, &other.name)),
        (_, Some(other)) if other.replicaof.is_none() => Err(taken(args.port, &other.name)),
        (_, Some(same)) => Ok(same.name.clone()),
        (Some(name), None) => {
            match topology.instance(name.as_str()).filter(|section| section.replicaof.is_none()) {
                Some(_) => Err(Fault::refused(format!("{name} is there already, and is no replica"))
                    .hint("choose another --name")
                    .into()),
                None => Ok(name.clone()),
            }
        }
        (None, None) => {
            let first = if topology.instance("slave").is_none() {
                "slave".to_owned()
            } else {
                format!("slave-{}", args.port)
            };
            Name::parse(&first).map_err(anyhow::Error::msg)
        }
    }
}

fn taken(port: u16, by: &Name) -> anyhow::Error {
    Fault::refused(format!("port {port} is {by}'s"))
        .hint(format!("choose another port:\nredis-tp replica add --port {}", port.saturating_add(1)))
        .into()
}

fn default_master(topology: &Topology, name: &Name) -> Result<ReplicaOf> {
    if let Some(of) = topology.instance(name.as_str()).and_then(|section| section.replicaof.clone()) {
        return Ok(of);
    }
    match topology.instance(MASTER) {
        Some(master) => Ok(ReplicaOf::Instance(master.name.clone())),
        None => Err(Fault::refused("there is no master here to follow")
            .hint("set one up first, or name one elsewhere:\nredis-tp install\nredis-tp replica add --port 6380 --of HOST:PORT --password-file FILE")
            .into()),
    }
}

fn known_master(topology: &Topology, of: &ReplicaOf) -> Result<(), Fault> {
    let ReplicaOf::Instance(name) = of else { return Ok(()) };
    if topology.instance(name.as_str()).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = topology.instances.iter().map(|section| section.name.as_str()).collect();
    let near = crate::directives::closest(name.as_str(), names.iter().copied());
    let all = if names.is_empty() {
        "set up a master first:\nredis-tp install".to_owned()
    } else {
        format!("the instances are: {}", names.join(", "))
    };
    Err(Fault::refused(format!("there is no instance {name} to follow")).hint(did_you_mean(near, &all)))
}

fn remove(host: &Host, args: &cli::ReplicaRemove) -> Result<Code> {
    let wish = |host: &Host| {
        let mut wish = Wish::standing(host)?;
        let topology = wish.parsed()?;
        removable(&topology, &args.name, &State::load(host)?)?;
        wish.document.remove(args.name.as_str());
        Ok(wish)
    };
    let plan = |scene: &Scene| {
        let mut wanted = scene.wanted(args.change.consent());
        wanted.purge = args.purge.then_some(&args.name);
        let mut facts = scene.facts.clone();
        if args.purge {
            facts.holdings = holdings::of(host, &facts.state, scene.secrets.password.as_ref())?;
        }
        plan::plan(&wanted, &facts)
    };
    let outcome = converge(host, "replica remove", &args.change, wish, plan)?;
    let code = outcome.finish("replica remove", &args.change, None)?;
    if outcome.changed && !args.purge && !args.change.json {
        console::next(&[(&format!("redis-tp replica remove {} --purge", args.name), "take the data, too")]);
    }
    Ok(code)
}

fn removable(topology: &Topology, name: &Name, state: &State) -> Result<(), Fault> {
    let Some(section) = topology.instance(name.as_str()) else {
        if state.instances.contains_key(name) {
            return Ok(());
        }
        let near = crate::directives::closest(
            name.as_str(),
            topology.instances.iter().map(|section| section.name.as_str()),
        );
        return Err(Fault::refused(format!("there is no replica {name}"))
            .hint(did_you_mean(near, "see them:\nredis-tp replica list")));
    };
    if section.replicaof.is_none() {
        return Err(Fault::refused(format!("{name} is no replica"))
            .hint("to take everything away:\nredis-tp uninstall"));
    }
    let followers = topology.replicas_of(name.as_str());
    if let Some(first) = followers.first() {
        return Err(Fault::refused(format!("{first} follows {name}")).hint(format!(
            "let it follow another first:\nredis-tp replica add --name {first} --port {} --of master",
            topology.instance(first.as_str()).map_or(0, |section| section.port)
        )));
    }
    Ok(())
}
