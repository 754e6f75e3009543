//! C1: the four guarantees of a session, between two notices of a rollback. Judged on stamps and on the counter.
//! Pure; called by [`super::judge`].

use protocol::Stamp;

use super::Verdict;
use super::lives::Life;

/// One answer, as far as order is concerned.
struct Answer {
    invoked: usize,
    answered: usize,
    segment: usize,
    stamp: Stamp,
    counter: Option<i64>,
    /// A change that this answer carried out, so that the record moved on.
    moves: bool,
    name: &'static str,
}

/// Judges every life.
#[must_use]
pub fn check(lives: &[Life<'_>]) -> Verdict {
    let mut verdict =
        Verdict::new("C1", "read your writes, monotonic reads, monotonic writes, writes follow reads");
    for life in lives {
        let answers = answers(life);
        for segment in 0..life.segments.len() {
            let of_segment: Vec<&Answer> = answers.iter().filter(|a| a.segment == segment).collect();
            check_order(&mut verdict, life, &of_segment);
            check_writes(&mut verdict, life, segment);
        }
    }
    verdict
}

/// All answers with a stamp, by position.
fn answers(life: &Life<'_>) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    for change in &life.changes {
        let Some(stamp) = change.stamp else { continue };
        answers.push(Answer {
            invoked: change.invoked,
            answered: change.answered,
            segment: change.segment,
            stamp,
            counter: change.counter,
            moves: !change.dup,
            name: if change.is_write { "a write" } else { "a change of presence" },
        });
    }
    for read in &life.reads {
        answers.push(Answer {
            invoked: read.invoked,
            answered: read.answered,
            segment: read.segment,
            stamp: read.stamp,
            counter: Some(read.counter),
            moves: false,
            name: "a read",
        });
    }
    for (at, opened) in &life.readies {
        // A `ready` speaks for the segment that it begins.
        let segment = life.segments.iter().rposition(|segment| segment.start <= *at).unwrap_or(0);
        answers.push(Answer {
            invoked: *at,
            answered: *at,
            segment,
            stamp: opened.stamp,
            counter: None,
            moves: false,
            name: "ready",
        });
    }
    answers.sort_by_key(|answer| answer.answered);
    answers
}

/// Whoever asks after an answer sees at least what that answer saw: a read your own writes and earlier reads, a write
/// something above them.
fn check_order(verdict: &mut Verdict, life: &Life<'_>, answers: &[&Answer]) {
    let mut by_invocation: Vec<&&Answer> = answers.iter().collect();
    by_invocation.sort_by_key(|answer| answer.invoked);
    let mut heard = answers.iter().peekable();
    let mut latest: Option<&Answer> = None;
    let mut most: Option<&Answer> = None;
    for answer in by_invocation {
        while let Some(before) = heard.next_if(|before| before.answered < answer.invoked) {
            if latest.is_none_or(|latest| latest.stamp < before.stamp) {
                latest = Some(before);
            }
            if before.counter.is_some() && most.is_none_or(|most| most.counter < before.counter) {
                most = Some(before);
            }
        }
        if let Some(latest) = latest {
            let holds = if answer.moves { answer.stamp > latest.stamp } else { answer.stamp >= latest.stamp };
            verdict.check(
                holds,
                life.process,
                life.log,
                &[latest.answered, answer.invoked, answer.answered],
                || {
                    format!(
                        "{} at {:?} was asked after {} had been answered at {:?}",
                        answer.name, answer.stamp, latest.name, latest.stamp
                    )
                },
            );
        }
        if let (Some(most), Some(counter)) = (most, answer.counter) {
            verdict.check(
                Some(counter) >= most.counter,
                life.process,
                life.log,
                &[most.answered, answer.invoked, answer.answered],
                || {
                    format!(
                        "{} saw the counter at {counter}, after {} had seen {:?}",
                        answer.name, most.name, most.counter
                    )
                },
            );
        }
    }
}

/// Changes take effect in the order of their numbers, which is the order in which they were asked.
fn check_writes(verdict: &mut Verdict, life: &Life<'_>, segment: usize) {
    let mut fresh: Vec<_> = life
        .changes
        .iter()
        .filter(|change| change.segment == segment && change.birth == segment && !change.dup)
        .filter(|change| change.stamp.is_some())
        .collect();
    fresh.sort_by_key(|change| change.cseq);
    for pair in fresh.windows(2) {
        let [first, second] = pair else { continue };
        let holds = first.stamp < second.stamp && first.invoked < second.invoked;
        verdict.check(holds, life.process, life.log, &[first.answered, second.answered], || {
            format!(
                "change {} stands at {:?}, change {} at {:?}",
                first.cseq, first.stamp, second.cseq, second.stamp
            )
        });
    }
}
