//! The way of one client of several nodes: she begins at a node that is not her player's home, says there who she is,
//! and comes home as any client does, sent or carried. `player` owns it, and knows nothing of nodes.

use serde_json::{Value, json};

use super::doors::{Doors, Way};
use super::socket::{Heard, Socket};

/// One link's way home.
pub(crate) struct Detour {
    doors: Doors,
    /// The door that the link was opened at.
    url: String,
    /// What she has said and was not answered before she was let in: to be said again where she is sent.
    said: Vec<(String, u32, Value)>,
    has_spoken: bool,
    is_in: bool,
    was_sent: bool,
}

impl Detour {
    pub(crate) fn new(doors: Doors, url: &str) -> Self {
        Self {
            doors,
            url: url.to_owned(),
            said: Vec::new(),
            has_spoken: false,
            is_in: false,
            was_sent: false,
        }
    }

    /// Before a frame is sent: sees to it that whoever says who she is does so at the wrong node.
    pub(crate) async fn says(&mut self, socket: &mut Socket, op: &str, reference: u32, body: &mut Value) {
        if self.is_in {
            return;
        }
        if let Some(shard) = self.doors.shard_of_first(op, body).filter(|_| !self.was_sent) {
            if self.doors.is_home(shard, &self.url) {
                assert!(!self.has_spoken, "a link that has said something: begin with `Server::connect_for`");
                self.url = self.doors.wrong_for(shard).url.clone();
                socket.goes_to(&self.url).await;
            }
            if self.doors.way() == Way::Relayed {
                body["relay"] = json!(true);
            }
        }
        self.has_spoken = true;
        self.said.push((op.to_owned(), reference, body.clone()));
    }

    /// What need not be said again.
    pub(crate) fn answered(&mut self, reference: u64) {
        self.said.retain(|(_, asked, _)| u64::from(*asked) != reference);
    }

    /// She has come home: what she says from now on goes there.
    pub(crate) fn arrives(&mut self) {
        // Who asked to be carried is, and who did not is sent first: nobody begins at home.
        let is_sent = self.doors.way() == Way::Redirected;
        assert_eq!(self.was_sent, is_sent, "she began at the wrong node");
        self.is_in = true;
    }

    /// She is sent on: she goes there, and says all of it again.
    pub(crate) async fn is_sent(&mut self, socket: &mut Socket, redirect: &Value) {
        assert!(self.doors.way() == Way::Redirected && !self.was_sent, "sent once more: {redirect}");
        self.was_sent = true;
        let mut last = None;
        let closed = loop {
            match socket.hear().await {
                Heard::Frame(frame) => last = Some(frame.op),
                Heard::Closed(code) => break code,
            }
        };
        assert_eq!((closed, last.as_deref()), (Some(4002), Some("bye")));
        self.url = redirect["url"].as_str().expect("where to go").to_owned();
        socket.goes_to(&self.url).await;
        for (op, reference, body) in &self.said {
            socket.feed(op, *reference, body).await;
        }
        socket.flush().await;
    }
}
