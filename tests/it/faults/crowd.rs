//! Many runs at once: one changes the machine, the others say that it does, or have nothing left to do.

use std::collections::BTreeMap;

use super::{lasting, with_package};
use crate::machine::{Alike, Init, Machine, Out, Release, differences};
use crate::story::bare;

const COMMANDS: [&str; 3] =
    ["redis-tp up --no-app", "redis-tp install --password-file /root/password", "redis-tp apply"];

/// One and the same wish, where there is a topology.
const ALIKE: [&str; 3] = ["redis-tp up --no-app", "redis-tp apply", "redis-tp install"];

/// Starts twenty at once, and waits for all of them.
fn twenty(machine: &Machine, commands: &[&str]) -> Vec<Out> {
    let running: Vec<_> = commands.iter().cycle().take(20).map(|command| machine.spawn(command)).collect();
    running.into_iter().map(|running| running.wait()).collect()
}

fn settled(machine: &Machine) {
    machine.run("redis-tp plan --detailed-exitcode").ok();
    machine.run("redis-tp verify").ok();
    machine.run("test ! -e /run/redis-tp && ! ls -A /tmp | grep redis-tp").ok();
}

#[test]
fn of_twenty_runs_at_once_one_changes_and_none_breaks_another() {
    for init in [Init::None, Init::Systemd] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        machine.run("umask 077; echo secret-enough >/root/password").ok();
        // On a bare machine, on one that is half there, and on one where nothing is left to do.
        for round in 0..3 {
            let outs = twenty(&machine, &COMMANDS);
            let mut codes: BTreeMap<i32, usize> = BTreeMap::new();
            for out in &outs {
                // `apply` before there is a topology: refused, and says so.
                let early = out.status == 5 && out.stderr.contains("topology");
                assert!(matches!(out.status, 0 | 6) || early, "round {round}: {out}");
                assert!(out.status != 6 || out.stderr.contains("another redis-tp is at work"), "{out}");
                *codes.entry(out.status).or_default() += 1;
            }
            assert!(codes.contains_key(&0), "round {round}: nobody got through: {codes:?}");
            settled(&machine);
        }
    }
}

/// A topology and its password, and nothing else of ours.
const WISHED: &str = "redis-tp uninstall --purge --no-backup; rm -rf /etc/redis-tp /var/log/redis/* &&
    cp -a /root/wish /etc/redis-tp";

/// How often each server was started, by its log; and how many of them run.
fn starts(machine: &Machine) -> String {
    machine.run("grep -c 'Redis is starting' /var/log/redis/*.log; pidof redis-server | wc -w").ok().stdout
}

#[test]
fn of_twenty_runs_with_one_wish_just_one_changes_and_starts_each_server_once() {
    for init in [Init::None, Init::Systemd] {
        let Some(machine) = with_package(Release::Bookworm, init) else { return };
        machine.run("redis-tp up --no-app && cp -a /etc/redis-tp /root/wish").ok();
        machine.run(WISHED).ok();
        machine.run("redis-tp apply").ok();
        let (undisturbed, once) = (lasting(&machine), starts(&machine));
        // Whose turn it is, is chance.
        for round in 0..3 {
            machine.run(WISHED).ok();
            for (changes, what) in [(1, "with the package"), (0, "converged")] {
                let outs = twenty(&machine, &ALIKE);
                let changed = |out: &&Out| out.status == 0 && !out.stdout.contains("No changes.");
                for out in outs.iter().filter(|out| out.status != 0) {
                    let named = out.stderr.contains("another redis-tp is at work on this machine (pid ");
                    assert!(out.status == 6 && named, "round {round}, {what}: {out}");
                }
                assert_eq!(outs.iter().filter(changed).count(), changes, "round {round}, {what}: {outs:#?}");
                assert_eq!(starts(&machine), once, "round {round}, {what}");
                let left = differences(&undisturbed, &lasting(&machine), Alike::Equivalent);
                assert_eq!(left, [""; 0], "round {round}, {what}");
            }
            settled(&machine);
        }
    }
}

#[test]
fn a_lock_that_outlives_its_killed_run_is_waited_for() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("redis-tp up --no-app").ok();
    // A child that has the lock open, of a process that is gone.
    let held = r#"
        perl -e 'use Fcntl ":flock"; open F, ">>", "/var/lib/redis-tp/lock"; flock F, LOCK_EX or die;
            if (fork) { exit } sleep 0.4; select undef, undef, undef, 0.4'
        redis-tp up --no-app"#;
    let out = machine.run(held).ok();
    assert!(out.stdout.contains("No changes"), "{out}");
    // One that lives is not waited for.
    let held = r#"
        perl -e 'use Fcntl ":flock"; $| = 1; open F, ">>", "/var/lib/redis-tp/lock"; flock F, LOCK_EX or die;
            print "held\n"; sleep 600' >/root/held &
        holder=$!; until grep -q held /root/held; do sleep 0.01; done
        redis-tp up --no-app; code=$?; kill $holder; exit $code"#;
    let out = machine.run(held).exits(6);
    assert!(out.stderr.contains("another redis-tp is at work on this machine (pid "), "{out}");
}
