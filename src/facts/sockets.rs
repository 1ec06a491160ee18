//! Which TCP sockets listen, or are connected, asked from the kernel over netlink (sock_diag(7)): it looks at
//! those of one state alone, which takes microseconds for the listening ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, bail};

use crate::host::Host;

/// A socket in LISTEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its inode, by which a process has it.
    pub inode: u64,
    /// Whose it is.
    pub uid: u32,
}

/// A socket in ESTABLISHED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The port at this end.
    pub port: u16,
    /// The address at the other.
    pub peer: IpAddr,
}

/// Asks who is connected to a Unix socket, by their users; none for one that is told by no user: of another
/// network namespace, or by an older kernel.
///
/// # Errors
/// The kernel cannot be asked like this.
pub fn connected_to(host: &Host, path: &Path) -> Result<Vec<Option<u32>>> {
    let mut all = Vec::new();
    host.sock_diag(&unix_request(), |packet| read(packet, local, &mut all))?;
    let user = |inode: u32| all.iter().find(|end| end.inode == inode)?.uid;
    let of_it = all.iter().filter(|end| end.path == path.as_os_str().as_bytes());
    Ok(of_it.map(|end| end.peer.and_then(user)).collect())
}

/// An address family, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// AF_INET
    V4 = 2,
    /// AF_INET6
    V6 = 10,
}

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h; all in the machine's own byte order, but for
// ports and addresses.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
const REQUEST_AND_DUMP: u16 = 0x301;
const TCP: u8 = 6;
const ESTABLISHED: u32 = 1 << 1;
const LISTEN: u32 = 1 << 10;
const HEADER: usize = 16;
// linux/unix_diag.h
const UNIX: u8 = 1;
const NAME: u16 = 0;
const PEER: u16 = 2;
const UID: u16 = 7;
/// UDIAG_SHOW_NAME, UDIAG_SHOW_PEER, UDIAG_SHOW_UID
const SHOW: u32 = 0x1 | 0x4 | 0x40;
/// A request: family, protocol and states, and no socket in particular.
const REQUEST: usize = 56;

/// Asks for the listening sockets of a family.
///
/// # Errors
/// The kernel cannot be asked like this.
pub fn listening(host: &Host, family: Family) -> Result<Vec<Socket>> {
    ask(host, family, LISTEN, |body| socket(body, family))
}

/// Asks for the connections of a family.
///
/// # Errors
/// The kernel cannot be asked like this.
pub fn connected(host: &Host, family: Family) -> Result<Vec<Connection>> {
    ask(host, family, ESTABLISHED, |body| connection(body, family))
}

fn ask<T>(host: &Host, family: Family, states: u32, one: impl Fn(&[u8]) -> Option<T>) -> Result<Vec<T>> {
    let mut found = Vec::new();
    host.sock_diag(&request(family, states), |packet| read(packet, &one, &mut found))?;
    Ok(found)
}

fn request(family: Family, states: u32) -> Vec<u8> {
    let mut body = vec![family as u8, TCP, 0, 0];
    body.extend(states.to_ne_bytes());
    body.resize(REQUEST, 0);
    message(&body)
}

fn unix_request() -> Vec<u8> {
    let mut body = vec![UNIX, 0, 0, 0];
    // States, no inode in particular, what is to be told, and no cookie.
    [ESTABLISHED, 0, SHOW, 0, 0].iter().for_each(|word| body.extend(word.to_ne_bytes()));
    message(&body)
}

fn message(body: &[u8]) -> Vec<u8> {
    let length = HEADER + body.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or_default().to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_AND_DUMP.to_ne_bytes());
    // A sequence number and a port, which one question alone does not need.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// Reads a packet of the answer, which may hold several messages; says whether more are to come.
fn read<T>(mut packet: &[u8], one: impl Fn(&[u8]) -> Option<T>, found: &mut Vec<T>) -> Result<bool> {
    while packet.len() >= HEADER {
        let length = number::<4>(packet, 0).map_or(0, u32::from_ne_bytes) as usize;
        match number::<2>(packet, 4).map(u16::from_ne_bytes) {
            // With an error number where it could not look: a kernel without tcp_diag.
            Some(DONE) if number(packet, HEADER).is_none_or(|error| i32::from_ne_bytes(error) >= 0) => {
                return Ok(false);
            }
            Some(BY_FAMILY) => {
                let Some(socket) = packet.get(HEADER..length).and_then(&one) else {
                    bail!("the kernel's answer is cut short")
                };
                found.push(socket);
            }
            Some(ERROR | DONE) => bail!("the kernel does not answer"),
            _ => {}
        }
        // Messages begin at multiples of four.
        let next = length.max(HEADER).next_multiple_of(4);
        packet = packet.get(next..).unwrap_or_default();
    }
    Ok(true)
}

