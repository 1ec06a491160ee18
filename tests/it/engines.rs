//! Docker and Podman in test machines, with an image that the tests make themselves.

use std::fmt;

use crate::machine::{Init, Machine, Out, Release};
use crate::story::PROGRAM;

/// What keeps containers running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Debian's docker.io, and its daemon.
    Docker,
    /// Debian's podman.
    Podman,
}

impl Engine {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    /// Boots a machine with the program and with this engine, which has the image `redis:7`. None where
    /// there can be no machine.
    pub fn boot_or_skip(self) -> Option<Machine> {
        let machine = bare_or_skip()?;
        self.prepare(&machine);
        Some(machine)
    }

    /// Starts the engine and gives it the image.
    pub fn prepare(self, machine: &Machine) {
        if self == Self::Docker {
            machine.run("systemctl start docker").ok();
        }
        self.import(machine, "redis", "redis:7");
    }

    /// Gives a started engine another server's image, `redis` or `valkey`, under a name.
    pub fn import(self, machine: &Machine, server: &str, image: &str) {
        // As the published ones are: it starts as root, and its data is a volume.
        machine
            .run(&format!(
                "{self} import --change 'CMD [\"{server}-server\"]' --change 'VOLUME /data' \
                 --change 'WORKDIR /data' --change 'EXPOSE 6379' /srv/{server}.tar {image}"
            ))
            .ok();
    }

    /// All containers, volumes and networks, a line each, without the networks that an engine always has.
    pub fn objects(self, machine: &Machine) -> String {
        let all = format!(
            "{self} ps --all --format 'container {{{{.Names}}}}'; \
             {self} volume ls --format 'volume {{{{.Name}}}}'; \
             {self} network ls --format 'network {{{{.Name}}}}' | grep -vwE 'bridge|host|none|podman' || :"
        );
        machine.run(&all).ok().stdout
    }

    /// A field of a container, as a Go template has it.
    pub fn inspect(self, machine: &Machine, container: &str, field: &str) -> String {
        let out = machine.run(&format!("{self} inspect --format '{{{{{field}}}}}' {container}")).ok();
        out.stdout.trim().to_owned()
    }

    /// Runs one of the engine's own commands.
    pub fn run(self, machine: &Machine, command: &str) -> Out {
        machine.run(&format!("{self} {command}"))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        })
    }
}

/// Boots a machine with the program and both engines, none started and none with an image.
pub fn bare_or_skip() -> Option<Machine> {
    let machine = Machine::boot_or_skip(Release::Containers, Init::Systemd)?;
    machine.install_binary(PROGRAM);
    Some(machine)
}
