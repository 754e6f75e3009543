//! The checkers of runs under faults, each on what must pass and on what must fail: a quiet run of two bots at two nodes, in
//! which a test bends one thing.

use std::collections::BTreeMap;

use protocol::request::{Ack, Status};

use super::{Bounds, Evidence, Verdict, backlog, fence, footprint, homes, losses, policy, recovery, truth};
use crate::audit::{Audit, Incident, MetaWord, NodeWord, Sample, Seen, ShardWord, StoreWord};
use crate::history::{Drop, Entry, History, Item, Notice, Opened, Operation, Value, What};

const SECOND: u64 = 1_000_000;

/// A run of a minute with a fault from 20 s to 25 s.
struct Story {
    history: History,
    audit: Audit,
    incidents: Vec<Incident>,
}

impl Story {
    fn quiet() -> Self {
        let mut story = Self { history: History::default(), audit: Audit::default(), incidents: Vec::new() };
        story.incidents.push(Incident {
            what: "a fault".into(),
            begun_us: 20 * SECOND,
            healed_us: 25 * SECOND,
            ..Incident::default()
        });
        for process in 0..2 {
            story.history.logs.push(Vec::new());
            story.opens(process, SECOND, "a", 5);
            for k in 1..=580 {
                story.writes(process, k, 2 * SECOND + k * SECOND / 10, 2_000);
            }
        }
        for at in 1..60 {
            story.sees(at * SECOND, word("a", &[(0, 5, 100)]));
            story.sees(at * SECOND, word("b", &[(1, 6, 100)]));
            story.sees(at * SECOND, store(&[(0, 5), (1, 6)], &[(0, 5, at), (1, 5, at)]));
            let process = |node: &str, rss_bytes, descriptors| Seen::Process {
                node: node.into(),
                pid: 1,
                rss_bytes,
                descriptors,
            };
            story.sees(at * SECOND, process("a", 50 << 20, 100));
            story.sees(at * SECOND, process("b", 50 << 20, 100));
        }
        story.shows(40 * SECOND, &[(0, Status::Online, 0), (1, Status::Online, 0)]);
        story
    }

    fn says(&mut self, process: u32, at_us: u64, what: What) {
        let log = &mut self.history.logs[process as usize];
        log.push(Entry { at_us, process, session: None, what });
        log.sort_by_key(|entry| entry.at_us);
    }

    fn opens(&mut self, process: u32, at_us: u64, node: &str, epoch: u64) {
        let opened =
            Opened { stamp: (epoch, 1), node: node.into(), resumed: at_us > SECOND, ..Opened::default() };
        self.says(process, at_us, What::Notice { notice: Notice::Ready(Box::new(opened)) });
    }

    fn leaves(&mut self, process: u32, at_us: u64) {
        let notice = Notice::Down { code: None, on_purpose: None, stay_ms: 0 };
        self.says(process, at_us, What::Notice { notice });
    }

    fn writes(&mut self, process: u32, k: u64, at_us: u64, took_us: u64) {
        self.says(
            process,
            at_us,
            What::Invoke { id: k, operation: Operation::Write { k, ack: Ack::Applied } },
        );
        self.answers(process, k, at_us + took_us);
    }

    fn answers(&mut self, process: u32, id: u64, at_us: u64) {
        let (stamp, ack) = (Some((5, id + 1)), Some(Ack::Applied));
        let what = What::Ok { id, cseq: Some(id), stamp, ack, prov: false, dup: false, value: Value::None };
        self.says(process, at_us, what);
    }

    fn presents(&mut self, process: u32, k: u64, at_us: u64) {
        let operation = Operation::Presence { k, status: Status::Online };
        self.says(process, at_us, What::Invoke { id: 10_000 + k, operation });
        self.answers(process, 10_000 + k, at_us + 1_000);
    }

    fn hears(&mut self, process: u32, at_us: u64, item: Item) {
        self.says(process, at_us, What::Notice { notice: Notice::Presence { seq: 1, items: vec![item] } });
    }

