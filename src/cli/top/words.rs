//! What numbers, times and alarms are called on a terminal, in the console's words, and how much of that has room. Pure;
//! what is not known is a dash, never a zero.

use ratatui::text::Span;

/// What is not known.
pub(super) const UNKNOWN: &str = "–";

/// Columns that it takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// As much of it as fits into so many columns; where that is not all, it ends with a sign.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (mut kept, mut taken) = (String::new(), 0);
    for c in text.chars() {
        taken += width(c.encode_utf8(&mut [0; 4]));
        if taken + 1 > columns {
            break;
        }
        kept.push(c);
    }
    if columns > 0 {
        kept.push('…');
    }
    kept
}

/// Lines of at most so many columns, broken between words where there are any.
pub(super) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(cut(word, columns)),
        }
    }
    lines
}

/// Filled up to so many columns, on the side that numbers are not at.
pub(super) fn padded(text: &str, columns: usize, is_number: bool) -> String {
    let text = cut(text, columns);
    let gap = " ".repeat(columns.saturating_sub(width(&text)));
    if is_number { gap + &text } else { text + &gap }
}

/// `12,345`
pub(super) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 node`, `2 nodes`
pub(super) fn many(number: usize, one: &str, more: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { more })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shown; a float that is too large saturates"
)]
fn whole(value: f64) -> usize {
    value.max(0.0).round() as usize
}

/// How often a second.
pub(super) fn rate(value: f64) -> String {
    if value < 10.0 && value.fract() != 0.0 { format!("{value:.1}") } else { count(whole(value)) }
}

/// A time that something takes, given in ms.
pub(super) fn span(ms: f64) -> String {
    match ms {
        0.0 => "0 ms".to_owned(),
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 10_000.0 => format!("{:.1} s", ms / 1_000.0),
        ms => duration(u64::try_from(whole(ms)).unwrap_or(u64::MAX)),
    }
}

/// A time that has passed, given in ms.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) if minutes < 10 && !seconds.is_multiple_of(60) => {
            format!("{minutes} min {} s", seconds % 60)
        }
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) if !minutes.is_multiple_of(60) => format!("{hours} h {} min", minutes % 60),
        (0, hours, _) => format!("{hours} h"),
        (days, hours, _) if !hours.is_multiple_of(24) => format!("{days} d {} h", hours % 24),
        (days, ..) => format!("{days} d"),
    }
}

/// The time of day (UTC) of a moment given in Unix ms.
pub(super) fn clock(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// `128 MiB`
pub(super) fn bytes(number: f64) -> String {
    let (mut value, mut unit) = (number, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value >= 1_024.0 {
            (value, unit) = (value / 1_024.0, larger);
        }
    }
    if unit != "B" && value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// `12 %`
pub(super) fn percent(value: f64) -> String {
    if value < 10.0 { format!("{value:.1} %") } else { format!("{value:.0} %") }
}

/// A value of an alarm, in its unit.
pub(super) fn measure(value: f64, unit: &str) -> String {
    match unit {
        "seconds" | "s" => span(value * 1_000.0),
        "milliseconds" | "ms" => span(value),
        "ratio" | "share" => percent(value * 100.0),
        "percent" | "%" => percent(value),
        "bytes" => bytes(value),
        "per_second" | "1/s" => format!("{}/s", rate(value)),
        "" => rate(value),
        unit => format!("{} {}", rate(value), unit.replace('_', " ")),
    }
}

/// What an alarm is called; what is not known here is called by its own name.
pub(super) fn named(alarm: &str) -> String {
    let known = match alarm {
        "error_rate" => "Calls fail",
        "latency" => "Answers are slow",
        "traffic" => "Traffic has jumped",
        "store_slow" => "The store is slow",
        "store_down" => "The store does not answer",
        "hot_room" => "One room makes most of the traffic",
        "login_flood" => "A flood of logins",
        "slow_readers" => "Clients read too slowly",
        "session_leak" => "Sessions pile up",
        "node_lost" => "A node has vanished",
        "lease_lost" => "Leases were lost",
        "mail_lag" => "Letters between nodes are late",
        "bad_client" => "A client speaks nonsense",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    let plain = alarm.replace('_', " ");
    let mut rest = plain.chars();
    rest.next().map_or_else(|| "An alarm".to_owned(), |first| first.to_uppercase().chain(rest).collect())
}

/// Numbers in order, as ranges: `1, 4–7`.
pub(super) fn ranges(numbers: &[u16]) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let told = runs
        .into_iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}–{last}") });
    told.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_takes_as_many_columns_as_it_may() {
        assert_eq!((cut("harbour", 7).as_str(), cut("harbour", 5).as_str()), ("harbour", "harb…"));
        // Each of these takes two.
        assert_eq!((cut("港町の酒場", 6).as_str(), cut("港", 0).as_str()), ("港町…", ""));
        assert_eq!((padded("港町", 6, false), padded("7", 3, true)), ("港町  ".to_owned(), "  7".to_owned()));
        assert_eq!(wrapped("one two  three elephants", 9), ["one two", "three", "elephants"]);
        assert_eq!(wrapped("elephants", 4), ["ele…"]);
    }

    #[test]
    fn numbers_are_said_as_in_the_console() {
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!([3.0, 3.25, 12_345.6].map(rate), ["3", "3.2", "12,346"]);
        assert_eq!(
            [0.0, 0.125, 1.25, 12.5, 1_250.0, 65_000.0].map(span),
            ["0 ms", "0.12 ms", "1.2 ms", "12 ms", "1.2 s", "1 min 5 s"]
        );
        let minute = 60_000;
        assert_eq!(
            [0, minute + 3_000, 11 * minute, 61 * minute, 26 * 60 * minute].map(duration),
            ["0 s", "1 min 3 s", "11 min", "1 h 1 min", "1 d 2 h"]
        );
        assert_eq!([512.0, 2_048.0, 134_217_728.0].map(bytes), ["512 B", "2.0 KiB", "128 MiB"]);
        assert_eq!(
            (measure(0.5, "ratio"), measure(1.2, "seconds"), measure(2.0, "")),
            ("50 %".into(), "1.2 s".into(), "2".into())
        );
        assert_eq!(
            (named("store_down"), named("new_thing")),
            ("The store does not answer".into(), "New thing".into())
        );
        assert_eq!(
            (clock(1_700_000_000_000), ranges(&[1, 4, 5, 6, 65_535])),
            ("22:13:20".into(), "1, 4–6, 65535".into())
        );
    }
}
