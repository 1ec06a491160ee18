//! Connections to Redis servers, over TLS or plain, to a port or to a Unix socket. A part of the one module with
//! effects.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustls::{ClientConnection, StreamOwned};

use super::{Host, standstill};
use crate::certificates;
use crate::secret::Secret;
use crate::tls::client::{self, Expired};
use crate::tls::issue::{Authority, Holder};
use crate::tls::judge;
use crate::tls::{Pem, Tls};
use crate::wire::{Address, Trouble};

/// How long a server may say nothing to a greeting until it is asked whether it speaks TLS at all: one that does
/// not waits for the rest of what it takes for a command.
const SILENCE: Duration = Duration::from_millis(300);
/// How long a handshake may take at most.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// An open connection.
#[derive(Debug)]
pub enum Stream {
    /// To a port.
    Plain(TcpStream),
    /// To a socket of this machine.
    Socket(UnixStream),
    /// To a port, over TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// How long a read may wait.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_read_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.set_read_timeout(Some(limit)),
            Self::Socket(stream) => stream.set_read_timeout(Some(limit)),
            Self::Tls(stream) => stream.sock.set_read_timeout(Some(limit)),
        }
    }

    fn set_timeouts(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(limit)?;
        match self {
            Self::Plain(stream) => stream.set_write_timeout(Some(limit)),
            Self::Socket(stream) => stream.set_write_timeout(Some(limit)),
            Self::Tls(stream) => stream.sock.set_write_timeout(Some(limit)),
        }
    }

    /// The certificate that the other side has shown; none where no TLS is spoken.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => stream.conn.peer_certificates()?.first().map(|first| first.to_vec()),
            Self::Plain(_) | Self::Socket(_) => None,
        }
    }
}

impl Stream {
    fn limit(&self) -> io::Result<Duration> {
        let limit = match self {
            Self::Plain(stream) => stream.read_timeout(),
            Self::Socket(stream) => stream.read_timeout(),
            Self::Tls(stream) => stream.sock.read_timeout(),
        };
        Ok(limit?.unwrap_or(Duration::MAX))
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Socket(stream) => stream.read(buffer),
            Self::Tls(stream) => match stream.read(buffer) {
                // A server that ends says no farewell, and every answer tells its own length.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                Err(error) => Err(in_words(error, client::later_words)),
                read => read,
            },
        }
    }
}

impl Read for Stream {
    /// What comes within the limit; once more so long where the machine stood still meanwhile.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let read = self.read_once(buffer);
        // One that was stopped is interrupted when it goes on (signal(7)).
        let vain = |error: &io::Error| is_silence(error) || error.kind() == ErrorKind::Interrupted;
        match read {
            Err(error) if vain(&error) && !standstill(began.elapsed(), self.limit()?).is_zero() => {
                self.read_once(buffer)
            }
            read => read,
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Socket(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Socket(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            // Whoever has gone already needs no farewell.
            let _ = stream.conn.write_tls(&mut stream.sock);
        }
    }
}

/// An error of TLS as the trouble that it is.
pub(super) fn in_words(error: io::Error, words: impl FnOnce(&rustls::Error) -> String) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(inner) => io::Error::other(Trouble::of_tls(inner, words(inner))),
        None => error,
    }
}

impl Host {
    /// What this machine shows of itself and whom it trusts, out of the files. Where its certificate is gone or has
    /// ended, and the authority is our own, one is signed for the moment: who is to renew it must get in.
    ///
    /// # Errors
    /// One of them is not there, or cannot be read.
    pub fn identity(&self, files: &Tls) -> Result<Pem> {
        let kept = certificates::read(self, files);
        if files.ca != certificates::authorities() {
            return kept;
        }
        let now = self.unix_time();
        if kept.as_ref().is_ok_and(|pem| judge::client(pem, now).is_ok()) {
            return kept;
        }
        let both = (self.text(&files.ca)?, self.text(&certificates::authority_key())?);
        let (Some(ca), Some(signer)) = both else { return kept };
        let authority = Authority { cert: ca.clone(), key: Secret::new(signer) };
        let key = self.new_key()?;
        let holder = Holder { name: "redis-tp", reached: &[] };
        match authority.sign(&holder, &key, now) {
            Ok(cert) => Ok(Pem { ca, cert, key }),
            Err(_) => kept,
        }
    }

    /// Connects to a server, over TLS where that is spoken. Nothing may take longer than `limit`, neither now nor
    /// later.
    ///
    /// # Errors
    /// Nobody listens there, or TLS fails.
    pub fn call(&self, at: &Address, limit: Duration, expired: Expired) -> Result<Stream, Trouble> {
        let stream = dial(at, limit)?;
        let stream = match &at.tls {
            Some(files) => {
                let pem = self.identity(files).map_err(|error| Trouble::Tls(format!("{error:#}")))?;
                self.secure(stream, at, (&pem, files, expired), limit.min(HANDSHAKE))?
            }
            None => Stream::Plain(stream),
        };
        stream.set_timeouts(limit)?;
        Ok(stream)
    }

