//! Taking a backup: an RDB, over the wire from a server that runs or as a copy from the directory of one that
//! does not; checked before it has its name. And the way back: a backup in the place of the data.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Run, ids, live, sync};
use crate::engine::Engine;
use crate::exit::{Code, Fault};
use crate::facts::parse;
use crate::host::{Child, Host, Ids, Kind, Staged};
use crate::instance::Target;
use crate::journal::Undo;
use crate::layout;
use crate::prove;
use crate::software;
use crate::step::{Owner, Place, Source};

/// How long a check of a file may take.
const CHECK: Duration = Duration::from_secs(3600);
/// Who looks at a file where the engine has no user of its own.
const NOBODY: &str = "nobody";
/// What a child reads on its standard input, opened anew.
const STDIN: &str = "/proc/self/fd/0";

impl Run<'_> {
    /// Takes a backup; nothing that fails leaves half of one.
    pub(super) fn backup(&mut self, target: &Target, source: &Source, path: &Path) -> Result<()> {
        let taken = self.take_backup(target, source, path);
        match taken {
            Err(_) if self.host.interrupted() => bail!("interrupted"),
            Err(error) => Err(self.no_backup(target, &error).into()),
            taken => taken,
        }
    }

    fn no_backup(&self, target: &Target, error: &anyhow::Error) -> Fault {
        let name = &target.name;
        let elsewhere = format!("redis-tp backup {name} --to DIRECTORY");
        let fault = Fault::new(Code::Failed, format!("no backup of {name} was taken: {error:#}"));
        fault.hint(match self.journal.command.as_str() {
            "backup" => format!("cure that, or take it in another place:\n{elsewhere}"),
            _ => format!(
                "cure that; or take it in another place, or let its data go without one:\n{elsewhere}\nthe same command with --no-backup"
            ),
        })
    }

    fn take_backup(&mut self, target: &Target, source: &Source, path: &Path) -> Result<()> {
        self.make_parent(path)?;
        self.announce(Undo::Staged { path: path.to_path_buf() })?;
        let mut staged = self.host.stage(path, layout::here().own(), 0o600)?;
        match source {
            Source::Server => self.ask_for_data(target, &mut staged)?,
            Source::File { path } => self.copy_own(target, path, &mut staged)?,
        }
        check(self.host, target, self.image_of(target).as_deref(), &staged)
            .with_context(|| format!("the backup of {} is not sound", target.name))?;
        staged.finish_new()
    }

    /// Copies a file of the server's: it has to be its user's, who may put anything in its place.
    fn copy_own(&self, target: &Target, from: &Path, into: &mut Staged) -> Result<()> {
        let user = layout::here().ids(self.host, target.engine.user())?.map(|ids| ids.uid);
        self.host.copy_into(from, user.filter(|_| self.host.euid() == 0), into).map(drop)
    }

    fn ask_for_data(&mut self, target: &Target, into: &mut Staged) -> Result<()> {
        let target = live::let_in(self.host, target);
        let mut told = sync::makes_a_file(self.host, &target);
        if told {
            let before = BTreeMap::from([(sync::DISKLESS.to_owned(), "no".to_owned())]);
            self.announce(Undo::Set { target: target.without_password(), before, secret: Vec::new() })?;
            // One that does not take it does as it does for replicas.
            told = sync::set_diskless(self.host, &target, true).is_ok();
        }
        let done = sync::write(self.host, &target, into);
        if told {
            sync::set_diskless(self.host, &target, false)?;
        }
        match done {
            Err(error) if sync::has_no_master(&error) && !target.runtime.is_container() => {
                let saved = sync::have_it_saved(self.host, &target)?;
                self.copy_own(&target, &saved, into)
            }
            done => done,
        }
    }

    /// Brings a backup beside the data, and has the server load it there.
    pub(super) fn bring(&mut self, target: &Target, file: &Path, place: &Path) -> Result<()> {
        let ids = ids(self.host, Owner::Server(target.engine))?;
        self.announce(Undo::Staged { path: place.to_path_buf() })?;
        let mut staged = self.host.stage(place, ids, 0o640)?;
        self.host.copy_into(file, None, &mut staged)?;
        let refused = |error: anyhow::Error| {
            Fault::refused(format!("{} is not restored: {error:#}", file.display()))
                .hint("nothing was changed; give another backup")
        };
        check(self.host, target, None, &staged).map_err(refused)?;
        self.brought = prove::loads(self.host, target, &staged.at()).map_err(refused)?;
        staged.keep()
    }

    /// What expires may be gone, and clients may have written more.
    pub(super) fn count(&mut self, target: &Target) -> Result<()> {
        let mut wire = target.connect(self.host)?;
        let (keys, brought) = (parse::keys(&wire.info("keyspace")?), self.brought);
        if keys + brought.expires < brought.keys {
            bail!("{} has {keys} keys, and the backup {}", target.name, brought.keys);
        }
        Ok(())
    }

    /// Puts what was brought in the place of the data.
    pub(super) fn replace(&mut self, target: &Target, places: &[Place]) -> Result<()> {
        let ids = ids(self.host, Owner::Server(target.engine))?;
        for place in places {
            let there = self.host.stat(&place.path)?.is_some();
            let aside = there.then(|| place.aside());
            self.announce(Undo::Replaced {
                target: target.without_password(),
                path: place.path.clone(),
                aside: aside.clone(),
            })?;
            if let Some(aside) = aside {
                self.host.rename(&place.path, &aside)?;
            }
            let staged = Host::staging(&place.path);
            match (&place.manifest, place.rdb) {
                (_, false) => {}
                (None, true) => self.host.rename(&staged, &place.path)?,
                (Some((name, text)), true) => {
                    self.host.directory(&place.path, ids, 0o750)?;
                    let base = name.with_extension("1.base.rdb");
                    self.host.rename(&staged, &place.path.join(base))?;
                    self.host.write(&place.path.join(name), text.as_bytes(), ids, 0o640)?;
                }
            }
        }
        Ok(())
    }

    /// The image that an instance runs in.
    fn image_of(&self, target: &Target) -> Option<String> {
        self.state.containers.get(&target.container()).map(|container| container.image.to_string())
    }
}

