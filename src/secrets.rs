//! Where passwords are kept: one for the machine's own instances, one for each master elsewhere,
//! in files of mode 0600 beside the topology (`/etc/redis-tp`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::app::Settings;
use crate::certificates::Certificates;
use crate::conf::Conf;
use crate::exit::Fault;
use crate::host::Host;
use crate::layout;
use crate::runtime::container;
use crate::secret::Secret;
use crate::state::State;
use crate::topology::{self, Name, ReplicaOf, Topology};
use crate::users;

/// The directory of the topology and of the secrets.
pub fn dir() -> &'static Path {
    &layout::here().etc
}

/// Whether a file is a secret from end to end, of which no copy is kept. The topology beside them is none,
/// and neither are the app's settings and what containers read: like a redis.conf, they have a secret in them.
pub fn is_secret(path: &Path) -> bool {
    let configuration = path == topology::file() || path == Settings::file();
    path.starts_with(dir()) && !configuration && !path.starts_with(container::dir())
}

/// The passwords of the users that may do no more than they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfUsers {
    /// With which a replica follows its master.
    pub replica: Secret,
    /// With which the web app caches, where one is wanted.
    pub app: Option<Secret>,
}

/// The passwords that a topology needs.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// That of the machine's own instances; none when it is switched off.
    pub password: Option<Secret>,
    /// Those of masters elsewhere, by the replica that follows one.
    pub upstream: BTreeMap<Name, Secret>,
    /// That of the replicas and that of the web app, where instances have users.
    pub users: Option<OfUsers>,
    /// The certificates, where instances speak TLS.
    pub tls: Option<Certificates>,
    /// Those that are not on disk yet.
    pub fresh: BTreeMap<PathBuf, Secret>,
}

impl Secrets {
    /// Reads what is kept, and makes up what is wanted and was never there. `given`: another password
    /// comes with the command, so that one that was lost is not missed.
    ///
    /// # Errors
    /// A file that cannot be read, or that holds no password.
    pub fn load(host: &Host, topology: &Topology, given: bool) -> Result<Self> {
        let mut secrets = Self::default();
        if topology.password {
            match read(host, &password_file())? {
                Some(password) => secrets.password = Some(password),
                None => {
                    let state = State::load(host)?;
                    let text = |path: &Path| Ok(host.text(path).ok().flatten());
                    let written = |path: &Path| host.text(&State::written(path));
                    match lost_password(topology, &state, given, text, written)? {
                        Some(password) => secrets.set_password(password),
                        None => secrets.set_password(host.generate_password()?),
                    }
                }
            }
        }
        if topology.has_users() {
            let mut one = |user: &str| -> Result<Secret> {
                if let Some(kept) = read(host, &user_file(user))? {
                    return Ok(kept);
                }
                let made = host.generate_password()?;
                secrets.fresh.insert(user_file(user), made.clone());
                Ok(made)
            };
            let replica = one(users::REPLICA)?;
            let app = topology.app.as_ref().map(|_| one(users::APP)).transpose()?;
            secrets.users = Some(OfUsers { replica, app });
        }
        for section in &topology.instances {
            if let Some(ReplicaOf::Remote { .. }) = section.replicaof
                && let Some(password) = read(host, &upstream_file(&section.name))?
            {
                secrets.upstream.insert(section.name.clone(), password);
            }
        }
        Ok(secrets)
    }

    /// Takes another password for the machine's own instances.
    pub fn set_password(&mut self, password: Secret) {
        if self.password.as_ref() != Some(&password) || self.fresh.contains_key(&password_file()) {
            self.fresh.insert(password_file(), password.clone());
            self.password = Some(password);
        }
    }

    /// Takes another password for a user that may do no more than it needs.
    pub fn set_user(&mut self, user: &str, password: Secret) {
        let Some(of_users) = &mut self.users else { return };
        match user {
            users::REPLICA => of_users.replica = password.clone(),
            _ => of_users.app = Some(password.clone()),
        }
        self.fresh.insert(user_file(user), password);
    }

    /// Takes the password of a master elsewhere.
    pub fn set_upstream(&mut self, replica: &Name, password: Secret) {
        if self.upstream.get(replica) != Some(&password) {
            self.fresh.insert(upstream_file(replica), password.clone());
            self.upstream.insert(replica.clone(), password);
        }
    }
}

/// The password of instances that run, when its file was deleted: their configuration has it still, and
/// it is ours while it is what we last wrote. None where there was none before.
///
/// # Errors
/// A [`Fault`] where no file tells it; another one, made up, would lock every client out.
pub fn lost_password(
    topology: &Topology,
    state: &State,
    given: bool,
    text: impl Fn(&Path) -> Result<Option<String>>,
    written: impl Fn(&Path) -> Result<Option<String>>,
) -> Result<Option<Secret>> {
    let password_of = |text: Option<String>| Conf::parse(&text?).ok()?.password("requirepass");
    let own = |name: &Name| {
        let section = topology.instance(name.as_str());
        section.is_some_and(|section| section.directives.iter().any(|named| named.name == "requirepass"))
    };
    let mut missed = false;
    for (name, kept) in state.instances.iter().filter(|(name, kept)| kept.active && !own(name)) {
        let conf = kept.engine.conf(name.as_str());
        let Some(ours) = password_of(written(&conf)?) else { continue };
        if password_of(text(&conf)?).as_ref() == Some(&ours) {
            return Ok(Some(ours));
        }
        missed = true;
    }
    if missed && !given {
        let file = password_file();
        return Err(Fault::refused(format!(
            "{} is gone, and no configuration has the password any more that redis-tp wrote",
            file.display()
        ))
        .hint("give the password that the servers take, or another one for all of them:\nredis-tp install --password-file FILE")
        .into());
    }
    Ok(None)
}

/// Where the password of the machine's own instances is.
pub fn password_file() -> PathBuf {
    dir().join("password")
}

/// Where the password of a user of ours is that may do no more than it needs.
pub fn user_file(user: &str) -> PathBuf {
    dir().join(format!("{user}.password"))
}

/// Where a replica's password for its master elsewhere is.
pub fn upstream_file(replica: &Name) -> PathBuf {
    dir().join(format!("{replica}.masterauth"))
}

/// A password that the user hands over: a file, or `-` for standard input.
///
/// # Errors
/// Unreadable, empty, or no password.
pub fn given(host: &Host, source: &str) -> Result<Secret> {
    let (text, name) = match source {
        "-" => (host.stdin()?, "standard input".to_owned()),
        file => {
            let missing = || {
                Fault::refused(format!("the password file {file} is not there"))
                    .hint(format!("make it:\nprintf '%s\\n' 'PASSWORD' > {file}"))
            };
            let text = host.given(Path::new(file)).map_err(|error| {
                Fault::refused(format!("{error:#}"))
                    .hint("give a file that you can read, or - for standard input")
            })?;
            (text.ok_or_else(missing)?, format!("the password file {file}"))
        }
    };
    Secret::parse(&text)
        .map_err(|why| Fault::refused(format!("{name} {why}")).hint("put the password on one line").into())
}

fn read(host: &Host, path: &Path) -> Result<Option<Secret>> {
    let Some(text) = host.text(path).context("cannot read a password")? else { return Ok(None) };
    let cure = format!("put the password back on one line, or let redis-tp make one:\nrm {}", path.display());
    let secret =
        Secret::parse(&text).map_err(|why| Fault::refused(format!("{} {why}", path.display())).hint(cure))?;
    Ok(Some(secret))
}
