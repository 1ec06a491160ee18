//! The engine: Redis or Valkey as Debian packages it. Data, not code paths.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::layout;

/// Which server family is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Redis, package redis-server.
    #[default]
    Redis,
    /// Valkey, package valkey-server (Debian 13 and later).
    Valkey,
}

impl Engine {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Redis, Self::Valkey];

    /// The name that Debian uses for the user, the group, the directories and the units.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
        }
    }

    /// The package with the server, its units and its stock configuration.
    pub fn package(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
        }
    }

    /// The package with the client; it makes the user and the directories, and its purge removes them.
    pub fn tools_package(self) -> &'static str {
        match self {
            Self::Redis => "redis-tools",
            Self::Valkey => "valkey-tools",
        }
    }

    /// The server's program.
    pub fn server(self) -> &'static str {
        self.package()
    }

    /// The client's program.
    pub fn cli(self) -> &'static str {
        match self {
            Self::Redis => "redis-cli",
            Self::Valkey => "valkey-cli",
        }
    }

    /// The program that checks an RDB.
    pub fn check_rdb(self) -> &'static str {
        match self {
            Self::Redis => "redis-check-rdb",
            Self::Valkey => "valkey-check-rdb",
        }
    }

    /// The system user that servers run as.
    pub fn user(self) -> &'static str {
        self.name()
    }

    /// The directory of configurations; Debian has it 2770 and owned by the server's user.
    pub fn etc(self) -> PathBuf {
        layout::here().config.join(self.name())
    }

    /// The directory of logs; Debian has it 2750 with group adm.
    pub fn log(self) -> PathBuf {
        layout::here().log.join(self.name())
    }

    /// The data directory of an instance: the first master has the distribution's own.
    pub fn data(self, instance: &str) -> PathBuf {
        layout::here().data.join(self.directory(instance))
    }

    /// The run directory of an instance, which systemd makes and the process runtime must make.
    pub fn run(self, instance: &str) -> PathBuf {
        layout::here().run.join(self.directory(instance))
    }

    /// The configuration file of an instance.
    pub fn conf(self, instance: &str) -> PathBuf {
        self.etc().join(format!("{}.conf", self.directory(instance)))
    }

    /// The log of an instance.
    pub fn logfile(self, instance: &str) -> PathBuf {
        match instance {
            MASTER => self.log().join(format!("{}.log", self.server())),
            _ => self.log().join(format!("{}.log", self.directory(instance))),
        }
    }

    /// The pid file of an instance, as the distribution's units expect it.
    pub fn pidfile(self, instance: &str) -> PathBuf {
        self.run(instance).join(format!("{}.pid", self.server()))
    }

    /// The unit of an instance: the distribution's service, or an instance of its template.
    pub fn unit(self, instance: &str) -> String {
        match instance {
            MASTER => format!("{}.service", self.server()),
            _ => format!("{}@{instance}.service", self.server()),
        }
    }

    fn directory(self, instance: &str) -> String {
        match instance {
            MASTER => self.name().to_owned(),
            _ => format!("{}-{instance}", self.name()),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
        })
    }
}

/// The instance that has the distribution's own configuration, directory and unit.
pub const MASTER: &str = "master";

/// A server's version, compared by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// 7 of 7.0.15
    pub major: u32,
    /// 0 of 7.0.15
    pub minor: u32,
    /// 15 of 7.0.15
    pub patch: u32,
}

impl Version {
    /// A version without its patch level.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, patch: 0 }
    }

    /// Reads `7.0.15`, or the upstream part of Debian's `5:7.0.15-1~deb12u10`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.split_once(':').map_or(text, |(_, rest)| rest);
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
        let (major, minor) = (numbers.next()??, numbers.next()??);
        Some(Self { major, minor, patch: numbers.next().flatten().unwrap_or(0) })
    }

    /// Reads the first line of `redis-server --version`: `Redis server v=7.0.15 sha=…`.
    pub fn of_banner(banner: &str) -> Option<Self> {
        Self::parse(banner.split_once("v=")?.1.split_whitespace().next()?)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl TryFrom<String> for Version {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("'{text}' is no version"))
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_labs_paths_come_out_exactly() {
        let redis = Engine::Redis;
        assert_eq!(redis.conf("master"), Path::new("/etc/redis/redis.conf"));
        assert_eq!(redis.conf("slave"), Path::new("/etc/redis/redis-slave.conf"));
        assert_eq!(redis.data("slave"), Path::new("/var/lib/redis-slave"));
        assert_eq!(redis.logfile("slave"), Path::new("/var/log/redis/redis-slave.log"));
        assert_eq!(redis.logfile("master"), Path::new("/var/log/redis/redis-server.log"));
        assert_eq!(redis.pidfile("slave"), Path::new("/run/redis-slave/redis-server.pid"));
        assert_eq!(Engine::Valkey.unit("slave"), "valkey-server@slave.service");
    }

    #[test]
    fn versions_of_packages_and_banners_are_read() {
        let version = Version { major: 7, minor: 0, patch: 15 };
        assert_eq!(Version::parse("5:7.0.15-1~deb12u10"), Some(version));
        assert_eq!(Version::of_banner("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc"), Some(version));
        assert_eq!(Version::parse("unknown"), None);
        assert!(Version::new(6, 2) < version);
    }
}
