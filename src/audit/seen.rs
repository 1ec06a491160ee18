//! What the audit looks at, read once and without effects ([`super::gather`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use super::firewall::Rules;
use crate::conf::Conf;
use crate::engine::{Engine, Version};
use crate::facts::Role;
use crate::host::{Ids, Stat};
use crate::kernel::Setting;
use crate::secret::Secret;
use crate::tls::judge::{Flaw, Validity};
use crate::topology::Name;
use crate::wire::Address;

/// All that was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every server that runs here or is to.
    pub servers: Vec<Server>,
    /// The engine of the topology.
    pub engine: Engine,
    /// The server's own user.
    pub user: Option<Ids>,
    /// Its shell, as /etc/passwd has it.
    pub shell: Option<String>,
    /// There is a topology here.
    pub managed: bool,
    /// The web app uses it as a cache.
    pub cache: bool,
    /// apt's view of the server's package; none where no package is installed.
    pub package: Option<Package>,
    /// apt's sources; none where there is no apt.
    pub sources: Option<Vec<(PathBuf, String)>>,
    /// The name of Debian's release.
    pub release: Option<String>,
    /// What filters packets.
    pub firewall: Option<Rules>,
    /// Why the processes of others could not be looked at.
    pub blind: bool,
    /// Processes with one of the passwords among their arguments: number, program.
    pub argv: Vec<(u32, String)>,
    /// Processes with one of them in their environment.
    pub environ: Vec<(u32, String)>,
    /// Files with one of them that everybody can read.
    pub readable: Vec<(PathBuf, Stat)>,
    /// There were too many files; the first of them that was not looked into.
    pub unread: Option<PathBuf>,
    /// The first file that was not read to its end.
    pub cut: Option<PathBuf>,
    /// Backups with their modes.
    pub backups: Vec<(PathBuf, Stat)>,
    /// Files of cron's and ssh's that begin as an RDB does.
    pub planted: Vec<PathBuf>,
    /// Processes with names of known miners.
    pub miners: Vec<(u32, String)>,
    /// /etc/ld.so.preload names something.
    pub preload: bool,
    /// What `--check-system` of the server says, by the names of its checks; none where it does not have it.
    pub check_system: Option<BTreeMap<String, String>>,
    /// The kernel's settings.
    pub kernel: BTreeMap<Setting, String>,
    /// This is a container: they are those of another machine.
    pub contained: bool,
    /// Those of them that this machine lets us set for good.
    pub settable: BTreeSet<Setting>,
    /// What would have been looked at, and why it was not.
    pub missing: BTreeMap<&'static str, String>,
}

/// A server, or an instance that does not run.
#[derive(Debug, Default)]
pub struct Server {
    /// The instance, or `pid 4711`.
    pub name: String,
    /// The instance of the topology; none if nobody manages it.
    pub instance: Option<Name>,
    /// It runs.
    pub runs: bool,
    /// It runs in a container.
    pub contained: bool,
    /// An ordinary user has started it, so it is asked nothing but whether it lets everybody in.
    pub foreign: bool,
    /// Its section was taken over: only what is named there is so.
    pub taken_over: bool,
    /// Other machines are to reach it.
    pub exposed: bool,
    /// Where its data are to be.
    pub wanted_dir: Option<PathBuf>,
    /// Its configuration.
    pub file: Option<PathBuf>,
    /// What is in that.
    pub conf: Conf,
    /// That cannot be read as one.
    pub unread: bool,
    /// Whose it is.
    pub file_stat: Option<Stat>,
    /// The directory that it is in.
    pub file_dir: Option<(PathBuf, Stat)>,
    /// Everybody may enter the directories above that.
    pub file_reachable: bool,
    /// Its process.
    pub process: Option<Guarded>,
    /// Where we reach it.
    pub address: Option<Address>,
    /// Where it listens.
    pub listens: Vec<(IpAddr, u16)>,
    /// The own addresses where it answers without a password.
    pub open_at: Vec<IpAddr>,
    /// Those where it does not tell whether it would.
    pub unclear_at: Vec<IpAddr>,
    /// It let us in and told us all that follows.
    pub told: Option<Told>,
    /// The files with its data, its log, its ACL file, and their directories.
    pub data: Vec<(PathBuf, Stat)>,
    /// Its log.
    pub log: Option<(PathBuf, Stat)>,
    /// Its ACL file.
    pub acl_file: Option<(PathBuf, Stat)>,
    /// What it speaks TLS with.
    pub certified: Option<Certified>,
    /// Its Unix socket.
    pub socket: Option<(PathBuf, Stat)>,
    /// Those of its modules, each with its file, that somebody else than root could have put there.
    pub planted: Vec<(String, String)>,
    /// Whose connections from other machines the kernel knows; none where it does not tell.
    pub connected: Option<BTreeSet<IpAddr>>,
    /// The users that are connected to its Unix socket, as far as the kernel knows them; none where it does not tell.
    pub socket_users: Option<Vec<Option<u32>>>,
    /// Users that somebody made by hand, and no file names.
    pub by_hand: Vec<String>,
    /// Users of ours that somebody's hand changed.
    pub exchanged: Vec<String>,
    /// Those of them that have a password which is not ours.
    pub other_password: Vec<String>,
    /// The password that it takes.
    pub password: Option<Secret>,
    /// The master that it is to follow, as an address.
    pub wanted_master: Option<Address>,
}

