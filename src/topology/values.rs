//! The values of a topology: types that cannot hold a wrong one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The name of an instance; it becomes part of paths and unit names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Reads a name: a lower-case letter, then letters, digits and dashes, 32 at most.
    ///
    /// # Errors
    /// Anything else, and names whose files would collide with others.
    pub fn parse(text: &str) -> Result<Self, String> {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
        if !starts || text.len() > 32 || !text.chars().all(letters) || text.ends_with('-') {
            return Err(format!(
                "'{text}' is no name for an instance: a-z first, then a-z, 0-9 and '-', 32 at most"
            ));
        }
        if matches!(text, "redis-tp" | "app" | "server" | "sentinel") {
            return Err(format!("'{text}' is reserved and cannot name an instance"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// The image of a container: `redis:7`, `registry.example/team/redis@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Image(String);

impl Image {
    /// Reads the name of an image; what it names, only an engine knows.
    ///
    /// # Errors
    /// What no engine takes for a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "./:@_-".contains(c);
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        match begins && text.len() <= 255 && text.chars().all(fits) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("'{text}' is no name of an image, as redis:7 is")),
        }
    }

    /// One that we name ourselves.
    pub fn known(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Image {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        image.0
    }
}

/// Which of our defaults an instance has besides what its section names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Defaults {
    /// All of them.
    #[default]
    On,
    /// None: what the section does not name is as the server itself has it. So is one that was taken over.
    Off,
    /// None but `masterauth`, with which a master can follow another after a failover.
    Masterauth,
}

impl Defaults {
    /// Reads the value of the key.
    ///
    /// # Errors
    /// Another word.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            "masterauth" => Ok(Self::Masterauth),
            _ => Err(format!("'{text}' is neither on, off nor masterauth")),
        }
    }

    /// The value as the topology has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Masterauth => "masterauth",
        }
    }
}

/// One address of `bind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Redis's `-` prefix: go on if this machine does not have the address.
    pub optional: bool,
    /// The address.
    pub address: BindAddress,
}

/// The words of one `--bind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binds(pub Vec<Bind>);

impl Binds {
    /// Reads addresses with blanks or commas between them.
    ///
    /// # Errors
    /// A word that is no address, or none at all.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let binds: Vec<Bind> = words.map(Bind::parse).collect::<Result<_, _>>()?;
        if binds.is_empty() { Err("no address".into()) } else { Ok(Self(binds)) }
    }
}

/// What `bind` may name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BindAddress {
    /// One address.
    Ip(IpAddr),
    /// `*`: every IPv4 address.
    AnyV4,
    /// `::*`: every IPv6 address.
    AnyV6,
}

impl Bind {
    /// Reads one word of `bind`.
    ///
    /// # Errors
    /// A word that is no address. Host names work in Redis, but what they resolve to may change
    /// between the check and the start; an address is asked for instead.
    pub fn parse(word: &str) -> Result<Self, String> {
        let (optional, text) = match word.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, word),
        };
        let address = match text {
            "*" => BindAddress::AnyV4,
            "::*" => BindAddress::AnyV6,
            text => BindAddress::Ip(text.parse().map_err(|_| format!("'{word}' is no IP address"))?),
        };
        Ok(Self { optional, address })
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        matches!(self.address, BindAddress::Ip(ip) if ip.is_loopback())
    }

    /// Whether what listens here has an address; `own` are those of this machine.
    pub(super) fn takes(&self, ip: IpAddr, own: &[IpAddr]) -> bool {
        let all = match self.address {
            BindAddress::AnyV4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            BindAddress::AnyV6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            BindAddress::Ip(named) if named.is_unspecified() => named,
            BindAddress::Ip(named) => return named == ip,
        };
        let usual = ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST;
        all.is_ipv4() == ip.is_ipv4() && (usual || own.contains(&ip))
    }

    /// An address under which this machine reaches what listens here.
    pub fn reach(&self) -> String {
        match self.address {
            BindAddress::AnyV4 => reach(Ipv4Addr::UNSPECIFIED.into()),
            BindAddress::AnyV6 => reach(Ipv6Addr::UNSPECIFIED.into()),
            BindAddress::Ip(ip) => reach(ip),
        }
    }
}

/// The address under which this machine reaches what listens on one: on all of them, by loopback.
pub fn reach(listens: IpAddr) -> String {
    match listens {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        ip => ip.to_string(),
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.optional { "-" } else { "" })?;
        match self.address {
            BindAddress::Ip(ip) => write!(f, "{ip}"),
            BindAddress::AnyV4 => f.write_str("*"),
            BindAddress::AnyV6 => f.write_str("::*"),
        }
    }
}

/// Whom a replica follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaOf {
    /// Another section of the topology.
    Instance(Name),
    /// A server elsewhere.
    Remote {
        /// Host name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl ReplicaOf {
    /// Reads `NAME`, `HOST PORT` or `HOST:PORT`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (host, port) = match text.split_once(char::is_whitespace) {
            Some((host, port)) => (host, port.trim()),
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host.trim_start_matches('[').trim_end_matches(']'), port),
                None => return Name::parse(text).map(Self::Instance),
            },
        };
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_' | '%');
        if host.is_empty() || !host.chars().all(fine) {
            return Err(format!("'{host}' is no host name or address"));
        }
        Ok(Self::Remote { host: host.to_owned(), port: port_number(port)? })
    }
}

impl fmt::Display for ReplicaOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(name) => write!(f, "{name}"),
            Self::Remote { host, port } => write!(f, "{host} {port}"),
        }
    }
}

/// Reads a TCP port.
///
/// # Errors
/// Not a number from 1 to 65535.
pub fn port_number(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("'{text}' is no port: a number from 1 to 65535")),
    }
}

/// Reads Redis's yes or no.
///
/// # Errors
/// Anything else.
pub fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("'{text}' is neither yes nor no")),
    }
}

/// Whether a word names what is in a directory, and not above or elsewhere.
pub(super) fn is_within(word: &str) -> bool {
    !word.contains(['/', '\\']) && ![".", ".."].contains(&word)
}

/// A path that starts at the root and needs no quotes anywhere: in redis.conf, a unit, a shell.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | '@' | ',');
    let path = Path::new(text);
    if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
        return Err("is no absolute path".into());
    }
    if !text.chars().all(fine) || text.trim_end_matches('/').matches('/').count() < 2 {
        return Err(
            "is no path that redis-tp would write to: at least two levels, of a-z A-Z 0-9 . _ + @ , -".into(),
        );
    }
    Ok(PathBuf::from(text.trim_end_matches('/')))
}
