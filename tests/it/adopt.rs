//! A Redis that somebody set up by hand, taken over on real machines: what is sound is not touched, and what
//! is not is repaired without losing a key.

use crate::machine::{Alike, Init, Machine, Release, differences};
use crate::story::bare;

/// What must not be touched where it is sound.
const PLACES: [&str; 3] = ["/etc/redis", "/etc/systemd/system", "/var/lib/redis-slave"];

const INSTALL: &str = "apt-get install -y redis-server >/dev/null 2>&1";

/// Which processes there are, and since when.
fn servers(machine: &Machine) -> String {
    machine.run("ps -C redis-server -o pid,user,lstart --no-headers").ok().stdout
}

/// A pair as a careful administrator makes it, after redis(1) and the comments of the units.
fn careful(machine: &Machine) {
    machine.run(INSTALL).ok();
    machine
        .run(
            "cd /etc/redis
            sed -i 's/^bind .*/bind 127.0.0.1/; s/^# requirepass .*/requirepass s3cret/' redis.conf
            systemctl restart redis-server
            cp redis.conf redis-slave.conf && chown redis:redis redis-slave.conf
            sed -i 's/^port .*/port 6380/; s#^dir .*#dir /var/lib/redis-slave#
                s#^logfile .*#logfile /var/log/redis/redis-slave.log#; s/^\\(repl-diskless-sync-delay\\) .*/\\1 0/
                s#^pidfile .*#pidfile /run/redis-slave/redis-server.pid#' redis-slave.conf
            printf 'replicaof 127.0.0.1 6379\\nmasterauth s3cret\\nrename-command DEBUG \"\"\\n' >> redis-slave.conf
            sed -i 's/^\\(repl-diskless-sync-delay\\) .*/\\1 0/' redis.conf && systemctl restart redis-server
            mkdir /var/lib/redis-slave && chown redis:redis /var/lib/redis-slave
            mkdir /etc/systemd/system/redis-server@slave.service.d
            printf '[Service]\\nReadWritePaths=/var/lib/redis-slave\\n' > \\
                /etc/systemd/system/redis-server@slave.service.d/override.conf
            systemctl daemon-reload && systemctl enable --now redis-server@slave",
        )
        .ok();
    await_link(machine);
}

/// The lab's way: a copy, a directory of root's, and a server in the background.
fn lab(machine: &Machine, invented: &str) {
    machine.run(INSTALL).ok();
    machine
        .run(&format!(
            "cd /etc/redis
            sed -i 's/^bind .*/bind 0.0.0.0/; s/^protected-mode .*/protected-mode no/
                s/^# requirepass .*/requirepass s3cret/; s/^\\(repl-diskless-sync-delay\\) .*/\\1 0/' redis.conf
            (systemctl restart redis-server || redis-server redis.conf) 2>/dev/null
            cp redis.conf redis-slave.conf
            sed -i 's/^port .*/port 6380/; s#^dir .*#dir /var/lib/redis-slave#
                s#^logfile .*#logfile /var/log/redis/redis-slave.log#' redis-slave.conf
            printf '# mine\\nreplicaof 127.0.0.1 6379\\nmasterauth s3cret\\n{invented}\\n' >> redis-slave.conf
            mkdir /var/lib/redis-slave
            until redis-cli -p 6379 PING; do sleep 0.05; done
            redis-server /etc/redis/redis-slave.conf >/dev/null 2>&1 && until redis-cli -p 6380 PING; do sleep 0.05; done
            redis-cli --no-auth-warning -a s3cret SET precious data"
        ))
        .ok();
}

fn await_link(machine: &Machine) {
    machine
        .run("for i in $(seq 100); do redis-cli --no-auth-warning -a s3cret -p 6380 INFO replication | grep -q link_status:up && exit 0; sleep 0.1; done; exit 1")
        .ok();
}

fn says_no_changes(machine: &Machine) {
    let plan = machine.run("redis-tp plan --detailed-exitcode").ok();
    assert!(plan.stdout.starts_with("No changes."), "{plan}");
    machine.run("redis-tp verify").ok();
}

