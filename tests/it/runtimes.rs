//! One story on every runtime: a table of who keeps servers running, and a table of what is done, in this
//! order. A runtime that cannot take a step says so in its row.

use std::thread;
use std::time::Duration;

use crate::containers;
use crate::engines::Engine;
use crate::machine::{Alike, Init, Machine, Out, Release, Snapshot, differences};
use crate::story::{self, bare};
use crate::user::{ann, with_ann};

/// A row of the first table.
struct Runtime {
    name: &'static str,
    /// What it is called on the command line.
    word: &'static str,
    kind: Kind,
    /// The steps that it cannot take, and why.
    cannot: &'static [(&'static str, &'static str)],
}

/// Where it all happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// On the machine itself, as root.
    Machine(Release, Init),
    /// In containers.
    Containers(Engine),
    /// On the machine itself, as an ordinary user.
    User(Release, Init),
}

const NOT_AT_BOOT: &str = "nothing starts processes at boot; one more `up` does";

const RUNTIMES: [Runtime; 7] = [
    Runtime {
        name: "systemd",
        word: "systemd",
        kind: Kind::Machine(Release::Bookworm, Init::Systemd),
        cannot: &[],
    },
    Runtime {
        name: "systemd of Debian 13",
        word: "systemd",
        kind: Kind::Machine(Release::Trixie, Init::Systemd),
        cannot: &[],
    },
    Runtime {
        name: "process",
        word: "process",
        kind: Kind::Machine(Release::Bookworm, Init::None),
        cannot: &[("boot", NOT_AT_BOOT), ("reboot", NOT_AT_BOOT)],
    },
    Runtime { name: "docker", word: "docker", kind: Kind::Containers(Engine::Docker), cannot: &[] },
    Runtime {
        name: "podman",
        word: "podman",
        kind: Kind::Containers(Engine::Podman),
        cannot: &[
            ("boot", "before 5.1 it cannot change the restart policy of a container"),
            (
                "reboot",
                "its podman-restart.service starts those only that always restart; one more `up` does",
            ),
        ],
    },
    Runtime {
        name: "process, without root",
        word: "process",
        kind: Kind::User(Release::Bookworm, Init::None),
        cannot: &[("boot", NOT_AT_BOOT), ("reboot", NOT_AT_BOOT)],
    },
    Runtime {
        name: "process, without root, beside systemd",
        word: "process",
        kind: Kind::User(Release::Trixie, Init::Systemd),
        cannot: &[("boot", NOT_AT_BOOT), ("reboot", NOT_AT_BOOT)],
    },
];

/// A row of the second table.
type Step = (&'static str, fn(&mut Lab));

const STEPS: [Step; 11] = [
    ("up", up),
    ("again", again),
    ("data", data),
    ("replica", replica),
    ("setting", setting),
    ("rewrite", rewrite),
    ("death", death),
    ("service", service),
    ("boot", boot),
    ("reboot", reboot),
    ("uninstall", uninstall),
];

#[test]
fn the_same_story_holds_on_every_runtime() {
    let mut broken = Vec::new();
    for pair in RUNTIMES.chunks(2) {
        thread::scope(|scope| {
            // A panic tells the name of its thread.
            let named = |runtime: &Runtime| thread::Builder::new().name(runtime.name.into());
            let start = |runtime: &'static Runtime| {
                named(runtime).spawn_scoped(scope, move || tell(runtime)).expect("a thread")
            };
            let told: Vec<_> = pair.iter().map(|runtime| (runtime.name, start(runtime))).collect();
            broken.extend(told.into_iter().filter_map(|(name, told)| told.join().is_err().then_some(name)));
        });
    }
    assert!(broken.is_empty(), "the story does not hold on: {broken:?}");
}

fn tell(runtime: &'static Runtime) {
    let Some(machine) = runtime.boot_or_skip() else { return };
    for (name, why) in runtime.cannot {
        assert!(STEPS.iter().any(|(step, _)| step == name), "{}: no step '{name}' ({why})", runtime.name);
    }
    let mut lab = Lab { machine, runtime, before: Snapshot::new() };
    lab.before = lab.places();
    for (name, step) in STEPS {
        if runtime.cannot.iter().all(|(cannot, _)| *cannot != name) {
            step(&mut lab);
        }
    }
}

