//! The lab's fourth part: a web app in front of Redis answers slowly once, and at once from then on, until
//! the value's time in the cache has run out. A table of its own, walked beside that of the instances.

use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::Result;

use super::{App, Look, Options, Place, Servers, Subject};
use crate::facts::holder;
use crate::finding::{Check, Finding};
use crate::host::Host;
use crate::http::{self, Url, percent};
use crate::instance::Instance;
use crate::topology::{AppSection, ReadFrom};
use crate::wire::Address;

mod hand;
mod herd;
mod installed;
mod outage;
mod reply;
mod stored;
mod warmth;

pub use hand::by_hand;

use reply::Reply;
use stored::Kept;

/// How long an answer may take beyond the database's time.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a database may take of which nothing is claimed.
const SLOWEST: Duration = Duration::from_secs(30);
/// How long a key may take to a replica.
const ARRIVAL: Duration = Duration::from_secs(1);

/// What was measured on the way, for pictures; empty where no web app was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Curves {
    /// How long each answer from the database took.
    pub cold: Vec<Duration>,
    /// How long each answer from the cache took.
    pub warm: Vec<Duration>,
    /// How long the app's key was to live.
    pub lifetime: Duration,
    /// How long after it was stored how much of that was left; none: it was gone.
    pub left: Vec<(Duration, Option<Duration>)>,
    /// How long each of the answers to the same question at once took.
    pub herd: Vec<Duration>,
}

