//! What a call carries: bodies in JSON or MessagePack, ids in paths. Called by handlers through their arguments. A
//! fault names its field; no body is read beyond its limit or its time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use protocol::limits::VALUE_DEPTH_MAX;
use protocol::plain::plain;
use protocol::{Encoding, ErrorCode, Text};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::problem::Problem;
use super::{BODY_BYTES_MAX, Service};
use crate::ids::{BlobName, KeyName, PlayerId, RoomName, SessionId};

/// Most players that a list of one call may name.
pub(super) const PLAYERS_MAX: usize = 1_000;
/// How long a body may take to arrive.
pub(super) const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Nesting that the MessagePack reader accepts: a body, a list or map in it, and a value in that.
const BODY_DEPTH_MAX: usize = VALUE_DEPTH_MAX + 4;

/// A whole body, not read yet.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Bytes,
    /// What it is written in.
    pub(super) encoding: Encoding,
}

/// A body in JSON.
#[derive(Debug)]
pub(super) struct JsonBody(pub(super) Body);

/// A body in JSON that may be left out; then it is an empty map.
#[derive(Debug)]
pub(super) struct OptionalBody(pub(super) Body);

impl FromRequest<Arc<Service>> for OptionalBody {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, Problem> {
        let is_json = named(request.headers(), header::CONTENT_TYPE).next() == Some(Encoding::Json);
        let body = Body::take(request, service, Encoding::Json).await?;
        // Many clients say what they would send, also where they send nothing.
        if body.bytes.is_empty() {
            return Ok(Self(Body { bytes: Bytes::from_static(b"{}"), encoding: Encoding::Json }));
        }
        if is_json {
            Ok(Self(body))
        } else {
            Err(unsupported("send the body as Content-Type: application/json"))
        }
    }
}

/// A body in JSON or MessagePack.
#[derive(Debug)]
pub(super) struct AnyBody(pub(super) Body);

impl FromRequest<Arc<Service>> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, Problem> {
        let encoding = named(request.headers(), header::CONTENT_TYPE).next();
        match encoding {
            Some(Encoding::Json) => Body::take(request, service, Encoding::Json).await.map(Self),
            _ => Err(unsupported("send the body as Content-Type: application/json")),
        }
    }
}

impl FromRequest<Arc<Service>> for AnyBody {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, Problem> {
        let encoding = named(request.headers(), header::CONTENT_TYPE).next();
        match encoding {
            Some(encoding) => Body::take(request, service, encoding).await.map(Self),
            None => {
                Err(unsupported("send the body as Content-Type: application/json or application/msgpack"))
            }
        }
    }
}

fn unsupported(detail: &str) -> Problem {
    Problem::bad_request(detail).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

impl Body {
    async fn take(request: Request, service: &Arc<Service>, encoding: Encoding) -> Result<Self, Problem> {
        if request.headers().get(header::CONTENT_ENCODING).is_some_and(|packed| packed != "identity") {
            return Err(unsupported("send the body as it is, without a Content-Encoding"));
        }
        match tokio::time::timeout(BODY_DEADLINE, Bytes::from_request(request, service)).await {
            Ok(Ok(bytes)) => Ok(Self { bytes, encoding }),
            Ok(Err(refused)) if refused.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Problem::new(ErrorCode::TooLarge, format!("a body has at most {BODY_BYTES_MAX} bytes")))
            }
            Ok(Err(_)) => Err(Problem::bad_request("the body did not arrive whole")),
            Err(_) => Err(Problem::bad_request("the body took too long to arrive")
                .with_status(StatusCode::REQUEST_TIMEOUT)),
        }
    }

    /// Reads the body, a map; unknown fields are ignored.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        let read = match self.encoding {
            Encoding::Json => read_json(&self.bytes),
            Encoding::MessagePack => read_msgpack(&self.bytes),
        };
        read.map_err(Problem::bad_request)
    }
}

fn read_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err("the body must be a JSON object".to_owned());
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| at_field(&error))?;
    reader.end().map_err(|_| "there is something after the body's object".to_owned())?;
    Ok(read)
}

