//! The verbs: each file reads its part of the command line, asks the layers below, and shows the
//! result.

use std::ffi::OsString;

use anyhow::Result;
use clap::Parser;

use crate::cli::{App, Cli, Command, Replica};
use crate::exit::{self, Code, Fault};
use crate::host::Host;
use crate::layout;
use crate::report::console;

mod adopt;
mod app;
mod backup;
mod backups;
mod bench;
mod check;
mod cli;
mod converge;
mod env;
mod install;
mod print;
mod prove;
mod render;
mod replica;
mod restore;
mod rollback;
mod scene;
mod service;
mod status;
mod tls;
mod uninstall;
mod up;
mod users;

/// The program, from argv to exit code.
pub fn main() -> Code {
    let host = Host::real();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Code::Usage } else { Code::Done };
        }
    };
    match run(&host, cli.command) {
        Ok(code) => code,
        Err(error) => {
            console::error(&error);
            exit::code_of(&error)
        }
    }
}

fn run(host: &Host, command: Command) -> Result<Code> {
    refuse_settings(&command)?;
    if !is_for_anybody(&command) {
        layout::settle(host)?;
    }
    match command {
        Command::Up(args) => up::run(host, args),
        Command::Install(args) => install::run(host, args),
        Command::Replica(args) => replica::run(host, args),
        Command::Adopt(args) => adopt::run(host, &args),
        Command::Apply(args) => converge::apply(host, args),
        Command::Plan(args) => converge::plan(host, args),
        Command::Check(args) => check::run(host, &args),
        Command::Verify(args) => prove::verify(host, &args),
        Command::Status(args) => status::run(host, &args),
        Command::Render(args) => render::run(host, &args),
        Command::Service(args) => service::run(host, &args),
        Command::Cli(args) => cli::run(host, &args),
        Command::Tls(args) => tls::run(host, &args),
        Command::Users(args) => users::run(host, &args),
        Command::App(args) => app::run(host, args),
        Command::Bench(args) => bench::run(host, &args),
        Command::Env(args) => env::run(host, &args),
        Command::Backup(args) => backup::run(host, &args),
        Command::Restore(args) => restore::run(host, &args),
        Command::Rollback(args) => rollback::run(host, &args),
        Command::Uninstall(args) => uninstall::run(host, &args),
        Command::Completions(args) => print::completions(&args),
        Command::Man => print::man(),
    }
}

/// Before the line that is to be typed with sudo is shown: it may have a password in it.
fn refuse_settings(command: &Command) -> Result<(), Fault> {
    let access = match command {
        Command::Install(args) => &args.access,
        Command::Replica(Replica::Add(args)) => &args.access,
        _ => return Ok(()),
    };
    access.settings().map(drop)
}

/// Whether a command has no place on the machine: it asks what listens on the network, or prints.
fn is_for_anybody(command: &Command) -> bool {
    match command {
        Command::Completions(_) | Command::Man => true,
        Command::Bench(args) => args.url.is_some(),
        Command::App(App::Health { .. }) => true,
        Command::App(App::Serve(args)) => args.config.is_some() || !args.redis.is_empty(),
        _ => false,
    }
}

/// What there is to see here is root's: the same command as it is to be typed.
fn needs_root(what: &str) -> Fault {
    let words: Vec<String> = std::env::args_os()
        .map(OsString::into_string)
        .map(|word| word.unwrap_or_else(|word| word.to_string_lossy().into_owned()))
        .collect();
    let line: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    Fault::new(Code::NeedsRoot, what).hint(format!("type:\nsudo {}", line.join(" ")))
}

/// A word as a shell reads it back.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%^".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A value as the topology writes it.
pub fn word<T: clap::ValueEnum>(value: T) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
