//! Whether somebody was in already: what known attacks on Redis leave behind.

use std::path::Path;

use super::fix::Fix;
use super::gather::FOREIGN_COMMAND;
use super::reach::{roleless, unasked, unheard};
use super::seen::{Seen, Server};
use super::{Verdict, put_right};
use crate::facts::Role;
use crate::finding::Finding;

/// What to do with a machine that somebody else was on.
const ISOLATE: &str = "take the machine off the network, keep its disk, and set it up anew";

/// A replica follows whom it is to follow.
pub(super) fn master_host(seen: &Seen, server: &Server) -> Verdict {
    let Some(told) = &server.told else { return unasked(server, "role") };
    let named = match &server.instance {
        Some(_) => server.wanted_master.as_ref().map(|at| format!("{} {}", at.host, at.port)),
        None => server.conf.get("replicaof").map(|words| words.join(" ")),
    };
    let (host, port) = match (&told.role, named.clone()) {
        (Role::Replica { host, port, .. }, _) => (host, port),
        (Role::Master, None) => return Finding::pass("it follows nobody").into(),
        (Role::Master, Some(wanted)) => return promoted(server, &wanted),
        (Role::Unknown, _) => return roleless(server),
    };
    let there = format!("{host} {port}");
    // After a failover whom it follows is another, and still one of this machine's; but not an ordinary user's.
    let local = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let ours = |other: &Server| !other.foreign && other.listens.iter().any(|(_, own)| own == port);
    if named.as_ref() == Some(&there) || local && seen.servers.iter().any(ours) {
        return Finding::pass(format!("it follows {there}")).into();
    }
    let wanted = named.unwrap_or_else(|| "nobody".into());
    let verdict = Verdict::from(Finding::fail(
        format!("it follows {there}, and should follow {wanted}"),
        "a rogue master gives a replica its data, and by them its modules and files",
        put_right(server),
    ));
    if server.instance.is_some() { verdict.with(Fix::Overwrite) } else { verdict }
}

/// A replica that is a master now. Nobody demotes it unasked: which of both has the data is a person's to say.
fn promoted(server: &Server, wanted: &str) -> Verdict {
    let cause = "it was promoted: by hand, by a failover, or by somebody who has the replicas' password";
    let cure = match &server.instance {
        Some(_) => "redis-tp plan\nredis-tp apply --adopt    # if it is to stay a master",
        None => "redis-tp adopt --dry-run    # takes it as what it is",
    };
    Finding::fail(format!("it is a master, and should follow {wanted}"), cause, cure).into()
}

/// A server writes its data where data are.
pub(super) fn places(_: &Seen, server: &Server) -> Verdict {
    if server.told.is_none() && server.process.is_some() {
        return unasked(server, "dir");
    }
    let Some(dir) = server.value("dir") else { return unasked(server, "dir") };
    let file = server.value("dbfilename").unwrap_or_default();
    let foreign_dir = ["/root", "/home", "/etc", "/var/spool/cron", "/var/www", "/usr", "/tmp", "/dev/shm"]
        .iter()
        .any(|place| dir == *place || dir.starts_with(&format!("{place}/")));
    let foreign_file = ["authorized_keys", "root", "crontab", "redis.so"].contains(&file.as_str())
        || [".so", ".php", ".jsp", ".sh"].iter().any(|end| file.ends_with(end));
    let wanted = server.wanted_dir.as_ref().is_some_and(|wanted| wanted.as_path() == Path::new(&dir));
    let foreign_dir = foreign_dir && !server.contained && !wanted;
    if !foreign_dir && !foreign_file {
        return Finding::pass(format!("{dir}/{file}")).into();
    }
    Verdict::from(Finding::fail(
        format!("it saves its data as {dir}/{file}"),
        "so keys become crontabs, ssh keys or programs: the way in of most attacks on Redis",
        ISOLATE,
    ))
}

/// No worm has left its keys.
pub(super) fn keys(_: &Seen, server: &Server) -> Verdict {
    let Some(told) = &server.told else { return unasked(server, "keys") };
    if told.foreign_command == Some(true) {
        return Finding::fail(
            format!("it knows the command {FOREIGN_COMMAND}"),
            "a module of attackers brings it: whoever gets in runs programs",
            ISOLATE,
        )
        .into();
    }
    let Some(keys) = &told.foreign_keys else { return unheard(server, "INFO, SELECT or EXISTS") };
    match keys.as_slice() {
        [] if told.foreign_command.is_none() => unheard(server, "COMMAND INFO"),
        [] => Finding::pass("none of the keys that known attacks leave").into(),
        keys => Finding::fail(
            format!("it has {}", keys.join(", ")),
            "worms that look for open servers write keys of these names",
            format!(
                "redis-cli --scan    # look what is in {}; if it is not yours: {ISOLATE}",
                keys.join(", ")
            ),
        )
        .into(),
    }
}

/// No server was made to write for cron or ssh.
pub(super) fn files(seen: &Seen) -> Verdict {
    match seen.planted.first() {
        Some(path) => Finding::fail(
            format!("{} begins as an RDB does", path.display()),
            "a server wrote it, for cron or ssh to read: somebody else runs programs here",
            ISOLATE,
        )
        .into(),
        None => Finding::pass("none of cron's and ssh's files is an RDB").into(),
    }
}

/// No known miner runs.
pub(super) fn programs(seen: &Seen) -> Verdict {
    match (seen.miners.first(), seen.preload) {
        (Some((pid, program)), _) => Finding::fail(
            format!("{program} (pid {pid}) runs"),
            "that is the name of a miner that gets in through Redis",
            ISOLATE,
        )
        .into(),
        (None, true) => Finding::fail(
            "/etc/ld.so.preload names a library",
            "nothing of Debian's does; rootkits hide their miners so",
            "cat /etc/ld.so.preload",
        )
        .into(),
        (None, false) => Finding::pass("none that is known").into(),
    }
}
