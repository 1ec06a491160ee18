//! What is wrong with an instance, why, and what to type. A healthy one costs nothing here.

use std::collections::BTreeMap;

use super::{Heard, Link, Log, Node, State, number, on_disk};
use crate::apply::service;
use crate::exit::Fault;
use crate::facts::{Auth, Facts, containers};
use crate::host::Host;
use crate::instance::Instance;
use crate::plan::refuse;
use crate::runtime::systemd::{self, unit_word};
use crate::runtime::{Program, Runtime};
use crate::tls;
use crate::wire::Trouble;

/// How many lines of a log are shown.
const SHOWN: usize = 4;
/// How many are searched for a reason: a replica tries again every second, some six lines each time.
const SEARCHED: usize = 12;

/// Something wrong with an instance.
#[derive(Debug)]
struct Problem {
    what: String,
    cure: String,
    /// The log may tell why.
    log: bool,
}

impl Problem {
    fn new(what: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), cure: cure.into(), log: false }
    }

    fn logged(self) -> Self {
        Self { log: true, ..self }
    }
}

/// The command stands in the last line of a hint.
impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let cure = fault.cure().and_then(|cure| cure.lines().last()).unwrap_or("redis-tp check");
        Self::new(fault.to_string(), cure)
    }
}

/// Finds out what is wrong with each node.
pub fn diagnose(host: &Host, instances: &[Instance], facts: &Facts, heard: &[Heard], nodes: &mut [Node]) {
    for ((node, instance), heard) in nodes.iter_mut().zip(instances).zip(heard) {
        if let Some(problem) = of(node, instance, facts, heard) {
            node.log = problem.log.then(|| last_words(host, node, instance)).flatten();
            (node.problem, node.cure) = (Some(problem.what), Some(problem.cure));
        }
    }
    // A broken link may be the master's trouble.
    let masters: BTreeMap<String, String> = nodes
        .iter()
        .filter(|node| !matches!(node.state, State::Up))
        .filter_map(|node| Some((node.name.to_string(), node.cure.clone()?)))
        .collect();
    for (node, instance) in nodes.iter_mut().zip(instances) {
        if node.link == Some(Link::Down) && node.problem.is_none() {
            let cure = node.master.as_ref().and_then(|master| masters.get(master));
            let lines = log_of(host, instance);
            let problem = broken_link(node, instance, facts, cure, &lines);
            node.log = problem.log.then(|| shown(instance, &lines)).flatten();
            (node.problem, node.cure) = (Some(problem.what), Some(problem.cure));
        }
    }
}

fn of(node: &Node, instance: &Instance, facts: &Facts, heard: &Heard) -> Option<Problem> {
    let restart = format!("redis-tp service restart {}", node.name);
    if node.state != State::Up && is_off_the_network(instance, facts) {
        let what = format!("its container {} was taken off the network", instance.container());
        return Some(Problem::new(what, "redis-tp apply"));
    }
    match (node.state, heard) {
        (State::Up, Ok(info)) => serving(node, instance, facts, info),
        (State::Up, Err(_)) => None,
        (State::Loading, heard) => {
            let percent = heard.as_ref().ok().and_then(|info| info.get("loading_loaded_perc"));
            let percent = percent.map_or_else(String::new, |percent| format!(" ({percent} %)"));
            Some(Problem::new(format!("it still reads its data{percent}"), "redis-tp status --watch"))
        }
        (State::Foreign, _) => Some(match refuse::port(facts, instance) {
            Err(fault) => fault.into(),
            Ok(()) => Problem::new(
                format!("the server on {} was not started from {}", node.address, instance.conf.display()),
                restart,
            ),
        }),
        (State::LockedOut, _) => Some(Problem::new("it takes no password that redis-tp knows", restart)),
        (State::NoAnswer, heard) => {
            let why = heard.as_ref().err().map_or_else(String::new, Trouble::to_string);
            let what = format!("it listens on {}, but {why}", node.address);
            Some(Problem::new(what, format!("redis-tp service logs {}", node.name)).logged())
        }
        (State::Down, _) => Some(stopped(node, instance, facts)),
    }
}

/// What is wrong with one that answers, its link aside.
fn serving(
    node: &Node,
    instance: &Instance,
    facts: &Facts,
    info: &BTreeMap<String, String>,
) -> Option<Problem> {
    let is = |name: &str, value: &str| info.get(name).is_some_and(|found| found == value);
    let open = facts.running.get(&instance.name).is_some_and(|running| running.auth == Auth::Open);
    if open && instance.requirepass.is_some() {
        // A file with the password in it needs no more than to be read.
        let wanted = instance.requirepass.as_ref().map(crate::secret::Secret::expose);
        let cure = match on_disk(instance, facts).word("requirepass") == wanted {
            true => format!("redis-tp service restart {}", node.name),
            false => "redis-tp apply --overwrite".into(),
        };
        return Some(Problem::new("it asks for no password, although it has to", cure));
    }
    if is("rdb_last_bgsave_status", "err") || is("aof_last_write_status", "err") {
        return Some(Problem::new("it cannot save its data", "redis-tp check").logged());
    }
    if node.link == Some(Link::Syncing) {
        let left = number(info, "master_sync_left_bytes").filter(|left| *left > 0);
        let left = left.map_or_else(String::new, |left| format!(", {left} bytes are left"));
        let master = node.master.as_deref().unwrap_or("its master");
        return Some(Problem::new(
            format!("it copies the data of {master}{left}"),
            "redis-tp status --watch",
        ));
    }
    None
}

