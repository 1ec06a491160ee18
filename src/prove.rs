//! Proof that a server will take a configuration, before anything that runs is touched: a parse
//! probe and a neutral boot with the installed server, as the server's user, in a scratch directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apply;
use crate::certificates;
use crate::conf::{self, Conf};
use crate::directives;
use crate::exit::Fault;
use crate::facts::parse::{self, Tally};
use crate::host::{Child, Done, Host, Ids};
use crate::instance::Target;
use crate::log;
use crate::runtime::container::CONF_DIR;
use crate::secret::{MASK, Secret};
use crate::software::{self, Tool};
use crate::step::{Candidate, Inside, Owner};
use crate::topology::Name;
use crate::users;
use crate::wire::{Login, Wire};

mod inside;

/// What candidates are with every default: directive by directive, as far as somebody asked.
pub type Proved = BTreeMap<Name, BTreeMap<String, String>>;

/// A value that no port can have. It stands behind the whole candidate, so that a server which
/// complains of it has taken every line before.
const PILL: &str = "redis-tp-eof";

/// How long a scratch server may take to start, modules and all.
const BOOT: Duration = Duration::from_secs(10);

/// How long a server may take to load a backup.
const LOAD: Duration = Duration::from_secs(900);

/// Proves one candidate with this server.
///
/// # Errors
/// A [`Fault`] that quotes the user's own key and file.
fn prove(host: &Host, server: &Tool, candidate: &Candidate) -> Result<BTreeMap<String, String>> {
    let ids = apply::ids(host, Owner::Server(candidate.target.engine))?;
    let text = neutral(candidate.text.expose());
    parse_probe(host, server.child().user(ids), &text, candidate)?;
    neutral_boot(host, server, ids, &text, candidate)
}

/// The candidate without the two lines that act while they are read: Redis 6 opens the log, and every
/// version enters the data directory, which may not be there yet. The line numbers stay.
pub fn neutral(text: &str) -> String {
    let acts = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        word.eq_ignore_ascii_case("logfile") || word.eq_ignore_ascii_case("dir")
    };
    text.lines().map(|line| if acts(line) { "#\n".to_owned() } else { format!("{line}\n") }).collect()
}

/// The same without a line that makes it a replica. `--replicaof no one` is not enough behind such a one: the
/// server forgets the master's name, and not that it was to connect (config.c, `setConfigReplicaOfOption`), and
/// copies from whoever has the master's port on loopback: mostly from the live master itself.
pub fn alone(text: &str) -> String {
    let follows = |line: &str| {
        let words = conf::split(line).unwrap_or_default();
        words.first().is_some_and(|word| directives::canonical(&word.to_ascii_lowercase()) == "replicaof")
    };
    text.lines().map(|line| if follows(line) { "#\n".to_owned() } else { format!("{line}\n") }).collect()
}

/// `server` is a child that runs it, with no argument yet.
pub fn parse_probe(host: &Host, server: Child, text: &str, candidate: &Candidate) -> Result<()> {
    let child = server.args(["-", "--port", PILL]).stdin(text).deadline(BOOT);
    let done = host.run(child)?;
    let said = format!("{}\n{}", done.stdout, done.stderr);
    if done.code == Some(1) && said.contains(PILL) {
        return Ok(());
    }
    Err(complaint(text, &said, candidate).into())
}

fn neutral_boot(
    host: &Host,
    server: &Tool,
    ids: Ids,
    text: &str,
    candidate: &Candidate,
) -> Result<BTreeMap<String, String>> {
    let look = |socket: &Path| asked(host, socket, candidate);
    boot(host, server.child().user(ids), ids, text, &[], BOOT, look)?
        .map_err(|done| refusal(text, &done, candidate).into())
}

