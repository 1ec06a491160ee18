//! A package manager that was killed, is at work, or knows an old index; and an `/etc/redis` that is broken.
//! Each ends in convergence, or in an error that says what was found and what to type, with nothing changed.

use crate::bad_input::{HOLD_APTS_LOCK, until_it_says};
use crate::machine::{Alike, Init, Machine, Release, differences};
use crate::story::{bare, places};

/// What dpkg is left at when it was killed, or the package's own script failed.
const LEFT: [&str; 3] =
    ["install ok unpacked", "install ok half-configured", "install reinstreq half-installed"];

/// The same, in the place where a dpkg that was killed left it.
const TO_UPDATES: &str = r"cd /var/lib/dpkg && install -d updates &&
    sed -n '/^Package: redis-server$/,/^$/p' status >updates/0007 && sed -i '/^Package: redis-server$/,/^$/d' status";

/// Without its dependencies, as `dpkg --unpack` of the package alone leaves it.
fn leave_at(machine: &Machine, status: &str) {
    machine
        .run(&format!(
            "dpkg --unpack /var/cache/apt/archives/redis-server_*.deb &&
            sed -i '/^Package: redis-server$/,/^$/s/^Status: .*/Status: {status}/' /var/lib/dpkg/status"
        ))
        .ok();
}

fn converges(machine: &Machine, what: &str) {
    let up = machine.run("redis-tp up --no-app");
    assert_eq!(up.status, 0, "{what}: {up}");
    machine.run("redis-tp verify").ok();
    let plan = machine.run("redis-tp plan --detailed-exitcode");
    assert_eq!(plan.status, 0, "{what}: {plan}");
    machine.run("dpkg -s redis-server | grep -qx 'Status: install ok installed'").ok();
    assert!(!machine.exists("/usr/sbin/policy-rc.d"), "{what}: a policy-rc.d is left behind");
}

#[test]
fn a_package_that_was_left_half_way_is_finished() {
    for status in LEFT {
        let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
        leave_at(&machine, status);
        converges(&machine, status);

        let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
        leave_at(&machine, status);
        machine.run(TO_UPDATES).ok();
        converges(&machine, &format!("{status}, in updates"));
    }
}

#[test]
fn a_dpkg_that_was_killed_is_gone_on_with() {
    for (init, pause) in [(Init::None, "0.5"), (Init::Systemd, "0.7"), (Init::None, "0.9")] {
        let Some(machine) = bare(Release::Bookworm, init) else { return };
        machine
            .run(&format!(
                "apt-get install -y redis-server >/dev/null 2>&1 & sleep {pause}
                kill -9 $(pidof apt-get dpkg); wait; true"
            ))
            .ok();
        converges(&machine, pause);
    }
}

#[test]
fn a_lock_of_apt_is_waited_for_and_its_holder_named() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    let _holder = machine.spawn(HOLD_APTS_LOCK);
    machine.run("until [ -e /run/held ]; do sleep 0.02; done").ok();
    let mut up = machine.spawn("redis-tp up --no-app");
    until_it_says(&up, "waiting for apt: perl (pid ");
    machine.run("sleep 1").ok();
    assert!(up.is_running(), "it did not wait: {}", up.wait());
    machine.run("touch /run/enough").ok();
    up.wait().ok();
    converges(&machine, "the lock is free again");
}

/// A fetch of what the index names ends in "not found". By `copy:`, for of `file:` apt reads the index in
/// its place.
const OLD_INDEX: &str = r"
    sed -i 's/file:/copy:/' /etc/apt/sources.list && cd /srv/repo && cp Packages /root/Packages &&
    sed -i 's/^\(Filename: .*\)\.deb$/\1-old.deb/' Packages && apt-get update &&
    cp /root/Packages Packages";

#[test]
fn an_index_that_is_out_of_date_is_fetched_anew() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.empty_package_index();
    machine.run(OLD_INDEX).ok();
    machine.run("apt-get install -y redis-server").exits(100);
    converges(&machine, "an old index");
}

