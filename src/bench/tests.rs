//! Measurements of small servers that do one thing, right or wrong.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use super::*;

/// How a server behaves.
#[derive(Clone, Copy)]
struct Manner {
    /// What the first request for a key gets, and what the others.
    sources: [&'static str; 2],
    /// How long the first for a key takes.
    slow: Duration,
    /// Once, from the 100th request on, nobody is answered for so long.
    stall: Duration,
    /// Whether it keeps connections.
    keeps: bool,
}

const FINE: Manner = Manner {
    sources: ["database (slow)", "cache"],
    slow: Duration::from_millis(50),
    stall: Duration::ZERO,
    keeps: true,
};

fn server(manner: Manner) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, asked) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicU64::new(0)));
    let stalled: Arc<Mutex<Option<Instant>>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, asked, stalled) = (Arc::clone(&seen), Arc::clone(&asked), Arc::clone(&stalled));
            thread::spawn(move || talk(stream.unwrap(), manner, &seen, &asked, &stalled));
        }
    });
    Url::local([127, 0, 0, 1].into(), port)
}

fn talk(
    mut stream: TcpStream,
    manner: Manner,
    seen: &Mutex<BTreeSet<String>>,
    asked: &AtomicU64,
    stalled: &Mutex<Option<Instant>>,
) {
    stream.set_nodelay(true).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(line)) = lines.next() {
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let key = line.split([' ', '/']).nth(3).unwrap().to_owned();
        let cold = seen.lock().unwrap().insert(key.clone());
        if asked.fetch_add(1, Ordering::Relaxed) + 1 >= 100 {
            let end = *stalled.lock().unwrap().get_or_insert_with(|| Instant::now() + manner.stall);
            thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        if cold {
            thread::sleep(manner.slow);
        }
        let source = manner.sources[usize::from(!cold)];
        let body = format!("{{\"key\":\"{key}\",\"value\":\"V\",\"source\":\"{source}\"}}");
        let close = if manner.keeps { "" } else { "Connection: close\r\n" };
        let head = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: {}\r\n\r\n", body.len());
        if stream.write_all(format!("{head}{body}").as_bytes()).is_err() || !manner.keeps {
            return;
        }
    }
}

fn options(url: Url, pace: Pace) -> Options {
    Options { url, pace, duration: Duration::from_millis(800), keys: 4 }
}

fn bench(manner: Manner, pace: Pace) -> Result<Report> {
    measure(&Host::real(), &options(server(manner), pace), &mut |_| {})
}

/// What is said, and the cure.
fn refused(manner: Manner) -> (String, String) {
    let error = bench(manner, Pace::Closed { concurrency: 1 }).unwrap_err();
    let cure = error.downcast_ref::<Fault>().unwrap().cure().unwrap_or_default().to_owned();
    (error.to_string(), cure)
}

#[test]
fn cold_and_warm_are_told_apart() {
    let report = bench(FINE, Pace::Closed { concurrency: 4 }).unwrap();
    assert!(report.cold >= FINE.slow && report.warm < FINE.slow / 2, "{report:?}");
    assert!(report.factor > 2.0, "{report:?}");
    assert_eq!((report.cold_source.as_str(), report.warm_source.as_str()), ("database (slow)", "cache"));
    let load = report.load;
    assert_eq!((load.hit_ratio, load.errors, load.connections), (Some(1.0), 0, 4), "{load:?}");
    assert!(load.requests > 100 && load.requests_per_second > 100.0, "{load:?}");
    assert_eq!(load.histogram.iter().map(|row| row.count).sum::<u64>(), load.requests);
}

#[test]
fn an_app_that_keeps_no_connection_has_no_errors() {
    let load = bench(Manner { keeps: false, ..FINE }, Pace::Closed { concurrency: 2 }).unwrap().load;
    assert_eq!((load.errors, load.hit_ratio), (0, Some(1.0)), "{load:?}");
    assert!(load.connections >= load.requests, "{load:?}");
}

#[test]
fn a_rate_is_kept() {
    let load = bench(FINE, Pace::Open { rate: 500, concurrency: 4 }).unwrap().load;
    // A machine that is busy may leave some unsent; none is more, and none is lost.
    assert_eq!(load.requests + load.errors, 400, "{load:?}");
    assert!(load.errors <= 100 && load.p50 < Duration::from_millis(200), "{load:?}");
}

#[test]
fn a_stall_is_seen_by_all_that_were_due_meanwhile() {
    let stall = Duration::from_millis(300);
    let load = bench(Manner { stall, ..FINE }, Pace::Open { rate: 500, concurrency: 4 }).unwrap().load;
    // 300 ms of 800: more than a third of the requests had to wait, the first of them for all of it.
    assert!(load.max >= Duration::from_millis(290) && load.p99 >= Duration::from_millis(250), "{load:?}");
    let waited: u64 =
        load.histogram.iter().filter(|row| row.from >= Duration::from_millis(20)).map(|row| row.count).sum();
    assert!(waited >= 120, "{load:?}");
    assert_eq!(load.requests + load.errors, 400, "{load:?}");
}

#[test]
fn a_cache_that_is_none_is_an_error_with_a_cure() {
    let (said, cure) = refused(Manner { sources: ["cache", "cache"], ..FINE });
    assert!(said.ends_with("answers the first request for a fresh key from the cache"), "{said}");
    assert!(cure.contains("another cache stands before it"), "{cure}");
    let (said, cure) = refused(Manner { sources: ["database (slow)"; 2], ..FINE });
    assert!(said.contains("from \"database (slow)\", not from the cache"), "{said}");
    assert!(cure.contains("TTL"), "{cure}");
    let (said, cure) = refused(Manner { sources: ["database (slow, cache unavailable)"; 2], ..FINE });
    assert!(said.contains("not from the cache") && cure.contains("redis-tp status"), "{said} {cure}");
}

#[test]
fn an_answer_that_is_not_by_the_contract_says_what_it_lacks() {
    let url = Url::local([127, 0, 0, 1].into(), 5000);
    let said = |status, body: &str| {
        let body = body.as_bytes().to_vec();
        let answer = Answer { status, headers: Vec::new(), body, time: Duration::ZERO };
        contract::read(&url, "a", &answer).map_err(|fault| fault.to_string())
    };
    let bad = |status, body: &str, words: &str| {
        let said = said(status, body).unwrap_err();
        assert!(said.contains(words) && said.contains("http://127.0.0.1:5000/data/a"), "{said}");
    };
    bad(200, "<html>", "no JSON object");
    bad(200, "[]", "no JSON object");
    bad(200, r#"{"key":"a","source":"cache"}"#, "no member \"value\"");
    bad(200, r#"{"key":"b","value":1,"source":"cache"}"#, "for the key \"b\"");
    bad(200, r#"{"key":"a","value":1,"source":null}"#, "not both text");
    bad(404, r#"{"error":"not-found","message":"no such row"}"#, "answers 404: no such row");
    assert!(said(200, r#"{"value":{"any":1},"more":1,"source":"cache","key":"a"}"#).is_ok());
}

#[test]
fn an_app_that_is_not_there_is_said_so() {
    let url = Url::local([127, 0, 0, 1].into(), 1);
    let error =
        measure(&Host::real(), &options(url, Pace::Closed { concurrency: 1 }), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "http://127.0.0.1:1: nobody listens there");
}
