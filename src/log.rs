//! What a server's log tells: which of its lines say what went wrong, and what they say without the
//! time and the advice that every start writes.

/// The advice about the kernel's settings that a server gives at every start.
const ADVICE: [&str; 3] = ["Memory overcommit must be enabled", "TCP backlog setting", "Transparent Huge"];

/// Words of a line that says what went wrong.
const TROUBLE: [&str; 9] =
    ["error", "fail", "denied", "no space", "can't", "cannot", "unable", "read-only", "wrongpass"];

/// At most `count` lines up to the last one that says what went wrong, or else the last ones.
pub fn telling(text: &str, count: usize) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty() && !is_advice(line)).collect();
    let end = lines.iter().rposition(|line| is_trouble(line)).map_or(lines.len(), |at| at + 1);
    lines.get(end.saturating_sub(count)..end).unwrap_or_default().to_vec()
}

/// A line without process, time and level: `322:M 22 Nov 2026 09:44:23.750 # Can't load module`.
pub fn message(line: &str) -> &str {
    let logged = line.split_once(':').is_some_and(|(pid, _)| pid.parse::<u32>().is_ok());
    let level = [" # ", " * ", " - ", " . "].into_iter().filter_map(|level| line.find(level)).min();
    match level.filter(|_| logged) {
        Some(at) => line.get(at + 3..).unwrap_or(line),
        None => line,
    }
}

fn is_advice(line: &str) -> bool {
    ADVICE.iter().any(|advice| line.contains(advice))
}

fn is_trouble(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    TROUBLE.iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_that_tell_are_found_behind_those_that_follow() {
        let log = "1:S 22 Nov 2026 09:44:23.750 * MASTER <-> REPLICA sync started\n\
            1:S 22 Nov 2026 09:44:23.751 # Write error: No space left on device\n\
            1:S 22 Nov 2026 09:44:24.750 * MASTER <-> REPLICA sync started\n";
        assert_eq!(telling(log, 1).len(), 1);
        assert_eq!(message(telling(log, 1)[0]), "Write error: No space left on device");
    }

    #[test]
    fn advice_about_the_kernel_is_no_trouble_of_ours() {
        let log = "1:M 22 Nov 2026 09:44:23.750 # Can't load module\n\
            1:M 22 Nov 2026 09:44:23.751 # WARNING Memory overcommit must be enabled! it can fail\n";
        assert_eq!(telling(log, 4).len(), 1);
        assert_eq!(message("no time: here # at all"), "no time: here # at all");
    }
}
