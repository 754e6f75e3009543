//! One peer link's task: the only writer of its socket. Sends what waits, hands on what comes, says every second that
//! it lives, and gives the link up when nothing was heard for three. Started by `links`, which keeps the other end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::post::{Frame, Incoming, Outgoing, Topic, Trace};
use crate::tasks::Tasks;

/// What nodes speak with each other.
pub const SUBPROTOCOL: &str = "hearth.peer.v1";
/// Between two signs of life.
const PULSE: Duration = Duration::from_secs(1);
/// Without any for this long a link is dead.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long saying why a link ends may take.
const GOODBYE: Duration = Duration::from_millis(200);
/// Said by a node that ends.
const IT_STOPS: &str = "it stops";
/// Largest frame: a hand-over's answer carries a shard's replay buffers in pieces below it.
const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Buffers of a link that is busy, and there are few.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(64 * 1024)
        .write_buffer_size(64 * 1024)
        .max_write_buffer_size(4 * FRAME_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the other node closed it: {0}")]
    Closed(String),
    /// The other process serves nobody from here on, and is gone in a moment.
    #[error("the other node closed it: {IT_STOPS}")]
    Left,
    #[error("it broke off without a word: the other node was killed, or the network between failed")]
    CutOff,
    #[error("nothing was heard for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the other node is behind by more than may wait")]
    Overflow,
    #[error("mail was lost")]
    Gap,
    #[error("what came is not what nodes say: {0}")]
    Garbled(String),
    #[error("it broke: {0}")]
    Broken(WsError),
    #[error("another link took its place")]
    Replaced,
    #[error("this node stops")]
    Stopping,
}

impl From<WsError> for Ended {
    fn from(error: WsError) -> Self {
        match error {
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::CutOff,
            WsError::Io(error)
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                Self::CutOff
            }
            error => Self::Broken(error),
        }
    }
}

impl Ended {
    /// What the other node is told, where it is this one that ends the link.
    const fn last_words(&self) -> Option<&'static str> {
        match self {
            Self::Stopping => Some(IT_STOPS),
            Self::Replaced => Some("another link took its place"),
            Self::Gap => Some("mail was lost"),
            Self::Garbled(_) => Some("what came is not what nodes say"),
            Self::Closed(_) | Self::Left | Self::CutOff | Self::Silent | Self::Overflow | Self::Broken(_) => {
                None
            }
        }
    }
}

/// What the task and those who post share.
#[derive(Debug, Default)]
pub(super) struct Wire {
    outgoing: Mutex<Outgoing>,
    /// Something waits to be sent, or the link is to end.
    stirred: Notify,
    end: Mutex<Option<Ended>>,
    /// The link is to end, also while the socket takes nothing.
    ending: Notify,
}

impl Wire {
    /// Puts a letter behind the others; a peer too far behind loses the link, and `false` says that nothing was posted.
    pub(super) fn post(&self, topic: Topic, body: Bytes) -> bool {
        let mut outgoing = self.outgoing.lock();
        let posted = outgoing.post(topic, body).is_ok();
        if posted {
            outgoing.follow(Instant::now);
        }
        drop(outgoing);
        if posted {
            self.stirred.notify_one();
        } else {
            self.end(Ended::Overflow);
        }
        posted
    }

    /// For how long the letter has been on its way that is followed.
    pub(super) fn mail_lag(&self) -> Duration {
        self.outgoing.lock().followed_since().map_or(Duration::ZERO, |posted_at| posted_at.elapsed())
    }

    /// Whether half of the letters that may wait do.
    pub(super) fn is_busy(&self) -> bool {
        self.outgoing.lock().is_busy()
    }

    /// Puts a frame before all letters. `false`: more wait than may, and nothing was put.
    pub(super) fn put(&self, frame: Frame) -> bool {
        let is_put = self.outgoing.lock().put(frame).is_ok();
        if is_put {
            self.stirred.notify_one();
        }
        is_put
    }

    /// The same of what must not be left out: a link that has no room for it ends.
    pub(super) fn must_put(&self, frame: Frame) {
        if !self.put(frame) {
            self.end(Ended::Overflow);
        }
    }

    /// Asks the task to end.
    pub(super) fn end(&self, why: Ended) {
        self.end.lock().get_or_insert(why);
        self.ending.notify_one();
    }

    async fn asked_to_end(&self) -> Ended {
        loop {
            self.ending.notified().await;
            if let Some(why) = self.end.lock().take() {
                return why;
            }
        }
    }
}

/// Who is told what comes.
pub(super) trait Hears {
    fn letter(&self, topic: Topic, body: Bytes);
    /// One of ours was seen so long after it was posted.
    fn seen_after(&self, took: Duration);
    fn call(&self, id: u64, topic: Topic, body: Bytes, trace: Option<Trace>);
    fn answer(&self, id: u64, body: Option<Bytes>);
}

