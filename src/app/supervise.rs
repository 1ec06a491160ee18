//! The supervisor, where there is no systemd: it starts the app again when it ends by itself, and ends
//! with it when it is asked to.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::exit::Fault;
use crate::host::{Child, Host};
use crate::report::console;

/// Between an end and the next start, at first; twice as long after each further one.
const PAUSE: Duration = Duration::from_millis(200);
/// Between an end and the next start, at most.
const LONGEST: Duration = Duration::from_secs(5);
/// How long the app has to run so that the next pause is the first one again.
const STEADY: Duration = Duration::from_secs(30);
/// One that ends by itself sooner than this at its first start has refused to run.
const BORN: Duration = Duration::from_secs(2);
/// How often the child and the signals are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Keeps the app running until a signal comes. `settings` are handed to each of its processes.
///
/// # Errors
/// The pid file cannot be written; the app ended at its first start.
pub fn supervise(host: &Host, settings: &str, pidfile: &Path) -> Result<()> {
    host.catch_signals()?;
    host.new_session()?;
    host.note_pid(pidfile)?;
    let kept = keep(host, settings);
    host.remove(pidfile)?;
    kept
}

fn keep(host: &Host, settings: &str) -> Result<()> {
    let (mut pause, mut first) = (PAUSE, true);
    while !host.interrupted() {
        let began = host.now();
        let program = host.own_program()?;
        let app = Child::new(program).args(["app", "serve", "--config", "-"]).stdin(settings).dies_with_us();
        let mut child = host.spawn(app)?;
        let code = loop {
            if let Some(status) = child.try_wait().context("cannot wait for the app")? {
                break status.code();
            }
            if host.interrupted() {
                host.signal(child.id(), Signal::SIGTERM)?;
                // It has a deadline of its own.
                child.wait().context("cannot wait for the app")?;
                return Ok(());
            }
            host.sleep(LOOK);
        };
        let lived = began.elapsed();
        if first && code.is_some() && lived < BORN {
            // What is wrong will be wrong again, and somebody waits to hear of it.
            return Err(Fault::refused("the app ended at its first start").into());
        }
        if lived > STEADY {
            pause = PAUSE;
        }
        first = false;
        let how = code.map_or_else(|| "by a signal".to_owned(), |code| format!("with {code}"));
        console::err(format_args!("the app ended {how}; it is started again"));
        host.sleep(pause);
        pause = (pause * 2).min(LONGEST);
    }
    Ok(())
}
