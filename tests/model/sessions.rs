//! The sessions of one player under any order of logins, resumes, drops, ends, kicks, bans, merges, crashes and time, beside
//! what is known of each from outside: no session ends early or late, an old ticket is never taken, a counter takes
//! effect once, and versions only rise.

use std::collections::BTreeMap;
use std::time::Duration;

use hearth::clock::Now;
use hearth::events::{EndReason, Status};
use hearth::home::record::sessions::Login;
use hearth::home::record::state::Patch;
use hearth::home::record::{
    Admission, Context, Ended, LinkState, LoginPolicy, Record, Refusal, Rules, presence::PresenceChange,
};
use hearth::ids::{Epoch, SessionId, ShardId, Stamp, Version};
use hearth::store::StoredRecord;
use proptest::prelude::*;

const TTL_MS: u64 = 1_800_000;
const GRACE_MS: u64 = 15_000;
const PENDING_MS: u64 = 60_000;

/// What is known of a session from outside.
#[derive(Debug, Clone)]
struct Known {
    /// The highest ticket that its client was given.
    ticket: u64,
    /// A frame has come under it since.
    is_settled: bool,
    /// When it is over, unless something happens before; never, with a link.
    due: Option<u64>,
    cseq: u64,
    /// How often its counter took effect.
    effects: i64,
    key: String,
}

