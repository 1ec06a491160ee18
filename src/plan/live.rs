//! The smallest action: of what changes for a server that runs, what it can be told, and what needs a
//! restart; what that restart costs; and that nothing is lost by it unasked.

use std::collections::{BTreeMap, BTreeSet};

use super::change::Change;
use super::{Consent, Note, Plan, as_it_runs, memory, renamed};
use crate::conf::{self, Conf, LIMITS};
use crate::directives;
use crate::engine::Version;
use crate::exit::Fault;
use crate::facts::{Auth, Facts, Role, Running};
use crate::instance::{Instance, Target};
use crate::live::{Cost, NO_ONE, Setting, Value};
use crate::secret::Secret;
use crate::step::{self, Step};
use crate::topology::Name;
use crate::users;

/// What changes for a server that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// What it is told.
    pub settings: Vec<Setting>,
    /// How its password changes.
    pub password: Option<Password>,
    /// How its users change.
    pub users: Option<Told>,
    /// The directives that need a restart.
    pub rest: Vec<String>,
}

/// How the password of a running server changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Password {
    /// From one to another: for a while it takes both.
    Rotates,
    /// From none to one, or from one to none.
    ComesOrGoes,
}

/// How the users of a running server change: first those that come are let in, and at the end those that leave
/// are not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What users may do from now on, beside what they may already.
    pub admit: Vec<Secret>,
    /// What they may do in the end, and nothing else.
    pub only: Vec<Secret>,
    /// Those that leave.
    pub gone: Vec<String>,
}

impl Live {
    /// Whether it is told whom to follow.
    pub fn follows(&self) -> bool {
        self.settings.iter().any(Setting::follows)
    }

    /// Only what has to be told although a restart follows: an append only file has to be whole before it,
    /// what is held has to be saved at the end, and the link must not break in between.
    pub fn before_a_restart(&mut self) {
        self.settings.retain(|setting| {
            matches!(setting.directive.as_str(), "appendonly" | "save" | "masterauth" | "masteruser")
        });
    }

    /// The directives of which only a proof tells the value.
    pub fn unknown(&self) -> Vec<String> {
        let unknown = self.settings.iter().filter(|setting| setting.value == Value::Proved);
        unknown.map(|setting| setting.directive.clone()).collect()
    }
}

/// Divides the directives that change by `text`, the new file.
pub fn divide(
    facts: &Facts,
    instance: &Instance,
    version: Version,
    names: &[String],
    text: Option<&Secret>,
) -> Live {
    let all = || Live { rest: names.to_vec(), ..Live::default() };
    let running = facts.running.get(&instance.name).filter(|running| can_be_told(running));
    let (Some(running), Some(text)) = (running, text) else { return all() };
    let Ok(conf) = Conf::parse(text.expose()) else { return all() };
    let mut live = Live::default();
    for name in names {
        match name.as_str() {
            "requirepass" => match password(facts, instance, running, &conf) {
                Some(password) => live.password = Some(password),
                None => live.rest.push(name.clone()),
            },
            "user" => match users(facts, instance, version, &conf) {
                Some(users) => live.users = Some(users),
                None => live.rest.push(name.clone()),
            },
            name if is_live(facts, instance, name, version) => match value(&conf, name) {
                // An image has no proof that could be asked.
                Value::Proved if instance.runtime.is_container() => live.rest.push(name.into()),
                value => live.settings.push(Setting { directive: name.into(), value }),
            },
            _ => live.rest.push(name.clone()),
        }
    }
    live
}

/// Whether we can speak to it, and it knows CONFIG by this name.
pub(super) fn can_be_told(running: &Running) -> bool {
    running.auth != Auth::Unknown && !running.config.is_empty()
}

