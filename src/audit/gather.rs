//! Looks at the machine for the audit, and touches nothing: here at the servers, in [`around`] at what is
//! around them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::seen::{Client, Guarded, Seen, Server, Told};
use super::{around, tls};
use crate::check::Subject;
use crate::conf::{self, Conf};
use crate::engine::{Engine, Version};
use crate::facts::sockets::{self, Family};
use crate::facts::{self, Process, Role, found, holder, parse};
use crate::host::{Host, Knock};
use crate::instance::Instance;
use crate::layout;
use crate::secret::Secret;
use crate::topology::Defaults;
use crate::users;
use crate::wire::{Address, Trouble, Wire};

/// How long an own address may take to answer.
const DOOR: Duration = Duration::from_millis(300);
/// How long a server may take to tell all that it is asked.
const ANSWER: Duration = Duration::from_secs(5);
/// Keys that worms leave behind in a server that they were in.
const FOREIGN_KEYS: [&str; 6] = ["backup1", "backup2", "backup3", "backup4", "crackit", "crackit_key"];
/// A command that the module of a known attack brings.
pub(super) const FOREIGN_COMMAND: &str = "system.exec";

/// Reads all that the audit looks at.
///
/// # Errors
/// What should be readable is not.
pub fn look(host: &Host, subject: &Subject<'_>, password: Option<&Secret>) -> Result<Seen> {
    let engine = subject.topology.engine;
    let mut seen = Seen {
        engine,
        user: subject.facts.user,
        managed: host.stat(crate::topology::file())?.is_some(),
        cache: subject.app.is_some(),
        ..Seen::default()
    };
    // Its programs are the dearest look of all: they are asked while the rest is looked at.
    let (package, system, firewall) = std::thread::scope(|scope| {
        let package = scope.spawn(|| around::package(host, engine, subject));
        let system = scope.spawn(|| around::check_system(host, engine, subject));
        let firewall = scope.spawn(|| around::firewall(host));
        let rest = rest(host, subject, password, &mut seen);
        rest.map(|()| {
            (
                package.join().unwrap_or_else(|_| Err("apt-cache could not be asked".into())),
                system.join().unwrap_or_else(|_| Err("the server could not be asked".into())),
                firewall.join().unwrap_or_default(),
            )
        })
    })?;
    seen.package = package.unwrap_or_else(|why| {
        seen.missing.insert("package", why);
        None
    });
    seen.check_system = system.unwrap_or_else(|why| {
        seen.missing.insert("check-system", why);
        None
    });
    if firewall.is_none() {
        seen.missing.insert("firewall", "neither nft nor iptables is here, or they may not be asked".into());
    }
    seen.firewall = firewall;
    Ok(seen)
}

/// All that is looked at without another program.
fn rest(host: &Host, subject: &Subject<'_>, password: Option<&Secret>, seen: &mut Seen) -> Result<()> {
    let here = host.addresses();
    let processes = found::processes(host)?;
    if seen.managed {
        for instance in subject.instances {
            seen.servers.push(instance_as_seen(host, subject, instance, &here)?);
        }
    }
    others(host, subject, password, (&here, &processes), seen)?;
    // A user of the machine has a shell of his own.
    let account = layout::here().login.is_none().then(|| seen.engine.user());
    seen.shell = account.map(|account| around::shell(host, account)).transpose()?.flatten();
    seen.sources = around::sources(host)?;
    seen.release = around::release(host);
    around::processes(host, password, &processes, seen)?;
    seen.backups = around::of_directory(host, &crate::backup::dir())?;
    seen.planted = around::planted(host)?;
    seen.preload = host.text(Path::new("/etc/ld.so.preload"))?.is_some_and(|text| !text.trim().is_empty());
    around::kernel(host, seen);
    Ok(())
}

// ---- servers ------------------------------------------------------------------------------------

