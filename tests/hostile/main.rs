//! Clients that mean harm, each against a real server while others play on it: the right answer, a bound on what it
//! costs, and the others unharmed. `siege` measures, `raw` speaks without manners; each other module is a kind of
//! attack. `README.md` beside this is the table of all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must fail, and says where"
)]

#[path = "../it/harness/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "the other test binary uses all of it")]
mod harness;

mod crowds;
mod door;
mod frames;
mod raw;
mod secrets;
mod siege;
mod stock;
mod words;
