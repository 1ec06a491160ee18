//! What each Redis directive is: its kind, the versions that know it, whether it repeats, whether it
//! can be set live. The table was measured on real servers (Redis 6.0, 7.0, 8.0; Valkey 8.1).

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::engine::{Engine, Version};
use crate::users;

/// What the words of a directive mean, as far as two spellings can mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// yes or no, in any case.
    Bool,
    /// A decimal number.
    Int,
    /// A size with or without a unit.
    Memory,
    /// A mode such as 700.
    Octal,
    /// One of a few words, in any case.
    Enum,
    /// A directory, with or without a slash at its end.
    Path,
    /// Anything else, compared to the letter.
    Other,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    kind: Kind,
    /// The first version of Redis that knows it; none for Valkey's own.
    since: Option<Version>,
    /// The last version of Redis that knows it, if it went away.
    until: Option<Version>,
    valkey: bool,
    repeats: bool,
    live: bool,
    live_on_6_0: bool,
    alias_of: Option<&'static str>,
}

fn table() -> &'static HashMap<&'static str, Row> {
    static TABLE: OnceLock<HashMap<&'static str, Row>> = OnceLock::new();
    TABLE.get_or_init(|| include_str!("directives.tsv").lines().filter_map(row).collect())
}

/// Reads a line: `name kind since until valkey repeats live alias_of notes`, separated by tabs.
fn row(line: &'static str) -> Option<(&'static str, Row)> {
    let mut cells = line.split('\t').map(str::trim);
    let name = cells.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let kind = cells.next().unwrap_or_default();
    let kind = match kind.split(':').next().unwrap_or_default() {
        _ if name == "dir" => Kind::Path,
        "bool" => Kind::Bool,
        "int" => Kind::Int,
        "memory" | "percent_or_memory" => Kind::Memory,
        "octal" => Kind::Octal,
        "enum" => Kind::Enum,
        _ => Kind::Other,
    };
    let since = cells.next().and_then(Version::parse);
    let until = cells.next().and_then(Version::parse);
    let valkey = cells.next().is_some_and(|cell| !cell.is_empty());
    let repeats = cells.next() == Some("yes");
    let live = cells.next() == Some("yes");
    let alias_of = cells.next().filter(|alias| !alias.is_empty());
    let live_on_6_0 = live && !cells.next().is_some_and(|notes| notes.contains("live R6.0:no"));
    Some((name, Row { kind, since, until, valkey, repeats, live, live_on_6_0, alias_of }))
}

/// The name under which an alias (`slaveof`) is compared.
pub fn canonical(name: &str) -> &str {
    table().get(name).and_then(|row| row.alias_of).unwrap_or(name)
}

/// The kind of a directive's words.
pub fn kind(name: &str) -> Kind {
    table().get(name).map_or(Kind::Other, |row| row.kind)
}

/// Whether several lines of it add up, where for others the last one counts.
pub fn repeats(name: &str) -> bool {
    table().get(name).is_some_and(|row| row.repeats)
}

/// Whether CONFIG SET takes it. Where only the newest and the oldest version were measured, one in between
/// is held to be like the oldest.
pub fn live(name: &str, engine: Engine, version: Version) -> bool {
    table().get(name).is_some_and(|row| match engine {
        Engine::Redis if version < Version::new(7, 0) => row.live_on_6_0,
        Engine::Redis | Engine::Valkey => row.live,
    })
}

/// Whether the words of this directive are a secret.
pub fn secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "requirepass" | "masterauth" | "primaryauth" | "user")
        || name.ends_with("-pass")
        || name.ends_with("-auth-pass")
}

/// How a server of this engine and version takes a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// It knows it.
    Known,
    /// It came later, or went away before.
    OtherVersion(String),
    /// No version knows it; perhaps this one was meant.
    Unknown(Option<&'static str>),
}

