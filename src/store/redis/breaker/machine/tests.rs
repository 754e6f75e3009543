//! Every row of the breaker's table, and random orders of everything.

use proptest::prelude::*;

use super::*;

/// A breaker, its time, and how long each of its calls takes.
struct Rig {
    machine: Machine,
    now_ms: u64,
    turns: Vec<(u64, Turn)>,
}

impl Rig {
    fn new() -> Self {
        Self { machine: Machine::new(OPEN_MS_MAX, 100_000), now_ms: 100_000, turns: Vec::new() }
    }

    fn heard(&mut self, turn: Option<Turn>) {
        self.turns.extend(turn.map(|turn| (self.now_ms, turn)));
    }

    /// Lets time pass, tick by tick.
    fn wait(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.now_ms = (self.now_ms + 100).min(until_ms);
            let turn = self.machine.tick(self.now_ms, 0.5);
            self.heard(turn);
        }
    }

    fn begin_all(&mut self, call: Call, count: u32) -> Option<Pass> {
        let (pass, turn) = self.machine.ask(call, count, self.now_ms);
        self.heard(turn);
        pass
    }

    fn begin(&mut self, call: Call) -> Option<Pass> {
        self.begin_all(call, 1)
    }

    fn end(&mut self, pass: Pass, outcome: Outcome) {
        let turn = self.machine.ended(pass, outcome, self.now_ms);
        self.heard(turn);
    }

    /// One call that takes so long; whether it was let through.
    fn call(&mut self, call: Call, outcome: Outcome, took_ms: u64) -> bool {
        let Some(pass) = self.begin(call) else { return false };
        self.wait(took_ms);
        self.end(pass, outcome);
        true
    }

    /// Calls at this distance, for so long, each of which takes so long.
    fn load(&mut self, for_ms: u64, every_ms: u64, took_ms: u64, mut outcome: impl FnMut() -> Outcome) {
        let (until_ms, mut going) = (self.now_ms + for_ms, Vec::new());
        while self.now_ms < until_ms {
            going.extend(self.probes().map(|pass| (self.now_ms + took_ms, pass)));
            going.extend(self.begin(Call::Change).map(|pass| (self.now_ms + took_ms, pass)));
            going.extend(self.begin(Call::Renewal).map(|pass| (self.now_ms + took_ms, pass)));
            self.wait(every_ms);
            let now_ms = self.now_ms;
            let over: Vec<_> = going.extract_if(.., |(at_ms, _)| *at_ms <= now_ms).collect();
            over.into_iter().for_each(|(_, pass)| self.end(pass, outcome()));
        }
    }

    /// The store's own probe, where one is wanted.
    fn probes(&mut self) -> Option<Pass> {
        self.machine.wants_probe(self.now_ms).then(|| self.begin(Call::Probe)).flatten()
    }

    fn phase(&self) -> Phase {
        self.machine.phase()
    }

    fn is_away(&self) -> bool {
        self.phase() == Phase::Open && self.machine.reach() == Reach::Away
    }

    /// Opens it, as a server does that is gone.
    fn gone() -> Self {
        let mut rig = Self::new();
        for _ in 0..10 {
            assert!(rig.call(Call::Change, Outcome::Failed, 1));
        }
        assert!(rig.is_away());
        rig
    }

    /// Opens it, as a server does that is full.
    fn full() -> Self {
        let mut rig = Self::new();
        for _ in 0..10 {
            assert!(rig.call(Call::Renewal, Outcome::Answered, 1));
            assert!(rig.call(Call::Change, Outcome::Full, 1));
        }
        assert_eq!((rig.phase(), rig.machine.reach()), (Phase::Open, Reach::Full));
        rig
    }

    /// Lets it half-open.
    fn tried(mut self) -> Self {
        self.wait(6_100);
        assert_eq!(self.phase(), Phase::HalfOpen);
        self
    }

    /// Lets its probes be good.
    fn ramping(mut self) -> Self {
        for call in [Call::Probe, Call::Renewal, Call::Renewal] {
            assert!(self.call(call, Outcome::Answered, 5));
        }
        assert_eq!(self.phase(), Phase::Ramp);
        self
    }
}

