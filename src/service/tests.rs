//! The service API through its router, on a real home and the embedded store. What each call promises, and how each
//! refusal looks.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;
use crate::cluster::pass::ClusterKey;
use crate::cluster::{Links, Members};
use crate::config::{Secret, Settings};
use crate::events::{EndReason, Events, Status};
use crate::home::record::presence::PresenceChange;
use crate::home::{HomeSettings, Login, Opened, Resume, houses};
use crate::hub::{HubSettings, PushKind};
use crate::ids::{Epoch, Owner, PlayerId, ShardId};
use crate::presence::{Ground, RoomSettings};
use crate::store::{
    self, AcquireRequest, Acquired, ClusterConfig, Commit, Committed, Holder, LiveCursor, LivePage,
    QueueAdded, QueuedMessage, Reach, Released, Renewed, Store, StoreError, StoreFuture, StoredRecord,
};
use crate::tasks::Tasks;

mod blobs;
mod console;
mod counters;
mod locks;
mod many;
mod openapi;
mod overview;
mod slow;
mod trouble;

const KEY: &str = "s3cret-of-the-test";
const SHARDS: u16 = 4;

// === A store that can fall ill ===

struct Sick {
    store: Arc<dyn Store>,
    takes_writes: AtomicBool,
    gives_leases: AtomicBool,
    gives_records: AtomicBool,
    takes_messages_back: AtomicBool,
    /// Locks are taken, and nobody hears of it.
    loses_answers: AtomicBool,
    /// Probes have no answer, and no error either.
    stands_still: AtomicBool,
    /// How it is known to answer.
    reach: parking_lot::Mutex<Reach>,
    /// Of this shard it says once that it lost writes.
    lost_writes: parking_lot::Mutex<Option<ShardId>>,
    /// Reads that it did not answer.
    unread: AtomicUsize,
}

impl Sick {
    /// One that is well so far.
    fn of(store: Arc<dyn Store>) -> Self {
        let well = || AtomicBool::new(true);
        Self {
            store,
            takes_writes: well(),
            gives_leases: well(),
            gives_records: well(),
            takes_messages_back: well(),
            loses_answers: AtomicBool::new(false),
            stands_still: AtomicBool::new(false),
            reach: parking_lot::Mutex::default(),
            lost_writes: parking_lot::Mutex::new(None),
            unread: AtomicUsize::new(0),
        }
    }
}

fn silent<T: Send + 'static>() -> StoreFuture<'static, T> {
    Box::pin(async { Err(StoreError::Timeout) })
}

impl Store for Sick {
    fn lease_acquire(&self, request: AcquireRequest) -> StoreFuture<'_, Acquired> {
        let well = self.gives_leases.load(Ordering::Relaxed);
        if well { self.store.lease_acquire(request) } else { silent() }
    }
    fn lease_renew(
        &self,
        shard: ShardId,
        owner: &Owner,
        epoch: Epoch,
        ttl: Duration,
    ) -> StoreFuture<'_, Renewed> {
        if self.lost_writes.lock().take_if(|lost| *lost == shard).is_some() {
            return Box::pin(async { Ok(Renewed::RolledBack) });
        }
        self.store.lease_renew(shard, owner, epoch, ttl)
    }
    fn lease_release(&self, shard: ShardId, owner: &Owner, epoch: Epoch) -> StoreFuture<'_, Released> {
        self.store.lease_release(shard, owner, epoch)
    }
    fn holders(&self, shards: Vec<ShardId>) -> StoreFuture<'_, Vec<Option<store::Held>>> {
        self.store.holders(shards)
    }
    fn commit(&self, commit: Commit) -> StoreFuture<'_, Committed> {
        if self.takes_writes.load(Ordering::Relaxed) { self.store.commit(commit) } else { silent() }
    }
    fn load_players(
        &self,
        shard: ShardId,
        players: Vec<PlayerId>,
    ) -> StoreFuture<'_, Vec<Option<StoredRecord>>> {
        if self.gives_records.load(Ordering::Relaxed) {
            return self.store.load_players(shard, players);
        }
        self.unread.fetch_add(1, Ordering::Relaxed);
        silent()
    }
    fn load_live(
        &self,
        shard: ShardId,
        after: Option<LiveCursor>,
        limit: usize,
    ) -> StoreFuture<'_, LivePage> {
        self.store.load_live(shard, after, limit)
    }
    fn load_banned(
        &self,
        shard: ShardId,
        after: Option<LiveCursor>,
        limit: usize,
    ) -> StoreFuture<'_, LivePage> {
        self.store.load_banned(shard, after, limit)
    }
    fn load_known(&self, shard: ShardId) -> StoreFuture<'_, store::StoredFilter> {
        self.store.load_known(shard)
    }
    fn rotate_known(
        &self,
        shard: ShardId,
        holder: Holder,
        next: store::NextGeneration,
    ) -> StoreFuture<'_, store::Rotated> {
        self.store.rotate_known(shard, holder, next)
    }
    fn queue_add(
        &self,
        shard: ShardId,
        holder: Holder,
        player: PlayerId,
        message: QueuedMessage,
        most: usize,
    ) -> StoreFuture<'_, QueueAdded> {
        let well = self.takes_writes.load(Ordering::Relaxed);
        if well { self.store.queue_add(shard, holder, player, message, most) } else { silent() }
    }
    fn timeline(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, Vec<bytes::Bytes>> {
        let well = self.gives_records.load(Ordering::Relaxed);
        if well { self.store.timeline(shard, player) } else { silent() }
    }
    fn events_after(&self, after: Vec<(ShardId, store::EventPlace)>) -> StoreFuture<'_, store::EventsRead> {
        let well = self.gives_records.load(Ordering::Relaxed);
        if well { self.store.events_after(after) } else { silent() }
    }
    fn events_last(&self, shards: Vec<ShardId>) -> StoreFuture<'_, Vec<Option<store::EventPlace>>> {
        let well = self.gives_records.load(Ordering::Relaxed);
        if well { self.store.events_last(shards) } else { silent() }
    }
    fn queue_read(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, Vec<QueuedMessage>> {
        self.store.queue_read(shard, player)
    }
    fn queue_remove(
        &self,
        shard: ShardId,
        holder: Holder,
        player: PlayerId,
        which: store::Which,
    ) -> StoreFuture<'_, bool> {
        let well = self.takes_messages_back.load(Ordering::Relaxed);
        if well { self.store.queue_remove(shard, holder, player, which) } else { silent() }
    }
    fn counter(&self, request: store::CounterRequest) -> StoreFuture<'_, store::Counted> {
        if self.takes_writes.load(Ordering::Relaxed) { self.store.counter(request) } else { silent() }
    }
    fn lock_acquire(&self, request: store::LockRequest) -> StoreFuture<'_, store::LockAcquired> {
        if !self.takes_writes.load(Ordering::Relaxed) {
            return silent();
        }
        let answer = self.store.lock_acquire(request);
        let is_lost = self.loses_answers.load(Ordering::Relaxed);
        Box::pin(
            async move { if is_lost { answer.await.and(Err(StoreError::Timeout)) } else { answer.await } },
        )
    }
    fn lock_renew(&self, request: store::LockRequest) -> StoreFuture<'_, Option<store::LockToken>> {
        if self.takes_writes.load(Ordering::Relaxed) { self.store.lock_renew(request) } else { silent() }
    }
    fn lock_cancel(&self, name: crate::ids::KeyName, owner: store::LockOwner) -> StoreFuture<'_, bool> {
        if self.takes_writes.load(Ordering::Relaxed) { self.store.lock_cancel(name, owner) } else { silent() }
    }
    fn lock_release(&self, name: crate::ids::KeyName, owner: store::LockOwner) -> StoreFuture<'_, bool> {
        if self.takes_writes.load(Ordering::Relaxed) {
            self.store.lock_release(name, owner)
        } else {
            silent()
        }
    }
    fn blob_put(&self, put: store::BlobPut) -> StoreFuture<'_, store::BlobWritten> {
        if self.takes_writes.load(Ordering::Relaxed) { self.store.blob_put(put) } else { silent() }
    }
    fn blob_read(&self, key: store::BlobKey) -> StoreFuture<'_, Option<store::Blob>> {
        if self.takes_writes.load(Ordering::Relaxed) { self.store.blob_read(key) } else { silent() }
    }
    fn blob_remove(
        &self,
        key: store::BlobKey,
        precondition: store::Precondition,
    ) -> StoreFuture<'_, store::BlobRemoved> {
        if self.takes_writes.load(Ordering::Relaxed) {
            self.store.blob_remove(key, precondition)
        } else {
            silent()
        }
    }
    fn blobs_erase(&self, shard: ShardId, player: PlayerId) -> StoreFuture<'_, ()> {
        if self.takes_messages_back.load(Ordering::Relaxed) {
            self.store.blobs_erase(shard, player)
        } else {
            silent()
        }
    }
    fn agree_config(
        &self,
        proposal: ClusterConfig,
        stance: store::Stance,
        founding: Duration,
    ) -> StoreFuture<'_, store::Agreed> {
        self.store.agree_config(proposal, stance, founding)
    }
    fn notice(&self) -> StoreFuture<'_, Option<bytes::Bytes>> {
        self.store.notice()
    }
    fn set_notice(&self, notice: Option<bytes::Bytes>) -> StoreFuture<'_, ()> {
        if self.takes_writes.load(Ordering::Relaxed) { self.store.set_notice(notice) } else { silent() }
    }
    fn probe(&self) -> StoreFuture<'_, Duration> {
        if self.stands_still.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        if self.takes_writes.load(Ordering::Relaxed) { self.store.probe() } else { silent() }
    }
    fn shortfalls(&self) -> StoreFuture<'_, Vec<Shortfall>> {
        self.store.shortfalls()
    }
    fn reach(&self, _: ShardId) -> Reach {
        *self.reach.lock()
    }
    fn kind(&self) -> &'static str {
        self.store.kind()
    }
    fn close(&self) -> StoreFuture<'_, ()> {
        self.store.close()
    }
}

