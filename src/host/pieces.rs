//! A long file, looked through piece by piece. A part of the one module with effects.

#![allow(clippy::disallowed_methods)]

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Host;

/// How long a piece is, and how much of it the next one has again, in bytes: what is looked for may stand on both
/// sides of a border.
const PIECE: usize = 1 << 20;
const AGAIN: usize = 2 << 10;

/// How far a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// How much of it, in bytes.
    pub bytes: u64,
    /// There is more.
    pub cut: bool,
}

impl Host {
    /// Hands over a regular file's bytes, a piece at a time, until `take` has enough or `most` bytes were read. By now it
    /// may be a fifo that nobody writes to, and a log may have no end.
    ///
    /// # Errors
    /// Unreadable, or no regular file.
    pub fn pieces(&self, path: &Path, most: u64, mut take: impl FnMut(&[u8]) -> bool) -> Result<Passed> {
        let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(self.path(path));
        let file = opened.with_context(|| format!("cannot read {}", path.display()))?;
        if !file.metadata()?.is_file() {
            bail!("{} is no regular file", path.display());
        }
        let mut rest = file.take(most.saturating_add(1));
        let (mut piece, mut kept, mut bytes) = (Vec::new(), 0, 0);
        loop {
            piece.drain(..kept);
            let read = rest.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
            bytes += read as u64;
            if read == 0 || take(&piece) {
                return Ok(Passed { bytes, cut: bytes > most });
            }
            kept = piece.len().saturating_sub(AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_both_sides_of_a_border_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(dir.path());
        let mut text = vec![b'x'; PIECE - 3];
        text.extend(b"needle");
        text.extend(vec![b'x'; PIECE]);
        std::fs::write(dir.path().join("long"), &text).unwrap();
        let look = |most: u64| {
            let mut found = false;
            let passed = host.pieces(Path::new("/long"), most, |piece| {
                found |= piece.windows(6).any(|window| window == b"needle");
                false
            });
            (found, passed.unwrap())
        };
        let bytes = text.len() as u64;
        assert_eq!(look(1 << 30), (true, Passed { bytes, cut: false }));
        assert!(!look(bytes).1.cut);
        assert!(look(100).1.cut);
        assert!(host.pieces(Path::new("/"), 1, |_| true).is_err());
    }
}
