//! What must hold in every state of the model, by the names of the contract, and what must have happened in some: a
//! promise that holds because nothing ever happens is none.

use stateright::Property;

use super::Protocol;
use super::world::{Broken, Seen, World};

macro_rules! never {
    ($name:literal, $broken:ident) => {
        Property::always($name, |_: &Protocol, world: &World| world.broken != Some(Broken::$broken))
    };
}

macro_rules! at_times {
    ($name:literal, $seen:ident) => {
        Property::sometimes($name, |model: &Protocol, _: &World| model.has_seen(Seen::$seen))
    };
}

pub(crate) fn all() -> Vec<Property<Protocol>> {
    let mut all = promises();
    all.extend([
        at_times!("a shard is taken over", TakenOver),
        at_times!("a commit of an epoch before is fenced", Fenced),
        at_times!("a batch with an old number is told so", Stale),
        at_times!("a batch that timed out is carried out late", Late),
        at_times!("a loss is told", Told),
        at_times!("a shard is repaired", Repaired),
        at_times!("a home is overtaken", Overtaken),
        at_times!("a lost record is written again", Restored),
        at_times!("a change of a fork is taken for another", Mistaken),
    ]);
    all
}

pub(crate) fn promises() -> Vec<Property<Protocol>> {
    vec![
        never!("I1: epochs strictly increase", EpochFell),
        never!("I2: at most one home per epoch", EpochShared),
        never!("I3: no commit below the stored epoch", BelowTheEpoch),
        never!("I3: no commit with an old f", OldNumber),
        never!("I6: no silent rollback", Silent),
        never!("I6: no store lost writes unnoticed", Unnoticed),
        never!("nobody is told of a loss that is none", FalseAlarm),
        never!("an honest stamp is reached or lost", Behind),
        never!("C2: what was durable is lost by the store alone", DurableLost),
        Property::always("C2: a store that lost nothing has what was durable", |_, world: &World| {
            world.losses > 0 || world.player.durable & !world.store.changes() == 0
        }),
        Property::always(
            "only the newest home answers, while the store has lost nothing",
            |model: &Protocol, world: &World| {
                let answers = world.nodes.iter().filter(|node| node.serves(world.now_ms(), model.guards));
                world.losses > 0 || answers.into_iter().all(|node| node.lease.epoch() == world.newest())
            },
        ),
        Property::always("who answers has what it acked", |model: &Protocol, world: &World| {
            let at = world.player.at.filter(|_| world.player.is_ready());
            let Some(node) = at.map(|at| &world.nodes[at]) else { return true };
            let held = node.held.as_ref().map_or(0, |held| held.record.changes);
            !node.serves(world.now_ms(), model.guards) || world.player.acked & !held == 0
        }),
        Property::always("who has given its shard away is silent", |model: &Protocol, world: &World| {
            let answers = world.nodes.iter().filter(|node| node.serves(world.now_ms(), model.guards));
            answers.into_iter().all(|node| node.lease.epoch() >= node.pulled_under)
        }),
    ]
}
