//! What the app's tests work with: real Redis servers on loopback, and a client that knows no more of
//! HTTP than the wire.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use redis_tp::app::{Node, Running, Settings};
use redis_tp::host::Host;
use redis_tp::secret::Secret;
use redis_tp::tls::Tls;
use redis_tp::topology::AppSection;
use redis_tp::wire::{Address, Trouble, Wire};

use crate::ports;
use crate::tls_wire::authority;

/// How long a test waits for what comes by itself; only a broken program takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A redis-server.
pub struct Redis {
    pub port: u16,
    program: PathBuf,
    args: Vec<String>,
    password: Option<String>,
    /// It speaks TLS only; by this it is asked.
    tls: Option<Tls>,
    child: Option<Child>,
    /// Its own: a replica leaves its copy of the data there, which the next server would begin with.
    dir: tempfile::TempDir,
}

impl Redis {
    /// Starts one on a free port; none, and says so, where there is no program.
    pub fn start(args: &[&str]) -> Option<Self> {
        Self::begin(args, None)
    }

    /// The same that speaks TLS only, with a certificate of its own, asked with that of a client.
    pub fn start_tls(server: &Tls, client: &Tls, args: &[&str]) -> Option<Self> {
        let own = authority::directives(server);
        let args: Vec<&str> = own.iter().map(String::as_str).chain(args.iter().copied()).collect();
        Self::begin(&args, Some(client.clone()))
    }

    fn begin(args: &[&str], tls: Option<Tls>) -> Option<Self> {
        let program = program()?;
        let port = free_port();
        let password = args.iter().position(|arg| *arg == "--requirepass").map(|at| args[at + 1].to_owned());
        let args = args.iter().map(ToString::to_string).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut redis = Self { port, program, args, password, tls, child: None, dir };
        redis.start_again();
        Some(redis)
    }

    /// Starts it again on the same port, with nothing in it.
    pub fn start_again(&mut self) {
        let _ = std::fs::remove_file(self.dir.path().join("dump.rdb"));
        let mut command = Command::new(&self.program);
        let port = self.port.to_string();
        match &self.tls {
            Some(_) => command.args(["--port", "0", "--tls-port", &port]),
            None => command.args(["--port", &port]),
        };
        command.args(["--bind", "127.0.0.1", "--save", ""]);
        command.args(["--repl-diskless-sync-delay", "0"]).args(&self.args);
        command.arg("--dir").arg(self.dir.path());
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        // One whose certificate is wrong is there, too.
        eventually("redis-server answers", || {
            !matches!(self.try_ask::<String>(&["PING"]), Err(Trouble::Refused | Trouble::Loading))
        });
    }