/// Has the server of an instance load an RDB, neutrally, where it lies: for a copy there may be no room
/// elsewhere. Tells what is in it.
///
/// # Errors
/// It does not; why, in its own words.
pub fn loads(host: &Host, target: &Target, file: &Path) -> Result<Tally> {
    let engine = target.engine;
    let ids = apply::ids(host, Owner::Server(engine))?;
    let server = software::find(host, engine, engine.server())
        .with_context(|| format!("{} is not on this machine", engine.server()))?;
    let conf = host.text(&target.conf())?.unwrap_or_default();
    let text = neutral(&conf);
    let word = |path: Option<&std::ffi::OsStr>| path.unwrap_or_default().to_string_lossy().into_owned();
    let dir = word(file.parent().map(Path::as_os_str));
    let more = ["--dir".to_owned(), dir, "--dbfilename".into(), word(file.file_name())];
    let parsed = Conf::parse(&conf).unwrap_or_default();
    let password = parsed.password("requirepass");
    let look = |socket: &Path| {
        let info = Wire::open_socket(host, socket, login(&parsed, password.as_ref()))
            .and_then(|mut wire| wire.info("keyspace"));
        info.map(|info| parse::tally(&info)).unwrap_or_default()
    };
    boot(host, server.child().user(ids), ids, &text, &more, LOAD, look)?.map_err(|done| {
        let said = without_secrets(&conf::redact(&format!("{}\n{}", done.stdout, done.stderr)), &conf);
        let last: Vec<&str> = log::telling(&said, 2).into_iter().map(log::message).collect();
        anyhow::anyhow!("{} does not load it: {}", engine.server(), last.join(" / "))
    })
}

/// Starts a scratch server, and looks at it as soon as it is ready; or tells how it ended before that.
fn boot<T: Default>(
    host: &Host,
    server: Child,
    ids: Ids,
    text: &str,
    more: &[String],
    deadline: Duration,
    look: impl Fn(&Path) -> T,
) -> Result<Result<T, Done>> {
    // The server's user may enter it, but swap nothing in it under our hands; what the server itself
    // makes lies in a directory of its own.
    let scratch = host.scratch()?;
    let at = |name: &str| scratch.path().join(name);
    let ready = host.datagram(&at("notify"))?;
    host.directory(&at("server"), ids, 0o700)?;
    let dir = at("server").display().to_string();
    let socket = at("server").join("socket").display().to_string();
    // By standard input, as before: a run that is killed leaves no password in a scratch file.
    let mut args: Vec<String> = vec!["-".into()];
    args.extend(overrides(text, &dir, &socket, "systemd"));
    args.extend_from_slice(more);
    let child = server.args(args).stdin(alone(text)).dies_with_us().deadline(deadline);
    let child = child.env("NOTIFY_SOCKET", at("notify"));
    let mut said = T::default();
    let done = host.run_until(child, || {
        // Not until there is no more: whoever floods the socket must not hold us past the deadline.
        let ready = (0..64)
            .map_while(|_| {
                let mut buffer = [0; 4096];
                let length = ready.recv(&mut buffer).ok()?;
                Some(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
            })
            .any(|heard| heard.lines().any(|line| line == "READY=1"));
        if ready {
            said = look(&at("server").join("socket"));
        }
        ready
    });
    host.end_scratch(scratch);
    Ok(match done? {
        None => Ok(said),
        Some(done) => Err(done),
    })
}

/// What the scratch server tells of the directives in question; nothing where it does not.
fn asked(host: &Host, socket: &Path, candidate: &Candidate) -> BTreeMap<String, String> {
    if candidate.ask.is_empty() {
        return BTreeMap::new();
    }
    let conf = Conf::parse(candidate.text.expose()).unwrap_or_default();
    let password = conf.password("requirepass");
    let mut all = Wire::open_socket(host, socket, login(&conf, password.as_ref()))
        .ok()
        .and_then(|mut wire| wire.config())
        .unwrap_or_default();
    all.retain(|name, _| candidate.ask.contains(name));
    all
}

/// As whom a server with this configuration is asked.
fn login<'a>(conf: &Conf, password: Option<&'a Secret>) -> Option<Login<'a>> {
    let user = users::names(conf, users::ADMIN).then_some(users::ADMIN);
    password.map(|password| Login { user, password })
}

