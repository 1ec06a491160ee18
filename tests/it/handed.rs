//! What the server's user names in a configuration, or exchanges while root is at work, does not become his.

use crate::machine::{Alike, Init, Machine, Release, differences};
use crate::story::bare;

const AS_REDIS: &str = "setpriv --reuid=redis --regid=redis --clear-groups";

/// What nobody but root may come to own.
const ROOTS: [&str; 8] = [
    "/etc/cron.d",
    "/etc/shadow",
    "/etc/systemd/system",
    "/root",
    "/srv",
    "/opt",
    "/var/lib/dpkg",
    "/var/log/dpkg.log",
];

/// A configuration by the server's user; what stood there before, made by root; and what the refusal says.
const NAMED: [(&str, &str, &str, &[&str]); 19] = [
    ("cron's directory", "dir /etc/cron.d", "true", &["[x] dir = /etc/cron.d: that is the system's"]),
    (
        "a drop-in of another unit's",
        "dir /etc/systemd/system/cron.service.d",
        "true",
        &["that is the system's"],
    ),
    ("dpkg's directory", "dir /var/lib/dpkg/parts", "true", &["/var/lib/dpkg/parts is another user's"]),
    (
        "a directory that is not there",
        "dir /var/lib/cron",
        "true",
        &["/var/lib/cron is another user's", "chown redis"],
    ),
    (
        "what a web server serves",
        "dir /srv/www",
        "mkdir /srv/www && echo x >/srv/www/index.html",
        &["/srv/www/index.html is in it, too", "chown redis: /srv/www"],
    ),
    (
        "a log of the system's",
        "dir /var/lib/redis/x\nlogfile /var/log/dpkg.log",
        "install -d -o redis -g redis /var/lib/redis/x && touch /var/log/dpkg.log",
        &["/var/log/dpkg.log is another user's"],
    ),
    ("the passwords", "dir /var/lib/redis/x\nlogfile /etc/shadow", "true", &["that is the system's"]),
    (
        "what dpkg runs as root",
        "dir /var/lib/redis/x\nlogfile /var/lib/dpkg/info/redis-server.postinst",
        "true",
        &["/var/lib/dpkg/info/redis-server.postinst is another user's"],
    ),
    (
        "a program",
        "dir /var/lib/redis/x\nlogfile /opt/redis/run.log",
        "mkdir -p /opt/redis && install -m 755 /bin/true /opt/redis/run.log",
        &["/opt/redis/run.log is another user's", "no log"],
    ),
    (
        "a secret",
        "dir /var/lib/redis/x\nlogfile /opt/redis/key",
        "echo x >/opt/redis/key",
        &["/opt/redis/key is another user's", "no log"],
    ),
    (
        "what passes for a dump by its name",
        "dir /opt/app\ndbfilename run",
        "mkdir /opt/app && install -m 755 /bin/true /opt/app/run",
        &["/opt/app/run is in it, too"],
    ),
    (
        "what a program is told of a server",
        "dir /opt/told\ndbfilename env",
        "mkdir /opt/told && echo REDIS_URL=redis://:secret@db >/opt/told/env",
        &["/opt/told/env is in it, too"],
    ),
    (
        "what cron does, beside the data",
        "dir /srv/jobs\ndbfilename job",
        "mkdir /srv/jobs && echo \"*/5 * * * * root true\" >/srv/jobs/job",
        &["/srv/jobs/job is in it, too"],
    ),
    (
        "photographs whose names are of another time",
        "dir /srv/redis-photos",
        "mkdir /srv/redis-photos && echo x >\"$(printf '/srv/redis-photos/caf\\351.jpg')\"",
        &[".jpg is in it, too"],
    ),
    (
        "a directory beside a program",
        "dir /opt/app/plugins",
        "true",
        &["/opt/app/plugins is another user's, and nothing in its name"],
    ),
    (
        "cron's directory, by the append only file's",
        "dir /var/lib/redis\nappenddirname \"../../../etc/cron.d\"",
        "echo \"*/5 * * * * root true\" >/etc/cron.d/job",
        &["appenddirname", "is no name in its directory"],
    ),
    (
        "what is above its directory",
        "dir /var/lib/redis\nappenddirname ..",
        "true",
        &["appenddirname", "is no name in its directory"],
    ),
    (
        "what cron does, by the dump's name",
        "dir /var/lib/redis\ndbfilename ../../../etc/cron.d/job",
        "true",
        &["dbfilename", "is no name in its directory"],
    ),
    (
        "what redis-tp knows",
        "dir /var/lib/redis-tp/redis",
        "true",
        &["/var/lib/redis-tp/redis: that is the system's"],
    ),
];

