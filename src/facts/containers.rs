//! What there is of containers, asked with one question to the engine: a start of its program is the
//! dearest look of all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Facts, Question, Server};
use crate::engine::{Engine, Version};
use crate::exit::Fault;
use crate::host::{Host, Ids};
use crate::runtime::container::{self, LAYOUT, NETWORK, Port};
use crate::runtime::{Program, Runtime};
use crate::state::{Contents, State};
use crate::topology::Image;
use crate::wire::Address;

mod engine;

pub use engine::{command, trouble};

use engine::{PATIENCE, inspect, read};

/// What there is of containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Containers {
    /// Why the engine does not answer.
    pub trouble: Option<Trouble>,
    /// The image, by its identifier; none where it is not here.
    pub image: Option<String>,
    /// The containers in question.
    pub containers: BTreeMap<String, Seen>,
    /// The volumes in question.
    pub volumes: BTreeMap<String, Volume>,
    /// Whose the network is; none where there is none.
    pub network: Option<String>,
}

/// Why an engine does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trouble {
    /// Its program is not on PATH.
    Absent,
    /// Its daemon does not run.
    Down,
    /// Its socket is closed to us.
    Closed,
    /// Something else, in its own words.
    Other(String),
}

/// A container as its engine has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// `running`, `exited`, `created`, `restarting`, `paused`, …
    pub state: String,
    /// Its process on this machine, 0 for none.
    pub pid: u32,
    /// Whose it is, by our label; empty for somebody else's.
    pub layout: String,
    /// What it was made of, by our label.
    pub spec: String,
    /// The image that it was made from, by its identifier.
    pub image: String,
    /// It starts again by itself.
    pub boot: bool,
    /// How often it did.
    pub restarts: u64,
    /// It is on our network.
    pub joined: bool,
    /// What of it is published now.
    pub ports: BTreeSet<Port>,
}

impl Seen {
    /// Whether it runs, or may come up again by itself.
    pub fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "restarting" | "paused" | "stopping")
    }

    /// Its state, in words behind its name.
    pub fn word(&self) -> String {
        match self.state.as_str() {
            "exited" | "stopped" => "has ended".into(),
            "created" | "configured" => "was never started".into(),
            "restarting" => "ends again and again".into(),
            other => format!("is {other}"),
        }
    }

    /// Where this machine reaches it now; none where nothing of it is published.
    pub fn address(&self) -> Option<Address> {
        let local = self.ports.iter().find(|at| at.host.is_loopback() || at.host.is_unspecified());
        let at = local.or(self.ports.first())?;
        let host = match at.host {
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".into(),
            IpAddr::V6(ip) if ip.is_unspecified() => "::1".into(),
            ip => ip.to_string(),
        };
        Some(Address::plain(host, at.port))
    }

    /// Whether it runs and has not failed.
    pub fn is_up(&self) -> bool {
        self.state == "running"
    }
}

/// A volume as its engine has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Whose it is, by our label; empty for somebody else's.
    pub layout: String,
    /// The user and group of the data in it, where that can be looked at and there is any.
    pub owner: Option<Ids>,
    /// There is something in it, as far as that can be seen.
    pub occupied: bool,
    /// It cannot be seen: only root may look into it.
    pub hidden: bool,
}

/// The program that keeps containers of these facts running, wanted or recorded; none where there are none.
fn program(question: &Question<'_>, state: &State) -> Option<Program> {
    let wanted = question.instances.iter().map(|instance| instance.runtime);
    let app = question.app.map(|app| app.runtime);
    let kept = state.instances.values().filter(|kept| kept.active).map(|kept| kept.runtime);
    let kept_app = state.app.iter().filter(|kept| kept.active).map(|kept| kept.target.runtime);
    wanted.chain(app).chain(kept).chain(kept_app).find_map(Runtime::program)
}

