//! The program's main job on real machines: from a bare Debian to master and replica, and back.

use std::thread;

use crate::machine::{Alike, Init, Machine, Out, Release, Snapshot, differences};

/// The binary under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_redis-tp");

/// Every machine that the program is for.
const MACHINES: [(Release, Init); 4] = [
    (Release::Bookworm, Init::Systemd),
    (Release::Trixie, Init::Systemd),
    (Release::Bookworm, Init::None),
    (Release::Trixie, Init::None),
];

/// Where the program and the package put things, and where they must leave none.
pub const PLACES: [&str; 11] = [
    "/etc/redis",
    "/etc/redis-tp",
    "/etc/systemd/system",
    "/etc/default",
    "/etc/logrotate.d",
    "/usr/sbin/policy-rc.d",
    "/var/lib",
    "/var/log/redis",
    "/var/log/redis-tp",
    "/usr/local/lib",
    "/run",
];

/// What other programs keep in those places for themselves.
const OTHERS: [&str; 8] = [
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/systemd",
    "/var/lib/misc",
    "/var/lib/private",
    "/var/lib/shells.state",
    "/var/lib/ucf",
    "/var/lib/pam",
];

/// A bare machine with the program on it; none where there can be no machine.
pub fn bare(release: Release, init: Init) -> Option<Machine> {
    let machine = Machine::boot_or_skip(release, init)?;
    machine.install_binary(PROGRAM);
    Some(machine)
}

/// What is of Redis's or ours on a machine.
pub fn places(machine: &Machine) -> Snapshot {
    let mut snapshot = machine.snapshot(&PLACES);
    let ours = |path: &str| path.contains("redis") || path.contains("policy-rc.d");
    snapshot.retain(|path, _| {
        let path = path.to_string_lossy();
        ours(&path) && !OTHERS.iter().any(|other| path.starts_with(other))
    });
    snapshot
}

/// What tells whether a server was restarted: its process and its run id.
fn servers(machine: &Machine) -> String {
    let ids =
        "for i in master slave; do redis-tp cli $i -- INFO server | grep -E '^(run_id|process_id)'; done";
    machine.run(ids).ok().stdout
}

pub fn contains(out: &Out, text: &str) {
    assert!(out.stdout.contains(text), "no '{text}' in:\n{out}");
}

/// Runs a test on every kind of machine, two at a time.
fn on_every_machine(test: fn(&Machine, Init)) {
    for pair in MACHINES.chunks(2) {
        thread::scope(|scope| {
            for (release, init) in pair {
                scope.spawn(move || {
                    if let Some(machine) = bare(*release, *init) {
                        test(&machine, *init);
                    }
                });
            }
        });
    }
}

#[test]
fn one_word_leads_from_bare_to_proven_and_the_second_time_touches_nothing() {
    on_every_machine(|machine, init| {
        let up = machine.run("redis-tp up").ok();
        contains(&up, "next:");
        machine.run("redis-tp verify").ok();
        assert!(!machine.exists("/usr/sbin/policy-rc.d"), "a policy-rc.d is left behind");

        let (before, running) = (places(machine), servers(machine));
        let again = machine.run("redis-tp up").ok();
        contains(&again, "No changes");
        assert_eq!(differences(&before, &places(machine), Alike::Untouched), [""; 0]);
        assert_eq!(running, servers(machine), "a server was restarted");

        as_the_lab_has_it(machine, init);
    });
}

/// The names, owners and modes that the lab's text has.
fn as_the_lab_has_it(machine: &Machine, init: Init) {
    for (path, state) in [
        ("/etc/redis/redis.conf", "640 redis redis"),
        ("/etc/redis/redis-slave.conf", "640 redis redis"),
        ("/var/lib/redis", "750 redis redis"),
        ("/var/lib/redis-slave", "750 redis redis"),
        ("/var/log/redis/redis-slave.log", "660 redis adm"),
        ("/etc/redis-tp/password", "600 root root"),
    ] {
        let out = machine.run(&format!("stat -c '%a %U %G' {path}")).ok();
        // Without systemd the server's umask is ours, which lets the group adm read a log, not write it.
        let state = if init == Init::None { state.replace("660", "640") } else { state.to_owned() };
        assert_eq!(out.stdout.trim(), state, "{path}");
    }
    machine.run("test -z \"$(ps -o user= -C redis-server | grep -v redis)\"").ok();
}

