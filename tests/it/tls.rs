//! TLS on real machines: it comes and goes, it is renewed and rotated, and what does not serve is refused.

use std::time::Duration;

use nix::sys::signal::Signal;
use redis_tp::host::Host;
use redis_tp::secret::Secret;
use redis_tp::tls::issue::{Authority, Holder};

use crate::faults::{Struck, announced, disturb_later};
use crate::machine::{Alike, Init, Machine, Release, differences};
use crate::story::{bare, places};
use crate::user::{ann, with_ann};

mod adversary;
mod cases;
mod own;
mod renewal;

const DAY: u64 = 86_400;
/// What a run may change that changed nothing.
const PASSING: [&str; 5] = ["/run/", "/var/log/", "/runs", ".rdb", "/var/lib/redis-tp/lock"];

fn now() -> u64 {
    Host::at("/").unix_time()
}

fn key() -> Secret {
    Host::at("/").new_key().unwrap()
}

/// The machine's own authority.
fn authority(machine: &Machine) -> Authority {
    let [cert, key] = ["ca.crt", "ca.key"].map(|name| machine.read(format!("/etc/redis-tp/tls/{name}")));
    Authority { cert, key: Secret::new(key) }
}

/// Puts a certificate of these days in the place of the servers' own.
fn put(machine: &Machine, authority: &Authority, from: u64) {
    let names = ["127.0.0.1", "::1", "localhost"].map(str::to_owned);
    let key = key();
    let cert = authority.sign(&Holder { name: "redis-tp server", reached: &names }, &key, from).unwrap();
    machine.write("/etc/redis-tp/tls/ca.crt", &authority.cert);
    machine.write("/etc/redis-tp/tls/ca.key", authority.key.expose());
    machine.write("/etc/redis-tp/tls/server.crt", cert);
    machine.write("/etc/redis-tp/tls/server.key", key.expose());
    machine.run("chown redis: /etc/redis-tp/tls/server.key && chmod 400 /etc/redis-tp/tls/server.key").ok();
}

fn run_ids(machine: &Machine) -> String {
    let all = "for i in master slave; do redis-tp cli $i -- INFO all | grep -E '^(run_id|sync_full)'; done";
    machine.run(all).ok().stdout
}

fn is_proven(machine: &Machine) {
    let out = machine.run("redis-tp verify").ok();
    for row in ["✓ tls ", "✓ tls-plain", "✓ tls-client", "✓ link", "✓ propagation", "✓ app-warm"]
    {
        assert!(out.stdout.contains(row), "no {row}: {out}");
    }
}

#[test]
fn a_pair_and_its_app_speak_tls_alone_from_the_first_run_on() {
    for (release, init, engine) in [
        (Release::Bookworm, Init::Systemd, "redis"),
        (Release::Trixie, Init::None, "redis"),
        (Release::Trixie, Init::Systemd, "valkey"),
    ] {
        let Some(machine) = bare(release, init) else { return };
        machine.run(&format!("redis-tp up --tls --engine {engine}")).ok();
        let out = machine.run("redis-tp up").ok();
        assert!(out.stdout.contains("No changes"), "{out}");
        is_proven(&machine);
        let plain = machine.run(&format!("timeout 3 {engine}-cli -p 6379 PING"));
        assert!(!plain.stdout.contains("PONG"), "{plain}");
        assert_eq!(machine.run("redis-tp cli -- SET bonjour monde").ok().stdout, "OK\n");
        assert_eq!(machine.run("redis-tp cli slave -- GET bonjour").ok().stdout, "monde\n");
        let listed = machine.run("redis-tp status").ok();
        assert!(listed.stdout.contains("up") && !listed.stdout.contains('✗'), "{listed}");
        machine.run("redis-tp backup master && redis-tp backup --list").ok();
    }
}

