//! The checks against real servers on loopback, sound and broken. A server is taken from
//! REDIS_TP_TEST_SERVER or PATH; without one these tests say so and pass.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;
use crate::app::{Running, Settings};
use crate::topology::{Name, Prefix};

mod lab;

pub use lab::instance;

use lab::Lab;

const CANARY: &str = "canary-5ecret";
const LAB: &str = "[master]\nport=PORT\n[slave]\nport=PORT\nreplicaof=master\n";

fn of<'a>(findings: &'a Findings, id: &str, subject: &str) -> &'a Finding {
    let check = findings.checks.iter().find(|check| check.id == id && check.subject == subject);
    &check.unwrap_or_else(|| panic!("no {id} of {subject}")).finding
}

/// Asserts that a check failed, and that what it says has these words in it.
fn assert_fails(findings: &Findings, id: &str, subject: &str, words: &[&str]) {
    let finding = of(findings, id, subject);
    let Finding::Fail { found, cause, cure } = finding else { panic!("{id} of {subject}: {finding:?}") };
    let said = format!("{found}\n{cause}\n{cure}");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

fn assert_only(findings: &Findings, bad: &[(&str, &str)]) {
    let all: Vec<(&str, &str)> =
        findings.checks.iter().filter(|at| at.is_bad()).map(|at| (at.id, at.subject.as_str())).collect();
    assert_eq!(all, bad, "{findings:#?}");
}

#[test]
fn a_sound_chain_passes_all_leaves_no_key_and_tells_no_secret() {
    let topology = format!("{LAB}[third]\nport=PORT\nreplicaof=slave\n");
    let Some(lab) = Lab::start(&topology, Some(CANARY)) else { return };
    let findings = lab.verify();
    assert_only(&findings, &[]);
    assert_eq!(findings.count(), (10 * 3 + 4 * 2, 0, 0));
    assert_eq!(lab.keys_left(), 0);
    let all = serde_json::to_string(&findings).unwrap();
    assert!(!all.contains(CANARY), "{all}");
    let _ = writeln!(std::io::stderr(), "verify of three took {:?}", findings.time);
}

#[test]
fn without_a_password_the_doors_do_not_apply() {
    let Some(lab) = Lab::start("[master]\nport=PORT\n", None) else { return };
    let findings = lab.verify();
    assert_only(&findings, &[]);
    for id in ["auth-wrong", "auth-missing"] {
        assert!(matches!(of(&findings, id, "master"), Finding::Skip { .. }), "{id}");
    }
}

#[test]
fn a_server_that_is_down_fails_its_ping_and_leaves_the_rest_unknown() {
    let Some(mut lab) = Lab::start(LAB, Some(CANARY)) else { return };
    lab.children[1].kill().unwrap();
    lab.children[1].wait().unwrap();
    let findings = lab.verify();
    assert_fails(&findings, "ping", "slave", &["nobody listens", "redis-tp service start slave"]);
    for id in ["role", "link", "offset", "propagation", "readonly", "ttl", "ttl-gone", "auth-wrong", "listen"]
    {
        assert!(matches!(of(&findings, id, "slave"), Finding::Unknown { .. }), "{id}");
    }
    assert!(findings.checks.iter().filter(|at| at.subject == "master").all(|at| !at.is_bad()));
}

#[test]
fn a_promoted_replica_is_told_with_both_ways_out() {
    let Some(lab) = Lab::start(LAB, Some(CANARY)) else { return };
    lab.ask("slave", &["REPLICAOF", "NO", "ONE"]);
    let findings = lab.verify();
    assert_fails(&findings, "role", "slave", &["promoted", "apply --adopt", "apply --overwrite"]);
    assert!(matches!(of(&findings, "link", "slave"), Finding::Skip { .. }));
    assert!(matches!(of(&findings, "ttl-gone", "slave"), Finding::Pass { .. }));
    assert_eq!(lab.keys_left(), 0);
}

#[test]
fn a_broken_link_names_the_password_and_not_its_text() {
    let Some(lab) = Lab::start(LAB, Some(CANARY)) else { return };
    lab.ask("slave", &["CONFIG", "SET", "masterauth", "other-canary"]);
    lab.ask("slave", &["REPLICAOF", "NO", "ONE"]);
    let port = lab.instances[0].port.to_string();
    lab.ask("slave", &["REPLICAOF", "127.0.0.1", &port]);
    let findings = lab.verify();
    assert_fails(&findings, "link", "slave", &["down", "masterauth", "redis-tp"]);
    assert_fails(&findings, "config", "slave", &["masterauth differs"]);
    assert!(matches!(of(&findings, "propagation", "slave"), Finding::Unknown { .. }));
    assert!(!serde_json::to_string(&findings).unwrap().contains("canary"));
}

#[test]
fn a_lost_master_is_the_cause_of_a_lost_link() {
    let Some(mut lab) = Lab::start(LAB, Some(CANARY)) else { return };
    lab.children[0].kill().unwrap();
    lab.children[0].wait().unwrap();
    lab.await_loss("slave");
    let findings = lab.verify();
    assert_fails(&findings, "link", "slave", &["nobody listens", "redis-tp service start master"]);
}

#[test]
fn a_master_whose_password_was_changed_is_the_one_to_restart() {
    let Some(lab) = Lab::start(LAB, Some(CANARY)) else { return };
    lab.ask("master", &["CONFIG", "SET", "requirepass", "other-canary"]);
    lab.ask("slave", &["REPLICAOF", "NO", "ONE"]);
    let port = lab.instances[0].port.to_string();
    lab.ask("slave", &["REPLICAOF", "127.0.0.1", &port]);
    let findings = lab.verify();
    assert_fails(&findings, "ping", "master", &["wanted password", "redis-tp service restart master"]);
    assert_fails(&findings, "link", "slave", &["masterauth", "redis-tp service restart master"]);
}

#[test]
fn a_master_elsewhere_is_asked_with_the_replicas_password_for_it() {
    let Some(mut lab) = Lab::start(LAB, Some(CANARY)) else { return };
    lab.instances[1].upstream.as_mut().unwrap().instance = None;
    let all = lab.instances.clone();
    lab.instances.remove(0);
    let findings = lab.verify();
    assert_only(&findings, &[]);
    lab.instances = all;
    assert_eq!(lab.keys_left(), 0);
}

#[test]
fn a_master_elsewhere_that_takes_no_key_leaves_the_checks_unknown() {
    let Some(mut lab) = Lab::start(LAB, Some(CANARY)) else { return };
    lab.ask("master", &["CONFIG", "SET", "maxmemory", "1"]);
    lab.instances[1].upstream.as_mut().unwrap().instance = None;
    lab.instances.remove(0);
    let findings = lab.verify();
    assert_only(&findings, &[("ttl", "slave"), ("propagation", "slave"), ("ttl-gone", "slave")]);
    assert!(matches!(of(&findings, "propagation", "slave"), Finding::Unknown { .. }));
}

#[test]
fn a_replica_that_takes_writes_is_caught_and_cleaned() {
    let Some(lab) = Lab::start(LAB, Some(CANARY)) else { return };
    lab.ask("slave", &["CONFIG", "SET", "replica-read-only", "no"]);
    let findings = lab.verify();
    assert_fails(&findings, "readonly", "slave", &["CONFIG SET replica-read-only yes"]);
    assert_eq!(lab.keys_left(), 0);
}

#[test]
fn an_open_door_is_caught() {
    let Some(lab) = Lab::start("[master]\nport=PORT\n", Some(CANARY)) else { return };
    lab.ask("master", &["CONFIG", "SET", "requirepass", ""]);
    let findings = lab.verify();
    assert_fails(&findings, "auth-missing", "master", &["anybody", "redis-tp service restart master"]);
    assert_fails(&findings, "ping", "master", &["does not take the wanted password"]);
}

#[test]
fn an_address_too_many_and_a_live_setting_are_caught() {
    let Some(lab) = Lab::start("[master]\nport=PORT\n", Some(CANARY)) else { return };
    lab.ask("master", &["CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2"]);
    lab.ask("master", &["CONFIG", "SET", "maxmemory", "100mb"]);
    let findings = lab.verify();
    assert_only(&findings, &[("listen", "master"), ("config", "master")]);
    assert_fails(&findings, "listen", "master", &["also on 127.0.0.2:"]);
    assert_fails(&findings, "config", "master", &["maxmemory: file 0, running 104857600", "bind: file"]);
}

#[test]
fn a_file_that_others_can_read_is_caught() {
    let Some(lab) = Lab::start("[master]\nport=PORT\n", Some(CANARY)) else { return };
    fs::set_permissions(&lab.instances[0].dir, fs::Permissions::from_mode(0o755)).unwrap();
    let findings = lab.verify();
    assert_only(&findings, &[("owner", "master")]);
    assert_fails(&findings, "owner", "master", &["mode 0755", "chmod o= "]);
}

#[test]
fn another_process_than_the_pid_files_is_caught() {
    let Some(mut lab) = Lab::start("[master]\nport=PORT\n", None) else { return };
    lab.facts.pids.insert(Name::parse("master").unwrap(), std::process::id());
    assert_fails(&lab.verify(), "service", "master", &["answers on", "another server"]);
}

#[test]
fn a_master_that_takes_no_write_is_told_why() {
    let Some(lab) = Lab::start(LAB, None) else { return };
    lab.ask("master", &["CONFIG", "SET", "maxmemory", "1"]);
    let findings = lab.verify();
    assert_fails(&findings, "ttl", "master", &["OOM", "maxmemory"]);
    assert!(matches!(of(&findings, "propagation", "slave"), Finding::Unknown { .. }));
}

#[test]
fn an_interruption_leaves_no_key() {
    let Some(lab) = Lab::start(LAB, Some(CANARY)) else { return };
    lab.host.catch_signals().unwrap();
    let subject = lab.subject();
    let options = Options { ttl: Duration::from_secs(60), ..Options::default() };
    let mut done = 0;
    let result = verify(&lab.host, &subject, &options, &mut |check| {
        done += usize::from(check.id == "propagation");
        if done == 1 {
            assert!(lab.keys_left() > 0);
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        }
    });
    assert!(result.is_err_and(|error| error.to_string() == "interrupted"));
    lab.host.ignore_interruption();
    assert_eq!(lab.keys_left(), 0);
}

#[test]
fn the_commands_to_type_work_as_they_are() {
    let Some(lab) = Lab::start(LAB, None) else { return };
    let path = format!("{}:{}", lab.server.parent().unwrap().display(), std::env::var("PATH").unwrap());
    if Command::new("redis-cli").env("PATH", &path).arg("--version").output().is_err() {
        return;
    }
    // Until writes flow to the replica.
    lab.verify();
    let script = shell(&lab.subject(), &Options::default()).join("\n");
    assert!(!script.contains("curl"), "{script}");
    let output = Command::new("sh").args(["-c", &script]).env("PATH", &path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for expected in ["PONG", "master_link_status:up", "hello", "READONLY", "-2"] {
        assert!(said.contains(expected), "no {expected}:\n{script}\n{said}");
    }
    assert!(!said.contains("ERR"), "{said}");
    assert_eq!(lab.keys_left(), 0);
}

#[test]
fn a_web_app_of_our_own_proves_the_cache_and_leaves_no_key() {
    let Some(lab) = Lab::start(LAB, Some(CANARY)) else { return };
    let began = lab.host.now();
    let (findings, curves) = lab.prove(Some(App::Own { slow: Duration::from_millis(200) }));
    let took = lab.host.now() - began;
    assert_only(&findings, &[]);
    for id in ["cold", "warm", "key", "ttl", "herd", "gone", "again"] {
        let finding = of(&findings, &format!("app-{id}"), "app");
        assert!(matches!(finding, Finding::Pass { .. }), "{id}: {finding:?}");
    }
    assert_eq!((curves.cold.len(), curves.warm.len(), curves.herd.len()), (2, 3, 100));
    assert!(curves.left.last().is_some_and(|(_, left)| left.is_none()), "{curves:?}");
    assert_eq!(lab.keys_left(), 0);
    assert!(!serde_json::to_string(&findings).unwrap().contains(CANARY));
    // Beside the instances, not after them.
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

#[test]
fn a_master_that_is_down_leaves_what_the_app_stores_unknown() {
    let Some(mut lab) = Lab::start("[master]\nport=PORT\n", Some(CANARY)) else { return };
    lab.children[0].kill().unwrap();
    lab.children[0].wait().unwrap();
    let (findings, _) = lab.prove(Some(App::Own { slow: Duration::from_millis(50) }));
    let Finding::Unknown { why, cure } = of(&findings, "app-cold", "app") else { panic!("{findings:#?}") };
    assert!(why.contains("no answer from master") && cure == "redis-tp service start master", "{why}");
    assert!(
        !findings
            .checks
            .iter()
            .any(|at| at.id.starts_with("app-") && matches!(at.finding, Finding::Fail { .. }))
    );
}

#[test]
fn an_interruption_ends_the_proof_of_the_app_too_and_leaves_no_key() {
    let Some(lab) = Lab::start(LAB, Some(CANARY)) else { return };
    lab.host.catch_signals().unwrap();
    let app = Some(App::Own { slow: Duration::from_millis(50) });
    let options = Options { ttl: Duration::from_secs(60), restart: false, app };
    let subject = lab.subject();
    let began = lab.host.now();
    let result = verify(&lab.host, &subject, &options, &mut |check| {
        if check.id == "service" {
            lab.host.sleep(Duration::from_millis(500));
            assert!(lab.keys_left() > 2);
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        }
    });
    assert!(result.is_err_and(|error| error.to_string() == "interrupted"));
    assert!(lab.host.now() - began < Duration::from_secs(3));
    lab.host.ignore_interruption();
    assert_eq!(lab.keys_left(), 0);
}

#[test]
fn the_commands_to_type_show_the_cache_of_the_installed_app() {
    let Some(lab) = Lab::start("[master]\nport=PORT\n", None) else { return };
    if ["curl", "redis-cli"]
        .iter()
        .any(|tool| lab.host.which(tool).is_none() && Host::real().which(tool).is_none())
    {
        return;
    }
    // Long enough for a hundred processes to start.
    let (ttl, slow) = (Duration::from_secs(4), Duration::from_millis(200));
    let prefix = Prefix::parse("lab:").unwrap();
    let mut section = AppSection { port: 0, ttl, slow, prefix, ..AppSection::default() };
    let app = Running::start(&lab.host, Settings::of(&section, &lab.instances)).unwrap();
    section.port = app.address().port();
    let subject = Subject { app: Some(&section), ..lab.subject() };
    let options = Options { app: Some(App::Own { slow }), ..Options::default() };
    let script = shell(&subject, &options).join("\n");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.matches("database (slow)").count(), 2, "{script}\n{said}");
    assert_eq!(said.matches("\"cache\"").count(), 1, "{said}");
    for expected in ["100 200", "slow_reads_total 1\n", "slow_reads_total 2\n", "\n-2\n"] {
        assert!(said.contains(expected), "no {expected}:\n{script}\n{said}");
    }
    assert_eq!(lab.keys_left(), 0);
}

#[test]
fn without_an_app_to_look_at_the_commands_tell_how_to_have_one() {
    let options = Options { app: Some(App::Own { slow: Duration::from_millis(200) }), ..Options::default() };
    let facts = Facts::default();
    let lines = shell(&Subject { instances: &[], facts: &facts, app: None }, &options);
    let from = lines.iter().position(|line| line.starts_with("# redis-tp app serve")).unwrap();
    assert!(lines[from..].iter().all(|line| line.starts_with('#')), "{lines:#?}");
}
