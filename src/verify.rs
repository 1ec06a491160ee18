//! Proof over the wire that what the topology wants is what runs: a table of checks, and the walk
//! through it. "Could not look" is told apart from "looked, and it is bad".

use std::cmp::Reverse;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::facts::Facts;
use crate::finding::{Check, Finding, Findings};
use crate::host::Host;
use crate::http::Url;
use crate::instance::Instance;
use crate::topology::AppSection;

mod access;
mod app;
mod config;
mod expiry;
mod keys;
mod link;
mod machine;
mod replication;
mod restart;
mod servers;
mod shell;
#[cfg(test)]
mod tests;
mod tls;
mod users;

pub use app::Curves;
pub use shell::shell;

use app::AppProof;
use keys::Keys;
use servers::{Place, Servers};

/// How to verify.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the key lives that has to be gone; a second or more.
    pub ttl: Duration,
    /// Whether to restart each instance, to see that its data survives.
    pub restart: bool,
    /// The web app that has to prove that the cache works, if one has to.
    pub app: Option<App>,
}

impl Default for Options {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(1), restart: false, app: None }
    }
}

/// A web app in front of the instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum App {
    /// One of our own, started for the proof; its values live as long as the proof's own key.
    Own {
        /// How long its database takes.
        slow: Duration,
    },
    /// Any that speaks the contract.
    At {
        /// Where it is.
        url: Url,
        /// How long a value stays in its cache, where that is claimed.
        ttl: Option<Duration>,
        /// How long its database takes at least, where that is claimed.
        slow: Option<Duration>,
    },
}

/// What is to be verified.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The instances as wanted.
    pub instances: &'a [Instance],
    /// The facts about them, gathered just before.
    pub facts: &'a Facts,
    /// The installed web app as wanted, if one is.
    pub app: Option<&'a AppSection>,
}

/// What a check comes to. Both arms are an answer: `?` ends a check with one.
type Look = Result<Finding, Finding>;

/// A row of the table.
struct Row {
    /// A stable name.
    id: &'static str,
    /// To which instances it applies, and in which order.
    of: Of,
    /// What is done, in words.
    did: fn(&Proof<'_>, &Instance) -> String,
    /// Does it.
    look: fn(&mut Proof<'_>, &Instance) -> Look,
}

/// To which instances a check applies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// All of them.
    Every,
    /// Those that are to follow another, or do.
    Replicas,
    /// Those that have users of ours.
    WithUsers,
    /// Those that have one for the web app among them.
    WithApp,
    /// Those that speak TLS.
    WithTls,
    /// All of them, each replica before its master; only when restarts are asked for.
    Restarts,
}

/// The checks of the instances in their order. The key that has to run out is set as soon as the links are known to
/// carry it, so that the others fill the time until it has.
const ROWS: &[Row] = &[
    Row { id: "ping", of: Of::Every, did: access::did_ping, look: access::ping },
    Row { id: "role", of: Of::Every, did: replication::did_info, look: replication::role },
    Row { id: "link", of: Of::Replicas, did: link::did, look: link::link },
    Row { id: "ttl", of: Of::Every, did: expiry::did_ttl, look: expiry::ttl },
    Row { id: "offset", of: Of::Replicas, did: replication::did_offset, look: replication::offset },
    Row { id: "propagation", of: Of::Replicas, did: keys::did_propagation, look: replication::propagation },
    Row { id: "readonly", of: Of::Replicas, did: keys::did_readonly, look: replication::readonly },
    Row { id: "auth-wrong", of: Of::Every, did: access::did_wrong, look: access::wrong_password },
    Row { id: "auth-missing", of: Of::Every, did: access::did_missing, look: access::no_password },
    Row { id: "user-default", of: Of::WithUsers, did: users::did_default, look: users::default },
    Row { id: "user-replica", of: Of::WithUsers, did: users::did_replica, look: users::replica },
    Row { id: "user-app", of: Of::WithApp, did: users::did_app, look: users::app },
    Row { id: "tls", of: Of::WithTls, did: tls::did_certificate, look: tls::certificate },
    Row { id: "tls-plain", of: Of::WithTls, did: tls::did_plain, look: tls::plain },
    Row { id: "tls-client", of: Of::WithTls, did: tls::did_client, look: tls::client },
    Row { id: "listen", of: Of::Every, did: machine::did_listen, look: machine::listen },
    Row { id: "config", of: Of::Every, did: config::did, look: config::config },
    Row { id: "owner", of: Of::Every, did: machine::did_owner, look: machine::owner },
    Row { id: "service", of: Of::Every, did: machine::did_service, look: machine::service },
    Row { id: "ttl-gone", of: Of::Every, did: expiry::did_gone, look: expiry::gone },
];

/// What stops servers, and so comes when all the others are done.
const RESTART: &[Row] = &[Row { id: "restart", of: Of::Restarts, did: restart::did, look: restart::restart }];

/// Verifies, and tells of each check as it is done. The keys that it writes are its own, expire by
/// themselves, and are removed whatever happens. Beside the findings it hands over what was measured.
///
/// # Errors
/// An interruption. What is broken is a finding, not an error.
pub fn verify(
    host: &Host,
    subject: &Subject<'_>,
    options: &Options,
    tell: &mut dyn FnMut(&Check),
) -> Result<(Findings, Curves)> {
    let began = host.now();
    let mut proof = Proof {
        host,
        subject,
        options,
        servers: Servers::new(host, subject.instances),
        keys: Keys::new(host)?,
        interrupted: false,
    };
    let mut app = options.app.as_ref().map(|app| AppProof::new(host, subject, options, app)).transpose()?;
    let checks = all(&mut proof, app.as_mut(), tell);
    proof.remove_keys();
    let curves = app.map(AppProof::end).unwrap_or_default();
    Ok((Findings { schema: 1, command: "verify", checks: checks?, time: host.now() - began }, curves))
}

/// The instances and the web app beside each other, for both wait until a key runs out; then what stops
/// servers, alone.
fn all(
    proof: &mut Proof<'_>,
    mut app: Option<&mut AppProof<'_>>,
    tell: &mut dyn FnMut(&Check),
) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let mut note = |check: Check| {
        tell(&check);
        checks.push(check);
    };
    std::thread::scope(|scope| {
        let (sender, told) = mpsc::channel();
        if let Some(app) = app.as_deref_mut() {
            scope.spawn(move || app.run(&sender));
        } else {
            drop(sender);
        }
        let done = proof.run(ROWS, &mut note);
        // Not before it has come to its end, also when there is nobody to listen any more.
        told.into_iter().for_each(&mut note);
        done
    })?;
    proof.run(RESTART, &mut note)?;
    if let Some(app) = app {
        app.outage(&mut note);
    }
    match proof.host.interrupted() || proof.interrupted {
        true => bail!("interrupted"),
        false => Ok(checks),
    }
}

