//! As whom somebody gets in, and what he may do then.

use std::collections::BTreeSet;

use super::fix::Fix;
use super::reach::{roleless, set, unasked, unheard};
use super::seen::{Seen, Server};
use super::{Severity, Verdict, put_right};
use crate::commands::shell_word;
use crate::engine::Version;
use crate::facts::Role;
use crate::finding::{Finding, visible};
use crate::secret::Secret;
use crate::users::{self, ADMIN, APP, DEFAULT, Listed, REPLICA};

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

/// Whether somebody may guess a password.
pub(super) fn is_weak(secret: &Secret) -> bool {
    let (bits, common) = worth(secret);
    bits < ENOUGH || common
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

fn users(server: &Server) -> Option<Vec<Listed>> {
    let lines = server.told.as_ref()?.users.as_ref()?;
    Some(lines.iter().filter_map(|line| Listed::parse(line)).collect())
}

/// Users that a server does not tell of, or cannot have: they came with 6.0.
fn untold(server: &Server) -> Verdict {
    let version = server.told.as_ref().and_then(|told| told.version);
    match version {
        Some(version) if version < Version::new(6, 0) => Finding::skip("users came with 6.0").into(),
        _ => unheard(server, "ACL LIST"),
    }
}

/// From the network nobody is `default`, who may do everything.
pub(super) fn default_user(_: &Seen, server: &Server) -> Verdict {
    let Some(users) = users(server) else { return untold(server) };
    if server.beyond().is_empty() {
        return Finding::pass("the network does not reach it").into();
    }
    let open = users.iter().any(|user| user.name == DEFAULT && user.on && !user.takes_over.is_empty());
    if !open {
        return Finding::pass("`default` is off, or may do little").into();
    }
    Finding::fail(
        "the user `default` may do everything, from the network",
        "one password that every client has is the whole server",
        match &server.instance {
            // Nobody's wish, but somebody's CONFIG SET.
            Some(_) if !server.exposed => {
                "redis-tp apply --overwrite    # binds it as the topology says".into()
            }
            // Users of redis-tp's are in its own sections only.
            Some(name) if server.taken_over => format!(
                "editor {}    # [{name}]: bind = 127.0.0.1, or lines `user = …` with default off; then redis-tp apply",
                crate::topology::file().display()
            ),
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
    let Some(users) = users(server) else { return untold(server) };
    let others = || users.iter().filter(|user| user.name != DEFAULT && user.on);
    let cure = |name: &str, rule: &str| {
        let port = server.address.as_ref().map_or(6379, |at| at.port);
        let (typed, name) = (visible(name) == name, shell_word(name));
        match &server.instance {
            // As it is shown it cannot be typed.
            Some(_) if !typed => "redis-tp apply --overwrite".into(),
            // Told to the server alone it would be back with its next start, or the next fix.
            Some(instance) if users::names(&server.conf, &name) => format!(
                "editor {}    # [{instance}]: {rule} at the end of `user = {name} …`; then redis-tp apply",
                crate::topology::file().display()
            ),
            Some(instance) => format!("redis-tp cli {instance} -- ACL SETUSER {name} {rule}"),
            None => format!("redis-cli -p {port} ACL SETUSER {name} {rule}"),
        }
    };
    if let Some(user) = others().find(|user| user.open) {
        return Verdict::from(Finding::fail(
            format!("the user {} needs no password", user.name),
            "whoever knows the name gets in",
            cure(&user.name, "off"),
        ))
        .rated(if server.beyond().is_empty() { Severity::High } else { Severity::Critical });
    }
    if let Some(name) = server.exchanged.first() {
        return Verdict::from(Finding::fail(
            format!("the user {name} is not as redis-tp made it"),
            "by ACL SETUSER it may do something else than it needs",
            "redis-tp check --fix",
        ))
        .with(Fix::Overwrite);
    }
    if let Some(user) = others().find(|user| !user.takes_over.is_empty() && user.name != ADMIN) {
        return Finding::fail(
            format!(
                "the user {} may do what only an administrator needs: {}",
                user.name,
                some(&user.takes_over)
            ),
            "who has its password has the server",
            cure(&user.name, if user.selected { "clearselectors" } else { "-@dangerous" }),
        )
        .into();
    }
    Finding::pass(match others().count() {
        0 => "there is `default` alone".to_owned(),
        count => format!("{count} beside `default`, none that may do everything but `admin`"),
    })
    .into()
}

/// The web app has its own keys and no others.
pub(super) fn app_keys(_: &Seen, server: &Server) -> Verdict {
    let Some(users) = users(server) else { return untold(server) };
    match users.iter().find(|user| user.name == APP && user.on) {
        None => Finding::skip("it has no user app").into(),
        Some(app) if app.all_keys => Finding::fail(
            "the user app may read and write every key",
            "who has the app has whatever else is in there",
            "redis-tp app install --prefix cache:    # the cache begins cold",
        )
        .into(),
        Some(_) => Finding::pass("the user app has its own keys alone").into(),
    }
}

/// The first of some commands, and that there are more.
fn some(commands: &[String]) -> String {
    match commands {
        [one, two, _, ..] => format!("{one}, {two} and more"),
        few => few.join(", "),
    }
}

/// A replica follows as somebody who may do nothing else.
pub(super) fn replica_user(seen: &Seen, server: &Server) -> Verdict {
    let Some(told) = &server.told else { return unasked(server, "masteruser") };
    let (host, port) = match &told.role {
        Role::Replica { host, port, .. } => (host, port),
        Role::Master => return Finding::skip("it follows nobody").into(),
        Role::Unknown => return roleless(server),
    };
    let Some(user) = server.value("masteruser") else { return unasked(server, "masteruser") };
    if !user.is_empty() {
        return Finding::pass(format!("it follows {host} {port} as {user}")).into();
    }
    let at = |other: &&Server| {
        other.listens.iter().any(|(ip, own)| own == port && (ip.is_unspecified() || ip.to_string() == *host))
    };
    let cause = "the password in its configuration is the whole master";
    match seen.servers.iter().find(at) {
        // One password for everybody: see default-user.
        Some(master) if !users(master).is_some_and(|all| all.iter().any(|user| user.name == REPLICA && user.on)) => {
            Finding::pass("its master here has no user for it").into()
        }
        Some(_) => set(
            Finding::fail(format!("it follows {host} {port} as `default`"), cause, put_right(server)).into(),
            server,
            "masteruser",
            None,
        ),
        None => Finding::fail(
            format!("it follows {host} {port} as `default`"),
            cause,
            "redis-cli -h MASTER ACL SETUSER replica on '>PASSWORD' +psync +replconf +ping    # there; here masteruser = replica, and masterauth",
        )
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::seen::Told;
    use crate::conf::Conf;
    use crate::topology::Name;

    #[test]
    fn who_stands_in_the_topology_is_put_right_there() {
        let cure = |conf: &str| {
            let users = Some(vec!["user bob on #00 ~* +@all".to_owned()]);
            let server = Server {
                name: "master".into(),
                instance: Some(Name::parse("master").unwrap()),
                conf: Conf::parse(conf).unwrap(),
                told: Some(Told {
                    users,
                    version: Some(Version::parse("7.0.15").unwrap()),
                    ..Told::default()
                }),
                ..Server::default()
            };
            match others(&Seen::default(), &server).finding {
                Finding::Fail { cure, .. } => cure,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(cure("port 6379\n"), "redis-tp cli master -- ACL SETUSER bob -@dangerous");
        let edit = cure("user bob on >x ~* +@all\n");
        assert!(edit.starts_with("editor ") && edit.ends_with("then redis-tp apply"), "{edit}");
    }

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
