//! What lies about: files that others can read or change.

use std::path::{Component, Path, PathBuf};

use super::fix::Fix;
use super::reach::unasked;
use super::seen::{Seen, Server};
use super::{Severity, Verdict};
use crate::commands::shell_word;
use crate::directives;
use crate::finding::Finding;
use crate::host::{Kind, Stat};

/// Files that everybody may read mostly, and in which passwords are found.
pub(super) const PUBLIC: [&str; 4] = ["/etc/environment", "/etc/crontab", "/etc/rc.local", "/etc/profile"];
/// Directories with such files, one deep.
pub(super) const PUBLIC_DIRECTORIES: [&str; 12] = [
    "/etc/redis",
    "/etc/valkey",
    "/etc/redis-tp",
    "/etc/default",
    "/etc/profile.d",
    "/etc/cron.d",
    "/etc/systemd/system",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/var/log",
    "/tmp",
    "/srv",
];
/// Files of a home that have what was typed.
pub(super) const OF_HOME: [&str; 7] =
    [".bash_history", ".zsh_history", ".rediscli_history", ".redisclirc", ".bashrc", ".profile", ".env"];

/// Nobody else reads or changes a configuration.
pub(super) fn configuration(seen: &Seen, server: &Server) -> Verdict {
    let (Some(file), Some(stat)) = (&server.file, server.file_stat) else {
        return Finding::skip("it has no file here").into();
    };
    if stat.kind != Kind::File {
        return Finding::fail(
            format!("{} is no file", file.display()),
            "what it stands for may be somebody else's",
            format!("ls -l {}", word(file)),
        )
        .into();
    }
    // What cannot be read as a configuration may have a password in it.
    let secret = server.unread || server.conf.directives.iter().any(|line| directives::secret(&line.name));
    let stranger = stat.uid != 0 && seen.user.is_some_and(|user| user.uid != stat.uid) && !server.contained;
    if stranger {
        return Finding::fail(
            format!("{} belongs to user {}", file.display(), stat.uid),
            "who owns it decides what the server does",
            format!("chown {0}:{0} {1}", seen.engine.user(), word(file)),
        )
        .into();
    }
    if server.contained && !server.file_reachable {
        return Finding::pass(format!("{} is behind a closed directory", file.display())).into();
    }
    let wrong = if secret { 0o007 } else { 0o002 };
    let mut verdict = closed(seen, file, stat, wrong, "others can read the password in it, or change it");
    if let Some((dir, open)) = other_can_be_put(server) {
        let fixes = verdict.fixes;
        verdict = closed(seen, dir, open, 0o002, "everybody can put another configuration there");
        verdict.fixes.extend(fixes);
    }
    // A closed directory is one wall; a mode is the other.
    if server.file_reachable { verdict } else { verdict.rated(Severity::Medium) }
}

/// The directory of a configuration where everybody may put another in its place: a sticky one keeps what somebody
/// else put there.
fn other_can_be_put(server: &Server) -> Option<(&Path, Stat)> {
    let (dir, stat) = server.file_dir.as_ref()?;
    (stat.kind == Kind::Dir && stat.mode & 0o1002 == 0o002).then_some((dir.as_path(), *stat))
}

/// Nobody else reads the data.
pub(super) fn data(seen: &Seen, server: &Server) -> Verdict {
    if server.contained {
        return Finding::skip("they are in a container's volume").into();
    }
    let Some((dir, stat)) = server.data.first() else { return unasked(server, "dir") };
    // Behind a directory that nobody enters, the mode of a file opens nothing.
    if stat.mode & 0o001 == 0 && stat.mode & 0o004 == 0 {
        return Finding::pass(format!("{} is closed to others", dir.display())).into();
    }
    let open = server.data.iter().skip(1).find(|(_, stat)| stat.mode & 0o006 != 0);
    if !is_its_own(seen, server, dir, *stat) {
        return shared(seen, dir, *stat, open);
    }
    if stat.mode & 0o002 != 0 {
        return closed(seen, dir, *stat, 0o007, "everybody can put data there that the server reads");
    }
    match open {
        Some((file, _)) => {
            let cause = format!("others can read {}", file.display());
            closed(seen, dir, *stat, 0o007, &cause)
        }
        None => {
            closed(seen, dir, *stat, 0o007, "others can see what is in it, and read what is written there")
                .rated(Severity::Medium)
        }
    }
}

