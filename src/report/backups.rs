//! Backups, two lines each: what is in it, and where it is.

use serde::Serialize;

use super::console::{BAD, FAINT, styled};
use super::text::{bytes, columns, grouped};

/// A backup.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The instance.
    pub instance: String,
    /// When it was taken, as its name tells.
    pub taken: String,
    /// The file.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// None where no program of its engine is here to count them.
    pub keys: Option<u64>,
    /// The server that wrote it.
    pub writer: Option<String>,
    /// Why it cannot be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The lines of some backups, and one for all of them.
pub fn lines(entries: &[Entry]) -> Vec<String> {
    let widest =
        |cell: fn(&Entry) -> String| entries.iter().map(|entry| columns(&cell(entry))).max().unwrap_or(0);
    let (name, count) = (widest(|entry| entry.instance.clone()), widest(keys));
    let mut lines = Vec::new();
    for entry in entries {
        let what = match &entry.trouble {
            None => {
                let writer = entry.writer.as_deref().unwrap_or_default();
                let unit = if entry.keys == Some(1) { "key " } else { "keys" };
                format!("{:>count$} {unit}  {:>8}  {writer}", keys(entry), bytes(entry.bytes))
            }
            Some(why) => styled(BAD, why),
        };
        lines.push(format!("{:<name$}  {}  {}", entry.instance, entry.taken, what.trim_end()));
        lines.push(format!("{:name$}  {}", "", styled(FAINT, &entry.path)));
    }
    let all = entries.iter().map(|entry| entry.bytes).sum();
    let what = if entries.len() == 1 { "backup" } else { "backups" };
    lines.push(format!("{} {what}, {}", entries.len(), bytes(all)));
    lines
}

fn keys(entry: &Entry) -> String {
    entry.keys.map_or_else(|| "?".into(), grouped)
}
