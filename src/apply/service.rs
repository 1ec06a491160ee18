//! Starting, stopping and waiting. "Active" proves nothing, an answer does; and a stop has a
//! deadline and a way out, for a server that cannot save refuses to end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::{Event, Listener, containers, ids, systemctl};
use crate::conf;
use crate::engine::Engine;
use crate::exit::Fault;
use crate::facts::containers::look;
use crate::facts::{self, Role, parse};
use crate::host::Host;
use crate::instance::Target;
use crate::layout;
use crate::log;
use crate::runtime::{Program, Runtime, container, process, systemd};
use crate::software;
use crate::state::State;
use crate::step::Owner;
use crate::store::Store;
use crate::wire::{Address, Trouble};

/// How long a server may take until it answers.
const READY: Duration = Duration::from_secs(30);
/// How long a daemon may take until its pid file is there.
const PIDFILE: Duration = Duration::from_secs(1);
/// How long a daemon that left none may take to answer.
const BORN: Duration = Duration::from_secs(3);
/// How often a container that does not answer is looked at.
const GLANCE: Duration = Duration::from_millis(400);
/// How many lines of what a server said an error has.
const SAID: usize = 4;
/// How long it may take to read its data once it answers.
const LOADED: Duration = Duration::from_secs(900);
/// How long a link may make no progress.
const LINK: Duration = Duration::from_secs(30);
/// How long a stop may take before the way out is taken. A server that saves does not answer; one
/// that answers after this time has refused to end.
const STOP: Duration = Duration::from_secs(3);
/// How long a server may take to hear of a signal: with `hz 1` it looks once a second (server.c,
/// `serverCron`).
const HEARD: Duration = Duration::from_millis(1100);
/// How long a server may wait for its replicas before it ends, with room to spare.
const DRAIN: Duration = Duration::from_secs(15);
/// How long a save at the end may take.
const SAVE: Duration = Duration::from_secs(600);

/// Starts instances, masters first, and waits until each answers.
///
/// # Errors
/// One does not, with the last lines of its log.
pub fn start(host: &Host, targets: &[Target]) -> Result<()> {
    // A replica that comes first finds nobody to follow, and asks again only after a second.
    let (replicas, masters): (Vec<&Target>, Vec<&Target>) = targets.iter().partition(|target| target.replica);
    if let Some(program) = targets.first().and_then(|target| target.runtime.program()) {
        // One after the other they start in any case: one command for all of them.
        let all: Vec<&Target> = masters.into_iter().chain(replicas).collect();
        return start_containers(host, program, &all);
    }
    start_together(host, &masters)?;
    start_together(host, &replicas)
}

fn start_together(host: &Host, targets: &[&Target]) -> Result<()> {
    let units: Vec<String> = targets
        .iter()
        .filter(|target| target.runtime == Runtime::Systemd)
        .map(|target| target.unit())
        .collect();
    if !units.is_empty()
        && let Err(error) = start_units(host, &units)
    {
        bail!("{error:#}{}", why_not(host, targets)?);
    }
    for target in targets.iter().filter(|target| target.runtime == Runtime::Process) {
        start_process(host, target)?;
    }
    targets.iter().try_for_each(|target| await_ready(host, target))
}

/// Starts units; one that systemd takes for failing, because it failed before or was started often of late
/// (`StartLimitBurst`), all the same.
///
/// # Errors
/// One does not start.
pub fn start_units(host: &Host, units: &[String]) -> Result<()> {
    let all = |verb| -> Vec<&str> { [verb].into_iter().chain(units.iter().map(String::as_str)).collect() };
    forget_failures(host, units)?;
    let first = systemctl(host, &all("start"));
    match &first {
        Err(error) if error.to_string().contains("too often") => {
            systemctl(host, &all("reset-failed")).and_then(|()| systemctl(host, &all("start")))
        }
        _ => first,
    }
}

/// Starts containers in one go; the engine starts them in this order.
fn start_containers(host: &Host, program: Program, targets: &[&Target]) -> Result<()> {
    let names: Vec<String> = targets.iter().map(|target| target.container()).collect();
    containers::start(host, program, &names)?;
    targets.iter().try_for_each(|target| await_ready(host, target))
}

