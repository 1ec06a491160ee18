//! Reads the facts. Everything here looks and nothing touches. The dearest look by far is a child
//! process, so there is at most one (`systemctl show`), and the servers are asked while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::sockets::{self, Family, Socket};
use super::{
    Auth, Facts, Listener, Package, Process, Role, Running, Server, Upstream, containers, data, dpkg, parse,
    web,
};
use crate::app::App;
use crate::backup;
use crate::certificates;
use crate::conf::{self, Conf};
use crate::directives;
use crate::engine::{Engine, Version};
use crate::host::{Child, Host, Kind};
use crate::instance::{Instance, Target};
use crate::layout;
use crate::runtime::container;
use crate::runtime::{Means, Program, Runtime, process, systemd};
use crate::secret::Secret;
use crate::software::{self, Tool};
use crate::state::{Kept, State};
use crate::store::Store;
use crate::templates;
use crate::tls::{Tls, judge};
use crate::topology::{self, BindAddress, Image, Name};
use crate::users;
use crate::wire::{Address, Trouble, Wire};

/// What the facts are to be about.
#[derive(Debug)]
pub struct Question<'a> {
    /// The engine that is wanted.
    pub engine: Engine,
    /// The instances that are wanted.
    pub instances: &'a [Instance],
    /// The web app, if it is wanted.
    pub app: Option<&'a App>,
    /// The image of containers.
    pub image: &'a Image,
    /// What there is to keep instances running.
    pub means: Means,
    /// What we did here before.
    pub state: &'a State,
    /// More files to know: the topology, secrets.
    pub files: Vec<PathBuf>,
}

/// Reads the facts.
///
/// # Errors
/// What should be readable is not.
pub fn gather(host: &Host, question: &Question<'_>) -> Result<Facts> {
    let mut facts = Facts {
        systemd: question.means.systemd,
        means: question.means,
        apt: host.which("apt-get").is_some(),
        state: question.state.clone(),
        time: host.unix_time(),
        // What cannot be listed is not overwritten either.
        backups: backup::there(host).unwrap_or_default(),
        user: layout::here().ids(host, question.engine.user())?,
        ..Facts::default()
    };
    // The image has what a package has elsewhere.
    if !question.instances.iter().any(|instance| instance.runtime.is_container()) {
        software(host, question.engine, &mut facts)?;
    }
    containers::gather(host, question, &mut facts)?;
    files(host, question, &mut facts)?;
    facts.pids = processes(host, question, &facts)?;
    let mut units: Vec<String> = question.instances.iter().map(|instance| instance.unit.clone()).collect();
    units.extend(web::unit(question.app, &facts));
    let known = std::thread::scope(|scope| {
        let shown = has_units(question, &facts).then(|| scope.spawn(|| systemd::show(host, &units)));
        for instance in question.instances {
            if let Some(running) = ask(host, instance, &facts) {
                facts.running.insert(instance.name.clone(), running);
            }
            if let Some(upstream) = upstream(host, instance, &facts) {
                facts.upstreams.insert(instance.name.clone(), upstream);
            }
        }
        shown.map(|handle| handle.join())
    });
    if let Some(Ok(units)) = known {
        facts.units = units?;
        facts.namespaces = layout::here().login.is_some() && systemd::has_namespaces(host, &facts);
    }
    web::gather(host, question.app, &mut facts)?;
    facts.listeners = listeners(host, question, &facts)?;
    facts.unbindable = unbindable(host, question);
    facts.no_ipv6 = !facts.unbindable.is_empty() && !host.can_bind(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));
    Ok(facts)
}

/// What there is to keep instances running.
pub fn means(host: &Host, systemd: bool, state: &State) -> Means {
    let kept = |runtime: Runtime| runtime == Runtime::Container(Program::Podman);
    Means {
        systemd,
        docker: host.which(Program::Docker.name()).is_some(),
        podman: host.which(Program::Podman.name()).is_some(),
        podman_is_in_use: state.instances.values().any(|instance| instance.active && kept(instance.runtime)),
    }
}

