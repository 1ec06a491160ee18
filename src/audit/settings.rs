//! What a server was told to allow.

use super::fix::Fix;
use super::reach::{roleless, set, unasked, wrong};
use super::seen::{Seen, Server};
use super::{Severity, Verdict, put_right};
use crate::conf::is_yes;
use crate::facts::Role;
use crate::finding::Finding;

/// What a server needs beside the files that its clients are.
const RESERVED: u64 = 32;

/// DEBUG is for nobody.
pub(super) fn debug(_: &Seen, server: &Server) -> Verdict {
    allowed(server, "enable-debug-command", "DEBUG crashes and inspects a server, and reads files")
}

/// MODULE LOAD is for nobody.
pub(super) fn module(_: &Seen, server: &Server) -> Verdict {
    allowed(server, "enable-module-command", "MODULE LOAD runs any program that the server's user may read")
}

/// CONFIG SET dir is for nobody.
pub(super) fn protected_configs(_: &Seen, server: &Server) -> Verdict {
    allowed(
        server,
        "enable-protected-configs",
        "with CONFIG SET dir a client writes files wherever the server may",
    )
}

/// A directive of 7.0 that is `no`, `local` or `yes`.
fn allowed(server: &Server, directive: &'static str, cause: &str) -> Verdict {
    match server.value(directive).as_deref() {
        None => unasked(server, directive),
        Some("no") => Finding::pass(format!("{directive} no")).into(),
        Some(value) => {
            let verdict = wrong(server, format!("{directive} {value}"), cause, directive, "no");
            if value == "local" { verdict.rated(Severity::Medium) } else { verdict }
        }
    }
}

/// No code but the server's own runs in it.
pub(super) fn modules(_: &Seen, server: &Server) -> Verdict {
    let Some(told) = &server.told else { return unasked(server, "modules") };
    let Some(modules) = &told.modules else {
        return Finding::unknown("it does not let MODULE LIST be asked", "redis-tp status").into();
    };
    let Some((name, file)) = server.planted.first() else {
        return Finding::pass(match modules.len() {
            0 => "no module is loaded".to_owned(),
            count => format!("{count}, each in a file that is root's"),
        })
        .into();
    };
    let verdict = Verdict::from(Finding::fail(
        format!("it has loaded {name} from {file}"),
        "a module may do all that the server may, and others than root could put this one there",
        put_right(server),
    ));
    let Some(instance) = &server.instance else { return verdict };
    match server.conf.get("loadmodule") {
        Some(_) => set(verdict, server, "loadmodule", None),
        None => {
            let why = "a module was loaded that no file names";
            verdict.with(Fix::Restart { instance: instance.clone(), why })
        }
    }
}

/// A replica takes no writes, which would be lost.
pub(super) fn replica_writable(_: &Seen, server: &Server) -> Verdict {
    let Some(told) = &server.told else { return unasked(server, "replica-read-only") };
    match told.role {
        Role::Replica { .. } => {}
        Role::Master => return Finding::skip("it is a master").into(),
        Role::Unknown => return roleless(server),
    }
    match server.value("replica-read-only").or_else(|| server.value("slave-read-only")) {
        Some(value) if is_yes(&value) => Finding::pass("replica-read-only yes").into(),
        Some(_) => {
            let cause = "what is written to it is nowhere else, and gone with the next full resync";
            wrong(server, "replica-read-only no", cause, "replica-read-only", "yes")
        }
        None => unasked(server, "replica-read-only"),
    }
}

/// A cache has an end.
pub(super) fn maxmemory(seen: &Seen, server: &Server) -> Verdict {
    if let Some(skip) = no_cache(seen, server) {
        return skip;
    }
    match server.value("maxmemory").as_deref() {
        None => unasked(server, "maxmemory"),
        Some("0") => {
            let total = server
                .told
                .as_ref()
                .and_then(|told| told.info.as_ref()?.get("total_system_memory")?.parse().ok());
            let quarter: u64 = total.unwrap_or(1_u64 << 30) / 4 / (1 << 20);
            let value = format!("{quarter}mb");
            let cause = "whoever writes keys without end takes the memory of the whole machine";
            of_cache(server, "maxmemory 0: it takes all there is", cause, "maxmemory", &value)
        }
        Some(value) => Finding::pass(format!("maxmemory {value}")).into(),
    }
}

/// A full cache makes room.
pub(super) fn eviction(seen: &Seen, server: &Server) -> Verdict {
    if let Some(skip) = no_cache(seen, server) {
        return skip;
    }
    match server.value("maxmemory-policy").as_deref() {
        None => unasked(server, "maxmemory-policy"),
        Some("noeviction") => {
            let cause = "when it is full, every write fails, and the cache stands still";
            // Keys with a lifetime are the app's; the others are somebody's data.
            of_cache(server, "maxmemory-policy noeviction", cause, "maxmemory-policy", "volatile-lru")
        }
        Some(value) => Finding::pass(format!("maxmemory-policy {value}")).into(),
    }
}

/// What a cache needs. Whether one that nobody manages is a cache, a person has to say.
fn of_cache(server: &Server, found: &str, cause: &str, directive: &'static str, value: &str) -> Verdict {
    if server.instance.is_some() {
        return wrong(server, found, cause, directive, value);
    }
    let port = server.address.as_ref().map_or(6379, |at| at.port);
    let cure =
        format!("redis-cli -p {port} CONFIG SET {directive} {value}    # if it is a cache; and in its file");
    Finding::fail(found, cause, cure).into()
}

/// What no app fills has no need of an end; and a replica holds what its master does (`replica-ignore-maxmemory`).
fn no_cache(seen: &Seen, server: &Server) -> Option<Verdict> {
    if !seen.cache {
        return Some(Finding::skip("it is nobody's cache here").into());
    }
    let replica = server.told.as_ref().is_some_and(|told| matches!(told.role, Role::Replica { .. }));
    replica.then(|| Finding::skip("it holds what its master does").into())
}

/// As many clients get in as its file says.
pub(super) fn file_limit(_: &Seen, server: &Server) -> Verdict {
    let Some(process) = &server.process else { return Finding::skip("no process of this machine").into() };
    let Some(clients) = server.value("maxclients").and_then(|value| value.parse::<u64>().ok()) else {
        return unasked(server, "maxclients");
    };
    match process.files {
        None => Finding::unknown("its limits are root's to read", "sudo redis-tp check").into(),
        Some(files) if files < clients + RESERVED => Finding::fail(
            format!("it may open {files} files, and maxclients is {clients}"),
            "a few idle connections keep everybody else out",
            match &server.instance {
                Some(name) => {
                    format!("redis-tp service restart {name}    # where its unit has LimitNOFILE=65535")
                }
                None => format!("prlimit --pid {} --nofile=65535", process.pid),
            },
        )
        .into(),
        Some(files) => Finding::pass(format!("{files} files for {clients} clients")).into(),
    }
}
