//! `/v1/log`: what this node logs, and other directives for a while. `app` runs the watch that ends them; how lines are
//! written is `telemetry::logs`' to know. Nothing of it is stored: a restart logs by the settings.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use parking_lot::Mutex;
use protocol::ErrorCode;
use protocol::calls::{LogChange, LogView};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Service;
use super::body::JsonBody;
use super::door::Admin;
use super::problem::Problem;
use crate::clock::{self, millis};
use crate::config::LogFilter;
use crate::tasks::Tasks;
use crate::telemetry::logs::{self, LogsError};

/// Most bytes of directives.
const LEVEL_BYTES_MAX: usize = 1_024;
/// How long they hold, in seconds, if nothing else is asked; and at most.
const FOR_S: u32 = 600;
const FOR_S_MAX: u32 = 86_400;

/// Until when the directives in force are not those of the settings.
#[derive(Default)]
pub(super) struct Loan {
    until: Mutex<Option<Until>>,
    changed: Notify,
}

#[derive(Clone, Copy)]
struct Until {
    at: Instant,
    unix_ms: u64,
}

/// `GET /v1/log`
pub(super) async fn look(State(service): State<Arc<Service>>, _: Admin) -> Result<Json<LogView>, Problem> {
    service.log_view().map(Json)
}

/// `PUT /v1/log`
pub(super) async fn change(
    State(service): State<Arc<Service>>,
    caller: Admin,
    JsonBody(body): JsonBody,
) -> Result<Json<LogView>, Problem> {
    let asked: LogChange<'_> = body.read()?;
    let level = asked.level.as_str();
    if level.trim().is_empty() || level.len() > LEVEL_BYTES_MAX {
        return Err(Problem::bad_request(format!("level: 1 to {LEVEL_BYTES_MAX} bytes")));
    }
    let level = LogFilter::parse(level).map_err(|wrong| Problem::bad_request(format!("level: {wrong}")))?;
    let level = level.as_str();
    let for_s = asked.for_s.unwrap_or(FOR_S);
    if !(1..=FOR_S_MAX).contains(&for_s) {
        return Err(Problem::bad_request(format!("for_s: 1 to {FOR_S_MAX}")));
    }
    let lasts = Duration::from_secs(for_s.into());
    {
        // Held throughout, so that the end of an earlier change does not fall on this one.
        let mut until = service.log.until.lock();
        logs::set_level(Some(level)).map_err(|error| match error {
            LogsError::Filter(error) => Problem::bad_request(format!("level: {error}")),
            error @ LogsError::Watched => Problem::bad_request(format!("level: {error}")),
            error => Problem::new(ErrorCode::Internal, error.to_string()),
        })?;
        let unix_ms = clock::now().unix_ms.saturating_add(millis(lasts));
        *until = Some(Until { at: Instant::now() + lasts, unix_ms });
    }
    service.log.changed.notify_one();
    // In the audit line, which no directives turn off.
    caller.says(format!("{level} for {for_s} s"));
    service.log_view().map(Json)
}

impl Service {
    fn log_view(&self) -> Result<LogView, Problem> {
        let foreign = || Problem::new(ErrorCode::Internal, LogsError::Foreign.to_string());
        let (level, configured) = logs::level().ok_or_else(foreign)?;
        let until = self.log.until.lock().map(|until| until.unix_ms);
        Ok(LogView { node: self.settings.node_id.clone(), level, configured: configured.to_owned(), until })
    }

    /// Logs by the settings again when the time has come.
    pub async fn keep_log(self: Arc<Self>, tasks: Tasks) {
        loop {
            let until = self.log.until.lock().map(|until| until.at);
            let ends = async {
                match until {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                () = self.log.changed.notified() => {}
                () = ends => self.end_log(),
            }
        }
    }

    fn end_log(&self) {
        let mut until = self.log.until.lock();
        // Somebody may have asked for more time meanwhile.
        if until.is_none_or(|until| Instant::now() < until.at) {
            return;
        }
        *until = None;
        match logs::set_level(None) {
            Ok(()) => tracing::info!(operation = "log.level", status = "ok", "logs by the settings again"),
            Err(error) => {
                tracing::error!(operation = "log.level", status = %error, "the level stays as it is")
            }
        }
    }
}
