//! What containers need: the network, volumes, and containers made of what is wanted; and what cannot be of
//! them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::change::Change;
use super::leave::away;
use super::{Plan, Wanted};
use crate::app::App;
use crate::conf;
use crate::exit::Fault;
use crate::facts::containers::Seen;
use crate::facts::{Facts, Role, containers};
use crate::instance::Instance;
use crate::runtime::container::{
    self, APP_DIR, CONF_DIR, Container, DATA_DIR, Mount, NETWORK, OWN_PROGRAM, Port, memory_limit,
};
use crate::runtime::{Program, Runtime};
use crate::step::{Inside, NewVolume, Owner, Step};
use crate::store::Store;
use crate::topology::{Bind, BindAddress, Image, Source};

/// What is to become of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is right.
    Nothing,
    /// It has to be made, or made anew.
    Made,
    /// It has to be put on the network again.
    Joined,
}

/// The image that the wanted instances run in; none where they run in no container.
pub fn inside(wanted: &Wanted<'_>, facts: &Facts) -> Option<Inside> {
    let program = program(wanted)?;
    let own = wanted.app.map(|_| facts.program.path.clone());
    Some(Inside { program, image: wanted.image.clone(), engine: wanted.topology.engine, own })
}

fn program(wanted: &Wanted<'_>) -> Option<Program> {
    wanted.instances.iter().find_map(|instance| instance.runtime.program())
}

/// The container of an instance; none where it is to run in none.
pub fn of_instance(instance: &Instance, image: &Image, facts: &Facts) -> Option<Container> {
    let program = instance.runtime.program()?;
    let name = instance.container();
    let mount = |source: String, target: &str| Mount { source, target: target.into(), read_only: false };
    let volume = container::volume(instance.engine, instance.name.as_str());
    let cli = instance.engine.cli();
    Some(Container {
        program,
        part: instance.name.to_string(),
        image: image.clone(),
        entrypoint: instance.engine.server().into(),
        args: vec![format!("{CONF_DIR}/redis.conf")],
        mounts: vec![
            mount(container::mounted(&name).display().to_string(), CONF_DIR),
            mount(volume, DATA_DIR),
        ],
        ports: published(instance.bind.as_deref(), instance.port),
        memory: maxmemory(instance).and_then(memory_limit),
        // Whoever asks for a password is well, too.
        health: checked(program, facts).then(|| {
            format!("{cli}{} -p {} PING | grep -Eq 'PONG|NOAUTH|NOPERM'", by_tls(instance), instance.port)
        }),
        edition: String::new(),
        name,
    })
}

/// The words by which redis-cli speaks TLS inside of an instance's container.
fn by_tls(instance: &Instance) -> String {
    let tls = instance.tls_inside().map(|files| format!(" {}", files.cli_line()));
    tls.unwrap_or_default()
}

/// The web app's container; none where it is to run in none.
pub fn of_app(app: &App, program: &Path, image: &Image, facts: &Facts) -> Option<Container> {
    let runtime = app.runtime.program()?;
    let name = container::of_app(app.engine);
    let mount = |source: String, target: &str| Mount { source, target: target.into(), read_only: true };
    let mut mounts = vec![
        mount(container::mounted(&name).display().to_string(), APP_DIR),
        mount(program.display().to_string(), OWN_PROGRAM),
    ];
    if let Source::Sqlite(file) = &app.section().source {
        // The directory: a database may have a journal beside it.
        let dir = file.parent().unwrap_or(file).display().to_string();
        mounts.push(mount(dir.clone(), &dir));
    }
    let port = app.section().port;
    Some(Container {
        program: runtime,
        name,
        part: crate::topology::APP.into(),
        image: image.clone(),
        entrypoint: OWN_PROGRAM.into(),
        args: ["app", "serve", "--config", &format!("{APP_DIR}/app.json")].map(str::to_owned).into(),
        mounts,
        ports: vec![Port { host: app.section().bind, port }],
        memory: None,
        health: checked(runtime, facts).then(|| format!("{OWN_PROGRAM} app health --port {port}")),
        edition: facts.program.edition.clone(),
    })
}