/// Whether systemd is to be asked for units. A user's processes have none, and the question costs a child.
fn has_units(question: &Question<'_>, facts: &Facts) -> bool {
    let by_units = |runtime: Runtime| runtime == Runtime::Systemd;
    facts.systemd
        && (layout::here().login.is_none()
            || question.instances.iter().any(|instance| by_units(instance.runtime))
            || facts.state.instances.values().any(|kept| by_units(kept.runtime)))
}

pub(super) fn software(host: &Host, engine: Engine, facts: &mut Facts) -> Result<()> {
    if let Some(status) = dpkg::status(host)? {
        facts.package = dpkg::package(&status, engine.package());
    }
    let tool = software::find(host, engine, engine.server());
    // A package that is half-way is root's to finish; the user's own software is whole, or not there.
    if layout::here().login.is_some() && tool.as_ref().is_none_or(|tool| !is_packaged(tool, facts)) {
        facts.package = None;
    }
    let Some(tool) = tool else { return Ok(()) };
    // The record says the version without a child, if the program is the package's own.
    let unpacked = tool.libraries.is_some();
    let known = match unpacked {
        true => facts.state.software.get(engine.package()),
        false => facts.package.as_ref().filter(|_| is_packaged(&tool, facts)).map(|package| &package.version),
    };
    let ask = || Version::of_banner(&host.run(tool.child().arg("--version")).ok()?.stdout);
    let version = known.and_then(|version| Version::parse(version)).or_else(ask);
    facts.server = version.map(|version| Server { path: tool.path, version, unpacked });
    Ok(())
}

/// Whether a program is that of the installed package.
fn is_packaged(tool: &Tool, facts: &Facts) -> bool {
    facts.package.as_ref().is_some_and(Package::installed) && tool.path.starts_with("/usr/bin")
}

/// The configurations of engines that are ours by what stands in them.
///
/// # Errors
/// Their directory cannot be read.
pub fn ours(host: &Host, engines: &[Engine]) -> Result<Vec<PathBuf>> {
    let mut ours = Vec::new();
    let mounted = host.list(&container::dir())?.into_iter().map(|name| container::mounted(&name));
    for dir in engines.iter().map(|engine| engine.etc()).chain(mounted) {
        let names = host.list(&dir)?.into_iter().filter(|name| name.ends_with(".conf"));
        let is = |path: &PathBuf| matches!(host.text(path), Ok(Some(text)) if templates::is_ours(&text));
        ours.extend(names.map(|name| dir.join(name)).filter(is));
    }
    Ok(ours)
}

