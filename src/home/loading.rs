//! From the store to memory: a shard's live records and bans, read under a new epoch before anybody is served. Called by
//! `keeper`. A shard that was lost meanwhile is left alone.

use std::sync::Arc;

use super::Home;
use super::record::Record;
use super::records::Cell;
use super::shard::{Fence, Shard};
use crate::clock;
use crate::ids::PlayerId;
use crate::store::{Grant, StoredRecord};

/// Live records a page of a load.
const LOAD_PAGE: usize = 256;

impl Home {
    /// Reads the shard's live records into memory, under the new epoch; says whether all are there.
    pub(super) async fn load(&self, shard: &Arc<Shard>, grant: &Grant) -> bool {
        shard.set_fence(Some(Fence::of(grant)));
        let mut cursor = None;
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
                    self.take_in(shard, grant, page.records);
                    cursor = page.next;
                    if cursor.is_none() {
                        return self.load_bans(shard, grant).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(operation = "load", shard = shard.id().number(), status = %error);
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
                    tracing::warn!(operation = "load", shard = shard.id().number(), status = %error);
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

    fn take_in(&self, shard: &Arc<Shard>, grant: &Grant, records: Vec<(PlayerId, StoredRecord)>) {
        let now = clock::now();
        for (player, stored) in records {
            match Record::decode(&stored) {
                Ok(mut record) => {
                    record.take_over(grant.epoch);
                    record.detach_all(now);
                    let sessions: Vec<_> = record.sessions.iter().map(|session| session.id).collect();
                    let cell = Arc::new(Cell::new(player, Arc::clone(shard), record, stored.version, now));
                    let cell = self.records.insert(cell);
                    sessions.into_iter().for_each(|session| self.records.index(session, &cell));
                    self.arm(&cell, now);
                    cell.tell_rooms(&self.events);
                }
                Err(error) => {
                    tracing::error!(operation = "load", %player, status = %error, "a record cannot be read");
                }
            }
        }
    }
}
