//! Nodes with their rooms, the letters between them, and clients, under random moves of shards, crashes, cuts and lost
//! letters: nobody hears that somebody left who is there, and when there has been peace for a while every room is what
//! records say, and every client knows it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use proptest::prelude::*;
use protocol::push::Room as RoomBody;
use protocol::reply::Member as WireMember;

use super::nodes::Post;
use super::*;
use crate::events::PresenceView;
use crate::hub::{HubSettings, LinkNo, Push, PushKind};
use crate::ids::ShardId;
use crate::presence::homes::{Glance, Homes};
use crate::presence::words;
use crate::tasks::Tasks;

const NODES: usize = 3;
const SHARDS: u16 = 4;
const PLAYERS: usize = 5;
const ROOMS: usize = 2;
const LOOK: Duration = Duration::from_millis(50);

type Shown = BTreeMap<String, bool>;

#[derive(Debug, Clone, Copy)]
enum Step {
    Joins(usize, usize),
    Leaves(usize, usize),
    Turns(usize),
    Says(usize, usize),
    Moves(u16, usize),
    Loses(u16),
    Looks(usize),
    Flaps(usize),
    Crashes(usize),
    Cuts(usize, usize),
    Slows(usize, usize, u8),
    Mends,
    Forgets(usize, usize),
    Waits(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..PLAYERS, 0..ROOMS).prop_map(|(who, room)| Step::Joins(who, room)),
        3 => (1..PLAYERS, 0..ROOMS).prop_map(|(who, room)| Step::Leaves(who, room)),
        3 => (0..PLAYERS).prop_map(Step::Turns),
        4 => (0..PLAYERS, 0..ROOMS).prop_map(|(who, room)| Step::Says(who, room)),
        4 => (0..SHARDS, 0..NODES).prop_map(|(shard, node)| Step::Moves(shard, node)),
        1 => (0..SHARDS).prop_map(Step::Loses),
        2 => (0..NODES).prop_map(Step::Looks),
        1 => (0..NODES).prop_map(Step::Flaps),
        1 => (0..NODES).prop_map(Step::Crashes),
        1 => (0..NODES, 0..NODES).prop_map(|(one, other)| Step::Cuts(one, other)),
        2 => (0..NODES, 0..NODES, 1..8u8).prop_map(|(from, to, looks)| Step::Slows(from, to, looks)),
        2 => Just(Step::Mends),
        1 => (0..NODES, 0..NODES).prop_map(|(from, to)| Step::Forgets(from, to)),
        6 => (1..4u8).prop_map(Step::Waits),
        1 => Just(Step::Waits(60)),
    ];
    proptest::collection::vec(step, 0..60)
}

/// What travels between two nodes.
enum Sent {
    /// Which shards the sender serves: presence tells it.
    Serves {
        anew: bool,
        serves: Vec<(u16, u64)>,
        lost: Vec<u16>,
    },
    Rooms(Bytes),
}

/// The links: letters on their way from one node to another, while the link stands.
#[derive(Default)]
struct Net {
    links: BTreeMap<(String, String), VecDeque<Sent>>,
    now_ms: u64,
}

struct Wire {
    me: Owner,
    net: Arc<Mutex<Net>>,
}

fn pair(from: &Owner, to: &Owner) -> (String, String) {
    (from.as_str().to_owned(), to.as_str().to_owned())
}

impl Post for Wire {
    fn me(&self) -> &Owner {
        &self.me
    }

    fn peers(&self) -> Vec<Owner> {
        let net = self.net.lock();
        let mine = net.links.keys().filter(|(from, _)| from == self.me.as_str());
        mine.map(|(_, to)| Owner::named(to)).collect()
    }

    fn post(&self, to: &Owner, letter: Bytes) {
        if let Some(link) = self.net.lock().links.get_mut(&pair(&self.me, to)) {
            link.push_back(Sent::Rooms(letter));
        }
    }

    fn is_busy(&self, _: &Owner) -> bool {
        false
    }