/// The arguments that keep a scratch server from all that is live: without every one of these it removes
/// the live pid file, writes into the live log or makes the live master resync.
pub fn overrides(text: &str, dir: &str, socket: &str, supervised: &str) -> Vec<String> {
    let mut args = Vec::new();
    for (name, value) in [
        ("port", "0"),
        ("unixsocket", socket),
        ("dir", dir),
        ("dbfilename", "check.rdb"),
        ("appendonly", "no"),
        ("save", ""),
        ("logfile", ""),
        ("syslog-enabled", "no"),
        ("pidfile", ""),
        ("daemonize", "no"),
        ("supervised", supervised),
        ("cluster-enabled", "no"),
    ] {
        args.extend([format!("--{name}"), value.to_owned()]);
    }
    let conf = Conf::parse(text).unwrap_or_default();
    if conf.get("include").is_some() {
        // What is in another file cannot be taken out: see `alone`. Nobody has port 0.
        args.extend(["--replicaof", "127.0.0.1", "0"].map(str::to_owned));
    }
    args.extend(["--replicaof", "no", "one"].map(str::to_owned));
    if let Some(cert) = conf.word("tls-cert-file") {
        // Our own may not be there yet, and their key goes into no scratch file: they are judged beforehand. Those
        // of the user's are loaded.
        let ours = [certificates::of_servers(), certificates::at(Path::new(CONF_DIR), "server")];
        let loads = if ours.iter().any(|ours| ours.cert == Path::new(cert)) { "no" } else { "yes" };
        args.extend(["--tls-port", "0", "--tls-replication", loads].map(str::to_owned));
    }
    args
}

/// The server's complaint about a line, in the user's own terms.
fn complaint(text: &str, said: &str, candidate: &Candidate) -> Fault {
    let Some((number, why)) = complaint_of(said) else { return strange(text, said, candidate) };
    let line = text.lines().nth(number.saturating_sub(1)).unwrap_or_default().trim();
    let directive = line.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    let place = candidate.origins.iter().find(|origin| origin.directive == directive);
    let place =
        place.map_or_else(|| candidate.target.conf().display().to_string(), |origin| origin.place.clone());
    let why = without_secrets(&why, text);
    Fault::refused(format!("{place}: [{}] {}: {why}", candidate.target.name, conf::mask_line(line)))
        .hint("the server itself refuses this line; correct it and run this again")
}

/// The line number and the reason, out of `at line N`, `>>> '…'` and what follows.
fn complaint_of(said: &str) -> Option<(usize, String)> {
    let mut lines = said.lines().skip_while(|line| !line.contains("FATAL CONFIG FILE ERROR"));
    let number = lines.find_map(|line| line.split_once("at line ")?.1.trim().parse().ok())?;
    let why = lines.find(|line| !line.starts_with(">>>") && !line.trim().is_empty())?;
    Some((number, why.trim().to_owned()))
}

/// Why a server did not start with a configuration.
pub fn refusal(text: &str, done: &Done, candidate: &Candidate) -> Fault {
    let said = format!("{}\n{}", done.stdout, done.stderr);
    complaint(text, &said, candidate)
}

/// A server that would not start, and did not say which line it was.
fn strange(text: &str, said: &str, candidate: &Candidate) -> Fault {
    let said = without_secrets(&conf::redact(said), text);
    let last: Vec<&str> = log::telling(&said, 2).into_iter().map(log::message).collect();
    let (name, why) = (&candidate.target.name, last.join(" / "));
    match culprit(text, &why, candidate) {
        Some((place, line)) => Fault::refused(format!("{place}: [{name}] {line}: {why}"))
            .hint("the server does not start with this line; correct it and run this again"),
        None => Fault::refused(format!("the server does not start with the configuration of {name}: {why}"))
            .hint(format!("see it whole:\nredis-tp render {name}")),
    }
}

