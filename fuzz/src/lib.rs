//! What strangers can send, as functions of bytes: each reads them as one door of the house does and asserts what must
//! hold whatever they are. Called by the fuzzing engine (`targets/`) and, over the kept corpus, by the tests.

#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a target says that something does not hold"
)]

mod answers;
mod links;
mod records;
mod requests;
mod service;
mod settings;
mod stamps;
mod tickets;
mod tokens;

pub use answers::answers;
pub use links::links;
pub use records::records;
pub use requests::requests;
pub use service::service;
pub use settings::settings;
pub use stamps::stamps;
pub use tickets::tickets;
pub use tokens::tokens;

/// A target: it panics when what it asserts does not hold.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 9] = [
    ("answers", answers),
    ("links", links),
    ("records", records),
    ("requests", requests),
    ("service", service),
    ("settings", settings),
    ("stamps", stamps),
    ("tickets", tickets),
    ("tokens", tokens),
];

/// Takes one byte off the front; none is a zero.
fn byte(bytes: &mut &[u8]) -> u8 {
    match bytes.split_first() {
        Some((first, rest)) => {
            *bytes = rest;
            *first
        }
        None => 0,
    }
}
