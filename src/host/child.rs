//! Children: what they may see, how long they may take, and how they ended. A part of the one module with
//! effects.

#![allow(clippy::disallowed_methods)]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, fchown};

use super::{Host, Ids, with_umask};
use crate::layout;
use crate::secret::Secret;
use crate::software::{self, Tool};

/// How often a child that runs is looked at.
const GLANCE: Duration = Duration::from_millis(250);

/// How much of a child's output is kept for an error message, in bytes.
const TAIL: usize = 1024;

/// A child process to be: program, arguments, and what it may see.
#[derive(Debug)]
pub struct Child {
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(String, OsString)>,
    pub(super) stdin: Option<Vec<u8>>,
    pub(super) input: Option<File>,
    pub(super) user: Option<Ids>,
    dir: PathBuf,
    umask: bool,
    mortal: bool,
    deadline: Duration,
}

/// How a child ended, and what it printed (never more than asked for by name).
#[derive(Debug)]
pub struct Done {
    /// The exit status, none when a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Done {
    /// Whether the child exited with 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// The last KiB of what it said, standard error first.
    pub fn tail(&self) -> String {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let said = said.trim();
        let mut from = said.len().saturating_sub(TAIL);
        while !said.is_char_boundary(from) {
            from += 1;
        }
        said.get(from..).unwrap_or(said).to_owned()
    }
}

