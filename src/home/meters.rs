//! What `home` measures. Names stand in `telemetry::metrics`; here is only when to count.

use std::time::Duration;

use super::lease::State;

/// Records a batch carried.
pub(super) fn flush_batch_records(records: usize) {
    metrics::histogram!("hearth_flush_batch_records").record(records as f64);
}

/// How long the store took for a commit.
pub(super) fn commit_seconds(took: Duration) {
    metrics::histogram!("hearth_commit_seconds").record(took.as_secs_f64());
}

/// What became of a commit.
pub(super) fn commit_outcome(outcome: &'static str) {
    metrics::counter!("hearth_commits_total", "outcome" => outcome).increment(1);
}

/// How many shards are in each state.
pub(super) fn lease_states(states: impl Iterator<Item = State>) {
    let mut counts = [0u32; 7];
    for state in states {
        if let Some(count) = counts.get_mut(state as usize) {
            *count += 1;
        }
    }
    let all = [
        State::Free,
        State::Loading,
        State::Owned,
        State::Unsure,
        State::Paused,
        State::Repair,
        State::Fenced,
    ];
    for (state, count) in all.into_iter().zip(counts) {
        metrics::gauge!("hearth_shards", "state" => state.name()).set(count);
    }
}

/// A shard was taken again because the store lost writes.
pub(super) fn repaired() {
    metrics::counter!("hearth_repairs_total").increment(1);
}
