//! A game service of a test: calls with a key, answers as JSON.

use reqwest::Method;
use serde_json::Value;

use super::server::Server;

/// A service with its key or token.
#[derive(Clone)]
pub(crate) struct Service {
    url: String,
    key: String,
    client: reqwest::Client,
}

/// What was answered: the status, and the body, null where there is none.
pub(crate) type Answer = (u16, Value);

impl Service {
    /// A service that calls this server with this key.
    pub(crate) fn of(server: &Server, key: &str) -> Self {
        Self::at(server.service_url(), key)
    }

    /// A service that calls there: `http://HOST:PORT`.
    pub(crate) fn at(url: &str, key: &str) -> Self {
        Self { url: url.to_owned(), key: key.to_owned(), client: reqwest::Client::new() }
    }

    /// One call.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
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
