//! Looks at what is around the servers: packages, processes, files and the kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::files::{OF_HOME, PUBLIC, PUBLIC_DIRECTORIES};
use super::firewall::Rules;
use super::seen::{Package, Seen};
use crate::check::Subject;
use crate::engine::{Engine, Version};
use crate::host::{Child, Host, Kind, Stat};
use crate::kernel::{self, Setting};
use crate::layout;
use crate::runtime::systemd;
use crate::secret::Secret;
use crate::secrets;
use crate::software;

/// Miners that came in through Redis, as their processes are called.
const MINERS: [&str; 8] =
    ["kdevtmpfsi", "kinsing", "xmrig", "minerd", "watchbog", "pnscan", "zzh", "networkservics"];
/// How much of a file is looked through for a password, in bytes.
const SCANNED: u64 = 1 << 20;
/// Where an attacker lets a server write its RDB.
const PLANTABLE: [&str; 6] = [
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/etc/cron.d",
    "/root/.ssh",
    "/var/lib/redis/.ssh",
    "/var/lib/valkey/.ssh",
];

pub(super) fn shell(host: &Host, user: &str) -> Result<Option<String>> {
    let text = host.lossy(Path::new("/etc/passwd"))?.unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').next() == Some(user));
    Ok(line.and_then(|line| line.rsplit(':').next()).map(str::to_owned))
}

/// What apt would install in the place of the server's package.
pub(super) fn package(host: &Host, engine: Engine, subject: &Subject<'_>, seen: &mut Seen) -> Result<()> {
    let installed = subject.facts.package.as_ref().filter(|package| package.installed());
    let Some(installed) = installed.map(|package| package.version.clone()) else { return Ok(()) };
    let Some(cache) = host.which("apt-cache") else {
        seen.missing.insert("package", "there is no apt-cache to ask".into());
        return Ok(());
    };
    let done = host.run(Child::new(cache).args(["policy", engine.package()]))?;
    let Some((candidate, security)) = policy(&done.stdout) else {
        seen.missing.insert("package", format!("apt knows no version of {}", engine.package()));
        return Ok(());
    };
    let older = candidate != installed && {
        let dpkg = Child::new("/usr/bin/dpkg");
        host.run(dpkg.args(["--compare-versions", &installed, "lt", &candidate]))?.ok()
    };
    let lists = Path::new("/var/lib/apt/lists");
    let fresh = [lists.to_path_buf(), lists.join("partial")]
        .iter()
        .filter_map(|path| host.modified(path))
        .max()
        .unwrap_or_default();
    let days = host.unix_time().saturating_sub(fresh) / 86_400;
    seen.package =
        Some(Package { name: engine.package().into(), installed, candidate, security, older, days });
    Ok(())
}

/// The candidate of `apt-cache policy`, and whether a security suite has it.
fn policy(text: &str) -> Option<(String, bool)> {
    let field = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let candidate = field("Candidate:").filter(|version| *version != "(none)")?;
    let mut within = false;
    let mut security = false;
    for line in text.lines() {
        let bare = line.trim_start_matches([' ', '*']);
        // A version has five blanks or ` *** ` before it, its sources eight.
        if line.starts_with("     ") && !line.starts_with("      ") || line.starts_with(" *** ") {
            within = bare.split(' ').next() == Some(candidate);
        } else if within {
            security |= bare.contains("-security/") || bare.contains("/updates/");
        }
    }
    Some((candidate.to_owned(), security))
}

/// apt's sources: one-line and deb822.
pub(super) fn sources(host: &Host) -> Result<Option<Vec<(PathBuf, String)>>> {
    if host.which("apt-get").is_none() {
        return Ok(None);
    }
    let parts = Path::new("/etc/apt/sources.list.d");
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(
        host.list(parts)?
            .into_iter()
            .filter(|name| name.ends_with(".list") || name.ends_with(".sources"))
            .map(|name| parts.join(name)),
    );
    let text = |path: PathBuf| Some((path.clone(), host.lossy(&path).ok()??));
    Ok(Some(files.into_iter().filter_map(text).collect()))
}

/// What drops packets on their way in: nft knows also what iptables(8) of Debian made.
pub(super) fn firewall(host: &Host, seen: &mut Seen) {
    let ask = |program: &str, args: &[&str]| {
        let program = host.which(program)?;
        let done = host.run(Child::new(program).args(args.iter().copied())).ok()?;
        done.ok().then_some(done.stdout)
    };
    seen.firewall = ask("nft", &["list", "ruleset"])
        .map(|rules| Rules::of_nft(&rules))
        .or_else(|| ask("iptables", &["-S"]).map(|rules| Rules::of_iptables(&rules)));
    if seen.firewall.is_none() {
        seen.missing.insert("firewall", "neither nft nor iptables is here, or they may not be asked".into());
    }
}

