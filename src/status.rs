//! How the instances fare. Each is asked once over the wire, all at the same time; what is not well
//! is said with its cause and the command to type (`diagnose.rs`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;
use serde::Serialize;

use crate::app::App;
use crate::conf::Conf;
use crate::engine::{Engine, Version};
use crate::facts::{self, Auth, Facts, parse};
use crate::host::Host;
use crate::instance::Instance;
use crate::plan::refuse;
use crate::runtime::Runtime;
use crate::topology::Name;
use crate::wire::{Address, Trouble, Wire};

mod diagnose;
mod web;

pub use crate::facts::Link;
pub use web::WebApp;

/// The format of [`Status`] as JSON.
const SCHEMA: u32 = 1;

/// All instances of the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The format.
    pub schema: u32,
    /// `status`
    pub command: &'static str,
    /// Redis or Valkey.
    pub engine: Engine,
    /// The version that is installed; a server started before an upgrade runs another.
    pub version: Option<Version>,
    /// Who keeps the instances running.
    pub runtime: Runtime,
    /// The instances, in the order of the topology.
    pub nodes: Vec<Node>,
    /// The web app, if the topology has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<WebApp>,
}

/// One instance. What could not be found out is none.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// Who keeps it running.
    pub runtime: Runtime,
    /// Where it is asked for: `127.0.0.1:6379`.
    pub address: String,
    /// Whether it serves.
    pub state: State,
    /// What it is now, whatever the topology says.
    pub role: Role,
    /// What the topology says that it is.
    pub wanted_role: Role,
    /// Whom it follows now: an instance's name, or `HOST:PORT`.
    pub master: Option<String>,
    /// Whom the topology says that it follows.
    pub wanted_master: Option<String>,
    /// A replica's link to its master.
    pub link: Option<Link>,
    /// Seconds since the master last heard of this replica; of a master elsewhere, since it was last
    /// heard of itself (it speaks at least every 10 s).
    pub lag_seconds: Option<u64>,
    /// Bytes of the replication stream that it has not read yet; known for a master on this machine.
    pub lag_bytes: Option<u64>,
    /// Memory that its data and buffers take, in bytes.
    pub memory_bytes: Option<u64>,
    /// Keys in all its databases.
    pub keys: Option<u64>,
    /// Clients besides the one that asked; its master and its replicas are none.
    pub clients: Option<u64>,
    /// Seconds since its start.
    pub uptime_seconds: Option<u64>,
    /// The version that runs.
    pub version: Option<String>,
    /// Its unit, under systemd.
    pub unit: Option<String>,
    /// Its unit's state: `active`, `inactive`, `failed`, …
    pub unit_state: Option<String>,
    /// Its process.
    pub pid: Option<u32>,
    /// What is wrong with it; none for a healthy one.
    pub problem: Option<String>,
    /// The command that cures it, or that tells more.
    pub cure: Option<String>,
    /// What it last said, where that may tell why.
    pub log: Option<Log>,
}

/// Whether an instance serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It answers.
    Up,
    /// It still reads its data.
    Loading,
    /// It takes no password that we know.
    LockedOut,
    /// Somebody listens and does not answer, or not with what was asked for.
    NoAnswer,
    /// Another server answers on its address.
    Foreign,
    /// Nobody listens.
    Down,
}

/// Master or replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It takes writes.
    Master,
    /// It follows another.
    Replica,
    /// It would not tell.
    Unknown,
}

/// The last lines of a log, secrets masked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Log {
    /// Its file, or the command that prints it.
    pub source: String,
    /// The lines, oldest first.
    pub lines: Vec<String>,
}

/// INFO as names and values, or why there is none.
type Heard = Result<BTreeMap<String, String>, Trouble>;

impl Status {
    /// Whether nothing is wrong with any instance.
    pub fn is_healthy(&self) -> bool {
        let app = self.app.as_ref().is_none_or(|app| app.problem.is_none());
        app && self.nodes.iter().all(|node| node.problem.is_none())
    }
}

impl Node {
    /// Whom it follows, or while it does not say so, whom it is to follow.
    pub fn follows(&self) -> Option<&str> {
        match self.role {
            Role::Master => None,
            Role::Replica => self.master.as_deref(),
            Role::Unknown => self.wanted_master.as_deref(),
        }
    }

