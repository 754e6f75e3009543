//! The Rust client: one task a connection, which logs in, resumes, sends again what has no answer, and tells all that
//! it hears on a bounded channel. Used by bots, tests and tools. Written to `protocol/README.md`, which binds it too.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use protocol::client::{Client, Config};
//!
//! let (client, mut events) = Client::start(Config::new("ws://127.0.0.1:7700/v1/connect", || "dev:ann".to_owned()));
//! let ready = events.ready().await.ok_or("the server turned us away")?;
//! client.watch(&["bea"]).await?;
//! client.logout().await?;
//! # Ok(()) }
//! ```
//!
//! Two ways to ask: the typed calls ([`Client::state_patch`] and the others) wait for their answer; [`Client::submit`]
//! does not, and its answer comes among the [`Events`], in the order of the link. Both survive a lost link.

mod backoff;
mod config;
mod driver;
mod event;
mod handle;
mod handshake;
mod inbox;
mod ledger;
mod link;
mod live;

pub use config::{Config, Credentials, TokenSource};
pub use event::{Answered, Down, Event, Happened, OkBody, Outcome, Presented, Push, Timing};
pub use handle::{CallError, Client, Events};
pub use link::DropKind;
