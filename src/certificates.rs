//! Which certificates the instances and the web app need, which are there, and which are made anew: an
//! authority of this machine's own, and what it signs, in a directory beside the topology.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::ServerName;

use crate::exit::Fault;
use crate::host::Host;
use crate::runtime::container;
use crate::secret::Secret;
use crate::secrets;
use crate::tls::issue::{Authority, Holder, LAST_RENEWAL, RENEWAL};
use crate::tls::judge::{self, Flaw, Validity};
use crate::tls::{Pem, Tls};
use crate::topology::{BindAddress, Name, RuntimeChoice, Section, Topology};

/// Where they are.
pub fn dir() -> PathBuf {
    secrets::dir().join("tls")
}

/// The authorities that are trusted: our own first, then those of other machines.
pub fn authorities() -> PathBuf {
    dir().join("ca.crt")
}

/// The key of our own authority.
pub fn authority_key() -> PathBuf {
    dir().join("ca.key")
}

/// What the instances show each other, and we to them.
pub fn of_servers() -> Tls {
    at(&dir(), "server")
}

/// What the web app shows.
pub fn of_app() -> Tls {
    at(&dir(), "app")
}

/// The files of a holder in a directory.
pub fn at(dir: &Path, holder: &str) -> Tls {
    Tls {
        ca: dir.join("ca.crt"),
        cert: dir.join(format!("{holder}.crt")),
        key: dir.join(format!("{holder}.key")),
    }
}

/// What is to be made anew although it would serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Renewal {
    /// Only what does not serve, or not for long.
    #[default]
    Due,
    /// Every certificate.
    Certificates,
    /// The authority, and with it every certificate. The former one stays trusted beside it.
    Authority,
    /// Nothing; these authorities of other machines are trusted, too.
    Trust(String),
    /// Nothing; no authority is trusted but our own.
    Forget,
}

/// The certificates of a machine, as they are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// That of the instances.
    pub server: Pem,
    /// That of the web app, where one is wanted.
    pub app: Option<Arc<Pem>>,
    /// Those of instances that have certificates of the user's own, as far as they can be read.
    pub own: BTreeMap<Name, Arc<Pem>>,
    /// The files that are not on disk yet.
    pub fresh: Vec<Fresh>,
    /// Why nothing can be changed with them, and the cure.
    pub trouble: Option<(String, String)>,
}

/// A file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Its path.
    pub path: PathBuf,
    /// Its text.
    pub text: Secret,
    /// Who may read it.
    pub reader: Reader,
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Everybody.
    All,
    /// Its owner alone: us.
    Us,
    /// The server's user alone.
    Server,
}

/// Reads what is kept, and makes what is wanted and does not serve.
///
/// # Errors
/// A file cannot be read; something has to be signed, and the authority's key is not there or another one's.
pub fn load(host: &Host, topology: &Topology, renewal: &Renewal) -> Result<Certificates> {
    let mut work = Work::new(host);
    let ca = work.authorities(renewal)?;
    let anew = matches!(renewal, Renewal::Certificates | Renewal::Authority);
    let must = must(topology);
    let mut reached = must.clone();
    reached.extend(may(host, topology).into_iter().filter(|name| !must.contains(name)));
    // What nobody shows need not be another.
    let shown = topology.instances.iter().any(|section| files(section).cert == of_servers().cert);
    let holder = Holder { name: "redis-tp server", reached: &reached };
    let server = work.one(&of_servers(), &ca, &holder, &must, anew && shown)?;
    let app = match &topology.app {
        Some(section) => Some(Arc::new(match section.files() {
            Some(files) => work.of_the_users_app(&files),
            None => {
                let holder = Holder { name: "redis-tp app", reached: &[] };
                work.one(&of_app(), &ca, &holder, &[], anew)?
            }
        })),
        None => None,
    };
    let own = topology.instances.iter().filter_map(|section| {
        let files = files(section);
        let own = (files != of_servers()).then(|| read(host, &files).ok()).flatten();
        Some((section.name.clone(), Arc::new(own?)))
    });
    Ok(Certificates { server, app, own: own.collect(), fresh: work.fresh, trouble: work.trouble })
}

/// The files of an instance: those that its section names, and else ours.
pub fn files(section: &Section) -> Tls {
    let ours = of_servers();
    let file = |name: &str, ours: PathBuf| {
        let named = section.directives.iter().rev().find(|named| named.name == name);
        named.and_then(|named| named.args.first()).map_or(ours, PathBuf::from)
    };
    Tls {
        ca: file("tls-ca-cert-file", ours.ca),
        cert: file("tls-cert-file", ours.cert),
        key: file("tls-key-file", ours.key),
    }
}

