//! One bot: a player with a schedule. It acts when the schedule says so, hears what comes, and writes both down.
//! Started by the runner; `words` says what it says; `end` is how it leaves. Never judges.

mod end;
mod words;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use protocol::client::{Answered, Client, Config, Event, Events, Happened, OkBody, Outcome, Push};
use protocol::request::{Ack, Request};
use protocol::{Stamp, client};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::board::{Board, Told};
use crate::figures::{self, PRESENCE_TO_WATCHER, SAY_TO_MEMBER};
use crate::history::{Claim, Drop, Entry, Notice, Opened, Operation, Value, What};
use crate::live::OVER_A_LOST_LINK;
use crate::schedule::{Action, Away, Schedule};

pub use words::{MESSAGE, PRESENCE, bot as number_of, player as name_of};

/// A session is forgotten so long after its time at the latest, and a little more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(37);

/// What a bot has in hand.
#[derive(Debug)]
pub struct Bot {
    number: u32,
    board: Arc<Board>,
    schedule: Schedule,
    subjects: Vec<u32>,
    log: Vec<Entry>,
    link: Option<Held>,
    session: Option<Arc<str>>,
    /// The latest stamp seen in this session.
    stamp: Option<Stamp>,
    /// Grows with whatever may take a stamp back: a new session, a rollback that is told.
    line: u64,
    /// Grows whenever the bot loses or opens a link, as in the figures: what was asked under another value has waited for a link.
    links: u64,
    /// Pushes that are still to come of those sent again, or snapshots after lost ones: old news.
    replayed: u64,
    /// Operations without an outcome.
    waiting: HashMap<u64, Waiting>,
    next_id: u64,
    next_k: u64,
    next_presence: u64,
    next_word: u64,
    /// The highest change of presence that was acked in this life.
    presence_acked: u64,
    /// The latest presence seen of each subject.
    seen: HashMap<u32, u64>,
    resume_ms: u64,
    /// When the bot began to want a session on a link; `None` while it has one.
    wants_since: Option<Instant>,
    /// How long it means to stay away.
    stay: Duration,
    is_leaving: bool,
    /// It has logged in once, or tried to.
    has_come: bool,
    /// For good.
    is_sent_away: bool,
}

/// An operation without an outcome.
#[derive(Debug)]
struct Waiting {
    operation: Operation,
    due: Instant,
    /// The line in which it was asked, and the latest stamp seen by then.
    line: u64,
    stamp: Option<Stamp>,
    /// The bot's `links` then.
    links: u64,
}

/// A running client.
#[derive(Debug)]
struct Held {
    client: Client,
    events: Events,
    /// Ends with the bot.
    _driver: JoinSet<()>,
}

impl Bot {
    /// A bot that has not logged in.
    #[must_use]
    pub fn new(number: u32, board: Arc<Board>) -> Self {
        Self {
            number,
            schedule: Schedule::new(&board.plan, board.options.common.seed, number),
            subjects: board.plan.subjects(number),
            board,
            log: Vec::new(),
            link: None,
            session: None,
            stamp: None,
            line: 0,
            links: 0,
            replayed: 0,
            waiting: HashMap::new(),
            next_id: 1,
            next_k: 1,
            next_presence: 1,
            next_word: 1,
            presence_acked: 0,
            seen: HashMap::new(),
            resume_ms: u64::MAX,
            wants_since: None,
            stay: Duration::ZERO,
            is_leaving: false,
            has_come: false,
            is_sent_away: false,
        }
    }

    /// Lives through the run; returns what it saw.
    pub async fn run(mut self) -> Vec<Entry> {
        let board = Arc::clone(&self.board);
        let fallen = board.fallen();
        tokio::pin!(fallen);
        loop {
            // Who has nothing more to do is there until the end, or stays out until then.
            let due = self.schedule.due();
            let at = due.map_or_else(|| board.end(), |due| board.began + due);
            tokio::select! {
                biased;
                () = &mut fallen => break,
                event = hear(&mut self.link) => self.take(event),
                () = sleep_until(at.into()) => match due {
                    Some(_) => self.act().await,
                    None => break,
                },
            }
        }
        self.last_words().await;
        self.log
    }