fn is_live(facts: &Facts, instance: &Instance, name: &str, version: Version) -> bool {
    match name {
        "replicaof" => true,
        // Another address to reach it under would cut us off in the middle.
        "bind" => {
            let kept = facts.state.instances.get(&instance.name);
            let stays = kept.is_some_and(|kept| kept.address == instance.address().host);
            stays && directives::live(name, instance.engine, version)
        }
        // From then on nobody would get in by the files that we know it by, neither for the next step nor back.
        "tls-ca-cert-file" | "tls-cert-file" | "tls-key-file" => {
            let kept = facts.state.instances.get(&instance.name);
            kept.is_some_and(|kept| kept.tls == instance.address().tls)
        }
        // Every client has to move in any case, and until the restart nobody else can take the old one.
        "port" | "tls-port" => false,
        _ => directives::live(name, instance.engine, version),
    }
}

fn value(conf: &Conf, name: &str) -> Value {
    let lines: Vec<&[String]> = conf
        .directives
        .iter()
        .filter(|line| directives::canonical(&line.name) == name)
        .map(|line| line.args.as_slice())
        .collect();
    match (name, lines.last()) {
        ("replicaof", None) => Value::Plain(NO_ONE.into()),
        ("appendonly", None) => Value::Plain("no".into()),
        ("masterauth", None) => Value::Secret(Secret::new("")),
        ("masteruser", None) => Value::Plain(String::new()),
        // A class that no line names is not told by the others.
        (LIMITS, _) | (_, None) => Value::Proved,
        ("save", _) => {
            let after = lines.iter().rposition(|args| *args == [""]).map_or(0, |at| at + 1);
            Value::Plain(lines.get(after..).unwrap_or_default().concat().join(" "))
        }
        (_, Some(last)) if directives::secret(name) => Value::Secret(Secret::new(last.join(" "))),
        (_, Some(last)) => Value::Plain(last.join(" ")),
    }
}

/// How the password can change while the server runs; none where `user` lines or a file of them say who may
/// enter: what those mean is not ours to change.
fn password(facts: &Facts, instance: &Instance, running: &Running, conf: &Conf) -> Option<Password> {
    let there = Conf::parse(facts.text(&instance.conf).unwrap_or_default()).ok()?;
    let acl = |conf: &Conf| conf.get("aclfile").is_some() || users::opens_default(conf);
    // The server itself writes its default user out, and reads requirepass afterwards.
    if acl(conf) || (acl(&there) && !there.rewritten) {
        return None;
    }
    let wanted = instance.requirepass.as_ref().is_some_and(|password| !password.expose().is_empty());
    match (running.auth, wanted, there.word("requirepass").is_some_and(|word| !word.is_empty())) {
        (Auth::Former, true, true) => Some(Password::Rotates),
        (Auth::Unknown, ..) => None,
        _ => Some(Password::ComesOrGoes),
    }
}

/// Tells that a server which runs lets clients in no more that name no user.
pub(super) fn default_off(facts: &Facts, instance: &Instance) -> Option<Note> {
    let running = facts.running.get(&instance.name)?;
    let off = instance.users.as_ref().is_some_and(|users| !users.default);
    let there = Conf::parse(facts.text(&instance.conf).unwrap_or_default()).ok()?;
    let was_off = users::of(&there).get(users::DEFAULT).is_some_and(|words| !users::is_on(words));
    (off && !was_off).then(|| Note::DefaultOff { instance: instance.name.clone(), clients: running.clients })
}

