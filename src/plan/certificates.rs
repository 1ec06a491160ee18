//! The files by which instances speak TLS: where they go, in which order servers are told of them, and what of
//! the user's own does not serve.

use std::path::{Path, PathBuf};

use super::change::Change;
use super::{Note, Plan, Wanted, as_it_runs};
use crate::app::App;
use crate::certificates::{self, Fresh, Reader};
use crate::exit::Fault;
use crate::facts::{Auth, Facts};
use crate::host::Kind;
use crate::instance::Instance;
use crate::layout;
use crate::runtime::container;
use crate::secret::Secret;
use crate::state::Kept;
use crate::step::{Body, Owner, Step};
use crate::tls::judge::{self, Flaw};
use crate::tls::{Pem, Tls};

/// The directory of what is ours.
pub fn places(wanted: &Wanted<'_>, facts: &Facts, plan: &mut Plan) {
    let path = certificates::dir();
    if wanted.secrets.tls.is_some() && facts.path(&path).is_none() {
        plan.steps.push(Step::Directory { path, owner: Owner::Root, mode: 0o755, copy: false });
    }
}

/// Writes what is new, and tells it to the servers that run: whom to trust first, so that at every moment each
/// side knows the other's signature.
pub fn files(wanted: &Wanted<'_>, facts: &Facts, changes: &[Change<'_>], plan: &mut Plan) {
    let Some(all) = &wanted.secrets.tls else { return };
    let hears = |change: &&Change<'_>| change.alive && !change.start && speaks(facts, change.instance);
    let told: Vec<&Change<'_>> = changes.iter().filter(hears).collect();
    let trust = [certificates::authorities(), certificates::authority_key()];
    let (first, then): (Vec<&Fresh>, Vec<&Fresh>) =
        all.fresh.iter().partition(|file| trust.contains(&file.path));
    let contained = wanted.instances.iter().filter(|instance| instance.runtime.is_container());
    let copies = |authority: bool| {
        let of = contained.clone().flat_map(|instance| copies(instance, &all.server));
        let due = of.filter(|(path, text)| facts.text(path) != Some(text.expose()));
        due.filter(move |(path, _)| path.ends_with("ca.crt") == authority)
            .map(|(path, text)| copy(path, text))
    };
    // In containers it is the image's user that reads copies of its own.
    let server = match contained.clone().next() {
        Some(_) => (Owner::Root, 0o600),
        None => (Owner::Server(wanted.topology.engine), 0o400),
    };
    for key in [certificates::authority_key(), certificates::of_app().key] {
        plan.steps.extend(hand_over(facts, &all.fresh, key, (Owner::Root, 0o600)));
    }
    let mut begin = plan.steps.len();
    plan.steps.extend(first.into_iter().map(|file| write(file, server)).chain(copies(true)));
    let written = plan.steps.len() != begin;
    let due = told.iter().filter(|change| written || trusts_others(facts, change.instance));
    plan.steps.extend(due.map(|change| tell(facts, change.instance)));
    begin = plan.steps.len();
    plan.steps.extend(then.into_iter().map(|file| write(file, server)).chain(copies(false)));
    plan.steps.extend(hand_over(facts, &all.fresh, certificates::of_servers().key, server));
    let other = |change: &&&Change<'_>| {
        plan.steps.len() != begin || shows_another(facts, change.instance, &all.server)
    };
    let stay = told.iter().filter(|change| change.restart.is_none()).filter(other);
    let tell: Vec<Step> = stay.map(|change| tell(facts, change.instance)).collect();
    plan.steps.extend(tell);
}

/// A key that is there is its reader's alone: it was another engine's, or of containers, or a hand changed its mode.
fn hand_over(facts: &Facts, fresh: &[Fresh], path: PathBuf, (owner, mode): (Owner, u32)) -> Option<Step> {
    let stat = facts.path(&path).filter(|_| !fresh.iter().any(|file| file.path == path))?;
    let reader = match owner {
        Owner::Server(_) => facts.user.map(|user| user.uid),
        _ => Some(layout::here().own().uid),
    };
    let right = reader == Some(stat.uid) && stat.mode & 0o077 == 0;
    (!right).then(|| Step::Own { paths: vec![path], owner, mode: Some(mode) })
}

