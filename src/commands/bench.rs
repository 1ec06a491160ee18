//! `redis-tp bench`: cold against warm, with a picture.

use anyhow::{Result, bail};

use crate::cli;
use crate::exit::Code;
use crate::host::Host;

/// Measures, and shows the result.
///
/// # Errors
/// The app does not answer, or not by the contract.
pub fn run(_: &Host, _: &cli::Bench) -> Result<Code> {
    bail!("under work")
}
