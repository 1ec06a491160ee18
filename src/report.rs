//! How results look: text, pictures and pages for eyes, JSON, TAP and JUnit for programs, annotations
//! for GitHub.

pub mod audit;
pub mod backups;
pub mod bench;
pub mod certificates;
pub mod console;
pub mod curves;
pub mod github;
pub mod html;
pub mod junit;
pub mod plan;
pub mod progress;
pub mod svg;
pub mod table;
pub mod tap;
mod text;
pub mod tree;
