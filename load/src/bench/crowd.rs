//! Links that do one thing after the other, all of them: open, log in, say this, say that. How benches bring a server
//! into the state that they measure. Every answer is checked.

use std::ops::Range;
use std::time::{Duration, Instant};

use protocol::reply::Ready;

use super::BenchError;
use super::frames::Frame;
use super::swarm::{Heard, Swarm};
use super::words::{self, Answer};

/// Requests without an answer at a time: enough to keep a server busy, few enough to keep it calm.
const UNDER_WAY_MAX: usize = 256;
/// Links that are opened before they log in.
const ENTERING_MAX: usize = 500;
/// How long one step of a crowd may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The name of a player.
#[must_use]
pub fn player(number: usize) -> String {
    format!("bench-player-{number:06}")
}

/// Opens so many more links and logs a player in on each; their `ready`s, in order.
///
/// # Errors
/// A link does not open, or a login is refused.
pub fn enter(swarm: &mut Swarm, count: usize) -> Result<Vec<Ready>, BenchError> {
    enter_as(swarm, count, player)
}

/// The same under other names, by the number of the link.
///
/// # Errors
/// As [`enter`].
pub fn enter_as(
    swarm: &mut Swarm,
    count: usize,
    name: impl Fn(usize) -> String,
) -> Result<Vec<Ready>, BenchError> {
    let (first, mut readies) = (swarm.len(), vec![Ready::default(); count]);
    // A link that does not log in soon is closed.
    while swarm.len() < first + count {
        let from = swarm.len();
        swarm.open((first + count - from).min(ENTERING_MAX))?;
        let keep = |at: usize, frame: &Frame<'_>| {
            if let Some(place) = readies.get_mut(at - first) {
                *place = words::ready(frame)?;
            }
            Ok(())
        };
        let links = from..swarm.len();
        ask(swarm, links, |at| words::login(&name(at)), keep)?;
    }
    Ok(readies)
}

/// Says one thing on each of these links and waits until all have their answer.
///
/// # Errors
/// One is refused, or does not come.
pub fn ask(
    swarm: &mut Swarm,
    links: Range<usize>,
    mut request: impl FnMut(usize) -> Vec<u8>,
    mut answered: impl FnMut(usize, &Frame<'_>) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let until = Instant::now() + PATIENCE;
    let (mut next, mut left) = (links.start, links.len());
    while next < links.end && next < links.start + UNDER_WAY_MAX {
        swarm.write(next, &request(next))?;
        next += 1;
    }
    while left > 0 {
        let mut came = 0;
        swarm.hear(Duration::from_millis(100), |at, _, heard| {
            let Heard::Frames(frames) = heard else {
                return Err(BenchError::Void(format!("link {at} ended")));
            };
            for frame in frames {
                if let Answer::Ok(_) | Answer::Ready(_) = words::judge(&frame)? {
                    answered(at, &frame)?;
                    came += 1;
                }
            }
            Ok(())
        })?;
        left -= came;
        for _ in 0..came {
            if next < links.end {
                swarm.write(next, &request(next))?;
                next += 1;
            }
        }
        if Instant::now() > until {
            return Err(BenchError::Void(format!("{left} answers did not come in time")));
        }
    }
    Ok(())
}

/// Says the same on each of these links of an echo, and waits until all of it has come back.
///
/// # Errors
/// It does not come back.
pub fn echo(swarm: &mut Swarm, links: Range<usize>, message: &[u8]) -> Result<(), BenchError> {
    let until = Instant::now() + PATIENCE;
    let (mut next, mut left) = (links.start, links.len());
    while left > 0 {
        while next < links.end && next - links.start < links.len() - left + UNDER_WAY_MAX {
            swarm.write(next, message)?;
            next += 1;
        }
        swarm.hear(Duration::from_millis(100), |at, _, heard| match heard {
            Heard::Frames(frames) => {
                left -= frames.count();
                Ok(())
            }
            _ => Err(BenchError::Void(format!("link {at} of the floor ended"))),
        })?;
        if Instant::now() > until {
            return Err(BenchError::Void(format!("{left} echoes did not come in time")));
        }
    }
    Ok(())
}
