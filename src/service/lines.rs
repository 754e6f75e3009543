//! Who waits for which lock at this node: one line a lock, first come, first served. Only the first of a line asks the
//! store, less and less often, and at once when somebody here gives the lock back: so many who wait cost the store no more
//! than one. Called by `locks`. Knows no store: how to ask is the caller's.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::home::{LockAcquired, LockToken};
use crate::ids::KeyName;
use crate::telemetry::metrics::{LOCK_LOOKS, LOCK_WAITERS};

/// Between two looks of one who waits: doubled from the first to the last, unless the lock changes hands.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How many may wait at a node.
#[derive(Debug, Clone, Copy)]
pub struct LineBounds {
    /// For all locks together.
    pub waiters_max: usize,
    /// For one.
    pub lock_waiters_max: usize,
}

/// More wait than may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Asks the store for a lock, for one who waits.
pub(super) trait Ask {
    /// What ends the wait.
    type Error;
    /// Asks once.
    fn ask(&mut self) -> impl Future<Output = Result<LockAcquired, Self::Error>> + Send;
}

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// The lock is the caller's.
    Acquired(LockToken),
    /// It was somebody else's to the end; for about so long still.
    Held(Duration),
    /// Nobody here has heard whose it is.
    Unknown,
}

/// All lines of a node.
pub(super) struct Lines {
    bounds: LineBounds,
    crowd: Mutex<Crowd>,
    /// The node stops: nobody waits any more.
    closing: CancellationToken,
    waiters: Gauge,
    looks: Counter,
}

#[derive(Default)]
struct Crowd {
    waiting: usize,
    lines: HashMap<KeyName, Arc<Line>, ahash::RandomState>,
}

/// Those who wait for one lock.
struct Line {
    /// Held by whoever is first, and handed on in the order in which they came.
    turn: tokio::sync::Mutex<Pace>,
    /// Somebody here has given the lock back.
    freed: Notify,
    /// Until when it was held, as last heard; `None` where the store has not said.
    held_until: Mutex<Option<Instant>>,
    /// How many: changed under the crowd's lock alone.
    waiting: Mutex<usize>,
}

/// When the first of a line asks, whoever that is: the next one goes on where the one before was.
struct Pace {
    look_at: Instant,
    pause: Duration,
}

impl Lines {
    pub(super) fn new(bounds: LineBounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            crowd: Mutex::default(),
            closing: CancellationToken::new(),
            waiters: LOCK_WAITERS.handle(),
            looks: LOCK_LOOKS.handle(),
        })
    }

    /// Takes a place at the end of a lock's line; it is given back when the value is dropped.
    pub(super) fn enter(self: &Arc<Self>, name: &KeyName) -> Result<Place, Full> {
        let mut crowd = self.crowd.lock();
        if crowd.waiting >= self.bounds.waiters_max || self.bounds.lock_waiters_max == 0 {
            return Err(Full);
        }
        let line = Arc::clone(crowd.lines.entry(name.clone()).or_insert_with(|| Arc::new(Line::new())));
        {
            let mut waiting = line.waiting.lock();
            if *waiting >= self.bounds.lock_waiters_max {
                return Err(Full);
            }
            *waiting += 1;
        }
        crowd.waiting += 1;
        self.waiters.increment(1.0);
        drop(crowd);
        Ok(Place { lines: Arc::clone(self), name: name.clone(), line })
    }

    /// A lock was given back here: the first of its line asks at once.
    pub(super) fn freed(&self, name: &KeyName) {
        let line = self.crowd.lock().lines.get(name).cloned();
        if let Some(line) = line {
            line.freed.notify_one();
        }
    }

    /// How many wait for this lock.
    #[cfg(test)]
    pub(super) fn waiting_for(&self, name: &KeyName) -> usize {
        self.crowd.lock().lines.get(name).map_or(0, |line| *line.waiting.lock())
    }

    /// Ends all waiting, now and from now on.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }
}

impl Line {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            turn: tokio::sync::Mutex::new(Pace { look_at: now, pause: LOOK_EVERY.0 }),
            freed: Notify::new(),
            held_until: Mutex::new(None),
            waiting: Mutex::new(0),
        }
    }

    fn not_acquired(&self) -> Waited {
        let held_until = *self.held_until.lock();
        held_until
            .map_or(Waited::Unknown, |until| Waited::Held(until.saturating_duration_since(Instant::now())))
    }
}

/// A place in a line.
pub(super) struct Place {
    lines: Arc<Lines>,
    name: KeyName,
    line: Arc<Line>,
}

