//! Figures of a run, worked out from its history: counts, and latencies from the moment an operation was due (free of
//! coordinated omission). Pure; called by the report.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;
use protocol::request::Ack;
use serde::Serialize;

use crate::history::{Entry, History, Notice, Opened, Operation, Value, What};

/// The longest latency told apart: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What the way of a change of presence is called, and that of a word.
pub(crate) const PRESENCE_TO_WATCHER: &str = "presence to watcher";
pub(crate) const SAY_TO_MEMBER: &str = "say to member";
/// What it is called when a session is taken up on another node.
const RESUME_ELSEWHERE: &str = "resume elsewhere";
/// A curve of quantiles has so many points for each nine.
const POINTS_A_NINE: u32 = 10;

/// Latencies of one kind, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Half were faster.
    pub p50: f64,
    /// Nine in ten were.
    pub p90: f64,
    /// Of a hundred, all but one.
    pub p99: f64,
    /// Of a thousand.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// What happened in a run, in numbers.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// Operations that were carried out, by kind and level.
    pub latency_ms: BTreeMap<String, Latency>,
    /// The same, of operations that had to wait for a new link.
    pub latency_over_a_lost_link_ms: BTreeMap<String, Latency>,
    /// The same latencies as curves: by kind, points of a quantile and the milliseconds that it lies below.
    pub quantiles: BTreeMap<String, Vec<(f64, f64)>>,
    /// Counts by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// Refused operations by code.
    pub refused: BTreeMap<&'static str, u64>,
    /// Links that ended, by close code; `none` without one, `own` where the bot did it.
    pub downs: BTreeMap<String, u64>,
}

/// Names of counts that are always there, also at 0.
const COUNTS: [&str; 20] = [
    "operations",
    "writes",
    "durable_acks",
    "provisional_acks",
    "repeated_acks",
    "unknown",
    "logins",
    "resumes",
    "resumes_elsewhere",
    "redirects",
    "moves",
    "turned",
    "drops",
    "rollback_notices",
    "durable_notices",
    "pushes",
    "items",
    "messages",
    "heard",
    "missed",
];

#[derive(Default)]
struct Recorder {
    histograms: BTreeMap<String, Histogram<u64>>,
}

impl Recorder {
    fn record(&mut self, kind: &str, us: u64) {
        if !self.histograms.contains_key(kind) {
            let Ok(made) = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3) else { return };
            self.histograms.insert(kind.to_owned(), made);
        }
        if let Some(histogram) = self.histograms.get_mut(kind) {
            histogram.saturating_record(us);
        }
    }

    /// As HdrHistogram draws them: each nine more takes as much room as the one before.
    #[allow(clippy::cast_precision_loss, reason = "microseconds of minutes, shown with three digits")]
    fn curves(&self) -> BTreeMap<String, Vec<(f64, f64)>> {
        let curve = |histogram: &Histogram<u64>| {
            // Further out there is nothing but the slowest one.
            let nines = (histogram.len().max(1) as f64).log10();
            let quantile = |point: u32| 1.0 - 10_f64.powf(-f64::from(point) / f64::from(POINTS_A_NINE));
            let points = (0..).take_while(|point| f64::from(*point) <= nines * f64::from(POINTS_A_NINE));
            let mut curve: Vec<(f64, f64)> = points
                .map(quantile)
                .map(|quantile| (quantile, histogram.value_at_quantile(quantile) as f64 / 1000.0))
                .collect();
            curve.push((1.0, histogram.max() as f64 / 1000.0));
            curve
        };
        self.histograms.iter().map(|(kind, histogram)| (kind.clone(), curve(histogram))).collect()
    }

    #[allow(clippy::cast_precision_loss, reason = "microseconds of minutes, shown with three digits")]
    fn told(self) -> BTreeMap<String, Latency> {
        let told = |histogram: Histogram<u64>| {
            let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
            let max = histogram.max() as f64 / 1000.0;
            Latency {
                count: histogram.len(),
                p50: ms(0.5),
                p90: ms(0.9),
                p99: ms(0.99),
                p999: ms(0.999),
                max,
            }
        };
        self.histograms.into_iter().map(|(kind, histogram)| (kind, told(histogram))).collect()
    }
}

