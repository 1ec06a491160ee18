//! The planner over cases that are data: topology and facts in, the expected plan out.
//!
//! A case is a folder of `tests/cases/plan`:
//! - `topology.ini`: what is wanted now;
//! - `before.ini`, `before-2.ini`, if there were earlier runs: what those made true, on a model machine;
//! - `adopted.ini`: the same, of a `redis-tp adopt`;
//! - `facts.json`: what is there. `base` names a file of `bases` to begin with; the rest is merged into
//!   it (RFC 7396, so `null` takes a key away) after the earlier runs. `edit` changes lines of files
//!   (`-START` takes those away that begin so, `+LINE` adds one); a path is `KIND MODE OWNER` in words;
//! - `there/NAME`: what `/etc/redis/NAME` holds, to the letter;
//! - `wish.json`: flags of the command, see [`Wish`];
//! - `expected.txt`: steps, notes, error as the program prints them. `REDIS_TP_BLESS=1` writes it anew.
//!
//! Every secret of a case begins with `s3cret`, and none may be printed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use redis_tp::app::{self, App};
use redis_tp::certificates::{self, Certificates, Fresh, Reader};
use redis_tp::conf::Conf;
use redis_tp::exit;
use redis_tp::facts::{Auth, Facts};
use redis_tp::host::{Kind, Stat};
use redis_tp::instance::Instance;
use redis_tp::plan::{Consent, Note, Plan, Wanted, leave, plan, refuse};
use redis_tp::report::plan as show;
use redis_tp::runtime::{Means, Runtime, container};
use redis_tp::secret::Secret;
use redis_tp::secrets::{OfUsers, Secrets, lost_password, password_file, upstream_file, user_file};
use redis_tp::store::Store;
use redis_tp::tls::{Pem, Tls};
use redis_tp::topology::{self, Name, Topology};
use redis_tp::users;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use similar::TextDiff;

use crate::model::{self, REDIS};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/plan");
const PASSWORD: &str = "s3cret-of-the-lab";

