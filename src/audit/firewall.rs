//! Whether a port is filtered, by what nft(8) or iptables(8) tell. Pure.
//!
//! A stranger's first packet to the port is sent through the chains: who he is and by which interface he comes is not
//! known. What a rule means that is not understood is no wall, and no hole either.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The chains of a packet filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// By table and name.
    chains: BTreeMap<String, Vec<String>>,
    /// Those that what comes in is sent through.
    begin: Vec<Begin>,
}

/// A chain that the kernel itself sends packets to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Begin {
    chain: String,
    family: Family,
    /// It drops what no rule of it decides.
    drops: bool,
}

/// What of IP a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Both,
}

/// What becomes of strangers at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Everybody gets through.
    Open,
    /// Who is not named does not.
    Filtered,
    /// That depends on a rule that is not understood.
    Unclear(String),
}

impl Rules {
    /// Reads `nft list ruleset`.
    pub fn of_nft(text: &str) -> Self {
        let mut rules = Self::default();
        let (mut table, mut family, mut chain) = (String::new(), None, None);
        let sets = sets(text);
        for line in text.lines().map(bare) {
            let line = line.as_str();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["table", of, ..] => {
                    table = line.trim_end_matches('{').trim().to_owned();
                    family = Family::of(of);
                }
                ["chain", name, ..] => {
                    let name = format!("{table}/{name}");
                    rules.chains.entry(name.clone()).or_default();
                    chain = Some(name);
                }
                ["}"] => chain = None,
                // Nothing is sent through what sleeps.
                ["flags", ..] if chain.is_none() && line.contains("dormant") => family = None,
                ["type", ..] if chain.is_some() => {
                    let comes_in = line.contains("hook input") || line.contains("hook prerouting");
                    if let (Some(chain), Some(family), true) = (&chain, family, comes_in) {
                        let drops = line.contains("policy drop");
                        rules.begin.push(Begin { chain: chain.clone(), family, drops });
                    }
                }
                [] | ["policy", ..] => {}
                _ => {
                    if let Some(chain) = &chain {
                        let rule = with_sets(line, &table, &sets);
                        rules.chains.entry(chain.clone()).or_default().push(rule);
                    }
                }
            }
        }
        rules
    }

    /// Reads `iptables -S`, and `ip6tables -S` where that is here, too.
    pub fn of_iptables(v4: &str, v6: Option<&str>) -> Self {
        let mut rules = Self::default();
        for (text, family, table) in [(Some(v4), Family::V4, "ip"), (v6, Family::V6, "ip6")] {
            let Some(text) = text else { continue };
            rules.chains.insert(format!("{table}/INPUT"), Vec::new());
            let mut begin = Begin { chain: format!("{table}/INPUT"), family, drops: false };
            for line in text.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                match words.as_slice() {
                    ["-P", "INPUT", policy] => begin.drops = *policy == "DROP",
                    ["-N", chain] => drop(rules.chains.entry(format!("{table}/{chain}")).or_default()),
                    ["-A", chain, rule @ ..] => {
                        rules.chains.entry(format!("{table}/{chain}")).or_default().push(as_nft(rule));
                    }
                    _ => {}
                }
            }
            rules.begin.push(begin);
        }
        rules
    }

    /// Whether strangers get through to a port of an own address.
    pub fn passage(&self, at: IpAddr, port: u16) -> Passage {
        let sees =
            |begin: &&Begin| begin.family == Family::Both || (begin.family == Family::V6) == at.is_ipv6();
        let packet = Packet { v6: at.is_ipv6(), port };
        let mut unclear = None;
        for begin in self.begin.iter().filter(sees) {
            let Fates { accepted, dropped, onward } = self.fates(&begin.chain, packet, 0);
            let (accepted, dropped) = match begin.drops {
                true => (accepted, dropped.or(onward)),
                false => (accepted.or(onward), dropped),
            };
            match (accepted, dropped) {
                (None, _) => return Passage::Filtered,
                (Some(_), None) => {}
                (Some(accepted), Some(dropped)) => {
                    let doubt = if begin.drops { accepted.or(dropped) } else { dropped.or(accepted) };
                    unclear = unclear.or(doubt);
                }
            }
        }
        unclear.map_or(Passage::Open, Passage::Unclear)
    }

    /// What may become of a packet in a chain.
    fn fates(&self, chain: &str, packet: Packet, depth: usize) -> Fates {
        let Some(rules) = self.chains.get(chain).filter(|_| depth < DEEPEST) else {
            return Fates::any(&format!("jump {}", chain.rsplit('/').next().unwrap_or(chain)));
        };
        let table = chain.rsplit_once('/').map_or("", |(table, _)| table);
        let mut all = Fates::default();
        // By what it came to this rule.
        let mut here: Doubt = None;
        for rule in rules {
            let (matches, verdict) = read(rule, packet);
            let (of, ends) = match verdict {
                _ if matches!(matches, Matches::Nobody | Matches::Some) => continue,
                Verdict::None => continue,
                Verdict::Accept => (Fates { accepted: Some(None), ..Fates::default() }, true),
                Verdict::Drop => (Fates { dropped: Some(None), ..Fates::default() }, true),
                Verdict::Return => (Fates { onward: Some(None), ..Fates::default() }, true),
                Verdict::Jump(to) => (self.fates(&format!("{table}/{to}"), packet, depth + 1), false),
                Verdict::Goto(to) => (self.fates(&format!("{table}/{to}"), packet, depth + 1), true),
                Verdict::Unknown => (Fates::any(rule), false),
            };
            let unclear = matches == Matches::Unclear;
            let of = of.after(if unclear { Some(rule.clone()) } else { here.clone() });
            all.accepted = all.accepted.or(of.accepted);
            all.dropped = all.dropped.or(of.dropped);
            // What returns early meets no later wall, and no later hole.
            let further = match ends {
                true => {
                    all.onward = all.onward.or(of.onward);
                    None
                }
                false => of.onward,
            };
            // Whom it may not be about goes on as he came.
            if !unclear {
                let Some(doubt) = further else { return all };
                here = doubt;
            }
        }
        all.onward = all.onward.or(Some(here));
        all
    }
}