#[test]
fn an_index_that_stays_out_of_date_changes_nothing_and_says_why() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.empty_package_index();
    machine.run(OLD_INDEX).ok();
    machine.run("rm -r /srv/repo").ok();
    let before = places(&machine);
    let up = machine.run("redis-tp up").exits(8);
    assert!(up.stderr.contains("after apt-get update"), "{up}");
    assert_eq!(differences(&before, &places(&machine), Alike::Equivalent), [""; 0], "{up}");
}

/// What breaks `/etc/redis`; what the error says of it; and what the hint's command is.
const BROKEN: [(&str, &str, &str); 9] = [
    (
        "rm -r /etc/redis; echo x >/etc/redis",
        "/etc/redis is a file, not a directory",
        "mv /etc/redis /etc/redis.aside",
    ),
    (
        "rm -r /etc/redis; ln -s /nowhere /etc/redis",
        "/etc/redis is a symbolic link that leads to no directory",
        "mv /etc/redis /etc/redis.aside",
    ),
    (
        "rm /etc/redis/redis.conf; ln -s /nowhere /etc/redis/redis.conf",
        "/etc/redis/redis.conf is a symbolic link, not a file",
        "mv /etc/redis/redis.conf /etc/redis/redis.conf.aside",
    ),
    (
        "rm /etc/redis/redis.conf; mkdir /etc/redis/redis.conf",
        "/etc/redis/redis.conf is a directory, not a file",
        "mv /etc/redis/redis.conf /etc/redis/redis.conf.aside",
    ),
    (
        "chown -R nobody:nogroup /etc/redis; chmod 700 /etc/redis",
        "/etc/redis is closed to the server's user, redis",
        "chown redis: /etc/redis",
    ),
    ("chmod 000 /etc/redis", "/etc/redis is closed to the server's user, redis", "chmod 2770 /etc/redis"),
    ("chattr +i /etc/redis", "nobody can write to /etc/redis, not even root", "chattr -i /etc/redis"),
    (
        "chattr +i /etc/redis/redis.conf",
        "nobody can write to /etc/redis/redis.conf, not even root",
        "chattr -i /etc/redis/redis.conf",
    ),
    (
        "mount --bind /etc/redis /etc/redis && mount -o remount,bind,ro /etc/redis",
        "nobody can write to /etc/redis, not even root",
        "findmnt -T /etc/redis",
    ),
];

/// Puts back what [`BROKEN`] did, whatever it was.
const MENDED: &str = "umount /etc/redis 2>/dev/null; chattr -i /etc/redis /etc/redis/redis.conf 2>/dev/null
    rm -rf /etc/redis; cp -a /root/etc-redis /etc/redis";

#[test]
fn a_broken_etc_redis_is_named_with_its_cure_and_nothing_is_changed() {
    let Some(machine) = bare(Release::Bookworm, Init::None) else { return };
    machine.run("apt-get install -y redis-server && cp -a /etc/redis /root/etc-redis").ok();
    machine.run("service redis-server stop; true").ok();
    for (broken, error, hint) in BROKEN {
        machine.run(broken).ok();
        let before = places(&machine);
        let up = machine.run("redis-tp up --no-app").exits(5);
        assert!(up.stderr.contains(error) && up.stderr.contains(hint), "{broken}: {up}");
        assert_eq!(differences(&before, &places(&machine), Alike::Untouched), [""; 0], "{broken}: {up}");
        machine.run(MENDED).ok();
    }
    // What root may write to is written, whatever it was.
    for broken in
        ["rm -r /etc/redis", "printf '\\377' >/etc/redis/redis.conf", "chmod 000 /etc/redis/redis.conf"]
    {
        machine.run(broken).ok();
        converges(&machine, broken);
        machine.run("redis-tp uninstall").ok();
        machine.run(MENDED).ok();
    }
}
