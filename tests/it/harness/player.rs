//! A player at the other end of one link, with a verb for each thing she may do or wait for. What the wire promises
//! about every push and every ending is checked here, in passing: numbers without a gap, `bye` before a close.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use super::detour::Detour;
use super::socket::{Encoding, Frame, Heard, Socket};

/// The body of an `error`.
pub(crate) type Refused = Value;

/// What a client keeps to come back with.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) session: String,
    pub(crate) ticket: String,
    pub(crate) last_seq: u64,
    pub(crate) stamp: Value,
    vers: HashMap<String, (u64, u64)>,
    sights: HashMap<String, Value>,
}

/// A player on one link.
pub(crate) struct Player {
    pub(crate) socket: Socket,
    /// How she comes home, where there are several nodes.
    detour: Option<Detour>,
    /// The body of the latest `ready`.
    pub(crate) ready: Value,
    pushes: VecDeque<Frame>,
    /// Answers that overtook the one she waited for.
    answers: HashMap<u64, Result<Value, Refused>>,
    last_reference: u32,
    last_seq: u64,
    /// The next number may leave a gap: `ready.missed` said so.
    seq_is_open: bool,
    stamp: Value,
    /// The latest `ver` she knows of each player.
    vers: HashMap<String, (u64, u64)>,
    /// The latest item that she was told of each player, by `watch` or by a push.
    sights: HashMap<String, Value>,
}

impl Player {
    /// A link without a session.
    pub(crate) async fn connect(url: &str, encoding: Encoding) -> Self {
        Self::over(Socket::open(url, encoding).await)
    }

    /// The same over a socket that is there already.
    pub(crate) fn over(socket: Socket) -> Self {
        Self::on_her_way(socket, None)
    }

    /// The same where the socket leads to the wrong node.
    pub(crate) fn on_her_way(socket: Socket, detour: Option<Detour>) -> Self {
        Self {
            socket,
            detour,
            ready: Value::Null,
            pushes: VecDeque::new(),
            answers: HashMap::new(),
            last_reference: 0,
            last_seq: 0,
            seq_is_open: false,
            stamp: Value::Null,
            vers: HashMap::new(),
            sights: HashMap::new(),
        }
    }

    /// Logs in with a development token.
    pub(crate) async fn login(&mut self, player: &str) {
        self.login_with(json!({"token": format!("dev:{player}")})).await;
    }

    /// Logs in; this must succeed.
    pub(crate) async fn login_with(&mut self, body: Value) {
        self.ask("login", body).await.expect("the login must succeed");
    }

    /// Takes a session up again; this must succeed.
    pub(crate) async fn resume(&mut self, credentials: &Credentials) {
        self.try_resume(credentials).await.expect("the resume must succeed");
    }

    pub(crate) async fn try_resume(&mut self, credentials: &Credentials) -> Result<(), Refused> {
        self.resumes_as(credentials, false).await
    }

    /// The same, carried to her home if that is another node.
    pub(crate) async fn try_resume_carried(&mut self, credentials: &Credentials) -> Result<(), Refused> {
        self.resumes_as(credentials, true).await
    }

    async fn resumes_as(&mut self, credentials: &Credentials, relay: bool) -> Result<(), Refused> {
        let Credentials { session, ticket, last_seq, stamp, vers, sights } = credentials;
        let mut body = json!({"session": session, "ticket": ticket, "last_seq": last_seq});
        if !stamp.is_null() {
            body["stamp"] = stamp.clone();
        }
        if relay {
            body["relay"] = json!(true);
        }
        self.last_seq = *last_seq;
        self.vers = vers.clone();
        self.sights = sights.clone();
        self.ask("resume", body).await.map(|_| ())
    }

    /// What she would come back with now.
    pub(crate) fn credentials(&self) -> Credentials {
        let word = |name: &str| self.ready[name].as_str().expect("a session").to_owned();
        Credentials {
            session: word("session"),
            ticket: word("ticket"),
            last_seq: self.last_seq,
            stamp: self.stamp.clone(),
            vers: self.vers.clone(),
            sights: self.sights.clone(),
        }
    }

    /// The connection breaks without a word; what she would come back with.
    pub(crate) fn drops(self) -> Credentials {
        self.credentials()
    }

    /// She closes the link with this code; what she would come back with.
    pub(crate) async fn closes(self, code: u16) -> Credentials {
        let credentials = self.credentials();
        self.socket.close(code).await;
        credentials
    }