/// Whether a health check would be run: podman leaves that to systemd.
fn checked(program: Program, facts: &Facts) -> bool {
    program == Program::Docker || facts.systemd
}

/// Where this machine listens for a container: where `bind` says, loopback if it says nothing.
pub fn published(bind: Option<&[Bind]>, port: u16) -> Vec<Port> {
    let host = |bind: &Bind| match bind.address {
        BindAddress::Ip(ip) => ip,
        BindAddress::AnyV4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        BindAddress::AnyV6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let wanted = bind.unwrap_or_default().iter().filter(|bind| !bind.optional).map(host);
    let mut ports: Vec<Port> = wanted.map(|host| Port { host, port }).collect();
    if ports.is_empty() {
        ports.push(Port { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port });
    }
    ports.sort();
    ports.dedup();
    ports
}

fn maxmemory(instance: &Instance) -> Option<u64> {
    let named = instance.directives.iter().rev().find(|named| named.name == "maxmemory")?;
    conf::bytes(named.args.first()?)
}

/// What is to become of a container.
pub fn due(container: &Container, facts: &Facts) -> Due {
    let Some(seen) = facts.containers.containers.get(&container.name) else { return Due::Made };
    let another_image = facts.containers.image.as_ref().is_some_and(|image| *image != seen.image);
    if seen.spec != container.digest() || another_image {
        return Due::Made;
    }
    if seen.joined { Due::Nothing } else { Due::Joined }
}

/// What has to be there before containers are made.
pub fn places(wanted: &Wanted<'_>, facts: &Facts, plan: &mut Plan) {
    let Some(inside) = inside(wanted, facts) else { return };
    let engine = wanted.topology.engine;
    let names = wanted.instances.iter().map(Instance::container);
    let names = names.chain(wanted.app.map(|_| container::of_app(engine)));
    let mut directory = |path: &Path, owner: Owner| {
        let right =
            facts.path(path).is_some_and(|stat| stat.mode == 0o700 && super::owns(facts, owner, stat.uid));
        if !right {
            plan.steps.push(Step::Directory { path: path.into(), owner, mode: 0o700, copy: false });
        }
    };
    directory(&container::dir(), Owner::Root);
    names.for_each(|name| directory(&container::mounted(&name), Owner::Image));
    if facts.containers.network.is_none() {
        plan.steps.push(Step::Network { program: inside.program });
    }
    let fresh = |instance: &Instance| {
        let volume = container::volume(instance.engine, instance.name.as_str());
        (!facts.containers.volumes.contains_key(&volume))
            .then(|| NewVolume { name: volume, copy: instance.upstream.is_some() })
    };
    let volumes: Vec<NewVolume> = wanted.instances.iter().filter_map(fresh).collect();
    if !volumes.is_empty() {
        plan.steps.push(Step::Volumes { inside, volumes });
    }
}

/// The containers of instances: those that are made anew stop first, replicas before their masters.
pub fn make(wanted: &Wanted<'_>, facts: &Facts, changes: &[Change<'_>], plan: &mut Plan) {
    for change in changes.iter().rev() {
        if change.container == Due::Made && change.alive {
            // Where it is now; and only what says that it is a copy is one.
            let seen = facts.containers.containers.get(&change.instance.container());
            let mut target = change.instance.target();
            target.address = seen.and_then(Seen::address).unwrap_or(target.address);
            let role = facts.running.get(&change.instance.name).map(|running| &running.role);
            plan.steps.push(Step::Stop { target, lose: matches!(role, Some(Role::Replica { .. })) });
        }
    }
    for change in changes {
        let Some(container) = &change.spec else { continue };
        match change.container {
            Due::Made => plan.steps.push(Step::Container {
                container: Box::new(container.clone()),
                engine: wanted.topology.engine,
            }),
            Due::Joined => {
                plan.steps.push(Step::Join { program: container.program, name: container.name.clone() })
            }
            Due::Nothing => {}
        }
    }
}