/// Clients on other machines that have to learn of another authority than the former one.
pub fn elsewhere(wanted: &Wanted<'_>, facts: &Facts) -> Option<Note> {
    let (file, key) = (certificates::authorities(), certificates::authority_key());
    let fresh = wanted.secrets.tls.iter().flat_map(|all| &all.fresh).any(|fresh| fresh.path == key);
    let another = fresh && facts.path(&key).is_some();
    // Inside of a container every address is one of another machine.
    let reached = |own: &Instance| own.is_exposed() || !(own.is_local() || own.runtime.is_container());
    (another && wanted.instances.iter().any(reached)).then_some(Note::AnotherAuthority { file })
}

/// Instances that speak no TLS although the topology wants it: they have only what their sections name.
pub fn plain(wanted: &Wanted<'_>) -> impl Iterator<Item = Note> {
    let names = |own: &Instance| own.directives.iter().any(|named| named.name == "tls-port");
    let plain = move |own: &&Instance| wanted.topology.tls && own.tls.is_none() && !names(own);
    wanted.instances.iter().filter(plain).map(|own| Note::SpeaksPlain { instance: own.name.clone() })
}

/// Why a server that runs has to restart: it is to show other certificates, and nobody can tell it.
pub fn restart(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance) -> Option<String> {
    let running = facts.running.get(&instance.name);
    if instance.tls.is_some() && running.is_some_and(|running| running.untrusted) {
        return Some("its certificates are not those of its files".to_owned());
    }
    let fresh = wanted.secrets.tls.as_ref().is_some_and(|all| !all.fresh.is_empty());
    let deaf = running.is_none_or(|running| running.auth == Auth::Unknown);
    (fresh && deaf && uses_ours(instance)).then(|| "its certificates change".to_owned())
}

/// The first thing of the user's own certificates that stands in the way.
///
/// # Errors
/// A [`Fault`] that names the file.
pub fn impossible(wanted: &Wanted<'_>, facts: &Facts) -> Result<(), Fault> {
    let Some(all) = &wanted.secrets.tls else { return Ok(()) };
    if let Some((what, cure)) = &all.trouble {
        return Err(Fault::refused(what).hint(cure));
    }
    for instance in wanted.instances {
        match &instance.tls {
            Some(tls) if !uses_ours(instance) => own(wanted, facts, instance, &tls.files)?,
            _ => {}
        }
    }
    for instance in wanted.instances.iter().filter(|instance| instance.tls.is_some()) {
        as_client(wanted, facts, instance)?;
        strangers(wanted, facts, instance)?;
        app(wanted, facts, instance)?;
    }
    Ok(())
}

/// What an instance has to show, and whom it trusts.
fn pem(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance) -> Option<Pem> {
    let ours = wanted.secrets.tls.as_ref().map(|all| &all.server)?;
    let files = instance.tls.as_ref().map(|tls| &tls.files).filter(|_| !uses_ours(instance));
    let Some(files) = files else { return Some(ours.clone()) };
    let text = |path: &Path| match path == certificates::authorities() {
        true => Some(ours.ca.clone()),
        false => facts.text(path).map(str::to_owned),
    };
    certificates::collect(files, |path| text(path).ok_or(())).ok()
}

/// Refuses a replica and its master of which one does not trust the other's certificate.
fn strangers(wanted: &Wanted<'_>, facts: &Facts, replica: &Instance) -> Result<(), Fault> {
    let of = replica.upstream.as_ref().filter(|of| of.address.tls.is_some());
    let name = of.and_then(|of| of.instance.as_ref());
    let Some(master) = wanted.instances.iter().find(|other| Some(&other.name) == name) else { return Ok(()) };
    let as_client = replica.tls_client();
    if uses_ours(replica) && uses_ours(master) && as_client.is_none() {
        return Ok(());
    }
    for [trusts, shows] in [[replica, master], [master, replica]] {
        let shown = match as_client.as_ref().filter(|_| shows.name == replica.name) {
            Some(files) => in_files(wanted, facts, replica, files).ok(),
            None => pem(wanted, facts, shows),
        };
        let pems = pem(wanted, facts, trusts).zip(shown);
        if let Some(flaw) = pems.and_then(|(trusts, shows)| between(&trusts, &shows, facts.time)) {
            return Err(Fault::refused(format!(
                "[{}] would not take the certificate of [{}], which {}",
                trusts.name,
                shows.name,
                flaw.words()
            ))
            .hint("give both a tls-ca-cert-file that has the authorities of both"));
        }
    }
    Ok(())
}

/// What keeps one side from taking what the other shows.
fn between(trusts: &Pem, shows: &Pem, now: u64) -> Option<Flaw> {
    judge::client(&Pem { ca: trusts.ca.clone(), ..shows.clone() }, now).err()
}

