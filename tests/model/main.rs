//! The machines under every order of events that can be tried: `protocol` walks through all of them to a depth, with a
//! model checker; `leases`, `sessions` and `scripts` (on a real Redis) try random ones. `README.md` beside this says what is promised where, to which
//! depth, what is left out, and what is known not to hold.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must fail, and says where"
)]

#[path = "../it/harness/patience.rs"]
#[allow(dead_code, reason = "the other test binaries use all of it")]
mod patience;
#[path = "../it/harness/redis_server.rs"]
#[allow(dead_code, reason = "the other test binaries use all of it")]
mod redis_server;
#[path = "../it/harness/signals.rs"]
mod signals;

mod leases;
mod protocol;
mod scripts;
mod sessions;
