//! What cannot be: found out before anything is changed, and said with its cure (exit code 5).

use std::net::IpAddr;
use std::path::Path;

use super::{Wanted, adopt, containers, handed, may_be_directory, under_another_runtime};
use crate::conf::{self, Conf};
use crate::directives::{self, Knowledge};
use crate::engine::{Engine, Version};
use crate::exit::Fault;
use crate::facts::{Facts, Listener, Role, Upstream};
use crate::host::{Kind, Stat};
use crate::instance::{Instance, Target, refuse_open_doors};
use crate::layout;
use crate::runtime::{Runtime, container, process, systemd};
use crate::state::{Kept, State};
use crate::topology::{self, BindAddress, Name, Topology, did_you_mean};
use crate::users;

/// Knows all that any version knows.
const LATEST: Version = Version { major: u32::MAX, minor: 0, patch: 0 };

/// The first thing that stands in the way.
///
/// # Errors
/// A [`Fault`] that says what it is and how to get it out of the way.
pub fn impossible(wanted: &Wanted<'_>, facts: &Facts) -> Result<(), Fault> {
    refuse_open_doors(wanted.instances)?;
    engine(wanted, facts)?;
    linked_topology(wanted, facts)?;
    readable_secrets(wanted.topology, facts)?;
    data_of_another_name(wanted, facts)?;
    for instance in wanted.instances {
        known_directives(wanted, facts, instance)?;
        user_lines(wanted, facts, instance)?;
        nameless_link(wanted, instance)?;
        safe_password(facts, instance)?;
        handed::impossible(wanted, facts, instance)?;
        places(facts, instance)?;
        data_left_behind(wanted, facts, instance)?;
        addresses(wanted.topology, facts, instance)?;
        unit(facts, instance)?;
        low_port(facts, instance)?;
        if !(wanted.consent.adopt && adopt::misplaced(facts, instance).is_some()) {
            port(facts, instance)?;
        }
        let fresh = wanted.secrets.fresh.contains_key(&crate::secrets::upstream_file(&instance.name));
        master_elsewhere(facts, instance, fresh)?;
    }
    exchanged(facts)
}

fn engine(wanted: &Wanted<'_>, facts: &Facts) -> Result<(), Fault> {
    let engine = wanted.topology.engine;
    if wanted.instances.iter().any(|instance| instance.runtime.is_container()) {
        return Ok(());
    }
    if !facts.installed() && !facts.apt {
        return Err(Fault::refused(format!(
            "{} is not on this machine, and neither is apt to install it",
            engine.server()
        ))
        .hint(format!(
            "install {engine} by the means of your distribution, so that {} is on PATH, and run this again",
            engine.server()
        )));
    }
    let by_package = !facts.installed();
    if !by_package && facts.user.is_none() {
        let user = engine.user();
        return Err(Fault::refused(format!(
            "there is no user '{user}' for the server to run as, and it must not run as root"
        ))
        .hint(format!(
            "make it:\nuseradd --system --user-group --home-dir {} --shell /usr/sbin/nologin {user}",
            engine.data("master").display()
        )));
    }
    Ok(())
}

/// A topology that is a link: to write it would cut the link, and leave the file behind it as it was.
fn linked_topology(wanted: &Wanted<'_>, facts: &Facts) -> Result<(), Fault> {
    let file = topology::file();
    match facts.path(file).filter(|stat| stat.kind == Kind::Link && wanted.text.is_some()) {
        Some(_) => {
            Err(Fault::refused(format!("{} is a symbolic link, which a change would cut", file.display()))
                .hint("edit the file behind it, and then:\nredis-tp apply"))
        }
        None => Ok(()),
    }
}

