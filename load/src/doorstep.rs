//! Whether what the command line names is there, asked before a run: services' addresses, their key, processes, files. A run that
//! cannot be seen or written down is not begun. Called by `main`; whether bots get in they find out themselves.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde_json::json;

use crate::options::Common;
use crate::outputs::{OutputError, Outputs};

/// How long a service's address may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What is not there.
#[derive(Debug, thiserror::Error)]
pub enum DoorstepError {
    /// A file.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A process.
    #[error("--pid {0}: there is no such process on this machine")]
    NoProcess(u32),
    /// Nobody answers services.
    #[error("--service-url {url}: nothing answers there: {reason}")]
    NoService {
        /// Where.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// Something else does.
    #[error("--service-url {url}: no Hearth answers there: /metrics says {status}")]
    NoHearth {
        /// Where.
        url: String,
        /// What it said.
        status: StatusCode,
    },
    /// The key opens nothing, or not enough.
    #[error(
        "--service-key (or HEARTH_SERVICE_KEY): {url} refuses it for {what} ({status}): it needs the scopes read and push"
    )]
    Key {
        /// Where.
        url: String,
        /// For what.
        what: &'static str,
        /// How.
        status: StatusCode,
    },
    /// The HTTP client cannot be made.
    #[error("the service's client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Looks at all of it. The folder of `--out` is made.
///
/// # Errors
/// [`DoorstepError`], of the first that is not so.
pub async fn check(common: &Common) -> Result<(), DoorstepError> {
    Outputs::of(common).check()?;
    if let Some(pid) = common.pid.iter().find(|pid| !is_there(**pid)) {
        return Err(DoorstepError::NoProcess(*pid));
    }
    let http = Client::builder().timeout(ANSWER_TIMEOUT).build()?;
    for url in &common.service_url {
        let base = url.trim_end_matches('/');
        let status = asked(url, http.get(format!("{base}/metrics"))).await?;
        if !status.is_success() {
            return Err(DoorstepError::NoHearth { url: url.clone(), status });
        }
        let Some(key) = &common.service_key else { continue };
        // The key is looked at before what is asked: a message without its data is none, and goes nowhere.
        for (what, path, body) in [
            ("queries of presence", "/v1/presence/query", json!({"players": []})),
            ("messages", "/v1/players/nobody/messages", json!({})),
        ] {
            let status = asked(url, http.post(format!("{base}{path}")).bearer_auth(key).json(&body)).await?;
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                return Err(DoorstepError::Key { url: url.clone(), what, status });
            }
        }
    }
    Ok(())
}

async fn asked(url: &str, request: RequestBuilder) -> Result<StatusCode, DoorstepError> {
    match request.send().await {
        Ok(response) => Ok(response.status()),
        Err(error) => {
            // The innermost says why.
            let mut source: &dyn std::error::Error = &error;
            while let Some(inner) = source.source() {
                source = inner;
            }
            Err(DoorstepError::NoService { url: url.to_owned(), reason: source.to_string() })
        }
    }
}

/// Somebody else's is one, too.
fn is_there(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(Errno::SRCH)))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;
    use crate::options::Options;

    async fn said(more: &[&str], key: Option<&str>) -> String {
        let line = ["load", "steady"].iter().chain(more);
        let mut options = Options::try_parse_from(line).unwrap();
        options.common.service_key = key.map(str::to_owned);
        check(&options.common).await.map_or_else(|error| error.to_string(), |()| "well".to_owned())
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        let own = std::process::id().to_string();
        assert_eq!(
            said(&["--pid", &own, "--pid", "99999999"], None).await.split(':').next(),
            Some("--pid 99999999")
        );
        assert_eq!(said(&["--pid", &own], None).await, "well");
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let said = said(&["--service-url", &format!("http://{nobody}")], None).await;
        assert!(
            said.contains(&format!("--service-url http://{nobody}")) && said.contains("refused"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_key_that_is_refused_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut service = JoinSet::new();
        service.spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let mut bytes = vec![0; 4_096];
                let read = tcp.read(&mut bytes).await.unwrap();
                let is_open = !bytes[..read].starts_with(b"POST /v1/players");
                let head = if is_open { "200 OK" } else { "403 Forbidden" };
                let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                tcp.write_all(head.as_bytes()).await.unwrap();
            }
        });
        assert_eq!(said(&["--service-url", &url], None).await, "well");
        let said = said(&["--service-url", &url], Some("read alone")).await;
        assert!(said.contains("--service-key") && said.contains("messages (403"), "{said}");
    }
}
