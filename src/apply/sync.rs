//! All data of a server that runs, over the wire: what a replica gets (`SYNC`). The server's own dump is not
//! touched, which on a server without persistence would bring data back at its next start.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::facts::holder;
use crate::host::{Host, Staged, Stream};
use crate::instance::Target;
use crate::tls::client::Expired;
use crate::wire::{Login, Trouble};

/// The directive that lets a server hand its data out without a file.
pub const DISKLESS: &str = "repl-diskless-sync";

/// How long a server may say nothing while it prepares its data: it waits for more replicas first.
const SILENCE: Duration = Duration::from_secs(120);
/// How often somebody who waits for it looks whether the run is to end.
const GLANCE: Duration = Duration::from_millis(250);
/// The length of the mark at the end of data whose length nobody knew at the beginning (replication.c,
/// `CONFIG_RUN_ID_SIZE`).
const MARK: usize = 40;
/// How long a server may take to save its data.
const SAVED: Duration = Duration::from_secs(900);
/// What a replica answers that has lost its master.
const NO_MASTER: &str = "NOMASTERLINK";

/// Whether a server hands its data out only by a file of its own: before 7.0 that is the default, and it is the
/// very one that the server reads at its start. One that lets nobody set this does as it does for replicas.
pub fn makes_a_file(host: &Host, target: &Target) -> bool {
    let said = target.connect(host).ok().and_then(|mut wire| wire.config());
    said.is_some_and(|config| config.get(DISKLESS).is_some_and(|value| value == "no"))
}

/// Tells a server to hand its data out without a file, or with one.
///
/// # Errors
/// It does not take that.
pub fn set_diskless(host: &Host, target: &Target, on: bool) -> Result<()> {
    let mut wire = target.connect(host)?;
    Ok(wire.ask::<()>(&["CONFIG", "SET", DISKLESS, if on { "yes" } else { "no" }])?)
}

/// Whether a server hands nothing out because it is a replica that has lost its master.
pub fn has_no_master(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains(NO_MASTER)
}

/// Has a server write the file that it reads at its start, and tells where that is: the only way to the data of
/// a replica without its master, which answers no `SYNC`. What it holds, it would copy anew.
///
/// # Errors
/// It does not write it.
pub fn have_it_saved(host: &Host, target: &Target) -> Result<PathBuf> {
    let mut wire = target.connect(host)?;
    // Not beside another child of its own.
    let mut begun = false;
    let done = host.poll(SAVED, || {
        let info = wire.info("persistence")?;
        let is = |name: &str, value: &str| info.get(name).is_some_and(|now| now == value);
        match is("rdb_bgsave_in_progress", "0") && is("aof_rewrite_in_progress", "0") {
            true if !begun => wire.ask::<String>(&["BGSAVE"]).map(|_| begun = true)?,
            true if is("rdb_last_bgsave_status", "ok") => return Ok(Some(())),
            true => bail!("it cannot save its data"),
            false => {}
        }
        Ok(None)
    })?;
    done.context("it does not finish saving its data")?;
    let config = wire.config().context("it does not tell where it saved its data")?;
    let word = |name: &str| config.get(name).with_context(|| format!("it does not tell its {name}"));
    Ok(Path::new(word("dir")?).join(word("dbfilename")?))
}

/// Writes all data of a server that runs to a file.
///
/// # Errors
/// It does not hand them out, or breaks off; the disk is full.
pub fn write(host: &Host, target: &Target, into: &mut Staged) -> Result<()> {
    let (mut stream, length) =
        ask(host, target).with_context(|| format!("{} does not hand out its data", target.name))?;
    match length {
        Length::Mark(mark) => until_mark(&mut stream, mark.as_bytes(), into),
        Length::Bytes(length) => {
            let copied = copy(&mut (&mut stream).take(length), into)?;
            if copied == length { Ok(()) } else { bail!("it broke off after {copied} of {length} bytes") }
        }
    }
}

/// How the end of the data is told.
enum Length {
    Bytes(u64),
    Mark(String),
}

