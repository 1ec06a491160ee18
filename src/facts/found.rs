//! What Redis there is on a machine that somebody set up by hand: configurations, units, processes. Like all
//! facts, looked at and not touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::gather::{about, listening_of, software};
use super::holder;
use super::{Facts, Process, Role, parse};
use crate::conf::Conf;
use crate::engine::{Engine, MASTER, Version};
use crate::host::{Host, Kind};
use crate::runtime::systemd;
use crate::secret::Secret;
use crate::tls::Tls;
use crate::topology::{Bind, Name};
use crate::wire::{Address, Wire};

/// How long a server may take to tell what it is.
const ANSWER: Duration = Duration::from_secs(5);

/// All that was found of an engine.
#[derive(Clone, Debug)]
pub struct Found {
    /// Redis or Valkey.
    pub engine: Engine,
    /// Its version, if its server is here.
    pub version: Option<Version>,
    /// systemd is PID 1.
    pub systemd: bool,
    /// Configurations whose names are those of instances.
    pub sites: Vec<Site>,
    /// Those of such names that cannot be read.
    pub unread: Vec<Unread>,
    /// Servers that run by none of these.
    pub strays: Vec<Stray>,
}

/// A configuration that cannot be read.
#[derive(Clone, Debug)]
pub struct Unread {
    /// Its file.
    pub file: PathBuf,
    /// Why not.
    pub why: String,
}

/// A configuration, and the server that runs by it.
#[derive(Clone, Debug)]
pub struct Site {
    /// The instance that it would be.
    pub name: Name,
    /// Its configuration file.
    pub file: PathBuf,
    /// What is in it.
    pub text: Secret,
    /// The server that runs by it.
    pub server: Option<Server>,
}

/// A server that runs by a configuration.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its process.
    pub process: Process,
    /// The unit that would start it again, should it end.
    pub kept_by: Option<String>,
    /// The configuration that it says it was started with; none where it does not let us in.
    pub file: Option<PathBuf>,
    /// What it is now.
    pub role: Role,
    /// The directory that it works in, as its file names it.
    pub dir: Option<PathBuf>,
    /// The password that it took; none where it asks for none.
    pub password: Option<Secret>,
}

/// A server that runs by no configuration of this engine's directory.
#[derive(Clone, Debug)]
pub struct Stray {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub ports: Vec<u16>,
    /// It runs in a container.
    pub contained: bool,
    /// The configuration that it says it was started with.
    pub file: Option<PathBuf>,
}

/// Looks for all Redis of an engine among all processes; `given` is a password to try, too.
///
/// # Errors
/// What should be readable is not.
pub fn look(host: &Host, engine: Engine, given: Option<&Secret>, all: &[Process]) -> Result<Found> {
    let mut facts = Facts::default();
    software(host, engine, &mut facts)?;
    let (mut sites, unread) = sites(host, engine)?;
    let mut passwords: Vec<Option<Secret>> = vec![given.cloned()];
    passwords.extend(sites.iter().map(|site| word(&site.text, "requirepass").map(Secret::new)));
    passwords.retain(|password| password.as_ref().is_some_and(|password| !password.expose().is_empty()));
    passwords.push(None);
    let mut strays = Vec::new();
    for process in servers(host, engine, all) {
        let ports: Vec<u16> = listening_of(host, process.pid)?.into_iter().map(|(_, port)| port).collect();
        let site = sites.iter_mut().find(|site| site.server.is_none() && ports.contains(&site.port()));
        match site.filter(|_| !is_contained(host, process.pid)) {
            Some(site) => site.server = Some(ask(host, site, process, &passwords)?),
            None => strays.push(stray(host, process, ports, &passwords)),
        }
    }
    let version = facts.server.map(|server| server.version);
    Ok(Found { engine, version, systemd: systemd::runs(host)?, sites, unread, strays })
}

impl Site {
    /// The port that it names, or the server's own default.
    pub fn port(&self) -> u16 {
        let conf = Conf::parse(self.text.expose()).unwrap_or_default();
        // One that has port 0 and no other listens on none.
        let named = || conf.word("port").and_then(|port| port.parse().ok()).unwrap_or(6379);
        conf.listens().map_or_else(named, |(port, _)| port)
    }

    /// Where this machine reaches it.
    pub fn address(&self) -> Address {
        let conf = Conf::parse(self.text.expose()).unwrap_or_default();
        let binds = conf.get("bind").unwrap_or_default().iter().filter_map(|word| Bind::parse(word).ok());
        let all: Vec<String> = binds.map(|bind| bind.reach()).collect();
        let loopback = all.iter().find(|host| *host == "127.0.0.1");
        let host = loopback.or(all.first()).cloned().unwrap_or_else(|| "127.0.0.1".into());
        Address { tls: Tls::of(&conf), ..Address::plain(host, self.port()) }
    }
}

fn word(text: &Secret, name: &str) -> Option<String> {
    Conf::parse(text.expose()).ok()?.word(name).map(str::to_owned)
}

