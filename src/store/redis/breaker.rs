//! One server's breaker: what holds calls back while the server is away, too slow or full, and lets them through again bit
//! by bit. Asked by every lane before it sends and told how that ended; the pure part is `machine`. Its lock is held for
//! arithmetic alone, twice for everything that goes together; whether all is well costs one atomic load.

mod machine;
mod tally;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge};
use parking_lot::Mutex;

pub(super) use self::machine::Call;
use self::machine::{Machine, Outcome, Pass, Phase, Turn, Why};
use super::errors::{Failure, Weight};
use crate::clock;
use crate::store::{Reach, StoreError};
use crate::telemetry::metrics::{STORE_BREAKER_STATE, STORE_BREAKER_TURNS, STORE_CALLS_HELD_BACK};

/// Most servers that metrics tell apart in the life of a process; those that come later are one, `other`.
const ENDPOINTS_MAX: usize = 64;

/// One server's breaker.
pub(super) struct Breaker {
    /// The server as it is called in logs and metrics.
    endpoint: Arc<str>,
    state: Mutex<State>,
    /// What `Reach` it is, and whether all is well: 0.
    outlook: AtomicU8,
    /// How often calls began to be held back because it was away.
    openings: AtomicU64,
    meters: Meters,
}

struct State {
    machine: Machine,
    /// The number of the server that stands behind it.
    serial: u64,
    /// Why calls are held back.
    cause: Arc<str>,
    /// What the last failure was, and when: of the server that stands there now, and since it was last tried or well.
    failed: Option<(StoreError, u64)>,
}

/// A change, for the log.
struct Told {
    turn: Turn,
    reach: Reach,
    cause: Arc<str>,
}

struct Meters {
    phase: Gauge,
    turns: [Counter; Phase::ALL.len()],
    held_back: Counter,
}

const WELL: u8 = 0;
const RAMP: u8 = 1;
const AWAY: u8 = 2;
const FULL: u8 = 3;

impl Breaker {
    /// All is well with the server that is called so. While it is away it is tried again after so long at the latest, up to
    /// 5 s.
    pub(super) fn of(endpoint: &str, probe_within: Duration) -> Arc<Self> {
        let state = State {
            machine: Machine::new(clock::millis(probe_within), clock::now().mono_ms),
            serial: 0,
            cause: Arc::from(""),
            failed: None,
        };
        let (state, outlook, meters) = (Mutex::new(state), AtomicU8::new(WELL), Meters::of(endpoint));
        Arc::new(Self { endpoint: Arc::from(endpoint), state, outlook, openings: AtomicU64::new(0), meters })
    }

    /// How the server answers.
    pub(super) fn reach(&self) -> Reach {
        match self.outlook.load(Ordering::Relaxed) {
            AWAY => Reach::Away,
            FULL => Reach::Full,
            _ => Reach::Well,
        }
    }

    /// How often it was found away, each probe in vain among them: a connection that was made before is not waited for. What
    /// is sent over it may lie in this machine for as long again as the silence has lasted.
    pub(super) fn openings(&self) -> u64 {
        self.openings.load(Ordering::Relaxed)
    }

    /// Whether a probe is to be sent that is nobody else's call.
    pub(super) fn wants_probe(&self) -> bool {
        self.reach() == Reach::Away && self.state.lock().machine.wants_probe(clock::now().mono_ms)
    }

    /// How many commits it would let through now.
    pub(super) fn room(&self) -> usize {
        if self.outlook.load(Ordering::Relaxed) == WELL {
            return usize::MAX;
        }
        usize::try_from(self.state.lock().machine.room()).unwrap_or(usize::MAX)
    }

    /// Lets time pass.
    pub(super) fn tick(&self) {
        let mut state = self.state.lock();
        let turn = state.machine.tick(clock::now().mono_ms, rand::random());
        let told = self.follow(&mut state, turn);
        drop(state);
        self.tell(told);
    }

    /// Asks for calls that go together to the server of this number: how many of them may go, the first ones.
    ///
    /// # Errors
    /// [`StoreError::HeldBack`]: none of them.
    pub(super) fn ask(&self, call: Call, count: usize, serial: u64) -> Result<Going<'_>, StoreError> {
        let now_ms = clock::now().mono_ms;
        let mut state = self.state.lock();
        let is_new = serial > state.serial;
        let replaced = if is_new {
            (state.serial, state.failed) = (serial, None);
            state.machine.replaced(now_ms)
        } else {
            None
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let (pass, turn) = state.machine.ask(call, count, now_ms);
        let told = self.follow(&mut state, replaced.or(turn));
        let pass = pass.ok_or_else(|| held_back(&state));
        drop(state);
        self.tell(told);
        let going = pass.map(|pass| Going { breaker: self, pass, is_over: false });
        let held = going.as_ref().map_or(count, |going| count - going.pass.count.min(count));
        if held > 0 {
            self.meters.held_back.increment(u64::from(held));
        }
        going
    }

