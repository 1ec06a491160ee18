use std::path::Path;

use super::*;
use crate::secret::Secret;
use crate::secrets::Secrets;
use crate::topology::{LAB, Topology};

const MASTER: &str = "redis_version:7.0.15\r\nprocess_id:812\r\nconfig_file:/etc/redis/redis.conf\r\nrole:master\r\nconnected_clients:1\r\nused_memory:1258291\r\nuptime_in_seconds:180\r\nslave0:ip=127.0.0.1,port=6381,state=online,offset=1,lag=9\r\nslave1:ip=127.0.0.1,port=6380,state=online,offset=900,lag=1\r\nmaster_repl_offset:1000\r\ndb0:keys=40,expires=0,avg_ttl=0\r\ndb3:keys=2,expires=0,avg_ttl=0\r\n";
const REPLICA: &str = "redis_version:7.0.15\r\nprocess_id:840\r\nconfig_file:/etc/redis/redis-slave.conf\r\nrole:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:7\r\nslave_repl_offset:960\r\n";

fn lab() -> Vec<Instance> {
    let topology = Topology::parse(LAB, Path::new("/t")).unwrap();
    let secrets = Secrets { password: Some(Secret::new("pw")), ..Secrets::default() };
    Instance::resolve(&topology, &secrets, Runtime::Systemd)
}

fn facts(json: &str) -> Facts {
    serde_json::from_str(json).unwrap()
}

fn set_up() -> Facts {
    facts(
        r#"{"systemd": true,
            "server": {"path": "/usr/bin/redis-server", "version": "7.0.15"},
            "package": {"version": "5:7.0.15-1", "status": "installed"},
            "paths": {"/etc/redis/redis.conf": {"kind": "file", "mode": 416},
                      "/etc/redis/redis-slave.conf": {"kind": "file", "mode": 416}},
            "units": {"redis-server.service": {"load": "loaded", "active": "active", "pid": 812},
                      "redis-server@slave.service": {"load": "loaded", "active": "active", "pid": 840}}}"#,
    )
}

fn heard(text: &str) -> Heard {
    Ok(crate::wire::parse_info(text))
}

/// The nodes of the lab, after INFO from each; an empty root has no logs.
fn nodes(facts: &Facts, heard: [Heard; 2]) -> Vec<Node> {
    let instances = lab();
    let mut nodes = relate(&instances, facts, &heard, &|ip| ip.is_loopback());
    let root = tempfile::tempdir().unwrap();
    diagnose::diagnose(&Host::at(root.path()), &instances, facts, &heard, &mut nodes);
    nodes
}

fn problem(node: &Node) -> (&str, &str) {
    (node.problem.as_deref().unwrap_or("-"), node.cure.as_deref().unwrap_or("-"))
}

#[test]
fn a_healthy_pair_is_told_in_numbers() {
    let nodes = nodes(&set_up(), [heard(MASTER), heard(REPLICA)]);
    let [master, slave] = nodes.as_slice() else { panic!() };
    assert_eq!((problem(master), problem(slave)), (("-", "-"), ("-", "-")));
    assert_eq!((master.role, master.keys, master.clients), (Role::Master, Some(42), Some(0)));
    assert_eq!((slave.role, slave.master.as_deref()), (Role::Replica, Some("master")));
    assert_eq!((slave.link, slave.lag_seconds, slave.lag_bytes), (Some(Link::Up), Some(1), Some(40)));
    assert!(!slave.is_moved());
}

#[test]
fn json_keeps_its_names() {
    let nodes = nodes(&set_up(), [heard(MASTER), Err(Trouble::NoAuth)]);
    let json = serde_json::to_value(&nodes[1]).unwrap();
    let names: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "address clients cure keys lag_bytes lag_seconds link log master memory_bytes name \
                    pid problem role runtime state unit unit_state uptime_seconds version wanted_master wanted_role";
    assert_eq!(names.join(" "), expected);
    assert_eq!((&json["state"], &json["role"]), (&"locked-out".into(), &"unknown".into()));
}

#[test]
fn a_replica_of_another_machine_keeps_its_address() {
    let elsewhere = REPLICA.replace("master_host:127.0.0.1", "master_host:10.0.0.5");
    let nodes = nodes(&set_up(), [heard(MASTER), heard(&elsewhere)]);
    assert_eq!(nodes[1].master.as_deref(), Some("10.0.0.5:6379"));
    assert_eq!((nodes[1].lag_seconds, nodes[1].lag_bytes), (Some(7), None));
    assert!(nodes[1].is_moved());
}

