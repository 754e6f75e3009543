//! `avalanche` and `stale`: what nodes keep near of each other's players. Ten thousand entries that were kept within a
//! second must not run out within one; and after a write nobody may be answered with what was before for longer than a letter
//! between two nodes takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt as _, TryStreamExt as _};
use protocol::client::{Client, Config};
use protocol::request::{PresenceSet, Status};
use protocol::{Text, Value};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Mutex;

use super::asking::{Asker, runtime};
use super::cores::Cores;
use super::figure::{Findings, Goal, Rounds, quantile};
use super::process::{Hearth, Persistence, Redis};
use super::{BenchError, progress};

const NEAR: &str = "hearth_near_reads_total";
/// So old may be what is told: older than anything is kept.
const ANY_AGE_MS: u64 = 3_600_000;

fn nodes(cores: Cores, redis: &Redis, count: usize) -> Result<Vec<Hearth>, BenchError> {
    let settings = [("session.pending_ms", "3600000"), ("cluster.member_ttl_ms", "1500")];
    (0..count).map(|_| Hearth::start(cores, redis, &settings)).collect()
}

/// Entries that are kept in one second.
const KEPT: usize = 10_000;
/// For how long they are watched: longer than any is fresh.
const WATCHED: Duration = Duration::from_secs(17);
const LOOK_EVERY: Duration = Duration::from_millis(250);
const PLAYERS_A_QUERY: usize = 1_000;
/// Players who come and go at a time.
const VISITORS_MAX: usize = 64;

pub(super) fn avalanche(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let mut most =
        Rounds::of("entries that ran out within one second, at most", "% of them", "", Goal::Never(25.0));
    let mut all = Rounds::of("entries that ran out in all", "% of them", "", Goal::None);
    let mut fill = Rounds::of("until all were kept", "ms", "", Goal::None);
    let redis = Redis::start(cores, Persistence::None)?;
    let servers = nodes(cores, &redis, 2)?;
    let asker = Asker::new()?;
    runtime()?.block_on(async {
        asker.until_all_know_all(&servers).await?;
        let [here, _] = &servers[..] else { return Ok(()) };
        for round in 1..=rounds {
            progress(&format!("avalanche, round {round} of {rounds}"));
            // About half of them are at home here, and are not kept near.
            let players: Vec<String> = (0..2 * KEPT).map(|number| format!("kept-{round}-{number}")).collect();
            come_and_go(here, &players).await?;
            let loaded = || asker.metric(here.services, NEAR, "outcome=\"loaded\"");
            let look = || async {
                for players in players.chunks(PLAYERS_A_QUERY) {
                    asker.query(here.services, players, ANY_AGE_MS).await?;
                }
                Ok::<_, BenchError>(())
            };
            let unseen = || asker.metric(here.services, NEAR, "outcome=\"negative\"");
            let (before, unseen_before, began) = (loaded().await?, unseen().await?, Instant::now());
            look().await?;
            let (kept, mut last) = (loaded().await? - before, loaded().await?);
            fill.ours(began.elapsed().as_secs_f64() * 1e3);
            if kept < KEPT as f64 / 2.0 {
                return Err(BenchError::Void(format!("only {kept} of the players are at home elsewhere")));
            }
            let mut ran_out = Vec::new();
            while began.elapsed() < WATCHED {
                tokio::time::sleep(LOOK_EVERY).await;
                look().await?;
                let now = loaded().await?;
                ran_out.push((began.elapsed(), now - last));
                last = now;
            }
            let within = |end: Duration| {
                let second =
                    ran_out.iter().filter(|(at, _)| *at <= end && *at + Duration::from_secs(1) > end);
                second.map(|(_, count)| count).sum::<f64>()
            };
            let worst = ran_out.iter().map(|(at, _)| within(*at)).fold(0.0, f64::max);
            if unseen().await? > unseen_before {
                return Err(BenchError::Void(
                    "of some players nothing is known: those are kept for less long".into(),
                ));
            }
            most.ours(worst * 100.0 / kept);
            // In this time each runs out once, and those that ran out early perhaps once more.
            all.ours(ran_out.iter().map(|(_, count)| count).sum::<f64>() * 100.0 / kept);
        }
        Ok(())
    })?;
    Ok(Findings {
        bench: "avalanche",
        method: "two nodes; one is asked for 20,000 players who were here, about half of whom are at home at the other, and then for \
                 all of them again four times a second; entries that it has to load anew are counted (defaults: fresh for 10 s ± 50 %)",
        rows: [most, all, fill].into_iter().map(Rounds::row).collect(),
        notes: Vec::new(),
    })
}

