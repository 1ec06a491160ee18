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

/// How files of data begin, before a digit: an RDB's version, how long a command of an append only file is, its time
/// (rdb.c, aof.c). A setting of a program may be called `REDIS_URL`, and a time of cron(8) `*/5`.
const BEGINNINGS: [&[u8]; 4] = [b"REDIS", b"VALKEY", b"*", b"#TS:"];

/// A directive that names what a server reads at its start, and its default (config.c).
type Named = (&'static str, &'static str);

const DUMP: Named = ("dbfilename", "dump.rdb");
const LOG: Named = ("appendfilename", "appendonly.aof");
const PARTS: Named = ("appenddirname", "appendonlydir");

/// What a server reads at its start, by `appendonly`.
pub fn names(appendonly: bool) -> &'static [Named] {
    if appendonly { &[PARTS, LOG] } else { &[DUMP] }
}

/// What an instance would read at its start, and what it would by the defaults.
pub(super) fn to_read(instance: &Instance) -> Vec<PathBuf> {
    let names = [DUMP, LOG, PARTS];
    let files = names.into_iter().flat_map(|(name, default)| [Some(default), word(instance, name)]).flatten();
    instance.store.path().map(|dir| files.map(|file| dir.join(file)).collect()).unwrap_or_default()
}

/// The dump, the append only file, and the directory of its parts, of an instance that was set up by hand.
pub fn named(instance: &Instance) -> Option<[PathBuf; 3]> {
    let dir = instance.store.path()?;
    let file = |(name, default)| dir.join(word(instance, name).unwrap_or(default));
    instance.plain.as_ref().map(|_| [DUMP, LOG, PARTS].map(file))
}

/// The files that an instance keeps its data in, where they may be another's.
pub(super) fn files(host: &Host, instance: &Instance, user: Option<Ids>) -> Vec<PathBuf> {
    let Some([dump, log, parts]) = named(instance) else { return Vec::new() };
    let mut files = entries(host, &parts);
    files.extend([dump, log]);
    files.retain(|path| {
        stat(host, path).is_some_and(|stat| is_the_users(&stat, user) || is_data(host, path, &stat))
    });
    files.push(parts);
    files
}

/// What is in an instance's directory.
pub(super) fn held(host: &Host, instance: &Instance, user: Option<Ids>) -> Option<Held> {
    let (dir, [.., parts]) = (instance.store.path()?, named(instance)?);
    let mut held = Held::default();
    for path in entries(host, dir).into_iter().chain(entries(host, &parts)) {
        let Some(stat) = stat(host, &path) else {
            // It is gone by now, or its name is no UTF-8, as no server names a file.
            if path.to_string_lossy().contains(char::REPLACEMENT_CHARACTER) {
                held.foreign.get_or_insert(path);
            }
            continue;
        };
        let data = is_data(host, &path, &stat);
        held.data |= data && host.length(&path) > 0;
        let known =
            data || path == parts || is_the_users(&stat, user) || is_beside(host, instance, &path, &stat);
        if !known {
            held.foreign.get_or_insert(path);
        }
    }
    Some(held)
}

/// What is in a directory; nothing where it is none, or a link to one.
fn entries(host: &Host, dir: &Path) -> Vec<PathBuf> {
    match stat(host, dir) {
        Some(stat) if stat.kind == Kind::Dir => {
            host.list(dir).unwrap_or_default().into_iter().map(|name| dir.join(name)).collect()
        }
        _ => Vec::new(),
    }
}

fn stat(host: &Host, path: &Path) -> Option<Stat> {
    host.stat(path).ok().flatten()
}

fn is_the_users(stat: &Stat, user: Option<Ids>) -> bool {
    user.is_some_and(|user| user.uid == stat.uid)
}

/// Whether a file is one of data, whatever it is called. Its mode says nothing where its content does.
fn is_data(host: &Host, path: &Path, stat: &Stat) -> bool {
    let plain = Stat { mode: stat.mode & !0o111, ..*stat }.is_plain();
    let is = |head: Vec<u8>| match head.is_empty() {
        true => stat.is_plain(),
        false => is_datas(&head) || (is_manifest(path) && head.starts_with(b"file ")),
    };
    plain && head(host, path).is_some_and(is)
}

fn is_datas(head: &[u8]) -> bool {
    let digit = |rest: &[u8]| rest.first().is_some_and(u8::is_ascii_digit);
    BEGINNINGS.iter().any(|beginning| head.strip_prefix(*beginning).is_some_and(digit))
}

/// Whether a name is that of what tells the parts of an append only file.
fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "manifest")
}

/// Whether it is what a server has beside its data: its configuration, a log, its number, its socket, its users.
fn is_beside(host: &Host, instance: &Instance, path: &Path, stat: &Stat) -> bool {
    let is = |name: &str| word(instance, name).map(Path::new) == Some(path);
    let has =
        |right: &dyn Fn(&[u8]) -> bool| stat.is_plain() && head(host, path).is_some_and(|head| right(&head));
    let digits = |head: &[u8]| head.iter().all(|byte| byte.is_ascii_digit() || *byte == b'\n');
    match stat.kind {
        Kind::Dir => path.file_name().is_some_and(|name| name == "lost+found"),
        Kind::Other => is("unixsocket"),
        Kind::Link => false,
        Kind::File if *path == instance.conf => true,
        Kind::File if is("pidfile") => has(&digits),
        Kind::File if is("aclfile") => has(&|head| head.starts_with(b"user ")),
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
    let lines = instance.plain.as_ref().unwrap_or(&instance.directives);
    lines.iter().rev().find(|line| line.name == name)?.args.first().map(String::as_str)
}