#[test]
fn a_promotion_as_sentinel_does_it_keeps_its_tls() {
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = bare(release, init) else { return };
        machine.run("redis-tp up --tls --no-app").ok();
        machine
            .run("redis-tp cli slave -- REPLICAOF NO ONE && redis-tp cli -- REPLICAOF 127.0.0.1 6380")
            .ok();
        machine.run("for n in $(seq 50); do redis-tp cli -- INFO replication | grep -q link_status:up && exit 0; sleep 0.1; done; exit 1").ok();
        machine.run("for i in master slave; do redis-tp cli $i -- CONFIG REWRITE; done").ok();
        machine.run("redis-tp cli slave -- SET after promotion").ok();
        // What runs is the truth about roles: it is told, and not put back.
        machine.run("redis-tp apply").exits(3);
        machine.run("redis-tp service restart master").ok();
        machine.run("for n in $(seq 50); do redis-tp cli -- INFO replication | grep -q link_status:up && exit 0; sleep 0.1; done; exit 1").ok();
        assert_eq!(machine.run("redis-tp cli -- GET after").ok().stdout, "promotion\n");
    }
}

#[test]
fn tls_comes_to_a_pair_that_holds_data_and_goes_again() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up && redis-tp cli -- SET kept yes").ok();
    let before = machine.read("/etc/redis/redis.conf");
    machine.run("redis-tp install --tls").ok();
    is_proven(&machine);
    assert_eq!(machine.run("redis-tp cli slave -- GET kept").ok().stdout, "yes\n");
    machine.run("redis-tp rollback").ok();
    assert_eq!(machine.read("/etc/redis/redis.conf"), before);
    assert_eq!(machine.run("redis-tp cli slave -- GET kept").ok().stdout, "yes\n");
    assert!(!machine.exists("/etc/redis-tp/tls/ca.key"), "the rolled back run's authority stays behind");
    machine
        .run("redis-tp install --tls && redis-tp replica add --port 6381 --of slave && redis-tp verify")
        .ok();
    machine.run("redis-tp install --no-tls && redis-tp verify").ok();
    assert_eq!(machine.run("redis-tp cli slave-6381 -- GET kept").ok().stdout, "yes\n");
    machine.run("redis-tp uninstall --purge").ok();
    assert!(!machine.exists("/etc/redis-tp"), "{}", machine.run("ls -R /etc/redis-tp"));
}

#[test]
fn a_promoted_server_that_is_to_speak_tls_loses_nothing_when_that_is_killed() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --no-app").ok();
    machine.run("redis-tp cli slave -- REPLICAOF NO ONE && redis-tp cli slave -- SET only here").ok();
    let mut hits = 0;
    for lines in 12..40 {
        let (struck, out) = disturb_later(
            &machine,
            "redis-tp install --tls",
            lines,
            Signal::SIGKILL,
            Duration::from_millis(lines as u64 % 3 * 20),
        );
        hits += usize::from(struck == Struck::Hit);
        // The next run undoes it; it tells of the promotion.
        machine.run("redis-tp install --no-tls");
        let kept = machine.run("redis-tp cli slave -- GET only");
        assert_eq!(kept.stdout, "here\n", "killed at line {lines}: {out}{kept}");
        if struck == Struck::Over {
            break;
        }
    }
    assert!(hits > 5, "{hits}");
}

#[test]
fn a_clients_key_goes_nowhere_that_others_may_write() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --tls --no-app").ok();
    machine.run("mkdir -m 0775 /srv/shared && mkdir -m 0755 /srv/own && useradd eve && install -d -o eve /srv/eves").ok();
    for (dir, said) in [
        ("/tmp", "/tmp is a directory in which others may write"),
        ("/srv/shared", "/srv/shared is a directory in which others may write"),
        ("/srv/eves", "/srv/eves is no directory of this user's"),
    ] {
        let refused = machine.run(&format!("redis-tp tls client laptop {dir}")).exits(5);
        assert!(refused.stderr.contains(said) && refused.stderr.contains("hint: "), "{refused}");
        machine.run(&format!("test ! -e {dir}/laptop.key && test ! -e {dir}/ca.crt")).ok();
    }
    for dir in ["/srv/own", "/tmp/laptop"] {
        machine.run(&format!("redis-tp tls client laptop {dir} && test -s {dir}/laptop.key")).ok();
    }
}

