//! The Redis servers as they were last seen, and what follows from that: which one is the master, which
//! ones are read, and what has to be told when it changes. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use serde::Serialize;

use super::batch::Reads;
use super::events::Notice;
use super::settings::Node;
use crate::facts::{self, Follower, Link, parse};
use crate::topology::ReadFrom;
use crate::wire::parse_info;

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In time.
    Up,
    /// Not at all.
    Down,
    /// It does not take the password.
    Refused,
    /// It and the app do not come to speak TLS, or it speaks nothing else.
    Untrusted,
    /// It is still reading its data.
    Loading,
    /// Not in time.
    Slow,
}

impl State {
    /// Whether it lasts until somebody does something about it.
    pub fn is_lasting(self) -> bool {
        matches!(self, Self::Refused | Self::Untrusted)
    }
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It takes writes.
    Master,
    /// It follows another.
    Replica,
}

/// What a server tells of itself in INFO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Changes with every start.
    pub run_id: String,
    /// None where it would not say.
    pub role: Option<Role>,
    /// Whom it follows.
    pub master: Option<(String, u16)>,
    link: Option<Link>,
    offset: u64,
    /// Who follows it.
    pub followers: Vec<Follower>,
    keys: u64,
    memory: u64,
    /// It is still reading its data.
    pub loading: bool,
}

impl Told {
    /// Reads INFO.
    pub fn parse(text: &str) -> Self {
        let info = parse_info(text);
        let field = |name: &str| info.get(name).map_or("", String::as_str);
        let number = |name: &str| field(name).parse().unwrap_or(0);
        let role = parse::role(&info);
        let link = role.link(field("master_sync_in_progress") == "1");
        let (role, master) = match role {
            facts::Role::Master => (Some(Role::Master), None),
            facts::Role::Replica { host, port, .. } => (Some(Role::Replica), Some((host, port))),
            facts::Role::Unknown => (None, None),
        };
        let keys = field("db0").strip_prefix("keys=").and_then(|rest| rest.split(',').next());
        Self {
            run_id: field("run_id").to_owned(),
            role,
            master,
            link,
            offset: number("master_repl_offset"),
            followers: parse::followers(&info).collect(),
            keys: keys.and_then(|keys| keys.parse().ok()).unwrap_or(0),
            memory: number("used_memory"),
            loading: field("loading") == "1",
        }
    }
}

/// A connection to a server that is in service.
#[derive(Debug)]
pub struct Wired {
    /// The server.
    pub id: usize,
    /// Which of the connections to it this one is.
    pub generation: u64,
    /// The connection, which all share.
    pub connection: MultiplexedConnection,
    /// The reads over it.
    pub reads: Reads,
}

/// A server as it was last seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// A number that no other server gets.
    pub id: usize,
    /// What it is called, where it is, what it wants to hear.
    pub node: Node,
    /// The settings name it; else it was found by asking the others.
    pub given: bool,
    /// The address that its name stands for.
    pub peer: Option<SocketAddr>,
    /// Where others say that it is, too.
    pub aliases: Vec<(String, u16)>,
    /// It has been asked at least once.
    pub asked: bool,
    /// How it answers.
    pub state: State,
    /// Why it does not.
    pub reason: Option<String>,
    /// What it told last.
    pub told: Told,
    /// The connection to it, while it is in service.
    pub wired: Option<Arc<Wired>>,
}

impl Seen {
    /// A server that was not asked yet.
    pub fn new(id: usize, node: Node, given: bool) -> Self {
        Self {
            id,
            node,
            given,
            peer: None,
            aliases: Vec::new(),
            asked: false,
            state: State::Down,
            reason: Some("it was not asked yet".into()),
            told: Told::default(),
            wired: None,
        }
    }

    /// Whether this is where it is.
    pub fn is_at(&self, host: &str, port: u16) -> bool {
        let address = &self.node.address;
        let peer = || host.parse::<IpAddr>().is_ok_and(|ip| self.peer == Some(SocketAddr::new(ip, port)));
        let alias = || self.aliases.iter().any(|(alias, at)| alias == host && *at == port);
        address.port == port && address.host == host || peer() || alias()
    }

    fn is_master(&self) -> bool {
        self.state == State::Up && self.told.role == Some(Role::Master)
    }

    fn is_linked(&self) -> bool {
        self.state == State::Up && self.told.link == Some(Link::Up)
    }

