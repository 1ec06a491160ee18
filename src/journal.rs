//! The journal: a line on disk before each effect, enough to undo it; and the lock that lets one run
//! at a time change the machine.
//!
//! Every run has a directory `/var/lib/redis-tp/runs/NNNNNN` with its `journal` (a JSON object a
//! line) and copies of what it replaced. A journal without an `end` line is open: its run was killed.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::app::AppTarget;
use crate::engine::Engine;
use crate::exit::{self, Code, Fault};
use crate::facts::Role;
use crate::host::{Host, Ids, Stat, Taken};
use crate::instance::Target;
use crate::layout;
use crate::runtime::Program;
use crate::runtime::container::Container;
use crate::state::{self, SCHEMA};

/// How long the lock of a run that was killed may be held on by a child of its.
const ORPHANED: Duration = Duration::from_secs(1);

/// How many finished runs are kept for `rollback`.
const HISTORY: usize = 10;

/// How to undo one effect. Undoing twice does no more than undoing once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum Undo {
    /// Put a file back, or take it away where there was none.
    File {
        /// Its path.
        path: PathBuf,
        /// What stood there.
        before: Option<Saved>,
    },
    /// Give a directory its owner and mode back, or take it away.
    Directory {
        /// Its path.
        path: PathBuf,
        /// What it was; none when it was not there.
        before: Option<Stat>,
        /// What is in it is a copy and may go.
        copy: bool,
    },
    /// Give a file or directory its owner and mode back.
    Owner {
        /// Its path.
        path: PathBuf,
        /// Whose it was.
        ids: Ids,
        /// Its mode.
        mode: u32,
        /// Its inode: another file that stands there by then is not ours to change.
        #[serde(default)]
        inode: u64,
    },
    /// Start a server again as somebody had started it by hand, after all files are back.
    Revive {
        /// The instance.
        target: Target,
        /// Whose it was.
        ids: Ids,
        /// Its process; while that lives, it was never ended.
        #[serde(default)]
        pid: Option<u32>,
    },
    /// Stop an instance that did not run.
    Stop {
        /// The instance.
        target: Target,
    },
    /// Start an instance again that ran, with its former files; after all of these are back.
    Start {
        /// The instance.
        target: Target,
        /// Its process; while that lives, it was never stopped.
        #[serde(default)]
        pid: Option<u32>,
    },
    /// Let an instance be what it was, whatever its former file says, when it starts again.
    Role {
        /// The instance.
        target: Target,
        /// A master, or whose replica.
        role: Role,
    },
    /// Start a unit again that ran.
    StartUnit {
        /// The unit.
        unit: String,
    },
    /// Stop a unit that did not run.
    StopUnit {
        /// The unit.
        unit: String,
    },
    /// Enable or disable a unit, as it was.
    Enabled {
        /// The unit.
        unit: String,
        /// Whether it was enabled.
        before: bool,
    },
    /// Tell a running server what it was told before.
    Set {
        /// The instance.
        target: Target,
        /// The directives with the values that they had.
        before: BTreeMap<String, String>,
        /// Those whose values only the former file may have.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        secret: Vec<String>,
    },
    /// Let a running server take the former password, that of its former file, and no other one.
    Password {
        /// The instance.
        target: Target,
    },
    /// Let the users of a running server do what they did before, those of its former file, and no others.
    Users {
        /// The instance.
        target: Target,
        /// The users that are told.
        names: Vec<String>,
    },
    /// Let a running server read its former certificates anew, when they are back.
    Certificates {
        /// The instance.
        target: Target,
    },
    /// Put former data back that were set aside, or take new ones away where there were none.
    Replaced {
        /// The instance whose they are: it must not run meanwhile.
        target: Target,
        /// Their place.
        path: PathBuf,
        /// Where the former ones are; none where there were none.
        aside: Option<PathBuf>,
    },
    /// Take away what there is of a file that was not finished.
    Staged {
        /// Where it was to be.
        path: PathBuf,
    },
    /// Give one of the kernel's settings its value back.
    Kernel {
        /// Its file in /proc or /sys.
        path: PathBuf,
        /// What it was.
        before: String,
    },
    /// Let systemd read its files again, after all of these are back.
    Reload,
    /// Stop the web app, which did not run.
    StopApp {
        /// The app.
        app: AppTarget,
    },
    /// Start the web app again that ran, with its former files.
    StartApp {
        /// The app.
        app: AppTarget,
        /// Its process or supervisor; while that lives, it was never stopped.
        pid: Option<u32>,
    },
    /// Take a user away that was not there.
    User {
        /// Its name.
        name: String,
    },
    /// Take a container away, and make the one again that was there.
    Container {
        /// Whose it is.
        program: Program,
        /// Its name.
        name: String,
        /// Redis or Valkey.
        engine: Engine,
        /// What it was made of; none when there was none.
        before: Option<Box<Container>>,
        /// Whether that started again by itself.
        boot: bool,
    },
    /// Take a network away that was not there, or make it again.
    Network {
        /// Whose it is.
        program: Program,
        /// It was there.
        before: bool,
    },
    /// Take a volume away that was not there.
    Volume {
        /// Whose it is.
        program: Program,
        /// Its name.
        name: String,
        /// What is in it is a copy and may go.
        copy: bool,
    },
    /// Let a container start again by itself or not, as it was.
    Boot {
        /// Whose it is.
        program: Program,
        /// The container.
        name: String,
        /// Whether it did.
        before: bool,
    },
    /// Purge what an apt run of ours installed; apt's own history names it by this mark.
    Packages {
        /// Redis or Valkey.
        engine: Engine,
        /// The mark on apt's command line.
        mark: String,
    },
}