impl Place {
    /// Waits until the lock is the caller's, at most until `deadline`; an error of the asker's ends it. Dropped, it lets the
    /// next one come to the front.
    pub(super) async fn wait<A: Ask>(&self, deadline: Instant, asker: &mut A) -> Result<Waited, A::Error> {
        let line = &*self.line;
        let first = async { timeout_at(deadline, line.turn.lock()).await.ok() };
        let mut pace = tokio::select! {
            biased;
            () = self.lines.closing.cancelled() => return Ok(line.not_acquired()),
            first = first => match first {
                Some(pace) => pace,
                None => return Ok(line.not_acquired()),
            },
        };
        loop {
            tokio::select! {
                biased;
                () = self.lines.closing.cancelled() => return Ok(line.not_acquired()),
                () = line.freed.notified() => {}
                () = sleep_until(pace.look_at.min(deadline)) => {
                    if pace.look_at > deadline {
                        return Ok(line.not_acquired());
                    }
                }
            }
            self.lines.looks.increment(1);
            let asked_at = Instant::now();
            let answer = asker.ask().await.inspect_err(|_| *line.held_until.lock() = None)?;
            match answer {
                LockAcquired::Acquired(token) => {
                    // Whoever is next has seen it change hands.
                    *line.held_until.lock() = Some(asked_at);
                    *pace = Pace { look_at: asked_at + jittered(LOOK_EVERY.0), pause: LOOK_EVERY.0 };
                    return Ok(Waited::Acquired(token));
                }
                LockAcquired::Held { remaining } => {
                    *line.held_until.lock() = Some(asked_at + remaining);
                    // Its end is known, if it is not renewed: just behind it is a good time, too.
                    let ends_in = remaining + Duration::from_millis(1);
                    pace.look_at = asked_at + jittered(pace.pause).min(ends_in);
                    pace.pause = (pace.pause * 2).min(LOOK_EVERY.1);
                    if Instant::now() >= deadline {
                        return Ok(line.not_acquired());
                    }
                }
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut crowd = self.lines.crowd.lock();
        crowd.waiting -= 1;
        self.lines.waiters.decrement(1.0);
        let mut waiting = self.line.waiting.lock();
        *waiting -= 1;
        if *waiting == 0 {
            crowd.lines.remove(&self.name);
        }
    }
}

/// From half of it to all of it, so that nodes do not ask in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::convert::Infallible;

    use futures_util::future::join_all;
    use futures_util::poll;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn name(text: &str) -> KeyName {
        KeyName::parse(text).unwrap()
    }

    fn lines(waiters_max: usize, lock_waiters_max: usize) -> Arc<Lines> {
        Lines::new(LineBounds { waiters_max, lock_waiters_max })
    }

    fn held(ms: u64) -> LockAcquired {
        LockAcquired::Held { remaining: Duration::from_millis(ms) }
    }

    /// A store that answers at once.
    struct Answers<F>(F);

    impl<F: FnMut() -> LockAcquired> Ask for Answers<F> {
        type Error = Infallible;

        fn ask(&mut self) -> impl Future<Output = Result<LockAcquired, Infallible>> + Send {
            std::future::ready(Ok((self.0)()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_who_wait_cost_the_store_as_much_as_one() {
        let lines = lines(1_000, 1_000);
        let (looks, began) = (Cell::new(0_u32), Instant::now());
        let waits = (0..100).map(|_| {
            let place = lines.enter(&name("shop")).unwrap();
            let looks = &looks;
            async move {
                let mut asker = Answers(|| {
                    looks.set(looks.get() + 1);
                    held(600_000)
                });
                place.wait(began + MINUTE, &mut asker).await.unwrap()
            }
        });
        let ended = join_all(waits).await;
        assert!(
            ended.iter().all(|waited| matches!(waited, Waited::Held(left) if *left > MINUTE)),
            "{ended:?}"
        );
        assert_eq!(began.elapsed().as_secs(), 60);
        // One look each quarter to half a second, and a few quick ones at first.
        assert!((118..=250).contains(&looks.get()), "{}", looks.get());
        assert!(lines.crowd.lock().lines.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn they_come_to_the_front_in_the_order_in_which_they_came_and_at_once_when_it_is_given_back() {
        let lines = lines(100, 100);
        let (is_free, order) = (Cell::new(true), RefCell::new(Vec::new()));
        let began = Instant::now();
        let waits = (0..20_u64).map(|number| {
            let place = lines.enter(&name("shop")).unwrap();
            let (lines, is_free, order) = (&lines, &is_free, &order);
            async move {
                let mut asker = Answers(|| match is_free.replace(false) {
                    true => LockAcquired::Acquired(LockToken::of(number)),
                    false => held(600_000),
                });
                let waited = place.wait(began + MINUTE, &mut asker).await.unwrap();
                assert_eq!(waited, Waited::Acquired(LockToken::of(number)));
                drop(place);
                order.borrow_mut().push(number);
                // Held for a while, and given back.
                tokio::time::sleep(Duration::from_millis(300)).await;
                is_free.set(true);
                lines.freed(&name("shop"));
            }
        });
        join_all(waits).await;
        assert_eq!(*order.borrow(), (0..20).collect::<Vec<_>>());
        assert_eq!(began.elapsed().as_millis(), 20 * 300, "nobody waited for a look");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_lock_that_nobody_renews_is_met() {
        let lines = lines(1, 1);
        let place = lines.enter(&name("shop")).unwrap();
        let began = Instant::now();
        let mut asker = Answers(|| match Duration::from_millis(1_350).saturating_sub(began.elapsed()) {
            Duration::ZERO => LockAcquired::Acquired(LockToken::of(1)),
            remaining => LockAcquired::Held { remaining },
        });
        let waited = place.wait(began + MINUTE, &mut asker).await.unwrap();
        assert_eq!(waited, Waited::Acquired(LockToken::of(1)));
        assert!((1_350..=1_352).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_lets_the_next_one_come_to_the_front() {
        let lines = lines(2, 2);
        let (first, second) = (lines.enter(&name("shop")).unwrap(), lines.enter(&name("shop")).unwrap());
        let deadline = Instant::now() + MINUTE;
        let mut in_vain = Answers(|| held(600_000));
        let mut waits = Box::pin(first.wait(deadline, &mut in_vain));
        assert!(poll!(&mut waits).is_pending());
        let mut at_once = Answers(|| LockAcquired::Acquired(LockToken::of(2)));
        let mut next = Box::pin(second.wait(deadline, &mut at_once));
        assert!(poll!(&mut next).is_pending());
        drop(waits);
        drop(first);
        assert_eq!(next.await.unwrap(), Waited::Acquired(LockToken::of(2)));
    }

    /// A store that does not answer.
    struct Hangs;

    impl Ask for Hangs {
        type Error = Infallible;

        fn ask(&mut self) -> impl Future<Output = Result<LockAcquired, Infallible>> + Send {
            std::future::pending()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_behind_one_who_is_not_answered_does_not_guess() {
        let lines = lines(3, 3);
        let places = [(); 3].map(|()| lines.enter(&name("shop")).unwrap());
        let deadline = Instant::now() + MINUTE;
        let mut hangs = Hangs;
        let mut first = Box::pin(places[0].wait(deadline, &mut hangs));
        assert!(poll!(&mut first).is_pending());
        let mut at_once = Answers(|| held(600_000));
        assert_eq!(places[1].wait(deadline, &mut at_once).await, Ok(Waited::Unknown));
        drop(first);
        // Nobody is before her any more; her last look comes late, and ends the wait.
        let mut late = Answers(|| held(600_000));
        let soon = Instant::now() + LOOK_EVERY.0;
        let ended = places[2].wait(soon, &mut late).await;
        assert!(matches!(ended, Ok(Waited::Held(_))), "{ended:?}");
    }

    #[test]
    fn no_more_wait_than_may_for_one_lock_and_in_all() {
        let lines = lines(3, 2);
        let places = [lines.enter(&name("a")).unwrap(), lines.enter(&name("a")).unwrap()];
        assert_eq!(lines.enter(&name("a")).err(), Some(Full));
        let other = lines.enter(&name("b")).unwrap();
        assert_eq!(lines.enter(&name("c")).err(), Some(Full));
        drop(places);
        assert!(lines.enter(&name("a")).is_ok());
        drop(other);
        let crowd = lines.crowd.lock();
        assert_eq!((crowd.waiting, crowd.lines.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_at_a_node_that_stops() {
        let lines = lines(2, 2);
        let places = [lines.enter(&name("a")).unwrap(), lines.enter(&name("a")).unwrap()];
        let deadline = Instant::now() + MINUTE;
        let wait = |place| async move { Place::wait(place, deadline, &mut Answers(|| held(600_000))).await };
        let mut waits: Vec<_> = places.iter().map(|place| Box::pin(wait(place))).collect();
        for wait in &mut waits {
            assert!(poll!(wait).is_pending());
        }
        lines.close();
        for ended in join_all(waits).await {
            assert!(matches!(ended, Ok(Waited::Held(_))), "{ended:?}");
        }
        assert_eq!(Instant::now(), deadline - MINUTE);
    }
}
