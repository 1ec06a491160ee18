//! The Redis servers while the app runs: a task for each connects, asks every second, and connects again.
//! What they see is published as a whole, to be read by every request at next to no cost.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::batch::Reads;
use super::events::Hub;
use super::metrics::Metrics;
use super::settings::{Node, Settings};
use super::view::{Seen, State, Told, View, Wired};
use crate::facts::holder;
use crate::host::Host;
use crate::layout;
use crate::tls::client::{NOT_TLS, TLS_ONLY};
use crate::topology::{self, ReadFrom, Topology};
use crate::wire::{Address, Trouble};

/// How long the cache may take to answer: a server that needs longer is out of service.
pub const DEADLINE: Duration = Duration::from_millis(250);
/// How often a server is asked how it is.
const PERIOD: Duration = Duration::from_secs(1);
/// How soon it is tried again when it is away, at first and later: soon, for the cache is missed.
const RETRY: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];
/// How soon when it does not take the password or the certificate, which nobody changes by the second.
const REFUSED: Duration = Duration::from_secs(1);
/// How often at most a server is asked when it is said to have trouble.
const PAUSE: Duration = Duration::from_millis(20);
/// Why a server that was found, and not given, is not asked.
const UNNAMED: &str = "another server names it and the settings do not: without TLS it hears no password";
/// How long a server that was found, and not given, is remembered when it is away.
const FORGET: Duration = Duration::from_secs(60);

/// The servers.
#[derive(Debug)]
pub struct Nodes {
    host: Host,
    read_from: ReadFrom,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    view: watch::Sender<Arc<View>>,
    /// Held while a view is made out of the one before.
    making: Mutex<usize>,
    turn: AtomicUsize,
    generation: AtomicU64,
    /// Wakes those who ask the servers, also when they are just about to sleep.
    poke: watch::Sender<()>,
    /// Wakes the one that tells the page.
    pub changed: Notify,
}

/// What an error of a request says about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The server is out of service until it answers again.
    Away,
    /// It is not the master any more.
    Demoted,
    /// The server is fine; it refuses this one.
    Refused,
}

impl Nodes {
    /// The servers of the settings, not asked yet.
    pub fn new(host: &Host, settings: &Settings, hub: &Arc<Hub>, metrics: &Arc<Metrics>) -> Self {
        let seen = settings.nodes.iter().enumerate().map(|(id, node)| Seen::new(id, node.clone(), true));
        let nodes: Vec<Seen> = seen.collect();
        let next = nodes.len();
        let view = View::of(nodes, settings.section.read_from, None);
        Self {
            host: host.clone(),
            read_from: settings.section.read_from,
            hub: Arc::clone(hub),
            metrics: Arc::clone(metrics),
            view: watch::Sender::new(Arc::new(view)),
            making: Mutex::new(next),
            turn: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            poke: watch::Sender::new(()),
            changed: Notify::new(),
        }
    }

    /// Begins to ask, and waits until each was asked once, but not for long.
    pub async fn start(self: &Arc<Self>) {
        for node in &self.view().nodes {
            tokio::spawn(attend(Arc::clone(self), node.id, node.node.clone()));
        }
        let asked = |view: &Arc<View>| view.nodes.iter().all(|node| node.asked);
        let _ = timeout(DEADLINE * 2, self.view.subscribe().wait_for(asked)).await;
    }

    /// The servers as they were last seen.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// A connection to write to.
    pub fn writer(&self) -> Option<Arc<Wired>> {
        self.view.borrow().writer().cloned()
    }

    /// A connection to read from, the next in turn.
    pub fn reader(&self) -> Option<Arc<Wired>> {
        self.view.borrow().reader(self.turn.fetch_add(1, Relaxed)).cloned()
    }

