//! What steps do to containers, volumes and the network, by the engine's own program; and how each is
//! undone. Only what has our label is ever touched.

use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::{Event, Run};
use crate::engine::Engine;
use crate::exit::{Code, Fault};
use crate::facts::containers::{self, Seen, Volume};
use crate::host::{Done, Host, Ids};
use crate::journal::Undo;
use crate::runtime::Program;
use crate::runtime::container::{Container, DATA_DIR, Making, NETWORK, PROOF, restart_word};
use crate::state::State;
use crate::step::{Inside, NewVolume, Owner};
use crate::topology::Image;

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long podman waits by itself until it kills, in seconds: never; that is for us to decide.
const FOR_EVER: &str = "86400";
/// By when podman has sent its signal.
const HEARD: Duration = Duration::from_secs(2);
/// How often a removal is tried again.
const AGAIN: u32 = 5;
/// Between two of these.
const PAUSE: Duration = Duration::from_millis(300);
/// How long an image may take to come.
const DOWNLOAD: Duration = Duration::from_secs(3600);

/// Runs the engine's program, and takes a status other than 0 for a failure.
///
/// # Errors
/// What it said.
pub fn run<S: AsRef<str>>(host: &Host, program: Program, words: &[S]) -> Result<String> {
    let words = words.iter().map(|word| word.as_ref().to_owned());
    let done = host.run(containers::command(host, program).args(words).deadline(PATIENCE))?;
    if done.ok() {
        return Ok(done.stdout);
    }
    match containers::trouble(&done.stderr) {
        Some(trouble @ (containers::Trouble::Down | containers::Trouble::Closed)) => {
            Err(containers::refused(program, &trouble).into())
        }
        _ => bail!("{program}: {}", done.tail()),
    }
}

/// Takes a container away that does not run. Volumes without a name go with it, which engines make for an
/// image that asks for them; ours have names, and stay.
fn take_away(host: &Host, program: Program, name: &str) -> Result<()> {
    run(host, program, &["rm", "--volumes", name]).map(drop)
}

/// Takes a container away, also one that runs, and at once.
///
/// # Errors
/// The engine refuses.
pub fn remove(host: &Host, program: Program, name: &str) -> Result<()> {
    let words: &[&str] = match program {
        Program::Docker => &["rm", "--force", "--volumes", name],
        // It would wait for a process that does not listen.
        Program::Podman => &["rm", "--force", "--volumes", "--time", "0", name],
    };
    // Podman stumbles over a container that its restart policy starts in the same moment.
    let mut last = run(host, program, words);
    for _ in 0..AGAIN {
        if last.is_ok() || containers::look(host, program, name)?.is_none() {
            return Ok(());
        }
        host.sleep(PAUSE);
        last = run(host, program, words);
    }
    last.map(drop)
}

impl Run<'_> {
    /// Fetches an image. Like a package that apt has fetched, it stays when the run is undone.
    pub(super) fn pull(&mut self, program: Program, image: &Image) -> Result<()> {
        let child = containers::command(self.host, program).args(["pull", image.as_str()]);
        let (mut layers, mut here) = (0, 0);
        let tell = &mut self.tell;
        let mut hear = |line: &str| {
            layers += u32::from(line.ends_with("Pulling fs layer") || line.starts_with("Copying blob"));
            here += u32::from(line.ends_with("Pull complete") || line.ends_with("done"));
            if layers > 0 {
                tell(Event::Waiting(&format!("{image}: {} of {layers} layers are here", here.min(layers))));
            }
        };
        let done = self.host.run_heard(child.deadline(DOWNLOAD), &mut hear)?;
        match done.ok() {
            true => Ok(()),
            false => {
                let why = done.stderr.lines().rev().find(|line| !line.trim().is_empty());
                let why = why.unwrap_or_default().trim_start_matches("Error response from daemon: ");
                Err(containers::missing(program, image, why).into())
            }
        }
    }

    pub(super) fn network(&mut self, program: Program) -> Result<()> {
        if containers::network(self.host, program)?.is_some_and(|owner| owner == containers::layout()) {
            return Ok(());
        }
        self.announce(Undo::Network { program, before: false })?;
        make_network(self.host, program)
    }

    pub(super) fn remove_network(&mut self, program: Program) -> Result<()> {
        self.announce(Undo::Network { program, before: true })?;
        drop_network(self.host, program)
    }

    /// Makes volumes, and gives them to the user that servers run as in one go: it takes a container.
    pub(super) fn volumes(&mut self, inside: &Inside, volumes: &[NewVolume]) -> Result<()> {
        let user = self.ids(Owner::Image)?;
        for NewVolume { name, copy } in volumes {
            if volume(self.host, inside.program, name)?.is_some() {
                continue;
            }
            self.announce(Undo::Volume { program: inside.program, name: name.clone(), copy: *copy })?;
            run(self.host, inside.program, &["volume", "create", "--label", &containers::label(), name])?;
        }
        own(self.host, inside, volumes, user)
    }

    pub(super) fn container(&mut self, container: &Container, engine: Engine) -> Result<()> {
        let program = container.program;
        let user = self.ids(Owner::Image)?;
        let there = containers::look(self.host, program, &container.name)?;
        let boot = there.as_ref().is_none_or(|seen| seen.boot);
        let before = self.state.containers.get(&container.name).filter(|_| there.is_some());
        let before = before.cloned().map(Box::new);
        self.announce(Undo::Container { program, name: container.name.clone(), engine, before, boot })?;
        if there.is_some() {
            take_away(self.host, program, &container.name)?;
        }
        make(self.host, container, user, boot)?;
        self.state.containers.insert(container.name.clone(), container.clone());
        Ok(())
    }

    pub(super) fn remove_container(&mut self, program: Program, name: &str, engine: Engine) -> Result<()> {
        let there = containers::look(self.host, program, name)?;
        let before = self.state.containers.remove(name).filter(|_| there.is_some()).map(Box::new);
        if let Some(seen) = there {
            let name = name.to_owned();
            let undo = Undo::Container { program, name: name.clone(), engine, before, boot: seen.boot };
            self.announce(undo)?;
            take_away(self.host, program, &name)?;
        }
        Ok(())
    }

    pub(super) fn purge_volume(&mut self, program: Program, name: &str) -> Result<()> {
        self.journal.no_return(self.host)?;
        drop_volume(self.host, program, name)
    }

    pub(super) fn boot(&mut self, program: Program, name: &str, on: bool) -> Result<()> {
        self.announce(Undo::Boot { program, name: name.to_owned(), before: !on })?;
        set_boot(self.host, program, name, on)
    }
}

