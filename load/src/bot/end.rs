//! How a bot leaves: in the middle of a run under `churn`, and at the end, when everything that was written is read back
//! and everybody's last presence is waited for. Every wait has a deadline.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use protocol::request::{Ack, Request, Status};
use tokio::time::timeout_at;

use super::{Bot, hear};
use crate::board::Stage;
use crate::history::{Drop, Notice, Operation};

/// For answers to all that is under way: a server that was killed has time to come back.
const ANSWERS_DEADLINE: Duration = Duration::from_secs(30);
/// For all others to come as far.
const OTHERS_DEADLINE: Duration = Duration::from_secs(40);
/// For the last presence of everybody watched to arrive.
const PUSHES_DEADLINE: Duration = Duration::from_secs(10);
/// For the last read.
const READ_DEADLINE: Duration = Duration::from_secs(15);
/// For the end of a session.
const LOGOUT_DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks at the board.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);

impl Bot {
    /// Logs out and in again.
    pub(super) async fn leave_and_return(&mut self) {
        if self.wants_since.is_some() {
            return;
        }
        self.leave().await;
        self.start(Instant::now());
    }

    /// Logs out, and stays out.
    pub(super) async fn leave(&mut self) {
        self.read(Instant::now());
        self.log_out().await;
    }

    /// Loses the link and all that it knew of its session, and logs in anew.
    pub(super) fn forget(&mut self, due: Instant) {
        if self.wants_since.is_some() {
            return;
        }
        // What is left without an answer stays so.
        self.link = None;
        self.offline();
        self.waiting.clear();
        self.board.live.closes("own".to_owned());
        let notice = Notice::Down { code: None, on_purpose: Some(Drop::Cut), stay_ms: 0 };
        self.notice(Instant::now(), notice);
        self.start(due);
    }

    async fn log_out(&mut self) {
        self.is_leaving = true;
        self.ask(Operation::Logout, Request::Logout, Instant::now());
        let ended = self.until(LOGOUT_DEADLINE, |bot| bot.link.is_none()).await;
        if !ended {
            // What is left without an answer stays so.
            self.link = None;
        }
        self.offline();
        self.waiting.clear();
    }

    /// The end of the run: say the last, hear the last, read everything, go.
    /// Who was out by then comes back for it; who never came has nothing to say.
    pub(super) async fn last_words(&mut self) {
        let now = Instant::now();
        if !self.has_come {
            self.board.absent.fetch_add(1, Relaxed);
            self.board.reach(Stage::Settled);
            self.board.reach(Stage::Read);
            return;
        }
        if self.link.is_none() && !self.is_sent_away {
            self.start(now);
            // What waits for its login is not over a lost link.
            let is_in = |bot: &Self| bot.wants_since.is_none() || bot.link.is_none();
            self.until(ANSWERS_DEADLINE, is_in).await;
        }
        let now = Instant::now();
        self.present(Status::Online, now);
        self.write(Ack::Applied, now);
        self.until(ANSWERS_DEADLINE, |bot| bot.waiting.is_empty() || bot.link.is_none()).await;
        self.board.settle(self.number, self.presence_acked);
        self.board.reach(Stage::Settled);
        self.until(OTHERS_DEADLINE, |bot| bot.board.all_reached(Stage::Settled)).await;
        self.until(PUSHES_DEADLINE, Self::has_seen_all).await;
        self.read(Instant::now());
        self.until(READ_DEADLINE, |bot| bot.waiting.is_empty() || bot.link.is_none()).await;
        self.board.reach(Stage::Read);
        self.until(OTHERS_DEADLINE, |bot| bot.board.all_reached(Stage::Read)).await;
        self.log_out().await;
    }

    fn has_seen_all(&self) -> bool {
        let latest = |subject| self.seen.get(subject).copied().unwrap_or(0);
        self.subjects.iter().all(|subject| latest(subject) >= self.board.settled_at(*subject))
    }

    /// Hears on until something is so; whether it came to be so in time. From a server that has been silent for long nothing is
    /// waited for.
    async fn until(&mut self, patience: Duration, is_so: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        while !is_so(self) {
            if self.board.is_gone() {
                return false;
            }
            let look = (Instant::now() + LOOK_INTERVAL).min(deadline);
            if let Ok(event) = timeout_at(look.into(), hear(&mut self.link)).await {
                self.take(event);
            } else if look == deadline {
                return false;
            }
        }
        true
    }
}
