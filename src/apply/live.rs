//! Telling a running server, and taking that back: settings by CONFIG SET, whom to follow by REPLICAOF, and
//! passwords, of which it takes two at once for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Run, service};
use crate::conf::{self, Conf};
use crate::directives;
use crate::engine::Version;
use crate::exit::{Code, Fault};
use crate::facts::{Role, parse};
use crate::host::Host;
use crate::instance::Target;
use crate::journal::{Record, Undo};
use crate::live::{NO_ONE, Setting, Value};
use crate::secret::Secret;
use crate::secrets;
use crate::step;
use crate::users;
use crate::wire::{Address, Trouble, Wire};

/// How long a server may take to write its first append only file.
const AOF: Duration = Duration::from_secs(600);
/// How long replicas may take to come back as themselves: they look once a second.
const BACK: Duration = Duration::from_secs(5);

impl Run<'_> {
    /// Sets directives; what they were is in the journal before.
    pub(super) fn set(&mut self, target: &Target, settings: &[Setting]) -> Result<()> {
        let mut wire = reach(self.host, target, &passwords(self.host, target))?;
        let wanted = self.values(target, settings)?;
        let (mut before, mut secret) = (BTreeMap::new(), Vec::new());
        for (name, _) in &wanted {
            match directives::secret(name) {
                true => secret.push(name.clone()),
                false => drop(before.insert(name.clone(), present(&mut wire, target, name)?)),
            }
        }
        if wanted.iter().any(|(name, _)| name == "replicaof") {
            self.told.push(target.name.clone());
        }
        self.announce(Undo::Set { target: target.without_password(), before, secret })?;
        tell(self.host, target, &mut wire, &wanted)
    }

    /// The value of each directive, in plain words.
    fn values(&self, target: &Target, settings: &[Setting]) -> Result<Vec<(String, Secret)>> {
        let value = |setting: &Setting| match &setting.value {
            Value::Plain(text) => Ok(Secret::new(text)),
            Value::Secret(secret) => Ok(secret.clone()),
            Value::Proved => {
                let proved = self.proved.get(&target.name).and_then(|said| said.get(&setting.directive));
                proved.map(Secret::new).with_context(|| {
                    format!("the proof did not tell what {} is by default", setting.directive)
                })
            }
        };
        settings.iter().map(|setting| Ok((setting.directive.clone(), value(setting)?))).collect()
    }

    /// Lets a server take its new password beside the former one.
    pub(super) fn admit(&mut self, target: &Target) -> Result<()> {
        let mut wire = reach(self.host, target, &passwords(self.host, target))?;
        let password = target.password.as_ref().context("there is no new password")?;
        self.announce(Undo::Password { target: target.without_password() })?;
        add_password(&mut wire, target, password)
    }

    /// Tells a server of its users.
    pub(super) fn users(&mut self, target: &Target, users: &[Secret], gone: &[String]) -> Result<()> {
        let mut wire = reach(self.host, target, &passwords(self.host, target))?;
        let names = step::users_of(users).into_iter().chain(gone.iter().cloned()).collect();
        self.announce(Undo::Users { target: target.without_password(), names })?;
        for user in users {
            set_user(&mut wire, target, &conf::split(user.expose()).unwrap_or_default())?;
        }
        for user in gone {
            wire.ask::<()>(&["ACL", "DELUSER", user])
                .map_err(|trouble| refused(target, &format!("no user {user}"), &trouble))?;
        }
        match step::ends_default(users) {
            true => end_default(self.host, target, &mut wire),
            false => Ok(()),
        }
    }

    /// Lets a server take its new password only, or none.
    pub(super) fn password(&mut self, target: &Target) -> Result<()> {
        let mut wire = reach(self.host, target, &passwords(self.host, target))?;
        self.announce(Undo::Password { target: target.without_password() })?;
        only_password(&mut wire, target, target.password.as_ref())
    }
}

/// Ends the connections that the default user had before it was switched off: they would keep what it may. Replicas
/// that came as it come back as themselves, and go on where they were.
fn end_default(host: &Host, target: &Target, wire: &mut Wire) -> Result<()> {
    let replicas = |wire: &mut Wire| -> u64 {
        let info = wire.info("replication").unwrap_or_default();
        info.get("connected_slaves").and_then(|count| count.parse().ok()).unwrap_or_default()
    };
    let before = replicas(wire);
    wire.ask::<u64>(&["CLIENT", "KILL", "USER", users::DEFAULT, "SKIPME", "yes"])
        .map_err(|trouble| refused(target, "the end of the connections of default", &trouble))?;
    // One that nobody told of its user stays away.
    host.poll(BACK, || Ok((replicas(wire) >= before).then_some(())))?;
    Ok(())
}

