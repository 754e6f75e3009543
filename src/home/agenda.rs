//! When each shard is to be flushed: at once if somebody waits, else when its oldest dirty record is one interval old.
//! Shards put themselves in, the one flush task takes them out. Knows no record. Holds each shard at most once.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::record::millis;
use crate::clock;
use crate::ids::ShardId;

/// Parts of an interval: what falls due in one of them is flushed together, so that one write serves many shards.
const PARTS: u64 = 8;
/// Due before everything else.
const AT_ONCE: u64 = 0;
/// Not due at all.
const NEVER: u64 = u64::MAX;

/// Whose turn it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Anybody's.
    Anyone,
    /// Only of those in a hurry.
    Urgent,
}

/// The plan of all shards of a node.
pub(super) struct Agenda {
    interval_ms: u64,
    plan: Mutex<Plan>,
    moved: Notify,
}

struct Plan {
    /// When (monotonic ms), and who; the first is next.
    queue: BTreeSet<(u64, ShardId)>,
    /// The same by shard.
    due: Vec<u64>,
    /// Not before then, whoever hurries; by shard.
    held: Vec<u64>,
}

impl Agenda {
    /// Nobody is due. A record waits for `interval` at most.
    pub(super) fn new(shards: u16, interval: Duration) -> Self {
        let (due, held) = (vec![NEVER; usize::from(shards)], vec![AT_ONCE; usize::from(shards)]);
        let plan = Plan { queue: BTreeSet::new(), due, held };
        Self { interval_ms: millis(interval).max(1), plan: Mutex::new(plan), moved: Notify::new() }
    }

    /// Plans a shard whose oldest dirty record is dirty since then.
    pub(super) fn pace(&self, shard: ShardId, since_ms: u64) {
        let part = (self.interval_ms / PARTS).max(1);
        // Rounded down: together with others, and never later than one interval.
        self.plan(shard, ((since_ms + self.interval_ms) / part * part).max(AT_ONCE + 1));
    }

    /// Plans a shard that somebody waits for.
    pub(super) fn hurry(&self, shard: ShardId) {
        self.plan(shard, AT_ONCE);
    }

    /// Plans a shard for then, unless it is planned for an earlier time or held back.
    pub(super) fn plan(&self, shard: ShardId, due_ms: u64) {
        let mut plan = self.plan.lock();
        let (held, due) = plan.of(shard);
        if held.max(due_ms) < due && plan.set(shard, held.max(due_ms)) {
            drop(plan);
            self.moved.notify_one();
        }
    }

    /// Plans a shard for then and not before, whoever hurries: the store has just failed it.
    pub(super) fn hold(&self, shard: ShardId, until_ms: u64) {
        let mut plan = self.plan.lock();
        if let Some(held) = plan.held.get_mut(usize::from(shard.number())) {
            *held = until_ms;
        }
        if plan.set(shard, until_ms) {
            drop(plan);
            self.moved.notify_one();
        }
    }

    /// Takes out the next who is due.
    pub(super) fn take(&self, turn: Turn, now_ms: u64) -> Option<ShardId> {
        let mut plan = self.plan.lock();
        let until = if turn == Turn::Urgent { AT_ONCE } else { now_ms };
        let (_, shard) = *plan.queue.first().filter(|(due_ms, _)| *due_ms <= until)?;
        plan.queue.pop_first();
        let at = usize::from(shard.number());
        plan.due.get_mut(at).into_iter().for_each(|due| *due = NEVER);
        plan.held.get_mut(at).into_iter().for_each(|held| *held = AT_ONCE);
        Some(shard)
    }

    /// Waits until somebody is due.
    pub(super) async fn wait(&self, turn: Turn) {
        loop {
            let first = self.plan.lock().queue.first().map(|(due_ms, _)| *due_ms);
            let now_ms = clock::now().mono_ms;
            match (first, turn) {
                (Some(AT_ONCE), _) => return,
                (Some(due_ms), Turn::Anyone) if due_ms <= now_ms => return,
                (Some(due_ms), Turn::Anyone) => {
                    let due = Instant::now() + Duration::from_millis(due_ms - now_ms);
                    tokio::select! {
                        () = self.moved.notified() => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                (_, Turn::Urgent) | (None, _) => self.moved.notified().await,
            }
        }
    }
}

impl Plan {
    /// Until when a shard is held back, and when it is due.
    fn of(&self, shard: ShardId) -> (u64, u64) {
        let at = usize::from(shard.number());
        (self.held.get(at).copied().unwrap_or(NEVER), self.due.get(at).copied().unwrap_or(AT_ONCE))
    }

    /// Moves a shard; whether it is the first now.
    fn set(&mut self, shard: ShardId, due_ms: u64) -> bool {
        let Some(due) = self.due.get_mut(usize::from(shard.number())) else { return false };
        let before = std::mem::replace(due, due_ms);
        self.queue.remove(&(before, shard));
        self.queue.insert((due_ms, shard));
        self.queue.first() == Some(&(due_ms, shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agenda() -> (Agenda, [ShardId; 3]) {
        let shards = [0, 1, 2].map(|number| ShardId::numbered(number).unwrap());
        (Agenda::new(3, Duration::from_millis(80)), shards)
    }

    #[test]
    fn who_waits_is_first_and_others_come_together_before_their_interval_is_over() {
        let (agenda, [a, b, c]) = agenda();
        agenda.pace(a, 1_003);
        agenda.pace(b, 1_009);
        agenda.hurry(c);
        assert_eq!(agenda.take(Turn::Anyone, 1_079), Some(c));
        assert_eq!(agenda.take(Turn::Anyone, 1_079), None);
        assert_eq!(agenda.take(Turn::Urgent, 1_080), None);
        assert_eq!(agenda.take(Turn::Anyone, 1_080), Some(a));
        assert_eq!(agenda.take(Turn::Anyone, 1_080), Some(b));
        assert_eq!(agenda.take(Turn::Anyone, 9_000), None);
    }

    #[test]
    fn a_shard_is_planned_once_for_the_earliest_time_asked() {
        let (agenda, [a, b, _]) = agenda();
        agenda.plan(a, 500);
        agenda.plan(a, 400);
        agenda.plan(a, 600);
        agenda.plan(b, 450);
        assert_eq!(agenda.take(Turn::Anyone, 399), None);
        assert_eq!(agenda.take(Turn::Anyone, 600), Some(a));
        assert_eq!(agenda.take(Turn::Anyone, 600), Some(b));
        assert_eq!(agenda.take(Turn::Anyone, 600), None);
    }

    #[test]
    fn whom_the_store_has_just_failed_waits_however_much_somebody_hurries() {
        let (agenda, [a, b, _]) = agenda();
        agenda.hurry(a);
        agenda.hold(a, 100);
        agenda.hurry(a);
        agenda.hurry(b);
        assert_eq!(agenda.take(Turn::Anyone, 99), Some(b));
        assert_eq!(agenda.take(Turn::Anyone, 99), None);
        assert_eq!(agenda.take(Turn::Anyone, 100), Some(a));
        agenda.hurry(a);
        assert_eq!(agenda.take(Turn::Urgent, 100), Some(a));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hurry_ends_the_wait_of_who_waits_for_those_in_a_hurry_only() {
        let (agenda, [a, b, _]) = agenda();
        agenda.plan(a, 1);
        let hurry = async {
            tokio::task::yield_now().await;
            agenda.hurry(b);
        };
        tokio::join!(agenda.wait(Turn::Urgent), hurry);
        assert_eq!(agenda.take(Turn::Urgent, 1), Some(b));
    }
}
