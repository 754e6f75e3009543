//! From the store to memory: a shard's live records, bans, revocations and filter, read under a new epoch before anybody is served; with them
//! goes what the home before gave: records that the store may not have, and what sessions are to be told. Called by
//! `keeper`. A shard that was lost meanwhile is left alone, and what was given and not used is laid out for the next try.

use std::sync::Arc;

use super::Home;
use super::arrivals::Arrived;
use super::lease::Event;
use super::record::Record;
use super::records::Cell;
use super::salvage::{Salvaged, Truth};
use super::shard::Shard;
use crate::clock::{self, Now};
use crate::ids::{Epoch, PlayerId, SessionId, Version};
use crate::store::{Grant, LOAD_PLAYERS_MAX, StoredRecord};

/// Live records a page of a load.
const LOAD_PAGE: usize = 256;

/// One shard that is being loaded.
struct Load<'a> {
    shard: &'a Arc<Shard>,
    grant: &'a Grant,
    /// What the home before gave and is not used yet.
    arrived: Arrived,
    /// What it had beyond the store.
    salvaged: Vec<Arc<Cell>>,
    /// The node that held the shard before, if another process did.
    from: Option<Arc<str>>,
}

impl Load<'_> {
    fn is_lost(&self) -> bool {
        !self.shard.is_under(self.grant.epoch)
    }
}

impl Home {
    /// Reads the shard's live records into memory, under the new epoch; says whether all are there.
    pub(super) async fn load(&self, shard: &Arc<Shard>, grant: &Grant) -> bool {
        let arrived = self.arrivals.take(shard.id(), grant.epoch);
        let from = grant.previous_owner.as_ref().map(|owner| Arc::from(owner.node()));
        let mut load = Load { shard, grant, arrived, salvaged: Vec::new(), from };
        let is_complete = self.load_live(&mut load).await
            && self.load_rest(&mut load).await
            && self.load_bars(&load).await
            && self.load_known(shard, grant.epoch).await;
        if is_complete {
            // What was read while another home had it may be older than what that one wrote.
            self.cold.forget(shard.id());
            self.known.has_come();
            // Not before: a ban that was lifted there is not to be found here after its record has left with its commit.
            self.commit_salvaged(&load);
        } else {
            // The home before has given it and gives it once: it is there for the next try, here or elsewhere.
            let mut cells = self.records.of_shard(shard);
            cells.retain(|cell| cell.read(|record| record.epoch) == Some(grant.epoch));
            self.lay_out(shard, grant.epoch, &cells, load.arrived.into_pieces());
        }
        is_complete
    }

    fn commit_salvaged(&self, load: &Load<'_>) {
        let records = load.salvaged.len();
        if records == 0 {
            return;
        }
        let (number, epoch, now_ms) = (load.shard.id().number(), load.grant.epoch, clock::now().mono_ms);
        load.salvaged.iter().for_each(|cell| cell.requeue(now_ms));
        load.shard.hurry(now_ms);
        tracing::debug!(operation = "load", shard = number, %epoch, records, "records came from the home before");
    }

    async fn load_live(&self, load: &mut Load<'_>) -> bool {
        let (shard, mut cursor) = (load.shard.id(), None);
        loop {
            match self.store.load_live(shard, cursor, LOAD_PAGE).await {
                Ok(_) if load.is_lost() => return false,
                Ok(page) if self.is_overtaken(load.shard, load.grant.epoch, &page.records) => return false,
                Ok(page) => {
                    if page.missing > 0 {
                        let missing = page.missing;
                        tracing::warn!(
                            operation = "load",
                            shard = shard.number(),
                            missing,
                            "records of the index are not there"
                        );
                    }
                    let now = clock::now();
                    for (player, stored) in page.records {
                        self.take_in(load, player, Some(&stored), true, now);
                    }
                    cursor = page.next;
                    if cursor.is_none() {
                        return true;
                    }
                }
                Err(error) => {
                    tracing::debug!(operation = "load", shard = shard.number(), status = %error, "no answer");
                    self.faults.leases.note(&error);
                    return false;
                }
            }
        }
    }

