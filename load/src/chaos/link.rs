//! A link that leads over a proxy of ours, and the ways in which it is carried badly.

use std::time::Duration;

use super::fault::FaultError;
use super::options::Road;
use crate::proxy::{Proxy, Weather};

/// How long a name may take to become an address.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// A way to carry a link badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weathers {
    Silent,
    SilentUp,
    SilentDown,
    Slow,
    Sliced,
    Reset,
}

/// All of them.
pub(super) const ALL: [Weathers; 6] = [
    Weathers::Silent,
    Weathers::SilentUp,
    Weathers::SilentDown,
    Weathers::Slow,
    Weathers::Sliced,
    Weathers::Reset,
];

impl Weathers {
    /// What is said of it.
    pub(super) const fn says(self) -> &'static str {
        match self {
            Self::Silent => "carries nothing",
            Self::SilentUp => "carries nothing to the server",
            Self::SilentDown => "carries nothing from the server",
            Self::Slow => "takes 40 to 80 ms each way",
            Self::Sliced => "carries 7 bytes at a time",
            Self::Reset => "is reset",
        }
    }
}

/// A running proxy.
#[derive(Debug)]
pub(super) struct Link {
    proxy: Proxy,
}

impl Link {
    /// Makes the proxy.
    pub(super) async fn over(road: &Road, seed: u64) -> Result<Self, FaultError> {
        let Road { name, listen, upstream } = road;
        let unable = |what: &str| FaultError::Link { name: name.clone(), what: what.to_owned() };
        let looked_up = tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host(upstream)).await;
        let target = looked_up.ok().and_then(Result::ok).and_then(|mut addresses| addresses.next());
        let target = target.ok_or_else(|| unable(&format!("{upstream} is no address")))?;
        let proxy = Proxy::on(listen, target, seed).await;
        let proxy = proxy.map_err(|error| unable(&format!("{listen} cannot be listened at: {error}")))?;
        Ok(Self { proxy })
    }

    /// Breaks it.
    pub(super) fn turn(&self, way: Weathers) {
        let ms = Duration::from_millis;
        match way {
            Weathers::Silent => self.proxy.turn(Weather::blackhole()),
            Weathers::SilentUp => self.proxy.turn(Weather { holds_up: true, ..Weather::default() }),
            Weathers::SilentDown => self.proxy.turn(Weather { holds_down: true, ..Weather::default() }),
            Weathers::Slow => {
                self.proxy.turn(Weather { delay: ms(40), jitter: ms(40), ..Weather::default() });
            }
            Weathers::Sliced => self.proxy.turn(Weather { slice_bytes: 7, ..Weather::default() }),
            Weathers::Reset => self.proxy.reset(1.0),
        }
    }

    /// Mends it.
    pub(super) fn heal(&self) {
        self.proxy.heal();
    }

    /// What a way has hindered so far: chunks, resets, or bytes where nothing else tells.
    pub(super) fn hindered(&self, way: Weathers) -> u64 {
        let carried = self.proxy.carried();
        match way {
            Weathers::Reset => carried.resets,
            Weathers::Sliced => carried.bytes,
            _ => carried.hindered,
        }
    }
}
