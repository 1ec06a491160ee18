//! The steps that a plan is made of: a closed set of plain data. What each one does to the machine is
//! in `apply.rs`; here it says what it is, in words (and in `step/shell.rs` as commands).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use crate::app::{AppTarget, service as app_service};
use crate::conf;
use crate::engine::Engine;
use crate::finding::visible;
use crate::instance::Target;
use crate::kernel;
use crate::layout;
use crate::live::{Cost, Setting};
use crate::runtime::container::{Container, NETWORK};
use crate::runtime::{Program, systemd};
use crate::secret::{MASK, Secret};
use crate::topology::Image;
use crate::wire::Address;

mod shell;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Install the engine's package, without letting it start its stock configuration.
    Install {
        /// Redis or Valkey.
        engine: Engine,
        /// dpkg was left half-way and has to finish first.
        repair: bool,
    },
    /// Fetch the engine's package and what it needs, and unpack them where no root is needed.
    Fetch {
        /// Redis or Valkey.
        engine: Engine,
        /// Where they go.
        path: PathBuf,
    },
    /// Prove configurations with the installed server, before anything that runs is touched.
    Prove {
        /// One for each instance whose configuration changes.
        candidates: Vec<Candidate>,
        /// Where the server is that proves them, if it is not this machine's.
        #[serde(skip_serializing_if = "Option::is_none")]
        inside: Option<Inside>,
    },
    /// Fetch an image.
    Pull {
        /// Who does.
        program: Program,
        /// The image.
        image: Image,
    },
    /// Make the network of our containers.
    Network {
        /// Whose it is.
        program: Program,
    },
    /// Make volumes, for the image's user.
    Volumes {
        /// The image that will use them.
        inside: Inside,
        /// The volumes.
        volumes: Vec<NewVolume>,
    },
    /// Make a container, in place of one of ours that was made otherwise.
    Container {
        /// What it is made of.
        container: Box<Container>,
        /// Redis or Valkey.
        engine: Engine,
    },
    /// Let a container be on our network again.
    Join {
        /// Whose it is.
        program: Program,
        /// The container.
        name: String,
    },
    /// Let a container start again by itself, or no longer.
    Boot {
        /// Whose it is.
        program: Program,
        /// The container.
        name: String,
        /// Whether it is to.
        on: bool,
    },
    /// Take a container away that does not run.
    RemoveContainer {
        /// Whose it is.
        program: Program,
        /// Redis or Valkey.
        engine: Engine,
        /// Its name.
        name: String,
    },
    /// Take a volume away with all that is in it; only by `--purge`.
    PurgeVolume {
        /// Whose it is.
        program: Program,
        /// Its name.
        name: String,
    },
    /// Take the network away.
    RemoveNetwork {
        /// Whose it is.
        program: Program,
    },
    /// Make a directory, or correct its owner and mode.
    Directory {
        /// Its path.
        path: PathBuf,
        /// Whose it is.
        owner: Owner,
        /// Its mode.
        mode: u32,
        /// It will hold a copy only, which may go when this run is undone.
        copy: bool,
    },
    /// Put a file in place.
    Write {
        /// Its path.
        path: PathBuf,
        /// What is in it.
        body: Body,
        /// What of it is ours, where lines of another's hand are kept in it.
        ours: Option<Body>,
        /// Whose it is.
        owner: Owner,
        /// Its mode.
        mode: u32,
    },
    /// Take a file that stays as it is for ours.
    Keep {
        /// Its path.
        path: PathBuf,
        /// What we would have written there.
        ours: Body,
    },
    /// Hand files and directories over to the user that has to write to them.
    Own {
        /// Their paths.
        paths: Vec<PathBuf>,
        /// Whose they will be.
        owner: Owner,
        /// Their mode; none to leave that as it is, but for what others may do.
        mode: Option<u32>,
    },
    /// Give a file or directory another mode, if it is still the one that was looked at.
    Mode {
        /// Its path.
        path: PathBuf,
        /// Its inode.
        inode: u64,
        /// The mode.
        mode: u32,
    },
    /// End a server that somebody started, its data saved, so that it can start where it belongs.
    End {
        /// The instance.
        target: Target,
        /// Its process.
        pid: u32,
        /// Whose that is.
        uid: u32,
        /// What it may have saved by then, and the directory of parts: its file may name others by then.
        saves: [PathBuf; 3],
    },
    /// Make a system user for the web app, where no systemd makes one.
    User {
        /// Its name.
        name: String,
    },
    /// Copy this program to where a service can use it.
    Program {
        /// The place.
        path: PathBuf,
    },
    /// Take a file of ours away, where nothing stood before us.
    Remove {
        /// Its path.
        path: PathBuf,
    },
    /// Put back what stood in the place of a file of ours before us.
    GiveBack {
        /// Its path.
        path: PathBuf,
    },
    /// Take a directory away if it is empty.
    RemoveEmpty {
        /// Its path.
        path: PathBuf,
    },
    /// Take a directory or a log away with all that is in it; only by `--purge`.
    Purge {
        /// Its path.
        path: PathBuf,
        /// The directory itself is the package's and stays, empty.
        keep: bool,
    },
    /// Set one of the kernel's settings, for as long as the machine runs.
    Kernel {
        /// Its file in /proc or /sys.
        path: PathBuf,
        /// Its value.
        value: String,
    },
    /// Let systemd read its files again.
    Reload,
    /// Start a unit at boot.
    Enable {
        /// The unit.
        unit: String,
    },
    /// No longer start a unit at boot.
    Disable {
        /// The unit.
        unit: String,
    },
    /// Start instances, together, and wait until they answer.
    Start {
        /// The instances.
        targets: Vec<Target>,
    },
    /// Restart an instance and wait until it answers.
    Restart {
        /// The instance.
        target: Target,
        /// Why it has to be.
        why: String,
        /// What that costs.
        cost: Cost,
    },
    /// Take a backup of what an instance holds.
    Backup {
        /// The instance.
        target: Target,
        /// Where its data are.
        source: Source,
        /// The file that is made.
        path: PathBuf,
    },
    /// Bring a backup beside the data of an instance, and have the server itself load it there.
    Bring {
        /// The instance.
        target: Target,
        /// The backup. Any name will do: it is only read.
        #[serde(serialize_with = "shown")]
        file: PathBuf,
        /// What it is to replace.
        place: PathBuf,
    },
    /// See that a server has the keys of the backup that was brought.
    Count {
        /// The instance.
        target: Target,
    },
    /// Put what was brought in the place of an instance's data, which are set aside.
    Replace {
        /// The instance, which does not run.
        target: Target,
        /// The places, the first of which was brought.
        places: Vec<Place>,
    },
    /// Set directives on a server that runs on.
    Set {
        /// The instance, where it runs now.
        target: Target,
        /// The directives.
        settings: Vec<Setting>,
    },
    /// Let a running server take the new password beside the former one.
    Admit {
        /// The instance, where it runs now.
        target: Target,
    },
    /// Let a running server take its password, or none, and no other one.
    Password {
        /// The instance.
        target: Target,
    },
    /// Let users into a running server beside those that it has.
    LetIn {
        /// The instance, where it runs now.
        target: Target,
        /// The users, as behind ACL SETUSER.
        users: Vec<Secret>,
    },
    /// Let the users of a running server do what they are to, and no more.
    Users {
        /// The instance.
        target: Target,
        /// The users, as behind ACL SETUSER.
        users: Vec<Secret>,
        /// Those that leave.
        gone: Vec<String>,
    },
    /// Let a running server read its certificates, and whose signature it trusts, anew.
    Certificates {
        /// The instance, where it runs now.
        target: Target,
    },
    /// Stop an instance.
    Stop {
        /// The instance.
        target: Target,
        /// It may lose what it cannot save.
        lose: bool,
    },
    /// Start a unit that ran before we came.
    StartUnit {
        /// The unit.
        unit: String,
    },
    /// Wait until a replica's link to its master is up.
    AwaitLink {
        /// The replica.
        target: Target,
        /// Its master.
        master: Address,
    },
    /// Start the web app and wait until it answers.
    StartApp {
        /// The app.
        app: AppTarget,
    },
    /// Restart the web app and wait until it answers.
    RestartApp {
        /// The app.
        app: AppTarget,
        /// Why it has to be.
        why: String,
    },
    /// Stop the web app; what is under way is finished first.
    StopApp {
        /// The app.
        app: AppTarget,
    },
    /// Take a user away that we made; only by `--purge`.
    RemoveUser {
        /// Its name.
        name: String,
    },
    /// Purge packages that we installed.
    RemovePackages {
        /// Their names.
        packages: Vec<String>,
    },
}