/// What a running server is told of its users; none where a file of them, or a line for the default user that opens
/// it, says who may enter.
fn users(facts: &Facts, instance: &Instance, version: Version, conf: &Conf) -> Option<Told> {
    let there = Conf::parse(facts.text(&instance.conf).unwrap_or_default()).ok()?;
    let acl = |conf: &Conf| conf.get("aclfile").is_some() || users::opens_default(conf);
    if acl(conf) || (acl(&there) && !there.rewritten) {
        return None;
    }
    let (before, after) = (users::of(&there), users::of(conf));
    let mut told = Told::default();
    let same = |one: &[String], other: &[String]| users::canonical(one) == users::canonical(other);
    let other = facts.running.get(&instance.name).map(|running| running.users.clone()).unwrap_or_default();
    let stays = |name: &String, words: &[String]| {
        before.get(name).is_some_and(|before| same(before, words)) && !other.contains(name)
    };
    for (name, words) in after.iter().filter(|(name, words)| !stays(name, words)) {
        let line = |head: &str| {
            Secret::new(format!("{name} {head}{}", conf::quote_all(words.get(1..).unwrap_or_default())))
        };
        // The default user keeps what it may: connections that it has stay as they are.
        told.only.push(line(if name == users::DEFAULT { "" } else { "reset " }));
        if name != users::DEFAULT {
            told.admit.push(line(""));
        }
    }
    let gone = |name: &&String| !after.contains_key(*name);
    let all: BTreeSet<&String> = before.keys().chain(&other).collect();
    for name in all.into_iter().filter(gone) {
        match (name.as_str(), conf.password("requirepass")) {
            (users::DEFAULT, Some(password)) => {
                told.admit.push(Secret::new(users::default_line(&password, instance.engine, version)));
            }
            (users::DEFAULT, None) => return None,
            _ => told.gone.push(name.clone()),
        }
    }
    Some(told)
}

/// A server that starts with `appendonly yes` reads its append only file and nothing else, and with `no` the
/// snapshot and nothing else: a change of it loses the data, unless the running server moves them first.
///
/// # Errors
/// It cannot be told, and there are data.
pub fn move_data(
    facts: &Facts,
    instance: &Instance,
    text: Option<&Secret>,
    live: &mut Live,
) -> Result<(), Fault> {
    let parsed = |text: &str| Conf::parse(text).unwrap_or_default();
    let Some(wanted) = text.map(|text| parsed(text.expose())) else { return Ok(()) };
    let there = parsed(facts.text(&instance.conf).unwrap_or_default());
    renamed::resting(facts, instance, &wanted, &there)?;
    let running = facts.running.get(&instance.name).filter(|running| can_be_told(running));
    let said = running.and_then(|running| running.config.get("appendonly").map(String::as_str));
    let on = wanted.is_on("appendonly");
    // An uninstall puts another's file there, and whoever starts a server from that has not these data.
    let kept = facts.state.instances.get(&instance.name).filter(|kept| !kept.active);
    let left = kept.and_then(|kept| kept.effective.get("appendonly")).map(|value| conf::is_yes(value));
    let before = left.unwrap_or_else(|| said.map_or_else(|| there.is_on("appendonly"), conf::is_yes));
    let told = live.settings.iter().any(|setting| setting.directive == "appendonly");
    let copy = wanted.get("replicaof").is_some() && there.get("replicaof").is_some();
    if left == Some(true) && said.is_some_and(|said| !conf::is_yes(said)) {
        return Err(runs_without(instance));
    }
    if on == before || told || copy || !facts.occupied.contains(&instance.store) {
        return Ok(());
    }
    if said.is_some() && left.is_none() {
        let value = Value::Plain(if on { "yes" } else { "no" }.into());
        live.settings.push(Setting { directive: "appendonly".into(), value });
        return Ok(());
    }
    let (name, store) = (&instance.name, &instance.store);
    Err(Fault::refused(format!(
        "appendonly of {name} changes while we cannot speak to it: it would start without the data in {store}"
    ))
    .hint(match (left, facts.state.instances.contains_key(name)) {
        (Some(left), _) => {
            let word = if left { "yes" } else { "no" };
            format!("let [{name}] have appendonly = {word} as before, and change it afterwards:\nredis-tp up")
        }
        (None, true) => format!("start it as it is, and run this again:\nredis-tp service start {name}"),
        (None, false) => "start the server as it is, and run this again".to_owned(),
    }))
}

/// A server that another's file started over data that an uninstall left: it has not read them, and what it would
/// write takes their place.
fn runs_without(instance: &Instance) -> Fault {
    let (name, store, unit) = (&instance.name, &instance.store, &instance.unit);
    Fault::refused(format!("a server on the port of {name} runs without the append only file in {store}"))
        .hint(format!(
            "it was started after an uninstall; end it, and run this again:\nsystemctl stop {unit}"
        ))
}

