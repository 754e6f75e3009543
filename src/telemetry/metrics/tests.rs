//! What holds the table of metrics together, and the README to it.

use std::fmt::Write as _;

use super::*;

#[test]
fn names_follow_the_convention() {
    let mut names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TABLE.len(), "a name stands twice");
    for row in TABLE {
        let plain = row.name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let is_ours = row.name.starts_with("hearth_") || row.name.starts_with("process_");
        assert!(plain && is_ours, "{}", row.name);
        assert!(!row.help.trim().is_empty(), "{} says nothing", row.name);
        assert!(!row.worry.is_empty(), "{} does not say when to worry", row.name);
        assert_eq!(row.kind == Kind::Counter, row.name.ends_with("_total"), "{}", row.name);
        let counted = row.name.trim_end_matches("_total");
        assert_eq!(matches!(row.unit, Unit::Seconds), counted.ends_with("_seconds"), "{}", row.name);
        assert_eq!(matches!(row.unit, Unit::Bytes), counted.ends_with("_bytes"), "{}", row.name);
        assert_eq!(row.kind == Kind::Histogram, !row.buckets.is_empty(), "{}", row.name);
    }
}

/// Most series of one metric, as the table bounds them: a scrape must stay small whatever clients do.
const SERIES_MAX: usize = 5_000;

#[test]
fn no_label_takes_what_clients_choose() {
    for row in TABLE {
        let mut series = row.buckets.len().max(1);
        for (label, values) in row.labels {
            assert!(!["player", "session", "room", "device", "ip", "key"].contains(label), "{}", row.name);
            assert!(row.help.contains(&format!("`{label}`")), "{} does not tell of {label}", row.name);
            match values {
                Of(values) => {
                    let mut each = values.to_vec();
                    each.sort_unstable();
                    each.dedup();
                    assert!(!each.is_empty() && each.len() == values.len(), "{} {label}", row.name);
                }
                AtMost(most, what) => assert!(*most > 0 && !what.is_empty(), "{} {label}", row.name),
            }
            // And `other`.
            series *= values.most() + 1;
        }
        assert!(series <= SERIES_MAX, "{} may have {series} series", row.name);
    }
}

#[test]
fn what_is_recorded_is_rendered() {
    let recorder = builder().expect("a good table").build_recorder();
    let exporter = recorder.handle();
    let recorded = metrics::with_local_recorder(&recorder, || {
        describe();
        LINKS_OPEN.handle().set(3.0);
        let commands = COMMANDS.by("op", &["state.patch", "ping"], &[("outcome", "ok")]);
        commands.of("state.patch").increment(2);
        commands.of("no.such.op").increment(1);
        ACK_SECONDS.with(&[("level", "durable")]).record(0.003);
        Recorded { exporter, process: Arc::new(Process::new()), counts: true }
    });
    recorded.upkeep();
    let text = recorded.render();
    for line in [
        "# TYPE hearth_links_open gauge",
        "# HELP hearth_links_open Links that are open, each of a session.",
        "hearth_links_open 3",
        "hearth_commands_total{outcome=\"ok\",op=\"state.patch\"} 2",
        "hearth_commands_total{outcome=\"ok\",op=\"other\"} 1",
        "hearth_ack_seconds_bucket{level=\"durable\",le=\"0.002\"} 0",
        "hearth_ack_seconds_bucket{level=\"durable\",le=\"0.005\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn what_was_seen_of_the_process_is_rendered_without_another_look() {
    let recorder = builder().expect("a good table").build_recorder();
    let exporter = recorder.handle();
    let process = metrics::with_local_recorder(&recorder, Process::new);
    let recorded = Recorded { exporter, process: Arc::new(process), counts: true };
    let seen = Now { memory_bytes: Some(4_321), threads: Some(7), ..Now::default() };
    let text = recorded.render_with(&seen);
    for line in ["process_resident_memory_bytes 4321", "process_threads 7"] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_process_has_one_recorder() {
    let (one, other) = (install().expect("a recorder"), install().expect("the same"));
    let build = concat!("hearth_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1");
    assert!(!Recorded::nothing().counts());
    for recorded in [one, other] {
        assert!(recorded.counts());
        assert!(recorded.render().contains(build), "{}", recorded.render());
    }
}

const BEGINS: &str = "<!-- metrics: `UPDATE_METRICS=1 cargo test readme_shows` writes this from src/telemetry/metrics.rs -->\n";
const ENDS: &str = "<!-- /metrics -->\n";

#[test]
fn readme_shows_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("README.md");
    let (before, rest) = readme.split_once(BEGINS).expect("where the metrics begin");
    let (shown, after) = rest.split_once(ENDS).expect("where the metrics end");
    if std::env::var_os("UPDATE_METRICS").is_some() {
        std::fs::write(path, [before, BEGINS, &shown_table(), ENDS, after].concat())
            .expect("write README.md");
        return;
    }
    assert!(shown == shown_table(), "README.md is stale: run `UPDATE_METRICS=1 cargo test readme_shows`");
}

/// The table as README has it. A blank line on either side, or Markdown within `<details>` is not read as such.
fn shown_table() -> String {
    let mut out =
        String::from("\n| metric | kind | what it says | look at it when |\n| --- | --- | --- | --- |\n");
    for row in TABLE {
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let unit = match row.unit {
            Unit::Seconds => ", s",
            Unit::Bytes => ", bytes",
            _ => "",
        };
        let (name, help, worry) = (row.name, row.help.trim(), row.worry);
        let _ = writeln!(out, "| `{name}` | {kind}{unit} | {help} | {worry} |");
    }
    out.push('\n');
    out
}
