//! How results look: text for eyes, JSON, TAP and JUnit for programs, annotations for GitHub.