/// The first thing of containers that stands in the way.
///
/// # Errors
/// A [`Fault`] that says what it is and how to get it out of the way.
pub fn impossible(wanted: &Wanted<'_>, facts: &Facts) -> Result<(), Fault> {
    let Some(program) = program(wanted) else { return Ok(()) };
    answers(program, facts)?;
    let mut names: Vec<String> = wanted.instances.iter().map(Instance::container).collect();
    names.extend(wanted.app.map(|app| container::of_app(app.engine)));
    names.iter().try_for_each(|name| taken(program, name, facts))?;
    if facts.containers.network.as_ref().is_some_and(|owner| *owner != containers::layout()) {
        return Err(Fault::refused(format!(
            "there is a {program} network {NETWORK} already, and it is not of this redis-tp"
        ))
        .hint(format!("see who uses it, and take it away:\n{program} network inspect {NETWORK}\n{program} network rm {NETWORK}")));
    }
    for instance in wanted.instances {
        places_of_a_machine(wanted, instance)?;
        loopback(instance)?;
        volume(program, wanted, facts, instance)?;
    }
    Ok(())
}

/// An engine that does not answer.
///
/// # Errors
/// A [`Fault`] with its cure.
pub fn answers(program: Program, facts: &Facts) -> Result<(), Fault> {
    match &facts.containers.trouble {
        Some(trouble) => Err(containers::refused(program, trouble)),
        None => Ok(()),
    }
}

fn taken(program: Program, name: &str, facts: &Facts) -> Result<(), Fault> {
    match facts.containers.containers.get(name) {
        Some(seen) if seen.layout != containers::layout() => Err(Fault::refused(format!(
            "there is a container {name} already, and it is not of this redis-tp: left alone"
        ))
        .hint(format!(
            "give it another name, or take it away:\n{program} rename {name} {name}-aside\n{program} rm -f {name}"
        ))),
        _ => Ok(()),
    }
}

/// Paths of this machine mean nothing in a container.
fn places_of_a_machine(wanted: &Wanted<'_>, instance: &Instance) -> Result<(), Fault> {
    let Some(section) = wanted.topology.instance(instance.name.as_str()) else { return Ok(()) };
    let keys = [("dir", section.dir.is_some()), ("logfile", section.logfile.is_some())];
    let named = instance.directives.iter().find(|named| {
        let outside = named.args.first().is_some_and(|path| !path.starts_with(DATA_DIR));
        matches!(named.name.as_str(), "aclfile" | "include") || (named.name == "unixsocket" && outside)
    });
    if let Some(named) = named {
        return Err(Fault::refused(format!(
            "{}:{}: [{}] has {}, which names a file that its container does not have",
            wanted.topology.file.display(),
            named.line,
            section.name,
            named.name
        ))
        .hint("write what is in the file into the topology (`user = …` for an ACL); a socket can be below /data"));
    }
    match keys.into_iter().find(|(_, there)| *there) {
        Some((key, _)) => Err(Fault::refused(format!(
            "{}:{}: [{}] has {key}, which is a path of this machine, and it is to run in a container",
            wanted.topology.file.display(),
            section.line,
            section.name
        ))
        .hint(format!(
            "take the line out: its data is in the volume {}, its log in `redis-tp service logs {}`",
            container::volume(instance.engine, instance.name.as_str()),
            instance.name
        ))),
        None => Ok(()),
    }
}

/// A master elsewhere that would be the container itself.
fn loopback(instance: &Instance) -> Result<(), Fault> {
    let Some(of) = instance.upstream.as_ref().filter(|of| of.instance.is_none()) else { return Ok(()) };
    let host = of.address.host.as_str();
    let itself = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    match itself {
        true => Err(Fault::refused(format!(
            "{} cannot follow {}: in a container, that is the container itself",
            instance.name, of.address
        ))
        .hint("name an instance of the topology, or an address of the other machine")),
        false => Ok(()),
    }
}

