//! Starting and stopping the web app. It runs when it answers, whatever systemd says; and a stop lets it
//! finish what is under way.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use super::{containers, service, systemctl};
use crate::app::AppTarget;
use crate::app::service::{self as names, UNIT, USER};
use crate::conf;
use crate::exit::{Code, Fault};
use crate::facts;
use crate::facts::containers::{Seen, look};
use crate::host::{Child, Host};
use crate::http::{self, Trouble, Url};
use crate::layout;
use crate::log;
use crate::runtime::{Runtime, process, systemd};

/// How long it may take until it answers.
const READY: Duration = Duration::from_secs(10);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(2);
/// How long it may take to find a server again that was just started.
pub const MOMENT: Duration = Duration::from_millis(1500);
/// How long an end by force may take.
const KILLED: Duration = Duration::from_secs(5);
/// How long a useradd of a run that was killed may take to its end.
const ORPHAN: Duration = Duration::from_secs(10);
/// How much of its log an error looks at, in bytes.
const TAIL: u64 = 4096;

/// Starts the app, and waits until it answers.
///
/// # Errors
/// It does not, with what it said.
pub fn start(host: &Host, app: &AppTarget) -> Result<()> {
    let settings = settings(host, app)?;
    match app.runtime {
        Runtime::Systemd => {
            if let Err(error) = service::start_units(host, &[UNIT.into()]) {
                let said = said(host, app);
                // What systemctl says is where to look.
                return Err(if said.is_empty() { error } else { anyhow!("the web app ended at once{said}") });
            }
        }
        Runtime::Process if pid(host, app)?.is_none() => supervise(host, app, settings)?,
        Runtime::Process => {}
        Runtime::Container(program) => containers::start(host, program, &[app.container()])?,
    }
    await_answer(host, app)
}

/// Its settings, as they were written.
///
/// # Errors
/// Somebody took them away.
pub fn settings(host: &Host, app: &AppTarget) -> Result<String> {
    let file = app.settings_file();
    let gone = || {
        let what = format!("the web app's settings, {}, are gone", file.display());
        Fault::new(Code::Failed, what).hint("write them again:\nredis-tp apply")
    };
    Ok(host.text(&file)?.ok_or_else(gone)?)
}

/// Starts the supervisor as the app's user. The settings go by standard input: their file is root's.
fn supervise(host: &Host, app: &AppTarget, settings: String) -> Result<()> {
    let user = layout::here().ids(host, USER)?.with_context(|| format!("there is no user '{USER}'"))?;
    let run = process::run_dir(&names::pidfile());
    if host.stat(&run)?.is_none() {
        // /run is empty after a restart of the machine.
        host.directory(&run, user, 0o755)?;
    }
    let child = Child::new(&app.program)
        .args(["app", "serve", "--config", "-", "--supervise"])
        .arg(names::pidfile())
        .stdin(settings)
        .user(user);
    host.daemon(child, &names::logfile())
}

/// Waits until the app answers: the one that was started, for another may hold its port.
fn await_answer(host: &Host, app: &AppTarget) -> Result<()> {
    let began = host.now();
    let answer = || match health(host, &app.url()) {
        Ok(health) if is_its_own(host, app, &health)? => Ok(Some(())),
        _ if began.elapsed() > Duration::from_millis(300) && !is_up(host, app)? => {
            bail!("the web app ended at once{}", said(host, app))
        }
        _ => Ok(None),
    };
    match host.poll(READY, answer)? {
        Some(()) => Ok(()),
        None => bail!("the web app does not answer on {}{}", app.url(), said(host, app)),
    }
}

/// Whether an answer is of the process that was started, or of its supervisor's child.
fn is_its_own(host: &Host, app: &AppTarget, health: &serde_json::Value) -> Result<bool> {
    // In a container, its number is the container's own.
    if app.runtime.is_container() {
        return is_up(host, app);
    }
    let answers = health.get("pid").and_then(serde_json::Value::as_u64);
    let Some(answers) = answers.and_then(|pid| u32::try_from(pid).ok()) else { return Ok(false) };
    let started = pid(host, app)?;
    Ok(started.is_some() && (started == Some(answers) || started == host.parent_of(answers)))
}

