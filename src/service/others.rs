//! What the API asks of other nodes for a call that concerns them all: to count what they hold, to give a message to
//! those at home there. One question a node, all at a time, each with a deadline. `onward` hears what others ask.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Service;
use super::shares::Share;
use crate::cluster::{CallError, Topic};
use crate::ids::{Owner, ShardId};
use crate::telemetry::traces::{self, Kind, Span};

/// How long another one, a node or the store, may take for its part of what is shown of all.
pub(super) const SAID_WITHIN: Duration = Duration::from_millis(500);

/// What one node asks another.
#[derive(Serialize, Deserialize)]
pub(super) enum Question {
    /// How many are there? `stats::Count`.
    Count,
    /// Give this message to those at home there: `shares::Given`.
    Share(Share),
    /// How are you? `overview::Part`.
    Overview,
    /// What rings at yours? A list of `protocol::calls::Alarm`.
    Alarms,
}

impl Question {
    fn span(&self, kind: Kind) -> Span {
        Span::new(
            kind,
            match self {
                Self::Count => "peer count",
                Self::Share(_) => "peer share",
                Self::Overview => "peer overview",
                Self::Alarms => "peer alarms",
            },
        )
    }
}

impl Service {
    /// Asks a node.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        node: &Owner,
        question: &Question,
        deadline: Duration,
    ) -> Result<T, CallError> {
        let body = rmp_serde::to_vec_named(question).map_err(|_| CallError::Refused)?;
        let work = traces::begin_here();
        let asking = self.peers.call(node, Topic::Service, body.into(), deadline);
        let answer = traces::during(work.as_ref(), asking).await;
        if let Some(work) = work {
            let failed = answer.as_ref().err().map(|error| error.name().into());
            work.end(failed, || question.span(Kind::Client).with("hearth.peer", node.node().to_owned()));
        }
        let answer = answer.and_then(|answer| rmp_serde::from_slice(&answer).map_err(|_| CallError::Refused));
        if let Err(error) = &answer {
            tracing::debug!(operation = "service", to = %node, status = %error, "a question has no answer");
        }
        answer
    }

    /// Answers another node.
    pub(super) async fn answer(&self, question: Question) -> Option<Bytes> {
        let (work, span) = (traces::begin_here(), question.span(Kind::Server));
        let answer = traces::during(work.as_ref(), self.answer_to(question)).await;
        if let Some(work) = work {
            work.end(None, || span);
        }
        answer
    }

    async fn answer_to(&self, question: Question) -> Option<Bytes> {
        let answer = match question {
            Question::Count => rmp_serde::to_vec_named(&self.count_here().await),
            Question::Overview => rmp_serde::to_vec_named(&*self.part().await),
            Question::Alarms => rmp_serde::to_vec_named(&self.alarms_here(&self.settings.board.look())),
            Question::Share(share) => rmp_serde::to_vec_named(&self.give(share).await?),
        };
        answer.ok().map(Bytes::from)
    }

    /// The other nodes: members, and whoever has a link already.
    pub(super) fn others(&self) -> BTreeSet<Owner> {
        let cluster = self.home.cluster();
        let members = cluster.seen().iter().map(|seen| seen.member.owner.clone());
        let mut others: BTreeSet<_> = members.chain(self.peers.peers()).collect();
        others.remove(cluster.me());
        others
    }

    /// How many shards there are beside these.
    pub(super) fn shards_beside(&self, shards: &BTreeSet<u16>) -> usize {
        let all = self.home.placement().all().map(ShardId::number);
        all.filter(|shard| !shards.contains(shard)).count()
    }
}
