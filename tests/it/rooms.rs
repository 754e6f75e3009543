//! What is promised about rooms: members see each other come, go and change; who has no right stays out; what is said
//! reaches every member once; and a roster is what the records of its members say, whatever has happened.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use protocol::client::{Client, Config, DropKind, Happened, Push};
use serde_json::{Value, json};

use crate::harness::patience::{PATIENCE, until};
use crate::harness::player::{Player, Refused};
use crate::harness::server::{Server, Starting};
use crate::harness::service::Service;
use crate::harness::stages::{Stage, on_both_stores, on_every_stage};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "rooms-service-key";
const ROOM: &str = "party:7";

/// A room as its clients know it: the first answer or snapshot, and then every push.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) ver: (u64, u64),
    pub(crate) count: u64,
    /// Whether each is online, and her meta.
    pub(crate) members: BTreeMap<String, (bool, Value)>,
}

fn ver_of(body: &Value) -> (u64, u64) {
    (body["ver"][0].as_u64().unwrap(), body["ver"][1].as_u64().unwrap())
}

impl Seen {
    /// What an answer or a snapshot shows: the whole room.
    pub(crate) fn of(body: &Value) -> Self {
        let mut seen = Self { ver: ver_of(body), count: body["count"].as_u64().unwrap(), ..Self::default() };
        seen.takes(&body["members"]);
        seen
    }

    fn takes(&mut self, members: &Value) {
        for member in members.as_array().into_iter().flatten() {
            let online = member["online"].as_bool().unwrap_or(true);
            self.members
                .insert(member["player"].as_str().unwrap().to_owned(), (online, member["meta"].clone()));
        }
    }

    /// Hears a push, as the specification says that a client does.
    pub(crate) fn hears(&mut self, push: &Value) {
        if ver_of(push) <= self.ver {
            return;
        }
        if push["members"].is_array() {
            *self = Self::of(push);
            return;
        }
        (self.ver, self.count) = (ver_of(push), push["count"].as_u64().unwrap());
        self.takes(&push["joins"]);
        self.takes(&push["updates"]);
        for player in push["leaves"].as_array().into_iter().flatten() {
            self.members.remove(player.as_str().unwrap());
        }
        if push["partial"] != true {
            assert_eq!(self.members.len() as u64, self.count, "{push} after {:?}", self.members);
        }
    }

    /// `+ann -bea`: who is online and who is not.
    fn names(&self) -> String {
        let sign = |online: &bool| if *online { '+' } else { '-' };
        let names: Vec<_> =
            self.members.iter().map(|(name, (online, _))| format!("{}{name}", sign(online))).collect();
        names.join(" ")
    }
}

/// Hears pushes until the room has so many members; how many of them came by number alone.
async fn hears_until(member: &mut Member, count: u64) -> usize {
    let mut by_number = 0;
    loop {
        let push = member.player.wait_for_push("room").await;
        if push["partial"] == true {
            assert_eq!((&push["joins"], &push["leaves"]), (&Value::Null, &Value::Null), "{push}");
            by_number += 1;
        }
        if push["count"] == count {
            return by_number;
        }
    }
}

/// A member of [`ROOM`], with what she has seen of it.
struct Member {
    player: Player,
    seen: Seen,
}

impl Member {
    async fn joins(mut player: Player, meta: Value) -> Self {
        let mut join = json!({"room": ROOM});
        if !meta.is_null() {
            join["meta"] = meta;
        }
        let answer = player.does("room.join", join).await;
        Self { player, seen: Seen::of(&answer) }
    }

    async fn logs_in(server: &Server, name: &str) -> Self {
        Self::joins(server.login(name).await, Value::Null).await
    }

    /// Hears pushes until the room looks so.
    async fn waits_for(&mut self, names: &str) {
        let what = format!("{names}, not {}", self.seen.names());
        let heard = async {
            while self.seen.names() != names {
                let push = self.player.wait_for_push("room").await;
                assert_eq!(push["room"], ROOM);
                self.seen.hears(&push);
            }
        };
        let patience = tokio::time::timeout(PATIENCE, heard).await;
        patience.unwrap_or_else(|_| panic!("waited in vain for {what}; it is {:?}", self.seen));
    }

