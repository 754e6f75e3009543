//! What becomes of a shard that another node has: its memory goes, and its links are told what survived. Called by
//! `keeper`, and by `handover` when nothing was lost.

use std::sync::Arc;

use super::Home;
use super::history::Verdict;
use super::record::Record;
use super::records::{Cell, Durability};
use super::shard::Shard;
use crate::events::{LinkEnd, RollbackNotice};
use crate::ids::Stamp;
use crate::store::{LOAD_PLAYERS_MAX, StoredRecord};

impl Home {
    /// Lets a shard's memory go; those who wait are told.
    pub(super) fn free(&self, shard: &Arc<Shard>) -> Vec<Arc<Cell>> {
        let cells = self.records.of_shard(shard);
        self.free_all(shard, &cells);
        cells
    }

    /// The same for who knows all its records.
    pub(super) fn free_all(&self, shard: &Arc<Shard>, cells: &[Arc<Cell>]) {
        shard.serve_until(0);
        shard.set_fence(None);
        shard.forget_dirty();
        self.bans.forget_shard(shard.id());
        self.arrivals.forget(shard.id());
        for cell in cells {
            self.records.remove_if(cell.player(), |slot| {
                for (_, waiter) in slot.waiters.drain(..) {
                    let _ = waiter.send(Durability::Fenced);
                }
                true
            });
            cell.with_slot(|slot| {
                slot.record.sessions.iter().for_each(|session| self.records.unindex(session.id))
            });
            cell.tell_rooms_elsewhere(&self.events);
        }
    }

    /// Tells the links of a lost shard what survived, as far as the store can say, and closes them.
    pub(super) async fn tell_fenced(&self, cells: Vec<Arc<Cell>>) {
        for cells in cells.chunks(LOAD_PLAYERS_MAX) {
            let Some(shard) = cells.first().map(|cell| cell.shard().id()) else { return };
            let players = cells.iter().map(|cell| cell.player().clone()).collect();
            let loaded = self.store.load_players(shard, players).await.unwrap_or_default();
            let stored = loaded.into_iter().chain(std::iter::repeat(None));
            for (cell, stored) in cells.iter().zip(stored) {
                self.tell_one_fenced(cell, stored.as_ref());
            }
        }
    }

    fn tell_one_fenced(&self, cell: &Cell, stored: Option<&StoredRecord>) {
        let (from, sessions) = cell.with_slot(|slot| {
            let sessions = std::mem::take(&mut slot.record.sessions);
            (slot.record.stamp(), sessions)
        });
        self.meters.moved("lost", sessions.len());
        let survived = stored.and_then(|stored| Record::decode(stored).ok());
        for session in sessions {
            let rolled_back = match &survived {
                None => Some(RollbackNotice { from, to: None, cseq: 0 }),
                Some(record) => rollback(record, from, session.id, session.cseq),
            };
            self.events.sessions.update(session.id, |event| {
                (event.rolled_back, event.link_end) = (rolled_back, Some(LinkEnd::Moved));
                event.watched = session.watches;
            });
        }
    }
}

/// What a session whose home was lost has to be told, if the stored record lies behind what she was acked.
fn rollback(
    record: &Record,
    from: Stamp,
    session: crate::ids::SessionId,
    cseq: u64,
) -> Option<RollbackNotice> {
    let survived = record.session(session).map_or(0, |session| session.cseq.min(cseq));
    match record.history.judge(record.stamp(), from) {
        Verdict::Reached => None,
        // Stored under our own epoch, but not all of it.
        Verdict::Behind => Some(RollbackNotice { from, to: Some(record.stamp()), cseq: survived }),
        Verdict::RolledBack(to) => Some(RollbackNotice { from, to: Some(to), cseq: survived }),
        // The store has not seen our epoch: what it holds is what we inherited, at most.
        Verdict::Unknown if from.version > record.version => {
            Some(RollbackNotice { from, to: Some(record.stamp()), cseq: survived })
        }
        Verdict::Unknown => None,
    }
}