/// A password in a topology that others can read.
pub fn readable_secrets(topology: &Topology, facts: &Facts) -> Result<(), Fault> {
    let file = &topology.file;
    let open = facts.path(file).is_some_and(|stat| stat.mode & 0o044 != 0);
    if open && topology.instances.iter().any(super::has_secret) {
        return Err(Fault::refused(format!("{} holds a password and can be read by others", file.display()))
            .hint(format!("close it:\nchmod 600 {}", file.display())));
    }
    Ok(())
}

/// CONFIG REWRITE of Redis 6.0 and of Valkey 8.1 writes these characters without an escape: the server
/// would not start again, or with another password.
fn safe_password(facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let Some(server) = &facts.server else { return Ok(()) };
    let careless = server.version < Version::new(6, 2) || instance.engine == Engine::Valkey;
    let odd = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '\'' | '\\');
    let passwords = [&instance.requirepass, &instance.masterauth];
    if careless && passwords.into_iter().flatten().any(|password| password.expose().contains(odd)) {
        return Err(Fault::refused(format!(
            "the password of {} has a blank, a quote, a backslash or no ASCII in it, which CONFIG REWRITE of {} {} would destroy",
            instance.name, instance.engine, server.version
        ))
        .hint("take a password of letters and digits:\nredis-tp install --password-file FILE"));
    }
    Ok(())
}

fn known_directives(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let file = wanted.topology.file.display();
    let mut seen: Vec<&str> = Vec::new();
    for named in &instance.directives {
        let at = format!("{file}:{}: [{}] {}", named.line, instance.name, named.name);
        let name = named.name.as_str();
        match (
            directives::knowledge(
                name,
                instance.engine,
                facts.server.as_ref().map_or(LATEST, |server| server.version),
            ),
            &facts.server,
        ) {
            (Knowledge::Unknown(near), _) => {
                return Err(Fault::refused(format!("{at}: no {} knows this directive", instance.engine))
                    .hint(cure_of_unknown(name, near)));
            }
            (Knowledge::OtherVersion(why), Some(server)) => {
                return Err(Fault::refused(format!(
                    "{at}: {} {} does not know it: {why}",
                    instance.engine, server.version
                ))
                .hint("remove the line"));
            }
            _ => {}
        }
        let setting = directives::canonical(name);
        if seen.contains(&setting) && !directives::repeats(name) {
            let alias = if setting == name { String::new() } else { format!(" (it is {setting})") };
            return Err(Fault::refused(format!(
                "{at}: stands twice{alias}, and the last would win in silence"
            ))
            .hint("keep one of them"));
        }
        seen.push(setting);
        let hash = |word: &str| name == "user" && users::is_hash(word);
        if named.args.iter().skip(1).any(|word| word.starts_with('#') && !hash(word)) {
            return Err(Fault::refused(format!("{at}: a '#' behind a value is no comment in redis.conf"))
                .hint("write the comment on a line of its own, or behind a ';'"));
        }
    }
    Ok(())
}

/// A `user` line with a rule that this version does not know, or that takes one of our users from us.
fn user_lines(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let file = wanted.topology.file.display();
    for named in instance.directives.iter().filter(|named| named.name == "user") {
        let Some((user, rules)) = named.args.split_first() else { continue };
        let at = format!("{file}:{}: [{}] user {user}", named.line, instance.name);
        // Where no server is here yet, what no version knows is found out before one is installed.
        let version = facts.server.as_ref().map(|server| server.version);
        if let Some((rule, why)) = users::unknown_rule(rules, instance.engine, version.unwrap_or(LATEST)) {
            let engine = instance.engine;
            let (who, cure) = match version {
                Some(version) => (
                    format!("{engine} {version} does not know"),
                    "; what there is tells:\nredis-tp cli -- ACL CAT",
                ),
                None => (format!("no {engine} knows"), ""),
            };
            return Err(Fault::refused(format!("{at}: {who} '{rule}': {why}"))
                .hint(format!("take the rule out of the line{cure}")));
        }
        if instance.users.is_some() && users::OURS.contains(&user.as_str()) {
            return Err(Fault::refused(format!(
                "{at}: redis-tp has this user itself, and a line of yours could lock it out"
            ))
            .hint("name the user otherwise, or say who may enter all by yourself:\n`users = plain` in [redis-tp]"));
        }
    }
    Ok(())
}

