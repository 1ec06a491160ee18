//! From what somebody set up by hand to a topology that says the same: pure. What cannot be taken over is
//! refused with its cure, and what has to be repaired is told with its reason.

mod drift;

pub use drift::Drift;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::conf::{Conf, quote};
use crate::directives::{self, Knowledge};
use crate::engine::{Engine, Version};
use crate::exit::Fault;
use crate::facts::Role;
use crate::facts::found::{Found, Site, Stray};
use crate::secret::Secret;
use crate::topology::{Document, EMPTY, Name, Topology};

/// Something that has to be repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// The instance.
    pub instance: Name,
    /// What is done.
    pub what: String,
    /// Why.
    pub why: String,
}

/// A topology of what was found, and what else there is to know.
#[derive(Debug)]
pub struct Taken {
    /// The topology.
    pub document: Document,
    /// The password that all instances have, if they do.
    pub password: Option<Secret>,
    /// The passwords of masters elsewhere.
    pub upstream: Vec<(Name, Secret)>,
    /// The instances that are taken over.
    pub names: Vec<Name>,
    /// What their configurations have to lose or to gain.
    pub repairs: Vec<Repair>,
}

/// Makes a topology. `standing` is the one that there is, `only` the instances that were asked for.
///
/// # Errors
/// What cannot be taken over: a [`Fault`] with what was found, and what to do.
pub fn topology(
    found: &Found,
    standing: Option<(&str, &Topology)>,
    only: &[Name],
    given: Option<&Secret>,
) -> Result<Taken, Fault> {
    let known =
        |name: &Name| standing.is_some_and(|(_, topology)| topology.instance(name.as_str()).is_some());
    let asked = |name: &Name| only.is_empty() || only.contains(name);
    let sites: Vec<&Site> =
        found.sites.iter().filter(|site| asked(&site.name) && !known(&site.name)).collect();
    if let Some(missing) = only.iter().find(|name| !found.sites.iter().any(|site| site.name == **name)) {
        let file = found.engine.conf(missing.as_str());
        return Err(Fault::refused(format!("there is no {} to take {missing} over from", file.display()))
            .hint("see what there is:\nredis-tp adopt --dry-run"));
    }
    // First the files: one without a TCP port has a server that would pass for a stray.
    for site in &sites {
        adoptable(found, site)?;
    }
    if only.is_empty() {
        found.strays.iter().try_for_each(|stray| refuse_stray(found, stray))?;
    }
    one_port_each(&sites)?;
    let mut taken = Taken {
        document: Document::new(standing.map_or(EMPTY, |(text, _)| text)),
        password: given.cloned(),
        upstream: Vec::new(),
        names: sites.iter().map(|site| site.name.clone()).collect(),
        repairs: Vec::new(),
    };
    if sites.is_empty() {
        return Ok(taken);
    }
    let shared = shared_password(&sites, standing.is_some(), given);
    if standing.is_none() {
        taken.password = shared.clone();
        if found.engine != Engine::Redis {
            taken.document.set("redis-tp", "engine", found.engine.name());
        }
        if shared.is_none() {
            taken.document.set("redis-tp", "password", "none");
        }
    }
    for site in &sites {
        section(found, site, shared.as_ref(), &mut taken)?;
    }
    Ok(taken)
}

// ---- what cannot be taken over --------------------------------------------------------------

