//! What is promised of rooms across nodes: members at any node are in one room. They see one roster, hear what is said in
//! one order, and are bound by one number of places; and a home that dies, moves or cannot be reached is no end of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use hearth::home::placement::Placement;
use hearth::ids::RoomName;
use serde_json::{Value, json};

use crate::harness::nodes::{KEY, SHARDS, nodes, players_of, served_by};
use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::Player;
use crate::harness::redis_server::RedisServer;
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::socket::{Encoding, Frame};
use crate::rooms::Seen;

/// A room whose home is this node, when every one of these knows who is in.
async fn room_of(node: &Server, nodes: &[&Server]) -> String {
    let room = room_at(node).await;
    for node in nodes {
        is_whole(node, &room).await;
    }
    room
}

/// Waits until nobody can be missing from what a node shows of a room; that.
async fn is_whole(node: &Server, room: &str) -> Value {
    let game = Service::of(node, KEY);
    until("nobody can be missing", async || {
        let (status, looked) = game.get(&format!("/v1/rooms/{room}")).await;
        (status == 200 && looked["partial"] == Value::Null).then_some(looked)
    })
    .await
}

async fn room_at(node: &Server) -> String {
    let served = served_by(node).await;
    let placement = Placement::of(SHARDS).unwrap();
    let is_there = |name: &String| {
        served.contains(&u64::from(placement.shard_of_room(&RoomName::parse(name).unwrap()).number()))
    };
    (0..).map(|number| format!("room-{number}")).find(is_there).unwrap()
}

/// As many requests as a test likes.
fn unlimited(node: Starting) -> Starting {
    let kinds = ["room", "room_send", "query"];
    kinds.iter().fold(node, |node, kind| {
        node.with(&format!("limits.{kind}_per_s"), 100_000).with(&format!("limits.{kind}_burst"), 100_000)
    })
}

/// A member of a room, with all that she was told of it.
struct Guest {
    name: String,
    player: Player,
    room: String,
    seen: Seen,
    /// What was said, each once.
    said: Vec<Value>,
    ids: BTreeSet<String>,
    /// Who was there and, as she was told, no longer.
    gone: BTreeSet<String>,
    cseq: u64,
}

impl Guest {
    /// The first player of a node whom nobody has taken.
    async fn joins(node: &Server, room: &str, nth: usize) -> Self {
        let name = players_of(node).await.nth(nth).unwrap();
        let player = node.login(&name).await;
        let room = room.to_owned();
        let (seen, said, ids, gone) = (Seen::default(), Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut guest = Self { name, player, room, seen, said, ids, gone, cseq: 0 };
        let answer = guest.does("room.join", json!({})).await;
        guest.seen = Seen::of(&answer);
        guest
    }

    /// Asks until it is not refused as temporary: with the same number, which is not used up.
    async fn does(&mut self, op: &str, mut body: Value) -> Value {
        self.cseq += 1;
        (body["room"], body["cseq"]) = (json!(self.room), json!(self.cseq));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.player.ask(op, body.clone()).await {
                Ok(answer) => return answer,
                Err(refused) => assert_eq!(refused["temporary"], true, "{op}: {refused}"),
            }
            assert!(Instant::now() < deadline, "{op} in vain");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    fn hears(&mut self, push: &Frame) {
        match push.op.as_str() {
            "room" => {
                assert_eq!(push.body["room"], json!(self.room));
                let before: Vec<String> = self.seen.members.keys().cloned().collect();
                self.seen.hears(&push.body);
                self.gone.extend(before.into_iter().filter(|name| !self.seen.members.contains_key(name)));
            }
            "message" if self.ids.insert(push.body["id"].as_str().unwrap().to_owned()) => {
                self.said.push(push.body["data"].clone());
            }
            _ => {}
        }
    }

    /// Hears pushes until this is so.
    async fn listens_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let heard = async {
            while !is_so(self) {
                let push = self.player.next_push().await;
                self.hears(&push);
            }
        };
        if tokio::time::timeout(PATIENCE, heard).await.is_err() {
            panic!("{} waited in vain: {what}; {:?}, {:?}", self.name, self.seen, self.said);
        }
    }

    async fn sees(&mut self, members: &[(&str, bool)]) {
        let members: BTreeMap<&str, bool> = members.iter().copied().collect();
        self.listens_until(&format!("{members:?}"), |guest| {
            let seen = guest.seen.members.iter();
            seen.map(|(name, (online, _))| (name.as_str(), *online)).eq(members.iter().map(|(n, o)| (*n, *o)))
        })
        .await;
    }

    async fn says(&mut self, data: Value) {
        self.does("room.send", json!({"data": data})).await;
    }

    /// Waits until the room knows where she is at home now: whoever is just moving does not get what is said meanwhile.
    async fn is_heard_of(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for word in 0.. {
            let word = json!(["is anybody there?", self.cseq, word]);
            self.says(word.clone()).await;
            let heard = async {
                while !self.said.contains(&word) {
                    let push = self.player.next_push().await;
                    self.hears(&push);
                }
            };
            if tokio::time::timeout(PATIENCE / 20, heard).await.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "{} is not heard of: {:?}", self.name, self.said);
        }
    }