    fn sees(&mut self, at_us: u64, seen: Seen) {
        self.audit.samples.push(Sample { at_us, since_us: at_us - 1_000, seen });
        self.audit.samples.sort_by_key(|sample| sample.at_us);
    }

    fn shows(&mut self, at_us: u64, shown: &[(u32, Status, u64)]) {
        let items = shown.iter().map(|(subject, status, k)| item(*subject, *status, *k)).collect();
        self.sees(at_us, Seen::Shown { node: "a".into(), items });
    }

    fn judged(&self, check: impl Fn(&Evidence<'_>) -> Verdict) -> Verdict {
        let bounds = Bounds {
            drained_within_ms: 10_000,
            converged_within_ms: 5_000,
            presence_grace_ms: 1_000,
            served_within_ms: 5_000,
        };
        let Self { history, audit, incidents } = self;
        check(&Evidence { history, audit, incidents, shards: &[0, 0], bounds, run_ms: 60_000 })
    }
}

fn item(subject: u32, status: Status, k: u64) -> Item {
    Item { subject, ver: (5, k), status, k }
}

fn word(node: &str, shards: &[(u16, u64, u64)]) -> Seen {
    let shard = |(shard, epoch, flush_lag_ms): &(u16, u64, u64)| ShardWord {
        shard: *shard,
        epoch: *epoch,
        serving: true,
        dirty: 1,
        flush_lag_ms: *flush_lag_ms,
    };
    let (boot, shards) = (format!("{node}#1"), shards.iter().map(shard).collect());
    Seen::Node(NodeWord { node: node.into(), boot, shards, metrics: BTreeMap::new() })
}

fn store(epochs: &[(u16, u64)], records: &[(u32, u64, u64)]) -> Seen {
    let meta = |(shard, epoch): &(u16, u64)| MetaWord { shard: *shard, epoch: *epoch, ..MetaWord::default() };
    let (metas, records) = (epochs.iter().map(meta).collect(), records.to_vec());
    Seen::Store(StoreWord { server: "1".into(), metas, records })
}

fn passes(verdict: &Verdict) {
    assert!(verdict.checks > 0 && verdict.broken == 0, "{verdict:?}");
    assert!(verdict.not_exercised.is_none(), "{verdict:?}");
}

fn fails(verdict: &Verdict) {
    assert!(verdict.broken > 0, "{verdict:?}");
}

fn fence_of(evidence: &Evidence<'_>) -> Verdict {
    fence::check(evidence.audit, evidence.incidents, evidence.shards)
}

fn footprint_of(evidence: &Evidence<'_>) -> Verdict {
    footprint::check(evidence.audit, evidence.incidents)
}

#[test]
fn a_quiet_run_passes_all() {
    let story = Story::quiet();
    for check in [homes::check, fence_of, backlog::check, truth::check, footprint_of, recovery::check] {
        passes(&story.judged(check));
    }
    assert!(losses::of(&story.history).is_empty());
}

#[test]
fn c5_fails_when_two_nodes_answer_under_one_epoch() {
    let mut story = Story::quiet();
    story.opens(1, 61 * SECOND, "b", 5);
    fails(&story.judged(homes::check));
}

#[test]
fn c5_fails_when_two_nodes_say_that_they_serve_under_one_epoch() {
    let mut story = Story::quiet();
    story.sees(30 * SECOND, word("b", &[(0, 5, 0)]));
    fails(&story.judged(homes::check));
}

#[test]
fn c6_fails_when_a_record_falls_back_or_stands_above_what_was_granted() {
    for records in [[(0, 5, 3)], [(0, 9, 1)]] {
        let mut story = Story::quiet();
        story.sees(40 * SECOND + 1, store(&[(0, 5), (1, 6)], &records));
        fails(&story.judged(fence_of));
    }
}

#[test]
fn c6_fails_when_an_epoch_falls_unless_the_store_was_made_to_forget() {
    let mut story = Story::quiet();
    story.sees(25 * SECOND - 1, store(&[(0, 4)], &[]));
    fails(&story.judged(fence_of));
    story.incidents[0].loses_store = true;
    passes(&story.judged(fence_of));
}

#[test]
fn c7_fails_when_a_backlog_stays() {
    let mut story = Story::quiet();
    for sample in &mut story.audit.samples {
        let is_after = (25 * SECOND..40 * SECOND).contains(&sample.at_us);
        if let (true, Seen::Node(word)) = (is_after, &mut sample.seen) {
            word.shards[0].flush_lag_ms = 5_000;
        }
    }
    fails(&story.judged(backlog::check));
}

#[test]
fn c7_fails_when_the_node_with_the_backlog_does_not_speak_at_first() {
    let mut story = Story::quiet();
    story.audit.samples.retain(|sample| match &sample.seen {
        Seen::Node(word) => word.node != "a" || !(20 * SECOND..28 * SECOND).contains(&sample.at_us),
        _ => true,
    });
    passes(&story.judged(backlog::check));
    for sample in story.audit.samples.iter_mut().filter(|sample| sample.at_us > 25 * SECOND) {
        if let Seen::Node(word) = &mut sample.seen
            && word.node == "a"
        {
            word.shards[0].flush_lag_ms = 5_000;
        }
    }
    fails(&story.judged(backlog::check));
}

#[test]
fn c7_judges_a_fault_in_which_another_began_and_ended() {
    let mut story = Story::quiet();
    let within = Incident { begun_us: 22 * SECOND, healed_us: 23 * SECOND, ..story.incidents[0].clone() };
    story.incidents.push(within);
    passes(&story.judged(backlog::check));
    for sample in story.audit.samples.iter_mut().filter(|sample| sample.at_us > 25 * SECOND) {
        if let Seen::Node(word) = &mut sample.seen {
            word.shards[0].flush_lag_ms = 5_000;
        }
    }
    fails(&story.judged(backlog::check));
}

#[test]
fn c7_says_nothing_of_a_fault_after_which_the_run_was_broken_off() {
    let mut story = Story::quiet();
    story.incidents[0].left_alone = true;
    story.audit.samples.retain(|sample| sample.at_us < 25 * SECOND);
    let verdict = story.judged(backlog::check);
    assert_eq!(
        (verdict.checks, verdict.remark()),
        (0, Some("not judged: the run was broken off".to_owned()))
    );
    story.incidents[0].left_alone = false;
    fails(&story.judged(backlog::check));
}

#[test]
fn c8_fails_when_two_links_of_one_player_stand() {
    let stay = |came_us, left_us| policy::Stay { player: 1, came_us, left_us };
    let stays = [stay(0, Some(100)), stay(50, None)];
    fails(&policy::check(&stays, 1, 40));
    passes(&policy::check(&stays, 1, 50));
    passes(&policy::check(&stays, 2, 0));
}

#[test]
fn c10_fails_when_somebody_present_is_not_shown() {
    let mut story = Story::quiet();
    story.shows(45 * SECOND, &[(0, Status::Online, 0), (1, Status::Offline, 0)]);
    fails(&story.judged(truth::check));
}

#[test]
fn c10_fails_when_a_phantom_is_shown() {
    let mut story = Story::quiet();
    story.leaves(1, 30 * SECOND);
    passes(&{
        // Just then nobody knows.
        let mut early = Story::quiet();
        early.leaves(1, 39 * SECOND);
        early.judged(truth::check)
    });
    fails(&story.judged(truth::check));
}

#[test]
fn c10_takes_a_silent_link_for_one_until_the_server_gives_it_up() {
    let left_open = |at_us: u64, heartbeat_ms: u64| {
        let mut story = Story::quiet();
        for entry in &mut story.history.logs[1] {
            if let What::Notice { notice: Notice::Ready(opened) } = &mut entry.what {
                opened.heartbeat_ms = heartbeat_ms;
            }
        }
        let notice = Notice::Down { code: None, on_purpose: Some(Drop::Abandon), stay_ms: 90_000 };
        story.says(1, at_us, What::Notice { notice });
        story.judged(truth::check)
    };
    passes(&left_open(30 * SECOND, 5_000));
    fails(&left_open(30 * SECOND, 1_000));
}

#[test]
fn c10_knows_that_a_node_knows_of_a_login_before_its_player() {
    let comes_back = |took_us: u64| {
        let mut story = Story::quiet();
        story.leaves(1, 20 * SECOND);
        let opened = Opened { stamp: (6, 1), node: "a".into(), took_us, ..Opened::default() };
        story.says(1, 40 * SECOND + 500, What::Notice { notice: Notice::Ready(Box::new(opened)) });
        story.judged(truth::check)
    };
    passes(&comes_back(2_000));
    fails(&comes_back(100));
}

#[test]
fn c10_fails_when_a_watcher_or_a_node_missed_the_latest() {
    let mut story = Story::quiet();
    story.presents(1, 7, 30 * SECOND);
    fails(&story.judged(truth::check));
    let mut story = Story::quiet();
    story.presents(1, 7, 30 * SECOND);
    story.hears(0, 29 * SECOND, item(1, Status::Online, 6));
    story.audit.samples.retain(|sample| !matches!(sample.seen, Seen::Shown { .. }));
    story.shows(40 * SECOND, &[(0, Status::Online, 0), (1, Status::Online, 7)]);
    fails(&story.judged(truth::check));
    story.hears(0, 31 * SECOND, item(1, Status::Online, 7));
    passes(&story.judged(truth::check));
}

#[test]
fn c10_fails_when_a_node_does_not_know_of_somebody_or_does_not_answer() {
    for shown in [&[(0, Status::Online, 0)][..], &[]] {
        let mut story = Story::quiet();
        story.shows(45 * SECOND, shown);
        fails(&story.judged(truth::check));
    }
}

#[test]
fn c10_says_nothing_when_nobody_asked_after_the_last_fault() {
    let mut story = Story::quiet();
    story.incidents.push(Incident {
        begun_us: 41 * SECOND,
        healed_us: 42 * SECOND,
        ..story.incidents[0].clone()
    });
    assert!(story.judged(truth::check).silence().is_some());
}

#[test]
fn c11_fails_when_memory_or_descriptors_stay_in_use() {
    for (rss, fds) in [(200 << 20, 100), (50 << 20, 900)] {
        let mut story = Story::quiet();
        for sample in story.audit.samples.iter_mut().filter(|sample| sample.at_us > 25 * SECOND) {
            if let Seen::Process { rss_bytes, descriptors, .. } = &mut sample.seen {
                (*rss_bytes, *descriptors) = (rss, fds);
            }
        }
        fails(&story.judged(footprint_of));
    }
}

#[test]
fn c12_fails_when_answers_stay_slow() {
    let mut story = Story::quiet();
    for k in 1_000..1_040 {
        story.writes(0, k, 30 * SECOND + (k - 1_000) * SECOND, 2 * SECOND);
    }
    fails(&story.judged(recovery::check));
}

#[test]
fn c12_fails_when_a_server_that_spins_makes_the_machine_busy() {
    for (own, is_excused) in [(41, false), (1, true)] {
        let mut story = Story::quiet();
        for k in 1_000..1_040 {
            story.writes(0, k, 30 * SECOND + (k - 1_000) * SECOND, 2 * SECOND);
        }
        for at in 1..60 {
            let is_late = at > 25;
            let (runnable, own) = if is_late { (42, own) } else { (2, 1) };
            story.sees(at * SECOND, Seen::Machine { runnable, own });
        }
        let verdict = story.judged(recovery::check);
        assert_eq!(verdict.broken == 0, is_excused, "{verdict:?}");
    }
}

#[test]
fn c12_fails_when_links_break_before_slow_answers_come() {
    let mut story = Story::quiet();
    for at in 31..58 {
        let (k, at) = (1_000 + at, at * SECOND);
        let write = Operation::Write { k, ack: Ack::Applied };
        story.says(0, at, What::Invoke { id: k, operation: write });
        story.leaves(0, at + SECOND / 2);
        story.opens(0, at + SECOND * 3 / 5, "a", 5);
        story.answers(0, k, at + SECOND * 9 / 10);
    }
    fails(&story.judged(recovery::check));
}

#[test]
fn c12_fails_when_answers_never_come() {
    let mut story = Story::quiet();
    for at in 31..58 {
        let write = Operation::Write { k: 1_000 + at, ack: Ack::Applied };
        story.says(0, at * SECOND, What::Invoke { id: 1_000 + at, operation: write });
    }
    fails(&story.judged(recovery::check));
}

#[test]
fn one_slow_second_of_four_shows_in_the_p99_of_all() {
    let p99s = |story: &Story| {
        let (from, to) = (30 * SECOND, 42 * SECOND);
        (recovery::typical_p99_us(&story.history, from, to), recovery::p99_us(&story.history, from, to))
    };
    let mut story = Story::quiet();
    assert_eq!(p99s(&story), (Some(2_000), Some(2_000)));
    for k in 1_000..1_010 {
        story.writes(0, k, 31 * SECOND + k, SECOND / 2);
    }
    assert_eq!(p99s(&story), (Some(2_000), Some(SECOND / 2)));
}

#[test]
fn a_checker_that_had_nothing_to_check_makes_a_run_vacuous_unless_it_may_be_silent() {
    let story = Story { incidents: Vec::new(), ..Story::quiet() };
    let story = Story { audit: Audit::default(), ..story };
    let checks: [fn(&Evidence<'_>) -> Verdict; 4] =
        [backlog::check, truth::check, footprint_of, recovery::check];
    let verdicts: Vec<Verdict> = checks.map(|check| story.judged(check)).into();
    let named = |may_be_silent: fn(&str) -> bool| -> Vec<String> {
        let silences = super::silences(&verdicts, may_be_silent);
        silences.iter().map(|why| why.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(named(|_| false), ["C7", "C10", "C11", "C12"]);
    assert_eq!(named(|checker| checker == "C11"), ["C7", "C10", "C12"]);
    let quiet = [Story::quiet().judged(backlog::check), policy::of_bots()];
    assert!(super::silences(&quiet, |checker| checker == "C8").is_empty());
    assert!(
        Verdict::new("C5", "one home an epoch").silence().is_some(),
        "nothing compared, and no word of it"
    );
}

#[test]
fn c12_passes_where_the_machine_stood_still_for_a_moment() {
    let mut story = Story::quiet();
    for k in 1_000..1_100 {
        story.writes(0, k, 50 * SECOND + k, 2 * SECOND);
    }
    passes(&story.judged(recovery::check));
}

#[test]
fn a_loss_is_found_with_its_age_and_whether_it_was_told() {
    let mut story = Story::quiet();
    story.leaves(0, 20 * SECOND);
    let lost = protocol::reply::Rollback { from: (5, 181), to: Some((5, 179)), cseq: 178 };
    let opened = Opened { resumed: true, cseq: 178, rolled_back: Some(lost), ..Opened::default() };
    story.history.logs[0].retain(|entry| entry.at_us <= 20 * SECOND + 2_000);
    story.says(0, 21 * SECOND, What::Notice { notice: Notice::Ready(Box::new(opened)) });
    let losses = losses::of(&story.history);
    assert_eq!(losses.iter().map(|loss| loss.cseq).collect::<Vec<_>>(), [179, 180]);
    assert!(losses.iter().all(|loss| loss.told && loss.acked_us <= 20 * SECOND + 2_000));
}
