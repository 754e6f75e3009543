//! What a view shows: the board's numbers with what they were a moment ago, so that there are rates. Refreshed by the view,
//! drawn by the screen. Knows no terminal.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Stage;
use crate::board::Board;
use crate::live::{Look as Live, OVER_A_LOST_LINK};
use crate::page::plot::clock;
use crate::page::{grouped, ms};
use crate::server::Look;

/// Rates are of this time.
const RATE_INTERVAL: Duration = Duration::from_secs(1);
/// After this time, and again as much, latencies are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(5);
/// Values of a small picture that are kept.
const TRAIL_MAX: usize = 200;
/// Notes that are kept.
const NOTES_MAX: usize = 3;

/// Kinds in the order in which they are shown.
const ORDER: [&str; 14] = [
    "write applied",
    "write durable",
    "presence",
    "presence to watcher",
    "say",
    "say to member",
    "read",
    "login",
    "resume",
    "join",
    "message",
    "query",
    "watch",
    OVER_A_LOST_LINK,
];

/// All that is shown.
#[derive(Debug)]
pub(super) struct State {
    pub(super) name: String,
    pub(super) players: u32,
    pub(super) seed: u64,
    pub(super) stage: Stage,
    /// How long the run goes on, and how long it was to.
    pub(super) at: Duration,
    pub(super) length: Duration,
    /// When each phase ends, and what it is called.
    pub(super) phases: Vec<(Duration, String)>,
    pub(super) is_ending: bool,
    pub(super) online: usize,
    pub(super) shed: u64,
    pub(super) live: Live,
    pub(super) rows: Vec<Row>,
    /// Answers a second, the latest last.
    pub(super) answers: VecDeque<f64>,
    /// Pushes a second.
    pub(super) pushes: VecDeque<f64>,
    pub(super) memory: VecDeque<f64>,
    pub(super) cpu: VecDeque<f64>,
    pub(super) server: Option<Look>,
    /// Something of it was told once.
    pub(super) has_told_of_server: bool,
    /// Since when nobody is answered, on the run's clock, for how long, and why.
    pub(super) silence: Option<(Duration, Duration, String)>,
    pub(super) notes: VecDeque<String>,
    counted: Counted,
    looks_seen: usize,
    forgotten: Instant,
}

/// One kind, with how many came in the last second.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) kind: &'static str,
    pub(super) count: u64,
    pub(super) rate: f64,
    pub(super) lately_ms: Option<[f64; 4]>,
}

/// What rates are taken from.
#[derive(Debug, Default)]
struct Counted {
    at: Option<Instant>,
    answers: u64,
    pushes: u64,
    kinds: Vec<(&'static str, u64)>,
}

fn keep(trail: &mut VecDeque<f64>, value: f64) {
    if trail.len() >= TRAIL_MAX {
        trail.pop_front();
    }
    trail.push_back(value);
}

#[allow(clippy::cast_precision_loss, reason = "shown")]
fn float(count: u64) -> f64 {
    count as f64
}

impl State {
    pub(super) fn new(board: &Board) -> Self {
        let plan = &board.plan;
        let ends = plan.spans().into_iter().map(|span| (Duration::from_millis(span.to_ms), span.name));
        Self {
            name: plan.name.clone(),
            players: plan.players,
            seed: board.options.common.seed,
            stage: Stage::Living,
            at: Duration::ZERO,
            length: plan.length(),
            phases: ends.collect(),
            is_ending: false,
            online: 0,
            shed: 0,
            live: Live::default(),
            rows: Vec::new(),
            answers: VecDeque::new(),
            pushes: VecDeque::new(),
            memory: VecDeque::new(),
            cpu: VecDeque::new(),
            server: None,
            has_told_of_server: false,
            silence: None,
            notes: VecDeque::new(),
            counted: Counted::default(),
            looks_seen: 0,
            forgotten: Instant::now(),
        }
    }

