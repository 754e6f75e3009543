//! A player who writes down what she does and hears, in the words that the checkers read: for stories that must happen
//! in one order, where bots would leave it to chance. Speaks through the real client; waits for each answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use load::history::{Claim, Entry, Notice, Opened, Operation, RING_SLOTS, Value, What};
use protocol::client::{Answered, Client, Config, Event, Events, Happened, OkBody, Outcome, Presented, Push};
use protocol::reply::{Ready, Rollback};
use protocol::request::{Ack, Request, StateGet, StatePatch};
use protocol::{Stamp, Value as Wire};
use tokio::time::timeout;

use crate::harness::patience::PATIENCE;

/// A player and her diary.
pub(crate) struct Diarist {
    process: u32,
    began: Instant,
    log: Vec<Entry>,
    session: Option<Arc<str>>,
    /// The latest that she was told of her record.
    stamp: Stamp,
    client: Client,
    events: Events,
    next_id: u64,
    next_k: u64,
}

impl Diarist {
    /// Logs in and reads what she finds.
    pub(crate) async fn login(url: String, process: u32, began: Instant) -> Self {
        let name = player(process);
        let (client, events) = Client::start(Config::new(url, move || format!("dev:{name}")));
        let mut diarist = Self {
            process,
            began,
            log: Vec::new(),
            session: None,
            stamp: Stamp::default(),
            client,
            events,
            next_id: 1,
            next_k: 1,
        };
        diarist.is_back().await;
        diarist.reads().await;
        diarist
    }

    /// One more on the counter and its number in the ring; whether it was acked so.
    pub(crate) async fn writes(&mut self, ack: Ack) -> bool {
        let k = self.next_k;
        self.next_k += 1;
        let number = Wire::Int(i64::try_from(k).unwrap());
        let request = Request::StatePatch(StatePatch {
            set: Some(BTreeMap::from([(format!("r{:02}", k % RING_SLOTS).into(), number)])),
            incr: Some(BTreeMap::from([("n".into(), 1)])),
            ack: Some(ack),
            ..StatePatch::default()
        });
        self.asks(Operation::Write { k, ack }, request).await
    }

    /// The same, so often.
    pub(crate) async fn writes_often(&mut self, ack: Ack, times: usize) {
        for _ in 0..times {
            assert!(self.writes(ack).await, "a write was refused: {:?}", self.log.last());
        }
    }

    /// Reads everything.
    pub(crate) async fn reads(&mut self) {
        assert!(self.asks(Operation::Read, Request::StateGet(StateGet::default())).await);
    }

    /// Waits for the next `ready`.
    pub(crate) async fn is_back(&mut self) -> &Opened {
        loop {
            self.hears().await;
            if let Some(Entry { what: What::Notice { notice: Notice::Ready(_) }, .. }) = self.log.last() {
                break;
            }
        }
        match &self.log.last().unwrap().what {
            What::Notice { notice: Notice::Ready(opened) } => opened,
            _ => unreachable!("it was just seen"),
        }
    }

    /// Her player id.
    pub(crate) fn player(&self) -> String {
        player(self.process)
    }

    /// The version of her record that she was told last.
    pub(crate) fn version(&self) -> u64 {
        self.stamp.1
    }

    /// All that she wrote down.
    pub(crate) fn diary(self) -> Vec<Entry> {
        self.log
    }

    async fn asks(&mut self, operation: Operation, request: Request<'static>) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        let now = Instant::now();
        self.note(now, What::Invoke { id, operation });
        self.client.submit(id, request, now).await.unwrap();
        loop {
            self.hears().await;
            match &self.log.last().unwrap().what {
                What::Ok { id: answered, .. } if *answered == id => return true,
                What::Fail { id: answered, .. } | What::Unknown { id: answered, .. } if *answered == id => {
                    return false;
                }
                _ => {}
            }
        }
    }

    /// Writes the next thing down that she hears.
    async fn hears(&mut self) {
        let written = self.log.len();
        while self.log.len() == written {
            let event = timeout(PATIENCE, self.events.next()).await;
            let Event { at, what } = event.expect("nothing is heard").expect("the client lives");
            if let Some(what) = self.heard(what) {
                self.note(at, what);
            }
        }
    }

