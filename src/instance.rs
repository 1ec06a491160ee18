//! An instance as wanted, with every default filled in: what the planner, the renderer and the
//! checks work on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::certificates;
use crate::conf::{self, Conf};
use crate::directives;
use crate::engine::{Engine, Version};
use crate::exit::Fault;
use crate::host::Host;
use crate::runtime::{Runtime, container};
use crate::secret::Secret;
use crate::secrets::{OfUsers, Secrets};
use crate::state::Kept;
use crate::store::Store;
use crate::templates::{self, ConfContext};
use crate::tls::{Spoken, Tls, judge};
use crate::topology::{Bind, Defaults, Name, Named, ReplicaOf, Section, Topology};
use crate::users::{self, Users};
use crate::wire::{Address, Trouble, Wire};

/// One redis-server as wanted.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name.
    pub name: Name,
    /// Redis or Valkey.
    pub engine: Engine,
    /// Who keeps it running.
    pub runtime: Runtime,
    /// Its port.
    pub port: u16,
    /// The addresses it listens on; none for the loopback default.
    pub bind: Option<Vec<Bind>>,
    /// Whether it refuses other machines while it has no password.
    pub protected_mode: bool,
    /// Its data directory, as it sees it itself.
    pub dir: PathBuf,
    /// Where that is on this machine.
    pub store: Store,
    /// Its log; none where the container's engine keeps it.
    pub logfile: Option<PathBuf>,
    /// Its pid file.
    pub pidfile: PathBuf,
    /// Its configuration file.
    pub conf: PathBuf,
    /// Its unit.
    pub unit: String,
    /// What clients must say.
    pub requirepass: Option<Secret>,
    /// Its users, where it has any beside the default one.
    pub users: Option<Users>,
    /// What it says to its master.
    pub masterauth: Option<Secret>,
    /// As whom it says that; none for the default user.
    pub masteruser: Option<String>,
    /// How it speaks TLS; none where it does not.
    pub tls: Option<Spoken>,
    /// Whom it follows.
    pub upstream: Option<Upstream>,
    /// Every other directive of its section.
    pub directives: Vec<Named>,
    /// Every directive of its section, if it has those and no defaults of ours.
    pub plain: Option<Vec<Named>>,
    /// Whether its unit is closed to all that a server does not need.
    pub harden: bool,
}

/// The master of a replica.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where it listens.
    pub address: Address,
    /// Its name, if it is an instance of this machine.
    pub instance: Option<Name>,
}

/// What is needed to start, stop and talk to an instance: the object of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The instance.
    pub name: Name,
    /// Redis or Valkey.
    pub engine: Engine,
    /// Who keeps it running.
    pub runtime: Runtime,
    /// Where it is reached.
    pub address: Address,
    /// What it wants to hear.
    pub password: Option<Secret>,
    /// Whether it is a copy of another, so that losing its data loses nothing.
    pub replica: bool,
    /// Whether the password is that of its user `admin`, and not of the default user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
}

impl Target {
    /// Connects as the user that may do everything.
    ///
    /// # Errors
    /// See [`Wire::open`].
    pub fn connect(&self, host: &Host) -> Result<Wire, Trouble> {
        Wire::enter(host, &self.address, self.admin, self.password.as_ref())
    }

    /// The same for the journal, which holds no secret.
    pub fn without_password(&self) -> Self {
        Self { password: None, ..self.clone() }
    }

    /// Its unit.
    pub fn unit(&self) -> String {
        self.engine.unit(self.name.as_str())
    }

    /// Its configuration file.
    pub fn conf(&self) -> PathBuf {
        conf(self.engine, &self.name, self.runtime)
    }

    /// Its container.
    pub fn container(&self) -> String {
        container::of_instance(self.engine, self.name.as_str())
    }

    /// Its pid file.
    pub fn pidfile(&self) -> PathBuf {
        self.engine.pidfile(self.name.as_str())
    }