#[test]
fn a_rotation_breaks_no_link_and_cuts_no_client_off() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --tls && redis-tp tls client laptop /root/laptop").ok();
    let cli = "REDISCLI_AUTH=$(cat /etc/redis-tp/password) redis-cli --tls --cacert /etc/redis-tp/tls/ca.crt --cert /root/laptop/laptop.crt --key /root/laptop/laptop.key -e";
    machine.write(
        "/root/load",
        format!(
            "#!/bin/sh\nmkfifo /tmp/say; {cli} < /tmp/say > /tmp/lasting 2>&1 &\nexec 3> /tmp/say\nwhile [ ! -e /tmp/enough ]; do\n{cli} INCR fresh >/dev/null 2>>/tmp/lost || echo lost >> /tmp/lost\necho INCR lasting >&3\ndone\nexec 3>&-\nwait\n"
        ),
    );
    let load = machine.spawn("sh /root/load");
    machine.run("for n in $(seq 100); do [ -s /tmp/lasting ] && exit 0; sleep 0.05; done; exit 1").ok();
    let before = run_ids(&machine);
    let former = machine.read("/etc/redis-tp/tls/server.crt");
    for command in ["tls rotate", "tls rotate --ca", "rollback", "rollback", "tls rotate --ca"] {
        machine.run(&format!("redis-tp {command}")).ok();
        assert_eq!(run_ids(&machine), before, "{command} started a server anew, or broke a link");
        machine.run("redis-tp verify").ok();
    }
    assert_ne!(machine.read("/etc/redis-tp/tls/server.crt"), former);
    machine.run("touch /tmp/enough").ok();
    load.wait().ok();
    machine.run("[ ! -s /tmp/lost ] || { cat /tmp/lost; exit 1; }").ok();
    let said = machine
        .run("redis-tp cli -- GET lasting; wc -l < /tmp/lasting; grep -v '^[0-9]*$' /tmp/lasting")
        .stdout;
    let numbers: Vec<&str> = said.lines().collect();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1] && numbers[0] != "0", "{said}");
    let out = machine.run("redis-tp tls show").ok();
    assert_eq!(out.stdout.matches("authority").count(), 2, "{out}");
}

#[test]
fn a_rotation_that_is_killed_is_undone_and_everybody_speaks() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --tls").ok();
    let mut hits = 0;
    for (lines, pause) in (1..40).flat_map(|lines| [(lines, 0), (lines, 5)]) {
        let before = machine.read("/etc/redis-tp/tls/ca.crt");
        let pause = Duration::from_millis(pause);
        let (struck, out) =
            disturb_later(&machine, "redis-tp tls rotate --ca", lines, Signal::SIGKILL, pause);
        hits += usize::from(struck == Struck::Hit);
        // Killed behind its last line, it is not undone.
        let undone = struck == Struck::Hit && announced(&machine) > 0;
        machine.run("redis-tp apply").ok();
        let after = machine.read("/etc/redis-tp/tls/ca.crt");
        assert_eq!(before == after, undone, "killed at line {lines}, the authority is another: {out}");
        machine.run("redis-tp verify").ok();
        if struck == Struck::Over {
            break;
        }
    }
    assert!(hits > 10, "{hits}");
}

