//! The web app as a service on real machines: set up along with the instances, kept running, changed
//! without more of a restart than is needed, and gone again.

use std::time::Duration;

use rusqlite::Connection;

use crate::machine::{Alike, Init, Machine, Out, Release, differences};
use crate::story::{bare, places};

/// A question to the app, typed on the machine itself, which has bash but no curl.
fn ask(machine: &Machine, path: &str) -> Out {
    machine.run(&format!(
        "bash -c 'exec 3<>/dev/tcp/127.0.0.1/5000 && printf \"GET {path} HTTP/1.0\\r\\n\\r\\n\" >&3 && cat <&3'"
    ))
}

/// What a question finds as its answer's source.
fn source(machine: &Machine, key: &str) -> String {
    let out = ask(machine, &format!("/data/{key}")).ok();
    let body = out.stdout.lines().last().expect("an answer has a body").to_owned();
    let json: serde_json::Value =
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {out}"));
    json["source"].as_str().expect("a source").to_owned()
}

/// The app's process, as it says itself.
fn pid(machine: &Machine) -> u64 {
    let out = ask(machine, "/healthz").ok();
    let json: serde_json::Value =
        serde_json::from_str(out.stdout.lines().last().expect("a body")).expect("JSON");
    json["pid"].as_u64().expect("a pid")
}

fn run_ids(machine: &Machine) -> String {
    machine.run("for i in master slave; do redis-tp cli $i -- INFO server | grep run_id; done").ok().stdout
}

fn wait_until(what: &str, probe: impl Fn() -> bool) {
    for _ in 0..1200 {
        if probe() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not in a minute: {what}");
}

fn with_app(machine: &Machine) {
    let topology = "[master]\nport = 6379\n[slave]\nport = 6380\nreplicaof = master\n[app]\nslow = 0.3\n";
    machine.run_with_input("redis-tp apply -f -", topology).ok();
}

#[test]
fn up_brings_the_app_and_a_purge_leaves_nothing_of_it() {
    for (release, init) in [
        (Release::Bookworm, Init::Systemd),
        (Release::Trixie, Init::Systemd),
        (Release::Bookworm, Init::None),
        (Release::Trixie, Init::None),
    ] {
        let Some(machine) = bare(release, init) else { return };
        let (users, before) = (machine.read("/etc/passwd"), places(&machine));
        machine.run("redis-tp up").ok();
        assert_eq!(source(&machine, "bonjour"), "database (slow)");
        assert_eq!(source(&machine, "bonjour"), "cache");
        let ttl = machine.run("redis-tp cli slave -- TTL bonjour").ok().stdout;
        assert!((50..=60).contains(&ttl.trim().parse::<i32>().expect("a TTL")), "{ttl}");
        machine.run("redis-tp check").ok();
        let status = machine.run("redis-tp status").ok();
        assert!(status.stdout.contains("http://127.0.0.1:5000"), "{status}");

        let process = pid(&machine);
        let owner = machine.run(&format!("stat -c %u /proc/{process}")).ok().stdout;
        let redis = machine.run("id -u redis").ok().stdout;
        assert!(owner.trim() != "0" && owner != redis, "the app runs as uid {owner}");
        let again = machine.run("redis-tp up").ok();
        assert!(again.stdout.contains("No changes"), "{again}");
        assert_eq!(pid(&machine), process);

        machine.run("redis-tp uninstall --purge").ok();
        assert_eq!(differences(&before, &places(&machine), Alike::Equivalent), [""; 0]);
        assert_eq!(machine.read("/etc/passwd").contains("redis-tp"), users.contains("redis-tp"));
    }
}

#[test]
fn what_was_started_often_is_started_again_and_so_is_what_a_rollback_starts() {
    for release in Release::ALL {
        let Some(machine) = bare(release, Init::Systemd) else { return };
        let limits = "mkdir -p /etc/systemd/system.conf.d && printf '[Manager]\\n%s\\n%s\\n' \
            DefaultStartLimitIntervalSec=600 DefaultStartLimitBurst=2 > /etc/systemd/system.conf.d/limits.conf \
            && systemctl daemon-reexec";
        machine.run(limits).ok();
        with_app(&machine);
        for ttl in 31..34 {
            machine.run(&format!("redis-tp app install --ttl {ttl}")).ok();
        }
        for _ in 0..3 {
            machine.run("redis-tp rollback").ok();
        }
        for name in ["app", "slave"] {
            for _ in 0..4 {
                machine.run(&format!("redis-tp service restart {name}")).ok();
            }
        }
        assert_eq!(source(&machine, "bonjour"), "database (slow)");
        let limit =
            machine.run("systemctl show -P StartLimitBurst redis-tp-app redis-server@slave").ok().stdout;
        assert_eq!(limit.split_whitespace().collect::<Vec<_>>(), ["2", "2"], "the limits do not hold");
    }
}

#[test]
fn what_changes_for_the_app_restarts_no_server_and_a_new_replica_restarts_no_app() {
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        with_app(&machine);
        let (servers, app) = (run_ids(&machine), pid(&machine));
        machine.run("redis-tp app install --ttl 5 --read-from any").ok();
        assert_eq!(run_ids(&machine), servers);
        assert_ne!(pid(&machine), app, "it still has its former settings");
        source(&machine, "a");
        let ttl = machine.run("redis-tp cli -- PTTL a").ok().stdout;
        assert!((1..=5000).contains(&ttl.trim().parse::<i32>().expect("a TTL")), "{ttl}");

        let app = pid(&machine);
        machine.run("redis-tp replica add --port 6381").ok();
        assert_eq!(pid(&machine), app);
        wait_until("the new replica is found", || {
            ask(&machine, "/metrics").stdout.contains("redis_tp_app_redis_up{node=\"127.0.0.1:6381\"} 1")
        });
        let again = machine.run("redis-tp apply").ok();
        assert!(again.stdout.contains("No changes"), "{again}");

        // Another password for all: the app has it, too, when the run is over.
        machine.run_with_input("redis-tp install --password-file -", "another\n").ok();
        source(&machine, "b");
        assert_eq!(source(&machine, "b"), "cache");

        // A port that is in the topology alone is none that it answers on.
        machine
            .run("cp /etc/redis-tp/topology.ini /root && sed -i 's/^\\[app\\]/&\\nport = 5005/' /etc/redis-tp/topology.ini")
            .ok();
        for command in ["check", "status"] {
            let out = machine.run(&format!("redis-tp {command}")).exits(4);
            assert!(out.stdout.contains("5005") && out.stdout.contains("next: redis-tp apply"), "{out}");
        }
        machine.run("cp /root/topology.ini /etc/redis-tp/").ok();

        machine.run("redis-tp app remove").ok();
        ask(&machine, "/healthz").exits(1);
        machine.run("redis-tp status").ok();
        machine.run("redis-tp rollback").ok();
        assert_eq!(source(&machine, "b"), "cache");
    }
}

