//! What there is of containers, asked with one question to the engine: a start of its program is the
//! dearest look of all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Facts, Question, Server};
use crate::engine::{Engine, Version};
use crate::exit::Fault;
use crate::host::{Child, Host, Ids};
use crate::runtime::container::{self, LAYOUT, NETWORK, Port, SPEC};
use crate::runtime::{Program, Runtime};
use crate::state::{Contents, State};
use crate::topology::Image;

/// How long an engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

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
        Ok(objects) => facts.containers = read(host, &objects),
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
        Ok(objects) => facts.containers = read(host, &objects),
        Err(trouble) => facts.containers.trouble = Some(trouble),
    }
    Some(program)
}

/// Whom a container runs as: the image's user; or where we are not root, ourselves, for the files that it
/// is to read are ours.
pub fn runs_as(host: &Host, image: Ids) -> Ids {
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

/// The engine's program as a child. It finds its daemon, or its images, by the user's own surroundings; an
/// engine of another machine would not find our files, and is not asked.
pub fn command(host: &Host, program: Program) -> Child {
    let local = |(name, value): &(&str, String)| *name != "DOCKER_HOST" || value.starts_with("unix:");
    let known = ["HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST"];
    let vars = known.into_iter().filter_map(|name| Some((name, host.env(name)?))).filter(local);
    vars.fold(Child::new(program.name()), |child, (name, value)| child.env(name, value))
}

/// Asks an engine for everything of these names: containers, volumes, networks, images.
fn inspect(host: &Host, program: Program, names: &BTreeSet<String>) -> Result<Vec<Value>, Trouble> {
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    if program == Program::Docker || all == [NETWORK] {
        return ask(host, program, &["inspect"], &all);
    }
    // Podman finds a network only where no container is asked for.
    let (networks, rest): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|name| *name == NETWORK);
    std::thread::scope(|scope| {
        let networks = (!networks.is_empty())
            .then(|| scope.spawn(|| ask(host, program, &["network", "inspect"], &networks)));
        let mut objects = ask(host, program, &["inspect"], &rest)?;
        let broken = |_| Err(Trouble::Other("the question broke off".into()));
        if let Some(networks) = networks {
            objects.extend(networks.join().unwrap_or_else(broken)?);
        }
        Ok(objects)
    })
}

fn ask(host: &Host, program: Program, verb: &[&str], names: &[&str]) -> Result<Vec<Value>, Trouble> {
    let words = verb.iter().chain(names).copied();
    let child = command(host, program).args(words).deadline(PATIENCE);
    let done = host.run(child).map_err(|error| Trouble::Other(format!("{error:#}")))?;
    let objects = serde_json::from_str::<Vec<Value>>(&done.stdout);
    match (objects, trouble(&done.stderr)) {
        (_, Some(trouble)) => Err(trouble),
        (Ok(objects), None) => Ok(objects),
        // Podman says nothing at all where it finds nothing.
        (Err(_), None) if done.stdout.trim().is_empty() => Ok(Vec::new()),
        (Err(_), None) => Err(Trouble::Other(done.tail())),
    }
}

/// What an engine's complaint means; one of names that it does not know is none.
pub fn trouble(said: &str) -> Option<Trouble> {
    let is = |words: &str| said.to_ascii_lowercase().contains(words);
    if is("permission denied") {
        return Some(Trouble::Closed);
    }
    if is("is the docker daemon running") || is("cannot connect to the docker daemon") {
        return Some(Trouble::Down);
    }
    let unknown = |line: &str| {
        let line = line.to_ascii_lowercase();
        line.contains("no such ") || line.contains("not found") || line.contains("level=warning")
    };
    let other: Vec<&str> =
        said.lines().filter(|line| line.to_ascii_lowercase().contains("error") && !unknown(line)).collect();
    (!other.is_empty()).then(|| Trouble::Other(other.join("; ")))
}

fn read(host: &Host, objects: &[Value]) -> Containers {
    let mut all = Containers::default();
    for object in objects {
        let name = text(object, &["Name"]).trim_start_matches('/').to_owned();
        if object.get("HostConfig").is_some() {
            all.containers.insert(name, seen(object));
        } else if object.get("Mountpoint").is_some() {
            all.volumes.insert(name, volume_of(host, object));
        } else if object.get("RootFS").is_some() {
            all.image = Some(text(object, &["Id"]).trim_start_matches("sha256:").to_owned());
        } else {
            // Podman has the names of a network in small letters.
            let docker = label(object.get("Labels"), LAYOUT);
            let owner = if docker.is_empty() { label(object.get("labels"), LAYOUT) } else { docker };
            all.network = Some(owner);
        }
    }
    all
}

fn seen(object: &Value) -> Seen {
    let labels = object.pointer("/Config/Labels");
    let networks = object.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let policy = text(object, &["HostConfig", "RestartPolicy", "Name"]);
    Seen {
        state: text(object, &["State", "Status"]),
        pid: object
            .pointer("/State/Pid")
            .and_then(Value::as_u64)
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or_default(),
        layout: label(labels, LAYOUT),
        spec: label(labels, SPEC),
        image: text(object, &["Image"]).trim_start_matches("sha256:").to_owned(),
        restarts: object.get("RestartCount").and_then(Value::as_u64).unwrap_or_default(),
        boot: !matches!(policy.as_str(), "" | "no"),
        joined: networks.is_some_and(|networks| networks.contains_key(NETWORK)),
        ports: ports(object),
    }
}

