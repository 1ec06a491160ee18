//! The web app in front of real Redis servers: what it answers while they are well, and while they are
//! not.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use redis_tp::app::{Node, Running, Settings};
use redis_tp::exit::Fault;
use redis_tp::host::Host;
use redis_tp::secret::Secret;
use redis_tp::topology::{AppSection, Prefix, ReadFrom, Source};
use redis_tp::wire::Address;

pub mod lab;

use lab::{
    Answer, Ear, Process, Redis, app, connect, eventually, free_port, get, herd, metric, send, send_too_much,
};

const COLD: &str = "database (slow)";
const WARM: &str = "cache";
const AWAY: &str = "database (slow, cache unavailable)";
const REFUSED: &str = "database (slow, cache refused)";
const SLOW_READS: &str = "redis_tp_app_slow_reads_total";

#[test]
fn a_value_is_cold_then_warm_until_its_time_is_up() {
    let Some(redis) = Redis::start(&[]) else { return };
    let at_once = app(vec![redis.node("master")], |section| section.ttl = Duration::from_secs(1));
    let app = app(vec![redis.node("master")], |section| section.ttl = Duration::from_secs(60));
    let began = Instant::now();
    let cold = get(app.address(), "/data/bonjour");
    assert_eq!(cold.body, r#"{"key":"bonjour","value":"BONJOUR","source":"database (slow)"}"#);
    assert!(cold.took >= Duration::from_millis(200), "{:?}", cold.took);
    assert_eq!((cold.header("x-cache"), cold.header("age")), (Some("MISS"), Some("0")));
    assert_eq!(cold.header("content-type"), Some("application/json"));
    let timing = cold.header("server-timing").unwrap().split("database;dur=").nth(1).unwrap();
    let database: f64 = timing.split([',', ';']).next().unwrap().trim().parse().unwrap();
    assert!(database >= 200.0 && database <= cold.took.as_secs_f64() * 1e3, "{cold:?}");
    let left: i64 = redis.ask(&["PTTL", "bonjour"]);
    assert!((1..=60_000).contains(&left), "{left}");

    let warm = get(app.address(), "/data/bonjour");
    assert_eq!(warm.body, r#"{"key":"bonjour","value":"BONJOUR","source":"cache"}"#);
    assert_eq!(warm.header("x-cache"), Some("HIT"));
    let age: u64 = warm.header("age").unwrap().parse().unwrap();
    assert!(age <= began.elapsed().as_secs(), "{warm:?}");
    let told: f64 = warm.header("x-cache-ttl").unwrap().parse().unwrap();
    assert!((0.0..=60.0).contains(&told), "{told}");
    assert_eq!(redis.ask::<String>(&["GET", "bonjour"]), "BONJOUR");

    assert_eq!(get(at_once.address(), "/data/soir").source(), COLD);
    eventually("the key is gone", || redis.ask::<i64>(&["TTL", "soir"]) == -2);
    assert_eq!(get(at_once.address(), "/data/soir").source(), COLD);
}

#[test]
fn a_hundred_at_once_make_one_read_of_the_database_with_a_cache_and_without() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |section| section.slow = Duration::from_secs(1));
    let answers = herd(app.address(), "/data/one", 100);
    assert!(answers.iter().all(|answer| answer.member("value") == "ONE"), "{answers:?}");
    assert_eq!(metric(app.address(), SLOW_READS), 1);
    let shared = answers.iter().filter(|answer| answer.header("server-timing").unwrap().contains("wait;"));
    assert_eq!(
        metric(app.address(), "redis_tp_app_requests_total{result=\"shared\"}"),
        shared.count() as u64
    );

    redis.kill();
    let began = Instant::now();
    let answers = herd(app.address(), "/data/two", 100);
    assert!(answers.iter().all(|answer| answer.source() == AWAY), "{answers:?}");
    // Who comes when the first has its answer makes a read of its own: never two at a time.
    let reads = metric(app.address(), SLOW_READS) - 1;
    assert!(reads >= 1 && reads <= began.elapsed().as_secs(), "{reads} reads");
    assert_eq!(metric(app.address(), "redis_tp_app_in_flight"), 0);
}