    /// An instance that only our record knows.
    pub fn of_record(name: &Name, kept: &Kept, password: Option<Secret>) -> Self {
        Self {
            name: name.clone(),
            engine: kept.engine,
            runtime: kept.runtime,
            address: Address { tls: kept.tls.clone(), ..Address::plain(&kept.address, kept.port) },
            password,
            replica: kept.replica,
            admin: kept.users,
        }
    }
}

impl Instance {
    /// Fills in the defaults of every section.
    pub fn resolve(topology: &Topology, secrets: &Secrets, runtime: Runtime) -> Vec<Self> {
        let one = |section: &Section| {
            let name = section.name.as_str();
            let engine = topology.engine;
            let plain = section.defaults != Defaults::On;
            let said = |secret: &Secret| !plain || !secret.expose().is_empty();
            let requirepass =
                inline(section, "requirepass").or_else(|| secrets.password.clone()).filter(said);
            let tls = spoken(topology, section, secrets);
            let upstream = section.replicaof.as_ref().map(|of| Upstream {
                address: Address {
                    tls: tls.as_ref().filter(|tls| tls.upstream).map(|tls| tls.files.clone()),
                    ..upstream_address(topology, of, runtime)
                },
                instance: match of {
                    ReplicaOf::Instance(name) => Some(name.clone()),
                    ReplicaOf::Remote { .. } => None,
                },
            });
            let users = users_of(topology, section, secrets);
            let of = match &section.replicaof {
                Some(ReplicaOf::Instance(of)) => topology.instance(of.as_str()),
                Some(ReplicaOf::Remote { .. }) => None,
                None => Some(section),
            };
            // One that names what it says to its master says that.
            let named = ["masteruser", "masterauth"].iter().any(|name| names(section, name));
            let as_replica = of
                .filter(|_| !named && section.defaults == Defaults::On)
                .and_then(|master| users_of(topology, master, secrets))
                .map(|users| users.replica);
            let masterauth = inline(section, "masterauth").or_else(|| as_replica.clone()).or_else(|| {
                match &section.replicaof {
                    Some(ReplicaOf::Remote { .. }) => secrets.upstream.get(&section.name).cloned(),
                    Some(ReplicaOf::Instance(of)) => topology
                        .instance(of.as_str())
                        .and_then(|master| inline(master, "requirepass"))
                        .or_else(|| secrets.password.clone()),
                    // A master may have to follow one of its replicas after a failover.
                    None => requirepass.clone().filter(|_| section.defaults != Defaults::Off),
                }
            });
            Self {
                name: section.name.clone(),
                engine,
                runtime,
                port: section.port,
                bind: section.bind.clone().or_else(|| everywhere(section)),
                // In a container every client comes from another machine, and what is published guards it.
                protected_mode: section
                    .protected_mode
                    .unwrap_or(!runtime.is_container() || requirepass.is_some()),
                store: store(section, engine, runtime),
                dir: match runtime {
                    Runtime::Container(_) => container::DATA_DIR.into(),
                    _ => section.dir.clone().unwrap_or_else(|| engine.data(name)),
                },
                logfile: match runtime {
                    Runtime::Container(_) => None,
                    _ if plain => section.logfile.clone(),
                    _ => Some(section.logfile.clone().unwrap_or_else(|| engine.logfile(name))),
                },
                pidfile: engine.pidfile(name),
                conf: conf(engine, &section.name, runtime),
                unit: engine.unit(name),
                requirepass,
                users,
                masterauth,
                masteruser: as_replica.map(|_| users::REPLICA.to_owned()),
                tls,
                upstream,
                directives: section
                    .directives
                    .iter()
                    .filter(|named| !typed_secret(&named.name))
                    .cloned()
                    .collect(),
                plain: plain.then(|| section.lines.clone()),
                // The unit of what was taken over is sound as it is.
                harden: section.harden.unwrap_or(!plain),
            }
        };
        topology.instances.iter().map(one).collect()
    }