/// Reads `struct inet_diag_msg` of a socket that listens.
fn socket(body: &[u8], family: Family) -> Option<Socket> {
    let address = address(body, family, 8)?;
    let port = u16::from_be_bytes(number(body, 4)?);
    let (uid, inode) = (u32::from_ne_bytes(number(body, 64)?), u32::from_ne_bytes(number(body, 68)?));
    Some(Socket { address, port, inode: inode.into(), uid })
}

/// Reads it of one that is connected. What comes by IPv4 to a socket of IPv6 is from an address of IPv4.
fn connection(body: &[u8], family: Family) -> Option<Connection> {
    let port = u16::from_be_bytes(number(body, 4)?);
    Some(Connection { port, peer: address(body, family, 24)?.to_canonical() })
}

fn address(body: &[u8], family: Family, at: usize) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(number::<4>(body, at)?)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number::<16>(body, at)?)),
    })
}

/// An end of a Unix connection.
struct Local {
    inode: u32,
    path: Vec<u8>,
    peer: Option<u32>,
    uid: Option<u32>,
}

/// Reads `struct unix_diag_msg` and the attributes behind it.
fn local(body: &[u8]) -> Option<Local> {
    let inode = u32::from_ne_bytes(number(body, 4)?);
    let mut end = Local { inode, path: Vec::new(), peer: None, uid: None };
    let mut rest = body.get(16..)?;
    while let Some(length) = number(rest, 0).map(u16::from_ne_bytes).map(usize::from) {
        let value = rest.get(4..length)?;
        match u16::from_ne_bytes(number(rest, 2)?) {
            NAME => end.path = value.strip_suffix(&[0]).unwrap_or(value).to_vec(),
            PEER => end.peer = number(value, 0).map(u32::from_ne_bytes),
            UID => end.uid = number(value, 0).map(u32::from_ne_bytes),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(end)
}

/// The bytes of a number at a place.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_listener_is_found_as_proc_has_it() {
        let host = Host::at("/");
        for (family, local) in
            [(Family::V4, IpAddr::V4(Ipv4Addr::LOCALHOST)), (Family::V6, IpAddr::V6(Ipv6Addr::LOCALHOST))]
        {
            let Ok(listener) = host.listen((local, 0).into()) else { continue };
            let address = listener.local_addr().unwrap();
            // A kernel or a sandbox without sock_diag is what /proc is for.
            let Ok(found) = listening(&host, family) else { continue };
            let ours: Vec<_> = found.iter().filter(|socket| socket.port == address.port()).collect();
            let [ours] = ours.as_slice() else { panic!("{ours:?}") };
            assert_eq!((ours.address, ours.uid), (local, host.euid()));
            let table = if family == Family::V4 { "/proc/net/tcp" } else { "/proc/net/tcp6" };
            let text = host.text(table.as_ref()).unwrap().unwrap();
            let told = text.lines().filter_map(super::super::parse::listener);
            assert!(told.into_iter().any(|socket| socket == **ours));
        }
    }

    #[test]
    fn whoever_is_connected_is_told_by_his_own_address() {
        let host = Host::at("/");
        // The second is met by a client of IPv4 on a socket of IPv6, as a server that binds `*` is.
        for (family, bound) in
            [(Family::V4, "127.0.0.1:0"), (Family::V6, "[::ffff:127.0.0.1]:0"), (Family::V6, "[::1]:0")]
        {
            let Ok(listener) = host.listen(bound.parse().unwrap()) else { continue };
            let at = listener.local_addr().unwrap();
            #[allow(clippy::disallowed_methods, reason = "somebody else's client")]
            let client = std::net::TcpStream::connect(at).unwrap();
            let Ok(found) = connected(&host, family) else { continue };
            let peer = client.local_addr().unwrap().ip().to_canonical();
            assert!(found.contains(&Connection { port: at.port(), peer }), "{bound}: {found:?}");
        }
    }

    #[test]
    fn whoever_is_connected_to_a_unix_socket_is_told_by_his_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let host = Host::at("/");
        let Ok(nobody) = connected_to(&host, &path) else { return };
        assert_eq!(nobody, []);
        #[allow(clippy::disallowed_methods, reason = "somebody else's client")]
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let _server = listener.accept().unwrap();
        assert_eq!(connected_to(&host, &path).unwrap(), [Some(host.euid())]);
    }

    #[test]
    fn an_answer_that_is_cut_or_refused_is_an_error() {
        let mut message = request(Family::V4, LISTEN);
        let read = |message: &[u8]| read(message, |body| socket(body, Family::V4), &mut Vec::new());
        assert!(read(&message).is_err());
        message[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        assert!(read(&message).is_err());
        message[4..6].copy_from_slice(&DONE.to_ne_bytes());
        message[16..20].copy_from_slice(&0_i32.to_ne_bytes());
        assert!(!read(&message).unwrap());
        message[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert!(read(&message).is_err());
        assert!(read(&[]).unwrap());
    }
}
