//! Who is late, from what pulses show and when they were looked at. Pure. A watchdog that could not look itself judges
//! nobody by that time: a process that was stopped and goes on (SIGSTOP, a suspended machine, a starved one) is well.

use crate::tasks::Cause;

/// Without a beat of the runtime for so long it stands still.
const STALL_MS: u64 = 1_000;
/// A vital task that does not come round for so long is late, and the node not ready.
const LATE_MS: u64 = 5_000;
/// A look that comes so much later than it was meant to was kept from it. Looks are 250 ms apart.
const LOOK_LATE_MS: u64 = 1_000;
/// A task may hang so many times longer than the runtime may stand still: the others go on.
const HANG_FACTOR: u64 = 3;

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// How long the runtime may stand still; 0 for ever.
    pub(super) patience_ms: u64,
    /// How long the end may take once something has failed.
    pub(super) fall_ms: u64,
}

/// What one pulse shows. Counters are odd while the task is at something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) task: &'static str,
    pub(super) turns: u64,
    pub(super) polls: u64,
}

/// A task that does not come round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// Its name.
    pub task: &'static str,
    /// For how long.
    pub ms: u64,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// The watchdog itself could not look for so long.
    Paused { ms: u64 },
    /// The runtime stands still, for so long by now, with these tasks in the middle of a poll.
    Stalled { ms: u64, within: Vec<&'static str> },
    /// It stood still for so long.
    StallOver { ms: u64 },
    /// A task is late.
    Late(Late),
    /// It was.
    LateOver(Late),
    /// Nothing is to be hoped for.
    Failed(Cause),
    /// What was to end has not.
    End,
}

/// A counter, and since when it shows the same.
#[derive(Debug, Clone, Copy)]
struct Seen {
    count: u64,
    since_ms: u64,
}

impl Seen {
    fn look(&mut self, count: u64, now_ms: u64) {
        if self.count != count {
            *self = Self { count, since_ms: now_ms };
        }
    }

    /// For how long it has been at one thing.
    fn at_it_ms(self, now_ms: u64) -> u64 {
        if self.count.is_multiple_of(2) { 0 } else { now_ms.saturating_sub(self.since_ms) }
    }
}

#[derive(Debug)]
struct Known {
    task: &'static str,
    turns: Seen,
    polls: Seen,
    /// For how long it was late when it was last looked at; 0 if it was not.
    late_ms: u64,
}

impl Known {
    fn of(reading: Reading, now_ms: u64) -> Self {
        let seen = |count| Seen { count, since_ms: now_ms };
        Self { task: reading.task, turns: seen(reading.turns), polls: seen(reading.polls), late_ms: 0 }
    }

    fn forgive(&mut self, now_ms: u64) {
        (self.turns.since_ms, self.polls.since_ms) = (now_ms, now_ms);
    }

    fn at_it_ms(&self, now_ms: u64) -> u64 {
        self.turns.at_it_ms(now_ms).max(self.polls.at_it_ms(now_ms))
    }
}

/// What is known from look to look.
#[derive(Debug)]
pub(super) struct Judge {
    heart: &'static str,
    bounds: Bounds,
    looked_ms: u64,
    known: Vec<Known>,
    /// For how long the runtime stood still when it was last looked at; 0 if it did not.
    stalled_ms: u64,
    failed_since_ms: Option<u64>,
    is_given_up: bool,
}

impl Judge {
    /// Nothing known; looks from `now_ms` on. `heart` is the task that shows whether the runtime turns.
    pub(super) const fn new(heart: &'static str, bounds: Bounds, now_ms: u64) -> Self {
        Self {
            heart,
            bounds,
            looked_ms: now_ms,
            known: Vec::new(),
            stalled_ms: 0,
            failed_since_ms: None,
            is_given_up: false,
        }
    }

    /// Who is late now.
    pub(super) fn late(&self) -> Vec<Late> {
        let late = self.known.iter().filter(|known| known.late_ms > 0);
        late.map(|known| Late { task: known.task, ms: known.late_ms }).collect()
    }

