//! What a ban and a revocation promise, without a clock or a store.

use std::time::Duration;

use super::super::sessions::Login;
use super::super::{LoginPolicy, Rules};
use super::*;
use crate::clock::Now;
use crate::events::{PresenceView, Status};
use crate::ids::{Epoch, ShardId, Version};
use crate::store::StoredRecord;

fn rules() -> Rules {
    Rules {
        session_ttl: Duration::from_secs(1800),
        login_policy: LoginPolicy::Many(4),
        presence_grace: Duration::from_secs(15),
        away_after: Duration::ZERO,
        state_bytes_max: 4096,
        watches_max: 3,
        rooms_max: 3,
        room_grants: Vec::new(),
        cseq_unchecked: false,
    }
}

fn at(unix_ms: u64) -> Now {
    Now { mono_ms: unix_ms, unix_ms }
}

fn record() -> Record {
    Record::first(Epoch::of(10), Version::of(5))
}

fn login(record: &mut Record, rules: &Rules, now: Now, token_issued_at: u64) -> Result<SessionId, Refusal> {
    let session = SessionId::generate(ShardId::FIRST, now.unix_ms);
    let login = Login {
        session,
        device: "pc".into(),
        status: Status::Online,
        token_expires_at: now.unix_ms + 86_400_000,
        token_issued_at,
        grants: Box::default(),
        pending_until: None,
    };
    record.login(Context { now, rules }, login).map(|_| session)
}

fn stored_and_read(record: &Record) -> Record {
    let stored = StoredRecord { epoch: record.epoch, version: record.version, p: record.encode_p(), w: None };
    Record::decode(&stored).unwrap()
}

#[test]
fn a_ban_ends_every_session_and_refuses_all_until_it_ends() {
    let (rules, mut record) = (rules(), record());
    let one = login(&mut record, &rules, at(1_000), 0).unwrap();
    let two = login(&mut record, &rules, at(1_000), 0).unwrap();
    let ended = record.ban(Context { now: at(2_000), rules: &rules }, Some(9_000), "cheating");
    let reasons: Vec<_> = ended.iter().map(|ended| (ended.session.id, &ended.reason)).collect();
    let banned = EndReason::Banned { reason: "cheating".into() };
    assert_eq!(reasons, [(one, &banned), (two, &banned)]);
    let refused = Refusal::Banned { reason: "cheating".into() };
    assert_eq!(login(&mut record, &rules, at(8_999), 8_999), Err(refused.clone()));
    let resume =
        |record: &mut Record, now| record.attach(Context { now, rules: &rules }, one, 1, None).unwrap_err();
    assert_eq!(resume(&mut record, at(8_999)), refused);
    // It ends by itself, and what it ended stays ended.
    assert_eq!(resume(&mut record, at(9_000)), Refusal::NotResumable);
    login(&mut record, &rules, at(9_000), 0).unwrap();
    assert_eq!(record.ban_mark(9_000, false), BanMark::Lifted);
    record.ban_listed();
    assert_eq!(record.bars, None, "an ended ban leaves nothing behind");
}

#[test]
fn a_ban_on_a_live_link_refuses_its_refresh() {
    let (rules, mut record) = (rules(), record());
    let session = login(&mut record, &rules, at(1_000), 0).unwrap();
    let ctx = Context { now: at(2_000), rules: &rules };
    record.ban(ctx, None, "cheating");
    let refused = record.refresh(ctx, session, 99_000, 2_000, Box::default()).unwrap_err();
    assert_eq!(refused, Refusal::Banned { reason: "cheating".into() });
}

#[test]
fn a_ban_can_be_changed_and_lifted() {
    let (rules, mut record) = (rules(), record());
    let session = login(&mut record, &rules, at(1_000), 0).unwrap();
    let ctx = Context { now: at(2_000), rules: &rules };
    record.ban(ctx, None, "cheating");
    let later = Context { now: at(3_000), rules: &rules };
    let version = record.version;
    record.ban(later, Some(5_000), "appeal");
    assert!(record.version > version, "it must reach the store");
    let ban = record.ban_now(4_000).unwrap();
    assert_eq!(
        (ban.since, ban.until, &*ban.reason, &*ban.cut),
        (2_000, Some(5_000), "appeal", &[session][..])
    );
    record.lift_ban(later).unwrap();
    assert_eq!(record.lift_ban(later), Err(Refusal::NotBanned));
    login(&mut record, &rules, at(3_000), 0).unwrap();
}

#[test]
fn a_kick_refuses_the_tokens_before_it_and_takes_those_after() {
    let (rules, mut record) = (rules(), record());
    login(&mut record, &rules, at(1_000), 900).unwrap();
    let kicked = EndReason::Kicked { code: 4502, reason: "moved on".into() };
    let ctx = Context { now: at(2_000), rules: &rules };
    assert_eq!(record.kick(ctx, &kicked, Some(1_500)).len(), 1);
    for too_old in [0, 900, 1_499] {
        assert_eq!(login(&mut record, &rules, at(2_000), too_old), Err(Refusal::TokenRevoked), "{too_old}");
    }
    let session = login(&mut record, &rules, at(2_000), 1_500).unwrap();
    assert_eq!(record.refresh(ctx, session, 99_000, 1_499, Box::default()), Err(Refusal::TokenRevoked));
    record.refresh(ctx, session, 99_000, 1_501, Box::default()).unwrap();
    // An earlier time takes nothing back, and a kick without one leaves it.
    record.kick(ctx, &kicked, Some(1_000));
    record.kick(ctx, &kicked, None);
    assert_eq!(record.revoked_before(), 1_500);
}

