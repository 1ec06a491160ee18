//! Data that is nowhere else: no rollback, restart or removal may take it.

use crate::machine::{Init, Release};
use crate::story::bare;

const PROMOTE: &str = "redis-tp cli slave -- REPLICAOF NO ONE && redis-tp cli slave -- SET precious data";

#[test]
fn a_restart_does_not_demote_a_promoted_replica() {
    for init in [Init::None, Init::Systemd] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        machine.run("redis-tp up").ok();
        machine.run(PROMOTE).ok();
        for command in ["restart slave", "stop slave", "start slave"] {
            machine.run(&format!("redis-tp service {command}")).ok();
        }
        assert_eq!(machine.run("redis-tp cli slave -- GET precious").ok().stdout, "data\n");
        let role = machine.run("redis-tp cli slave -- ROLE").ok().stdout;
        assert!(role.starts_with("master"), "{role}");
        let seen = machine.run("redis-tp up").exits(3);
        assert!(seen.stderr.contains("slave: was promoted"), "{seen}");
    }
}

#[test]
fn a_rollback_keeps_what_a_promoted_replica_holds() {
    for init in [Init::None, Init::Systemd] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        machine.run("redis-tp install && redis-tp replica add --port 6380").ok();
        machine.run(PROMOTE).ok();
        machine.run("redis-tp rollback").ok();
        assert!(machine.exists("/var/lib/redis-slave/dump.rdb"), "the only copy is gone");
        assert_eq!(machine.run("ss -Hltn sport = :6380").ok().stdout, "", "it still runs");
    }
}

#[test]
fn a_rollback_of_a_run_before_the_promotion_does_not_demote() {
    for init in [Init::None, Init::Systemd] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        machine.run("redis-tp install && redis-tp replica add --port 6380").ok();
        machine.run("sed -i '/^port/adatabases = 20' /etc/redis-tp/topology.ini && redis-tp apply").ok();
        machine.run(PROMOTE).ok();
        machine.run("redis-tp cli master -- REPLICAOF 127.0.0.1 6380").ok();
        machine.run("redis-tp rollback").ok();
        assert_eq!(machine.run("redis-tp cli slave -- CONFIG GET databases").ok().stdout, "databases\n16\n");
        assert_eq!(machine.run("redis-tp cli slave -- GET precious").ok().stdout, "data\n");
        let role = |name: &str| machine.run(&format!("redis-tp cli {name} -- ROLE")).ok().stdout;
        assert!(role("slave").starts_with("master"), "{}", role("slave"));
        assert!(role("master").starts_with("slave"), "{}", role("master"));
    }
}

#[test]
fn a_rollback_of_the_first_run_keeps_keys_of_every_database() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up").ok();
    machine.run("redis-tp cli -- -n 1 SET precious data").ok();
    machine.run("redis-tp rollback").ok();
    assert!(machine.exists("/var/lib/redis/dump.rdb"), "the data went with the package");
}

#[test]
fn what_stood_behind_a_link_is_not_opened_to_others() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    // An administrator's own policy, kept elsewhere.
    let own = "printf '#!/bin/sh\\nexit 0\\n' > /opt/policy && chmod 755 /opt/policy && ln -s /opt/policy /usr/sbin/policy-rc.d";
    machine.run(own).ok();
    machine.run("redis-tp up").ok();
    assert_eq!(machine.run("readlink /usr/sbin/policy-rc.d").ok().stdout, "/opt/policy\n");
    machine.run("redis-tp rollback").ok();
    assert_eq!(machine.run("readlink /usr/sbin/policy-rc.d").ok().stdout, "/opt/policy\n");
    // A secret of root's, and a link to it where the server's user may make one.
    machine.run("redis-tp up && echo s3cret > /root/secret && chmod 600 /root/secret").ok();
    machine.run("ln -sf /root/secret /etc/redis/redis-slave.conf").ok();
    machine.run("redis-tp uninstall; redis-tp rollback; true").ok();
    let found =
        "find / -xdev -type f ! -path '/proc/*' -perm /044 -exec grep -l s3cret {} + 2>/dev/null; true";
    assert_eq!(machine.run(found).ok().stdout, "", "a copy of it can be read by others");
    assert_eq!(machine.run("find /etc/redis /var/lib/redis-tp -perm -o=w -type f").stdout, "");
}

