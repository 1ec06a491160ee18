//! Ports for servers of the tests; also those of the unit tests have theirs from here.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A port among the ten thousand from `first` on that nobody has, and that nobody gets by chance until it is used: the
/// kernel takes those of connections from 32768 on (ip_local_port_range), and no other test is given it.
pub fn free_port(first: u16) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Other runs of the tests on this machine begin elsewhere.
    let begin = std::process::id() * 64;
    (0..10_000)
        .map(|_| first + u16::try_from((begin + NEXT.fetch_add(1, Relaxed)) % 10_000).unwrap())
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a port is free")
}