    fn now_ms(&self) -> u64 {
        self.net.lock().now_ms
    }
}

struct Everywhere;

fn shard_of(name: &str) -> ShardId {
    let number = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) % u64::from(SHARDS);
    ShardId::numbered(u16::try_from(number).unwrap()).unwrap()
}

impl Homes for Everywhere {
    fn shards(&self) -> u16 {
        SHARDS
    }
    fn shard_of(&self, player: &PlayerId) -> ShardId {
        shard_of(player.as_str())
    }
    fn shard_of_room(&self, room: &RoomName) -> ShardId {
        shard_of(room.as_str())
    }
    fn epoch_served(&self, _: ShardId) -> Option<Epoch> {
        unreachable!("rooms are told")
    }
    fn epochs_served(&self, _: &mut dyn FnMut(ShardId, Option<Epoch>)) {}
    fn sessions(&self, _: &PlayerId) -> Option<Vec<SessionId>> {
        None
    }
    fn glance(&self, _: &PlayerId) -> Glance {
        Glance::Unknown
    }
    fn look_cold(&self, _: Vec<PlayerId>, _: Duration) -> BoxFuture<'static, Vec<(PlayerId, PresenceView)>> {
        unreachable!("rooms look at nobody")
    }
}

/// A process.
struct Node {
    me: Owner,
    rooms: Arc<Rooms>,
    events: Arc<Events>,
    hub: Arc<Hub>,
    /// What it serves, as it has told.
    told: Vec<Option<Epoch>>,
    /// Under which epoch it serves, or served last.
    epochs: Arc<Vec<AtomicU64>>,
}

impl Node {
    fn start(me: &str, net: &Arc<Mutex<Net>>) -> Self {
        let (me, events, tasks) = (Owner::named(me), Arc::new(Events::default()), Tasks::new());
        let hub = HubSettings {
            heartbeat: Duration::from_secs(15),
            outbox_items_max: 1_000,
            slow_close_after: Duration::from_secs(10),
            replay_frames_max: 1_000,
            replay_bytes_max: 1_000_000,
        };
        let hub = Hub::start(hub, &tasks);
        let settings = RoomSettings {
            tick: LOOK,
            members_max: 100,
            rooms_max: 100,
            page_members_max: 100,
            diff_members_max: 100,
            meta_keys_max: 16,
            meta_bytes_max: 512,
            messages_waiting_max: 100,
        };
        let epochs: Arc<Vec<AtomicU64>> = Arc::new((0..SHARDS).map(|_| AtomicU64::new(0)).collect());
        let of = Arc::clone(&epochs);
        let ground = Ground {
            epoch_of: Box::new(move |room| {
                let shard = usize::from(shard_of(room.as_str()).number());
                Epoch::of(of[shard].load(Ordering::Relaxed))
            }),
            is_whole: Box::new(|| unreachable!("there are other nodes")),
        };
        let wire = Wire { me: me.clone(), net: Arc::clone(net) };
        let nodes = Nodes::new(Box::new(wire), Arc::new(Everywhere));
        let rooms =
            Arc::new(Rooms::new(settings, ground, Some(nodes), Arc::clone(&hub), Arc::clone(&events)));
        let (telling, stop) = (Arc::downgrade(&rooms), tasks.clone());
        tasks.spawn("rooms", async move {
            // A process that has crashed tells nothing more.
            if let Some(rooms) = Weak::upgrade(&telling) {
                rooms.run(&stop).await;
            }
        });
        Self { me, rooms, events, hub, told: vec![None; usize::from(SHARDS)], epochs }
    }
}

/// A player with one session, and what her client knows.
struct Client {
    player: PlayerId,
    session: SessionId,
    online: bool,
    rooms: BTreeSet<usize>,
    link: LinkNo,
    last_seq: u64,
    seen: BTreeMap<usize, ((u64, u64), Shown)>,
    said: BTreeSet<Vec<u8>>,
}

