//! The section `[app]`: the cache-aside web app as wanted. Its values are types that hold no wrong one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::absolute;
use crate::tls::Tls;

/// The section's name, which no instance may have.
pub const APP: &str = "app";

/// The section, with every default filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSection {
    /// Its line in the topology; 0 for one that stands in none.
    pub line: usize,
    /// The address it listens on.
    pub bind: IpAddr,
    /// Its port.
    pub port: u16,
    /// How long a value stays in the cache: the lab's 60 s.
    pub ttl: Duration,
    /// How long the simulated database takes to answer: the lab's 2 s.
    pub slow: Duration,
    /// What stands before a key in Redis; nothing in the lab.
    pub prefix: Prefix,
    /// Which instances are read.
    pub read_from: ReadFrom,
    /// Where a value comes from that is not in the cache.
    pub source: Source,
    /// The table of a SQLite source, with the columns `key` and `value`.
    pub table: Table,
    /// What it shows to servers with certificates of the user's own, and whom it trusts: all three files, or none.
    #[serde(default)]
    pub tls: [Option<PathBuf>; 3],
}

impl Default for AppSection {
    fn default() -> Self {
        Self {
            line: 0,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 5000,
            ttl: Duration::from_secs(60),
            slow: Duration::from_secs(2),
            prefix: Prefix::default(),
            read_from: ReadFrom::default(),
            source: Source::default(),
            table: Table::default(),
            tls: [None, None, None],
        }
    }
}

impl AppSection {
    /// The keys of the section.
    pub const KEYS: [&'static str; 8] =
        ["bind", "port", "ttl", "slow", "prefix", "read-from", "source", "table"];

    /// Those that name files for TLS, which are no settings of the running app: it gets what is in them.
    pub const FILES: [&'static str; 3] = ["tls-ca-cert-file", "tls-cert-file", "tls-key-file"];

    /// The files of [`Self::FILES`].
    pub fn files(&self) -> Option<Tls> {
        let [Some(ca), Some(cert), Some(key)] = self.tls.clone() else { return None };
        Some(Tls { ca, cert, key })
    }

    /// The one of [`Self::FILES`] that the others are worth nothing without.
    pub fn missing_file(&self) -> Option<&'static str> {
        let named = self.tls.iter().filter(|file| file.is_some()).count();
        let missing = Self::FILES.into_iter().zip(&self.tls).find(|(_, file)| file.is_none());
        missing.filter(|_| named > 0).map(|(key, _)| key)
    }

    /// Sets one key.
    ///
    /// # Errors
    /// What is wrong with the value, and the cure. No such key: none of the caller's [`Self::KEYS`].
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), (String, String)> {
        let cure = |text: &str| {
            let text = text.to_owned();
            move |why: String| (why, text)
        };
        match key {
            "bind" => {
                self.bind = value
                    .parse()
                    .map_err(|_| format!("'{value}' is no IP address"))
                    .map_err(cure("for example: bind = 127.0.0.1"))?;
            }
            "port" => {
                self.port = super::port_number(value).map_err(cure("give a free port, for example 5000"))?;
            }
            "ttl" => self.ttl = lifetime(value).map_err(cure("the lab has: ttl = 60"))?,
            "slow" => self.slow = delay(value).map_err(cure("the lab has: slow = 2"))?,
            "prefix" => self.prefix = Prefix::parse(value).map_err(cure("for example: prefix = cache:"))?,
            "read-from" => {
                self.read_from = ReadFrom::parse(value).map_err(cure("one of: master, replica, any"))?;
            }
            "source" => {
                self.source = Source::parse(value)
                    .map_err(cure("for example: source = simulated, or: source = sqlite:/srv/lab.db"))?;
            }
            "table" => self.table = Table::parse(value).map_err(cure("for example: table = data"))?,
            _ if Self::FILES.contains(&key) => {
                let file = absolute(value).map_err(cure("give an absolute path"))?;
                for (name, place) in Self::FILES.into_iter().zip(&mut self.tls) {
                    *place = if name == key { Some(file.clone()) } else { place.take() };
                }
            }
            _ => return Err((format!("the app has no '{key}'"), "see `redis-tp app serve --help`".into())),
        }
        Ok(())
    }