/// What a server speaks TLS with.
#[derive(Debug)]
pub struct Certified {
    /// The file of its certificate.
    pub cert: PathBuf,
    /// What is to be said of it; none where it cannot be read.
    pub judged: Option<Result<Validity, Flaw>>,
    /// The time of that, in seconds since 1970.
    pub now: u64,
    /// The files of its key, and of its authority's where that is ours.
    pub keys: Vec<(PathBuf, Stat)>,
}

/// A process, and what confines it.
#[derive(Clone, Debug, Default)]
pub struct Guarded {
    /// Its number.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// The unit that it runs in.
    pub unit: Option<String>,
    /// The file of its program was replaced since it began.
    pub replaced: bool,
    /// `NoNewPrivs: 1` in /proc/PID/status.
    pub no_new_privileges: bool,
    /// `Seccomp: 2`: its system calls are filtered.
    pub filtered: bool,
    /// Its `CapBnd`: what it could ever be allowed.
    pub capabilities: u64,
    /// How many files it may open.
    pub files: Option<u64>,
}

/// What a server told.
#[derive(Debug, Default)]
pub struct Told {
    /// INFO; none where that is forbidden.
    pub info: Option<BTreeMap<String, String>>,
    /// CONFIG GET *; none where that is forbidden.
    pub config: Option<BTreeMap<String, String>>,
    /// ACL LIST; none where that is forbidden.
    pub users: Option<Vec<String>>,
    /// Its modules, each with its file; none where that is forbidden.
    pub modules: Option<Vec<(String, String)>>,
    /// Keys that are there, of those that known attacks leave; none where that cannot be asked.
    pub foreign_keys: Option<Vec<String>>,
    /// It knows a command that only a module of attackers brings; none where that cannot be asked.
    pub foreign_command: Option<bool>,
    /// Its clients, without ourselves; none where that is forbidden.
    pub clients: Option<Vec<Client>>,
    /// What it is now; unknown where INFO is forbidden.
    pub role: Role,
    /// Its version.
    pub version: Option<Version>,
}

/// A client of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// As whom it is there.
    pub user: String,
    /// The address of the other machine that it comes from.
    pub elsewhere: Option<IpAddr>,
}

/// A package, and what apt would install in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// The version that is here.
    pub installed: String,
    /// The version that apt would install.
    pub candidate: String,
    /// That comes from a security suite.
    pub security: bool,
    /// The candidate is newer.
    pub older: bool,
    /// How old apt's index is, in days.
    pub days: u64,
}

impl Server {
    /// A value of CONFIG GET; where it does not run, of its file.
    pub fn value(&self, name: &str) -> Option<String> {
        match &self.told {
            Some(told) => told.config.as_ref()?.get(name).cloned(),
            None => self.conf.word(name).map(str::to_owned),
        }
    }

    /// From which other machines somebody is connected, as the kernel and the server itself tell it; none where
    /// neither does.
    pub fn elsewhere(&self) -> Option<BTreeSet<IpAddr>> {
        let clients = self.told.as_ref().and_then(|told| told.clients.as_ref());
        if !self.runs {
            return Some(BTreeSet::new());
        }
        if clients.is_none() && self.connected.is_none() {
            return None;
        }
        let told = clients.into_iter().flatten().filter_map(|client| client.elsewhere);
        Some(told.chain(self.connected.iter().flatten().copied()).collect())
    }

    /// The addresses beyond loopback on which it listens.
    pub fn beyond(&self) -> Vec<IpAddr> {
        self.listens.iter().map(|(address, _)| *address).filter(|address| !address.is_loopback()).collect()
    }
}