/// The user's line that a complaint without a line number is about: one whose words it quotes.
fn culprit(text: &str, why: &str, candidate: &Candidate) -> Option<(String, String)> {
    let quoted = |line: &&str| {
        let words = conf::split(line).unwrap_or_default();
        words.iter().skip(1).any(|word| word.len() > 3 && why.contains(word.as_str()))
    };
    candidate.origins.iter().find_map(|origin| {
        let same = |line: &&str| line.split_whitespace().next() == Some(origin.directive.as_str());
        let line = text.lines().filter(same).find(quoted)?;
        Some((origin.place.clone(), conf::mask_line(line)))
    })
}

/// A complaint without the passwords of the configuration that it is about, wherever it quotes them.
fn without_secrets(said: &str, text: &str) -> String {
    let mut hidden = said.to_owned();
    for line in text.lines() {
        let mut words = conf::split(line).unwrap_or_default().into_iter();
        let name = words.next().unwrap_or_default();
        if !directives::secret(&name) {
            continue;
        }
        for word in words {
            let password = match name.as_str() {
                // Of a user's rules only these are passwords: >add, <remove, #hash, !hash.
                "user" => word.strip_prefix(['>', '<', '#', '!']).unwrap_or_default(),
                _ => word.as_str(),
            };
            // One of three letters would be found in every other word, and is none to keep.
            if password.len() > 3 {
                hidden = hidden.replace(password, MASK);
            }
        }
    }
    hidden
}

/// Proves several candidates at the same time, in an image or on this machine.
///
/// # Errors
/// The first refusal, in their order.
pub fn prove_all(host: &Host, candidates: &[Candidate], inside: Option<&Inside>) -> Result<Proved> {
    let Some(first) = candidates.first() else { return Ok(Proved::new()) };
    if let Some(inside) = inside {
        return inside::prove_all(host, candidates, inside).map(|()| Proved::new());
    }
    let engine = first.target.engine;
    let Some(server) = software::find(host, engine, engine.server()) else {
        bail!("{} is not on this machine", engine.server())
    };
    let results: Vec<Result<BTreeMap<String, String>>> = std::thread::scope(|scope| {
        let proofs: Vec<_> =
            candidates.iter().map(|candidate| scope.spawn(|| prove(host, &server, candidate))).collect();
        let broken = |_| Err(anyhow::anyhow!("a proof broke off"));
        proofs.into_iter().map(|proof| proof.join().unwrap_or_else(broken)).collect()
    });
    host.scratch_done();
    let names = candidates.iter().map(|candidate| candidate.target.name.clone());
    names.zip(results).map(|(name, said)| Ok((name, said?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_complaint_is_found() {
        let said = "\n*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***\nReading the configuration file, at line 3\n>>> 'maxmemory lots'\nargument must be a memory value\n";
        assert_eq!(complaint_of(said), Some((3, "argument must be a memory value".into())));
        assert_eq!(complaint_of("Illegal instruction"), None);
    }

    #[test]
    fn a_scratch_server_has_nobody_to_follow() {
        let text = "port 1\nReplicaOf 127.0.0.1 6379\n \"slaveof\" a 1\nreplicaof-not 1\n";
        assert_eq!(alone(text), "port 1\n#\n#\nreplicaof-not 1\n");
        let follows =
            |text: &str| overrides(text, "/d", "/s", "no").join(" ").contains("--replicaof 127.0.0.1 0");
        assert!(follows("include /etc/more.conf\n") && !follows(text));
    }

    #[test]
    fn a_complaint_quotes_no_password() {
        let text = "requirepass s3cret\nmasterauth \"s3 cret\"\nuser app on >s3cret-2 ~* +@bogus\n";
        let said = "Error in '>s3cret-2' for user 'app': +@bogus; 's3 cret'; s3cret";
        let shown = without_secrets(said, text);
        assert!(!shown.contains("cret"), "{shown}");
        assert!(shown.contains("user 'app': ") && shown.contains("+@bogus"), "{shown}");
    }
}
