//! How results look: text for eyes, JSON, TAP and JUnit for programs, annotations for GitHub.

pub mod console;
pub mod github;
pub mod junit;
pub mod plan;
pub mod progress;
pub mod tap;
pub mod tree {
    pub fn tree(_: &crate::status::Status) -> String {
        String::new()
    }
}
pub mod table {
    pub fn line(c: &crate::finding::Check) -> String {
        format!("{c:?}")
    }
    pub fn closing(_: &crate::finding::Findings) -> String {
        String::new()
    }
}