fn read_msgpack<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    if !matches!(bytes, [0x80..=0x8f | 0xde | 0xdf, ..]) {
        return Err("the body must be a MessagePack map".to_owned());
    }
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(BODY_DEPTH_MAX);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| at_field(&error))?;
    // At the end there is no further marker to read; anything else is a byte too many.
    match IgnoredAny::deserialize(&mut reader) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(read),
        _ => Err("there is something after the body's map".to_owned()),
    }
}

fn at_field<E: std::fmt::Display>(error: &serde_path_to_error::Error<E>) -> String {
    let fault = plain(&error.inner().to_string());
    let path = error.path().to_string();
    // What stands there is not known where reading ended in the middle of it.
    match path.trim_end_matches('?').trim_end_matches('.') {
        "" => fault,
        path => format!("{path}: {fault}"),
    }
}

/// The encodings that a header names, in its order; others are passed over.
fn named(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = Encoding> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|item| {
        match item.split(';').next()?.trim().to_ascii_lowercase().as_str() {
            "application/json" => Some(Encoding::Json),
            "application/msgpack" | "application/vnd.msgpack" | "application/x-msgpack" => {
                Some(Encoding::MessagePack)
            }
            _ => None,
        }
    })
}

/// How the answer is to be written: the first that `Accept` names, else as the request was.
pub(super) fn answer_encoding(headers: &HeaderMap, asked_in: Encoding) -> Encoding {
    named(headers, header::ACCEPT).next().unwrap_or(asked_in)
}

/// The player of a path, percent-decoded.
pub(super) struct PathPlayer(pub(super) PlayerId);

impl FromRequestParts<Arc<Service>> for PathPlayer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Problem> {
        Ok(Self(PlayerId::parse(&segment(parts, service).await?)?))
    }
}

/// The session of a path.
pub(super) struct PathSession(pub(super) SessionId);

impl FromRequestParts<Arc<Service>> for PathSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Problem> {
        Ok(Self(SessionId::parse(&segment(parts, service).await?)?))
    }
}

/// The room of a path.
pub(super) struct PathRoom(pub(super) RoomName);

impl FromRequestParts<Arc<Service>> for PathRoom {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Problem> {
        Ok(Self(RoomName::parse(&segment(parts, service).await?)?))
    }
}

/// The lock or counter of a path.
pub(super) struct PathKey(pub(super) KeyName);

impl FromRequestParts<Arc<Service>> for PathKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Problem> {
        Ok(Self(KeyName::parse(&segment(parts, service).await?)?))
    }
}

/// The player and the blob of a path.
pub(super) struct PathBlob(pub(super) PlayerId, pub(super) BlobName);

impl FromRequestParts<Arc<Service>> for PathBlob {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Problem> {
        let segments = Path::<(String, String)>::from_request_parts(parts, service).await;
        let Path((player, name)) =
            segments.map_err(|_| Problem::bad_request("an id in the path is not UTF-8"))?;
        Ok(Self(PlayerId::parse(&player)?, BlobName::parse(&name)?))
    }
}

/// The room and the member of a path.
pub(super) struct PathMember(pub(super) RoomName, pub(super) PlayerId);

impl FromRequestParts<Arc<Service>> for PathMember {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Problem> {
        let segments = Path::<(String, String)>::from_request_parts(parts, service).await;
        let Path((room, player)) =
            segments.map_err(|_| Problem::bad_request("an id in the path is not UTF-8"))?;
        Ok(Self(RoomName::parse(&room)?, PlayerId::parse(&player)?))
    }
}

async fn segment(parts: &mut Parts, service: &Arc<Service>) -> Result<String, Problem> {
    let segment = Path::<String>::from_request_parts(parts, service).await;
    segment.map(|Path(text)| text).map_err(|_| Problem::bad_request("the id in the path is not UTF-8"))
}

