//! The lease machine of one shard under any order of events: it never answers past its right to, its epoch never falls, at
//! most one call about the lease is under way, it moves as the table of the contract says and nowhere else, and from
//! everywhere it comes back to serve.

use std::time::Duration;

use hearth::home::lease::{Action, Event, Grounds, HORIZON_MS, Lease, State, Terms, Wish};
use hearth::ids::{Epoch, FlushSeq, Generation, Owner, Version};
use hearth::store::{Acquired, Grant, Renewed};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

const TTL_MS: u64 = 6_000;
const TERMS: Terms = Terms { ttl_ms: TTL_MS, member_ttl_ms: TTL_MS / 6 * 5 };

/// What may move a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Time, without and with rule L, and when its store is back.
    Tick,
    TickUnderRuleL,
    TickOfReturn,
    Granted,
    AlreadyMine,
    Held,
    FloorPoisoned,
    AcquireUnanswered,
    Renewed,
    Inconsistent,
    RenewalFenced,
    RenewalRolledBack,
    RenewalUnanswered,
    Pulled,
    Loaded,
    LoadFailed,
    CommitFenced,
    StoreLost,
    Overtaken,
    Freed,
    Drain,
    Drained,
    DrainAborted,
    /// Of an epoch that is not the lease's.
    OldNews,
}

use Cause::*;
use State::{Draining, Fenced, Free, Loading, Local, Owned, Paused, Pulling, Repair, Unsure};

const CAUSES: [Cause; 24] = [
    Tick,
    TickUnderRuleL,
    TickOfReturn,
    Granted,
    AlreadyMine,
    Held,
    FloorPoisoned,
    AcquireUnanswered,
    Renewed,
    Inconsistent,
    RenewalFenced,
    RenewalRolledBack,
    RenewalUnanswered,
    Pulled,
    Loaded,
    LoadFailed,
    CommitFenced,
    StoreLost,
    Overtaken,
    Freed,
    Drain,
    Drained,
    DrainAborted,
    OldNews,
];

/// The states in which a shard is held, and what is in memory is all that is known of it.
const SERVED: &[State] = &[Owned, Unsure, Local, Paused];

/// The table of the contract's section 3: what moves a lease, from where, to where. What is not here moves nothing.
const TABLE: &[(Cause, &[State], State)] = &[
    (Granted, &[Free], Pulling),
    (AlreadyMine, &[Free], Pulling),
    (Granted, &[Repair], Owned),
    (AlreadyMine, &[Repair], Owned),
    (Held, &[Repair], Fenced),
    (Pulled, &[Pulling], Loading),
    // The home before has not answered in time.
    (Tick, &[Pulling], Loading),
    (TickUnderRuleL, &[Pulling], Loading),
    (TickOfReturn, &[Pulling], Loading),
    (Loaded, &[Loading], Owned),
    (LoadFailed, &[Loading], Fenced),
    (RenewalUnanswered, &[Owned], Unsure),
    // Not even asked for in time: the process did not run.
    (Tick, &[Owned], Paused),
    (TickUnderRuleL, &[Owned], Paused),
    (TickOfReturn, &[Owned], Paused),
    (Tick, &[Unsure, Local], Paused),
    (TickUnderRuleL, &[Unsure, Paused], Local),
    // Who was let go on a moment ago waits for what the store says, and not for ever.
    (TickOfReturn, &[Unsure], Local),
    (TickOfReturn, &[Unsure, Local], Paused),
    // A tick that ends a pause of the process leads on with the next one.
    (Renewed, &[Unsure, Local, Paused], Owned),
    (Inconsistent, SERVED, Repair),
    (RenewalRolledBack, SERVED, Repair),
    (StoreLost, SERVED, Repair),
    (StoreLost, &[Draining], Repair),
    // Nothing of it is in memory yet: it starts over.
    (Inconsistent, &[Pulling, Loading], Fenced),
    (RenewalRolledBack, &[Pulling, Loading], Fenced),
    (StoreLost, &[Pulling, Loading], Fenced),
    (RenewalFenced, &[Pulling, Loading, Owned, Unsure, Local, Paused], Fenced),
    (CommitFenced, &[Pulling, Loading, Owned, Unsure, Local, Paused, Draining], Fenced),
    (Overtaken, &[Pulling, Loading, Owned, Unsure, Local, Paused, Repair, Draining], Fenced),
    (Freed, &[Fenced], Free),
    (Drain, &[Owned], Draining),
    (Drained, &[Draining], Free),
    (DrainAborted, &[Draining], Owned),
];

fn is_in_the_table(cause: Cause, from: State, to: State) -> bool {
    TABLE.iter().any(|(by, starts, end)| *by == cause && starts.contains(&from) && *end == to)
}

/// A lease, and what it has asked for.
#[derive(Debug, Clone)]
struct Story {
    lease: Lease,
    now_ms: u64,
    /// The call under way, and when it was sent.
    call: Option<(Action, u64)>,
    /// Pull, load, free or drain.
    work: Option<Action>,
    /// The highest epoch that anybody was granted.
    newest: u64,
    /// When the last good answer was asked for, and the last tick that let the shard go on without its store.
    good_ms: Option<u64>,
    let_go_on_ms: Option<u64>,
    moves: Vec<(Cause, State, State)>,
}

