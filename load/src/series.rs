//! A run over time, from its history: in steps of the same length how many answers came and how long they took, who was there,
//! what was lost. Pure; drawn by the report and written into its JSON.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::figures;
use crate::history::{Entry, History, Notice, Operation, What};

/// A picture has no more steps.
const STEPS_MAX: u64 = 120;
/// How long a step may be, ms.
const STEPS_MS: [u64; 13] =
    [250, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 3_600_000];

/// A run in steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Series {
    /// How long a step is.
    pub step_ms: u64,
    /// Latencies by kind, at the step in which each was due; without those that had to wait for a new link.
    pub latency: BTreeMap<String, Steps>,
    /// Answers a step, by kind, when they came; also those that had to wait for a link.
    pub answers: BTreeMap<String, Vec<u64>>,
    /// Refusals.
    pub refused: Vec<u64>,
    /// Pushes.
    pub pushes: Vec<u64>,
    /// Logins.
    pub logins: Vec<u64>,
    /// Sessions taken up again.
    pub resumes: Vec<u64>,
    /// Links that ended, by close code; `own` where the bot did it, `none` without a code.
    pub closes: BTreeMap<String, Vec<u64>>,
    /// Bots with a session on a link, at the end of the step.
    pub online: Vec<u64>,
}

/// Latencies of one kind, step by step; none where there was nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Steps {
    /// Half were faster.
    pub p50_ms: Vec<Option<f64>>,
    /// All but one in a hundred were.
    pub p99_ms: Vec<Option<f64>>,
    /// The slowest.
    pub max_ms: Vec<Option<f64>>,
}

