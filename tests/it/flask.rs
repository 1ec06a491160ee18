//! The lab's own application, Flask in front of Redis: a client of the contract that is not ours.

use std::env;
use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::machine::{Init, Machine, Out, Release, Running, cache_dir};
use crate::story::bare;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flask");

/// How the application is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// As a student runs it: `python3 app.py`, a thread a request.
    Flask,
    /// As it is served: gunicorn with two workers.
    Gunicorn,
}

/// A machine with master and replica, and the program on it.
pub fn pair(release: Release, init: Init) -> Option<Machine> {
    let machine = bare(release, init)?;
    machine.run("redis-tp install").ok();
    machine.run("redis-tp replica add --port 6380").ok();
    Some(machine)
}

/// The same, where there is Flask to run beside it.
pub fn provisioned() -> Option<Machine> {
    if !cache_dir().join("flask/.stamp").exists() {
        let reason = "no virtual environment with Flask; `tests/prepare-flask` makes it";
        assert!(env::var_os("REDIS_TP_TEST_FULL").is_none_or(|full| full != "1"), "{reason}");
        let thread = std::thread::current();
        // Not eprintln!: the test harness would swallow that, as the test passes.
        let _ = writeln!(io::stderr(), "skipped {}: {reason}", thread.name().unwrap_or("a test"));
        return None;
    }
    pair(Release::Bookworm, Init::Systemd)
}

/// Starts the application, or a variant of it that lies in `dir`, and waits until it listens.
pub fn serve(machine: &Machine, server: Server, dir: &str, env: &[(&str, &str)]) -> Running {
    let bin = cache_dir().join("flask/bin");
    let program = |name: &str| bin.join(name).to_string_lossy().into_owned();
    let (python, gunicorn, file) = (program("python3"), program("gunicorn"), format!("{dir}/app.py"));
    let argv = match server {
        Server::Flask => vec![python.as_str(), &file],
        Server::Gunicorn => {
            vec![&gunicorn, "--workers", "2", "--bind", "127.0.0.1:5000", "--chdir", dir, "app:app"]
        }
    };
    let password = machine.read("/etc/redis-tp/password");
    let mut all =
        vec![("REDIS_PASSWORD", password.trim()), ("PYTHONDONTWRITEBYTECODE", "1"), ("HOME", "/nonexistent")];
    all.extend_from_slice(env);
    let mut app = machine.spawn_beside(&argv, &all);
    for _ in 0..3000 {
        if !machine.run("ss -Hltn 'sport = :5000'").stdout.is_empty() {
            return app;
        }
        assert!(app.is_running(), "{}", app.said());
        sleep(Duration::from_millis(10));
    }
    panic!("it does not listen: {}", app.said());
}

/// Ends the application in peace, with its workers.
pub fn end(mut app: Running) {
    app.signal(Signal::SIGTERM);
    app.wait();
}

/// What `verify --json` found: `id result` a line.
pub fn results(out: &Out) -> Vec<(String, String)> {
    let json: serde_json::Value = serde_json::from_str(&out.stdout).unwrap_or_else(|_| panic!("{out}"));
    let text = |check: &serde_json::Value, name: &str| check[name].as_str().unwrap().to_owned();
    json["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["id"].as_str().unwrap().starts_with("app-"))
        .map(|check| (text(check, "id"), text(check, "result")))
        .collect()
}

fn passes_all_but(out: &Out, skipped: &[&str]) {
    let ids = ["app-cold", "app-warm", "app-key", "app-ttl", "app-herd", "app-gone", "app-again"];
    let wanted = |id: &str| if skipped.contains(&id) { "skip" } else { "pass" };
    let wanted: Vec<_> = ids.map(|id| (id.to_owned(), wanted(id).to_owned())).into();
    assert_eq!(results(out), wanted, "{out}");
}

#[test]
fn the_labs_application_passes_the_proof_under_both_its_servers() {
    let Some(machine) = provisioned() else { return };
    for server in [Server::Flask, Server::Gunicorn] {
        let app = serve(&machine, server, SOURCE, &[("TTL", "2"), ("SLOW", "0.5")]);
        let text = machine.run("redis-tp verify --url http://127.0.0.1:5000 --ttl 2 --slow 0.5").ok();
        assert!(text.stdout.contains("100 of 100 answered"), "{text}");
        let told = machine.run("redis-tp verify --json --url http://127.0.0.1:5000 --ttl 2 --slow 0.5").ok();
        passes_all_but(&told, &["app-herd"]);
        // Nothing is claimed: all is learnt.
        let learnt = machine.run("redis-tp verify --json --url http://127.0.0.1:5000/").ok();
        passes_all_but(&learnt, &["app-herd"]);
        assert_eq!(machine.run("redis-tp cli -- DBSIZE").ok().stdout.trim(), "0", "a key is left behind");
        let bench = "redis-tp bench --url http://127.0.0.1:5000 --duration 1 --keys 2 --json";
        let figures: serde_json::Value = serde_json::from_str(&machine.run(bench).ok().stdout).unwrap();
        let ms = |name: &str| figures[name].as_f64().unwrap();
        assert!(ms("cold_ms") >= 500.0 && ms("warm_ms") * 5.0 < ms("cold_ms"), "{figures:#}");
        end(app);
    }
}

#[test]
fn the_labs_sixty_seconds_are_not_waited_for_unless_asked() {
    let Some(machine) = provisioned() else { return };
    let app = serve(&machine, Server::Flask, SOURCE, &[]);
    let out = machine.run("redis-tp verify --json --url http://127.0.0.1:5000").ok();
    passes_all_but(&out, &["app-herd", "app-gone", "app-again"]);
    assert!(out.stdout.contains("--ttl 60, or --lab"), "{out}");
    assert!(out.elapsed < Duration::from_secs(55), "{out}");
    end(app);
}

#[test]
fn an_application_without_a_way_round_redis_fails_the_outage_and_the_master_is_started_again() {
    let Some(machine) = provisioned() else { return };
    let app = serve(&machine, Server::Flask, SOURCE, &[("TTL", "2"), ("SLOW", "0.5")]);
    let out = machine.run("redis-tp verify --restart --json --url http://127.0.0.1:5000 --ttl 2 --slow 0.5");
    let out = out.exits(4);
    let failed: Vec<_> = results(&out).into_iter().filter(|(_, result)| result == "fail").collect();
    assert_eq!(failed, [("app-outage".to_owned(), "fail".to_owned())], "{out}");
    machine.run("redis-tp verify --json --url http://127.0.0.1:5000 --ttl 2 --slow 0.5").ok();
    end(app);
}
