//! Numbers and lines as people read them.

use std::time::Duration;

/// How wide a terminal is taken to be, in columns.
pub const WIDTH: usize = 80;

/// A size in bytes: `912 B`, `1.2 MiB`, `34 GiB`.
pub fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64 / 1024.0;
    for unit in units {
        if size < 9.95 {
            return match bytes {
                0..1024 => format!("{bytes} B"),
                _ => format!("{size:.1} {unit}"),
            };
        }
        if size < 1023.5 {
            return format!("{size:.0} {unit}");
        }
        size /= 1024.0;
    }
    format!("{size:.0} PiB")
}

/// A time in seconds: `42 s`, `3 min`, `5 h`, `12 d`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// A time that something took: `0.4 ms`, `120 ms`, `2.0 s`.
pub fn took(time: Duration) -> String {
    match time.as_secs_f64() * 1e3 {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

/// A time to three digits: `0.042 ms`, `1.23 ms`, `45.6 ms`, `2.01 s`.
pub fn precise(time: Duration) -> String {
    match time.as_secs_f64() * 1e3 {
        ms if ms < 0.9995 => format!("{ms:.3} ms"),
        ms if ms < 9.995 => format!("{ms:.2} ms"),
        ms if ms < 99.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 99_950.0 => format!("{:.2} s", ms / 1e3),
        ms => format!("{:.0} s", ms / 1e3),
    }
}

/// An edge of a histogram, without digits that say nothing: `0.15 ms`, `20 ms`, `1.5 s`.
pub fn edge(time: Duration) -> String {
    match time.as_secs_f64() {
        // Rounded to what an edge can be: f64 prints no more digits than it needs.
        seconds if seconds < 1.0 => format!("{} ms", (seconds * 1e9).round() / 1e6),
        seconds => format!("{seconds} s"),
    }
}

/// A count with a blank between thousands: `1 234 567`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// How many times faster: `4 870`, or `3.2` where that matters.
pub fn times(factor: f64) -> String {
    if factor < 9.95 { format!("{factor:.1}") } else { grouped(factor.round() as u64) }
}

/// A bar of block characters, an eighth of a column exact; what is more than nothing is seen.
pub fn bar(share: f64, width: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { 0 };
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied().unwrap_or_default();
    "█".repeat(eighths / 8) + rest
}

/// Breaks a text between words into lines of at most `width` columns; a longer word stays whole, for
/// half a path or half a command serves nobody. Its own line breaks stay.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && columns(&line) + 1 + columns(word) > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// How many columns a text takes, as long as it has no wide characters.
pub fn columns(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_change_their_unit_in_the_right_place() {
        let sizes = [0, 1023, 1024, 10188, 10189, 1_048_063, 1_048_064, 1_258_291, 1 << 40];
        let shown =
            ["0 B", "1023 B", "1.0 KiB", "9.9 KiB", "10 KiB", "1023 KiB", "1.0 MiB", "1.2 MiB", "1.0 TiB"];
        assert_eq!(sizes.map(bytes), shown);
        let spans = [0, 59, 60, 3599, 3600, 172_799, 172_800];
        assert_eq!(spans.map(span), ["0 s", "59 s", "1 min", "59 min", "1 h", "47 h", "2 d"]);
        let times = [40, 9_960, 999_400, 2_000_000].map(Duration::from_micros);
        assert_eq!(times.map(took), ["0.0 ms", "10 ms", "999 ms", "2.0 s"]);
    }

    #[test]
    fn figures_have_as_many_digits_as_they_need() {
        let times = [42, 1_234, 45_600, 2_006_000, 120_000_000].map(Duration::from_micros);
        assert_eq!(times.map(precise), ["0.042 ms", "1.23 ms", "45.6 ms", "2.01 s", "120 s"]);
        let edges = [15, 1_200, 20_000, 1_500_000].map(Duration::from_micros);
        assert_eq!(edges.map(edge), ["0.015 ms", "1.2 ms", "20 ms", "1.5 s"]);
        assert_eq!([7, 1234, 1_234_567].map(grouped), ["7", "1 234", "1 234 567"]);
    }

    #[test]
    fn a_bar_is_never_longer_than_it_may_be_and_never_lost() {
        assert_eq!([0.0, 1e-6, 0.5, 1.0, 7.0].map(|share| bar(share, 2)), ["", "▏", "█", "██", "██"]);
    }

    #[test]
    fn no_word_is_torn() {
        assert_eq!(wrap("a bb ccc\nd", 4), ["a bb", "ccc", "d"]);
        assert_eq!(wrap("/a/long/path b", 4), ["/a/long/path", "b"]);
    }
}