    fn note(&mut self, at: Instant, what: What) {
        let at_us = at.saturating_duration_since(self.began).as_micros();
        let (process, session) = (self.process, self.session.clone());
        self.log.push(Entry { at_us: u64::try_from(at_us).unwrap(), process, session, what });
    }

    fn heard(&mut self, what: Happened) -> Option<What> {
        let notice = match what {
            Happened::Answered(answered) => return Some(self.answered(&answered)),
            Happened::Ready { ready, presented } => self.opened(*ready, presented),
            Happened::Turned { error, presented } => Notice::Turned {
                code: error.code,
                claim: presented.map(claim),
                lost: error.lost == Some(true),
            },
            Happened::Push(Push::RolledBack(lost)) => {
                Notice::RolledBack(Rollback { from: lost.from, to: lost.to, cseq: lost.cseq })
            }
            Happened::Push(Push::Durable(told)) => Notice::Durable { stamp: told.stamp, cseq: told.cseq },
            Happened::Down(down) => Notice::Down { code: down.code, on_purpose: None, stay_ms: 0 },
            Happened::Ended { code, reason } => Notice::Ended { code, wanted: false, reason },
            Happened::Push(_)
            | Happened::Redirected(_)
            | Happened::SeqGap { .. }
            | Happened::Unreachable { .. } => return None,
        };
        Some(What::Notice { notice })
    }

    fn opened(&mut self, ready: Ready, presented: Option<Presented>) -> Notice {
        self.session = Some(ready.session.as_str().into());
        self.stamp = ready.stamp;
        Notice::Ready(Box::new(Opened {
            resumed: ready.resumed,
            stamp: ready.stamp,
            cseq: ready.cseq,
            node: ready.node,
            resume_ms: ready.resume_ms,
            heartbeat_ms: ready.heartbeat_ms,
            missed: ready.missed == Some(true),
            rolled_back: ready.rolled_back,
            claim: presented.map(claim),
            ..Opened::default()
        }))
    }

    fn answered(&mut self, answered: &Answered) -> What {
        let (id, cseq) = (answered.tag, answered.cseq);
        match &answered.outcome {
            Outcome::Unknown(_) => What::Unknown { id, cseq },
            Outcome::Refused(error) => {
                What::Fail { id, cseq, code: error.code, applied: error.applied == Some(true) }
            }
            Outcome::Ok(body) => {
                self.stamp = body.stamp().unwrap_or(self.stamp);
                let (ack, prov, dup) = match body {
                    OkBody::Changed(changed) => {
                        (changed.ack, changed.prov == Some(true), changed.dup == Some(true))
                    }
                    _ => (None, false, false),
                };
                What::Ok { id, cseq, stamp: body.stamp(), ack, prov, dup, value: value(body) }
            }
        }
    }
}

fn player(process: u32) -> String {
    format!("diarist-{process}")
}

fn claim(presented: Presented) -> Claim {
    let ms =
        |away: Option<Duration>| away.map_or(0, |away| u64::try_from(away.as_millis()).unwrap_or(u64::MAX));
    Claim {
        stamp: presented.stamp,
        away_ms: ms(presented.away),
        away_at_least_ms: ms(presented.away_at_least),
    }
}

fn value(body: &OkBody) -> Value {
    let mut of: HashMap<&str, i64> = HashMap::new();
    let state = match body {
        OkBody::State(got) => Some(&got.state),
        OkBody::Changed(changed) => changed.state.as_ref(),
        _ => None,
    };
    for (key, value) in state.into_iter().flatten() {
        if let Wire::Int(number) = value {
            of.insert(key, *number);
        }
    }
    let number = |key: &str| of.get(key).copied().unwrap_or(0);
    let slot = |slot| u64::try_from(number(&format!("r{slot:02}"))).unwrap();
    match body {
        OkBody::State(_) => Value::State { counter: number("n"), ring: (0..RING_SLOTS).map(slot).collect() },
        OkBody::Changed(changed) if changed.state.is_some() => Value::Counter(number("n")),
        _ => Value::None,
    }
}