fn adoptable(found: &Found, site: &Site) -> Result<(), Fault> {
    let file = site.file.display();
    let conf = Conf::parse(site.text.expose()).map_err(|bad| {
        Fault::refused(format!("{file}:{}: the quotes do not pair", bad.line)).hint("correct the line")
    })?;
    if let Some(more) = conf.word("include") {
        // What stands there would count as missing here.
        return Err(Fault::refused(format!("{file} includes {more}, which redis-tp does not read")).hint(format!(
            "move its lines into the file:\nsed -i '/^include/d' {file} && cat {more} >> {file}\nredis-tp adopt"
        )));
    }
    if conf.is_on("cluster-enabled") {
        return Err(Fault::refused(format!("{file} has cluster-enabled yes: a cluster is not redis-tp's"))
            .hint("leave it as it is, and name those that are to be taken over:\nredis-tp adopt NAME"));
    }
    if site.address().tls.is_some() {
        return Err(Fault::refused(format!(
            "{file} has TLS on its only port, and what is taken over speaks plainly"
        ))
        .hint("leave it as it is, and name those that are to be taken over:\nredis-tp adopt NAME"));
    }
    if site.port() == 0 {
        return Err(Fault::refused(format!("{file} has port 0: its server listens on no TCP port")).hint(
            "give it a port in that file, or name those that are to be taken over:\nredis-tp adopt NAME",
        ));
    }
    let Some(server) = &site.server else { return Ok(()) };
    let pid = server.process.pid;
    let Some(started) = &server.file else {
        let users = conf.get("aclfile").is_some() || conf.get("user").is_some();
        if users {
            return Err(Fault::refused(format!(
                "the server on port {} (pid {pid}) does not let the user default in, as which redis-tp speaks to it",
                site.port()
            ))
            .hint("let it in with a password, then take it over with that:\nredis-tp adopt --password-file FILE"));
        }
        return Err(Fault::refused(format!(
            "the server on port {} (pid {pid}) does not take the password of {file}",
            site.port()
        ))
        .hint("give the one that it takes:\nredis-tp adopt --password-file FILE"));
    };
    if *started != site.file {
        return Err(Fault::refused(format!(
            "the server on port {} (pid {pid}) runs by {}, not by {file}",
            site.port(),
            started.display()
        ))
        .hint(format!("keep the right one of the two as {file}, and let the server start from it")));
    }
    let own = found.engine.unit(site.name.as_str());
    if let Some(unit) = server.kept_by.as_ref().filter(|unit| **unit != own) {
        return Err(Fault::refused(format!("{} is kept running by {unit}, not by {own}", site.name))
            .hint(format!("let go of it first:\nsystemctl disable --now {unit}\nredis-tp adopt")));
    }
    Ok(())
}

fn refuse_stray(found: &Found, stray: &Stray) -> Result<(), Fault> {
    let Stray { process, ports, contained, file } = stray;
    // Theirs to keep, and not in our way.
    if *contained || !(process.uid == 0 || process.unit.is_some() || file.is_some()) {
        return match found.sites.is_empty() {
            true => Err(Fault::refused(format!(
                "{} (pid {}) runs {}",
                found.engine.server(),
                process.pid,
                if *contained { "in a container" } else { "for another user" }
            ))
            .hint("redis-tp takes over what runs by a file in /etc/redis; for one of its own:\nredis-tp install --port 6390")),
            false => Ok(()),
        };
    }
    let at: BTreeSet<String> = ports.iter().map(ToString::to_string).collect();
    let at = at.into_iter().collect::<Vec<_>>().join(", ");
    let where_it_is = if at.is_empty() { "no TCP port".to_owned() } else { format!("port {at}") };
    let by =
        file.as_ref().map_or_else(|| "no configuration file".to_owned(), |file| file.display().to_string());
    let to = found.engine.conf(match ports.first() {
        Some(6379) => crate::engine::MASTER,
        _ => "NAME",
    });
    let first = format!("a {} on {where_it_is} (pid {}) runs by {by}", found.engine.server(), process.pid);
    Err(Fault::refused(format!("{first}, and not by a file that one of Debian's units would read")).hint(
        match file {
            Some(file) => format!(
                "let it run by one, or name those that are to be taken over (redis-tp adopt NAME):\nmv {} {}",
                file.display(),
                to.display()
            ),
            None => format!(
                "write one, {}, or name those that are to be taken over:\nredis-tp adopt NAME",
                to.display()
            ),
        },
    ))
}

fn one_port_each(sites: &[&Site]) -> Result<(), Fault> {
    for (at, site) in sites.iter().enumerate() {
        if let Some(other) = sites.iter().take(at).find(|other| other.port() == site.port()) {
            let file = site.file.display();
            return Err(Fault::refused(format!(
                "{} and {file} both have port {}",
                other.file.display(),
                site.port()
            ))
            .hint(format!(
                "give one of them another port, or move it away, or name the other:\nmv {file} {file}.aside\nredis-tp adopt {}",
                other.name
            )));
        }
    }
    Ok(())
}

// ---- passwords ------------------------------------------------------------------------------

/// The password of all of them, if they have one and there is no topology with another.
fn shared_password(sites: &[&Site], standing: bool, given: Option<&Secret>) -> Option<Secret> {
    let all: Vec<Option<Secret>> = sites.iter().map(|site| password(site, given)).collect();
    let same = all.windows(2).all(|pair| matches!(pair, [one, other] if one == other));
    all.into_iter().next().flatten().filter(|_| same && !standing)
}