    pub(super) fn refresh(&mut self, board: &Board, stage: Stage, now: Instant) {
        self.stage = stage;
        self.at = now.saturating_duration_since(board.began);
        self.is_ending = board.has_fallen();
        self.online = board.online.load(Relaxed);
        self.shed = board.shed.load(Relaxed);
        self.live = board.live.look();
        // Once bots have gone nobody hears anything.
        let silence = board.silence(now).filter(|_| stage == Stage::Living);
        self.silence = silence.map(|silence| {
            let since = silence.since.saturating_duration_since(board.began);
            (since, now.saturating_duration_since(silence.since), silence.reason)
        });
        if now.saturating_duration_since(self.forgotten) >= FORGET_INTERVAL {
            self.forgotten = now;
            board.live.forget();
        }
        self.count(board, now);
        for look in board.looks_since(self.looks_seen) {
            self.looks_seen += 1;
            look.memory_bytes.into_iter().for_each(|bytes| keep(&mut self.memory, float(bytes)));
            self.has_told_of_server |= look.memory_bytes.is_some() || look.links.is_some();
            look.cpu_cores.into_iter().for_each(|cores| keep(&mut self.cpu, cores));
            self.server = Some(look);
        }
    }

    /// Takes rates, once there is enough time between.
    fn count(&mut self, board: &Board, now: Instant) {
        let passed = self.counted.at.map(|at| now.saturating_duration_since(at));
        let before = std::mem::take(&mut self.rows);
        let rate_of = |kind| before.iter().find(|row| row.kind == kind).map_or(0.0, |row| row.rate);
        let is_due = passed.is_none_or(|passed| passed >= RATE_INTERVAL);
        let seconds = passed.map_or(1.0, |passed| passed.as_secs_f64()).max(0.001);
        let counted =
            |kind| self.counted.kinds.iter().find(|(of, _)| *of == kind).map_or(0, |(_, count)| *count);
        let place = |kind| ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len());
        let mut rows: Vec<Row> = self
            .live
            .rows
            .iter()
            .map(|row| Row {
                kind: row.kind,
                count: row.count,
                rate: if is_due { float(row.count - counted(row.kind)) / seconds } else { rate_of(row.kind) },
                lately_ms: row.lately_ms,
            })
            .collect();
        rows.sort_by_key(|row| place(row.kind));
        self.rows = rows;
        if is_due {
            let (answers, pushes) = (board.answered.load(Relaxed), board.pushes.load(Relaxed));
            if self.counted.at.is_some() {
                keep(&mut self.answers, float(answers - self.counted.answers) / seconds);
                keep(&mut self.pushes, float(pushes - self.counted.pushes) / seconds);
            }
            let kinds = self.rows.iter().map(|row| (row.kind, row.count)).collect();
            self.counted = Counted { at: Some(now), answers, pushes, kinds };
        }
    }