    /// Where this machine reaches it.
    pub fn address(&self) -> Address {
        Address { tls: self.files(), ..Address::plain(reach(self.bind.as_deref()), self.port) }
    }

    /// The files by which one speaks TLS with it, as this machine has them.
    fn files(&self) -> Option<Tls> {
        self.tls.as_ref().map(|tls| tls.files.clone())
    }

    /// By which files it speaks TLS to its master; none where it does not.
    pub fn tls_upstream(&self) -> Option<Tls> {
        self.tls.as_ref().filter(|tls| tls.upstream).map(|tls| tls.files.clone())
    }

    /// The files by which it speaks TLS to its master, where its section names others for that.
    pub fn tls_client(&self) -> Option<Tls> {
        let word = |name: &str| {
            let named = self.directives.iter().rev().find(|named| named.name == name)?;
            named.args.first().map(PathBuf::from)
        };
        let (cert, key) = (word("tls-client-cert-file")?, word("tls-client-key-file")?);
        Some(Tls { ca: self.files()?.ca, cert, key })
    }

    /// By which files one speaks TLS with it inside of its container; none where it speaks plainly.
    pub fn tls_inside(&self) -> Option<Tls> {
        self.tls.as_ref().map(|_| certificates::at(Path::new(container::CONF_DIR), "server"))
    }

    /// The directory of its log; none where the container's engine keeps that.
    pub fn log_dir(&self) -> Option<&Path> {
        self.logfile.as_deref().and_then(Path::parent)
    }

    /// Its configuration file, as it sees it itself.
    pub fn config_file(&self) -> PathBuf {
        match self.runtime {
            Runtime::Container(_) => Path::new(container::CONF_DIR).join("redis.conf"),
            _ => self.conf.clone(),
        }
    }

    /// Where the other instances reach it.
    pub fn peer(&self) -> Address {
        match self.runtime {
            Runtime::Container(_) => {
                Address { tls: self.files(), ..Address::plain(self.container(), self.port) }
            }
            _ => self.address(),
        }
    }

    /// Its container.
    pub fn container(&self) -> String {
        container::of_instance(self.engine, self.name.as_str())
    }

    /// What steps need of it.
    pub fn target(&self) -> Target {
        Target {
            name: self.name.clone(),
            engine: self.engine,
            runtime: self.runtime,
            address: self.address(),
            password: self.requirepass.clone(),
            replica: self.upstream.is_some(),
            admin: self.users.is_some(),
        }
    }

    /// What our record keeps of it.
    pub fn record(&self) -> Kept {
        Kept {
            engine: self.engine,
            runtime: self.runtime,
            port: self.port,
            address: self.address().host,
            tls: self.files(),
            trust: self.tls.as_ref().map(|tls| tls.trust.clone()),
            replica: self.upstream.is_some(),
            users: self.users.is_some(),
            dir: self.store.clone(),
            logfile: self.logfile.clone(),
            active: true,
            foreign: Vec::new(),
            former: Vec::new(),
            effective: BTreeMap::new(),
        }
    }

    /// The addresses that the file names: those wanted, or loopback, in words that this version knows
    /// (`-::1` came with 6.2). In a container it is all of them: what is published decides.
    pub fn binds(&self, version: Version) -> Vec<Bind> {
        let default = match (self.runtime.is_container(), version < Version::new(6, 2)) {
            (false, true) => "127.0.0.1 ::1",
            (false, false) => "127.0.0.1 -::1",
            (true, true) => "0.0.0.0",
            (true, false) => "* -::*",
        };
        self.bind
            .clone()
            .filter(|_| !self.runtime.is_container())
            .unwrap_or_else(|| default.split(' ').filter_map(|word| Bind::parse(word).ok()).collect())
    }

    /// Whether other machines can reach it.
    pub fn is_exposed(&self) -> bool {
        self.bind.as_ref().is_some_and(|binds| !binds.iter().all(Bind::is_loopback))
    }

