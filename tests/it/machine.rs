//! Real Debian machines for tests: boots one in half a second, runs commands in it, compares its files.
//!
//! A machine is a throwaway overlay over a root tree that `tests/prepare-machines` made, booted by
//! `tests/boot-machine` with PID, mount, UTS, IPC, cgroup and network namespaces of its own. So any number
//! run side by side, each with its own ports, and no network but loopback. It is gone when the
//! [`Machine`] is dropped, and also when the test panics or its process is killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fmt};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, geteuid};

const BOOT_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boot-machine");
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// What a command in a machine may take at most, in seconds; then it ends with status 124.
const RUN_LIMIT: &str = "180";

/// Which Debian to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Debian 12: systemd 252, Redis 7.0.
    Bookworm,
    /// Debian 13: systemd 257, Redis 8.0, Valkey 8.1.
    Trixie,
    /// Debian 12 with Docker 20.10, Podman 4.3 and Compose 2, none of them started; with systemd only.
    Containers,
}

impl Release {
    /// Every release that the program is for.
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    fn tree(self) -> PathBuf {
        cache_dir().join(match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Containers => "containers",
        })
    }
}

/// What is the first process in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd, as on a server.
    Systemd,
    /// Something that only reaps orphans, as in most containers: no `/run/systemd/system`.
    None,
}

/// A running Debian; dropping it ends it.
pub struct Machine {
    init: Init,
    /// `tests/boot-machine`; the machine lives for as long as its standard input stays open.
    keeper: Child,
    /// What keeper and init say, for the message of a boot that failed.
    log: File,
    /// The machine's first process, as a PID of ours.
    leader: Pid,
    root: PathBuf,
}

