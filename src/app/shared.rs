//! All that a request needs, whichever it is.

use std::sync::Arc;

use super::cache::Cache;
use super::events::Hub;
use super::metrics::Metrics;
use super::nodes::Nodes;
use super::page::Page;
use super::settings::Settings;
use crate::host::Host;

/// All that a request needs.
#[derive(Debug)]
pub struct Shared {
    /// The machine.
    pub host: Host,
    /// What the app was told.
    pub settings: Settings,
    /// The Redis servers.
    pub nodes: Arc<Nodes>,
    /// The cache in front of the database.
    pub cache: Arc<Cache>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Who listens.
    pub hub: Arc<Hub>,
    /// The page at `/`.
    pub page: Page,
}
