//! What becomes of a shard that another node has: what the store does not have is laid out for that node, the memory goes,
//! and its links are told. Whose record the next home has got is sent there, whose record it has not is told what the
//! store has. Called by `keeper`, and by `handover` when nothing was lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::Home;
use super::history::Verdict;
use super::lease::PULL_MS;
use super::record::{LinkState, Record, Session};
use super::records::{Cell, Durability};
use super::salvage;
use super::shard::Shard;
use crate::events::{LinkEnd, RollbackNotice};
use crate::ids::{Epoch, ShardId, Stamp};
use crate::store::{LOAD_PLAYERS_MAX, StoredRecord};

/// How much longer than a pull takes at most the next home has to ask for what the store does not have, before links are
/// told that it is lost: it may have had no link yet.
const ASKED_LATER: Duration = Duration::from_millis(250);

/// What is left of a shard that another node has.
pub(super) struct Remains {
    shard: ShardId,
    /// As it was held here; `None`: it was not.
    epoch: Option<Epoch>,
    /// Those that the store has as they were, and those that it may not have.
    stored: Vec<Arc<Cell>>,
    unstored: Vec<Arc<Cell>>,
}

impl Remains {
    pub(super) fn players(&self) -> usize {
        self.stored.len() + self.unstored.len()
    }
}

impl Home {
    /// Lets a shard's memory go; those who wait are told.
    pub(super) fn free(&self, shard: &Arc<Shard>) -> Remains {
        shard.serve_until(0);
        let (cells, epoch) = (self.records.of_shard(shard), shard.fence().map(|fence| fence.epoch));
        // Nothing of it leaves any more. Unless the next home has asked already: what has changed since was acked to nobody.
        if let Some(epoch) = epoch.filter(|epoch| !self.parcels.has_of(shard.id(), *epoch)) {
            let arrived = self.arrivals.take(shard.id(), epoch).into_pieces();
            self.lay_out(shard, epoch, &cells, arrived);
        }
        let is_unstored = |cell: &Arc<Cell>| cell.with_slot(|slot| salvage::is_unstored(slot));
        let (unstored, stored) = cells.iter().cloned().partition(is_unstored);
        self.free_all(shard, &cells);
        Remains { shard: shard.id(), epoch, stored, unstored }
    }

    /// The same for who knows all its records.
    pub(super) fn free_all(&self, shard: &Arc<Shard>, cells: &[Arc<Cell>]) {
        shard.serve_until(0);
        shard.set_fence(None);
        shard.forget_dirty();
        shard.forget_blind();
        self.known.forget(shard.id());
        self.cold.forget(shard.id());
        self.bans.forget_shard(shard.id());
        self.revocations.forget_shard(shard.id());
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

    /// Tells the links of a lost shard where to go, or what survived, as far as the store can say, and closes them.
    pub(super) async fn tell_fenced(&self, remains: Remains) {
        let Remains { shard, epoch, stored, unstored } = remains;
        let heir_of = |cell: &Cell| epoch.map(|epoch| self.parcels.heir_of(shard, epoch, cell.player()));
        for cell in &stored {
            self.tell_moved(cell, heir_of(cell).and_then(|(heir, _)| heir).as_ref());
        }
        let has_link = |cell: &Arc<Cell>| {
            cell.with_slot(|slot| {
                slot.record.sessions.iter().any(|session| session.link == LinkState::Attached)
            })
        };
        let linked: HashSet<_> =
            unstored.iter().filter(|cell| has_link(cell)).map(|cell| cell.player().clone()).collect();
        if let Some(epoch) = epoch.filter(|_| !linked.is_empty()) {
            self.parcels.until_given(shard, epoch, self.asked_within()).await;
            self.parcels.keep_back(shard, epoch, &linked);
        }
        let mut lost = Vec::new();
        for cell in unstored {
            match heir_of(&cell) {
                Some((heir, true)) => self.tell_moved(&cell, heir.as_ref()),
                _ => lost.push(cell),
            }
        }
        for cells in lost.chunks(LOAD_PLAYERS_MAX) {
            let players = cells.iter().map(|cell| cell.player().clone()).collect();
            let loaded = self.store.load_players(shard, players).await.unwrap_or_default();
            let stored = loaded.into_iter().chain(std::iter::repeat(None));
            for (cell, stored) in cells.iter().zip(stored) {
                self.tell_one_fenced(cell, stored.as_ref());
            }
        }
    }

    /// As long as the next home may take to ask, if it can.
    fn asked_within(&self) -> Duration {
        let has_links =
            self.neighbours.as_ref().is_some_and(|neighbours| !neighbours.links.peers().is_empty());
        Duration::from_millis(if has_links { self.terms().pull_max_ms() } else { PULL_MS }) + ASKED_LATER
    }

    /// All that was acked is with the next home, or in the store, where that one finds it.
    fn tell_moved(&self, cell: &Cell, heir: Option<&crate::ids::Owner>) {
        let sessions = cell.with_slot(|slot| std::mem::take(&mut slot.record.sessions));
        self.meters.moved("lost", sessions.len());
        let way = heir.and_then(|heir| self.way_to(heir.node()));
        for session in sessions {
            let end = way.clone().map_or(LinkEnd::Moved, LinkEnd::HandedOver);
            self.events.sessions.update(session.id, |event| {
                (event.link_end, event.watched) = (Some(end), session.watches);
            });
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
                Some(record) => rollback(record, from, &session),
            };
            self.events.sessions.update(session.id, |event| {
                (event.rolled_back, event.link_end) = (rolled_back, Some(LinkEnd::Moved));
                event.watched = session.watches;
            });
        }
    }
}