fn with_server(init: Init) -> Option<Machine> {
    let machine = bare(Release::Bookworm, init)?;
    machine.run("apt-get install -y redis-server >/dev/null").ok();
    Some(machine)
}

fn configure(machine: &Machine, lines: &str) {
    machine
        .run(&format!(
            "printf 'port 7000\\nbind 127.0.0.1\\n%b\\n' '{}' >/etc/redis/redis-x.conf &&
            chown redis: /etc/redis/redis-x.conf && chmod 640 /etc/redis/redis-x.conf",
            lines.replace('\n', "\\n")
        ))
        .ok();
}

#[test]
fn no_place_of_the_systems_becomes_the_servers_because_its_configuration_says_so() {
    for init in [Init::Systemd, Init::None] {
        let Some(machine) = with_server(init) else { return };
        for (what, lines, before, says) in NAMED {
            machine.run(before).ok();
            configure(&machine, lines);
            let there = machine.snapshot(&ROOTS);
            let adopt = machine.run("redis-tp adopt").exits(5);
            for word in says {
                assert!(adopt.stderr.contains(word), "{what}: {adopt}");
            }
            assert_eq!(differences(&there, &machine.snapshot(&ROOTS), Alike::Untouched), [""; 0], "{what}");
        }
    }
}

#[test]
fn a_directory_that_a_server_of_roots_used_is_handed_over() {
    for dir in ["/srv/cache", "/var/redis/7000"] {
        let Some(machine) = with_server(Init::Systemd) else { return };
        configure(
            &machine,
            &format!("dir {dir}\nlogfile {dir}/redis.log\npidfile {dir}/redis.pid\ndaemonize yes"),
        );
        machine
            .run(&format!(
                "mkdir -p {dir}/lost+found && touch {dir}/redis.log.1 && redis-server /etc/redis/redis-x.conf"
            ))
            .ok();
        machine
            .run("until redis-cli -p 7000 SET here it-is; do sleep 0.05; done; redis-cli -p 7000 SAVE")
            .ok();
        let adopt = machine.run("redis-tp adopt").ok();
        assert!(adopt.stdout.contains(&format!("{dir} is handed over to redis:redis")), "{adopt}");
        assert_eq!(machine.run(&format!("stat -c %U {dir} {dir}/dump.rdb")).stdout, "redis\nredis\n");
        assert_eq!(machine.run("redis-tp cli x -- GET here").ok().stdout.trim(), "it-is");
    }
}

#[test]
fn data_that_everybody_was_let_in_to_are_data() {
    let Some(machine) = with_server(Init::Systemd) else { return };
    configure(&machine, "dir /srv/cache\nappendonly yes");
    machine.run("mkdir /srv/cache && (redis-server /etc/redis/redis-x.conf --daemonize yes)").ok();
    machine.run("until redis-cli -p 7000 SET here it-is; do sleep 0.05; done; redis-cli -p 7000 SHUTDOWN SAVE; chmod -R 755 /srv/cache").ok();
    machine.run("redis-tp adopt").ok();
    assert_eq!(machine.run("find /srv/cache ! -user redis").stdout, "");
    assert_eq!(machine.run("redis-tp cli x -- GET here").ok().stdout.trim(), "it-is");
}

/// The server's user waits for the save at the end of a server of root's, and then names another directory.
const EXCHANGE_THE_NAME: &str = "setpriv --reuid=redis --regid=redis --clear-groups sh -c '
    until ls /srv/redis-x/temp-*.rdb >/dev/null 2>&1; do :; done
    printf \"port 7000\\nbind 127.0.0.1\\ndir /etc\\nappenddirname cron.d\\ndbfilename fstab\\n\" >/etc/redis/redis-x.conf
    echo done >/tmp/named' >/root/exchanger 2>&1 &";

#[test]
fn a_name_that_is_exchanged_while_a_server_saves_hands_nothing_over() {
    let Some(machine) = with_server(Init::Systemd) else { return };
    let owners = "find /etc -xdev -path /etc/redis -prune -o -printf '%p %u %m\\n' | grep -v redis | sort";
    configure(&machine, "dir /srv/redis-x\nenable-debug-command yes\ndaemonize yes");
    machine.run("mkdir /srv/redis-x && echo '* * * * * root true' >/etc/cron.d/job && redis-server /etc/redis/redis-x.conf").ok();
    machine.run("until redis-cli -p 7000 DEBUG POPULATE 300000; do sleep 0.05; done").ok();
    let there = machine.run(owners).ok().stdout;
    machine.run(EXCHANGE_THE_NAME).ok();
    let adopt = machine.run("redis-tp adopt");
    assert!(machine.exists("/tmp/named"), "nobody exchanged it: {adopt}");
    assert_eq!(machine.run(owners).ok().stdout, there, "{adopt}");
}

