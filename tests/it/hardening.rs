//! The units of real machines: how far they are closed, and that a server does all its work in them.

use crate::bad_input::BY_HAND;
use crate::machine::{Init, Machine, Release};
use crate::story::{bare, contains};

/// An address of the machine that is none of loopback's.
const ELSEWHERE: &str = "ip addr add 10.9.8.7/32 dev lo";

/// A listener that is reached from elsewhere; one that is not keeps a client waiting.
const REACHED: &str = "timeout 5 redis-cli -h 10.9.8.7 -p 6379 PING";

/// Waits until an append only file is written anew, also where that was put off.
pub const REWRITTEN: &str = "until [ $(redis-tp cli -- INFO persistence | grep -cE '^aof_rewrite_(in_progress|scheduled):0') = 2 ]; do sleep 0.05; done";

/// What closes a unit.
const HARDENING: &str = include_str!("../../systemd/hardening.conf");

/// The settings that systemd shows in other words than they are written in.
const LISTS: [&str; 4] =
    ["RestrictAddressFamilies=", "IPAddress", "SystemCallFilter=", "SystemCallErrorNumber="];

/// The settings of every hardened unit but those, as systemd has to have them in effect.
fn settings() -> Vec<&'static str> {
    let (_, usual) = HARDENING.split_once("{%- else -%}").expect("what a port below 1024 has otherwise");
    let setting = |line: &&str| line.contains('=') && !line.starts_with(['#', '{']);
    let all: Vec<&str> = usual
        .lines()
        .filter(setting)
        .filter(|line| !LISTS.iter().any(|list| line.starts_with(list)))
        .collect();
    assert!(all.len() > 20, "{all:?}");
    all
}

/// What systemd finds a unit's exposure to be.
fn exposure(machine: &Machine, unit: &str) -> f64 {
    let found = machine.run(&format!("systemd-analyze security --no-pager {unit}.service"));
    let level = found.stdout.split("exposure level for ").nth(1).and_then(|rest| rest.split(' ').nth(1));
    level.and_then(|level| level.parse().ok()).unwrap_or_else(|| panic!("{found}"))
}

/// That every property is in effect, and that what is listed in words is what it is meant to be.
fn assert_in_effect(machine: &Machine, unit: &str, local: bool) {
    let shown = machine.run(&format!("systemctl show --all {unit}")).ok().stdout;
    for setting in settings().into_iter().chain(["AmbientCapabilities="]) {
        assert!(shown.lines().any(|line| line == setting), "{unit}: not {setting}");
    }
    let value = |name: &str| machine.run(&format!("systemctl show -P {name} {unit}")).ok().stdout;
    let mut families: Vec<_> =
        value("RestrictAddressFamilies").split_whitespace().map(str::to_owned).collect();
    families.sort();
    assert_eq!(families, ["AF_INET", "AF_INET6", "AF_UNIX"], "{unit}");
    let calls = value("SystemCallFilter");
    let has = |call: &str| calls.split_whitespace().any(|other| other == call);
    assert!(has("fork") && has("fsync") && !has("mount") && !has("setrlimit") && !has("chroot"), "{calls}");
    let mut denied: Vec<_> = value("IPAddressDeny").split_whitespace().map(str::to_owned).collect();
    denied.sort();
    assert_eq!(denied, if local { &["0.0.0.0/0", "::/0"][..] } else { &[] }, "{unit}");
    let status = machine.run(&format!("cat /proc/$(systemctl show -P MainPID {unit})/status")).ok();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000"] {
        contains(&status, line);
    }
}