/// Data in a directory that others need, too, as `/` is where a server was started without one: only the files can
/// be closed.
fn shared(seen: &Seen, dir: &Path, stat: Stat, open: Option<&(PathBuf, Stat)>) -> Verdict {
    match open {
        Some((file, stat)) => closed(seen, file, *stat, 0o007, "a copy of every key is in it"),
        None if stat.mode & 0o002 != 0 => Finding::fail(
            format!("it keeps its data in {}, where everybody can put files", dir.display()),
            "the next start reads what somebody else has put there",
            "redis-tp adopt",
        )
        .into(),
        None => Finding::pass(format!("its files in {} are closed to others", dir.display())).into(),
    }
}

/// Whether a directory is the server's alone: it is to be there, or belongs to the server's user.
fn is_its_own(seen: &Seen, server: &Server, dir: &Path, stat: Stat) -> bool {
    server.wanted_dir.as_deref() == Some(dir) || seen.user.is_some_and(|user| user.uid == stat.uid)
}

/// Nobody else reads a log.
pub(super) fn log(seen: &Seen, server: &Server) -> Verdict {
    match &server.log {
        None => Finding::skip("it has no log of its own").into(),
        Some((path, stat)) if stat.kind != Kind::File => {
            Finding::skip(format!("{} is no file", path.display())).into()
        }
        Some((path, stat)) => {
            closed(seen, path, *stat, 0o007, "others can read it, or change what is known of an attack")
        }
    }
}

/// Nobody else reads the users' rules.
pub(super) fn acl(seen: &Seen, server: &Server) -> Verdict {
    match &server.acl_file {
        None => Finding::skip("it has no ACL file").into(),
        Some((path, stat)) => {
            closed(seen, path, *stat, 0o007, "others can read the hashes in it, or change its rules")
        }
    }
}

/// Nobody else reads backups.
pub(super) fn backups(seen: &Seen) -> Verdict {
    match seen.backups.iter().find(|(_, stat)| stat.mode & 0o077 != 0) {
        Some((path, stat)) => closed(seen, path, *stat, 0o077, "a backup has every key in it"),
        None => Finding::pass(match seen.backups.len() {
            0 => "there are no backups of ours".to_owned(),
            count => format!("{count} backups, root's alone"),
        })
        .into(),
    }
}

/// A mode without some bits. A server says where its files are, and may say what it likes: only what is the server's
/// user's own, or in a place for such files, is closed by a fix.
pub(super) fn closed(seen: &Seen, path: &Path, stat: Stat, wrong: u32, cause: &str) -> Verdict {
    let mode = stat.mode & 0o7777;
    if mode & wrong == 0 {
        return Finding::pass(format!("{} has mode {mode:04o}", path.display())).into();
    }
    let found = format!("{} has mode {mode:04o}", path.display());
    if !may_close(seen, path, stat) {
        let cure = match stat.kind == Kind::File && stat.links > 1 {
            true => {
                format!("find / -xdev -samefile {}    # which of its names may everybody read?", word(path))
            }
            false => format!("ls -ld {}    # is it a file of this server's?", word(path)),
        };
        return Finding::fail(found, cause, cure).into();
    }
    let to = mode & !wrong;
    Verdict::from(Finding::fail(found, cause, format!("chmod {to:04o} {}", word(path))))
        .with(close(path, stat, wrong))
}

/// Whether a file is one that a server of this engine has made, or that was made for it and stays open to it.
pub(super) fn may_close(seen: &Seen, path: &Path, stat: Stat) -> bool {
    // What a server says may lead out of the place again.
    let straight = path.components().all(|part| part != Component::ParentDir);
    let below = |place: PathBuf| straight && path.starts_with(&place) && path != place;
    let own = seen.user.is_some_and(|user| user.uid == stat.uid);
    let read = own || seen.user.is_some_and(|user| user.gid == stat.gid && stat.mode & 0o040 != 0);
    let places = [seen.engine.log(), crate::backup::dir(), crate::certificates::dir()];
    let for_it = (read && below(seen.engine.etc())) || places.into_iter().any(below);
    let one = stat.kind == Kind::Dir || (stat.kind == Kind::File && stat.links <= 1);
    one && (own || for_it)
}

/// A path as a shell reads it back.
pub(super) fn word(path: &Path) -> String {
    shell_word(&path.to_string_lossy())
}

/// A mode without some bits, as a fix.
pub(super) fn close(path: &Path, stat: Stat, wrong: u32) -> Fix {
    Fix::Close { path: path.to_path_buf(), inode: stat.inode, mode: stat.mode & 0o7777 & !wrong }
}
