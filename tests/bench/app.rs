//! How fast the web app answers, beside what it could be: a program that does no more than ask Redis and
//! reply, and the lab's Flask application. Run by `cargo bench --bench app`, on loopback, with a server of
//! its own and with `wrk` (Debian's package).
//!
//! A benchmark and no test: a goal that is missed is printed like one that is met. The machine is shared
//! and noisy, so the programs take turns (A B A B), and what counts is the median of the ratios.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs
)]

mod minimal;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_redis-tp");
const MINIMAL: &str = "--minimal";

/// How often each program is measured.
const ROUNDS: usize = 7;
/// How long, in seconds.
const LENGTH: &str = "3";
/// How many connections ask at once.
const CONNECTIONS: [&str; 2] = ["16", "64"];
/// How many keys are asked for: one that all want, and more than travel together.
const KEYS: [usize; 2] = [1, 1000];
/// How many ask for one cold key.
const HERD: usize = 100;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, port, redis] = args.as_slice()
        && word == MINIMAL
    {
        return minimal::serve(port.parse().expect("a port"), redis.parse().expect("a port"));
    }
    // `cargo test --all-targets` runs benchmarks too, without this word.
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    for (program, cure) in [("wrk", "apt-get install wrk"), (&server(), "tests/run makes one")] {
        if Command::new(program).arg("--version").output().is_err() {
            return println!("nothing measured: there is no {program} ({cure})");
        }
    }
    println!("load average: {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    let redis = Redis::start();
    let ours = Program::start("redis-tp app serve", |port| {
        let mut command = Command::new(PROGRAM);
        command.args(["app", "serve", "--ttl", "3600", "--slow", "0.2", "--port", &port.to_string()]);
        command.args(["--redis", &format!("127.0.0.1:{}", redis.0.port)]);
        command
    });
    let minimal = Program::start("axum + redis, GET and reply", |port| {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([MINIMAL, &port.to_string(), &redis.0.port.to_string()]);
        command
    });
    let flask = flask(redis.0.port);
    for keys in KEYS {
        (0..keys).for_each(|key| drop(get(ours.port, &format!("/data/key-{key}"))));
        for connections in CONNECTIONS {
            compare(connections, keys, &ours, &[Some(&minimal), flask.as_ref()]);
        }
    }
    println!("\nmemory: {:.1} MiB (goal: under 30), beside {:.1} MiB", ours.memory(), minimal.memory());
    herd(&ours);
    if flask.is_none() {
        println!("\nFlask was left out: REDIS_TP_TEST_FLASK=DIR names a virtual environment with gunicorn");
    }
}

/// Asks for the keys in turn; the requests are made beforehand, for making them would be what is measured.
const SCRIPT: &str = r#"
local requests, at = {}, 0
function init(args)
    for key = 0, args[1] - 1 do requests[key] = wrk.format("GET", "/data/key-" .. key) end
