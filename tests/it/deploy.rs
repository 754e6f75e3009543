//! What is given to those who run nodes holds: alert rules on metrics as real servers show them, beside healthy ones; a
//! dashboard whose every expression is one; and no metric, label or value in them that the table does not have. Prometheus'
//! own `promtool` judges; a missing one is a loud failure.

mod expressions;
mod faults;
mod recording;
mod shown;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use hearth::telemetry::metrics;
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/deploy");

fn rules_file() -> PathBuf {
    PathBuf::from(FOLDER).join("alerts.yml")
}

fn text_of(name: &str) -> String {
    std::fs::read_to_string(PathBuf::from(FOLDER).join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs it, and fails with what it says if it does.
fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(FOLDER)
        .output()
        .expect("promtool is missing: apt-get install prometheus (tests/run does)");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
}

/// The files of tests that are in the repository.
fn kept_tests() -> Vec<String> {
    let files = std::fs::read_dir(PathBuf::from(FOLDER).join("tests")).unwrap();
    let names = files.map(|file| format!("tests/{}", file.unwrap().file_name().into_string().unwrap()));
    let names: Vec<_> = names.filter(|name| name.ends_with(".yml")).collect();
    assert!(names.len() > 1, "{names:?}");
    names
}

/// One alert, as its rule is written down.
struct Alert {
    name: String,
    text: String,
    expression: String,
}

/// What the rules hold; their indentation is what tells where one thing ends.
fn alerts() -> Vec<Alert> {
    let rules = text_of("alerts.yml");
    let each = rules.split("      - alert: ").skip(1);
    let alert = |text: &str| {
        let (name, body) = text.split_once('\n').unwrap();
        let (_, from) = body.split_once("        expr: ").expect("an expression");
        let end =
            from.match_indices('\n').map(|(at, _)| at + 1).find(|at| !from[*at..].starts_with("          "));
        let expression = from[..end.unwrap_or(from.len())].trim_start_matches(">-");
        Alert {
            name: name.trim().to_owned(),
            text: body.to_owned(),
            expression: expression.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    };
    each.map(alert).collect()
}

#[test]
fn the_rules_and_the_scrape_are_good_and_fire_on_what_they_are_for() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "alerts.yml"]);
    let tests = kept_tests();
    let arguments: Vec<&str> =
        ["test", "rules"].into_iter().chain(tests.iter().map(String::as_str)).collect();
    promtool(&arguments);
}

#[test]
fn every_alert_says_what_to_do_and_is_made_to_fire() {
    let alerts = alerts();
    assert!(alerts.len() > 30, "{}", alerts.len());
    let played: String = kept_tests().iter().map(|name| text_of(name)).collect();
    let headings: BTreeSet<String> = include_str!("../../README.md")
        .lines()
        .filter_map(|line| {
            Some(line.strip_prefix('#')?.trim_matches(['#', ' ']).to_lowercase().replace(' ', "-"))
        })
        .collect();
    for Alert { name, text, .. } in &alerts {
        assert!(name.starts_with("Hearth"), "{name}");
        let severity = text.split_once("labels: { severity: ").and_then(|(_, rest)| rest.split_once(" }"));
        assert!(severity.is_some_and(|(severity, _)| ["critical", "warning"].contains(&severity)), "{name}");
        for word in ["summary: ", "description: "] {
            assert!(text.contains(word), "{name} has no {word}");
        }
        let (_, runbook) =
            text.split_once("runbook_url: https://github.com/hearth-server/hearth#").expect(name);
        let anchor = runbook.split_whitespace().next().unwrap();
        assert!(headings.contains(anchor), "{name}: README has no heading {anchor}");
        assert!(played.contains(&format!("alertname=\"{name}\"")), "nothing makes {name} fire");
    }
}

#[test]
fn rules_dashboard_and_their_tests_name_only_what_is_measured() {
    for Alert { name, expression, .. } in alerts() {
        assert_eq!(expressions::faults(&expression), Vec::<String>::new(), "{name}: {expression}");
    }
    for name in kept_tests() {
        assert_eq!(expressions::faults(&text_of(&name)), Vec::<String>::new(), "{name}");
    }
    for expression in dashboard_expressions() {
        assert_eq!(expressions::faults(&expression), Vec::<String>::new(), "{expression}");
    }
    // What is told to people may name a histogram as a whole.
    for (name, _) in expressions::named(&text_of("alerts.yml")) {
        let is_there = metrics::row(&name).is_some() || expressions::row_of(&name).is_some();
        assert!(is_there, "there is no metric {name}");
    }
}

#[test]
fn settings_that_are_named_are_there() {
    let manual = include_str!("../../config/hearth.toml");
    let mut settings = BTreeSet::new();
    let mut section = "";
    for line in manual.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) {
            settings.insert(if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") });
        }
    }
    let sections: BTreeSet<&str> = settings.iter().filter_map(|name| Some(name.split_once('.')?.0)).collect();
    assert!(settings.contains("home.lease_ttl_ms"), "{settings:?}");
    let worries = metrics::table().iter().map(|row| format!("{} {}", row.help, row.worry));
    for text in worries.chain([text_of("alerts.yml"), text_of("README.md")]) {
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == '.'));
        let words = words.map(|word| word.trim_matches('.')).filter(|word| word.matches('.').count() == 1);
        for word in words {
            let (section, key) = word.split_once('.').unwrap();
            // Those of more than one word: others are names of files and pages.
            if sections.contains(section) && key.contains('_') {
                assert!(settings.contains(word), "there is no setting {word}");
            }
        }
    }
}

/// All expressions of the dashboard, with its variables put in.
fn dashboard_expressions() -> Vec<String> {
    fn gather(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                let expression = fields.get("expr").and_then(Value::as_str);
                found.extend(expression.map(str::to_owned));
                fields.values().for_each(|value| gather(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| gather(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    gather(&dashboard(), &mut found);
    let put_in = |expression: String| {
        expression.replace("$__rate_interval", "5m").replace("$job", "hearth").replace("$instance", ".*")
    };
    found.into_iter().map(put_in).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&text_of("dashboard.json")).expect("JSON")
}

#[test]
fn every_expression_of_the_dashboard_is_one() {
    let expressions = dashboard_expressions();
    assert!(expressions.len() > 50, "{}", expressions.len());
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (number, expression) in expressions.iter().enumerate() {
        // A string of JSON is one of YAML.
        let _ = writeln!(
            rules,
            "      - {{ record: 'panel:{number}', expr: {} }}",
            Value::from(expression.as_str())
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

#[test]
fn the_dashboard_can_be_imported_and_nothing_in_it_lies_over_something_else() {
    let dashboard = dashboard();
    // Grafana 10 writes 38 and reads all that came before.
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| (36..=38).contains(&version)));
    let variables: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<&str> = panels
        .iter()
        .filter(|panel| panel["type"] == "row")
        .map(|row| row["title"].as_str().unwrap())
        .collect();
    assert_eq!(rows[0], "What is wrong now");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} lies over another panel");
            }
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title}");
        }
    }
}