// === A house to call ===

struct House {
    _dir: Option<TempDir>,
    store: Arc<Sick>,
    events: Arc<Events>,
    home: Arc<Home>,
    hub: Arc<Hub>,
    tasks: Tasks,
    service: Arc<Service>,
    condition: Arc<AtomicU8>,
    board: Arc<Board>,
    /// Calls that passed the door so far, or were about to.
    admitted: Arc<AtomicUsize>,
}

/// What is answered.
struct Answer {
    status: u16,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("JSON")
    }

    /// The body of a refusal, after what every refusal must hold.
    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> Value {
        let body = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status, status, "{body}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let problem = self.json();
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{body}");
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
        }
        problem
    }

    #[track_caller]
    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }
}

fn room_settings() -> RoomSettings {
    RoomSettings {
        tick: Duration::from_millis(50),
        members_max: 100,
        rooms_max: 100,
        page_members_max: 100,
        diff_members_max: 100,
        meta_keys_max: 16,
        meta_bytes_max: 512,
        messages_waiting_max: 100,
    }
}

/// Rooms that nobody holds.
fn ground() -> Ground {
    Ground { epoch_of: Box::new(|_| Epoch::ZERO), is_whole: Box::new(|| true) }
}

impl House {
    async fn new() -> Self {
        Self::with_keys(Keys::bootstrap(Some(&Secret::new(KEY))), "").await
    }

    async fn with_keys(keys: Keys, limits: &str) -> Self {
        let (store, dir) = houses::folder().await;
        Self::on(Arc::new(Sick::of(store)), Some(dir), keys, limits).await
    }

    async fn on(store: Arc<Sick>, dir: Option<TempDir>, keys: Keys, limits: &str) -> Self {
        Self::with_home(houses::settings(), store, dir, keys, limits).await
    }

