//! What instances hold that is nowhere else: asked before data go. A look, and no effect.

use std::collections::BTreeMap;

use super::{live, service};
use crate::conf::Conf;
use crate::facts::{Holding, Role, parse};
use crate::host::Host;
use crate::instance::Target;
use crate::secret::Secret;
use crate::state::{Kept, State};
use crate::store::Store;
use crate::topology::Name;
use crate::wire::{Trouble, Wire};
use anyhow::Result;

/// Asks all instances of our record.
///
/// # Errors
/// A runtime does not answer.
pub fn of(host: &Host, state: &State, password: Option<&Secret>) -> Result<BTreeMap<Name, Holding>> {
    let one = |(name, kept): (&Name, &Kept)| {
        let target = Target::of_record(name, kept, password.cloned());
        Ok((name.clone(), holding(host, &target, kept)?))
    };
    state.instances.iter().map(one).collect()
}

fn holding(host: &Host, target: &Target, kept: &Kept) -> Result<Holding> {
    if kept.active && service::runs(host, target)? {
        return Ok(asked(host, target).unwrap_or_else(|why| Holding::Closed(why.to_string())));
    }
    let dir = match &kept.dir {
        Store::Path(dir) => dir,
        Store::Volume { .. } if kept.replica => return Ok(Holding::Nothing),
        Store::Volume { volume, .. } => {
            return Ok(Holding::Closed(format!(
                "what is in the volume {volume} can only be read while it runs"
            )));
        }
    };
    let conf = Conf::parse(&host.text(&target.conf()).ok().flatten().unwrap_or_default()).unwrap_or_default();
    let aof = conf.word("appenddirname").unwrap_or("appendonlydir");
    if conf.is_on("appendonly") && !kept.replica && !host.list(&dir.join(aof))?.is_empty() {
        return Ok(Holding::Closed("its append only file can only be read while it runs".into()));
    }
    let dump = dir.join(conf.word("dbfilename").unwrap_or("dump.rdb"));
    Ok(match host.length(&dump) {
        0 => Holding::Nothing,
        _ => Holding::File(dump),
    })
}

fn asked(host: &Host, target: &Target) -> Result<Holding, Trouble> {
    // The password file may be ahead of the servers.
    let target = live::let_in(host, target);
    let mut wire = Wire::open(host, &target.address, target.password.as_ref())?;
    let (role, keys) = (parse::role(&wire.info("replication")?), parse::keys(&wire.info("keyspace")?));
    let config = wire.config().unwrap_or_default();
    let is = |name: &str, off: &str| config.get(name).is_some_and(|value| value == off);
    Ok(match (role, keys) {
        (Role::Replica { up: true, .. }, _) | (_, 0) => Holding::Nothing,
        (_, keys) if is("save", "") && is("appendonly", "no") => Holding::Unsaved(keys),
        (_, keys) => Holding::Keys(keys),
    })
}
