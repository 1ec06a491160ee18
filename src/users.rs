//! The users of an instance (ACL): what each may do, as a configuration has it, and two spellings compared.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::conf::{self, Conf};
use crate::directives;
use crate::engine::{Engine, Version};
use crate::secret::{MASK, Secret};

/// Who may do everything.
pub const ADMIN: &str = "admin";
/// As whom a replica follows its master.
pub const REPLICA: &str = "replica";
/// As whom the web app caches.
pub const APP: &str = "app";
/// As whom a client speaks that names no user.
pub const DEFAULT: &str = "default";

/// The users that redis-tp has itself.
pub const OURS: [&str; 4] = [ADMIN, REPLICA, APP, DEFAULT];

/// What a replica says to its master (replication.c, `syncWithMaster`).
const REPLICATES: [&str; 3] = ["psync", "replconf", "ping"];
/// What the web app says: see `app/`.
const CACHES: [&str; 4] = ["get", "set", "pttl", "info"];

/// The users of an instance beside the one that may do everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// The password of the replicas.
    pub replica: Secret,
    /// The web app, where one is wanted.
    pub app: Option<App>,
    /// Whether a client that names no user is let in.
    pub default: bool,
}

/// The user of the web app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its password.
    pub password: Secret,
    /// What the names of its keys begin with.
    pub prefix: String,
}

impl Users {
    /// Their lines behind the word `user`: hashes, and no password.
    pub fn lines(&self, admin: &Secret, engine: Engine, version: Version) -> Vec<String> {
        let (all, none) = if has_channels(engine, version) { (" &*", " resetchannels") } else { ("", "") };
        let only = |commands: &[&str]| {
            let commands: Vec<String> = commands.iter().map(|command| format!("+{command}")).collect();
            format!("-@all {}", commands.join(" "))
        };
        let mut lines = vec![
            format!("{ADMIN} on {} ~*{all} +@all", hash(admin.expose())),
            format!("{REPLICA} on {}{none} {}", hash(self.replica.expose()), only(&REPLICATES)),
        ];
        lines.extend(self.app.as_ref().map(|App { password, prefix }| {
            let keys = conf::quote(&format!("~{}*", literally(prefix)));
            format!("{APP} on {} {keys}{none} {}", hash(password.expose()), only(&CACHES))
        }));
        if !self.default {
            lines.push(format!("{DEFAULT} off"));
        }
        lines
    }
}

/// Whether a configuration has a line for a user.
pub fn names(conf: &Conf, user: &str) -> bool {
    conf.directives
        .iter()
        .any(|line| line.name == "user" && line.args.first().is_some_and(|name| name == user))
}

/// The users of a configuration, each with the words of its line, its name first.
pub fn of(conf: &Conf) -> BTreeMap<String, Vec<String>> {
    let password = conf.word("requirepass").filter(|word| !word.is_empty());
    let lines = conf.directives.iter().filter(|line| line.name == "user").map(|line| &line.args);
    let own = lines.filter(|words| !directives::is_default_user(words, password));
    own.filter_map(|words| Some((words.first()?.clone(), words.clone()))).collect()
}

/// The words that let a user do what it is to beside what it may now: the server refuses a pattern behind that for
/// everything. From a `reset` on there is nothing beside.
pub fn beside(now: Option<&[String]>, words: &[String]) -> Vec<String> {
    let has = |all: [&str; 2]| now.is_some_and(|now| now.iter().any(|word| all.contains(&word.as_str())));
    let (keys, channels) = (has(["~*", "allkeys"]), has(["&*", "allchannels"]));
    if words.get(1).is_some_and(|word| word == "reset") {
        return words.to_vec();
    }
    let adds = |word: &&String| match word.as_str() {
        "resetkeys" | "resetchannels" | "resetpass" => false,
        word if word.starts_with(['~', '%']) => !keys,
        word if word.starts_with('&') => !channels,
        _ => true,
    };
    words.iter().filter(adds).cloned().collect()
}

/// A user as ACL LIST tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// It is let in.
    pub on: bool,
    /// Without a password.
    pub open: bool,
    /// What it may of that which only an administrator needs.
    pub takes_over: Vec<String>,
    /// By a selector, and not by its own rules.
    pub selected: bool,
    /// It may do with every key what it may do.
    pub all_keys: bool,
}

