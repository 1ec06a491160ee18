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
    fn no_word_is_torn() {
        assert_eq!(wrap("a bb ccc\nd", 4), ["a bb", "ccc", "d"]);
        assert_eq!(wrap("/a/long/path b", 4), ["/a/long/path", "b"]);
    }
}
