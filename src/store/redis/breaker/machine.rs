//! Pure: one server's breaker. Calls ask to be let through and tell how they ended, time is an argument, and out comes who
//! may go and what has changed. No clock, no lock, no task: those are `breaker`'s. It keeps counts alone, so its size does
//! not depend on how much goes through it.
//!
//! ```text
//!            fails, slow, silent               its time is over
//!  Closed ------------------------> Open <-------------------> HalfOpen
//!     ^                              ^        a probe fails        | three probes in a row
//!     |   quick for five seconds     | fails                       v
//!     +----------------------------- Ramp <------------------------+
//! ```

use super::tally::{OVERDUE_MS, Pending, Tally, WINDOW_MS};
use crate::store::Reach;

/// An answer that took longer is slow.
pub(super) const SLOW_MS: u64 = 500;
/// Fewer calls than this in the window say nothing about how many fail or are slow.
const WINDOW_CALLS_MIN: u32 = 20;
/// Every call of the last so many ms failed, and there were at least so many.
const BURST_MS: u64 = 500;
const BURST_CALLS_MIN: u32 = 10;
/// So many failed in a row, or one did and the others wait for a slow answer at least, and nothing was answered for so
/// long: it is gone, however few ask.
const SILENCE_CALLS: u32 = 3;
const SILENCE_MS: u64 = 1_000;
/// Who has waited for so long, and gives up, has failed if nothing at all was answered meanwhile: renewals under a short
/// lease wait for no longer.
const SILENT_MS: u64 = 250;
/// How long it stays open the first time, and at most.
const OPEN_MS: u64 = 500;
pub(super) const OPEN_MS_MAX: u64 = 5_000;
/// So many probes in a row must be good.
const PROBES: u32 = 3;
/// For so long whoever holds leases there has the next probe to herself; then the store sends one of its own, as it does
/// the first.
const PROBE_OWN_AFTER_MS: u64 = 300;
/// The ramp: one commit at a time, then twice as many with each that is taken, up to as many as nobody sends.
const RAMP_MAX: u32 = 1 << 16;
/// How long calls must be quick, 99 of 100, before all is well.
const RAMP_MS: u64 = 5_000;
/// Over half bad in the last so many ms, of at least so many calls: it was too early.
const RAMP_LAST_MS: u64 = 1_000;
const RAMP_CALLS_MIN: u32 = 10;
/// A refusal because keys are on their way to another node is none of the server's failures for so long,
const MOVING_MS: u64 = 5_000;
/// and forgotten when none has come for so long.
const MOVING_PAUSE_MS: u64 = 1_000;
/// Nobody looked at the clock for so long: this process stood still, so what is late says nothing about the server.
const STALL_MS: u64 = 500;

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum Call {
    /// Extends a lease that is held: the real write path, and harmless.
    Renewal,
    /// Says that the node lives: as good, for one that holds no lease there.
    Heartbeat,
    /// Any other lease call.
    Lease,
    /// Changes what is stored, and needs memory for it.
    Change,
    Read,
    /// Is refused wherever a change is, and changes nothing: the store's own, for nobody.
    Probe,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum Outcome {
    /// Answered, whatever the answer is.
    Answered,
    /// It says nothing about this server: another one is to answer.
    Elsewhere,
    /// Some keys are here and some elsewhere: for a while that is no failure.
    Moving,
    /// The server's memory is full.
    Full,
    /// No answer, or a refusal that shows that the server does not do its work.
    Failed,
    /// The caller waits no longer.
    Abandoned,
}

/// A call that was let through.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::redis) struct Pass {
    call: Call,
    /// How many of those that asked together may go: the first ones.
    pub(in crate::store::redis) count: u32,
    began_ms: u64,
    /// What began in another one is not counted.
    era: u32,
    pub(in crate::store::redis) is_probe: bool,
}

