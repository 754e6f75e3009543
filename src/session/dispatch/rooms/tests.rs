//! Records, rosters and clients under random orders of joins, drops, resumes, ends, services and crashes: at the end
//! every roster is what the records say, and every client who is there knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use protocol::push::Room as RoomBody;
use protocol::reply::Member as WireMember;

use super::*;
use crate::events::{EndReason, Events, Status};
use crate::home::record::sessions::Login;
use crate::home::record::{Context, LinkState, LoginPolicy, Record, Rules};
use crate::hub::{Hub, HubSettings, LinkNo, Push, PushKind};
use crate::ids::{Epoch, PlayerId, RoomPattern, SessionId, ShardId, Version};
use crate::presence::roster::Page;
use crate::presence::{Ground, Presence, RoomSettings, Rooms};
use crate::store::StoredRecord;
use crate::tasks::Tasks;

const PLAYERS: usize = 4;
const ROOMS: usize = 3;
const MEMBERS_MAX: usize = 3;
const TICK: Duration = Duration::from_millis(50);
const EVERYBODY: usize = 1_000;

/// Whether each member is online, and her meta: what a roster shows.
type Shown = BTreeMap<String, (bool, Option<u8>)>;

#[derive(Debug, Clone, Copy)]
enum Step {
    Login,
    Join(u8),
    Leave,
    Meta(u8),
    Drops,
    Resume,
    Logout,
    PutIn,
    TakeOut,
    CatchUp,
    Tick,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<(Step, usize, usize, usize)>> {
    let step = prop_oneof![
        2 => Just(Step::Login),
        5 => (0..3u8).prop_map(Step::Join),
        2 => Just(Step::Leave),
        1 => (0..3u8).prop_map(Step::Meta),
        3 => Just(Step::Drops),
        4 => Just(Step::Resume),
        1 => Just(Step::Logout),
        2 => Just(Step::PutIn),
        1 => Just(Step::TakeOut),
        1 => Just(Step::CatchUp),
        3 => Just(Step::Tick),
        1 => prop_oneof![9 => Just(Step::Tick), 1 => Just(Step::Crash)],
    ];
    proptest::collection::vec((step, 0..PLAYERS, 0..3usize, 0..ROOMS), 0..80)
}

/// One session's client: what it has been told of each room.
#[derive(Debug, Default)]
struct Client {
    link: LinkNo,
    last_seq: u64,
    seen: BTreeMap<RoomName, ((u64, u64), Shown)>,
}

fn shown(members: &[WireMember]) -> impl Iterator<Item = (String, (bool, Option<u8>))> {
    members.iter().map(|member| {
        let meta = member.meta.as_ref().and_then(|meta| match meta.get("n") {
            Some(Value::Int(n)) => u8::try_from(*n).ok(),
            _ => None,
        });
        (member.player.clone(), (member.online.unwrap_or(true), meta))
    })
}

/// The house without links and store: records as `home` keeps them, and the rooms above.
struct House {
    epoch: Arc<AtomicU64>,
    events: Arc<Events>,
    hub: Arc<Hub>,
    presence: Arc<Presence>,
    rules: Rules,
    players: Vec<(PlayerId, Record)>,
    clients: BTreeMap<SessionId, Client>,
    vers: BTreeMap<RoomName, (Epoch, Version)>,
    now: Now,
}

fn above(epoch: &Arc<AtomicU64>) -> (Arc<Events>, Arc<Hub>, Arc<Presence>) {
    let (events, tasks) = (Arc::new(Events::default()), Tasks::new());
    let hub = HubSettings {
        heartbeat: Duration::from_secs(15),
        // Little, so that pushes are lost now and then.
        outbox_items_max: 3,
        slow_close_after: Duration::from_secs(10),
        replay_frames_max: 2,
        replay_bytes_max: 65_536,
    };
    let hub = Hub::start(hub, &tasks);
    let rooms = RoomSettings {
        tick: TICK,
        members_max: MEMBERS_MAX,
        rooms_max: 100,
        page_members_max: 2,
        diff_members_max: 2,
        meta_keys_max: 16,
        meta_bytes_max: 512,
        messages_waiting_max: 8,
    };
    let epoch = Arc::clone(epoch);
    let ground = Ground {
        epoch_of: Box::new(move |_| Epoch::of(epoch.load(Ordering::Relaxed))),
        is_whole: Box::new(|| true),
    };
    let presence = Presence::start(Arc::clone(&hub), Arc::clone(&events), rooms, ground, None, &tasks);
    (events, hub, presence)
}

impl House {
    fn new() -> Self {
        let epoch = Arc::new(AtomicU64::new(10));
        let (events, hub, presence) = above(&epoch);
        let rules = Rules {
            session_ttl: Duration::from_secs(1800),
            login_policy: LoginPolicy::Many(3),
            presence_grace: Duration::from_secs(15),
            away_after: Duration::ZERO,
            state_bytes_max: 4096,
            watches_max: 3,
            rooms_max: ROOMS,
            room_grants: vec![RoomPattern::all()],
            cseq_unchecked: false,
        };
        let player = |n| {
            let player = PlayerId::parse(&format!("p{n}")).unwrap();
            (player, Record::first(Epoch::of(10), Version::of(5)))
        };
        let players = (0..PLAYERS).map(player).collect();
        let (clients, vers) = (BTreeMap::new(), BTreeMap::new());
        let now = Now { mono_ms: 1_000, unix_ms: 1_000_000 };
        Self { epoch, events, hub, presence, rules, players, clients, vers, now }
    }