impl Listed {
    /// Reads a line of ACL LIST. What cannot be read may be anything.
    pub fn parse(line: &str) -> Option<Self> {
        let words = conf::split(line.strip_prefix("user ")?)?;
        let (name, words) = words.split_first()?;
        let groups = groups(words);
        let own = parse(groups.first()?);
        let may = |group: &Vec<String>| match parse(group) {
            Some(rules) => takes_over(&rules.commands),
            None => TAKES_OVER.iter().map(|(name, _)| (*name).to_owned()).collect(),
        };
        let takes_over: Vec<Vec<String>> = groups.iter().map(may).collect();
        let first = takes_over.iter().position(|some| !some.is_empty());
        Some(Self {
            name: name.clone(),
            on: own.as_ref().is_none_or(|rules| rules.on),
            all_keys: own.as_ref().is_none_or(|rules| rules.keys.iter().any(|keys| keys == "~*")),
            open: own.is_some_and(|rules| rules.passwords.iter().any(|word| word == "nopass")),
            selected: first.is_some_and(|group| group > 0),
            takes_over: takes_over.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect(),
        })
    }
}

/// The rules of a user, and behind them those of each of its selectors, which stand in brackets.
fn groups(words: &[String]) -> Vec<Vec<String>> {
    let mut groups = vec![Vec::new()];
    let mut within = false;
    for word in words {
        if word.starts_with('(') {
            groups.push(Vec::new());
            within = true;
        }
        let bare = if within { word.trim_start_matches('(').trim_end_matches(')') } else { word };
        let at = if within { groups.len() - 1 } else { 0 };
        groups.get_mut(at).into_iter().for_each(|group| group.push(bare.to_owned()));
        within &= !word.ends_with(')');
    }
    groups.iter_mut().for_each(|group| group.retain(|word| !word.is_empty()));
    groups
}

/// With which of these a client takes a server over, or takes it from everybody else, whichever keys it has; and the
/// categories that they are in (ACL CAT).
const TAKES_OVER: [(&str, &[&str]); 13] = [
    ("acl", ADMINISTERS),
    ("cluster", ADMINISTERS),
    ("config", ADMINISTERS),
    ("debug", ADMINISTERS),
    ("failover", ADMINISTERS),
    ("flushall", REWRITES),
    ("flushdb", REWRITES),
    ("migrate", REWRITES),
    ("module", ADMINISTERS),
    ("monitor", ADMINISTERS),
    ("replicaof", ADMINISTERS),
    ("shutdown", ADMINISTERS),
    ("slaveof", ADMINISTERS),
];
const ADMINISTERS: &[&str] = &["admin", "dangerous", "slow"];
const REWRITES: &[&str] = &["dangerous", "keyspace", "slow", "write"];
/// Those parts of them that only tell something, and no secret.
const TELLS: [&str; 17] = [
    "acl|cat",
    "acl|dryrun",
    "acl|genpass",
    "acl|help",
    "acl|whoami",
    "cluster|countkeysinslot",
    "cluster|getkeysinslot",
    "cluster|info",
    "cluster|keyslot",
    "cluster|links",
    "cluster|myid",
    "cluster|nodes",
    "cluster|replicas",
    "cluster|shards",
    "cluster|slots",
    "config|resetstat",
    "module|list",
];

/// What rules give in the end: a later one takes back what an earlier one gave.
fn takes_over(rules: &[String]) -> Vec<String> {
    let mut may: BTreeSet<&str> = BTreeSet::new();
    for rule in rules {
        let Some((gives, what)) = rule.strip_prefix('+').map(|what| (true, what)).or_else(|| {
            let what = rule.strip_prefix('-')?;
            Some((false, what))
        }) else {
            continue;
        };
        let (command, part) = what.split_once('|').map_or((what, false), |(command, _)| (command, true));
        let concerns = |(name, categories): &&(&'static str, &[&str])| match what.strip_prefix('@') {
            Some(category) => category == "all" || categories.contains(&category),
            None => *name == command,
        };
        let concerned = TAKES_OVER.iter().filter(concerns).map(|(name, _)| *name);
        match gives {
            true if TELLS.contains(&what) => {}
            true => may.extend(concerned),
            // What is left without one part may do the others.
            false if part => {}
            false => concerned.for_each(|name| _ = may.remove(name)),
        }
    }
    may.into_iter().map(str::to_owned).collect()
}

/// Whether a line lets its user in.
pub fn is_on(words: &[String]) -> bool {
    canonical(words).get(1).is_some_and(|word| word != "off")
}

/// Whether a line for the default user lets it in, whatever `requirepass` says.
pub fn opens_default(conf: &Conf) -> bool {
    let default = |words: &[String]| words.first().is_some_and(|name| name == DEFAULT);
    conf.directives.iter().any(|line| line.name == "user" && default(&line.args) && is_on(&line.args))
}

