//! The checks against real servers on loopback, sound and broken. A server is taken from
//! REDIS_TP_TEST_SERVER or PATH; without one these tests say so and pass.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Gid, Uid};

use super::*;
use crate::engine::Version;
use crate::facts::Server;
use crate::host::Ids;
use crate::runtime::Runtime;
use crate::secret::Secret;
use crate::secrets::Secrets;
use crate::topology::{Name, Topology};
use crate::wire::Wire;

const CANARY: &str = "canary-5ecret";
const LAB: &str = "[master]\nport=PORT\n[slave]\nport=PORT\nreplicaof=master\n";

/// An instance that does not run.
pub fn instance(name: &str, port: u16) -> Instance {
    let text = format!("[{name}]\nport={port}\n");
    resolve(&text, None).remove(0)
}

fn resolve(text: &str, password: Option<Secret>) -> Vec<Instance> {
    let topology = Topology::parse(text, Path::new("topology.ini")).unwrap();
    let secrets = Secrets { password, ..Secrets::default() };
    Instance::resolve(&topology, &secrets, Runtime::Process)
}

/// Servers that run until the value is dropped, and the root directory that their files are seen in.
struct Lab {
    dir: tempfile::TempDir,
    host: Host,
    server: PathBuf,
    instances: Vec<Instance>,
    children: Vec<Child>,
    facts: Facts,
}

impl Lab {
    /// Starts what a topology names, each PORT in it being a free one; none without a server.
    fn start(topology: &str, password: Option<&str>) -> Option<Self> {
        let server = server()?;
        let dir = tempfile::Builder::new().prefix("redis-tp-verify-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (link, to) in [("proc", "/proc"), ("tmp", "/tmp")] {
            symlink(to, dir.path().join(link)).unwrap();
        }
        fs::create_dir_all(dir.path().join("etc/redis")).unwrap();
        let instances = resolve(&with_ports(topology), password.map(Secret::new));
        let banner = Command::new(&server).arg("--version").output().unwrap().stdout;
        let version = Version::of_banner(&String::from_utf8_lossy(&banner)).unwrap();
        let facts = Facts {
            server: Some(Server { path: server.clone(), version }),
            user: Some(user()),
            ..Facts::default()
        };
        let host = Host::at(dir.path());
        let mut lab = Self { dir, host, server, instances, children: Vec::new(), facts };
        for index in 0..lab.instances.len() {
            lab.launch(index, version);
        }
        lab.await_links();
        Some(lab)
    }

    fn launch(&mut self, index: usize, version: Version) {
        let dir = self.dir.path().join(self.instances[index].name.as_str());
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o750)).unwrap();
        let instance = &mut self.instances[index];
        (instance.logfile, instance.pidfile) = (dir.join("log"), dir.join("pid"));
        instance.dir = dir;
        let text = instance.configuration(Path::new("topology.ini"), version, &[]).unwrap();
        let conf = self.dir.path().join(instance.conf.strip_prefix("/").unwrap());
        fs::write(&conf, text).unwrap();
        fs::write(&instance.logfile, "").unwrap();
        let user = user();
        for path in [&conf, &instance.dir, &instance.logfile] {
            chown(path, Some(user.uid), Some(user.gid)).unwrap();
            let mode = if path.is_dir() { 0o750 } else { 0o640 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut command = Command::new(&self.server);
        command.arg(&conf).args(["--daemonize", "no"]).stdout(Stdio::null()).stderr(Stdio::null());
        if Uid::effective().is_root() {
            command.uid(user.uid).gid(user.gid);
        }
        let child = command.spawn().unwrap();
        self.facts.pids.insert(instance.name.clone(), child.id());
        self.children.push(child);
        let ready = || Ok(Wire::open(&self.host, &instance.address(), instance.requirepass.as_ref()).ok());
        self.host.poll(Duration::from_secs(10), ready).unwrap().expect("the server starts");
    }

    fn await_links(&self) {
        for instance in self.instances.iter().filter(|at| at.upstream.is_some() && at.masterauth.is_some()) {
            let up = || {
                let info = self.wire(instance).info("replication").unwrap();
                Ok(info.get("master_link_status").is_some_and(|status| status == "up").then_some(()))
            };
            self.host.poll(Duration::from_secs(10), up).unwrap().expect("the link comes up");
        }
    }

    fn wire(&self, instance: &Instance) -> Wire {
        Wire::open(&self.host, &instance.address(), instance.requirepass.as_ref()).unwrap()
    }

    fn ask(&self, name: &str, words: &[&str]) {
        let instance = self.instances.iter().find(|at| at.name.as_str() == name).unwrap();
        self.wire(instance).ask::<()>(words).unwrap();
    }

    fn verify(&self) -> Findings {
        let ttl = Duration::from_millis(150);
        let subject = Subject { instances: &self.instances, facts: &self.facts };
        verify(&self.host, &subject, &Options { ttl, restart: false }, &mut |_| {}).unwrap()
    }

    fn keys_left(&self) -> u64 {
        self.instances.iter().map(|at| self.wire(at).ask::<u64>(&["DBSIZE"]).unwrap()).sum()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn server() -> Option<PathBuf> {
    let host = Host::at("/");
    let found = host.which(&host.env("REDIS_TP_TEST_SERVER").unwrap_or_else(|| "redis-server".into()));
    if found.is_none() {
        let reason = "no redis-server on PATH; `tests/run` gets one";
        assert!(host.env("REDIS_TP_TEST_FULL").is_none_or(|full| full != "1"), "{reason}");
        let thread = std::thread::current();
        // Not eprintln!: the test harness would swallow that, as the test passes.
        let _ = writeln!(std::io::stderr(), "skipped {}: {reason}", thread.name().unwrap_or("a test"));
    }
    found
}

/// Servers run as nobody where we are root: as root they would be a finding.
fn user() -> Ids {
    match Uid::effective().is_root() {
        true => Ids { uid: 65534, gid: 65534 },
        false => Ids { uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw() },
    }
}

fn with_ports(topology: &str) -> String {
    // All are held until all are known, so that none is given twice.
    let mut held = Vec::new();
    let mut text = topology.to_owned();
    while text.contains("PORT") {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        text = text.replacen("PORT", &listener.local_addr().unwrap().port().to_string(), 1);
        held.push(listener);
    }
    text
}

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
    assert_fails(&findings, "role", "slave", &["promoted", "REPLICAOF 127.0.0.1", "in the topology"]);
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
    let findings = lab.verify();
    assert_fails(&findings, "link", "slave", &["nobody listens", "redis-tp service start master"]);
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
    let subject = Subject { instances: &lab.instances, facts: &lab.facts };
    let options = Options { ttl: Duration::from_secs(60), restart: false };
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
    let script = shell(&lab.instances, &Options::default()).join("\n");
    let output = Command::new("sh").args(["-c", &script]).env("PATH", &path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for expected in ["PONG", "master_link_status:up", "hello", "READONLY", "-2"] {
        assert!(said.contains(expected), "no {expected}:\n{script}\n{said}");
    }
    assert!(!said.contains("ERR"), "{said}");
    assert_eq!(lab.keys_left(), 0);
}
