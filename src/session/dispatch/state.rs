//! `state.get` and `state.patch` as `dispatch` carries them out.

use protocol::codes::ErrorCode;
use protocol::reply::{Changed, ErrorBody, StateGot};
use protocol::request::{StateGet, StatePatch};
use protocol::{Text, Value};

use super::Carried;
use crate::clock::Now;
use crate::home::history::Verdict;
use crate::home::record::state::Patch;
use crate::session::answer::{Answer, Body};
use crate::session::words::rolled_back;
use crate::session::{Attachment, Sessions};
use crate::wire::{house_stamp, read_value, wire_stamp, write_value};

impl Sessions {
    pub(super) fn state_get(&self, me: &Attachment, now: Now, get: &StateGet<'_>) -> Carried {
        let at_least = get.at_least.map(house_stamp);
        let applied = self.home.apply(&me.cell, now, |record, ctx| {
            record.touch_activity(ctx, me.session)?;
            let verdict = at_least.map(|claim| record.history.judge(record.stamp(), claim));
            let owned = |key: &str, value: &[u8]| (key.to_owned(), Box::<[u8]>::from(value));
            let state: Vec<(String, Box<[u8]>)> = match &get.keys {
                None => record.state.entries().map(|(key, value)| owned(key, value)).collect(),
                Some(keys) => {
                    let found = |key: &Text<'_>| Some(owned(key.as_str(), record.state.get(key.as_str())?));
                    keys.iter().filter_map(found).collect()
                }
            };
            Ok((verdict, state, record.state_stamp))
        })?;
        let (verdict, state, state_stamp) = applied.value;
        let stamp = wire_stamp(applied.stamp);
        let mut error = match verdict {
            None | Some(Verdict::Reached) => {
                let state = state.into_iter().map(|(key, value)| (key, read_value(&value))).collect();
                let body = StateGot { stamp, state, state_stamp: wire_stamp(state_stamp) };
                return Ok(Answer::Ok(Body::StateGot(body)));
            }
            Some(Verdict::Behind) => {
                ErrorBody::new(ErrorCode::Behind, "the record has not reached this stamp")
            }
            Some(Verdict::RolledBack(to)) => rolled_back(Some(wire_stamp(to))),
            Some(Verdict::Unknown) => rolled_back(None),
        };
        error.stamp = Some(stamp);
        Ok(Answer::Error(Box::new(error)))
    }

    pub(super) fn state_patch(&self, me: &Attachment, now: Now, patch: &StatePatch<'_>) -> Carried {
        let house = Patch {
            set: patch.set.iter().flatten().map(|(key, value)| (key.as_str(), write_value(value))).collect(),
            unset: patch.unset.iter().flatten().map(Text::as_str).collect(),
            incr: patch.incr.iter().flatten().map(|(key, by)| (key.as_str(), *by)).collect(),
            if_state: patch.if_state.map(house_stamp),
        };
        let applied = self
            .home
            .apply(&me.cell, now, |record, ctx| record.patch(ctx, me.session, &house, patch.cseq))?;
        let patched = applied.value;
        let counted = patched.counted.into_iter().map(|(key, count)| (key.into(), Value::Int(count)));
        let changed = Changed {
            stamp: wire_stamp(applied.stamp),
            state_stamp: Some(wire_stamp(patched.state_stamp)),
            state: (!house.incr.is_empty()).then(|| counted.collect()),
            ..Changed::default()
        };
        Ok(self.acked(me, changed, patch.ack, patched.admission))
    }
}
