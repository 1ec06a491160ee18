//! A conversation with a Redis server: connect, AUTH, ask. Trouble is sorted into the few kinds
//! that callers branch on.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Parser, RedisError, RedisResult, Value};
use serde::{Deserialize, Serialize};

use crate::facts::holder;
use crate::host::{Host, Stream};
use crate::secret::Secret;
use crate::tls::client::{self, Expired};
use crate::tls::{Pem, Tls};
use crate::topology::ReplicaOf;
use crate::users;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// An address that this machine reaches it under.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// By which files one speaks TLS there, if that is what it speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

impl Address {
    /// One where no TLS is spoken.
    pub fn plain(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, tls: None }
    }

    /// Whether this is where it is, whatever is spoken there.
    pub fn is_at(&self, host: &str, port: u16) -> bool {
        self.host == host && self.port == port
    }

    /// What redis-cli is told, so that it asks there.
    pub fn cli_line(&self) -> String {
        let tls = self.tls.as_ref().map(|files| format!(" {}", files.cli_line())).unwrap_or_default();
        format!("-h {} -p {}{tls}", self.host, self.port)
    }

    /// Reads `HOST:PORT`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains(':') {
            return Err(format!("'{text}' is not HOST:PORT, as 127.0.0.1:6379 is"));
        }
        match ReplicaOf::parse(text)? {
            ReplicaOf::Remote { host, port } => Ok(Self::plain(host, port)),
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
    /// It and we do not come to speak TLS with each other, or it speaks nothing else.
    Tls(String),
    /// The same because one of the two does not take the certificate of the other.
    Untrusted(String),
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
            Self::Tls(text) | Self::Untrusted(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

impl Error for Trouble {}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        if let Some(trouble) = of_tls(&error) {
            return trouble;
        }
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

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        RedisError::from(error).into()
    }
}

impl Trouble {
    /// What TLS fails of, with words for it.
    pub fn of_tls(error: &rustls::Error, said: String) -> Self {
        if client::is_distrust(error) { Self::Untrusted(said) } else { Self::Tls(said) }
    }
}

/// A password is said to nobody who only waits there for one.
fn refuse_stranger(host: &Host, at: &Address, login: Option<Login<'_>>) -> Result<(), Trouble> {
    login.and_then(|_| holder::stranger(host, at)).map_or(Ok(()), |uid| Err(Trouble::Stranger(uid)))
}

/// What TLS has to say of an error, if it comes from there.
fn of_tls(error: &RedisError) -> Option<Trouble> {
    // As the library keeps what it did not make itself.
    let kept: &Arc<dyn Error + Send + Sync> = error.source()?.downcast_ref()?;
    let inner = kept.downcast_ref::<io::Error>()?.get_ref()?;
    match inner.downcast_ref() {
        Some(trouble @ (Trouble::Tls(_) | Trouble::Untrusted(_))) => Some(trouble.clone()),
        _ => inner.downcast_ref().map(|error| Trouble::of_tls(error, client::later_words(error))),
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
    stream: Stream,
    parser: Parser,
    /// Answers that came too late for their questions, and are yet to come.
    late: usize,
    /// Whom to ask what it speaks, until it has answered for the first time.
    unheard: Option<(Host, Address)>,
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
        refuse_stranger(host, at, login)?;
        Self::to(host, at, login, Self::TIMEOUT)
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

    /// The same as [`Wire::open`] with a server that is not ours to renew: its certificate must not have ended.
    ///
    /// # Errors
    /// See [`Wire::open`].
    pub fn open_strictly(host: &Host, at: &Address, password: Option<&Secret>) -> Result<Self, Trouble> {
        let login = password.map(Login::default_user);
        refuse_stranger(host, at, login)?;
        Self::begin(host.call(at, Self::TIMEOUT, Expired::Refused)?, None, login)
    }

    /// Connects without a password, showing this certificate.
    ///
    /// # Errors
    /// See [`Wire::open`].
    pub fn open_showing(host: &Host, at: &Address, pem: &Pem) -> Result<Self, Trouble> {
        Self::begin(host.call_showing(at, pem, Self::TIMEOUT)?, None, None)
    }

    /// The same over a Unix socket.
    ///
    /// # Errors
    /// See [`Wire::open`].
    pub fn open_socket(host: &Host, path: &Path, login: Option<Login<'_>>) -> Result<Self, Trouble> {
        Self::begin(host.call_socket(path, Self::TIMEOUT)?, None, login)
    }

    fn to(host: &Host, at: &Address, login: Option<Login<'_>>, limit: Duration) -> Result<Self, Trouble> {
        let stream = host.call(at, limit, Expired::Passes)?;
        let unheard = at.tls.is_none().then(|| (host.clone(), at.clone()));
        Self::begin(stream, unheard, login)
    }

    fn begin(
        stream: Stream,
        unheard: Option<(Host, Address)>,
        login: Option<Login<'_>>,
    ) -> Result<Self, Trouble> {
        let mut wire = Self { stream, parser: Parser::new(), late: 0, unheard };
        if let Some(login) = login {
            let words: Vec<&str> = ["AUTH"].into_iter().chain(login.words()).collect();
            wire.ask::<()>(&words)?;
        }
        Ok(wire)
    }

    /// The certificate that the server has shown (DER); none where no TLS is spoken.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        self.stream.peer_certificate()
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
        let answer = self.exchange(&command.get_packed_command());
        // An answer, or at least silence: no server of TLS is silent to a plain word.
        let heard = answer.as_ref().map_or_else(RedisError::is_timeout, |_| true);
        match self.unheard.take().filter(|_| !heard) {
            Some((host, at)) if host.speaks_tls(&at) => Err(Trouble::Tls(client::TLS_ONLY.into())),
            _ => Ok(redis::from_redis_value(answer?.extract_error()?).map_err(RedisError::from)?),
        }
    }

    fn exchange(&mut self, said: &[u8]) -> RedisResult<Value> {
        if let Err(error) = self.stream.write_all(said).and_then(|()| self.stream.flush()) {
            // The other side may have said why before it closed.
            return match self.parser.parse_value(&mut self.stream) {
                Err(why) if of_tls(&why).is_some() => Err(why),
                _ => Err(error.into()),
            };
        }
        loop {
            let read = self.parser.parse_value(&mut self.stream);
            match &read {
                Ok(Value::Push { .. }) => return read,
                Ok(_) if self.late > 0 => self.late -= 1,
                Err(error) if error.is_timeout() => {
                    self.late += 1;
                    return read;
                }
                _ => return read,
            }
        }
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
