//! A line a step, with its time, as a run goes on; on a terminal a spinner for steps that take long.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::console::{self, FAINT, GOOD, NOTE, styled};
use crate::apply::Event;

/// How a step is shown while it goes on.
const SPINNER: &str = "{spinner} {msg}";

/// Shows a run's events on stderr.
#[derive(Debug)]
pub struct Progress {
    spinner: Spinner,
}

impl Progress {
    /// Shows events, to eyes or to a log.
    pub fn new() -> Self {
        Self { spinner: Spinner::default() }
    }

    /// Takes an event.
    pub fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Begin(step) => self.spinner.spin(step.describe(), SPINNER),
            Event::Done(step, time) => {
                self.spinner.stop();
                let time = styled(FAINT, format_args!("{:>8}", human(*time)));
                console::err(format_args!("{} {time}  {}", styled(GOOD, "✓"), step.describe()));
            }
            Event::Waiting(what) => {
                self.spinner.say(what);
                if !console::is_watched() {
                    console::err(format_args!("  {what}"));
                }
            }
            Event::Undoing(_) => {
                self.spinner.stop();
                // What went wrong is said at the end, where it is looked for.
                console::err(format_args!("{} that failed; undoing what was done", styled(NOTE, "✗")));
                self.spinner.spin("undoing what was done".into(), SPINNER);
            }
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Says on a terminal what goes on; gone when it is dropped.
#[derive(Debug, Default)]
pub struct Spinner(Option<ProgressBar>);

impl Spinner {
    /// Shows a message, as a template of indicatif's has it.
    pub fn spin(&mut self, message: String, template: &str) {
        self.stop();
        if console::is_watched() {
            let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
            // The first picture comes with the first tick: what takes less than that shows none.
            spinner.set_style(style);
            let spinner = spinner.with_message(message);
            spinner.enable_steady_tick(Duration::from_millis(100));
            self.0 = Some(spinner);
        }
    }

    /// Shows another message, if one is shown.
    pub fn say(&self, message: &str) {
        if let Some(spinner) = &self.0 {
            spinner.set_message(message.to_owned());
        }
    }

    /// Takes it off the screen.
    pub fn stop(&mut self) {
        if let Some(spinner) = self.0.take() {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A time in the unit that fits it.
pub fn human(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.0995 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}
