//! The machine: files, children, users, clock, environment, sockets. The only file with effects;
//! everyone else decides what to do and asks here (clippy's `disallowed-methods` holds them to it).

#![allow(clippy::disallowed_methods)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Group, Pid, Uid, User, fchown};
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

mod net;

/// How much of a child's output is kept for an error message, in bytes.
const TAIL: usize = 1024;

/// Where scratch directories are: gone at the latest with a restart, for there are passwords in them.
pub const SCRATCH: &str = "/run/redis-tp";

/// The umask is the process's, and proofs run in threads.
static UMASK: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// A machine whose files are looked for below `root` (`/`, but for tests).
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    interrupted: Arc<AtomicBool>,
}

/// What a path is, without following a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, wherever it points.
    Link,
    /// A socket, a device, a fifo.
    Other,
}

/// What `lstat(2)` tells of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// What the path is.
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// The owner.
    #[serde(default)]
    pub uid: u32,
    /// The group.
    #[serde(default)]
    pub gid: u32,
    /// The inode.
    #[serde(default)]
    pub inode: u64,
}

/// A file or a link as it stood, to be put back one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A regular file.
    File {
        /// What is in it.
        bytes: Vec<u8>,
        /// Its mode.
        mode: u32,
        /// Its owner.
        ids: Ids,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: PathBuf,
        /// Its owner.
        ids: Ids,
    },
}

/// A user and group by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Ids {
    /// root:root
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

/// A child process to be: program, arguments, and what it may see.
#[derive(Debug)]
pub struct Child {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    stdin: Option<Vec<u8>>,
    user: Option<Ids>,
    umask: bool,
    mortal: bool,
    deadline: Duration,
}

/// How a child ended, and what it printed (never more than asked for by name).
#[derive(Debug)]
pub struct Done {
    /// The exit status, none when a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Done {
    /// Whether the child exited with 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// The last KiB of what it said, standard error first.
    pub fn tail(&self) -> String {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let said = said.trim();
        let mut from = said.len().saturating_sub(TAIL);
        while !said.is_char_boundary(from) {
            from += 1;
        }
        said.get(from..).unwrap_or(said).to_owned()
    }
}

