//! Containers as wanted: what each is called and made of, as the program's command line takes it.
//! Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Program;
use crate::engine::Engine;
use crate::topology::Image;

/// The network of all containers of ours.
pub const NETWORK: &str = "redis-tp";

/// Says whose a container, a volume or a network is: the directory of the state that knows it.
pub const LAYOUT: &str = "redis-tp.layout";

/// Says what a container is for: an instance, or the web app.
pub const PART: &str = "redis-tp.instance";

/// Says what a container was made of, so that a change of it is seen.
pub const SPEC: &str = "redis-tp.spec";

/// What the names of containers begin with in which configurations are proved.
pub const PROOF: &str = "redis-tp-proof-";

/// Where a configuration is in a container. A directory and not a file: CONFIG REWRITE makes the file anew.
pub const CONF_DIR: &str = "/etc/redis";

/// Where the data is in a container.
pub const DATA_DIR: &str = "/data";

/// Where the web app's settings are in a container.
pub const APP_DIR: &str = "/etc/redis-tp";

/// Our program in the web app's container.
pub const OWN_PROGRAM: &str = "/usr/local/bin/redis-tp";

/// What a container may use beyond twice its `maxmemory`, in bytes: buffers, and the server itself.
const HEADROOM: u64 = 64 << 20;

/// The container of an instance.
pub fn of_instance(engine: Engine, instance: &str) -> String {
    format!("{}-{instance}", engine.name())
}

/// The web app's container.
pub fn of_app(engine: Engine) -> String {
    format!("{}-app", engine.name())
}

/// The volume of an instance.
pub fn volume(engine: Engine, instance: &str) -> String {
    format!("{}-{instance}-data", engine.name())
}

/// The directory of this machine that is mounted into a container. Its parent is closed to all but its
/// owner: the image's user is a number only, which may be somebody else's here.
pub fn mounted(container: &str) -> PathBuf {
    dir().join(container)
}

/// The directory of all that is mounted into containers.
pub fn dir() -> PathBuf {
    crate::secrets::dir().join("containers")
}

/// The image that instances run, where the topology names none.
pub fn default_image(engine: Engine) -> Image {
    Image::known(match engine {
        Engine::Redis => "redis:7",
        Engine::Valkey => "valkey/valkey:8",
    })
}

/// The memory limit that fits a `maxmemory`, in bytes: while a snapshot is written, data that changes is
/// there twice. None for no limit.
pub fn memory_limit(maxmemory: u64) -> Option<u64> {
    (maxmemory > 0).then(|| maxmemory.saturating_mul(2).saturating_add(HEADROOM))
}

/// A container as it is to be made. Its user is the image's own, and found when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Who keeps it running.
    pub program: Program,
    /// Its name.
    pub name: String,
    /// What it is for: an instance's name, or `app`.
    pub part: String,
    /// Its image.
    pub image: Image,
    /// The program in it.
    pub entrypoint: String,
    /// The program's arguments.
    pub args: Vec<String>,
    /// What is mounted into it.
    pub mounts: Vec<Mount>,
    /// What is published of it.
    pub ports: Vec<Port>,
    /// What it may use, in bytes; none for no limit.
    pub memory: Option<u64>,
    /// The command that tells whether it is well; none where nobody would run it.
    pub health: Option<String>,
    /// What else it was made of, which shows nowhere: another value, another container.
    pub edition: String,
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// A path of this machine, or a volume.
    pub source: String,
    /// Where it is in the container.
    pub target: String,
    /// It cannot be written to from there.
    pub read_only: bool,
}

/// A port of a container that this machine listens on for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// The address of this machine.
    pub host: std::net::IpAddr,
    /// The port, here and there.
    pub port: u16,
}

impl Port {
    /// As `--publish` takes it.
    pub fn word(&self) -> String {
        match self.host {
            std::net::IpAddr::V4(ip) => format!("{ip}:{0}:{0}", self.port),
            std::net::IpAddr::V6(ip) => format!("[{ip}]:{0}:{0}", self.port),
        }
    }
}

impl Mount {
    /// As `--volume` takes it.
    pub fn word(&self) -> String {
        let flag = if self.read_only { ":ro" } else { "" };
        format!("{}:{}{flag}", self.source, self.target)
    }
}

/// What making a container takes that is found only then.
#[derive(Clone, Copy, Debug)]
pub struct Making<'a> {
    /// The directory of the state that knows it.
    pub layout: &'a str,
    /// The user and group to run as, as `UID:GID`.
    pub user: &'a str,
    /// It starts again by itself.
    pub boot: bool,
    /// We are not root.
    pub rootless: bool,
}

impl Container {
    /// What it is made of, in a word.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The arguments that make it, behind the program's name.
    pub fn create(&self, making: &Making<'_>) -> Vec<String> {
        let mut words: Vec<String> = vec!["create".into(), "--name".into(), self.name.clone()];
        let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        option("network", NETWORK.into());
        // A server answers nobody while it looks up the name of a master that is away.
        option("dns-opt", "timeout:1".into());
        option("dns-opt", "attempts:1".into());
        option("user", making.user.to_owned());
        if making.rootless && self.program == Program::Podman {
            // Else the number would be another one's of this machine.
            option("userns", "keep-id".into());
        }
        option("entrypoint", self.entrypoint.clone());
        for (label, value) in [(LAYOUT, making.layout), (PART, &self.part), (SPEC, &self.digest())] {
            option("label", format!("{label}={value}"));
        }
        option("restart", restart_word(self.program, making.boot).into());
        self.mounts.iter().for_each(|mount| option("volume", mount.word()));
        self.ports.iter().for_each(|port| option("publish", port.word()));
        if let Some(bytes) = self.memory {
            option("memory", bytes.to_string());
        }
        if let Some(command) = &self.health {
            option("health-cmd", command.clone());
            option("health-interval", "10s".into());
            option("health-timeout", "3s".into());
            option("health-retries", "3".into());
            option("health-start-period", "30s".into());
        }
        option("cap-drop", "ALL".into());
        option("security-opt", "no-new-privileges".into());
        words.push(self.image.to_string());
        words.extend(self.args.iter().cloned());
        words
    }
}

/// The restart policy: one that was stopped by hand stays so, also over a restart of the machine. Podman's
/// own service (`podman-restart`) starts at boot what has no other policy than `always`.
pub fn restart_word(program: Program, boot: bool) -> &'static str {
    match (program, boot) {
        (_, false) => "no",
        (Program::Docker, true) => "unless-stopped",
        (Program::Podman, true) => "always",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_leaves_room_for_a_snapshot() {
        assert_eq!(memory_limit(0), None);
        assert_eq!(memory_limit(100 << 20), Some((200 << 20) + HEADROOM));
    }
}