/// Where the breaker stands, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum Phase {
    Closed,
    Ramp,
    HalfOpen,
    Open,
}

impl Phase {
    pub(in crate::store::redis) const ALL: [Self; 4] = [Self::Closed, Self::Ramp, Self::HalfOpen, Self::Open];

    /// For logs and metrics.
    pub(in crate::store::redis) const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Ramp => "ramp",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Why it has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum Why {
    /// Too many calls failed.
    Failures,
    /// Too many answers took too long.
    Slow,
    /// Nothing was answered.
    Silence,
    /// A probe came to nothing.
    Probe,
    /// It was left alone for long enough.
    Time,
    /// All went well.
    Recovered,
    /// Another server has taken its place.
    Replaced,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) struct Turn {
    pub(in crate::store::redis) from: Phase,
    pub(in crate::store::redis) to: Phase,
    pub(in crate::store::redis) why: Why,
    /// How long it will stay open.
    pub(in crate::store::redis) wait_ms: u64,
    /// Where it opens: how many calls have had no answer since the last one that had,
    pub(in crate::store::redis) unanswered: u32,
    /// and how long ago that was.
    pub(in crate::store::redis) silent_ms: u64,
    /// How long ago it opened first.
    pub(in crate::store::redis) troubled_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        reach: Reach,
        until_ms: u64,
    },
    /// `since_ms`: when it became so, or a probe was last good.
    HalfOpen {
        reach: Reach,
        since_ms: u64,
        passed: u32,
        probing_since_ms: Option<u64>,
    },
    Ramp {
        since_ms: u64,
        most: u32,
    },
}

/// One server's breaker.
#[derive(Debug, Clone)]
pub(in crate::store::redis) struct Machine {
    state: State,
    /// How long it stays open at most.
    open_ms_max: u64,
    era: u32,
    /// How often in a row it opened again.
    tries: u32,
    /// When it opened, if all is not well again.
    troubled_at_ms: Option<u64>,
    /// All calls. That the server is full is an answer here.
    calls: Tally,
    /// The changes that were answered: those refused for lack of memory have failed.
    changes: Tally,
    pending: Pending,
    changes_under_way: u32,
    /// Since when keys are on their way, and when that was last heard.
    moving: Option<(u64, u64)>,
    ticked_ms: u64,
    /// Spreads the next time that it stays open.
    jitter: f64,
}

impl Machine {
    /// All is well. It is tried again after so long at the latest, between half a second and five.
    pub(in crate::store::redis) fn new(open_ms_max: u64, now_ms: u64) -> Self {
        Self {
            state: State::Closed,
            open_ms_max: open_ms_max.clamp(OPEN_MS, OPEN_MS_MAX),
            era: 0,
            tries: 0,
            troubled_at_ms: None,
            calls: Tally::new(now_ms),
            changes: Tally::new(now_ms),
            pending: Pending::new(now_ms),
            changes_under_way: 0,
            moving: None,
            ticked_ms: now_ms,
            jitter: 0.5,
        }
    }

    pub(in crate::store::redis) const fn phase(&self) -> Phase {
        match self.state {
            State::Closed => Phase::Closed,
            State::Open { .. } => Phase::Open,
            State::HalfOpen { .. } => Phase::HalfOpen,
            State::Ramp { .. } => Phase::Ramp,
        }
    }

    /// How the server answers.
    pub(in crate::store::redis) const fn reach(&self) -> Reach {
        match self.state {
            State::Closed | State::Ramp { .. } => Reach::Well,
            State::Open { reach, .. } | State::HalfOpen { reach, .. } => reach,
        }
    }

    /// How many changes would be let through now.
    pub(in crate::store::redis) const fn room(&self) -> u32 {
        match self.state {
            State::Closed => u32::MAX,
            State::Ramp { most, .. } => most.saturating_sub(self.changes_under_way),
            State::HalfOpen { reach: Reach::Full, probing_since_ms: None, .. } => 1,
            State::HalfOpen { .. } | State::Open { .. } => 0,
        }
    }

