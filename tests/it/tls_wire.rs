//! TLS in every conversation with a real server: what is right gets through, and what is wrong is told in words.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use redis_tp::apply::sync;
use redis_tp::engine::Engine;
use redis_tp::host::Host;
use redis_tp::instance::Target;
use redis_tp::runtime::Runtime;
use redis_tp::secret::Secret;
use redis_tp::tls::Tls;
use redis_tp::topology::Name;
use redis_tp::wire::{Address, Trouble, Wire};

use crate::app::lab::{Redis, free_port, program};

mod app;
pub mod authority;

use authority::Authority;

fn ping(host: &str, port: u16, tls: Option<&Tls>) -> Result<Wire, Trouble> {
    let at = Address { tls: tls.cloned(), ..Address::plain(host, port) };
    let mut wire = Wire::open(&Host::at("/"), &at, None)?;
    wire.ping()?;
    Ok(wire)
}

fn said(host: &str, port: u16, tls: Option<&Tls>) -> String {
    ping(host, port, tls).map(drop).map_or_else(|trouble| format!("{trouble:?}"), |()| "PONG".into())
}

fn tls(words: impl Into<String>) -> String {
    format!("{:?}", Trouble::Tls(words.into()))
}

fn untrusted(words: impl Into<String>) -> String {
    format!("{:?}", Trouble::Untrusted(words.into()))
}

#[test]
fn a_server_is_believed_by_its_certificate_and_told_apart_by_what_is_wrong_with_it() {
    let (authority, strange) = (Authority::new(), Authority::new());
    let client = authority.sign("client");
    let wrong_ca =
        format!("its certificate is signed by none that is trusted ({})", authority.ca().display());
    let cases = [
        ("right", authority.sign("right"), "PONG".to_owned()),
        // Who is to renew it must get in.
        ("expired", authority.sign_for("expired", &["127.0.0.1"], 2001), "PONG".into()),
        ("another's name", authority.sign_for("named", &["192.0.2.1", "example.org"], 4000), {
            tls("its certificate is not for 127.0.0.1")
        }),
        ("another's name, and expired", authority.sign_for("old", &["192.0.2.1"], 2001), {
            tls("its certificate is not for 127.0.0.1")
        }),
        // It trusts ours, and is trusted by nobody.
        ("another's signature", Tls { ca: authority.ca(), ..strange.sign("other") }, untrusted(&wrong_ca)),
        (
            "another's signature, and expired",
            { Tls { ca: authority.ca(), ..strange.sign_for("bad", &["127.0.0.1"], 2001) } },
            untrusted(&wrong_ca),
        ),
    ];
    for (case, server, expected) in cases {
        let Some(redis) = Redis::start_tls(&server, &client, &[]) else { return };
        assert_eq!(said("127.0.0.1", redis.port, Some(&client)), expected, "{case}");
    }
}

#[test]
fn who_shows_no_certificate_that_the_server_trusts_is_told_so() {
    let (authority, strange) = (Authority::new(), Authority::new());
    let (server, client) = (authority.sign("server"), authority.sign("client"));
    let foreign = Tls { ca: authority.ca(), ..strange.sign("client") };
    let old = authority.sign_for("old", &[], 2001);
    let swapped = Tls { key: server.key.clone(), ..client.clone() };
    let absent = Tls { cert: "/nowhere/client.crt".into(), ..client.clone() };
    let empty = Tls { ca: authority.file("empty", "crt"), ..client.clone() };
    std::fs::write(&empty.ca, "").unwrap();
    let broken = Tls { key: authority.ca(), ..client.clone() };
    let no_key = format!("{} has no private key in it that can be read", authority.ca().display());
    let (key, cert) = (server.key.display(), client.cert.display());
    let cases = [
        ("right", &client, "PONG".to_owned()),
        ("signed by another", &foreign, untrusted("it takes no certificate of ours")),
        ("expired", &old, tls("it takes no certificate of ours: that has expired")),
        ("another's key", &swapped, tls(format!("{key} is not the key of {cert}"))),
        ("no file", &absent, tls("/nowhere/client.crt is not there")),
        (
            "no authority",
            &empty,
            tls(format!("{} has no certificate in it that can be read", empty.ca.display())),
        ),
        ("no key", &broken, tls(no_key)),
    ];
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let Some(redis) = Redis::start_tls(&server, &client, &["--tls-protocols", protocol]) else { return };
        for (case, client, expected) in &cases {
            assert_eq!(said("127.0.0.1", redis.port, Some(client)), *expected, "{case}, {protocol}");
        }
    }
}

#[test]
fn what_speaks_the_other_language_is_told_at_once() {
    let authority = Authority::new();
    let client = authority.sign("client");
    let Some(plain) = Redis::start(&["--requirepass", "s3cret"]) else { return };
    let Some(secure) = Redis::start_tls(&authority.sign("server"), &client, &[]) else { return };
    // A machine that stands still for a while is not the program's fault.
    let quick = (0..3).any(|_| {
        let began = Instant::now();
        assert_eq!(said("127.0.0.1", plain.port, Some(&client)), tls("it does not speak TLS"));
        assert_eq!(said("127.0.0.1", secure.port, None), tls("it speaks TLS only"));
        began.elapsed() < Wire::TIMEOUT
    });
    assert!(quick, "it waits until the time is up");
    assert_eq!(said("127.0.0.1", free_port(), Some(&client)), format!("{:?}", Trouble::Refused));
}

