//! The command line: every type that clap reads, and no logic.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::audit::{self, Severity};
use crate::directives;
use crate::engine::Engine;
use crate::exit::Fault;
use crate::http::Url;
use crate::plan::Consent;
use crate::topology::{self, Binds, Image, Name, Prefix, ReadFrom, ReplicaOf, RuntimeChoice, Source, Table};
use crate::users;
use crate::wire::Address;

/// From a bare machine to a proven Redis: engine, configuration, units, replicas, and the proof.
#[derive(Debug, Parser)]
#[command(name = "redis-tp", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Begin with:  redis-tp up
Exit codes:  0 done or nothing to do, 1 failed, 2 usage, 3 changes pending or drift, 4 findings,
             5 refused before any change, 6 another redis-tp is at work, 7 is root's to do,
             8 failed and rolled back, 9 rollback incomplete")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything: engine, master, replica, web app, and the proof that they work
    Up(Up),
    /// The engine and a master
    Install(Install),
    /// Add, remove or list replicas
    #[command(subcommand)]
    Replica(Replica),
    /// Take over a Redis that was set up by hand
    Adopt(Adopt),
    /// Make the machine what the topology says
    Apply(Apply),
    /// Show the steps that apply would take, and do nothing
    Plan(Plan),
    /// Is the machine fit, and is all in place?
    Check(Check),
    /// Prove over the wire that it works
    Verify(Verify),
    /// The instances as a tree: role, link, lag, memory
    Status(Status),
    /// Print a rendered redis.conf, or the web app's unit, secrets masked
    Render(Render),
    /// Start, stop, restart, enable or disable instances, or show their logs
    Service(Service),
    /// redis-cli with the password passed safely
    Cli(RedisCli),
    /// Certificates: until when they hold, others in their place, one for a client
    #[command(subcommand)]
    Tls(Tls),
    /// The users by whom servers are entered
    #[command(subcommand)]
    Users(Users),
    /// The cache-aside web app: run it, install it as a service, remove it
    #[command(subcommand)]
    App(App),
    /// Cold against warm: how much faster the cache makes an app
    Bench(Bench),
    /// Print exports for a shell or a CI job (the password among them)
    Env(Env),
    /// A checked copy of what instances hold
    Backup(Backup),
    /// Put a backup in the place of what an instance holds
    Restore(Restore),
    /// Undo the last run
    Rollback(Rollback),
    /// Take everything of ours away; data and package stay
    Uninstall(Uninstall),
    /// Print completions for a shell
    Completions(Completions),
    /// Print the manual page
    Man,
}

/// What every command that changes the machine takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Change {
    /// Show the steps and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Take the topology's value where something was changed by hand
    #[arg(long, conflicts_with = "adopt")]
    pub overwrite: bool,
    /// Take what was changed by hand into the topology
    #[arg(long)]
    pub adopt: bool,
    /// Restart a master although it holds what it never saves
    #[arg(long)]
    pub force: bool,
    /// Take no backup of data before they go
    #[arg(long)]
    pub no_backup: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

impl Change {
    /// What the planner may do.
    pub fn consent(&self) -> Consent {
        Consent { overwrite: self.overwrite, force: self.force, no_backup: self.no_backup, adopt: self.adopt }
    }
}

/// `up`
#[derive(Debug, Args)]
pub struct Up {
    /// Who keeps the instances running
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<RuntimeChoice>,
    /// Redis or Valkey
    #[arg(long)]
    pub engine: Option<Engine>,
    /// The image of containers [default: redis:7, or valkey/valkey:8]
    #[arg(long, value_parser = Image::parse)]
    pub image: Option<Image>,
    /// Leave the web app out, where no topology is written yet
    #[arg(long)]
    pub no_app: bool,
    /// One password for everybody, and no users
    #[arg(long)]
    pub plain: bool,
    /// Speak TLS and nothing else, by certificates of this machine's own authority
    #[arg(long, conflicts_with = "no_tls")]
    pub tls: bool,
    /// Speak no TLS
    #[arg(long)]
    pub no_tls: bool,
    #[command(flatten)]
    /// Common flags
    pub change: Change,
}

