//! Who keeps an instance running. A runtime yields steps and commands to type; it has no effects.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::exit::Fault;
use crate::layout;
use crate::topology::RuntimeChoice;

pub mod compose;
pub mod container;
pub mod process;
pub mod systemd;

/// A runtime as it was settled for this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Runtime {
    /// The distribution's units.
    Systemd,
    /// A daemon with a pid file, where systemd is not PID 1.
    Process,
    /// Containers.
    Container(Program),
}

/// The program that keeps containers running, found by its name on PATH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// Docker's client, and the daemon behind it.
    Docker,
    /// Podman, which needs no daemon.
    Podman,
}

/// What a machine has to keep instances running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Means {
    /// systemd is PID 1.
    pub systemd: bool,
    /// docker is on PATH.
    pub docker: bool,
    /// podman is on PATH.
    pub podman: bool,
    /// podman keeps instances of ours running already.
    pub podman_is_in_use: bool,
}

impl Runtime {
    /// What a choice comes to: `auto` is systemd where it runs, else processes; `docker` is whichever of
    /// docker and podman is here.
    ///
    /// # Errors
    /// What is asked for is not there; the fault has the cure.
    pub fn settle(choice: RuntimeChoice, means: Means) -> Result<Self, Fault> {
        let container = |program| Ok(Self::Container(program));
        match choice {
            // What a user's systemd keeps ends with the last login, mostly.
            RuntimeChoice::Auto if means.systemd && layout::here().login.is_none() => Ok(Self::Systemd),
            RuntimeChoice::Systemd if means.systemd => Ok(Self::Systemd),
            RuntimeChoice::Auto | RuntimeChoice::Process => Ok(Self::Process),
            RuntimeChoice::Systemd if layout::here().login.is_some() => {
                let user = layout::here().account("root");
                Err(Fault::refused(format!("runtime = systemd, but no systemd of {user}'s runs here")).hint(
                    format!("let redis-tp choose (runtime = auto), or let one run for {user}:\nloginctl enable-linger {user}"),
                ))
            }
            RuntimeChoice::Systemd => Err(Fault::refused("runtime = systemd, but systemd is not PID 1 here")
                .hint("let redis-tp choose: runtime = auto")),
            RuntimeChoice::Docker if means.podman && means.podman_is_in_use => container(Program::Podman),
            RuntimeChoice::Docker if means.docker => container(Program::Docker),
            RuntimeChoice::Docker | RuntimeChoice::Podman if means.podman => container(Program::Podman),
            RuntimeChoice::Docker => {
                Err(Fault::refused("runtime = docker, but neither docker nor podman is on PATH")
                    .hint("install one of them:\napt-get install docker.io"))
            }
            RuntimeChoice::Podman => Err(Fault::refused("runtime = podman, but podman is not on PATH")
                .hint("install it:\napt-get install podman")),
        }
    }

    /// The program, if this means containers.
    pub fn program(self) -> Option<Program> {
        match self {
            Self::Container(program) => Some(program),
            Self::Systemd | Self::Process => None,
        }
    }

    /// Whether this means containers.
    pub fn is_container(self) -> bool {
        self.program().is_some()
    }

    fn word(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Process => "process",
            Self::Container(program) => program.name(),
        }
    }
}

impl Program {
    /// Its name, as it is on PATH.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl TryFrom<String> for Runtime {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "systemd" => Ok(Self::Systemd),
            "process" => Ok(Self::Process),
            "docker" => Ok(Self::Container(Program::Docker)),
            "podman" => Ok(Self::Container(Program::Podman)),
            other => Err(format!("'{other}' is no runtime")),
        }
    }
}

impl From<Runtime> for String {
    fn from(runtime: Runtime) -> Self {
        runtime.word().to_owned()
    }
}
