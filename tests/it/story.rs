//! The program's main job on real machines: from a bare Debian to master and replica, and back.

use crate::machine::{Alike, Init, Machine, Release, differences};

/// The binary under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_redis-tp");

/// Every machine that the program is for.
const MACHINES: [(Release, Init); 4] = [
    (Release::Bookworm, Init::Systemd),
    (Release::Trixie, Init::Systemd),
    (Release::Bookworm, Init::None),
    (Release::Trixie, Init::None),
];

/// A bare machine with the program on it; none where there can be no machine.
pub fn bare(release: Release, init: Init) -> Option<Machine> {
    let machine = Machine::boot_or_skip(release, init)?;
    machine.install_binary(PROGRAM);
    Some(machine)
}
