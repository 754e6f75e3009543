//! Bots that live on a Hearth server like players, and checkers of its promises over the history of what they saw.
//! Called by the `load` binary and by tests that want the checkers. Talks to a server only by its public protocol.
//!
//! Beside them, [`bench`]es measure what the server costs, against [`floor`]s.
//!
//! A run: the [`doorstep`] looks whether all that it names is there, its [`outputs`] too; [`run`] starts [`bot`]s that act by their [`schedule`], which a [`plan`] makes, and write a [`history`]; [`checkers`]
//! judge it, [`figures`] and [`series`] count it, [`report`] tells it, as a [`page`], too. A [`mark`] tells what is this run's. While it goes on a [`view`] shows what is
//! on the [`board`], [`live`], with what is seen of the [`server`]. A run under faults is also looked at from outside ([`audit`]), its links may lead over a
//! [`proxy`], and [`faults`] holds what it is run and told with; [`chaos`]
//! is such a run against somebody's own cluster.

pub mod audit;
pub mod bench;
pub mod board;
pub mod bot;
pub mod chaos;
pub mod checkers;
pub mod compare;
pub mod doorstep;
pub mod faults;
pub mod figures;
pub mod floor;
pub mod history;
pub mod live;
pub mod mark;
pub mod options;
pub mod outputs;
pub mod page;
pub mod plan;
pub mod proxy;
pub mod report;
pub mod run;
pub mod schedule;
pub mod series;
pub mod server;
pub mod service;
pub mod signals;
pub mod view;
