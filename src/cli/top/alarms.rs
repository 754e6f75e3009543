//! What is wrong, the worst first: the server's alarms, one of each name with all the nodes that it is on at, and what an
//! overview says without an alarm's name. As the console does it. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use protocol::calls::{Alarm, Overview};

use super::shards::Held;
use super::words::{count, many, named};

/// What is seen here counts once it has lasted: shards that change hands are nobody's for a moment.
pub(super) const LASTS: Duration = Duration::from_secs(3);

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Ringing {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) is_critical: bool,
    /// What it is about holds no more at any of its nodes: it ends in a moment.
    pub(super) is_ending: bool,
    /// Where, if it is at some nodes alone: where it is worst first, the others by name.
    pub(super) nodes: Vec<String>,
    /// Unix ms, by the server's clock; none where nobody has said.
    pub(super) since: Option<u64>,
    /// What was measured where it is worst, what it must not lie above, and the unit of both.
    pub(super) measured: Option<(f64, f64, String)>,
    /// What is said of it: what each of its nodes says, or what all of them do.
    pub(super) said: Vec<Said>,
    pub(super) advice: String,
}

/// What is said of something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Said {
    /// By this node, where others say something else.
    pub(super) node: Option<String>,
    /// It holds no more there.
    pub(super) is_ending: bool,
    pub(super) text: String,
}

impl Ringing {
    /// Of an alarm of each node that it is on at, of which there is one.
    fn of(mut alarms: Vec<&Alarm>) -> Option<Self> {
        // By name: an order that changed with the numbers could not be read.
        alarms.sort_by(|one, other| one.node.cmp(&other.node));
        alarms.dedup_by(|one, other| one.node == other.node);
        let worst = alarms.iter().enumerate().min_by(|(_, one), (_, other)| worse(other, one));
        let at = worst.map(|(at, _)| at)?;
        let worst = alarms.remove(at);
        alarms.insert(0, worst);
        let says = |alarm: &Alarm| Said {
            node: Some(alarm.node.clone()).filter(|node| !node.is_empty()),
            is_ending: alarm.ending,
            text: alarm.text.clone(),
        };
        let is_one = alarms.iter().all(|alarm| (alarm.ending, &alarm.text) == (worst.ending, &worst.text));
        Some(Self {
            name: worst.name.clone(),
            title: named(&worst.name),
            is_critical: worst.severity == "critical",
            is_ending: worst.ending,
            nodes: alarms.iter().map(|alarm| &alarm.node).filter(|node| !node.is_empty()).cloned().collect(),
            since: alarms.iter().map(|alarm| alarm.since).min(),
            measured: Some((worst.value, worst.limit, worst.unit.clone())),
            said: if is_one {
                vec![Said { node: None, ..says(worst) }]
            } else {
                alarms.iter().map(|alarm| says(alarm)).collect()
            },
            advice: worst.r#do.clone(),
        })
    }

    /// Before it has lasted, in a few words.
    pub(super) fn brief(&self) -> String {
        match (self.name.as_str(), self.nodes.as_slice()) {
            ("node_silent", [node]) => format!("{node} does not answer"),
            ("node_silent", nodes) => format!("{} do not answer", few(nodes)),
            _ => self.title.clone(),
        }
    }
}

/// Nodes that are named.
const NODES_MAX: usize = 4;

/// The first of them by name.
pub(super) fn few(nodes: &[String]) -> String {
    let named = nodes.iter().take(NODES_MAX).cloned().collect::<Vec<_>>().join(", ");
    match nodes.len().saturating_sub(NODES_MAX) {
        0 => named,
        more => format!("{named} and {} more", count(more)),
    }
}

/// Which of two is worse: what goes on before what is over, then by grade, then by how far it is beyond its limit.
fn worse(one: &Alarm, other: &Alarm) -> Ordering {
    let rank = |alarm: &Alarm| (!alarm.ending, alarm.severity == "critical");
    let beyond = |alarm: &Alarm| if alarm.limit > 0.0 { alarm.value / alarm.limit } else { 0.0 };
    rank(one).cmp(&rank(other)).then_with(|| beyond(one).total_cmp(&beyond(other)))
}

/// All of it, the worst first and the oldest of those; what is over for all but its end comes last. `lasting`: of [`seen`], what counts.
pub(super) fn ringing(overview: &Overview, lasting: Vec<Ringing>) -> Vec<Ringing> {
    let mut groups: BTreeMap<&str, Vec<&Alarm>> = BTreeMap::new();
    for alarm in &overview.alarms {
        groups.entry(&alarm.name).or_default().push(alarm);
    }
    let mut all: Vec<Ringing> = groups.into_values().filter_map(Ringing::of).chain(lasting).collect();
    all.sort_by_key(|one| (one.is_ending, !one.is_critical, one.since));
    all
}