/// Lets the former users in again, beside those that a server has.
fn former_users(host: &Host, record: &Record, only: bool) -> Result<()> {
    for (target, names) in told_users(record) {
        let Some(mut wire) = again(host, record, target)? else { continue };
        let former = former(host, record, target)?;
        let mut users = users::of(&former);
        if let Some(password) = former.password("requirepass").filter(|_| !users.contains_key(users::DEFAULT))
        {
            let info = wire.info("server").unwrap_or_default();
            let version = info.get("redis_version").and_then(|version| Version::parse(version));
            let line = users::default_line(&password, target.engine, version.unwrap_or(Version::new(7, 0)));
            users.insert(users::DEFAULT.into(), line.split(' ').map(str::to_owned).collect());
        }
        for name in names {
            match users.get(&name) {
                Some(words) if !only && !users::is_on(words) => {}
                Some(words) => {
                    let reset = (only && name != users::DEFAULT).then(|| "reset".to_owned());
                    let words: Vec<String> =
                        [name].into_iter().chain(reset).chain(words.iter().skip(1).cloned()).collect();
                    set_user(&mut wire, target, &words)?;
                }
                None if only && name != users::DEFAULT => {
                    wire.ask::<()>(&["ACL", "DELUSER", &name])
                        .map_err(|trouble| refused(target, &format!("no user {name}"), &trouble))?;
                }
                None => {}
            }
        }
    }
    Ok(())
}

/// The instances whose users a run changed, each once, with their names.
fn told_users(record: &Record) -> Vec<(&Target, BTreeSet<String>)> {
    let mut told: Vec<(&Target, BTreeSet<String>)> = Vec::new();
    for undo in &record.undo {
        let Undo::Users { target, names } = undo else { continue };
        match told.iter_mut().find(|(other, _)| other.name == target.name) {
            Some((_, all)) => all.extend(names.iter().cloned()),
            None => told.push((target, names.iter().cloned().collect())),
        }
    }
    told
}

fn set_user(wire: &mut Wire, target: &Target, words: &[String]) -> Result<()> {
    let name = words.first().map(String::as_str).unwrap_or_default();
    let lines: Vec<String> = wire.ask(&["ACL", "LIST"]).unwrap_or_default();
    let now = lines.iter().filter_map(|line| conf::split(line.strip_prefix("user ")?));
    let now = now.rev().find(|now| now.first().is_some_and(|user| user == name));
    let words = users::beside(now.as_deref(), words);
    let all: Vec<&str> = ["ACL", "SETUSER"].into_iter().chain(words.iter().map(String::as_str)).collect();
    wire.ask::<()>(&all).map_err(|trouble| refused(target, &format!("the user {name}"), &trouble))
}

