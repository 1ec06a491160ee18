//! `redis-tp app`: the cache-aside web app, in the foreground or as a service.

use anyhow::{Result, bail};

use crate::cli;
use crate::exit::Code;
use crate::host::Host;

/// Runs the verb.
///
/// # Errors
/// See each.
pub fn run(_: &Host, args: cli::App) -> Result<Code> {
    match args {
        cli::App::Serve(_) | cli::App::Install(_) | cli::App::Remove(_) => bail!("under work"),
    }
}
