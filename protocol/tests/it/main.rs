//! What is promised about the wire: the bytes of every frame, the hash, the public specification, the client.
//! One binary; every module is a chapter. The golden files are rewritten with `UPDATE_VECTORS=1 cargo test -p protocol`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so by panicking"
)]

mod client;
mod hash;
mod readme;
mod samples;
mod vectors;