/// That a master keeps data through a restart, writes its file anew, and fills an empty replica.
fn assert_works(machine: &Machine) {
    let cli = |words: &str| machine.run(&format!("redis-tp cli -- {words}")).ok().stdout;
    cli("SET precious data");
    cli("BGSAVE");
    let saved =
        "until redis-tp cli -- INFO persistence | grep -q 'rdb_bgsave_in_progress:0'; do sleep 0.05; done";
    machine.run(saved).ok();
    contains(&machine.run("redis-tp cli -- INFO persistence").ok(), "rdb_last_bgsave_status:ok");
    machine.run("redis-tp service restart master").ok();
    assert_eq!(cli("GET precious"), "data\n");

    machine.run("redis-tp install --set appendonly=yes").ok();
    cli("SET appended data");
    cli("BGREWRITEAOF");
    machine.run(REWRITTEN).ok();
    contains(&machine.run("redis-tp cli -- INFO persistence").ok(), "aof_last_bgrewrite_status:ok");
    assert_eq!(cli("CONFIG REWRITE"), "OK\n");
    let pid = "systemctl show -P MainPID redis-server";
    // A crash: nothing is saved on the way out.
    machine.run(&format!("kill -9 $({pid}); sleep 0.5; until redis-tp cli -- PING; do sleep 0.1; done")).ok();
    assert_eq!(cli("GET appended"), "data\n");

    // A replica without data asks for all of them.
    machine.run("redis-tp service stop slave && rm -f /var/lib/redis-slave/*.rdb").ok();
    let full = || machine.run("redis-tp cli -- INFO stats | grep sync_full").ok().stdout;
    let before = full();
    machine.run("redis-tp service start slave && redis-tp cli slave -- CONFIG REWRITE").ok();
    let synced = "for i in $(seq 100); do redis-tp cli slave -- GET appended | grep -q data && exit; sleep 0.1; done; exit 1";
    machine.run(synced).ok();
    assert_ne!(full(), before, "it was no full resync");
    machine.run("redis-tp verify --restart").ok();
}

#[test]
fn every_unit_is_closed_and_a_server_does_all_its_work_in_it() {
    for release in Release::ALL {
        let Some(machine) = bare(release, Init::Systemd) else { return };
        machine
            .run("redis-tp up --no-app && redis-tp replica add --name open --port 6381 --bind 0.0.0.0")
            .ok();
        for (unit, local) in
            [("redis-server", true), ("redis-server@slave", true), ("redis-server@open", false)]
        {
            let found = exposure(&machine, unit);
            assert!(found <= 1.1, "{release:?}, {unit}: {found}");
            assert_in_effect(&machine, unit, local);
        }
        assert_works(&machine);
        // A call that the unit refuses: under the distribution's, it is the server's end.
        machine.run("redis-tp install --set server_cpulist=0 && redis-tp cli -- PING").ok();
        contains(&machine.run("redis-tp up --no-app").ok(), "No changes");
        // A port of root's is opened by the one capability that this takes.
        machine.run("redis-tp replica add --name low --port 80").ok();
        let found = exposure(&machine, "redis-server@low");
        assert!(found <= 1.3, "{release:?}: {found}");
        let bounds = machine.run("systemctl show -P CapabilityBoundingSet redis-server@low").ok();
        assert_eq!(bounds.stdout, "cap_net_bind_service\n");
        machine.run("redis-tp check --fail-on critical && redis-tp uninstall --purge").ok();
        machine.run("ls -d /etc/systemd/system/redis*").exits(2);
    }
}

/// What a master with a port of root's is opened by, where nothing else of its unit is ours.
fn opened(machine: &Machine) -> bool {
    machine.run("redis-tp cli -- PING && redis-tp verify && redis-tp plan | grep 'No changes'").ok();
    machine.exists("/etc/systemd/system/redis-server.service.d/10-redis-tp.conf")
}

#[test]
fn a_port_of_roots_can_be_had_where_units_stay_as_the_distribution_has_them() {
    for release in Release::ALL {
        let Some(machine) = bare(release, Init::Systemd) else { return };
        machine.run_with_input("redis-tp apply -f -", "[master]\nport = 700\nharden = no\n").ok();
        assert!(opened(&machine), "{release:?}");
        let bounds = machine.run("systemctl show -P CapabilityBoundingSet redis-server").ok();
        assert_eq!(bounds.stdout, "cap_net_bind_service\n");
        for (port, opens) in [(6379, false), (701, true)] {
            machine.run(&format!("redis-tp install --port {port}")).ok();
            assert_eq!(opened(&machine), opens, "{release:?}: {port}");
        }
    }
}

#[test]
fn a_port_of_roots_that_somebody_opened_is_left_to_them() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine
        .run("apt-get install -y redis-server && sed -i 's/^port .*/port 700/' /etc/redis/redis.conf")
        .ok();
    machine.run("mkdir /etc/systemd/system/redis-server.service.d").ok();
    let theirs = "[Service]\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n\
        AmbientCapabilities=CAP_NET_BIND_SERVICE\nPrivateUsers=no\n";
    machine.write("/etc/systemd/system/redis-server.service.d/theirs.conf", theirs);
    machine.run("systemctl daemon-reload && systemctl restart redis-server && redis-tp adopt").ok();
    assert!(!opened(&machine), "they had opened it");
    machine.run("redis-tp service stop master && redis-tp apply").ok();
    assert!(!opened(&machine), "they had opened it, and it did not run");
}

