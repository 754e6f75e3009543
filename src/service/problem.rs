//! Every refusal of the service API: RFC 9457 problem details with the wire's own codes. The one place where codes
//! become HTTP statuses. Never carries a key, a ticket or a payload.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::calls::Problem as Details;
use protocol::reply::ErrorBody;
use protocol::{ErrorCode, Stamp as WireStamp};

use super::audit::InForce;
use crate::home::record::Refusal;
use crate::home::{HomeError, StoreError};
use crate::ids::{BlobNameError, IdError, KeyNameError, RoomNameError};
use crate::limits::RateLimited;
use crate::wire::{RETRY_AFTER_MS, error_of};

/// Why a call was refused.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    error: Box<ErrorBody>,
    /// `out_of_bounds`: where the counter stands.
    value: Option<i64>,
    /// `precondition_failed`: the tag of what is stored, as it stands in `ETag`.
    etag: Option<String>,
}

impl Problem {
    /// A refusal with the status that its code has.
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        ErrorBody::new(code, detail).into()
    }

    /// A field is missing or not what it must be; the detail names it.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, detail)
    }

    /// No such thing.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, detail)
    }

    /// The change took effect in memory, but the store does not have it.
    pub(super) fn applied_only(stamp: WireStamp, detail: impl Into<String>) -> Self {
        let error = ErrorBody::new(ErrorCode::StoreUnavailable, detail).after(RETRY_AFTER_MS);
        ErrorBody { applied: Some(true), stamp: Some(stamp), ..error }.into()
    }

    /// The change is in force on this node, but the store does not have it: a restart would forget it.
    pub(super) fn not_stored(detail: impl Into<String>) -> Self {
        let error = ErrorBody::new(ErrorCode::StoreUnavailable, detail).after(RETRY_AFTER_MS);
        ErrorBody { applied: Some(true), ..error }.into()
    }

    /// The same with another status than its code's: where HTTP has one that says more.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same with where the counter stands.
    pub(super) const fn with_value(mut self, value: i64) -> Self {
        self.value = Some(value);
        self
    }

    /// The same with the tag of what is stored.
    pub(super) fn with_etag(mut self, etag: Option<String>) -> Self {
        self.etag = etag;
        self
    }

    /// Its code.
    pub(super) fn code(&self) -> ErrorCode {
        self.error.code
    }
}

impl From<ErrorBody> for Problem {
    fn from(error: ErrorBody) -> Self {
        Self { status: status_of(error.code), error: Box::new(error), value: None, etag: None }
    }
}

impl From<HomeError> for Problem {
    fn from(error: HomeError) -> Self {
        match error {
            // A service asks for a player's sessions, it has none itself.
            HomeError::Refused(Refusal::NoSession) => Self::not_found("the player has no session"),
            HomeError::Refused(Refusal::Kicked { .. }) => Self::not_found(error.to_string()),
            // Who has a key may hear what the store says, as whoever asks for readiness does.
            HomeError::Store(ref told) => ErrorBody { message: told.to_string(), ..error_of(&error) }.into(),
            error => error_of(&error).into(),
        }
    }
}

