//! What the app is told, and the file that tells it to a service: JSON, for a password may hold any
//! character. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::secret::{MASK, Secret};
use crate::tls::Pem;
use crate::topology::AppSection;
use crate::users::{self, Users};
use crate::wire::{Address, Login};

/// All that the app needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the topology's section says.
    pub section: AppSection,
    /// The Redis servers to begin with; replicas that come later are found by asking the master.
    pub nodes: Vec<Node>,
}

/// One Redis server that the app is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The instance's name, or its address where it has none.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// As whom it is spoken to; none for the default user.
    pub user: Option<String>,
    /// What it wants to hear.
    pub password: Option<Secret>,
    /// By what TLS is spoken there, if that is what it speaks.
    pub tls: Option<Arc<Pem>>,
}

impl Node {
    /// A server of which no more is known than where it listens.
    pub fn at(address: Address, password: Option<Secret>) -> Self {
        Self { name: address.to_string(), address, user: None, password, tls: None }
    }

    /// A server that is found by another's word: it takes the same login, and speaks as that one does.
    pub fn beside(&self, address: Address) -> Self {
        Self { name: address.to_string(), address, ..self.clone() }
    }

    /// As whom it is spoken to.
    pub fn login(&self) -> Option<Login<'_>> {
        self.password.as_ref().map(|password| Login { user: self.user.as_deref(), password })
    }
}

/// The file, as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    note: String,
    app: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<FilePem>,
    nodes: Vec<FileNode>,
}

/// By what TLS is spoken wherever it is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePem {
    ca: String,
    cert: String,
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNode {
    name: String,
    host: String,
    port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    tls: bool,
}

impl Settings {
    /// The settings that fit instances as they are wanted: these, and masters elsewhere that they follow,
    /// each with its own password.
    pub fn of(section: &AppSection, instances: &[Instance]) -> Self {
        Self::with(section, instances, Instance::address)
    }

    /// The same for an app in a container beside theirs: it meets them on their network, and is met on
    /// whatever address the container has.
    pub fn in_container(section: &AppSection, instances: &[Instance]) -> Self {
        let section = AppSection { bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ..section.clone() };
        Self::with(&section, instances, Instance::peer)
    }

    fn with(section: &AppSection, instances: &[Instance], at: fn(&Instance) -> Address) -> Self {
        let node = |instance: &Instance| {
            // One that is no service, as `verify` has it for a moment, is the administrator's.
            let (user, password) = match &instance.users {
                Some(Users { app: Some(app), .. }) => (Some(users::APP), Some(&app.password)),
                Some(_) => (Some(users::ADMIN), instance.requirepass.as_ref()),
                None => (None, instance.requirepass.as_ref()),
            };
            Node {
                name: instance.name.to_string(),
                address: bare(&at(instance)),
                user: user.map(str::to_owned),
                password: password.cloned(),
                tls: spoken(instance),
            }
        };
        let mut nodes: Vec<Node> = instances.iter().map(node).collect();
        for instance in instances {
            let elsewhere = instance.upstream.as_ref().filter(|of| of.instance.is_none());
            let Some(address) = elsewhere.map(|of| &of.address) else { continue };
            if !nodes.iter().any(|node| node.address.is_at(&address.host, address.port)) {
                // A replica speaks with its master as it speaks itself.
                let node = Node::at(bare(address), instance.masterauth.clone());
                let tls = address.tls.as_ref().and_then(|_| spoken(instance));
                nodes.push(Node { tls, ..node });
            }
        }
        Self { section: section.clone(), nodes }
    }

    /// The same with a mask for each password and each key, for eyes.
    pub fn masked(&self) -> Self {
        let hidden = |_: &Secret| Secret::new(MASK);
        let mask = |node: &Node| Node {
            password: node.password.as_ref().map(hidden),
            tls: node.tls.as_ref().map(|pem| Arc::new(Pem { key: hidden(&pem.key), ..Pem::clone(pem) })),
            ..node.clone()
        };
        Self { section: self.section.clone(), nodes: self.nodes.iter().map(mask).collect() }
    }

    /// Where the file for the service is, mode 0600: passwords are in it.
    pub fn file() -> PathBuf {
        crate::secrets::dir().join("app.json")
    }

    /// The file's text.
    pub fn text(&self) -> Secret {
        let node = |node: &Node| FileNode {
            name: node.name.clone(),
            host: node.address.host.clone(),
            port: node.address.port,
            user: node.user.clone(),
            password: node.password.as_ref().map(|password| password.expose().to_owned()),
            tls: node.tls.is_some(),
        };
        let pem = |pem: &Arc<Pem>| FilePem {
            ca: pem.ca.clone(),
            cert: pem.cert.clone(),
            key: pem.key.expose().to_owned(),
        };
        let file = File {
            note: "Written by redis-tp: change [app] in the topology, and run `redis-tp apply`.".into(),
            app: self.section.pairs().into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            // This machine has one certificate for its app.
            tls: self.nodes.iter().find_map(|node| node.tls.as_ref()).map(pem),
            nodes: self.nodes.iter().map(node).collect(),
        };
        // Plain maps and strings: there is nothing in it that JSON cannot hold.
        Secret::new(serde_json::to_string_pretty(&file).unwrap_or_default() + "\n")
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong with it; no word of it is shown, for passwords are in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text)
            .map_err(|error| format!("line {} is not what redis-tp writes", error.line()))?;
        let mut section = AppSection::default();
        for (key, value) in &file.app {
            section.set(key, value).map_err(|(why, _)| why)?;
        }
        let pem = file.tls.map(|FilePem { ca, cert, key }| Arc::new(Pem { ca, cert, key: Secret::new(key) }));
        if pem.is_none() && file.nodes.iter().any(|node| node.tls) {
            return Err("it has no certificate for the servers that speak TLS".into());
        }
        let node = |node: FileNode| Node {
            name: node.name,
            address: Address::plain(node.host, node.port),
            user: node.user,
            password: node.password.map(Secret::new),
            tls: pem.clone().filter(|_| node.tls),
        };
        Ok(Self { section, nodes: file.nodes.into_iter().map(node).collect() })
    }

    /// Whether an app with these settings may go on when it is to have others: a server that is new is found without
    /// being told, if it needs no password, TLS proves it, or the app sees the topology that names it.
    pub fn may_go_on(&self, wanted: &Self, sees_topology: bool) -> bool {
        let section = |settings: &Self| AppSection { line: 0, ..settings.section.clone() };
        let found = |node: &Node| sees_topology || node.password.is_none() || node.tls.is_some();
        section(self) == section(wanted)
            && self.nodes.iter().all(|node| wanted.nodes.contains(node))
            && wanted.nodes.iter().all(|node| self.nodes.contains(node) || found(node))
    }
}

