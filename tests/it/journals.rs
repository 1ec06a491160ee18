//! Every format of the journal that was ever written still reads, however it was cut off; and a rollback
//! by it takes nothing away that somebody wrote since.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};
use redis_tp::apply::roll_back;
use redis_tp::exit::{Code, code_of};
use redis_tp::host::{Host, Ids};
use redis_tp::journal::{self, End, Record, Saved, Undo};
use redis_tp::state::State;

/// `tests/cases/journal/format-N.jsonl`: all that a redis-tp of format N could write.
const FORMATS: [(&str, &str); 5] = [
    ("format-1", include_str!("../cases/journal/format-1.jsonl")),
    ("format-2", include_str!("../cases/journal/format-2.jsonl")),
    ("format-3", include_str!("../cases/journal/format-3.jsonl")),
    ("format-4", include_str!("../cases/journal/format-4.jsonl")),
    ("format-5", include_str!("../cases/journal/format-5.jsonl")),
];

#[test]
fn a_journal_of_every_format_reads_whole() {
    for (name, text) in FORMATS {
        let record = Record::parse(text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!((record.run, record.command.as_str(), record.time), (7, "replica add", 1_750_000_000));
        assert_eq!(
            record.undo.len(),
            text.lines().filter(|line| line.contains("\"undo\"")).count(),
            "{name}"
        );
        assert!(record.no_return && record.end == Some(End::Done), "{name}");
    }
    let (_, newest) = FORMATS[FORMATS.len() - 1];
    let kinds: BTreeSet<&str> = Record::parse(newest).unwrap().undo.iter().map(kind).collect();
    assert_eq!(kinds.len(), KINDS, "the newest format's case lacks a kind; it has {kinds:?}");
}

/// How many kinds of effect there are, as [`kind`] knows them.
const KINDS: usize = 25;

/// The compiler asks for a line here, and the test above for one in the case, for every new kind.
fn kind(undo: &Undo) -> &'static str {
    match undo {
        Undo::File { .. } => "file",
        Undo::Directory { .. } => "directory",
        Undo::Owner { .. } => "owner",
        Undo::Revive { .. } => "revive",
        Undo::Stop { .. } => "stop",
        Undo::Role { .. } => "role",
        Undo::Start { .. } => "start",
        Undo::StartUnit { .. } => "start-unit",
        Undo::StopUnit { .. } => "stop-unit",
        Undo::Enabled { .. } => "enabled",
        Undo::Set { .. } => "set",
        Undo::Password { .. } => "password",
        Undo::Users { .. } => "users",
        Undo::Certificates { .. } => "certificates",
        Undo::Replaced { .. } => "replaced",
        Undo::Staged { .. } => "staged",
        Undo::Kernel { .. } => "kernel",
        Undo::Reload => "reload",
        Undo::Packages { .. } => "packages",
        Undo::StopApp { .. } => "stop-app",
        Undo::StartApp { .. } => "start-app",
        Undo::User { .. } => "user",
        Undo::Container { .. } => "container",
        Undo::Network { .. } => "network",
        Undo::Volume { .. } => "volume",
        Undo::Boot { .. } => "boot",
    }
}

#[test]
fn what_a_journal_says_is_written_as_it_was_read() {
    let (_, newest) = FORMATS[FORMATS.len() - 1];
    let effects = newest.lines().filter(|line| line.contains("\"undo\""));
    for (line, undo) in effects.zip(Record::parse(newest).unwrap().undo) {
        assert_eq!(serde_json::to_string(&undo).unwrap(), line);
    }
}

