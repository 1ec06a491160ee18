//! What is wanted: one INI file, one section an instance. Parsing yields types that cannot hold a
//! wrong value; editing keeps every comment and the order of the lines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::exit::Fault;
use crate::layout;

mod app;
mod edit;
mod read;
mod values;

pub use app::{APP, AppSection, Prefix, ReadFrom, Source, Table, delay, lifetime};
pub use edit::Document;
pub use values::{Bind, BindAddress, Binds, Defaults, Image, Name, ReplicaOf, port_number, reach, yes_or_no};

/// Where the topology is.
pub fn file() -> &'static Path {
    &layout::here().topology
}

/// The lab's two instances and its web app: what `up` uses where no topology is written yet.
pub const LAB: &str = "\
; What redis-tp keeps true on this machine; `redis-tp apply` makes it so.
; One section an instance; keys are Redis's own directives.

[redis-tp]
engine  = redis          ; redis | valkey
runtime = auto           ; auto | systemd | process | docker | podman

[master]
port = 6379

[slave]
port = 6380
replicaof = master       ; a section of this file, or HOST PORT

[app]                    ; the cache-aside web app
port = 5000
ttl  = 60                ; seconds that a value stays in the cache
slow = 2                 ; seconds that the simulated database takes
";

/// The start of a topology that `install` or `replica add` makes.
pub const EMPTY: &str = "\
; What redis-tp keeps true on this machine; `redis-tp apply` makes it so.
; One section an instance; keys are Redis's own directives.

[redis-tp]
engine  = redis          ; redis | valkey
runtime = auto           ; auto | systemd | process | docker | podman
";

/// Our own section; it and the app's are the only ones that are no instance.
const OURS: &str = "redis-tp";

/// Who is to keep the instances running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeChoice {
    /// systemd where it is PID 1, else processes.
    #[default]
    Auto,
    /// The distribution's units.
    Systemd,
    /// A daemon with a pid file.
    Process,
    /// Containers, by docker or else by podman.
    Docker,
    /// Containers, by podman.
    Podman,
}

/// Who may enter an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Users that may do what they need each: admin, replica, app.
    #[default]
    Acl,
    /// Whoever has the one password.
    Plain,
}

/// A directive that the topology names and we have no type for: Redis judges its words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The directive, in lower case.
    pub name: String,
    /// Its words, unquoted.
    pub args: Vec<String>,
    /// Its line in the topology.
    pub line: usize,
}

/// One section: an instance as wanted, with none of the defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// The section's name.
    pub name: Name,
    /// Its line in the topology.
    pub line: usize,
    /// `port`
    pub port: u16,
    /// `bind`
    pub bind: Option<Vec<Bind>>,
    /// `protected-mode`
    pub protected_mode: Option<bool>,
    /// `replicaof`
    pub replicaof: Option<ReplicaOf>,
    /// `dir`
    pub dir: Option<PathBuf>,
    /// `logfile`
    pub logfile: Option<PathBuf>,
    /// Every other directive, in the order of the file.
    pub directives: Vec<Named>,
    /// `defaults`
    #[serde(default)]
    pub defaults: Defaults,
    /// `harden`
    #[serde(default)]
    pub harden: Option<bool>,
    /// Where not all of our defaults hold: every directive of the section, those above among them.
    #[serde(default)]
    pub lines: Vec<Named>,
}

impl Section {
    /// Whether it surely listens where a client would look for it; `own` are the addresses of this machine. What it
    /// does not bind, any user can: nearly all of 127.0.0.0/8.
    pub fn listens_on(&self, host: &str, own: &[IpAddr]) -> bool {
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let on = |ip: &IpAddr| match &self.bind {
            Some(binds) => binds.iter().any(|bind| bind.takes(*ip, own)),
            None => loopback.contains(ip),
        };
        match host {
            "localhost" => loopback.iter().all(on),
            host => host.parse().is_ok_and(|ip| on(&ip)),
        }
    }
}

/// The whole topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The file it was read from, for messages.
    pub file: PathBuf,
    /// Redis or Valkey.
    pub engine: Engine,
    /// Who keeps the instances running.
    pub runtime: RuntimeChoice,
    /// The image of containers; none for the usual one.
    #[serde(default)]
    pub image: Option<Image>,
    /// Whether a password is asked for (`password = none` switches it off).
    pub password: bool,
    /// `users`
    #[serde(default)]
    pub users: Access,
    /// `tls`: whether instances speak it, and nothing else.
    #[serde(default)]
    pub tls: bool,
    /// The instances, in the order of the file.
    pub instances: Vec<Section>,
    /// The web app, if one is wanted.
    #[serde(default)]
    pub app: Option<AppSection>,
}