#[derive(Debug, Clone)]
enum Step {
    Login {
        device: u8,
        is_pending: bool,
        issued_ago_ms: u64,
    },
    /// With the ticket so many before the latest.
    Resume {
        at: usize,
        before: u64,
    },
    Detach(usize),
    Frame(usize),
    /// With the counter so far from the next one.
    Change {
        at: usize,
        off: i64,
    },
    Show {
        at: usize,
        status: Status,
    },
    End(usize),
    Kick {
        revokes: bool,
    },
    Ban {
        for_ms: Option<u64>,
    },
    Lift,
    Later(u64),
    /// A record of the player, of an older epoch and with one session, is met in the store.
    Merge {
        device: u8,
        ahead: u64,
    },
    TakeOver,
    Repair,
    /// The home is killed, and the record read from the store.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let statuses = prop::sample::select(vec![Status::Online, Status::Away, Status::Invisible]);
    prop_oneof![
        5 => (0..4u8, prop::bool::weighted(0.2), 0..3u64).prop_map(|(device, is_pending, issued_ago_ms)| {
            Step::Login { device, is_pending, issued_ago_ms }
        }),
        6 => (any::<usize>(), prop_oneof![4 => Just(0u64), 3 => Just(1), 1 => 2..4u64])
            .prop_map(|(at, before)| Step::Resume { at, before }),
        4 => any::<usize>().prop_map(Step::Detach),
        3 => any::<usize>().prop_map(Step::Frame),
        6 => (any::<usize>(), prop_oneof![5 => Just(0i64), 1 => -2..3i64])
            .prop_map(|(at, off)| Step::Change { at, off }),
        2 => (any::<usize>(), statuses).prop_map(|(at, status)| Step::Show { at, status }),
        1 => any::<usize>().prop_map(Step::End),
        1 => any::<bool>().prop_map(|revokes| Step::Kick { revokes }),
        1 => prop_oneof![Just(None), (1..60_000u64).prop_map(Some)].prop_map(|for_ms| Step::Ban { for_ms }),
        1 => Just(Step::Lift),
        5 => prop_oneof![1..GRACE_MS, GRACE_MS..2 * GRACE_MS, Just(PENDING_MS), Just(TTL_MS - 1), Just(TTL_MS)]
            .prop_map(Step::Later),
        1 => (0..4u8, 0..9u64).prop_map(|(device, ahead)| Step::Merge { device, ahead }),
        1 => Just(Step::TakeOver),
        1 => Just(Step::Repair),
        1 => Just(Step::Crash),
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

struct Story {
    record: Record,
    rules: Rules,
    now: Now,
    known: BTreeMap<SessionId, Known>,
    named: usize,
}

/// What a step did to sessions other than the one it is about.
type Gone = Vec<Ended>;

impl Story {
    fn under(login_policy: LoginPolicy) -> Self {
        let rules = Rules {
            session_ttl: Duration::from_millis(TTL_MS),
            login_policy,
            presence_grace: Duration::from_millis(GRACE_MS),
            away_after: Duration::from_millis(2 * GRACE_MS),
            state_bytes_max: 65_536,
            watches_max: 3,
            rooms_max: 3,
            room_grants: Vec::new(),
            cseq_unchecked: false,
        };
        let record = Record::first(Epoch::of(10), Version::of(5));
        let now = Now { mono_ms: 0, unix_ms: 1_000_000_000 };
        Self { record, rules, now, known: BTreeMap::new(), named: 0 }
    }

    fn login(&self, device: u8, is_pending: bool, issued_ago_ms: u64) -> Login {
        Login {
            session: SessionId::generate(ShardId::FIRST, self.now.unix_ms),
            device: format!("d{device}").into(),
            status: Status::Online,
            token_expires_at: u64::MAX,
            token_issued_at: self.now.unix_ms - issued_ago_ms,
            grants: Box::default(),
            pending_until: is_pending.then(|| self.now.unix_ms + PENDING_MS),
        }
    }

    fn know(&mut self, session: SessionId, due: Option<u64>) {
        self.named += 1;
        let key = format!("k{}", self.named);
        self.known.insert(session, Known { ticket: 1, is_settled: false, due, cseq: 0, effects: 0, key });
    }

    fn picked(&self, at: usize) -> Option<SessionId> {
        let sessions = &self.record.sessions;
        (!sessions.is_empty()).then(|| sessions[at % sessions.len()].id)
    }

    /// Carries a step out. `None`: it does not apply. A refusal must leave everything as it was.
    fn take(&mut self, step: &Step) -> Result<Option<Result<Gone, Refusal>>, TestCaseError> {
        let rules = self.rules.clone();
        let ctx = Context { now: self.now, rules: &rules };
        Ok(match *step {
            Step::Login { device, is_pending, issued_ago_ms } => {
                Some(self.logs_in(ctx, self.login(device, is_pending, issued_ago_ms))?)
            }
            Step::Resume { at, before } => match self.picked(at) {
                // The first ticket has none before it.
                Some(session) if before < self.known[&session].ticket => {
                    Some(self.resumes(ctx, session, before)?)
                }
                _ => None,
            },
            Step::Detach(at) => self.picked(at).map(|session| {
                let was_attached = self.record.session(session).unwrap().link == LinkState::Attached;
                self.record.detach(ctx, session, 1006).map(|()| {
                    if was_attached {
                        self.known.get_mut(&session).unwrap().due = Some(ctx.now.unix_ms + TTL_MS);
                    }
                    Gone::new()
                })
            }),
            Step::Frame(at) => self.attached(at).map(|session| {
                self.known.get_mut(&session).unwrap().is_settled = true;
                self.record.touch_activity(ctx, session).map(|()| Gone::new())
            }),
            Step::Change { at, off } => match self.attached(at) {
                Some(session) => Some(self.changes(ctx, session, off)?),
                None => None,
            },
            Step::Show { at, status } => self.attached(at).map(|session| {
                self.known.get_mut(&session).unwrap().is_settled = true;
                let change = PresenceChange { status, activity: None, visibility: None };
                self.record.set_presence(ctx, session, change, None).map(|_| Gone::new())
            }),
            Step::End(at) => self
                .picked(at)
                .map(|session| self.record.end(ctx, session, EndReason::Logout).map(|ended| vec![ended])),
            Step::Kick { revokes } => {
                let reason = EndReason::Kicked { code: 4_507, reason: "enough".into() };
                Some(Ok(self.record.kick(ctx, &reason, revokes.then_some(ctx.now.unix_ms))))
            }
            Step::Ban { for_ms } => {
                let until = for_ms.map(|ms| ctx.now.unix_ms + ms);
                Some(Ok(self.record.ban(ctx, until, "enough")))
            }
            Step::Lift => Some(self.record.lift_ban(ctx).map(|()| Gone::new())),
            Step::Later(ms) => Some(Ok(self.passes(ms))),
            Step::Merge { device, ahead } => Some(Ok(self.meets(device, ahead))),
            Step::TakeOver => {
                self.record.take_over(self.record.epoch.next());
                Some(Ok(Gone::new()))
            }
            Step::Repair => {
                self.record.repair(Epoch::of(self.record.epoch.number() + 5));
                Some(Ok(Gone::new()))
            }
            Step::Crash => {
                self.comes_back_from_the_store();
                Some(Ok(Gone::new()))
            }
        })
    }

    /// Only who has a link says anything.
    fn attached(&self, at: usize) -> Option<SessionId> {
        let session = self.picked(at)?;
        (self.record.session(session)?.link == LinkState::Attached).then_some(session)
    }

    fn logs_in(&mut self, ctx: Context<'_>, login: Login) -> Result<Result<Gone, Refusal>, TestCaseError> {
        let (session, pending_until, issued_at) = (login.session, login.pending_until, login.token_issued_at);
        let barred =
            self.record.ban_now(ctx.now.unix_ms).is_some() || issued_at < self.record.revoked_before();
        let logged_in = self.record.login(ctx, login);
        prop_assert!(!(barred && logged_in.is_ok()), "a barred player came in");
        Ok(logged_in.map(|logged_in| {
            self.know(session, pending_until);
            logged_in.ended
        }))
    }

    /// A ticket is good from the latest one on, and the one before it until a frame has come.
    fn resumes(
        &mut self,
        ctx: Context<'_>,
        session: SessionId,
        before: u64,
    ) -> Result<Result<Gone, Refusal>, TestCaseError> {
        let known = self.known[&session].clone();
        let ticket = known.ticket - before;
        let is_good = before == 0 || (before == 1 && !known.is_settled);
        let taken_up = self.record.attach(ctx, session, ticket, Some(self.record.stamp()));
        match &taken_up {
            Ok(attached) => {
                prop_assert!(is_good, "ticket {ticket} was taken of {known:?}");
                prop_assert!(known.due.is_none_or(|due| ctx.now.unix_ms < due), "it was over");
                prop_assert!(attached.ticket_n > known.ticket, "the next ticket is a new one");
                prop_assert_eq!(attached.rolled_back, None);
                let known = self.known.get_mut(&session).unwrap();
                (known.ticket, known.is_settled, known.due) = (attached.ticket_n, false, None);
            }
            Err(Refusal::NotResumable) => {
                let is_over = known.due.is_some_and(|due| due <= ctx.now.unix_ms);
                prop_assert!(!is_good || is_over, "ticket {ticket} was refused of {known:?}");
            }
            Err(refusal) => prop_assert_eq!(refusal, &Refusal::SessionLimit),
        }
        Ok(taken_up.map(|attached| attached.ended))
    }

    /// A counter takes effect once, and leaves no gap.
    fn changes(
        &mut self,
        ctx: Context<'_>,
        session: SessionId,
        off: i64,
    ) -> Result<Result<Gone, Refusal>, TestCaseError> {
        let Known { cseq: seen, key, .. } = self.known[&session].clone();
        let Some(cseq) = (seen + 1).checked_add_signed(off) else { return Ok(Ok(Gone::new())) };
        let before = self.record.version;
        let patch = Patch { incr: vec![(key.as_str(), 1)], ..Patch::default() };
        let patched = self.record.patch(ctx, session, &patch, Some(cseq));
        let known = self.known.get_mut(&session).unwrap();
        match &patched {
            Ok(patched) if patched.admission == Admission::New => {
                prop_assert_eq!(cseq, seen + 1);
                prop_assert!(self.record.version > before, "an accepted change moves the version");
                (known.cseq, known.effects, known.is_settled) = (cseq, known.effects + 1, true);
            }
            Ok(_) => {
                prop_assert!(cseq >= 1 && cseq <= seen);
                known.is_settled = true;
            }
            Err(Refusal::CseqGap { expected }) => prop_assert!(*expected == seen + 1 && cseq > seen + 1),
            Err(refusal) => prop_assert!(cseq == 0 && matches!(refusal, Refusal::BadRequest(_))),
        }
        Ok(patched.map(|_| Gone::new()))
    }

    fn passes(&mut self, ms: u64) -> Gone {
        self.now = self.now.plus_ms(ms);
        let rules = self.rules.clone();
        self.record.elapse(Context { now: self.now, rules: &rules }).ended
    }

    fn meets(&mut self, device: u8, ahead: u64) -> Gone {
        let rules = self.rules.clone();
        let ctx = Context { now: self.now, rules: &rules };
        let epoch = Epoch::of(self.record.epoch.number() - 1);
        let version = Version::of((self.record.version.number() + ahead).saturating_sub(4));
        let mut stored = Record::first(epoch, version);
        let login = self.login(device, false, 0);
        let session = login.session;
        stored.login(ctx, login).unwrap();
        // Her link was another home's: she has a full TTL from now on.
        self.know(session, Some(ctx.now.unix_ms + TTL_MS));
        self.record.merge(stored, ctx)
    }

    fn comes_back_from_the_store(&mut self) {
        let stored = StoredRecord {
            epoch: self.record.epoch,
            version: self.record.version,
            p: self.record.encode_p(),
            w: Some(self.record.encode_w()),
        };
        self.record = Record::decode(&stored).unwrap();
        self.record.take_over(self.record.epoch.next());
        self.record.detach_all(self.now);
        for session in &self.record.sessions {
            let known = self.known.get_mut(&session.id).unwrap();
            // Whether her client has the latest ticket nobody remembers.
            known.is_settled = false;
            known.due = known.due.or(Some(self.now.unix_ms + TTL_MS));
        }
    }

    /// Whoever is gone was told why, and had to go.
    fn forget(&mut self, gone: &[Ended]) -> Result<(), TestCaseError> {
        for Ended { session, reason } in gone {
            let known = self.known.remove(&session.id);
            let due = known.and_then(|known| known.due);
            if *reason == EndReason::Expired {
                prop_assert!(due.is_some_and(|due| due <= self.now.unix_ms), "I8: ended before its time");
            }
            prop_assert!(self.record.session(session.id).is_none(), "it is there still");
        }
        let present: Vec<_> = self.record.sessions.iter().map(|session| session.id).collect();
        let silently: Vec<_> = self.known.keys().filter(|id| !present.contains(id)).collect();
        prop_assert!(silently.is_empty(), "gone without a word: {silently:?}");
        prop_assert_eq!(present.len(), self.known.len(), "known to nobody: {:?}", &present);
        Ok(())
    }

    fn stands(&mut self) -> Result<(), TestCaseError> {
        if self.record.sessions.is_empty() {
            prop_assert!(self.record.state.is_empty(), "the state goes with the last session");
        }
        for session in &self.record.sessions {
            let known = &self.known[&session.id];
            prop_assert_eq!(session.cseq, known.cseq);
            let stored =
                self.record.state.get(&known.key).map_or(0, |value| rmp_serde::from_slice(value).unwrap());
            prop_assert_eq!(stored, known.effects, "I11: counted as often as it took effect");
        }
        if self.record.ban_now(self.now.unix_ms).is_some() {
            prop_assert!(self.record.sessions.is_empty(), "a banned player is here");
        }
        self.policy_holds()
    }

    /// I7.
    fn policy_holds(&self) -> Result<(), TestCaseError> {
        let settled: Vec<_> = (self.record.sessions.iter())
            .filter(|session| !matches!(session.link, LinkState::Pending { .. }))
            .collect();
        match self.rules.login_policy {
            LoginPolicy::Replace | LoginPolicy::Reject => prop_assert!(settled.len() <= 1),
            LoginPolicy::Many(most) => prop_assert!(settled.len() <= most),
            LoginPolicy::PerDevice => {
                let mut devices: Vec<_> = settled.iter().map(|session| &session.device).collect();
                devices.sort_unstable();
                devices.dedup();
                prop_assert_eq!(devices.len(), settled.len());
            }
        }
        Ok(())
    }
}

/// Whether what others see is another thing.
fn looks_else(one: &Record, other: &Record) -> bool {
    let look =
        |record: &Record| (record.view.status, record.view.activity.clone(), record.view.devices.clone());
    look(one) != look(other)
}

fn is_above(one: Stamp, other: Stamp) -> bool {
    (one.epoch, one.version) > (other.epoch, other.version)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]

    #[test]
    fn in_any_order_sessions_keep_what_was_promised(
        policy in policy(),
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut story = Story::under(policy);
        for step in &steps {
            let before = story.record.clone();
            match story.take(step)? {
                Some(Ok(gone)) => story.forget(&gone)?,
                Some(Err(_)) => prop_assert_eq!(&story.record, &before, "{:?} was refused", step),
                None => continue,
            }
            story.stands()?;
            prop_assert!(story.record.version >= before.version, "{:?}: the version fell", step);
            if story.record.sessions.len() != before.sessions.len() {
                prop_assert!(story.record.version > before.version, "{:?} moved no version", step);
            }
            prop_assert!(!is_above(before.view.ver, story.record.view.ver), "{:?}: ver fell", step);
            if looks_else(&before, &story.record) {
                prop_assert!(is_above(story.record.view.ver, before.view.ver), "{:?} moved no ver", step);
            }
            // All that is due is gone once time has been looked at.
            if matches!(step, Step::Later(_)) {
                let now = story.now.unix_ms;
                prop_assert!(story.known.values().all(|known| known.due.is_none_or(|due| due > now)));
            }
        }
    }
}
