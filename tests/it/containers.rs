//! The same topology in Docker and Podman, on real machines: from an image to proven containers, through
//! what happens to them, and back to nothing.

use std::thread;

use crate::engines::Engine;
use crate::machine::{Alike, Machine, Out, Snapshot, differences};

mod refusals;

/// Runs a test with each engine, both at a time.
fn with_each_engine(test: fn(&Machine, Engine)) {
    thread::scope(|scope| {
        for engine in Engine::ALL {
            scope.spawn(move || {
                if let Some(machine) = engine.boot_or_skip() {
                    test(&machine, engine);
                }
            });
        }
    });
}

/// What is of ours on a machine, but for what engines keep.
pub fn places(machine: &Machine) -> Snapshot {
    let mut snapshot =
        machine.snapshot(&["/etc", "/usr/local", "/var/lib/redis-tp", "/var/log", "/run/redis-tp"]);
    snapshot.retain(|path, _| path.to_string_lossy().contains("redis"));
    snapshot
}

/// What tells whether a container was made or started anew.
fn running(machine: &Machine, engine: Engine) -> String {
    let format = "{{.Name}} {{.Id}} {{.State.StartedAt}} {{.RestartCount}}";
    engine.run(machine, &format!("inspect --format '{format}' $({engine} ps --quiet | sort)")).ok().stdout
}

#[track_caller]
fn contains(out: &Out, text: &str) {
    assert!(out.stdout.contains(text), "no '{text}' in:\n{out}");
}

/// A replica asks for its master once a second, and an engine's names take their time.
pub fn until(machine: &Machine, command: &str) {
    machine.run(&format!("for try in $(seq 300); do {command} && exit; sleep 0.1; done; exit 1")).ok();
}

fn up(machine: &Machine, engine: Engine) {
    contains(&machine.run(&format!("redis-tp up --runtime {engine}")).ok(), "next:");
}

#[test]
fn one_word_leads_from_an_image_to_proven_containers_and_back_to_nothing() {
    with_each_engine(|machine, engine| {
        let before = (places(machine), engine.objects(machine));
        up(machine, engine);
        machine.run("redis-tp verify").ok();
        machine.run("redis-tp check").ok();
        let status = machine.run("redis-tp status").ok();
        contains(&status, &engine.to_string());
        for object in ["redis-master", "redis-slave", "redis-app", "redis-master-data", "redis-tp"] {
            assert!(engine.objects(machine).contains(&format!(" {object}\n")), "no {object}");
        }

        let (there, runs) = (places(machine), running(machine, engine));
        let again = machine.run("redis-tp up").ok();
        contains(&again, "No changes");
        assert_eq!(differences(&there, &places(machine), Alike::Untouched), [""; 0]);
        assert_eq!(runs, running(machine, engine), "a container was started anew");
        assert_eq!(
            machine.run("pgrep -x systemctl; ls /etc/redis").stdout,
            "",
            "something is beside containers"
        );

        machine.run("redis-tp uninstall --purge").ok();
        nothing_is_left(machine, engine, &before);
        contains(&machine.run("redis-tp uninstall").ok(), "No changes");
        contains(&engine.run(machine, "images").ok(), "redis");
    });
}

fn nothing_is_left(machine: &Machine, engine: Engine, before: &(Snapshot, String)) {
    assert_eq!(engine.objects(machine), before.1, "the engine has other things than before");
    assert_eq!(differences(&before.0, &places(machine), Alike::Equivalent), [""; 0]);
    // An engine's own helper ends a moment after its container.
    until(machine, "! ps -e -o comm= | grep -E 'conmon|shim'");
    assert_eq!(machine.run("ps -e -o comm= | grep redis").stdout, "", "a process is left");
    let ports = machine.run("ss -Hltn | grep -E ':(6379|638.|5000) '").stdout;
    assert_eq!(ports, "", "a port is left open");
}

#[test]
fn no_password_is_where_others_could_read_it() {
    with_each_engine(|machine, engine| {
        up(machine, engine);
        let word = machine.read("/etc/redis-tp/password").trim().to_owned();
        assert!(word.len() > 8, "no password");
        machine.write("/root/word", &word);
        let all =
            format!("{engine} inspect $({engine} ps --quiet) redis-master-data redis-slave-data redis:7");
        assert!(!machine.run(&all).ok().stdout.contains(&word), "the engine tells it");
        machine.run(&format!("! {engine} network inspect redis-tp | grep -qFf /root/word")).ok();
        machine.run("! grep -alFf /root/word /proc/[0-9]*/cmdline /proc/[0-9]*/environ").ok();
        for part in ["master", "slave", "app"] {
            let logs = machine.run(&format!("redis-tp service logs {part}")).ok();
            assert!(!format!("{logs}").contains(&word), "{part}'s log tells it");
        }
        machine.run("redis-tp plan --diff | grep -qFf /root/word").exits(1);

        // The image's user may read its configuration, and nobody else.
        let user = engine.run(machine, "exec redis-master id -u redis").ok().stdout.trim().to_owned();
        for name in ["redis-master", "redis-slave", "redis-app"] {
            let directory = format!("/etc/redis-tp/containers/{name}");
            let modes = format!("stat -c '%a %u' {directory} {directory}/*");
            let modes = machine.run(&modes).ok().stdout;
            assert!(
                modes.lines().all(|line| line.ends_with(&format!("00 {user}"))),
                "{directory} is {modes}"
            );
            let process = engine.inspect(machine, name, ".State.Pid");
            let runs_as = machine.run(&format!("stat -c %u /proc/{process}")).ok().stdout;
            assert_eq!(runs_as.trim(), user, "{name} runs as another");
        }
    });
}

