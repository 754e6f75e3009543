//! The public specification keeps up with the code: its tables of codes and ops are complete, and its examples are
//! frames that this crate reads without dropping a field.

use std::collections::BTreeSet;

use protocol::codes::{Advice, CloseCode, ErrorCode, advice};
use protocol::request::Op;
use protocol::{Encoding, codec, limits, push, reply};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// The lines of one section, from its heading to the next of the same level.
fn section(heading: &str) -> String {
    let text = readme();
    let start = text.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("no section {heading}")) + 1;
    let level = heading.split(' ').next().unwrap();
    let end = text[start + 1..].find(&format!("\n{level} ")).map_or(text.len(), |end| start + 1 + end);
    text[start..end].to_owned()
}

/// The cells of every table row in a text.
fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    text.lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
}

#[test]
fn every_error_code_has_its_row_and_no_other() {
    let told: Vec<(String, String)> = rows(&section("## 8."))
        .filter(|cells| cells[0].starts_with('`'))
        .map(|cells| (cells[0].trim_matches('`').to_owned(), cells[2].clone()))
        .collect();
    let known: Vec<(String, String)> = ErrorCode::ALL
        .iter()
        .map(|code| (code.name().to_owned(), if code.is_temporary() { "yes" } else { "no" }.to_owned()))
        .collect();
    assert_eq!(told, known);
}

#[test]
fn every_error_code_has_an_http_status() {
    let told: BTreeSet<String> = rows(&section("## 11."))
        .filter(|cells| cells.len() == 2 && cells[1].parse::<u16>().is_ok())
        .flat_map(|cells| {
            cells[0].split(' ').map(|code| code.trim_matches('`').to_owned()).collect::<Vec<_>>()
        })
        .collect();
    // Those that only a link can answer.
    let of_links = [ErrorCode::NotLoggedIn, ErrorCode::AlreadyLoggedIn, ErrorCode::CseqGap];
    for code in ErrorCode::ALL {
        assert_eq!(told.contains(code.name()), !of_links.contains(code), "{}", code.name());
    }
    assert_eq!(told.len() + of_links.len(), ErrorCode::ALL.len(), "a code that does not exist");
}

#[test]
fn every_close_code_has_its_row_and_no_other() {
    let told: Vec<u16> = rows(&section("## 9.")).filter_map(|cells| cells[0].parse().ok()).collect();
    // 1000 also opens the table of ranges.
    let known: Vec<u16> =
        std::iter::once(1000).chain(CloseCode::ALL.iter().map(|code| code.number())).collect();
    assert_eq!(told, known);
}

#[test]
fn the_ranges_say_what_the_code_does() {
    let mut judged = 0;
    for cells in rows(&section("## 9.")).filter(|cells| cells[0].contains('–') || cells[0] == "1000").take(6)
    {
        let range = cells[0].split(',').next().unwrap();
        let (from, to) = range.split_once('–').unwrap_or((range, range));
        let meant = match cells[1].as_str() {
            told if told.starts_with("is done") => Advice::Done,
            told if told.starts_with("reconnects and resumes") => Advice::Resume,
            told if told.starts_with("reconnects with a fresh login") => Advice::Login,
            told if told.starts_with("does not reconnect") => Advice::Stop,
            told => panic!("{told}"),
        };
        for number in from.parse::<u16>().unwrap()..=to.parse().unwrap() {
            assert_eq!(advice(number), meant, "{number}");
            judged += 1;
        }
    }
    assert_eq!(judged, 1 + 15 + 1000);
}

#[test]
fn every_op_is_in_the_table_with_its_number() {
    let told: BTreeSet<(u64, String)> = rows(&section("## 2."))
        .flat_map(|cells| {
            cells
                .chunks(2)
                .filter_map(|pair| Some((pair[0].parse().ok()?, pair[1].trim_matches('`').to_owned())))
                .collect::<Vec<_>>()
        })
        .collect();
    let known: BTreeSet<(u64, String)> =
        Op::ALL.iter().map(|op| (u64::from(op.number()), op.name().to_owned())).collect();
    assert_eq!(told, known);
}