fn instance_as_seen(
    host: &Host,
    subject: &Subject<'_>,
    instance: &Instance,
    here: &[IpAddr],
) -> Result<Server> {
    let target = instance.target();
    let listener = subject.facts.listeners.iter().find(|listener| listener.port == instance.port);
    let owner = listener.and_then(|listener| listener.owner.as_ref()).map(|owner| owner.pid);
    let pid = subject.facts.running.get(&instance.name).map(|running| running.pid).filter(|pid| *pid > 0);
    let pid = pid.or(owner);
    let contained = instance.runtime.is_container();
    let by_hand = subject.facts.running.get(&instance.name).map(|running| running.users.clone());
    let mut server = Server {
        name: instance.name.to_string(),
        instance: Some(instance.name.clone()),
        contained,
        runs: pid.is_some(),
        taken_over: subject
            .topology
            .instances
            .iter()
            .any(|section| section.name == instance.name && section.defaults != Defaults::On),
        exposed: instance.is_exposed(),
        wanted_dir: Some(instance.dir.clone()),
        file: Some(instance.conf.clone()),
        address: Some(target.address.clone()),
        password: target.password.clone(),
        by_hand: by_hand.into_iter().flatten().filter(|name| !users::OURS.contains(&name.as_str())).collect(),
        wanted_master: instance.upstream.as_ref().map(|upstream| upstream.address.clone()),
        ..Server::default()
    };
    if pid.is_some() {
        let here = here.to_vec();
        server.told = ask(host, move |host| told(target.connect(host).ok()?, &here));
    }
    if subject.facts.state.instances.get(&instance.name).is_some_and(|kept| kept.users) {
        (server.exchanged, server.other_password) = exchanged(instance, server.told.as_ref());
    }
    surroundings(host, &mut server, pid.filter(|_| !contained), here)?;
    Ok(server)
}

/// The users of ours that may do something else than they were made for, and those that have a password which
/// is not ours.
fn exchanged(instance: &Instance, told: Option<&Told>) -> (Vec<String>, Vec<String>) {
    let none = || (Vec::new(), Vec::new());
    let wanted = instance.users.as_ref().zip(instance.requirepass.as_ref());
    let (Some((users, admin)), Some(told)) = (wanted, told) else { return none() };
    let (Some(version), Some(now)) = (told.version, &told.users) else { return none() };
    let meaning = |line: &str| users::canonical(&conf::split(line).unwrap_or_default());
    let now: BTreeSet<Vec<String>> =
        now.iter().filter_map(|line| line.strip_prefix("user ")).map(meaning).collect();
    let lines: Vec<Vec<String>> =
        users.lines(admin, instance.engine, version).into_iter().map(|line| meaning(&line)).collect();
    let other = |line: &&Vec<String>| {
        let same = now.iter().find(|now| now.first() == line.first());
        let lets_in = |word: &&String| word.starts_with('#') || *word == "nopass";
        same.is_some_and(|now| now.iter().filter(lets_in).any(|word| !line.contains(word)))
    };
    let names =
        |lines: Vec<&Vec<String>>| lines.into_iter().filter_map(|line| line.first().cloned()).collect();
    let changed = lines.iter().filter(|line| !now.contains(*line));
    (names(changed.collect()), names(lines.iter().filter(other).collect()))
}

/// The servers that the topology does not know.
fn others(
    host: &Host,
    subject: &Subject<'_>,
    password: Option<&Secret>,
    (here, processes): (&[IpAddr], &[Process]),
    seen: &mut Seen,
) -> Result<()> {
    let known: BTreeSet<u32> =
        seen.servers.iter().filter_map(|server| Some(server.process.as_ref()?.pid)).collect();
    let files: BTreeSet<PathBuf> = seen.servers.iter().filter_map(|server| server.file.clone()).collect();
    let ports: BTreeSet<u16> =
        seen.servers.iter().filter_map(|server| Some(server.address.as_ref()?.port)).collect();
    let engine = subject.topology.engine;
    let engines = if seen.managed { vec![engine] } else { Engine::ALL.to_vec() };
    for engine in engines {
        let found = found::look(host, engine, password, processes)?;
        for site in found.sites.iter().filter(|site| !files.contains(&site.file)) {
            let taken = site.server.as_ref();
            let mut server = Server {
                name: site.name.to_string(),
                runs: taken.is_some(),
                file: Some(site.file.clone()),
                address: taken.map(|_| site.address()),
                password: taken.and_then(|server| server.password.clone()),
                ..Server::default()
            };
            if let Some(taken) = taken.filter(|taken| taken.file.is_some()) {
                let (at, password, here) = (site.address(), taken.password.clone(), here.to_vec());
                server.told = ask(host, move |host| {
                    told(Wire::enter(host, &at, false, password.as_ref()).ok()?, &here)
                });
            }
            surroundings(host, &mut server, taken.map(|taken| taken.process.pid), here)?;
            seen.servers.push(server);
        }
        for file in found.unread.into_iter().map(|unread| unread.file).filter(|file| !files.contains(file)) {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let mut server = Server { name, file: Some(file), ..Server::default() };
            surroundings(host, &mut server, None, here)?;
            seen.servers.push(server);
        }
        let ours = |pid: u32| subject.facts.containers.containers.values().any(|seen| seen.pid == pid);
        let strays = found
            .strays
            .iter()
            .filter(|stray| !known.contains(&stray.process.pid) && !ours(stray.process.pid));
        for stray in
            strays.filter(|stray| !stray.contained || !stray.ports.iter().any(|port| ports.contains(port)))
        {
            let mut server = Server {
                name: format!("pid {}", stray.process.pid),
                runs: true,
                contained: stray.contained,
                file: stray.file.clone(),
                address: stray.ports.first().map(|port| Address::plain("127.0.0.1", *port)),
                ..Server::default()
            };
            // What an ordinary user has started may say anything, without end.
            server.foreign = !stray.contained && !holder::may_hear(host, stray.process.uid);
            if let Some(at) = server.address.clone().filter(|_| !server.foreign) {
                let here = here.to_vec();
                server.told = ask(host, move |host| told(Wire::open(host, &at, None).ok()?, &here));
            }
            surroundings(host, &mut server, Some(stray.process.pid), here)?;
            seen.servers.push(server);
        }
    }
    Ok(())
}

