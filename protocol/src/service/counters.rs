//! Counters: one number a name, changed together by all services.

use reqwest::Method;

use super::{Change, Counter, Service, ServiceError, body_of, sent};

impl Service {
    /// Changes a counter.
    ///
    /// # Errors
    /// [`ServiceError::Refused`] with [`crate::ErrorCode::OutOfBounds`] and the `value`, which stays; [`ServiceError`] else: it
    /// may have been changed.
    pub async fn count(&self, name: &str, change: Change<'_>) -> Result<Counter, ServiceError> {
        let request = self.call(Method::POST, &["counters", name])?.json(&change);
        body_of(sent(request).await?).await
    }
}
