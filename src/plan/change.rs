//! What changes for one instance: its configuration in the light of three states, its drop-in, and
//! whether it has to start or restart.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::certificates;
use super::containers::{self, Due};
use super::live::{self, Live};
use super::{Note, Wanted, linked, master_is_away, under_another_runtime, whole};
use super::{adopt, drift};
use crate::conf::{self, By, Conf, Difference, Directive};
use crate::engine::Version;
use crate::exit::Fault;
use crate::facts::containers::Seen;
use crate::facts::{Facts, Role, Running};
use crate::instance::{Hand, Instance};
use crate::layout;
use crate::runtime::container::Container;
use crate::runtime::{Runtime, systemd};
use crate::secret::Secret;
use crate::topology;
use crate::unit;

/// The change of one instance.
#[derive(Debug)]
pub struct Change<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// Its configuration, if the file has to be written.
    pub text: Option<Secret>,
    /// The same without the lines that somebody else wrote into it.
    pub ours: Option<Secret>,
    /// What of its file is ours from now on, where that stays as it is.
    pub keep: Option<Secret>,
    /// Its drop-in or unit, if the file has to be written.
    pub unit_file: Option<(PathBuf, String)>,
    /// Drop-ins of ours that its unit needs no longer.
    pub stale: Vec<PathBuf>,
    /// Its container as wanted, if it is to run in one.
    pub spec: Option<Container>,
    /// What is to become of that.
    pub container: Due,
    /// It runs.
    pub alive: bool,
    /// What its server is told while it runs.
    pub live: Live,
    /// Why it has to restart.
    pub restart: Option<String>,
    /// It does not run and has to.
    pub start: bool,
    /// It does not start at boot and has to.
    pub enable: bool,
    /// It is a master now, by somebody's hand.
    pub promoted: bool,
    /// What is left as it is.
    pub notes: Vec<Note>,
}

impl Change<'_> {
    /// Whether its server starts anew.
    pub fn moves(&self) -> bool {
        self.start || self.restart.is_some() || self.container == Due::Joined
    }
}

/// Works out the change of one instance.
///
/// # Errors
/// A file of somebody else's making, or changed on both sides.
pub fn of<'a>(
    wanted: &Wanted<'_>,
    facts: &Facts,
    instance: &'a Instance,
    version: Version,
) -> Result<Change<'a>> {
    let running = facts.running.get(&instance.name);
    let file = File::look(wanted, facts, instance, version)?;
    let mut notes = file.notes;
    let needed = match instance.runtime {
        Runtime::Systemd => systemd::needed(instance, facts)?,
        Runtime::Process | Runtime::Container(_) => None,
    };
    let needs = needed.as_ref().map(|(path, _)| path.clone());
    let unit_file =
        needed.filter(|(path, want)| whole::is_due(wanted, facts, path, want, unit::same, &mut notes));
    let stale = stale(wanted, facts, instance, needs.as_deref(), &mut notes);
    let alive = is_alive(facts, instance, running);
    let spec = containers::of_instance(instance, wanted.image, facts);
    let container = spec.as_ref().map_or(Due::Nothing, |spec| containers::due(spec, facts));
    let made = container == Due::Made;
    let mut live = match alive && !made {
        true => {
            let text = file.text.as_ref().or_else(|| facts.texts.get(&instance.conf));
            live::divide(facts, instance, version, &file.directives, text)
        }
        false => Live::default(),
    };
    let exchanged = drift::password_set(facts, instance, &file.directives).filter(|_| alive && !made);
    let again = exchanged.is_some() && wanted.consent.overwrite;
    let restart = (alive && !made)
        .then(|| match &live.rest[..] {
            [] if unit_file.is_some() || !stale.is_empty() => Some(unit_changes(facts, unit_file.as_ref())),
            [] => again.then(|| "its password was changed by hand".to_owned()),
            names => Some(match speech_changes(facts, instance) {
                Some(why) => why.to_owned(),
                None => format!("{} changes", short_list(names)),
            }),
        })
        .flatten();
    let restart =
        restart.or_else(|| (alive && !made).then(|| certificates::restart(wanted, facts, instance))?);
    if restart.is_some() {
        live.before_a_restart();
    }
    if restart.is_some() || made || !alive {
        live::move_data(facts, instance, file.text.as_ref(), &mut live)?;
    }
    if alive && !made {
        notes.extend(live::default_off(facts, instance));
        let set = drift::set_live(facts, instance, &file.directives);
        let secrets = drift::secrets_set(facts, instance, &file.directives);
        match wanted.consent.overwrite {
            true if restart.is_none() => {
                live.settings.extend(drift::back(instance, version, set));
                let text = file.text.as_ref().or_else(|| facts.texts.get(&instance.conf));
                let told = live::divide(facts, instance, version, &secrets, text);
                live.settings.extend(told.settings);
                live.password = live.password.or(told.password);
                live.users = live.users.or(told.users);
            }
            true => {}
            false => {
                let told = drift::notes(instance, &set, &notes);
                notes.extend(told);
                notes.extend(
                    secrets
                        .into_iter()
                        .map(|directive| Note::SecretSet { instance: instance.name.clone(), directive }),
                );
                notes.extend(exchanged);
            }
        }
    }
    let promoted = notes.iter().any(|note| matches!(note, Note::Promoted { .. } | Note::Follows { .. }));
    let stays_down = (restart.is_none() && !live.follows()) || master_is_away(facts, instance);
    if alive && stays_down && instance.upstream.is_some() && !promoted && !linked(facts, instance) {
        notes.push(Note::LinkDown { instance: instance.name.clone() });
    }
    let enabled = is_enabled(facts, instance);
    Ok(Change {
        instance,
        text: file.text,
        ours: file.ours,
        keep: file.keep,
        unit_file,
        stale,
        live,
        restart,
        spec,
        alive,
        start: !alive || made,
        enable: instance.runtime != Runtime::Process && !enabled && !enabled_by_package(facts, instance),
        container,
        promoted,
        notes,
    })
}

