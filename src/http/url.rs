//! Where a web app is. Pure.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use crate::topology::{port_number, reach};

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
            port: port_number(port)?,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The app of this machine that listens on an address; on all of them, it is asked by loopback.
    pub fn local(bind: IpAddr, port: u16) -> Self {
        Self { host: reach(bind), port, path: String::new() }
    }

    /// What the header `Host` says: without the zone of a link-local address, which is ours alone, and
    /// without HTTP's own port.
    pub fn authority(&self) -> String {
        let name = self.host.split('%').next().unwrap_or_default();
        let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        if self.port == 80 { name } else { format!("{name}:{}", self.port) }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = if self.host.contains(':') { ["[", "]"] } else { ["", ""] };
        write!(f, "http://{}{}{}:{}{}", brackets[0], self.host, brackets[1], self.port, self.path)
    }
}

/// Escapes all but what RFC 3986 calls unreserved: a key as one segment of a path, a password in a URL.
pub fn percent(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_keeps_its_brackets_and_loses_its_zone() {
        let authority = |text: &str| Url::parse(text).unwrap().authority();
        assert_eq!(authority("http://[::1]:5000/app/"), "[::1]:5000");
        assert_eq!(authority("http://[fe80::1%eth0]"), "[fe80::1]");
        assert_eq!(authority("localhost:80"), "localhost");
    }

    #[test]
    fn a_key_of_any_bytes_is_one_segment() {
        assert_eq!(percent("a/b c?é%"), "a%2Fb%20c%3F%C3%A9%25");
    }
}