/// How deep chains call each other; the kernel allows 16.
const DEEPEST: usize = 16;

/// A stranger's first packet.
#[derive(Clone, Copy, Debug)]
struct Packet {
    v6: bool,
    port: u16,
}

/// The rule, not understood, by which something may become of a packet; none where that is sure.
type Doubt = Option<String>;

/// All that may become of a packet in a chain.
#[derive(Default)]
struct Fates {
    accepted: Option<Doubt>,
    dropped: Option<Doubt>,
    /// No rule decides.
    onward: Option<Doubt>,
}

impl Fates {
    /// Whatever a rule may do that is not understood.
    fn any(rule: &str) -> Self {
        let doubt = || Some(Some(rule.to_owned()));
        Self { accepted: doubt(), dropped: doubt(), onward: doubt() }
    }

    /// What becomes of those who came there in doubt.
    fn after(self, doubt: Doubt) -> Self {
        let after = |fate: Option<Doubt>| fate.map(|own| doubt.clone().or(own));
        Self { accepted: after(self.accepted), dropped: after(self.dropped), onward: after(self.onward) }
    }
}

/// Whom a rule is about, of strangers who come to the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matches {
    Everybody,
    /// Those from some addresses.
    Some,
    Nobody,
    Unclear,
}

/// What a rule says about them.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    None,
    Accept,
    Drop,
    Return,
    Jump(&'a str),
    Goto(&'a str),
    Unknown,
}

/// Reads a rule in nft's words.
fn read(rule: &str, packet: Packet) -> (Matches, Verdict<'_>) {
    let mut words = Words { words: rule.split_whitespace().collect(), at: 0 };
    let mut matches = Matches::Everybody;
    while let Some(word) = words.next() {
        let matched = match word {
            "accept" => return (matches, Verdict::Accept),
            "drop" | "reject" => return (matches, Verdict::Drop),
            "return" => return (matches, Verdict::Return),
            "jump" => return (matches, words.next().map_or(Verdict::Unknown, Verdict::Jump)),
            "goto" => return (matches, words.next().map_or(Verdict::Unknown, Verdict::Goto)),
            "queue" | "dnat" | "redirect" | "tproxy" => return (matches, Verdict::Unknown),
            "snat" | "masquerade" | "notrack" => return (matches, Verdict::None),
            "counter" | "log" | "meta" | "packets" | "bytes" | "continue" => continue,
            "prefix" | "group" | "level" | "name" | "snaplen" => {
                words.next();
                continue;
            }
            "vmap" | "map" => return (Matches::Unclear, Verdict::Unknown),
            "iif" | "iifname" | "saddr" if words.peek() == Some("vmap") => continue,
            "iif" | "iifname" => interface(&mut words),
            "l4proto" | "nexthdr" => of_set(&mut words, |word| ["tcp", "6"].contains(&word)),
            // Of IP, or of the frame that has it.
            "protocol" => {
                let own = if packet.v6 { "ip6" } else { "ip" };
                of_set(&mut words, |word| ["tcp", "6", own].contains(&word))
            }
            "nfproto" => of_set(&mut words, |word| (word == "ipv6") == packet.v6),
            "ip" | "ip6" if (word == "ip6") != packet.v6 => Matches::Nobody,
            "ip" | "ip6" => continue,
            "saddr" => source(&mut words),
            "tcp" | "th" => continue,
            "dport" if words.peek() == Some("vmap") => return mapped(&mut words, matches, packet),
            "dport" => of_set(&mut words, |word| within(word, packet.port)),
            "ct" if words.peek() == Some("state") => {
                words.next();
                match words.peek() {
                    Some("vmap") => return mapped(&mut words, matches, packet),
                    _ => of_set(&mut words, |word| word == "new"),
                }
            }
            // Nothing has become yet of a first packet, and one to an own port was not sent elsewhere.
            "ct" if words.peek() == Some("status") => {
                words.next();
                of_set(&mut words, |_| false)
            }
            "fib" => route(&mut words),
            "udp" | "udplite" | "icmp" | "icmpv6" | "sctp" | "dccp" | "esp" | "ah" | "arp" => Matches::Nobody,
            // What is put into a set is no condition.
            "{" => {
                while words.next().is_some_and(|word| word != "}") {}
                Matches::Unclear
            }
            word if word.parse::<u64>().is_ok() => continue,
            _ => Matches::Unclear,
        };
        matches = match (matches, matched) {
            (Matches::Nobody, _) | (_, Matches::Nobody) => Matches::Nobody,
            (Matches::Some, _) | (_, Matches::Some) => Matches::Some,
            (Matches::Unclear, _) | (_, Matches::Unclear) => Matches::Unclear,
            _ => Matches::Everybody,
        };
    }
    (matches, Verdict::None)
}

/// The words of a rule.
struct Words<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.at += 1;
        Some(word)
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    /// What follows a key: whether it is to be none of them, and which; none where a set has a name alone, or more
    /// decides than the key.
    fn values(&mut self) -> Option<(bool, Vec<&'a str>)> {
        // One key of several, or what a map says of it.
        if self.peek().is_some_and(|word| [".", "vmap", "map"].contains(&word)) {
            return None;
        }
        let not = self.peek() == Some("!=");
        let plain = not || self.peek() == Some("==");
        self.at += usize::from(plain);
        let first = self.next()?;
        if first.starts_with(['@', '<', '>', '&', '|']) {
            return None;
        }
        if first != "{" {
            let mut all: Vec<&str> = first.split(',').collect();
            while self.peek() == Some(",") {
                self.next();
                all.extend(self.next());
            }
            return Some((not, all));
        }
        let mut all = Vec::new();
        while let Some(word) = self.next().filter(|word| *word != "}") {
            all.extend(word.split(',').filter(|word| !word.is_empty()));
        }
        Some((not, all))
    }
}

