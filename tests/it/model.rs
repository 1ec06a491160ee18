//! A machine that is nothing but facts: carries a plan out on them, as `apply` does on a real one.

use std::path::{Path, PathBuf};

use redis_tp::app::{AppTarget, service};
use redis_tp::certificates;
use redis_tp::conf::Conf;
use redis_tp::engine::{Engine, Version};
use redis_tp::facts::containers::{Seen, Volume, layout};
use redis_tp::facts::{Auth, Facts, Listener, Package, Process, Role, Running, Server, Unit};
use redis_tp::host::{Ids, Kind, Stat};
use redis_tp::instance::Target;
use redis_tp::live::{Setting, Value};
use redis_tp::plan::Plan;
use redis_tp::runtime::Runtime;
use redis_tp::runtime::container::{self, Container};
use redis_tp::secret::Secret;
use redis_tp::secrets;
use redis_tp::state::State;
use redis_tp::step::{Body, Owner, Step};
use redis_tp::store::Store;
use redis_tp::tls::judge;

/// The ids that Debian's package gives the server's user on the modelled machine.
pub const REDIS: Ids = Ids { uid: 102, gid: 105 };

/// Those of the web app's user.
const APP: Ids = Ids { uid: 998, gid: 998 };

/// Carries every step out, and keeps the record as `apply` does.
pub fn carry_out(plan: &Plan, facts: &mut Facts) {
    for (unit, before) in &plan.units {
        facts.state.units.entry(unit.clone()).or_insert(*before);
    }
    plan.steps.iter().for_each(|step| carry_out_step(step, facts));
    facts.state.instances = plan.record.clone();
    remember_effective(plan, facts);
    facts.state.app = plan.app.clone();
    if plan.forget {
        facts.state = State::default();
    }
}

/// As `apply` does, servers are asked what they say of their configuration.
fn remember_effective(plan: &Plan, facts: &mut Facts) {
    for (name, kept) in &mut facts.state.instances {
        let told = plan.steps.iter().any(|step| match step {
            Step::Start { targets } => targets.iter().any(|target| target.name == *name),
            Step::Restart { target, .. } | Step::Set { target, .. } => target.name == *name,
            _ => false,
        });
        if let Some(running) = facts.running.get(name).filter(|_| told || kept.effective.is_empty()) {
            kept.effective = redis_tp::plan::drift::effective(running.config.clone());
        }
    }
}

fn carry_out_step(step: &Step, facts: &mut Facts) {
    match step {
        Step::Install { engine, .. } | Step::Fetch { engine, .. } => install(*engine, facts),
        Step::Prove { .. } | Step::AwaitLink { .. } => {}
        Step::Directory { path, owner, mode, .. } => make_directory(path, *owner, *mode, facts),
        Step::Write { path, body, ours, owner, mode } => {
            write(path, [body, ours.as_ref().unwrap_or(body)], *owner, *mode, facts);
        }
        Step::Keep { path, ours } => {
            facts.state.files.entry(path.clone()).or_insert(true);
            if !secrets::is_secret(path) {
                facts.written.insert(path.clone(), Secret::new(ours.expose()));
            }
            facts.stock = false;
        }
        Step::Own { paths, owner, mode } => {
            for path in paths {
                let old = facts.paths[path];
                let mode = mode.unwrap_or(old.mode & !0o007);
                facts.paths.insert(path.clone(), stat(old.kind, *owner, mode));
            }
        }
        Step::Mode { path, mode, .. } => {
            facts.paths.get_mut(path).expect("it was looked at").mode = *mode;
        }
        Step::End { target, .. } => stop(target, facts),
        Step::Remove { path } | Step::GiveBack { path } => forget_path(path, facts),
        Step::RemoveEmpty { path } | Step::Purge { path, keep: false } => {
            forget_path(path, facts);
            facts.state.directories.retain(|made| made != path);
        }
        Step::Purge { path, keep: true } => drop(facts.occupied.remove(&Store::Path(path.clone()))),
        Step::Pull { .. } => pull(facts),
        Step::Network { .. } => facts.containers.network = Some(layout()),
        Step::RemoveNetwork { .. } => facts.containers.network = None,
        Step::Volumes { volumes, .. } => {
            let ours = || Volume { layout: layout(), ..Volume::default() };
            facts.containers.volumes.extend(volumes.iter().map(|volume| (volume.name.clone(), ours())));
        }
        Step::PurgeVolume { program, name } => {
            facts.containers.volumes.remove(name);
            facts.occupied.remove(&Store::Volume { program: *program, volume: name.clone() });
        }
        Step::Container { container, .. } => make_container(container, facts),
        Step::Join { name, .. } => seen(name, facts).joined = true,
        Step::Boot { name, on, .. } => seen(name, facts).boot = *on,
        Step::RemoveContainer { name, .. } => {
            facts.containers.containers.remove(name);
            facts.state.containers.remove(name);
        }
        Step::Kernel { path, value } => drop(facts.state.kernel.insert(path.clone(), value.clone())),
        Step::Reload => facts.units.values_mut().for_each(|unit| unit.needs_reload = false),
        Step::Enable { unit } => unit_of(unit, facts).enabled = true,
        Step::Disable { unit } => unit_of(unit, facts).enabled = false,
        Step::Start { targets } => targets.iter().for_each(|target| start(target, facts)),
        Step::Restart { target, .. } => {
            stop(target, facts);
            start(target, facts);
        }
        Step::Set { target, settings } => set(target, settings, facts),
        Step::Certificates { target } => {
            let cert = certificates::of_servers().cert;
            let shown = facts.text(&cert).and_then(|cert| judge::chain(cert).ok());
            running(target, facts).certificate = shown.map(|chain| judge::fingerprint(&chain[0]));
        }
        Step::Admit { .. }
        | Step::LetIn { .. }
        | Step::Backup { .. }
        | Step::Bring { .. }
        | Step::Replace { .. }
        | Step::Count { .. } => {}
        Step::Password { target } => {
            let running = running(target, facts);
            running.auth = Auth::Wanted;
            running.exchanged.retain(|name| name != "requirepass");
        }
        Step::Users { target, .. } => {
            let running = running(target, facts);
            running.users.clear();
            running.exchanged.retain(|name| name != "user");
        }
        Step::Stop { target, .. } => stop(target, facts),
        Step::StartUnit { unit } => unit_of(unit, facts).active = "active".into(),
        Step::User { name } => {
            facts.app.user = Some(APP);
            facts.state.users.push(name.clone());
        }
        Step::RemoveUser { name } => facts.state.users.retain(|made| made != name),
        Step::Program { path } => {
            facts.program.copied = true;
            facts.state.files.insert(path.clone(), false);
        }
        Step::StartApp { app } | Step::RestartApp { app, .. } => start_app(app, facts),
        Step::StopApp { app } => stop_app(app, facts),
        Step::RemovePackages { .. } => {
            (facts.package, facts.server, facts.user) = (None, None, None);
            facts.state.packages.clear();
        }
    }
}

