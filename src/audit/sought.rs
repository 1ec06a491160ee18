//! A password that is looked for in arguments, environments and files. Pure.

use super::users;
use crate::secret::Secret;

/// What stands before a password, in lower case, at its end.
const NAMES: [&str; 9] = ["-a", "pass", "password", "passwd", "pwd", "auth", "motdepasse", "secret", "pw"];
/// What may stand between that and the password.
const BETWEEN: [char; 11] = ['"', '\'', '=', ':', ';', ',', '>', '{', '[', '(', '\\'];
/// How far before a rule of a user its name stands, in words.
const RULES: usize = 12;

/// A password that is known here.
#[derive(Debug)]
pub(super) struct Sought {
    secret: Secret,
    /// It may stand for something else: `redis` and `root` are in many files.
    common: bool,
}

impl Sought {
    pub(super) fn new(secret: Secret) -> Self {
        let common = users::is_weak(&secret);
        Self { secret, common }
    }

    /// Whether a text has it. What nobody chose twice is that password wherever it stands; a common one counts only behind
    /// what names a password.
    pub(super) fn is_in(&self, text: &str) -> bool {
        let secret = self.secret.expose();
        match self.common {
            true => text.match_indices(secret).any(|(at, _)| is_named(text, at, at + secret.len())),
            false => text.contains(secret),
        }
    }
}

/// Whether what stands there is called a password.
fn is_named(text: &str, from: usize, to: usize) -> bool {
    let (Some(before), Some(after)) = (text.get(..from), text.get(to..)) else { return false };
    if after.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/')) {
        return false;
    }
    // A text may be long, and what counts is near.
    let start = (from.saturating_sub(512)..=from).find(|at| before.is_char_boundary(*at)).unwrap_or(from);
    let near = before.get(start..).unwrap_or_default().to_lowercase();
    let bare = near.trim_end_matches(|c: char| c.is_whitespace() || BETWEEN.contains(&c));
    let apart = bare.len() < near.len();
    let words: Vec<&str> = near.split_whitespace().rev().take(RULES).collect();
    // `redis-cli -aX`, and `redis://user:X@host`.
    let glued = words.first() == Some(&"-a") && near.ends_with("-a");
    let in_url = near.ends_with(':') && after.starts_with('@');
    // `AUTH user X`, and `ACL SETUSER user on >X`.
    let of_user = apart && near.ends_with(char::is_whitespace) && words.get(1) == Some(&"auth");
    let rule = near.ends_with('>') && words.iter().any(|word| ["setuser", "user"].contains(word));
    glued || in_url || of_user || rule || apart && NAMES.iter().any(|name| bare.ends_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_found_where_programs_take_one() {
        for secret in ["s3cret", "a-password-of-some-length-indeed"] {
            let sought = Sought::new(Secret::new(secret));
            for text in [
                "redis-cli -a X PING",
                "x -aX",
                "x\n-a\nX\nPING",
                "--pass=X",
                "redis://:X@h:1",
                "u redis://app:X@h",
                "masterauth \"X\"",
                "REDISCLI_AUTH='X'",
                "password: X",
                "AUTH admin X",
                "ACL SETUSER bob on >X ~* +@all",
                "user bob on >X ~*",
                "acl\nsetuser\nbob\non\n>X",
                "{password:X}",
                "{\"password\":\"X\"}",
                "PASS:X",
                "host:6379,password=X,ssl=false",
                "<pw>X</pw>",
                "redis_pwd=X;",
            ] {
                assert!(sought.is_in(&text.replace('X', secret)), "{secret}: {text}");
            }
            assert!(!sought.is_in(""));
        }
        assert!(Sought::new(Secret::new("four words of it")).is_in("x\nauth four words of it\n"));
    }

    #[test]
    fn a_password_that_nobody_chose_twice_needs_no_name() {
        let strong = "9f86d081884c7d659a2feaa0c55ad015";
        for text in [">X", "host:6379,password=x,X", "<v>X</v>", "sleep\nX\n", "xX/y"] {
            assert!(Sought::new(Secret::new(strong)).is_in(&text.replace('X', strong)), "{text}");
        }
        for text in ["Xs", "no-X", "/etc/X", "pass /etc/X", "password X-x", "echo x >X", "passX"] {
            assert!(!Sought::new(Secret::new("s3cret")).is_in(&text.replace('X', "s3cret")), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_a_password_somewhere_is_a_word_elsewhere() {
        for (secret, text) in [
            ("root", "17 * * * * root cd / && run-parts --report /etc/cron.hourly\n"),
            ("redis", "setpriv\n--reuid\nredis\n--clear-groups"),
            ("root", "USER=root\nHOME=/root\n"),
            ("test", "if test -x /usr/bin/x; then\n"),
        ] {
            assert!(!Sought::new(Secret::new(secret)).is_in(text), "{secret}: {text}");
        }
    }
}