struct World {
    net: Arc<Mutex<Net>>,
    nodes: Vec<Node>,
    boots: u32,
    epochs: u64,
    /// Which node serves each shard, under which epoch.
    homes: Vec<Option<(usize, Epoch)>>,
    clients: Vec<Client>,
    cut: BTreeSet<(usize, usize)>,
    /// Letters of the first to the second wait for so many looks.
    slow: BTreeMap<(usize, usize), u8>,
    steps: u64,
}

fn room_name(room: usize) -> RoomName {
    RoomName::parse(&format!("room-{room}")).unwrap()
}

impl World {
    fn new() -> Self {
        let net = Arc::new(Mutex::new(Net::default()));
        let nodes = (0..NODES).map(|node| Node::start(&format!("n{node}#0"), &net)).collect();
        let client = |number| {
            let player = PlayerId::parse(&format!("p{number}")).unwrap();
            let session = SessionId::generate(shard_of(player.as_str()), 1_000);
            let (rooms, seen, said) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
            Client { player, session, online: true, rooms, link: LinkNo::default(), last_seq: 0, seen, said }
        };
        let mut world = Self {
            net,
            nodes,
            boots: 0,
            epochs: 1_000,
            homes: vec![None; usize::from(SHARDS)],
            clients: (0..PLAYERS).map(client).collect(),
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            steps: 0,
        };
        for one in 0..NODES {
            for other in 0..one {
                world.link(one, other);
            }
        }
        for shard in 0..SHARDS {
            world.moves(shard, usize::from(shard) % NODES);
        }
        (0..NODES).for_each(|node| world.look(node));
        world
    }

    fn home_of(&self, who: usize) -> Option<(usize, Epoch)> {
        self.homes[usize::from(shard_of(self.clients[who].player.as_str()).number())]
    }

    /// What her record says, to the node that has it.
    fn tells(&self, who: usize) {
        let Some((node, epoch)) = self.home_of(who) else { return };
        let client = &self.clients[who];
        let in_room = |room: &usize| InRoom {
            room: room_name(*room),
            online: client.online,
            meta: None,
            sessions: vec![client.session],
        };
        let rooms = client.rooms.iter().map(in_room).collect();
        self.nodes[node].events.rooms.put(client.player.clone(), RoomsOf::Here { epoch, rooms });
    }

    /// Moves the rooms to a node that is not hers, and lets all tell each other; which node that is, and which is hers.
    async fn apart(&mut self, who: usize) -> (usize, usize) {
        let (node, _) = self.home_of(who).unwrap();
        let home = (node + 1) % NODES;
        (0..ROOMS).for_each(|room| self.moves(shard_of(room_name(room).as_str()).number(), home));
        self.take(Step::Waits(120)).await;
        (home, node)
    }

    fn of_shard(&self, shard: u16) -> Vec<usize> {
        let is_of = |who: &usize| shard_of(self.clients[*who].player.as_str()).number() == shard;
        (0..PLAYERS).filter(is_of).collect()
    }

    /// A node gives a shard up, or is dead.
    fn loses(&mut self, shard: u16) {
        let Some((node, _)) = self.homes[usize::from(shard)].take() else { return };
        for who in self.of_shard(shard) {
            let client = &self.clients[who];
            if !client.rooms.is_empty() {
                self.nodes[node].events.rooms.put(client.player.clone(), RoomsOf::Elsewhere);
            }
            self.nodes[node].hub.remove(client.session);
        }
    }

    fn moves(&mut self, shard: u16, to: usize) {
        self.loses(shard);
        self.epochs += 1;
        let epoch = Epoch::of(self.epochs);
        self.homes[usize::from(shard)] = Some((to, epoch));
        self.nodes[to].epochs[usize::from(shard)].store(self.epochs, Ordering::Relaxed);
        for who in self.of_shard(shard) {
            let hub = Arc::clone(&self.nodes[to].hub);
            let client = &mut self.clients[who];
            let (mailbox, _) = hub.mailbox_or_new(client.session, &client.player, client.last_seq);
            client.link = hub.next_link();
            mailbox.attach(client.link);
            mailbox.settled(client.link);
            if !self.clients[who].rooms.is_empty() {
                self.tells(who);
            }
        }
    }