#[test]
fn a_server_that_came_without_a_unit_has_a_port_of_roots() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run(BY_HAND).ok();
    machine.run("cp /opt/away/redis-server /opt/away/redis-cli /usr/local/bin/ && useradd --system --user-group redis").ok();
    for harden in ["no", "yes"] {
        let topology = format!("[master]\nport = 700\nharden = {harden}\n");
        machine.run_with_input("redis-tp apply -f -", topology).ok();
        machine.run("redis-tp cli -- PING").ok();
    }
}

#[test]
fn valkeys_units_are_closed_too() {
    let Some(machine) = bare(Release::Trixie, Init::Systemd) else { return };
    machine.run("redis-tp up --no-app --engine valkey").ok();
    for unit in ["valkey-server", "valkey-server@slave"] {
        let found = exposure(&machine, unit);
        assert!(found <= 1.1, "{unit}: {found}");
        assert_in_effect(&machine, unit, true);
    }
    machine.run("redis-tp verify --restart").ok();
}

#[test]
fn a_unit_of_our_own_is_closed_too() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    let move_away = "apt-get install -y redis-server && cp -L /usr/bin/redis-server /usr/bin/redis-cli \
                     /usr/local/bin/ && dpkg --purge redis-server redis-tools && \
                     useradd --system --user-group --home-dir /var/lib/redis redis";
    machine.run(move_away).ok();
    machine.run("redis-tp up --no-app && redis-tp replica add --name open --port 6381 --bind 0.0.0.0").ok();
    for (unit, local) in [("redis-server", true), ("redis-server@slave", true), ("redis-server@open", false)]
    {
        let found = exposure(&machine, unit);
        assert!(found <= 1.1, "{unit}: {found}");
        assert_in_effect(&machine, unit, local);
    }
    assert_works(&machine);
}

