//! `redis-tp app`: the cache-aside web app, in the foreground or as a service.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::converge::{converge, whole};
use super::scene::{Scene, Wish};
use super::{shell_word, status, word};
use crate::app::supervise::supervise;
use crate::app::{self, Node, Settings};
use crate::apply;
use crate::cli;
use crate::exit::{Code, Fault};
use crate::host::Host;
use crate::http::Url;
use crate::report::console;
use crate::secrets;
use crate::topology::{APP, AppSection, Document, Source};

/// Runs the verb.
///
/// # Errors
/// See each.
pub fn run(host: &Host, args: cli::App) -> Result<Code> {
    match args {
        cli::App::Serve(args) => serve(host, &args),
        cli::App::Install(args) => install(host, &args),
        cli::App::Remove(change) => remove(host, &change),
        cli::App::Health { port } => health(host, port),
    }
}

/// Whether an app on a port of this machine is well.
fn health(host: &Host, port: u16) -> Result<Code> {
    let url = Url::local(Ipv4Addr::LOCALHOST.into(), port);
    match apply::app::health(host, &url) {
        Ok(_) => Ok(Code::Done),
        Err(trouble) => Err(Fault::new(Code::Failed, format!("no app on {url}: {trouble}")).into()),
    }
}

/// Runs the app until a signal comes.
fn serve(host: &Host, args: &cli::AppServe) -> Result<Code> {
    let settings = match (&args.config, args.redis.as_slice()) {
        (Some(file), _) => {
            let (text, name) = match file.to_str() {
                Some("-") => (Some(host.stdin()?), "standard input".to_owned()),
                _ => (host.given(file)?, file.display().to_string()),
            };
            let cure = "let redis-tp write the settings:\nredis-tp app install";
            let text = text.ok_or_else(|| Fault::refused(format!("there is no file {name}")).hint(cure))?;
            let settings =
                Settings::parse(&text).map_err(|why| Fault::refused(format!("{name}: {why}")).hint(cure))?;
            if let Some(pidfile) = &args.supervise {
                supervise(host, &text, pidfile)?;
                return Ok(Code::Done);
            }
            settings
        }
        (None, []) => {
            let scene = Scene::standing(host)?;
            let mut section = scene.topology.app.clone().unwrap_or_default();
            overlay(&mut section, &args.keys);
            Settings::of(&section, &scene.instances)
        }
        (None, servers) => {
            let password = args.password_file.as_ref().map(|file| secrets::given(host, file)).transpose()?;
            let mut section = AppSection::default();
            overlay(&mut section, &args.keys);
            let nodes = servers.iter().map(|address| Node::at(address.clone(), password.clone())).collect();
            Settings { section, nodes }
        }
    };
    app::serve(host, settings)?;
    Ok(Code::Done)
}

/// Installs the app as a service: edits `[app]` in the topology as the flags say, and converges.
fn install(host: &Host, args: &cli::AppInstall) -> Result<Code> {
    let wish = |host: &Host| {
        let mut wish = Wish::standing(host)?;
        edit(&mut wish.document, &args.keys);
        wish.refuse_nothing()?;
        Ok(wish)
    };
    let outcome = converge(host, "app install", &args.change, wish, whole(args.change.consent()))?;
    let code = outcome.finish("app install", &args.change, None)?;
    if outcome.changed && !args.change.json {
        let scene = Scene::standing(host)?;
        status::print_tree(host, &scene)?;
        if let Some(app) = &scene.app {
            let tries = tries(app);
            let rows: Vec<(&str, &str)> =
                tries.iter().map(|(command, what)| (command.as_str(), *what)).collect();
            console::next(&rows);
        }
    }
    Ok(code)
}

/// What shows the app at work: commands, and the page's address, with what each is for.
pub fn tries(app: &app::App) -> Vec<(String, &'static str)> {
    let (url, section) = (app.url(), app.section());
    let (key, answer) = match section.source {
        Source::Simulated => ("bonjour", "slow, and the second time at once"),
        // Which keys the table has, its owner knows.
        Source::Sqlite(_) => ("KEY", "the second time from the cache"),
    };
    vec![
        (format!("curl {url}/data/{key}"), answer),
        (
            format!("redis-tp cli -- TTL {}", shell_word(&format!("{}{key}", section.prefix.as_str()))),
            "how long it stays in the cache",
        ),
        (format!("{url}/"), "the same to look at, in a browser"),
        ("redis-tp bench".into(), "cold against warm, with a picture"),
    ]
}

/// Takes the service away, and `[app]` out of the topology.
fn remove(host: &Host, change: &cli::Change) -> Result<Code> {
    let wish = |host: &Host| {
        let mut wish = Wish::standing(host)?;
        wish.document.remove(APP);
        Ok(wish)
    };
    let outcome = converge(host, "app remove", change, wish, whole(change.consent()))?;
    outcome.finish("app remove", change, None)
}

/// The flags that were given, as the keys of the section.
fn given(keys: &cli::AppKeys) -> Vec<(&'static str, String)> {
    let seconds = |time: std::time::Duration| time.as_secs_f64().to_string();
    let all = [
        ("bind", keys.bind.map(|bind| bind.to_string())),
        ("port", keys.port.map(|port| port.to_string())),
        ("ttl", keys.ttl.map(seconds)),
        ("slow", keys.slow.map(seconds)),
        ("prefix", keys.prefix.as_ref().map(|prefix| prefix.as_str().to_owned())),
        ("read-from", keys.read_from.map(word)),
        ("source", keys.source.as_ref().map(ToString::to_string)),
        ("table", keys.table.as_ref().map(|table| table.as_str().to_owned())),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

fn overlay(section: &mut AppSection, keys: &cli::AppKeys) {
    for (key, value) in given(keys) {
        // A value that clap has read is one that the section takes.
        let _ = section.set(key, &value);
    }
}

/// Writes the flags into the topology's section, which is made with the port in it.
fn edit(document: &mut Document, keys: &cli::AppKeys) {
    let mut pairs = given(keys);
    if !document.has(APP) && !pairs.iter().any(|(key, _)| *key == "port") {
        pairs.insert(0, ("port", AppSection::default().port.to_string()));
    }
    for (key, value) in pairs {
        match value.is_empty() {
            true => document.unset(APP, key),
            false => document.set(APP, key, &value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::runtime::Runtime;

    #[test]
    fn what_to_try_fits_a_terminal_and_the_section() {
        let of = |pairs: &[(&str, &str)]| {
            let mut section = AppSection::default();
            pairs.iter().for_each(|(key, value)| section.set(key, value).unwrap());
            let settings = Settings { section: section.clone(), nodes: Vec::new() };
            tries(&app::App { section, settings, runtime: Runtime::Systemd, engine: Engine::Redis })
        };
        let plain = of(&[]);
        let widest = plain.iter().map(|(command, _)| command.len()).max().unwrap();
        assert!(plain.iter().all(|(_, what)| "next: ".len() + widest + 2 + what.len() <= 80), "{plain:?}");
        let other = of(&[("prefix", "lab:*"), ("source", "sqlite:/srv/lab.db"), ("port", "5001")]);
        assert_eq!(other[0].0, "curl http://127.0.0.1:5001/data/KEY");
        assert_eq!(other[1].0, "redis-tp cli -- TTL 'lab:*KEY'");
        assert!(!other[0].1.contains("slow"), "a table is not slow");
    }
}
