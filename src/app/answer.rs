//! `GET /data/KEY`: the key out of the path, the value out of the cache, and the answer by hand: this is
//! the way that has to be fast.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::cache::{Answer, Found, Lack, Steps};
use super::events::Trace;
use super::metrics::Ended;
use super::shared::Shared;
use crate::topology::Source;

/// What stands before a key.
pub const PATH: &str = "/data/";
/// How long a key may be, in bytes.
const KEY: usize = 512;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const X_CACHE_TTL: HeaderName = HeaderName::from_static("x-cache-ttl");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Marks a request whose steps are told to the page.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// An error as JSON.
pub fn error(status: StatusCode, id: &str, message: &str) -> Response {
    let body = serde_json::json!({ "error": id, "message": message }).to_string();
    json(status, body.into())
}

/// A body of JSON.
pub fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    // With room for all that follow: growing would cost more than the rest.
    response.headers_mut().reserve(10);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Answers a request for a value.
pub async fn data(app: &Shared, request: &Parts) -> Response {
    let began = app.host.now();
    let _under_way = app.metrics.begin();
    let raw = request.uri.path().strip_prefix(PATH).unwrap_or_default();
    let key = match key(raw) {
        Ok(key) => key,
        Err((status, id, message)) => {
            app.metrics.count(Ended::Error, app.host.now() - began);
            return error(status, id, message);
        }
    };
    let id = request.headers.get(X_REQUEST_ID).map(HeaderValue::as_bytes);
    let trace = Trace::of(&app.hub, id, &key);
    let answer = app.cache.read(&key, &trace).await;
    let ended = ended(&answer);
    let took = app.host.now() - began;
    app.metrics.count(ended, took);
    trace.end("done", took, outcome(ended));
    respond(app, &key, &answer, ended)
}

/// Reads a key out of a path.
fn key(raw: &str) -> Result<Cow<'_, str>, (StatusCode, &'static str, &'static str)> {
    let bad = (StatusCode::BAD_REQUEST, "bad-key", "The key is not UTF-8, percent-encoded.");
    let key = match raw.contains('%') {
        false => Cow::Borrowed(raw),
        true => Cow::Owned(decode(raw).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(bad)?),
    };
    match key.len() {
        0 => Err((StatusCode::BAD_REQUEST, "empty-key", "There is no key: ask for /data/KEY.")),
        1..=KEY => Ok(key),
        _ => Err((StatusCode::URI_TOO_LONG, "key-too-long", "The key is longer than 512 bytes.")),
    }
}

/// Undoes percent-encoding; none where a `%` stands before anything but two hexadecimal digits.
fn decode(raw: &str) -> Option<Vec<u8>> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut bytes = raw.bytes();
    let mut decoded = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => u8::try_from(digit(bytes.next())? << 4 | digit(bytes.next())?).ok()?,
            other => other,
        });
    }
    Some(decoded)
}

fn ended(answer: &Answer) -> Ended {
    match (&answer.found, answer.lack) {
        (Found::Cached(..), _) => Ended::Hit,
        (Found::Broken(_) | Found::Timeout | Found::Overloaded, _) => Ended::Error,
        (Found::Read(_) | Found::Absent, Some(_)) => Ended::Bypass,
        (Found::Read(_) | Found::Absent, None) if answer.steps.wait.is_some() => Ended::Shared,
        (Found::Read(_) | Found::Absent, None) => Ended::Miss,
    }
}

/// What a request has come to, as the page shows it.
fn outcome(ended: Ended) -> &'static str {
    match ended {
        Ended::Hit => "hit",
        Ended::Miss | Ended::Shared => "miss",
        Ended::Bypass => "ok",
        Ended::Error => "error",
    }
}

