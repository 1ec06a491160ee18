//! Is anybody let in who does not belong? A table of checks over what was seen once ([`Seen`]); each has a
//! severity and a way to put things right. What could not be seen is no pass.
//!
//! It looks at the instances of the topology and at every other server that runs here: a machine is taken over
//! through the one that nobody manages.

use serde::Serialize;

use crate::finding::{Check, Finding};
use crate::host::Host;

mod apt;
mod around;
mod compromise;
mod files;
mod firewall;
pub mod fix;
mod gather;
mod leaks;
mod reach;
mod seen;
mod settings;
mod software;
mod sought;
mod system;
mod tls;
mod users;

pub use gather::look;
pub use seen::Seen;

use fix::Fix;
use seen::Server;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It could be better.
    Low,
    /// It helps somebody who is half-way in.
    Medium,
    /// It lets somebody in who is near, or knows something.
    High,
    /// It lets anybody in, or somebody is in.
    Critical,
}

impl Severity {
    /// As it is printed and typed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What came of a check, and what would put it right.
#[derive(Debug)]
pub struct Verdict {
    finding: Finding,
    fixes: Vec<Fix>,
    /// How bad it is, where that is not the row's.
    severity: Option<Severity>,
}

impl From<Finding> for Verdict {
    fn from(finding: Finding) -> Self {
        Self { finding, fixes: Vec::new(), severity: None }
    }
}

impl Verdict {
    fn with(mut self, fix: Fix) -> Self {
        self.fixes.push(fix);
        self
    }

    fn rated(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }
}

/// One row of the table.
struct Row {
    id: &'static str,
    severity: Severity,
    did: &'static str,
    look: Look,
}

/// At what a row looks.
enum Look {
    Machine(fn(&Seen) -> Verdict),
    Server(fn(&Seen, &Server) -> Verdict),
}

/// The id of a row, as it is typed.
///
/// # Errors
/// There is none of this name.
pub fn id(text: &str) -> Result<&'static str, String> {
    let ids = || ROWS.iter().map(|row| row.id);
    ids().find(|id| *id == text).ok_or_else(|| {
        let near = crate::directives::closest(text, ids());
        match near {
            Some(near) => format!("the audit has no check '{text}'; did you mean {near}?"),
            None => format!("the audit has no check '{text}'; `redis-tp check --all` has their names"),
        }
    })
}

/// A check of the audit, done.
#[derive(Debug)]
pub struct Audited {
    /// What was found.
    pub check: Check,
    /// What `check --fix` would do about it; nothing where a person has to.
    pub fixes: Vec<Fix>,
}

/// Runs all rows over what was seen.
pub fn audit(host: &Host, seen: &Seen, except: &[&str]) -> Vec<Audited> {
    let mut audited = Vec::new();
    for row in ROWS.iter().filter(|row| !except.contains(&row.id)) {
        let mut add = |subject: &str, look: &dyn Fn() -> Verdict| {
            let start = host.now();
            let Verdict { finding, fixes, severity } = look();
            let check = Check {
                id: row.id,
                severity: Some(severity.unwrap_or(row.severity)),
                subject: subject.to_owned(),
                did: row.did.into(),
                finding,
                time: start.elapsed(),
            };
            audited.push(Audited { check, fixes });
        };
        match row.look {
            Look::Machine(look) => add("machine", &|| look(seen)),
            Look::Server(look) => {
                seen.servers.iter().for_each(|server| add(&server.name, &|| look(seen, server)))
            }
        }
    }
    audited
}

const fn machine(id: &'static str, severity: Severity, did: &'static str, look: fn(&Seen) -> Verdict) -> Row {
    Row { id, severity, did, look: Look::Machine(look) }
}

const fn server(
    id: &'static str,
    severity: Severity,
    did: &'static str,
    look: fn(&Seen, &Server) -> Verdict,
) -> Row {
    Row { id, severity, did, look: Look::Server(look) }
}

use Severity::{Critical, High, Low, Medium};