#[test]
fn a_journal_cut_off_at_any_byte_yields_no_more_than_was_announced() {
    for (name, text) in FORMATS {
        let whole = Record::parse(text).unwrap();
        for cut in 0..text.len() {
            let Ok(part) = Record::parse(&text[..cut]) else {
                assert!(!text[..cut].contains('\n'), "{name} cut at {cut} does not read");
                continue;
            };
            let announced = text[..cut].lines().filter(|line| line.contains("\"undo\"")).count();
            assert!(part.undo.len() <= announced, "{name} cut at {cut}");
            assert_eq!(part.undo, whole.undo[..part.undo.len()], "{name} cut at {cut}");
        }
    }
}

#[test]
fn a_run_killed_while_it_wrote_its_journal_is_open_or_never_was() {
    let (_, text) = FORMATS[0];
    let machine = Machine::new();
    let head = text.find('\n').unwrap();
    for cut in [0, 1, head, head + 1, head + 2, text.len() / 2, text.len() - 2] {
        machine.write("/var/lib/redis-tp/runs/000007/journal", &text[..cut]);
        let open = journal::open_run(&machine.host).unwrap_or_else(|error| panic!("cut at {cut}: {error:#}"));
        assert_eq!(open.is_some(), cut > head, "cut at {cut}");
    }
    machine.write("/var/lib/redis-tp/runs/000007/journal", text);
    assert_eq!(journal::open_run(&machine.host).unwrap(), None);
}

// ---- a rollback --------------------------------------------------------------------------------

const CONF: &str = "/etc/redis/redis.conf";
const COPY: &str = "/var/lib/redis-tp/runs/000007/1";

#[test]
fn a_rollback_is_refused_over_what_was_written_since() {
    let machine = Machine::after_a_run("port 1\n", "port 1\nhz 20\n");
    machine.write(CONF, "port 1\nhz 20\nmaxclients 500\n");
    let refused = roll_back(&machine.host, &machine.record(), false).unwrap_err();
    assert_eq!(code_of(&refused), Code::Refused);
    roll_back(&machine.host, &machine.record(), true).unwrap();
    assert_eq!(machine.read(CONF), "port 1\n");
}

#[test]
fn a_rollback_takes_a_kept_line_for_no_change_since() {
    let machine = Machine::after_a_run("port 1\nmaxclients 500\n", "port 1\nhz 20\n");
    machine.write(CONF, "port 1\nhz 20\n# Changed by hand and kept\nmaxclients 500\n");
    roll_back(&machine.host, &machine.record(), false).unwrap();
    assert_eq!(machine.read(CONF), "port 1\nmaxclients 500\n");
}

#[test]
fn a_rollback_takes_the_servers_own_rewriting_for_no_change_since() {
    let machine = Machine::after_a_run("port 1\n", "port 1\nhz 20\n");
    let rewritten = "hz 20\nport 1\n# Generated by CONFIG REWRITE\nuser default on nopass ~* &* +@all\n";
    machine.write(CONF, rewritten);
    roll_back(&machine.host, &machine.record(), false).unwrap();
    assert_eq!(machine.read(CONF), "port 1\n");
}

/// A machine's files below a directory that goes with the value.
struct Machine {
    root: tempfile::TempDir,
    host: Host,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { host: Host::at(root.path()), root }
    }

    /// One that a run found with `before` in its configuration, and left `written` as ours in it.
    fn after_a_run(before: &str, written: &str) -> Self {
        let machine = Self::new();
        machine.write(COPY, before);
        machine.write(State::written(Path::new(CONF)), written);
        machine
    }

    fn record(&self) -> Record {
        let ids = Ids { uid: geteuid().as_raw(), gid: getegid().as_raw() };
        let before = Some(Saved { copy: COPY.into(), mode: 0o640, ids, link: None });
        let undo = vec![Undo::File { path: CONF.into(), before }];
        let (run, command, end) = (7, "install".into(), Some(End::Done));
        // The rollback takes the run's directory away.
        self.write("/var/lib/redis-tp/runs/000007/journal", "");
        Record { run, command, time: 0, undo, end, no_return: false, undoing: false }
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(path.as_ref().strip_prefix("/").unwrap())
    }

    fn write(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }
}
