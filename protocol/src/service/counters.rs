//! Counters: one number a name, changed together by all services.

use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{CALL_TIMEOUT, Service, ServiceError, body_of, millis, sent};

/// A change of a counter. By zero it is a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Change {
    by: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
}

impl Change {
    /// Adds this.
    #[must_use]
    pub const fn by(by: i64) -> Self {
        Self { by, min: None, max: None, ttl_ms: None }
    }

    /// Refused if it would fall below.
    #[must_use]
    pub const fn min(self, min: i64) -> Self {
        Self { min: Some(min), ..self }
    }

    /// Refused if it would rise above.
    #[must_use]
    pub const fn max(self, max: i64) -> Self {
        Self { max: Some(max), ..self }
    }

    /// How long the counter lives, if this makes it: 1 ms to a year.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl_ms: Some(millis(ttl)), ..self }
    }
}

#[derive(Serialize)]
struct Asked<'a> {
    #[serde(flatten)]
    change: Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
}

/// A counter after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Counter {
    /// Where it stands.
    pub value: i64,
    /// When it is forgotten, if ever.
    #[serde(default)]
    pub expires_in_ms: Option<u64>,
}

impl Service {
    /// Changes a counter.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] with [`crate::ErrorCode::OutOfBounds`] and the `value`, which stays; [`ServiceError`] else: it
    /// may have been changed.
    pub async fn count(&self, name: &str, change: Change) -> Result<Counter, ServiceError> {
        self.counted(name, &Asked { change, idempotency_key: None }).await
    }

    /// Changes a counter once, however often it is called with this key (1 to 64 bytes) within 5 minutes: where an error does
    /// not say whether it was changed, the same call again does. Each answer is the first one's.
    ///
    /// # Errors
    /// As [`Self::count`].
    pub async fn count_once(
        &self,
        name: &str,
        change: Change,
        idempotency_key: &str,
    ) -> Result<Counter, ServiceError> {
        self.counted(name, &Asked { change, idempotency_key: Some(idempotency_key) }).await
    }

    async fn counted(&self, name: &str, asked: &Asked<'_>) -> Result<Counter, ServiceError> {
        let request = self.request(Method::POST, &["counters", name], CALL_TIMEOUT)?.json(asked);
        body_of(sent(request).await?).await
    }
}
