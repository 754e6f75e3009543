//! One player of the demo: she logs in, plays with her party, chats, loses her link now and then, logs out and comes
//! back. `demo` starts her. Says only what any client could say, and never waits in vain: what cannot be sent is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use protocol::client::{Client, Config, DropKind, Event, Happened, Outcome};
use protocol::request::{Ack, Players, PresenceSet, Request, RoomJoin, RoomSend, StatePatch, Status};
use protocol::{Text, Value};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Tokens;
use super::figures::Figures;
use super::names::{friends_of, name_of};
use super::party::{Phase, party_of, phase, rooms_of};
use crate::tasks::Tasks;

/// Milliseconds until a player first comes, so that they do not all come at once.
const ARRIVES_MS: std::ops::Range<u64> = 0..5_000;
/// Milliseconds between two things that she does.
const ACTS_MS: std::ops::Range<u64> = 800..3_500;
/// Milliseconds of one visit, and between two.
const STAYS_MS: std::ops::Range<u64> = 40_000..180_000;
const RESTS_MS: std::ops::Range<u64> = 3_000..15_000;
/// Milliseconds without a link, when she loses it.
const LOST_MS: std::ops::Range<u64> = 300..4_000;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(3);
const DEVICES: [&str; 4] = ["pc", "mobile", "console", "web"];
const WORDS: [&str; 8] =
    ["hi", "gg", "one more?", "brb", "well played", "wait for me", "let us go", "who is in?"];

/// One player.
pub(super) struct Bot {
    number: u32,
    players: u32,
    url: String,
    tokens: Tokens,
    figures: Arc<Figures>,
    began: Instant,
    is_up: bool,
    /// What her friends were told last.
    told: Option<Phase>,
}

impl Bot {
    pub(super) fn new(number: u32, players: u32, url: String, tokens: Tokens, figures: Arc<Figures>) -> Self {
        Self { number, players, url, tokens, figures, began: Instant::now(), is_up: false, told: None }
    }

