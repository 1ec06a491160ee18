//! Who holds a port of this machine: a password is told to nobody who only waits there for one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::gather::listening_sockets;
use super::sockets::Socket;
use crate::engine::Engine;
use crate::host::Host;
use crate::wire::Address;

/// The user, neither root nor ourselves nor a server's own, who listens where we are about to say a password: any user
/// can, above port 1023, while the server is down. None where it is another machine, or nobody tells.
pub fn stranger(host: &Host, at: &Address) -> Option<u32> {
    let ip: IpAddr = at.host.parse().ok()?;
    let uid = holders(host, at.port, &[ip])?.into_iter().find(|uid| !may_hear(host, *uid))?;
    let own = ip.is_loopback() || ip.is_unspecified() || host.addresses().contains(&ip);
    own.then_some(uid)
}

/// Whether a port of this machine is surely held by one who may hear a password: what another has only named may be
/// anybody's. Elsewhere it is not known who listens.
pub fn is_sure(host: &Host, at: &Address) -> bool {
    let ips = match at.host.as_str() {
        "localhost" => vec![IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)],
        name => name.parse().into_iter().collect(),
    };
    let own = host.addresses();
    let here = |ip: &IpAddr| ip.is_loopback() || own.contains(ip);
    let Some(holders) = holders(host, at.port, &ips) else { return false };
    !ips.is_empty()
        && ips.iter().all(here)
        && !holders.is_empty()
        && holders.into_iter().all(|uid| may_hear(host, uid))
}

/// The users who listen on a port under one of these addresses; none where nobody tells.
fn holders(host: &Host, port: u16, ips: &[IpAddr]) -> Option<Vec<u32>> {
    let there = |socket: &Socket| socket.address.is_unspecified() || ips.contains(&socket.address);
    let sockets = listening_sockets(host).ok()?;
    Some(sockets.iter().filter(|socket| socket.port == port && there(socket)).map(|it| it.uid).collect())
}

/// Whether a process of this user may be told the password of a server.
pub fn may_hear(host: &Host, uid: u32) -> bool {
    let server = |engine: Engine| host.user(engine.user()).ok().flatten().is_some_and(|ids| ids.uid == uid);
    uid == 0 || uid == host.euid() || server(Engine::Redis) || server(Engine::Valkey)
}
