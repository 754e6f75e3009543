//! WebSocket frames as a load generator needs them: a client's frame from a payload, a server's payloads from bytes.
//! Pure. Not a WebSocket library: no fragments, no close handshake; what it cannot read it says.

/// Appends a client's binary frame. Its mask is four zeros: the server still has to apply it, the client need not.
pub fn push_frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x82);
    match payload.len() {
        len @ 0..126 => out.push(0x80 | low_byte(len)),
        len @ 126..0x1_0000 => out.extend([0x80 | 126, low_byte(len >> 8), low_byte(len)]),
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend_from_slice(payload);
}

/// Where the payload of a frame made by [`push_frame`] begins.
#[must_use]
pub const fn head_len(payload: usize) -> usize {
    match payload {
        0..126 => 6,
        126..0x1_0000 => 8,
        _ => 14,
    }
}

const fn low_byte(number: usize) -> u8 {
    (number & 0xff) as u8
}

/// One frame from the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The WebSocket opcode: 1 and 2 are messages, 8 is a close.
    pub opcode: u8,
    /// What it carries, as long as its mask was zero.
    pub payload: &'a [u8],
    /// Header and payload, byte for byte.
    pub whole: &'a [u8],
}

/// The next whole frame and what follows it; `None` while it is not all there.
#[must_use]
pub fn next_frame(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let [first, second, ..] = *bytes else { return None };
    let mut head: usize = 2;
    let len = match second & 0x7f {
        126 => {
            head += 2;
            bytes.get(2..4)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
        }
        127 => {
            head += 8;
            bytes.get(2..10)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte))
        }
        short => usize::from(short),
    };
    head += if second & 0x80 == 0 { 0 } else { 4 };
    let whole = bytes.get(..head.checked_add(len)?)?;
    let frame = Frame { opcode: first & 0x0f, payload: whole.get(head..)?, whole };
    Some((frame, bytes.get(whole.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_size_read_back_and_wait_until_they_are_whole() {
        for len in [0, 1, 125, 126, 65_535, 65_536] {
            let (payload, mut bytes) = (vec![7; len], Vec::new());
            push_frame(&mut bytes, &payload);
            assert_eq!(bytes.len(), head_len(len) + len);
            assert_eq!(next_frame(&bytes[..bytes.len() - 1]), None, "{len}");
            bytes.push(9);
            let (frame, rest) = next_frame(&bytes).unwrap();
            assert_eq!((frame.opcode, frame.payload, rest), (2, &payload[..], &[9][..]), "{len}");
        }
    }

    #[test]
    fn an_unmasked_frame_reads_too() {
        let (frame, rest) = next_frame(&[0x88, 2, 3, 232]).unwrap();
        assert_eq!((frame.opcode, frame.payload, rest.len()), (8, &[3, 232][..], 0));
    }
}