/// A copy of a file that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Where the copy is.
    pub copy: PathBuf,
    /// The file's mode.
    pub mode: u32,
    /// The file's owner.
    pub ids: Ids,
    /// Where it pointed, if it was a symbolic link: then there is no copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<PathBuf>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// All steps done.
    Done,
    /// All steps undone.
    Undone,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Head {
        journal: u32,
        run: u32,
        command: String,
        time: u64,
    },
    End {
        end: End,
    },
    /// From here on steps cannot be undone (a purge): an interrupted run is finished, not undone.
    NoReturn {
        no_return: bool,
    },
    /// The run was done, and is being undone: open again, until all of it is.
    Undoing {
        undoing: bool,
    },
    Undo(Undo),
}

/// A run's journal, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The number of the run.
    pub run: u32,
    /// The command that it was.
    pub command: String,
    /// Seconds since 1970.
    pub time: u64,
    /// The effects that may have happened, in order.
    pub undo: Vec<Undo>,
    /// How it ended; none for an open one.
    pub end: Option<End>,
    /// It had begun to do what cannot be undone.
    pub no_return: bool,
    /// It was done, and a rollback of it has begun.
    pub undoing: bool,
}

impl Record {
    /// Reads a journal. The last line may be torn: its effect had not begun.
    ///
    /// # Errors
    /// What is no journal, or one of a later redis-tp.
    pub fn parse(text: &str) -> Result<Self> {
        let whole = text.rfind('\n').map_or("", |end| text.get(..=end).unwrap_or_default());
        let mut lines = whole.lines().enumerate();
        let Some((_, head)) = lines.next() else { bail!("it is empty") };
        let mut record = match serde_json::from_str(head).context("line 1 is not the head of a journal")? {
            Line::Head { journal, .. } if journal > SCHEMA => {
                bail!("it is of a later redis-tp (format {journal}, this one knows {SCHEMA}): use that one")
            }
            Line::Head { run, command, time, .. } => {
                Self { run, command, time, undo: Vec::new(), end: None, no_return: false, undoing: false }
            }
            _ => bail!("line 1 is not the head of a journal"),
        };
        for (index, line) in lines {
            match serde_json::from_str(line)
                .with_context(|| format!("line {} is not of a journal", index + 1))?
            {
                Line::Undo(undo) => record.undo.push(undo),
                Line::End { end } => record.end = Some(end),
                Line::NoReturn { no_return } => record.no_return |= no_return,
                Line::Undoing { undoing } => {
                    record.undoing = undoing;
                    record.end = None;
                }
                Line::Head { .. } => bail!("line {} is a second head", index + 1),
            }
        }
        Ok(record)
    }
}

