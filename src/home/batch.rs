//! One batch of one shard: dirty records gathered behind the shard's fence, and what becomes of each when the answer
//! comes. An outcome that is unknown leaves records dirty; they go out under the next number. Called by `flush`.

use std::sync::Arc;
use std::time::Duration;

use super::Home;
use super::lease::Event;
use super::record::notes::NOTES_MAX;
use super::record::{Record, millis};
use super::records::{Cell, Durability, Flight, Slot};
use super::shard::{Fence, Shard};
use crate::clock::Now;
use crate::events::DurableUpTo;
use crate::ids::{PlayerId, SessionId, Stamp, Version};
use crate::store::{
    COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, Commit, CommitRecord, Committed, EVENTS_PER_BATCH_MAX, Keep, Reach,
    RecordStatus, StoreError, StoredRecord,
};

/// What may be lost with a batch is known: the store leaves out as many numbers.
const _: () = assert!((COMMIT_RECORDS_MAX * NOTES_MAX) as u64 <= EVENTS_PER_BATCH_MAX);

/// Kept by the store beyond every logical expiry.
const SLACK: Duration = Duration::from_secs(60);

/// One record on its way.
pub(super) struct Sent {
    cell: Arc<Cell>,
    version: Version,
    lists_version: Version,
    keep: Keep,
    /// Where the record stood in the store's index before.
    filed_under: u64,
    /// When it was gathered (Unix ms).
    at: u64,
    /// Whether it has something to tell.
    tells: bool,
    counters: Vec<(SessionId, u64)>,
}

/// What a batch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// All settled.
    Done,
    /// The store has lost some or has others: they go again, as they are to be now.
    Again,
    /// Not sent: wait until the store takes commits.
    HeldBack,
    /// Unknown, or of no use: wait a little.
    Retry,
}

impl Home {
    /// Records behind the shard's fence.
    pub(super) fn batch(&self, shard: &Shard, fence: &Fence, records: Vec<CommitRecord>) -> Commit {
        Commit {
            shard: shard.id(),
            owner: self.owner.clone(),
            epoch: fence.epoch,
            generation: fence.generation,
            flush_seq: fence.flush_seq,
            // Zero never lies above what is stored: the guard is off, to prove that a checker notices.
            flush_seq_acked: if self.settings.lost_writes_unchecked {
                crate::ids::FlushSeq::ZERO
            } else {
                fence.flush_seq_acked
            },
            remember: self.settings.remember,
            records,
        }
    }

    /// Takes dirty records, the oldest first, as many as one commit may carry.
    pub(super) fn gather(&self, shard: &Shard, fence: &Fence, now: Now) -> (Vec<Sent>, Vec<CommitRecord>) {
        let mut cells = shard.take_dirty(COMMIT_RECORDS_MAX, now.mono_ms).into_iter();
        let (mut sent, mut records, mut bytes) = (Vec::new(), Vec::<CommitRecord>::new(), 0);
        while let Some(cell) = cells.next() {
            let Some((one, record)) = self.snapshot(&cell, fence, now) else { continue };
            bytes += record.bytes();
            if !records.is_empty() && bytes > COMMIT_BYTES_MAX {
                cell.with_slot(|slot| slot.queued = true);
                let rest: Vec<_> = std::iter::once(cell).chain(cells).collect();
                let somebody_waits = rest.iter().any(|cell| cell.with_slot(|slot| !slot.waiters.is_empty()));
                shard.put_back(rest, somebody_waits);
                break;
            }
            sent.push(one);
            records.push(record);
        }
        (sent, records)
    }