fn files(host: &Host, question: &Question<'_>, facts: &mut Facts) -> Result<()> {
    let engine = question.engine;
    let mut paths: BTreeSet<PathBuf> = question.files.iter().cloned().collect();
    paths.extend([engine.etc(), engine.log(), PathBuf::from("/usr/sbin/policy-rc.d")]);
    let mut texts = paths.clone();
    for instance in question.instances {
        let unit_files = systemd::files(&instance.unit);
        paths.extend(unit_files.clone());
        paths.insert(instance.conf.clone());
        if instance.runtime.is_container() {
            paths.extend(instance.conf.ancestors().skip(1).take(2).map(Path::to_path_buf));
        } else {
            paths.insert(process::run_dir(&instance.pidfile));
        }
        for path in [instance.store.path(), instance.logfile.as_deref()].into_iter().flatten() {
            paths.extend(path.ancestors().map(Path::to_path_buf));
        }
        texts.extend(unit_files);
        texts.insert(instance.conf.clone());
        let (certificates, their_way) = certificates(instance);
        paths.extend(certificates.iter().chain(&their_way).cloned());
        texts.extend(certificates);
        paths.extend(data::files(host, instance, facts.user));
        paths.extend(data::to_read(instance));
    }
    let (of_app, app_texts) = web::files(question.app);
    paths.extend(of_app);
    texts.extend(app_texts);
    paths.extend(facts.state.directories.iter().chain(facts.state.files.keys()).cloned());
    paths.extend(software::unpacked(engine));
    if layout::here().login.is_some() {
        paths.insert(systemd::wants());
    }
    for kept in facts.state.instances.values() {
        paths.extend(kept.paths().map(Path::to_path_buf));
    }
    let above: Vec<PathBuf> =
        paths.iter().flat_map(|path| layout::here().above(path)).map(Path::to_path_buf).collect();
    paths.extend(above);
    for path in paths {
        if let Some(stat) = host.stat(&path)? {
            facts.paths.insert(path.clone(), stat);
            if stat.kind == crate::host::Kind::Link {
                facts.links.insert(path.clone(), host.real_path(&path));
            }
            if stat.kind == Kind::File && texts.contains(&path) {
                // What is not text is nobody's configuration; the planner sees a file without one.
                if let Ok(Some(text)) = host.text(&path) {
                    facts.texts.insert(path.clone(), Secret::new(text));
                }
            }
        }
    }
    if facts.state.instances.is_empty() && facts.paths.contains_key(topology::file()) {
        let wanted = |path: &PathBuf| question.instances.iter().any(|instance| instance.conf == *path);
        facts.orphans = ours(host, &[engine])?.into_iter().filter(|path| !wanted(path)).collect();
    }
    facts.closed = closed(host, question, facts);
    let written = [engine.etc(), crate::secrets::dir().to_path_buf(), crate::state::dir().to_path_buf()];
    let data = question.instances.iter().filter_map(|instance| instance.store.path());
    for path in written.into_iter().chain(data.map(Path::to_path_buf)) {
        if let Some(room) = host.room(&path) {
            facts.room.insert(path, room);
        }
    }
    for path in facts.state.files.keys() {
        if let Some(text) = host.text(&State::written(path))? {
            facts.written.insert(path.clone(), Secret::new(text));
        }
    }
    // Also those of instances that are to go: what is in them may be missed.
    let kept = facts.state.instances.values().map(|kept| &kept.dir);
    let stores: BTreeSet<&Store> =
        question.instances.iter().map(|instance| &instance.store).chain(kept).collect();
    let volumes = &facts.containers.volumes;
    let occupied = |store: &&Store| match store {
        Store::Path(dir) => !host.list(dir).unwrap_or_default().is_empty(),
        Store::Volume { volume, .. } => volumes.get(volume).is_some_and(|volume| volume.occupied),
    };
    facts.occupied = stores.into_iter().filter(occupied).cloned().collect();
    let held = |instance: &Instance| {
        Some((instance.store.path()?.to_path_buf(), data::held(host, instance, facts.user)?))
    };
    facts.held = question.instances.iter().filter_map(held).collect();
    let master = engine.conf(crate::engine::MASTER);
    let foreign = facts.texts.contains_key(&master) && !facts.written.contains_key(&master);
    facts.stock = foreign && facts.package.is_some() && is_stock(host, engine, &master);
    Ok(())
}

/// The files by which an instance speaks TLS, where they are the user's own or a container's, and the directories
/// above them.
fn certificates(instance: &Instance) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let Some(tls) = &instance.tls else { return (Vec::new(), Vec::new()) };
    let files = match instance.runtime.is_container() {
        true => certificates::at(&container::mounted(&instance.container()), "server"),
        false => tls.files.clone(),
    };
    let mut all = vec![files.ca, files.cert, files.key];
    all.extend(instance.tls_client().into_iter().flat_map(|files| [files.cert, files.key]));
    let above = all.iter().flat_map(|path| path.ancestors().skip(1)).map(Path::to_path_buf).collect();
    (all, above)
}

