//! The proof in an image: one container that does nothing, without a network, and in it the same probes.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{alone, neutral, overrides, parse_probe, refusal};
use crate::apply::containers::{remove, run};
use crate::exit::Fault;
use crate::facts::containers::{command, label, user_of};
use crate::host::{Child, Host};
use crate::runtime::Program;
use crate::runtime::container::{OWN_PROGRAM, PROOF};
use crate::state::State;
use crate::step::{Candidate, Inside};

/// How long a proof may take.
const BOOT: Duration = Duration::from_secs(20);

/// What the scratch server's start says at its end.
const READY: &str = "redis-tp: ready";

/// How long the container lives if nobody ends it, in seconds.
const LIFE: &str = "60";

/// Proves several candidates at the same time, and that our own program runs there if it has to.
pub fn prove_all(host: &Host, candidates: &[Candidate], inside: &Inside) -> Result<()> {
    let name = format!("{PROOF}{}", host.random_hex(4)?);
    let bench = Bench { host, program: inside.program, name };
    bench.start(inside)?;
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let own = inside.own.as_ref().map(|_| scope.spawn(|| bench.own_program(inside)));
        let proofs: Vec<_> =
            candidates.iter().map(|candidate| scope.spawn(|| bench.prove(candidate))).collect();
        let broken = |_| Err(anyhow::anyhow!("a proof broke off"));
        proofs.into_iter().chain(own).map(|proof| proof.join().unwrap_or_else(broken)).collect()
    });
    let ended = remove(host, inside.program, &bench.name);
    results.into_iter().collect::<Result<()>>()?;
    ended
}

/// The container in which the proofs run.
struct Bench<'a> {
    host: &'a Host,
    program: Program,
    name: String,
}

impl Bench<'_> {
    fn start(&self, inside: &Inside) -> Result<()> {
        let state = State::load(self.host)?;
        let user = user_of(self.host, inside.program, &inside.image, inside.engine, &state)?;
        let mut words = vec!["run".to_owned(), "--detach".into(), "--rm".into()];
        let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        option("name", self.name.clone());
        option("label", label());
        option("network", "none".into());
        option("user", format!("{}:{}", user.uid, user.gid));
        if inside.program == Program::Podman && self.host.euid() != 0 {
            option("userns", "keep-id".into());
        }
        option("tmpfs", "/tmp:mode=1777".into());
        if let Some(own) = &inside.own {
            option("volume", format!("{}:{OWN_PROGRAM}:ro", own.display()));
        }
        option("entrypoint", "sleep".into());
        words.extend([inside.image.to_string(), LIFE.into()]);
        run(self.host, inside.program, &words).map(drop).context("the proof cannot be made")
    }

    /// A child that runs something in the container, with no argument yet.
    fn child(&self, program: &str) -> Child {
        command(self.host, self.program).args(["exec", "--interactive", &self.name, program]).deadline(BOOT)
    }

    fn prove(&self, candidate: &Candidate) -> Result<()> {
        let text = neutral(candidate.text.expose());
        parse_probe(self.host, self.child(candidate.target.engine.server()), &text, candidate)?;
        self.boot(&text, candidate)
    }

    /// A server that answers on a socket of its own takes the configuration. What it reads is in the
    /// container's memory only.
    fn boot(&self, text: &str, candidate: &Candidate) -> Result<()> {
        let engine = candidate.target.engine;
        let dir = format!("/tmp/{}", candidate.target.name);
        let quoted = |word: &String| format!("'{}'", word.replace('\'', "'\\''"));
        let args = overrides(text, &dir, &format!("{dir}/socket"), "no");
        let args: Vec<String> = args.iter().map(quoted).collect();
        let script = format!(
            "umask 077; mkdir {dir} && cat > {dir}/conf || exit 2; {server} - {args} < {dir}/conf & \
             pid=$!; n=0; while [ $n -lt 400 ] && kill -0 $pid; do \
             case \"$({cli} -s {dir}/socket PING 2>&1)\" in *PONG*|*NOAUTH*|*NOPERM*) \
             kill -9 $pid; echo '{READY}'; exit 0;; esac; n=$((n+1)); sleep 0.02; done; wait $pid",
            server = engine.server(),
            cli = engine.cli(),
            args = args.join(" "),
        );
        let child = self.child("sh").args(["-c", &script]).stdin(alone(text));
        let done = self.host.run(child)?;
        match done.stdout.contains(READY) {
            true => Ok(()),
            false => Err(refusal(text, &done, candidate).into()),
        }
    }

    fn own_program(&self, inside: &Inside) -> Result<()> {
        // As root: only the image's libraries are in question, for what will be mounted may be a copy.
        let words = ["exec", "--user", "0:0", &self.name, OWN_PROGRAM, "--version"];
        let done = self.host.run(command(self.host, self.program).args(words).deadline(BOOT))?;
        match done.ok() {
            true => Ok(()),
            false => Err(Fault::refused(format!(
                "the web app, which is this program, does not run in the image {}: {}",
                inside.image,
                done.tail()
            ))
            .hint(format!(
                "take an image with Debian's libraries, or leave the web app out:\nredis-tp up --runtime {0} --image redis:7\nredis-tp up --runtime {0} --no-app",
                inside.program
            ))
            .into()),
        }
    }
}
