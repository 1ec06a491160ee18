//! What an app answers, read. Pure.

use std::time::Duration;

use serde_json::Value;

use crate::http::Answer;

/// How many characters of somebody else's text are shown.
const SHOWN: usize = 60;

/// A look through the app at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The value.
    pub value: String,
    /// Where it came from, in the app's words.
    pub source: String,
    /// It says that the cache was passed by.
    pub bypassed: bool,
    /// How long it took.
    pub time: Duration,
}

impl Reply {
    /// Reads an answer to a question for a key.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(answer: &Answer, key: &str) -> Result<Self, String> {
        if answer.status != 200 {
            return Err(format!("it answers {}: {}", answer.status, word(&answer.text())));
        }
        let json: Value = serde_json::from_slice(&answer.body)
            .map_err(|_| format!("its answer is no JSON: {}", word(&answer.text())))?;
        let member = |name: &str| match json.get(name).and_then(Value::as_str) {
            Some(text) => Ok(text.to_owned()),
            None => Err(format!("its answer has no text '{name}': {}", word(&answer.text()))),
        };
        let (answered, value, source) = (member("key")?, member("value")?, member("source")?);
        if answered != key {
            return Err(format!("it answers for the key {}, and was asked for '{key}'", word(&answered)));
        }
        let says = ["unavailable", "refused"].iter().any(|word| source.contains(word));
        let bypassed = says || answer.header("x-cache") == Some("BYPASS");
        Ok(Self { value, source, bypassed, time: answer.time })
    }

    /// The value came from the cache.
    pub fn is_cached(&self) -> bool {
        self.source == "cache"
    }

    /// The value came from the database.
    pub fn is_read(&self) -> bool {
        self.source.starts_with("database")
    }
}

/// Somebody else's text in quotes: not too much of it, and on one line.
pub fn word(text: &str) -> String {
    let mut shown: String = text.trim().chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.trim().chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("'{}'", shown.replace("\\\"", "\"").replace("\\'", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: Vec::new(), body: body.into(), time: Duration::from_millis(1) }
    }

    #[test]
    fn an_answer_that_breaks_the_contract_is_none() {
        for (status, body, words) in [
            (500, "<h1>Internal\nServer Error</h1>", "500: '<h1>Internal\\nServer"),
            (200, "BONJOUR", "no JSON: 'BONJOUR'"),
            (200, "[]", "no text 'key'"),
            (200, r#"{"key":"k","value":1,"source":"cache"}"#, "no text 'value'"),
            (200, r#"{"key":"k","value":"K"}"#, "no text 'source': '{\"key\""),
            (200, r#"{"key":"other","value":"K","source":"cache"}"#, "for the key 'other'"),
        ] {
            let said = Reply::read(&answer(status, body), "k").expect_err(body);
            assert!(said.contains(words), "{said}");
        }
        assert!(word(&"é".repeat(99)).chars().count() < 70);
    }

    #[test]
    fn an_app_that_passes_its_cache_by_says_so_in_words_or_in_a_header() {
        let body = |source: &str| format!(r#"{{"key":"k","value":"K","source":"{source}"}}"#);
        let read = |answer: &Answer| Reply::read(answer, "k").unwrap();
        assert!(read(&answer(200, &body("database (slow, cache unavailable)"))).bypassed);
        assert!(read(&answer(200, &body("database (slow, cache refused)"))).bypassed);
        let mut silent = answer(200, &body("database (slow)"));
        assert!(!read(&silent).bypassed);
        silent.headers.push(("x-cache".into(), "BYPASS".into()));
        assert!(read(&silent).bypassed);
    }
}
