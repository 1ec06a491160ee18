//! The web app and its servers, over TLS.

use std::sync::Arc;

use redis_tp::app::{Node, Running, Settings};
use redis_tp::host::Host;
use redis_tp::tls::Tls;
use redis_tp::topology::ReadFrom;

use super::authority::Authority;
use crate::app::lab::{Ear, Redis, app, eventually, get};

const AWAY: &str = "database (slow, cache unavailable)";

/// The server as an app is told of it that has this certificate.
fn node(redis: &Redis, client: &Tls) -> Node {
    Node { tls: Some(Arc::new(Host::at("/").identity(client).unwrap())), ..redis.node("master") }
}

/// What the page is told of a server.
fn served(app: &Running, name: &str) -> serde_json::Value {
    let mut ear = Ear::listen(app.address());
    let heard = ear.await_word("\n\n").split_once("event: status").unwrap().1;
    let data = heard.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let status: serde_json::Value = serde_json::from_str(data).unwrap();
    status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).cloned().unwrap_or_default()
}

#[test]
fn a_value_comes_from_the_cache_over_tls_and_a_replica_is_found_and_takes_over() {
    let authority = Authority::new();
    let client = authority.sign("client");
    let args = ["--requirepass", "s3cret"];
    let Some(mut master) = Redis::start_tls(&authority.sign("server"), &client, &args) else { return };
    let replica = master.replica();
    // As a service reads it.
    let node = node(&master, &client);
    let settings = Settings { section: Default::default(), nodes: vec![node.clone()] };
    assert_eq!(Settings::parse(settings.text().expose()), Ok(settings));
    let app = app(vec![node], |section| section.read_from = ReadFrom::Replica);
    let other = format!("127.0.0.1:{}", replica.port);
    eventually("the replica is found and read", || served(&app, &other)["serves"] == true);
    assert_eq!(get(app.address(), "/data/bonjour").source(), "database (slow)");
    eventually("the replica has it", || replica.ask::<i64>(&["EXISTS", "bonjour"]) == 1);
    assert_eq!(get(app.address(), "/data/bonjour").source(), "cache");

    master.kill();
    replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    eventually("the replica is the master", || served(&app, &other)["role"] == "master");
    assert_eq!(get(app.address(), "/data/salut").source(), "database (slow)");
    assert_eq!(replica.ask::<String>(&["GET", "salut"]), "SALUT");
    master.start_again();
    eventually("the former one is back", || served(&app, "master")["state"] == "up");
}

#[test]
fn a_server_whose_tls_is_wrong_is_no_cache_and_is_told_why() {
    let (authority, strange) = (Authority::new(), Authority::new());
    let (server, client) = (authority.sign("server"), authority.sign("client"));
    let foreign = Tls { ca: authority.ca(), ..strange.sign("client") };
    let swapped = Tls { key: server.key.clone(), ..client.clone() };
    let signed = "its certificate is signed by none that is trusted";
    let cases = [
        ("another's name", authority.sign_for("named", &["192.0.2.1"], 4000), &client, {
            "its certificate is not for 127.0.0.1"
        }),
        // Nobody but root is to renew it.
        ("expired", authority.sign_for("old", &["127.0.0.1"], 2001), &client, "its certificate has expired"),
        ("another's signature", Tls { ca: authority.ca(), ..strange.sign("other") }, &client, signed),
        ("a foreign certificate of ours", server.clone(), &foreign, "it takes no certificate of ours"),
        ("a foreign key of ours", server.clone(), &swapped, {
            "the private key that it was given is not that of its certificate"
        }),
    ];
    for (case, server, client, reason) in cases {
        let Some(redis) = Redis::start_tls(&server, client, &[]) else { return };
        tells(case, node(&redis, client), reason);
    }
}

#[test]
fn a_server_that_speaks_the_other_language_is_no_cache_and_is_told_so() {
    let authority = Authority::new();
    let client = authority.sign("client");
    let Some(plain) = Redis::start(&[]) else { return };
    let Some(secure) = Redis::start_tls(&authority.sign("server"), &client, &[]) else { return };
    tells("a plain server", node(&plain, &client), "it does not speak TLS");
    tells("a server of TLS", secure.node("master"), "it speaks TLS only");
}

fn tells(case: &str, node: Node, reason: &str) {
    let app = app(vec![node], |_| {});
    eventually(case, || {
        let node = served(&app, "master");
        node["state"] == "untrusted" && node["reason"] == reason
    });
    assert_eq!(get(app.address(), "/data/bonjour").source(), AWAY, "{case}");
    let ready = get(app.address(), "/readyz");
    assert!(ready.status == 503 && ready.body.contains(reason), "{case}: {ready:?}");
}