/// What a session whose home was lost has to be told, if the stored record lies behind what she was acked. Nothing, if
/// it was taken up again elsewhere since: its `ready` there has said what survived, and the counter that is stored by now
/// counts the changes that followed, under the numbers of those that are gone.
fn rollback(record: &Record, from: Stamp, session: &Session) -> Option<RollbackNotice> {
    let stored = record.session(session.id);
    if stored.is_some_and(|stored| stored.ticket_n > session.ticket_n) {
        return None;
    }
    let survived = stored.map_or(0, |stored| stored.cseq.min(session.cseq));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::events::Status;
    use crate::home::record::sessions::Login;
    use crate::home::record::state::Patch;
    use crate::home::record::{Context, LoginPolicy, Rules};
    use crate::ids::{SessionId, Version};

    fn ctx() -> Context<'static> {
        let rules = Rules {
            session_ttl: Duration::from_secs(60),
            login_policy: LoginPolicy::Replace,
            presence_grace: Duration::from_secs(15),
            away_after: Duration::ZERO,
            state_bytes_max: 4_096,
            watches_max: 500,
            rooms_max: 3,
            room_grants: Vec::new(),
            cseq_unchecked: false,
        };
        Context { now: Now { mono_ms: 1_000, unix_ms: 1_000_000 }, rules: Box::leak(Box::new(rules)) }
    }

    fn count(record: &mut Record, session: SessionId, cseqs: std::ops::RangeInclusive<u64>) {
        for cseq in cseqs {
            let patch = Patch { incr: vec![("n", 1)], ..Patch::default() };
            record.patch(ctx(), session, &patch, Some(cseq)).unwrap();
        }
    }

    #[test]
    fn what_survived_is_told_by_the_home_that_took_the_session_up_and_by_no_later_counter() {
        let mut here = Record::first(Epoch::of(10), Version::of(5));
        let id = SessionId::generate(ShardId::FIRST, 1);
        let login = Login {
            session: id,
            device: "pc".into(),
            status: Status::Online,
            token_expires_at: u64::MAX,
            token_issued_at: 0,
            grants: Box::default(),
            pending_until: None,
        };
        here.login(ctx(), login).unwrap();
        count(&mut here, id, 1..=1);
        let mut there = here.clone();
        count(&mut here, id, 2..=4);
        let (acked, session) = (here.stamp(), here.session(id).unwrap().clone());
        let survived = there.stamp();
        there.take_over(Epoch::of(20));
        there.detach_all(ctx().now);
        let told = rollback(&there, acked, &session).expect("a loss that nobody has told");
        assert_eq!((told.from, told.to, told.cseq), (acked, Some(survived), 1));
        // Under the numbers of what was lost others follow; whoever made them has heard of it.
        assert_eq!(
            there.attach(ctx(), id, 1, Some(acked)).unwrap().rolled_back,
            Some((acked, Some(survived)))
        );
        count(&mut there, id, 2..=7);
        assert_eq!(rollback(&there, acked, &session), None);
    }
}
