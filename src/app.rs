//! The cache-aside web app: what it is told (`settings.rs`), and in the other files what it does. Only
//! they, and the conversations over HTTP, are asynchronous.

pub mod page;
pub mod settings;

pub use settings::{Node, Settings};
