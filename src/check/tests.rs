use std::path::Path;

use super::*;
use crate::runtime::Runtime;
use crate::secret::Secret;
use crate::secrets::Secrets;

/// What `check` finds for facts on a machine with nothing but these.
fn findings(facts: &str, topology: &str, runtime: Runtime) -> Findings {
    let facts: Facts = serde_json::from_str(facts).unwrap();
    let topology = Topology::parse(topology, Path::new("/etc/redis-tp/topology.ini")).unwrap();
    let secrets = Secrets { password: Some(Secret::new("canary")), ..Secrets::default() };
    let instances = Instance::resolve(&topology, &secrets, runtime);
    let root = tempfile::tempdir().unwrap();
    let subject =
        Subject { topology: &topology, instances: &instances, app: None, inside: None, facts: &facts };
    let mut told = Vec::new();
    let findings = check(&Host::at(root.path()), &subject, &mut |check| told.push(check.id)).unwrap();
    assert_eq!(told.len(), findings.checks.len());
    findings
}

fn of<'a>(findings: &'a Findings, id: &str, subject: &str) -> &'a Finding {
    let is = |check: &&Check| check.id == id && check.subject == subject;
    &findings.checks.iter().find(is).unwrap().finding
}

fn assert_fails(finding: &Finding, words: &str, command: &str) {
    match finding {
        Finding::Fail { found, cure, .. } => {
            assert!(found.contains(words), "'{words}' is not in '{found}'");
            assert_eq!(cure, command);
        }
        other => panic!("{other:?}"),
    }
}

const LAB: &str = "[master]\nport = 6379\n[slave]\nport = 6380\nreplicaof = master\n";

/// A machine on which the lab runs.
const FIT: &str = r#"{
    "systemd": true, "apt": true, "user": {"uid": 101, "gid": 101},
    "package": {"version": "5:7.0.15-1", "status": "installed"},
    "server": {"path": "/usr/bin/redis-server", "version": "7.0.15"},
    "paths": {
        "/": {"kind": "dir", "mode": 493}, "/var": {"kind": "dir", "mode": 493},
        "/var/lib": {"kind": "dir", "mode": 493}, "/var/log": {"kind": "dir", "mode": 493},
        "/var/lib/redis": {"kind": "dir", "mode": 488, "uid": 101, "gid": 101},
        "/var/lib/redis-slave": {"kind": "dir", "mode": 488, "uid": 101, "gid": 101},
        "/var/log/redis": {"kind": "dir", "mode": 1512, "uid": 101, "gid": 4},
        "/etc/redis/redis.conf": {"kind": "file", "mode": 416, "uid": 101, "gid": 101},
        "/etc/redis/redis-slave.conf": {"kind": "file", "mode": 416, "uid": 101, "gid": 101}
    },
    "texts": {
        "/etc/redis/redis.conf": "requirepass canary\nrequirepass \"canary\n",
        "/etc/systemd/system/redis-server@slave.service.d/10-redis-tp.conf":
            "[Service]\nReadWritePaths=-/var/lib/redis-slave\n"
    },
    "units": {
        "redis-server.service": {"load": "loaded", "active": "active", "pid": 812, "enabled": true},
        "redis-server@slave.service": {"load": "loaded", "active": "active", "pid": 840, "enabled": true}
    },
    "listeners": [{"address": "127.0.0.1", "port": 6379,
                   "owner": {"pid": 812, "program": "redis-server", "unit": "redis-server.service"}}]
}"#;

