//! What the machine tells of an instance: where it listens, whose its files are, who keeps it running.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Look, Place, Proof};
use crate::engine::Version;
use crate::facts;
use crate::finding::Finding;
use crate::host::Kind;
use crate::instance::Instance;
use crate::layout;
use crate::plan;
use crate::runtime::container::Port;
use crate::runtime::systemd::{typed, unit_word};
use crate::runtime::{Program, Runtime};
use crate::secrets;
use crate::topology::BindAddress;
use crate::users;

/// The process that answers under an instance's address.
fn pid(proof: &mut Proof<'_>, instance: &Instance) -> Result<u32, Finding> {
    let place = Place::of(instance);
    let info = proof.servers.info(&place, "server")?;
    let pid = info.get("process_id").and_then(|pid| pid.parse().ok());
    pid.ok_or_else(|| Finding::unknown("INFO tells no process_id", "redis-tp status"))
}

pub fn did_listen(_: &Proof<'_>, instance: &Instance) -> String {
    match instance.runtime {
        Runtime::Container(program) => format!("asked {program} what it publishes of {}", instance.name),
        _ => format!("looked up every address on which the process of {} listens", instance.name),
    }
}

/// It listens where the topology says, and nowhere else.
pub fn listen(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    if instance.runtime.is_container() {
        return published(proof, instance);
    }
    let version = version(proof, instance)?;
    let pid = pid(proof, instance)?;
    let sockets = facts::listening_of(proof.host, pid)
        .map_err(|error| Finding::unknown(format!("{error:#}"), "redis-tp verify"))?;
    let there: BTreeSet<SocketAddr> = sockets.into_iter().map(SocketAddr::from).collect();
    if there.is_empty() {
        return Err(Finding::unknown(
            format!("no look into process {pid}: it is another user's"),
            format!("ps -fp {pid}"),
        ));
    }
    let wanted = wanted_sockets(instance, version);
    let excused = |at: &SocketAddr| !proof.host.can_bind(at.ip());
    let missing = wanted
        .iter()
        .filter(|(at, optional)| !optional && !there.contains(at))
        // Before 6.2 there was no `-`: an address that the machine lacks was passed over.
        .filter(|(at, _)| version >= Version::new(6, 2) || !excused(at));
    let missing: Vec<String> = missing.map(|(at, _)| at.to_string()).collect();
    let extra = there.iter().filter(|at| !wanted.iter().any(|(other, _)| other == *at));
    let extra: Vec<String> = extra.map(ToString::to_string).collect();
    let all: Vec<String> = there.iter().map(ToString::to_string).collect();
    if missing.is_empty() && extra.is_empty() {
        return Ok(Finding::pass(all.join(", ")));
    }
    let tell = |what: &str, list: &[String]| match list {
        [] => None,
        list => Some(format!("{what} {}", list.join(", "))),
    };
    let found = [tell("also on", &extra), tell("not on", &missing)].into_iter().flatten();
    Ok(Finding::fail(
        found.collect::<Vec<_>>().join("; "),
        "its addresses were changed in its file, or while it ran",
        format!("redis-tp apply && redis-tp service restart {}", instance.name),
    ))
}

/// What is published of a container is what the topology says, and nothing else.
fn published(proof: &Proof<'_>, instance: &Instance) -> Look {
    let facts = proof.subject.facts;
    let Some(seen) = facts.containers.containers.get(&instance.container()) else {
        return Err(Finding::unknown("there is no container to look at", "redis-tp status"));
    };
    let wanted = plan::containers::published(instance.bind.as_deref(), instance.port);
    let shown = |ports: &mut dyn Iterator<Item = &Port>| -> Vec<String> {
        ports.map(|at| SocketAddr::new(at.host, at.port).to_string()).collect()
    };
    let extra = shown(&mut seen.ports.iter().filter(|port| !wanted.contains(port)));
    let missing = shown(&mut wanted.iter().filter(|port| !seen.ports.contains(port)));
    if extra.is_empty() && missing.is_empty() {
        let all = shown(&mut seen.ports.iter());
        return Ok(Finding::pass(format!("published on {}", all.join(", "))));
    }
    let mut found = Vec::new();
    if !extra.is_empty() {
        found.push(format!("also on {}", extra.join(", ")));
    }
    if !missing.is_empty() {
        found.push(format!("not on {}", missing.join(", ")));
    }
    Ok(Finding::fail(
        found.join("; "),
        "the container was made anew by another hand, or is off its network",
        "redis-tp apply",
    ))
}