#[test]
fn what_has_ended_is_renewed_by_the_next_run() {
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = bare(release, init) else { return };
        machine.run("redis-tp up --tls && redis-tp tls client laptop /root/laptop").ok();
        // A certificate that ended long ago, which the servers show from now on.
        put(&machine, &authority(&machine), now() - 900 * DAY);
        for port in [6379, 6380] {
            machine.run(&format!("REDISCLI_AUTH=$(cat /etc/redis-tp/password) redis-cli -e --tls --cacert /root/laptop/ca.crt --cert /root/laptop/laptop.crt --key /root/laptop/laptop.key -p {port} CONFIG SET tls-cert-file /etc/redis-tp/tls/server.crt")).ok();
        }
        assert!(machine.run("redis-tp tls show").exits(4).stdout.contains("0 days left"));
        let out = machine.run("redis-tp verify").exits(4);
        assert!(out.stdout.contains("expired on 20") && out.stdout.contains("redis-tp apply"), "{out}");
        let out = machine.run("redis-tp check --json").exits(4);
        assert!(out.stdout.contains("expired on 20"), "{out}");
        machine.run("redis-tp apply").ok();
        is_proven(&machine);
        // One that would end soon.
        put(&machine, &authority(&machine), now() - 800 * DAY);
        machine.run("redis-tp apply && redis-tp plan | grep 'No changes'").ok();
        is_proven(&machine);
        // And an authority that has.
        let ended = Authority::new(key(), "m", now() - 4000 * DAY).unwrap();
        put(&machine, &ended, now());
        machine.run("redis-tp service stop --force && redis-tp apply").ok();
        is_proven(&machine);
    }
}

#[test]
fn a_replica_and_an_app_that_do_not_take_the_masters_certificate_say_so() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --tls").ok();
    put(&machine, &authority(&machine), now() - 900 * DAY);
    machine.run("systemctl restart redis-server redis-server@slave").ok();
    let out = machine.run("redis-tp verify").exits(4);
    assert!(out.stdout.contains("does not trust its master's certificate"), "{out}");
    let out = machine.run("redis-tp status");
    for said in ["with which it does not come to speak TLS", "its certificate has\n      expired"] {
        assert!(out.stdout.contains(said), "{said}: {out}");
    }
    machine.run("redis-tp apply").ok();
    machine.run("for i in $(seq 100); do redis-tp status && exit; sleep 0.1; done; exit 1").ok();
    is_proven(&machine);
}

#[test]
fn the_users_own_certificates_serve_and_are_read_anew_when_they_change() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("apt-get install -y redis-server && mkdir -p /srv/tls").ok();
    let theirs = Authority::new(key(), "theirs", now()).unwrap();
    let put = |theirs: &Authority, days: u64| {
        let key = key();
        let names = ["127.0.0.1", "::1", "redis.example.org"].map(str::to_owned);
        let holder = Holder { name: "redis.example.org", reached: &names };
        machine.write("/srv/tls/redis.crt", theirs.sign(&holder, &key, now() - days * DAY).unwrap());
        machine.write("/srv/tls/redis.key", key.expose());
        machine.write("/srv/tls/ca.crt", &theirs.cert);
        machine.run("chown redis: /srv/tls/redis.key && chmod 400 /srv/tls/redis.key").ok();
    };
    put(&theirs, 10);
    machine.write("/root/t.ini", cases::OWN);
    machine.run("redis-tp apply -f /root/t.ini && redis-tp verify").ok();
    let before = run_ids(&machine);
    put(&theirs, 5);
    let out = machine.run("redis-tp apply").ok();
    assert!(out.stderr.contains("let master read its certificates anew"), "{out}");
    machine.run("redis-tp plan | grep 'No changes' && redis-tp verify").ok();
    assert_eq!(run_ids(&machine), before);
    // One of another authority in the place of all three files: nobody can tell the servers any more.
    let others = Authority::new(key(), "others", now()).unwrap();
    put(&others, 1);
    let refused = machine.run("redis-tp apply").exits(5);
    assert!(refused.stderr.contains("nobody can ask slave whether it was promoted"), "{refused}");
    let out = machine.run("redis-tp apply --force").ok();
    assert!(out.stderr.contains("its certificates are not those of its files"), "{out}");
    machine.run("redis-tp plan | grep 'No changes' && redis-tp verify").ok();
    // A replica that would not take its master's, and an app that would not take either's.
    let own = machine.read("/etc/redis-tp/topology.ini");
    let (master, slave) = own.split_once("[slave]").unwrap();
    let without =
        |text: &str| text.lines().filter(|line| !line.starts_with("tls-")).collect::<Vec<_>>().join("\n");
    for (topology, said) in [
        (format!("{master}[slave]{}\n", without(slave)), "would not take the certificate of"),
        (
            format!("{own}\n[app]\nport = 5000\n"),
            "[master] would not take the certificate of [app], which is not signed by",
        ),
    ] {
        machine.write("/root/t.ini", topology);
        let refused = machine.run("redis-tp apply -f /root/t.ini").exits(5);
        assert!(refused.stderr.contains(said), "no '{said}' in {refused}");
    }
}

