//! Benches of the house's pure parts: what one change, one judgement, one push, one look at a limit, one ticket costs.
//! Run by `cargo bench -p load`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a broken bench must fail")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hearth::app::settings::{home_settings, hub_settings};
use hearth::clock;
use hearth::config::Settings;
use hearth::events::{PresenceView, Status};
use hearth::home::history::History;
use hearth::home::record::sessions::Login;
use hearth::home::record::state::Patch;
use hearth::home::record::{Context, Record};
use hearth::home::ticket::TicketKey;
use hearth::hub::Hub;
use hearth::ids::{Epoch, PlayerId, SessionId, ShardId, Stamp, Version};
use hearth::limits::{Kind, LinkLimiter, Rates, SessionLimits};
use hearth::presence::push_of;
use hearth::tasks::Tasks;

fn settings() -> Settings {
    let far = "link_frames_per_s = 1000000\nlink_frames_burst = 1000000\nstate_per_s = 1000000\nstate_burst = 1000000";
    Settings::from_toml(&format!("[limits]\n{far}")).expect("good settings")
}

fn session() -> SessionId {
    SessionId::generate(ShardId::numbered(7).expect("a shard"), clock::now().unix_ms)
}

fn player() -> PlayerId {
    PlayerId::parse("bench-player-000001").expect("a good name")
}

fn stamp(epoch: u64, version: u64) -> Stamp {
    Stamp::new(Epoch::of(epoch), Version::of(version))
}

fn records(c: &mut Criterion) {
    let rules = home_settings(&settings()).rules;
    let ctx = Context { now: clock::now(), rules: &rules };
    let (mut record, id) = (Record::first(Epoch::of(1), Version::of(0)), session());
    let login = Login {
        session: id,
        device: "pc".into(),
        status: Status::Online,
        token_expires_at: u64::MAX,
        token_issued_at: 0,
        grants: Box::default(),
        pending_until: None,
    };
    record.login(ctx, login).expect("a first login");
    let mut cseq = 0;
    let mut patch = |record: &mut Record| {
        cseq += 1;
        let value = [&[0xce_u8][..], &(cseq as u32).to_be_bytes()].concat().into_boxed_slice();
        let patch = Patch { set: vec![("pos", value)], ..Patch::default() };
        record.patch(ctx, id, &patch, Some(cseq)).expect("a good patch")
    };
    c.bench_function("record: a patch of one key", |b| b.iter(|| patch(&mut record)));
    c.bench_function("record: write it for the store", |b| b.iter(|| black_box(&record).encode_p()));
    let mut history = History::default();
    (1..=8).for_each(|epoch| history.append(Epoch::of(epoch), Version::of(epoch * 100)));
    c.bench_function("history: judge a stamp of an older epoch", |b| {
        b.iter(|| black_box(&history).judge(black_box(stamp(9, 950)), black_box(stamp(2, 150))));
    });
}

fn pushes(c: &mut Criterion) {
    let view = PresenceView {
        status: Status::Playing,
        activity: Some(b"\x81\xa3map\xa5docks".to_vec().into_boxed_slice()),
        devices: vec!["pc".into()],
        ver: stamp(1, 7),
        last_seen_unix_ms: 0,
    };
    let player = player();
    c.bench_function("fan-out: encode what changed", |b| b.iter(|| push_of(&player, black_box(&view))));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let settings = hub_settings(&settings());
    let hub = Hub::start(settings.clone(), &Tasks::new());
    let (mailbox, _) = hub.mailbox_or_new(session(), &player, 0);
    let link = hub.next_link();
    mailbox.attach(link);
    let push = push_of(&player, &view);
    let mut seen = 0;
    c.bench_function("mailbox: push, take, seen", |b| {
        b.iter(|| {
            hub.push_to(&mailbox, &push);
            mailbox.take(link, &settings, true, |_| seen += 1);
            mailbox.seen(seen);
        });
    });
}

fn limits(c: &mut Criterion) {
    let rates = Rates::from_settings(&settings().limits);
    let (link, session) = (LinkLimiter::default(), SessionLimits::default());
    c.bench_function("limits: a frame of a link", |b| b.iter(|| link.check(&rates, clock::now())));
    c.bench_function("limits: a change of a session", |b| {
        b.iter(|| session.check(&rates, Kind::State, clock::now()));
    });
}

fn tickets(c: &mut Criterion) {
    let key = TicketKey::from_secret(&[7; 32]).expect("a long secret");
    let id = session();
    let ticket = key.sign(id, 42);
    c.bench_function("ticket: sign", |b| b.iter(|| key.sign(id, black_box(42))));
    c.bench_function("ticket: open", |b| b.iter(|| key.open(id, black_box(&ticket)).expect("a good ticket")));
}

criterion_group!(benches, records, pushes, limits, tickets);
criterion_main!(benches);