    /// Whether a probe of the store's own is to be sent now. It is the first one, which changes nothing wherever it ends up:
    /// a lease that is extended by an answer which is not heard is kept from those who could serve it.
    pub(in crate::store::redis) const fn wants_probe(&self, now_ms: u64) -> bool {
        match self.state {
            State::HalfOpen { reach: Reach::Away, passed, probing_since_ms: None, since_ms } => {
                passed == 0 || now_ms.saturating_sub(since_ms) >= PROBE_OWN_AFTER_MS
            }
            _ => false,
        }
    }

    /// Lets time pass; to be called every tenth of a second. `jitter` is random, 0 to 1.
    pub(in crate::store::redis) fn tick(&mut self, now_ms: u64, jitter: f64) -> Option<Turn> {
        self.jitter = jitter;
        let turn = self.look(now_ms);
        self.ticked_ms = self.ticked_ms.max(now_ms);
        turn
    }

    /// Asks for `count` calls that go together: how many of them may go, from the first on, if any.
    pub(in crate::store::redis) fn ask(
        &mut self,
        call: Call,
        count: u32,
        now_ms: u64,
    ) -> (Option<Pass>, Option<Turn>) {
        let turn = self.look(now_ms);
        let (count, is_probe) = self.admits(call, count);
        if count == 0 {
            return (None, turn);
        }
        if let State::HalfOpen { probing_since_ms, .. } = &mut self.state
            && is_probe
        {
            *probing_since_ms = Some(now_ms);
        }
        if call == Call::Change {
            self.changes_under_way = self.changes_under_way.saturating_add(count);
        }
        self.pending.begin(now_ms);
        (Some(Pass { call, count, began_ms: now_ms, era: self.era, is_probe }), turn)
    }

    /// How many of these, and whether it is a probe.
    const fn admits(&self, call: Call, count: u32) -> (u32, bool) {
        let one = if count == 0 { 0 } else { 1 };
        match (self.state, call) {
            (State::Closed, _) => (count, false),
            (State::Ramp { .. }, Call::Change) => {
                let room = self.room();
                (if count < room { count } else { room }, false)
            }
            (State::Ramp { .. }, _) => (count, false),
            (State::Open { reach: Reach::Full, .. }, Call::Change) => (0, false),
            (State::HalfOpen { reach: Reach::Full, probing_since_ms, .. }, Call::Change) => {
                (if probing_since_ms.is_some() { 0 } else { one }, true)
            }
            (State::Open { reach: Reach::Full, .. } | State::HalfOpen { reach: Reach::Full, .. }, _) => {
                (count, false)
            }
            (State::Open { .. }, _) => (0, false),
            (State::HalfOpen { passed, probing_since_ms, .. }, _) => {
                let serves = match call {
                    Call::Probe => true,
                    Call::Renewal | Call::Heartbeat => passed > 0,
                    // A replica answers reads, too.
                    Call::Lease | Call::Change | Call::Read => false,
                };
                (if serves && probing_since_ms.is_none() { one } else { 0 }, true)
            }
        }
    }

    /// Whether the end of this call still counts: the breaker has not turned since it began.
    pub(in crate::store::redis) const fn counts(&self, pass: Pass) -> bool {
        pass.era == self.era
    }