impl From<IdError> for Problem {
    fn from(error: IdError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<RoomNameError> for Problem {
    fn from(error: RoomNameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<BlobNameError> for Problem {
    fn from(error: BlobNameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<KeyNameError> for Problem {
    fn from(error: KeyNameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<StoreError> for Problem {
    /// What services keep beside players is the store's alone, and whoever has a key may hear what the store says.
    fn from(error: StoreError) -> Self {
        HomeError::Store(error).into()
    }
}

impl From<RateLimited> for Problem {
    fn from(limited: RateLimited) -> Self {
        let body = ErrorBody::new(ErrorCode::RateLimited, "too many requests with this key");
        body.after(u64::from(limited.retry_after_ms)).into()
    }
}

/// What HTTP calls a code; `protocol/README.md` section 11 has the same table.
pub(super) const fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest | ErrorCode::BadFrame => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized | ErrorCode::TokenExpired | ErrorCode::NotLoggedIn => {
            StatusCode::UNAUTHORIZED
        }
        ErrorCode::Forbidden | ErrorCode::Banned => StatusCode::FORBIDDEN,
        ErrorCode::NotFound | ErrorCode::NotResumable | ErrorCode::UnknownOp => StatusCode::NOT_FOUND,
        ErrorCode::Behind
        | ErrorCode::RolledBack
        | ErrorCode::StateConflict
        | ErrorCode::SessionLimit
        | ErrorCode::CseqGap
        | ErrorCode::RoomFull
        | ErrorCode::OutOfBounds
        | ErrorCode::LockHeld
        | ErrorCode::LockLost
        | ErrorCode::AlreadyLoggedIn => StatusCode::CONFLICT,
        ErrorCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::StoreUnavailable | ErrorCode::Overloaded | ErrorCode::Maintenance | ErrorCode::NotHome => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// The same for every occurrence of a code, as RFC 9457 wants a title.
const fn title_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadFrame | ErrorCode::BadRequest => "The request is not what it must be",
        ErrorCode::UnknownOp => "This version does not do that",
        ErrorCode::TooLarge => "Over a limit",
        ErrorCode::NotLoggedIn | ErrorCode::Unauthorized => "The key is missing or not good",
        ErrorCode::AlreadyLoggedIn => "There is a session already",
        ErrorCode::TokenExpired => "The token has expired",
        ErrorCode::Banned => "The player is banned",
        ErrorCode::SessionLimit => "The login policy refuses one more session",
        ErrorCode::NotResumable => "The session cannot be taken up",
        ErrorCode::NotHome => "The player's home cannot answer now",
        ErrorCode::StateConflict => "The state has changed",
        ErrorCode::CseqGap => "The counter leaves a gap",
        ErrorCode::Behind => "The stamp is not reached yet",
        ErrorCode::RolledBack => "The stamp lies on a lost line",
        ErrorCode::RateLimited => "Too many requests",
        ErrorCode::StoreUnavailable => "The store has not done its part",
        ErrorCode::Overloaded => "The server sheds load",
        ErrorCode::Maintenance => "Closed for maintenance",
        ErrorCode::NotFound => "No such thing",
        ErrorCode::RoomFull => "The room is full",
        ErrorCode::OutOfBounds => "The counter is at its bound",
        ErrorCode::PreconditionFailed => "What is stored is not what was asked for",
        ErrorCode::LockHeld => "Somebody else has the lock",
        ErrorCode::LockLost => "The lock is not the caller's",
        ErrorCode::Forbidden => "Not allowed",
        ErrorCode::Internal => "A fault of the server",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, error, value, etag } = self;
        let is_in_force = error.applied == Some(true);
        let retry_after_ms = error.retry_after_ms;
        let details = Details {
            r#type: format!("urn:hearth:problem:{}", error.code.name()).into(),
            title: title_of(error.code).into(),
            status: status.as_u16(),
            detail: error.message.into(),
            code: error.code.name().into(),
            temporary: error.temporary,
            retry_after_ms,
            expected: error.expected,
            state_stamp: error.state_stamp,
            applied: error.applied,
            stamp: error.stamp,
            to: error.to,
            reason: error.reason,
            value,
            etag,
        };
        // Texts and numbers always serialise.
        let body = serde_json::to_vec(&details).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        // For those whom the status tells too little.
        response.extensions_mut().insert(error.code);
        if is_in_force {
            response.extensions_mut().insert(InForce);
        }
        let headers = response.headers_mut();
        if let Some(Ok(etag)) = details.etag.map(HeaderValue::try_from) {
            headers.insert(header::ETAG, etag);
        }
        if let Some(retry_after_ms) = retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_ms.div_ceil(1_000).max(1)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_status_that_the_specification_says() {
        let readme = include_str!("../../protocol/README.md");
        let (_, section) = readme.split_once("## 11. The service API").expect("the section");
        let mut told = 0;
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let Some((codes, status)) = row.rsplit_once(" | ") else { continue };
            let Ok(status) = status.trim_end_matches(" |").parse::<u16>() else { continue };
            for code in ErrorCode::ALL {
                if codes.contains(&format!("`{}`", code.name())) {
                    assert_eq!(status_of(*code).as_u16(), status, "{}", code.name());
                    told += 1;
                }
            }
        }
        assert!(told >= 18, "the table was not found: {told} rows");
    }

    #[test]
    fn what_is_temporary_says_when_to_come_back() {
        let response = Problem::from(HomeError::NotHome { retry_after_ms: 1_001 }).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers().get(header::RETRY_AFTER).unwrap(), "2");
        assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), "application/problem+json");
    }
}
