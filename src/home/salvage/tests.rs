//! Which of two records of one player is the truth, without a store or a link.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::Now;
use crate::events::{EndReason, Status};
use crate::home::agenda::Agenda;
use crate::home::record::sessions::Login;
use crate::home::record::state::Patch;
use crate::home::record::{LinkState, LoginPolicy, Rules};
use crate::home::records::Cell;
use crate::home::shard::Shard;
use crate::ids::{PlayerId, SessionId, ShardId, Stamp};

const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_000_000 };

fn rules() -> Rules {
    Rules {
        session_ttl: Duration::from_secs(60),
        login_policy: LoginPolicy::Replace,
        presence_grace: Duration::from_secs(15),
        away_after: Duration::ZERO,
        state_bytes_max: 4_096,
        watches_max: 500,
        rooms_max: 3,
        room_grants: Vec::new(),
        cseq_unchecked: false,
    }
}

fn ctx() -> Context<'static> {
    Context { now: NOW, rules: Box::leak(Box::new(rules())) }
}

fn epoch(number: u64) -> Epoch {
    Epoch::of(number)
}

fn login(record: &mut Record, at: u64) -> SessionId {
    let session = SessionId::generate(ShardId::FIRST, at);
    let login = Login {
        session,
        device: "pc".into(),
        status: Status::Online,
        token_expires_at: u64::MAX,
        token_issued_at: 0,
        grants: Box::default(),
        pending_until: None,
    };
    record.login(ctx(), login).unwrap();
    session
}

fn count(record: &mut Record, session: SessionId, cseq: u64) {
    record.patch(ctx(), session, &Patch { incr: vec![("n", 1)], ..Patch::default() }, Some(cseq)).unwrap();
}

/// A player of epoch 10, and her session.
fn ann() -> (Record, SessionId) {
    let mut record = Record::first(epoch(10), Version::of(5));
    let session = login(&mut record, 1);
    (record, session)
}

/// A record as it comes to the home of epoch 30, and what the store has of it.
fn weighed(salvaged: &Record, base: u64, stored: Option<Record>) -> Truth {
    let salvaged = Salvaged { record: salvaged.clone(), base: Version::of(base) };
    salvaged.weigh(stored, epoch(30), ctx())
}

fn taken(truth: Truth) -> Record {
    match truth {
        Truth::Salvaged(record, _) => *record,
        other => panic!("not taken: {other:?}"),
    }
}

#[test]
fn what_went_on_from_the_stored_version_in_the_same_epoch_wins() {
    let (mut record, session) = ann();
    let stored = record.clone();
    (1..=3).for_each(|cseq| count(&mut record, session, cseq));
    let last = record.stamp();
    let record = taken(weighed(&record, 6, Some(stored)));
    assert_eq!(record.stamp(), Stamp::new(epoch(30), last.version));
    assert_eq!(record.history.judge(record.stamp(), last), Verdict::Reached);
    // Who repeats a change that was salvaged is told that it took effect; her link was the other home's.
    assert_eq!(record.session(session).unwrap().cseq, 3);
    assert_eq!(record.session(session).unwrap().link, LinkState::Detached { since: NOW.unix_ms });
}

#[test]
fn what_inherited_the_stored_version_wins() {
    let (mut record, session) = ann();
    let stored = record.clone();
    record.take_over(epoch(20));
    count(&mut record, session, 1);
    let version = record.version;
    assert_eq!(taken(weighed(&record, 6, Some(stored))).stamp(), Stamp::new(epoch(30), version));
}

#[test]
fn what_the_store_has_as_it_is_was_never_lost() {
    let (record, _) = ann();
    assert!(matches!(weighed(&record, 5, Some(record.clone())), Truth::Stored));
}

#[test]
fn what_is_stored_of_another_line_or_further_on_is_the_truth() {
    let (mut record, session) = ann();
    let salvaged = record.clone();
    count(&mut record, session, 1);
    assert!(matches!(weighed(&salvaged, 6, Some(record.clone())), Truth::Another), "further on");
    let mut later = salvaged.clone();
    later.take_over(epoch(20));
    assert!(matches!(weighed(&salvaged, 6, Some(later)), Truth::Another), "of a later home");
    // It inherited less than what is stored: somebody wrote beside it.
    let mut beside = salvaged.clone();
    beside.take_over(epoch(20));
    count(&mut beside, session, 1);
    assert!(matches!(weighed(&beside, 6, Some(record)), Truth::Another), "beside it");
}