/// Our drop-ins that a unit needs no longer. One that somebody's hand changed is noted and kept.
fn stale(
    wanted: &Wanted<'_>,
    facts: &Facts,
    instance: &Instance,
    needs: Option<&Path>,
    notes: &mut Vec<Note>,
) -> Vec<PathBuf> {
    if instance.runtime != Runtime::Systemd {
        return Vec::new();
    }
    let ours = |path: &PathBuf| facts.state.files.contains_key(path) && facts.text(path).is_some();
    let drop_ins = [systemd::drop_in(&instance.unit), systemd::former_drop_in(&instance.unit)];
    let unneeded = drop_ins.into_iter().filter(|path| needs != Some(path) && ours(path));
    let (gone, edited): (Vec<_>, Vec<_>) = unneeded.partition(|path| {
        let last = facts.written.get(path).map(Secret::expose);
        wanted.consent.overwrite
            || last.zip(facts.text(path)).is_some_and(|(last, there)| unit::same(last, there))
    });
    notes.extend(edited.into_iter().map(|file| Note::FileEdited { file }));
    gone
}

/// In words, whether it is to speak TLS, or none any more.
fn speech_changes(facts: &Facts, instance: &Instance) -> Option<&'static str> {
    let kept = facts.state.instances.get(&instance.name)?;
    match (kept.tls.is_some(), instance.tls.is_some()) {
        (false, true) => Some("it speaks TLS from now on"),
        (true, false) => Some("it speaks no TLS any more"),
        _ => None,
    }
}

/// In words, what a new file does to a unit.
fn unit_changes(facts: &Facts, file: Option<&(PathBuf, String)>) -> String {
    let filtered = |text: &str| {
        let mut unit = unit::parse(text).unwrap_or_default();
        let before = unit.len();
        unit.retain(|(_, key), _| !key.starts_with("IPAddress"));
        (before != unit.len(), unit)
    };
    let file = file.and_then(|(path, want)| Some((filtered(facts.text(path)?), filtered(want))));
    match file {
        Some(((false, there), (true, want))) if there == want => "its unit is closed to other machines",
        Some(((true, there), (false, want))) if there == want => "its unit is opened to other machines",
        _ => "its unit changes",
    }
    .to_owned()
}

