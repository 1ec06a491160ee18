//! Backups on real servers: whole, checked, nobody else's to read, and taken before data go.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::faults::{Struck, disturb};
use crate::machine::{Init, Machine, Release};
use crate::story::bare;

pub const FILL: &str =
    "redis-tp cli -- EVAL \"for i = 1, 1000 do redis.call('SET', i, string.rep('x', 2000)) end\" 0";

/// The one backup that there is in the usual place.
pub fn only(machine: &Machine) -> String {
    let all = machine.run("ls /var/backups/redis-tp/*").ok().stdout;
    let mut lines = all.lines();
    let first = lines.next().expect("there is a backup").to_owned();
    assert_eq!(lines.next(), None, "more than one file: {all}");
    first
}

/// How many keys are in a file, as the engine's own program counts them.
pub fn keys(machine: &Machine, program: &str, file: &str) -> u64 {
    let said = machine.run(&format!("{program} {file}")).ok().stdout;
    let line = said.lines().find_map(|line| line.strip_suffix(" keys read")).expect("keys are counted");
    line.split_whitespace().last().expect("a number").parse().expect("a number")
}

#[test]
fn a_backup_holds_every_key_and_touches_nothing_of_the_servers() {
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = bare(release, init) else { return };
        machine.run("redis-tp up --no-app").ok();
        let none = machine.run("redis-tp backup").ok();
        assert!(none.stdout.contains("There is nothing to back up"), "{none}");
        machine.run(FILL).ok();
        machine.run("redis-tp cli -- -n 3 SET other database").ok();
        let before =
            machine.run("ls -l --time-style=full-iso /var/lib/redis /var/lib/redis-slave").ok().stdout;
        let out = machine.run("umask 000; redis-tp backup").ok();
        let file = only(&machine);
        assert!(out.stdout.contains(&format!("backup of master: {file}")), "{out}");
        assert_eq!(keys(&machine, "redis-check-rdb", &file), 1001);
        let modes = machine.run(&format!("stat -c '%a %U' {file} /var/backups/redis-tp")).ok().stdout;
        assert_eq!(modes, "600 root\n700 root\n");
        let after =
            machine.run("ls -l --time-style=full-iso /var/lib/redis /var/lib/redis-slave").ok().stdout;
        assert_eq!(before, after, "the servers' own files changed");
        let undone = machine.run("redis-tp rollback --dry-run").ok();
        assert!(undone.stdout.contains("'redis-tp up' would be undone"), "{undone}");
    }
}

#[test]
fn valkey_is_backed_up_too() {
    let Some(machine) = bare(Release::Trixie, Init::None) else { return };
    machine.run("redis-tp up --engine valkey --no-app").ok();
    machine.run(FILL).ok();
    machine.run("redis-tp backup").ok();
    assert_eq!(keys(&machine, "valkey-check-rdb", &only(&machine)), 1000);
}

#[test]
fn a_backup_under_load_is_sound_and_nobody_waits() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --no-app").ok();
    machine.run(FILL).ok();
    machine.run("cat /etc/redis-tp/password > /root/word").ok();
    let load = machine
        .spawn("sh -c 'REDISCLI_AUTH=$(cat /root/word) redis-benchmark -q -t set -n 100000 -r 5000 -d 500'");
    thread::sleep(Duration::from_millis(200));
    for _ in 0..3 {
        machine.run("redis-tp backup --to /root").ok();
        thread::sleep(Duration::from_millis(1100));
    }
    drop(load);
    let files = machine.run("ls /root/*.rdb").ok().stdout;
    assert_eq!(files.lines().count(), 3, "{files}");
    files.lines().for_each(|file| assert!(keys(&machine, "redis-check-rdb", file) >= 1000));
}