#[test]
fn a_server_that_was_restarted_unseen_is_found_by_the_next_request() {
    let Some(mut redis) = Redis::start(&["--appendonly", "no", "--save", ""]) else { return };
    let app = app(vec![redis.node("master")], |_| {});
    for round in 0..3 {
        let path = format!("/data/{round}");
        get(app.address(), &path);
        assert_eq!(get(app.address(), &path).source(), WARM);
        redis.kill();
        redis.start_again();
        redis.ask::<()>(&["SET", &round.to_string(), "there"]);
        assert_eq!(get(app.address(), &path).source(), WARM, "in round {round}");
    }
}

#[test]
fn a_database_without_delay_is_read_once_by_a_herd() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |section| section.slow = Duration::ZERO);
    for key in 0..20 {
        herd(app.address(), &format!("/data/{key}"), 8);
    }
    assert_eq!(metric(app.address(), SLOW_READS), 20);
}

#[test]
fn a_client_that_hangs_up_does_not_stop_the_read() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |_| {});
    let mut client = connect(app.address());
    write!(client, "GET /data/left HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
    eventually("the read is under way", || metric(app.address(), SLOW_READS) == 1);
    drop(client);
    eventually("the value is there", || redis.ask::<i64>(&["EXISTS", "left"]) == 1);
    assert_eq!(get(app.address(), "/data/left").source(), WARM);
}

#[test]
fn no_request_fails_while_the_master_is_killed_and_started_again() {
    let Some(mut redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |section| section.slow = Duration::from_millis(20));
    let at = app.address();
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = |worker: usize| {
        let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut sources = BTreeSet::new();
            while !stop.load(Relaxed) {
                sources.insert(get(at, &format!("/data/key-{}", worker % 3)).source());
                asked.fetch_add(1, Relaxed);
            }
            sources
        })
    };
    let workers: Vec<_> = (0..6).map(load).collect();
    let mut ear = Ear::listen(at);
    for _ in 0..2 {
        let before = asked.load(Relaxed);
        eventually("there is a load", || asked.load(Relaxed) > before + 50);
        redis.kill();
        eventually("it is told that the cache is away", || get(at, "/readyz").status == 503);
        let before = asked.load(Relaxed);
        eventually("there is a load without", || asked.load(Relaxed) > before + 20);
        redis.start_again();
        eventually("the cache is back by itself", || get(at, "/data/key-1").source() == WARM);
    }
    stop.store(true, Relaxed);
    let sources: BTreeSet<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    assert!(sources.contains(WARM) && sources.contains(AWAY), "{sources:?}");
    let heard = ear.await_word("master-back");
    assert!(heard.contains("\"master-away\""), "{heard}");
    assert_eq!(get(at, "/readyz").json()["master"], "master");
}

#[test]
fn a_wrong_password_is_said_and_put_right_without_a_restart() {
    let Some(redis) = Redis::start(&["--requirepass", "canary-5ecret"]) else { return };
    let node = Node { password: Some(Secret::new("canary-wrong")), ..redis.node("master") };
    for node in [node, Node { password: None, ..redis.node("master") }] {
        let app = app(vec![node], |section| section.slow = Duration::ZERO);
        assert_eq!(get(app.address(), "/data/a").source(), AWAY);
        assert_eq!(get(app.address(), "/data/a").header("x-cache"), Some("BYPASS"));
        let mut ear = Ear::listen(app.address());
        let heard = ear.await_word("\"state\":\"refused\"").to_owned();
        let said = format!("{heard}{:?}{:?}", get(app.address(), "/readyz"), get(app.address(), "/metrics"));
        assert!(said.contains("password") && !said.contains("canary"), "{said}");
    }
    let app = app(vec![Node { password: Some(Secret::new("other")), ..redis.node("master") }], |section| {
        section.slow = Duration::ZERO;
    });
    redis.ask::<()>(&["CONFIG", "SET", "requirepass", "other"]);
    eventually("the cache is back", || get(app.address(), "/data/b").source() == WARM);
}