    fn snapshot(&self, cell: &Arc<Cell>, fence: &Fence, now: Now) -> Option<(Sent, CommitRecord)> {
        cell.with_slot(|slot| {
            slot.queued = false;
            if slot.gone || slot.record.epoch != fence.epoch {
                return None;
            }
            let (keep, filed_under) = (self.keep(slot, now), slot.filed_under);
            if keep != Keep::Unmoved {
                // Known again when the answer comes: until then, either may be stored.
                slot.filed_under = 0;
            }
            if !slot.known {
                self.known.add(cell.shard().id(), cell.player());
            }
            let record = &slot.record;
            let (ttl, w) = match keep {
                Keep::Live { .. } => {
                    let lists_moved = record.lists_version != slot.base_lists || slot.restore;
                    (self.settings.rules.session_ttl * 2 + SLACK, lists_moved.then(|| record.encode_w()))
                }
                Keep::Unmoved | Keep::Remainder | Keep::Erase => (self.remembered_for(record, now), None),
            };
            let told =
                |id: SessionId| slot.told.iter().find(|(known, _)| *known == id).map_or(0, |(_, cseq)| *cseq);
            let counters = record.sessions.iter().filter(|session| session.cseq > told(session.id));
            let entries = record.notes.entries(record.version, self.owner.node());
            let sent = Sent {
                cell: Arc::clone(cell),
                version: record.version,
                lists_version: record.lists_version,
                keep,
                filed_under,
                at: now.unix_ms,
                tells: !entries.is_empty(),
                counters: counters.map(|session| (session.id, session.cseq)).collect(),
            };
            let record = CommitRecord {
                player: cell.player().clone(),
                base: slot.base,
                version: record.version,
                keep,
                ttl,
                restore: slot.restore,
                known: !slot.known,
                p: record.encode_p(),
                w,
                ban: record.ban_mark(now.unix_ms, slot.restore),
                entries,
            };
            Some((sent, record))
        })
    }

    /// What the store must do for this record. Its expiry, its place in the index and its watches are left alone while
    /// they say the truth to an eighth of a session's lifetime: half of a commit's cost is theirs.
    fn keep(&self, slot: &Slot, now: Now) -> Keep {
        let record = &slot.record;
        if record.sessions.is_empty() {
            return if record.is_erased() { Keep::Erase } else { Keep::Remainder };
        }
        let expires_at_unix_ms = record.expires_at(self.context(now));
        let near = millis(self.settings.rules.session_ttl) / 8;
        // Who is not in the filter's present generation gets into it with all that is written.
        let stays = slot.known
            && slot.filed_under > 0
            && !slot.restore
            && record.lists_version == slot.base_lists
            && slot.filed_under.abs_diff(expires_at_unix_ms) < near
            && slot.touched_at.abs_diff(now.unix_ms) < near;
        if stays { Keep::Unmoved } else { Keep::Live { expires_at_unix_ms } }
    }

    /// Sees to all that follows from a batch's answer.
    pub(super) fn settle(
        &self,
        shard: &Arc<Shard>,
        fence: &Fence,
        sent: Vec<Sent>,
        (answer, flight): (Result<Committed, StoreError>, Flight),
        now: Now,
    ) -> Outcome {
        match answer {
            Ok(Committed::Done(statuses)) => {
                shard.acknowledged(fence);
                shard.takes_commits(true);
                let mut outcome = Outcome::Done;
                let tells = sent.iter().any(|one| one.tells);
                for (one, status) in sent.into_iter().zip(statuses) {
                    outcome = outcome.max(self.settle_one(fence, one, (status, flight), now));
                }
                if tells {
                    self.events_written.send_replace(());
                }
                return outcome;
            }
            Ok(Committed::Fenced { epoch }) => {
                shard.stop_serving(fence.epoch);
                self.tell_keeper(shard.id(), Event::CommitFenced { sent: fence.epoch, epoch });
            }
            Ok(Committed::RolledBack | Committed::Lost) => {
                shard.stop_serving(fence.epoch);
                self.tell_keeper(shard.id(), Event::StoreLost { sent: fence.epoch });
            }
            Ok(Committed::Stale { flush_seq }) => shard.skip_to(flush_seq),
            Err(StoreError::HeldBack { reach, .. }) => {
                // Of a store that is only just back it is known that it takes commits.
                if reach != Reach::Well {
                    shard.takes_commits(false);
                }
                put_back(shard, fence, sent);
                return Outcome::HeldBack;
            }
            Err(error) => {
                shard.takes_commits(false);
                self.faults.commits.note(&error);
                tracing::debug!(operation = "flush", shard = shard.id().number(), status = %error, "commit unknown");
            }
        }
        for one in sent {
            one.cell.requeue(now.mono_ms);
        }
        Outcome::Retry
    }

