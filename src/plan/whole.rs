//! A file that is ours from end to end, a unit or settings, in the light of three states: what we last
//! wrote, what is there, what is wanted.

use std::path::Path;

use super::{Note, Wanted};
use crate::facts::Facts;
use crate::secret::Secret;

/// Whether it has to be written. One that somebody's hand changed is noted and kept; `same` says whether
/// two texts mean the same.
pub fn is_due(
    wanted: &Wanted<'_>,
    facts: &Facts,
    path: &Path,
    want: &str,
    same: fn(&str, &str) -> bool,
    notes: &mut Vec<Note>,
) -> bool {
    let last = facts.written.get(path).map(Secret::expose);
    match facts.text(path) {
        None => true,
        Some(there) if same(there, want) => false,
        Some(_) if wanted.consent.overwrite => true,
        Some(there) if last.is_some_and(|last| same(there, last)) => true,
        Some(_) => {
            notes.push(Note::FileEdited { file: path.to_path_buf() });
            false
        }
    }
}