/// An address without the files of this machine, of which the app reads none.
fn bare(address: &Address) -> Address {
    Address::plain(&address.host, address.port)
}

fn spoken(instance: &Instance) -> Option<Arc<Pem>> {
    instance.tls.as_ref().and_then(|spoken| spoken.app.clone())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::runtime::Runtime;
    use crate::secrets::Secrets;
    use crate::topology::{Name, Topology};

    fn settings() -> Settings {
        let node = |name: &str, port, password: Option<&str>| Node {
            name: name.into(),
            address: Address::plain("::1", port),
            user: None,
            password: password.map(Secret::new),
            tls: None,
        };
        let pem = Pem { ca: "the CA\n".into(), cert: "ours\n".into(), key: Secret::new("the key\n") };
        let master = node("master", 6379, Some("a \"b\";#\\é"));
        Settings {
            section: AppSection::default(),
            nodes: vec![Node { tls: Some(Arc::new(pem)), ..master }, node("slave", 6380, None)],
        }
    }

    #[test]
    fn any_password_survives_the_file() {
        assert_eq!(Settings::parse(settings().text().expose()), Ok(settings()));
    }

    #[test]
    fn a_file_of_before_tls_is_read() {
        let text = r#"{"note":"","app":{},"nodes":[{"name":"a","host":"h","port":1,"password":null}]}"#;
        let node = Node { name: "a".into(), ..Node::at(Address::plain("h", 1), None) };
        assert_eq!(Settings::parse(text).unwrap().nodes, [node]);
    }

    #[test]
    fn no_password_and_no_key_is_shown() {
        let text = settings().masked().text();
        for secret in ["the key", "é"] {
            assert!(
                settings().text().expose().contains(secret) && !text.expose().contains(secret),
                "{secret}"
            );
        }
        assert!(text.expose().contains("ours"));
    }

    #[test]
    fn a_master_elsewhere_hears_its_own_password_and_no_other() {
        let text =
            "[a]\nport = 6379\nreplicaof = 192.0.2.1 7000\n[b]\nport = 6380\nreplicaof = 192.0.2.1 7000";
        let topology = Topology::parse(text, Path::new("t.ini")).unwrap();
        let upstream = ["a", "b"].map(|name| (Name::parse(name).unwrap(), Secret::new("theirs")));
        let password = Some(Secret::new("ours"));
        let secrets = Secrets { password, upstream: upstream.into(), ..Secrets::default() };
        let instances = Instance::resolve(&topology, &secrets, Runtime::Systemd);
        let settings = Settings::of(&AppSection::default(), &instances);
        let nodes: Vec<(String, &str)> = settings
            .nodes
            .iter()
            .map(|node| (node.address.to_string(), node.password.as_ref().map_or("", Secret::expose)))
            .collect();
        let expected = [("127.0.0.1:6379", "ours"), ("127.0.0.1:6380", "ours"), ("192.0.2.1:7000", "theirs")];
        assert_eq!(nodes, expected.map(|(address, password)| (address.to_owned(), password)));
    }

    #[test]
    fn a_file_that_is_none_is_refused_without_a_word_of_it() {
        let no_pem =
            r#"{"app":{},"nodes":[{"name":"a","host":"h","port":1,"password":"s3cret","tls":true}]}"#;
        for bad in
            ["", no_pem, "s3cret", "{\"app\":{},\"nodes\":[{\"password\":\"s3cret\"}]}", "{\"s3cret\":1}"]
        {
            let why = Settings::parse(bad).expect_err(bad);
            assert!(!why.contains("s3cret"), "{why}");
        }
    }

    #[test]
    fn only_a_server_more_needs_no_restart() {
        let one = Settings { nodes: settings().nodes[..1].to_vec(), ..settings() };
        assert!(one.may_go_on(&settings(), true) && !settings().may_go_on(&one, true));
        let mut other = settings();
        other.section.ttl = std::time::Duration::from_secs(5);
        assert!(!settings().may_go_on(&other, true));
        // One with a password that it can neither prove nor see named is not asked.
        let secret = Node::at(Address::plain("::1", 6381), Some(Secret::new("x")));
        let more = Settings { nodes: [one.nodes.clone(), vec![secret]].concat(), ..settings() };
        assert!(one.may_go_on(&more, true) && !one.may_go_on(&more, false));
    }
}