/// The nodes that count nothing: no alarm can ring there.
pub(super) fn blind(overview: &Overview) -> Vec<String> {
    let blind = overview.nodes.iter().filter(|node| node.counts == Some(false));
    blind.map(|node| node.node.clone()).collect()
}

/// What an overview says without an alarm's name.
pub(super) fn seen(overview: &Overview, held: &Held) -> Vec<Ringing> {
    let mut found = Vec::new();
    let unknown = overview.nodes.iter().filter(|node| node.state == "unknown").map(|node| &node.node);
    let mut silent: BTreeSet<&String> = overview.unknown_nodes.iter().chain(unknown).collect();
    // One that stops may answer no more while it holds shards still: that is no surprise, and its row says it.
    for node in overview.nodes.iter().filter(|node| node.state == "stopping") {
        silent.remove(&node.node);
    }
    if !silent.is_empty() {
        found.push(Ringing {
            name: "node_silent".to_owned(),
            title: if silent.len() == 1 { "A node does not answer" } else { "Nodes do not answer" }.to_owned(),
            nodes: silent.into_iter().cloned().collect(),
            said: said("A member of the cluster that has not answered in time: what it holds is not in these figures."),
            advice: "See whether its process lives and its peer address can be reached. If it died, its shards are taken when its leases end.".to_owned(),
            ..Ringing::default()
        });
    }
    if overview.store.state == "down" && !overview.alarms.iter().any(|alarm| alarm.name == "store_down") {
        found.push(Ringing {
            name: "store_silent".to_owned(),
            title: named("store_down"),
            is_critical: true,
            said: said(
                "Players are served from memory; what they are acked is provisional until it is back.",
            ),
            advice: "See to the store first: do not stop nodes meanwhile, they hold what it does not have."
                .to_owned(),
            ..Ringing::default()
        });
    }
    if held.homeless > 0 {
        found.push(Ringing {
            name: "shards_homeless".to_owned(),
            title: format!("{} no home", many(held.homeless, "shard has", "shards have")),
            said: said("Players of these shards are not served now."),
            advice: "Leases of a node that died run out by themselves, in a few seconds. If it lasts, look at the logs of the nodes for why they do not take them.".to_owned(),
            ..Ringing::default()
        });
    }
    found
}

fn said(text: &str) -> Vec<Said> {
    vec![Said { text: text.to_owned(), ..Said::default() }]
}

/// Since when each is seen that an overview says without an alarm's name: at most one of each of those.
#[derive(Debug, Clone)]
pub(super) struct FirstSeen {
    lasts: Duration,
    since: HashMap<String, (Duration, u64)>,
}

impl FirstSeen {
    /// `lasts`: how long it must last to count.
    pub(super) fn new(lasts: Duration) -> Self {
        Self { lasts, since: HashMap::new() }
    }