    /// Takes in what the home before had of players whom the store does not list as live.
    async fn load_rest(&self, load: &mut Load<'_>) -> bool {
        let shard = load.shard.id();
        loop {
            let players: Vec<_> = load.arrived.records.keys().take(LOAD_PLAYERS_MAX).cloned().collect();
            if players.is_empty() {
                return true;
            }
            match self.store.load_players(shard, players.clone()).await {
                Ok(_) if load.is_lost() => return false,
                Ok(stored) => {
                    let now = clock::now();
                    let stored = stored.into_iter().chain(std::iter::repeat(None));
                    for (player, stored) in players.into_iter().zip(stored) {
                        self.take_in(load, player, stored.as_ref(), false, now);
                    }
                }
                Err(error) => {
                    tracing::debug!(operation = "load", shard = shard.number(), status = %error, "no answer");
                    self.faults.leases.note(&error);
                    return false;
                }
            }
        }
    }

    /// Whether another home has written since this epoch was granted: a store that lost the grant has given the shard to
    /// somebody else. To hold its records would be to answer under its epoch.
    pub(super) fn is_overtaken<'a>(
        &self,
        shard: &Shard,
        ours: Epoch,
        stored: impl IntoIterator<Item = &'a (PlayerId, StoredRecord)>,
    ) -> bool {
        let newest = stored.into_iter().map(|(_, stored)| stored.epoch).max();
        let Some(epoch) = newest.filter(|epoch| *epoch > ours) else { return false };
        tracing::warn!(
            operation = "load", shard = shard.id().number(), epoch = %ours, by = %epoch,
            "the store has lost that the shard was granted to this node, and has it written by another one"
        );
        self.tell_keeper(shard.id(), Event::Overtaken { epoch });
        true
    }

    /// Reads into memory who is kept out of the shard; says whether all are there.
    async fn load_bars(&self, load: &Load<'_>) -> bool {
        let (shard, mut cursor) = (load.shard, None);
        loop {
            let page = match self.store.load_banned(shard.id(), cursor, LOAD_PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(operation = "load", shard = shard.id().number(), status = %error, "no answer");
                    self.faults.leases.note(&error);
                    return false;
                }
            };
            if load.is_lost() {
                return false;
            }
            let now = clock::now();
            for (player, stored) in page.records {
                // A record in memory knows at least as much as the stored one.
                let hot = self.records.player(&player);
                if hot
                    .and_then(|cell| cell.read(|record| self.hold_bars(shard, &player, record, now)))
                    .is_some()
                {
                    continue;
                }
                match Record::decode(&stored) {
                    Ok(record) => self.hold_bars(shard, &player, &record, now),
                    Err(error) => {
                        tracing::error!(operation = "load", %player, status = %error, "a ban or a revocation cannot be read");
                    }
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return true;
            }
        }
    }

    /// Takes one player in: of what is stored and what the home before gave, whatever is the truth.
    fn take_in(
        &self,
        load: &mut Load<'_>,
        player: PlayerId,
        stored: Option<&StoredRecord>,
        is_live: bool,
        now: Now,
    ) {
        let given = load.arrived.records.remove(&player);
        let stored = match stored.map(Record::decode).transpose() {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(operation = "load", %player, status = %error, "a record cannot be read");
                self.meters.salvaged("refused", usize::from(given.is_some()));
                return;
            }
        };
        let given = given.and_then(|body| {
            let salvaged = Salvaged::unpack(&body, load.grant.epoch);
            if salvaged.is_none() {
                self.meters.salvaged("refused", 1);
                tracing::warn!(operation = "load", %player, "what its home before gave of a record cannot be used");
            }
            salvaged
        });
        let Some(given) = given else {
            if let Some(stored) = stored.filter(|_| is_live) {
                self.hold_stored(load, player, stored, now);
            }
            return;
        };
        let base = stored.as_ref().map_or(Version::ZERO, |stored| stored.version);
        let truth = given.weigh(stored.clone(), load.grant.epoch, self.context(now));
        let outcome = match truth {
            Truth::Salvaged(record, ended) => {
                let cell = self.hold(load, player, *record, base, now);
                // Whatever the store has of her lists, it is written anew.
                cell.with_slot(|slot| slot.base_lists = Version::ZERO);
                cell.read(|record| self.hold_bars(load.shard, cell.player(), record, now));
                self.ended(&cell, ended);
                load.salvaged.push(cell);
                "taken"
            }
            Truth::Stored | Truth::Another => {
                let outcome = if matches!(truth, Truth::Stored) { "stored" } else { "another" };
                if let Some(stored) = stored.filter(|_| is_live) {
                    self.hold_stored(load, player, stored, now);
                }
                outcome
            }
        };
        self.meters.salvaged(outcome, 1);
    }

    fn hold_stored(&self, load: &mut Load<'_>, player: PlayerId, mut record: Record, now: Now) {
        let base = record.version;
        record.take_over(load.grant.epoch);
        record.detach_all(now);
        self.hold(load, player, record, base, now);
    }

    fn hold(
        &self,
        load: &mut Load<'_>,
        player: PlayerId,
        mut record: Record,
        base: Version,
        now: Now,
    ) -> Arc<Cell> {
        record.note_move(now.unix_ms, load.from.clone());
        let sessions: Vec<_> = record.sessions.iter().map(|session| session.id).collect();
        let cell = Arc::new(Cell::new(player, Arc::clone(load.shard), record, base, now));
        let cell = self.records.insert(cell);
        for session in sessions {
            self.records.index(session, &cell);
            // Before her rooms hear of her: what is said there from now on goes in.
            self.take_in_mailbox(session, cell.player(), &mut load.arrived);
        }
        self.arm_loaded(&cell, now);
        cell.tell_rooms(&self.events);
        cell
    }

    fn take_in_mailbox(&self, session: SessionId, player: &PlayerId, arrived: &mut Arrived) {
        let Some((neighbours, packed)) = self.neighbours.as_ref().zip(arrived.sessions.remove(&session))
        else {
            return;
        };
        if !neighbours.mailboxes.take_in(session, player, &packed) {
            tracing::warn!(operation = "load", %player, %session, "what its home before gave of a session cannot be read");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::home::houses::{House, named};
    use crate::home::reading::COLD_WITHIN;
    use crate::home::record::Record;
    use crate::store::Grant;

    #[tokio::test]
    async fn what_was_read_before_a_shard_came_is_read_anew() {
        let house = House::new().await;
        let (home, shard, ann) = (&house.home, house.shard(), named("ann"));
        let read = async || home.cold.read(shard.id(), std::slice::from_ref(&ann), COLD_WITHIN).await;
        assert_eq!(read().await.get(&ann), Some(&None));
        // Another home writes her meanwhile, and tells nobody here.
        let turn = shard.commit_turn.lock().await;
        let fence = shard.next_batch().unwrap();
        let mut record = Record::first(fence.epoch, fence.version_max);
        record.note_loss(1);
        let stored = crate::store::StoredRecord {
            epoch: fence.epoch,
            version: record.version,
            p: record.encode_p(),
            w: None,
        };
        let hers = home.remainder_of(ann.clone(), &stored, fence.epoch, crate::clock::now()).unwrap();
        home.store.commit(home.batch(shard, &fence, vec![hers])).await.unwrap();
        shard.acknowledged(&fence);
        drop(turn);
        assert_eq!(read().await.get(&ann), Some(&None), "it is kept");
        let grant = Grant {
            epoch: fence.epoch,
            flush_seq: fence.flush_seq,
            generation: fence.generation,
            version_max: fence.version_max,
            previous_owner: None,
        };
        assert!(home.load(shard, &grant).await);
        assert!(read().await.get(&ann).is_some_and(Option::is_some));
    }
}