/// The journal of the run in progress.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    copies: usize,
    /// The number of the run.
    pub run: u32,
    /// Whether any effect has been announced.
    pub announced: bool,
    begun: bool,
    /// The command that it is.
    pub command: String,
}

impl Journal {
    /// A journal for a run; nothing is on disk before the first effect.
    pub fn new(host: &Host, command: &str) -> Result<Self> {
        let run = runs(host)?.last().map_or(1, |last| last + 1);
        Ok(Self {
            dir: run_dir(run),
            copies: 0,
            run,
            announced: false,
            begun: false,
            command: command.to_owned(),
        })
    }

    /// Announces an effect; when this returns, the line is on the disk.
    pub fn announce(&mut self, host: &Host, undo: Undo) -> Result<()> {
        self.line(host, &Line::Undo(undo))?;
        self.announced = true;
        Ok(())
    }

    /// Announces an effect on a file, and keeps a copy of what stands there.
    pub fn announce_file(&mut self, host: &Host, path: &Path) -> Result<()> {
        self.begin(host)?;
        let before = match host.take(path)? {
            Some(Taken::File { bytes, mode, ids }) => {
                self.copies += 1;
                let copy = self.dir.join(self.copies.to_string());
                host.write(&copy, &bytes, layout::here().own(), 0o600)?;
                Some(Saved { copy, mode, ids, link: None })
            }
            Some(Taken::Link { target, ids }) => {
                Some(Saved { copy: PathBuf::new(), mode: 0, ids, link: Some(target) })
            }
            None => None,
        };
        self.announce(host, Undo::File { path: path.to_path_buf(), before })
    }

    /// Says that what follows cannot be undone.
    pub fn no_return(&mut self, host: &Host) -> Result<()> {
        self.line(host, &Line::NoReturn { no_return: true })?;
        self.announced = true;
        Ok(())
    }

    /// Takes a journal away that a full disk left without its first effect; says whether there was one.
    pub fn abandon(&mut self, host: &Host) -> bool {
        if self.begun {
            // What is left is no journal, and the next run takes it away.
            let _ = host.remove_tree(&self.dir);
        }
        self.begun
    }

    /// Closes the journal.
    pub fn end(&mut self, host: &Host, end: End) -> Result<()> {
        if self.begun {
            self.line(host, &Line::End { end })?;
            // The run is done; what of the old ones cannot go now goes with the next.
            let _ = forget_old(host);
        }
        Ok(())
    }

    /// Closes the journal of a run that leaves nothing to undo, and forgets it: a rollback is one of the run
    /// before.
    pub fn forget(&mut self, host: &Host) -> Result<()> {
        if self.begun { close(host, self.run, End::Undone) } else { Ok(()) }
    }

    fn begin(&mut self, host: &Host) -> Result<()> {
        if !self.begun {
            // From here on something may be left that is to be taken away.
            self.begun = true;
            host.directory(&state::dir().join("runs"), layout::here().own(), 0o700)?;
            host.directory(&self.dir, layout::here().own(), 0o700)?;
            let head = Line::Head {
                journal: SCHEMA,
                run: self.run,
                command: self.command.clone(),
                time: host.unix_time(),
            };
            self.line(host, &head)?;
        }
        Ok(())
    }

    fn line(&mut self, host: &Host, line: &Line) -> Result<()> {
        self.begin(host)?;
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        host.append(&self.dir.join("journal"), text.as_bytes())
    }
}

/// Opens the journal of a run that was done again: whoever finds it open walks the way back to its end.
pub fn reopen(host: &Host, run: u32) -> Result<()> {
    add(host, run, &Line::Undoing { undoing: true })
}

/// Adds to what is to be known on the way back of a run.
pub fn add_undo(host: &Host, run: u32, undo: &Undo) -> Result<()> {
    add(host, run, &Line::Undo(undo.clone()))
}

