//! Benches of the codec: what one frame costs to read and to write. Run by `cargo bench -p load`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a broken bench must fail")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use protocol::push::PresenceItem;
use protocol::reply::Changed;
use protocol::request::{Ack, Op, Request, StatePatch, Status};
use protocol::{Encoding, Text, Value, codec, decode_request, encode};

const ENCODINGS: [(Encoding, &str); 2] = [(Encoding::MessagePack, "MessagePack"), (Encoding::Json, "JSON")];

fn requests(c: &mut Criterion) {
    let set = [(Text::from("pos"), Value::Int(70_000)), (Text::from("zone"), Value::Str("harbour".into()))];
    let patch = StatePatch { set: Some(set.into()), cseq: Some(70_000), ..StatePatch::default() };
    for (encoding, name) in ENCODINGS {
        let mut frame = Vec::new();
        codec::encode_request(encoding, &mut frame, 70_000, &Request::StatePatch(patch.clone()));
        c.bench_function(&format!("read a state.patch, {name}"), |b| {
            b.iter(|| decode_request(encoding, black_box(&frame)).expect("a good frame"));
        });
    }
}

fn answers(c: &mut Criterion) {
    let stamp = (1_732_400_000_001, 98);
    let changed = Changed { stamp, state_stamp: Some(stamp), ack: Some(Ack::Applied), ..Changed::default() };
    for (encoding, name) in ENCODINGS {
        let mut out = Vec::with_capacity(256);
        c.bench_function(&format!("write an ack, {name}"), |b| {
            b.iter(|| {
                out.clear();
                encode(encoding, &mut out, Op::Ok, 70_000, black_box(&changed));
            });
        });
    }
}

fn pushes(c: &mut Criterion) {
    let item = PresenceItem {
        player: "bench-player-000001".into(),
        status: Status::Playing,
        activity: Some([("map".to_owned(), Value::Str("docks".into()))].into()),
        ver: (1_732_400_000_001, 7),
        last_seen: None,
        devices: Some(vec!["pc".into()]),
    };
    let (mut body, mut out) = (Vec::new(), Vec::with_capacity(1_024));
    c.bench_function("write a presence item once, for all", |b| {
        b.iter(|| {
            body.clear();
            codec::encode_body(Encoding::MessagePack, &mut body, black_box(&item));
        });
    });
    let items = vec![body.as_slice(); 8];
    c.bench_function("write a push of 8 items that are encoded already", |b| {
        b.iter(|| {
            out.clear();
            codec::encode_presence(Encoding::MessagePack, &mut out, 9, black_box(&items).iter().copied());
        });
    });
    c.bench_function("make JSON of a presence item", |b| b.iter(|| codec::json_of(black_box(&body))));
}

criterion_group!(benches, requests, answers, pushes);
criterion_main!(benches);