    /// The whole room, as she is answered when nobody can be missing.
    async fn looks(&mut self) -> Seen {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.player.does("room.members", json!({"room": self.room})).await;
            if answer["partial"] == Value::Null {
                return Seen::of(&answer);
            }
            assert!(Instant::now() < deadline, "{answer}");
        }
    }

    /// Comes back as a client does that was told to wait: again. This node carries her where she is at home.
    async fn resumes(&mut self, by: &Server) {
        let credentials = self.player.credentials();
        self.player = until("the session is taken up again", async || {
            let mut player = Player::connect(by.url(), Encoding::MessagePack).await;
            player.try_resume_carried(&credentials).await.ok().map(|()| player)
        })
        .await;
        assert_eq!(self.player.ready["rooms"], json!([self.room]));
        // What was acked last may be lost with a home, and the counter says so.
        self.cseq = self.player.ready["cseq"].as_u64().unwrap();
    }
}

/// One guest at each node.
async fn one_at_each(nodes: &[&Server], room: &str) -> Vec<Guest> {
    let mut guests = Vec::new();
    for node in nodes {
        guests.push(Guest::joins(node, room, 0).await);
    }
    guests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_at_three_nodes_are_in_one_room() {
    let redis = RedisServer::start();
    let [one, two, three] = nodes(&redis, unlimited).await;
    let room = room_of(&one, &[&one, &two, &three]).await;
    let mut guests = one_at_each(&[&one, &two, &three], &room).await;
    let names: Vec<String> = guests.iter().map(|guest| guest.name.clone()).collect();
    let all: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
    for guest in &mut guests {
        guest.sees(&all).await;
    }
    let first = guests[0].looks().await;
    for guest in &mut guests {
        assert_eq!(guest.looks().await, first, "the same at every node");
        assert_eq!(guest.seen, first);
        assert!(guest.gone.is_empty());
    }
    // What each shows reaches all, in an order that no link can turn round.
    let mut ver = first.ver;
    for at in 0..3 {
        let meta = json!({"team": at});
        guests[at].does("room.meta", json!({"meta": meta})).await;
        let name = guests[at].name.clone();
        for guest in &mut guests {
            guest.listens_until("a meta", |guest| guest.seen.members[&name].1 == meta).await;
        }
        assert!(guests[0].seen.ver > ver && guests[1].seen.ver == guests[0].seen.ver);
        ver = guests[0].seen.ver;
    }
    // All talk at once; everybody hears the same.
    for number in 0..50 {
        for (at, guest) in guests.iter_mut().enumerate() {
            guest.cseq += 1;
            let body = json!({"room": room, "data": [at, number], "cseq": guest.cseq});
            guest.player.feed("room.send", body).await;
        }
    }
    for guest in &mut guests {
        guest.player.pings().await;
    }
    for guest in &mut guests {
        guest.listens_until("150 messages", |guest| guest.said.len() == 150).await;
    }
    assert!(guests[0].said == guests[1].said && guests[1].said == guests[2].said, "in one order");
    for at in 0..3 {
        let of_one: Vec<_> = guests[0].said.iter().filter(|said| said[0] == at).collect();
        assert!(
            (0..50).zip(&of_one).all(|(number, said)| said[1] == number),
            "each as she said it: {of_one:?}"
        );
    }
    // Links come and go, and members.
    let mut third = guests.pop().unwrap();
    let credentials = third.player.drops();
    for guest in &mut guests {
        guest.sees(&[(&names[0], true), (&names[1], true), (&names[2], false)]).await;
    }
    third.player = three.resume(&credentials).await;
    guests.push(third);
    for guest in &mut guests {
        guest.sees(&all).await;
    }
    guests[1].does("room.leave", json!({})).await;
    let mut second = guests.remove(1);
    for guest in &mut guests {
        guest.sees(&[(&names[0], true), (&names[2], true)]).await;
    }
    guests[1].says(json!("alone")).await;
    guests[0].listens_until("what is said", |guest| guest.said.last() == Some(&json!("alone"))).await;
    second.player.pings().await;
    assert!(!second.player.was_told("message"), "whoever left hears no more of it");
    // Whenever both ends have compared, they have meant the same.
    for node in [&one, &two, &three] {
        assert!(!node.log().contains("it claims others than was heard"), "{}", node.log());
        assert!(!node.log().contains("they have left"), "{}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_has_no_more_members_than_places_wherever_they_come_from() {
    const PLACES: usize = 5;
    let redis = RedisServer::start();
    let [one, two, three] = nodes(&redis, |node| unlimited(node).with("rooms.members_max", PLACES)).await;
    let room = room_of(&two, &[&one, &two, &three]).await;
    let mut players = Vec::new();
    for node in [&one, &two, &three] {
        for name in players_of(node).await.take(5) {
            players.push(node.login(&name).await);
        }
    }
    let mut asked = Vec::new();
    for player in &mut players {
        asked.push(player.send("room.join", json!({"room": room, "cseq": 1})).await);
        // What comes behind waits with it: no number is overtaken.
        player.send("state.patch", json!({"set": {"a": 1}, "cseq": 2})).await;
    }
    let mut inside = Vec::new();
    let mut outside = Vec::new();
    for (mut player, reference) in players.into_iter().zip(asked) {
        match player.answer(reference).await {
            Ok(roster) => {
                assert!(roster["count"].as_u64().unwrap() <= PLACES as u64);
                inside.push(player);
            }
            Err(refused) => {
                assert_eq!(refused["code"], "room_full", "{refused}");
                outside.push(player);
            }
        }
    }
    assert_eq!((inside.len(), outside.len()), (PLACES, 15 - PLACES));
    for player in &mut inside {
        assert_eq!(player.state().await, json!({"a": 1}));
    }
    // Her number is not used up, and a place that is given back is hers.
    let mut next = outside.pop().unwrap();
    next.is_refused("room.join", json!({"room": room, "cseq": 1}), "room_full").await;
    inside.pop().unwrap().does("room.leave", json!({"room": room})).await;
    let deadline = Instant::now() + PATIENCE;
    let roster = loop {
        match next.ask("room.join", json!({"room": room, "cseq": 1})).await {
            Ok(roster) => break roster,
            Err(refused) => assert!(Instant::now() < deadline, "{refused}"),
        }
    };
    assert_eq!(roster["count"], PLACES);
    outside.pop().unwrap().is_refused("room.join", json!({"room": room}), "room_full").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_finds_a_room_from_every_node() {
    let redis = RedisServer::start();
    let [one, two, three] = nodes(&redis, unlimited).await;
    let room = room_of(&one, &[&one, &two, &three]).await;
    let mut guests = one_at_each(&[&one, &two, &three], &room).await;
    let path = format!("/v1/rooms/{room}");
    let bea = players_of(&two).await.nth(1).unwrap();
    let mut bea_there = two.login(&bea).await;
    for (number, node) in [&one, &two, &three].into_iter().enumerate() {
        let game = Service::of(node, KEY);
        assert_eq!(is_whole(node, &room).await["count"], 3);
        let (_, count) = game.get(&format!("{path}?count_only")).await;
        assert_eq!((&count["count"], &count["members"]), (&json!(3), &json!([])));
        let (status, said) = game.post(&format!("{path}/messages"), json!({"data": number})).await;
        assert_eq!((status, &said["delivered"]), (200, &json!(3)), "{said}");
        for guest in &mut guests {
            guest
                .listens_until("what a service says", |guest| guest.said.last() == Some(&json!(number)))
                .await;
        }
        let (status, put) = game.put(&format!("{path}/members/{bea}"), json!({"meta": {"n": number}})).await;
        assert_eq!((status, &put["sessions"]), (200, &json!(1)), "{put}");
        for guest in &mut guests {
            guest.listens_until("bea comes", |guest| guest.seen.members.contains_key(&bea)).await;
        }
        let snapshot = loop {
            let push = bea_there.wait_for_push("room").await;
            if push["members"].is_array() {
                break push;
            }
        };
        assert_eq!(snapshot["count"], 4);
        assert_eq!(game.delete(&format!("{path}/members/{bea}")).await.0, 204);
        while bea_there.wait_for_push("room").await["leaves"] != json!([bea]) {}
        assert_eq!(game.delete(&format!("{path}/members/{bea}")).await.0, 404);
        for guest in &mut guests {
            guest.listens_until("bea goes", |guest| !guest.seen.members.contains_key(&bea)).await;
        }
    }
}

/// What they are in must not go with a home: then they would be told so.
async fn are_stored(guests: &mut [Guest]) {
    for guest in guests {
        guest.player.patch_durably(json!({"set": {"in": true}})).await;
    }
}

/// Nobody was told that one of these had left.
fn nobody_left(guests: &[Guest]) {
    for guest in guests {
        assert!(guest.gone.is_empty(), "{} was told that {:?} had left", guest.name, guest.gone);
    }
}

/// Each says something, and all hear it.
async fn all_hear_all(guests: &mut [Guest], what: &str) {
    for at in 0..guests.len() {
        let data = json!([what, at]);
        guests[at].says(data.clone()).await;
        for guest in guests.iter_mut() {
            guest.listens_until("what is said", |guest| guest.said.contains(&data)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_home_of_a_room_dies_its_members_stay_and_know_each_other() {
    let redis = RedisServer::start();
    let [mut one, two, three] = nodes(&redis, unlimited).await;
    let room = room_of(&one, &[&one, &two, &three]).await;
    let mut guests = one_at_each(&[&one, &two, &three], &room).await;
    let names: Vec<String> = guests.iter().map(|guest| guest.name.clone()).collect();
    are_stored(&mut guests).await;
    let all: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
    for guest in &mut guests {
        guest.sees(&all).await;
    }
    let before = guests[1].seen.ver;
    tokio::task::block_in_place(|| one.kill9());
    let killed = Instant::now();
    // The new home tells all who is in; her whose node died is still there.
    for guest in guests.iter_mut().skip(1) {
        guest.listens_until("the new home's word", |guest| guest.seen.ver.0 > before.0).await;
        assert_eq!(guest.seen.members.len(), 3, "{:?}", guest.seen);
    }
    eprintln!("the room was whole again {:?} after the kill", killed.elapsed());
    guests[0].resumes(&two).await;
    for guest in &mut guests {
        guest.sees(&all).await;
    }
    let shown = is_whole(&two, &room).await;
    assert_eq!((shown["count"].as_u64(), is_whole(&three, &room).await), (Some(3), shown.clone()));
    all_hear_all(&mut guests, "after the kill").await;
    nobody_left(&guests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_home_of_a_member_dies_she_stays_in_her_room() {
    let redis = RedisServer::start();
    let [one, two, mut three] = nodes(&redis, unlimited).await;
    let room = room_of(&two, &[&one, &two, &three]).await;
    let mut guests = one_at_each(&[&one, &two, &three], &room).await;
    let names: Vec<String> = guests.iter().map(|guest| guest.name.clone()).collect();
    are_stored(&mut guests).await;
    tokio::task::block_in_place(|| three.kill9());
    // Seen as she was, until her next home says how she is.
    let mut third = guests.pop().unwrap();
    for guest in &mut guests {
        guest.sees(&[(&names[0], true), (&names[1], true), (&names[2], false)]).await;
    }
    third.resumes(&one).await;
    guests.push(third);
    let all: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
    for guest in &mut guests {
        guest.sees(&all).await;
    }
    all_hear_all(&mut guests, "after the kill").await;
    nobody_left(&guests);
    // And whoever leaves then has left.
    guests.pop().unwrap().does("room.leave", json!({})).await;
    for guest in &mut guests {
        guest.sees(&all[..2]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_lives_through_a_restart_of_every_node() {
    let redis = RedisServer::start();
    let [one, two, three] = nodes(&redis, unlimited).await;
    let room = room_of(&one, &[&one, &two, &three]).await;
    let mut guests = one_at_each(&[&one, &two, &three], &room).await;
    let names: Vec<String> = guests.iter().map(|guest| guest.name.clone()).collect();
    let all: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
    are_stored(&mut guests).await;
    let mut nodes = [one, two, three];
    for turn in 0..3 {
        let part = served_by(&nodes[turn]).await;
        tokio::task::block_in_place(|| assert!(nodes[turn].stop_gracefully().success()));
        come_back(&mut guests, &nodes[(turn + 1) % 3]).await;
        all_hear_all(&mut guests, &format!("{turn} is away")).await;
        tokio::task::block_in_place(|| nodes[turn].restart());
        // All of it: whoever came back before her shard moved would have to come back once more.
        until("it has its part again", async || (served_by(&nodes[turn]).await == part).then_some(())).await;
        until("each shard has one home", async || {
            let mut served = 0;
            for node in &nodes {
                served += served_by(node).await.len();
            }
            (served == usize::from(SHARDS)).then_some(())
        })
        .await;
        come_back(&mut guests, &nodes[turn]).await;
        for guest in &mut guests {
            guest.sees(&all).await;
        }
        all_hear_all(&mut guests, &format!("{turn} is back")).await;
    }
    for node in &nodes {
        assert_eq!(is_whole(node, &room).await["count"], 3);
    }
    nobody_left(&guests);
}

/// Whose link has ended, or is to end, comes back; this node carries her where she is at home now.
async fn come_back(guests: &mut [Guest], by: &Server) {
    for guest in guests {
        if !guest.player.is_alive().await || guest.player.was_told("moved") {
            guest.resumes(by).await;
            guest.is_heard_of().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_home_of_a_room_cannot_be_reached_nothing_is_guessed() {
    let redis = RedisServer::start();
    let [one, two, three] = nodes(&redis, |node| unlimited(node).with_lease(30_000)).await;
    let room = room_of(&one, &[&one, &two, &three]).await;
    let mut guests = one_at_each(&[&one, &two, &three], &room).await;
    let names: Vec<String> = guests.iter().map(|guest| guest.name.clone()).collect();
    let all: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
    for guest in &mut guests {
        guest.sees(&all).await;
    }
    one.pause();
    // Taken while the silence is not noticed, and said when it is over.
    guests[1].says(json!("into the silence")).await;
    until("the links are given up", async || {
        let given_up = |node: &Server| node.log().contains("a peer link has ended");
        (given_up(&two) && given_up(&three)).then_some(())
    })
    .await;
    let (cseq, body) = (guests[1].cseq + 1, json!({"room": room, "data": "now?"}));
    let with_cseq = |mut body: Value| {
        body["cseq"] = json!(cseq);
        body
    };
    let refused = guests[1].player.is_refused("room.send", with_cseq(body), "not_home").await;
    assert_eq!((&refused["temporary"], &refused["applied"]), (&json!(true), &Value::Null), "{refused}");
    let look = json!({"room": room});
    guests[1].player.is_refused("room.members", look.clone(), "not_home").await;
    let mut late = two.login(&players_of(&two).await.nth(1).unwrap()).await;
    let refused = late.is_refused("room.join", json!({"room": room, "cseq": 1}), "not_home").await;
    assert_eq!(refused["applied"], Value::Null, "her number is not used up: {refused}");
    // All three were held first.
    let later = r#"op="later",outcome="not_home""#;
    assert_eq!(two.metric("hearth_commands_total", later).await, 3);
    // What becomes of members meanwhile is told afterwards.
    let meta = json!({"waits": true});
    guests[2].does("room.meta", json!({"meta": meta})).await;
    one.go_on();
    for node in [&two, &three] {
        is_whole(node, &room).await;
    }
    guests[1].says(json!("now")).await;
    for guest in &mut guests {
        guest.listens_until("what is said", |guest| guest.said.contains(&json!("now"))).await;
        guest.listens_until("her meta", |guest| guest.seen.members[&names[2]].1 == meta).await;
    }
    // At the home and at her own node, whose link brought it there; the third may have had none yet.
    for guest in &guests[..2] {
        assert!(guest.said.contains(&json!("into the silence")), "{:?}", guest.said);
    }
    late.does("room.join", json!({"room": room, "cseq": 1})).await;
    for guest in &mut guests {
        guest.listens_until("who came late", |guest| guest.seen.members.len() == 4).await;
    }
    assert!(!one.log().contains("they have left"), "{}", one.log());
    nobody_left(&guests);
}
