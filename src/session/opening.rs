//! From an identity to an attachment and its `ready`: login and resume. A resume re-registers what the session
//! watches when its mailbox was lost with a crash, or came from another node, and owes snapshots then.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::reply::{ErrorBody, Ready, Rollback};
use protocol::{CloseCode, ErrorCode};

use super::{Attachment, Sessions, Vouched};
use crate::clock;
use crate::events::{PresenceView, Status};
use crate::home::record::{Record, Refusal};
use crate::home::{COLD_WITHIN, HomeError, Login, Lookup, Resume};
use crate::hub::Push;
use crate::ids::{Epoch, IdError, PlayerId, SessionId, Stamp, Version};
use crate::wire::{error_of, wire_stamp};

/// How often players are looked for again who could not be told.
const FOLLOW_EVERY: std::time::Duration = std::time::Duration::from_secs(1);
/// Before a mailbox that is half full is looked at again.
const CROWDED: std::time::Duration = std::time::Duration::from_millis(20);
/// How many times: past it the next change tells.
const FOLLOW_TRIES: u32 = 60;

/// Players who are not in this node's memory.
#[derive(Default)]
pub(super) struct Absent {
    /// The store must be asked for them.
    pub(super) cold: Vec<PlayerId>,
    /// Another node must be asked, if any.
    pub(super) elsewhere: Vec<PlayerId>,
}

/// A session on a link, not yet told.
pub struct Entered {
    /// The attachment.
    pub attachment: Attachment,
    /// What the client is told.
    pub ready: Ready,
    /// Snapshots are owed: the players watched.
    pub owed: Vec<PlayerId>,
    /// Messages that the store keeps for the player are owed.
    pub owes_kept: bool,
}

impl Entered {
    /// Whose session it is.
    #[must_use]
    pub fn player(&self) -> &PlayerId {
        self.attachment.cell.player()
    }

    /// Which one.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.attachment.session
    }
}

/// Why there is no session on this link.
#[derive(Debug)]
pub struct EnterError {
    /// What the client is told.
    pub body: ErrorBody,
    /// The link closes with this; without it the client may try something else on the same link.
    pub close: Option<CloseCode>,
}

impl From<HomeError> for EnterError {
    fn from(error: HomeError) -> Self {
        let close = match &error {
            HomeError::Refused(Refusal::SessionLimit) => Some(CloseCode::SessionLimit),
            HomeError::Refused(Refusal::TokenExpired | Refusal::TokenRevoked) => {
                Some(CloseCode::TokenExpired)
            }
            HomeError::Refused(Refusal::Banned { .. }) => Some(CloseCode::Banned),
            HomeError::Refused(Refusal::Kicked { code, .. }) => {
                Some(CloseCode::numbered(*code).unwrap_or(CloseCode::Kicked))
            }
            _ => None,
        };
        Self { body: error_of(&error), close }
    }
}

impl Sessions {
    /// Opens a session for a player whose token was verified.
    ///
    /// # Errors
    /// [`EnterError`]; there is no session then.
    pub async fn login(&self, token: Vouched, device: &str, status: Status) -> Result<Entered, EnterError> {
        let Vouched { player, expires_at_unix_ms, issued_at_unix_ms, rooms } = token;
        let login = Login {
            player: player.clone(),
            device: device.into(),
            status,
            token_expires_at_unix_ms: expires_at_unix_ms,
            token_issued_at_unix_ms: issued_at_unix_ms,
            grants: rooms,
            pending: false,
        };
        let opened = match self.home.login(login).await {
            Err(HomeError::Refused(Refusal::NoSession)) => return Err(self.gone_again(&player)),
            opened => opened?,
        };
        let (mailbox, _) = self.hub.mailbox_or_new(opened.session, &player, 0);
        let link = self.hub.next_link();
        mailbox.attach(link);
        self.hub.watch_link(&mailbox, link);
        self.tell_mode(&mailbox, opened.session.shard());
        self.close_if_going_away(&mailbox);
        let attachment = Attachment { cell: opened.cell, session: opened.session, mailbox, link };
        // A service may have been faster, and found no mailbox: what it did to the session's lists is done for its
        // mailbox here, under the record's lock, like all that moves them.
        let catch_up = |record: &Record| {
            let watches = &record.session(opened.session)?.watches;
            watches.iter().for_each(|player| self.presence.watch(player, &attachment.mailbox));
            Some((watches.clone(), record.rooms_of(opened.session).next().is_some()))
        };
        // A newer login may have been, too: its notice came before there was a mailbox to put it in.
        let Some((owed, is_in_rooms)) = attachment.cell.read(catch_up).flatten() else {
            self.leave(&attachment, super::parting::BROKEN);
            let told = opened.entering.refusal().map(|refusal| HomeError::from(refusal).into());
            return Err(told.unwrap_or_else(|| self.gone_again(&player)));
        };
        if is_in_rooms {
            self.home.tell_rooms(&attachment.cell);
        }
        let mut ready = self.ready(&attachment, opened.ticket, opened.stamp, expires_at_unix_ms);
        (ready.resumed, ready.prov) = (false, opened.is_provisional.then_some(true));
        Ok(Entered { attachment, ready, owed, owes_kept: true })
    }

