//! Who gets in: doors, and what a stranger hears at them.

use super::firewall::Passage;
use super::fix::Fix;
use super::seen::{Seen, Server};
use super::{Severity, Verdict, put_right};
use crate::commands::shell_word;
use crate::conf::is_yes;
use crate::engine::Version;
use crate::finding::Finding;

/// It lets redis-tp in, which then can look at all the rest.
pub(super) fn let_in(_: &Seen, server: &Server) -> Verdict {
    match (server.runs, &server.told) {
        (false, _) => Finding::skip("it does not run").into(),
        (true, None) if server.foreign => {
            let uid = server.process.as_ref().map_or(0, |process| process.uid);
            Verdict::from(Finding::unknown(
                format!("user {uid} has started it: it gets no password, and what it says is not asked"),
                format!("runuser -u \"$(id -nu {uid})\" redis-tp check    # as that user; or end it"),
            ))
            .rated(Severity::Medium)
        }
        (true, Some(told)) if told.config.is_none() => Finding::unknown(
            "it does not let CONFIG GET be asked: what it is set to is not known",
            "redis-tp plan    # a rename-command, or the rules of its users",
        )
        .into(),
        (true, Some(_)) => Finding::pass("it tells what it is set to").into(),
        (true, None) => Finding::unknown(
            match &server.process {
                Some(process) => format!("it takes no password that is known here (pid {})", process.pid),
                None => "it takes no password that is known here".to_owned(),
            },
            match &server.instance {
                Some(_) => "redis-tp plan    # tells who changed its password",
                None => "redis-tp adopt --password-file FILE",
            },
        )
        .into(),
    }
}

/// Nobody gets in without a password.
pub(super) fn open_door(_: &Seen, server: &Server) -> Verdict {
    if server.listens.is_empty() {
        return Finding::skip("it does not listen").into();
    }
    let beyond: Vec<String> =
        server.open_at.iter().filter(|ip| !ip.is_loopback()).map(ToString::to_string).collect();
    let verdict = |at: &str, cause: &str| {
        let cure = put_right(server);
        let found = format!("it answers anybody on {at}");
        let verdict = Verdict::from(Finding::fail(found, cause, cure));
        match (&server.instance, &server.password) {
            (Some(_), Some(_)) => verdict.with(Fix::Overwrite),
            (Some(instance), None) => {
                verdict.with(Fix::Password { instance: instance.clone() }).with(Fix::Overwrite)
            }
            (None, _) => verdict,
        }
    };
    match (beyond.first(), server.open_at.first()) {
        (Some(at), _) => verdict(
            at,
            "there is no password, and the network reaches it: such a server is taken over within hours",
        ),
        (None, Some(at)) => verdict(
            &at.to_string(),
            "there is no password: every program and every user of this machine gets in",
        )
        .rated(Severity::Medium),
        (None, None) => match server.unclear_at.first() {
            Some(at) => Finding::unknown(
                format!("on {at} it knows none of the commands that it was asked"),
                "redis-cli --no-auth-warning ECHO x    # by the names that its rename-command lines give",
            )
            .into(),
            None => Finding::pass("nobody gets in without a password").into(),
        },
    }
}

/// The last resort where no password is set is on.
pub(super) fn protected_mode(_: &Seen, server: &Server) -> Verdict {
    let Some(value) = server.value("protected-mode") else {
        return unasked(server, "protected-mode");
    };
    if is_yes(&value) {
        return Finding::pass("protected-mode yes").into();
    }
    let cause = "the day its password is gone, everybody gets in from everywhere";
    // With a password it is one wall of two.
    let severity = match (server.open_at.is_empty(), server.beyond().is_empty()) {
        (false, false) => Severity::Critical,
        _ => Severity::Medium,
    };
    wrong(server, "protected-mode no", cause, "protected-mode", "yes").rated(severity)
}