/// Works the figures out.
#[must_use]
pub fn of(history: &History) -> Figures {
    let mut figures =
        Figures { counts: COUNTS.iter().map(|name| (*name, 0)).collect(), ..Figures::default() };
    let (mut smooth, mut broken) = (Recorder::default(), Recorder::default());
    for (_, log) in history.processes() {
        take_log(&mut figures, &mut smooth, &mut broken, log);
    }
    delays(history, |kind, _, us| smooth.record(kind, us));
    figures.quantiles = smooth.curves();
    figures.latency_ms = smooth.told();
    figures.latency_over_a_lost_link_ms = broken.told();
    figures
}

fn take_log(figures: &mut Figures, smooth: &mut Recorder, broken: &mut Recorder, log: &[Entry]) {
    let mut asked: HashMap<u64, (u64, &Operation, u64)> = HashMap::new();
    // Grows whenever the bot loses or opens a link: what was asked under another value has waited for a link.
    let mut links = 0_u64;
    let mut node = None;
    for entry in log {
        match &entry.what {
            What::Invoke { id, operation } => {
                asked.insert(*id, (entry.at_us, operation, links));
            }
            What::Ok { id, ack, prov, dup, .. } => {
                let Some((due_us, operation, at_links)) = asked.remove(id) else { continue };
                let recorder = if at_links == links { &mut *smooth } else { &mut *broken };
                recorder.record(kind(operation), entry.at_us.saturating_sub(due_us));
                figures.add("operations", 1);
                figures.add("writes", u64::from(matches!(operation, Operation::Write { .. })));
                figures.add("durable_acks", u64::from(*ack >= Some(Ack::Durable)));
                figures.add("provisional_acks", u64::from(*prov));
                figures.add("repeated_acks", u64::from(*dup));
            }
            What::Fail { id, code, .. } => {
                asked.remove(id);
                figures.add("operations", 1);
                *figures.refused.entry(code.name()).or_default() += 1;
            }
            What::Unknown { .. } => figures.add("unknown", 1),
            What::Notice { notice } => {
                links += u64::from(matches!(notice, Notice::Ready(_) | Notice::Down { .. }));
                take_notice(figures, smooth, notice, &mut node);
            }
        }
    }
}

/// `node` is the one on which the bot had a link last.
fn take_notice<'a>(
    figures: &mut Figures,
    smooth: &mut Recorder,
    notice: &'a Notice,
    node: &mut Option<&'a str>,
) {
    match notice {
        Notice::Ready(opened) => {
            let kinds = kinds_of_ready(opened, node);
            kinds.iter().for_each(|kind| smooth.record(kind, opened.took_us));
            figures.add(if opened.resumed { "resumes" } else { "logins" }, 1);
            figures.add("resumes_elsewhere", u64::from(kinds.contains(&RESUME_ELSEWHERE)));
            figures.add("rollback_notices", u64::from(opened.rolled_back.is_some()));
            figures.add("missed", u64::from(opened.missed));
        }
        Notice::Turned { .. } => figures.add("turned", 1),
        Notice::Redirected { .. } => figures.add("redirects", 1),
        Notice::Moved { .. } => figures.add("moves", 1),
        Notice::Down { code, on_purpose, .. } => {
            figures.add("drops", u64::from(on_purpose.is_some()));
            let name = end_of_link(*code, on_purpose.is_some());
            *figures.downs.entry(name).or_default() += 1;
        }
        Notice::RolledBack(_) => figures.add("rollback_notices", 1),
        Notice::Durable { .. } => figures.add("durable_notices", 1),
        Notice::Presence { items, .. } => {
            figures.add("pushes", 1);
            figures.add("items", u64::try_from(items.len()).unwrap_or(u64::MAX));
        }
        Notice::Message { .. } => {
            figures.add("pushes", 1);
            figures.add("messages", 1);
        }
        Notice::Heard { .. } => {
            figures.add("pushes", 1);
            figures.add("heard", 1);
        }
        Notice::Mode { .. } | Notice::SeqGap { .. } | Notice::Ended { .. } => {}
    }
}