/// A configuration to prove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The instance that it is for.
    pub target: Target,
    /// Its text.
    pub text: Body,
    /// Where its directives come from: the topology's line by directive.
    pub origins: Vec<Origin>,
    /// The directives whose value is to be learned from the proof.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ask: Vec<String>,
}

/// An image that a server or our own program is to run in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// Who runs it.
    pub program: Program,
    /// The image.
    pub image: Image,
    /// Redis or Valkey.
    pub engine: Engine,
    /// Our own program on this machine, if it has to run in the image, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own: Option<PathBuf>,
}

/// A file or a directory of an instance's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Where it is.
    pub path: PathBuf,
    /// Whether there is anything now.
    pub there: bool,
    /// Whether a backup takes its place; otherwise it only goes.
    pub rdb: bool,
    /// For the directory of an append only file: the name and the text of what lists its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<(PathBuf, String)>,
}

impl Place {
    /// Where the former data are until the new ones have proved themselves.
    pub fn aside(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.redis-tp-former"))
    }
}

/// Where the data of a backup come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The server, which runs.
    Server,
    /// What it last wrote, for it does not run.
    File {
        /// The file.
        path: PathBuf,
    },
}

/// A volume to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// It will hold a copy only, which may go when this run is undone.
    pub copy: bool,
}