    /// As presence does at its look: tells what the node serves, if that has changed.
    fn look(&mut self, node: usize) {
        let now: Vec<Option<Epoch>> = self
            .homes
            .iter()
            .map(|home| home.filter(|(home, _)| *home == node).map(|(_, epoch)| epoch))
            .collect();
        let (mut begun, mut lost) = (Vec::new(), Vec::new());
        for (number, (now, told)) in (0..).zip(now.iter().zip(&self.nodes[node].told)) {
            match now {
                now if now == told => {}
                Some(epoch) => begun.push((ShardId::numbered(number).unwrap(), *epoch)),
                None => lost.push(ShardId::numbered(number).unwrap()),
            }
        }
        self.nodes[node].told = now;
        if begun.is_empty() && lost.is_empty() {
            return;
        }
        self.nodes[node].rooms.serving(&begun, &lost);
        let me = self.nodes[node].me.clone();
        for ((from, _), link) in &mut self.net.lock().links {
            if from == me.as_str() {
                let serves = begun.iter().map(|(shard, epoch)| (shard.number(), epoch.number())).collect();
                let lost = lost.iter().map(|shard| shard.number()).collect();
                link.push_back(Sent::Serves { anew: false, serves, lost });
            }
        }
    }

    fn link(&mut self, one: usize, other: usize) {
        self.cut.remove(&(one.min(other), one.max(other)));
        for (from, to) in [(one, other), (other, one)] {
            let serves = (0..).zip(&self.nodes[from].told);
            let serves =
                serves.filter_map(|(shard, epoch)| Some((shard, epoch.as_ref()?.number()))).collect();
            let link = VecDeque::from([Sent::Serves { anew: true, serves, lost: Vec::new() }]);
            self.net.lock().links.insert(pair(&self.nodes[from].me, &self.nodes[to].me), link);
        }
    }

    fn cuts(&mut self, one: usize, other: usize) {
        if one == other || !self.cut.insert((one.min(other), one.max(other))) {
            return;
        }
        let (ann, bob) = (self.nodes[one].me.clone(), self.nodes[other].me.clone());
        for (from, to) in [(&ann, &bob), (&bob, &ann)] {
            self.net.lock().links.remove(&pair(from, to));
        }
        self.nodes[one].rooms.lose(&bob);
        self.nodes[other].rooms.lose(&ann);
    }

    fn mends(&mut self) {
        for (one, other) in self.cut.clone() {
            self.link(one, other);
        }
    }

    /// A process dies, and another begins in its place.
    fn crashes(&mut self, node: usize) {
        for other in 0..NODES {
            self.cuts(node, other);
        }
        for shard in 0..SHARDS {
            if self.homes[usize::from(shard)].is_some_and(|(home, _)| home == node) {
                self.homes[usize::from(shard)] = None;
            }
        }
        self.boots += 1;
        self.nodes[node] = Node::start(&format!("n{node}#{}", self.boots), &self.net);
        for other in 0..NODES {
            if other != node {
                self.link(node, other);
            }
        }
    }

    /// All letters arrive that are not slow, and what they bring about.
    async fn pump(&mut self) {
        loop {
            let mut moved = false;
            for from in 0..NODES {
                for to in (0..NODES).filter(|to| !self.slow.contains_key(&(from, *to))) {
                    let link = pair(&self.nodes[from].me, &self.nodes[to].me);
                    loop {
                        let sent = self.net.lock().links.get_mut(&link).and_then(VecDeque::pop_front);
                        let Some(sent) = sent else { break };
                        moved = true;
                        let (me, rooms) = (&self.nodes[from].me, &self.nodes[to].rooms);
                        match sent {
                            Sent::Serves { anew, serves, lost } => {
                                rooms.hear_serving(me, anew, &serves, &lost)
                            }
                            Sent::Rooms(letter) => rooms.hear(me, &letter),
                        }
                    }
                }
            }
            // The telling tasks get a turn.
            tokio::task::yield_now().await;
            if !moved {
                return;
            }
        }
    }

