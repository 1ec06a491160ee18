//! The record that somebody deleted: what is ours is known again by what stands in our files. What was there before
//! us no file tells, so data and packages count as that, and no purge takes them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::containers::{of_app, of_instance};
use super::{Note, Plan, Wanted};
use crate::app::service;
use crate::certificates;
use crate::engine::Version;
use crate::exit::Fault;
use crate::facts::Facts;
use crate::instance::Instance;
use crate::runtime::container::{self, Container};
use crate::runtime::{Runtime, systemd};
use crate::secret::Secret;
use crate::secrets;
use crate::state::{State, UnitBefore};
use crate::step::{Body, Step};
use crate::templates;
use crate::topology;
use crate::users;

/// What is known again to be ours beside files: by its name, or by a label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Containers, as they were made.
    pub containers: Vec<Container>,
    /// Directories, each behind the one that it is in.
    pub directories: Vec<PathBuf>,
}

/// Whether our configurations are there, and no record of them.
pub fn is_lost(wanted: &Wanted<'_>, facts: &Facts) -> bool {
    facts.state.instances.is_empty() && wanted.instances.iter().any(|instance| is_ours(facts, &instance.conf))
}

/// Refuses a change before our files are known again, and where an instance would be forgotten.
///
/// # Errors
/// The topology is to become another one, or names not all of them.
pub fn refuse(wanted: &Wanted<'_>, facts: &Facts) -> Result<(), Fault> {
    let gone = State::path();
    let edits = wanted.text.is_some() && facts.path(topology::file()).is_some();
    if edits && (is_lost(wanted, facts) || !facts.orphans.is_empty()) {
        return Err(Fault::refused(format!("{} is gone: what is redis-tp's is not known", gone.display()))
            .hint(
                "let it be found again by the topology as it stands, and run this again:\nredis-tp apply",
            ));
    }
    let Some(orphan) = facts.orphans.first() else { return Ok(()) };
    Err(Fault::refused(format!(
        "{} is redis-tp's by what stands in it, but {} is gone, and the topology does not name its instance",
        orphan.display(),
        gone.display()
    ))
    .hint(format!(
        "name it there as before, or move the file away:\nmv {0} {0}.aside\nredis-tp apply",
        orphan.display()
    )))
}

/// The steps, before all others, that make our files known again.
///
/// # Errors
/// What would stand in them cannot be rendered.
pub fn known_again(wanted: &Wanted<'_>, facts: &Facts, version: Version, plan: &mut Plan) -> Result<()> {
    if !is_lost(wanted, facts) {
        return Ok(());
    }
    plan.found = found(wanted, facts);
    let mut files: Vec<(PathBuf, Body)> = secret_files(wanted);
    let [servers, app] = [certificates::of_servers(), certificates::of_app()];
    let tls = [servers.ca, certificates::authority_key(), servers.cert, servers.key, app.cert, app.key];
    files.extend(tls.into_iter().filter_map(|path| {
        let text = facts.texts.get(&path)?.clone();
        Some((path, Body::Secret(text)))
    }));
    for instance in wanted.instances {
        let text = instance.configuration(topology::file(), version, &[])?;
        files.push((instance.conf.clone(), Body::Conf(Secret::new(text))));
        files.extend(unit_files(instance, facts)?);
    }
    if let Some(app) = wanted.app {
        files.push((app.settings_file(), Body::Secret(app.settings.text())));
        let unit = service::unit_file();
        files.extend(facts.text(&unit).map(|text| (unit.clone(), Body::Plain(text.to_owned()))));
    }
    let planned = |path: &Path| {
        plan.steps.iter().any(|step| matches!(step, Step::Keep { path: other, .. } if other == path))
    };
    files.retain(|(path, _)| (secrets::is_secret(path) || is_ours(facts, path)) && !planned(path));
    let keeps = files.into_iter().map(|(path, ours)| Step::Keep { path, ours });
    plan.steps.splice(0..0, keeps);
    // They run by our doing.
    plan.units.values_mut().for_each(|before| *before = UnitBefore::default());
    plan.notes.push(Note::RecordLost { record: State::path() });
    Ok(())
}

/// Whether a file is ours by what stands in it, and our record does not know it.
pub fn is_ours(facts: &Facts, path: &Path) -> bool {
    !facts.state.files.contains_key(path) && facts.text(path).is_some_and(templates::is_ours)
}

fn found(wanted: &Wanted<'_>, facts: &Facts) -> Found {
    let program = service::program(&facts.program);
    let instances = wanted.instances.iter().filter_map(|instance| of_instance(instance, wanted.image, facts));
    let app = wanted.app.and_then(|app| of_app(app, &program, wanted.image, facts));
    let there = |container: &Container| facts.containers.containers.contains_key(&container.name);
    let containers: Vec<Container> = instances.chain(app).filter(there).collect();
    let mounted = containers.iter().map(|one| container::mounted(&one.name));
    let mut directories = vec![secrets::dir().to_path_buf()];
    directories.extend(facts.path(&certificates::dir()).map(|_| certificates::dir()));
    if !containers.is_empty() {
        directories.push(container::dir());
    }
    directories.extend(mounted);
    Found { containers, directories }
}

/// The passwords that are on the disk.
fn secret_files(wanted: &Wanted<'_>) -> Vec<(PathBuf, Body)> {
    let secrets = wanted.secrets;
    let own = secrets.password.iter().map(|password| (secrets::password_file(), password));
    let users = secrets.users.iter().flat_map(|of| {
        let app = of.app.iter().map(|app| (secrets::user_file(users::APP), app));
        [(secrets::user_file(users::REPLICA), &of.replica)].into_iter().chain(app)
    });
    let upstream = secrets.upstream.iter().map(|(name, secret)| (secrets::upstream_file(name), secret));
    own.chain(users)
        .chain(upstream)
        .filter(|(path, _)| !secrets.fresh.contains_key(path))
        .map(|(path, secret)| (path, Body::Secret(secret.clone())))
        .collect()
}

/// What systemd reads of an instance, with what we would write there.
fn unit_files(instance: &Instance, facts: &Facts) -> Result<Vec<(PathBuf, Body)>> {
    if instance.runtime != Runtime::Systemd {
        return Ok(Vec::new());
    }
    let needed = systemd::needed(instance, facts)?;
    let body = |path: &PathBuf| match &needed {
        Some((needs, text)) if needs == path => Some(text.clone()),
        _ => facts.text(path).map(str::to_owned),
    };
    let all = systemd::files(&instance.unit).into_iter();
    Ok(all.filter_map(|path| Some((path.clone(), Body::Plain(body(&path)?)))).collect())
}