/// Lets players log in and out again: of each it is known when she was seen last.
async fn come_and_go(node: &Hearth, players: &[String]) -> Result<(), BenchError> {
    let at = format!("ws://{}/v1/connect", node.clients);
    let visits = players.iter().map(|player| {
        let (at, token) = (at.clone(), format!("dev:{player}"));
        async move {
            let (client, mut events) = Client::start(Config::new(at, move || token.clone()));
            events.ready().await.ok_or_else(|| BenchError::Void("a player was not let in".into()))?;
            client.logout().await.map_err(|error| BenchError::Void(error.to_string()))
        }
    });
    futures_util::stream::iter(visits).buffer_unordered(VISITORS_MAX).try_collect().await
}

/// Players who change, on links of their own.
const WRITERS: usize = 150;
/// Players in one query, and queries under way at each node.
const READ_AT_ONCE: usize = 100;
const READERS_A_NODE: usize = 2;
/// Reads and writes of one round; five rounds are a million.
const OPERATIONS: u64 = 200_000;
/// One in so many queries asks the homes themselves: the round trip that staleness is compared with.
const FROM_HOME: u32 = 8;
/// Between two changes of one player.
const WRITE_EVERY: Duration = Duration::from_millis(20);

/// What is known of one player: when her changes were acked, the first of them first.
#[derive(Debug, Default)]
struct Acked(Mutex<Vec<Instant>>);

impl Acked {
    fn note(&self, at: Instant) {
        if let Ok(mut acked) = self.0.lock() {
            acked.push(at);
        }
    }

    /// For how long an answer had been overtaken when its question was asked: the first change that it does not show, and that
    /// was acked before. `None`: it had not been.
    fn overdue(&self, shown: usize, asked_at: Instant) -> Option<Duration> {
        let acked = self.0.lock().ok()?;
        asked_at.checked_duration_since(*acked.get(shown)?).filter(|overdue| !overdue.is_zero())
    }
}

/// What the checker has seen.
#[derive(Debug, Default)]
struct Seen {
    reads: u64,
    /// Answers that had been overtaken, and by how much (ms).
    overdue: Vec<f64>,
    /// Round trips to the homes (ms).
    trips: Vec<f64>,
    /// Players of whom nobody could tell in time.
    unknown: u64,
    /// Answers of the homes themselves that had been overtaken: there must be none.
    wrong: u64,
}

/// One round's players and what they do.
struct Play {
    names: Vec<String>,
    acked: Vec<Acked>,
    operations: AtomicU64,
    is_over: AtomicBool,
}

