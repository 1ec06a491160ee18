//! From a bare Debian to a proven Redis.
//!
//! Data flows in one direction, and every file has its place in it:
//!
//! ```text
//! argv ─ cli → topology ──┐
//!          facts(&host) ──┴→ plan() ─→ Plan ─┬→ printed          (plan, --dry-run, --diff, --shell, --json)
//!                                            └→ apply(&host) ─→ journal ─→ verify ─→ report ─→ exit code
//! ```
//!
//! The web app that a plan may set up (`app`) is this same program: `redis-tp app serve`. It and the
//! questions to it (`http`, `bench`) are the only asynchronous parts.
//!
//! The rules that hold it together:
//!
//! 1. [`plan::plan`] has no effects.
//! 2. All effects are in one module, `host`.
//! 3. The journal's line is on the disk before the effect.
//! 4. Undo is idempotent, and a run that finds an open journal recovers first.
//! 5. A data directory with something in it is never removed without `--purge`.
//! 6. A file that someone else changed is never overwritten in silence: three states are compared
//!    (what we last wrote, what is there, what is wanted), by directives, for the server itself
//!    rewrites its file.
//! 7. A secret is a type that does not print.
//! 8. What runs now is the truth about roles: a replica that was promoted is not demoted.

pub mod adopt;
pub mod app;
pub mod apply;
pub mod audit;
pub mod backup;
pub mod bench;
pub mod bus;
pub mod certificates;
pub mod check;
pub mod cli;
pub mod commands;
pub mod conf;
pub mod directives;
pub mod engine;
pub mod exit;
pub mod facts;
pub mod finding;
pub mod host;
pub mod http;
pub mod instance;
pub mod journal;
pub mod kernel;
pub mod layout;
pub mod live;
pub mod log;
pub mod moment;
pub mod plan;
pub mod prove;
pub mod report;
pub mod runtime;
pub mod secret;
pub mod secrets;
pub mod software;
pub mod state;
pub mod status;
pub mod step;
pub mod store;
pub mod templates;
pub mod tls;
pub mod topology;
pub mod unit;
pub mod users;
pub mod verify;
pub mod wire;
