//! Replication: who follows whom, whether all arrives, and that a replica takes no writes.

use std::time::Duration;

use super::keys::{self, EXPIRY};
use super::servers::field;
use super::{Look, Place, Proof, cli, ms};
use crate::facts::{Role, parse};
use crate::finding::Finding;
use crate::instance::Instance;
use crate::wire::Trouble;

/// How long a write may take to a replica.
const ARRIVAL: Duration = Duration::from_secs(1);

/// The ways out of roles that are not the topology's. A role alone, by hand, could make a second master.
const SETTLE: &str = "redis-tp apply --adopt\nor have it as the topology says: redis-tp apply --overwrite";

pub fn did_info(_: &Proof<'_>, instance: &Instance) -> String {
    format!("INFO replication on {}", instance.name)
}

/// It is what the topology says. What runs is the truth about roles, so both ways out are named.
pub fn role(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let info = proof.servers.info(&Place::of(instance), "replication")?;
    let wanted = instance.upstream.as_ref().map(|of| &of.address);
    Ok(match (parse::role(&info), wanted) {
        (Role::Master, None) => {
            Finding::pass(format!("master, followed by {}", field(&info, "connected_slaves")))
        }
        (Role::Master, Some(wanted)) => Finding::fail(
            format!("master, and not a replica of {wanted}"),
            "it was promoted, by hand or by a failover, and now goes its own way",
            SETTLE,
        ),
        (Role::Replica { host, port, .. }, Some(wanted)) if (&host, port) == (&wanted.host, wanted.port) => {
            Finding::pass(format!("replica of {wanted}"))
        }
        (Role::Replica { host, port, .. }, Some(wanted)) => Finding::fail(
            format!("replica of {host} {port}, and not of {wanted}"),
            "it was told to follow another, by hand or by a failover",
            SETTLE,
        ),
        (Role::Replica { host, port, .. }, None) => Finding::fail(
            format!("replica of {host} {port}, and not a master"),
            "it was told to follow another, by hand or by a failover",
            SETTLE,
        ),
        (Role::Unknown, _) => Finding::unknown(
            "INFO tells no role that redis-tp knows",
            format!("{} INFO replication", cli(instance)),
        ),
    })
}

/// The master of an instance, for a check that needs the link between them.
fn master(proof: &mut Proof<'_>, instance: &Instance) -> Result<Place, Finding> {
    let place = Place::of(instance);
    match proof.servers.upstream(&place)? {
        Some((master, true)) => Ok(master),
        Some((master, false)) => {
            Err(Finding::unknown(format!("the link to {master} is down"), "redis-tp status"))
        }
        None => Err(promoted(instance)),
    }
}

/// Why a check of a replica does not apply to one that is a master now; `role` is bad already.
pub fn promoted(instance: &Instance) -> Finding {
    Finding::skip(format!("{} is a master now", instance.name))
}

pub fn did_offset(proof: &Proof<'_>, instance: &Instance) -> String {
    let wanted = instance.upstream.as_ref();
    let master = wanted.map(|of| of.instance.as_ref().map_or(of.address.to_string(), ToString::to_string));
    let master = master.unwrap_or_else(|| proof.root_word(instance));
    format!("INFO replication on {master} and {}, offsets compared", instance.name)
}

/// It has read as far as its master has written: the same history, up to the same offset.
pub fn offset(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let master = master(proof, instance)?;
    let place = Place::of(instance);
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    let (host, mut behind) = (proof.host, String::new());
    let at = host.poll(ARRIVAL, || {
        // The master first: under load it runs ahead while its replica is asked.
        let above = proof.servers.info(&master, "replication");
        let below = proof.servers.info(&place, "replication");
        let (above, below) = match (above, below) {
            (Ok(above), Ok(below)) => (above, below),
            (Err(finding), _) | (_, Err(finding)) => return Ok(Some(Err(finding))),
        };
        let written = number(field(&above, "master_repl_offset"));
        let read = number(field(&below, "slave_repl_offset"));
        let same = field(&above, "master_replid") == field(&below, "master_replid");
        behind = match same {
            true => format!("{read} of {written} bytes"),
            false => format!("another history than that of {master}"),
        };
        Ok((same && read >= written).then_some(Ok(read)))
    });
    match at {
        Ok(Some(Ok(read))) => Ok(Finding::pass(format!("both at {read}"))),
        Ok(Some(Err(finding))) => Err(finding),
        Ok(None) | Err(_) => Ok(Finding::fail(
            format!("{behind} after {} s", ARRIVAL.as_secs()),
            format!("{} does not keep up with {master}", instance.name),
            format!("{} INFO replication", cli(instance)),
        )),
    }
}

/// A key written at the top of the chain is read here.
pub fn propagation(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    master(proof, instance)?;
    let root = proof.root(instance)?;
    let key = keys::propagation(proof, instance);
    let began = proof.host.now();
    proof.write_above(&root, &key, EXPIRY)?;
    match proof.arrives(instance, &key, ARRIVAL)? {
        true => Ok(Finding::pass(format!("read {} after the SET was sent", ms(proof.host.now() - began)))),
        false => Ok(Finding::fail(
            format!("not there after {} s", ARRIVAL.as_secs()),
            format!("{} does not keep up with {root}", instance.name),
            format!("{} INFO replication", cli(instance)),
        )),
    }
}

/// It takes no writes of its own.
pub fn readonly(proof: &mut Proof<'_>, instance: &Instance) -> Look {
    let place = Place::of(instance);
    if proof.servers.upstream(&place)?.is_none() {
        return Err(promoted(instance));
    }
    let key = keys::refused(proof, instance);
    match proof.write(&place, &key, EXPIRY) {
        Err(Trouble::Other(said)) if said.starts_with("READONLY") => Ok(Finding::pass("refused: READONLY")),
        Err(trouble) => Err(proof.servers.silent(&place, &trouble)),
        Ok(()) => Ok(Finding::fail(
            "OK: it took the write",
            "`replica-read-only no` is set: what is written here reaches no other server, and is lost with the next sync",
            format!("{} CONFIG SET replica-read-only yes", cli(instance)),
        )),
    }
}