#[test]
fn replicas_come_chain_and_go_and_nothing_is_left_behind() {
    on_every_machine(|machine, _| {
        let before = places(machine);
        machine.run("redis-tp install").ok();
        machine.run("redis-tp replica add --port 6380").ok();
        machine.run("redis-tp verify").ok();
        machine.run("redis-tp replica add --port 6381 --of slave").ok();
        let list = machine.run("redis-tp replica list").ok();
        contains(&list, "slave-6381");
        machine.run("redis-tp cli -- SET bonjour monde").ok();
        let read = "until [ \"$(redis-tp cli slave-6381 -- GET bonjour)\" = monde ]; do sleep 0.05; done";
        machine.run(read).ok();
        machine.run("redis-tp verify").ok();
        contains(&machine.run("redis-tp replica add --port 6381").ok(), "No changes");

        machine.run("redis-tp replica remove slave").exits(5);
        machine.run("redis-tp replica remove slave-6381").ok();
        assert!(machine.exists("/var/lib/redis-slave-6381/dump.rdb"), "the data went without --purge");
        machine.run("redis-tp replica remove slave-6381 --purge").ok();
        assert!(!machine.exists("/var/lib/redis-slave-6381"), "--purge left the data");
        machine.run("redis-tp verify").ok();

        machine.run("redis-tp uninstall --purge").ok();
        assert_eq!(differences(&before, &places(machine), Alike::Equivalent), [""; 0]);
        assert_eq!(machine.run("ps -e -o comm= | grep redis").stdout, "", "a process is left");
        assert_eq!(machine.run("ss -Hltn").ok().stdout, "", "a port is left open");
        machine.run("id redis").exits(1);
        contains(&machine.run("redis-tp uninstall").ok(), "No changes");
    });
}

#[test]
fn the_labs_own_flags_are_one_command() {
    on_every_machine(|machine, _| {
        let install = "redis-tp install --plain --bind 0.0.0.0 --protected-mode no --password-file -";
        machine.run_with_input(install, "motdepasse\n").ok();
        machine.run("redis-tp replica add --port 6380").ok();
        machine.run("redis-tp verify").ok();
        let listening = machine.run("ss -Hltn sport = :6379").ok().stdout;
        assert!(listening.contains("0.0.0.0:6379"), "{listening}");
        machine.run("REDISCLI_AUTH=motdepasse redis-cli -e PING").ok();
        contains(&machine.run_with_input(install, "motdepasse\n").ok(), "No changes");
    });
}

#[test]
fn what_somebody_else_did_is_shown_and_kept() {
    on_every_machine(|machine, _| {
        machine.run("redis-tp up").ok();
        // The server rewrites its file: other bytes, the same directives.
        for instance in ["master", "slave"] {
            machine.run(&format!("redis-tp cli {instance} -- CONFIG REWRITE")).ok();
        }
        contains(&machine.run("redis-tp up").ok(), "No changes");

        // A hand edit is shown and kept, also when something else changes.
        machine
            .run("sed -i 's/^timeout .*//' /etc/redis/redis.conf; echo 'timeout 77' >> /etc/redis/redis.conf")
            .ok();
        let seen = machine.run("redis-tp up").exits(3);
        assert!(
            seen.stderr.contains("timeout in /etc/redis/redis.conf was changed by hand: 77 there"),
            "{seen}"
        );
        machine.run("redis-tp install --set maxclients=500").exits(3);
        let conf = machine.read("/etc/redis/redis.conf");
        assert!(conf.contains("timeout 77") && conf.contains("maxclients 500"), "{conf}");
        machine.run("redis-tp install --set timeout=88").exits(5);

        // A replica that was promoted stays a master, whether it wrote that down or not.
        machine.run("redis-tp cli slave -- REPLICAOF NO ONE").ok();
        for _ in 0..2 {
            let seen = machine.run("redis-tp up").exits(3);
            assert!(seen.stderr.contains("slave: was promoted"), "{seen}");
            let role = machine.run("redis-tp cli slave -- ROLE").ok();
            contains(&role, "master");
            machine.run("redis-tp cli slave -- CONFIG REWRITE").ok();
        }
        // Only an explicit word takes the topology's side again.
        machine.run("redis-tp apply --overwrite").ok();
        contains(&machine.run("redis-tp cli slave -- ROLE").ok(), "slave");
        contains(&machine.run("redis-tp up").ok(), "No changes");
    });
}

#[test]
fn a_package_of_the_owners_stays_with_its_configuration() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("apt-get install -y redis-server").ok();
    machine.run("redis-cli SET before us && redis-cli SAVE").ok();
    let before = machine.snapshot(&["/etc/redis", "/etc/systemd/system"]);
    machine.run("redis-tp up").ok();
    contains(&machine.run("redis-tp cli -- GET before").ok(), "us");
    machine.run("redis-tp uninstall").ok();
    let after = machine.snapshot(&["/etc/redis", "/etc/systemd/system"]);
    assert_eq!(differences(&before, &after, Alike::Equivalent), [""; 0]);
    contains(&machine.run("systemctl is-active redis-server").ok(), "active");
    contains(&machine.run("redis-cli GET before").ok(), "us");
    machine.run("dpkg -s redis-server").ok();
}

#[test]
fn instances_come_back_after_a_reboot() {
    for release in Release::ALL {
        let Some(mut machine) = bare(release, Init::Systemd) else { return };
        machine.run("redis-tp up").ok();
        machine.run("redis-tp cli -- SET bonjour monde").ok();
        machine.reboot();
        // "Ready" is the machine's word; a replica asks for its master once a second.
        machine.run("for try in $(seq 300); do redis-tp status >/dev/null && break; sleep 0.1; done").ok();
        machine.run("redis-tp verify").ok();
        contains(&machine.run("redis-tp cli slave -- GET bonjour").ok(), "monde");
        contains(&machine.run("redis-tp up").ok(), "No changes");
    }
}

