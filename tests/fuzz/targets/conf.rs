//! Any bytes as redis.conf: what holds for them is in `tests/it/properties.rs`.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;

#[path = "../../it/properties.rs"]
mod properties;

fuzz_target!(|bytes: &[u8]| properties::conf(&String::from_utf8_lossy(bytes)));