    /// A call that was let through has ended.
    pub(in crate::store::redis) fn ended(
        &mut self,
        pass: Pass,
        outcome: Outcome,
        now_ms: u64,
    ) -> Option<Turn> {
        let turn = self.look(now_ms);
        if turn.is_some() || !self.counts(pass) {
            return turn;
        }
        if pass.call == Call::Change {
            self.changes_under_way = self.changes_under_way.saturating_sub(pass.count);
        }
        let waited_ms = now_ms.saturating_sub(pass.began_ms);
        let is_slow = waited_ms > SLOW_MS;
        // Nobody else has heard anything either.
        let in_silence = waited_ms >= SILENT_MS && self.calls.silent_ms(now_ms) >= waited_ms;
        let outcome = match outcome {
            Outcome::Moving => self.moving(now_ms),
            Outcome::Abandoned if is_slow || in_silence || pass.is_probe => Outcome::Failed,
            Outcome::Abandoned => Outcome::Elsewhere,
            outcome => outcome,
        };
        let is_counted = !self.pending.end(pass.began_ms);
        self.note(pass.call, outcome, is_slow, is_counted, now_ms);
        // A connection that breaks takes along what is on it. Where nothing comes back for a second, each call that went
        // together with others has waited in vain.
        if outcome == Outcome::Failed && now_ms.saturating_sub(pass.began_ms) >= SILENCE_MS {
            self.calls.missed(pass.count.saturating_sub(1));
        }
        match self.state {
            State::HalfOpen { .. } if pass.is_probe => self.probed(outcome, is_slow, now_ms),
            State::Ramp { since_ms, most } => {
                if pass.call == Call::Change && outcome == Outcome::Answered && !is_slow {
                    self.state = State::Ramp { since_ms, most: most.saturating_mul(2).min(RAMP_MAX) };
                }
                self.judge(now_ms)
            }
            // What is good and quick opens nothing.
            _ if outcome == Outcome::Answered && !is_slow => None,
            _ => self.judge(now_ms),
        }
    }

    /// Another server has taken its place, of which nothing is known. What was asked of the old one does not count. Where
    /// that one was in trouble the new one has to show what it can do before everybody's backlog falls on it, at once.
    pub(in crate::store::redis) fn replaced(&mut self, now_ms: u64) -> Option<Turn> {
        self.forget(now_ms);
        (self.calls, self.changes) = (Tally::new(now_ms), Tally::new(now_ms));
        self.tries = 0;
        match self.state {
            State::Closed | State::Ramp { .. } => None,
            State::Open { .. } | State::HalfOpen { .. } => {
                Some(self.half_open(Reach::Away, now_ms, Why::Replaced))
            }
        }
    }

    /// What is under way will not be counted.
    fn forget(&mut self, now_ms: u64) {
        self.era = self.era.wrapping_add(1);
        self.pending = Pending::new(now_ms);
        self.changes_under_way = 0;
        self.calls.answered(now_ms);
        self.changes.answered(now_ms);
        if let State::HalfOpen { probing_since_ms, .. } = &mut self.state {
            *probing_since_ms = None;
        }
    }

    /// What time alone brings.
    fn look(&mut self, now_ms: u64) -> Option<Turn> {
        if now_ms.saturating_sub(self.ticked_ms) > STALL_MS {
            self.forget(now_ms);
            self.ticked_ms = now_ms;
        }
        let overdue = self.pending.overdue(now_ms);
        if overdue > 0 {
            self.calls.note(overdue, true, true, now_ms);
        }
        let state = self.state;
        match state {
            State::Open { reach, until_ms } if now_ms >= until_ms => {
                Some(self.half_open(reach, now_ms, Why::Time))
            }
            State::HalfOpen { reach, probing_since_ms: Some(since_ms), .. }
                if now_ms.saturating_sub(since_ms) >= OVERDUE_MS =>
            {
                Some(self.open(reach, Why::Probe, now_ms))
            }
            // Nobody has anything to write that would find out: whoever comes next does.
            State::HalfOpen { reach: Reach::Full, probing_since_ms: None, since_ms, .. }
                if now_ms.saturating_sub(since_ms) >= OPEN_MS_MAX =>
            {
                Some(self.ramp(now_ms))
            }
            State::Ramp { since_ms, .. } if self.has_recovered(since_ms, now_ms) => {
                let turn = self.turn(State::Closed, Why::Recovered, now_ms);
                (self.tries, self.troubled_at_ms) = (0, None);
                Some(turn)
            }
            // What waits beside a failure adds to it as time passes.
            _ if self.calls.failed_in_a_row() > 0 => self.judge(now_ms),
            _ => None,
        }
    }

