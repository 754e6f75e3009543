//! The command line of `load bench`. Read once at the start.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Measures the server against a floor that runs in the same minutes; starts and ends everything itself.
///
/// Exit code 0: measured, whether goals were met or not; 1: void, because something was refused, limited or broken.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What is measured.
    pub bench: Name,
    /// Where the result goes, as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// How many rounds; floor and ours take turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Memory of a session that does nothing.
    Idle,
    /// CPU of a change that is acked.
    Ack,
    /// CPU of a presence item that reaches a watcher.
    Fanout,
    /// How long 5,000 dropped links take to come back.
    Reconnect,
    /// How long a durable ack takes.
    Durable,
    /// Redis's and our own CPU for a record that reaches Redis.
    Flush,
    /// What a service's lock costs, and many who wait for one.
    Locks,
    /// CPU of a player in a query of a thousand, and how long it takes.
    Query,
    /// Reads of the store for players who never were.
    Unknown,
    /// Reads of the store when a thousand ask at once for one player.
    #[value(name = "one_flight")]
    OneFlight,
    /// How many of the entries that were kept together run out together.
    Avalanche,
    /// How old answers are that are kept near, after writes.
    Stale,
    /// A room of 20,000 on three nodes: joins, pages, what members are told, a home that ends.
    Rooms,
    /// Memory of an edge, and 100,000 watchers of one player on three nodes.
    Watch,
    /// Instructions of an acked change with logs, metrics and traces, and without; needs valgrind.
    Sight,
}
