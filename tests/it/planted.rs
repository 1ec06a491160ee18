//! Links, planted where root is going to write: by whoever has the server's own user or the web app's, and by any
//! user of the machine. Root may be refused then; it must not write through one.

use std::path::Path;

use redis_tp::host::Host;

use crate::faults::promoted::WIPE;
use crate::machine::{Init, Machine, Release};
use crate::readme::says;
use crate::story::bare;

/// What must not change, whatever is planted: contents, owners and modes, but for the web app's own user.
const VICTIMS: &str = "for f in /etc/passwd /etc/shadow /root/precious /etc/cron.d/precious; do
    grep -av '^redis-tp-app:' $f | sha256sum; stat -c '%u %g %a %n' $f; done; ls -A /etc/cron.d /root/dir";

/// What a link stands for.
const TARGETS: [&str; 3] = ["/root/precious", "/etc/shadow", "/etc/cron.d/precious"];

/// What the server's user plants in the places that are its own. `$to` is a victim, `$staged NAME` what a file of
/// that name is called while it is written.
const BY_THE_SERVER: &[(&str, &str)] = &[
    ("the next configuration", "ln -sf $to /etc/redis/redis-slave.conf"),
    ("the configuration that is there", "ln -sf $to /etc/redis/redis.conf"),
    ("a staging file", "ln -s $to $staged_master; ln -s $to $staged_slave"),
    ("the log to be", "ln -sf $to /var/log/redis/redis-slave.log"),
    ("the log that is there", "ln -sf $to /var/log/redis/redis-server.log"),
    ("the data", "rm -f /var/lib/redis/dump.rdb; ln -s $to /var/lib/redis/dump.rdb"),
    ("the pid file", "rm -f /run/redis/redis-server.pid; ln -s $to /run/redis/redis-server.pid"),
    ("a directory of append only files", "ln -s /root/dir /var/lib/redis/appendonlydir"),
];

/// Second names of what is root's, in the same places. Debian's kernel lets no user make these
/// (`fs.protected_hardlinks`), so root does it in his place: nothing hangs on that setting.
const SECOND_NAMES: &[(&str, &str)] = &[
    ("a second name for the next configuration", "ln $to /etc/redis/redis-slave.conf"),
    ("a second name in the data", "rm -f /var/lib/redis/dump.rdb; ln $to /var/lib/redis/dump.rdb"),
    ("a second name for the log to be", "ln $to /var/log/redis/redis-slave.log"),
];

/// What root does then, one after the other.
const RUNS: &[&str] = &[
    "redis-tp install --set hz=20",
    "redis-tp apply --overwrite",
    "redis-tp replica add --port 6380",
    "redis-tp check; redis-tp check --fix",
    "redis-tp backup",
    "redis-tp verify",
    "redis-tp service restart",
    "redis-tp rollback",
    "redis-tp adopt",
    "redis-tp uninstall --overwrite",
];

/// A machine with victims, and with users who have nothing to do with them.
fn with_victims(init: Init) -> Option<Machine> {
    let machine = bare(Release::Bookworm, init)?;
    machine
        .run(
            "apt-get install -y redis-server >/dev/null 2>&1; mkdir /root/dir /etc/cron.d; useradd -m mallory
            umask 077; echo precious | tee /root/precious >/etc/cron.d/precious; chmod 644 /etc/cron.d/precious
            cp -a /etc/redis /root/package",
        )
        .ok();
    Some(machine)
}

/// Plants something as a user, and makes sure that it is there.
fn plant(machine: &Machine, user: &str, what: &str, script: &str, target: &str) {
    let staged = |name: &str| Host::staging(Path::new(name)).display().to_string();
    let (master, slave) = (staged("/etc/redis/redis.conf"), staged("/etc/redis/redis-slave.conf"));
    machine.write(
        "/opt/plant",
        format!("set -e; to={target}; staged_master={master}; staged_slave={slave}\n{script}\n"),
    );
    let out = machine.run(&format!("setpriv --reuid {user} --regid {user} --clear-groups sh /opt/plant"));
    assert!(out.status == 0, "{what} could not be planted: {out}");
}

/// Runs each command and looks whether a victim is another.
fn nothing_is_written_through(machine: &Machine, runs: &[&str], what: &str, before: &str) {
    for run in runs {
        let out = machine.run(run);
        assert!(out.status < 100, "{what}: {out}");
        let after = machine.run(VICTIMS).ok().stdout;
        assert_eq!(after, before, "{what}: {out}");
    }
}

#[test]
fn a_link_planted_by_the_servers_user_leads_root_nowhere_under_systemd() {
    planted_by_the_server(Init::Systemd);
}

#[test]
fn a_link_planted_by_the_servers_user_leads_root_nowhere_without_systemd() {
    planted_by_the_server(Init::None);
}

