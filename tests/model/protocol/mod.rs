//! One shard, its store, the nodes that want it, and one player who writes and comes back, as a model for stateright:
//! which steps there are from where. The lease machine, the history rule and the store's rules are the real ones;
//! `world` is what they stand in, `node` and `player` are the thin shells around them, `promises` says what must hold in
//! every state, and `stories` how far it was looked.

mod node;
mod player;
mod promises;
mod store;
mod stories;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use stateright::{Model, Property};

use self::node::Part;
use self::world::{Bounds, Guards, NODES_MAX, Seen, World};

/// A world with its bounds, and the guards that stand in it.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    pub(crate) bounds: Bounds,
    pub(crate) guards: Guards,
    /// What has happened on some way: beside the states, for it would double them.
    seen: Arc<AtomicU32>,
}

/// One step. A pause of a node is a way through the states on which it takes none while time goes on; a message that is
/// lost is one that is never carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// One tick of time, the same for all.
    Pass,
    /// A node's keeper looks at its lease.
    Tick(usize),
    /// A node sends what is dirty.
    Flush(usize),
    /// What a node asked for is carried out where it was asked, and the answer arrives.
    CarryOut(usize, Part),
    /// The same, and the answer is on its way for a while.
    CarryOutSlowly(usize, Part),
    /// It arrives.
    Answer(usize, Part),
    /// The answer is not waited for any longer. What was asked for may be carried out later all the same.
    GiveUp(usize, Part),
    /// Something that nobody waits for any more is carried out.
    CarryOutLate(usize),
    /// The same, and it will come once more.
    CarryOutTwice(usize),
    /// `kill -9` of a node, and its start.
    Crash(usize),
    /// The store is copied to where it may go back to.
    Copy,
    /// The store goes back to its copy.
    GoBack,
    /// The store is emptied.
    Empty,
    /// The player changes her state where she is attached.
    Write,
    /// The player comes to a node: she takes her session up again, or logs in.
    Come(usize),
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.first_home()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        steps.extend([Step::Pass, Step::Copy, Step::GoBack, Step::Empty, Step::Write]);
        for at in 0..world.nodes.len() {
            steps.extend([Step::Tick(at), Step::Flush(at), Step::Crash(at), Step::Come(at)]);
            for part in Part::ALL {
                steps.extend([Step::CarryOut(at, part), Step::CarryOutSlowly(at, part)]);
                steps.extend([Step::Answer(at, part), Step::GiveUp(at, part)]);
            }
        }
        for at in 0..world.late.len() {
            steps.extend([Step::CarryOutLate(at), Step::CarryOutTwice(at)]);
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        let taken = self.take(&mut world, step);
        (taken && world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::all()
    }
}

impl Protocol {
    /// Takes a step; `false` if there is none.
    fn take(&self, world: &mut World, step: Step) -> bool {
        match step {
            Step::Pass => spend(&mut world.left.ticks) && world.pass(),
            Step::Tick(at) => world.tick(self, at),
            Step::Flush(at) => world.flush(at),
            Step::CarryOut(at, part) => world.carry_out(self, at, part) && world.answer(self, at, part),
            Step::CarryOutSlowly(at, part) => spend(&mut world.left.slow) && world.carry_out(self, at, part),
            Step::Answer(at, part) => world.answer(self, at, part),
            Step::GiveUp(at, part) => spend(&mut world.left.give_ups) && world.give_up(self, at, part),
            Step::CarryOutLate(at) => world.carry_out_late(self, at, false),
            Step::CarryOutTwice(at) => spend(&mut world.left.repeats) && world.carry_out_late(self, at, true),
            Step::Crash(at) => spend(&mut world.left.crashes) && world.crash(at),
            Step::Copy => spend(&mut world.left.copies) && world.copy_store(),
            Step::GoBack => spend(&mut world.left.losses) && world.store_goes_back(),
            Step::Empty => spend(&mut world.left.emptyings) && world.store_is_emptied(),
            Step::Write => spend(&mut world.left.writes) && world.write(self),
            Step::Come(at) => spend(&mut world.left.comings) && world.come(self, at),
        }
    }

    /// The first node holds the shard, the player is attached there and her login is stored: from here on things go
    /// wrong. Brought about by the same steps.
    fn first_home(&self) -> World {
        assert!((1..=NODES_MAX).contains(&self.bounds.nodes));
        let mut world = World::new(self.bounds);
        let mut go = |steps: &[Step]| {
            for step in steps {
                assert!(self.take(&mut world, *step), "{step:?} in {world:#?}");
            }
        };
        go(&[Step::Tick(0), Step::CarryOut(0, Part::Lease), Step::CarryOut(0, Part::Work)]);
        go(&[Step::Come(0), Step::Flush(0), Step::CarryOut(0, Part::Commit)]);
        world.begin(self.bounds);
        self.seen.store(0, Ordering::Relaxed);
        world
    }

    pub(crate) fn new(bounds: Bounds, guards: Guards) -> Self {
        Self { bounds, guards, seen: Arc::default() }
    }

    pub(crate) fn saw(&self, what: Seen) {
        self.seen.fetch_or(1 << what as u32, Ordering::Relaxed);
    }

    pub(crate) fn has_seen(&self, what: Seen) -> bool {
        self.seen.load(Ordering::Relaxed) & (1 << what as u32) != 0
    }
}

/// Whether there is one left, which is then used up.
const fn spend(left: &mut u8) -> bool {
    if *left == 0 {
        return false;
    }
    *left -= 1;
    true
}
