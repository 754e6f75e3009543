//! From the store to memory: a shard's live records and bans, read under a new epoch before anybody is served; with them
//! goes what the home before gave of their sessions. Called by `keeper`. A shard that was lost meanwhile is left alone.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Home;
use super::record::Record;
use super::records::Cell;
use super::shard::Shard;
use crate::clock;
use crate::ids::{PlayerId, SessionId};
use crate::store::{Grant, StoredRecord};

/// Live records a page of a load.
const LOAD_PAGE: usize = 256;

/// What the home before gave of sessions.
type Arrived = HashMap<SessionId, Bytes, ahash::RandomState>;

impl Home {
    /// Reads the shard's live records into memory, under the new epoch; says whether all are there.
    pub(super) async fn load(&self, shard: &Arc<Shard>, grant: &Grant) -> bool {
        let (mut cursor, mut arrived) = (None, self.arrivals.take(shard.id(), grant.epoch));
        loop {
            match self.store.load_live(shard.id(), cursor, LOAD_PAGE).await {
                Ok(_) if shard.fence().is_none_or(|fence| fence.epoch != grant.epoch) => return false,
                Ok(page) => {
                    if page.missing > 0 {
                        tracing::warn!(
                            operation = "load",
                            shard = shard.id().number(),
                            missing = page.missing
                        );
                    }
                    self.take_in(shard, grant, page.records, &mut arrived);
                    cursor = page.next;
                    if cursor.is_none() {
                        return self.load_bans(shard, grant).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(operation = "load", shard = shard.id().number(), status = %error, "no answer");
                    self.faults.leases.note(&error);
                    return false;
                }
            }
        }
    }

    /// Reads the shard's bans into memory; says whether all are there.
    async fn load_bans(&self, shard: &Arc<Shard>, grant: &Grant) -> bool {
        let mut cursor = None;
        loop {
            let page = match self.store.load_banned(shard.id(), cursor, LOAD_PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(operation = "load", shard = shard.id().number(), status = %error, "no answer");
                    self.faults.leases.note(&error);
                    return false;
                }
            };
            if shard.fence().is_none_or(|fence| fence.epoch != grant.epoch) {
                return false;
            }
            let now = clock::now();
            for (player, stored) in page.records {
                match Record::decode(&stored) {
                    Ok(record) => self.hold_ban(shard, &player, &record, now),
                    Err(error) => {
                        tracing::error!(operation = "load", %player, status = %error, "a ban cannot be read");
                    }
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return true;
            }
        }
    }

    fn take_in(
        &self,
        shard: &Arc<Shard>,
        grant: &Grant,
        records: Vec<(PlayerId, StoredRecord)>,
        arrived: &mut Arrived,
    ) {
        let now = clock::now();
        for (player, stored) in records {
            match Record::decode(&stored) {
                Ok(mut record) => {
                    record.take_over(grant.epoch);
                    record.detach_all(now);
                    let sessions: Vec<_> = record.sessions.iter().map(|session| session.id).collect();
                    let cell = Arc::new(Cell::new(player, Arc::clone(shard), record, stored.version, now));
                    let cell = self.records.insert(cell);
                    for session in sessions {
                        self.records.index(session, &cell);
                        // Before her rooms hear of her: what is said there from now on goes in.
                        self.take_in_mailbox(session, cell.player(), arrived);
                    }
                    self.arm(&cell, now);
                    cell.tell_rooms(&self.events);
                }
                Err(error) => {
                    tracing::error!(operation = "load", %player, status = %error, "a record cannot be read");
                }
            }
        }
    }

    fn take_in_mailbox(&self, session: SessionId, player: &PlayerId, arrived: &mut Arrived) {
        let Some((neighbours, packed)) = self.neighbours.as_ref().zip(arrived.remove(&session)) else {
            return;
        };
        if !neighbours.mailboxes.take_in(session, player, &packed) {
            tracing::warn!(operation = "load", %player, %session, "what its home before gave of a session cannot be read");
        }
    }
}
