//! Counters: changed within bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Text;

/// `POST /v1/counters/{name}`: a change of a counter. By zero it is a look.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change<'a> {
    /// Adds this.
    pub by: i64,
    /// Refused if it would fall below; not above `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// Refused if it would rise above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// How long the counter lives, if this makes it: 1 ms to a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 31_536_000_000_u64)))]
    pub ttl_ms: Option<u64>,
    /// The same key changes once within 5 minutes, and each answer is the first one's: 1 to 64 bytes.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub idempotency_key: Option<Text<'a>>,
}

impl<'a> Change<'a> {
    /// Adds this.
    #[must_use]
    pub const fn by(by: i64) -> Self {
        Self { by, min: None, max: None, ttl_ms: None, idempotency_key: None }
    }

    /// Refused if it would fall below.
    #[must_use]
    pub fn min(self, min: i64) -> Self {
        Self { min: Some(min), ..self }
    }

    /// Refused if it would rise above.
    #[must_use]
    pub fn max(self, max: i64) -> Self {
        Self { max: Some(max), ..self }
    }

    /// How long the counter lives, if this makes it: 1 ms to a year.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl_ms: Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)), ..self }
    }

    /// Changes once, however often it is called with this key (1 to 64 bytes) within 5 minutes: where an error does not say
    /// whether the counter was changed, the same call again does. Each answer is the first one's.
    #[must_use]
    pub fn once(self, idempotency_key: impl Into<Text<'a>>) -> Self {
        Self { idempotency_key: Some(idempotency_key.into()), ..self }
    }
}

/// A counter after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counter {
    /// Where it stands.
    pub value: i64,
    /// When it is forgotten, if ever: ms from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}
