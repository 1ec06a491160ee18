//! What stands in a container's way: a clear error with the cure, and nothing left behind.

use super::places;
use crate::engines::{Engine, bare_or_skip};
use crate::machine::{Alike, Machine, differences};

/// One thing that stands in the way.
struct Case {
    what: &'static str,
    /// Shell that makes the trouble, and shell that ends it; `ENGINE` is the engine's name.
    given: (&'static str, &'static str),
    run: &'static str,
    exit: i32,
    /// What stderr has to say: the object and the cure.
    says: &'static [&'static str],
    engines: &'static [Engine],
}

const UP: &str = "redis-tp up --runtime ENGINE";

const CASES: &[Case] = &[
    Case {
        what: "an image that is not here",
        given: ("", ""),
        run: "redis-tp up --runtime ENGINE --image absent:7",
        exit: 5,
        says: &["the image absent:7 is not here", "ENGINE load -i image.tar.gz"],
        engines: &Engine::ALL,
    },
    Case {
        what: "an image without a server",
        given: (
            "mkdir -p /tmp/i/bin && cp -L /bin/dash /tmp/i/bin/sh && \
             tar -C / -c lib64 usr/lib64 lib usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 \
             usr/lib/x86_64-linux-gnu/libc.so.6 bin usr/bin/dash usr/bin/sh | ENGINE import - empty:1",
            "ENGINE rmi empty:1",
        ),
        run: "redis-tp up --runtime ENGINE --image empty:1",
        exit: 5,
        says: &["there is no redis-server in the image empty:1", "--image"],
        engines: &Engine::ALL,
    },
    Case {
        what: "a container of somebody else's with the name of ours",
        given: ("ENGINE run -d --name redis-slave redis:7", "ENGINE rm -fv redis-slave"),
        run: UP,
        exit: 5,
        says: &["there is a container redis-slave already", "ENGINE rename redis-slave"],
        engines: &Engine::ALL,
    },
    Case {
        what: "a stopped container of somebody else's with the name of the app's",
        given: ("ENGINE create --name redis-app redis:7", "ENGINE rm -v redis-app"),
        run: UP,
        exit: 5,
        says: &["there is a container redis-app already", "ENGINE rm -f redis-app"],
        engines: &Engine::ALL,
    },
    Case {
        what: "a network of somebody else's with the name of ours",
        given: ("ENGINE network create redis-tp", "ENGINE network rm redis-tp"),
        run: UP,
        exit: 5,
        says: &["network redis-tp already", "ENGINE network rm redis-tp"],
        engines: &Engine::ALL,
    },
    Case {
        what: "a port that another container publishes",
        given: ("ENGINE run -d --name other -p 127.0.0.1:6380:6379 redis:7", "ENGINE rm -fv other"),
        run: UP,
        exit: 5,
        says: &["6380"],
        engines: &Engine::ALL,
    },
    Case {
        what: "a port that a process of the machine has",
        given: (
            "systemd-run --quiet --unit other perl -MIO::Socket::INET -e \
             'my $own = IO::Socket::INET->new(LocalAddr => \"127.0.0.1:6379\", Listen => 1) or die; sleep'; \
             until ss -Hltn | grep -q :6379; do sleep 0.05; done",
            "systemctl stop other",
        ),
        run: UP,
        exit: 5,
        says: &["6379"],
        engines: &Engine::ALL,
    },
    Case {
        what: "a volume that another user owns",
        given: (
            "ENGINE run --rm --user 0 -v redis-master-data:/data redis:7 sh -c 'echo x > /data/x; chown -R 4711 /data'",
            "ENGINE volume rm redis-master-data",
        ),
        run: UP,
        exit: 5,
        says: &[
            "the ENGINE volume redis-master-data belongs to uid 4711",
            "ENGINE volume rm redis-master-data",
        ],
        engines: &Engine::ALL,
    },
    Case {
        what: "a daemon that does not run",
        given: (
            "systemctl stop docker.socket docker containerd 2>/dev/null; rm -f /run/docker.sock",
            "systemctl start docker",
        ),
        run: UP,
        exit: 5,
        says: &["docker's daemon does not run", "systemctl start docker"],
        engines: &[Engine::Docker],
    },
    Case {
        what: "an engine that is not on PATH",
        given: (
            "mkdir /opt/aside && mv /usr/bin/docker /usr/bin/podman /opt/aside",
            "mv /opt/aside/* /usr/bin && rmdir /opt/aside",
        ),
        run: UP,
        exit: 5,
        says: &["ENGINE", "on PATH", "apt-get install"],
        engines: &Engine::ALL,
    },
    Case {
        what: "a container that dies when it is started",
        given: ("", ""),
        run: "redis-tp install --runtime ENGINE --set unixsocket=/data/nowhere/socket",
        exit: 8,
        says: &["redis-master", "Failed opening Unix socket"],
        engines: &Engine::ALL,
    },
];

