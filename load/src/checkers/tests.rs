//! Each checker on histories that must pass and on histories that must fail. A story is told by an honest model of the
//! server; a test bends one thing in it.

use protocol::reply::Rollback;
use protocol::request::{Ack, Status};
use protocol::{ErrorCode, Stamp};

use super::{Verdict, judge};
use crate::history::{Claim, Drop, Entry, History, Item, Notice, Opened, Operation, RING_SLOTS, Value, What};

/// One bot's log, and what an honest server would know of the player.
#[derive(Clone)]
struct Story {
    process: u32,
    log: Vec<Entry>,
    id: u64,
    k: u64,
    presence: u64,
    cseq: u64,
    epoch: u64,
    version: u64,
    counter: i64,
    ring: Vec<u64>,
    watching: Vec<u32>,
    at_us: u64,
}

impl Story {
    fn of(process: u32) -> Self {
        let mut story = Self {
            process,
            log: Vec::new(),
            id: 0,
            k: 0,
            presence: 0,
            cseq: 0,
            epoch: 5,
            version: 1,
            counter: 0,
            ring: vec![0; RING_SLOTS as usize],
            watching: Vec::new(),
            at_us: 0,
        };
        story.ready(false, None);
        story.read();
        story
    }

    fn stamp(&self) -> Stamp {
        (self.epoch, self.version)
    }

    fn say(&mut self, what: What) {
        self.at_us += 1000;
        self.log.push(Entry { at_us: self.at_us, process: self.process, session: None, what });
    }

    fn notice(&mut self, notice: Notice) {
        self.say(What::Notice { notice });
    }

    fn invoke(&mut self, operation: Operation) -> u64 {
        self.id += 1;
        let id = self.id;
        self.say(What::Invoke { id, operation });
        id
    }

    fn opened(&self, resumed: bool) -> Opened {
        Opened {
            resumed,
            stamp: self.stamp(),
            cseq: self.cseq,
            node: "n#1".to_owned(),
            resume_ms: 10_000,
            heartbeat_ms: 1_000,
            watching: self.watching.clone(),
            ..Opened::default()
        }
    }

    fn ready(&mut self, resumed: bool, rolled_back: Option<Rollback>) {
        let claim = resumed.then_some(Claim { stamp: None, away_ms: 100, away_at_least_ms: 100 });
        let opened = Opened { rolled_back, claim, ..self.opened(resumed) };
        self.notice(Notice::Ready(Box::new(opened)));
    }

    fn asks_write(&mut self, ack: Ack) -> (u64, u64) {
        self.k += 1;
        let k = self.k;
        (self.invoke(Operation::Write { k, ack }), k)
    }

    /// The server carries a write out.
    fn applies(&mut self, k: u64) {
        self.cseq += 1;
        self.version += 1;
        self.counter += 1;
        self.ring[(k % RING_SLOTS) as usize] = k;
    }

    fn answers(&mut self, id: u64, ack: Ack) {
        self.answers_as(id, self.cseq, ack, false);
    }

    fn answers_as(&mut self, id: u64, cseq: u64, ack: Ack, dup: bool) {
        let (stamp, counter) = (self.stamp(), self.counter);
        let value = Value::Counter(counter);
        self.say(What::Ok {
            id,
            cseq: Some(cseq),
            stamp: Some(stamp),
            ack: Some(ack),
            prov: false,
            dup,
            value,
        });
    }

    fn write(&mut self, ack: Ack) -> u64 {
        let (id, k) = self.asks_write(ack);
        self.applies(k);
        self.answers(id, ack);
        k
    }

    fn read(&mut self) {
        let id = self.invoke(Operation::Read);
        let value = Value::State { counter: self.counter, ring: self.ring.clone().into() };
        let stamp = Some(self.stamp());
        self.say(What::Ok { id, cseq: None, stamp, ack: None, prov: false, dup: false, value });
    }

    fn present(&mut self, status: Status) -> Item {
        self.presence += 1;
        let k = self.presence;
        let id = self.invoke(Operation::Presence { k, status });
        self.cseq += 1;
        self.version += 1;
        let (cseq, stamp) = (Some(self.cseq), Some(self.stamp()));
        self.say(What::Ok {
            id,
            cseq,
            stamp,
            ack: Some(Ack::Applied),
            prov: false,
            dup: false,
            value: Value::None,
        });
        Item { subject: self.process, ver: (self.epoch, k), status, k }
    }