#[test]
fn bars_survive_the_store_and_cost_nothing_where_there_are_none() {
    let (rules, mut record) = (rules(), record());
    let without = record.encode_p().len();
    let session = login(&mut record, &rules, at(1_000), 0).unwrap();
    let ctx = Context { now: at(2_000), rules: &rules };
    record.ban(ctx, Some(9_000), "cheating");
    assert_eq!(record.ban_mark(2_000, false), BanMark::Until(9_000));
    record.kick(ctx, &EndReason::Logout, Some(1_500));
    let (read, listed) = (stored_and_read(&record), BanMark::Until(2_000 + LISTED_MS));
    assert_eq!((record.ban_mark(2_000, false), read.ban_mark(2_000, false)), (listed, BanMark::Unmoved));
    assert_eq!(read.ban_mark(2_000, true), listed);
    record.ban_listed();
    assert_eq!(read.bars, record.bars);
    assert_eq!(&*read.ban_now(2_000).unwrap().cut, [session]);
    assert!(record.encode_p().len() > without);
    assert_eq!(std::mem::size_of::<Option<Box<Bars>>>(), 8);
}

#[test]
fn a_ban_is_remembered_for_as_long_as_it_lasts() {
    let (rules, mut record) = (rules(), record());
    let ctx = Context { now: at(2_000), rules: &rules };
    assert_eq!(record.barred_for(2_000), Duration::ZERO);
    record.ban(ctx, Some(9_000), "cheating");
    assert_eq!(record.barred_for(2_000), Duration::from_secs(7));
    assert_eq!(record.barred_for(9_000), Duration::ZERO);
    record.ban(ctx, None, "cheating");
    assert_eq!(record.barred_for(u64::MAX), FOR_EVER);
    record.ban(ctx, Some(u64::MAX), "cheating");
    assert_eq!(record.barred_for(2_000), FOR_EVER);
}

#[test]
fn a_newcomer_who_meets_her_own_ban_in_the_store_has_to_go() {
    let (rules, mut older) = (rules(), record());
    older.epoch = Epoch::of(9);
    let ctx = Context { now: at(2_000), rules: &rules };
    older.ban(ctx, None, "cheating");
    older.kick(ctx, &EndReason::Logout, Some(1_500));
    let mut newer = record();
    let session = login(&mut newer, &rules, at(2_000), 0).unwrap();
    let ended = newer.merge(older, ctx);
    assert_eq!(ended.len(), 1);
    assert_eq!(
        (ended[0].session.id, &ended[0].reason),
        (session, &EndReason::Banned { reason: "cheating".into() })
    );
    assert!(newer.sessions.is_empty() && newer.ban_now(2_000).is_some());
    assert_eq!(newer.revoked_before(), 1_500);
}

#[test]
fn an_erased_player_leaves_counters_and_nothing_else() {
    let (rules, mut record) = (rules(), record());
    let session = login(&mut record, &rules, at(1_000), 0).unwrap();
    record.state.set("zone", Box::new([7]));
    let ctx = Context { now: at(2_000), rules: &rules };
    let seen = record.view.ver;
    let version = record.version;
    let ended = record.erase(ctx, &EndReason::Logout, false);
    assert_eq!(ended.len(), 1);
    assert!(record.version > version && record.view.ver.version > seen.version, "nothing runs backwards");
    assert_eq!(record.view, PresenceView { ver: record.view.ver, ..PresenceView::default() });
    assert!(record.is_erased() && record.state.is_empty() && record.session(session).is_none());
    let mut record = stored_and_read(&record);
    record.view.last_seen_unix_ms = 7;
    let seen = record.view.ver;
    record.erase(ctx, &EndReason::Logout, false);
    assert_eq!(record.view.last_seen_unix_ms, 0);
    assert!(record.view.ver.version > seen.version, "whoever keeps near that she was here hears of it");
    assert!(record.view.ver.version <= record.version);
    // Who comes back before the commit is remembered again.
    login(&mut record, &rules, at(3_000), 0).unwrap();
    assert!(!record.is_erased());
}

#[test]
fn an_erasure_may_keep_the_ban_or_lift_it() {
    for keeps in [true, false] {
        let (rules, mut record) = (rules(), record());
        let ctx = Context { now: at(2_000), rules: &rules };
        record.kick(ctx, &EndReason::Logout, Some(1_500));
        record.ban(ctx, None, "cheating");
        record.erase(ctx, &EndReason::Logout, keeps);
        assert_eq!((record.ban_now(2_000).is_some(), record.is_erased()), (keeps, !keeps));
        assert_eq!(record.revoked_before(), 0);
        let listed = if keeps { BanMark::Until(BAN_END_MAX) } else { BanMark::Lifted };
        assert_eq!(record.ban_mark(2_000, false), listed);
    }
}

#[test]
fn a_revocation_is_listed_until_the_player_is_erased_or_it_is_told() {
    let (rules, mut record) = (rules(), record());
    let ctx = Context { now: at(2_000), rules: &rules };
    let listed = BanMark::Until(2_000 + LISTED_MS);
    record.keep_revocation(0);
    assert_eq!(record.ban_mark(2_000, true), BanMark::Unmoved);
    record.keep_revocation(1_500);
    assert_eq!((record.revoked_before(), record.ban_mark(2_000, false)), (1_500, listed));
    record.ban_listed();
    record.keep_revocation(1_000);
    assert_eq!((record.revoked_before(), record.ban_mark(2_000, false)), (1_500, BanMark::Unmoved));
    record.erase(ctx, &EndReason::Logout, false);
    assert_eq!(record.ban_mark(2_000, false), BanMark::Lifted);
}
