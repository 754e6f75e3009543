//! How often a key may call, over all nodes together: each takes from the store what it needs for a moment. Where that does
//! not answer, each counts its own share, which the number of nodes decides. Called by `door`.

use std::time::Duration;

use super::Service;
use crate::clock;
use crate::home::{RateRequest, RateTaken};
use crate::limits::RateLimited;
use crate::limits::allowance::{Allowance, Answer, Wanted};

/// How long a call waits for the store to say whether it may go on.
const ASK: Duration = Duration::from_millis(250);

impl Service {
    /// Counts a call that costs so much.
    pub(super) async fn pace(&self, key: &str, cost: usize) -> Result<(), RateLimited> {
        let nodes = self.home.cluster().seen().len().max(1);
        if nodes > 1
            && let Some(answer) = self.pace_together(key, cost).await
        {
            return answer;
        }
        self.pace_alone(key, cost.saturating_mul(nodes))
    }

    /// Counts it here alone.
    pub(super) fn pace_alone(&self, key: &str, cost: usize) -> Result<(), RateLimited> {
        self.limits.check(key, cost, clock::now())
    }

    /// `None`: the store does not say.
    async fn pace_together(&self, key: &str, cost: usize) -> Option<Result<(), RateLimited>> {
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let subject = xxhash_rust::xxh3::xxh3_64(key.as_bytes());
        let allowance = self.allowances.of(subject, clock::now())?;
        let told = |answer| match answer {
            Answer::Go => Ok(Some(Ok(()))),
            Answer::Wait(limited) => Ok(Some(Err(limited))),
            Answer::Alone => Ok(None),
            Answer::Ask(wanted) => Err(wanted),
        };
        if let Ok(answer) = told(self.allowances.take(&allowance, cost, clock::now())) {
            return answer;
        }
        let _turn = allowance.turn.lock().await;
        // Whoever had the turn before may have brought enough.
        match told(self.allowances.take(&allowance, cost, clock::now())) {
            Ok(answer) => return answer,
            Err(wanted) => self.ask_for(subject, &allowance, wanted).await,
        }
        told(self.allowances.take(&allowance, cost, clock::now())).unwrap_or(None)
    }

    async fn ask_for(&self, subject: u64, allowance: &Allowance, wanted: Wanted) {
        let Wanted { per_s, burst, most, least } = wanted;
        let asked = RateRequest { subject, per_s, burst, most, least };
        let taken = self.home.take_rate(asked, ASK).await;
        let now = clock::now();
        match taken {
            Ok(RateTaken::Taken(taken)) => self.allowances.given(allowance, taken, now),
            Ok(RateTaken::Wait(wait)) => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                self.allowances.empty(allowance, least, wait_ms, now);
            }
            Err(error) => {
                tracing::debug!(operation = "rate", status = %error, "counted by share");
                self.allowances.silent(now);
            }
        }
    }
}