    /// One look of every node, and a tick of its rooms.
    async fn wait(&mut self) {
        self.steps += 1;
        self.pump().await;
        self.slow.retain(|_, looks| {
            *looks -= 1;
            *looks > 0
        });
        tokio::time::sleep(LOOK).await;
        self.net.lock().now_ms += crate::clock::millis(LOOK);
        for node in 0..NODES {
            let rooms = Arc::clone(&self.nodes[node].rooms);
            rooms.catch_up();
            // Presence looks at times of its own: what records say may be told before it is told who serves them, or behind.
            if self.steps.is_multiple_of(2) {
                self.look(node);
            }
            rooms.look();
            if self.steps.is_multiple_of(20) {
                rooms.sweep().await;
            }
            if self.steps.is_multiple_of(40) {
                rooms.tell_digests();
            }
        }
        self.pump().await;
        (0..PLAYERS).for_each(|who| self.hear(who));
    }

    fn hear(&mut self, who: usize) {
        let Some((node, _)) = self.home_of(who) else { return };
        let hub = Arc::clone(&self.nodes[node].hub);
        let Some(mailbox) = hub.mailbox(self.clients[who].session) else { return };
        let mut frames = Vec::new();
        mailbox.take(self.clients[who].link, hub.settings(), true, |frame| frames.push(frame.clone()));
        mailbox.settled(self.clients[who].link);
        for frame in frames {
            self.clients[who].last_seq = frame.seq;
            mailbox.seen(frame.seq);
            for push in frame.pushes {
                match push.kind() {
                    PushKind::Room { room, .. } => {
                        let number = (0..ROOMS).find(|number| room_name(*number) == *room).unwrap();
                        self.hears(who, number, &rmp_serde::from_slice(push.msgpack()).unwrap());
                    }
                    _ => {
                        self.clients[who].said.insert(push.msgpack().to_vec());
                    }
                }
            }
        }
    }

    fn hears(&mut self, who: usize, room: usize, push: &RoomBody) {
        let steadfast = self.clients[0].player.as_str().to_owned();
        let client = &mut self.clients[who];
        let (ver, mut seen) = client.seen.get(&room).cloned().unwrap_or_default();
        if push.ver <= ver || !client.rooms.contains(&room) {
            return;
        }
        let knew = seen.contains_key(&steadfast);
        let shown = |members: &[WireMember]| -> Vec<(String, bool)> {
            members.iter().map(|member| (member.player.clone(), member.online.unwrap_or(true))).collect()
        };
        if let Some(members) = &push.members {
            seen = shown(members).into_iter().collect();
        } else {
            for member in [&push.joins, &push.updates].into_iter().flatten() {
                seen.extend(shown(member));
            }
            for player in push.leaves.iter().flatten() {
                seen.remove(player);
            }
        }
        let is_partial = push.partial == Some(true);
        assert!(is_partial || !knew || seen.contains_key(&steadfast), "p{who} hears that she left: {push:?}");
        assert!(
            is_partial || !client.seen.contains_key(&room) || seen.len() == push.count as usize,
            "{push:?}"
        );
        client.seen.insert(room, (push.ver, seen));
    }

    fn truth(&self, room: usize) -> Shown {
        let members = self.clients.iter().filter(|client| client.rooms.contains(&room));
        members.map(|client| (client.player.as_str().to_owned(), client.online)).collect()
    }

