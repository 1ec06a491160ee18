//! What is wanted: one INI file, one section an instance. Parsing yields types that cannot hold a
//! wrong value; editing keeps every comment and the order of the lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption};
use serde::{Deserialize, Serialize};

use crate::conf;
use crate::directives::{self, closest};
use crate::engine::Engine;
use crate::exit::Fault;

/// Where the topology is, in the system layout.
pub const SYSTEM_FILE: &str = "/etc/redis-tp/topology.ini";

/// The lab's two instances: what `up` uses where no topology is written yet.
pub const LAB: &str = "\
; What redis-tp keeps true on this machine; `redis-tp apply` makes it so.
; One section an instance; keys are Redis's own directives.

[redis-tp]
engine  = redis          ; redis | valkey
runtime = auto           ; auto | systemd | process

[master]
port = 6379

[slave]
port = 6380
replicaof = master       ; a section of this file, or HOST PORT
";

/// The start of a topology that `install` or `replica add` makes.
pub const EMPTY: &str = "\
; What redis-tp keeps true on this machine; `redis-tp apply` makes it so.
; One section an instance; keys are Redis's own directives.

[redis-tp]
engine  = redis          ; redis | valkey
runtime = auto           ; auto | systemd | process
";

/// Our own section, the only one that is no instance.
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
}

/// The name of an instance; it becomes part of paths and unit names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Reads a name: a lower-case letter, then letters, digits and dashes, 32 at most.
    ///
    /// # Errors
    /// Anything else, and names whose files would collide with others.
    pub fn parse(text: &str) -> Result<Self, String> {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
        if !starts || text.len() > 32 || !text.chars().all(letters) || text.ends_with('-') {
            return Err(format!(
                "'{text}' is no name for an instance: a-z first, then a-z, 0-9 and '-', 32 at most"
            ));
        }
        if matches!(text, "redis-tp" | "app" | "server" | "sentinel") {
            return Err(format!("'{text}' is reserved and cannot name an instance"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// One address of `bind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Redis's `-` prefix: go on if this machine does not have the address.
    pub optional: bool,
    /// The address.
    pub address: BindAddress,
}

/// The words of one `--bind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binds(pub Vec<Bind>);

impl Binds {
    /// Reads addresses with blanks or commas between them.
    ///
    /// # Errors
    /// A word that is no address, or none at all.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let binds: Vec<Bind> = words.map(Bind::parse).collect::<Result<_, _>>()?;
        if binds.is_empty() { Err("no address".into()) } else { Ok(Self(binds)) }
    }
}

/// What `bind` may name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindAddress {
    /// One address.
    Ip(IpAddr),
    /// `*`: every IPv4 address.
    AnyV4,
    /// `::*`: every IPv6 address.
    AnyV6,
}

impl Bind {
    /// Reads one word of `bind`.
    ///
    /// # Errors
    /// A word that is no address. Host names work in Redis, but what they resolve to may change
    /// between the check and the start; an address is asked for instead.
    pub fn parse(word: &str) -> Result<Self, String> {
        let (optional, text) = match word.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, word),
        };
        let address = match text {
            "*" => BindAddress::AnyV4,
            "::*" => BindAddress::AnyV6,
            text => BindAddress::Ip(text.parse().map_err(|_| format!("'{word}' is no IP address"))?),
        };
        Ok(Self { optional, address })
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        matches!(self.address, BindAddress::Ip(ip) if ip.is_loopback())
    }

    /// An address under which this machine reaches what listens here.
    pub fn reach(&self) -> String {
        match self.address {
            BindAddress::AnyV4 => "127.0.0.1".into(),
            BindAddress::AnyV6 => "::1".into(),
            BindAddress::Ip(ip) if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".into(),
            BindAddress::Ip(ip) if ip.is_unspecified() => "::1".into(),
            BindAddress::Ip(ip) => ip.to_string(),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.optional { "-" } else { "" })?;
        match self.address {
            BindAddress::Ip(ip) => write!(f, "{ip}"),
            BindAddress::AnyV4 => f.write_str("*"),
            BindAddress::AnyV6 => f.write_str("::*"),
        }
    }
}

/// Whom a replica follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaOf {
    /// Another section of the topology.
    Instance(Name),
    /// A server elsewhere.
    Remote {
        /// Host name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl ReplicaOf {
    /// Reads `NAME`, `HOST PORT` or `HOST:PORT`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (host, port) = match text.split_once(char::is_whitespace) {
            Some((host, port)) => (host, port.trim()),
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host.trim_start_matches('[').trim_end_matches(']'), port),
                None => return Name::parse(text).map(Self::Instance),
            },
        };
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_' | '%');
        if host.is_empty() || !host.chars().all(fine) {
            return Err(format!("'{host}' is no host name or address"));
        }
        Ok(Self::Remote { host: host.to_owned(), port: port_number(port)? })
    }
}

