//! What a record promises, without a clock, a store or a socket.

use super::presence::PresenceChange;
use super::sessions::Login;
use super::state::Patch;
use super::*;
use crate::ids::ShardId;
use crate::store::StoredRecord;

fn rules() -> Rules {
    Rules {
        session_ttl: Duration::from_secs(1800),
        login_policy: LoginPolicy::Replace,
        presence_grace: Duration::from_secs(15),
        away_after: Duration::from_secs(300),
        state_bytes_max: 4096,
        watches_max: 3,
        rooms_max: 3,
        room_grants: Vec::new(),
        cseq_unchecked: false,
    }
}

fn at(seconds: u64) -> Now {
    Now { mono_ms: seconds * 1000, unix_ms: 1_000_000 + seconds * 1000 }
}

/// A story about one record: its verbs carry the time on.
struct Story {
    record: Record,
    rules: Rules,
    now: Now,
}

impl Story {
    fn begin() -> Self {
        Self { record: Record::first(Epoch::of(10), Version::of(5)), rules: rules(), now: at(0) }
    }

    fn ctx(&self) -> Context<'static> {
        Context { now: self.now, rules: Box::leak(Box::new(self.rules.clone())) }
    }

    fn later(&mut self, seconds: u64) -> sessions::Elapsed {
        self.now = self.now.plus_ms(seconds * 1000);
        let ctx = self.ctx();
        self.record.elapse(ctx)
    }

    fn try_login(&mut self, status: Status) -> Result<SessionId, Refusal> {
        let id = SessionId::generate(ShardId::FIRST, self.now.unix_ms);
        let login = Login {
            session: id,
            device: "pc".into(),
            status,
            token_expires_at: self.now.unix_ms + 86_400_000,
            token_issued_at: 0,
            grants: Box::default(),
            pending_until: None,
        };
        let ctx = self.ctx();
        self.record.login(ctx, login).map(|_| id)
    }

    fn login(&mut self) -> SessionId {
        self.try_login(Status::Online).unwrap()
    }

    fn incr(&mut self, id: SessionId, cseq: Option<u64>) -> Result<state::Patched, Refusal> {
        let ctx = self.ctx();
        self.record.patch(ctx, id, &Patch { incr: vec![("n", 1)], ..Patch::default() }, cseq)
    }

    fn show(&mut self, id: SessionId, status: Status) {
        let ctx = self.ctx();
        let change = PresenceChange { status, activity: None, visibility: None };
        self.record.set_presence(ctx, id, change, None).unwrap();
    }

    fn stored(&self) -> StoredRecord {
        StoredRecord {
            epoch: self.record.epoch,
            version: self.record.version,
            p: self.record.encode_p(),
            w: Some(self.record.encode_w()),
        }
    }
}

#[test]
fn the_first_version_lies_above_all_that_ended_before() {
    let mut story = Story::begin();
    story.login();
    assert!(story.record.version > Version::of(5));
}

#[test]
fn a_counter_takes_effect_once_and_leaves_no_gap() {
    let mut story = Story::begin();
    let id = story.login();
    let first = story.incr(id, Some(1)).unwrap();
    assert_eq!(first.counted, [("n".into(), 1)]);
    let again = story.incr(id, Some(1)).unwrap();
    assert_eq!((again.admission, again.stamp), (Admission::Repeat, first.stamp));
    assert_eq!(story.incr(id, Some(3)), Err(Refusal::CseqGap { expected: 2 }));
    assert!(matches!(story.incr(id, Some(0)), Err(Refusal::BadRequest(_))), "nothing is counted as zero");
    assert_eq!(story.incr(id, Some(2)).unwrap().counted, [("n".into(), 2)]);
}