    /// Those that have lasted, with since when; and those that have not yet. `at`: since the first look; `as_of`: by the
    /// server's clock, Unix ms.
    pub(super) fn lasting(
        &mut self,
        found: Vec<Ringing>,
        at: Duration,
        as_of: u64,
    ) -> (Vec<Ringing>, Vec<Ringing>) {
        let before = std::mem::take(&mut self.since);
        let (mut lasting, mut pending) = (Vec::new(), Vec::new());
        for one in found {
            let first = before.get(&one.name).copied().unwrap_or((at, as_of));
            self.since.insert(one.name.clone(), first);
            if at.saturating_sub(first.0) >= self.lasts {
                // Whoever looks once has not seen it begin.
                let since = (!self.lasts.is_zero()).then_some(first.1);
                lasting.push(Ringing { since, ..one });
            } else {
                pending.push(one);
            }
        }
        (lasting, pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::calls::{NodeOverview, ShardsOf};

    fn alarm(name: &str, node: &str, severity: &str, since: u64, value: f64) -> Alarm {
        Alarm {
            name: name.to_owned(),
            node: node.to_owned(),
            severity: severity.to_owned(),
            since,
            value,
            limit: 1.0,
            unit: "seconds".to_owned(),
            text: format!("at {node} it is"),
            r#do: "look".to_owned(),
            ending: false,
        }
    }

    #[test]
    fn an_alarm_of_many_nodes_is_told_once_as_where_it_is_worst() {
        let overview = Overview {
            alarms: vec![
                alarm("latency", "a", "warning", 7, 2.0),
                alarm("latency", "b", "warning", 5, 9.0),
                alarm("latency", "c", "warning", 6, 3.0),
                alarm("store_down", "b", "critical", 9, 1.0),
            ],
            ..Overview::default()
        };
        let all = ringing(&overview, Vec::new());
        let told: Vec<_> =
            all.iter().map(|one| (one.name.as_str(), one.nodes.join(" "), one.since, told(one))).collect();
        assert_eq!(
            told,
            [
                ("store_down", "b".into(), Some(9), ": at b it is".into()),
                ("latency", "b a c".into(), Some(5), "b: at b it is, a: at a it is, c: at c it is".into())
            ]
        );
    }

    /// Who says what.
    fn told(one: &Ringing) -> String {
        let said = one.said.iter();
        let said = said.map(|said| format!("{}: {}", said.node.as_deref().unwrap_or_default(), said.text));
        said.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_all_nodes_say_alike_is_said_once() {
        let alike = |node| Alarm { text: "it is".to_owned(), ..alarm("latency", node, "warning", 7, 2.0) };
        let overview = Overview { alarms: vec![alike("b"), alike("a")], ..Overview::default() };
        let all = ringing(&overview, Vec::new());
        let told: Vec<_> = all.iter().map(|one| (one.nodes.join(" "), told(one))).collect();
        assert_eq!(told, [("a b".into(), ": it is".into())]);
    }

    #[test]
    fn what_goes_on_comes_before_what_is_over() {
        let over = |name: &str, node: &str, severity: &str| Alarm {
            ending: true,
            ..alarm(name, node, severity, 1, 9.0)
        };
        let overview = Overview {
            alarms: vec![
                over("store_down", "a", "critical"),
                over("latency", "a", "critical"),
                alarm("latency", "b", "warning", 6, 2.0),
            ],
            ..Overview::default()
        };
        let all = ringing(&overview, Vec::new());
        let told: Vec<_> = all
            .iter()
            .map(|one| (one.name.as_str(), one.nodes.join(" "), one.is_ending, one.is_critical))
            .collect();
        assert_eq!(told, [("latency", "b a".into(), false, false), ("store_down", "a".into(), true, true)]);
        let ending: Vec<_> = all[0].said.iter().map(|said| said.is_ending).collect();
        assert_eq!(ending, [false, true]);
    }

    #[test]
    fn what_has_no_name_of_an_alarm_counts_when_it_has_lasted() {
        let mut overview =
            Overview { unknown_nodes: vec!["b".to_owned()], shards_total: 4, ..Overview::default() };
        overview.nodes.push(NodeOverview {
            node: "b".into(),
            state: "unknown".into(),
            ..NodeOverview::default()
        });
        overview.store.state = "down".to_owned();
        let mut first_seen = FirstSeen::new(LASTS);
        let mut at = |overview: &Overview, seconds: u64| {
            let found = seen(overview, &Held::of(overview));
            let (lasting, pending) =
                first_seen.lasting(found.clone(), Duration::from_secs(seconds), 1_000 * seconds);
            assert_eq!(lasting.len() + pending.len(), found.len());
            lasting.into_iter().map(|one| (one.name, one.nodes.join(" "), one.since)).collect::<Vec<_>>()
        };
        assert_eq!((at(&overview, 1), at(&overview, 3)), (vec![], vec![]));
        let told = at(&overview, 4);
        assert_eq!(
            told,
            [
                ("node_silent".into(), "b".into(), Some(1_000)),
                ("store_silent".into(), String::new(), Some(1_000))
            ]
        );
        // Without an answer of b nobody can tell whether its shards have a home.
        overview.unknown_nodes.clear();
        overview.nodes.clear();
        overview.alarms.push(alarm("store_down", "a", "critical", 2, 1.0));
        overview.shards.push(ShardsOf { node: "a".into(), serving: vec![0, 2], changing: vec![] });
        assert_eq!(at(&overview, 5), []);
        assert_eq!(at(&overview, 8), [("shards_homeless".into(), String::new(), Some(5_000))]);
    }

    #[test]
    fn one_that_stops_and_answers_no_more_is_no_surprise() {
        let node = |name: &str, state: &str| NodeOverview {
            node: name.into(),
            state: state.into(),
            ..NodeOverview::default()
        };
        let mut overview = Overview {
            nodes: vec![node("a", "up"), node("b", "stopping")],
            unknown_nodes: vec!["b".to_owned()],
            shards_total: 4,
            ..Overview::default()
        };
        let told = |overview: &Overview| {
            let found = seen(overview, &Held::of(overview));
            found.into_iter().map(|one| (one.name, one.nodes.join(" "))).collect::<Vec<_>>()
        };
        assert_eq!(told(&overview), []);
        // Nor does it hide one that is.
        overview.nodes.push(node("c", "unknown"));
        overview.unknown_nodes.push("c".to_owned());
        assert_eq!(told(&overview), [("node_silent".into(), "c".into())]);
    }
}