/// Serves a link until it ends. Reading and writing go on beside each other: two nodes with more to say than their
/// sockets hold must not wait for one another.
pub(super) async fn run<S>(
    ws: WebSocketStream<S>,
    wire: &Arc<Wire>,
    hears: &impl Hears,
    tasks: &Tasks,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, stream) = ws.split();
    let incoming = Mutex::new(Incoming::default());
    let heard_at = Mutex::new(Instant::now());
    let ended = tokio::select! {
        () = tasks.stopping() => Ended::Stopping,
        ended = wire.asked_to_end() => ended,
        ended = read(stream, wire, hears, &incoming, &heard_at) => ended,
        ended = write(&mut sink, wire) => ended,
        ended = pulse(wire, &incoming, &heard_at) => ended,
    };
    if let Some(reason) = ended.last_words() {
        let close = CloseFrame { code: CloseCode::Away, reason: reason.into() };
        let _ = tokio::time::timeout(GOODBYE, sink.send(Message::Close(Some(close)))).await;
    }
    ended
}

async fn read<S>(
    mut stream: SplitStream<WebSocketStream<S>>,
    wire: &Wire,
    hears: &impl Hears,
    incoming: &Mutex<Incoming>,
    heard_at: &Mutex<Instant>,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = stream.next().await;
        *heard_at.lock() = Instant::now();
        let frame = match message {
            Some(Ok(Message::Binary(bytes))) => match rmp_serde::from_slice(&bytes) {
                Ok(frame) => frame,
                Err(error) => return Ended::Garbled(error.to_string()),
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(Some(close)))) if close.reason.as_str() == IT_STOPS => return Ended::Left,
            Some(Ok(Message::Close(Some(close)))) => return Ended::Closed(close.reason.to_string()),
            Some(Ok(_)) | None => return Ended::Closed("it says no more".to_owned()),
            Some(Err(error)) => return error.into(),
        };
        if let Err(ended) = take(frame, wire, hears, incoming) {
            return ended;
        }
    }
}

async fn write<S>(sink: &mut SplitSink<WebSocketStream<S>, Message>, wire: &Wire) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        wire.stirred.notified().await;
        if let Err(error) = send_waiting(sink, wire).await {
            return error.into();
        }
    }
}

async fn pulse(wire: &Wire, incoming: &Mutex<Incoming>, heard_at: &Mutex<Instant>) -> Ended {
    let mut pulse = tokio::time::interval(PULSE);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        if heard_at.lock().elapsed() > SILENCE_MAX {
            return Ended::Silent;
        }
        let seen = incoming.lock().rest();
        seen.into_iter().for_each(|seen| wire.must_put(seen));
        wire.must_put(Frame::Ping);
    }
}

fn take(frame: Frame, wire: &Wire, hears: &impl Hears, incoming: &Mutex<Incoming>) -> Result<(), Ended> {
    match frame {
        Frame::Mail { first, letters } => {
            let bytes = letters.iter().map(|letter| letter.body.len()).sum();
            let told = incoming.lock().take(first, letters.len(), bytes).map_err(|_| Ended::Gap)?;
            letters.into_iter().for_each(|letter| hears.letter(letter.topic, letter.body));
            told.into_iter().for_each(|seen| wire.must_put(seen));
        }
        Frame::Seen { number } => {
            let posted_at = wire.outgoing.lock().seen(number);
            posted_at.into_iter().for_each(|posted_at| hears.seen_after(posted_at.elapsed()));
        }
        Frame::Call { id, topic, body, trace } => hears.call(id, topic, body, trace),
        Frame::Answer { id, body } => hears.answer(id, body),
        Frame::Ping => wire.must_put(Frame::Pong),
        Frame::Pong => {}
    }
    Ok(())
}

