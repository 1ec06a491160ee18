//! Whether a replica's link to its master is up, and if not, why: the replica's log knows.

use std::time::Duration;

use super::keys::{self, EXPIRY};
use super::replication::promoted;
use super::servers::{Info, field};
use super::{Look, Place, Proof, cli};
use crate::apply::service::log_lines;
use crate::finding::Finding;
use crate::instance::Instance;
use crate::tls;
use crate::wire::Trouble;

/// How long a link may take that is just being made.
const MAKING: Duration = Duration::from_secs(1);

/// How long it may take until writes flow through it.
const FLOWING: Duration = Duration::from_secs(5);

/// What cures a link.
#[derive(Clone, Copy)]
enum Cure {
    /// The two passwords have to be brought together.
    Password,
    /// The master has to be there.
    Master,
    /// The replica's directory has to be opened to it.
    Directory,
    /// The disk has to have room.
    Room,
    /// The two servers have to be of one version.
    Version,
    /// The certificates of the two have to be brought together.
    Tls,
}

const NOBODY: &str = "nobody listens at the master's address";

/// What a replica's log says when there is no link, what that means, and what cures it.
const CAUSES: &[(&str, &str, Cure)] = &[
    ("WRONGPASS", "the master does not take the password that it is given (masterauth)", Cure::Password),
    ("NOAUTH", "the master wants a password and is given none (masterauth)", Cure::Password),
    ("without any password configured", "the master wants no password and is given one", Cure::Password),
    ("NOPERM", "the user that it logs in as may not replicate", Cure::Password),
    ("Connection refused", NOBODY, Cure::Master),
    ("No route to host", "there is no way to the master's address", Cure::Master),
    ("Network is unreachable", "there is no way to the master's address", Cure::Master),
    ("Name or service not known", "the master's name leads to no address", Cure::Master),
    ("Temporary failure in name resolution", "the master's name cannot be looked up now", Cure::Master),
    ("Timeout", "the master did not answer in time", Cure::Master),
    ("MASTER timeout", "the master fell silent", Cure::Master),
    ("NOMASTERLINK", "the master is a replica itself, and has no link either", Cure::Master),
    ("LOADING", "the master is still loading its data", Cure::Master),
    (
        "Read-only file system",
        "its directory is closed to it, so that it cannot keep a copy",
        Cure::Directory,
    ),
    ("Permission denied", "its directory is closed to it, so that it cannot keep a copy", Cure::Directory),
    ("No space left on device", "the disk is full, so that it cannot keep a copy", Cure::Room),
    ("certificate verify failed", "it does not trust its master's certificate, or that has ended", Cure::Tls),
    ("alert certificate expired", "its own certificate has ended, and the master refuses it", Cure::Tls),
    ("alert unknown ca", "the master does not trust its certificate", Cure::Tls),
    ("SSL routines", "it and the master do not come to speak TLS", Cure::Tls),
    ("RDB format version", "the master is of a later version than it", Cure::Version),
];

pub fn did(proof: &Proof<'_>, instance: &Instance) -> String {
    let key = keys::flow(proof, instance);
    format!("INFO replication on {}, and SET {key} on {}", instance.name, proof.root_word(instance))
}

/// The link is up, and writes flow through it.
pub fn link(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let (host, place) = (proof.host, Place::of(instance));
    let Some((master, _)) = proof.servers.upstream(&place)? else { return Err(promoted(instance)) };
    let mut info = proof.servers.info(&place, "replication")?;
    let up = |info: &Info| field(info, "master_link_status") == "up";
    if !up(&info) && is_new(&info) {
        // No answer, and an interruption, are told by whoever asks next.
        let _ = host.poll(MAKING, || {
            info = proof.servers.info(&place, "replication").unwrap_or_default();
            Ok(up(&info).then_some(()))
        });
    }
    if up(&info) {
        return flows(proof, instance, field(&info, "master_last_io_seconds_ago"));
    }
    Ok(match field(&info, "master_sync_in_progress") == "1" {
        true => Finding::unknown(format!("it is still copying the data of {master}"), "redis-tp verify"),
        false => down(proof, instance, &master, down_since(&info)),
    })
}

