//! The cache-aside web app: what it is told (`settings.rs`), and in the other files what it does. Only
//! they, and the conversations over HTTP, are asynchronous.

pub mod service;
pub mod settings;
pub mod supervise;

pub use service::{App, AppTarget};
pub use settings::{Node, Settings};

/// Stand-in until the server is merged.
///
/// # Errors
/// Always.
pub fn serve(_: &crate::host::Host, _: Settings) -> anyhow::Result<()> {
    anyhow::bail!("under work")
}
