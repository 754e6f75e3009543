//! What a client sends on its link: one frame in either encoding.

use protocol::codec::encode_request;
use protocol::{Encoding, ErrorCode, decode_request};

/// What a link takes at most, by default: longer frames never reach the decoder.
const FRAME_BYTES_MAX: usize = protocol::limits::FRAME_BYTES_MAX;

/// The first byte chooses the encoding, the rest is the frame. A refusal has one of three codes; what is taken says the
/// same after it was written and read again, in this encoding and in the other.
pub fn requests(mut bytes: &[u8]) {
    let (encoding, other) = match super::byte(&mut bytes) % 2 {
        0 => (Encoding::MessagePack, Encoding::Json),
        _ => (Encoding::Json, Encoding::MessagePack),
    };
    if bytes.len() > FRAME_BYTES_MAX {
        return;
    }
    let (reference, request) = match decode_request(encoding, bytes) {
        Ok(taken) => taken,
        Err(refused) => {
            let codes = [ErrorCode::BadFrame, ErrorCode::UnknownOp, ErrorCode::BadRequest];
            assert!(codes.contains(&refused.code), "{refused:?}");
            assert!(refused.code != ErrorCode::BadFrame || refused.reference == 0, "{refused:?}");
            return;
        }
    };
    for encoding in [encoding, other] {
        let mut written = Vec::new();
        encode_request(encoding, &mut written, reference, &request);
        let (again, request) = match decode_request(encoding, &written) {
            Ok(taken) => taken,
            Err(refused) => panic!("our own frame is refused in {encoding:?}: {refused:?} {request:?}"),
        };
        assert_eq!(again, reference);
        // Written once more rather than compared: NaN is not equal to itself.
        let mut twice = Vec::new();
        encode_request(encoding, &mut twice, again, &request);
        assert_eq!(twice, written);
    }
}
