//! Backups where something stands in the way: hostile files, names that are taken, servers that do not answer
//! as they should, and runs that fail afterwards.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::backup::{ASKED, FILL, keys, only};
use crate::hardening::REWRITTEN;
use crate::machine::{Init, Machine, Release};
use crate::story::bare;

fn up(release: Release, init: Init) -> Option<Machine> {
    let machine = bare(release, init)?;
    machine.run("redis-tp up --no-app").ok();
    machine.run(FILL).ok();
    Some(machine)
}

#[test]
fn data_that_others_made_are_looked_at_by_the_servers_user() {
    let Some(machine) = up(Release::Bookworm, Init::None) else { return };
    machine.write(
        "/usr/local/bin/redis-check-rdb",
        "#!/bin/sh\nid -un >> /tmp/who\nexec /usr/bin/redis-check-rdb \"$@\"\n",
    );
    machine.run("chmod 755 /usr/local/bin/redis-check-rdb && touch /tmp/who && chmod 666 /tmp/who").ok();
    // A directory that the server's user cannot enter.
    machine.run("mkdir -m 700 /srv/closed && redis-tp backup --to /srv/closed/b.rdb").ok();
    machine.run("redis-tp restore /srv/closed/b.rdb").ok();
    machine.run("redis-tp backup --list").ok();
    assert_eq!(machine.read("/tmp/who"), "redis\n".repeat(4), "backup, restore, its own backup, list");
    assert_eq!(machine.run("stat -c '%a %U %G %h' /srv/closed/b.rdb").ok().stdout, "600 root root 1\n");
}

#[test]
fn no_backup_takes_the_place_of_another() {
    let Some(machine) = up(Release::Bookworm, Init::None) else { return };
    // Some of them in the same second.
    for _ in 0..6 {
        machine.run("redis-tp backup && redis-tp backup --to /root").ok();
    }
    for dir in ["/var/backups/redis-tp", "/root"] {
        let files = machine.run(&format!("ls {dir}/*.rdb")).ok().stdout;
        assert_eq!(files.lines().count(), 6, "{files}");
    }
    // The backup that a restore takes is not the one that it restores.
    let last = machine.run("ls -t /var/backups/redis-tp/*.rdb | head -n1").ok().stdout;
    machine.run("redis-tp cli -- FLUSHALL && redis-tp cli -- SET only now").ok();
    machine.run(&format!("redis-tp restore {last}")).ok();
    assert_eq!(keys(&machine, "redis-check-rdb", last.trim()), 1000);
    assert_eq!(machine.run("ls /var/backups/redis-tp/*.rdb | wc -l").ok().stdout, "7\n");
}

#[test]
fn the_list_tells_what_backups_there_are_and_which_are_damaged() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    let none = machine.run("redis-tp backup --list").ok();
    assert!(none.stdout.starts_with("No backups in /var/backups/redis-tp."), "{none}");
    machine.run(&format!("redis-tp up --no-app && {FILL} && redis-tp backup && redis-tp backup slave")).ok();
    let list = |words: &str| {
        let out = machine.run(&format!("redis-tp backup --list --json {words}")).ok().stdout;
        serde_json::from_str::<Value>(&out).expect("JSON")["backups"].as_array().expect("an array").clone()
    };
    let all = list("");
    let field = |name: &str| all.iter().map(|one| one[name].to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(field("instance"), "\"master\" \"slave\"");
    assert_eq!(field("keys"), "1000 1000");
    assert_eq!(field("writer"), "\"Redis 7.0.15\" \"Redis 7.0.15\"");
    assert_eq!(list("slave").len(), 1);
    // What else is there is none of ours, and what is torn is told.
    machine.run("cd /var/backups/redis-tp && cp slave-*.rdb mine.rdb && truncate -s 3000 slave-*.rdb").ok();
    let out = machine.run("redis-tp backup --list").exits(4);
    assert!(out.stdout.contains("1 000 keys") && out.stdout.contains("Unexpected EOF"), "{out}");
    assert!(out.stdout.contains("2 backups, ") && !out.stdout.contains("mine.rdb"), "{out}");
    machine.run("rm /var/backups/redis-tp/slave-*.rdb && redis-tp uninstall --purge --no-backup").ok();
    let out = machine.run("redis-tp backup --list").ok();
    assert!(out.stdout.contains("? keys") && out.stdout.contains("1 backup, "), "{out}");
}