    fn watch(&mut self, items: Vec<Item>) {
        let subjects: Vec<u32> = items.iter().map(|item| item.subject).collect();
        self.watching.extend(&subjects);
        let id = self.invoke(Operation::Watch { subjects });
        let value = Value::Presences(items);
        self.say(What::Ok { id, cseq: None, stamp: None, ack: None, prov: false, dup: false, value });
    }

    fn sees(&mut self, item: Item) {
        self.notice(Notice::Presence { seq: 1, items: vec![item] });
    }

    fn down(&mut self) {
        self.notice(Notice::Down { code: None, on_purpose: None, stay_ms: 0 });
    }

    /// The server dies and comes back with what it had at `kept`; it says so.
    fn rolled_back_to(&mut self, kept: &Self) {
        let from = self.stamp();
        self.down();
        (self.cseq, self.counter, self.ring) = (kept.cseq, kept.counter, kept.ring.clone());
        (self.epoch, self.version) = (self.epoch + 1, kept.version);
        let lost = Rollback { from, to: Some(kept.stamp()), cseq: kept.cseq };
        self.ready(true, Some(lost));
    }

    fn turned(&mut self, away_ms: u64) {
        let claim = Some(Claim { stamp: None, away_ms, away_at_least_ms: away_ms });
        self.notice(Notice::Turned { code: ErrorCode::NotResumable, claim, lost: false });
    }
}

fn verdicts(stories: &[&Story]) -> Vec<Verdict> {
    let logs = stories.iter().map(|story| story.log.clone()).collect();
    judge(&History { logs }, 60_000)
}

/// The names of the checkers that found something.
fn broken(stories: &[&Story]) -> Vec<&'static str> {
    let found = verdicts(stories);
    for verdict in &found {
        for violation in &verdict.violations {
            assert!(!violation.excerpt.is_empty(), "{}: no excerpt", violation.what);
        }
    }
    found.iter().filter(|verdict| verdict.broken > 0).map(|verdict| verdict.checker).collect()
}

fn nothing() -> Vec<&'static str> {
    Vec::new()
}

// Histories that must pass.

#[test]
fn an_uneventful_life_breaks_nothing_and_is_judged() {
    let mut story = Story::of(0);
    for _ in 0..100 {
        story.write(Ack::Applied);
        story.write(Ack::Durable);
        story.read();
    }
    assert_eq!(broken(&[&story]), nothing());
    let found = verdicts(&[&story]);
    for name in ["C1", "C2", "C3", "C4"] {
        let checks = found.iter().find(|verdict| verdict.checker == name).unwrap().checks;
        assert!(checks >= 100, "{name} made {checks} checks");
    }
}

#[test]
fn answers_that_overtake_each_other_break_nothing() {
    let mut story = Story::of(0);
    let (slow, k) = story.asks_write(Ack::Durable);
    story.applies(k);
    let (slow_stamp, slow_cseq) = (story.stamp(), story.cseq);
    story.write(Ack::Applied);
    story.read();
    let value = Value::Counter(1);
    let (cseq, stamp, ack) = (Some(slow_cseq), Some(slow_stamp), Some(Ack::Durable));
    story.say(What::Ok { id: slow, cseq, stamp, ack, prov: false, dup: false, value });
    story.read();
    assert_eq!(broken(&[&story]), nothing());
}

#[test]
fn a_lost_answer_that_is_repeated_breaks_nothing() {
    let mut story = Story::of(0);
    story.write(Ack::Applied);
    let (lost, k) = story.asks_write(Ack::Applied);
    story.applies(k);
    story.down();
    story.ready(true, None);
    story.answers_as(lost, 2, Ack::Applied, true);
    story.write(Ack::Applied);
    story.read();
    assert_eq!(broken(&[&story]), nothing());
}

#[test]
fn a_rollback_that_is_told_breaks_nothing_and_its_numbers_are_used_again() {
    let mut story = Story::of(0);
    story.write(Ack::Durable);
    let kept = story.clone();
    story.write(Ack::Applied);
    // Took effect, had no answer, was lost, and goes out again under a lower number.
    let (unanswered, k) = story.asks_write(Ack::Applied);
    story.applies(k);
    story.read();
    story.rolled_back_to(&kept);
    story.applies(k);
    story.answers(unanswered, Ack::Applied);
    story.write(Ack::Durable);
    story.read();
    assert_eq!(broken(&[&story]), nothing());
}