fn ask<'a>(host: &'a Host, target: &Target) -> Result<(BufReader<Patient<'a>>, Length)> {
    if let Some(uid) = target.password.as_ref().and_then(|_| holder::stranger(host, &target.address)) {
        return Err(Trouble::Stranger(uid).into());
    }
    let stream = host.call(&target.address, SILENCE, Expired::Passes)?;
    stream.set_read_timeout(GLANCE)?;
    let mut wire = Conversation { stream: BufReader::with_capacity(1 << 16, Patient { host, stream }) };
    wire.log_in(target)?;
    // So the data need no file of the server's own. One that knows no such word says so, and goes on.
    wire.try_to_say(&["REPLCONF", "capa", "eof"])?;
    wire.try_to_say(&["REPLCONF", "rdb-only", "1"])?;
    let mut head = wire.try_to_say(&["SYNC"])?;
    if head.starts_with('-') {
        // It may be renamed; replicas since 2.8 need the other one only.
        let also = wire.try_to_say(&["PSYNC", "?", "-1"])?;
        if also.starts_with("+FULLRESYNC") {
            head = wire.line()?;
        }
    }
    let length = head.strip_prefix('$').map(|length| (length.strip_prefix("EOF:"), length.parse().ok()));
    let length = match length {
        Some((Some(mark), _)) if mark.len() == MARK => Length::Mark(mark.to_owned()),
        Some((None, Some(length))) => Length::Bytes(length),
        _ => bail!("it says {}", head.trim_start_matches('-')),
    };
    Ok((wire.stream, length))
}

/// A stream that waits for what comes, for as long as nobody wants to end.
struct Patient<'a> {
    host: &'a Host,
    stream: Stream,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = self.host.now();
        loop {
            if self.host.interrupted() {
                return Err(io::Error::other("interrupted"));
            }
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if start.elapsed() > SILENCE {
                        let why = format!("it said nothing for {} s", SILENCE.as_secs());
                        return Err(io::Error::other(why));
                    }
                }
                read => return read,
            }
        }
    }
}

struct Conversation<'a> {
    stream: BufReader<Patient<'a>>,
}

impl Conversation<'_> {
    /// As [`crate::wire::Wire::enter`] does it.
    fn log_in(&mut self, target: &Target) -> Result<()> {
        let Some(password) = &target.password else { return Ok(()) };
        let mut last = String::new();
        for login in Login::both(target.admin, password) {
            let words: Vec<&str> = ["AUTH"].into_iter().chain(login.words()).collect();
            last = self.try_to_say(&words)?;
            if !last.starts_with('-') {
                return Ok(());
            }
        }
        // The answer to AUTH, with none of its words.
        bail!("it says {}", last.trim_start_matches('-'))
    }

    fn try_to_say(&mut self, words: &[&str]) -> Result<String> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command += &format!("${}\r\n{word}\r\n", word.len());
        }
        let stream = &mut self.stream.get_mut().stream;
        stream.write_all(command.as_bytes())?;
        stream.flush()?;
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
fn until_mark(from: &mut impl BufRead, mark: &[u8], into: &mut impl Write) -> Result<()> {
    let mut held: Vec<u8> = Vec::new();
    loop {
        let bytes = from.fill_buf()?;
        if bytes.is_empty() {
            bail!("it broke off");
        }
        held.extend_from_slice(bytes);
        let length = bytes.len();
        from.consume(length);
        if held.ends_with(mark) {
            held.truncate(held.len() - mark.len());
            return Ok(into.write_all(&held)?);
        }
        let sure = held.len().saturating_sub(mark.len());
        into.write_all(held.get(..sure).unwrap_or_default())?;
        held.drain(..sure);
    }
}

fn copy(from: &mut impl BufRead, into: &mut impl Write) -> Result<u64> {
    let mut copied = 0;
    loop {
        let bytes = from.fill_buf()?;
        if bytes.is_empty() {
            return Ok(copied);
        }
        into.write_all(bytes)?;
        let length = bytes.len();
        from.consume(length);
        copied += length as u64;
    }
}