/// What other processes have in their arguments and environments, and what they are called.
pub(super) fn processes(host: &Host, password: Option<&Secret>, seen: &mut Seen) -> Result<()> {
    let secrets = known(host, password, seen)?;
    let own = std::process::id();
    for pid in host.list(Path::new("/proc"))?.iter().filter_map(|name| name.parse::<u32>().ok()) {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        // One of the kernel's has no arguments; one that is gone has nothing.
        let Some(program) = host.lossy(&proc.join("comm")).ok().flatten() else { continue };
        let program = program.trim().to_owned();
        if MINERS.contains(&program.as_str()) {
            seen.miners.push((pid, program.clone()));
        }
        if pid == own {
            continue;
        }
        let args = host.lossy(&proc.join("cmdline")).ok().flatten().unwrap_or_default();
        if args.split('\0').any(|arg| secrets.iter().any(|secret| gives_away(arg, secret))) {
            seen.argv.push((pid, program.clone()));
        }
        match host.lossy(&proc.join("environ")) {
            Ok(Some(environ)) => {
                let value = |pair: &str| pair.split_once('=').map(|(_, value)| value.to_owned());
                if environ
                    .split('\0')
                    .filter_map(value)
                    .any(|value| secrets.iter().any(|secret| gives_away(&value, secret)))
                {
                    seen.environ.push((pid, program));
                }
            }
            Ok(None) => {}
            // For root it is one that ended a moment ago.
            Err(_) => seen.blind |= host.euid() != 0,
        }
    }
    seen.readable = readable(host, &secrets)?;
    Ok(())
}

/// Whether an argument is a secret, or has it in a place where programs take one.
fn gives_away(text: &str, secret: &Secret) -> bool {
    let secret = secret.expose();
    text == secret
        || text.strip_prefix("-a").is_some_and(|rest| rest == secret)
        || text.rsplit_once('=').is_some_and(|(_, value)| value == secret)
        || text.contains(&format!(":{secret}@"))
        || text.split_whitespace().any(|word| word == secret)
}

/// The passwords that are known here.
fn known(host: &Host, password: Option<&Secret>, seen: &Seen) -> Result<Vec<Secret>> {
    let mut all: Vec<Secret> = password.cloned().into_iter().collect();
    for server in &seen.servers {
        all.extend(server.password.clone());
        all.extend(["requirepass", "masterauth"].iter().filter_map(|name| server.conf.password(name)));
    }
    for name in host.list(secrets::dir()).unwrap_or_default() {
        if let Ok(Some(text)) = host.text(&secrets::dir().join(&name))
            && name.contains("password")
            && let Ok(secret) = Secret::parse(&text)
        {
            all.push(secret);
        }
    }
    all.retain(|secret| !secret.expose().is_empty());
    all.sort_by(|a, b| a.expose().cmp(b.expose()));
    all.dedup_by(|a, b| a.expose() == b.expose());
    Ok(all)
}

/// The files that everybody can read, and that have a password in them.
fn readable(host: &Host, secrets: &[Secret]) -> Result<Vec<(PathBuf, Stat)>> {
    let mut found = Vec::new();
    for path in public_files(host)? {
        let Some(stat) = host.stat(&path).ok().flatten() else { continue };
        if stat.kind != Kind::File || stat.mode & 0o004 == 0 || !reachable(host, &path) {
            continue;
        }
        // By now it may be a fifo that nobody writes to; and a log may have no end.
        let bytes = host.beginning(&path, SCANNED).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let words = |line: &str| {
            line.split(|c: char| c.is_whitespace() || "\"'=".contains(c))
                .any(|word| secrets.iter().any(|secret| gives_away(word, secret)))
        };
        if text.lines().any(words) {
            found.push((path, stat));
        }
    }
    Ok(found)
}

/// The files in places where passwords are left lying.
fn public_files(host: &Host) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = PUBLIC.iter().map(PathBuf::from).collect();
    let mut homes = vec![PathBuf::from("/root")];
    homes.extend(host.list(Path::new("/home"))?.into_iter().map(|name| Path::new("/home").join(name)));
    for home in homes {
        files.extend(OF_HOME.iter().map(|name| home.join(name)));
    }
    for directory in PUBLIC_DIRECTORIES.iter().map(Path::new) {
        for name in host.list(directory).unwrap_or_default() {
            let path = directory.join(name);
            match host.stat(&path).ok().flatten().map(|stat| stat.kind) {
                Some(Kind::Dir) => {
                    let within = host.list(&path).unwrap_or_default().into_iter();
                    files.extend(within.map(|name| path.join(name)));
                }
                Some(Kind::File) => files.push(path),
                _ => {}
            }
        }
    }
    Ok(files)
}

/// Whether everybody may enter all directories above a path.
pub(super) fn reachable(host: &Host, path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .all(|above| host.stat(above).ok().flatten().is_none_or(|stat| stat.mode & 0o001 != 0))
}

pub(super) fn of_directory(host: &Host, directory: &Path) -> Result<Vec<(PathBuf, Stat)>> {
    let mut all = Vec::new();
    for name in host.list(directory).unwrap_or_default() {
        let path = directory.join(name);
        if let Some(stat) = host.stat(&path)? {
            all.push((path, stat));
        }
    }
    Ok(all)
}