#[test]
fn an_unknown_write_may_have_taken_effect_or_not() {
    for took_effect in [false, true] {
        let mut story = Story::of(0);
        story.write(Ack::Applied);
        let (id, k) = story.asks_write(Ack::Applied);
        if took_effect {
            story.applies(k);
        }
        story.read();
        story.say(What::Unknown { id, cseq: Some(2) });
        story.turned(20_000);
        story.notice(Notice::Ended { code: None, wanted: true, reason: String::new() });
        assert_eq!(broken(&[&story]), nothing());
    }
}

#[test]
fn a_new_login_starts_a_new_life() {
    let mut story = Story::of(0);
    story.write(Ack::Durable);
    story.turned(20_000);
    (story.cseq, story.counter, story.ring) = (0, 0, vec![0; RING_SLOTS as usize]);
    story.ready(false, None);
    story.read();
    story.write(Ack::Applied);
    story.read();
    assert_eq!(broken(&[&story]), nothing());
}

// C1: histories that must fail.

#[test]
fn c1_finds_a_read_that_is_older_than_an_own_write() {
    let mut story = Story::of(0);
    let before = story.clone();
    story.write(Ack::Applied);
    (story.version, story.counter, story.ring) = (before.version, before.counter, before.ring);
    story.read();
    assert!(broken(&[&story]).contains(&"C1"));
}

#[test]
fn c1_finds_a_read_that_is_older_than_a_read() {
    let mut story = Story::of(0);
    story.version += 5;
    story.read();
    story.version -= 1;
    story.read();
    assert_eq!(broken(&[&story]), ["C1"]);
}

#[test]
fn c1_finds_a_counter_that_falls_though_the_stamp_grows() {
    let mut story = Story::of(0);
    story.write(Ack::Applied);
    story.version += 1;
    story.counter = 0;
    story.read();
    assert!(broken(&[&story]).contains(&"C1"));
}

#[test]
fn c1_finds_writes_out_of_order() {
    let mut story = Story::of(0);
    let (first, _) = story.asks_write(Ack::Applied);
    let (second, _) = story.asks_write(Ack::Applied);
    story.counter = 1;
    story.version = 9;
    story.answers_as(first, 1, Ack::Applied, false);
    story.counter = 2;
    story.version = 8;
    story.answers_as(second, 2, Ack::Applied, false);
    assert_eq!(broken(&[&story]), ["C1"]);
}

#[test]
fn c1_finds_a_write_that_does_not_follow_a_read() {
    let mut story = Story::of(0);
    story.version = 20;
    story.read();
    story.version = 10;
    story.write(Ack::Applied);
    assert_eq!(broken(&[&story]), ["C1"]);
}

// C2.

#[test]
fn c2_finds_a_durable_write_that_is_lost_though_it_is_told() {
    let mut story = Story::of(0);
    let kept = story.clone();
    story.write(Ack::Durable);
    story.rolled_back_to(&kept);
    story.read();
    assert_eq!(broken(&[&story]), ["C2"]);
}

#[test]
fn c2_finds_a_write_that_is_lost_after_it_was_told_durable() {
    let mut story = Story::of(0);
    let kept = story.clone();
    story.write(Ack::Applied);
    let stamp = story.stamp();
    story.notice(Notice::Durable { stamp, cseq: 1 });
    story.rolled_back_to(&kept);
    assert_eq!(broken(&[&story]), ["C2"]);
}

#[test]
fn c2_and_c3_find_a_durable_write_that_is_lost_in_silence() {
    let mut story = Story::of(0);
    let k = story.write(Ack::Durable);
    story.write(Ack::Applied);
    story.ring[k as usize] = 0;
    story.read();
    assert_eq!(broken(&[&story]), ["C2", "C3"]);
}

#[test]
fn c2_and_c9_find_a_session_that_goes_with_durable_writes() {
    let mut story = Story::of(0);
    story.write(Ack::Durable);
    story.turned(9_000);
    assert_eq!(broken(&[&story]), ["C2", "C9"]);
}

// C3.

#[test]
fn c3_finds_an_acked_write_that_is_gone_without_a_word() {
    let mut story = Story::of(0);
    let k = story.write(Ack::Applied);
    story.write(Ack::Applied);
    story.ring[k as usize] = 0;
    story.read();
    assert_eq!(broken(&[&story]), ["C3"]);
}

