//! The page at `/`: a stand-in.

use crate::app::Settings;

/// The page.
#[derive(Debug)]
pub struct Page;

impl Page {
    /// Makes the page.
    ///
    /// # Errors
    /// None yet.
    pub fn new(_: &Settings) -> anyhow::Result<Self> {
        Ok(Self)
    }

    /// The HTML, and its language.
    pub fn answer(&self, _: Option<&str>, _: Option<&str>, nonce: &str) -> (String, &'static str) {
        (format!("<!doctype html><title>redis-tp</title><style nonce=\"{nonce}\"></style>\n"), "en")
    }
}