    /// Takes a session up again.
    ///
    /// # Errors
    /// [`EnterError`]; nothing has changed then.
    pub async fn resume(&self, request: &protocol::request::Resume<'_>) -> Result<Entered, EnterError> {
        let not_resumable = || EnterError::from(HomeError::Refused(Refusal::NotResumable));
        let session = SessionId::parse(request.session.as_str()).map_err(|_: IdError| not_resumable())?;
        let claim = request.stamp.map(|(epoch, version)| Stamp::new(Epoch::of(epoch), Version::of(version)));
        if request.last_seq > (1 << 53) {
            return Err(not_resumable());
        }
        let link = self.hub.next_link();
        let resume = Resume { session, ticket: request.ticket.as_str(), claim };
        let mut found = None;
        let resumed = self
            .home
            .resume(resume, |player, was_pending, watches| {
                // Under the record's lock, so that neither the old link's end nor another resume comes between.
                let (mailbox, is_new) = self.hub.mailbox_or_new(session, player, request.last_seq);
                if is_new && !was_pending {
                    mailbox.begin_anew();
                }
                // Watches are this node's: one that comes from another home has none here yet.
                if is_new || mailbox.owes_looks() {
                    self.presence.watch_all(watches, &mailbox);
                }
                mailbox.attach(link);
                let replay = mailbox.resume(request.last_seq);
                if replay.missed || was_pending {
                    mailbox.owe_looks();
                }
                let owes_looks = mailbox.owes_looks();
                found = Some((mailbox, is_new, replay, owes_looks));
            })
            .await?;
        let Some((mailbox, is_new, replay, owes_looks)) = found else { return Err(not_resumable()) };
        self.hub.watch_link(&mailbox, link);
        self.tell_mode(&mailbox, session.shard());
        self.close_if_going_away(&mailbox);
        let attachment = Attachment { cell: resumed.cell, session, mailbox, link };
        let mut ready =
            self.ready(&attachment, resumed.ticket, resumed.stamp, resumed.token_expires_at_unix_ms);
        ready.resumed = true;
        ready.cseq = resumed.cseq;
        ready.replayed = Some(replay.frames);
        ready.missed = replay.missed.then_some(true);
        ready.rolled_back = resumed.rolled_back.map(|(from, to)| Rollback {
            from: wire_stamp(from),
            to: to.map(wire_stamp),
            cseq: resumed.cseq,
        });
        ready.watching = Some(resumed.watches.iter().map(|player| player.as_str().to_owned()).collect());
        ready.rooms = Some(resumed.rooms.iter().map(|room| room.as_str().to_owned()).collect());
        if replay.missed && !resumed.rooms.is_empty() {
            let player = attachment.cell.player();
            self.presence.rooms().owe_snapshots(player, session, &resumed.rooms);
        }
        let seen = attachment.mailbox.take_seen();
        if !seen.is_empty() {
            self.home.messages_seen(attachment.cell.player(), seen);
        }
        let owes_kept = is_new || replay.missed || attachment.mailbox.owes_kept();
        // What changed between two homes nobody told; a list that a service set before the first link neither.
        let owed = if owes_looks { resumed.watches } else { Vec::new() };
        if owed.is_empty() {
            attachment.mailbox.looks_told(link);
        }
        Ok(Entered { attachment, ready, owed, owes_kept })
    }

    /// The session was gone before its client heard of it: by a ban, or by a newer login.
    fn gone_again(&self, player: &PlayerId) -> EnterError {
        if let Some(reason) = self.home.banned_for(player) {
            return HomeError::Refused(Refusal::Banned { reason }).into();
        }
        let body = ErrorBody::new(ErrorCode::SessionLimit, "a newer login took this session's place");
        EnterError { body, close: Some(CloseCode::Replaced) }
    }

