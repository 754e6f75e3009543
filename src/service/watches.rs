//! `PUT /v1/players/{player}/watches`: a service sets whom a player watches, or changes it: friends change in the
//! game's own database. Her sessions are told of those who came at once, and of their changes from then on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use protocol::Text;
use protocol::calls::{WatchList as Asked, WatchesListed};

use super::Service;
use super::body::{JsonBody, PathPlayer, players_of};
use super::door::Writer;
use super::problem::Problem;
use crate::clock;
use crate::events::PresenceView;
use crate::home::record::watches::{ListMoved, WatchList};
use crate::home::{COLD_WITHIN, Cell, Lookup};
use crate::hub::Push;
use crate::ids::{PlayerId, SessionId};
use crate::tasks::Tasks;
use crate::wire::wire_stamp;

/// Between two looks at those who could not be looked at, and after how many it is given up: their home is gone for
/// long, and their next change is pushed like any other.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOKS_MAX: u32 = 60;

/// Whom a session watches and has not been told of.
#[derive(Default)]
pub(super) struct LooksOwed {
    players: Vec<PlayerId>,
    tries: u32,
}

/// `PUT /v1/players/{player}/watches`
pub(super) async fn list(
    State(service): State<Arc<Service>>,
    _: Writer,
    PathPlayer(player): PathPlayer,
    JsonBody(body): JsonBody,
) -> Result<Json<WatchesListed>, Problem> {
    let asked: Asked<'_> = body.read()?;
    let (set, add, remove) = (ids("set", asked.set)?, ids("add", asked.add)?, ids("remove", asked.remove)?);
    let (add, remove) = match (&set, add, remove) {
        (None, None, None) => return Err(Problem::bad_request("set, or add and remove: one of them")),
        (Some(_), None, None) => (Vec::new(), Vec::new()),
        (Some(_), ..) => return Err(Problem::bad_request("set: not together with add and remove")),
        (None, add, remove) => (add.unwrap_or_default(), remove.unwrap_or_default()),
    };
    let interned = |players: Vec<PlayerId>| -> Vec<PlayerId> {
        players.into_iter().map(|player| service.presence.interned(player)).collect()
    };
    let (set, add) = (set.map(interned), interned(add));
    let list = match &set {
        Some(set) => WatchList::Set(set),
        None => WatchList::Change { add: &add, remove: &remove },
    };
    let cell = service.home.find_serving(&player).await?;
    let cell = cell.ok_or_else(|| Problem::not_found("the player has no session"))?;
    let applied = service.home.apply(&cell, clock::now(), |record, ctx| record.list_watches(ctx, list))?;
    let unknown = service.tell_watchers(&cell, &applied.value).await;
    service.durable(&cell, applied.stamp).await?;
    service.home.may_answer(&player)?;
    let sessions = cell.read(|record| record.sessions.len()).unwrap_or_default();
    Ok(Json(WatchesListed { stamp: wire_stamp(applied.stamp), sessions, unknown }))
}

fn ids(field: &str, players: Option<Vec<Text<'_>>>) -> Result<Option<Vec<PlayerId>>, Problem> {
    players.map(|players| players_of(field, &players)).transpose()
}

impl Service {
    /// Registers what moved and pushes how those look who came; returns whom it could not look at.
    async fn tell_watchers(&self, cell: &Cell, moved: &[ListMoved]) -> Vec<String> {
        // Registered first, looked at second: no change falls between, and `ver` tells a repeat.
        for list in moved {
            self.register(cell, list);
        }
        let added: HashSet<&PlayerId> = moved.iter().flat_map(|list| &list.added).collect();
        let looks = self.looks(added.into_iter().cloned()).await;
        for list in moved {
            let Some(mailbox) = self.hub.mailbox(list.session) else { continue };
            let mut owed = Vec::new();
            for player in &list.added {
                match looks.get(player) {
                    Some(Some(push)) => self.hub.push_to(&mailbox, push),
                    _ => owed.push(player.clone()),
                }
            }
            if owed.is_empty() {
                continue;
            }
            self.looks_owed.update(list.session, |present| {
                present.players.retain(|player| !list.removed.contains(player) && !owed.contains(player));
                present.players.extend(owed);
                present.tries = 0;
            });
        }
        let unknown = looks.iter().filter(|(_, push)| push.is_none());
        let mut unknown: Vec<String> = unknown.map(|(player, _)| player.as_str().to_owned()).collect();
        unknown.sort_unstable();
        unknown
    }