/// `install`
#[derive(Debug, Args)]
pub struct Install {
    /// The master's port [default: 6379]
    #[arg(long, value_parser = topology::port_number)]
    pub port: Option<u16>,
    #[command(flatten)]
    /// Who may reach it
    pub access: Access,
    /// Ask for no password
    #[arg(long, conflicts_with = "password_file")]
    pub no_password: bool,
    /// One password for everybody, and no users
    #[arg(long)]
    pub plain: bool,
    /// Speak TLS and nothing else, by certificates of this machine's own authority
    #[arg(long, conflicts_with = "no_tls")]
    pub tls: bool,
    /// Speak no TLS
    #[arg(long)]
    pub no_tls: bool,
    /// Redis or Valkey
    #[arg(long)]
    pub engine: Option<Engine>,
    /// Who keeps the instances running
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<RuntimeChoice>,
    /// The image of containers [default: redis:7, or valkey/valkey:8]
    #[arg(long, value_parser = Image::parse)]
    pub image: Option<Image>,
    #[command(flatten)]
    /// Common flags
    pub change: Change,
}

/// Who may reach an instance, and any other directive of it.
#[derive(Clone, Debug, Default, Args)]
pub struct Access {
    /// The addresses to listen on, as in "127.0.0.1 -::1" [default: loopback]
    #[arg(long, value_name = "ADDRESSES", value_parser = Binds::parse, allow_hyphen_values = true)]
    pub bind: Option<Binds>,
    /// Refuse other machines while there is no password [default: yes]
    #[arg(long, value_name = "yes|no", value_parser = topology::yes_or_no)]
    pub protected_mode: Option<bool>,
    /// Take the password from a file, or from standard input with -
    #[arg(long, value_name = "FILE|-")]
    pub password_file: Option<String>,
    /// Any other directive of redis.conf; may be given several times
    // Read later, not by clap: its error would show a password that is put here by mistake.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `tls`
#[derive(Debug, Subcommand)]
pub enum Tls {
    /// Until when the certificates hold
    Show(Report),
    /// Put others in their place; connections go on
    Rotate(TlsRotate),
    /// Trust the authority of another machine, too: a master's there, or a replica's
    Trust(TlsTrust),
    /// Trust this machine's own authority alone: no former one, and no other machine's
    Forget(TlsForget),
    /// Sign a certificate for a client on another machine
    Client(TlsClient),
}

/// `tls rotate`
#[derive(Debug, Args)]
pub struct TlsRotate {
    /// Another authority, too; the former one stays trusted beside it
    #[arg(long)]
    pub ca: bool,
    #[command(flatten)]
    /// Common flags
    pub change: Change,
}

/// `tls forget`
#[derive(Debug, Args)]
pub struct TlsForget {
    #[command(flatten)]
    /// Common flags
    pub change: Change,
}

/// `tls trust`
#[derive(Debug, Args)]
pub struct TlsTrust {
    /// The other machine's ca.crt
    pub file: PathBuf,
    #[command(flatten)]
    /// Common flags
    pub change: Change,
}

/// `tls client`
#[derive(Debug, Args)]
pub struct TlsClient {
    /// What the client is called
    #[arg(value_parser = client_name)]
    pub name: String,
    /// The directory for its certificate, its key and ca.crt
    pub dir: PathBuf,
}

/// The name of a client is that of its files.
fn client_name(text: &str) -> Result<String, String> {
    match Name::parse(text) {
        Ok(name) if name.as_str() != "ca" => Ok(text.to_owned()),
        Ok(_) => Err("'ca' is the authority's".into()),
        Err(_) => Err(format!("'{text}' is no name: letters, digits and - make one")),
    }
}

/// `replica`
#[derive(Debug, Subcommand)]
pub enum Replica {
    /// Add a replica; the first is named slave, further ones slave-PORT
    Add(ReplicaAdd),
    /// Stop a replica and take it away; its data stays
    Remove(ReplicaRemove),
    /// List the replicas
    List(Report),
}

/// `replica add`
#[derive(Debug, Args)]
pub struct ReplicaAdd {
    /// Its port
    #[arg(long, value_parser = topology::port_number)]
    pub port: u16,
    /// Its name [default: slave, or slave-PORT if there is one]
    #[arg(long, value_parser = Name::parse)]
    pub name: Option<Name>,
    /// Whom it follows: an instance of this machine, or HOST:PORT elsewhere [default: master]
    #[arg(long, value_name = "INSTANCE|HOST:PORT", value_parser = ReplicaOf::parse)]
    pub of: Option<ReplicaOf>,
    #[command(flatten)]
    /// Who may reach it; the password is that of the master elsewhere
    pub access: Access,
    #[command(flatten)]
    /// Common flags
    pub change: Change,
}

/// `replica remove`
#[derive(Debug, Args)]
pub struct ReplicaRemove {
    /// Its name
    #[arg(value_parser = Name::parse)]
    pub name: Name,
    /// Take its data and its log away, too
    #[arg(long)]
    pub purge: bool,
    #[command(flatten)]
    /// Common flags
    pub change: Change,
}

/// `adopt`
#[derive(Debug, Args)]
pub struct Adopt {
    /// Only these: master for redis.conf, NAME for redis-NAME.conf [default: all]
    #[arg(value_parser = Name::parse)]
    pub names: Vec<Name>,
    /// Redis or Valkey [default: the one that was set up]
    #[arg(long)]
    pub engine: Option<Engine>,
    /// Take the password from a file, or from standard input with -, where no configuration has it
    #[arg(long, value_name = "FILE|-")]
    pub password_file: Option<String>,
    /// Show what was found, the repairs and the steps, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `apply`
#[derive(Debug, Args)]
pub struct Apply {
    /// A topology to take over (- for standard input) [default: root's in /etc/redis-tp, else the user's]
    #[arg(short = 'f', long, value_name = "FILE|-")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    /// Common flags
    pub change: Change,
}

/// `plan`
#[derive(Debug, Args)]
pub struct Plan {
    /// A topology to look at (- for standard input) [default: root's in /etc/redis-tp, else the user's]
    #[arg(short = 'f', long, value_name = "FILE|-")]
    pub file: Option<PathBuf>,
    /// Print the plan as JSON
    #[arg(long, conflicts_with_all = ["diff", "shell"])]
    pub json: bool,
    /// Show what changes in each file, secrets masked
    #[arg(long, conflicts_with = "shell")]
    pub diff: bool,
    /// Show what a person would have typed
    #[arg(long)]
    pub shell: bool,
    /// Exit with 3 if there is something to do
    #[arg(long)]
    pub detailed_exitcode: bool,
    /// As if what was changed by hand were to be overwritten
    #[arg(long, conflicts_with = "adopt")]
    pub overwrite: bool,
    /// As if what was changed by hand were to be taken into the topology
    #[arg(long)]
    pub adopt: bool,
    /// As if a master might lose what it never saves
    #[arg(long)]
    pub force: bool,
}

/// `check`
#[derive(Debug, Args)]
pub struct Check {
    /// Put right what can be: shows the plan, and carries it out
    #[arg(long)]
    pub fix: bool,
    /// With --fix: show the steps and do nothing
    #[arg(long, requires = "fix")]
    pub dry_run: bool,
    /// The least severity of a finding that ends in exit code 4
    #[arg(long, value_name = "SEVERITY", default_value = "high")]
    pub fail_on: Severity,
    /// A check of the audit to leave out; may be given several times
    #[arg(long, value_name = "ID", value_parser = audit::id)]
    pub except: Vec<&'static str>,
    /// Show also what of the audit passed
    #[arg(long)]
    pub all: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `replica list`
#[derive(Debug, Args)]
pub struct Report {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The lifetime of the keys that the TTL checks and the web app use, in seconds [default: 1]
    #[arg(long, value_name = "SECONDS", value_parser = topology::lifetime)]
    pub ttl: Option<Duration>,
    /// How long the web app's simulated database takes, in seconds [default: 0.2]
    #[arg(long, value_name = "SECONDS", value_parser = topology::delay)]
    pub slow: Option<Duration>,
    /// The lab's own figures: --ttl 60 --slow 2
    #[arg(long, conflicts_with_all = ["ttl", "slow"])]
    pub lab: bool,
    /// Another web app than ours that speaks the contract; --ttl and --slow say what it claims
    #[arg(long, value_name = "URL", value_parser = Url::parse)]
    pub url: Option<Url>,
    /// Restart each instance, too, prove that data survives it, and that the web app answers meanwhile
    #[arg(long)]
    pub restart: bool,
    /// Print the result as JSON
    #[arg(long, conflicts_with_all = ["tap", "shell"])]
    pub json: bool,
    /// Print the result in the Test Anything Protocol
    #[arg(long, conflicts_with = "shell")]
    pub tap: bool,
    /// Write the result to a file in JUnit's format
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the result to a file as one self-contained page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print the same proof as commands to type, and do nothing
    #[arg(long)]
    pub shell: bool,
}

/// `app`
#[derive(Debug, Subcommand)]
pub enum App {
    /// Run the web app until it is interrupted
    Serve(Box<AppServe>),
    /// Install it as a service, or change how it is installed
    Install(AppInstall),
    /// Stop the service and take it away
    Remove(Change),
    /// Whether an app on this port of this machine is well: for a container's health check
    #[command(hide = true)]
    Health {
        /// The port
        #[arg(long)]
        port: u16,
    },
}

/// The keys of `[app]`, each as a flag.
#[derive(Clone, Debug, Default, Args)]
pub struct AppKeys {
    /// Its port [default: 5000]
    #[arg(long, value_parser = topology::port_number)]
    pub port: Option<u16>,
    /// The address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<IpAddr>,
    /// How long a value stays in the cache, in seconds [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = topology::lifetime)]
    pub ttl: Option<Duration>,
    /// How long the simulated database takes, in seconds [default: 2]
    #[arg(long, value_name = "SECONDS", value_parser = topology::delay)]
    pub slow: Option<Duration>,
    /// What stands before a key in Redis [default: nothing]
    #[arg(long, value_parser = Prefix::parse)]
    pub prefix: Option<Prefix>,
    /// Which instances are read; writes go to the master [default: master]
    #[arg(long)]
    pub read_from: Option<ReadFrom>,
    /// Where values come from: simulated, or sqlite:FILE [default: simulated]
    #[arg(long, value_parser = Source::parse)]
    pub source: Option<Source>,
    /// The table of a SQLite source, with the columns key and value [default: data]
    #[arg(long, value_parser = Table::parse)]
    pub table: Option<Table>,
}

/// `app serve`
#[derive(Debug, Args)]
pub struct AppServe {
    #[command(flatten)]
    /// How it behaves
    pub keys: AppKeys,
    /// A Redis server instead of this machine's instances; may be given several times
    #[arg(long, value_name = "HOST:PORT", value_parser = Address::parse)]
    pub redis: Vec<Address>,
    /// Their password, from a file or from standard input with -
    #[arg(long, value_name = "FILE|-", requires = "redis")]
    pub password_file: Option<String>,
    /// Everything from a file that `app install` wrote (- for standard input): for the service
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["redis", "port", "bind", "ttl", "slow", "prefix", "read_from", "source", "table"])]
    pub config: Option<PathBuf>,
    /// Stay in the background, start again what ends, and write the pid to a file: where no systemd does it
    #[arg(long, value_name = "PIDFILE", requires = "config", hide = true)]
    pub supervise: Option<PathBuf>,
}

/// `app install`
#[derive(Debug, Args)]
pub struct AppInstall {
    #[command(flatten)]
    /// How it behaves
    pub keys: AppKeys,
    #[command(flatten)]
    /// Common flags
    pub change: Change,
}

/// `bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// The app to measure, any that speaks the contract [default: the installed one, else one of our own]
    #[arg(long, value_name = "URL", value_parser = Url::parse)]
    pub url: Option<Url>,
    /// How many requests are under way at once
    #[arg(short = 'c', long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// Requests a second, sent on time whatever the app does [default: as many as it answers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// How long the load lasts, in seconds
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub duration: u64,
    /// How many keys the load asks for
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub keys: u16,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print the result as a table in Markdown
    #[arg(long)]
    pub markdown: bool,
    /// Draw the result into a file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show it again every second until interrupted
    #[arg(long)]
    pub watch: bool,
}