/// Where a directive was written by the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The directive.
    pub directive: String,
    /// `FILE:LINE`
    pub place: String,
}

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// root:root
    Root,
    /// The server's user and group.
    Server(Engine),
    /// The server's user, and group adm, which may read logs.
    ServerAdm(Engine),
    /// The web app's user and group.
    App,
    /// The user and group that containers run as.
    Image,
}

impl Owner {
    /// As chown(1) takes it.
    pub fn word(self) -> String {
        let owner = |user: &str, group: &str| layout::here().owner_word(user, group);
        match self {
            Self::Root => owner("root", "root"),
            Self::Server(engine) => owner(engine.user(), engine.user()),
            Self::ServerAdm(engine) => owner(engine.user(), "adm"),
            Self::App => owner(app_service::USER, app_service::USER),
            Self::Image => "the image's user".into(),
        }
    }
}

/// What is in a file, so that it prints no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing secret.
    Plain(String),
    /// A redis.conf.
    Conf(Secret),
    /// A secret from end to end.
    Secret(Secret),
}

impl Body {
    /// The bytes for the disk.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Conf(text) | Self::Secret(text) => text.expose(),
        }
    }

    /// The text for eyes.
    pub fn masked(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Conf(text) => conf::mask(text.expose()),
            Self::Secret(_) => format!("{MASK}\n"),
        }
    }
}

impl Serialize for Body {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.masked())
    }
}

impl Step {
    /// What it costs others; none if nothing.
    pub fn cost(&self) -> Option<String> {
        match self {
            Self::Restart { cost, .. } => cost.words(),
            _ => None,
        }
    }