/// Whether it runs and has not failed. Under systemd one that fails is started again, and is
/// `activating` in between.
///
/// # Errors
/// systemd or /proc does not tell.
pub fn is_up(host: &Host, app: &AppTarget) -> Result<bool> {
    match app.runtime {
        Runtime::Process => Ok(pid(host, app)?.is_some()),
        Runtime::Systemd => Ok(service::unit_state(host, UNIT)?.active == "active"),
        Runtime::Container(_) => Ok(seen(host, app)?.is_some_and(|seen| seen.is_up() && seen.restarts == 0)),
    }
}

/// Whether it runs, or may come up again by itself.
///
/// # Errors
/// systemd or /proc does not tell.
pub fn runs(host: &Host, app: &AppTarget) -> Result<bool> {
    match app.runtime {
        Runtime::Process => Ok(pid(host, app)?.is_some()),
        Runtime::Systemd => {
            Ok(!matches!(service::unit_state(host, UNIT)?.active.as_str(), "inactive" | "failed" | ""))
        }
        Runtime::Container(_) => Ok(seen(host, app)?.is_some_and(|seen| seen.runs())),
    }
}

/// Its process, or its supervisor where there is no systemd; none when it does not run.
///
/// # Errors
/// systemd or /proc does not tell.
pub fn pid(host: &Host, app: &AppTarget) -> Result<Option<u32>> {
    match app.runtime {
        Runtime::Process => facts::supervisor(host),
        Runtime::Systemd => Ok(Some(service::unit_state(host, UNIT)?.pid).filter(|pid| *pid > 0)),
        Runtime::Container(_) => Ok(seen(host, app)?.map(|seen| seen.pid).filter(|pid| *pid > 0)),
    }
}

fn seen(host: &Host, app: &AppTarget) -> Result<Option<Seen>> {
    match app.runtime.program() {
        Some(program) => look(host, program, &app.container()),
        None => Ok(None),
    }
}

/// Stops the app; what is under way is finished first. systemd forgets that it failed, if it did: its
/// unit may be about to go.
///
/// # Errors
/// It cannot be ended.
pub fn stop(host: &Host, app: &AppTarget) -> Result<()> {
    if runs(host, app)? {
        end(host, app)?;
    }
    match app.runtime {
        Runtime::Systemd => service::forget_failures(host, &[UNIT.into()]),
        Runtime::Process | Runtime::Container(_) => Ok(()),
    }
}

fn end(host: &Host, app: &AppTarget) -> Result<()> {
    match app.runtime {
        Runtime::Systemd => systemctl(host, &["stop", "--no-block", UNIT])?,
        Runtime::Process => {
            if let Some(pid) = pid(host, app)? {
                host.signal(pid, Signal::SIGTERM)?;
            }
        }
        Runtime::Container(program) => {
            containers::signal(host, program, &app.container(), Signal::SIGTERM)?;
        }
    }
    let gone = || Ok((!runs(host, app)?).then_some(()));
    // systemd's own deadline is the same.
    if host.poll(app.patience() + KILLED, gone)?.is_some() {
        return Ok(());
    }
    match (pid(host, app)?, app.runtime) {
        (Some(_), Runtime::Container(program)) => {
            containers::signal(host, program, &app.container(), Signal::SIGKILL)?;
        }
        (Some(pid), Runtime::Systemd | Runtime::Process) => host.signal(pid, Signal::SIGKILL)?,
        (None, _) => {}
    }
    match host.poll(KILLED, gone)? {
        Some(()) => Ok(()),
        None => bail!("the web app cannot be ended"),
    }
}