/// Where an instance's directory, log and configuration are to be made, and cannot be.
fn closed(host: &Host, question: &Question<'_>, facts: &Facts) -> BTreeSet<PathBuf> {
    let there = |path: &&Path| facts.path(path).is_some();
    let places = question.instances.iter().flat_map(|instance| [instance.store.path(), instance.log_dir()]);
    let nearest = places.flatten().filter_map(|place| place.ancestors().find(there));
    let confs = question.instances.iter().map(|instance| instance.conf.as_path());
    let dirs = confs.clone().filter_map(Path::parent).filter(there);
    let files =
        confs.filter(|conf| facts.path(conf).is_some_and(|stat| stat.kind == crate::host::Kind::File));
    let closed = nearest.chain(dirs).filter(|at| !host.may_write(at));
    closed.chain(files.filter(|conf| host.is_immutable(conf))).map(Path::to_path_buf).collect()
}

/// The processes of instances that are wanted, and of those that are to go: they may hold a port that
/// another is to have.
fn processes(host: &Host, question: &Question<'_>, facts: &Facts) -> Result<BTreeMap<Name, u32>> {
    let record = &facts.state.instances;
    let kept = record.iter().map(|(name, kept)| (name, Target::of_record(name, kept, None)));
    let wanted = question.instances.iter().map(|instance| (&instance.name, instance.target()));
    // One that moves is still where it was.
    let moves = |target: &Target| {
        record.get(&target.name).is_some_and(|kept| kept.active && kept.runtime != target.runtime)
    };
    let all: BTreeMap<&Name, Target> = kept.chain(wanted.filter(|(_, target)| !moves(target))).collect();
    let mut pids = BTreeMap::new();
    for (name, target) in all {
        if let Runtime::Container(_) = target.runtime {
            let seen = facts.containers.containers.get(&target.container());
            pids.extend(seen.filter(|seen| seen.pid > 0).map(|seen| (name.clone(), seen.pid)));
        } else if let Some(pid) = pid_of(host, &target, record.get(name))? {
            pids.insert(name.clone(), pid);
        }
    }
    Ok(pids)
}

/// Whether a conffile is as the package brought it: dpkg compares the checksums.
fn is_stock(host: &Host, engine: Engine, path: &Path) -> bool {
    let verify = Child::new("dpkg").args(["--verify", engine.package()]);
    let line = format!(" {}", path.display());
    matches!(host.run(verify), Ok(done) if done.ok() && !done.stdout.lines().any(|said| said.ends_with(&line)))
}

/// Talks to whatever answers on an instance's address, with the passwords that it may have.
fn ask(host: &Host, instance: &Instance, facts: &Facts) -> Option<Running> {
    let text = facts.text(&instance.conf).unwrap_or_default();
    let conf = Conf::parse(text).unwrap_or_default();
    let published = facts.containers.containers.get(&instance.container());
    let published = published.filter(|_| instance.runtime.is_container()).and_then(containers::Seen::address);
    // A container is where it was made to be, whatever is wanted now.
    let by_file = address_on_disk(instance, &conf);
    let address = match published {
        Some(at) => Address { tls: by_file.tls, ..at },
        None => by_file,
    };
    // What its file had when the server read it, perhaps.
    let written = facts.written.get(&instance.conf).map(Secret::expose).unwrap_or_default();
    let written = Conf::parse(written).unwrap_or_default();
    let mut former: Vec<Secret> =
        [&conf, &written].iter().filter_map(|conf| conf.word("requirepass").map(Secret::new)).collect();
    former.dedup();
    let Some((mut wire, auth, locked)) = authenticate(host, &address, instance, &former) else {
        return unheard(host, &address, instance, facts);
    };
    let Ok(info) = wire.info("all") else {
        return Some(Running { locked, ..Running::default() });
    };
    let get = |name: &str| info.get(name).cloned().unwrap_or_default();
    let number = |name: &str| get(name).parse::<u64>().unwrap_or(0);
    let role = parse::role(&info);
    // The server counts us, and a replica its master.
    let known = 1 + u64::from(matches!(role, Role::Replica { up: true, .. }));
    let mut config = wire.config().unwrap_or_default();
    let mut exchanged = exchanged(&config, [&conf, &written]);
    let mut users = Vec::new();
    // Where the default user has a password of its own, that of `admin` tells nothing of it.
    if instance.users.is_some() && auth == Auth::Wanted {
        let by_no_file;
        (users, by_no_file) = other_users(&mut wire, &config, [&conf, &written]);
        exchanged.extend(by_no_file.then(|| "user".to_owned()));
        let now = config.get("requirepass").map(String::as_str);
        let of_a_file =
            |conf: &&Conf| conf.word("requirepass").unwrap_or_default() == now.unwrap_or_default();
        let other = now.is_some() && ![&conf, &written].iter().any(of_a_file);
        exchanged.extend(other.then(|| "requirepass".to_owned()));
    }
    config.retain(|name, _| !directives::secret(name));
    Some(Running {
        pid: get("process_id").parse().unwrap_or(0),
        auth,
        run_id: get("run_id"),
        file: Some(get("config_file")).filter(|file| !file.is_empty()).map(PathBuf::from),
        role,
        clients: number("connected_clients").saturating_sub(known),
        replicas: number("connected_slaves"),
        unsaved: number("rdb_changes_since_last_save"),
        keys: parse::keys(&info),
        memory: number("used_memory"),
        config,
        exchanged,
        users,
        locked,
        untrusted: false,
        certificate: wire.peer_certificate().map(|shown| judge::fingerprint(&shown)),
    })
}