/// The default user as it is without a line.
pub fn default_line(password: &Secret, engine: Engine, version: Version) -> String {
    let channels = if has_channels(engine, version) { " &*" } else { "" };
    format!("{DEFAULT} on {} ~*{channels} +@all", hash(password.expose()))
}

/// Rules for channels came with 6.2.
fn has_channels(engine: Engine, version: Version) -> bool {
    engine == Engine::Valkey || version >= Version::new(6, 2)
}

/// A prefix as a pattern that matches it and nothing else.
fn literally(prefix: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\');
    prefix.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// A password as a rule that does not tell it.
pub fn hash(password: &str) -> String {
    format!("#{:x}", Sha256::digest(password))
}

/// Whether a rule is the hash of a password.
pub fn is_hash(rule: &str) -> bool {
    rule.strip_prefix('#').is_some_and(|hex| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()))
}

/// One user's rules as parts that can be compared.
#[derive(Default)]
struct Rules {
    on: bool,
    passwords: Vec<String>,
    keys: Vec<String>,
    channels: Vec<String>,
    commands: Vec<String>,
    flags: Vec<String>,
}

/// The words of a `user` line without their spelling: the server writes them out in an order of its own, with
/// what it takes for granted. Rules that are more than lists stay as they are.
pub fn canonical(args: &[String]) -> Vec<String> {
    let Some((name, words)) = args.split_first() else { return Vec::new() };
    let Some(rules) = parse(words) else { return args.to_vec() };
    if !rules.on {
        return vec![name.clone(), "off".into()];
    }
    let sorted = |mut all: Vec<String>| {
        all.sort();
        all.dedup();
        all
    };
    let mut all = vec![name.clone(), "on".into()];
    for part in [rules.flags, rules.passwords, rules.keys, rules.channels] {
        all.extend(sorted(part));
    }
    let whole = |rule: &&String| matches!(rule.as_str(), "+@all" | "-@all");
    let last = rules.commands.iter().rposition(|rule| whole(&rule)).unwrap_or(0);
    let (base, rest) = match rules.commands.get(last) {
        Some(rule) if whole(&rule) => {
            (rule.clone(), rules.commands.get(last + 1..).unwrap_or_default().to_vec())
        }
        _ => ("-@all".to_owned(), rules.commands),
    };
    all.push(base);
    let one_way =
        rest.iter().all(|rule| rule.starts_with('+')) || rest.iter().all(|rule| rule.starts_with('-'));
    all.extend(if one_way { sorted(rest) } else { rest });
    all
}

fn parse(words: &[String]) -> Option<Rules> {
    let mut rules = Rules::default();
    for word in words {
        let lower = word.to_ascii_lowercase();
        match lower.as_str() {
            "on" => rules.on = true,
            "off" => rules.on = false,
            "sanitize-payload" => rules.flags.clear(),
            "skip-sanitize-payload" => rules.flags = vec![lower],
            "nopass" => rules.passwords = vec![lower],
            "resetpass" => rules.passwords.clear(),
            "allkeys" | "~*" => rules.keys = vec!["~*".into()],
            "resetkeys" => rules.keys.clear(),
            "allchannels" | "&*" => rules.channels = vec!["&*".into()],
            "resetchannels" => rules.channels.clear(),
            "allcommands" => rules.commands.push("+@all".into()),
            "nocommands" => rules.commands.push("-@all".into()),
            _ => match word.chars().next()? {
                '>' => rules.passwords.push(hash(&word[1..])),
                '#' => rules.passwords.push(word.clone()),
                '~' | '%' => rules.keys.push(word.clone()),
                '&' => rules.channels.push(word.clone()),
                '+' | '-' => rules.commands.push(lower),
                // A selector, a password withdrawn, a reset in the middle.
                _ => return None,
            },
        }
    }
    Some(rules)
}

/// A rule that this version does not know, and why.
pub fn unknown_rule(words: &[String], engine: Engine, version: Version) -> Option<(String, &'static str)> {
    let before = |major, minor| engine == Engine::Redis && version < Version::new(major, minor);
    words.iter().find_map(|word| {
        let bare = word.trim_start_matches('(').trim_end_matches(')');
        let why = match word.chars().next()? {
            '&' if before(6, 2) => "rules for channels came with 6.2",
            '(' if before(7, 0) => "selectors came with 7.0",
            '%' if before(7, 0) => "rules for reading and writing of keys came with 7.0",
            _ => match word.to_ascii_lowercase().as_str() {
                "allchannels" | "resetchannels" if before(6, 2) => "rules for channels came with 6.2",
                "sanitize-payload" | "skip-sanitize-payload" if before(6, 2) => "this rule came with 6.2",
                "clearselectors" if before(7, 0) => "selectors came with 7.0",
                _ => match unknown_category(&bare.to_ascii_lowercase()) {
                    Some(why) => return Some((bare.to_owned(), why)),
                    // A password, perhaps, whose sign was forgotten.
                    None => return no_rule(bare).map(|why| (MASK.to_owned(), why)),
                },
            },
        };
        Some((word.clone(), why))
    })
}

