//! What was changed by hand, taken into the topology: line by line, so that its comments stay.

use anyhow::Result;

use super::{value, word};
use crate::conf::{self, By, Conf, Difference};
use crate::directives;
use crate::engine::Version;
use crate::facts::{Facts, Role, Running};
use crate::instance::Instance;
use crate::plan::drift::{SetLive, set_live};
use crate::secret::Secret;
use crate::topology::{Defaults, Document, Topology};
use crate::users;

/// What the machine has and the topology does not say.
#[derive(Debug)]
pub struct Drift<'a> {
    /// The topology.
    pub topology: &'a Topology,
    /// Its instances.
    pub instances: &'a [Instance],
    /// What is there.
    pub facts: &'a Facts,
    /// The server's version.
    pub version: Version,
}

/// One instance, its file in three states.
struct Three<'a> {
    instance: &'a Instance,
    there: Conf,
    differences: Vec<Difference>,
}

impl Drift<'_> {
    /// Edits a topology so that it says what is there. The password is the one that all instances have
    /// now, if that is another. What an instance says to its master is left for a second look, when that
    /// master's password is settled.
    ///
    /// # Errors
    /// A configuration cannot be rendered.
    pub fn take(&self, document: &mut Document, second: bool) -> Result<Option<Secret>> {
        let mut all = Vec::new();
        for instance in self.instances {
            all.extend(self.three(instance)?);
        }
        for Three { instance, there, differences } in &all {
            for difference in differences {
                match difference.directive.as_str() {
                    "replicaof" => self.follow(document, instance, there),
                    "requirepass" => {}
                    "masterauth" if !second => {}
                    name => self.directive(document, instance, there, name),
                }
            }
            // What the file says was taken by the first look, and is no difference any more.
            if second {
                continue;
            }
            let changes: Vec<String> = differences.iter().map(|it| it.directive.clone()).collect();
            for SetLive { directive, now, .. } in set_live(self.facts, instance, &changes) {
                let args = conf::split(&now).filter(|args| !args.is_empty()).unwrap_or_else(|| vec![now]);
                set(document, instance, &directive, &[value(&args)]);
            }
        }
        Ok(self.passwords(document, &all))
    }

    /// The file of an instance, and what somebody's hand made of it.
    fn three<'i>(&self, instance: &'i Instance) -> Result<Option<Three<'i>>> {
        let (facts, running) = (self.facts, self.facts.running.get(&instance.name));
        let (Some(there), Some(last)) = (facts.text(&instance.conf), facts.written.get(&instance.conf))
        else {
            return Ok(None);
        };
        let wanted = instance.configuration(&self.topology.file, self.version, &[])?;
        let parse = |text: &str| Conf::parse(text).ok();
        let (Some(mut there), Some(last), Some(wanted)) =
            (parse(there), parse(last.expose()), parse(&wanted))
        else {
            return Ok(None);
        };
        overlay(&mut there, running);
        let mut differences = conf::compare(&last, &there, &wanted);
        differences.retain(|difference| difference.by != By::Topology);
        Ok(Some(Three { instance, there, differences }))
    }

    fn follow(&self, document: &mut Document, instance: &Instance, there: &Conf) {
        match there.get("replicaof") {
            Some([host, port]) => {
                let same = |other: &&Instance| {
                    let at = other.peer();
                    at.host == *host && at.port.to_string() == *port && other.name != instance.name
                };
                let master = self.instances.iter().find(same);
                let to = master.map_or_else(|| format!("{host} {port}"), |master| master.name.to_string());
                set(document, instance, "replicaof", &[to]);
            }
            _ => unset(document, instance, "replicaof"),
        }
    }

    /// One directive as the file has it. What cannot be said on top of our defaults makes the section one
    /// without them.
    fn directive(&self, document: &mut Document, instance: &Instance, there: &Conf, name: &str) {
        let mut lines: Vec<String> = lines_of(there, name);
        if name == "user" && instance.users.is_some() {
            lines.retain(|line| !users::OURS.iter().any(|ours| line.split(' ').next() == Some(*ours)));
        }
        let section = self.topology.instance(instance.name.as_str());
        let named = section.is_some_and(|section| section.defaults != Defaults::On) || !is_ours(name);
        let own = matches!(name, "pidfile" | "daemonize" | "supervised") && instance.plain.is_none();
        match (lines.is_empty(), named && !own) {
            (true, true) => unset(document, instance, name),
            (false, _) if !own => set(document, instance, name, &lines),
            _ => self.without_defaults(document, instance, there),
        }
    }

    /// Names everything that the file has, and says that nothing else is wanted.
    fn without_defaults(&self, document: &mut Document, instance: &Instance, there: &Conf) {
        let section = instance.name.as_str();
        let auth = instance.upstream.is_none() && there.get("masterauth").is_some();
        let defaults = if auth { Defaults::Masterauth } else { Defaults::Off };
        document.set(section, "defaults", defaults.word());
        let password = there.word("requirepass");
        let settings = there.settings();
        for line in &there.directives {
            let name = directives::canonical(&line.name);
            let noise = there.rewritten
                && settings.get(name).is_some_and(|values| directives::rewrite_noise(name, values, password));
            if !matches!(name, "replicaof" | "requirepass" | "masterauth") && !noise {
                set(document, instance, name, &lines_of(there, name));
            }
        }
    }

    /// Passwords that were changed: one for all of them goes into its file, others into their sections.
    fn passwords(&self, document: &mut Document, all: &[Three<'_>]) -> Option<Secret> {
        let by_hand = |three: &&Three<'_>| three.differences.iter().any(|it| it.directive == "requirepass");
        let own = |conf: &Conf| conf.password("requirepass");
        let changed: Vec<&Three<'_>> = all.iter().filter(by_hand).collect();
        let first = own(&changed.first()?.there);
        let same = all.len() == self.instances.len() && all.iter().all(|three| own(&three.there) == first);
        if let Some(password) = first.filter(|_| same) {
            for three in all {
                unset(document, three.instance, "requirepass");
            }
            return Some(password);
        }
        for Three { instance, there, .. } in changed {
            let password = own(there);
            let text = password.map_or_else(|| "\"\"".to_owned(), |password| word(password.expose()));
            set(document, instance, "requirepass", &[text]);
        }
        None
    }
}

