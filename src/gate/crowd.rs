//! Connections that are not logged in yet: so many at a time, each for so long. Called by `listener` and `handshake`.
//! While somebody waits outside, whoever has had a fair share of the time makes room: silent ones keep nobody out, nor
//! do those who wait for the store or for the last word to be heard. They stand elsewhere, as many of each as here.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until};

use crate::tasks::Tasks;

/// Whoever waits outside asks again this often.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// The share of its time that a connection has however many wait: one in this many.
const FAIR_SHARE: u32 = 5;

/// The places, and where one goes from there.
pub(super) struct Crowd {
    rooms: Arc<Rooms>,
    timeout: Duration,
}

struct Rooms {
    places: Arc<Semaphore>,
    logins: Arc<Semaphore>,
    resumes: Arc<Semaphore>,
    goodbyes: Arc<Semaphore>,
    make_room: Notify,
    /// Once these are asked to stop, nobody waits for anybody any more.
    door: Tasks,
}

impl Crowd {
    pub(super) fn new(places: usize, timeout: Duration, door: Tasks) -> Self {
        let room = || Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        let (places, logins, resumes, goodbyes) = (room(), room(), room(), room());
        Self {
            rooms: Arc::new(Rooms { places, logins, resumes, goodbyes, make_room: Notify::new(), door }),
            timeout,
        }
    }

