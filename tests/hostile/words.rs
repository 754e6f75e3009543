//! Messages that lie or ask for what may not be: values without a floor, lengths without a ceiling, numbers at their
//! ends, stamps of other worlds, ids that look like keys.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::player::Player;
use crate::harness::server::Server;
use crate::harness::socket::{Encoding, Heard};
use crate::harness::stages::on_both_stores;
use crate::raw::{Raw, text};
use crate::siege::Siege;

/// Sends what is no request; it must be refused, and the link must stay.
async fn is_refused(player: &mut Player, message: Message, what: &str) {
    player.socket.send_message(message).await;
    match player.hear().await {
        Heard::Frame(frame) => {
            let code = frame.body["code"].as_str().unwrap_or_default();
            assert!(
                frame.op == "error" && ["bad_frame", "bad_request", "too_large"].contains(&code),
                "{what}: {frame:?}"
            );
        }
        Heard::Closed(code) => panic!("{what}: closed with {code:?}"),
    }
}

/// Her session is over, and her state with it.
async fn leaves(mut player: Player) {
    player.does("logout", json!({})).await;
    player.expect_close(1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_without_a_floor_is_refused_and_the_link_stays() {
    let siege = Siege::lay(&[]).await;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(2_500), close.repeat(2_500));
    let messages = [
        deep("[", "]"),
        format!(r#"["ping", 1, {{"t": {}}}]"#, deep("[", "]")),
        format!(r#"["state.patch", 1, {{"set": {{"a": {}}}}}]"#, deep(r#"{"a":"#, "}").replace(":}", ":1}")),
        "[".repeat(16_000),
        r#"["ping", 1, {"t": 1e999999}]"#.to_owned(),
        r#"["state.patch", 1, {"incr": {"n": 9223372036854775808}}]"#.to_owned(),
        r#"["ping", 1, {"t": "\ud800"}]"#.to_owned(),
        "{\"a\":1,".repeat(2_000),
        "\u{0}".repeat(16_000),
    ];
    let attack = async || {
        let mut mallory = Player::connect(siege.server.url(), Encoding::Json).await;
        mallory.login("mallory").await;
        for message in &messages {
            is_refused(&mut mallory, Message::text(message.clone()), &message[..message.len().min(40)]).await;
        }
        // What nobody knows is skipped, however deep it goes.
        let unknown = format!(r#"["ping", 9, {{"later": {}}}]"#, deep("[", "]"));
        mallory.socket.send_message(Message::text(unknown)).await;
        mallory.answer(9).await.expect("an unknown field is ignored");
        mallory.pings().await;
    };
    siege.under("nested or lying JSON", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messagepack_that_lies_is_refused_and_the_link_stays() {
    let siege = Siege::lay(&[]).await;
    let ping = |body: &[u8]| [&[0x93, 4, 1][..], body].concat();
    let t = |value: &[u8]| ping(&[&[0x81, 0xa1, b't'][..], value].concat());
    let patch = |set: &[u8]| [&[0x93, 11, 1, 0x81, 0xa3, b's', b'e', b't'][..], set].concat();
    let messages = [
        ("an array of 2^32 frames", vec![0xdd, 0xff, 0xff, 0xff, 0xff]),
        ("a body of 2^32 entries", ping(&[0xdf, 0xff, 0xff, 0xff, 0xff])),
        ("a text of 2^32 bytes", t(&[0xdb, 0xff, 0xff, 0xff, 0xff])),
        ("bytes of 2^32", t(&[0xc6, 0xff, 0xff, 0xff, 0xff])),
        ("an extension of 2^32 bytes", t(&[0xc9, 0xff, 0xff, 0xff, 0xff, 1])),
        ("a list of 2^32", t(&[0xdd, 0xff, 0xff, 0xff, 0xff, 1, 2, 3])),
        ("a map of 2^32", t(&[0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1, b'a', 1])),
        ("lists without a floor", t(&[&[0x91; 15_000][..], &[1]].concat())),
        ("maps without a floor", t(&[0x81, 0xa1, b'a'].repeat(5_000))),
        ("a state without a floor", patch(&[&[0x81, 0xa1, b'a'][..], &[0x91; 15_000], &[1]].concat())),
        ("2^32 entries of state", patch(&[0xdf, 0xff, 0xff, 0xff, 0xff])),
        ("a list of half-megabyte lists", t(&[0xdd, 0, 8, 0, 0].repeat(3_000))),
        ("a key that is a list", t(&[0x81, 0x90, 1])),
        ("the marker that never is", t(&[0xc1])),
        ("a frame and more", ping(&[0x80, 0x80])),
        ("nothing", Vec::new()),
    ];
    let attack = async || {
        let mut mallory = Player::connect(siege.server.url(), Encoding::MessagePack).await;
        mallory.login("mallory").await;
        for (what, message) in &messages {
            is_refused(&mut mallory, Message::binary(message.clone()), what).await;
        }
        mallory.pings().await;
    };
    siege.under("nested or lying MessagePack", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_commands_is_slowed_and_then_closed_4506() {
    let siege = Siege::lay(&[]).await;
    let floods = [
        text(r#"["state.patch", 0, {"incr": {"n": 1}}]"#),
        text(r#"["state.patch", 0, {"incr": {"n": 1}, "ack": "durable"}]"#),
        text(r#"["presence.set", 0, {"status": "busy"}]"#),
        text(r#"["presence.get", 0, {"players": ["other-1", "nobody"]}]"#),
        text(r#"["watch", 0, {"players": ["other-1"]}]"#),
        [text(r#"["room.join", 0, {"room": "mob:1"}]"#), text(r#"["room.leave", 0, {"room": "mob:1"}]"#)]
            .concat(),
        [
            text(r#"["room.join", 0, {"room": "mob:2"}]"#),
            text(r#"["room.send", 0, {"room": "mob:2", "data": 1}]"#),
        ]
        .concat(),
        text(r#"["dance", 0, {}]"#),
        text("not even a frame"),
    ];
    let attack = async || {
        let lives = floods.iter().enumerate().map(async |(n, asking)| {
            let mut raw = Raw::enter(&siege.server, &format!("mallory-{n}")).await;
            raw.say(&asking.repeat(3_000)).await;
            raw.ends_with(4506, &String::from_utf8_lossy(asking)).await;
        });
        futures_util::future::join_all(lives).await;
    };
    siege.under("command floods", 16, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_gaps_and_extremes_of_cseq_change_nothing_twice() {
    let siege = Siege::lay(&[("limits.state_per_s", "100000"), ("limits.state_burst", "100000")]).await;
    let attack = async || {
        let mut mallory = Player::connect(siege.server.url(), Encoding::Json).await;
        mallory.login("mallory").await;
        let add = |cseq: Value| json!({"incr": {"n": 1}, "cseq": cseq});
        mallory.patch(add(json!(1))).await;
        for _ in 0..20 {
            assert_eq!(mallory.patch(add(json!(1))).await["dup"], true, "a replay");
        }
        for ahead in [3, 1 << 31, 1 << 32, (1 << 53) + 1, i64::MAX as u64, u64::MAX - 1, u64::MAX] {
            let refused = mallory.is_refused("state.patch", add(json!(ahead)), "cseq_gap").await;
            assert_eq!(refused["expected"], 2, "{ahead}");
        }
        for nonsense in [json!(0), json!(-1), json!(1.5), json!("2"), json!([2]), json!(1e300), json!(true)] {
            mallory.is_refused("state.patch", add(nonsense), "bad_request").await;
        }
        mallory.patch(add(json!(2))).await;
        assert_eq!(mallory.state().await["n"], 2);
        leaves(mallory).await;
    };
    siege.under("replays, gaps and extremes of cseq", 8, attack).await;
}

/// Stamps that nobody was ever given.
fn forged_stamps(epoch: u64) -> Vec<Value> {
    let most = u64::MAX;
    vec![
        json!([most, most]),
        json!([most, 0]),
        json!([0, most]),
        json!([0, 0]),
        json!([epoch, most]),
        json!([epoch + 1, 1]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_stamps_and_poisoned_epochs_move_nothing() {
    let siege = Siege::lay(&[("limits.query_per_s", "100000"), ("limits.query_burst", "100000")]).await;
    let attack = async || {
        let mut mallory = Player::connect(siege.server.url(), Encoding::Json).await;
        mallory.login("mallory").await;
        let stamp = mallory.patch(json!({"set": {"me": "mallory"}})).await["stamp"].clone();
        let epoch = stamp[0].as_u64().unwrap();
        for forged in forged_stamps(epoch) {
            match mallory.ask("state.get", json!({"at_least": forged})).await {
                Ok(answer) => assert!(forged[0] == 0 || forged[1] == 0, "{forged} is reached? {answer}"),
                Err(refused) => assert!(
                    ["behind", "rolled_back"].contains(&refused["code"].as_str().unwrap()),
                    "{forged}: {refused}"
                ),
            }
            let conflict = json!({"set": {"me": "eve"}, "if_state": forged});
            mallory.is_refused("state.patch", conflict, "state_conflict").await;
            let own = mallory.drops();
            let mut claimed = own.clone();
            claimed.stamp = forged.clone();
            mallory = Player::connect(siege.server.url(), Encoding::Json).await;
            if let Err(refused) = mallory.try_resume(&claimed).await {
                assert_eq!(refused["code"], "behind", "{forged}: {refused}");
                mallory.resume(&own).await;
            }
            assert_eq!(mallory.ready["stamp"][0], epoch, "the epoch is the server's to give: {forged}");
        }
        for nonsense in [json!([1]), json!([1, 2, 3]), json!("1.2"), json!([-1, 1]), json!([1.5, 1])] {
            mallory.is_refused("state.get", json!({"at_least": nonsense}), "bad_request").await;
        }
        assert_eq!(mallory.state().await, json!({"me": "mallory"}));
        leaves(mallory).await;
    };
    siege.under("forged stamps, poisoned epochs", 8, attack).await;
}

/// Ids that are somebody else's key, pattern or look.
const STRANGE: &[&str] = &[
    "{hearth.s1}:p:ann",
    "a}{b",
    "{}",
    "*",
    "a*b?[c]^$",
    "a:b:c",
    "../../etc/passwd",
    "%00%2e",
    "' OR 1=1 --",
    "ann",
    "\u{430}nn",   // Cyrillic a
    "\u{ff41}nn",  // full width
    "a\u{301}nn",  // a and an accent
    "\u{e1}nn",    // the same in one letter
    "a\u{200b}nn", // a space of no width
    "\u{202e}nna", // right to left
    "\u{feff}ann",
    " ann ",
    "ANN",
];

on_both_stores! {
    async fn ids_that_look_like_something_else_are_each_their_own(stage) {
        let siege = Siege::on(Server::on(stage)).await;
        let attack = async || {
            for id in STRANGE {
                let mut player = Player::connect(siege.server.url(), Encoding::MessagePack).await;
                player.login(id).await;
                player.patch_durably(json!({"set": {"me": id}})).await;
            }
            let mut watcher = Player::connect(siege.server.url(), Encoding::Json).await;
            watcher.login("watcher").await;
            let items = watcher.watches(STRANGE).await;
            assert!(items.iter().zip(STRANGE).all(|(item, id)| item["player"] == *id), "{items:?}");
            for id in STRANGE {
                let mut player = Player::connect(siege.server.url(), Encoding::Json).await;
                player.login(id).await;
                assert_eq!(player.state().await, json!({"me": id}));
            }
            let long = "x".repeat(65);
            for bad in ["a\0b", "\u{7f}", "a\nb", "", long.as_str()] {
                let mut player = Player::connect(siege.server.url(), Encoding::Json).await;
                player.is_refused("login", json!({"token": format!("dev:{bad}")}), "unauthorized").await;
                player.expect_close(4500).await;
            }
            let mut player = Player::connect(siege.server.url(), Encoding::Json).await;
            player.send("login", json!({"token": format!("dev:{}", "x".repeat(65_536))})).await;
            player.expect_close(1009).await;
        };
        siege.under("ids with braces, NUL, 64 KiB, confusables", 8, attack).await;
    }
}