/// Whether it starts at boot; a container that is made does from the beginning.
fn is_enabled(facts: &Facts, instance: &Instance) -> bool {
    match instance.runtime {
        Runtime::Container(_) => {
            facts.containers.containers.get(&instance.container()).is_none_or(|seen| seen.boot)
        }
        _ => facts.unit(&instance.unit).is_some_and(|unit| unit.enabled),
    }
}

/// The package's postinst enables the distribution's own service.
fn enabled_by_package(facts: &Facts, instance: &Instance) -> bool {
    let packaged =
        instance.runtime == Runtime::Systemd && !facts.installed() && layout::here().login.is_none();
    packaged && instance.name.as_str() == crate::engine::MASTER
}

fn is_alive(facts: &Facts, instance: &Instance, running: Option<&Running>) -> bool {
    if under_another_runtime(facts, instance).is_some() || adopt::misplaced(facts, instance).is_some() {
        return false;
    }
    match instance.runtime {
        Runtime::Process => running.is_some(),
        Runtime::Container(_) => {
            facts.containers.containers.get(&instance.container()).is_some_and(Seen::is_up)
        }
        Runtime::Systemd => {
            let unit = facts.unit(&instance.unit);
            unit.is_some_and(|unit| matches!(unit.active.as_str(), "active" | "activating" | "reloading"))
        }
    }
}

fn short_list(names: &[String]) -> String {
    match names {
        [one] => one.clone(),
        [one, two] => format!("{one} and {two}"),
        [one, rest @ ..] => format!("{one} and {} more", rest.len()),
        [] => String::new(),
    }
}

/// A configuration file compared.
struct File {
    /// What to write; none when the file is right.
    text: Option<Secret>,
    /// What of it is ours, where it keeps more than that.
    ours: Option<Secret>,
    /// The same where it is not written.
    keep: Option<Secret>,
    /// The directives that change by it.
    directives: Vec<String>,
    /// One of which lines are taken out, though the server has no other value by that.
    dropped: Option<String>,
    notes: Vec<Note>,
}

impl File {
    fn look(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance, version: Version) -> Result<Self> {
        let render = |kept: &[Hand]| instance.configuration(topology::file(), version, kept);
        let ours = render(&[])?;
        let want = parse(&ours)?;
        let Some(there_text) = facts.text(&instance.conf) else {
            return Ok(Self {
                text: Some(Secret::new(ours)),
                ours: None,
                keep: None,
                directives: vec!["its file".into()],
                dropped: None,
                notes: Vec::new(),
            });
        };
        let last_text = facts.written.get(&instance.conf).map(Secret::expose);
        let running = facts.running.get(&instance.name);
        let open = is_open(facts, instance);
        let adopts = wanted.consent.adopt;
        if last_text == Some(there_text) && ours == there_text && role_is_wanted(running, &want) && !open {
            return Ok(Self {
                text: None,
                ours: None,
                keep: None,
                directives: Vec::new(),
                dropped: None,
                notes: Vec::new(),
            });
        }
        let mut there = match Conf::parse(there_text) {
            Ok(there) => there,
            Err(_) if wanted.consent.overwrite => Conf::default(),
            Err(bad) => {
                return Err(
                    foreign(wanted, facts, instance, &format!("line {} cannot be read", bad.line)).into()
                );
            }
        };
        let mut last = match last_text {
            Some(text) => parse(text)?,
            // The package's own file is nobody's work.
            None if facts.stock || wanted.consent.overwrite => there.clone(),
            // Nor is what somebody set up by hand and hands over.
            None if adopts => there.clone(),
            None => match conf::compare(&want, &there, &want).first() {
                None => want.clone(),
                Some(_) => return Err(foreign(wanted, facts, instance, "it is not redis-tp's").into()),
            },
        };
        let as_it_runs = role_is_wanted(running, &want);
        if last_text.is_some() && !as_it_runs {
            overlay_role(&mut there, running);
        }
        let stands = as_it_runs && running.is_some_and(|running| running.role != Role::Unknown);
        // What is taken over has to be in the file, too; and a file that is behind what runs is nobody's wish.
        if stands && (adopts || last.get("replicaof") != want.get("replicaof")) {
            set_role(&mut last, there.get("replicaof").map(<[String]>::to_vec));
        }
        let mut file = Self::judge(wanted, instance, &render, [&last, &there, &want], open, stands)?;
        if let Some(text) = file.text.as_mut().filter(|_| instance.plain.is_some()) {
            let names: Vec<String> = file.directives.iter().cloned().chain(file.dropped.clone()).collect();
            *text = Secret::new(conf::amend(there_text, &parse(text.expose())?, &names));
        }
        file.directives.retain(|name| name != "replicaof" || !as_it_runs);
        if adopts {
            file.directives.extend(drift::not_read_yet(running, [&last, &there, &want]));
            let known =
                last_text.map(parse).transpose()?.is_some_and(|last| last.settings() == want.settings());
            file.keep = (file.text.is_none() && !known).then(|| Secret::new(ours));
        } else if last_text.is_none() && !file.directives.is_empty() {
            file.directives = vec!["its file".into()];
        }
        Ok(file)
    }

