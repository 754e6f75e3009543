//! What rings at the nodes, and what one who follows has heard of it: the difference is what she is told next. Holds the
//! alarms of those that are nodes now, a bounded number of each. Pure; `alarms` asks the nodes for it.

use std::collections::{BTreeMap, BTreeSet};

use protocol::calls::{Alarm, AlarmChange};

use super::following::Chunk;

/// Most alarms of one node that are told of: more than this version has names for.
const NODE_ALARMS_MAX: usize = 64;
/// Why an alarm is over whose node says nothing any more.
const NODE_GONE: &str = "node_gone";
/// Why one is over that another process of the node's name knows nothing of.
const NODE_RESTARTED: &str = "node_restarted";

/// What all nodes say that rings.
#[derive(Debug, Default)]
pub(super) struct Ringing {
    /// When they were asked (Unix ms).
    as_of: u64,
    nodes: BTreeMap<String, Said>,
}

/// What one node says.
#[derive(Debug, Default)]
struct Said {
    /// Which process of its name.
    process: String,
    /// `None`: it does not answer.
    alarms: Option<Vec<Alarm>>,
}

impl Ringing {
    /// What each of them said: its name, which process it is, and what rings. A process that is gone says nothing, and is not missed where the next one under its name has
    /// answered.
    pub(super) fn of(
        as_of: u64,
        said: impl IntoIterator<Item = (String, String, Option<Vec<Alarm>>)>,
    ) -> Self {
        let mut nodes = BTreeMap::<_, Said>::new();
        for (node, process, alarms) in said {
            let known = nodes.entry(node).or_default();
            if let Some(mut alarms) = alarms {
                alarms.truncate(NODE_ALARMS_MAX);
                *known = Said { process, alarms: Some(alarms) };
            }
        }
        Self { as_of, nodes }
    }
}

/// Alarms by node and name.
type Alarms = BTreeMap<(String, String), Alarm>;

/// What rings, as one who follows was told it last.
#[derive(Debug, Default)]
pub(super) struct Heard {
    alarms: Alarms,
    /// Which process of each node it was that said so.
    processes: BTreeMap<String, String>,
}

impl Heard {
    /// What has ended and what has begun since the last time. Of a node that does not answer nothing has, until it is none
    /// any more: what rang there ends then, for nobody can say how it goes on.
    pub(super) fn take(&mut self, ringing: &Ringing) -> Chunk {
        let before = std::mem::take(&mut self.alarms);
        let mut restarted = BTreeSet::new();
        self.processes.retain(|node, _| ringing.nodes.contains_key(node));
        for (node, Said { process, alarms: said }) in &ringing.nodes {
            if said.is_some() {
                let known = self.processes.insert(node.clone(), process.clone());
                if known.is_some_and(|known| known != *process) {
                    restarted.insert(node);
                }
            }
            let now = said.iter().flatten().map(|alarm| ((node.clone(), alarm.name.clone()), alarm.clone()));
            self.alarms.extend(now);
            if said.is_none() {
                let as_before = before.iter().filter(|((of, _), _)| of == node);
                self.alarms.extend(as_before.map(|(key, alarm)| (key.clone(), alarm.clone())));
            }
        }
        let at = ringing.as_of;
        let ended = missing_in(&self.alarms, &before).map(|((node, _), alarm)| AlarmChange {
            kind: "alarm_ended".to_owned(),
            at,
            why: match node {
                node if !ringing.nodes.contains_key(node) => Some(NODE_GONE.to_owned()),
                node if restarted.contains(node) => Some(NODE_RESTARTED.to_owned()),
                _ => None,
            },
            alarm: alarm.clone(),
        });
        let begun = missing_in(&before, &self.alarms).map(|(_, alarm)| AlarmChange {
            kind: "alarm_began".to_owned(),
            at: alarm.since,
            why: None,
            alarm: alarm.clone(),
        });
        let mut chunk = Chunk::default();
        for change in ended.chain(begun) {
            chunk.events += 1;
            chunk.say("alarm", &change);
        }
        chunk
    }
}