#[test]
fn what_only_the_home_before_has_is_taken() {
    let (record, session) = ann();
    let taken = taken(weighed(&record, 0, None));
    assert_eq!((taken.version, taken.session(session).is_some()), (record.version, true));
}

#[test]
fn what_had_ended_stays_ended() {
    let (mut record, session) = ann();
    let stored = record.clone();
    record.end(ctx(), session, EndReason::Logout).unwrap();
    let taken = taken(weighed(&record, 6, Some(stored)));
    assert_eq!((taken.sessions.len(), taken.version), (0, record.version));
}

#[test]
fn who_was_let_in_without_the_store_meets_what_it_has_of_the_same_home() {
    let (mut stored, before) = ann();
    let claim = stored.stamp();
    stored.take_over(epoch(20));
    stored.end(ctx(), before, EndReason::Logout).unwrap();
    let mut record = Record::first(epoch(20), Version::of(50));
    login(&mut record, 2);
    let record = taken(weighed(&record, 0, Some(stored)));
    assert_eq!(record.history.judge(record.stamp(), claim), Verdict::Reached, "its history is not lost");
}

#[test]
fn who_was_let_in_without_the_store_meets_what_it_has() {
    let (stored, before) = ann();
    let mut record = Record::first(epoch(20), Version::ZERO);
    let session = login(&mut record, 2);
    count(&mut record, session, 1);
    let claim = record.stamp();
    let Truth::Salvaged(record, ended) = weighed(&record, 0, Some(stored.clone())) else { panic!() };
    assert_eq!(ended.iter().map(|ended| ended.session.id).collect::<Vec<_>>(), [before], "replaced");
    assert!(record.session(session).is_some() && record.version > stored.version);
    for known in [claim, stored.stamp()] {
        assert_eq!(record.history.judge(record.stamp(), known), Verdict::Reached, "{known:?}");
    }
}

fn cell(record: Record, base: u64) -> Cell {
    let shard = Shard::new(ShardId::FIRST, Arc::new(Agenda::new(1, Duration::from_secs(1))));
    Cell::new(PlayerId::parse("ann").unwrap(), Arc::new(shard), record, Version::of(base), NOW)
}

#[test]
fn a_record_goes_along_with_its_lists_and_bars_unless_the_store_has_it() {
    let (mut record, session) = ann();
    record.watch(ctx(), session, &[PlayerId::parse("bea").unwrap()]).unwrap();
    let held = cell(record.clone(), record.version.number());
    assert_eq!(held.with_slot(|slot| pack(slot, "n1")), None, "the store has it");
    assert!(
        held.with_slot(|slot| {
            slot.restore = true;
            pack(slot, "n1")
        })
        .is_some(),
        "or is not known to"
    );
    let packed = cell(record.clone(), 6).with_slot(|slot| pack(slot, "n1")).unwrap();
    let salvaged = Salvaged::unpack(&packed, epoch(30)).unwrap();
    assert_eq!((salvaged.base, salvaged.record.stamp()), (Version::of(6), record.stamp()));
    assert_eq!(salvaged.record.session(session).unwrap().watches, record.session(session).unwrap().watches);
    record.ban(ctx(), None, "cheating");
    record.lift_ban(ctx()).unwrap();
    let packed = cell(record, 6).with_slot(|slot| pack(slot, "n1")).unwrap();
    // No string says so, and the store's list of the banned must hear of it.
    assert_eq!(Salvaged::unpack(&packed, epoch(30)).unwrap().record.unsaid(), (true, false));
}

#[test]
fn what_cannot_be_read_or_is_of_no_earlier_epoch_is_none() {
    let (record, _) = ann();
    let packed = cell(record, 0).with_slot(|slot| pack(slot, "n1")).unwrap();
    assert!(Salvaged::unpack(&packed, epoch(10)).is_none());
    assert!(Salvaged::unpack(&packed, epoch(11)).is_some());
    for length in 0..packed.len() {
        assert!(Salvaged::unpack(&packed[..length], epoch(30)).is_none(), "{length}");
    }
}
