//! Takes over what somebody set up by hand: owners, and servers that no unit keeps.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Run, ids, live, role, service};
use crate::engine::Engine;
use crate::exit::{Code, Fault};
use crate::facts;
use crate::host::{Host, Ids, Kind, Stat};
use crate::instance::Target;
use crate::journal::Undo;
use crate::software;
use crate::step::Owner;
use crate::wire::Trouble;

/// How long a save at the end may take.
const SAVE: Duration = Duration::from_secs(600);
/// How long a server that was started again may take until it listens.
const BORN: Duration = Duration::from_secs(10);

impl Run<'_> {
    /// Hands files over; whose they were is in the journal before.
    pub(super) fn own(&mut self, paths: &[PathBuf], owner: Owner, mode: Option<u32>) -> Result<()> {
        let to = ids(self.host, owner)?;
        for path in paths {
            let Some(stat) = self.host.stat(path)? else { continue };
            // Those who could read it by being anybody could read a copy of every key.
            self.change(path, &stat, Some(to), mode.unwrap_or(stat.mode & !0o007))?;
        }
        Ok(())
    }

    /// Gives a file a mode, if it is still the one that was looked at.
    pub(super) fn mode(&mut self, path: &Path, inode: u64, mode: u32) -> Result<()> {
        match self.host.stat(path)?.filter(|stat| stat.inode == inode) {
            Some(stat) => self.change(path, &stat, None, mode),
            None => Err(exchanged(path).into()),
        }
    }

    fn change(&mut self, path: &Path, there: &Stat, owner: Option<Ids>, mode: u32) -> Result<()> {
        let (ids, inode) = (there.ids(), there.inode);
        self.announce(Undo::Owner { path: path.to_path_buf(), ids, mode: there.mode, inode })?;
        match self.host.own(path, inode, owner, Some(mode))? {
            true => Ok(()),
            false => Err(exchanged(path).into()),
        }
    }

    /// Ends a server that was started by hand. What it holds is saved first, whatever its save points are.
    pub(super) fn end_by_hand(
        &mut self,
        target: &Target,
        pid: u32,
        uid: u32,
        saves: &[PathBuf; 3],
    ) -> Result<()> {
        let same = |process: &facts::Process| process.program == target.engine.server() && process.uid == uid;
        if !facts::about(self.host, pid).as_ref().is_some_and(same) {
            return Ok(());
        }
        let gid = self.host.stat(Path::new(&format!("/proc/{pid}")))?.map_or(uid, |stat| stat.gid);
        let ids = Ids { uid, gid };
        if let Some(role) = role::now(self.host, target) {
            self.announce_role(target, &role)?;
        }
        self.announce(Undo::Revive { target: target.without_password(), ids, pid: Some(pid) })?;
        let mut wire = live::reach(self.host, target, &live::passwords(self.host, target))?;
        match wire.ask::<()>(&["SHUTDOWN", "SAVE"]) {
            Err(Trouble::Other(said)) if said.starts_with("ERR") => {
                bail!("{} does not end: it said '{said}'", target.name)
            }
            _ => {}
        }
        let gone = || Ok(facts::about(self.host, pid).is_none().then_some(()));
        if self.host.poll(SAVE, gone)?.is_none() {
            bail!("{} is still there (pid {pid})", target.name);
        }
        self.own_what_it_saved(target.engine, uid, saves)
    }

    /// Hands over what a server wrote at its end, and nobody could foresee.
    fn own_what_it_saved(&mut self, engine: Engine, uid: u32, saves: &[PathBuf; 3]) -> Result<()> {
        let [dump, log, parts] = saves;
        let mut saved = vec![dump.clone(), log.clone()];
        if self.host.stat(parts)?.is_some_and(|stat| stat.kind == Kind::Dir) {
            saved.extend(self.host.list(parts)?.into_iter().map(|name| parts.join(name)));
        }
        let its_own = |path: &PathBuf| matches!(self.host.stat(path), Ok(Some(stat)) if stat.uid == uid);
        saved.retain(its_own);
        self.own(&saved, Owner::Server(engine), None)
    }
}

fn exchanged(path: &Path) -> Fault {
    Fault::new(Code::Failed, format!("another file is at {} by now, and is left alone", path.display()))
        .hint(format!("see who exchanges it:\nls -la {}", path.parent().unwrap_or(path).display()))
}

/// Whether a server that somebody had started never ended; one that was asked to may do so only now, for it
/// saves before.
pub(super) fn lives(host: &Host, target: &Target, pid: u32) -> Result<bool> {
    let program = target.engine.server();
    service::will_stay(host, target, || {
        Ok(facts::about(host, pid).is_some_and(|process| process.program == program))
    })
}

/// Starts a server again as somebody had started it.
pub(super) fn revive(host: &Host, target: &Target, ids: Ids) -> Result<()> {
    let listens = || -> Result<bool> {
        Ok(!facts::listening(host, &[], |port| port == target.address.port)?.is_empty())
    };
    // A way back that was cut off may have started it a moment ago.
    let settled = || Ok((listens()? || !facts::is_starting(host, target, ids.uid)?).then_some(()));
    host.poll(BORN, settled)?;
    if listens()? {
        return Ok(());
    }
    let engine = target.engine;
    let server = software::find(host, engine, engine.server())
        .with_context(|| format!("{} is not on PATH", engine.server()))?;
    let conf = target.conf();
    let args = [conf.as_os_str(), "--daemonize".as_ref(), "yes".as_ref()];
    let done = host.run(server.child().args(args).user(ids))?;
    if !done.ok() {
        bail!("{} did not start again: {}", target.name, crate::conf::redact(&done.tail()));
    }
    host.poll(BORN, || Ok(listens()?.then_some(()))).map(drop)
}