/// Those that are not among the others. One that has ended and begun again since is another one.
fn missing_in<'a>(
    others: &'a Alarms,
    alarms: &'a Alarms,
) -> impl Iterator<Item = (&'a (String, String), &'a Alarm)> {
    alarms.iter().filter(|(key, alarm)| others.get(*key).is_none_or(|other| other.since != alarm.since))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn alarm(node: &str, name: &str, since: u64) -> Alarm {
        Alarm {
            name: name.to_owned(),
            node: node.to_owned(),
            severity: "warning".to_owned(),
            since,
            value: 2.5,
            limit: 1.0,
            unit: "seconds".to_owned(),
            text: "it is slow".to_owned(),
            r#do: "look".to_owned(),
            ending: false,
        }
    }

    /// What a node says: the names of its alarms, and since when they ring.
    type Said<'a> = Option<&'a [(&'a str, u64)]>;

    fn ringing(as_of: u64, said: &[(&str, Said<'_>)]) -> Ringing {
        let alarms = |node: &str, alarms: &[(&str, u64)]| {
            alarms.iter().map(|(name, since)| alarm(node, name, *since)).collect()
        };
        let said = said.iter().map(|(node, said)| {
            let alarms: Option<Vec<Alarm>> = said.map(|said| alarms(node, said));
            ((*node).to_owned(), "1".to_owned(), alarms)
        });
        Ringing::of(as_of, said)
    }

    /// What is said: kind, node, name, since when, and why.
    fn told(chunk: &Chunk) -> Vec<String> {
        let events = chunk.text.split_terminator("\n\n").map(|event| {
            let data = event.strip_prefix("event: alarm\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            let of = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
            format!("{} {} {} {} {}", of("kind"), of("node"), of("name"), data["since"], of("why"))
                .trim_end()
                .to_owned()
        });
        let events: Vec<_> = events.collect();
        assert_eq!(events.len(), chunk.events);
        events
    }

    #[test]
    fn an_alarm_is_told_when_it_begins_and_when_it_ends_with_all_that_is_known_of_it() {
        let mut heard = Heard::default();
        let chunk = heard.take(&ringing(9_000, &[("a", Some(&[("latency", 5_000)]))]));
        let (event, data) = chunk.text.trim_end().split_once('\n').unwrap();
        // No id: whoever comes back does so with the last checkpoint.
        assert_eq!((event, chunk.events, chunk.oldest_at), ("event: alarm", 1, None));
        let mut expected = json!({
            "kind": "alarm_began", "at": 5_000, "name": "latency", "node": "a", "severity": "warning", "since": 5_000,
            "value": 2.5, "limit": 1.0, "unit": "seconds", "text": "it is slow", "do": "look", "ending": false,
        });
        let said: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(said, expected);
        assert!(heard.take(&ringing(10_000, &[("a", Some(&[("latency", 5_000)]))])).is_empty());
        let chunk = heard.take(&ringing(11_000, &[("a", Some(&[]))]));
        expected["kind"] = json!("alarm_ended");
        expected["at"] = json!(11_000);
        let said = chunk.text.trim_end().strip_prefix("event: alarm\ndata: ").unwrap();
        assert_eq!(serde_json::from_str::<Value>(said).unwrap(), expected);
        assert!(heard.take(&ringing(12_000, &[("a", Some(&[]))])).is_empty());
    }

    #[test]
    fn what_rings_already_is_told_to_whoever_comes_and_of_every_node() {
        let all = ringing(
            9_000,
            &[("b", Some(&[("latency", 2), ("mail_lag", 3)])), ("a", Some(&[("latency", 1)])), ("c", None)],
        );
        let told = told(&Heard::default().take(&all));
        assert_eq!(told, ["alarm_began a latency 1", "alarm_began b latency 2", "alarm_began b mail_lag 3"]);
    }

    #[test]
    fn of_a_node_that_does_not_answer_nothing_changes_until_it_is_none_any_more() {
        let mut heard = Heard::default();
        heard.take(&ringing(1, &[("a", Some(&[("latency", 1)])), ("b", Some(&[("latency", 1)]))]));
        for as_of in 2..5 {
            assert_eq!(
                told(&heard.take(&ringing(as_of, &[("a", Some(&[("latency", 1)])), ("b", None)]))),
                [""; 0]
            );
        }
        // It is back, and only here is it known what rings there now.
        let back =
            ringing(5, &[("a", Some(&[("latency", 1)])), ("b", Some(&[("latency", 1), ("traffic", 4)]))]);
        assert_eq!(told(&heard.take(&back)), ["alarm_began b traffic 4"]);
        heard.take(&ringing(6, &[("a", Some(&[("latency", 1)])), ("b", None)]));
        let gone = told(&heard.take(&ringing(7, &[("a", Some(&[("latency", 1)]))])));
        assert_eq!(gone, ["alarm_ended b latency 1 node_gone", "alarm_ended b traffic 4 node_gone"]);
    }

    #[test]
    fn one_that_has_ended_and_begun_again_between_two_looks_is_another_one() {
        let mut heard = Heard::default();
        heard.take(&ringing(1, &[("a", Some(&[("latency", 1)]))]));
        let told = told(&heard.take(&ringing(900, &[("a", Some(&[("latency", 800)]))])));
        assert_eq!(told, ["alarm_ended a latency 1", "alarm_began a latency 800"]);
    }

    #[test]
    fn a_process_that_is_gone_is_not_missed_where_the_next_one_has_answered() {
        for said in [[None, Some(&[][..])], [Some(&[][..]), None]] {
            let mut heard = Heard::default();
            heard.take(&ringing(1, &[("b", Some(&[("latency", 1)]))]));
            let [one, other] = said.map(|said| ("b", said));
            assert_eq!(told(&heard.take(&ringing(2, &[one, other]))), ["alarm_ended b latency 1"]);
        }
    }

    #[test]
    fn what_a_process_before_rang_for_is_not_said_to_be_well_again() {
        let mut heard = Heard::default();
        heard.take(&ringing(1, &[("b", Some(&[("latency", 1), ("traffic", 1)]))]));
        let next = |alarms| Ringing::of(2, [("b".to_owned(), "2".to_owned(), alarms)]);
        assert_eq!(told(&heard.take(&next(None))), [""; 0]);
        let told_then = told(&heard.take(&next(Some(vec![alarm("b", "latency", 2)]))));
        assert_eq!(
            told_then,
            [
                "alarm_ended b latency 1 node_restarted",
                "alarm_ended b traffic 1 node_restarted",
                "alarm_began b latency 2"
            ]
        );
        assert_eq!(told(&heard.take(&next(Some(Vec::new())))), ["alarm_ended b latency 2"]);
    }

    #[test]
    fn what_is_remembered_is_bounded_whatever_a_node_says_and_however_long_it_is_gone() {
        let names: Vec<String> = (0..10_000).map(|number| format!("alarm-{number}")).collect();
        let mut heard = Heard::default();
        for round in 0..10 {
            let some: Vec<(&str, u64)> =
                names.iter().skip(round * 1_000).map(|name| (name.as_str(), 1)).collect();
            let node = format!("node-{round}");
            heard.take(&ringing(1, &[(&node, Some(&some))]));
            assert_eq!(heard.alarms.len(), NODE_ALARMS_MAX);
        }
        assert_eq!(heard.take(&ringing(2, &[])).events, NODE_ALARMS_MAX);
        assert!(heard.alarms.is_empty());
    }
}