/// What servers are told before their files change: first every one takes both passwords, and then nobody
/// uses the former one any more.
pub fn before_files(facts: &Facts, changes: &[Change<'_>], plan: &mut Plan) {
    let target = |change: &Change<'_>| as_it_runs(facts, change.instance);
    for change in changes.iter().filter(|change| change.live.password == Some(Password::Rotates)) {
        plan.steps.push(Step::Admit { target: target(change) });
    }
    for change in changes {
        let users = change.live.users.as_ref().map(|users| users.admit.clone()).unwrap_or_default();
        if !users.is_empty() {
            plan.steps.push(Step::LetIn { target: target(change), users });
        }
    }
    for change in changes.iter().filter(|change| !change.live.settings.is_empty()) {
        plan.steps.push(Step::Set { target: target(change), settings: change.live.settings.clone() });
    }
}

/// A password that comes or goes is told when the files have it.
pub fn after_files(changes: &[Change<'_>], plan: &mut Plan) {
    passwords(changes, Password::ComesOrGoes, plan);
}

/// The former password is withdrawn when nobody needs it any more, the web app included, and so are users.
pub fn at_the_end(changes: &[Change<'_>], plan: &mut Plan) {
    passwords(changes, Password::Rotates, plan);
    for change in changes.iter().filter(|change| change.restart.is_none()) {
        let Some(Told { only, gone, .. }) = change.live.users.clone() else { continue };
        if !(only.is_empty() && gone.is_empty()) {
            plan.steps.push(Step::Users { target: change.instance.target(), users: only, gone });
        }
    }
}

fn passwords(changes: &[Change<'_>], how: Password, plan: &mut Plan) {
    let stays = |change: &&Change<'_>| change.live.password == Some(how) && change.restart.is_none();
    for change in changes.iter().filter(stays) {
        plan.steps.push(Step::Password { target: change.instance.target() });
    }
}

/// Replicas of a master whose password rotates, which we cannot tell the new one.
pub fn replicas_elsewhere(facts: &Facts, change: &Change<'_>) -> Option<Note> {
    let instance = change.instance;
    let follows = |running: &&Running| matches!(running.role, Role::Replica { port, up: true, .. } if port == instance.port);
    let here = facts.running.values().filter(follows).count() as u64;
    let all = facts.running.get(&instance.name)?.replicas;
    let of_users = change.live.users.iter().flat_map(|told| step::users_of(&told.only));
    let rotates = change.live.password == Some(Password::Rotates)
        || of_users.into_iter().any(|name| name == users::REPLICA && !is_new(facts, instance, &name));
    (rotates && all > here)
        .then(|| Note::ReplicasElsewhere { instance: instance.name.clone(), count: all - here })
}

/// Whether no file of an instance has a user yet.
fn is_new(facts: &Facts, instance: &Instance, name: &str) -> bool {
    let there = Conf::parse(facts.text(&instance.conf).unwrap_or_default()).unwrap_or_default();
    !users::of(&there).contains_key(name)
}

/// What a restart of an instance costs.
pub fn cost(facts: &Facts, name: &Name, settings: &[Setting]) -> Cost {
    let Some(running) = facts.running.get(name) else { return Cost::default() };
    Cost {
        clients: running.clients,
        replicas: running.replicas,
        unsaved: running.unsaved,
        saves: saves(facts, name, running, settings),
    }
}

/// Whether a server writes its data before it ends; where nobody may ask it, its file tells.
fn saves(facts: &Facts, name: &Name, running: &Running, settings: &[Setting]) -> bool {
    let conf = || {
        let kept = facts.state.instances.get(name)?;
        Conf::parse(facts.text(&Target::of_record(name, kept, None).conf())?).ok()
    };
    let file = if running.config.is_empty() { conf().map(|conf| saving(&conf)) } else { None };
    let now = file.as_ref().unwrap_or(&running.config);
    let is = |name: &str, off: &str| match settings.iter().find(|setting| setting.directive == name) {
        Some(setting) => setting.value != Value::Plain(off.into()),
        None => now.get(name).is_none_or(|now| now != off),
    };
    is("save", "") || is("appendonly", "no")
}

/// What a configuration says of how data are saved, as the server would tell it; nothing of a default that saves.
pub fn saving(conf: &Conf) -> BTreeMap<String, String> {
    let appendonly = if conf.is_on("appendonly") { "yes" } else { "no" };
    let mut all = BTreeMap::from([("appendonly".to_owned(), appendonly.to_owned())]);
    if let Value::Plain(save) = value(conf, "save") {
        all.insert("save".into(), save);
    }
    all
}

/// A master that holds what no file has, and that saves nothing, is neither restarted nor stopped unasked; nor is
/// one given less memory than it uses.
///
/// # Errors
/// There is one.
pub fn refuse_loss(plan: &Plan, facts: &Facts, consent: Consent) -> Result<(), Fault> {
    if consent.force {
        return Ok(());
    }
    if let Some(shortage) = memory::shortages(plan, facts).first() {
        return Err(shortage.refusal());
    }
    if let Some(fault) = renamed::running(plan, facts) {
        return Err(fault);
    }
    let ends = plan.steps.iter().filter_map(|step| match step {
        Step::Restart { target, .. } | Step::Stop { target, lose: false } => Some(&target.name),
        _ => None,
    });
    for name in ends {
        let Some(running) = facts.running.get(name) else { continue };
        let closed = running.auth == Auth::Unknown;
        if closed && follows(facts, name) {
            return Err(perhaps_promoted(name, running));
        }
        if saves(facts, name, running, plan.told(name)) {
            continue;
        }
        if closed {
            return Err(closed_and_unsaved(name, running));
        }
        if running.role == Role::Master && running.unsaved > 0 {
            return Err(Fault::refused(format!(
                "{name} holds {} changes that no file has, and it saves nothing: its end would lose them",
                running.unsaved
            ))
            .hint("let it save (`save = 3600 1` or `appendonly = yes` in the topology), or lose them:\nthe same command with --force"));
        }
    }
    Ok(())
}

/// Whether an instance is a replica by its file.
fn follows(facts: &Facts, name: &Name) -> bool {
    let conf = || {
        let kept = facts.state.instances.get(name)?;
        Conf::parse(facts.text(&Target::of_record(name, kept, None).conf())?).ok()
    };
    conf().is_some_and(|conf| conf.get("replicaof").is_some())
}

/// Why nobody can ask a server anything, and what to do about it.
fn why_closed(running: &Running) -> (&'static str, &'static str) {
    match (running.untrusted, running.locked) {
        (true, _) => (
            "its certificates are not those of its files",
            "put the former files back; let tls-ca-cert-file have both authorities, the former\nand the next, run `redis-tp apply`, and only then change the certificate",
        ),
        (_, true) => (
            "it takes no password that redis-tp knows",
            "ask it with the password that it takes (`redis-cli --askpass`)",
        ),
        _ => ("it does not let us ask", "see why, and let it answer again (`redis-tp status`)"),
    }
}

/// One that was promoted starts as the replica that its file says, and takes its master's data for its own.
fn perhaps_promoted(name: &Name, running: &Running) -> Fault {
    let (why, cure) = why_closed(running);
    Fault::refused(format!(
        "nobody can ask {name} whether it was promoted, for {why}: as a replica it would lose what it alone holds"
    ))
    .hint(format!("{cure};\nor, if it is a replica still:\nthe same command with --force"))
}

/// It may hold the only copy.
fn closed_and_unsaved(name: &Name, running: &Running) -> Fault {
    let (why, cure) = why_closed(running);
    let cure = match (running.untrusted, running.locked) {
        (false, true) => "have it save with the password that it takes (`redis-cli --askpass SAVE`)",
        _ => cure,
    };
    let fault = Fault::refused(format!(
        "{name} may hold what no file has, for {why}, and by its file it saves nothing: its end would lose that"
    ));
    fault.hint(format!("{cure};\nthen, or to lose it:\nthe same command with --force"))
}