pub(super) fn stale(cores: Cores, rounds: u32) -> Result<Findings, BenchError> {
    let trip = "the longest round trip to a home, of queries that ask it";
    let mut longest =
        Rounds::of("an answer older than an acked write, at most by", "ms", trip, Goal::Ratio(1.0));
    let mut share = Rounds::of("answers older than an acked write", "% of the reads", "", Goal::None);
    let mut typical = Rounds::of("a round trip to a home, median", "ms", "", Goal::None);
    let mut wrong = Rounds::of("answers of homes older than an acked write", "answers", "", Goal::Never(0.0));
    let mut reads = Rounds::of("reads", "players", "", Goal::None);
    let mut unknown = Rounds::of("of these, who could not be told in time", "players", "", Goal::None);
    let mut writes = Rounds::of("writes", "changes", "", Goal::None);
    let redis = Redis::start(cores, Persistence::None)?;
    let servers = nodes(cores, &redis, 3)?;
    let asker = Asker::new()?;
    let mut notes = Vec::new();
    runtime()?.block_on(async {
        asker.until_all_know_all(&servers).await?;
        for round in 1..=rounds {
            progress(&format!("stale, round {round} of {rounds}"));
            let play = Arc::new(Play {
                names: (0..WRITERS).map(|number| format!("writer-{round}-{number}")).collect(),
                acked: (0..WRITERS).map(|_| Acked::default()).collect(),
                operations: AtomicU64::new(0),
                is_over: AtomicBool::new(false),
            });
            let mut seen = played(&play, &servers, &asker, round).await?;
            let acked = play.acked.iter().map(|acked| acked.0.lock().map_or(0, |acked| acked.len()));
            writes.ours(acked.sum::<usize>() as f64);
            reads.ours(seen.reads as f64);
            unknown.ours(seen.unknown as f64);
            share.ours(seen.overdue.len() as f64 * 100.0 / seen.reads as f64);
            longest.ours(quantile(&mut seen.overdue, 1.0).max(0.0));
            longest.floor(quantile(&mut seen.trips, 1.0));
            typical.ours(quantile(&mut seen.trips, 0.5));
            wrong.ours(seen.wrong as f64);
        }
        for (what, name, label) in [
            ("answered from near", NEAR, "outcome=\"fresh\""),
            ("asked of homes to be kept", NEAR, "outcome=\"loaded\""),
            ("told to readers as changed", "hearth_near_invalidations_total", "why=\"change\""),
            ("brought by homes and overtaken on their way", "hearth_near_overtaken_total", ""),
        ] {
            let mut sum = 0.0;
            for node in &servers {
                sum += asker.metric(node.services, name, label).await?;
            }
            notes.push(format!("{what}, all rounds: {sum}"));
        }
        Ok::<_, BenchError>(())
    })?;
    Ok(Findings {
        bench: "stale",
        method: "three nodes, 150 players who change their activity up to 50 times a second, each answer of 100 of them from each node \
                 judged by what had been acked when it was asked for; 200,000 reads and writes a round (five rounds: a million)",
        rows: [longest, share, typical, wrong, reads, unknown, writes].into_iter().map(Rounds::row).collect(),
        notes,
    })
}

async fn played(play: &Arc<Play>, servers: &[Hearth], asker: &Asker, round: u32) -> Result<Seen, BenchError> {
    let mut clients = Vec::new();
    for (number, name) in play.names.iter().enumerate() {
        let token = format!("dev:{name}");
        let at = servers
            .get(number % servers.len())
            .map_or(String::new(), |node| format!("ws://{}/v1/connect", node.clients));
        let (client, mut events) = Client::start(Config::new(at, move || token.clone()));
        if events.ready().await.is_none() {
            return Err(BenchError::Void("a player was not let in".into()));
        }
        clients.push((client, events));
    }
    let writers = clients.iter_mut().enumerate().map(|(number, (client, events))| async move {
        let writes = write(play, number, client);
        tokio::pin!(writes);
        loop {
            tokio::select! {
                wrote = &mut writes => return wrote,
                event = events.next() => if event.is_none() {
                    return Err(BenchError::Void("a player was thrown out".into()));
                },
            }
        }
    });
    let readers = (0..servers.len() * READERS_A_NODE).filter_map(|number| {
        let node = servers.get(number % servers.len())?;
        Some(read(play, node, asker, SmallRng::seed_from_u64(u64::from(round) * 1_000 + number as u64)))
    });
    let reading = async {
        let seen = try_join_all(readers).await;
        play.is_over.store(true, Ordering::Relaxed);
        seen
    };
    let (wrote, seen) = tokio::join!(join_all(writers), reading);
    wrote.into_iter().collect::<Result<(), BenchError>>()?;
    let mut all = Seen::default();
    for seen in seen? {
        all.reads += seen.reads;
        all.wrong += seen.wrong;
        all.unknown += seen.unknown;
        all.overdue.extend(seen.overdue);
        all.trips.extend(seen.trips);
    }
    Ok(all)
}

