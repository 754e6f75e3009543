//! A game service of a test: calls with a key, answers as JSON.

use reqwest::Method;
use serde_json::Value;

use super::document::is_told;
use super::doors::Doors;
use super::server::Server;

/// A service with its key or token. Of a server of several nodes it calls one at which whoever the call is about is not
/// at home.
#[derive(Clone)]
pub(crate) struct Service {
    url: String,
    doors: Option<Doors>,
    key: String,
    client: reqwest::Client,
}

/// What was answered: the status, and the body, null where there is none.
pub(crate) type Answer = (u16, Value);

impl Service {
    /// A service that calls this server with this key.
    pub(crate) fn of(server: &Server, key: &str) -> Self {
        Self { doors: server.doors(), ..Self::at(server.service_url(), key) }
    }

    /// A service that calls there: `http://HOST:PORT`.
    pub(crate) fn at(url: &str, key: &str) -> Self {
        Self { url: url.to_owned(), doors: None, key: key.to_owned(), client: reqwest::Client::new() }
    }

    /// One call.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let url = format!("{}{path}", self.url_for(path, body.as_ref()));
        let request = self.client.request(method.clone(), url).bearer_auth(&self.key);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        is_told(method.as_str(), path, status, &body);
        (status, body)
    }

    fn url_for(&self, path: &str, body: Option<&Value>) -> &str {
        let wrong = self.doors.as_ref().and_then(|doors| {
            let shard = doors.shard_of_call(path, body)?;
            Some(&doors.wrong_for(shard).service_url)
        });
        wrong.unwrap_or(&self.url)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None).await
    }
}
