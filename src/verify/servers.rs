//! The servers that a proof talks to: one connection each, kept. Who follows whom is asked of them,
//! for what runs is the truth about roles.

use std::collections::BTreeMap;
use std::fmt;

use redis::FromRedisValue;

use super::cli;
use crate::facts::{Role, parse};
use crate::finding::Finding;
use crate::host::Host;
use crate::instance::Instance;
use crate::topology::{Bind, Name};
use crate::wire::{Address, Trouble, Wire};

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An instance of this machine.
    Ours(Name),
    /// A master elsewhere; the instance that follows it has the password.
    Elsewhere {
        /// Where it is.
        address: Address,
        /// The instance that follows it.
        by: Name,
    },
}

impl Place {
    /// Where an instance of ours is.
    pub fn of(instance: &Instance) -> Self {
        Self::Ours(instance.name.clone())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(name) => name.fmt(f),
            Self::Elsewhere { address, .. } => address.fmt(f),
        }
    }
}

/// What INFO said.
pub type Info = BTreeMap<String, String>;

/// One value of INFO; empty where this version has none.
pub fn field<'a>(info: &'a Info, name: &str) -> &'a str {
    info.get(name).map_or("", String::as_str)
}

/// The open connections.
pub struct Servers<'a> {
    host: &'a Host,
    instances: &'a [Instance],
    /// One attempt each: a server that does not answer costs its timeout once.
    wires: Vec<(Place, Result<Wire, Trouble>)>,
}

impl<'a> Servers<'a> {
    /// No connection yet.
    pub fn new(host: &'a Host, instances: &'a [Instance]) -> Self {
        Self { host, instances, wires: Vec::new() }
    }

    /// An instance by name.
    pub fn instance(&self, name: &Name) -> Option<&'a Instance> {
        self.instances.iter().find(|instance| instance.name == *name)
    }

    /// The connection to a server, opened on first use.
    pub fn wire(&mut self, place: &Place) -> Result<&mut Wire, Trouble> {
        if !self.wires.iter().any(|(at, _)| at == place) {
            let wire = self.open(place);
            self.wires.push((place.clone(), wire));
        }
        match self.wires.iter_mut().find(|(at, _)| at == place) {
            Some((_, Ok(wire))) => Ok(wire),
            Some((_, Err(trouble))) => Err(trouble.clone()),
            None => Err(Trouble::Refused),
        }
    }

    /// A connection counts once it answers PING: one that wants a password opens as well.
    fn open(&self, place: &Place) -> Result<Wire, Trouble> {
        let mut wire = match place {
            Place::Ours(name) => self.instance(name).ok_or(Trouble::Refused)?.target().connect(self.host)?,
            Place::Elsewhere { address, by } => {
                let password = self.instance(by).and_then(|at| at.masterauth.as_ref());
                Wire::open(self.host, address, password)?
            }
        };
        wire.ping()?;
        Ok(wire)
    }

    /// Drops a connection that a restart has broken; the next use opens it again.
    pub fn forget(&mut self, place: &Place) {
        self.wires.retain(|(at, _)| at != place);
    }

    /// Removes keys. A server that does not answer any more lets them expire.
    pub fn remove(&mut self, place: &Place, keys: &[&str]) {
        let words: Vec<&str> = ["DEL"].iter().chain(keys).copied().collect();
        let removed = |wire: &mut Wire| wire.ask::<u64>(&words);
        let Ok(wire) = self.wire(place) else { return };
        if removed(wire).is_err() {
            // A connection that broke is none to give up on: the server may have restarted.
            self.forget(place);
            let _ = self.wire(place).and_then(removed);
        }
    }

    /// One command, and what it means for a check that there is no answer.
    pub fn ask<T: FromRedisValue>(&mut self, place: &Place, words: &[&str]) -> Result<T, Finding> {
        let answer = self.wire(place).and_then(|wire| wire.ask(words));
        answer.map_err(|trouble| self.silent(place, &trouble))
    }

    /// A section of INFO.
    pub fn info(&mut self, place: &Place, section: &str) -> Result<Info, Finding> {
        let answer = self.wire(place).and_then(|wire| wire.info(section));
        answer.map_err(|trouble| self.silent(place, &trouble))
    }

    /// A check needs an answer that a server does not give. Why not is what `ping` tells.
    pub fn silent(&self, place: &Place, trouble: &Trouble) -> Finding {
        let cure = match place {
            Place::Ours(name) if *trouble == Trouble::Refused => format!("redis-tp service start {name}"),
            Place::Ours(name) => match self.instance(name) {
                Some(instance) => format!("{} PING", cli(instance)),
                None => "redis-tp status".into(),
            },
            Place::Elsewhere { address, .. } => {
                format!("redis-cli {} PING", address.cli_line())
            }
        };
        Finding::unknown(format!("no answer from {place}: {trouble}"), cure)
    }

    /// The server that a server follows now, and whether the link is up; none for a master.
    pub fn follows(&mut self, place: &Place) -> Option<(Place, bool)> {
        self.upstream(place).ok().flatten()
    }

    /// As [`Servers::follows`], for a check that needs to know.
    pub fn upstream(&mut self, place: &Place) -> Result<Option<(Place, bool)>, Finding> {
        let info = self.info(place, "replication")?;
        Ok(match parse::role(&info) {
            Role::Replica { host, port, up } => Some((self.at(host, port, place), up)),
            Role::Master | Role::Unknown => None,
        })
    }

    /// The server at an address: an instance of ours, if it is one.
    fn at(&self, host: String, port: u16, from: &Place) -> Place {
        let local = |instance: &&Instance| {
            let binds = instance.bind.iter().flatten();
            instance.peer().is_at(&host, port)
                || instance.port == port
                    && (["localhost", "127.0.0.1", "::1"].contains(&host.as_str())
                        || binds.map(Bind::reach).any(|reach| reach == host))
        };
        match (self.instances.iter().find(local), from) {
            (Some(instance), _) => Place::of(instance),
            (None, Place::Ours(by) | Place::Elsewhere { by, .. }) => {
                // It speaks as the one that follows it.
                let tls = match from {
                    Place::Ours(name) => self.instance(name).and_then(Instance::tls_upstream),
                    Place::Elsewhere { address, .. } => address.tls.clone(),
                };
                Place::Elsewhere { address: Address { host, port, tls }, by: by.clone() }
            }
        }
    }

    /// The master at the top of a server's chain, every link on the way being up.
    pub fn root(&mut self, place: &Place) -> Result<Place, Finding> {
        let mut at = place.clone();
        // The bound is for masters elsewhere that follow each other in a circle.
        for _ in 0..=self.instances.len() + 8 {
            match self.upstream(&at)? {
                None => return Ok(at),
                Some((master, true)) => at = master,
                Some((master, false)) => {
                    return Err(Finding::unknown(
                        format!("the link from {at} to {master} is down"),
                        "redis-tp status",
                    ));
                }
            }
        }
        Err(Finding::unknown(format!("the masters above {place} follow each other"), "redis-tp status"))
    }
}
