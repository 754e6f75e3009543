//! What the login policies promise, whatever the order of logins, drops, resumes and ends.

use std::time::Duration;

use proptest::prelude::*;

use super::super::Rules;
use super::super::sessions::Login;
use super::*;
use crate::clock::Now;
use crate::events::Status;
use crate::ids::{Epoch, ShardId, Version};

const GRACE_MS: u64 = 15_000;
const TTL_MS: u64 = 1_800_000;

fn rules(login_policy: LoginPolicy) -> Rules {
    Rules {
        session_ttl: Duration::from_millis(TTL_MS),
        login_policy,
        presence_grace: Duration::from_millis(GRACE_MS),
        away_after: Duration::ZERO,
        state_bytes_max: 4096,
        watches_max: 3,
        rooms_max: 3,
        room_grants: Vec::new(),
        cseq_unchecked: false,
    }
}

/// One player under one policy.
struct Story {
    record: Record,
    rules: Rules,
    now: Now,
}

impl Story {
    fn under(policy: LoginPolicy) -> Self {
        let record = Record::first(Epoch::of(10), Version::of(5));
        Self { record, rules: rules(policy), now: Now { mono_ms: 0, unix_ms: 1_000_000 } }
    }

    fn login_pending(&mut self, device: &str, pending_until: Option<u64>) -> Result<SessionId, Refusal> {
        let session = SessionId::generate(ShardId::FIRST, self.now.unix_ms);
        let login = Login {
            session,
            device: device.into(),
            status: Status::Online,
            token_expires_at: self.now.unix_ms + 86_400_000,
            token_issued_at: 0,
            grants: Box::default(),
            pending_until,
        };
        self.record.login(Context { now: self.now, rules: &self.rules }, login).map(|_| session)
    }

    fn login(&mut self, device: &str) -> Result<SessionId, Refusal> {
        self.login_pending(device, None)
    }

    fn drops(&mut self, session: SessionId) {
        self.record.detach(Context { now: self.now, rules: &self.rules }, session, 1006).unwrap();
    }

    fn later(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.record.elapse(Context { now: self.now, rules: &self.rules });
    }

    fn has(&self, session: SessionId) -> bool {
        self.record.session(session).is_some()
    }

    fn settled(&self) -> Vec<&Session> {
        let settled = |session: &&Session| !matches!(session.link, LinkState::Pending { .. });
        self.record.sessions.iter().filter(settled).collect()
    }
}

#[test]
fn per_device_a_newer_login_replaces_the_same_device_only() {
    let mut story = Story::under(LoginPolicy::PerDevice);
    let (pc, phone) = (story.login("pc").unwrap(), story.login("mobile").unwrap());
    let newer = story.login("pc").unwrap();
    assert!(!story.has(pc) && story.has(phone) && story.has(newer));
    // A name more or less is another device.
    story.login("PC").unwrap();
    assert!(story.has(newer));
}

#[test]
fn per_device_the_number_of_devices_has_a_bound() {
    let mut story = Story::under(LoginPolicy::PerDevice);
    let sessions: Vec<_> = (0..SESSIONS_MAX).map(|n| story.login(&format!("d{n}")).unwrap()).collect();
    assert_eq!(story.login("one more"), Err(Refusal::SessionLimit));
    assert!(story.login("d3").is_ok(), "her own place is always hers");
    story.drops(sessions[7]);
    story.later(GRACE_MS);
    story.login("one more").unwrap();
    assert!(!story.has(sessions[7]));
}

#[test]
fn many_stand_beside_one_another_and_one_more_is_refused() {
    let mut story = Story::under(LoginPolicy::Many(2));
    let (one, two) = (story.login("pc").unwrap(), story.login("pc").unwrap());
    assert_eq!(story.login("pc"), Err(Refusal::SessionLimit));
    // One that dropped a moment ago still counts.
    story.drops(one);
    story.later(GRACE_MS - 1);
    assert_eq!(story.login("pc"), Err(Refusal::SessionLimit));
    story.later(1);
    let three = story.login("pc").unwrap();
    assert!(!story.has(one) && story.has(two) && story.has(three));
}

#[test]
fn of_many_the_one_that_was_away_the_longest_makes_room() {
    let mut story = Story::under(LoginPolicy::Many(3));
    let (one, two, three) = (story.login("a").unwrap(), story.login("b").unwrap(), story.login("c").unwrap());
    story.drops(two);
    story.later(1_000);
    story.drops(one);
    story.later(GRACE_MS);
    story.login("d").unwrap();
    assert!(story.has(one) && !story.has(two) && story.has(three));
}

#[test]
fn a_session_made_by_a_service_meets_the_policy_when_its_client_comes() {
    let mut story = Story::under(LoginPolicy::Many(1));
    let here = story.login("pc").unwrap();
    let pending = story.login_pending("mobile", Some(story.now.unix_ms + 60_000)).unwrap();
    let attach = |story: &mut Story| {
        story.record.attach(Context { now: story.now, rules: &story.rules }, pending, 1, None)
    };
    assert_eq!(attach(&mut story).unwrap_err(), Refusal::SessionLimit);
    story.drops(here);
    story.later(GRACE_MS);
    attach(&mut story).unwrap();
    assert!(!story.has(here) && story.has(pending));
}