/// Closes the journal of an earlier run.
pub fn close(host: &Host, run: u32, end: End) -> Result<()> {
    if end == End::Done {
        return add(host, run, &Line::End { end });
    }
    // A run that never was leaves no trace of ours either. Without its journal it is no run any more, also
    // where the disk has no room for a line; what of the copies cannot go, goes with the next run.
    host.remove(&run_dir(run).join("journal"))?;
    let _ = host.remove_tree(&run_dir(run));
    Ok(())
}

fn add(host: &Host, run: u32, line: &Line) -> Result<()> {
    // A torn last line would swallow the one that follows it.
    let path = run_dir(run).join("journal");
    let text = host.text(&path)?.unwrap_or_default();
    if !text.ends_with('\n') {
        host.shorten(&path, text.rfind('\n').map_or(0, |end| end + 1))?;
    }
    let mut line = serde_json::to_string(line)?;
    line.push('\n');
    host.append(&path, line.as_bytes())
}

/// The run that was killed, if one was.
///
/// # Errors
/// A journal that cannot be read, named with what to do.
pub fn open_run(host: &Host) -> Result<Option<Record>> {
    let Some(last) = runs(host)?.pop() else { return Ok(None) };
    // A run killed before its first line is on the disk has done nothing; one without a journal is undone.
    let Some(record) = read(host, last)? else {
        host.remove_tree(&run_dir(last))?;
        return Ok(None);
    };
    Ok((record.end.is_none()).then_some(record))
}

/// A run, open or not.
///
/// # Errors
/// Its journal cannot be read.
pub fn run(host: &Host, run: u32) -> Result<Option<Record>> {
    read(host, run)
}

/// The run that was killed or is still at work, told without an effect: for those who only look.
///
/// # Errors
/// A journal that cannot be read.
pub fn unfinished(host: &Host) -> Result<Option<Record>> {
    match runs(host)?.pop() {
        Some(last) => Ok(read(host, last)?.filter(|record| record.end.is_none())),
        None => Ok(None),
    }
}

/// The last run that was done and not undone.
///
/// # Errors
/// A journal that cannot be read.
pub fn last_done(host: &Host) -> Result<Option<Record>> {
    for run in runs(host)?.into_iter().rev() {
        if let Some(record) = read(host, run)?.filter(|record| record.end == Some(End::Done)) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

fn read(host: &Host, run: u32) -> Result<Option<Record>> {
    let path = run_dir(run).join("journal");
    let Some(text) = host.text(&path)? else { return Ok(None) };
    if !text.contains('\n') && host.list(&run_dir(run))?.len() == 1 {
        return Ok(None);
    }
    let cure = || {
        Fault::refused(format!("{} cannot be read", path.display())).hint(format!(
            "look at it, and if nothing in it matters to you, move it away:\nmv {} {}/",
            run_dir(run).display(),
            layout::here().home.display()
        ))
    };
    Record::parse(&text).map(Some).map_err(|error| anyhow::Error::new(cure()).context(format!("{error:#}")))
}

/// The numbers of the runs that are on disk, in order.
fn runs(host: &Host) -> Result<Vec<u32>> {
    let names = host.list(&state::dir().join("runs"))?;
    let mut runs: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    runs.sort_unstable();
    Ok(runs)
}

fn run_dir(run: u32) -> PathBuf {
    state::dir().join("runs").join(format!("{run:06}"))
}

fn forget_old(host: &Host) -> Result<()> {
    let runs = runs(host)?;
    for run in runs.iter().take(runs.len().saturating_sub(HISTORY)) {
        host.remove_tree(&run_dir(*run))?;
    }
    Ok(())
}

/// The right to change the machine; given back when it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, and makes our state directory for it.
    ///
    /// # Errors
    /// Another run holds it (exit code 6), named by its process.
    pub fn take(host: &Host) -> Result<Self> {
        let bare = host.stat(state::dir())?.is_none();
        Self::attempt(host).inspect_err(|error| {
            // Nothing was done, and nothing of it stays; but the lock of another is not taken away.
            if bare
                && exit::code_of(error) != Code::Locked
                && let Ok(lock) = Self::attempt(host)
            {
                let _ = lock.release(host);
            }
        })
    }

    fn attempt(host: &Host) -> Result<Self> {
        let path = state::dir().join("lock");
        let end = host.now() + ORPHANED;
        loop {
            let made = make_way(host)?;
            let file = host.lock_file(&path)?;
            if !made.is_empty() {
                host.append(&path, made.as_bytes())?;
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let who = at_work(host);
                    if host.now() >= end || !is_orphaned(host, who.as_deref()) {
                        return Err(held(who).into());
                    }
                    // A child that has not become another program yet holds it on for a run that was killed.
                    host.sleep(Duration::from_millis(1));
                    continue;
                }
                Err(TryLockError::Error(error)) => return Err(error).context("cannot lock"),
            }
            // The run before may have purged the directory between our open and our lock.
            let same = host.inode(&file)? == host.stat(&path)?.map(|stat| stat.inode);
            if same {
                return Ok(Self { _file: file });
            }
        }
    }

    /// Gives the lock back, and takes the state directory away if this run left nothing in it.
    pub fn release(self, host: &Host) -> Result<()> {
        let dir = state::dir();
        let runs = dir.join("runs");
        if host.list(&runs)?.is_empty() {
            host.remove_empty(&runs)?;
        }
        if host.list(dir)? == ["lock"] {
            let made = host.text(&dir.join("lock"))?.unwrap_or_default();
            host.remove(&dir.join("lock"))?;
            host.remove_empty(dir)?;
            made.lines().rev().try_for_each(|above| host.remove_empty(Path::new(above)).map(drop))?;
        }
        Ok(())
    }
}

