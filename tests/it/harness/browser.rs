//! A headless Chromium of a test, spoken to over its DevTools protocol: opens pages, asks them, presses keys, and keeps what
//! they complained about and whom they asked. Answers a path in the server's place where a story needs words of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::patience::PATIENCE;

/// Between two looks at a page.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// One browser with one page, ended when the value is dropped.
pub(crate) struct Browser {
    process: Child,
    line: WebSocketStream<MaybeTlsStream<TcpStream>>,
    number: u64,
    /// What is answered in the server's place, to every request whose address ends so.
    stub: Option<(String, String)>,
    faults: Vec<String>,
    requests: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--remote-debugging-port=0", "about:blank"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("chromium is missing: apt-get install chromium (tests/run does)");
        let said = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (sender, heard) = std::sync::mpsc::channel();
        // Reads to the end, so that the pipe never fills.
        std::thread::spawn(move || {
            said.for_each(|line| {
                let _ = sender.send(line);
            });
        });
        let address = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let line = heard.recv_timeout(left).expect("chromium says where it listens");
                if let Some((_, rest)) = line.split_once("ws://") {
                    return rest.split('/').next().unwrap().to_owned();
                }
            }
        });
        let page = page_of(&address.await.unwrap()).await;
        let (line, _) = tokio_tungstenite::connect_async_with_config(page, None, true).await.unwrap();
        let mut browser = Self {
            process,
            line,
            number: 0,
            stub: None,
            faults: Vec::new(),
            requests: Vec::new(),
            _profile: profile,
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// One call of the protocol; what happens meanwhile is taken in.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        let told = self.ask(method, params).await;
        assert!(told.get("error").is_none(), "{method}: {told}");
        told["result"].clone()
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let number = self.send(method, &params).await;
        loop {
            let told = timeout(PATIENCE, self.line.next()).await.expect("the browser answers in time");
            let Message::Text(text) = told.expect("the browser lives").unwrap() else { continue };
            let told: Value = serde_json::from_str(&text).unwrap();
            if told["id"] == number {
                return told;
            }
            if let Some(event) = told["method"].as_str() {
                self.hear(event, &told["params"]).await;
            }
        }
    }

    async fn send(&mut self, method: &str, params: &Value) -> u64 {
        self.number += 1;
        let text = json!({"id": self.number, "method": method, "params": params}).to_string();
        self.line.send(Message::text(text)).await.unwrap();
        self.number
    }

    async fn hear(&mut self, event: &str, params: &Value) {
        match event {
            "Runtime.exceptionThrown" => self.faults.push(params["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" if params["type"] == "error" => self.faults.push(params.to_string()),
            // What the page says of answers that are no 2xx is the network's, and told by the story.
            "Log.entryAdded" if params["entry"]["source"] != "network" => {
                self.faults.push(params["entry"].to_string());
            }
            "Network.requestWillBeSent" => {
                self.requests.push(params["request"]["url"].as_str().unwrap().to_owned());
            }
            "Fetch.requestPaused" => {
                let (_, body) = self.stub.clone().unwrap_or_default();
                let answer = json!({
                    "requestId": params["requestId"],
                    "responseCode": 200,
                    "responseHeaders": [{"name": "Content-Type", "value": "application/json"}],
                    "body": STANDARD.encode(body),
                });
                // Its answer is not waited for: this is heard while another one's is.
                self.send("Fetch.fulfillRequest", &answer).await;
            }
            _ => {}
        }
    }

    /// Opens an address, as if nothing had been open before.
    pub(crate) async fn open(&mut self, url: &str) {
        for url in ["about:blank", url] {
            let told = self.call("Page.navigate", json!({ "url": url })).await;
            assert!(told.get("errorText").is_none(), "{url}: {told}");
        }
    }

    /// What an expression is worth in the page.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let told = self.call("Runtime.evaluate", asked).await;
        assert!(told.get("exceptionDetails").is_none(), "{expression}: {told}");
        told["result"]["value"].clone()
    }

    /// The text of the first element that a selector finds; empty where there is none, or nobody sees it.
    pub(crate) async fn text(&mut self, selector: &str) -> String {
        self.value(&seen(selector)).await.as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true in the page, which may be on its way still.
    pub(crate) async fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        let asked = json!({"expression": expression, "returnByValue": true});
        while self.ask("Runtime.evaluate", asked.clone()).await["result"]["result"]["value"] != true {
            assert!(
                Instant::now() < deadline,
                "never: {expression}; the page says: {}",
                self.text("body").await
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until an element has this text in it, as people see it.
    pub(crate) async fn shows(&mut self, selector: &str, text: &str) {
        self.until(&format!("{}.includes({text:?})", seen(selector))).await;
    }

    /// Presses a key, as people do: `/`, `Enter`, `Escape`, `Tab`.
    pub(crate) async fn press(&mut self, key: &str) {
        let typed = match key {
            "Enter" => "\r",
            key if key.len() == 1 => key,
            _ => "",
        };
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { typed } else { "" };
            let pressed = json!({"type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", pressed).await;
        }
    }

    /// Types into whatever has the focus.
    pub(crate) async fn types(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// How wide and high the page is from now on.
    pub(crate) async fn is_of(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Answers every request whose path ends so, in the server's place; again: otherwise.
    pub(crate) async fn answers(&mut self, path: &str, body: &Value) {
        self.stub = Some((path.to_owned(), body.to_string()));
        let patterns = json!({"patterns": [{"urlPattern": format!("*{path}")}]});
        self.call("Fetch.enable", patterns).await;
    }

    /// Leaves all answers to the server again.
    pub(crate) async fn answers_no_more(&mut self) {
        self.call("Fetch.disable", json!({})).await;
    }

    /// What the page complained about: exceptions, errors in its console, what its policy kept it from.
    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Whom it asked.
    pub(crate) fn requests(&self) -> &[String] {
        &self.requests
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The text of the first element of a selector as people see it: of one that is not shown, none.
fn seen(selector: &str) -> String {
    format!(
        "((found) => found?.checkVisibility() ? found.innerText : '')(document.querySelector({selector:?}))"
    )
}

/// Where its first page is spoken to.
async fn page_of(address: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = reqwest::get(format!("http://{address}/json/list")).await.unwrap();
        let pages: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let page = pages.as_array().unwrap().iter().find(|page| page["type"] == "page");
        if let Some(page) = page {
            return page["webSocketDebuggerUrl"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "the browser has no page");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
