//! What was measured, as a table: medians, extremes, and how the program compares with each rival.

use std::time::Duration;

/// The program's times, with those of its rivals, measured in the same rounds.
pub struct Row {
    title: String,
    goal: &'static str,
    ours: (String, Vec<Duration>),
    rivals: Vec<(String, Vec<Duration>)>,
}

impl Row {
    pub fn new(title: &str, goal: &'static str, command: &str, times: Vec<Duration>) -> Self {
        Self { title: title.into(), goal, ours: (command.into(), times), rivals: Vec::new() }
    }

    /// Adds a rival.
    pub fn beside(mut self, name: &str, times: Vec<Duration>) -> Self {
        self.rivals.push((name.into(), times));
        self
    }

    /// Prints the row as soon as it is known: the whole takes minutes.
    pub fn print(&self) {
        let (name, ours) = &self.ours;
        println!("\n{} ({} runs; goal: {})", self.title, ours.len(), self.goal);
        println!("  {}", cells(name, ours).trim_end());
        for (name, theirs) in &self.rivals {
            let pairs = || ours.iter().zip(theirs).map(|(ours, theirs)| (seconds(ours), seconds(theirs)));
            let more = median(pairs().map(|(ours, theirs)| ours - theirs).collect());
            let ratio = median(pairs().map(|(ours, theirs)| ours / theirs).collect());
            let sign = if more < 0.0 { '-' } else { '+' };
            println!("  {}   ours: {sign}{}, x {ratio:.2}", cells(name, theirs), human(more.abs()));
        }
    }
}

fn cells(name: &str, times: &[Duration]) -> String {
    let times: Vec<f64> = times.iter().map(seconds).collect();
    let (min, max) =
        times.iter().fold((f64::MAX, 0.0_f64), |(min, max), time| (min.min(*time), max.max(*time)));
    let range = format!("{}–{}", human(min), human(max));
    format!("{name:<34} {:>9}   {range:<19}", human(median(times)))
}

fn seconds(time: &Duration) -> f64 {
    time.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Seconds in the unit that fits them.
fn human(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.1 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

/// How busy this machine is, to judge the figures by.
pub fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    format!("load average {load} on {processors} processors")
}