#[test]
fn a_server_that_hangs_holds_a_request_up_once_and_no_longer_than_its_deadline() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |section| section.slow = Duration::ZERO);
    assert_eq!(get(app.address(), "/data/a").source(), COLD);
    redis.signal(Signal::SIGSTOP);
    assert_eq!(get(app.address(), "/data/a").source(), AWAY);
    // Known to hang by now: nobody waits for it.
    let answers: Vec<_> = (0..5).map(|_| get(app.address(), "/data/a")).collect();
    assert!(answers.iter().all(|answer| answer.source() == AWAY), "{answers:?}");
    let quickest = answers.iter().map(|answer| answer.took).min().unwrap();
    assert!(quickest < Duration::from_millis(200), "{quickest:?}");
    Ear::listen(app.address()).await_word("\"state\":\"slow\"");
    redis.signal(Signal::SIGCONT);
    eventually("the cache is back", || get(app.address(), "/data/a").source() == WARM);
}

#[test]
fn writes_follow_the_master_when_it_moves() {
    let Some(one) = Redis::start(&["--requirepass", "canary-5ecret"]) else { return };
    one.ask::<()>(&["CONFIG", "SET", "masterauth", "canary-5ecret"]);
    let two = one.replica();
    // The replica is not named: it is found by asking the master.
    let app = app(vec![one.node("one")], |section| section.slow = Duration::ZERO);
    let address = format!("127.0.0.1:{}", two.port);
    let mut ear = Ear::listen(app.address());
    ear.await_word(&address);
    two.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    one.ask::<()>(&["REPLICAOF", "127.0.0.1", &two.port.to_string()]);
    one.await_link();
    eventually("the app has followed", || get(app.address(), "/readyz").json()["master"] == address.as_str());
    assert_eq!(get(app.address(), "/data/moved").source(), COLD);
    assert_eq!(two.ask::<i64>(&["EXISTS", "moved"]), 1);
    assert_eq!(get(app.address(), "/data/moved").source(), WARM);
    ear.await_word("master-moved");
    assert_eq!(metric(app.address(), "redis_tp_app_master_changes_total"), 1);

    one.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    two.ask::<()>(&["REPLICAOF", "127.0.0.1", &one.port.to_string()]);
    let answers: Vec<_> = (0..20).map(|key| get(app.address(), &format!("/data/key-{key}"))).collect();
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    eventually("the app is back", || get(app.address(), "/readyz").json()["master"] == "one");
}

#[test]
fn a_server_that_goes_by_two_addresses_is_one() {
    let Some(one) = Redis::start(&[]) else { return };
    let port = one.port.to_string();
    let two = ["--replicaof", "127.0.0.1", &port, "--replica-announce-ip", "localhost"];
    let two = Redis::start(&two).unwrap();
    two.await_link();
    let app = app(vec![one.node("one"), two.node("two")], |_| {});
    // The master tells of its replica under the other name only; that they are one is known when it has answered.
    eventually("both names are one server's", || {
        let mut ear = Ear::listen(app.address());
        let heard = ear.await_word("\"lag_bytes\":0");
        let last = heard.lines().rfind(|line| line.contains("\"lag_bytes\":0")).unwrap();
        last.matches("\"address\"").count() == 2
    });
}

