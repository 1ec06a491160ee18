//! Reads a topology; every refusal names the file, the line, the key and the cure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption};

use super::values::{Defaults, absolute, is_within, port_number, yes_or_no};
use super::{
    APP, Access, AppSection, Bind, Image, Name, Named, OURS, ReplicaOf, RuntimeChoice, Section, Topology,
    did_you_mean,
};
use crate::conf;
use crate::directives::{self, closest};
use crate::engine::Engine;
use crate::exit::Fault;

/// One line of the file, as far as finding and editing need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Section(String),
    Key(String),
    Other,
}

pub(super) fn scan(text: &str) -> Vec<Line> {
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
pub(super) fn uncomment(line: &str) -> &str {
    if line.trim_start().starts_with([';', '#']) {
        return "";
    }
    let comment = line.char_indices().find(|&(at, c)| {
        c == ';' && line.get(..at).is_some_and(|before| before.ends_with(char::is_whitespace))
    });
    comment.and_then(|(at, _)| line.get(..at)).unwrap_or(line)
}

/// What some editors begin a file of UTF-8 with; nobody sees it.
const BYTE_ORDER_MARK: char = '\u{feff}';

pub(super) struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    lines: Vec<Line>,
}

impl<'a> Reader<'a> {
    /// Takes a text; `file` is named in messages.
    pub(super) fn new(text: &'a str, file: &'a Path) -> Self {
        Self { file, text, lines: scan(text) }
    }

