//! Time for records: one coarse wheel says which ones to look at, so nothing ever walks the map. The task ends
//! sessions whose time ran out, shows who left after the grace, marks who is idle, and touches attached records so
//! that the store never deletes a live session.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::Home;
use super::record::millis;
use super::records::Cell;
use crate::clock::{self, Now};
use crate::tasks;
use crate::wheel::Wheel;

/// How coarse the wheel is: sessions end at most this late (the promise is exact to the second).
const TICK_MS: u64 = 100;
/// Records after which others get a turn: a millisecond's work at most.
const TURN: usize = 32;

/// The wheel.
pub(super) struct Expiry {
    wheel: Mutex<Wheel<(u64, Weak<Cell>)>>,
}

impl Expiry {
    /// Nothing due.
    #[must_use]
    pub(super) const fn new() -> Self {
        Self { wheel: Mutex::new(Wheel::new(TICK_MS)) }
    }
}

impl Home {
    /// Sees to it that the record is looked at when time next does something to it. Entries are never cancelled: one
    /// that comes too early arms the next.
    pub(super) fn arm(&self, cell: &Arc<Cell>, now: Now) {
        let ctx = self.context(now);
        let touch_every_ms = millis(self.settings.rules.session_ttl) / 4;
        let armed = cell.with_slot(|slot| {
            // ± 20 %, spread by where the record lies in memory rather than by a random number a change.
            let spread = (Arc::as_ptr(cell) as usize as u64 >> 4) % 400;
            let touch_at = slot.touched_at.saturating_add(touch_every_ms.saturating_mul(800 + spread) / 1000);
            // A touch that waits for its commit is not asked for again at every tick.
            let touch_at =
                if slot.queued { touch_at.max(now.unix_ms + touch_every_ms / 8) } else { touch_at };
            let due = slot.record.next_deadline(ctx)?.min(touch_at).max(now.unix_ms + 1);
            (due < slot.armed_at).then(|| {
                slot.armed_at = due;
                due
            })
        });
        if let Some(due) = armed {
            self.expiry.wheel.lock().insert(due, (due, Arc::downgrade(cell)));
        }
    }

    /// The same for a record that has come from elsewhere: what ran out on the way is due at once.
    pub(super) fn arm_loaded(&self, cell: &Arc<Cell>, now: Now) {
        let ctx = self.context(now);
        if !cell.with_slot(|slot| slot.record.is_shown_late(ctx)) {
            return self.arm(cell, now);
        }
        let due = now.unix_ms + 1;
        cell.with_slot(|slot| slot.armed_at = due);
        self.expiry.wheel.lock().insert(due, (due, Arc::downgrade(cell)));
    }

    /// Lets time do its work on one record.
    fn elapse(&self, cell: &Arc<Cell>, now: Now) {
        let touch_every_ms = millis(self.settings.rules.session_ttl) / 4;
        let touch = cell.with_slot(|slot| {
            slot.armed_at = u64::MAX;
            !slot.record.sessions.is_empty()
                && slot.touched_at.saturating_add(touch_every_ms * 8 / 10) <= now.unix_ms
        });
        if let Ok(applied) = self.change(cell, now, |record, ctx| Ok(record.elapse(ctx))) {
            self.ended(cell, applied.value.ended);
            for session in applied.value.token_expired {
                self.link_must_close(session, crate::events::LinkEnd::TokenExpired);
            }
        }
        if touch {
            cell.requeue(now.mono_ms);
        }
    }

    /// The task: at every tick, all that is due.
    pub(super) async fn run_expiry(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tasks::beat();
            tokio::select! {
                biased;
                () = self.tasks.stopping() => return,
                _ = ticks.tick() => {}
            }
            loop {
                let now = clock::now();
                let due = self.expiry.wheel.lock().due(now.unix_ms);
                if due.is_empty() {
                    break;
                }
                for cells in due.chunks(TURN) {
                    for (due, cell) in cells.iter().filter_map(|(due, cell)| Some((*due, cell.upgrade()?))) {
                        // An earlier entry was armed since: this one is not what the record waits for.
                        if cell.with_slot(|slot| slot.armed_at != due) {
                            continue;
                        }
                        // While the shard may not answer, nothing ends either: the new home, or we, will judge.
                        if cell.shard().serves(now.mono_ms) {
                            self.elapse(&cell, now);
                            self.arm(&cell, now);
                        } else {
                            let due = now.unix_ms + 1000;
                            cell.with_slot(|slot| slot.armed_at = due);
                            self.expiry.wheel.lock().insert(due, (due, Arc::downgrade(&cell)));
                        }
                    }
                    // Thousands may be due in one second: others run in between.
                    tasks::beat();
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
