//! A line a step, with its time, as a run goes on; on a terminal a spinner for steps that take long.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::console::{self, FAINT, GOOD, NOTE, styled};
use crate::apply::Event;

/// Shows a run's events on stderr.
#[derive(Debug)]
pub struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    /// Shows events, to eyes or to a log.
    pub fn new() -> Self {
        Self { spinner: None }
    }

    /// Takes an event.
    pub fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Begin(step) => self.spin(step.describe()),
            Event::Done(step, time) => {
                self.stop();
                let time = styled(FAINT, format_args!("{:>8}", human(*time)));
                console::err(format_args!("{} {time}  {}", styled(GOOD, "✓"), step.describe()));
            }
            Event::Waiting(what) => {
                if let Some(spinner) = &self.spinner {
                    spinner.set_message((*what).to_owned());
                }
                if !console::is_watched() {
                    console::err(format_args!("  {what}"));
                }
            }
            Event::Undoing(_) => {
                self.stop();
                // What went wrong is said at the end, where it is looked for.
                console::err(format_args!("{} that failed; undoing what was done", styled(NOTE, "✗")));
                self.spin("undoing what was done".into());
            }
        }
    }

    fn spin(&mut self, message: String) {
        self.stop();
        if console::is_watched() {
            let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            // The first picture comes with the first tick: what takes less than that shows none.
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

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
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
