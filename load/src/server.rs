//! How the server's process and the bots' own do while a run goes on: memory and CPU by the kernel, for a process of this
//! machine, and what nodes count on `/metrics`. Looks once a second; read by the view and the report. Never judges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::bench::usage::cpu_time;
use crate::board::Board;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(800);
/// Looks that are kept: a day of them, and the last words.
const LOOKS_MAX: usize = 90_000;
/// Metrics that are summed up over nodes, and those of which the largest counts.
const SUMMED: [&str; 5] =
    ["hearth_links_open", "hearth_records_hot", "hearth_records_dirty", MEMORY_METRIC, CPU_METRIC];
const LAG_METRIC: &str = "hearth_flush_lag_seconds";
/// As any Prometheus client names them; a server that does not tell them is looked at by its process id.
const MEMORY_METRIC: &str = "process_resident_memory_bytes";
const CPU_METRIC: &str = "process_cpu_seconds_total";

/// One look. What nobody can tell is none.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Look {
    /// When, ms since the run began.
    pub at_ms: u64,
    /// Resident memory of the server's processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Processors that they kept busy since the look before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// Links that are open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<u64>,
    /// Records in memory: of players with a session, and of those who have just left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_hot: Option<u64>,
    /// Records that wait for their commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_dirty: Option<u64>,
    /// How long the oldest of them has waited, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_lag_ms: Option<f64>,
    /// Resident memory of the bots' own process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bots_memory_bytes: Option<u64>,
    /// Processors that it kept busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bots_cpu_cores: Option<f64>,
}

/// CPU time so far, and when that was.
type Spent = Option<(Duration, Instant)>;

/// Looks until it is dropped; what it sees stands on the board.
pub async fn watch(board: Arc<Board>) {
    let http = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build().ok();
    let mut tick = interval(LOOK_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut own, mut server): (Spent, Spent) = (None, None);
    loop {
        tick.tick().await;
        let metrics = match &http {
            Some(http) => all_metrics(http, &board.options.common.service_url).await,
            None => BTreeMap::new(),
        };
        let now = Instant::now();
        let mut look = told(&metrics);
        look.at_ms = board.us(now) / 1_000;
        let told_cpu = metrics.get(CPU_METRIC).and_then(|s| Duration::try_from_secs_f64(*s).ok());
        let pids = &board.options.common.pid;
        let spent_by = |pids: &[u32]| pids.iter().map(|pid| cpu_time(*pid).ok()).sum::<Option<Duration>>();
        let of_server = if pids.is_empty() { told_cpu } else { spent_by(pids) };
        look.cpu_cores = cores(&mut server, of_server, now);
        if !pids.is_empty() {
            look.memory_bytes = pids.iter().map(|pid| memory_bytes(*pid)).sum();
        }
        let me = std::process::id();
        look.bots_cpu_cores = cores(&mut own, cpu_time(me).ok(), now);
        look.bots_memory_bytes = memory_bytes(me);
        board.looks(look, LOOKS_MAX);
    }
}

/// Processors that were kept busy since the look before.
fn cores(before: &mut Spent, spent: Option<Duration>, now: Instant) -> Option<f64> {
    let (was, at) = std::mem::replace(before, spent.map(|spent| (spent, now)))?;
    let passed = now.saturating_duration_since(at).as_secs_f64();
    let grown = spent?.checked_sub(was)?.as_secs_f64();
    (passed > 0.0).then(|| grown / passed)
}

/// Resident memory, without walking the process's pages.
fn memory_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    resident_bytes(&status)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

/// Of all nodes together; without those that do not answer.
async fn all_metrics(http: &reqwest::Client, urls: &[String]) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for url in urls {
        let url = format!("{}/metrics", url.trim_end_matches('/'));
        let Ok(page) = http.get(url).send().await else { continue };
        if !page.status().is_success() {
            continue;
        }
        if let Ok(page) = page.text().await {
            add(&mut all, &page);
        }
    }
    all
}

/// Adds a page of metrics up, over all labels.
fn add(all: &mut BTreeMap<String, f64>, page: &str) {
    for line in page.lines() {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let Some(value) = line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok()) else {
            continue;
        };
        if SUMMED.contains(&name) {
            *all.entry(name.to_owned()).or_default() += value;
        } else if name == LAG_METRIC {
            let lag = all.entry(name.to_owned()).or_default();
            *lag = lag.max(value);
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts, and bytes of a process")]
fn told(metrics: &BTreeMap<String, f64>) -> Look {
    let count = |name: &str| metrics.get(name).map(|value| value.max(0.0) as u64);
    Look {
        memory_bytes: count(MEMORY_METRIC),
        links: count("hearth_links_open"),
        records_hot: count("hearth_records_hot"),
        records_dirty: count("hearth_records_dirty"),
        flush_lag_ms: metrics.get(LAG_METRIC).map(|seconds| seconds * 1e3),
        ..Look::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_metrics_add_up_but_for_the_lag() {
        let mut all = BTreeMap::new();
        add(
            &mut all,
            "# HELP hearth_records_hot x\nhearth_records_hot 3\nhearth_flush_lag_seconds{shard=\"1\"} 0.5\nother 9",
        );
        add(&mut all, "hearth_records_hot 4\nhearth_flush_lag_seconds 0.25\nhearth_links_open 2");
        let look = told(&all);
        assert_eq!((look.records_hot, look.links, look.flush_lag_ms), (Some(7), Some(2), Some(500.0)));
        assert_eq!((look.memory_bytes, look.records_dirty), (None, None));
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    3220 kB\n"), Some(3_297_280));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        assert!(memory_bytes(std::process::id()).is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn cores_are_what_was_spent_since_the_look_before() {
        let now = Instant::now();
        let mut spent = None;
        assert_eq!(cores(&mut spent, Some(Duration::from_secs(5)), now), None);
        let later = cores(&mut spent, Some(Duration::from_secs(8)), now + Duration::from_secs(2));
        assert_eq!(later, Some(1.5));
        // A process that is another one now has spent less.
        assert_eq!(cores(&mut spent, Some(Duration::from_secs(1)), now + Duration::from_secs(3)), None);
    }
}
