//! What a running server can be told without a restart: settings as CONFIG SET takes them.

use serde::{Serialize, Serializer};

use crate::conf::LIMITS;
use crate::secret::{MASK, Secret};

/// One directive and what it is to be from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its name in lower case, never an alias. `replicaof` is told by a command of that name.
    pub directive: String,
    /// Its value.
    pub value: Value,
}

impl Setting {
    /// Whether it makes a server follow another.
    pub fn follows(&self) -> bool {
        self.directive == "replicaof" && self.value != Value::Plain(NO_ONE.into())
    }

    /// For eyes: as a line of a file, with what is no plain word in brackets.
    pub fn words(&self) -> String {
        let value = match (&self.value, self.directive.as_str()) {
            (Value::Proved, LIMITS) => "(of every class)".into(),
            (value, _) => value.masked(),
        };
        format!("{} {value}", self.directive)
    }
}

/// The words behind `replicaof` that make a server a master.
pub const NO_ONE: &str = "no one";

/// A value for CONFIG SET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// In words of the file, joined.
    Plain(String),
    /// Nobody's to see.
    Secret(Secret),
    /// What the server makes of the new file: it no longer names the directive, or only a part of it. The
    /// proof tells.
    Proved,
}

impl Value {
    /// For eyes.
    pub fn masked(&self) -> String {
        match self {
            Self::Plain(text) if text.is_empty() => "\"\"".into(),
            Self::Plain(text) => text.clone(),
            Self::Secret(_) => MASK.into(),
            Self::Proved => "(default)".into(),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

/// What a restart costs, as far as it can be seen beforehand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Clients that are cut off.
    pub clients: u64,
    /// Replicas that have to find their master again, and may have to copy all of its data.
    pub replicas: u64,
    /// Changes that no file has yet.
    pub unsaved: u64,
    /// Whether those are written before the server ends.
    pub saves: bool,
}

impl Cost {
    /// In words; none where it costs nobody anything.
    pub fn words(&self) -> Option<String> {
        let count = |number: u64, one: &str, many: &str| match number {
            0 => None,
            1 => Some(format!("1 {one}")),
            number => Some(format!("{number} {many}")),
        };
        let unsaved = match self.saves {
            true => count(self.unsaved, "change is saved first", "changes are saved first"),
            false => count(self.unsaved, "change is lost", "changes are lost: nothing is saved"),
        };
        let parts: Vec<String> = [
            count(self.clients, "client is cut off", "clients are cut off"),
            unsaved,
            count(self.replicas, "replica resyncs", "replicas resync"),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}