#[test]
fn c3_finds_a_lost_write_under_an_overwritten_slot_by_the_counter() {
    let mut story = Story::of(0);
    for _ in 0..RING_SLOTS + 5 {
        story.write(Ack::Applied);
    }
    story.counter -= 1;
    story.write(Ack::Applied);
    story.read();
    assert!(broken(&[&story]).contains(&"C3"));
}

#[test]
fn c3_finds_a_ready_that_hides_what_it_lost() {
    let mut story = Story::of(0);
    story.write(Ack::Applied);
    story.down();
    story.cseq = 0;
    story.ready(true, None);
    assert!(broken(&[&story]).contains(&"C3"));
}

#[test]
fn c3_finds_a_ready_behind_the_claimed_stamp() {
    let mut story = Story::of(0);
    let claim = Some(Claim { stamp: Some((5, 9)), away_ms: 1, away_at_least_ms: 1 });
    let opened = Opened { claim, ..story.opened(true) };
    story.notice(Notice::Ready(Box::new(opened)));
    assert_eq!(broken(&[&story]), ["C3"]);
}

#[test]
fn c3_finds_a_rollback_that_reached_further_than_it_said() {
    let mut story = Story::of(0);
    let k = story.write(Ack::Applied);
    let kept = story.clone();
    story.write(Ack::Applied);
    story.rolled_back_to(&kept);
    story.ring[k as usize] = 0;
    story.read();
    assert_eq!(broken(&[&story]), ["C3"]);
}

#[test]
fn c3_finds_a_write_that_was_reported_lost_and_is_there() {
    let mut story = Story::of(0);
    let kept = story.clone();
    let k = story.write(Ack::Applied);
    story.rolled_back_to(&kept);
    story.ring[k as usize] = k;
    story.read();
    assert_eq!(broken(&[&story]), ["C3"]);
}

// C4.

#[test]
fn c4_finds_a_repeat_that_is_carried_out() {
    let mut story = Story::of(0);
    let (id, k) = story.asks_write(Ack::Applied);
    story.applies(k);
    story.down();
    story.ready(true, None);
    story.counter += 1;
    story.version += 1;
    story.answers_as(id, 1, Ack::Applied, false);
    story.read();
    let found = verdicts(&[&story]);
    let once = found.iter().find(|verdict| verdict.checker == "C4").unwrap();
    assert_eq!(once.broken, 3, "the answer, its counter, and the read: {once:?}");
}

#[test]
fn c4_finds_a_repeat_that_is_carried_out_and_denied() {
    let mut story = Story::of(0);
    story.write(Ack::Applied);
    let (id, k) = story.asks_write(Ack::Applied);
    story.applies(k);
    story.down();
    story.ready(true, None);
    story.counter += 1;
    story.answers_as(id, 2, Ack::Applied, true);
    story.read();
    assert_eq!(broken(&[&story]), ["C4"]);
}

#[test]
fn c4_finds_one_number_for_two_changes() {
    let mut story = Story::of(0);
    story.write(Ack::Applied);
    story.cseq = 0;
    story.write(Ack::Applied);
    assert!(broken(&[&story]).contains(&"C4"));
}

#[test]
fn c4_finds_a_refused_write_that_took_effect() {
    let mut story = Story::of(0);
    let (id, k) = story.asks_write(Ack::Applied);
    story.ring[k as usize] = k;
    story.counter += 1;
    story.say(What::Fail { id, cseq: Some(1), code: ErrorCode::RateLimited, applied: false });
    story.read();
    assert_eq!(broken(&[&story]), ["C4"]);
}

#[test]
fn a_refusal_that_says_applied_is_an_effect() {
    let mut story = Story::of(0);
    let (id, k) = story.asks_write(Ack::Durable);
    story.applies(k);
    story.say(What::Fail { id, cseq: Some(1), code: ErrorCode::StoreUnavailable, applied: true });
    story.read();
    assert_eq!(broken(&[&story]), nothing());
    story.ring[k as usize] = 0;
    story.counter = 0;
    story.read();
    assert!(broken(&[&story]).contains(&"C3"));
}

// C9.