    async fn take(&mut self, step: Step) {
        match step {
            // Her record must be somewhere.
            Step::Joins(who, room) if self.home_of(who).is_some() && self.clients[who].rooms.insert(room) => {
                self.clients[who].seen.remove(&room);
                self.tells(who);
                // In the place of a page.
                let (client, (node, _)) = (&self.clients[who], self.home_of(who).unwrap());
                let rooms = &self.nodes[node].rooms;
                rooms.owe_snapshots(&client.player, client.session, &[room_name(room)]);
            }
            Step::Leaves(who, room)
                if self.home_of(who).is_some() && self.clients[who].rooms.remove(&room) =>
            {
                self.clients[who].seen.remove(&room);
                self.tells(who);
            }
            Step::Turns(who) if self.home_of(who).is_some() => {
                self.clients[who].online ^= true;
                self.tells(who);
            }
            Step::Says(who, room) => {
                let home = self.home_of(who).filter(|_| self.clients[who].rooms.contains(&room));
                if let Some((node, _)) = home {
                    let rooms = &self.nodes[node].rooms;
                    rooms.catch_up();
                    let body = Bytes::from(self.steps.to_be_bytes().to_vec());
                    let _ = rooms.say(&room_name(room), Arc::new(Push::new(PushKind::Message, body)));
                }
            }
            Step::Moves(shard, to) => self.moves(shard, to),
            Step::Loses(shard) => self.loses(shard),
            Step::Looks(node) => self.look(node),
            Step::Flaps(node) => {
                // It was silent for a moment, and nobody took anything.
                let had = self.homes.clone();
                for home in self.homes.iter_mut().filter(|home| home.is_some_and(|(home, _)| home == node)) {
                    *home = None;
                }
                self.look(node);
                self.homes = had;
                self.look(node);
            }
            Step::Crashes(node) => self.crashes(node),
            Step::Cuts(one, other) => self.cuts(one, other),
            Step::Slows(from, to, looks) => drop(self.slow.insert((from, to), looks)),
            Step::Mends => self.mends(),
            Step::Forgets(from, to) => {
                let link = pair(&self.nodes[from].me, &self.nodes[to].me);
                let mut net = self.net.lock();
                // As a fault of ours would: a letter that tells of players goes astray.
                let last = net.links.get(&link).and_then(VecDeque::back);
                let is_claim = |sent: &Sent| match sent {
                    Sent::Rooms(letter) => matches!(words::read(letter), Some(Letter::Claims { .. })),
                    Sent::Serves { .. } => false,
                };
                if last.is_some_and(is_claim) {
                    net.links.get_mut(&link).and_then(VecDeque::pop_back);
                }
            }
            Step::Waits(looks) => {
                for _ in 0..looks {
                    self.wait().await;
                }
            }
            _ => {}
        }
    }

    /// Peace: every shard has a home, and every link stands.
    async fn peace(&mut self) {
        self.mends();
        for shard in 0..SHARDS {
            if self.homes[usize::from(shard)].is_none() {
                self.moves(shard, usize::from(shard) % NODES);
            }
        }
        for _ in 0..(20 * 16) {
            self.wait().await;
        }
    }

    fn check(&self) {
        for room in 0..ROOMS {
            let name = room_name(room);
            let (home, _) = self.homes[usize::from(shard_of(name.as_str()).number())].unwrap();
            let page = self.nodes[home].rooms.page(&name, None, None);
            let members: Shown = page
                .members
                .iter()
                .map(|(player, member)| (player.as_str().to_owned(), member.online))
                .collect();
            assert_eq!(members, self.truth(room), "{name} at its home");
            assert!(self.nodes[home].rooms.is_whole(&name));
            for (number, node) in self.nodes.iter().enumerate() {
                let held = node.rooms.with_room(&name, |room| room.seat.is_some());
                assert!(number == home || held != Some(true), "n{number} holds what is not its own");
            }
            for client in self.clients.iter().filter(|client| client.rooms.contains(&room)) {
                let seen = client.seen.get(&room).map(|(_, seen)| seen);
                assert_eq!(seen, Some(&members), "{name} as {} knows it", client.player);
            }
        }
    }
}

