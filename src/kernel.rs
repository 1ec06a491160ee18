//! The kernel's settings that a Redis server wants: where they are, what they are to be, and the file that makes them so
//! at each start of the machine. Pure.

use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// A fork for saving does not fail for want of memory that it would never use.
    Overcommit,
    /// As many connections may wait as a server's `tcp-backlog` says.
    Connections,
    /// Memory is not copied in pieces of 2 MiB while a child saves.
    HugePages,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Overcommit, Self::Connections, Self::HugePages];

    /// Its file in /proc or /sys.
    pub fn path(self) -> &'static Path {
        Path::new(match self {
            Self::Overcommit => "/proc/sys/vm/overcommit_memory",
            Self::Connections => "/proc/sys/net/core/somaxconn",
            Self::HugePages => "/sys/kernel/mm/transparent_hugepage/enabled",
        })
    }

    /// As sysctl(8) calls it; huge pages are none of its.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overcommit => "vm.overcommit_memory",
            Self::Connections => "net.core.somaxconn",
            Self::HugePages => "transparent_hugepage",
        }
    }

    /// The file of ours that sets it when the machine starts.
    pub fn file(self) -> PathBuf {
        match self {
            Self::Overcommit => "/etc/sysctl.d/60-redis-tp-overcommit.conf".into(),
            Self::Connections => "/etc/sysctl.d/60-redis-tp-somaxconn.conf".into(),
            Self::HugePages => "/etc/tmpfiles.d/redis-tp-huge-pages.conf".into(),
        }
    }

    /// What is in that.
    pub fn line(self, value: &str) -> String {
        match self {
            Self::HugePages => format!("w {} - - - - {value}\n", self.path().display()),
            _ => format!("{} = {value}\n", self.name()),
        }
    }

    /// The same typed by a person.
    pub fn typed(self, value: &str) -> String {
        let (line, file) = (self.line(value), self.file());
        let now = match self {
            Self::HugePages => format!("systemd-tmpfiles --create {}", file.display()),
            _ => format!("sysctl -p {}", file.display()),
        };
        format!("echo '{}' > {} && {now}", line.trim_end(), file.display())
    }

    /// The setting of a file in /proc or /sys.
    pub fn of(path: &Path) -> Option<Self> {
        Self::ALL.into_iter().find(|setting| setting.path() == path)
    }
}

/// The value in what the kernel tells: of a choice it is in brackets.
pub fn value(text: &str) -> &str {
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or(text.trim(), |(chosen, _)| chosen)
}

/// Whether a process's environment says that it is the first one of a container (container(7) of systemd, lxc).
pub fn of_container(environ: &Secret) -> bool {
    environ
        .expose()
        .split('\0')
        .any(|pair| pair.strip_prefix("container=").is_some_and(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_what_stands_in_brackets() {
        assert_eq!(value("always [madvise] never\n"), "madvise");
        assert_eq!(value("1\n"), "1");
    }

    #[test]
    fn a_container_says_so() {
        let of = |text: &str| of_container(&Secret::new(text));
        assert!(of("HOME=/\0container=lxc\0"));
        assert!(!of("HOME=/\0container=\0xcontainer=lxc") && !of(""));
    }
}
