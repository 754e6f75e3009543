//! A service of a test that follows the events of a server.

use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::patience::PATIENCE;

/// One who follows.
pub(crate) struct Follower {
    answer: reqwest::Response,
    unread: String,
    /// The last one that was told.
    pub(crate) checkpoint: String,
    /// What was told of alarms, and nobody has waited for yet.
    alarms: Vec<Told>,
}

/// What is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) event: String,
    pub(crate) data: Value,
}

impl Told {
    /// What tells it from all others, and the same if it is told again.
    pub(crate) fn id(&self) -> String {
        let data = &self.data;
        let of = |field: &str| data[field].to_string();
        ["player", "epoch", "version", "kind", "session"].map(of).join(" ")
    }

    /// It is of players, or says that something of theirs is missing.
    pub(crate) fn is_of_players(&self) -> bool {
        !matches!(self.event.as_str(), "checkpoint" | "alarm")
    }

    /// What happened, in a word: the kind, or the status that others see.
    pub(crate) fn word(&self) -> &str {
        self.data["status"].as_str().or(self.data["kind"].as_str()).unwrap_or(&self.event)
    }
}

impl Follower {
    /// Follows the events of `http://HOST:PORT`, from now on or after a checkpoint.
    pub(crate) async fn at(url: &str, key: &str, after: Option<&str>) -> Self {
        let mut follower = Self::try_at(url, key, after).await.expect("events");
        if after.is_none() {
            // What happens from now on is told.
            assert_eq!(follower.next().await.expect("a checkpoint").event, "checkpoint");
        }
        follower
    }

    /// The same, where it may be refused: with which status, and why.
    pub(crate) async fn try_at(url: &str, key: &str, after: Option<&str>) -> Result<Self, (u16, Value)> {
        let after = after.map_or(String::new(), |after| format!("?after={after}"));
        let asked = reqwest::Client::new().get(format!("{url}/v1/events{after}")).bearer_auth(key).send();
        let answer = timeout(PATIENCE, asked).await.expect("an answer in time").unwrap();
        let status = answer.status().as_u16();
        if status != 200 {
            return Err((status, answer.json().await.unwrap()));
        }
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Ok(Self { answer, unread: String::new(), checkpoint: String::new(), alarms: Vec::new() })
    }

    /// What is told next; `None` if the server ends it.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        // Comments say nothing: a stream of them alone is waited for no longer.
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((event, rest)) = self.unread.split_once("\n\n") {
                let told = told(event);
                self.unread = rest.to_owned();
                match told {
                    Some(told) => {
                        match told.event.as_str() {
                            "checkpoint" => {
                                self.checkpoint = told.data["checkpoint"].as_str().unwrap().to_owned();
                            }
                            "alarm" => self.alarms.push(told.clone()),
                            _ => {}
                        }
                        return Some(told);
                    }
                    None => continue,
                }
            }
            let chunk = timeout_at(deadline, self.answer.chunk()).await.expect("nothing is told");
            self.unread.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    /// What is told of players, or is missing, until this is; checkpoints and alarms are only remembered.
    pub(crate) async fn until(&mut self, is_last: impl Fn(&Told) -> bool) -> Vec<Told> {
        let mut all = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "what is waited for is never told: {all:?}");
            let told = self.next().await.expect("events end before what is waited for");
            if told.is_of_players() {
                let last = is_last(&told);
                all.push(told);
                if last {
                    return all;
                }
            }
        }
    }

    /// Waits for a checkpoint, which has all that was told before; and what was told until then.
    pub(crate) async fn until_checkpoint(&mut self) -> Vec<Told> {
        let mut all = Vec::new();
        loop {
            match self.next().await.expect("a checkpoint") {
                told if told.event == "checkpoint" => return all,
                told => all.extend(told.is_of_players().then_some(told)),
            }
        }
    }

    /// Waits until this alarm of this node begins or ends, if that has not been told yet; what is told of it.
    #[allow(dead_code, reason = "tests/it does, through this same file")]
    pub(crate) async fn until_alarm(&mut self, kind: &str, name: &str, node: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut alarms = self.alarms.drain(..);
            let is_it = |told: &Told| {
                (&told.data["kind"], &told.data["name"], &told.data["node"])
                    == (&kind.into(), &name.into(), &node.into())
            };
            if let Some(told) = alarms.find(is_it) {
                let rest = alarms.collect();
                self.alarms = rest;
                return told.data;
            }
            drop(alarms);
            assert!(Instant::now() < deadline, "{kind} {name} of {node} is never told");
            self.next().await.expect("events end before the alarm");
        }
    }
}

fn told(event: &str) -> Option<Told> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data: Value = serde_json::from_str(field("data")?).unwrap();
    let event = field("event").expect("every event has a name").to_owned();
    // What an EventSource comes back with: the last one, whatever is told behind it.
    assert_eq!(field("id"), data["checkpoint"].as_str(), "of {event}");
    Some(Told { event, data })
}