#[test]
fn a_report_goes_where_it_is_sent() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up").ok();
    let out = machine.run("redis-tp verify --junit /dev/stdout | cat").ok();
    assert!(out.stdout.contains("<testsuite"), "{out}");
    machine.run("test -L /dev/stdout").ok();
    machine.run("cd /root && redis-tp verify --junit report.xml && grep -q '<testsuite' report.xml").ok();
}

#[test]
fn a_purge_takes_the_link_to_data_alone_and_says_where_they_stay() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --no-app && redis-tp cli -- SET precious data").ok();
    let move_away = |name: &str, dir: &str| {
        machine
            .run(&format!(
                "redis-tp service stop {name} && mv {dir} /srv/{name} && ln -s /srv/{name} {dir} && redis-tp service start {name}"
            ))
            .ok();
    };
    move_away("slave", "/var/lib/redis-slave");
    let out = machine.run("redis-tp replica remove slave --purge").ok();
    assert!(out.stderr.contains("what it leads to stays: rm -r /srv/slave"), "{out}");
    move_away("master", "/var/lib/redis");
    let out = machine.run("redis-tp uninstall --purge").ok();
    assert!(out.stderr.contains("what it leads to stays: rm -r /srv/master"), "{out}");
    for name in ["slave", "master"] {
        assert!(machine.exists(format!("/srv/{name}/dump.rdb")), "{name}");
    }
    let left = machine.run("ls -d /var/lib/redis* 2>&1 || :").ok().stdout;
    assert!(left.contains("cannot access"), "{left}");
}

#[test]
fn a_snapshot_is_not_passed_over_for_an_append_only_file_that_was_switched_off() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install --no-password --set appendonly=yes").ok();
    let there = "SET precious data";
    machine.run("redis-tp cli -- CONFIG SET appendonly no").ok();
    machine.run(&format!("redis-tp cli -- {there}")).ok();
    let refused = machine.run("redis-tp service restart master").exits(5);
    assert!(refused.stderr.contains("master was told appendonly no"), "{refused}");
    machine.run("redis-tp cli master -- CONFIG SET appendonly yes").ok();
    machine
        .run("until redis-tp cli -- INFO persistence | grep -q aof_rewrite_in_progress:0; do sleep 0.1; done")
        .ok();
    machine.run("redis-tp service restart master").ok();
    assert_eq!(machine.run("redis-tp cli -- GET precious").ok().stdout, "data\n");

    machine.write("/etc/redis/redis-x.conf", "port 7000\nbind 127.0.0.1\ndir /srv/redis-x\nappendonly yes\n");
    machine.run("mkdir /srv/redis-x && redis-server /etc/redis/redis-x.conf --daemonize yes").ok();
    machine.run("until redis-cli -p 7000 CONFIG SET appendonly no; do sleep 0.05; done").ok();
    machine.run(&format!("redis-cli -p 7000 {there}")).ok();
    let refused = machine.run("redis-tp adopt").exits(5);
    assert!(refused.stderr.contains("redis-cli -p 7000 CONFIG SET appendonly yes"), "{refused}");
    machine.run("redis-cli -p 7000 CONFIG SET appendonly yes && redis-tp adopt").ok();
    assert_eq!(machine.run("redis-tp cli x -- GET precious").ok().stdout, "data\n");
}

#[test]
fn a_fix_does_not_restart_a_master_that_saves_nothing() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install --no-password --set 'save=\"\"'").ok();
    machine.run("redis-tp cli -- SET precious data").ok();
    machine.run("cp -p /usr/bin/redis-check-rdb /root/new && mv /root/new /usr/bin/redis-check-rdb").ok();
    let refused = machine.run("redis-tp check --fix").exits(5);
    for word in ["changes that no file has", "redis-tp service restart master"] {
        assert!(refused.stderr.contains(word), "{refused}");
    }
    machine.run(concat!(saved!(), " && redis-tp check --fix --fail-on critical")).ok();
    assert_eq!(machine.run("redis-tp cli -- GET precious").ok().stdout, "data\n");
}