#[test]
fn the_limits_told_are_those_in_force() {
    let text = section("## 10.").replace("16 384", "16384").replace("4 096", "4096");
    for (what, most) in [
        ("one frame from a client", limits::FRAME_BYTES_MAX),
        ("nesting", limits::VALUE_DEPTH_MAX),
        ("a device name", limits::DEVICE_BYTES_MAX),
        ("players in one", limits::PLAYERS_PER_CALL_MAX),
        ("players watched", limits::WATCHES_MAX),
        ("a player id, a room's name", limits::ROOM_NAME_BYTES_MAX),
        ("a member's meta", limits::META_KEYS_MAX),
        ("a member's meta", limits::META_KEY_BYTES_MAX),
        ("a member's meta", limits::META_BYTES_MAX),
        ("an activity", limits::ACTIVITY_KEYS_MAX),
        ("an activity", limits::ACTIVITY_KEY_BYTES_MAX),
        ("an activity", limits::ACTIVITY_VALUE_BYTES_MAX),
        ("a state", limits::STATE_BYTES_MAX),
        ("a state", limits::STATE_KEY_BYTES_MAX),
    ] {
        let row = rows(&text).find(|cells| cells[0].starts_with(what)).unwrap();
        let numbers: Vec<&str> = row[1].split(|c: char| !c.is_ascii_digit()).collect();
        assert!(numbers.contains(&most.to_string().as_str()), "{what}: {most} is not in {:?}", row[1]);
    }
}

/// Reads a body as `B` and tells whether nothing of it was dropped.
fn keeps<B: DeserializeOwned + Serialize>(body: &Json) -> bool {
    serde_json::from_value::<B>(body.clone()).is_ok_and(|read| &serde_json::to_value(read).unwrap() == body)
}

/// Whether a server's body is exactly one that its op can have.
fn is_said(op: Op, body: &Json) -> bool {
    match op {
        Op::Ok => {
            keeps::<reply::Empty>(body)
                || keeps::<reply::Pong>(body)
                || keeps::<reply::Refreshed>(body)
                || keeps::<reply::StateGot>(body)
                || keeps::<reply::Changed>(body)
                || keeps::<reply::Presences>(body)
                || keeps::<reply::Roster>(body)
                || keeps::<reply::Sent>(body)
        }
        Op::Error => keeps::<reply::ErrorBody>(body),
        Op::Ready => keeps::<reply::Ready>(body),
        Op::Redirect => keeps::<reply::Redirect>(body),
        Op::Presence => keeps::<push::Presence>(body),
        Op::Room => keeps::<push::Room>(body),
        Op::Message => keeps::<push::Message>(body),
        Op::Moved => keeps::<push::Moved>(body),
        Op::Bye => keeps::<push::Bye>(body),
        Op::Mode => keeps::<push::ModeChanged>(body),
        Op::RolledBack => keeps::<push::RolledBack>(body),
        Op::Durable => keeps::<push::Durable>(body),
        _ => false,
    }
}

#[test]
fn every_example_is_a_frame_and_every_op_has_one() {
    let text = readme();
    let mut shown = BTreeSet::new();
    for block in text.split("```json\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            let frame: Json = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let op = Op::named(frame[0].as_str().unwrap()).unwrap_or_else(|| panic!("{line}: unknown op"));
            shown.insert(op.number());
            if op.number() >= 100 {
                assert!(is_said(op, &frame[2]), "{line}");
                continue;
            }
            let (reference, request) = codec::decode_request(Encoding::Json, line.as_bytes())
                .unwrap_or_else(|error| panic!("{line}: {error}"));
            let mut again = Vec::new();
            codec::encode_request(Encoding::Json, &mut again, reference, &request);
            assert_eq!(serde_json::from_slice::<Json>(&again).unwrap(), frame, "a field was dropped");
        }
    }
    for op in Op::ALL {
        assert!(shown.contains(&op.number()), "{} is not shown", op.name());
    }
}
