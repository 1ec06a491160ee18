//! Which TCP sockets listen, asked from the kernel over netlink (sock_diag(7)): it looks at the
//! listening ones alone, which takes microseconds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
const LISTEN: u32 = 1 << 10;
const HEADER: usize = 16;
/// A request: family, protocol and states, and no socket in particular.
const REQUEST: usize = 56;

/// Asks for the listening sockets of a family.
///
/// # Errors
/// The kernel cannot be asked like this.
pub fn listening(host: &Host, family: Family) -> Result<Vec<Socket>> {
    let mut found = Vec::new();
    host.sock_diag(&request(family), |packet| read(packet, family, &mut found))?;
    Ok(found)
}

fn request(family: Family) -> Vec<u8> {
    let length = HEADER + REQUEST;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or_default().to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_AND_DUMP.to_ne_bytes());
    // A sequence number and a port, which one question alone does not need.
    bytes.extend([0; 8]);
    bytes.extend([family as u8, TCP, 0, 0]);
    bytes.extend(LISTEN.to_ne_bytes());
    bytes.resize(length, 0);
    bytes
}

/// Reads a packet of the answer, which may hold several messages; says whether more are to come.
fn read(mut packet: &[u8], family: Family, found: &mut Vec<Socket>) -> Result<bool> {
    while packet.len() >= HEADER {
        let length = number::<4>(packet, 0).map_or(0, u32::from_ne_bytes) as usize;
        match number::<2>(packet, 4).map(u16::from_ne_bytes) {
            // With an error number where it could not look: a kernel without tcp_diag.
            Some(DONE) if number(packet, HEADER).is_none_or(|error| i32::from_ne_bytes(error) >= 0) => {
                return Ok(false);
            }
            Some(BY_FAMILY) => {
                let socket = packet.get(HEADER..length).and_then(|body| socket(body, family));
                let Some(socket) = socket else { bail!("the kernel's answer is cut short") };
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

/// Reads `struct inet_diag_msg`.
fn socket(body: &[u8], family: Family) -> Option<Socket> {
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(number::<4>(body, 8)?)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number::<16>(body, 8)?)),
    };
    let port = u16::from_be_bytes(number(body, 4)?);
    let (uid, inode) = (u32::from_ne_bytes(number(body, 64)?), u32::from_ne_bytes(number(body, 68)?));
    Some(Socket { address, port, inode: inode.into(), uid })
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
    fn an_answer_that_is_cut_or_refused_is_an_error() {
        let mut message = request(Family::V4);
        assert!(read(&message, Family::V4, &mut Vec::new()).is_err());
        message[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        assert!(read(&message, Family::V4, &mut Vec::new()).is_err());
        message[4..6].copy_from_slice(&DONE.to_ne_bytes());
        message[16..20].copy_from_slice(&0_i32.to_ne_bytes());
        assert!(!read(&message, Family::V4, &mut Vec::new()).unwrap());
        message[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        assert!(read(&message, Family::V4, &mut Vec::new()).is_err());
        assert!(read(&[], Family::V4, &mut Vec::new()).unwrap());
    }
}