impl fmt::Display for ReplicaOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(name) => write!(f, "{name}"),
            Self::Remote { host, port } => write!(f, "{host} {port}"),
        }
    }
}

/// Reads a TCP port.
///
/// # Errors
/// Not a number from 1 to 65535.
pub fn port_number(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("'{text}' is no port: a number from 1 to 65535")),
    }
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
    /// Whether a password is asked for (`password = none` switches it off).
    pub password: bool,
    /// The instances, in the order of the file.
    pub instances: Vec<Section>,
}

impl Topology {
    /// Reads a topology; `file` is named in messages.
    ///
    /// # Errors
    /// A [`Fault`] that names the file, the line, the key and the cure.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Fault> {
        Reader { file, text, lines: scan(text) }.read()
    }

    /// The instance of this name.
    pub fn instance(&self, name: &str) -> Option<&Section> {
        self.instances.iter().find(|section| section.name.as_str() == name)
    }

    /// The names of those that follow an instance of this name.
    pub fn replicas_of(&self, name: &str) -> Vec<&Name> {
        let follows = |section: &&Section| matches!(&section.replicaof, Some(ReplicaOf::Instance(of)) if of.as_str() == name);
        self.instances.iter().filter(follows).map(|section| &section.name).collect()
    }
}

// ---- reading --------------------------------------------------------------------------------

/// One line of the file, as far as finding and editing need it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Section(String),
    Key(String),
    Other,
}

fn scan(text: &str) -> Vec<Line> {
    let classify = |raw: &str| {
        let line = uncomment(raw).trim().to_owned();
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => Line::Section(name.trim().to_owned()),
            None => match line.split_once('=') {
                Some((key, _)) => Line::Key(key.trim().to_owned()),
                None => Line::Other,
            },
        }
    };
    text.lines().map(classify).collect()
}

/// A line without its comment: `;` or `#` at its start, or ` ;` behind a value. A `#` behind a value
/// is part of it, as it is in redis.conf.
fn uncomment(line: &str) -> &str {
    if line.trim_start().starts_with([';', '#']) {
        return "";
    }
    let comment = line.char_indices().find(|&(at, c)| {
        c == ';' && line.get(..at).is_some_and(|before| before.ends_with(char::is_whitespace))
    });
    comment.and_then(|(at, _)| line.get(..at)).unwrap_or(line)
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    lines: Vec<Line>,
}