    /// Whether it speaks with this machine alone: nobody else reaches it, and it follows nobody else.
    pub fn is_local(&self) -> bool {
        let loopback = |host: &str| host.parse().map_or(host == "localhost", |ip: IpAddr| ip.is_loopback());
        let everywhere = self.plain.is_some() && self.bind.is_none();
        !everywhere
            && !self.is_exposed()
            && self.upstream.as_ref().is_none_or(|of| loopback(&of.address.host))
    }

    /// Whether it asks for no password, or for an empty one, which Redis takes for none; `user default`
    /// decides over both.
    fn lets_anybody_in(&self) -> bool {
        let default =
            |named: &&Named| named.name == "user" && named.args.first().is_some_and(|user| user == "default");
        match self.directives.iter().rev().find(default) {
            Some(user) => {
                let last = |rules: &[&str]| {
                    user.args.iter().rposition(|word| {
                        let word = word.to_ascii_lowercase();
                        rules.iter().any(|rule| word == *rule || (rule.len() == 1 && word.starts_with(rule)))
                    })
                };
                last(&["on"]) > last(&["off", "reset"])
                    && last(&["nopass"]) > last(&["resetpass", "reset", ">", "#"])
            }
            None => self.requirepass.as_ref().is_none_or(|password| password.expose().is_empty()),
        }
    }

    /// The configuration file as wanted. `kept` are lines of another's hand that stay.
    pub fn configuration(&self, topology: &Path, version: Version, kept: &[Hand]) -> Result<String> {
        if let Some(named) = &self.plain {
            return self.plain_configuration(topology, named, kept);
        }
        let hand = |name: &str| kept.iter().find(|hand| hand.directive == name);
        // A line that the hand took away stays away.
        let optional = |name: &str, ours: Option<String>| match hand(name) {
            Some(Hand { lines, .. }) => lines.first().cloned(),
            None => ours,
        };
        let word = |name: &str, ours: String| optional(name, Some(ours));
        let ours = |name: &str| hand(name).is_none();
        let binds: Vec<String> = self.binds(version).iter().map(ToString::to_string).collect();
        let named = |name: &str| self.directives.iter().any(|named| named.name == name);
        let line = |(name, value): (&str, String)| format!("{name} {value}");
        let context = ConfContext {
            name: self.name.to_string(),
            topology: topology.display().to_string(),
            bind: word("bind", binds.join(" ")),
            protected_mode: word("protected-mode", yes_no(self.protected_mode).into()),
            port: word("port", if self.tls.is_some() { "0".into() } else { self.port.to_string() }),
            tls: self
                .tls_lines()
                .into_iter()
                .filter(|(name, _)| ours(name) && !named(name))
                .map(line)
                .collect(),
            requirepass: optional("requirepass", secret(&self.requirepass)),
            masterauth: optional("masterauth", secret(&self.masterauth)),
            masteruser: optional("masteruser", self.masteruser.clone()),
            users: match hand("user") {
                Some(_) => Vec::new(),
                None => self.user_lines(version),
            },
            replicaof: optional("replicaof", self.follows()),
            dir: word("dir", place(&self.dir)),
            logfile: word("logfile", self.logfile.as_deref().map_or_else(|| "\"\"".into(), place)),
            pidfile: match self.runtime {
                Runtime::Container(_) => optional("pidfile", None),
                _ => word("pidfile", place(&self.pidfile)),
            },
            daemonize: yes_no(!self.runtime.is_container()),
            defaults: DEFAULTS
                .iter()
                .filter(|(name, _)| ours(name) && !named(name))
                .map(|(name, value)| line((name, (*value).to_owned())))
                .collect(),
            directives: self.directives.iter().filter(|named| ours(&named.name)).flat_map(lines).collect(),
            kept: kept
                .iter()
                .filter(|hand| !TEMPLATED.contains(&hand.directive.as_str()))
                .flat_map(|hand| {
                    hand.lines.iter().map(move |line| format!("{} {line}", conf::quote(&hand.directive)))
                })
                .collect(),
        };
        let replica = self.upstream.is_some() || context.replicaof.is_some();
        templates::configuration(&context, replica)
    }

