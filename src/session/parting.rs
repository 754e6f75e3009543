//! How a link ends: why, with which code, and what is still said. Called by `link`, `notices` and the handshake.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use protocol::codes::{Advice, advice};
use protocol::push::Bye;
use protocol::request::Op;
use protocol::{CloseCode, Encoding};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::fragments::Stretched;
use super::link::{ClientSocket, LinkSocket};
use super::outbox::message_of;
use crate::hub::Closing;

/// How long saying goodbye may take.
pub const GOODBYE: Duration = Duration::from_secs(1);
/// A control frame holds 125 bytes, and a close code takes two of them.
const CLOSE_REASON_BYTES_MAX: usize = 123;
/// What is read and thrown away of those who are still sending when they are closed.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// What RFC 6455 calls an end without a close frame, and a close frame without a code.
pub(super) const BROKEN: u16 = 1006;
pub(super) const NO_CODE: u16 = 1005;

/// How a link ended.
#[derive(Debug)]
pub(super) enum Closed {
    /// The client closed it with this code (1005: with none), or the connection broke ([`BROKEN`]).
    ByClient(u16),
    /// The client closed it with 1000: the session is over.
    ByClientForGood,
    /// The server closes it.
    ByServer(Closing),
    /// The session was gone before its notice came.
    SessionGone,
}

/// A close with this code and reason.
pub(super) fn closing_of(code: CloseCode, reason: &str) -> Closing {
    Closing { code: code.number(), reason: reason.into(), retry_after_ms: None }
}

/// How a link ends after this error of its socket.
pub(super) fn closed_by(error: &WsError) -> Closed {
    closing_for(error).map_or(Closed::ByClient(BROKEN), Closed::ByServer)
}

/// What the client is told about an error of its socket; `None` when there is nobody left to tell.
#[must_use]
pub fn closing_for(error: &WsError) -> Option<Closing> {
    let close = |code, reason| Some(closing_of(code, reason));
    match (error, Stretched::behind(error)) {
        (_, Some(Stretched::Fragments)) => close(CloseCode::MessageTooBig, "a message of too many fragments"),
        (_, Some(Stretched::Time)) => close(CloseCode::TooSlow, "a message that is never whole"),
        (WsError::Capacity(_), _) => close(CloseCode::MessageTooBig, "the frame is over the limit"),
        (WsError::Utf8(_), _) => close(CloseCode::NotUtf8, "a text frame must be UTF-8"),
        (WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake), _) => None,
        (WsError::Protocol(_), _) => close(CloseCode::ProtocolViolation, "RFC 6455 was violated"),
        (WsError::WriteBufferFull(_), _) => {
            close(CloseCode::InternalFault, "more to say than a link can hold")
        }
        _ => None,
    }
}

/// `bye`, then the end.
pub async fn goodbye<S: LinkSocket>(ws: &mut ClientSocket<S>, encoding: Encoding, closing: Closing) {
    let bye = Bye {
        code: closing.code,
        reason: closing.reason.into(),
        // A player who was sent away for maintenance does not come back by herself, but her session waits for her.
        resume: advice(closing.code) == Advice::Resume || closing.code == CloseCode::Maintenance.number(),
        retry_after_ms: closing.retry_after_ms,
    };
    let last_words = std::iter::once(message_of(encoding, Op::Bye, &bye));
    part(ws, last_words, closing.code, &bye.reason).await;
}

/// Last words, the close frame, and a moment for the client to read both.
pub async fn part<S: LinkSocket>(
    ws: &mut ClientSocket<S>,
    last_words: impl Iterator<Item = Message>,
    code: u16,
    reason: &str,
) {
    // `bye` has said all of it.
    let reason = reason.get(..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)).unwrap_or_default();
    let close = CloseFrame { code: WsCloseCode::from(code), reason: reason.into() };
    let parting = async {
        for message in last_words {
            ws.feed(message).await?;
        }
        ws.close(Some(close)).await?;
        while let Some(Ok(_)) = ws.next().await {}
        linger(ws.get_mut().inner_mut()).await;
        Ok::<(), WsError>(())
    };
    let _ = tokio::time::timeout(GOODBYE, parting).await;
}

/// Says that nothing more comes, and reads on until the other side has heard it: a socket closed with unread data
/// resets, and a reset can overtake what was said last. Give it a deadline; it has no patience with floods.
pub async fn linger<S: LinkSocket>(socket: &mut S) {
    let _ = socket.shutdown().await;
    let mut scrap = [0; 1024];
    let mut left = LINGER_BYTES_MAX;
    while let Ok(read @ 1..) = socket.read(&mut scrap).await {
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Gulp, MessageBounds, WholeMessages};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    #[tokio::test]
    async fn a_long_reason_in_any_script_fits_the_close_frame_and_is_whole_in_bye() {
        let reason = "ß".repeat(200);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let bounds = MessageBounds { fragments_max: 1, timeout: GOODBYE };
        let watched = WholeMessages::new(Gulp::new(far), bounds);
        let mut server = WebSocketStream::from_raw_socket(watched, Role::Server, None).await;
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let closing = Closing { code: 4502, reason: reason.as_str().into(), retry_after_ms: None };
        let hearing = async {
            let (bye, close) = (client.next().await, client.next().await);
            let _ = client.next().await;
            drop(client);
            (bye, close)
        };
        let (_, (bye, close)) = tokio::join!(goodbye(&mut server, Encoding::Json, closing), hearing);
        assert!(matches!(bye, Some(Ok(Message::Text(text))) if text.contains(&reason)));
        let Some(Ok(Message::Close(Some(close)))) = close else { panic!("{close:?}") };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (4502, "ß".repeat(61).as_str()));
    }
}
