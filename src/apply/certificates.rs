//! Telling running servers that their certificates are others now, and on the way back that they are the former
//! ones again.

use anyhow::Result;

use super::{Run, live, service};
use crate::exit::{Code, Fault};
use crate::host::Host;
use crate::instance::Target;
use crate::journal::{Record, Undo};
use crate::wire::Wire;

/// The directive by which a server reads all of its TLS files again, also where it is told what it has already
/// (config.c: `VOLATILE_CONFIG`).
const AGAIN: &str = "tls-cert-file";

impl Run<'_> {
    /// Lets a server read its certificates anew. Connections that it has go on.
    pub(super) fn certificates(&mut self, target: &Target) -> Result<()> {
        let mut wire = live::reach(self.host, target, &live::passwords(self.host, target))?;
        self.announce(Undo::Certificates { target: target.without_password() })?;
        read_again(&mut wire, target)
    }
}

/// Connections to the servers that a run told, made while the files are still those that they know.
pub(super) fn connect(host: &Host, record: &Record) -> Vec<(Target, Option<Wire>)> {
    let mut all: Vec<(Target, Option<Wire>)> = Vec::new();
    for undo in &record.undo {
        if let Undo::Certificates { target } = undo
            && !all.iter().any(|(other, _)| other.name == target.name)
        {
            let wire = live::reach(host, target, &live::passwords(host, target)).ok();
            all.push((target.clone(), wire));
        }
    }
    all
}

/// Lets them read the former files, which are back. Gives those that could not be told, and run.
///
/// # Errors
/// The machine does not tell what runs.
pub(super) fn former(host: &Host, all: Vec<(Target, Option<Wire>)>) -> Result<Vec<Target>> {
    let mut deaf = Vec::new();
    for (target, wire) in all {
        let told = wire.is_some_and(|mut wire| read_again(&mut wire, &target).is_ok());
        if !told && service::runs(host, &target)? {
            deaf.push(target);
        }
    }
    Ok(deaf)
}

fn read_again(wire: &mut Wire, target: &Target) -> Result<()> {
    let refused = |trouble| {
        Fault::new(Code::Failed, format!("{} does not take its certificates: {trouble}", target.name))
    };
    let named: Vec<String> = wire.ask(&["CONFIG", "GET", AGAIN]).map_err(refused)?;
    let path = named.get(1).map(String::as_str).unwrap_or_default();
    Ok(wire.ask::<()>(&["CONFIG", "SET", AGAIN, path]).map_err(refused)?)
}
