//! What nodes show on `/metrics`, looked at once a second while a fault is planted, as a file for `promtool test rules`: so
//! rules are tried on what servers say, and not on what somebody believes that they say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::expressions::named;
use super::{promtool, rules_file};
use crate::harness::server::Server;

const BETWEEN: Duration = Duration::from_secs(1);
/// How long a node may take to answer; one that is stopped does not.
const ANSWER: Duration = Duration::from_millis(800);
/// For how long the last look is held: faults last longer than a test has time.
const HELD: usize = 120;
/// Looks at nodes that are well.
pub(super) const WELL: usize = 5;

/// The store's server is called by where its socket is: in a folder of this test alone.
fn without_folder(labels: &str) -> String {
    let Some((before, socket)) = labels.split_once("endpoint=\"") else { return labels.to_owned() };
    let (_, behind) = socket.split_once('"').unwrap();
    format!("{before}endpoint=\"redis://10.0.0.1:6379\"{behind}")
}

/// Looks at some nodes.
pub(super) struct Recording {
    name: &'static str,
    /// Metrics that rules name.
    wanted: BTreeSet<String>,
    looks: Vec<BTreeMap<String, String>>,
    http: reqwest::Client,
}

impl Recording {
    pub(super) fn of(name: &'static str) -> Self {
        let rules = super::text_of("alerts.yml");
        let wanted = named(&rules).into_iter().map(|(name, _)| name);
        let http = reqwest::Client::builder().timeout(ANSWER).build().unwrap();
        Self { name, wanted: wanted.collect(), looks: Vec::new(), http }
    }

    /// One look at each node, and a second later it is over.
    pub(super) async fn look(&mut self, nodes: &[&Server]) {
        let over = tokio::time::Instant::now() + BETWEEN;
        let mut look = BTreeMap::new();
        for (number, node) in nodes.iter().enumerate() {
            let target = format!("job=\"hearth\",instance=\"node-{}\"", number + 1);
            let page = self.page(node).await;
            look.insert(format!("up{{{target}}}"), u8::from(page.is_some()).to_string());
            let lines = page.as_deref().unwrap_or_default().lines().filter(|line| !line.starts_with('#'));
            for line in lines {
                let Some((series, value)) = line.rsplit_once(' ') else { continue };
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                if self.wanted.contains(name) {
                    let labels = without_folder(labels);
                    let comma = if labels == "}" { "" } else { "," };
                    look.insert(format!("{name}{{{target}{comma}{labels}"), value.to_owned());
                }
            }
        }
        self.looks.push(look);
        tokio::time::sleep_until(over).await;
    }

    /// So many of them.
    pub(super) async fn looks(&mut self, count: usize, nodes: &[&Server]) {
        for _ in 0..count {
            self.look(nodes).await;
        }
    }

    /// Looks for as long as something goes on.
    pub(super) async fn during<T>(&mut self, nodes: &[&Server], work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.look(nodes) => {}
            }
        }
    }

    async fn page(&self, node: &Server) -> Option<String> {
        let answer = self.http.get(format!("{}/metrics", node.service_url())).send().await.ok()?;
        answer.text().await.ok()
    }

    /// Has promtool find that nothing fires while all is well, and these alerts, beside others that may, once the fault has
    /// lasted. With `UPDATE_RECORDED=1` the file is kept.
    pub(super) fn makes_fire(&self, alerts: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let kept = PathBuf::from(super::FOLDER).join(format!("tests/recorded_{}.yml", self.name));
        let file = if std::env::var_os("UPDATE_RECORDED").is_some() {
            std::fs::write(&kept, self.text(Path::new("../alerts.yml"), alerts)).unwrap();
            kept
        } else {
            let file = folder.path().join("recorded.yml");
            std::fs::write(&file, self.text(&rules_file(), alerts)).unwrap();
            file
        };
        promtool(&["test", "rules", file.to_str().unwrap()]);
    }

    fn text(&self, rules: &Path, alerts: &[&str]) -> String {
        let mut out = format!(
            "# Recorded from real servers, a look a second; the last one is held for {HELD} s: the fault goes on.\n\
             # `UPDATE_RECORDED=1 cargo test --test it deploy::` records all of these anew.\n\
             rule_files: [{}]\nevaluation_interval: 1s\n\ntests:\n  - name: {}\n    interval: 1s\n    input_series:\n",
            rules.display(),
            self.name.replace('_', " ")
        );
        // Buckets that nothing ever fell into say nothing.
        let says = |(series, value): &(&String, &String)| !series.contains("_bucket{") || *value != "0";
        let said = self.looks.iter().flat_map(|look| look.iter().filter(says));
        let series: BTreeSet<&String> = said.map(|(series, _)| series).collect();
        for series in series {
            let _ = writeln!(out, "      - {{ series: '{series}', values: \"{}\" }}", self.values(series));
        }
        let none = r#"count by (alertname) (ALERTS{alertstate="firing"})"#;
        let fired = |alert: &&str| format!("{{ labels: '{{alertname=\"{alert}\"}}', value: 1 }}");
        let fired: Vec<_> = alerts.iter().map(fired).collect();
        let named = format!(",alertname=~\"{}\"", alerts.join("|"));
        // Some are over before others have lasted long enough.
        let fires = format!("count_over_time(ALERTS{{alertstate=\"firing\"{named}}}[10m])");
        let one_each = format!("count by (alertname) (count by (alertname) ({fires}))");
        let _ = write!(
            out,
            "    promql_expr_test:\n      - {{ expr: '{none}', eval_time: {}s, exp_samples: [] }}\n      \
             - {{ expr: '{one_each}', eval_time: {}s, exp_samples: [{}] }}\n",
            WELL - 1,
            self.looks.len() + HELD - 1,
            fired.join(", ")
        );
        out
    }

    /// The values of a series as promtool reads them, those that follow each other and are the same written once.
    fn values(&self, series: &str) -> String {
        let each = self.looks.iter().map(|look| look.get(series).map_or("_", String::as_str));
        let mut runs: Vec<(&str, usize)> = Vec::new();
        for value in each {
            match runs.last_mut() {
                Some((last, count)) if *last == value => *count += 1,
                _ => runs.push((value, 1)),
            }
        }
        if let Some((_, count)) = runs.last_mut() {
            *count += HELD;
        }
        let run = |(value, count): (&str, usize)| match (value, count) {
            (value, 1) => value.to_owned(),
            // `_x3` are three; of a value, the first and so many more.
            ("_", count) => format!("_x{count}"),
            (value, count) => format!("{value}x{}", count - 1),
        };
        runs.into_iter().map(run).collect::<Vec<_>>().join(" ")
    }
}
