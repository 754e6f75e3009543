//! What a bot says and how it reads what it hears: operations to requests, bodies to values of the history. Pure.

use std::collections::BTreeMap;

use protocol::client::{DropKind, OkBody};
use protocol::push::PresenceItem;
use protocol::reply::StateGot;
use protocol::request::{
    Ack, Players, PresenceSet, Request, RoomJoin, RoomSend, StateGet, StatePatch, Status,
};
use protocol::{Stamp, Text, Value as WireValue};

use crate::history::{Drop, Item, RING_SLOTS, Value};
use crate::mark::Mark;
use crate::options::Options;

/// The counter's key in the state.
const COUNTER: &str = "n";
/// The key of the activity that numbers changes of presence, each with its run's mark.
pub const PRESENCE: &str = "k";
/// The key of a message's data that names it.
pub const MESSAGE: &str = "m";

/// The key of what is said in a room that names it.
const WORD: &str = "s";

/// A bot's player.
#[must_use]
pub fn player(options: &Options, bot: u32) -> String {
    format!("{}{bot:05}", options.common.player_prefix)
}

/// The bot behind a player, if it is one of ours.
#[must_use]
pub fn bot(options: &Options, player: &str) -> Option<u32> {
    player.strip_prefix(&options.common.player_prefix)?.parse().ok()
}

fn ring_key(slot: u64) -> String {
    format!("r{slot:02}")
}

/// The counter + 1, and the write's name in its slot.
#[must_use]
pub(super) fn write(mark: Mark, k: u64, ack: Ack) -> Request<'static> {
    let name = marked(mark, k);
    Request::StatePatch(StatePatch {
        set: Some(BTreeMap::from([(Text::from(ring_key(k % RING_SLOTS)), name)])),
        incr: Some(BTreeMap::from([(COUNTER.into(), 1)])),
        ack: Some(ack),
        ..StatePatch::default()
    })
}

/// The status, and the change's number for others to see.
#[must_use]
pub(super) fn presence(mark: Mark, k: u64, status: Status) -> Request<'static> {
    let number = marked(mark, k);
    Request::PresenceSet(PresenceSet {
        status,
        activity: Some(BTreeMap::from([(PRESENCE.into(), number)])),
        visibility: None,
        ack: None,
        cseq: None,
    })
}

/// Everything, at least as new as this.
#[must_use]
pub(super) fn read(at_least: Option<Stamp>) -> Request<'static> {
    Request::StateGet(StateGet { keys: None, at_least })
}

/// The players behind these bots.
#[must_use]
pub(super) fn watch(options: &Options, subjects: &[u32]) -> Request<'static> {
    let players = subjects.iter().map(|subject| Text::from(player(options, *subject))).collect();
    Request::Watch(Players { players })
}

/// A room of the run.
#[must_use]
pub(super) fn room(options: &Options, room: u32) -> String {
    format!("{}room-{room:05}", options.common.player_prefix)
}

/// In, with nothing to show.
#[must_use]
pub(super) fn join(options: &Options, number: u32) -> Request<'static> {
    Request::RoomJoin(RoomJoin { room: Text::from(room(options, number)), meta: None, cseq: None })
}

/// The word's number.
#[must_use]
pub(super) fn say(options: &Options, mark: Mark, number: u32, s: u64) -> Request<'static> {
    let name = marked(mark, s);
    let data = WireValue::Map(BTreeMap::from([(WORD.to_owned(), name)]));
    Request::RoomSend(RoomSend { room: Text::from(room(options, number)), data, cseq: None })
}

/// What the history keeps of an `ok`.
#[must_use]
pub(super) fn value(options: &Options, mark: Mark, body: &OkBody) -> Value {
    match body {
        OkBody::State(got) => state(mark, got),
        OkBody::Changed(changed) => {
            let counter = changed.state.as_ref().and_then(|state| state.get(COUNTER)).and_then(integer);
            counter.map_or(Value::None, Value::Counter)
        }
        OkBody::Presences(came) => Value::Presences(items(options, mark, &came.presences)),
        _ => Value::None,
    }
}

fn state(mark: Mark, got: &StateGot) -> Value {
    let slot = |slot| got.state.get(&ring_key(slot)).and_then(|came| number(mark, came)).unwrap_or(0);
    Value::State {
        counter: got.state.get(COUNTER).and_then(integer).unwrap_or(0),
        ring: (0..RING_SLOTS).map(slot).collect(),
    }
}

/// What the history keeps of presence items; those of strangers are left out. What a bot's session of an earlier run has set
/// is none of this one's numbers.
#[must_use]
pub(super) fn items(options: &Options, mark: Mark, items: &[PresenceItem]) -> Vec<Item> {
    let kept = |item: &PresenceItem| {
        let k = item.activity.as_ref().and_then(|activity| activity.get(PRESENCE));
        let k = k.and_then(|came| number(mark, came));
        Some(Item {
            subject: bot(options, &item.player)?,
            ver: item.ver,
            status: item.status,
            k: k.unwrap_or(0),
        })
    };
    items.iter().filter_map(kept).collect()
}