impl Runtime {
    fn boot_or_skip(&self) -> Option<Machine> {
        match self.kind {
            Kind::Machine(release, init) => bare(release, init),
            Kind::Containers(engine) => engine.boot_or_skip(),
            Kind::User(release, init) => with_ann(release, init),
        }
    }
}

/// A machine, and how things are done on it.
struct Lab {
    machine: Machine,
    runtime: &'static Runtime,
    /// What was there before the first step.
    before: Snapshot,
}

impl Lab {
    /// Runs a command as whoever's the instances are.
    fn run(&self, command: &str) -> Out {
        match self.runtime.kind {
            Kind::User(..) => ann(&self.machine, command),
            _ => self.machine.run(command),
        }
    }

    #[track_caller]
    fn says(&self, command: &str, text: &str) {
        let out = self.run(command).ok();
        assert!(out.stdout.contains(text), "{}: no '{text}' in:\n{out}", self.runtime.name);
    }

    /// A replica asks for its master once a second, and longer where a name has to be found.
    #[track_caller]
    fn until(&self, command: &str) {
        for _ in 0..100 {
            if self.run(command).status == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(200));
        }
        self.run(command).ok();
    }

    fn places(&self) -> Snapshot {
        match self.runtime.kind {
            Kind::Machine(..) => story::places(&self.machine),
            Kind::Containers(_) => containers::places(&self.machine),
            Kind::User(..) => self.machine.snapshot(&["/home/ann"]),
        }
    }

    /// The servers and the app, as the machine's own processes; none where an engine only has them.
    fn pids(&self) -> Vec<u64> {
        let status = self.run("redis-tp status --json");
        let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("status is JSON");
        let nodes = status["nodes"].as_array().expect("there are nodes").iter();
        nodes.chain([&status["app"]]).filter_map(|node| node["pid"].as_u64()).collect()
    }
}

fn up(lab: &mut Lab) {
    let word = lab.runtime.word;
    lab.says(&format!("redis-tp up --runtime {word}"), "next:");
    lab.run("redis-tp verify").ok();
    lab.run("redis-tp check").ok();
    lab.says("redis-tp status", &format!("· {word}"));
    assert_eq!(lab.pids().len(), 3, "{}: master, slave and app", lab.runtime.name);
}

fn again(lab: &mut Lab) {
    let (files, pids) = (lab.places(), lab.pids());
    lab.says("redis-tp up", "No changes");
    assert_eq!(differences(&files, &lab.places(), Alike::Untouched), [""; 0]);
    assert_eq!(pids, lab.pids(), "{}: something was started anew", lab.runtime.name);
}

fn data(lab: &mut Lab) {
    lab.says("redis-tp cli -- SET bonjour monde", "OK");
    lab.says("redis-tp cli -- WAIT 1 5000", "1");
    lab.says("redis-tp cli slave -- GET bonjour", "monde");
    lab.run("redis-tp cli slave -- SET bonjour toi").exits(1);
}

fn replica(lab: &mut Lab) {
    // Without the app, which has to be told of each replica.
    let servers = |lab: &Lab| lab.pids()[..2].to_vec();
    let before = servers(lab);
    lab.run("redis-tp replica add --port 6381 --of slave").ok();
    lab.says("redis-tp replica list", "slave-6381");
    lab.until("redis-tp verify");
    lab.says("redis-tp cli slave-6381 -- GET bonjour", "monde");
    lab.run("redis-tp rollback").ok();
    lab.run("redis-tp cli slave-6381 -- PING").exits(2);
    lab.run("redis-tp replica add --port 6381").ok();
    lab.run("redis-tp replica remove slave-6381 --purge").ok();
    lab.says("redis-tp up", "No changes");
    assert_eq!(before, servers(lab), "{}: another was started anew", lab.runtime.name);
}

