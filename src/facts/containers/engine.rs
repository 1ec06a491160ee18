//! The engine's own program: how it is asked, and what its answers mean.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{Containers, Seen, Trouble, Volume};
use crate::host::{Child, Host};
use crate::runtime::Program;
use crate::runtime::container::{LAYOUT, NETWORK, Port, SPEC};
use crate::topology::Image;

/// How long an engine may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The engine's program as a child. It finds its daemon, or its images, by the user's own surroundings; an
/// engine of another machine would not find our files, and is not asked.
pub fn command(host: &Host, program: Program) -> Child {
    let local = |(name, value): &(&str, String)| *name != "DOCKER_HOST" || value.starts_with("unix:");
    let known = [
        "HOME",
        "XDG_RUNTIME_DIR",
        "DOCKER_HOST",
        "DOCKER_CONFIG",
        "REGISTRY_AUTH_FILE",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
    ];
    let vars = known.into_iter().filter_map(|name| Some((name, host.env(name)?))).filter(local);
    vars.fold(Child::new(program.name()), |child, (name, value)| child.env(name, value))
}

/// Asks an engine for everything of these names: containers, volumes, networks, images.
pub(super) fn inspect(
    host: &Host,
    program: Program,
    names: &BTreeSet<String>,
) -> Result<Vec<Value>, Trouble> {
    if host.which(program.name()).is_none() {
        return Err(Trouble::Absent);
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    if program == Program::Docker {
        let mut objects = ask(host, program, &["inspect"], &all)?;
        objects.extend(hidden(host, &objects, &all)?);
        return Ok(objects);
    }
    // Podman finds a network only where no container is asked for.
    let (networks, rest): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|name| *name == NETWORK);
    std::thread::scope(|scope| {
        let networks = (!networks.is_empty())
            .then(|| scope.spawn(|| ask(host, program, &["network", "inspect"], &networks)));
        let mut objects = match rest.as_slice() {
            [] => Vec::new(),
            rest => ask(host, program, &["inspect"], rest)?,
        };
        let broken = |_| Err(Trouble::Other("the question broke off".into()));
        if let Some(networks) = networks {
            objects.extend(networks.join().unwrap_or_else(broken)?);
        }
        Ok(objects)
    })
}

/// Docker takes a name for an image's before it looks for a network or a volume: what an image of that name
/// hides is asked for by its kind.
fn hidden(host: &Host, objects: &[Value], names: &[&str]) -> Result<Vec<Value>, Trouble> {
    let images = objects.iter().filter(|object| object.get("RootFS").is_some());
    let by_image = |name: &str| {
        let image = Image::parse(name).ok();
        image.is_some_and(|image| images.clone().any(|object| is_called(object, &image)))
    };
    let names: Vec<&str> = names.iter().copied().filter(|name| by_image(name)).collect();
    let mut found = Vec::new();
    for name in names {
        for kind in ["network", "volume"] {
            found.extend(ask(host, Program::Docker, &[kind, "inspect"], &[name])?);
        }
    }
    Ok(found)
}

/// Whether an image has this name, as its engine writes it out.
fn is_called(object: &Value, image: &Image) -> bool {
    let names = ["RepoTags", "RepoDigests"].iter().filter_map(|key| object.get(*key)?.as_array()).flatten();
    let wanted = image.as_str();
    let latest = format!("{wanted}:latest");
    let same = |name: &str| {
        [wanted, latest.as_str()].iter().any(|wanted| {
            name == *wanted || name.strip_suffix(wanted).is_some_and(|registry| registry.ends_with('/'))
        })
    };
    let id = text(object, &["Id"]);
    let id = id.trim_start_matches("sha256:");
    let by_id = wanted.len() >= 12 && id.starts_with(wanted.trim_start_matches("sha256:"));
    names.filter_map(Value::as_str).any(same) || by_id
}

fn ask(host: &Host, program: Program, verb: &[&str], names: &[&str]) -> Result<Vec<Value>, Trouble> {
    let words = verb.iter().chain(names).copied();
    let child = command(host, program).args(words).deadline(PATIENCE);
    let done = host.run(child).map_err(|error| Trouble::Other(format!("{error:#}")))?;
    let objects = serde_json::from_str::<Vec<Value>>(&done.stdout);
    match (objects, trouble(&done.stderr)) {
        (_, Some(trouble)) => Err(trouble),
        (Ok(objects), None) => Ok(objects),
        // Podman says nothing at all where it finds nothing.
        (Err(_), None) if done.stdout.trim().is_empty() => Ok(Vec::new()),
        (Err(_), None) => Err(Trouble::Other(done.tail())),
    }
}