    /// Waits a moment for another master than this one.
    pub async fn await_move(&self, from: usize, deadline: Duration) {
        self.poke.send_replace(());
        let moved = |view: &Arc<View>| view.master.is_some_and(|master| master != from);
        let _ = timeout(deadline, self.view.subscribe().wait_for(moved)).await;
    }

    /// Waits a moment for a server to read from.
    pub async fn await_reader(&self, deadline: Duration) {
        let there = |view: &Arc<View>| view.reader(0).is_some();
        let _ = timeout(deadline, self.view.subscribe().wait_for(there)).await;
    }

    /// Says what a request's error means, and takes the server out of service if it is its fault.
    pub fn blame(&self, wired: &Wired, error: &RedisError) -> Blame {
        self.metrics.cache_errors.fetch_add(1, Relaxed);
        let (state, reason) = match error.code() {
            Some("READONLY") => {
                self.poke.send_replace(());
                return Blame::Demoted;
            }
            Some("MASTERDOWN") => (State::Down, "it has lost its master".into()),
            Some("LOADING" | "NOAUTH" | "WRONGPASS") => trouble(error),
            Some(_) => return Blame::Refused,
            None if error.is_io_error() => trouble(error),
            None => return Blame::Refused,
        };
        self.away(wired.id, Some(wired.generation), state, reason);
        self.poke.send_replace(());
        Blame::Away
    }

    /// Takes a server out of service; of a connection only if it is still the one in use.
    fn away(&self, id: usize, generation: Option<u64>, state: State, reason: String) {
        // Of many requests that fail with one connection, the first has said all.
        let used = self.view().node(id).and_then(|seen| Some(seen.wired.as_ref()?.generation));
        if generation.is_some() && generation != used {
            return;
        }
        // It is the server's own text, in part.
        let reason = reason.replace(char::is_control, " ");
        self.update(|nodes, _| {
            let Some(seen) = nodes.iter_mut().find(|seen| seen.id == id) else { return };
            let used = seen.wired.as_ref().map(|wired| wired.generation);
            if generation.is_some() && generation != used {
                return;
            }
            (seen.asked, seen.state, seen.reason, seen.wired) = (true, state, Some(reason.clone()), None);
        });
    }

    /// Publishes what was changed, and tells those who want to know.
    fn update(&self, change: impl FnOnce(&mut Vec<Seen>, &mut usize)) {
        let mut next = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.view();
        let mut nodes = before.nodes.clone();
        change(&mut nodes, &mut next);
        let after = Arc::new(View::of(nodes, self.read_from, before.incumbent()));
        self.view.send_replace(Arc::clone(&after));
        for notice in after.news(&before) {
            if notice.what == "master-moved" {
                self.metrics.master_changes.fetch_add(1, Relaxed);
            }
            self.hub.notice(&notice);
        }
        if after.differs(&before) {
            self.changed.notify_one();
        }
    }

    /// Puts a server in service with what it told; says whether it is to be asked again.
    fn present(self: &Arc<Self>, id: usize, wired: &Arc<Wired>, peer: SocketAddr, told: Told) -> bool {
        let mut found = Vec::new();
        let mut stays = true;
        self.update(|nodes, next| {
            if is_known_otherwise(nodes, id, &told) {
                nodes.retain(|seen| seen.id != id);
                stays = false;
                return;
            }
            let Some(seen) = nodes.iter_mut().find(|seen| seen.id == id) else {
                stays = false;
                return;
            };
            let told_by = seen.node.clone();
            (seen.asked, seen.peer, seen.told) = (true, Some(peer), told.clone());
            (seen.state, seen.reason, seen.wired) = match told.loading {
                true => (State::Loading, Some(Trouble::Loading.to_string()), None),
                false => (State::Up, None, Some(Arc::clone(wired))),
            };
            forget_unheard(nodes, id);
            for address in others(nodes, &told, peer) {
                let node = told_by.beside(address);
                nodes.push(Seen::new(*next, node.clone(), false));
                found.push((*next, node));
                *next += 1;
            }
        });
        for (id, node) in found {
            tokio::spawn(attend(Arc::clone(self), id, node));
        }
        stays
    }

