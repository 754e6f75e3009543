//! A run: starts the bots and the service, shows progress, gathers the logs, has them judged. Called by `main` and tests.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::board::Board;
use crate::bot::Bot;
use crate::checkers;
use crate::figures;
use crate::history::{Entry, History};
use crate::options::Options;
use crate::report::Report;
use crate::service::Service;

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
}

/// How long bots try in vain until the run is given up: long enough to try a second address and a third.
const NO_SERVER_AFTER: Duration = Duration::from_secs(3);

/// Runs a scenario to its end and judges it.
///
/// # Errors
/// [`RunError`]; a broken promise is no error, it is in the report.
pub async fn run(options: Options) -> Result<(Report, History), RunError> {
    live(Arc::new(Board::new(options))).await
}

/// The same with a board that somebody else looks at, too: its clock is the history's, and whoever holds it can end the
/// run before its time.
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
    let logs = gather(tasks, places, &board).await?;
    let history = History { logs };
    let took_ms = u64::try_from(board.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let verdicts = checkers::judge(&history, took_ms);
    let figures = figures::of(&history);
    let shed = board.shed.load(Relaxed);
    let mut report = Report::new(&board.options, &history, figures, verdicts, shed, took_ms);
    if board.has_fallen() {
        // How long they might have lived is of no interest.
        report.seconds = took_ms / 1_000;
    }
    Ok((report, history))
}

/// Waits for all logs and shows how it goes. A bot that panicked leaves an empty log, and counts as unfinished. Gives up
/// when there is no server.
async fn gather(
    mut tasks: JoinSet<(usize, Vec<Entry>)>,
    places: usize,
    board: &Board,
) -> Result<Vec<Vec<Entry>>, RunError> {
    let mut logs: Vec<Vec<Entry>> = vec![Vec::new(); places];
    let bar = progress_bar(&board.options);
    let mut look = interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            biased;
            done = tasks.join_next() => match done {
                Some(Ok((place, log))) => {
                    if let Some(kept) = logs.get_mut(place) {
                        *kept = log;
                    }
                }
                // Also where there is no bar.
                Some(Err(error)) => bar.suspend(|| eprintln!("load: a bot failed: {error}")),
                None => break,
            },
            _ = look.tick() => {
                if let Some(reason) = board.in_vain_for(NO_SERVER_AFTER) {
                    bar.finish_and_clear();
                    return Err(RunError::NoServer { urls: board.options.url.join(", "), reason: reason.to_owned() });
                }
                bar.set_position(board.began.elapsed().as_secs());
                bar.set_message(format!(
                    "{} online · {} answered · {} refused · {} resumed · {} pushes",
                    board.online.load(Relaxed),
                    board.answered.load(Relaxed),
                    board.refused.load(Relaxed),
                    board.resumes.load(Relaxed),
                    board.pushes.load(Relaxed),
                ));
            }
        }
    }
    bar.finish_and_clear();
    Ok(logs)
}

fn progress_bar(options: &Options) -> ProgressBar {
    if options.quiet {
        return ProgressBar::hidden();
    }
    // Draws on a terminal only.
    let bar = ProgressBar::new(options.seconds);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} s · {msg}") {
        bar.set_style(style);
    }
    bar
}
