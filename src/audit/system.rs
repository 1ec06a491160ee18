//! What a server could do if somebody had it, and what the kernel is set to.

use super::fix::Fix;
use super::seen::{Seen, Server};
use super::{Severity, Verdict};
use crate::commands::shell_word;
use crate::finding::Finding;
use crate::kernel::Setting;

/// A server is not root.
pub(super) fn root(_: &Seen, server: &Server) -> Verdict {
    match &server.process {
        None => Finding::skip("no process of this machine").into(),
        Some(_) if server.contained => Finding::skip("its container has users of its own").into(),
        Some(process) if process.uid == 0 => Finding::fail(
            format!("it runs as root (pid {})", process.pid),
            "who has the server has the machine",
            "redis-tp adopt    # ends it with its data saved, and starts it as its unit",
        )
        .into(),
        Some(process) => Finding::pass(format!("user {}", process.uid)).into(),
    }
}

/// Whoever has a server cannot do much with it.
pub(super) fn confinement(_: &Seen, server: &Server) -> Verdict {
    let Some(process) = &server.process else { return Finding::skip("no process of this machine").into() };
    if server.contained {
        return Finding::skip("its container confines it").into();
    }
    if process.unit.is_none() {
        return Finding::skip("no unit keeps it: see root").into();
    }
    let mut open = Vec::new();
    if !process.no_new_privileges {
        open.push("it may gain privileges");
    }
    if process.capabilities != 0 && !process.no_new_privileges {
        open.push("it has capabilities to gain");
    }
    if !process.filtered {
        open.push("every system call is open to it");
    }
    let severity = if process.no_new_privileges { Severity::Low } else { Severity::Medium };
    match open.is_empty() {
        true => Finding::pass("no new privileges, no capabilities, filtered system calls").into(),
        false => Verdict::from(Finding::fail(
            open.join(", "),
            "who has the server has the kernel's whole surface before him",
            match (&server.instance, &process.unit) {
                (None, Some(unit)) => format!("systemd-analyze security {}", shell_word(unit)),
                _ => "redis-tp apply".to_owned(),
            },
        ))
        .rated(severity),
    }
}

/// Nobody logs in as the server's user.
pub(super) fn login(seen: &Seen) -> Verdict {
    match seen.shell.as_deref() {
        None => Finding::skip("there is no such user").into(),
        Some(shell) if ["nologin", "false"].iter().any(|no| shell.ends_with(no)) => {
            Finding::pass(format!("{} has {shell}", seen.engine.user())).into()
        }
        Some(shell) => Finding::fail(
            format!("{} has the shell {shell}", seen.engine.user()),
            "a key that an attacker lets the server write lets him log in",
            format!("usermod --shell /usr/sbin/nologin {}", seen.engine.user()),
        )
        .into(),
    }
}

/// A fork for saving does not fail for want of memory that it would never use.
pub(super) fn overcommit(seen: &Seen) -> Verdict {
    match kernel(seen, Setting::Overcommit) {
        Err(unknown) => unknown,
        Ok("1") => Finding::pass("vm.overcommit_memory = 1").into(),
        Ok(value) => {
            let found = format!("vm.overcommit_memory = {value}");
            let cause = "a save or a full resync can fail where memory is short";
            to_set(seen, Setting::Overcommit, "1", found, cause)
        }
    }
}

/// Huge pages are not copied at every write while a child saves.
pub(super) fn huge_pages(seen: &Seen) -> Verdict {
    match kernel(seen, Setting::HugePages) {
        Err(unknown) => unknown,
        Ok(value) if value.contains("[always]") => {
            let cause = "each write while a child saves copies 2 MiB: more memory, more latency";
            to_set(seen, Setting::HugePages, "madvise", "transparent huge pages are [always]".into(), cause)
        }
        Ok(value) => Finding::pass(value).into(),
    }
}

/// As many clients may knock as its file says.
pub(super) fn somaxconn(seen: &Seen, server: &Server) -> Verdict {
    let Some(backlog) = server.value("tcp-backlog").and_then(|value| value.parse::<u64>().ok()) else {
        return super::reach::unasked(server, "tcp-backlog");
    };
    match kernel(seen, Setting::Connections).map(str::parse::<u64>) {
        Err(unknown) => unknown,
        Ok(Ok(most)) if most < backlog => {
            let found = format!("net.core.somaxconn = {most}, and tcp-backlog is {backlog}");
            let cause = "who connects when many do is refused; a server reads it when it starts";
            to_set(seen, Setting::Connections, &backlog.to_string(), found, cause)
        }
        Ok(_) => Finding::pass(format!("enough for tcp-backlog {backlog}")).into(),
    }
}

/// The server's own look at the machine, which knows what its version minds.
pub(super) fn check_system(seen: &Seen) -> Verdict {
    let Some(said) = &seen.check_system else {
        return match seen.missing.get("check-system") {
            Some(why) => Finding::unknown(why, "redis-server --check-system").into(),
            None => Finding::skip("it came with 7.0").into(),
        };
    };
    // What rows of their own look at is told there.
    let own = ["overcommit", "THP"];
    let mut bad = said.iter().filter(|(_, result)| result.as_str() != "OK");
    match bad.find(|(name, _)| !own.contains(&name.as_str())) {
        Some((name, result)) => Finding::fail(
            format!("{name}: {result}"),
            "redis-server --check-system minds it",
            "redis-server --check-system",
        )
        .into(),
        None => {
            let names: Vec<&str> =
                said.keys().map(String::as_str).filter(|name| !own.contains(name)).collect();
            Finding::pass(names.join(", ")).into()
        }
    }
}

fn kernel(seen: &Seen, setting: Setting) -> Result<&str, Verdict> {
    let path = setting.path().display();
    seen.kernel
        .get(&setting)
        .map(String::as_str)
        .ok_or_else(|| Finding::unknown(format!("{path} cannot be read"), format!("cat {path}")).into())
}

/// What a setting of the kernel's puts right; by us where this machine lets us.
fn to_set(seen: &Seen, setting: Setting, value: &str, found: String, cause: &str) -> Verdict {
    if !seen.settable.contains(&setting) {
        let place = if seen.contained { "    # on the machine that has this container" } else { "" };
        return Finding::fail(found, cause, format!("{}{place}", setting.typed(value))).into();
    }
    Verdict::from(Finding::fail(found, cause, "redis-tp check --fix"))
        .with(Fix::Kernel { setting, value: value.to_owned() })
}