/// The name that our service gave a message; 0 if it is none of ours.
#[must_use]
pub(super) fn message(mark: Mark, data: &WireValue) -> u64 {
    match data {
        WireValue::Map(fields) => fields.get(MESSAGE).and_then(|came| number(mark, came)).unwrap_or(0),
        _ => 0,
    }
}

/// The number that a bot gave its word; 0 if there is none. `None` if it is one of another run's: nobody here can say what
/// that has said.
#[must_use]
pub(super) fn word(mark: Mark, data: &WireValue) -> Option<u64> {
    match data {
        WireValue::Map(fields) => fields.get(WORD).map_or(Some(0), |came| number(mark, came)),
        _ => Some(0),
    }
}

fn marked(mark: Mark, number: u64) -> WireValue {
    WireValue::Int(i64::try_from(mark.number(number)).unwrap_or(i64::MAX))
}

/// Of this run, if it is.
fn number(mark: Mark, came: &WireValue) -> Option<u64> {
    integer(came).and_then(|came| u64::try_from(came).ok()).and_then(|came| mark.read(came))
}

fn integer(value: &WireValue) -> Option<i64> {
    match value {
        WireValue::Int(number) => Some(*number),
        _ => None,
    }
}

/// The client's word for a way to lose a link.
#[must_use]
pub(super) fn drop_kind(how: Drop) -> DropKind {
    match how {
        Drop::Reset => DropKind::Reset,
        Drop::Cut => DropKind::Cut,
        Drop::Abandon => DropKind::Abandon,
    }
}

/// The history's word for it.
#[must_use]
pub(super) fn dropped(how: DropKind) -> Drop {
    match how {
        DropKind::Reset => Drop::Reset,
        DropKind::Cut => Drop::Cut,
        DropKind::Abandon => Drop::Abandon,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use protocol::{Encoding, codec};

    use super::*;

    #[test]
    fn a_player_is_found_again() {
        let options = Options::try_parse_from(["load", "steady"]).unwrap();
        assert_eq!(player(&options, 7), "bot-00007");
        assert_eq!(bot(&options, "bot-00007"), Some(7));
        assert_eq!(bot(&options, "ann"), None);
    }

    #[test]
    fn a_full_ring_fits_the_state_with_room_to_spare() {
        let (mut bytes, mark) = (0, Mark::of_a_run());
        for k in 0..RING_SLOTS {
            let mut frame = Vec::new();
            codec::encode_request(Encoding::MessagePack, &mut frame, 1, &write(mark, k, Ack::Applied));
            bytes += ring_key(k % RING_SLOTS).len() + 1 + 9;
            assert!(frame.len() < 100);
        }
        assert!(bytes < protocol::limits::STATE_BYTES_MAX / 2, "{bytes}");
    }

    #[test]
    fn a_state_reads_as_counter_and_ring() {
        let mark = Mark::of_a_run();
        let state = BTreeMap::from([
            ("n".to_owned(), WireValue::Int(3)),
            ("r02".to_owned(), marked(mark, 66)),
            ("r05".to_owned(), WireValue::Int(69)),
            ("other".to_owned(), WireValue::Null),
        ]);
        let got = OkBody::State(StateGot { stamp: (1, 1), state, state_stamp: (1, 1) });
        let options = Options::try_parse_from(["load", "steady"]).unwrap();
        let Value::State { counter: 3, ring } = value(&options, mark, &got) else { panic!() };
        assert_eq!((ring.len(), ring[2], ring[3]), (64, 66, 0));
        assert_eq!(ring[5], 0, "what is not marked as this run's was written by another");
    }

    #[test]
    fn numbers_of_an_earlier_run_are_none_of_this_one() {
        let (before, now) = (Mark::of_a_run(), Mark::of_a_run());
        let options = Options::try_parse_from(["load", "steady"]).unwrap();
        let item = PresenceItem {
            player: player(&options, 32),
            status: Status::Playing,
            activity: Some(BTreeMap::from([(PRESENCE.to_owned(), marked(before, 2))])),
            ver: (1, 109),
            last_seen: None,
            devices: None,
        };
        let k = |mark| items(&options, mark, std::slice::from_ref(&item))[0].k;
        assert_eq!((k(before), k(now)), (2, 0));
        let said = |mark| WireValue::Map(BTreeMap::from([(WORD.to_owned(), marked(mark, 7))]));
        assert_eq!((word(now, &said(now)), word(now, &said(before))), (Some(7), None));
        assert_eq!(word(now, &WireValue::Null), Some(0), "who says nothing is of no run");
        let sent = |mark| WireValue::Map(BTreeMap::from([(MESSAGE.to_owned(), marked(mark, 7))]));
        assert_eq!((message(now, &sent(now)), message(now, &sent(before))), (7, 0));
    }
}