/// Asks a server, which may be somebody's by now and say nothing to an end.
fn ask(host: &Host, work: impl FnOnce(&Host) -> Option<Told> + Send + 'static) -> Option<Told> {
    host.in_time(ANSWER, work).flatten()
}

/// What a server tells to those whom it lets in; none where it asks for a password first. A command that it does not
/// have, or that is not ours to ask, tells nothing.
fn told(mut wire: Wire, here: &[IpAddr]) -> Option<Told> {
    let info = wire.info("all");
    let config = wire.ask(&["CONFIG", "GET", "*"]);
    let refused = |error: Option<&Trouble>| error == Some(&Trouble::NoAuth);
    if refused(info.as_ref().err()) || refused(config.as_ref().err()) {
        return None;
    }
    let info = info.ok();
    let commands = wire.ask::<Vec<Option<Vec<redis::Value>>>>(&["COMMAND", "INFO", FOREIGN_COMMAND]);
    let clients = wire.ask::<String>(&["CLIENT", "LIST"]).ok();
    let ourselves = wire.ask::<u64>(&["CLIENT", "ID"]).unwrap_or_default();
    let version = |name: &str| Version::parse(info.as_ref()?.get(name)?);
    Some(Told {
        config: config.ok(),
        users: wire.ask(&["ACL", "LIST"]).ok(),
        modules: wire.ask::<redis::Value>(&["MODULE", "LIST"]).ok().map(|answer| modules(&answer)),
        foreign_keys: info.as_ref().and_then(|info| foreign_keys(&mut wire, info)),
        foreign_command: commands.ok().map(|known| known.iter().flatten().next().is_some()),
        clients: clients.map(|list| clients_of(&list, ourselves, here)),
        role: info.as_ref().map_or(Role::Unknown, parse::role),
        version: ["valkey_version", "redis_version"].into_iter().find_map(version),
        info,
    })
}

/// The keys of known attacks that are there, in every database that has any; none where that cannot be asked.
fn foreign_keys(wire: &mut Wire, info: &BTreeMap<String, String>) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for database in parse::databases(info) {
        wire.ask::<()>(&["SELECT", &database.to_string()]).ok()?;
        for key in FOREIGN_KEYS {
            let there = match wire.ask::<u64>(&["EXISTS", key]) {
                Ok(count) => count > 0,
                // A cluster keeps it elsewhere.
                Err(Trouble::Other(said)) if said.starts_with("MOVED") => false,
                Err(_) => return None,
            };
            let name = if database == 0 { key.to_owned() } else { format!("{key} (in database {database})") };
            found.extend(there.then_some(name));
        }
    }
    Some(found)
}

