//! Who keeps an instance running. A runtime yields steps and commands to type; it has no effects.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::topology::RuntimeChoice;

pub mod process;
pub mod systemd;

/// A runtime as it was settled for this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The distribution's units.
    Systemd,
    /// A daemon with a pid file, where systemd is not PID 1.
    Process,
}

impl Runtime {
    /// What `auto` comes to: systemd where it runs and the engine has units, else processes.
    ///
    /// # Errors
    /// systemd is asked for and is not there.
    pub fn settle(choice: RuntimeChoice, systemd: bool) -> Result<Self, String> {
        match choice {
            RuntimeChoice::Auto if systemd => Ok(Self::Systemd),
            RuntimeChoice::Auto | RuntimeChoice::Process => Ok(Self::Process),
            RuntimeChoice::Systemd if systemd => Ok(Self::Systemd),
            RuntimeChoice::Systemd => Err("runtime = systemd, but systemd is not PID 1 here".into()),
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Systemd => "systemd",
            Self::Process => "process",
        })
    }
}
