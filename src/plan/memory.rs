//! A limit of memory below what a server holds: from the moment it has it, it throws keys away or refuses
//! every write.

use super::Plan;
use crate::conf::{self, Conf};
use crate::exit::Fault;
use crate::facts::{Facts, Role};
use crate::live::{Setting, Value};
use crate::topology::Name;

/// What a master holds is more than it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The instance.
    pub instance: Name,
    /// `maxmemory` as it is to be, in the words of whoever wants it.
    limit: String,
    /// What it uses, in bytes.
    used: u64,
    /// `maxmemory-policy` as it is to be.
    policy: String,
}

impl Shortage {
    /// Whether keys go for it.
    pub fn evicts(&self) -> bool {
        self.policy != "noeviction"
    }

    /// Refuses it.
    pub fn refusal(&self) -> Fault {
        let Self { instance, limit, used, policy } = self;
        let then =
            if self.evicts() { "keys would be thrown away at once" } else { "it would refuse every write" };
        // In the unit that redis.conf would have it in.
        let used = used.div_ceil(1024);
        Fault::refused(format!(
            "{instance} uses {used}kb, more than 'maxmemory {limit}' allows: {then} (maxmemory-policy {policy})"
        ))
        .hint("give it more, or do it nevertheless:\nthe same command with --force")
    }
}

/// The masters that a plan gives less memory than they use. A replica takes no notice of its limit
/// (`replica-ignore-maxmemory`).
pub fn shortages(plan: &Plan, facts: &Facts) -> Vec<Shortage> {
    let masters = facts.running.iter().filter(|(_, running)| running.role == Role::Master);
    let shortage = |name: &Name| {
        let running = facts.running.get(name)?;
        let now = |directive: &str| running.config.get(directive).cloned().unwrap_or_default();
        let word = wanted(plan, facts, name, "maxmemory")?;
        let limit = conf::bytes(&word)?;
        let before = conf::bytes(&now("maxmemory")).unwrap_or(0);
        let policy = wanted(plan, facts, name, "maxmemory-policy").unwrap_or_else(|| now("maxmemory-policy"));
        let lowered = limit > 0 && (before == 0 || limit < before);
        (lowered && running.memory > limit).then(|| Shortage {
            instance: name.clone(),
            limit: word,
            used: running.memory,
            policy: if policy.is_empty() { "noeviction".into() } else { policy.to_ascii_lowercase() },
        })
    };
    masters.filter_map(|(name, _)| shortage(name)).collect()
}

/// What a directive becomes, by what the server is told or by its new file.
fn wanted(plan: &Plan, facts: &Facts, name: &Name, directive: &str) -> Option<String> {
    plain(plan.told(name), directive).or_else(|| {
        let kept = facts.state.instances.get(name)?;
        let text = plan.written(&kept.engine.conf(name.as_str()))?;
        Conf::parse(text).ok()?.word(directive).map(str::to_owned)
    })
}

fn plain(settings: &[Setting], directive: &str) -> Option<String> {
    settings.iter().find_map(|setting| match &setting.value {
        Value::Plain(value) if setting.directive == directive => Some(value.clone()),
        _ => None,
    })
}
