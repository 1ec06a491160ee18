//! What holds for any text that the parsers are given. Three feed them: proptest and the cases of
//! `tests/cases/found` in the test run, and libFuzzer beside it (`tests/fuzz`).

use std::collections::BTreeMap;
use std::path::Path;

use redis_tp::app::Settings;
use redis_tp::conf::{self, Conf, Directive};
use redis_tp::engine::Version;
use redis_tp::instance::Instance;
use redis_tp::journal::Record;
use redis_tp::runtime::Runtime;
use redis_tp::secret::Secret;
use redis_tp::secrets::Secrets;
use redis_tp::state::State;
use redis_tp::topology::{Document, Topology};

/// A redis.conf: what is read is written as it was read, and differs from itself in nothing.
pub fn conf(text: &str) {
    for line in text.split('\n') {
        if let Some(words) = conf::split(line) {
            let quoted = conf::quote_all(&words);
            assert_eq!(conf::split(&quoted), Some(words), "{line:?} was written as {quoted}");
        }
    }
    let masked = conf::mask(text);
    assert_eq!(conf::mask(&masked), masked, "a mask is masked");
    let Ok(conf) = Conf::parse(text) else { return };
    let line = |directive: &Directive| {
        format!("{} {}\n", conf::quote(&directive.name), conf::quote_all(&directive.args))
    };
    let written: String = conf.directives.iter().map(line).collect();
    let again = Conf::parse(&written).expect("what we write is balanced");
    assert_eq!(words(&again.directives), words(&conf.directives), "it was written as\n{written}");
    assert_eq!(conf::compare(&conf, &conf, &conf), []);
    assert_eq!(conf::compare(&conf, &again, &conf), []);
}

fn words(directives: &[Directive]) -> Vec<(&str, &[String])> {
    directives.iter().map(|directive| (directive.name.as_str(), directive.args.as_slice())).collect()
}

/// A line of a configuration that the server would take for a password: masked, wherever it stands.
pub fn mask(line: &str, password: &str) {
    for text in
        [line.to_owned(), format!("port 1\n{line}\nhz 1"), format!(">>> '{line}'"), format!("# {line}")]
    {
        for shown in [conf::mask(&text), conf::redact(&text)] {
            assert!(!shown.contains(password), "{text:?} shows {shown:?}");
        }
    }
}

/// A topology: it is refused, or the configuration that comes of it has its directives and no other one;
/// and an edit of it does what it says and nothing else.
pub fn topology(text: &str) {
    let Ok(topology) = parse(text) else { return };
    let secrets = Secrets { password: Some(Secret::new("generated")), ..Secrets::default() };
    for instance in Instance::resolve(&topology, &secrets, Runtime::Systemd) {
        configuration(&instance);
    }
    edit(text, &topology);
}

fn parse(text: &str) -> Result<Topology, redis_tp::exit::Fault> {
    Topology::parse(text, Path::new("t.ini"))
}

/// What the template, the defaults and the topology's typed keys make of an instance.
const OURS: [&str; 13] = [
    "bind",
    "protected-mode",
    "port",
    "requirepass",
    "masterauth",
    "replicaof",
    "dir",
    "logfile",
    "pidfile",
    "daemonize",
    "supervised",
    "save",
    "repl-diskless-sync-delay",
];

fn configuration(instance: &Instance) {
    let text = instance.configuration(Path::new("t.ini"), Version::new(7, 0), &[]).expect("it renders");
    let conf = Conf::parse(&text).expect("what we render is balanced");
    let count = |name: &str| conf.directives.iter().filter(|line| line.name == name).count();
    for name in OURS.iter().filter(|name| !["save", "supervised"].contains(name)) {
        let known = instance.directives.iter().filter(|named| named.name == *name).count();
        assert!(count(name) <= 1.max(known), "{name} was smuggled in:\n{text}");
    }
    let wanted: Vec<_> = instance
        .directives
        .iter()
        .filter(|named| !OURS.contains(&named.name.as_str()))
        .map(|named| (named.name.as_str(), named.args.as_slice()))
        .collect();
    let there: Vec<_> =
        words(&conf.directives).into_iter().filter(|(name, _)| !OURS.contains(name)).collect();
    assert_eq!(there, wanted, "the configuration is\n{text}");
}

