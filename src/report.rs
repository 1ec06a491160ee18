//! How results look: text for eyes, JSON, TAP and JUnit for programs, annotations for GitHub.

pub mod console;
pub mod github;
pub mod junit;
pub mod plan;
pub mod progress;
pub mod table;
pub mod tap;
mod text;
pub mod tree;