impl Story {
    fn new() -> Self {
        Self {
            lease: Lease::new(TERMS, 0),
            now_ms: 0,
            call: None,
            work: None,
            newest: 0,
            good_ms: None,
            let_go_on_ms: None,
            moves: Vec::new(),
        }
    }

    fn grant(&mut self, is_new: bool) -> Grant {
        self.newest = (self.newest + u64::from(is_new)).max(self.lease.epoch().number() + 1);
        Grant {
            epoch: Epoch::of(self.newest),
            flush_seq: FlushSeq::ZERO,
            generation: Generation::of(1),
            version_max: Version::ZERO,
            previous_owner: None,
        }
    }

    /// Whether this can happen now: answers come to calls that are under way, and so on.
    fn can(&self, cause: Cause) -> bool {
        let call = self.call.as_ref().map(|(action, _)| action);
        match cause {
            Granted | AlreadyMine | Held | FloorPoisoned | AcquireUnanswered => {
                matches!(call, Some(Action::Acquire { .. }))
            }
            Renewed | Inconsistent | RenewalFenced | RenewalRolledBack | RenewalUnanswered => {
                matches!(call, Some(Action::Renew))
            }
            Freed => matches!(self.work, Some(Action::Free)),
            _ => true,
        }
    }

    fn happens(&mut self, cause: Cause) -> Result<(), TestCaseError> {
        if !self.can(cause) {
            return Ok(());
        }
        let (before, epoch) = (self.lease.state(), self.lease.epoch());
        let action = match cause {
            Tick => {
                self.let_go_on_ms = None;
                self.lease.tick(self.now_ms, Grounds::None)
            }
            TickUnderRuleL => {
                self.let_go_on_ms = Some(self.now_ms);
                self.lease.tick(self.now_ms, Grounds::Away)
            }
            TickOfReturn => self.lease.tick(self.now_ms, Grounds::Back),
            _ => {
                let event = self.event(cause);
                self.lease.on(event, self.now_ms, 0.5)
            }
        };
        if let Some(action) = action {
            self.take(action)?;
        }
        let after = self.lease.state();
        self.moves.push((cause, before, after));
        let moved = format!("{before:?} became {after:?} by {cause:?}");
        prop_assert!(before == after || is_in_the_table(cause, before, after), "{moved}");
        prop_assert!(self.lease.epoch() >= epoch, "{moved}: its epoch fell");
        self.answers_only_while_it_may()
    }

    fn event(&mut self, cause: Cause) -> Event {
        let sent = self.lease.epoch();
        let above = Epoch::of(self.newest.max(sent.number()) + 1);
        let sent_at_ms = match cause {
            Granted | AlreadyMine | Held | FloorPoisoned | AcquireUnanswered | Renewed | Inconsistent
            | RenewalFenced | RenewalRolledBack | RenewalUnanswered => {
                self.call.take().map_or(0, |(_, sent_at_ms)| sent_at_ms)
            }
            _ => 0,
        };
        if matches!(cause, Granted | AlreadyMine | Renewed) {
            self.good_ms = self.good_ms.max(Some(sent_at_ms));
        }
        let acquired = |answer| Event::Acquired { sent_at_ms, answer };
        let renewed = |answer, consistent| Event::Renewed { sent_at_ms, answer, consistent };
        let good = Renewed::Renewed { flush_seq: FlushSeq::ZERO, generation: Generation::of(1) };
        if matches!(cause, RenewalFenced | CommitFenced | Overtaken) {
            self.newest = above.number();
        }
        match cause {
            Tick | TickUnderRuleL | TickOfReturn => unreachable!("no event"),
            Granted => acquired(Some(Acquired::Granted(self.grant(true)))),
            AlreadyMine => acquired(Some(Acquired::AlreadyMine(self.grant(false)))),
            Held => {
                let (owner, remaining) = (Owner::named("b#1"), Duration::from_millis(900));
                acquired(Some(Acquired::Held { owner, remaining }))
            }
            FloorPoisoned => acquired(Some(Acquired::FloorPoisoned)),
            AcquireUnanswered => acquired(None),
            Renewed => renewed(Some(good), true),
            Inconsistent => renewed(Some(good), false),
            RenewalFenced => renewed(Some(Renewed::Fenced { epoch: above }), true),
            RenewalRolledBack => renewed(Some(Renewed::RolledBack), true),
            RenewalUnanswered => renewed(None, true),
            Pulled => Event::Pulled { epoch: sent },
            Loaded => Event::Loaded { epoch: sent, complete: true },
            LoadFailed => Event::Loaded { epoch: sent, complete: false },
            CommitFenced => Event::CommitFenced { sent, epoch: above },
            StoreLost => Event::StoreLost { sent },
            Overtaken => Event::Overtaken { epoch: above },
            Freed => {
                self.work = None;
                Event::Freed
            }
            Drain => Event::Drain,
            Drained => Event::Drained { epoch: sent, released: true },
            DrainAborted => Event::Drained { epoch: sent, released: false },
            OldNews => self.old_news(),
        }
    }

