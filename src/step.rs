//! The steps that a plan is made of: a closed set of plain data. What each one does to the machine is
//! in `apply.rs`; here it says what it is, in words and as the command that a person would type.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::app::{AppTarget, service as app_service};
use crate::conf;
use crate::engine::Engine;
use crate::instance::Target;
use crate::layout;
use crate::runtime::container::{self, Container, Making, NETWORK};
use crate::runtime::{Program, Runtime, process, systemd};
use crate::secret::{MASK, Secret};
use crate::software;
use crate::topology::Image;
use crate::wire::Address;

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
    /// Take a file of ours away; what stood there before us comes back.
    Remove {
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
            Self::User { name } => format!("user {name}"),
            Self::Program { path } => format!("copy this program to {}", path.display()),
            Self::Remove { path } | Self::RemoveEmpty { path } => format!("remove {}", path.display()),
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
            Self::Reload => "let systemd read its units again".into(),
            Self::Enable { unit } => format!("start {} at boot", systemd::unit_word(unit)),
            Self::Disable { unit } => format!("no longer start {} at boot", systemd::unit_word(unit)),
            Self::Start { targets } => format!("start {}", names(targets)),
            Self::Restart { target, why } => format!("restart {} ({why})", target.name),
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

    /// What a person would have typed, secrets masked.
    pub fn shell(&self) -> Vec<String> {
        match self {
            Self::Install { engine, repair } => {
                let mut lines = vec![
                    "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d".into(),
                    format!("apt-get install -y {} || {{ apt-get update && apt-get install -y {0}; }}", engine.package()),
                    "rm /usr/sbin/policy-rc.d".into(),
                ];
                if *repair {
                    lines.insert(1, "dpkg --configure -a".into());
                }
                lines
            }
            Self::Fetch { engine, path } => shell_fetch(*engine, path),
            Self::Prove { candidates, inside } => candidates
                .iter()
                .map(|Candidate { target, .. }| {
                    if let Some(Inside { program, image, .. }) = inside {
                        return format!(
                            "# before it goes live: {program} run --rm -i --network none --entrypoint {} {image} - --port redis-tp-eof < {}",
                            target.engine.server(), target.conf().display()
                        );
                    }
                    let (server, conf) = (target.engine.server(), target.conf());
                    let runuser = match layout::here().login {
                        Some(_) => String::new(),
                        None => format!("runuser -u {} -- ", target.engine.user()),
                    };
                    let conf = conf.display();
                    format!("# before it goes live: {runuser}{server} - --port redis-tp-eof < {conf}")
                })
                .collect(),
            Self::Directory { path, owner: Owner::Image, mode, .. } => {
                vec![format!("install -d -o UID -g GID -m {mode:04o} {}    # the image's user", path.display())]
            }
            Self::Directory { path, owner, mode, .. } => {
                let owner = owner.word();
                let (user, group) = owner.split_once(':').unwrap_or((&owner, &owner));
                vec![format!("install -d -o {user} -g {group} -m {mode:04o} {}", path.display())]
            }
            Self::Write { path, body, owner, mode, .. } => shell_write(path, body, *owner, *mode),
            Self::User { name } => {
                vec![format!("useradd {} {name}", app_service::USERADD.join(" "))]
            }
            Self::Program { path } => {
                vec![format!("install -m 0755 \"$(command -v redis-tp)\" {}", path.display())]
            }
            Self::Remove { path } => vec![format!("rm {}", path.display())],
            Self::RemoveEmpty { path } => vec![format!("rmdir {}", path.display())],
            Self::Purge { path, keep: true } => vec![format!("find {} -mindepth 1 -delete", path.display())],
            Self::Purge { path, keep: false } => vec![format!("rm -r {}", path.display())],
            Self::Pull { program, image } => vec![format!("{program} pull {image}")],
            Self::Network { program } => vec![format!("{program} network create {NETWORK}")],
            Self::Volumes { inside: Inside { program, image, .. }, volumes } => volumes
                .iter()
                .flat_map(|NewVolume { name, .. }| {
                    let data = container::DATA_DIR;
                    [
                        format!("{program} volume create {name}"),
                        format!("{program} run --rm --user 0 -v {name}:{data} --entrypoint chown {image} UID:GID {data}"),
                    ]
                })
                .collect(),
            Self::Container { container, .. } => {
                let words = container.create(&Making {
                    layout: &crate::state::dir().to_string_lossy(),
                    user: "UID:GID",
                    boot: true,
                    rootless: false,
                });
                let words: Vec<String> =
                    words.iter().map(|word| crate::commands::shell_word(word)).collect();
                vec![format!("{} {}    # as the image's user", container.program, words.join(" "))]
            }
            Self::Join { program, name } => vec![format!("{program} network connect {NETWORK} {name}")],
            Self::Boot { program, name, on } => {
                vec![format!("{program} update --restart {} {name}", container::restart_word(*on))]
            }
            Self::RemoveContainer { program, name, .. } => vec![format!("{program} rm {name}")],
            Self::PurgeVolume { program, name } => vec![format!("{program} volume rm {name}")],
            Self::RemoveNetwork { program } => vec![format!("{program} network rm {NETWORK}")],
            Self::Reload => vec![format!("{} daemon-reload", systemd::typed("systemctl"))],
            Self::Enable { unit } => vec![format!("{} enable {}", systemd::typed("systemctl"), systemd::unit_word(unit))],
            Self::Disable { unit } => vec![format!("{} disable {}", systemd::typed("systemctl"), systemd::unit_word(unit))],
            Self::Start { targets } => shell_start(targets),
            Self::Restart { target, .. } => match target.runtime {
                Runtime::Systemd => vec![systemd::command("restart", &[target])],
                Runtime::Process => vec![process::stop_command(target), process::start_command(target)],
                Runtime::Container(program) => vec![format!("{program} restart {}", target.container())],
            },
            Self::Stop { target, .. } => match target.runtime {
                Runtime::Systemd => vec![systemd::command("stop", &[target])],
                Runtime::Process => vec![process::stop_command(target)],
                Runtime::Container(program) => vec![format!("{program} stop {}", target.container())],
            },
            Self::StartUnit { unit } => vec![format!("{} start {}", systemd::typed("systemctl"), systemd::unit_word(unit))],
            Self::AwaitLink { target, .. } => vec![format!(
                "until {} INFO replication | grep -q master_link_status:up; do sleep 0.1; done",
                cli_command(target)
            )],
            Self::StartApp { app } => shell_app(app, &["start"]),
            Self::RestartApp { app, .. } => match app.runtime {
                Runtime::Systemd => shell_app(app, &["restart"]),
                Runtime::Process => shell_app(app, &["stop", "start"]),
                Runtime::Container(_) => shell_app(app, &["restart"]),
            },
            Self::StopApp { app } => shell_app(app, &["stop"]),
            Self::RemoveUser { name } => vec![format!("userdel {name}")],
            Self::RemovePackages { packages } => vec![format!("dpkg --purge {}", packages.join(" "))],
        }
    }
}

