//! The smallest action, on real servers: what can be set live costs nobody a request, and a password changes
//! without a moment at which anybody is refused.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use redis_tp::host::Host;
use redis_tp::secret::Secret;
use redis_tp::wire::{Address, Wire};

use crate::machine::{Init, Machine, Release};
use crate::story::bare;

const PASSWORD: &str = "/etc/redis-tp/password";

/// How a client behaves.
#[derive(Clone, Copy)]
enum Client {
    /// It stays connected.
    Lasting,
    /// It connects anew each time, with the password that the file has at that moment.
    Fresh,
}

/// A client that reads and writes as fast as it can, in the machine's network.
struct Load {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<Result<u64, String>>,
}

impl Load {
    fn start(machine: &Machine, port: u16, client: Client) -> Self {
        let process = machine.root().parent().expect("/proc/PID/root has a parent").to_path_buf();
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let handle = thread::spawn(move || run(&process, port, client, &ended));
        Self { stop, handle }
    }

    /// How many reads and writes went well; panics if one did not.
    fn end(self, what: &str) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.handle.join().expect("the client does not panic");
        let done = done.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(done > 50, "{what}: only {done} requests");
        done
    }
}

fn run(process: &Path, port: u16, client: Client, ended: &AtomicBool) -> Result<u64, String> {
    let network = File::open(process.join("ns/net")).map_err(|error| error.to_string())?;
    setns(network, CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string())?;
    let at = Address::plain("127.0.0.1", port);
    let read = || fs::read_to_string(process.join("root").join(&PASSWORD[1..])).unwrap_or_default();
    let open_with = |text: &str| {
        let password = Secret::parse(text).ok();
        let mut wire = Wire::open(&Host::at("/"), &at, None).map_err(|trouble| trouble.to_string())?;
        // By hand: the server's user is one of the machine, and nobody that this one knows.
        if let Some(password) = password {
            wire.ask::<()>(&["AUTH", password.expose()]).map_err(|trouble| format!("AUTH: {trouble}"))?;
        }
        Ok::<_, String>(wire)
    };
    // Who read the former one and comes when it is withdrawn has taken too long on the way.
    let open = || {
        loop {
            let text = read();
            let wire = open_with(&text);
            if wire.is_ok() || read() == text {
                return wire;
            }
        }
    };
    let mut wire = open()?;
    let key = format!("load-{:?}", thread::current().id());
    let mut done = 0;
    while !ended.load(Ordering::Relaxed) {
        if let Client::Fresh = client {
            wire = open()?;
        }
        let value = done.to_string();
        let set = wire.ask::<()>(&["SET", &key, &value]).map_err(|trouble| format!("SET: {trouble}"));
        set.map_err(|why| format!("after {done} requests: {why}"))?;
        let got: String = wire.ask(&["GET", &key]).map_err(|trouble| format!("GET: {trouble}"))?;
        if got != value {
            return Err(format!("it wrote {value} and read {got}"));
        }
        done += 2;
    }
    Ok(done)
}

/// What would change if a server had been started anew, or a link had been broken.
fn identity(machine: &Machine) -> String {
    let ask = |name: &str| {
        let keep = "^(run_id|sync_full|sync_partial_ok|sync_partial_err|master_link_status)";
        machine.run(&format!("redis-tp cli {name} -- INFO all | grep -E '{keep}'")).ok().stdout
    };
    ask("master") + &ask("slave")
}

fn pair(release: Release, init: Init) -> Option<Machine> {
    let machine = bare(release, init)?;
    machine.run("redis-tp up").ok();
    Some(machine)
}

#[test]
fn a_client_loses_no_request_while_directives_are_set_live() {
    let Some(machine) = pair(Release::Bookworm, Init::Systemd) else { return };
    let before = identity(&machine);
    let load = Load::start(&machine, 6379, Client::Lasting);
    for (command, directive, value) in [
        ("install --set maxclients=500", "maxclients", "500"),
        ("install --set 'save=900 1' --set maxmemory=100mb", "maxmemory", "104857600"),
        ("install --set 'client-output-buffer-limit=pubsub 64mb 16mb 90'", "maxclients", "500"),
        ("install --set appendonly=yes", "appendonly", "yes"),
    ] {
        let out = machine.run(&format!("redis-tp {command}")).ok();
        assert!(!out.stderr.contains("restart"), "{out}");
        let now = machine.run(&format!("redis-tp cli -- CONFIG GET {directive} | tail -1")).ok();
        assert_eq!(now.stdout.trim(), value, "{directive} by {command}");
    }
    // Back to what the server takes by itself.
    machine.run("sed -i '/^maxclients\\|^maxmemory/d' /etc/redis-tp/topology.ini").ok();
    machine.run("redis-tp apply").ok();
    let limits = machine.run("redis-tp cli -- CONFIG GET client-output-buffer-limit | tail -1").ok().stdout;
    assert!(limits.contains("pubsub 67108864 16777216 90"), "{limits}");
    assert_eq!(machine.run("redis-tp cli -- CONFIG GET maxmemory | tail -1").ok().stdout.trim(), "0");
    machine.run("redis-tp rollback && redis-tp rollback --overwrite").ok();
    assert_eq!(machine.run("redis-tp cli -- CONFIG GET appendonly | tail -1").ok().stdout.trim(), "no");
    load.end("a lasting client");
    assert_eq!(identity(&machine), before, "a server was started anew, or a link broke");
    assert!(machine.run("redis-tp plan").ok().stdout.contains("No changes"));
}

