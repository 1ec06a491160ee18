//! Cache-aside: a value is read from the cache, and where it has none, from the database and put there.
//! For one key there is never more than one read of the database under way, whoever waits for it.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use super::batch::Cached;
use super::events::Trace;
use super::metrics::Metrics;
use super::nodes::{Blame, Nodes};
use super::source::Database;
use super::view::Wired;
use crate::host::Host;
use crate::topology::AppSection;

/// How many reads of the database may be under way at once, each for a key of its own.
const FLIGHTS: usize = 4096;
/// How much longer than the simulated database a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a read waits for a server whose connection has just broken.
const BACK: Duration = Duration::from_millis(200);
/// How long a write waits for another master when the one it went to takes none any more.
const MOVE: Duration = Duration::from_millis(100);

/// The cache in front of the database.
#[derive(Debug)]
pub struct Cache {
    host: Host,
    prefix: String,
    ttl: Duration,
    patience: Duration,
    nodes: Arc<Nodes>,
    database: Arc<Database>,
    metrics: Arc<Metrics>,
    flights: Mutex<HashMap<Arc<str>, watch::Receiver<Option<Landed>>>>,
}

/// Why the cache could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// There is none just now.
    Unavailable,
    /// It does not do what it is asked to.
    Refused,
}

/// What a request for a value comes to.
#[derive(Clone, Debug)]
pub enum Found {
    /// The cache has it, for as long yet (for ever, if that is none).
    Cached(Arc<str>, Option<Duration>),
    /// The database has it.
    Read(Arc<str>),
    /// The database has no such row.
    Absent,
    /// The database gives no answer; why.
    Broken(Arc<str>),
    /// The database takes too long.
    Timeout,
    /// Too many other reads are under way.
    Overloaded,
}

/// The answer to a request for a value, and how it came about.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it comes to.
    pub found: Found,
    /// Why the cache was not used; none if it was.
    pub lack: Option<Lack>,
    /// How long the value stays in the cache, if it was put there.
    pub stored: Option<Duration>,
    /// How long each step took that was made.
    pub steps: Steps,
}

/// How long the steps of a request took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    /// The look into the cache.
    pub cache: Duration,
    /// The read of the database.
    pub database: Option<Duration>,
    /// The write to the cache.
    pub store: Option<Duration>,
    /// The wait for another request's read.
    pub wait: Option<Duration>,
}

/// What a read of the database comes to, for all who wait for it.
#[derive(Clone, Debug)]
struct Landed {
    found: Found,
    lack: Option<Lack>,
    stored: Option<Duration>,
    database: Option<Duration>,
    store: Option<Duration>,
}

/// What the cache says to a key.
enum Looked {
    Hit(Arc<str>, Option<Duration>),
    Miss,
    Lacks(Lack),
}

impl Cache {
    /// A cache in front of a database.
    pub fn new(
        host: &Host,
        section: &AppSection,
        nodes: &Arc<Nodes>,
        database: Database,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self {
            host: host.clone(),
            prefix: section.prefix.as_str().to_owned(),
            ttl: section.ttl,
            patience: section.slow + PATIENCE,
            nodes: Arc::clone(nodes),
            database: Arc::new(database),
            metrics: Arc::clone(metrics),
            flights: Mutex::default(),
        }
    }

    /// Reads a value.
    pub async fn read(self: &Arc<Self>, key: &str, trace: &Trace) -> Answer {
        let began = self.host.now();
        trace.begin("cache");
        let looked = self.look(key).await;
        let cache = self.host.now() - began;
        trace.end("cache", cache, looked.outcome());
        let lack = match looked {
            Looked::Hit(value, left) => {
                let steps = Steps { cache, ..Steps::default() };
                return Answer { found: Found::Cached(value, left), lack: None, stored: None, steps };
            }
            Looked::Miss => None,
            Looked::Lacks(lack) => Some(lack),
        };
        self.fetch(key, lack, cache, trace).await
    }