    /// The same showing something else than the files have; over TLS in any case.
    ///
    /// # Errors
    /// As there.
    pub fn call_showing(&self, at: &Address, pem: &Pem, limit: Duration) -> Result<Stream, Trouble> {
        let files = at.tls.clone().unwrap_or_else(certificates::of_servers);
        let stream =
            self.secure(dial(at, limit)?, at, (pem, &files, Expired::Passes), limit.min(HANDSHAKE))?;
        stream.set_timeouts(limit)?;
        Ok(stream)
    }

    /// The same to a socket of this machine.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn call_socket(&self, path: &Path, limit: Duration) -> Result<Stream, Trouble> {
        let stream = Stream::Socket(UnixStream::connect(path)?);
        stream.set_timeouts(limit)?;
        Ok(stream)
    }

    fn secure(
        &self,
        stream: TcpStream,
        at: &Address,
        (pem, files, expired): (&Pem, &Tls, Expired),
        limit: Duration,
    ) -> Result<Stream, Trouble> {
        let config = client::config(pem, expired).map_err(|unfit| Trouble::Tls(unfit.words(files)))?;
        let name = client::name(&at.host).map_err(Trouble::Tls)?;
        let words = |error: &rustls::Error| client::words(error, &at.host, Some(&files.ca));
        let call = ClientConnection::new(config, name).map_err(|error| Trouble::Tls(words(&error)))?;
        let mut stream = StreamOwned::new(call, stream);
        let end = Instant::now() + limit;
        let done = match greet(&mut stream, end.min(Instant::now() + SILENCE)) {
            Err(error) if is_silence(&error) => match self.speaks_plainly(at) {
                true => return Err(Trouble::Tls(client::NOT_TLS.into())),
                false => shake(&mut stream, end),
            },
            Err(error) => Err(error),
            Ok(()) => shake(&mut stream, end),
        };
        match done {
            Ok(()) => Ok(Stream::Tls(Box::new(stream))),
            Err(error) if is_silence(&error) => {
                Err(Trouble::Tls("it did not answer in time that TLS is to be spoken".into()))
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(Trouble::Tls("it closed the connection when TLS was to be spoken".into()))
            }
            Err(error) => Err(in_words(error, words).into()),
        }
    }

    /// Whether a server that is said to speak TLS answers a plain word.
    pub fn speaks_plainly(&self, at: &Address) -> bool {
        first_byte(at, b"PING\r\n").is_some_and(|byte| b"+-".contains(&byte))
    }

    /// Whether a server that is said to speak plainly answers a greeting of TLS.
    pub fn speaks_tls(&self, at: &Address) -> bool {
        let greeting = client::greeting().unwrap_or_default();
        first_byte(at, &greeting).is_some_and(|byte| client::ANSWERS.contains(&byte))
    }
}

/// Connects to the first of the addresses that a name stands for and that answers.
fn dial(at: &Address, limit: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    for address in (at.host.as_str(), at.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn first_byte(at: &Address, said: &[u8]) -> Option<u8> {
    let mut stream = dial(at, SILENCE).ok()?;
    stream.set_read_timeout(Some(SILENCE)).ok()?;
    stream.set_write_timeout(Some(SILENCE)).ok()?;
    stream.write_all(said).ok()?;
    let mut byte = [0];
    stream.read_exact(&mut byte).ok()?;
    Some(byte[0])
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The first message of a handshake and the first word of the answer.
fn greet(stream: &mut StreamOwned<ClientConnection, TcpStream>, end: Instant) -> io::Result<()> {
    send(stream, end)?;
    hear(stream, end)
}

/// The rest of a handshake. Each read ends in time, and all of them do.
fn shake(stream: &mut StreamOwned<ClientConnection, TcpStream>, end: Instant) -> io::Result<()> {
    loop {
        send(stream, end)?;
        if !stream.conn.is_handshaking() {
            return Ok(());
        }
        hear(stream, end)?;
    }
}

fn send(stream: &mut StreamOwned<ClientConnection, TcpStream>, end: Instant) -> io::Result<()> {
    stream.sock.set_write_timeout(Some(left(end)?))?;
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut stream.sock)?;
    }
    stream.sock.flush()
}

fn hear(stream: &mut StreamOwned<ClientConnection, TcpStream>, end: Instant) -> io::Result<()> {
    stream.sock.set_read_timeout(Some(left(end)?))?;
    if stream.conn.read_tls(&mut stream.sock)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    match stream.conn.process_new_packets() {
        Ok(_) => Ok(()),
        Err(error) => {
            // The other side hears why, too.
            let _ = stream.conn.write_tls(&mut stream.sock);
            Err(io::Error::new(ErrorKind::InvalidData, error))
        }
    }
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}