fn version(proof: &mut Proof<'_>, instance: &Instance) -> Result<Version, Finding> {
    if let Some(server) = &proof.subject.facts.server {
        return Ok(server.version);
    }
    let info = proof.servers.info(&Place::of(instance), "server")?;
    let version = info.get("redis_version").and_then(|text| Version::parse(text));
    version.ok_or_else(|| Finding::unknown("INFO tells no redis_version", "redis-tp status"))
}

/// Every address that the topology asks for, and whether it may be absent.
fn wanted_sockets(instance: &Instance, version: Version) -> Vec<(SocketAddr, bool)> {
    let word = |name: &str| {
        let named = instance.directives.iter().rev().find(|named| named.name == name)?;
        named.args.first().cloned()
    };
    let number = |name: &str| word(name)?.parse::<u16>().ok().filter(|port| *port > 0);
    let mut ports = vec![instance.port];
    ports.extend(number("tls-port"));
    if word("cluster-enabled").as_deref() == Some("yes") {
        ports.push(number("cluster-port").unwrap_or(instance.port.saturating_add(10_000)));
    }
    let binds = instance.binds(version);
    let sockets = binds.iter().flat_map(|bind| {
        let ip = match bind.address {
            BindAddress::Ip(ip) => ip,
            BindAddress::AnyV4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            BindAddress::AnyV6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        ports.iter().map(move |port| (SocketAddr::new(ip, *port), bind.optional))
    });
    sockets.collect()
}

pub fn did_owner(_: &Proof<'_>, instance: &Instance) -> String {
    format!("looked at owner and mode of the files of {} and of its passwords", instance.name)
}

/// Its files are its user's, its passwords root's, and others can read none of them.
pub fn owner(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let user = instance.engine.user();
    let Some(server) = proof.subject.facts.user else {
        return Err(Finding::unknown(format!("there is no user '{user}'"), "redis-tp install"));
    };
    let mut ours = vec![(instance.conf.clone(), server, true)];
    ours.extend(instance.store.path().map(|dir| (dir.to_path_buf(), server, true)));
    ours.extend(instance.logfile.clone().map(|log| (log, server, false)));
    if instance.runtime.is_container() {
        ours.extend(instance.conf.parent().map(|dir| (dir.to_path_buf(), server, true)));
    }
    ours.extend([
        (secrets::password_file(), layout::here().own(), false),
        (secrets::upstream_file(&instance.name), layout::here().own(), false),
        (secrets::user_file(users::REPLICA), layout::here().own(), false),
        (secrets::user_file(users::APP), layout::here().own(), false),
    ]);
    let (mut found, mut cures, mut seen) = (Vec::new(), Vec::new(), 0);
    for (path, owner, required) in ours {
        let shown = path.display();
        let stat = proof
            .host
            .stat(&path)
            .map_err(|error| Finding::unknown(format!("{error:#}"), "redis-tp verify"))?;
        let Some(stat) = stat else {
            if required {
                found.push(format!("{shown} is not there"));
                cures.push("redis-tp apply".to_owned());
            }
            continue;
        };
        seen += 1;
        // What was set up by hand was judged when it was taken over: a careful hand has other modes.
        let by_hand = instance.plain.is_some() && !path.starts_with(secrets::dir());
        if stat.uid != owner.uid && !(by_hand && path == instance.conf) {
            found.push(format!("{shown} is {}'s", proof.host.user_name(stat.uid)));
            cures.push(format!("chown {} {shown}", proof.host.user_name(owner.uid)));
        }
        // A password is root's alone; the log's group, adm, may read.
        let (closed, cure) = if path.starts_with(secrets::dir()) { (0o077, "go=") } else { (0o007, "o=") };
        // What is mounted into a container lies in a closed directory, which is looked at itself.
        let inside = instance.runtime.is_container() && path == instance.conf;
        let judged = !inside && (!by_hand || path == instance.conf);
        if stat.mode & closed != 0 && stat.kind != Kind::Link && judged {
            found.push(format!("{shown} has mode {:04o}", stat.mode));
            cures.push(format!("chmod {cure} {shown}"));
        }
    }
    cures.dedup();
    Ok(match found.is_empty() {
        true => Finding::pass(format!("{seen} paths, closed to others")),
        false => Finding::fail(
            found.join("; "),
            "somebody changed it, or the server made it anew (CONFIG REWRITE does)",
            cures.join(" && "),
        ),
    })
}

pub fn did_service(_: &Proof<'_>, instance: &Instance) -> String {
    match instance.runtime {
        Runtime::Systemd => format!("looked at {} and its process", unit_word(&instance.unit)),
        Runtime::Process => format!("looked at the process in {}", instance.pidfile.display()),
        Runtime::Container(program) => format!("asked {program} for {}", instance.container()),
    }
}

/// What answers is what systemd, or the pid file, keeps; as the server's user.
pub fn service(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let kept = match instance.runtime {
        Runtime::Container(program) => return container(proof, program, instance),
        Runtime::Systemd => unit(proof, instance)?,
        Runtime::Process => {
            let pid = proof.subject.facts.pids.get(&instance.name).copied();
            pid.ok_or_else(|| {
                Finding::fail(
                    format!("{} names no server that runs", instance.pidfile.display()),
                    "it was not started by redis-tp, or does not run",
                    format!("redis-tp service start {}", instance.name),
                )
            })?
        }
    };
    let answers = pid(proof, instance)?;
    let restart = format!("redis-tp service restart {}", instance.name);
    if answers != kept {
        return Ok(Finding::fail(
            format!("process {answers} answers on {}, and {kept} is the service", instance.address()),
            "another server took its port",
            format!("ps -fp {answers}"),
        ));
    }
    let Some(process) = facts::about(proof.host, answers) else {
        return Err(Finding::unknown(format!("process {answers} is gone"), "redis-tp verify"));
    };
    let runs_as = proof.host.user_name(process.uid);
    let wanted = proof.subject.facts.user;
    if process.uid == 0 || wanted.is_some_and(|wanted| wanted.uid != process.uid) {
        return Ok(Finding::fail(
            format!(
                "process {answers} runs as {runs_as}, and not as {}",
                layout::here().account(instance.engine.user())
            ),
            "it was started by hand",
            restart,
        ));
    }
    let state = match instance.runtime {
        Runtime::Systemd => "active, enabled, ",
        Runtime::Process | Runtime::Container(_) => "",
    };
    Ok(Finding::pass(format!("{state}process {answers} of {runs_as}")))
}

/// A container that runs, starts by itself, and runs as the user that it is to run as.
fn container(proof: &Proof<'_>, program: Program, instance: &Instance) -> Look {
    let facts = proof.subject.facts;
    let (name, of) = (instance.container(), &instance.name);
    let Some(seen) = facts.containers.containers.get(&name) else {
        return Ok(Finding::fail(
            format!("there is no container {name}"),
            "somebody removed it",
            "redis-tp apply",
        ));
    };
    if !seen.is_up() {
        let start = format!("redis-tp service start {of}");
        return Ok(Finding::fail(
            format!("{name} {}", seen.word()),
            "it was stopped, or could not start",
            start,
        ));
    }
    if !seen.boot {
        let enable = format!("redis-tp service enable {of}");
        return Ok(Finding::fail("no restart policy", "it would not start with the machine", enable));
    }
    let uid = facts::about(proof.host, seen.pid).map(|process| process.uid);
    if let (Some(uid), Some(wanted)) = (uid, facts.user.filter(|_| proof.host.euid() == 0))
        && uid != wanted.uid
    {
        return Ok(Finding::fail(
            format!("its process runs as uid {uid}, and not as {}", wanted.uid),
            "the container was made by another hand",
            format!("{program} rm -f {name} && redis-tp apply"),
        ));
    }
    let user = uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
    Ok(Finding::pass(format!("{program} container {name}{user}")))
}

/// The main process of a unit that is as it should be.
fn unit(proof: &Proof<'_>, instance: &Instance) -> Result<u32, Finding> {
    let word = unit_word(&instance.unit);
    let name = &instance.name;
    let Some(unit) = proof.subject.facts.unit(&instance.unit) else {
        return Err(Finding::unknown(
            format!("systemd tells nothing of {word}"),
            format!("{} status {word}", typed("systemctl")),
        ));
    };
    match (unit.load.as_str(), unit.active.as_str(), unit.enabled) {
        ("loaded", "active", true) => Ok(unit.pid),
        ("loaded", "active", false) => Err(Finding::fail(
            "active, not enabled",
            "it would not start with the machine",
            format!("redis-tp service enable {name}"),
        )),
        ("loaded", active, _) => Err(Finding::fail(
            active,
            "it was stopped, or could not start",
            format!("redis-tp service start {name}"),
        )),
        (load, ..) => Err(Finding::fail(load, format!("systemd has no {word} to start"), "redis-tp apply")),
    }
}
