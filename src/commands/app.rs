//! `redis-tp app`: the cache-aside web app, in the foreground or as a service.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::app::{self, Node, Settings};
use crate::cli;
use crate::exit::Code;
use crate::host::Host;
use crate::secret::Secret;
use crate::topology::AppSection;

/// Runs the verb.
///
/// # Errors
/// See each.
pub fn run(host: &Host, args: cli::App) -> Result<Code> {
    match args {
        cli::App::Serve(args) => serve(host, *args),
        cli::App::Install(_) | cli::App::Remove(_) => bail!("under work"),
    }
}

fn serve(host: &Host, args: cli::AppServe) -> Result<Code> {
    if let Some(file) = &args.config {
        let text = host.text(file)?.with_context(|| format!("{} is not there", file.display()))?;
        let settings = Settings::parse(&text).map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
        app::serve(host, settings)?;
        return Ok(Code::Done);
    }
    let password = match &args.password_file {
        Some(file) => {
            let text = host.text(Path::new(file))?.with_context(|| format!("{file} is not there"))?;
            Some(Secret::parse(&text).map_err(|why| anyhow::anyhow!("{file} {why}"))?)
        }
        None => None,
    };
    let (keys, mut section) = (args.keys, AppSection::default());
    section.bind = keys.bind.unwrap_or(section.bind);
    section.port = keys.port.unwrap_or(section.port);
    section.ttl = keys.ttl.unwrap_or(section.ttl);
    section.slow = keys.slow.unwrap_or(section.slow);
    section.prefix = keys.prefix.unwrap_or(section.prefix);
    section.read_from = keys.read_from.unwrap_or(section.read_from);
    section.source = keys.source.unwrap_or(section.source);
    section.table = keys.table.unwrap_or(section.table);
    let nodes = args.redis.into_iter().map(|at| Node::at(at, password.clone())).collect();
    app::serve(host, Settings { section, nodes })?;
    Ok(Code::Done)
}
