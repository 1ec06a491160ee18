//! What we render is fed to those who will read it, on each Debian: configurations to redis-server, which
//! must also take every value as the topology has it, and drop-ins to systemd.

use std::path::{Path, PathBuf};

use redis_tp::app::{App, service};
use redis_tp::engine::Version;
use redis_tp::instance::Instance;
use redis_tp::runtime::{Runtime, systemd};
use redis_tp::secret::Secret;
use redis_tp::secrets::{OfUsers, Secrets};
use redis_tp::templates;
use redis_tp::topology::Topology;

use crate::machine::{Init, Machine, Out, Release};

const LAB: &str = include_str!("../cases/conf/lab.ini");
const EVERYTHING: &str = include_str!("../cases/conf/everything.ini");

/// Every character that quoting could get wrong.
const PASSWORD: &str = "with \"quotes\", a \\, a #, an é";

/// What the servers of `everything.ini` say of themselves.
const READ_BACK: [(u16, &str, &str); 13] = [
    (7000, "bind", "127.0.0.1 -::1 -2001:db8::1"),
    (7000, "protected-mode", "no"),
    (7000, "dir", "/srv/redis/one+two"),
    (7000, "maxmemory", "104857600"),
    (7000, "maxmemory-policy", "allkeys-lru"),
    (7000, "save", "900 1 300 10 60 10000"),
    (
        7000,
        "client-output-buffer-limit",
        "normal 1048576 524288 30 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
    ),
    (7000, "proc-title-template", "{title} {listen-addr} \"quoted\" #hash"),
    (7000, "syslog-ident", "it's"),
    (7001, "replicaof", "127.0.0.1 7000"),
    (7001, "save", ""),
    (7001, "replica-read-only", "yes"),
    (7001, "repl-diskless-sync-delay", "3"),
];

/// A machine with the package on it and none of its servers running; none where there can be no machine.
fn with_package(release: Release) -> Option<(Machine, Version)> {
    let machine = Machine::boot_or_skip(release, Init::Systemd)?;
    machine.run("apt-get install -y redis-server && systemctl disable --now redis-server").ok();
    let banner = machine.run("redis-server --version").ok().stdout;
    Some((machine, Version::of_banner(&banner).expect("a server has a version")))
}

fn instances(text: &str) -> Vec<Instance> {
    let topology = Topology::parse(text, Path::new("t.ini")).expect("the case is a topology");
    let users = OfUsers { replica: Secret::new("of-a-replica"), app: Some(Secret::new("of-the-app")) };
    let password = Some(Secret::new(PASSWORD));
    let secrets = Secrets { password, users: Some(users), ..Secrets::default() };
    Instance::resolve(&topology, &secrets, Runtime::Systemd)
}

fn render(instance: &Instance, version: Version) -> String {
    instance.configuration(Path::new("t.ini"), version, &[]).expect("it renders")
}

/// The parse probe: the server has read a whole text if what it refuses is the port behind it.
fn probe(machine: &Machine, text: &str) -> Out {
    machine.run_with_input("runuser -u redis -- redis-server - --port redis-tp-eof", text).exits(1)
}

fn reads_whole(out: &Out) -> bool {
    format!("{}{}", out.stdout, out.stderr).contains("port \"redis-tp-eof\"")
}

#[test]
fn every_rendered_configuration_is_read_to_its_end() {
    for release in Release::ALL {
        let Some((machine, version)) = with_package(release) else { return };
        machine
            .run("install -d -o redis /srv/redis/one+two /srv/logs /var/lib/redis-slave /var/lib/redis-third")
            .ok();
        for instance in [LAB, EVERYTHING].iter().flat_map(|text| instances(text)) {
            let text = render(&instance, version);
            let out = probe(&machine, &text);
            assert!(reads_whole(&out), "{release:?}, {}:\n{text}\n{out}", instance.name);
        }
        // Not an unknown directive: Redis 8 puts its complaint off.
        let wrong = probe(&machine, "maxmemory lots\n");
        assert!(!reads_whole(&wrong), "the probe does not see a wrong line:\n{wrong}");
    }
}

