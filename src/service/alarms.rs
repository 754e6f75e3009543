//! What rings at which node, for those who follow the events. The nodes are asked at most once a second however many
//! follow, and the store never: it may be what rings. What one who follows is told of it is `ringing`'s; what rings is the
//! watch's.

use std::time::Duration;

use futures_util::future::join_all;
use protocol::calls::Alarm;

use super::Service;
use super::consumers::{Consumer, Over};
use super::others::{Question, SAID_WITHIN};
use super::ringing::{Heard, Ringing};
use crate::clock;
use crate::telemetry::watch::Glance;

/// How often a consumer's task looks.
const EVERY: Duration = Duration::from_secs(1);

/// Tells a consumer what rings when it comes, and what begins and ends from then on. Who reads slowly is told less of what
/// is over meanwhile, for what is told is how things stand beside what was told last.
pub(super) async fn follow(service: &Service, consumer: &Consumer) -> Result<(), Over> {
    let mut heard = Heard::default();
    loop {
        let ringing = service.ringing.get(service.look_who_rings()).await;
        consumer.admit()?;
        consumer.say(heard.take(&ringing)).await?;
        consumer.pause(EVERY).await?;
    }
}

impl Service {
    async fn look_who_rings(&self) -> Ringing {
        let others = self.others();
        let asked = others.iter().map(|node| self.ask::<Vec<Alarm>>(node, &Question::Alarms, SAID_WITHIN));
        let told = join_all(asked).await.into_iter().map(Result::ok);
        // This process is always the same one to itself.
        let me = self.settings.node_id.clone();
        let mine = (me.clone(), me, Some(self.alarms_here(&self.settings.board.look())));
        let said = others.iter().zip(told).map(|(it, said)| (it.node().to_owned(), it.to_string(), said));
        Ringing::of(clock::now().unix_ms, std::iter::once(mine).chain(said))
    }

    /// What rings at this node, as operators are told it.
    pub(super) fn alarms_here(&self, glance: &Glance) -> Vec<Alarm> {
        let told = glance.alarms.iter().map(|alarm| Alarm {
            name: alarm.name.to_owned(),
            node: self.settings.node_id.clone(),
            severity: alarm.severity.name().to_owned(),
            since: alarm.since_unix_ms,
            value: alarm.value,
            limit: alarm.limit,
            unit: alarm.unit.to_owned(),
            text: alarm.text.clone(),
            r#do: alarm.advice.to_owned(),
            ending: alarm.is_ending,
        });
        told.collect()
    }
}