    /// Sends a request without waiting; its `ref`.
    pub(crate) async fn send(&mut self, op: &str, body: Value) -> u64 {
        let reference = self.feed(op, body).await;
        self.socket.flush().await;
        reference
    }

    /// Prepares a request; all that are prepared go in one write with the next one that is sent.
    pub(crate) async fn feed(&mut self, op: &str, mut body: Value) -> u64 {
        self.last_reference += 1;
        if let Some(detour) = &mut self.detour {
            detour.says(&mut self.socket, op, self.last_reference, &mut body).await;
        }
        self.socket.feed(op, self.last_reference, &body).await;
        u64::from(self.last_reference)
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask(&mut self, op: &str, body: Value) -> Result<Value, Refused> {
        let reference = self.send(op, body).await;
        self.answer(reference).await
    }

    /// Waits for the answer to a request; pushes that come before are kept.
    pub(crate) async fn answer(&mut self, reference: u64) -> Result<Value, Refused> {
        self.answer_or_end(reference).await.unwrap_or_else(|code| {
            panic!("closed with {code:?} before the answer; before it came {:?}", self.pushes)
        })
    }

    /// Sends a request and waits for its answer, or for the end of the link.
    #[allow(dead_code, reason = "tests/it does, through this same file")]
    pub(crate) async fn ask_or_end(
        &mut self,
        op: &str,
        body: Value,
    ) -> Result<Result<Value, Refused>, Option<u16>> {
        let reference = self.send(op, body).await;
        self.answer_or_end(reference).await
    }

    async fn answer_or_end(&mut self, reference: u64) -> Result<Result<Value, Refused>, Option<u16>> {
        loop {
            if let Some(answer) = self.answers.remove(&reference) {
                return Ok(answer);
            }
            match self.hear().await {
                Heard::Frame(frame) if is_push(&frame) => self.pushes.push_back(frame),
                Heard::Frame(Frame { op, number, body }) => {
                    let answer = match op.as_str() {
                        "ok" | "ready" => Ok(body),
                        "error" => Err(body),
                        other => panic!("{other} is no answer"),
                    };
                    let before = self.answers.insert(number, answer);
                    assert_eq!(before, None, "two answers to {number}");
                }
                Heard::Closed(code) => return Err(code),
            }
        }
    }

    /// A request that must succeed.
    pub(crate) async fn does(&mut self, op: &str, body: Value) -> Value {
        let asked = format!("{op} {body}");
        self.ask(op, body).await.unwrap_or_else(|refused| panic!("{asked}: {refused}"))
    }

    /// A request that must be refused with this code.
    pub(crate) async fn is_refused(&mut self, op: &str, body: Value, code: &str) -> Refused {
        let asked = format!("{op} {body}");
        match self.ask(op, body).await {
            Err(refused) if refused["code"] == code => refused,
            other => panic!("{asked}: expected {code}, got {other:?}"),
        }
    }

    /// `state.patch`.
    pub(crate) async fn patch(&mut self, body: Value) -> Value {
        self.does("state.patch", body).await
    }

    /// `state.patch` that is durable when it returns.
    pub(crate) async fn patch_durably(&mut self, mut body: Value) -> Value {
        body["ack"] = json!("durable");
        let done = self.patch(body).await;
        assert_eq!(done["ack"], "durable");
        done
    }

    /// `state.get` of everything.
    pub(crate) async fn state(&mut self) -> Value {
        self.does("state.get", json!({})).await["state"].clone()
    }

    /// `presence.set` with a status alone.
    pub(crate) async fn shows(&mut self, status: &str) -> Value {
        self.does("presence.set", json!({"status": status})).await
    }

    /// Asks again while somebody is `unknown`: where her home is on its way, that is the answer for a moment.
    async fn told_all(&mut self, op: &str, body: Value) -> Value {
        let deadline = std::time::Instant::now() + super::patience::PATIENCE;
        loop {
            let answer = self.does(op, body.clone()).await;
            if answer["unknown"] == json!([]) {
                return answer;
            }
            assert!(std::time::Instant::now() < deadline, "{answer}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// `watch`; the snapshot's items, in the order of `players`.
    pub(crate) async fn watches(&mut self, players: &[&str]) -> Vec<Value> {
        let answer = self.told_all("watch", json!({"players": players})).await;
        self.learn(&answer["presences"]);
        let items = answer["presences"].as_array().unwrap();
        assert_eq!(items.len(), players.len(), "{answer}");
        let item_of = |player: &&str| items.iter().find(|item| item["player"] == *player).unwrap().clone();
        players.iter().map(item_of).collect()
    }

    /// `presence.get` of one player.
    pub(crate) async fn looks_at(&mut self, player: &str) -> Value {
        let answer = self.told_all("presence.get", json!({"players": [player]})).await;
        answer["presences"][0].clone()
    }

    /// `send`.
    pub(crate) async fn tells(&mut self, player: &str, data: Value) -> Value {
        self.does("send", json!({"player": player, "data": data})).await
    }

    /// Shows that the link lives, and hears whatever was said before.
    pub(crate) async fn pings(&mut self) {
        self.does("ping", json!({})).await;
    }

    /// Whether her link still answers, or has been closed.
    pub(crate) async fn is_alive(&mut self) -> bool {
        let reference = self.send("ping", json!({})).await;
        loop {
            match self.hear().await {
                Heard::Frame(frame) if is_push(&frame) => self.pushes.push_back(frame),
                Heard::Frame(frame) if frame.number == reference => return true,
                Heard::Frame(_) => {}
                Heard::Closed(_) => return false,
            }
        }
    }

    /// The next push of any kind, but for the occasional `durable` and for presence that is no news.
    pub(crate) async fn next_push(&mut self) -> Frame {
        loop {
            let mut push = match self.pushes.pop_front() {
                Some(push) => push,
                None => match self.hear().await {
                    Heard::Frame(frame) if is_push(&frame) => frame,
                    other => panic!("a push was expected, got {other:?}"),
                },
            };
            if push.op == "presence" {
                let items = push.body["items"].as_array_mut().unwrap();
                items.retain(|item| self.is_news(item));
                let is_empty = items.is_empty();
                self.learn(&push.body["items"]);
                if is_empty {
                    continue;
                }
            }
            if push.op != "durable" {
                return push;
            }
        }
    }

    /// Whether a presence item is later than what she knows: a client drops any other.
    fn is_news(&self, item: &Value) -> bool {
        let (player, ver) = ver_of(item);
        self.vers.get(player).is_none_or(|known| ver > *known)
    }

    fn learn(&mut self, items: &Value) {
        for item in items
            .as_array()
            .into_iter()
            .flatten()
            .filter(|item| self.is_news(item))
            .cloned()
            .collect::<Vec<_>>()
        {
            let (player, ver) = ver_of(&item);
            self.vers.insert(player.to_owned(), ver);
        }
    }

    /// The next push, which must be of this kind; its body.
    pub(crate) async fn expect_push(&mut self, op: &str) -> Value {
        let push = self.next_push().await;
        assert_eq!(push.op, op, "{push:?}");
        push.body
    }

    /// The next push must tell the presence of this player, and of nobody else; the item.
    pub(crate) async fn expect_presence(&mut self, player: &str) -> Value {
        let body = self.expect_push("presence").await;
        let items = body["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "{body}");
        assert_eq!(items[0]["player"], player, "{body}");
        items[0].clone()
    }

    /// A change that is durable as soon as the store takes it: it is sent again until then.
    #[allow(dead_code, reason = "tests/it does, through this same file")]
    pub(crate) async fn until_durable(&mut self, mut change: Value) -> Value {
        change["ack"] = json!("durable");
        let deadline = std::time::Instant::now() + super::patience::PATIENCE;
        loop {
            match self.ask("state.patch", change.clone()).await {
                Ok(done) => return done,
                Err(refused) => {
                    assert_eq!(refused["temporary"], true, "{refused}");
                    assert!(std::time::Instant::now() < deadline, "{refused}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Waits until she is told that she is served so; what she is told then.
    #[allow(dead_code, reason = "tests/it does, through this same file")]
    pub(crate) async fn until_mode(&mut self, mode: &str) -> Value {
        loop {
            let told = self.wait_for_push("mode").await;
            if told["mode"] == mode {
                return told;
            }
        }
    }

    /// The next push of this kind, whatever comes before it; its body.
    pub(crate) async fn wait_for_push(&mut self, op: &str) -> Value {
        if let Some(at) = self.pushes.iter().position(|push| push.op == op) {
            return self.pushes.remove(at).unwrap().body;
        }
        loop {
            match self.hear().await {
                Heard::Frame(frame) if frame.op == op => return frame.body,
                Heard::Frame(frame) if is_push(&frame) => self.pushes.push_back(frame),
                Heard::Frame(_) => {}
                Heard::Closed(code) => panic!("closed with {code:?} before a push {op}"),
            }
        }
    }

    /// Whether a push of this kind has come and was not looked at.
    pub(crate) fn was_told(&self, op: &str) -> bool {
        self.pushes.iter().any(|push| push.op == op)
    }

    /// Whether news of somebody's presence have come and were not looked at.
    pub(crate) fn was_told_news(&self) -> bool {
        let items = self.pushes.iter().filter_map(|push| push.body["items"].as_array()).flatten();
        items.into_iter().any(|item| self.is_news(item))
    }

    /// The server must close the link with this code, and say so before; the body of `bye`.
    pub(crate) async fn expect_close(&mut self, code: u16) -> Value {
        let mut last = self.pushes.pop_back();
        loop {
            match self.hear().await {
                Heard::Frame(frame) => last = Some(frame),
                Heard::Closed(closed) => {
                    let bye = last.filter(|frame| frame.op == "bye");
                    assert_eq!(closed, Some(code), "after {bye:?}");
                    let bye = bye.expect("bye before the close").body;
                    assert_eq!(bye["code"], code);
                    let resumable = (code != 1000 && code < 4250) || code == 4507;
                    assert_eq!(bye["resume"], resumable, "{bye}");
                    return bye;
                }
            }
        }
    }

    /// The link must end, however; the code, if one was given.
    pub(crate) async fn expect_end(&mut self) -> Option<u16> {
        loop {
            if let Heard::Closed(code) = self.hear().await {
                return code;
            }
        }
    }

    /// The next frame or the end, with what every frame must keep to.
    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            let heard = self.socket.hear().await;
            match (&heard, &mut self.detour) {
                (Heard::Frame(frame), Some(detour)) if frame.op == "redirect" => {
                    detour.is_sent(&mut self.socket, &frame.body).await;
                    continue;
                }
                (Heard::Frame(frame), _) => self.note(frame),
                (Heard::Closed(_), _) => {}
            }
            return heard;
        }
    }

    fn note(&mut self, frame: &Frame) {
        match (&mut self.detour, frame.op.as_str()) {
            (Some(detour), "ready") => detour.arrives(),
            (Some(detour), "ok" | "error") => detour.answered(frame.number),
            _ => {}
        }
        match frame.op.as_str() {
            "ready" => {
                self.ready = frame.body.clone();
                self.stamp = frame.body["stamp"].clone();
                self.seq_is_open = frame.body["missed"] == true;
                if self.seq_is_open {
                    // Snapshots follow: what she knew does not count.
                    self.vers.clear();
                    self.sights.clear();
                }
                if frame.body["resumed"] == false {
                    self.last_seq = 0;
                }
            }
            "ok" if frame.body["stamp"].is_array() => self.stamp = frame.body["stamp"].clone(),
            "presence" | "room" | "message" => {
                let seq = frame.number;
                assert!(seq == self.last_seq + 1 || self.seq_is_open, "{seq} after {}", self.last_seq);
                self.seq_is_open = false;
                self.last_seq = seq;
                self.see(&frame.body["items"]);
            }
            "bye" | "mode" | "rolled_back" | "durable" => assert_eq!(frame.number, 0, "{frame:?}"),
            _ => {}
        }
    }

    /// Takes items as a client does: a later one replaces.
    pub(crate) fn see(&mut self, items: &Value) {
        for item in items.as_array().into_iter().flatten() {
            let (player, ver) = ver_of(item);
            if self.sights.get(player).is_none_or(|seen| ver > ver_of(seen).1) {
                self.sights.insert(player.to_owned(), item.clone());
            }
        }
    }

    /// How somebody looks, as far as she was told.
    #[allow(dead_code, reason = "tests/it does, through this same file")]
    pub(crate) fn sight_of(&self, player: &str) -> Option<&Value> {
        self.sights.get(player)
    }

    /// Waits until somebody's presence is as it should be, looking again and again.
    pub(crate) async fn sees(&mut self, player: &str, status: &str) -> Value {
        let deadline = std::time::Instant::now() + super::patience::PATIENCE;
        loop {
            let item = self.looks_at(player).await;
            if item["status"] == status {
                return item;
            }
            assert!(std::time::Instant::now() < deadline, "{player} never shows as {status}: {item}");
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
    }
}

fn ver_of(item: &Value) -> (&str, (u64, u64)) {
    let number = |at: usize| item["ver"][at].as_u64().expect("a ver");
    (item["player"].as_str().expect("a player"), (number(0), number(1)))
}

fn is_push(frame: &Frame) -> bool {
    matches!(
        frame.op.as_str(),
        "presence" | "room" | "message" | "moved" | "bye" | "mode" | "rolled_back" | "durable"
    )
}
