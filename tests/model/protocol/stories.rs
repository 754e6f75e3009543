//! How far the model was looked through, and that it sees what it is there to see. Each story walks all ways within its
//! bounds, breadth first, and prints what that were; `README.md` holds the figures.

use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model as _};

use super::Protocol;
use super::world::{Bounds, Guards};

/// Two nodes, and nothing happens.
const QUIET: Bounds = Bounds {
    nodes: 2,
    tick_ms: 2_500,
    ticks: 0,
    writes: 0,
    comings: 0,
    give_ups: 0,
    slow: 0,
    repeats: 0,
    crashes: 0,
    copies: 0,
    losses: 0,
    emptyings: 0,
};

/// Whether to look further than a test may take.
fn is_deep() -> bool {
    std::env::var_os("HEARTH_MODEL_DEEP").is_some()
}

/// Walks all ways; every promise must hold and each of these must have happened.
fn all_hold(story: &str, bounds: Bounds, happens: &[&'static str]) {
    let began = Instant::now();
    let checker = Protocol::new(bounds, Guards::ALL).checker().threads(2).spawn_bfs().join();
    println!(
        "{story}: {} states, {} of them different, depth {}, {:.1?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    for property in checker.model().properties() {
        if property.expectation == Expectation::Always {
            checker.assert_no_discovery(property.name);
        }
    }
    for name in happens {
        checker.assert_any_discovery(name);
    }
}

/// With a guard off, this promise does not hold: the model sees it.
fn is_seen(bounds: Bounds, guards: Guards, promise: &'static str) {
    let model = Protocol::new(bounds, guards);
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found: Vec<_> = checker.discoveries().into_keys().collect();
    let path = checker.discovery(promise).unwrap_or_else(|| panic!("{promise} holds, or {found:?} first"));
    println!("{promise}: {:?}", path.into_actions());
}

const TAKE_OVER: &[&str] =
    &["a shard is taken over", "a commit of an epoch before is fenced", "a loss is told"];

#[test]
fn whatever_is_lost_late_or_repeated_on_the_way_every_promise_holds() {
    let bounds = Bounds { ticks: 3, writes: 2, comings: 1, give_ups: 1, slow: 1, repeats: 1, ..QUIET };
    let deeper = Bounds { comings: 2, give_ups: 2, ..bounds };
    let late = ["a batch that timed out is carried out late", "a batch with an old number is told so"];
    let happens = [TAKE_OVER, &late].concat();
    all_hold("late", if is_deep() { deeper } else { bounds }, &happens);
}

#[test]
fn whoever_crashes_every_promise_holds() {
    let bounds = Bounds { ticks: 3, writes: 2, comings: 2, crashes: 1, ..QUIET };
    let deeper = Bounds { ticks: 4, give_ups: 1, crashes: 2, ..bounds };
    all_hold("crash", if is_deep() { deeper } else { bounds }, TAKE_OVER);
}

#[test]
fn among_three_nodes_every_promise_holds() {
    let bounds = Bounds { nodes: 3, ticks: 4, writes: 2, comings: 2, ..QUIET };
    let deeper = Bounds { ticks: 6, give_ups: 1, ..bounds };
    all_hold("three", if is_deep() { deeper } else { bounds }, TAKE_OVER);
}

#[test]
fn a_store_that_goes_back_is_repaired_and_nothing_is_lost_silently() {
    let bounds = Bounds { ticks: 3, writes: 2, comings: 2, give_ups: 1, losses: 1, ..QUIET };
    let deeper = Bounds { ticks: 4, copies: 1, ..bounds };
    let repairs = ["a shard is repaired", "a lost record is written again", "a home is overtaken"];
    let happens = [TAKE_OVER, &repairs].concat();
    all_hold("back", if is_deep() { deeper } else { bounds }, &happens);
}

#[test]
fn a_store_that_is_emptied_is_filled_again_and_nothing_is_lost_silently() {
    let bounds = Bounds { ticks: 2, writes: 2, comings: 1, emptyings: 1, ..QUIET };
    let deeper = Bounds { ticks: 3, comings: 2, give_ups: 1, ..bounds };
    let happens = ["a shard is repaired", "a lost record is written again", "a loss is told"];
    all_hold("emptied", if is_deep() { deeper } else { bounds }, &happens);
}

#[test]
fn in_short_ticks_no_two_homes_answer_at_a_time() {
    let bounds = Bounds { tick_ms: 1_000, ticks: 7, give_ups: 1, slow: 1, ..QUIET };
    let deeper = Bounds { ticks: 12, writes: 1, comings: 1, ..bounds };
    all_hold("short", if is_deep() { deeper } else { bounds }, &["a shard is taken over"]);
}

#[test]
fn without_the_fence_a_batch_of_an_old_epoch_comes_in() {
    let guards = Guards { fence: false, ..Guards::ALL };
    is_seen(Bounds { ticks: 3, writes: 1, ..QUIET }, guards, "I3: no commit below the stored epoch");
}

#[test]
fn without_the_numbers_an_old_batch_comes_in() {
    let guards = Guards { stale: false, ..Guards::ALL };
    is_seen(Bounds { writes: 2, give_ups: 1, ..QUIET }, guards, "I3: no commit with an old f");
}

#[test]
fn without_the_gap_a_home_never_hears_what_its_store_lost() {
    let guards = Guards { gap: false, ..Guards::ALL };
    is_seen(Bounds { ticks: 1, writes: 1, losses: 1, ..QUIET }, guards, "I6: no store lost writes unnoticed");
}

#[test]
fn without_validity_two_homes_answer() {
    let guards = Guards { validity: false, ..Guards::ALL };
    let promise = "only the newest home answers, while the store has lost nothing";
    is_seen(Bounds { ticks: 3, ..QUIET }, guards, promise);
}

#[test]
fn without_the_fence_of_a_pull_a_home_goes_on_after_it_gave_its_shard_away() {
    let guards = Guards { pull_fences: false, ..Guards::ALL };
    is_seen(Bounds { ticks: 3, losses: 1, ..QUIET }, guards, "who has given its shard away is silent");
}

#[test]
fn without_history_a_loss_is_told_that_is_none() {
    let guards = Guards { history: false, ..Guards::ALL };
    is_seen(Bounds { ticks: 3, comings: 1, ..QUIET }, guards, "nobody is told of a loss that is none");
}

#[test]
fn without_stamps_a_loss_is_silent() {
    let guards = Guards { stamps: false, ..Guards::ALL };
    is_seen(Bounds { ticks: 3, writes: 1, comings: 1, ..QUIET }, guards, "I6: no silent rollback");
}

#[test]
fn who_holds_records_of_a_later_epoch_answers_under_that_one() {
    let guards = Guards { later: false, ..Guards::ALL };
    let bounds = Bounds { ticks: 3, writes: 2, comings: 1, losses: 1, ..QUIET };
    is_seen(bounds, guards, "an honest stamp is reached or lost");
}
