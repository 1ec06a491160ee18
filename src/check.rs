//! Is the machine fit? A table of checks; each looks at one thing and changes nothing. What could not
//! be looked at is no pass.

use anyhow::{Result, bail};

use crate::app::App;
use crate::conf;
use crate::exit::Fault;
use crate::facts::Facts;
use crate::finding::{Check, Finding, Findings};
use crate::host::Host;
use crate::instance::Instance;
use crate::step::Inside;
use crate::topology::Topology;

mod instance;
mod machine;
mod web;

/// The format of [`Findings`] as JSON.
pub const SCHEMA: u32 = 1;

/// What is checked: the machine, in the light of what is wanted of it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What is wanted.
    pub topology: &'a Topology,
    /// Its instances with their defaults.
    pub instances: &'a [Instance],
    /// The web app with its defaults, if the topology has one.
    pub app: Option<&'a App>,
    /// The image that the instances run in, if they run in one.
    pub inside: Option<&'a Inside>,
    /// What is there.
    pub facts: &'a Facts,
}

/// One row of the table.
struct Row {
    id: &'static str,
    did: &'static str,
    look: Look,
}

/// How a row looks. An error means that it could not look.
enum Look {
    /// Once.
    Machine(fn(&Host, &Subject<'_>) -> Result<Finding>),
    /// At each instance, all at the same time: a proof takes some ten milliseconds.
    Instance(fn(&Host, &Subject<'_>, &Instance) -> Result<Finding>),
}

/// The checks, causes before what follows from them.
const ROWS: [Row; 13] = [
    Row {
        id: "engine-installed",
        did: "read dpkg's status and looked for the server on PATH",
        look: Look::Machine(machine::engine_installed),
    },
    Row {
        id: "engine-version",
        did: "read the version of the package, or asked the program",
        look: Look::Machine(machine::engine_version),
    },
    Row { id: "user", did: "looked the server's user up", look: Look::Machine(machine::user) },
    Row { id: "apt", did: "read dpkg's status and looked for locks", look: Look::Machine(machine::apt) },
    Row { id: "runtime", did: "looked whether systemd is PID 1", look: Look::Machine(machine::runtime) },
    Row {
        id: "topology",
        did: "read the topology and looked at what it opens",
        look: Look::Machine(machine::topology),
    },
    Row { id: "secrets", did: "looked at owner and mode", look: Look::Machine(machine::secrets) },
    Row { id: "journal", did: "read the last run's journal", look: Look::Machine(machine::journal) },
    Row {
        id: "ports",
        did: "asked the kernel who listens, and whose sockets they are",
        look: Look::Instance(instance::ports),
    },
    Row {
        id: "directories",
        did: "looked at kind, owner and mode",
        look: Look::Instance(instance::directories),
    },
    Row {
        id: "configuration",
        did: "read the file and proved it with the installed server",
        look: Look::Instance(instance::configuration),
    },
    Row {
        id: "units",
        did: "asked systemd, or looked for the process",
        look: Look::Instance(instance::units),
    },
    Row { id: "app", did: "looked at its port, files and unit, and asked it", look: Look::Machine(web::app) },
];

/// Checks the machine; `tell` hears each check as soon as it is done.
///
/// # Errors
/// Interrupted.
pub fn check(host: &Host, subject: &Subject<'_>, tell: &mut dyn FnMut(&Check)) -> Result<Findings> {
    let start = host.now();
    let mut checks = Vec::new();
    for row in &ROWS {
        if host.interrupted() {
            bail!("interrupted");
        }
        for check in row.run(host, subject) {
            tell(&check);
            checks.push(check);
        }
    }
    Ok(Findings { schema: SCHEMA, command: "check", checks, time: start.elapsed() })
}

impl Row {
    fn run(&self, host: &Host, subject: &Subject<'_>) -> Vec<Check> {
        match self.look {
            Look::Machine(look) => vec![self.timed(host, "machine".into(), || look(host, subject))],
            Look::Instance(look) => std::thread::scope(|scope| {
                let at =
                    |instance| move || self.timed(host, name(instance), || look(host, subject, instance));
                let looks: Vec<_> =
                    subject.instances.iter().map(|instance| (instance, scope.spawn(at(instance)))).collect();
                let broken = |instance| self.timed(host, name(instance), || bail!("the check broke off"));
                looks
                    .into_iter()
                    .map(|(instance, look)| look.join().unwrap_or_else(|_| broken(instance)))
                    .collect()
            }),
        }
    }

    fn timed(&self, host: &Host, subject: String, look: impl FnOnce() -> Result<Finding>) -> Check {
        let start = host.now();
        let finding = look().unwrap_or_else(|error| could_not_look(&error));
        Check { id: self.id, severity: None, subject, did: self.did.into(), finding, time: start.elapsed() }
    }
}

fn name(instance: &Instance) -> String {
    instance.name.to_string()
}

fn could_not_look(error: &anyhow::Error) -> Finding {
    let hint = error.chain().find_map(|cause| cause.downcast_ref::<Fault>()?.cure());
    let cure = hint.unwrap_or("redis-tp check");
    Finding::unknown(conf::redact(&format!("{error:#}")), cure)
}

/// A refusal of the planner's as a finding: what it says before the command is part of the cause.
fn refused(fault: &Fault, cause: &str) -> Finding {
    let hint = fault.cure().unwrap_or("redis-tp plan");
    let (said, command) = hint.split_once(":\n").or_else(|| hint.rsplit_once('\n')).unwrap_or(("", hint));
    let said = said.trim_end_matches(':').replace('\n', " ");
    let cause = if said.is_empty() { cause.to_owned() } else { format!("{cause}; {said}") };
    Finding::fail(fault.to_string(), cause, command)
}

#[cfg(test)]
mod tests;
