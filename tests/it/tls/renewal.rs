//! What is renewed before its end, what signs it, and what is told of it.

use redis_tp::tls::issue::Authority;

use super::{DAY, key, now, put, run_ids};
use crate::machine::{Init, Release};
use crate::story::bare;

/// An authority of which this many days are left.
fn ending(days: u64) -> Authority {
    Authority::new(key(), "m", now() - (3650 - days) * DAY).unwrap()
}

#[test]
fn an_authority_that_ends_has_a_successor_before_anything_is_shown_that_it_signed() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --tls && redis-tp install --bind 0.0.0.0").ok();
    put(&machine, &ending(50), now() - 10 * DAY);
    machine
        .run("systemctl restart redis-server redis-server@slave && redis-tp tls client laptop /root/laptop")
        .ok();
    let shown = machine.read("/etc/redis-tp/tls/server.crt");
    let out = machine.run("redis-tp apply").ok();
    assert!(out.stderr.contains("clients on other machines have to get"), "{out}");
    assert_eq!(machine.read("/etc/redis-tp/tls/server.crt"), shown);
    let cli = "REDISCLI_AUTH=$(cat /etc/redis-tp/password) redis-cli --user admin -e --tls --cacert /root/laptop/ca.crt --cert /root/laptop/laptop.crt --key /root/laptop/laptop.key PING";
    machine.run(cli).ok();
    machine.run("redis-tp plan | grep 'No changes' && redis-tp verify").ok();
    let out = machine.run("redis-tp tls show").ok();
    assert!(out.stdout.matches("authority").count() == 2, "{out}");
    // The successor signs for clients, and is believed.
    machine.run("redis-tp tls client new /root/new").ok();
    machine.run(&cli.replace("/root/laptop", "/root/new").replace("laptop.", "new.")).ok();
    // At last what the former has signed is replaced, too.
    put(&machine, &ending(20), now() - 10 * DAY);
    machine
        .run("systemctl restart redis-server redis-server@slave && redis-tp apply && redis-tp verify")
        .ok();
    assert!(machine.run("redis-tp tls show").ok().stdout.contains("824 days left"));
}

#[test]
fn a_key_of_the_authority_that_is_none_is_named_with_its_cure() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --tls --no-app && echo none > /etc/redis-tp/tls/ca.key").ok();
    let refused = machine.run("redis-tp tls rotate").exits(5);
    for said in ["/etc/redis-tp/tls/ca.key", "redis-tp tls rotate --ca"] {
        assert!(refused.stderr.contains(said), "no '{said}' in {refused}");
    }
    machine.run("mv /etc/redis-tp/tls/server.crt /root/").ok();
    let out = machine.run("redis-tp status");
    assert!(out.stdout.contains("6379"), "{out}");
    machine.run("mv /root/server.crt /etc/redis-tp/tls/ && redis-tp tls rotate --ca && redis-tp verify").ok();
}

#[test]
fn an_authority_is_trusted_beside_one_whose_last_line_has_no_end() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --tls --no-app").ok();
    machine
        .run("cd /etc/redis-tp/tls && printf %s \"$(cat ca.crt)\" > /root/ca.crt && cp /root/ca.crt .")
        .ok();
    machine.write("/root/other.crt", ending(3000).cert);
    machine.run("bash -c 'redis-tp tls trust <(cat /root/other.crt)' && redis-tp verify").ok();
    let out = machine.run("redis-tp tls show").ok();
    assert_eq!(out.stdout.matches("authority").count(), 2, "{out}");
}

#[test]
fn authorities_that_cannot_be_read_are_said_to_be_what_they_are() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --tls --no-app && cp /etc/redis-tp/tls/ca.crt /root/").ok();
    for (bad, said) in [
        ("printf ''", "/etc/redis-tp/tls/ca.crt has no certificate in PEM in it"),
        ("echo none", "/etc/redis-tp/tls/ca.crt has no certificate in PEM in it"),
        ("head -c 99 /dev/urandom", "/etc/redis-tp/tls/ca.crt cannot be read"),
    ] {
        machine.run(&format!("{bad} > /etc/redis-tp/tls/ca.crt")).ok();
        let refused = machine.run("redis-tp apply").exits(5);
        assert!(refused.stderr.contains(said) && refused.stderr.contains("hint: put it back"), "{refused}");
    }
    machine.run("cp /root/ca.crt /etc/redis-tp/tls/ && redis-tp verify").ok();
    machine.run("redis-tp tls rotate --ca && redis-tp rollback | grep -e 'tls rotate --ca'").ok();
}

#[test]
fn whose_authority_is_forgotten_gets_in_no_more() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --tls && redis-tp tls client thief /root/thief").ok();
    let enter = "REDISCLI_AUTH=$(cat /etc/redis-tp/password) redis-cli --user admin -e --tls --cacert /etc/redis-tp/tls/ca.crt --cert /root/thief/thief.crt --key /root/thief/thief.key PING";
    machine.run(&format!("redis-tp tls forget | grep 'No changes' && {enter}")).ok();
    machine.run("redis-tp tls rotate --ca").ok();
    machine.run(enter).ok();
    let before = run_ids(&machine);
    let out = machine.run("redis-tp tls forget").ok();
    assert!(out.stderr.contains("CLIENT KILL"), "{out}");
    assert!(!machine.run(enter).stdout.contains("PONG"));
    machine.run("redis-tp plan | grep 'No changes' && redis-tp verify").ok();
    assert_eq!(run_ids(&machine), before);
    // What is shown must be known to those that are left.
    put(&machine, &ending(50), now() - 10 * DAY);
    machine.run("systemctl restart redis-server redis-server@slave && redis-tp apply").ok();
    let refused = machine.run("redis-tp tls forget").exits(5);
    assert!(refused.stderr.contains("hint: make another first"), "{refused}");
    machine.run("redis-tp tls rotate && redis-tp tls forget && redis-tp verify").ok();
}
