//! Waiting for something that must come about, and no longer than anybody's patience lasts.
//! Called between any two faults of a run.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::board::Board;

const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// It did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("waited in vain for {} s: {what}", patience.as_secs())]
pub struct InVain {
    /// What was waited for.
    pub what: String,
    /// For how long.
    pub patience: Duration,
}

/// Waits until something is so; looks often.
///
/// # Errors
/// [`InVain`].
pub async fn until(what: &str, patience: Duration, is_so: impl Fn() -> bool) -> Result<(), InVain> {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() >= deadline {
            return Err(InVain { what: what.to_owned(), patience });
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Waits until most bots of a run have a session on a link (some are away of their own will) and go on working.
///
/// # Errors
/// [`InVain`].
pub async fn at_work(board: &Board, patience: Duration) -> Result<(), InVain> {
    let players = u64::from(board.options.players);
    let online = || u64::try_from(board.online.load(Relaxed)).unwrap_or(u64::MAX);
    until("most bots to have a link", patience, || online() >= players * 2 / 3).await?;
    let answered = board.answered.load(Relaxed);
    let more = players * 3;
    until("bots to be answered", patience, || board.answered.load(Relaxed) >= answered + more).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_come_about_is_given_up_and_named() {
        let patience = Duration::from_secs(7);
        assert_eq!(until("rain", patience, || true).await, Ok(()));
        let in_vain = until("rain", Duration::from_millis(50), || false).await.unwrap_err();
        assert_eq!(in_vain.what, "rain");
    }
}