    /// Whether calls beside those that are counted may go, too.
    ///
    /// # Errors
    /// [`StoreError::HeldBack`].
    pub(super) fn permits(&self) -> Result<(), StoreError> {
        if self.reach() == Reach::Away { Err(held_back(&self.state.lock())) } else { Ok(()) }
    }

    /// Why calls are held back now.
    pub(super) fn held_back(&self) -> StoreError {
        held_back(&self.state.lock())
    }

    fn ended(&self, pass: Pass, outcome: Outcome, failed: Option<&StoreError>) {
        let now_ms = clock::now().mono_ms;
        let mut state = self.state.lock();
        if let Some(failed) = failed.filter(|_| state.machine.counts(pass)) {
            state.failed = Some((failed.clone(), now_ms));
        }
        let turn = state.machine.ended(pass, outcome, now_ms);
        let told = self.follow(&mut state, turn);
        drop(state);
        self.tell(told);
    }

    /// Takes note of what has changed, if anything has; what there is to tell of it.
    fn follow(&self, state: &mut State, turn: Option<Turn>) -> Option<Told> {
        let turn = turn?;
        if turn.to == Phase::Open {
            state.cause = cause(turn, state.failed.as_ref(), clock::now().mono_ms).into();
        } else {
            // What comes next has a cause of its own.
            state.failed = None;
        }
        let reach = state.machine.reach();
        let outlook = match (turn.to, reach) {
            (Phase::Closed, _) => WELL,
            (_, Reach::Well) => RAMP,
            (_, Reach::Away) => AWAY,
            (_, Reach::Full) => FULL,
        };
        if (turn.to, reach) == (Phase::Open, Reach::Away) {
            self.openings.fetch_add(1, Ordering::Relaxed);
        }
        self.outlook.store(outlook, Ordering::Relaxed);
        self.meters.turned(turn.to);
        Some(Told { turn, reach, cause: Arc::clone(&state.cause) })
    }

    /// One line for what begins and what ends; that it was tried again in vain, every few seconds, is worth less.
    fn tell(&self, told: Option<Told>) {
        let Some(Told { turn, reach, cause }) = told else { return };
        let cause = &*cause;
        let Turn { from, to, why, wait_ms, troubled_ms, .. } = turn;
        let (endpoint, from, state) = (&*self.endpoint, from.name(), to.name());
        match to {
            Phase::Open if turn.from != Phase::HalfOpen => {
                let holds = if reach == Reach::Full { "changes" } else { "calls" };
                let what = "the store's server is in trouble, and left alone but for probes";
                tracing::warn!(
                    operation = "store.breaker",
                    endpoint,
                    from,
                    state,
                    cause,
                    holds,
                    wait_ms,
                    "{what}"
                );
            }
            Phase::Open | Phase::HalfOpen => {
                tracing::debug!(
                    operation = "store.breaker",
                    endpoint,
                    from,
                    state,
                    ?why,
                    cause,
                    wait_ms,
                    troubled_ms
                );
            }
            Phase::Ramp => {
                let what = "the store's server answers again: commits go, a few at a time";
                tracing::info!(
                    operation = "store.breaker",
                    endpoint,
                    from,
                    state,
                    cause,
                    troubled_ms,
                    "{what}"
                );
            }
            Phase::Closed => {
                let what = "the store's server is well again";
                tracing::info!(operation = "store.breaker", endpoint, from, state, troubled_ms, "{what}");
            }
        }
    }
}

fn held_back(state: &State) -> StoreError {
    let reach = state.machine.reach();
    StoreError::HeldBack { reach, cause: Arc::clone(&state.cause) }
}

/// In words: what opened it, and nothing that was said before that began.
fn cause(turn: Turn, failed: Option<&(StoreError, u64)>, now_ms: u64) -> String {
    let within_ms = if turn.why == Why::Silence { turn.silent_ms } else { tally::WINDOW_MS };
    let failed =
        failed.filter(|(_, at_ms)| now_ms.saturating_sub(*at_ms) <= within_ms).map(|(error, _)| error);
    match (turn.why, failed) {
        (Why::Slow, _) => format!("most answers take longer than {} ms", machine::SLOW_MS),
        (Why::Silence, failed) => {
            let silence = format!("no answer for {} ms to {} calls", turn.silent_ms, turn.unanswered);
            match failed {
                None | Some(StoreError::Timeout) => silence,
                Some(failed) => format!("{silence}: {failed}"),
            }
        }
        (_, Some(failed)) => failed.to_string(),
        (_, None) => StoreError::Timeout.to_string(),
    }
}