    fn forget(&self, id: usize) {
        self.update(|nodes, _| nodes.retain(|seen| seen.id != id));
    }
}

/// Whether a server that was found is one that is known under another address. It was asked once, and
/// both addresses are known from then on.
fn is_known_otherwise(nodes: &mut [Seen], id: usize, told: &Told) -> bool {
    let Some(found) = nodes.iter().find(|seen| seen.id == id && !seen.given) else { return false };
    let Address { host, port, .. } = found.node.address.clone();
    let same = |at: &&mut Seen| at.id != id && !told.run_id.is_empty() && at.told.run_id == told.run_id;
    let twin = nodes.iter_mut().find(same);
    twin.map(|twin| twin.aliases.push((host, port))).is_some()
}

/// Lets go of servers that were found before it was known that this one is there.
fn forget_unheard(nodes: &mut Vec<Seen>, id: usize) {
    let Some(known) = nodes.iter().find(|seen| seen.id == id && seen.given).cloned() else { return };
    let same = |at: &Address| known.is_at(&at.host, at.port);
    nodes.retain(|seen| seen.given || seen.state != State::Untrusted || !same(&seen.node.address));
}

/// The servers that one tells of and that are not known yet.
fn others(nodes: &[Seen], told: &Told, peer: SocketAddr) -> Vec<Address> {
    let told = told.followers.iter().map(|follower| &follower.at).chain(&told.master);
    let unknown = told.filter(|(host, port)| {
        *port != 0 && !is_elsewhere(host, peer) && !nodes.iter().any(|seen| seen.is_at(host, *port))
    });
    unknown.map(|(host, port)| Address::plain(host, *port)).collect()
}

/// Whether an address means another machine to us than to the server at `peer` that told it.
fn is_elsewhere(host: &str, peer: SocketAddr) -> bool {
    let loopback = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
    loopback && !peer.ip().is_loopback()
}

fn trouble(error: &RedisError) -> (State, String) {
    if error.is_timeout() {
        return (State::Slow, format!("it did not answer within {} ms", DEADLINE.as_millis()));
    }
    if error.is_connection_dropped() && !error.is_connection_refusal() {
        return (State::Down, "the connection broke".into());
    }
    let trouble = Trouble::from(error.clone());
    let state = match trouble {
        Trouble::NoAuth | Trouble::WrongPassword => State::Refused,
        Trouble::Tls(_) | Trouble::Untrusted(_) => State::Untrusted,
        Trouble::Loading => State::Loading,
        Trouble::Refused | Trouble::Stranger(_) | Trouble::Other(_) => State::Down,
    };
    (state, trouble.to_string())
}

/// Connects to a server for as long as the app runs.
async fn attend(nodes: Arc<Nodes>, id: usize, node: Node) {
    let mut pause = RETRY[0];
    let mut reached: Option<Instant> = None;
    let began = nodes.host.now();
    loop {
        let Some(given) = nodes.view().node(id).map(|seen| seen.given) else { return };
        let error = match connect(&nodes, &node, given).await {
            Ok((connection, peer)) => {
                let generation = nodes.generation.fetch_add(1, Relaxed);
                let reads = Reads::over(connection.clone());
                let wired = Arc::new(Wired { id, generation, connection, reads });
                match converse(&nodes, &wired, peer, &mut reached).await {
                    Some(error) => error,
                    None => return,
                }
            }
            Err(error) => error,
        };
        // One that was heard speaks as it is spoken to, and is tried again at once.
        let strange = match reached {
            Some(_) => None,
            None => misunderstood(&nodes, &node, &error).await,
        };
        let (state, reason) = match strange {
            Some(said) => (State::Untrusted, said.to_owned()),
            None => trouble(&error),
        };
        nodes.away(id, None, state, reason);
        // It was in service since the last attempt.
        if reached.is_some_and(|at| nodes.host.now() - at < PERIOD * 2) {
            pause = RETRY[0];
        }
        if !given && nodes.host.now() - reached.unwrap_or(began) > FORGET {
            return nodes.forget(id);
        }
        sleep(if state.is_lasting() { REFUSED } else { pause }).await;
        pause = (pause * 2).min(RETRY[1]);
    }
}