#[test]
fn without_the_authoritys_key_all_goes_on_but_what_has_to_be_signed() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --tls --no-app && mv /etc/redis-tp/tls/ca.key /root/").ok();
    machine.run("redis-tp status && redis-tp cli -- PING && redis-tp verify && redis-tp apply").ok();
    let refused = machine.run("redis-tp tls rotate").exits(5);
    assert!(refused.stderr.contains("/etc/redis-tp/tls/ca.key is gone"), "{refused}");
    machine.run("mv /root/ca.key /etc/redis-tp/tls/ && redis-tp tls rotate && redis-tp verify").ok();
}

#[test]
fn a_certificate_that_does_not_serve_is_refused_before_any_change() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install && redis-tp replica add --port 6380 && mkdir -p /srv/tls").ok();
    machine.write("/root/t.ini", cases::OWN);
    let before = places(&machine);
    for case in cases::all() {
        case.lay(&machine);
        let out = machine.run("redis-tp apply -f /root/t.ini").exits(5);
        for said in case.says {
            assert!(out.stderr.contains(said), "{}: no '{said}' in {out}", case.what);
        }
        assert!(out.stderr.contains("hint:"), "{}: {out}", case.what);
        let mut after = places(&machine);
        let mut before = before.clone();
        for snapshot in [&mut before, &mut after] {
            snapshot.retain(|path, _| !PASSING.iter().any(|part| path.to_string_lossy().contains(part)));
        }
        let changed = differences(&before, &after, Alike::Untouched);
        assert!(changed.is_empty(), "{}: {changed:?}", case.what);
    }
    machine.run("redis-tp verify").ok();
}

#[test]
fn no_private_key_is_shown_or_lies_where_others_can_read_it() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    let mut said = String::new();
    let mut keys = Vec::new();
    for command in [
        "up --tls --json",
        "plan --shell",
        "plan --diff",
        "plan --json",
        "render master",
        "render app",
        "env",
        "tls show --json",
        "tls rotate --dry-run --json",
        "tls rotate",
        "tls client laptop /root/laptop",
        "tls rotate --ca --json",
        "rollback",
        "status --json",
        "verify --json",
        "check --json --fail-on critical",
        "service logs app",
    ] {
        let out = machine.run(&format!("redis-tp {command}")).ok();
        said += &format!("{}{}", out.stdout, out.stderr);
        let files = machine.run("cat /etc/redis-tp/tls/*.key /root/laptop/*.key 2>/dev/null").stdout;
        keys.extend(files.lines().filter(|line| !line.starts_with("---")).map(str::to_owned));
    }
    said += &machine.run("journalctl --no-pager -o cat; cat /var/log/redis/*").ok().stdout;
    keys.sort();
    keys.dedup();
    assert!(keys.len() >= 3 * 3, "{}", keys.len());
    for key in &keys {
        assert!(!said.contains(key.as_str()), "a private key is shown");
    }
    machine.write("/root/keys", keys.join("\n") + "\n");
    // Whoever is nobody finds none of them; and those that lie about lie in files of their owner alone.
    let lying = machine.run("grep -rlFf /root/keys /etc /var /root /tmp /run /usr/local 2>/dev/null | grep -v '^/root/keys' | xargs stat -c '%a %U %n'").ok();
    assert!(lying.stdout.lines().count() >= 4, "{lying}");
    for line in lying.stdout.lines() {
        assert!(
            ["400 redis ", "600 root ", "400 UNKNOWN /run/credentials/"]
                .iter()
                .any(|own| line.starts_with(own)),
            "{line}"
        );
    }
    let argv = machine.run(
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -cFf /root/keys",
    );
    assert_eq!(argv.stdout.trim(), "0", "{argv}");
}