    /// Name and address.
    fn full_name(&self) -> String {
        let address = self.node.address.to_string();
        if self.node.name == address { address } else { format!("{} ({address})", self.node.name) }
    }
}

/// All servers as they were last seen.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The servers, in the order in which they became known.
    pub nodes: Vec<Seen>,
    /// The master, while there is one.
    pub master: Option<usize>,
    /// The last master that there was.
    pub last: Option<usize>,
    /// The servers to read from, in turn.
    readers: Vec<usize>,
}

/// A server, as `status` tells of it.
#[derive(Debug, Serialize)]
pub struct NodeStatus<'a> {
    name: &'a str,
    address: String,
    state: State,
    reason: Option<&'a str>,
    role: Option<Role>,
    master: Option<String>,
    link: Option<Link>,
    lag_seconds: Option<u64>,
    lag_bytes: Option<u64>,
    keys: u64,
    memory_bytes: u64,
    serves: bool,
}

impl View {
    /// What follows from what was seen. Of two that claim to be the master, it is the one with more
    /// replicas, then the one that was it until now, then the one that the settings name first.
    pub fn of(nodes: Vec<Seen>, read_from: ReadFrom, last: Option<usize>) -> Self {
        let masters = nodes.iter().rev().filter(|node| node.is_master());
        let master = masters.max_by_key(|node| (node.told.followers.len(), last == Some(node.id)));
        let master = master.map(|node| node.id);
        let linked = |node: &&Seen| node.is_linked();
        let mut readers: Vec<usize> = match read_from {
            ReadFrom::Master => Vec::new(),
            ReadFrom::Replica | ReadFrom::Any => nodes.iter().filter(linked).map(|node| node.id).collect(),
        };
        if readers.is_empty() || read_from == ReadFrom::Any {
            readers.extend(master);
        }
        Self { nodes, master, last: master.or(last), readers }
    }

    /// The last master that there was; none until all servers of the settings were asked, for until then it is
    /// only the one that answered first.
    pub fn incumbent(&self) -> Option<usize> {
        self.last.filter(|_| self.nodes.iter().all(|node| node.asked || !node.given))
    }

    /// A server by its number.
    pub fn node(&self, id: usize) -> Option<&Seen> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The connection to write to.
    pub fn writer(&self) -> Option<&Arc<Wired>> {
        self.node(self.master?)?.wired.as_ref()
    }

    /// The connection to read from, this being the so-maniest read.
    pub fn reader(&self, turn: usize) -> Option<&Arc<Wired>> {
        let id = *self.readers.get(turn.checked_rem(self.readers.len())?)?;
        self.node(id)?.wired.as_ref()
    }

    /// Why there is no master; none when there is one.
    pub fn lack(&self) -> Option<String> {
        if self.master.is_some() {
            return None;
        }
        Some(match self.main() {
            Some(node) => match &node.reason {
                Some(reason) => format!("{}: {reason}", node.full_name()),
                None => format!("{} is no master", node.full_name()),
            },
            None => "no Redis server is known".into(),
        })
    }

