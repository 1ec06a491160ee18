//! Data to stdout, messages to stderr. Colour only where a terminal takes it (NO_COLOR is heeded).

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::exit::{Code, Fault};

/// Good.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Bad.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Worth a look.
pub const NOTE: Style = AnsiColor::Yellow.on_default();
/// Of less weight.
pub const FAINT: Style = Style::new().dimmed();
/// A command to type.
pub const TYPE: Style = Style::new().bold();

/// A text in a style.
pub fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints a line of data. A reader that has gone away (`| head`) is no error.
pub fn out(line: impl std::fmt::Display) {
    let _ = writeln!(anstream::stdout(), "{line}");
}

/// Prints a message.
pub fn err(line: impl std::fmt::Display) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// Prints a value as JSON.
pub fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    out(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Whether a person looks at our messages.
pub fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// Prints an error: what happened to what, the hint, and last the command that cures it.
pub fn error(error: &anyhow::Error) {
    let fault = error.downcast_ref::<Fault>();
    let rolled_back =
        fault.is_some_and(|fault| matches!(fault.code, Code::RolledBack | Code::RollbackIncomplete));
    let mut chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    // How it ended is the outermost context; it reads better behind what happened.
    let ended = (rolled_back && !chain.is_empty()).then(|| chain.remove(0));
    chain.dedup();
    err(format_args!("{} {}", styled(BAD, "error:"), chain.join(": ")));
    if let Some(ended) = ended {
        err(ended);
    }
    let hint = error.chain().find_map(|cause| cause.downcast_ref::<Fault>().and_then(Fault::cure));
    if let Some(text) = hint {
        self::hint(text);
    }
}

/// Prints a cure: a sentence, and beneath it the commands to type.
pub fn hint(text: &str) {
    let mut lines = text.lines();
    err(format_args!("{} {}", styled(NOTE, "hint:"), lines.next().unwrap_or_default()));
    for line in lines {
        err(format_args!("      {}", styled(TYPE, line)));
    }
}

/// What to type next: commands with what each is for.
pub fn next(commands: &[(&str, &str)]) {
    let width = commands.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    out("");
    for (index, (command, what)) in commands.iter().enumerate() {
        let head = if index == 0 { "next:" } else { "" };
        out(format_args!(
            "{head:<6}{}  {}",
            styled(TYPE, format_args!("{command:<width$}")),
            styled(FAINT, what)
        ));
    }
}
