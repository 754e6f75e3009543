//! Faults that are planted in real servers, one at a time: for each the overview names it. A test program of its own, so
//! that it can be played as a lane; `harness` is that of the stories, `stage` what the faults have in common.
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

mod clients;
mod nodes;
mod rooms;
mod stage;
mod stores;
