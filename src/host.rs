//! The machine: files, children, users, clock, environment, sockets. The only module with effects;
//! everyone else decides what to do and asks here (clippy's `disallowed-methods` holds them to it).

#![allow(clippy::disallowed_methods)]

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Group, Uid, User};
use serde::{Deserialize, Serialize};

use crate::layout;
use crate::secret::Secret;

mod call;
mod child;
mod files;
mod net;
mod own;
mod pieces;
mod stage;
mod way;

pub use call::Stream;
pub use child::{Child, Done};
pub use net::Knock;
pub use pieces::Passed;
pub use stage::Staged;

/// The umask is the process's, and proofs run in threads.
static UMASK: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// A machine whose files are looked for below `root` (`/`, but for tests).
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    interrupted: Arc<AtomicBool>,
    /// What is under way has to come to its end.
    deaf: Arc<AtomicBool>,
    /// Signals are caught.
    catches: Arc<AtomicBool>,
}

/// What a path is, without following a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, wherever it points.
    Link,
    /// A socket, a device, a fifo.
    Other,
}

/// What `lstat(2)` tells of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// What the path is.
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// The owner.
    #[serde(default)]
    pub uid: u32,
    /// The group.
    #[serde(default)]
    pub gid: u32,
    /// The inode.
    #[serde(default)]
    pub inode: u64,
    /// How many names it has now: no record of a former state.
    #[serde(default, skip_serializing)]
    pub links: u64,
}

impl Stat {
    /// Whose it is.
    pub fn ids(&self) -> Ids {
        Ids { uid: self.uid, gid: self.gid }
    }

    /// Whether it is a file that is nothing but content: no program, and known by no second name.
    pub fn is_plain(&self) -> bool {
        self.kind == Kind::File && self.mode & 0o6111 == 0 && self.links <= 1
    }
}

/// A file or a link as it stood, to be put back one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A regular file.
    File {
        /// What is in it.
        bytes: Vec<u8>,
        /// Its mode.
        mode: u32,
        /// Its owner.
        ids: Ids,
    },
    /// A symbolic link.
    Link {
        /// Where it points.
        target: PathBuf,
        /// Its owner.
        ids: Ids,
    },
}

/// A user and group by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Ids {
    /// root:root
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

impl Host {
    /// The machine that this process runs on. Children start from umask 0022, whatever ours was:
    /// a package installed under umask 0077 would be readable by root alone.
    pub fn real() -> Self {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        Self::at("/")
    }