/// The secrets that a server has from elsewhere than from its file as it is, or as we wrote it.
fn exchanged(config: &BTreeMap<String, String>, files: [&Conf; 2]) -> Vec<String> {
    if files.iter().any(|conf| conf.get("include").is_some()) {
        return Vec::new();
    }
    let from_a_file =
        |name: &str, now: &String| files.iter().any(|conf| conf.word(name).unwrap_or_default() == now);
    let secrets = config.iter().filter(|(name, _)| {
        directives::secret(name) && directives::canonical(name) == name.as_str() && *name != "requirepass"
    });
    secrets.filter(|(name, now)| !from_a_file(name, now)).map(|(name, _)| name.clone()).collect()
}

/// The users that may do something else than by a server's file, and whether one of them may by what we wrote, too.
fn other_users(wire: &mut Wire, config: &BTreeMap<String, String>, files: [&Conf; 2]) -> (Vec<String>, bool) {
    let lines: Vec<String> = wire.ask(&["ACL", "LIST"]).unwrap_or_default();
    // As in a file, with the password that the default user has now.
    let password =
        config.get("requirepass").map(|password| format!("requirepass {}\n", conf::quote(password)));
    let Ok(now) = Conf::parse(&format!("{}{}", password.unwrap_or_default(), lines.join("\n"))) else {
        return (Vec::new(), false);
    };
    let by = files.map(users::of);
    let now = users::of(&now);
    if lines.is_empty() || files.iter().any(|conf| conf.get("include").or(conf.get("aclfile")).is_some()) {
        return (Vec::new(), false);
    }
    let meaning =
        |all: &BTreeMap<String, Vec<String>>, name: &str| all.get(name).map(|words| users::canonical(words));
    let names: BTreeSet<&String> = now.keys().chain(by.iter().flat_map(BTreeMap::keys)).collect();
    let other =
        |name: &&String, file: &BTreeMap<String, Vec<String>>| meaning(file, name) != meaning(&now, name);
    let all: Vec<&String> = names.into_iter().filter(|name| other(name, &by[0])).collect();
    let by_no_file = all.iter().any(|name| other(name, &by[1]));
    (all.into_iter().cloned().collect(), by_no_file)
}

/// Where an instance is to be asked for: on the port that its file names, which a hand may have changed.
pub fn address_on_disk(instance: &Instance, conf: &Conf) -> Address {
    let mut address = instance.address();
    if let Some((port, tls)) = conf.listens() {
        address.port = port;
        address.tls = tls_on_disk(instance, conf).filter(|_| tls);
    }
    address
}

/// By which files TLS is spoken with an instance, as its file has it.
fn tls_on_disk(instance: &Instance, conf: &Conf) -> Option<Tls> {
    // In a container it names them as they are called there.
    let named = Tls::of(conf).filter(|_| !instance.runtime.is_container());
    named.or_else(|| instance.address().tls).or_else(|| conf.listens()?.1.then(certificates::of_servers))
}

