//! Bots that live on a Hearth server like players, and checkers of its promises over the history of what they saw.
//! Called by the `load` binary and by tests that want the checkers. Talks to a server only by its public protocol.

pub mod checkers;
pub mod history;