    /// Waits for a place. Those who cannot wait stay in the system's queue.
    pub(super) async fn place(&self) -> Place {
        loop {
            tokio::select! {
                biased;
                place = Arc::clone(&self.rooms.places).acquire_owned() => match place {
                    Ok(place) => {
                        // Whoever was asked and has not heard it yet need not go any more.
                        let _ = self.rooms.make_room.notified().now_or_never();
                        return Place { place, rooms: Arc::clone(&self.rooms), timeout: self.timeout };
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
        self.rooms.make_room.notify_one();
        sleep(ASK_AGAIN).await;
    }
}

/// A place that nobody stands on yet.
pub(super) struct Place {
    place: OwnedSemaphorePermit,
    rooms: Arc<Rooms>,
    timeout: Duration,
}

impl Place {
    /// Somebody takes it: his time begins.
    pub(super) fn taken(self) -> Patience {
        let now = Instant::now();
        Patience {
            fair: now + self.timeout / FAIR_SHARE,
            end: now + self.timeout,
            rooms: self.rooms,
            place: self.place,
        }
    }
}

/// How long one connection may take until it asks to be let in, and where it stands.
pub(super) struct Patience {
    fair: Instant,
    end: Instant,
    rooms: Arc<Rooms>,
    place: OwnedSemaphorePermit,
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

    /// Resolves when the time is up, or somebody needs the place after a fair share of it, or the server goes away.
    pub(super) async fn over(&self) {
        let needed = async {
            sleep_until(self.fair).await;
            self.rooms.make_room.notified().await;
        };
        tokio::select! {
            () = needed => {}
            () = sleep_until(self.end) => {}
            () = self.rooms.door.stopping() => {}
        }
    }

    /// Whether it is over because the server goes away.
    pub(super) fn is_cut_short(&self) -> bool {
        self.rooms.door.is_stopping()
    }

    /// A login that may wait for the store gives its place to the next; `false` if as many as may do so wait already.
    pub(super) fn logs_in(&mut self) -> bool {
        self.moves(Arc::clone(&self.rooms.logins))
    }

    /// The same for a resume, which keeps its place if too many wait: logins are not what keeps resumes out.
    pub(super) fn resumes(&mut self) {
        self.moves(Arc::clone(&self.rooms.resumes));
    }

    /// Whoever was not let in may try again, if there is a place within what is left of the time.
    pub(super) async fn comes_back(&mut self) -> bool {
        if Arc::ptr_eq(self.place.semaphore(), &self.rooms.places) {
            return true;
        }
        match self.within(Arc::clone(&self.rooms.places).acquire_owned()).await {
            Some(Ok(place)) => {
                self.place = place;
                true
            }
            Some(Err(_)) | None => false,
        }
    }

    /// Gives the place to the next, then says goodbye. If too many do so already, nobody waits for it to be heard.
    pub(super) async fn leaves(&mut self, goodbye: impl Future<Output = ()>) {
        if self.moves(Arc::clone(&self.rooms.goodbyes)) {
            goodbye.await;
        } else {
            let _ = goodbye.now_or_never();
        }
    }

    fn moves(&mut self, to: Arc<Semaphore>) -> bool {
        let room = to.try_acquire_owned();
        let has_room = room.is_ok();
        if let Ok(room) = room {
            self.place = room;
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    async fn silence(patience: &Patience) -> Duration {
        let began = Instant::now();
        assert_eq!(patience.within(std::future::pending::<()>()).await, None);
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn alone_one_has_all_the_time() {
        let crowd = Crowd::new(2, TIMEOUT, Tasks::new());
        assert_eq!(silence(&crowd.place().await.taken()).await, TIMEOUT);
        assert_eq!(crowd.place().await.taken().within(async { 7 }).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_when_the_server_goes_away() {
        let door = Tasks::new();
        let patience = Crowd::new(2, TIMEOUT, door.clone()).place().await.taken();
        assert!(!patience.is_cut_short());
        let stop = async {
            sleep(Duration::from_millis(10)).await;
            door.stop(TIMEOUT).await;
        };
        let (silent_for, _) = tokio::join!(silence(&patience), stop);
        assert!(silent_for < Duration::from_millis(20) && patience.is_cut_short(), "{silent_for:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_outside_gets_the_place_of_the_longest_silent() {
        let crowd = Crowd::new(2, TIMEOUT, Tasks::new());
        let after = |ms| sleep(Duration::from_millis(ms));
        let first = async { silence(&crowd.place().await.taken()).await };
        let second = async {
            after(100).await;
            silence(&crowd.place().await.taken()).await
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
        let crowd = Crowd::new(1, TIMEOUT, Tasks::new());
        let first = crowd.place().await.taken();
        let leaves = async move { first.within(sleep(Duration::from_millis(500))).await };
        let (_, second) = tokio::join!(leaves, crowd.place());
        assert_eq!(silence(&second.taken()).await, TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_done_within_the_fair_share_is_not_disturbed() {
        let crowd = Crowd::new(1, TIMEOUT, Tasks::new());
        let patience = crowd.place().await.taken();
        let busy = async move { patience.within(sleep(Duration::from_millis(900))).await };
        assert_eq!(tokio::join!(busy, crowd.place()).0, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_goodbyes() {
        let crowd = Crowd::new(2, TIMEOUT, Tasks::new());
        let began = Instant::now();
        let lives = (0..10).map(async |_| {
            let mut patience = crowd.place().await.taken();
            let came_in = began.elapsed();
            patience.within(std::future::pending::<()>()).await;
            let asked_to_go = Instant::now();
            patience.leaves(sleep(Duration::from_secs(60))).await;
            (came_in, asked_to_go.elapsed() >= Duration::from_secs(60))
        });
        let lives = futures_util::future::join_all(lives).await;
        // Four times two made room, each after a fair share of a second.
        let last = lives.iter().map(|(came_in, _)| *came_in).max();
        assert!(last < Some(Duration::from_millis(4_500)), "{lives:?}");
        assert_eq!(
            lives.iter().filter(|(_, was_heard_out)| *was_heard_out).count(),
            2,
            "the others go at once"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_the_store_keep_nobody_out() {
        let crowd = Crowd::new(1, TIMEOUT, Tasks::new());
        let mut login = crowd.place().await.taken();
        assert!(login.logs_in());
        let mut another = crowd.place().await.taken();
        assert!(!another.logs_in(), "one may wait at a time");
        another.resumes();
        let mut more = crowd.place().await.taken();
        more.resumes();
        // Whoever found no room kept the place.
        let waited = tokio::time::timeout(Duration::from_millis(900), crowd.place()).await;
        assert!(waited.is_err());
        drop(more);
        let place = crowd.place().await;
        // A place is needed for another try.
        let (came_back, ()) = tokio::join!(login.comes_back(), async {
            sleep(Duration::from_millis(50)).await;
            drop(place);
        });
        assert!(came_back);
        let _one = another;
        assert!(crowd.place().now_or_never().is_none(), "it stands there again");
    }
}