fn own(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance, files: &Tls) -> Result<(), Fault> {
    let pem = in_files(wanted, facts, instance, files)?;
    let Err(flaw) = judge::server(&pem, &[instance.address().host], facts.time) else {
        return readable(facts, instance, files);
    };
    Err(unfit(instance, files, &flaw))
}

/// What the user has for an instance as a client of its master. Whether that takes it, [`strangers`] tells.
fn as_client(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let Some(files) = instance.tls_client() else { return Ok(()) };
    let pem = in_files(wanted, facts, instance, &files)?;
    match judge::client(&pem, facts.time) {
        Err(flaw) if flaw != Flaw::OtherAuthority => Err(unfit(instance, &files, &flaw)),
        _ => readable(facts, instance, &files),
    }
}

/// What is in the user's own files.
fn in_files(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance, files: &Tls) -> Result<Pem, Fault> {
    let name = &instance.name;
    let refused = |path: &Path, what: &str| Fault::refused(format!("[{name}] {} {what}", path.display()));
    if instance.runtime.is_container() {
        return Err(refused(&files.cert, "is a file of this machine, which no container sees")
            .hint(format!("take the lines tls-*-file out of [{name}]: redis-tp makes its own")));
    }
    let ours = certificates::of_servers();
    certificates::collect(files, |path| {
        if !path.is_absolute() {
            return Err(refused(path, "is no absolute path").hint(back(instance, "give one from / on")));
        }
        let fresh = wanted.secrets.tls.as_ref().filter(|_| *path == ours.ca).map(|all| all.server.ca.clone());
        fresh.or_else(|| facts.text(path).map(str::to_owned)).ok_or_else(|| {
            let what = match facts.path(path).map(|stat| stat.kind) {
                None => "is not there",
                Some(Kind::File) => "is no text, and so not in PEM",
                Some(_) => "is no file",
            };
            refused(path, what).hint(back(instance, "give the path of a file in PEM"))
        })
    })
}

fn back(instance: &Instance, hint: &str) -> String {
    format!("{hint},\nor take the lines tls-*-file out of [{}]: redis-tp makes its own", instance.name)
}

fn unfit(instance: &Instance, files: &Tls, flaw: &Flaw) -> Fault {
    let more = match flaw {
        Flaw::OtherAuthority | Flaw::AuthorityExpired(_) => format!(" ({})", files.ca.display()),
        Flaw::OtherKey => format!(" (not that of {})", files.key.display()),
        _ => String::new(),
    };
    let what = format!("[{}] {} {}{more}", instance.name, flaw.file(files).display(), flaw.words());
    let hint = match flaw {
        Flaw::Expired(_) | Flaw::AuthorityExpired(_) => "renew it",
        Flaw::OtherName(_) => "have it made for that name as well, for this machine's own programs",
        Flaw::NoRoot => "put the certificate of the root authority into it as well",
        Flaw::Purpose(_) => "have it made for serverAuth and clientAuth",
        _ => "give a certificate, its own key, and the authority that signed it",
    };
    Fault::refused(what).hint(back(instance, hint))
}

/// Refuses an app and a server of which one would not take what the other shows.
fn app(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance) -> Result<(), Fault> {
    let Some(section) = wanted.app.map(App::section) else { return Ok(()) };
    if uses_ours(instance) && section.files().is_none() {
        return Ok(());
    }
    let app = wanted.secrets.tls.as_ref().and_then(|all| all.app.as_deref());
    let Some((app, server)) = app.zip(pem(wanted, facts, instance)) else { return Ok(()) };
    let of_server = Pem { ca: app.ca.clone(), ..server.clone() };
    let name = instance.name.as_str();
    let of_app =
        between(&server, app, facts.time).map(|flaw| [name, "app", &flaw.words()].map(str::to_owned));
    let of_server = || {
        let flaw = judge::server(&of_server, &[instance.address().host], facts.time).err()?;
        Some(["app", name, &flaw.words()].map(str::to_owned))
    };
    match of_app.or_else(of_server) {
        None => Ok(()),
        Some([trusts, shows, why]) => Err(Fault::refused(format!(
            "[{trusts}] would not take the certificate of [{shows}], which {why}"
        ))
        .hint("give [app] a certificate of the same authority:\ntls-ca-cert-file = …\ntls-cert-file = …\ntls-key-file = …")),
    }
}

