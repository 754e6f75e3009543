//! What a scenario is, and the list of them. A scenario is a value: what it wants on the stage, what it does, and what must
//! then hold; a new one is a file, or a part of one, and a line in the list.

use std::collections::BTreeMap;

use load::checkers::Evidence;
use load::faults::findings::Findings;
use load::faults::report::Head;
use load::faults::timeline::Mark;
use load::report::Report as LoadReport;

use crate::line::Settings;
use crate::run::{Exit, Play};
use crate::stage::Plan;
use crate::store::Shape;
use crate::{
    chaos, cut, descriptors, disk, drains, expiry, failovers, logins, nodes, rough_links, settings, slots,
    store_faults, storm, vital,
};

/// A scenario of the plan.
pub(crate) struct Scenario {
    /// `F1` to `F19`, or `chaos`.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) plan: Plan,
    /// What it does: faults, waits for what they bring about, heals. Everything else (load, audit, checkers, the looks at
    /// presence) goes on around it.
    pub(crate) play: Play,
    /// What must hold besides the checkers, and what must have been exercised.
    pub(crate) weigh: fn(&Told<'_>, &mut Findings),
    /// Checkers whose promise does not cover this fault.
    pub(crate) excused: &'static [&'static str],
    /// Part of `tests/run`.
    pub(crate) in_default: bool,
    /// Part of `tests/run faults --ci`.
    pub(crate) in_ci: bool,
}

impl Scenario {
    /// What a report of it is called.
    pub(crate) fn head(&self, settings: Settings) -> Head {
        let Settings { seed, ttl_ms, .. } = settings;
        Head {
            name: self.name.to_owned(),
            title: self.title.to_owned(),
            seed,
            ttl_ms,
            again: format!("{} --seed {seed} --ttl-ms {ttl_ms}", self.name),
            excused: self.excused,
        }
    }
}

/// All that is known when the bots have gone.
pub(crate) struct Told<'a> {
    pub(crate) evidence: Evidence<'a>,
    pub(crate) load: &'a LoadReport,
    pub(crate) marks: &'a [Mark],
    /// How nodes ended that were asked to.
    pub(crate) exits: &'a [Exit],
    /// Numbers that the scenario took down.
    pub(crate) noted: &'a BTreeMap<&'static str, Vec<u64>>,
    pub(crate) settings: Settings,
}

/// A run of so many minutes in which sessions can run out shows that they do.
const EXPIRY_MINUTES: u64 = 5;

impl Scenario {
    /// Checkers that may have nothing to say; in all other scenarios each must, or the run proves nothing.
    pub(crate) fn may_be_silent(&self, checker: &str, settings: Settings) -> bool {
        match checker {
            // There is no server of the store to look into.
            "C6" => matches!(self.plan.shape, Shape::Embedded),
            // Bots are players of their own: F15 lets links of one player meet, and judges them itself.
            "C8" => true,
            // Sessions last longer than the run, or nobody comes back to one that is over: F14 judges those itself.
            "C9" => !self.plan.is_long || settings.minutes < EXPIRY_MINUTES,
            _ => false,
        }
    }
}

impl Told<'_> {
    /// The numbers that were taken down under this name.
    pub(crate) fn noted(&self, what: &str) -> &[u64] {
        self.noted.get(what).map_or(&[], Vec::as_slice)
    }

    /// How long after a moment this was noticed, in ms; none if it never was.
    pub(crate) fn ms_until(&self, what: &str, since_us: u64) -> Option<u64> {
        let mut after = self.marks.iter().filter(|mark| mark.at_us >= since_us);
        after.find(|mark| mark.what == what).map(|mark| (mark.at_us - since_us) / 1_000)
    }
}

/// All of them, in the plan's order; `all` on the command line means those with a number.
pub(crate) static ALL: &[Scenario] = &[
    nodes::F1,
    nodes::F2,
    nodes::F3,
    drains::F4,
    drains::F5,
    store_faults::F6,
    store_faults::F7,
    rough_links::F8,
    rough_links::F9,
    failovers::F10,
    slots::F11,
    settings::F12,
    cut::F13,
    expiry::F14,
    logins::F15,
    vital::F16,
    descriptors::F17,
    storm::F18,
    disk::F19,
    chaos::CHAOS,
];