impl Child {
    /// A child with an empty standard input and a minimal environment of ours, not the caller's.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: None,
            user: None,
            umask: false,
            mortal: false,
            deadline: Duration::from_secs(60),
        }
    }

    /// Adds an argument.
    pub fn arg(self, arg: impl Into<OsString>) -> Self {
        self.args([arg])
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// What it reads on standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Runs it as this user, without root's supplementary groups.
    pub fn user(mut self, ids: Ids) -> Self {
        self.user = Some(ids);
        self
    }

    /// Runs it with umask 0027, whatever ours is: for a server that makes files.
    pub fn private_files(mut self) -> Self {
        self.umask = true;
        self
    }

    /// Lets it end with us, also when we are killed: a scratch server would live on.
    pub fn dies_with_us(mut self) -> Self {
        self.mortal = true;
        self
    }

    /// How long it may take; it is killed after that.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl Host {
    /// The machine that this process runs on. Children start from umask 0022, whatever ours was:
    /// a package installed under umask 0077 would be readable by root alone.
    pub fn real() -> Self {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        Self::at("/")
    }

    /// A machine whose files lie below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), interrupted: Arc::default() }
    }

    /// Where a path really is. A relative one is the caller's own word, and looked for where they are.
    fn path(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/") {
            Ok(path) => self.root.join(path),
            Err(_) => std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
        }
    }

    // ---- files ------------------------------------------------------------------------------

    /// What the path is; none when nothing is there.
    pub fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        match fs::symlink_metadata(self.path(path)) {
            Ok(meta) => Ok(Some(Stat {
                kind: match meta.file_type() {
                    kind if kind.is_file() => Kind::File,
                    kind if kind.is_dir() => Kind::Dir,
                    kind if kind.is_symlink() => Kind::Link,
                    _ => Kind::Other,
                },
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
                inode: meta.ino(),
            })),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
        }
    }

    /// The process that holds a record lock (fcntl(2)) on a file, as apt and dpkg take them.
    pub fn lock_holder(&self, path: &Path) -> Option<u32> {
        use nix::fcntl::{FcntlArg, fcntl};
        let file = File::open(self.path(path)).ok()?;
        let mut query = nix::libc::flock {
            l_type: nix::libc::F_WRLCK as nix::libc::c_short,
            l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_GETLK(&mut query)).ok()?;
        let held = query.l_type != nix::libc::F_UNLCK as nix::libc::c_short;
        held.then(|| u32::try_from(query.l_pid).ok()).flatten()
    }

    /// The bytes of a file; none when it is not there.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match fs::read(self.path(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The text of a file; none when it is not there.
    ///
    /// # Errors
    /// Unreadable, or not UTF-8.
    pub fn text(&self, path: &Path) -> Result<Option<String>> {
        self.read(path)?
            .map(String::from_utf8)
            .transpose()
            .map_err(|_| anyhow::anyhow!("{} is not UTF-8 text", path.display()))
    }

    /// How long a file is; 0 when it is not there.
    pub fn length(&self, path: &Path) -> u64 {
        fs::metadata(self.path(path)).map_or(0, |meta| meta.len())
    }

    /// At most the last `bytes` of a file, as text; empty when it is not there. For files where others
    /// than root may put a link to a secret, or a fifo that nobody writes: it has to be a regular file,
    /// and `owner`'s where that is known, for a hard link or a linked directory leads elsewhere, too.
    pub fn tail(&self, path: &Path, bytes: u64, owner: Option<u32>) -> Result<String> {
        use std::io::{Seek, SeekFrom};
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(self.path(path)) {
            Ok(file) => file,
            Err(error) if absent(&error) => return Ok(String::new()),
            Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => {
                bail!("{} is a link, and not followed", path.display())
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            bail!("{} is no regular file", path.display());
        }
        if let Some(owner) = owner.filter(|owner| *owner != meta.uid()) {
            bail!("{} is not {}'s, and not read", path.display(), self.user_name(owner));
        }
        let length = meta.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut last = Vec::new();
        file.take(bytes).read_to_end(&mut last)?;
        Ok(String::from_utf8_lossy(&last).into_owned())
    }

    /// How many bytes users other than root can write to the file system of a path, or of the nearest
    /// directory above it; none where the file system does not tell.
    pub fn room(&self, path: &Path) -> Option<u64> {
        let told = path.ancestors().find_map(|dir| nix::sys::statvfs::statvfs(&self.path(dir)).ok())?;
        (told.blocks() > 0).then(|| told.blocks_available() * told.fragment_size())
    }

    /// Where a symbolic link points; none when the path is none.
    pub fn link(&self, path: &Path) -> Option<PathBuf> {
        fs::read_link(self.path(path)).ok()
    }

    /// A path with every link in it resolved; as it is where that leads nowhere.
    pub fn real_path(&self, path: &Path) -> PathBuf {
        fs::canonicalize(self.path(path)).unwrap_or_else(|_| path.to_path_buf())
    }

    /// Whether a user could make files in a directory, by its mode and the mount it lies on (ACLs and
    /// quotas apart).
    pub fn could_write(&self, path: &Path, user: Ids) -> Result<bool> {
        use nix::sys::statvfs::{FsFlags, statvfs};
        let meta =
            fs::metadata(self.path(path)).with_context(|| format!("cannot look at {}", path.display()))?;
        let bits = match (meta.uid() == user.uid, meta.gid() == user.gid) {
            (true, _) => meta.mode() >> 6,
            (false, true) => meta.mode() >> 3,
            (false, false) => meta.mode(),
        };
        let mount =
            statvfs(&self.path(path)).with_context(|| format!("cannot look at {}", path.display()))?;
        Ok(bits & 0o3 == 0o3 && !mount.flags().contains(FsFlags::ST_RDONLY))
    }

    /// The names in a directory, sorted; empty when it is not there.
    pub fn list(&self, path: &Path) -> Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(path)) {
            Ok(entries) => entries,
            Err(error) if absent(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot list {}", path.display())),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Where [`Host::write`] builds a file before it takes its place.
    pub fn staging(path: &Path) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".redis-tp-new");
        path.with_file_name(name)
    }

    /// Puts a file in place, whole or not at all, with its owner and mode from the first moment.
    pub fn write(&self, path: &Path, bytes: &[u8], owner: Ids, mode: u32) -> Result<()> {
        let staged = self.path(&Self::staging(path));
        let write = || -> io::Result<()> {
            match fs::remove_file(&staged) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
            file.write_all(bytes)?;
            fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()?;
            fs::rename(&staged, self.path(path))?;
            sync_parent(&self.path(path))
        };
        write()
            .inspect_err(|_| {
                // A full disk must not keep half a file; what stands in the way of the removal
                // is the error already reported.
                let _ = fs::remove_file(&staged);
            })
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Appends to a file of mode 0600 and waits until it is on the disk.
    pub fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.path(path))
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Makes a directory (its parents must exist), or gives one that exists this owner and mode.
    pub fn directory(&self, path: &Path, owner: Ids, mode: u32) -> Result<()> {
        let real = self.path(path);
        let make = || -> io::Result<()> {
            match fs::DirBuilder::new().mode(0o700).create(&real) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let flags = nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW;
            let dir = OpenOptions::new().read(true).custom_flags(flags).open(&real)?;
            fchown(dir.as_fd(), Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
            dir.set_permissions(fs::Permissions::from_mode(mode))?;
            sync_parent(&real)
        };
        make().with_context(|| format!("cannot make the directory {}", path.display()))
    }

    /// What stands at a path, content and mode from one and the same file: a link is taken as a link, for
    /// behind it, in a directory that a server's user owns, may be anything.
    ///
    /// # Errors
    /// It is neither file nor link.
    pub fn take(&self, path: &Path) -> Result<Option<Taken>> {
        let Some(stat) = self.stat(path)? else { return Ok(None) };
        let ids = Ids { uid: stat.uid, gid: stat.gid };
        if let (Kind::Link, Some(target)) = (stat.kind, self.link(path)) {
            return Ok(Some(Taken::Link { target, ids }));
        }
        let open = || -> io::Result<Taken> {
            let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
            let mut file = OpenOptions::new().read(true).custom_flags(flags).open(self.path(path))?;
            let meta = file.metadata()?;
            if !meta.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
            }
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(Taken::File {
                bytes,
                mode: meta.mode() & 0o7777,
                ids: Ids { uid: meta.uid(), gid: meta.gid() },
            })
        };
        open().map(Some).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Puts back what was taken.
    pub fn put(&self, path: &Path, taken: &Taken) -> Result<()> {
        let (target, ids) = match taken {
            Taken::File { bytes, mode, ids } => return self.write(path, bytes, *ids, *mode),
            Taken::Link { target, ids } => (target, ids),
        };
        let staged = self.path(&Self::staging(path));
        let link = || -> io::Result<()> {
            match fs::remove_file(&staged) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::os::unix::fs::symlink(target, &staged)?;
            std::os::unix::fs::lchown(&staged, Some(ids.uid), Some(ids.gid))?;
            fs::rename(&staged, self.path(path))
        };
        link().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes a report where the caller asked for it: through a link, into a pipe or a device, as `>` does.
    pub fn report(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(path)
            .and_then(|mut file| file.write_all(bytes))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes a file; nothing happens when it is not there.
    pub fn remove(&self, path: &Path) -> Result<()> {
        match fs::remove_file(self.path(path)) {
            Err(error) if !absent(&error) => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes a directory if it is empty; says whether it is gone.
    pub fn remove_empty(&self, path: &Path) -> Result<bool> {
        match fs::remove_dir(self.path(path)) {
            Ok(()) => Ok(true),
            Err(error) if absent(&error) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }

    /// Removes a directory with all that is in it; a link is not followed.
    pub fn remove_tree(&self, path: &Path) -> Result<()> {
        match fs::remove_dir_all(self.path(path)) {
            Err(error) if !absent(&error) => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Renames within one file system.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(self.path(from), self.path(to))
            .and_then(|()| sync_parent(&self.path(to)))
            .with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
    }

    /// A directory for scratch files, root's own: others may enter it and not list it, and nothing in it
    /// can be swapped. Gone when the value is dropped; what a killed run left goes by [`Host::sweep`].
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        // Not TMPDIR: it may be the caller's own, closed to the server's user.
        let run = self.path(Path::new("/run")).is_dir();
        let below = Path::new(if run { SCRATCH } else { "/tmp" });
        let prefix = format!("redis-tp-{}-", self.birth()?.replace(' ', "-"));
        let make = || {
            if run {
                self.directory(below, Ids { uid: self.euid(), ..Ids::ROOT }, 0o711)?;
            }
            // Not under the umask of another proof's socket: its server could not enter.
            let mut scratch = tempfile::Builder::new();
            scratch.prefix(&prefix).permissions(fs::Permissions::from_mode(0o711));
            with_umask(0o022, || scratch.tempdir_in(below)).context("cannot make a scratch directory")
        };
        // Another run's end may have taken the directory above away in between.
        make().or_else(|_| make())
    }

    /// Takes away the scratch directories that killed runs left. A dry run takes no lock, so what a
    /// process that still lives made stays.
    pub fn sweep(&self) -> Result<()> {
        for base in [SCRATCH, "/tmp"].map(Path::new) {
            for name in self.list(base)? {
                let Some((pid, rest)) =
                    name.strip_prefix("redis-tp-").and_then(|maker| maker.split_once('-'))
                else {
                    continue;
                };
                let Some((start, _)) = rest.split_once('-') else { continue };
                let dir = base.join(&name);
                // Anybody may put a directory into /tmp; only root's own is one of ours.
                let ours = self.stat(&dir)?.is_some_and(|stat| stat.uid == 0 && stat.kind == Kind::Dir);
                if ours && self.birth_of(pid) != Some(format!("{pid} {start}")) {
                    self.remove_tree(&dir)?;
                }
            }
        }
        self.scratch_done()
    }

    /// Takes the directory of scratch directories away when none is in it.
    pub fn scratch_done(&self) -> Result<()> {
        self.remove_empty(Path::new(SCRATCH)).map(drop)
    }

    /// This process: its number and its start time, which no other process ever has together.
    pub fn birth(&self) -> Result<String> {
        self.birth_of(&std::process::id().to_string()).context("/proc does not tell when we began")
    }

    /// `PID START` of the process whose number stands first in `pid`; none when it is gone.
    fn birth_of(&self, pid: &str) -> Option<String> {
        let pid: u32 = pid.split_whitespace().next()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the program's name, which may have blanks, comes field 3; the start is field 22.
        let start = stat.rsplit_once(") ")?.1.split_whitespace().nth(19)?;
        Some(format!("{pid} {start}"))
    }

    /// Opens a file for an advisory lock, making it with mode 0600.
    pub fn lock_file(&self, path: &Path) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path(path))
            .with_context(|| format!("cannot open the lock {}", path.display()))
    }

    /// The inode of an open file.
    pub fn inode(&self, file: &File) -> Result<Option<u64>> {
        Ok(Some(file.metadata()?.ino()))
    }

    /// Standard input to its end, for a password or a topology given by `-`.
    pub fn stdin(&self) -> Result<String> {
        let mut text = String::new();
        io::stdin().take(1 << 20).read_to_string(&mut text).context("cannot read standard input")?;
        Ok(text)
    }

    // ---- children ---------------------------------------------------------------------------

    /// Finds a program on PATH, or at an absolute path.
    pub fn which(&self, program: &str) -> Option<PathBuf> {
        let mut all = std::env::var_os("PATH").unwrap_or_default();
        // A student's shell under `su` may lack the directories that hold redis-server and dpkg.
        all.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let below = std::env::join_paths(std::env::split_paths(&all).map(|dir| self.path(&dir))).ok()?;
        let found = which::which_in(program, Some(below), "/").ok()?;
        found.strip_prefix(&self.root).map(|path| Path::new("/").join(path)).ok()
    }

    /// Runs a child to its end. It gets a process group of its own, so that a Ctrl-C at the
    /// terminal ends our run between two steps and not its package manager in the middle of one.
    ///
    /// # Errors
    /// It could not be started, or passed its deadline. A status other than 0 is no error here.
    pub fn run(&self, child: Child) -> Result<Done> {
        let (name, deadline) = (child.program.display().to_string(), child.deadline);
        let handle = start(child).with_context(|| format!("cannot run {name}"))?;
        if handle.wait_timeout(deadline).with_context(|| format!("cannot wait for {name}"))?.is_none() {
            handle.kill().with_context(|| format!("cannot end {name}"))?;
            bail!("{name} did not end within {} s", deadline.as_secs());
        }
        finish(handle, &name)
    }

    /// Runs a child until `ready` says so, then ends it (none), or until it ends by itself.
    ///
    /// # Errors
    /// It could not be started, or was neither ready nor gone at its deadline.
    pub fn run_until(&self, child: Child, mut ready: impl FnMut() -> bool) -> Result<Option<Done>> {
        let (name, deadline) = (child.program.display().to_string(), Instant::now() + child.deadline);
        let handle = start(child).with_context(|| format!("cannot run {name}"))?;
        loop {
            if ready() {
                handle
                    .kill()
                    .and_then(|()| handle.wait().map(drop))
                    .with_context(|| format!("cannot end {name}"))?;
                return Ok(None);
            }
            if handle.try_wait()?.is_some() {
                return finish(handle, &name).map(Some);
            }
            if Instant::now() >= deadline || self.interrupted() {
                handle
                    .kill()
                    .and_then(|()| handle.wait().map(drop))
                    .with_context(|| format!("cannot end {name}"))?;
                bail!("{name} was not ready in time");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Replaces this process by another program, with one more variable in its environment.
    /// Returns only if that failed.
    pub fn exec(&self, program: &Path, args: &[String], env: Option<(&str, &Secret)>) -> anyhow::Error {
        let mut command = std::process::Command::new(program);
        command.args(args);
        if let Some((name, value)) = env {
            command.env(name, value.expose());
        }
        anyhow::Error::new(command.exec()).context(format!("cannot run {}", program.display()))
    }

    /// Sends a signal; a process that is gone already is no error.
    pub fn signal(&self, pid: u32, signal: Signal) -> Result<()> {
        match kill(Pid::from_raw(i32::try_from(pid)?), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal process {pid}")),
        }
    }

    // ---- users, clock, environment ----------------------------------------------------------

    /// The effective user of this process.
    pub fn euid(&self) -> u32 {
        Uid::effective().as_raw()
    }

    /// The numbers of a user and its primary group.
    pub fn user(&self, name: &str) -> Result<Option<Ids>> {
        let user = User::from_name(name).with_context(|| format!("cannot look up the user {name}"))?;
        Ok(user.map(|user| Ids { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
    }

    /// The number of a group.
    pub fn group(&self, name: &str) -> Result<Option<u32>> {
        let group = Group::from_name(name).with_context(|| format!("cannot look up the group {name}"))?;
        Ok(group.map(|group| group.gid.as_raw()))
    }

    /// The name of a user, or the number where there is none.
    pub fn user_name(&self, uid: u32) -> String {
        User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
    }

    /// A variable of our environment, if it is set and not empty.
    pub fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    /// Seconds since 1970.
    pub fn unix_time(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// A point on the monotonic clock.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Sleeps, but not through an interruption.
    pub fn sleep(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.interrupted() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    /// Asks again and again, at growing intervals from 1 to 25 ms, until there is an answer or the
    /// deadline has passed (none).
    ///
    /// # Errors
    /// What `ask` returns, and an interruption.
    pub fn poll<T>(
        &self,
        deadline: Duration,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let end = Instant::now() + deadline;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(answer) = ask()? {
                return Ok(Some(answer));
            }
            if self.interrupted() {
                bail!("interrupted");
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(25));
        }
    }

    /// 256 bits from the kernel, as 64 hexadecimal digits.
    pub fn generate_password(&self) -> Result<Secret> {
        Ok(Secret::new(self.random_hex(32)?))
    }

    /// Random bytes from the kernel, in hexadecimal digits.
    pub fn random_hex(&self, bytes: usize) -> Result<String> {
        let mut raw = vec![0; bytes];
        File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut raw))
            .context("cannot read /dev/urandom")?;
        Ok(raw.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// From now on SIGINT, SIGTERM and SIGHUP only raise a flag; the run ends between two steps.
    pub fn catch_signals(&self) -> Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&self.interrupted))
                .context("cannot catch signals")?;
        }
        Ok(())
    }

    /// Whether a signal asked us to end.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// From now on an interruption is forgotten: the way back must be walked to its end.
    pub fn ignore_interruption(&self) {
        self.interrupted.store(false, Ordering::Relaxed);
    }

    // ---- sockets ----------------------------------------------------------------------------

    /// Connects to a Redis server, without a word said yet (no AUTH, no CLIENT SETINFO).
    pub fn connect(&self, host: &str, port: u16, timeout: Duration) -> redis::RedisResult<redis::Connection> {
        let settings = redis::RedisConnectionInfo::default().set_skip_set_lib_name();
        let info =
            redis::IntoConnectionInfo::into_connection_info((host, port))?.set_redis_settings(settings);
        let connection = redis::Client::open(info)?.get_connection_with_timeout(timeout)?;
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        Ok(connection)
    }

    /// Asks the kernel which sockets there are (sock_diag(7)), and hands over its answer, a packet at a
    /// time, until `take` has enough.
    ///
    /// # Errors
    /// This kernel, or what confines us, does not let us ask.
    pub fn sock_diag(&self, request: &[u8], mut take: impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
        use nix::sys::socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
        };
        if self.root != Path::new("/") {
            bail!("the kernel knows nothing of {}", self.root.display());
        }
        let kernel = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        send(kernel.as_raw_fd(), request, MsgFlags::empty())?;
        let mut packet = vec![0; 1 << 15];
        loop {
            // The answer is there as soon as it was asked for: nothing to wait for.
            let length = recv(kernel.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?;
            if !take(packet.get(..length).unwrap_or_default())? {
                return Ok(());
            }
        }
    }

    /// Connects to the system bus; none where there is none.
    pub fn system_bus(&self) -> Option<rustbus::RpcConn> {
        let timeout = rustbus::connection::Timeout::Duration(Duration::from_secs(2));
        let path = rustbus::connection::get_system_bus_path().ok()?;
        rustbus::RpcConn::connect_to_path(path, timeout).ok()
    }

    /// Whether an address can be bound on this machine: an absent address, or IPv6 switched off,
    /// is not. Nothing listens on it afterwards.
    pub fn can_bind(&self, address: std::net::IpAddr) -> bool {
        std::net::UdpSocket::bind((address, 0)).is_ok()
    }

    /// A datagram socket at `path`, for systemd's notification protocol (sd_notify(3)).
    pub fn datagram(&self, path: &Path) -> Result<std::os::unix::net::UnixDatagram> {
        // Open to all from the first moment: a chmod later, by path, could meet another file.
        let bound = with_umask(0o111, || std::os::unix::net::UnixDatagram::bind(path));
        let socket = bound.with_context(|| format!("cannot bind {}", path.display()))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

fn start(child: Child) -> io::Result<duct::Handle> {
    let Child { mut program, mut args, env, stdin, user, umask, mortal, .. } = child;
    // prctl(2) after the change of user, which undoes it, and without code that is unsafe: util-linux's.
    let setpriv = Path::new("/usr/bin/setpriv");
    if mortal && setpriv.exists() {
        let head = ["--pdeathsig".into(), "KILL".into(), "--".into(), program.into_os_string()];
        args = head.into_iter().chain(args).collect();
        program = setpriv.to_path_buf();
    }
    let mut vars: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ("LC_ALL".into(), "C.UTF-8".into()),
        ("HOME".into(), "/root".into()),
    ];
    vars.extend(env.into_iter().map(|(name, value)| (OsString::from(name), value)));
    // As a string: duct takes a bare name in a PathBuf for a file of the working directory.
    let expression = duct::cmd(program.into_os_string(), args)
        .full_env(vars)
        .dir("/")
        .stdout_capture()
        .stderr_capture()
        .unchecked()
        .before_spawn(move |command| {
            command.process_group(0);
            if let Some(ids) = user {
                command.gid(ids.gid).uid(ids.uid);
            }
            Ok(())
        });
    let expression = match stdin {
        Some(bytes) => expression.stdin_bytes(bytes),
        None => expression.stdin_null(),
    };
    // Under the lock in any case: no child may be born with the umask of another thread's moment.
    with_umask(if umask { 0o027 } else { 0o022 }, || expression.start())
}

/// Does something under an umask, alone.
fn with_umask<T>(mask: nix::libc::mode_t, act: impl FnOnce() -> T) -> T {
    use nix::sys::stat::{Mode, umask};
    let _alone = UMASK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = umask(Mode::from_bits_truncate(mask));
    let done = act();
    umask(before);
    done
}

fn finish(handle: duct::Handle, name: &str) -> Result<Done> {
    let output = handle.into_output().with_context(|| format!("cannot read what {name} printed"))?;
    Ok(Done {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