#[test]
fn what_stands_in_a_containers_way_is_named_with_its_cure_and_nothing_is_left() {
    for engine in Engine::ALL {
        let Some(machine) = engine.boot_or_skip() else { return };
        let cases = CASES.iter().filter(|case| case.engines.contains(&engine));
        let wrong: Vec<_> = cases.filter_map(|case| case.try_on(&machine, engine)).collect();
        assert!(wrong.is_empty(), "{engine}: {}", wrong.join("\n\n"));
    }
}

impl Case {
    /// What is wrong with how the machine takes it; nothing, if all is well.
    fn try_on(&self, machine: &Machine, engine: Engine) -> Option<String> {
        let name = engine.to_string();
        let of_engine = |text: &str| text.replace("ENGINE", &name);
        machine.run(&of_engine(self.given.0)).ok();
        let objects = || machine.run("docker ps -q >/dev/null 2>&1").status == 0 || engine == Engine::Podman;
        let before = (objects() && machine.run(&format!("command -v {engine}")).status == 0)
            .then(|| engine.objects(machine));
        let files = places(machine);
        let out = machine.run(&of_engine(self.run));
        let mut wrong = Vec::new();
        if out.status != self.exit {
            wrong.push(format!("exit code {} is wanted", self.exit));
        }
        for text in self.says.iter().map(|text| of_engine(text)) {
            if !out.stderr.contains(&text) {
                wrong.push(format!("'{text}' is not said"));
            }
        }
        if let Some(before) = before {
            let after = engine.objects(machine);
            if before != after {
                wrong.push(format!("the engine had\n{before}and has\n{after}"));
            }
        }
        let mut left = places(machine);
        // The record of a run that failed stays.
        left.retain(|path, _| {
            !path.starts_with("/var/lib/redis-tp") && !path.starts_with("/var/log/redis-tp")
        });
        wrong.extend(
            differences(&files, &left, Alike::Equivalent)
                .into_iter()
                .filter(|line| !line.contains("gone: /var/l")),
        );
        let cleared = machine.run(&of_engine(self.given.1));
        if cleared.status != 0 {
            wrong.push(format!("the trouble does not end:\n{cleared}"));
        }
        (!wrong.is_empty()).then(|| format!("{}: {}\n{out}", self.what, wrong.join("; ")))
    }
}

#[test]
fn a_daemon_that_lets_nobody_in_is_named_with_the_cure() {
    let Some(machine) = Engine::Docker.boot_or_skip() else { return };
    machine.run("useradd --create-home joe").ok();
    let out = machine.run("su - joe -c '/usr/local/bin/redis-tp up --runtime docker'").exits(5);
    assert!(out.stderr.contains("permission denied") && out.stderr.contains("usermod -aG docker"), "{out}");
    assert_eq!(machine.run("find /home/joe -name '*redis*'").ok().stdout, "", "something is left");
    assert_eq!(Engine::Docker.objects(&machine), "");
}

#[test]
fn a_machine_with_neither_engine_started_is_told_what_to_do() {
    let Some(machine) = bare_or_skip() else { return };
    let out = machine.run("redis-tp up --runtime docker").exits(5);
    assert!(out.stderr.contains("systemctl start docker"), "{out}");
    let out = machine.run("redis-tp up --runtime podman").exits(5);
    assert!(out.stderr.contains("podman load"), "{out}");
}
