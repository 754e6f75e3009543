//! Waiting for an event with a deadline, instead of sleeping and hoping.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long an event may take on a busy two-core machine before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again until there is an answer; panics with `what` when patience runs out.
pub(crate) async fn until<T, F, A>(what: &str, mut ask: A) -> T
where
    A: FnMut() -> F,
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The same for one who changes something at each try, no faster than a player may.
#[allow(dead_code, reason = "tests/it and tests/sight do, through this same file")]
pub(crate) async fn trying_until<T>(what: &str, mut tries: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = tries().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "tried in vain: {what}");
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
}
