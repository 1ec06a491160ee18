//! `redis-tp tls`: the certificates that there are, others in their place, and those of clients elsewhere.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::converge::{Session, converge, whole};
use super::scene::Wish;
use crate::certificates::{self, Renewal, days_left};
use crate::cli::{self, Tls};
use crate::exit::{Code, Fault};
use crate::host::{Host, Kind};
use crate::layout;
use crate::moment;
use crate::report::certificates::{Entry, lines};
use crate::report::console::{self, NOTE, styled};
use crate::tls::issue::RENEWAL;
use crate::tls::judge::{self, Validity};
use crate::topology::{self, EMPTY};

/// Runs the verb.
///
/// # Errors
/// No TLS is spoken here; or see [`converge`].
pub fn run(host: &Host, args: &Tls) -> Result<Code> {
    match args {
        Tls::Show(report) => show(host, report),
        Tls::Rotate(rotate) => {
            let renewal = if rotate.ca { Renewal::Authority } else { Renewal::Certificates };
            renew(host, "tls rotate", &rotate.change, renewal)
        }
        Tls::Trust(trust) => {
            let text = others(host, &trust.file)?;
            if host.stat(topology::file())?.is_some() {
                return renew(host, "tls trust", &trust.change, Renewal::Trust(text));
            }
            begin(host, &trust.change, text)
        }
        Tls::Client(client) => issue(host, client),
    }
}

fn renew(host: &Host, command: &str, change: &cli::Change, renewal: Renewal) -> Result<Code> {
    let authority = renewal == Renewal::Authority;
    let wish = |host: &Host| Ok(Wish { renewal, ..spoken(host)? });
    let outcome = converge(host, command, change, wish, whole(change.consent()))?;
    let code = outcome.finish(command, change, None)?;
    if outcome.changed && !change.json {
        let elsewhere = outcome.scene.instances.iter().any(|instance| !instance.is_local());
        if authority && elsewhere {
            let file = certificates::authorities();
            console::err(format_args!(
                "{} clients on other machines trust the former authority only: give them {},\nand each a certificate of the new one (`redis-tp tls client`)",
                styled(NOTE, "note:"),
                file.display()
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
        host.text(file).map_err(|error| Fault::refused(format!("{error:#}")).hint("give a file in PEM"))?;
    let text = text.ok_or_else(|| refused("is not there"))?;
    let all = judge::validities(&text).map_err(|_| refused("has no certificate in PEM in it"))?;
    if !judge::are_authorities(&text) {
        return Err(refused("has a certificate in it that is of no authority").into());
    }
    let now = host.unix_time();
    match all.iter().find(|validity| validity.until < now) {
        Some(ended) => Err(refused(&format!("expired on {}", moment::utc(ended.until))).into()),
        None => Ok(text),
    }
}

#[derive(Debug, Serialize)]
struct Json<'a> {
    schema: u32,
    certificates: &'a [Entry],
}

fn show(host: &Host, report: &cli::Report) -> Result<Code> {
    spoken(host)?;
    let now = host.unix_time();
    let mut entries = Vec::new();
    let files = [
        ("authority", certificates::authorities()),
        ("instances", certificates::of_servers().cert),
        ("web app", certificates::of_app().cert),
    ];
    for (holder, path) in files {
        let Some(text) = host.text(&path)? else { continue };
        let all = judge::validities(&text)
            .map_err(|flaw| Fault::refused(format!("{} {}", path.display(), flaw.words())))?;
        // Behind a certificate stand those between it and its authority, and behind the authority others.
        let own = if holder == "authority" { all.len() } else { 1 };
        entries.extend(all.into_iter().take(own).map(|Validity { from, until }| Entry {
            holder,
            file: path.display().to_string(),
            from,
            until,
            days_left: days_left(Validity { from, until }, now),
        }));
    }
    if report.json {
        console::json(&Json { schema: 1, certificates: &entries })?;
    } else {
        lines(&entries).into_iter().for_each(console::out);
        console::next(&[
            ("redis-tp tls rotate", "others in their place"),
            ("redis-tp tls client NAME DIR", "one for a client on another machine"),
        ]);
    }
    let due = entries.iter().any(|entry| entry.days_left <= RENEWAL);
    Ok(if due { Code::Findings } else { Code::Done })
}

/// Signs a certificate for a client elsewhere.
fn issue(host: &Host, args: &cli::TlsClient) -> Result<Code> {
    let _session = Session::open(host, false)?;
    let topology = spoken(host)?.parsed()?;
    let signed = certificates::for_client(host, &topology, &args.name)?;
    let files = certificates::at(&args.dir, &args.name);
    if let Some(there) =
        [&files.ca, &files.cert, &files.key].into_iter().find(|path| !matches!(host.stat(path), Ok(None)))
    {
        return Err(Fault::refused(format!("{} is there already", there.display()))
            .hint("give another directory, or another name")
            .into());
    }
    let own = layout::here().own();
    match host.stat(&args.dir)? {
        None => host.directory(&args.dir, own, 0o700)?,
        Some(stat) if stat.kind == Kind::Dir && stat.uid == own.uid => {}
        // Whose it is could lead the key elsewhere, or put an authority of his own beside it.
        Some(_) => {
            return Err(Fault::refused(format!("{} is no directory of this user's", args.dir.display()))
                .hint("give one that is not there yet, and it is made")
                .into());
        }
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
