//! A conversation over HTTP/1.1, without TLS: with a web app that speaks the contract. Asynchronous
//! below, for a load of many requests at once; in front of it a plain question and its answer.

use std::fmt;

/// Where a web app is: `http://HOST:PORT`, and the path before its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Nothing, or a path that begins with `/` and does not end in one.
    pub path: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// Another scheme than http, a user, a query, or no host.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => return Err(format!("'{scheme}' is not spoken here: give an http:// URL")),
            None => text,
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or("80")),
            None => authority.split_once(':').unwrap_or((authority, "80")),
        };
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_' | '%');
        if host.is_empty() || !host.chars().all(fine) {
            return Err(format!("'{host}' is no host name or address"));
        }
        let odd = |c: char| !c.is_ascii_graphic() || matches!(c, '?' | '#');
        if path.contains(odd) {
            return Err(format!("'{path}' is no path: no query, no blank"));
        }
        Ok(Self {
            host: host.to_owned(),
            port: crate::topology::port_number(port)?,
            path: path.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = if self.host.contains(':') { ["[", "]"] } else { ["", ""] };
        write!(f, "http://{}{}{}:{}{}", brackets[0], self.host, brackets[1], self.port, self.path)
    }
}
