//! `/v1/maintenance`: closes the server for players, tells those who are here, and opens it again at its time. Services
//! are answered throughout. `app` runs the watch; what is closed is `crate::maintenance`'s to know.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use bytes::Bytes;
use protocol::CloseCode;
use protocol::calls::{Close, MaintenanceView as View};
use tokio::time::MissedTickBehavior;

use super::Service;
use super::body::JsonBody;
use super::door::{Admin, Reader};
use super::kick::REASON_BYTES_MAX;
use super::problem::Problem;
use crate::clock;
use crate::cluster::Topic;
use crate::hub::{Closing, Control};
use crate::ids::Owner;
use crate::maintenance::{Closed, Word};
use crate::tasks::Tasks;
use crate::telemetry::metrics::MAINTENANCE;

/// Between two looks at the clock and at links that are still up.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks after which the store is told again, while there is something to tell: it may have lost it, or never had it.
const LOOKS_PER_STORING: u64 = 20;
/// How far the clocks of two nodes may be apart.
const CLOCKS_APART_MS: u64 = 60_000;
/// Links that are closed at a time, and the pause after them: 19,000 take some 4 s, and nobody else has to wait.
const BATCH: usize = 100;
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// `GET /v1/maintenance`
pub(super) async fn look(State(service): State<Arc<Service>>, _: Reader) -> Json<View> {
    Json(service.maintenance_view())
}

/// `POST /v1/maintenance`
pub(super) async fn begin(
    State(service): State<Arc<Service>>,
    _: Admin,
    JsonBody(body): JsonBody,
) -> Result<Json<View>, Problem> {
    let asked: Close<'_> = body.read()?;
    let now = clock::now();
    if asked.until.is_some_and(|until| until <= now.unix_ms) {
        return Err(Problem::bad_request("until: a time to come, in milliseconds since 1970"));
    }
    let reason = asked.reason.as_str();
    if reason.is_empty() || reason.len() > REASON_BYTES_MAX {
        return Err(Problem::bad_request("reason: 1 to 256 bytes"));
    }
    let closed = Closed {
        since: now.unix_ms,
        until: asked.until,
        reason: reason.into(),
        // Of all nodes: all of them come back at the same time.
        links: u64::try_from(service.stats().await.links).unwrap_or(u64::MAX),
    };
    let closed = service.maintenance.close(closed, now);
    tracing::info!(
        operation = "maintenance",
        until = closed.until,
        links = closed.links,
        "closed for players"
    );
    service.tell_maintenance();
    service.store_maintenance().await?;
    Ok(Json(view(Some(closed))))
}

/// `DELETE /v1/maintenance`
pub(super) async fn end(State(service): State<Arc<Service>>, _: Admin) -> Result<StatusCode, Problem> {
    if service.maintenance.open(clock::now()) {
        tracing::info!(operation = "maintenance", "open for players");
    }
    service.tell_maintenance();
    service.store_maintenance().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is in force, as services and operators see it.
fn view(closed: Option<Closed>) -> View {
    closed.map_or_else(View::default, |Closed { since, until, reason, links }| View {
        closed: true,
        since: Some(since),
        until,
        reason: Some(reason.into()),
        links: Some(links),
    })
}

fn not_stored() -> Problem {
    Problem::not_stored("in force on this node, but the store does not have it yet; it is tried again")
}

impl Service {
    pub(super) fn maintenance_view(&self) -> View {
        view(self.maintenance.closed(clock::now()))
    }

    /// Tells every node to which a link stands; the others hear it when one does.
    fn tell_maintenance(&self) {
        self.peers.peers().iter().for_each(|peer| self.tell_maintenance_to(peer));
    }

    /// Tells one node, if there is anything to tell.
    pub(super) fn tell_maintenance_to(&self, peer: &Owner) {
        let word = self.maintenance.word();
        if let Some(letter) = (word.said_at > 0).then(|| rmp_serde::to_vec_named(&word).ok()).flatten() {
            self.peers.post(peer, Topic::Service, letter.into());
        }
    }

    /// What another node has said.
    pub(super) fn hear_maintenance(&self, from: &Owner, letter: &[u8]) {
        let Ok(word) = rmp_serde::from_slice::<Word>(letter) else { return };
        // A word of times to come could never be taken back.
        if word.said_at > clock::now().unix_ms.saturating_add(CLOCKS_APART_MS) {
            tracing::warn!(operation = "maintenance", %from, "another node's clock is ahead: its word is not heard");
            return;
        }
        let is_closed = word.closed.is_some();
        if self.maintenance.adopt(word) {
            tracing::info!(operation = "maintenance", %from, closed = is_closed, "as another node was told");
            // A round of ours may just be telling the store what was in force before.
            self.notice_stale.store(true, Ordering::Relaxed);
        }
    }

    /// Has the store say what is in force: whatever that is by now, so that of two changes the later one is stored.
    async fn store_maintenance(&self) -> Result<(), Problem> {
        let mut owed = self.notice_owed.lock().await;
        *owed = true;
        let closed = self.maintenance.closed(clock::now());
        let notice = closed.and_then(|closed| serde_json::to_vec(&closed).ok()).map(Bytes::from);
        self.home.set_notice(notice).await.map_err(|_| not_stored())?;
        *owed = false;
        Ok(())
    }

    /// Closes links while players are not let in, also those that were on their way in; and ends it at its time.
    pub async fn keep_maintenance(self: Arc<Self>, tasks: Tasks) {
        let gauge = MAINTENANCE.handle();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for look in 1_u64.. {
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                _ = ticks.tick() => {}
            }
            let now = clock::now();
            let closed = self.maintenance.closed(now);
            gauge.set(if closed.is_some() { 1.0 } else { 0.0 });
            let is_over = self.maintenance.open_if_over(now);
            if is_over {
                tracing::info!(operation = "maintenance", "its end has come: open for players");
            }
            let is_due = look.is_multiple_of(LOOKS_PER_STORING);
            let is_stale = self.notice_stale.swap(false, Ordering::Relaxed);
            if is_over || is_stale || is_due && (closed.is_some() || *self.notice_owed.lock().await) {
                // It is owed until the store has it.
                let _ = self.store_maintenance().await;
            }
            if let Some(closed) = closed.filter(|_| self.hub.links() > 0) {
                self.send_away(&closed, &tasks).await;
            }
        }
    }

    /// Says goodbye to everybody, a few at a time.
    async fn send_away(&self, closed: &Closed, tasks: &Tasks) {
        let mut told = 0;
        for mailbox in self.hub.all() {
            if !mailbox.is_linked() {
                continue;
            }
            mailbox.tell(Control::Close(Closing {
                code: CloseCode::Maintenance.number(),
                reason: closed.reason.clone(),
                retry_after_ms: closed.retry_after_ms(clock::now()),
            }));
            told += 1;
            if told % BATCH == 0 {
                tokio::time::sleep(BATCH_PAUSE).await;
                if tasks.is_stopping() || self.maintenance.closed(clock::now()).is_none() {
                    return;
                }
            }
        }
    }
}