/// A server of ours that runs, and with which we do not come to speak TLS. Only one that says so trusts or shows what
/// its files had once: silence, or the end of a connection, is what a busy one gives.
fn unheard(host: &Host, at: &Address, instance: &Instance, facts: &Facts) -> Option<Running> {
    facts.pids.get(&instance.name)?;
    match Wire::open(host, at, None).and_then(|mut wire| wire.ping()) {
        Err(Trouble::Untrusted(_)) => Some(Running { untrusted: true, ..Running::default() }),
        Err(Trouble::Tls(_)) => Some(Running::default()),
        _ => None,
    }
}

/// Opens a connection with the first password that is taken, and tells whether one asks for another; none when
/// nobody listens.
fn authenticate(
    host: &Host,
    at: &Address,
    instance: &Instance,
    former: &[Secret],
) -> Option<(Wire, Auth, bool)> {
    let wanted = instance.requirepass.as_ref();
    let mut tries: Vec<(Option<&Secret>, Auth)> = vec![(wanted, Auth::Wanted)];
    for former in former.iter().filter(|former| Some(*former) != wanted) {
        tries.push((Some(former), Auth::Former));
    }
    tries.push((None, if wanted.is_none() { Auth::Wanted } else { Auth::Open }));
    let mut locked = false;
    for (password, auth) in tries {
        let trouble = match Wire::enter(host, at, instance.users.is_some(), password) {
            Ok(mut wire) => match wire.ping() {
                Ok(()) | Err(Trouble::Loading) => return Some((wire, auth, false)),
                Err(trouble) => trouble,
            },
            Err(Trouble::Refused | Trouble::Stranger(_)) => return None,
            // It hangs, or speaks another language: another password will not help.
            Err(Trouble::Tls(_) | Trouble::Untrusted(_) | Trouble::Other(_)) => break,
            Err(trouble) => trouble,
        };
        locked |= matches!(trouble, Trouble::NoAuth | Trouble::WrongPassword);
    }
    // Something listens, but lets us in with no password that we know.
    Wire::open(host, at, None).ok().map(|wire| (wire, Auth::Unknown, locked))
}

/// Whether a master elsewhere is there and takes the password, asked before a replica of it is made.
fn upstream(host: &Host, instance: &Instance, facts: &Facts) -> Option<Upstream> {
    let of = instance.upstream.as_ref().filter(|of| of.instance.is_none())?;
    let linked = facts
        .running
        .get(&instance.name)
        .is_some_and(|running| matches!(running.role, Role::Replica { up: true, .. }));
    // A link that is up says nothing of another password: the master asks for that at the next one.
    let there = Conf::parse(facts.text(&instance.conf).unwrap_or_default()).unwrap_or_default();
    if linked && there.word("masterauth") == instance.masterauth.as_ref().map(Secret::expose) {
        return None;
    }
    let trouble = match Wire::open_strictly(host, &of.address, instance.masterauth.as_ref()) {
        Ok(mut wire) => wire.ping().err(),
        Err(trouble) => Some(trouble),
    };
    Some(match trouble {
        None => Upstream::Fine,
        Some(Trouble::Tls(why) | Trouble::Untrusted(why)) => Upstream::Untrusted(why),
        Some(trouble) => Upstream::Trouble(trouble.to_string()),
    })
}

fn listeners(host: &Host, question: &Question<'_>, facts: &Facts) -> Result<Vec<Listener>> {
    let mut ports: BTreeSet<u16> = question.instances.iter().map(|instance| instance.port).collect();
    ports.extend(facts.state.instances.values().map(|kept| kept.port));
    ports.extend(question.app.map(|app| app.section().port));
    let known: Vec<u32> = facts
        .running
        .values()
        .map(|running| running.pid)
        .chain(facts.app.workers.iter().copied())
        .chain(facts.units.values().map(|unit| unit.pid))
        .collect();
    listening(host, &known, |port| ports.contains(&port))
}