#[test]
fn a_replica_comes_and_goes_while_the_others_run() {
    with_each_engine(|machine, engine| {
        up(machine, engine);
        machine.run("redis-tp cli -- SET bonjour monde").ok();
        let (runs, objects) = (running(machine, engine), engine.objects(machine));

        machine.run("redis-tp replica add --port 6381 --of slave").ok();
        contains(&machine.run("redis-tp replica list").ok(), "slave-6381");
        until(machine, "[ \"$(redis-tp cli slave-6381 -- GET bonjour)\" = monde ]");
        until(machine, "redis-tp verify");
        assert!(
            runs.lines()
                // The app has to be told of the new one.
                .filter(|line| !line.contains("redis-app"))
                .all(|line| running(machine, engine).contains(line)),
            "another container was started anew"
        );
        contains(&machine.run("redis-tp replica add --port 6381").ok(), "No changes");

        machine.run("redis-tp replica remove slave").exits(5);
        machine.run("redis-tp rollback").ok();
        assert_eq!(engine.objects(machine), objects, "the rollback left something");
        until(machine, "redis-tp verify");

        machine.run("redis-tp replica add --port 6381").ok();
        machine.run("redis-tp replica remove slave-6381").ok();
        assert!(
            engine.objects(machine).contains("volume redis-slave-6381-data"),
            "the data went without --purge"
        );
        machine.run("redis-tp replica add --port 6381").ok();
        machine.run("redis-tp replica remove slave-6381 --purge").ok();
        assert_eq!(engine.objects(machine), objects, "--purge left something");
    });
}

#[test]
fn the_first_run_is_rolled_back_to_nothing() {
    with_each_engine(|machine, engine| {
        let before = (places(machine), engine.objects(machine));
        up(machine, engine);
        machine.run("redis-tp rollback").ok();
        let state = "/var/lib/redis-tp";
        let mut left = places(machine);
        left.retain(|path, _| !path.starts_with(state));
        assert_eq!(differences(&before.0, &left, Alike::Equivalent), [""; 0]);
        assert_eq!(engine.objects(machine), before.1);
    });
}

#[test]
fn a_master_that_is_killed_comes_back_with_its_data() {
    with_each_engine(|machine, engine| {
        up(machine, engine);
        machine.run("redis-tp cli -- SET bonjour monde").ok();
        machine.run(saved!()).ok();
        // By its own death: its restart policy is enough.
        let process = engine.inspect(machine, "redis-master", ".State.Pid");
        machine.run(&format!("kill -9 {process}")).ok();
        until(machine, "redis-tp status");
        until(machine, "redis-tp verify");
        contains(&machine.run("redis-tp cli slave -- GET bonjour").ok(), "monde");

        // By somebody who wanted it: that is shown, and undone by an apply only.
        engine.run(machine, "kill redis-master").ok();
        machine.run("redis-tp status").exits(4);
        machine.run("redis-tp check").exits(4);
        machine.run("redis-tp plan --detailed-exitcode").exits(3);
        machine.run("redis-tp apply").ok();
        until(machine, "redis-tp verify");
        contains(&machine.run("redis-tp cli -- GET bonjour").ok(), "monde");
        contains(&machine.run("redis-tp up").ok(), "No changes");

        // By somebody who took it away altogether.
        engine.run(machine, "rm --force redis-master").ok();
        machine.run("redis-tp apply").ok();
        until(machine, "redis-tp verify");
        contains(&machine.run("redis-tp cli -- GET bonjour").ok(), "monde");
    });
}

#[test]
fn a_network_that_is_cut_is_seen_and_healed() {
    with_each_engine(|machine, engine| {
        up(machine, engine);
        for cut in ["redis-slave", "redis-master"] {
            let runs = running(machine, engine);
            engine.run(machine, &format!("network disconnect redis-tp {cut}")).ok();
            let seen = machine.run("redis-tp check").exits(4);
            assert!(seen.stdout.contains(&format!("{cut} is not on")), "{seen}");
            machine.run("redis-tp plan --detailed-exitcode").exits(3);
            machine.run("redis-tp apply").ok();
            assert_eq!(running(machine, engine), runs, "a container was started anew");
            until(machine, "redis-tp verify");
            contains(&machine.run("redis-tp up").ok(), "No changes");
        }
    });
}