    /// Looks at all pulses.
    pub(super) fn look(&mut self, now_ms: u64, readings: Vec<Reading>, has_failed: bool) -> Vec<News> {
        let mut news = Vec::new();
        let gap_ms = now_ms.saturating_sub(std::mem::replace(&mut self.looked_ms, now_ms));
        self.read(now_ms, readings);
        if gap_ms >= LOOK_LATE_MS {
            news.push(News::Paused { ms: gap_ms });
            self.known.iter_mut().for_each(|known| known.forgive(now_ms));
            self.failed_since_ms = self.failed_since_ms.map(|since_ms| since_ms.saturating_add(gap_ms));
        }
        if has_failed || self.is_given_up {
            let since_ms = *self.failed_since_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(since_ms) >= self.bounds.fall_ms {
                news.push(News::End);
            }
            return news;
        }
        self.judge_runtime(now_ms, &mut news);
        if self.stalled_ms > 0 {
            // Nobody comes round while nothing does.
            self.known
                .iter_mut()
                .filter(|known| known.task != self.heart)
                .for_each(|known| known.forgive(now_ms));
        } else {
            self.judge_tasks(now_ms, &mut news);
        }
        news
    }

    /// Tasks of one name are told apart by their order.
    fn read(&mut self, now_ms: u64, readings: Vec<Reading>) {
        let mut before = std::mem::take(&mut self.known);
        for reading in readings {
            let at = before.iter().position(|known| known.task == reading.task);
            let mut known = at.map_or_else(|| Known::of(reading, now_ms), |at| before.remove(at));
            known.turns.look(reading.turns, now_ms);
            known.polls.look(reading.polls, now_ms);
            self.known.push(known);
        }
    }

    fn judge_runtime(&mut self, now_ms: u64, news: &mut Vec<News>) {
        let heart = self.known.iter().find(|known| known.task == self.heart);
        // Without one nothing is known: not begun, or stopped in order.
        let still_ms = heart.map_or(0, |heart| now_ms.saturating_sub(heart.turns.since_ms));
        let before_ms =
            std::mem::replace(&mut self.stalled_ms, if still_ms < STALL_MS { 0 } else { still_ms });
        if before_ms == 0 && self.stalled_ms > 0 {
            let is_within = |known: &&Known| known.polls.at_it_ms(now_ms) > 0 && known.task != self.heart;
            let within = self.known.iter().filter(is_within).map(|known| known.task).collect();
            news.push(News::Stalled { ms: still_ms, within });
        }
        if before_ms > 0 && self.stalled_ms == 0 {
            news.push(News::StallOver { ms: before_ms });
        }
        if self.bounds.patience_ms > 0 && self.stalled_ms >= self.bounds.patience_ms {
            self.is_given_up = true;
            // Nothing can be done in order in a runtime that does not turn.
            news.extend([News::Failed(Cause::Stalled), News::End]);
        }
    }