#[test]
fn c9_finds_a_resume_refused_too_early() {
    let mut story = Story::of(0);
    story.turned(9_999);
    assert_eq!(broken(&[&story]), ["C9"]);
    let mut patient = Story::of(0);
    patient.turned(10_000);
    assert_eq!(broken(&[&patient]), nothing());
}

#[test]
fn c9_finds_a_resume_accepted_too_late() {
    for (away, how, is_restarted, found) in [
        (45_000, Drop::Cut, false, vec![]),
        (45_001, Drop::Cut, false, vec!["C9"]),
        (47_000, Drop::Abandon, false, vec![]),
        (47_001, Drop::Abandon, false, vec!["C9"]),
        (90_000, Drop::Cut, true, vec![]),
    ] {
        let mut story = Story::of(0);
        story.notice(Notice::Down { code: None, on_purpose: Some(how), stay_ms: 0 });
        let claim = Some(Claim { stamp: None, away_ms: away, away_at_least_ms: away });
        story.epoch += u64::from(is_restarted);
        let opened = Opened { claim, ..story.opened(true) };
        story.notice(Notice::Ready(Box::new(opened)));
        assert_eq!(broken(&[&story]), found, "{away} {how:?} {is_restarted}");
    }
}

#[test]
fn c9_says_when_no_session_could_run_out_or_nobody_came_too_late() {
    let not_exercised = |story: &Story, run_ms| {
        let found = judge(&History { logs: vec![story.log.clone()] }, run_ms);
        found.iter().find(|verdict| verdict.checker == "C9").unwrap().not_exercised.is_some()
    };
    let mut story = Story::of(0);
    assert!(not_exercised(&story, 9_000));
    assert!(not_exercised(&story, 60_000));
    story.turned(10_000);
    assert!(!not_exercised(&story, 60_000));
}

// Pushes.

/// A subject that changes its presence twice and a watcher that sees what it is shown.
fn watched(show: impl FnOnce(&mut Story, Item, Item)) -> Vec<&'static str> {
    let mut subject = Story::of(0);
    let first = subject.present(Status::Online);
    let second = subject.present(Status::Playing);
    subject.read();
    let mut watcher = Story::of(1);
    watcher.present(Status::Online);
    watcher.watch(vec![Item { k: 0, ver: (5, 0), status: Status::Offline, ..first.clone() }]);
    show(&mut watcher, first, second);
    watcher.read();
    broken(&[&subject, &watcher])
}

fn hears(member: &mut Story, s: u64, repeat: bool) {
    member.notice(Notice::Heard { seq: 1, from: 0, s, repeat });
}

#[test]
fn a_word_comes_once_from_whoever_said_it() {
    let talk = |bend: fn(&mut Story, &mut Story)| {
        let (mut speaker, mut member) = (Story::of(0), Story::of(1));
        let id = speaker.invoke(Operation::Say { s: 1 });
        bend(&mut speaker, &mut member);
        let stamp = Some(speaker.stamp());
        let value = Value::None;
        speaker.say(What::Ok { id, cseq: None, stamp, ack: None, prov: false, dup: false, value });
        for story in [&mut speaker, &mut member] {
            story.read();
        }
        let logs = vec![speaker.log, member.log];
        let found = judge(&History { logs }, 60_000);
        found.iter().find(|verdict| verdict.checker == "pushes").unwrap().broken
    };
    assert_eq!(talk(|_, member| hears(member, 1, false)), 0);
    assert_eq!(talk(|_, member| hears(member, 2, false)), 1, "it was never said");
    assert_eq!(talk(|_, member| [1, 1].into_iter().for_each(|s| hears(member, s, false))), 1);
    assert_eq!(talk(|_, member| [false, true].into_iter().for_each(|again| hears(member, 1, again))), 0);
    // Whoever lost her link meanwhile may have had to say it again.
    assert_eq!(
        talk(|speaker, member| {
            speaker.ready(true, None);
            [1, 1].into_iter().for_each(|s| hears(member, s, false));
        }),
        0
    );
}

#[test]
fn pushes_may_be_joined_but_the_latest_arrives() {
    assert_eq!(watched(|watcher, _, second| watcher.sees(second)), nothing());
    assert_eq!(watched(|watcher, first, _| watcher.sees(first)), ["pushes"]);
    assert_eq!(watched(|_, _, _| ()), ["pushes"]);
    let leaves = |watcher: &mut Story, _, second: Item| {
        watcher.sees(second.clone());
        watcher.sees(Item { k: 0, ver: (5, 9), status: Status::Offline, ..second });
    };
    assert_eq!(watched(leaves), nothing(), "who logs out afterwards was seen before");
}

