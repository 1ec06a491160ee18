//! The page at `/`: one template in two languages, rendered once. Pure.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tera::{Context, Tera};

use super::Settings;

const TEMPLATE: &str = include_str!("../../templates/page.html");
const ENGLISH: &str = include_str!("../../templates/page.en.json");
const FRENCH: &str = include_str!("../../templates/page.fr.json");
/// Stands where each answer has its own nonce; no text of a template or of a topology holds it.
const NONCE: &str = "\u{1}nonce\u{1}";

/// The page, ready to be sent.
#[derive(Debug)]
pub struct Page {
    english: Vec<String>,
    french: Vec<String>,
}

impl Page {
    /// Renders the page in both languages.
    ///
    /// # Errors
    /// The template or a language does not fit, which the tests rule out.
    pub fn new(settings: &Settings) -> Result<Self> {
        let config = config(settings);
        Ok(Self {
            english: render("en", ENGLISH, &config).context("the page in English")?,
            french: render("fr", FRENCH, &config).context("the page in French")?,
        })
    }

    /// The HTML for one request, and its language (`en` or `fr`): what `?lang=` says, else what the
    /// browser prefers. The nonce has to be the one of the answer's Content-Security-Policy.
    pub fn answer(
        &self,
        query: Option<&str>,
        accept_language: Option<&str>,
        nonce: &str,
    ) -> (String, &'static str) {
        let french = asked(query).unwrap_or_else(|| accept_language.is_some_and(prefers_french));
        match french {
            true => (self.french.join(nonce), "fr"),
            false => (self.english.join(nonce), "en"),
        }
    }
}

/// What the page shows before the first event comes.
fn config(settings: &Settings) -> Value {
    let section = &settings.section;
    json!({
        "ttl": section.ttl.as_secs_f64(),
        "slow": section.slow.as_secs_f64(),
        "source": section.source.kind(),
        "prefix": section.prefix,
        "read_from": section.read_from,
    })
}

/// The page in one language, cut where the nonces go.
fn render(language: &str, texts: &str, config: &Value) -> Result<Vec<String>> {
    let texts: Value = serde_json::from_str(texts)?;
    let data = json!({ "lang": language, "t": texts, "config": config });
    let mut context = Context::new();
    context.insert("nonce", NONCE);
    context.insert("lang", language);
    context.insert("t", &texts);
    // Inside a script element nothing is decoded, and only `</` would end it.
    context.insert("data", &data.to_string().replace('<', "\\u003c"));
    let html = Tera::one_off(TEMPLATE, &context, true)?;
    Ok(html.split(NONCE).map(str::to_owned).collect())
}

/// Whether the query asks for French; none where it asks for no language that there is.
fn asked(query: Option<&str>) -> Option<bool> {
    query?.split('&').filter_map(|pair| pair.strip_prefix("lang=")).find_map(|language| match language {
        "fr" => Some(true),
        "en" => Some(false),
        _ => None,
    })
}

/// Whether Accept-Language ranks French above English, or above any.
fn prefers_french(accepted: &str) -> bool {
    let mut best = (0.0, false);
    for (quality, language) in accepted.split(',').filter_map(range) {
        // Of equals, the first is what people put first.
        if quality > best.0 {
            match language.to_ascii_lowercase().as_str() {
                "fr" => best = (quality, true),
                "en" | "*" => best = (quality, false),
                _ => {}
            }
        }
    }
    best.1
}

