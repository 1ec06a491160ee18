//! Whether a port is filtered, by what nft(8) or iptables(8) tell. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// The chains of a packet filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// By table and name: the rules in nft's words.
    chains: BTreeMap<String, Vec<String>>,
    /// Those that what comes in is sent through.
    begin: BTreeSet<String>,
    /// One of these drops what no rule accepts.
    drops: bool,
}

impl Rules {
    /// Reads `nft list ruleset`.
    pub fn of_nft(text: &str) -> Self {
        let mut rules = Self::default();
        let (mut table, mut chain) = (String::new(), None);
        for line in text.lines().map(str::trim) {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("table"), _) => table = line.trim_end_matches('{').to_owned(),
                (Some("chain"), Some(name)) => chain = Some(format!("{table}/{name}")),
                (Some("}"), _) => chain = None,
                (Some("type"), _) if line.contains("hook input") || line.contains("hook prerouting") => {
                    rules.begin.extend(chain.clone());
                    rules.drops |= line.contains("hook input") && line.contains("policy drop");
                }
                (Some(_), _) => {
                    if let Some(chain) = &chain {
                        rules.chains.entry(chain.clone()).or_default().push(line.to_owned());
                    }
                }
                (None, _) => {}
            }
        }
        rules
    }

    /// Reads `iptables -S`.
    pub fn of_iptables(text: &str) -> Self {
        let mut rules = Self { begin: ["/INPUT".to_owned()].into(), ..Self::default() };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["-P", "INPUT", policy] => rules.drops = *policy == "DROP",
                ["-A", chain, rule @ ..] => {
                    rules.chains.entry(format!("/{chain}")).or_default().push(as_nft(rule));
                }
                _ => {}
            }
        }
        rules
    }

    /// Whether not everybody gets through to a port.
    pub fn filter(&self, port: u16) -> bool {
        let mut ahead: Vec<&String> = self.begin.iter().collect();
        let mut seen: BTreeSet<&String> = BTreeSet::new();
        let mut closed = self.drops;
        while let Some(name) = ahead.pop() {
            if !seen.insert(name) {
                continue;
            }
            for rule in self.chains.get(name).into_iter().flatten() {
                let everybody = concerns(rule, port);
                if rule.ends_with("accept") && everybody && rule.contains("dport") {
                    return false;
                }
                closed |=
                    everybody && [" drop", " reject"].iter().any(|word| format!(" {rule} ").contains(word));
                let table = name.rsplit_once('/').map_or("", |(table, _)| table);
                let to = rule.split_once("jump ").or(rule.split_once("goto ")).map(|(_, to)| to.trim());
                let next = to.and_then(|to| self.chains.get_key_value(&format!("{table}/{to}")));
                ahead.extend(next.map(|(name, _)| name));
            }
        }
        closed
    }
}

/// Whether a rule is about a port, whoever asks: not about some addresses, nor about what comes from this machine.
fn concerns(rule: &str, port: u16) -> bool {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let behind = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1).map(|word| (*word == "!=", at + 1))
    };
    let matches = rule.split("reject").next().unwrap_or_default();
    if ["icmp", "udp", "state invalid"].iter().any(|other| matches.contains(other)) {
        return false;
    }
    let some = ["saddr", "iif", "iifname"].iter().any(|name| matches!(behind(name), Some((false, _))));
    match behind("dport") {
        _ if some => false,
        None => true,
        Some((not, at)) => {
            let rest = words.get(at + usize::from(not)..).unwrap_or_default().join(" ");
            let of = match rest.strip_prefix('{') {
                Some(set) => set.split('}').next().unwrap_or_default(),
                None => rest.split(' ').next().unwrap_or_default(),
            };
            of.split(',').any(|range| within(range.trim(), port)) != not
        }
    }
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

/// A rule of iptables in the words of nft, as far as [`concerns`] reads them.
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
            "-i" => "iif",
            "--dport" | "--dports" => "dport",
            "-p" => "meta l4proto",
            "--ctstate" | "--state" => "state",
            "-j" | "-g" => match rest.next() {
                Some(&"DROP") => "drop",
                Some(&"REJECT") => "reject",
                Some(&"ACCEPT") => "accept",
                Some(chain) => &format!("jump {chain}"),
                None => break,
            },
            _ => continue,
        };
        words.push(name.to_owned());
        if !matches!(*word, "-j" | "-g") {
            words.extend(not.then(|| "!=".to_owned()));
            let value = rest.next().copied().unwrap_or_default();
            words.push(match name {
                "dport" if value.contains(',') => format!("{{ {} }}", value.replace(',', ", ")),
                "state" => value.to_lowercase(),
                _ => value.to_owned(),
            });
        }
        not = false;
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nft(rules: &str) -> bool {
        let text = format!(
            "table inet x {{\n\tchain in {{\n\t\ttype filter hook input priority filter; policy accept;\n{rules}\n\t}}\n\tchain more {{\n\t\ttcp dport 6379 drop\n\t}}\n}}\n"
        );
        Rules::of_nft(&text).filter(6379)
    }

    #[test]
    fn only_what_stands_before_this_port_is_a_wall() {
        for wall in [
            "drop",
            "counter packets 3 bytes 180 drop",
            "tcp dport 6379 drop",
            "iif != \"lo\" tcp dport 6379 ip saddr != 10.9.0.2 drop",
            "tcp dport { 22, 6379-6381 } reject with tcp reset",
            "tcp dport != 22 drop",
            "tcp dport 22 accept\ndrop",
            "reject with icmp port-unreachable",
            "jump more",
        ] {
            assert!(nft(wall), "{wall}");
        }
        for open in [
            "",
            "tcp dport 22 drop",
            "ct state invalid drop",
            "ip saddr 192.0.2.1 drop",
            "ip saddr @banned drop",
            "iif \"lo\" drop",
            "udp dport 6379 drop",
            "tcp dport != 6379 drop",
            "tcp dport 6379 accept\ndrop",
            "jump elsewhere",
        ] {
            assert!(!nft(open), "{open}");
        }
        let other = "table ip nat {\n chain forward {\n type filter hook forward priority 0; policy drop;\n tcp dport 6379 drop\n }\n}\n";
        assert!(!Rules::of_nft(other).filter(6379));
        let policy =
            "table ip f {\n chain INPUT {\n type filter hook input priority 0; policy drop;\n }\n}\n";
        assert!(Rules::of_nft(policy).filter(6379));
        assert!(!Rules::of_nft(&policy.replace(";\n }", ";\n tcp dport 6379 accept\n }")).filter(6379));
    }

    #[test]
    fn rules_of_iptables_mean_the_same() {
        let of = |text: &str| Rules::of_iptables(text).filter(6379);
        for wall in [
            "-P INPUT DROP",
            "-P INPUT ACCEPT\n-A INPUT -p tcp -m tcp --dport 6379 -j DROP",
            "-A INPUT ! -s 10.0.0.0/8 -p tcp -m multiport --dports 22,6379 -j REJECT --reject-with icmp-port-unreachable",
            "-A INPUT ! -i lo -j mine\n-A mine -j DROP",
        ] {
            assert!(of(wall), "{wall}");
        }
        for open in [
            "-P INPUT ACCEPT",
            "-P FORWARD DROP",
            "-A INPUT -s 192.0.2.1/32 -j DROP",
            "-A INPUT -m conntrack --ctstate INVALID -j DROP",
            "-A INPUT -p tcp --dport 22 -j DROP",
            "-P INPUT DROP\n-A INPUT -p tcp -m tcp --dport 6379 -j ACCEPT",
        ] {
            assert!(!of(open), "{open}");
        }
    }
}