    /// Waits for the database, of which it asks nothing that it is asked for already.
    async fn fetch(
        self: &Arc<Self>,
        key: &str,
        lack: Option<Lack>,
        cache: Duration,
        trace: &Trace,
    ) -> Answer {
        let began = self.host.now();
        let mut steps = Steps { cache, ..Steps::default() };
        let Some((mut flight, shared)) = self.board(key, lack, trace) else {
            return Answer { found: Found::Overloaded, lack, stored: None, steps };
        };
        if shared {
            trace.begin("wait");
        }
        let landed = match timeout(self.patience, flight.wait_for(Option::is_some)).await {
            Ok(Ok(landed)) => landed.clone(),
            // It was ended without having landed: the app is being stopped.
            Ok(Err(_)) | Err(_) => None,
        };
        let waited = self.host.now() - began;
        if shared {
            steps.wait = Some(waited);
            trace.end("wait", waited, if landed.is_some() { "ok" } else { "error" });
        }
        let Some(landed) = landed else {
            return Answer { found: Found::Timeout, lack, stored: None, steps };
        };
        if !shared {
            (steps.database, steps.store) = (landed.database, landed.store);
        }
        Answer { found: landed.found, lack: lack.or(landed.lack), stored: landed.stored, steps }
    }

    /// Finds the read of the database for a key, or begins one; says whether it was under way. None where
    /// too many are.
    fn board(
        self: &Arc<Self>,
        key: &str,
        lack: Option<Lack>,
        trace: &Trace,
    ) -> Option<(watch::Receiver<Option<Landed>>, bool)> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            return Some((flight.clone(), true));
        }
        if flights.len() >= FLIGHTS {
            return None;
        }
        let key: Arc<str> = key.into();
        let (land, flight) = watch::channel(None);
        flights.insert(Arc::clone(&key), flight.clone());
        let (own, trace) = (Arc::clone(self), trace.clone());
        // A task of its own: a client that goes away does not stop it.
        tokio::spawn(async move {
            let entry = Entry { cache: &own, key: &key };
            let landed = own.fly(&key, lack, &trace).await;
            // Before anybody is answered: whoever asks from then on finds it in the cache.
            drop(entry);
            land.send_replace(Some(landed));
        });
        Some((flight, false))
    }

    /// Reads the database, and puts what it has into the cache.
    async fn fly(&self, key: &str, lack: Option<Lack>, trace: &Trace) -> Landed {
        let mut landed = Landed { found: Found::Absent, lack, stored: None, database: None, store: None };
        if lack.is_none() {
            // A replica may lag, and another flight may have landed since the look into the cache.
            match self.look_again(key).await {
                Looked::Hit(value, left) => return Landed { found: Found::Cached(value, left), ..landed },
                Looked::Miss => {}
                Looked::Lacks(lack) => landed.lack = Some(lack),
            }
        }
        let began = self.host.now();
        trace.begin("database");
        self.metrics.slow_reads.fetch_add(1, Relaxed);
        let read = Database::read(&self.database, key).await;
        let took = self.host.now() - began;
        landed.database = Some(took);
        trace.end("database", took, if read.is_ok() { "ok" } else { "error" });
        match read {
            Ok(Some(value)) => {
                landed.found = Found::Read(value.into());
                self.put(key, &mut landed, trace).await;
            }
            Ok(None) => {}
            Err(error) => landed.found = Found::Broken(error.to_string().into()),
        }
        landed
    }

    /// Puts a value that was read into the cache, also where there was none a moment ago.
    async fn put(&self, key: &str, landed: &mut Landed, trace: &Trace) {
        let Found::Read(value) = &landed.found else { return };
        if landed.lack == Some(Lack::Refused) || self.nodes.writer().is_none() {
            landed.lack = landed.lack.or(Some(Lack::Unavailable));
            return;
        }
        let began = self.host.now();
        trace.begin("store");
        let stored = self.store(key, value).await;
        let took = self.host.now() - began;
        landed.store = Some(took);
        trace.end("store", took, if stored.is_ok() { "stored" } else { "failed" });
        match stored {
            Ok(left) => landed.stored = Some(left),
            Err(lack) => landed.lack = landed.lack.or(Some(lack)),
        }
    }

    /// Asks a server that is read from; if it fails, another one, or itself once more: it may only have been
    /// restarted, which nobody had seen yet.
    async fn look(&self, key: &str) -> Looked {
        for attempt in 0..2 {
            let Some(wired) = self.nodes.reader() else { break };
            match self.ask(&wired, key).await {
                Looked::Lacks(Lack::Unavailable) if attempt == 0 => self.nodes.await_reader(BACK).await,
                Looked::Lacks(Lack::Unavailable) => {}
                looked => return looked,
            }
        }
        Looked::Lacks(Lack::Unavailable)
    }

    /// Asks the master.
    async fn look_again(&self, key: &str) -> Looked {
        match self.nodes.writer() {
            Some(wired) => self.ask(&wired, key).await,
            None => Looked::Lacks(Lack::Unavailable),
        }
    }

    async fn ask(&self, wired: &Wired, key: &str) -> Looked {
        match wired.reads.get(self.name(key)).await {
            Ok(Some(Cached { text: Some(value), left })) => Looked::Hit(value, left),
            // Another's: nothing that we have put there.
            Ok(Some(Cached { text: None, .. })) => Looked::Lacks(Lack::Refused),
            Ok(None) => Looked::Miss,
            Err(error) => match self.nodes.blame(wired, &error) {
                Blame::Away | Blame::Demoted => Looked::Lacks(Lack::Unavailable),
                Blame::Refused => Looked::Lacks(Lack::Refused),
            },
        }
    }

    /// Writes a value where there is none, and says how long it stays.
    async fn store(&self, key: &str, value: &str) -> Result<Duration, Lack> {
        for attempt in 0..2 {
            let Some(wired) = self.nodes.writer() else { break };
            match set(&wired, &self.name(key), value, self.ttl).await {
                Ok(true) => return Ok(self.ttl),
                // Somebody else has put something there meanwhile; what it is matters.
                Ok(false) => {
                    return match self.ask(&wired, key).await {
                        Looked::Hit(_, left) => Ok(left.unwrap_or(self.ttl)),
                        Looked::Miss => Ok(Duration::ZERO),
                        Looked::Lacks(lack) => Err(lack),
                    };
                }
                Err(error) => match self.nodes.blame(&wired, &error) {
                    Blame::Demoted if attempt == 0 => self.nodes.await_move(wired.id, MOVE).await,
                    Blame::Away => break,
                    Blame::Demoted | Blame::Refused => return Err(Lack::Refused),
                },
            }
        }
        Err(Lack::Unavailable)
    }

    /// What a key is called in Redis.
    fn name(&self, key: &str) -> String {
        let mut name = String::with_capacity(self.prefix.len() + key.len());
        name.push_str(&self.prefix);
        name.push_str(key);
        name
    }

    /// How long a value has been in the cache that stays for so long yet.
    pub fn age(&self, left: Duration) -> Duration {
        self.ttl.saturating_sub(left)
    }
}

impl Looked {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Hit(..) => "hit",
            Self::Miss => "miss",
            Self::Lacks(_) => "error",
        }
    }
}

/// A flight's entry on the board, however it ends.
struct Entry<'a> {
    cache: &'a Cache,
    key: &'a Arc<str>,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut flights = self.cache.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(self.key);
    }
}

/// Writes a value where there is none; says whether it was written.
async fn set(wired: &Wired, name: &str, value: &str, ttl: Duration) -> RedisResult<bool> {
    let mut set = Cmd::new();
    set.arg("SET").arg(name).arg(value).arg("PX").arg(ttl.as_millis() as u64).arg("NX");
    let answer: Value = set.query_async(&mut wired.connection.clone()).await?;
    Ok(answer != Value::Nil)
}