/// A replica that says its own `masterauth` and no user, to a master of ours that lets nobody in without one.
fn nameless_link(wanted: &Wanted<'_>, instance: &Instance) -> Result<(), Fault> {
    let name = instance.upstream.as_ref().and_then(|of| of.instance.as_ref());
    let master = wanted.instances.iter().find(|other| Some(&other.name) == name);
    let closed = master.and_then(|master| master.users.as_ref()).is_some_and(|users| !users.default);
    let named = instance.directives.iter().any(|named| directives::canonical(&named.name) == "masteruser");
    let (Some(master), true, true, false) = (master, closed, instance.masteruser.is_none(), named) else {
        return Ok(());
    };
    Err(Fault::refused(format!(
        "[{}] says masterauth and no masteruser, and [{}] lets nobody in from the network who names no user",
        instance.name, master.name
    ))
    .hint("take masterauth out of the section: redis-tp sets both. Or, for the administrator's password:\nmasteruser = admin"))
}

/// A lesson that goes round has a directive in it that no Redis ever had.
fn cure_of_unknown(name: &str, near: Option<&str>) -> String {
    match name {
        "replica-announce-pass" => {
            "remove the line: a replica says its master's password by masterauth, which redis-tp sets".into()
        }
        _ => did_you_mean(near, "keys are Redis's own directives; see redis.conf's documentation"),
    }
}

/// What must be left on a disk before anything is begun: our files take a few KiB, and there must be
/// room for the way back, too.
const ROOM: u64 = 1 << 20;

/// A disk that is full already: better found before the first step than in the middle.
///
/// # Errors
/// A [`Fault`] that names the place.
pub fn full_disks(facts: &Facts) -> Result<(), Fault> {
    let Some((path, room)) = facts.room.iter().find(|(_, room)| **room < ROOM) else { return Ok(()) };
    Err(Fault::refused(format!("no room on the disk of {}: {} KiB are left", path.display(), room / 1024))
        .hint(format!("make room, 1 MiB at least; see what there is:\ndf -h {}", path.display())))
}

/// The way to a directory: through directories that the server may enter.
pub(super) fn way_to(facts: &Facts, instance: &Instance, dir: &Path) -> Result<(), Fault> {
    let name = &instance.name;
    let unreachable = |why: String| Fault::refused(format!("{name} cannot reach {}: {why}", dir.display()));
    let hidden = facts.unit(&instance.unit).is_some_and(|unit| unit.hides_home);
    let home = ["/home", "/root", "/run/user"].into_iter().find(|home| dir.starts_with(home));
    if let Some(home) = home.filter(|_| hidden) {
        return Err(unreachable(format!("its unit has ProtectHome= and does not see {home}"))
            .hint(format!("give [{name}] another place in the topology, for example below /srv")));
    }
    for (above, stat) in dir.ancestors().skip(1).filter_map(|path| Some((path, facts.path(path)?))) {
        if matches!(stat.kind, Kind::File | Kind::Other) {
            return Err(Fault::refused(format!("{} is {}, not a directory", above.display(), kind(stat)))
                .hint(format!("move it away, or give {name} another dir in the topology")));
        }
        // A second group of the server's user may open it: not known here, so not refused.
        let open = stat.kind == Kind::Link
            || stat.mode & 0o001 != 0
            || (stat.mode & 0o010 != 0 && stat.gid != 0)
            || facts.user.is_none_or(|user| user.uid == stat.uid);
        if !open {
            return Err(unreachable(format!("{} is closed to the server's user", above.display())).hint(
                format!("give [{name}] another place, or open the way:\nchmod o+x {}", above.display()),
            ));
        }
    }
    Ok(())
}

