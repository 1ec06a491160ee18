//! `redis-tp backup --list`: the backups that there are.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::apply::rdb;
use crate::backup::{self, HEAD, head};
use crate::cli;
use crate::engine::Engine;
use crate::exit::Code;
use crate::host::Host;
use crate::report::backups::{Entry, lines};
use crate::report::console;

#[derive(Debug, Serialize)]
struct Json<'a> {
    schema: u32,
    backups: &'a [Entry],
}

/// Shows them, each checked; those of one instance, if it is named.
///
/// # Errors
/// They cannot be listed.
pub fn list(host: &Host, args: &cli::Backup) -> Result<Code> {
    host.catch_signals()?;
    let mut entries = Vec::new();
    for path in backup::there(host)? {
        // What somebody else put there is none of ours.
        let Some((instance, taken)) = backup::told(&path) else { continue };
        if args.name.as_ref().is_none_or(|name| *name == instance) {
            entries.push(entry(host, &path, instance.to_string(), taken));
        }
        if host.interrupted() {
            anyhow::bail!("interrupted");
        }
    }
    if args.json {
        console::json(&Json { schema: 1, backups: &entries })?;
    } else if entries.is_empty() {
        console::out(format_args!("No backups in {}.", backup::dir().display()));
        console::next(&[("redis-tp backup", "take one")]);
    } else {
        lines(&entries).into_iter().for_each(console::out);
        console::next(&[
            ("redis-tp restore FILE", "one in the place of what is there"),
            ("rm FILE", "one away; nothing else takes any"),
        ]);
    }
    let bad = entries.iter().any(|entry| entry.trouble.is_some());
    Ok(if bad { Code::Findings } else { Code::Done })
}

fn entry(host: &Host, path: &Path, instance: String, taken: String) -> Entry {
    let looked = look(host, path);
    let (keys, writer, trouble) = match looked {
        Ok((keys, writer)) => (keys, writer, None),
        Err(error) => (None, None, Some(format!("{error:#}"))),
    };
    Entry {
        instance,
        taken,
        path: path.display().to_string(),
        bytes: host.length(path),
        keys,
        writer,
        trouble,
    }
}

fn look(host: &Host, path: &Path) -> Result<(Option<u64>, Option<String>)> {
    let bytes = host.beginning(path, HEAD)?.unwrap_or_default();
    let head = head(&bytes).map_err(anyhow::Error::msg)?;
    let by_valkey = head.writer.as_ref().is_some_and(|writer| writer.starts_with("Valkey"));
    let engine = if by_valkey { Engine::Valkey } else { Engine::Redis };
    Ok((rdb::count(host, engine, path)?, head.writer))
}