/// What latencies of a `ready` are called. A session that is taken up on another node than that of `node`, on which the bot had
/// a link last, counts as taken up, and beside it by itself.
pub(crate) fn kinds_of_ready<'a>(opened: &'a Opened, node: &mut Option<&'a str>) -> &'static [&'static str] {
    let (name, _) = opened.node.split_once('#').unwrap_or((&opened.node, ""));
    let is_elsewhere = node.replace(name).is_some_and(|before| before != name);
    match (opened.resumed, is_elsewhere) {
        (false, _) => &["login"],
        (true, false) => &["resume"],
        (true, true) => &["resume", RESUME_ELSEWHERE],
    }
}

/// By kind, from the moment a change of presence or a word was due, which is told first, to the moment each watcher or member
/// learnt of it; without those that had to wait for a link on either side.
pub(crate) fn delays(history: &History, mut record: impl FnMut(&'static str, u64, u64)) {
    let mut due: HashMap<(&'static str, u32, u64), u64> = HashMap::new();
    for (process, log) in history.processes() {
        let mut asked: HashMap<u64, (&'static str, u64, u64)> = HashMap::new();
        for entry in log {
            match &entry.what {
                What::Invoke { id, operation: Operation::Presence { k, .. } } => {
                    asked.insert(*id, (PRESENCE_TO_WATCHER, *k, entry.at_us));
                }
                What::Invoke { id, operation: Operation::Say { s } } => {
                    asked.insert(*id, (SAY_TO_MEMBER, *s, entry.at_us));
                }
                What::Ok { id, .. } => {
                    if let Some((kind, number, due_us)) = asked.remove(id) {
                        due.insert((kind, process, number), due_us);
                    }
                }
                What::Notice { notice: Notice::Ready(_) | Notice::Down { .. } } => asked.clear(),
                _ => {}
            }
        }
    }
    for (_, log) in history.processes() {
        // Who has just come back hears old news; that is no delay of the server's.
        let mut replayed = 0;
        let mut seen: HashMap<u32, u64> = HashMap::new();
        for entry in log {
            let mut learns = |kind: &'static str, from: u32, number: u64, is_new: bool| {
                if let Some(due_us) = due.get(&(kind, from, number)).filter(|_| is_new && replayed == 0) {
                    record(kind, *due_us, entry.at_us.saturating_sub(*due_us));
                }
            };
            match &entry.what {
                What::Notice { notice: Notice::Ready(opened) } => {
                    replayed = u64::from(opened.replayed) + u64::from(opened.missed);
                }
                What::Notice { notice: Notice::Presence { items, .. } } => {
                    for item in items {
                        let is_new = seen.insert(item.subject, item.k) != Some(item.k);
                        learns(PRESENCE_TO_WATCHER, item.subject, item.k, is_new);
                    }
                    replayed = replayed.saturating_sub(1);
                }
                What::Notice { notice: Notice::Heard { from, s, repeat, .. } } => {
                    learns(SAY_TO_MEMBER, *from, *s, !repeat);
                    replayed = replayed.saturating_sub(1);
                }
                What::Notice { notice: Notice::Message { .. } } => replayed = replayed.saturating_sub(1),
                What::Ok { value: Value::Presences(items), .. } => {
                    seen.extend(items.iter().map(|item| (item.subject, item.k)));
                }
                _ => {}
            }
        }
    }
}

impl Figures {
    /// The names of all counts.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        COUNTS.into_iter()
    }

    fn add(&mut self, name: &'static str, by: u64) {
        *self.counts.entry(name).or_default() += by;
    }

    /// A count by its name.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

/// What the end of a link is called.
pub(crate) fn end_of_link(code: Option<u16>, on_purpose: bool) -> String {
    match code {
        _ if on_purpose => "own".to_owned(),
        Some(code) => code.to_string(),
        None => "none".to_owned(),
    }
}

/// What latencies of an operation are called.
pub(crate) fn kind(operation: &Operation) -> &'static str {
    match operation {
        Operation::Write { ack: Ack::Applied, .. } => "write applied",
        Operation::Write { ack: Ack::Durable, .. } => "write durable",
        Operation::Write { ack: Ack::Replicated, .. } => "write replicated",
        Operation::Presence { .. } => "presence",
        Operation::Read => "read",
        Operation::Watch { .. } => "watch",
        Operation::Logout => "logout",
        Operation::Join { .. } => "join",
        Operation::Say { .. } => "say",
        Operation::Message { .. } => "message",
        Operation::Query => "query",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_us: u64, what: What) -> Entry {
        Entry { at_us, process: 0, session: None, what }
    }

    fn asked(id: u64, at_us: u64) -> Entry {
        entry(at_us, What::Invoke { id, operation: Operation::Write { k: id, ack: Ack::Applied } })
    }

    fn done(id: u64, at_us: u64) -> Entry {
        let value = Value::None;
        entry(
            at_us,
            What::Ok { id, cseq: None, stamp: None, ack: Some(Ack::Applied), prov: false, dup: false, value },
        )
    }

    #[test]
    fn latency_counts_from_when_it_was_due() {
        let figures = of(&History { logs: vec![vec![asked(1, 1_000), done(1, 51_000)]] });
        let latency = &figures.latency_ms["write applied"];
        assert_eq!(latency.count, 1);
        assert!((49.9..50.1).contains(&latency.p99), "{latency:?}");
    }

    #[test]
    fn who_is_taken_up_on_another_node_is_taken_up() {
        let ready = |at_us, resumed, node: &str, took_us| {
            let opened = Opened { resumed, node: node.to_owned(), took_us, ..Opened::default() };
            entry(at_us, What::Notice { notice: Notice::Ready(Box::new(opened)) })
        };
        let log = vec![
            ready(1, false, "a#1", 5_000),
            ready(2, true, "a#2", 6_000),
            ready(3, true, "b#1", 90_000),
            ready(4, false, "a#3", 5_000),
        ];
        let history = History { logs: vec![log] };
        let figures = of(&history);
        let counts = ["login", "resume", RESUME_ELSEWHERE].map(|kind| figures.latency_ms[kind].count);
        assert_eq!((counts, figures.count("resumes_elsewhere")), ([2, 2, 1], 1));
        assert!(figures.latency_ms["resume"].max > 89.0);
        let series = crate::series::of(&history, 1_000);
        assert!(series.latency.keys().eq(figures.latency_ms.keys()), "{series:?}");
    }

    #[test]
    fn what_waited_for_a_link_is_told_apart() {
        let down =
            entry(2_000, What::Notice { notice: Notice::Down { code: None, on_purpose: None, stay_ms: 0 } });
        let ready = entry(
            9_000,
            What::Notice { notice: Notice::Ready(Box::new(Opened { resumed: true, ..Opened::default() })) },
        );
        let logs =
            vec![vec![asked(1, 1_000), down, asked(2, 5_000), ready, done(1, 10_000), done(2, 10_000)]];
        let figures = of(&History { logs });
        assert!(!figures.latency_ms.contains_key("write applied"));
        assert_eq!(figures.latency_over_a_lost_link_ms["write applied"].count, 2);
        assert_eq!((figures.count("resumes"), figures.downs["none"]), (1, 1));
    }
}
