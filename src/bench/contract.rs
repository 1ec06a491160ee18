//! The part of the contract that a measurement needs: three members of a JSON object, and what a fresh
//! key has to come from. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::exit::{Code, Fault};
use crate::http::{Answer, Url};

/// What `source` says when an answer came from the cache.
const CACHE: &str = "cache";

/// The one member that the load looks at.
#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
}

/// Whether an answer came from the cache; none for one that is not by the contract.
pub fn is_hit(body: &[u8]) -> Option<bool> {
    serde_json::from_slice::<Source<'_>>(body).ok().map(|answer| answer.source == CACHE)
}

/// Reads an answer: where its value came from.
///
/// # Errors
/// What the contract asks for and the answer has not.
pub fn read(url: &Url, key: &str, answer: &Answer) -> Result<String, Fault> {
    let place = format!("{url}/data/{key}");
    if answer.status != 200 {
        return Err(status(&place, answer));
    }
    let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(&answer.body) else {
        return Err(foreign(format!("{place} answers no JSON object")));
    };
    for name in ["key", "value", "source"] {
        if !members.contains_key(name) {
            return Err(foreign(format!("the answer of {place} has no member \"{name}\"")));
        }
    }
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    match (text("key"), text("source")) {
        (Some(same), Some(source)) if same == key => Ok(source.to_owned()),
        (Some(other), Some(_)) => Err(foreign(format!("{place} answers for the key \"{other}\""))),
        _ => Err(foreign(format!("\"key\" and \"source\" of {place} are not both text"))),
    }
}

/// Whether a fresh key came from the database, and then from the cache.
///
/// # Errors
/// It did not.
pub fn judge(url: &Url, cold: &str, warm: &str) -> Result<(), Fault> {
    if cold == CACHE {
        return Err(Fault::new(
            Code::Failed,
            format!("{url} answers the first request for a fresh key from the cache"),
        )
        .hint("measure the app itself: another cache stands before it, or it does not ask its database"));
    }
    if warm != CACHE {
        let fault = Fault::new(
            Code::Failed,
            format!("{url} answers the second request from \"{}\", not from the cache", warm),
        );
        return Err(match warm.contains("cache") {
            true => fault.hint("the app cannot use its Redis; see whether it runs:\nredis-tp status"),
            false => fault.hint(
                "the app does not keep what it read, or its TTL is shorter than its database takes:\nredis-tp verify --url URL",
            ),
        });
    }
    Ok(())
}

fn status(place: &str, answer: &Answer) -> Fault {
    let said = serde_json::from_slice::<Value>(&answer.body).ok();
    let text = |name: &str| said.as_ref().and_then(|said| said.get(name)).and_then(Value::as_str);
    let words = text("message").map_or(String::new(), |message| format!(": {message}"));
    let message = format!("{place} answers {}{words}", answer.status);
    match (answer.status, text("error")) {
        // Only ours says so in JSON: a route that is there, and a row that is not.
        (404, Some("not-found")) => Fault::new(Code::Failed, message).hint(
            "give the URL of the app itself; or, where its database lacks the row, one that has every key:\nredis-tp app serve --source simulated --port 5001\nredis-tp bench --url http://127.0.0.1:5001",
        ),
        _ => foreign(message),
    }
}

/// An app that does not speak the contract.
fn foreign(message: String) -> Fault {
    Fault::new(Code::Failed, message).hint(
        "bench measures an app that answers GET /data/<key> with\n{\"key\": \"…\", \"value\": \"…\", \"source\": \"cache\"}",
    )
}
