//! By what a server speaks TLS: its certificate, its key, and whom it hears.

use std::path::{Path, PathBuf};

use super::files::closed;
use super::fix::Fix;
use super::reach::{unasked, wrong};
use super::seen::{Certified, Seen, Server};
use super::{Severity, Verdict, put_right};
use crate::certificates::{self, days_left};
use crate::finding::Finding;
use crate::host::{Host, Stat};
use crate::layout;
use crate::moment;
use crate::tls::judge::{Flaw, Validity};
use crate::tls::{Tls, judge};

/// How many days before its end a certificate is told of: a redis-tp that runs now and then has renewed its own by
/// then.
const SOON: u64 = 30;

/// Reads what a server speaks TLS with; none where it speaks none.
pub(super) fn look(host: &Host, server: &Server) -> Option<Certified> {
    server.value("tls-port").filter(|port| port != "0")?;
    let path = |name: &str| server.value(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (cert, key) = (path("tls-cert-file")?, path("tls-key-file")?);
    let text = |path: &Path| host.text(path).ok().flatten();
    let read = || {
        let ca = path("tls-ca-cert-file")?;
        certificates::read(host, &Tls { ca, cert: cert.clone(), key: key.clone() }).ok()
    };
    let now = host.unix_time();
    let judged = match (&server.instance, &server.address) {
        (Some(_), Some(at)) => read().map(|pem| judge::server(&pem, std::slice::from_ref(&at.host), now)),
        // What its clients ask of it is not known here, but for the time.
        _ => text(&cert).map(|cert| of_today(&cert, now)),
    };
    let with_stat = |path: PathBuf| Some((path.clone(), host.stat(&path).ok()??));
    let ours = [certificates::authority_key(), certificates::of_app().key];
    let ours = ours.into_iter().filter(|_| server.instance.is_some());
    let keys = [key].into_iter().chain(ours).filter_map(with_stat).collect();
    Some(Certified { cert, judged, now, keys })
}

fn of_today(cert: &str, now: u64) -> Result<Validity, Flaw> {
    match judge::validities(cert)?.first() {
        Some(validity) if validity.until < now => Err(Flaw::Expired(validity.until)),
        Some(validity) => Ok(*validity),
        None => Err(Flaw::NoCertificate),
    }
}

/// Its certificate serves, and for a while.
pub(super) fn certificate(_: &Seen, server: &Server) -> Verdict {
    let Some(certified) = &server.certified else { return speaks_none(server) };
    let file = certified.cert.display();
    let ours = server.instance.is_some() && certified.cert == certificates::of_servers().cert;
    let renew =
        if ours { put_right(server).to_owned() } else { format!("openssl x509 -in {file} -noout -text") };
    let bad = |found: String, cause: &str| {
        let verdict = Verdict::from(Finding::fail(found, cause, renew.clone()));
        if ours { verdict.with(Fix::Renew) } else { verdict }
    };
    match &certified.judged {
        None => Finding::unknown(
            format!("{file}, its key or its authority cannot be read here"),
            if ours { "redis-tp apply".to_owned() } else { format!("ls -l {file}") },
        )
        .into(),
        Some(Err(flaw)) => bad(format!("{file} {}", flaw.words()), "clients that look at it speak to nobody"),
        Some(Ok(validity)) => match days_left(*validity, certified.now) {
            days if days < SOON => bad(
                format!("{file} expires on {}, in {days} days", moment::day(validity.until)),
                "from then on nobody speaks to this server",
            )
            .rated(Severity::Medium),
            days => Finding::pass(format!("until {}, {days} days left", moment::day(validity.until))).into(),
        },
    }
}

/// Nobody else reads the keys.
pub(super) fn keys(seen: &Seen, server: &Server) -> Verdict {
    let Some(certified) = &server.certified else { return speaks_none(server) };
    let cause = "who has it passes for this server, or reads what it hears";
    let ours = |path: &Path| path.starts_with(certificates::dir());
    let stranger = |stat: &Stat| {
        stat.uid != layout::here().own().uid && seen.user.is_some_and(|user| user.uid != stat.uid)
    };
    if let Some((path, stat)) = certified.keys.iter().find(|(path, stat)| ours(path) && stranger(stat)) {
        let found = format!("{} belongs to user {}", path.display(), stat.uid);
        return Finding::fail(found, cause, "redis-tp apply").into();
    }
    // Nobody of the server's group needs what is ours.
    let wrong = |path: &Path| if ours(path) { 0o077 } else { 0o037 };
    let open = certified.keys.iter().find(|(path, stat)| stat.mode & wrong(path) != 0);
    match open.or(certified.keys.first()) {
        Some((path, stat)) => closed(seen, path, *stat, wrong(path), cause),
        None => Finding::unknown("its key is not where it says", "redis-cli CONFIG GET tls-key-file").into(),
    }
}

/// It hears clients that can show a certificate of its authority.
pub(super) fn clients(_: &Seen, server: &Server) -> Verdict {
    if server.certified.is_none() {
        return speaks_none(server);
    }
    match server.value("tls-auth-clients").as_deref() {
        Some("yes") => Finding::pass("a client has to show a certificate of its authority").into(),
        Some(_) if server.beyond().is_empty() => Finding::pass("the network does not reach it").into(),
        Some(word) => wrong(
            server,
            format!("tls-auth-clients is {word}"),
            "a client needs no certificate, only the password",
            "tls-auth-clients",
            "yes",
        ),
        None => unasked(server, "tls-auth-clients"),
    }
}

fn speaks_none(server: &Server) -> Verdict {
    match server.value("tls-port") {
        Some(_) => Finding::skip("it speaks no TLS: see cleartext").into(),
        None => unasked(server, "tls-port"),
    }
}
