//! Certificates of the user's own on servers that run: they come, go and change, and nobody loses what a server holds.

use std::time::Duration;

use nix::sys::signal::Signal;
use redis_tp::tls::issue::{Authority, Holder};

use super::cases::{OWN, root_and_below};
use super::{key, now, run_ids};
use crate::faults::{Struck, disturb_later};
use crate::machine::{Init, Machine, Release};
use crate::story::bare;

/// The same topology with what redis-tp makes.
const OURS: &str =
    "[redis-tp]\ntls = yes\n\n[master]\nport = 6379\n\n[slave]\nport = 6380\nreplicaof = master\n";

/// Puts certificates of an authority that nobody knows into the user's files.
fn lay(machine: &Machine) {
    let theirs = Authority::new(key(), "theirs", now()).unwrap();
    sign(machine, &theirs, &theirs.cert);
}

fn sign(machine: &Machine, theirs: &Authority, ca: &str) {
    let key = key();
    let names = ["127.0.0.1".to_owned()];
    machine.run("mkdir -p /srv/tls").ok();
    machine.write(
        "/srv/tls/redis.crt",
        theirs.sign(&Holder { name: "theirs", reached: &names }, &key, now()).unwrap(),
    );
    machine.write("/srv/tls/redis.key", key.expose());
    machine.write("/srv/tls/ca.crt", ca);
    machine.run("chown redis: /srv/tls/redis.key && chmod 400 /srv/tls/redis.key").ok();
}

/// A pair that speaks TLS by ours, with data, and the user's own beside it.
fn pair(release: Release, init: Init) -> Option<Machine> {
    let machine = bare(release, init)?;
    machine.run("redis-tp up --tls --no-app && redis-tp cli -- SET kept yes").ok();
    lay(&machine);
    machine.write("/root/own.ini", OWN);
    machine.write("/root/ours.ini", OURS);
    Some(machine)
}

#[test]
fn servers_that_run_go_to_the_users_own_certificates_and_back() {
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = pair(release, init) else { return };
        for topology in ["own", "ours", "own"] {
            let before = run_ids(&machine);
            let out = machine.run(&format!("redis-tp apply -f /root/{topology}.ini")).ok();
            assert!(out.stderr.contains("restart master (tls-ca-cert-file"), "{out}");
            assert_ne!(run_ids(&machine), before);
            assert_eq!(machine.run("redis-tp cli slave -- GET kept").ok().stdout, "yes\n");
            machine.run("redis-tp plan | grep 'No changes' && redis-tp verify").ok();
        }
        machine.run("redis-tp rollback && redis-tp verify").ok();
    }
}

