//! Many runs at once: one changes the machine, the others say that it does, or have nothing left to do.

use std::collections::BTreeMap;

use crate::machine::{Init, Machine, Out, Release};
use crate::story::bare;

const COMMANDS: [&str; 3] =
    ["redis-tp up --no-app", "redis-tp install --password-file /root/password", "redis-tp apply"];

/// Starts twenty at once, and waits for all of them.
fn twenty(machine: &Machine) -> Vec<Out> {
    let running: Vec<_> = COMMANDS.iter().cycle().take(20).map(|command| machine.spawn(command)).collect();
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
            let outs = twenty(&machine);
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
            print "held\n"; sleep 3' >/root/held &
        until grep -q held /root/held; do sleep 0.01; done
        redis-tp up --no-app"#;
    let out = machine.run(held).exits(6);
    assert!(out.stderr.contains("another redis-tp is at work on this machine (pid "), "{out}");
}