/// What is no directory where one has to be, or no file, or another's.
pub fn places(facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    if instance.runtime.is_container() {
        return files(facts, instance);
    }
    let log = instance.log_dir().map(|path| (path, "logfile"));
    for (path, key) in [(instance.dir.as_path(), "dir")].into_iter().chain(log) {
        way_to(facts, instance, path)?;
        if let Some(stat) = facts.path(path).filter(|_| !may_be_directory(facts, path)) {
            return Err(Fault::refused(format!("{} is {}, not a directory", path.display(), kind(stat)))
                .hint(format!("move it away, or give [{}] another {key} in the topology", instance.name)));
        }
    }
    let dir = instance.dir.as_path();
    if let (Some(stat), Some(user)) = (facts.path(dir), facts.user) {
        let empty = !facts.occupied.contains(&instance.store) || instance.plain.is_some();
        let roots = stat.uid == layout::here().own().uid && empty;
        let strange = stat.uid != user.uid && !roots;
        if strange {
            return Err(Fault::refused(format!(
                "{} is not the server's: it belongs to uid {}",
                dir.display(),
                stat.uid
            ))
            .hint(format!(
                "give [{}] another dir, or hand this one over:\nchown -R {}: {}",
                instance.name,
                layout::here().account(instance.engine.user()),
                dir.display()
            )));
        }
    }
    way_to_configuration(facts, instance)?;
    own_places(facts, instance)?;
    files(facts, instance)
}

/// The directory of a configuration: a directory, and one that the server's user may enter.
fn way_to_configuration(facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let Some((dir, stat)) = instance.conf.parent().and_then(|dir| Some((dir, facts.path(dir)?))) else {
        return Ok(());
    };
    if matches!(stat.kind, Kind::File | Kind::Other) {
        return Err(Fault::refused(format!("{} is {}, not a directory", dir.display(), kind(stat)))
            .hint(format!("move it away:\nmv {0} {0}.aside", dir.display())));
    }
    let Some(user) = facts.user.filter(|_| stat.kind == Kind::Dir) else { return Ok(()) };
    // A second group of the server's user may open it: not known here, so not refused.
    let open = match stat.uid == user.uid {
        true => stat.mode & 0o100 != 0,
        false => stat.mode & 0o001 != 0 || (stat.mode & 0o010 != 0 && stat.gid != 0),
    };
    if open {
        return Ok(());
    }
    let account = layout::here().account(instance.engine.user());
    Err(Fault::refused(format!("{} is closed to the server's user, {account}", dir.display())).hint(format!(
        "give it the owner and mode that the package gives it:\nchown {account}: {0}\nchmod 2770 {0}",
        dir.display()
    )))
}

/// A place that is not ours to make something in: for root, one that nobody can write to.
fn own_places(facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let conf = [instance.conf.parent(), Some(instance.conf.as_path())];
    if let Some(path) = conf.into_iter().flatten().find(|path| facts.closed.contains(*path)) {
        return Err(locked(facts, path));
    }
    for path in [Some(instance.dir.as_path()), instance.log_dir()].into_iter().flatten() {
        let nearest = path.ancestors().find(|at| facts.path(at).is_some()).unwrap_or(path);
        if facts.closed.contains(nearest) && layout::here().login.is_none() {
            return Err(locked(facts, nearest));
        }
        if facts.closed.contains(nearest) {
            let (name, user) = (&instance.name, layout::here().account("root"));
            return Err(Fault::refused(format!("{} is not {user}'s to write to", nearest.display()))
                .hint(format!("give [{name}] another place in the topology than {}", path.display())));
        }
    }
    Ok(())
}

