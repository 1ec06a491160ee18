//! The embedded templates, rendered. Tera passes newlines through and takes a misspelt name inside
//! an `if` for false, so every value comes from a validated type, quoted, and a test holds each
//! template's names against the context that it is given.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tera::{Context, Tera};

const REDIS: &str = include_str!("../templates/redis.conf");
const REDIS_SLAVE: &str = include_str!("../templates/redis-slave.conf");
const PLAIN: &str = include_str!("../templates/plain.conf");
const DROP_IN: &str = include_str!("../systemd/drop-in.conf");
const HARDENING: &str = include_str!("../systemd/hardening.conf");
const UNIT: &str = include_str!("../systemd/instance.service");
const APP_UNIT: &str = include_str!("../systemd/app.service");
const USER_UNIT: &str = include_str!("../systemd/user-instance.service");
const USER_HARDENING: &str = include_str!("../systemd/user-hardening.conf");
const USER_APP_UNIT: &str = include_str!("../systemd/user-app.service");

/// Whether a file was written by us, by what stands in it.
pub fn is_ours(text: &str) -> bool {
    ["rendered by redis-tp from", "Written by redis-tp"].iter().any(|mark| text.contains(mark))
}

/// What the two configuration templates may name. Every string stands as it will in the file:
/// quoted, and without a newline. None is a line that is not wanted, or that somebody took away.
#[derive(Debug, Serialize)]
pub struct ConfContext {
    /// The instance.
    pub name: String,
    /// The topology file.
    pub topology: String,
    /// `bind`
    pub bind: Option<String>,
    /// `protected-mode`
    pub protected_mode: Option<String>,
    /// `port`
    pub port: Option<String>,
    /// How it speaks TLS: whole lines.
    pub tls: Vec<String>,
    /// `requirepass`
    pub requirepass: Option<String>,
    /// `masterauth`
    pub masterauth: Option<String>,
    /// `masteruser`
    pub masteruser: Option<String>,
    /// The users, without the word `user`.
    pub users: Vec<String>,
    /// `replicaof`; none in a replica that somebody promoted
    pub replicaof: Option<String>,
    /// `dir`
    pub dir: Option<String>,
    /// `logfile`
    pub logfile: Option<String>,
    /// `pidfile`
    pub pidfile: Option<String>,
    /// `daemonize`
    pub daemonize: &'static str,
    /// Whole lines that we set unless the topology says otherwise.
    pub defaults: Vec<String>,
    /// Whole lines of the topology.
    pub directives: Vec<String>,
    /// Whole lines that somebody wrote into the file by hand.
    pub kept: Vec<String>,
}

/// Renders redis.conf, or redis-slave.conf for a replica.
pub fn configuration(context: &ConfContext, replica: bool) -> Result<String> {
    let template = if replica { REDIS_SLAVE } else { REDIS };
    render(template, &Context::from_serialize(context)?)
}

/// Renders a configuration that has these lines and no defaults of ours.
pub fn plain_configuration(name: &str, topology: &Path, lines: Vec<String>) -> Result<String> {
    let mut context = Context::new();
    context.insert("name", name);
    context.insert("topology", &topology.display().to_string());
    context.insert("lines", &lines);
    render(PLAIN, &context)
}

/// Renders the drop-in that opens directories to a unit, and closes the rest.
pub fn drop_in(unit: &str, paths: &[String], hardening: &Hardening, harden: bool) -> Result<String> {
    let mut context = Context::new();
    context.insert("unit", unit);
    context.insert("paths", paths);
    context.insert("hardening", &harden.then(|| hardening.lines()).transpose()?);
    context.insert("low_port", &hardening.low_port);
    render(DROP_IN, &context)
}

/// What of an instance decides how far its unit can be closed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Hardening {
    /// It speaks with this machine alone.
    pub local: bool,
    /// Its port is one that only root may open.
    pub low_port: bool,
}

impl Hardening {
    /// The lines of a unit.
    pub fn lines(&self) -> Result<String> {
        let text = render(HARDENING, &Context::from_serialize(self)?)?;
        Ok(text.trim_end().to_owned())
    }
}

/// What closes a unit of a user's own.
#[derive(Debug, Serialize)]
pub struct UserHardening {
    /// It has namespaces of its own.
    pub namespaces: bool,
    /// What it may write to then.
    pub paths: Vec<String>,
}

impl UserHardening {
    /// The lines of a unit.
    pub fn lines(&self) -> Result<String> {
        let text = render(USER_HARDENING, &Context::from_serialize(self)?)?;
        Ok(text.trim_end().to_owned())
    }
}

