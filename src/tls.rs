//! What TLS is spoken with: a certificate authority of our own, and the certificates that it signs. Pure.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::commands::shell_word;
use crate::conf::Conf;
use crate::secret::Secret;

pub mod client;
pub mod issue;
pub mod judge;

/// What a server's log says when TLS does not come about with somebody who calls it, which tells nothing of its own
/// master.
pub const OF_A_CLIENT: &str = "Error accepting a client connection";

/// The files by which one side speaks TLS, and by which it knows the other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The certificates of those whose signature is trusted.
    pub ca: PathBuf,
    /// Its own certificate.
    pub cert: PathBuf,
    /// The key of that.
    pub key: PathBuf,
}

impl Tls {
    /// The files that a configuration names, if TLS is all that clients of it speak.
    pub fn of(conf: &Conf) -> Option<Self> {
        let (_, true) = conf.listens()? else { return None };
        let path = |name: &str| conf.word(name).map(PathBuf::from);
        Some(Self { ca: path("tls-ca-cert-file")?, cert: path("tls-cert-file")?, key: path("tls-key-file")? })
    }

    /// What redis-cli is told, so that it speaks TLS by them.
    pub fn cli_words(&self) -> Vec<String> {
        let files = [("--cacert", &self.ca), ("--cert", &self.cert), ("--key", &self.key)];
        let words = files.into_iter().flat_map(|(flag, file)| [flag.to_owned(), file.display().to_string()]);
        ["--tls".to_owned()].into_iter().chain(words).collect()
    }

    /// The same for a shell.
    pub fn cli_line(&self) -> String {
        self.cli_words().iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
    }
}

/// How an instance speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Its files, by which we speak to it, too.
    pub files: Tls,
    /// What tells the authorities that it trusts from others.
    pub trust: String,
    /// Whether it speaks TLS to its master.
    pub upstream: bool,
    /// What the web app shows; the administrator's, where no app is wanted.
    pub app: Option<Arc<Pem>>,
}

/// What is in such files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem {
    /// The certificates of those whose signature is trusted.
    pub ca: String,
    /// Its own certificate.
    pub cert: String,
    /// The key of that.
    pub key: Secret,
}