fn locked(facts: &Facts, path: &Path) -> Fault {
    if facts.path(path).is_some_and(|stat| stat.kind == Kind::Link) {
        return Fault::refused(format!("{} is a symbolic link that leads to no directory", path.display()))
            .hint(format!("move it away:\nmv {0} {0}.aside", path.display()));
    }
    Fault::refused(format!("nobody can write to {}, not even root", path.display())).hint(format!(
        "it is immutable, or its file system is mounted read-only; look, and undo that:\nlsattr -d {0}\nfindmnt -T {0}\nchattr -i {0}",
        path.display()
    ))
}

/// A port that is root's alone, where no root hands it over.
fn low_port(facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let port = instance.port;
    let handed = instance.runtime != Runtime::Process && layout::here().login.is_none();
    if handed || instance.runtime.is_container() || port >= facts.app.first_port {
        return Ok(());
    }
    let who = layout::here().account(instance.engine.user());
    let free = free_port(facts, facts.app.first_port.max(6369));
    Err(Fault::refused(format!("{who} may not listen on port {port}, which {} is to have", instance.name))
        .hint(format!("choose one from {} on:\n{}", facts.app.first_port, command(facts, instance, free))))
}

fn files(facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    for path in [Some(instance.conf.as_path()), instance.logfile.as_deref()].into_iter().flatten() {
        if let Some(stat) = facts.path(path).filter(|stat| stat.kind != Kind::File) {
            return Err(Fault::refused(format!("{} is {}, not a file", path.display(), kind(stat)))
                .hint(format!("move it away:\nmv {0} {0}.aside", path.display())));
        }
    }
    Ok(())
}

/// A master that moves to a directory where its data is not would start empty, and its replicas would
/// copy that.
fn data_left_behind(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let role = facts.running.get(&instance.name).map(|running| &running.role);
    let copy = instance.upstream.is_some() && role != Some(&Role::Master);
    let before = facts.state.instances.get(&instance.name).filter(|kept| kept.active).map(|kept| &kept.dir);
    let (Some(before), false) = (before.filter(|before| **before != instance.store), copy) else {
        return Ok(());
    };
    let (name, old, new) = (&instance.name, before, &instance.store);
    if facts.occupied.contains(new) {
        return Ok(());
    }
    if let Some(cure) = containers::take_along(wanted, facts, instance, before) {
        let keys = facts.running.get(name).map_or(0, |running| running.keys);
        // A server that holds nothing, and never saved, leaves nothing behind.
        return match facts.occupied.contains(before) || keys > 0 {
            true => {
                Err(Fault::refused(format!("{name} would start empty: its data is in {old}, not in {new}"))
                    .hint(cure))
            }
            false => Ok(()),
        };
    }
    let user = layout::here().account(instance.engine.user());
    Err(Fault::refused(format!("{name} would start empty: its data is in {old}, not in {new}")).hint(format!(
        "take it along, and run this again:\nredis-tp service stop {name}\ninstall -d -o {user} -g {user} -m 0750 {new}\ncp -a {old}/. {new}/"
    )))
}

/// A master under another name is another instance: it would start empty beside the data of the one that
/// goes, and its replicas would copy that.
fn data_of_another_name(wanted: &Wanted<'_>, facts: &Facts) -> Result<(), Fault> {
    let state = &facts.state.instances;
    let goes = |name: &Name| !wanted.instances.iter().any(|instance| instance.name == *name);
    let has_data = |kept: &Kept| kept.active && !kept.replica && facts.occupied.contains(&kept.dir);
    let gone = state.iter().find(|(name, kept)| goes(name) && wanted.purge != Some(*name) && has_data(kept));
    let begins = |instance: &&Instance| {
        instance.upstream.is_none()
            && !state.get(&instance.name).is_some_and(|kept| kept.active)
            && !facts.occupied.contains(&instance.store)
    };
    let (Some((old, kept)), Some(new)) = (gone, wanted.instances.iter().find(begins)) else {
        return Ok(());
    };
    let target = Target::of_record(old, kept, None);
    let stop = match kept.runtime {
        Runtime::Systemd => systemd::command("stop", &[&target]),
        Runtime::Process => process::stop_command(&target),
        Runtime::Container(program) => format!("{program} stop {}", target.container()),
    };
    let (user, from, to) = (layout::here().account(new.engine.user()), &kept.dir, &new.store);
    let name = &new.name;
    let copy = containers::take_along(wanted, facts, new, &kept.dir)
        .unwrap_or_else(|| format!("install -d -o {user} -g {user} -m 0750 {to}\ncp -a {from}/. {to}/"));
    Err(Fault::refused(format!(
        "{name} would start empty in {to}: [{old}], which the topology no longer names, has its data in {from}"
    ))
    .hint(format!(
        "take the data along (or give [{old}] its name back: to begin empty, drop it in a run of its own):\n{stop}\n{copy}\nredis-tp apply"
    )))
}