/// The configurations that Debian's units would start: redis.conf, and redis-NAME.conf.
fn sites(host: &Host, engine: Engine) -> Result<(Vec<Site>, Vec<Unread>)> {
    let (mut sites, mut unread) = (Vec::new(), Vec::new());
    for file in host.list(&engine.etc())? {
        let Some(stem) = file.strip_suffix(".conf") else { continue };
        let name = match stem.strip_prefix(engine.name()) {
            Some("") => MASTER,
            Some(rest) => rest.strip_prefix('-').filter(|name| *name != MASTER).unwrap_or_default(),
            None => continue,
        };
        let (Ok(name), path) = (Name::parse(name), engine.etc().join(&file)) else { continue };
        if host.stat(&path)?.is_none_or(|stat| stat.kind != Kind::File) {
            continue;
        }
        match host.text(&path) {
            Ok(Some(text)) => sites.push(Site { name, file: path, text: Secret::new(text), server: None }),
            Ok(None) => {}
            Err(error) => unread.push(Unread { file: path, why: format!("{error:#}") }),
        }
    }
    // The master's first, as in a topology that is made from nothing.
    sites.sort_by_key(|site| site.name.as_str() != MASTER);
    Ok((sites, unread))
}

/// Every process of this machine.
///
/// # Errors
/// /proc cannot be read.
pub fn processes(host: &Host) -> Result<Vec<Process>> {
    let pids = host.list(Path::new("/proc"))?.into_iter().filter_map(|name| name.parse::<u32>().ok());
    Ok(pids.filter_map(|pid| about(host, pid)).collect())
}

/// Those of an engine's server that are no sentinel, and no child of one, which saves or sends its data.
fn servers(host: &Host, engine: Engine, all: &[Process]) -> Vec<Process> {
    let servers: Vec<Process> =
        all.iter().filter(|process| process.program == engine.server()).cloned().collect();
    let all: Vec<u32> = servers.iter().map(|process| process.pid).collect();
    // One of our own looks at the machine for us; one that is gone by now was no server.
    let parent = |pid: u32| pid == std::process::id() || all.contains(&pid);
    let child = |process: &Process| host.parent_of(process.pid).is_none_or(parent);
    let sentinel = |pid: u32| {
        let line = host.text(Path::new(&format!("/proc/{pid}/cmdline"))).ok().flatten().unwrap_or_default();
        line.contains("[sentinel]") || line.contains("--sentinel")
    };
    servers.into_iter().filter(|process| !sentinel(process.pid) && !child(process)).collect()
}

/// Whether a process counts its processes apart from ours.
fn is_contained(host: &Host, pid: u32) -> bool {
    let space = |pid: &str| host.link(Path::new(&format!("/proc/{pid}/ns/pid")));
    space(&pid.to_string()) != space("self")
}

/// What a server tells of itself.
struct Told {
    info: BTreeMap<String, String>,
    dir: Option<PathBuf>,
    password: Option<Secret>,
}

/// Asks a server for what it is; none where it does not let us in. A process of an ordinary user, that anybody can
/// call like a server, is asked nothing.
fn tell(host: &Host, at: &Address, process: &Process, passwords: &[Option<Secret>]) -> Option<Told> {
    let pid = process.pid;
    if !holder::may_hear(host, process.uid) {
        return None;
    }
    passwords.iter().find_map(|password| {
        let (at, password) = (at.clone(), password.clone());
        host.in_time(ANSWER, move |host| {
            let mut wire = Wire::open(host, &at, password.as_ref()).ok()?;
            let info = wire.info("all").ok()?;
            let dir = wire.config().and_then(|config| config.get("dir").map(PathBuf::from));
            let its_own = info.get("process_id").is_some_and(|said| *said == pid.to_string());
            its_own.then_some(Told { info, dir, password })
        })?
    })
}

fn file_of(told: &Told) -> Option<PathBuf> {
    told.info.get("config_file").filter(|file| !file.is_empty()).map(PathBuf::from)
}

fn ask(host: &Host, site: &Site, process: Process, passwords: &[Option<Secret>]) -> Result<Server> {
    let told = tell(host, &site.address(), &process, passwords);
    let units: Vec<String> = process.unit.iter().cloned().collect();
    let kept_by = match systemd::runs(host)? {
        true => systemd::show(host, &units)?.into_iter().find(|(_, unit)| unit.pid == process.pid),
        false => None,
    };
    // A server tells what is behind all links.
    let named = word(&site.text, "dir").map(PathBuf::from);
    let as_named = |dir: PathBuf| named.filter(|named| host.real_path(named) == dir).unwrap_or(dir);
    Ok(Server {
        kept_by: kept_by.map(|(name, _)| name),
        file: told.as_ref().and_then(file_of),
        role: told.as_ref().map_or(Role::Unknown, |told| parse::role(&told.info)),
        dir: told.as_ref().and_then(|told| told.dir.clone()).map(as_named),
        password: told.and_then(|told| told.password),
        process,
    })
}

fn stray(host: &Host, process: Process, ports: Vec<u16>, passwords: &[Option<Secret>]) -> Stray {
    let contained = is_contained(host, process.pid);
    let at = |port: &u16| Address::plain("127.0.0.1", *port);
    let told = ports.iter().find_map(|port| tell(host, &at(port), &process, passwords));
    Stray { contained, file: told.as_ref().and_then(file_of), ports, process }
}