/// `{"6379/tcp": [{"HostIp": "127.0.0.1", "HostPort": "6379"}]}`
fn ports(object: &Value) -> BTreeSet<Port> {
    let published = object.pointer("/NetworkSettings/Ports").and_then(Value::as_object);
    let bindings = published.into_iter().flatten().filter_map(|(_, bindings)| bindings.as_array()).flatten();
    let one = |binding: &Value| {
        let host = text(binding, &["HostIp"]);
        let host = if host.is_empty() { "0.0.0.0" } else { &host };
        Some(Port { host: host.parse::<IpAddr>().ok()?, port: text(binding, &["HostPort"]).parse().ok()? })
    };
    bindings.filter_map(one).collect()
}

/// The owner is that of the directory, by its number; a volume in which nothing was ever is nobody's yet.
fn volume_of(host: &Host, object: &Value) -> Volume {
    let place = PathBuf::from(text(object, &["Mountpoint"]));
    let names = host.list(&place);
    let occupied = names.as_ref().is_ok_and(|names| !names.is_empty());
    let stat = host.stat(&place).ok().flatten();
    Volume {
        layout: label(object.get("Labels"), LAYOUT),
        owner: stat.filter(|_| occupied).map(|stat| Ids { uid: stat.uid, gid: stat.gid }),
        occupied,
        hidden: names.is_err(),
    }
}

fn label(labels: Option<&Value>, name: &str) -> String {
    let value = labels.and_then(|labels| labels.get(name)).and_then(Value::as_str);
    value.unwrap_or_default().to_owned()
}

fn text(object: &Value, path: &[&str]) -> String {
    let found = path.iter().try_fold(object, |at, name| at.get(name));
    found.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Asks one container, for a step that waits for it; none where there is none of ours.
///
/// # Errors
/// The engine does not answer.
pub fn look(host: &Host, program: Program, name: &str) -> Result<Option<Seen>> {
    let names = BTreeSet::from([name.to_owned()]);
    let objects = inspect(host, program, &names).map_err(|trouble| refused(program, &trouble))?;
    let ours = |seen: &Seen| seen.layout == layout();
    Ok(read(host, &objects).containers.remove(name).filter(ours))
}

/// Whose the network is, by our label; none where there is none.
///
/// # Errors
/// The engine does not answer.
pub fn network(host: &Host, program: Program) -> Result<Option<String>> {
    let names = BTreeSet::from([NETWORK.to_owned()]);
    let objects = inspect(host, program, &names).map_err(|trouble| refused(program, &trouble))?;
    Ok(read(host, &objects).network)
}

/// A volume; none where there is none.
///
/// # Errors
/// The engine does not answer.
pub fn volume(host: &Host, program: Program, name: &str) -> Result<Option<Volume>> {
    let names = BTreeSet::from([name.to_owned()]);
    let objects = inspect(host, program, &names).map_err(|trouble| refused(program, &trouble))?;
    Ok(read(host, &objects).volumes.remove(name))
}

/// What our label says.
pub fn layout() -> String {
    crate::state::dir().display().to_string()
}

/// Looks into an image: a start of it that runs nothing of ours.
///
/// # Errors
/// It has no server, or none that runs.
pub fn contents(host: &Host, program: Program, image: &Image, engine: Engine) -> Result<Contents> {
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

/// What a run needs to know of the image: looked up by its identifier, or found out.
///
/// # Errors
/// It is not here, or cannot be looked into.
pub fn contents_of(
    host: &Host,
    program: Program,
    image: &Image,
    engine: Engine,
    state: &State,
) -> Result<(String, Contents)> {
    let names = BTreeSet::from([image.to_string()]);
    let objects = inspect(host, program, &names).map_err(|trouble| refused(program, &trouble))?;
    let id = read(host, &objects).image.ok_or_else(|| missing(program, image, ""))?;
    match state.images.get(&id) {
        Some(known) => Ok((id, known.clone())),
        None => Ok((id, contents(host, program, image, engine)?)),
    }
}

/// An image that is not here and cannot be had.
pub fn missing(program: Program, image: &Image, why: &str) -> Fault {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    Fault::refused(format!("the image {image} is not here, and cannot be pulled{why}")).hint(format!(
        "bring it here from another machine, or name another one with --image:\n{program} save {image} | gzip > image.tar.gz    # there\n{program} load -i image.tar.gz    # here"
    ))
}

/// Whether a path is below one that is mounted into containers.
pub fn is_mounted(path: &Path) -> bool {
    path.starts_with(container::dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_complains_of_is_told_apart() {
        let cases = [
            ("Error: No such object: redis-master\nError: No such object: redis-tp\n", None),
            ("Error: no such object: \"redis-master\"\n", None),
            (
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
                Some(Trouble::Down),
            ),
            (
                "Got permission denied while trying to connect to the Docker daemon socket",
                Some(Trouble::Closed),
            ),
            ("Error: what?", Some(Trouble::Other("Error: what?".into()))),
        ];
        for (said, expected) in cases {
            assert_eq!(trouble(said), expected, "{said}");
        }
    }

    #[test]
    fn published_ports_are_read() {
        let object = serde_json::json!({"NetworkSettings": {"Ports": {
            "6379/tcp": [{"HostIp": "127.0.0.1", "HostPort": "6379"}, {"HostIp": "::1", "HostPort": "6379"}],
            "6380/tcp": null}}});
        let at = |host: &str| Port { host: host.parse().unwrap(), port: 6379 };
        assert_eq!(ports(&object), BTreeSet::from([at("127.0.0.1"), at("::1")]));
    }
}
