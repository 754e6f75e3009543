//! `/v1/players/{player}/blobs/{name}`: large data beside the session, by reference. Any node reads and writes it: the store
//! alone holds it, and compares tags there (RFC 9110: ETag, If-Match, If-None-Match). How many are under way at a time, and
//! so the memory that they take, is bounded.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use protocol::ErrorCode;
use protocol::reply::ErrorBody;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Service;
use super::body::{BODY_DEADLINE, PathBlob};
use super::door::{Reader, Writer};
use super::problem::Problem;
use crate::home::{
    Blob, BlobQuota, BlobRemoved, BlobTag, BlobWritten, CONTENT_TYPE_BYTES_MAX, Precondition, Tags,
};
use crate::wire::RETRY_AFTER_MS;

/// Of what nobody says what it is.
const UNKNOWN_TYPE: &str = "application/octet-stream";
/// Most tags that a call may name.
const TAGS_MAX: usize = 32;
/// How long a call waits until another one has made room for it.
const TURN: Duration = Duration::from_secs(1);
/// Above it a body is hashed where it holds up nobody: a megabyte takes milliseconds.
const HASH_HERE_BYTES: usize = 32 * 1024;

/// How large blobs may be.
#[derive(Debug, Clone, Copy)]
pub struct BlobBounds {
    /// One.
    pub bytes_max: usize,
    /// All of one player, in bytes.
    pub player_bytes_max: u64,
    /// All of one player, in number.
    pub player_count_max: u64,
    /// Calls under way at a time, at this node.
    pub in_flight_max: usize,
}

/// `GET /v1/players/{player}/blobs/{name}`
pub(super) async fn read(
    State(service): State<Arc<Service>>,
    _: Reader,
    PathBlob(player, name): PathBlob,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let precondition = precondition(&headers)?;
    let turn = turn_of(&service.blob_turns).await?;
    let blob = service.home.read_blob(player, name).await?.ok_or_else(no_such)?;
    let is_as_said = Precondition { is_not: None, ..precondition.clone() }.holds(Some(blob.tag));
    if !is_as_said {
        return Err(unmet(Some(blob.tag)));
    }
    let mut response = if precondition.holds(Some(blob.tag)) {
        // Counted as under way until the last byte has gone to the connection.
        let body = Bytes::from_owner(Counted { body: blob.body, _turn: turn });
        let content_type = HeaderValue::try_from(&*blob.content_type);
        let mut response = Body::from(body).into_response();
        let unknown = HeaderValue::from_static(UNKNOWN_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type.unwrap_or(unknown));
        response
    } else {
        StatusCode::NOT_MODIFIED.into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag(blob.tag));
    // Whoever keeps it asks whether it is still the same.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// `PUT /v1/players/{player}/blobs/{name}`
pub(super) async fn put(
    State(service): State<Arc<Service>>,
    _: Writer,
    PathBlob(player, name): PathBlob,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let precondition = precondition(&headers)?;
    let content_type = content_type(&headers)?;
    is_whole_and_plain(&headers)?;
    let BlobBounds { bytes_max, player_bytes_max, player_count_max, .. } = service.settings.blobs;
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|said| usize::try_from(said).is_ok_and(|said| said > bytes_max)) {
        return Err(too_large(bytes_max));
    }
    // Bodies that do not come on keep out other uploads alone.
    let _upload = turn_of(&service.blob_uploads).await?;
    let body = match tokio::time::timeout(BODY_DEADLINE, gathered(body, bytes_max)).await {
        Ok(Ok(body)) => body,
        Ok(Err(NotGathered::TooLarge)) => return Err(too_large(bytes_max)),
        Ok(Err(NotGathered::Broken)) => return Err(Problem::bad_request("the body did not arrive whole")),
        Err(_) => {
            return Err(Problem::bad_request("the body took too long to arrive")
                .with_status(StatusCode::REQUEST_TIMEOUT));
        }
    };
    let _turn = turn_of(&service.blob_turns).await?;
    let blob = made(content_type, body).await?;
    let (tag, quota) = (blob.tag, BlobQuota { bytes_max: player_bytes_max, count_max: player_count_max });
    let status = match service.home.put_blob((player, name), blob, precondition, quota).await? {
        BlobWritten::Made => StatusCode::CREATED,
        BlobWritten::Replaced => StatusCode::NO_CONTENT,
        BlobWritten::Unmet { stored } => return Err(unmet(stored)),
        BlobWritten::Full(would_be) => {
            return Err(Problem::new(
                ErrorCode::TooLarge,
                format!(
                    "the player's blobs would be {} with {} bytes; she may have {player_count_max} with {player_bytes_max}",
                    would_be.count, would_be.bytes
                ),
            ));
        }
    };
    let mut response = status.into_response();
    response.headers_mut().insert(header::ETAG, etag(tag));
    Ok(response)
}