fn respond(app: &Shared, key: &str, answer: &Answer, ended: Ended) -> Response {
    let mut response = match &answer.found {
        Found::Cached(value, _) => value_of(key, value, "cache"),
        Found::Read(value) => value_of(key, value, source(&app.settings.section.source, answer.lack)),
        Found::Absent => error(StatusCode::NOT_FOUND, "not-found", "The database has no such key."),
        Found::Broken(why) => {
            error(StatusCode::BAD_GATEWAY, "database", &format!("The database gives no answer: {why}."))
        }
        Found::Timeout => {
            error(StatusCode::GATEWAY_TIMEOUT, "timeout", "The database did not answer in time.")
        }
        Found::Overloaded => {
            error(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many reads are under way.")
        }
    };
    let left = match &answer.found {
        Found::Cached(_, left) => *left,
        _ => answer.stored.filter(|_| ended != Ended::Bypass),
    };
    headers(response.headers_mut(), ended, left.map(|left| (app.cache.age(left), left)), &answer.steps);
    response
}

/// The three members, in this order.
fn value_of(key: &str, value: &str, source: &'static str) -> Response {
    let mut body = Vec::with_capacity(key.len() + value.len() + source.len() + 48);
    let mut member = |head: &str, text: &str| {
        body.extend_from_slice(head.as_bytes());
        // Into memory, and of text: nothing that could fail.
        let _ = serde_json::to_writer(&mut body, text);
    };
    member("{\"key\":", key);
    member(",\"value\":", value);
    member(",\"source\":", source);
    body.push(b'}');
    json(StatusCode::OK, body.into())
}

fn source(source: &Source, lack: Option<Lack>) -> &'static str {
    match (source, lack) {
        (Source::Simulated, None) => "database (slow)",
        (Source::Simulated, Some(Lack::Unavailable)) => "database (slow, cache unavailable)",
        (Source::Simulated, Some(Lack::Refused)) => "database (slow, cache refused)",
        (Source::Sqlite(_), None) => "database",
        (Source::Sqlite(_), Some(Lack::Unavailable)) => "database (cache unavailable)",
        (Source::Sqlite(_), Some(Lack::Refused)) => "database (cache refused)",
    }
}

fn headers(headers: &mut HeaderMap, ended: Ended, times: Option<(Duration, Duration)>, steps: &Steps) {
    let cache = match ended {
        Ended::Hit => "HIT",
        Ended::Miss | Ended::Shared => "MISS",
        Ended::Bypass | Ended::Error => "BYPASS",
    };
    headers.insert(X_CACHE, HeaderValue::from_static(cache));
    let mut text = String::with_capacity(160);
    if let Some((age, left)) = times {
        let _ = write!(text, "{}", age.as_secs());
        put(headers, AGE, &text);
        text.clear();
        let _ = write!(text, "{}.{:03}", left.as_secs(), left.subsec_millis());
        put(headers, X_CACHE_TTL, &text);
        text.clear();
    }
    let step = |text: &mut String, name: &str, took: Duration| {
        let micros = took.as_micros();
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{name};dur={}.{:03}", micros / 1000, micros % 1000);
    };
    step(&mut text, "cache", steps.cache);
    for (name, took) in [("database", steps.database), ("store", steps.store), ("wait", steps.wait)] {
        if let Some(took) = took {
            step(&mut text, name, took);
        }
    }
    put(headers, SERVER_TIMING, &text);
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    // Digits and words of ours alone.
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_stands_behind_data_and_nothing_else() {
        for (raw, expected) in [
            ("bonjour", "bonjour"),
            ("a%2Fb/c", "a/b/c"),
            ("..%2f../x", "../../x"),
            ("a+b%20c", "a+b c"),
            ("%C3%a9", "é"),
            ("%00", "\0"),
            (&"x".repeat(512), &"x".repeat(512)),
        ] {
            assert_eq!(key(raw).unwrap(), expected);
        }
        for (raw, expected) in [
            ("", "empty-key"),
            ("%", "bad-key"),
            ("%4", "bad-key"),
            ("%+1", "bad-key"),
            ("%G0", "bad-key"),
            ("%FF", "bad-key"),
            ("%C3", "bad-key"),
            (&"x".repeat(513), "key-too-long"),
            (&"%41".repeat(513), "key-too-long"),
        ] {
            assert_eq!(key(raw).unwrap_err().1, expected, "{raw}");
        }
    }

    #[test]
    fn an_answer_has_its_members_in_the_contracts_order() {
        let response = value_of("a\"\0", "\u{e9}\n", "cache");
        let body = http_body_util::BodyExt::collect(response.into_body());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(body).unwrap().to_bytes();
        assert_eq!(body, r#"{"key":"a\"\u0000","value":"é\n","source":"cache"}"#);
    }
}
