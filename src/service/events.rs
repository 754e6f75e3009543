//! `GET /v1/events`: what happens to sessions and presences, of all shards, as server-sent events, and what rings at any
//! node beside it. One task a consumer reads the store on its behalf, never more than one answer ahead of what its socket
//! takes: whoever is slow falls behind in the store, where players do not notice. What is said to one is `following`'s and
//! `alarms`', how it is said and to how many is `consumers`'.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use protocol::ErrorCode;
use protocol::reply::ErrorBody;
use serde::Deserialize;
use tokio::time::Instant;

use super::consumers::{Consumer, Over};
use super::door::Reader;
use super::following::{Chunk, Follower};
use super::problem::Problem;
use super::{Service, alarms, checkpoint};
use crate::clock;
use crate::home::{EVENT_SHARDS_MAX, EventPlace, EventsRead, HomeError};
use crate::ids::ShardId;
use crate::wire::RETRY_AFTER_MS;

/// Where a consumer begins that wants all there is.
const OLDEST: &str = "oldest";
/// How often the store is looked at when nothing was there: what other nodes wrote is found so late at most.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What this node wrote is found sooner, but not more often than this.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A look at all shards takes at most a part of the time as small as this: thousands of them are looked at less often.
const LOOK_SHARE: u32 = 10;
/// ... and never more rarely than this.
const LOOK_RARELY: Duration = Duration::from_secs(2);
/// How often a checkpoint is told while there is news.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// How often something is said at least, so that nobody between the two ends takes the connection for dead.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long the store is left alone that did not answer.
const STORE_AGAIN: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
pub(super) struct Asked {
    after: Option<String>,
}

