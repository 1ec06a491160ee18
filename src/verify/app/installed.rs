//! The app that is installed: whether it runs, as whom, and that it reads our Redis.

use serde_json::Value;

use super::super::{Look, ms};
use super::reply::{Reply, word};
use super::{AppProof, PATIENCE, see};
use crate::app::service::{UNIT, USER};
use crate::apply;
use crate::facts;
use crate::finding::Finding;
use crate::http::{self, Url};
use crate::layout;
use crate::runtime::Program;
use crate::topology::AppSection;

fn at<'a>(proof: &AppProof<'a>) -> Result<(Url, &'a AppSection), Finding> {
    proof.installed.clone().ok_or_else(|| Finding::skip("no web app is installed"))
}

fn url_word(proof: &AppProof<'_>) -> String {
    proof.installed.as_ref().map(|(url, _)| url.to_string()).unwrap_or_default()
}

pub fn did_service(proof: &AppProof<'_>) -> String {
    format!("GET {}/healthz, and looked at the process that it names", url_word(proof))
}

/// It runs, it is ours, and it is not root's.
pub fn service(proof: &mut AppProof<'_>) -> Look {
    let (url, _) = at(proof)?;
    let answer =
        http::get(proof.host, &url, "/healthz", PATIENCE).map_err(|trouble| proof.silent(&url, &trouble))?;
    let health: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| health.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if answer.status != 200 || text("app") != "redis-tp" {
        return Ok(Finding::fail(
            format!("what answers on {url} is no app of ours: {}", word(&answer.text())),
            "another program has its port",
            format!("ss -Hltnp 'sport = :{}'", url.port),
        ));
    }
    proof.seen.prefix = Some(text("prefix"));
    let told = format!("redis-tp {}", text("version"));
    if let Some(program) =
        proof.subject.facts.state.app.as_ref().and_then(|kept| kept.target.runtime.program())
    {
        return container(proof, program, &told);
    }
    let pid = health.get("pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok());
    let Some(process) = pid.and_then(|pid| facts::about(proof.host, pid)) else {
        return Ok(Finding::fail(
            format!("the process that it names, {}, is none of this machine", pid.unwrap_or_default()),
            "it runs elsewhere, or in a container",
            format!("curl -si {url}/healthz"),
        ));
    };
    let user = match proof.host.user_name(process.uid) {
        // A dynamic user, whose name only systemd knows.
        number if number.parse::<u32>().is_ok() => format!("uid {number}"),
        name => name,
    };
    let as_whom = format!("{told}, process {} of {user}", process.pid);
    // A user's own lies in whatever unit the user was logged in by.
    let unit = process.unit.as_deref().filter(|_| layout::here().login.is_none());
    let by_us = unit == Some(UNIT) || (unit.is_none() && user == layout::here().account(USER));
    Ok(match process.uid {
        0 if by_us => Finding::fail(
            as_whom,
            "its unit was changed: the web app needs no right of root's",
            "redis-tp apply --overwrite && redis-tp service restart app",
        ),
        _ if by_us => Finding::pass(as_whom),
        _ => Finding::fail(
            as_whom,
            "it is not the service: somebody started it by hand",
            format!("kill {} && redis-tp service start app", process.pid),
        ),
    })
}

/// One in a container tells the container's own number; its engine knows better.
fn container(proof: &AppProof<'_>, program: Program, told: &str) -> Look {
    let facts = proof.subject.facts;
    let Some(process) = facts.app.pid.and_then(|pid| facts::about(proof.host, pid)) else {
        return Ok(Finding::fail(
            format!("{told} answers, and its container does not run"),
            "another one has its port",
            format!("{program} ps"),
        ));
    };
    match process.uid {
        0 if proof.host.euid() == 0 => Ok(Finding::fail(
            format!("{told}, process {} of root", process.pid),
            "its container was made by another hand: the web app needs no right of root's",
            "redis-tp app remove && redis-tp app install",
        )),
        uid => Ok(Finding::pass(format!("{told}, in a {program} container, uid {uid}"))),
    }
}

pub fn did_reads(proof: &AppProof<'_>) -> String {
    let name = proof.stored_as("reads").into_iter().next().unwrap_or_default();
    format!("SET {name} on the master, GET {}{}", url_word(proof), proof.path("reads"))
}

/// What is put into our Redis, it answers from the cache at once.
pub fn reads(proof: &mut AppProof<'_>) -> Look {
    let (url, section) = at(proof)?;
    let root = proof.root()?;
    // A master that was just started is found again within a moment; an app that never has one fails below.
    let _ = apply::app::master(proof.host, &url, apply::app::MOMENT);
    let (key, value) = (proof.key("reads"), proof.keys.clone());
    let name = format!("{}{key}", section.prefix.as_str());
    proof.servers.ask::<()>(&root, &["SET", &name, &value, "EX", "30"])?;
    proof.settle("reads");
    let limit = section.slow + PATIENCE;
    let Ok(answer) = http::get(proof.host, &url, &proof.path("reads"), limit) else {
        return Err(see("app-service"));
    };
    let logs = "redis-tp service logs app";
    let reply = match Reply::read(&answer, &key) {
        Ok(reply) => reply,
        Err(found) => return Ok(Finding::fail(found, "its log tells more", logs)),
    };
    Ok(match reply.is_cached() && reply.value == value {
        true => Finding::pass(format!("'cache' after {}, what was put on {root}", ms(reply.time))),
        false if reply.bypassed => {
            let found = format!("it passes the cache by: {}", word(&reply.source));
            Finding::fail(
                found,
                "it does not reach its Redis, or is not let in there; /readyz tells which",
                logs,
            )
        }
        false => Finding::fail(
            format!("{} from {}, and not what was put on {root}", word(&reply.value), word(&reply.source)),
            "it reads another Redis, or has another prefix: it was not restarted since that changed",
            "redis-tp apply && redis-tp service restart app",
        ),
    })
}
