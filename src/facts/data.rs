//! What lies in the directory of an instance that was set up by hand. Its configuration names the files, and who wrote
//! that chose the names: so what counts is what is in them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::{Host, Ids, Kind, Stat};
use crate::instance::Instance;

/// What a directory has in it that is not the server's user's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Something is there that no server makes.
    #[serde(default)]
    pub foreign: Option<PathBuf>,
    /// A server has saved its data there.
    #[serde(default)]
    pub data: bool,
}

/// How files of data begin: an RDB's version, a command of an append only file, its time, its manifest (rdb.c, aof.c).
const BEGINNINGS: [&[u8]; 5] = [b"REDIS", b"VALKEY", b"*", b"#TS:", b"file "];

/// The dump, the append only file, and the directory of its parts.
pub fn named(instance: &Instance) -> Option<[PathBuf; 3]> {
    let dir = instance.store.path()?;
    let file = |name: &str, default: &str| dir.join(word(instance, name).unwrap_or(default));
    instance.plain.as_ref().map(|_| {
        [
            file("dbfilename", "dump.rdb"),
            file("appendfilename", "appendonly.aof"),
            file("appenddirname", "appendonlydir"),
        ]
    })
}

/// The files that an instance keeps its data in, where they may be another's.
pub(super) fn files(host: &Host, instance: &Instance, user: Option<Ids>) -> Vec<PathBuf> {
    let Some([dump, log, parts]) = named(instance) else { return Vec::new() };
    let mut files = entries(host, &parts);
    files.extend([dump, log]);
    files.retain(|path| is_the_users(host, path, user) || is_data(host, path));
    files.push(parts);
    files
}

/// What is in an instance's directory.
pub(super) fn held(host: &Host, instance: &Instance, user: Option<Ids>) -> Option<Held> {
    let (dir, [.., parts]) = (instance.store.path()?, named(instance)?);
    let all: Vec<PathBuf> = entries(host, dir).into_iter().chain(entries(host, &parts)).collect();
    let fine = |path: &PathBuf| {
        *path == parts
            || is_the_users(host, path, user)
            || is_data(host, path)
            || is_beside(host, instance, path)
    };
    let foreign = all.iter().find(|path| !fine(path)).cloned();
    let data = all.iter().any(|path| is_data(host, path) && host.length(path) > 0);
    Some(Held { foreign, data })
}

/// What is in a directory; nothing where it is none, or a link to one.
fn entries(host: &Host, dir: &Path) -> Vec<PathBuf> {
    match host.stat(dir) {
        Ok(Some(stat)) if stat.kind == Kind::Dir => {
            host.list(dir).unwrap_or_default().into_iter().map(|name| dir.join(name)).collect()
        }
        _ => Vec::new(),
    }
}

fn is_the_users(host: &Host, path: &Path, user: Option<Ids>) -> bool {
    matches!(host.stat(path), Ok(Some(stat)) if user.is_some_and(|user| user.uid == stat.uid))
}

/// Whether a file is one of data, whatever it is called.
fn is_data(host: &Host, path: &Path) -> bool {
    let plain = matches!(host.stat(path), Ok(Some(stat)) if stat.is_plain());
    plain && head(host, path).is_some_and(|head| head.is_empty() || begins(&head, &BEGINNINGS))
}

/// Whether it is what a server has beside its data: its configuration, a log, its number, its socket, its users.
fn is_beside(host: &Host, instance: &Instance, path: &Path) -> bool {
    let Ok(Some(stat)) = host.stat(path) else { return true };
    let is = |name: &str| word(instance, name).map(Path::new) == Some(path);
    let digits = |head: Vec<u8>| head.iter().all(|byte| byte.is_ascii_digit() || *byte == b'\n');
    match stat.kind {
        Kind::Dir => path.file_name().is_some_and(|name| name == "lost+found"),
        Kind::Other => is("unixsocket"),
        Kind::Link => false,
        Kind::File if *path == instance.conf => true,
        Kind::File if is("pidfile") => stat.is_plain() && head(host, path).is_some_and(digits),
        Kind::File if is("aclfile") => {
            stat.is_plain() && head(host, path).is_some_and(|head| begins(&head, &[b"user "]))
        }
        Kind::File => {
            stat.is_plain() && is_log(path) && instance.logfile.as_deref().is_some_and(|log| is_of(log, path))
        }
    }
}

/// Whether a name is a log's: `redis.log`, `redis.log.1`, `redis.log.2.gz`.
pub fn is_log(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".log") || name.contains(".log.")
}

/// Whether a file is a log, or was that before it was rotated.
fn is_of(log: &Path, path: &Path) -> bool {
    path.to_string_lossy().starts_with(&*log.to_string_lossy())
}

fn begins(head: &[u8], beginnings: &[&[u8]]) -> bool {
    beginnings.iter().any(|beginning| head.starts_with(beginning))
}

fn head(host: &Host, path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let took = host.pieces(path, 16, |piece| {
        head.extend(piece.iter().take(16));
        true
    });
    took.ok().map(|_| head)
}

/// The last value of a directive that is a name.
fn word<'a>(instance: &'a Instance, name: &str) -> Option<&'a str> {
    let lines = instance.plain.as_ref()?;
    lines.iter().rev().find(|line| line.name == name)?.args.first().map(String::as_str)
}

impl Stat {
    /// Whether it is a file that is nothing but content: no program, and known by no second name.
    pub fn is_plain(&self) -> bool {
        self.kind == Kind::File && self.mode & 0o6111 == 0 && self.links <= 1
    }
}
