//! Whether certificates serve: read, and held against their key, their authority, their names and the time.
//! Pure.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, RootCertStore};
use sha2::{Digest, Sha256};
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::X509Certificate;

use super::{Pem, Tls};
use crate::moment;
use crate::secret::Secret;

/// From when to when a certificate holds, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: u64,
    /// The last one.
    pub until: u64,
}

/// What is wrong with certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// What should be the authority's certificate is none.
    NoAuthority,
    /// What should be authorities are none that sign themselves, and the server's library takes no others.
    NoRoot,
    /// What should be a certificate is none.
    NoCertificate,
    /// What should be a private key is none.
    NoKey,
    /// The key is another one's.
    OtherKey,
    /// The authority did not sign it.
    OtherAuthority,
    /// The authority has ended, at this time.
    AuthorityExpired(u64),
    /// It has ended, at this time.
    Expired(u64),
    /// It has not begun, until this time.
    NotYet(u64),
    /// It is not for this name.
    OtherName(String),
    /// It may not be used for this.
    Purpose(&'static str),
    /// Something else, in the library's words.
    Other(String),
}

impl Flaw {
    /// What is wrong, behind the name of the certificate.
    pub fn words(&self) -> String {
        match self {
            Self::NoAuthority => "has no authority: no certificate is in that file".into(),
            Self::NoRoot => "has no authority that signed itself, only what stands below one".into(),
            Self::NoCertificate => "is no certificate in PEM".into(),
            Self::NoKey => "has no private key in PEM that TLS knows".into(),
            Self::OtherKey => "is another key's certificate".into(),
            Self::OtherAuthority => "is not signed by that authority".into(),
            Self::AuthorityExpired(at) => {
                format!("is signed by an authority that expired on {}", moment::utc(*at))
            }
            Self::Expired(at) => format!("expired on {}", moment::utc(*at)),
            Self::NotYet(at) => format!("does not hold before {}", moment::utc(*at)),
            Self::OtherName(name) => format!("is not for {name}"),
            Self::Purpose(purpose) => format!("may not be used {purpose}"),
            Self::Other(why) => format!("does not serve: {why}"),
        }
    }

    /// The file that is at fault.
    pub fn file<'a>(&self, files: &'a Tls) -> &'a Path {
        match self {
            Self::NoAuthority | Self::NoRoot => &files.ca,
            Self::NoKey => &files.key,
            _ => &files.cert,
        }
    }
}

/// Whether a server can show a certificate under each of these names, and a client of it, too; until when.
///
/// # Errors
/// The first thing that is wrong.
pub fn server(pem: &Pem, names: &[String], now: u64) -> Result<Validity, Flaw> {
    let validity = client(pem, now)?;
    let chain = [chain(&pem.cert)?, between(&pem.ca)].concat();
    let verifier = verifier(&pem.ca)?;
    for name in names {
        presented(&verifier, &chain, name, now)?;
    }
    Ok(validity)
}

/// Whether a client can show a certificate; until when.
///
/// # Errors
/// The first thing that is wrong.
pub fn client(pem: &Pem, now: u64) -> Result<Validity, Flaw> {
    let chain = chain(&pem.cert)?;
    keys_match(&chain, &pem.key)?;
    let (first, rest) = chain.split_first().ok_or(Flaw::NoCertificate)?;
    let own = validity(first)?;
    let rest = [rest.to_vec(), between(&pem.ca)].concat();
    let mut last = Flaw::NoAuthority;
    // One after the other: the library takes an authority for ever, and the server's does not.
    for authority in roots(&pem.ca)? {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(|_| Flaw::NoAuthority)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
                .build()
                .map_err(|_| Flaw::NoAuthority)?;
        let holds = validity(&authority)?;
        match verifier.verify_client_cert(first, &rest, time(now)) {
            Ok(_) if holds.until < now => last = Flaw::AuthorityExpired(holds.until),
            Err(error) if matches!(last, Flaw::NoAuthority | Flaw::OtherAuthority) => {
                last = flaw(&error, "by a client, as a replica is one");
            }
            Err(_) => {}
            Ok(_) => return Ok(Validity { until: own.until.min(holds.until), ..own }),
        }
    }
    Err(last)
}