#[test]
fn a_refused_change_uses_no_counter_and_changes_nothing() {
    let mut story = Story::begin();
    let id = story.login();
    story.incr(id, Some(1)).unwrap();
    let before = story.record.clone();
    let ctx = story.ctx();
    let big = vec![0xc5u8; 5000].into_boxed_slice();
    let patch = Patch { incr: vec![("n", 1)], set: vec![("big", big)], ..Patch::default() };
    assert!(matches!(story.record.patch(ctx, id, &patch, Some(2)), Err(Refusal::TooLarge(_))));
    let patch = Patch { incr: vec![("n", i64::MAX)], ..Patch::default() };
    assert!(matches!(story.record.patch(ctx, id, &patch, Some(2)), Err(Refusal::BadRequest(_))));
    let patch = Patch { set: vec![("", Box::new([1]))], ..Patch::default() };
    assert!(matches!(story.record.patch(ctx, id, &patch, Some(2)), Err(Refusal::BadRequest(_))));
    assert_eq!(story.record, before);
    assert!(story.incr(id, Some(2)).is_ok());
}

#[test]
fn a_patch_that_is_refused_late_takes_all_its_steps_back() {
    let mut story = Story::begin();
    let id = story.login();
    let ctx = story.ctx();
    let text = || rmp_serde::to_vec("text").unwrap().into_boxed_slice();
    let first = Patch { set: vec![("a", Box::new([1])), ("b", text())], ..Patch::default() };
    story.record.patch(ctx, id, &first, None).unwrap();
    let before = story.record.clone();
    let set = vec![("a", Box::<[u8]>::from([2])), ("a", Box::new([3])), ("c", Box::new([4])), ("b", text())];
    let refused = Patch { set, unset: vec!["a", "a", "x"], incr: vec![("a", 1), ("b", 1)], if_state: None };
    assert!(matches!(story.record.patch(ctx, id, &refused, None), Err(Refusal::BadRequest(_))));
    assert_eq!(story.record, before);
}

#[test]
fn a_patch_that_leads_back_to_the_same_state_moves_no_state_stamp() {
    let mut story = Story::begin();
    let id = story.login();
    let ctx = story.ctx();
    let at = |set: u8, incr| Patch {
        set: vec![("a", Box::new([set]))],
        incr: vec![("a", incr)],
        ..Patch::default()
    };
    let first = story.record.patch(ctx, id, &at(1, 1), None).unwrap();
    let same = story.record.patch(ctx, id, &at(5, -3), None).unwrap();
    assert_eq!(same.state_stamp, first.state_stamp);
    assert!(same.stamp.version > first.stamp.version);
    let other = story.record.patch(ctx, id, &at(5, -2), None).unwrap();
    assert_eq!(other.state_stamp, other.stamp);
}

#[test]
fn if_state_refuses_what_another_session_changed() {
    let mut story = Story::begin();
    let id = story.login();
    let seen = story.incr(id, None).unwrap().state_stamp;
    story.show(id, Status::Playing);
    let ctx = story.ctx();
    let patch = Patch { set: vec![("a", Box::new([1]))], if_state: Some(seen), ..Patch::default() };
    let after = story.record.patch(ctx, id, &patch, None).unwrap().state_stamp;
    assert_eq!(story.record.patch(ctx, id, &patch, None), Err(Refusal::StateConflict { state_stamp: after }));
}

#[test]
fn within_a_patch_set_comes_before_unset_before_incr() {
    let mut story = Story::begin();
    let id = story.login();
    let ctx = story.ctx();
    let patch = Patch {
        set: vec![("a", Box::new([7])), ("b", Box::new([7]))],
        unset: vec!["b"],
        incr: vec![("a", 1), ("b", 1)],
        if_state: None,
    };
    let patched = story.record.patch(ctx, id, &patch, None).unwrap();
    assert_eq!(patched.counted, [("a".into(), 8), ("b".into(), 1)]);
}

