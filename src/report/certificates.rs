//! Certificates, two lines each: until when one holds, and where it is.

use serde::Serialize;

use super::console::{BAD, FAINT, styled};
use super::text::columns;
use crate::moment;

/// A certificate.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Whose it is.
    pub holder: String,
    /// The file.
    pub file: String,
    /// When it begins to hold, in seconds since 1970.
    pub from: u64,
    /// When it ends.
    pub until: u64,
    /// How many days are left.
    pub days_left: u64,
    /// Whether another is to take its place now.
    pub due: bool,
}

/// The lines of some certificates.
pub fn lines(entries: &[Entry]) -> Vec<String> {
    let widest = entries.iter().map(|entry| columns(&entry.holder)).max().unwrap_or(0);
    let two = |entry: &Entry| {
        let until = format!("until {}, {} days left", moment::day(entry.until), entry.days_left);
        let until = if entry.due { styled(BAD, &until) } else { until };
        let file = styled(FAINT, &entry.file);
        [format!("{:<widest$}  {until}", entry.holder), format!("{:widest$}  {file}", "")]
    };
    entries.iter().flat_map(two).collect()
}
