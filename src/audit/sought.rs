//! A password that is looked for in arguments, environments and files. Pure.

use super::users;
use crate::secret::Secret;

/// What stands before a password, in lower case, at its end.
const NAMES: [&str; 8] = ["-a", "pass", "password", "passwd", "auth", "motdepasse", "secret", "pw"];

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

    /// Whether a text has it as a word of its own, or where programs take one. A common one counts only behind what
    /// names a password.
    pub(super) fn is_in(&self, text: &str) -> bool {
        let secret = self.secret.expose();
        if !text.contains(secret) {
            return false;
        }
        let between = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '=' | ';');
        let mut before = "";
        for word in text.split(between).filter(|word| !word.is_empty()) {
            let named =
                || NAMES.iter().any(|name| before.to_lowercase().trim_end_matches(':').ends_with(name));
            let glued = word.strip_prefix("-a").is_some_and(|rest| rest == secret);
            if glued || word.contains(&format!(":{secret}@")) || (word == secret && (!self.common || named()))
            {
                return true;
            }
            before = word;
        }
        // A password of several words, as a phrase is.
        secret.contains(between)
    }
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
                "--pass=X",
                "redis://:X@h:1",
                "u redis://app:X@h",
                "masterauth \"X\"",
                "REDISCLI_AUTH='X'",
                "password: X",
            ] {
                assert!(sought.is_in(&text.replace('X', secret)), "{text}");
            }
            for text in ["", "Xs", "no-X", "/etc/X"] {
                assert!(!sought.is_in(&text.replace('X', secret)), "{text}");
            }
        }
        assert!(Sought::new(Secret::new("four words of it")).is_in("x\nauth four words of it\n"));
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
        let strong = "9f86d081884c7d659a2feaa0c55ad015";
        assert!(Sought::new(Secret::new(strong)).is_in(&format!("sleep\n{strong}\n")));
    }
}
