//! `hearth top`: a running cluster on a terminal, asked for its overview once a second; or once, as plain text. Called by the
//! command line alone. What is shown is pure (`picture`, and `board` with what it draws by); `shell` has the terminal.

mod alarms;
mod board;
mod cards;
mod figures;
mod grid;
mod keys;
mod lists;
mod nodes;
mod paint;
mod past;
mod picture;
mod shards;
mod shell;
mod words;

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use clap::Args;
use protocol::calls::Overview;
use ratatui::crossterm::terminal;

use super::ask::{AskError, AskFlags, Asked};
use crate::config::Settings;
use paint::Paint;
use picture::Picture;

/// Columns of a picture that is for no terminal.
const COLUMNS: usize = 100;
/// Below it no picture is narrowed further.
const COLUMNS_MIN: usize = 40;

#[derive(Debug, Args)]
pub(super) struct TopFlags {
    /// Where the server answers services, such as http://127.0.0.1:7701; any node tells of all
    #[arg(value_name = "URL", conflicts_with = "service_url")]
    url: Option<String>,
    #[command(flatten)]
    ask: AskFlags,
    /// Print one picture as plain text and end; so it does by itself where standard output is no terminal, and where
    /// TERM is not set or dumb
    #[arg(long)]
    once: bool,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub(super) enum TopError {
    /// The first question was not answered.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Nobody reads what is printed.
    #[error("{0}")]
    Print(#[source] io::Error),
    /// The terminal cannot be used, or is gone.
    #[error("the terminal: {0}")]
    Terminal(#[source] io::Error),
}

/// Shows it until somebody has seen enough.
pub(super) fn run(
    flags: TopFlags,
    settings: &Settings,
    environment: &[(OsString, OsString)],
    out: &mut dyn Write,
) -> Result<(), TopError> {
    let TopFlags { url, mut ask, once } = flags;
    ask.service_url = url.or(ask.service_url);
    let asked = Asked::named(&ask, settings)?;
    // Before the terminal is taken over: whoever named a wrong address or key is told so, and that was it.
    let overview = look(&asked)?;
    let began = Instant::now();
    let named =
        |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_os_str());
    let is_dumb = named("TERM").is_none_or(|term| term == OsStr::new("dumb"));
    let is_terminal = io::stdout().is_terminal();
    if once || is_dumb || !is_terminal {
        let columns =
            terminal::size().ok().filter(|_| is_terminal).map_or(COLUMNS, |(columns, _)| columns.into());
        let mut picture = Picture::new(asked.url(), overview, Duration::ZERO);
        let text = board::text(&mut picture, columns.max(COLUMNS_MIN));
        return out.write_all(text.as_bytes()).map_err(TopError::Print);
    }
    let picture = Picture::new(asked.url(), overview, alarms::LASTS);
    shell::show(asked, picture, began, Paint::unless(named("NO_COLOR"))).map_err(TopError::Terminal)
}

/// What a server says now.
fn look(asked: &Asked) -> Result<Overview, AskError> {
    asked.get("/v1/overview")
}
