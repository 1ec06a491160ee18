//! What a command works on: the topology, its passwords and instances, and the facts about them.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::adopt::Drift;
use crate::app::App;
use crate::apply::holdings;
use crate::certificates::{self, Renewal};
use crate::exit::Fault;
use crate::facts::{self, Facts, Question};
use crate::host::Host;
use crate::instance::Instance;
use crate::layout;
use crate::plan::{self, ASSUMED, Consent, Wanted, refuse};
use crate::runtime::{Runtime, container, systemd};
use crate::secret::Secret;
use crate::secrets::Secrets;
use crate::state::State;
use crate::topology::{self, Document, Image, Name, Topology};
use crate::users;

/// The port of the lab's first replica.
const SECOND_PORT: u16 = 6380;

/// The topology to be, and the passwords that come with it.
#[derive(Debug)]
pub struct Wish {
    /// The file's text, edited.
    pub document: Document,
    /// Where the text comes from, for messages.
    pub source: PathBuf,
    /// What the system's topology file holds now.
    pub standing: Option<String>,
    /// Another password for the machine's own instances.
    pub password: Option<Secret>,
    /// The passwords of masters elsewhere, by the replica.
    pub upstream: Vec<(Name, Secret)>,
    /// Which certificates are to be made anew.
    pub renewal: Renewal,
    /// Other passwords for users that may do no more than they need.
    pub users: Vec<(&'static str, Secret)>,
    /// Another runtime than the topology's, to look at only.
    pub runtime: Option<Runtime>,
}

impl Wish {
    /// The topology of this machine, or where there is none the text to begin with.
    pub fn standing_or(host: &Host, otherwise: &str) -> Result<Self> {
        let standing = host.text(topology::file())?;
        if standing.is_none() {
            refuse::topology_gone(&State::load(host)?)?;
        }
        Ok(Self {
            document: Document::new(standing.as_deref().unwrap_or(otherwise)),
            source: topology::file().into(),
            standing,
            password: None,
            upstream: Vec::new(),
            renewal: Renewal::Due,
            users: Vec::new(),
            runtime: None,
        })
    }

    /// The topology of this machine.
    ///
    /// # Errors
    /// There is none.
    pub fn standing(host: &Host) -> Result<Self> {
        match host.text(topology::file())? {
            Some(_) => Self::standing_or(host, ""),
            None => {
                refuse::topology_gone(&State::load(host)?)?;
                roots(host)?;
                Err(Fault::refused(format!(
                    "nothing is set up here yet: there is no {}",
                    topology::file().display()
                ))
                .hint(match layout::here().login {
                    None => "set up a master and a replica, or take over a Redis that is here:\nredis-tp up\nredis-tp adopt",
                    Some(_) => "set up a master and a replica:\nredis-tp up",
                })
                .into())
            }
        }
    }

    /// A topology from a file, or from standard input.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn from_file(host: &Host, file: &Path) -> Result<Self> {
        let (text, source) = match file.to_str() {
            Some("-") => (Some(host.stdin()?), PathBuf::from("<stdin>")),
            _ => (host.given(file).map_err(unreadable)?, file.to_path_buf()),
        };
        let text = text.ok_or_else(|| {
            Fault::refused(format!("there is no file {}", file.display()))
                .hint("begin with the lab's:\nredis-tp up --dry-run")
        })?;
        let standing = host.text(topology::file())?;
        Ok(Self {
            document: Document::new(&text),
            source,
            standing,
            password: None,
            upstream: Vec::new(),
            renewal: Renewal::Due,
            users: Vec::new(),
            runtime: None,
        })
    }

    /// The topology as it is edited so far.
    ///
    /// # Errors
    /// It cannot be.
    pub fn parsed(&self) -> Result<Topology, Fault> {
        Topology::parse(&self.document.text(), &self.label())
    }

    /// Refuses a topology without an instance: mostly the end of a command that failed before a pipe,
    /// or of a full disk, and it would stop everything.
    ///
    /// # Errors
    /// There is none.
    pub fn refuse_nothing(&self) -> Result<(), Fault> {
        match self.parsed()?.instances.is_empty() {
            true => Err(Fault::refused(format!("{} names no instance", self.source.display()))
                .hint("add one, or if all instances are to go:\nredis-tp uninstall")),
            false => Ok(()),
        }
    }

    /// What messages call the text: lines of an edited file are not yet those of the disk.
    fn label(&self) -> PathBuf {
        let edited = self.source == topology::file() && self.standing.as_ref() != Some(&self.document.text());
        if edited { format!("{} (as edited)", self.source.display()).into() } else { self.source.clone() }
    }
}

/// A user who has set up nothing asks for what root has set up, mostly.
fn roots(host: &Host) -> Result<(), Fault> {
    let Some(theirs) = layout::roots().filter(|file| matches!(host.stat(file), Ok(Some(_)))) else {
        return Ok(());
    };
    let name = layout::here().account("root");
    let what = format!("{} is root's, and {name} has set up nothing: this needs root", theirs.display());
    Err(super::needs_root(&what))
}

fn unreadable(error: anyhow::Error) -> Fault {
    Fault::refused(format!("{error:#}")).hint("give a topology that is a text file, or - for standard input")
}