#[test]
fn a_stopped_master_is_backed_up_from_what_it_wrote() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --no-app").ok();
    machine.run(FILL).ok();
    machine.run("redis-tp service stop").ok();
    machine.run("redis-tp backup master").ok();
    let file = only(&machine);
    assert_eq!(keys(&machine, "redis-check-rdb", &file), 1000);
    // What stands there is no RDB any more: said, and kept out of the backups.
    machine.run(&format!("rm {file}; echo damaged > /var/lib/redis/dump.rdb")).ok();
    machine.run("chown redis:redis /var/lib/redis/dump.rdb").ok();
    let out = machine.run("redis-tp backup master").exits(8);
    assert!(out.stderr.contains("the backup of master is not sound"), "{out}");
    assert_eq!(machine.run("ls -A /var/backups/redis-tp 2>/dev/null; true").ok().stdout, "");
}

#[test]
fn a_purge_takes_a_backup_of_what_is_nowhere_else() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --no-app").ok();
    machine.run(FILL).ok();
    // A linked replica holds what its master has.
    machine.run("redis-tp replica remove slave --purge").ok();
    machine.run("test ! -e /var/backups/redis-tp").ok();
    machine.run("redis-tp replica add --port 6380 && redis-tp cli slave -- REPLICAOF NO ONE").ok();
    machine.run("redis-tp cli slave -- SET only here").ok();
    machine.run("redis-tp replica remove slave --purge").ok();
    let file = only(&machine);
    assert_eq!(keys(&machine, "redis-check-rdb", &file), 1001);
    machine.run(&format!("rm {file}")).ok();
    let out = machine.run("redis-tp uninstall --purge").ok();
    let file = only(&machine);
    assert!(out.stdout.contains(&format!("backup of master: {file}")), "{out}");
    machine.run("apt-get install -y redis-tools").ok();
    assert_eq!(keys(&machine, "redis-check-rdb", &file), 1000);
    machine.run(&format!("rm {file} && apt-get purge -y redis-tools")).ok();
    machine.run(&format!("redis-tp up --no-app && {FILL}")).ok();
    machine.run("redis-tp uninstall --purge --no-backup").ok();
    assert_eq!(machine.run("ls -A /var/backups/redis-tp").ok().stdout, "");
}

#[test]
fn a_master_that_saves_nothing_is_backed_up_before_it_is_uninstalled_or_demoted() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --no-app && redis-tp install --set save='\"\"'").ok();
    machine.run(FILL).ok();
    machine.run("redis-tp uninstall").ok();
    let file = only(&machine);
    assert_eq!(keys(&machine, "redis-check-rdb", &file), 1000);
    machine.run(&format!("rm {file} && redis-tp up && redis-tp cli slave -- REPLICAOF NO ONE")).ok();
    machine.run("redis-tp cli slave -- SET written after-the-promotion").ok();
    machine.run("redis-tp apply --overwrite").ok();
    let file = only(&machine);
    assert!(keys(&machine, "redis-check-rdb", &file) >= 1, "what the promoted replica held is lost");
}

#[test]
fn what_was_planted_where_a_backup_goes_is_not_followed() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --no-app").ok();
    machine.run(FILL).ok();
    machine.run("echo precious > /root/precious && mkdir -m 1777 /srv/open").ok();
    machine
        .run("ln -s /root/precious /srv/open/b.rdb && ln -s /root/precious /srv/open/.c.rdb.redis-tp-new")
        .ok();
    let there = machine.run("redis-tp backup master --to /srv/open/b.rdb").exits(5);
    assert!(there.stderr.contains("/srv/open/b.rdb is there already"), "{there}");
    machine.run("redis-tp backup master --to /srv/open/c.rdb").ok();
    assert_eq!(machine.read("/root/precious"), "precious\n");
    assert_eq!(machine.run("stat -c %a:%F /srv/open/c.rdb").ok().stdout, "600:regular file\n");
    for (to, why) in
        [("/srv/absent/x.rdb", "there is no directory for"), ("/etc/hostname", "is there already")]
    {
        let out = machine.run(&format!("redis-tp backup master --to {to}")).exits(5);
        assert!(out.stderr.contains(why), "{out}");
    }
}