    /// Reads it.
    pub(super) fn read(&self) -> Result<Topology, Fault> {
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
            image: None,
            password: true,
            users: Access::default(),
            tls: false,
            instances: Vec::new(),
            app: None,
        };
        for (section, properties) in ini.iter() {
            match section {
                None => {}
                Some(OURS) => {
                    for (key, value) in properties.iter() {
                        self.ours(&mut topology, key, value)?;
                    }
                }
                Some(APP) => topology.app = Some(self.app(properties)?),
                Some(name) => topology.instances.push(self.instance(name, properties)?),
            }
        }
        self.check_whole(&topology)?;
        Ok(topology)
    }

    fn check_lines(&self) -> Result<(), Fault> {
        if self.text.starts_with(BYTE_ORDER_MARK) {
            let cure = format!("take it away:\nsed -i '1s/^\\xef\\xbb\\xbf//' {}", self.file.display());
            return Err(self.fault(1, "the file begins with a byte order mark", &cure));
        }
        let mut seen = BTreeSet::new();
        let mut inside = false;
        for (index, (line, raw)) in self.lines.iter().zip(self.text.lines()).enumerate() {
            let text = uncomment(raw).trim();
            match line {
                _ if raw.chars().any(|c| c.is_control() && c != '\t') => {
                    return Err(self.fault(index + 1, "the line has a control character in it", "remove it"));
                }
                Line::Section(name) if !seen.insert(name.clone()) => {
                    return Err(self.fault(
                        index + 1,
                        &format!("[{name}] stands twice"),
                        "give each instance a name of its own",
                    ));
                }
                Line::Section(name) if name.contains(']') => {
                    return Err(self.fault(
                        index + 1,
                        "something stands behind the name of a section",
                        "write sections as [name]",
                    ));
                }
                Line::Section(_) => inside = true,
                Line::Key(key) if key.starts_with('[') => {
                    return Err(self.fault(
                        index + 1,
                        "the name of a section has no end",
                        "write sections as [name]",
                    ));
                }
                // Others read a colon as they read `=`.
                Line::Key(key) if key.contains(':') => {
                    return Err(self.fault(
                        index + 1,
                        &format!("'{}' has a colon in it", conf::mask_line(key)),
                        "write: key = value",
                    ));
                }
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
            "users" => topology.users = self.choice(line, key, value)?,
            "tls" => {
                let what = |why| self.fault(line, &format!("tls = {value}: {why}"), "yes or no");
                topology.tls = yes_or_no(value).map_err(what)?;
            }
            "image" => {
                let image = Image::parse(value).map_err(|why| {
                    self.fault(line, &format!("image = {value}: {why}"), "write it as docker does: redis:7")
                })?;
                topology.image = Some(image);
            }
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
                let near = closest(key, ["engine", "runtime", "image", "password", "users", "tls"]);
                return Err(self.fault(
                    line,
                    &format!("unknown key '{key}' in [{OURS}]"),
                    &did_you_mean(near, "known keys: engine, runtime, image, password, users, tls"),
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

    fn app(&self, properties: &ini::Properties) -> Result<AppSection, Fault> {
        let mut section = AppSection { line: self.line_of_section(APP), ..AppSection::default() };
        let mut seen = BTreeSet::new();
        for (key, value) in properties.iter() {
            let again = !seen.insert(key);
            let line = self.line_of(APP, key, usize::from(again));
            if again {
                return Err(self.fault(
                    line,
                    &format!("'{key}' stands twice in [{APP}]"),
                    "keep one of them",
                ));
            }
            let keys: Vec<&str> = AppSection::KEYS.into_iter().chain(AppSection::FILES).collect();
            if !keys.contains(&key) {
                let near = closest(key, keys.iter().copied());
                let known = format!("known keys: {}", keys.join(", "));
                let what = format!("unknown key '{key}' in [{APP}]");
                return Err(self.fault(line, &what, &did_you_mean(near, &known)));
            }
            section
                .set(key, value)
                .map_err(|(why, cure)| self.fault(line, &format!("[{APP}] {key} = {value}: {why}"), &cure))?;
        }
        if let Some(missing) = section.missing_file() {
            let what = format!("[{APP}] names files for TLS, and no {missing}");
            return Err(self.fault(section.line, &what, "name all three, or none"));
        }
        Ok(section)
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
            defaults: Defaults::On,
            harden: None,
            lines: Vec::new(),
        };
        // The other keys are read by it, wherever it stands.
        if let Some(value) = properties.get(DEFAULTS) {
            section.defaults = Defaults::parse(value).map_err(|why| {
                let line = self.line_of(name, DEFAULTS, 0);
                self.fault(line, &format!("[{name}] {DEFAULTS} = {value}: {why}"), "defaults = off")
            })?;
        }
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
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
            return Err((
                "no Redis directive looks like this".into(),
                "keys are Redis's own directives".into(),
            ));
        }
        let args = conf::split(value).ok_or_else(|| {
            ("the quotes do not pair".to_owned(), "close each quote, or leave them away".to_owned())
        })?;
        let plain = section.defaults != Defaults::On && !NO_DIRECTIVES.contains(&name.as_str());
        section.lines.extend(plain.then(|| Named { name: name.clone(), args: args.clone(), line }));
        match name.as_str() {
            DEFAULTS => {}
            HARDEN => section.harden = Some(yes_or_no(value).map_err(cure("yes or no"))?),
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
            // The server's own word for its standard output.
            "logfile" if plain && args == [""] => {}
            "logfile" => section.logfile = Some(absolute(value).map_err(cure("give an absolute path"))?),
            "requirepass" | "masterauth" if args.len() != 1 => {
                let quoted = "put the whole password between double quotes: \"…\"".to_owned();
                return Err((format!("is {} words, and a password is one", args.len()), quoted));
            }
            "pidfile" | "daemonize" | "supervised" if !plain => {
                return Err((
                    "redis-tp sets this itself, to fit the unit".into(),
                    format!("remove the line '{key}'"),
                ));
            }
            // The server itself takes `..`, and what is above its directory is not its own.
            "dbfilename" | "appendfilename" | "appenddirname" if args.iter().any(|word| !is_within(word)) => {
                return Err((
                    "is no name in its directory".into(),
                    "give a name without a /; dir says where it is".into(),
                ));
            }
            // The quotes of a redis.conf can say any byte.
            file if file.ends_with("file") && args.iter().any(|word| word.contains(char::is_control)) => {
                return Err((
                    "has a character in it that no path should have".into(),
                    "write the path as it is".into(),
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
            let port = section.directives.iter().find(|named| named.name == "tls-port");
            if let Some(named) = port.filter(|_| topology.tls && section.defaults == Defaults::On) {
                return Err(self.fault(
                    named.line,
                    &format!("[{}] names a tls-port, and `tls = yes` makes its port one", section.name),
                    "take the line out; or, for both kinds of port, `tls = yes` out of [redis-tp]",
                ));
            }
        }
        if let Some(app) = &topology.app
            && let Some(other) = ports.get(&app.port)
        {
            return Err(self.fault(
                app.line,
                &format!("[{APP}] and [{other}] both have port {}", app.port),
                "give one of them another port",
            ));
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

const DEFAULTS: &str = "defaults";
const HARDEN: &str = "harden";

/// The keys of an instance that are no directives.
const NO_DIRECTIVES: [&str; 2] = [DEFAULTS, HARDEN];

/// Keys with a type of their own, which may stand once.
const TYPED: [&str; 10] = [
    DEFAULTS,
    HARDEN,
    "port",
    "bind",
    "protected-mode",
    "replicaof",
    "dir",
    "logfile",
    "requirepass",
    "masterauth",
];
