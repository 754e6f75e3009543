//! What is promised, held against real faults: servers and Redis killed under load, and guards turned off one at a time
//! to see that a checker notices. `README.md` beside this says which story holds which checker.
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

mod chaos;
#[cfg(feature = "sabotage")]
mod diary;
#[allow(dead_code, reason = "scenario F15 uses all of it")]
mod fates;
mod kills;
mod links;
mod logins;
mod nodes;
mod relay;
mod rolling;
#[cfg(feature = "sabotage")]
mod sabotage;
mod server;
mod shapes;
#[cfg(feature = "sabotage")]
mod vital;