/// Whether it answers, and what stands in the way.
///
/// # Errors
/// See [`Trouble`].
pub fn health(host: &Host, url: &Url) -> Result<serde_json::Value, Trouble> {
    let answer = http::get(host, url, "/healthz", LOOK)?;
    let strange = || Trouble::Other("what answers is another program".into());
    let health: serde_json::Value = serde_json::from_str(&answer.text()).map_err(|_| strange())?;
    match health.get("app").and_then(serde_json::Value::as_str) {
        Some("redis-tp") => Ok(health),
        _ => Err(strange()),
    }
}

/// The master that it has, as it says itself, by this time at the latest.
pub fn master(host: &Host, url: &Url, patience: Duration) -> Option<String> {
    host.poll(patience, || Ok(ready(host, url))).ok().flatten()
}

fn ready(host: &Host, url: &Url) -> Option<String> {
    let answer = http::get(host, url, "/readyz", LOOK).ok().filter(|answer| answer.status == 200)?;
    let ready: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    Some(ready.get("master")?.as_str()?.to_owned())
}

/// The last lines of what it said, for an error.
fn said(host: &Host, app: &AppTarget) -> String {
    let lines = last_lines(host, app, 4);
    if lines.is_empty() { String::new() } else { format!("\nit said:\n  {}", lines.join("\n  ")) }
}

/// The last lines of what it said, secrets masked; those that tell, if there are many.
pub fn last_lines(host: &Host, app: &AppTarget, count: usize) -> Vec<String> {
    let text = match app.runtime {
        Runtime::Container(program) => {
            containers::logs(host, program, &app.container(), 10 * count).join("\n")
        }
        Runtime::Systemd => service::said_to_systemd(host, UNIT).unwrap_or_default().join("\n"),
        Runtime::Process => {
            let owner = layout::here().ids(host, USER).ok().flatten().map(|user| user.uid);
            host.tail(&names::logfile(), TAIL, owner).unwrap_or_default()
        }
    };
    log::telling(&conf::redact(&text), count).into_iter().map(Into::into).collect()
}

/// Makes the user, where there is no systemd to make one.
///
/// # Errors
/// There is no useradd, or it fails.
pub fn make_user(host: &Host, name: &str) -> Result<()> {
    if host.user(name)?.is_some() {
        return Ok(());
    }
    run(host, Child::new("useradd").args(names::USERADD).arg(name))
}

/// Takes the user away.
///
/// # Errors
/// There is no userdel, or it fails; interrupted.
pub fn remove_user(host: &Host, name: &str) -> Result<()> {
    // A useradd outlives a run that is killed, and its user would come afterwards.
    host.poll(ORPHAN, || Ok((!is_being_made(host, name)).then_some(())))?;
    if host.user(name)?.is_none() {
        return Ok(());
    }
    run(host, Child::new("userdel").arg(name))
}

fn is_being_made(host: &Host, name: &str) -> bool {
    let pids = host.list(Path::new("/proc")).unwrap_or_default();
    let mut processes = pids.iter().filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
    processes.any(|pid| {
        let line =
            host.read(&Path::new("/proc").join(pid).join("cmdline")).ok().flatten().unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.next().is_some_and(|program| program.ends_with(b"useradd"))
            && words.any(|word| word == name.as_bytes())
    })
}

fn run(host: &Host, child: Child) -> Result<()> {
    let done = host.run(child)?;
    match done.ok() {
        true => Ok(()),
        false => Err(Fault::new(Code::Failed, done.tail()).into()),
    }
}

/// What a person types to see what it said.
pub fn log_command(app: &AppTarget) -> String {
    match app.runtime {
        Runtime::Container(program) => containers::logs_command(program, &app.container()),
        Runtime::Systemd => format!("{} -u {}", systemd::typed("journalctl"), systemd::unit_word(UNIT)),
        Runtime::Process => format!("tail {}", names::logfile().display()),
    }
}