/// Reads them, and what the image has instead of a package.
///
/// # Errors
/// The image cannot be looked into.
pub fn gather(host: &Host, question: &Question<'_>, facts: &mut Facts) -> Result<()> {
    let Some(program) = program(question, &facts.state) else { return Ok(()) };
    let wanted = question.instances.first().is_some_and(|instance| instance.runtime.is_container());
    let names = names(question, &facts.state);
    match inspect(host, program, &names) {
        Ok(objects) => facts.containers = read(host, &objects, Some(question.image)),
        Err(trouble) => facts.containers.trouble = Some(trouble),
    }
    if let Some(id) = facts.containers.image.clone().filter(|_| wanted) {
        if !facts.state.images.contains_key(&id) {
            let contents = contents(host, program, question.image, question.engine)?;
            facts.state.images.insert(id.clone(), contents);
        }
        if let Some(contents) = facts.state.images.get(&id) {
            facts.server =
                Some(Server { path: contents.server.clone(), version: contents.version, unpacked: false });
            facts.user = Some(runs_as(host, contents.ids));
        }
    }
    Ok(())
}

/// Reads what our record names, for those who take it away; says whose it is, if it is anybody's.
pub fn recorded(host: &Host, facts: &mut Facts) -> Option<Program> {
    let state = &facts.state;
    let kept = state.instances.values().map(|kept| kept.runtime);
    let program = kept.chain(state.app.iter().map(|kept| kept.target.runtime)).find_map(Runtime::program)?;
    let mut names = BTreeSet::from([NETWORK.to_owned()]);
    names.extend(state.containers.keys().cloned());
    for (name, kept) in &state.instances {
        names.insert(container::volume(kept.engine, name.as_str()));
    }
    match inspect(host, program, &names) {
        Ok(objects) => facts.containers = read(host, &objects, None),
        Err(trouble) => facts.containers.trouble = Some(trouble),
    }
    Some(program)
}

/// Whom a container runs as: the image's user; or where we are not root, ourselves, for the files that it
/// is to read are ours.
fn runs_as(host: &Host, image: Ids) -> Ids {
    if host.euid() == 0 { image } else { host.own_ids() }
}

fn names(question: &Question<'_>, state: &State) -> BTreeSet<String> {
    let mut names = BTreeSet::from([NETWORK.to_owned(), question.image.to_string()]);
    let wanted = question.instances.iter().map(|instance| (instance.engine, instance.name.as_str()));
    let kept = state.instances.iter().map(|(name, kept)| (kept.engine, name.as_str()));
    for (engine, name) in wanted.chain(kept) {
        names.insert(container::of_instance(engine, name));
        names.insert(container::volume(engine, name));
    }
    names.insert(container::of_app(question.engine));
    names.extend(state.containers.keys().cloned());
    names
}

/// Asks one container, for a step that waits for it; none where there is none of ours.
///
/// # Errors
/// The engine does not answer.
pub fn look(host: &Host, program: Program, name: &str) -> Result<Option<Seen>> {
    let ours = |seen: &Seen| seen.layout == layout();
    Ok(about(host, program, name, None)?.containers.remove(name).filter(ours))
}

/// Whose the network is, by our label; none where there is none.
///
/// # Errors
/// The engine does not answer.
pub fn network(host: &Host, program: Program) -> Result<Option<String>> {
    Ok(about(host, program, NETWORK, None)?.network)
}

/// A volume; none where there is none.
///
/// # Errors
/// The engine does not answer.
pub fn volume(host: &Host, program: Program, name: &str) -> Result<Option<Volume>> {
    Ok(about(host, program, name, None)?.volumes.remove(name))
}

/// What there is of one name.
fn about(host: &Host, program: Program, name: &str, image: Option<&Image>) -> Result<Containers, Fault> {
    let names = BTreeSet::from([name.to_owned()]);
    let objects = inspect(host, program, &names).map_err(|trouble| refused(program, &trouble))?;
    Ok(read(host, &objects, image))
}

/// What our label says.
pub fn layout() -> String {
    crate::state::dir().display().to_string()
}

/// Our label, as engines take it.
pub fn label() -> String {
    format!("{LAYOUT}={}", layout())
}

