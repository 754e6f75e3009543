//! When each shard is to be flushed: at once if somebody waits, else when its oldest dirty record is one interval old.
//! Shards put themselves in, the one flush task takes them out. Knows no record. Holds each shard at most once, and
//! starves none: those in a hurry go by the time at which they hurried, and whoever is overdue goes before them.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::record::millis;
use crate::clock;
use crate::ids::ShardId;

/// Parts of an interval: what falls due in one of them is flushed together, so that one write serves many shards.
const PARTS: u64 = 8;

/// Who may be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Everybody who is due.
    Anyone,
    /// Those in a hurry, and those whose time was over an interval ago.
    Urgent,
}

/// The plan of all shards of a node.
pub(super) struct Agenda {
    interval_ms: u64,
    plan: Mutex<Plan>,
    moved: Notify,
}

/// When something falls due (monotonic ms), who goes first of those that fall due together, and the order in which it
/// was planned.
type Due = (u64, u64, u64);

#[derive(Default)]
struct Plan {
    urgent: BTreeMap<Due, ShardId>,
    paced: BTreeMap<Due, ShardId>,
    /// By shard.
    places: Vec<Place>,
    planned: u64,
}

/// Where a shard stands.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    due: Option<Due>,
    is_urgent: bool,
    /// Not before then, whoever hurries.
    held_until_ms: u64,
}

impl Agenda {
    /// Nobody is due. A record waits for `interval` at most.
    pub(super) fn new(shards: u16, interval: Duration) -> Self {
        let plan = Plan { places: vec![Place::default(); usize::from(shards)], ..Plan::default() };
        Self { interval_ms: millis(interval).max(1), plan: Mutex::new(plan), moved: Notify::new() }
    }

    /// Plans a shard whose oldest dirty record is dirty since then.
    pub(super) fn pace(&self, shard: ShardId, since_ms: u64) {
        let part = (self.interval_ms / PARTS).max(1);
        // Rounded down: together with others, and never later than one interval.
        self.plan(shard, (since_ms + self.interval_ms) / part * part, false);
    }

    /// Plans a shard that has been due since then.
    pub(super) fn go_on(&self, shard: ShardId, since_ms: u64) {
        self.plan(shard, since_ms, false);
    }

    /// Plans a shard that somebody waits for since then.
    pub(super) fn hurry(&self, shard: ShardId, since_ms: u64) {
        self.plan(shard, since_ms, true);
    }

    /// Plans a shard for then and not before, whoever hurries: the store has just failed it.
    pub(super) fn hold(&self, shard: ShardId, until_ms: u64, is_urgent: bool) {
        let mut plan = self.plan.lock();
        let Some(place) = plan.take_out(shard) else { return };
        let held = Place { held_until_ms: until_ms, is_urgent: place.is_urgent | is_urgent, ..place };
        self.put(plan, shard, (until_ms, 0), held);
    }

    /// The same of one that the store holds back, for about `wait_ms`: all such fall due together, and whose records have
    /// been dirty longest goes first.
    pub(super) fn hold_in_line(
        &self,
        shard: ShardId,
        now_ms: u64,
        wait_ms: u64,
        dirty_since_ms: u64,
        is_urgent: bool,
    ) {
        let until_ms = (now_ms / wait_ms.max(1) + 1) * wait_ms.max(1);
        let mut plan = self.plan.lock();
        let Some(place) = plan.take_out(shard) else { return };
        let held = Place { held_until_ms: until_ms, is_urgent: place.is_urgent | is_urgent, ..place };
        self.put(plan, shard, (until_ms, dirty_since_ms), held);
    }

    /// Takes out the next who is due.
    pub(super) fn take(&self, who: Who, now_ms: u64) -> Option<ShardId> {
        let mut plan = self.plan.lock();
        let shard = plan.next(who, now_ms, self.interval_ms)?;
        plan.take_out(shard)?;
        // What held it is over, or it would not be due.
        plan.place(shard)?.held_until_ms = 0;
        Some(shard)
    }

