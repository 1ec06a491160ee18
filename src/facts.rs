//! What is there, read once and without effects: plain data that `plan()` decides on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::Version;
use crate::host::{Ids, Stat};
use crate::runtime::Means;
use crate::secret::Secret;
use crate::state::State;
use crate::store::Store;
use crate::topology::Name;

pub mod containers;
pub mod data;
pub mod dpkg;
pub mod found;
mod gather;
pub mod holder;
pub mod parse;
pub mod sockets;
mod web;

pub use containers::Containers;
pub use gather::{
    Question, about, address_on_disk, gather, is_server, is_starting, listening, listening_of, means, ours,
    pid_of,
};
pub use web::supervisor;

/// Everything that planning may look at.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// systemd is PID 1.
    pub systemd: bool,
    /// What there is to keep instances running.
    pub means: Means,
    /// The user's systemd gives units namespaces of their own; root's always does.
    #[serde(default)]
    pub namespaces: bool,
    /// apt-get is there.
    pub apt: bool,
    /// The engine's server package, as dpkg has it.
    pub package: Option<Package>,
    /// The server's program and version.
    pub server: Option<Server>,
    /// The engine's system user.
    pub user: Option<Ids>,
    /// What the paths in question are; one that is absent is not there.
    pub paths: BTreeMap<PathBuf, Stat>,
    /// Where those of them lead that are symbolic links.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// Data directories and volumes that have something in them.
    pub occupied: BTreeSet<Store>,
    /// What is in the data directories of instances set up by hand.
    #[serde(default)]
    pub held: BTreeMap<PathBuf, data::Held>,
    /// Directories that something is to be made in, and files that are to be replaced, that are not ours to
    /// write to; root's are the immutable and those on a file system that is mounted read-only.
    pub closed: BTreeSet<PathBuf>,
    /// How many bytes can still be written where we and the servers write.
    pub room: BTreeMap<PathBuf, u64>,
    /// Configurations that are ours by what stands in them, where there is no record, and that are not wanted.
    pub orphans: BTreeSet<PathBuf>,
    /// The text of files in question.
    pub texts: BTreeMap<PathBuf, Secret>,
    /// What we last wrote to files in question.
    pub written: BTreeMap<PathBuf, Secret>,
    /// The master's configuration file is the package's own, untouched.
    pub stock: bool,
    /// The units in question.
    pub units: BTreeMap<String, Unit>,
    /// TCP listeners on the ports in question.
    pub listeners: Vec<Listener>,
    /// Servers that answered on an instance's address.
    pub running: BTreeMap<Name, Running>,
    /// Masters elsewhere that replicas are to follow: what came of an attempt to talk to them.
    pub upstreams: BTreeMap<Name, Upstream>,
    /// The processes of instances, wanted or to go, as far as they could be found.
    pub pids: BTreeMap<Name, u32>,
    /// IPv6 is switched off.
    pub no_ipv6: bool,
    /// Addresses of `bind` that this machine does not have.
    pub unbindable: Vec<IpAddr>,
    /// What there is of containers.
    pub containers: Containers,
    /// This very program.
    pub program: Program,
    /// The web app as it runs.
    pub app: App,
    /// What instances of our record hold that is nowhere else, where data are to go.
    pub holdings: BTreeMap<Name, Holding>,
    /// The backups that there are, whose names are taken.
    pub backups: BTreeSet<PathBuf>,
    /// When this was, in seconds since 1970.
    pub time: u64,
    /// What we did here before.
    pub state: State,
}

/// This very program, as a service would find it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Only root can change it, and every user can run it there.
    pub fit: bool,
    /// The copy for services is the same.
    pub copied: bool,
    /// Another one has another, as far as its length and time tell.
    pub edition: String,
}

/// The web app as it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct App {
    /// Its user where there is no systemd.
    pub user: Option<Ids>,
    /// Its process, or its supervisor where there is no systemd.
    pub pid: Option<u32>,
    /// The program of that process; with ` (deleted)` behind it once it was replaced.
    pub exe: Option<PathBuf>,
    /// Its processes that may listen for it.
    pub workers: BTreeSet<u32>,
    /// The first port that any user may listen on.
    pub first_port: u16,
}

/// A package as dpkg's status file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Debian's version.
    pub version: String,
    /// `installed`, or what dpkg was left at (`half-configured`, `config-files`, …).
    pub status: String,
}

impl Package {
    /// Whether the package's programs are in place and configured.
    pub fn installed(&self) -> bool {
        self.status == "installed"
    }
}

/// The server's program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Where it is.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
    /// It was unpacked without root.
    #[serde(default)]
    pub unpacked: bool,
}

/// A unit as systemd has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unit {
    /// `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active: String,
    /// Its main process, 0 for none.
    pub pid: u32,
    /// A file of it changed since systemd read it.
    pub needs_reload: bool,
    /// It is to start at boot.
    pub enabled: bool,
    /// Home directories are hidden from it (`ProtectHome=`).
    pub hides_home: bool,
    /// The paths that it may write to, its drop-ins among what says so (`ReadWritePaths=`).
    pub opens: Vec<PathBuf>,
}