    fn judge(
        wanted: &Wanted<'_>,
        instance: &Instance,
        render: &dyn Fn(&[Hand]) -> Result<String>,
        [last, there, want]: [&Conf; 3],
        open: bool,
        stands: bool,
    ) -> Result<Self> {
        let differences = conf::compare(last, there, want);
        let by = |by: By| {
            differences.iter().filter(move |difference| difference.by == by && !wanted.consent.overwrite)
        };
        if let Some(both) = by(By::Both).next() {
            return Err(conflict(instance, both).into());
        }
        let written = by(By::Topology).next().is_some() || open;
        let hands: Vec<Hand> = by(By::Hand)
            .map(|difference| match difference.directive.as_str() {
                // Kept in a file that is written, it would lock the wanted password out.
                "user" if written => without_stale_default(instance, there),
                name => Hand::of(there, name),
            })
            .collect();
        let stale = |hand: &Hand| hand.directive == "user" && *hand != Hand::of(there, "user");
        let dropped = hands.iter().any(stale);
        let gone = |hand: &Hand| stale(hand) && hand.lines.is_empty();
        let mut notes: Vec<Note> = by(By::Hand)
            .filter(|difference| !(difference.directive == "user" && hands.iter().any(gone)))
            .map(|difference| note(instance, difference, stands))
            .collect();
        if dropped {
            notes.push(Note::DefaultUserDropped {
                instance: instance.name.clone(),
                file: instance.conf.clone(),
            });
        }
        let hands: Vec<Hand> = hands.iter().filter(|hand| !gone(hand)).cloned().collect();
        let directives: Vec<String> = differences
            .iter()
            .filter(|difference| difference.by == By::Topology || wanted.consent.overwrite)
            .map(|difference| difference.directive.clone())
            .collect();
        let write = !directives.is_empty() || open;
        let text = if write { Some(Secret::new(render(&hands)?)) } else { None };
        let ours = if write && !hands.is_empty() { Some(Secret::new(render(&[])?)) } else { None };
        Ok(Self { text, ours, keep: None, directives, dropped: dropped.then(|| "user".into()), notes })
    }
}

/// The lines of `user` without the default user that CONFIG REWRITE wrote with a password which is no
/// longer requirepass.
fn without_stale_default(instance: &Instance, there: &Conf) -> Hand {
    let mut kept = there.clone();
    if there.rewritten {
        let password = instance.requirepass.as_ref().map(Secret::expose);
        let stale = |args: &[String]| crate::directives::is_stale_default(args, password);
        kept.directives.retain(|line| line.name != "user" || !stale(&line.args));
    }
    Hand::of(&kept, "user")
}

/// Whether others may read the file: CONFIG REWRITE makes it anew, with a mode of its own. What is mounted
/// into a container lies in a directory that is closed; of what was set up by hand, see `adopt::owners`.
fn is_open(facts: &Facts, instance: &Instance) -> bool {
    instance.plain.is_none()
        && !instance.runtime.is_container()
        && facts.path(&instance.conf).is_some_and(|stat| stat.mode & 0o007 != 0)
}

