//! Frames that RFC 6455 forbids, or allows and never thought of: before a login and after it.

use std::time::Duration;

use serde_json::json;

use crate::harness::player::Player;
use crate::harness::socket::Encoding;
use crate::raw::{BINARY, CLOSE, CONTINUE, FIN, PING, PONG, Raw, TEXT, frame, text};
use crate::siege::Siege;

const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;

/// Frames, the code that they must end with, and what they are.
type Violation = (Vec<u8>, u16, &'static str);

async fn each_ends(siege: &Siege, violations: &[Violation]) {
    for (n, (bytes, code, what)) in violations.iter().enumerate() {
        for logged_in in [false, true] {
            let mut raw = match logged_in {
                false => Raw::open(&siege.server).await,
                true => Raw::enter(&siege.server, &format!("mallory-{n}")).await,
            };
            raw.say(bytes).await;
            raw.ends_with(*code, what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_not_allowed_are_closed_with_their_code() {
    let siege = Siege::lay(&[]).await;
    let violations: Vec<Violation> = vec![
        (vec![FIN | TEXT, 2, b'h', b'i'], 1002, "an unmasked frame"),
        (vec![FIN | TEXT, 0], 1002, "an empty unmasked frame"),
        (vec![FIN | PING, 0], 1002, "an unmasked ping"),
        (frame(FIN | RSV1 | TEXT, b"hi"), 1002, "a reserved bit"),
        (frame(FIN | RSV2 | TEXT, b"hi"), 1002, "a reserved bit"),
        (frame(FIN | RSV3 | PING, b""), 1002, "a reserved bit on a ping"),
        (frame(FIN | 3, b"hi"), 1002, "a reserved opcode"),
        (frame(FIN | 7, b""), 1002, "a reserved opcode"),
        (frame(FIN | 11, b""), 1002, "a reserved control opcode"),
        (frame(FIN | 15, b""), 1002, "a reserved control opcode"),
        (frame(PING, b""), 1002, "a ping in fragments"),
        (frame(CLOSE, b""), 1002, "a close in fragments"),
        (frame(FIN | PING, &[0; 126]), 1002, "a ping that is too long"),
        (frame(FIN | CONTINUE, b"hi"), 1002, "the end of nothing"),
        (frame(CONTINUE, b"hi"), 1002, "the middle of nothing"),
        ([frame(TEXT, b"[\"pi"), frame(FIN | TEXT, b"hi")].concat(), 1002, "a message within a message"),
        ([frame(TEXT, b"[\"pi"), frame(BINARY, b"hi")].concat(), 1002, "another kind within a message"),
        (frame(FIN | CLOSE, &[3]), 1002, "half a close code"),
    ];
    siege
        .under("unmasked, reserved, interleaved frames", 8, async || each_ends(&siege, &violations).await)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_announces_too_much_is_closed_1009_unread() {
    let siege = Siege::lay(&[]).await;
    let announcing = |len: u64, first: u8| {
        let mut bytes = vec![first, 0x80 | 127];
        bytes.extend(len.to_be_bytes());
        bytes.extend([0; 4]);
        bytes
    };
    let mut violations: Vec<Violation> = [1 << 63, u64::MAX, (1 << 63) - 1, 1 << 40, 1 << 31, 16_385]
        .map(|len| (announcing(len, FIN | TEXT), 1009, "a length"))
        .into();
    violations.push((announcing(1 << 63, TEXT), 1009, "a fragment's length"));
    let whole = [frame(BINARY, &[0; 16_000]), frame(FIN | CONTINUE, &[0; 16_000])].concat();
    violations.push((whole, 1009, "two halves, each below the limit"));
    siege.under("a frame announcing 2^63 bytes", 8, async || each_ends(&siege, &violations).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_without_end_are_closed_1009() {
    let siege = Siege::lay(&[]).await;
    let start = frame(TEXT, b"[");
    let between = [frame(CONTINUE, b""), frame(FIN | PING, b"I live")].concat();
    let violations: Vec<Violation> = vec![
        ([&start[..], &frame(CONTINUE, b" ").repeat(300)].concat(), 1009, "fragments of a byte"),
        ([&start[..], &frame(CONTINUE, b"").repeat(300)].concat(), 1009, "empty fragments"),
        ([frame(TEXT, b""), frame(CONTINUE, b"").repeat(20_000)].concat(), 1009, "a flood of nothing"),
    ];
    let attack = async || {
        each_ends(&siege, &violations).await;
        let mut raw = Raw::enter(&siege.server, "mallory").await;
        raw.say(&[&start[..], &between.repeat(256)].concat()).await;
        raw.ends_with(1009, "empty fragments with pings between").await;
    };
    siege.under("endless fragments, empty ones too", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_never_whole_is_closed_4003() {
    let siege = Siege::lay(&[("link.message_timeout_ms", "300")]).await;
    let attack = async || {
        let lives = (0..20).map(async |n| {
            let mut raw = Raw::enter(&siege.server, &format!("mallory-{n}")).await;
            // One byte of a long frame after the other, or one fragment, with pings to look alive.
            let (head, drop) = match n % 2 {
                0 => (frame(FIN | TEXT, &[b' '; 2_000])[..10].to_vec(), vec![b' ']),
                _ => (frame(TEXT, b"["), [frame(CONTINUE, b" "), frame(FIN | PING, b"")].concat()),
            };
            raw.say(&head).await;
            for _ in 0..50 {
                raw.say(&drop).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            raw.ends_with(4003, "a message that drips").await;
        });
        futures_util::future::join_all(lives).await;
    };
    siege.under("fragments that drip", 8, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_not_utf_8_is_closed_1007() {
    let siege = Siege::lay(&[]).await;
    let close_with = |reason: &[u8]| frame(FIN | CLOSE, &[&1000_u16.to_be_bytes()[..], reason].concat());
    let violations: Vec<Violation> = vec![
        (frame(FIN | TEXT, &[0xc3, 0x28]), 1007, "half a letter"),
        (frame(FIN | TEXT, &[0xed, 0xa0, 0x80]), 1007, "a surrogate"),
        (frame(FIN | TEXT, &[0xc0, 0x80]), 1007, "an overlong NUL"),
        (frame(FIN | TEXT, &[0xf5, 0x80, 0x80, 0x80]), 1007, "beyond Unicode"),
        (frame(FIN | TEXT, b"ab\xff"), 1007, "no letter at all"),
        ([frame(TEXT, &[0xe2, 0x82]), frame(FIN | CONTINUE, b"x")].concat(), 1007, "a letter torn apart"),
        ([frame(TEXT, b"x"), frame(FIN | CONTINUE, &[0xe2])].concat(), 1007, "a letter without its end"),
        (close_with(&[0xff]), 1007, "a reason to close"),
    ];
    siege.under("broken UTF-8", 8, async || each_ends(&siege, &violations).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_pings_are_closed_4506() {
    let siege = Siege::lay(&[]).await;
    let attack = async || {
        for (opcode, payload) in [(PING, &[7; 125][..]), (PING, b""), (PONG, b"unasked")] {
            let mut raw = Raw::enter(&siege.server, "mallory").await;
            raw.say(&frame(FIN | opcode, payload).repeat(2_000)).await;
            raw.ends_with(4506, "pings").await;
            // Before a login there is no rate; there are sixteen frames.
            let mut raw = Raw::open(&siege.server).await;
            raw.say(&frame(FIN | opcode, payload).repeat(2_000)).await;
            raw.ends_with(4501, "pings before a login").await;
        }
    };
    siege.under("ping floods", 8, attack).await;
}

/// Nothing is too fast, so that what stops a flood is that nobody reads.
const NO_RATES: &[(&str, &str)] = &[
    ("link.slow_close_after_ms", "300"),
    ("limits.link_frames_per_s", "1000000"),
    ("limits.link_frames_burst", "1000000"),
    ("limits.query_per_s", "1000000"),
    ("limits.query_burst", "1000000"),
    ("limits.presence_per_s", "1000000"),
    ("limits.presence_burst", "1000000"),
];

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_is_closed_4003() {
    let siege = Siege::lay(NO_RATES).await;
    let attack = async || {
        let before = siege.server.metric("hearth_closes_total", "code=\"4003\"").await;
        let lives = [
            text(r#"["state.get", 1, {}]"#),
            frame(FIN | PING, &[0; 125]),
            text(r#"["state.get", 1, {}]"#).into_iter().chain(frame(FIN | PING, b"")).collect(),
        ];
        let lives = lives.iter().enumerate().map(async |(n, asking)| {
            let mut raw = Raw::connect_narrow(&siege.server).await.upgraded().await;
            raw.logs_in(&format!("mallory-{n}")).await;
            let filled = format!(r#"["state.patch", 1, {{"set": {{"x": "{}"}}}}]"#, "x".repeat(3_800));
            raw.say(&text(&filled)).await;
            let batch = asking.repeat(64);
            while raw.say_within(Duration::from_millis(500), &batch).await {}
            // The connection stays open: it is the server that must let go.
            (siege.until_closed(4003, before + 3).await, raw)
        });
        futures_util::future::join_all(lives).await;
    };
    siege.under("never reading", 32, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_zero_costs_its_own_link_alone() {
    let siege = Siege::lay(NO_RATES).await;
    let attack = async || {
        let before = siege.server.metric("hearth_closes_total", "code=\"4003\"").await;
        let mut friend = Player::connect(siege.server.url(), Encoding::MessagePack).await;
        friend.login("friend").await;
        let mut blind = Vec::new();
        for n in 0..4 {
            let mut raw = Raw::connect_narrow(&siege.server).await.upgraded().await;
            raw.logs_in(&format!("mallory-{n}")).await;
            raw.say(&text(r#"["watch", 2, {"players": ["friend"]}]"#)).await;
            raw.say(&text(r#"["state.get", 1, {}]"#).repeat(64)).await;
            blind.push(raw);
        }
        // They read nothing from here on; what is pushed to them is joined, and then they are let go.
        let filler: serde_json::Value = (0..16).map(|n| (format!("k{n}"), json!("x".repeat(250)))).collect();
        let mut n = 0;
        while siege.server.metric("hearth_closes_total", "code=\"4003\"").await < before + 4 {
            for _ in 0..50 {
                n += 1;
                let mut activity = filler.clone();
                activity["k0"] = json!(n);
                friend.does("presence.set", json!({"status": "playing", "activity": activity})).await;
            }
            for raw in &mut blind {
                raw.say_within(
                    Duration::from_millis(20),
                    &text(r#"["presence.get", 3, {"players": ["friend"]}]"#).repeat(64),
                )
                .await;
            }
        }
    };
    siege.under("zero window", 32, attack).await;
}
