//! What redis-tp keeps for itself, and what it is given to put back, damaged or exchanged in every way.

use super::Case;

/// Shell that moves a file aside and puts something in its place, and shell that puts it back.
macro_rules! aside {
    ($what:literal, $where:literal, $then:literal) => {
        (
            concat!("set -e; cd ", $where, "; mv ", $what, " /root/aside; ", $then),
            concat!("cd ", $where, " && rm -rf ", $what, " && mv /root/aside ", $what),
        )
    };
}

macro_rules! journal {
    ($then:literal) => {
        aside!("journal", "/var/lib/redis-tp/runs/$(ls /var/lib/redis-tp/runs | tail -n1)", $then)
    };
}

macro_rules! record {
    ($then:literal) => {
        aside!("state.json", "/var/lib/redis-tp", $then)
    };
}

macro_rules! topology {
    ($then:literal) => {
        aside!("topology.ini", "/etc/redis-tp", $then)
    };
}

macro_rules! password {
    ($then:literal) => {
        aside!("password", "/etc/redis-tp", $then)
    };
}

const fn case(
    what: &'static str,
    (make, end): (&'static str, &'static str),
    run: &'static str,
    says: &'static [&'static str],
) -> Case {
    Case::new(what, run, 5, says).given(make, end)
}

const fn usage(
    what: &'static str,
    (make, end): (&'static str, &'static str),
    run: &'static str,
    says: &'static [&'static str],
) -> Case {
    Case::new(what, run, 2, says).given(make, end)
}