#[test]
fn services_are_served_alike() {
    with_each_engine(|machine, engine| {
        up(machine, engine);
        machine.run("redis-tp cli -- SET bonjour monde").ok();
        machine.run("redis-tp service stop").ok();
        assert_eq!(engine.run(machine, "ps --quiet").ok().stdout, "", "a container still runs");
        machine.run("redis-tp status").exits(4);
        machine.run("redis-tp service start").ok();
        until(machine, "redis-tp verify");
        contains(&machine.run("redis-tp cli slave -- GET bonjour").ok(), "monde");

        let started = || engine.inspect(machine, "redis-slave", ".State.StartedAt");
        let before = started();
        machine.run("redis-tp service restart slave").ok();
        assert_ne!(started(), before, "it was not started anew");
        until(machine, "redis-tp verify --restart");
        contains(&machine.run("redis-tp service logs master").ok(), "Ready to accept connections");

        let policy = || engine.inspect(machine, "redis-slave", ".HostConfig.RestartPolicy.Name");
        let on = policy();
        assert!(matches!(on.as_str(), "always" | "unless-stopped"), "{on}");
        // Podman 4 cannot change that of a container that is there.
        if engine == Engine::Docker {
            machine.run("redis-tp service disable slave").ok();
            assert_eq!(policy(), "no");
            machine.run("redis-tp service enable slave").ok();
            assert_eq!(policy(), on);
        }
        contains(&machine.run("redis-tp up").ok(), "No changes");
    });
}

#[test]
fn what_a_server_in_a_container_writes_down_is_no_drift() {
    with_each_engine(|machine, engine| {
        up(machine, engine);
        for instance in ["master", "slave"] {
            contains(&machine.run(&format!("redis-tp cli {instance} -- CONFIG REWRITE")).ok(), "OK");
        }
        contains(&machine.run("redis-tp up").ok(), "No changes");

        machine.run("redis-tp cli -- CONFIG SET timeout 77").ok();
        machine.run("redis-tp cli -- CONFIG REWRITE").ok();
        let seen = machine.run("redis-tp up").exits(3);
        assert!(
            seen.stderr.contains("timeout in /etc/redis-tp/containers/redis-master/redis.conf"),
            "{seen}"
        );
        machine.run("redis-tp apply --overwrite").ok();
        contains(&machine.run("redis-tp cli -- CONFIG GET timeout").ok(), "0");
        contains(&machine.run("redis-tp up").ok(), "No changes");
        assert_eq!(engine.inspect(machine, "redis-master", ".State.Status"), "running");
    });
}

#[test]
fn valkey_in_containers_is_proven_and_leaves_nothing() {
    with_each_engine(|machine, engine| {
        engine.import(machine, "valkey", "valkey/valkey:8");
        let before = (places(machine), engine.objects(machine));
        contains(&machine.run(&format!("redis-tp up --runtime {engine} --engine valkey")).ok(), "next:");
        machine.run("redis-tp verify").ok();
        contains(&machine.run("redis-tp status").ok(), "Valkey 8");
        for object in ["valkey-master", "valkey-slave", "valkey-app", "valkey-master-data"] {
            assert!(engine.objects(machine).contains(&format!(" {object}\n")), "no {object}");
        }
        contains(&machine.run("redis-tp up").ok(), "No changes");
        machine.run("redis-tp uninstall --purge").ok();
        nothing_is_left(machine, engine, &before);
        assert_eq!(machine.run("ps -e -o comm= | grep valkey").stdout, "", "a server is left");
    });
}

#[test]
fn the_memory_of_a_container_follows_maxmemory() {
    with_each_engine(|machine, engine| {
        machine.run(&format!("redis-tp install --runtime {engine} --set maxmemory=64mb")).ok();
        let limit: u64 = engine.inspect(machine, "redis-master", ".HostConfig.Memory").parse().unwrap();
        assert!(limit > 64 << 20, "{limit}");
        let process = engine.inspect(machine, "redis-master", ".State.Pid");
        // With controllers in hierarchies of their own, and without.
        let files = "/sys/fs/cgroup/memory$group/memory.limit_in_bytes /sys/fs/cgroup$group/memory.max";
        let group = format!("group=$(grep -oP '(memory|^0:):\\K.*' /proc/{process}/cgroup | head -n 1)");
        let real = machine.run(&format!("{group}; cat {files} 2>/dev/null")).stdout;
        assert_eq!(real.trim(), limit.to_string(), "the kernel has another limit");
    });
}