fn of_set(words: &mut Words<'_>, is: impl Fn(&str) -> bool) -> Matches {
    match words.values() {
        None => Matches::Unclear,
        Some((not, all)) if all.iter().any(|word| *word == "*" || is(word)) != not => Matches::Everybody,
        Some(_) => Matches::Nobody,
    }
}

/// By which interface strangers come is not known, but not by loopback.
fn interface(words: &mut Words<'_>) -> Matches {
    match words.values() {
        Some((not, all)) if all.iter().all(|name| *name == "lo") => {
            if not {
                Matches::Everybody
            } else {
                Matches::Nobody
            }
        }
        _ => Matches::Unclear,
    }
}

/// What the kernel's routes say of a packet: it is for this machine, and there is a way back to where it is from.
fn route(words: &mut Words<'_>) -> Matches {
    let of = words.next();
    while words.peek() == Some(".") {
        words.at += 2;
    }
    match (of, words.next()) {
        (Some("daddr"), Some("type")) => of_set(words, |word| word == "local"),
        (Some("saddr"), Some("oif" | "oifname" | "check")) => match words.peek() {
            Some("missing" | "0") => {
                words.next();
                Matches::Nobody
            }
            _ => Matches::Unclear,
        },
        _ => Matches::Unclear,
    }
}