/// Makes the state directory, and tells those above it that had to be made, too: the lock names them, so
/// that they can go with it.
fn make_way(host: &Host) -> Result<String> {
    let (dir, own) = (state::dir(), layout::here().own());
    let mut made = String::new();
    if host.stat(dir)?.is_some() {
        return Ok(made);
    }
    for above in layout::here().above(dir) {
        if host.stat(above)?.is_none() {
            host.directory(above, own, 0o700)?;
            made += &format!("{}\n", above.display());
        }
    }
    host.directory(dir, own, 0o700)?;
    Ok(made)
}

/// The process that changes the machine now, as the kernel's list of locks has it.
pub fn at_work(host: &Host) -> Option<String> {
    let inode = host.stat(&state::dir().join("lock")).ok().flatten()?.inode;
    let locks = host.text(Path::new("/proc/locks")).ok().flatten()?;
    let line = locks.lines().find(|line| line.contains(&format!(":{inode} ")))?;
    line.split_whitespace().nth(4).map(str::to_owned)
}

/// Whether the process that took the lock is gone: the kernel's list of locks then names it no more, or, on
/// the host of a container, names one that there is not.
fn is_orphaned(host: &Host, who: Option<&str>) -> bool {
    who.is_none_or(|pid| matches!(host.stat(&Path::new("/proc").join(pid)), Ok(None)))
}

fn held(who: Option<String>) -> Fault {
    let who = who.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    Fault::new(Code::Locked, format!("another redis-tp is at work on this machine{who}"))
        .hint("wait until it has ended, and run this again")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "{\"journal\":1,\"run\":3,\"command\":\"install\",\"time\":0}\n";

    #[test]
    fn a_torn_last_line_is_an_effect_that_had_not_begun() {
        let text = format!("{HEAD}{{\"undo\":\"reload\"}}\n{{\"undo\":\"enab");
        let record = Record::parse(&text).unwrap();
        assert_eq!((record.undo, record.end), (vec![Undo::Reload], None));
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        for bad in [
            "",
            "\n",
            "{}\n",
            "[]\n",
            "{\"undo\":\"reload\"}\n",
            "{\"journal\":99,\"run\":1,\"command\":\"x\",\"time\":0}\n",
        ] {
            assert!(Record::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Record::parse(&format!("{HEAD}{{\"undo\":\"explode\"}}\n")).is_err());
        assert!(Record::parse(&format!("{HEAD}{HEAD}")).is_err());
    }
}
