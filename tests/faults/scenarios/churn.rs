//! Players who join and leave rooms all the time, each on a link of her own, and what is then true of each room. Used by F13.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::harness::socket::{Encoding, Heard, Socket};

/// Players, and how often each joins or leaves: two hundred a second in all.
pub(crate) const MEMBERS: usize = 80;
const STEP_INTERVAL: Duration = Duration::from_millis(400);
/// Few, so that many meet in each.
pub(crate) const ROOMS: usize = 12;
/// A request may wait for a home that does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What all of them do, and what they have done.
pub(crate) struct Churn {
    goes_on: watch::Sender<bool>,
    counts: Arc<Counts>,
    members: Vec<watch::Receiver<Member>>,
    _lives: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
    links: AtomicU64,
}

/// What one of them knows of herself.
#[derive(Debug, Clone, Default)]
struct Member {
    /// The rooms that she is in, by what she was answered.
    rooms: BTreeSet<usize>,
    /// She has all her answers, and does nothing until all go on.
    rests: bool,
}

pub(crate) fn player(number: usize) -> String {
    format!("member-{number}")
}

pub(crate) fn room(number: usize) -> String {
    format!("party:{number}")
}

impl Churn {
    /// They begin at these nodes, and go to their homes.
    pub(crate) fn begin(urls: &[String], seed: u64) -> Self {
        let (goes_on, _) = watch::channel(true);
        let counts = Arc::new(Counts::default());
        let (mut members, mut lives) = (Vec::new(), JoinSet::new());
        for number in 0..MEMBERS {
            let (told, member) = watch::channel(Member::default());
            members.push(member);
            let life = Life {
                number,
                urls: urls.to_vec(),
                rng: SmallRng::seed_from_u64(seed.wrapping_add(number as u64)),
                asked: 1,
                cseq: 0,
                me: Member::default(),
                told,
                counts: Arc::clone(&counts),
                goes_on: goes_on.subscribe(),
            };
            lives.spawn(life.live());
        }
        Self { goes_on, counts, members, _lives: lives }
    }

    /// Joins and leaves that were answered, and that were refused for now; links that were made.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let Counts { answered, refused, links } = &*self.counts;
        (answered.load(Relaxed), refused.load(Relaxed), links.load(Relaxed))
    }

    /// All rest as soon as they have their answers; who is then in each room.
    pub(crate) async fn rests(&mut self) -> Vec<BTreeSet<String>> {
        self.goes_on.send_replace(false);
        let mut truth = vec![BTreeSet::new(); ROOMS];
        for (number, member) in self.members.iter_mut().enumerate() {
            let member = member.wait_for(|member| member.rests).await.expect("a member who lives");
            for room in &member.rooms {
                truth[*room].insert(player(number));
            }
        }
        truth
    }

    /// All go on.
    pub(crate) fn goes_on(&self) {
        self.goes_on.send_replace(true);
    }
}

struct Life {
    number: usize,
    urls: Vec<String>,
    rng: SmallRng,
    asked: u32,
    cseq: u64,
    me: Member,
    told: watch::Sender<Member>,
    counts: Arc<Counts>,
    goes_on: watch::Receiver<bool>,
}

impl Life {
    async fn live(mut self) {
        loop {
            let mut socket = self.logs_in().await;
            self.counts.links.fetch_add(1, Relaxed);
            let mut steps = interval(STEP_INTERVAL);
            steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                steps.tick().await;
                if !*self.goes_on.borrow() {
                    self.tells(true);
                    let rests = async { drop(self.goes_on.wait_for(|goes_on| *goes_on).await) };
                    tokio::select! {
                        () = ends(&mut socket) => break,
                        () = rests => {}
                    }
                    self.tells(false);
                }
                if !self.joins_or_leaves(&mut socket).await {
                    break;
                }
            }
            // A new session begins in no room.
            self.tells(false);
        }
    }

    fn tells(&mut self, rests: bool) {
        self.me.rests = rests;
        self.told.send_replace(self.me.clone());
    }

    /// A new session, at her home.
    async fn logs_in(&mut self) -> Socket {
        let encoding = [Encoding::Json, Encoding::MessagePack][self.number % 2];
        let body = json!({"token": format!("dev:{}", player(self.number))});
        let mut at = self.number;
        loop {
            let mut url = self.urls[at % self.urls.len()].clone();
            for _ in 0..3 {
                let mut socket = Socket::open(&url, encoding).await;
                socket.send("login", 1, &body).await;
                match socket.hear_within(ANSWER_WITHIN).await {
                    Some(Heard::Frame(answer)) if answer.op == "redirect" => {
                        answer.body["url"].as_str().unwrap().clone_into(&mut url);
                    }
                    Some(Heard::Frame(answer)) if answer.op == "ready" => {
                        (self.cseq, self.me.rooms) = (0, BTreeSet::new());
                        return socket;
                    }
                    _ => break,
                }
            }
            at += 1;
            sleep(AGAIN_AFTER).await;
        }
    }

    /// One step; whether the link stands.
    async fn joins_or_leaves(&mut self, socket: &mut Socket) -> bool {
        let number = self.rng.random_range(0..ROOMS);
        let is_in = self.me.rooms.contains(&number);
        let op = if is_in { "room.leave" } else { "room.join" };
        self.asked += 1;
        let reference = self.asked;
        socket.send(op, reference, &json!({"room": room(number), "cseq": self.cseq + 1})).await;
        let Some(answer) = answer(socket, reference).await else { return false };
        let is_done = answer.0 == "ok" || answer.1["applied"] == true;
        if is_done {
            self.cseq += 1;
            self.counts.answered.fetch_add(1, Relaxed);
            if is_in {
                self.me.rooms.remove(&number)
            } else {
                self.me.rooms.insert(number)
            };
        } else {
            // The number is not used up: the next one uses it.
            assert_eq!(answer.1["temporary"], true, "{op}: {}", answer.1);
            self.counts.refused.fetch_add(1, Relaxed);
        }
        true
    }
}

/// Hears on to the end.
async fn ends(socket: &mut Socket) {
    let forever = Duration::from_secs(3_600);
    while let Some(Heard::Frame(_)) = socket.hear_within(forever).await {}
}

/// The answer; none if the link ends.
async fn answer(socket: &mut Socket, reference: u32) -> Option<(String, Value)> {
    loop {
        match socket.hear_within(ANSWER_WITHIN).await {
            Some(Heard::Frame(frame)) if matches!(frame.op.as_str(), "ok" | "error") => {
                if frame.number == u64::from(reference) {
                    return Some((frame.op, frame.body));
                }
            }
            Some(Heard::Frame(_)) => {}
            Some(Heard::Closed(_)) => return None,
            None => panic!("neither an answer nor an end"),
        }
    }
}