/// It listens where it is needed, and not everywhere.
pub(super) fn wide_bind(_: &Seen, server: &Server) -> Verdict {
    if server.listens.is_empty() {
        return Finding::skip("it does not listen").into();
    }
    if server.contained {
        return Finding::skip("its container decides that").into();
    }
    let wide: Vec<String> = server
        .listens
        .iter()
        .filter(|(ip, _)| ip.is_unspecified())
        .map(|(ip, port)| match ip.is_ipv6() {
            true => format!("[{ip}]:{port}"),
            false => format!("{ip}:{port}"),
        })
        .collect();
    let Some(first) = wide.first() else {
        let all: Vec<String> = server.listens.iter().map(|(ip, _)| ip.to_string()).collect();
        return Finding::pass(format!("it listens on {}", all.join(", "))).into();
    };
    let others: Option<Vec<String>> =
        server.elsewhere().map(|all| all.iter().map(ToString::to_string).collect());
    let cause = match others.as_deref() {
        None => "every network of this machine reaches it, and who is connected cannot be asked".to_owned(),
        Some([]) => "every network of this machine reaches it, and nobody from another machine is connected"
            .to_owned(),
        Some(others) => format!(
            "every network of this machine reaches it; {} need it: name the address that they use",
            others.join(", ")
        ),
    };
    // `-::1` is known from 6.2 on.
    let both = server.told.as_ref().and_then(|told| told.version) >= Some(Version::new(6, 2));
    let loopback = if both { "127.0.0.1 -::1" } else { "127.0.0.1" };
    wrong(server, format!("it listens on {first}"), cause, "bind", loopback)
}

/// What the network reaches is filtered.
pub(super) fn firewall(seen: &Seen, server: &Server) -> Verdict {
    if server.beyond().is_empty() {
        return Finding::skip("the network does not reach it").into();
    }
    let Some(rules) = &seen.firewall else {
        let why = seen.missing.get("firewall").cloned().unwrap_or_default();
        return Finding::unknown(why, "apt-get install nftables && redis-tp check").into();
    };
    let beyond = server.listens.iter().filter(|(ip, _)| !ip.is_loopback());
    let passages: Vec<(u16, Passage)> = beyond.map(|(ip, port)| (*port, rules.passage(*ip, *port))).collect();
    if let Some((port, _)) = passages.iter().find(|(_, passage)| *passage == Passage::Open) {
        return Finding::fail(
            format!("no rule drops what comes in for port {port}"),
            "every machine of its networks reaches it",
            format!(
                "nft 'add table inet redis; add chain inet redis input {{ type filter hook input priority 0; }}; add rule inet redis input iif != lo tcp dport {port} ip saddr != ADDRESS drop'"
            ),
        )
        .into();
    }
    let unclear = passages.iter().find_map(|(port, passage)| match passage {
        Passage::Unclear(rule) => Some((port, rule)),
        _ => None,
    });
    match unclear {
        Some((port, rule)) => Finding::unknown(
            format!("whether port {port} is filtered depends on a rule that is not understood: {rule}"),
            "nft list ruleset",
        )
        .into(),
        None => Finding::pass("packets are filtered").into(),
    }
}

/// What goes over the network cannot be read on the way.
pub(super) fn cleartext(_: &Seen, server: &Server) -> Verdict {
    if server.beyond().is_empty() {
        return Finding::skip("the network does not reach it").into();
    }
    let Some(told) = &server.told else { return unasked(server, "tls-port") };
    let port = |name: &str| told.config.as_ref().and_then(|config| config.get(name).cloned());
    match (port("port").as_deref(), port("tls-port").as_deref()) {
        (Some("0"), Some(tls)) if tls != "0" => Finding::pass(format!("TLS alone, on {tls}")).into(),
        (None, _) => unasked(server, "tls-port"),
        _ => Finding::fail(
            "it speaks without TLS beyond this machine",
            "whoever is on the way reads passwords and data",
            with_tls(server),
        )
        .into(),
    }
}

