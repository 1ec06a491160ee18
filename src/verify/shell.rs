//! The same proof as commands to type, for who wants to see it with their own eyes.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Options, Subject, app, chain, cli};
use crate::instance::{Instance, Upstream};
use crate::live::Cost;
use crate::runtime::Runtime;
use crate::runtime::systemd::{typed, unit_word};
use crate::secrets;
use crate::step::Step;

const KEY: &str = "redis-tp:verify:by-hand";

/// Commands that show by hand what [`super::verify`] checks, with what to expect.
pub fn shell(subject: &Subject<'_>, options: &Options) -> Vec<String> {
    let instances = subject.instances;
    let mut lines = Vec::new();
    section(&mut lines, "each one answers: PONG", instances.iter().map(|at| format!("{} PING", cli(at))));
    doors(&mut lines, instances);
    section(
        &mut lines,
        "who follows whom: role, master_link_status:up, equal offsets",
        instances.iter().map(|at| format!("{} INFO replication", cli(at))),
    );
    let mut roots: Vec<String> = instances.iter().filter_map(root_command).collect();
    roots.dedup();
    replication(&mut lines, instances, &roots);
    expiry(&mut lines, instances, &roots, options.ttl);
    machine(&mut lines, instances);
    let root = roots.first().map(String::as_str);
    for (title, commands) in app::by_hand(subject.app, options, root) {
        section(&mut lines, title, commands.into_iter());
    }
    if options.restart {
        restarts(&mut lines, instances);
    }
    section(&mut lines, "leave nothing behind", roots.iter().map(|root| format!("{root} DEL {KEY}")));
    lines
}

fn section(lines: &mut Vec<String>, title: &str, commands: impl Iterator<Item = String>) {
    let commands: Vec<String> = commands.collect();
    if !commands.is_empty() {
        lines.push(format!("# {title}"));
        lines.extend(commands);
    }
}

fn doors(lines: &mut Vec<String>, instances: &[Instance]) {
    let locked = || instances.iter().filter(|at| at.requirepass.is_some());
    let open = |at: &Instance| cli(&Instance { requirepass: None, ..at.clone() });
    let wrong = locked().map(|at| format!("REDISCLI_AUTH=wrong {} PING", open(at)));
    section(lines, "a wrong password is refused: WRONGPASS", wrong);
    // `redis-tp env` may have put the right one into the shell.
    let none = locked().map(|at| format!("env -u REDISCLI_AUTH {} PING", open(at)));
    section(lines, "no password is refused: NOAUTH", none);
}

fn replication(lines: &mut Vec<String>, instances: &[Instance], roots: &[String]) {
    let replicas = || instances.iter().filter(|at| at.upstream.is_some());
    if replicas().next().is_none() {
        return;
    }
    let set = roots.iter().map(|root| format!("{root} SET {KEY} hello EX 60"));
    section(lines, "what is written on the master …", set);
    section(lines, "… is read on each replica: hello", replicas().map(|at| format!("{} GET {KEY}", cli(at))));
    section(
        lines,
        "a replica takes no writes: READONLY",
        replicas().map(|at| format!("{} SET {KEY} from-here EX 60", cli(at))),
    );
}

fn expiry(lines: &mut Vec<String>, instances: &[Instance], roots: &[String], ttl: Duration) {
    let seconds = ttl.as_secs().max(1);
    let ask = || instances.iter().map(|at| format!("{} TTL {KEY}", cli(at)));
    let set = roots.iter().map(|root| format!("{root} SET {KEY} soon-gone EX {seconds}"));
    section(lines, "a key with a TTL counts down …", set.chain(ask()));
    let wait = std::iter::once(format!("sleep {}", seconds + 1));
    section(lines, "… and is gone: -2", wait.chain(ask()));
}

fn machine(lines: &mut Vec<String>, instances: &[Instance]) {
    let ports: Vec<String> = instances.iter().map(|at| format!("sport = :{}", at.port)).collect();
    let listeners = (!ports.is_empty()).then(|| format!("ss -Hltn '{}'", ports.join(" or ")));
    section(lines, "the addresses they listen on", listeners.into_iter());
    let files = |at: &Instance| {
        let paths = [Some(at.conf.as_path()), at.store.path(), at.logfile.as_deref()];
        let paths: Vec<String> = paths.into_iter().flatten().map(|path| path.display().to_string()).collect();
        format!("ls -ld {}", paths.join(" "))
    };
    let locked = instances.iter().any(|at| at.requirepass.is_some());
    let password = locked.then(|| format!("ls -l {}", secrets::password_file().display()));
    section(
        lines,
        "their files: the server's user's, closed to others",
        instances.iter().map(files).chain(password),
    );
    section(lines, "who keeps them running", instances.iter().map(service));
}

fn service(instance: &Instance) -> String {
    match instance.runtime {
        Runtime::Systemd => {
            format!(
                "{} show -p ActiveState,UnitFileState,MainPID {}",
                typed("systemctl"),
                unit_word(&instance.unit)
            )
        }
        Runtime::Container(program) => {
            format!("{program} ps --filter name={}", instance.container())
        }
        Runtime::Process => format!("ps -o user,pid,args -p \"$(cat {})\"", instance.pidfile.display()),
    }
}

fn restarts(lines: &mut Vec<String>, instances: &[Instance]) {
    let mut order: Vec<&Instance> = instances.iter().collect();
    order.sort_by_key(|at| Reverse(chain(instances, at).count()));
    for instance in order {
        let Some(root) = chain(instances, instance).last().and_then(root_command) else { continue };
        let restart = Step::Restart { target: instance.target(), why: String::new(), cost: Cost::default() };
        let wait = format!("until {} PING | grep -q PONG; do sleep 0.1; done", cli(instance));
        let set = std::iter::once(format!("{root} SET {KEY} still-here EX 300"));
        let get = [wait, format!("{} GET {KEY}", cli(instance))];
        section(
            lines,
            &format!("data survives a restart of {}: still-here", instance.name),
            set.chain(restart.shell()).chain(get),
        );
    }
}

/// The command that asks the master at the top of a chain, given its topmost instance on this machine.
fn root_command(instance: &Instance) -> Option<String> {
    match &instance.upstream {
        None => Some(cli(instance)),
        Some(Upstream { address, instance: None }) => {
            let auth = instance.masterauth.as_ref().map(|_| {
                format!("REDISCLI_AUTH=\"$(cat {})\" ", secrets::upstream_file(&instance.name).display())
            });
            let auth = auth.unwrap_or_default();
            Some(format!("{auth}{} {}", instance.engine.cli(), address.cli_line()))
        }
        Some(_) => None,
    }
}