    fn ready(&self, attachment: &Attachment, ticket: String, stamp: Stamp, token_expires_at: u64) -> Ready {
        let now = clock::now();
        Ready {
            session: attachment.session.to_string(),
            ticket,
            player: attachment.cell.player().as_str().to_owned(),
            stamp: wire_stamp(stamp),
            heartbeat_ms: clock::millis(self.settings.heartbeat),
            resume_ms: clock::millis(self.home.settings().rules.session_ttl),
            expires_in_ms: token_expires_at.saturating_sub(now.unix_ms),
            now_ms: now.unix_ms,
            node: self.settings.node.clone(),
            prov: attachment.provisional(),
            limits: self.settings.limits.clone(),
            ..Ready::default()
        }
    }

    /// Pushes what others look like now to a session that lost pushes, or changed its home.
    pub(super) async fn push_snapshots(&self, mailbox: &Arc<crate::hub::Mailbox>, players: &[PlayerId]) {
        let mut players = players.to_vec();
        for _ in 0..FOLLOW_TRIES {
            let found = self.lookup(&players).await;
            self.note_looks(&found);
            for (player, view) in &found {
                self.hub.push_to(mailbox, &crate::presence::push_of(player, view));
            }
            players.retain(|player| !found.contains_key(player));
            if players.is_empty() || mailbox.is_closed() {
                return;
            }
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }

    /// Pushes the messages that the store keeps for the player to one of her sessions, not faster than its link takes
    /// them. Until all are in, the mailbox owes them to the next link.
    pub(super) async fn push_kept(&self, mailbox: &Arc<crate::hub::Mailbox>) {
        mailbox.owe_kept(true);
        for _ in 0..FOLLOW_TRIES {
            match self.home.kept_messages(mailbox.player()).await {
                Ok(messages) => {
                    for (id, body) in messages {
                        while mailbox.is_crowded(self.hub.settings()) {
                            tokio::time::sleep(CROWDED).await;
                        }
                        self.hub.push_to(mailbox, &Arc::new(Push::kept(id, body)));
                    }
                    return mailbox.owe_kept(false);
                }
                Err(_) if mailbox.is_closed() => return,
                Err(error) => {
                    tracing::debug!(operation = "messages", player = %mailbox.player(), status = %error);
                    tokio::time::sleep(FOLLOW_EVERY).await;
                }
            }
        }
    }

    /// Tells a watcher of those who could not be told, as soon as they can.
    pub(super) fn follow(self: &Arc<Self>, mailbox: Arc<crate::hub::Mailbox>, players: Vec<PlayerId>) {
        let sessions = Arc::clone(self);
        self.tasks.spawn("follow", async move {
            tokio::select! {
                biased;
                () = sessions.tasks.stopping() => {}
                () = sessions.push_snapshots(&mailbox, &players) => {}
            }
        });
    }

    /// One who watches these players has seen them.
    pub(super) fn note_looks(&self, found: &HashMap<PlayerId, PresenceView>) {
        found.iter().for_each(|(player, view)| self.presence.looked(player, view));
    }

    /// What others see of these players; whoever is not in the answer cannot be told now.
    pub(super) async fn lookup(&self, players: &[PlayerId]) -> HashMap<PlayerId, PresenceView> {
        let (mut found, absent) = self.lookup_hot(players);
        self.lookup_absent(absent, &mut found).await;
        found
    }

    /// The same from memory alone, and those who are not there.
    pub(super) fn lookup_hot(&self, players: &[PlayerId]) -> (HashMap<PlayerId, PresenceView>, Absent) {
        let (mut found, mut absent) = (HashMap::with_capacity(players.len()), Absent::default());
        for player in players {
            match self.home.presence_hot(player) {
                Some(Lookup::Known(view)) => {
                    found.insert(player.clone(), view);
                }
                Some(Lookup::Unknown) => absent.elsewhere.push(player.clone()),
                None => absent.cold.push(player.clone()),
            }
        }
        (found, absent)
    }

    /// Adds those who were not in memory, as far as their home or the store can tell.
    pub(super) async fn lookup_absent(&self, absent: Absent, found: &mut HashMap<PlayerId, PresenceView>) {
        let Absent { cold, elsewhere } = absent;
        let looks = (self.home.presence_cold(&cold, COLD_WITHIN), self.presence.look_elsewhere(&elsewhere));
        let (loaded, told) = tokio::join!(looks.0, looks.1);
        for (player, lookup) in loaded {
            if let Lookup::Known(view) = lookup {
                found.insert(player, view);
            }
        }
        found.extend(told);
    }
}
