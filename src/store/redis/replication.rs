//! Whether replicas have what was committed: rounds of one small script a shard and one WAIT for all of them, on a
//! connection of their own, since a WAIT holds up whatever is sent behind it (a PING took 447 ms). Used by `lanes`.
//!
//! Not on the commit's connection, for the same reason. The script writes behind the batch, so a WAIT on this connection
//! covers the batch, too; and it looks that the batch is there, so a master that took over without it is found out.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::oneshot;

use super::errors::Failure;
use super::lane::Lane;
use super::reply::Reply;
use super::scripts::Script;
use crate::store::layout::hex16;
use crate::store::{CommittedUpTo, StoreError};

/// Most who may wait for one server's replicas.
const WAITING_MAX: usize = 16_384;

/// How long a round may take, and when it is done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// How many replicas must have it.
    pub(super) replicas: u32,
    /// How long they may take.
    pub(super) patience: Duration,
}

/// Those who wait for the replicas of one server.
pub(super) struct Replication {
    lane: Lane,
    waiting: Mutex<Vec<Waiting>>,
    /// Held by whoever runs a round, for all who wait then.
    turn: tokio::sync::Mutex<()>,
}

/// The latest batch of each shard, by its meta, epoch and generation.
type Batches = BTreeMap<(String, u64, u64), u64>;

struct Waiting {
    meta: String,
    upto: CommittedUpTo,
    answer: oneshot::Sender<Result<bool, Failure>>,
}

impl Replication {
    pub(super) fn new(lane: Lane) -> Self {
        Self { lane, waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    pub(super) fn close(&self) {
        self.lane.close();
    }

    /// Waits until replicas have it; `false` if too few do in time, or if the server no longer has it itself.
    pub(super) async fn confirm(
        &self,
        script: &Script,
        terms: Terms,
        meta: String,
        upto: CommittedUpTo,
    ) -> Result<bool, Failure> {
        let (answer, mut answered) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING_MAX {
                return Err(Failure::of_ours(StoreError::Refused(format!(
                    "more than {WAITING_MAX} wait for replicas"
                ))));
            }
            waiting.push(Waiting { meta, upto, answer });
        }
        loop {
            let _turn = self.turn.lock().await;
            match answered.try_recv() {
                Ok(answer) => return answer,
                Err(oneshot::error::TryRecvError::Closed) => {
                    return Err(Failure::of_ours(StoreError::Timeout));
                }
                Err(oneshot::error::TryRecvError::Empty) => self.round(script, terms).await,
            }
        }
    }

    /// Asks once for all who wait: at most as many looks as there are shards.
    async fn round(&self, script: &Script, terms: Terms) {
        let mut taken = std::mem::take(&mut *self.waiting.lock());
        taken.retain(|waiting| !waiting.answer.is_closed());
        // Who waits for a later batch of an epoch waits for the earlier ones as well.
        let mut shards = Batches::new();
        for waiting in &taken {
            let latest = shards.entry(waiting.shard()).or_default();
            *latest = (*latest).max(waiting.upto.flush_seq.number());
        }
        let outcome = self.ask(script, terms, &shards).await;
        for waiting in taken {
            let answer = match &outcome {
                Ok(here) => Ok(here.contains_key(&waiting.shard())),
                Err(failure) => Err(failure.clone()),
            };
            let _ = waiting.answer.send(answer);
        }
    }

    /// The shards of which enough replicas have everything.
    async fn ask(&self, script: &Script, terms: Terms, shards: &Batches) -> Result<Batches, Failure> {
        let arguments: Vec<_> = shards
            .iter()
            .map(|((meta, epoch, generation), flush_seq)| {
                move |command: &mut Cmd| {
                    command.arg(meta).arg(epoch).arg(hex16(*generation)).arg(flush_seq);
                }
            })
            .collect();
        let calls: Vec<_> = shards
            .keys()
            .zip(&arguments)
            .map(|((meta, ..), arguments)| script.with(meta, 1, arguments))
            .collect();
        let mut wait = redis::cmd("WAIT");
        wait.arg(terms.replicas).arg(u64::try_from(terms.patience.as_millis()).unwrap_or(u64::MAX).max(1));
        let (looks, replicas) = self.lane.call_all_then(&calls, &wait).await?;
        let replicas = Reply::of(replicas).and_then(|mut reply| reply.number());
        if replicas.map_err(Failure::of_ours)? < u64::from(terms.replicas) {
            return Ok(Batches::new());
        }
        let here = shards.iter().zip(looks).filter(|(_, look)| matches!(look, Value::Int(1)));
        Ok(here.map(|((shard, flush_seq), _)| (shard.clone(), *flush_seq)).collect())
    }
}

impl Waiting {
    fn shard(&self) -> (String, u64, u64) {
        (self.meta.clone(), self.upto.epoch.number(), self.upto.generation.number())
    }
}
