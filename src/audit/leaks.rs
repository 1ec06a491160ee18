//! Passwords in arguments, environments and files: what could not be looked for is not absent.

use std::path::Path;

use super::files::{close, may_close, word};
use super::seen::{Seen, Server};
use super::{Severity, Verdict};
use crate::finding::Finding;
use crate::host::Stat;
use crate::secrets;

/// Those that every login needs to read, or everybody to run: a password goes out of them by hand.
const NEEDED: [&str; 5] =
    ["/etc/environment", "/etc/profile", "/etc/profile.d", "/usr/local/bin", "/usr/local/sbin"];
/// Those whose files root alone has to read.
const ROOT_READS: [&str; 4] = ["/etc/cron.d", "/etc/default", "/etc/redis-tp", "/etc/systemd/system"];

/// No password is among arguments, which every user can read.
pub(super) fn argv(seen: &Seen) -> Verdict {
    processes(
        seen,
        &seen.argv,
        "has a password among its arguments",
        "every user of this machine can read them in ps; the password is known now",
        "openssl rand -hex 32 > /root/password && redis-tp install --password-file /root/password",
    )
}

/// No password is in the environment of a process that stays.
pub(super) fn environment(seen: &Seen) -> Verdict {
    let pid = seen.environ.first().map_or(0, |(pid, _)| *pid);
    if seen.blind {
        return Finding::unknown("the environments of others are root's to read", "sudo redis-tp check")
            .into();
    }
    processes(
        seen,
        &seen.environ,
        "has a password in its environment",
        "every child of it inherits that, and crash reports print it",
        &format!("kill {pid}    # and give it the password by a file that only it can read"),
    )
}

fn processes(seen: &Seen, found: &[(u32, String)], what: &str, cause: &str, cure: &str) -> Verdict {
    let Some((pid, program)) = found.first() else {
        let what = match seen.servers.iter().any(|server| server.password.is_some()) {
            true => "none of the passwords known here",
            false => "no password is known here",
        };
        return unless_unknown(seen).unwrap_or_else(|| Finding::pass(what).into());
    };
    let more = match found.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Finding::fail(format!("{program} (pid {pid}){more} {what}"), cause, cure).into()
}

/// No password is in a file that everybody can read.
pub(super) fn readable(seen: &Seen) -> Verdict {
    let Some((first, _)) = seen.readable.first() else { return none_readable(seen) };
    let all: Vec<String> = seen.readable.iter().map(|(path, _)| path.display().to_string()).collect();
    let verdict = Verdict::from(Finding::fail(
        format!("{} has a password in it, and everybody can read it", all.join(", ")),
        "every user of this machine knows it",
        match NEEDED.iter().any(|needed| first.starts_with(needed)) {
            true => format!("editor {}    # take it out, and give the servers another password", word(first)),
            false => format!("chmod o-rwx {}    # and give the servers another password", word(first)),
        },
    ));
    // Of somebody else's file only he can say who has to read it.
    let roots = |path: &Path, stat: Stat| stat.uid == 0 && ROOT_READS.iter().any(|dir| path.starts_with(dir));
    let closed =
        seen.readable.iter().filter(|(path, stat)| may_close(seen, path, *stat) || roots(path, *stat));
    // A file of ours with a password in it is root's alone.
    let wrong = |path: &Path| if secrets::is_secret(path) { 0o077 } else { 0o007 };
    closed.fold(verdict, |verdict, (path, stat)| verdict.with(close(path, *stat, wrong(path))))
}

fn none_readable(seen: &Seen) -> Verdict {
    let unread =
        |what: String, cure: String| Verdict::from(Finding::unknown(what, cure)).rated(Severity::Medium);
    if let Some(path) = &seen.unread {
        return unread(
            format!("there are too many files: {} and what follows were not read", path.display()),
            format!("ls -la {}", word(path.parent().unwrap_or(path))),
        );
    }
    if let Some(verdict) = unless_unknown(seen) {
        return verdict;
    }
    match &seen.cut {
        Some(path) => unread(
            format!("{} is too long to be read to its end", path.display()),
            format!("chmod o-r {}    # if nobody else needs it", word(path)),
        ),
        None => Finding::pass("no password is in a file that everybody can read").into(),
    }
}

/// Why nothing that was found is no pass: a server has a password that is not known here.
fn unless_unknown(seen: &Seen) -> Option<Verdict> {
    let locked = |server: &&Server| server.runs && server.told.is_none() && !server.foreign;
    let server = seen.servers.iter().find(locked)?;
    let why = format!("{} has a password that is not known here: see let-in", server.name);
    let cure = match &server.instance {
        Some(_) => "redis-tp plan    # tells who changed its password",
        None => "redis-tp adopt --password-file FILE",
    };
    Some(Finding::unknown(why, cure).into())
}