/// Who shows a certificate, and by which files: the instances by ours, or each by its own, and the web app.
pub fn shown(topology: &Topology) -> Vec<(String, Tls)> {
    let mut all: Vec<(String, Tls)> = Vec::new();
    for section in &topology.instances {
        let files = files(section);
        match all.iter_mut().find(|(_, other)| *other == files) {
            Some((holder, _)) if files != of_servers() => *holder += &format!(", {}", section.name),
            Some(_) => {}
            None if files == of_servers() => all.push(("instances".to_owned(), files)),
            None => all.push((section.name.to_string(), files)),
        }
    }
    let app = topology.app.as_ref().map(|app| ("web app".to_owned(), app.files().unwrap_or_else(of_app)));
    all.into_iter().chain(app).collect()
}

/// What is in the files, whether it serves or not.
///
/// # Errors
/// One of them is not there, or cannot be read.
pub fn read(host: &Host, files: &Tls) -> Result<Pem> {
    collect(files, |path| host.text(path)?.with_context(|| format!("{} is not there", path.display())))
}

/// The same by whoever reads a file.
///
/// # Errors
/// The reader's.
pub fn collect<E>(files: &Tls, text: impl Fn(&Path) -> Result<String, E>) -> Result<Pem, E> {
    Ok(Pem { ca: text(&files.ca)?, cert: text(&files.cert)?, key: Secret::new(text(&files.key)?) })
}

/// A certificate for a client on another machine, with what it needs to know of us.
///
/// # Errors
/// The authority cannot sign.
pub fn for_client(host: &Host, name: &str) -> Result<Pem> {
    let Some(ca) = host.text(&authorities())? else {
        let what = format!("there is no authority yet that could sign: no {}", authorities().display());
        return Err(Fault::refused(what).hint("let the instances speak TLS first:\nredis-tp apply").into());
    };
    let mut work = Work::new(host);
    work.sign(&ca, &Holder { name, reached: &[] }, &[])
}

/// The names under which clients of this machine's own reach its instances, which a certificate has to have.
fn must(topology: &Topology) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let binds = topology.instances.iter().flat_map(|section| section.bind.iter().flatten());
    names.extend(binds.filter_map(|bind| match bind.address {
        BindAddress::Ip(ip) if !ip.is_unspecified() => Some(ip.to_string()),
        _ => None,
    }));
    if matches!(topology.runtime, RuntimeChoice::Docker | RuntimeChoice::Podman) {
        let contained = topology.instances.iter();
        names.extend(contained.map(|section| container::of_instance(topology.engine, section.name.as_str())));
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// The names under which others may reach it: what they are at this moment is good enough.
fn may(host: &Host, topology: &Topology) -> Vec<String> {
    let exposed = |section: &Section| section.bind.iter().flatten().any(|bind| !bind.is_loopback());
    if !topology.instances.iter().any(exposed) {
        return Vec::new();
    }
    let name = host.text(Path::new("/proc/sys/kernel/hostname")).ok().flatten().unwrap_or_default();
    let name = Some(name.trim().to_owned()).filter(|name| ServerName::try_from(name.as_str()).is_ok());
    let all = host.addresses().into_iter().filter(|ip| !ip.is_loopback()).map(|ip| ip.to_string());
    name.into_iter().chain(all).collect()
}

struct Work<'a> {
    host: &'a Host,
    now: u64,
    fresh: Vec<Fresh>,
    /// Who signs, once something has to be signed or was made.
    authority: Option<Authority>,
    /// Why nothing can be changed, and the cure: who only asks goes on with what there is.
    trouble: Option<(String, String)>,
}

impl<'a> Work<'a> {
    fn new(host: &'a Host) -> Self {
        Self { host, now: host.unix_time(), fresh: Vec::new(), authority: None, trouble: None }
    }