/// The flags of a command.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    /// `--overwrite`
    overwrite: bool,
    /// `--force`
    force: bool,
    /// `redis-tp adopt`, or `--adopt` when the topology was edited.
    adopt: bool,
    /// `--no-backup`
    no_backup: bool,
    /// `replica remove NAME --purge`
    purge: Option<Name>,
    /// Another password than the one of the earlier run.
    password: Option<String>,
    /// `tls rotate`, with or without `--ca`.
    rotate: Option<Rotate>,
    /// Passwords of masters elsewhere.
    upstream: BTreeMap<Name, String>,
    /// `uninstall` instead of a topology, with or without `--purge`.
    uninstall: Option<Uninstall>,
    /// What to show besides the steps.
    show: Vec<Show>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Uninstall {
    Keep,
    Purge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rotate {
    Certificates,
    Authority,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Show {
    Shell,
    Diff,
}

/// A case, read.
struct Case {
    folder: PathBuf,
    wish: Wish,
    facts: Facts,
}

/// What the planner made of a case.
struct Outcome {
    plan: Result<Plan>,
    facts: Facts,
}

#[test]
fn plans_are_those_expected_and_print_no_secret() {
    let bless = std::env::var_os("REDIS_TP_BLESS").is_some_and(|bless| bless == "1");
    let mut wrong = String::new();
    for case in cases() {
        let (text, name) = (case.outcome().text(&case.wish.show), case.name());
        assert!(!text.contains("s3cret"), "{name} prints a secret:\n{text}");
        let path = case.folder.join("expected.txt");
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if bless && text != expected {
            fs::write(&path, &text).expect("expected.txt can be written");
        } else if text != expected {
            let diff = TextDiff::from_lines(&expected, &text);
            let diff = diff.unified_diff().header("expected", "planned").to_string();
            let _ = write!(wrong, "\n{name}:\n{diff}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}\nIf these plans are right: REDIS_TP_BLESS=1 cargo test plan_cases");
}

#[test]
fn a_plan_carried_out_leaves_nothing_to_do_and_the_same_to_note() {
    let mut wrong = String::new();
    for case in cases().into_iter().filter(|case| case.wish.uninstall.is_none()) {
        let first = case.outcome();
        let Ok(plan) = first.plan else { continue };
        let wish = Wish { overwrite: false, rotate: None, ..case.wish };
        let mut after = Case { facts: first.facts, wish, folder: case.folder };
        model::carry_out(&plan, &mut after.facts);
        let again = after.outcome();
        let text = again.text(&[]);
        let notes = |plan: &Plan| {
            let lasting = |note: &&Note| note.is_drift();
            plan.notes.iter().filter(lasting).cloned().collect::<Vec<_>>()
        };
        let same = again.plan.is_ok_and(|again| again.is_empty() && notes(&again) == notes(&plan));
        if !same {
            let _ = write!(wrong, "\n{} plans again:\n{text}", after.name());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_was_uninstalled_with_purge_is_forgotten() {
    for case in cases().into_iter().filter(|case| case.wish.uninstall == Some(Uninstall::Purge)) {
        let mut outcome = case.outcome();
        let plan = outcome.plan.expect("an uninstall is never refused");
        model::carry_out(&plan, &mut outcome.facts);
        // But for data that was there before, which is told.
        let told = |store: &&Store| plan.notes.contains(&Note::NotOurs { store: (*store).clone() });
        let occupied = outcome.facts.occupied.iter().filter(|store| !told(store)).map(Store::to_string);
        let files = outcome.facts.written.keys().map(|path| path.display().to_string());
        let left: Vec<String> = files.chain(occupied).collect();
        assert!(left.is_empty(), "{} leaves {left:?}", case.name());
    }
}

fn cases() -> Vec<Case> {
    let entries = fs::read_dir(CASES).expect("the cases are there");
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder is listed").path()).collect();
    folders.retain(|folder| folder.join("facts.json").exists());
    folders.sort();
    let read = |folder: &PathBuf| {
        Case::read(folder).unwrap_or_else(|error| panic!("{}: {error:#}", folder.display()))
    };
    folders.iter().map(read).collect()
}

impl Case {
    fn read(folder: &Path) -> Result<Self> {
        let mut overlay = read_json(&folder.join("facts.json"))?;
        let mut key = |name: &str| overlay.as_object_mut().and_then(|object| object.remove(name));
        let (base, edit) = (key("base"), key("edit"));
        let wish = match fs::read_to_string(folder.join("wish.json")) {
            Ok(text) => serde_json::from_str(&text).context("wish.json")?,
            Err(_) => Wish::default(),
        };
        let mut facts: Facts = serde_json::from_value(based_on(base.as_ref(), json!({}))?)?;
        for name in ["adopted.ini", "before.ini", "before-2.ini"] {
            if let Some(text) = read_text(&folder.join(name)) {
                let wish = Wish { adopt: name == "adopted.ini", ..Wish::default() };
                facts = after_earlier_run(&text, facts, &wish).context(name)?;
            }
        }
        let mut facts: Facts = serde_json::from_value(merged(to_json(&facts)?, overlay))?;
        for (path, changes) in edit.as_ref().and_then(Value::as_object).into_iter().flatten() {
            edit_file(Path::new(path), changes, &mut facts);
        }
        take_files_to_the_letter(&folder.join("there"), &mut facts)?;
        Ok(Self { folder: folder.to_owned(), wish, facts })
    }

    fn name(&self) -> String {
        self.folder.file_name().map_or_else(String::new, |name| name.display().to_string())
    }

    fn outcome(&self) -> Outcome {
        let text = read_text(&self.folder.join("topology.ini")).unwrap_or_default();
        let mut facts = self.facts.clone();
        let plan = match self.wish.uninstall {
            Some(uninstall) => {
                let topology = facts.text(topology::file()).map(parse).transpose();
                let topology = topology.expect("an earlier run's topology can be read");
                let purge = uninstall == Uninstall::Purge;
                let allowed = if purge || self.wish.overwrite { Ok(()) } else { refuse::edited(&facts) };
                let leave = || leave(topology.as_ref(), &facts, Some(Secret::new(PASSWORD)), purge);
                allowed.map(|()| leave()).map_err(Into::into)
            }
            None => plan_for(&text, &mut facts, &self.wish),
        };
        Outcome { plan, facts }
    }
}

impl Outcome {
    /// All of it, as the program prints it.
    fn text(&self, shows: &[Show]) -> String {
        let lines = match &self.plan {
            Ok(plan) => plan_lines(plan, &self.facts, shows),
            Err(error) => error_lines(error),
        };
        let lines = lines.iter().map(|line| anstream::adapter::strip_str(line).to_string());
        lines.flat_map(|line| [line, "\n".into()]).collect()
    }
}

fn plan_lines(plan: &Plan, facts: &Facts, shows: &[Show]) -> Vec<String> {
    let mut lines = show::steps(plan);
    if plan.is_empty() {
        lines.push("No changes.".into());
    }
    lines.extend(show::notes(&plan.notes));
    if plan.has_drift() {
        lines.push(format!("exit code {}", exit::Code::Pending as u8));
    }
    for what in shows {
        lines.push(format!("--- {what:?}").to_lowercase());
        lines.extend(match what {
            Show::Shell => show::shell(plan),
            Show::Diff => show::diff(plan, facts),
        });
    }
    lines
}

fn error_lines(error: &anyhow::Error) -> Vec<String> {
    let mut lines = vec![format!("error: {error:#}")];
    let hint = error.downcast_ref::<exit::Fault>().and_then(exit::Fault::cure).unwrap_or("none");
    lines.extend(hint.lines().enumerate().map(|(index, line)| match index {
        0 => format!("hint: {line}"),
        _ => format!("      {line}"),
    }));
    lines.push(format!("exit code {}", exit::code_of(error) as u8));
    lines
}

// ---- from a case's files to the planner's arguments -------------------------------------------

fn parse(text: &str) -> Result<Topology> {
    Ok(Topology::parse(text, topology::file())?)
}

/// What the commands do between reading the facts and planning (`commands/scene.rs`).
fn plan_for(text: &str, facts: &mut Facts, wish: &Wish) -> Result<Plan> {
    let topology = parse(text)?;
    let secrets = secrets(&topology, facts, wish)?;
    let means = Means { systemd: facts.systemd, ..facts.means };
    let runtime = Runtime::settle(topology.runtime, means)?;
    let image = topology.image.clone().unwrap_or_else(|| container::default_image(topology.engine));
    let instances = Instance::resolve(&topology, &secrets, runtime);
    // Facts are gathered about what is wanted, and about nothing else.
    let wanted = |name: &Name| instances.iter().any(|instance| &instance.name == name);
    facts.running.retain(|name, _| wanted(name));
    instances.iter().for_each(|instance| take_the_password_of_its_file(instance, facts));
    let app = App::resolve(&topology, &instances, runtime);
    let of_app = |unit: &str| unit == app::service::UNIT && (app.is_some() || facts.state.app.is_some());
    facts.units.retain(|name, _| of_app(name) || instances.iter().any(|instance| &instance.unit == name));
    let standing = facts.text(topology::file());
    let wanted = Wanted {
        topology: &topology,
        text: (standing != Some(text)).then_some(text),
        instances: &instances,
        app: app.as_ref(),
        image: &image,
        secrets: &secrets,
        consent: Consent {
            overwrite: wish.overwrite,
            force: wish.force,
            no_backup: wish.no_backup,
            adopt: wish.adopt,
        },
        purge: wish.purge.as_ref(),
    };
    plan(&wanted, facts)
}

/// A server has the password of its file, as long as nobody edited that.
fn take_the_password_of_its_file(instance: &Instance, facts: &mut Facts) {
    let (text, written) = (facts.text(&instance.conf), facts.written.get(&instance.conf).map(Secret::expose));
    let its_own = |text: &&str| Some(*text) == written || text.contains("# Generated by CONFIG REWRITE");
    let conf = text.filter(its_own).and_then(|text| Conf::parse(text).ok());
    let former = conf.and_then(|conf| conf.word("requirepass").map(Secret::new));
    if let Some(running) = facts.running.get_mut(&instance.name)
        && former.is_some()
        && former != instance.requirepass
    {
        running.auth = Auth::Former;
    }
}

fn secrets(topology: &Topology, facts: &Facts, wish: &Wish) -> Result<Secrets> {
    let mut secrets = Secrets::default();
    if topology.password {
        let standing = facts.text(&password_file()).map(|text| Secret::new(text.trim_end()));
        secrets.password = standing;
        if secrets.password.is_none() {
            let text = |path: &Path| Ok(facts.text(path).map(str::to_owned));
            let written = |path: &Path| Ok(facts.written.get(path).map(|text| text.expose().to_owned()));
            let given = wish.password.is_some();
            let lost = lost_password(topology, &facts.state, given, text, written)?;
            secrets.set_password(lost.unwrap_or_else(|| Secret::new(PASSWORD)));
        }
        wish.password.iter().for_each(|password| secrets.set_password(Secret::new(password)));
    }
    if topology.has_users() {
        let mut one = |user: &str| {
            let kept = facts.text(&user_file(user)).map(|text| Secret::new(text.trim_end()));
            kept.unwrap_or_else(|| {
                let made = Secret::new(format!("{PASSWORD}-of-{user}"));
                secrets.fresh.insert(user_file(user), made.clone());
                made
            })
        };
        let (replica, app) = (one(users::REPLICA), topology.app.as_ref().map(|_| one(users::APP)));
        secrets.users = Some(OfUsers { replica, app });
    }
    secrets.tls = topology.tls.then(|| certificates(topology, facts, wish.rotate));
    for (replica, password) in &wish.upstream {
        if let Some(text) = facts.text(&upstream_file(replica)) {
            secrets.upstream.insert(replica.clone(), Secret::new(text.trim_end()));
        }
        secrets.set_upstream(replica, Secret::new(password.clone()));
    }
    Ok(secrets)
}

/// Files as certificates have them, with no certificate in them.
fn certificates(topology: &Topology, facts: &Facts, rotate: Option<Rotate>) -> Certificates {
    let mut fresh = Vec::new();
    let mut one = |path: PathBuf, text: &str, reader: Reader, again: bool| {
        let kept = facts.text(&path).filter(|_| !again).map(str::to_owned);
        kept.unwrap_or_else(|| {
            let text = if rotate.is_some() { format!("{text}, another\n") } else { format!("{text}\n") };
            fresh.push(Fresh { path, text: Secret::new(&text), reader });
            text
        })
    };
    let (again, anew) = (rotate == Some(Rotate::Authority), rotate.is_some());
    let ca = one(certificates::authorities(), "an authority", Reader::All, again);
    one(certificates::authority_key(), "s3cret-of-the-authority", Reader::Us, again);
    let mut pem = |files: Tls, name: &str, reader: Reader| Pem {
        ca: ca.clone(),
        cert: one(files.cert, &format!("a certificate of {name}"), Reader::All, anew),
        key: Secret::new(one(files.key, &format!("s3cret-of-{name}"), reader, anew)),
    };
    let server = pem(certificates::of_servers(), "the instances", Reader::Server);
    let app = topology.app.as_ref().map(|_| Arc::new(pem(certificates::of_app(), "the app", Reader::Us)));
    Certificates { server, app, own: BTreeMap::new(), fresh, trouble: None }
}

fn after_earlier_run(text: &str, mut facts: Facts, wish: &Wish) -> Result<Facts> {
    let earlier = plan_for(text, &mut facts, wish)?;
    model::carry_out(&earlier, &mut facts);
    Ok(facts)
}

/// A base with what its own base brings.
fn based_on(base: Option<&Value>, overlay: Value) -> Result<Value> {
    let Some(base) = base.and_then(Value::as_str) else { return Ok(overlay) };
    let mut below = read_json(&Path::new(CASES).join("bases").join(base).with_extension("json"))?;
    let next = below.as_object_mut().and_then(|object| object.remove("base"));
    based_on(next.as_ref(), merged(below, overlay))
}

/// JSON merge patch, RFC 7396.
fn merged(base: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    let mut all = match base {
        Value::Object(base) => base,
        _ => Map::new(),
    };
    for (key, value) in patch {
        match (all.remove(&key), value) {
            (_, Value::Null) => {}
            (base, value) => drop(all.insert(key, merged(base.unwrap_or_default(), value))),
        }
    }
    Value::Object(all)
}

/// Facts as JSON, with the texts that they print masked.
fn to_json(facts: &Facts) -> Result<Value> {
    let mut value = serde_json::to_value(facts)?;
    for (key, texts) in [("texts", &facts.texts), ("written", &facts.written)] {
        let exposed: BTreeMap<_, _> = texts.iter().map(|(path, text)| (path, text.expose())).collect();
        value.as_object_mut().context("facts are an object")?.insert(key.into(), json!(exposed));
    }
    Ok(value)
}

/// Changes lines of a file, as somebody's hand would.
fn edit_file(path: &Path, changes: &Value, facts: &mut Facts) {
    let text = facts.text(path).unwrap_or_else(|| panic!("there is no {} to edit", path.display()));
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for change in changes.as_array().into_iter().flatten().filter_map(Value::as_str) {
        match change.split_at(1) {
            ("-", start) => lines.retain(|line| !line.starts_with(start)),
            ("+", line) => lines.push(line.to_owned()),
            _ => panic!("an edit begins with + or -, unlike '{change}'"),
        }
    }
    facts.texts.insert(path.into(), Secret::new(lines.join("\n") + "\n"));
}

fn take_files_to_the_letter(folder: &Path, facts: &mut Facts) -> Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let file = entry?.path();
        let path = Path::new("/etc/redis").join(file.file_name().unwrap_or(OsStr::new("")));
        let stat = Stat { kind: Kind::File, mode: 0o640, uid: REDIS.uid, gid: REDIS.gid, inode: 0, links: 1 };
        facts.paths.entry(path.clone()).or_insert(stat);
        facts.texts.insert(path, Secret::new(fs::read_to_string(&file)?));
    }
    Ok(())
}

fn read_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Reads a file of facts, and takes what it says of paths at its words.
fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut value: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    for stat in value.get_mut("paths").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Some(words) = stat.as_str() {
            *stat = stat_of(words).with_context(|| format!("{}: '{words}'", path.display()))?;
        }
    }
    Ok(value)
}

/// `dir 2770 redis` as a stat.
fn stat_of(words: &str) -> Result<Value> {
    let [kind, mode, owner] = words.split(' ').collect::<Vec<_>>()[..] else {
        bail!("not KIND MODE OWNER");
    };
    let (uid, gid) = match owner {
        "root" => (0, 0),
        "redis" => (REDIS.uid, REDIS.gid),
        number => (number.parse()?, number.parse()?),
    };
    Ok(json!({ "kind": kind, "mode": u32::from_str_radix(mode, 8)?, "uid": uid, "gid": gid }))
}
