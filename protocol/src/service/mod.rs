//! The Rust client of game services: calls of the service API with a key. Written to `protocol/README.md` section 11.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use protocol::service::{Change, Service};
//!
//! let shop = Service::at("http://127.0.0.1:7701", "secret")?;
//! let lock = shop.lock("restock", Duration::from_secs(10), Duration::from_secs(5)).await?;
//! // Renewed by itself. Ends early if the lock is lost; what is written carries the token.
//! let restocked = lock.run(async { lock.token() }).await?;
//! shop.count("swords", Change::by(-1).min(0)).await?;
//! lock.release().await?;
//! # Ok(()) }
//! ```

mod blobs;
mod counters;
mod events;
mod locks;
mod messages;
mod operators;
mod players;
mod rooms;

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;

pub use blobs::{Blob, Kept, When};
pub use events::{After, Events, Told};
pub use locks::{Lock, Loss};
pub use players::AtErasure;

use crate::ErrorCode;
/// What is asked and answered: the same types as the server's.
pub use crate::calls::*;

/// How long a call may take, beside what it is asked to wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A game service, which calls one node of a server. Cheap to clone; its connections are shared.
#[derive(Clone)]
pub struct Service {
    http: Client,
    url: Arc<str>,
    key: Arc<str>,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No answer: what was asked may have been done, or may still be.
    #[error("no answer: {0}")]
    Unreachable(#[source] reqwest::Error),
    /// The server says no; with [`ErrorCode::StoreUnavailable`] it does not know whether it was done.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Box<Problem>),
    /// The lock was lost before.
    #[error("{0}")]
    Lost(Loss),
    /// Nothing, or nothing but dots: in an address that names another place, so nothing was sent.
    #[error("{0:?} names nothing")]
    Nameless(String),
    /// An answer that this client cannot read.
    #[error("an answer that cannot be read: {0}")]
    Unfitting(String),
}

impl ServiceError {
    /// Whether the server refused with this code.
    #[must_use]
    pub fn is(&self, code: ErrorCode) -> bool {
        match self {
            Self::Refused(problem) => problem.is(code),
            Self::Lost(_) => code == ErrorCode::LockLost,
            Self::Nameless(_) => code == ErrorCode::BadRequest,
            Self::Unreachable(_) | Self::Unfitting(_) => false,
        }
    }
}

/// Without its key.
impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Service {
    /// A service that calls there (`http://HOST:PORT`) with this key.
    ///
    /// # Errors
    /// [`ServiceError::Unreachable`]: the HTTP client cannot be made.
    pub fn at(url: &str, key: &str) -> Result<Self, ServiceError> {
        let http = Client::builder().build().map_err(ServiceError::Unreachable)?;
        Ok(Self { http, url: url.trim_end_matches('/').into(), key: key.into() })
    }

    /// A call that is asked to wait for nothing.
    fn call(&self, method: Method, parts: &[&str]) -> Result<RequestBuilder, ServiceError> {
        self.request(method, parts, CALL_TIMEOUT)
    }

    /// What stands beside `/v1`.
    fn outside(&self, path: &str) -> RequestBuilder {
        self.http.get([&*self.url, path].concat()).timeout(CALL_TIMEOUT)
    }

    /// # Errors
    /// [`ServiceError::Nameless`]: it would be another address.
    fn request(
        &self,
        method: Method,
        parts: &[&str],
        patience: Duration,
    ) -> Result<RequestBuilder, ServiceError> {
        let is_elsewhere = |part: &&&str| matches!(**part, "" | "." | "..");
        let is_dots = |name: &&&str| name.chars().all(|c| c == '.');
        if let Some(part) = parts.iter().find(is_elsewhere).or(parts.last().filter(is_dots)) {
            return Err(ServiceError::Nameless((*part).to_owned()));
        }
        let path = parts.iter().fold(String::new(), |path, part| path + "/" + &segment(part));
        let request = self.http.request(method, [&*self.url, "/v1", &path].concat());
        Ok(request.bearer_auth(&self.key).timeout(patience))
    }
}

/// Sends a request; what was answered, if it is no refusal. A 304 is none.
async fn sent(request: RequestBuilder) -> Result<Response, ServiceError> {
    let response = request.send().await.map_err(ServiceError::Unreachable)?;
    let status = response.status();
    if status.is_success() || status.as_u16() == 304 {
        return Ok(response);
    }
    let body = response.bytes().await.map_err(ServiceError::Unreachable)?;
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => Err(ServiceError::Refused(Box::new(problem))),
        Err(_) => Err(ServiceError::Unfitting(format!("{status} without a problem"))),
    }
}

async fn body_of<T: DeserializeOwned>(response: Response) -> Result<T, ServiceError> {
    let body = response.bytes().await.map_err(ServiceError::Unreachable)?;
    serde_json::from_slice(&body).map_err(|error| ServiceError::Unfitting(error.to_string()))
}

/// One part of a path, percent-encoded.
fn segment(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
        path
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(segment("save-1.bin"), "save-1.bin");
        assert_eq!(segment("a/b {é}"), "a%2Fb%20%7B%C3%A9%7D");
    }

    #[tokio::test]
    async fn a_name_of_dots_is_refused_before_anything_is_sent() {
        // Nobody listens there.
        let shop = Service::at("http://127.0.0.1:9", "k").unwrap();
        for name in ["", ".", "..", "..."] {
            let said = [
                shop.count(name, Change::by(1)).await.err(),
                shop.lock(name, CALL_TIMEOUT, Duration::ZERO).await.err(),
                shop.blob("ann", name, None).await.err(),
                shop.delete_blob("ann", name, When::Always).await.err(),
                shop.put_blob(("ann", name), "a/b", bytes::Bytes::new(), When::Always).await.err(),
            ];
            for said in said {
                assert!(
                    matches!(&said, Some(ServiceError::Nameless(told)) if told == name),
                    "{name:?}: {said:?}"
                );
            }
        }
        assert!(matches!(shop.blob("..", "save", None).await, Err(ServiceError::Nameless(_))));
        assert!(matches!(shop.blob("...", "save", None).await, Err(ServiceError::Unreachable(_))));
        assert!(matches!(shop.count("a.", Change::by(1)).await, Err(ServiceError::Unreachable(_))));
    }
}
