//! Who is in and would be out after `check --fix`: it is refused, and he stays.

use crate::faults::promoted::WIPE;
use crate::machine::{Init, Machine, Release};
use crate::story::bare;
use crate::strangers::FAR;

/// Somebody who is in, and a fix that would lock him out.
struct Case {
    /// What makes the machine.
    machine: &'static str,
    /// A redis-cli, without its command.
    client: &'static str,
    /// The fix.
    fix: &'static str,
    /// What the refusal has to say.
    said: &'static str,
}

const CASES: &[Case] = &[
    Case {
        machine: "redis-tp install --bind 0.0.0.0",
        client: "ip netns exec far redis-cli --user admin -h 10.9.1.1",
        fix: "redis-tp check --fix",
        said: "10.9.1.2 is connected to master from another machine: `bind = 127.0.0.1 -::1` would lock it out",
    },
    Case {
        machine: "redis-tp install --tls --bind 0.0.0.0 --set tls-auth-clients=no",
        client: "ip netns exec far redis-cli --tls --cacert /etc/redis-tp/tls/ca.crt --user admin -h 10.9.1.1",
        fix: "redis-tp check --fix --except wide-bind",
        said: "10.9.1.2 is connected to master from another machine: `tls-auth-clients = yes` would lock it out",
    },
    Case {
        machine: "redis-tp install --set unixsocket=/run/redis/redis.sock --set unixsocketperm=777",
        client: "setpriv --reuid eve --regid eve --clear-groups redis-cli --user admin -s /run/redis/redis.sock",
        fix: "redis-tp check --fix",
        said: "user 1000 is connected by it, whom `unixsocketperm = 770` would lock out",
    },
    // The server is not asked who is there, and the kernel tells.
    Case {
        machine: "redis-tp install --plain --bind 0.0.0.0 --set 'rename-command=CLIENT \"\"'",
        client: "ip netns exec far redis-cli -h 10.9.1.1",
        fix: "redis-tp check --fix",
        said: "10.9.1.2 is connected to master from another machine",
    },
    Case {
        machine: "redis-tp install --plain --bind 0.0.0.0 && redis-tp cli -- CONFIG SET requirepass owners-own",
        client: "env REDISCLI_AUTH=owners-own ip netns exec far redis-cli -h 10.9.1.1",
        fix: "redis-tp check --fix",
        said: "10.9.1.2 is connected to master from another machine",
    },
    Case {
        machine: "redis-tp install --plain --bind 0.0.0.0 --protected-mode no && redis-tp cli -- CONFIG SET requirepass owners-own",
        client: "env REDISCLI_AUTH=owners-own ip netns exec far redis-cli -h 10.9.1.1",
        fix: "redis-tp check --fix --except wide-bind",
        said: "master does not let redis-tp in: what --fix would take from it is not known",
    },
    Case {
        machine: "redis-tp install --bind 0.0.0.0 && redis-tp cli -- ACL SETUSER admin '>owners-own'",
        client: "env REDISCLI_AUTH=owners-own ip netns exec far redis-cli --user admin -h 10.9.1.1",
        fix: "redis-tp check --fix --except wide-bind",
        said: "admin of master has a password that no file has, and clients are logged in",
    },
];

#[test]
fn whoever_is_in_is_not_locked_out_by_a_fix() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run(FAR).ok();
    machine.run("useradd --uid 1000 eve").ok();
    machine.run("apt-get install -y redis-server && cp -a /etc/redis /root/package").ok();
    for case in CASES {
        refused(&machine, case);
        machine.run(WIPE).ok();
    }
}

#[test]
fn no_fix_of_something_else_undoes_a_failover() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --no-app").ok();
    machine
        .run(
            "redis-tp cli slave -- REPLICAOF NO ONE && redis-tp cli slave -- CONFIG REWRITE
            redis-tp cli master -- REPLICAOF 127.0.0.1 6380 && redis-tp cli master -- CONFIG REWRITE
            redis-tp cli slave -- CONFIG SET protected-mode no",
        )
        .ok();
    let refused = machine.run("redis-tp check --fix").exits(5);
    assert!(refused.stderr.contains("slave was promoted"), "{refused}");
    assert!(refused.stderr.contains("redis-tp apply --adopt"), "{refused}");
    let role = || machine.run("redis-tp cli slave -- ROLE").ok().stdout;
    assert!(role().starts_with("master"), "{}", role());
    machine.run("redis-tp apply --adopt && redis-tp check --fix --fail-on medium").ok();
    assert!(role().starts_with("master"), "{}", role());
}

fn refused(machine: &Machine, Case { machine: makes, client, fix, said }: &Case) {
    machine.run(makes).ok();
    let login = "env REDISCLI_AUTH=$(cat /etc/redis-tp/password)";
    let mut client = machine.spawn(&format!("{login} {client} BLPOP nothing 0"));
    let there = "ss -Htn state established 'sport = :6379' | grep -q 10.9.1.2 || ss -Hx | grep -q redis.sock";
    machine.run(&format!("for i in $(seq 100); do {there} && exit; sleep 0.05; done; exit 1")).ok();
    let before = machine.read("/etc/redis-tp/topology.ini");
    let out = machine.run(fix).exits(5);
    assert!(out.stderr.contains(said), "{makes}: {out}");
    assert!(out.stderr.contains("hint:"), "{makes}: {out}");
    assert_eq!(machine.read("/etc/redis-tp/topology.ini"), before, "{makes}");
    assert!(client.is_running(), "{makes}: the client is gone");
}