#[test]
fn instances_in_containers_come_back_after_a_reboot() {
    let Some(mut machine) = Engine::Docker.boot_or_skip() else { return };
    machine.run("systemctl enable docker").ok();
    up(&machine, Engine::Docker);
    machine.run("redis-tp cli -- SET bonjour monde").ok();
    machine.reboot();
    until(&machine, "redis-tp status");
    until(&machine, "redis-tp verify");
    contains(&machine.run("redis-tp cli slave -- GET bonjour").ok(), "monde");
    contains(&machine.run("redis-tp up").ok(), "No changes");
}

#[test]
fn a_runtime_that_is_left_says_what_stays_behind() {
    let Some(machine) = Engine::Docker.boot_or_skip() else { return };
    machine.run("redis-tp up --runtime process").ok();
    machine.run("redis-tp cli -- SET bonjour monde").ok();
    let moved = machine.run("redis-tp up --runtime docker").exits(5);
    for text in ["/var/lib/redis", "redis-master-data", "redis-tp service stop master"] {
        assert!(moved.stderr.contains(text), "no '{text}' in:\n{moved}");
    }
    contains(&machine.run("redis-tp cli -- GET bonjour").ok(), "monde");
    assert!(!Engine::Docker.objects(&machine).contains("redis"), "something is made already");
}

#[test]
fn a_rendered_compose_file_is_the_same_topology() {
    let Some(machine) = Engine::Docker.boot_or_skip() else { return };
    up(&machine, Engine::Docker);
    let word = machine.read("/etc/redis-tp/password").trim().to_owned();
    machine
        .run("umask 077; mkdir /root/lab && redis-tp render --compose --reveal > /root/lab/compose.yaml")
        .ok();
    machine.run("redis-tp uninstall --purge").ok();

    let docker = Engine::Docker;
    machine.run("cd /root/lab && docker compose config --quiet && docker compose up --detach").ok();
    let cli = |container: &str, port: u16, words: &str| {
        docker.run(
            &machine,
            &format!("exec --env REDISCLI_AUTH={word} {container} redis-cli -p {port} {words}"),
        )
    };
    cli("redis-master", 6379, "SET bonjour monde").ok();
    let replica = format!(
        "[ \"$(docker exec --env REDISCLI_AUTH={word} redis-slave redis-cli -p 6380 GET bonjour)\" = monde ]"
    );
    until(&machine, &replica);
    cli("redis-slave", 6380, "CONFIG REWRITE").ok();
    machine.run("cd /root/lab && docker compose down --volumes").ok();
    assert_eq!(docker.objects(&machine), "", "compose left something");
}

#[test]
fn containers_speak_tls_with_each_other_with_us_and_with_the_app() {
    with_each_engine(|machine, engine| {
        contains(&machine.run(&format!("redis-tp up --tls --runtime {engine}")).ok(), "next:");
        let proof = machine.run("redis-tp verify").ok();
        for row in ["✓ tls ", "✓ tls-plain", "✓ tls-client", "✓ link", "✓ app-warm"] {
            contains(&proof, row);
        }
        machine.run("redis-tp check").ok();
        // The client is the image's own.
        contains(&machine.run("redis-tp cli -- SET bonjour monde").ok(), "OK");
        until(machine, "redis-tp cli slave -- GET bonjour | grep -x monde");
        contains(&machine.run("redis-tp backup").ok(), "backup of master");
        machine.run("redis-tp status").ok();
        if engine == Engine::Docker {
            let health =
                "[ \"$(docker inspect --format '{{.State.Health.Status}}' redis-master)\" = healthy ]";
            until(machine, health);
        }
        machine.run("redis-tp tls rotate").ok();
        until(machine, "redis-tp verify");
        machine.run("redis-tp plan | grep 'No changes'").ok();
    });
}

#[test]
fn a_backup_comes_out_of_a_container_and_back_into_it_as_the_refusal_says() {
    with_each_engine(|machine, engine| {
        machine.run(&format!("redis-tp up --no-app --runtime {engine}")).ok();
        machine.run("redis-tp cli -- SET only here && redis-tp backup --to /root/b.rdb").ok();
        machine.run("redis-tp cli -- FLUSHALL && redis-tp cli -- SET another key").ok();
        let out = machine.run("redis-tp restore /root/b.rdb").exits(5);
        let commands = out.stderr.lines().skip_while(|line| !line.starts_with("hint:")).skip(1);
        for command in commands {
            machine.run(command.trim()).ok();
        }
        until(machine, "redis-tp cli -- GET only | grep -qx here");
        let said = machine.run("redis-tp backup --list --json").ok().stdout;
        assert_eq!(
            said.matches("\"instance\": \"master\"").count(),
            1,
            "what was there is backed up: {said}"
        );
        machine.run("redis-tp uninstall --purge --no-backup").ok();
    });
}