/// Random, and the same each time.
fn one_in_a_hundred_times(percent: u64, bad: Outcome) -> impl FnMut() -> Outcome {
    let mut seed = 42_u64;
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (seed >> 33) % 100 < percent { bad } else { Outcome::Answered }
    }
}

#[test]
fn what_answers_slowly_or_fails_now_and_then_is_let_through() {
    for (took_ms, percent) in [(1, 0), (450, 0), (1, 40)] {
        let mut rig = Rig::new();
        rig.load(5_000, 20, 1, || Outcome::Answered);
        rig.load(60_000, 20, took_ms, one_in_a_hundred_times(percent, Outcome::Failed));
        assert_eq!(rig.turns, [], "{took_ms} ms, {percent} % fail");
    }
}

#[test]
fn what_answers_too_slowly_or_mostly_fails_is_opened_and_not_closed_until_it_is_better() {
    for (took_ms, percent, why) in [(650, 0, Why::Slow), (1, 60, Why::Failures)] {
        let mut rig = Rig::new();
        rig.load(5_000, 20, 1, || Outcome::Answered);
        rig.load(60_000, 20, took_ms, one_in_a_hundred_times(percent, Outcome::Failed));
        let (opened_ms, first) = rig.turns[0];
        assert_eq!((first.to, first.why), (Phase::Open, why));
        assert!(opened_ms <= 100_000 + 5_000 + WINDOW_MS + 1_000, "{opened_ms}");
        assert!(rig.turns.iter().all(|(_, turn)| turn.to != Phase::Closed), "it flaps: {:?}", rig.turns);
        rig.load(30_000, 20, 1, || Outcome::Answered);
        assert_eq!(rig.phase(), Phase::Closed);
    }
}

#[test]
fn fewer_than_twenty_calls_say_nothing_about_a_share() {
    let mut rig = Rig::new();
    for number in 0..19 {
        rig.call(Call::Read, if number % 3 == 0 { Outcome::Answered } else { Outcome::Failed }, 200);
    }
    assert_eq!(rig.phase(), Phase::Closed);
    rig.call(Call::Read, Outcome::Failed, 200);
    assert!(rig.is_away());
}

#[test]
fn exactly_half_is_not_most() {
    let mut rig = Rig::new();
    for _ in 0..200 {
        let pair: Vec<_> = [Call::Read; 2].into_iter().filter_map(|call| rig.begin(call)).collect();
        rig.wait(60);
        pair.into_iter().zip([Outcome::Answered, Outcome::Failed]).for_each(|(pass, how)| rig.end(pass, how));
    }
    assert_eq!(rig.turns, []);
}

#[test]
fn ten_failures_within_half_a_second_open_it_and_one_answer_among_them_does_not_let_them() {
    let mut rig = Rig::new();
    rig.load(20_000, 20, 1, || Outcome::Answered);
    rig.wait(700);
    for _ in 0..9 {
        rig.call(Call::Change, Outcome::Failed, 10);
    }
    rig.call(Call::Change, Outcome::Answered, 10);
    rig.call(Call::Change, Outcome::Failed, 10);
    assert_eq!(rig.turns, []);
    rig.wait(700);
    for _ in 0..10 {
        rig.call(Call::Change, Outcome::Failed, 10);
    }
    assert!(rig.is_away());
    assert_eq!(rig.turns[0].1.why, Why::Failures);
}

#[test]
fn three_failures_in_a_row_open_it_once_nothing_was_answered_for_a_second() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        rig.call(Call::Heartbeat, Outcome::Failed, 100);
    }
    assert_eq!(rig.turns, [], "four tenths of a second");
    rig.call(Call::Heartbeat, Outcome::Answered, 1);
    for _ in 0..2 {
        rig.wait(1_000);
        rig.call(Call::Heartbeat, Outcome::Failed, 1);
    }
    assert_eq!(rig.turns, [], "two alone");
    rig.call(Call::Heartbeat, Outcome::Failed, 1);
    assert!(rig.is_away());
    assert_eq!(rig.turns[0].1.why, Why::Silence);
}

