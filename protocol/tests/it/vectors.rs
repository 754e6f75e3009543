//! The golden vectors: every sample's frame, byte for byte, in both encodings.
//! `protocol/vectors/*.json` is what other clients test against; a change there is a change of the wire.

use std::collections::HashSet;
use std::path::PathBuf;

use protocol::Encoding;
use protocol::request::Op;
use serde::{Deserialize, Serialize};

use crate::samples::{self, Sample};

/// One line of a golden file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vector {
    name: String,
    op: String,
    /// The text frame.
    json: String,
    /// The binary frame, in hex.
    msgpack: String,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Compares with the golden file, or writes it where the environment says so.
pub(crate) fn golden<T>(file: &str, fresh: &[T])
where
    T: Serialize + for<'a> Deserialize<'a> + PartialEq + std::fmt::Debug,
{
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(fresh).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let stored: Vec<T> = serde_json::from_str(&text).unwrap();
    for (stored, fresh) in stored.iter().zip(fresh) {
        assert_eq!(stored, fresh, "{file} pins other bytes");
    }
    assert_eq!(stored.len(), fresh.len(), "{file} has another number of samples");
}

fn check(file: &str, samples: &[Sample]) {
    let vectors: Vec<Vector> = samples
        .iter()
        .map(|sample| Vector {
            name: sample.name.to_owned(),
            op: sample.op.name().to_owned(),
            json: String::from_utf8(sample.frames[1].clone()).unwrap(),
            msgpack: hex(&sample.frames[0]),
        })
        .collect();
    golden(file, &vectors);
    for (sample, vector) in samples.iter().zip(&vectors) {
        let packed = unhex(&vector.msgpack);
        assert_eq!(sample.reread(Encoding::MessagePack, &packed), packed, "{}", sample.name);
        let text = vector.json.as_bytes();
        assert_eq!(sample.reread(Encoding::Json, text), text, "{}", sample.name);
    }
    let names: HashSet<_> = samples.iter().map(|sample| (sample.op, sample.name)).collect();
    assert_eq!(names.len(), samples.len(), "two samples of one op share a name");
}

#[test]
fn every_request_has_its_bytes() {
    check("requests.json", &samples::requests());
}

#[test]
fn every_answer_has_its_bytes() {
    check("answers.json", &samples::answers());
}

#[test]
fn every_push_has_its_bytes() {
    check("pushes.json", &samples::pushes());
}

#[test]
fn no_op_is_without_a_vector() {
    let sampled: HashSet<Op> = [samples::requests(), samples::answers(), samples::pushes()]
        .iter()
        .flatten()
        .map(|sample| sample.op)
        .collect();
    for op in Op::ALL {
        assert!(sampled.contains(op), "{} has no sample", op.name());
    }
}