    /// The authorities that are trusted; the first is made where there is none.
    fn authorities(&mut self, renewal: &Renewal) -> Result<String> {
        let kept = self.host.text(&authorities());
        let kept = kept.map_err(|error| lost(&authorities(), "cannot be read", &format!("{error:#}")))?;
        let former = kept.clone().unwrap_or_default();
        let ca = match renewal {
            // In time, so that it is known elsewhere before anything is shown that it signed.
            _ if *renewal == Renewal::Authority || (*renewal == Renewal::Due && self.ends_soon(&former)) => {
                self.new_authority()? + &self.still_valid(&former)
            }
            _ if kept.is_none() => {
                if self.host.stat(&authority_key())?.is_some() {
                    return Err(
                        gone(&authorities(), "the authority's key is there without its certificate").into()
                    );
                }
                let trusted = match renewal {
                    Renewal::Trust(others) => blocks(others).concat(),
                    _ => String::new(),
                };
                self.new_authority()? + &trusted
            }
            Renewal::Forget => self.own_alone(&former)?,
            Renewal::Trust(others) => {
                let there = blocks(&former);
                let new: String = blocks(others).into_iter().filter(|block| !there.contains(block)).collect();
                // The last line of a file may have no end.
                let end = if new.is_empty() || former.ends_with('\n') { "" } else { "\n" };
                format!("{former}{end}{new}")
            }
            _ => former.clone(),
        };
        if Some(&ca) != kept.as_ref() {
            self.write(authorities(), Secret::new(&ca), Reader::All);
        }
        Ok(ca)
    }

    /// Our own authority, where all that we show is signed by it: else nobody would get in any more.
    fn own_alone(&self, ca: &str) -> Result<String> {
        let own = blocks(ca).into_iter().next().unwrap_or_default();
        for files in [of_servers(), of_app()] {
            let Ok(pem) = read(self.host, &files) else { continue };
            if judge::client(&Pem { ca: own.clone(), ..pem }, self.now) == Err(Flaw::OtherAuthority) {
                let what =
                    format!("{} is signed by an authority that is to be forgotten", files.cert.display());
                return Err(Fault::refused(what).hint("make another first:\nredis-tp tls rotate").into());
            }
        }
        Ok(own)
    }

    fn ends_soon(&self, ca: &str) -> bool {
        let own = judge::validities(ca).ok().and_then(|all| all.first().copied());
        own.is_some_and(|own| days_left(own, self.now) <= RENEWAL)
    }

    fn new_authority(&mut self) -> Result<String> {
        let machine = self.host.text(Path::new("/proc/sys/kernel/hostname")).ok().flatten();
        let machine = machine.as_deref().map_or("this machine", str::trim).to_owned();
        let authority = Authority::new(self.host.new_key()?, &machine, self.now)?;
        self.write(authority_key(), authority.key.clone(), Reader::Us);
        let cert = authority.cert.clone();
        self.authority = Some(authority);
        Ok(cert)
    }

    /// Authorities that have not ended: one that has is nobody's any more.
    fn still_valid(&self, ca: &str) -> String {
        let holds = |block: &String| {
            judge::validities(block).is_ok_and(|all| all.iter().all(|validity| validity.until > self.now))
        };
        blocks(ca).into_iter().filter(holds).collect()
    }

    /// The certificate of a holder as it is kept, or another one.
    fn one(
        &mut self,
        files: &Tls,
        ca: &str,
        holder: &Holder<'_>,
        must: &[String],
        anew: bool,
    ) -> Result<Pem> {
        let text = |path: &Path| self.host.text(path);
        let kept = match (text(&files.cert)?, text(&files.key)?) {
            (Some(cert), Some(key)) => Some(Pem { ca: ca.to_owned(), cert, key: Secret::new(key) }),
            _ => None,
        };
        let serves = |pem: &Pem| {
            let judged = judge::server(pem, must, self.now);
            judged.is_ok_and(|validity| days_left(validity, self.now) > margin(pem, self.now))
        };
        if let Some(pem) = kept.clone().filter(|pem| !anew && serves(pem)) {
            return Ok(pem);
        }
        let pem = match self.sign(ca, holder, must) {
            Ok(pem) => pem,
            Err(error) => {
                let fault = error.downcast::<Fault>()?;
                let last = kept.unwrap_or_else(|| nothing(ca));
                // What holds a while yet is no trouble, unless it was to be another.
                if anew || judge::server(&last, &[], self.now).is_err() {
                    self.note(&fault);
                }
                return Ok(last);
            }
        };
        let reader = if holder.reached.is_empty() { Reader::Us } else { Reader::Server };
        self.write(files.cert.clone(), Secret::new(&pem.cert), Reader::All);
        self.write(files.key.clone(), pem.key.clone(), reader);
        Ok(pem)
    }