/// `DELETE /v1/players/{player}/blobs/{name}`
pub(super) async fn remove(
    State(service): State<Arc<Service>>,
    _: Writer,
    PathBlob(player, name): PathBlob,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let precondition = precondition(&headers)?;
    match service.home.remove_blob(player, name, precondition).await? {
        BlobRemoved::Removed => Ok(StatusCode::NO_CONTENT),
        BlobRemoved::Missing => Err(no_such()),
        BlobRemoved::Unmet { stored } => Err(unmet(Some(stored))),
    }
}

/// A place among those under way.
async fn turn_of(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Problem> {
    let turn = tokio::time::timeout(TURN, Arc::clone(turns).acquire_owned()).await;
    turn.ok().and_then(Result::ok).ok_or_else(|| {
        let body = ErrorBody::new(ErrorCode::Overloaded, "as many blobs are under way as may be");
        body.after(RETRY_AFTER_MS).into()
    })
}

/// A body that counts as under way for as long as somebody has it.
struct Counted {
    body: Bytes,
    _turn: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

async fn made(content_type: String, body: Bytes) -> Result<Blob, Problem> {
    if body.len() <= HASH_HERE_BYTES {
        return Ok(Blob::new(&content_type, body));
    }
    let made = tokio::task::spawn_blocking(move || Blob::new(&content_type, body)).await;
    made.map_err(|_| Problem::new(ErrorCode::Internal, "the blob could not be hashed"))
}

fn no_such() -> Problem {
    Problem::not_found("the player has no blob of this name")
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(ErrorCode::TooLarge, format!("a blob has at most {bytes_max} bytes"))
}

fn unmet(stored: Option<BlobTag>) -> Problem {
    let told = match stored {
        Some(_) => "another blob is stored than If-Match and If-None-Match ask for",
        None => "no blob of this name is stored, and If-Match asks for one",
    };
    Problem::new(ErrorCode::PreconditionFailed, told).with_etag(stored.map(etag_text))
}

/// Why there is no whole body.
#[derive(Debug, PartialEq, Eq)]
enum NotGathered {
    /// It is longer than it may be: the rest is not read.
    TooLarge,
    /// Its connection broke.
    Broken,
}

/// A body of at most so many bytes.
async fn gathered(body: Body, bytes_max: usize) -> Result<Bytes, NotGathered> {
    let (mut pieces, mut whole) = (body.into_data_stream(), BytesMut::new());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| NotGathered::Broken)?;
        if whole.len() + piece.len() > bytes_max {
            return Err(NotGathered::TooLarge);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

fn etag_text(tag: BlobTag) -> String {
    format!("\"{:032x}\"", tag.bits())
}

fn etag(tag: BlobTag) -> HeaderValue {
    // Digits in quotes are good in any header.
    HeaderValue::try_from(etag_text(tag)).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

fn content_type(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(UNKNOWN_TYPE.to_owned()) };
    let text = value.to_str().ok().filter(|text| text.len() <= CONTENT_TYPE_BYTES_MAX && text.contains('/'));
    text.map(str::to_owned).ok_or_else(|| {
        Problem::bad_request(format!("Content-Type: at most {CONTENT_TYPE_BYTES_MAX} bytes, as in image/png"))
    })
}

/// A part is not stored as the whole, nor what is packed as what it is (RFC 9110, sections 14.5 and 8.4).
fn is_whole_and_plain(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(Problem::bad_request("a blob is stored whole: no Content-Range"));
    }
    let is_plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(is_plain) {
        return Ok(());
    }
    Err(Problem::bad_request(
        "a blob is stored as it is: no Content-Encoding, say what it is in Content-Type",
    )
    .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

/// Whether a tag that somebody calls weak (`W/"…"`) may stand for ours: in If-None-Match it does, in If-Match it does not
/// (RFC 9110, section 13.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weakly {
    Compared,
    Never,
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    Ok(Precondition {
        is: tags(headers, &header::IF_MATCH, Weakly::Never)?,
        is_not: tags(headers, &header::IF_NONE_MATCH, Weakly::Compared)?,
    })
}

/// The tags that a header names; `None` without it.
fn tags(headers: &HeaderMap, name: &HeaderName, weakly: Weakly) -> Result<Option<Tags>, Problem> {
    let fault = || {
        Problem::bad_request(format!("{name}: * or at most {TAGS_MAX} tags in quotes, with commas between"))
    };
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let (mut tags, mut count, mut is_any) = (Vec::new(), 0, false);
    for line in lines {
        let mut rest = line.to_str().map_err(|_| fault())?.trim();
        if rest == "*" {
            is_any = true;
            continue;
        }
        while !rest.is_empty() {
            let (is_weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
            let (tag, after) =
                quoted.strip_prefix('"').and_then(|open| open.split_once('"')).ok_or_else(fault)?;
            count += 1;
            if count > TAGS_MAX {
                return Err(fault());
            }
            // What is none of ours names nothing.
            let is_ours = tag.len() == 32
                && tag.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            let bits = u128::from_str_radix(tag, 16)
                .ok()
                .filter(|_| is_ours && (!is_weak || weakly == Weakly::Compared));
            tags.extend(bits.map(BlobTag::of));
            rest = match after.trim_start() {
                "" => "",
                after => after.strip_prefix(',').ok_or_else(fault)?.trim_start(),
            };
        }
    }
    match (is_any, count) {
        (true, 0) => Ok(Some(Tags::Any)),
        (false, 1..) => Ok(Some(Tags::These(tags))),
        _ => Err(fault()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str], weakly: Weakly) -> Result<Option<Tags>, ()> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_MATCH, line.parse().unwrap());
        }
        tags(&headers, &header::IF_MATCH, weakly).map_err(|_| ())
    }

    #[test]
    fn tags_are_read_as_the_rfc_writes_them() {
        let (one, two) = (etag_text(BlobTag::of(1)), etag_text(BlobTag::of(2)));
        let these = |tags: &[u128]| Ok(Some(Tags::These(tags.iter().copied().map(BlobTag::of).collect())));
        assert_eq!(of(&[], Weakly::Never), Ok(None));
        assert_eq!(of(&["*"], Weakly::Never), Ok(Some(Tags::Any)));
        assert_eq!(of(&[&one], Weakly::Never), these(&[1]));
        assert_eq!(of(&[&format!(" {one} ,{two}")], Weakly::Never), these(&[1, 2]));
        assert_eq!(of(&[&one, &two], Weakly::Never), these(&[1, 2]));
        assert_eq!(of(&[&format!("W/{one}, {two}")], Weakly::Never), these(&[2]));
        assert_eq!(of(&[&format!("W/{one}, {two}")], Weakly::Compared), these(&[1, 2]));
        // Others' tags, which may hold commas, name nothing.
        assert_eq!(of(&[&format!("\"a,b\", \"\", {one}")], Weakly::Never), these(&[1]));
        assert_eq!(of(&["\"xyz\""], Weakly::Never), these(&[]));
        let many = [one.as_str(); TAGS_MAX + 1].join(",");
        for bad in ["", "1", "\"1", "**", &format!("*, {one}"), &format!("{one} {two}"), &many] {
            assert_eq!(of(&[bad], Weakly::Never), Err(()), "{bad}");
        }
        assert_eq!(of(&["*", &one], Weakly::Never), Err(()));
    }

    fn with(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_tag_that_a_proxy_has_made_weak_protects_what_is_stored_and_replaces_nothing() {
        let (tag, weak) = (BlobTag::of(1), format!("W/{}", etag_text(BlobTag::of(1))));
        let is_not = precondition(&with(&[(header::IF_NONE_MATCH, &weak)])).unwrap();
        assert!(!is_not.holds(Some(tag)) && is_not.holds(Some(BlobTag::of(2))));
        let is = precondition(&with(&[(header::IF_MATCH, &weak)])).unwrap();
        assert!(!is.holds(Some(tag)));
    }

    #[test]
    fn a_content_type_is_as_long_as_the_store_takes_it() {
        let of = |bytes: usize| {
            let text = format!("a/{}", "b".repeat(bytes - 2));
            content_type(&with(&[(header::CONTENT_TYPE, &text)])).map(|text| text.len())
        };
        assert_eq!(of(CONTENT_TYPE_BYTES_MAX).ok(), Some(CONTENT_TYPE_BYTES_MAX));
        assert!(of(CONTENT_TYPE_BYTES_MAX + 1).is_err());
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_told_from_one_that_breaks_off() {
        let of = |pieces: &[Result<&'static str, std::io::ErrorKind>]| {
            let pieces = pieces.iter().map(|piece| piece.map_err(std::io::Error::from)).collect::<Vec<_>>();
            gathered(Body::from_stream(futures_util::stream::iter(pieces)), 5)
        };
        let broken = std::io::ErrorKind::ConnectionReset;
        assert_eq!(of(&[Ok("abc"), Ok("de")]).await, Ok(Bytes::from("abcde")));
        assert_eq!(of(&[Ok("abc"), Ok("def"), Err(broken)]).await, Err(NotGathered::TooLarge));
        assert_eq!(of(&[Ok("abc"), Err(broken)]).await, Err(NotGathered::Broken));
        assert_eq!(of(&[]).await, Ok(Bytes::new()));
    }

    #[test]
    fn a_part_or_what_is_packed_is_not_stored_as_the_whole() {
        let status = |fields: &[(HeaderName, &str)]| {
            is_whole_and_plain(&with(fields)).map_err(|problem| problem.into_response().status().as_u16())
        };
        assert_eq!(status(&[]), Ok(()));
        assert_eq!(status(&[(header::CONTENT_ENCODING, "Identity")]), Ok(()));
        assert_eq!(status(&[(header::CONTENT_ENCODING, "gzip")]), Err(415));
        assert_eq!(status(&[(header::CONTENT_RANGE, "bytes 0-9/100")]), Err(400));
    }
}
