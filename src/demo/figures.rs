//! What the players of the demo count together, and the line that tells it every few seconds. Bots count, `demo` starts
//! the telling.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::tasks::Tasks;

/// Between two lines.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// Counted since the start.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Players on a link, now.
    pub(super) players: AtomicU64,
    /// Requests that were carried out.
    pub(super) acks: AtomicU64,
    /// Pushes heard.
    pub(super) pushes: AtomicU64,
    /// Sessions taken up again.
    pub(super) resumes: AtomicU64,
}

/// One reading.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    players: u64,
    acks: u64,
    pushes: u64,
    resumes: u64,
}

impl Figures {
    fn read(&self) -> Reading {
        let [players, acks, pushes, resumes] =
            [&self.players, &self.acks, &self.pushes, &self.resumes].map(|figure| figure.load(Relaxed));
        Reading { players, acks, pushes, resumes }
    }
}

/// Tells them until the house stops.
pub(super) async fn tell(figures: Arc<Figures>, tasks: Tasks) {
    let mut ticks = tokio::time::interval_at(Instant::now() + TELL_EVERY, TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut at) = (figures.read(), Instant::now());
    loop {
        let stops = tokio::select! {
            biased;
            () = tasks.stopping() => true,
            _ = ticks.tick() => false,
        };
        if stops {
            let _ = writeln!(std::io::stdout(), "\nall players go home");
            return;
        }
        let (now, took) = (figures.read(), at.elapsed());
        // Who closed our standard output does not want to know.
        let _ = writeln!(std::io::stdout(), "{}", line(before, now, took));
        (before, at) = (now, Instant::now());
    }
}

fn line(before: Reading, now: Reading, took: Duration) -> String {
    let took_ms = crate::clock::millis(took).max(1);
    let per_s = |now: u64, before: u64| grouped(now.saturating_sub(before).saturating_mul(1_000) / took_ms);
    format!(
        "players {:>5} · acks {:>6}/s · pushes {:>7}/s · resumes {:>6}",
        grouped(now.players),
        per_s(now.acks, before.acks),
        per_s(now.pushes, before.pushes),
        grouped(now.resumes),
    )
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_happened_in_a_second() {
        let before = Reading { players: 3, acks: 100, pushes: 1_000, resumes: 1 };
        let now = Reading { players: 1_200, acks: 400, pushes: 12_000, resumes: 3 };
        let told = line(before, now, Duration::from_secs(2));
        let words: Vec<&str> = told.split_whitespace().collect();
        assert_eq!(words.join(" "), "players 1,200 · acks 150/s · pushes 5,500/s · resumes 3");
    }

    #[test]
    fn numbers_are_grouped() {
        let of = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(of, ["0", "999", "1,000", "1,234,567"]);
    }
}