fn lines_of(conf: &Conf, name: &str) -> Vec<String> {
    let same = |line: &&conf::Directive| directives::canonical(&line.name) == name;
    let mut lines = conf.directives.iter().filter(same).map(|line| value(&line.args));
    match directives::repeats(name) {
        true => lines.collect(),
        false => lines.next_back().into_iter().collect(),
    }
}

/// Whether we would set a directive although the section does not name it.
fn is_ours(name: &str) -> bool {
    crate::instance::DEFAULTS.iter().any(|(ours, _)| *ours == name)
        || crate::instance::TEMPLATED.contains(&name)
}

fn set(document: &mut Document, instance: &Instance, name: &str, values: &[String]) {
    let section = instance.name.as_str();
    let key = document.spelling(section, name);
    document.set_all(section, &key, values);
}

fn unset(document: &mut Document, instance: &Instance, name: &str) {
    let section = instance.name.as_str();
    let key = document.spelling(section, name);
    document.unset(section, &key);
}

/// What runs is the truth about roles.
fn overlay(there: &mut Conf, running: Option<&Running>) {
    let args = match running.map(|running| &running.role) {
        Some(Role::Master) => None,
        Some(Role::Replica { host, port, .. }) => Some(vec![host.clone(), port.to_string()]),
        Some(Role::Unknown) | None => return,
    };
    there.directives.retain(|line| directives::canonical(&line.name) != "replicaof");
    there.directives.extend(args.map(|args| conf::Directive { name: "replicaof".into(), args, line: 0 }));
}