    /// What helps where there is no master to begin with; none when there is one.
    pub fn cure(&self) -> Option<&'static str> {
        if self.master.is_some() {
            return None;
        }
        // One that answers and is no master leads to its own.
        let main = self.main().filter(|main| main.state != State::Up)?;
        // A server without a name was given on the command line.
        let by_hand = main.node.name == main.node.address.to_string();
        Some(match (main.state, by_hand) {
            (State::Refused, true) => {
                "give its password with --password-file; until then, the database answers"
            }
            (State::Refused, false) => {
                "until it takes the password, the database answers; see:\nredis-tp apply"
            }
            (State::Untrusted, true) => {
                "a server that is given by hand is spoken to without TLS; until it answers, the database does"
            }
            (State::Untrusted, false) => {
                "until TLS with it is right, the database answers; see:\nredis-tp verify"
            }
            (_, true) => "until it answers, the database does",
            (_, false) => "until it answers, the database does; see:\nredis-tp status",
        })
    }

    /// The server without which there is no cache: the master, or the last one that there was, or the one
    /// that the settings name first.
    fn main(&self) -> Option<&Seen> {
        match self.master.or(self.last) {
            Some(id) => self.node(id),
            None => self.nodes.first(),
        }
    }

    /// The servers, as `status` tells of them.
    pub fn status(&self) -> Vec<NodeStatus<'_>> {
        self.nodes.iter().map(|node| self.status_of(node)).collect()
    }

    fn status_of<'a>(&'a self, node: &'a Seen) -> NodeStatus<'a> {
        let up = node.state == State::Up;
        let told = &node.told;
        let above = told.master.as_ref().filter(|_| up);
        let upstream =
            above.and_then(|(host, port)| self.nodes.iter().find(|other| other.is_at(host, *port)));
        let line = upstream.filter(|at| at.state == State::Up).and_then(|at| {
            Some((at, at.told.followers.iter().find(|line| node.is_at(&line.at.0, line.at.1))?))
        });
        let name = above.map(|(host, port)| match upstream {
            Some(upstream) => upstream.node.name.clone(),
            None => crate::wire::Address::plain(host, *port).to_string(),
        });
        NodeStatus {
            name: &node.node.name,
            address: node.node.address.to_string(),
            state: node.state,
            reason: node.reason.as_deref(),
            role: told.role.filter(|_| up),
            master: name,
            link: told.link.filter(|_| up),
            lag_seconds: line.and_then(|(_, line)| line.lag),
            lag_bytes: line.map(|(at, line)| at.told.offset.saturating_sub(line.offset)),
            keys: told.keys,
            memory_bytes: told.memory,
            serves: up && self.readers.contains(&node.id),
        }
    }

    /// Whether the page should hear of it at once.
    pub fn differs(&self, before: &Self) -> bool {
        let key = |view: &Self| -> Vec<_> {
            view.nodes.iter().map(|node| (node.id, node.state, node.told.role, node.told.link)).collect()
        };
        self.master != before.master || self.readers != before.readers || key(self) != key(before)
    }

    /// What has to be told of the way from one view to the next.
    pub fn news(&self, before: &Self) -> Vec<Notice> {
        let mut news: Vec<Notice> = self.nodes.iter().filter_map(|node| self.news_of(node, before)).collect();
        if let (Some(now), Some(then)) = (self.master, before.incumbent())
            && now != then
        {
            let name = |id| self.node(id).map_or_else(String::new, Seen::full_name);
            if let Some(node) = self.node(now) {
                let text = format!("the master is {} now, and no longer {}", name(now), name(then));
                news.push(Notice { level: "warn", what: "master-moved", node: node.node.name.clone(), text });
            }
        }
        news
    }

    fn news_of(&self, node: &Seen, before: &Self) -> Option<Notice> {
        let then = before.node(node.id)?;
        let (is, was) = (node.state == State::Up, then.state == State::Up);
        let worse =
            node.asked && !is && (was || !then.asked || node.state.is_lasting() && node.state != then.state);
        let better = is && !was && then.asked;
        let reason = node.reason.as_deref().unwrap_or("it does not answer");
        let main = before.main().is_some_and(|main| main.id == node.id);
        let (level, what, text) = match (worse, better) {
            (true, _) if main => {
                ("warn", "master-away", format!("the cache is away, {}: {reason}", node.full_name()))
            }
            (true, _) => ("warn", "node-down", format!("{} is away: {reason}", node.full_name())),
            (_, true) if self.master == Some(node.id) && main => {
                ("info", "master-back", format!("the cache is back, {}", node.full_name()))
            }
            (_, true) => ("info", "node-up", format!("{} is back", node.full_name())),
            _ => return None,
        };
        Some(Notice { level, what, node: node.node.name.clone(), text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Address;

    fn seen(id: usize, told: &str) -> Seen {
        let address = Address::plain("127.0.0.1", 7000 + id as u16);
        let mut seen = Seen::new(id, Node { name: format!("n{id}"), ..Node::at(address, None) }, true);
        seen.told = Told::parse(told);
        (seen.state, seen.reason, seen.asked) = (State::Up, None, true);
        seen
    }

    const MASTER: &str = "role:master\r\nmaster_repl_offset:100\r\ndb0:keys=4,expires=4,avg_ttl=9\r\n";
    const REPLICA: &str =
        "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:7000\r\nmaster_link_status:up\r\n";

    fn with_line() -> String {
        format!("{MASTER}slave0:ip=127.0.0.1,port=7001,state=online,offset=90,lag=1\r\n")
    }

    #[test]
    fn lag_and_link_are_those_of_the_line_between_the_two() {
        let view = View::of(vec![seen(0, &with_line()), seen(1, REPLICA)], ReadFrom::Replica, Some(0));
        let status = serde_json::to_value(view.status()).unwrap();
        assert_eq!(status[1]["master"], "n0");
        assert_eq!((&status[1]["lag_bytes"], &status[1]["lag_seconds"]), (&10.into(), &1.into()));
        assert_eq!((&status[0]["serves"], &status[1]["serves"]), (&false.into(), &true.into()));
        assert_eq!((&status[0]["keys"], &status[0]["link"]), (&4.into(), &serde_json::Value::Null));
    }

    #[test]
    fn of_two_masters_it_is_the_one_that_is_followed_then_the_one_that_was() {
        let of = |nodes, last| View::of(nodes, ReadFrom::Master, last).master;
        assert_eq!(of(vec![seen(0, MASTER), seen(1, &with_line())], Some(0)), Some(1));
        assert_eq!(of(vec![seen(0, MASTER), seen(1, MASTER)], Some(1)), Some(1));
        assert_eq!(of(vec![seen(0, MASTER), seen(1, MASTER)], None), Some(0));
        assert_eq!(of(vec![seen(0, REPLICA), seen(1, MASTER)], Some(0)), Some(1));
        assert_eq!(of(vec![seen(0, REPLICA)], Some(0)), None);
    }

    #[test]
    fn of_two_masters_the_one_that_answers_first_is_none_before_the_other_was_asked() {
        let mut late = seen(0, MASTER);
        (late.asked, late.state) = (false, State::Down);
        let first = View::of(vec![late, seen(1, MASTER)], ReadFrom::Master, None);
        assert_eq!((first.master, first.incumbent()), (Some(1), None));
        let both = View::of(vec![seen(0, MASTER), seen(1, MASTER)], ReadFrom::Master, first.incumbent());
        assert_eq!((both.master, both.incumbent()), (Some(0), Some(0)));
        assert!(both.news(&first).iter().all(|notice| notice.what != "master-moved"));
    }

    #[test]
    fn a_replica_without_a_link_is_not_read() {
        let broken = REPLICA.replace("status:up", "status:down");
        for (read_from, replica, readers) in [
            (ReadFrom::Master, REPLICA, vec![0]),
            (ReadFrom::Replica, REPLICA, vec![1]),
            (ReadFrom::Replica, &broken, vec![0]),
            (ReadFrom::Any, REPLICA, vec![1, 0]),
            (ReadFrom::Any, &broken, vec![0]),
        ] {
            let view = View::of(vec![seen(0, MASTER), seen(1, replica)], read_from, Some(0));
            assert_eq!(view.readers, readers, "{read_from:?} {replica}");
        }
    }

    #[test]
    fn what_is_of_no_use_is_not_advised() {
        let cure = |state, by_hand: bool| {
            let mut master = seen(0, MASTER);
            (master.state, master.reason) = (state, Some("why".into()));
            if by_hand {
                master.node.name = master.node.address.to_string();
            }
            View::of(vec![master], ReadFrom::Master, None).cure().unwrap()
        };
        assert!(cure(State::Refused, true).contains("--password-file"));
        assert!(cure(State::Refused, false).contains("redis-tp apply"));
        assert!(cure(State::Untrusted, true).contains("without TLS"));
        assert!(cure(State::Untrusted, false).contains("redis-tp verify"));
        for (state, by_hand) in [(State::Untrusted, true), (State::Untrusted, false), (State::Down, false)] {
            assert!(!cure(state, by_hand).contains("password"), "{state:?}");
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let view = |nodes, last| View::of(nodes, ReadFrom::Master, last);
        let both = view(vec![seen(0, MASTER), seen(1, REPLICA)], Some(0));
        let mut gone = seen(0, MASTER);
        (gone.state, gone.reason) = (State::Down, Some("nobody listens there".into()));
        let away = view(vec![gone.clone(), seen(1, REPLICA)], both.last);
        let moved = view(vec![gone, seen(1, MASTER)], away.last);
        let back = view(vec![seen(0, REPLICA), seen(1, MASTER)], moved.last);
        let what = |to: &View, from: &View| -> Vec<_> { to.news(from).iter().map(|at| at.what).collect() };
        assert_eq!(what(&away, &both), ["master-away"]);
        assert_eq!(what(&away, &away), Vec::<&str>::new());
        assert_eq!(what(&moved, &away), ["master-moved"]);
        assert_eq!(what(&back, &moved), ["node-up"]);
        assert_eq!(what(&both, &away), ["master-back"]);
        assert_eq!(away.lack().unwrap(), "n0 (127.0.0.1:7000): nobody listens there");
    }
}
