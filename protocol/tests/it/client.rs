//! What the Rust client does with what a server says: told against a scripted WebSocket server in the test.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use protocol::client::{CallError, Client, Config, DropKind, Event, Events, Happened, OkBody, Outcome, Push};
use protocol::request::{Ack, Request, StateGet, StatePatch};
use protocol::{Encoding, Value as WireValue, codec, reply, request};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request as Upgrade, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

const DEADLINE: Duration = Duration::from_secs(10);

/// A server that says only what the test tells it to.
struct Script {
    listener: TcpListener,
}

/// The server's end of one link.
struct Peer {
    socket: WebSocketStream<TcpStream>,
}

impl Script {
    async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn url(&self) -> String {
        format!("ws://{}/v1/connect", self.listener.local_addr().unwrap())
    }

    fn config(&self) -> Config {
        let mut config = Config::new(self.url(), || "dev:ann".to_owned());
        config.encoding = Encoding::Json;
        config
    }

    #[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    async fn accept(&self) -> Peer {
        let (tcp, _) = timeout(DEADLINE, self.listener.accept()).await.expect("a connection").unwrap();
        let choose = |upgrade: &Upgrade, mut response: Response| -> Result<Response, ErrorResponse> {
            let offered = upgrade.headers()["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", offered);
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(tcp, choose).await.unwrap();
        Peer { socket }
    }

    /// Accepts a link and lets it log in.
    async fn login(&self) -> Peer {
        let mut peer = self.accept().await;
        let (reference, body) = peer.expect("login").await;
        assert_eq!(body["token"], "dev:ann");
        peer.say(json!(["ready", reference, ready(json!({}))])).await;
        peer
    }

    /// Accepts a link and lets it resume; returns what it claimed.
    async fn resume(&self, with: Value) -> (Peer, Value) {
        let mut peer = self.accept().await;
        let (reference, claim) = peer.expect("resume").await;
        let mut body = ready(json!({"resumed": true, "ticket": "second", "replayed": 0}));
        body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        peer.say(json!(["ready", reference, body])).await;
        (peer, claim)
    }
}

fn ready(with: Value) -> Value {
    let mut body = json!({
        "session": "s1", "ticket": "first", "player": "ann", "stamp": [5, 1], "heartbeat_ms": 15000,
        "resume_ms": 60000, "expires_in_ms": 60000, "now_ms": 1, "node": "n#1", "resumed": false, "cseq": 0,
        "limits": {}
    });
    body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    body
}

