//! What a server could do if somebody had it, and what the kernel is set to.

use super::seen::{Seen, Server};
use super::{Severity, Verdict};
use crate::commands::shell_word;
use crate::finding::Finding;

/// The kernel's settings that count here, and where they are.
pub(super) const KERNEL: [(&str, &str); 3] = [
    ("overcommit", "/proc/sys/vm/overcommit_memory"),
    ("somaxconn", "/proc/sys/net/core/somaxconn"),
    ("huge-pages", "/sys/kernel/mm/transparent_hugepage/enabled"),
];

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
    match kernel(seen, "overcommit") {
        Err(unknown) => unknown,
        Ok("1") => Finding::pass("vm.overcommit_memory = 1").into(),
        Ok(value) => Finding::fail(
            format!("vm.overcommit_memory = {value}"),
            "a save or a full resync can fail where memory is short",
            "echo 'vm.overcommit_memory = 1' > /etc/sysctl.d/60-redis.conf && sysctl --system",
        )
        .into(),
    }
}

/// Huge pages are not copied at every write while a child saves.
pub(super) fn huge_pages(seen: &Seen) -> Verdict {
    match kernel(seen, "huge-pages") {
        Err(unknown) => unknown,
        Ok(value) if value.contains("[always]") => Finding::fail(
            "transparent huge pages are [always]",
            "each write while a child saves copies 2 MiB: more memory, more latency",
            "echo 'w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise' > /etc/tmpfiles.d/redis.conf && systemd-tmpfiles --create redis.conf",
        )
        .into(),
        Ok(value) => Finding::pass(value).into(),
    }
}

/// As many clients may knock as its file says.
pub(super) fn somaxconn(seen: &Seen, server: &Server) -> Verdict {
    let Some(backlog) = server.value("tcp-backlog").and_then(|value| value.parse::<u64>().ok()) else {
        return super::reach::unasked(server, "tcp-backlog");
    };
    match kernel(seen, "somaxconn").map(str::parse::<u64>) {
        Err(unknown) => unknown,
        Ok(Ok(most)) if most < backlog => Finding::fail(
            format!("net.core.somaxconn = {most}, and tcp-backlog is {backlog}"),
            "who connects when many do is refused",
            format!("echo 'net.core.somaxconn = {backlog}' > /etc/sysctl.d/61-redis.conf && sysctl --system"),
        )
        .into(),
        Ok(_) => Finding::pass(format!("enough for tcp-backlog {backlog}")).into(),
    }
}

fn kernel<'a>(seen: &'a Seen, name: &str) -> Result<&'a str, Verdict> {
    let path = KERNEL.iter().find(|(known, _)| *known == name).map_or("", |(_, path)| path);
    seen.kernel
        .get(name)
        .map(String::as_str)
        .ok_or_else(|| Finding::unknown(format!("{path} cannot be read"), format!("cat {path}")).into())
}