/// The TCP listeners on some ports, with their owners; `known` are processes to look at first, for a
/// look at all of them is dear.
pub fn listening(host: &Host, known: &[u32], wanted: impl Fn(u16) -> bool) -> Result<Vec<Listener>> {
    let mut sockets = listening_sockets(host)?;
    sockets.retain(|socket| wanted(socket.port));
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let mut owners: BTreeMap<u64, u32> = BTreeMap::new();
    let missing =
        |owners: &BTreeMap<u64, u32>| sockets.iter().any(|socket| !owners.contains_key(&socket.inode));
    for pid in known.iter().filter(|pid| **pid > 0) {
        sockets_of(host, *pid, &mut owners);
    }
    if missing(&owners) {
        for name in host.list(Path::new("/proc"))? {
            if let Ok(pid) = name.parse() {
                sockets_of(host, pid, &mut owners);
            }
        }
    }
    let listener = |socket: Socket| Listener {
        address: socket.address,
        port: socket.port,
        owner: owners.get(&socket.inode).and_then(|pid| about(host, *pid)),
    };
    Ok(sockets.iter().copied().map(listener).collect())
}

/// Every TCP address and port on which one process listens; empty also where we may not look into it.
pub fn listening_of(host: &Host, pid: u32) -> Result<Vec<(IpAddr, u16)>> {
    let mut owners = BTreeMap::new();
    sockets_of(host, pid, &mut owners);
    let sockets = listening_sockets(host)?.into_iter();
    Ok(sockets
        .filter(|socket| owners.contains_key(&socket.inode))
        .map(|socket| (socket.address, socket.port))
        .collect())
}

/// Every TCP socket in LISTEN. The files in /proc tell the same, but the kernel walks its whole table of
/// connections for each read of them: milliseconds, on a machine with much memory.
pub(super) fn listening_sockets(host: &Host) -> Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    // A unit with ProcSubset=pid sees its own, and no /proc/net.
    for (family, table) in [(Family::V4, "/proc/self/net/tcp"), (Family::V6, "/proc/self/net/tcp6")] {
        match sockets::listening(host, family) {
            Ok(found) => sockets.extend(found),
            Err(_) => {
                let text = host.text(Path::new(table))?.unwrap_or_default();
                sockets.extend(text.lines().filter_map(parse::listener));
            }
        }
    }
    Ok(sockets)
}

fn sockets_of(host: &Host, pid: u32, owners: &mut BTreeMap<u64, u32>) {
    let fds = PathBuf::from(format!("/proc/{pid}/fd"));
    for fd in host.list(&fds).unwrap_or_default() {
        let inode = host
            .link(&fds.join(fd))
            .and_then(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        if let Some(inode) = inode {
            owners.insert(inode, pid);
        }
    }
}

/// What /proc tells of a process; none when it is gone.
pub fn about(host: &Host, pid: u32) -> Option<Process> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let program = host.lossy(&proc.join("comm")).ok()??.trim().to_owned();
    let cgroup = host.text(&proc.join("cgroup")).ok()?.unwrap_or_default();
    let uid = host.stat(&proc).ok()??.uid;
    Some(Process { pid, program, unit: parse::cgroup_unit(&cgroup), uid })
}

fn unbindable(host: &Host, question: &Question<'_>) -> Vec<IpAddr> {
    let wanted = question.instances.iter().flat_map(|instance| instance.bind.iter().flatten());
    let of_app = question.app.map(|app| app.section().bind);
    let addresses: BTreeSet<IpAddr> = wanted
        .filter(|bind| !bind.optional)
        .filter_map(|bind| match bind.address {
            BindAddress::Ip(ip) => Some(ip),
            BindAddress::AnyV4 => None,
            BindAddress::AnyV6 => Some(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)),
        })
        .chain(of_app)
        .collect();
    addresses.into_iter().filter(|address| !host.can_bind(*address)).collect()
}