/// `GET /v1/events`
pub(super) async fn follow(
    State(service): State<Arc<Service>>,
    _: Reader,
    asked_with: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(asked) = asked.map_err(|refused| Problem::bad_request(refused.body_text()))?;
    // What an EventSource says when it comes back is newer than the address that it was made with.
    let last_heard =
        asked_with.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let (named, after) = match last_heard {
        Some(text) => ("Last-Event-ID", Some(text)),
        None => ("after", asked.after.as_deref()),
    };
    let shards = usize::from(service.home.placement().shards());
    let claimed = match after {
        None => None,
        Some(OLDEST) => Some(vec![EventPlace::START; shards]),
        Some(text) => Some(
            checkpoint::read(text, service.settings.cluster_mark, shards)
                .map_err(|refused| Problem::bad_request(format!("{named}: {refused}")))?,
        ),
    };
    let place = service.consumers.enter().ok_or_else(|| {
        let told = "as many follow the events of this node as may";
        Problem::from(ErrorBody::new(ErrorCode::Overloaded, told).after(RETRY_AFTER_MS))
    })?;
    let last = service.last_events(shards).await;
    let (follower, first) = match claimed {
        // Where the stream begins must be known of every shard: what happened before it is not told.
        None => {
            let places = last?.into_iter().map(|(_, place)| place).collect::<Option<_>>();
            (Follower::at(places.ok_or_else(unknown_beginning)?), Chunk::default())
        }
        Some(claimed) => {
            let mut follower = Follower::at(claimed);
            // Who stands somewhere is let in while the store is away, too: it is compared with what there is when that answers.
            let nothing = || service.home.placement().all().map(|shard| (shard, None)).collect();
            let first = follower.compare(last.unwrap_or_else(|_| nothing()));
            (follower, first)
        }
    };
    let (consumer, heard) = Consumer::new(Arc::clone(&service), asked_with, place);
    let now = Instant::now();
    let following = Following {
        service: Arc::clone(&service),
        consumer: Arc::new(consumer),
        follower,
        told_at: now,
        silent_asked_at: now,
        took: Duration::ZERO,
    };
    service.counter.spawn("events", following.run(first));
    let body = stream::unfold(heard, async |mut heard| {
        let said: Option<Bytes> = heard.recv().await;
        said.map(|said| (Ok::<_, std::convert::Infallible>(said), heard))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // A proxy that gathers answers would keep the events to itself.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

impl Service {
    /// The last event's place in every shard whose server answers.
    async fn last_events(&self, shards: usize) -> Result<Vec<(ShardId, Option<EventPlace>)>, HomeError> {
        let all: Vec<_> = self.home.placement().all().collect();
        let mut last = Vec::with_capacity(shards);
        for part in all.chunks(EVENT_SHARDS_MAX) {
            let places = self.home.events_last(part.to_vec()).await?;
            last.extend(part.iter().copied().zip(places));
        }
        Ok(last)
    }
}

fn unknown_beginning() -> Problem {
    let told = "a part of the store does not answer: it is not known where the events of its shards begin";
    ErrorBody::new(ErrorCode::StoreUnavailable, told).after(RETRY_AFTER_MS).into()
}

/// The task of one consumer.
struct Following {
    service: Arc<Service>,
    consumer: Arc<Consumer>,
    follower: Follower,
    /// When a checkpoint was told.
    told_at: Instant,
    /// When the shards were asked again whose server had not answered.
    silent_asked_at: Instant,
    /// How long the store took for the last look.
    took: Duration,
}

/// What one look at the shards came to.
#[derive(Default)]
struct Look {
    /// How long ago the oldest event that it found had happened.
    lag_ms: u64,
    /// More is there already.
    has_more: bool,
    /// It found something, or the shards that answer are not those of the look before.
    has_news: bool,
}

impl Following {
    async fn run(mut self, first: Chunk) {
        let stop = self.service.counter.clone();
        tokio::select! {
            biased;
            () = stop.stopping() => {}
            _ = self.tell(first) => {}
        }
    }

    /// Events and alarms beside each other: these do not wait for the store.
    async fn tell(&mut self, first: Chunk) -> Result<(), Over> {
        let (service, consumer) = (Arc::clone(&self.service), Arc::clone(&self.consumer));
        consumer.say(first).await?;
        self.tell_checkpoint(0, false).await?;
        tokio::select! {
            biased;
            over = alarms::follow(&service, &consumer) => over,
            over = self.follow() => over,
        }
    }

    async fn follow(&mut self) -> Result<(), Over> {
        let mut written = self.service.home.events_written();
        let mut news_untold = false;
        loop {
            written.mark_unchanged();
            let Look { lag_ms, has_more, has_news } = self.look().await?;
            news_untold |= has_news;
            if self.follower.is_silent() {
                self.comment("the store does not answer").await?;
                self.consumer.pause(STORE_AGAIN).await?;
                continue;
            }
            if news_untold && self.told_at.elapsed() >= CHECKPOINT_EVERY
                || self.told_at.elapsed() >= HEARTBEAT
            {
                self.tell_checkpoint(lag_ms, has_more).await?;
                news_untold = false;
            }
            if has_more {
                continue;
            }
            self.consumer.pause((self.took * LOOK_SHARE).clamp(LOOK_AGAIN, LOOK_RARELY)).await?;
            // A checkpoint that is due is not waited for longer than that.
            let due =
                if news_untold { CHECKPOINT_EVERY.saturating_sub(self.told_at.elapsed()) } else { HEARTBEAT };
            let rest = LOOK_EVERY.saturating_sub(LOOK_AGAIN).min(due);
            tokio::select! {
                biased;
                over = self.consumer.gone() => return Err(over),
                _ = written.changed() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Looks at all shards once and says what is there. Those whose server did not answer are left alone for a while: nobody
    /// waits for them.
    async fn look(&mut self) -> Result<Look, Over> {
        let mut look = Look::default();
        let silent_before = self.follower.silent().clone();
        let asks_silent = !silent_before.is_empty() && self.silent_asked_at.elapsed() >= STORE_AGAIN;
        if asks_silent {
            self.silent_asked_at = Instant::now();
            self.compare_rest().await?;
        }
        self.took = Duration::ZERO;
        for part in 0..self.follower.parts() {
            self.consumer.admit()?;
            let asked = self.follower.part(part, asks_silent);
            if asked.is_empty() {
                continue;
            }
            let began = Instant::now();
            let read = self.service.home.events_after(asked.clone()).await.unwrap_or_else(|_| {
                let unanswered = asked.iter().map(|(shard, _)| *shard).collect();
                EventsRead { unanswered, ..EventsRead::default() }
            });
            // Not what the consumer takes: who reads slowly is not looked for less often for that. Nor what a server took that
            // does not answer.
            if read.unanswered.is_empty() {
                self.took += began.elapsed();
            }
            let chunk = self.follower.take(&asked, read);
            look.lag_ms = look.lag_ms.max(chunk.age_ms(clock::now().unix_ms));
            look.has_more |= chunk.has_more;
            look.has_news |= !chunk.is_empty();
            self.consumer.say(chunk).await?;
        }
        look.has_news |= *self.follower.silent() != silent_before;
        self.consumer.lags(look.lag_ms);
        Ok(look)
    }

    /// Compares the places of shards that did not answer when the consumer came.
    async fn compare_rest(&mut self) -> Result<(), Over> {
        for shards in self.follower.uncompared().chunks(EVENT_SHARDS_MAX) {
            let Ok(places) = self.service.home.events_last(shards.to_vec()).await else { continue };
            let chunk = self.follower.compare(shards.iter().copied().zip(places));
            self.consumer.say(chunk).await?;
        }
        Ok(())
    }

    /// Says something that is for people, if nothing has been said for long.
    async fn comment(&mut self, comment: &str) -> Result<(), Over> {
        if self.told_at.elapsed() < HEARTBEAT {
            return Ok(());
        }
        self.told_at = Instant::now();
        self.consumer.say(Chunk { text: format!(": {comment}\n\n"), ..Chunk::default() }).await
    }

    async fn tell_checkpoint(&mut self, lag_ms: u64, behind: bool) -> Result<(), Over> {
        self.told_at = Instant::now();
        let text = self.follower.checkpoint(self.service.settings.cluster_mark, lag_ms, behind);
        self.consumer.say(Chunk { text, ..Chunk::default() }).await
    }
}