/// Latencies by kind and step, µs.
#[derive(Default)]
struct Samples(BTreeMap<&'static str, Vec<Vec<u64>>>);

impl Samples {
    fn take(&mut self, kind: &'static str, steps: usize, step: usize, us: u64) {
        let of_kind = self.0.entry(kind).or_insert_with(|| vec![Vec::new(); steps]);
        if let Some(of_step) = of_kind.get_mut(step) {
            of_step.push(us);
        }
    }
}

/// Cuts a run that took so long into steps.
#[must_use]
pub fn of(history: &History, took_ms: u64) -> Series {
    let step_ms = STEPS_MS.into_iter().find(|step| took_ms / step < STEPS_MAX);
    let step_ms = step_ms.unwrap_or(STEPS_MS.last().copied().unwrap_or(1));
    let steps = usize::try_from(took_ms / step_ms).unwrap_or(0) + 1;
    let zeros = || vec![0; steps];
    let mut series = Series {
        step_ms,
        refused: zeros(),
        pushes: zeros(),
        logins: zeros(),
        resumes: zeros(),
        ..Series::default()
    };
    let step = |at_us: u64| usize::try_from(at_us / 1_000 / step_ms).unwrap_or(usize::MAX);
    let mut samples = Samples::default();
    let mut change = vec![0_i64; steps];
    for (_, log) in history.processes() {
        take_log(&mut series, &mut samples, &mut change, log, &step);
    }
    figures::delays(history, |kind, due_us, us| samples.take(kind, steps, step(due_us), us));
    let mut online = 0;
    series.online = change
        .iter()
        .map(|change| {
            online += change;
            u64::try_from(online).unwrap_or(0)
        })
        .collect();
    series.latency = samples.0.into_iter().map(|(kind, steps)| (kind.to_owned(), latency(steps))).collect();
    series
}

fn take_log(
    series: &mut Series,
    samples: &mut Samples,
    change: &mut [i64],
    log: &[Entry],
    step: &impl Fn(u64) -> usize,
) {
    let steps = change.len();
    let mut asked: HashMap<u64, (u64, &Operation, u64)> = HashMap::new();
    // As in the figures: what was asked under another value has waited for a link.
    let mut links = 0_u64;
    let mut is_there = false;
    let mut node = None;
    let add = |to: &mut [u64], at_us: u64| to.get_mut(step(at_us)).into_iter().for_each(|count| *count += 1);
    for entry in log {
        let at_us = entry.at_us;
        match &entry.what {
            What::Invoke { id, operation } => {
                asked.insert(*id, (at_us, operation, links));
            }
            What::Ok { id, .. } => {
                let Some((due_us, operation, at_links)) = asked.remove(id) else { continue };
                let kind = figures::kind(operation);
                if !series.answers.contains_key(kind) {
                    series.answers.insert(kind.to_owned(), vec![0; steps]);
                }
                series.answers.get_mut(kind).into_iter().for_each(|all| add(all, at_us));
                if at_links == links {
                    samples.take(kind, steps, step(due_us), at_us.saturating_sub(due_us));
                }
            }
            What::Fail { .. } => add(&mut series.refused, at_us),
            What::Unknown { .. } => {}
            What::Notice { notice } => {
                let was_there = is_there;
                match notice {
                    Notice::Ready(opened) => {
                        (links, is_there) = (links + 1, true);
                        for kind in figures::kinds_of_ready(opened, &mut node) {
                            samples.take(kind, steps, step(at_us), opened.took_us);
                        }
                        add(if opened.resumed { &mut series.resumes } else { &mut series.logins }, at_us);
                    }
                    Notice::Down { code, on_purpose, .. } => {
                        (links, is_there) = (links + 1, false);
                        let name = figures::end_of_link(*code, on_purpose.is_some());
                        add(series.closes.entry(name).or_insert_with(|| vec![0; steps]), at_us);
                    }
                    Notice::Ended { .. } => is_there = false,
                    Notice::Presence { .. } | Notice::Message { .. } | Notice::Heard { .. } => {
                        add(&mut series.pushes, at_us);
                    }
                    _ => {}
                }
                if let Some(change) = change.get_mut(step(at_us)) {
                    *change += i64::from(is_there) - i64::from(was_there);
                }
            }
        }
    }
}

fn latency(steps: Vec<Vec<u64>>) -> Steps {
    let mut told = Steps::default();
    for mut step in steps {
        step.sort_unstable();
        // The lower of two: no more than that share took longer.
        let ms = |percent: usize| {
            let at = (step.len() * percent).div_ceil(100).saturating_sub(1);
            #[allow(clippy::cast_precision_loss, reason = "microseconds of minutes")]
            step.get(at).map(|us| *us as f64 / 1e3)
        };
        told.p50_ms.push(ms(50));
        told.p99_ms.push(ms(99));
        told.max_ms.push(ms(100));
    }
    told
}

#[cfg(test)]
mod tests {
    use protocol::request::Ack;

    use super::*;
    use crate::history::{Opened, Value};

    fn entry(at_ms: u64, what: What) -> Entry {
        Entry { at_us: at_ms * 1_000, process: 0, session: None, what }
    }

    fn asked(id: u64, at_ms: u64) -> Entry {
        entry(at_ms, What::Invoke { id, operation: Operation::Write { k: id, ack: Ack::Applied } })
    }

    fn done(id: u64, at_ms: u64) -> Entry {
        let value = Value::None;
        entry(at_ms, What::Ok { id, cseq: None, stamp: None, ack: None, prov: false, dup: false, value })
    }

    fn ready(at_ms: u64, resumed: bool) -> Entry {
        let opened = Opened { resumed, took_us: 7_000, ..Opened::default() };
        entry(at_ms, What::Notice { notice: Notice::Ready(Box::new(opened)) })
    }

    #[test]
    fn a_latency_stands_where_it_was_due_and_an_answer_where_it_came() {
        let down = entry(
            600,
            What::Notice { notice: Notice::Down { code: Some(4003), on_purpose: None, stay_ms: 0 } },
        );
        let log = vec![
            ready(0, false),
            asked(1, 100),
            done(1, 400),
            asked(2, 500),
            down,
            ready(900, true),
            done(2, 900),
        ];
        let series = of(&History { logs: vec![log] }, 1_000);
        assert_eq!((series.step_ms, series.online.clone()), (250, vec![1, 1, 0, 1, 1]));
        assert_eq!(series.answers["write applied"], [0, 1, 0, 1, 0]);
        // The second one had to wait for a link.
        let latency = &series.latency["write applied"];
        assert_eq!(latency.p99_ms, [Some(300.0), None, None, None, None]);
        assert_eq!(series.latency["resume"].p50_ms[3], Some(7.0));
        assert_eq!(
            (series.closes["4003"].clone(), series.resumes),
            (vec![0, 0, 1, 0, 0], vec![0, 0, 0, 1, 0])
        );
    }

    #[test]
    fn a_long_run_has_no_more_steps_than_a_picture_shows() {
        for took_ms in [1, 59_999, 60_000, 3_600_000, 86_400_000] {
            let series = of(&History::default(), took_ms);
            assert!(series.online.len() <= 121, "{took_ms}: {}", series.online.len());
        }
    }
}
