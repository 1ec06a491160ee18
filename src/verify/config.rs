//! Whether the configuration on disk is the one that runs: file and CONFIG GET, compared by what
//! each directive means.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Look, Place, Proof, cli};
use crate::conf::{self, Conf, Directive};
use crate::directives::{canonical, repeats};
use crate::finding::Finding;
use crate::host::Host;
use crate::instance::Instance;
use crate::secret::MASK;

/// Directives of several words; CONFIG GET answers them as one.
const WORDS: [&str; 6] = [
    "save",
    "bind",
    "client-output-buffer-limit",
    "oom-score-adj-values",
    "replicaof",
    "latency-tracking-info-percentiles",
];

/// How a server starts, and not what it does: the units say otherwise on its command line.
const STARTS: [&str; 2] = ["daemonize", "supervised"];

/// What a file means that is silent about these, in every version; a change of one of them by
/// CONFIG SET is too grave to miss.
const SILENT: [(&str, &str); 7] = [
    ("requirepass", ""),
    ("masterauth", ""),
    ("replicaof", ""),
    ("protected-mode", "yes"),
    ("appendonly", "no"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
];

/// How deep includes may lie in each other.
const DEPTH: usize = 8;

pub fn did(_: &Proof<'_>, instance: &Instance) -> String {
    format!("compared {} with CONFIG GET *", instance.conf.display())
}

/// What the file says is what runs.
pub fn config(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let file =
        read(proof.host, &instance.conf, DEPTH).map_err(|why| Finding::unknown(why, "redis-tp verify"))?;
    // No answer also where the command is renamed or forbidden.
    let live: BTreeMap<String, String> = proof.servers.ask(&Place::of(instance), &["CONFIG", "GET", "*"])?;
    let (file, live) = comparable(&file, &live);
    let differences = conf::compare(&file, &live, &file);
    if differences.is_empty() {
        return Ok(Finding::pass(format!("{} directives alike", file.settings().len())));
    }
    let found: Vec<String> = differences
        .iter()
        .map(|at| match at.there == MASK || at.wanted == MASK {
            true => format!("{} differs", at.directive),
            false => format!("{}: file {}, running {}", at.directive, at.wanted, at.there),
        })
        .collect();
    let (cause, cure) = match differences.iter().all(|at| at.directive == "replicaof") {
        // A restart of ours keeps the role that the server has.
        true => (
            "whom it follows was changed by REPLICAOF, or in the file alone",
            "redis-tp apply --adopt".to_owned(),
        ),
        false => (
            "it was changed by CONFIG SET, or the file was changed after the start",
            format!(
                "redis-tp service restart {}\nor keep what runs: {} CONFIG REWRITE",
                instance.name,
                cli(instance)
            ),
        ),
    };
    Ok(Finding::fail(found.join("; "), cause, cure))
}

/// A file with what it includes.
fn read(host: &Host, path: &Path, depth: usize) -> Result<Conf, String> {
    let text = host.text(path).map_err(|error| format!("{error:#}"))?;
    let text = text.ok_or_else(|| format!("{} is not there", path.display()))?;
    let parsed = Conf::parse(&text)
        .map_err(|bad| format!("line {} of {} cannot be read", bad.line, path.display()))?;
    let mut whole = Conf::default();
    for directive in parsed.directives {
        match (directive.name.as_str(), directive.args.first()) {
            ("include", Some(other)) if other.contains(['*', '?', '[']) => {
                return Err(format!("{} includes {other}: not followed", path.display()));
            }
            ("include", Some(_)) if depth == 0 => return Err(format!("{} includes itself", path.display())),
            ("include", Some(other)) => {
                whole.directives.extend(read(host, Path::new(other), depth - 1)?.directives);
            }
            _ => whole.directives.push(directive),
        }
    }
    Ok(whole)
}

/// The two sides in one form, without what CONFIG GET does not answer.
fn comparable(file: &Conf, live: &BTreeMap<String, String>) -> (Conf, Conf) {
    let answered: BTreeMap<&str, &String> =
        live.iter().map(|(name, value)| (canonical(name), value)).collect();
    let one = |name: &str, args: Vec<String>| Directive { name: name.to_owned(), args, line: 0 };
    let mut ours = Conf::default();
    for Directive { name, args, .. } in &file.directives {
        let name = canonical(name);
        // Of the directives that add up, CONFIG GET knows these two.
        let single = !repeats(name) || ["save", "client-output-buffer-limit"].contains(&name);
        if answered.contains_key(name) && single && !STARTS.contains(&name) {
            ours.directives.push(one(name, words(name, &args.join(" "), args)));
        }
    }
    for (name, value) in SILENT {
        if ours.get(name).is_none() && answered.contains_key(name) {
            ours.directives.push(one(name, words(name, value, &[value.to_owned()])));
        }
    }
    let mut theirs = Conf::default();
    for (name, value) in answered {
        if ours.get(name).is_some() {
            theirs.directives.push(one(name, words(name, value, std::slice::from_ref(value))));
        }
    }
    (ours, theirs)
}

/// The words of a value, however it was split.
fn words(name: &str, joined: &str, args: &[String]) -> Vec<String> {
    let split = || {
        let words: Vec<String> = joined.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() { vec![String::new()] } else { words }
    };
    match name {
        "replicaof" if joined.eq_ignore_ascii_case("no one") => vec![String::new()],
        "notify-keyspace-events" => vec![classes(joined)],
        _ if WORDS.contains(&name) => split(),
        _ => args.to_vec(),
    }
}

/// The classes of events in one order; `A` stands for all that are no others'.
fn classes(text: &str) -> String {
    let mut letters: Vec<char> = text.replace('A', "g$lshzxetd").chars().collect();
    letters.sort_unstable();
    letters.dedup();
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differ(file: &str, live: &[(&str, &str)]) -> Vec<String> {
        let live = live.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (file, live) = comparable(&Conf::parse(file).unwrap(), &live);
        conf::compare(&file, &live, &file).into_iter().map(|at| at.directive).collect()
    }

    #[test]
    fn what_config_get_spells_otherwise_is_alike() {
        let file = "save 900 1\nsave 300 10\nbind 127.0.0.1 -::1\nmaxmemory 100MB\nappendonly NO\ndir /var/lib/redis/\n\
                    unixsocketperm 0770\nnotify-keyspace-events KEA\nslaveof no one\ndaemonize yes\nuser bob on\n\
                    client-output-buffer-limit replica 512mb 64mb 60\noom-score-adj-values 0 200 800\n";
        let live = [
            ("save", "900 1 300 10"),
            ("bind", "127.0.0.1 -::1"),
            ("maxmemory", "104857600"),
            ("appendonly", "no"),
            ("dir", "/var/lib/redis"),
            ("unixsocketperm", "770"),
            ("notify-keyspace-events", "AKE"),
            ("replicaof", ""),
            ("slaveof", ""),
            ("daemonize", "no"),
            (
                "client-output-buffer-limit",
                "normal 0 0 0 slave 536870912 67108864 60 pubsub 33554432 8388608 60",
            ),
            ("oom-score-adj-values", "0 200 800"),
        ];
        assert_eq!(differ(file, &live), [] as [&str; 0]);
    }

    #[test]
    fn what_was_set_live_is_seen_also_where_the_file_is_silent() {
        let live = [("requirepass", ""), ("maxmemory", "1"), ("hz", "10"), ("save", "")];
        assert_eq!(differ("requirepass x\nsave 900 1\n", &live), ["maxmemory", "requirepass", "save"]);
    }
}