impl Machine {
    /// Why there can be no such machine here, if so.
    pub fn available(release: Release) -> Result<(), String> {
        if !geteuid().is_root() {
            return Err("machines need root; as root, `tests/run` prepares and uses them".into());
        }
        for tool in ["systemd-nspawn", "nsenter", "unshare"] {
            if !env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(tool).exists())
            {
                return Err(format!("no {tool} here; `tests/run` installs it"));
            }
        }
        let tree = release.tree();
        if !tree.join("etc").exists() {
            return Err(format!("no root tree at {}; `tests/run` makes it", tree.display()));
        }
        Ok(())
    }

    /// Boots a machine where there can be one. Elsewhere says why not and returns `None`, for the test to
    /// return; but with `REDIS_TP_TEST_FULL=1`, where nothing may be skipped, panics.
    pub fn boot_or_skip(release: Release, init: Init) -> Option<Self> {
        let Err(reason) = Self::available(release) else {
            return Some(Self::boot(release, init));
        };
        assert!(env::var_os("REDIS_TP_TEST_FULL").is_none_or(|full| full != "1"), "{reason}");
        let thread = std::thread::current();
        // Not eprintln!: the test harness would swallow that, as the test passes.
        let _ = writeln!(io::stderr(), "skipped {}: {reason}", thread.name().unwrap_or("a test"));
        None
    }

    /// Boots a machine and waits until it is ready; panics if it never is.
    pub fn boot(release: Release, init: Init) -> Self {
        Self::try_boot(release, init)
            .unwrap_or_else(|error| panic!("cannot boot {release:?} ({init:?}): {error:#}"))
    }

    fn try_boot(release: Release, init: Init) -> Result<Self> {
        let log = tempfile::tempfile()?;
        let keeper = Command::new(BOOT_SCRIPT)
            .arg(release.tree())
            .arg(match (release, init) {
                (Release::Containers, Init::Systemd) => "containers",
                (_, Init::Systemd) => "systemd",
                (_, Init::None) => "none",
            })
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            // A Ctrl-C is for the test alone: the keeper cleans up when the test has gone.
            .process_group(0)
            .spawn()
            .context(BOOT_SCRIPT)?;
        let mut machine = Self { init, keeper, log, leader: Pid::from_raw(0), root: PathBuf::new() };
        machine.wait_until_ready()?;
        Ok(machine)
    }

    /// Restarts the machine: its processes and `/run` are gone, its disk stays.
    pub fn reboot(&mut self) {
        let before = self.leader;
        // The Ctrl-Alt-Del of both inits.
        kill(before, Signal::SIGINT).expect("the machine's init runs");
        wait_for("shutdown", || Ok((!alive(before)).then_some(()))).expect("the machine shuts down");
        self.wait_until_ready().expect("the machine comes up again");
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let keeper = Pid::from_raw(self.keeper.id().cast_signed());
        let ready = wait_for("boot", || {
            if let Some(status) = self.keeper.try_wait()? {
                bail!("tests/boot-machine ended with {status}");
            }
            let Some(leader) = find_leader(keeper) else { return Ok(None) };
            self.leader = leader;
            self.root = PathBuf::from(format!("/proc/{leader}/root"));
            Ok(self.is_ready().then_some(()))
        });
        ready.with_context(|| self.what_it_said())
    }

    fn is_ready(&self) -> bool {
        match self.init {
            Init::None => true,
            Init::Systemd => {
                let state = self.run("systemctl is-system-running").stdout;
                // Degraded is up, too; which units failed is for the test to judge.
                matches!(state.trim(), "running" | "degraded")
            }
        }
    }

    fn what_it_said(&self) -> String {
        let mut said = String::new();
        let read = (&self.log).rewind().and_then(|()| (&self.log).read_to_string(&mut said));
        read.map_or_else(|error| error.to_string(), |_| said)
    }

    /// The machine's `/` as seen from here. An absolute symbolic link in it would lead to *this* machine's
    /// files, and `canonicalize` too: [`read`](Self::read) and [`write`](Self::write) know better.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The content of a file of the machine.
    pub fn read(&self, path: impl AsRef<Path>) -> String {
        let path = path.as_ref();
        let mut text = String::new();
        let read = self.open(path, OFlag::O_RDONLY).and_then(|mut file| Ok(file.read_to_string(&mut text)?));
        read.unwrap_or_else(|error| panic!("reading the machine's {}: {error}", path.display()));
        text
    }

    /// Writes a file of the machine; a new one gets mode 0644.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = path.as_ref();
        let written = self
            .open(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC)
            .and_then(|mut file| Ok(file.write_all(content.as_ref())?));
        written.unwrap_or_else(|error| panic!("writing the machine's {}: {error}", path.display()));
    }

    /// Whether the machine has something at this path; a link counts by what it leads to.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.open(path.as_ref(), OFlag::O_PATH).is_ok()
    }

    /// Opens a path as the machine's own processes would: links never lead out of it.
    fn open(&self, path: &Path, flags: OFlag) -> Result<File> {
        let mode =
            if flags.contains(OFlag::O_CREAT) { Mode::from_bits_truncate(0o644) } else { Mode::empty() };
        let how =
            OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        Ok(openat2(File::open(&self.root)?, path, how)?.into())
    }

    /// Puts a program at `/usr/local/bin/redis-tp`.
    pub fn install_binary(&self, program: impl AsRef<Path>) {
        let (program, there) = (program.as_ref(), self.root.join("usr/local/bin/redis-tp"));
        // By a child: a file that this process writes is busy in each child that another thread starts
        // meanwhile, and cannot be executed.
        let done = Command::new("install").args(["-m", "0755"]).args([program, &there]).status();
        assert!(done.is_ok_and(|status| status.success()), "cannot install {}", program.display());
    }

    /// Leaves apt knowing no package, with one way to learn: `apt-get update` finds Redis and what it
    /// needs in a repository on the machine's own disk.
    pub fn empty_package_index(&self) {
        self.run(
            "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /etc/apt/sources.list.d/*
            cp /srv/repo/offline.list /etc/apt/sources.list",
        )
        .ok();
    }

    /// Runs a shell command as root, with a clean environment and nothing on standard input.
    pub fn run(&self, command: &str) -> Out {
        self.run_to_end(command, Stdio::null())
    }

    /// The same, with something on standard input.
    pub fn run_with_input(&self, command: &str, input: impl AsRef<[u8]>) -> Out {
        let mut file = tempfile::tempfile().expect("a temporary file can be made");
        file.write_all(input.as_ref()).and_then(|()| file.rewind()).expect("a temporary file can be written");
        self.run_to_end(command, file.into())
    }

    fn run_to_end(&self, command: &str, input: Stdio) -> Out {
        Running::start(self.enter(&["timeout", "-k", "5", RUN_LIMIT, "sh", "-c", command]), command, input)
            .wait()
    }

    /// Starts one simple command and comes back at once, for a test that kills it half-way. The command
    /// takes the shell's place, so that a signal reaches it and not a shell.
    pub fn spawn(&self, command: &str) -> Running {
        Running::start(self.enter(&["sh", "-c", &format!("exec {command}")]), command, Stdio::null())
    }

    /// Starts a program of this machine, not of that one, where it has that one's network: a client or a
    /// server from elsewhere. Its environment is the given one.
    pub fn spawn_beside(&self, argv: &[&str], env: &[(&str, &str)]) -> Running {
        // `unshare` stays, as nsenter does where it enters a PID namespace, and passes on how its child ended.
        let mut unshare = Command::new("unshare");
        let network = format!("--net=/proc/{}/ns/net", self.leader);
        unshare.args(["--fork", "--kill-child", "nsenter", &network, "--"]).args(argv);
        unshare.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(env.iter().copied());
        Running::start(unshare, &argv.join(" "), Stdio::null())
    }

    fn enter(&self, argv: &[&str]) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--all", "--target", &self.leader.to_string(), "--"]).args(argv);
        nsenter.env_clear().envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
        ]);
        nsenter
    }

    /// What is at and below these paths of the machine, now; a path with nothing there adds nothing.
    pub fn snapshot(&self, paths: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for path in paths.iter().map(Path::new) {
            let (parent, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or(".".as_ref()));
            let Ok(parent) = self.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY) else { continue };
            let there = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&parent)));
            add_to_snapshot(&mut snapshot, path, &there.join(name))
                .unwrap_or_else(|error| panic!("snapshot of the machine's {}: {error}", path.display()));
        }
        snapshot
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The keeper ends the machine when this closes; by waiting, nothing is left when the test is over.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Where `tests/prepare-machines` keeps its trees, and `tests/prepare-flask` its virtual environment.
pub fn cache_dir() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("REDIS_TP_TEST_CACHE").unwrap_or_else(|| {
        let cache =
            set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").unwrap_or("/root".into()).join(".cache"));
        cache.join("redis-tp-tests")
    })
}