/// Who strangers are is not known, but more than a few addresses.
fn source(words: &mut Words<'_>) -> Matches {
    let everybody = |word: &&str| word.ends_with("/0") || *word == "*";
    match words.values() {
        None => Matches::Unclear,
        Some((not, all)) if all.iter().any(everybody) => {
            if not {
                Matches::Nobody
            } else {
                Matches::Everybody
            }
        }
        Some((true, _)) => Matches::Everybody,
        Some((false, all)) if all.is_empty() => Matches::Nobody,
        Some((false, _)) => Matches::Some,
    }
}

/// What a map says of the port, or of a first packet.
fn mapped<'a>(words: &mut Words<'a>, matches: Matches, packet: Packet) -> (Matches, Verdict<'a>) {
    words.next();
    if words.next() != Some("{") {
        return (matches, Verdict::Unknown);
    }
    let rest = words.words.get(words.at..).unwrap_or_default();
    let inside: Vec<&str> = rest.iter().copied().take_while(|word| *word != "}").collect();
    let named = |key: &str| key == "new" || within(key, packet.port);
    let entry = |parts: &[&'a str], is: &dyn Fn(&str) -> bool| match parts {
        [key, ":", verdict @ ..] if is(key) => Some(match verdict {
            ["accept"] => Verdict::Accept,
            ["drop"] => Verdict::Drop,
            ["return"] => Verdict::Return,
            ["jump", to] => Verdict::Jump(to),
            ["goto", to] => Verdict::Goto(to),
            _ => Verdict::Unknown,
        }),
        _ => None,
    };
    let find =
        |is: &dyn Fn(&str) -> bool| inside.split(|word| *word == ",").find_map(|parts| entry(parts, is));
    // What is named goes before the rest, wherever it stands.
    let found = find(&named).or_else(|| find(&|key| key == "*"));
    found.map_or((Matches::Nobody, Verdict::None), |verdict| (matches, verdict))
}

/// Whether a port, or a range of them, has a port in it.
fn within(range: &str, port: u16) -> bool {
    let number = |text: &str| text.trim().parse::<u16>().ok();
    match range.split_once(['-', ':']) {
        Some((from, to)) => {
            number(from).zip(number(to)).is_some_and(|(from, to)| (from..=to).contains(&port))
        }
        None => number(range) == Some(port),
    }
}

impl Family {
    fn of(word: &str) -> Option<Self> {
        match word {
            "ip" => Some(Self::V4),
            "ip6" => Some(Self::V6),
            "inet" => Some(Self::Both),
            _ => None,
        }
    }
}

