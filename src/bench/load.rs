//! The load: closed (each connection asks as soon as it was answered) or open (so many a second). In an
//! open one a latency counts from when the request was due: an app that stalls makes those late that
//! had to wait behind it, and so it is seen.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::tally::{Load, Tally};
use super::{CONNECT, Options, Pace};
use crate::host::Host;
use crate::http::{self, Answer, Connection, Trouble, Url, within};

/// How many connections an open load may have at once; beyond that, requests wait for one.
const MOST: usize = 1024;
/// The runtime's clock ticks in milliseconds: the rest of a wait is spent awake.
const AWAKE: Duration = Duration::from_millis(2);
/// A pause after a refusal, so that an app that is away is not asked a million times.
const PAUSE: Duration = Duration::from_millis(20);

/// A connection, or the place of one that has to be opened.
type Line = Option<Connection>;

/// Runs the load to its end, or to an interruption.
///
/// # Errors
/// There is no runtime to be had.
pub fn run(host: &Host, options: &Options, paths: Vec<String>, patience: Duration) -> Result<Load> {
    let tally = Arc::new(Mutex::new(Tally::new()?));
    let ask = Arc::new(Ask { host: host.clone(), url: options.url.clone(), paths, patience, tally });
    let mut began = host.now();
    let ended = http::wait(host, async {
        let lines = ask.open(usize::from(match options.pace {
            Pace::Closed { concurrency } | Pace::Open { concurrency, .. } => concurrency,
        }));
        let lines = lines.await;
        began = host.now();
        let end = began + options.duration;
        match options.pace {
            Pace::Closed { .. } => closed(&ask, lines, end).await,
            Pace::Open { rate, .. } => open(&ask, lines, rate, began, end).await,
        }
    });
    // Whoever is still waited for at the end does not count into the rate.
    let seconds = match host.interrupted() {
        true => (host.now() - began).min(options.duration).as_secs_f64(),
        false => options.duration.as_secs_f64(),
    };
    let mut sum = ask.tally.lock().unwrap_or_else(PoisonError::into_inner);
    let tally = std::mem::replace(&mut *sum, Tally::new()?);
    match ended {
        Err(trouble) if !host.interrupted() => Err(trouble).context("cannot make a load"),
        ended => Ok(tally.sum(options.pace, options.keys, seconds, ended.is_err() || host.interrupted())),
    }
}

/// Each connection in a circle until the end.
async fn closed(ask: &Arc<Ask>, lines: Vec<Line>, end: Instant) {
    let mut workers = JoinSet::new();
    for (number, mut line) in lines.into_iter().enumerate() {
        let ask = Arc::clone(ask);
        workers.spawn(async move {
            let mut turn = number;
            loop {
                let now = ask.host.now();
                if now >= end || ask.host.interrupted() {
                    return;
                }
                ask.once(&mut line, turn, now, end).await;
                turn += 1;
            }
        });
    }
    workers.join_all().await;
}

/// A request whenever one is due, on a connection that is free.
async fn open(ask: &Arc<Ask>, lines: Vec<Line>, rate: u32, began: Instant, end: Instant) {
    let mut count = lines.len();
    let (give, mut free) = mpsc::unbounded_channel();
    for line in lines {
        let _ = give.send(line);
    }
    let mut under_way = JoinSet::new();
    let total = (f64::from(rate) * (end - began).as_secs_f64()).round() as usize;
    for turn in 0..total {
        let due = began + Duration::from_secs_f64(turn as f64 / f64::from(rate));
        until(&ask.host, due).await;
        let line = match free.try_recv() {
            Ok(line) => line,
            Err(_) if count < MOST => {
                count += 1;
                None
            }
            Err(_) => free.recv().await.flatten(),
        };
        if ask.host.interrupted() {
            break;
        }
        if ask.host.now() >= end {
            ask.tally(|tally| tally.miss("unsent", (total - turn) as u64));
            break;
        }
        let (ask, give) = (Arc::clone(ask), give.clone());
        under_way.spawn(async move {
            let mut line = line;
            ask.once(&mut line, turn, due, end).await;
            let _ = give.send(line);
        });
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
}

/// Waits for a moment, more exactly than the runtime's clock does.
async fn until(host: &Host, due: Instant) {
    loop {
        let left = due.saturating_duration_since(host.now());
        if left.is_zero() || host.interrupted() {
            return;
        }
        match left.checked_sub(AWAKE) {
            // In slices, for an interruption.
            Some(sleep) => tokio::time::sleep(sleep.min(Duration::from_millis(50))).await,
            None => tokio::task::yield_now().await,
        }
    }
}

/// Who is asked for what, and the count of it.
struct Ask {
    host: Host,
    url: Url,
    paths: Vec<String>,
    patience: Duration,
    tally: Arc<Mutex<Tally>>,
}

impl Ask {
    /// The connections to begin with; one that cannot be had is tried again when it is its turn.
    async fn open(self: &Arc<Self>, count: usize) -> Vec<Line> {
        let mut opening = JoinSet::new();
        for _ in 0..count {
            let ask = Arc::clone(self);
            opening.spawn(async move { ask.connect().await.ok() });
        }
        opening.join_all().await
    }

    async fn connect(&self) -> Result<Connection, Trouble> {
        let connection = within(CONNECT, Connection::open(&self.host, &self.url)).await?;
        self.tally(|tally| tally.connections += 1);
        Ok(connection)
    }

    /// A request that was due at `from`, and counts.
    async fn once(&self, line: &mut Line, turn: usize, from: Instant, end: Instant) {
        let path = self.paths.get(turn % self.paths.len().max(1)).map_or("/", String::as_str);
        let outcome = within(self.patience, self.exchange(line, path)).await;
        let now = self.host.now();
        self.tally(|tally| tally.count(&outcome, now.saturating_duration_since(from), now <= end));
        if outcome.is_err() {
            *line = None;
        }
        if outcome == Err(Trouble::Refused) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A server may close a connection that is kept just as we ask on it (RFC 9112, 9.5): then it is
    /// asked once more, on a new one.
    async fn exchange(&self, line: &mut Line, path: &str) -> Result<Answer, Trouble> {
        if let Some(mut kept) = line.take()
            && kept.is_open().await
        {
            match kept.get(path).await {
                Err(Trouble::Other(_)) => {}
                answer => {
                    *line = Some(kept);
                    return answer;
                }
            }
        }
        line.insert(self.connect().await?).get(path).await
    }

    fn tally(&self, act: impl FnOnce(&mut Tally)) {
        act(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
