//! C9: a session can be resumed until its time is over, and not much longer.
//! Pure; called by [`super::judge`].

use protocol::ErrorCode;

use super::Verdict;
use super::lives::{End, Life};
use crate::history::{Drop, Notice, What};

/// A session is gone at most so long after its time.
const LATE_MS: u64 = 35_000;

/// Judges every life. The window is exercised only where sessions can run out within the run.
#[must_use]
pub fn check(lives: &[Life<'_>], run_ms: u64) -> Verdict {
    let mut verdict = Verdict::new("C9", "no session ends before its time, none is accepted 35 s after it");
    let mut shortest_ms = u64::MAX;
    for life in lives {
        for (_, opened) in &life.readies {
            shortest_ms = shortest_ms.min(opened.resume_ms);
        }
        check_early(&mut verdict, life);
        check_late(&mut verdict, life);
    }
    if shortest_ms >= run_ms {
        verdict.not_exercised =
            Some(format!("sessions last {shortest_ms} ms, the run {run_ms} ms: none could run out"));
    }
    verdict
}

fn check_early(verdict: &mut Verdict, life: &Life<'_>) {
    let End::Turned(at, Notice::Turned { code, claim: Some(claim) }) = life.end else { return };
    let resume_ms = life.readies.last().map_or(0, |(_, opened)| opened.resume_ms);
    let early = *code == ErrorCode::NotResumable && claim.away_ms < resume_ms;
    verdict.check(!early, life.process, life.log, &[at], || {
        format!("a resume was refused after {} ms of {resume_ms} ms", claim.away_ms)
    });
}

fn check_late(verdict: &mut Verdict, life: &Life<'_>) {
    for pair in life.readies.windows(2) {
        let [(before_at, before), (at, opened)] = pair else { continue };
        let Some(claim) = &opened.claim else { continue };
        // A node that started anew gives every session its full time again.
        if before.node != opened.node {
            continue;
        }
        let looked_alive = life.log.get(*before_at..*at).unwrap_or(&[]).iter().any(|entry| {
            matches!(
                &entry.what,
                What::Notice { notice: Notice::Down { on_purpose: Some(Drop::Abandon), .. } }
            )
        });
        let alive_ms = if looked_alive { 2 * before.heartbeat_ms } else { 0 };
        let most_ms = before.resume_ms + alive_ms + LATE_MS;
        verdict.check(claim.away_at_least_ms <= most_ms, life.process, life.log, &[*at], || {
            format!("a resume was accepted after {} ms of {} ms", claim.away_at_least_ms, before.resume_ms)
        });
    }
}