/// Waits until somebody besides the replica has asked the master for all its data, and waits for them.
pub const ASKED: &str =
    "until redis-tp cli -- INFO replication | grep -q state=wait_bgsave; do sleep 0.05; done";

#[test]
fn a_full_disk_or_a_kill_leaves_no_half_of_a_backup() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --no-app").ok();
    machine
        .run("mkdir -p /var/backups/redis-tp && mount -t tmpfs -o size=64k tmpfs /var/backups/redis-tp")
        .ok();
    let noise =
        "for i = 1, 2000 do redis.call('SET', i, tostring(math.random()) .. tostring(math.random())) end";
    machine.run(&format!("redis-tp cli -- EVAL \"{noise}\" 0")).ok();
    let out = machine.run("redis-tp backup").exits(8);
    assert!(out.stderr.contains("No space left on device"), "{out}");
    assert_eq!(machine.run("ls -A /var/backups/redis-tp").ok().stdout, "");
    machine.run("umount /var/backups/redis-tp").ok();
    machine.run("redis-tp cli -- CONFIG SET repl-diskless-sync-delay 600").ok();
    let mut running = machine.spawn("redis-tp backup");
    machine.run(ASKED).ok();
    assert!(running.signal(Signal::SIGKILL), "the backup had ended before");
    drop(running);
    machine.run("redis-tp cli -- CONFIG SET repl-diskless-sync-delay 0").ok();
    machine.run("redis-tp backup").ok();
    assert_eq!(keys(&machine, "redis-check-rdb", &only(&machine)), 2000);
    assert_eq!(machine.run("ls -A /var/backups/redis-tp | grep -c new; true").ok().stdout, "0\n");
}

/// A master with 1000 keys in a backup, and one key that is not in it.
fn with_backup(machine: &Machine, more: &str) {
    machine.run(&format!("redis-tp up --no-app && {more} {FILL} && redis-tp backup --to /root/b.rdb")).ok();
    machine.run("redis-tp cli -- FLUSHALL && redis-tp cli -- SET only now").ok();
}

fn size(machine: &Machine, name: &str) -> String {
    machine.run(&format!("redis-tp cli {name} -- DBSIZE")).ok().stdout.trim().to_owned()
}

#[test]
fn a_restore_brings_every_key_back_and_backs_up_what_was_there() {
    for (release, init, more) in [
        (Release::Bookworm, Init::Systemd, ""),
        (Release::Bookworm, Init::None, "redis-tp install --set appendonly=yes &&"),
        (Release::Trixie, Init::Systemd, "redis-tp install --set appendonly=yes &&"),
        (Release::Trixie, Init::None, ""),
    ] {
        let Some(machine) = bare(release, init) else { return };
        with_backup(&machine, more);
        let out = machine.run("redis-tp restore /root/b.rdb").ok();
        assert_eq!(
            (size(&machine, "master"), size(&machine, "slave")),
            ("1000".into(), "1000".into()),
            "{out}"
        );
        let file = only(&machine);
        assert_eq!(keys(&machine, "redis-check-rdb", &file), 1);
        machine.run("redis-tp service restart master").ok();
        assert_eq!(size(&machine, "master"), "1000", "after a restart");
        assert_eq!(machine.run("find /var/lib/redis -name '.*redis-tp*'").ok().stdout, "");
        assert!(machine.run("redis-tp plan").ok().stdout.contains("No changes"));
        // And the way back, from a backup that the restore itself took.
        machine.run(&format!("redis-tp service stop master && redis-tp restore {file} --no-backup")).ok();
        assert_eq!(machine.run("redis-tp cli -- GET only").ok().stdout.trim(), "now");
    }
}