    /// A machine whose files lie below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), interrupted: Arc::default(), deaf: Arc::default(), catches: Arc::default() }
    }

    /// Where a path really is. A relative one is the caller's own word, and looked for where they are.
    fn path(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/") {
            Ok(path) => self.root.join(path),
            Err(_) => std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
        }
    }

    // ---- users, clock, environment ----------------------------------------------------------

    /// The effective user of this process.
    pub fn euid(&self) -> u32 {
        Uid::effective().as_raw()
    }

    /// The effective user and group of this process.
    pub fn own_ids(&self) -> Ids {
        Ids { uid: self.euid(), gid: nix::unistd::getegid().as_raw() }
    }

    /// The numbers of a user and its primary group.
    pub fn user(&self, name: &str) -> Result<Option<Ids>> {
        let user = User::from_name(name).with_context(|| format!("cannot look up the user {name}"))?;
        Ok(user.map(|user| Ids { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
    }

    /// The number of a group.
    pub fn group(&self, name: &str) -> Result<Option<u32>> {
        let group = Group::from_name(name).with_context(|| format!("cannot look up the group {name}"))?;
        Ok(group.map(|group| group.gid.as_raw()))
    }

    /// The name of a user, or the number where there is none.
    pub fn user_name(&self, uid: u32) -> String {
        User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
    }

    /// The name of a group, or the number where there is none.
    pub fn group_name(&self, gid: u32) -> String {
        Group::from_gid(Gid::from_raw(gid)).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name)
    }

    /// A variable of our environment, if it is set and not empty.
    pub fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    /// Whether a person types to us: standard input and output are a terminal.
    pub fn is_terminal(&self) -> bool {
        use std::io::IsTerminal;
        std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
    }

    /// Seconds since 1970.
    pub fn unix_time(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// A point on the monotonic clock.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Sleeps, but not through an interruption.
    pub fn sleep(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.interrupted() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    /// Asks again and again, at growing intervals from 1 to 25 ms, until there is an answer or the
    /// deadline has passed (none). Time in which the whole machine stood still does not count.
    ///
    /// # Errors
    /// What `ask` returns, and an interruption.
    pub fn poll<T>(
        &self,
        deadline: Duration,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut end = Instant::now() + deadline;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(answer) = ask()? {
                return Ok(Some(answer));
            }
            if self.interrupted() {
                bail!("interrupted");
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            let asleep = Instant::now();
            std::thread::sleep(pause);
            end += standstill(asleep.elapsed(), pause);
            pause = (pause * 2).min(Duration::from_millis(25));
        }
    }

    /// 256 bits from the kernel, as 64 hexadecimal digits.
    pub fn generate_password(&self) -> Result<Secret> {
        Ok(Secret::new(self.random_hex(32)?))
    }

    /// Random bytes from the kernel, in hexadecimal digits.
    pub fn random_hex(&self, bytes: usize) -> Result<String> {
        let mut raw = vec![0; bytes];
        File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut raw))
            .context("cannot read /dev/urandom")?;
        Ok(raw.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// From now on SIGINT, SIGTERM and SIGHUP only raise a flag; the run ends between two steps.
    pub fn catch_signals(&self) -> Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        if self.catches.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&self.interrupted))
                .context("cannot catch signals")?;
        }
        Ok(())
    }

    /// Whether a signal asked us to end.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) && !self.deaf.load(Ordering::Relaxed)
    }

    /// An interruption until now is forgotten.
    pub fn ignore_interruption(&self) {
        self.interrupted.store(false, Ordering::Relaxed);
    }

    /// An interruption counts again, also one that came meanwhile.
    pub fn heed_interruptions(&self) {
        self.deaf.store(false, Ordering::Relaxed);
    }

    /// From now on nothing interrupts us: the way back must be walked to its end.
    pub fn ignore_interruptions(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    // ---- sockets ----------------------------------------------------------------------------

    /// What comes of work that may never end; none when it does not end in time: then it goes on until we end.
    pub fn in_time<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let host = self.clone();
        std::thread::spawn(move || drop(sender.send(work(&host))));
        receiver.recv_timeout(limit).ok()
    }

    /// Asks the kernel which sockets there are (sock_diag(7)), and hands over its answer, a packet at a
    /// time, until `take` has enough.
    ///
    /// # Errors
    /// This kernel, or what confines us, does not let us ask.
    pub fn sock_diag(&self, request: &[u8], mut take: impl FnMut(&[u8]) -> Result<bool>) -> Result<()> {
        use nix::sys::socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
        };
        if self.root != Path::new("/") {
            bail!("the kernel knows nothing of {}", self.root.display());
        }
        let kernel = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        send(kernel.as_raw_fd(), request, MsgFlags::empty())?;
        let mut packet = vec![0; 1 << 15];
        loop {
            // The answer is there as soon as it was asked for: nothing to wait for.
            let length = recv(kernel.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?;
            if !take(packet.get(..length).unwrap_or_default())? {
                return Ok(());
            }
        }
    }

    /// Connects to the system bus; none where there is none, or where it has nothing of ours.
    pub fn system_bus(&self) -> Option<rustbus::RpcConn> {
        if layout::here().login.is_some() {
            return None;
        }
        let timeout = rustbus::connection::Timeout::Duration(Duration::from_secs(2));
        let path = rustbus::connection::get_system_bus_path().ok()?;
        rustbus::RpcConn::connect_to_path(path, timeout).ok()
    }

    /// The addresses of this machine.
    pub fn addresses(&self) -> Vec<std::net::IpAddr> {
        let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let ip = |address: nix::sys::socket::SockaddrStorage| match address.as_sockaddr_in() {
            Some(v4) => Some(std::net::IpAddr::V4(v4.ip())),
            None => address.as_sockaddr_in6().map(|v6| std::net::IpAddr::V6(v6.ip())),
        };
        let found: std::collections::BTreeSet<std::net::IpAddr> =
            all.filter_map(|interface| ip(interface.address?)).collect();
        found.into_iter().collect()
    }

    /// Whether an address can be bound on this machine: an absent address, or IPv6 switched off,
    /// is not. Nothing listens on it afterwards.
    pub fn can_bind(&self, address: std::net::IpAddr) -> bool {
        std::net::UdpSocket::bind((address, 0)).is_ok()
    }

    /// A datagram socket at `path`, for systemd's notification protocol (sd_notify(3)).
    pub fn datagram(&self, path: &Path) -> Result<std::os::unix::net::UnixDatagram> {
        // Open to all from the first moment: a chmod later, by path, could meet another file.
        let bound = with_umask(0o111, || std::os::unix::net::UnixDatagram::bind(path));
        let socket = bound.with_context(|| format!("cannot bind {}", path.display()))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// For how long a machine stood still (it was suspended, or had no processor for us) while a process meant to sleep
/// for `pause` and slept for `slept`: its servers had no time to answer, either.
fn standstill(slept: Duration, pause: Duration) -> Duration {
    let over = slept.saturating_sub(pause);
    if over < Duration::from_millis(100) { Duration::ZERO } else { over }
}

/// Does something under an umask, alone.
fn with_umask<T>(mask: nix::libc::mode_t, act: impl FnOnce() -> T) -> T {
    use nix::sys::stat::{Mode, umask};
    let _alone = UMASK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = umask(Mode::from_bits_truncate(mask));
    let done = act();
    umask(before);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_stood_still_had_no_time_to_answer() {
        let ms = Duration::from_millis;
        assert_eq!(standstill(ms(30), ms(25)), Duration::ZERO, "a busy machine is late now and then");
        assert_eq!(standstill(ms(5025), ms(25)), ms(5000));
        assert_eq!(standstill(ms(24), ms(25)), Duration::ZERO);
    }
}