/// What those of some instances say that did not start.
fn why_not(host: &Host, targets: &[&Target]) -> Result<String> {
    let mut why = String::new();
    for target in targets {
        if target.runtime == Runtime::Systemd && unit_state(host, &target.unit())?.active == "active" {
            continue;
        }
        // One that failed before it had read its file said it to systemd.
        match said_to_systemd(host, &target.unit()).filter(|_| target.runtime == Runtime::Systemd) {
            Some(lines) => why += &format!("\n{} said:\n  {}", target.name, lines.join("\n  ")),
            None => why += &log_lines(host, target),
        }
    }
    Ok(why)
}

/// Lets systemd forget that units failed: after some failures in a row it would refuse the start, even
/// when the cause is gone.
pub fn forget_failures(host: &Host, units: &[String]) -> Result<()> {
    let known = systemd::show(host, units)?;
    let failed = known.iter().filter(|(_, unit)| unit.active == "failed").map(|(name, _)| name.as_str());
    let args: Vec<&str> = ["reset-failed"].into_iter().chain(failed).collect();
    if args.len() == 1 { Ok(()) } else { systemctl(host, &args) }
}

fn start_process(host: &Host, target: &Target) -> Result<()> {
    if runs(host, target)? {
        return Ok(());
    }
    let engine = target.engine;
    let user = ids(host, Owner::Server(engine))?;
    let server = software::find(host, engine, engine.server())
        .with_context(|| format!("{} is not on PATH", engine.server()))?;
    // systemd takes a unit's run directory away with it; without one the server would leave no pid file,
    // and no run of ours would find it again.
    let run = process::run_dir(&target.pidfile());
    if host.stat(&run)?.is_none() {
        host.directory(&run, user, 0o2755)?;
    }
    let done = host.run(server.child().args([target.conf()]).user(user).private_files())?;
    if !done.ok() {
        bail!("{} did not start: {}", target.name, conf::redact(&done.tail()));
    }
    // The daemon writes its pid file a moment after its parent has ended. Until then nobody could stop it,
    // so this waits also when the run is interrupted.
    let end = host.now() + PIDFILE;
    while !runs(host, target)? && host.now() < end {
        host.sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits until a server answers and has read its data.
fn await_ready(host: &Host, target: &Target) -> Result<()> {
    let ping = || match target.connect(host).and_then(|mut wire| wire.ping()) {
        Ok(()) | Err(Trouble::NoAuth | Trouble::WrongPassword) => Some(true),
        Err(Trouble::Loading) => Some(false),
        Err(_) => None,
    };
    let start = host.now();
    let mut looked = Duration::ZERO;
    let answer = || match ping() {
        None if target.runtime == Runtime::Process && start.elapsed() > BORN && !runs(host, target)? => {
            bail!("{} ended at once{}", target.name, log_lines(host, target))
        }
        None if target.runtime.is_container() && start.elapsed() > looked + GLANCE => {
            looked = start.elapsed();
            still_runs(host, target)?;
            Ok(None)
        }
        answer => Ok(answer),
    };
    let loaded = match host.poll(READY, answer)? {
        Some(true) => true,
        Some(false) => host.poll(LOADED, || Ok((ping() == Some(true)).then_some(())))?.is_some(),
        None => false,
    };
    if !loaded {
        let why = match target.connect(host).and_then(|mut wire| wire.ping()) {
            Err(Trouble::Tls(said) | Trouble::Untrusted(said)) => format!(": {said}"),
            _ => String::new(),
        };
        bail!("{} does not answer on {}{why}{}", target.name, target.address, log_lines(host, target));
    }
    Ok(())
}

/// A container that fails is started again and again, and is never ready.
fn still_runs(host: &Host, target: &Target) -> Result<()> {
    let Some(program) = target.runtime.program() else { return Ok(()) };
    match look(host, program, &target.container())? {
        Some(seen) if seen.is_up() && seen.restarts == 0 => Ok(()),
        _ => Err(containers::ended(host, program, &target.container()).into()),
    }
}

/// Whether an instance runs.
pub fn runs(host: &Host, target: &Target) -> Result<bool> {
    match target.runtime {
        Runtime::Process => Ok(pid(host, target)?.is_some()),
        Runtime::Systemd => {
            let state = unit_state(host, &target.unit())?;
            Ok(!matches!(state.active.as_str(), "inactive" | "failed" | ""))
        }
        Runtime::Container(program) => {
            Ok(look(host, program, &target.container())?.is_some_and(|seen| seen.runs()))
        }
    }
}

/// A unit as systemd has it; an empty one where it knows none.
///
/// # Errors
/// systemd does not answer.
pub fn unit_state(host: &Host, unit: &str) -> Result<facts::Unit> {
    Ok(systemd::show(host, &[unit.to_owned()])?.remove(unit).unwrap_or_default())
}

/// The process of an instance; none when it does not run.
pub fn pid(host: &Host, target: &Target) -> Result<Option<u32>> {
    match target.runtime {
        Runtime::Systemd => Ok(Some(unit_state(host, &target.unit())?.pid).filter(|pid| *pid > 0)),
        Runtime::Process => {
            let state = State::load(host)?;
            facts::pid_of(host, target, state.instances.get(&target.name))
        }
        Runtime::Container(program) => {
            let seen = look(host, program, &target.container())?;
            Ok(seen.map(|seen| seen.pid).filter(|pid| *pid > 0))
        }
    }
}

/// Waits for a server that was started and has left no pid file yet: nobody could find it, nor end it. A
/// run that was killed may leave such a one.
///
/// # Errors
/// It is still starting after a long time.
pub fn await_born(host: &Host, target: &Target) -> Result<()> {
    if target.runtime != Runtime::Process {
        return Ok(());
    }
    let Some(user) = layout::here().ids(host, target.engine.user())? else { return Ok(()) };
    let settled = || Ok((runs(host, target)? || !facts::is_starting(host, target, user.uid)?).then_some(()));
    match host.poll(READY, settled)? {
        Some(()) => Ok(()),
        None => bail!("{} is still starting, and has left no pid file", target.name),
    }
}

/// Makes sure that no server of the engine's user is left on an instance's port: one that cannot be told
/// to be the instance is not ended, but then the instance is not gone either.
///
/// # Errors
/// There is one.
pub fn assert_gone(host: &Host, target: &Target) -> Result<()> {
    let Some(user) = layout::here().ids(host, target.engine.user())? else { return Ok(()) };
    if target.runtime != Runtime::Process {
        return Ok(());
    }
    let port = target.address.port;
    let left = facts::listening(host, &[], |other| other == port)?.into_iter().find_map(|listener| {
        let owner = listener.owner.filter(|owner| owner.unit.is_none() || layout::here().login.is_some())?;
        facts::is_server(host, owner.pid, target.engine, user.uid).then_some(owner.pid)
    });
    match left {
        None => Ok(()),
        Some(pid) => Err(Fault::new(
            crate::exit::Code::Failed,
            format!("a {} (pid {pid}) still holds port {port} of {}", target.engine.server(), target.name),
        )
        .hint(format!(
            "nothing proves that it is the instance's; look, and end it yourself:\nps -fp {pid}\nkill {pid}"
        ))
        .into()),
    }
}

/// Why a server could not save at its end, as far as can be seen without asking it to: it would refuse
/// to end, and under systemd be left half stopped.
fn cannot_save(host: &Host, target: &Target) -> Option<String> {
    // Its number and its directory are those of the container.
    if target.runtime.is_container() {
        return None;
    }
    let mut wire = target.connect(host).ok()?;
    let config = wire.config()?;
    let saves = config.get("save").is_some_and(|save| !save.is_empty());
    let dir = config.get("dir").filter(|_| saves)?;
    let pid = wire.info("server").ok()?.get("process_id")?.clone();
    let user = layout::here().ids(host, target.engine.user()).ok()??;
    // As the server sees it: its unit may have mounted the directory read-only.
    let seen = PathBuf::from(format!("/proc/{pid}/root{dir}"));
    match host.could_write(&seen, user) {
        Ok(false) => Some(format!("{} cannot save its data: it may not write to {dir}", target.name)),
        _ => None,
    }
}

/// Stops an instance. With `lose`, one that cannot save goes without.
///
/// # Errors
/// It refuses to end, and what it holds may not be lost.
pub fn stop(host: &Host, target: &Target, lose: bool) -> Result<()> {
    if !runs(host, target)? {
        return Ok(());
    }
    if let Some(why) = cannot_save(host, target).filter(|_| !lose) {
        return Err(unsaved(target, &why).into());
    }
    ask_to_end(host, target)?;
    let gone = || Ok((!runs(host, target)?).then_some(()));
    if host.poll(STOP, gone)?.is_some() {
        return Ok(());
    }
    let asked = host.now();
    let ended = host.poll(SAVE, || match runs(host, target)? {
        false => Ok(Some(true)),
        true => Ok(has_refused(host, target, asked.elapsed()).then_some(false)),
    })?;
    if ended == Some(true) {
        return Ok(());
    }
    if !lose {
        let why =
            format!("{} refuses to stop: it cannot save its data{}", target.name, log_lines(host, target));
        return Err(unsaved(target, &why).into());
    }
    end_unsaved(host, target)
}

fn ask_to_end(host: &Host, target: &Target) -> Result<()> {
    match target.runtime {
        // Debian's units have no deadline of their own (TimeoutStopSec=0): ours must not wait in it.
        Runtime::Systemd => systemctl(host, &["stop", "--no-block", &target.unit()]),
        Runtime::Process => match pid(host, target)? {
            Some(pid) => host.signal(pid, Signal::SIGTERM),
            None => Ok(()),
        },
        // Not `stop`: it would kill a server that cannot save.
        Runtime::Container(program) => {
            containers::signal(host, program, &target.container(), Signal::SIGTERM)
        }
    }
}

/// Whether a process of an instance lives on: one that was asked to end, just before a run was interrupted,
/// may live for a moment, or for as long as it saves.
///
/// # Errors
/// Its runtime does not answer.
pub fn will_stay(host: &Host, target: &Target, lives: impl Fn() -> Result<bool>) -> Result<bool> {
    let asked = host.now();
    let settled = host.poll(SAVE, || {
        if !lives()? {
            return Ok(Some(false));
        }
        let since = asked.elapsed();
        Ok((since > HEARD && has_refused(host, target, since)).then_some(true))
    })?;
    Ok(settled.unwrap_or(true))
}

fn unsaved(target: &Target, why: &str) -> Fault {
    Fault::new(crate::exit::Code::Failed, why).hint(format!(
        "make room, or give it its directory back:\nredis-tp check\nredis-tp service stop {0} --force    # lets it go without saving",
        target.name
    ))
}

/// Whether a server that was asked to end goes on as if nothing were. While it saves it does not answer;
/// while it waits for its replicas (from 7.0, `shutdown-timeout`, 10 s by default) it says so.
fn has_refused(host: &Host, target: &Target, since: Duration) -> bool {
    let info = target.connect(host).and_then(|mut wire| wire.info("server"));
    match info {
        Ok(info) => !info.contains_key("shutdown_in_milliseconds"),
        // It answers, but will not tell us: its password is another one just now.
        Err(Trouble::NoAuth | Trouble::WrongPassword) => since > DRAIN,
        Err(_) => false,
    }
}

/// Ends a server without a save: told to keep nothing, it ends at the next SIGTERM; one that does not
/// listen to us is killed.
fn end_unsaved(host: &Host, target: &Target) -> Result<()> {
    forget_data(host, target);
    let gone = || Ok((!runs(host, target)?).then_some(()));
    // Looked for anew before each signal: by then the number may be another process's.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let Some(pid) = pid(host, target)? else { break };
        match target.runtime {
            Runtime::Container(program) => {
                containers::signal(host, program, &target.container(), signal)?;
            }
            Runtime::Systemd | Runtime::Process => host.signal(pid, signal)?,
        }
        if host.poll(STOP, gone)?.is_some() {
            return Ok(());
        }
    }
    match host.poll(STOP, gone)? {
        Some(()) => Ok(()),
        None => bail!("{} cannot be ended", target.name),
    }
}

/// Tells a server to save nothing when it ends.
pub fn forget_data(host: &Host, target: &Target) {
    if let Ok(mut wire) = target.connect(host) {
        // It may have another password, or no CONFIG; then the signal has to do.
        let _ = wire.ask::<()>(&["CONFIG", "SET", "save", ""]);
        let _ = wire.ask::<()>(&["CONFIG", "SET", "appendonly", "no"]);
    }
}

/// Where an instance keeps its data, by its file.
pub fn store(host: &Host, target: &Target) -> Option<Store> {
    if let Runtime::Container(program) = target.runtime {
        let volume = container::volume(target.engine, target.name.as_str());
        return Some(Store::Volume { program, volume });
    }
    conf_of(host, target).word("dir").map(|dir| Store::Path(dir.into()))
}

pub(super) fn conf_of(host: &Host, target: &Target) -> conf::Conf {
    let text = host.text(&target.conf()).ok().flatten().unwrap_or_default();
    conf::Conf::parse(&text).unwrap_or_default()
}

/// Waits until a replica's link is up. A first sync of a large master takes its time; only standing
/// still is a failure.
///
/// # Errors
/// No link and no progress, with the reason out of the replica's log.
pub fn await_link(host: &Host, target: &Target, master: &Address, tell: Listener<'_>) -> Result<()> {
    let mut seen = String::new();
    loop {
        let mut progress = String::new();
        let linked = host.poll(LINK, || {
            let Ok(mut wire) = target.connect(host) else {
                return Ok(None);
            };
            let Ok(info) = wire.info("replication") else { return Ok(None) };
            if matches!(parse::role(&info), Role::Replica { up: true, .. }) {
                return Ok(Some(true));
            }
            progress = info
                .get("master_sync_read_bytes")
                .or(info.get("master_sync_left_bytes"))
                .cloned()
                .unwrap_or_default();
            Ok((progress != seen && !progress.is_empty() && progress != "0").then_some(false))
        })?;
        match linked {
            Some(true) => return Ok(()),
            Some(false) => {
                if seen.is_empty() {
                    tell(Event::Waiting(&format!("{} copies the data of {master}", target.name)));
                }
                seen = progress;
                host.sleep(Duration::from_millis(200));
            }
            None => bail!("{} has no link to {master}{}", target.name, log_lines(host, target)),
        }
    }
}

/// The last lines of an instance's log, for an error: what is wrong is mostly there.
pub fn log_lines(host: &Host, target: &Target) -> String {
    let Some((file, lines)) = last_lines(host, target, 10 * SAID) else { return String::new() };
    let text = lines.join("\n");
    format!("\n{file} has:\n  {}", log::telling(&text, SAID).join("\n  "))
}

/// Whose a log has to be before root prints it. Another user sees no more through a link than without.
pub fn log_owner(host: &Host, engine: Engine) -> Result<Option<u32>> {
    let user = layout::here().ids(host, engine.user())?.map(|user| user.uid);
    Ok(user.filter(|_| host.euid() == 0))
}

/// Where an instance's log is, and its last lines, secrets masked; none where it has no log, or an empty one.
pub fn last_lines(host: &Host, target: &Target, count: usize) -> Option<(String, Vec<String>)> {
    if let Runtime::Container(program) = target.runtime {
        let name = target.container();
        let lines = containers::logs(host, program, &name, count);
        return (!lines.is_empty()).then(|| (containers::logs_command(program, &name), lines));
    }
    let text = host.text(&target.conf()).ok().flatten().unwrap_or_default();
    let conf = conf::Conf::parse(&text).unwrap_or_default();
    let log = conf.word("logfile").map(PathBuf::from)?;
    // A line has some hundred bytes; five times that leaves room.
    // The path is out of a file that the server's user can write.
    let owner = log_owner(host, target.engine).ok()?;
    let tail = conf::redact(&host.tail(&log, 512 * count as u64, owner).unwrap_or_default());
    let mut lines: Vec<String> =
        tail.lines().rev().filter(|line| !line.trim().is_empty()).take(count).map(str::to_owned).collect();
    lines.reverse();
    (!lines.is_empty()).then(|| (log.display().to_string(), lines))
}

/// What a server wrote to its standard error at its last start; none if that is nothing.
pub fn said_to_systemd(host: &Host, unit: &str) -> Option<Vec<String>> {
    let journalctl = host.which("journalctl")?;
    let args = ["--no-pager", "--quiet", "--boot", "--output=cat", "--lines=50", "--unit", unit];
    let done = host.run(systemd::child(journalctl).args(args)).ok()?;
    last_start(&done.stdout, unit)
}

/// The server's own lines behind the last `Starting …` of systemd.
fn last_start(journal: &str, unit: &str) -> Option<Vec<String>> {
    let redacted = conf::redact(journal);
    let lines: Vec<&str> = redacted.lines().collect();
    let start = lines.iter().rposition(|line| line.starts_with("Starting "))?;
    let systemd = ["Starting ", "Started ", "Stopping ", "Stopped ", "Failed to start ", unit];
    let said: Vec<String> = lines
        .into_iter()
        .skip(start)
        .filter(|line| !line.trim().is_empty() && !systemd.iter().any(|word| line.starts_with(word)))
        .map(str::to_owned)
        .collect();
    let last = said.get(said.len().saturating_sub(SAID)..).unwrap_or_default();
    (!last.is_empty()).then(|| last.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_start_is_told() {
        let journal = "Starting redis-server.service - store...\nold complaint\nFailed to start redis-server.service.\nStarting redis-server.service - store...\n\n*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line 3\n>>> 'requirepass hunter2 x'\nwrong number of arguments\nredis-server.service: Main process exited\nFailed to start redis-server.service - store.\n";
        let said = last_start(journal, "redis-server.service").unwrap().join("\n");
        assert!(said.ends_with("wrong number of arguments") && !said.contains("old"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(last_start("Starting a\na.service: x\n", "a.service"), None);
    }
}
