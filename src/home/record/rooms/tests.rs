//! What a record promises about rooms. That rosters follow it is told in `session::dispatch::rooms`.

use std::time::Duration;

use super::*;
use crate::clock::Now;
use crate::events::{EndReason, Status};
use crate::home::record::sessions::Login;
use crate::home::record::{LoginPolicy, Rules};
use crate::ids::{Epoch, ShardId, Version};
use crate::store::StoredRecord;

fn rules() -> Rules {
    Rules {
        session_ttl: Duration::from_secs(1800),
        login_policy: LoginPolicy::Many(3),
        presence_grace: Duration::from_secs(15),
        away_after: Duration::ZERO,
        state_bytes_max: 4096,
        watches_max: 3,
        rooms_max: 2,
        room_grants: vec![RoomPattern::parse("lobby").unwrap()],
        cseq_unchecked: false,
    }
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

/// One player, at one moment.
struct Story {
    record: Record,
    rules: Rules,
}

impl Story {
    fn begin() -> Self {
        Self { record: Record::first(Epoch::of(10), Version::of(5)), rules: rules() }
    }

    fn does<T>(&mut self, command: impl FnOnce(&mut Record, Context<'_>) -> T) -> T {
        let now = Now { mono_ms: 1_000, unix_ms: 1_000_000 };
        command(&mut self.record, Context { now, rules: &self.rules })
    }

    fn login(&mut self, grants: &[&str]) -> SessionId {
        let session = SessionId::generate(ShardId::FIRST, 1_000_000);
        let login = Login {
            session,
            device: "pc".into(),
            status: Status::Online,
            token_expires_at: u64::MAX,
            token_issued_at: 0,
            grants: grants.iter().map(|grant| RoomPattern::parse(grant).unwrap()).collect(),
            pending_until: None,
        };
        self.does(|record, ctx| record.login(ctx, login)).unwrap();
        session
    }

    fn join(&mut self, id: SessionId, name: &str, cseq: Option<u64>) -> Result<Admission, Refusal> {
        let room = room(name);
        self.does(|record, ctx| record.join(ctx, id, Join { room: &room, meta: None, has_place: true, cseq }))
    }

    fn is_in(&self, id: SessionId) -> Vec<&str> {
        self.record.rooms_of(id).map(RoomName::as_str).collect()
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
fn a_refused_join_uses_no_number_and_moves_nothing() {
    let mut story = Story::begin();
    let id = story.login(&["party:*"]);
    let before = (story.record.version, story.record.rooms_version);
    assert!(matches!(story.join(id, "guild:1", Some(1)), Err(Refusal::Forbidden(_))));
    assert_eq!(story.join(id, "party:1", Some(2)), Err(Refusal::CseqGap { expected: 1 }));
    let full = story.does(|record, ctx| {
        record.join(ctx, id, Join { room: &room("party:1"), meta: None, has_place: false, cseq: Some(1) })
    });
    assert_eq!(full, Err(Refusal::RoomFull));
    assert_eq!((story.record.version, story.record.rooms_version), before);
    assert_eq!(story.join(id, "party:1", Some(1)), Ok(Admission::New));
    assert_eq!(story.join(id, "party:1", Some(1)), Ok(Admission::Repeat));
    assert_eq!(story.join(id, "lobby", Some(2)), Ok(Admission::New));
    assert!(matches!(story.join(id, "party:2", Some(3)), Err(Refusal::TooLarge(_))));
    // Who is in needs no second place.
    let again = story.does(|record, ctx| {
        record.join(ctx, id, Join { room: &room("lobby"), meta: None, has_place: false, cseq: Some(3) })
    });
    assert_eq!(again, Ok(Admission::New));
}

#[test]
fn memberships_survive_the_store_and_end_with_their_sessions() {
    let mut story = Story::begin();
    let (one, other) = (story.login(&["*"]), story.login(&["*"]));
    story.join(one, "a", None).unwrap();
    story.join(other, "a", None).unwrap();
    story.join(other, "b", None).unwrap();
    let meta: Meta = Some([0x81, 0xa1, b'n', 1].into());
    story.does(|record, ctx| record.set_room_meta(ctx, other, &room("a"), meta.clone(), None)).unwrap();
    let decoded = Record::decode(&story.stored()).unwrap();
    assert_eq!(
        (&decoded.rooms, &decoded.sessions[0].grants),
        (&story.record.rooms, &story.record.sessions[0].grants)
    );
    // The first of two goes: places in the stored list move.
    story.does(|record, ctx| record.end(ctx, one, EndReason::Logout)).unwrap();
    assert_eq!(story.record.lists_version, story.record.rooms_version);
    assert_eq!(story.is_in(other), ["a", "b"]);
    assert_eq!(Record::decode(&story.stored()).unwrap().rooms, story.record.rooms);
    assert_eq!(story.record.membership(&room("a")).unwrap().meta, meta);
    story.does(|record, ctx| record.end(ctx, other, EndReason::Logout)).unwrap();
    assert!(story.record.rooms.is_empty() && story.record.encode_w().is_empty());
}

#[test]
fn a_service_opens_a_room_as_long_as_the_player_stays() {
    let mut story = Story::begin();
    assert_eq!(story.does(|record, ctx| record.put_in(ctx, &room("a"), None, true)), Err(Refusal::NoSession));
    let one = story.login(&[]);
    story.does(|record, ctx| record.put_in(ctx, &room("a"), None, true)).unwrap();
    let other = story.login(&[]);
    assert!(story.is_in(other).is_empty(), "a later login inherits nothing");
    story.join(other, "a", None).unwrap();
    story.does(|record, ctx| record.leave_room(ctx, one, &room("a"), None)).unwrap();
    story.join(one, "a", None).unwrap();
    assert_eq!(story.record.take_out(&room("a")), [other, one]);
    assert!(story.record.take_out(&room("a")).is_empty());
    assert!(matches!(story.join(one, "a", None), Err(Refusal::Forbidden(_))));
}

#[test]
fn records_that_meet_keep_what_sessions_that_stay_are_in() {
    let mut before = Story::begin();
    let old = before.login(&["*"]);
    before.join(old, "a", None).unwrap();
    before.join(old, "b", None).unwrap();
    let mut story = Story::begin();
    story.record.epoch = Epoch::of(11);
    let new = story.login(&["*"]);
    story.join(new, "a", None).unwrap();
    let told = story.record.rooms_version;
    let stored = before.record.clone();
    story.does(|record, ctx| record.merge(stored, ctx));
    assert_eq!((story.is_in(old), story.is_in(new)), (vec!["a", "b"], vec!["a"]));
    assert!(story.record.rooms_version > told, "rooms are told");
    // Under `replace` the old session does not stay, and nor does what it was in.
    let mut story = Story::begin();
    story.rules.login_policy = LoginPolicy::Replace;
    let new = story.login(&["*"]);
    story.join(new, "a", None).unwrap();
    story.does(|record, ctx| record.merge(before.record, ctx));
    assert_eq!((story.is_in(new), story.record.rooms.len()), (vec!["a"], 1));
}