/// What an engine's complaint means; one of names that it does not know is none.
pub fn trouble(said: &str) -> Option<Trouble> {
    let is = |words: &str| said.to_ascii_lowercase().contains(words);
    if is("docker daemon socket") || is("connect: permission denied") {
        return Some(Trouble::Closed);
    }
    if is("is the docker daemon running") || is("cannot connect to the docker daemon") {
        return Some(Trouble::Down);
    }
    let unknown = |line: &str| {
        let line = line.to_ascii_lowercase();
        line.contains("no such ") || line.contains("not found") || line.contains("level=warning")
    };
    let other: Vec<&str> =
        said.lines().filter(|line| line.to_ascii_lowercase().contains("error") && !unknown(line)).collect();
    (!other.is_empty()).then(|| Trouble::Other(other.join("; ")))
}

/// What an engine's answer says.
pub(super) fn read(host: &Host, objects: &[Value], image: Option<&Image>) -> Containers {
    let mut all = Containers::default();
    for object in objects {
        let name = text(object, &["Name"]).trim_start_matches('/').to_owned();
        if object.get("HostConfig").is_some() {
            all.containers.insert(name, seen(object));
        } else if object.get("Mountpoint").is_some() {
            all.volumes.insert(name, volume_of(host, object));
        } else if object.get("RootFS").is_some() {
            if !image.is_some_and(|image| is_called(object, image)) {
                continue;
            }
            all.image = Some(text(object, &["Id"]).trim_start_matches("sha256:").to_owned());
        } else {
            // Podman has the names of a network in small letters.
            let docker = label(object.get("Labels"), LAYOUT);
            let owner = if docker.is_empty() { label(object.get("labels"), LAYOUT) } else { docker };
            all.network = Some(owner);
        }
    }
    all
}

fn seen(object: &Value) -> Seen {
    let labels = object.pointer("/Config/Labels");
    let networks = object.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    let policy = text(object, &["HostConfig", "RestartPolicy", "Name"]);
    Seen {
        state: text(object, &["State", "Status"]),
        pid: object
            .pointer("/State/Pid")
            .and_then(Value::as_u64)
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or_default(),
        layout: label(labels, LAYOUT),
        spec: label(labels, SPEC),
        image: text(object, &["Image"]).trim_start_matches("sha256:").to_owned(),
        restarts: object.get("RestartCount").and_then(Value::as_u64).unwrap_or_default(),
        boot: !matches!(policy.as_str(), "" | "no"),
        joined: networks.is_some_and(|networks| networks.contains_key(NETWORK)),
        ports: ports(object),
    }
}

/// `{"6379/tcp": [{"HostIp": "127.0.0.1", "HostPort": "6379"}]}`
fn ports(object: &Value) -> BTreeSet<Port> {
    let published = object.pointer("/NetworkSettings/Ports").and_then(Value::as_object);
    let bindings = published.into_iter().flatten().filter_map(|(_, bindings)| bindings.as_array()).flatten();
    let one = |binding: &Value| {
        let host = text(binding, &["HostIp"]);
        let host = if host.is_empty() { "0.0.0.0" } else { &host };
        Some(Port { host: host.parse::<IpAddr>().ok()?, port: text(binding, &["HostPort"]).parse().ok()? })
    };
    bindings.filter_map(one).collect()
}

/// The owner is that of the directory, by its number; a volume in which nothing was ever is nobody's yet.
fn volume_of(host: &Host, object: &Value) -> Volume {
    let place = PathBuf::from(text(object, &["Mountpoint"]));
    let names = host.list(&place);
    let occupied = names.as_ref().is_ok_and(|names| !names.is_empty());
    let stat = host.stat(&place).ok().flatten();
    Volume {
        layout: label(object.get("Labels"), LAYOUT),
        owner: stat.filter(|_| occupied).map(|stat| stat.ids()),
        occupied,
        hidden: names.is_err(),
    }
}

fn label(labels: Option<&Value>, name: &str) -> String {
    let value = labels.and_then(|labels| labels.get(name)).and_then(Value::as_str);
    value.unwrap_or_default().to_owned()
}

fn text(object: &Value, path: &[&str]) -> String {
    let found = path.iter().try_fold(object, |at, name| at.get(name));
    found.and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_complains_of_is_told_apart() {
        let cases = [
            ("Error: No such object: redis-master\nError: No such object: redis-tp\n", None),
            ("Error: no such object: \"redis-master\"\n", None),
            (
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
                Some(Trouble::Down),
            ),
            (
                "Got permission denied while trying to connect to the Docker daemon socket",
                Some(Trouble::Closed),
            ),
            ("Error: what?", Some(Trouble::Other("Error: what?".into()))),
        ];
        for (said, expected) in cases {
            assert_eq!(trouble(said), expected, "{said}");
        }
    }

    #[test]
    fn published_ports_are_read() {
        let object = serde_json::json!({"NetworkSettings": {"Ports": {
            "6379/tcp": [{"HostIp": "127.0.0.1", "HostPort": "6379"}, {"HostIp": "::1", "HostPort": "6379"}],
            "6380/tcp": null}}});
        let at = |host: &str| Port { host: host.parse().unwrap(), port: 6379 };
        assert_eq!(ports(&object), BTreeSet::from([at("127.0.0.1"), at("::1")]));
    }
}
