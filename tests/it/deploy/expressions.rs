//! Which metrics and labels a text of PromQL names, and whether the table of metrics has them: as much of the language as
//! that takes.

use std::collections::BTreeSet;

use hearth::telemetry::metrics::{self, Kind, Row, Values};

/// Labels that Prometheus gives to what it scrapes, and to alerts.
const OF_PROMETHEUS: [&str; 5] = ["job", "instance", "alertname", "alertstate", "severity"];
/// What a histogram is shown as.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// The row that a series is of; whether it is one of a histogram's buckets.
pub(crate) fn row_of(series: &str) -> Option<(&'static Row, bool)> {
    if let Some(row) = metrics::row(series) {
        return (row.kind != Kind::Histogram).then_some((row, false));
    }
    let (row, suffix) =
        SUFFIXES.iter().find_map(|suffix| Some((metrics::row(series.strip_suffix(suffix)?)?, *suffix)))?;
    (row.kind == Kind::Histogram).then_some((row, suffix == "_bucket"))
}

/// Whether a label of a row can be this.
pub(crate) fn admits(row: &Row, label: &str, value: &str) -> bool {
    let declared = row.labels.iter().find(|(name, _)| *name == label);
    declared.is_some_and(|(_, values)| value == "other" || values.admit(value))
}

/// What is wrong with each metric that the text names.
pub(crate) fn faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, selector) in named(text) {
        let Some((row, is_bucket)) = row_of(&name) else {
            faults.push(format!("there is no series {name}"));
            continue;
        };
        for (label, operator, value) in matchers(selector.unwrap_or_default()) {
            if OF_PROMETHEUS.contains(&label.as_str()) || (is_bucket && label == "le") {
                continue;
            }
            match row.labels.iter().find(|(known, _)| *known == label) {
                None => faults.push(format!("{name} has no label {label}")),
                Some((_, Values::Of(_))) => {
                    let each: Vec<&str> =
                        if operator.ends_with('~') { value.split('|').collect() } else { vec![&value] };
                    let unknown = each.into_iter().filter(|value| !admits(row, &label, value));
                    faults.extend(unknown.map(|value| format!("{name}'s {label} is never {value}")));
                }
                Some((_, Values::AtMost(..))) => {}
            }
        }
    }
    let known: BTreeSet<&str> =
        metrics::table().iter().flat_map(|row| row.labels).map(|(label, _)| *label).collect();
    for label in grouped(text) {
        if label != "le" && !OF_PROMETHEUS.contains(&label.as_str()) && !known.contains(label.as_str()) {
            faults.push(format!("nothing has a label {label}"));
        }
    }
    faults
}

/// The names of metrics in a text, each with what stands in the braces behind it.
pub(crate) fn named(text: &str) -> Vec<(String, Option<&str>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_word) {
        let end = rest[at..].find(|c| !is_word(c)).map_or(rest.len(), |length| at + length);
        let word = &rest[at..end];
        rest = &rest[end..];
        if word.starts_with("hearth_") || word.starts_with("process_") {
            let inside = rest.strip_prefix('{').and_then(|inside| Some(&inside[..closing(inside)?]));
            found.push((word.to_owned(), inside));
        }
    }
    found
}

/// Where the brace ends that has been opened; braces in quotes are none.
fn closing(inside: &str) -> Option<usize> {
    let mut is_quoted = false;
    inside.find(|c| {
        is_quoted ^= c == '"';
        c == '}' && !is_quoted
    })
}

/// `label`, operator and value of each matcher in a selector.
fn matchers(selector: &str) -> Vec<(String, String, String)> {
    let mut rest = selector;
    let mut found = Vec::new();
    while let Some((before, behind)) = rest.split_once('"') {
        let Some((value, next)) = behind.split_once('"') else { break };
        let before = before.trim_start_matches([',', ' ']);
        let at = before.find(['=', '!']).expect("an operator");
        found.push((before[..at].trim().to_owned(), before[at..].trim().to_owned(), value.to_owned()));
        rest = next;
    }
    found
}

/// The labels by which a text groups or joins.
fn grouped(text: &str) -> Vec<String> {
    let lists = ["by (", "on (", "without ("].into_iter().flat_map(|word| text.split(word).skip(1));
    let lists = lists.filter_map(|behind| Some(behind.split_once(')')?.0));
    lists.flat_map(|list| list.split(',')).map(|label| label.trim().to_owned()).collect()
}

#[test]
fn a_wrong_name_label_or_value_is_found_and_a_good_one_is_not() {
    let good = r#"sum by (job, instance, le) (rate(hearth_commit_seconds_bucket{job=~"h.*",outcome="done",le="1"}[2m])) > 1
        and on (job) hearth_links_open offset 5m or process_open_fds{instance="a"} > 0"#;
    assert_eq!(faults(good), Vec::<String>::new());
    for (text, fault) in [
        ("hearth_linkz_open > 1", "there is no series hearth_linkz_open"),
        ("rate(hearth_commit_seconds[2m])", "there is no series hearth_commit_seconds"),
        ("hearth_links_open_sum", "there is no series hearth_links_open_sum"),
        (r#"hearth_links_open{player="ann"}"#, "hearth_links_open has no label player"),
        (r#"hearth_commits_total{outcome=~"done|unkown"}"#, "hearth_commits_total's outcome is never unkown"),
        (r#"hearth_commit_seconds_sum{le="1"}"#, "hearth_commit_seconds_sum has no label le"),
        ("sum by (instanze) (hearth_links_open)", "nothing has a label instanze"),
    ] {
        assert_eq!(faults(text), [fault], "{text}");
    }
}
