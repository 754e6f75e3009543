//! C9: a session can be resumed until its time is over, and not much longer.
//! Pure; called by [`super::judge`].

use super::Verdict;
use super::lives::{End, Life};
use crate::history::{Drop, Notice, What};

/// A session is gone at most so long after its time.
const LATE_MS: u64 = 35_000;

/// Judges every life. The window is exercised only where sessions can run out within the run.
#[must_use]
pub fn check(lives: &[Life<'_>], run_ms: u64) -> Verdict {
    let mut verdict = Verdict::new("C9", "no session ends before its time, none is accepted 35 s after it");
    let shortest_ms = lives.iter().flat_map(|life| &life.readies).map(|(_, opened)| opened.resume_ms).min();
    let mut overdue = 0;
    for life in lives {
        overdue += attempts_past_the_time(life);
        check_early(&mut verdict, life);
        check_late(&mut verdict, life);
    }
    verdict.not_exercised = match shortest_ms {
        None => Some("there was no session".to_owned()),
        Some(shortest_ms) if shortest_ms >= run_ms => {
            Some(format!("sessions last {shortest_ms} ms, the run {run_ms} ms: none could run out"))
        }
        Some(_) if overdue == 0 => Some("nobody came back after a session's time was over".to_owned()),
        Some(_) => None,
    };
    verdict
}

/// How often somebody came back too late.
fn attempts_past_the_time(life: &Life<'_>) -> u64 {
    let resume_ms = life.readies.first().map_or(u64::MAX, |(_, opened)| opened.resume_ms);
    let claims = life.readies.iter().filter_map(|(_, opened)| opened.claim.as_ref());
    let turned = match life.end {
        End::Turned(_, Notice::Turned { claim: Some(claim), .. }) => Some(claim),
        _ => None,
    };
    let late = claims.chain(turned).filter(|claim| claim.away_at_least_ms >= resume_ms).count();
    u64::try_from(late).unwrap_or(u64::MAX)
}

fn check_early(verdict: &mut Verdict, life: &Life<'_>) {
    let End::Turned(at, Notice::Turned { claim: Some(_), .. }) = life.end else { return };
    let early = life.ended_early();
    verdict.check(early.is_none(), life.process, life.log, &[at], || {
        let (away_ms, resume_ms) = early.map_or((0, 0), |early| (early.away_ms, early.resume_ms));
        format!("a resume was refused after {away_ms} ms of {resume_ms} ms")
    });
}

fn check_late(verdict: &mut Verdict, life: &Life<'_>) {
    for pair in life.readies.windows(2) {
        let [(before_at, before), (at, opened)] = pair else { continue };
        let Some(claim) = &opened.claim else { continue };
        // Under a new epoch the record was loaded anew, and its sessions got their full time again.
        if before.stamp.0 != opened.stamp.0 {
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