    /// How these players look, from memory, the store or another node; nothing for those who cannot be looked at now.
    async fn looks(
        &self,
        players: impl IntoIterator<Item = PlayerId>,
    ) -> HashMap<PlayerId, Option<Arc<Push>>> {
        let (mut looks, mut cold, mut elsewhere) = (HashMap::new(), Vec::new(), Vec::new());
        for player in players {
            match self.home.presence_hot(&player) {
                Some(Lookup::Unknown) => elsewhere.push(player),
                Some(look) => drop(looks.insert(player.clone(), self.push_of(&player, &look))),
                None => cold.push(player),
            }
        }
        let told = self.presence.look_elsewhere(&elsewhere).await;
        looks.extend(elsewhere.into_iter().map(|player| {
            let push = told.get(&player).map(|view| self.looked(&player, view));
            (player, push)
        }));
        let from_store = self.home.presence_cold(&cold, COLD_WITHIN).await.into_iter();
        looks.extend(from_store.map(|(player, look)| {
            let push = self.push_of(&player, &look);
            (player, push)
        }));
        looks
    }

    /// The task that tells sessions of those whom `unknown` named, as soon as they can be looked at.
    pub async fn keep_looking(self: Arc<Self>, tasks: Tasks) {
        loop {
            let owed = async {
                self.looks_owed.filled().await;
                // Who could not be looked at a moment ago cannot be now.
                tokio::time::sleep(LOOK_AGAIN).await;
            };
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                () = owed => {}
            }
            for (session, owed) in self.looks_owed.take() {
                self.look_again(session, owed).await;
            }
        }
    }

    async fn look_again(&self, session: SessionId, owed: LooksOwed) {
        // Without a mailbox she is told of all whom she watches when she is taken up again.
        let (Some(mailbox), Some(cell)) = (self.hub.mailbox(session), self.home.records().session(session))
        else {
            return;
        };
        let LooksOwed { mut players, tries } = owed;
        cell.read(|record| {
            let watches = record.session(session).map_or(&[][..], |session| &session.watches);
            players.retain(|player| watches.contains(player));
        });
        let mut still_owed = Vec::new();
        for (player, push) in self.looks(players).await {
            match push {
                Some(push) => self.hub.push_to(&mailbox, &push),
                None => still_owed.push(player),
            }
        }
        if !still_owed.is_empty() && tries < LOOKS_MAX {
            self.looks_owed.update(session, |present| {
                still_owed.retain(|player| !present.players.contains(player));
                present.players.extend(still_owed);
                present.tries = tries + 1;
            });
        }
    }

    /// Brings the edges of one session in line with its list, under the record's lock: her client may be changing the
    /// same list at this moment. A session without a mailbox registers its list when it is taken up.
    fn register(&self, cell: &Cell, list: &ListMoved) {
        let Some(mailbox) = self.hub.mailbox(list.session) else { return };
        cell.read(|record| {
            let watches = record.session(list.session).map(|session| session.watches.as_slice());
            for player in list.added.iter().chain(&list.removed) {
                if watches.is_some_and(|watches| watches.contains(player)) {
                    self.presence.watch(player, &mailbox);
                } else {
                    self.presence.unwatch(player, list.session);
                }
            }
        });
    }
}

impl Service {
    fn push_of(&self, player: &PlayerId, look: &Lookup) -> Option<Arc<Push>> {
        match look {
            Lookup::Known(view) => Some(self.looked(player, view)),
            Lookup::Unknown => None,
        }
    }

    /// A look that is pushed to one who watches.
    fn looked(&self, player: &PlayerId, view: &PresenceView) -> Arc<Push> {
        self.presence.looked(player, view);
        crate::presence::push_of(player, view)
    }
}
