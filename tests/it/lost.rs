//! The record of what is ours, deleted by hand: nothing is done by halves without it, and it is found again.

use crate::engines::Engine;
use crate::machine::{Init, Machine, Release};
use crate::story::bare;

/// What tells whether something was started anew.
fn lives(machine: &Machine) -> String {
    let ids = "for i in master slave; do redis-tp cli $i -- INFO server | grep run_id; done; redis-tp status | grep -o 'app .* pid.*'";
    machine.run(ids).ok().stdout
}

fn machines() -> impl Iterator<Item = Machine> {
    let all = [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)];
    all.into_iter().filter_map(|(release, init)| bare(release, init))
}

#[test]
fn a_deleted_record_is_found_again_and_everything_can_be_taken_away() {
    for machine in machines() {
        machine.run(concat!("redis-tp up && redis-tp cli -- SET precious data && ", saved!())).ok();
        let before = lives(&machine);
        machine.run("rm -rf /var/lib/redis-tp").ok();
        for command in [
            "uninstall",
            "uninstall --purge",
            "backup",
            "install --set maxmemory=100mb",
            "replica remove slave",
        ] {
            let refused = machine.run(&format!("redis-tp {command}")).exits(5);
            assert!(refused.stderr.ends_with("redis-tp apply\n"), "{refused}");
        }
        let found = machine.run("redis-tp apply").ok();
        assert!(found.stderr.contains("state.json was gone"), "{found}");
        assert_eq!(lives(&machine), before, "something was started anew: {found}");
        assert!(machine.run("redis-tp plan").ok().stdout.contains("No changes"));
        machine.run("redis-tp rollback").ok();
        machine.run("redis-tp apply && redis-tp install --set maxmemory=100mb").ok();
        assert!(lives(&machine).contains("run_id"));

        let out = machine.run("redis-tp uninstall --purge").ok();
        // Nobody knows whether they were there before us.
        assert!(out.stderr.contains("/var/lib/redis had data in it before redis-tp; left alone"), "{out}");
        assert!(machine.exists("/var/lib/redis/dump.rdb"), "{out}");
        assert_eq!(
            machine.run("ss -Hltn '( sport = :6379 or sport = :6380 or sport = :5000 )'").ok().stdout,
            ""
        );
        let left = "grep -rlE 'redis-tp' /etc/redis* /etc/systemd /var/lib/redis-tp 2>/dev/null; ls -d /etc/redis-tp 2>/dev/null; :";
        assert_eq!(machine.run(left).ok().stdout, "", "{out}");
    }
}

#[test]
fn what_was_there_before_comes_back_although_the_record_was_deleted() {
    for machine in machines() {
        machine.run("apt-get install -y redis-server && cp /etc/redis/redis.conf /root/stock").ok();
        machine.run("redis-tp up && rm /var/lib/redis-tp/state.json").ok();
        machine.run("redis-tp apply && redis-tp uninstall").ok();
        machine.run("cmp /root/stock /etc/redis/redis.conf").ok();
        machine.run("redis-tp up && redis-tp verify").ok();
    }
}

#[test]
fn an_instance_that_the_topology_does_not_name_is_not_forgotten_with_the_record() {
    for machine in machines() {
        machine.run("redis-tp up --no-app && rm -rf /var/lib/redis-tp").ok();
        machine.run("sed -i '/^.slave.$/,$d' /etc/redis-tp/topology.ini").ok();
        let refused = machine.run("redis-tp apply").exits(5);
        assert!(refused.stderr.contains("/etc/redis/redis-slave.conf is redis-tp's"), "{refused}");
        machine.run("rm /etc/redis-tp/topology.ini").ok();
        let refused = machine.run("redis-tp uninstall").exits(5);
        assert!(refused.stderr.ends_with("redis-tp adopt\n"), "{refused}");
        machine.run("redis-tp adopt && redis-tp uninstall").ok();
        assert_eq!(machine.run("ss -Hltn '( sport = :6379 or sport = :6380 )'").ok().stdout, "");
        assert_eq!(
            machine
                .run("ls /etc/redis/*slave* /etc/systemd/system/redis-server@* 2>/dev/null; :")
                .ok()
                .stdout,
            ""
        );
    }
}

#[test]
fn containers_are_found_again_and_can_be_taken_away() {
    for engine in Engine::ALL {
        let Some(machine) = engine.boot_or_skip() else { return };
        machine.run(&format!("redis-tp up --runtime {engine} && redis-tp cli -- SET precious data")).ok();
        let before = engine.objects(&machine) + &lives(&machine);
        machine.run("rm -rf /var/lib/redis-tp").ok();
        let refused = machine.run("redis-tp uninstall").exits(5);
        assert!(refused.stderr.ends_with("redis-tp apply\n"), "{refused}");
        machine.run("redis-tp apply").ok();
        assert!(machine.run("redis-tp plan").ok().stdout.contains("No changes"));
        assert_eq!(engine.objects(&machine) + &lives(&machine), before, "something was made anew");
        let out = machine.run("redis-tp uninstall --purge").ok();
        let left = engine.objects(&machine);
        assert!(!left.contains("container ") && !left.contains("network "), "{left}{out}");
        assert!(!machine.exists("/etc/redis-tp"), "{out}");
    }
}