/// Takes away the containers in which proofs were made by runs that were killed since.
///
/// # Errors
/// The engine refuses.
pub fn sweep(host: &Host, program: Program) -> Result<()> {
    let ours = format!("label={}", containers::label());
    let proofs = format!("name={PROOF}");
    let left = run(host, program, &["ps", "--all", "--quiet", "--filter", &ours, "--filter", &proofs])?;
    left.split_whitespace().try_for_each(|id| remove(host, program, id))
}

fn make(host: &Host, container: &Container, user: Ids, boot: bool) -> Result<()> {
    let making = Making {
        layout: &containers::layout(),
        user: &format!("{}:{}", user.uid, user.gid),
        boot,
        rootless: host.euid() != 0,
    };
    run(host, container.program, &container.create(&making)).map(drop)
}

fn make_network(host: &Host, program: Program) -> Result<()> {
    run(host, program, &["network", "create", "--label", &containers::label(), NETWORK]).map(drop)
}

fn drop_network(host: &Host, program: Program) -> Result<()> {
    match containers::network(host, program)? {
        Some(owner) if owner == containers::layout() => {
            run(host, program, &["network", "rm", NETWORK]).map(drop)
        }
        _ => Ok(()),
    }
}

fn drop_volume(host: &Host, program: Program, name: &str) -> Result<()> {
    match volume(host, program, name)? {
        Some(_) => run(host, program, &["volume", "rm", name]).map(drop),
        None => Ok(()),
    }
}

/// A volume of ours; none where there is none.
fn volume(host: &Host, program: Program, name: &str) -> Result<Option<Volume>> {
    let ours = |volume: &Volume| volume.layout == containers::layout();
    Ok(containers::volume(host, program, name)?.filter(ours))
}

/// Gives volumes to a user. What is in them already is left alone.
fn own(host: &Host, inside: &Inside, volumes: &[NewVolume], user: Ids) -> Result<()> {
    let mut words: Vec<String> =
        ["run", "--rm", "--network", "none", "--user", "0:0"].map(str::to_owned).into();
    if inside.program == Program::Podman && host.euid() != 0 {
        words.extend(["--userns".into(), "keep-id".into()]);
    }
    let mut places = Vec::new();
    for (index, NewVolume { name, .. }) in volumes.iter().enumerate() {
        let place = format!("{DATA_DIR}/{index}");
        words.extend(["--volume".into(), format!("{name}:{place}")]);
        places.push(place);
    }
    let places = places.join(" ");
    words.extend(["--entrypoint".into(), "sh".into(), inside.image.to_string(), "-c".into()]);
    words.push(format!("chown {}:{} {places} && chmod 700 {places}", user.uid, user.gid));
    run(host, inside.program, &words).map(drop)
}