    /// Makes a client, which logs in by itself. It was due to: a storm that comes late is not a faster one.
    fn start(&mut self, due: Instant) {
        let options = &self.board.options;
        let token = format!("{}{}", options.common.token_prefix, words::player(options, self.number));
        let mut config = Config::new(String::new(), move || token.clone());
        config.urls.clone_from(&options.common.url);
        // Each begins with another one of several.
        let first = usize::try_from(self.number).unwrap_or(0).checked_rem(config.urls.len());
        config.urls.rotate_left(first.unwrap_or(0));
        config.encoding = self.board.plan.encoding.of(self.number);
        config.device = Some("pc".to_owned());
        let (client, events, driver) = Client::prepare(config);
        let mut task = JoinSet::new();
        task.spawn(driver);
        self.link = Some(Held { client, events, _driver: task });
        self.wants_since = Some(due);
        (self.is_leaving, self.has_come) = (false, true);
    }

    /// Does what is due.
    async fn act(&mut self) {
        let Some((due, action)) = self.schedule.take() else { return };
        let due = self.board.began + due;
        match action {
            Action::Write { durable } => {
                self.write(if durable { Ack::Durable } else { Ack::Applied }, due);
            }
            Action::Presence { status } => {
                self.present(status, due);
            }
            Action::Read => self.read(due),
            Action::Say => self.say(due),
            Action::Drop { how, away } => self.drop_link(how, away).await,
            Action::Forget => self.forget(due),
            Action::Enter => self.start(due),
            Action::Leave => self.leave().await,
            Action::Relogin => self.leave_and_return().await,
        }
    }

    fn write(&mut self, ack: Ack, due: Instant) {
        let k = self.next_k;
        self.next_k += 1;
        self.ask(Operation::Write { k, ack }, words::write(self.board.mark, k, ack), due);
    }

    fn present(&mut self, status: protocol::request::Status, due: Instant) {
        let k = self.next_presence;
        self.next_presence += 1;
        self.ask(Operation::Presence { k, status }, words::presence(self.board.mark, k, status), due);
        self.board.tells(self.number, Told::Presence, k, Some(due).filter(|_| self.wants_since.is_none()));
    }

    fn say(&mut self, due: Instant) {
        let Some(room) = self.board.plan.room_of(self.number) else { return };
        let s = self.next_word;
        self.next_word += 1;
        let request = words::say(&self.board.options, self.board.mark, room, s);
        self.ask(Operation::Say { s }, request, due);
        self.board.tells(self.number, Told::Word, s, Some(due).filter(|_| self.wants_since.is_none()));
    }

    fn read(&mut self, due: Instant) {
        // A read that is sent in a later session than it was meant for must not ask for that one's stamp.
        let at_least = self.stamp.filter(|_| self.wants_since.is_none());
        self.ask(Operation::Read, words::read(at_least), due);
    }

    fn watch(&mut self) {
        if self.subjects.is_empty() {
            return;
        }
        let request = words::watch(&self.board.options, &self.subjects);
        self.ask(Operation::Watch { subjects: self.subjects.clone() }, request, Instant::now());
    }

    fn join(&mut self) {
        if let Some(room) = self.board.plan.room_of(self.number) {
            let request = words::join(&self.board.options, room);
            self.ask(Operation::Join { room }, request, Instant::now());
        }
    }

    /// Hands a request to the client and writes it down. One that finds too many waiting is shed, and counted.
    fn ask(&mut self, operation: Operation, request: Request<'static>, due: Instant) {
        let Some(held) = &self.link else { return };
        let id = self.next_id;
        if held.client.try_submit(id, request, due).is_err() {
            self.board.shed.fetch_add(1, Relaxed);
            return;
        }
        self.next_id += 1;
        let (line, links, stamp) = (self.line, self.links, self.stamp.filter(|_| self.wants_since.is_none()));
        self.waiting.insert(id, Waiting { operation: operation.clone(), due, line, stamp, links });
        self.note(self.board.us(due), What::Invoke { id, operation });
    }

    async fn drop_link(&mut self, how: Drop, away: Away) {
        if self.wants_since.is_some() {
            // It has none.
            return;
        }
        let left = self.board.end().saturating_duration_since(Instant::now());
        let resume = Duration::from_millis(self.resume_ms.min(86_400_000));
        let (wish, fits) = match away {
            Away::For(stay) => (stay, true),
            Away::OfResume(part) => (resume.mul_f64(part), resume.mul_f64(2.0 * part) < left),
            Away::UntilForgotten => (resume + FORGOTTEN_AFTER, resume + FORGOTTEN_AFTER * 2 < left),
        };
        let stay = if fits && !self.board.is_called_in() { wish } else { Duration::from_millis(500) };
        self.stay = stay;
        if let Some(held) = &self.link {
            let _ = held.client.drop_link(words::drop_kind(how), stay).await;
        }
    }