#[test]
fn a_newer_login_replaces_and_the_player_never_blinks_offline() {
    let mut story = Story::begin();
    let old = story.login();
    story.incr(old, Some(1)).unwrap();
    let shown = story.record.view.clone();
    let new = story.login();
    assert_eq!(
        story.incr(new, Some(1)).unwrap().counted,
        [("n".into(), 2)],
        "the state stays with the player"
    );
    assert!(story.record.session(old).is_none() && story.record.session(new).is_some());
    assert_eq!(story.record.view, shown);
    assert_eq!(story.incr(old, None), Err(Refusal::NoSession));
}

#[test]
fn under_reject_an_attached_session_stays_and_a_long_dropped_one_goes() {
    let mut story = Story::begin();
    story.rules.login_policy = LoginPolicy::Reject;
    let old = story.login();
    assert_eq!(story.try_login(Status::Online), Err(Refusal::SessionLimit));
    let ctx = story.ctx();
    story.record.detach(ctx, old, 1006).unwrap();
    assert_eq!(story.try_login(Status::Online), Err(Refusal::SessionLimit));
    story.later(15);
    assert!(story.try_login(Status::Online).is_ok());
    assert!(story.record.session(old).is_none());
}

#[test]
fn a_session_ends_when_its_time_is_over_and_not_before() {
    let mut story = Story::begin();
    let id = story.login();
    assert!(story.later(10_000).ended.is_empty(), "an attached session does not run out");
    let ctx = story.ctx();
    story.record.detach(ctx, id, 1006).unwrap();
    assert_eq!(story.record.expires_at(ctx), story.now.unix_ms + 1_800_000);
    assert!(story.later(1799).ended.is_empty());
    let ctx = story.ctx();
    assert!(story.record.clone().attach(ctx, id, 1, None).is_ok());
    assert_eq!(story.later(1).ended.len(), 1);
    let ctx = story.ctx();
    assert_eq!(story.record.attach(ctx, id, 1, None), Err(Refusal::NotResumable));
}

#[test]
fn an_expired_session_is_refused_even_if_no_timer_ran() {
    let mut story = Story::begin();
    let id = story.login();
    let ctx = story.ctx();
    story.record.detach(ctx, id, 1006).unwrap();
    story.now = story.now.plus_ms(1_800_000);
    let ctx = story.ctx();
    assert_eq!(story.record.attach(ctx, id, 1, None), Err(Refusal::NotResumable));
}

#[test]
fn a_ticket_is_good_until_its_successor_was_used() {
    let mut story = Story::begin();
    let id = story.login();
    let ctx = story.ctx();
    assert_eq!(story.record.attach(ctx, id, 1, None).unwrap().ticket_n, 2);
    // The answer with ticket 2 may have been lost: 1 still opens, and 2 would too.
    assert_eq!(story.record.attach(ctx, id, 1, None).unwrap().ticket_n, 3);
    assert_eq!(story.record.attach(ctx, id, 1, None), Err(Refusal::NotResumable));
    story.record.touch_activity(ctx, id).unwrap();
    assert_eq!(story.record.attach(ctx, id, 2, None), Err(Refusal::NotResumable));
    assert_eq!(story.record.attach(ctx, id, 3, None).unwrap().ticket_n, 4);
    // After a crash the store may know an older number than the client.
    assert_eq!(story.record.attach(ctx, id, 9, None).unwrap().ticket_n, 10);
}

#[test]
fn a_resume_names_what_survived() {
    let mut story = Story::begin();
    let id = story.login();
    story.incr(id, Some(1)).unwrap();
    let stored = story.stored();
    let lost = story.incr(id, Some(2)).unwrap().stamp;
    let mut reborn = Record::decode(&stored).unwrap();
    reborn.take_over(Epoch::of(20));
    let ctx = story.ctx();
    let survived = Stamp::new(stored.epoch, stored.version);
    let attached = reborn.attach(ctx, id, 1, Some(lost)).unwrap();
    assert_eq!(attached.rolled_back, Some((lost, Some(survived))));
    let attached = reborn.attach(ctx, id, 2, Some(survived)).unwrap();
    assert_eq!(attached.rolled_back, None);
    assert_eq!(reborn.session(id).unwrap().cseq, 1);
}