fn set_boot(host: &Host, program: Program, name: &str, on: bool) -> Result<()> {
    let done = run(host, program, &["update", "--restart", restart_word(program, on), name]).map(drop);
    done.map_err(|error| match format!("{error:#}").contains("unknown flag") {
        // The one step that not every engine can take.
        true => Fault::new(
            Code::Failed,
            format!("this {program} cannot change whether {name} starts by itself; podman can from 5.1 on"),
        )
        .hint(format!("see which one it is:\n{program} --version"))
        .into(),
        false => error,
    })
}

/// Lets a container be on our network again.
///
/// # Errors
/// The engine refuses.
pub fn join(host: &Host, program: Program, name: &str) -> Result<()> {
    run(host, program, &["network", "connect", NETWORK, name]).map(drop)
}

/// Starts containers, in their order.
///
/// # Errors
/// The first that does not start, in the engine's words.
pub fn start(host: &Host, program: Program, names: &[String]) -> Result<()> {
    for name in names {
        // It would not be started, and does not answer.
        if containers::look(host, program, name)?.is_some_and(|seen| seen.state == "paused") {
            run(host, program, &["unpause", name])?;
        }
    }
    let words: Vec<&str> = ["start"].into_iter().chain(names.iter().map(String::as_str)).collect();
    run(host, program, &words).map(drop)
}

/// Asks a container's process to end, or ends it; it is not started again. Nothing happens where it does not
/// run. This does not wait until it has ended.
///
/// # Errors
/// The engine refuses.
pub fn signal(host: &Host, program: Program, name: &str, signal: Signal) -> Result<()> {
    if !containers::look(host, program, name)?.is_some_and(|seen| seen.runs()) {
        return Ok(());
    }
    match (program, signal) {
        (Program::Docker, signal) => {
            run(host, program, &["kill", "--signal", signal.as_str(), name]).map(drop)
        }
        // After `kill` podman would start it again.
        (Program::Podman, Signal::SIGKILL) => run(host, program, &["stop", "--time", "0", name]).map(drop),
        (Program::Podman, _) => {
            let child = containers::command(host, program).args(["stop", "--time", FOR_EVER, name]);
            let asked = host.now();
            let done = host.run_until(child, || asked.elapsed() > HEARD)?;
            match done {
                Some(done) if !done.ok() => bail!("{program}: {}", done.tail()),
                _ => Ok(()),
            }
        }
    }
}

/// The last lines that a container said.
pub fn logs(host: &Host, program: Program, name: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let child = containers::command(host, program).args(["logs", "--tail", &count, name]);
    let Some(done) = host.run(child).ok().filter(Done::ok) else { return Vec::new() };
    let said = crate::conf::redact(&format!("{}{}", done.stdout, done.stderr));
    said.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

/// What a person types to see what a container said.
pub fn logs_command(program: Program, name: &str) -> String {
    format!("{program} logs {name}")
}

/// Undoes one effect. `kept` says of a volume that it holds what is nowhere else.
///
/// # Errors
/// The engine refuses.
pub fn undo(host: &Host, undo: &Undo, kept: impl Fn(&str) -> bool) -> Result<()> {
    match undo {
        Undo::Network { program, before: true } => match containers::network(host, *program)? {
            None => make_network(host, *program),
            Some(_) => Ok(()),
        },
        Undo::Network { program, before: false } => drop_network(host, *program),
        Undo::Volume { program, name, copy } => match volume(host, *program, name)? {
            // An empty one holds nothing, whatever became of its server.
            Some(volume) if (volume.occupied || volume.hidden) && (kept(name) || !*copy) => Ok(()),
            Some(_) => drop_volume(host, *program, name),
            None => Ok(()),
        },
        Undo::Boot { program, name, before } => match containers::look(host, *program, name)? {
            Some(seen) if seen.boot != *before => set_boot(host, *program, name, *before),
            _ => Ok(()),
        },
        Undo::Container { program, name, engine, before, boot } => {
            let there = containers::look(host, *program, name)?;
            let same = |seen: &Seen| before.as_ref().is_some_and(|before| before.digest() == seen.spec);
            if there.as_ref().is_some_and(same) {
                return Ok(());
            }
            if there.is_some() {
                remove(host, *program, name)?;
            }
            let Some(before) = before else { return Ok(()) };
            let state = State::load(host)?;
            let user = containers::user_of(host, *program, &before.image, *engine, &state)?;
            make(host, before, user, *boot)
        }
        _ => Ok(()),
    }
}

/// A container that ended when it was started, with what it said last.
pub fn ended(host: &Host, program: Program, name: &str) -> Fault {
    let said = logs(host, program, name, 8);
    let text = said.join("\n");
    let lines = crate::log::telling(&text, 4).join("\n  ");
    Fault::new(Code::Failed, format!("the container {name} ended at once; it said:\n  {lines}"))
        .hint(format!("see the whole of it:\n{}", logs_command(program, name)))
}