fn setting(lab: &mut Lab) {
    lab.run("redis-tp install --set maxmemory=90mb").ok();
    lab.says("redis-tp cli -- CONFIG GET maxmemory", "94371840");
    lab.until("redis-tp verify");
    lab.run("redis-tp rollback").ok();
    lab.until("redis-tp verify");
    lab.says("redis-tp up", "No changes");
    lab.says("redis-tp cli -- GET bonjour", "monde");
}

fn rewrite(lab: &mut Lab) {
    for instance in ["master", "slave"] {
        lab.says(&format!("redis-tp cli {instance} -- CONFIG REWRITE"), "OK");
    }
    lab.says("redis-tp up", "No changes");
    lab.run("redis-tp cli -- CONFIG SET timeout 77").ok();
    lab.run("redis-tp cli -- CONFIG REWRITE").ok();
    let seen = lab.run("redis-tp up").exits(3);
    assert!(seen.stderr.contains("timeout in "), "{}: {seen}", lab.runtime.name);
    lab.run("redis-tp apply --overwrite").ok();
    lab.until("redis-tp verify");
    lab.says("redis-tp up", "No changes");
}

fn death(lab: &mut Lab) {
    lab.until("redis-tp cli -- SAVE");
    let master = lab.pids()[0];
    lab.machine.run(&format!("kill -9 {master}")).ok();
    // Whoever has no one to start it again needs a word.
    if lab.runtime.word == "process" {
        lab.run("redis-tp status").exits(4);
        lab.run("redis-tp apply").ok();
    }
    lab.until("redis-tp status");
    lab.until("redis-tp verify");
    assert_ne!(lab.pids()[0], master);
    lab.says("redis-tp cli slave -- GET bonjour", "monde");
    lab.says("redis-tp up", "No changes");
}

fn service(lab: &mut Lab) {
    lab.run("redis-tp service stop").ok();
    lab.run("redis-tp status").exits(4);
    assert_eq!(lab.machine.run("ss -Hltn | grep -E ':(6379|6380|5000) '").stdout, "", "it still listens");
    lab.run("redis-tp service start").ok();
    lab.until("redis-tp verify");
    let before = lab.pids();
    lab.run("redis-tp service restart slave").ok();
    lab.until("redis-tp verify --restart");
    assert_ne!(before[1], lab.pids()[1], "{}: not restarted", lab.runtime.name);
    lab.says("redis-tp cli slave -- GET bonjour", "monde");
    lab.says("redis-tp service logs master", "Ready to accept connections");
    lab.says("redis-tp up", "No changes");
}

fn boot(lab: &mut Lab) {
    lab.run("redis-tp service disable slave").ok();
    lab.run("redis-tp check").exits(4);
    lab.run("redis-tp service enable slave").ok();
    lab.run("redis-tp check").ok();
    lab.says("redis-tp up", "No changes");
}

fn reboot(lab: &mut Lab) {
    if lab.runtime.kind == Kind::Containers(Engine::Docker) {
        lab.machine.run("systemctl enable docker").ok();
    }
    lab.machine.reboot();
    lab.until("redis-tp status");
    lab.until("redis-tp verify");
    lab.says("redis-tp cli slave -- GET bonjour", "monde");
    lab.says("redis-tp up", "No changes");
}

fn uninstall(lab: &mut Lab) {
    // Data stays, unless it is to go.
    lab.run("redis-tp uninstall").ok();
    lab.says(&format!("redis-tp up --runtime {}", lab.runtime.word), "next:");
    lab.says("redis-tp cli -- GET bonjour", "monde");
    lab.run("redis-tp uninstall --purge --no-backup").ok();
    assert_eq!(differences(&lab.before, &lab.places(), Alike::Equivalent), [""; 0], "{}", lab.runtime.name);
    assert_eq!(lab.machine.run("ps -e -o comm= | grep redis").stdout, "", "a process is left");
    if let Kind::Containers(engine) = lab.runtime.kind {
        assert_eq!(engine.objects(&lab.machine), "", "{engine}");
    }
    lab.says("redis-tp uninstall", "No changes");
}
