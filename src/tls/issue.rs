//! The certificate authority of this machine, and what it signs. Pure: keys and the time are given.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

use crate::secret::Secret;

/// How long a certificate holds, in days.
pub const LIFETIME: u64 = 825;
/// How many days before its end it is made anew.
pub const RENEWAL: u64 = 90;
/// The same for what was signed by an authority that has a successor.
pub const LAST_RENEWAL: u64 = 30;
/// How long an authority holds, in days.
const AUTHORITY: u64 = 3650;
/// What a clock of another machine may be behind, in seconds.
const SLACK: u64 = 3600;
const DAY: u64 = 86_400;

/// Who signs: a certificate, and its key. Both as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate, which everybody may have.
    pub cert: String,
    /// Its key, which nobody else may.
    pub key: Secret,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder<'a> {
    /// What it is called.
    pub name: &'a str,
    /// The names and addresses under which it is reached; none for one that only asks.
    pub reached: &'a [String],
}

impl Authority {
    /// A new one, with this key, from `now` on (seconds since 1970).
    ///
    /// # Errors
    /// The key is none.
    pub fn new(key: Secret, machine: &str, now: u64) -> Result<Self> {
        let pair = pair(&key)?;
        // Two of one machine are told apart by a piece of the key.
        let mut params = params(&format!("redis-tp CA of {machine} {}", mark(&pair)), now, AUTHORITY);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&pair).context("cannot make a certificate authority")?.pem();
        Ok(Self { cert, key })
    }

    /// Signs a certificate for this key.
    ///
    /// # Errors
    /// A key is none, or a name cannot stand in a certificate.
    pub fn sign(&self, holder: &Holder<'_>, key: &Secret, now: u64) -> Result<String> {
        let issuer = Issuer::from_ca_cert_pem(&self.cert, pair(&self.key)?)
            .context("the certificate authority cannot be read")?;
        let mut params = params(holder.name, now, LIFETIME);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !holder.reached.is_empty() {
            // A replica is a client of its master.
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.subject_alt_names = holder.reached.iter().map(|name| san(name)).collect::<Result<_>>()?;
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&pair(key)?, &issuer);
        Ok(signed.with_context(|| format!("cannot sign a certificate for {}", holder.name))?.pem())
    }
}

fn params(name: &str, now: u64, days: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (UNIX_EPOCH + Duration::from_secs(now.saturating_sub(SLACK))).into();
    params.not_after = (UNIX_EPOCH + Duration::from_secs(now + days * DAY)).into();
    params
}

fn san(name: &str) -> Result<SanType> {
    Ok(match name.parse::<IpAddr>() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) => SanType::DnsName(
            name.try_into().with_context(|| format!("'{name}' cannot stand in a certificate"))?,
        ),
    })
}

fn pair(key: &Secret) -> Result<KeyPair> {
    // The library's own words could quote it.
    KeyPair::from_pem(key.expose()).map_err(|_| anyhow::anyhow!("a key is no private key in PEM"))
}

fn mark(pair: &KeyPair) -> String {
    let raw = pair.public_key_raw();
    raw.iter().rev().take(3).map(|byte| format!("{byte:02x}")).collect()
}
