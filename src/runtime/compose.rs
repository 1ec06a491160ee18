//! The same containers as a compose file that needs nothing of this machine but its engine: configurations
//! are in it, and so are passwords. Pure.

use serde_json::{Value, json};

use super::Program;
use super::container::{Container, DATA_DIR, Mount, NETWORK, OWN_PROGRAM, Port, restart_word};
use crate::host::Ids;

/// Where a configuration is put into a container.
const CONFIGS: &str = "/run/redis-tp";

/// The service that gives the volumes to the image's user, before any other starts.
const VOLUMES: &str = "volumes";

/// A container and the configuration that it reads.
#[derive(Debug)]
pub struct Service {
    /// The container.
    pub container: Container,
    /// Its configuration's file name.
    pub file: &'static str,
    /// What is in that.
    pub text: String,
}

/// The whole file. JSON is YAML, and needs no quotes of its own.
pub fn render(services: &[Service], user: Ids) -> String {
    let mut text = String::from(
        "# Rendered by redis-tp. A server keeps its own copy of its configuration in its volume, for its role\n# may change: take the volume's redis.conf away to have this one again.\nservices:\n",
    );
    let volumes: Vec<&Mount> = services.iter().flat_map(|service| data(&service.container)).collect();
    if let Some(first) = services.first() {
        text += &entry(VOLUMES, &owner(&first.container, &volumes, user));
    }
    for service in services {
        text += &entry(&service.container.name, &one(service, user));
    }
    text += "configs:\n";
    for service in services {
        // A dollar is compose's own.
        text += &entry(&service.container.name, &json!({ "content": service.text.replace('$', "$$") }));
    }
    text += &format!("networks:\n  {NETWORK}: {{}}\n");
    if !volumes.is_empty() {
        text += "volumes:\n";
    }
    for volume in volumes {
        text += &entry(&volume.source, &json!({}));
    }
    text
}

/// A mapping's entry: its name, and a key a line.
fn entry(name: &str, value: &Value) -> String {
    let mut text = format!("  {name}:");
    match value.as_object().filter(|keys| !keys.is_empty()) {
        None => text += " {}\n",
        Some(keys) => {
            text.push('\n');
            for (key, value) in keys {
                text += &format!("    {key}: {value}\n");
            }
        }
    }
    text
}

fn data(container: &Container) -> impl Iterator<Item = &Mount> {
    container.mounts.iter().filter(|mount| !mount.source.starts_with('/'))
}

fn owner(first: &Container, volumes: &[&Mount], user: Ids) -> Value {
    let place = |index: usize| format!("{DATA_DIR}/{index}");
    let mounts: Vec<String> = volumes
        .iter()
        .enumerate()
        .map(|(index, mount)| format!("{}:{}", mount.source, place(index)))
        .collect();
    let places: Vec<String> = (0..volumes.len()).map(place).collect();
    json!({
        "image": first.image,
        "user": "0:0",
        "entrypoint": ["sh", "-c"],
        "command": [format!("chown {}:{} {}", user.uid, user.gid, places.join(" "))],
        "network_mode": "none",
        "volumes": mounts,
    })
}

fn one(service: &Service, user: Ids) -> Value {
    let Service { container, file, .. } = service;
    let config = format!("{CONFIGS}/{file}");
    let own = container.entrypoint == OWN_PROGRAM;
    let (entrypoint, command) = match own {
        true => (json!([OWN_PROGRAM]), json!(["app", "serve", "--config", config])),
        false => {
            let server = &container.entrypoint;
            let start = format!(
                "test -f {DATA_DIR}/{file} || cp {config} {DATA_DIR}/{file}; exec {server} {DATA_DIR}/{file}"
            );
            (json!(["sh", "-c"]), json!([start]))
        }
    };
    // Its configuration comes another way.
    let kept = |mount: &&Mount| match own {
        true => mount.target != super::container::APP_DIR,
        false => !mount.source.starts_with('/'),
    };
    let mut keys = json!({
        "container_name": container.name,
        "image": container.image,
        "user": format!("{}:{}", user.uid, user.gid),
        "entrypoint": entrypoint,
        "command": command,
        "depends_on": { VOLUMES: { "condition": "service_completed_successfully" } },
        "restart": restart_word(Program::Docker, true),
        "networks": [NETWORK],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "volumes": container.mounts.iter().filter(kept).map(Mount::word).collect::<Vec<_>>(),
        "ports": container.ports.iter().map(Port::word).collect::<Vec<_>>(),
        // Without an owner: compose would ask the image's own list of users for it.
        "configs": [{ "source": container.name, "target": config }],
    });
    if let Some(map) = keys.as_object_mut() {
        if let Some(bytes) = container.memory {
            map.insert("mem_limit".into(), bytes.into());
        }
        if let Some(command) = &container.health {
            let health = json!({
                "test": ["CMD-SHELL", command.replace('$', "$$")],
                "interval": "10s", "timeout": "3s", "retries": 3, "start_period": "30s",
            });
            map.insert("healthcheck".into(), health);
        }
    }
    keys
}