fn planted_by_the_server(init: Init) {
    let told = format!("{} kinds of links and second names", BY_THE_SERVER.len() + SECOND_NAMES.len());
    assert!(says(&told), "not in the README: {told}");
    let Some(machine) = with_victims(init) else { return };
    let before = machine.run(VICTIMS).ok().stdout;
    let plants = BY_THE_SERVER.iter().map(|plant| ("redis", plant));
    let plants = plants.chain(SECOND_NAMES.iter().map(|plant| ("root", plant)));
    for ((user, (what, script)), target) in plants.zip(TARGETS.iter().cycle()) {
        machine.run(WIPE).ok();
        machine.run("redis-tp install").ok();
        plant(&machine, user, what, script, target);
        nothing_is_written_through(&machine, RUNS, &format!("{what} -> {target}"), &before);
        if script.contains("$staged") {
            let met = Host::staging(Path::new("/etc/redis/redis.conf"));
            machine.run(&format!("test ! -L {}", met.display())).ok();
        }
    }
}

/// What the web app's user plants in the directory of its own that there is without systemd.
const BY_THE_APP: &str = "cd /run/redis-tp-app && rm -f app.pid && ln -s $to app.pid";

/// What any user plants where he may write.
const BY_ANYBODY: &str = r#"
home=/home/mallory; run=/run/user/$(id -u)
mkdir -p $home/here $home/tmp $home/.config $home/.local/share $home/.local/state $home/.cache
# Files, by every name that something of ours has somewhere
for dir in $home/here $home/tmp $home $run /tmp /var/tmp /dev/shm; do
    for name in redis.conf topology.ini dump.rdb temp-1.rdb backup.rdb .backup.rdb.redis-tp-new password lock \
        redis.sock redis-server.pid redis-tp.sock redis-tp.log .redisclirc .rediscli_history; do
        ln -sf $to $dir/$name
    done
    for name in redis-tp redis redis-tp-app redis-slave appendonlydir laptop backups redis-tp-1-1-x; do
        ln -sfn /root/dir $dir/$name
    done
    # What a killed run left, as it seems, with a way out of it
    mkdir -p $dir/redis-tp-2-2-x && ln -sfn /root/dir $dir/redis-tp-2-2-x/out && ln -sf $to $dir/redis-tp-2-2-x/server
done
for dir in .config .local/share .local/state .cache; do ln -sfn /root/dir $home/$dir/redis-tp; done"#;

/// How root comes to be among them: with the user's environment, and where the user is.
const AMONG_THEM: &str =
    "export HOME=/home/mallory TMPDIR=/home/mallory/tmp XDG_RUNTIME_DIR=/run/user/$(id -u mallory)
    cd /home/mallory/here; ";

/// What root does there.
const RUNS_THERE: &[&str] = &[
    "redis-tp install --set hz=20",
    "redis-tp replica add --port 6380",
    "redis-tp app install",
    "redis-tp cli -- SET precious data",
    "redis-tp check; redis-tp check --fix",
    "redis-tp backup; redis-tp backup --list",
    "redis-tp backup --to backup.rdb; redis-tp backup --to /tmp/backup.rdb; redis-tp backup --to /tmp/backups/a.rdb",
    "redis-tp install --tls",
    "redis-tp tls client a laptop; redis-tp tls client a /tmp/laptop; redis-tp tls client a /home/mallory/here",
    "redis-tp verify --restart",
    "redis-tp service restart app; redis-tp service logs app",
    "redis-tp bench --duration 0.2",
    "redis-tp users rotate",
    "redis-tp rollback",
    "timeout -s KILL 0.3 redis-tp install --set maxclients=500; redis-tp up",
    "redis-tp uninstall --overwrite --purge --no-backup",
];

#[test]
fn a_link_planted_by_any_user_leads_root_nowhere_under_systemd() {
    planted_by_anybody(Init::Systemd);
}

#[test]
fn a_link_planted_by_any_user_leads_root_nowhere_without_systemd() {
    planted_by_anybody(Init::None);
}

fn planted_by_anybody(init: Init) {
    let Some(machine) = with_victims(init) else { return };
    machine.run("run=/run/user/$(id -u mallory); mkdir -p $run && chown mallory $run && chmod 700 $run").ok();
    let runs: Vec<String> = RUNS_THERE.iter().map(|run| format!("{AMONG_THEM}{run}")).collect();
    let runs: Vec<&str> = runs.iter().map(String::as_str).collect();
    for target in TARGETS {
        machine.run(WIPE).ok();
        machine.run("redis-tp up --no-app").ok();
        let before = machine.run(VICTIMS).ok().stdout;
        plant(&machine, "mallory", "what anybody plants", BY_ANYBODY, target);
        nothing_is_written_through(&machine, &runs, &format!("what anybody plants -> {target}"), &before);
        machine.run("test -L /home/mallory/here/dump.rdb").ok();
    }
}

#[test]
fn a_pid_file_of_the_apps_that_is_a_link_leads_root_nowhere() {
    let Some(machine) = with_victims(Init::None) else { return };
    let before = machine.run(VICTIMS).ok().stdout;
    for target in TARGETS {
        machine.run("redis-tp up").ok();
        plant(&machine, "redis-tp-app", "the app's pid file", BY_THE_APP, target);
        let runs = [
            "redis-tp app install --ttl 7",
            "redis-tp service restart app",
            "redis-tp verify",
            "redis-tp uninstall",
        ];
        nothing_is_written_through(&machine, &runs, &format!("the app's pid file -> {target}"), &before);
    }
}