#[test]
fn a_run_that_fails_tells_where_the_backup_is_that_it_had_taken() {
    let Some(machine) = up(Release::Bookworm, Init::None) else { return };
    // A file that cannot go away.
    machine.run("mount --bind /etc/redis/redis.conf /etc/redis/redis.conf").ok();
    let out = machine.run("redis-tp uninstall --purge").exits(8);
    let file = only(&machine);
    assert!(out.stderr.contains(&format!("backup of master: {file}")), "{out}");
    machine.run(&format!("rm {file}")).ok();
    let out = machine.run("redis-tp uninstall --purge --json").exits(8);
    let said: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|_| panic!("one document: {out}"));
    assert_eq!((&said["outcome"], &said["backups"][0]["path"]), (&"failed".into(), &only(&machine).into()));
    assert_eq!(said["backups"][0]["instance"], "master");
}

#[test]
fn a_demotion_is_backed_up_also_where_the_password_changes() {
    let Some(machine) = up(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp cli slave -- REPLICAOF NO ONE && redis-tp cli slave -- SET only here").ok();
    machine
        .run("openssl rand -hex 32 > /root/word && redis-tp install --password-file /root/word --overwrite")
        .ok();
    assert_eq!(keys(&machine, "redis-check-rdb", &only(&machine)), 1001);
    // A password file that is ahead of the servers.
    machine.run("rm /var/backups/redis-tp/* && openssl rand -hex 32 > /etc/redis-tp/password").ok();
    machine.run("redis-tp uninstall --purge").ok();
    machine.run("apt-get install -y redis-tools").ok();
    assert_eq!(keys(&machine, "redis-check-rdb", &only(&machine)), 1000);
}

#[test]
fn servers_that_answer_no_sync_are_backed_up_too() {
    let Some(machine) = up(Release::Bookworm, Init::Systemd) else { return };
    // A replica that has lost its master, under an append only file as well.
    machine.run("redis-tp service stop master && redis-tp backup slave --to /root/slave.rdb").ok();
    assert_eq!(keys(&machine, "redis-check-rdb", "/root/slave.rdb"), 1000);
    machine.run("redis-tp service start master").ok();
    machine.run("redis-tp install --set 'rename-command=SYNC \"\"'").ok();
    machine.run("redis-tp backup master --to /root/master.rdb").ok();
    assert_eq!(keys(&machine, "redis-check-rdb", "/root/master.rdb"), 1000);
    // With neither of both, it is told what can be done, and nothing goes.
    machine.run("redis-tp replica remove slave --purge").ok();
    machine.run("sed -i '/^rename-command/a rename-command = PSYNC \"\"' /etc/redis-tp/topology.ini && redis-tp apply").ok();
    let out = machine.run("redis-tp uninstall --purge").exits(8);
    assert!(out.stderr.contains("no backup of master was taken"), "{out}");
    assert!(out.stderr.contains("the same command with --no-backup"), "{out}");
    assert_eq!(machine.run("redis-tp cli -- DBSIZE").ok().stdout.trim(), "1000");
}

#[test]
fn a_place_that_cannot_take_a_backup_is_refused() {
    let Some(machine) = up(Release::Bookworm, Init::None) else { return };
    machine.run("mkdir /srv/closed && mount -t tmpfs -o ro tmpfs /srv/closed").ok();
    for (to, why) in [
        ("/srv/absent/", "there is no directory /srv/absent/"),
        ("/srv/closed", "/srv/closed cannot be written to"),
        ("/srv/closed/b.rdb", "/srv/closed cannot be written to"),
    ] {
        let out = machine.run(&format!("redis-tp backup --to {to}")).exits(5);
        assert!(out.stderr.contains(why) && out.stderr.contains("hint:"), "{out}");
    }
    machine.run("test ! -e /srv/absent").ok();
}

#[test]
fn a_backup_that_waits_ends_when_it_is_told_to_and_a_killed_one_leaves_no_setting() {
    let Some(machine) = up(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp cli -- CONFIG SET repl-diskless-sync-delay 600 repl-diskless-sync no").ok();
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut running = machine.spawn("redis-tp backup");
        machine.run(ASKED).ok();
        let start = Instant::now();
        assert!(running.signal(signal), "the backup had ended before");
        running.wait();
        assert!(start.elapsed() < Duration::from_secs(60), "it went on after {signal}");
        machine.run("redis-tp service start").ok();
        let said = machine.run("redis-tp cli -- CONFIG GET repl-diskless-sync").ok().stdout;
        assert!(said.ends_with("no\n"), "after {signal}: {said}");
        assert_eq!(machine.run("ls -A /var/backups/redis-tp 2>/dev/null; true").ok().stdout, "");
    }
}

#[test]
fn a_purge_that_the_package_could_not_finish_is_refused_before_data_go() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --no-app && redis-tp service stop").ok();
    machine.run("mount -t tmpfs tmpfs /var/lib/redis && chown redis:redis /var/lib/redis").ok();
    machine.run(&format!("redis-tp service start && {FILL}")).ok();
    let out = machine.run("redis-tp uninstall --purge").exits(5);
    assert!(out.stderr.contains("/var/lib/redis is a disk of its own"), "{out}");
    assert_eq!(machine.run("redis-tp cli -- DBSIZE").ok().stdout.trim(), "1000");
    // The way that the hint tells.
    machine.run("redis-tp backup && redis-tp uninstall && umount /var/lib/redis").ok();
    machine.run("redis-tp uninstall --purge").ok();
    machine.run("test ! -e /var/lib/redis").ok();
}