impl Reader<'_> {
    fn read(&self) -> Result<Topology, Fault> {
        self.check_lines()?;
        // Comments are blanked, not removed: the parser's line numbers stay those of the file.
        let clean: String = self.text.lines().flat_map(|line| [uncomment(line), "\n"]).collect();
        let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
        let ini = Ini::load_from_str_opt(&clean, options).map_err(|error| {
            self.fault(error.line, &error.msg, "write sections as [name] and keys as key = value")
        })?;
        let mut topology = Topology {
            file: self.file.to_owned(),
            engine: Engine::default(),
            runtime: RuntimeChoice::default(),
            password: true,
            instances: Vec::new(),
        };
        for (section, properties) in ini.iter() {
            match section {
                None => {}
                Some(OURS) => {
                    for (key, value) in properties.iter() {
                        self.ours(&mut topology, key, value)?;
                    }
                }
                Some(name) => topology.instances.push(self.instance(name, properties)?),
            }
        }
        self.check_whole(&topology)?;
        Ok(topology)
    }

    fn check_lines(&self) -> Result<(), Fault> {
        let mut seen = BTreeSet::new();
        let mut inside = false;
        for (index, (line, raw)) in self.lines.iter().zip(self.text.lines()).enumerate() {
            let text = uncomment(raw).trim();
            match line {
                Line::Section(name) if !seen.insert(name.clone()) => {
                    return Err(self.fault(
                        index + 1,
                        &format!("[{name}] stands twice"),
                        "give each instance a name of its own",
                    ));
                }
                Line::Section(_) => inside = true,
                Line::Key(key) if !inside => {
                    return Err(self.fault(
                        index + 1,
                        &format!("'{key}' stands before any section"),
                        "put it below a [section]",
                    ));
                }
                Line::Other if !text.is_empty() => {
                    // A line of redis.conf, perhaps, with a password in it.
                    let shown = conf::mask_line(text);
                    return Err(self.fault(
                        index + 1,
                        &format!("'{shown}' is neither [section] nor key = value"),
                        "write: key = value",
                    ));
                }
                _ if raw.trim_end().ends_with('\\') => {
                    return Err(self.fault(
                        index + 1,
                        "a value cannot end in a backslash",
                        "quote it: \"…\\\\\"",
                    ));
                }
                _ if raw.chars().any(|c| c.is_control() && c != '\t') => {
                    return Err(self.fault(index + 1, "the line has a control character in it", "remove it"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn ours(&self, topology: &mut Topology, key: &str, value: &str) -> Result<(), Fault> {
        let line = self.line_of(OURS, key, 0);
        match key {
            "engine" => topology.engine = self.choice(line, key, value)?,
            "runtime" => topology.runtime = self.choice(line, key, value)?,
            "password" => match value {
                "none" => topology.password = false,
                "generated" | "file" => topology.password = true,
                // Most likely it is the password itself: not to be shown.
                _ => return Err(self.fault(
                    line,
                    "password is neither 'generated' nor 'none'",
                    "a password of your own is not for this file; hand it over:\nredis-tp install --password-file FILE",
                )),
            },
            _ => {
                let near = closest(key, ["engine", "runtime", "password"]);
                return Err(self.fault(
                    line,
                    &format!("unknown key '{key}' in [{OURS}]"),
                    &did_you_mean(near, "known keys: engine, runtime, password"),
                ));
            }
        }
        Ok(())
    }

    fn choice<T: clap::ValueEnum>(&self, line: usize, key: &str, value: &str) -> Result<T, Fault> {
        T::from_str(value, true).map_err(|_| {
            let known: Vec<String> = T::value_variants()
                .iter()
                .filter_map(|variant| variant.to_possible_value().map(|value| value.get_name().to_owned()))
                .collect();
            self.fault(line, &format!("{key} = {value}: not known"), &format!("one of: {}", known.join(", ")))
        })
    }

    fn instance(&self, name: &str, properties: &ini::Properties) -> Result<Section, Fault> {
        let line = self.line_of_section(name);
        let parsed = Name::parse(name).map_err(|why| self.fault(line, &why, "rename the section"))?;
        let mut section = Section {
            name: parsed,
            line,
            port: 0,
            bind: None,
            protected_mode: None,
            replicaof: None,
            dir: None,
            logfile: None,
            directives: Vec::new(),
        };
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut typed = BTreeSet::new();
        for (key, value) in properties.iter() {
            let nth = seen.entry(key.to_owned()).and_modify(|count| *count += 1).or_insert(0);
            let line = self.line_of(name, key, *nth);
            // `Port` and `slaveof` are second lines of `port` and `replicaof`, too.
            let lower = key.to_ascii_lowercase();
            let canonical = directives::canonical(&lower).to_owned();
            if TYPED.contains(&canonical.as_str()) && !typed.insert(canonical) {
                return Err(self.fault(
                    line,
                    &format!("'{key}' stands twice in [{name}]"),
                    "keep one of them",
                ));
            }
            self.key(&mut section, key, value, line).map_err(|why| {
                self.fault(
                    line,
                    &format!("[{name}] {key} = {}: {}", conf::mask_value(key, value), why.0),
                    &why.1,
                )
            })?;
        }
        if section.port == 0 {
            return Err(self.fault(line, &format!("[{name}] has no port"), "add: port = 6380"));
        }
        Ok(section)
    }

    /// Reads one key of an instance; the error is what is wrong, and the cure.
    fn key(
        &self,
        section: &mut Section,
        key: &str,
        value: &str,
        line: usize,
    ) -> Result<(), (String, String)> {
        let name = key.to_ascii_lowercase();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err((
                "no Redis directive looks like this".into(),
                "keys are Redis's own directives".into(),
            ));
        }
        let args = conf::split(value).ok_or_else(|| {
            ("the quotes do not pair".to_owned(), "close each quote, or leave them away".to_owned())
        })?;
        match name.as_str() {
            "port" => {
                section.port = port_number(value).map_err(cure("give a free port, for example 6380"))?
            }
            "bind" => {
                let addresses: Result<Vec<_>, _> = args.iter().map(|word| Bind::parse(word)).collect();
                let addresses = addresses.map_err(cure("for example: bind = 127.0.0.1 -::1"))?;
                if addresses.is_empty() {
                    return Err(("no address".into(), "for example: bind = 127.0.0.1".into()));
                }
                section.bind = Some(addresses);
            }
            "protected-mode" => section.protected_mode = Some(yes_or_no(value).map_err(cure("yes or no"))?),
            "replicaof" | "slaveof" => {
                section.replicaof =
                    Some(ReplicaOf::parse(value).map_err(cure("a section of this file, or HOST PORT"))?);
            }
            "dir" => section.dir = Some(absolute(value).map_err(cure("give an absolute path"))?),
            "logfile" => section.logfile = Some(absolute(value).map_err(cure("give an absolute path"))?),
            "requirepass" | "masterauth" if args.len() != 1 => {
                let quoted = "put the whole password between double quotes: \"…\"".to_owned();
                return Err((format!("is {} words, and a password is one", args.len()), quoted));
            }
            "pidfile" | "daemonize" | "supervised" => {
                return Err((
                    "redis-tp sets this itself, to fit the unit".into(),
                    format!("remove the line '{key}'"),
                ));
            }
            _ => section.directives.push(Named { name, args, line }),
        }
        Ok(())
    }

    fn check_whole(&self, topology: &Topology) -> Result<(), Fault> {
        let mut ports: BTreeMap<u16, &Name> = BTreeMap::new();
        let mut dirs: BTreeMap<PathBuf, &Name> = BTreeMap::new();
        for section in &topology.instances {
            if let Some(other) = ports.insert(section.port, &section.name) {
                return Err(self.fault(
                    self.line_of(section.name.as_str(), "port", 0),
                    &format!("[{}] and [{other}] both have port {}", section.name, section.port),
                    "give one of them another port",
                ));
            }
            let dir = section.dir.clone().unwrap_or_else(|| topology.engine.data(section.name.as_str()));
            if let Some(other) = dirs.insert(dir.clone(), &section.name) {
                return Err(self.fault(
                    section.line,
                    &format!("[{}] and [{other}] both have their data in {}", section.name, dir.display()),
                    "give one of them another dir: two servers would overwrite each other's data",
                ));
            }
        }
        for section in &topology.instances {
            self.check_chain(topology, section)?;
        }
        Ok(())
    }

    /// A replica's masters, one after the other, must end at one that is no replica of ours.
    fn check_chain(&self, topology: &Topology, section: &Section) -> Result<(), Fault> {
        let line = self.line_of(section.name.as_str(), "replicaof", 0);
        let mut passed = vec![section.name.to_string()];
        let mut at = section;
        while let Some(ReplicaOf::Instance(of)) = &at.replicaof {
            if of == &at.name {
                return Err(self.fault(
                    line,
                    &format!("[{of}] cannot be a replica of itself"),
                    "name another instance",
                ));
            }
            let Some(next) = topology.instance(of.as_str()) else {
                let names = topology.instances.iter().map(|other| other.name.as_str());
                let near = closest(of.as_str(), names);
                return Err(self.fault(
                    line,
                    &format!("[{}] replicaof = {of}: there is no [{of}]", at.name),
                    &did_you_mean(near, "name a section of this file, or HOST PORT"),
                ));
            };
            if passed.contains(&of.to_string()) {
                passed.push(of.to_string());
                return Err(self.fault(
                    line,
                    &format!("replicaof goes in a circle: {}", passed.join(" → ")),
                    "let one of them be a master: remove its replicaof",
                ));
            }
            passed.push(of.to_string());
            at = next;
        }
        Ok(())
    }

    fn line_of_section(&self, section: &str) -> usize {
        let at = self.lines.iter().position(|line| matches!(line, Line::Section(name) if name == section));
        at.map_or(0, |index| index + 1)
    }

    fn line_of(&self, section: &str, key: &str, nth: usize) -> usize {
        let from = self.line_of_section(section);
        let within = self.lines.iter().enumerate().skip(from);
        within
            .take_while(|(_, line)| !matches!(line, Line::Section(_)))
            .filter(|(_, line)| matches!(line, Line::Key(name) if name == key))
            .nth(nth)
            .map_or(from, |(index, _)| index + 1)
    }

    fn fault(&self, line: usize, what: &str, cure: &str) -> Fault {
        Fault::refused(format!("{}:{line}: {what}", self.file.display())).hint(cure)
    }
}

/// Adds the cure to what is wrong.
fn cure(text: &str) -> impl FnOnce(String) -> (String, String) {
    let text = text.to_owned();
    move |why| (why, text)
}

/// Keys with a type of their own, which may stand once.
const TYPED: [&str; 8] =
    ["port", "bind", "protected-mode", "replicaof", "dir", "logfile", "requirepass", "masterauth"];

/// Reads Redis's yes or no.
///
/// # Errors
/// Anything else.
pub fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("'{text}' is neither yes nor no")),
    }
}

/// A path that starts at the root and needs no quotes anywhere: in redis.conf, a unit, a shell.
fn absolute(text: &str) -> Result<PathBuf, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | '@' | ',');
    let path = Path::new(text);
    if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
        return Err("is no absolute path".into());
    }
    if !text.chars().all(fine) || text.trim_end_matches('/').matches('/').count() < 2 {
        return Err(
            "is no path that redis-tp would write to: at least two levels, of a-z A-Z 0-9 . _ + @ , -".into(),
        );
    }
    Ok(PathBuf::from(text.trim_end_matches('/')))
}

