//! As whom somebody gets in, and what he may do then.

use std::collections::BTreeSet;

use super::fix::Fix;
use super::reach::unasked;
use super::seen::{Seen, Server};
use super::{Severity, Verdict, put_right};
use crate::finding::Finding;
use crate::secret::Secret;

/// The least that a password is worth, in bits: what nobody tries out at a server that answers 10 000 times a
/// second.
const ENOUGH: f64 = 64.0;

/// Passwords that are tried first.
const COMMON: [&str; 16] = [
    "foobared",
    "redis",
    "password",
    "motdepasse",
    "admin",
    "root",
    "123456",
    "12345678",
    "changeme",
    "secret",
    "test",
    "azerty",
    "qwerty",
    "letmein",
    "default",
    "passw0rd",
];

/// The password is one that nobody guesses.
pub(super) fn password(_: &Seen, server: &Server) -> Verdict {
    let Some(secret) = &server.password else {
        return match server.told.is_some() {
            true => Finding::skip("it has none: see open-door").into(),
            false => unasked(server, "password"),
        };
    };
    let (bits, common) = worth(secret);
    if bits >= ENOUGH && !common {
        return Finding::pass(format!("{bits:.0} bits, if it was chosen at random")).into();
    }
    let found = match common {
        true => "its password is one of those that are tried first".to_owned(),
        false => format!("its password is worth {bits:.0} bits at most"),
    };
    let cause = "a server answers thousands of attempts a second";
    let cure = put_right(server);
    let verdict = Verdict::from(Finding::fail(found, cause, cure));
    match &server.instance {
        Some(instance) => verdict.with(Fix::Password { instance: instance.clone() }),
        None => verdict,
    }
}

/// What a password is worth in bits, if its characters were chosen at random; and whether everybody knows it.
fn worth(secret: &Secret) -> (f64, bool) {
    let text = secret.expose();
    let any = |class: fn(&char) -> bool, size: f64| if text.chars().any(|c| class(&c)) { size } else { 0.0 };
    let alphabet = any(char::is_ascii_lowercase, 26.0)
        + any(char::is_ascii_uppercase, 26.0)
        + any(char::is_ascii_digit, 10.0)
        + any(|c| !c.is_ascii_alphanumeric(), 32.0);
    // A character that comes again tells nothing new.
    let distinct = text.chars().collect::<BTreeSet<_>>().len() * 2;
    let length = text.chars().count().min(distinct);
    let lower = text.to_lowercase();
    let common = COMMON.iter().any(|word| lower.trim_end_matches(|c: char| !c.is_alphabetic()) == *word)
        || COMMON.contains(&lower.as_str());
    (length as f64 * alphabet.max(1.0).log2(), common)
}

/// A user of ACL LIST: its name and its rules.
struct User<'a> {
    name: &'a str,
    rules: Vec<&'a str>,
}

impl<'a> User<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace();
        (words.next()? == "user").then_some(())?;
        Some(Self { name: words.next()?, rules: words.collect() })
    }

    fn is_on(&self) -> bool {
        self.rules.contains(&"on")
    }

    fn needs_no_password(&self) -> bool {
        self.rules.contains(&"nopass")
    }

    /// Whether he administers: a later rule takes back what an earlier one gave.
    fn may_all(&self) -> bool {
        self.rules.iter().fold(false, |may, rule| match *rule {
            "+@all" | "allcommands" | "+@admin" | "+@dangerous" | "+config" | "+acl" | "+module"
            | "+debug" => true,
            "-@all" | "nocommands" | "-@dangerous" => false,
            _ => may,
        })
    }
}

fn users(server: &Server) -> Option<Vec<User<'_>>> {
    let lines = server.told.as_ref()?.users.as_ref()?;
    Some(lines.iter().filter_map(|line| User::parse(line)).collect())
}

/// From the network nobody is `default`, who may do everything.
pub(super) fn default_user(_: &Seen, server: &Server) -> Verdict {
    let Some(users) = users(server) else { return unasked(server, "users") };
    if server.beyond().is_empty() {
        return Finding::pass("the network does not reach it").into();
    }
    let open = users.iter().any(|user| user.name == "default" && user.is_on() && user.may_all());
    if !open {
        return Finding::pass("`default` is off, or may do little").into();
    }
    Finding::fail(
        "the user `default` may do everything, from the network",
        "one password that every client has is the whole server",
        match &server.instance {
            Some(_) => format!(
                "sed -i '/^users *= *plain/d' {} && redis-tp apply    # clients then log in as app or admin",
                crate::topology::file().display()
            ),
            None => put_right(server).to_owned(),
        },
    )
    .into()
}

/// Nobody else may do more than he needs, or without a password.
pub(super) fn others(_: &Seen, server: &Server) -> Verdict {
    let Some(users) = users(server) else { return unasked(server, "users") };
    let others = || users.iter().filter(|user| user.name != "default" && user.is_on());
    let cure = |name: &str, rule: &str| {
        let port = server.address.as_ref().map_or(6379, |at| at.port);
        match &server.instance {
            Some(instance) => format!("redis-tp cli {instance} -- ACL SETUSER {name} {rule}"),
            None => format!("redis-cli -p {port} ACL SETUSER {name} {rule}"),
        }
    };
    if let Some(user) = others().find(|user| user.needs_no_password()) {
        return Verdict::from(Finding::fail(
            format!("the user {} needs no password", user.name),
            "whoever knows the name gets in",
            cure(user.name, "off"),
        ))
        .rated(if server.beyond().is_empty() { Severity::High } else { Severity::Critical });
    }
    if let Some(user) = others().find(|user| user.may_all() && user.name != "admin") {
        return Finding::fail(
            format!("the user {} may do what only an administrator needs", user.name),
            "who has its password has the server",
            cure(user.name, "-@dangerous"),
        )
        .into();
    }
    Finding::pass(match others().count() {
        0 => "there is `default` alone".to_owned(),
        count => format!("{count} beside `default`, none that may do everything but `admin`"),
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_worth_what_guessing_costs() {
        for (text, enough) in [
            ("s3cret", false),
            ("motdepasse", false),
            ("Motdepasse1", false),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("correcthorsebatterystaple", true),
            ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", true),
        ] {
            let (bits, common) = worth(&Secret::new(text));
            assert_eq!(bits >= ENOUGH && !common, enough, "{text}: {bits}");
        }
    }
}
