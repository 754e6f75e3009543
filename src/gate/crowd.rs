//! Connections that are not logged in yet: so many at a time, each for so long. Called by `listener` and `handshake`.
//! While somebody waits outside, whoever has had a fair share of the time makes room: silent ones keep nobody out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until};

/// Whoever waits outside asks again this often.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// The share of its time that a connection has however many wait: one in this many.
const FAIR_SHARE: u32 = 5;

/// The places.
#[derive(Debug)]
pub(super) struct Crowd {
    places: Arc<Semaphore>,
    make_room: Arc<Notify>,
    timeout: Duration,
}

impl Crowd {
    pub(super) fn new(places: usize, timeout: Duration) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self { places, make_room: Arc::default(), timeout }
    }

    /// Waits for a place. Those who cannot wait stay in the system's queue.
    pub(super) async fn place(&self) -> Place {
        loop {
            tokio::select! {
                biased;
                place = Arc::clone(&self.places).acquire_owned() => match place {
                    Ok(place) => {
                        // Whoever was asked and has not heard it yet need not go any more.
                        let _ = self.make_room.notified().now_or_never();
                        let make_room = Arc::clone(&self.make_room);
                        return Place { place, make_room, timeout: self.timeout };
                    }
                    // Nobody closes it.
                    Err(_) => std::future::pending().await,
                },
                () = self.ask_for_room() => {}
            }
        }
    }

    /// Asks the one who has waited longest, and gives him a moment to go.
    async fn ask_for_room(&self) {
        self.make_room.notify_one();
        sleep(ASK_AGAIN).await;
    }
}

/// A place that nobody stands on yet.
#[derive(Debug)]
pub(super) struct Place {
    place: OwnedSemaphorePermit,
    make_room: Arc<Notify>,
    timeout: Duration,
}

impl Place {
    /// Somebody takes it: his time begins.
    pub(super) fn taken(self) -> Patience {
        let now = Instant::now();
        Patience {
            fair: now + self.timeout / FAIR_SHARE,
            end: now + self.timeout,
            make_room: self.make_room,
            _place: self.place,
        }
    }
}

/// How long one connection may take until it is logged in, and its place.
#[derive(Debug)]
pub(super) struct Patience {
    fair: Instant,
    end: Instant,
    make_room: Arc<Notify>,
    _place: OwnedSemaphorePermit,
}

impl Patience {
    /// What the work comes to; `None` if patience ran out first.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.over() => None,
        }
    }

    /// Resolves when the time is up, or somebody needs the place after a fair share of it.
    pub(super) async fn over(&self) {
        sleep_until(self.fair).await;
        tokio::select! {
            () = self.make_room.notified() => {}
            () = sleep_until(self.end) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    async fn silence(patience: Patience) -> Duration {
        let began = Instant::now();
        assert_eq!(patience.within(std::future::pending::<()>()).await, None);
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn alone_one_has_all_the_time() {
        let crowd = Crowd::new(2, TIMEOUT);
        assert_eq!(silence(crowd.place().await.taken()).await, TIMEOUT);
        assert_eq!(crowd.place().await.taken().within(async { 7 }).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_outside_gets_the_place_of_the_longest_silent() {
        let crowd = Crowd::new(2, TIMEOUT);
        let after = |ms| sleep(Duration::from_millis(ms));
        let first = async { silence(crowd.place().await.taken()).await };
        let second = async {
            after(100).await;
            silence(crowd.place().await.taken()).await
        };
        let third = async {
            after(200).await;
            let began = Instant::now();
            crowd.place().await;
            began.elapsed()
        };
        let (first, second, waited) = tokio::join!(first, second, third);
        assert!(first >= Duration::from_secs(1) && first < Duration::from_millis(1_050), "{first:?}");
        assert!(waited < Duration::from_millis(850), "{waited:?}");
        assert!(second >= Duration::from_secs(1), "{second:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_asked_in_vain_keeps_all_the_time() {
        let crowd = Crowd::new(1, TIMEOUT);
        let first = crowd.place().await.taken();
        let leaves = async move { first.within(sleep(Duration::from_millis(500))).await };
        let (_, second) = tokio::join!(leaves, crowd.place());
        assert_eq!(silence(second.taken()).await, TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_done_within_the_fair_share_is_not_disturbed() {
        let crowd = Crowd::new(1, TIMEOUT);
        let patience = crowd.place().await.taken();
        let busy = async move { patience.within(sleep(Duration::from_millis(900))).await };
        assert_eq!(tokio::join!(busy, crowd.place()).0, Some(()));
    }
}