/// Takes back what servers were told, while their files still have the new password: first the former
/// password is let in again.
///
/// # Errors
/// A server that runs does not take it.
pub fn take_back(host: &Host, record: &Record) -> Result<()> {
    former_users(host, record, false)?;
    for target in told_passwords(record) {
        let Some(mut wire) = again(host, record, target)? else { continue };
        if let Some(former) = former(host, record, target)?.password("requirepass") {
            add_password(&mut wire, target, &former)?;
        }
    }
    for undo in record.undo.iter().rev() {
        let Undo::Set { target, before, secret } = undo else { continue };
        let Some(mut wire) = again(host, record, target)? else { continue };
        let former = former(host, record, target)?;
        let mut before = before.clone();
        if before.get("replicaof").is_some_and(|master| master != NO_ONE) && holds_more(&mut wire) {
            // What runs is the truth about roles: the next plan tells of it.
            before.remove("replicaof");
        }
        if was_to_end(record, target) {
            // It may be ending at this moment, and what it holds is to be saved.
            before.remove("save");
        }
        let plain = before.iter().map(|(name, value)| (name.clone(), Secret::new(value)));
        let secret =
            secret.iter().map(|name| (name.clone(), Secret::new(former.word(name).unwrap_or_default())));
        tell(host, target, &mut wire, &plain.chain(secret).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Lets servers that the run was to end save as they did before, when those that had ended run again.
///
/// # Errors
/// A server that runs does not take it.
pub fn save_as_before(host: &Host, record: &Record) -> Result<()> {
    for undo in record.undo.iter().rev() {
        let Undo::Set { target, before, .. } = undo else { continue };
        let Some(save) = before.get("save").filter(|_| was_to_end(record, target)) else { continue };
        if let Some(mut wire) = again(host, record, target)? {
            tell(host, target, &mut wire, &[("save".to_owned(), Secret::new(save))])?;
        }
    }
    Ok(())
}

/// Whether a run was to end a server, or has.
fn was_to_end(record: &Record, target: &Target) -> bool {
    record
        .undo
        .iter()
        .any(|undo| matches!(undo, Undo::Start { target: other, .. } if other.name == target.name))
}

/// Whether a server is a master that was written to since it became one: to follow another would lose that.
pub(super) fn holds_more(wire: &mut Wire) -> bool {
    let Ok(info) = wire.info("replication") else { return false };
    let number = |name: &str| info.get(name).and_then(|value| value.parse::<i64>().ok());
    let written = match (number("master_repl_offset"), number("second_repl_offset")) {
        (Some(now), Some(promoted)) => now + 1 != promoted,
        _ => true,
    };
    parse::role(&info) == Role::Master && written
}

/// The former password and users alone, when the files have them again.
///
/// # Errors
/// A server that runs does not take it.
pub fn former_password_only(host: &Host, record: &Record) -> Result<()> {
    for target in told_passwords(record) {
        if let Some(mut wire) = again(host, record, target)? {
            only_password(&mut wire, target, former(host, record, target)?.password("requirepass").as_ref())?;
        }
    }
    former_users(host, record, true)
}

/// The instances whose passwords a run changed, each once.
fn told_passwords(record: &Record) -> Vec<&Target> {
    let mut told: Vec<&Target> = Vec::new();
    for undo in &record.undo {
        if let Undo::Password { target } = undo
            && !told.iter().any(|other| other.name == target.name)
        {
            told.push(target);
        }
    }
    told
}

/// The configuration of an instance as it was before a run; what it is now, if the run had not come to it.
fn former(host: &Host, record: &Record, target: &Target) -> Result<Conf> {
    let path = target.conf();
    let saved = record.undo.iter().find_map(|undo| match undo {
        Undo::File { path: file, before } if *file == path => Some(before.as_ref()),
        _ => None,
    });
    let text = match saved {
        Some(Some(saved)) => host.text(&saved.copy)?,
        Some(None) => None,
        None => host.text(&path)?,
    };
    Ok(Conf::parse(&text.unwrap_or_default()).unwrap_or_default())
}

/// A connection to a server that a run had told something; none when it does not run any more.
fn again(host: &Host, record: &Record, target: &Target) -> Result<Option<Wire>> {
    if !service::runs(host, target)? {
        return Ok(None);
    }
    let mut all = passwords(host, target);
    all.insert(0, former(host, record, target)?.password("requirepass"));
    reach(host, target, &all).map(Some)
}

/// The passwords that a server may have in the middle of a change: the wanted one, that of its file, that of
/// our own file, none.
pub(super) fn passwords(host: &Host, target: &Target) -> Vec<Option<Secret>> {
    let text = host.text(&target.conf()).ok().flatten().unwrap_or_default();
    let of_file = Conf::parse(&text).unwrap_or_default().password("requirepass");
    let kept = host.text(&secrets::password_file()).ok().flatten();
    let kept = kept.and_then(|text| Secret::parse(&text).ok());
    let mut all: Vec<Option<Secret>> =
        [target.password.clone(), of_file, kept].into_iter().filter(Option::is_some).collect();
    all.push(None);
    all
}

/// An instance with the first of these that its server takes; as it is where that is none.
pub(super) fn let_in(host: &Host, target: &Target) -> Target {
    for password in passwords(host, target) {
        match Wire::enter(host, &target.address, target.admin, password.as_ref())
            .and_then(|mut wire| wire.ping())
        {
            Ok(()) | Err(Trouble::Loading) => return Target { password, ..target.clone() },
            Err(Trouble::NoAuth | Trouble::WrongPassword) => {}
            // Another password will not help.
            Err(_) => break,
        }
    }
    target.clone()
}

/// A connection with the first password that is taken. One that does not speak as it is known to is spoken to as its
/// file says: a run that let it speak TLS, or no longer, may have come that far.
pub(super) fn reach(host: &Host, target: &Target, passwords: &[Option<Secret>]) -> Result<Wire> {
    let trouble = match enter(host, target, &target.address, passwords) {
        Ok(wire) => return Ok(wire),
        Err(trouble) => trouble,
    };
    let other = super::undo::current(host, target).address;
    if matches!(trouble, Trouble::Tls(_) | Trouble::Untrusted(_))
        && other.tls != target.address.tls
        && let Ok(wire) = enter(host, target, &other, passwords)
    {
        return Ok(wire);
    }
    bail!("{} on {} cannot be told: {trouble}", target.name, target.address)
}

fn enter(host: &Host, target: &Target, at: &Address, passwords: &[Option<Secret>]) -> Result<Wire, Trouble> {
    let mut trouble = Trouble::Refused;
    for password in passwords {
        match Wire::enter(host, at, target.admin, password.as_ref()) {
            Ok(mut wire) => match wire.ping() {
                Ok(()) | Err(Trouble::Loading) => return Ok(wire),
                Err(other) => trouble = other,
            },
            // Without a password he would be told one by what comes next; and to speech passwords are no matter.
            Err(last @ (Trouble::Stranger(_) | Trouble::Tls(_) | Trouble::Untrusted(_))) => return Err(last),
            Err(other) => trouble = other,
        }
    }
    Err(trouble)
}

/// What a directive is now, as [`tell`] takes it.
fn present(wire: &mut Wire, target: &Target, name: &str) -> Result<String> {
    if name == "replicaof" {
        let info = wire.info("replication").map_err(|trouble| refused(target, name, &trouble))?;
        return Ok(match parse::role(&info) {
            Role::Replica { host, port, .. } => format!("{host} {port}"),
            Role::Master | Role::Unknown => NO_ONE.into(),
        });
    }
    let all: BTreeMap<String, String> =
        wire.ask(&["CONFIG", "GET", name]).map_err(|trouble| refused(target, name, &trouble))?;
    all.get(name).cloned().with_context(|| format!("{} does not tell its {name}", target.name))
}

fn tell(host: &Host, target: &Target, wire: &mut Wire, settings: &[(String, Secret)]) -> Result<()> {
    let (upstream, plain): (Vec<_>, Vec<_>) = settings.iter().partition(|(name, _)| name == "replicaof");
    // From 7.0 on all or none of them; before, one at a time is all there is.
    let version = wire.info("server").ok().and_then(|info| Version::parse(info.get("redis_version")?));
    let at_once = if version.is_some_and(|version| version >= Version::new(7, 0)) { plain.len() } else { 1 };
    for some in plain.chunks(at_once.max(1)) {
        let mut words = vec!["CONFIG", "SET"];
        words.extend(some.iter().flat_map(|(name, value)| [name.as_str(), value.expose()]));
        let names: Vec<&str> = some.iter().map(|(name, _)| name.as_str()).collect();
        wire.ask::<()>(&words).map_err(|trouble| refused(target, &names.join(", "), &trouble))?;
    }
    for (_, master) in upstream {
        let (to, port) = master.expose().rsplit_once(' ').unwrap_or(("no", "one"));
        wire.ask::<()>(&["REPLICAOF", to, port]).map_err(|trouble| refused(target, "replicaof", &trouble))?;
    }
    match plain.iter().any(|(name, value)| name == "appendonly" && value.expose() == "yes") {
        true => await_aof(host, target, wire),
        false => Ok(()),
    }
}

/// Until the first append only file is whole, a start with `appendonly yes` would find no data at all.
fn await_aof(host: &Host, target: &Target, wire: &mut Wire) -> Result<()> {
    let done = host.poll(AOF, || {
        let info = wire.info("persistence").map_err(|trouble| refused(target, "appendonly", &trouble))?;
        let is = |name: &str, value: &str| info.get(name).is_some_and(|now| now == value);
        let busy = is("aof_rewrite_in_progress", "1") || is("aof_rewrite_scheduled", "1");
        if !busy && !is("aof_last_bgrewrite_status", "ok") {
            bail!("{} cannot write its append only file{}", target.name, service::log_lines(host, target));
        }
        Ok((!busy && is("aof_enabled", "1")).then_some(()))
    })?;
    done.with_context(|| format!("{} does not finish its append only file", target.name))
}

fn add_password(wire: &mut Wire, target: &Target, password: &Secret) -> Result<()> {
    let rule = Secret::new(format!(">{}", password.expose()));
    wire.ask::<()>(&["ACL", "SETUSER", "default", rule.expose()])
        .map_err(|trouble| refused(target, "a second password", &trouble))
}

/// `CONFIG SET requirepass` takes every other password from the default user (acl.c,
/// `ACLUpdateDefaultUserPassword`).
fn only_password(wire: &mut Wire, target: &Target, password: Option<&Secret>) -> Result<()> {
    let word = password.map_or("", Secret::expose);
    wire.ask::<()>(&["CONFIG", "SET", "requirepass", word])
        .map_err(|trouble| refused(target, "requirepass", &trouble))
}

fn refused(target: &Target, what: &str, trouble: &Trouble) -> anyhow::Error {
    let why = conf::redact(&trouble.to_string());
    Fault::new(Code::Failed, format!("{} does not take {what}: {why}", target.name)).into()
}