    /// What it is, in a few words.
    pub fn describe(&self) -> String {
        match self {
            Self::Install { engine, repair: false } => format!("install {}", engine.package()),
            Self::Install { engine, repair: true } => format!("finish installing {}", engine.package()),
            Self::Fetch { engine, path } => format!("unpack {} in {}", engine.package(), path.display()),
            Self::Prove { candidates, inside } => {
                let place = inside.as_ref().map_or_else(String::new, |at| format!(" in {}", at.image));
                format!(
                    "prove the configuration of {}{place}",
                    names(candidates.iter().map(|candidate| &candidate.target))
                )
            }
            Self::Directory { path, owner, mode, .. } => {
                format!("directory {} ({}, {mode:04o})", path.display(), owner.word())
            }
            Self::Write { path, .. } => format!("write {}", path.display()),
            Self::Keep { path, .. } => format!("take {} over as it is", path.display()),
            Self::Mode { path, mode, .. } => format!("give {} the mode {mode:04o}", path.display()),
            Self::Own { paths, owner, mode } => {
                let mode = mode.map_or_else(String::new, |mode| format!(", {mode:04o}"));
                format!("hand {} over ({}{mode})", short_list(paths), owner.word())
            }
            Self::End { target, pid, .. } => {
                format!(
                    "end the server of {} that was started by hand (pid {pid}), its data saved",
                    target.name
                )
            }
            Self::User { name } => format!("user {name}"),
            Self::Program { path } => format!("copy this program to {}", path.display()),
            Self::Remove { path } | Self::RemoveEmpty { path } => format!("remove {}", path.display()),
            Self::GiveBack { path } => format!("put {} back as it was before redis-tp", path.display()),
            Self::Purge { path, .. } => format!("purge {}", path.display()),
            Self::Pull { image, .. } => format!("pull the image {image}"),
            Self::Network { program } => format!("{program} network {NETWORK}"),
            Self::Volumes { inside, volumes } => {
                let names: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
                format!("{} volume {}", inside.program, names.join(", "))
            }
            Self::Container { container, .. } => {
                format!("{} container {} ({})", container.program, container.name, container.image)
            }
            Self::Join { name, .. } => format!("put {name} on the network {NETWORK} again"),
            Self::Boot { name, on: true, .. } => format!("start {name} at boot"),
            Self::Boot { name, on: false, .. } => format!("no longer start {name} at boot"),
            Self::RemoveContainer { program, name, .. } => format!("remove the {program} container {name}"),
            Self::PurgeVolume { program, name } => format!("purge the {program} volume {name}"),
            Self::RemoveNetwork { program } => format!("remove the {program} network {NETWORK}"),
            Self::Kernel { path, value } => {
                let name = kernel::Setting::of(path)
                    .map_or_else(|| path.display().to_string(), |it| it.name().into());
                format!("set {name} to {value} in the kernel")
            }
            Self::Reload => "let systemd read its units again".into(),
            Self::Enable { unit } => format!("start {} at boot", systemd::unit_word(unit)),
            Self::Disable { unit } => format!("no longer start {} at boot", systemd::unit_word(unit)),
            Self::Start { targets } => format!("start {}", names(targets)),
            Self::Restart { target, why, .. } => format!("restart {} ({why})", target.name),
            Self::Backup { target, path, .. } => format!("back {} up to {}", target.name, path.display()),
            Self::Bring { target, file, .. } => {
                format!("prove {} beside the data of {}", file.display(), target.name)
            }
            Self::Count { target } => format!("count the keys of {}", target.name),
            Self::Replace { target, .. } => format!("put it in the place of the data of {}", target.name),
            Self::Set { target, settings } => {
                let words: Vec<String> = settings.iter().map(Setting::words).collect();
                format!("set live on {}: {}", target.name, words.join(", "))
            }
            Self::Admit { target } => format!("let {} take the new password, too", target.name),
            Self::Password { target } => match target.password {
                Some(_) => format!("let {} take the new password only", target.name),
                None => format!("let {} take no password", target.name),
            },
            Self::LetIn { target, users } => {
                format!("let the users of {} in: {}", target.name, users_of(users).join(", "))
            }
            Self::Users { target, users, gone } => {
                let mut all = users_of(users);
                all.extend(gone.iter().map(|name| format!("no {}", visible(name))));
                let end = if ends_default(users) { "; connections of default end" } else { "" };
                format!("settle the users of {}: {}{end}", target.name, all.join(", "))
            }
            Self::Certificates { target } => format!("let {} read its certificates anew", target.name),
            Self::Stop { target, .. } => format!("stop {}", target.name),
            Self::StartUnit { unit } => format!("start {}, as it ran before", systemd::unit_word(unit)),
            Self::AwaitLink { target, master } => format!("link {} to {master}", target.name),
            Self::StartApp { app } => format!("start the web app on {}", app.url()),
            Self::RestartApp { why, .. } => format!("restart the web app ({why})"),
            Self::StopApp { .. } => "stop the web app".into(),
            Self::RemoveUser { name } => format!("remove the user {name}"),
            Self::RemovePackages { packages } => format!("purge {}", packages.join(" ")),
        }
    }
}

/// redis-cli for an instance, the password read from our file into the environment.
pub fn cli_command(target: &Target) -> String {
    let auth = match target.password {
        Some(_) => format!("REDISCLI_AUTH=\"$(cat {})\" ", crate::secrets::password_file().display()),
        None => String::new(),
    };
    let user = match target.password {
        Some(_) if target.admin => format!(" --user {}", crate::users::ADMIN),
        _ => String::new(),
    };
    let line = target.address.cli_line();
    let at = line.strip_prefix("-h 127.0.0.1 ").unwrap_or(&line);
    format!("{auth}{}{user} {at}", target.engine.cli())
}

/// The names of users, of which each stands at the head of its line.
pub fn users_of(lines: &[Secret]) -> Vec<String> {
    lines.iter().filter_map(|line| line.expose().split(' ').next().map(str::to_owned)).collect()
}

fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Whether one of these lines switches the default user off.
pub fn ends_default(lines: &[Secret]) -> bool {
    let words = |line: &Secret| conf::split(line.expose()).unwrap_or_default();
    lines.iter().map(words).any(|words| {
        words.first().is_some_and(|name| name == crate::users::DEFAULT) && !crate::users::is_on(&words)
    })
}

fn short_list(paths: &[PathBuf]) -> String {
    match paths {
        [one] => one.display().to_string(),
        [one, rest @ ..] => format!("{} and {} more", one.display(), rest.len()),
        [] => String::new(),
    }
}

fn names<'a>(targets: impl IntoIterator<Item = &'a Target>) -> String {
    let names: Vec<&str> = targets.into_iter().map(|target| target.name.as_str()).collect();
    names.join(", ")
}
