//! What somebody set on a running server and in no file: what it says now, against what it said at the end
//! of the last run.

use std::collections::BTreeMap;

use super::Note;
use crate::conf::{self, Conf, Directive};
use crate::directives;
use crate::engine::Version;
use crate::facts::{Auth, Facts, Running};
use crate::instance::Instance;
use crate::live::{Setting, Value};
use crate::users;

/// One directive that a running server has by CONFIG SET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetLive {
    /// The directive, in its canonical name.
    pub directive: String,
    /// What it was at the end of the last run.
    pub was: String,
    /// What it is.
    pub now: String,
}

/// What was set on the server of an instance. `changes` are directives that this run changes in any case.
pub fn set_live(facts: &Facts, instance: &Instance, changes: &[String]) -> Vec<SetLive> {
    let (Some(running), Some(kept)) =
        (facts.running.get(&instance.name), facts.state.instances.get(&instance.name))
    else {
        return Vec::new();
    };
    let fits = |name: &str| directives::canonical(name) == name && !moves_by_itself(name);
    let one = |(name, now): (&String, &String)| {
        let was = kept.effective.get(name).filter(|was| *was != now)?;
        let told = fits(name) && !changes.iter().any(|change| change == name);
        told.then(|| SetLive { directive: name.clone(), was: was.clone(), now: now.clone() })
    };
    running.config.iter().filter_map(one).collect()
}

/// What is no setting of somebody's: roles are told apart, and where it listens is what its file says.
fn moves_by_itself(name: &str) -> bool {
    matches!(
        name,
        "replicaof" | "port" | "tls-port" | "bind" | "daemonize" | "supervised" | "maxclients" | "io-threads"
    )
}

/// The notes about what was set live, but for what a file has, too.
pub fn notes(instance: &Instance, set: &[SetLive], notes: &[Note]) -> Vec<Note> {
    let edited = |set: &&SetLive| {
        notes.iter().any(|note| match note {
            Note::Edited { difference, .. } => {
                difference.directive == set.directive && alike(&set.directive, &difference.there, &set.now)
            }
            _ => false,
        })
    };
    let note = |set: &SetLive| Note::SetLive {
        instance: instance.name.clone(),
        directive: set.directive.clone(),
        was: set.was.clone(),
        now: set.now.clone(),
    };
    set.iter().filter(|set| !edited(set)).map(note).collect()
}

/// Whether two values of a directive are one for the server, as `32mb` and `33554432` are.
fn alike(name: &str, one: &str, other: &str) -> bool {
    let settings =
        |value: &str| Conf { directives: vec![directive(name, value)], ..Conf::default() }.settings();
    settings(one) == settings(other)
}

/// The secrets that were set on the server of an instance. `changes` are directives that this run changes in
/// any case.
pub fn secrets_set(facts: &Facts, instance: &Instance, changes: &[String]) -> Vec<String> {
    let set =
        facts.running.get(&instance.name).map(|running| running.exchanged.as_slice()).unwrap_or_default();
    set.iter().filter(|name| !changes.contains(name)).cloned().collect()
}

/// Whether the password of a server is another than its file's, though nobody changes that. Where `user` lines or
/// a file of them say who may enter, it need not be anybody's doing.
pub fn password_set(facts: &Facts, instance: &Instance, changes: &[String]) -> Option<Note> {
    let (running, there) =
        (facts.running.get(&instance.name)?, Conf::parse(facts.text(&instance.conf)?).ok()?);
    let own = facts.state.instances.get(&instance.name).is_some_and(|kept| kept.active);
    let users = |conf: &Conf| conf.get("aclfile").is_some() || users::opens_default(conf);
    let wanted = there.word("requirepass").is_some_and(|password| !password.is_empty());
    if !own || !wanted || users(&there) || changes.iter().any(|name| name == "requirepass") {
        return None;
    }
    let note = |open| Note::PasswordSet { instance: instance.name.clone(), open };
    match running.auth {
        Auth::Open => Some(note(true)),
        Auth::Unknown if running.locked => Some(note(false)),
        Auth::Wanted | Auth::Former | Auth::Unknown => None,
    }
}

/// What somebody wrote into a file that is taken over, and its server has not read: `last` is what we wrote
/// there, and what is there and wanted are alike.
pub fn not_read_yet(running: Option<&Running>, [last, there, want]: [&Conf; 3]) -> Vec<String> {
    let Some(running) = running.filter(|running| !running.config.is_empty()) else { return Vec::new() };
    let now = Conf {
        directives: running.config.iter().map(|(name, value)| directive(name, value)).collect(),
        ..Conf::default()
    };
    let (now, last, there, want) = (now.settings(), last.settings(), there.settings(), want.settings());
    let changed = |name: &&String| last.get(*name) != there.get(*name) && there.get(*name) == want.get(*name);
    let names = want.keys().filter(changed).filter(|name| match name.as_str() {
        "requirepass" => running.auth == Auth::Former,
        "user" => !running.users.is_empty(),
        name if directives::secret(name) => false,
        // Only what it tells of can be compared.
        name => now.get(name).is_some_and(|now| Some(now) != want.get(name)),
    });
    names.filter(|name| *name != "replicaof").cloned().collect()
}

fn directive(name: &str, value: &str) -> Directive {
    let args = conf::split(value).filter(|args| !args.is_empty()).unwrap_or_else(|| vec![value.to_owned()]);
    Directive { name: name.to_owned(), args, line: 0 }
}

/// What puts the former values back.
pub fn back(instance: &Instance, version: Version, set: Vec<SetLive>) -> Vec<Setting> {
    let told = set.into_iter().filter(|set| directives::live(&set.directive, instance.engine, version));
    told.map(|set| Setting { directive: set.directive, value: Value::Plain(set.was) }).collect()
}

/// What a server says of itself at the end of a run, as our record keeps it.
pub fn effective(config: BTreeMap<String, String>) -> BTreeMap<String, String> {
    config.into_iter().filter(|(name, _)| !directives::secret(name) && !moves_by_itself(name)).collect()
}