    fn has_recovered(&mut self, since_ms: u64, now_ms: u64) -> bool {
        let is_quick = |tally: &mut Tally| {
            let last = tally.last(RAMP_MS, now_ms);
            last.bad.saturating_mul(100) <= last.ended
        };
        now_ms.saturating_sub(since_ms) >= RAMP_MS && is_quick(&mut self.calls) && is_quick(&mut self.changes)
    }

    /// What a refusal counts as whose keys are on their way.
    fn moving(&mut self, now_ms: u64) -> Outcome {
        let since_ms = match self.moving {
            Some((since_ms, last_ms)) if now_ms.saturating_sub(last_ms) <= MOVING_PAUSE_MS => since_ms,
            _ => now_ms,
        };
        self.moving = Some((since_ms, now_ms));
        if now_ms.saturating_sub(since_ms) < MOVING_MS { Outcome::Elsewhere } else { Outcome::Failed }
    }

    fn note(&mut self, call: Call, outcome: Outcome, is_slow: bool, is_counted: bool, now_ms: u64) {
        match outcome {
            Outcome::Elsewhere | Outcome::Moving | Outcome::Abandoned => return,
            Outcome::Failed if is_counted => {}
            Outcome::Failed => self.calls.note(1, true, is_slow, now_ms),
            // It was taken for lost: it was slow, and is not counted twice.
            Outcome::Answered | Outcome::Full if is_counted => self.calls.answered(now_ms),
            Outcome::Answered | Outcome::Full => self.calls.note(1, false, is_slow, now_ms),
        }
        match outcome {
            Outcome::Full => self.changes.note(1, true, false, now_ms),
            Outcome::Answered if call == Call::Change => self.changes.note(1, false, false, now_ms),
            _ => {}
        }
    }

    /// Opens it if the last calls ask for that.
    fn judge(&mut self, now_ms: u64) -> Option<Turn> {
        let waiting = self.pending.waiting(SLOW_MS);
        let is_ramp = match self.state {
            State::Closed => false,
            State::Ramp { .. } => true,
            // Leases and reads go on while it is full, and find out if it goes away altogether.
            State::Open { reach: Reach::Full, .. } | State::HalfOpen { reach: Reach::Full, .. } => {
                let why = trouble(&mut self.calls, waiting, false, now_ms)?;
                return Some(self.open(Reach::Away, why, now_ms));
            }
            State::Open { .. } | State::HalfOpen { .. } => return None,
        };
        if let Some(why) = trouble(&mut self.calls, waiting, is_ramp, now_ms) {
            return Some(self.open(Reach::Away, why, now_ms));
        }
        let why = trouble(&mut self.changes, 0, is_ramp, now_ms)?;
        Some(self.open(Reach::Full, why, now_ms))
    }

    /// A probe has ended.
    fn probed(&mut self, outcome: Outcome, is_slow: bool, now_ms: u64) -> Option<Turn> {
        let State::HalfOpen { reach, passed, probing_since_ms, since_ms } = &mut self.state else {
            return None;
        };
        *probing_since_ms = None;
        match outcome {
            Outcome::Answered if !is_slow => {
                (*passed, *since_ms) = (*passed + 1, now_ms);
                // A commit that a full server takes has found room: others may have nothing to write but new logins,
                // which are refused until then.
                let enough = if *reach == Reach::Full { 1 } else { PROBES };
                (*passed >= enough).then(|| self.ramp(now_ms))
            }
            Outcome::Elsewhere | Outcome::Moving | Outcome::Abandoned => None,
            Outcome::Full => Some(self.open(Reach::Full, Why::Probe, now_ms)),
            Outcome::Answered | Outcome::Failed => {
                // A full server that fails a commit otherwise has not shown that it is gone: its leases go on.
                let reach = *reach;
                Some(self.open(reach, Why::Probe, now_ms))
            }
        }
    }