/// What an instance wants to hear: what its server took, or its file says.
fn password(site: &Site, given: Option<&Secret>) -> Option<Secret> {
    let conf = Conf::parse(site.text.expose()).unwrap_or_default();
    let of_file = conf.password("requirepass");
    let taken = site.server.as_ref().filter(|server| server.file.is_some());
    taken.map_or_else(|| of_file.or_else(|| given.cloned()), |server| server.password.clone())
}

// ---- a section ------------------------------------------------------------------------------

fn section(found: &Found, site: &Site, shared: Option<&Secret>, taken: &mut Taken) -> Result<(), Fault> {
    let conf = Conf::parse(site.text.expose()).unwrap_or_default();
    let name = site.name.as_str();
    let mut lines = Lines::default();
    for directive in &conf.directives {
        let canonical = directives::canonical(&directive.name);
        if let Some(why) = unknown(found, canonical) {
            taken.repairs.push(Repair {
                instance: site.name.clone(),
                what: format!(
                    "line {} of {}: {} is taken out",
                    directive.line,
                    site.file.display(),
                    directive.name
                ),
                why,
            });
            continue;
        }
        match canonical {
            "replicaof" | "requirepass" | "masterauth" => {}
            "dir" => {}
            _ => lines.add(canonical, value(&directive.args)),
        }
    }
    if conf.get("port").is_none() {
        lines.first("port", "6379");
    }
    if !found.systemd && !conf.is_on("daemonize") {
        lines.add("daemonize", "yes".into());
        taken.repairs.push(Repair {
            instance: site.name.clone(),
            what: format!("{} gets daemonize yes", site.file.display()),
            why: "where no systemd keeps it, a server goes into the background by itself".into(),
        });
    }
    let dir = data(found, site, &conf, taken)?;
    lines.add("dir", dir.display().to_string());
    let follows = follows(found, site, &conf);
    if let Some((_, value)) = &follows {
        lines.add("replicaof", value.clone());
    }
    let own = password(site, taken.password.as_ref());
    if own.as_ref() != shared {
        lines.add("requirepass", own.as_ref().map_or_else(|| "\"\"".into(), |own| word(own.expose())));
    }
    let masterauth = conf.password("masterauth");
    let mut defaults = "off";
    match (&follows, masterauth) {
        (None, Some(auth)) if Some(&auth) == own.as_ref() => defaults = "masterauth",
        (Some((Follows::Elsewhere, _)), Some(auth)) => taken.upstream.push((site.name.clone(), auth)),
        (Some((Follows::Instance(of), _)), Some(auth)) => {
            let master = found.sites.iter().find(|site| site.name == *of);
            if master.and_then(|site| password(site, taken.password.as_ref())).as_ref() != Some(&auth) {
                lines.add("masterauth", word(auth.expose()));
            }
        }
        (None, Some(auth)) => lines.add("masterauth", word(auth.expose())),
        (_, None) => {}
    }
    taken.document.set(name, "defaults", &format!("{defaults}       ; taken over: only what is named here"));
    for (key, values) in lines.all {
        taken.document.set_all(name, &key, &values);
    }
    Ok(())
}

/// Keys with their values, in the order in which they first stood.
#[derive(Default)]
struct Lines {
    all: Vec<(String, Vec<String>)>,
}

impl Lines {
    fn add(&mut self, name: &str, value: String) {
        match self.all.iter_mut().find(|(key, _)| key == name) {
            Some((_, values)) if directives::repeats(name) => values.push(value),
            // The last one counts.
            Some((_, values)) => *values = vec![value],
            None => self.all.push((name.to_owned(), vec![value])),
        }
    }

    fn first(&mut self, name: &str, value: &str) {
        self.all.insert(0, (name.to_owned(), vec![value.to_owned()]));
    }
}

/// Why a directive cannot stay; none if it can.
fn unknown(found: &Found, name: &str) -> Option<String> {
    let version = found.version.unwrap_or(Version { major: u32::MAX, minor: 0, patch: 0 });
    match directives::knowledge(name, found.engine, version) {
        Knowledge::Known => None,
        Knowledge::OtherVersion(why) => Some(format!("{why}, and with it the server does not start")),
        Knowledge::Unknown(near) => {
            let meant = match (name, near) {
                ("replica-announce-pass", _) => {
                    "; masterauth is what a replica says to its master".to_owned()
                }
                (_, Some(near)) => format!("; did you mean {near}?"),
                (_, None) => String::new(),
            };
            Some(format!("no {} knows it, and with it the server does not start{meant}", found.engine))
        }
    }
}

