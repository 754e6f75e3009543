//! How a link ends: why, with which code, and what is still said. Called by `link`, `notices` and the handshake.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use protocol::codes::{Advice, advice};
use protocol::push::Bye;
use protocol::request::Op;
use protocol::{CloseCode, Encoding};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCloseCode;

use super::link::LinkSocket;
use super::outbox::Outbox;
use crate::hub::Closing;

/// How long saying goodbye may take.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// How a link ended.
#[derive(Debug)]
pub(super) enum Closed {
    /// The client closed it, or the connection broke.
    ByClient,
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

pub(super) fn closed_by(error: &WsError) -> Closed {
    let close = |code, reason| Closed::ByServer(closing_of(code, reason));
    match error {
        WsError::Capacity(_) => close(CloseCode::MessageTooBig, "the frame is over the limit"),
        WsError::Utf8(_) => close(CloseCode::NotUtf8, "a text frame must be UTF-8"),
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Closed::ByClient,
        WsError::WriteBufferFull(_) => close(CloseCode::InternalFault, "more to say than a link can hold"),
        WsError::Protocol(_) => close(CloseCode::ProtocolViolation, "RFC 6455 was violated"),
        _ => Closed::ByClient,
    }
}

/// `bye`, the close frame, and a moment for the client to read both: a socket closed with unread data resets.
pub async fn goodbye<S: LinkSocket>(ws: &mut WebSocketStream<S>, encoding: Encoding, closing: Closing) {
    let bye = Bye {
        code: closing.code,
        reason: closing.reason.into(),
        resume: advice(closing.code) == Advice::Resume,
        retry_after_ms: closing.retry_after_ms,
    };
    let mut outbox = Outbox::new(encoding);
    outbox.add(Op::Bye, 0, &bye);
    let reason = bye.reason.chars().take(100).collect::<String>();
    let close = CloseFrame { code: WsCloseCode::from(closing.code), reason: reason.into() };
    let parting = async {
        for message in outbox.take() {
            ws.feed(message).await?;
        }
        ws.close(Some(close)).await?;
        while let Some(Ok(_)) = ws.next().await {}
        Ok::<(), WsError>(())
    };
    let _ = tokio::time::timeout(GOODBYE, parting).await;
}