#[test]
fn a_server_that_stops_under_load_is_found_out_within_a_second_and_a_half_whatever_the_deadlines_are() {
    for deadline_ms in [1_000, 30_000] {
        let mut rig = Rig::new();
        rig.load(15_000, 20, 1, || Outcome::Answered);
        let stopped_ms = rig.now_ms;
        // The only batch of the only shard, and its renewals.
        rig.load(1_500, 400, deadline_ms, || Outcome::Failed);
        let (opened_ms, turn) = rig.turns[0];
        assert_eq!((turn.to, turn.why), (Phase::Open, Why::Silence));
        assert!(opened_ms - stopped_ms <= 1_500, "{deadline_ms}: {}", opened_ms - stopped_ms);
    }
}

#[test]
fn calls_that_went_together_and_waited_in_vain_count_each_and_those_of_one_broken_connection_once() {
    for (took_ms, opens) in [(999, false), (1_000, true)] {
        let mut rig = Rig::new();
        rig.wait(2_000);
        let bundle = rig.begin_all(Call::Change, 8).unwrap();
        rig.wait(took_ms);
        rig.end(bundle, Outcome::Failed);
        assert_eq!(rig.is_away(), opens, "{took_ms}");
    }
}

#[test]
fn what_the_caller_gives_up_counts_if_nothing_was_answered_meanwhile() {
    for (others_are_answered, opens) in [(true, false), (false, true)] {
        let mut rig = Rig::new();
        for _ in 0..4 {
            let renewal = rig.begin(Call::Renewal).unwrap();
            rig.wait(300);
            if others_are_answered {
                rig.call(Call::Change, Outcome::Answered, 5);
            }
            rig.end(renewal, Outcome::Abandoned);
        }
        assert_eq!(rig.is_away(), opens);
    }
}

#[test]
fn what_the_caller_gives_up_counts_only_if_it_was_slow() {
    for (took_ms, opens) in [(100, false), (600, true)] {
        let mut rig = Rig::new();
        for _ in 0..30 {
            rig.call(Call::Renewal, Outcome::Abandoned, took_ms);
        }
        assert_eq!(!rig.turns.is_empty(), opens, "{took_ms}");
    }
}

#[test]
fn redirections_say_nothing_and_neither_do_moving_keys_until_they_have_moved_for_too_long() {
    let mut rig = Rig::new();
    for _ in 0..1_000 {
        rig.call(Call::Change, Outcome::Elsewhere, 20);
    }
    for _ in 0..4 {
        // Four seconds, and a pause: another migration.
        for _ in 0..40 {
            rig.call(Call::Change, Outcome::Moving, 100);
        }
        rig.wait(1_500);
    }
    assert_eq!(rig.turns, []);
    for _ in 0..80 {
        rig.call(Call::Change, Outcome::Moving, 100);
    }
    assert!(!rig.turns.is_empty());
}

#[test]
fn it_stays_open_twice_as_long_each_time_up_to_five_seconds() {
    let mut rig = Rig::gone();
    for wait_ms in [500, 1_000, 2_000, 4_000, 5_000, 5_000] {
        assert_eq!(rig.turns.last().unwrap().1.wait_ms, wait_ms);
        rig.wait(wait_ms - 1);
        assert_eq!(rig.phase(), Phase::Open);
        assert!(!rig.call(Call::Renewal, Outcome::Answered, 1), "held back");
        assert!(!rig.machine.wants_probe(rig.now_ms));
        rig.wait(1);
        assert_eq!(rig.phase(), Phase::HalfOpen);
        assert!(rig.call(Call::Probe, Outcome::Failed, 1));
    }
    assert_eq!((spread(1_000, 0.0), spread(1_000, 0.5), spread(1_000, 1.0)), (800, 1_000, 1_200));
    assert_eq!((wait_ms(63), wait_ms(u32::MAX)), (5_000, 5_000));
}