#[test]
fn nobody_is_refused_while_the_password_changes() {
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = pair(release, init) else { return };
        machine.run("echo another-password > /root/password").ok();
        let (before, former) = (identity(&machine), machine.read(PASSWORD));
        let loads =
            [Load::start(&machine, 6379, Client::Lasting), Load::start(&machine, 6379, Client::Fresh)];
        thread::sleep(Duration::from_millis(100));
        machine.run("redis-tp install --password-file /root/password").ok();
        thread::sleep(Duration::from_millis(100));
        let there_and_back =
            machine.run("redis-tp rollback && redis-tp install --password-file /root/password");
        there_and_back.ok();
        thread::sleep(Duration::from_millis(100));
        for (load, what) in loads.into_iter().zip(["a lasting client", "clients that come anew"]) {
            load.end(what);
        }
        assert_eq!(identity(&machine), before, "a server was started anew, or a link broke");
        for port in [6379, 6380] {
            let with = |password: &str| {
                let word = password.trim();
                machine.run(&format!("REDISCLI_AUTH={word} redis-cli -e -p {port} PING 2>&1")).stdout
            };
            assert!(!with(&former).contains("PONG"), "the former password is still taken on {port}");
            assert!(with("another-password").contains("PONG"), "the new password is not taken on {port}");
        }
        machine.run("redis-tp verify").ok();
    }
}

/// A server whose proof takes two seconds longer.
const SLOW: &str = r#"#!/bin/sh
case "$*" in *"--supervised systemd"*)
    { sleep 2; systemd-notify --ready; } > /dev/null 2>&1 & exec env -u NOTIFY_SOCKET /usr/bin/redis-server "$@";;
esac
exec /usr/bin/redis-server "$@"
"#;

#[test]
fn the_proof_of_a_replica_takes_no_copy_of_the_live_masters_data() {
    for release in Release::ALL {
        let Some(machine) = pair(release, Init::None) else { return };
        machine.write("/usr/local/bin/redis-server", SLOW);
        machine.run("chmod 755 /usr/local/bin/redis-server").ok();
        let before = identity(&machine);
        machine.run("echo another-password > /root/password").ok();
        let out = machine.run("redis-tp install --password-file /root/password").ok();
        assert!(out.elapsed > Duration::from_secs(2), "the proof was not held up: {out}");
        assert_eq!(identity(&machine), before, "the scratch server was a replica of the live master");
    }
}

/// Nobody answers a process that does not run, and the server's own time was no more.
#[test]
fn a_machine_that_stood_still_has_no_server_that_does_not_answer() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp install").ok();
    for _ in 0..3 {
        machine.run("pkill -STOP redis-server").ok();
        let mut status = machine.spawn("redis-tp status");
        machine
            .run("until ss -Htn state established sport = :6379 | grep -qv '^0 '; do sleep 0.02; done")
            .ok();
        assert!(status.signal(Signal::SIGSTOP));
        thread::sleep(Wire::TIMEOUT + Duration::from_millis(500));
        assert!(status.signal(Signal::SIGCONT));
        // That it was asked once more.
        thread::sleep(Duration::from_millis(200));
        machine.run("pkill -CONT redis-server").ok();
        status.wait().ok();
    }
}

