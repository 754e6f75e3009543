//! What is promised to clients that speak badly: the named error, the link stays open unless the table of closes says
//! otherwise, and nobody else is disturbed.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::socket::{Encoding, Heard, Socket};
use crate::harness::stages::{on_both_stores, on_every_stage};

/// A frame of the other kind than the link's.
fn of_the_other_kind(encoding: Encoding) -> Message {
    match encoding {
        Encoding::Json => Message::binary(vec![0x93, 4, 1, 0x80]),
        Encoding::MessagePack => Message::text(r#"["ping", 1, {}]"#),
    }
}

/// A frame that no decoder reads.
fn garbage(encoding: Encoding) -> Message {
    match encoding {
        Encoding::Json => Message::text(r#"["ping", 1"#),
        Encoding::MessagePack => Message::binary(vec![0xc1, 0xff]),
    }
}

/// The next frame must be `error` with this code and `ref` 0.
async fn expect_unasked_error(player: &mut Player, code: &str) {
    let refused = player.answer(0).await.expect_err("an error");
    assert_eq!(refused["code"], code, "{refused}");
}

/// The status of the answer to an upgrade with these headers, and the headers of the answer.
async fn upgrade(server: &Server, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut tcp = TcpStream::connect(server.host()).await.unwrap();
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        server.host()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let read = tcp.read(&mut chunk).await.unwrap();
        assert!(read > 0, "no whole answer: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..read]);
    }
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

on_every_stage! {
    async fn a_frame_that_does_not_decode_is_named_and_the_link_stays(stage) {
        let server = Server::on(stage).start();
        let mut bea = server.login("bea").await;
        let mut ann = server.connect().await;
        for logged_in in [false, true] {
            if logged_in {
                ann.login("ann").await;
            }
            for message in [garbage(server.encoding()), of_the_other_kind(server.encoding())] {
                ann.socket.send_message(message).await;
                expect_unasked_error(&mut ann, "bad_frame").await;
            }
            ann.pings().await;
        }
        bea.pings().await;
    }

    async fn before_login_only_a_ping_is_answered(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.connect().await;
        assert_eq!(ann.does("ping", json!({"t": "x"})).await["t"], "x");
        for (op, body) in [
            ("state.get", json!({})),
            ("state.patch", json!({"set": {"a": 1}})),
            ("watch", json!({"players": ["bea"]})),
            ("logout", json!({})),
        ] {
            ann.is_refused(op, body, "not_logged_in").await;
        }
        ann.login("ann").await;
        assert_eq!(ann.state().await, json!({}));
    }

    async fn a_second_login_on_a_link_is_refused_and_the_first_holds(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        ann.is_refused("login", json!({"token": "dev:bea"}), "already_logged_in").await;
        let Value::String(session) = ann.ready["session"].clone() else { panic!() };
        let resume = json!({"session": session, "ticket": ann.ready["ticket"], "last_seq": 0});
        ann.is_refused("resume", resume, "already_logged_in").await;
        assert_eq!(ann.looks_at("bea").await["status"], "offline");
        assert_eq!(ann.looks_at("ann").await["status"], "online");
    }

    async fn unknown_ops_are_named_and_unknown_fields_ignored(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.connect().await;
        ann.is_refused("dance", json!({}), "unknown_op").await;
        ann.login_with(json!({"token": "dev:ann", "shoes": {"left": [1]}})).await;
        ann.is_refused("dance", json!({}), "unknown_op").await;
        // An op that only a server says.
        ann.is_refused("ready", json!({}), "unknown_op").await;
        ann.patch(json!({"set": {"a": 1}, "colour": "red", "deep": [[{"x": 1}]]})).await;
        assert_eq!(ann.state().await, json!({"a": 1}));
    }

    async fn a_body_that_does_not_fit_is_a_bad_request(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.connect().await;
        ann.is_refused("login", json!({}), "bad_request").await;
        ann.is_refused("login", json!({"token": 7}), "bad_request").await;
        ann.is_refused("login", json!({"token": "dev:ann", "device": "x".repeat(17)}), "bad_request").await;
        ann.is_refused("login", json!({"token": "dev:ann", "status": "offline"}), "bad_request").await;
        ann.login("ann").await;
        ann.is_refused("watch", json!({}), "bad_request").await;
        ann.is_refused("watch", json!({"players": ["a\u{7}b"]}), "bad_request").await;
        ann.is_refused("watch", json!({"players": [""]}), "bad_request").await;
        ann.is_refused("watch", json!({"players": ["x".repeat(65)]}), "bad_request").await;
        ann.is_refused("presence.set", json!({"status": "dancing"}), "bad_request").await;
        ann.is_refused("presence.set", json!({"status": "offline"}), "bad_request").await;
        ann.is_refused("state.patch", json!({"incr": {"n": "one"}}), "bad_request").await;
        ann.is_refused("state.patch", json!({"set": {"": 1}}), "bad_request").await;
        let crowd: Vec<String> = (0..201).map(|n| format!("p{n}")).collect();
        ann.is_refused("watch", json!({"players": crowd}), "too_large").await;
        ann.pings().await;
    }

    async fn ref_0_asks_for_no_answer_unless_the_request_fails(stage) {
        let server = Server::on(stage).start();
        let mut ann = server.login("ann").await;
        ann.socket.send("state.patch", 0, &json!({"set": {"a": 1}})).await;
        // Were it answered, `state` would hear that first, and `answer(0)` below would find it.
        assert_eq!(ann.state().await, json!({"a": 1}));
        ann.socket.send("state.patch", 0, &json!({"incr": {"a": "x"}})).await;
        expect_unasked_error(&mut ann, "bad_request").await;
    }

    async fn a_frame_over_the_limit_closes_1009(stage) {
        let server = Server::on(stage).start();
        let mut bea = server.login("bea").await;
        let frame = || match server.encoding() {
            Encoding::Json => Message::text(json!(["ping", 1, {"t": "x".repeat(20_000)}]).to_string()),
            Encoding::MessagePack => Message::binary(vec![0xc0; 20_000]),
        };
        for logged_in in [false, true] {
            let mut ann = server.connect().await;
            if logged_in {
                ann.login("ann").await;
            }
            ann.socket.send_message(frame()).await;
            ann.expect_close(1009).await;
        }
        // Only the head of a frame of 2^62 bytes.
        let mut cem = server.login("cem").await;
        cem.socket.send_bytes(&[0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]).await;
        cem.expect_close(1009).await;
        bea.pings().await;
    }

    async fn text_that_is_not_utf_8_closes_1007(stage) {
        let server = Server::on(stage).start();
        for logged_in in [false, true] {
            let mut ann = server.connect_in(Encoding::Json).await;
            if logged_in {
                ann.login("ann").await;
            }
            ann.socket.send_bytes(&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28]).await;
            ann.expect_close(1007).await;
        }
    }

    async fn a_violation_of_the_websocket_protocol_closes_1002(stage) {
        let server = Server::on(stage).start();
        let unmasked: &[u8] = &[0x81, 0x02, b'h', b'i'];
        let reserved_opcode: &[u8] = &[0x83, 0x80, 0, 0, 0, 0];
        let fragmented_ping: &[u8] = &[0x09, 0x80, 0, 0, 0, 0];
        for violation in [unmasked, reserved_opcode, fragmented_ping] {
            for logged_in in [false, true] {
                let mut ann = server.connect().await;
                if logged_in {
                    ann.login("ann").await;
                }
                ann.socket.send_bytes(violation).await;
                ann.expect_close(1002).await;
                if logged_in {
                    // Whatever the link did, the session is there.
                    server.resume(&ann.credentials()).await;
                }
            }
        }
    }

    async fn who_does_not_log_in_in_time_is_closed_4252(stage) {
        let server = Server::on(stage).with("link.handshake_timeout_ms", 300).start();
        let mut ann = server.connect().await;
        ann.pings().await;
        ann.expect_close(4252).await;
        // A link that is logged in stays.
        let mut bea = server.login("bea").await;
        let mut late = server.connect().await;
        late.expect_close(4252).await;
        bea.pings().await;
    }

    async fn a_bad_token_closes_4500(stage) {
        let server = Server::on(stage).start();
        for token in ["ann", "dev:", "dev:a\u{7}b", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.", ""] {
            let mut ann = server.connect().await;
            ann.is_refused("login", json!({"token": token}), "unauthorized").await;
            ann.expect_close(4500).await;
        }
    }

    async fn limits_are_told_as_they_are_set(stage) {
        let starting = Server::on(stage).with("link.fragments_max", 7).with("link.message_timeout_ms", 4_321);
        let server = starting.start();
        let ann = server.login("ann").await;
        let limits = &ann.ready["limits"];
        assert_eq!((&limits["fragments"], &limits["message_ms"]), (&json!(7), &json!(4_321)), "{limits}");
    }

    async fn both_encodings_say_the_same(stage) {
        let server = Server::on(stage).with("session.player_messages", true).start();
        let mut ann = server.connect_in(Encoding::Json).await;
        ann.login("ann").await;
        let mut bea = server.connect_in(Encoding::MessagePack).await;
        bea.login("bea").await;
        let values = json!({"n": null, "t": true, "i": -7, "u": u64::MAX, "f": 0.5, "s": "Ünïcode", "l": [1, [2]], "m": {"a": {}}});
        for (from, to) in [(0, 1), (1, 0)] {
            let pair = [("ann", &mut ann), ("bea", &mut bea)];
            let (name, sender) = (pair[from].0, &mut *pair[from].1);
            sender.patch(json!({"set": {"v": values}})).await;
            assert_eq!(sender.state().await["v"], values, "{name}");
            let receiver = pair[to].0;
            pair[from].1.tells(receiver, values.clone()).await;
            assert_eq!(pair[to].1.expect_push("message").await["data"], values);
        }
    }
}

// Before anybody says who she is there is no wrong node.
on_both_stores! {
    async fn the_first_known_subprotocol_is_taken_and_unknown_ones_alone_are_refused(stage) {
        let server = Server::on(stage).start();
        let (json_name, pack_name) = (Encoding::Json.subprotocol(), Encoding::MessagePack.subprotocol());
        let offer = |names: String| [("Sec-WebSocket-Protocol", names)];
        for (offered, status, chosen) in [
            ("mqtt".to_owned(), 400, None),
            (format!("mqtt, {json_name}"), 101, Some(json_name)),
            (format!("{pack_name}, {json_name}"), 101, Some(pack_name)),
        ] {
            let headers = offer(offered);
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let (answered, text) = upgrade(&server, "/v1/connect", &headers).await;
            assert_eq!(answered, status, "{text}");
            if let Some(chosen) = chosen {
                assert!(text.contains(&format!("sec-websocket-protocol: {chosen}\r\n")), "{text}");
            }
        }
        let (status, text) = upgrade(&server, "/v1/connect", &[]).await;
        assert_eq!(status, 101);
        assert!(!text.contains("sec-websocket-protocol"), "{text}");
    }

    async fn a_foreign_page_may_not_connect(stage) {
        let server = Server::on(stage).with("auth.origins_allowed", "https://game.example.com").start();
        for (origin, status) in [
            ("https://game.example.com", 101),
            ("https://evil.example.com", 403),
            ("http://game.example.com", 403),
            ("null", 403),
        ] {
            let (answered, text) = upgrade(&server, "/v1/connect", &[("Origin", origin)]).await;
            assert_eq!(answered, status, "{origin}: {text}");
        }
    }

    async fn a_request_is_as_long_as_the_setting_lets_it_be(stage) {
        let server = Server::on(stage).with("link.request_head_bytes_max", 512).start();
        assert_eq!(upgrade(&server, "/v1/connect", &[("X", "short")]).await.0, 101);
        assert_eq!(upgrade(&server, "/v1/connect", &[("X", &"x".repeat(400))]).await.0, 431);
    }

    async fn clients_connect_to_one_path_alone(stage) {
        let server = Server::on(stage).start();
        for path in ["/", "/v1/connect/", "/v1", "/metrics"] {
            assert_eq!(upgrade(&server, path, &[]).await.0, 404, "{path}");
        }
        assert_eq!(upgrade(&server, "/v1/connect?build=7", &[]).await.0, 101);
    }

    async fn a_link_that_only_connects_is_nobody(stage) {
        let server = Server::on(stage).with("link.handshake_timeout_ms", 300).start();
        // Never sends a byte of the upgrade.
        let mut silent = TcpStream::connect(server.host()).await.unwrap();
        let read = tokio::time::timeout(crate::harness::patience::PATIENCE, silent.read(&mut [0; 1])).await;
        assert!(matches!(read.expect("an end"), Ok(0) | Err(_)));
        let mut socket = Socket::open(server.url(), server.encoding()).await;
        while let Heard::Frame(_) = socket.hear().await {}
    }
}
