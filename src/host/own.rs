//! This very program: where it is, a copy of it for services, and itself in the background.

#![allow(clippy::disallowed_methods)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::{getegid, geteuid, setsid};

use super::child::{environment, mortal};
use super::{Child, Host, Ids, with_umask};
use crate::layout;
use crate::secret::Secret;

/// The kernel's own name for the program of a process, also when its file was replaced.
const EXE: &str = "/proc/self/exe";

impl Host {
    /// Where this program is.
    ///
    /// # Errors
    /// /proc does not tell.
    pub fn own_program(&self) -> Result<PathBuf> {
        let path = fs::read_link(EXE).context("/proc does not tell where this program is")?;
        // A program that was replaced while it runs is started anew from its place.
        Ok(path.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map_or(path.clone(), PathBuf::from))
    }

    /// Writes a value into a file of the kernel's.
    ///
    /// # Errors
    /// It does not take it.
    pub fn set_kernel(&self, path: &Path, value: &str) -> Result<()> {
        fs::write(self.path(path), format!("{value}\n"))
            .with_context(|| format!("the kernel does not take {value} for {}", path.display()))
    }

    /// Whether two files are the same, or one is a copy that was made of the other.
    ///
    /// # Errors
    /// One cannot be looked at.
    pub fn same_file(&self, a: &Path, b: &Path) -> Result<bool> {
        let look = |path: &Path| match fs::metadata(self.path(path)) {
            Ok(meta) => Ok(Some((meta.len(), meta.mtime(), meta.mtime_nsec()))),
            Err(error) if super::files::absent(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
        };
        Ok(look(a)?.is_some_and(|a| matches!(look(b), Ok(Some(b)) if a == b)))
    }

    /// What tells a file from another in its place: its length and the time of its last change.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn edition(&self, path: &Path) -> Result<String> {
        let meta =
            fs::metadata(self.path(path)).with_context(|| format!("cannot look at {}", path.display()))?;
        Ok(format!("{}-{}.{:09}", meta.len(), meta.mtime(), meta.mtime_nsec()))
    }

    /// Copies this program, with its time, by which the copy is known.
    ///
    /// # Errors
    /// It cannot be read, or the copy not be written.
    pub fn copy_own_program(&self, to: &Path) -> Result<()> {
        let bytes = fs::read(EXE).context("cannot read this program")?;
        let time =
            fs::metadata(EXE).and_then(|meta| meta.modified()).context("cannot look at this program")?;
        self.write(to, &bytes, layout::here().own(), 0o755)?;
        File::open(self.path(to))
            .and_then(|file| file.set_modified(time))
            .with_context(|| format!("cannot set the time of {}", to.display()))
    }

    /// A new private key for TLS, in PEM: ECDSA over P-256, which every TLS 1.2 and 1.3 knows.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn new_key(&self) -> Result<Secret> {
        let pair = rcgen::KeyPair::generate().context("cannot make a private key")?;
        Ok(Secret::new(pair.serialize_pem()))
    }

    /// The parent of a process; none when it is gone.
    pub fn parent_of(&self, pid: u32) -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split_whitespace().nth(1)?.parse().ok()
    }

    /// Starts a child that outlives us. What it says goes to a log, which is made for its user in a
    /// directory that has to be ours alone.
    ///
    /// # Errors
    /// It cannot be started; the log is no file of its user's.
    pub fn daemon(&self, child: Child, log: &Path) -> Result<()> {
        let log = self.log_for(log, child.user.unwrap_or(layout::here().own()))?;
        let name = child.program.display().to_string();
        let both = log.try_clone().context("cannot share the log")?;
        start(child, Stdio::from(log), Stdio::from(both))
            .with_context(|| format!("cannot run {name}"))
            .map(drop)
    }

    /// Starts a child that says what it has to say where we do.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, child: Child) -> Result<std::process::Child> {
        let name = child.program.display().to_string();
        start(child, Stdio::inherit(), Stdio::inherit()).with_context(|| format!("cannot run {name}"))
    }

    fn log_for(&self, path: &Path, owner: Ids) -> Result<File> {
        let way = self.way(path).with_context(|| format!("cannot open the log {}", path.display()))?;
        let real = way.path();
        let mut open = OpenOptions::new();
        open.append(true).mode(0o640).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
        let made = open.clone().create_new(true).open(real);
        let opened = match made {
            Ok(file) => super::files::give(&file, Some(owner), None).map(|()| file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open.open(real),
            Err(error) => Err(error),
        };
        let file = opened.with_context(|| format!("cannot open the log {}", path.display()))?;
        let meta = file.metadata()?;
        if !meta.is_file() || meta.uid() != owner.uid {
            bail!("{} is not {}'s file, and not written", path.display(), self.user_name(owner.uid));
        }
        Ok(file)
    }

    /// Leaves the terminal, so that its end is not ours.
    ///
    /// # Errors
    /// We lead a process group already.
    pub fn new_session(&self) -> Result<()> {
        setsid().map(drop).context("cannot leave the terminal")
    }

    /// Writes our number to a pid file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn note_pid(&self, path: &Path) -> Result<()> {
        let ids = Ids { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        self.write(path, format!("{}\n", std::process::id()).as_bytes(), ids, 0o644)
    }
}

/// Starts a child and gives it what it is to read.
fn start(child: Child, stdout: Stdio, stderr: Stdio) -> io::Result<std::process::Child> {
    let child = mortal(child);
    let mut command = Command::new(&child.program);
    command.args(&child.args).env_clear().envs(environment(child.env)).current_dir("/");
    command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
    if let Some(ids) = child.user {
        command.gid(ids.gid).uid(ids.uid);
    }
    let mut started = with_umask(0o022, || command.spawn())?;
    if let (Some(mut stdin), Some(bytes)) = (started.stdin.take(), child.stdin) {
        stdin.write_all(&bytes)?;
    }
    Ok(started)
}