    fn judge_tasks(&mut self, now_ms: u64, news: &mut Vec<News>) {
        let patience_ms = self.bounds.patience_ms.saturating_mul(HANG_FACTOR);
        for known in self.known.iter_mut().filter(|known| known.task != self.heart) {
            let ms = known.at_it_ms(now_ms);
            let before_ms = std::mem::replace(&mut known.late_ms, if ms < LATE_MS { 0 } else { ms });
            if before_ms == 0 && known.late_ms > 0 {
                news.push(News::Late(Late { task: known.task, ms }));
            }
            if before_ms > 0 && known.late_ms == 0 {
                news.push(News::LateOver(Late { task: known.task, ms: before_ms }));
            }
            if patience_ms > 0 && ms >= patience_ms.max(LATE_MS) && !self.is_given_up {
                self.is_given_up = true;
                news.push(News::Failed(Cause::Hung(known.task)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK_MS: u64 = 250;

    /// Looks on at a heart, a loop that says what it does, and one that does not.
    struct Scene {
        judge: Judge,
        now_ms: u64,
        heart: u64,
        flush: u64,
        files_polls: u64,
    }

    impl Scene {
        fn new() -> Self {
            let bounds = Bounds { patience_ms: 10_000, fall_ms: 8_000 };
            Self {
                judge: Judge::new("heart", bounds, 1_000),
                now_ms: 1_000,
                heart: 1,
                flush: 0,
                files_polls: 0,
            }
        }

        fn look(&mut self, has_failed: bool) -> Vec<News> {
            let reading = |task, turns, polls| Reading { task, turns, polls };
            let readings = vec![
                reading("heart", self.heart, 0),
                reading("flush", self.flush, 0),
                reading("files", 0, self.files_polls),
            ];
            self.judge.look(self.now_ms, readings, has_failed)
        }

        /// All that is told while the heart beats, or does not, for so long.
        fn pass(&mut self, ms: u64, beats: bool) -> Vec<(u64, News)> {
            let (began_ms, mut told) = (self.now_ms, Vec::new());
            while self.now_ms < began_ms + ms {
                self.now_ms += LOOK_MS;
                self.heart += if beats { 2 } else { 0 };
                told.extend(self.look(false).into_iter().map(|news| (self.now_ms - began_ms, news)));
            }
            told
        }
    }

    #[test]
    fn who_rests_or_says_nothing_is_never_late() {
        let mut scene = Scene::new();
        assert_eq!(scene.pass(600_000, true), []);
        scene.flush = 2;
        assert_eq!(scene.pass(600_000, true), []);
        assert_eq!(scene.judge.late(), []);
    }

    #[test]
    fn a_loop_that_does_not_come_round_is_late_and_in_the_end_given_up() {
        let mut scene = Scene::new();
        scene.flush = 3;
        let late = |ms| Late { task: "flush", ms };
        assert_eq!(scene.pass(6_000, true), [(5_250, News::Late(late(5_000)))]);
        assert_eq!(scene.judge.late(), [late(5_750)]);
        scene.flush = 5;
        assert_eq!(scene.pass(1_000, true), [(250, News::LateOver(late(5_750)))]);
        assert_eq!(scene.judge.late(), []);
        scene.flush = 7;
        let told = scene.pass(40_000, true);
        let news: Vec<_> = told.into_iter().map(|(_, news)| news).collect();
        let (end, rest) = (News::End, News::Failed(Cause::Hung("flush")));
        assert_eq!(news.get(..3), Some(&[News::Late(late(5_000)), rest, end][..]), "{news:?}");
    }

    #[test]
    fn a_poll_that_lasts_is_late_whatever_its_loop_says() {
        let mut scene = Scene::new();
        scene.files_polls = 9;
        let told = scene.pass(5_500, true);
        assert_eq!(told, [(5_250, News::Late(Late { task: "files", ms: 5_000 }))]);
    }

    #[test]
    fn a_runtime_that_stands_still_is_told_once_and_when_it_turns_again_and_its_tasks_are_not_to_blame() {
        let mut scene = Scene::new();
        scene.pass(1_000, true);
        (scene.flush, scene.files_polls) = (3, 9);
        let told = scene.pass(7_000, false);
        assert_eq!(told, [(1_000, News::Stalled { ms: 1_000, within: vec!["files"] })]);
        (scene.flush, scene.files_polls) = (4, 10);
        assert_eq!(scene.pass(6_000, true), [(250, News::StallOver { ms: 7_000 })]);
    }

    #[test]
    fn a_runtime_that_stands_still_for_too_long_ends_the_process() {
        let mut scene = Scene::new();
        scene.pass(1_000, true);
        let told = scene.pass(10_000, false);
        assert_eq!(told[1..], [(10_000, News::Failed(Cause::Stalled)), (10_000, News::End)]);
        let mut patient = Scene::new();
        patient.judge.bounds.patience_ms = 0;
        patient.pass(1_000, true);
        assert_eq!(patient.pass(600_000, false).len(), 1, "it is only told");
    }

    #[test]
    fn a_process_that_was_stopped_and_goes_on_is_well() {
        let mut scene = Scene::new();
        scene.flush = 3;
        scene.pass(1_000, true);
        scene.now_ms += 60_000;
        assert_eq!(scene.look(false), [News::Paused { ms: 60_000 }]);
        // It takes a moment until all is in motion again.
        assert_eq!(scene.pass(750, false), []);
        scene.flush = 4;
        assert_eq!(scene.pass(60_000, true), []);
    }

    #[test]
    fn an_end_that_does_not_come_is_brought_about() {
        let mut scene = Scene::new();
        assert_eq!(scene.look(true), []);
        scene.now_ms += LOOK_MS;
        assert_eq!(scene.look(true), []);
        // Stopped meanwhile: the end has had no time.
        scene.now_ms += 60_000;
        assert_eq!(scene.look(true), [News::Paused { ms: 60_000 }]);
        let mut ended_after_ms = 0;
        while scene.look(true) != [News::End] {
            (scene.now_ms, ended_after_ms) = (scene.now_ms + LOOK_MS, ended_after_ms + LOOK_MS);
        }
        assert_eq!(ended_after_ms, 8_000 - LOOK_MS);
    }
}