/// Asks every few milliseconds, until there is an answer, an error, or no time left.
fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        ensure!(start.elapsed() < BOOT_LIMIT, "no end of {what} after {BOOT_LIMIT:?}");
        sleep(Duration::from_millis(5));
    }
}

/// The machine's init among the keeper's descendants. While nspawn still sets up the machine, its helpers
/// have one foot in ours; a command sent there would ask about the wrong machine.
fn find_leader(keeper: Pid) -> Option<Pid> {
    let mut waiting = vec![keeper];
    while let Some(pid) = waiting.pop() {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if matches!(name.trim(), "systemd" | "(sd-stubinit)") {
            return Some(pid);
        }
        waiting.extend(children(pid));
    }
    None
}

fn children(pid: Pid) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|child| child.parse().ok().map(Pid::from_raw)).collect()
}

fn alive(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

/// A command under way in a machine; dropped, it is killed.
pub struct Running {
    command: String,
    /// nsenter, which stays outside and passes on how its child ended.
    nsenter: Child,
    /// Files, not pipes: a server that the command leaves behind holds them open, and would hold up the test.
    output: [File; 2],
    start: Instant,
}

impl Running {
    /// What it has written to standard error so far.
    pub fn said(&self) -> String {
        let file = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.output[1]));
        fs::read_to_string(file).unwrap_or_default()
    }

    fn start(mut nsenter: Command, command: &str, input: Stdio) -> Self {
        let output = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file can be made"));
        let [stdout, stderr] = output.each_ref().map(|file| file.try_clone().expect("a file can be shared"));
        let start = Instant::now();
        let nsenter =
            nsenter.stdin(input).stdout(stdout).stderr(stderr).spawn().expect("nsenter can be started");
        Self { command: command.into(), nsenter, output, start }
    }

    /// The command's PID, as seen from here; `None` before it runs and after its end.
    pub fn pid(&self) -> Option<Pid> {
        children(Pid::from_raw(self.nsenter.id().cast_signed())).first().copied()
    }

    /// Whether the command has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.nsenter.try_wait(), Ok(None))
    }

    /// Sends the command a signal, and none to what it started. False if it has ended already.
    pub fn signal(&mut self, signal: Signal) -> bool {
        while self.is_running() {
            if let Some(pid) = self.pid() {
                let sent = kill(pid, signal).is_ok();
                // It stops with its child, and would see nothing of what comes after.
                if signal != Signal::SIGSTOP {
                    let _ = kill(Pid::from_raw(self.nsenter.id().cast_signed()), Signal::SIGCONT);
                }
                return sent;
            }
            sleep(Duration::from_millis(1));
        }
        false
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Out {
        let status = self.nsenter.wait().expect("a child can be waited for");
        let elapsed = self.start.elapsed();
        let [stdout, stderr] = self.output.each_mut().map(|file| {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("what was written can be read");
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Out { command: self.command.clone(), status: exit_code(status), stdout, stderr, elapsed }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.nsenter.wait();
    }
}

/// As a shell counts: 128 + N for signal N.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// How a command in a machine ended, and all that it wrote.
#[derive(Clone, Debug)]
pub struct Out {
    /// The command as given.
    pub command: String,
    /// Its exit code; 128 + N after signal N; 124 if it took too long.
    pub status: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From start to end, some 3 ms of which are the way into the machine.
    pub elapsed: Duration,
}

impl Out {
    /// Itself, if the command succeeded; panics with all that it wrote otherwise.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Itself, if the command ended with this code; panics with all that it wrote otherwise.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(self.status == code, "expected exit code {code}:\n{self}");
        self
    }
}

impl fmt::Display for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}\nexit code {} after {:.1?}", self.command, self.status, self.elapsed)?;
        write!(f, "--- stdout ---\n{}\n--- stderr ---\n{}", self.stdout.trim_end(), self.stderr.trim_end())
    }
}

