//! What a `resume` presents: a session id and a ticket.

use hearth::home::ticket::TicketKey;
use hearth::ids::SessionId;

const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";
const STRANGERS_SECRET: &[u8] = b"another one of thirty-two bytes!";

/// Bytes: 16 of a session id, 8 of a number, one place and one change of the genuine ticket, then a text that may be any
/// ticket. What opens is to the letter what is signed for the number it opens as, for its session, under its key.
pub fn tickets(bytes: &[u8]) {
    let keys = (TicketKey::from_secret(SECRET), TicketKey::from_secret(STRANGERS_SECRET));
    let (Some(ours), Some(strangers)) = keys else { panic!("both secrets are long enough") };
    let Some((id, rest)) = bytes.split_first_chunk::<16>() else { return };
    let Some((number, mut rest)) = rest.split_first_chunk::<8>() else { return };
    let (session, n) = (SessionId::from_bytes(*id), u64::from_be_bytes(*number));
    let (place, change) = (super::byte(&mut rest), super::byte(&mut rest));

    let genuine = ours.sign(session, n);
    assert_eq!(ours.open(session, &genuine), Some(n));
    assert_eq!(strangers.open(session, &genuine), None);
    let mut forged = genuine.clone().into_bytes();
    let at = usize::from(place) % forged.len();
    if let Some(letter) = forged.get_mut(at) {
        *letter = change;
    }
    for text in [String::from_utf8_lossy(&forged), String::from_utf8_lossy(rest)] {
        if let Some(number) = ours.open(session, &text) {
            assert_eq!(ours.sign(session, number), text, "what was never signed opens");
        }
        if let Ok(id) = SessionId::parse(&text) {
            assert_eq!(SessionId::parse(&id.to_string()), Ok(id));
        }
    }
}