#[test]
fn a_promotion_is_no_problem() {
    let promoted = MASTER.replace("redis.conf", "redis-slave.conf");
    let nodes = nodes(&set_up(), [heard(MASTER), heard(&promoted)]);
    assert!(nodes[1].is_moved() && nodes[1].problem.is_none(), "{:?}", nodes[1]);
}

#[test]
fn each_way_to_be_down_has_its_cure() {
    let down = |edit: fn(&mut Facts)| {
        let mut facts = set_up();
        edit(&mut facts);
        let nodes = nodes(&facts, [heard(MASTER), Err(Trouble::Refused)]);
        let (problem, cure) = problem(&nodes[1]);
        assert_eq!(nodes[1].follows(), Some("master"), "a silent replica lost its place in the tree");
        format!("{problem} | {cure}")
    };
    assert_eq!(
        down(|_| {}),
        "redis-server@slave is active, but nobody listens on 127.0.0.1:6380 | redis-tp service restart slave"
    );
    assert_eq!(
        down(|facts| active(facts, "inactive")),
        "redis-server@slave is stopped | redis-tp service start slave"
    );
    assert_eq!(down(|facts| active(facts, "failed")), "redis-server@slave has failed | redis-tp check");
    assert_eq!(down(|facts| facts.paths.clear()), "it is not set up yet | redis-tp up");
    assert_eq!(
        down(|facts| facts.units.values_mut().for_each(|unit| unit.load = "masked".into())),
        "redis-server@slave.service is masked | systemctl unmask redis-server@slave.service"
    );
}

fn active(facts: &mut Facts, state: &str) {
    facts.units.values_mut().for_each(|unit| unit.active = state.into());
}

#[test]
fn a_link_without_a_master_names_the_masters_cure() {
    let broken = REPLICA.replace("master_link_status:up", "master_link_status:down");
    let mut facts = set_up();
    active(&mut facts, "inactive");
    let nodes = nodes(&facts, [Err(Trouble::Refused), heard(&broken)]);
    let expected = ("no link to master, which does not serve", "redis-tp service start master");
    assert_eq!(problem(&nodes[1]), expected);
}

#[test]
fn a_sync_and_a_load_are_told_as_such() {
    let syncing = REPLICA.replace("status:up", "status:down\r\nmaster_sync_in_progress:1");
    let loading = format!("{MASTER}loading:1\r\nloading_loaded_perc:42.00\r\n");
    let nodes = nodes(&set_up(), [heard(&loading), heard(&syncing)]);
    assert_eq!(problem(&nodes[0]), ("it still reads its data (42.00 %)", "redis-tp status --watch"));
    assert_eq!((nodes[1].link, problem(&nodes[1]).0), (Some(Link::Syncing), "it copies the data of master"));
}

#[test]
fn another_server_on_the_port_is_not_taken_for_ours() {
    let other = MASTER.replace("/etc/redis/redis.conf", "/home/x/redis.conf");
    let nodes = nodes(&set_up(), [heard(&other), heard(REPLICA)]);
    assert_eq!(nodes[0].state, State::Foreign);
    assert!(problem(&nodes[0]).0.contains("was not started from /etc/redis/redis.conf"), "{:?}", nodes[0]);
}

#[test]
fn a_server_that_lets_anybody_in_is_a_problem() {
    let mut facts = set_up();
    let running = r#"{"master": {"pid": 812, "auth": "open", "role": "master"}}"#;
    facts.running = serde_json::from_str(running).unwrap();
    let nodes = nodes(&facts, [heard(MASTER), heard(REPLICA)]);
    assert_eq!(
        problem(&nodes[0]),
        ("it asks for no password, although it has to", "redis-tp apply --overwrite")
    );
}

#[test]
fn a_failed_save_is_a_problem() {
    let unsaved = format!("{MASTER}rdb_last_bgsave_status:err\r\n");
    let nodes = nodes(&set_up(), [heard(&unsaved), heard(REPLICA)]);
    assert_eq!(problem(&nodes[0]), ("it cannot save its data", "redis-tp check"));
}
