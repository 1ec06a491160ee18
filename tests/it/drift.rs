//! What others do on a machine behind our back: told by whom, kept, put back, or taken into the topology.

use crate::machine::{Init, Machine, Release};
use crate::story::bare;

fn pair() -> Option<Machine> {
    let machine = bare(Release::Bookworm, Init::Systemd)?;
    machine.run("redis-tp up --no-app").ok();
    Some(machine)
}

fn says_no_changes(machine: &Machine) {
    let plan = machine.run("redis-tp plan --detailed-exitcode").ok();
    assert!(plan.stdout.starts_with("No changes.") && plan.stderr.is_empty(), "{plan}");
}

#[test]
fn what_was_set_on_a_running_server_is_told_and_kept_until_somebody_says_otherwise() {
    let Some(machine) = pair() else { return };
    let set = "redis-tp cli -- CONFIG SET maxmemory 64mb";
    let get = "redis-tp cli -- CONFIG GET maxmemory";
    machine.run(set).ok();
    let plan = machine.run("redis-tp plan --detailed-exitcode").exits(3);
    assert!(plan.stderr.contains("maxmemory was set from 0 to 67108864 by CONFIG SET"), "{plan}");
    // Another change does not take it for ours.
    machine.run("redis-tp install --set timeout=100").exits(3);
    assert!(machine.run(get).ok().stdout.contains("67108864"));
    machine.run("redis-tp apply").exits(3);
    machine.run("redis-tp apply --overwrite").ok();
    assert_eq!(machine.run(get).ok().stdout, "maxmemory\n0\n");
    says_no_changes(&machine);
    machine.run(set).ok();
    machine.run("redis-tp apply --adopt").ok();
    says_no_changes(&machine);
    machine.run("redis-tp service restart master").ok();
    assert_eq!(machine.run(get).ok().stdout, "maxmemory\n67108864\n");
}

#[test]
fn secrets_that_were_set_on_a_running_server_are_told_and_put_back_by_name() {
    let Some(machine) = pair() else { return };
    let pid = "systemctl show -P MainPID redis-server redis-server@slave";
    machine.run("redis-tp cli slave -- CONFIG SET masterauth s3cret").ok();
    let plan = machine.run("redis-tp plan --detailed-exitcode").exits(3);
    assert!(plan.stderr.contains("slave: masterauth was set by CONFIG SET"), "{plan}");
    assert!(!plan.stderr.contains("s3cret") && !plan.stdout.contains("s3cret"), "{plan}");
    let before = machine.run(pid).ok().stdout;
    machine.run("redis-tp apply --overwrite").ok();
    says_no_changes(&machine);
    assert_eq!(machine.run(pid).ok().stdout, before, "it was restarted");

    for set in
        ["CONFIG SET requirepass s3cret", "ACL SETUSER app +keys", "ACL SETUSER mallory on nopass +@all"]
    {
        machine.run(&format!("redis-tp cli -- {set}")).ok();
        let plan = machine.run("redis-tp plan --detailed-exitcode").exits(3);
        let words: Vec<&str> = set.split(' ').collect();
        let told = match words[0] {
            "ACL" => "master: user was set by ACL SETUSER",
            _ => "master: requirepass was set by CONFIG SET",
        };
        assert!(plan.stderr.contains(told), "{set}: {plan}");
        machine.run("redis-tp apply").exits(3);
        machine.run("redis-tp apply --overwrite").ok();
        says_no_changes(&machine);
        machine.run("redis-tp verify").ok();
    }
    let users = machine.run("redis-tp cli -- ACL LIST").ok().stdout;
    assert!(!users.contains("mallory") && !users.contains("+keys"), "{users}");
    assert_eq!(machine.run(pid).ok().stdout, before, "it was restarted");

    // With one password for everybody it locks us out.
    machine.run("redis-tp install --plain").ok();
    for (set, told) in [("''", "master: asks for no password"), ("s3cret", "master: takes no password")] {
        machine.run(concat!("redis-tp cli -- SET precious data && ", saved!())).ok();
        machine.run(&format!("redis-tp cli -- CONFIG SET requirepass {set}")).ok();
        let plan = machine.run("redis-tp plan --detailed-exitcode").exits(3);
        assert!(plan.stderr.contains(told), "{plan}");
        machine.run("redis-tp apply").exits(3);
        machine.run("redis-tp apply --overwrite").ok();
        says_no_changes(&machine);
        assert_eq!(machine.run("redis-tp cli -- GET precious").ok().stdout, "data\n");
        machine.run("redis-tp verify").ok();
    }
}

#[test]
fn a_file_and_a_server_that_say_different_things_are_both_told() {
    let Some(machine) = pair() else { return };
    machine
        .run("redis-tp cli -- CONFIG SET maxmemory 64mb && echo maxmemory 32mb >> /etc/redis/redis.conf")
        .ok();
    let plan = machine.run("redis-tp plan --detailed-exitcode").exits(3);
    assert!(plan.stderr.contains("was changed by hand: 33554432 there"), "{plan}");
    assert!(plan.stderr.contains("set from 0 to 67108864 by CONFIG SET"), "{plan}");
    // The file is what the server would have after a restart.
    machine.run("redis-tp apply --adopt").ok();
    assert!(machine.run("cat /etc/redis-tp/topology.ini").ok().stdout.contains("maxmemory = 32mb"));
    assert_eq!(machine.run("redis-tp cli -- CONFIG GET maxmemory").ok().stdout, "maxmemory\n33554432\n");
    says_no_changes(&machine);
}

