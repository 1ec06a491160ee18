//! What `check --fix` does about a finding: mostly an edit of the topology, which the planner then carries out
//! as it does every other.

use std::path::PathBuf;

use crate::exit::Fault;
use crate::finding::visible;
use crate::kernel::Setting;
use crate::topology::{Document, Name};

use super::Seen;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Let a directive of an instance have a value, or none of its own.
    Set {
        /// The instance.
        instance: Name,
        /// The directive.
        directive: &'static str,
        /// Its value; none for the program's own.
        value: Option<String>,
    },
    /// Let the topology have its way with what was changed by hand.
    Overwrite,
    /// Give the machine's instances a password of 256 bits, and this one no other.
    Password {
        /// The instance.
        instance: Name,
    },
    /// Take from others what they may do with a file.
    Close {
        /// The file or directory.
        path: PathBuf,
        /// Its inode: no other that is there by then.
        inode: u64,
        /// The mode that it gets.
        mode: u32,
    },
    /// Let certificates be made anew that do not serve: every plan does.
    Renew,
    /// Let the kernel have a setting, now and whenever the machine starts.
    Kernel {
        /// Which.
        setting: Setting,
        /// Its value.
        value: String,
    },
    /// Restart an instance.
    Restart {
        /// The instance.
        instance: Name,
        /// Why.
        why: &'static str,
    },
}

impl Fix {
    /// What it is, in a few words; none for what only goes along with others.
    pub fn words(&self) -> Option<String> {
        match self {
            Self::Set { instance, directive, value: Some(value) } => {
                Some(format!("{directive} = {value} in [{instance}]"))
            }
            Self::Set { instance, directive, value: None } => {
                Some(format!("[{instance}] without {directive}"))
            }
            Self::Password { .. } => Some(format!(
                "a password of 256 bits, in {}: clients of your own need it, too",
                crate::secrets::password_file().display()
            )),
            Self::Close { path, mode, .. } => Some(format!("{} gets mode {mode:04o}", path.display())),
            Self::Kernel { setting, value } => {
                Some(format!("{} = {value}, by {}", setting.name(), setting.file().display()))
            }
            Self::Restart { instance, .. } => Some(format!("restart {instance}")),
            Self::Renew => Some("another certificate".into()),
            Self::Overwrite => None,
        }
    }
}

/// Writes fixes into a topology.
pub fn edit(document: &mut Document, fixes: &[Fix]) {
    for fix in fixes {
        match fix {
            Fix::Set { instance, directive, value } => {
                let key = document.spelling(instance.as_str(), directive);
                match value {
                    Some(value) => document.set(instance.as_str(), &key, value),
                    None => document.unset(instance.as_str(), &key),
                }
            }
            Fix::Password { instance } => {
                document.unset("redis-tp", "password");
                for directive in ["requirepass", "masterauth"] {
                    let key = document.spelling(instance.as_str(), directive);
                    document.unset(instance.as_str(), &key);
                }
            }
            Fix::Overwrite | Fix::Renew | Fix::Close { .. } | Fix::Kernel { .. } | Fix::Restart { .. } => {}
        }
    }
}

/// Refuses what would lock somebody out who is in.
///
/// # Errors
/// A client from another machine would lose its way in.
pub fn refuse_lock_out(seen: &Seen, fixes: &[Fix]) -> Result<(), Fault> {
    if fixes.contains(&Fix::Overwrite) {
        refuse_user_lost(seen)?;
    }
    for fix in fixes {
        let (name, how, id) = match fix {
            Fix::Set { instance, directive: "bind", value: Some(value) } => {
                (instance, format!("`bind = {value}`"), "wide-bind")
            }
            Fix::Set { instance, directive: "protected-mode", value: Some(_) } if open(seen, instance) => {
                (instance, "`protected-mode = yes`".to_owned(), "protected-mode")
            }
            Fix::Password { instance } => (instance, "another password".to_owned(), "password"),
            _ => continue,
        };
        let server = seen.servers.iter().find(|server| server.instance.as_ref() == Some(name));
        let told = server.and_then(|server| server.told.as_ref());
        if let Some(client) = told.and_then(|told| told.elsewhere.first()) {
            return Err(Fault::refused(format!(
                "{client} is connected to {name} from another machine: {how} would lock it out"
            ))
            .hint(format!(
                "put that right together with it, and the rest now:\nredis-tp check --fix --except {id}"
            )));
        }
    }
    Ok(())
}

/// Whether a server asks for no password: then protected mode keeps other machines out.
fn open(seen: &Seen, instance: &Name) -> bool {
    let server = seen.servers.iter().find(|server| server.instance.as_ref() == Some(instance));
    server.is_some_and(|server| !server.open_at.is_empty())
}

/// The topology's way with a server takes users away that somebody made by hand.
fn refuse_user_lost(seen: &Seen) -> Result<(), Fault> {
    for server in &seen.servers {
        let Some(told) = &server.told else { continue };
        let Some(user) = server.by_hand.iter().find(|user| told.logged_in.contains(*user)) else { continue };
        let (name, user) = (&server.name, visible(user));
        return Err(Fault::refused(format!(
            "the user {user} is logged in to {name}, and no file names it: --fix would take it away"
        ))
        .hint(format!(
            "keep it by a line `user = {user} …` in [{name}], as this tells it, or end its clients first:\nredis-tp cli {name} -- ACL LIST"
        )));
    }
    Ok(())
}