    /// One of those, by turns.
    fn old_news(&self) -> Event {
        let old = Epoch::of(self.lease.epoch().number().saturating_sub(1));
        // Before the first grant there is no older epoch.
        let epoch = if old == self.lease.epoch() { Epoch::of(u64::MAX) } else { old };
        match self.moves.len() % 5 {
            0 => Event::Pulled { epoch },
            1 => Event::Loaded { epoch, complete: self.moves.len().is_multiple_of(2) },
            2 => Event::CommitFenced { sent: epoch, epoch: Epoch::of(self.newest + 1) },
            3 => Event::StoreLost { sent: epoch },
            _ => Event::Overtaken { epoch: self.lease.epoch() },
        }
    }

    fn take(&mut self, action: Action) -> Result<(), TestCaseError> {
        match action {
            Action::Acquire { .. } | Action::Renew => {
                prop_assert!(self.call.is_none(), "{action:?} beside {:?}", self.call);
                self.call = Some((action, self.now_ms));
            }
            Action::Restore(_) => {}
            action => self.work = Some(action),
        }
        Ok(())
    }

    /// Past 5/6 of a TTL after the last good answer was asked for nobody is answered, but for a moment by rule L, and for half
    /// a TTL more after it when the store is back.
    fn answers_only_while_it_may(&self) -> Result<(), TestCaseError> {
        let until_ms = self.lease.serving_until_ms();
        let valid_ms = self.good_ms.map_or(0, |sent_ms| sent_ms + TTL_MS / 6 * 5);
        let let_ms = self.let_go_on_ms.map_or(0, |let_ms| let_ms + TTL_MS / 2 + HORIZON_MS);
        match self.lease.state() {
            Owned | Unsure => prop_assert!(until_ms <= valid_ms),
            Local => prop_assert!(until_ms <= let_ms.min(self.now_ms + HORIZON_MS)),
            state => prop_assert_eq!(until_ms, 0, "{:?}", state),
        }
        Ok(())
    }

    /// From now on all goes well. Says how many ms it took until the shard is served or given away.
    fn heals(&mut self) -> Result<u64, TestCaseError> {
        let began_ms = self.now_ms;
        self.lease.wish(Wish::Wanted, self.now_ms);
        while self.lease.state() != Owned {
            prop_assert!(self.now_ms < began_ms + 3 * TTL_MS, "{:?} for ever", self.lease.state());
            self.now_ms += 50;
            let cause = match (&self.call, &self.work, self.lease.state()) {
                (Some((Action::Acquire { .. }, _)), ..) => Granted,
                (Some(_), ..) => Renewed,
                (_, Some(Action::Free), _) => Freed,
                (_, _, Pulling) => Pulled,
                (_, _, Loading) => Loaded,
                (_, _, Draining) => Drained,
                _ => Tick,
            };
            self.happens(cause)?;
        }
        Ok(self.now_ms - began_ms)
    }
}

fn step() -> impl Strategy<Value = (Cause, u64)> {
    let any = prop::sample::select(CAUSES.to_vec());
    // What goes on most of the time, so that the rest happens in many places.
    let usual = prop::sample::select(vec![Tick, Tick, Granted, Pulled, Loaded, Renewed, Freed]);
    // A store that goes away and comes back: three in a row are rare otherwise.
    let outage = prop::sample::select(vec![RenewalUnanswered, TickUnderRuleL, TickOfReturn]);
    let pass = prop_oneof![4 => 0..300u64, 2 => 300..2_500u64, 1 => 2_500..9_000u64];
    (prop_oneof![3 => usual, 3 => any, 1 => outage], pass)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]

    #[test]
    fn in_any_order_it_moves_by_the_table_and_comes_back(steps in prop::collection::vec(step(), 1..120)) {
        let mut story = Story::new();
        for (cause, pass_ms) in &steps {
            story.now_ms += pass_ms;
            story.happens(*cause)?;
        }
        story.heals()?;
    }
}

#[test]
fn the_table_has_nothing_that_never_happens() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut met = vec![false; TABLE.len()];
    for _ in 0..6_000 {
        let steps = prop::collection::vec(step(), 120).new_tree(&mut runner).unwrap().current();
        let mut story = Story::new();
        for (cause, pass_ms) in steps {
            story.now_ms += pass_ms;
            story.happens(cause).unwrap();
        }
        for (cause, from, to) in story.moves {
            for (at, (by, starts, end)) in TABLE.iter().enumerate() {
                met[at] |= *by == cause && starts.contains(&from) && *end == to;
            }
        }
        if met.iter().all(|met| *met) {
            return;
        }
    }
    let never: Vec<_> = TABLE.iter().zip(&met).filter(|(_, met)| !**met).map(|(row, _)| row).collect();
    panic!("never met: {never:?}");
}
