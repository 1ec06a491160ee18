//! The keys of a proof: written with an expiry, under a name that nobody else has, and removed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Place, Proof, chain};
use crate::finding::Finding;
use crate::host::Host;
use crate::instance::Instance;
use crate::topology::Name;
use crate::wire::Trouble;

/// How long a key lives if even its removal is prevented.
pub const EXPIRY: Duration = Duration::from_secs(30);

/// The keys that may be there.
pub struct Keys {
    prefix: String,
    written: Vec<(Place, String)>,
    /// The keys that are to run out, by the master that has them, and when they were set.
    pub expiring: Vec<(Place, Result<Instant, Trouble>)>,
    /// The master that a check of an instance wrote to.
    roots: BTreeMap<Name, Place>,
}

impl Keys {
    /// A name that nobody else has.
    pub fn new(host: &Host) -> Result<Self> {
        Ok(Self {
            prefix: format!("redis-tp:verify:{}", host.random_hex(4)?),
            written: Vec::new(),
            expiring: Vec::new(),
            roots: BTreeMap::new(),
        })
    }

    /// The key for a purpose.
    pub fn key(&self, purpose: &str) -> String {
        format!("{}:{purpose}", self.prefix)
    }
}

impl Proof<'_> {
    /// Writes a key that expires.
    ///
    /// # Errors
    /// The server's refusal, or why it could not be asked.
    pub fn write(&mut self, place: &Place, key: &str, expiry: Duration) -> Result<(), Trouble> {
        // Noted before it is written: the answer may be lost, the key not.
        self.keys.written.push((place.clone(), key.to_owned()));
        let expiry = expiry.as_millis().to_string();
        self.servers.wire(place)?.ask::<()>(&["SET", key, "redis-tp", "PX", &expiry])
    }

    /// Writes a key that expires at the top of a chain, for a check of another server.
    pub fn write_above(&mut self, root: &Place, key: &str, expiry: Duration) -> Result<(), Finding> {
        self.write(root, key, expiry).map_err(|trouble| match trouble {
            Trouble::Other(said) => {
                Finding::unknown(format!("{root} takes no key: {said}"), "redis-tp status")
            }
            trouble => self.servers.silent(root, &trouble),
        })
    }

    /// Waits until a key that was just written is read on an instance; false when it does not come
    /// in time.
    pub fn arrives(&mut self, instance: &Instance, key: &str, patience: Duration) -> Result<bool, Finding> {
        let (host, place) = (self.host, Place::of(instance));
        let read = host.poll(patience, || {
            // Several in a row: the pause between two looks is longer than the way of a key.
            for _ in 0..20 {
                match self.servers.ask::<Option<String>>(&place, &["GET", key]) {
                    Ok(None) => {}
                    Ok(Some(_)) => return Ok(Some(Ok(true))),
                    Err(finding) => return Ok(Some(Err(finding))),
                }
            }
            Ok(None)
        });
        // An interruption, the only error, ends the whole proof after this check.
        read.ok().flatten().unwrap_or(Ok(false))
    }

    /// The master at the top of an instance's chain, to which a check of it writes.
    pub fn root(&mut self, instance: &Instance) -> Result<Place, Finding> {
        let root = self.servers.root(&Place::of(instance))?;
        self.keys.roots.insert(instance.name.clone(), root.clone());
        Ok(root)
    }

    /// Removes every key. A server that does not answer any more lets them expire.
    pub fn remove_keys(&mut self) {
        for (place, key) in std::mem::take(&mut self.keys.written) {
            self.servers.remove(&place, &[&key]);
        }
    }

    /// The master that a check of an instance wrote to, or would have.
    pub fn root_word(&self, instance: &Instance) -> String {
        if let Some(root) = self.keys.roots.get(&instance.name) {
            return root.to_string();
        }
        let top = chain(self.subject.instances, instance).last().unwrap_or(instance);
        top.upstream.as_ref().map_or_else(|| top.name.to_string(), |of| of.address.to_string())
    }
}

/// The key of the propagation to an instance.
pub fn propagation(proof: &Proof<'_>, instance: &Instance) -> String {
    proof.keys.key(&format!("to-{}", instance.name))
}

/// The key that shows whether writes flow to a replica at all.
pub fn flow(proof: &Proof<'_>, instance: &Instance) -> String {
    proof.keys.key(&format!("link-{}", instance.name))
}

/// The key that a replica must refuse.
pub fn refused(proof: &Proof<'_>, instance: &Instance) -> String {
    proof.keys.key(&format!("on-{}", instance.name))
}

pub fn did_propagation(proof: &Proof<'_>, instance: &Instance) -> String {
    let key = propagation(proof, instance);
    format!("SET {key} on {}, GET on {}", proof.root_word(instance), instance.name)
}

pub fn did_readonly(proof: &Proof<'_>, instance: &Instance) -> String {
    format!("SET {} on {}, which has to refuse", refused(proof, instance), instance.name)
}