/// Whether a server that has never answered speaks TLS and was to speak plainly, or the other way round.
async fn misunderstood(nodes: &Nodes, node: &Node, error: &RedisError) -> Option<&'static str> {
    let (host, at) = (nodes.host.clone(), node.address.clone());
    // A plain server waits for the rest of what it takes for a command, and one of TLS cuts the connection.
    let ask: fn(&Host, &Address) -> Option<&'static str> = match node.tls {
        Some(_) if error.is_timeout() => |host, at| host.speaks_plainly(at).then_some(NOT_TLS),
        None if error.is_connection_dropped() && !error.is_connection_refusal() => {
            |host, at| host.speaks_tls(at).then_some(TLS_ONLY)
        }
        _ => return None,
    };
    tokio::task::spawn_blocking(move || ask(&host, &at)).await.ok()?
}

async fn connect(
    nodes: &Nodes,
    node: &Node,
    given: bool,
) -> Result<(MultiplexedConnection, SocketAddr), RedisError> {
    if !given && !may_hear(nodes, node).await {
        return Err(std::io::Error::other(Trouble::Tls(UNNAMED.into())).into());
    }
    let attempt = nodes.host.redis(&node.address, node.tls.as_deref(), node.login(), DEADLINE);
    // A name may stand for several addresses, and its lookup takes time of its own.
    match timeout(DEADLINE * 4, attempt).await {
        Ok(done) => done,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// Whether a server that another named may be told the password: whoever follows a master, or says so, could
/// name any address. TLS proves whose it is; on this machine the kernel tells.
async fn may_hear(nodes: &Nodes, node: &Node) -> bool {
    if node.password.is_none() || node.tls.is_some() {
        return true;
    }
    let (host, at) = (nodes.host.clone(), node.address.clone());
    let sure = move || is_of_topology(&host, &at) || holder::is_sure(&host, &at);
    tokio::task::spawn_blocking(sure).await.unwrap_or(false)
}

/// Whether the topology has an instance there: one that came after the settings were handed over. From within the
/// unit (PrivateUsers=) every other user is nobody, so there the kernel does not tell who has a port.
fn is_of_topology(host: &Host, at: &Address) -> bool {
    let files = [Some(topology::file()), layout::roots()];
    let topologies = files.into_iter().flatten().filter_map(|file| {
        let text = host.text(file).ok()??;
        Topology::parse(&text, file).ok()
    });
    let own = host.addresses();
    let there = |section: &topology::Section| section.port == at.port && section.listens_on(&at.host, &own);
    topologies.flat_map(|topology| topology.instances).any(|section| there(&section))
}

/// Asks a server until it does not answer; none when there is no need to ask any more.
async fn converse(
    nodes: &Arc<Nodes>,
    wired: &Arc<Wired>,
    peer: SocketAddr,
    reached: &mut Option<Instant>,
) -> Option<RedisError> {
    let mut connection = wired.connection.clone();
    let mut poke = nodes.poke.subscribe();
    loop {
        poke.borrow_and_update();
        let told: String = match cmd("INFO").query_async(&mut connection).await {
            Ok(told) => told,
            Err(error) => return Some(error),
        };
        let told = Told::parse(&told);
        let pause = if told.loading { RETRY[0] } else { PERIOD };
        if !nodes.present(wired.id, wired, peer, told) {
            return None;
        }
        *reached = Some(nodes.host.now());
        let _ = timeout(pause, poke.changed()).await;
        sleep(PAUSE).await;
    }
}