/// Files of a machine at one moment, by the machine's own paths.
pub type Snapshot = BTreeMap<PathBuf, FileState>;

/// What is at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// As in the first column of `ls -l`: `-`, `d`, `l`, `s`, `p`, `c` or `b`.
    pub kind: char,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Tells a file that was written anew from one that was left alone.
    pub inode: u64,
    /// Hash of a file's content or a link's target; 0 for the rest.
    pub content: u64,
}

/// How alike two snapshots are meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alike {
    /// Nothing was as much as rewritten: inode and time are the same.
    Untouched,
    /// The same kinds, owners, modes and contents; it may have been away in between.
    Equivalent,
}

/// What differs, a line a path, fit for the message of an assertion; empty if alike.
pub fn differences(before: &Snapshot, after: &Snapshot, alike: Alike) -> Vec<String> {
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    let mut lines: Vec<_> = gone.map(|path| format!("gone: {}", path.display())).collect();
    for (path, new) in after {
        match before.get(path) {
            None => lines.push(format!("new: {}", path.display())),
            Some(old) if old.is_alike(new, alike) => {}
            Some(old) => lines.push(format!("changed: {}\n  from {old:?}\n  to   {new:?}", path.display())),
        }
    }
    lines
}

impl FileState {
    fn is_alike(&self, other: &Self, alike: Alike) -> bool {
        let lasting = |file: &Self| (file.kind, file.mode, file.uid, file.gid, file.content);
        match alike {
            Alike::Untouched => self == other,
            Alike::Equivalent => lasting(self) == lasting(other),
        }
    }

    fn of(there: &Path) -> io::Result<Self> {
        let meta = there.symlink_metadata()?;
        let (kind, content) = match meta.file_type() {
            t if t.is_file() => ('-', hash(&fs::read(there)?)),
            t if t.is_symlink() => ('l', hash(fs::read_link(there)?.as_os_str().as_encoded_bytes())),
            t if t.is_dir() => ('d', 0),
            t if t.is_socket() => ('s', 0),
            t if t.is_fifo() => ('p', 0),
            t if t.is_char_device() => ('c', 0),
            _ => ('b', 0),
        };
        let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        Ok(Self { kind, mode, uid, gid, size: meta.size(), mtime_ns, inode: meta.ino(), content })
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn add_to_snapshot(snapshot: &mut Snapshot, path: &Path, there: &Path) -> io::Result<()> {
    let state = match FileState::of(there) {
        // Not there, or gone while we looked: a server's temporary file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        state => state?,
    };
    if state.kind == 'd' {
        for entry in there.read_dir()? {
            let name = entry?.file_name();
            add_to_snapshot(snapshot, &path.join(&name), &there.join(&name))?;
        }
    }
    snapshot.insert(path.into(), state);
    Ok(())
}