#[test]
fn the_packages_own_redis_is_taken_over_and_not_touched() {
    for release in Release::ALL {
        let Some(machine) = bare(release, Init::Systemd) else { return };
        machine.run(INSTALL).ok();
        let (before, pids) = (machine.snapshot(&PLACES), servers(&machine));
        machine.run("redis-tp adopt --dry-run").ok();
        assert!(!machine.exists("/etc/redis-tp"), "a dry run wrote");
        let adopted = machine.run("redis-tp adopt").ok();
        assert!(adopted.stdout.contains("stays as it is"), "{adopted}");
        assert_eq!(differences(&before, &machine.snapshot(&PLACES), Alike::Untouched), [""; 0]);
        assert_eq!(servers(&machine), pids);
        says_no_changes(&machine);
        let again = machine.run("redis-tp adopt").ok();
        assert!(again.stdout.starts_with("No changes."), "{again}");
    }
}

#[test]
fn a_careful_pair_is_taken_over_and_given_back_as_it_was() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    careful(&machine);
    let (before, pids) = (machine.snapshot(&PLACES), servers(&machine));
    let adopted = machine.run("redis-tp adopt").ok();
    assert!(!adopted.stdout.contains("repair:"), "{adopted}");
    assert_eq!(differences(&before, &machine.snapshot(&PLACES), Alike::Untouched), [""; 0]);
    assert_eq!(servers(&machine), pids);
    says_no_changes(&machine);
    // What is changed from now on is changed in their file, line by line.
    machine.run("cp /etc/redis/redis.conf /root/before && redis-tp install --set timeout=99").ok();
    let diff = machine.run("diff /root/before /etc/redis/redis.conf").exits(1).stdout;
    assert_eq!(
        diff.lines().filter(|line| line.starts_with(['<', '>'])).collect::<Vec<_>>(),
        ["< timeout 0", "> timeout 99"]
    );
    assert_eq!(servers(&machine), pids, "a server was restarted for it");
    machine.run("redis-tp uninstall --purge --no-backup").ok();
    assert_eq!(
        differences(&before, &machine.snapshot(&PLACES), Alike::Equivalent)
            .into_iter()
            .filter(|line| !line.contains("dump.rdb"))
            .collect::<Vec<_>>(),
        [""; 0]
    );
    machine.run("systemctl is-active redis-server redis-server@slave").ok();
    machine.run("systemctl is-enabled redis-server redis-server@slave").ok();
    await_link(&machine);
}

#[test]
fn the_labs_replica_of_root_is_repaired_and_keeps_what_it_holds() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    lab(&machine, "");
    // What only it holds: nobody may lose it.
    machine
        .run(
            "redis-cli --no-auth-warning -a s3cret -p 6380 REPLICAOF NO ONE
            redis-cli --no-auth-warning -a s3cret -p 6380 CONFIG SET save ''
            redis-cli --no-auth-warning -a s3cret -p 6380 SET own data",
        )
        .ok();
    let before = machine.run("cat /etc/redis/redis-slave.conf").ok().stdout;
    let adopted = machine.run("redis-tp adopt").ok();
    for reason in [
        "/var/lib/redis-slave is handed over to redis:redis",
        "/var/log/redis/redis-slave.log is handed over to redis:adm",
        "is ended, its data saved, and started as redis-server@slave",
        "it runs as root",
        "loses replicaof",
        "it would not start at boot",
    ] {
        assert!(adopted.stdout.contains(reason), "{reason}: {adopted}");
    }
    assert!(!adopted.stdout.contains("s3cret") && !adopted.stderr.contains("s3cret"), "{adopted}");
    assert_eq!(machine.run("redis-tp cli slave -- GET own").ok().stdout, "data\n");
    let after = machine.run("cat /etc/redis/redis-slave.conf").ok().stdout;
    assert_eq!(after, before.replace("replicaof 127.0.0.1 6379\n", ""));
    assert_eq!(machine.run("ps -C redis-server -o user --no-headers | sort -u").ok().stdout, "redis\n");
    let plan = machine.run("redis-tp plan --detailed-exitcode").ok();
    assert!(plan.stdout.starts_with("No changes."), "{plan}");
}

