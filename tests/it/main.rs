//! The tests that look at the program from outside: as data, as files, and on real machines.
//!
//! `cargo test` runs what needs no special machine and says what it skipped; `tests/run` prepares real
//! Debian machines and skips nothing.

// The program's own rules about effects and panics are not the tests': they look from outside, and a
// panic is how a test fails.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    missing_docs
)]

/// Has the master save, once no child of its own saves or sends a replica its data.
macro_rules! saved {
    () => {
        "until redis-tp cli -- SAVE | grep -q OK; do sleep 0.05; done"
    };
}

mod adopt;
mod adversary;
mod app;
mod attacks;
mod audit;
mod backup;
mod backups;
mod bad_input;
mod bench;
mod browser;
mod canary;
mod consumers;
mod containers;
mod drift;
mod engines;
mod faults;
mod flask;
mod generated;
mod handed;
mod hardening;
mod hostile;
mod journals;
mod live;
mod losses;
mod lost;
mod machine;
mod model;
mod page;
mod plan_cases;
mod planted;
mod ports;
mod properties;
mod readme;
mod runtimes;
mod same_as_server;
mod service;
mod story;
mod strangers;
mod tls;
mod tls_wire;
mod user;
mod verify_app;