    fn settle_one(
        &self,
        fence: &Fence,
        sent: Sent,
        (status, flight): (RecordStatus, Flight),
        now: Now,
    ) -> Outcome {
        match status {
            RecordStatus::Applied | RecordStatus::Same | RecordStatus::Repaired | RecordStatus::Restored => {
                self.committed(fence, &sent, flight);
                Outcome::Done
            }
            RecordStatus::Gone => {
                sent.cell.with_slot(|slot| (slot.restore, slot.known) = (true, false));
                sent.cell.requeue(now.mono_ms);
                Outcome::Again
            }
            RecordStatus::Exists(stored) => {
                let outcome = self.merge(&sent.cell, &stored, now);
                sent.cell.requeue(now.mono_ms);
                outcome
            }
        }
    }

    fn committed(&self, fence: &Fence, sent: &Sent, flight: Flight) {
        let still_ended = sent.cell.with_slot(|slot| {
            if slot.record.epoch != fence.epoch {
                return false;
            }
            slot.base = slot.base.max(sent.version);
            slot.base_lists = sent.lists_version;
            slot.record.notes.stored(sent.version);
            (slot.known, slot.restore) = (true, false);
            if let Keep::Live { expires_at_unix_ms } = sent.keep {
                (slot.touched_at, slot.filed_under) = (sent.at, expires_at_unix_ms);
            }
            if sent.keep != Keep::Unmoved && slot.record.version == sent.version {
                slot.record.ban_listed();
            }
            release_waiters(slot, sent.version, flight);
            for (id, cseq) in &sent.counters {
                slot.told.retain(|(known, _)| known != id && slot.record.session(*known).is_some());
                slot.told.push((*id, *cseq));
            }
            matches!(sent.keep, Keep::Remainder | Keep::Erase) && slot.record.version == sent.version
        });
        for (session, cseq) in &sent.counters {
            let stamp = Stamp::new(fence.epoch, sent.version);
            self.events.durable.put(*session, DurableUpTo { stamp, cseq: *cseq });
        }
        if still_ended {
            sent.cell.shard().raise_version_max(sent.version);
            self.revocations.left_at(sent.cell.player(), sent.cell.shard().id(), sent.version);
            let version = sent.version;
            // Before she leaves memory: whoever does not find her there must not be told what was stored before.
            self.cold.changed(sent.cell.player(), fence.epoch, version);
            self.records.remove_if(sent.cell.player(), |slot| {
                slot.record.sessions.is_empty() && slot.record.version == version && slot.waiters.is_empty()
            });
        }
    }

    /// A base-zero record met one of an older epoch: the version goes above both, the stored line becomes history.
    fn merge(&self, cell: &Arc<Cell>, stored: &StoredRecord, now: Now) -> Outcome {
        let Ok(before) = Record::decode(stored) else {
            tracing::error!(operation = "merge", player = %cell.player(), "the stored record cannot be read");
            return Outcome::Retry;
        };
        self.merge_into(cell, before, stored.version, now);
        Outcome::Again
    }

    /// A record meets what the store holds under `version`.
    pub(super) fn merge_into(&self, cell: &Arc<Cell>, before: Record, version: Version, now: Now) {
        let (ended, shown) = cell.with_slot(|slot| {
            slot.base = version;
            // Our own record, whose answer was lost: nobody is a stranger.
            if slot.record.shares_a_session_with(&before) {
                slot.record.version = slot.record.version.max(version).next();
                return (Vec::new(), None);
            }
            let (rooms, ver) = (slot.record.rooms_version, slot.record.view.ver);
            let ended = slot.record.merge(before, self.context(now));
            self.hold_bars(cell.shard(), cell.player(), &slot.record, now);
            // Sessions of the stored record that stay can be taken up again here.
            slot.record.sessions.iter().for_each(|session| self.records.index(session.id, cell));
            cell.tell_rooms_moved(slot, rooms, &self.events);
            let is_moved = slot.record.view.ver != ver;
            (ended, is_moved.then(|| slot.record.view.clone()))
        });
        self.ended(cell, ended);
        if let Some(view) = shown {
            self.events.shows(cell.player(), view);
        }
        self.arm(cell, now);
    }

