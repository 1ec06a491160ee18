//! A conversation with a Redis server: connect, AUTH, ask. Trouble is sorted into the few kinds
//! that callers branch on.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use redis::{Cmd, Connection, ConnectionAddr, FromRedisValue, RedisError};
use serde::{Deserialize, Serialize};

use crate::facts::holder;
use crate::host::Host;
use crate::secret::Secret;
use crate::topology::ReplicaOf;
use crate::users;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// An address that this machine reaches it under.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Address {
    /// Reads `HOST:PORT`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains(':') {
            return Err(format!("'{text}' is not HOST:PORT, as 127.0.0.1:6379 is"));
        }
        match ReplicaOf::parse(text)? {
            ReplicaOf::Remote { host, port } => Ok(Self { host, port }),
            ReplicaOf::Instance(_) => Err(format!("'{text}' is not HOST:PORT")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Why a server did not answer as wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens there.
    Refused,
    /// It wants a password and got none.
    NoAuth,
    /// It has another password, or none at all.
    WrongPassword,
    /// It is still reading its data.
    Loading,
    /// A user of this machine waits there for a password: see [`holder::stranger`].
    Stranger(u32),
    /// Something else, as the server or the kernel put it.
    Other(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("nobody listens there"),
            Self::NoAuth => f.write_str("it asks for a password"),
            Self::WrongPassword => f.write_str("it does not take this password"),
            Self::Loading => f.write_str("it is still loading its data"),
            Self::Stranger(uid) => write!(f, "user {uid} has its port, and gets no password"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Trouble {}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        if error.is_connection_refusal() {
            return Self::Refused;
        }
        match error.code() {
            Some("NOAUTH") => Self::NoAuth,
            Some("WRONGPASS") => Self::WrongPassword,
            Some("LOADING") => Self::Loading,
            _ if error.to_string().contains("without any password configured") => Self::WrongPassword,
            _ if error.is_timeout() => Self::Other("it did not answer in time".into()),
            // In the server's own words: `READONLY You can't write against a read only replica.`
            Some(code) => Self::Other(format!("{code} {}", error.detail().unwrap_or_default())),
            None => Self::Other(error.to_string()),
        }
    }
}

/// As whom one speaks to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login<'a> {
    /// The user; none for the default one.
    pub user: Option<&'a str>,
    /// Its password.
    pub password: &'a Secret,
}

impl<'a> Login<'a> {
    /// The default user's.
    pub fn default_user(password: &'a Secret) -> Self {
        Self { user: None, password }
    }

    /// The user `admin`, then the default one; or, where `admin` is not to be there, the other way round. In the
    /// middle of a change, and behind somebody's hand, a server may have the other one only.
    pub fn both(admin: bool, password: &'a Secret) -> [Self; 2] {
        let (one, other) = (Self { user: Some(users::ADMIN), password }, Self::default_user(password));
        if admin { [one, other] } else { [other, one] }
    }

    /// What AUTH is given.
    pub fn words(&self) -> impl Iterator<Item = &'a str> {
        self.user.into_iter().chain([self.password.expose()])
    }
}

/// An open connection.
pub struct Wire {
    connection: Connection,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    /// How long a server may take to answer, if the caller does not say.
    pub const TIMEOUT: Duration = Duration::from_secs(2);

    /// Connects, and authenticates if there is a password.
    ///
    /// # Errors
    /// See [`Trouble`]. A server without a password answers WRONGPASS or ERR to AUTH; both come
    /// back as [`Trouble::WrongPassword`].
    pub fn open(host: &Host, at: &Address, password: Option<&Secret>) -> Result<Self, Trouble> {
        Self::open_as(host, at, password.map(Login::default_user))
    }

    /// The same as a user.
    ///
    /// # Errors
    /// See [`Wire::open`].
    pub fn open_as(host: &Host, at: &Address, login: Option<Login<'_>>) -> Result<Self, Trouble> {
        if let Some(uid) = login.and_then(|_| holder::stranger(host, at)) {
            return Err(Trouble::Stranger(uid));
        }
        let at = ConnectionAddr::Tcp(at.host.clone(), at.port);
        Self::begin(host.connect(at, Self::TIMEOUT)?, login)
    }

    /// The same as the user `admin` where there is one, or as the default user. In the middle of a change, and
    /// behind somebody's hand, a server may have the other one only.
    ///
    /// # Errors
    /// See [`Wire::open`].
    pub fn enter(host: &Host, at: &Address, admin: bool, password: Option<&Secret>) -> Result<Self, Trouble> {
        let Some(password) = password else { return Self::open(host, at, None) };
        let [first, second] = Login::both(admin, password);
        match Self::open_as(host, at, Some(first)) {
            Err(Trouble::WrongPassword) => {
                Self::open_as(host, at, Some(second)).map_err(|_| Trouble::WrongPassword)
            }
            other => other,
        }
    }

    /// The same over a Unix socket.
    ///
    /// # Errors
    /// See [`Wire::open`].
    pub fn open_socket(host: &Host, path: &Path, login: Option<Login<'_>>) -> Result<Self, Trouble> {
        let at = ConnectionAddr::Unix(path.to_path_buf());
        Self::begin(host.connect(at, Self::TIMEOUT)?, login)
    }

    fn begin(connection: Connection, login: Option<Login<'_>>) -> Result<Self, Trouble> {
        let mut wire = Self { connection };
        if let Some(login) = login {
            let words: Vec<&str> = ["AUTH"].into_iter().chain(login.words()).collect();
            wire.ask::<()>(&words)?;
        }
        Ok(wire)
    }

    /// One command and its answer.
    ///
    /// # Errors
    /// What the server answered, sorted.
    pub fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, Trouble> {
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut self.connection).map_err(Trouble::from)
    }

    /// PING, and PONG awaited.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn ping(&mut self) -> Result<(), Trouble> {
        match self.ask::<String>(&["PING"])?.as_str() {
            "PONG" => Ok(()),
            other => Err(Trouble::Other(format!("it answered '{other}' to PING"))),
        }
    }

    /// INFO, all sections or one, as names and values.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub fn info(&mut self, section: &str) -> Result<BTreeMap<String, String>, Trouble> {
        self.ask::<String>(&["INFO", section]).map(|text| parse_info(&text))
    }

    /// CONFIG GET of all directives, or none where the command is renamed or forbidden.
    pub fn config(&mut self) -> Option<BTreeMap<String, String>> {
        self.ask(&["CONFIG", "GET", "*"]).ok()
    }
}

/// Reads INFO's `name:value` lines.
pub fn parse_info(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_end().to_owned())).collect()
}
