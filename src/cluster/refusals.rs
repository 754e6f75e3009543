//! Members at whose peer address nothing listens: processes that have died, as a rule, for a network that is cut says
//! nothing or says so late. Looked at when somebody would be sent there, and only while no link stands. Asked by `links`.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::Member;
use crate::clock;
use crate::ids::Owner;

/// How long what was found is good for: nobody is knocked at more often.
const GOOD_FOR_MS: u64 = 500;
/// How long a node may take to answer a knock. Who does not is not taken for dead.
const KNOCK: Duration = Duration::from_millis(250);

/// What was found at one member's door.
#[derive(Debug, Default, Clone, Copy)]
struct Door {
    looked_at_ms: Option<u64>,
    /// Since when nothing was found to listen there, without a break (monotonic ms).
    refuses_since_ms: Option<u64>,
}

/// What is known of the doors of members without a link; as many as there are members.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Owner, Arc<tokio::sync::Mutex<Door>>>>);

impl Refusals {
    /// Since when nothing listens at a member's door (monotonic ms); `None`: something does, or nobody can tell.
    /// Whoever asks together shares one knock.
    pub(super) async fn since_ms(&self, member: &Member) -> Option<u64> {
        let peer = member.says.peer.as_deref()?;
        let door = Arc::clone(self.0.lock().entry(member.owner.clone()).or_default());
        let mut door = door.lock().await;
        let now_ms = clock::now().mono_ms;
        if door.looked_at_ms.is_none_or(|at_ms| now_ms >= at_ms + GOOD_FOR_MS) {
            let knock = tokio::time::timeout(KNOCK, TcpStream::connect(peer)).await;
            let is_refused = matches!(&knock, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused);
            door.refuses_since_ms = is_refused.then(|| door.refuses_since_ms.unwrap_or(now_ms));
            door.looked_at_ms = Some(clock::now().mono_ms);
        }
        door.refuses_since_ms
    }

    /// Forgets all but these: who has a link, or is no member, is not knocked at.
    pub(super) fn retain(&self, is_without_link: impl Fn(&Owner) -> bool) {
        self.0.lock().retain(|owner, _| is_without_link(owner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Says;
    use tokio::net::TcpListener;

    fn member(peer: Option<String>) -> Member {
        Member { owner: Owner::named("b#1"), says: Says { peer, ..Says::default() } }
    }

    #[tokio::test]
    async fn a_door_where_nothing_listens_refuses_from_the_first_knock_on() {
        let refusals = Refusals::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let b = member(Some(listener.local_addr().unwrap().to_string()));
        assert_eq!(refusals.since_ms(&b).await, None);
        assert_eq!(refusals.since_ms(&member(None)).await, None);
        drop(listener);
        refusals.retain(|_| false);
        let since_ms = refusals.since_ms(&b).await.expect("refused");
        refusals.retain(|owner| *owner == b.owner);
        tokio::time::sleep(Duration::from_millis(GOOD_FOR_MS + 50)).await;
        assert_eq!(refusals.since_ms(&b).await, Some(since_ms), "found anew, and since then");
    }
}