#[test]
fn data_that_an_uninstall_left_are_backed_up_before_a_purge_whatever_they_are_called() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install --set dbfilename=other.rdb && redis-tp cli -- SET precious data").ok();
    machine.run("redis-tp uninstall && redis-tp uninstall --purge").ok();
    machine.run("apt-get install -y redis-tools").ok();
    assert_eq!(keys(&machine, "redis-check-rdb", &only(&machine)), 1);
    machine.run("apt-get purge -y redis-tools && rm /var/backups/redis-tp/*").ok();
    // An append only file is no RDB: it has to be read by its server.
    machine.run("redis-tp install --set appendonly=yes --set save='\"\"'").ok();
    machine.run("redis-tp cli -- SET precious data && redis-tp uninstall").ok();
    let out = machine.run("redis-tp uninstall --purge").exits(5);
    assert!(out.stderr.contains("its append only file can only be read while it runs"), "{out}");
    assert!(out.stderr.contains("redis-tp up"), "{out}");
    // The file that stands there now knows nothing of it.
    let out = machine.run("redis-tp service start").exits(5);
    assert!(out.stderr.contains("redis-tp up"), "{out}");
    machine.run("redis-tp up --no-app").ok();
    assert_eq!(machine.run("redis-tp cli -- GET precious").ok().stdout, "data\n");
    machine.run("redis-tp cli -- FLUSHALL && redis-tp cli -- BGREWRITEAOF").ok();
    machine.run(REWRITTEN).ok();
    // One with nothing in it is in nobody's way.
    machine.run("redis-tp uninstall && redis-tp uninstall --purge").ok();
    assert_eq!(machine.run("ls -A /var/backups/redis-tp").ok().stdout, "");
}

#[test]
fn functions_are_data_too() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --no-app").ok();
    let library = "'#!lua name=lab\nredis.register_function(\"f\", function() return 1 end)'";
    machine.run(&format!("redis-tp cli -- FUNCTION LOAD {library}")).ok();
    machine.run("redis-tp uninstall --purge && redis-tp up --no-app").ok();
    let file = only(&machine);
    machine.run(&format!("redis-tp restore {file}")).ok();
    assert_eq!(machine.run("redis-tp cli -- FCALL f 0").ok().stdout, "1\n");
}

#[test]
fn a_master_that_does_not_run_is_backed_up_before_it_comes_up_as_a_replica() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --no-app && redis-tp cli slave -- REPLICAOF NO ONE").ok();
    machine.run("redis-tp cli slave -- SET only here && redis-tp service stop slave").ok();
    let out = machine.run("redis-tp apply --overwrite").ok();
    let file = only(&machine);
    assert!(out.stderr.contains(&format!("backup of slave: {file}")), "{out}");
    assert_eq!(keys(&machine, "redis-check-rdb", &file), 1);
    // One that was a replica all the time has nothing of its own.
    machine
        .run(&format!("rm {file} && redis-tp service stop && redis-tp service start && redis-tp apply"))
        .ok();
    assert_eq!(machine.run("ls -A /var/backups/redis-tp").ok().stdout, "");
}

#[test]
fn a_master_that_saves_nothing_and_lets_nobody_ask_loses_nothing_in_silence() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install --set save='\"\"' --set rename-command='CONFIG \"\"'").ok();
    machine.run("redis-tp cli -- SET precious data").ok();
    for command in ["service stop master", "service restart master", "install --set databases=20"] {
        let out = machine.run(&format!("redis-tp {command}")).exits(5);
        assert!(out.stderr.contains("1 changes that no file has"), "{out}");
    }
    machine.run("redis-tp uninstall").ok();
    assert_eq!(keys(&machine, "redis-check-rdb", &only(&machine)), 1);
}