/// The identifier of the image that every tag stands for.
const IMAGE: &str = "0123456789abcdef";

fn pull(facts: &mut Facts) {
    facts.containers.image = Some(IMAGE.into());
    let server = PathBuf::from("/usr/bin/redis-server");
    facts.server =
        Some(Server { path: server, version: Version { major: 7, minor: 0, patch: 15 }, unpacked: false });
    facts.user = Some(REDIS);
}

fn make_container(container: &Container, facts: &mut Facts) {
    let made = Seen {
        state: "created".into(),
        layout: layout(),
        spec: container.digest(),
        image: facts.containers.image.clone().expect("the image is here"),
        boot: true,
        joined: true,
        ports: container.ports.iter().cloned().collect(),
        ..Seen::default()
    };
    facts.containers.containers.insert(container.name.clone(), made);
    facts.state.containers.insert(container.name.clone(), container.clone());
}

fn seen<'a>(name: &str, facts: &'a mut Facts) -> &'a mut Seen {
    facts.containers.containers.get_mut(name).unwrap_or_else(|| panic!("there is no container {name}"))
}

fn start_app(app: &AppTarget, facts: &mut Facts) {
    stop_app(app, facts);
    let pid = 5000;
    facts.app.pid = Some(pid);
    facts.app.exe = Some(app.program.clone());
    if app.runtime.is_container() {
        let seen = seen(&app.container(), facts);
        (seen.state, seen.pid) = ("running".into(), pid);
    }
    let unit = (app.runtime == Runtime::Systemd).then(|| service::UNIT.to_owned());
    if unit.is_some() {
        let unit = unit_of(service::UNIT, facts);
        (unit.active, unit.pid) = ("active".into(), pid);
    }
    let owner = Some(Process { pid, program: service::COMM.into(), unit, uid: APP.uid });
    let address = app.host.parse().expect("the app is reached under an address");
    facts.listeners.push(Listener { address, port: app.port, owner });
}

fn stop_app(app: &AppTarget, facts: &mut Facts) {
    facts.app.pid = None;
    facts.app.exe = None;
    facts.listeners.retain(|listener| listener.port != app.port);
    if let Some(seen) = facts.containers.containers.get_mut(&app.container()) {
        (seen.state, seen.pid) = ("exited".into(), 0);
    }
    if app.runtime == Runtime::Systemd {
        let unit = unit_of(service::UNIT, facts);
        (unit.active, unit.pid) = ("inactive".into(), 0);
    }
}

fn unit_of<'a>(name: &str, facts: &'a mut Facts) -> &'a mut Unit {
    facts.units.entry(name.to_owned()).or_default()
}

fn install(engine: Engine, facts: &mut Facts) {
    facts.package = Some(Package { version: "5:7.0.15-1~deb12u10".into(), status: "installed".into() });
    let path = Path::new("/usr/bin").join(engine.server());
    facts.server = Some(Server { path, version: Version { major: 7, minor: 0, patch: 15 }, unpacked: false });
    facts.user = Some(REDIS);
    make_directory(&engine.etc(), Owner::Server(engine), 0o2770, facts);
    make_directory(&engine.log(), Owner::ServerAdm(engine), 0o2750, facts);
    make_directory(&engine.data("master"), Owner::Server(engine), 0o750, facts);
    facts.state.directories.clear();
    facts.state.packages = vec![engine.tools_package().into(), engine.package().into()];
    for (name, unit) in &mut facts.units {
        unit.load = "loaded".into();
        unit.enabled |= *name == engine.unit("master");
    }
}

