//! The tests that look at the program from outside: as data, as files, and on real machines.
//!
//! `cargo test` runs what needs no special machine and says what it skipped; `tests/run` prepares real
//! Debian machines and skips nothing.

mod bad_input;
mod canary;
mod faults;
mod machine;
mod plan_cases;
mod story;