    fn note(&mut self, at_us: u64, what: What) {
        let (process, session) = (self.number, self.session.clone());
        self.log.push(Entry { at_us, process, session, what });
    }

    fn notice(&mut self, at: Instant, notice: Notice) {
        self.links += u64::from(matches!(notice, Notice::Ready(_) | Notice::Down { .. }));
        self.note(self.board.us(at), What::Notice { notice });
    }

    /// Takes one event in.
    fn take(&mut self, event: Option<Event>) {
        let Some(Event { at, what }) = event else {
            self.link = None;
            return;
        };
        if is_word(&what) {
            self.board.answers();
        }
        match what {
            Happened::Ready { ready, presented } => {
                self.opened(at, *ready, presented);
            }
            Happened::Turned { error, presented } => {
                let (claim, lost) = (presented.map(|p| claim(&p)), error.lost == Some(true));
                self.notice(at, Notice::Turned { code: error.code, claim, lost });
            }
            Happened::Answered(answered) => self.answered(at, &answered),
            Happened::Push(push) => self.pushed(at, push),
            Happened::SeqGap { expected, came } => {
                let what = format!("push {came} came where {expected} was due");
                self.board.live.breaks(self.number, what);
                self.notice(at, Notice::SeqGap { expected, came });
            }
            Happened::Down(down) => {
                if down.on_purpose.is_none() && down.code.is_none() && !self.is_leaving {
                    self.board.fails(at, &down.reason);
                }
                self.offline();
                match down.on_purpose {
                    Some(_) => self.wants_since = Some(at + self.stay),
                    None => self.stay = Duration::ZERO,
                }
                let stay_ms = u64::try_from(self.stay.as_millis()).unwrap_or(u64::MAX);
                let on_purpose = down.on_purpose.map(words::dropped);
                self.board.live.closes(figures::end_of_link(down.code, on_purpose.is_some()));
                self.notice(at, Notice::Down { code: down.code, on_purpose, stay_ms });
            }
            Happened::Redirected(redirect) => {
                self.notice(at, Notice::Redirected { node: redirect.node });
            }
            Happened::Unreachable { reason } => self.board.fails(at, &reason),
            Happened::Ended { code, reason } => {
                if !self.is_leaving {
                    self.is_sent_away = true;
                    self.board.sends_away(reason.clone());
                }
                self.offline();
                self.link = None;
                self.notice(at, Notice::Ended { code, wanted: self.is_leaving, reason });
            }
        }
    }

    fn offline(&mut self) {
        if self.wants_since.is_none() {
            self.board.online.fetch_sub(1, Relaxed);
            // What waits for a new link is not the server's way to others.
            self.board.tells(self.number, Told::Presence, 0, None);
            self.board.tells(self.number, Told::Word, 0, None);
        }
        self.wants_since.get_or_insert_with(Instant::now);
    }

    fn opened(&mut self, at: Instant, ready: protocol::reply::Ready, presented: Option<client::Presented>) {
        self.session = Some(ready.session.as_str().into());
        self.stamp = Some(ready.stamp);
        self.resume_ms = ready.resume_ms;
        let since = self.wants_since.take();
        if since.is_some() {
            self.board.online.fetch_add(1, Relaxed);
        }
        self.stay = Duration::ZERO;
        let took = since.map_or(Duration::ZERO, |since| at.saturating_duration_since(since));
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.board.live.took(if ready.resumed { "resume" } else { "login" }, took_us);
        let options = &self.board.options;
        // Whoever has fallen out of the room comes in again.
        let own = self.board.plan.room_of(self.number).map(|room| words::room(options, room));
        let is_in_room = own.is_none_or(|own| ready.rooms.iter().flatten().any(|room| *room == own));
        self.line += u64::from(!ready.resumed || ready.rolled_back.is_some());
        let watching: Vec<u32> =
            ready.watching.iter().flatten().filter_map(|player| words::bot(options, player)).collect();
        let opened = Opened {
            resumed: ready.resumed,
            stamp: ready.stamp,
            cseq: ready.cseq,
            node: ready.node,
            resume_ms: ready.resume_ms,
            heartbeat_ms: ready.heartbeat_ms,
            took_us,
            replayed: ready.replayed.unwrap_or(0),
            missed: ready.missed == Some(true),
            rolled_back: ready.rolled_back,
            watching,
            claim: presented.map(|presented| claim(&presented)),
        };
        self.settle_in(at, opened);
        if !is_in_room {
            self.join();
        }
    }