    /// The same where only what the section names is to be in it, in its order: an `include` reads before
    /// what stands behind it.
    fn plain_configuration(&self, topology: &Path, named: &[Named], kept: &[Hand]) -> Result<String> {
        let mut parts: Vec<(String, Vec<String>)> = Vec::new();
        for line in named {
            let name = directives::canonical(&line.name);
            parts.push((name.to_owned(), if own(name).is_some() { Vec::new() } else { lines(line) }));
        }
        for name in OWN {
            let at = parts.iter().position(|(part, _)| part == name).unwrap_or(parts.len());
            parts.retain(|(part, _)| part != name);
            let words = match name {
                "replicaof" => self.follows(),
                "requirepass" => secret(&self.requirepass),
                _ => secret(&self.masterauth),
            };
            let line = words.map(|words| format!("{name} {words}"));
            parts.insert(at.min(parts.len()), (name.to_owned(), line.into_iter().collect()));
        }
        for Hand { directive, lines } in kept {
            let at = parts.iter().position(|(name, _)| name == directive).unwrap_or(parts.len());
            parts.retain(|(name, _)| name != directive);
            let lines = lines.iter().map(|line| format!("{} {line}", conf::quote(directive))).collect();
            parts.insert(at.min(parts.len()), (directive.clone(), lines));
        }
        let all = parts.into_iter().flat_map(|(_, lines)| lines).collect();
        templates::plain_configuration(self.name.as_str(), topology, all)
    }

    /// How it speaks TLS, as the server sees its files.
    fn tls_lines(&self) -> Vec<(&'static str, String)> {
        let Some(tls) = &self.tls else { return Vec::new() };
        let own = certificates::of_servers();
        let seen = |path: &Path| match self.runtime {
            Runtime::Container(_) => {
                Path::new(container::CONF_DIR).join(path.file_name().unwrap_or_default())
            }
            _ => path.to_path_buf(),
        };
        vec![
            ("tls-port", self.port.to_string()),
            ("tls-ca-cert-file", place(&seen(&own.ca))),
            ("tls-cert-file", place(&seen(&own.cert))),
            ("tls-key-file", place(&seen(&own.key))),
            ("tls-replication", yes_no(tls.upstream).into()),
        ]
    }

    /// The lines of its users, behind the word `user`.
    fn user_lines(&self, version: Version) -> Vec<String> {
        let both = self.users.as_ref().zip(self.requirepass.as_ref());
        both.map(|(users, admin)| users.lines(admin, self.engine, version)).unwrap_or_default()
    }

    /// Whom it follows, as its file has it.
    fn follows(&self) -> Option<String> {
        let of = &self.upstream.as_ref()?.address;
        Some(format!("{} {}", conf::quote(&of.host), of.port))
    }
}

/// The directives of a section that are made anew from what it comes to: a name is an address there, and a
/// password may lie in a file of its own.
const OWN: [&str; 3] = ["replicaof", "requirepass", "masterauth"];

fn own(name: &str) -> Option<&'static str> {
    OWN.into_iter().find(|own| *own == name)
}

fn secret(secret: &Option<Secret>) -> Option<String> {
    secret.as_ref().map(|secret| conf::quote(secret.expose()))
}

/// Where one listens whose section has no defaults of ours and names no address: on all of them, but to
/// other machines it does not speak while it is in protected mode.
fn everywhere(section: &Section) -> Option<Vec<Bind>> {
    let open = section.defaults != Defaults::On && section.protected_mode == Some(false);
    open.then(|| ["*", "-::*"].into_iter().filter_map(|word| Bind::parse(word).ok()).collect())
}

/// A path as a file has it; that of a home may have a blank in it.
fn place(path: &Path) -> String {
    conf::quote(&path.to_string_lossy())
}

