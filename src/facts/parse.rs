//! Pure parsers of what the kernel and systemd print.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::sockets::Socket;
use super::{Follower, Role, Unit};

/// `systemctl show`'s blocks, by unit.
pub fn units(shown: &str) -> BTreeMap<String, Unit> {
    let mut units = BTreeMap::new();
    for block in shown.split("\n\n") {
        let mut unit = Unit::default();
        let mut id = String::new();
        for (name, value) in block.lines().filter_map(|line| line.split_once('=')) {
            match name {
                "Id" => id = value.to_owned(),
                "LoadState" => unit.load = value.to_owned(),
                "ActiveState" => unit.active = value.to_owned(),
                "MainPID" => unit.pid = value.parse().unwrap_or(0),
                "NeedDaemonReload" => unit.needs_reload = value == "yes",
                "ReadWritePaths" => unit.opens = value.split(' ').map(opened).collect(),
                "ProtectHome" => unit.hides_home = hides(value),
                _ => {}
            }
        }
        if !id.is_empty() {
            units.insert(id, unit);
        }
    }
    units
}

/// A path of `ReadWritePaths=`: `-` says that it need not be there, `+` that it lies below another root.
pub fn opened(word: &str) -> PathBuf {
    PathBuf::from(word.trim_start_matches(['-', '+']))
}

/// Whether a `ProtectHome=` hides homes: `read-only` leaves them to look at, and `ReadWritePaths=` opens them.
pub fn hides(value: &str) -> bool {
    !matches!(value, "no" | "read-only")
}

/// One line of /proc/net/tcp or tcp6 that is in LISTEN.
pub fn listener(line: &str) -> Option<Socket> {
    let mut cells = line.split_whitespace();
    let local = cells.nth(1)?;
    if cells.nth(1)? != "0A" {
        return None;
    }
    let uid = cells.nth(3)?.parse().ok()?;
    let inode = cells.nth(1)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    Some(Socket { address: hex_address(address)?, port: u16::from_str_radix(port, 16).ok()?, inode, uid })
}

/// The kernel prints addresses as 32-bit words in host order.
fn hex_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => word(0).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// The unit that a process runs in, out of /proc/PID/cgroup: the last part that is a service.
pub fn cgroup_unit(cgroup: &str) -> Option<String> {
    let parts = cgroup.lines().flat_map(|line| line.rsplit('/'));
    parts.map(str::trim).find(|part| part.ends_with(".service")).map(unescape)
}

/// systemd escapes what is no plain character in cgroup names; ours have no more than `\x2d`.
fn unescape(name: &str) -> String {
    name.replace("\\x2d", "-")
}

/// The role that INFO replication tells.
pub fn role(info: &BTreeMap<String, String>) -> Role {
    let get = |name: &str| info.get(name).map(String::as_str);
    match (get("role"), get("master_host"), get("master_port").and_then(|port| port.parse().ok())) {
        (Some("master"), _, _) => Role::Master,
        (Some("slave"), Some(host), Some(port)) => {
            Role::Replica { host: host.to_owned(), port, up: get("master_link_status") == Some("up") }
        }
        _ => Role::Unknown,
    }
}

/// The databases that have keys.
pub fn databases(info: &BTreeMap<String, String>) -> impl Iterator<Item = u32> {
    info.keys().filter_map(|name| name.strip_prefix("db")?.parse().ok())
}

/// The keys of all databases: `db0:keys=42,expires=0,avg_ttl=0`.
pub fn keys(info: &BTreeMap<String, String>) -> u64 {
    let databases = info
        .iter()
        .filter(|(name, _)| name.strip_prefix("db").is_some_and(|number| number.parse::<u32>().is_ok()));
    let count = |row: &str| row.strip_prefix("keys=")?.split(',').next()?.parse::<u64>().ok();
    databases.filter_map(|(_, row)| count(row)).sum()
}

/// What is in the databases of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys.
    pub keys: u64,
    /// How many of them go by themselves.
    pub expires: u64,
}

/// The keys of all databases, and how many of them go by themselves.
pub fn tally(info: &BTreeMap<String, String>) -> Tally {
    let expires =
        |row: &String| row.split(',').find_map(|part| part.strip_prefix("expires=")?.parse::<u64>().ok());
    let databases = info.iter().filter(|(name, _)| name.starts_with("db"));
    Tally { keys: keys(info), expires: databases.filter_map(|(_, row)| expires(row)).sum::<u64>() }
}

/// The replicas that a master's INFO replication tells of, one a line:
/// `slave0:ip=127.0.0.1,port=6380,state=online,offset=14,lag=0`.
pub fn followers(info: &BTreeMap<String, String>) -> impl Iterator<Item = Follower> {
    let numbered = |name: &str| name.strip_prefix("slave").is_some_and(|rest| rest.parse::<u32>().is_ok());
    info.iter().filter(move |(name, _)| numbered(name)).filter_map(|(_, row)| follower(row))
}

fn follower(row: &str) -> Option<Follower> {
    let field = |name: &str| row.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    Some(Follower {
        at: (field("ip")?.to_owned(), field("port")?.parse().ok()?),
        offset: field("offset")?.parse().ok()?,
        lag: field("lag").and_then(|lag| lag.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_both_families_are_read() {
        let v4 = "   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000   106        0 1234 1 0000";
        let socket = |address, inode, uid| Some(Socket { address, port: 6379, inode, uid });
        assert_eq!(listener(v4), socket(IpAddr::V4(Ipv4Addr::LOCALHOST), 1234, 106));
        let v6 = "   0: 00000000000000000000000001000000:18EB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 99 1 0000";
        assert_eq!(listener(v6), socket(IpAddr::V6(Ipv6Addr::LOCALHOST), 99, 0));
        assert_eq!(listener(&v4.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("  sl  local_address rem_address   st"), None);
    }

    #[test]
    fn a_process_is_put_to_its_unit() {
        let cgroup = "0::/system.slice/system-redis\\x2dserver.slice/redis-server@slave.service\n";
        assert_eq!(cgroup_unit(cgroup).as_deref(), Some("redis-server@slave.service"));
        assert_eq!(cgroup_unit("0::/user.slice/session-1.scope\n"), None);
    }

    #[test]
    fn systemctl_show_is_read_block_by_block() {
        let shown = "Id=a.service\nLoadState=loaded\nActiveState=active\nMainPID=7\nNeedDaemonReload=no\n\nId=b.service\nLoadState=not-found\nActiveState=inactive\nMainPID=0\nNeedDaemonReload=yes\n";
        let units = units(shown);
        assert_eq!((units["a.service"].pid, units["b.service"].needs_reload), (7, true));
    }

    #[test]
    fn a_home_that_may_be_read_is_not_hidden() {
        for (value, hidden) in [("yes", true), ("tmpfs", true), ("no", false), ("read-only", false)] {
            assert_eq!(
                units(&format!("Id=a.service\nProtectHome={value}\n"))["a.service"].hides_home,
                hidden
            );
        }
    }
}