#[test]
fn an_app_that_is_killed_is_started_again() {
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        with_app(&machine);
        let process = pid(&machine);
        machine.run(&format!("kill -9 {process}")).ok();
        wait_until("it answers again", || ask(&machine, "/readyz").stdout.contains("\"ready\""));
        assert_ne!(pid(&machine), process);
        let again = machine.run("redis-tp apply").ok();
        assert!(again.stdout.contains("No changes"), "{again}");
        machine.run("redis-tp service stop app").ok();
        ask(&machine, "/healthz").exits(1);
        machine.run("redis-tp status").exits(4);
        machine.run("redis-tp service start").ok();
        machine.run("redis-tp status").ok();
    }
}

#[test]
fn a_start_is_done_when_the_app_itself_answers_and_not_another_on_its_port() {
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        with_app(&machine);
        machine.run("redis-tp service stop app").ok();
        let other = machine.spawn("redis-tp app serve & echo $! > /run/other; wait");
        wait_until("the other answers", || ask(&machine, "/healthz").stdout.contains("200"));
        machine.run("redis-tp service start app").exits(8);
        machine.run("kill $(cat /run/other)").ok();
        other.wait();
        machine.run("redis-tp service start app").ok();
        machine.run("redis-tp status").ok();
    }
}

#[test]
fn settings_that_somebody_took_away_are_named_and_apply_brings_them_back() {
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        with_app(&machine);
        let app = pid(&machine);
        machine.run("rm /etc/redis-tp/app.json && redis-tp check").exits(4);
        let restart = machine.run("redis-tp service restart app").exits(1);
        assert!(restart.stderr.contains("redis-tp apply"), "{restart}");
        assert_eq!(pid(&machine), app, "it was stopped, and could not come back");

        machine.run("redis-tp service stop app").ok();
        machine.run("redis-tp service start app").exits(8);
        let status = machine.run("redis-tp status").exits(4);
        assert!(status.stdout.contains("next: redis-tp apply"), "{status}");
        machine.run("redis-tp apply").ok();
        machine.run("redis-tp status").ok();
    }
}