/// A directive that somebody set by hand and that stays: its lines, without the name; none when the
/// hand took it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hand {
    /// The directive.
    pub directive: String,
    /// What stands behind it, quoted as it must be in a file.
    pub lines: Vec<String>,
}

impl Hand {
    /// A directive as a file has it.
    pub fn of(conf: &Conf, directive: &str) -> Self {
        let same = |line: &&conf::Directive| directives::canonical(&line.name) == directive;
        let lines = conf.directives.iter().filter(same).map(|line| conf::quote_all(&line.args)).collect();
        Self { directive: directive.to_owned(), lines }
    }
}

/// The lines of a directive. Redis before 7.0 ignores a `save` with several pairs in silence, so each
/// pair gets its own.
fn lines(named: &Named) -> Vec<String> {
    let line = |args: &[String]| format!("{} {}", named.name, conf::quote_all(args));
    match named.name.as_str() {
        "save" if named.args.len() > 2 => named.args.chunks(2).map(line).collect(),
        _ => vec![line(&named.args)],
    }
}

/// What we set unless the topology says otherwise. A first link waits 5 s for more replicas by
/// default, and a chain of two 10 s; with 0 it takes some 20 ms. The snapshots are the defaults of
/// Redis 6.2 and later; 6.0 takes none unless it is told to.
pub const DEFAULTS: [(&str, &str); 4] =
    [("repl-diskless-sync-delay", "0"), ("save", "3600 1"), ("save", "300 100"), ("save", "60 10000")];

/// The directives that the templates name themselves.
pub const TEMPLATED: [&str; 10] = [
    "bind",
    "protected-mode",
    "port",
    "requirepass",
    "masterauth",
    "masteruser",
    "replicaof",
    "dir",
    "logfile",
    "pidfile",
];

fn typed_secret(name: &str) -> bool {
    matches!(name, "requirepass" | "masterauth")
}

fn names(section: &Section, name: &str) -> bool {
    section.directives.iter().any(|named| directives::canonical(&named.name) == name)
}

/// The users of an instance: not where others say who may enter, by a file of users or by all that its section
/// names.
fn users_of(topology: &Topology, section: &Section, secrets: &Secrets) -> Option<Users> {
    let OfUsers { replica, app } = secrets.users.clone().filter(|_| topology.has_users())?;
    let own = inline(section, "requirepass").is_some_and(|password| password.expose().is_empty());
    if own || section.defaults != Defaults::On || names(section, "aclfile") {
        return None;
    }
    let exposed = section.bind.iter().flatten().any(|bind| !bind.is_loopback());
    let app = topology
        .app
        .as_ref()
        .zip(app)
        .map(|(section, password)| users::App { password, prefix: section.prefix.as_str().to_owned() });
    Some(Users { replica, app, default: !exposed })
}

fn inline(section: &Section, name: &str) -> Option<Secret> {
    section.directives.iter().rev().find(|named| named.name == name)?.args.first().map(Secret::new)
}

fn conf(engine: Engine, name: &Name, runtime: Runtime) -> PathBuf {
    match runtime {
        Runtime::Container(_) => {
            container::mounted(&container::of_instance(engine, name.as_str())).join("redis.conf")
        }
        _ => engine.conf(name.as_str()),
    }
}

fn store(section: &Section, engine: Engine, runtime: Runtime) -> Store {
    let name = section.name.as_str();
    match runtime {
        Runtime::Container(program) => Store::Volume { program, volume: container::volume(engine, name) },
        _ => Store::Path(section.dir.clone().unwrap_or_else(|| engine.data(name))),
    }
}

fn upstream_address(topology: &Topology, of: &ReplicaOf, runtime: Runtime) -> Address {
    match of {
        ReplicaOf::Remote { host, port } => Address::plain(host, *port),
        ReplicaOf::Instance(name) => {
            let master = topology.instance(name.as_str());
            let bind = master.and_then(|master| master.bind.as_deref());
            let host = match runtime {
                Runtime::Container(_) => container::of_instance(topology.engine, name.as_str()),
                _ => reach(bind),
            };
            Address::plain(host, master.map_or(0, |master| master.port))
        }
    }
}

