//! The cache-aside web app: what it is told (`settings.rs`), and in the other files what it does. Only
//! they, and the conversations over HTTP, are asynchronous.
//!
//! ```text
//! GET /data/KEY ─ answer → cache ─┬→ nodes ⇄ Redis     (view: who is the master, who is read; batch)
//!                                 └→ source            (the database, once for all who wait)
//! GET /events ←── events ← what nodes, cache and metrics have to tell
//! ```

mod answer;
mod batch;
mod cache;
mod events;
mod metrics;
mod nodes;
mod page;
mod routes;
mod server;
pub mod service;
pub mod settings;
mod shared;
mod source;
pub mod supervise;
mod view;

pub use server::{Running, serve};
pub use service::{App, AppTarget};
pub use settings::{Node, Settings};