    /// What the user gives to the web app.
    fn of_the_users_app(&mut self, files: &Tls) -> Pem {
        let flawed = match read(self.host, files) {
            Ok(pem) => match judge::client(&pem, self.now) {
                Ok(_) => return pem,
                Err(flaw) => (format!("{} {}", flaw.file(files).display(), flaw.words()), pem),
            },
            Err(error) => (format!("{error:#}"), nothing("")),
        };
        let cure = "give it a certificate that serves, its key, and the authority that signed it";
        self.note(&Fault::refused(format!("[app] {}", flawed.0)).hint(cure));
        flawed.1
    }

    fn note(&mut self, fault: &Fault) {
        let cure = fault.cure().unwrap_or_default().to_owned();
        self.trouble.get_or_insert_with(|| (fault.to_string(), cure));
    }

    fn sign(&mut self, ca: &str, holder: &Holder<'_>, must: &[String]) -> Result<Pem> {
        let (key, now) = (self.host.new_key()?, self.now);
        let cert = self.authority(ca)?.sign(holder, &key, now).map_err(cannot_sign)?;
        let pem = Pem { ca: ca.to_owned(), cert, key };
        judge::server(&pem, must, now).map_err(|flaw| unfit(&flaw))?;
        Ok(pem)
    }

    /// Who signs: the first authority of the file, with its key.
    fn authority(&mut self, ca: &str) -> Result<&Authority> {
        if self.authority.is_none() {
            let path = authority_key();
            let key =
                self.host.text(&path)?.ok_or_else(|| gone(&path, "nothing can be signed without it"))?;
            let cert = blocks(ca).into_iter().next();
            let cert = cert.ok_or_else(|| {
                lost(&authorities(), "has no certificate in PEM in it", "nothing can be signed without it")
            })?;
            self.authority = Some(Authority { cert, key: Secret::new(key) });
        }
        self.authority.as_ref().context("there is no authority")
    }

    fn write(&mut self, path: PathBuf, text: Secret, reader: Reader) {
        self.fresh.push(Fresh { path, text, reader });
    }
}

fn nothing(ca: &str) -> Pem {
    Pem { ca: ca.to_owned(), cert: String::new(), key: Secret::new("") }
}

/// How many days before its end a certificate is made anew. What a former authority signed is shown for longer: clients
/// elsewhere may not know its successor yet.
pub fn margin(pem: &Pem, now: u64) -> u64 {
    let own = blocks(&pem.ca).into_iter().next().unwrap_or_default();
    match judge::client(&Pem { ca: own, ..pem.clone() }, now) {
        Err(Flaw::OtherAuthority) => LAST_RENEWAL,
        _ => RENEWAL,
    }
}

/// How many days of a certificate are left.
pub fn days_left(validity: Validity, now: u64) -> u64 {
    validity.until.saturating_sub(now) / 86_400
}

/// The certificates of a PEM file, each with its marks.
fn blocks(pem: &str) -> Vec<String> {
    let end = "-----END CERTIFICATE-----";
    let block = |part: &str| {
        let begin = part.find("-----BEGIN CERTIFICATE-----")?;
        Some(format!("{}{end}\n", part.get(begin..)?))
    };
    pem.split(end).filter_map(block).collect()
}

/// How an authority is replaced that signs no more.
const ANOTHER: &str =
    "let redis-tp make another one; the former stays trusted beside it:\nredis-tp tls rotate --ca";

fn gone(path: &Path, why: &str) -> Fault {
    lost(path, "is gone", why)
}

fn lost(path: &Path, what: &str, why: &str) -> Fault {
    Fault::refused(format!("{} {what}: {why}", path.display())).hint(format!(
        "put it back; or begin with another authority, which clients elsewhere\nhave to learn of:\nmv {0} {0}.aside\nredis-tp apply",
        dir().display()
    ))
}

/// The authority's key, or its certificate, is none.
fn cannot_sign(error: anyhow::Error) -> Fault {
    let (key, ca) = (authority_key(), authorities());
    Fault::refused(format!("nothing can be signed by {} and {}: {error:#}", key.display(), ca.display()))
        .hint(ANOTHER)
}

/// What was just signed does not serve: the authority has ended, or its key is another one's.
fn unfit(flaw: &Flaw) -> Fault {
    let why = flaw.words();
    Fault::refused(format!(
        "the certificate authority in {} cannot sign: what it signs {why}",
        dir().display()
    ))
    .hint(ANOTHER)
}
