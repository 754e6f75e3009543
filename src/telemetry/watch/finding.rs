//! What a rule finds in one second: a number, its limit, and how the two stand to each other. Pure.

use super::switch::Level;

/// Below this share of its limit a number is good again.
const GOOD_BELOW: f64 = 0.8;

/// What a rule has found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) value: f64,
    pub(super) limit: f64,
    pub(super) level: Level,
    /// Whom or what it concerns, where that has a name.
    pub(super) whom: String,
    /// Of both numbers, where that is not the rule's.
    pub(super) unit: Option<&'static str>,
}

impl Finding {
    /// A number that must not lie above its limit.
    pub(super) fn of(value: f64, limit: f64) -> Self {
        let level = if value > limit {
            Level::Bad
        } else if value > limit * GOOD_BELOW {
            Level::Border
        } else {
            Level::Good
        };
        Self { value, limit, level, whom: String::new(), unit: None }
    }

    /// Nothing that could be judged.
    pub(super) const fn calm(limit: f64) -> Self {
        Self { value: 0.0, limit, level: Level::Good, whom: String::new(), unit: None }
    }

    pub(super) fn of_whom(self, whom: impl Into<String>) -> Self {
        Self { whom: whom.into(), ..self }
    }

    pub(super) fn in_unit(self, unit: &'static str) -> Self {
        Self { unit: Some(unit), ..self }
    }
}