#[test]
fn an_app_that_has_failed_leaves_no_trace_in_systemd_when_it_goes() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    with_app(&machine);
    machine.run("rm /etc/redis-tp/app.json && systemctl restart redis-tp-app").exits(1);
    wait_until("systemd gives up", || machine.run("systemctl is-failed redis-tp-app").stdout == "failed\n");
    machine.run("redis-tp app remove").ok();
    let units = machine.run("systemctl list-units --all --plain --no-legend 'redis-tp*'").ok();
    assert_eq!(units.stdout, "");
}

#[test]
fn an_app_whose_account_somebody_deleted_is_ended_all_the_same() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    with_app(&machine);
    let process = pid(&machine);
    machine.run("userdel -f redis-tp-app; ! id redis-tp-app").ok();
    machine.run("redis-tp uninstall --purge").ok();
    assert!(!machine.exists(format!("/proc/{process}")), "it still runs, with the password");
}

#[test]
fn the_app_comes_back_after_a_reboot() {
    let Some(mut machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    with_app(&machine);
    machine.reboot();
    wait_until("it has its cache", || ask(&machine, "/readyz").stdout.contains("\"ready\""));
    let again = machine.run("redis-tp apply").ok();
    assert!(again.stdout.contains("No changes"), "{again}");
}

#[test]
fn a_program_in_roots_home_is_copied_for_the_service_and_again_when_it_was_built_anew() {
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        machine.run("mv /usr/local/bin/redis-tp /root/redis-tp").ok();
        machine.run("/root/redis-tp up").ok();
        assert!(machine.exists("/usr/local/lib/redis-tp/redis-tp"));
        let app = pid(&machine);
        let again = machine.run("/root/redis-tp up").ok();
        assert!(again.stdout.contains("No changes"), "{again}");
        machine.run("touch /root/redis-tp").ok();
        machine.run("/root/redis-tp apply").ok();
        assert_ne!(pid(&machine), app, "it still runs the former program");
        machine.run("/root/redis-tp uninstall").ok();
        assert!(!machine.exists("/usr/local/lib/redis-tp"));
    }
}

#[test]
fn a_master_stopped_and_started_under_load_fails_no_request() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    with_app(&machine);
    let load = machine.spawn("redis-tp bench -c 8 -d 6 --json");
    wait_until("the load is on", || {
        let metrics = ask(&machine, "/metrics").stdout;
        let hits = metrics.lines().find_map(|line| line.split("_total{result=\"hit\"} ").nth(1));
        hits.and_then(|hits| hits.trim().parse::<u64>().ok()).is_some_and(|hits| hits > 100)
    });
    machine.run("redis-tp service stop master && sleep 1 && redis-tp service start master").ok();
    let out = load.wait().ok();
    let report: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    let load = &report["load"];
    assert_eq!(load["errors"], 0, "{out}");
    // Some were answered from the database, and in the end the cache serves again.
    assert!(load["hits"].as_u64() < load["requests"].as_u64(), "{out}");
    source(&machine, "after");
    assert_eq!(source(&machine, "after"), "cache");
}

#[test]
fn a_value_of_a_database_is_found_by_its_key() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("lab.db");
    let database = Connection::open(&file).expect("a database");
    let rows = "CREATE TABLE data (key TEXT PRIMARY KEY, value TEXT);
                INSERT INTO data VALUES ('bonjour', 'monde'), ('nombre', 42);";
    database.execute_batch(rows).expect("its rows");
    drop(database);
    machine.write("/srv/lab.db", std::fs::read(&file).expect("its bytes"));
    with_app(&machine);
    let refused = machine.run("redis-tp app install --source sqlite:/srv/lab.db --table nothing").exits(8);
    assert!(refused.stderr.contains("nothing"), "{refused}");
    assert_eq!(source(&machine, "before"), "database (slow)");
    machine.run("redis-tp app install --source sqlite:/srv/lab.db").ok();
    for expected in ["database", "cache"] {
        let out = ask(&machine, "/data/bonjour").ok();
        let body = format!("{{\"key\":\"bonjour\",\"value\":\"monde\",\"source\":\"{expected}\"}}");
        assert!(out.stdout.ends_with(&body), "{out}");
    }
    let absent = ask(&machine, "/data/absent").ok();
    assert!(
        absent.stdout.starts_with("HTTP/1.0 404") || absent.stdout.starts_with("HTTP/1.1 404"),
        "{absent}"
    );
    let bench = machine.run("redis-tp bench -d 1").ok();
    assert!(bench.stderr.contains("has no fresh keys: measuring an app of our own"), "{bench}");
}
