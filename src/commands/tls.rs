//! `redis-tp tls`: the certificates that there are, others in their place, and those of clients elsewhere.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::converge::{Session, converge, whole};
use super::scene::Wish;
use crate::certificates::{self, Renewal, days_left};
use crate::cli;
use crate::exit::{Code, Fault};
use crate::host::{Host, Kind};
use crate::layout;
use crate::moment;
use crate::report::certificates::{Entry, lines};
use crate::report::console::{self, NOTE, styled};
use crate::tls::Tls;
use crate::tls::issue::RENEWAL;
use crate::tls::judge::{self, Validity};
use crate::topology::{self, EMPTY};

/// Runs the verb.
///
/// # Errors
/// No TLS is spoken here; or see [`converge`].
pub fn run(host: &Host, args: &cli::Tls) -> Result<Code> {
    match args {
        cli::Tls::Show(report) => show(host, report),
        cli::Tls::Rotate(rotate) => {
            let (command, renewal) = match rotate.ca {
                true => ("tls rotate --ca", Renewal::Authority),
                false => ("tls rotate", Renewal::Certificates),
            };
            renew(host, command, &rotate.change, renewal)
        }
        cli::Tls::Trust(trust) => {
            let text = others(host, &trust.file)?;
            if host.stat(topology::file())?.is_some() {
                return renew(host, "tls trust", &trust.change, Renewal::Trust(text));
            }
            begin(host, &trust.change, text)
        }
        cli::Tls::Forget(forget) => renew(host, "tls forget", &forget.change, Renewal::Forget),
        cli::Tls::Client(client) => issue(host, client),
    }
}

fn renew(host: &Host, command: &str, change: &cli::Change, renewal: Renewal) -> Result<Code> {
    let forgets = renewal == Renewal::Forget;
    let wish = |host: &Host| Ok(Wish { renewal, ..spoken(host)? });
    let outcome = converge(host, command, change, wish, whole(change.consent()))?;
    let code = outcome.finish(command, change, None)?;
    if outcome.changed && !change.json {
        if forgets {
            console::err(format_args!(
                "{} connections that are open stay; CLIENT LIST has them, and CLIENT KILL ends them",
                styled(NOTE, "note:")
            ));
        }
        console::next(&[
            ("redis-tp tls show", "until when they hold"),
            ("redis-tp verify", "prove that it works"),
        ]);
    }
    Ok(code)
}

/// Trusts another machine where nothing is set up yet: it has to trust this one as well, before a replica here can
/// follow a master there.
fn begin(host: &Host, change: &cli::Change, text: String) -> Result<Code> {
    let wish = |host: &Host| {
        let mut wish = Wish::standing_or(host, EMPTY)?;
        wish.document.set("redis-tp", "tls", "yes");
        Ok(Wish { renewal: Renewal::Trust(text), ..wish })
    };
    let outcome = converge(host, "tls trust", change, wish, whole(change.consent()))?;
    let code = outcome.finish("tls trust", change, None)?;
    if outcome.changed && !change.json {
        let own = format!("redis-tp tls trust {}", certificates::authorities().display());
        console::next(&[(&own, "on the other machine, with this file of this one")]);
    }
    Ok(code)
}

/// The topology of this machine, where it speaks TLS.
fn spoken(host: &Host) -> Result<Wish> {
    let wish = Wish::standing(host)?;
    match wish.parsed()?.tls {
        true => Ok(wish),
        false => Err(Fault::refused("no TLS is spoken here: [redis-tp] has no `tls = yes`")
            .hint("let the instances speak it:\nredis-tp install --tls")
            .into()),
    }
}

/// The authorities of another machine.
fn others(host: &Host, file: &Path) -> Result<String> {
    let refused = |what: &str| {
        Fault::refused(format!("{} {what}", file.display()))
            .hint("give the ca.crt of the other machine, /etc/redis-tp/tls/ca.crt there")
    };
    let text =
        host.given(file).map_err(|error| Fault::refused(format!("{error:#}")).hint("give a file in PEM"))?;
    let text = text.ok_or_else(|| refused("is not there"))?;
    let all = judge::validities(&text).map_err(|_| refused("has no certificate in PEM in it"))?;
    if !judge::are_authorities(&text) {
        return Err(refused(
            "has a certificate in it that is of no authority, or whose own authority is missing",
        )
        .into());
    }
    let now = host.unix_time();
    match all.iter().find(|validity| validity.until < now) {
        Some(ended) => Err(refused(&format!("expired on {}", moment::utc(ended.until))).into()),
        None => Ok(text),
    }
}

