//! The parser of redis.conf and the server itself: on generated files both come to the same verdict, about the
//! same line, and read the same values.
//!
//! Our verdict is on syntax and names. So the directives are such as take any one word: whether a value is in
//! range, only the server knows.

use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use redis_tp::conf::{self, Conf};
use redis_tp::directives::{self, Knowledge};
use redis_tp::engine::{Engine, Version};
use redis_tp::host::Host;
use redis_tp::wire::Wire;

use crate::generated::try_all;

/// How many files the real server reads, at some 11 ms each.
const FILES: u32 = 400;

/// A word as somebody might write it: whole, in quotes, half in quotes.
fn word() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "a", "b c", "\\x41", "\\x4", "\\xzz", "\\n", "\\\"", "\\'", "\\\\", "\\", "#", "é", "%", "0", "'",
        "\"", "",
    ]);
    let inside = vec(piece, 0..4).prop_map(|pieces| pieces.concat());
    prop_oneof![
        4 => "[a-z0-9.:-]{1,8}",
        3 => inside.clone().prop_map(|inside| format!("\"{inside}\"")),
        2 => inside.clone().prop_map(|inside| format!("'{inside}'")),
        1 => inside,
        1 => Just("\"open".to_owned()),
        1 => (1000..2100_usize).prop_map(|length| "x".repeat(length)),
        1 => Just("a\"b\"".to_owned()),
        1 => Just("\"a\"b".to_owned()),
    ]
}

/// A line of a redis.conf.
fn line() -> impl Strategy<Value = String> {
    let known = [
        "syslog-ident",
        "SYSLOG-Ident",
        "masteruser",
        "\"masteruser\"",
        "MasterUser",
        "pidfile",
        "unixsocket",
        "replica-announce-ip",
        "SLAVE-announce-ip",
    ];
    let names = prop_oneof![
        12 => select(known.to_vec()),
        1 => select(vec!["replica-announce-pass", "bogus", "masteruserr", "port:", "\"\"", "é"]),
    ];
    let space = select(vec![" ", "\t", "  ", " \t"]);
    let end = select(vec![
        "",
        "",
        "",
        " ",
        "\t",
        "\r",
        " \r",
        " # no comment",
        " extra",
        "\0",
        "\u{c}",
        " \0 \"more",
    ]);
    let directive =
        (select(vec!["", "", "", " ", "\t", "\r", "\u{b}", "\u{feff}"]), names, space, word(), end)
            .prop_map(|(before, name, space, word, end)| format!("{before}{name}{space}{word}{end}"));
    let other = select(vec![
        "",
        "#",
        "# requirepass x",
        "  # indented",
        "\t",
        "\r",
        "masteruser",
        "timeout 5",
        "TIMEOUT 6",
    ]);
    prop_oneof![5 => directive, 1 => other.prop_map(str::to_owned)]
}

/// The first line that our parser and table refuse, from 1.
fn ours(text: &str, version: Version) -> Option<usize> {
    let conf = match Conf::parse(text) {
        Ok(conf) => conf,
        Err(bad) => {
            // Those before it may be refused, too. A NUL joins two lines of the file, so they are tried.
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let mut before = (0..lines.len()).rev().map(|count| lines[..count].concat());
            let before = before.find(|before| Conf::parse(before).is_ok()).unwrap_or_default();
            return Some(ours(&before, version).unwrap_or(bad.line));
        }
    };
    let fits = |line: &conf::Directive| {
        directives::knowledge(&line.name, Engine::Redis, version) == Knowledge::Known && line.args.len() == 1
    };
    conf.directives.iter().find(|line| !fits(line)).map(|line| line.line)
}

/// The server for tests that need no machine; none where there is none.
fn server() -> Option<(PathBuf, Version)> {
    let path = PathBuf::from(env::var_os("REDIS_TP_TEST_SERVER")?);
    let banner = Command::new(&path).arg("--version").output().ok()?.stdout;
    Some((path, Version::of_banner(&String::from_utf8_lossy(&banner))?))
}

