//! Edits a topology line by line: comments and order survive.

use super::read::{Line, scan, uncomment};
use crate::directives;

/// A topology file as text, edited line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    lines: Vec<String>,
}

impl Document {
    /// Takes a text to edit.
    pub fn new(text: &str) -> Self {
        Self { lines: text.lines().map(str::to_owned).collect() }
    }

    /// The text with its edits.
    pub fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push('\n');
        text
    }

    /// Whether there is a section of this name.
    pub fn has(&self, section: &str) -> bool {
        self.span(section).is_some()
    }

    /// Sets a key, in a section that is made at the end if it is not there. A comment behind the old
    /// value stays; of a key that stands several times the first is set and the others go.
    pub fn set(&mut self, section: &str, key: &str, value: &str) {
        self.set_all(section, key, &[value.to_owned()]);
    }

    /// Sets a key to several values, one line each.
    pub fn set_all(&mut self, section: &str, key: &str, values: &[String]) {
        if !self.has(section) {
            if self.lines.last().is_some_and(|line| !line.trim().is_empty()) {
                self.lines.push(String::new());
            }
            self.lines.push(format!("[{section}]"));
        }
        let standing = self.keys(section, key);
        let comment = standing.first().and_then(|at| self.lines.get(*at)).map(|line| {
            let bare = uncomment(line);
            line.get(bare.len()..).unwrap_or_default().to_owned()
        });
        let at = standing.first().copied().unwrap_or_else(|| self.end(section));
        for index in standing.into_iter().rev() {
            self.lines.remove(index);
        }
        for (offset, value) in values.iter().enumerate() {
            let tail = match (&comment, offset) {
                (Some(comment), 0) if !comment.is_empty() => format!("       {comment}"),
                _ => String::new(),
            };
            self.lines.insert(at + offset, format!("{key} = {value}{tail}"));
        }
    }

    /// The key of a section that stands for a directive, as it is spelt there; the directive's own name
    /// where there is none.
    pub fn spelling(&self, section: &str, directive: &str) -> String {
        let lines = scan(&self.text());
        let (start, end) = self.span(section).unwrap_or_default();
        let keys = lines.into_iter().take(end).skip(start).filter_map(|line| match line {
            Line::Key(key) => Some(key),
            Line::Section(_) | Line::Other => None,
        });
        let same = |key: &String| directives::canonical(&key.to_ascii_lowercase()) == directive;
        keys.into_iter().find(same).unwrap_or_else(|| directive.to_owned())
    }

    /// Takes a key away.
    pub fn unset(&mut self, section: &str, key: &str) {
        for index in self.keys(section, key).into_iter().rev() {
            self.lines.remove(index);
        }
    }

    /// Takes a section away, with the blank lines behind it.
    pub fn remove(&mut self, section: &str) {
        if let Some((start, end)) = self.span(section) {
            self.lines.drain(start..end);
            while self.lines.last().is_some_and(|line| line.trim().is_empty()) {
                self.lines.pop();
            }
        }
    }

    /// The lines of a section, header included.
    fn span(&self, section: &str) -> Option<(usize, usize)> {
        let lines = scan(&self.text());
        let start = lines.iter().position(|line| matches!(line, Line::Section(name) if name == section))?;
        let next = lines.iter().skip(start + 1).position(|line| matches!(line, Line::Section(_)));
        Some((start, next.map_or(self.lines.len(), |offset| start + 1 + offset)))
    }

    /// Where a new key goes: behind the last line of the section that is not blank.
    fn end(&self, section: &str) -> usize {
        let Some((start, end)) = self.span(section) else { return self.lines.len() };
        let used = |index: &usize| self.lines.get(*index).is_some_and(|line| !line.trim().is_empty());
        (start..end).rev().find(used).map_or(end, |last| last + 1)
    }

    fn keys(&self, section: &str, key: &str) -> Vec<usize> {
        let Some((start, end)) = self.span(section) else { return Vec::new() };
        let lines = scan(&self.text());
        (start..end)
            .filter(|index| matches!(lines.get(*index), Some(Line::Key(name)) if name == key))
            .collect()
    }
}