/// Sends what waits. Whoever does not read is noticed by what piles up, or by the silence.
async fn send_waiting<S>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    wire: &Wire,
) -> Result<(), WsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let Some(frame) = wire.outgoing.lock().next() else { return sink.flush().await };
        let bytes = rmp_serde::to_vec(&frame).map_err(|error| WsError::Io(std::io::Error::other(error)))?;
        sink.feed(Message::Binary(bytes.into())).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;
    use tokio_tungstenite::tungstenite::protocol::Role;

    /// Tells what was heard, as text.
    struct Teller(mpsc::Sender<String>);

    impl Teller {
        fn tell(&self, what: String) {
            self.0.try_send(what).unwrap();
        }
    }

    impl Hears for Teller {
        fn letter(&self, topic: Topic, body: Bytes) {
            self.tell(format!("{topic:?} {}", String::from_utf8_lossy(&body)));
        }
        fn seen_after(&self, _: Duration) {}
        fn call(&self, id: u64, _: Topic, body: Bytes, _: Option<Trace>) {
            self.tell(format!("call {id} {}", String::from_utf8_lossy(&body)));
        }
        fn answer(&self, id: u64, body: Option<Bytes>) {
            self.tell(format!("answer {id} {body:?}"));
        }
    }

    struct Node {
        wire: Arc<Wire>,
        heard: mpsc::Receiver<String>,
        ended: tokio::task::JoinHandle<Ended>,
    }

    #[allow(clippy::disallowed_methods, reason = "a test's own task")]
    fn node(stream: DuplexStream, role: Role) -> Node {
        let (wire, (sender, heard)) = (Arc::new(Wire::default()), mpsc::channel(100_000));
        let task = Arc::clone(&wire);
        let ended = tokio::spawn(async move {
            let ws = WebSocketStream::from_raw_socket(stream, role, Some(config())).await;
            run(ws, &task, &Teller(sender), &Tasks::new()).await
        });
        Node { wire, heard, ended }
    }

    fn pair() -> (Node, Node) {
        let (one, other) = tokio::io::duplex(64 * 1024);
        (node(one, Role::Client), node(other, Role::Server))
    }

    #[tokio::test]
    async fn letters_come_in_order_both_ways_and_calls_are_answered() {
        let (mut ann, mut bob) = pair();
        for n in 0..10_000 {
            assert!(ann.wire.post(Topic::Presence, n.to_string().into()));
            assert!(bob.wire.post(Topic::Home, n.to_string().into()));
        }
        for n in 0..10_000 {
            assert_eq!(bob.heard.recv().await, Some(format!("Presence {n}")));
            assert_eq!(ann.heard.recv().await, Some(format!("Home {n}")));
        }
        ann.wire.put(Frame::Call { id: 7, topic: Topic::Home, body: "where".into(), trace: None });
        assert_eq!(bob.heard.recv().await.as_deref(), Some("call 7 where"));
        bob.wire.put(Frame::Answer { id: 7, body: None });
        assert_eq!(ann.heard.recv().await.as_deref(), Some("answer 7 None"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_given_up_and_one_that_lives_is_not() {
        let (ann, bob) = pair();
        tokio::time::sleep(SILENCE_MAX * 10).await;
        assert!(!ann.ended.is_finished() && !bob.ended.is_finished());
        let (mute, _held) = tokio::io::duplex(64 * 1024);
        let lonely = node(mute, Role::Client);
        assert!(matches!(lonely.ended.await.unwrap(), Ended::Silent));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_loses_the_link_and_not_our_memory() {
        let (stream, _held) = tokio::io::duplex(1024);
        let slow = node(stream, Role::Client);
        let body = Bytes::from(vec![7; 1024 * 1024]);
        let mut posted = 0;
        while slow.wire.post(Topic::Presence, body.clone()) {
            posted += 1;
            assert!(posted <= 16, "bounded");
        }
        assert_eq!(posted, 16);
        let ended = tokio::time::timeout(PULSE, slow.ended).await.expect("at once").unwrap();
        assert!(matches!(ended, Ended::Overflow), "{ended}");
    }

    #[tokio::test]
    async fn a_link_that_is_ended_says_why_and_one_that_breaks_is_told_from_it() {
        let (ann, bob) = pair();
        ann.wire.end(Ended::Replaced);
        let told = bob.ended.await.unwrap().to_string();
        assert_eq!(told, "the other node closed it: another link took its place");
        let (ann, bob) = pair();
        ann.wire.end(Ended::Stopping);
        assert!(matches!(bob.ended.await.unwrap(), Ended::Left));
        let (stream, other) = tokio::io::duplex(1024);
        let node = node(stream, Role::Server);
        drop(other);
        assert!(matches!(node.ended.await.unwrap(), Ended::CutOff));
    }

    #[tokio::test(start_paused = true)]
    async fn letters_that_are_not_seen_are_late_and_those_that_are_seen_are_not() {
        let (ann, bob) = pair();
        for _ in 0..20 {
            assert!(ann.wire.post(Topic::Presence, "here".into()));
            tokio::time::sleep(PULSE / 2).await;
            assert!(ann.wire.mail_lag() <= 2 * PULSE, "{:?}", ann.wire.mail_lag());
        }
        // It lives and says so, and sees nothing.
        let (stream, other) = tokio::io::duplex(64 * 1024);
        let blind = node(stream, Role::Client);
        let mut other = WebSocketStream::from_raw_socket(other, Role::Server, None).await;
        assert!(blind.wire.post(Topic::Presence, "here".into()));
        for _ in 0..10 {
            tokio::time::sleep(PULSE).await;
            let pong = rmp_serde::to_vec(&Frame::Pong).unwrap();
            other.send(Message::Binary(pong.into())).await.unwrap();
        }
        assert!(blind.wire.mail_lag() >= 8 * PULSE, "{:?}", blind.wire.mail_lag());
        assert!(!bob.ended.is_finished());
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_the_link() {
        let (stream, other) = tokio::io::duplex(1024);
        let node = node(stream, Role::Server);
        let mut stranger = WebSocketStream::from_raw_socket(other, Role::Client, None).await;
        stranger.send(Message::Binary(vec![0xc1; 9].into())).await.unwrap();
        assert!(matches!(node.ended.await.unwrap(), Ended::Garbled(_)));
    }
}