/// A hint that names the likely word, or else the whole choice.
pub fn did_you_mean(near: Option<&str>, otherwise: &str) -> String {
    near.map_or_else(|| otherwise.to_owned(), |near| format!("did you mean '{near}'?"))
}

// ---- editing --------------------------------------------------------------------------------

/// A topology file as text, edited line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    lines: Vec<String>,
}

impl Document {
    /// Takes a text to edit.
    pub fn new(text: &str) -> Self {
        Self { lines: text.lines().map(str::to_owned).collect() }
    }

    /// The text with its edits.
    pub fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }

    /// Whether there is a section of this name.
    pub fn has(&self, section: &str) -> bool {
        self.span(section).is_some()
    }

    /// Sets a key, in a section that is made at the end if it is not there. A comment behind the old
    /// value stays; of a key that stands several times the first is set and the others go.
    pub fn set(&mut self, section: &str, key: &str, value: &str) {
        self.set_all(section, key, &[value.to_owned()]);
    }

    /// Sets a key to several values, one line each.
    pub fn set_all(&mut self, section: &str, key: &str, values: &[String]) {
        if !self.has(section) {
            if self.lines.last().is_some_and(|line| !line.trim().is_empty()) {
                self.lines.push(String::new());
            }
            self.lines.push(format!("[{section}]"));
        }
        let standing = self.keys(section, key);
        let comment = standing.first().and_then(|at| self.lines.get(*at)).map(|line| {
            let bare = uncomment(line);
            line.get(bare.len()..).unwrap_or_default().to_owned()
        });
        let at = standing.first().copied().unwrap_or_else(|| self.end(section));
        for index in standing.into_iter().rev() {
            self.lines.remove(index);
        }
        for (offset, value) in values.iter().enumerate() {
            let tail = match (&comment, offset) {
                (Some(comment), 0) if !comment.is_empty() => format!("       {comment}"),
                _ => String::new(),
            };
            self.lines.insert(at + offset, format!("{key} = {value}{tail}"));
        }
    }

    /// Takes a key away.
    pub fn unset(&mut self, section: &str, key: &str) {
        for index in self.keys(section, key).into_iter().rev() {
            self.lines.remove(index);
        }
    }

    /// Takes a section away, with the blank lines behind it.
    pub fn remove(&mut self, section: &str) {
        if let Some((start, end)) = self.span(section) {
            self.lines.drain(start..end);
            while self.lines.last().is_some_and(|line| line.trim().is_empty()) {
                self.lines.pop();
            }
        }
    }

    /// The lines of a section, header included.
    fn span(&self, section: &str) -> Option<(usize, usize)> {
        let lines = scan(&self.text());
        let start = lines.iter().position(|line| matches!(line, Line::Section(name) if name == section))?;
        let next = lines.iter().skip(start + 1).position(|line| matches!(line, Line::Section(_)));
        Some((start, next.map_or(self.lines.len(), |offset| start + 1 + offset)))
    }

    /// Where a new key goes: behind the last line of the section that is not blank.
    fn end(&self, section: &str) -> usize {
        let Some((start, end)) = self.span(section) else { return self.lines.len() };
        let used = |index: &usize| self.lines.get(*index).is_some_and(|line| !line.trim().is_empty());
        (start..end).rev().find(used).map_or(end, |last| last + 1)
    }

    fn keys(&self, section: &str, key: &str) -> Vec<usize> {
        let Some((start, end)) = self.span(section) else { return Vec::new() };
        let lines = scan(&self.text());
        (start..end)
            .filter(|index| matches!(lines.get(*index), Some(Line::Key(name)) if name == key))
            .collect()
    }
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
        assert!(document.text().ends_with("save = 300 10\n"), "{}", document.text());
    }
}