#[test]
fn a_directive_that_does_not_exist_is_taken_out_and_nothing_else() {
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        lab(&machine, "replica-announce-pass s3cret");
        let before = machine.run("cat /etc/redis/redis-slave.conf").ok().stdout;
        let master = machine.snapshot(&["/etc/redis/redis.conf"]);
        let adopted = machine.run("redis-tp adopt").ok();
        assert!(adopted.stdout.contains("replica-announce-pass is taken out"), "{adopted}");
        let after = machine.run("cat /etc/redis/redis-slave.conf").ok().stdout;
        assert_eq!(after, before.replace("replica-announce-pass s3cret\n", ""));
        assert_eq!(
            differences(&master, &machine.snapshot(&["/etc/redis/redis.conf"]), Alike::Untouched),
            [""; 0]
        );
        assert_eq!(machine.run("redis-tp cli slave -- GET precious").ok().stdout, "data\n");
        says_no_changes(&machine);
    }
}

#[test]
fn an_adoption_that_is_rolled_back_leaves_the_server_of_root_as_it_ran() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    lab(&machine, "");
    await_link(&machine);
    let owners = "stat -c '%U %a %n' /etc/redis/* /var/lib/redis-slave /var/log/redis/redis-slave.log";
    let before = machine.run(owners).ok().stdout;
    machine.run("redis-tp adopt").ok();
    machine.run("redis-tp rollback").ok();
    assert_eq!(machine.run(owners).ok().stdout, before);
    assert_eq!(machine.run("ps -C redis-server -o user --no-headers | sort").ok().stdout, "redis\nroot\n");
    assert_eq!(
        machine.run("redis-cli --no-auth-warning -a s3cret -p 6380 GET precious").ok().stdout,
        "data\n"
    );
    machine.run("redis-tp adopt").ok();
    says_no_changes(&machine);
}

#[test]
fn what_cannot_be_taken_over_is_refused_with_its_cure_and_nothing_changes() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    let refused = machine.run("redis-tp adopt").exits(5);
    assert!(refused.stderr.contains("redis-tp up"), "{refused}");
    machine.run(INSTALL).ok();
    let own = "/etc/redis/redis-other.conf";
    for (make, what) in [
        (format!("printf 'port 6379\\n' > {own}"), "both have port 6379"),
        (format!("printf 'port 7000\\ncluster-enabled yes\\n' > {own}"), "cluster-enabled yes"),
        (format!("printf 'port 0\\nunixsocket /run/x\\n' > {own}"), "port 0"),
        (
            format!(
                "printf 'port 0\\ntls-port 7000\\ntls-cert-file /c\\ntls-key-file /k\\ntls-ca-cert-file /a\\n' > {own}"
            ),
            "has TLS on its only port",
        ),
        (format!("printf 'port 7000\\nrequirepass \"s3cret\\n' > {own}"), "the quotes do not pair"),
        (format!("printf 'port 7000\\nbind localhost\\n' > {own}"), "is no IP address"),
        (format!("printf 'port 7000\\ninclude /etc/redis/more\\n' > {own}"), "includes /etc/redis/more,"),
        (
            format!(
                "rm -f {own}; printf 'port 7000\\ndaemonize yes\\n' > /root/7000.conf; redis-server /root/7000.conf; until redis-cli -p 7000 PING; do sleep 0.05; done"
            ),
            "runs by /root/7000.conf",
        ),
        (
            "redis-cli -p 7000 SHUTDOWN NOSAVE; while pgrep -f '[r]edis-server.*:7000'; do sleep 0.05; done; redis-cli CONFIG SET requirepass s3cret".into(),
            "--password-file",
        ),
    ] {
        machine.run(&make);
        let before = machine.snapshot(&["/etc", "/var/lib/redis-tp"]);
        let refused = machine.run("redis-tp adopt").exits(5);
        assert!(refused.stderr.contains(what) && refused.stderr.contains("hint:"), "{make}: {refused}");
        assert!(!refused.stderr.contains("s3cret"), "{refused}");
        let lasting = |path: &&String| !path.contains("/var/lib/redis-tp");
        let changed =
            differences(&before, &machine.snapshot(&["/etc", "/var/lib/redis-tp"]), Alike::Untouched);
        assert_eq!(changed.iter().filter(lasting).collect::<Vec<_>>(), [""; 0], "{make}");
    }
    // The password of a server that no file has: with it, the file gets it.
    machine.run_with_input("redis-tp adopt --password-file -", "s3cret\n").ok();
    machine.run("grep -q '^requirepass s3cret$' /etc/redis/redis.conf").ok();
    says_no_changes(&machine);
}
