//! A secret is a type that cannot print itself: Debug, Display and Serialize show a mask.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands where a secret would.
pub const MASK: &str = "********";

/// A password. Its text leaves only through [`Secret::expose`].
#[derive(Clone, Debug)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself: for a file of mode 0600, for a server's AUTH, and for nothing else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// A password out of a file or of stdin: one line, its newline dropped.
    ///
    /// # Errors
    /// Empty, several lines, control characters, or over 512 bytes (the limit that Redis sets on a
    /// password it hashes is higher; its inline commands are not).
    pub fn parse(text: &str) -> Result<Self, String> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err("is empty".into());
        }
        if line.contains(['\n', '\r']) {
            return Err("has more than one line".into());
        }
        if line.chars().any(char::is_control) {
            return Err("has a control character in it".into());
        }
        if line.len() > 512 {
            return Err("is longer than 512 bytes".into());
        }
        Ok(Self::new(line))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_printing_shows_the_text() {
        let secret = Secret::new("hunter2");
        let shown = format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_password_is_one_line() {
        for bad in ["", "\n", "a\nb", "a\x07b", &"x".repeat(513)] {
            assert!(Secret::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Secret::parse("a b\r\n").unwrap().expose(), "a b");
    }
}
