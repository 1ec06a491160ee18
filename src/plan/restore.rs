//! A restore: the file is proved beside the data, what is there is backed up, and only then one takes the
//! place of the other.

use std::path::{Path, PathBuf};

use super::{Consent, Plan, backup as before};
use crate::backup::{self, Head};
use crate::conf::Conf;
use crate::engine::Version;
use crate::exit::Fault;
use crate::facts::{Facts, Holding, Role};
use crate::instance::Instance;
use crate::live::{Setting, Value};
use crate::step::{Place, Step};
use crate::store::Store;

/// What is to be restored.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The backup.
    pub file: &'a Path,
    /// What its head tells.
    pub head: Head,
    /// Its length in bytes.
    pub length: u64,
    /// The instance.
    pub instance: &'a Instance,
    /// All instances, for those that follow it.
    pub instances: &'a [Instance],
}

/// Decides what to do.
///
/// # Errors
/// The file is none for this server; the instance is none that data can be restored to.
pub fn plan(wish: &Wish<'_>, facts: &Facts, consent: Consent) -> Result<Plan, Fault> {
    let instance = wish.instance;
    readable(wish, facts)?;
    let conf = Conf::parse(facts.text(&instance.conf).unwrap_or_default()).unwrap_or_default();
    master(wish, facts, &conf)?;
    let Store::Path(dir) = &instance.store else { return Err(in_a_container(wish, facts)) };
    room(wish, facts, dir)?;
    let places = places(facts, instance, &conf, dir);
    let target = instance.target();
    let mut steps = vec![Step::Bring {
        target: target.clone(),
        file: wish.file.to_path_buf(),
        place: places.first().map_or_else(|| dir.clone(), |place| place.path.clone()),
    }];
    if !consent.no_backup {
        steps.extend(before::of(facts, target.clone())?);
    }
    let runs = facts.running.contains_key(&instance.name);
    if let Some(Holding::Unsaved(_)) = facts.holdings.get(&instance.name) {
        // So that there is a file to come back from.
        let save = Setting { directive: "save".into(), value: Value::Plain("3600 1".into()) };
        steps.push(Step::Set { target: target.clone(), settings: vec![save] });
    }
    steps.extend(runs.then(|| Step::Stop { target: target.clone(), lose: false }));
    steps.push(Step::Replace { target: target.clone(), places: places.clone() });
    steps.push(Step::Start { targets: vec![target.clone()] });
    steps.push(Step::Count { target });
    steps.extend(links(wish, facts));
    let asides = places.iter().filter(|place| place.there).map(|place| place.aside());
    steps.extend(asides.map(|path| Step::Purge { path, keep: false }));
    let (record, app) = (facts.state.instances.clone(), facts.state.app.clone());
    Ok(Plan { steps, record, app, ..Plan::default() })
}

/// The files and directories that a restore replaces, for the facts to be complete.
pub fn data(instance: &Instance, facts: &Facts) -> Vec<PathBuf> {
    let conf = Conf::parse(facts.text(&instance.conf).unwrap_or_default()).unwrap_or_default();
    let dir = instance.store.path().unwrap_or(Path::new("/"));
    places(facts, instance, &conf, dir).into_iter().map(|place| place.path).collect()
}

fn readable(wish: &Wish<'_>, facts: &Facts) -> Result<(), Fault> {
    let (engine, file) = (wish.instance.engine, wish.file.display());
    let Some(server) = &facts.server else {
        return Err(Fault::refused(format!("{} is not on this machine", engine.server()))
            .hint("set it up:\nredis-tp up"));
    };
    let newest = backup::newest(engine, server.version);
    if newest.is_some_and(|newest| wish.head.version > newest) {
        let writer = wish.head.writer.as_ref().map_or_else(String::new, |writer| format!(" of {writer}"));
        return Err(Fault::refused(format!(
            "{file} is an RDB{writer} in format {}, and {engine} {} reads up to {}",
            wish.head.version,
            server.version,
            newest.unwrap_or_default()
        ))
        .hint("restore it with the version that wrote it, or a later one"));
    }
    Ok(())
}

