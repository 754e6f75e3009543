//! What every run under faults needs, whoever breaks things: a clock of what was done ([`timeline`]), looks from outside
//! ([`auditor`]), waiting until all is well again ([`patience`]), and what is told at the end ([`findings`], [`excuses`],
//! [`report`], [`page`]). Used by [`crate::chaos`] and by the scenarios in `tests/faults`. Breaks nothing itself.

pub mod auditor;
pub mod excuses;
pub mod findings;
pub mod page;
pub mod patience;
pub mod report;
pub mod timeline;