/// Files that cron or ssh would read, and that begin as an RDB does: a server was made to write them.
pub(super) fn planted(host: &Host) -> Result<Vec<PathBuf>> {
    let mut files = vec![PathBuf::from("/etc/crontab")];
    for directory in PLANTABLE.iter().map(Path::new) {
        files.extend(host.list(directory).unwrap_or_default().into_iter().map(|name| directory.join(name)));
    }
    for home in host.list(Path::new("/home"))? {
        files.push(Path::new("/home").join(home).join(".ssh/authorized_keys"));
    }
    let begins = |path: &PathBuf| {
        let head = host.beginning(path, 9).ok().flatten().unwrap_or_default();
        head.starts_with(b"REDIS") || head.starts_with(b"VALKEY")
    };
    Ok(files.into_iter().filter(begins).collect())
}

/// Has the server look at the machine itself, from 7.0 on. It touches nothing.
pub(super) fn check_system(host: &Host, subject: &Subject<'_>, seen: &mut Seen) {
    let knows = |version| seen.engine == Engine::Valkey || version >= Version::new(7, 0);
    let Some(server) = subject.facts.server.as_ref().filter(|server| knows(server.version)) else { return };
    let tool =
        software::find(host, seen.engine, seen.engine.server()).filter(|tool| tool.path == server.path);
    let Some(tool) = tool else { return };
    let done = host.run(tool.child().arg("--check-system"));
    let said = done.map(|done| said(&done.stdout)).unwrap_or_default();
    match said.is_empty() {
        true => drop(seen.missing.insert("check-system", "redis-server --check-system says nothing".into())),
        false => seen.check_system = Some(said),
    }
}

/// The results of `--check-system`, each with its reason behind it: `[overcommit]...WARNING:` and a line.
fn said(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, result)) = line.strip_prefix('[').and_then(|line| line.split_once("]...")) else {
            continue;
        };
        let mut result = result.trim_end_matches(':').to_owned();
        while let Some(more) = lines.next_if(|line| !line.starts_with('[')) {
            result = format!("{result} {more}");
        }
        all.insert(name.to_owned(), result.trim_end().to_owned());
    }
    all
}

pub(super) fn kernel(host: &Host, seen: &mut Seen) {
    // A container has the kernel of a machine that is not ours to change.
    let marks = ["/run/systemd/container", "/.dockerenv", "/run/.containerenv"];
    let environ = host.lossy(Path::new("/proc/1/environ")).ok().flatten().map(Secret::new);
    let contained = marks.iter().any(|mark| !matches!(host.stat(Path::new(mark)), Ok(None)))
        || environ.as_ref().is_none_or(kernel::of_container);
    let ours = layout::here().login.is_none() && host.euid() == 0 && !contained;
    let systemd = systemd::runs(host).unwrap_or(false);
    for setting in Setting::ALL {
        if let Some(value) = host.text(setting.path()).ok().flatten() {
            seen.kernel.insert(setting, value.trim().to_owned());
        }
        let starts = systemd || (setting != Setting::HugePages && host.which("sysctl").is_some());
        let file = setting.file();
        let there = file.parent().is_some_and(|at| matches!(host.stat(at), Ok(Some(_))));
        if ours && starts && there && !host.is_immutable(setting.path()) {
            seen.settable.insert(setting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_and_its_suite_are_read() {
        let text = "redis-server:\n  Installed: 5:7.0.15-1~deb12u6\n  Candidate: 5:7.0.15-1~deb12u7\n  Version table:\n     5:7.0.15-1~deb12u7 500\n        500 http://deb bookworm-security/main amd64 Packages\n *** 5:7.0.15-1~deb12u6 500\n        500 http://deb bookworm/main amd64 Packages\n        100 /var/lib/dpkg/status\n";
        assert_eq!(policy(text), Some(("5:7.0.15-1~deb12u7".into(), true)));
        let text = text.replace("bookworm-security/main", "bookworm/main");
        assert_eq!(policy(&text), Some(("5:7.0.15-1~deb12u7".into(), false)));
        assert_eq!(policy("x:\n  Installed: 1\n  Candidate: (none)\n"), None);
    }

    #[test]
    fn what_the_server_says_of_the_machine_is_read() {
        let text = "[slow-clocksource]...OK\n[overcommit]...WARNING:\nMemory overcommit [must] be\nenabled!\n[THP]...OK\n";
        let said = said(text);
        assert_eq!(said["overcommit"], "WARNING Memory overcommit [must] be enabled!");
        assert_eq!((said.len(), said["THP"].as_str()), (3, "OK"));
    }

    #[test]
    fn a_secret_is_found_where_programs_take_one() {
        let secret = Secret::new("s3cret");
        for text in ["s3cret", "-as3cret", "--pass=s3cret", "redis://:s3cret@h:1", "redis://app:s3cret@h"] {
            assert!(gives_away(text, &secret), "{text}");
        }
        for text in ["", "s3crets", "no-s3cret", "/etc/s3cret"] {
            assert!(!gives_away(text, &secret), "{text}");
        }
    }
}