impl Peer {
    async fn hear(&mut self) -> Option<Value> {
        loop {
            match timeout(DEADLINE, self.socket.next()).await.expect("a frame in time")? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next frame must be this op. Returns its `ref` and body.
    async fn expect(&mut self, op: &str) -> (u64, Value) {
        let frame = self.hear().await.expect("the link to live");
        assert_eq!(frame[0], op, "{frame}");
        (frame[1].as_u64().unwrap(), frame[2].clone())
    }

    async fn say(&mut self, frame: Value) {
        self.socket.send(Message::Text(frame.to_string().into())).await.unwrap();
    }

    async fn ok(&mut self, reference: u64, body: Value) {
        self.say(json!(["ok", reference, body])).await;
    }

    async fn refuse(&mut self, reference: u64, code: &str, with: Value) {
        let mut body = json!({"code": code, "message": "no", "temporary": false});
        body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        self.say(json!(["error", reference, body])).await;
    }

    async fn close(&mut self, code: u16) {
        self.socket.close(Some(CloseFrame { code: code.into(), reason: "".into() })).await.unwrap();
    }
}

async fn next(events: &mut Events) -> Happened {
    timeout(DEADLINE, events.next()).await.expect("an event in time").expect("the client to live").what
}

/// The next event that the choice takes; others are skipped.
async fn until<T>(events: &mut Events, choose: impl Fn(Happened) -> Option<T>) -> T {
    loop {
        if let Some(chosen) = choose(next(events).await) {
            return chosen;
        }
    }
}

async fn submit(client: &Client, tag: u64, request: Request<'static>) {
    timeout(DEADLINE, client.submit(tag, request, Instant::now())).await.unwrap().unwrap();
}

fn count_up() -> Request<'static> {
    Request::StatePatch(StatePatch { incr: Some([("n".into(), 1)].into()), ..StatePatch::default() })
}

async fn answer(events: &mut Events) -> protocol::client::Answered {
    until(events, |what| match what {
        Happened::Answered(answered) => Some(answered),
        _ => None,
    })
    .await
}

fn changed(version: u64) -> Value {
    json!({"stamp": [5, version], "state_stamp": [5, version], "ack": "applied"})
}

#[tokio::test]
async fn calls_find_their_answers_though_these_overtake_each_other() {
    let script = Script::start().await;
    let (client, mut events) = Client::start(script.config());
    let mut peer = script.login().await;
    assert_eq!(events.ready().await.unwrap().session, "s1");
    let durable = StatePatch { ack: Some(Ack::Durable), ..StatePatch::default() };
    let (patched, pong, ()) = tokio::join!(client.state_patch(durable), client.ping(), async {
        let (patch, body) = peer.expect("state.patch").await;
        assert_eq!(body, json!({"ack": "durable", "cseq": 1}));
        let (ping, _) = peer.expect("ping").await;
        peer.ok(ping, json!({"now_ms": 7})).await;
        peer.ok(patch, json!({"stamp": [5, 2], "ack": "durable"})).await;
    });
    assert_eq!(pong.unwrap().now_ms, 7);
    assert_eq!(patched.unwrap().ack, Some(Ack::Durable));
}

#[tokio::test]
async fn messagepack_links_speak_binary() {
    let script = Script::start().await;
    let mut config = script.config();
    config.encoding = Encoding::MessagePack;
    let (client, mut events) = Client::start(config);
    let mut peer = script.accept().await;
    let Some(Ok(Message::Binary(frame))) = peer.socket.next().await else { panic!("binary") };
    let (reference, login) = codec::decode_request(Encoding::MessagePack, &frame).unwrap();
    assert!(matches!(login, Request::Login(login) if login.token.as_str() == "dev:ann"));
    let mut out = Vec::new();
    let body = reply::Ready { heartbeat_ms: 1000, ..reply::Ready::default() };
    codec::encode(Encoding::MessagePack, &mut out, request::Op::Ready, reference.into(), &body);
    peer.socket.send(Message::Binary(out.into())).await.unwrap();
    assert!(events.ready().await.is_some());
    drop(client);
}

#[tokio::test]
async fn a_resume_claims_what_was_handled_and_sends_again_what_has_no_answer() {
    let script = Script::start().await;
    let (client, mut events) = Client::start(script.config());
    let mut peer = script.login().await;
    for tag in 1..=3 {
        submit(&client, tag, count_up()).await;
    }
    let (first, _) = peer.expect("state.patch").await;
    peer.ok(first, changed(2)).await;
    peer.expect("state.patch").await;
    peer.expect("state.patch").await;
    peer.say(json!(["message", 1, {"id": "m1", "data": 1}])).await;
    assert_eq!(answer(&mut events).await.tag, 1);
    until(&mut events, |what| matches!(what, Happened::Push(Push::Message { seq: 1, .. })).then_some(()))
        .await;
    drop(peer);

    // The server applied the second; its answer was lost with the link.
    let (mut peer, claim) = script.resume(json!({"cseq": 2, "stamp": [5, 3]})).await;
    assert_eq!(
        (&claim["session"], &claim["ticket"], &claim["last_seq"], &claim["stamp"]),
        (&json!("s1"), &json!("first"), &json!(1), &json!([5, 2]))
    );
    let (second, body) = peer.expect("state.patch").await;
    assert_eq!(body["cseq"], 2, "its answer is asked for once more");
    let (third, body) = peer.expect("state.patch").await;
    assert_eq!(body["cseq"], 3);
    peer.ok(second, json!({"stamp": [5, 3], "dup": true})).await;
    peer.ok(third, changed(4)).await;
    let answered = answer(&mut events).await;
    assert_eq!((answered.tag, answered.cseq, answered.timing.sends), (2, Some(2), 2));
    assert!(matches!(answered.outcome, Outcome::Ok(OkBody::Changed(changed)) if changed.dup == Some(true)));
    assert_eq!(answer(&mut events).await.tag, 3);

    // The next resume uses the newer ticket and the newer stamp.
    drop(peer);
    let (_, claim) = script.resume(json!({"cseq": 3})).await;
    assert_eq!((&claim["ticket"], &claim["stamp"]), (&json!("second"), &json!([5, 4])));
}

#[tokio::test]
async fn lost_numbers_are_used_again_after_a_rollback() {
    let script = Script::start().await;
    let (client, mut events) = Client::start(script.config());
    let mut peer = script.login().await;
    for tag in 1..=2 {
        submit(&client, tag, count_up()).await;
        let (reference, _) = peer.expect("state.patch").await;
        peer.ok(reference, changed(1 + tag)).await;
        answer(&mut events).await;
    }
    submit(&client, 3, count_up()).await;
    peer.expect("state.patch").await;
    drop(peer);
    let lost = json!({"cseq": 1, "stamp": [6, 2], "rolled_back": {"from": [5, 3], "to": [5, 2], "cseq": 1}});
    let (mut peer, _) = script.resume(lost).await;
    let ready = events.ready().await.unwrap();
    assert_eq!(ready.rolled_back.unwrap().to, Some((5, 2)));
    assert_eq!(peer.expect("state.patch").await.1["cseq"], 2);

    // The same on a live link.
    submit(&client, 4, count_up()).await;
    assert_eq!(peer.expect("state.patch").await.1["cseq"], 3);
    peer.say(json!(["rolled_back", 0, {"from": [6, 2], "to": null, "cseq": 0, "reason": "test"}])).await;
    assert_eq!(peer.expect("state.patch").await.1["cseq"], 1);
    assert_eq!(peer.expect("state.patch").await.1["cseq"], 2);
    drop(peer);
    let (_, claim) = script.resume(json!({})).await;
    assert_eq!(claim["stamp"], Value::Null, "an unknown rollback leaves no stamp to claim");
}

#[tokio::test]
async fn behind_a_refused_change_the_others_are_sent_again() {
    let script = Script::start().await;
    let (client, mut events) = Client::start(script.config());
    let mut peer = script.login().await;
    for tag in 1..=3 {
        submit(&client, tag, count_up()).await;
    }
    let mut references = Vec::new();
    for cseq in 1..=3 {
        let (reference, body) = peer.expect("state.patch").await;
        assert_eq!(body["cseq"], cseq);
        references.push(reference);
    }
    peer.refuse(references[0], "too_large", json!({})).await;
    peer.refuse(references[1], "cseq_gap", json!({"expected": 1})).await;
    peer.refuse(references[2], "cseq_gap", json!({"expected": 1})).await;
    let answered = answer(&mut events).await;
    assert_eq!(answered.tag, 1);
    assert!(matches!(answered.outcome, Outcome::Refused(_)));
    for (tag, cseq) in [(2, 1), (3, 2)] {
        let (reference, body) = peer.expect("state.patch").await;
        assert_eq!(body["cseq"], cseq);
        peer.ok(reference, changed(cseq + 1)).await;
        let answered = answer(&mut events).await;
        assert_eq!((answered.tag, answered.cseq), (tag, Some(cseq)));
        assert!(matches!(answered.outcome, Outcome::Ok(_)));
    }
}

#[tokio::test]
async fn a_change_that_took_effect_though_refused_keeps_its_number() {
    let script = Script::start().await;
    let (client, mut events) = Client::start(script.config());
    let mut peer = script.login().await;
    submit(&client, 1, count_up()).await;
    let (reference, _) = peer.expect("state.patch").await;
    let kept = json!({"applied": true, "stamp": [5, 2], "temporary": true});
    peer.refuse(reference, "store_unavailable", kept).await;
    answer(&mut events).await;
    submit(&client, 2, count_up()).await;
    assert_eq!(peer.expect("state.patch").await.1["cseq"], 2);
}

#[tokio::test]
async fn a_session_that_is_gone_is_followed_by_a_login_on_the_same_link() {
    let script = Script::start().await;
    let (client, mut events) = Client::start(script.config());
    let mut peer = script.login().await;
    submit(&client, 1, count_up()).await;
    peer.expect("state.patch").await;
    drop(peer);
    let mut peer = script.accept().await;
    let (reference, _) = peer.expect("resume").await;
    submit(&client, 2, count_up()).await;
    peer.refuse(reference, "not_resumable", json!({})).await;
    let (reference, _) = peer.expect("login").await;
    peer.say(json!(["ready", reference, ready(json!({"session": "s2"}))])).await;
    let turned = until(&mut events, |what| match what {
        Happened::Turned { presented, .. } => Some(presented.unwrap()),
        _ => None,
    })
    .await;
    assert!(turned.away.unwrap() >= turned.away_at_least.unwrap());
    let answered = answer(&mut events).await;
    assert_eq!(answered.tag, 1);
    assert!(matches!(answered.outcome, Outcome::Unknown(_)));
    assert_eq!(events.ready().await.unwrap().session, "s2");
    assert_eq!(peer.expect("state.patch").await.1["cseq"], 1, "the new session counts from 1");
}

#[tokio::test]
async fn the_range_of_a_close_code_says_what_comes_next() {
    for (code, next_op) in
        [(4000, Some("resume")), (4251, Some("login")), (4502, None), (1001, Some("resume"))]
    {
        let script = Script::start().await;
        let (client, mut events) = Client::start(script.config());
        let mut peer = script.login().await;
        events.ready().await.unwrap();
        peer.say(json!(["bye", 0, {"code": code, "reason": "so", "resume": false, "retry_after_ms": 1}]))
            .await;
        peer.close(code).await;
        match next_op {
            Some(op) => drop(script.accept().await.expect(op).await),
            None => {
                let ended = until(&mut events, |what| match what {
                    Happened::Ended { code, reason } => Some((code, reason)),
                    _ => None,
                })
                .await;
                assert_eq!(ended, (Some(code), "so".to_owned()));
                assert!(matches!(client.ping().await, Err(CallError::Stopped)));
            }
        }
    }
}

#[tokio::test]
async fn a_refused_login_is_tried_again_only_if_that_may_help() {
    let script = Script::start().await;
    let (_client, mut events) = Client::start(script.config());
    let mut peer = script.accept().await;
    let (reference, _) = peer.expect("login").await;
    peer.refuse(reference, "overloaded", json!({"temporary": true, "retry_after_ms": 1})).await;
    let mut peer = script.accept().await;
    let (reference, _) = peer.expect("login").await;
    peer.refuse(reference, "unauthorized", json!({})).await;
    peer.close(4500).await;
    let ended = until(&mut events, |what| match what {
        Happened::Ended { code, .. } => Some(code),
        _ => None,
    })
    .await;
    assert_eq!(ended, Some(4500));
}

#[tokio::test]
async fn an_answered_handshake_that_redirects_is_followed_once() {
    let (script, other) = (Script::start().await, Script::start().await);
    let (_client, mut events) = Client::start(script.config());
    let mut peer = script.accept().await;
    let (reference, _) = peer.expect("login").await;
    peer.say(json!(["redirect", reference, {"url": other.url(), "node": "b"}])).await;
    let peer = other.login().await;
    events.ready().await.unwrap();
    drop(peer);
    let (_, claim) = script.resume(json!({})).await;
    assert_eq!(claim["session"], "s1", "then its own addresses again");
}

#[tokio::test]
async fn a_home_that_cannot_be_reached_is_asked_for_again_soon() {
    let script = Script::start().await;
    let nowhere = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let (_client, mut events) = Client::start(script.config());
    let began = std::time::Instant::now();
    for _ in 0..5 {
        let mut peer = script.accept().await;
        let (reference, _) = peer.expect("login").await;
        let url = format!("ws://{nowhere}/v1/connect");
        peer.say(json!(["redirect", reference, {"url": url, "node": "b"}])).await;
    }
    let _peer = script.login().await;
    events.ready().await.unwrap();
    // Waits that double would take 8 s in the mean.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn servers_that_send_a_client_round_and_round_are_left_for_her_own_addresses() {
    let (script, other) = (Script::start().await, Script::start().await);
    let (_client, mut events) = Client::start(script.config());
    let mut at = script.accept().await;
    for _ in 0..4 {
        let (reference, _) = at.expect("login").await;
        at.say(json!(["redirect", reference, {"url": other.url(), "node": "b"}])).await;
        at = other.accept().await;
    }
    let (reference, _) = at.expect("login").await;
    at.say(json!(["redirect", reference, {"url": other.url(), "node": "b"}])).await;
    let _peer = script.login().await;
    events.ready().await.unwrap();
}

#[tokio::test]
async fn repeated_pushes_are_dropped_and_gaps_told() {
    let script = Script::start().await;
    let (_client, mut events) = Client::start(script.config());
    let mut peer = script.login().await;
    events.ready().await.unwrap();
    let online = |n: u64| json!({"player": "bea", "status": "online", "ver": [5, n]});
    peer.say(json!(["presence", 1, {"items": [online(2), online(1)]}])).await;
    peer.say(json!(["presence", 1, {"items": [online(3)]}])).await;
    peer.say(json!(["message", 2, {"id": "m", "data": null}])).await;
    peer.say(json!(["later.push", 3, {"what": "ever"}])).await;
    peer.say(json!(["message", 4, {"id": "m", "data": null}])).await;
    peer.say(json!(["message", 6, {"id": "n", "data": null}])).await;
    let Happened::Push(Push::Presence { seq: 1, items, stale: 1 }) = next(&mut events).await else {
        panic!()
    };
    assert_eq!(items[0].ver, (5, 2));
    assert!(
        matches!(next(&mut events).await, Happened::SeqGap { expected: 2, came: 1 }),
        "twice on one link"
    );
    assert!(matches!(next(&mut events).await, Happened::Push(Push::Message { seq: 2, repeat: false, .. })));
    assert!(matches!(next(&mut events).await, Happened::Push(Push::Message { seq: 4, repeat: true, .. })));
    assert!(matches!(next(&mut events).await, Happened::SeqGap { expected: 5, came: 6 }));
    assert!(matches!(next(&mut events).await, Happened::Push(Push::Message { seq: 6, .. })));

    // What was missed on purpose is no gap.
    drop(peer);
    let (mut peer, claim) = script.resume(json!({"missed": true})).await;
    assert_eq!(claim["last_seq"], 6);
    peer.say(json!(["message", 40, {"id": "o", "data": null}])).await;
    events.ready().await.unwrap();
    assert!(matches!(next(&mut events).await, Happened::Push(Push::Message { seq: 40, .. })));
}

#[tokio::test]
async fn a_quiet_client_shows_life_and_tells_what_it_has_seen() {
    let script = Script::start().await;
    let (_client, mut events) = Client::start(script.config());
    let mut peer = script.accept().await;
    let (reference, _) = peer.expect("login").await;
    peer.say(json!(["ready", reference, ready(json!({"heartbeat_ms": 400}))])).await;
    peer.say(json!(["message", 1, {"id": "m", "data": null}])).await;
    events.ready().await.unwrap();
    let (ping, body) = peer.expect("ping").await;
    assert_eq!(body["seen"], 1);
    peer.ok(ping, json!({"now_ms": 1})).await;
    // From now on the server is silent: the client gives the link up by itself and comes back.
    let (_peer, _) = script.resume(json!({})).await;
    let down = until(&mut events, |what| match what {
        Happened::Down(down) => Some(down),
        _ => None,
    })
    .await;
    assert_eq!((down.code, down.reason.as_str()), (None, "the server is silent"));
}

#[tokio::test]
async fn a_request_without_an_answer_has_the_link_taken_up_anew() {
    let script = Script::start().await;
    let mut config = script.config();
    config.answer_timeout = Duration::from_millis(50);
    let (client, mut events) = Client::start(config);
    let mut peer = script.accept().await;
    let (reference, _) = peer.expect("login").await;
    // Ticks every 20 ms; answered pings keep the link alive.
    peer.say(json!(["ready", reference, ready(json!({"heartbeat_ms": 80}))])).await;
    submit(&client, 1, count_up()).await;
    peer.expect("state.patch").await;
    let keep_alive = async {
        while let Some(frame) = peer.hear().await {
            peer.ok(frame[1].as_u64().unwrap(), json!({"now_ms": 1})).await;
        }
    };
    let ((), (mut again, _)) =
        tokio::join!(keep_alive, script.resume(json!({"cseq": 1, "heartbeat_ms": 80})));
    let (reference, body) = again.expect("state.patch").await;
    assert_eq!(body["cseq"], 1);
    again.ok(reference, json!({"stamp": [5, 2], "dup": true})).await;
    assert_eq!(answer(&mut events).await.timing.sends, 2);
}

#[tokio::test]
async fn a_link_can_be_lost_on_purpose_in_three_ways() {
    for how in [DropKind::Reset, DropKind::Cut, DropKind::Abandon] {
        let script = Script::start().await;
        let (client, mut events) = Client::start(script.config());
        let mut peer = script.login().await;
        events.ready().await.unwrap();
        client.drop_link(how, Duration::from_millis(5)).await.unwrap();
        let Happened::Down(down) = next(&mut events).await else { panic!() };
        assert_eq!(down.on_purpose, Some(how));
        let mut second = script.accept().await;
        let (reference, _) = second.expect("resume").await;
        if how == DropKind::Abandon {
            // The old link is still there, silent, and can be written to.
            peer.say(json!(["message", 1, {"id": "m", "data": null}])).await;
        } else {
            assert!(peer.hear().await.is_none());
        }
        second.say(json!(["ready", reference, ready(json!({"resumed": true}))])).await;
        let Happened::Ready { presented, .. } = next(&mut events).await else { panic!() };
        assert!(presented.unwrap().away.unwrap() >= Duration::from_millis(5));
        if how == DropKind::Abandon {
            assert!(peer.hear().await.is_none(), "it ends when the new one has its session");
        }
    }
}

#[tokio::test]
async fn a_logout_whose_answer_is_lost_is_no_reason_to_log_in_again() {
    let script = Script::start().await;
    let (client, mut events) = Client::start(script.config());
    let mut peer = script.login().await;
    events.ready().await.unwrap();
    let (left, ()) = tokio::join!(client.logout(), async {
        peer.expect("logout").await;
        drop(peer);
        let mut peer = script.accept().await;
        let (reference, _) = peer.expect("resume").await;
        peer.refuse(reference, "not_resumable", json!({})).await;
        assert!(peer.hear().await.is_none());
    });
    assert!(matches!(left, Err(CallError::Unknown(_))));
    let ended = until(&mut events, |what| match what {
        Happened::Ended { code, .. } => Some(code),
        _ => None,
    })
    .await;
    assert_eq!(ended, Some(1000));
}

#[tokio::test]
async fn a_user_who_does_not_listen_stops_the_reading_and_loses_nothing() {
    let script = Script::start().await;
    let mut config = script.config();
    config.events_max = 2;
    let (client, mut events) = Client::start(config);
    let mut peer = script.login().await;
    for seq in 1..=100 {
        peer.say(json!(["message", seq, {"id": format!("m{seq}"), "data": seq}])).await;
    }
    // Requests still go out.
    submit(&client, 1, Request::StateGet(StateGet::default())).await;
    let (reference, _) = peer.expect("state.get").await;
    peer.ok(reference, json!({"stamp": [5, 1], "state": {"a": "b"}, "state_stamp": [5, 1]})).await;
    assert!(matches!(next(&mut events).await, Happened::Ready { .. }));
    for seq in 1..=100 {
        let Happened::Push(Push::Message { seq: came, message, .. }) = next(&mut events).await else {
            panic!()
        };
        assert_eq!((came, message.data), (seq, WireValue::Int(seq.try_into().unwrap())));
    }
    assert_eq!(answer(&mut events).await.tag, 1);
}

#[tokio::test]
async fn an_unreachable_server_is_tried_again_and_requests_wait() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("ws://{}/v1/connect", gone.local_addr().unwrap());
    drop(gone);
    let script = Script::start().await;
    let mut config = script.config();
    config.urls = vec![nobody, script.url()];
    let (client, mut events) = Client::start(config);
    submit(&client, 1, count_up()).await;
    let (mut peer, Event { what, .. }) = tokio::join!(script.login(), async { events.next().await.unwrap() });
    assert!(matches!(what, Happened::Unreachable { .. }));
    assert_eq!(peer.expect("state.patch").await.1["cseq"], 1);
}