#[test]
fn a_change_to_another_authority_that_is_killed_is_undone_and_a_promoted_server_keeps_what_it_holds() {
    let Some(machine) = pair(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp cli slave -- REPLICAOF NO ONE && redis-tp cli slave -- SET only here").ok();
    let mut hits = 0;
    for lines in 2..40 {
        let (to, pause) = (["own", "ours"][lines % 2], Duration::from_millis(lines as u64 % 3 * 20));
        let command = format!("redis-tp apply -f /root/{to}.ini");
        let (struck, out) = disturb_later(&machine, &command, lines, Signal::SIGKILL, pause);
        hits += usize::from(struck == Struck::Hit);
        // The next run undoes it, and tells of the promotion.
        machine.run("redis-tp apply").exits(3);
        for (instance, name, value) in [("slave", "only", "here"), ("master", "kept", "yes")] {
            let kept = machine.run(&format!("redis-tp cli {instance} -- GET {name}"));
            assert_eq!(kept.stdout, format!("{value}\n"), "killed at line {lines}: {out}{kept}");
        }
        if lines > 20 && struck == Struck::Over {
            break;
        }
    }
    assert!(hits > 5, "{hits}");
}

#[test]
fn a_promoted_server_that_nobody_can_ask_is_not_ended_unasked() {
    let Some(machine) = pair(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp apply -f /root/own.ini && cp -a /srv/tls /srv/former").ok();
    machine.run("redis-tp cli slave -- REPLICAOF NO ONE && redis-tp cli slave -- SET only here").ok();
    lay(&machine);
    for command in ["apply", "service restart slave", "service stop slave"] {
        let refused = machine.run(&format!("redis-tp {command}")).exits(5);
        for said in
            ["nobody can ask slave whether it was promoted", "let tls-ca-cert-file have both authorities"]
        {
            assert!(refused.stderr.contains(said), "no '{said}' in {refused}");
        }
    }
    // As the hint says: the former files, then both authorities, and then the other certificate.
    machine.run("cp -a /srv/tls /srv/next && rm -r /srv/tls && cp -a /srv/former /srv/tls").ok();
    machine.run("cat /srv/next/ca.crt >> /srv/tls/ca.crt").ok();
    let out = machine.run("redis-tp apply").exits(3);
    assert!(out.stderr.contains("let slave read its certificates anew"), "{out}");
    machine.run("cp -a /srv/next/redis.* /srv/tls/ && redis-tp apply").exits(3);
    assert_eq!(machine.run("redis-tp cli slave -- GET only").ok().stdout, "here\n");
    machine.run("redis-tp plan | grep 'No changes'").ok();
}

#[test]
fn a_sound_server_that_is_silent_or_full_is_not_started_anew() {
    let Some(machine) = pair(Release::Bookworm, Init::Systemd) else { return };
    let before = run_ids(&machine);
    machine.run("kill -STOP $(cat /run/redis-slave/redis-server.pid)").ok();
    let out = machine.run("redis-tp apply");
    machine.run("kill -CONT $(cat /run/redis-slave/redis-server.pid)").ok();
    assert!(out.stdout.contains("No changes"), "{out}");
    // Whoever comes to the port fills it: no certificate is needed to be one client too many.
    machine.run("redis-tp cli slave -- CONFIG SET maxclients 3").ok();
    let crowd = "for n in $(seq 20); do bash -c 'exec 3<>/dev/tcp/127.0.0.1/6380; sleep 4' & done; sleep 0.5";
    let out = machine.run(&format!("{crowd}; redis-tp apply; wait"));
    assert!(out.stdout.contains("No changes"), "{out}");
    machine.run("sleep 1; redis-tp cli slave -- CONFIG SET maxclients 10000").ok();
    assert_eq!(run_ids(&machine), before);
}

#[test]
fn an_authority_below_another_serves_with_its_root_in_the_same_file() {
    let Some(machine) = pair(Release::Bookworm, Init::Systemd) else { return };
    let (root, below) = root_and_below();
    sign(&machine, &below, &format!("{}{root}", below.cert));
    machine.run("redis-tp apply -f /root/own.ini && redis-tp verify && redis-tp cli slave -- GET kept").ok();
    machine.write("/root/below.crt", &below.cert);
    let refused = machine.run("redis-tp tls trust /root/below.crt").exits(5);
    assert!(refused.stderr.contains("whose own authority is missing"), "{refused}");
    machine.run("redis-tp tls trust /srv/tls/ca.crt && redis-tp verify").ok();
}

#[test]
fn what_is_shown_is_told_of_and_what_nobody_shows_is_not_made_anew() {
    let Some(machine) = pair(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp apply -f /root/own.ini").ok();
    let out = machine.run("redis-tp tls show").ok();
    for (file, times) in [("/srv/tls/redis.crt", 1), ("/srv/tls/ca.crt", 1), ("/etc/redis-tp/tls", 0)] {
        assert_eq!(out.stdout.matches(file).count(), times, "{file}: {out}");
    }
    assert!(out.stdout.contains("master, slave"), "{out}");
    let out = machine.run("redis-tp tls rotate").ok();
    assert!(out.stdout.contains("No changes"), "{out}");
}

#[test]
fn a_replicas_certificate_for_its_master_is_judged_before_it_starts() {
    let Some(machine) = pair(Release::Bookworm, Init::Systemd) else { return };
    let as_client = |cert: &str, key: &str| {
        machine.write(
            "/root/t.ini",
            format!("{OURS}tls-client-cert-file = {cert}\ntls-client-key-file = {key}\n"),
        );
        "redis-tp apply -f /root/t.ini"
    };
    for (cert, key, said) in [
        ("/nope", "/srv/tls/redis.key", "[slave] /nope is not there"),
        ("/srv/tls/redis.crt", "/srv/tls/ca.crt", "has no private key in PEM"),
        ("/srv/tls/redis.crt", "/srv/tls/redis.key", "[master] would not take the certificate of [slave]"),
    ] {
        let refused = machine.run(as_client(cert, key)).exits(5);
        assert!(refused.stderr.contains(said), "no '{said}' in {refused}");
    }
    machine.run("redis-tp tls client slave /srv/slave && chmod 755 /srv/slave && chgrp redis /srv/slave/slave.key && chmod g+r /srv/slave/slave.key").ok();
    machine.run(as_client("/srv/slave/slave.crt", "/srv/slave/slave.key")).ok();
    machine.run("redis-tp verify").ok();
}

#[test]
fn no_hint_opens_a_file_that_is_no_certificate() {
    let Some(machine) = pair(Release::Bookworm, Init::Systemd) else { return };
    machine.write("/root/t.ini", OWN.replace("/srv/tls/redis.crt", "/etc/shadow"));
    let refused = machine.run("redis-tp apply -f /root/t.ini").exits(5);
    assert!(refused.stderr.contains("/etc/shadow is no certificate in PEM"), "{refused}");
    assert!(!refused.stderr.contains("chgrp"), "{refused}");
}