    /// Lives until the house stops.
    pub(super) async fn live(mut self, tasks: Tasks) {
        let mut pause = some_of(ARRIVES_MS);
        loop {
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                () = sleep(pause) => {}
            }
            self.visit(&tasks).await;
            pause = some_of(RESTS_MS);
        }
    }

    /// One session, from login to logout.
    async fn visit(&mut self, tasks: &Tasks) {
        let (client, mut events, driver) = Client::prepare(self.config());
        tasks.spawn("demo client", driver);
        self.told = None;
        let leaves_at = Instant::now() + some_of(STAYS_MS);
        let mut acts_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = tasks.stopping() => break,
                event = events.next() => match event {
                    Some(event) => self.hear(&event, &client),
                    None => return self.down(),
                },
                () = sleep_until(leaves_at) => break,
                () = sleep_until(acts_at) => {
                    if self.is_up {
                        self.act(&client).await;
                    }
                    acts_at = Instant::now() + some_of(ACTS_MS);
                }
            }
        }
        self.say(&client, Request::Logout);
        let goodbye = async { while events.next().await.is_some() {} };
        let _ = timeout(GOODBYE, goodbye).await;
        self.down();
    }

    fn config(&self) -> Config {
        let (tokens, name, rooms) = (Arc::clone(&self.tokens), name_of(self.number), rooms_of(self.number));
        let token = move || tokens(&name, rooms.to_vec());
        let device = DEVICES.choose(&mut rand::rng()).map(|device| (*device).to_owned());
        Config { device, ..Config::new(self.url.clone(), token) }
    }

    fn hear(&mut self, event: &Event, client: &Client) {
        match &event.what {
            Happened::Ready { ready, .. } => {
                if !self.is_up {
                    self.is_up = true;
                    self.figures.players.fetch_add(1, Relaxed);
                }
                if ready.resumed {
                    self.figures.resumes.fetch_add(1, Relaxed);
                } else {
                    self.settle(client);
                }
            }
            Happened::Answered(answered) => {
                if matches!(answered.outcome, Outcome::Ok(_)) {
                    self.figures.acks.fetch_add(1, Relaxed);
                }
            }
            Happened::Push(_) => {
                self.figures.pushes.fetch_add(1, Relaxed);
            }
            Happened::Down(_) | Happened::Ended { .. } => self.down(),
            Happened::Turned { .. }
            | Happened::Redirected(_)
            | Happened::SeqGap { .. }
            | Happened::Unreachable { .. } => {}
        }
    }

    fn down(&mut self) {
        if std::mem::take(&mut self.is_up) {
            self.figures.players.fetch_sub(1, Relaxed);
        }
    }

    /// What a new session begins with: friends and rooms.
    fn settle(&mut self, client: &Client) {
        let friends = friends_of(self.number, self.players);
        if !friends.is_empty() {
            let players = friends.into_iter().map(|friend| Text::from(name_of(friend))).collect();
            self.say(client, Request::Watch(Players { players }));
        }
        for room in rooms_of(self.number) {
            self.say(client, Request::RoomJoin(RoomJoin { room: room.into(), meta: None, cseq: None }));
        }
        self.told = None;
    }

    /// Does one thing: what her party does comes first.
    async fn act(&mut self, client: &Client) {
        let now = phase(party_of(self.number), self.began.elapsed());
        if self.told != Some(now) {
            return self.follow(now, client);
        }
        match die(100) {
            0..55 => self.earn("steps", Ack::Applied, client),
            55..70 => self.show_mood(now, client),
            70..85 => self.chat(client),
            85..90 => {
                let ways = [DropKind::Reset, DropKind::Cut, DropKind::Abandon];
                let how = ways.choose(&mut rand::rng()).copied().unwrap_or(DropKind::Cut);
                let _ = client.drop_link(how, some_of(LOST_MS)).await;
            }
            _ => {}
        }
    }

    /// Into a match, or out of it.
    fn follow(&mut self, now: Phase, client: &Client) {
        match now {
            Phase::Match { number, map } => {
                let activity = BTreeMap::from([
                    (Text::from("map"), Value::Str(map.to_owned())),
                    (Text::from("match"), Value::Int(i64::try_from(number).unwrap_or(i64::MAX))),
                    (Text::from("party"), Value::Int(party_of(self.number).into())),
                ]);
                self.present(Status::Playing, Some(activity), client);
            }
            Phase::Lobby => {
                if self.told.is_some() {
                    // What a match brought must not be lost.
                    self.earn("matches", Ack::Durable, client);
                }
                self.present(Status::Online, Some(BTreeMap::new()), client);
            }
        }
        self.told = Some(now);
    }

    /// Between matches she is not always at the keyboard.
    fn show_mood(&self, now: Phase, client: &Client) {
        if now == Phase::Lobby {
            let moods = [Status::Online, Status::Away, Status::Busy];
            let mood = *moods.choose(&mut rand::rng()).unwrap_or(&Status::Online);
            self.present(mood, None, client);
        }
    }

    fn chat(&self, client: &Client) {
        // More is said in a party than in a hall.
        let [party, hall] = rooms_of(self.number);
        let room = if die(4) == 0 { hall } else { party };
        let word = WORDS.choose(&mut rand::rng()).copied().unwrap_or("hi");
        let data = Value::Str(word.to_owned());
        self.say(client, Request::RoomSend(RoomSend { room: room.into(), data, cseq: None }));
    }

    fn earn(&self, what: &'static str, ack: Ack, client: &Client) {
        let incr = Some(BTreeMap::from([(Text::from(what), 1)]));
        self.say(client, Request::StatePatch(StatePatch { incr, ack: Some(ack), ..StatePatch::default() }));
    }

    fn present(&self, status: Status, activity: Option<BTreeMap<Text<'static>, Value>>, client: &Client) {
        let presence = PresenceSet { status, activity, visibility: None, ack: None, cseq: None };
        self.say(client, Request::PresenceSet(presence));
    }

    /// Says it if it can be said now.
    fn say(&self, client: &Client, request: Request<'static>) {
        let _ = client.try_submit(0, request, std::time::Instant::now());
    }
}

/// One of so many sides.
fn die(sides: u32) -> u32 {
    rand::rng().random_range(0..sides)
}

fn some_of(range_ms: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rand::rng().random_range(range_ms))
}