#[test]
fn it_stays_open_no_longer_than_it_was_told() {
    for (told_ms, waits_ms) in [(2_000, [500, 1_000, 2_000, 2_000]), (0, [500; 4])] {
        let mut rig = Rig { machine: Machine::new(told_ms, 100_000), ..Rig::new() };
        for _ in 0..10 {
            assert!(rig.call(Call::Change, Outcome::Failed, 1));
        }
        for wait_ms in waits_ms {
            assert_eq!(rig.turns.last().unwrap().1.wait_ms, wait_ms, "{told_ms}");
            rig.wait(wait_ms);
            assert!(rig.call(Call::Probe, Outcome::Failed, 1));
        }
    }
}

#[test]
fn what_asks_first_changes_nothing_and_then_one_renewal_goes_at_a_time_until_three_were_good() {
    let mut rig = Rig::gone();
    rig.wait(500);
    for call in [Call::Read, Call::Change, Call::Lease, Call::Renewal, Call::Heartbeat] {
        assert!(rig.begin(call).is_none(), "{call:?}");
    }
    let first = rig.probes().unwrap();
    assert!(rig.probes().is_none(), "one at a time");
    rig.end(first, Outcome::Answered);
    for call in [Call::Read, Call::Change, Call::Lease] {
        assert!(rig.begin(call).is_none(), "{call:?}");
    }
    for number in 1..PROBES {
        assert_eq!(rig.phase(), Phase::HalfOpen, "after {number}");
        let probe = rig.begin_all(Call::Renewal, 64).unwrap();
        assert_eq!((probe.count, probe.is_probe), (1, true));
        assert!(rig.begin(Call::Renewal).is_none(), "one at a time");
        assert!(rig.begin(Call::Heartbeat).is_none());
        rig.wait(400);
        rig.end(probe, Outcome::Answered);
    }
    assert_eq!((rig.phase(), rig.machine.reach()), (Phase::Ramp, Reach::Well));
}

#[test]
fn a_probe_that_is_slow_or_fails_or_is_given_up_opens_it_again() {
    for (outcome, took_ms) in [(Outcome::Answered, 501), (Outcome::Failed, 1), (Outcome::Abandoned, 1)] {
        let mut rig = Rig::gone().tried();
        rig.call(Call::Probe, Outcome::Answered, 1);
        rig.call(Call::Renewal, Outcome::Answered, 1);
        rig.call(Call::Renewal, outcome, took_ms);
        assert!(rig.is_away(), "{outcome:?}");
        assert_eq!(rig.turns.last().unwrap().1.wait_ms, 1_000);
        // Three in a row are three from now on.
        rig.wait(1_000);
        rig.call(Call::Probe, Outcome::Answered, 1);
        assert_eq!(rig.phase(), Phase::HalfOpen);
    }
    // So does one that does not end, however long its own deadline is.
    let mut rig = Rig::gone().tried();
    let probe = rig.probes().unwrap();
    rig.wait(OVERDUE_MS);
    assert!(rig.is_away());
    rig.wait(1_000);
    rig.end(probe, Outcome::Answered);
    assert_eq!(rig.phase(), Phase::HalfOpen);
    // One that another server was to answer is asked again.
    let mut rig = Rig::gone().tried();
    rig.call(Call::Probe, Outcome::Elsewhere, 1);
    assert_eq!(rig.phase(), Phase::HalfOpen);
    rig.ramping();
}

