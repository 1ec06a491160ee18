//! Certificates for tests: an authority, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use redis_tp::tls::Tls;

/// Somebody who signs. What it signs lies in its directory.
pub struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(dir.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// A certificate that everybody on this machine may use.
    pub fn sign(&self, who: &str) -> Tls {
        self.sign_for(who, &["127.0.0.1", "::1", "localhost"], 4000)
    }

    /// One for these names and addresses, until this year.
    pub fn sign_for(&self, who: &str, names: &[&str], until: i32) -> Tls {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, who);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let tls = Tls { ca: self.ca(), cert: self.file(who, "crt"), key: self.file(who, "key") };
        fs::write(&tls.cert, cert).unwrap();
        fs::write(&tls.key, key.serialize_pem()).unwrap();
        tls
    }

    pub fn file(&self, who: &str, kind: &str) -> PathBuf {
        self.dir.path().join(format!("{who}.{kind}"))
    }
}

/// How many words a server is told of its certificate.
pub const WORDS: usize = 8;

/// What a server is told of its certificate.
pub fn directives(tls: &Tls) -> Vec<String> {
    let file = |path: &Path| path.to_str().unwrap().to_owned();
    let pairs = [
        ("--tls-ca-cert-file", file(&tls.ca)),
        ("--tls-cert-file", file(&tls.cert)),
        ("--tls-key-file", file(&tls.key)),
        ("--tls-replication", "yes".to_owned()),
    ];
    pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}