/// A line without its comment and its quotes, each brace and comma a word of its own.
fn bare(line: &str) -> String {
    let line = line.trim();
    if line.starts_with('#') {
        return String::new();
    }
    let mut shown = String::new();
    for (at, part) in line.split('"').enumerate() {
        match at % 2 {
            // What is quoted is one word, and says nothing but where it is a name.
            1 => shown.push_str(&part.replace(char::is_whitespace, "_")),
            _ => {
                // `# xt_multiport` stands for what nft cannot say.
                let part = part.replace('#', " xt ");
                shown.push_str(&part.replace('{', " { ").replace('}', " } ").replace(',', " , "));
            }
        }
    }
    let words: Vec<&str> = shown.split_whitespace().collect();
    let mut kept = Vec::new();
    let mut rest = words.into_iter();
    while let Some(word) = rest.next() {
        match word {
            "comment" | "prefix" => drop(rest.next()),
            word => kept.push(word),
        }
    }
    kept.join(" ")
}

/// The elements of named sets, by table and name; not those that come and go.
fn sets(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let (mut table, mut set, mut within) = (String::new(), None, false);
    for line in text.lines().map(bare) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["table", ..] => table = line.trim_end_matches('{').trim().to_owned(),
            ["set", name, ..] => {
                set = Some(format!("{table}/{name}"));
                all.insert(format!("{table}/{name}"), String::new());
            }
            ["chain" | "map", ..] => set = None,
            ["flags", ..] if line.contains("dynamic") || line.contains("timeout") => {
                set.take().map(|name| all.remove(&name));
            }
            ["elements", "=", elements @ ..] if set.is_some() => {
                let name = set.clone().unwrap_or_default();
                all.insert(name, elements.join(" "));
                within = !elements.contains(&"}");
            }
            more if within => {
                let elements = set.as_ref().and_then(|name| all.get_mut(name));
                elements.into_iter().for_each(|elements| *elements += &format!(" {}", more.join(" ")));
                within = !more.contains(&"}");
            }
            _ => {}
        }
    }
    all
}