/// Does something while the database is read, and hands over the answer. What took so long that the read may have
/// ended before is done once more, during another.
fn during_a_read(at: SocketAddr, slow: Duration, act: impl Fn(&str)) -> Answer {
    for number in 0..10 {
        let key = format!("late-{number}");
        let (path, before) = (format!("/data/{key}"), metric(at, SLOW_READS));
        let began = Instant::now();
        let answer = std::thread::spawn(move || get(at, &path));
        eventually("the read is under way", || metric(at, SLOW_READS) > before);
        act(&key);
        let in_time = began.elapsed() < slow;
        let answer = answer.join().unwrap();
        if in_time {
            return answer;
        }
    }
    panic!("this machine is too slow");
}

#[test]
fn a_write_to_a_master_that_was_demoted_is_taken_to_the_new_one() {
    let Some(one) = Redis::start(&[]) else { return };
    let two = one.replica();
    let app = app(vec![one.node("one"), two.node("two")], |section| section.slow = Duration::from_secs(1));
    let at = app.address();
    let answer = during_a_read(at, Duration::from_secs(1), |_| {
        two.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
        one.ask::<()>(&["REPLICAOF", "127.0.0.1", &two.port.to_string()]);
    });
    assert_eq!(answer.source(), COLD);
    assert_eq!(two.ask::<i64>(&["EXISTS", &answer.member("key")]), 1);
}

#[test]
fn reads_go_where_they_are_wanted_and_to_the_master_when_a_replica_is_gone() {
    let Some(one) = Redis::start(&[]) else { return };
    let mut two = one.replica();
    for (read_from, replica_reads, master_reads) in
        [(ReadFrom::Master, false, true), (ReadFrom::Replica, true, false), (ReadFrom::Any, true, true)]
    {
        let nodes = vec![one.node("one"), two.node("two")];
        let app = app(nodes, |section| (section.read_from, section.slow) = (read_from, Duration::ZERO));
        get(app.address(), "/data/a");
        eventually("the replica has it", || two.ask::<i64>(&["EXISTS", "a"]) == 1);
        for redis in [&one, &two] {
            redis.ask::<()>(&["CONFIG", "RESETSTAT"]);
        }
        for _ in 0..10 {
            assert_eq!(get(app.address(), "/data/a").source(), WARM);
        }
        let reads = |redis: &Redis| redis.ask::<String>(&["INFO", "commandstats"]).contains("cmdstat_get:");
        assert_eq!((reads(&two), reads(&one)), (replica_reads, master_reads), "{read_from}");
        if read_from == ReadFrom::Replica {
            // It may lag: what it does not have, the master is asked for.
            two.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
            one.ask::<()>(&["SET", "b", "by hand"]);
            assert_eq!(get(app.address(), "/data/b").member("value"), "by hand");
            two.ask::<()>(&["REPLICAOF", "127.0.0.1", &one.port.to_string()]);
            two.await_link();
        }
    }
    let nodes = vec![one.node("one"), two.node("two")];
    let app = app(nodes, |section| section.read_from = ReadFrom::Replica);
    two.kill();
    for _ in 0..3 {
        assert_eq!(get(app.address(), "/data/a").source(), WARM);
    }
}