/// Where the lab's master and replica run.
pub const STATES: &[Case] = &[
    // The journal
    case(
        "a journal that is a directory",
        journal!("mkdir journal"),
        "redis-tp apply",
        &["/journal: Is a directory", "mv /var/lib/redis-tp/runs/"],
    ),
    case(
        "a journal that is a link to itself",
        journal!("ln -s journal journal"),
        "redis-tp apply",
        &["/journal: Too many levels", "mv /var/lib/redis-tp/runs/"],
    ),
    case(
        "an empty journal",
        journal!(": >journal"),
        "redis-tp apply",
        &["it is empty", "mv /var/lib/redis-tp/runs/"],
    ),
    case(
        "a journal cut off in its first line",
        journal!("head -c 20 /root/aside >journal"),
        "redis-tp apply",
        &["it is empty", "mv /var/lib/redis-tp/runs/"],
    ),
    case(
        "a foreign journal",
        journal!("echo hello >journal"),
        "redis-tp apply",
        &["line 1 is not the head of a journal", "mv /var/lib/redis-tp/runs/"],
    ),
    case(
        "a journal with a foreign line",
        journal!("{ head -n1 /root/aside; echo '{\"undo\":\"explode\"}'; } >journal"),
        "redis-tp apply",
        &["line 2 is not of a journal", "mv /var/lib/redis-tp/runs/"],
    ),
    case(
        "a journal with two heads",
        journal!("{ head -n1 /root/aside; head -n1 /root/aside; } >journal"),
        "redis-tp rollback",
        &["line 2 is a second head", "mv /var/lib/redis-tp/runs/"],
    ),
    case(
        "a journal that is no text",
        journal!("printf '\\377\\n' >journal"),
        "redis-tp apply",
        &["/journal is not UTF-8 text", "mv /var/lib/redis-tp/runs/"],
    ),
    case(
        "a journal that is a fifo",
        journal!("mkfifo journal"),
        "timeout 20 redis-tp apply",
        &["/journal is no regular file", "mv /var/lib/redis-tp/runs/"],
    ),
    case(
        "a journal without an end",
        journal!("truncate -s 65M journal"),
        "redis-tp apply",
        &["/journal is longer than 64 MiB", "mv /var/lib/redis-tp/runs/"],
    ),
    case(
        "a journal of a later redis-tp",
        journal!("sed '1s/\"journal\":[0-9]*/\"journal\":99/' /root/aside >journal"),
        "redis-tp apply",
        &["it is of a later redis-tp (format 99", "mv /var/lib/redis-tp/runs/"],
    ),
    // The record
    case(
        "a record that is a directory",
        record!("mkdir state.json"),
        "redis-tp apply",
        &["state.json: Is a directory", "mv /var/lib/redis-tp/state.json"],
    ),
    case(
        "a record that is a link to itself",
        record!("ln -s state.json state.json"),
        "redis-tp status",
        &["state.json: Too many levels", "mv /var/lib/redis-tp/state.json"],
    ),
    case(
        "an empty record",
        record!(": >state.json"),
        "redis-tp apply",
        &["state.json is not what redis-tp wrote", "redis-tp adopt"],
    ),
    case(
        "a record that is no text",
        record!("printf '\\377\\n' >state.json"),
        "redis-tp plan",
        &["state.json is not UTF-8 text", "mv /var/lib/redis-tp/state.json"],
    ),
    case(
        "a record that is cut off",
        record!("head -c 500 /root/aside >state.json"),
        "redis-tp uninstall",
        &["state.json is not what redis-tp wrote", "redis-tp adopt"],
    ),
    case(
        "a foreign record",
        record!("echo '{\"servers\": 2}' >state.json"),
        "redis-tp replica add --port 6390",
        &["state.json is not what redis-tp wrote", "redis-tp adopt"],
    ),
    case(
        "a record that is a list",
        record!("echo '[]' >state.json"),
        "redis-tp backup",
        &["state.json is not what redis-tp wrote", "redis-tp adopt"],
    ),
    case(
        "a record of a later redis-tp",
        record!("echo '{\"schema\": 99, \"realms\": []}' >state.json"),
        "redis-tp apply",
        &["state.json is of a later redis-tp (format 99", "redis-tp adopt"],
    ),
    case(
        "a record without an end",
        record!("truncate -s 65M state.json"),
        "redis-tp apply",
        &["state.json is longer than 64 MiB", "mv /var/lib/redis-tp/state.json"],
    ),
    case(
        "a record that is a fifo",
        record!("mkfifo state.json"),
        "timeout 20 redis-tp status",
        &["state.json is no regular file", "mv /var/lib/redis-tp/state.json"],
    ),
    case(
        "a record that is a device",
        record!("ln -s /dev/zero state.json"),
        "timeout 20 redis-tp uninstall",
        &["state.json is no regular file", "mv /var/lib/redis-tp/state.json"],
    ),
    case(
        "a record that is gone",
        record!(":"),
        "redis-tp uninstall",
        &["there is no /var/lib/redis-tp/state.json", "redis-tp apply"],
    ),
    case(
        "a change while the record is gone",
        record!(":"),
        "redis-tp install --set maxmemory=100mb",
        &["/var/lib/redis-tp/state.json is gone", "redis-tp apply"],
    ),
    case(
        "an instance that goes while the record is gone",
        record!(":"),
        "redis-tp replica remove slave",
        &["/var/lib/redis-tp/state.json is gone", "redis-tp apply"],
    ),
    case(
        "a backup while the record is gone",
        record!(":"),
        "redis-tp backup",
        &["there is no /var/lib/redis-tp/state.json", "redis-tp apply"],
    ),
    // The topology
    case(
        "a topology that is a directory",
        topology!("mkdir topology.ini"),
        "redis-tp apply",
        &["topology.ini: Is a directory", "mv /etc/redis-tp/topology.ini"],
    ),
    case(
        "a topology that is a link to itself",
        topology!("ln -s topology.ini topology.ini"),
        "redis-tp plan",
        &["topology.ini: Too many levels", "mv /etc/redis-tp/topology.ini"],
    ),
    case(
        "a standing topology that is no text",
        topology!("head -c 4096 /dev/urandom >topology.ini"),
        "redis-tp apply",
        &["topology.ini is not UTF-8 text", "mv /etc/redis-tp/topology.ini"],
    ),
    case(
        "a topology that is a fifo",
        topology!("mkfifo topology.ini"),
        "timeout 20 redis-tp install --set maxclients=500",
        &["topology.ini is no regular file", "mv /etc/redis-tp/topology.ini"],
    ),
    case(
        "a topology that is a terminal",
        topology!("ln -s /dev/ptmx topology.ini"),
        "timeout 20 redis-tp uninstall --purge",
        &["topology.ini is no regular file", "mv /etc/redis-tp/topology.ini"],
    ),
    case(
        "a topology without an end",
        topology!("truncate -s 65M topology.ini"),
        "redis-tp status",
        &["topology.ini is longer than 64 MiB", "mv /etc/redis-tp/topology.ini"],
    ),
    case(
        "a topology from /dev/zero",
        ("", ""),
        "redis-tp apply -f /dev/zero",
        &["/dev/zero is longer than 64 MiB", "- for standard input"],
    ),
    case(
        "a topology with a byte order mark",
        topology!("{ printf '\\357\\273\\277'; cat /root/aside; } >topology.ini"),
        "redis-tp apply",
        &["topology.ini:1: the file begins with a byte order mark", "sed -i"],
    ),
    case(
        "a topology of nothing but NUL",
        topology!("head -c 64 /dev/zero >topology.ini"),
        "redis-tp apply",
        &["topology.ini", ":1: the line has a control character"],
    ),
    case(
        "a topology with a password that all can read",
        topology!("sed 's/^.master.$/&\\nrequirepass = abc/' /root/aside >topology.ini; chmod 644 topology.ini"),
        "redis-tp apply",
        &["topology.ini holds a password and can be read by others", "chmod 600"],
    ),
    case(
        "a topology that is gone",
        topology!(":"),
        "redis-tp apply",
        &["/etc/redis-tp/topology.ini is gone", "cp /var/lib/redis-tp/written/"],
    ),
    // The password
    case(
        "a password that is a directory",
        password!("mkdir password"),
        "redis-tp apply",
        &["password: Is a directory", "mv /etc/redis-tp/password"],
    ),
    case(
        "a password that is a fifo",
        password!("mkfifo password"),
        "timeout 20 redis-tp cli -- PING",
        &["password is no regular file", "mv /etc/redis-tp/password"],
    ),
    case(
        "a kept password with a control character",
        password!("printf 'a\\tb\\n' >password"),
        "redis-tp apply",
        &["/etc/redis-tp/password has a control character", "rm /etc/redis-tp/password"],
    ),
    case(
        "a kept password that is empty",
        password!(": >password"),
        "redis-tp apply",
        &["/etc/redis-tp/password is empty", "rm /etc/redis-tp/password"],
    ),
    case(
        "a kept password that is no text",
        password!("printf '\\377\\n' >password"),
        "redis-tp apply",
        &["/etc/redis-tp/password is not UTF-8", "mv /etc/redis-tp/password"],
    ),
    // Its files
    case(
        "a configuration that is a fifo",
        aside!("redis-slave.conf", "/etc/redis", "mkfifo redis-slave.conf"),
        "timeout 20 redis-tp uninstall",
        &["redis-slave.conf is a fifo, a socket or a device, not a file", "mv /etc/redis/redis-slave.conf"],
    ),
    case(
        "a configuration that is a directory, of an instance that is to go",
        aside!("redis-slave.conf", "/etc/redis", "mkdir redis-slave.conf"),
        "redis-tp replica remove slave",
        &["redis-slave.conf is a directory, not a file", "mv /etc/redis/redis-slave.conf"],
    ),
    // Backups
    case("a backup that is not there", ("", ""), "redis-tp restore /root/none.rdb", &["/root/none.rdb"]),
    case(
        "a backup that is no RDB",
        ("echo hello >/root/b.rdb", "rm /root/b.rdb"),
        "redis-tp restore /root/b.rdb",
        &["/root/b.rdb", "no RDB"],
    ),
    case(
        "a backup that is empty",
        (": >/root/b.rdb", "rm /root/b.rdb"),
        "redis-tp restore /root/b.rdb",
        &["/root/b.rdb is empty", "redis-tp backup"],
    ),
    case("a backup that is a directory", ("", ""), "redis-tp restore /etc", &["/etc"]),
    case(
        "a backup that is a fifo",
        ("mkfifo /root/b.rdb", "rm /root/b.rdb"),
        "redis-tp restore /root/b.rdb",
        &["/root/b.rdb"],
    ),
    case("a backup from /dev/zero", ("", ""), "redis-tp restore /dev/zero", &["/dev/zero"]),
    case(
        "a backup of a later Redis",
        ("printf 'REDIS9999\\372\\tredis-ver\\00599.0.\\377' >/root/b.rdb", "rm /root/b.rdb"),
        "redis-tp restore /root/b.rdb",
        &["/root/b.rdb", "9999"],
    ),
    case(
        "a backup that is cut off",
        ("head -c 60 /var/lib/redis/dump.rdb >/root/b.rdb", "rm /root/b.rdb"),
        "redis-tp restore /root/b.rdb",
        &["/root/b.rdb"],
    )
    .stages(),
    case(
        "a backup with a byte turned",
        (
            "cp /var/lib/redis/dump.rdb /root/b.rdb; printf X | dd of=/root/b.rdb bs=1 seek=40 conv=notrunc status=none",
            "rm /root/b.rdb",
        ),
        "redis-tp restore /root/b.rdb",
        &["/root/b.rdb"],
    )
    .stages(),
    usage(
        "a backup into an instance that is not there",
        ("cp /var/lib/redis/dump.rdb /root/b.rdb", "rm /root/b.rdb"),
        "redis-tp restore /root/b.rdb mastre",
        &["mastre", "did you mean 'master'?"],
    ),
    case(
        "a backup into a replica",
        ("cp /var/lib/redis/dump.rdb /root/b.rdb", "rm /root/b.rdb"),
        "redis-tp restore /root/b.rdb slave",
        &["slave"],
    ),
    usage(
        "a backup of an instance that is not there",
        ("", ""),
        "redis-tp backup mastre",
        &["mastre", "did you mean 'master'?"],
    ),
    case(
        "a backup to a place that is not there",
        ("", ""),
        "redis-tp backup --to /root/none/b.rdb",
        &["/root/none"],
    ),
    case(
        "a backup under a name that is no text",
        ("", ""),
        "redis-tp backup --to \"$(printf '/root/b\\377')\"",
        &["is no UTF-8 text", "redis-tp backup --to DIRECTORY"],
    ),
    case(
        "a backup over another file",
        ("touch /root/b.rdb", "rm /root/b.rdb"),
        "redis-tp backup --to /root/b.rdb",
        &["/root/b.rdb"],
    ),
    // To take over
    case("to take over what is not there", ("", ""), "redis-tp adopt other", &["other"]),
];