/// Puts former data back, or takes new ones away where there were none. What is back already stays.
pub fn put_back(host: &Host, path: &Path, aside: Option<&Path>) -> Result<()> {
    match aside {
        None => take_away(host, path),
        Some(aside) if host.stat(aside)?.is_some() => {
            take_away(host, path)?;
            host.rename(aside, path)
        }
        Some(_) => Ok(()),
    }
}

/// Takes a file or a directory of data away.
pub fn take_away(host: &Host, path: &Path) -> Result<()> {
    match host.stat(path)?.map(|stat| stat.kind) {
        Some(Kind::Dir) => host.remove_tree(path),
        _ => host.remove(path),
    }
}

/// Has an RDB checked by the engine's own program, which is nobody's but the server's user: whoever made the
/// data may have made them for it.
///
/// # Errors
/// It is not sound; or there is no program to say so.
fn check(host: &Host, target: &Target, image: Option<&str>, file: &Staged) -> Result<()> {
    let program = target.engine.check_rdb();
    let child = match (software::find(host, target.engine, program), target.runtime.program(), image) {
        (Some(tool), ..) => {
            let ids = reader(host, target.engine)?;
            tool.child().arg(STDIN).input(host.pour(file.again()?, ids)?).user(ids)
        }
        (None, Some(runner), Some(image)) => {
            let mount = format!("{}:/backup.rdb:ro", file.at().display());
            let closed = ["--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
            let child = Child::new(runner.name()).args(["run", "--rm", "--read-only", "--user", "0"]);
            child.args(closed).args(["--volume", &mount, "--entrypoint", program, image, "/backup.rdb"])
        }
        _ => bail!("{program} is not on this machine"),
    };
    sound(host, program, child).map(drop)
}

/// How many keys are in an RDB; none where there is no program to count them.
///
/// # Errors
/// It is not sound.
pub fn count(host: &Host, engine: Engine, file: &Path) -> Result<Option<u64>> {
    let program = engine.check_rdb();
    let Some(tool) = software::find(host, engine, program) else { return Ok(None) };
    let ids = reader(host, engine)?;
    let poured = host.pour(host.open(file)?, ids)?;
    sound(host, program, tool.child().arg(STDIN).input(poured).user(ids)).map(Some)
}

/// Runs the program that checks an RDB, and tells how many keys it read.
fn sound(host: &Host, program: &str, child: Child) -> Result<u64> {
    let mut said = Vec::new();
    let done = host.run_heard(child.dies_with_us().deadline(CHECK), &mut |line| said.push(line.to_owned()));
    if host.interrupted() {
        bail!("interrupted");
    }
    let done = done?;
    if !done.ok() {
        bail!("{program}: {}", complaint(&said).unwrap_or_else(|| done.tail()));
    }
    let keys =
        said.iter().find_map(|line| line.strip_suffix("keys read")?.split_whitespace().last()?.parse().ok());
    Ok(keys.unwrap_or(0))
}

/// Who is to look at data that others made.
fn reader(host: &Host, engine: Engine) -> Result<Ids> {
    if host.euid() == 0 && host.user(engine.user())?.is_none() {
        return host.user(NOBODY)?.context("there is no user to check it as");
    }
    ids(host, Owner::Server(engine))
}

/// The line that tells what is wrong, without the offset before it.
fn complaint(said: &[String]) -> Option<String> {
    let line = said.iter().skip_while(|line| !line.contains("RDB ERROR DETECTED")).nth(1)?;
    Some(line.split_once("] ").map_or(line.as_str(), |(_, why)| why).trim().to_owned())
}
