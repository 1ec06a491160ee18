//! The cache-aside web app: what it is told (`settings.rs`), and in the other files what it does. Only
//! they, and the conversations over HTTP, are asynchronous.

pub mod settings;

pub use settings::{Node, Settings};

/// Stands in until the app is there.
pub struct Running;

impl Running {
    /// Stands in.
    pub fn start(_: &crate::host::Host, _: Settings) -> anyhow::Result<Self> {
        anyhow::bail!("not built yet")
    }

    /// Stands in.
    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }
}