#[test]
fn a_restart_that_turns_the_append_only_file_on_or_off_loses_no_key() {
    let Some(machine) = pair(Release::Bookworm, Init::None) else { return };
    let keys = || machine.run("redis-tp cli -- DBSIZE").ok().stdout.trim().to_owned();
    machine.run("for n in 1 2 3 4 5; do redis-tp cli -- SET key$n v; done").ok();
    let all = keys();
    for (appendonly, databases) in [("yes", 20), ("no", 24)] {
        let out = machine
            .run(&format!("redis-tp install --set appendonly={appendonly} --set databases={databases}"))
            .ok();
        assert!(out.stderr.contains("restart master"), "{out}");
        assert_eq!(keys(), all, "after appendonly {appendonly}");
    }
    machine.run("redis-tp service stop master").ok();
    let refused = machine.run("redis-tp install --set appendonly=yes").exits(5);
    assert!(refused.stderr.contains("redis-tp service start master"), "{refused}");
    machine.run("redis-tp service start master && redis-tp install --set appendonly=yes").ok();
    machine.run("redis-tp service restart master").ok();
    assert_eq!(keys(), all, "after a change that was refused while it did not run");
}

#[test]
fn a_master_that_saves_nothing_is_not_restarted_unasked() {
    let Some(machine) = pair(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install --set save='\"\"' && redis-tp cli -- SET only copy").ok();
    for command in ["install --set databases=20", "service restart master", "service stop master"] {
        let refused = machine.run(&format!("redis-tp {command}")).exits(5);
        assert!(refused.stderr.contains("that no file has, and it saves nothing"), "{refused}");
    }
    assert_eq!(machine.run("redis-tp cli -- GET only").ok().stdout.trim(), "copy");
    let out = machine.run("redis-tp install --set databases=20 --set 'save=3600 1'").ok();
    assert!(out.stderr.contains("restart master"), "{out}");
    assert_eq!(machine.run("redis-tp cli -- GET only").ok().stdout.trim(), "copy");
    machine.run("redis-tp install --set save='\"\"' && redis-tp cli -- SET only lost").ok();
    machine.run("redis-tp install --set databases=24 --force").ok();
}

#[test]
fn a_master_that_saves_nothing_and_locked_us_out_is_not_restarted_unasked() {
    let Some(machine) = pair(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install --plain --set save='\"\"' && redis-tp cli -- SET only copy").ok();
    machine.run("redis-tp cli -- CONFIG SET requirepass by-hand").ok();
    for command in ["install --set databases=20", "service restart master", "service stop master"] {
        let refused = machine.run(&format!("redis-tp {command}")).exits(5);
        assert!(refused.stderr.contains("takes no password that redis-tp knows"), "{refused}");
    }
    let got = machine.run("REDISCLI_AUTH=by-hand redis-cli GET only").ok().stdout;
    assert_eq!(got.trim(), "copy");
    machine.run("redis-tp service restart master --force && redis-tp verify").ok();
}

#[test]
fn a_limit_below_what_is_held_throws_nothing_away_unasked() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --no-app").ok();
    let fill = "for i = 1, 2000 do redis.call('SET', i, string.rep('x', 1000)) end";
    machine.run(&format!("redis-tp cli -- EVAL \"{fill}\" 0 && {}", saved!())).ok();
    for (set, then) in [
        ("--set maxmemory=1mb", "it would refuse every write (maxmemory-policy noeviction)"),
        ("--set maxmemory=1mb --set maxmemory-policy=allkeys-lru", "keys would be thrown away at once"),
        ("--set maxmemory=1mb --set maxmemory-policy=allkeys-lru --set databases=20", "thrown away at once"),
    ] {
        let refused = machine.run(&format!("redis-tp install {set}")).exits(5);
        assert!(refused.stderr.contains("more than 'maxmemory 1mb' allows"), "{refused}");
        assert!(refused.stderr.contains(then) && refused.stderr.contains("--force"), "{refused}");
        assert_eq!(machine.run("redis-tp cli -- DBSIZE").ok().stdout, "2000\n");
    }
    machine.run("redis-tp install --set maxmemory=64mb --set maxmemory-policy=allkeys-lru").ok();
    let forced = machine.run("redis-tp install --set maxmemory=1mb --force").ok();
    let backup =
        forced.stderr.lines().find_map(|line| line.split_whitespace().find(|word| word.ends_with(".rdb")));
    let backup = backup.unwrap_or_else(|| panic!("it names no backup: {forced}"));
    assert!(machine.run(&format!("redis-check-rdb {backup}")).ok().stdout.contains("2000 keys read"));
}

#[test]
fn a_master_that_is_restarted_by_name_has_its_replicas_again_when_that_ends() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --no-app").ok();
    for (before, command) in [
        ("true", "redis-tp service restart master"),
        ("redis-tp service stop master", "redis-tp service start master"),
    ] {
        machine.run(before).ok();
        let out = machine.run(command).ok();
        assert!(!out.stdout.contains("no link") && !out.stderr.contains("no link"), "{out}");
        let info = machine.run("redis-tp cli slave -- INFO replication").ok().stdout;
        assert!(info.contains("master_link_status:up"), "{out}{info}");
    }
}