/// A volume whose data another user owns: the server could neither read nor save it.
fn volume(program: Program, wanted: &Wanted<'_>, facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let Store::Volume { volume: name, .. } = &instance.store else { return Ok(()) };
    let Some(there) = facts.containers.volumes.get(name) else { return Ok(()) };
    let foreign = there.layout != containers::layout();
    let (owner, user) = match (there.owner, facts.user) {
        (Some(owner), Some(user)) if owner.uid != user.uid => (owner, user),
        _ if foreign => {
            return Err(Fault::refused(format!(
                "there is a {program} volume {name} already, and it is not of this redis-tp: left alone"
            ))
            .hint(format!(
                "see what is in it, and take it away if nobody needs it:\n{program} run --rm -v {name}:{DATA_DIR} --entrypoint ls {} -l {DATA_DIR}\n{program} volume rm {name}",
                wanted.image
            )));
        }
        _ => return Ok(()),
    };
    Err(Fault::refused(format!(
        "what is in the {program} volume {name} belongs to uid {}, and {} runs as uid {} in {}",
        owner.uid, instance.name, user.uid, wanted.image
    ))
    .hint(format!(
        "hand it over, or take it away if nobody needs it:\n{program} run --rm --user 0 -v {name}:{DATA_DIR} --entrypoint chown {} -R {}:{} {DATA_DIR}\n{program} volume rm {name}",
        wanted.image, user.uid, user.gid
    )))
}

/// Whether a container of ours, that stands now, has this port of this machine.
pub fn publishes(facts: &Facts, port: u16) -> bool {
    let ours = |seen: &&Seen| seen.layout == containers::layout();
    facts.containers.containers.values().filter(ours).any(|seen| seen.ports.iter().any(|at| at.port == port))
}

/// The commands that take data along which is not where it will be, into a volume or out of one; none
/// between two directories.
pub fn take_along(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance, from: &Store) -> Option<String> {
    let image = wanted.image;
    let user = facts.user.map_or_else(|| "UID:GID".into(), |user| format!("{}:{}", user.uid, user.gid));
    let name = &instance.name;
    let copy = match (from, &instance.store) {
        (Store::Path(_), Store::Path(_)) => return None,
        (from, Store::Volume { program, volume }) => {
            let source = match from {
                Store::Path(path) => path.display().to_string(),
                Store::Volume { volume, .. } => volume.clone(),
            };
            format!(
                "{program} volume create --label {} {volume}\n{program} run --rm --user 0 -v {source}:/from:ro -v {volume}:{DATA_DIR} --entrypoint sh {image} -c 'cp -a /from/. {DATA_DIR}/ && chown -R {user} {DATA_DIR} && chmod 700 {DATA_DIR}'",
                containers::label()
            )
        }
        (Store::Volume { program, volume }, Store::Path(path)) => {
            let (path, user) = (path.display(), instance.engine.user());
            format!(
                "install -d -o {user} -g {user} -m 0750 {path}\n{program} run --rm --user 0 -v {volume}:/from:ro -v {path}:/to --entrypoint cp {image} -a /from/. /to/\nchown -R {user}: {path}"
            )
        }
    };
    Some(format!(
        "take it along, and run this again (or to begin empty: redis-tp uninstall, and then redis-tp up):\nredis-tp service stop {name}\n{copy}"
    ))
}

/// The steps that take the network away, when no container of ours is left.
pub fn no_network(runtime: Runtime, facts: &Facts) -> Option<Step> {
    let program = runtime.program()?;
    let ours = facts.containers.network.as_ref().is_some_and(|owner| *owner == containers::layout());
    ours.then_some(Step::RemoveNetwork { program })
}

/// The steps that take a container and what is mounted into it away.
pub fn retire(program: Program, name: &str, engine: crate::engine::Engine, facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    if facts.containers.containers.contains_key(name) || facts.state.containers.contains_key(name) {
        steps.push(Step::RemoveContainer { program, name: name.to_owned(), engine });
    }
    let dir = container::mounted(name);
    let files = facts.state.files.keys().filter(|path| path.starts_with(&dir));
    steps.extend(files.map(|path| away(path.clone(), facts)));
    if facts.state.directories.contains(&dir) {
        steps.push(Step::RemoveEmpty { path: dir });
    }
    steps
}