#[test]
fn a_bare_machine_is_told_what_is_missing_and_the_one_word_that_cures_it() {
    let findings = findings(r#"{"apt": true}"#, LAB, Runtime::Process);
    assert_eq!(findings.code(), crate::exit::Code::Findings);
    for (id, subject) in [
        ("engine-installed", "machine"),
        ("user", "machine"),
        ("secrets", "machine"),
        ("directories", "master"),
        ("configuration", "slave"),
    ] {
        assert_fails(of(&findings, id, subject), "no", "redis-tp up");
    }
    assert_eq!(of(&findings, "ports", "slave"), &Finding::pass("6380 is free"));
    assert_fails(of(&findings, "units", "master"), "does not run", "redis-tp up");
}

#[test]
fn a_fit_machine_passes_what_needs_no_server_to_prove() {
    let findings = findings(FIT, LAB, Runtime::Systemd);
    for (id, subject) in [
        ("engine-installed", "machine"),
        ("user", "machine"),
        ("apt", "machine"),
        ("runtime", "machine"),
        ("topology", "machine"),
        ("journal", "machine"),
        ("ports", "master"),
        ("directories", "slave"),
        ("units", "slave"),
    ] {
        let finding = of(&findings, id, subject);
        assert!(matches!(finding, Finding::Pass { .. }), "{id}: {finding:?}");
    }
}

#[test]
fn what_could_not_be_looked_at_is_no_pass() {
    // The file is there, and its text is not.
    let finding = findings(FIT, LAB, Runtime::Systemd);
    let finding = of(&finding, "configuration", "slave");
    assert!(matches!(finding, Finding::Unknown { .. }), "{finding:?}");
}

#[test]
fn no_secret_is_printed() {
    let findings = findings(FIT, LAB, Runtime::Systemd);
    let broken = of(&findings, "configuration", "master");
    assert_fails(broken, "unbalanced quotes in line 2", "redis-tp apply --overwrite");
    let json = serde_json::to_string(&findings).unwrap();
    let text: String = findings.checks.iter().map(crate::report::table::line).collect();
    assert!(!json.contains("canary") && !text.contains("canary"), "{text}");
}

#[test]
fn each_trouble_has_the_command_that_cures_it() {
    let cases: &[(&str, &str, &str, &str, &str, &str)] = &[
        (
            "\"installed\"",
            "\"half-configured\"",
            "engine-installed",
            "machine",
            "half-configured",
            "redis-tp up",
        ),
        (
            "7.0.15\"}",
            "5.0.3\"}",
            "engine-version",
            "machine",
            "5.0.3",
            "apt-get update && apt-get install redis-server",
        ),
        (
            "{\"uid\": 101, \"gid\": 101}",
            "{\"uid\": 0, \"gid\": 0}",
            "user",
            "machine",
            "root",
            "vipw    # give redis a number of its own",
        ),
        (
            "\"program\": \"redis-server\", \"unit\": \"redis-server.service\"",
            "\"program\": \"nginx\"",
            "ports",
            "master",
            "nginx (pid 812, in no unit)",
            "redis-tp install --port 6389",
        ),
        (
            "\"/var/lib/redis-slave\": {\"kind\": \"dir\", \"mode\": 488",
            "\"/var/lib/redis-slave\": {\"kind\": \"dir\", \"mode\": 493",
            "directories",
            "slave",
            "0755",
            "chmod o-rwx /var/lib/redis-slave",
        ),
        (
            "\"/var/lib\": {\"kind\": \"dir\", \"mode\": 493",
            "\"/var/lib\": {\"kind\": \"dir\", \"mode\": 448",
            "directories",
            "master",
            "cannot reach /var/lib/redis",
            "chmod o+x /var/lib",
        ),
        (
            "\"mode\": 1512, \"uid\": 101",
            "\"mode\": 1512, \"uid\": 0",
            "directories",
            "master",
            "cannot write to /var/log/redis",
            "chown redis /var/log/redis",
        ),
        (
            "redis-slave.conf\": {\"kind\": \"file\", \"mode\": 416, \"uid\": 101, \"gid\": 101",
            "redis-slave.conf\": {\"kind\": \"file\", \"mode\": 416, \"uid\": 0, \"gid\": 0",
            "configuration",
            "slave",
            "mode 0640",
            "chown redis:redis /etc/redis/redis-slave.conf && chmod 640 /etc/redis/redis-slave.conf",
        ),
        (
            "redis-slave.conf\": {\"kind\": \"file\", \"mode\": 416",
            "redis-slave.conf\": {\"kind\": \"file\", \"mode\": 420",
            "configuration",
            "slave",
            "0644",
            "chmod 640 /etc/redis/redis-slave.conf",
        ),
        (
            "ReadWritePaths=-/var/lib/redis-slave",
            "ReadWritePaths=/srv",
            "units",
            "slave",
            "does not open /var/lib/redis-slave",
            "redis-tp apply",
        ),
        (
            "\"active\": \"active\", \"pid\": 840",
            "\"active\": \"failed\", \"pid\": 0",
            "units",
            "slave",
            "failed",
            "redis-tp service start slave",
        ),
        (
            "\"pid\": 840, \"enabled\": true",
            "\"pid\": 840, \"enabled\": false",
            "units",
            "slave",
            "not enabled",
            "redis-tp service enable slave",
        ),
        (
            "\"pid\": 840, \"enabled\": true",
            "\"pid\": 840, \"needs_reload\": true",
            "units",
            "slave",
            "its files changed",
            "systemctl daemon-reload",
        ),
        (
            "\"load\": \"loaded\", \"active\": \"active\", \"pid\": 840",
            "\"load\": \"masked\", \"active\": \"inactive\", \"pid\": 0",
            "units",
            "slave",
            "masked",
            "systemctl unmask redis-server@slave.service",
        ),
    ];
    for (from, to, id, subject, words, command) in cases {
        assert!(FIT.contains(from), "{from}");
        let findings = findings(&FIT.replace(from, to), LAB, Runtime::Systemd);
        assert_fails(of(&findings, id, subject), words, command);
    }
}

#[test]
fn an_open_door_and_a_deaf_master_are_the_topologys_trouble() {
    let open = "[redis-tp]\npassword = none\n[master]\nport = 6379\nbind = 0.0.0.0\n";
    let topology = Topology::parse(open, Path::new("/t")).unwrap();
    let instances = Instance::resolve(&topology, &Secrets::default(), Runtime::Systemd);
    let facts = Facts::default();
    let subject =
        Subject { topology: &topology, instances: &instances, app: None, inside: None, facts: &facts };
    let host = Host::at(tempfile::tempdir().unwrap().path());
    let finding = machine::topology(&host, &subject).unwrap();
    assert_fails(&finding, "without a password", "redis-tp install --password-file FILE");

    let remote = LAB.replace("replicaof = master", "replicaof = 10.0.0.5 6379");
    let deaf = r#"{"upstreams": {"slave": {"trouble": "nobody listens there"}}}"#;
    let findings = findings(deaf, &remote, Runtime::Systemd);
    let command = "redis-tp replica add --name slave --port 6380 --of 10.0.0.5:6379 --password-file FILE";
    assert_fails(of(&findings, "topology", "machine"), "nobody listens there", command);
}

#[test]
fn a_refusal_of_several_commands_keeps_all_of_them() {
    for (hint, cause, command) in [
        ("let it:\nchgrp redis /k\nchmod g+r /k", "cause; let it", "chgrp redis /k\nchmod g+r /k"),
        ("renew it,\nor take it out", "cause; renew it,", "or take it out"),
        ("redis-tp up", "cause", "redis-tp up"),
    ] {
        let fault = crate::exit::Fault::refused("no").hint(hint);
        assert_eq!(super::refused(&fault, "cause"), Finding::fail("no", cause, command));
    }
}
