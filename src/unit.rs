//! Unit files and drop-ins, read with rust-ini made safe for them: keys repeat, an empty value
//! forgets those before it, backslashes and quotes are systemd's own.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use ini::{Ini, ParseOption};

/// (section, key) → the values, in order.
pub type Unit = BTreeMap<(String, String), Vec<String>>;

/// Reads a unit file or a drop-in.
///
/// # Errors
/// What is not the syntax of systemd.syntax(7).
pub fn parse(text: &str) -> Result<Unit> {
    let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    let ini = Ini::load_from_str_opt(text, options)
        .map_err(|error| anyhow!("line {}: {}", error.line, error.msg))?;
    let mut unit = Unit::new();
    for (section, properties) in ini.iter() {
        for (key, value) in properties.iter() {
            let values = unit.entry((section.unwrap_or_default().to_owned(), key.to_owned())).or_default();
            match value {
                "" => values.clear(),
                value => values.push(value.to_owned()),
            }
        }
    }
    Ok(unit)
}

/// Whether two files say the same to systemd.
pub fn same(a: &str, b: &str) -> bool {
    matches!((parse(a), parse(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_add_up_and_an_empty_one_forgets() {
        let unit = parse("[Service]\nReadWritePaths=/a\nReadWritePaths=/b\nExecStart=/x\nExecStart=\nExecStart=/y \"z\\n\"\n").unwrap();
        let get = |key: &str| unit[&("Service".to_owned(), key.to_owned())].clone();
        assert_eq!(get("ReadWritePaths"), ["/a", "/b"]);
        assert_eq!(get("ExecStart"), ["/y \"z\\n\""]);
    }

    #[test]
    fn a_comment_is_no_difference() {
        assert!(same("# a\n[Service]\nA=1\n", "[Service]\n; b\nA=1\n"));
        assert!(!same("[Service]\nA=1\n", "[Service]\nA=2\n"));
    }
}
