//! `redis-tp bench`: cold against warm, with a picture.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Result;

use super::scene::Scene;
use crate::app::{Running, Settings};
use crate::bench::{Options, Pace, Report, Stage, measure};
use crate::cli;
use crate::exit::{Code, Fault};
use crate::host::Host;
use crate::http::{self, Trouble, Url};
use crate::report::progress::Spinner;
use crate::report::{bench, console, svg};
use crate::topology::Source;

/// How long the installed app may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// Measures, and shows the result.
///
/// # Errors
/// The app does not answer, or not by the contract; a picture cannot be written.
pub fn run(host: &Host, args: &cli::Bench) -> Result<Code> {
    host.catch_signals()?;
    host.many_files();
    let target = match &args.url {
        Some(url) => Target { url: url.clone(), _own: None },
        None => Target::here(host)?,
    };
    let concurrency = args.concurrency;
    let pace = args.rate.map_or(Pace::Closed { concurrency }, |rate| Pace::Open { rate, concurrency });
    let options = Options {
        url: target.url.clone(),
        pace,
        duration: Duration::from_secs(args.duration),
        keys: args.keys,
    };
    let mut spinner = Spinner::default();
    let report = measure(host, &options, &mut |stage| tell(&mut spinner, stage, &options))?;
    drop(spinner);
    show(args, &report)?;
    if let Some(file) = &args.svg {
        let path = std::path::absolute(file)?;
        host.report(&path, svg::bench(&report).as_bytes()).map_err(|error| {
            Fault::new(Code::Failed, format!("{error:#}"))
                .hint("give a file that can be written:\nredis-tp bench --svg bench.svg")
        })?;
    }
    Ok(Code::Done)
}

/// What is measured.
struct Target {
    url: Url,
    /// An app of our own, which runs for as long as it is measured.
    _own: Option<Running>,
}

impl Target {
    /// The app that is installed here if one listens, else one of our own in front of the same
    /// instances.
    fn here(host: &Host) -> Result<Self> {
        let scene = Scene::standing(host)?;
        if let Some(section) = &scene.topology.app {
            let url = Url::local(section.bind, section.port);
            let why = match section.source {
                Source::Simulated if http::get(host, &url, "/healthz", PATIENCE) != Err(Trouble::Refused) => {
                    return Ok(Self { url, _own: None });
                }
                Source::Simulated => format!("nobody listens at {url}"),
                Source::Sqlite(_) => format!("the table of {url} has no fresh keys"),
            };
            let note = console::styled(console::NOTE, "note:");
            console::err(format_args!("{note} {why}: measuring an app of our own"));
        }
        let mut section = scene.topology.app.clone().unwrap_or_default();
        section.bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
        section.port = 0;
        // A fresh key is in no table.
        section.source = Source::Simulated;
        let own = Running::start(host, Settings::of(&section, &scene.instances))?;
        let address = own.address();
        Ok(Self { url: Url::local(address.ip(), address.port()), _own: Some(own) })
    }
}

fn show(args: &cli::Bench, report: &Report) -> Result<()> {
    if args.json {
        return console::json(report);
    }
    if args.markdown {
        console::out(bench::markdown(report).trim_end());
        return Ok(());
    }
    console::out(bench::terminal(report).trim_end());
    let url = args.url.as_ref().map_or(String::new(), |url| format!(" --url {url}"));
    let picture = format!("redis-tp bench{url} --svg bench.svg");
    let rate = format!("redis-tp bench{url} --rate {}", half(report));
    console::next(&[(&picture, "a picture"), (&rate, "half the rate")]);
    Ok(())
}

/// Half of what the app answered a second, as a round number.
fn half(report: &Report) -> u64 {
    let half = (report.load.requests_per_second / 2.0).max(1.0) as u64;
    let unit = 10_u64.pow(half.ilog10().saturating_sub(1));
    half / unit * unit
}

/// Says what goes on, for eyes only.
fn tell(spinner: &mut Spinner, stage: Stage, options: &Options) {
    let message = match stage {
        Stage::Cold => format!("asking {} for a fresh key", options.url),
        Stage::Warming(keys) => format!("bringing {keys} keys into the cache"),
        Stage::Load(seconds) => format!("asking for {seconds} s"),
        Stage::Cool(count) => {
            spinner.stop();
            let text = format!("{count} of {} keys did not get into the cache", options.keys);
            return console::err(format_args!("{} {text}", console::styled(console::NOTE, "note:")));
        }
    };
    spinner.spin(message, "{spinner} {msg} {elapsed}");
}