/// Refuses files that the server's user cannot read.
fn readable(facts: &Facts, instance: &Instance, files: &Tls) -> Result<(), Fault> {
    let all = [&files.ca, &files.cert, &files.key];
    all.into_iter().try_for_each(|path| readable_one(facts, instance, path))
}

fn readable_one(facts: &Facts, instance: &Instance, path: &Path) -> Result<(), Fault> {
    let (Some(stat), Some(user)) = (facts.path(path), facts.user) else { return Ok(()) };
    let own = stat.uid == user.uid && stat.mode & 0o400 != 0;
    let group = stat.uid != user.uid && stat.gid == user.gid && stat.mode & 0o040 != 0;
    if own || group || (stat.uid != user.uid && stat.mode & 0o004 != 0) || stat.kind != Kind::File {
        return super::refuse::way_to(facts, instance, path);
    }
    let account = layout::here().account(instance.engine.user());
    Err(Fault::refused(format!(
        "[{}] {} cannot be read by the server's user, {account}",
        instance.name,
        path.display()
    ))
    .hint(format!("let it:\nchgrp {account} {0}\nchmod g+r {0}", path.display())))
}

/// Whether an instance speaks TLS by what redis-tp makes.
fn uses_ours(instance: &Instance) -> bool {
    instance.tls.as_ref().is_some_and(|tls| tls.files == certificates::of_servers())
}

/// Whether the server that runs speaks TLS already, by the files that it is to.
fn speaks(facts: &Facts, instance: &Instance) -> bool {
    let same = |kept: &Kept| kept.active && kept.tls.is_some() && kept.tls == instance.address().tls;
    facts.state.instances.get(&instance.name).is_some_and(same)
        && facts.running.get(&instance.name).is_some_and(|running| running.auth != Auth::Unknown)
}

/// Whether a server was told of other authorities than its file has.
fn trusts_others(facts: &Facts, instance: &Instance) -> bool {
    let kept = facts.state.instances.get(&instance.name).and_then(|kept| kept.trust.as_ref());
    kept.zip(instance.tls.as_ref()).is_some_and(|(kept, tls)| *kept != tls.trust)
}

/// Whether a server shows another certificate than its file has.
fn shows_another(facts: &Facts, instance: &Instance, ours: &Pem) -> bool {
    let running = facts.running.get(&instance.name);
    // One that was told another file by hand reads that one anew, and goes on to show another.
    let own = match instance.runtime.is_container() {
        true => instance.tls_inside(),
        false => instance.tls.as_ref().map(|tls| tls.files.clone()),
    };
    let named = running.and_then(|running| running.config.get("tls-cert-file"));
    if own.zip(named).is_none_or(|(own, named)| own.cert != Path::new(named)) {
        return false;
    }
    let shown = running.and_then(|running| running.certificate.as_deref());
    let cert = match &instance.tls {
        Some(tls) if !uses_ours(instance) => facts.text(&tls.files.cert).unwrap_or_default(),
        _ => &ours.cert,
    };
    let kept = judge::chain(cert).ok().and_then(|chain| Some(judge::fingerprint(chain.first()?)));
    shown.zip(kept).is_some_and(|(shown, kept)| shown != kept)
}

fn tell(facts: &Facts, instance: &Instance) -> Step {
    Step::Certificates { target: as_it_runs(facts, instance) }
}

fn write(file: &Fresh, server: (Owner, u32)) -> Step {
    let (owner, mode) = match file.reader {
        Reader::All => (Owner::Root, 0o644),
        Reader::Us => (Owner::Root, 0o600),
        Reader::Server => server,
    };
    let body = match file.reader {
        Reader::All => Body::Plain(file.text.expose().to_owned()),
        Reader::Us | Reader::Server => Body::Secret(file.text.clone()),
    };
    Step::Write { path: file.path.clone(), body, ours: None, owner, mode }
}

/// What a container sees of them: copies, for its user is another.
pub fn copies(instance: &Instance, pem: &Pem) -> Vec<(PathBuf, Secret)> {
    if instance.tls.is_none() {
        return Vec::new();
    }
    let at = certificates::at(&container::mounted(&instance.container()), "server");
    vec![(at.ca, Secret::new(&pem.ca)), (at.cert, Secret::new(&pem.cert)), (at.key, pem.key.clone())]
}

fn copy(path: PathBuf, text: Secret) -> Step {
    let body = if path.extension().is_some_and(|end| end == "key") {
        Body::Secret(text)
    } else {
        Body::Plain(text.expose().to_owned())
    };
    Step::Write { path, body, ours: None, owner: Owner::Image, mode: 0o400 }
}