/// A row of the table.
struct Row {
    /// A stable name.
    id: &'static str,
    /// What is done, in words.
    did: fn(&AppProof<'_>) -> String,
    /// Does it.
    look: fn(&mut AppProof<'_>) -> Look,
}

/// The checks of the app that is installed.
const INSTALLED: &[Row] = &[
    Row { id: "app-service", did: installed::did_service, look: installed::service },
    Row { id: "app-reads", did: installed::did_reads, look: installed::reads },
];

/// The checks of the cache in their order. The herd fills the time until the key has run out.
const ROWS: &[Row] = &[
    Row { id: "app-cold", did: warmth::did_cold, look: warmth::cold },
    Row { id: "app-warm", did: warmth::did_warm, look: warmth::warm },
    Row { id: "app-key", did: stored::did_key, look: stored::key },
    Row { id: "app-ttl", did: stored::did_ttl, look: stored::ttl },
    Row { id: "app-herd", did: herd::did, look: herd::herd },
    Row { id: "app-gone", did: stored::did_gone, look: stored::gone },
    Row { id: "app-again", did: warmth::did_again, look: warmth::again },
];

/// What stops the master, and so comes when all the others are done.
const OUTAGE: &[Row] = &[Row { id: "app-outage", did: outage::did, look: outage::outage }];

/// The proof of one app at work.
pub struct AppProof<'a> {
    host: &'a Host,
    subject: &'a Subject<'a>,
    /// Whether the master may be stopped.
    restart: bool,
    servers: Servers<'a>,
    /// The app of our own, for as long as the proof lasts.
    own: Option<crate::app::Running>,
    /// Where the app is, or why there is none.
    url: Result<Url, Finding>,
    /// Where the installed app is, if it has to be looked at, too.
    installed: Option<(Url, &'a AppSection)>,
    /// How long a value stays in the cache, where that is claimed.
    ttl: Option<Duration>,
    /// How long the database takes at least, where that is claimed.
    slow: Option<Duration>,
    /// What the proof's keys begin with: nobody else's do.
    keys: String,
    /// What the checks so far found.
    seen: Seen,
    curves: Curves,
    /// An interruption came at a moment when it had to wait.
    pub interrupted: bool,
}

/// What later checks build on.
#[derive(Default)]
struct Seen {
    /// The first answer that could be read.
    first: Option<Reply>,
    /// It was cold, as it has to be.
    cold: bool,
    /// The second came from the cache.
    warm: bool,
    /// The key as it was found in Redis, with a TTL as it has to be.
    kept: Option<Kept>,
    /// The key ran out.
    gone: bool,
    /// What the installed app says that it puts before a key.
    prefix: Option<String>,
}

impl<'a> AppProof<'a> {
    /// A proof that has not begun; an app of our own runs from here on.
    ///
    /// # Errors
    /// There is no randomness to be had.
    pub fn new(host: &'a Host, subject: &'a Subject<'a>, options: &Options, app: &App) -> Result<Self> {
        let mut proof = Self {
            host,
            subject,
            restart: options.restart,
            servers: Servers::new(host, subject.instances),
            own: None,
            url: Err(Finding::skip("there is no app")),
            installed: None,
            ttl: Some(options.ttl),
            slow: None,
            keys: format!("redis-tp-verify-{}", host.random_hex(4)?),
            seen: Seen::default(),
            curves: Curves::default(),
            interrupted: false,
        };
        match app {
            App::At { url, ttl, slow } => {
                (proof.url, proof.ttl, proof.slow) = (Ok(url.clone()), *ttl, *slow);
            }
            App::Own { slow } => {
                proof.slow = Some(*slow);
                proof.installed = subject.app.map(|app| (Url::local(app.bind, app.port), app));
                proof.start();
            }
        }
        Ok(proof)
    }

    /// Starts an app of our own, on any free port.
    fn start(&mut self) {
        // It would say its password to whoever is there.
        let held = |at: &Address| Some((at.clone(), holder::stranger(self.host, at)?));
        let locked = self.subject.instances.iter().filter(|instance| instance.requirepass.is_some());
        if let Some((at, uid)) = locked.map(Instance::address).find_map(|at| held(&at)) {
            let cure = format!("ss -ltnp 'sport = :{}'    # end that one, and then: redis-tp up", at.port);
            self.url = Err(Finding::unknown(format!("user {uid} has {at}, and gets no password"), cure));
            return;
        }
        let wanted = self.subject.app.cloned().unwrap_or_default();
        let (ttl, slow) = (self.ttl.unwrap_or(wanted.ttl), self.slow.unwrap_or(wanted.slow));
        let AppSection { prefix, read_from, .. } = wanted;
        let section = AppSection { port: 0, ttl, slow, prefix, read_from, ..AppSection::default() };
        match crate::app::Running::start(
            self.host,
            crate::app::Settings::of(&section, self.subject.instances),
        ) {
            Ok(running) => {
                let at = running.address();
                (self.url, self.own) = (Ok(Url::local(at.ip(), at.port())), Some(running));
            }
            Err(error) => {
                let said = format!("{error:#}");
                self.url = Err(Finding::fail("an app of our own does not start", said, "redis-tp app serve"));
            }
        }
    }

    /// Runs the checks that stop nothing; whoever asked hears of each as it is done.
    pub fn run(&mut self, told: &Sender<Check>) {
        if self.installed.is_some() {
            self.walk(INSTALLED, &mut |check| drop(told.send(check)));
        }
        self.walk(ROWS, &mut |check| drop(told.send(check)));
    }

    /// Runs the check that stops the master, if that was asked for.
    pub fn outage(&mut self, note: &mut dyn FnMut(Check)) {
        if self.restart {
            self.walk(OUTAGE, note);
        }
    }

    fn walk(&mut self, rows: &[Row], note: &mut dyn FnMut(Check)) {
        for row in rows {
            let began = self.host.now();
            let finding = (row.look)(self).unwrap_or_else(|early| early);
            if self.host.interrupted() {
                return;
            }
            let (subject, did) = ("app".to_owned(), (row.did)(self));
            note(Check { id: row.id, severity: None, subject, did, finding, time: self.host.now() - began });
        }
    }

    /// Ends the proof: ends an app of our own, removes the keys, and hands over what was measured.
    pub fn end(mut self) -> Curves {
        // First, for it stores what it is reading just now.
        drop(self.own.take());
        self.remove_keys();
        self.curves
    }

    /// Removes every key that the app may have stored. A server that does not answer lets them expire.
    fn remove_keys(&mut self) {
        let Some(top) = self.top() else { return };
        let place = self.servers.root(&Place::of(top)).unwrap_or(Place::of(top));
        let names: Vec<String> = PURPOSES.iter().flat_map(|purpose| self.stored_as(purpose)).collect();
        self.servers.remove(&place, &names.iter().map(String::as_str).collect::<Vec<_>>());
    }

    // ---- what the checks ask for ----------------------------------------------------------------

    /// The key for a purpose, as the app is asked for it.
    fn key(&self, purpose: &str) -> String {
        format!("{}-{purpose}", self.keys)
    }

    /// The names that it may have in Redis: with the prefix that our apps are to have, as it is, or with
    /// the one that the installed app says it has.
    fn stored_as(&self, purpose: &str) -> Vec<String> {
        let key = self.key(purpose);
        let prefix = self.subject.app.map_or("", |app| app.prefix.as_str());
        let mut names = vec![format!("{prefix}{key}")];
        for prefix in ["", self.seen.prefix.as_deref().unwrap_or_default()] {
            let name = format!("{prefix}{key}");
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn path(&self, purpose: &str) -> String {
        format!("/data/{}", percent(&self.key(purpose)))
    }

    /// The question as `did` shows it.
    fn question(&self, purpose: &str) -> String {
        match &self.url {
            Ok(url) => format!("GET {url}{}", self.path(purpose)),
            Err(_) => format!("GET {}", self.path(purpose)),
        }
    }

    /// The command that asks by hand. An app of our own is gone by then: another one is started.
    fn curl(&self, purpose: &str) -> String {
        match &self.url {
            Ok(url) if self.own.is_none() => format!("curl -si {url}{}", self.path(purpose)),
            _ => "redis-tp app serve".into(),
        }
    }

    /// How long an answer may take.
    fn limit(&self) -> Duration {
        self.slow.unwrap_or(SLOWEST) + PATIENCE
    }

    /// Asks the app.
    fn ask(&self, purpose: &str) -> Result<Reply, Finding> {
        let url = self.url.clone()?;
        let answer = http::get(self.host, &url, &self.path(purpose), self.limit());
        match answer {
            Ok(answer) => Reply::read(&answer, &self.key(purpose)).map_err(|found| {
                let cause = "the app does not keep to the contract, or failed: its log tells more";
                Finding::fail(found, cause, self.curl(purpose))
            }),
            Err(trouble) => Err(self.silent(&url, &trouble)),
        }
    }

    /// The app does not answer.
    fn silent(&self, url: &Url, trouble: &http::Trouble) -> Finding {
        let installed = self.installed.as_ref().is_some_and(|(at, _)| at == url);
        let (cause, cure) = match trouble {
            http::Trouble::Refused if installed => {
                ("the web app does not run", "redis-tp service start app".into())
            }
            http::Trouble::Refused => {
                ("the app does not run, or listens elsewhere", format!("curl -si {url}/"))
            }
            _ => ("the app is ill, or is no HTTP server", self.curl("key")),
        };
        Finding::fail(format!("no answer from {url}: {trouble}"), cause, cure)
    }

    /// The instance whose chain leads to the master that the app writes to.
    fn top(&self) -> Option<&'a Instance> {
        let all = self.subject.instances;
        let named = |instance: &&Instance| instance.name.as_str() == crate::engine::MASTER;
        let master = |instance: &&Instance| instance.upstream.is_none();
        all.iter().find(named).or_else(|| all.iter().find(master)).or_else(|| all.first())
    }

    /// The master that the app writes to.
    fn root(&mut self) -> Result<Place, Finding> {
        let top = self.top().ok_or_else(|| Finding::skip("the topology names no instance"))?;
        self.servers.root(&Place::of(top))
    }

    /// Waits until a key has come to all that an app may read which does not read the master.
    fn settle(&mut self, purpose: &str) {
        if self.subject.app.is_none_or(|app| app.read_from == ReadFrom::Master) {
            return;
        }
        let mut question = vec!["EXISTS".to_owned()];
        question.extend(self.stored_as(purpose));
        let words: Vec<&str> = question.iter().map(String::as_str).collect();
        for instance in self.subject.instances {
            let (host, place) = (self.host, Place::of(instance));
            // Of one that does not answer, the checks of the instances tell.
            let _ = host.poll(ARRIVAL, || match self.servers.ask::<u64>(&place, &words) {
                Ok(0) => Ok(None),
                _ => Ok(Some(())),
            });
        }
    }
}

/// What the proof has keys for.
const PURPOSES: &[&str] = &["key", "herd", "reads", "outage", "after"];

/// A check that builds on another, which failed: that one tells.
fn see(id: &str) -> Finding {
    Finding::skip(format!("nothing to look at: see {id}"))
}