/// A link is of use once writes flow through it. After a first sync the master holds them back until
/// the replica's next sign of life, up to a second later, and INFO says `up` all the while.
fn flows(proof: &mut Proof<'_>, instance: &Instance, ago: &str) -> Look {
    let up = format!("up, last heard of {ago} s ago");
    let root = proof.root(instance)?;
    let key = keys::flow(proof, instance);
    if proof.write(&root, &key, EXPIRY).is_err() {
        // What a master takes no write for is told by `ttl`.
        return Ok(Finding::pass(up));
    }
    match proof.arrives(instance, &key, FLOWING)? {
        true => Ok(Finding::pass(up)),
        false => Ok(Finding::fail(
            format!("{up}, but what is written on {root} does not arrive within {} s", FLOWING.as_secs()),
            "the master holds it back, or the way is too slow",
            format!("{} INFO replication", cli(instance)),
        )),
    }
}

/// A link that is being made deserves a moment, also for the log to tell what is in its way; one that
/// was lost long ago does not.
fn is_new(info: &Info) -> bool {
    field(info, "master_sync_in_progress") == "1" || down_since(info).is_none_or(|since| since < 2)
}

/// For how many seconds the link has been down; none if there never was one. Versions before 7.0 count
/// from 1970 then.
fn down_since(info: &Info) -> Option<u64> {
    let since = field(info, "master_link_down_since_seconds").parse().ok();
    since.filter(|since| *since < 1_000_000_000)
}

fn down(proof: &mut Proof<'_>, instance: &Instance, master: &Place, since: Option<u64>) -> Finding {
    let found = match since {
        Some(seconds) => format!("down for {seconds} s"),
        None => "down, and was never up".into(),
    };
    let log = log_lines(proof.host, &instance.target());
    // The last line that says something counts: what was wrong before may be cured.
    let mut of_link = log.lines().rev().filter(|line| !line.contains(tls::OF_A_CLIENT));
    let known = of_link.find_map(|line| CAUSES.iter().find(|(said, ..)| line.contains(said)));
    match known {
        Some((_, cause, cure)) => {
            let locked =
                matches!(proof.servers.wire(master).map(drop), Err(Trouble::NoAuth | Trouble::WrongPassword));
            // The side whose password is not that of its file is the one to restart.
            let strange = if locked { master.to_string() } else { instance.name.to_string() };
            Finding::fail(found, format!("{cause}{log}"), command(*cure, instance, master, &strange))
        }
        // A link that has just broken off has not said why yet.
        None if matches!(proof.servers.wire(master).map(drop), Err(Trouble::Refused)) => Finding::fail(
            found,
            format!("{NOBODY}{log}"),
            command(Cure::Master, instance, master, &instance.name.to_string()),
        ),
        None => Finding::fail(
            found,
            format!("its log tells more{log}"),
            format!("redis-tp service logs {}", instance.name),
        ),
    }
}

fn command(cure: Cure, instance: &Instance, master: &Place, strange: &str) -> String {
    let name = &instance.name;
    match (cure, master) {
        (Cure::Password, Place::Elsewhere { .. }) => {
            format!(
                "printf '%s\\n' 'PASSWORD OF {master}' > {} && redis-tp apply",
                crate::secrets::upstream_file(name).display()
            )
        }
        (Cure::Tls, Place::Elsewhere { .. }) => {
            format!("redis-tp tls trust FILE    # the ca.crt of {master}, which has to trust ours, too")
        }
        (Cure::Tls, Place::Ours(_)) => "redis-tp apply".into(),
        (Cure::Master, Place::Ours(master)) => format!("redis-tp service start {master}"),
        (Cure::Master, Place::Elsewhere { address, .. }) => {
            format!("redis-cli {} PING", address.cli_line())
        }
        (Cure::Password, _) => format!("redis-tp apply && redis-tp service restart {strange}"),
        (Cure::Directory, _) => format!("redis-tp apply && redis-tp service restart {name}"),
        (Cure::Room, _) => format!("df -h {}", instance.dir.display()),
        (Cure::Version, _) => format!("{} INFO server", cli(instance)),
    }
}