#[test]
fn what_lies_behind_a_link_in_the_data_is_not_handed_over() {
    for name in ["/etc", "/root"] {
        let Some(machine) = with_server(Init::Systemd) else { return };
        machine
            .run(&format!("{AS_REDIS} sh -c 'mkdir /var/lib/redis/b; ln -s {name} /var/lib/redis/b/c'"))
            .ok();
        configure(&machine, "dir /var/lib/redis/b\nappendonly yes\nappendfilename shadow\nappenddirname c");
        let owners = format!("find {name} -xdev -printf '%p %u %m\\n' | grep -v redis | sort");
        let there = machine.run(&owners).ok().stdout;
        let adopt = machine.run("redis-tp adopt");
        assert_eq!(machine.run(&owners).ok().stdout, there, "{adopt}");
        assert!(!adopt.stdout.contains("and 91 more"), "{adopt}");
        machine.run("redis-tp plan").ok();
    }
}

/// A server of the same user that nobody manages, and that everybody may read the log of.
const STRAY: &str = "setpriv --reuid=redis --regid=redis --clear-groups sh -c 'mkdir /var/lib/redis/l && umask 0 &&
    redis-server --port 7777 --daemonize yes --dir /var/lib/redis --dbfilename stray.rdb --logfile /var/lib/redis/l/shadow' &&
    until redis-cli -p 7777 PING; do sleep 0.05; done; chmod 666 /var/lib/redis/l/shadow";

const SHADOW: &str = "stat -c '%U %G %a %i' /etc/shadow";

#[test]
fn a_directory_that_is_exchanged_after_a_run_does_not_lead_its_rollback_astray() {
    let Some(machine) = with_server(Init::Systemd) else { return };
    machine.run("redis-tp up --no-app --overwrite").ok();
    machine.run(STRAY).ok();
    let there = machine.run(SHADOW).ok().stdout;
    let fixed = machine.run("redis-tp check --fix --fail-on critical");
    assert_eq!(machine.run("stat -c %a /var/lib/redis/l/shadow").stdout, "660\n", "{fixed}");
    for exchange in [
        "mv /var/lib/redis/l /var/lib/redis/m; ln -s /etc /var/lib/redis/l",
        "rm /var/lib/redis/l; mkdir /var/lib/redis/l; ln -s /etc/shadow /var/lib/redis/l/shadow",
        "rm -r /var/lib/redis/l; mkfifo /var/lib/redis/l",
    ] {
        machine.run(&format!("{AS_REDIS} sh -c '{exchange}'")).ok();
        machine.run("redis-tp rollback").ok();
        assert_eq!(machine.run(SHADOW).ok().stdout, there, "{exchange}");
        machine.run("redis-tp install --set hz=20 && redis-tp rollback").ok();
    }
}

/// Exchanges a directory and a link to another, as fast as it can (renameat2(2), RENAME_EXCHANGE).
const EXCHANGE: &str = "setpriv --reuid=redis --regid=redis --clear-groups perl -e '
    chdir q(/var/lib/redis); symlink q(/etc), q(y); $| = 1; print qq(on\\n);
    while (1) { syscall(316, -100, my $a = q(l), -100, my $b = q(y), 2) }' >/root/on & echo $! >/root/exchanger
    until grep -q on /root/on; do sleep 0.01; done";

#[test]
fn a_directory_that_is_exchanged_while_the_fix_runs_does_not_lead_it_astray() {
    let Some(machine) = with_server(Init::None) else { return };
    machine.run("redis-tp up --no-app --overwrite").ok();
    machine.run(STRAY).ok();
    machine.run(EXCHANGE).ok();
    let there = machine.run(SHADOW).ok().stdout;
    for _ in 0..12 {
        let fix = machine.run("redis-tp check --fix --fail-on critical");
        assert_eq!(machine.run(SHADOW).ok().stdout, there, "{fix}");
        machine
            .run(&format!("{AS_REDIS} chmod -f 666 /var/lib/redis/l/shadow /var/lib/redis/y/shadow; true"))
            .ok();
    }
    machine.run("kill $(cat /root/exchanger)").ok();
}