async fn write(play: &Play, number: usize, client: &Client) -> Result<(), BenchError> {
    let mut n = 0;
    while !play.is_over.load(Ordering::Relaxed) {
        n += 1;
        let activity = BTreeMap::from([(Text::from("n"), Value::Int(n))]);
        let status = Status::Playing;
        let change =
            PresenceSet { status, activity: Some(activity), visibility: None, ack: None, cseq: None };
        client.presence_set(change).await.map_err(|error| BenchError::Void(error.to_string()))?;
        if let Some(acked) = play.acked.get(number) {
            acked.note(Instant::now());
        }
        play.operations.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(WRITE_EVERY).await;
    }
    Ok(())
}

async fn read(play: &Play, node: &Hearth, asker: &Asker, mut rng: SmallRng) -> Result<Seen, BenchError> {
    let mut seen = Seen::default();
    while play.operations.load(Ordering::Relaxed) < OPERATIONS {
        let from_home = rng.random_range(0..FROM_HOME) == 0;
        let first = rng.random_range(0..WRITERS);
        let asked: Vec<usize> = (first..first + READ_AT_ONCE).map(|number| number % WRITERS).collect();
        let names: Vec<String> = asked.iter().filter_map(|number| play.names.get(*number).cloned()).collect();
        let asked_at = Instant::now();
        let told = asker.query_some(node.services, &names, if from_home { 0 } else { ANY_AGE_MS }).await?;
        if from_home {
            seen.trips.push(asked_at.elapsed().as_secs_f64() * 1e3);
        }
        seen.unknown += told.unknown.len() as u64;
        let is_told =
            |number: &&usize| play.names.get(**number).is_some_and(|name| !told.unknown.contains(name));
        for (number, item) in asked.iter().filter(is_told).zip(&told.presences) {
            let shown = item.activity.as_ref().and_then(|activity| activity.get("n")?.as_u64()).unwrap_or(0);
            let Some((acked, name)) = play.acked.get(*number).zip(play.names.get(*number)) else { continue };
            if *name != item.player {
                return Err(BenchError::Void("an answer is in another order than its question".into()));
            }
            if let Some(overdue) = acked.overdue(usize::try_from(shown).unwrap_or(usize::MAX), asked_at) {
                seen.wrong += u64::from(from_home);
                if !from_home {
                    seen.overdue.push(overdue.as_secs_f64() * 1e3);
                }
            }
        }
        seen.reads += READ_AT_ONCE as u64;
        play.operations.fetch_add(READ_AT_ONCE as u64, Ordering::Relaxed);
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_overdue_by_the_first_change_that_it_does_not_show() {
        let (acked, began) = (Acked::default(), Instant::now());
        let at = |ms: u64| began + Duration::from_millis(ms);
        [10, 20, 30].into_iter().for_each(|ms| acked.note(at(ms)));
        let overdue = |shown, ms| acked.overdue(shown, at(ms)).map(|overdue| overdue.as_millis());
        assert_eq!(overdue(0, 5), None, "nothing was acked yet");
        assert_eq!((overdue(0, 15), overdue(0, 35)), (Some(5), Some(25)), "since the first that is missing");
        assert_eq!((overdue(1, 15), overdue(1, 35)), (None, Some(15)));
        assert_eq!(overdue(3, 99), None);
        assert_eq!(overdue(4, 99), None, "it may show what was not acked yet");
    }
}
