//! A run: starts the bots and the service, shows how it goes, gathers the logs, has them judged. Called by `main` and tests.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::board::Board;
use crate::bot::Bot;
use crate::checkers;
use crate::figures;
use crate::history::{Entry, History};
use crate::options::Options;
use crate::report::Report;
use crate::server;
use crate::service::Service;
use crate::signals::Signals;
use crate::view::{LOOK_INTERVAL, Stage, View};

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The service's HTTP client.
    #[error("the service's client: {0}")]
    Service(#[from] reqwest::Error),
    /// Nobody there, or no Hearth.
    #[error("no server answers at {urls} ({reason}): start one there, or say with --url where it is")]
    NoServer {
        /// Where it was looked for.
        urls: String,
        /// What the first attempt came to.
        reason: String,
    },
    /// Signals cannot be heard.
    #[error("signals: {0}")]
    Signals(std::io::Error),
    /// A second wish for its end: nothing was judged.
    #[error("ended at once: nothing was judged")]
    Ended,
    /// What they saw cannot be judged.
    #[error("the checkers failed: {0}")]
    Judge(#[from] tokio::task::JoinError),
}

/// How long bots try in vain until the run is given up: long enough to try a second address and a third.
const NO_SERVER_AFTER: Duration = Duration::from_secs(3);

/// Runs a built-in scenario to its end and judges it.
///
/// # Errors
/// [`RunError`]; a broken promise is no error, it is in the report.
pub async fn run(options: Options) -> Result<(Report, History), RunError> {
    live(Arc::new(Board::new(options))).await
}

/// Runs to the end, or until a signal asks for it: then bots have their last words, and what was seen is judged; at a second one
/// nothing is waited for. What comes within a second of the first is no second one.
///
/// # Errors
/// [`RunError`].
pub async fn watched(board: Arc<Board>) -> Result<(Report, History), RunError> {
    let mut signals = Signals::heard().map_err(RunError::Signals)?;
    let lives = live(Arc::clone(&board));
    tokio::pin!(lives);
    loop {
        tokio::select! {
            biased;
            () = signals.told() => {
                if !board.cut_short() {
                    return Err(RunError::Ended);
                }
            }
            done = &mut lives => return done,
        }
    }
}

/// Runs to the end. The board may be somebody else's, too: its clock is the history's, and whoever holds it can end the run before
/// its time.
///
/// # Errors
/// [`RunError`].
pub async fn live(board: Arc<Board>) -> Result<(Report, History), RunError> {
    let service = Service::new(Arc::clone(&board))?;
    let mut tasks: JoinSet<(usize, Vec<Entry>)> = JoinSet::new();
    let players = board.options.players;
    for (place, number) in (0..players).enumerate() {
        let bot = Bot::new(number, Arc::clone(&board));
        tasks.spawn(async move { (place, bot.run().await) });
    }
    let mut places = usize::try_from(players).unwrap_or(usize::MAX);
    if let Some(service) = service {
        let place = places;
        tasks.spawn(async move { (place, service.run().await) });
        places += 1;
    }
    // Ends with the run.
    let mut looks = JoinSet::new();
    if board.options.common.tells_of_server() {
        looks.spawn(server::watch(Arc::clone(&board)));
    }
    let mut view = View::of(&board);
    let logs = gather(tasks, places, &board, &mut view).await?;
    drop(looks);
    judged(History { logs }, board, view).await
}

/// The beat of the view. What a busy machine misses of it is not made up for.
fn beat() -> Interval {
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look
}

/// Waits for all logs and shows how it goes. Who panicked, bot or service, leaves an empty log, and the run proves nothing.
/// Gives up when there is no server.
async fn gather(
    mut tasks: JoinSet<(usize, Vec<Entry>)>,
    places: usize,
    board: &Board,
    view: &mut View,
) -> Result<Vec<Vec<Entry>>, RunError> {
    let mut logs: Vec<Vec<Entry>> = vec![Vec::new(); places];
    let mut look = beat();
    loop {
        tokio::select! {
            biased;
            done = tasks.join_next() => match done {
                Some(Ok((place, log))) => {
                    if let Some(kept) = logs.get_mut(place) {
                        *kept = log;
                    }
                }
                Some(Err(error)) => {
                    board.failed.fetch_add(1, Relaxed);
                    view.says(&format!("a bot or the service failed: {error}"));
                }
                None => return Ok(logs),
            },
            _ = look.tick() => {
                if let Some(reason) = board.in_vain_for(NO_SERVER_AFTER) {
                    let urls = board.options.common.url.join(", ");
                    return Err(RunError::NoServer { urls, reason: reason.to_owned() });
                }
                if (0..view.wishes()).any(|_| !board.cut_short()) {
                    return Err(RunError::Ended);
                }
                view.tick(board, Stage::Living);
            }
        }
    }
}

/// Has all judged, which takes its time, while the view goes on.
async fn judged(history: History, board: Arc<Board>, mut view: View) -> Result<(Report, History), RunError> {
    let took_ms = u64::try_from(board.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let judging = {
        let board = Arc::clone(&board);
        move || {
            let verdicts = checkers::judge(&history, took_ms);
            let figures = figures::of(&history);
            let report = Report::new(&board, &history, figures, verdicts, took_ms);
            (report, history)
        }
    };
    let mut judges = JoinSet::new();
    judges.spawn_blocking(judging);
    let mut look = beat();
    loop {
        tokio::select! {
            biased;
            done = judges.join_next() => match done {
                Some(done) => return Ok(done?),
                None => return Err(RunError::Ended),
            },
            _ = look.tick() => {
                if (0..view.wishes()).any(|_| !board.cut_short()) {
                    return Err(RunError::Ended);
                }
                view.tick(&board, Stage::Judging);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[tokio::test]
    async fn whoever_fails_by_a_fault_of_its_own_is_counted_and_the_run_does_not_pass() {
        let board = Board::new(Options::try_parse_from(["load", "steady", "--quiet"]).unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async { (0, Vec::new()) });
        tasks.spawn(async { panic!("on purpose") });
        let logs = gather(tasks, 2, &board, &mut View::of(&board)).await.unwrap();
        assert_eq!((logs.len(), board.failed.load(Relaxed)), (2, 1));
        let (figures, history) = (figures::Figures::default(), History { logs });
        let report = Report::new(&board, &history, figures, Vec::new(), 0);
        assert!(!report.passed && report.vacuous.contains(&"a bot or the service failed"), "{report:?}");
    }
}