/// A topology that is gone while its instances run: to begin anew would retire them.
///
/// # Errors
/// A [`Fault`] with the way back.
pub fn topology_gone(state: &State) -> Result<(), Fault> {
    let active: Vec<&str> =
        state.instances.iter().filter(|(_, kept)| kept.active).map(|(name, _)| name.as_str()).collect();
    if active.is_empty() {
        return Ok(());
    }
    let (file, copy) = (topology::file().display(), State::written(topology::file()));
    Err(Fault::refused(format!(
        "{file} is gone, though redis-tp keeps {} running by it",
        active.join(" and ")
    ))
    .hint(match state.files.contains_key(topology::file()) {
        true => format!("put back the one that was applied last:\ncp {} {file}", copy.display()),
        false => "write it again, with all of them in it, and apply that:\nredis-tp apply -f FILE".into(),
    }))
}

/// A file of ours with somebody's hand in it, which an uninstall would take away. What the server writes
/// of its own accord is no hand, and roles are its own, too.
///
/// # Errors
/// A [`Fault`] that names the directive.
pub fn edited(facts: &Facts) -> Result<(), Fault> {
    for (path, written) in &facts.written {
        let conf = path.starts_with(container::dir()) && path.extension().is_some_and(|is| is == "conf");
        let ours = path.starts_with(crate::secrets::dir()) && !conf;
        let (Some(there), false) = (facts.text(path), ours) else {
            continue;
        };
        let written = written.expose();
        let what = if path.starts_with(&layout::here().units) {
            (!crate::unit::same(there, written)).then(|| "it".to_owned())
        } else {
            match (Conf::parse(written), Conf::parse(there)) {
                (Ok(written), Ok(there)) => conf::compare(&written, &there, &written)
                    .into_iter()
                    .find(|difference| difference.directive != "replicaof")
                    .map(|difference| format!("{} in it", difference.directive)),
                (_, Err(bad)) => Some(format!("line {} of it", bad.line)),
                (Err(_), Ok(_)) => None,
            }
        };
        if let Some(what) = what {
            return Err(Fault::refused(format!("{}: {what} was changed by hand, and would be lost", path.display()))
                .hint(format!(
                    "keep a copy, and take it away all the same:\ncp -a {0} {0}.aside\nredis-tp uninstall --overwrite",
                    path.display()
                )));
        }
    }
    Ok(())
}

/// Something else where a file of ours was: to take it away or to write there would fail half-way, when a server
/// that ended could not read it either.
pub fn exchanged(facts: &Facts) -> Result<(), Fault> {
    let other = |path: &Path| facts.path(path).filter(|stat| matches!(stat.kind, Kind::Dir | Kind::Other));
    match facts.state.files.keys().find_map(|path| Some((path, other(path)?))) {
        None => Ok(()),
        Some((path, stat)) => {
            Err(Fault::refused(format!("{} is {}, not a file", path.display(), kind(stat)))
                .hint(format!("move it away:\nmv {0} {0}.aside", path.display())))
        }
    }
}

pub(super) fn kind(stat: &Stat) -> &'static str {
    match stat.kind {
        Kind::File => "a file",
        Kind::Dir => "a directory",
        Kind::Link => "a symbolic link",
        Kind::Other => "a fifo, a socket or a device",
    }
}