/// `render`
#[derive(Debug, Args)]
pub struct Render {
    /// The instance, or app for the web app's unit and settings [default: all instances]
    #[arg(value_parser = Served::parse)]
    pub name: Option<Served>,
    /// Show the secrets
    #[arg(long)]
    pub reveal: bool,
    /// Print all of it as a compose file
    #[arg(long, conflicts_with = "name")]
    pub compose: bool,
}

/// `service`
#[derive(Debug, Args)]
pub struct Service {
    /// What to do with them
    pub action: Action,
    /// The instance, or app for the web app [default: all]
    #[arg(value_parser = Served::parse)]
    pub name: Option<Served>,
    /// Let an instance that cannot save its data end without
    #[arg(long)]
    pub force: bool,
    /// With --force: take no backup of it before
    #[arg(long)]
    pub no_backup: bool,
    /// How many lines of each log
    #[arg(short = 'n', long, default_value_t = 20)]
    pub lines: usize,
    /// Show the steps and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `service` and `render` work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// An instance.
    Instance(Name),
    /// The web app.
    App,
}

impl Served {
    /// Reads an instance's name, or `app`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            topology::APP => Ok(Self::App),
            name => Name::parse(name).map(Self::Instance),
        }
    }
}

/// What `service` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// Start, masters first
    Start,
    /// Stop, replicas first
    Stop,
    /// Restart, replicas first
    Restart,
    /// Start at boot
    Enable,
    /// Do not start at boot
    Disable,
    /// The last lines of the logs
    Logs,
}