#[test]
fn without_systemd_a_reboot_needs_one_more_up() {
    let Some(mut machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up").ok();
    machine.run("redis-tp cli -- SET bonjour monde").ok();
    machine.run("redis-tp service stop").ok();
    machine.reboot();
    machine.run("redis-tp up").ok();
    contains(&machine.run("redis-tp cli slave -- GET bonjour").ok(), "monde");
}

#[test]
fn a_replica_that_cannot_save_does_not_hang_a_run() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up").ok();
    machine.run("chown root: /var/lib/redis-slave && chmod 500 /var/lib/redis-slave").ok();
    machine.run("redis-tp cli -- SET a 1").ok();
    let out = machine.run("redis-tp replica remove slave").ok();
    assert!(out.elapsed.as_secs() < 60, "{out}");
    assert_eq!(machine.run("ss -Hltn sport = :6380").ok().stdout, "");
}

#[test]
fn a_master_that_cannot_save_is_left_running_and_named() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install").ok();
    machine.run("redis-tp cli -- SET precious data").ok();
    machine.run("chown root: /var/lib/redis && chmod 500 /var/lib/redis").ok();
    let out = machine.run("redis-tp service stop").exits(8);
    assert!(out.stderr.contains("master cannot save its data: it may not write to /var/lib/redis"), "{out}");
    contains(&machine.run("systemctl is-active redis-server").ok(), "active");
    contains(&machine.run("redis-tp cli -- GET precious").ok(), "data");
}

#[test]
fn a_replica_of_another_machines_master_links_with_its_password() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install --port 7000").ok();
    // The other machine: a server of somebody else's, on an address of its own.
    machine.run("ip addr add 10.9.8.7/32 dev lo").ok();
    let other = "cd /tmp && setpriv --reuid=redis --regid=redis --clear-groups redis-server --port 6379 \
                 --bind 10.9.8.7 --requirepass elsewhere --daemonize yes --save '' --dir /tmp; until redis-cli -h 10.9.8.7 PING; do sleep 0.05; done";
    machine.run(other).ok();
    let add = "redis-tp replica add --port 6380 --of 10.9.8.7:6379 --password-file -";
    machine.run_with_input(add, "wrong\n").exits(5);
    machine.run_with_input(add, "elsewhere\n").ok();
    contains(&machine.run("redis-tp cli slave -- INFO replication").ok(), "master_link_status:up");
    contains(&machine.run("redis-tp replica add --port 6380 --of 10.9.8.7:6379").ok(), "No changes");
    assert_eq!(machine.run("stat -c '%a %U' /etc/redis-tp/slave.masterauth").ok().stdout.trim(), "600 root");
}

#[test]
fn a_file_is_looked_for_where_the_caller_is() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.write("/srv/lab.ini", "[redis-tp]\n[master]\nport = 7000\n");
    machine.write("/srv/word", "motdepasse\n");
    contains(&machine.run("cd /srv && redis-tp plan -f lab.ini").ok(), "install redis-server");
    machine.run("cd /srv && redis-tp install --password-file word --dry-run").ok();
    machine.run("cd /srv && redis-tp install --password-file absent --dry-run").exits(5);
}

#[test]
fn a_server_on_path_without_a_package_serves_too() {
    for init in [Init::None, Init::Systemd] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        machine.run("apt-get install -y redis-server && mkdir -p /opt").ok();
        let move_away = "cp -L /usr/bin/redis-server /usr/bin/redis-cli /usr/local/bin/ && \
                         dpkg --purge redis-server redis-tools && \
                         for tool in apt-get dpkg; do mv $(command -v $tool) /opt; done && \
                         sed -i '/^Package: redis-/,/^$/d' /var/lib/dpkg/status";
        machine.run(move_away).ok();
        let before = places(&machine);
        let refused = machine.run("redis-tp up").exits(5);
        assert!(refused.stderr.contains("useradd --system"), "{refused}");
        let user = "useradd --system --user-group --home-dir /var/lib/redis --shell /usr/sbin/nologin redis";
        machine.run(user).ok();
        machine.run("redis-tp up").ok();
        machine.run("redis-tp check").ok();
        machine.run("redis-tp verify --restart").ok();
        contains(&machine.run("redis-tp up").ok(), "No changes");
        machine.run("redis-tp uninstall --purge").ok();
        assert_eq!(differences(&before, &places(&machine), Alike::Equivalent), [""; 0]);
        machine.run("mv /usr/local/bin/redis-server /opt/").ok();
        let refused = machine.run("redis-tp up").exits(5);
        assert!(refused.stderr.contains("redis-server is not on this machine"), "{refused}");
    }
}