/// One range of Accept-Language: its quality, and its language without the region.
fn range(text: &str) -> Option<(f32, &str)> {
    let mut parts = text.split(';').map(str::trim);
    let language = parts.next()?.split('-').next()?;
    let quality = match parts.next() {
        None => 1.0,
        Some(quality) => quality.strip_prefix("q=").or_else(|| quality.strip_prefix("Q="))?.parse().ok()?,
    };
    (0.0..=1.0).contains(&quality).then_some((quality, language))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{AppSection, Prefix};

    fn page() -> Page {
        let prefix = Prefix::parse("</script><b>\"").unwrap();
        let section = AppSection { prefix, ..AppSection::default() };
        Page::new(&Settings { section, nodes: Vec::new() }).unwrap()
    }

    #[test]
    fn the_language_is_the_one_that_is_preferred() {
        for (query, accepted, expected) in [
            (None, None, "en"),
            (None, Some(""), "en"),
            (None, Some("fr"), "fr"),
            (None, Some("FR-ca"), "fr"),
            (None, Some("fr-FR,fr;q=0.9,en-US;q=0.8,en;q=0.7"), "fr"),
            (None, Some("en;q=0.7, fr;q=0.8"), "fr"),
            (None, Some("en,fr"), "en"),
            (None, Some("fr,en"), "fr"),
            (None, Some("de, fr ; q=0.1"), "fr"),
            (None, Some("de, *;q=0.5, fr;q=0.4"), "en"),
            (None, Some("fr;q=0"), "en"),
            (None, Some("fr;q=2, frr, ;, ;q=1, fr;q=NaN, fr;x=1"), "en"),
            (Some("lang=fr"), Some("en"), "fr"),
            (Some("a=b&lang=en"), Some("fr"), "en"),
            (Some("lang=de"), Some("fr"), "fr"),
            (Some("lang"), None, "en"),
        ] {
            let (html, language) = page().answer(query, accepted, "n");
            assert_eq!(language, expected, "{query:?} {accepted:?}");
            assert!(html.contains(&format!("<html lang=\"{expected}\">")));
        }
    }

    #[test]
    fn every_script_and_style_has_the_answers_own_nonce_and_there_is_nothing_else_to_run() {
        for query in ["lang=en", "lang=fr"] {
            let (html, _) = page().answer(Some(query), None, "N0nce");
            let blocks = html.matches("<script").count() + html.matches("<style").count();
            assert_eq!(html.matches("nonce=\"N0nce\"").count(), blocks);
            assert_eq!(html.matches("</script>").count(), html.matches("<script").count(), "data ends it");
            assert!(!html.contains('\u{1}') && !html.contains("{{"));
            for attribute in [" style=\"", " onclick=", " onload=", "innerHTML", "src=\"http", "@import"] {
                assert!(!html.contains(attribute), "{attribute}");
            }
        }
    }

    #[test]
    fn no_text_is_missing_and_none_is_idle() {
        let [english, french]: [serde_json::Map<String, Value>; 2] =
            [ENGLISH, FRENCH].map(|texts| serde_json::from_str(texts).unwrap());
        assert_eq!(english.keys().collect::<Vec<_>>(), french.keys().collect::<Vec<_>>());
        let families = ["error_", "notice_", "role_", "state_", "link_", "hop_", "reads_"];
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let named: Vec<&str> = TEMPLATE
            .match_indices("t.")
            .filter(|(at, _)| !TEMPLATE[..*at].ends_with(|c: char| word(c) || c == '.'))
            .map(|(at, _)| TEMPLATE[at + 2..].split(|c| !word(c)).next().unwrap())
            .collect();
        for name in &named {
            assert!(english.contains_key(*name), "t.{name} is no text");
        }
        for name in english.keys() {
            let family = families.iter().any(|family| name.starts_with(family)) || name.ends_with("_word");
            assert!(family || named.contains(&name.as_str()), "nobody shows {name}");
        }
    }

    #[test]
    fn french_has_its_own_spaces() {
        let texts: serde_json::Map<String, Value> = serde_json::from_str(FRENCH).unwrap();
        for (name, text) in &texts {
            let text: Vec<char> = text.as_str().unwrap().chars().collect();
            for pair in text.windows(2) {
                let hard = |c: char| matches!(c, '\u{a0}' | '\u{202f}');
                let fine = match pair {
                    ['«', after] => hard(*after),
                    [before, ':' | ';' | '?' | '!' | '»'] => hard(*before),
                    [_, '\'' | '"'] => false,
                    _ => true,
                };
                assert!(fine, "{name}: {pair:?}");
            }
        }
    }
}
