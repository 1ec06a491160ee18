//! How results look: text for eyes, JSON, TAP and JUnit for programs, annotations for GitHub.

pub mod console;
pub mod plan;
pub mod progress;
pub mod table;
mod text;
pub mod tree;
pub mod tap {
    pub fn tap(_: &crate::finding::Findings) -> String {
        String::new()
    }
}
pub mod junit {
    pub fn junit(_: &crate::finding::Findings) -> anyhow::Result<String> {
        Ok(String::new())
    }
}
pub mod github {
    pub fn annotations(_: &crate::finding::Findings) -> Vec<String> {
        vec![]
    }
    pub fn summary(_: &crate::finding::Findings) -> String {
        String::new()
    }
}