/// The checks: who gets in, as whom, what he finds lying about, with which program, and whether somebody did.
const ROWS: [Row; 46] = [
    server("let-in", High, "logged in, and asked for CONFIG GET", reach::let_in),
    server("open-door", Critical, "asked it without a password from every own address", reach::open_door),
    server("protected-mode", Critical, "asked it for protected-mode", reach::protected_mode),
    server("wide-bind", Medium, "asked the kernel where it listens", reach::wide_bind),
    server("firewall", Medium, "asked nft, or iptables", reach::firewall),
    server("cleartext", Medium, "asked it for its TLS port", reach::cleartext),
    server("certificate", High, "read the certificate that it names", tls::certificate),
    server("certificate-key", High, "looked at owner and mode", tls::keys),
    server("certificate-clients", Medium, "asked it for tls-auth-clients", tls::clients),
    server("unix-socket", Medium, "looked at the mode of its socket", reach::unix_socket),
    server("password", High, "weighed its password", users::password),
    server("default-user", Medium, "asked it for ACL LIST", users::default_user),
    server("users", High, "asked it for ACL LIST", users::others),
    server("app-keys", Low, "asked it for ACL LIST", users::app_keys),
    server("replica-user", Medium, "asked it for masteruser", users::replica_user),
    server("config-mode", High, "looked at owner and mode", files::configuration),
    server("data-mode", High, "looked at owner and mode", files::data),
    server("log-mode", Low, "looked at owner and mode", files::log),
    server("aclfile-mode", High, "looked at owner and mode", files::acl),
    machine("backup-mode", High, "looked at owner and mode", files::backups),
    machine("secrets-argv", High, "read every command line", leaks::argv),
    machine("secrets-environ", Medium, "read every environment", leaks::environment),
    machine("secrets-files", High, "read the files that others can read", leaks::readable),
    machine("package", High, "asked apt for the version that it would install", software::package),
    machine("security-origin", Medium, "read apt's sources", software::origin),
    server("replaced-binary", High, "looked at /proc/PID/exe", software::replaced),
    server("enable-debug", High, "asked it for enable-debug-command", settings::debug),
    server("enable-module", Critical, "asked it for enable-module-command", settings::module),
    server("enable-configs", Critical, "asked it for enable-protected-configs", settings::protected_configs),
    server("modules", High, "asked it for MODULE LIST", settings::modules),
    server("replica-writable", Medium, "asked it for replica-read-only", settings::replica_writable),
    server("maxmemory", Low, "asked it for maxmemory", settings::maxmemory),
    server("eviction", Low, "asked it for maxmemory-policy", settings::eviction),
    server("file-limit", Low, "read /proc/PID/limits", settings::file_limit),
    server("master-host", Critical, "asked it whom it follows", compromise::master_host),
    server("foreign-places", Critical, "asked it for dir and dbfilename", compromise::places),
    server("foreign-keys", Critical, "asked it for keys that known attacks leave", compromise::keys),
    machine(
        "foreign-files",
        Critical,
        "looked for RDB headers among cron's and ssh's files",
        compromise::files,
    ),
    machine("foreign-programs", Critical, "looked for names of known miners", compromise::programs),
    server("root", High, "looked at its user", system::root),
    server("confinement", Medium, "read /proc/PID/status", system::confinement),
    machine("login", Low, "read /etc/passwd", system::login),
    machine("check-system", Low, "asked redis-server --check-system", system::check_system),
    machine("overcommit", Low, "read vm.overcommit_memory", system::overcommit),
    machine("huge-pages", Low, "read transparent_hugepage/enabled", system::huge_pages),
    server("somaxconn", Low, "read net.core.somaxconn", system::somaxconn),
];

/// The command that puts it right. What nobody manages is taken over first.
fn put_right(server: &Server) -> String {
    match (&server.instance, &server.process) {
        (Some(_), _) => "redis-tp check --fix".into(),
        (None, Some(process)) if server.foreign => {
            format!("kill {}    # or ask user {} what it is for", process.pid, process.uid)
        }
        (None, _) => "redis-tp adopt && redis-tp check --fix".into(),
    }
}
