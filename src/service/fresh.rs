//! An answer that costs something, made at most once a second however many ask: one makes it, the others wait for it.
//! For whatever is gathered from all records, all nodes or the store, so that no caller can hurt the node by asking.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};

/// How long an answer is given again.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// The latest answer.
#[derive(Debug)]
pub(super) struct Fresh<T> {
    latest: Mutex<Option<(Instant, Arc<T>)>>,
}

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self { latest: Mutex::new(None) }
    }
}

impl<T> Fresh<T> {
    /// The latest answer, if it is fresh; else a new one.
    pub(super) async fn get(&self, make: impl Future<Output = T>) -> Arc<T> {
        self.get_if(|_| true, make).await
    }

    /// The same, and a new one at once if the latest does not hold any more. That must not come about more often than a few
    /// times in the life of a process.
    pub(super) async fn get_if(&self, holds: impl Fn(&T) -> bool, make: impl Future<Output = T>) -> Arc<T> {
        let mut latest = self.latest.lock().await;
        match latest.as_ref() {
            Some((made_at, answer)) if made_at.elapsed() < FRESH_FOR && holds(answer) => Arc::clone(answer),
            _ => {
                let answer = Arc::new(make.await);
                *latest = Some((Instant::now(), Arc::clone(&answer)));
                answer
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_made_once_a_second() {
        let fresh = Fresh::default();
        assert_eq!(*fresh.get(async { 1 }).await, 1);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(*fresh.get(async { 2 }).await, 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(*fresh.get(async { 3 }).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_hold_any_more_is_made_anew() {
        let fresh = Fresh::default();
        assert_eq!(*fresh.get(async { 1 }).await, 1);
        assert_eq!(*fresh.get_if(|known| *known == 1, async { 2 }).await, 1);
        assert_eq!(*fresh.get_if(|known| *known != 1, async { 3 }).await, 3);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_the_making_to_the_next() {
        let fresh = Fresh::default();
        let given_up = tokio::time::timeout(Duration::from_millis(1), fresh.get(std::future::pending()));
        assert!(given_up.await.is_err());
        assert_eq!(*fresh.get(async { 2 }).await, 2);
    }
}