fn stopped(node: &Node, instance: &Instance, facts: &Facts) -> Problem {
    if facts.path(&instance.conf).is_none() {
        return Problem::new("it is not set up yet", "redis-tp up");
    }
    if let Err(fault) = refuse::unit(facts, instance) {
        return fault.into();
    }
    let service = |verb: &str| format!("redis-tp service {verb} {}", node.name);
    if let Runtime::Container(program) = instance.runtime {
        return no_container(program, instance, facts, service("start"));
    }
    let unit = unit_word(&instance.unit);
    let silent = format!("but nobody listens on {}", node.address);
    match (node.unit_state.as_deref(), node.pid) {
        (Some("failed"), _) => Problem::new(format!("{unit} has failed"), "redis-tp check"),
        (Some("active"), _) => Problem::new(format!("{unit} is active, {silent}"), service("restart")),
        (Some(state @ ("activating" | "reloading" | "deactivating")), _) => {
            Problem::new(format!("{unit} is {state}"), "redis-tp status --watch")
        }
        (Some(_), _) => Problem::new(format!("{unit} is stopped"), service("start")),
        (None, Some(pid)) => Problem::new(format!("process {pid} runs, {silent}"), service("restart")),
        (None, None) => Problem::new("it does not run", service("start")),
    }
    .logged()
}

/// Whether its container runs where nobody can reach it.
fn is_off_the_network(instance: &Instance, facts: &Facts) -> bool {
    let seen = facts.containers.containers.get(&instance.container());
    instance.runtime.is_container() && seen.is_some_and(|seen| seen.is_up() && !seen.joined)
}

fn no_container(program: Program, instance: &Instance, facts: &Facts, start: String) -> Problem {
    if let Some(trouble) = &facts.containers.trouble {
        return containers::refused(program, trouble).into();
    }
    let name = instance.container();
    match facts.containers.containers.get(&name) {
        None => Problem::new(format!("its container {name} is gone"), "redis-tp apply"),
        Some(seen) => Problem::new(format!("its container {name} {}", seen.word()), start).logged(),
    }
}

fn broken_link(
    node: &Node,
    instance: &Instance,
    facts: &Facts,
    masters_cure: Option<&String>,
    lines: &[String],
) -> Problem {
    let master = node.master.as_deref().unwrap_or("its master");
    if let Some(cure) = masters_cure {
        return Problem::new(format!("no link to {master}, which does not serve"), cure);
    }
    if node.master == node.wanted_master
        && let Err(fault) = refuse::master_elsewhere(facts, instance, true)
    {
        return fault.into();
    }
    let what = |why: &str| format!("no link to {master}{why}");
    let problem = match lines.iter().rev().find_map(|line| sign(line)) {
        Some(Sign::Password) => {
            let wanted = instance.masterauth.as_ref().map(crate::secret::Secret::expose);
            let cure = match on_disk(instance, facts).word("masterauth") == wanted {
                true => format!("redis-tp service restart {}", node.name),
                false => "redis-tp apply --overwrite".into(),
            };
            Problem::new(what(", which does not take its password"), cure)
        }
        Some(Sign::Directory) => Problem::new(
            what(format!(": it cannot write to {}", instance.dir.display()).as_str()),
            "redis-tp check",
        ),
        Some(Sign::Disk) => {
            Problem::new(what(": the disk is full"), format!("df {}", instance.dir.display()))
        }
        Some(Sign::Tls) => {
            Problem::new(what(", with which it does not come to speak TLS"), "redis-tp verify")
        }
        None => Problem::new(what(""), format!("redis-tp service logs {}", node.name)),
    };
    problem.logged()
}

/// What a line of a log tells of a broken link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Password,
    Directory,
    Disk,
    Tls,
}

fn sign(line: &str) -> Option<Sign> {
    let signs = [
        ("WRONGPASS", Sign::Password),
        ("NOAUTH", Sign::Password),
        ("Unable to AUTH", Sign::Password),
        ("without any password configured", Sign::Password),
        ("Read-only file system", Sign::Directory),
        ("Permission denied", Sign::Directory),
        ("No space left", Sign::Disk),
        ("SSL routines", Sign::Tls),
    ];
    let mut signs = signs.into_iter().filter(|_| !line.contains(tls::OF_A_CLIENT));
    signs.find(|(words, _)| line.contains(words)).map(|(_, sign)| sign)
}

fn log_of(host: &Host, instance: &Instance) -> Vec<String> {
    service::last_lines(host, &instance.target(), SEARCHED).map_or_else(Vec::new, |(_, lines)| lines)
}

/// The lines up to the one that tells why, or else the last ones.
fn shown(instance: &Instance, lines: &[String]) -> Option<Log> {
    let end = lines.iter().rposition(|line| sign(line).is_some()).map_or(lines.len(), |at| at + 1);
    let lines = lines.get(end.saturating_sub(SHOWN)..end)?.to_vec();
    (!lines.is_empty()).then(|| Log { source: log_source(instance), lines })
}

fn log_source(instance: &Instance) -> String {
    match (&instance.logfile, instance.runtime) {
        (Some(log), _) => log.display().to_string(),
        (None, Runtime::Container(program)) => {
            crate::apply::containers::logs_command(program, &instance.container())
        }
        (None, _) => String::new(),
    }
}

/// What an instance last said. One that failed before it had read its file said it to systemd.
fn last_words(host: &Host, node: &Node, instance: &Instance) -> Option<Log> {
    let troubled = matches!(node.unit_state.as_deref(), Some("failed" | "activating"));
    if let Some(lines) = troubled.then(|| service::said_to_systemd(host, &instance.unit)).flatten() {
        return Some(Log {
            source: format!("{} -u {}", systemd::typed("journalctl"), unit_word(&instance.unit)),
            lines,
        });
    }
    let (log, lines) = service::last_lines(host, &instance.target(), SHOWN)?;
    Some(Log { source: log, lines })
}