    /// Each key as the section would have it, in the order of [`Self::KEYS`].
    pub fn pairs(&self) -> [(&'static str, String); 8] {
        [
            ("bind", self.bind.to_string()),
            ("port", self.port.to_string()),
            ("ttl", self.ttl.as_secs().to_string()),
            ("slow", self.slow.as_secs_f64().to_string()),
            ("prefix", self.prefix.as_str().to_owned()),
            ("read-from", self.read_from.to_string()),
            ("source", self.source.to_string()),
            ("table", self.table.as_str().to_owned()),
        ]
    }
}

/// A value's lifetime in the cache, in whole seconds.
///
/// # Errors
/// Not a number from 1 to 86400.
pub fn lifetime(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("'{text}' is no lifetime: seconds, from 1 to 86400")),
    }
}

/// How long something takes, in seconds; `0.2` is fine.
///
/// # Errors
/// Not a number from 0 to 60.
pub fn delay(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        // To the millisecond: what is written back reads the same.
        Ok(seconds) if (0.0..=60.0).contains(&seconds) => {
            Ok(Duration::from_millis((seconds * 1e3).round() as u64))
        }
        _ => Err(format!("'{text}' is no delay: seconds, from 0 to 60")),
    }
}

/// What stands before a key in Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Prefix(String);

impl Prefix {
    /// Reads a prefix: ASCII that prints, no blank, no `;`, 64 at most; none at all is fine.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fine = |c: char| c.is_ascii_graphic() && c != ';';
        match text.len() <= 64 && text.chars().all(fine) {
            true => Ok(Self(text.to_owned())),
            false => {
                Err(format!("'{text}' is no prefix: ASCII without blanks and ';', 64 characters at most"))
            }
        }
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which instances the app reads. It writes to the master alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ReadFrom {
    /// The master.
    #[default]
    Master,
    /// The replicas in turn; the master while there is none with a link.
    Replica,
    /// All of them in turn.
    Any,
}

impl ReadFrom {
    /// Reads `master`, `replica` or `any`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        clap::ValueEnum::from_str(text, false).map_err(|_| format!("'{text}' is nothing to read from"))
    }
}

impl fmt::Display for ReadFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Master => "master",
            Self::Replica => "replica",
            Self::Any => "any",
        })
    }
}

/// Where a value comes from that is not in the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The lab's: it takes its time, and answers with the key in capitals.
    #[default]
    Simulated,
    /// A table of a SQLite database.
    Sqlite(PathBuf),
}

impl Source {
    /// Reads `simulated` or `sqlite:FILE`.
    ///
    /// # Errors
    /// Anything else, and a file that is no absolute path.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "simulated" => Ok(Self::Simulated),
            Some(("sqlite", file)) => absolute(file).map(Self::Sqlite).map_err(|_| {
                format!(
                    "'{file}' is no path of a database, as /srv/lab.db is: from the root, two levels or \
                     more, of a-z A-Z 0-9 . _ + @ , -"
                )
            }),
            _ => Err(format!("'{text}' is no source: simulated, or sqlite:FILE")),
        }
    }

    /// Its kind alone: where the file lies is nobody's business who asks over the network.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Simulated => "simulated",
            Self::Sqlite(_) => "sqlite",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simulated => f.write_str("simulated"),
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
        }
    }
}

/// The name of a table, which needs no quotes in SQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Table(String);

impl Default for Table {
    fn default() -> Self {
        Self("data".into())
    }
}

impl Table {
    /// Reads a name: a letter or `_`, then letters, digits and `_`, 64 at most.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        match starts && text.len() <= 64 && text.chars().all(letters) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("'{text}' is no name of a table: letters, digits and '_'")),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_section_says_reads_the_same_again() {
        let mut section = AppSection::default();
        for (key, value) in [("slow", "0.25"), ("prefix", "lab:"), ("source", "sqlite:/srv/lab.db")] {
            section.set(key, value).unwrap();
        }
        let mut again = AppSection::default();
        for (key, value) in section.pairs() {
            again.set(key, &value).unwrap();
        }
        assert_eq!(again, section);
        assert_eq!(section.pairs().map(|(key, _)| key), AppSection::KEYS);
    }

    #[test]
    fn a_value_that_cannot_be_is_refused_with_a_cure() {
        for (key, value) in [
            ("bind", "localhost"),
            ("port", "0"),
            ("ttl", "0"),
            ("ttl", "1.5"),
            ("slow", "-1"),
            ("slow", "NaN"),
            ("slow", "inf"),
            ("prefix", "a b"),
            ("read-from", "Master"),
            ("source", "mysql"),
            ("source", "sqlite:"),
            ("source", "sqlite:lab.db"),
            ("table", "data; DROP TABLE data"),
            ("tables", "data"),
        ] {
            let (why, cure) = AppSection::default().set(key, value).expect_err(value);
            assert!(!why.is_empty() && !cure.is_empty(), "{key} = {value}");
        }
    }
}