/// What an intruder tries who has the server's process, and how it ends: the script runs in the unit itself.
const INTRUDER: &str = "#!/bin/bash
try() { if \"${@:2}\" >/dev/null 2>&1; then echo \"$1 done\"; else echo \"$1 refused\"; fi; }
try write-etc touch /etc/intruder
try write-usr touch /usr/bin/intruder
try write-unit touch /etc/systemd/system/intruder.service
try write-conf touch /etc/redis/intruder
try write-data touch /var/lib/redis/intruder
try read-home grep -rq . /home /root
try read-shadow grep -q . /etc/shadow
try read-topology grep -q . /etc/redis-tp/password
try see-init grep -q . /proc/1/comm
try namespace unshare --user true
try mount mount -t tmpfs tmpfs /tmp
try set-user-id chmod u+s /var/lib/redis/intruder
try tune bash -c 'echo 1 > /proc/sys/vm/overcommit_memory'
try disk bash -c 'echo > /dev/mem'
try clock date -s 2000-01-01
try host-name hostname intruder
try reach-itself timeout 20 bash -c 'echo > /dev/tcp/127.0.0.1/22'
try reach-elsewhere timeout 5 bash -c 'echo > /dev/tcp/10.9.8.7/22'
";

#[test]
fn who_has_the_servers_process_has_no_more_than_its_data() {
    for release in Release::ALL {
        let Some(machine) = bare(release, Init::Systemd) else { return };
        machine.run("redis-tp up --no-app && redis-tp service stop").ok();
        machine.run(ELSEWHERE).ok();
        machine.run("mkdir /home/ann && echo hers > /home/ann/letter && chmod -R a+rX /home /root").ok();
        machine.write("/opt/intruder", INTRUDER);
        machine.run("chmod 755 /opt/intruder").ok();
        // Listeners of the machine's own, so that what is refused is refused by the unit.
        machine.run("systemd-run redis-server --port 22 --bind 127.0.0.1 10.9.8.7 --dir /tmp").ok();
        machine.run("until redis-cli -h 10.9.8.7 -p 22 PING; do sleep 0.05; done").ok();
        let instead = "[Service]\nType=oneshot\nRestart=no\nPIDFile=\nNoExecPaths=\nExecPaths=\n\
                       ExecStart=\nExecStart=/opt/intruder\nStandardOutput=file:/tmp/told\n";
        machine.write("/etc/systemd/system/redis-server.service.d/override.conf", instead);
        machine.run("systemctl daemon-reload && systemctl start redis-server").ok();
        let told = machine.read("/tmp/told");
        let done: Vec<&str> = told.lines().filter_map(|line| line.strip_suffix(" done")).collect();
        assert_eq!(done, ["write-conf", "write-data", "reach-itself"], "{release:?}\n{told}");
        assert_eq!(told.lines().count(), INTRUDER.lines().count() - 2, "{told}");

        // The same without the unit is done, or the test would prove nothing.
        let free = machine.run("setpriv --reuid=redis --regid=redis --clear-groups /opt/intruder").ok();
        for what in ["read-home", "see-init", "namespace", "set-user-id", "reach-elsewhere"] {
            contains(&free, &format!("{what} done"));
        }
    }
}

#[test]
fn a_server_of_this_machine_alone_follows_no_master_elsewhere_and_is_opened_by_a_restart() {
    for release in Release::ALL {
        let Some(machine) = bare(release, Init::Systemd) else { return };
        machine.run("redis-tp install").ok();
        machine.run(ELSEWHERE).ok();
        let rogue = "systemd-run redis-server --port 7777 --bind 10.9.8.7 --protected-mode no --dir /tmp";
        machine.run(rogue).ok();
        machine.run("redis-tp cli -- SET precious data").ok();
        machine.run("redis-tp cli -- REPLICAOF 10.9.8.7 7777 && sleep 3").ok();
        contains(&machine.run("redis-tp cli -- INFO replication").ok(), "master_link_status:down");
        contains(&machine.run("redis-cli -h 10.9.8.7 -p 7777 INFO replication").ok(), "connected_slaves:0");
        machine.run("redis-tp cli -- REPLICAOF NO ONE").ok();
        contains(&machine.run("redis-tp cli -- GET precious").ok(), "data");

        // Nor is it reached, if somebody opens its port by hand.
        machine.run("redis-tp cli -- CONFIG SET bind 0.0.0.0").ok();
        machine.run(REACHED).exits(124);
        machine.run("redis-tp cli -- CONFIG SET bind '127.0.0.1 -::1'").ok();
        let opened = machine.run("redis-tp install --bind 0.0.0.0").ok();
        assert!(opened.stderr.contains("restart master (its unit is opened to other machines)"), "{opened}");
        contains(&machine.run(REACHED).ok(), "NOAUTH");
        machine.run("redis-tp rollback").ok();
        machine.run(REACHED).exits(1);
        assert_in_effect(&machine, "redis-server", true);
        contains(&machine.run("redis-tp cli -- GET precious").ok(), "data");
    }
}

#[test]
fn what_an_administrator_says_of_a_unit_counts_more() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --no-app").ok();
    machine.write("/etc/systemd/system/redis-server.service.d/override.conf", "[Service]\nProtectHome=no\n");
    machine.run("systemctl daemon-reload").ok();
    contains(&machine.run("redis-tp up --no-app").ok(), "No changes");
    contains(&machine.run("systemctl show -p ProtectHome redis-server").ok(), "ProtectHome=no");
    machine
        .run("rm -r /etc/systemd/system/redis-server.service.d/override.conf && systemctl daemon-reload")
        .ok();

    let ours = "/etc/systemd/system/redis-server.service.d/10-redis-tp.conf";
    machine.run("sed -i 's/^port = 6379/&\\nharden = no/' /etc/redis-tp/topology.ini").ok();
    let applied = machine.run("redis-tp apply").ok();
    assert!(applied.stderr.contains("restart master (its unit changes)"), "{applied}");
    assert!(!machine.exists(ours), "the drop-in stays");
    contains(&machine.run("systemctl show -p IPAddressDeny redis-server").ok(), "IPAddressDeny=\n");
    contains(&machine.run("redis-tp apply").ok(), "No changes");
    machine.run("redis-tp rollback").ok();
    assert!(machine.exists(ours), "the drop-in is not back");
    assert_in_effect(&machine, "redis-server", true);
}