    /// How long the store keeps a remainder: a ban, for as long as it lasts.
    fn remembered_for(&self, record: &Record, now: Now) -> Duration {
        self.settings.remember.max(record.barred_for(now.unix_ms).saturating_add(SLACK))
    }

    /// The remainder of a player whose live record the store remembers though it had ended (a store that went back).
    pub(super) fn remainder_of(
        &self,
        player: PlayerId,
        stored: &StoredRecord,
        epoch: crate::ids::Epoch,
        now: Now,
    ) -> Option<CommitRecord> {
        let mut record = Record::decode(stored).ok()?;
        record.take_over(epoch);
        record.end_all(self.context(now));
        record.note_loss(now.unix_ms);
        Some(CommitRecord {
            player,
            base: stored.version,
            version: record.version,
            keep: Keep::Remainder,
            ttl: self.remembered_for(&record, now),
            restore: true,
            known: true,
            p: record.encode_p(),
            w: None,
            ban: record.ban_mark(now.unix_ms, true),
            entries: record.notes.entries(record.version, self.owner.node()),
        })
    }
}

/// What was not sent goes next, as if it had not been gathered; of a record that is dirty anew only the newest goes.
fn put_back(shard: &Shard, fence: &Fence, sent: Vec<Sent>) {
    let mut somebody_waits = false;
    let goes_again = |one: Sent| {
        let goes = one.cell.with_slot(|slot| {
            if slot.filed_under == 0 && slot.record.epoch == fence.epoch {
                slot.filed_under = one.filed_under;
            }
            somebody_waits |= !slot.waiters.is_empty();
            !slot.gone && !std::mem::replace(&mut slot.queued, true)
        });
        goes.then_some(one.cell)
    };
    let cells = sent.into_iter().filter_map(goes_again).collect();
    shard.put_back(cells, somebody_waits);
}

fn release_waiters(slot: &mut Slot, version: Version, flight: Flight) {
    for (wanted, waiter) in std::mem::take(&mut slot.waiters) {
        if wanted <= version {
            let _ = waiter.send(Durability::Committed(Some(flight)));
        } else {
            slot.waiters.push((wanted, waiter));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::clock;
    use crate::events::EndReason;
    use crate::home::houses::{House, named};
    use crate::home::record::Record;
    use crate::ids::{Epoch, Version};

    #[tokio::test]
    async fn who_keeps_a_player_near_hears_when_her_record_meets_another() {
        let house = House::new().await;
        let (ann, bea) = (house.login("ann").await, house.login("bea").await);
        house.events.are_kept_near(true);
        // Another home has told of her, under a higher counter than this one, and forgot her since.
        let mut before = Record::first(Epoch::of(1), Version::of(50));
        before.view.ver = crate::ids::Stamp::new(Epoch::of(1), Version::of(50));
        let now = clock::now();
        house.home.merge_into(&ann.cell, before, Version::of(50), now);
        let ver = ann.cell.read(|record| record.view.ver).unwrap();
        assert_eq!(house.events.kept_near.take(), [(named("ann"), ver)]);
        // Her own record, whose answer was lost, says nothing new of how she looks.
        let own = bea.cell.read(Record::clone).unwrap();
        house.home.merge_into(&bea.cell, own, Version::of(1), now);
        assert!(house.events.kept_near.take().is_empty());
    }

    #[tokio::test]
    async fn who_keeps_a_player_near_hears_that_she_is_erased_though_she_is_not_here() {
        let house = House::new().await;
        let ann = house.login("ann").await;
        house.home.end(&ann.cell, ann.session, EndReason::Logout, clock::now()).unwrap();
        house.is_stored().await;
        let seen = house.home.look(&named("ann")).await.unwrap().unwrap().view;
        assert!(house.home.find(&named("ann")).is_none() && seen.last_seen_unix_ms > 0);
        house.events.are_kept_near(true);
        let lift = crate::home::BanAtErasure::Lift;
        house.home.erase(&named("ann"), EndReason::Logout, lift).await.unwrap();
        let told = house.events.kept_near.take();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            (told[0].1.epoch, told[0].1.version) > (seen.ver.epoch, seen.ver.version),
            "{told:?} {seen:?}"
        );
    }
}