#[test]
fn a_backup_whose_name_is_no_text_is_restored_and_told_of() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install && redis-tp cli -- SET key value").ok();
    machine.run("redis-tp backup --to /root/a.rdb && mv /root/a.rdb \"$(printf '/root/\\377.rdb')\"").ok();
    machine.run("redis-tp cli -- DEL key").ok();
    let out = machine.run("redis-tp restore --json \"$(printf '/root/\\377.rdb')\"").ok();
    let told: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    let file = told["steps"].as_array().and_then(|steps| steps.iter().find_map(|step| step["file"].as_str()));
    assert_eq!(file, Some("/root/\u{fffd}.rdb"), "{out}");
    assert_eq!(machine.run("redis-tp cli -- GET key").ok().stdout, "value\n");
}

#[test]
fn what_cannot_be_restored_is_refused_and_nothing_changes() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    with_backup(&machine, "");
    machine
        .run("head -c 3000 /root/b.rdb > /root/torn.rdb && echo text > /root/text.rdb && : > /root/empty.rdb")
        .ok();
    machine.run(r"printf 'REDIS0012\372\011redis-ver\0058.0.2' > /root/newer.rdb").ok();
    machine.run("redis-tp cli -- CONFIG GET dir").ok();
    for (words, code, why) in [
        ("/root/absent.rdb", 5, "there is no file /root/absent.rdb"),
        ("/root/text.rdb", 5, "/root/text.rdb is no RDB"),
        ("/root/empty.rdb", 5, "/root/empty.rdb is empty"),
        ("/root", 5, "/root is no regular file"),
        ("/root/newer.rdb", 5, "is an RDB of Redis 8.0.2 in format 12, and Redis 7.0.15 reads up to 10"),
        ("/root/torn.rdb", 5, "/root/torn.rdb is not restored"),
        ("/root/b.rdb slave", 5, "slave follows 127.0.0.1:6379"),
        ("/root/b.rdb nobody", 2, "there is no nobody here"),
    ] {
        let out = machine.run(&format!("redis-tp restore {words}")).exits(code);
        assert!(out.stderr.contains(why), "{out}");
        assert_eq!(machine.run("redis-tp cli -- GET only").ok().stdout.trim(), "now", "{words}");
        assert_eq!(machine.run("find /var/lib/redis -name '.*redis-tp*'").ok().stdout, "", "{words}");
    }
}

#[test]
fn a_restore_killed_at_any_effect_leaves_the_old_data_or_the_new() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    with_backup(&machine, "redis-tp install --set appendonly=yes &&");
    let mut hits = 0;
    for lines in 1..40 {
        let (struck, out) = disturb(&machine, "redis-tp restore /root/b.rdb", lines, Signal::SIGKILL);
        // What a killed run left is undone, or finished where former data had begun to go.
        machine.run("redis-tp apply && redis-tp service start").ok();
        let left = size(&machine, "master");
        assert!(left == "1" || left == "1000", "{left} keys are left, killed at line {lines}: {out}");
        assert!(struck == Struck::Hit || left == "1000", "{out}");
        match struck {
            Struck::Hit => hits += 1,
            Struck::Missed => {}
            Struck::Over => break,
        }
        assert_eq!(machine.run("find /var/lib/redis -name '.*redis-tp*'").ok().stdout, "", "{out}");
        machine.run("redis-tp cli -- FLUSHALL && redis-tp cli -- SET only now").ok();
        machine.run("rm -rf /var/backups/redis-tp").ok();
    }
    assert!(hits > 5, "only {hits} disturbances");
}