    fn rooms(&self) -> Arc<Rooms> {
        Arc::clone(self.presence.rooms())
    }

    /// As a cell does: the record's word about rooms goes out while nobody else can change it.
    fn change<T>(
        &mut self,
        who: usize,
        command: impl FnOnce(&mut Record, Context<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let (player, record) = &mut self.players[who];
        let before = record.rooms_version;
        let outcome = command(record, Context { now: self.now, rules: &self.rules });
        if record.rooms_version != before {
            self.events.rooms.put(player.clone(), record.in_rooms());
        }
        outcome
    }

    fn session(&self, who: usize, which: usize) -> Option<(SessionId, bool)> {
        let sessions = &self.players[who].1.sessions;
        let session = sessions.get(which.checked_rem(sessions.len())?)?;
        Some((session.id, session.link == LinkState::Attached))
    }

    fn login(&mut self, who: usize) {
        let session = SessionId::generate(ShardId::FIRST, self.now.unix_ms);
        let login = Login {
            session,
            device: "pc".into(),
            status: Status::Online,
            token_expires_at: u64::MAX,
            token_issued_at: 0,
            grants: Box::default(),
            pending_until: None,
        };
        let Ok(logged_in) = self.change(who, |record, ctx| record.login(ctx, login)) else { return };
        for ended in logged_in.ended {
            self.forget(ended.session.id);
        }
        let (mailbox, _) = self.hub.mailbox_or_new(session, &self.players[who].0, 0);
        let link = self.hub.next_link();
        mailbox.attach(link);
        self.clients.insert(session, Client { link, ..Client::default() });
    }

    fn forget(&mut self, session: SessionId) {
        self.hub.remove(session);
        self.clients.remove(&session);
    }

    fn join(&mut self, who: usize, which: usize, room: &RoomName, n: u8) {
        let Some((session, true)) = self.session(who, which) else { return };
        let (player, rooms) = (self.players[who].0.clone(), self.rooms());
        let place = rooms.reserve(room, &player);
        let meta = (n > 0).then(|| meta(n));
        let join = Join { room, meta, has_place: place.is_ok(), cseq: None };
        match self.change(who, |record, ctx| record.join(ctx, session, join)) {
            Err(refusal) => assert_eq!((refusal, place.err()), (Refusal::RoomFull, Some(NoPlace::RoomFull))),
            Ok(_) => {
                let first = rooms.enter(room, &player, session);
                let cursor = self.learn(session, room, first);
                drop(place);
                self.page_on(session, room, cursor);
                assert!(self.clients[&session].seen[room].1.contains_key(player.as_str()));
            }
        }
    }

    fn drops(&mut self, session: SessionId, who: usize) {
        let link = self.clients[&session].link;
        self.hub.mailbox(session).unwrap().detach(link);
        self.change(who, |record, ctx| record.detach(ctx, session, 1006)).unwrap();
    }

    fn resume(&mut self, session: SessionId, who: usize) {
        let (hub, link) = (Arc::clone(&self.hub), self.hub.next_link());
        let last_seq = self.clients[&session].last_seq;
        let player = self.players[who].0.clone();
        let missed = self.change(who, |record, ctx| {
            let ticket = record.session(session).unwrap().ticket_n;
            record.attach(ctx, session, ticket, None)?;
            let (mailbox, is_new) = hub.mailbox_or_new(session, &player, last_seq);
            if is_new {
                mailbox.begin_anew();
            }
            mailbox.attach(link);
            Ok(mailbox.resume(last_seq).missed)
        });
        let client = self.clients.get_mut(&session).unwrap();
        client.link = link;
        if missed.unwrap() {
            let rooms: Vec<RoomName> = self.players[who].1.rooms_of(session).cloned().collect();
            // What she knew does not count any more.
            client.seen.retain(|room, _| !rooms.contains(room));
            self.rooms().owe_snapshots(&player, session, &rooms);
        }
    }

    fn crash(&mut self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let epoch = Epoch::of(self.epoch.load(Ordering::Relaxed));
        (self.events, self.hub, self.presence) = above(&self.epoch);
        for (player, record) in &mut self.players {
            let stored = StoredRecord {
                epoch: record.epoch,
                version: record.version,
                p: record.encode_p(),
                w: Some(record.encode_w()),
            };
            *record = Record::decode(&stored).unwrap();
            record.take_over(epoch);
            record.detach_all(self.now);
            if !record.rooms.is_empty() {
                self.events.rooms.put(player.clone(), record.in_rooms());
            }
        }
    }

    /// A page as an answer brings it: the first one begins the client's picture anew.
    /// Says where the next one goes on.
    fn learn(&mut self, session: SessionId, room: &RoomName, page: Page) -> Option<String> {
        let wire = self.rooms().wire_roster(room, page);
        let client = self.clients.get_mut(&session).unwrap();
        client.seen.insert(room.clone(), (wire.ver, shown(&wire.members).collect()));
        wire.cursor
    }

    /// Asks for the pages behind the first one, from where that said: who stood on it may have left since.
    fn page_on(&mut self, session: SessionId, room: &RoomName, mut cursor: Option<String>) {
        let rooms = self.rooms();
        while let Some(after) = cursor {
            let wire = rooms.wire_roster(room, rooms.page(room, Some(&after), None));
            let client = self.clients.get_mut(&session).unwrap();
            client.seen.get_mut(room).unwrap().1.extend(shown(&wire.members));
            cursor = wire.cursor;
        }
    }

    /// Every client that has a link hears what was pushed to it.
    fn hear(&mut self) {
        for who in 0..PLAYERS {
            let sessions = self.players[who].1.sessions.iter();
            let attached: Vec<SessionId> = sessions
                .filter(|session| session.link == LinkState::Attached)
                .map(|session| session.id)
                .collect();
            for session in attached {
                let link = self.clients[&session].link;
                let mailbox = self.hub.mailbox(session).unwrap();
                let mut frames = Vec::new();
                let taken = mailbox.take(link, self.hub.settings(), true, |frame| frames.push(frame.clone()));
                mailbox.settled(link);
                for frame in frames {
                    self.clients.get_mut(&session).unwrap().last_seq = frame.seq;
                    for push in frame.pushes {
                        assert!(matches!(push.kind(), PushKind::Room { .. }));
                        self.hears(session, &rmp_serde::from_slice(push.msgpack()).unwrap());
                    }
                }
                if taken.given_up.is_some() {
                    // Too slow: the server closes the link, and the client comes back.
                    self.drops(session, who);
                    self.resume(session, who);
                }
            }
        }
    }

    fn hears(&mut self, session: SessionId, push: &RoomBody) {
        let room = RoomName::parse(&push.room).unwrap();
        let client = self.clients.get_mut(&session).unwrap();
        if let Some(members) = &push.members {
            if client.seen.get(&room).is_none_or(|(ver, _)| *ver < push.ver) {
                client.seen.insert(room.clone(), (push.ver, shown(members).collect()));
                self.page_on(session, &room, push.cursor.clone());
            }
            return;
        }
        // Of a room that she left, or is about to get a snapshot of.
        let Some((ver, seen)) = client.seen.get_mut(&room) else { return };
        if push.ver <= *ver {
            return;
        }
        *ver = push.ver;
        for member in [&push.joins, &push.updates].into_iter().flatten().flatten() {
            seen.extend(shown(std::slice::from_ref(member)));
        }
        for player in push.leaves.iter().flatten() {
            seen.remove(player);
        }
        if push.partial == Some(true) {
            let first = self.rooms().page(&room, None, None);
            let cursor = self.learn(session, &room, first);
            self.page_on(session, &room, cursor);
        }
    }

    async fn take(&mut self, step: Step, who: usize, which: usize, room: &RoomName) {
        let session = self.session(who, which);
        match (step, session) {
            (Step::Login, _) => self.login(who),
            (Step::Join(n), _) => self.join(who, which, room, n),
            (Step::Leave, Some((session, true))) => {
                self.change(who, |record, ctx| record.leave_room(ctx, session, room, None)).unwrap();
                self.clients.get_mut(&session).unwrap().seen.remove(room);
            }
            (Step::Meta(n), Some((session, true))) => {
                let is_in = self.players[who].1.is_in_room(session, room);
                let changed =
                    self.change(who, |record, ctx| record.set_room_meta(ctx, session, room, meta(n), None));
                assert_eq!(changed.is_ok(), is_in);
            }
            (Step::Drops, Some((session, true))) => self.drops(session, who),
            (Step::Resume, Some((session, false))) => self.resume(session, who),
            (Step::Logout, Some((session, _))) => {
                self.change(who, |record, ctx| record.end(ctx, session, EndReason::Logout)).unwrap();
                self.forget(session);
            }
            (Step::PutIn, Some(_)) => {
                let (player, rooms) = (self.players[who].0.clone(), self.rooms());
                let place = rooms.reserve(room, &player);
                let put = self.change(who, |record, ctx| record.put_in(ctx, room, None, place.is_ok()));
                assert_eq!(put.is_ok(), place.is_ok());
                drop(place);
            }
            (Step::TakeOut, _) => {
                let out = self.change(who, |record, _| Ok(record.take_out(room))).unwrap();
                self.rooms().tell_taken_out(room, &self.players[who].0, &out).await;
                for session in out {
                    self.clients.get_mut(&session).unwrap().seen.remove(room);
                }
            }
            (Step::CatchUp, _) => self.rooms().catch_up(),
            (Step::Tick, _) => {
                self.tick().await;
                self.hear();
            }
            (Step::Crash, _) => self.crash(),
            _ => {}
        }
        self.check(room);
    }

    async fn tick(&self) {
        tokio::time::sleep(TICK * 2).await;
    }

    /// What records say of a room.
    fn truth(&self, room: &RoomName) -> Shown {
        let of = |(player, record): &(PlayerId, Record)| {
            let membership = record.membership(room)?;
            assert!(!membership.sessions.is_empty());
            let link = |id: &SessionId| record.session(*id).expect("a session").link;
            let online = membership.sessions.iter().any(|id| link(id) == LinkState::Attached);
            let meta = membership.meta.as_deref().map(|packed| packed[packed.len() - 1]);
            Some((player.as_str().to_owned(), (online, meta)))
        };
        self.players.iter().filter_map(of).collect()
    }

    /// At every moment: the roster is what the records say, within its bound, and its counter does not run backwards.
    fn check(&mut self, room: &RoomName) {
        let rooms = self.rooms();
        let (mut seen, mut cursor) = (Shown::new(), None::<PlayerId>);
        let count = loop {
            let page = rooms.page(room, cursor.as_ref().map(PlayerId::as_str), Some(EVERYBODY));
            let ver = (page.ver.epoch, page.ver.version);
            let before = self.vers.insert(room.clone(), ver);
            assert!(before.is_none_or(|before| before <= ver), "{before:?} then {ver:?}");
            cursor = page.cursor.clone();
            let count = page.count;
            seen.extend(shown(&rooms.wire_roster(room, page).members));
            if cursor.is_none() {
                break count;
            }
        };
        assert_eq!(seen, self.truth(room));
        assert_eq!(count, seen.len());
        assert!(count <= MEMBERS_MAX);
    }
}

fn name(n: usize) -> RoomName {
    RoomName::parse(&format!("r{n}")).unwrap()
}

/// `{"n": n}`, or none.
fn meta(n: u8) -> Meta {
    (n > 0).then(|| Arc::from([0x81, 0xa1, b'n', n]))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn rosters_are_what_records_say_and_clients_know_it(steps in steps()) {
        live(steps);
    }
}

/// A number that stood for too many changes once took the place of the snapshot that waited before them.
#[test]
fn who_is_owed_the_whole_of_a_room_gets_it_however_much_changes_behind_it() {
    use Step::{Drops, Join, Login, PutIn, Resume, Tick};
    live(vec![
        (Login, 2, 0, 0),
        (Drops, 2, 0, 0),
        (PutIn, 2, 0, 1),
        (Login, 1, 0, 0),
        (Login, 0, 0, 0),
        (Tick, 0, 0, 0),
        (Join(0), 0, 0, 1),
        (Resume, 2, 0, 0),
        (Join(0), 1, 0, 1),
    ]);
}

fn live(steps: Vec<(Step, usize, usize, usize)>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let mut house = House::new();
        for (step, who, which, room) in steps {
            house.take(step, who, which, &name(room)).await;
        }
        // Whoever is slow comes back, and hears the rest.
        for _ in 0..4 {
            house.tick().await;
            house.hear();
        }
        let inhabited: BTreeSet<usize> =
            (0..ROOMS).filter(|room| !house.truth(&name(*room)).is_empty()).collect();
        assert_eq!(house.presence.rooms().count(), inhabited.len());
        for (_, record) in &house.players {
            for session in record.sessions.iter().filter(|session| session.link == LinkState::Attached) {
                for room in record.rooms_of(session.id) {
                    let seen = house.clients[&session.id].seen.get(room).map(|(_, seen)| seen);
                    assert_eq!(seen, Some(&house.truth(room)), "{room} as {} knows it", session.id);
                }
            }
        }
    });
}

/// Who talks without a pause in one room does not keep another from hearing who came.
#[tokio::test]
async fn talk_without_a_pause_holds_no_change_back() {
    let mut house = House::new();
    let (loud, quiet) = (name(0), name(1));
    for who in 0..3 {
        house.login(who);
    }
    house.join(0, 0, &loud, 0);
    house.join(1, 0, &quiet, 0);
    house.join(2, 0, &quiet, 0);
    let (session, _) = house.session(1, 0).unwrap();
    let (mailbox, link) = (house.hub.mailbox(session).unwrap(), house.clients[&session].link);
    let heard = async {
        loop {
            let message = Arc::new(Push::new(PushKind::Message, Vec::new().into()));
            let _ = house.rooms().say(&loud, message);
            let mut frames = 0;
            mailbox.take(link, house.hub.settings(), true, |_| frames += 1);
            if frames > 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), heard).await.expect("hears who came");
}
