//! The house's words in the wire's, and back: stamps, values, errors. The one place where an error of the house becomes
//! a code; `service` says in `problem` what HTTP calls it. Pure; called by `session` and `service`.

use protocol::codes::{CloseCode, ErrorCode};
use protocol::reply::ErrorBody;
use protocol::{Stamp as WireStamp, Value};

use crate::events::EndReason;
use crate::home::record::Refusal;
use crate::home::{HomeError, StoreError};
use crate::ids::{Epoch, Stamp, Version};

/// When to try again after a refusal that names no time of its own, in ms.
pub const RETRY_AFTER_MS: u64 = 1_000;

/// A stamp as the wire writes it.
#[must_use]
pub const fn wire_stamp(stamp: Stamp) -> WireStamp {
    (stamp.epoch.number(), stamp.version.number())
}

/// A stamp that came over the wire.
#[must_use]
pub const fn house_stamp((epoch, version): WireStamp) -> Stamp {
    Stamp::new(Epoch::of(epoch), Version::of(version))
}

/// A value as a record keeps it.
#[must_use]
pub fn write_value(value: &Value) -> Box<[u8]> {
    // Every value of the wire serialises.
    rmp_serde::to_vec(value).unwrap_or_default().into_boxed_slice()
}

/// A value that a record kept.
#[must_use]
pub fn read_value(packed: &[u8]) -> Value {
    rmp_serde::from_slice(packed).unwrap_or_default()
}

/// An error with its code and all that the code adds.
#[must_use]
pub fn error_of(error: &HomeError) -> ErrorBody {
    let body = ErrorBody::new(code_of(error), error.to_string());
    match error {
        HomeError::Refused(Refusal::CseqGap { expected }) => ErrorBody { expected: Some(*expected), ..body },
        HomeError::Refused(Refusal::StateConflict { state_stamp }) => {
            ErrorBody { state_stamp: Some(wire_stamp(*state_stamp)), ..body }
        }
        HomeError::Refused(Refusal::Banned { reason } | Refusal::Kicked { reason, .. }) => {
            ErrorBody { reason: Some(reason.as_ref().into()), ..body }
        }
        HomeError::Refused(Refusal::LostWithStore) => ErrorBody { lost: Some(true), ..body },
        HomeError::NotHome { retry_after_ms } => body.after(*retry_after_ms),
        HomeError::Store(_)
        | HomeError::NotDurable
        | HomeError::NotReplicated
        | HomeError::Overloaded
        | HomeError::Refused(Refusal::TooMuchTalk) => body.after(RETRY_AFTER_MS),
        HomeError::Refused(_) | HomeError::Corrupt => body,
    }
}

/// The code with which a link is closed whose session ended so.
#[must_use]
pub const fn end_code(reason: &EndReason) -> u16 {
    match reason {
        EndReason::Logout => CloseCode::Done.number(),
        EndReason::Expired => CloseCode::SessionExpired.number(),
        EndReason::Replaced => CloseCode::Replaced.number(),
        EndReason::SessionLimit => CloseCode::SessionLimit.number(),
        EndReason::Banned { .. } => CloseCode::Banned.number(),
        EndReason::Kicked { code, .. } => *code,
    }
}

const fn code_of(error: &HomeError) -> ErrorCode {
    match error {
        HomeError::Refused(refusal) => match refusal {
            Refusal::NoSession | Refusal::NotResumable | Refusal::LostWithStore => ErrorCode::NotResumable,
            Refusal::CseqGap { .. } => ErrorCode::CseqGap,
            Refusal::StateConflict { .. } => ErrorCode::StateConflict,
            Refusal::TooLarge(_) => ErrorCode::TooLarge,
            Refusal::BadRequest(_) => ErrorCode::BadRequest,
            Refusal::SessionLimit => ErrorCode::SessionLimit,
            Refusal::TokenExpired | Refusal::TokenRevoked => ErrorCode::TokenExpired,
            Refusal::Banned { .. } => ErrorCode::Banned,
            Refusal::NotBanned => ErrorCode::NotFound,
            Refusal::Behind => ErrorCode::Behind,
            Refusal::Forbidden(_) | Refusal::Kicked { .. } => ErrorCode::Forbidden,
            Refusal::RoomFull => ErrorCode::RoomFull,
            Refusal::TooMuchTalk => ErrorCode::Overloaded,
        },
        HomeError::NotHome { .. } => ErrorCode::NotHome,
        HomeError::Store(StoreError::Crowded) => ErrorCode::Overloaded,
        HomeError::Store(_) | HomeError::NotDurable | HomeError::NotReplicated => ErrorCode::StoreUnavailable,
        HomeError::Overloaded => ErrorCode::Overloaded,
        HomeError::Corrupt => ErrorCode::Internal,
    }
}