fn live(steps: Vec<Step>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let mut world = World::new();
        world.take(Step::Joins(0, 0)).await;
        for step in steps {
            world.take(step).await;
        }
        world.peace().await;
        world.check();
        // Whoever says something now is heard by all.
        world.steps += 1_000_000;
        for room in 0..ROOMS {
            let Some(who) = (0..PLAYERS).find(|who| world.clients[*who].rooms.contains(&room)) else {
                continue;
            };
            world.clients.iter_mut().for_each(|client| client.said.clear());
            world.take(Step::Says(who, room)).await;
            let body = world.steps.to_be_bytes().to_vec();
            world.wait().await;
            world.wait().await;
            for client in &world.clients {
                let is_in = client.rooms.contains(&room);
                assert_eq!(client.said.contains(&body), is_in, "{} in room {room}", client.player);
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn in_peace_every_room_is_what_records_say_and_nobody_was_said_to_have_left(steps in steps()) {
        live(steps);
    }
}

/// The home once forgot that a node had asked for the whole when the last of its players there became another node's.
#[test]
fn who_asked_for_the_whole_gets_it_whoever_her_players_are_by_then() {
    live(vec![Step::Joins(1, 0), Step::Waits(1), Step::Moves(0, 1), Step::Moves(1, 0)]);
}

/// The home once forgot that a node had asked for the whole of a room of which it had not heard: the letter with her claim had
/// gone astray, and the next one told of her alone.
#[test]
fn who_asked_for_the_whole_of_a_room_that_was_not_there_yet_gets_it() {
    live(vec![Step::Waits(1), Step::Joins(3, 1), Step::Forgets(2, 0), Step::Waits(1), Step::Turns(3)]);
}

/// A sweep once took her out between the claim of her next home and the word that it serves her.
#[test]
fn whom_a_newer_home_claims_has_not_left_though_nobody_has_said_yet_who_serves_her() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let mut world = World::new();
        let name = room_name(0);
        let shard = |world: &World, who: usize| shard_of(world.clients[who].player.as_str());
        let who = (0..PLAYERS).find(|who| shard(&world, *who) != shard_of(name.as_str())).unwrap();
        world.take(Step::Joins(who, 0)).await;
        world.take(Step::Waits(120)).await;
        let (home, _) = world.homes[usize::from(shard_of(name.as_str()).number())].unwrap();
        let (old, _) = world.home_of(who).unwrap();
        let next = (0..NODES).find(|node| *node != home && *node != old).unwrap();
        world.moves(shard(&world, who).number(), next);
        // Its home before has not noticed yet, either.
        world.nodes[next].rooms.catch_up();
        world.pump().await;
        let rooms = Arc::clone(&world.nodes[home].rooms);
        let nodes = rooms.nodes.as_ref().unwrap();
        nodes.sweep_soon(nodes.post.now_ms());
        rooms.sweep().await;
        assert_eq!(rooms.page(&name, None, None).count, 1);
    });
}

/// Nodes once waited five more seconds for each member, though her home had told all since.
#[test]
fn who_left_while_nodes_were_cut_off_is_gone_soon_after_they_have_told_each_other_all() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let mut world = World::new();
        let name = room_name(0);
        let (home, _) = world.homes[usize::from(shard_of(name.as_str()).number())].unwrap();
        let who = (0..PLAYERS).find(|who| world.home_of(*who).unwrap().0 != home).unwrap();
        let (node, _) = world.home_of(who).unwrap();
        let members = |world: &World| world.nodes[home].rooms.page(&name, None, None).count;
        world.take(Step::Joins(who, 0)).await;
        world.take(Step::Waits(120)).await;
        world.take(Step::Cuts(home, node)).await;
        world.take(Step::Leaves(who, 0)).await;
        world.take(Step::Waits(200)).await;
        assert_eq!(members(&world), 1, "nobody leaves because a node is away");
        world.take(Step::Mends).await;
        // A telling and a sweep, in looks.
        world.take(Step::Waits(30)).await;
        assert_eq!(members(&world), 0);
    });
}