/// What the certificates are called that sign others.
const AUTHORITY: &str = "authority";

#[derive(Debug, Serialize)]
struct Json<'a> {
    schema: u32,
    certificates: &'a [Entry],
}

fn show(host: &Host, report: &cli::Report) -> Result<Code> {
    let topology = spoken(host)?.parsed()?;
    let mut entries = Vec::new();
    for (holder, files) in certificates::shown(&topology) {
        entries.extend(entries_of(host, &holder, &files)?);
    }
    // Authorities stand in the files of several.
    let mut seen = BTreeSet::new();
    entries.retain(|entry: &Entry| seen.insert((entry.holder.clone(), entry.file.clone(), entry.until)));
    entries.sort_by_key(|entry| entry.holder != AUTHORITY);
    if report.json {
        console::json(&Json { schema: 1, certificates: &entries })?;
    } else {
        lines(&entries).into_iter().for_each(console::out);
        console::next(&[
            ("redis-tp tls rotate", "others in their place"),
            ("redis-tp tls client NAME DIR", "one for a client on another machine"),
        ]);
    }
    let due = entries.iter().any(|entry| entry.due);
    Ok(if due { Code::Findings } else { Code::Done })
}

/// What is in the files of a holder: the authorities that it trusts, and its own certificate.
fn entries_of(host: &Host, holder: &str, files: &Tls) -> Result<Vec<Entry>> {
    let now = host.unix_time();
    let all = |path: &Path| -> Result<Vec<Validity>> {
        let Some(text) = host.text(path)? else { return Ok(Vec::new()) };
        let all = judge::validities(&text);
        Ok(all.map_err(|flaw| Fault::refused(format!("{} {}", path.display(), flaw.words())))?)
    };
    let entry = |holder: &str, path: &Path, Validity { from, until }: Validity, margin: u64| Entry {
        holder: holder.to_owned(),
        file: path.display().to_string(),
        from,
        until,
        days_left: days_left(Validity { from, until }, now),
        due: days_left(Validity { from, until }, now) <= margin,
    };
    let margin = certificates::read(host, files).map_or(RENEWAL, |pem| certificates::margin(&pem, now));
    // Behind a certificate stand those between it and its authority.
    let own = all(&files.cert)?.into_iter().take(1).map(|own| entry(holder, &files.cert, own, margin));
    // Only our own, which stands first, has a successor before its end.
    let of_authority = |(at, one)| entry(AUTHORITY, &files.ca, one, if at == 0 { RENEWAL } else { 0 });
    Ok(all(&files.ca)?.into_iter().enumerate().map(of_authority).chain(own).collect())
}

/// Signs a certificate for a client elsewhere.
fn issue(host: &Host, args: &cli::TlsClient) -> Result<Code> {
    let _session = Session::open(host, false)?;
    spoken(host)?;
    let signed = certificates::for_client(host, &args.name)?;
    let files = certificates::at(&args.dir, &args.name);
    if let Some(there) =
        [&files.ca, &files.cert, &files.key].into_iter().find(|path| !matches!(host.stat(path), Ok(None)))
    {
        return Err(Fault::refused(format!("{} is there already", there.display()))
            .hint("it may be of another client: give a directory for this one alone")
            .into());
    }
    let own = layout::here().own();
    let refused = |what: &str| {
        Fault::refused(format!("{} {what}", args.dir.display()))
            .hint("give one that is not there yet, and it is made")
    };
    // Who may write there, or whose it is, could lead the key elsewhere, or put an authority of his own beside it.
    match host.stat(&args.dir)? {
        None => host.directory(&args.dir, own, 0o700)?,
        Some(stat) if stat.kind != Kind::Dir || stat.uid != own.uid => {
            return Err(refused("is no directory of this user's").into());
        }
        Some(stat) if stat.mode & 0o022 != 0 => {
            return Err(refused("is a directory in which others may write").into());
        }
        Some(_) => {}
    }
    for (path, text, mode) in [
        (&files.ca, signed.ca.as_str(), 0o644),
        (&files.cert, signed.cert.as_str(), 0o644),
        (&files.key, signed.key.expose(), 0o600),
    ] {
        host.write(path, text.as_bytes(), own, mode)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    for path in [&files.ca, &files.cert, &files.key] {
        console::out(path.display());
    }
    let line = format!("redis-cli {} -h HOST", files.cli_line());
    console::next(&[(&line, "with these three files, on the client's machine")]);
    Ok(Code::Done)
}
