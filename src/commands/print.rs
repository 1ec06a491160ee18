//! `redis-tp completions` and `redis-tp man`: made from the command line's own types.

use anyhow::Result;
use clap::CommandFactory;

use crate::cli::{Cli, Completions};
use crate::exit::Code;
use crate::report::console;

/// Prints completions for a shell.
///
/// # Errors
/// None but what printing has.
pub fn completions(args: &Completions) -> Result<Code> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "redis-tp", &mut text);
    console::out(String::from_utf8_lossy(&text).trim_end());
    Ok(Code::Done)
}

/// Prints the manual page, one section a command.
///
/// # Errors
/// The page cannot be rendered.
pub fn man() -> Result<Code> {
    let mut text = Vec::new();
    let command = Cli::command();
    let page = clap_mangen::Man::new(command.clone());
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let heading = format!(".SH {}\n", verb.get_name().to_uppercase());
        text.extend_from_slice(heading.as_bytes());
        let mut verb = verb.clone().bin_name(format!("redis-tp {}", verb.get_name()));
        verb.build();
        section(&verb, &mut text)?;
        for nested in verb.get_subcommands().filter(|nested| nested.get_name() != "help") {
            text.extend_from_slice(format!(".SS {} {}\n", verb.get_name(), nested.get_name()).as_bytes());
            section(nested, &mut text)?;
        }
    }
    page.render_extra_section(&mut text)?;
    console::out(String::from_utf8_lossy(&text).trim_end());
    Ok(Code::Done)
}

/// What a verb is for, and its flags.
fn section(verb: &clap::Command, text: &mut Vec<u8>) -> Result<()> {
    let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
    text.extend_from_slice(format!("{about}\n").as_bytes());
    let mut options = Vec::new();
    clap_mangen::Man::new(verb.clone()).render_options_section(&mut options)?;
    // Its own heading would end the verb's section.
    let options = String::from_utf8_lossy(&options).replace(".SH OPTIONS\n", "");
    text.extend_from_slice(options.as_bytes());
    Ok(())
}