/// The home drops a room that nobody is in, and once told the next one who came as if all knew that.
#[test]
fn whom_a_snapshot_reaches_that_was_made_before_the_room_was_empty_is_given_another() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let mut world = World::new();
        let (ann, bob) = (4, 1);
        assert_eq!(world.home_of(ann), world.home_of(bob));
        let (home, node) = world.apart(ann).await;
        world.take(Step::Joins(ann, 1)).await;
        world.take(Step::Waits(60)).await;
        // A snapshot is on its way.
        let client = &world.clients[ann];
        world.nodes[node].rooms.owe_snapshots(&client.player, client.session, &[room_name(1)]);
        tokio::time::sleep(2 * LOOK).await;
        world.pump().await;
        tokio::time::sleep(2 * LOOK).await;
        let link = pair(&world.nodes[home].me, &world.nodes[node].me);
        assert!(!world.net.lock().links[&link].is_empty());
        world.take(Step::Leaves(ann, 1)).await;
        world.take(Step::Joins(bob, 1)).await;
        world.take(Step::Waits(10)).await;
        let seen = world.clients[bob].seen.get(&1).map(|(_, seen)| seen);
        assert_eq!(seen, Some(&world.truth(1)));
    });
}

/// A claim that went astray once left a node untold of what happened until it was repeated.
#[test]
fn a_node_of_which_the_home_hears_late_that_it_has_members_is_told_what_it_has_missed() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let mut world = World::new();
        let (ann, eve) = (4, 2);
        let (home, node) = world.apart(ann).await;
        assert_eq!(world.home_of(eve).unwrap().0, home);
        world.take(Step::Joins(ann, 1)).await;
        world.take(Step::Waits(60)).await;
        let next = (0..NODES).find(|other| *other != home && *other != node).unwrap();
        world.moves(shard_of(world.clients[ann].player.as_str()).number(), next);
        world.nodes[next].rooms.catch_up();
        world.take(Step::Forgets(next, home)).await;
        world.take(Step::Waits(5)).await;
        world.take(Step::Joins(eve, 1)).await;
        world.take(Step::Waits(60)).await;
        let seen = world.clients[ann].seen.get(&1).map(|(_, seen)| seen);
        assert_eq!(seen, Some(&world.truth(1)));
    });
}

/// A new home once said what was said at once to those nodes that had told of their players by then, and to no other.
#[test]
fn what_is_said_before_a_slow_node_has_told_of_its_players_they_hear_too() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let mut world = World::new();
        let room = shard_of(room_name(1).as_str()).number();
        let shard = |world: &World, who: usize| shard_of(world.clients[who].player.as_str()).number();
        let mut others = (0..PLAYERS).filter(|who| shard(&world, *who) != room);
        let ann = others.next().unwrap();
        let bob = others.find(|who| shard(&world, *who) != shard(&world, ann)).unwrap();
        let (node, slow, home) = (0, 1, 2);
        for (shard, to) in [(room, node), (shard(&world, ann), node), (shard(&world, bob), slow)] {
            world.moves(shard, to);
        }
        world.take(Step::Joins(ann, 1)).await;
        world.take(Step::Joins(bob, 1)).await;
        world.take(Step::Waits(120)).await;
        assert_eq!((world.home_of(ann).unwrap().0, world.home_of(bob).unwrap().0), (node, slow));
        world.take(Step::Slows(slow, home, 20)).await;
        world.moves(room, home);
        world.take(Step::Waits(6)).await;
        world.take(Step::Says(ann, 1)).await;
        let body = world.steps.to_be_bytes().to_vec();
        world.take(Step::Waits(4)).await;
        assert!(!world.clients[ann].said.contains(&body), "bob's node has not told of him");
        world.take(Step::Waits(40)).await;
        for who in [ann, bob] {
            assert!(world.clients[who].said.contains(&body), "{}", world.clients[who].player);
        }
    });
}