#[test]
fn a_node_without_leases_there_probes_with_its_heartbeat_and_one_that_says_nothing_there_is_probed_for() {
    let mut rig = Rig::gone().tried();
    for call in [Call::Probe, Call::Heartbeat, Call::Heartbeat] {
        assert!(rig.call(call, Outcome::Answered, 1));
    }
    assert_eq!(rig.phase(), Phase::Ramp);
    let mut rig = Rig::gone().tried();
    let began_ms = rig.now_ms;
    while rig.phase() == Phase::HalfOpen {
        if let Some(probe) = rig.probes() {
            rig.end(probe, Outcome::Answered);
            assert!(rig.probes().is_none(), "whoever has leases there has her turn");
        }
        rig.wait(100);
    }
    assert_eq!((rig.phase(), rig.now_ms - began_ms), (Phase::Ramp, 2 * PROBE_OWN_AFTER_MS + 100));
    // One that is well, full or just back needs none.
    let mut full = Rig::full();
    full.wait(500);
    for rig in [Rig::new(), full, Rig::gone().tried().ramping()] {
        assert!(!rig.machine.wants_probe(rig.now_ms));
    }
}

#[test]
fn the_ramp_lets_one_commit_through_and_then_twice_as_many_each_time_and_leases_freely() {
    let mut rig = Rig::gone().tried().ramping();
    for most in [1, 2, 4, 8, 16] {
        assert_eq!(rig.machine.room(), most);
        let going = rig.begin_all(Call::Change, 64).unwrap();
        assert_eq!((going.count, rig.machine.room()), (most, 0));
        assert!(rig.begin(Call::Change).is_none());
        assert!(rig.call(Call::Renewal, Outcome::Answered, 1) && rig.call(Call::Read, Outcome::Answered, 1));
        assert_eq!(rig.begin_all(Call::Lease, 256).unwrap().count, 256);
        rig.wait(10);
        rig.end(going, Outcome::Answered);
    }
    assert_eq!(rig.phase(), Phase::Ramp);
}

#[test]
fn it_closes_after_five_quick_seconds_and_not_before() {
    let mut rig = Rig::gone().tried().ramping();
    let began_ms = rig.now_ms;
    rig.load(3_000, 20, 1, || Outcome::Answered);
    // Of 500 five may be slow, and eight are too many.
    let slow: Vec<_> = [Call::Read; 8].into_iter().filter_map(|call| rig.begin(call)).collect();
    rig.load(600, 20, 1, || Outcome::Answered);
    slow.into_iter().for_each(|pass| rig.end(pass, Outcome::Answered));
    rig.load(3_000, 20, 1, || Outcome::Answered);
    assert_eq!(rig.phase(), Phase::Ramp, "{} ms", rig.now_ms - began_ms);
    rig.load(5_000, 20, 1, || Outcome::Answered);
    let (_, last) = *rig.turns.last().unwrap();
    assert_eq!((last.to, last.why), (Phase::Closed, Why::Recovered));
    assert!(last.troubled_ms > 5_000);
    // Where nobody asks anything, too; and the next trouble begins anew.
    let mut rig = Rig::gone().tried().ramping();
    rig.wait(5_000);
    assert_eq!(rig.phase(), Phase::Closed);
    for _ in 0..10 {
        rig.call(Call::Change, Outcome::Failed, 1);
    }
    assert_eq!(rig.turns.last().unwrap().1.wait_ms, 500);
}

#[test]
fn a_ramp_that_was_too_early_opens_again_for_longer() {
    for (outcome, took_ms) in [(Outcome::Failed, 1), (Outcome::Answered, 600)] {
        let mut rig = Rig::gone().tried().ramping();
        for _ in 0..2 {
            let going: Vec<_> = [Call::Read; 6].into_iter().filter_map(|call| rig.begin(call)).collect();
            rig.wait(took_ms);
            going.into_iter().for_each(|pass| rig.end(pass, outcome));
        }
        let (_, last) = rig.turns[3];
        assert_eq!((last.from, last.to, last.wait_ms), (Phase::Ramp, Phase::Open, 1_000), "{outcome:?}");
    }
}

#[test]
fn what_began_before_it_opened_does_not_count_after() {
    let mut rig = Rig::new();
    let old: Vec<_> = (0..50).filter_map(|_| rig.begin(Call::Change)).collect();
    for _ in 0..10 {
        rig.call(Call::Read, Outcome::Failed, 1);
    }
    assert!(rig.is_away());
    rig.wait(600);
    let mut rig = rig.ramping();
    old.into_iter().for_each(|pass| rig.end(pass, Outcome::Failed));
    assert_eq!((rig.phase(), rig.machine.room()), (Phase::Ramp, 1));
}