#[test]
fn a_handshake_that_never_ends_has_an_end() {
    let authority = Authority::new();
    let client = authority.sign("client");
    // The kernel takes the connection, and nobody ever answers.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let began = Instant::now();
    let said = said("127.0.0.1", mute.local_addr().unwrap().port(), Some(&client));
    assert_eq!(said, tls("it did not answer in time that TLS is to be spoken"));
    assert!(began.elapsed() < Wire::TIMEOUT + Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn a_server_that_answers_a_byte_at_a_time_has_no_longer() {
    use std::io::Write as _;
    let authority = Authority::new();
    let client = authority.sign("client");
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = slow.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = slow.accept().unwrap();
        // The head of a long record, and then its bytes.
        let _ = stream.write_all(&[0x16, 3, 3, 0x40, 0]);
        while stream.write_all(&[2]).is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let began = Instant::now();
    assert_eq!(
        said("127.0.0.1", port, Some(&client)),
        tls("it did not answer in time that TLS is to be spoken")
    );
    assert!(began.elapsed() < Wire::TIMEOUT + Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn the_certificate_that_a_server_shows_is_handed_over() {
    let authority = Authority::new();
    let (server, client) = (authority.sign("server"), authority.sign("client"));
    let Some(redis) = Redis::start_tls(&server, &client, &[]) else { return };
    let shown = ping("localhost", redis.port, Some(&client)).unwrap().peer_certificate().unwrap();
    let (_, shown) = x509_parser::parse_x509_certificate(&shown).unwrap();
    assert!(shown.subject().to_string().contains("CN=server"), "{}", shown.subject());
    let Some(plain) = Redis::start(&[]) else { return };
    assert_eq!(ping("127.0.0.1", plain.port, None).unwrap().peer_certificate(), None);
}

#[test]
fn long_answers_and_many_come_over_tls_as_they_come_plainly() {
    let authority = Authority::new();
    let client = authority.sign("client");
    let Some(redis) = Redis::start_tls(&authority.sign("server"), &client, &[]) else { return };
    let mut wire = ping("127.0.0.1", redis.port, Some(&client)).unwrap();
    let long = "x".repeat(1 << 20);
    wire.ask::<()>(&["SET", "long", &long]).unwrap();
    assert!(wire.ask::<String>(&["GET", "long"]).unwrap() == long);
    let config = wire.config().unwrap();
    assert_eq!(config.get("tls-replication").map(String::as_str), Some("yes"));
    let many: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    let words: Vec<&str> = ["RPUSH", "many"].into_iter().chain(many.iter().map(String::as_str)).collect();
    assert_eq!(wire.ask::<usize>(&words), Ok(many.len()));
    assert_eq!(wire.ask::<Vec<String>>(&["LRANGE", "many", "0", "-1"]), Ok(many));
    assert_eq!(
        wire.ask::<()>(&["NONSENSE"]).map_err(|trouble| trouble.to_string().contains("unknown command")),
        Err(true)
    );
}

#[test]
fn all_data_of_a_server_come_over_tls_as_a_replica_gets_them() {
    let authority = Authority::new();
    let client = authority.sign("client");
    for diskless in ["yes", "no"] {
        let args = ["--requirepass", "s3cret", "--repl-diskless-sync", diskless];
        let Some(redis) = Redis::start_tls(&authority.sign("server"), &client, &args) else { return };
        let fill = "for i = 1, 2000 do redis.call('SET', i, string.rep('x' .. i, 1000)) end";
        redis.ask::<()>(&["EVAL", fill, "0"]);
        // It says nothing for longer than who waits for it waits at a time.
        redis.ask::<()>(&["CONFIG", "SET", "repl-diskless-sync-delay", "1"]);
        let target = Target {
            name: Name::parse("master").unwrap(),
            engine: Engine::Redis,
            runtime: Runtime::Process,
            address: Address { tls: Some(client.clone()), ..Address::plain("127.0.0.1", redis.port) },
            password: Some(Secret::new("s3cret")),
            replica: false,
            admin: false,
        };
        let dir = tempfile::tempdir().unwrap();
        let (host, path) = (Host::at("/"), dir.path().join("all.rdb"));
        let mut staged = host.stage(&path, host.own_ids(), 0o600).unwrap();
        sync::write(&host, &target, &mut staged).unwrap();
        staged.finish_new().unwrap();
        let check = Command::new(program().unwrap()).arg0("redis-check-rdb").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&check.stdout);
        assert!(said.contains("2000 keys read") && said.contains("RDB looks OK"), "{diskless}: {said}");
    }
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_question() {
    let authority = Authority::new();
    let client = authority.sign("client");
    let Some(plain) = Redis::start(&[]) else { return };
    let Some(secure) = Redis::start_tls(&authority.sign("server"), &client, &[]) else { return };
    for (redis, tls) in [(&plain, None), (&secure, Some(&client))] {
        let mut wire = ping("127.0.0.1", redis.port, tls).unwrap();
        let late = wire.ask::<Option<String>>(&["BLPOP", "queue", "0"]);
        assert_eq!(late, Err(Trouble::Other("it did not answer in time".into())));
        redis.ask::<()>(&["RPUSH", "queue", "late"]);
        assert_eq!(wire.ping(), Ok(()), "{tls:?}");
    }
}
