//! The app as a service, as wanted: its names and places on a machine, and what steps need of it. Pure.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Settings;
use crate::engine::Engine;
use crate::facts::Program;
use crate::http::Url;
use crate::instance::Instance;
use crate::layout;
use crate::runtime::systemd::word;
use crate::runtime::{Runtime, container};
use crate::templates::{self, AppUnitContext, UserHardening};
use crate::topology::{AppSection, Topology, reach};

/// The unit.
pub const UNIT: &str = "redis-tp-app.service";

/// The user where there is no systemd; under systemd it is a dynamic one.
pub const USER: &str = "redis-tp-app";

/// How the user is made (useradd(8)).
pub const USERADD: [&str; 6] = [
    "--system",
    "--user-group",
    "--no-create-home",
    "--home-dir",
    "/nonexistent",
    "--shell=/usr/sbin/nologin",
];

/// Our program as it is called in /proc/PID/comm.
pub const COMM: &str = "redis-tp";

/// Where the service finds our program, if it was started from a place that is not root's alone.
pub fn program_copy() -> PathBuf {
    layout::here().program.clone()
}

/// Where the service finds our program: in its place, or as a copy.
pub fn program(own: &Program) -> PathBuf {
    if own.fit { own.path.clone() } else { program_copy() }
}

/// The supervisor's pid file, in a directory of the app's own.
pub fn pidfile() -> PathBuf {
    layout::here().run.join("redis-tp-app/app.pid")
}

/// What the app says where no journal takes it, in a directory of the app's own.
pub fn logfile() -> PathBuf {
    layout::here().app_log.clone()
}

/// The unit's file.
pub fn unit_file() -> PathBuf {
    crate::runtime::systemd::own_unit(UNIT)
}

/// The file with the app's settings: in a container, it is in a directory that is mounted there.
fn settings_file(runtime: Runtime, engine: Engine) -> PathBuf {
    match runtime {
        Runtime::Container(_) => container::mounted(&container::of_app(engine)).join("app.json"),
        Runtime::Systemd | Runtime::Process => Settings::file(),
    }
}

/// The app as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// What the topology says of it.
    pub section: AppSection,
    /// What it is told.
    pub settings: Settings,
    /// Who keeps it running.
    pub runtime: Runtime,
    /// Redis or Valkey.
    pub engine: Engine,
}

/// What is needed to start, stop and find it: the object of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppTarget {
    /// Who keeps it running.
    pub runtime: Runtime,
    /// An address that this machine reaches it under.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Our program, where the service finds it.
    pub program: PathBuf,
    /// How long a request may take that is under way when it is stopped.
    pub slow: Duration,
    /// Redis or Valkey, by which its container is named.
    #[serde(default)]
    pub engine: Engine,
}

impl AppTarget {
    /// Where it answers.
    pub fn url(&self) -> Url {
        Url { host: self.host.clone(), port: self.port, path: String::new() }
    }

    /// Its container.
    pub fn container(&self) -> String {
        container::of_app(self.engine)
    }

    /// The file with its settings.
    pub fn settings_file(&self) -> PathBuf {
        settings_file(self.runtime, self.engine)
    }

    /// How long a stop may take: what is under way is finished first.
    pub fn patience(&self) -> Duration {
        self.slow + Duration::from_secs(10)
    }
}

impl App {
    /// The app of a topology; none where it has none.
    pub fn resolve(topology: &Topology, instances: &[Instance], runtime: Runtime) -> Option<Self> {
        let section = topology.app.as_ref()?;
        let settings = match runtime {
            Runtime::Container(_) => Settings::in_container(section, instances),
            Runtime::Systemd | Runtime::Process => Settings::of(section, instances),
        };
        Some(Self { section: section.clone(), settings, runtime, engine: topology.engine })
    }

    /// The file with its settings.
    pub fn settings_file(&self) -> PathBuf {
        settings_file(self.runtime, self.engine)
    }

    /// What the topology says of it.
    pub fn section(&self) -> &AppSection {
        &self.section
    }

    /// Where it answers.
    pub fn url(&self) -> Url {
        Url::local(self.section().bind, self.section().port)
    }

    /// What steps need of it.
    pub fn target(&self, program: &Path) -> AppTarget {
        AppTarget {
            runtime: self.runtime,
            host: reach(self.section().bind),
            port: self.section().port,
            program: program.to_path_buf(),
            slow: self.section().slow,
            engine: self.engine,
        }
    }

    /// Whether it talks to this machine alone, so that systemd may close the network to it.
    fn is_local(&self) -> bool {
        let loopback = |host: &str| host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        self.section().bind.is_loopback()
            && self.settings.nodes.iter().all(|node| loopback(&node.address.host))
    }

    /// Its unit; a user's own has namespaces where that user's systemd gives them.
    ///
    /// # Errors
    /// The template cannot be rendered.
    pub fn unit(&self, program: &Path, namespaces: bool) -> Result<String> {
        let own = layout::here().login.is_some();
        let hardening = own.then(|| UserHardening { namespaces, paths: Vec::new() }.lines()).transpose()?;
        let context = AppUnitContext {
            program: word(&program.to_string_lossy()),
            settings: word(&Settings::file().to_string_lossy()),
            local: self.is_local(),
            low_port: self.section().port < 1024,
            stop_seconds: self.target(program).patience().as_secs(),
            hardening,
        };
        templates::app_unit(&context, own)
    }
}