end
function request()
    at = (at + 1) % (#requests + 1)
    return requests[at]
end
"#;

/// What wrk says of one program.
#[derive(Clone, Copy)]
struct Load {
    rate: f64,
    p99: f64,
}

fn compare(connections: &str, keys: usize, ours: &Program, others: &[Option<&Program>]) {
    println!("\n{connections} connections, {keys} keys, {ROUNDS} rounds of {LENGTH} s");
    let all: Vec<&Program> = [Some(ours)].iter().chain(others).filter_map(|at| *at).collect();
    let mut loads: Vec<Vec<Load>> = vec![Vec::new(); all.len()];
    for _ in 0..ROUNDS {
        for (program, loads) in all.iter().zip(&mut loads) {
            loads.push(program.load(connections, keys));
        }
    }
    for (program, theirs) in all.iter().zip(&loads) {
        let rate = median(theirs.iter().map(|load| load.rate));
        let p99 = median(theirs.iter().map(|load| load.p99));
        println!("  {:<30} {rate:>9.0} requests/s  p99 {p99:>7.2} ms", program.name);
    }
    for (index, program) in all.iter().enumerate().skip(1) {
        let pairs = || loads[0].iter().zip(&loads[index]);
        let rate = median(pairs().map(|(ours, theirs)| ours.rate / theirs.rate));
        let p99 = median(pairs().map(|(ours, theirs)| ours.p99 / theirs.p99));
        println!("  ours beside {:<18} {rate:>9.2} x           p99 {p99:>7.2} x", program.name);
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A hundred at once for one cold key.
fn herd(ours: &Program) {
    let before = ours.slow_reads();
    let began = Instant::now();
    let threads: Vec<_> = (0..HERD)
        .map(|_| {
            let port = ours.port;
            std::thread::spawn(move || get(port, "/data/herd").expect("an answer"))
        })
        .collect();
    let answers = threads.into_iter().map(|thread| thread.join().expect("a thread"));
    let fine = answers.filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
    let reads = ours.slow_reads() - before;
    println!("\nherd: {fine} of {HERD} answered in {:.0?}, slow reads: {reads} (goal: 1)", began.elapsed());
}

/// A process that is ended with the value.
struct Program {
    name: String,
    port: u16,
    child: Child,
}

impl Program {
    fn start(name: &str, command: impl FnOnce(u16) -> Command) -> Self {
        let port = free_port();
        let child = command(port).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let program = Self { name: name.to_owned(), port, child: child.expect("it starts") };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        program
    }

    fn load(&self, connections: &str, keys: usize) -> Load {
        let mut script = tempfile::NamedTempFile::new().expect("a file");
        write!(script, "{SCRIPT}").expect("a script");
        let url = format!("http://127.0.0.1:{}/", self.port);
        let (script, keys) = (script.path().to_string_lossy(), keys.to_string());
        let out = Command::new("wrk")
            .args(["-t1", "-c", connections, "-d", LENGTH, "--latency", "-s", &script, &url, &keys])
            .output();
        let text = String::from_utf8(out.expect("wrk runs").stdout).expect("text");
        let field = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
        assert!(!text.contains("Non-2xx"), "{text}");
        let rate = field("Requests/sec:").and_then(|rate| rate.parse().ok()).unwrap_or(f64::NAN);
        Load { rate, p99: field("99%").map_or(f64::NAN, milliseconds) }
    }

    fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }

    fn slow_reads(&self) -> u64 {
        let text = get(self.port, "/metrics").expect("an answer");
        let line = text.lines().find_map(|line| line.strip_prefix("redis_tp_app_slow_reads_total "));
        line.and_then(|count| count.parse().ok()).expect("a number")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Redis(Program);

impl Redis {
    fn start() -> Self {
        Self(Program::start("redis-server", |port| {
            let mut command = Command::new(server());
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            // Nothing to begin with, wherever this runs.
            command.args(["--dbfilename", "redis-tp-bench.rdb"]);
            command
        }))
    }
}

/// As wrk writes it: `1.23ms`, `456.00us`, `2.00s`.
fn milliseconds(text: &str) -> f64 {
    let (number, factor) = match text {
        _ if text.ends_with("us") => (text.trim_end_matches("us"), 1e-3),
        _ if text.ends_with("ms") => (text.trim_end_matches("ms"), 1.0),
        _ => (text.trim_end_matches('s'), 1e3),
    };
    number.parse::<f64>().map_or(f64::NAN, |number| number * factor)
}

/// The lab's application under gunicorn with two workers.
fn flask(redis: u16) -> Option<Program> {
    let venv = std::env::var("REDIS_TP_TEST_FLASK").ok()?;
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/flask");
    Some(Program::start("Flask, gunicorn, 2 workers", |port| {
        let mut command = Command::new(Path::new(&venv).join("bin/gunicorn"));
        command.args(["-w", "2", "-b", &format!("127.0.0.1:{port}"), "app:app"]).current_dir(app);
        command.env("REDIS_HOST", "127.0.0.1").env("REDIS_PORT", redis.to_string());
        command.env("TTL", "3600").env("SLOW", "0.2");
        command
    }))
}

fn server() -> String {
    std::env::var("REDIS_TP_TEST_SERVER").unwrap_or_else(|_| "redis-server".into())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
