//! TLS as the side that calls speaks it: whom it trusts, what it shows of itself, and words for what goes wrong.
//! Pure.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    RootCertStore, SignatureScheme,
};

use super::judge::Flaw;
use super::{Pem, Tls, judge};

/// A server that was to speak TLS, and does not.
pub const NOT_TLS: &str = "it does not speak TLS";

/// A server that was to speak plainly, and does not.
pub const TLS_ONLY: &str = "it speaks TLS only";

/// What a certificate is worth that is sound but for its time, which is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// As much as before: who is to renew it must get in.
    Passes,
    /// Nothing.
    Refused,
}

/// Why nobody can speak TLS with what is in such files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// That of the others' certificates is no certificate.
    Ca,
    /// None of them signed itself.
    Root,
    /// Its own certificate is none.
    Cert,
    /// Its key is none.
    Key,
    /// The key is another certificate's.
    Apart,
}

impl Unfit {
    /// In words, by the files.
    pub fn words(self, files: &Tls) -> String {
        let Tls { ca, cert, key } = files;
        match self {
            Self::Ca => format!("{} has no certificate in it that can be read", ca.display()),
            Self::Root => format!("{} has no authority in it that signed itself", ca.display()),
            Self::Cert => format!("{} has no certificate in it that can be read", cert.display()),
            Self::Key => format!("{} has no private key in it that can be read", key.display()),
            Self::Apart => format!("{} is not the key of {}", key.display(), cert.display()),
        }
    }

    /// In words where there are no files.
    pub fn bare_words(self) -> &'static str {
        match self {
            Self::Ca => "the CA's certificate that it was given cannot be read",
            Self::Root => "the CA's certificate that it was given is itself signed by another",
            Self::Cert => "the certificate that it was given cannot be read",
            Self::Key => "the private key that it was given cannot be read",
            Self::Apart => "the private key that it was given is not that of its certificate",
        }
    }
}

/// How one calls a server.
///
/// # Errors
/// Something of it is unfit.
pub fn config(pem: &Pem, expired: Expired) -> Result<Arc<ClientConfig>, Unfit> {
    let verifier = judge::verifier(&pem.ca).map_err(|flaw| match flaw {
        Flaw::NoRoot => Unfit::Root,
        _ => Unfit::Ca,
    })?;
    let verifier = Verifier { verifier, between: judge::between(&pem.ca), expired };
    let own = judge::chain(&pem.cert).map_err(|_| Unfit::Cert)?;
    let key = PrivateKeyDer::from_pem_slice(pem.key.expose().as_bytes()).map_err(|_| Unfit::Key)?;
    let config = builder()
        .map_err(|_| Unfit::Key)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(own, key)
        .map_err(|error| match error {
            Error::InconsistentKeys(_) => Unfit::Apart,
            Error::InvalidCertificate(_) => Unfit::Cert,
            _ => Unfit::Key,
        })?;
    Ok(Arc::new(config))
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn builder() -> Result<Builder, Error> {
    let provider = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

/// Whom a certificate has to be for.
///
/// # Errors
/// That is neither a name nor an address.
pub fn name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|_| format!("no certificate can be for '{host}'"))
}

/// The first message of somebody who calls and wants to know only whether TLS is spoken.
pub fn greeting() -> Option<Vec<u8>> {
    let config = builder().ok()?;
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let mut call = ClientConnection::new(Arc::new(config), name("localhost").ok()?).ok()?;
    let mut said = Vec::new();
    call.write_tls(&mut said).ok()?;
    Some(said)
}

/// The kinds of messages that a server answers a greeting with: an alert, or its own greeting (RFC 8446, 5.1).
pub const ANSWERS: [u8; 2] = [0x15, 0x16];

/// Asks of a server's certificate all that webpki does; but its time may be over, if that passes.
#[derive(Debug)]
struct Verifier {
    verifier: Arc<WebPkiServerVerifier>,
    /// What the file of authorities has beside them.
    between: Vec<CertificateDer<'static>>,
    expired: Expired,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError::{Expired as Over, ExpiredContext};
        let intermediates: Vec<CertificateDer<'_>> =
            intermediates.iter().chain(&self.between).cloned().collect();
        let at = |time| {
            self.verifier.verify_server_cert(end_entity, &intermediates, server_name, ocsp_response, time)
        };
        match (at(now), self.expired) {
            (Err(Error::InvalidCertificate(Over | ExpiredContext { .. })), Expired::Passes) => {
                at(last_moment(end_entity).ok_or(CertificateError::BadEncoding)?)
            }
            (verdict, _) => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// The end of a certificate's time.
fn last_moment(certificate: &CertificateDer<'_>) -> Option<UnixTime> {
    let validity = judge::validity(certificate).ok()?;
    Some(UnixTime::since_unix_epoch(Duration::from_secs(validity.until)))
}

/// Why a handshake with a host failed, in words; `ca` is the file of those who are trusted.
pub fn words(error: &Error, host: &str, ca: Option<&Path>) -> String {
    match error {
        Error::InvalidCertificate(flaw) => flaw_words(flaw, host, ca),
        Error::InvalidMessage(_) | Error::PeerSentOversizedRecord => NOT_TLS.into(),
        other => later_words(other),
    }
}

fn flaw_words(flaw: &CertificateError, host: &str, ca: Option<&Path>) -> String {
    use CertificateError as Flaw;
    match flaw {
        Flaw::UnknownIssuer | Flaw::BadSignature => {
            let trusted = ca.map_or_else(String::new, |ca| format!(" ({})", ca.display()));
            format!("its certificate is signed by none that is trusted{trusted}")
        }
        Flaw::NotValidForName | Flaw::NotValidForNameContext { .. } => {
            format!("its certificate is not for {host}")
        }
        Flaw::Expired | Flaw::ExpiredContext { .. } => "its certificate has expired".into(),
        Flaw::NotValidYet | Flaw::NotValidYetContext { .. } => {
            "its certificate is not valid yet, by the clock of this machine".into()
        }
        Flaw::InvalidPurpose | Flaw::InvalidPurposeContext { .. } => {
            "its certificate is not for a server".into()
        }
        other => format!("its certificate is not sound: {other}"),
    }
}

/// Whether one side does not take who the other says it is: neither a server that hangs nor one that closes the
/// connection says that.
pub fn is_distrust(error: &Error) -> bool {
    use AlertDescription as Alert;
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
            | Error::AlertReceived(
                Alert::AccessDenied
                    | Alert::BadCertificate
                    | Alert::CertificateRequired
                    | Alert::CertificateRevoked
                    | Alert::CertificateUnknown
                    | Alert::DecryptError
                    | Alert::UnknownCA
                    | Alert::UnsupportedCertificate,
            )
    )
}

/// Why a conversation over TLS broke off, in words. A server that does not take our certificate may say so only
/// when it was asked something.
pub fn later_words(error: &Error) -> String {
    use AlertDescription as Alert;
    match error {
        Error::AlertReceived(Alert::CertificateExpired) => {
            "it takes no certificate of ours: that has expired".into()
        }
        _ if is_distrust(error) => "it takes no certificate of ours".into(),
        Error::AlertReceived(Alert::HandshakeFailure | Alert::ProtocolVersion)
        | Error::PeerIncompatible(_) => "it speaks no TLS that we speak, too".into(),
        other => format!("TLS with it failed: {other}"),
    }
}