#[test]
fn a_file_edited_by_hand_is_taken_into_the_topology_and_its_server_told() {
    let Some(machine) = pair() else { return };
    machine
        .run("sed -i 's/^port = 6379.*/port = 6379   ; the lab says so/' /etc/redis-tp/topology.ini
            sed -i 's/^repl-diskless-sync-delay.*//; s/^bind .*/bind 127.0.0.1/; $a hz 50' /etc/redis/redis.conf
            sed -i '$a user bob on >s3cret ~bob:* +@read' /etc/redis/redis-slave.conf")
        .ok();
    machine.run("redis-tp apply").exits(3);
    let adopted = machine.run("redis-tp apply --adopt").ok();
    assert!(!adopted.stdout.contains("s3cret") && !adopted.stderr.contains("s3cret"), "{adopted}");
    says_no_changes(&machine);
    let topology = machine.run("cat /etc/redis-tp/topology.ini").ok().stdout;
    for line in
        ["; the lab says so", "bind = 127.0.0.1\n", "hz = 50\n", "defaults = masterauth\n", "user = bob on"]
    {
        assert!(topology.contains(line), "{line}: {topology}");
    }
    assert_eq!(machine.run("stat -c %a /etc/redis-tp/topology.ini").ok().stdout, "600\n");
    assert_eq!(machine.run("redis-tp cli -- CONFIG GET hz").ok().stdout, "hz\n50\n");
    machine.run("redis-tp verify").ok();
    machine.run("redis-tp apply --adopt --overwrite").exits(2);
}

#[test]
fn a_password_changed_everywhere_by_hand_becomes_ours() {
    let Some(machine) = pair() else { return };
    machine
        .run(
            "for i in slave master; do
                redis-tp cli $i -- CONFIG SET masterauth s3cret
            done
            old=$(cat /etc/redis-tp/password)
            for port in 6380 6379; do
                REDISCLI_AUTH=$old redis-cli -p $port CONFIG SET requirepass s3cret
                REDISCLI_AUTH=s3cret redis-cli -p $port CONFIG REWRITE
            done",
        )
        .ok();
    let adopted = machine.run("redis-tp apply --adopt").ok();
    assert!(!adopted.stdout.contains("s3cret") && !adopted.stderr.contains("s3cret"), "{adopted}");
    assert_eq!(machine.run("cat /etc/redis-tp/password").ok().stdout, "s3cret\n");
    says_no_changes(&machine);
    machine.run("redis-tp verify").ok();
    machine.run("redis-tp service restart && redis-tp verify").ok();
}

#[test]
fn a_failover_by_sentinel_is_understood_and_taken_into_the_topology() {
    let Some(machine) = pair() else { return };
    machine
        .run("printf 'port 26379\\nsentinel monitor lab 127.0.0.1 6379 1\\nsentinel auth-pass lab %s\\nsentinel down-after-milliseconds lab 60000\\nsentinel failover-timeout lab 3000\\ndir /tmp\\ndaemonize yes\\n' \"$(cat /etc/redis-tp/password)\" > /tmp/sentinel.conf
            redis-server /tmp/sentinel.conf --sentinel
            # It has to hear of the replica first.
            until redis-cli -p 26379 SENTINEL FAILOVER lab | grep -q OK; do sleep 0.1; done
            for i in $(seq 300); do
                redis-tp cli master -- INFO replication | grep -q link_status:up && exit 0; sleep 0.1
            done; exit 1")
        .ok();
    let seen = machine.run("redis-tp up --no-app").exits(3);
    assert!(seen.stderr.contains("slave: was promoted") && seen.stderr.contains("master: follows"), "{seen}");
    machine.run("redis-tp apply --adopt").ok();
    says_no_changes(&machine);
    let topology = machine.run("cat /etc/redis-tp/topology.ini").ok().stdout;
    let (master, slave) = topology.split_once("[slave]").expect("both are named");
    assert!(master.contains("replicaof = slave") && !slave.contains("replicaof"), "{topology}");
    machine.run("redis-cli -p 26379 SHUTDOWN; redis-tp service restart").ok();
    let role = machine.run("redis-tp cli slave -- ROLE").ok().stdout;
    assert!(role.starts_with("master"), "{role}");
    machine.run("redis-tp verify").ok();
}

#[test]
fn a_promotion_that_no_file_has_is_written_down_when_it_is_taken_over() {
    let Some(machine) = pair() else { return };
    machine.run("redis-tp cli slave -- REPLICAOF NO ONE && redis-tp cli slave -- SET own data").ok();
    machine.run("redis-tp apply --adopt").ok();
    says_no_changes(&machine);
    machine.run("! grep -q ^replicaof /etc/redis/redis-slave.conf").ok();
    machine.run("systemctl restart redis-server@slave && sleep 1").ok();
    assert_eq!(machine.run("redis-tp cli slave -- GET own").ok().stdout, "data\n");
}