#[test]
fn a_server_takes_every_value_as_the_topology_has_it() {
    for release in Release::ALL {
        let Some((machine, version)) = with_package(release) else { return };
        machine.write("/tmp/password", PASSWORD);
        for instance in instances(EVERYTHING) {
            let run = instance.pidfile.parent().expect("a pid file is in a directory").to_owned();
            let log = instance.log_dir().expect("a log is in a directory").to_owned();
            for directory in [&instance.dir, &run, &log] {
                machine.run(&format!("install -d -o redis -g redis {}", directory.display())).ok();
            }
            machine.write(&instance.conf, render(&instance, version));
            machine.run(&format!("runuser -u redis -- redis-server {}", instance.conf.display())).ok();
        }
        let ask = |port: u16, words: &str| {
            let cli =
                format!("REDISCLI_AUTH=\"$(cat /tmp/password)\" redis-cli -e --user admin -p {port} {words}");
            machine.run(&cli)
        };
        for port in [7000, 7001] {
            let up = format!("until redis-cli -p {port} PING; do sleep 0.05; done");
            machine.run(&up).ok();
        }
        for (port, directive, value) in READ_BACK {
            let said = ask(port, &format!("CONFIG GET {directive}")).ok().stdout;
            let expected = format!("{directive}\n{value}\n");
            assert_eq!(said, expected, "{release:?}, port {port}");
        }
        let keys = ask(7000, "KEYS '*'").exits(1);
        assert!(keys.stderr.contains("unknown command"), "KEYS was not renamed away: {keys}");
        let worker = "redis-cli -e -p 7000 --user worker --pass 'pa55#word' GET jobs:1";
        machine.run(worker).ok();
        let link = "for i in $(seq 50); do redis-cli --user admin -p 7001 INFO replication | grep -q status:up && exit 0; sleep 0.1; done; exit 1";
        machine.run(&format!("export REDISCLI_AUTH=\"$(cat /tmp/password)\"; {link}")).ok();
    }
}

#[test]
fn systemd_takes_every_line_of_a_drop_in() {
    for release in Release::ALL {
        let Some((machine, _)) = with_package(release) else { return };
        for instance in [LAB, EVERYTHING].iter().flat_map(|text| instances(text)) {
            let closed = systemd::closed_to(&instance);
            let path = systemd::drop_in(&instance.unit);
            let hardening = systemd::hardening(&instance);
            let text = templates::drop_in(&instance.unit, &closed, &hardening, true).expect("it renders");
            write_drop_in(&machine, &path, &text);
            let verified = verify(&machine, &instance.unit);
            assert_eq!(verified.status, 0, "{release:?}\n{text}\n{verified}");
            assert_eq!(verified.stderr, "", "{release:?}\n{text}");
            let shown =
                machine.run(&format!("systemctl show -P ReadWritePaths {}", instance.unit)).ok().stdout;
            let open: Vec<&str> = shown.split_whitespace().collect();
            assert!(
                closed.iter().all(|path| open.contains(&path.as_str())),
                "{closed:?} are not in {open:?}"
            );

            write_drop_in(&machine, &path, &text.replace("ProtectHome", "ProtectHoem"));
            let verified = verify(&machine, &instance.unit);
            assert!(
                verified.stderr.contains("ProtectHoem"),
                "systemd does not see a wrong line:\n{verified}"
            );
            machine.run(&format!("rm {}", path.display())).ok();
        }
    }
}

/// What an app may be told that changes its unit, and the exposure that systemd may find at most.
const APPS: [(&str, &str); 3] = [
    ("[master]\nport = 6379\n[app]\n", "1.5"),
    ("[master]\nport = 6379\nbind = *\n[app]\nbind = 0.0.0.0\n", "1.5"),
    ("[master]\nport = 6379\n[app]\nport = 80\n", "1.7"),
];

#[test]
fn systemd_takes_every_line_of_the_apps_unit_and_finds_it_hardened() {
    for release in Release::ALL {
        let Some(machine) = Machine::boot_or_skip(release, Init::Systemd) else { return };
        // Any program does: what is looked at is the unit.
        machine.run("cp /bin/true /usr/local/bin/redis-tp").ok();
        for (text, exposure) in APPS {
            let topology = Topology::parse(text, Path::new("t.ini")).expect("the case is a topology");
            let app = App::resolve(&topology, &instances(text), Runtime::Systemd).expect("it has an app");
            let text = app.unit(Path::new("/usr/local/bin/redis-tp"), false).expect("it renders");
            write_drop_in(&machine, &service::unit_file(), &text);
            let verified = verify(&machine, service::UNIT);
            assert_eq!(
                (verified.status, verified.stderr.as_str()),
                (0, ""),
                "{release:?}\n{text}\n{verified}"
            );
            let security = format!("systemd-analyze security --no-pager {}", service::UNIT);
            let found = machine.run(&security).stdout;
            let score = found.lines().find_map(|line| line.split("level for redis-tp-app.service: ").nth(1));
            let score = score.and_then(|rest| rest.split_whitespace().next()).expect("it has a score");
            let [score, limit] = [score, exposure].map(|text| text.parse::<f64>().expect("a number"));
            assert!(score <= limit, "{release:?}: {score}\n{text}\n{found}");
        }
        write_drop_in(&machine, &service::unit_file(), "[Service]\nExecStart=/bin/true\nProtectHoem=yes\n");
        let verified = verify(&machine, service::UNIT);
        assert!(verified.stderr.contains("ProtectHoem"), "systemd does not see a wrong line:\n{verified}");
    }
}

fn write_drop_in(machine: &Machine, path: &PathBuf, text: &str) {
    let parent = path.parent().expect("a drop-in is in a directory");
    machine.run(&format!("mkdir -p {}", parent.display())).ok();
    machine.write(path, text);
    machine.run("systemctl daemon-reload").ok();
}

fn verify(machine: &Machine, unit: &str) -> Out {
    machine.run(&format!("systemd-analyze verify --man=no --recursive-errors=no {unit}"))
}