    fn ramp(&mut self, now_ms: u64) -> Turn {
        (self.calls, self.changes) = (Tally::new(now_ms), Tally::new(now_ms));
        self.turn(State::Ramp { since_ms: now_ms, most: 1 }, Why::Recovered, now_ms)
    }

    fn open(&mut self, reach: Reach, why: Why, now_ms: u64) -> Turn {
        if self.state == State::Closed {
            (self.tries, self.troubled_at_ms) = (0, Some(now_ms));
        } else {
            self.tries = self.tries.saturating_add(1);
        }
        let wait_ms = spread(wait_ms(self.tries).min(self.open_ms_max), self.jitter);
        let unanswered = self.calls.failed_in_a_row().saturating_add(self.pending.waiting(SLOW_MS));
        let silent_ms = self.calls.silent_ms(now_ms);
        self.forget(now_ms);
        (self.calls, self.changes) = (Tally::new(now_ms), Tally::new(now_ms));
        let turn = self.turn(State::Open { reach, until_ms: now_ms.saturating_add(wait_ms) }, why, now_ms);
        Turn { wait_ms, unanswered, silent_ms, ..turn }
    }

    fn half_open(&mut self, reach: Reach, now_ms: u64, why: Why) -> Turn {
        self.turn(State::HalfOpen { reach, since_ms: now_ms, passed: 0, probing_since_ms: None }, why, now_ms)
    }

    fn turn(&mut self, to: State, why: Why, now_ms: u64) -> Turn {
        let from = self.phase();
        self.state = to;
        let troubled_ms = self.troubled_at_ms.map_or(0, |at_ms| now_ms.saturating_sub(at_ms));
        Turn { from, to: self.phase(), why, wait_ms: 0, unanswered: 0, silent_ms: 0, troubled_ms }
    }
}

/// Whether these calls say that the server is in trouble, and why. So many others wait for an answer that is slow by now.
fn trouble(tally: &mut Tally, waiting: u32, is_ramp: bool, now_ms: u64) -> Option<Why> {
    let in_vain = match tally.failed_in_a_row() {
        0 => 0,
        failed => failed.saturating_add(waiting),
    };
    if in_vain >= SILENCE_CALLS && tally.silent_ms(now_ms) >= SILENCE_MS {
        return Some(Why::Silence);
    }
    let last = tally.last(BURST_MS, now_ms);
    if last.ended >= BURST_CALLS_MIN && last.failed == last.ended {
        return Some(Why::Failures);
    }
    if is_ramp {
        let last = tally.last(RAMP_LAST_MS, now_ms);
        let is_bad = last.ended >= RAMP_CALLS_MIN && last.is_most(last.bad);
        return is_bad.then_some(if last.is_most(last.failed) { Why::Failures } else { Why::Slow });
    }
    let window = tally.last(WINDOW_MS, now_ms);
    match window.ended >= WINDOW_CALLS_MIN {
        true if window.is_most(window.failed) => Some(Why::Failures),
        true if window.is_most(window.slow) => Some(Why::Slow),
        _ => None,
    }
}

/// 500 ms, twice as long with each try, at most 5 s: no machine waits for longer.
fn wait_ms(tries: u32) -> u64 {
    OPEN_MS.saturating_mul(1_u64.checked_shl(tries).unwrap_or(u64::MAX)).min(OPEN_MS_MAX)
}

/// ± 20 %.
fn spread(ms: u64, jitter: f64) -> u64 {
    let parts = (jitter.clamp(0.0, 1.0) * 400.0) as u64;
    ms.saturating_mul(800 + parts) / 1000
}

#[cfg(test)]
mod tests;