/// Looks into an image: a start of it that runs nothing of ours.
///
/// # Errors
/// It has no server, or none that runs.
fn contents(host: &Host, program: Program, image: &Image, engine: Engine) -> Result<Contents> {
    let (server, user) = (engine.server(), engine.user());
    let script = format!("command -v {server} && id -u {user} && id -g {user} && {server} --version");
    let args = ["run", "--rm", "--network", "none", "--entrypoint", "sh"];
    let child = command(host, program).args(args).arg(image.as_str()).args(["-c", &script]);
    let done = host.run(child.deadline(PATIENCE))?;
    // The engine's own complaint, and not a shell's.
    if matches!(done.code, Some(125..=126)) || done.stderr.contains("Error: ") {
        return Err(refused(program, &Trouble::Other(done.tail())).into());
    }
    let lines: Vec<&str> = done.stdout.lines().collect();
    let number = |at: usize| lines.get(at).and_then(|line| line.trim().parse().ok());
    let found = match (lines.first(), number(1), number(2), lines.get(3)) {
        (Some(path), Some(uid), Some(gid), Some(banner)) => Version::of_banner(banner)
            .map(|version| Contents { server: PathBuf::from(path.trim()), version, ids: Ids { uid, gid } }),
        _ => None,
    };
    let Some(found) = found else {
        let what = match lines.first() {
            None => format!("there is no {server} in the image {image}"),
            Some(_) if number(1).is_none() => {
                format!("there is no user '{user}' in the image {image} for the server to run as")
            }
            Some(_) => format!("{server} does not run in the image {image}: {}", done.tail()),
        };
        let other = match engine {
            Engine::Redis => ("redis:7", "engine = valkey"),
            Engine::Valkey => ("valkey/valkey:8", "engine = redis"),
        };
        return Err(Fault::refused(what)
            .hint(format!(
                "name an image that has it, or another engine ({}):\nredis-tp up --runtime {program} --image {}",
                other.1, other.0
            ))
            .into());
    };
    Ok(found)
}

/// An engine that does not answer, as a refusal.
pub fn refused(program: Program, trouble: &Trouble) -> Fault {
    match (program, trouble) {
        (_, Trouble::Absent) => Fault::refused(format!(
            "{program} is not on PATH, and redis-tp has containers in it"
        ))
        .hint(match program {
            Program::Docker => "install it again:\napt-get install docker.io",
            Program::Podman => "install it again:\napt-get install podman",
        }),
        (_, Trouble::Closed) => Fault::refused(format!("{program} does not let you in: permission denied"))
            .hint(format!(
                "become a member of its group, and log in anew:\nsudo usermod -aG {program} \"$USER\""
            )),
        (_, Trouble::Down) => Fault::refused(format!("{program}'s daemon does not run"))
            .hint("start it:\nsystemctl start docker    # or where there is no systemd: dockerd"),
        (_, Trouble::Other(said)) => Fault::refused(format!("{program} does not answer: {said}"))
            .hint(format!("see what is wrong with it:\n{program} info")),
    }
}

/// Whom containers of an image run as: known by its identifier, or found out.
///
/// # Errors
/// The image is not here, or cannot be looked into.
pub fn user_of(host: &Host, program: Program, image: &Image, engine: Engine, state: &State) -> Result<Ids> {
    let there = about(host, program, image.as_str(), Some(image))?;
    let id = there.image.ok_or_else(|| missing(program, image, ""))?;
    let ids = match state.images.get(&id) {
        Some(known) => known.ids,
        None => contents(host, program, image, engine)?.ids,
    };
    Ok(runs_as(host, ids))
}

/// An image that is not here and cannot be had.
pub fn missing(program: Program, image: &Image, why: &str) -> Fault {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    Fault::refused(format!("the image {image} is not here, and cannot be pulled{why}")).hint(format!(
        "bring it here from another machine, or name another one with --image:\n{program} save {image} | gzip > image.tar.gz    # there\n{program} load -i image.tar.gz    # here"
    ))
}
