//! What a link may do, as a pure machine: one verdict a frame, before anything is carried out. Called by `link`.
//! The order is fixed: the link's own limit, then whether it is a request at all, then the session's limit by kind.

use protocol::{DecodeError, ErrorCode, Request};

use crate::clock::Now;
use crate::limits::{Kind, LinkLimiter, RateLimited, Rates, SessionLimits};

/// What to do with a frame.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict<'a> {
    /// Carry it out.
    Go(u32, Request<'a>),
    /// Answer with an error; the link stays open.
    Refuse(DecodeError),
    /// Answer `rate_limited`.
    TooFast {
        /// Which limit it was, for metrics.
        limit: &'static str,
        /// The frame's ref, where it was read.
        reference: u32,
        /// How long to wait.
        retry_after_ms: u32,
    },
    /// Too many refusals: close with 4506.
    Abuse,
}

/// One link's machine.
#[derive(Debug, Default)]
pub(super) struct Machine {
    limiter: LinkLimiter,
}

impl Machine {
    /// Judges one frame.
    pub(super) fn judge<'a>(
        &mut self,
        rates: &Rates,
        session: &SessionLimits,
        now: Now,
        decode: impl FnOnce() -> Result<(u32, Request<'a>), DecodeError>,
    ) -> Verdict<'a> {
        if let Err(limited) = self.limiter.check(rates, now) {
            let reference = decode().map_or(0, |(reference, _)| reference);
            return self.too_fast(rates, now, reference, ("frame", limited));
        }
        let (reference, request) = match decode() {
            Ok(decoded) => decoded,
            Err(error) => return Verdict::Refuse(error),
        };
        if matches!(request, Request::Login(_) | Request::Resume(_)) {
            return Verdict::Refuse(DecodeError {
                code: ErrorCode::AlreadyLoggedIn,
                reference,
                message: "this link has its session already".to_owned(),
            });
        }
        let check = |kind: Kind| session.check(rates, kind, now).map_err(|limited| (kind.as_str(), limited));
        match kind_of(&request).map_or(Ok(()), check) {
            Ok(()) => {
                self.limiter.pass();
                Verdict::Go(reference, request)
            }
            Err(refusal) => self.too_fast(rates, now, reference, refusal),
        }
    }

    /// Counts a frame that asks for nothing, such as a WebSocket ping; whether the link must be closed (4506).
    pub(super) fn count(&mut self, rates: &Rates, now: Now) -> bool {
        match self.limiter.check(rates, now) {
            Ok(()) => {
                self.limiter.pass();
                false
            }
            Err(_) => self.limiter.strike(rates, now),
        }
    }

    fn too_fast<'a>(
        &mut self,
        rates: &Rates,
        now: Now,
        reference: u32,
        (limit, limited): (&'static str, RateLimited),
    ) -> Verdict<'a> {
        if self.limiter.strike(rates, now) {
            Verdict::Abuse
        } else {
            Verdict::TooFast { limit, reference, retry_after_ms: self.limiter.wait_ms(limited) }
        }
    }
}

const fn kind_of(request: &Request<'_>) -> Option<Kind> {
    match request {
        Request::StatePatch(_) => Some(Kind::State),
        Request::PresenceSet(_) => Some(Kind::Presence),
        Request::Watch(_) | Request::Unwatch(_) => Some(Kind::Watch),
        Request::StateGet(_) | Request::PresenceGet(_) | Request::RoomMembers(_) => Some(Kind::Query),
        Request::Send(_) => Some(Kind::Send),
        Request::RoomJoin(_) | Request::RoomLeave(_) | Request::RoomMeta(_) => Some(Kind::Room),
        Request::RoomSend(_) => Some(Kind::RoomSend),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use protocol::request::{Ping, StatePatch};

    fn ping() -> Result<(u32, Request<'static>), DecodeError> {
        Ok((7, Request::Ping(Ping::default())))
    }

    fn rates() -> Rates {
        Rates::from_settings(&Settings::default().limits)
    }

    #[test]
    fn a_second_login_and_a_broken_frame_are_refused_and_the_link_stays() {
        let (rates, session, mut machine) = (rates(), SessionLimits::default(), Machine::default());
        let now = Now { mono_ms: 1000, unix_ms: 1000 };
        let login =
            protocol::request::Login { token: "dev:a".into(), device: None, relay: None, status: None };
        let verdict = machine.judge(&rates, &session, now, || Ok((3, Request::Login(login))));
        assert!(matches!(verdict, Verdict::Refuse(error) if error.code == ErrorCode::AlreadyLoggedIn));
        let broken =
            DecodeError { code: ErrorCode::BadFrame, reference: 0, message: "not a frame".to_owned() };
        let verdict = machine.judge(&rates, &session, now, || Err(broken.clone()));
        assert_eq!(verdict, Verdict::Refuse(broken));
        assert!(matches!(machine.judge(&rates, &session, now, ping), Verdict::Go(7, Request::Ping(_))));
    }

    #[test]
    fn a_flood_is_slowed_then_closed_and_a_pause_heals() {
        let (rates, session, mut machine) = (rates(), SessionLimits::default(), Machine::default());
        let now = Now { mono_ms: 1000, unix_ms: 1000 };
        let mut slowed = 0;
        let closed = (0..1000).any(|_| match machine.judge(&rates, &session, now, ping) {
            Verdict::TooFast { limit: "frame", reference, retry_after_ms } => {
                assert!(reference == 7 && retry_after_ms >= 1);
                slowed += 1;
                false
            }
            Verdict::Abuse => true,
            _ => false,
        });
        assert!(closed && slowed > 0);
        let later = now.plus_ms(60_000);
        assert!(matches!(machine.judge(&rates, &session, later, ping), Verdict::Go(..)));
    }

    #[test]
    fn kinds_have_limits_of_their_own_over_all_links_of_a_session() {
        let (rates, session) = (rates(), SessionLimits::default());
        let now = Now { mono_ms: 1000, unix_ms: 1000 };
        let patch = || Ok((1, Request::StatePatch(StatePatch::default())));
        let mut first = Machine::default();
        while matches!(first.judge(&rates, &session, now, patch), Verdict::Go(..)) {}
        let mut second = Machine::default();
        assert!(matches!(second.judge(&rates, &session, now, patch), Verdict::TooFast { .. }));
        assert!(matches!(second.judge(&rates, &session, now, ping), Verdict::Go(..)));
    }
}
