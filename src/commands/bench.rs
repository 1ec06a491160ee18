//! `redis-tp bench`: cold against warm, with a picture.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::scene::Scene;
use crate::bench::{Options, Pace, Report, Stage, measure};
use crate::cli;
use crate::exit::{Code, Fault};
use crate::host::Host;
use crate::http::{self, Trouble, Url};
use crate::report::{bench, console, svg};

/// How long the installed app may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// Measures, and shows the result.
///
/// # Errors
/// The app does not answer, or not by the contract; a picture cannot be written.
pub fn run(host: &Host, args: &cli::Bench) -> Result<Code> {
    host.catch_signals()?;
    let url = match &args.url {
        Some(url) => url.clone(),
        None => installed(host)?,
    };
    let concurrency = args.concurrency;
    let pace = args.rate.map_or(Pace::Closed { concurrency }, |rate| Pace::Open { rate, concurrency });
    let options = Options { url, pace, duration: Duration::from_secs(args.duration), keys: args.keys };
    let mut progress = Progress { spinner: None };
    let report = measure(host, &options, &mut |stage| progress.tell(stage, &options))?;
    drop(progress);
    if let Some(file) = &args.svg {
        host.report(&std::path::absolute(file)?, svg::bench(&report).as_bytes())?;
    }
    show(args, &report)?;
    Ok(Code::Done)
}

/// The app of this machine, if it answers.
fn installed(host: &Host) -> Result<Url> {
    let scene = Scene::standing(host)?;
    let section = scene.topology.app.clone().unwrap_or_default();
    let url = Url::local(section.bind, section.port);
    match http::get(host, &url, "/healthz", PATIENCE) {
        Err(Trouble::Refused) => Err(Fault::refused(format!("the web app does not answer at {url}"))
            .hint("start it, or give another:\nredis-tp app serve\nredis-tp bench --url URL")
            .into()),
        _ => Ok(url),
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
    console::next(&[(&picture, "a picture"), (&rate, "at half the rate")]);
    Ok(())
}

/// Half of what the app answered a second, as a round number.
fn half(report: &Report) -> u64 {
    let half = (report.load.requests_per_second / 2.0).max(1.0) as u64;
    let unit = 10_u64.pow(half.ilog10().saturating_sub(1));
    half / unit * unit
}

/// What goes on, for eyes only.
struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    fn tell(&mut self, stage: Stage, options: &Options) {
        let message = match stage {
            Stage::Cold => format!("asking {} for a fresh key", options.url),
            Stage::Warming(keys) => format!("bringing {keys} keys into the cache"),
            Stage::Load(seconds) => format!("asking for {seconds} s"),
            Stage::Cool(count) => {
                self.stop();
                let text = format!("{count} of {} keys did not get into the cache", options.keys);
                return console::err(format_args!("{} {text}", console::styled(console::NOTE, "note:")));
            }
        };
        self.stop();
        if console::is_watched() {
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            spinner.set_style(style);
            let spinner = spinner.with_message(message);
            spinner.enable_steady_tick(Duration::from_millis(100));
            self.spinner = Some(spinner);
        }
    }

    fn stop(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.stop();
    }
}