/// A TCP socket in LISTEN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The address it is bound to.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Whose it is; none when the kernel would not tell.
    pub owner: Option<Process>,
}

impl Listener {
    /// Who it is, in words.
    pub fn holder(&self) -> String {
        match &self.owner {
            Some(owner) => match &owner.unit {
                Some(unit) => format!("{} (pid {}, {unit})", owner.program, owner.pid),
                None => format!("{} (pid {}, in no unit)", owner.program, owner.pid),
            },
            None => "a process that the kernel does not show".into(),
        }
    }
}

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its program, as /proc/PID/comm has it.
    pub program: String,
    /// The unit that it runs in, if it is a service.
    #[serde(default)]
    pub unit: Option<String>,
    /// Its user.
    #[serde(default)]
    pub uid: u32,
}

/// A server of ours that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// Which password it took.
    pub auth: Auth,
    /// Changes with every start.
    #[serde(default)]
    pub run_id: String,
    /// The configuration that it was started with.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Master or replica, now.
    pub role: Role,
    /// Keys in all its databases.
    #[serde(default)]
    pub keys: u64,
    /// Clients but ourselves and, with a replica, its master.
    #[serde(default)]
    pub clients: u64,
    /// Replicas that follow it.
    #[serde(default)]
    pub replicas: u64,
    /// Changes since it last wrote its data to a file.
    #[serde(default)]
    pub unsaved: u64,
    /// What its data and buffers take, in bytes.
    #[serde(default)]
    pub memory: u64,
    /// CONFIG GET *, without its secrets; empty where the command is forbidden.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Secrets that it has and its file has not; `user` where users may do something else than by it.
    #[serde(default)]
    pub exchanged: Vec<String>,
    /// The users that may do something else than by its file.
    #[serde(default)]
    pub users: Vec<String>,
    /// It says that it takes none of the passwords that we know.
    #[serde(default)]
    pub locked: bool,
    /// It or we do not take the certificate that the other shows.
    #[serde(default)]
    pub untrusted: bool,
    /// The fingerprint of the certificate that it shows, where it speaks TLS.
    #[serde(default)]
    pub certificate: Option<String>,
}

/// Which password a server took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// The wanted one (or wants none, and none is wanted).
    Wanted,
    /// The one that its file had before.
    Former,
    /// It asks for none although one is wanted.
    Open,
    /// None that we know.
    #[default]
    Unknown,
}

/// What a server is now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It takes writes.
    Master,
    /// It follows another.
    Replica {
        /// The master's address as it was told.
        host: String,
        /// The master's port.
        port: u16,
        /// `master_link_status:up`
        up: bool,
    },
    /// It would not tell us.
    #[default]
    Unknown,
}

impl Role {
    /// A replica's link; `syncing`: it says that a sync is in progress.
    pub fn link(&self, syncing: bool) -> Option<Link> {
        match self {
            Self::Replica { up: true, .. } => Some(Link::Up),
            Self::Replica { .. } if syncing => Some(Link::Syncing),
            Self::Replica { .. } => Some(Link::Down),
            Self::Master | Self::Unknown => None,
        }
    }
}

/// A replica's link to its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// It hears every write.
    Up,
    /// It copies its master's data.
    Syncing,
    /// It hears nothing.
    Down,
}

/// A replica as its master tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Where it is, as the master sees it.
    pub at: (String, u16),
    /// How much of the replication stream it has acknowledged, in bytes.
    pub offset: u64,
    /// Seconds since it last did.
    pub lag: Option<u64>,
}

/// What an instance holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holding {
    /// Nothing, or what its master has, too.
    Nothing,
    /// It runs, and has so many keys.
    Keys(u64),
    /// The same, and it saves nothing: its end is theirs.
    Unsaved(u64),
    /// It does not run; this is what it last wrote.
    File(PathBuf),
    /// Something that cannot be read; why.
    Closed(String),
}

/// A master elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upstream {
    /// It answered and took the password.
    Fine,
    /// It did not; why.
    Trouble(String),
    /// It and we do not come to speak TLS with each other.
    Untrusted(String),
}

impl Facts {
    /// What a path is.
    pub fn path(&self, path: &Path) -> Option<&Stat> {
        self.paths.get(path)
    }

    /// The text of a file.
    pub fn text(&self, path: &Path) -> Option<&str> {
        self.texts.get(path).map(Secret::expose)
    }

    /// Whether the server is there, by package or on PATH.
    pub fn installed(&self) -> bool {
        self.server.is_some() && self.package.as_ref().is_none_or(Package::installed)
    }

    /// The unit, as far as systemd knows it.
    pub fn unit(&self, name: &str) -> Option<&Unit> {
        self.units.get(name)
    }
}