/// What the unit of an instance may name, where the distribution has none.
#[derive(Debug, Serialize)]
pub struct UnitContext {
    /// The unit.
    pub unit: String,
    /// Redis or Valkey.
    pub engine: String,
    /// The instance.
    pub name: String,
    /// The server's program.
    pub server: String,
    /// The configuration file.
    pub conf: String,
    /// The user and the group.
    pub user: &'static str,
    /// The directories of its libraries, where it was unpacked without root.
    pub libraries: Option<String>,
    /// The directory below /run.
    pub run: String,
    /// The directories that it may write to.
    pub paths: Vec<String>,
    /// What closes the rest, if it is to be hardened.
    pub hardening: Option<String>,
    /// Its port is one that only root may open.
    pub low_port: bool,
}

/// Renders a whole unit: root's, or a user's own.
pub fn unit(context: &UnitContext, own: bool) -> Result<String> {
    render(if own { USER_UNIT } else { UNIT }, &Context::from_serialize(context)?)
}

/// What the web app's unit may name.
#[derive(Debug, Serialize)]
pub struct AppUnitContext {
    /// Our program.
    pub program: String,
    /// The file with its settings.
    pub settings: String,
    /// It talks to this machine alone.
    pub local: bool,
    /// Its port is one that only root may open.
    pub low_port: bool,
    /// How long a stop may take, in seconds.
    pub stop_seconds: u64,
    /// What closes a user's own; root's unit has it in itself.
    pub hardening: Option<String>,
}

/// Renders the web app's unit: root's, or a user's own.
pub fn app_unit(context: &AppUnitContext, own: bool) -> Result<String> {
    render(if own { USER_APP_UNIT } else { APP_UNIT }, &Context::from_serialize(context)?)
}

fn render(template: &str, context: &Context) -> Result<String> {
    let mut text = Tera::one_off(template, context, false).context("cannot render a template")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_names_nothing_that_it_is_not_given() {
        let context = ConfContext {
            name: String::new(),
            topology: String::new(),
            bind: None,
            protected_mode: None,
            port: None,
            tls: Vec::new(),
            requirepass: None,
            masterauth: None,
            masteruser: None,
            users: Vec::new(),
            replicaof: None,
            dir: None,
            logfile: None,
            pidfile: None,
            daemonize: "",
            defaults: Vec::new(),
            directives: Vec::new(),
            kept: Vec::new(),
        };
        let given = serde_json::to_value(&context).unwrap();
        for template in [REDIS, REDIS_SLAVE] {
            let mut tera = Tera::default();
            tera.add_raw_template("t", template).unwrap();
            for name in tera.get_template_variables("t").unwrap() {
                assert!(matches!(name, "line" | "user") || given.get(name).is_some(), "{name}");
            }
        }
        let context = AppUnitContext {
            program: String::new(),
            settings: String::new(),
            local: true,
            low_port: true,
            stop_seconds: 0,
            hardening: None,
        };
        let given = serde_json::to_value(&context).unwrap();
        for template in [APP_UNIT, USER_APP_UNIT] {
            let mut tera = Tera::default();
            tera.add_raw_template("t", template).unwrap();
            for name in tera.get_template_variables("t").unwrap() {
                assert!(given.get(name).is_some(), "{name}");
            }
        }
        let context = UnitContext {
            unit: String::new(),
            engine: String::new(),
            name: String::new(),
            server: String::new(),
            conf: String::new(),
            user: "",
            libraries: None,
            run: String::new(),
            paths: Vec::new(),
            hardening: None,
            low_port: true,
        };
        let given = serde_json::to_value(&context).unwrap();
        for template in [UNIT, USER_UNIT, DROP_IN] {
            let mut tera = Tera::default();
            tera.add_raw_template("t", template).unwrap();
            for name in tera.get_template_variables("t").unwrap() {
                assert!(name == "path" || given.get(name).is_some(), "{name}");
            }
        }
        let roots = serde_json::to_value(Hardening { local: true, low_port: true }).unwrap();
        let users = serde_json::to_value(UserHardening { namespaces: true, paths: Vec::new() }).unwrap();
        for (template, given) in [(HARDENING, roots), (USER_HARDENING, users)] {
            let mut tera = Tera::default();
            tera.add_raw_template("t", template).unwrap();
            for name in tera.get_template_variables("t").unwrap() {
                assert!(name == "path" || given.get(name).is_some(), "{name}");
            }
        }
    }
}