/// A replica would copy its master's data over what was restored.
fn master(wish: &Wish<'_>, facts: &Facts, conf: &Conf) -> Result<(), Fault> {
    let name = &wish.instance.name;
    let of = match facts.running.get(name).map(|running| &running.role) {
        Some(Role::Replica { host, port, .. }) => Some(format!("{host}:{port}")),
        Some(_) => None,
        None => conf.get("replicaof").map(|words| words.join(":")),
    };
    let Some(of) = of else { return Ok(()) };
    let of_ours = wish.instance.upstream.as_ref().and_then(|of| of.instance.as_ref());
    Err(Fault::refused(format!("{name} follows {of}, and would copy that one's data over what is restored"))
        .hint(match of_ours {
            Some(master) => {
                format!("restore its master:\nredis-tp restore {} {master}", wish.file.display())
            }
            None => "restore its master, on the other machine".into(),
        }))
}

fn in_a_container(wish: &Wish<'_>, facts: &Facts) -> Fault {
    let (name, file) = (wish.instance.container(), wish.file.display());
    let (program, user) = (wish.instance.runtime, wish.instance.engine.user());
    let image = facts.state.containers.get(&name).map_or("IMAGE", |container| container.image.as_str());
    Fault::refused(format!("{} runs in a container, where its data are not ours to replace", wish.instance.name))
        .hint(format!(
            "without an append only file, by hand:\nredis-tp backup {0}\n{program} stop {name}\n{program} run --rm -i --volumes-from {name} --user {user} --entrypoint sh {image} -c 'cat > /data/dump.rdb' < {file}\n{program} start {name}",
            wish.instance.name
        ))
}

fn room(wish: &Wish<'_>, facts: &Facts, dir: &Path) -> Result<(), Fault> {
    match facts.room.get(dir) {
        Some(room) if *room < wish.length + (1 << 20) => Err(Fault::refused(format!(
            "no room for {} on the disk of {}: {} KiB are left",
            wish.file.display(),
            dir.display(),
            room / 1024
        ))
        .hint(format!("make room; see what there is:\ndf -h {}", dir.display()))),
        _ => Ok(()),
    }
}

/// What takes its place in the data directory, and what is there now. A server with an append only file
/// starts from that alone: there the RDB is its base (from 7.0 on, aof.c), or its whole (rdb preamble).
fn places(facts: &Facts, instance: &Instance, conf: &Conf, dir: &Path) -> Vec<Place> {
    // What was set live is forgotten by the restart.
    let word = |name: &str, default: &str| conf.word(name).unwrap_or(default).to_owned();
    let runs = facts.running.contains_key(&instance.name);
    let place = |path: PathBuf, manifest: Option<(PathBuf, String)>, rdb: bool| Place {
        // A server may write it at its end.
        there: runs || facts.path(&path).is_some(),
        path,
        manifest,
        rdb,
    };
    let dump = dir.join(word("dbfilename", "dump.rdb"));
    if word("appendonly", "no") != "yes" {
        return vec![place(dump, None, true)];
    }
    let name = word("appendfilename", "appendonly.aof");
    let version = facts.server.as_ref().map_or(super::ASSUMED, |server| server.version);
    if version < Version::new(7, 0) {
        return vec![place(dir.join(name), None, true), place(dump, None, false)];
    }
    let base = format!("{name}.1.base.rdb");
    let text = format!("file {base} seq 1 type b\n");
    let manifest = Some((PathBuf::from(format!("{name}.manifest")), text));
    let aof = dir.join(word("appenddirname", "appendonlydir"));
    vec![place(aof, manifest, true), place(dump, None, false)]
}

/// The links of those that follow the instance now: they copy everything anew.
fn links(wish: &Wish<'_>, facts: &Facts) -> Vec<Step> {
    let follows = |instance: &&Instance| {
        let of = instance.upstream.as_ref().and_then(|of| of.instance.as_ref());
        let role = facts.running.get(&instance.name).map(|running| &running.role);
        of == Some(&wish.instance.name) && matches!(role, Some(Role::Replica { .. }))
    };
    let master = wish.instance.peer();
    let link = |instance: &Instance| Step::AwaitLink { target: instance.target(), master: master.clone() };
    wish.instances.iter().filter(follows).map(link).collect()
}
