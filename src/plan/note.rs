//! What a run sees and leaves alone, in words.

use std::path::PathBuf;

use serde::Serialize;

use crate::conf::Difference;
use crate::runtime::Runtime;
use crate::store::Store;
use crate::topology::Name;

/// Something that a run sees and leaves alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "note", rename_all = "kebab-case")]
pub enum Note {
    /// A directive that somebody changed by hand.
    Edited {
        /// The instance.
        instance: Name,
        /// The file.
        file: PathBuf,
        /// The directive, and both values.
        difference: Difference,
    },
    /// A directive that somebody set on the running server, and in no file.
    SetLive {
        /// The instance.
        instance: Name,
        /// The directive.
        directive: String,
        /// What it was at the end of our last run.
        was: String,
        /// What it is.
        now: String,
    },
    /// A secret that somebody set on the running server, and in no file.
    SecretSet {
        /// The instance.
        instance: Name,
        /// The directive.
        directive: String,
    },
    /// The password that somebody set on the running server or took away, and in no file.
    PasswordSet {
        /// The instance.
        instance: Name,
        /// It asks for none.
        open: bool,
    },
    /// A file of ours that somebody changed by hand.
    FileEdited {
        /// The file.
        file: PathBuf,
    },
    /// A replica that was promoted: it is a master now.
    Promoted {
        /// The instance.
        instance: Name,
        /// The master that the topology names.
        wanted: String,
    },
    /// An instance that now follows another server than the topology says.
    Follows {
        /// The instance.
        instance: Name,
        /// Whom it follows.
        now: String,
        /// Whom the topology names.
        wanted: String,
    },
    /// A default user with a former password, which CONFIG REWRITE had written and which is taken out.
    DefaultUserDropped {
        /// The instance.
        instance: Name,
        /// The file.
        file: PathBuf,
    },
    /// Clients that name no user are let in no more.
    DefaultOff {
        /// The instance.
        instance: Name,
        /// How many clients it has.
        clients: u64,
    },
    /// The web app can be reached by other machines, and reads for whoever asks.
    AppReachable {
        /// Where it listens.
        bind: std::net::IpAddr,
        /// What the keys begin with that it reads; nothing for all of them.
        prefix: String,
    },
    /// A replica without a link, for a reason that no step of ours cures.
    LinkDown {
        /// The instance.
        instance: Name,
    },
    /// Replicas that are not in this topology, and know the former password only.
    ReplicasElsewhere {
        /// The instance that they follow.
        instance: Name,
        /// How many.
        count: u64,
    },
    /// An instance that speaks no TLS although the topology wants it.
    SpeaksPlain {
        /// The instance.
        instance: Name,
    },
    /// Clients elsewhere that know the former authority only.
    AnotherAuthority {
        /// The file of those that they have to know.
        file: PathBuf,
    },
    /// A directory that an instance no longer uses.
    DirectoryStays {
        /// The instance.
        instance: Name,
        /// The data that it had.
        store: Store,
    },
    /// What an instance leaves behind that moves to another runtime.
    RuntimeLeft {
        /// The instance, or the web app.
        instance: String,
        /// Who kept it running.
        from: Runtime,
        /// Who will.
        to: Runtime,
        /// What stays where it is.
        stays: Vec<Store>,
    },
    /// Data that was there before us, and that no purge of ours takes.
    NotOurs {
        /// Where it is.
        store: Store,
    },
    /// Data behind a link that somebody put there: a purge takes the link alone.
    Behind {
        /// The link.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Our record was deleted, and is written anew by what stands in our files.
    RecordLost {
        /// The record.
        record: PathBuf,
    },
    /// Packages of ours that hold data which was there before us.
    PackagesStay {
        /// Their names.
        packages: Vec<String>,
    },
    /// Data that no instance uses any more.
    DataStays {
        /// The instance that is gone.
        instance: Name,
        /// Its data.
        store: Store,
    },
}

impl Note {
    /// Whether it tells of somebody's hand, and will be told again by the next run.
    pub fn is_drift(&self) -> bool {
        matches!(
            self,
            Self::Edited { .. }
                | Self::SetLive { .. }
                | Self::SecretSet { .. }
                | Self::PasswordSet { .. }
                | Self::FileEdited { .. }
                | Self::Promoted { .. }
                | Self::Follows { .. }
        )
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Edited { instance, file, difference } => write!(
                f,
                "{instance}: {} in {} was changed by hand: {} there, {} in the topology; kept",
                difference.directive,
                file.display(),
                difference.there,
                difference.wanted
            ),
            Self::SetLive { instance, directive, was, now } => write!(
                f,
                "{instance}: {directive} was set from {} to {} by CONFIG SET, and not in its file; kept, but a restart would lose it",
                shown(was),
                shown(now)
            ),
            Self::SecretSet { instance, directive } => write!(
                f,
                "{instance}: {directive} was set by {}, and not in its file; kept, but a restart would lose it",
                if directive == "user" { "ACL SETUSER" } else { "CONFIG SET" }
            ),
            Self::PasswordSet { instance, open: true } => write!(
                f,
                "{instance}: asks for no password, though its file has one: it was taken away by CONFIG SET; kept, but a restart brings it back"
            ),
            Self::PasswordSet { instance, open: false } => write!(
                f,
                "{instance}: takes no password that redis-tp knows: another was set by CONFIG SET, and not in its file; kept, but a restart would lose it"
            ),
            Self::FileEdited { file } => write!(f, "{} was changed by hand; kept", file.display()),
            Self::Promoted { instance, wanted } => {
                write!(
                    f,
                    "{instance}: was promoted and is a master now (the topology says replica of {wanted}); left as it is"
                )
            }
            Self::Follows { instance, now, wanted } => {
                write!(f, "{instance}: follows {now} now (the topology says {wanted}); left as it is")
            }
            Self::DefaultUserDropped { instance, file } => write!(
                f,
                "{instance}: 'user default' in {} had another password than requirepass; taken out",
                file.display()
            ),
            Self::DefaultOff { instance, clients } => {
                let there = match clients {
                    0 => String::new(),
                    1 => " (1 client is connected)".to_owned(),
                    more => format!(" ({more} clients are connected)"),
                };
                write!(
                    f,
                    "{instance}: other machines reach it, so default goes off: a client that names no user gets in no more{there}; the same password is that of admin: AUTH admin PASSWORD"
                )
            }
            Self::AppReachable { bind, prefix } => write!(
                f,
                "the web app listens on {bind}: whoever reaches it can read every string key{}",
                match prefix.as_str() {
                    "" => " of this Redis".to_owned(),
                    prefix => format!(" that begins with {prefix}"),
                }
            ),
            Self::AnotherAuthority { file } => write!(
                f,
                "clients on other machines have to get {}, which has another authority, and each a certificate of that (`redis-tp tls client`)",
                file.display()
            ),
            Self::SpeaksPlain { instance } => write!(
                f,
                "{instance}: speaks no TLS: its section has `defaults = off`, and so only what it names; take that line out, or name tls-port there"
            ),
            Self::LinkDown { instance } => write!(f, "{instance}: the link to its master is down"),
            Self::ReplicasElsewhere { instance, count } => write!(
                f,
                "{instance}: {count} of its replicas {} not in the topology; give {} the new password as masterauth, for the former one is taken no longer",
                if *count == 1 { "is" } else { "are" },
                if *count == 1 { "it" } else { "them" }
            ),
            Self::DirectoryStays { instance, store } => {
                write!(f, "{instance}: what is in its former directory {store} stays there")
            }
            Self::RuntimeLeft { instance, from, to, stays } => {
                write!(f, "{instance}: moves from {from} to {to}")?;
                let stays: Vec<String> = stays.iter().map(ToString::to_string).collect();
                match stays.as_slice() {
                    [] => Ok(()),
                    stays => write!(f, ", and leaves behind {}", stays.join(" and ")),
                }
            }
            Self::NotOurs { store } => {
                write!(f, "{store} had data in it before redis-tp; left alone")
            }
            Self::RecordLost { record } => write!(
                f,
                "{} was gone: what is there counts as redis-tp's by what stands in it; data and packages count as there before, and no purge takes them",
                record.display()
            ),
            Self::Behind { link, target } => write!(
                f,
                "{} is a symbolic link; only that goes, and what it leads to stays: rm -r {}",
                link.display(),
                target.display()
            ),
            Self::PackagesStay { packages } => {
                write!(f, "{} stay: with them, dpkg would remove that data", packages.join(" and "))
            }
            Self::DataStays { instance, store } => {
                write!(f, "{instance} is gone; its data stays in {store}")
            }
        }
    }
}

/// A value for eyes: none is two quotes.
fn shown(value: &str) -> &str {
    if value.is_empty() { "\"\"" } else { value }
}