#[test]
fn a_full_server_keeps_its_leases_and_is_tried_with_one_commit_at_a_time() {
    let mut rig = Rig::full();
    assert!(rig.begin(Call::Change).is_none());
    for call in [Call::Renewal, Call::Heartbeat, Call::Lease, Call::Read] {
        assert!(rig.call(call, Outcome::Answered, 1), "{call:?}");
    }
    rig.wait(500);
    assert_eq!((rig.phase(), rig.machine.reach(), rig.machine.room()), (Phase::HalfOpen, Reach::Full, 1));
    let probe = rig.begin_all(Call::Change, 64).unwrap();
    assert_eq!((probe.count, rig.machine.room()), (1, 0));
    assert!(rig.begin(Call::Change).is_none());
    // A renewal proves nothing here.
    assert!(rig.call(Call::Renewal, Outcome::Answered, 1));
    rig.end(probe, Outcome::Full);
    assert_eq!((rig.phase(), rig.machine.reach()), (Phase::Open, Reach::Full));
    rig.wait(1_000);
    for _ in 0..PROBES {
        assert!(rig.call(Call::Change, Outcome::Answered, 1));
    }
    assert_eq!(rig.phase(), Phase::Ramp);
    for _ in 0..12 {
        rig.call(Call::Change, Outcome::Full, 90);
    }
    assert_eq!((rig.phase(), rig.machine.reach()), (Phase::Open, Reach::Full));
}

#[test]
fn a_full_server_that_goes_away_is_away() {
    let mut rig = Rig::full();
    for _ in 0..10 {
        rig.call(Call::Renewal, Outcome::Failed, 1);
    }
    assert!(rig.is_away());
    assert!(rig.begin(Call::Renewal).is_none());
    // And one that comes back and is still full is found out at its first commits.
    let mut rig = rig.tried().ramping();
    for _ in 0..12 {
        rig.call(Call::Change, Outcome::Full, 90);
    }
    assert_eq!((rig.phase(), rig.machine.reach()), (Phase::Open, Reach::Full));
}

#[test]
fn a_process_that_stood_still_blames_nobody() {
    let mut rig = Rig::new();
    let old: Vec<_> = (0..50).filter_map(|_| rig.begin(Call::Change)).collect();
    rig.now_ms += 5_400;
    for pass in old {
        rig.end(pass, Outcome::Failed);
    }
    rig.wait(1_000);
    assert_eq!(rig.turns, []);
    // Nor does it keep the place of a probe for ever.
    let mut rig = Rig::gone().tried();
    let probe = rig.probes().unwrap();
    rig.now_ms += 5_400;
    rig.end(probe, Outcome::Failed);
    assert_eq!(rig.phase(), Phase::HalfOpen);
    rig.ramping();
}

#[test]
fn a_new_server_in_the_place_of_one_in_trouble_is_tried_at_once() {
    let mut rig = Rig::gone();
    let turn = rig.machine.replaced(rig.now_ms);
    rig.heard(turn);
    assert_eq!((rig.phase(), rig.turns.last().unwrap().1.why), (Phase::HalfOpen, Why::Replaced));
    rig.ramping();
    // Of one that was well nothing is believed but that.
    let mut rig = Rig::new();
    let old = rig.begin(Call::Change).unwrap();
    assert_eq!(rig.machine.replaced(rig.now_ms), None);
    rig.end(old, Outcome::Failed);
    assert_eq!(rig.phase(), Phase::Closed);
}

