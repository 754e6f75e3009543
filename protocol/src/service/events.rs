//! Events: what happens to sessions and presences, followed from a place on.

use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderName};
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{AlarmChange, CALL_TIMEOUT, Checkpoint, Event, Service, ServiceError, sent};

/// Carries a checkpoint: it is longer than what some take in an address.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The server says something every 15 s at least.
const SILENCE: Duration = Duration::from_secs(45);
/// Longer than any event is.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After<'a> {
    /// Now.
    Now,
    /// With the oldest events that are kept.
    Oldest,
    /// Where this checkpoint was told.
    Checkpoint(&'a str),
}

/// What is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A session came, went or moved.
    Session(Event),
    /// Others see the player otherwise from now on.
    Presence(Event),
    /// Some events of the player are lost, or of the whole shard: ask.
    Resync(Event),
    /// So many events of a shard are not told.
    Gap(Event),
    /// All that was told of players before is behind it: go on from here next time. Alarms have no place in it.
    Checkpoint(Checkpoint),
    /// An alarm has begun at some node, or rang there already when this began; or it has ended. Those that ring are told
    /// anew to whoever comes back.
    Alarm(AlarmChange),
    /// Of a later server: its name and its data.
    Other(String, String),
}

/// Events that are followed. Dropped, they are followed no more.
#[derive(Debug)]
pub struct Events {
    response: Response,
    /// What has come and was not told yet, without the carriage returns.
    heard: Vec<u8>,
}

impl Service {
    /// Follows the events of all shards. Each is told at least once, those of one player in their order.
    ///
    /// # Errors
    /// [`ServiceError`]; [`crate::ErrorCode::BadRequest`] for what is no checkpoint of this cluster,
    /// [`crate::ErrorCode::Overloaded`] where too many follow.
    pub async fn events(&self, after: After<'_>) -> Result<Events, ServiceError> {
        let request = self.http.request(Method::GET, [&*self.url, "/v1/events"].concat());
        let request = request.bearer_auth(&self.key).header(ACCEPT, "text/event-stream");
        let request = match after {
            After::Now => request,
            After::Oldest => request.query(&[("after", "oldest")]),
            After::Checkpoint(checkpoint) => request.header(LAST_EVENT_ID, checkpoint),
        };
        let unanswered = || ServiceError::Unfitting("no answer in time".to_owned());
        let response = timeout(CALL_TIMEOUT, sent(request)).await.map_err(|_| unanswered())??;
        Ok(Events { response, heard: Vec::new() })
    }
}

impl Events {
    /// The next one; `None` when the server ends them or has fallen silent: go on at the last checkpoint. Nothing is lost
    /// where this is dropped before it is done.
    ///
    /// # Errors
    /// [`ServiceError`]: go on at the last checkpoint.
    pub async fn next(&mut self) -> Result<Option<Told>, ServiceError> {
        loop {
            while let Some(event) = self.whole() {
                if let Some(told) = told(&event)? {
                    return Ok(Some(told));
                }
            }
            if self.heard.len() > EVENT_BYTES_MAX {
                return Err(ServiceError::Unfitting("an event without an end".to_owned()));
            }
            match timeout(SILENCE, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.heard.extend(chunk.iter().filter(|byte| **byte != b'\r')),
                Ok(Ok(None)) | Err(_) => return Ok(None),
                Ok(Err(error)) => return Err(ServiceError::Unreachable(error)),
            }
        }
    }

    /// Takes the first whole event, if one has come.
    fn whole(&mut self) -> Option<String> {
        let end = self.heard.windows(2).position(|end| end == b"\n\n")?;
        let event: Vec<u8> = self.heard.drain(..end + 2).collect();
        Some(String::from_utf8_lossy(&event).into_owned())
    }
}

/// What an event says; nothing, where it is for people alone.
fn told(event: &str) -> Result<Option<Told>, ServiceError> {
    let field = |name: &str| {
        let lines = event.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>().join("\n")
    };
    let (name, data) = (field("event"), field("data"));
    Ok(Some(match name.as_str() {
        _ if data.is_empty() => return Ok(None),
        "session" => Told::Session(read(&data)?),
        "presence" => Told::Presence(read(&data)?),
        "resync" => Told::Resync(read(&data)?),
        "gap" => Told::Gap(read(&data)?),
        "checkpoint" => Told::Checkpoint(read(&data)?),
        "alarm" => Told::Alarm(read(&data)?),
        _ => Told::Other(name, data),
    }))
}

fn read<T: DeserializeOwned>(data: &str) -> Result<T, ServiceError> {
    serde_json::from_str(data).map_err(|error| ServiceError::Unfitting(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_by_their_names_and_comments_are_not() {
        assert_eq!(told(": the store does not answer\n\n").unwrap(), None);
        let gap = told("event: gap\ndata: {\"shard\": 3, \"missed\": 7}\n\n").unwrap();
        let expected = Event { shard: 3, player: None, happened: None, missed: Some(7) };
        assert_eq!(gap, Some(Told::Gap(expected)));
        let later = told("event: brand_new\ndata: 1\ndata: 2\n\n").unwrap();
        assert_eq!(later, Some(Told::Other("brand_new".to_owned(), "1\n2".to_owned())));
        assert!(told("event: session\ndata: {}\n\n").is_err());
        let alarm = "{\"kind\": \"alarm_ended\", \"at\": 9, \"why\": \"node_gone\", \"name\": \"latency\", \"node\": \"a\", \
                     \"severity\": \"warning\", \"since\": 5, \"value\": 2.5, \"limit\": 1.0, \"unit\": \"seconds\", \
                     \"text\": \"it is slow\", \"do\": \"look\"}";
        let Ok(Some(Told::Alarm(change))) = told(&format!("event: alarm\ndata: {alarm}\n\n")) else {
            panic!("no alarm");
        };
        assert_eq!((&*change.kind, change.at, change.why.as_deref()), ("alarm_ended", 9, Some("node_gone")));
        assert_eq!((&*change.alarm.name, &*change.alarm.node, change.alarm.since), ("latency", "a", 5));
    }
}
