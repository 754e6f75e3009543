//! What is wrong, the worst first: the server's alarms, one of each name with all the nodes that it is on at, and what an
//! overview says without an alarm's name. As the console does it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use protocol::calls::{Alarm, Overview};

use super::shards::Held;
use super::words::{many, named};

/// What is seen here counts once it has lasted: shards that change hands are nobody's for a moment.
pub(super) const LASTS: Duration = Duration::from_secs(3);

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Ringing {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) is_critical: bool,
    /// Where, if it is at some nodes alone.
    pub(super) nodes: Vec<String>,
    /// Unix ms, by the server's clock; none where nobody has said.
    pub(super) since: Option<u64>,
    /// What was measured, what it must not lie above, and the unit of both.
    pub(super) measured: Option<(f64, f64, String)>,
    pub(super) text: String,
    pub(super) advice: String,
}

impl Ringing {
    fn of(alarm: &Alarm) -> Self {
        Self {
            name: alarm.name.clone(),
            title: named(&alarm.name),
            is_critical: alarm.severity == "critical",
            nodes: Vec::new(),
            since: Some(alarm.since),
            measured: Some((alarm.value, alarm.limit, alarm.unit.clone())),
            text: alarm.text.clone(),
            advice: alarm.r#do.clone(),
        }
    }

    /// How bad: by grade, then by how far it is beyond its limit.
    fn badness(&self) -> (bool, f64) {
        let beyond = self.measured.as_ref().filter(|(_, limit, _)| *limit > 0.0);
        (self.is_critical, beyond.map_or(0.0, |(value, limit, _)| value / limit))
    }
}

/// All of it, the worst first and the oldest of those. `lasting`: of [`seen`], what counts.
pub(super) fn ringing(overview: &Overview, lasting: Vec<Ringing>) -> Vec<Ringing> {
    let mut groups: BTreeMap<String, Ringing> = BTreeMap::new();
    for alarm in &overview.alarms {
        let here = Ringing::of(alarm);
        let group = groups.entry(alarm.name.clone()).or_insert_with(|| here.clone());
        let mut nodes = std::mem::take(&mut group.nodes);
        let since = group.since.min(here.since);
        if here.badness() > group.badness() {
            *group = here;
        }
        if !alarm.node.is_empty() && !nodes.contains(&alarm.node) {
            nodes.push(alarm.node.clone());
        }
        (group.nodes, group.since) = (nodes, since);
    }
    let mut all: Vec<Ringing> = groups.into_values().chain(lasting).collect();
    all.sort_by_key(|one| (!one.is_critical, one.since));
    all
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
            text: "A member of the cluster that has not answered in time: what it holds is not in these figures.".to_owned(),
            advice: "See whether its process lives and its peer address can be reached. If it died, its shards are taken when its leases end.".to_owned(),
            ..Ringing::default()
        });
    }
    if overview.store.state == "down" && !overview.alarms.iter().any(|alarm| alarm.name == "store_down") {
        found.push(Ringing {
            name: "store_silent".to_owned(),
            title: named("store_down"),
            is_critical: true,
            text: "Players are served from memory; what they are acked is provisional until it is back."
                .to_owned(),
            advice: "See to the store first: do not stop nodes meanwhile, they hold what it does not have."
                .to_owned(),
            ..Ringing::default()
        });
    }
    if held.homeless > 0 {
        found.push(Ringing {
            name: "shards_homeless".to_owned(),
            title: format!("{} no home", many(held.homeless, "shard has", "shards have")),
            text: "Players of these shards are not served now.".to_owned(),
            advice: "Leases of a node that died run out by themselves, in a few seconds. If it lasts, look at the logs of the nodes for why they do not take them.".to_owned(),
            ..Ringing::default()
        });
    }
    found
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

    /// Those that have lasted, with since when. `at`: since the first look; `as_of`: by the server's clock, Unix ms.
    pub(super) fn lasting(&mut self, found: Vec<Ringing>, at: Duration, as_of: u64) -> Vec<Ringing> {
        let before = std::mem::take(&mut self.since);
        let mut lasting = Vec::new();
        for one in found {
            let first = before.get(&one.name).copied().unwrap_or((at, as_of));
            self.since.insert(one.name.clone(), first);
            if at.saturating_sub(first.0) >= self.lasts {
                lasting.push(Ringing { since: Some(first.1), ..one });
            }
        }
        lasting
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
        let told: Vec<_> = all
            .iter()
            .map(|one| (one.name.as_str(), one.nodes.join(" "), one.since, one.text.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("store_down", "b".into(), Some(9), "at b it is"),
                ("latency", "a b c".into(), Some(5), "at b it is")
            ]
        );
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
            let lasting = first_seen.lasting(found, Duration::from_secs(seconds), 1_000 * seconds);
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
