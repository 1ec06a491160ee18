//! What redis-tp has done to this machine, so that it can tell its own work from others' and take
//! it away again: `/var/lib/redis-tp/state.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::app::AppTarget;
use crate::engine::{Engine, Version};
use crate::exit::Fault;
use crate::facts;
use crate::host::{Host, Ids};
use crate::layout;
use crate::runtime::Runtime;
use crate::runtime::container::Container;
use crate::store::Store;
use crate::tls::Tls;
use crate::topology::{self, Name};

/// The directory of our own state, mode 0700.
pub fn dir() -> &'static Path {
    &layout::here().state
}

/// The format of the state and of the journal that this program writes.
pub const SCHEMA: u32 = 5;

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The format.
    pub schema: u32,
    /// Packages that were not there before us.
    pub packages: Vec<String>,
    /// Packages that were unpacked without root, with their versions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub software: BTreeMap<String, String>,
    /// Every instance that we set up and whose data may still be there.
    pub instances: BTreeMap<Name, Kept>,
    /// The web app that we set up.
    pub app: Option<KeptApp>,
    /// Users that we made.
    pub users: Vec<String>,
    /// Files of ours: whether one of another's making stood there before (a copy is kept).
    pub files: BTreeMap<PathBuf, bool>,
    /// Directories that we made, in that order.
    pub directories: Vec<PathBuf>,
    /// How units were when we first touched them.
    pub units: BTreeMap<String, UnitBefore>,
    /// The containers that we made, as we made them.
    pub containers: BTreeMap<String, Container>,
    /// What the kernel's settings were that we changed, by their files.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kernel: BTreeMap<PathBuf, String>,
    /// What we found in images, by their identifiers: it costs a start of each.
    pub images: BTreeMap<String, Contents>,
}

/// What is in an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The server's program.
    pub server: PathBuf,
    /// Its version.
    pub version: Version,
    /// The user and group that it is to run as there.
    pub ids: Ids,
}

impl Default for State {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            packages: Vec::new(),
            software: BTreeMap::new(),
            instances: BTreeMap::new(),
            app: None,
            users: Vec::new(),
            files: BTreeMap::new(),
            directories: Vec::new(),
            units: BTreeMap::new(),
            containers: BTreeMap::new(),
            kernel: BTreeMap::new(),
            images: BTreeMap::new(),
        }
    }
}

/// What is left to know of an instance when the topology no longer names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Redis or Valkey.
    pub engine: Engine,
    /// Who keeps it running.
    pub runtime: Runtime,
    /// Its port.
    pub port: u16,
    /// An address it is reached under.
    pub address: String,
    /// By which files one speaks TLS with it, if that is what it speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// What tells the authorities that it was told to trust from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// Whether it followed another.
    pub replica: bool,
    /// Whether it has users of its own (ACL), by one of which we speak to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub users: bool,
    /// Its data.
    pub dir: Store,
    /// Its log.
    pub logfile: Option<PathBuf>,
    /// Whether it runs; false once it was removed and only its data is kept.
    pub active: bool,
    /// Data, now its own or once, that was there before us: never ours to purge.
    #[serde(default)]
    pub foreign: Vec<Store>,
    /// Data and logs that it had before these, and left where they were.
    #[serde(default)]
    pub former: Vec<Store>,
    /// What its server said of its configuration at the end of a run, secrets apart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub effective: BTreeMap<String, String>,
}

impl Kept {
    /// Its data, its log, and those that it had before, as far as they are paths of this machine.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let stores = [&self.dir].into_iter().chain(&self.former);
        stores.filter_map(Store::path).chain(self.logfile.as_deref())
    }
}

/// What is left to know of the web app when the topology no longer names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptApp {
    /// Where and how it runs.
    #[serde(flatten)]
    pub target: AppTarget,
    /// Whether it runs; false once it was removed.
    pub active: bool,
}

/// A unit's state before our first run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitBefore {
    /// It was to start at boot.
    pub enabled: bool,
    /// It ran.
    pub active: bool,
}

/// The one word that every format has.
#[derive(Deserialize)]
struct Format {
    schema: u32,
}

impl State {
    /// Reads the record; an empty one where we never were.
    ///
    /// # Errors
    /// Unreadable, not ours, or of a later redis-tp.
    pub fn load(host: &Host) -> Result<Self> {
        let path = Self::path();
        let Some(text) = host.text(&path)? else { return Ok(Self::default()) };
        let refused = |what: &str, cure: &str| {
            Fault::refused(format!("{} {what}", path.display())).hint(format!("{cure}{}", begin_anew()))
        };
        let foreign = |error: serde_json::Error| {
            let what = format!("is not what redis-tp wrote ({error})");
            refused(&what, "look at it, and put the right one back; or ")
        };
        // One of a later redis-tp may have words that this one does not know.
        let Format { schema } = serde_json::from_str(&text).map_err(foreign)?;
        if schema > SCHEMA {
            let what = format!("is of a later redis-tp (format {schema}, this one knows {SCHEMA})");
            return Err(refused(&what, "use that one; or ").into());
        }
        let mut state: Self = serde_json::from_str(&text).map_err(foreign)?;
        // What is written from now on has the words of this format.
        state.schema = SCHEMA;
        Ok(state)
    }

    /// Refuses to go on where there was a record, and it is gone.
    ///
    /// # Errors
    /// There is none, but what we wrote is there, here or in its place.
    pub fn refuse_lost(&self, host: &Host) -> Result<()> {
        let path = Self::path();
        if *self != Self::default()
            || host.stat(&path)?.is_some()
            || (host.list(&dir().join("written"))?.is_empty() && facts::ours(host, &Engine::ALL)?.is_empty())
        {
            return Ok(());
        }
        let what = format!("there is no {}: what is redis-tp's cannot be told any more", path.display());
        let cure = match host.stat(topology::file())? {
            Some(_) => "let it be found again by the topology:\nredis-tp apply".to_owned(),
            None => format!("take over what runs:\n{}", "redis-tp adopt"),
        };
        Err(Fault::refused(what).hint(format!("put it back; or {cure}")).into())
    }

    /// Writes the record.
    pub fn save(&self, host: &Host) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        host.write(&Self::path(), text.as_bytes(), layout::here().own(), 0o600)
    }

    /// Where the record is.
    pub fn path() -> PathBuf {
        dir().join("state.json")
    }

    /// Where we keep what we last wrote to a file.
    pub fn written(path: &Path) -> PathBuf {
        dir().join("written").join(flat(path))
    }

    /// Where we keep what stood at a path before us.
    pub fn original(path: &Path) -> PathBuf {
        dir().join("original").join(flat(path))
    }
}

/// The way back to a record, as a hint goes on.
fn begin_anew() -> String {
    let aside = |path: &Path| format!("mv {0} {0}.aside", path.display());
    format!(
        "begin anew, and take over what runs:\n{}\n{}\nredis-tp adopt",
        aside(dir()),
        aside(topology::file())
    )
}

/// One file name for a whole path: `/etc/redis/redis.conf` is `etc%redis%redis.conf`.
fn flat(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches('/').replace('%', "%%").replace('/', "%")
}
