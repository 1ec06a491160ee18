//! What TLS is spoken with: a certificate authority of our own, and the certificates that it signs. Pure.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

pub mod client;

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

/// What an instance speaks TLS with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The files by which this machine speaks with it.
    pub files: Tls,
    /// What the web app is given for that; none where there is no such app.
    pub app: Option<Arc<Pem>>,
}