    async fn with_home(
        home: HomeSettings,
        store: Arc<Sick>,
        dir: Option<TempDir>,
        keys: Keys,
        limits: &str,
    ) -> Self {
        let (events, tasks) = (Arc::new(Events::default()), Tasks::new());
        let members = Members::alone(Owner::boot("node-1"), Arc::clone(&store) as Arc<dyn Store>);
        let home = Home::start(
            home,
            houses::cluster(SHARDS),
            Arc::clone(&members),
            Arc::clone(&store) as Arc<dyn Store>,
            Arc::clone(&events),
            None,
            tasks.clone(),
        )
        .unwrap();
        if store.gives_leases.load(Ordering::Relaxed) {
            assert_eq!(home.wait_owned(Duration::from_secs(10)).await, 0);
        }
        let hub_settings = HubSettings {
            heartbeat: Duration::from_secs(15),
            outbox_items_max: 512,
            slow_close_after: Duration::from_secs(10),
            replay_frames_max: 64,
            replay_bytes_max: 65_536,
        };
        let hub = Hub::start(hub_settings, &tasks);
        let presence =
            Presence::start(Arc::clone(&hub), Arc::clone(&events), room_settings(), ground(), None, &tasks);
        // The door's tests read every answer to its end, and events have none.
        let event_consumers_max =
            limits.split_once("event_consumers_max = ").map_or(0, |(_, most)| most.parse().unwrap());
        let limits = Settings::from_toml(&format!("[limits]\n{limits}")).unwrap().limits;
        let condition = Arc::new(AtomicU8::new(0));
        let asked = Arc::clone(&condition);
        let admitted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&admitted);
        let board = Arc::<Board>::default();
        let settings = ServiceSettings {
            node_id: "node-1".to_owned(),
            client_url: "ws://127.0.0.1:7700/v1/connect".to_owned(),
            keys,
            credentials_ttl: Duration::from_secs(3_600),
            cluster_mark: 7,
            blobs: BlobBounds {
                bytes_max: 1_000,
                player_bytes_max: 1_500,
                player_count_max: 2,
                in_flight_max: 2,
            },
            lock_waiters: LineBounds { waiters_max: 3, lock_waiters_max: 2 },
            event_consumers_max,
            board: Arc::clone(&board),
            store_shortfalls: Box::new(|| {
                let message = "is no".to_owned();
                vec![Shortfall { setting: "appendonly".to_owned(), message, fatal: false }]
            }),
            shortfalls_now: Box::new(|| {
                let message = "cannot be read".to_owned();
                vec![Shortfall { setting: "service.keys_file".to_owned(), message, fatal: false }]
            }),
        };
        let service = Service::new(
            settings,
            Arc::clone(&home),
            Arc::clone(&hub),
            presence,
            Links::new(ClusterKey::from_secret(&[7; 32]).unwrap(), members, &tasks),
            (KeyLimits::from_settings(&limits), Allowances::from_settings(&limits)),
            Arc::default(),
            Box::new(|| "hearth_links_open 0\n".to_owned()),
            Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                match asked.load(Ordering::Relaxed) {
                    0 => Condition::Well,
                    1 => Condition::Stopping,
                    3 => Condition::Full,
                    _ => Condition::Failed,
                }
            }),
            (tasks.clone(), tasks.clone()),
        );
        Self { _dir: dir, store, events, home, hub, tasks, service, condition, board, admitted }
    }

    /// Another process on the same store, after this one stopped in order.
    async fn restarted(mut self) -> Self {
        assert!(self.home.flush_all(Duration::from_secs(5)).await);
        self.home.release().await;
        self.tasks.stop(Duration::from_secs(5)).await;
        let keys = Keys::bootstrap(Some(&Secret::new(KEY)));
        Self::on(Arc::clone(&self.store), self._dir.take(), keys, "").await
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = router(Arc::clone(&self.service)).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, bytes };
        openapi::is_told(&method, &path, &answer);
        answer
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(with_key(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = with_key(method, path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    async fn patch(&self, player: &str, body: Value) -> Answer {
        self.call(Method::PATCH, &format!("/v1/players/{player}/state"), body).await
    }

    /// A player who is here, with a link to push to.
    async fn log_in(&self, player: &str, device: &str) -> Opened {
        let login = Login {
            player: PlayerId::parse(player).unwrap(),
            device: device.into(),
            status: Status::Online,
            token_expires_at_unix_ms: u64::MAX,
            token_issued_at_unix_ms: 0,
            grants: Box::default(),
            pending: false,
        };
        let opened = self.home.login(login).await.unwrap();
        let (mailbox, _) = self.hub.mailbox_or_new(opened.session, opened.cell.player(), 0);
        mailbox.attach(self.hub.next_link());
        opened
    }

    /// The messages that wait for a session.
    fn messages(&self, session: SessionId) -> Vec<protocol::push::Message> {
        let mailbox = self.hub.mailbox(session).unwrap();
        let link = self.hub.next_link();
        mailbox.attach(link);
        let mut pushes = Vec::new();
        mailbox.take(link, self.hub.settings(), true, |frame| pushes.extend(frame.pushes.iter().cloned()));
        let pushes = pushes.into_iter();
        pushes
            .map(|push| {
                assert!(matches!(push.kind(), PushKind::Message));
                rmp_serde::from_slice(push.msgpack()).unwrap()
            })
            .collect()
    }

    fn ended(&self) -> Vec<(SessionId, EndReason)> {
        let events = self.events.sessions.take().into_iter();
        events.filter_map(|(session, event)| Some((session, event.ended?.reason))).collect()
    }
}

/// Waits for an event.
async fn until(what: &str, is_there: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !is_there() {
        assert!(std::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::task::yield_now().await;
    }
}

fn with_key(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {KEY}"))
}

fn session_of(answer: &Value) -> SessionId {
    SessionId::parse(answer["session"].as_str().unwrap()).unwrap()
}

// === The door ===

/// Every call that needs a key, about somebody in particular.
static CALLS: LazyLock<Vec<(&str, &str, Scope)>> = LazyLock::new(|| {
    let filled = |path: &str| {
        path.replace("{session}", "018f0000-0000-7000-8000-000000000000")
            .replace("{player}", "ann")
            .replace("{room}", "room")
            .replace("{name}", "name")
    };
    let keyed = calls::all().into_iter().filter_map(|call| {
        let (method, path) = (call.method.to_string().leak(), filled(call.path).leak());
        Some((&*method, &*path, call.scope?))
    });
    keyed.collect()
});

#[tokio::test]
async fn nothing_under_v1_answers_without_a_good_key() {
    let house = House::new().await;
    let unknown =
        [("GET", "/v1/nowhere", Scope::Read), ("GET", "/v1", Scope::Read), ("PUT", "/v1/stats", Scope::Read)];
    for (method, path, _) in CALLS.iter().chain(&unknown) {
        for presented in [None, Some("Bearer "), Some("Bearer wrong"), Some(KEY), Some("Basic s3cret")] {
            let mut request = Request::builder().method(*method).uri(*path);
            if let Some(presented) = presented {
                request = request.header(header::AUTHORIZATION, presented);
            }
            let answer = house.send(request.body(Body::empty()).unwrap()).await;
            answer.problem(401, "unauthorized");
            assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
        }
    }
}

#[tokio::test]
async fn without_a_configured_key_every_call_says_which_setting_to_set() {
    let house = House::with_keys(Keys::bootstrap(None), "").await;
    for (method, path, _) in CALLS.iter() {
        let request = with_key(method.parse().unwrap(), path).body(Body::empty()).unwrap();
        let problem = house.send(request).await.problem(401, "unauthorized");
        assert!(problem["detail"].as_str().unwrap().contains("HEARTH_SERVICE_KEY"), "{problem}");
    }
    assert_eq!(house.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_key_opens_its_scopes_and_no_others() {
    for scope in Scope::ALL {
        let others: Vec<Scope> = Scope::ALL.iter().copied().filter(|other| other != scope).collect();
        let house =
            House::with_keys([Key::new("test", &Secret::new(KEY), &others)].into_iter().collect(), "").await;
        for (method, path, needed) in CALLS.iter() {
            let request = with_key(method.parse().unwrap(), path).body(Body::empty()).unwrap();
            let answer = house.send(request).await;
            if needed == scope {
                let problem = answer.problem(403, "forbidden");
                assert!(problem["detail"].as_str().unwrap().ends_with(scope.name()), "{problem}");
            } else {
                assert!(![401, 403].contains(&answer.status), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_calls_too_often_is_told_when_to_come_back() {
    let keys = Keys::bootstrap(Some(&Secret::new(KEY)));
    let limits = "service_requests_per_s = 1\nservice_requests_burst = 2";
    let house = House::with_keys(keys, limits).await;
    // Guesses are limited too, and cost a good key nothing.
    let guess = || Request::builder().uri("/v1/stats").body(Body::empty()).unwrap();
    house.send(guess()).await.problem(401, "unauthorized");
    house.send(guess()).await.problem(401, "unauthorized");
    house.send(guess()).await.problem(429, "rate_limited");
    house.get("/v1/stats").await.ok();
    house.get("/v1/stats").await.ok();
    let answer = house.get("/v1/stats").await;
    let problem = answer.problem(429, "rate_limited");
    assert!((1..=1_000).contains(&problem["retry_after_ms"].as_u64().unwrap()), "{problem}");
    assert_eq!(answer.headers[header::RETRY_AFTER], "1");
    // Probes and scrapers are not counted.
    assert_eq!(house.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_call_that_cannot_be_is_refused_by_name() {
    let house = House::new().await;
    house.get("/v1/nowhere").await.problem(404, "not_found");
    house.get("/nowhere").await.problem(404, "not_found");
    let answer = house.post("/v1/stats", json!({})).await;
    answer.problem(405, "bad_request");
    assert_eq!(answer.headers[header::ALLOW], "GET,HEAD");

    let plain = with_key(Method::POST, "/v1/sessions").body(Body::from(r#"{"player": "ann"}"#)).unwrap();
    house.send(plain).await.problem(415, "bad_request");
    let packed = with_key(Method::POST, "/v1/sessions").header(header::CONTENT_TYPE, "application/msgpack");
    house
        .send(packed.body(Body::from(&b"\x81\xa6player\xa3ann"[..])).unwrap())
        .await
        .problem(415, "bad_request");
    let squeezed = with_key(Method::POST, "/v1/sessions")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_ENCODING, "gzip");
    house.send(squeezed.body(Body::from("no matter")).unwrap()).await.problem(415, "bad_request");
    // A body that may be left out may also be left out by those who say what it would have been.
    let empty = with_key(Method::PUT, "/v1/rooms/hall/members/nobody");
    let empty = empty.header(header::CONTENT_TYPE, "application/json").body(Body::empty()).unwrap();
    house.send(empty).await.problem(404, "not_found");

    for (body, named) in [
        (json!({}), "`player`"),
        (json!({"player": 5}), "player: "),
        (json!({"player": ""}), "player: "),
        (json!({"player": "ann", "device": "x".repeat(17)}), "device: "),
        (json!({"player": "ann", "state": ["gold"]}), "state: "),
        (json!(["ann"]), "object"),
    ] {
        let problem = house.post("/v1/sessions", body.clone()).await.problem(400, "bad_request");
        assert!(problem["detail"].as_str().unwrap().contains(named), "{body}: {problem}");
    }
    let large = json!({"player": "ann", "state": {"blob": "x".repeat(BODY_BYTES_MAX)}});
    house.post("/v1/sessions", large).await.problem(413, "too_large");
}

#[tokio::test]
async fn ids_in_paths_are_decoded_and_judged() {
    let house = House::new().await;
    house.log_in("ann/ é", "pc").await;
    let seen = house.get("/v1/players/ann%2F%20%C3%A9").await.ok();
    assert_eq!(seen["player"], "ann/ é");
    for path in ["/v1/players/a%00b", "/v1/players/%ff", &format!("/v1/players/{}", "x".repeat(65))] {
        house.get(path).await.problem(400, "bad_request");
    }
    house.get("/v1/sessions/not-a-session").await.problem(400, "bad_request");
    // A session of a shard that this cluster does not have.
    let foreign = SessionId::generate(ShardId::numbered(4_000).unwrap(), 1);
    house.get(&format!("/v1/sessions/{foreign}")).await.problem(404, "not_found");
}

// === Sessions ===

#[tokio::test]
async fn a_session_that_a_service_made_is_taken_up_with_its_ticket() {
    let house = House::new().await;
    let body = json!({"player": "ann", "device": "pc", "state": {"team": "red", "gold": 5}});
    let answer = house.post("/v1/sessions", body).await;
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.bytes));
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    let made = answer.json();
    assert_eq!(
        (&made["pending_ms"], &made["url"]),
        (&json!(60_000), &json!("ws://127.0.0.1:7700/v1/connect"))
    );
    let session = session_of(&made);
    assert_eq!(answer.headers[header::LOCATION], format!("/v1/sessions/{session}"));

    let path = format!("/v1/sessions/{session}");
    let seen = house.get(&path).await.ok();
    assert_eq!((&seen["player"], &seen["device"]), (&json!("ann"), &json!("pc")));
    assert_eq!((&seen["attached"], &seen["pending"]), (&json!(false), &json!(true)));
    assert!((50_000..=60_000).contains(&seen["expires_in_ms"].as_u64().unwrap()), "{seen}");
    // Nobody sees a player whose client has not come.
    let player = house.get("/v1/players/ann").await.ok();
    assert_eq!(player["presence"]["status"], "offline");
    assert_eq!(player["state"], json!({"team": "red", "gold": 5}));

    let resume = Resume { session, ticket: made["ticket"].as_str().unwrap(), claim: None };
    let mut was_pending = false;
    house.home.resume(resume, |_, pending, _| was_pending = pending).await.unwrap();
    assert!(was_pending);
    let seen = house.get(&path).await.ok();
    assert_eq!(
        (&seen["attached"], &seen["status"], &seen["cseq"]),
        (&json!(true), &json!("online"), &json!(0))
    );
    assert_eq!(house.get("/v1/players/ann").await.ok()["presence"]["status"], "online");
}

#[tokio::test]
async fn a_session_outlives_a_restart_with_its_first_state() {
    let house = House::new().await;
    let made = house.post("/v1/sessions", json!({"player": "ann", "state": {"team": "red"}})).await.json();
    let house = house.restarted().await;
    let seen = house.get("/v1/players/ann").await.ok();
    assert_eq!(seen["state"], json!({"team": "red"}));
    assert_eq!(seen["sessions"][0]["session"], made["session"]);
}

#[tokio::test]
async fn a_session_whose_first_state_is_refused_is_not_made() {
    let house = House::new().await;
    let body = json!({"player": "ann", "state": {"blob": "x".repeat(5_000)}});
    house.post("/v1/sessions", body).await.problem(413, "too_large");
    assert_eq!(house.get("/v1/players/ann").await.ok()["sessions"], json!([]));
    assert_eq!(house.ended().len(), 1);
}

#[tokio::test]
async fn no_session_is_made_that_the_store_does_not_have() {
    let house = House::new().await;
    house.store.takes_writes.store(false, Ordering::Relaxed);
    let answer = house.post("/v1/sessions", json!({"player": "ann"})).await;
    answer.problem(503, "store_unavailable");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(house.home.records().sessions(), 0);
}

#[tokio::test]
async fn sessions_that_nobody_takes_up_do_not_pile_up() {
    let house = House::new().await;
    for _ in 0..16 {
        assert_eq!(house.post("/v1/sessions", json!({"player": "ann"})).await.status, 201);
    }
    house.post("/v1/sessions", json!({"player": "ann"})).await.problem(409, "session_limit");
    assert_eq!(house.post("/v1/sessions", json!({"player": "bea"})).await.status, 201);
}

#[tokio::test]
async fn a_session_that_is_logged_out_is_gone_for_good() {
    let house = House::new().await;
    let opened = house.log_in("ann", "pc").await;
    let path = format!("/v1/sessions/{}", opened.session);
    let answer = house.send(with_key(Method::DELETE, &path).body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, answer.bytes.len()), (204, 0));
    assert_eq!(house.ended(), [(opened.session, EndReason::Logout)]);
    house.get(&path).await.problem(404, "not_found");
    let again = house.send(with_key(Method::DELETE, &path).body(Body::empty()).unwrap()).await;
    again.problem(404, "not_found");
    // Not even a crash brings it back: nothing more is flushed here.
    house.store.takes_writes.store(false, Ordering::Relaxed);
    house.home.release().await;
    house.tasks.stop(Duration::from_secs(5)).await;
    house.store.takes_writes.store(true, Ordering::Relaxed);
    let next = House::on(Arc::clone(&house.store), None, Keys::bootstrap(Some(&Secret::new(KEY))), "").await;
    next.get(&path).await.problem(404, "not_found");
}

// === Players ===

#[tokio::test]
async fn a_player_is_told_hot_and_cold() {
    let house = House::new().await;
    house.get("/v1/players/ann").await.problem(404, "not_found");
    let opened = house.log_in("ann", "pc").await;
    let change = PresenceChange {
        status: Status::Playing,
        activity: Some(Some(rmp_serde::to_vec(&json!({"map": "docks"})).unwrap().into_boxed_slice())),
        visibility: None,
    };
    let now = clock::now();
    house.home.apply(&opened.cell, now, |r, ctx| r.set_presence(ctx, opened.session, change, None)).unwrap();
    let hot = house.get("/v1/players/ann").await.ok();
    assert_eq!(hot["presence"]["status"], "playing");
    assert_eq!(hot["presence"]["activity"], json!({"map": "docks"}));
    assert_eq!(hot["sessions"][0]["session"], opened.session.to_string());
    assert_eq!(hot["home"]["node"], "node-1");
    assert!(hot.get("last_seen").is_none(), "{hot}");
    assert!(hot["sessions"][0].get("player").is_none() && hot["sessions"][0].get("pending").is_none());

    house.home.end(&opened.cell, opened.session, EndReason::Logout, clock::now()).unwrap();
    let house = house.restarted().await;
    assert!(house.home.find(opened.cell.player()).is_none());
    let cold = house.get("/v1/players/ann").await.ok();
    assert_eq!((&cold["presence"]["status"], &cold["sessions"]), (&json!("offline"), &json!([])));
    assert!(cold["last_seen"].as_u64().unwrap() >= now.unix_ms, "{cold}");
    assert!(
        cold["stamp"][0].as_u64() > hot["stamp"][0].as_u64(),
        "a stamp carries the answering home's epoch"
    );
}

#[tokio::test]
async fn a_service_sees_an_invisible_session_but_not_her_presence() {
    let house = House::new().await;
    let opened = house.log_in("ann", "pc").await;
    let change = PresenceChange { status: Status::Invisible, activity: None, visibility: None };
    house
        .home
        .apply(&opened.cell, clock::now(), |r, ctx| r.set_presence(ctx, opened.session, change, None))
        .unwrap();
    let seen = house.get("/v1/players/ann").await.ok();
    assert_eq!(
        (&seen["presence"]["status"], &seen["sessions"][0]["status"]),
        (&json!("offline"), &json!("invisible"))
    );
}

#[tokio::test]
async fn a_read_is_not_older_than_the_stamp_that_it_names() {
    let house = House::new().await;
    house.log_in("ann", "pc").await;
    let stamp = house.patch("ann", json!({"set": {"a": 1}})).await.ok()["stamp"].clone();
    let (epoch, version) = (stamp[0].as_u64().unwrap(), stamp[1].as_u64().unwrap());
    let path = |epoch: u64, version: u64, wait_ms: u64| {
        format!("/v1/players/ann?min_stamp={epoch}.{version}&wait_ms={wait_ms}")
    };
    house.get(&path(epoch, version, 0)).await.ok();
    let problem = house.get(&path(epoch, version + 1, 0)).await.problem(409, "behind");
    assert_eq!(problem["stamp"], stamp);
    // It comes while the caller waits.
    let path = path(epoch, version + 1, 10_000);
    let (waited, _) = tokio::join!(house.get(&path), house.patch("ann", json!({"set": {"a": 2}})));
    assert_eq!(waited.ok()["state"], json!({"a": 2}));
    for query in
        ["min_stamp=7", "min_stamp=a.b", "min_stamp=1.1&wait_ms=10001", "wait_ms=-1", "wait_ms=1&wait_ms=2"]
    {
        house.get(&format!("/v1/players/ann?{query}")).await.problem(400, "bad_request");
    }
}

#[tokio::test]
async fn a_stamp_that_was_lost_is_told_with_what_survived() {
    let house = House::new().await;
    house.log_in("ann", "pc").await;
    let stamp = house.patch("ann", json!({"set": {"a": 1}, "ack": "durable"})).await.ok()["stamp"].clone();
    let (epoch, version) = (stamp[0].as_u64().unwrap(), stamp[1].as_u64().unwrap());
    let house = house.restarted().await;
    house.get(&format!("/v1/players/ann?min_stamp={epoch}.{version}")).await.ok();
    // One more than the former home ever flushed.
    let lost = house.get(&format!("/v1/players/ann?min_stamp={epoch}.{}&wait_ms=10", version + 1)).await;
    assert_eq!(lost.problem(409, "rolled_back")["to"], stamp);
    // An epoch that never was, and a player of whom nothing is known: nobody can say what survived.
    for path in
        [format!("/v1/players/ann?min_stamp={}.1", epoch * 2), "/v1/players/bea?min_stamp=1.1".to_owned()]
    {
        let problem = house.get(&path).await.problem(409, "rolled_back");
        assert_eq!(problem.get("to"), Some(&Value::Null), "{problem}");
    }
}

// === State ===

#[tokio::test]
async fn a_state_is_patched_as_on_the_wire() {
    let house = House::new().await;
    house.patch("ann", json!({"set": {"a": 1}})).await.problem(404, "not_found");
    house.log_in("ann", "pc").await;
    let first = house.patch("ann", json!({"set": {"zone": "harbour", "old": [1, {"b": null}]}})).await.ok();
    assert_eq!(first["ack"], "applied");
    assert_eq!(first["stamp"], first["state_stamp"]);
    assert!(first.get("state").is_none());
    let body = json!({"set": {"zone": "docks"}, "unset": ["old"], "incr": {"gold": 5}, "if_state": first["state_stamp"], "ack": "durable"});
    let second = house.patch("ann", body.clone()).await.ok();
    assert_eq!((&second["ack"], &second["state"]), (&json!("durable"), &json!({"gold": 5})));
    let seen = house.get("/v1/players/ann").await.ok();
    assert_eq!(seen["state"], json!({"zone": "docks", "gold": 5}));
    assert_eq!(seen["state_stamp"], second["state_stamp"]);

    let problem = house.patch("ann", body).await.problem(409, "state_conflict");
    assert_eq!(problem["state_stamp"], second["state_stamp"]);
    house.patch("ann", json!({"incr": {"zone": 1}})).await.problem(400, "bad_request");
    house.patch("ann", json!({"incr": {"gold": "1"}})).await.problem(400, "bad_request");
    house.patch("ann", json!({"set": {"": 1}})).await.problem(400, "bad_request");
    house.patch("ann", json!({"set": {"blob": "x".repeat(4_100)}})).await.problem(413, "too_large");
    house.patch("ann", json!({"ack": "for_sure"})).await.problem(400, "bad_request");
    let problem = house
        .patch("ann", json!({"set": {"a": 1}, "ack": "replicated"}))
        .await
        .problem(503, "store_unavailable");
    assert!(problem.get("applied").is_none());
    assert_eq!(
        house.get("/v1/players/ann").await.ok()["stamp"],
        seen["stamp"],
        "a refused patch changes nothing"
    );
}

#[tokio::test]
async fn a_durable_change_that_the_store_did_not_take_is_told_as_applied_only() {
    let house = House::new().await;
    house.log_in("ann", "pc").await;
    house.store.takes_writes.store(false, Ordering::Relaxed);
    let problem = house
        .patch("ann", json!({"set": {"a": 1}, "ack": "durable"}))
        .await
        .problem(503, "store_unavailable");
    assert_eq!((&problem["applied"], &problem["temporary"]), (&json!(true), &json!(true)));
    let seen = house.get("/v1/players/ann").await.ok();
    assert_eq!((&seen["state"], &seen["stamp"]), (&json!({"a": 1}), &problem["stamp"]));
    assert_eq!(house.patch("ann", json!({"set": {"a": 2}})).await.ok()["ack"], "applied");
}

// === Presence of many ===

#[tokio::test]
async fn presence_of_many_is_told_in_the_order_asked_hot_and_cold() {
    let house = House::new().await;
    let cold = house.log_in("cold", "pc").await;
    house.home.end(&cold.cell, cold.session, EndReason::Logout, clock::now()).unwrap();
    let house = house.restarted().await;
    house.log_in("ann", "web").await;
    let before = clock::now().unix_ms;
    let players = json!({"players": ["cold", "ann", "never", "ann"], "max_age_ms": 100});
    let answer = house.post("/v1/presence/query", players.clone()).await;
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    let told = answer.ok();
    let names: Vec<_> =
        told["presences"].as_array().unwrap().iter().map(|item| item["player"].as_str().unwrap()).collect();
    assert_eq!(names, ["cold", "ann", "never", "ann"]);
    assert_eq!(
        (&told["presences"][0]["status"], &told["presences"][1]["status"]),
        (&json!("offline"), &json!("online"))
    );
    assert!(told["presences"][0]["last_seen"].as_u64().is_some(), "{told}");
    assert_eq!(
        (&told["presences"][1]["devices"], &told["presences"][2]["ver"]),
        (&json!(["web"]), &json!([0, 0]))
    );
    assert!((before..=clock::now().unix_ms).contains(&told["as_of"].as_u64().unwrap()));
    assert_eq!(told["unknown"], json!([]));

    // The same as MessagePack, asked in JSON.
    let request = with_key(Method::POST, "/v1/presence/query")
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .header(header::ACCEPT, "application/msgpack");
    let packed = house.send(request.body(Body::from(players.to_string())).unwrap()).await;
    assert_eq!(
        (packed.status, &packed.headers[header::CONTENT_TYPE]),
        (200, &"application/msgpack".parse().unwrap())
    );
    let mut unpacked: Value = rmp_serde::from_slice(&packed.bytes).unwrap();
    unpacked["as_of"] = told["as_of"].clone();
    assert_eq!(unpacked, told);

    // And asked in MessagePack.
    let asked = rmp_serde::to_vec_named(&json!({"players": ["ann"], "fields": ["status"]})).unwrap();
    let request =
        with_key(Method::POST, "/v1/presence/query").header(header::CONTENT_TYPE, "application/msgpack");
    let packed = house.send(request.body(Body::from(asked)).unwrap()).await;
    let unpacked: Value = rmp_serde::from_slice(&packed.bytes).unwrap();
    assert_eq!(
        unpacked["presences"],
        json!([{"player": "ann", "status": "online", "ver": told["presences"][1]["ver"]}])
    );
}

#[tokio::test]
async fn a_query_is_bounded_and_names_what_is_wrong() {
    let house = House::new().await;
    let players = |count: usize| (0..count).map(|n| format!("player-{n}")).collect::<Vec<_>>();
    let told = house.post("/v1/presence/query", json!({"players": players(1_000)})).await.ok();
    assert_eq!(told["presences"].as_array().unwrap().len(), 1_000);
    house.post("/v1/presence/query", json!({"players": players(1_001)})).await.problem(413, "too_large");
    assert_eq!(house.post("/v1/presence/query", json!({"players": []})).await.ok()["presences"], json!([]));
    for (body, named) in [
        (json!({"players": ["ann", ""]}), "players[1]: "),
        (json!({"players": "ann"}), "players: "),
        (json!({"players": ["ann"], "fields": ["colour"]}), "fields: "),
        (json!({"players": ["ann"], "max_age_ms": "soon"}), "max_age_ms: "),
    ] {
        let problem = house.post("/v1/presence/query", body).await.problem(400, "bad_request");
        assert!(problem["detail"].as_str().unwrap().starts_with(named), "{problem}");
    }
    let request = with_key(Method::POST, "/v1/presence/query").header(header::CONTENT_TYPE, "text/plain");
    house.send(request.body(Body::from("{}")).unwrap()).await.problem(415, "bad_request");
}

#[tokio::test]
async fn players_whose_home_cannot_answer_are_named_and_never_guessed() {
    let house = House::new().await;
    house.tasks.stop(Duration::from_secs(5)).await;
    house.home.release().await;
    let told = house.post("/v1/presence/query", json!({"players": ["ann", "bea"]})).await.ok();
    assert_eq!((&told["presences"], &told["unknown"]), (&json!([]), &json!(["ann", "bea"])));
    for path in ["/v1/players/ann", "/v1/players/ann?min_stamp=1.1"] {
        let answer = house.get(path).await;
        assert!(answer.problem(503, "not_home")["retry_after_ms"].as_u64().unwrap() > 0);
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
    }
    house.post("/v1/sessions", json!({"player": "ann"})).await.problem(503, "not_home");
    house.patch("ann", json!({"set": {"a": 1}})).await.problem(503, "not_home");
    house.post("/v1/players/ann/messages", json!({"data": 1})).await.problem(503, "not_home");
    house.post("/v1/players/ann/kick", json!({"reason": "x"})).await.problem(503, "not_home");
    let ready = house.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["reasons"], json!(["4 of 4 shards do not serve"]));
}

// === Messages ===

#[tokio::test]
async fn a_message_reaches_every_session_that_is_here() {
    let house = House::new().await;
    let path = "/v1/players/ann/messages";
    assert_eq!(house.post(path, json!({"data": 1})).await.ok()["delivered"], 0, "nobody is here");
    let opened = house.log_in("ann", "pc").await;
    // It waits for its client, and has no mailbox yet.
    house.post("/v1/sessions", json!({"player": "ann"})).await;
    let pushed = house.post(path, json!({"data": {"match": 9}, "ack": "applied"})).await.ok();
    assert_eq!(pushed["delivered"], 1);
    let messages = house.messages(opened.session);
    assert_eq!(messages.len(), 1);
    assert_eq!(
        serde_json::to_value(&messages[0]).unwrap(),
        json!({"id": pushed["id"], "data": {"match": 9}, "service": "bootstrap"})
    );

    let other = house.post(path, json!({"data": {"match": 9}})).await.ok();
    assert_ne!(other["id"], pushed["id"]);
    house.post(path, json!({})).await.problem(400, "bad_request");
    house.post(path, json!({"data": "x".repeat(17_000)})).await.problem(413, "too_large");
    house.post(path, json!({"data": 1, "ack": "replicated"})).await.problem(400, "bad_request");
    assert_eq!(house.messages(opened.session).len(), 1, "what was refused is not pushed");
}

#[tokio::test]
async fn a_message_with_an_idempotency_key_is_sent_once() {
    let house = House::new().await;
    let path = "/v1/players/ann/messages";
    let keyed = |key: &str| json!({"data": "welcome", "idempotency_key": key});
    let early = house.post(path, keyed("one")).await.ok();
    assert_eq!(early["delivered"], 0);
    let opened = house.log_in("ann", "pc").await;
    let first = house.post(path, keyed("one")).await.ok();
    assert_eq!((&first["delivered"], &first["id"]), (&json!(1), &early["id"]), "nobody was reached before");
    let again = house.post(path, keyed("one")).await.ok();
    assert_eq!(again, first);
    let other = house.post(path, keyed("two")).await.ok();
    assert_ne!(other["id"], first["id"]);
    let ids: Vec<Value> =
        house.messages(opened.session).into_iter().map(|message| json!(message.id)).collect();
    assert_eq!(ids, [first["id"].clone(), other["id"].clone()]);
    for key in ["", &"k".repeat(65)] {
        house.post(path, keyed(key)).await.problem(400, "bad_request");
    }
}

// === Kick ===

#[tokio::test]
async fn a_kick_ends_every_session_with_a_reason_that_the_client_sees() {
    let house = House::new().await;
    let path = "/v1/players/ann/kick";
    assert_eq!(house.post(path, json!({"reason": "x"})).await.ok()["sessions"], 0);
    for (code, told) in [(None, 4502), (Some(4750), 4750), (Some(4999), 4999)] {
        let opened = house.log_in("ann", "pc").await;
        house.post("/v1/sessions", json!({"player": "ann"})).await;
        house.ended();
        let body =
            code.map_or(json!({"reason": "cheating"}), |code| json!({"reason": "cheating", "code": code}));
        assert_eq!(house.post(path, body).await.ok()["sessions"], 2);
        let ended = house.ended();
        assert_eq!(ended.len(), 2);
        let kicked = EndReason::Kicked { code: told, reason: "cheating".into() };
        assert!(ended.iter().all(|(_, reason)| *reason == kicked), "{ended:?}");
        assert!(ended.iter().any(|(session, _)| *session == opened.session));
    }
    assert_eq!(house.get("/v1/players/ann").await.ok()["sessions"], json!([]));
}

#[tokio::test]
async fn a_kick_that_cannot_be_done_as_asked_does_nothing() {
    let house = House::new().await;
    house.log_in("ann", "pc").await;
    let path = "/v1/players/ann/kick";
    for code in [0, 1000, 4000, 4503, 4749, 5000, 65_535] {
        house.post(path, json!({"reason": "x", "code": code})).await.problem(400, "bad_request");
    }
    house.post(path, json!({"code": 4502})).await.problem(400, "bad_request");
    house.post(path, json!({"reason": "x".repeat(257)})).await.problem(400, "bad_request");
    house.post(path, json!({"reason": "x", "revoke_before": 1})).await.problem(400, "bad_request");
    assert_eq!(house.home.records().sessions(), 1);
}

// === Sight ===

#[tokio::test]
async fn statistics_count_players_by_status_and_device() {
    let house = House::new().await;
    for (player, device) in [("ann", "pc"), ("bea", "web"), ("cem", "web")] {
        house.log_in(player, device).await;
    }
    let told = house.get("/v1/stats").await.ok();
    assert_eq!(told["players"]["online"], 3);
    assert_eq!(told["players"]["by_status"], json!({"online": 3, "away": 0, "busy": 0, "playing": 0}));
    assert_eq!(told["players"]["by_device"], json!({"pc": 1, "web": 2}));
    assert_eq!((&told["sessions"], &told["links"], &told["rooms"]), (&json!(3), &json!(0), &json!(0)));
    // Asked at once again, nothing is walked.
    house.log_in("dan", "pc").await;
    assert_eq!(house.get("/v1/stats").await.ok(), told);
}

#[tokio::test]
async fn the_cluster_tells_where_every_shard_stands() {
    let house = House::new().await;
    house.store.takes_writes.store(false, Ordering::Relaxed);
    let opened = house.home.find(&PlayerId::parse("ann").unwrap());
    assert!(opened.is_none());
    let told = house.get("/v1/cluster").await.ok();
    assert_eq!((&told["node"], &told["nodes"][0]["node"]), (&json!("node-1"), &json!("node-1")));
    assert_eq!(told["store"]["kind"], "embedded");
    assert_eq!(told["store"]["shortfalls"][0]["setting"], "appendonly");
    let shards = told["shards"].as_array().unwrap();
    assert_eq!(shards.len(), usize::from(SHARDS));
    for (number, shard) in shards.iter().enumerate() {
        assert_eq!((&shard["shard"], &shard["home"]), (&json!(number), &json!("node-1")));
        assert_eq!((&shard["state"], &shard["serving"]), (&json!("owned"), &json!(true)), "{shard}");
        assert!(shard["epoch"].as_u64().unwrap() > 0);
        assert_eq!((&shard["dirty"], &shard["flush_lag_ms"]), (&json!(0), &json!(0)));
    }
}

#[tokio::test]
async fn what_waits_for_its_commit_is_told() {
    let house = House::new().await;
    house.log_in("ann", "pc").await;
    house.store.takes_writes.store(false, Ordering::Relaxed);
    house.patch("ann", json!({"set": {"a": 1}, "ack": "durable"})).await.problem(503, "store_unavailable");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    // Between two tries of the flush the record is in the queue.
    loop {
        let told = house.get("/v1/cluster").await.ok();
        if told["shards"].as_array().unwrap().iter().any(|shard| shard["dirty"] == 1) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{told}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn probes_and_scrapers_need_no_key() {
    let house = House::new().await;
    let open = |path: &str| house.send(Request::builder().uri(path).body(Body::empty()).unwrap());
    assert_eq!(open("/healthz").await.ok(), json!({"status": "ok"}));
    let ready = open("/readyz").await.ok();
    assert_eq!((&ready["ready"], &ready["reasons"]), (&json!(true), &json!([])));
    assert_eq!(ready["shards"], json!({"serving": 4, "of": 4}));
    assert!(ready["store"]["probe_ms"].as_u64().is_some(), "{ready}");
    assert_eq!(ready["shortfalls"][0]["message"], "is no");
    let metrics = open("/metrics").await;
    assert_eq!((metrics.status, metrics.bytes.as_slice()), (200, &b"hearth_links_open 0\n"[..]));
    assert!(metrics.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
}

#[tokio::test]
async fn a_node_that_cannot_write_is_not_ready() {
    let house = House::new().await;
    house.store.takes_writes.store(false, Ordering::Relaxed);
    let answer = house.get("/readyz").await;
    assert_eq!(answer.status, 503);
    let told = answer.json();
    assert_eq!(
        (&told["ready"], &told["reasons"]),
        (&json!(false), &json!(["the store did not answer in time"]))
    );
    assert!(told["store"].get("probe_ms").is_none());
    assert_eq!(house.get("/healthz").await.status, 200, "the process is well nevertheless");
}

#[tokio::test]
async fn a_node_that_stops_is_not_ready_and_one_that_failed_answers_nothing() {
    let house = House::new().await;
    house.get("/readyz").await.ok();
    house.condition.store(1, Ordering::Relaxed);
    let told = house.get("/readyz").await;
    assert_eq!((told.status, &told.json()["reasons"]), (503, &json!(["the node is stopping"])));
    assert_eq!(house.get("/healthz").await.status, 200);
    house.get("/v1/stats").await.ok();
    house.condition.store(2, Ordering::Relaxed);
    house.get("/healthz").await.problem(500, "internal");
    house.get("/v1/stats").await.problem(500, "internal");
    assert_eq!(house.get("/readyz").await.status, 503);
    assert_eq!(house.get("/metrics").await.status, 200, "what happened can still be read");
}

#[tokio::test]
async fn calls_are_counted_by_route_and_status() {
    let recorded = crate::telemetry::metrics::install().unwrap();
    let house = House::new().await;
    house.get("/v1/sessions/not-a-session").await.problem(400, "bad_request");
    house.get("/v1/nowhere/else").await.problem(404, "not_found");
    let text = recorded.render();
    for series in [
        r#"hearth_service_requests_total{route="/v1/sessions/{session}",status="400"}"#,
        r#"hearth_service_requests_total{route="other",status="404"}"#,
        r#"hearth_service_request_seconds_count{route="/v1/sessions/{session}"}"#,
    ] {
        let count = text.lines().find_map(|line| line.strip_prefix(series));
        assert!(count.is_some_and(|count| count.trim() != "0"), "{series} is not in\n{text}");
    }
}

/// What is logged in this thread, from now on.
#[derive(Clone, Default)]
struct Lines(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        // With one subscriber alone, whichever thread comes by an event first decides for all whether it is heard, and
        // the other tests' threads listen to nothing. With a second one alive, all subscribers are asked.
        static ANOTHER: std::sync::LazyLock<tracing::Dispatch> =
            std::sync::LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));
        std::sync::LazyLock::force(&ANOTHER);
        let lines = Self::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    /// The audit lines since the last look.
    fn audit(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap();
        text.lines().filter(|line| line.contains(" audit: ")).map(str::to_owned).collect()
    }
}

#[test]
fn a_line_is_heard_whichever_thread_came_by_first() {
    let (lines, _here) = Lines::listen();
    let says = || tracing::info!(target: "audit", "here");
    std::thread::spawn(says).join().unwrap();
    says();
    assert_eq!(lines.audit().len(), 1);
}

#[tokio::test]
async fn every_change_leaves_one_audit_line_without_secrets() {
    let (lines, _here) = Lines::listen();
    let house = House::new().await;
    let made = house.post("/v1/sessions", json!({"player": "ann", "state": {"k": "payload"}})).await.json();
    house.patch("ann", json!({"set": {"k": "payload"}})).await.ok();
    house.patch("ann", json!({"incr": {"k": 1}})).await.problem(400, "bad_request");
    house.post("/v1/players/ann/messages", json!({"data": "payload"})).await.ok();
    house.post("/v1/players/ann/kick", json!({"reason": "payload"})).await.ok();
    house.get("/v1/players/ann").await.ok();
    let text = lines.text();
    let audit = lines.audit();
    let of = |line: &String, name: &str| {
        let value = line.split(&format!(" {name}=")).nth(1).unwrap_or_default();
        value.split(' ').next().unwrap_or_default().trim_matches('"').to_owned()
    };
    let told: Vec<_> = audit.iter().map(|line| (of(line, "operation"), of(line, "status"))).collect();
    let told: Vec<_> = told.iter().map(|(operation, status)| (operation.as_str(), status.as_str())).collect();
    let expected = [
        ("session.open", "ok"),
        ("state.patch", "ok"),
        ("state.patch", "refused"),
        ("message", "ok"),
        ("kick", "ok"),
    ];
    assert_eq!(told, expected, "{text}");
    for line in &audit {
        assert_eq!((of(line, "key"), of(line, "via")), ("bootstrap".to_owned(), "key".to_owned()), "{line}");
        assert_eq!(of(line, "player"), "ann", "{line}");
    }
    assert!(audit[0].contains(made["session"].as_str().unwrap()));
    for secret in [KEY, "payload", made["ticket"].as_str().unwrap()] {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
}

/// Every route with every method: nobody has to remember to add a new one here.
#[tokio::test]
async fn no_call_can_change_anything_without_an_audit_line() {
    let (lines, _here) = Lines::listen();
    let house = House::new().await;
    let mut changing = 0;
    for route in route::ALL {
        let path = route
            .replace("{session}", "018f0000-0000-7000-8000-000000000000")
            .replace("{player}", "ann")
            .replace(['{', '}'], "");
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            lines.audit();
            let answer = house.call(method.clone(), &path, json!({})).await;
            if answer.status == 405 || route::OPEN.contains(route) {
                continue;
            }
            assert!(
                CALLS.iter().any(|(known, at, _)| *known == method.as_str() && *at == path),
                "{method} {path} is not among the CALLS that the door's tests try"
            );
            let audit = lines.audit();
            if method == Method::GET || *route == route::QUERY {
                assert_eq!(audit, Vec::<String>::new(), "{method} {path} changes nothing");
            } else {
                assert_eq!(audit.len(), 1, "{method} {path} leaves no audit line");
                assert!(!audit[0].contains("operation=\"none\""), "{}", audit[0]);
                assert_eq!(audit[0].contains("player=ann"), path.contains("ann"), "{}", audit[0]);
                changing += 1;
            }
        }
    }
    let changes = |(method, _, scope): &&(&str, &str, Scope)| *method != "GET" && *scope != Scope::Read;
    let named = CALLS.iter().filter(changes).count();
    assert_eq!(changing, named, "every changing call among CALLS was tried");
}

#[tokio::test]
async fn a_change_whose_caller_has_gone_leaves_its_audit_line() {
    let (lines, _here) = Lines::listen();
    let house = House::new().await;
    house.log_in("ann", "pc").await;
    house.store.takes_writes.store(false, Ordering::Relaxed);
    // The kick takes effect, and then waits in vain for the store.
    let kick = house.post("/v1/players/ann/kick", json!({"reason": "r"}));
    tokio::select! {
        answer = kick => panic!("it was answered: {}", answer.status),
        () = until("the end", || !house.events.sessions.take().is_empty()) => {}
    }
    let audit = lines.audit();
    assert_eq!(audit.len(), 1);
    assert!(
        audit[0].contains("operation=\"kick\"") && audit[0].contains("status=\"abandoned\""),
        "{audit:?}"
    );
}

// === The port ===

#[tokio::test]
async fn the_port_answers_and_closes_in_order() {
    let house = House::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = Tasks::new();
    let (service, inner) = (Arc::clone(&house.service), tasks.clone());
    tasks.spawn_vital("service", async move { serve(listener, service, Arc::default(), &inner).await });
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{address}{path}");
    assert_eq!(client.get(url("/healthz")).send().await.unwrap().status(), 200);
    // A call under way is answered before the port closes; a connection that only idles does not hold it up.
    house.log_in("ann", "pc").await;
    let stamp = house.get("/v1/players/ann").await.ok()["stamp"].clone();
    let version = stamp[1].as_u64().unwrap();
    let ahead = format!("/v1/players/ann?wait_ms=10000&min_stamp={}.{}", stamp[0], version + 1);
    let before = house.admitted.load(Ordering::Relaxed);
    let waiting = client.get(url(&ahead)).bearer_auth(KEY).send();
    let (answered, (), late) = tokio::join!(
        waiting,
        async {
            until("the stop", || tasks.is_stopping()).await;
            house.patch("ann", json!({"set": {"a": 1}})).await.ok();
        },
        async {
            until("the call", || house.admitted.load(Ordering::Relaxed) > before).await;
            tasks.stop(Duration::from_secs(10)).await
        }
    );
    assert_eq!(answered.unwrap().status(), 200);
    assert_eq!(late, Vec::<&str>::new());
    assert!(!tasks.has_failed());
    assert!(client.get(url("/healthz")).send().await.is_err(), "the port is closed");
}
