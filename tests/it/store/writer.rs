//! A home that writes on through faults, as a home does: what is unknown goes out again under the next number, what
//! the store lost is restored. Every change carries an event of its own, so that one that took effect twice shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth::ids::FlushSeq;
use hearth::store::{
    AcquireRequest, Acquired, CommitRecord, Committed, Goes, RecordStatus, Store, StoreError,
};

use super::fixture::{Home, LONG, live, request, shard, telling};
use crate::harness::patience::PATIENCE;

/// One home of one shard with one player.
pub(crate) struct Writer {
    store: Arc<dyn Store>,
    pub(crate) home: Home,
    /// The version that is made next.
    version: u64,
    /// The version that was acknowledged last.
    pub(crate) acked: u64,
    is_lost: bool,
    /// How often the store had to be filled from memory.
    pub(crate) repairs: usize,
    /// Why calls failed, by their first word.
    pub(crate) failures: BTreeMap<String, usize>,
}

impl Writer {
    pub(crate) async fn of_shard(store: &Arc<dyn Store>, number: u16) -> Self {
        let home = Home::ask(store, AcquireRequest { shard: shard(number), ..request("a#1", LONG) }).await;
        let (version, failures) = (1, BTreeMap::new());
        Self { store: Arc::clone(store), home, version, acked: 0, is_lost: false, repairs: 0, failures }
    }

    pub(crate) fn player(&self) -> String {
        format!("ann-{}", self.home.shard)
    }

    /// The next record to send.
    pub(crate) fn record(&self) -> CommitRecord {
        let event = format!("{} at {}", self.player(), self.version);
        let record = live(&self.player(), self.acked, self.version);
        telling(CommitRecord { restore: self.is_lost, ..record }, Goes::Events, &event)
    }

    /// Takes in what became of it; says whether it was taken.
    pub(crate) async fn hear(&mut self, answer: Result<Committed, StoreError>) -> bool {
        match answer {
            Ok(Committed::Done(statuses)) => {
                self.home.acked = self.home.sent;
                match &statuses[..] {
                    [RecordStatus::Gone] => self.is_lost = true,
                    [RecordStatus::Exists(_)] => panic!("nobody else writes"),
                    _ => {
                        (self.acked, self.is_lost) = (self.version, false);
                        self.version += 1;
                        return true;
                    }
                }
            }
            Ok(Committed::RolledBack | Committed::Lost) => self.repair().await,
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                let error = error.to_string();
                let word = error.split_once(": ").map_or(error.as_str(), |(_, reason)| reason);
                let word = word.split([':', ' ']).next().unwrap().to_owned();
                *self.failures.entry(word).or_default() += 1;
            }
        }
        false
    }

    /// Sends once; says whether it was taken.
    pub(crate) async fn send(&mut self) -> bool {
        let batch = self.home.batch(vec![self.record()]);
        let answer = self.store.commit(batch).await;
        self.hear(answer).await
    }

    /// Sends until so many more were taken, and returns the longest time without.
    pub(crate) async fn write(&mut self, count: u64) -> Duration {
        let (until, mut longest) = (self.acked + count, Duration::ZERO);
        let mut last = Instant::now();
        while self.acked < until {
            if self.send().await {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            } else {
                assert!(last.elapsed() < PATIENCE, "no commit is taken: {:?}", self.failures);
                // As a home waits before it tries again.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        longest
    }

    async fn repair(&mut self) {
        let asked =
            AcquireRequest { shard: self.home.shard, floor: self.home.grant.epoch, ..request("a#1", LONG) };
        if let Ok(Acquired::Granted(grant)) = self.store.lease_acquire(asked).await {
            (self.home.sent, self.home.acked) = (grant.flush_seq, grant.flush_seq);
            self.home.grant = grant;
            (self.is_lost, self.repairs) = (true, self.repairs + 1);
        }
    }

    /// Looks that the last acknowledged change is there, and that none was made twice.
    pub(crate) async fn check(&mut self, events: Vec<String>) {
        assert_eq!(self.home.body(&self.player()).await.0, self.acked);
        let mut once = events.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), events.len(), "a change took effect twice: {events:?}");
        let last = format!("{} at {}", self.player(), self.acked);
        assert!(events.contains(&last), "{last} is not in {events:?}");
        if self.repairs == 0 {
            assert_eq!(events.len() as u64, self.acked, "a change is missing: {events:?}");
        }
        assert!(self.home.acked > FlushSeq::ZERO);
    }
}

/// The events of a stream, from the answer to XRANGE.
pub(crate) fn events_of(entries: Vec<(String, Vec<String>)>) -> Vec<String> {
    entries.into_iter().filter_map(|(_, fields)| fields.into_iter().nth(1)).collect()
}
