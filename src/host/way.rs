//! The way to a file that is to be changed. Whoever owns a directory chooses what its names stand for: a link
//! there could lead what root writes, removes or hands over to anywhere. So only root's links, and our own,
//! are followed, and the directory is held from the look to the effect.

#![allow(clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::{getegid, geteuid};

use super::Host;

/// As many links as the kernel follows (path_resolution(7)).
const LINKS: usize = 40;

/// A path whose directory is held open.
#[derive(Debug)]
pub(super) struct Way {
    /// Keeps the number in `path` what it is.
    _directory: OwnedFd,
    path: PathBuf,
}

impl Way {
    /// The path by which the kernel finds it, whatever becomes of its directory's name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Host {
    /// The way to a path whose directory is there.
    ///
    /// # Errors
    /// A directory is not there, or cannot be entered; a link on the way is in a directory of another user's.
    pub(super) fn way(&self, path: &Path) -> io::Result<Way> {
        let real = self.path(path);
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(astray("it is no name in a directory".to_owned()));
        };
        let directory = enter(parent)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        Ok(Way { _directory: directory, path })
    }
}

/// What is at a path is not what it was taken for.
#[derive(Debug)]
struct Astray(String);

impl std::fmt::Display for Astray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Astray {}

/// An error that says so.
pub(super) fn astray(what: String) -> io::Error {
    io::Error::other(Astray(what))
}

/// Whether an error says that a path leads through a link which is not to be followed, or to one.
pub(super) fn is_led_astray(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Astray>())
        || error.raw_os_error() == Some(nix::libc::ELOOP)
}

/// Opens a directory name by name.
fn enter(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let top = || nix::fcntl::open("/", flags | OFlag::O_DIRECTORY, Mode::empty());
    let (mut here, mut followed) = (top()?, 0);
    let mut names = names(path);
    let mut at = PathBuf::from("/");
    while let Some(name) = names.pop_front() {
        let next = openat(&here, name.as_os_str(), flags, Mode::empty())?;
        let stat = fstat(&next)?;
        if kind(&stat) != nix::libc::S_IFLNK {
            here = next;
            at.push(name);
            continue;
        }
        followed += 1;
        if followed > LINKS {
            return Err(nix::errno::Errno::ELOOP.into());
        }
        if !is_trusted(&fstat(&here)?) {
            return Err(astray(format!(
                "{} is a link, and who may write to its directory could let it lead anywhere",
                at.join(&name).display()
            )));
        }
        let target = PathBuf::from(readlinkat(&here, name.as_os_str())?);
        if target.is_absolute() {
            here = top()?;
            at = PathBuf::from("/");
        }
        for name in self::names(&target).into_iter().rev() {
            names.push_front(name);
        }
    }
    match kind(&fstat(&here)?) {
        nix::libc::S_IFDIR => Ok(here),
        _ => Err(nix::errno::Errno::ENOTDIR.into()),
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    let named = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(named).collect()
}

fn kind(stat: &FileStat) -> nix::libc::mode_t {
    stat.st_mode & nix::libc::S_IFMT
}

/// Whether nobody but root and us could have put a link into a directory.
fn is_trusted(directory: &FileStat) -> bool {
    let groups = directory.st_mode & 0o020 != 0 && ![0, getegid().as_raw()].contains(&directory.st_gid);
    [0, geteuid().as_raw()].contains(&directory.st_uid) && directory.st_mode & 0o002 == 0 && !groups
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn only_a_link_that_nobody_else_can_have_put_there_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, open) = (dir.path().join("ours"), dir.path().join("open"));
        fs::create_dir(&ours).unwrap();
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        symlink("ours", dir.path().join("link")).unwrap();
        symlink(&ours, open.join("link")).unwrap();
        symlink("round", dir.path().join("round")).unwrap();

        let host = Host::real();
        let there = |path: &str| host.way(&dir.path().join(path).join("file"));
        fs::write(there("ours").unwrap().path(), "a").unwrap();
        fs::write(there("link").unwrap().path(), "b").unwrap();
        assert_eq!(fs::read_to_string(ours.join("file")).unwrap(), "b");
        assert!(is_led_astray(&there("open/link").unwrap_err()));
        assert!(is_led_astray(&there("round").unwrap_err()));
        assert_eq!(there("ours/file").unwrap_err().raw_os_error(), Some(nix::libc::ENOTDIR));
        assert_eq!(there("nowhere").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_to_string(there("open/../ours").unwrap().path()).unwrap(), "b");

        // Its mode says nothing of that: whoever owns it can change that.
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        if chown(&open, Some(12345), None).is_ok() {
            assert!(is_led_astray(&there("open/link").unwrap_err()));
        }
    }
}
