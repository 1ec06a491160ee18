//! The effects of the web app: sockets, signals and a database, most of them asynchronous. A part of the
//! one module with effects.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, RedisResult};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsConnector;

use super::Host;
use super::call::in_words;
use crate::tls::Pem;
use crate::tls::client::{self, Expired};
use crate::wire::{Address, Login, Trouble};

/// What a server is asked by somebody who says no password: it takes a command that it does not have for unknown before
/// it asks for one, and any of these may be renamed.
const KNOCKS: [&str; 6] = ["PING", "ECHO redis-tp", "TIME", "SELECT 0", "EXISTS redis-tp", "INFO server"];
/// How much of an answer is read, in bytes.
const HELLO: usize = 256;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// How long a client may leave what it is sent unread, in milliseconds, until it is taken for gone.
const UNREAD: u32 = 30_000;
/// How many sockets one process ever needs.
const MOST_FILES: u64 = 65_536;
/// How many commands may wait for a place in the stream to a server.
const COMMANDS: usize = 1024;

impl Host {
    /// Listens on an address; the socket does not block. A client that does not read what it is sent is
    /// dropped after a while: it would keep its place for ever.
    pub fn listen(&self, at: SocketAddr) -> io::Result<TcpListener> {
        use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
        let listener = TcpListener::bind(at)?;
        // Every connection inherits it.
        setsockopt(&listener, TcpUserTimeout, &UNREAD)?;
        // The library's own number is 128: connections over it would be refused at once.
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(BACKLOG)?)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// What a Redis server says to somebody who says no password. It may be anybody's, so no more than a few bytes of
    /// each answer are read, and nothing is waited for longer than `limit`.
    pub fn knock(&self, at: SocketAddr, limit: Duration) -> Knock {
        let end = self.now() + limit;
        let asked = |mut stream: TcpStream| -> io::Result<Knock> {
            stream.set_write_timeout(Some(limit))?;
            for words in KNOCKS {
                stream.write_all(format!("{words}\r\n").as_bytes())?;
                let said = self.line(&mut stream, end)?;
                let told = Knock::of(&said);
                // The rest of a line must not pass for the next answer.
                if told != Knock::Unclear || !said.ends_with(b"\n") {
                    return Ok(told);
                }
            }
            Ok(Knock::Unclear)
        };
        TcpStream::connect_timeout(&at, limit).and_then(asked).unwrap_or(Knock::KeptOut)
    }

    /// The first line of an answer, or its beginning; what it says may come byte by byte.
    fn line(&self, stream: &mut TcpStream, end: Instant) -> io::Result<Vec<u8>> {
        let mut said = Vec::new();
        while said.len() < HELLO && said.last() != Some(&b'\n') {
            let left = end.saturating_duration_since(self.now());
            stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut byte = [0];
            if left.is_zero() || stream.read(&mut byte)? == 0 {
                break;
            }
            said.extend(byte);
        }
        Ok(said)
    }

