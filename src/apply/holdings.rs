//! What instances hold that is nowhere else: asked before data go. A look, and no effect.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{live, rdb, service};
use crate::conf::Conf;
use crate::facts::{Holding, Role, parse};
use crate::host::{Host, Kind};
use crate::instance::Target;
use crate::plan::live::saving;
use crate::secret::Secret;
use crate::state::{Kept, State};
use crate::store::Store;
use crate::topology::Name;
use crate::wire::Trouble;
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
    // After an uninstall another's may stand there.
    let text = if kept.active { host.text(&target.conf()).ok().flatten() } else { None };
    let conf = text.and_then(|text| Conf::parse(&text).ok());
    // One that was promoted has that in its file.
    let replica = conf.as_ref().map_or(kept.replica, |conf| conf.get("replicaof").is_some());
    match &kept.dir {
        Store::Path(dir) => {
            let dump = dump(host, dir, conf.as_ref())?;
            let off = kept.effective.get("appendonly").is_some_and(|value| value == "no");
            // One that was switched off before is no more than an old state of what the snapshot has.
            let old = conf.is_none() && off && dump.is_some();
            if !replica && !old && has_aof(host, target, dir, conf.as_ref())? {
                return Ok(Holding::Closed("its append only file can only be read while it runs".into()));
            }
            Ok(dump.map_or(Holding::Nothing, Holding::File))
        }
        Store::Volume { .. } if replica => Ok(Holding::Nothing),
        Store::Volume { volume, .. } => {
            Ok(Holding::Closed(format!("what is in the volume {volume} can only be read while it runs")))
        }
    }
}

/// Whether a server that does not run would read an append only file with something in it. Where an uninstall
/// took its configuration, whatever may be one counts.
fn has_aof(host: &Host, target: &Target, dir: &Path, conf: Option<&Conf>) -> Result<bool> {
    let all: Vec<PathBuf> = match conf {
        Some(conf) if !conf.is_on("appendonly") => Vec::new(),
        Some(conf) => [("appenddirname", "appendonlydir"), ("appendfilename", "appendonly.aof")]
            .map(|(name, default)| dir.join(conf.word(name).unwrap_or(default)))
            .into(),
        None => host.list(dir)?.iter().map(|name| dir.join(name)).collect(),
    };
    let is = |path: &Path, what: &str| path.extension().is_some_and(|extension| extension == what);
    for path in all {
        let holds = match host.stat(&path)?.map(|stat| stat.kind) {
            Some(Kind::Dir) => {
                let files: Vec<PathBuf> = host.list(&path)?.iter().map(|name| path.join(name)).collect();
                let empty = |file: &PathBuf| match (is(file, "manifest"), is(file, "rdb")) {
                    (true, _) => true,
                    (_, true) => matches!(rdb::count(host, target.engine, file), Ok(Some(0))),
                    _ => host.length(file) == 0,
                };
                files.iter().any(|file| is(file, "manifest")) && !files.iter().all(empty)
            }
            Some(_) => (conf.is_some() || is(&path, "aof")) && host.length(&path) > 0,
            None => false,
        };
        if holds {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The snapshot that a server which does not run has left; the largest where nothing says what it is called.
fn dump(host: &Host, dir: &Path, conf: Option<&Conf>) -> Result<Option<PathBuf>> {
    let all: Vec<PathBuf> = match conf {
        Some(conf) => vec![dir.join(conf.word("dbfilename").unwrap_or("dump.rdb"))],
        None => {
            // What is half written is called so, by the server and by us.
            let whole = |name: &&String| {
                name.ends_with(".rdb") && !name.starts_with(['.']) && !name.starts_with("temp-")
            };
            host.list(dir)?.iter().filter(whole).map(|name| dir.join(name)).collect()
        }
    };
    Ok(all.into_iter().filter(|path| host.length(path) > 0).max_by_key(|path| host.length(path)))
}

fn asked(host: &Host, target: &Target) -> Result<Holding, Trouble> {
    // The password file may be ahead of the servers.
    let target = live::let_in(host, target);
    let mut wire = target.connect(host)?;
    let (role, keys) = (parse::role(&wire.info("replication")?), parse::keys(&wire.info("keyspace")?));
    // Functions are data, too, since 7.0.
    let libraries = wire.info("memory")?.get("number_of_libraries").is_some_and(|number| number != "0");
    let of_file = || {
        let text = host.text(&target.conf()).ok().flatten()?;
        Conf::parse(&text).ok().map(|conf| saving(&conf))
    };
    let config = wire.config().or_else(of_file).unwrap_or_default();
    let is = |name: &str, off: &str| config.get(name).is_some_and(|value| value == off);
    Ok(match (role, keys) {
        (Role::Replica { up: true, .. }, _) => Holding::Nothing,
        (_, 0) if !libraries => Holding::Nothing,
        (_, keys) if is("save", "") && is("appendonly", "no") => Holding::Unsaved(keys),
        (_, keys) => Holding::Keys(keys),
    })
}