#[test]
fn two_records_that_meet_keep_what_the_policy_lets_stand() {
    for (policy, stays) in [
        (LoginPolicy::Replace, [false, true]),
        (LoginPolicy::Reject, [true, false]),
        (LoginPolicy::PerDevice, [false, true]),
        (LoginPolicy::Many(1), [true, false]),
        (LoginPolicy::Many(2), [true, true]),
    ] {
        let mut older = Story::under(policy);
        older.record.epoch = Epoch::of(9);
        let there = older.login("pc").unwrap();
        older.record.state.set("zone", Box::new([7]));
        let mut newer = Story::under(policy);
        let here = newer.login("pc").unwrap();
        let before = (older.record.version, newer.record.version);
        let ctx = Context { now: newer.now, rules: &newer.rules };
        let ended = newer.record.merge(older.record, ctx);
        assert_eq!([newer.has(there), newer.has(here)], stays, "{policy:?}");
        assert_eq!(ended.len(), stays.iter().filter(|stays| !**stays).count(), "{policy:?}");
        assert!(newer.record.version > before.0.max(before.1));
        assert_eq!(newer.record.state.get("zone"), Some(&[7][..]), "{policy:?}: the state is the player's");
        // Nobody holds a link to the session of the older record any more.
        assert!(newer.record.session(there).is_none_or(|session| session.link != LinkState::Attached));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Login(u8),
    Pending(u8),
    Attach(usize),
    Detach(usize),
    End(usize),
    Later(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8).prop_map(Step::Login),
        1 => (0..4u8).prop_map(Step::Pending),
        3 => any::<usize>().prop_map(Step::Attach),
        3 => any::<usize>().prop_map(Step::Detach),
        1 => any::<usize>().prop_map(Step::End),
        2 => prop_oneof![0..GRACE_MS, GRACE_MS..2 * GRACE_MS, Just(TTL_MS)].prop_map(Step::Later),
    ]
}

fn policy() -> impl Strategy<Value = LoginPolicy> {
    prop_oneof![
        Just(LoginPolicy::Replace),
        Just(LoginPolicy::Reject),
        Just(LoginPolicy::PerDevice),
        (1..5usize).prop_map(LoginPolicy::Many),
    ]
}

impl Story {
    /// Carries a step out; a session that came in by it.
    fn take(&mut self, step: &Step) -> Option<Result<SessionId, Refusal>> {
        let picked = |at: usize| {
            let sessions = &self.record.sessions;
            (!sessions.is_empty()).then(|| sessions[at % sessions.len()].clone())
        };
        let ctx = Context { now: self.now, rules: &self.rules };
        match step {
            Step::Login(device) => return Some(self.login(&format!("d{device}"))),
            Step::Pending(device) => {
                let until = self.now.unix_ms + 60_000;
                let _ = self.login_pending(&format!("d{device}"), Some(until));
            }
            Step::Attach(at) => {
                let Session { id, ticket_n, .. } = picked(*at)?;
                return Some(self.record.attach(ctx, id, ticket_n, None).map(|_| id));
            }
            Step::Detach(at) => {
                let id = picked(*at)?.id;
                self.record.detach(ctx, id, 1006).unwrap();
            }
            Step::End(at) => {
                let id = picked(*at)?.id;
                self.record.end(ctx, id, EndReason::Logout).unwrap();
            }
            Step::Later(ms) => self.later(*ms),
        }
        None
    }

    /// I7: what the policy lets stand beside one another.
    fn assert_policy_holds(&self) {
        let settled = self.settled();
        match self.rules.login_policy {
            LoginPolicy::Replace | LoginPolicy::Reject => assert!(settled.len() <= 1),
            LoginPolicy::Many(most) => assert!(settled.len() <= most),
            LoginPolicy::PerDevice => {
                let mut devices: Vec<_> = settled.iter().map(|session| &session.device).collect();
                devices.sort_unstable();
                devices.dedup();
                assert_eq!(devices.len(), settled.len());
            }
        }
    }
}

proptest! {
    #[test]
    fn the_policy_holds_in_any_order(policy in policy(), steps in prop::collection::vec(step(), 1..60)) {
        let mut story = Story::under(policy);
        for step in &steps {
            let before = story.record.clone();
            let ctx = Context { now: story.now, rules: &story.rules };
            let safe: Vec<SessionId> = before
                .sessions
                .iter()
                .filter(|session| session.link != LinkState::Attached || session.token_expires_at > ctx.now.unix_ms)
                .filter(|session| !matches!(session.link, LinkState::Pending { .. }) && session.holds_its_place(ctx))
                .map(|session| session.id)
                .collect();
            match story.take(step) {
                Some(Ok(newcomer)) => {
                    prop_assert!(story.has(newcomer), "who comes in is here");
                    if matches!(policy, LoginPolicy::Reject | LoginPolicy::Many(_)) {
                        prop_assert!(safe.iter().all(|session| story.has(*session)), "nobody here is pushed out");
                    }
                }
                Some(Err(_)) => prop_assert_eq!(&story.record, &before, "a refusal changes nothing"),
                None => {}
            }
            story.assert_policy_holds();
        }
    }
}