fn skipped() {
    assert!(env::var_os("REDIS_TP_TEST_FULL").is_none_or(|full| full != "1"), "no REDIS_TP_TEST_SERVER");
    let _ = writeln!(std::io::stderr(), "skipped: no server; `tests/run` installs one");
}

/// The line that the server's parse probe complains of; none if it takes them all.
fn theirs(server: &Path, text: &str) -> Option<usize> {
    let mut child = Command::new(server)
        .args(["-", "--port", "redis-tp-eof"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the server can be started");
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let done = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    if said.contains("redis-tp-eof") {
        return None;
    }
    let line = said.lines().find_map(|line| line.split_once("at line ")?.1.trim().parse().ok());
    Some(line.unwrap_or_else(|| panic!("the server complains of no line: {said}\n{text}")))
}

#[test]
fn the_parser_and_the_server_agree_on_every_file() {
    let Some((server, version)) = server() else { return skipped() };
    let (taken, refused) = (Cell::new(0), Cell::new(0));
    let files = vec(line(), 1..8).prop_map(|lines| lines.join("\n") + "\n");
    try_all(&files, FILES, |text| {
        let (ours, theirs) = (ours(&text, version), theirs(&server, &text));
        assert_eq!(ours, theirs, "the line refused by us and by the server, of {text:?}");
        let count = if ours.is_none() { &taken } else { &refused };
        count.set(count.get() + 1);
    });
    let (taken, refused) = (taken.get(), refused.get());
    eprintln!("{taken} files were taken, {refused} refused");
    assert!(taken > 40 && refused > 40, "{taken} files were taken, {refused} refused: no test of both");
}

/// A server that reads a file and listens on a socket only.
struct Scratch {
    child: Child,
    dir: tempfile::TempDir,
}

impl Scratch {
    fn start(server: &Path, text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let socket = dir.path().join("s");
        let mut command = Command::new(server);
        command.args(["-", "--port", "0", "--save", "", "--unixsocket"]).arg(&socket);
        command.args(["--pidfile", "", "--logfile", "", "--dir"]).arg(dir.path());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it can be started");
        child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
        Self { child, dir }
    }
}

impl Scratch {
    /// A connection, as soon as it listens: the socket is there a moment before.
    fn wire(&self) -> Option<Wire> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if let Ok(wire) = Wire::open_socket(&Host::at("/"), &self.dir.path().join("s"), None) {
                return Some(wire);
            }
            thread::sleep(Duration::from_millis(2));
        }
        None
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_parser_reads_the_values_that_the_server_reads() {
    let Some((server, version)) = server() else { return skipped() };
    let words = vec(word(), 1..3).prop_map(|words| {
        words.iter().map(|word| format!("masteruser {word}\nsyslog-ident {word}\n")).collect::<String>()
    });
    let compared = Cell::new(0);
    try_all(&words, FILES / 4, |text| {
        if ours(&text, version).is_some() {
            return;
        }
        let scratch = Scratch::start(&server, &text);
        let mut wire = scratch.wire().unwrap_or_else(|| panic!("it does not start with {text:?}"));
        let conf = Conf::parse(&text).expect("it was read before");
        for name in ["masteruser", "syslog-ident"] {
            let said: Vec<Vec<u8>> = wire.ask(&["CONFIG", "GET", name]).expect("it answers");
            let ours = conf::quote(conf.word(name).unwrap_or_default());
            assert_eq!(bytes(&ours), said[1], "{name} of {text:?}");
        }
        compared.set(compared.get() + 1);
    });
    assert!(compared.get() > 20, "only {} files were compared", compared.get());
}

/// The bytes that a word stands for, as we would write it: quoted, its other bytes as `\\xNN`.
fn bytes(quoted: &str) -> Vec<u8> {
    let Some(inside) = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return quoted.as_bytes().to_vec();
    };
    let mut bytes = Vec::new();
    let mut rest = inside.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().expect("an escape has two characters") {
            b'x' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&digits, 16).expect("two digits"));
            }
            byte => bytes.push(byte),
        }
    }
    bytes
}