/// A command's whole view.
#[derive(Debug)]
pub struct Scene {
    /// What is wanted.
    pub topology: Topology,
    /// The topology's text, if the system's file has to become that.
    pub text: Option<String>,
    /// The passwords.
    pub secrets: Secrets,
    /// The instances with their defaults.
    pub instances: Vec<Instance>,
    /// The web app with its defaults, if the topology has one.
    pub app: Option<App>,
    /// The image of containers.
    pub image: Image,
    /// What is there.
    pub facts: Facts,
}

impl Scene {
    /// Reads everything that a wish is about.
    ///
    /// # Errors
    /// A topology or a password that cannot be read; facts that cannot be had.
    pub fn load(host: &Host, wish: &Wish) -> Result<Self> {
        let text = wish.document.text();
        let topology = wish.parsed()?;
        let mut secrets = Secrets::load(host, &topology, wish.password.is_some())?;
        if let Some(password) = &wish.password {
            secrets.set_password(password.clone());
        }
        for (replica, password) in &wish.upstream {
            secrets.set_upstream(replica, password.clone());
        }
        for (user, password) in &wish.users {
            secrets.set_user(user, password.clone());
        }
        if topology.tls {
            secrets.tls = Some(certificates::load(host, &topology, &wish.renewal)?);
        }
        let state = State::load(host)?;
        let means = facts::means(host, systemd::runs(host)?, &state);
        let settled = match wish.runtime {
            Some(runtime) => Ok(runtime),
            None => Runtime::settle(topology.runtime, means),
        };
        let runtime = settled.map_err(|fault| {
            let what = Fault::refused(format!("{}: {fault}", wish.source.display()));
            what.hint(fault.cure().unwrap_or_default())
        })?;
        let image = topology.image.clone().unwrap_or_else(|| container::default_image(topology.engine));
        let instances = Instance::resolve(&topology, &secrets, runtime);
        let files = vec![
            topology::file().into(),
            crate::secrets::dir().into(),
            certificates::dir(),
            certificates::authority_key(),
            certificates::of_app().cert,
            certificates::of_app().key,
            wish.source.clone(),
        ];
        let app = App::resolve(&topology, &instances, runtime);
        let question = Question {
            engine: topology.engine,
            instances: &instances,
            app: app.as_ref(),
            image: &image,
            means,
            state: &state,
            files,
        };
        let mut facts = facts::gather(host, &question)?;
        if instances.iter().any(|instance| plan::backup::is_demoted_at_rest(&facts, instance)) {
            facts.holdings = holdings::of(host, &facts.state, secrets.password.as_ref())?;
        }
        let text = (wish.standing.as_ref() != Some(&text)).then_some(text);
        Ok(Self { topology, text, secrets, instances, app, image, facts })
    }

    /// The same with what was changed by hand taken into the topology.
    ///
    /// # Errors
    /// See [`Scene::load`].
    pub fn adopting(self, host: &Host, wish: &mut Wish) -> Result<Self> {
        let mut scene = self;
        for second in [false, true] {
            let drift = Drift {
                topology: &scene.topology,
                instances: &scene.instances,
                facts: &scene.facts,
                version: scene.facts.server.as_ref().map_or(ASSUMED, |server| server.version),
            };
            let password = drift.take(&mut wish.document, second)?;
            wish.password = password.or_else(|| wish.password.take());
            scene = Self::load(host, wish)?;
        }
        Ok(scene)
    }

    /// The scene of this machine as it stands.
    ///
    /// # Errors
    /// Nothing is set up here.
    pub fn standing(host: &Host) -> Result<Self> {
        Self::load(host, &Wish::standing(host)?)
    }

    /// The user that an instance's password is of; none for the default one. Until a run has made users, there are
    /// none.
    pub fn admin(&self, instance: &Instance) -> Option<&'static str> {
        let kept = self.facts.state.instances.get(&instance.name);
        kept.map_or(instance.users.is_some(), |kept| kept.users).then_some(users::ADMIN)
    }

    /// The scene as a planner takes it.
    pub fn wanted(&self, consent: Consent) -> Wanted<'_> {
        Wanted {
            topology: &self.topology,
            text: self.text.as_deref(),
            instances: &self.instances,
            app: self.app.as_ref(),
            image: &self.image,
            secrets: &self.secrets,
            consent,
            purge: None,
        }
    }

    /// The command for one more replica, on the next port that no instance has.
    pub fn replica_add(&self) -> String {
        let taken = |port: &u16| self.instances.iter().any(|instance| instance.port == *port);
        let port = (SECOND_PORT..=u16::MAX).find(|port| !taken(port)).unwrap_or(SECOND_PORT);
        format!("redis-tp replica add --port {port}")
    }

    /// The instance of this name, or the master, or the only one.
    ///
    /// # Errors
    /// There is none of this name, or no telling which.
    pub fn pick(&self, name: Option<&Name>) -> Result<&Instance, Fault> {
        let names = || self.instances.iter().map(|instance| instance.name.as_str());
        let found = match (name, self.instances.as_slice()) {
            (Some(name), _) => self.instances.iter().find(|instance| &instance.name == name),
            (None, [only]) => Some(only),
            (None, all) => all.iter().find(|instance| instance.name.as_str() == crate::engine::MASTER),
        };
        found.ok_or_else(|| {
            let all: Vec<&str> = names().collect();
            let wanted = name.map_or("one instance to choose", Name::as_str);
            let near = name.and_then(|name| crate::directives::closest(name.as_str(), names()));
            Fault::usage(format!("there is no {wanted} here"))
                .hint(topology::did_you_mean(near, &format!("the instances are: {}", all.join(", "))))
        })
    }
}
