//! Bots that live on a Hearth server like players, and checkers of its promises over the history of what they saw.
//! Called by the `load` binary and by tests that want the checkers. Talks to a server only by its public protocol.
//!
//! Beside them, [`bench`]es measure what the server costs, against [`floor`]s.
//!
//! A run: [`run`] starts [`bot`]s that act by their [`schedule`] and write a [`history`]; [`checkers`] judge it, [`figures`]
//! count it, [`report`] tells it. A run under faults is also looked at from outside ([`audit`]), its links may lead over a
//! [`proxy`], and [`faults`] holds what it is run and told with; [`chaos`]
//! is such a run against somebody's own cluster.

pub mod audit;
pub mod bench;
pub mod board;
pub mod bot;
pub mod chaos;
pub mod checkers;
pub mod faults;
pub mod figures;
pub mod floor;
pub mod history;
pub mod options;
pub mod proxy;
pub mod report;
pub mod run;
pub mod schedule;
pub mod service;