/// Whether a server's certificates are sound under a name at a time.
fn presented(
    verifier: &WebPkiServerVerifier,
    chain: &[CertificateDer<'_>],
    name: &str,
    now: u64,
) -> Result<Validity, Flaw> {
    let (first, rest) = chain.split_first().ok_or(Flaw::NoCertificate)?;
    let other = || Flaw::OtherName(name.to_owned());
    let server = ServerName::try_from(name.to_owned()).map_err(|_| other())?;
    match verifier.verify_server_cert(first, rest, &server, &[], time(now)) {
        Ok(_) => validity(first),
        Err(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Err(other()),
        Err(error) => Err(flaw(&error, "by a server")),
    }
}

/// Who judges the certificates of servers by the authorities of a file.
///
/// # Errors
/// There is none.
pub fn verifier(ca: &str) -> Result<Arc<WebPkiServerVerifier>, Flaw> {
    let mut all = RootCertStore::empty();
    for root in roots(ca)? {
        all.add(root).map_err(|_| Flaw::NoAuthority)?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(all), Arc::new(default_provider()))
        .build()
        .map_err(|_| Flaw::NoAuthority)
}

/// The authorities of a file with which a chain may end: those that signed themselves, as the server's library has it.
fn roots(ca: &str) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let mut all = chain(ca).map_err(|_| Flaw::NoAuthority)?;
    all.retain(|cert| is_root(cert));
    if all.is_empty() { Err(Flaw::NoRoot) } else { Ok(all) }
}

/// The others, which may stand between those and a certificate.
pub fn between(ca: &str) -> Vec<CertificateDer<'static>> {
    let mut all = chain(ca).unwrap_or_default();
    all.retain(|cert| !is_root(cert));
    all
}

fn is_root(cert: &CertificateDer<'_>) -> bool {
    parse_x509_certificate(cert).is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer())
}

/// The certificates of a file: its own, and those between it and its authority.
///
/// # Errors
/// There is none.
pub fn chain(cert: &str) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert.as_bytes()).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(Flaw::NoCertificate)
}

/// What tells a certificate from any other.
pub fn fingerprint(cert: &[u8]) -> String {
    Sha256::digest(cert).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether each certificate of a file is an authority's, which may sign others, and each chain of them has its end
/// there.
pub fn are_authorities(pem: &str) -> bool {
    let Ok(chain) = chain(pem) else { return false };
    let all: Result<Vec<_>, _> = chain.iter().map(|cert| parse_x509_certificate(cert)).collect();
    let all: Vec<_> = all.unwrap_or_default().into_iter().map(|(_, parsed)| parsed).collect();
    let signed = |cert: &X509Certificate<'_>| all.iter().any(|other| other.subject() == cert.issuer());
    !all.is_empty() && all.iter().all(|cert| cert.is_ca() && signed(cert))
}

/// From when to when each certificate of a file holds.
///
/// # Errors
/// There is none.
pub fn validities(pem: &str) -> Result<Vec<Validity>, Flaw> {
    chain(pem)?.iter().map(|cert| validity(cert)).collect()
}

/// From when to when a certificate holds.
///
/// # Errors
/// It is none.
pub fn validity(cert: &[u8]) -> Result<Validity, Flaw> {
    let (_, parsed) = parse_x509_certificate(cert).map_err(|_| Flaw::NoCertificate)?;
    let seconds = |time: i64| u64::try_from(time).unwrap_or_default();
    let validity = parsed.validity();
    Ok(Validity {
        from: seconds(validity.not_before.timestamp()),
        until: seconds(validity.not_after.timestamp()),
    })
}

fn keys_match(chain: &[CertificateDer<'static>], key: &Secret) -> Result<(), Flaw> {
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| Flaw::NoKey)?;
    let key = default_provider().key_provider.load_private_key(key).map_err(|_| Flaw::NoKey)?;
    match CertifiedKey::new(chain.to_vec(), key).keys_match() {
        Ok(()) => Ok(()),
        Err(Error::InconsistentKeys(_)) => Err(Flaw::OtherKey),
        Err(_) => Err(Flaw::NoCertificate),
    }
}

fn time(now: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now))
}

fn flaw(error: &Error, purpose: &'static str) -> Flaw {
    use CertificateError::{
        BadEncoding, BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext,
        NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    let Error::InvalidCertificate(error) = error else { return Flaw::Other(error.to_string()) };
    match error {
        BadEncoding => Flaw::NoCertificate,
        UnknownIssuer | BadSignature => Flaw::OtherAuthority,
        ExpiredContext { not_after, .. } => Flaw::Expired(not_after.as_secs()),
        NotValidYetContext { not_before, .. } => Flaw::NotYet(not_before.as_secs()),
        Expired | NotValidYet => Flaw::Other(error.to_string()),
        InvalidPurpose | InvalidPurposeContext { .. } => Flaw::Purpose(purpose),
        other => Flaw::Other(other.to_string()),
    }
}