fn edit(text: &str, before: &Topology) {
    let untouched = Document::new(text).text();
    assert_eq!(parse(&untouched).as_ref().ok(), Some(before), "a document is not what it was made of");
    let Some(first) = before.instances.first() else { return };
    let name = first.name.as_str();

    let mut document = Document::new(text);
    document.set(name, "maxclients", "4711");
    let edited = document.text();
    let after = parse(&edited).unwrap_or_else(|fault| panic!("{fault} after an edit:\n{edited}"));
    let set = &after.instances[0];
    let values = |section: &redis_tp::topology::Section| -> Vec<(String, Vec<String>)> {
        section.directives.iter().map(|named| (named.name.clone(), named.args.clone())).collect()
    };
    let set_to: Vec<_> = values(set).into_iter().filter(|(key, _)| key == "maxclients").collect();
    // A key in capitals is another line of the same directive, and the last one counts.
    assert!(set_to.iter().any(|(_, args)| args == &["4711"]), "{edited}");
    let others = |all: Vec<(String, Vec<String>)>| -> Vec<_> {
        all.into_iter().filter(|(key, _)| key != "maxclients").collect()
    };
    assert_eq!(others(values(set)), others(values(first)), "an edit touched another key:\n{edited}");
    assert_eq!(after.instances.len(), before.instances.len(), "{edited}");
    for (after, before) in after.instances.iter().zip(&before.instances).skip(1) {
        assert_eq!((values(after), after.port), (values(before), before.port), "{edited}");
    }
    let comments = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.trim_start().starts_with([';', '#'])).map(str::to_owned).collect()
    };
    assert_eq!(comments(&edited), comments(text), "an edit lost a comment");

    let mut document = Document::new(text);
    document.remove(name);
    let fewer = parse(&document.text()).map(|topology| topology.instances);
    assert!(
        fewer.is_ok_and(|all| all.iter().all(|section| section.name != first.name)) || refers(before, name)
    );
}

/// Whether another section or nothing else is left to name an instance that goes.
fn refers(topology: &Topology, name: &str) -> bool {
    !topology.replicas_of(name).is_empty()
}

/// A journal: it is read or refused, and a torn line behind it changes nothing.
pub fn journal(text: &str) {
    let Ok(record) = Record::parse(text) else { return };
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    for torn in ["", "{", "{\"undo\":\"reload\"}", "\u{0}"] {
        let again = Record::parse(&format!("{whole}{torn}")).expect("a torn line is none");
        assert_eq!(again, record, "a torn {torn:?} counts");
    }
    for undo in &record.undo {
        let line = serde_json::to_string(undo).expect("an undo is JSON");
        assert_eq!(&serde_json::from_str::<redis_tp::journal::Undo>(&line).expect("it reads back"), undo);
    }
}

/// Whatever else is read that others write: no panic, and no way round.
pub fn others(text: &str) {
    use redis_tp::facts::{dpkg, parse};
    if let Ok(state) = serde_json::from_str::<State>(text) {
        let written = serde_json::to_string(&state).expect("a record is JSON");
        assert_eq!(serde_json::from_str::<State>(&written).expect("it reads back"), state);
    }
    if let Ok(settings) = Settings::parse(text) {
        assert_eq!(Settings::parse(settings.text().expose()).expect("it reads back"), settings);
    }
    let info: BTreeMap<String, String> = redis_tp::wire::parse_info(text);
    let _ = (parse::role(&info), parse::keys(&info), parse::followers(&info).count());
    let _ = (dpkg::package(text, "redis-server"), parse::units(text), parse::cgroup_unit(text));
    let _ = text.lines().map(parse::listener).filter(Option::is_some).count();
    let _ = (Version::parse(text), Version::of_banner(text));
    let _ = redis_tp::wire::Address::parse(text).map(|address| address.to_string());
    let _ = redis_tp::http::Url::parse(text).map(|url| url.authority());
    let _ = redis_tp::topology::Bind::parse(text).map(|bind| bind.to_string());
    let _ = redis_tp::topology::ReplicaOf::parse(text).map(|of| of.to_string());
    let _ = (redis_tp::topology::lifetime(text), redis_tp::topology::delay(text));
    let _ = (redis_tp::unit::parse(text), redis_tp::log::telling(text, 3), redis_tp::prove::neutral(text));
    let _ = redis_tp::backup::head(text.as_bytes());
    if let Ok(secret) = Secret::parse(text) {
        assert_eq!(conf::split(&conf::quote(secret.expose())), Some(vec![secret.expose().to_owned()]));
    }
}