/// An address to listen on that this machine does not have.
pub fn addresses(topology: &Topology, facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let old = facts.server.as_ref().is_some_and(|server| server.version < Version::new(6, 2));
    if let Some(bind) = instance.bind.iter().flatten().find(|bind| bind.optional && old) {
        return Err(Fault::refused(format!(
            "{}: [{}] bind {bind}: Redis knows the '-' from 6.2",
            place(topology, instance),
            instance.name
        ))
        .hint("write the address without it, or take it out of bind"));
    }
    for bind in instance.bind.iter().flatten().filter(|bind| !bind.optional) {
        let ip = match bind.address {
            BindAddress::Ip(ip) => ip,
            BindAddress::AnyV6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            BindAddress::AnyV4 => continue,
        };
        if facts.unbindable.contains(&ip) {
            let why = if ip.is_ipv6() && facts.no_ipv6 {
                "IPv6 is switched off here"
            } else {
                "this machine does not have the address"
            };
            return Err(Fault::refused(format!(
                "{}: [{}] cannot listen on {bind}: {why}",
                place(topology, instance),
                instance.name
            ))
            .hint(format!(
                "take it out of bind, or write -{bind} to go on without it (Redis 6.2 and later)"
            )));
        }
    }
    Ok(())
}

fn place(topology: &Topology, instance: &Instance) -> String {
    let line = topology.instance(instance.name.as_str()).map_or(0, |section| section.line);
    format!("{}:{line}", topology.file.display())
}

/// A port that another program holds.
pub fn port(facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let taken = facts.listeners.iter().find(|listener| {
        listener.port == instance.port
            && overlaps(instance, listener.address)
            && !is_ours(facts, instance, listener)
    });
    let Some(listener) = taken else { return Ok(()) };
    let who = listener.holder();
    let redis = listener.owner.as_ref().is_some_and(|owner| owner.program == instance.engine.server());
    let note = if redis { ": a server that redis-tp did not set up; it is left alone" } else { "" };
    let other = free_port(facts, instance.port);
    let fault =
        Fault::refused(format!("port {} for {} is taken by {who}{note}", instance.port, instance.name));
    let first = facts.path(topology::file()).is_none() && layout::here().login.is_none();
    if redis && first && !instance.runtime.is_container() {
        return Err(fault.hint(format!(
            "take over what is there, choose another port, or stop that one first:\nredis-tp adopt\n{}",
            command(facts, instance, other)
        )));
    }
    Err(fault
        .hint(format!("choose another port, or stop that one first:\n{}", command(facts, instance, other))))
}

fn command(facts: &Facts, instance: &Instance, port: u16) -> String {
    let first = facts.path(topology::file()).is_none();
    let local = instance.upstream.as_ref().is_some_and(|of| of.instance.is_some());
    match (&instance.upstream, instance.name.as_str()) {
        // There is no master yet that it could follow.
        (Some(_), "slave") if first && local => {
            format!("redis-tp install\nredis-tp replica add --port {port}")
        }
        (Some(_), name) if first && local => {
            format!("redis-tp apply -f FILE        # after port = {port} in [{name}]")
        }
        (None, "master") => format!("redis-tp install --port {port}"),
        (None, name) => format!("redis-tp apply        # after port = {port} in [{name}]"),
        (Some(_), name) => format!("redis-tp replica add --name {name} --port {port}"),
    }
}

pub(super) fn free_port(facts: &Facts, from: u16) -> u16 {
    let taken = |port: &u16| facts.listeners.iter().any(|listener| listener.port == *port);
    (from.saturating_add(10)..u16::MAX).find(|port| !taken(port)).unwrap_or(from)
}