    /// Whether somebody gave it another role or another master than the topology does.
    pub fn is_moved(&self) -> bool {
        let elsewhere = self.role == Role::Replica && self.master != self.wanted_master;
        self.role != Role::Unknown && (self.role != self.wanted_role || elsewhere)
    }
}

/// Asks every instance, and the app.
///
/// # Errors
/// None as yet; what cannot be asked is a node's problem.
pub fn status(host: &Host, instances: &[Instance], app: Option<&App>, facts: &Facts) -> Result<Status> {
    let heard = ask_all(host, instances, facts);
    let here = |ip: IpAddr| ip.is_loopback() || host.can_bind(ip);
    let mut nodes = relate(instances, facts, &heard, &here);
    diagnose::diagnose(host, instances, facts, &heard, &mut nodes);
    let first = instances.first();
    Ok(Status {
        schema: SCHEMA,
        command: "status",
        engine: first.map_or_else(Engine::default, |instance| instance.engine),
        version: facts.server.as_ref().map(|server| server.version),
        runtime: match first {
            Some(instance) => instance.runtime,
            None if facts.systemd => Runtime::Systemd,
            None => Runtime::Process,
        },
        nodes,
        app: app.map(|app| web::look(host, app, facts)),
    })
}

/// One that hangs must not hold the others up.
fn ask_all(host: &Host, instances: &[Instance], facts: &Facts) -> Vec<Heard> {
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            instances.iter().map(|instance| scope.spawn(|| ask(host, instance, facts))).collect();
        let broken = |_| Err(Trouble::Other("the question broke off".into()));
        asked.into_iter().map(|asked| asked.join().unwrap_or_else(broken)).collect()
    })
}

fn ask(host: &Host, instance: &Instance, facts: &Facts) -> Heard {
    let conf = on_disk(instance, facts);
    let former = conf.word("requirepass").map(crate::secret::Secret::new);
    let password = match facts.running.get(&instance.name).map(|running| running.auth) {
        Some(Auth::Wanted) | None => instance.requirepass.as_ref(),
        Some(Auth::Former) => former.as_ref(),
        Some(Auth::Open | Auth::Unknown) => None,
    };
    let at = facts::address_on_disk(instance, &conf);
    Wire::enter(host, &at, instance.users.is_some(), password)?.info("default")
}

/// An instance's configuration as the file has it.
fn on_disk(instance: &Instance, facts: &Facts) -> Conf {
    Conf::parse(facts.text(&instance.conf).unwrap_or_default()).unwrap_or_default()
}

/// The nodes, and what they are to one another.
fn relate(
    instances: &[Instance],
    facts: &Facts,
    heard: &[Heard],
    here: &dyn Fn(IpAddr) -> bool,
) -> Vec<Node> {
    let mut nodes: Vec<Node> =
        instances.iter().zip(heard).map(|(instance, heard)| node(instance, facts, heard)).collect();
    let addresses: Vec<Address> = instances
        .iter()
        .map(|instance| facts::address_on_disk(instance, &on_disk(instance, facts)))
        .collect();
    for (index, node) in nodes.iter_mut().enumerate() {
        let Some(Ok(info)) = heard.get(index) else { continue };
        let facts::Role::Replica { host, port, .. } = parse::role(info) else { continue };
        let local = |at: &Address| at.port == port && (at.host == host || is_here(&host, here));
        let by_name = instances.iter().position(|instance| instance.peer().is_at(&host, port));
        let master = by_name.or_else(|| addresses.iter().position(local));
        node.master = Some(match master.and_then(|at| instances.get(at)) {
            Some(master) => master.name.to_string(),
            None => Address::plain(&host, port).to_string(),
        });
        if node.link == Some(Link::Up) {
            let master = master.and_then(|at| heard.get(at)?.as_ref().ok());
            let own_port = addresses.get(index).map_or(0, |at| at.port);
            (node.lag_seconds, node.lag_bytes) = lag(info, master, own_port);
        }
    }
    nodes
}

fn is_here(host: &str, here: &dyn Fn(IpAddr) -> bool) -> bool {
    host == "localhost" || host.parse().is_ok_and(here)
}