#[test]
fn a_server_that_saves_elsewhere_than_its_file_says_is_not_ended() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("apt-get install -y redis-server >/dev/null && mkdir -p /srv/redis-x /srv/redis-y && ln -s /srv /data").ok();
    machine.write(
        "/etc/redis/redis-x.conf",
        "port 7000\nbind 127.0.0.1\ndir /data/redis-x\nenable-protected-configs yes\n",
    );
    machine.run("redis-server /etc/redis/redis-x.conf --daemonize yes").ok();
    machine.run("until redis-cli -p 7000 CONFIG SET dir /srv/redis-y; do sleep 0.05; done").ok();
    machine.run("redis-cli -p 7000 SET precious data").ok();
    let refused = machine.run("redis-tp adopt").exits(5);
    for word in
        ["x has its data in /srv/redis-y", "let /etc/redis/redis-x.conf say where they are: dir /srv/redis-y"]
    {
        assert!(refused.stderr.contains(word), "{refused}");
    }
    machine.run("sed -i 's,^dir .*,dir /srv/redis-y,' /etc/redis/redis-x.conf && redis-tp adopt").ok();
    assert_eq!(machine.run("redis-tp cli x -- GET precious").ok().stdout, "data\n");
}

#[test]
fn data_are_not_left_behind_under_the_name_of_before() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    // Something lies there, and no data.
    machine.run("redis-tp install && redis-tp service stop && rm -f /var/lib/redis/dump.rdb").ok();
    machine.run("touch /var/lib/redis/notes && redis-tp install --set dbfilename=y.rdb").ok();
    machine.run("redis-tp install --set dbfilename=dump.rdb && redis-tp cli -- SET precious data").ok();
    for (setting, from, to) in
        [("dbfilename", "dump.rdb", "x.rdb"), ("appenddirname", "appendonlydir", "parts")]
    {
        let change = format!("redis-tp install --set {setting}={to}");
        let refused = machine.run(&change).exits(5);
        assert!(refused.stderr.contains(&format!("its data is in {from}, not in {to}")), "{refused}");
        machine.run("redis-tp service stop master").ok();
        let refused = machine.run(&change).exits(5);
        let copy = format!("cp -a /var/lib/redis/{from} /var/lib/redis/{to}");
        assert!(refused.stderr.contains(&copy), "{refused}");
        machine.run(&format!("{copy} && {change} && redis-tp plan | grep 'No changes'")).ok();
        assert_eq!(machine.run("redis-tp cli -- GET precious").ok().stdout, "data\n");
        machine.run("redis-tp install --set appendonly=yes").ok();
    }
    let refused = machine.run("redis-tp install --set appendfilename=other.aof").exits(5);
    assert!(refused.stderr.contains("let [master] keep appendfilename = appendonly.aof"), "{refused}");

    // The file was edited, and the server not started anew.
    machine.run("redis-tp install --set appendonly=no && redis-tp cli -- SET late data").ok();
    machine.run("echo 'dbfilename z.rdb' >> /etc/redis/redis.conf").ok();
    let refused = machine.run("redis-tp service restart master").exits(5);
    let copy = "cp -a /var/lib/redis/x.rdb /var/lib/redis/z.rdb";
    assert!(refused.stderr.contains(copy), "{refused}");
    machine.run(&format!("redis-tp service stop master && {copy} && redis-tp service start master")).ok();
    assert_eq!(machine.run("redis-tp cli -- GET late").ok().stdout, "data\n");
    machine.run("redis-tp apply --adopt").ok();

    let conf = "port 7000\nbind 127.0.0.1\ndir /srv/redis-x\nenable-protected-configs yes\n";
    machine.write("/etc/redis/redis-x.conf", conf);
    machine.run("mkdir /srv/redis-x && redis-server /etc/redis/redis-x.conf --daemonize yes").ok();
    machine.run("until redis-cli -p 7000 CONFIG SET dbfilename other.rdb; do sleep 0.05; done").ok();
    machine.run("redis-cli -p 7000 SET precious data").ok();
    let refused = machine.run("redis-tp adopt").exits(5);
    assert!(refused.stderr.contains("redis-cli -p 7000 CONFIG SET dbfilename dump.rdb"), "{refused}");
    machine.run("redis-cli -p 7000 CONFIG SET dbfilename dump.rdb && redis-tp adopt").ok();
    assert_eq!(machine.run("redis-tp cli x -- GET precious").ok().stdout, "data\n");
}