/// Two of redis-tp with an authority each, as on two machines: root's, and a user's own.
#[test]
fn a_replica_follows_a_master_elsewhere_once_each_trusts_the_others_authority() {
    let Some(machine) = with_ann(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install --tls && redis-tp cli -- SET theirs yes").ok();
    machine.run("install -o ann -m 600 /etc/redis-tp/password /home/ann/password").ok();
    machine.run("install -m 644 /etc/redis-tp/tls/ca.crt /home/ann/roots.crt").ok();
    machine.run("install -m 644 /etc/redis-tp/tls/server.crt /home/ann/roots-server.crt").ok();
    let add = "redis-tp replica add --port 7380 --of 127.0.0.1:6379 --password-file /home/ann/password";
    let trusts = |whose: &str| {
        let refused = ann(&machine, add).exits(5);
        for said in [whose, "redis-tp tls trust"] {
            assert!(refused.stderr.contains(said), "no '{said}' in {refused}");
        }
    };
    // Her authority is made by that, for root to trust it.
    let out = ann(&machine, "redis-tp tls trust /home/ann/roots-server.crt").exits(5);
    assert!(out.stderr.contains("of no authority"), "{out}");
    ann(&machine, "redis-tp tls trust /home/ann/roots.crt").ok();
    assert!(!machine.exists("/home/ann/.config/redis/redis.conf"), "an instance was made");
    trusts("takes no certificate of ours");
    machine.run("redis-tp tls trust /home/ann/.config/redis-tp/tls/ca.crt").ok();
    ann(&machine, add).ok();
    assert_eq!(ann(&machine, "redis-tp cli slave -- GET theirs").ok().stdout, "yes\n");
    ann(&machine, "redis-tp verify").ok();
    machine.run("redis-tp verify").ok();
    let again = machine.run("redis-tp tls trust /home/ann/.config/redis-tp/tls/ca.crt").ok();
    assert!(again.stdout.contains("No changes"), "{again}");
    // Trust that is withdrawn is withdrawn from the server that runs.
    machine.run("cp /etc/redis-tp/tls/ca.crt /root/both.crt && awk '{print} /END/ {exit}' /root/both.crt > /etc/redis-tp/tls/ca.crt").ok();
    let out = machine.run("redis-tp apply").ok();
    assert!(out.stderr.contains("let master read its certificates anew"), "{out}");
    machine.run("redis-tp cli -- CLIENT KILL TYPE replica && sleep 2").ok();
    let link = ann(&machine, "redis-tp cli slave -- INFO replication").ok();
    assert!(link.stdout.contains("master_link_status:down"), "{link}");
    machine.run("redis-tp plan | grep 'No changes'").ok();
    machine.write("/root/bad.crt", "no certificate");
    for (file, said) in [("/root/bad.crt", "has no certificate in PEM"), ("/root/none.crt", "is not there")] {
        let refused = machine.run(&format!("redis-tp tls trust {file}")).exits(5);
        assert!(refused.stderr.contains(said), "{refused}");
    }
    let ended = Authority::new(key(), "ended", now() - 4000 * DAY).unwrap();
    machine.write("/root/ended.crt", ended.cert);
    let refused = machine.run("redis-tp tls trust /root/ended.crt").exits(5);
    assert!(refused.stderr.contains("expired on 20"), "{refused}");
}