/// How an instance speaks TLS, by files of ours or those that its section names; not where all that its file has
/// is what its section names.
fn spoken(topology: &Topology, section: &Section, secrets: &Secrets) -> Option<Spoken> {
    let certificates = secrets.tls.as_ref().filter(|_| section.defaults == Defaults::On)?;
    let word = |name: &str| {
        let named = section.directives.iter().rev().find(|named| named.name == name)?;
        named.args.first().cloned()
    };
    let files = certificates::files(section);
    let admin = match files == certificates::of_servers() {
        true => Some(Arc::new(certificates.server.clone())),
        false => certificates.own.get(&section.name).cloned(),
    };
    let upstream = match &section.replicaof {
        Some(ReplicaOf::Instance(of)) => {
            topology.instance(of.as_str()).is_some_and(|master| master.defaults == Defaults::On)
        }
        _ => word("tls-replication").is_none_or(|word| conf::is_yes(&word)),
    };
    Some(Spoken {
        files,
        trust: admin.as_ref().map(|pem| judge::fingerprint(pem.ca.as_bytes())).unwrap_or_default(),
        upstream,
        // One that is no service, as `verify` has it for a moment, is the administrator's.
        app: certificates.app.clone().or(admin),
    })
}

/// The best of several addresses to reach a server under: loopback if it listens there.
fn reach(bind: Option<&[Bind]>) -> String {
    let all: Vec<String> = bind.unwrap_or_default().iter().map(Bind::reach).collect();
    let loopback = all.iter().find(|address| *address == "127.0.0.1");
    loopback.or(all.first()).cloned().unwrap_or_else(|| "127.0.0.1".into())
}

/// `yes` or `no`.
pub fn yes_no(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}

/// Refuses what would let anybody in: an instance that other machines reach and that asks for no
/// password, and a password in a topology that others can read.
///
/// # Errors
/// A [`Fault`] with the cure.
pub fn refuse_open_doors(instances: &[Instance]) -> Result<(), Fault> {
    for instance in instances {
        if instance.is_exposed() && instance.lets_anybody_in() {
            let binds: Vec<String> = instance
                .bind
                .iter()
                .flatten()
                .filter(|bind| !bind.is_loopback())
                .map(ToString::to_string)
                .collect();
            return Err(Fault::refused(format!(
                "[{}] would listen on {} without a password: anybody who reaches this machine could take it over",
                instance.name,
                binds.join(" ")
            ))
            .hint("let redis-tp make a password (leave --no-password and `password = none` away), or give your own:\nredis-tp install --password-file FILE"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_doors(section: &str) -> bool {
        let text = format!("[master]\nport = 6379\n{section}");
        let topology = Topology::parse(&text, Path::new("t.ini")).unwrap();
        let secrets = Secrets { password: Some(Secret::new("generated")), ..Secrets::default() };
        refuse_open_doors(&Instance::resolve(&topology, &secrets, Runtime::Process)).is_err()
    }

    #[test]
    fn nobody_gets_in_from_outside_without_a_password() {
        for open in [
            "bind = 0.0.0.0\nrequirepass = \"\"\n",
            "bind = 127.0.0.1 -::*\nuser = default on nopass ~* +@all\n",
            "bind = *\nuser = default on >secret nopass ~* +@all\n",
        ] {
            assert!(open_doors(open), "{open}");
        }
        for closed in [
            "bind = *\n",
            "requirepass = \"\"\n",
            "bind = 127.0.0.1 ::1\nuser = default on nopass ~* +@all\n",
            "bind = *\nuser = default off nopass\n",
            "bind = *\nuser = default on nopass >secret\n",
            "bind = *\nuser = app on nopass ~app:* +@read\n",
        ] {
            assert!(!open_doors(closed), "{closed}");
        }
    }
}