/// redis-cli for an instance, the password read from our file into the environment.
pub fn cli_command(target: &Target) -> String {
    let auth = match target.password {
        Some(_) => format!("REDISCLI_AUTH=\"$(cat {})\" ", crate::secrets::password_file().display()),
        None => String::new(),
    };
    let host = match target.address.host.as_str() {
        "127.0.0.1" => String::new(),
        host => format!(" -h {host}"),
    };
    format!("{auth}{}{host} -p {}", target.engine.cli(), target.address.port)
}

fn names<'a>(targets: impl IntoIterator<Item = &'a Target>) -> String {
    let names: Vec<&str> = targets.into_iter().map(|target| target.name.as_str()).collect();
    names.join(", ")
}

/// What of apt works without root.
fn shell_fetch(engine: Engine, path: &Path) -> Vec<String> {
    let (path, both) = (path.display(), format!("{} {}", engine.package(), engine.tools_package()));
    let own = format!("-o Debug::NoLocking=1 -o Dir::Cache={path}/cache -o Dir::State::lists={path}/lists");
    vec![
        format!("mkdir -p {path}/debs {path}/lists/partial {path}/cache/archives/partial && cd {path}/debs"),
        format!("apt-get {own} -qq update"),
        format!("apt-get {own} install --reinstall --print-uris -qq --no-install-recommends {both} |"),
        "  awk '{ split($2, part, \"_\"); sub(\"%3a\", \":\", part[2]); print part[1] \"=\" part[2] }' |"
            .into(),
        format!("  xargs apt-get {own} download"),
        format!("for deb in *.deb; do dpkg-deb -x \"$deb\" {path}; done"),
        format!("cd && rm -r {path}/debs {path}/lists {path}/cache"),
        format!(
            "export PATH={path}/usr/bin:$PATH {}=\"$(echo {path}/usr/lib/*-linux-*)\"",
            software::LIBRARIES
        ),
    ]
}

fn shell_start(targets: &[Target]) -> Vec<String> {
    let mut lines = Vec::new();
    let units: Vec<&Target> = targets.iter().filter(|target| target.runtime == Runtime::Systemd).collect();
    if !units.is_empty() {
        lines.push(systemd::command("start", &units));
    }
    for target in targets {
        match target.runtime {
            Runtime::Systemd => {}
            Runtime::Process => lines.push(process::start_command(target)),
            Runtime::Container(program) => lines.push(format!("{program} start {}", target.container())),
        }
    }
    lines
}

fn shell_app(app: &AppTarget, verbs: &[&str]) -> Vec<String> {
    let line = |verb: &&str| match (app.runtime, *verb) {
        (Runtime::Systemd, verb) => {
            format!("{} {verb} {}", systemd::typed("systemctl"), systemd::unit_word(app_service::UNIT))
        }
        (Runtime::Container(program), verb) => format!("{program} {verb} {}", app.container()),
        (Runtime::Process, "stop") => format!("kill \"$(cat {})\"", app_service::pidfile().display()),
        (Runtime::Process, _) => format!(
            "{}{} app serve --config - --supervise {} < {} &",
            process::as_user(app_service::USER),
            app.program.display(),
            app_service::pidfile().display(),
            crate::app::Settings::file().display(),
        ),
    };
    verbs.iter().map(line).collect()
}

fn shell_write(path: &Path, body: &Body, owner: Owner, mode: u32) -> Vec<String> {
    let owner = if owner == Owner::Image { "UID:GID".into() } else { owner.word() };
    let (user, group) = owner.split_once(':').unwrap_or((&owner, &owner));
    let mut lines = Vec::new();
    if let Some(parent) = path.parent().filter(|parent| parent.starts_with(&layout::here().units)) {
        lines.push(format!("mkdir -p {}", parent.display()));
    }
    lines.push(format!("install -o {user} -g {group} -m {mode:04o} /dev/stdin {} <<'EOF'", path.display()));
    lines.extend(body.masked().lines().map(str::to_owned));
    lines.push("EOF".into());
    lines
}
