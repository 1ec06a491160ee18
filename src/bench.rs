//! Cold against warm: how much faster the cache makes a web app, measured from outside. First the
//! lab's two requests for a fresh key, then a load for keys that are in the cache.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::exit::{Code, Fault};
use crate::finding::milliseconds;
use crate::host::Host;
use crate::http::{self, Answer, Connection, Trouble, Url, percent, within};

mod contract;
mod load;
mod tally;
#[cfg(test)]
mod tests;

pub use tally::{Bucket, Load};

/// How long a connection may take to be opened.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the database may take: the slowest that can be simulated, and some more.
const COLD: Duration = Duration::from_secs(75);
/// How much longer than the cold answer any other may take.
const MORE: Duration = Duration::from_secs(10);
/// How many keys are warmed at once: as many as a listen queue commonly holds.
const AT_ONCE: usize = 128;

/// What is measured, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The app.
    pub url: Url,
    /// How the requests follow one another.
    pub pace: Pace,
    /// How long the load lasts.
    pub duration: Duration,
    /// How many keys it asks for.
    pub keys: u16,
}

/// How the requests of a load follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub enum Pace {
    /// On each connection the next as soon as the last is answered.
    Closed {
        /// How many connections.
        concurrency: u16,
    },
    /// So many a second, whatever the app does.
    Open {
        /// Requests a second.
        #[serde(rename = "rate_per_second")]
        rate: u32,
        /// How many connections there are to begin with; more are opened when all are busy.
        concurrency: u16,
    },
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The format.
    pub schema: u32,
    /// `bench`
    pub command: &'static str,
    /// The app.
    pub url: String,
    /// What it calls itself, if it does.
    pub server: Option<String>,
    /// The fresh key.
    pub key: String,
    /// How long the first answer took.
    #[serde(rename = "cold_ms", serialize_with = "milliseconds")]
    pub cold: Duration,
    /// Where it came from.
    pub cold_source: String,
    /// How long the second took.
    #[serde(rename = "warm_ms", serialize_with = "milliseconds")]
    pub warm: Duration,
    /// Where it came from.
    pub warm_source: String,
    /// How many times faster the second was.
    pub factor: f64,
    /// What came of the load.
    pub load: Load,
}

/// Where a measurement has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first request for a fresh key.
    Cold,
    /// So many keys are brought into the cache.
    Warming(u16),
    /// The load, and how many seconds it is to last.
    Load(u64),
    /// So many keys could not be brought into the cache.
    Cool(usize),
}

/// Measures. An interruption ends the load early.
///
/// # Errors
/// The app does not answer, or not by the contract; its cache does not work; an interruption before
/// the load.
pub fn measure(host: &Host, options: &Options, tell: &mut dyn FnMut(Stage)) -> Result<Report> {
    let url = &options.url;
    let stem = format!("redis-tp-bench-{}", host.random_hex(4)?);
    let paths: Vec<String> =
        (0..options.keys).map(|number| format!("/data/{}", percent(&format!("{stem}-{number}")))).collect();
    let key = format!("{stem}-0");
    let path = format!("/data/{key}");
    tell(Stage::Cold);
    let first = ask(host, url, &path)?;
    let cold_source = contract::read(url, &key, &first)?;
    let second = ask(host, url, &path)?;
    let warm_source = contract::read(url, &key, &second)?;
    contract::judge(url, &cold_source, &warm_source)?;
    tell(Stage::Warming(options.keys));
    let patience = first.time + MORE;
    let cool = heat(host, url, &paths, patience)?;
    if cool > 0 {
        tell(Stage::Cool(cool));
    }
    tell(Stage::Load(options.duration.as_secs()));
    let load = load::run(host, options, paths, patience)?;
    if load.requests == 0 && load.errors > 0 {
        return Err(mute(url, &load).into());
    }
    Ok(Report {
        schema: 1,
        command: "bench",
        url: url.to_string(),
        server: first.header("server").map(str::to_owned),
        key,
        cold: first.time,
        cold_source,
        warm: second.time,
        warm_source,
        factor: (first.time.as_secs_f64() / second.time.as_secs_f64().max(1e-9) * 10.0).round() / 10.0,
        load,
    })
}

/// One request on a connection of its own. The time is the answer's, without the connecting.
fn ask(host: &Host, url: &Url, path: &str) -> Result<Answer> {
    let answer = http::wait(host, async {
        let mut connection = within(CONNECT, Connection::open(host, url)).await?;
        within(COLD, connection.get(path)).await
    });
    match answer.and_then(|answer| answer) {
        Err(_) if host.interrupted() => bail!("interrupted"),
        answer => answer.map_err(|trouble| silent(url, &trouble).into()),
    }
}

/// Brings the keys into the cache; how many did not get there.
fn heat(host: &Host, url: &Url, paths: &[String], patience: Duration) -> Result<usize> {
    let mut cool = 0;
    for some in paths.chunks(AT_ONCE) {
        // An app with one worker answers them one after another.
        let patience = patience * u32::try_from(some.len())?;
        let answers = http::each(host, url, some.to_vec(), patience);
        cool += answers.iter().filter(|answer| !answer.as_ref().is_ok_and(|got| got.status == 200)).count();
        if host.interrupted() {
            bail!("interrupted");
        }
    }
    Ok(cool)
}

/// An app that does not answer.
fn silent(url: &Url, trouble: &Trouble) -> Fault {
    let fault = Fault::new(Code::Failed, format!("{url}: {trouble}"));
    match trouble {
        Trouble::Refused => fault.hint(
            "start the app, or let redis-tp measure one of its own:\nredis-tp app serve\nredis-tp bench",
        ),
        Trouble::TimedOut => fault.hint("see whether the app is alive, and whether a firewall is between"),
        Trouble::Other(_) => fault.hint("give the http:// URL of a web app: redis-tp bench --url URL"),
    }
}

/// An app that answered two requests, and none of a load.
fn mute(url: &Url, load: &Load) -> Fault {
    let kinds: Vec<String> =
        load.errors_by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    Fault::new(Code::Failed, format!("{url} answers none of a load's requests: {}", kinds.join(", ")))
        .hint("see whether it is alive, and ask for less:\nredis-tp bench --concurrency 1")
}