fn parse(text: &str) -> Result<Conf> {
    Conf::parse(text)
        .map_err(|bad| anyhow::anyhow!("line {} of a rendered configuration has unbalanced quotes", bad.line))
}

/// What runs is the truth about roles: a promotion need not have reached the file.
fn overlay_role(there: &mut Conf, running: Option<&Running>) {
    let args = match running.map(|running| &running.role) {
        Some(Role::Master) => None,
        Some(Role::Replica { host, port, .. }) => Some(vec![host.clone(), port.to_string()]),
        Some(Role::Unknown) | None => return,
    };
    set_role(there, args);
}

fn set_role(conf: &mut Conf, args: Option<Vec<String>>) {
    conf.directives.retain(|directive| crate::directives::canonical(&directive.name) != "replicaof");
    if let Some(args) = args {
        conf.directives.push(Directive { name: "replicaof".into(), args, line: 0 });
    }
}

fn role_is_wanted(running: Option<&Running>, want: &Conf) -> bool {
    match running.map(|running| &running.role) {
        None | Some(Role::Unknown) => true,
        Some(Role::Master) => want.get("replicaof").is_none(),
        Some(Role::Replica { host, port, .. }) => {
            want.get("replicaof").is_some_and(|words| words == [host.clone(), port.to_string()])
        }
    }
}

/// What somebody changed; of a server whose role stands, only its file.
fn note(instance: &Instance, difference: &Difference, stands: bool) -> Note {
    let name = instance.name.clone();
    match (difference.directive.as_str(), difference.there.as_str()) {
        ("replicaof", _) if stands => {
            Note::Edited { instance: name, file: instance.conf.clone(), difference: difference.clone() }
        }
        ("replicaof", "-") => Note::Promoted { instance: name, wanted: difference.wanted.clone() },
        ("replicaof", now) => Note::Follows {
            instance: name,
            now: now.to_owned(),
            wanted: match difference.wanted.as_str() {
                "-" => "master".into(),
                wanted => format!("replica of {wanted}"),
            },
        },
        _ => Note::Edited { instance: name, file: instance.conf.clone(), difference: difference.clone() },
    }
}

fn foreign(wanted: &Wanted<'_>, facts: &Facts, instance: &Instance, why: &str) -> Fault {
    // Only what is known for sure is a line to copy: other commands have flags of their own.
    let first = facts.path(topology::file()).is_none();
    let again = match wanted.text {
        Some(crate::topology::LAB) if first => "redis-tp up --overwrite",
        None => "redis-tp apply --overwrite",
        Some(_) => "the same command with --overwrite",
    };
    let fault =
        Fault::refused(format!("{} is there already, and {why}: left alone", instance.conf.display()));
    let aside = "let redis-tp keep it aside (`redis-tp uninstall` brings it back)";
    match first && layout::here().login.is_none() {
        true => fault.hint(format!("take it over as it is, or {aside}:\nredis-tp adopt\n{again}")),
        false => fault.hint(format!("move it away, or {aside}:\n{again}")),
    }
}

fn conflict(instance: &Instance, both: &Difference) -> Fault {
    let Difference { directive, there, wanted, .. } = both;
    let what = match (directive.as_str(), there.as_str()) {
        ("replicaof", "-") => format!("{} was promoted and is a master now", instance.name),
        ("replicaof", now) => format!("{} follows {now} now", instance.name),
        (_, "-") => format!("{directive} was taken out of {} by hand", instance.conf.display()),
        _ => format!("{directive} in {} was changed by hand to {there}", instance.conf.display()),
    };
    let wanted = match (directive.as_str(), wanted.as_str()) {
        ("replicaof", "-") => "a master".to_owned(),
        ("replicaof", master) => format!("a replica of {master}"),
        (_, "-") => "none".to_owned(),
        _ => wanted.clone(),
    };
    Fault::refused(format!("{what}, and the topology now wants {wanted}"))
        .hint("put the value you want into the topology, or take the topology's:\nredis-tp apply --overwrite")
}
