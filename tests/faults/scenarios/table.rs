//! The table of results in `tests/faults/README.md`: one row a scenario, written by the runner between two markers. A row keeps
//! the seeds with which the scenario passed since it last failed.

use std::path::Path;

use load::faults::report::{Report, took};

const BEGIN: &str = "<!-- results: written by `tests/run faults NAME --table` -->";
const END: &str = "<!-- end of results -->";
const HEAD: &str = "| # | what was tried | exercised | acked and lost (told) | recovery | thresholds | lease | passed with seeds |\n\
                    | --- | --- | --- | --- | --- | --- | --- | --- |\n";
/// Seeds that a row keeps.
const SEEDS_MAX: usize = 5;

/// Writes a report's row.
pub(crate) fn update(report: &Report) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the begin of the table of results");
    let (table, after) = rest.split_once(END).expect("the end of the table of results");
    let mut rows: Vec<String> =
        table.lines().filter(|line| line.starts_with("| F")).map(str::to_owned).collect();
    let key = format!("| {} |", report.head.name);
    let old = rows.iter().position(|row| row.starts_with(&key)).map(|place| rows.remove(place));
    rows.push(row(report, old.as_deref()));
    rows.sort_by_key(|row| number(row));
    let table: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(&path, format!("{before}{BEGIN}\n\n{HEAD}{table}\n{END}{after}")).unwrap();
}

fn number(row: &str) -> u32 {
    let digits = row.trim_start_matches("| F").split_whitespace().next().unwrap_or_default();
    digits.parse().unwrap_or(u32::MAX)
}

fn row(report: &Report, old: Option<&str>) -> String {
    let tried: Vec<&str> = report.incidents.iter().map(|incident| incident.what.as_str()).collect();
    let findings = &report.findings;
    let exercised = findings.exercised.iter().filter(|(_, count)| **count > 0);
    let exercised: Vec<_> = exercised.map(|(name, count)| format!("{name} {count}")).collect();
    let recoveries: Vec<_> =
        findings.recoveries.iter().map(|recovery| format!("{}: {}", recovery.what, took(recovery))).collect();
    let thresholds = findings.thresholds.iter().map(|t| {
        let word = if t.holds { "" } else { "**missed** " };
        format!("{word}{}: {} ({})", t.what, t.found, t.bound)
    });
    let seeds = if report.passed() { passed(report.head.seed, old) } else { "**failed**".to_owned() };
    let cells = [
        report.head.name.clone(),
        together(&tried),
        format!("{} checks; {}", report.checks(), exercised.join(", ")),
        format!("{} ({})", findings.lost, findings.reported),
        recoveries.join("; "),
        thresholds.collect::<Vec<_>>().join("; "),
        format!("{} ms", report.head.ttl_ms),
        seeds,
    ];
    format!("| {} |", cells.map(|cell| cell.replace('|', "/")).join(" | "))
}

/// What was done, each thing once, with how often.
fn together(tried: &[&str]) -> String {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for what in tried {
        match counted.iter_mut().find(|(known, _)| known == what) {
            Some((_, times)) => *times += 1,
            None => counted.push((what, 1)),
        }
    }
    let told = counted.iter().map(|(what, times)| match times {
        1 => (*what).to_owned(),
        times => format!("{times} × {what}"),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// The seeds of the row before, and this one.
fn passed(seed: u64, old: Option<&str>) -> String {
    let cell = old.and_then(|row| row.trim_end_matches(" |").rsplit(" | ").next()).unwrap_or_default();
    let mut seeds: Vec<u64> = cell.split(", ").filter_map(|seed| seed.parse().ok()).collect();
    seeds.retain(|known| *known != seed);
    seeds.push(seed);
    let kept = seeds.len().saturating_sub(SEEDS_MAX);
    seeds.drain(..kept);
    seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}