/// A proof at work.
struct Proof<'a> {
    host: &'a Host,
    subject: &'a Subject<'a>,
    options: &'a Options,
    servers: Servers<'a>,
    keys: Keys,
    /// An interruption came at a moment when it had to wait.
    interrupted: bool,
}

impl<'a> Proof<'a> {
    fn run(&mut self, rows: &[Row], note: &mut dyn FnMut(Check)) -> Result<()> {
        for row in rows {
            for instance in self.instances(row.of) {
                let began = self.host.now();
                let finding = (row.look)(self, instance).unwrap_or_else(|early| early);
                if self.interrupted || self.host.interrupted() {
                    bail!("interrupted");
                }
                note(Check {
                    severity: None,
                    id: row.id,
                    subject: instance.name.to_string(),
                    did: (row.did)(self, instance),
                    finding,
                    time: self.host.now() - began,
                });
            }
        }
        Ok(())
    }

    fn instances(&mut self, of: Of) -> Vec<&'a Instance> {
        let mut all: Vec<&Instance> = self.subject.instances.iter().collect();
        match of {
            Of::Every => {}
            Of::Replicas => all.retain(|instance| {
                instance.upstream.is_some() || self.servers.follows(&Place::of(instance)).is_some()
            }),
            Of::WithUsers => all.retain(|instance| instance.users.is_some()),
            Of::WithApp => {
                all.retain(|instance| instance.users.as_ref().is_some_and(|users| users.app.is_some()));
            }
            Of::WithTls => all.retain(|instance| instance.tls.is_some()),
            Of::Restarts if self.options.restart => {
                all.sort_by_key(|instance| Reverse(chain(self.subject.instances, instance).count()));
            }
            Of::Restarts => all.clear(),
        }
        all
    }
}

/// An instance and the masters of this machine above it.
fn chain<'a>(instances: &'a [Instance], instance: &'a Instance) -> impl Iterator<Item = &'a Instance> {
    let above = |at: &&Instance| {
        let name = at.upstream.as_ref()?.instance.as_ref()?;
        instances.iter().find(|other| other.name == *name)
    };
    // A circle is refused by the topology; the bound costs nothing.
    std::iter::successors(Some(instance), above).take(instances.len() + 1)
}

/// A duration as findings show it.
fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// The command that asks an instance by hand.
fn cli(instance: &Instance) -> String {
    crate::step::cli_command(&instance.target())
}