/// How far a replica is behind, in seconds and bytes. Its master knows better than itself.
fn lag(
    replica: &BTreeMap<String, String>,
    master: Option<&BTreeMap<String, String>>,
    port: u16,
) -> (Option<u64>, Option<u64>) {
    let Some(master) = master else { return (number(replica, "master_last_io_seconds_ago"), None) };
    let seconds = parse::followers(master).find(|follower| follower.at.1 == port).and_then(|at| at.lag);
    let bytes = number(master, "master_repl_offset").zip(number(replica, "slave_repl_offset"));
    // The two were asked a moment apart: the replica may be ahead of what its master said.
    let bytes = bytes.map(|(written, read)| written.saturating_sub(read));
    (seconds.or_else(|| number(replica, "master_last_io_seconds_ago")), bytes)
}

fn node(instance: &Instance, facts: &Facts, heard: &Heard) -> Node {
    let systemd = instance.runtime == Runtime::Systemd;
    let unit = facts.unit(&instance.unit).filter(|_| systemd);
    let info = heard.as_ref().ok();
    let get = |name: &str| info.and_then(|info| number(info, name));
    let text = |name: &str| info.and_then(|info| info.get(name).cloned());
    let role = info.map_or(facts::Role::Unknown, parse::role);
    let linked = matches!(role, facts::Role::Replica { up: true, .. });
    let process = get("process_id").and_then(|pid| u32::try_from(pid).ok());
    let known = unit.map(|unit| unit.pid).or_else(|| facts.pids.get(&instance.name).copied());
    Node {
        name: instance.name.clone(),
        runtime: instance.runtime,
        address: facts::address_on_disk(instance, &on_disk(instance, facts)).to_string(),
        state: state(instance, facts, heard),
        role: match role {
            facts::Role::Master => Role::Master,
            facts::Role::Replica { .. } => Role::Replica,
            facts::Role::Unknown => Role::Unknown,
        },
        wanted_role: if instance.upstream.is_some() { Role::Replica } else { Role::Master },
        master: None,
        wanted_master: instance.upstream.as_ref().map(|of| match &of.instance {
            Some(name) => name.to_string(),
            None => of.address.to_string(),
        }),
        link: role.link(get("master_sync_in_progress") == Some(1)),
        lag_seconds: None,
        lag_bytes: None,
        memory_bytes: get("used_memory"),
        keys: info.map(parse::keys),
        // INFO counts the master, but not the replicas.
        clients: get("connected_clients").map(|clients| clients.saturating_sub(1 + u64::from(linked))),
        uptime_seconds: get("uptime_in_seconds"),
        version: text("valkey_version").or_else(|| text("redis_version")),
        unit: systemd.then(|| instance.unit.clone()),
        unit_state: unit.map(|unit| unit.active.clone()),
        // In a container its number is the container's own.
        pid: process.filter(|_| !instance.runtime.is_container()).or(known).filter(|pid| *pid > 0),
        problem: None,
        cure: None,
        log: None,
    }
}

fn state(instance: &Instance, facts: &Facts, heard: &Heard) -> State {
    match heard {
        Ok(info) if started_from_elsewhere(instance, info) => State::Foreign,
        Ok(info) if number(info, "loading") == Some(1) => State::Loading,
        Ok(_) => State::Up,
        Err(Trouble::Refused) => State::Down,
        Err(Trouble::Stranger(_)) => State::Foreign,
        Err(Trouble::Loading) => State::Loading,
        Err(Trouble::NoAuth | Trouble::WrongPassword) => match refuse::port(facts, instance) {
            Ok(()) => State::LockedOut,
            Err(_) => State::Foreign,
        },
        Err(Trouble::Tls(_) | Trouble::Untrusted(_) | Trouble::Other(_)) => State::NoAnswer,
    }
}

/// Whether a server reads another file than the instance's.
fn started_from_elsewhere(instance: &Instance, info: &BTreeMap<String, String>) -> bool {
    info.get("config_file").is_some_and(|file| *file != instance.config_file().display().to_string())
}

fn number(info: &BTreeMap<String, String>, name: &str) -> Option<u64> {
    info.get(name)?.parse().ok()
}

#[cfg(test)]
mod tests;