#[test]
fn the_most_active_device_shows_and_the_grace_hides_a_short_drop() {
    let mut story = Story::begin();
    let id = story.login();
    story.show(id, Status::Playing);
    let shown = story.record.view.clone();
    assert_eq!(shown.status, Status::Playing);
    let ctx = story.ctx();
    story.record.detach(ctx, id, 1006).unwrap();
    story.later(14);
    assert_eq!(story.record.view, shown);
    let dropped_at = story.now.unix_ms - 14_000;
    story.later(1);
    assert_eq!(
        (story.record.view.status, story.record.view.last_seen_unix_ms),
        (Status::Offline, dropped_at)
    );
    assert!(story.record.view.ver.version > shown.ver.version);
}

#[test]
fn invisible_leaks_nothing() {
    let mut story = Story::begin();
    let id = story.try_login(Status::Invisible).unwrap();
    let shown = story.record.view.clone();
    assert_eq!(shown.status, Status::Offline);
    let ctx = story.ctx();
    let change = PresenceChange {
        status: Status::Invisible,
        activity: Some(Some(Box::new([0x80]))),
        visibility: None,
    };
    story.record.set_presence(ctx, id, change, None).unwrap();
    story.incr(id, None).unwrap();
    story.later(60);
    let ctx = story.ctx();
    story.record.end(ctx, id, EndReason::Logout).unwrap();
    assert_eq!(story.record.view, shown, "status, counter and last seen stand still");
}

#[test]
fn hidden_and_status_visibility_show_no_more_than_they_say() {
    let mut story = Story::begin();
    let id = story.login();
    let ctx = story.ctx();
    let change = |visibility| PresenceChange {
        status: Status::Busy,
        activity: Some(Some(Box::new([0x80]))),
        visibility: Some(visibility),
    };
    story.record.set_presence(ctx, id, change(Visibility::Status), None).unwrap();
    let view = &story.record.view;
    assert_eq!((view.status, view.activity.is_none(), view.devices.is_empty()), (Status::Busy, true, true));
    story.record.set_presence(ctx, id, change(Visibility::Hidden), None).unwrap();
    assert_eq!(story.record.view.status, Status::Offline);
}

#[test]
fn an_idle_player_shows_as_away_until_she_acts() {
    let mut story = Story::begin();
    let id = story.login();
    story.later(299);
    assert_eq!(story.record.view.status, Status::Online);
    story.later(1);
    assert_eq!(story.record.view.status, Status::Away);
    story.incr(id, None).unwrap();
    assert_eq!(story.record.view.status, Status::Online);
}

#[test]
fn a_record_survives_the_store_and_a_remainder_keeps_versions_growing() {
    let mut story = Story::begin();
    let id = story.login();
    story.incr(id, Some(1)).unwrap();
    let ctx = story.ctx();
    let bob = PlayerId::parse("bob").unwrap();
    story.record.watch(ctx, id, std::slice::from_ref(&bob)).unwrap();
    let mut decoded = Record::decode(&story.stored()).unwrap();
    decoded.sessions[0].ticket_settled = true;
    (decoded.lists_version, decoded.rooms_version) = (story.record.lists_version, story.record.rooms_version);
    assert_eq!(decoded, story.record);

    story.record.end(ctx, id, EndReason::Logout).unwrap();
    assert!(story.record.state.is_empty());
    let remainder = Record::decode(&story.stored()).unwrap();
    assert_eq!((remainder.version, remainder.view.ver), (story.record.version, story.record.view.ver));
}