/// Calls on their way. Who drops it has given them up.
pub(super) struct Going<'a> {
    breaker: &'a Breaker,
    pass: Pass,
    is_over: bool,
}

impl Going<'_> {
    /// How many go, the first ones.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.pass.count).unwrap_or(usize::MAX)
    }

    /// Whether it goes to find out if the server is back.
    pub(super) const fn is_probe(&self) -> bool {
        self.pass.is_probe
    }

    /// All of them were answered.
    pub(super) fn answered(mut self) {
        self.is_over = true;
        self.breaker.ended(self.pass, Outcome::Answered, None);
    }

    /// They came to this.
    pub(super) fn failed(mut self, failure: &Failure) {
        self.is_over = true;
        let outcome = match failure.weight {
            Weight::Answer => Outcome::Answered,
            Weight::Elsewhere => Outcome::Elsewhere,
            Weight::Moving => Outcome::Moving,
            Weight::Full => Outcome::Full,
            Weight::Failure => Outcome::Failed,
        };
        let is_trouble = matches!(outcome, Outcome::Failed | Outcome::Full);
        self.breaker.ended(self.pass, outcome, is_trouble.then_some(&failure.error));
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.breaker.ended(self.pass, Outcome::Abandoned, None);
        }
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        // A server that has left the cluster is in no trouble.
        self.meters.phase.set(0.0);
    }
}

impl Meters {
    fn of(endpoint: &str) -> Self {
        let endpoint = label(endpoint);
        let meters = Self {
            phase: STORE_BREAKER_STATE.of_each(&[("endpoint", endpoint.clone())]),
            turns: Phase::ALL.map(|phase| {
                let state = phase.name().to_owned();
                STORE_BREAKER_TURNS.of_each(&[("endpoint", endpoint.clone()), ("state", state)])
            }),
            held_back: STORE_CALLS_HELD_BACK.of_each(&[("endpoint", endpoint.clone())]),
        };
        meters.phase.set(0.0);
        meters
    }

    fn turned(&self, to: Phase) {
        let number = Phase::ALL.iter().position(|phase| *phase == to).unwrap_or(0);
        self.phase.set(number as f64);
        self.turns.iter().skip(number).take(1).for_each(|turns| turns.increment(1));
    }
}

/// The server's name, or `other` once there were too many: addresses may change for years.
fn label(endpoint: &str) -> String {
    static KNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock();
    if known.contains(endpoint) || known.len() < ENDPOINTS_MAX {
        known.insert(endpoint.to_owned());
        return endpoint.to_owned();
    }
    "other".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(why: Why) -> Turn {
        let (from, to) = (Phase::Closed, Phase::Open);
        Turn { from, to, why, wait_ms: 500, unanswered: 4, silent_ms: 1_020, troubled_ms: 0 }
    }

    #[test]
    fn the_cause_is_what_opened_it_and_never_what_was_said_before() {
        let unreachable = || StoreError::Unreachable("connecting took too long".into());
        let silence = "no answer for 1020 ms to 4 calls";
        let in_words = |why, failed: Option<(StoreError, u64)>| cause(opened(why), failed.as_ref(), 50_000);
        assert_eq!(in_words(Why::Silence, None), silence);
        assert_eq!(in_words(Why::Silence, Some((StoreError::Timeout, 49_900))), silence);
        assert_eq!(in_words(Why::Silence, Some((unreachable(), 48_900))), silence, "before the silence");
        let refused = in_words(Why::Silence, Some((unreachable(), 49_900)));
        assert_eq!(refused, format!("{silence}: {}", unreachable()));
        assert_eq!(in_words(Why::Failures, Some((unreachable(), 49_000))), unreachable().to_string());
        assert_eq!(in_words(Why::Failures, Some((unreachable(), 39_000))), StoreError::Timeout.to_string());
    }

    #[test]
    fn of_a_server_whose_place_another_one_has_taken_nothing_is_told() {
        let breaker = Breaker::of("redis://replaced", Duration::from_secs(2));
        let old = breaker.ask(Call::Renewal, 1, 1).unwrap();
        assert!(breaker.ask(Call::Renewal, 1, 2).is_ok(), "another server");
        old.failed(&Failure::of_silence(StoreError::Unreachable("the old one".into())));
        assert!(breaker.state.lock().failed.is_none());
        breaker.ask(Call::Renewal, 1, 2).unwrap().failed(&Failure::of_silence(StoreError::Timeout));
        assert!(breaker.state.lock().failed.is_some());
        assert!(breaker.ask(Call::Renewal, 1, 3).is_ok());
        assert!(breaker.state.lock().failed.is_none(), "what was said by the one before");
    }
}
