//! How long the program takes, beside what it stands for: apt alone, a careful administrator's script,
//! the same steps by hand. Run by `cargo bench`, as root, with the trees that `tests/run` prepares.
//!
//! A benchmark and no test: a goal that is missed is printed like one that is met. The machine below is
//! shared and noisy, so everything is measured beside its rivals in turn (A B A B), and what counts is
//! the median of the differences and of the ratios within each turn.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs
)]

mod clock;
#[path = "../it/machine.rs"]
#[allow(dead_code, reason = "the harness serves the tests; a benchmark needs a part of it")]
mod machine;
mod table;

use std::time::Duration;

use clock::{Act, once, rounds};
use machine::{Init, Machine, Release};
use table::{Row, load};

const PROGRAM: &str = env!("CARGO_BIN_EXE_redis-tp");

/// How often a bare machine is taken to a linked pair: each time is a boot.
const INSTALLS: usize = 5;
/// How often what takes a second is done.
const LONG: usize = 10;
/// How often what takes milliseconds is done.
const SHORT: usize = 40;

/// The lab: a master and a replica.
const LAB: &str = "[redis-tp]\n[master]\nport = 6379\n[slave]\nport = 6380\nreplicaof = master\n";

/// What a careful administrator's script asks before it says that there is nothing to do.
const CAREFUL: &str = r#"set -eu
export REDISCLI_AUTH="$(cat /etc/redis-tp/password)"
holds() { file=$1; shift; for line; do grep -qxF -- "$line" "$file"; done; }
dpkg-query -W -f '${db:Status-Status}' redis-server | grep -qx installed
holds /etc/redis/redis.conf 'port 6379' 'bind 127.0.0.1 -::1' 'protected-mode yes' 'dir /var/lib/redis'
holds /etc/redis/redis-slave.conf 'port 6380' 'replicaof 127.0.0.1 6379' 'dir /var/lib/redis-slave'
[ "$(stat -c %U:%a /var/lib/redis-slave)" = redis:750 ]
if [ -d /run/systemd/system ]; then
    systemctl is-active --quiet redis-server
    systemctl is-active --quiet redis-server@slave
fi
[ "$(redis-cli -p 6379 PING)" = PONG ]
[ "$(redis-cli -p 6380 PING)" = PONG ]
redis-cli -p 6380 INFO replication | grep -q '^master_link_status:up'
"#;

/// A second replica as somebody sets it up who has done it before: no proof, no way back.
const BY_HAND: &str = r#"set -eu
export REDISCLI_AUTH="$(cat /etc/redis-tp/password)"
sed 's/6380/6382/; s/redis-slave/redis-hand/' /etc/redis/redis-slave.conf >/etc/redis/redis-hand.conf
chown redis:redis /etc/redis/redis-hand.conf
chmod 640 /etc/redis/redis-hand.conf
install -d -o redis -g redis -m 750 /var/lib/redis-hand
mkdir -p /etc/systemd/system/redis-server@hand.service.d
printf '[Service]\nReadWritePaths=/var/lib/redis-hand\n' >/etc/systemd/system/redis-server@hand.service.d/dir.conf
systemctl --quiet enable --now redis-server@hand
until redis-cli -p 6382 INFO replication | grep -q '^master_link_status:up'; do sleep 0.01; done
"#;

/// Takes it away again.
const BY_HAND_BACK: &str = "systemctl --quiet disable --now redis-server@hand; \
    rm -r /etc/systemd/system/redis-server@hand.service.d /etc/redis/redis-hand.conf /var/lib/redis-hand";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [inside, rounds] = args.as_slice()
        && inside == clock::INSIDE
    {
        return clock::inside(rounds.parse().expect("a number of rounds"));
    }
    // `cargo test --all-targets` runs benchmarks too, without this word.
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    println!("{}", load());
    if let Err(reason) = Machine::available(Release::Bookworm) {
        println!("nothing measured: {reason}");
        return;
    }
    for (init, with) in [(Init::Systemd, "systemd"), (Init::None, "no systemd")] {
        let machine = bare_to_linked(init, with);
        second_run(&machine, init, with);
        if init == Init::Systemd {
            replica_add(&machine);
            verify(&machine);
            small_ones(&machine);
        }
    }
    match Machine::available(Release::Containers) {
        Ok(()) => containers(),
        Err(reason) => println!("nothing measured of containers: {reason}"),
    }
    println!("\n{}", load());
}

