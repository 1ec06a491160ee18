//! `redis-tp install`: the engine and a master.

use std::collections::BTreeMap;

use anyhow::Result;

use super::converge::{converge, whole};
use super::scene::Wish;
use super::up::{set_image, set_tls};
use super::{status, word};
use crate::cli;
use crate::engine::MASTER;
use crate::exit::Code;
use crate::host::Host;
use crate::instance::yes_no;
use crate::report::console;
use crate::secrets;
use crate::topology::{Binds, Document, EMPTY};

/// Edits `[master]` in the topology as the flags say, and converges.
///
/// # Errors
/// See [`converge`].
pub fn run(host: &Host, args: cli::Install) -> Result<Code> {
    let wish = |host: &Host| {
        let mut wish = Wish::standing_or(host, EMPTY)?;
        let port = args.port.map(|port| port.to_string());
        match (port, wish.document.has(MASTER)) {
            (Some(port), _) => wish.document.set(MASTER, "port", &port),
            (None, false) => wish.document.set(MASTER, "port", "6379"),
            (None, true) => {}
        }
        if let Some(engine) = args.engine {
            wish.document.set("redis-tp", "engine", &word(engine));
        }
        if let Some(runtime) = args.runtime {
            wish.document.set("redis-tp", "runtime", &word(runtime));
        }
        if args.plain {
            wish.document.set("redis-tp", "users", "plain");
        }
        set_tls(&mut wish.document, args.tls, args.no_tls);
        set_image(&mut wish, args.image.as_ref())?;
        access(&mut wish.document, MASTER, &args.access)?;
        if let Some(source) = &args.access.password_file {
            wish.password = Some(secrets::given(host, source)?);
            wish.document.unset("redis-tp", "password");
        }
        if args.no_password {
            wish.document.set("redis-tp", "password", "none");
        }
        Ok(wish)
    };
    let outcome = converge(host, "install", &args.change, wish, whole(args.change.consent()))?;
    let code = outcome.finish("install", &args.change, None)?;
    if outcome.changed && !args.change.json {
        let add = status::print_tree_after(host).map(|scene| scene.replica_add());
        let add = add.as_deref().map(|command| (command, "one more replica"));
        let others = [("redis-tp verify", "prove that it works"), ("redis-tp cli", "talk to it")];
        console::next(&add.into_iter().chain(others).collect::<Vec<_>>());
    }
    Ok(code)
}

/// Writes the flags that say who may reach an instance, and `--set`, into its section.
///
/// # Errors
/// A secret on the command line.
pub fn access(document: &mut Document, section: &str, access: &cli::Access) -> Result<()> {
    if let Some(Binds(binds)) = &access.bind {
        let words: Vec<String> = binds.iter().map(ToString::to_string).collect();
        document.set(section, "bind", &words.join(" "));
    }
    if let Some(on) = access.protected_mode {
        document.set(section, "protected-mode", yes_no(on));
    }
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in access.settings()? {
        all.entry(key).or_default().push(value);
    }
    for (key, values) in all {
        document.set_all(section, &key, &values);
    }
    Ok(())
}
