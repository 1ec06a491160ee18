//! How a run ends: the exit codes, and the error that carries one together with its cure.

use std::fmt;

/// The exit codes of every command; scripts may rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed in a way that has no code of its own.
    Failed = 1,
    /// The command line could not be understood.
    Usage = 2,
    /// Changes are pending, or the machine differs from the topology by someone else's hand.
    Pending = 3,
    /// `verify` or `check` found failures.
    Findings = 4,
    /// Refused before anything was changed.
    Refused = 5,
    /// Another redis-tp is at work on this machine.
    Locked = 6,
    /// The command needs root.
    NeedsRoot = 7,
    /// Failed; the former state is back.
    RolledBack = 8,
    /// Failed, and the way back failed too; the journal is kept.
    RollbackIncomplete = 9,
}

/// An error whose exit code is not 1: what happened to which object, and how to cure it.
#[derive(Debug)]
pub struct Fault {
    /// The exit code of the run.
    pub code: Code,
    message: String,
    hint: Option<String>,
}

impl Fault {
    /// A fault of this kind; `message` names the object and what is wrong with it.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Refused before anything was changed (exit code 5).
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Code::Refused, message)
    }

    /// The command line asks for something that cannot be (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Adds the cure: a sentence, and on lines of their own the commands to type.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The cure, if one is known.
    pub fn cure(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

/// The exit code that an error asks for.
pub fn code_of(error: &anyhow::Error) -> Code {
    error.downcast_ref::<Fault>().map_or(Code::Failed, |fault| fault.code)
}