    /// The room as the server shows it now.
    async fn looks(&mut self) -> Seen {
        let answer = self.player.does("room.members", json!({"room": ROOM})).await;
        Seen::of(&answer)
    }

    async fn says(&mut self, data: Value) {
        self.player.does("room.send", json!({"room": ROOM, "data": data})).await;
    }

    /// What is said next in the room, and by whom.
    async fn hears(&mut self) -> (Value, Value) {
        let message = self.player.wait_for_push("message").await;
        assert_eq!(message["room"], ROOM);
        (message["player"].clone(), message["data"].clone())
    }

    async fn resumes(self, server: &Server) -> Self {
        let Self { player, seen } = self;
        Self { player: server.resume(&player.drops()).await, seen }
    }
}

fn with_jwt(kind: Stage) -> Starting {
    Server::on(kind).with("auth.jwt_secret", SECRET)
}

/// A token for the player that opens these rooms.
fn token(player: &str, rooms: &[&str]) -> Value {
    let secret = format!("auth.jwt_secret={SECRET}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.args(["token", "--player", player, "--set", &secret]);
    for room in rooms {
        command.args(["--room", room]);
    }
    let minted = command.output().unwrap();
    assert!(minted.status.success(), "{}", String::from_utf8_lossy(&minted.stderr));
    json!({"token": String::from_utf8(minted.stdout).unwrap().trim()})
}

async fn login_with(server: &Server, token: &Value) -> Player {
    let mut player = server.connect().await;
    player.login_with(token.clone()).await;
    player
}

/// Asks again until the answer is as it should be: a room hears a moment later what becomes of members whose home is
/// another node than its own.
async fn asks_until(
    player: &mut Player,
    op: &str,
    body: Value,
    is_good: impl Fn(&Result<Value, Refused>) -> bool,
) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = player.ask(op, body.clone()).await;
        if is_good(&answer) {
            return;
        }
        assert!(Instant::now() < deadline, "{op} {body}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

on_every_stage! {
    async fn a_member_sees_others_come_and_go(kind) {
        let server = Server::on(kind).start();
        let mut ann = Member::joins(server.login("ann").await, json!({"team": "red"})).await;
        assert_eq!(ann.seen.names(), "+ann");
        let mut bea = Member::logs_in(&server, "bea").await;
        assert_eq!(bea.seen.names(), "+ann +bea");
        assert_eq!(bea.seen.members["ann"].1, json!({"team": "red"}));
        ann.waits_for("+ann +bea").await;
        ann.player.does("room.meta", json!({"room": ROOM, "meta": {"team": "blue"}})).await;
        while bea.seen.members["ann"].1 != json!({"team": "blue"}) {
            let push = bea.player.wait_for_push("room").await;
            bea.seen.hears(&push);
        }
        let mut cem = Member::logs_in(&server, "cem").await;
        cem.player.does("room.leave", json!({"room": ROOM})).await;
        bea.player.does("logout", json!({})).await;
        ann.waits_for("+ann").await;
        assert_eq!(ann.looks().await, ann.seen);
        // Whoever left hears no more of it.
        ann.says(json!("alone")).await;
        ann.hears().await;
        cem.player.pings().await;
        assert!(!cem.player.was_told("message"));
    }

    async fn a_dropped_member_shows_offline_and_returns_at_resume(kind) {
        let server = Server::on(kind).start();
        let mut ann = Member::logs_in(&server, "ann").await;
        let bea = Member::joins(server.login("bea").await, json!({"team": "red"})).await;
        ann.waits_for("+ann +bea").await;
        let credentials = bea.player.drops();
        ann.waits_for("+ann -bea").await;
        assert_eq!(ann.seen.members["bea"].1, json!({"team": "red"}));
        ann.says(json!("where are you")).await;
        let mut bea = Member { player: server.resume(&credentials).await, seen: bea.seen };
        assert_eq!(bea.player.ready["rooms"], json!([ROOM]));
        assert_eq!(bea.player.ready["missed"], json!(null));
        ann.waits_for("+ann +bea").await;
        assert_eq!(bea.hears().await, (json!("ann"), json!("where are you")));
        bea.waits_for("+ann +bea").await;
        let mut cem = Member::logs_in(&server, "cem").await;
        bea.waits_for("+ann +bea +cem").await;
        assert_eq!(cem.looks().await, bea.seen);
    }

    async fn rooms_survive_a_crash_of_the_server(kind) {
        let mut server = Server::on(kind).with_lease(1_200).start();
        let ann = Member::joins(server.login("ann").await, json!({"team": "red"})).await;
        let mut bea = Member::logs_in(&server, "bea").await;
        let mut cem = Member::logs_in(&server, "cem").await;
        cem.player.does("room.leave", json!({"room": ROOM})).await;
        bea.waits_for("+ann +bea").await;
        let before = bea.looks().await;
        let mut ann = ann;
        for member in [&mut ann, &mut bea, &mut cem] {
            member.player.patch_durably(json!({"set": {"a": 1}})).await;
        }
        server.kill9();
        server.restart();
        let mut bea = bea.resumes(&server).await;
        assert_eq!((&bea.player.ready["rooms"], &bea.player.ready["missed"]), (&json!([ROOM]), &json!(true)));
        // What she missed comes as a snapshot, and its counter has not run backwards.
        let snapshot = bea.player.wait_for_push("room").await;
        assert!(snapshot["members"].is_array(), "{snapshot}");
        assert!(ver_of(&snapshot) > before.ver, "{snapshot} after {before:?}");
        bea.seen.hears(&snapshot);
        assert_eq!(bea.seen.members["ann"].1, json!({"team": "red"}));
        bea.waits_for("-ann +bea").await;
        let mut ann = ann.resumes(&server).await;
        bea.waits_for("+ann +bea").await;
        ann.says(json!("back")).await;
        assert_eq!(bea.hears().await, (json!("ann"), json!("back")));
        let cem = cem.resumes(&server).await;
        assert_eq!(cem.player.ready["rooms"], json!([]));
    }

    async fn a_player_without_the_right_is_refused(kind) {
        let server = with_jwt(kind).with("rooms.grants", "lobby").start();
        let mut ann = login_with(&server, &token("ann", &["party:*", "guild:9"])).await;
        for open in ["party:7", "party:", "guild:9", "lobby"] {
            ann.does("room.join", json!({"room": open})).await;
        }
        for closed in ["guild:90", "guild", "party", "lobby:2"] {
            ann.is_refused("room.join", json!({"room": closed, "cseq": 1}), "forbidden").await;
            ann.is_refused("room.members", json!({"room": closed}), "forbidden").await;
            ann.is_refused("room.send", json!({"room": closed, "data": 1, "cseq": 1}), "forbidden").await;
            ann.is_refused("room.meta", json!({"room": closed, "meta": {}, "cseq": 1}), "forbidden").await;
        }
        let mut bea = login_with(&server, &token("bea", &[])).await;
        bea.does("room.join", json!({"room": "lobby"})).await;
        bea.is_refused("room.join", json!({"room": "party:7"}), "forbidden").await;
        // The right may be there, but to speak she must be in.
        let mut cem = login_with(&server, &token("cem", &["party:*"])).await;
        cem.is_refused("room.send", json!({"room": "party:7", "data": 1}), "forbidden").await;
        assert_eq!(cem.does("room.members", json!({"room": "party:7"})).await["count"], 1);
    }

    async fn the_right_outlives_the_link_and_follows_a_refresh(kind) {
        let mut server = with_jwt(kind).with_lease(1_200).start();
        let mut ann = login_with(&server, &token("ann", &["party:*"])).await;
        ann.patch_durably(json!({"set": {"a": 1}})).await;
        let mut ann = server.resume(&ann.drops()).await;
        ann.does("room.join", json!({"room": "party:1"})).await;
        ann.patch_durably(json!({"set": {"a": 2}})).await;
        server.kill9();
        server.restart();
        let mut ann = server.resume(&ann.drops()).await;
        ann.does("room.join", json!({"room": "party:2"})).await;
        ann.does("refresh", token("ann", &["guild:*"])).await;
        ann.does("room.join", json!({"room": "guild:2"})).await;
        ann.is_refused("room.join", json!({"room": "party:3"}), "forbidden").await;
        // Where she is she stays.
        ann.does("room.send", json!({"room": "party:1", "data": 1})).await;
        let ann = server.resume(&ann.drops()).await;
        assert_eq!(ann.ready["rooms"], json!(["party:1", "party:2", "guild:2"]));
    }

    async fn a_room_message_reaches_members_once(kind) {
        let server = Server::on(kind).start();
        let mut ann = Member::logs_in(&server, "ann").await;
        let mut bea = Member::logs_in(&server, "bea").await;
        let mut cem = Member::logs_in(&server, "cem").await;
        let send = json!({"room": ROOM, "data": {"say": "hi"}, "cseq": 1});
        ann.player.does("room.send", send.clone()).await;
        assert_eq!(ann.player.does("room.send", send).await["dup"], true);
        bea.says(json!("second")).await;
        // To the sender as well, and to everybody in one order.
        for member in [&mut ann, &mut bea, &mut cem] {
            assert_eq!(member.hears().await, (json!("ann"), json!({"say": "hi"})));
            assert_eq!(member.hears().await, (json!("bea"), json!("second")));
            member.player.pings().await;
            assert!(!member.player.was_told("message"));
        }
    }

    async fn a_full_room_refuses(kind) {
        let server = Server::on(kind).with("rooms.members_max", 2).start();
        let ann = Member::logs_in(&server, "ann").await;
        let mut bea = Member::logs_in(&server, "bea").await;
        let mut cem = server.login("cem").await;
        let refused = cem.is_refused("room.join", json!({"room": ROOM, "cseq": 1}), "room_full").await;
        assert_eq!(refused["temporary"], true);
        // Who is in is in, also while her link is down.
        let credentials = ann.player.drops();
        bea.waits_for("-ann +bea").await;
        cem.is_refused("room.join", json!({"room": ROOM, "cseq": 1}), "room_full").await;
        let mut ann = server.resume(&credentials).await;
        ann.does("room.join", json!({"room": ROOM, "meta": {"again": true}})).await;
        ann.does("room.leave", json!({"room": ROOM})).await;
        let join = json!({"room": ROOM, "cseq": 1});
        asks_until(&mut cem, "room.join", join, |answer| answer.as_ref().is_ok_and(|room| room["count"] == 2)).await;
    }

    async fn a_session_has_so_many_rooms(kind) {
        let server = Server::on(kind).with("rooms.session_max", 2).start();
        let mut ann = server.login("ann").await;
        let join = |room: &str| json!({"room": room});
        ann.does("room.join", join("a")).await;
        ann.does("room.join", join("b")).await;
        ann.is_refused("room.join", join("c"), "too_large").await;
        ann.does("room.join", json!({"room": "a", "meta": {"k": 1}})).await;
        assert_eq!(ann.ready["limits"]["rooms"], 2);
        ann.does("room.leave", join("b")).await;
        ann.does("room.join", join("c")).await;
    }

    async fn a_meta_and_a_name_have_their_bounds(kind) {
        let server = Server::on(kind).with("rooms.meta_bytes_max", 64).with("rooms.meta_keys_max", 2).start();
        let mut ann = server.login("ann").await;
        for name in ["", "a\nb", &"x".repeat(65)] {
            ann.is_refused("room.join", json!({"room": name}), "bad_request").await;
        }
        ann.does("room.join", json!({"room": "é".repeat(32), "meta": {"a": 1, "b": [true, null, 0.5]}})).await;
        for meta in [json!({"a": 1, "b": 2, "c": 3}), json!({"a": "x".repeat(64)}), json!({"k".repeat(65): 1})] {
            ann.is_refused("room.join", json!({"room": ROOM, "meta": meta, "cseq": 1}), "too_large").await;
        }
        ann.does("room.join", json!({"room": ROOM, "meta": {"a": 1}, "cseq": 1})).await;
        ann.is_refused("room.meta", json!({"room": ROOM, "meta": {"a": "x".repeat(64)}, "cseq": 2}), "too_large").await;
        // An empty one clears it, none keeps it.
        let meta_of = |answer: Value| answer["members"][0]["meta"].clone();
        assert_eq!(meta_of(ann.does("room.join", json!({"room": ROOM})).await), json!({"a": 1}));
        assert_eq!(meta_of(ann.does("room.join", json!({"room": ROOM, "meta": {}})).await), json!(null));
    }

    async fn pages_cover_every_member_once(kind) {
        let server = Server::on(kind).with("rooms.page_members_max", 4).start();
        let mut players = Vec::new();
        for n in 0..11 {
            let mut player = server.login(&format!("p{n:02}")).await;
            let answer = player.does("room.join", json!({"room": ROOM})).await;
            assert_eq!((answer["count"].as_u64(), answer["cursor"].is_null()), (Some(n + 1), n < 4));
            players.push(player);
        }
        let ann = &mut players[0];
        let (mut names, mut asked) = (Vec::new(), json!({"room": ROOM, "limit": 3}));
        loop {
            let page = ann.does("room.members", asked.clone()).await;
            let members = page["members"].as_array().unwrap();
            assert!(members.len() <= 3 && page["count"] == 11);
            names.extend(members.iter().map(|member| member["player"].as_str().unwrap().to_owned()));
            match page["cursor"].is_null() {
                true => break,
                false => asked["cursor"] = page["cursor"].clone(),
            }
        }
        assert_eq!(names, (0..11).map(|n| format!("p{n:02}")).collect::<Vec<_>>());
        // No page is longer than the server's own, and a page of none is a count.
        let page = ann.does("room.members", json!({"room": ROOM, "limit": 1_000})).await;
        assert_eq!(page["members"].as_array().unwrap().len(), 4);
        let count = ann.does("room.members", json!({"room": ROOM, "limit": 0})).await;
        assert_eq!((&count["count"], &count["members"], &count["cursor"]), (&json!(11), &json!([]), &json!(null)));
    }

    async fn more_changes_than_a_push_holds_are_told_by_number(kind) {
        let starting = Server::on(kind).with("rooms.diff_members_max", 2).with("presence.tick_ms", 500);
        let server = starting.start();
        let mut ann = Member::logs_in(&server, "ann").await;
        let mut others = Vec::new();
        for name in ["bea", "cem", "dot"] {
            others.push(server.login(name).await);
        }
        // At one moment, so that they fall into one tick; on a busy machine now and then they do not.
        let mut by_number = 0;
        for _ in 0..20 {
            for player in &mut others {
                player.send("room.join", json!({"room": ROOM})).await;
            }
            by_number += hears_until(&mut ann, 4).await;
            assert_eq!(ann.looks().await.names(), "+ann +bea +cem +dot");
            if by_number > 0 {
                break;
            }
            for player in &mut others {
                player.does("room.leave", json!({"room": ROOM})).await;
            }
            hears_until(&mut ann, 1).await;
        }
        assert!(by_number > 0, "three changes of one tick must be told by number");
    }

    async fn a_repeat_by_cseq_joins_once(kind) {
        let server = Server::on(kind).start();
        let mut ann = server.login("ann").await;
        let join = json!({"room": ROOM, "meta": {"n": 1}, "cseq": 1});
        let first = ann.does("room.join", join.clone()).await;
        assert_eq!((&first["dup"], first["stamp"].is_array()), (&json!(null), true));
        ann.does("room.meta", json!({"room": ROOM, "meta": {"n": 2}, "cseq": 2})).await;
        let again = ann.does("room.join", join.clone()).await;
        assert_eq!((&again["dup"], &again["members"][0]["meta"]), (&json!(true), &json!({"n": 2})));
        ann.does("room.leave", json!({"room": ROOM, "cseq": 3})).await;
        // What was done since is not undone.
        assert_eq!(ann.does("room.join", join).await["dup"], true);
        assert_eq!(ann.does("room.members", json!({"room": ROOM})).await["count"], 0);
        ann.is_refused("room.join", json!({"room": ROOM, "cseq": 5}), "cseq_gap").await;
        assert_eq!(ann.does("room.leave", json!({"room": ROOM, "cseq": 3})).await["dup"], true);
    }

    async fn an_expired_session_leaves_its_rooms(kind) {
        let server = Server::on(kind).with("session.ttl_ms", 600).with("presence.grace_ms", 0).start();
        let mut ann = Member::logs_in(&server, "ann").await;
        let bea = Member::logs_in(&server, "bea").await;
        ann.waits_for("+ann +bea").await;
        drop(bea.player);
        ann.waits_for("+ann -bea").await;
        ann.waits_for("+ann").await;
        // Nor does a newer session inherit rooms of the one that it replaces.
        let mut again = server.login("ann").await;
        let is_empty = |room: &Value| (&room["count"], &room["members"]) == (&json!(0), &json!([]));
        let look = json!({"room": ROOM});
        asks_until(&mut again, "room.members", look, |answer| answer.as_ref().is_ok_and(is_empty)).await;
        let again = server.resume(&again.drops()).await;
        assert_eq!(again.ready["rooms"], json!([]));
    }

    async fn a_player_is_one_member_with_all_her_sessions(kind) {
        let server = Server::on(kind).with("session.login_policy", "per_device").start();
        let on = async |device: &str| {
            let mut player = server.connect().await;
            player.login_with(json!({"token": "dev:ann", "device": device})).await;
            player
        };
        let mut bea = Member::logs_in(&server, "bea").await;
        let mut pc = Member::joins(on("pc").await, json!({"team": "red"})).await;
        let mut web = Member::joins(on("web").await, Value::Null).await;
        assert_eq!((web.seen.count, &web.seen.members["ann"].1), (2, &json!({"team": "red"})));
        bea.waits_for("+ann +bea").await;
        let credentials = pc.player.drops();
        bea.says(json!(1)).await;
        assert_eq!(web.hears().await.1, 1);
        assert_eq!(bea.looks().await.names(), "+ann +bea");
        let credentials_of_web = web.player.drops();
        bea.waits_for("-ann +bea").await;
        pc.player = server.resume(&credentials).await;
        bea.waits_for("+ann +bea").await;
        pc.player.does("room.leave", json!({"room": ROOM})).await;
        bea.waits_for("-ann +bea").await;
        let mut web = server.resume(&credentials_of_web).await;
        web.does("logout", json!({})).await;
        bea.waits_for("+bea").await;
    }

    async fn a_service_puts_a_player_in_and_takes_her_out(kind) {
        let mut server = with_jwt(kind).with_lease(1_200).with("service_key", KEY).start();
        let game = Service::of(&server, KEY);
        let mut ann = login_with(&server, &token("ann", &["party:*"])).await;
        ann.does("room.join", json!({"room": ROOM})).await;
        let mut ann = Member { seen: Seen::of(&ann.does("room.members", json!({"room": ROOM})).await), player: ann };
        let mut bea = login_with(&server, &token("bea", &[])).await;
        bea.is_refused("room.join", json!({"room": ROOM}), "forbidden").await;
        let (status, put) = game.put(&format!("/v1/rooms/{ROOM}/members/bea"), json!({"meta": {"team": "red"}})).await;
        assert_eq!((status, &put["sessions"]), (200, &json!(1)));
        // She is told where she is, and has the right to be there.
        let snapshot = bea.wait_for_push("room").await;
        let mut bea = Member { seen: Seen::of(&snapshot), player: bea };
        assert_eq!(bea.seen.names(), "+ann +bea");
        ann.waits_for("+ann +bea").await;
        bea.player.does("room.join", json!({"room": ROOM, "meta": {"team": "blue"}})).await;
        bea.says(json!("hi")).await;
        assert_eq!(ann.hears().await, (json!("bea"), json!("hi")));
        // What a service did is durable, and what ann did is made so.
        ann.player.patch_durably(json!({"set": {"a": 1}})).await;
        server.kill9();
        server.restart();
        let game = Service::of(&server, KEY);
        let bea = bea.resumes(&server).await;
        assert_eq!(bea.player.ready["rooms"], json!([ROOM]));
        // Ann's shard may be loaded later than bea's and the room's: until then the roster is partial.
        until("both are members", async || {
            let (status, looked) = game.get(&format!("/v1/rooms/{ROOM}")).await;
            assert_eq!((status, &looked["room"]), (200, &json!(ROOM)), "{looked}");
            (looked["count"] == 2).then_some(())
        })
        .await;
        assert_eq!(game.delete(&format!("/v1/rooms/{ROOM}/members/bea")).await.0, 204);
        assert_eq!(game.delete(&format!("/v1/rooms/{ROOM}/members/bea")).await.0, 404);
        let mut bea = bea.player;
        loop {
            let push = bea.wait_for_push("room").await;
            if push["leaves"] == json!(["bea"]) {
                break;
            }
        }
        bea.is_refused("room.join", json!({"room": ROOM}), "forbidden").await;
        assert_eq!(game.put(&format!("/v1/rooms/{ROOM}/members/nobody"), json!({})).await.0, 404);
    }

    async fn a_service_looks_at_rooms_and_speaks_in_them(kind) {
        let server = Server::on(kind).with("service_key", KEY).with("rooms.page_members_max", 2).start();
        let game = Service::of(&server, KEY);
        let mut ann = Member::logs_in(&server, "ann").await;
        let mut bea = Member::logs_in(&server, "bea").await;
        let _cem = Member::logs_in(&server, "cem").await;
        let (_, page) = game.get(&format!("/v1/rooms/{ROOM}")).await;
        assert_eq!((page["members"].as_array().unwrap().len(), &page["cursor"]), (2, &json!("bea")));
        let (_, page) = game.get(&format!("/v1/rooms/{ROOM}?cursor=bea")).await;
        assert_eq!((&page["members"], &page["cursor"]), (&json!([{"player": "cem"}]), &json!(null)));
        let (_, count) = game.get(&format!("/v1/rooms/{ROOM}?count_only")).await;
        assert_eq!((&count["count"], &count["members"]), (&json!(3), &json!([])));
        assert_eq!(game.get("/v1/rooms/nobody's").await.1["count"], 0);
        assert_eq!(game.get(&format!("/v1/rooms/{}", "x".repeat(65))).await.0, 400);
        let (_, stats) = game.get("/v1/stats").await;
        assert_eq!(stats["rooms"], 1);
        let saying = json!({"data": {"round": 2}, "idempotency_key": "k"});
        let (_, said) = game.post(&format!("/v1/rooms/{ROOM}/messages"), saying.clone()).await;
        assert_eq!(said["delivered"], 3);
        assert_eq!(game.post(&format!("/v1/rooms/{ROOM}/messages"), saying).await.1, said);
        for member in [&mut ann, &mut bea] {
            let message = member.player.wait_for_push("message").await;
            assert_eq!((&message["service"], &message["data"]), (&json!("bootstrap"), &json!({"round": 2})));
            assert_eq!((&message["room"], &message["id"]), (&json!(ROOM), &said["id"]));
            member.player.pings().await;
            assert!(!member.player.was_told("message"));
        }
    }

    async fn a_service_cannot_overfill_a_room(kind) {
        let starting = Server::on(kind).with("service_key", KEY).with("rooms.members_max", 1);
        let server = starting.with("rooms.rooms_max", 1).start();
        let game = Service::of(&server, KEY);
        let (_ann, _bea) = (server.login("ann").await, server.login("bea").await);
        assert_eq!(game.put("/v1/rooms/a/members/ann", json!({})).await.0, 200);
        let (status, refused) = game.put("/v1/rooms/a/members/bea", json!({})).await;
        assert_eq!((status, &refused["code"]), (409, &json!("room_full")));
        let (status, refused) = game.put("/v1/rooms/b/members/bea", json!({})).await;
        assert_eq!((status, &refused["code"]), (503, &json!("overloaded")));
        let meta = json!({"meta": {"k": "x".repeat(600)}});
        assert_eq!(game.put("/v1/rooms/a/members/ann", meta).await.0, 413);
    }

    async fn the_rust_client_lives_in_rooms(kind) {
        let server = Server::on(kind).start();
        let of = |player: &'static str| Config::new(server.url(), move || format!("dev:{player}"));
        let ((ann, mut ann_hears), (bea, mut bea_hears)) = (Client::start(of("ann")), Client::start(of("bea")));
        ann_hears.ready().await.unwrap();
        bea_hears.ready().await.unwrap();
        let team = protocol::Value::Str("red".to_owned());
        ann.room_join(ROOM, Some([("team".to_owned(), team.clone())].into())).await.unwrap();
        let roster = bea.room_join(ROOM, None).await.unwrap();
        assert_eq!((roster.count, roster.members[0].meta.as_ref().unwrap()["team"] == team), (2, true));
        // What is said while her link is down is there when it is up again.
        ann.room_meta(ROOM, BTreeMap::new()).await.unwrap();
        bea.drop_link(DropKind::Cut, Duration::from_millis(300)).await.unwrap();
        ann.room_send(ROOM, protocol::Value::Int(7)).await.unwrap();
        let said = async {
            while let Some(event) = bea_hears.next().await {
                if let Happened::Push(Push::Message { message, .. }) = event.what {
                    return (message.player, message.room, message.data);
                }
            }
            panic!("the client has stopped");
        };
        let said = tokio::time::timeout(PATIENCE, said).await.unwrap();
        assert_eq!(said, (Some("ann".to_owned()), Some(ROOM.to_owned()), protocol::Value::Int(7)));
        assert_eq!(bea.room_members(ROOM, None, Some(0)).await.unwrap().count, 2);
        bea.room_leave(ROOM).await.unwrap();
        until("the room hears of it", async || {
            (ann.room_members(ROOM, None, None).await.unwrap().count == 1).then_some(())
        })
        .await;
    }

    async fn no_more_talk_waits_for_the_next_tick_than_a_room_may_hold(kind) {
        const MOST: usize = 4;
        const SAID: usize = 30;
        let starting = Server::on(kind).with("presence.tick_ms", 1_000).with("limits.room_send_burst", 1_000);
        let server = starting.with("rooms.messages_waiting_max", MOST).start();
        let mut ann = server.login("ann").await;
        ann.does("room.join", json!({"room": ROOM})).await;
        let mut asked = Vec::new();
        for n in 0..SAID {
            asked.push(ann.feed("room.send", json!({"room": ROOM, "data": n})).await);
        }
        ann.pings().await;
        let mut taken = 0;
        for reference in asked {
            match ann.answer(reference).await {
                Ok(_) => taken += 1,
                Err(refused) => assert_eq!((&refused["code"], &refused["temporary"]), (&json!("overloaded"), &json!(true))),
            }
        }
        // A tick may fall between them, and talk that finds none waiting goes at once; not as often as this.
        assert!((MOST..SAID).contains(&taken), "{taken}");
        for _ in 0..taken {
            ann.wait_for_push("message").await;
        }
        ann.does("room.send", json!({"room": ROOM, "data": "again"})).await;
    }

    async fn joins_and_talk_have_their_rates(kind) {
        // Of so many at once a second's allowance is a small part, and a pause of this machine gives back no more.
        const ALL: usize = 60;
        let starting = Server::on(kind).with("limits.room_burst", 2).with("limits.room_per_s", 1);
        let server = starting.with("limits.room_send_burst", 2).with("limits.room_send_per_s", 1).start();
        let mut ann = server.login("ann").await;
        let mut asked = [Vec::new(), Vec::new()];
        for n in 0..ALL / 2 {
            asked[0].push(ann.feed("room.join", json!({"room": format!("r{n}")})).await);
        }
        for n in 0..ALL / 2 {
            asked[1].push(ann.feed("room.send", json!({"room": "r0", "data": n})).await);
        }
        ann.pings().await;
        for references in asked {
            let mut answers = Vec::new();
            for reference in references {
                answers.push(ann.answer(reference).await.err().map_or(json!("ok"), |refused| refused["code"].clone()));
            }
            assert_eq!(answers[..2], ["ok", "ok"]);
            let refused = answers.iter().filter(|answer| *answer == "rate_limited").count();
            let taken = answers.iter().filter(|answer| *answer == "ok").count();
            assert!(refused > 0 && taken + refused == ALL / 2, "{answers:?}");
        }
    }
}

// How many rooms one node is home of.
on_both_stores! {
    async fn a_server_has_so_many_rooms(kind) {
        let server = Server::on(kind).with("rooms.rooms_max", 3).start();
        let (mut ann, mut bea) = (server.login("ann").await, server.login("bea").await);
        let join = |room: &str| json!({"room": room});
        ann.does("room.join", join("a")).await;
        ann.does("room.join", join("b")).await;
        bea.does("room.join", join("c")).await;
        assert_eq!(bea.is_refused("room.join", join("d"), "overloaded").await["temporary"], true);
        bea.does("room.join", join("a")).await;
        // A room that is left by everybody makes room for another.
        ann.does("room.leave", join("b")).await;
        ann.does("room.join", join("e")).await;
    }
}