#[test]
fn every_odd_key_gets_its_value_or_an_error_that_names_what_is_wrong() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |section| {
        section.slow = Duration::ZERO;
        section.prefix = Prefix::parse("lab:").unwrap();
    });
    let (long, longer) = ("x".repeat(512), "x".repeat(513));
    for (path, key) in [
        ("bonjour", "bonjour"),
        ("%00", "\0"),
        ("a%2Fb", "a/b"),
        ("a/b//c", "a/b//c"),
        ("/", "/"),
        ("../etc/passwd", "../etc/passwd"),
        ("a+b", "a+b"),
        ("%C3%A9t%C3%A9", "été"),
        ("a%0d%0ab", "a\r\nb"),
        ("%22%5C", "\"\\"),
        ("a?b=c", "a"),
        (&long, &long),
    ] {
        for source in [COLD, WARM] {
            let answer = get(app.address(), &format!("/data/{path}"));
            assert_eq!((answer.source().as_str(), answer.member("key").as_str()), (source, key), "{path}");
            assert_eq!(answer.member("value"), key.to_uppercase());
        }
        let name = format!("lab:{key}");
        assert_eq!(redis.ask::<String>(&["GET", &name]), key.to_uppercase());
        redis.ask::<()>(&["DEL", &name]);
    }
    let very_long = "y".repeat(16_000);
    for (path, status, id) in [
        ("/data/", 400, "empty-key"),
        ("/data/%FF", 400, "bad-key"),
        ("/data/%", 400, "bad-key"),
        ("/data/%zz", 400, "bad-key"),
        (&format!("/data/{longer}"), 414, "key-too-long"),
        (&format!("/data/{very_long}"), 414, "key-too-long"),
        ("/data", 404, "not-found"),
        ("/nowhere", 404, "not-found"),
    ] {
        let answer = get(app.address(), path);
        assert_eq!((answer.status, answer.member("error").as_str()), (status, id));
        assert!(answer.member("message").ends_with('.'), "{answer:?}");
    }
    // More than a request may be at all: not read, and so nothing of ours to answer.
    let endless = send_too_much(app.address(), &format!("/data/{}", "y".repeat(60_000)));
    assert_eq!((endless.status, endless.body.as_str()), (431, ""));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PURGE"] {
        for path in ["/data/a", "/", "/healthz"] {
            let answer = send(app.address(), method, path, "Content-Length: 0\r\n");
            assert_eq!((answer.status, answer.member("error").as_str()), (405, "method"), "{method} {path}");
        }
    }
    let head = send(app.address(), "HEAD", "/data/bonjour", "");
    assert_eq!((head.status, head.body.as_str(), head.header("x-cache")), (200, "", Some("MISS")));
}

#[test]
fn what_is_no_http_ends_the_connection_and_nothing_else() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |_| {});
    let endless = format!("GET /data/{} HTTP/1.1\r\n\r\n", "z".repeat(300_000));
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\xfc"[..], b"\r\n\r\n\r\n", b"GET\r\n\r\n", endless.as_bytes()] {
        let mut stream = connect(app.address());
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let mut large = connect(app.address());
    write!(large, "POST /data/a HTTP/1.1\r\nHost: lab\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    large.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 405");
    assert_eq!(get(app.address(), "/healthz").json()["app"], "redis-tp");
}

#[test]
fn who_does_not_say_what_it_wants_is_not_waited_for_long() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |_| {});
    let began = Instant::now();
    let clients = [&b""[..], b"GET /data/slowly HTTP/1.1\r\nHost: "].map(|bytes| {
        let mut client = connect(app.address());
        client.write_all(bytes).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client
    });
    for mut client in clients {
        client.read_to_end(&mut Vec::new()).expect("the connection is closed");
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn what_somebody_else_has_put_there_is_not_overwritten() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |section| section.slow = Duration::from_secs(1));
    redis.ask::<()>(&["RPUSH", "list", "theirs"]);
    assert_eq!(get(app.address(), "/data/list").source(), REFUSED);
    assert_eq!(redis.ask::<Vec<String>>(&["LRANGE", "list", "0", "-1"]), ["theirs"]);

    // Put there while the database was read.
    let answer = during_a_read(app.address(), Duration::from_secs(1), |key| {
        redis.ask::<()>(&["DEL", key]);
        redis.ask::<()>(&["RPUSH", key, "theirs"]);
    });
    assert_eq!(answer.source(), REFUSED);
    assert_eq!(redis.ask::<i64>(&["LLEN", &answer.member("key")]), 1);

    redis.ask::<()>(&["SET", "forever", "theirs"]);
    let forever = get(app.address(), "/data/forever");
    assert_eq!((forever.member("value").as_str(), forever.header("age")), ("theirs", None));
}

