//! Looks at what is around the servers: packages, processes, files and the kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::apt;
use super::files::{OF_HOME, PUBLIC, PUBLIC_DIRECTORIES};
use super::firewall::Rules;
use super::seen::{Package, Seen};
use super::sought::Sought;
use crate::check::Subject;
use crate::engine::{Engine, Version};
use crate::facts::Process;
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
/// The check of `--check-system` that measures, and how often it may be measured again.
const CLOCK: &str = "slow-clocksource";
const AGAIN: u32 = 2;
/// How much of a file is looked through for a password, in bytes.
const SCANNED: u64 = 64 << 20;
/// How much of all of them, and for how much one of them counts at least.
const MOST: u64 = 512 << 20;
const LEAST: u64 = 16 << 10;
/// Where a file that is no text shows that it is none, as grep(1) looks for it, in bytes.
const HEAD: usize = 4096;
/// Where programs of one's own have their settings.
const OF_PROGRAMS: [&str; 2] = ["/var/www", "/opt"];
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

/// What apt would install in the place of the server's package; none where that is not installed.
///
/// # Errors
/// Why that cannot be told.
pub(super) fn package(host: &Host, engine: Engine, subject: &Subject<'_>) -> Result<Option<Package>, String> {
    let installed = subject.facts.package.as_ref().filter(|package| package.installed());
    let Some(installed) = installed.map(|package| package.version.clone()) else { return Ok(None) };
    let cache = host.which("apt-cache").ok_or("there is no apt-cache to ask")?;
    let failed = |error: anyhow::Error| format!("apt-cache cannot be asked: {error:#}");
    let done = host.run(Child::new(cache).args(["policy", engine.package()])).map_err(failed)?;
    let (candidate, security) =
        policy(&done.stdout).ok_or_else(|| format!("apt knows no version of {}", engine.package()))?;
    let older = candidate != installed && {
        let dpkg = Child::new("/usr/bin/dpkg").args(["--compare-versions", &installed, "lt", &candidate]);
        host.run(dpkg).map_err(|error| format!("dpkg cannot be asked: {error:#}"))?.ok()
    };
    let lists = Path::new("/var/lib/apt/lists");
    let fresh = [lists.to_path_buf(), lists.join("partial")]
        .iter()
        .filter_map(|path| host.modified(path))
        .max()
        .unwrap_or_default();
    let days = host.unix_time().saturating_sub(fresh) / 86_400;
    Ok(Some(Package { name: engine.package().into(), installed, candidate, security, older, days }))
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

/// The name of Debian's release.
pub(super) fn release(host: &Host) -> Option<String> {
    let files = ["/etc/os-release", "/usr/lib/os-release"];
    files.iter().find_map(|file| apt::release(&host.lossy(Path::new(file)).ok()??))
}

/// What drops packets on their way in: nft knows also what iptables(8) of Debian made.
pub(super) fn firewall(host: &Host) -> Option<Rules> {
    let ask = |program: &str, args: &[&str]| {
        let program = host.which(program)?;
        let done = host.run(Child::new(program).args(args.iter().copied())).ok()?;
        done.ok().then_some(done.stdout)
    };
    ask("nft", &["list", "ruleset"]).map(|rules| Rules::of_nft(&rules)).or_else(|| {
        let v6 = ask("ip6tables", &["-S"]);
        ask("iptables", &["-S"]).map(|v4| Rules::of_iptables(&v4, v6.as_deref()))
    })
}

/// What other processes have in their arguments and environments, and what they are called.
pub(super) fn processes(
    host: &Host,
    password: Option<&Secret>,
    all: &[Process],
    seen: &mut Seen,
) -> Result<()> {
    let secrets = known(host, password, seen);
    let own = std::process::id();
    for Process { pid, program, .. } in all {
        let (pid, program) = (*pid, program.clone());
        let proc = PathBuf::from(format!("/proc/{pid}"));
        if MINERS.contains(&program.as_str()) {
            seen.miners.push((pid, program.clone()));
        }
        if pid == own {
            continue;
        }
        let args = host.lossy(&proc.join("cmdline")).ok().flatten().unwrap_or_default();
        let args = args.replace('\0', "\n");
        if secrets.iter().any(|secret| secret.is_in(&args)) {
            seen.argv.push((pid, program.clone()));
        }
        // It takes its password from there, and nobody else can look.
        if [Engine::Redis.cli(), Engine::Valkey.cli()].contains(&program.as_str()) {
            continue;
        }
        match host.lossy(&proc.join("environ")) {
            Ok(Some(environ)) => {
                let environ = environ.replace('\0', "\n");
                if secrets.iter().any(|secret| secret.is_in(&environ)) {
                    seen.environ.push((pid, program));
                }
            }
            Ok(None) => {}
            // For root it is one that ended a moment ago.
            Err(_) => seen.blind |= host.euid() != 0,
        }
    }
    readable(host, &secrets, seen)
}

/// The passwords that are known here.
fn known(host: &Host, password: Option<&Secret>, seen: &Seen) -> Vec<Sought> {
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
    all.into_iter().map(Sought::new).collect()
}

/// The files that everybody can read, and that have a password in them; and the first that was not looked into.
fn readable(host: &Host, secrets: &[Sought], seen: &mut Seen) -> Result<()> {
    let mut left = MOST;
    for path in public_files(host)? {
        let Some(stat) = host.stat(&path).ok().flatten() else { continue };
        if stat.kind != Kind::File || stat.mode & 0o004 == 0 || !reachable(host, &path) {
            continue;
        }
        let (mut found, mut binary, mut first) = (false, false, true);
        let looked = host.pieces(&path, SCANNED.min(left), |piece| {
            let text = String::from_utf8_lossy(piece);
            found = secrets.iter().any(|secret| secret.is_in(&text));
            // In a program or an archive nobody leaves a password lying, and it may be long.
            binary |= first && piece.iter().take(HEAD).any(|byte| *byte == 0);
            first = false;
            found || binary
        });
        let Ok(passed) = looked else { continue };
        // Whoever fills /tmp does not hold us up for ever.
        left = left.saturating_sub(LEAST.max(passed.bytes));
        if left == 0 && !found {
            seen.unread = Some(path);
            break;
        }
        if found {
            seen.readable.push((path, stat));
        } else if passed.cut && !binary {
            seen.cut.get_or_insert(path);
        }
    }
    Ok(())
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
        below(host, directory, 1, &mut files);
    }
    for directory in OF_PROGRAMS.iter().map(Path::new) {
        below(host, directory, 2, &mut files);
    }
    Ok(files)
}

