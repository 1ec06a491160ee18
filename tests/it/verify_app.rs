//! The proof of a web app: our own passes it, also while Redis is away. And it can fail: the lab's
//! application, each time broken in another way, fails the check that it should, and no other.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::flask::{Server, end, pair, provisioned, results, serve};
use crate::machine::{Init, Machine, Out, Release, Running};

/// What is broken, the line of the application that it replaces, by what, and the check that has to fail.
const BROKEN: &[(&str, &str, &str, &str)] = &[
    ("it never looks into the cache", "cache.get(key)", "None", "app-warm"),
    ("it never stores", "    cache.setex(key, TTL, value)\n", "", "app-warm"),
    ("it stores without a TTL", "cache.setex(key, TTL, value)", "cache.set(key, value)", "app-key"),
    ("it stores for too long", "cache.setex(key, TTL,", "cache.setex(key, TTL + 60,", "app-key"),
    (
        "it stores another value",
        "cache.setex(key, TTL, value)",
        "cache.setex(key, TTL, value + '!')",
        "app-warm",
    ),
    ("it uses another Redis", "cache.get(key)", "other.get(key)", "app-key"),
    ("it uses another database", "decode_responses=True", "decode_responses=True, db=1", "app-key"),
    (
        "it answers in plain text",
        "return jsonify(key=key, value=value, source=\"database (slow)\")",
        "return value",
        "app-cold",
    ),
    ("it says cache when it is cold", "source=\"database (slow)\"", "source=\"cache\"", "app-cold"),
    ("it says database when it is warm", "source=\"cache\"", "source=\"database (slow)\"", "app-warm"),
    ("it fails", "value = cache.get(key)", "value = cache.no_such_method(key)", "app-cold"),
    ("it answers for another key", "jsonify(key=key,", "jsonify(key=key.upper(),", "app-cold"),
    ("its database is no slower than claimed", "time.sleep(SLOW)", "time.sleep(SLOW / 2)", "app-cold"),
    (
        "its cache is as slow as its database",
        "value = cache.get(key)",
        "value = cache.get(key); time.sleep(SLOW)",
        "app-warm",
    ),
    (
        "it stores anew in the background",
        "cache.setex(key, TTL, value)",
        "threading.Thread(target=again, args=(key, value), daemon=True).start()",
        "app-ttl",
    ),
    ("its values change", "return key.upper()", "return str(time.time())", "app-herd"),
];

/// What the broken ones have besides.
const MORE: &str = r#"
import threading

class Other(dict):
    def setex(self, key, ttl, value):
        self[key] = value

other = Other()

def again(key, value):
    while True:
        cache.setex(key, TTL, value)
        time.sleep(0.005)

"#;

fn broken(line: &str, by: &str) -> String {
    let whole = include_str!("../flask/app.py");
    assert!(whole.contains(line), "the application has no {line}");
    let mut text = whole.replace(line, by);
    if by.starts_with("other.") {
        text = text.replace("cache.setex(", "other.setex(");
    }
    text.replace("app = Flask(__name__)", &format!("{MORE}app = Flask(__name__)"))
}

fn failed(out: &Out) -> Vec<String> {
    let failed = results(out).into_iter().filter(|(_, result)| result == "fail" || result == "unknown");
    failed.map(|(id, _)| id).collect()
}

fn prove(machine: &Machine) -> Out {
    machine.run("redis-tp verify --json --url http://127.0.0.1:5000 --ttl 1 --slow 0.3")
}

#[test]
fn each_broken_application_fails_the_check_that_it_should() {
    let Some(machine) = provisioned() else { return };
    let mut wrong = Vec::new();
    for (what, line, by, id) in BROKEN {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("app.py"), broken(line, by)).unwrap();
        let env = [("TTL", "1"), ("SLOW", "0.3")];
        let app = serve(&machine, Server::Flask, &dir.path().to_string_lossy(), &env);
        let found = |out: &Out| out.status == 4 && failed(out) == [*id];
        let mut out = prove(&machine);
        // A machine that stands still for a while makes what is slow slower, and what is right wrong.
        for _ in 0..2 {
            if !found(&out) {
                out = prove(&machine);
            }
        }
        end(app);
        if !found(&out) {
            wrong.push(format!("{what}: {:?}, and not {id}\n{out}", failed(&out)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_app_that_is_not_there_fails_at_once() {
    let Some(machine) = provisioned() else { return };
    let out = prove(&machine).exits(4);
    assert_eq!(failed(&out), ["app-cold"], "{out}");
    assert!(out.stdout.contains("nobody listens there"), "{out}");
}

#[test]
fn our_own_app_passes_all_also_while_the_master_is_away() {
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = pair(Release::Trixie, init) else { return };
        let out = machine.run("redis-tp verify --restart --json --html /tmp/report.html").ok();
        let all = results(&out);
        assert_eq!(all.last().map(|(id, _)| id.as_str()), Some("app-outage"), "{out}");
        assert!(all.len() == 8 && all.iter().all(|(_, result)| result == "pass"), "{out}");
        assert!(machine.read("/tmp/report.html").matches("<svg").count() >= 3, "a picture is missing");
        assert_eq!(machine.run("redis-tp cli -- DBSIZE").ok().stdout.trim(), "0", "a key is left behind");
        // With nothing stopped it takes as long as the TTL and two slow reads, where the machine has nothing else to do.
        let quickest = (0..5).map(|_| machine.run("redis-tp verify --json").ok().elapsed);
        assert!(
            quickest.into_iter().any(|elapsed| elapsed < Duration::from_secs(3)),
            "it waits for something"
        );
    }
}

/// Runs an app by hand where `[app]` says that the service is.
fn by_hand(machine: &Machine) -> Running {
    let flags = "--prefix lab: --read-from replica --password-file /etc/redis-tp/password";
    let nodes = "--redis 127.0.0.1:6379 --redis 127.0.0.1:6380";
    let app = machine.spawn(&format!("redis-tp app serve --port 5001 {flags} {nodes}"));
    for _ in 0..3000 {
        if !machine.run("ss -Hltn 'sport = :5001'").stdout.is_empty() {
            return app;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("it does not listen: {}", app.said());
}

#[test]
fn the_installed_app_has_to_run_and_to_read_our_redis() {
    let Some(machine) = pair(Release::Bookworm, Init::None) else { return };
    let topology = machine.read("/etc/redis-tp/topology.ini");
    let section = "\n[app]\nport = 5001\nprefix = lab:\nread-from = replica\n";
    machine.write("/etc/redis-tp/topology.ini", topology + section);

    let out = machine.run("redis-tp verify --json").exits(4);
    assert_eq!(failed(&out), ["app-service", "app-cold"], "{out}");
    assert!(out.stdout.contains("redis-tp service start app"), "{out}");

    let app = by_hand(&machine);
    let out = machine.run("redis-tp verify --json").exits(4);
    assert_eq!(failed(&out), ["app-service", "app-cold"], "{out}");
    end(app);

    machine.run("redis-tp apply").ok();
    machine.run("redis-tp verify --json").ok();

    // Changed, and not applied yet.
    machine.run("sed -i 's/^prefix = lab:/prefix = other:/' /etc/redis-tp/topology.ini").ok();
    let out = machine.run("redis-tp verify --json").exits(4);
    assert_eq!(failed(&out), ["app-reads", "app-cold"], "{out}");
    let left = machine.run("redis-tp cli -- --scan --pattern '*:*'").ok().stdout;
    assert_eq!(left, "", "a key is left behind");
}
