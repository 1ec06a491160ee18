//! Taking a backup: an RDB, over the wire from a server that runs or as a copy from the directory of one that
//! does not; checked before it has its name.
//!
//! Over the wire it is what a replica gets (`SYNC`): the server's own dump is not touched, which on a server
//! without persistence would bring data back at its next start.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Run;
use super::undo::without_password;
use crate::exit::Fault;
use crate::facts::parse;
use crate::host::{Child, Host, Kind, Staged};
use crate::instance::Target;
use crate::journal::Undo;
use crate::layout;
use crate::prove;
use crate::software;
use crate::step::{Place, Source};
use crate::wire::Wire;

/// How long a server may say nothing while it prepares its data: it waits for more replicas first.
const SILENCE: Duration = Duration::from_secs(120);
/// How long a check of a file may take.
const CHECK: Duration = Duration::from_secs(3600);
/// The length of the mark at the end of data whose length nobody knew at the beginning (replication.c,
/// `CONFIG_RUN_ID_SIZE`).
const MARK: usize = 40;

impl Run<'_> {
    /// Takes a backup; nothing that fails leaves half of one.
    pub(super) fn backup(&mut self, target: &Target, source: &Source, path: &Path) -> Result<()> {
        self.make_parent(path)?;
        self.announce(Undo::Staged { path: path.to_path_buf() })?;
        let mut staged = self.host.stage(path, layout::here().own(), 0o600)?;
        match source {
            Source::Server => without_a_file(self.host, target, || sync(self.host, target, &mut staged))
                .with_context(|| format!("{} does not hand out its data", target.name))?,
            Source::File { path } => {
                let user = layout::here().ids(self.host, target.engine.user())?.map(|ids| ids.uid);
                self.host.copy_into(path, user.filter(|_| self.host.euid() == 0), &mut staged)?;
            }
        }
        check(self.host, target, self.image_of(target).as_deref(), staged.at())
            .with_context(|| format!("the backup of {} is not sound", target.name))?;
        staged.finish()
    }

    /// Brings a backup beside the data, and has the server load it there.
    pub(super) fn bring(&mut self, target: &Target, file: &Path, place: &Path) -> Result<()> {
        let user = target.engine.user();
        let ids =
            layout::here().ids(self.host, user)?.with_context(|| format!("there is no user '{user}'"))?;
        self.announce(Undo::Staged { path: place.to_path_buf() })?;
        let mut staged = self.host.stage(place, ids, 0o640)?;
        self.host.copy_into(file, None, &mut staged)?;
        let refused = |error: anyhow::Error| {
            Fault::refused(format!("{} is not restored: {error:#}", file.display()))
                .hint("nothing was changed; give another backup")
        };
        check(self.host, target, None, staged.at()).map_err(refused)?;
        self.brought = prove::loads(self.host, target, staged.at()).map_err(refused)?;
        staged.keep()
    }

    /// What expires may be gone, and clients may have written more.
    pub(super) fn count(&mut self, target: &Target) -> Result<()> {
        let mut wire = Wire::open(self.host, &target.address, target.password.as_ref())?;
        let (keys, brought) = (parse::keys(&wire.info("keyspace")?), self.brought);
        if keys + brought.expires < brought.keys {
            bail!("{} has {keys} keys, and the backup {}", target.name, brought.keys);
        }
        Ok(())
    }

    /// Puts what was brought in the place of the data.
    pub(super) fn replace(&mut self, target: &Target, places: &[Place]) -> Result<()> {
        let user = target.engine.user();
        let ids =
            layout::here().ids(self.host, user)?.with_context(|| format!("there is no user '{user}'"))?;
        for place in places {
            let there = self.host.stat(&place.path)?.is_some();
            let aside = there.then(|| place.aside());
            self.announce(Undo::Replaced {
                target: without_password(target),
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

/// Has an RDB checked by the engine's own program, and tells how many keys are in it.
///
/// # Errors
/// It is not sound; or there is no program to say so.
pub fn check(host: &Host, target: &Target, image: Option<&str>, file: &Path) -> Result<u64> {
    let program = target.engine.check_rdb();
    let child = match (software::find(host, target.engine, program), target.runtime.program(), image) {
        (Some(tool), ..) => tool.child().arg(file),
        (None, Some(runner), Some(image)) => {
            let mount = format!("{}:/backup.rdb:ro", file.display());
            let options = ["run", "--rm", "--network", "none", "--user", "0", "--volume", &mount];
            Child::new(runner.name()).args(options).args(["--entrypoint", program, image, "/backup.rdb"])
        }
        _ => bail!("{program} is not on this machine"),
    };
    let done = host.run(child.deadline(CHECK))?;
    if !done.ok() {
        bail!("{program}: {}", complaint(&done.stdout).unwrap_or_else(|| done.tail()));
    }
    let keys = done.stdout.lines().find_map(|line| {
        let words = line.strip_suffix("keys read")?;
        words.split_whitespace().last()?.parse().ok()
    });
    Ok(keys.unwrap_or(0))
}

/// The line that tells what is wrong, without the offset before it.
fn complaint(said: &str) -> Option<String> {
    let line = said.lines().skip_while(|line| !line.contains("RDB ERROR DETECTED")).nth(1)?;
    Some(line.split_once("] ").map_or(line, |(_, why)| why).trim().to_owned())
}

/// Does something while a server hands its data out without a file of its own: before 7.0 it would write one by
/// default, the very one that it reads at its start. One that lets nobody set this does as it does for replicas.
fn without_a_file(host: &Host, target: &Target, act: impl FnOnce() -> Result<()>) -> Result<()> {
    const DISKLESS: &str = "repl-diskless-sync";
    let open = || Wire::open(host, &target.address, target.password.as_ref());
    let set = |value: &str| open().and_then(|mut wire| wire.ask::<()>(&["CONFIG", "SET", DISKLESS, value]));
    let said = open().ok().and_then(|mut wire| wire.config());
    let is_off = said.is_some_and(|config| config.get(DISKLESS).is_some_and(|value| value == "no"));
    let told = is_off && set("yes").is_ok();
    let done = act();
    if told {
        set("no")?;
    }
    done
}

/// Writes all data of a server that runs to a file.
fn sync(host: &Host, target: &Target, into: &mut Staged) -> Result<()> {
    let stream = host.stream(&target.address.host, target.address.port, SILENCE)?;
    let mut wire = Conversation { stream: BufReader::with_capacity(1 << 16, stream) };
    if let Some(password) = &target.password {
        wire.say(&["AUTH", password.expose()])?;
    }
    // So the data need no file of the server's own. One that knows no such word says so, and goes on.
    wire.try_to_say(&["REPLCONF", "capa", "eof"])?;
    wire.try_to_say(&["REPLCONF", "rdb-only", "1"])?;
    wire.stream.get_mut().write_all(b"SYNC\r\n")?;
    let head = wire.line()?;
    let Some(length) = head.strip_prefix('$') else { bail!("it says {}", head.trim_start_matches('-')) };
    match length.strip_prefix("EOF:") {
        Some(mark) if mark.len() == MARK => until_mark(host, &mut wire.stream, mark.as_bytes(), into),
        Some(_) => bail!("it says {head}"),
        None => {
            let length: u64 = length.parse().with_context(|| format!("it says {head}"))?;
            let copied = copy(host, &mut (&mut wire.stream).take(length), into)?;
            if copied == length { Ok(()) } else { bail!("it broke off after {copied} of {length} bytes") }
        }
    }
}

struct Conversation {
    stream: BufReader<TcpStream>,
}

impl Conversation {
    fn say(&mut self, words: &[&str]) -> Result<()> {
        match self.try_to_say(words)?.strip_prefix('-') {
            // The answer to AUTH, with none of its words.
            Some(error) => bail!("it says {error}"),
            None => Ok(()),
        }
    }

    fn try_to_say(&mut self, words: &[&str]) -> Result<String> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.stream.get_mut().write_all(command.as_bytes())?;
        self.line()
    }

    /// The next line that says something: a server that prepares its data sends empty ones meanwhile.
    fn line(&mut self) -> Result<String> {
        loop {
            let mut line = Vec::new();
            if (&mut self.stream).take(1 << 12).read_until(b'\n', &mut line)? == 0 {
                bail!("it closed the connection");
            }
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if !line.is_empty() {
                return Ok(line);
            }
        }
    }
}

/// Copies until the mark, which is not written.
fn until_mark(host: &Host, from: &mut impl BufRead, mark: &[u8], into: &mut impl Write) -> Result<()> {
    let mut held: Vec<u8> = Vec::new();
    loop {
        stop_if_interrupted(host)?;
        let bytes = from.fill_buf()?;
        if bytes.is_empty() {
            bail!("it broke off");
        }
        held.extend_from_slice(bytes);
        let length = bytes.len();
        from.consume(length);
        if held.ends_with(mark) {
            held.truncate(held.len() - mark.len());
            return into.write_all(&held).context("cannot write");
        }
        let sure = held.len().saturating_sub(mark.len());
        into.write_all(held.get(..sure).unwrap_or_default()).context("cannot write")?;
        held.drain(..sure);
    }
}

fn copy(host: &Host, from: &mut impl BufRead, into: &mut impl Write) -> Result<u64> {
    let mut copied = 0;
    loop {
        stop_if_interrupted(host)?;
        let bytes = match from.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        if bytes.is_empty() {
            return Ok(copied);
        }
        into.write_all(bytes).context("cannot write")?;
        let length = bytes.len();
        from.consume(length);
        copied += length as u64;
    }
}

fn stop_if_interrupted(host: &Host) -> Result<()> {
    if host.interrupted() { bail!("interrupted") } else { Ok(()) }
}
