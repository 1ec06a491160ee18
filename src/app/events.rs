//! What the page is told while it happens: server-sent events. A listener that is slow misses some; it
//! never holds anybody up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::sse::Event;
use serde::Serialize;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};

use crate::host::Host;
use crate::report::console;

/// How many may listen at once.
const LISTENERS: usize = 64;
/// How many events a listener may lag behind before it misses some.
const LAG: usize = 256;
/// How many notices are told again to a new listener.
const KEPT: usize = 20;

/// Something that happened to the servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// `warn` or `info`.
    pub level: &'static str,
    /// `master-away`, `master-back`, `master-moved`, `node-down`, `node-up`.
    pub what: &'static str,
    /// The server it happened to.
    pub node: String,
    /// All of it in a sentence.
    pub text: String,
}

#[derive(Serialize)]
struct Dated<'a> {
    #[serde(flatten)]
    notice: &'a Notice,
    time: u64,
}

/// A step of a request, as the page draws it.
#[derive(Serialize)]
struct Hop<'a> {
    id: &'a str,
    key: &'a str,
    hop: &'static str,
    phase: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

/// An event: its kind and its data; the last of all has no kind.
type Message = (&'static str, Arc<str>);

/// Where events come together and go out from.
#[derive(Debug)]
pub struct Hub {
    host: Host,
    /// Whether notices are lines on standard error, too.
    logs: bool,
    sender: broadcast::Sender<Message>,
    listeners: AtomicUsize,
    ended: AtomicBool,
    notices: Mutex<VecDeque<Arc<str>>>,
}

impl Hub {
    /// A hub without listeners.
    pub fn new(host: &Host, logs: bool) -> Self {
        Self {
            host: host.clone(),
            logs,
            sender: broadcast::Sender::new(LAG),
            listeners: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
            notices: Mutex::default(),
        }
    }

    /// Whether somebody listens.
    pub fn heard(&self) -> bool {
        self.listeners.load(Relaxed) > 0
    }

    /// Tells all who listen.
    pub fn tell(&self, kind: &'static str, data: impl Into<Arc<str>>) {
        // An error says that nobody listens.
        let _ = self.sender.send((kind, data.into()));
    }

    /// Tells what happened to the servers, and keeps it for those who come later.
    pub fn notice(&self, notice: &Notice) {
        if self.logs {
            console::err(format_args!("{}: {}", notice.level, notice.text));
        }
        let dated = Dated { notice, time: self.host.unix_millis() };
        let text: Arc<str> = serde_json::to_string(&dated).unwrap_or_default().into();
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() == KEPT {
            notices.pop_front();
        }
        notices.push_back(Arc::clone(&text));
        // Under the lock: a new listener gets it from one of the two, and not from both.
        self.tell("notice", text);
    }

    /// Ends all that listen: the app is about to stop.
    pub fn end(&self) {
        self.ended.store(true, Relaxed);
        self.tell("", "");
    }

    /// Begins to listen: `status`, then the notices so far, then what happens. None where too many do.
    pub fn listen(
        self: &Arc<Self>,
        status: String,
    ) -> Option<impl Stream<Item = Result<Event, std::convert::Infallible>> + use<>> {
        let seat = Seat::take(self)?;
        let (kept, receiver) = {
            let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
            (notices.clone(), self.sender.subscribe())
        };
        let first =
            std::iter::once(("status", status.into())).chain(kept.into_iter().map(|at| ("notice", at)));
        let first: Vec<Message> = first.collect();
        let rest = BroadcastStream::new(receiver).filter_map(Result::ok);
        let stream = tokio_stream::iter(first).chain(rest).take_while(|(kind, _)| !kind.is_empty());
        Some(stream.map(move |(kind, data)| {
            // The seat is given back with the stream.
            let _ = &seat;
            Ok(Event::default().event(kind).data(data))
        }))
    }
}

/// A listener's place.
struct Seat(Arc<Hub>);

impl Seat {
    fn take(hub: &Arc<Hub>) -> Option<Self> {
        let seat = Self(Arc::clone(hub));
        let before = hub.listeners.fetch_add(1, Relaxed);
        (before < LISTENERS && !hub.ended.load(Relaxed)).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Relaxed);
    }
}

/// A request that tells its steps, if it was asked to and somebody listens.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Arc<Traced>>);

#[derive(Debug)]
struct Traced {
    hub: Arc<Hub>,
    id: String,
    key: String,
}

impl Trace {
    /// For a request with this `X-Request-Id`.
    pub fn of(hub: &Arc<Hub>, id: Option<&[u8]>, key: &str) -> Self {
        let Some(id) = id.filter(|_| hub.heard()) else { return Self::default() };
        let fine = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        if id.is_empty() || id.len() > 64 || !id.iter().all(fine) {
            return Self::default();
        }
        let id = String::from_utf8_lossy(id).into_owned();
        Self(Some(Arc::new(Traced { hub: Arc::clone(hub), id, key: key.to_owned() })))
    }

    /// A step begins.
    pub fn begin(&self, hop: &'static str) {
        self.tell(hop, "begin", None, None);
    }

    /// A step has ended.
    pub fn end(&self, hop: &'static str, took: Duration, outcome: &'static str) {
        self.tell(hop, "end", Some(took), Some(outcome));
    }

    fn tell(
        &self,
        hop: &'static str,
        phase: &'static str,
        took: Option<Duration>,
        outcome: Option<&'static str>,
    ) {
        let Some(traced) = &self.0 else { return };
        let ms = took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3);
        let hop = Hop { id: &traced.id, key: &traced.key, hop, phase, ms, outcome };
        traced.hub.tell("hop", serde_json::to_string(&hop).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_may_listen_and_a_seat_is_given_back() {
        let hub = Arc::new(Hub::new(&Host::at("/"), false));
        let mut seats: Vec<_> = (0..LISTENERS).map(|_| hub.listen(String::new()).unwrap()).collect();
        assert!(hub.listen(String::new()).is_none() && hub.heard());
        seats.pop();
        assert!(hub.listen(String::new()).is_some());
        drop(seats);
        assert!(!hub.heard());
    }

    #[test]
    fn a_request_tells_its_steps_only_under_a_proper_name() {
        let hub = Arc::new(Hub::new(&Host::at("/"), false));
        assert!(Trace::of(&hub, Some(b"a-1"), "k").0.is_none(), "nobody listens");
        let _seat = hub.listen(String::new());
        assert!(Trace::of(&hub, Some(b"a-1"), "k").0.is_some());
        for bad in [None, Some(&b""[..]), Some(b"a b"), Some(&[b'a'; 65]), Some(b"\xff")] {
            assert!(Trace::of(&hub, bad, "k").0.is_none(), "{bad:?}");
        }
    }
}