/// A word of a line of CLIENT LIST.
fn word_of(line: &str, name: &str) -> Option<String> {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

/// The clients of CLIENT LIST but one.
fn clients_of(list: &str, ourselves: u64, here: &[IpAddr]) -> Vec<Client> {
    let address = |at: String| at.rsplit_once(':')?.0.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    let client = |line: &str| Client {
        user: word_of(line, "user").unwrap_or_default(),
        elsewhere: word_of(line, "addr").and_then(address).filter(|ip| is_elsewhere(*ip, here)),
    };
    let ourselves = ourselves.to_string();
    list.lines().filter(|line| word_of(line, "id").as_ref() != Some(&ourselves)).map(client).collect()
}

/// Whether an address is not one of this machine's.
fn is_elsewhere(ip: IpAddr, here: &[IpAddr]) -> bool {
    !ip.is_loopback() && !here.contains(&ip)
}

/// From which other machines somebody is connected to a server, as the kernel knows it.
fn connected(host: &Host, listens: &[(IpAddr, u16)], here: &[IpAddr]) -> Option<BTreeSet<IpAddr>> {
    let mut all = Vec::new();
    for family in [Family::V4, Family::V6] {
        all.extend(sockets::connected(host, family).ok()?);
    }
    let to_it = |port: u16| listens.iter().any(|(_, own)| *own == port);
    let peers = all.into_iter().filter(|connection| to_it(connection.port)).map(|connection| connection.peer);
    Some(peers.filter(|ip| is_elsewhere(*ip, here)).collect())
}

/// The names of modules and their files, which a server tells from 7.0 on.
fn modules(answer: &redis::Value) -> Vec<(String, String)> {
    let redis::Value::Array(all) = answer else { return Vec::new() };
    let one = |module: &redis::Value| {
        let redis::Value::Array(words) = module else { return None };
        let word = |value: &redis::Value| match value {
            redis::Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            redis::Value::SimpleString(text) => Some(text.clone()),
            _ => None,
        };
        let named = |name: &str| {
            let at = words.iter().position(|value| word(value).as_deref() == Some(name))?;
            word(words.get(at + 1)?)
        };
        Some((named("name")?, named("path").unwrap_or_default()))
    };
    all.iter().filter_map(one).collect()
}

/// What is around a server: its file, its process, its sockets, its data.
fn surroundings(host: &Host, server: &mut Server, pid: Option<u32>, here: &[IpAddr]) -> Result<()> {
    if let Some(file) = &server.file {
        server.file_stat = host.stat(file).unwrap_or_default();
        server.file_reachable = around::reachable(host, file);
        server.file_dir =
            file.parent().and_then(|dir| Some((dir.to_path_buf(), host.stat(dir).unwrap_or_default()?)));
        match host.text(file).map(|text| Conf::parse(&text.unwrap_or_default())) {
            Ok(Ok(conf)) => server.conf = conf,
            Ok(Err(_)) | Err(_) => server.unread = true,
        }
    }
    if let Some(pid) = pid {
        server.process = guarded(host, pid)?;
        server.listens = facts::listening_of(host, pid)?;
        server.connected = connected(host, &server.listens, here);
    }
    if server.contained {
        server.listens =
            server.address.iter().filter_map(|at| Some((at.host.parse().ok()?, at.port))).collect();
    }
    let modules = server.told.as_ref().and_then(|told| told.modules.clone()).unwrap_or_default();
    server.planted = modules.into_iter().filter(|(_, file)| !is_roots(host, pid, file)).collect();
    (server.open_at, server.unclear_at) = open_at(host, server, here);
    if server.contained {
        return Ok(());
    }
    let place = |name: &str| server.value(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let [dir, log, acl, socket] = ["dir", "logfile", "aclfile", "unixsocket"].map(place);
    if let Some(dir) = dir.filter(|dir| dir.is_absolute()) {
        let appended = dir.join(server.value("appenddirname").unwrap_or_else(|| "appendonlydir".into()));
        let base = server.value("dbfilename").unwrap_or_else(|| "dump.rdb".into());
        server.data = [dir.clone(), dir.join(base), appended]
            .into_iter()
            .filter_map(|path| Some((path.clone(), host.stat(&path).ok()??)))
            .collect();
    }
    let at = |path: PathBuf| Some((path.clone(), host.stat(&path).ok()??));
    server.log = log.and_then(at);
    server.acl_file = acl.and_then(at);
    server.socket_users = socket.as_deref().and_then(|path| sockets::connected_to(host, path).ok());
    server.socket = socket.and_then(at);
    server.certified = tls::look(host, server);
    if server.certified.is_some() && lets_in_by_tls(host, server) {
        server.open_at = doors(&server.listens, here).into_iter().map(|(ip, _)| ip).collect();
    }
    Ok(())
}

/// Whether a server that speaks TLS asks for neither a certificate nor a password.
fn lets_in_by_tls(host: &Host, server: &Server) -> bool {
    let asks = server.value("tls-auth-clients").is_none_or(|word| word == "yes");
    let open = |at: &Address| Wire::open(host, at, None).and_then(|mut wire| wire.ping()).is_ok();
    !asks && !server.foreign && server.address.as_ref().is_some_and(open)
}

/// Whether root alone decides what is in a file; what a server does not tell (before 7.0), and its own modules
/// have none.
fn is_roots(host: &Host, pid: Option<u32>, file: &str) -> bool {
    if !file.starts_with('/') {
        return true;
    }
    // As the server sees it: it may have a /tmp of its own.
    let root = pid.map_or_else(|| PathBuf::from("/"), |pid| PathBuf::from(format!("/proc/{pid}/root")));
    let path = root.join(file.trim_start_matches('/'));
    path.ancestors().take_while(|above| *above != root).all(|above| {
        host.stat(above).ok().flatten().is_some_and(|stat| stat.uid == 0 && stat.mode & 0o022 == 0)
    })
}

/// The own addresses and ports under which a server is met.
fn doors(listens: &[(IpAddr, u16)], here: &[IpAddr]) -> BTreeSet<(IpAddr, u16)> {
    let mut doors: BTreeSet<(IpAddr, u16)> = BTreeSet::new();
    for (address, port) in listens {
        match address.is_unspecified() {
            true => doors.extend(
                here.iter().filter(|own| own.is_ipv4() || address.is_ipv6()).map(|own| (*own, *port)),
            ),
            false => drop(doors.insert((*address, *port))),
        }
    }
    doors
}

/// Those of them under which it lets in who says no password; and those where it does not tell.
fn open_at(host: &Host, server: &Server, here: &[IpAddr]) -> (Vec<IpAddr>, Vec<IpAddr>) {
    // All at once: a filter lets each of them wait.
    let knocks: Vec<(IpAddr, Knock)> = std::thread::scope(|scope| {
        let knock =
            |(ip, port): (IpAddr, u16)| scope.spawn(move || (ip, host.knock((ip, port).into(), DOOR)));
        let knocks: Vec<_> = doors(&server.listens, here).into_iter().map(knock).collect();
        knocks.into_iter().filter_map(|knock| knock.join().ok()).collect()
    });
    let which = |told: Knock| knocks.iter().filter(move |(_, other)| *other == told).map(|(ip, _)| *ip);
    let (mut open, unclear): (Vec<IpAddr>, Vec<IpAddr>) =
        (which(Knock::LetIn).collect(), which(Knock::Unclear).collect());
    // We are in, and said none.
    let at = server.address.as_ref().filter(|at| at.tls.is_none());
    if let (Some(at), Some(_), None) = (at, &server.told, &server.password) {
        open.extend(unclear);
        open.extend(at.host.parse::<IpAddr>().ok());
        open.sort();
        open.dedup();
        return (open, Vec::new());
    }
    (open, unclear)
}

/// What /proc tells of a process that confines it.
fn guarded(host: &Host, pid: u32) -> Result<Option<Guarded>> {
    let Some(process) = facts::about(host, pid) else { return Ok(None) };
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let status = host.text(&proc.join("status"))?.unwrap_or_default();
    let limits = host.text(&proc.join("limits")).ok().flatten().unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let exe = host.link(&proc.join("exe"));
    Ok(Some(Guarded {
        pid,
        uid: process.uid,
        unit: process.unit,
        replaced: exe.is_some_and(|exe| exe.to_string_lossy().ends_with(" (deleted)")),
        no_new_privileges: field("NoNewPrivs:") == Some("1"),
        filtered: field("Seccomp:") == Some("2"),
        capabilities: field("CapBnd:")
            .and_then(|bits| u64::from_str_radix(bits, 16).ok())
            .unwrap_or(u64::MAX),
        files: limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_this_machine_are_not_from_elsewhere() {
        let here: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        let list = "id=1 addr=127.0.0.1:5 x\nid=2 addr=10.0.0.1:6 x\nid=3 addr=10.0.0.9:7 x\nid=4 addr=[::1]:8\nid=5 addr=[fd00::2]:8 laddr=x\nid=6 addr=/run/s:0\n";
        let clients = clients_of(list, 1, &here);
        assert_eq!(clients.len(), 5);
        let from: Vec<IpAddr> = clients.into_iter().filter_map(|client| client.elsewhere).collect();
        assert_eq!(from, ["10.0.0.9".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
    }
}
