//! apt's sources (sources.list(5)): one a line, or in paragraphs. Pure.

/// Releases whose security suite was called `CODENAME/updates`.
const UPDATES: [&str; 5] = ["wheezy", "jessie", "stretch", "buster", "squeeze"];
/// Security suites that are the right one of whichever release has that name now.
const ROLLING: [&str; 4] =
    ["stable-security", "oldstable-security", "oldoldstable-security", "testing-security"];

/// Whether a file of sources has the security suite of a release among those that packages come from.
pub(super) fn has_security(text: &str, paragraphs: bool, release: Option<&str>) -> bool {
    let suites = if paragraphs { of_paragraphs(text) } else { of_lines(text) };
    suites.iter().any(|suite| is_security(suite, release))
}

fn is_security(suite: &str, release: Option<&str>) -> bool {
    let suite = suite.trim_end_matches('/');
    if ROLLING.contains(&suite) {
        return true;
    }
    let of = suite.strip_suffix("-security").or_else(|| {
        let of = suite.strip_suffix("/updates")?;
        UPDATES.contains(&of).then_some(of)
    });
    of.is_some_and(|of| release.is_none_or(|release| release == of))
}

/// `deb [ option=value ] uri suite component…`
fn of_lines(text: &str) -> Vec<&str> {
    let suite = |line| {
        let (kind, rest) = str::split_once(line, char::is_whitespace)?;
        let rest = rest.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        (kind == "deb").then(|| rest.split_whitespace().nth(1))?
    };
    text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter_map(suite).collect()
}

/// deb822: fields, whose values may go on in lines that begin with a blank.
fn of_paragraphs(text: &str) -> Vec<&str> {
    let mut suites = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for paragraph in lines.split(|line| line.trim().is_empty()) {
        let mut field = String::new();
        let (mut packages, mut on, mut named) = (false, true, Vec::new());
        for line in paragraph {
            let value = match line.split_once(':').filter(|_| !line.starts_with([' ', '\t'])) {
                Some((name, value)) => {
                    field = name.to_ascii_lowercase();
                    value
                }
                None => line,
            };
            let mut words = value.split_whitespace();
            match field.as_str() {
                "types" => packages |= words.any(|word| word == "deb"),
                "suites" => named.extend(words),
                "enabled" => {
                    on =
                        !words.any(|word| ["no", "false", "0", "off"].contains(&word.to_lowercase().as_str()))
                }
                _ => {}
            }
        }
        if packages && on {
            suites.extend(named);
        }
    }
    suites
}

/// The name of the release that os-release(5) tells: of Ubuntu's or Debian's, where it is made of that, as Linux Mint
/// is, for their suites bring its repairs.
pub(super) fn release(text: &str) -> Option<String> {
    let named = |key: &str| {
        let name = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(name.trim().trim_matches(['"', '\'']).to_owned()).filter(|name| !name.is_empty())
    };
    ["UBUNTU_CODENAME", "DEBIAN_CODENAME", "VERSION_CODENAME"].into_iter().find_map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_security_suite_of_this_release_brings_repairs() {
        for (release, source) in [
            ("bookworm", "deb http://deb.debian.org/debian-security bookworm-security main"),
            ("bookworm", "deb [arch=amd64 signed-by=/usr/x.gpg] file:/srv/x bookworm-security/ main # ours"),
            ("bookworm", "deb http://mirror/x stable-security main"),
            ("buster", "deb http://security.debian.org/debian-security buster/updates main"),
            ("jammy", "deb http://archive.ubuntu.com/ubuntu jammy-security universe"),
        ] {
            assert!(has_security(source, false, Some(release)), "{source}");
        }
        for source in [
            "",
            "# deb http://deb.debian.org/debian-security bookworm-security main",
            "deb-src http://deb.debian.org/debian-security bookworm-security main",
            "deb http://mirror/updates/debian bookworm main",
            "deb http://mirror/debian-security bookworm main",
            "deb [signed-by=/usr/share/keyrings/my-security.gpg] http://mirror/debian bookworm main",
            "deb http://security.debian.org/debian-security buster/updates main",
            "deb http://security.debian.org/debian-security bookworm/updates main",
            "deb http://security.debian.org/debian-security bullseye-security main",
            "deb http://deb.debian.org/debian bookworm-updates main",
        ] {
            assert!(!has_security(source, false, Some("bookworm")), "{source}");
        }
    }

    #[test]
    fn paragraphs_are_read_field_by_field() {
        let text = "Types: deb deb-src\nURIs: http://deb.debian.org/debian-security\nSuites:\n trixie\n# a note\n trixie-security\nComponents: main\n";
        let has = |text: &str| has_security(text, true, Some("trixie"));
        assert!(has(text));
        assert!(has(&format!("Types: deb\nSuites: trixie\n\n{text}")));
        assert!(!has(&text.replace("deb deb-src", "deb-src")));
        assert!(!has(&text.replace("trixie-security", "trixie-updates")));
        assert!(!has(&format!("{text}Enabled: no\n")));
        assert!(!has(&text.replace("trixie-security", "bookworm-security")));
    }

    #[test]
    fn a_release_has_its_name_in_os_release() {
        assert_eq!(release("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(release("VERSION_CODENAME=\"noble\"\n").as_deref(), Some("noble"));
        assert_eq!(release("ID=arch\n"), None);
        let mint = "ID=linuxmint\nVERSION_CODENAME=wilma\n";
        assert_eq!(release(&format!("{mint}UBUNTU_CODENAME=noble\n")).as_deref(), Some("noble"));
        assert_eq!(release(&format!("DEBIAN_CODENAME='bookworm'\n{mint}")).as_deref(), Some("bookworm"));
        assert_eq!(release(&format!("{mint}UBUNTU_CODENAME=\n")).as_deref(), Some("wilma"));
    }
}