/// The same pair in containers: from an image that is there to a link that is up, and once more with nothing
/// to do, beside the engine's own answer.
fn containers() {
    let machine = Machine::boot(Release::Containers, Init::Systemd);
    machine.install_binary(PROGRAM);
    clock::install(&machine);
    machine.write("/root/lab.ini", LAB.replace("[redis-tp]", "[redis-tp]\nruntime = docker"));
    machine.run("systemctl start docker && docker import /srv/redis.tar redis:7").ok();
    let acts = [
        Act::Time("redis-tp apply -f /root/lab.ini"),
        Act::Do("redis-tp uninstall --purge"),
        Act::Time("docker run --rm --network none --entrypoint true redis:7"),
    ];
    let [ours, theirs] = two(rounds(&machine, LONG, &acts));
    Row::new("image to linked pair, docker", "under 3 s", "redis-tp apply -f lab.ini", ours)
        .beside("docker run --rm redis:7 true", theirs)
        .print();
    machine.run("redis-tp apply -f /root/lab.ini").ok();
    let acts = [Act::Time("redis-tp up"), Act::Time("docker inspect redis-master")];
    let [ours, theirs] = two(rounds(&machine, SHORT, &acts));
    Row::new("second run, nothing to do, docker", "under 150 ms", "redis-tp up", ours)
        .beside("docker inspect redis-master", theirs)
        .print();
}

/// A machine that has nothing but the program, the clock and the scripts.
fn fresh(init: Init) -> Machine {
    let machine = Machine::boot(Release::Bookworm, init);
    machine.install_binary(PROGRAM);
    clock::install(&machine);
    machine.write("/root/lab.ini", LAB);
    machine.write("/root/careful.sh", CAREFUL);
    machine.write("/root/by-hand.sh", BY_HAND);
    machine
}

/// Engine, configuration, two instances and their link, beside the package alone. Each on a machine that
/// was just booted, with the package in apt's cache.
fn bare_to_linked(init: Init, with: &str) -> Machine {
    let apt = "env DEBIAN_FRONTEND=noninteractive apt-get install -y -q redis-server";
    let apply = "redis-tp apply -f /root/lab.ini";
    // Not counted: it brings the package's files into the page cache, for both.
    once(&fresh(init), apt);
    let (mut times, mut last) = ([Vec::new(), Vec::new()], None);
    for _ in 0..INSTALLS {
        times[1].push(once(&fresh(init), apt));
        let machine = fresh(init);
        times[0].push(once(&machine, apply));
        last = Some(machine);
    }
    let [ours, theirs] = times;
    Row::new(
        &format!("bare to linked pair, {with}"),
        "at most apt + 0.6 s",
        "redis-tp apply -f lab.ini",
        ours,
    )
    .beside("apt-get install redis-server", theirs)
    .print();
    last.expect("at least one was installed")
}

/// A run that finds nothing to do.
fn second_run(machine: &Machine, init: Init, with: &str) {
    let mut acts = vec![Act::Time("redis-tp up"), Act::Time("true"), Act::Time("sh /root/careful.sh")];
    if init == Init::Systemd {
        acts.push(Act::Time("systemctl show redis-server"));
    }
    let mut times = rounds(machine, SHORT, &acts).into_iter();
    let mut row = Row::new(
        &format!("second run, nothing to do, {with}"),
        "under 20 ms",
        "redis-tp up",
        times.next().unwrap_or_default(),
    );
    for (name, times) in ["true", "a careful shell script", "systemctl show redis-server"].iter().zip(times) {
        row = row.beside(name, times);
    }
    row.print();
}

/// One more replica, from the command to the link, and away again.
fn replica_add(machine: &Machine) {
    let acts = [
        Act::Time("redis-tp replica add --port 6381"),
        Act::Do("redis-tp replica remove slave-6381 --purge"),
        Act::Time("sh /root/by-hand.sh"),
        Act::Do(BY_HAND_BACK),
    ];
    let [ours, theirs] = two(rounds(machine, LONG, &acts));
    Row::new("one more replica, link up", "under 0.5 s", "redis-tp replica add --port 6381", ours)
        .beside("the same by hand, unproven", theirs)
        .print();
}

/// The proof without what it has to wait for, beside the commands that it tells to type, run in a row
/// without their sleep.
fn verify(machine: &Machine) {
    const TTL: Duration = Duration::from_secs(1);
    machine.run("redis-tp verify --ttl 1 --shell | grep -v '^sleep' >/root/proof.sh").ok();
    let acts = [Act::Time("redis-tp verify --ttl 1"), Act::Time("sh /root/proof.sh")];
    let [ours, theirs] = two(rounds(machine, LONG, &acts));
    let ours = ours.into_iter().map(|time| time.saturating_sub(TTL)).collect();
    Row::new("the proof, less its TTL of 1 s", "under 1 s", "redis-tp verify", ours)
        .beside("redis-tp verify --shell | sh", theirs)
        .print();
}

/// What only looks.
fn small_ones(machine: &Machine) {
    let acts = [Act::Time("redis-tp --help"), Act::Time("true")];
    let [help, nothing] = two(rounds(machine, SHORT, &acts));
    Row::new("help", "under 10 ms", "redis-tp --help", help).beside("true", nothing).print();
    let acts = [Act::Time("redis-tp status"), Act::Time("systemctl status redis-server redis-server@slave")];
    let [status, theirs] = two(rounds(machine, SHORT, &acts));
    Row::new("status of two instances", "none", "redis-tp status", status)
        .beside("systemctl status, both", theirs)
        .print();
}

fn two(times: Vec<Vec<Duration>>) -> [Vec<Duration>; 2] {
    times.try_into().expect("two commands were timed")
}