    pub(super) fn note(&mut self, what: &str) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(what.to_owned());
    }

    /// Which phase is on: its number from 1, and what it is called.
    pub(super) fn phase(&self) -> (usize, &str) {
        let now = self.phases.iter().position(|(ends, _)| self.at < *ends);
        match (self.stage, now.and_then(|at| Some((at, self.phases.get(at)?)))) {
            (Stage::Judging, _) => (self.phases.len(), "what bots saw is judged"),
            (Stage::Living, Some((at, _))) if self.is_ending => (at + 1, "it is to end: last words"),
            (Stage::Living, Some((at, (_, name)))) => (at + 1, name),
            (Stage::Living, None) => (self.phases.len(), "last words: all is read back"),
        }
    }

    pub(super) fn answers_now(&self) -> f64 {
        self.answers.back().copied().unwrap_or(0.0)
    }

    fn count_of(&self, kind: &str) -> u64 {
        self.rows.iter().find(|row| row.kind == kind).map_or(0, |row| row.count)
    }

    /// Logins and resumes so far.
    pub(super) fn sessions(&self) -> [u64; 2] {
        ["login", "resume"].map(|kind| self.count_of(kind))
    }

    pub(super) fn refused(&self) -> u64 {
        self.live.refused.iter().map(|(_, count)| count).sum()
    }

    /// All of it in a line.
    pub(super) fn line(&self) -> String {
        let p99 = |kind: &str| {
            let row = self.rows.iter().find(|row| row.kind == kind);
            row.and_then(|row| row.lately_ms).map_or_else(|| "–".to_owned(), |[_, _, p99, _]| ms(p99))
        };
        let [logins, resumes] = self.sessions();
        let broken = match self.live.broken {
            0 => "nothing seen broken".to_owned(),
            count => format!("{} BROKEN PROMISES", grouped(count)),
        };
        let silence = self.silence.as_ref().map_or_else(String::new, |(since, ..)| {
            format!(" · THE SERVER DOES NOT ANSWER SINCE {}", clock(since.as_secs_f64()))
        });
        format!(
            "{} of {} · {} · {} of {} online · {:.0} answers/s · p99 applied {} durable {} · {} logins {} resumes · {} refused · {broken}{silence}",
            clock(self.at.as_secs_f64()),
            clock(self.length.as_secs_f64()),
            self.phase().1,
            grouped(u64::try_from(self.online).unwrap_or(u64::MAX)),
            grouped(u64::from(self.players)),
            self.answers_now(),
            p99("write applied"),
            p99("write durable"),
            grouped(logins),
            grouped(resumes),
            grouped(self.refused()),
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::options::Options;

    fn board() -> Board {
        Board::new(Options::try_parse_from(["load", "steady", "--quiet", "--players", "20"]).unwrap())
    }

    #[test]
    fn rates_are_what_came_since_a_second_ago() {
        let (board, mut state) = (board(), State::new(&board()));
        let now = Instant::now();
        state.refresh(&board, Stage::Living, now);
        board.answered.fetch_add(30, Relaxed);
        (0..30).for_each(|_| board.live.took("read", 1_000));
        state.refresh(&board, Stage::Living, now + Duration::from_millis(500));
        assert_eq!((state.answers.len(), state.rows[0].count), (0, 30));
        state.refresh(&board, Stage::Living, now + Duration::from_secs(2));
        assert!((state.answers_now() - 15.0).abs() < 1e-9 && (state.rows[0].rate - 15.0).abs() < 1e-9);
        // Between two of them the last one stands.
        state.refresh(&board, Stage::Living, now + Duration::from_millis(2_500));
        assert!((state.rows[0].rate - 15.0).abs() < 1e-9);
    }

    #[test]
    fn a_line_tells_what_matters() {
        let (board, mut state) = (board(), State::new(&board()));
        board.live.took("write applied", 2_000);
        state.refresh(&board, Stage::Living, Instant::now());
        assert!(
            state.line().contains("nothing seen broken") && state.line().contains("p99 applied 2.0"),
            "{}",
            state.line()
        );
        board.live.breaks(3, "a push is missing".to_owned());
        state.refresh(&board, Stage::Living, Instant::now());
        assert!(state.line().ends_with("1 BROKEN PROMISES"), "{}", state.line());
    }

    #[test]
    fn a_server_that_is_silent_is_told_with_since_when() {
        let (board, mut state) = (board(), State::new(&board()));
        board.answers();
        let at = |seconds| board.began + Duration::from_secs(seconds);
        board.fails(at(17), "connection refused");
        state.refresh(&board, Stage::Living, at(19));
        assert!(!state.line().contains("DOES NOT ANSWER"), "{}", state.line());
        state.refresh(&board, Stage::Living, at(30));
        assert!(state.line().ends_with("THE SERVER DOES NOT ANSWER SINCE 0:17"), "{}", state.line());
        board.answers();
        state.refresh(&board, Stage::Living, at(31));
        assert!(!state.line().contains("DOES NOT ANSWER"), "{}", state.line());
    }

    #[test]
    fn the_phase_that_is_on_is_told_and_what_comes_after_the_last() {
        let (board, mut state) = (board(), State::new(&board()));
        let at = |state: &mut State, seconds, stage| {
            state.refresh(&board, stage, board.began + Duration::from_secs(seconds));
            state.phase().1.to_owned()
        };
        assert_eq!(at(&mut state, 5, Stage::Living), "steady");
        assert_eq!(at(&mut state, 61, Stage::Living), "last words: all is read back");
        assert_eq!(at(&mut state, 62, Stage::Judging), "what bots saw is judged");
    }
}