/// How TLS comes to a server, or the network away from it: in a section that was taken over, redis-tp makes none.
fn with_tls(server: &Server) -> String {
    let file = crate::topology::file().display();
    let wide = server.listens.iter().any(|(ip, _)| ip.is_unspecified());
    match &server.instance {
        Some(_) if !server.taken_over => {
            "redis-tp install --tls    # clients elsewhere: redis-tp tls client NAME DIR".into()
        }
        Some(name) => format!(
            "editor {file}    # [{name}]: bind = 127.0.0.1, or TLS, which needs it without defaults = off"
        ),
        None if wide => "redis-tp adopt && redis-tp check --fix    # binds it to this machine alone".into(),
        None => format!("redis-tp adopt && editor {file}    # bind = 127.0.0.1; then redis-tp apply"),
    }
}

/// A Unix socket is for those who may.
pub(super) fn unix_socket(_: &Seen, server: &Server) -> Verdict {
    match &server.socket {
        None => Finding::skip("it has no Unix socket").into(),
        Some((path, stat)) if stat.mode & 0o002 != 0 => {
            let cure = format!("chmod o-rwx {}", shell_word(&path.to_string_lossy()));
            let found = format!("{} has mode {:04o}", path.display(), stat.mode & 0o7777);
            let cause = "every user of this machine may connect to it";
            let verdict = Verdict::from(Finding::fail(found, cause, cure));
            set(verdict, server, "unixsocketperm", Some("770"))
        }
        Some((path, _)) => Finding::pass(format!("{} is closed to others", path.display())).into(),
    }
}

/// A directive that could not be asked for.
pub(super) fn unasked(server: &Server, what: &str) -> Verdict {
    match (server.runs, &server.told) {
        (false, _) => Finding::skip("it does not run").into(),
        (true, None) => Finding::skip("nobody can ask it: see let-in").into(),
        (true, Some(told)) if told.config.is_none() => {
            Finding::skip("it does not let CONFIG GET be asked: see let-in").into()
        }
        (true, Some(_)) => Finding::skip(format!("this version has no {what}")).into(),
    }
}

/// What it let us ask for otherwise, and not by this command.
pub(super) fn unheard(server: &Server, command: &str) -> Verdict {
    if server.told.is_none() {
        return unasked(server, command);
    }
    let cure = match &server.file {
        Some(file) => format!("grep -n rename-command {}", shell_word(&file.to_string_lossy())),
        None => format!("redis-cli {command}"),
    };
    Finding::unknown(format!("it does not let {command} be asked"), cure).into()
}

/// What depends on a role that it does not tell.
pub(super) fn roleless(server: &Server) -> Verdict {
    unheard(server, "INFO replication")
}

/// What has a value of the topology's to put it right.
pub(super) fn wrong(
    server: &Server,
    found: impl Into<String>,
    cause: impl Into<String>,
    directive: &'static str,
    value: &str,
) -> Verdict {
    set(Finding::fail(found, cause, put_right(server)).into(), server, directive, Some(value))
}

/// A directive of the topology is what puts it right.
pub(super) fn set(
    verdict: Verdict,
    server: &Server,
    directive: &'static str,
    value: Option<&str>,
) -> Verdict {
    match &server.instance {
        Some(instance) => verdict
            .with(Fix::Set { instance: instance.clone(), directive, value: value.map(str::to_owned) })
            .with(Fix::Overwrite),
        None => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_knows_no_command_is_no_pass() {
        let at = "10.0.0.5".parse().unwrap();
        let server = Server { listens: vec![(at, 6379)], unclear_at: vec![at], ..Server::default() };
        match open_door(&Seen::default(), &server).finding {
            Finding::Unknown { why, .. } => {
                assert_eq!(why, "on 10.0.0.5 it knows none of the commands that it was asked");
            }
            other => panic!("{other:?}"),
        }
    }
}