/// The categories that some version has (acl.c, `ACLCommandCategories`); modules of Redis 8 add the last ones.
const CATEGORIES: [&str; 33] = [
    "all",
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
    "search",
    "json",
    "timeseries",
    "bloom",
    "cuckoo",
    "topk",
    "cms",
    "tdigest",
    "array",
    "vset",
    "vectorset",
];

fn unknown_category(rule: &str) -> Option<&'static str> {
    let category = rule.strip_prefix(['+', '-'])?.strip_prefix('@')?;
    (!CATEGORIES.contains(&category)).then_some("there is no such category of commands")
}

/// The rules that are a word (acl.c, `ACLSetUser`).
const WORDS: [&str; 16] = [
    "on",
    "off",
    "nopass",
    "reset",
    "resetpass",
    "allkeys",
    "resetkeys",
    "allchannels",
    "resetchannels",
    "allcommands",
    "nocommands",
    "sanitize-payload",
    "skip-sanitize-payload",
    "clearselectors",
    // Of later Valkeys, as `db=` is.
    "alldbs",
    "resetdbs",
];

/// Why a word is no rule in any version.
fn no_rule(word: &str) -> Option<&'static str> {
    let hash = |word: &str| is_hash(word) && !word.contains(|c: char| c.is_ascii_uppercase());
    match word.chars().next()? {
        '#' | '!' if !hash(&format!("#{}", &word[1..])) => {
            Some("a hash of a password has 64 digits of 0 to 9 and a to f")
        }
        '+' | '-' if word.len() == 1 => Some("it names no command"),
        '+' | '-' | '~' | '%' | '&' | '>' | '<' | '#' | '!' | '(' => None,
        _ if word.starts_with("db=") || WORDS.contains(&word.to_ascii_lowercase().as_str()) => None,
        _ => Some("it is no rule; a password begins with >"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn what_the_server_writes_out_is_what_was_wanted() {
        let hash = hash("s3cret");
        for (wanted, written) in [
            // As Redis 7.0 and 6.0 wrote them.
            (
                format!("app on {hash} ~cache:* resetchannels -@all +get +set +pttl +info"),
                format!("app on {hash} ~cache:* resetchannels -@all +set +get +info +pttl"),
            ),
            (
                format!("replica on {hash} -@all +psync +replconf +ping"),
                format!("replica on sanitize-payload {hash} resetchannels -@all +replconf +psync +ping"),
            ),
            (
                format!("admin on {hash} ~* &* +@all"),
                "admin on >s3cret allkeys allchannels allcommands".into(),
            ),
            ("default off".into(), format!("default off sanitize-payload {hash} resetchannels -@all")),
        ] {
            assert_eq!(canonical(&words(&wanted)), canonical(&words(&written)), "{wanted}");
        }
    }

    #[test]
    fn what_means_something_else_is_told_apart() {
        for (one, other) in [
            ("a on nopass ~* +@all", "a off nopass ~* +@all"),
            ("a on nopass ~* +@all", "a on #00 ~* +@all"),
            ("a on nopass ~x* +get", "a on nopass ~y* +get"),
            ("a on nopass ~x* +get", "a on nopass ~x* +get +set"),
            ("a on nopass ~x* +@all -get", "a on nopass ~x* -get +@all"),
            ("a on nopass ~x* +@read -get", "a on nopass ~x* -get +@read"),
            ("a on nopass ~* &a +@all", "a on nopass ~* &b +@all"),
        ] {
            assert_ne!(canonical(&words(one)), canonical(&words(other)), "{one}");
        }
    }

    #[test]
    fn a_version_gets_the_rules_that_it_knows() {
        let secret = || Secret::new("s3cret");
        let app = App { password: secret(), prefix: "cache:".into() };
        let users = Users { replica: secret(), app: Some(app), default: false };
        for (version, all, none) in [((6, 0), "", ""), ((6, 2), " &*", " resetchannels")] {
            let hash = hash("s3cret");
            let version = Version::new(version.0, version.1);
            let expected = [
                format!("admin on {hash} ~*{all} +@all"),
                format!("replica on {hash}{none} -@all +psync +replconf +ping"),
                format!("app on {hash} ~cache:*{none} -@all +get +set +pttl +info"),
                "default off".to_owned(),
            ];
            assert_eq!(users.lines(&secret(), Engine::Redis, version), expected);
        }
    }

    #[test]
    fn a_pattern_is_not_added_to_everything() {
        let of = |now: &str, then: &str| beside(Some(&words(now)), &words(then)).join(" ");
        assert_eq!(of("app on ~* &*", "app on ~x:* resetchannels -@all +get"), "app on -@all +get");
        assert_eq!(of("app on ~x:*", "app on ~* &a -@all +get"), "app on ~* &a -@all +get");
        assert_eq!(of("app on ~*", "app reset on ~x:*"), "app reset on ~x:*");
    }

    #[test]
    fn what_takes_a_server_over_is_seen_wherever_it_stands() {
        let of = |rules: &str| Listed::parse(&format!("user x {rules}")).unwrap();
        for rules in [
            "on nopass ~* &* +@all",
            "on #00 ~* -@all +@admin",
            "on #00 ~* -@all +get (~* resetchannels -@all +@all)",
            "on #00 ~* -@all +get (~x -@all +get) (~y -@all +config|set)",
            "on #00 -@all +config|get",
            "on #00 -@all +acl|setuser",
            "on #00 -@all +@all -config",
            "on #00 -@all +@all -@admin",
            "on #00 ~* -@all +@slow",
            "on #00 ~* -@all +@keyspace",
            "on #00 ~cache:* -@all +@read +@write",
            "on #00 ~* -@all -@dangerous +@slow",
            "on #00 ~* -@all +@slow -@admin",
            "on #00 ~* -@all +@write -migrate",
            "on #00 ~* +@all -@dangerous +config|set",
            "on #00 unheard-of -@all",
        ] {
            assert!(!of(rules).takes_over.is_empty(), "{rules}");
        }
        for rules in [
            "on #00 ~* -@all +@read +@write -@dangerous",
            "on #00 ~cache:* -@all +@write -migrate -flushall -flushdb",
            "on #00 ~* -@all +@slow -@dangerous",
            "on #00 ~* -@all +@fast +@read +@connection +@hash",
            "on #00 ~* +@all -@slow",
            "on #00 ~* +@all -@dangerous",
            "on #00 ~* -@all +acl|whoami +cluster|slots",
            "on #00 resetchannels -@all +psync +replconf +ping",
            "on #00 ~* -@all +@admin -@all +get (~x -@all +set)",
        ] {
            assert_eq!(of(rules).takes_over, [""; 0], "{rules}");
        }
        assert!(of("on nopass -@all").open && of("on nopass -@all").on && !of("off #00 -@all (~x +get)").on);
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literally("a*[b]?\\"), "a\\*\\[b\\]\\?\\\\");
    }

    #[test]
    fn a_rule_is_known_from_its_version_on() {
        let of = |rule: &str, engine, version| unknown_rule(&words(rule), engine, version).is_some();
        for rule in ["&*", "resetchannels", "skip-sanitize-payload"] {
            assert!(of(rule, Engine::Redis, Version::new(6, 0)), "{rule}");
            assert!(!of(rule, Engine::Redis, Version::new(6, 2)), "{rule}");
        }
        for rule in ["%R~x", "(+get", "clearselectors"] {
            assert!(of(rule, Engine::Redis, Version::new(6, 2)), "{rule}");
            assert!(!of(rule, Engine::Redis, Version::new(7, 0)), "{rule}");
            assert!(!of(rule, Engine::Valkey, Version::new(8, 1)), "{rule}");
        }
        for rule in ["password", "#abc", "+"] {
            assert!(of(rule, Engine::Redis, Version::new(8, 0)), "{rule}");
        }
        let every =
            "on nopass >x <x ~a %RW~b &c +get -set|x +@read ON allkeys resetpass reset (~* allkeys) db=0";
        assert!(!of(every, Engine::Valkey, Version::new(9, 1)));
        for words in [&["+@raed"][..], &["(+@raed)"], &["(+get", "+@raed)"], &["(+@raed", "~x)"]] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let (rule, _) = unknown_rule(&words, Engine::Redis, Version::new(8, 0)).unwrap();
            assert_eq!(rule, "+@raed", "{words:?}");
        }
    }
}
