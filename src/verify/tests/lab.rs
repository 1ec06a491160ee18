//! Real servers for the tests, on loopback, as the topology wants them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::{Gid, Uid};

use crate::engine::Version;
use crate::facts::{Facts, Server};
use crate::finding::Findings;
use crate::host::{Host, Ids};
use crate::instance::Instance;
use crate::runtime::Runtime;
use crate::secret::Secret;
use crate::secrets::Secrets;
use crate::store::Store;
use crate::topology::Topology;
use crate::verify::{App, Curves, Options, Subject, verify};
use crate::wire::Wire;

#[path = "../../../tests/it/ports.rs"]
mod ports;

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
pub struct Lab {
    dir: tempfile::TempDir,
    pub host: Host,
    pub server: PathBuf,
    pub instances: Vec<Instance>,
    pub children: Vec<Child>,
    pub facts: Facts,
}

impl Lab {
    /// Starts what a topology names, each PORT in it being a free one; none without a server.
    pub fn start(topology: &str, password: Option<&str>) -> Option<Self> {
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
            server: Some(Server { path: server.clone(), version, unpacked: false }),
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
        let log = dir.join("log");
        (instance.logfile, instance.pidfile) = (Some(log.clone()), dir.join("pid"));
        instance.store = Store::Path(dir.clone());
        instance.dir = dir;
        let text = instance.configuration(Path::new("topology.ini"), version, &[]).unwrap();
        let conf = self.dir.path().join(instance.conf.strip_prefix("/").unwrap());
        fs::write(&conf, text).unwrap();
        fs::write(&log, "").unwrap();
        let user = user();
        for path in [&conf, &instance.dir, &log] {
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
        self.host.poll(Duration::from_secs(60), ready).unwrap().expect("the server starts");
    }

    fn await_links(&self) {
        for instance in self.instances.iter().filter(|at| at.upstream.is_some() && at.masterauth.is_some()) {
            let up = || {
                let info = self.wire(instance).info("replication").unwrap();
                Ok(info.get("master_link_status").is_some_and(|status| status == "up").then_some(()))
            };
            self.host.poll(Duration::from_secs(60), up).unwrap().expect("the link comes up");
        }
    }

    fn wire(&self, instance: &Instance) -> Wire {
        Wire::open(&self.host, &instance.address(), instance.requirepass.as_ref()).unwrap()
    }

    /// Waits until a replica has noticed that its master is gone.
    pub fn await_loss(&self, name: &str) {
        let instance = self.instances.iter().find(|at| at.name.as_str() == name).unwrap();
        let down = || {
            let info = self.wire(instance).info("replication").unwrap();
            Ok(info.get("master_link_status").is_some_and(|status| status == "down").then_some(()))
        };
        self.host.poll(Duration::from_secs(60), down).unwrap().expect("the loss is noticed");
    }

    pub fn ask(&self, name: &str, words: &[&str]) {
        let instance = self.instances.iter().find(|at| at.name.as_str() == name).unwrap();
        self.wire(instance).ask::<()>(words).unwrap();
    }

    pub fn verify(&self) -> Findings {
        let options = Options { ttl: Duration::from_millis(150), ..Options::default() };
        verify(&self.host, &self.subject(), &options, &mut |_| {}).unwrap().0
    }

    /// The proof with that of a web app beside it.
    pub fn prove(&self, app: Option<App>) -> (Findings, Curves) {
        let options = Options { app, ..Options::default() };
        verify(&self.host, &self.subject(), &options, &mut |_| {}).unwrap()
    }

    pub fn subject(&self) -> Subject<'_> {
        Subject { instances: &self.instances, facts: &self.facts, app: None }
    }

    pub fn keys_left(&self) -> u64 {
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

/// Servers run as the engine's user, or as nobody, where we are root: as root they would be a finding,
/// and another's log would not be read.
fn user() -> Ids {
    let redis = Host::real().user("redis").unwrap();
    match Uid::effective().is_root() {
        true => redis.unwrap_or(Ids { uid: 65534, gid: 65534 }),
        false => Ids { uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw() },
    }
}

fn with_ports(topology: &str) -> String {
    let mut text = topology.to_owned();
    while text.contains("PORT") {
        text = text.replacen("PORT", &ports::free_port(10_000).to_string(), 1);
    }
    text
}