/// Whether a listener leaves no room for what the instance binds.
fn overlaps(instance: &Instance, listener: IpAddr) -> bool {
    let Some(binds) = &instance.bind else {
        return listener.is_loopback() || listener.is_unspecified();
    };
    binds.iter().any(|bind| match bind.address {
        BindAddress::Ip(ip) => ip == listener || ip.is_unspecified() || listener.is_unspecified(),
        BindAddress::AnyV4 | BindAddress::AnyV6 => true,
    })
}

/// Whether the listener is the instance itself, or another of ours that gives the port up.
fn is_ours(facts: &Facts, instance: &Instance, listener: &Listener) -> bool {
    if containers::publishes(facts, listener.port) {
        return true;
    }
    let Some(owner) = &listener.owner else { return false };
    if facts.pids.values().any(|pid| *pid == owner.pid) {
        return true;
    }
    let Some(unit) = &owner.unit else { return false };
    let takes_over = instance.runtime == Runtime::Systemd && *unit == instance.unit;
    takes_over || facts.state.instances.iter().any(|(name, kept)| kept.engine.unit(name.as_str()) == *unit)
}

/// A unit that cannot be started, or that would start again what is to be no unit.
pub fn unit(facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let Some(unit) = facts.unit(&instance.unit).filter(|_| facts.installed()) else { return Ok(()) };
    if instance.runtime.is_container() {
        return Ok(());
    }
    if instance.runtime == Runtime::Process {
        if under_another_runtime(facts, instance).is_some() {
            return Ok(());
        }
        return match unit.active.as_str() {
            "active" | "activating" => Err(Fault::refused(format!(
                "{} runs, and would start again what runtime = process is to keep running",
                instance.unit
            ))
            .hint(format!(
                "leave `runtime` to redis-tp, or give the unit up first:\n{} disable --now {}",
                systemd::typed("systemctl"),
                instance.unit
            ))),
            _ => Ok(()),
        };
    }
    match unit.load.as_str() {
        "masked" => Err(Fault::refused(format!("{} is masked", instance.unit)).hint(format!(
            "somebody forbade it to start; to allow it:\n{} unmask {}",
            systemd::typed("systemctl"),
            instance.unit
        ))),
        // Where the server came without a package, the unit is ours to write.
        "not-found" if facts.package.is_some() && layout::here().login.is_none() => Err(Fault::refused(
            format!("there is no unit {}, though {} is installed", instance.unit, instance.engine.package()),
        )
        .hint(format!(
            "put the package's files back:\napt-get install --reinstall {}",
            instance.engine.package()
        ))),
        _ => Ok(()),
    }
}

/// A master elsewhere that a replica is to follow from now on. For one that it follows already, a link
/// that is down is something to note: the other machine may be away for a while. `fresh` is a password
/// that was only now given.
pub fn master_elsewhere(facts: &Facts, instance: &Instance, fresh: bool) -> Result<(), Fault> {
    let (why, untrusted) = match facts.upstreams.get(&instance.name) {
        Some(Upstream::Trouble(why)) => (why, false),
        Some(Upstream::Untrusted(why)) => (why, true),
        Some(Upstream::Fine) | None => return Ok(()),
    };
    let Some(of) = &instance.upstream else { return Ok(()) };
    let role = facts.running.get(&instance.name).map(|running| &running.role);
    let follows = matches!(role, Some(Role::Replica { host, port, .. }) if *host == of.address.host && *port == of.address.port);
    if follows && !fresh {
        return Ok(());
    }
    let fault = Fault::refused(format!("{} cannot follow {}: {why}", instance.name, of.address));
    if untrusted {
        return Err(fault.hint(
            "on each of the two machines, trust the ca.crt of the other; or, where that one speaks no TLS, `tls-replication = no`:\nredis-tp tls trust FILE",
        ));
    }
    Err(fault.hint(format!(
        "see that the master runs, listens on that address, and takes the password:\nredis-tp replica add --name {} --port {} --of {} --password-file FILE",
        instance.name, instance.port, of.address
    )))
}