    /// Connects to a web server, asynchronously. What is written goes out at once.
    ///
    /// # Errors
    /// The kernel's. There is no limit in time but the kernel's own.
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<tokio::net::TcpStream> {
        let stream = tokio::net::TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Lets this process have as many sockets as the kernel allows it: the limit to begin with is 1024 in
    /// most shells. A kernel that refuses leaves it as it was.
    pub fn many_files(&self) {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(MOST_FILES), hard);
        }
    }

    /// Connects to a Redis server, over TLS if there is something to speak that by, and says no more than AUTH, if
    /// there is a password. The connection is
    /// shared by all that hold a clone of it; each of them waits for an answer no longer than `limit`.
    ///
    /// # Errors
    /// The last of the addresses that a name stands for did not answer in time, or refused.
    pub async fn redis(
        &self,
        at: &Address,
        tls: Option<&Pem>,
        login: Option<Login<'_>>,
        limit: Duration,
    ) -> RedisResult<(MultiplexedConnection, SocketAddr)> {
        let tls = tls.map(|pem| tls_to(&at.host, pem)).transpose()?;
        let mut last: RedisError = io::Error::from(io::ErrorKind::NotFound).into();
        for address in tokio::net::lookup_host((at.host.as_str(), at.port)).await? {
            match connect(address, tls.as_ref(), login, limit).await {
                Ok(connection) => return Ok((connection, address)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Opens a SQLite database to read from.
    pub fn sqlite(&self, file: &Path) -> rusqlite::Result<rusqlite::Connection> {
        use rusqlite::OpenFlags;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        rusqlite::Connection::open_with_flags(self.path(file), flags)
    }

    /// Waits until SIGINT, SIGTERM or SIGHUP asks us to end.
    ///
    /// # Errors
    /// Signals cannot be caught.
    pub async fn told_to_end(&self) -> io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        Ok(())
    }

    /// How much memory of this process is resident, in bytes; none where the kernel does not tell.
    pub fn resident(&self) -> Option<u64> {
        let text = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Milliseconds since 1970.
    pub fn unix_millis(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What comes of knocking at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// It lets in who says no password.
    LetIn,
    /// It asks for one, or it is no door of Redis.
    KeptOut,
    /// It takes the commands for unknown, which comes before that question, or has no place left.
    Unclear,
}

impl Knock {
    /// What a line of Redis's protocol tells, said to somebody without a password. What comes after the question for one
    /// (loading, busy, a master that is down, a user that may not) was said to somebody who is in.
    fn of(line: &[u8]) -> Self {
        let is = |begins: &str| line.starts_with(begins.as_bytes());
        let upper = |byte: &u8| byte.is_ascii_uppercase();
        match line {
            _ if is("-NOAUTH") || is("-DENIED") => Self::KeptOut,
            _ if is("-ERR ") => Self::Unclear,
            [b'-', code @ ..] if code.len() > 2 && code.iter().take(3).all(upper) => Self::LetIn,
            [b'+' | b'$' | b'*' | b':', more, ..] if more.is_ascii_alphanumeric() => Self::LetIn,
            _ => Self::KeptOut,
        }
    }
}

/// How TLS is spoken with a host: its certificate must be right, also in its time.
struct TlsTo<'a> {
    host: &'a str,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

fn tls_to<'a>(host: &'a str, pem: &Pem) -> io::Result<TlsTo<'a>> {
    let failed = |said: String| io::Error::other(Trouble::Tls(said));
    let config =
        client::config(pem, Expired::Refused).map_err(|unfit| failed(unfit.bare_words().to_owned()))?;
    Ok(TlsTo { host, config, name: client::name(host).map_err(failed)? })
}

async fn connect(
    at: SocketAddr,
    tls: Option<&TlsTo<'_>>,
    login: Option<Login<'_>>,
    limit: Duration,
) -> RedisResult<MultiplexedConnection> {
    let info = RedisConnectionInfo::default().set_skip_set_lib_name();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limit))
        .set_response_timeout(Some(limit))
        .set_pipeline_buffer_size(COMMANDS);
    let open = async {
        let stream = tokio::net::TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let Some(TlsTo { host, config: by, name }) = tls else {
            return conduct(MultiplexedConnection::new_with_config(&info, stream, config).await?);
        };
        let secure = TlsConnector::from(Arc::clone(by)).connect(name.clone(), stream).await;
        let secure = secure.map_err(|error| in_words(error, |why| client::words(why, host, None)))?;
        conduct(MultiplexedConnection::new_with_config(&info, secure, config).await?)
    };
    let late = |_| RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
    let mut connection = tokio::time::timeout(limit, open).await.map_err(late)??;
    if let Some(login) = login {
        // By hand: the library would hide in words of its own what the server answers.
        let words: Vec<&str> = login.words().collect();
        redis::cmd("AUTH").arg(words).exec_async(&mut connection).await?;
    }
    Ok(connection)
}

/// What comes and goes over a connection needs a task of its own, which ends with the last that holds it.
fn conduct(
    (connection, driver): (MultiplexedConnection, impl Future<Output = ()> + Send + 'static),
) -> RedisResult<MultiplexedConnection> {
    tokio::spawn(driver);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{getsockopt, sockopt::TcpUserTimeout};

    use super::*;

    #[test]
    fn who_is_answered_otherwise_than_by_a_question_for_a_password_is_in() {
        for (line, told) in [
            ("+PONG\r\n", Knock::LetIn),
            ("$8\r\n", Knock::LetIn),
            ("*2\r\n", Knock::LetIn),
            (":0\r\n", Knock::LetIn),
            ("-NOPERM this user has no permissions to run the 'ping' command\r\n", Knock::LetIn),
            ("-MASTERDOWN Link with MASTER is down\r\n", Knock::LetIn),
            ("-BUSY Redis is busy running a script.\r\n", Knock::LetIn),
            ("-LOADING Redis is loading the dataset in memory\r\n", Knock::LetIn),
            ("-MISCONF Redis is configured to save RDB snapshots\r\n", Knock::LetIn),
            ("-ERR wrong number of arguments for 'ping' command\r\n", Knock::Unclear),
            ("-ERR unknown command 'PING', with args beginning with: \r\n", Knock::Unclear),
            ("-ERR max number of clients reached\r\n", Knock::Unclear),
            ("-NOAUTH Authentication required.\r\n", Knock::KeptOut),
            ("-DENIED Redis is running in protected mode\r\n", Knock::KeptOut),
            ("\u{15}\u{3}\u{3}\0\u{2}\u{2}F", Knock::KeptOut),
            ("HTTP/1.1 400 Bad Request\r\n", Knock::KeptOut),
            ("", Knock::KeptOut),
        ] {
            assert_eq!(Knock::of(line.as_bytes()), told, "{line}");
        }
    }

    #[test]
    fn a_connection_of_a_client_that_does_not_read_has_an_end() {
        let listener = Host::at("/").listen(([127, 0, 0, 1], 0).into()).unwrap();
        #[allow(clippy::disallowed_methods, reason = "somebody else's client")]
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (connection, _) = listener.accept().unwrap();
        assert_eq!(getsockopt(&connection, TcpUserTimeout).unwrap(), UNREAD);
    }
}