/// Where the data is to be. A file that names no directory means the one that its server was started in.
fn data(found: &Found, site: &Site, conf: &Conf, taken: &mut Taken) -> Result<PathBuf, Fault> {
    let named = conf.word("dir").map(PathBuf::from);
    let server = site.server.as_ref();
    let now = server.and_then(|server| server.dir.clone());
    let copy = server.is_none_or(|server| matches!(server.role, Role::Replica { .. }));
    if let Some(dir) = named.as_ref().filter(|dir| dir.is_absolute()) {
        return match now.filter(|now| now != dir && !copy) {
            Some(now) => Err(saves_elsewhere(site, dir, &now)),
            None => Ok(dir.clone()),
        };
    }
    let default = found.engine.data(site.name.as_str());
    let fits = |dir: &&PathBuf| dir.starts_with("/var/lib") && dir.as_path() != Path::new("/var/lib");
    let dir = match now.as_ref() {
        Some(dir) if fits(&dir) => dir.clone(),
        Some(dir) if !copy => {
            let (name, to) = (&site.name, default.display());
            return Err(Fault::refused(format!(
                "{name} has its data in {}, where it happened to be started",
                dir.display()
            ))
            .hint(format!(
                "give it a place: save, copy, and name it as dir in {}:\nredis-cli -p {} SAVE\ninstall -d -o {2} -g {2} -m 0750 {to}\ncp -a {3}/dump.rdb {to}/",
                site.file.display(),
                site.port(),
                found.engine.user(),
                dir.display()
            )));
        }
        _ => default,
    };
    taken.repairs.push(Repair {
        instance: site.name.clone(),
        what: format!("{} gets dir {}", site.file.display(), dir.display()),
        why: "without one, data is wherever the server happens to be started".into(),
    });
    Ok(dir)
}

/// What a server was told saves its data where the next one does not look for them.
fn saves_elsewhere(site: &Site, dir: &Path, now: &Path) -> Fault {
    let (name, file) = (&site.name, site.file.display());
    Fault::refused(format!(
        "{name} has its data in {}, and {file} says {}: it would start without them",
        now.display(),
        dir.display()
    ))
    // Since 7.0 the directory is not changed live unless the file allows it, and never goes with an append only file.
    .hint(format!("let {file} say where they are: dir {}", now.display()))
}

enum Follows {
    Instance(Name),
    Elsewhere,
}

/// Whom an instance follows: what it does now, or what its file says.
fn follows(found: &Found, site: &Site, conf: &Conf) -> Option<(Follows, String)> {
    let (host, port) = match site.server.as_ref().map(|server| &server.role) {
        Some(Role::Master) => return None,
        Some(Role::Replica { host, port, .. }) => (host.clone(), *port),
        Some(Role::Unknown) | None => match conf.get("replicaof") {
            Some([host, port]) => (host.clone(), port.parse().ok()?),
            _ => return None,
        },
    };
    let master = found.sites.iter().find(|other| other.address().host == host && other.port() == port);
    Some(match master.filter(|master| master.name != site.name) {
        Some(master) => (Follows::Instance(master.name.clone()), master.name.to_string()),
        None => (Follows::Elsewhere, format!("{host} {port}")),
    })
}

/// The words of a directive as a topology has them: there, ` ;` begins a comment.
fn value(args: &[String]) -> String {
    args.iter().map(|arg| word(arg)).collect::<Vec<_>>().join(" ")
}

fn word(arg: &str) -> String {
    match arg.contains(';') {
        true => {
            let quoted = quote(&format!(" {arg}"));
            format!("\"{}", quoted.strip_prefix("\" ").unwrap_or(&quoted)).replace(';', "\\x3b")
        }
        false => quote(arg),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_comes_back_from_a_topology_as_it_was() {
        for arg in ["plain", "a;b", ";", "a ;b", "", "a \"b\" \\", "#x", "ü"] {
            let text = format!("[a]\nport = 1\nrequirepass = {}\n", word(arg));
            let topology = Topology::parse(&text, Path::new("t.ini")).unwrap();
            assert_eq!(topology.instances[0].directives[0].args, [arg], "{text}");
        }
    }
}