/// The files of a directory, and of the directories in it so many deep.
fn below(host: &Host, directory: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for name in host.list(directory).unwrap_or_default() {
        let path = directory.join(name);
        match host.stat(&path).ok().flatten().map(|stat| stat.kind) {
            Some(Kind::Dir) if depth > 0 => below(host, &path, depth - 1, files),
            Some(Kind::File) => files.push(path),
            _ => {}
        }
    }
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

/// Has the server look at the machine itself, which touches nothing; none before 7.0.
///
/// # Errors
/// It says nothing.
pub(super) fn check_system(
    host: &Host,
    engine: Engine,
    subject: &Subject<'_>,
) -> Result<Option<BTreeMap<String, String>>, String> {
    let knows = |version| engine == Engine::Valkey || version >= Version::new(7, 0);
    let Some(server) = subject.facts.server.as_ref().filter(|server| knows(server.version)) else {
        return Ok(None);
    };
    let tool = software::find(host, engine, engine.server()).filter(|tool| tool.path == server.path);
    let Some(tool) = tool else { return Ok(None) };
    let ask = || host.run(tool.child().arg("--check-system")).map(|done| said(&done.stdout));
    let mut all = ask().unwrap_or_default();
    // It measures the clock, and a busy machine is no slow one.
    for _ in 0..AGAIN {
        if all.get(CLOCK).is_some_and(|result| result != "OK") {
            all = ask().unwrap_or_default();
        }
    }
    match all.is_empty() {
        true => Err(format!("{} --check-system says nothing", engine.server())),
        false => Ok(Some(all)),
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
    seen.contained = contained;
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
}