/// Looks a directive up for the server that will read it.
pub fn knowledge(name: &str, engine: Engine, version: Version) -> Knowledge {
    let Some(row) = table().get(name) else {
        return Knowledge::Unknown(suggest(name));
    };
    let outside = match engine {
        Engine::Valkey if row.valkey => return Knowledge::Known,
        Engine::Valkey => "Valkey does not know it".to_owned(),
        Engine::Redis => match (row.since, row.until) {
            (None, _) => "only Valkey knows it".to_owned(),
            (Some(since), _) if version < since => {
                format!("Redis knows it from {}.{}", since.major, since.minor)
            }
            (_, Some(until)) if (version.major, version.minor) > (until.major, until.minor) => {
                format!("Redis knew it up to {}.{}", until.major, until.minor)
            }
            _ => return Knowledge::Known,
        },
    };
    Knowledge::OtherVersion(outside)
}

/// The known name that looks most like this one.
pub fn suggest(name: &str) -> Option<&'static str> {
    closest(name, table().keys().copied())
}

/// The candidate that looks most like a word, if one looks much like it.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |candidate: &&str| strsim::damerau_levenshtein(word, candidate);
    candidates
        .into_iter()
        .filter(|candidate| near(candidate) <= 1 + word.len() / 4)
        .min_by_key(|candidate| (near(candidate), candidate.len(), *candidate))
}

/// Whether CONFIG REWRITE adds this directive with this value although no one set it. `password` is
/// the file's requirepass: a default user with another one is no noise, for it locks the password out.
pub fn rewrite_noise(name: &str, values: &[Vec<String>], password: Option<&str>) -> bool {
    let words: Vec<Vec<&str>> =
        values.iter().map(|value| value.iter().map(String::as_str).collect()).collect();
    match name {
        "user" => values.iter().all(|user| is_default_user(user, password)),
        "latency-tracking-info-percentiles" => words == [["50", "99", "99.9"]],
        "save" => is_default_save(&words),
        // The distribution's units give these on the command line, and REWRITE puts them into the file.
        "daemonize" | "supervised" => true,
        _ => false,
    }
}

/// The default user as the server itself writes it out.
pub fn is_default_user(words: &[String], password: Option<&str>) -> bool {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let key = match password {
        Some(password) => users::hash(password),
        None => "nopass".to_owned(),
    };
    let expected = |word: &&str| ["sanitize-payload", "~*", "&*", "+@all"].contains(word) || **word == *key;
    match words.as_slice() {
        ["default", "on", rest @ ..] => rest.iter().all(expected) && rest.contains(&key.as_str()),
        _ => false,
    }
}

/// The default user as the server itself writes it out, but with the hash of another password.
pub fn is_stale_default(words: &[String], password: Option<&str>) -> bool {
    let own = is_default_user(words, password);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let expected =
        |word: &&str| ["sanitize-payload", "~*", "&*", "+@all"].contains(word) || word.starts_with('#');
    match words.as_slice() {
        ["default", "on", rest @ ..] => {
            !own && rest.iter().all(expected) && rest.iter().any(|word| word.starts_with('#'))
        }
        _ => false,
    }
}

fn is_default_save(words: &[Vec<&str>]) -> bool {
    let mut sorted: Vec<&Vec<&str>> = words.iter().collect();
    sorted.sort();
    let default: [&[&str]; 3] = [&["300", "100"], &["3600", "1"], &["60", "10000"]];
    sorted.iter().map(|value| value.as_slice()).eq(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_directive_is_met_with_the_right_one() {
        for (wrong, right) in [("maxmemry", "maxmemory"), ("requirepas", "requirepass"), ("bindd", "bind")] {
            assert_eq!(suggest(wrong), Some(right));
        }
        assert_eq!(suggest("colour-of-the-sky"), None);
    }

    #[test]
    fn the_labs_invented_directive_is_unknown_to_every_version() {
        for version in [Version::new(6, 0), Version::new(7, 0), Version::new(8, 0)] {
            assert!(matches!(
                knowledge("replica-announce-pass", Engine::Redis, version),
                Knowledge::Unknown(_)
            ));
        }
    }

    #[test]
    fn a_version_knows_what_came_with_it() {
        let name = "repl-diskless-sync-max-replicas";
        assert_eq!(knowledge(name, Engine::Redis, Version::new(7, 0)), Knowledge::Known);
        assert!(matches!(knowledge(name, Engine::Redis, Version::new(6, 0)), Knowledge::OtherVersion(_)));
    }
}
