//! Steps as the commands that a person would type, secrets masked.

use std::path::Path;

use super::{Body, Candidate, Inside, NewVolume, Owner, Source, Step, cli_command, ends_default, users_of};
use crate::app::{AppTarget, service as app_service};
use crate::commands::shell_word;
use crate::engine::Engine;
use crate::instance::Target;
use crate::layout;
use crate::live::{Setting, Value};
use crate::runtime::container::{self, Making, NETWORK};
use crate::runtime::{Runtime, process, systemd};
use crate::software;
use crate::state::State;

impl Step {
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
            Self::Keep { path, .. } => vec![format!("# {} stays as it is", path.display())],
            Self::Own { paths, owner, mode } => {
                let all: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                let mode = mode.map_or_else(|| "o=".into(), |mode| format!("{mode:04o}"));
                let all = all.join(" ");
                vec![format!("chown {} {all}", owner.word()), format!("chmod {mode} {all}")]
            }
            Self::Mode { path, mode, .. } => vec![format!("chmod {mode:04o} {}", path.display())],
            Self::End { target, .. } => vec![format!("{} SHUTDOWN SAVE", cli_command(target))],
            Self::User { name } => {
                vec![format!("useradd {} {name}", app_service::USERADD.join(" "))]
            }
            Self::Program { path } => {
                vec![format!("install -m 0755 \"$(command -v redis-tp)\" {}", path.display())]
            }
            Self::Remove { path } => vec![format!("rm {}", path.display())],
            Self::GiveBack { path } => {
                vec![format!("cp -a {} {}", State::original(path).display(), path.display())]
            }
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
                    words.iter().map(|word| shell_word(word)).collect();
                vec![format!("{} {}    # as the image's user", container.program, words.join(" "))]
            }
            Self::Join { program, name } => vec![format!("{program} network connect {NETWORK} {name}")],
            Self::Boot { program, name, on } => {
                vec![format!("{program} update --restart {} {name}", container::restart_word(*program, *on))]
            }
            Self::RemoveContainer { program, name, .. } => vec![format!("{program} rm {name}")],
            Self::PurgeVolume { program, name } => vec![format!("{program} volume rm {name}")],
            Self::RemoveNetwork { program } => vec![format!("{program} network rm {NETWORK}")],
            Self::Kernel { path, value } => vec![format!("echo {} > {}", shell_word(value), path.display())],
            Self::Reload => vec![format!("{} daemon-reload", systemd::typed("systemctl"))],
            Self::Enable { unit } => vec![format!("{} enable {}", systemd::typed("systemctl"), systemd::unit_word(unit))],
            Self::Disable { unit } => vec![format!("{} disable {}", systemd::typed("systemctl"), systemd::unit_word(unit))],
            Self::Start { targets } => shell_start(targets),
            Self::Restart { target, .. } => match target.runtime {
                Runtime::Systemd => vec![systemd::command("restart", &[target])],
                Runtime::Process => vec![process::stop_command(target), process::start_command(target)],
                Runtime::Container(program) => vec![format!("{program} restart {}", target.container())],
            },
            Self::Backup { target, source: Source::Server, path } => vec![
                format!("mkdir -p -m 0700 {}", path.parent().unwrap_or(path).display()),
                format!("umask 077; {} --rdb {}", cli_command(target), path.display()),
                format!("{} {}", target.engine.check_rdb(), path.display()),
            ],
            Self::Backup { target, source: Source::File { path: from }, path } => vec![
                format!("install -D -m 0600 {} {}", from.display(), path.display()),
                format!("{} {}", target.engine.check_rdb(), path.display()),
            ],
            Self::Bring { target, file, .. } => {
                vec![format!("{} {}", target.engine.check_rdb(), file.display())]
            }
            Self::Count { target } => vec![format!("{} INFO keyspace", cli_command(target))],
            Self::Replace { places, .. } => places
                .iter()
                .flat_map(|place| {
                    let (path, aside) = (place.path.display(), place.aside());
                    let former = place.there.then(|| format!("mv {path} {}", aside.display()));
                    let new = match (&place.manifest, place.rdb) {
                        (Some((name, _)), true) => {
                            Some(format!("# the backup as the base of {path}, named in {}", name.display()))
                        }
                        (None, true) => Some(format!("cp BACKUP {path}    # the server's user's, 0640")),
                        _ => None,
                    };
                    former.into_iter().chain(new)
                })
                .collect(),
            Self::Set { target, settings } => settings.iter().map(|setting| shell_set(target, setting)).collect(),
            Self::Admit { target } => {
                vec![format!("{} | {} -x ACL SETUSER default", typed(">%s", NEW), cli_command(target))]
            }
            Self::Password { target } => match target.password {
                Some(_) => {
                    vec![format!(
                        "{} | {} -x CONFIG SET requirepass",
                        typed("%s", &crate::secrets::password_file().to_string_lossy()),
                        cli_command(target)
                    )]
                }
                None => vec![format!("{} CONFIG SET requirepass ''", cli_command(target))],
            },
            Self::Certificates { target } => {
                let cli = cli_command(target);
                vec![format!("{cli} CONFIG SET tls-cert-file \"$({cli} CONFIG GET tls-cert-file | tail -1)\"")]
            }
            Self::LetIn { target, users } | Self::Users { target, users, .. } => {
                let gone = match self {
                    Self::Users { gone, .. } => gone.as_slice(),
                    _ => &[],
                };
                let cli = cli_command(target);
                // Of what a line says, the file has the hash: nobody types that.
                let set = users_of(users).into_iter().map(|user| {
                    format!("{cli} ACL SETUSER $(sed -n 's/^user \\({user} .*\\)/\\1/p' {})", target.conf().display())
                });
                let end = format!("{cli} CLIENT KILL USER default SKIPME yes");
                let end = ends_default(users).then_some(end);
                let gone = gone.iter().map(|user| format!("{cli} ACL DELUSER {}", shell_word(user)));
                set.chain(gone).chain(end).collect()
            }
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

/// A file of the user's with a password that ours does not have yet.
const NEW: &str = "NEW-PASSWORD-FILE";

/// A password on standard input: on a command line every user could read it.
fn typed(format: &str, file: &str) -> String {
    format!("printf '{format}' \"$(cat {file})\"")
}

fn shell_set(target: &Target, Setting { directive, value }: &Setting) -> String {
    let cli = cli_command(target);
    match (directive.as_str(), value) {
        ("replicaof", value) => format!("{cli} REPLICAOF {}", value.masked()),
        (_, Value::Secret(secret)) if secret.expose().is_empty() => {
            format!("{cli} CONFIG SET {directive} ''")
        }
        (_, Value::Secret(_)) => format!("{} | {cli} -x CONFIG SET {directive}", typed("%s", NEW)),
        (_, Value::Plain(text)) => {
            format!("{cli} CONFIG SET {directive} {}", shell_word(text))
        }
        (_, Value::Proved) => {
            format!("{cli} CONFIG SET {directive} DEFAULT    # what `CONFIG GET` of a new server says")
        }
    }
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