    /// Waits until somebody is due.
    pub(super) async fn wait(&self, who: Who) {
        loop {
            let first_ms = self.plan.lock().first_ms(who, self.interval_ms);
            let now_ms = clock::now().mono_ms;
            match first_ms {
                Some(due_ms) if due_ms <= now_ms => return,
                Some(due_ms) => {
                    let due = Instant::now() + Duration::from_millis(due_ms - now_ms);
                    tokio::select! {
                        () = self.moved.notified() => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => self.moved.notified().await,
            }
        }
    }

    /// Unless it is planned for an earlier time, and as urgently.
    fn plan(&self, shard: ShardId, due_ms: u64, is_urgent: bool) {
        let mut plan = self.plan.lock();
        let Some(place) = plan.place(shard).copied() else { return };
        let due_ms = due_ms.max(place.held_until_ms);
        let is_better = |planned: Due| due_ms < planned.0 || (is_urgent && !place.is_urgent);
        if place.due.is_none_or(is_better) {
            plan.take_out(shard);
            let (planned_ms, rank, _) = place.due.unwrap_or((u64::MAX, 0, 0));
            let due = (due_ms.min(planned_ms), if due_ms < planned_ms { 0 } else { rank });
            self.put(plan, shard, due, Place { is_urgent: place.is_urgent | is_urgent, ..place });
        }
    }

    fn put(
        &self,
        mut plan: parking_lot::MutexGuard<'_, Plan>,
        shard: ShardId,
        (due_ms, rank): (u64, u64),
        place: Place,
    ) {
        plan.planned += 1;
        let due = (due_ms, rank, plan.planned);
        let queue = if place.is_urgent { &mut plan.urgent } else { &mut plan.paced };
        queue.insert(due, shard);
        let is_first = queue.first_key_value().is_some_and(|(first, _)| *first == due);
        if let Some(old) = plan.place(shard) {
            *old = Place { due: Some(due), ..place };
        }
        drop(plan);
        if is_first {
            self.moved.notify_one();
        }
    }
}

impl Plan {
    fn place(&mut self, shard: ShardId) -> Option<&mut Place> {
        self.places.get_mut(usize::from(shard.number()))
    }

    /// Takes a shard out of its queue; how it stood there.
    fn take_out(&mut self, shard: ShardId) -> Option<Place> {
        let place = self.place(shard)?;
        let before = *place;
        (place.due, place.is_urgent) = (None, false);
        if let Some(due) = before.due {
            self.urgent.remove(&due);
            self.paced.remove(&due);
        }
        Some(before)
    }

    /// Overdue ones first, then those in a hurry, then whoever is due.
    fn next(&self, who: Who, now_ms: u64, interval_ms: u64) -> Option<ShardId> {
        let due = |queue: &BTreeMap<Due, ShardId>, by_ms: Option<u64>| {
            let (&(due_ms, ..), &shard) = queue.first_key_value()?;
            (due_ms <= by_ms?).then_some(shard)
        };
        let overdue = due(&self.paced, now_ms.checked_sub(interval_ms));
        let paced = || due(&self.paced, (who == Who::Anyone).then_some(now_ms));
        overdue.or_else(|| due(&self.urgent, Some(now_ms))).or_else(paced)
    }

    /// When the first of them falls due.
    fn first_ms(&self, who: Who, interval_ms: u64) -> Option<u64> {
        let first = |queue: &BTreeMap<Due, ShardId>| queue.first_key_value().map(|((due_ms, ..), _)| *due_ms);
        let grace = if who == Who::Anyone { 0 } else { interval_ms };
        let paced = first(&self.paced).map(|due_ms| due_ms + grace);
        first(&self.urgent).into_iter().chain(paced).min()
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
        agenda.hurry(c, 1_010);
        assert_eq!(agenda.take(Who::Anyone, 1_079), Some(c));
        assert_eq!(agenda.take(Who::Anyone, 1_079), None);
        assert_eq!(agenda.take(Who::Urgent, 1_080), None);
        assert_eq!(agenda.take(Who::Anyone, 1_080), Some(a));
        assert_eq!(agenda.take(Who::Anyone, 1_080), Some(b));
        assert_eq!(agenda.take(Who::Anyone, 9_000), None);
    }

    #[test]
    fn a_shard_is_planned_once_for_the_earliest_time_asked() {
        let (agenda, [a, b, _]) = agenda();
        agenda.go_on(a, 500);
        agenda.go_on(a, 400);
        agenda.go_on(a, 600);
        agenda.go_on(b, 450);
        assert_eq!(agenda.take(Who::Anyone, 399), None);
        assert_eq!(agenda.take(Who::Anyone, 600), Some(a));
        assert_eq!(agenda.take(Who::Anyone, 600), Some(b));
        assert_eq!(agenda.take(Who::Anyone, 600), None);
    }

    #[test]
    fn a_hurry_moves_a_paced_shard_and_is_not_lost_to_a_later_pace() {
        let (agenda, [a, ..]) = agenda();
        agenda.pace(a, 1_000);
        agenda.hurry(a, 1_010);
        agenda.pace(a, 1_020);
        assert_eq!(agenda.take(Who::Urgent, 1_010), Some(a));
        assert_eq!(agenda.take(Who::Anyone, 9_000), None);
    }

    #[test]
    fn those_in_a_hurry_take_turns() {
        let (agenda, [a, b, _]) = agenda();
        agenda.hurry(a, 10);
        agenda.hurry(b, 10);
        for _ in 0..5 {
            for shard in [a, b] {
                assert_eq!(agenda.take(Who::Urgent, 10), Some(shard));
                agenda.hurry(shard, 10);
            }
        }
    }

    #[test]
    fn whom_the_store_has_just_failed_waits_and_is_urgent_still() {
        let (agenda, [a, b, _]) = agenda();
        agenda.hurry(a, 5);
        agenda.hold(a, 100, false);
        agenda.hurry(a, 6);
        agenda.hurry(b, 7);
        assert_eq!(agenda.take(Who::Anyone, 99), Some(b));
        assert_eq!(agenda.take(Who::Anyone, 99), None);
        assert_eq!(agenda.take(Who::Urgent, 100), Some(a));
        agenda.hurry(a, 101);
        assert_eq!(agenda.take(Who::Urgent, 101), Some(a));
        agenda.hold(b, 200, true);
        assert_eq!(agenda.take(Who::Urgent, 199), None);
        assert_eq!(agenda.take(Who::Urgent, 200), Some(b));
    }

    #[test]
    fn whom_the_store_holds_back_goes_by_the_age_of_what_is_dirty() {
        let (agenda, [a, b, c]) = agenda();
        for (shard, now_ms, dirty_since_ms) in [(a, 1_001, 700), (b, 1_040, 300), (c, 1_060, 500)] {
            agenda.go_on(shard, 1_000);
            agenda.hold_in_line(shard, now_ms, 100, dirty_since_ms, false);
        }
        agenda.go_on(b, 1_070);
        assert_eq!(agenda.take(Who::Anyone, 1_099), None);
        for shard in [b, c, a] {
            assert_eq!(agenda.take(Who::Anyone, 1_100), Some(shard));
        }
        assert_eq!(agenda.take(Who::Anyone, 9_000), None);
    }

    #[test]
    fn whoever_is_overdue_goes_before_those_in_a_hurry() {
        let (agenda, [a, b, _]) = agenda();
        agenda.go_on(a, 1_000);
        agenda.hurry(b, 1_050);
        assert_eq!(agenda.take(Who::Urgent, 1_079), Some(b));
        agenda.hurry(b, 1_080);
        assert_eq!(agenda.take(Who::Urgent, 1_080), Some(a));
        assert_eq!(agenda.take(Who::Urgent, 1_080), Some(b));
    }

    #[tokio::test]
    async fn a_hurry_ends_the_wait_of_who_waits_for_those_in_a_hurry_only() {
        let (agenda, [a, b, _]) = agenda();
        agenda.go_on(a, u64::MAX / 2);
        let hurry = async {
            tokio::task::yield_now().await;
            agenda.hurry(b, 1);
        };
        let waiting = tokio::time::timeout(Duration::from_secs(20), agenda.wait(Who::Urgent));
        assert!(tokio::join!(waiting, hurry).0.is_ok());
        assert_eq!(agenda.take(Who::Urgent, 1), Some(b));
    }
}