/// All players that a list of a body names; a fault says which.
pub(super) fn players_of(field: &str, players: &[Text<'_>]) -> Result<Vec<PlayerId>, Problem> {
    if players.len() > PLAYERS_MAX {
        return Err(Problem::new(ErrorCode::TooLarge, format!("{field}: at most {PLAYERS_MAX} a call")));
    }
    let place = |(at, player): (usize, &Text<'_>)| {
        // The place is for a fault alone: it is not written for a thousand good ones.
        PlayerId::parse(player.as_str())
            .map_err(|error| Problem::bad_request(format!("{field}[{at}]: {error}")))
    };
    players.iter().enumerate().map(place).collect()
}

/// A player that a body names.
pub(super) fn player_of(field: &str, text: &str) -> Result<PlayerId, Problem> {
    PlayerId::parse(text).map_err(|error| Problem::bad_request(format!("{field}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Value;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    struct Sample<'a> {
        #[serde(borrow)]
        players: Vec<Text<'a>>,
        #[serde(default)]
        data: Value,
        #[serde(borrow, default)]
        incr: BTreeMap<Text<'a>, i64>,
    }

    fn body(encoding: Encoding, bytes: &[u8]) -> Body {
        Body { bytes: Bytes::copy_from_slice(bytes), encoding }
    }

    fn fault(bytes: &[u8], encoding: Encoding) -> String {
        let read = match encoding {
            Encoding::Json => read_json::<Sample<'_>>(bytes).map(|_| ()),
            Encoding::MessagePack => read_msgpack::<Sample<'_>>(bytes).map(|_| ()),
        };
        read.expect_err("a fault")
    }

    #[test]
    fn both_encodings_are_read_and_unknown_fields_are_ignored() {
        let json = body(Encoding::Json, br#" {"players": ["ann"], "data": [1], "new": {"a": [{}]}} "#);
        let read: Sample<'_> = json.read().unwrap();
        assert_eq!((read.players[0].as_str(), &read.data), ("ann", &Value::List(vec![Value::Int(1)])));
        let packed = body(Encoding::MessagePack, b"\x82\xa7players\x91\xa3ann\xa3new\x81\xa1a\x90");
        let read: Sample<'_> = packed.read().unwrap();
        assert_eq!(read.players[0].as_str(), "ann");
        assert!(read.incr.is_empty());
    }

    #[test]
    fn a_fault_names_its_field() {
        for (text, field) in [
            ("{}", "`players`"),
            (r#"{"players": "ann"}"#, "players: "),
            (r#"{"players": ["ann", 5]}"#, "players[1]: "),
            (r#"{"players": [], "incr": {"gold": "x"}}"#, "incr.gold: "),
            (r#"{"players": []} {}"#, "after the body"),
            ("[[\"ann\"]]", "a JSON object"),
            ("", "a JSON object"),
            (r#"{"players": ["#, "EOF"),
        ] {
            let told = fault(text.as_bytes(), Encoding::Json);
            assert!(told.contains(field), "{text}: {told}");
        }
        for (bytes, field) in [
            (&b"\x81\xa7players\x91\x05"[..], "players[0]: "),
            (b"\x81\xa7players\x90\x01", "after the body"),
            (b"\x91\x90", "a MessagePack map"),
            (b"", "a MessagePack map"),
            (b"\x81\xa7players\xdd\xff\xff\xff\xff", "players"),
        ] {
            let told = fault(bytes, Encoding::MessagePack);
            assert!(told.contains(field), "{bytes:?}: {told}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        for field in ["data", "new"] {
            let name = [&[0xa0 + u8::try_from(field.len()).unwrap()], field.as_bytes()].concat();
            let deep = [b"\x82\xa7players\x90".to_vec(), name, vec![0x91; 5_000], vec![1]];
            fault(&deep.concat(), Encoding::MessagePack);
        }
        let json = |field: &str, depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"players": [], "{field}": {open}1{close}}}"#)
        };
        fault(json("data", VALUE_DEPTH_MAX).as_bytes(), Encoding::Json);
        // What is ignored is passed over without a stack, however deep.
        assert!(read_json::<Sample<'_>>(json("new", 5_000).as_bytes()).is_ok());
    }

    #[test]
    fn the_answer_is_written_as_accept_says_else_as_the_request_was() {
        use Encoding::{Json, MessagePack};
        for (accept, asked_in, answered_in) in [
            (None, Json, Json),
            (None, MessagePack, MessagePack),
            (Some("*/*"), MessagePack, MessagePack),
            (Some("application/json"), MessagePack, Json),
            (Some("application/msgpack;q=0.9, application/json;q=0.1"), Json, MessagePack),
            (Some("text/html, Application/X-MsgPack"), Json, MessagePack),
        ] {
            let headers =
                accept.map(|accept| (header::ACCEPT, accept.parse().unwrap())).into_iter().collect();
            assert_eq!(answer_encoding(&headers, asked_in), answered_in, "{accept:?}");
        }
    }
}
