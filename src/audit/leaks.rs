//! Passwords in arguments, environments and files: what could not be looked for is not absent.

use super::files;
use super::seen::Seen;
use super::{Severity, Verdict};
use crate::commands::shell_word;
use crate::finding::Finding;

/// No password is among arguments, which every user can read.
pub(super) fn argv(seen: &Seen) -> Verdict {
    of_all(seen, files::argv(seen))
}

/// No password is in the environment of a process that stays.
pub(super) fn environment(seen: &Seen) -> Verdict {
    of_all(seen, files::environment(seen))
}

/// No password is in a file that everybody can read.
pub(super) fn readable(seen: &Seen) -> Verdict {
    let verdict = of_all(seen, files::readable(seen));
    match (&seen.cut, &verdict.finding) {
        (Some(path), Finding::Pass { .. }) => {
            let what = format!("{} is too long to be read to its end", path.display());
            let word = shell_word(&path.to_string_lossy());
            let unknown = Finding::unknown(what, format!("chmod o-r {word}    # if nobody else needs it"));
            Verdict::from(unknown).rated(Severity::Medium)
        }
        _ => verdict,
    }
}

/// A pass, unless a server has a password that is not known here.
fn of_all(seen: &Seen, verdict: Verdict) -> Verdict {
    let locked = seen.servers.iter().find(|server| server.runs && server.told.is_none() && !server.foreign);
    match (locked, &verdict.finding) {
        (Some(server), Finding::Pass { .. }) => {
            let why = format!("{} has a password that is not known here: see let-in", server.name);
            let cure = match &server.instance {
                Some(_) => "redis-tp plan    # tells who changed its password",
                None => "redis-tp adopt --password-file FILE",
            };
            Finding::unknown(why, cure).into()
        }
        _ => verdict,
    }
}
