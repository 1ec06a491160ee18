//! apt and dpkg: install without a start, wait for locks, tell afterwards what an install brought.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{Event, Listener};
use crate::engine::Engine;
use crate::exit::{Code, Fault};
use crate::facts::dpkg;
use crate::host::{Child, Done, Host};

/// The file that invoke-rc.d and deb-systemd-invoke ask before they start anything
/// (`/usr/share/doc/init-system-helpers/README.policy-rc.d.gz`).
pub const POLICY: &str = "/usr/sbin/policy-rc.d";

/// The variable by which an apt that outlived us is known.
const OURS: &str = "REDIS_TP_RUN";

/// The line by which our policy is known.
const SIGN: &str = "# redis-tp: a package is being installed; nothing starts until it is configured.";

/// Whether a policy is one of ours.
pub fn is_policy(text: &str) -> bool {
    text.lines().any(|line| line == SIGN)
}

/// The policy of a run: 101, the action is forbidden, for as long as the run lives (`birth`: its pid and
/// start time) or its apt does. A run that is killed blocks nobody else's services.
pub fn policy(birth: &str) -> String {
    let pid = birth.split_whitespace().next().unwrap_or_default();
    let start = birth.split_whitespace().nth(1).unwrap_or_default();
    format!(
        r#"#!/bin/sh
{SIGN}
# When process {pid} is gone, this file means nothing, and may be removed.
[ "${OURS}" = "{birth}" ] && exit 101
{{ read -r stat </proc/{pid}/stat; }} 2>/dev/null || exit 0
# Behind the program's name: field 3 (the state, Z for one that ended) to field 22 (the start time).
set -- ${{stat##*) }}
[ "$1" != Z ] && [ "${{20}}" = {start} ] || exit 0
exit 101
"#
    )
}

/// How long apt may hold its lock before we give up; an unattended upgrade takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long one apt run may take.
const APT: Duration = Duration::from_secs(1800);

const LOCKS: [&str; 3] = ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock"];

/// Waits until nobody holds a lock of apt or dpkg.
///
/// # Errors
/// Still held after ten minutes, or interrupted.
pub fn await_lock(host: &Host, tell: Listener<'_>) -> Result<()> {
    let Some(who) = lock_holder(host) else { return Ok(()) };
    tell(Event::Waiting(&format!("waiting for apt: {who} holds its lock")));
    match host.poll(PATIENCE, || Ok(lock_holder(host).is_none().then_some(())))? {
        Some(()) => Ok(()),
        None => bail!("{who} still holds apt's lock after {} minutes", PATIENCE.as_secs() / 60),
    }
}

/// Who holds a lock of apt or dpkg now: its program and pid.
pub fn lock_holder(host: &Host) -> Option<String> {
    let pid = LOCKS.iter().find_map(|lock| host.lock_holder(Path::new(lock)))?;
    let name = host.text(Path::new(&format!("/proc/{pid}/comm"))).ok().flatten().unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

/// Installs the engine's package; asks for a new index only if the one at hand does not serve.
pub fn install(host: &Host, engine: Engine, repair: bool, mark: &str, tell: Listener<'_>) -> Result<()> {
    if repair {
        // What another package is missing for, apt can tell better.
        let _ = configure_rest(host);
    }
    let install = || apt(host, &["-o", mark, "--no-install-recommends", "install", engine.package()]);
    let mut done = install()?;
    if !done.ok() && done.stderr.contains("dpkg --configure -a") {
        // An apt run was killed half-way, perhaps along with a run of ours.
        configure_rest(host)?;
        done = install()?;
    }
    if !done.ok() && done.stderr.contains("--fix-broken install") {
        // Nothing that is there may go for it.
        apt(host, &["-o", mark, "--fix-broken", "--no-remove", "install"])?;
        done = install()?;
    }
    if done.ok() && repair && !is_whole(host, engine)? {
        // Half unpacked: to apt it is there, and nothing to do.
        done = apt(host, &["-o", mark, "--reinstall", "--no-remove", "install", engine.package()])?;
    }
    if done.ok() && (!repair || is_whole(host, engine)?) {
        return Ok(());
    }
    if !is_stale(&done) {
        let what = format!("apt-get install {}: {}", engine.package(), last_lines(&done));
        return Err(Fault::new(Code::Failed, what)
            .hint(format!(
                "let apt finish what was interrupted, and see what it says:\ndpkg --configure -a\napt-get --fix-broken install\napt-get install {}",
                engine.package()
            ))
            .into());
    }
    tell(Event::Waiting("apt's index does not serve: apt-get update"));
    // apt-get update exits 0 even when nothing could be fetched; the install tells.
    let update = apt(host, &["update"])?;
    let done = install()?;
    if !done.ok() {
        let why = if update.stderr.trim().is_empty() { last_lines(&done) } else { last_lines(&update) };
        bail!("apt-get install {} (after apt-get update): {why}", engine.package());
    }
    Ok(())
}

/// Whether dpkg has nothing left to do for the engine's package.
fn is_whole(host: &Host, engine: Engine) -> Result<bool> {
    let status = dpkg::status(host)?.unwrap_or_default();
    Ok(dpkg::package(&status, engine.package()).is_some_and(|package| package.installed()))
}

/// Whether apt failed for want of a new index.
pub(super) fn is_stale(done: &Done) -> bool {
    let said = format!("{}{}", done.stdout, done.stderr);
    let signs = [
        "Unable to locate package",
        "has no installation candidate",
        "404 ",
        "Failed to fetch",
        "Unable to fetch",
    ];
    signs.iter().any(|sign| said.contains(sign))
}

/// Lets dpkg finish what was interrupted.
fn configure_rest(host: &Host) -> Result<()> {
    let done = host.run(quiet(Child::new("dpkg").args(["--configure", "-a", "--force-confold"])))?;
    if !done.ok() {
        bail!("dpkg --configure -a: {}", last_lines(&done));
    }
    Ok(())
}

/// What becomes of a package's configuration, directories and user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They go.
    Purge,
    /// They stay.
    Keep,
}

/// Takes away those of the packages that nothing else needs. By dpkg, which refuses to take a package
/// from under another; apt would take the other along.
pub fn remove(host: &Host, removal: Removal, packages: &[String], tell: Listener<'_>) -> Result<()> {
    await_lock(host, tell)?;
    let status = || dpkg::status(host).map(Option::unwrap_or_default);
    let before = status()?;
    let there: Vec<&String> = packages.iter().filter(|name| is_there(&before, name, removal)).collect();
    if there.is_empty() {
        return Ok(());
    }
    let verb = if removal == Removal::Purge { "--purge" } else { "--remove" };
    let done = host.run(quiet(Child::new("dpkg").arg(verb).args(there.iter().copied())))?;
    let after = status()?;
    let stuck = |name: &&&String| {
        is_there(&after, name, removal) && !done.stderr.contains(&format!("prevent removal of {name}"))
    };
    if let Some(stuck) = there.iter().find(stuck) {
        bail!("dpkg {verb} {stuck}: {}", last_lines(&done));
    }
    Ok(())
}

fn is_there(status: &str, name: &str, removal: Removal) -> bool {
    let rest = |status: &str| status == "config-files" && removal == Removal::Keep;
    dpkg::package(status, name)
        .is_some_and(|package| package.status != "not-installed" && !rest(&package.status))
}

/// The packages that the apt run with this mark on its command line installed, by apt's own record.
pub fn installed_by(host: &Host, mark: &str) -> Result<Vec<String>> {
    let history = host.lossy(Path::new("/var/log/apt/history.log"))?.unwrap_or_default();
    Ok(installed_in(&history, mark))
}

/// Reads apt's history: `Install: redis-server:amd64 (5:7.0.15), redis-tools:amd64 (…, automatic)`.
fn installed_in(history: &str, mark: &str) -> Vec<String> {
    let marked =
        |entry: &&str| entry.lines().any(|line| line.starts_with("Commandline:") && line.contains(mark));
    let installs = history
        .split("\n\n")
        .filter(marked)
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("Install: "));
    installs
        .flat_map(|line| line.split("), "))
        .filter_map(|item| item.split([':', ' ']).next())
        .map(str::to_owned)
        .collect()
}

fn apt(host: &Host, args: &[&str]) -> Result<Done> {
    let options = [
        "-y",
        "-q",
        "-o",
        "Dpkg::Use-Pty=0",
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "Dpkg::Options::=--force-confold",
    ];
    let child = Child::new("apt-get").args(options).args(args.iter().copied());
    host.run(quiet(child).env(OURS, host.birth()?))
}

fn quiet(child: Child) -> Child {
    child.env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_SUSPEND", "1").deadline(APT)
}

/// What a run of apt or dpkg says is wrong.
pub(super) fn last_lines(done: &Done) -> String {
    let tail = done.tail();
    let errors: Vec<&str> = tail.lines().filter(|line| line.starts_with("E: ")).collect();
    if errors.is_empty() { tail } else { errors.join(" / ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_forbids_for_as_long_as_its_run_lives() {
        let host = Host::real();
        let policy_of = |birth: &str| {
            let child = Child::new("sh").stdin(policy(birth));
            host.run(child).unwrap().code
        };
        let own = host.birth().unwrap();
        assert!(is_policy(&policy(&own)));
        assert_eq!(policy_of(&own), Some(101));
        // The number is another process's now, or nobody's.
        assert_eq!(policy_of(&format!("{} 1", std::process::id())), Some(0));
        assert_eq!(policy_of("4194999 1"), Some(0));
        let outlived = Child::new("sh").stdin(policy("4194999 1")).env(OURS, "4194999 1");
        assert_eq!(host.run(outlived).unwrap().code, Some(101));
    }

    #[test]
    fn apts_history_tells_what_came_with_us() {
        let history = "\nStart-Date: 1\nCommandline: apt-get -o RedisTp::Run=1-ab install redis-server\nInstall: liblzf1:amd64 (3.6-3, automatic), redis-server:amd64 (5:7.0.15-1), redis-tools:amd64 (5:7.0.15-1, automatic)\nEnd-Date: 2\n\nStart-Date: 3\nCommandline: apt-get install vim\nInstall: vim:amd64 (9)\nEnd-Date: 4\n";
        assert_eq!(installed_in(history, "RedisTp::Run=1-ab"), ["liblzf1", "redis-server", "redis-tools"]);
        assert!(installed_in(history, "RedisTp::Run=2").is_empty());
    }
}