impl Child {
    /// A child with an empty standard input and a minimal environment of ours, not the caller's.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: None,
            input: None,
            user: None,
            dir: "/".into(),
            umask: false,
            mortal: false,
            deadline: Duration::from_secs(60),
        }
    }

    /// Adds an argument.
    pub fn arg(self, arg: impl Into<OsString>) -> Self {
        self.args([arg])
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// What it reads on standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The file that is its standard input.
    pub fn input(mut self, file: File) -> Self {
        self.input = Some(file);
        self
    }

    /// Runs it as this user, without root's supplementary groups.
    pub fn user(mut self, ids: Ids) -> Self {
        self.user = Some(ids);
        self
    }

    /// The directory that it works in.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// Runs it with umask 0027, whatever ours is: for a server that makes files.
    pub fn private_files(mut self) -> Self {
        self.umask = true;
        self
    }

    /// Lets it end with us, also when we are killed: a scratch server would live on.
    pub fn dies_with_us(mut self) -> Self {
        self.mortal = true;
        self
    }

    /// How long it may take; it is killed after that.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl Host {
    /// Finds a program on PATH, or at an absolute path.
    pub fn which(&self, program: &str) -> Option<PathBuf> {
        let mut all = std::env::var_os("PATH").unwrap_or_default();
        // A student's shell under `su` may lack the directories that hold redis-server and dpkg.
        all.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let below = std::env::join_paths(std::env::split_paths(&all).map(|dir| self.path(&dir))).ok()?;
        let found = which::which_in(program, Some(below), "/").ok()?;
        found.strip_prefix(&self.root).map(|path| Path::new("/").join(path)).ok()
    }

    /// What a file holds, for a child of this user's to read from a pipe: so it need not enter the file's
    /// directory, and can do nothing else with the file.
    ///
    /// # Errors
    /// There is no pipe.
    pub fn pour(&self, mut from: File, reader: Ids) -> Result<File> {
        let (read, mut write) = io::pipe().context("cannot make a pipe")?;
        // It opens its standard input anew, by a name.
        fchown(&read, Some(Uid::from_raw(reader.uid)), Some(Gid::from_raw(reader.gid)))
            .context("cannot hand a pipe over")?;
        // A child that ends before the file does breaks the pipe, and that ends this.
        std::thread::spawn(move || io::copy(&mut from, &mut write));
        Ok(File::from(OwnedFd::from(read)))
    }

    /// Runs a child to its end. It gets a process group of its own, so that a Ctrl-C at the
    /// terminal ends our run between two steps and not its package manager in the middle of one.
    ///
    /// # Errors
    /// It could not be started, or passed its deadline. A status other than 0 is no error here.
    pub fn run(&self, child: Child) -> Result<Done> {
        let (name, deadline) = (child.program.display().to_string(), child.deadline);
        let handle = start(child).with_context(|| format!("cannot run {name}"))?;
        let end = Instant::now() + deadline;
        // Looked at now and then: whoever waits is woken by a write in a signal's handler, which may fail.
        while !ended(&handle, GLANCE.min(deadline)).with_context(|| format!("cannot wait for {name}"))? {
            if Instant::now() >= end {
                handle.kill().with_context(|| format!("cannot end {name}"))?;
                bail!("{name} did not end within {} s", deadline.as_secs());
            }
        }
        finish(handle, &name)
    }

    /// Runs a child to its end, and hands over each line of its standard output as it comes.
    ///
    /// # Errors
    /// It could not be started, passed its deadline, or was interrupted.
    pub fn run_heard(&self, child: Child, hear: &mut dyn FnMut(&str)) -> Result<Done> {
        use std::io::{BufRead, BufReader};
        let (name, deadline) = (child.program.display().to_string(), Instant::now() + child.deadline);
        let (read, write) = std::io::pipe().context("cannot make a pipe")?;
        let handle =
            expression(child).stdout_file(write).start().with_context(|| format!("cannot run {name}"))?;
        let (lines, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(read).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        loop {
            while let Ok(line) = heard.try_recv() {
                hear(&line);
            }
            if handle.try_wait().with_context(|| format!("cannot wait for {name}"))?.is_some() {
                return finish(handle, &name);
            }
            if Instant::now() >= deadline || self.interrupted() {
                handle.kill().with_context(|| format!("cannot end {name}"))?;
                bail!("{name} did not end in time");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a child until `ready` says so, then ends it (none), or until it ends by itself.
    ///
    /// # Errors
    /// It could not be started, or was neither ready nor gone at its deadline.
    pub fn run_until(&self, child: Child, mut ready: impl FnMut() -> bool) -> Result<Option<Done>> {
        let (name, deadline) = (child.program.display().to_string(), Instant::now() + child.deadline);
        let handle = start(child).with_context(|| format!("cannot run {name}"))?;
        loop {
            if ready() {
                handle
                    .kill()
                    .and_then(|()| handle.wait().map(drop))
                    .with_context(|| format!("cannot end {name}"))?;
                return Ok(None);
            }
            if handle.try_wait()?.is_some() {
                return finish(handle, &name).map(Some);
            }
            if Instant::now() >= deadline || self.interrupted() {
                handle
                    .kill()
                    .and_then(|()| handle.wait().map(drop))
                    .with_context(|| format!("cannot end {name}"))?;
                bail!("{name} was not ready in time");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Replaces this process by another program, with a secret in its environment. Returns only if that
    /// failed.
    pub fn exec(&self, tool: &Tool, args: &[String], secret: Option<(&str, &Secret)>) -> anyhow::Error {
        let mut command = std::process::Command::new(&tool.path);
        command.args(args);
        command.envs(tool.libraries.iter().map(|libraries| (software::LIBRARIES, libraries)));
        command.envs(secret.map(|(name, value)| (name, value.expose())));
        anyhow::Error::new(command.exec()).context(format!("cannot run {}", tool.path.display()))
    }

    /// Sends a signal; a process that is gone already is no error.
    pub fn signal(&self, pid: u32, signal: Signal) -> Result<()> {
        match kill(Pid::from_raw(i32::try_from(pid)?), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal process {pid}")),
        }
    }
}

fn start(child: Child) -> io::Result<duct::Handle> {
    let umask = child.umask;
    let expression = expression(child).stdout_capture();
    // Under the lock in any case: no child may be born with the umask of another thread's moment.
    with_umask(if umask { 0o027 } else { 0o022 }, || expression.start())
}

/// A child as the library takes it; where its standard output goes is still to be said.
fn expression(child: Child) -> duct::Expression {
    let Child { program, args, env, stdin, input, user, dir, .. } = mortal(child);
    // As a string: duct takes a bare name in a PathBuf for a file of the working directory.
    let expression = duct::cmd(program.into_os_string(), args)
        .full_env(environment(env))
        .dir(dir)
        .stderr_capture()
        .unchecked()
        .before_spawn(move |command| {
            command.process_group(0);
            if let Some(ids) = user {
                command.gid(ids.gid).uid(ids.uid);
            }
            Ok(())
        });
    match (input, stdin) {
        (Some(file), _) => expression.stdin_file(file),
        (None, Some(bytes)) => expression.stdin_bytes(bytes),
        (None, None) => expression.stdin_null(),
    }
}

/// A child that is to end with us, as setpriv(1) starts it.
pub(super) fn mortal(mut child: Child) -> Child {
    // prctl(2) after the change of user, which undoes it, and without code that is unsafe: util-linux's.
    let setpriv = Path::new("/usr/bin/setpriv");
    if child.mortal && setpriv.exists() {
        let head = ["--pdeathsig".into(), "KILL".into(), "--".into(), child.program.into_os_string()];
        child.args = head.into_iter().chain(child.args).collect();
        child.program = setpriv.to_path_buf();
    }
    child
}

/// The environment of a child: ours is not handed on.
pub(super) fn environment(more: Vec<(String, OsString)>) -> Vec<(OsString, OsString)> {
    let mut vars: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
        ("LC_ALL".into(), "C.UTF-8".into()),
        ("HOME".into(), layout::here().home.clone().into_os_string()),
    ];
    vars.extend(more.into_iter().map(|(name, value)| (OsString::from(name), value)));
    vars
}

/// Whether a child has ended, after so long at most. Waiting takes a pipe of its own, and where there is none, the
/// child goes on all the same: nobody may go back behind its back.
fn ended(handle: &duct::Handle, limit: Duration) -> io::Result<bool> {
    match handle.wait_timeout(limit) {
        Ok(done) => Ok(done.is_some()),
        Err(_) => {
            std::thread::sleep(limit.min(Duration::from_millis(20)));
            handle.try_wait().map(|done| done.is_some())
        }
    }
}

fn finish(handle: duct::Handle, name: &str) -> Result<Done> {
    let output = handle.into_output().with_context(|| format!("cannot read what {name} printed"))?;
    Ok(Done {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
