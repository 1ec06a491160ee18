//! What dpkg has on record of packages. Its status file is not all of it: what a run of dpkg did stands in
//! the files of `updates` until that run ends, and for good when it is killed (`modstatdb_checkpoint`,
//! dpkg's lib/dpkg/dbmodify.c).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::Package;
use crate::host::Host;

const STATUS: &str = "/var/lib/dpkg/status";
const UPDATES: &str = "/var/lib/dpkg/updates";

/// The paragraphs of all packages, as dpkg itself would read them now; nothing where there is no dpkg.
///
/// # Errors
/// A file of the record cannot be read.
pub fn status(host: &Host) -> Result<Option<String>> {
    let Some(status) = host.lossy(Path::new(STATUS))? else { return Ok(None) };
    // Of one length, so that their names sort as their numbers do. `tmp.i` is not one of them.
    let names = host.list(Path::new(UPDATES))?;
    let names = names.iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let updates = names.map(|name| host.lossy(&Path::new(UPDATES).join(name)));
    let updates: Vec<String> = updates.filter_map(Result::transpose).collect::<Result<_>>()?;
    Ok(Some(if updates.is_empty() { status } else { merged(&status, &updates) }))
}

/// The record with what later paragraphs say in the place of what earlier ones do.
fn merged(status: &str, updates: &[String]) -> String {
    let all = std::iter::once(status).chain(updates.iter().map(String::as_str));
    let paragraphs = all.flat_map(|text| text.split("\n\n")).filter(|text| !text.trim().is_empty());
    let named = paragraphs
        .map(|text| ((field(text, "Package: "), field(text, "Architecture: ")), text.trim_matches('\n')));
    let newest: BTreeMap<_, _> = named.collect();
    newest.into_values().map(|paragraph| format!("{paragraph}\n\n")).collect()
}

/// A package's paragraph in the record.
pub fn package(status: &str, name: &str) -> Option<Package> {
    let head = format!("Package: {name}\n");
    let start = match status.starts_with(&head) {
        true => 0,
        false => status.find(&format!("\n{head}"))? + 1,
    };
    let paragraph = status.get(start..)?.split("\n\n").next()?;
    Some(Package {
        version: field(paragraph, "Version: ").unwrap_or_default().to_owned(),
        status: state(paragraph)?.to_owned(),
    })
}

/// The packages that are neither installed nor gone, and what each was left at.
pub fn half_way(status: &str) -> Vec<(&str, &str)> {
    let states = status.split("\n\n").filter_map(|text| Some((field(text, "Package: ")?, state(text)?)));
    states.filter(|(_, state)| !matches!(*state, "installed" | "config-files" | "not-installed")).collect()
}

/// The last word of `Status: install ok unpacked`.
fn state(paragraph: &str) -> Option<&str> {
    field(paragraph, "Status: ")?.split_whitespace().last()
}

fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    paragraph.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: redis-server\nStatus: install ok half-configured\nVersion: 5:7.0.15-1\n\nPackage: redis-server-x\nStatus: x\n";

    #[test]
    fn a_package_is_found_in_any_place() {
        let found = package(RECORD, "redis-server").unwrap();
        assert_eq!((found.status.as_str(), found.version.as_str()), ("half-configured", "5:7.0.15-1"));
        assert!(package(RECORD, "redis").is_none());
        assert!(package(RECORD, "a").unwrap().installed());
    }

    #[test]
    fn what_a_killed_dpkg_did_last_counts() {
        let updates = [
            "Package: redis-tools\nStatus: install reinstreq half-installed\n",
            "Package: redis-server\nStatus: install ok installed\nVersion: 2\n",
            "Package: redis-tools\nStatus: install ok unpacked\nVersion: 2\n",
        ];
        let record = merged(RECORD, &updates.map(str::to_owned));
        assert!(package(&record, "redis-server").unwrap().installed());
        assert_eq!(package(&record, "redis-tools").unwrap().status, "unpacked");
        assert!(package(&record, "a").unwrap().installed());
        assert_eq!(half_way(&record), [("redis-server-x", "x"), ("redis-tools", "unpacked")]);
    }
}
