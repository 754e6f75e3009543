//! The machines under every order of events that can be tried: `protocol` walks through all of them to a depth, with a
//! model checker; `leases` and `sessions` try random ones. `README.md` beside this says what is promised where, to which
//! depth, what is left out, and what is known not to hold.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must fail, and says where"
)]

mod leases;
mod protocol;
mod sessions;
