//! Where an instance's data is: a directory of this machine, or a volume of a container engine.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::runtime::Program;

/// A place for data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Store {
    /// A volume.
    Volume {
        /// Whose it is.
        program: Program,
        /// Its name.
        volume: String,
    },
    /// A directory, or a log.
    Path(PathBuf),
}

impl Store {
    /// The path, if it is one of this machine.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Volume { .. } => None,
        }
    }

    /// Whether this is the other, or lies in it.
    pub fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Path(path), Self::Path(other)) => path.starts_with(other),
            _ => self == other,
        }
    }
}

impl From<&Path> for Store {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_path_buf())
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Volume { program, volume } => write!(f, "the {program} volume {volume}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_an_older_record_still_reads() {
        let read = |text: &str| serde_json::from_str::<Store>(text).unwrap();
        assert_eq!(read("\"/var/lib/redis\""), Store::Path("/var/lib/redis".into()));
        let volume = Store::Volume { program: Program::Docker, volume: "redis-master-data".into() };
        assert_eq!(read(&serde_json::to_string(&volume).unwrap()), volume);
    }
}
