//! What bots of one run share: the clock, the plan, who is where in the run, and the counts that a view shows.
//! Written by bots, read by the runner. Holds nothing that is judged.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::live::Live;
use crate::mark::Mark;
use crate::options::Options;
use crate::plan::Plan;
use crate::server::Look;

/// Bits of a number that is kept beside the time at which it was due: more are under way at no time.
const NUMBER_BITS: u32 = 24;

/// So long nobody must have been answered until that is told: who has lost a link is back sooner where there is a server.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// And so long until bots give their last words up. A server that was killed and started again, and leases that had to run out,
/// take less.
const GONE_AFTER: Duration = Duration::from_secs(20);

/// The stages of a bot's end, in order. A bot goes on when all have come as far, or its patience is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its last change of presence has its answer: watchers can wait for it.
    Settled,
    /// It has seen everybody's last presence and read its own state: nobody waits for it.
    Read,
}

/// Shared by all bots of a run.
#[derive(Debug)]
pub struct Board {
    /// What the run is.
    pub options: Options,
    /// What tells its numbers from those of a run before.
    pub mark: Mark,
    /// What bots do in it.
    pub plan: Arc<Plan>,
    /// What they see, for whoever watches.
    pub live: Live,
    /// When it began.
    pub began: Instant,
    /// Operations with an outcome.
    pub answered: AtomicU64,
    /// Operations that were refused.
    pub refused: AtomicU64,
    /// Sessions taken up again.
    pub resumes: AtomicU64,
    /// Pushes heard.
    pub pushes: AtomicU64,
    /// Bots with a session on a link.
    pub online: AtomicUsize,
    /// Operations that were due while too many waited already.
    pub shed: AtomicU64,
    /// Bots and services that failed by a fault of their own: what they saw is lost.
    pub failed: AtomicU64,
    /// Bots whose time had not come when the run ended: they have never logged in.
    pub absent: AtomicU64,
    settled: AtomicUsize,
    read: AtomicUsize,
    is_called_in: AtomicBool,
    is_cut_short: AtomicBool,
    /// Whether the run ends before its time.
    curtain: watch::Sender<bool>,
    /// Set as soon as a server has answered any bot: let it in, or refused it.
    has_answered: OnceLock<()>,
    /// When and why the first attempt failed that no server answered.
    first_failure: OnceLock<(Instant, String)>,
    /// Since when no bot has had an answer, though some tried.
    silence: Mutex<Option<Silence>>,
    is_silent: AtomicBool,
    /// Why the first bot was sent away for good.
    sent_away: OnceLock<String>,
    /// The last acked presence of each bot, 0 before it settled.
    last_presence: Vec<AtomicU64>,
    /// The latest change of presence of each bot, and its latest word, with when each was due: 0 where none is under way.
    latest: [Vec<AtomicU64>; 2],
    looks: Mutex<Vec<Look>>,
}

/// Nothing is heard of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Since when.
    pub since: Instant,
    /// What the latest attempt came to.
    pub reason: String,
}

/// What others hear of a bot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A change of presence.
    Presence,
    /// A word in its room.
    Word,
}

