//! Backups: where they are and how they are called, and what the head of an RDB tells of it.
//!
//! The format is Redis's own (rdb.c, `rdbSaveRio`): `REDIS` and four digits, then fields about the writer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::engine::{Engine, Version};
use crate::host::Host;
use crate::layout;
use crate::moment::utc;
use crate::topology::Name;

/// Where backups are, unless another place is named: none that a purge takes.
pub fn dir() -> PathBuf {
    let here = layout::here();
    match here.login {
        None => "/var/backups/redis-tp".into(),
        Some(_) => here.data.join("redis-tp-backups"),
    }
}

/// The backups that there are in the usual place.
///
/// # Errors
/// The directory cannot be listed.
pub fn there(host: &Host) -> Result<BTreeSet<PathBuf>> {
    let dir = dir();
    let is_one = |name: &String| name.ends_with(".rdb") && !name.starts_with('.');
    Ok(host.list(&dir)?.into_iter().filter(is_one).map(|name| dir.join(name)).collect())
}

/// The backup of an instance at a moment, in seconds since 1970; with a number behind it if another has that
/// name.
pub fn path(dir: &Path, name: &Name, time: u64, taken: impl Fn(&Path) -> bool) -> PathBuf {
    let digits: String = utc(time).chars().filter(char::is_ascii_digit).collect();
    let (date, clock) = digits.split_at(8.min(digits.len()));
    let first = format!("{name}-{date}T{clock}{:02}Z", time % 60);
    let mut path = dir.join(format!("{first}.rdb"));
    let mut number = 2;
    while taken(&path) {
        path = dir.join(format!("{first}-{number}.rdb"));
        number += 1;
    }
    path
}

/// What the name of a backup tells: the instance, and when it was taken (`2026-11-26 16:14 UTC`).
pub fn told(path: &Path) -> Option<(Name, String)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".rdb")?;
    let (before, rest) = name.rsplit_once('T')?;
    let (instance, date) = before.rsplit_once('-')?;
    let clock = rest.split_once('Z').map(|(clock, _)| clock)?;
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(date, 8) || !digits(clock, 6) {
        return None;
    }
    let part = |text: &str, from: usize, to: usize| text.get(from..to).unwrap_or_default().to_owned();
    let (year, month, day) = (part(date, 0, 4), part(date, 4, 6), part(date, 6, 8));
    let (hours, minutes) = (part(clock, 0, 2), part(clock, 2, 4));
    Some((Name::parse(instance).ok()?, format!("{year}-{month}-{day} {hours}:{minutes} UTC")))
}

/// What stands at the beginning of an RDB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The format.
    pub version: u32,
    /// Who wrote it, in words.
    pub writer: Option<String>,
}

/// How many bytes [`head`] wants to see.
pub const HEAD: u64 = 64;

/// Reads the head of an RDB.
///
/// # Errors
/// It is none; in words for behind the file's name.
pub fn head(bytes: &[u8]) -> Result<Head, &'static str> {
    let (magic, digits) = match bytes {
        [b'R', b'E', b'D', b'I', b'S', rest @ ..] => ("Redis", rest.get(..4)),
        [b'V', b'A', b'L', b'K', b'E', b'Y', rest @ ..] => ("Valkey", rest.get(..3)),
        [] => return Err("is empty"),
        _ => return Err("is no RDB"),
    };
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let version = number.ok_or("is no RDB")?;
    Ok(Head { version, writer: writer(bytes.get(9..).unwrap_or_default(), magic) })
}

/// The first field: opcode 0xFA, and two strings with a byte for their length.
fn writer(rest: &[u8], magic: &str) -> Option<String> {
    let string = |at: &[u8]| -> Option<(String, usize)> {
        let length = usize::from(*at.first()?);
        let text = std::str::from_utf8(at.get(1..=length).filter(|_| length < 64)?).ok()?;
        Some((text.to_owned(), length + 1))
    };
    let fields = rest.strip_prefix(&[0xFA])?;
    let (name, length) = string(fields)?;
    let (version, _) = string(fields.get(length..)?)?;
    match name.as_str() {
        "valkey-ver" => Some(format!("Valkey {version}")),
        "redis-ver" => Some(format!("{magic} {version}")),
        _ => None,
    }
}

/// The newest format that a server reads (rdb.h, `RDB_VERSION`); none where that is not known.
pub fn newest(engine: Engine, version: Version) -> Option<u32> {
    match (engine, version.major, version.minor) {
        (Engine::Redis, 5..=6, _) => Some(9),
        (Engine::Redis, 7, 0) => Some(10),
        (Engine::Redis, 7, 1..=2) | (Engine::Valkey, 7..=8, _) => Some(11),
        (Engine::Redis, 7, 3..) | (Engine::Redis, 8, 0) => Some(12),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_tells_format_and_writer() {
        let redis = b"REDIS0010\xfa\x09redis-ver\x067.0.15\xfa\x0aredis-bits\xc0\x40";
        let head = head(redis).unwrap();
        assert_eq!((head.version, head.writer.as_deref()), (10, Some("Redis 7.0.15")));
        let valkey = super::head(b"REDIS0011\xfa\x0avalkey-ver\x058.1.1").unwrap();
        assert_eq!(valkey.writer.as_deref(), Some("Valkey 8.1.1"));
    }

    #[test]
    fn what_is_no_rdb_is_told() {
        for (bytes, why) in [
            (&b""[..], "is empty"),
            (b"REDIS", "is no RDB"),
            (b"REDISabcd", "is no RDB"),
            (b"PK", "is no RDB"),
        ] {
            assert_eq!(head(bytes), Err(why));
        }
        assert_eq!(head(b"REDIS0009\xfa\xff").unwrap().writer, None);
    }

    #[test]
    fn a_backup_is_called_by_its_moment() {
        let name = Name::parse("master").unwrap();
        let time = 1_795_709_655;
        let first = path(Path::new("/b"), &name, time, |_| false);
        assert_eq!(first, Path::new("/b/master-20261126T161415Z.rdb"));
        let second = path(Path::new("/b"), &name, time, |path| path == first);
        assert_eq!(second, Path::new("/b/master-20261126T161415Z-2.rdb"));
        for path in [first, second] {
            assert_eq!(told(&path), Some((name.clone(), "2026-11-26 16:14 UTC".to_owned())));
        }
    }

    #[test]
    fn a_name_of_another_kind_tells_nothing() {
        for name in ["dump.rdb", "master-20261126T161415Z", "T-T.rdb", "a-2026112éT161415Z.rdb", ".rdb"] {
            assert_eq!(told(Path::new(name)), None, "{name}");
        }
    }
}