    /// A replica of this one, its link up.
    pub fn replica(&self) -> Self {
        let mut args = vec!["--replicaof".into(), "127.0.0.1".into(), self.port.to_string()];
        if let Some(password) = &self.password {
            args.extend(["--masterauth".into(), password.clone(), "--requirepass".into(), password.clone()]);
        }
        if self.tls.is_some() {
            args.extend(self.args.iter().take(authority::WORDS).cloned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let replica = Self::begin(&args, self.tls.clone()).unwrap();
        replica.await_link();
        replica
    }

    pub fn await_link(&self) {
        eventually("the link is up", || self.ask::<String>(&["INFO", "replication"]).contains("status:up"));
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).unwrap()
    }

    fn try_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> Result<T, Trouble> {
        let password = self.password.as_deref().map(Secret::new);
        let at = Address { tls: self.tls.clone(), ..Address::plain("127.0.0.1", self.port) };
        Wire::open(&Host::at("/"), &at, password.as_ref())?.ask(words)
    }

    /// The server as the settings name it.
    pub fn node(&self, name: &str) -> Node {
        let address = Address::plain("127.0.0.1", self.port);
        Node { name: name.into(), ..Node::at(address, self.password.as_deref().map(Secret::new)) }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn program() -> Option<PathBuf> {
    let host = Host::at("/");
    let found = host.which(&host.env("REDIS_TP_TEST_SERVER").unwrap_or_else(|| "redis-server".into()));
    if found.is_none() {
        let reason = "no redis-server on PATH; `tests/run` gets one";
        assert!(host.env("REDIS_TP_TEST_FULL").is_none_or(|full| full != "1"), "{reason}");
        let thread = std::thread::current();
        // Not eprintln!: the test harness would swallow that, as the test passes.
        let _ = writeln!(std::io::stderr(), "skipped {}: {reason}", thread.name().unwrap_or("a test"));
    }
    found
}

/// A free port; those of the unit tests are others.
pub fn free_port() -> u16 {
    ports::free_port(20_000)
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An app in this process, on any free port, with a short wait for the database.
pub fn app(nodes: Vec<Node>, change: impl FnOnce(&mut AppSection)) -> Running {
    let mut section = AppSection { port: 0, slow: Duration::from_millis(200), ..AppSection::default() };
    change(&mut section);
    Running::start(&Host::at("/"), Settings { section, nodes }).unwrap()
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
    pub took: Duration,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(at, _)| at.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// One member of the body, a text.
    pub fn member(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_else(|| panic!("no {name}: {self:?}")).to_owned()
    }

    pub fn source(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.member("source")
    }
}

pub fn get(at: SocketAddr, path: &str) -> Answer {
    send(at, "GET", path, "")
}

/// Sends a request with more lines in its head.
pub fn send(at: SocketAddr, method: &str, path: &str, more: &str) -> Answer {
    let began = Instant::now();
    let mut stream = connect(at);
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n{more}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap_or_else(|error| panic!("{path}: {error}, after {text:?}"));
    parse(path, &text, began)
}

/// Sends a request that is answered before it was read to its end: the rest of it meets nobody, which
/// breaks the connection behind the answer.
pub fn send_too_much(at: SocketAddr, path: &str) -> Answer {
    let began = Instant::now();
    let mut stream = connect(at);
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n");
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    parse("too much", &String::from_utf8_lossy(&bytes), began)
}

fn parse(path: &str, text: &str, began: Instant) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned(), took: began.elapsed() }
}

pub fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A number out of /metrics.
pub fn metric(at: SocketAddr, name: &str) -> u64 {
    let text = get(at, "/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Many at once for one path.
pub fn herd(at: SocketAddr, path: &str, count: usize) -> Vec<Answer> {
    let ask = |_| {
        let path = path.to_owned();
        std::thread::spawn(move || get(at, &path))
    };
    let threads: Vec<_> = (0..count).map(ask).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// What somebody hears who listens to /events.
pub struct Ear {
    stream: TcpStream,
    heard: String,
}

impl Ear {
    pub fn listen(at: SocketAddr) -> Self {
        let mut stream = connect(at);
        write!(stream, "GET /events HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut ear = Self { stream, heard: String::new() };
        ear.await_word("event: status");
        ear
    }

    /// Waits until a word is heard, and hands over all that was until then.
    pub fn await_word(&mut self, word: &str) -> &str {
        let end = Instant::now() + PATIENCE;
        while !self.heard.contains(word) {
            assert!(Instant::now() < end, "{word} was never heard in {}", self.heard);
            let mut bytes = [0; 4096];
            if let Ok(count) = self.stream.read(&mut bytes) {
                self.heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        }
        &self.heard
    }
}

/// The app as a process of its own.
pub struct Process {
    pub child: Child,
    pub at: SocketAddr,
}

impl Process {
    pub fn start(args: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new(crate::story::PROGRAM);
        command.args(["app", "serve", "--port", &port.to_string()]).args(args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("the app listens", || TcpStream::connect(at).is_ok());
        Self { child, at }
    }

    /// Tells it to end, and hands over its exit code and all that it printed.
    pub fn end(mut self) -> (Option<i32>, String) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