#[test]
fn a_cache_that_is_full_or_read_only_is_said_to_refuse() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |section| section.slow = Duration::ZERO);
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = get(app.address(), "/data/a");
    assert_eq!((full.source().as_str(), full.header("x-cache")), (REFUSED, Some("BYPASS")));
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    redis.ask::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert_eq!(get(app.address(), "/data/b").source(), REFUSED);
    redis.ask::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    assert_eq!(get(app.address(), "/data/a").source(), COLD);
}

/// A table with one row, one without a value, and one that is no text.
const TABLE: &str = "CREATE TABLE data (key TEXT PRIMARY KEY, value); INSERT INTO data VALUES
    ('bonjour', 'le monde'), ('number', 42), ('nothing', NULL), ('bytes', x'ff00')";

#[test]
fn a_sqlite_table_is_read_once_and_its_troubles_are_errors_of_the_database() {
    let Some(redis) = Redis::start(&[]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lab.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    database.execute_batch(TABLE).unwrap();
    let app = app(vec![redis.node("master")], |section| section.source = Source::Sqlite(file.clone()));
    let at = app.address();
    for source in ["database", "cache"] {
        let answer = get(at, "/data/bonjour");
        assert_eq!((answer.source().as_str(), answer.member("value").as_str()), (source, "le monde"));
    }
    assert_eq!(get(at, "/data/number").member("value"), "42");
    for (path, status, id) in
        [("absent", 404, "not-found"), ("nothing", 404, "not-found"), ("bytes", 502, "database")]
    {
        let answer = get(at, &format!("/data/{path}"));
        assert_eq!((answer.status, answer.member("error").as_str()), (status, id), "{path}");
        assert_eq!(redis.ask::<i64>(&["EXISTS", path]), 0, "{path}");
    }
    database.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let locked = get(at, "/data/locked");
    assert_eq!((locked.status, locked.member("error").as_str()), (502, "database"));
    assert_eq!(get(at, "/data/bonjour").source(), WARM);
    database.execute_batch("ROLLBACK; DROP TABLE data").unwrap();
    assert!(get(at, "/data/other").member("message").contains("no such table"));
    database.execute_batch(TABLE).unwrap();
    redis.ask::<()>(&["FLUSHALL"]);
    assert_eq!(get(at, "/data/bonjour").source(), "database");
}

#[test]
fn what_cannot_be_started_is_refused_with_the_cure() {
    let host = Host::at("/");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let refusal = |change: &dyn Fn(&mut AppSection)| {
        let mut section = AppSection { port: 0, ..AppSection::default() };
        change(&mut section);
        let error = Running::start(&host, Settings { section, nodes: Vec::new() }).unwrap_err();
        let fault = error.downcast_ref::<Fault>().unwrap_or_else(|| panic!("{error:?}"));
        format!("{fault}\n{}", fault.cure().unwrap_or_default())
    };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text"), "no database at all, and long enough to be seen as none")
        .unwrap();
    rusqlite::Connection::open(dir.path().join("empty.db")).unwrap().execute_batch("VACUUM").unwrap();
    let source = |name: &str| Source::Sqlite(dir.path().join(name));
    let said = [
        (refusal(&|section| section.port = taken.port()), "is taken by"),
        (refusal(&|section| section.port = taken.port()), "redis-tp app serve --port"),
        (refusal(&|section| section.bind = "192.0.2.1".parse().unwrap()), "no address of this machine"),
        (refusal(&|section| section.source = source("absent.db")), "is not there"),
        (refusal(&|section| section.source = source("text")), "is no SQLite database"),
        (refusal(&|section| section.source = source("empty.db")), "CREATE TABLE data"),
    ];
    for (said, words) in said {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn without_any_redis_it_answers_from_the_database() {
    for nodes in [
        Vec::new(),
        vec![Node::at(Address::plain("127.0.0.1", free_port()), None)],
        vec![Node::at(Address::plain("nowhere.invalid", 6379), None)],
    ] {
        let app = app(nodes, |section| section.slow = Duration::ZERO);
        assert_eq!(get(app.address(), "/data/a").source(), AWAY);
        let ready = get(app.address(), "/readyz");
        assert_eq!((ready.status, ready.member("status").as_str()), (503, "no-cache"));
        assert!(!ready.member("reason").is_empty());
    }
}

#[test]
fn the_page_hears_each_step_of_its_own_request_and_no_other() {
    let Some(redis) = Redis::start(&[]) else { return };
    let app = app(vec![redis.node("master")], |_| {});
    let mut ear = Ear::listen(app.address());
    get(app.address(), "/data/other");
    send(app.address(), "GET", "/data/mine", "X-Request-Id: id-1\r\n");
    let heard = ear.await_word("\"hop\":\"done\"").to_owned();
    for hop in ["cache", "database", "store"] {
        for phase in ["begin", "end"] {
            let hop = format!("\"hop\":\"{hop}\",\"phase\":\"{phase}\"");
            assert!(heard.contains(&hop), "no {hop} in {heard}");
        }
    }
    assert!(heard.contains("\"outcome\":\"stored\"") && !heard.contains("other"), "{heard}");
    ear.await_word("\"miss\":2");
    let ears: Vec<_> = (0..63).map(|_| Ear::listen(app.address())).collect();
    assert_eq!(get(app.address(), "/events").status, 503);
    drop(ears);
    // That they have gone, it hears a moment later.
    let free = || {
        let mut stream = connect(app.address());
        write!(stream, "GET /events HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        head.ends_with(b"200")
    };
    eventually("there is room again", free);
    eventually("that one has gone, too", free);
    let mut late = Ear::listen(app.address());
    late.await_word("\"slow_reads\":2");
}

#[test]
fn the_page_comes_with_a_policy_that_lets_nothing_else_in() {
    let app = app(Vec::new(), |_| {});
    let page = get(app.address(), "/");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'nonce-"), "{policy}");
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    assert!(nonce.len() == 32 && page.body.contains(nonce), "{page:?}");
    assert!(!get(app.address(), "/").body.contains(nonce), "a nonce is for once");
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("vary", "Accept-Language"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
}

#[test]
fn a_process_told_to_end_answers_what_is_under_way_and_says_no_password() {
    let Some(mut redis) = Redis::start(&["--requirepass", "canary-5ecret"]) else { return };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"canary-5ecret\n").unwrap();
    let node = format!("127.0.0.1:{}", redis.port);
    let file = file.path().to_str().unwrap();
    let app = Process::start(&["--redis", &node, "--password-file", file, "--slow", "1"]);
    let at = app.at;
    eventually("the cache is there", || get(at, "/readyz").status == 200);
    let answer = std::thread::spawn(move || get(at, "/data/last"));
    eventually("the read is under way", || metric(at, SLOW_READS) == 1);
    let _ear = Ear::listen(at);
    let _idle = connect(at);
    redis.kill();
    eventually("the cache is away", || get(at, "/readyz").status == 503);
    let (code, said) = app.end();
    assert_eq!(answer.join().unwrap().member("value"), "LAST");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("http://{at}/")) && said.contains("the cache is away"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn a_process_without_its_cache_says_what_helps() {
    let Some(redis) = Redis::start(&["--requirepass", "canary-5ecret"]) else { return };
    let (nobody, locked) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", redis.port));
    for (node, why, cure) in [
        (nobody, "nobody listens there", "hint: until it answers, the database does"),
        (locked, "it asks for a password", "hint: give its password with --password-file"),
    ] {
        let app = Process::start(&["--redis", &node, "--slow", "0.1"]);
        let answer = get(app.at, "/data/key");
        assert_eq!(answer.source(), "database (slow, cache unavailable)");
        let (code, said) = app.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(why) && said.contains(cure), "{said}");
    }
}