#[test]
fn a_broken_or_foreign_record_is_refused() {
    let mut story = Story::begin();
    story.login();
    let mut stored = story.stored();
    let mut p = stored.p.to_vec();
    p[1] = 99;
    stored.p = p.into();
    assert!(matches!(Record::decode(&stored), Err(stored::StoredError::Format(99))));
    stored.p = story.stored().p.slice(..10);
    assert!(matches!(Record::decode(&stored), Err(stored::StoredError::Broken(_))));
    // Also one of another shape, and also in the lists.
    let other = |format: u32| bytes::Bytes::from(rmp_serde::to_vec(&(format, "of another shape")).unwrap());
    let p = Record::first(Epoch::of(1), Version::ZERO).encode_p();
    for (p, w) in [(other(99), None), (p.clone(), Some(other(99)))] {
        let stored = crate::store::StoredRecord { epoch: Epoch::of(1), version: Version::of(1), p, w };
        let told = Record::decode(&stored);
        assert!(matches!(told, Err(stored::StoredError::Format(99))), "{told:?}");
    }
    let stored = crate::store::StoredRecord {
        epoch: Epoch::of(1),
        version: Version::of(1),
        p: other(stored::FORMAT),
        w: None,
    };
    assert!(matches!(Record::decode(&stored), Err(stored::StoredError::Broken(_))));
}

#[test]
fn a_watch_list_has_a_limit_and_a_refused_call_adds_nothing() {
    let mut story = Story::begin();
    let id = story.login();
    let ctx = story.ctx();
    let players: Vec<_> = (0..4).map(|n| PlayerId::parse(&format!("p{n}")).unwrap()).collect();
    story.record.watch(ctx, id, &players[..2]).unwrap();
    assert!(matches!(story.record.watch(ctx, id, &players[1..]), Err(Refusal::TooLarge(_))));
    assert_eq!(story.record.sessions[0].watches, players[..2]);
    story.record.unwatch(ctx, id, &players[..1]).unwrap();
    let watches = &story.record.session(id).unwrap().watches;
    assert_eq!((watches.len(), watches.capacity()), (1, 1), "a list holds no more than it needs");
    story.record.watch(ctx, id, &players[1..]).unwrap();
    assert_eq!(story.record.sessions[0].watches.len(), 3);
}

#[test]
fn a_service_made_session_meets_the_policy_when_it_is_taken_up() {
    let mut story = Story::begin();
    let old = story.login();
    let pending = SessionId::generate(ShardId::FIRST, 1);
    let ctx = story.ctx();
    let login = Login {
        session: pending,
        device: "pc".into(),
        status: Status::Online,
        token_issued_at: 0,
        token_expires_at: u64::MAX,
        grants: Box::default(),
        pending_until: Some(story.now.unix_ms + 60_000),
    };
    assert!(story.record.login(ctx, login).unwrap().ended.is_empty());
    assert!(story.record.session(old).is_some());
    let attached = story.record.attach(ctx, pending, 1, None).unwrap();
    assert_eq!(attached.ended.len(), 1);
    assert!(story.record.session(old).is_none());
}

#[test]
fn a_token_that_runs_out_closes_the_link_and_bars_the_resume() {
    let mut story = Story::begin();
    let id = story.login();
    let elapsed = story.later(86_400);
    assert_eq!(elapsed.token_expired, [id]);
    let ctx = story.ctx();
    assert_eq!(story.record.attach(ctx, id, 1, None), Err(Refusal::TokenExpired));
    story.record.refresh(ctx, id, story.now.unix_ms + 1000, 0, Box::default()).unwrap();
    assert!(story.record.attach(ctx, id, 1, None).is_ok());
}

#[test]
fn the_deadline_is_the_next_thing_that_time_does() {
    let mut story = Story::begin();
    let id = story.login();
    let start = story.now.unix_ms;
    assert_eq!(story.record.next_deadline(story.ctx()), Some(start + 300_000));
    let ctx = story.ctx();
    story.record.detach(ctx, id, 1006).unwrap();
    assert_eq!(story.record.next_deadline(ctx), Some(start + 15_000));
    story.later(15);
    assert_eq!(story.record.next_deadline(story.ctx()), Some(start + 1_800_000));
}