/// A rule with the elements of sets in the place of their names.
fn with_sets(line: &str, table: &str, sets: &BTreeMap<String, String>) -> String {
    let word = |word: &str| match word.strip_prefix('@').and_then(|name| sets.get(&format!("{table}/{name}")))
    {
        Some(elements) if elements.is_empty() => "{ }".to_owned(),
        Some(elements) => elements.clone(),
        None => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A rule of iptables in the words of nft, as far as [`read`] knows them.
fn as_nft(rule: &[&str]) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut not = false;
    let mut rest = rule.iter();
    while let Some(word) = rest.next() {
        let name = match *word {
            "!" => {
                not = true;
                continue;
            }
            "-s" => "saddr",
            "-i" => "iifname",
            "--dport" | "--dports" => "dport",
            "-p" => "l4proto",
            "--ctstate" | "--state" => "ct state",
            "--ctstatus" => "ct status",
            "--dst-type" => "fib daddr type",
            "-j" | "-g" => {
                words.push(target(word, rest.next().copied().unwrap_or_default()));
                break;
            }
            "-m" => {
                rest.next();
                continue;
            }
            "--comment" => {
                quoted(&mut rest);
                continue;
            }
            // What is not understood has its own "!".
            _ => {
                not = false;
                words.push("xt".to_owned());
                continue;
            }
        };
        words.push(name.to_owned());
        words.extend(not.then(|| "!=".to_owned()));
        words.push(rest.next().copied().unwrap_or_default().to_lowercase());
        not = false;
    }
    words.join(" ")
}

fn target(how: &str, name: &str) -> String {
    match name {
        "DROP" | "REJECT" => "drop".into(),
        "ACCEPT" => "accept".into(),
        "RETURN" => "return".into(),
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TRACE" | "AUDIT" | "CT" => "continue".into(),
        chain if how == "-g" => format!("goto {chain}"),
        chain => format!("jump {chain}"),
    }
}

/// Passes over a text that may be several words in quotes.
fn quoted<'a>(rest: &mut impl Iterator<Item = &'a &'a str>) {
    let Some(first) = rest.next() else { return };
    if first.starts_with('"') && (first.len() == 1 || !first.ends_with('"')) {
        rest.find(|word| word.ends_with('"'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);

    /// `+` open, `-` filtered, `?` not understood.
    fn of(rules: &Rules, at: IpAddr) -> char {
        match rules.passage(at, 6379) {
            Passage::Open => '+',
            Passage::Filtered => '-',
            Passage::Unclear(_) => '?',
        }
    }

    fn nft(policy: &str, rules: &str) -> char {
        let text = format!(
            "table inet x {{
	set open {{
		type inet_service
		elements = {{ 22, 80,
			     6379 }}
	}}
	set few {{
		type inet_service
		elements = {{ 22 }}
	}}
	set moving {{
		type ipv4_addr
		flags dynamic,timeout
	}}
	chain in {{
		type filter hook input priority filter; policy {policy};
		{rules}
	}}
	chain wall {{
		tcp dport 6379 drop
	}}
	chain hole {{
		tcp dport 6379 accept
	}}
	chain nothing {{
	}}
}}
"
        );
        of(&Rules::of_nft(&text), V4)
    }

    #[test]
    fn only_what_stands_before_this_port_is_a_wall() {
        for (rules, told) in [
            ("drop", '-'),
            ("counter packets 3 bytes 180 drop", '-'),
            ("tcp dport 6379 drop", '-'),
            ("tcp dport 6379 drop comment \"accept none\"", '-'),
            ("iif != \"lo\" tcp dport 6379 ip saddr != 10.9.0.2 drop", '-'),
            ("tcp dport { 22, 6379-6381 } reject with tcp reset", '-'),
            ("tcp dport @open drop", '-'),
            ("tcp dport != 22 drop", '-'),
            ("tcp dport 22 accept\ndrop", '-'),
            ("reject with icmp port-unreachable", '-'),
            ("jump wall", '-'),
            ("goto wall", '-'),
            ("tcp dport 6379 jump wall", '-'),
            ("tcp dport vmap { 22 : accept, 6379 : drop }", '-'),
            ("tcp dport vmap { 6379 : jump wall }", '-'),
            ("log prefix \"accept \" drop", '-'),
            ("tcp dport vmap { 22 : accept, * : drop }", '-'),
            ("", '+'),
            ("tcp dport 22 drop", '+'),
            ("tcp dport @few drop", '+'),
            ("ct state invalid drop", '+'),
            ("ct state vmap { established : accept, related : accept, invalid : drop }", '+'),
            ("ip saddr 192.0.2.1 drop", '+'),
            ("iif \"lo\" drop", '+'),
            ("udp dport 6379 drop", '+'),
            ("tcp dport != 6379 drop", '+'),
            ("tcp dport 6379 accept\ndrop", '+'),
            ("tcp dport 6379 accept comment \"redis\"\ndrop", '+'),
            ("return\ndrop", '+'),
            ("jump nothing", '+'),
            ("jump hole\ndrop", '+'),
            ("fib daddr type local drop", '-'),
            ("fib daddr type != local accept\ndrop", '-'),
            ("iifname \"eth77\" goto nothing\ndrop", '?'),
            ("iifname \"eth77\" goto wall\ngoto wall", '-'),
            ("fib daddr type { multicast, broadcast, anycast } drop", '+'),
            ("fib saddr . mark . iif oif missing drop", '+'),
            ("fib saddr . iif check missing drop", '+'),
            ("ct status dnat drop", '+'),
            ("iifname \"eth77\" goto hole\ngoto hole", '+'),
            ("fib saddr type local drop", '?'),
            ("iifname \"eth77\" jump wall", '?'),
            ("iifname \"eth77\" drop", '?'),
            ("iifname \"eth77\" return\ndrop", '?'),
            ("jump elsewhere", '?'),
            ("tcp dport . ip saddr != { 6379 . 10.0.0.1 } drop", '?'),
            ("ip daddr 10.0.0.1 drop", '?'),
            ("tcp dport 6379 limit rate over 10/second drop", '?'),
            ("ip saddr != @moving drop", '?'),
            ("meta l4proto tcp # xt_multiport counter packets 0 bytes 0 drop", '?'),
        ] {
            assert_eq!(nft("accept", rules), told, "{rules}");
        }
    }

    #[test]
    fn what_lets_everybody_in_is_a_hole_in_a_wall() {
        for (rules, told) in [
            ("", '-'),
            ("tcp dport 22 accept", '-'),
            ("tcp dport @few accept", '-'),
            ("ct state established,related accept", '-'),
            ("ct state { established, related } accept", '-'),
            ("ct state vmap { established : accept, related : accept, invalid : drop }", '-'),
            ("iif \"lo\" accept", '-'),
            ("ip saddr 10.0.0.0/8 tcp dport 6379 accept", '-'),
            ("ip saddr { 10.0.0.1, 10.0.0.2 } accept", '-'),
            ("ip6 saddr ::/0 tcp dport 6379 accept", '-'),
            ("meta l4proto { icmp, udp } accept", '-'),
            ("tcp dport vmap { 22 : accept, 80 : accept }", '-'),
            ("jump nothing", '-'),
            ("ct status dnat accept", '-'),
            ("fib daddr type broadcast accept", '-'),
            ("iifname \"eth77\" return\niifname \"eth78\" drop", '-'),
            ("fib daddr type local accept", '+'),
            ("ct status != dnat tcp dport 6379 accept", '+'),
            ("tcp dport 6379 accept", '+'),
            ("tcp dport 6379 accept comment \"redis\"", '+'),
            ("tcp dport @open accept", '+'),
            ("tcp dport vmap { 22 : accept, 6379 : accept }", '+'),
            ("tcp dport { 22, 6379 } ct state new,established counter packets 0 bytes 0 accept", '+'),
            ("meta l4proto tcp accept", '+'),
            ("meta protocol ip tcp dport 6379 accept", '+'),
            ("meta nfproto ipv4 accept", '+'),
            ("ip protocol tcp accept", '+'),
            ("ip saddr 0.0.0.0/0 accept", '+'),
            ("ip saddr != 192.0.2.1 tcp dport 6379 accept", '+'),
            ("accept", '+'),
            ("jump hole", '+'),
            ("tcp dport vmap { 6379 : jump hole }", '+'),
            ("tcp dport vmap { * : accept, 22 : drop }", '+'),
            ("tcp dport { 22, * } accept", '+'),
            ("meta l4proto vmap { tcp : jump hole, udp : drop }", '?'),
            ("ip protocol vmap { tcp : jump hole }", '?'),
            ("meta l4proto . th dport { tcp . 6379 } accept", '?'),
            ("ip saddr . tcp dport { 0.0.0.0/0 . 6379 } accept", '?'),
            ("tcp dport . ip saddr vmap { 6379 . 10.0.0.1 : accept }", '?'),
            ("tcp dport vmap @services", '?'),
            ("tcp dport @elsewhere accept", '?'),
            ("iifname \"eth0\" tcp dport 6379 accept", '?'),
            ("iifname vmap { \"lo\" : accept, \"eth0\" : jump hole }", '?'),
            ("tcp dport 6379 add @moving { ip saddr } accept", '?'),
            ("limit rate 10/minute accept", '?'),
            ("tcp dport 6379 queue", '?'),
        ] {
            assert_eq!(nft("drop", rules), told, "{rules}");
        }
    }

    #[test]
    fn the_usual_firewalls_are_understood() {
        for text in [
            include_str!("../../tests/cases/firewall/ufw.nft"),
            include_str!("../../tests/cases/firewall/firewalld.nft"),
        ] {
            let open = text.replace("tcp dport 22 ", "tcp dport 6379 ");
            for at in [V4, V6] {
                assert_eq!(Rules::of_nft(text).passage(at, 6379), Passage::Filtered, "{at}: {text}");
                assert_eq!(Rules::of_nft(&open).passage(at, 6379), Passage::Open, "{at}: {open}");
            }
        }
        let text = include_str!("../../tests/cases/firewall/ufw.iptables");
        let open = text.replace("--dport 22 ", "--dport 6379 ");
        assert_eq!(Rules::of_iptables(text, None).passage(V4, 6379), Passage::Filtered);
        assert_eq!(Rules::of_iptables(&open, None).passage(V4, 6379), Passage::Open);
    }

    #[test]
    fn a_wall_of_one_family_is_none_of_the_other() {
        let text = "table ip f {\n chain INPUT {\n type filter hook input priority 0; policy drop;\n }\n}\n";
        assert_eq!((of(&Rules::of_nft(text), V4), of(&Rules::of_nft(text), V6)), ('-', '+'));
        let dormant = text.replace("table ip f {", "table ip f {\n flags dormant\n");
        assert_eq!(of(&Rules::of_nft(&dormant), V4), '+');
        let forward = text.replace("hook input", "hook forward");
        assert_eq!(of(&Rules::of_nft(&forward), V4), '+');
        let hole = text.replace(";\n }", ";\n tcp dport 6379 accept\n }");
        assert_eq!(of(&Rules::of_nft(&hole), V4), '+');
        // What one chain lets in, another may still drop.
        let both = format!("{hole}{}", text.replace("table ip f", "table inet g"));
        assert_eq!(of(&Rules::of_nft(&both), V4), '-');
        let [v4, both] = [None, Some("-P INPUT DROP\n")].map(|v6| Rules::of_iptables("-P INPUT DROP\n", v6));
        assert_eq!((of(&v4, V4), of(&v4, V6), of(&both, V6)), ('-', '+', '-'));
    }

    #[test]
    fn rules_of_iptables_mean_the_same() {
        for (text, told) in [
            ("-P INPUT DROP", '-'),
            ("-P INPUT ACCEPT\n-A INPUT -p tcp -m tcp --dport 6379 -j DROP", '-'),
            (
                "-A INPUT ! -s 10.0.0.0/8 -p tcp -m multiport --dports 22,6379 -j REJECT --reject-with icmp-port-unreachable",
                '-',
            ),
            ("-N mine\n-A INPUT ! -i lo -j mine\n-A mine -j DROP", '-'),
            ("-A INPUT -p tcp --dport 6379 -m comment --comment \"no -j ACCEPT\" -j DROP", '-'),
            ("-A INPUT -j LOG\n-A INPUT -j DROP", '-'),
            ("-P INPUT DROP\n-A INPUT -s 10.0.0.0/8 -p tcp --dport 6379 -j ACCEPT", '-'),
            ("-P INPUT ACCEPT", '+'),
            ("-P FORWARD DROP", '+'),
            ("-A INPUT -s 192.0.2.1/32 -j DROP", '+'),
            ("-A INPUT -m conntrack --ctstate INVALID -j DROP", '+'),
            ("-A INPUT -p tcp --dport 22 -j DROP", '+'),
            ("-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 6379 -j ACCEPT", '+'),
            ("-P INPUT DROP\n-A INPUT -p tcp -j ACCEPT", '+'),
            ("-P INPUT DROP\n-A INPUT -p tcp -m set --match-set friends src -j ACCEPT", '?'),
            ("-P INPUT DROP\n-A INPUT ! -d 10.0.0.1/32 -p tcp -m tcp --dport 6379 -j ACCEPT", '?'),
            ("-N x\n-A INPUT -i eth77 -j x\n-A x -j DROP", '?'),
        ] {
            assert_eq!(of(&Rules::of_iptables(text, None), V4), told, "{text}");
        }
    }
}