impl Board {
    /// The board of a run of a built-in scenario that begins now.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let plan = Plan::built_in(&options);
        Self::of(options, plan)
    }

    /// The board of a run of this plan that begins now. The plan's bots are as many as the options'.
    #[must_use]
    pub fn of(options: Options, plan: Plan) -> Self {
        let zeros = || (0..plan.players).map(|_| AtomicU64::new(0)).collect();
        let (last_presence, latest) = (zeros(), [zeros(), zeros()]);
        Self {
            options,
            mark: Mark::of_a_run(),
            plan: Arc::new(plan),
            live: Live::default(),
            began: Instant::now(),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            resumes: AtomicU64::new(0),
            pushes: AtomicU64::new(0),
            online: AtomicUsize::new(0),
            shed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            absent: AtomicU64::new(0),
            settled: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            is_called_in: AtomicBool::new(false),
            is_cut_short: AtomicBool::new(false),
            curtain: watch::Sender::new(false),
            has_answered: OnceLock::new(),
            first_failure: OnceLock::new(),
            silence: Mutex::default(),
            is_silent: AtomicBool::new(false),
            sent_away: OnceLock::new(),
            last_presence,
            latest,
            looks: Mutex::default(),
        }
    }

    /// Microseconds of an instant since the run began.
    #[must_use]
    pub fn us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    /// When the schedule ends.
    #[must_use]
    pub fn end(&self) -> Instant {
        self.began + self.plan.length()
    }

    /// From now on bots that lose their link of their own will are back after a moment. A run that ends before its time says
    /// so as long before as the longest stay: else it ends without those who are away.
    pub fn call_in(&self) {
        self.is_called_in.store(true, Ordering::Relaxed);
    }

    /// Whether they are.
    #[must_use]
    pub fn is_called_in(&self) -> bool {
        self.is_called_in.load(Ordering::Relaxed)
    }

    /// Ends the schedule now: bots have their last words, and go. For runs that last as long as something else.
    pub fn fall(&self) {
        self.curtain.send_replace(true);
    }

    /// Somebody wants the run to end now. Whether that is the first wish: at a second one nothing is waited for.
    pub fn cut_short(&self) -> bool {
        let is_first = !self.is_cut_short.swap(true, Ordering::Relaxed);
        self.fall();
        is_first
    }

    /// Whether somebody did.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        self.is_cut_short.load(Ordering::Relaxed)
    }

    /// Whether it was.
    #[must_use]
    pub fn has_fallen(&self) -> bool {
        *self.curtain.borrow()
    }

    /// Waits until the schedule is ended before its time; for ever, if it is not.
    pub async fn fallen(&self) {
        // The sender lives as long as the board.
        let _ = self.curtain.subscribe().wait_for(|fallen| *fallen).await;
    }

    /// A server has answered a bot, or told it something.
    pub fn answers(&self) {
        self.has_answered.get_or_init(|| ());
        if self.is_silent.load(Ordering::Relaxed) {
            *self.silence.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.is_silent.store(false, Ordering::Relaxed);
        }
    }

    /// No server has answered a bot's attempt, or a link ended without a word.
    pub fn fails(&self, at: Instant, reason: &str) {
        if self.has_answered.get().is_none() {
            self.first_failure.get_or_init(|| (at, reason.to_owned()));
        }
        let mut silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        // A link that has broken says less than an attempt that is refused.
        let since = silence.as_ref().map_or(at, |silence| silence.since);
        *silence = Some(Silence { since, reason: reason.to_owned() });
        self.is_silent.store(true, Ordering::Relaxed);
    }

    /// Since when no bot has had an answer at `now`, if that is for long and there was one before.
    #[must_use]
    pub fn silence(&self, now: Instant) -> Option<Silence> {
        self.silent_for(now, SILENT_AFTER)
    }

    /// Whether the server has been silent for so long that nobody waits for it any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed) && self.silent_for(Instant::now(), GONE_AFTER).is_some()
    }

    fn silent_for(&self, now: Instant, patience: Duration) -> Option<Silence> {
        let silence = self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long = |silence: &&Silence| now.saturating_duration_since(silence.since) >= patience;
        self.has_answered.get().and(silence.as_ref()).filter(is_long).cloned()
    }

    /// Why no attempt has met a server, once bots have tried for so long in vain.
    #[must_use]
    pub fn in_vain_for(&self, patience: Duration) -> Option<&str> {
        let (at, reason) = self.first_failure.get()?;
        (self.has_answered.get().is_none() && at.elapsed() >= patience).then_some(reason)
    }

    /// A bot was sent away for good.
    pub fn sends_away(&self, why: String) {
        self.sent_away.get_or_init(|| why);
    }

    /// Why, if one was: the first.
    #[must_use]
    pub fn sent_away(&self) -> Option<&str> {
        self.sent_away.get().map(String::as_str)
    }

    /// A bot has come to a stage.
    pub fn reach(&self, stage: Stage) {
        self.count(stage).fetch_add(1, Ordering::AcqRel);
    }

    /// Whether all have.
    #[must_use]
    pub fn all_reached(&self, stage: Stage) -> bool {
        self.count(stage).load(Ordering::Acquire) >= self.last_presence.len()
    }

    fn count(&self, stage: Stage) -> &AtomicUsize {
        match stage {
            Stage::Settled => &self.settled,
            Stage::Read => &self.read,
        }
    }

    /// A bot's last presence.
    pub fn settle(&self, bot: u32, k: u64) {
        if let Some(last) = self.place(bot) {
            last.store(k, Ordering::Release);
        }
    }

    /// A bot's last presence; 0 before it settled, or if it never did.
    #[must_use]
    pub fn settled_at(&self, bot: u32) -> u64 {
        self.place(bot).map_or(0, |last| last.load(Ordering::Acquire))
    }

    /// A bot has something to tell, of this number, since then; none where it lost its link.
    pub fn tells(&self, bot: u32, told: Told, number: u64, due: Option<Instant>) {
        if let Some(place) = self.told(bot, told) {
            let number = number & ((1 << NUMBER_BITS) - 1);
            place.store(due.map_or(0, |due| (self.us(due) << NUMBER_BITS) | number), Ordering::Relaxed);
        }
    }

    /// How long ago, in microseconds before `at`, that was due, if it is still the latest.
    #[must_use]
    pub fn told_after_us(&self, bot: u32, told: Told, number: u64, at: Instant) -> Option<u64> {
        let packed = self.told(bot, told)?.load(Ordering::Relaxed);
        let is_it = packed > 0 && packed & ((1 << NUMBER_BITS) - 1) == number & ((1 << NUMBER_BITS) - 1);
        is_it.then(|| self.us(at).saturating_sub(packed >> NUMBER_BITS))
    }

    /// A look at the server is kept, where no more than so many are.
    pub fn looks(&self, look: Look, looks_max: usize) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() < looks_max {
            looks.push(look);
        }
    }

    /// The looks that were not seen by whoever has seen so many.
    #[must_use]
    pub fn looks_since(&self, seen: usize) -> Vec<Look> {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.get(seen..).map(<[Look]>::to_vec).unwrap_or_default()
    }

    fn told(&self, bot: u32, told: Told) -> Option<&AtomicU64> {
        let [presence, words] = &self.latest;
        let all = if told == Told::Presence { presence } else { words };
        usize::try_from(bot).ok().and_then(|at| all.get(at))
    }

    fn place(&self, bot: u32) -> Option<&AtomicU64> {
        usize::try_from(bot).ok().and_then(|at| self.last_presence.get(at))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_server_is_silent_while_nobody_is_answered() {
        let board = Board::new(Options::try_parse_from(["load", "steady", "--quiet"]).unwrap());
        let (began, at) = (board.began, |s| board.began + Duration::from_secs(s));
        board.fails(began, "refused");
        assert_eq!(board.silence(at(60)), None, "there was none before, which is told in another way");
        board.answers();
        board.fails(at(5), "reset");
        board.fails(at(6), "refused");
        assert_eq!(board.silence(at(7)), None, "it may be back at once");
        let silence = Silence { since: at(5), reason: "refused".to_owned() };
        assert_eq!(board.silence(at(8)), Some(silence));
        assert_eq!((board.silent_for(at(24), GONE_AFTER), board.is_gone()), (None, false));
        assert!(board.silent_for(at(25), GONE_AFTER).is_some());
        board.answers();
        assert_eq!(board.silence(at(60)), None);
    }
}
