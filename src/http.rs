//! A conversation over HTTP/1.1, without TLS: with a web app that speaks the contract. Asynchronous
//! below, for a load of many requests at once; in front of it a plain question and its answer.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderMap};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::host::Host;

#[cfg(test)]
mod tests;
mod url;

pub use url::{Url, percent};

/// The longest body that is taken, in bytes.
pub const LIMIT: usize = 1 << 20;

/// How often a wait looks whether it is interrupted.
const TICK: Duration = Duration::from_millis(50);

/// What an app answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// From the request until the last byte of the body, on a connection that was open.
    pub time: Duration,
}

impl Answer {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text, bytes that are none replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why an app did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens there.
    Refused,
    /// It did not answer in time.
    TimedOut,
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("nobody listens there"),
            Self::TimedOut => f.write_str("it did not answer in time"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Trouble {}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Other(error.to_string()),
        }
    }
}

impl From<hyper::Error> for Trouble {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() {
            return Self::Other("what it answers is not HTTP/1.1".into());
        }
        let broken = |error: &io::Error| {
            use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
            matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof)
        };
        let reset =
            std::error::Error::source(&error).and_then(|cause| cause.downcast_ref()).is_some_and(broken);
        if reset || error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return Self::Other("it hung up before its answer was whole".into());
        }
        Self::Other(error.to_string())
    }
}

/// One question, on a connection of its own. `path` goes behind the URL's; `timeout` is for all of it.
///
/// # Errors
/// See [`Trouble`]; an interruption.
pub fn get(host: &Host, url: &Url, path: &str, timeout: Duration) -> Result<Answer, Trouble> {
    wait(host, async {
        let work = async { Connection::open(host, url).await?.get(path).await };
        within(timeout, work).await
    })?
}

/// The same question `count` times at once. Every connection is open before the first is asked;
/// `timeout` is for the opening, and again for the answer.
pub fn together(
    host: &Host,
    url: &Url,
    path: &str,
    count: usize,
    timeout: Duration,
) -> Vec<Result<Answer, Trouble>> {
    let paths = vec![path.to_owned(); count];
    each(host, url, paths, timeout)
}

/// Many questions at once, and the answers in their order; otherwise as [`together`].
pub fn each(host: &Host, url: &Url, paths: Vec<String>, timeout: Duration) -> Vec<Result<Answer, Trouble>> {
    let count = paths.len();
    let all = async {
        let mut opening = Ordered::default();
        for _ in 0..count {
            let (host, url) = (host.clone(), url.clone());
            opening.add(async move { within(timeout, Connection::open(&host, &url)).await });
        }
        let mut asking = Ordered::default();
        for (connection, path) in opening.finish().await.into_iter().zip(paths) {
            asking.add(async move {
                let mut connection = connection?;
                within(timeout, connection.get(&path)).await
            });
        }
        asking.finish().await
    };
    wait(host, all).unwrap_or_else(|trouble| vec![Err(trouble); count])
}

/// Runs something asynchronous to its end, or until an interruption.
///
/// # Errors
/// The interruption.
pub fn wait<T>(host: &Host, work: impl Future<Output = T>) -> Result<T, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let mut work = pin!(work);
        loop {
            match timeout(TICK, work.as_mut()).await {
                Ok(done) => return Ok(done),
                Err(_) if host.interrupted() => return Err(Trouble::Other("interrupted".into())),
                Err(_) => {}
            }
        }
    });
    // A name that is still being looked up holds nobody.
    runtime.shutdown_background();
    done
}

/// What does not end in time is trouble.
pub async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, Trouble>>,
) -> Result<T, Trouble> {
    timeout(limit, work).await.unwrap_or(Err(Trouble::TimedOut))
}

/// An open connection, on which one question follows another. Lives inside of [`wait`].
pub struct Connection {
    host: Host,
    sender: SendRequest<Empty<Bytes>>,
    authority: String,
    before: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection to {}", self.authority)
    }
}

impl Connection {
    /// Connects, and says nothing yet.
    ///
    /// # Errors
    /// See [`Trouble`]. There is no limit in time: see [`within`].
    pub async fn open(host: &Host, url: &Url) -> Result<Self, Trouble> {
        let stream = host.dial(&url.host, url.port).await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what goes wrong on it, the sender is told.
        tokio::spawn(driver);
        Ok(Self { host: host.clone(), sender, authority: url.authority(), before: url.path.clone() })
    }

    /// One question and its answer. `path` goes behind the URL's.
    ///
    /// # Errors
    /// See [`Trouble`]. There is no limit in time: see [`within`].
    pub async fn get(&mut self, path: &str) -> Result<Answer, Trouble> {
        let request = hyper::Request::get(format!("{}{path}", self.before))
            .header(HOST, &self.authority)
            .header(hyper::header::ACCEPT, "application/json, */*;q=0.5")
            .body(Empty::new())
            .map_err(|_| Trouble::Other(format!("'{path}' is no path")))?;
        self.sender.ready().await?;
        let began = self.host.now();
        let answer = self.sender.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LIMIT).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return Trouble::Other("its answer is longer than 1 MiB".into());
            }
            error
                .downcast::<hyper::Error>()
                .map_or_else(|error| Trouble::Other(error.to_string()), |error| Trouble::from(*error))
        })?;
        let time = self.host.now() - began;
        let body = body.to_bytes().to_vec();
        Ok(Answer { status: head.status.as_u16(), headers: plain(&head.headers), body, time })
    }

    /// Whether another question may follow; an app that does not keep connections has closed it.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

fn plain(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect()
}

/// Tasks under way at once, and their results in the order in which they were added.
struct Ordered<T> {
    tasks: JoinSet<(usize, Result<T, Trouble>)>,
}

impl<T: Send + 'static> Default for Ordered<T> {
    fn default() -> Self {
        Self { tasks: JoinSet::new() }
    }
}

impl<T: Send + 'static> Ordered<T> {
    fn add(&mut self, work: impl Future<Output = Result<T, Trouble>> + Send + 'static) {
        let place = self.tasks.len();
        self.tasks.spawn(async move { (place, work.await) });
    }

    async fn finish(mut self) -> Vec<Result<T, Trouble>> {
        let mut results = Vec::with_capacity(self.tasks.len());
        while let Some(done) = self.tasks.join_next().await {
            results.extend(done);
        }
        results.sort_by_key(|(place, _)| *place);
        results.into_iter().map(|(_, result)| result).collect()
    }
}
