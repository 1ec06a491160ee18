//! Packages without root: apt finds and fetches them, dpkg-deb unpacks them into a directory of the user's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::package::{is_stale, last_lines};
use super::{Event, Listener};
use crate::engine::{Engine, Version};
use crate::host::{Child, Done, Host};
use crate::layout;
use crate::software;

/// How long one apt run may take.
const APT: Duration = Duration::from_secs(1800);

/// The variables by which a user tells programs how the network is reached.
const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

/// A directory of packages in the making.
struct Work<'a> {
    host: &'a Host,
    dir: PathBuf,
    /// apt's index is one of our own.
    own_index: bool,
}

/// Fetches the engine's package and what it needs into `work`, and unpacks all of it. Tells where it is,
/// and every package with its version.
///
/// # Errors
/// apt knows no such package, cannot be reached, or what it brought does not run.
pub fn fetch(
    host: &Host,
    engine: Engine,
    work: &Path,
    tell: Listener<'_>,
) -> Result<(PathBuf, BTreeMap<String, String>)> {
    let mut work = Work { host, dir: work.to_path_buf(), own_index: false };
    for below in
        ["cache", "cache/archives", "cache/archives/partial", "lists", "lists/partial", "debs", "root"]
    {
        host.directory(&work.dir.join(below), layout::here().own(), 0o700)?;
    }
    let packages = match work.closure_on_disk(engine)? {
        Ok(packages) => packages,
        Err(done) if !is_stale(&done) => bail!("apt-get install {}: {}", engine.package(), last_lines(&done)),
        Err(_) => {
            tell(Event::Waiting("apt's index does not serve: apt-get update, into a directory of ours"));
            work.own_index = true;
            // It ends with 0 even when nothing could be fetched; what follows tells.
            let update = work.apt(&["update"])?;
            match work.closure_on_disk(engine)? {
                Ok(packages) => packages,
                Err(done) => {
                    let silent = update.stderr.trim().is_empty();
                    let why = last_lines(if silent { &done } else { &update });
                    bail!("apt-get download {} (after apt-get update): {why}", engine.package())
                }
            }
        }
    };
    let root = work.unpack()?;
    Ok((root, packages))
}

/// Makes sure that what was unpacked runs here.
///
/// # Errors
/// It does not, with what it said.
pub fn try_out(host: &Host, engine: Engine) -> Result<()> {
    let tool = software::find(host, engine, engine.server())
        .with_context(|| format!("{} is in none of the packages", engine.server()))?;
    let done = host.run(tool.child().arg("--version"))?;
    match Version::of_banner(&done.stdout) {
        Some(_) => Ok(()),
        None => bail!("{} does not run here: {}", tool.path.display(), done.tail()),
    }
}

impl Work<'_> {
    /// Fetches the package and what of its needs is not installed; or tells how apt failed.
    fn closure_on_disk(&self, engine: Engine) -> Result<Result<BTreeMap<String, String>, Done>> {
        // Also what of the two is installed already: the one is nothing without the other beside it.
        let both = [engine.package(), engine.tools_package()];
        let list =
            [["install", "--reinstall", "--print-uris", "-qq", "--no-install-recommends"].as_slice(), &both];
        let listed = self.apt(&list.concat())?;
        if !listed.ok() {
            return Ok(Err(listed));
        }
        let packages: BTreeMap<String, String> = listed.stdout.lines().filter_map(package_of).collect();
        let words: Vec<String> = packages.iter().map(|(name, version)| format!("{name}={version}")).collect();
        let mut args = vec!["download"];
        args.extend(words.iter().map(String::as_str));
        let done = self.apt(&args)?;
        Ok(if done.ok() { Ok(packages) } else { Err(done) })
    }

    /// apt without root: no lock of the system's, no cache of the system's.
    fn apt(&self, args: &[&str]) -> Result<Done> {
        let mut options = vec!["-y".into(), "-o".into(), "Debug::NoLocking=1".into()];
        let mut option = |name: &str, dir: &str| {
            options.extend(["-o".into(), format!("{name}={}", self.dir.join(dir).display())]);
        };
        option("Dir::Cache", "cache");
        if self.own_index {
            option("Dir::State::lists", "lists");
        }
        let mut child = Child::new("apt-get").args(options).args(args.iter().copied());
        for name in PROXIES {
            if let Some(value) = self.host.env(name) {
                child = child.env(name, value);
            }
        }
        // One that outlived us would write into what the next run takes away.
        self.host.run(child.dir(self.dir.join("debs")).dies_with_us().deadline(APT))
    }

    fn unpack(&self) -> Result<PathBuf> {
        let (debs, root) = (self.dir.join("debs"), self.dir.join("root"));
        for name in self.host.list(&debs)? {
            let child = Child::new("dpkg-deb").arg("-x").args([debs.join(&name), root.clone()]);
            let done = self.host.run(child.dies_with_us())?;
            if !done.ok() {
                bail!("dpkg-deb -x {name}: {}", done.tail());
            }
        }
        Ok(root)
    }
}

/// Reads a line of `--print-uris`: `'http://…' redis-server_5%3a7.0.15-1_amd64.deb 73904 SHA256:…`.
fn package_of(line: &str) -> Option<(String, String)> {
    let mut parts = line.split_whitespace().nth(1)?.strip_suffix(".deb")?.split('_');
    let (name, version) = (parts.next()?, parts.next()?);
    Some((name.to_owned(), version.replace("%3a", ":")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_list_names_packages_and_versions() {
        let line = "'file:/srv/repo/./redis-server_5%3a7.0.15-1%7edeb12u10_amd64.deb' redis-server_5%3a7.0.15-1~deb12u10_amd64.deb 73904 SHA256:0";
        let package = ("redis-server".to_owned(), "5:7.0.15-1~deb12u10".to_owned());
        assert_eq!(package_of(line), Some(package));
        assert_eq!(package_of("Reading package lists..."), None);
    }
}
