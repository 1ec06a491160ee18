//! Files and directories: looked at, written whole or not at all, taken and put back. A part of the one
//! module with effects.

#![allow(clippy::disallowed_methods)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Gid, Uid, fchown};

use super::way::{self, Way};
use super::{Host, Ids, Kind, Stat, Taken, with_umask};
use crate::exit::Fault;
use crate::layout;

/// The longest file that is read into memory, in bytes: dpkg's status has some MiB, all others are far
/// shorter.
const LARGEST: u64 = 64 << 20;

/// Where a scratch directory is where there is no better place.
const TMP: &str = "/tmp";

impl Host {
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
                links: meta.nlink(),
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

    /// The bytes of a regular file; none when it is not there.
    ///
    /// # Errors
    /// Unreadable, no regular file, or longer than 64 MiB.
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.try_open(path)? else { return Ok(None) };
        let meta = file.metadata().map_err(|error| unreadable(path, error))?;
        // Nobody may ever write to a fifo, and a device may have no end.
        if !meta.is_file() && !meta.is_dir() {
            return Err(misplaced(path, &format!("{} is no regular file", path.display())));
        }
        let mut bytes = Vec::new();
        match file.take(LARGEST + 1).read_to_end(&mut bytes) {
            // A file of /proc whose process has ended since.
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return Ok(None),
            read => read.map_err(|error| unreadable(path, error))?,
        };
        short(path, bytes).map(Some)
    }

    /// The text of a regular file; none when it is not there.
    ///
    /// # Errors
    /// See [`Host::read`]; or not UTF-8.
    pub fn text(&self, path: &Path) -> Result<Option<String>> {
        self.read(path)?.map(|bytes| utf8(path, bytes)).transpose()
    }

    /// The text of a file that the caller names: a pipe, as `<(…)` makes one, is read to its end.
    ///
    /// # Errors
    /// Unreadable, longer than 64 MiB, or not UTF-8; interrupted.
    pub fn given(&self, path: &Path) -> Result<Option<String>> {
        let Some(file) = self.try_open(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        self.drain(file, &mut bytes)?.map_err(|error| unreadable(path, error))?;
        utf8(path, short(path, bytes)?).map(Some)
    }

    fn try_open(&self, path: &Path) -> Result<Option<File>> {
        // A fifo that nobody writes to would hold up the open.
        match OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(self.path(path)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(unreadable(path, error)),
        }
    }

    /// The text of a file that others write and that may have any bytes in it; none when it is not there.
    ///
    /// # Errors
    /// Unreadable.
    pub fn lossy(&self, path: &Path) -> Result<Option<String>> {
        Ok(self.read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// When a file or directory was last changed, in seconds since 1970.
    pub fn modified(&self, path: &Path) -> Option<u64> {
        let changed = fs::symlink_metadata(self.path(path)).ok()?.modified().ok()?;
        Some(changed.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs())
    }

    /// How long a file is; 0 when it is not there.
    pub fn length(&self, path: &Path) -> u64 {
        fs::metadata(self.path(path)).map_or(0, |meta| meta.len())
    }

    /// At most the first `bytes` of a regular file; none when it is not there.
    pub fn beginning(&self, path: &Path, bytes: u64) -> Result<Option<Vec<u8>>> {
        let file =
            match OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(self.path(path)) {
                Ok(file) => file,
                Err(error) if absent(&error) => return Ok(None),
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
            };
        if !file.metadata()?.is_file() {
            bail!("{} is no regular file", path.display());
        }
        let mut first = Vec::new();
        file.take(bytes).read_to_end(&mut first)?;
        Ok(Some(first))
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

    /// Whether this process may make files in a directory, by all of its groups.
    pub fn may_write(&self, path: &Path) -> bool {
        use nix::unistd::{AccessFlags, access};
        access(&self.path(path), AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
    }

    /// Whether a file may not be written to by its owner or root, whatever its mode.
    pub fn is_immutable(&self, path: &Path) -> bool {
        use nix::errno::Errno::{EPERM, EROFS};
        use nix::unistd::{AccessFlags, access};
        matches!(access(&self.path(path), AccessFlags::W_OK), Err(EPERM | EROFS))
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
        let write = |way: &Way, staged: &Path| -> io::Result<()> {
            match fs::remove_file(staged) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(staged)?;
            file.write_all(bytes)?;
            give(&file, Some(owner), Some(mode))?;
            file.sync_all()?;
            fs::rename(staged, way.path())?;
            sync_parent(way.path())
        };
        let whole = || -> io::Result<()> {
            let way = self.way(path)?;
            let staged = Self::staging(way.path());
            write(&way, &staged).inspect_err(|_| {
                // A full disk must not keep half a file; what stands in the way of the removal
                // is the error already reported.
                let _ = fs::remove_file(&staged);
            })
        };
        whole().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Appends to a file of mode 0600 and waits until it is on the disk: all of it, or nothing.
    pub fn append(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let append = || -> io::Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.path(path))?;
            let before = file.metadata()?.len();
            file.write_all(bytes).and_then(|()| file.sync_data()).inspect_err(|_| {
                // Half a line would swallow the next one; the error to report is the first.
                let _ = file.set_len(before);
            })
        };
        append().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Cuts a file off behind so many bytes.
    pub fn shorten(&self, path: &Path, bytes: usize) -> Result<()> {
        OpenOptions::new()
            .write(true)
            .open(self.path(path))
            .and_then(|file| file.set_len(bytes as u64))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Makes a directory (its parents must exist), or gives one that exists this owner and mode.
    pub fn directory(&self, path: &Path, owner: Ids, mode: u32) -> Result<()> {
        let make = || -> io::Result<()> {
            let way = self.way(path)?;
            match fs::DirBuilder::new().mode(0o700).create(way.path()) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let flags = nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW;
            let dir = OpenOptions::new().read(true).custom_flags(flags).open(way.path())?;
            give(&dir, Some(owner), Some(mode))?;
            sync_parent(way.path())
        };
        make().with_context(|| format!("cannot make the directory {}", path.display()))
    }

    /// Gives a file or directory that was looked at this owner and this mode, if any; says whether it is still
    /// there. No link is followed, and no file is taken that has a second name: whoever may write to its
    /// directory chose what stands there now.
    pub fn own(&self, path: &Path, inode: u64, owner: Option<Ids>, mode: Option<u32>) -> Result<bool> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let change = || -> io::Result<bool> {
            let way = self.way(path)?;
            let file = OpenOptions::new().read(true).custom_flags(flags).open(way.path())?;
            let meta = file.metadata()?;
            if !(meta.is_dir() || (meta.is_file() && meta.nlink() == 1)) {
                return Err(way::astray("it is no plain file with one name".to_owned()));
            }
            // Of journals from before it was noted, 0.
            if inode != 0 && meta.ino() != inode {
                return Ok(false);
            }
            give(&file, owner, mode).map(|()| true)
        };
        change().with_context(|| format!("cannot change {}", path.display()))
    }

    /// Gives a file or directory back what it had. What is another by now is somebody else's matter.
    pub fn give_back(&self, path: &Path, inode: u64, owner: Ids, mode: u32) -> Result<()> {
        match self.own(path, inode, Some(owner), Some(mode)) {
            Err(error)
                if error.downcast_ref().is_some_and(|error| absent(error) || way::is_led_astray(error)) =>
            {
                Ok(())
            }
            done => done.map(drop),
        }
    }

    /// What stands at a path, content and mode from one and the same file: a link is taken as a link, for
    /// behind it, in a directory that a server's user owns, may be anything.
    ///
    /// # Errors
    /// It is neither file nor link.
    pub fn take(&self, path: &Path) -> Result<Option<Taken>> {
        let Some(stat) = self.stat(path)? else { return Ok(None) };
        let ids = stat.ids();
        if let (Kind::Link, Some(target)) = (stat.kind, self.link(path)) {
            return Ok(Some(Taken::Link { target, ids }));
        }
        let open = || -> io::Result<Taken> {
            let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
            let way = self.way(path)?;
            let mut file = OpenOptions::new().read(true).custom_flags(flags).open(way.path())?;
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
        let link = || -> io::Result<()> {
            let way = self.way(path)?;
            let staged = Self::staging(way.path());
            match fs::remove_file(&staged) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::os::unix::fs::symlink(target, &staged)?;
            std::os::unix::fs::lchown(&staged, Some(ids.uid), Some(ids.gid))?;
            fs::rename(&staged, way.path())
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
        match self.way(path).and_then(|way| fs::remove_file(way.path())) {
            // On a read-only file system, what is not there cannot be removed either.
            Err(error) if !absent(&error) && fs::symlink_metadata(self.path(path)).is_ok() => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes a directory if it is empty; says whether it is gone.
    pub fn remove_empty(&self, path: &Path) -> Result<bool> {
        match self.way(path).and_then(|way| fs::remove_dir(way.path())) {
            Ok(()) => Ok(true),
            Err(error) if absent(&error) => Ok(true),
            // A disk of its own is mounted there.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }

    /// Removes a directory with all that is in it; a link is not followed.
    pub fn remove_tree(&self, path: &Path) -> Result<()> {
        match self.way(path).and_then(|way| fs::remove_dir_all(way.path())) {
            // A disk of its own is mounted there, and has nothing on it any more.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && self.list(path)?.is_empty() => {
                Ok(())
            }
            Err(error) if !absent(&error) => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Moves a file into its place within one file system, with an owner and a mode.
    pub fn move_into(&self, from: &Path, to: &Path, owner: Ids, mode: u32) -> Result<()> {
        self.own(from, 0, Some(owner), Some(mode))?;
        self.rename(from, to)
    }

    /// Renames within one file system.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let rename = || -> io::Result<()> {
            let (from, to) = (self.way(from)?, self.way(to)?);
            fs::rename(from.path(), to.path())?;
            sync_parent(to.path())
        };
        rename().with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
    }

    /// A directory for scratch files, our own: others may enter it and not list it, and nothing in it
    /// can be swapped. Gone when the value is dropped; what a killed run left goes by [`Host::sweep`].
    pub fn scratch(&self) -> Result<tempfile::TempDir> {
        // Not TMPDIR: it may be the caller's own, closed to the server's user.
        let here = layout::here();
        let run =
            here.scratch.as_deref().filter(|dir| dir.parent().is_some_and(|run| self.path(run).is_dir()));
        let below = run.unwrap_or(Path::new(TMP));
        let prefix = format!("redis-tp-{}-", self.birth()?.replace(' ', "-"));
        let make = || {
            if run.is_some() {
                self.directory(below, Ids { uid: self.euid(), ..here.own() }, 0o711)?;
            }
            // Not under the umask of another proof's socket: its server could not enter.
            let mut scratch = tempfile::Builder::new();
            scratch.prefix(&prefix).permissions(fs::Permissions::from_mode(0o711));
            with_umask(0o022, || scratch.tempdir_in(below)).context("cannot make a scratch directory")
        };
        // Another run's end may have taken the directory above away in between.
        make().or_else(|_| make())
    }

    /// Takes a scratch directory away; what a disk in trouble does not let go, goes with the next run.
    pub fn end_scratch(&self, scratch: tempfile::TempDir) {
        let path = scratch.keep();
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_dir_all(&path));
    }

    /// Takes away the scratch directories that killed runs left. A dry run takes no lock, so what a
    /// process that still lives made stays.
    pub fn sweep(&self) -> Result<()> {
        let here = layout::here();
        for base in here.scratch.as_deref().into_iter().chain([Path::new(TMP)]) {
            for name in self.list(base)? {
                let Some((pid, rest)) =
                    name.strip_prefix("redis-tp-").and_then(|maker| maker.split_once('-'))
                else {
                    continue;
                };
                let Some((start, _)) = rest.split_once('-') else { continue };
                let dir = base.join(&name);
                // Anybody may put a directory into /tmp; only our own user's is one of ours.
                let own = here.own().uid;
                let ours = self.stat(&dir)?.is_some_and(|stat| stat.uid == own && stat.kind == Kind::Dir);
                if ours && self.birth_of(pid) != Some(format!("{pid} {start}")) {
                    self.remove_tree(&dir)?;
                }
            }
        }
        self.scratch_done();
        Ok(())
    }

    /// Takes the directory of scratch directories away when none is in it. A disk in trouble may keep it until
    /// the next run: that is no reason to fail.
    pub fn scratch_done(&self) {
        if let Some(dir) = layout::here().scratch.as_deref() {
            let _ = self.remove_empty(dir).or_else(|_| self.remove_empty(dir));
        }
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
        let mut bytes = Vec::new();
        self.drain(io::stdin(), &mut bytes)?.context("cannot read standard input")?;
        match String::from_utf8(bytes) {
            Ok(text) if text.len() as u64 <= LARGEST => Ok(text),
            Ok(_) => bail!("standard input is longer than {} MiB", LARGEST >> 20),
            Err(_) => bail!("standard input is not UTF-8 text"),
        }
    }

    /// Reads to the end, or a byte more than [`LARGEST`], but not through an interruption: a signal that is
    /// caught does not end a read.
    fn drain(&self, mut from: impl Read + AsFd, bytes: &mut Vec<u8>) -> Result<io::Result<()>> {
        let mut buffer = vec![0; 1 << 16];
        while bytes.len() as u64 <= LARGEST {
            if self.interrupted() {
                bail!("interrupted");
            }
            let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(50_u8)) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Ok(Err(error.into())),
            }
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }
}

/// Why a file cannot be read; with a cure where something else stands in its place.
fn unreadable(path: &Path, error: io::Error) -> anyhow::Error {
    let what = format!("cannot read {}", path.display());
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EISDIR | Errno::ELOOP) => misplaced(path, &format!("{what}: {error}")),
        _ => anyhow::Error::new(error).context(what),
    }
}

fn short(path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>> {
    match bytes.len() as u64 > LARGEST {
        true => Err(misplaced(path, &format!("{} is longer than {} MiB", path.display(), LARGEST >> 20))),
        false => Ok(bytes),
    }
}

fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| misplaced(path, &format!("{} is not UTF-8 text", path.display())))
}

fn misplaced(path: &Path, what: &str) -> anyhow::Error {
    let cure = format!(
        "look at it, and move it away if you do not need it there:\nmv {0} {0}.aside",
        path.display()
    );
    Fault::refused(what).hint(cure).into()
}

/// Gives an open file an owner, a mode, or both.
pub(super) fn give(file: &File, owner: Option<Ids>, mode: Option<u32>) -> io::Result<()> {
    if let Some(Ids { uid, gid }) = owner {
        fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    mode.map_or(Ok(()), |mode| file.set_permissions(fs::Permissions::from_mode(mode)))
}

pub(super) fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