    /// After `ready`: a new session reads first and watches anew; an old one watches whom it forgot.
    fn settle_in(&mut self, at: Instant, opened: Opened) {
        let resumed = opened.resumed;
        let kept: HashSet<u32> = opened.watching.iter().copied().collect();
        self.replayed = u64::from(opened.replayed) + u64::from(opened.missed);
        self.notice(at, Notice::Ready(Box::new(opened)));
        if !resumed {
            self.presence_acked = 0;
            self.read(Instant::now());
            self.watch();
            return;
        }
        self.board.resumes.fetch_add(1, Relaxed);
        if !self.subjects.iter().all(|subject| kept.contains(subject)) {
            self.watch();
        }
    }

    fn answered(&mut self, at: Instant, answered: &Answered) {
        let id = answered.tag;
        let Some(Waiting { operation, due, line, stamp: before, links }) = self.waiting.remove(&id) else {
            return;
        };
        self.board.answered.fetch_add(1, Relaxed);
        let cseq = answered.cseq;
        let what = match &answered.outcome {
            Outcome::Unknown(_) => What::Unknown { id, cseq },
            Outcome::Refused(error) => {
                self.board.refused.fetch_add(1, Relaxed);
                self.board.live.refuses(error.code.name());
                What::Fail { id, cseq, code: error.code, applied: error.applied == Some(true) }
            }
            Outcome::Ok(body) => {
                let stamp = body.stamp();
                let took = at.saturating_duration_since(due);
                let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                let kind = if links == self.links { figures::kind(&operation) } else { OVER_A_LOST_LINK };
                self.board.live.took(kind, took_us);
                let is_judged = matches!(
                    operation,
                    Operation::Write { .. } | Operation::Presence { .. } | Operation::Read
                );
                if let (Some(stamp), Some(before)) =
                    (stamp, before.filter(|_| is_judged && line == self.line))
                    && stamp < before
                {
                    let what =
                        format!("{} at {stamp:?} was asked after {before:?}", figures::kind(&operation));
                    self.board.live.breaks(self.number, what);
                }
                self.stamp = self.stamp.max(stamp);
                let (ack, prov, dup) = match body {
                    OkBody::Changed(changed) => {
                        (changed.ack, changed.prov == Some(true), changed.dup == Some(true))
                    }
                    _ => (None, false, false),
                };
                if let Operation::Presence { k, .. } = operation {
                    self.presence_acked = self.presence_acked.max(k);
                }
                let value = words::value(&self.board.options, self.board.mark, body);
                if let Value::Presences(items) = &value {
                    self.saw(items.iter().map(|item| (item.subject, item.k)));
                }
                What::Ok { id, cseq, stamp, ack, prov, dup, value }
            }
        };
        self.note(self.board.us(at), what);
    }

    fn saw(&mut self, items: impl Iterator<Item = (u32, u64)>) {
        for (subject, k) in items {
            let latest = self.seen.entry(subject).or_default();
            *latest = k.max(*latest);
        }
    }

    fn pushed(&mut self, at: Instant, push: Push) {
        let mark = self.board.mark;
        let notice = match push {
            Push::Presence { seq, items, .. } => {
                self.board.pushes.fetch_add(1, Relaxed);
                let items = words::items(&self.board.options, mark, &items);
                for item in &items {
                    self.heard_of(item.subject, Told::Presence, item.k, at);
                }
                self.saw(items.iter().map(|item| (item.subject, item.k)));
                self.replayed = self.replayed.saturating_sub(1);
                Notice::Presence { seq, items }
            }
            Push::Message { seq, message, repeat } => {
                self.board.pushes.fetch_add(1, Relaxed);
                let from = message.player.as_ref().filter(|_| message.room.is_some());
                let from = from.and_then(|player| words::bot(&self.board.options, player));
                // A word of another run is a message that is none of ours.
                if let Some((from, s)) = from.zip(words::word(mark, &message.data)) {
                    self.heard_of(from, Told::Word, s, at);
                    self.replayed = self.replayed.saturating_sub(1);
                    self.notice(at, Notice::Heard { seq, from, s, repeat });
                    return;
                }
                self.replayed = self.replayed.saturating_sub(1);
                Notice::Message { seq, m: words::message(mark, &message.data), id: message.id, repeat }
            }
            Push::RolledBack(lost) => {
                self.stamp = lost.to;
                let lost = protocol::reply::Rollback { from: lost.from, to: lost.to, cseq: lost.cseq };
                self.notice(at, Notice::RolledBack(lost));
                self.line += 1;
                // Watches and the room may be gone with the rest.
                self.watch();
                self.join();
                return;
            }
            Push::Durable(durable) => Notice::Durable { stamp: durable.stamp, cseq: durable.cseq },
            Push::Mode(changed) => Notice::Mode { mode: format!("{:?}", changed.mode).to_lowercase() },
            Push::Moved(moved) => Notice::Moved { node: moved.node },
            Push::Room { .. } | Push::Bye(_) => return,
        };
        self.notice(at, notice);
    }
}