/// The process of an instance that no unit keeps. Its pid file is the server's own to write, and may be
/// stale, lost or a lie, so it is a hint: a process is the instance's if it is the engine's user's, its
/// program is the server, and it works in the instance's directory or listens on its port.
pub fn pid_of(host: &Host, target: &Target, kept: Option<&Kept>) -> Result<Option<u32>> {
    let Some(user) = layout::here().ids(host, target.engine.user())? else { return Ok(None) };
    let conf = Conf::parse(&host.text(&target.conf()).ok().flatten().unwrap_or_default()).unwrap_or_default();
    let server = |pid: u32| is_server(host, pid, target.engine, user.uid);
    // Between the writing of a file and the restart, the server is still where our record has it.
    let mut ports: BTreeSet<u16> = BTreeSet::from([target.address.port]);
    ports.extend(conf.listens().map(|(port, _)| port));
    ports.extend(kept.map(|kept| kept.port));
    let mut dirs: BTreeSet<PathBuf> = conf.word("dir").map(PathBuf::from).into_iter().collect();
    dirs.extend(kept.and_then(|kept| kept.dir.path()).map(Path::to_path_buf));
    let dirs: BTreeSet<PathBuf> = dirs.iter().map(|dir| host.real_path(dir)).collect();
    let at_home =
        |pid: u32| host.link(Path::new(&format!("/proc/{pid}/cwd"))).is_some_and(|cwd| dirs.contains(&cwd));

    // A fifo in its place must not hold us up, hence `tail`.
    let named = host.tail(&target.pidfile(), 32, None).unwrap_or_default().trim().parse::<u32>().ok();
    if let Some(pid) = named.filter(|pid| *pid > 1 && server(*pid)) {
        // Another user may not look into it, nor signal it; the pid file is all there is.
        let blind = ![0, user.uid].contains(&host.euid());
        if blind || at_home(pid) || listening_of(host, pid)?.iter().any(|(_, port)| ports.contains(port)) {
            return Ok(Some(pid));
        }
    }
    let mut found: BTreeSet<u32> = BTreeSet::new();
    for listener in listening(host, &[], |port| ports.contains(&port))? {
        found.extend(listener.owner.map(|owner| owner.pid).filter(|pid| server(*pid)));
    }
    Ok(found.into_iter().find(|pid| at_home(*pid) || says_so(host, *pid, target)))
}

/// Whether a process is a server of this engine, run by its user.
pub fn is_server(host: &Host, pid: u32, engine: Engine, uid: u32) -> bool {
    // The kernel cuts comm at 15 characters; the servers' names are shorter.
    about(host, pid).is_some_and(|process| process.program == engine.server() && process.uid == uid)
}

/// Whether a server of a user was started for an instance and cannot be found by [`pid_of`] yet. Until its pid file is
/// there, its command line names its configuration; then it gives itself another.
///
/// # Errors
/// /proc cannot be read.
pub fn is_starting(host: &Host, target: &Target, uid: u32) -> Result<bool> {
    let conf = target.conf();
    let names_it = |pid: u32| {
        let words = host.text(Path::new(&format!("/proc/{pid}/cmdline"))).ok().flatten().unwrap_or_default();
        words.split('\0').any(|word| Path::new(word) == conf)
    };
    let seen = || -> Result<bool> {
        let processes = host.list(Path::new("/proc"))?;
        let mut pids = processes.iter().filter_map(|name| name.parse().ok());
        Ok(pids.any(|pid| is_server(host, pid, target.engine, uid) && names_it(pid)))
    };
    // It forks to leave its parent: the one may be too young for a list, and the other gone when its turn
    // comes. A second look sees the young one.
    Ok(seen()? || seen()?)
}

/// Whether a process answers under the instance's address, and names the instance's configuration.
fn says_so(host: &Host, pid: u32, target: &Target) -> bool {
    let info = target.connect(host).and_then(|mut wire| wire.info("server")).unwrap_or_default();
    let get = |name: &str| info.get(name).map(String::as_str).unwrap_or_default();
    get("process_id") == pid.to_string() && Path::new(get("config_file")) == target.conf()
}