/// Anything that can happen.
#[derive(Debug, Clone, Copy)]
enum Step {
    Ask(Call, u32),
    /// One of those under way, by number.
    End(usize, Outcome),
    Tick(u64),
    Stand(u64),
    Replace,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = prop_oneof![
        Just(Call::Renewal),
        Just(Call::Heartbeat),
        Just(Call::Lease),
        Just(Call::Change),
        Just(Call::Read),
        Just(Call::Probe)
    ];
    let outcome = prop_oneof![
        4 => Just(Outcome::Answered),
        4 => Just(Outcome::Failed),
        2 => Just(Outcome::Full),
        1 => Just(Outcome::Elsewhere),
        1 => Just(Outcome::Moving),
        1 => Just(Outcome::Abandoned),
    ];
    let step = prop_oneof![
        6 => (call, 0..70_u32).prop_map(|(call, count)| Step::Ask(call, count)),
        6 => (any::<usize>(), outcome).prop_map(|(number, outcome)| Step::End(number, outcome)),
        4 => (1..=100_u64).prop_map(Step::Tick),
        1 => (501..70_000_u64).prop_map(Step::Stand),
        1 => Just(Step::Replace),
    ];
    prop::collection::vec(step, 1..400)
}

/// What a turn must be, whatever came before.
fn check(turn: Turn) {
    let Turn { from, to, why, .. } = turn;
    let is_right = match (from, to) {
        (Phase::Closed | Phase::Ramp, Phase::Open) => matches!(why, Why::Failures | Why::Slow | Why::Silence),
        // A full server goes away.
        (Phase::Open, Phase::Open) => matches!(why, Why::Failures | Why::Slow | Why::Silence),
        (Phase::HalfOpen, Phase::Open) => !matches!(why, Why::Time | Why::Recovered | Why::Replaced),
        (Phase::Open, Phase::HalfOpen) => matches!(why, Why::Time | Why::Replaced),
        (Phase::HalfOpen, Phase::HalfOpen) => why == Why::Replaced,
        (Phase::HalfOpen, Phase::Ramp) | (Phase::Ramp, Phase::Closed) => why == Why::Recovered,
        _ => false,
    };
    assert!(is_right, "{turn:?}");
    assert_eq!(turn.wait_ms > 0, to == Phase::Open, "{turn:?}");
}

proptest! {
    #[test]
    fn whatever_happens_no_commit_goes_while_it_is_open_and_it_always_comes_back(steps in steps()) {
        let mut rig = Rig::new();
        let mut going: Vec<Pass> = Vec::new();
        for step in steps {
            let before = rig.turns.len();
            match step {
                Step::Ask(call, count) => {
                    let pass = rig.begin_all(call, count);
                    let (phase, reach) = (rig.phase(), rig.machine.reach());
                    if let Some(pass) = pass {
                        prop_assert!(pass.count >= 1 && pass.count <= count);
                        prop_assert!(phase != Phase::Open || (reach == Reach::Full && call != Call::Change));
                        prop_assert!(!pass.is_probe || (phase == Phase::HalfOpen && pass.count == 1));
                        prop_assert!(phase != Phase::HalfOpen || reach == Reach::Full || pass.is_probe);
                        going.push(pass);
                    } else {
                        prop_assert!(phase != Phase::Closed || count == 0);
                    }
                }
                Step::End(_, _) if going.is_empty() => {}
                Step::End(number, outcome) => {
                    let pass = going.swap_remove(number % going.len());
                    rig.end(pass, outcome);
                }
                Step::Tick(ms) => rig.wait(ms),
                Step::Stand(ms) => rig.now_ms += ms,
                Step::Replace => {
                    let turn = rig.machine.replaced(rig.now_ms);
                    rig.heard(turn);
                }
            }
            rig.turns[before..].iter().for_each(|(_, turn)| check(*turn));
        }
        // Left alone and then answered well, it is well again: nothing that is still under way keeps it.
        rig.wait(6_100);
        rig.wait(1_100);
        rig.load(40_000, 50, 1, || Outcome::Answered);
        prop_assert_eq!(rig.phase(), Phase::Closed);
        prop_assert_eq!(rig.machine.room(), u32::MAX);
    }
}

#[test]
fn it_takes_the_same_little_memory_whatever_goes_through_it() {
    assert!(size_of::<Machine>() < 4_096, "{}", size_of::<Machine>());
}
