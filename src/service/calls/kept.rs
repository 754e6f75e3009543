//! The calls about what services keep: blobs, locks, counters.

use protocol::ErrorCode;
use protocol::calls::{Change, Counter, LockAcquired, LockAsk, LockRenewal, LockRenewed};
use serde_json::{Value, json};

use super::{Answer, Body, Call, Parameter};
use crate::service::{Scope, blobs, counters, locks, route};

pub(super) fn calls() -> Vec<Call> {
    let mut calls = of_blobs();
    calls.extend(of_locks());
    calls
}

/// Tags in quotes with commas between, or any.
fn tags() -> Value {
    let tag = "(W/)?\"[!#-~]{0,64}\"";
    json!({ "type": "string", "minLength": 1, "pattern": format!("^(\\*|{tag}( *, *{tag}){{0,31}})$") })
}

impl Call {
    /// It is done in the place of what the caller knows.
    fn conditional(self) -> Self {
        self.header("If-Match", "There must be one, with one of these tags, or with any (`*`).", tags())
            .header(
                "If-None-Match",
                "There must be none with one of these tags, or none at all (`*`).",
                tags(),
            )
            .refuses(&[ErrorCode::PreconditionFailed, ErrorCode::StoreUnavailable])
    }

    /// Only the holder of the lock can do it.
    fn by_its_holder(self) -> Self {
        self.parameter(Parameter {
            name: "Lock-Secret",
            place: "header",
            is_required: true,
            about: "What the answer carried that gave the lock.",
            schema: json!({ "type": "string", "pattern": "^[0-9a-f]{32}$" }),
        })
        .refuses(&[ErrorCode::BadRequest, ErrorCode::LockLost, ErrorCode::StoreUnavailable])
    }
}

fn of_blobs() -> Vec<Call> {
    let blob = |status, about, types, headers| Answer { status, about, types, schema: None, headers };
    // Of any type; the one that is named is for generators of clients that know no `*/*`.
    let any = &["application/octet-stream", "*/*"][..];
    let kept = &["ETag", "Cache-Control", "X-Content-Type-Options"][..];
    vec![
        Call::get(route::BLOB, blobs::read, ("getBlob", "Reads a blob of a player"))
            .more("Always whole: `Range` is ignored, and no answer has `Accept-Ranges`.")
            .needs(Scope::Read)
            .conditional()
            .answer(blob(200, "As it was written, with the `Content-Type` that it was written with.", any, kept))
            .answer(blob(304, "The caller has it already.", &[], kept))
            .refuses(&[ErrorCode::Overloaded]),
        Call::put(route::BLOB, blobs::put, ("putBlob", "Writes a blob of a player"))
            .more(
                "Bytes of any kind, up to 1 MiB, stored with their `Content-Type` (at most 255 bytes). Of one player there \
                 are at most 32 with 8 MiB, if nothing else is configured. The tag says content and type, not time.",
            )
            .needs(Scope::Write)
            .conditional()
            .bytes()
            .answer(blob(201, "It is stored, and there was none.", &[], &["ETag"]))
            .answer(blob(204, "It is stored in the place of another.", &[], &["ETag"]))
            .refuses(&[ErrorCode::Overloaded]),
        Call::delete(route::BLOB, blobs::remove, ("deleteBlob", "Deletes a blob of a player"))
            .needs(Scope::Write)
            .conditional()
            .answers_nothing(204, "It is gone."),
    ]
}

impl Call {
    /// It carries bytes of any kind.
    fn bytes(self) -> Self {
        let types = &["application/octet-stream"];
        // Nothing is a blob as well.
        let body = Body { types, is_required: false, schema: None, without: &[] };
        Self { body: Some(body), ..self }.refuses_bodies()
    }
}

fn of_locks() -> Vec<Call> {
    vec![
        Call::post(route::LOCK, locks::acquire, ("acquireLock", "Takes a lock"))
            .more(
                "Renew it at a third of `ttl_ms`, and hand `token` to whatever it protects. `wait_ms` stands in line for \
                 it. The Rust client does all that a holder must.",
            )
            .needs(Scope::Write)
            .body::<LockAsk>()
            .answers::<LockAcquired>(201, "It is the caller's.")
            .refuses(&[ErrorCode::LockHeld, ErrorCode::StoreUnavailable, ErrorCode::Overloaded]),
        Call::put(route::LOCK, locks::renew, ("renewLock", "Renews a lock"))
            .needs(Scope::Write)
            .by_its_holder()
            .body::<LockRenewal>()
            .answers::<LockRenewed>(200, "It is the caller's, from now."),
        Call::delete(route::LOCK, locks::release, ("releaseLock", "Gives a lock back"))
            .needs(Scope::Write)
            .by_its_holder()
            .answers_nothing(204, "It is free."),
        Call::post(route::COUNTER, counters::count, ("count", "Changes a counter, or looks at it with `by` 0"))
            .more("`max` bounds what rises, `min` what falls, each call names its own. A refusal carries `value`.")
            .needs(Scope::Write)
            .body::<Change>()
            .answers::<Counter>(200, "Where it stands.")
            .refuses(&[ErrorCode::OutOfBounds, ErrorCode::StoreUnavailable]),
    ]
}
