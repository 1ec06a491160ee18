//! A file that is written piece by piece and takes its place whole, or not at all: for what is too large for
//! the memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

use super::files::{give, sync_parent};
use super::way::Way;
use super::{Host, Ids};

/// A file on its way; dropped before its end, it is gone.
#[derive(Debug)]
pub struct Staged {
    file: File,
    way: Way,
    path: PathBuf,
    done: bool,
}

impl Host {
    /// Begins a file that is to be at `path`, of this owner and mode from the first byte.
    pub fn stage(&self, path: &Path, owner: Ids, mode: u32) -> Result<Staged> {
        let begin = || -> io::Result<Staged> {
            let way = self.way(path)?;
            let staged = Self::staging(way.path());
            match fs::remove_file(&staged) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
            let begun = Staged { file, way, path: self.path(path), done: false };
            give(&begun.file, Some(owner), Some(mode))?;
            Ok(begun)
        };
        begin().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Opens a regular file to read it, and follows no link.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn open(&self, path: &Path) -> Result<File> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(self.path(path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => bail!("{} is no regular file", path.display()),
        }
    }

    /// Copies a regular file into one on its way. It must be this user's, if one is given: in a directory of
    /// another, anything may be put in its place.
    ///
    /// # Errors
    /// It is no such file, or cannot be read; the disk is full.
    pub fn copy_into(&self, from: &Path, owner: Option<u32>, into: &mut Staged) -> Result<u64> {
        let mut file = self.open(from)?;
        let found = file.metadata()?.uid();
        if let Some(owner) = owner.filter(|owner| *owner != found) {
            bail!("{} is {}'s, not {}'s", from.display(), self.user_name(found), self.user_name(owner));
        }
        io::copy(&mut file, &mut into.file).with_context(|| format!("cannot copy {}", from.display()))
    }
}

impl Staged {
    /// Where it is until it takes its place.
    pub fn at(&self) -> PathBuf {
        Host::staging(&self.path)
    }

    /// The same, in the directory that is held.
    fn staged(&self) -> PathBuf {
        Host::staging(self.way.path())
    }

    /// What it has so far, to read.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn again(&self) -> Result<File> {
        let same = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        File::open(same).with_context(|| format!("cannot read what {} is to be", self.path.display()))
    }

    /// Leaves it where it is, on the disk, for a rename of its own.
    ///
    /// # Errors
    /// The disk is full, or in trouble.
    pub fn keep(mut self) -> Result<()> {
        self.file.sync_all().with_context(|| format!("cannot write {}", self.path.display()))?;
        self.done = true;
        Ok(())
    }

    /// Puts it in its place, on the disk; never over another file.
    ///
    /// # Errors
    /// There is one; the disk is full, or in trouble.
    pub fn finish_new(mut self) -> Result<()> {
        self.file
            .sync_all()
            .and_then(|()| self.place())
            .and_then(|()| sync_parent(self.way.path()))
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.done = true;
        Ok(())
    }

    fn place(&self) -> io::Result<()> {
        // The file that was checked, whatever stands by its name now.
        let checked = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        match linkat(AT_FDCWD, checked.as_str(), AT_FDCWD, self.way.path(), AtFlags::AT_SYMLINK_FOLLOW) {
            Ok(()) => fs::remove_file(self.staged()),
            // A file system without such links.
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                match fs::symlink_metadata(self.way.path()) {
                    Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
                    Err(_) => fs::rename(self.staged(), self.way.path()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.done {
            // What failed is the error to report; what stays here goes by the journal.
            let _ = fs::remove_file(self.staged());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_was_written_takes_the_place_and_no_other_ones() {
        let root = tempfile::tempdir().unwrap();
        let (host, path) = (Host::at(root.path()), Path::new("/b.rdb"));
        let there = || fs::read_to_string(root.path().join("b.rdb")).unwrap();
        let staged = || {
            let mut staged = host.stage(path, own(), 0o600).unwrap();
            staged.write_all(b"ours").unwrap();
            staged
        };
        let first = staged();
        // Whoever may write to the directory swaps it.
        fs::remove_file(first.at()).unwrap();
        fs::write(first.at(), "theirs").unwrap();
        assert!(first.finish_new().is_err(), "what was checked is gone");
        assert!(!root.path().join("b.rdb").exists());
        let second = staged();
        fs::rename(second.at(), root.path().join("aside")).unwrap();
        fs::write(second.at(), "theirs").unwrap();
        second.finish_new().unwrap();
        assert_eq!(there(), "ours");
        fs::write(root.path().join("b.rdb"), "another's").unwrap();
        assert!(staged().finish_new().is_err());
        assert_eq!(there(), "another's");
        assert!(!Host::staging(&root.path().join("b.rdb")).exists());
    }

    fn own() -> Ids {
        Ids { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }
}