#[test]
fn a_push_that_lies_is_found() {
    let lie = |watcher: &mut Story, _, second: Item| watcher.sees(Item { status: Status::Busy, ..second });
    assert_eq!(watched(lie), ["pushes"]);
}

#[test]
fn presence_that_goes_back_is_found() {
    let back = |watcher: &mut Story, first: Item, second: Item| {
        watcher.sees(second.clone());
        watcher.sees(Item { ver: (5, 3), ..first });
        watcher.sees(Item { ver: (5, 4), ..second });
    };
    assert_eq!(watched(back), ["pushes"]);
    let back_over_none = |watcher: &mut Story, first: Item, second: Item| {
        watcher.sees(second.clone());
        watcher.sees(Item { ver: (5, 3), k: 0, ..second.clone() });
        watcher.sees(Item { ver: (5, 4), ..first });
        watcher.sees(Item { ver: (5, 5), ..second });
    };
    assert_eq!(watched(back_over_none), ["pushes"]);
    let stale = |watcher: &mut Story, first: Item, second: Item| {
        watcher.sees(second);
        watcher.sees(first);
    };
    assert_eq!(watched(stale), nothing(), "an older ver is no news");
}

#[test]
fn a_missing_number_is_found() {
    let mut story = Story::of(0);
    story.notice(Notice::SeqGap { expected: 4, came: 6 });
    assert_eq!(broken(&[&story]), ["pushes"]);
}

#[test]
fn a_number_that_comes_again_on_one_link_is_found() {
    let mut story = Story::of(0);
    story.notice(Notice::SeqGap { expected: 5, came: 4 });
    let found = verdicts(&[&story]);
    let pushes = found.iter().find(|verdict| verdict.checker == "pushes").unwrap();
    assert_eq!(pushes.violations[0].what, "push 4 came again, on one link, where 5 was due");
}

#[test]
fn without_a_message_it_is_said_that_none_was_tried() {
    let found = verdicts(&[&Story::of(0)]);
    let pushes = found.iter().find(|verdict| verdict.checker == "pushes").unwrap();
    assert!(pushes.left_out.as_ref().unwrap().starts_with("no message was delivered"));
}

#[test]
fn a_message_comes_once_and_does_come() {
    let message = |m, repeat| Notice::Message { seq: 1, id: "x".to_owned(), m, repeat };
    let mut service = Story::of(1);
    let id = service.invoke(Operation::Message { to: 0, m: 7 });
    let value = Value::Delivered(1);
    service.say(What::Ok { id, cseq: None, stamp: None, ack: None, prov: false, dup: false, value });
    let mut never = Story::of(0);
    assert_eq!(broken(&[&never, &service]), ["pushes"]);
    let absent = Story { log: Vec::new(), ..never.clone() };
    assert_eq!(broken(&[&absent, &service]), nothing(), "it went to a session of an earlier run");
    let mut twice = never.clone();
    never.at_us = 1_000_000;
    let opened = Opened { missed: true, ..never.opened(true) };
    never.notice(Notice::Ready(Box::new(opened)));
    assert_eq!(broken(&[&never, &service]), nothing(), "it was announced as missed");
    twice.notice(message(7, false));
    assert_eq!(broken(&[&twice, &service]), nothing());
    twice.notice(message(7, true));
    assert_eq!(broken(&[&twice, &service]), nothing(), "a repeat under the same id is dropped");
    twice.notice(message(7, false));
    assert_eq!(broken(&[&twice, &service]), ["pushes"]);
}

#[test]
fn a_forgotten_watch_is_found_unless_it_was_reported_lost() {
    let mut story = Story::of(0);
    let kept = story.clone();
    story.watch(vec![Item { subject: 9, ver: (0, 0), status: Status::Offline, k: 0 }]);
    story.watching.clear();
    let mut fresh = story.clone();
    fresh.ready(true, None);
    assert_eq!(broken(&[&fresh]), nothing(), "no stamped answer came after it");
    story.write(Ack::Applied);
    let mut told = story.clone();
    story.ready(true, None);
    assert_eq!(broken(&[&story]), ["pushes"]);
    told.rolled_back_to(&kept);
    assert_eq!(broken(&[&told]), nothing());
}