impl Topology {
    /// Reads a topology; `file` is named in messages.
    ///
    /// # Errors
    /// A [`Fault`] that names the file, the line, the key and the cure.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Fault> {
        read::Reader::new(text, file).read()
    }

    /// The instance of this name.
    pub fn instance(&self, name: &str) -> Option<&Section> {
        self.instances.iter().find(|section| section.name.as_str() == name)
    }

    /// Whether instances have users of ours.
    pub fn has_users(&self) -> bool {
        let of_ours = |section: &Section| section.defaults == Defaults::On;
        self.password && self.users == Access::Acl && self.instances.iter().any(of_ours)
    }

    /// The names of those that follow an instance of this name.
    pub fn replicas_of(&self, name: &str) -> Vec<&Name> {
        let follows = |section: &&Section| matches!(&section.replicaof, Some(ReplicaOf::Instance(of)) if of.as_str() == name);
        self.instances.iter().filter(follows).map(|section| &section.name).collect()
    }
}

/// A hint that names the likely word, or else the whole choice.
pub fn did_you_mean(near: Option<&str>, otherwise: &str) -> String {
    near.map_or_else(|| otherwise.to_owned(), |near| format!("did you mean '{near}'?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Topology, Fault> {
        Topology::parse(text, Path::new("t.ini"))
    }

    #[test]
    fn the_labs_topology_reads() {
        let topology = parse(LAB).unwrap();
        assert_eq!(topology.instances.len(), 2);
        assert_eq!(topology.instance("slave").unwrap().port, 6380);
        assert_eq!(topology.replicas_of("master").len(), 1);
        assert_eq!(topology.app, Some(AppSection { line: 15, ..AppSection::default() }));
    }

    #[test]
    fn an_instance_listens_only_where_its_section_says() {
        let own = ["127.0.0.1", "::1", "10.0.0.5", "fd00::5"].map(|ip| ip.parse().unwrap());
        let all = [
            "127.0.0.1",
            "127.0.0.2",
            "::1",
            "localhost",
            "10.0.0.5",
            "10.0.0.6",
            "fd00::5",
            "0.0.0.0",
            "::",
            "::ffff:127.0.0.1",
            "127.1",
            "store.lan",
        ];
        for (bind, listens) in [
            ("", "127.0.0.1 ::1 localhost"),
            ("bind = 127.0.0.1 -::1", "127.0.0.1 ::1 localhost"),
            ("bind = 127.0.0.1", "127.0.0.1"),
            ("bind = ::1", "::1"),
            ("bind = 127.0.0.2", "127.0.0.2"),
            ("bind = 10.0.0.6", "10.0.0.6"),
            ("bind = 127.0.0.1 10.0.0.5", "127.0.0.1 10.0.0.5"),
            ("bind = 0.0.0.0", "127.0.0.1 10.0.0.5"),
            ("bind = *", "127.0.0.1 10.0.0.5"),
            ("bind = ::", "::1 fd00::5"),
            ("bind = * -::*", "127.0.0.1 ::1 localhost 10.0.0.5 fd00::5"),
        ] {
            let topology = parse(&format!("[slave]\nport = 6380\n{bind}\n")).unwrap();
            let said = all.into_iter().filter(|host| topology.instances[0].listens_on(host, &own));
            assert_eq!(said.collect::<Vec<_>>().join(" "), listens, "{bind}");
        }
    }

    #[test]
    fn repeated_directives_and_hashes_in_values_are_kept() {
        let topology =
            parse("[master]\nport=1\nsave = 900 1\nsave = 300 10 ; often\nrequirepass = a#b\n").unwrap();
        let words: Vec<_> =
            topology.instances[0].directives.iter().map(|named| named.args.join(" ")).collect();
        assert_eq!(words, ["900 1", "300 10", "a#b"]);
        assert_eq!(topology.instances[0].directives[1].line, 4);
    }

    #[test]
    fn what_cannot_be_is_refused_with_file_line_and_cure() {
        let cases = [
            ("[redis-tp]\nengin = redis\n", "t.ini:2: unknown key 'engin'", "did you mean 'engine'?"),
            ("[redis-tp]\nengine = mysql\n", "t.ini:2: engine = mysql", "redis, valkey"),
            ("[master]\nport = 70000\n", "t.ini:2: [master] port = 70000: '70000' is no port", ""),
            ("[master]\nbind = here\n", "t.ini:2: [master] bind = here", ""),
            ("[master]\n", "t.ini:1: [master] has no port", "port"),
            ("[a]\nport = 1\n[b]\nport = 1\n", "t.ini:4: [b] and [a] both have port 1", "another port"),
            ("[a]\nport = 1\n[a]\nport = 2\n", "t.ini:3: [a] stands twice", ""),
            ("[a] port = 1\n", "t.ini:1: the name of a section has no end", "[name]"),
            ("[a]b]\nport = 1\n", "t.ini:1: something stands behind the name of a section", "[name]"),
            ("[a]\nport: 1 = 2\n", "t.ini:2: 'port: 1' has a colon in it", "key = value"),
            ("\u{feff}[a]\nport = 1\n", "t.ini:1: the file begins with a byte order mark", "sed -i"),
            ("[a]\nport = 1\nreplicaof = a\n", "t.ini:3: [a] cannot be a replica of itself", ""),
            (
                "[slave]\nport = 1\nreplicaof = mastr\n[master]\nport = 2\n",
                "there is no [mastr]",
                "did you mean 'master'?",
            ),
            ("[a]\nport=1\nreplicaof=b\n[b]\nport=2\nreplicaof=a\n", "circle: a → b → a", ""),
            ("port = 1\n", "t.ini:1: 'port' stands before any section", ""),
            ("[a]\nport\n", "t.ini:2: 'port' is neither", ""),
            ("[A b]\nport = 1\n", "'A b' is no name", ""),
            ("[a]\nport = 1\nsave = \"900 1\n", "t.ini:3: [a] save = \"900 1: the quotes do not pair", ""),
            ("[a]\nport = 1\ndir = data\n", "is no absolute path", ""),
            ("[a]\nport = 1\ndir = /\n", "is no path that redis-tp would write to", ""),
            ("[a]\nport = 1\npidfile = /run/x\n", "redis-tp sets this itself", "remove the line"),
            ("[a]\nport = 1\nrequirepass = \"s3cret\n", "requirepass = ********", ""),
            ("[a]\nport = 1\nhz = 1\u{7}\n", "t.ini:3: the line has a control character", ""),
            ("[a]\nport = 1\nPort = 2\n", "t.ini:3: 'Port' stands twice in [a]", "keep one"),
            ("[a]\nport = 1\nreplicaof = h 1\nslaveof = h 2\n", "t.ini:4: 'slaveof' stands twice", ""),
            ("[a]\nport = 1\nrequirepass = x\nrequirepass = y\n", "t.ini:4: 'requirepass' stands twice", ""),
            ("[app]\nprot = 1\n", "t.ini:2: unknown key 'prot' in [app]", "did you mean 'port'?"),
            ("[app]\nttl = 1\nttl = 2\n", "t.ini:3: 'ttl' stands twice in [app]", "keep one"),
            ("[app]\nttl = 0\n", "t.ini:2: [app] ttl = 0: '0' is no lifetime", "ttl = 60"),
            ("[a]\nport = 5000\n[app]\n", "t.ini:3: [app] and [a] both have port 5000", "another port"),
            ("[a]\nport = 1\nrequirepass = x y\n", "requirepass = ********: is 2 words", "double quotes"),
        ];
        for (text, what, cure) in cases {
            let fault = parse(text).expect_err(text);
            assert!(fault.to_string().contains(what), "{fault}\n{text}");
            assert!(fault.cure().unwrap_or_default().contains(cure), "{:?}\n{text}", fault.cure());
        }
    }

    #[test]
    fn a_refusal_shows_no_password_wherever_it_was_put() {
        for text in [
            "[redis-tp]\npassword = s3cret\n",
            "[redis-tp]\nrequirepass = s3cret\n",
            "[master]\nport = 1\nrequirepass s3cret\n",
            "[master]\nport = 1\nrequirepass = \"s3cret\n",
            "[master]\nport = 1\nmasterauth = s3cret s3cret\n",
            "[master]\nport = 1\nuser = 'app on >s3cret\n",
        ] {
            let fault = parse(text).expect_err(text);
            let said = format!("{fault} {}", fault.cure().unwrap_or_default());
            assert!(!said.contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn an_edit_keeps_comments_and_order() {
        let mut document = Document::new(LAB);
        document.set("master", "port", "7000");
        document.set("slave", "replicaof", "10.0.0.1 6379");
        document.set("slave-6381", "port", "6381");
        document.set_all("master", "save", &["900 1".into(), "300 10".into()]);
        let text = document.text();
        assert!(text.contains("[master]\nport = 7000\nsave = 900 1\nsave = 300 10\n\n[slave]"), "{text}");
        assert!(text.contains("; a section of this file, or HOST PORT"), "{text}");
        assert!(text.ends_with("\n\n[slave-6381]\nport = 6381\n"), "{text}");
        document.remove("slave-6381");
        document.remove("slave");
        assert!(text.starts_with("; What redis-tp keeps true"));
        document.remove("app");
        assert!(document.text().ends_with("save = 300 10\n"), "{}", document.text());
    }
}
