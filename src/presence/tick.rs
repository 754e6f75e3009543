//! The end of the time for which changes gather before they are told: it begins with the first of them. `fanout` and
//! `telling` each have one.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// When what has gathered is told, if something has.
#[derive(Debug, Default)]
pub(super) struct Tick(Option<UnderWay>);

#[derive(Debug, Clone, Copy)]
struct UnderWay {
    began: Instant,
    ends: Instant,
}

impl Tick {
    /// The first change has come.
    pub(super) fn begins(&mut self, length: Duration) {
        let began = Instant::now();
        self.0 = Some(UnderWay { began, ends: began + length });
    }

    pub(super) const fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for its end; for ever, if none is under way.
    pub(super) async fn end(&self) {
        match self.0 {
            Some(tick) => sleep_until(tick.ends).await,
            None => pending().await,
        }
    }

    /// When it began, if it has ended by now; says so once.
    pub(super) fn has_ended(&mut self) -> Option<Instant> {
        self.0.take_if(|tick| tick.ends <= Instant::now()).map(|tick| tick.began)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_once_and_only_after_it_has_begun() {
        let mut tick = Tick::default();
        assert!(tick.end().now_or_never().is_none() && tick.has_ended().is_none());
        tick.begins(Duration::from_millis(50));
        assert!(tick.is_under_way() && tick.has_ended().is_none());
        let begun = Instant::now();
        tick.end().await;
        assert_eq!(begun.elapsed(), Duration::from_millis(50));
        assert_eq!(tick.has_ended(), Some(begun));
        assert!(tick.has_ended().is_none() && !tick.is_under_way());
    }
}