fn make_directory(path: &Path, owner: Owner, mode: u32, facts: &mut Facts) {
    let before = facts.paths.insert(path.into(), stat(Kind::Dir, owner, mode));
    if before.is_none() {
        facts.state.directories.push(path.into());
    }
}

fn stat(kind: Kind, owner: Owner, mode: u32) -> Stat {
    let ids = match owner {
        Owner::Root => Ids::ROOT,
        Owner::App => APP,
        Owner::Server(_) | Owner::ServerAdm(_) | Owner::Image => REDIS,
    };
    Stat { kind, mode, uid: ids.uid, gid: ids.gid, inode: 0, links: 1 }
}

fn write(path: &Path, [body, ours]: [&Body; 2], owner: Owner, mode: u32, facts: &mut Facts) {
    let there = facts.paths.insert(path.into(), stat(Kind::File, owner, mode)).is_some();
    facts.state.files.entry(path.into()).or_insert(there);
    facts.texts.insert(path.into(), Secret::new(body.expose()));
    if !redis_tp::secrets::is_secret(path) {
        facts.written.insert(path.into(), Secret::new(ours.expose()));
    }
    facts.stock = false;
}

fn forget_path(path: &PathBuf, facts: &mut Facts) {
    facts.paths.remove(path);
    facts.texts.remove(path);
    facts.written.remove(path);
    facts.occupied.remove(&Store::Path(path.clone()));
    facts.state.files.remove(path);
}

fn running<'a>(target: &Target, facts: &'a mut Facts) -> &'a mut Running {
    facts.running.get_mut(&target.name).unwrap_or_else(|| panic!("{} does not run", target.name))
}

fn set(target: &Target, settings: &[Setting], facts: &mut Facts) {
    let running = running(target, facts);
    for Setting { directive, value } in settings {
        match (directive.as_str(), value) {
            ("replicaof", Value::Plain(master)) if master == "no one" => running.role = Role::Master,
            ("replicaof", Value::Plain(master)) => {
                let (host, port) = master.split_once(' ').expect("HOST PORT");
                let port = port.parse().expect("a port");
                running.role = Role::Replica { host: host.into(), port, up: true };
            }
            (_, Value::Secret(_)) => {}
            (_, value) => drop(running.config.insert(directive.clone(), value.masked())),
        }
    }
}

fn start(target: &Target, facts: &mut Facts) {
    let conf = facts.text(&target.conf()).map(|text| Conf::parse(text).expect("it was proved"));
    let conf = conf.unwrap_or_else(|| panic!("{} has no configuration to start with", target.name));
    let role = match conf.get("replicaof") {
        Some([host, port]) => {
            Role::Replica { host: host.clone(), port: port.parse().expect("a port"), up: true }
        }
        _ => Role::Master,
    };
    let pid = 1000 + u32::from(target.address.port);
    // What a server tells; no directive that a case is about has this for its name.
    let config = [("maxmemory-policy".to_owned(), "noeviction".to_owned())].into();
    let running = Running { pid, auth: Auth::Wanted, role, config, ..Running::default() };
    facts.running.insert(target.name.clone(), running);
    facts.occupied.insert(match target.runtime {
        Runtime::Container(program) => {
            Store::Volume { program, volume: container::volume(target.engine, target.name.as_str()) }
        }
        _ => Store::Path(conf.word("dir").expect("it has a directory").into()),
    });
    if target.runtime.is_container() {
        let seen = seen(&target.container(), facts);
        (seen.state, seen.pid) = ("running".into(), pid);
    }
    let unit = (target.runtime == Runtime::Systemd).then(|| target.unit());
    if let Some(name) = &unit {
        let unit = unit_of(name, facts);
        (unit.active, unit.pid) = ("active".into(), pid);
    }
    facts.pids.insert(target.name.clone(), pid);
    let program = target.engine.server().to_owned();
    let address = target.address.host.parse().expect("instances are reached under an address");
    let owner = Some(Process { pid, program, unit, uid: REDIS.uid });
    facts.listeners.push(Listener { address, port: target.address.port, owner });
}

fn stop(target: &Target, facts: &mut Facts) {
    let pid = facts.running.remove(&target.name).map(|running| running.pid);
    facts.pids.remove(&target.name);
    if let Some(seen) = facts.containers.containers.get_mut(&target.container()) {
        (seen.state, seen.pid) = ("exited".into(), 0);
    }
    facts.listeners.retain(|listener| listener.owner.as_ref().map(|owner| owner.pid) != pid);
    if target.runtime == Runtime::Systemd {
        let unit = unit_of(&target.unit(), facts);
        (unit.active, unit.pid) = ("inactive".into(), 0);
    }
}