#[test]
fn a_server_that_comes_up_in_the_middle_of_a_restore_costs_no_data() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    with_backup(&machine, "");
    let (mut hits, mut moved, mut lines, mut rounds) = (0, false, 1, 0);
    // Between the two renames is no more than a moment, which can be missed.
    while rounds == 0 || (!moved && rounds < 5) {
        let (struck, out) = disturb(&machine, "redis-tp restore /root/b.rdb", lines, Signal::SIGKILL);
        lines += 1;
        hits += usize::from(struck == Struck::Hit);
        // Killed a moment later, the effect that was announced last has happened.
        let aside = machine.run(
            "cd /var/lib/redis && tail -qn1 /var/lib/redis-tp/runs/*/journal | tail -n1 | grep -q '\"replaced\"' && \
             { mv dump.rdb .dump.rdb.redis-tp-former || test -e .dump.rdb.redis-tp-former; }",
        );
        moved |= aside.status == 0;
        // As a restart of the machine would, before anybody runs redis-tp again.
        machine.run("systemctl start redis-server").ok();
        machine.run("redis-tp apply").ok();
        let left = size(&machine, "master");
        assert!(left == "1" || left == "1000", "{left} keys are left, killed before line {lines}: {out}");
        machine.run("redis-tp cli -- FLUSHALL && redis-tp cli -- SET only now").ok();
        machine.run("rm -rf /var/backups/redis-tp").ok();
        if struck == Struck::Over {
            (lines, rounds) = (1, rounds + 1);
        }
    }
    assert!(hits > 5 && moved, "only {hits} disturbances, none between the two renames");
}

#[test]
fn a_restore_that_fails_brings_back_what_no_file_had() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    with_backup(&machine, "redis-tp install --set save='\"\"' &&");
    let mut hits = 0;
    for lines in 1..40 {
        let (struck, out) =
            disturb(&machine, "redis-tp restore /root/b.rdb --no-backup", lines, Signal::SIGTERM);
        match struck {
            Struck::Hit => hits += 1,
            Struck::Missed => {}
            Struck::Over => break,
        }
        let left = size(&machine, "master");
        assert!(left == "1" || left == "1000", "{left} keys are left, ended at line {lines}: {out}");
        machine.run("redis-tp cli -- FLUSHALL && redis-tp cli -- SET only now").ok();
        machine.run("rm -f /var/lib/redis/dump.rdb").ok();
    }
    assert!(hits > 3, "only {hits} disturbances");
    machine.run("redis-tp restore /root/b.rdb").ok();
    assert_eq!(size(&machine, "master"), "1000");
    assert_eq!(machine.run("find /var/lib/redis -name '.*redis-tp*'").ok().stdout, "");
}

#[test]
fn what_was_set_live_does_not_hide_what_is_restored() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    with_backup(&machine, "");
    machine.run("redis-tp cli -- CONFIG SET appendonly yes && rm -f /var/lib/redis/dump.rdb").ok();
    machine.run("redis-tp restore /root/b.rdb").ok();
    assert_eq!((size(&machine, "master"), size(&machine, "slave")), ("1000".into(), "1000".into()));
    assert_eq!(machine.run("find /var/lib/redis -name '.*redis-tp*'").ok().stdout, "");
}

#[test]
fn a_server_that_hands_its_data_out_by_a_file_keeps_its_own() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install --set repl-diskless-sync=no --set save='\"\"'").ok();
    machine.run(FILL).ok();
    machine.run("redis-tp backup").ok();
    assert_eq!(keys(&machine, "redis-check-rdb", &only(&machine)), 1000);
    assert!(!machine.exists("/var/lib/redis/dump.rdb"), "data would come back at a restart");
    let said = machine.run("redis-tp cli -- CONFIG GET repl-diskless-sync").ok().stdout;
    assert!(said.ends_with("no\n"), "{said}");
}

#[test]
fn what_force_would_lose_is_backed_up_before() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install --set save='\"\"'").ok();
    for command in ["install --set databases=20 --force", "service stop master --force"] {
        machine.run(FILL).ok();
        let out = machine.run(&format!("redis-tp {command}")).ok();
        let file = only(&machine);
        assert!(out.stderr.contains(&format!("backup of master: {file}")), "{out}");
        assert_eq!(keys(&machine, "redis-check-rdb", &file), 1000);
        machine.run(&format!("rm {file}")).ok();
    }
    machine.run("redis-tp service start master").ok();
    machine.run(&format!("{FILL} && redis-tp service stop master --force --no-backup")).ok();
    assert_eq!(machine.run("ls -A /var/backups/redis-tp").ok().stdout, "");
}
