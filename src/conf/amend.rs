//! Changes directives of a file line by line: every other line stays as it is, comments included.

use std::collections::BTreeSet;

use super::{Conf, quote_all};
use crate::directives;

/// A file with these directives as another configuration has them. Their lines stand where the first of
/// them stood, or at the end.
pub fn amend(text: &str, wanted: &Conf, names: &[String]) -> String {
    let mut missing: BTreeSet<&str> = names.iter().map(|name| directives::canonical(name)).collect();
    let known = missing.clone();
    let lines_of = |name: &str| {
        let same = |line: &&super::Directive| directives::canonical(&line.name) == name;
        wanted.directives.iter().filter(same).map(line).collect::<Vec<_>>()
    };
    let mut lines: Vec<String> = Vec::new();
    for raw in text.split_inclusive('\n') {
        match name_of(raw).filter(|name| known.contains(directives::canonical(name))) {
            None if raw.ends_with('\n') => lines.push(raw.to_owned()),
            None => lines.push(format!("{raw}\n")),
            Some(name) => {
                let name = directives::canonical(&name);
                if missing.remove(name) {
                    lines.extend(lines_of(name));
                }
            }
        }
    }
    for name in missing {
        lines.extend(lines_of(name));
    }
    lines.concat()
}

fn line(directive: &super::Directive) -> String {
    format!("{} {}\n", directive.name, quote_all(&directive.args))
}

/// The directive of a line, in lower case; none for a comment.
fn name_of(line: &str) -> Option<String> {
    let line = line.trim_matches([' ', '\t', '\r', '\n']);
    let word = line.split_ascii_whitespace().next().filter(|word| !word.starts_with('#'))?;
    Some(word.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_of_what_changes_change() {
        let text = "# mine\nport 1\n\nslaveof h 1\n# why\nsave 900 1\nhz 10\nsave 60 1\nno-such x\n";
        let wanted = Conf::parse("replicaof h 2\nsave 1 1\nsave 2 2\nmaxclients 5\nport 9\n").unwrap();
        let names = ["replicaof", "save", "maxclients", "no-such"].map(str::to_owned);
        assert_eq!(
            amend(text, &wanted, &names),
            "# mine\nport 1\n\nreplicaof h 2\n# why\nsave 1 1\nsave 2 2\nhz 10\nmaxclients 5\n"
        );
        assert_eq!(amend(text, &wanted, &[]), text);
    }
}