impl Bot {
    /// For whoever watches the run: the way of a change that is the subject's latest.
    fn heard_of(&self, subject: u32, told: Told, number: u64, at: Instant) {
        let kind = if told == Told::Presence { PRESENCE_TO_WATCHER } else { SAY_TO_MEMBER };
        let is_new = self.replayed == 0
            && (told == Told::Word || self.seen.get(&subject).is_none_or(|seen| *seen < number));
        if let Some(us) = self.board.told_after_us(subject, told, number, at).filter(|_| is_new && number > 0)
        {
            self.board.live.took(kind, us);
        }
    }
}

/// Whether a server has said something.
const fn is_word(what: &Happened) -> bool {
    match what {
        Happened::Down(down) => down.code.is_some(),
        Happened::Unreachable { .. } => false,
        Happened::Ended { code, .. } => code.is_some(),
        Happened::Answered(answered) => !matches!(answered.outcome, Outcome::Unknown(_)),
        _ => true,
    }
}

/// The next event; never, while there is no client.
async fn hear(link: &mut Option<Held>) -> Option<Event> {
    match link {
        Some(held) => held.events.next().await,
        None => std::future::pending().await,
    }
}

fn claim(presented: &client::Presented) -> Claim {
    let ms =
        |away: Option<Duration>| away.map_or(0, |away| u64::try_from(away.as_millis()).unwrap_or(u64::MAX));
    Claim {
        stamp: presented.stamp,
        away_ms: ms(presented.away),
        away_at_least_ms: ms(presented.away_at_least),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Options;

    #[tokio::test]
    async fn a_login_counts_from_when_it_was_due() {
        let options =
            Options::try_parse_from(["load", "steady", "--players", "2", "--url", "ws://127.0.0.1:1"]);
        let board = Arc::new(Board::new(options.unwrap()));
        let mut bot = Bot::new(0, Arc::clone(&board));
        assert_eq!(bot.schedule.due(), Some(Duration::ZERO));
        // The machine is busy.
        tokio::time::sleep(Duration::from_millis(20)).await;
        bot.act().await;
        assert_eq!(bot.wants_since, Some(board.began));
    }

    #[tokio::test]
    async fn what_waited_for_a_link_is_told_apart_at_once_as_in_the_report() {
        let options = Options::try_parse_from(["load", "steady", "--players", "2"]);
        let board = Arc::new(Board::new(options.unwrap()));
        let mut bot = Bot::new(0, Arc::clone(&board));
        let due = Instant::now();
        let waits = |links| Waiting { operation: Operation::Read, due, line: 0, stamp: None, links };
        bot.waiting.extend([(1, waits(0)), (2, waits(1))]);
        bot.notice(due, Notice::Down { code: None, on_purpose: None, stay_ms: 0 });
        for tag in [1, 2] {
            let timing = client::Timing { due, sent: Some(due), done: due, sends: 1 };
            let outcome = Outcome::Ok(OkBody::Empty);
            let op = protocol::request::Op::StateGet;
            bot.answered(Instant::now(), &Answered { tag, op, cseq: None, timing, outcome });
        }
        let rows = board.live.look().rows;
        let counts: Vec<_> = rows.iter().map(|row| (row.kind, row.count)).collect();
        assert_eq!(counts, [(OVER_A_LOST_LINK, 1), ("read", 1)]);
    }

    #[tokio::test]
    async fn old_news_that_is_sent_again_is_no_delay() {
        let options = Options::try_parse_from(["load", "steady", "--players", "2"]);
        let board = Arc::new(Board::new(options.unwrap()));
        let mut bot = Bot::new(0, Arc::clone(&board));
        board.tells(1, Told::Presence, 5, Some(board.began));
        bot.replayed = 1;
        bot.heard_of(1, Told::Presence, 5, Instant::now());
        assert!(board.live.look().rows.is_empty());
        bot.replayed = 0;
        bot.heard_of(1, Told::Presence, 5, Instant::now());
        assert_eq!(board.live.look().rows.len(), 1);
    }
}