/// `cli`
#[derive(Debug, Args)]
pub struct RedisCli {
    /// The instance [default: master, or the only one]
    #[arg(value_parser = Name::parse)]
    pub name: Option<Name>,
    /// The instance on this port
    #[arg(long, value_parser = topology::port_number, conflicts_with = "name")]
    pub port: Option<u16>,
    /// As whom [default: admin, or where there are no users whoever has the password]
    #[arg(long = "as", value_name = "USER")]
    pub user: Option<User>,
    /// What to hand to redis-cli
    #[arg(last = true)]
    pub args: Vec<String>,
}

/// A user of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum User {
    /// May do everything
    Admin,
    /// May follow a master
    Replica,
    /// May cache
    App,
}

impl User {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => users::ADMIN,
            Self::Replica => users::REPLICA,
            Self::App => users::APP,
        }
    }
}

/// `users`
#[derive(Debug, Subcommand)]
pub enum Users {
    /// Give users other passwords while servers run: no link breaks, and no login is refused
    Rotate(Rotate),
}

/// `users rotate`
#[derive(Debug, Args)]
pub struct Rotate {
    /// The users [default: all of them]
    pub users: Vec<User>,
    #[command(flatten)]
    /// Common flags
    pub change: Change,
}

/// `env`
#[derive(Debug, Args)]
pub struct Env {
    /// The instance [default: master, or the only one]
    #[arg(value_parser = Name::parse)]
    pub name: Option<Name>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `backup`
#[derive(Debug, Args)]
pub struct Backup {
    /// The instance [default: every one that holds data of its own]
    #[arg(value_parser = Name::parse)]
    pub name: Option<Name>,
    /// The file, or a directory that is there [default: below /var/backups/redis-tp]
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
    /// Show the backups that there are, each checked, and take none
    #[arg(long, conflicts_with_all = ["to", "dry_run"])]
    pub list: bool,
    /// Show the steps and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup, or any RDB
    pub file: PathBuf,
    /// The instance [default: master, or the only one]
    #[arg(value_parser = Name::parse)]
    pub name: Option<Name>,
    /// Take no backup of what it holds now
    #[arg(long)]
    pub no_backup: bool,
    /// Show the steps and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `rollback`
#[derive(Debug, Args)]
pub struct Rollback {
    /// Say what would be undone, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Roll back over files that were changed by hand since
    #[arg(long)]
    pub overwrite: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `uninstall`
#[derive(Debug, Args)]
pub struct Uninstall {
    /// Take data, logs, passwords, the topology and what we installed away, too
    #[arg(long)]
    pub purge: bool,
    /// Take files away that were changed by hand, too
    #[arg(long)]
    pub overwrite: bool,
    /// Take no backup of what would be lost
    #[arg(long)]
    pub no_backup: bool,
    /// Show the steps and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

impl Access {
    /// The directives of `--set`.
    ///
    /// # Errors
    /// One that is none, or a secret.
    pub fn settings(&self) -> Result<Vec<(String, String)>, Fault> {
        self.set.iter().map(|text| setting(text)).collect()
    }
}

fn setting(text: &str) -> Result<(String, String), Fault> {
    let example = "for example: --set maxmemory=100mb";
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| Fault::usage(format!("--set '{text}' is not KEY=VALUE")).hint(example))?;
    let key = key.trim().to_ascii_lowercase();
    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
        return Err(
            Fault::usage(format!("'{key}' does not look like a directive of redis.conf")).hint(example)
        );
    }
    if directives::secret(&key) {
        return Err(Fault::usage(format!(
            "'{key}' is a secret, and everybody on this machine can read a command line"
        ))
        .hint(match directives::canonical(&key) {
            "requirepass" => "give it by a file, or on standard input:\nredis-tp install --password-file FILE".to_owned(),
            _ => format!(
                "write it into the section of its instance, and apply that:\neditor {0} && chmod 600 {0}\nredis-tp apply",
                topology::file().display()
            ),
        }));
    }
    if value.chars().any(char::is_control) {
        let what = format!("the value of '{key}' has a newline or another control character in it");
        return Err(Fault::usage(what).hint("give each directive a --set of its own"));
    }
    let value = value.trim();
    if value.starts_with(';') || value.contains(" ;") {
        let what = format!("the value of '{key}' has a ; behind a blank, where a topology has its comments");
        return Err(Fault::usage(what).hint("write the ; as \\x3b, in double quotes"));
    }
    Ok((key, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_on_the_command_line_is_not_shown_again() {
        for text in
            ["requirepass=s3cret", "requirepass=s3\ncret", "Masterauth = s3cret", "user=app on >s3cret"]
        {
            let fault = setting(text).unwrap_err();
            let said = format!("{fault} {}", fault.cure().unwrap_or_default());
            assert!(
                said.contains("is a secret") && !said.contains("cret\"") && !said.contains("s3"),
                "{said}"
            );
        }
    }
}
