//! The contract of a store: one text, run against the embedded store and against a real Redis in
//! every shape. What a store must do
//! is said here and nowhere else; the rules themselves are `hearth::store::judge`.

use std::time::Duration;

use bytes::Bytes;
use hearth::ids::{Epoch, FlushSeq, Generation, Owner, Version};
use hearth::store::{
    AcquireRequest, Acquired, COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, ClusterConfig, Commit, CommitRecord,
    Committed, EVENT_SHARDS_MAX, EVENTS_PER_SHARD_MAX, Entry, EventPlace, EventsRead, Goes, Keep,
    LOAD_PLAYERS_MAX, RecordStatus, Released, Renewed, ShardEvents, Stance, StoreError, StoredEvent,
    TIMELINE_MAX,
};

use super::fixture::{
    Fixture, Home, LONG, SHORT, for_each_store, live, player, remainder, request, restoring, shard, telling,
};
use super::random::it_agrees_with_the_rules_on_random_requests;
use crate::harness::patience::until;

for_each_store! {
    a_free_shard_is_granted_above_its_floor
    asking_again_brings_the_same_grant
    asking_with_the_own_epoch_as_floor_brings_a_new_one
    a_held_shard_names_its_holder_and_what_remains
    a_run_out_lease_goes_to_the_next_owner_who_learns_of_the_previous_one
    a_poisoned_floor_is_refused
    a_lease_far_ahead_is_cut_to_one_ttl
    a_renewal_extends_the_lease
    many_leases_are_asked_for_and_extended_together
    who_holds_a_shard_is_seen_without_asking_for_it
    a_run_out_lease_is_regranted_while_nobody_has_come
    a_renewal_of_what_is_not_ours_is_fenced
    a_renewal_above_what_is_stored_means_a_store_gone_back
    a_released_shard_is_free_and_its_late_writes_are_fenced
    releasing_what_is_not_ours_changes_nothing
    a_run_out_lease_can_still_be_released
    a_commit_is_read_back_byte_for_byte
    shards_share_nothing
    a_batch_that_comes_late_does_nothing
    a_gap_in_the_numbers_is_no_fault
    a_fenced_batch_changes_nothing
    a_batch_of_another_generation_finds_the_store_lost
    a_batch_ahead_of_the_store_finds_it_rolled_back
    a_first_record_over_an_older_epochs_is_returned_for_merging
    a_record_is_judged_by_what_is_stored
    our_own_timed_out_batch_is_written_over
    a_touch_writes_again_and_moves_the_expiry
    an_unmoved_record_changes_and_nothing_else_does
    an_unmoved_record_lives_as_long_as_before
    an_unmoved_record_that_this_epoch_did_not_leave_so_is_gone
    a_lost_record_is_gone_until_it_is_restored
    watches_stay_until_they_are_replaced_or_removed
    watches_live_as_long_as_their_record
    the_store_forgets_what_has_run_out
    a_remainder_leaves_the_index_and_raises_the_highest_ended_version
    an_erased_record_leaves_nothing
    live_players_come_in_pages_by_expiry
    pages_go_on_within_one_score
    a_name_without_a_record_is_counted
    players_are_loaded_in_the_order_asked
    entries_go_with_their_record_and_where_they_are_to
    a_batch_that_comes_again_writes_no_entry_twice
    a_timeline_keeps_its_last_fifty_entries
    a_timeline_is_forgotten_in_its_time
    events_are_read_behind_their_places_and_leave_no_number_out
    no_more_shards_are_read_together_than_may_be
    a_batch_has_its_limits
    many_shards_commit_at_once
    batches_sent_together_are_answered_each_by_its_own
    the_first_configuration_wins
    what_operators_said_stands_beside_the_configuration
    the_probe_writes_and_reads
    it_agrees_with_the_rules_on_random_requests
}

async fn a_free_shard_is_granted_above_its_floor(fixture: &Fixture) {
    let clock_ms = hearth::clock::now().unix_ms;
    let first = Home::take(fixture, "a#1").await;
    assert!(first.grant.epoch.number() + 60_000 > clock_ms, "{:?}", first.grant);
    assert_eq!(first.grant.flush_seq, FlushSeq::ZERO);
    assert_eq!(first.grant.version_max, Version::ZERO);
    assert_eq!(first.grant.previous_owner, None);

    let floor = Epoch::of(first.grant.epoch.number() + 3_600_000);
    let asked = AcquireRequest { shard: shard(8), floor, ..request("a#1", LONG) };
    let generation = asked.generation_if_new;
    let second = Home::ask(&fixture.store, asked).await;
    assert_eq!(second.grant.epoch, floor.next());
    assert_eq!(second.grant.generation, generation);
}

async fn asking_again_brings_the_same_grant(fixture: &Fixture) {
    let before = Home::take(fixture, "a#1").await.succeeded_by("b#1").await;
    assert_eq!(before.grant.previous_owner, Some(Owner::named("a#1")));
    let again = fixture.store.lease_acquire(request("b#1", LONG)).await.unwrap();
    assert_eq!(again, Acquired::AlreadyMine(before.grant));
}

async fn asking_with_the_own_epoch_as_floor_brings_a_new_one(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit_one(live("ann", 0, 1)).await;
    let asked = AcquireRequest { floor: home.grant.epoch, ..request("a#1", LONG) };
    match fixture.store.lease_acquire(asked).await.unwrap() {
        Acquired::Granted(grant) => {
            assert!(grant.epoch > home.grant.epoch);
            assert_eq!(grant.generation, home.grant.generation);
            assert_eq!(grant.flush_seq, home.acked);
            assert_eq!(grant.previous_owner, None);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(home.try_commit(vec![]).await.unwrap(), Committed::Fenced { .. }));
}

async fn a_held_shard_names_its_holder_and_what_remains(fixture: &Fixture) {
    Home::take(fixture, "a#1").await;
    match fixture.store.lease_acquire(request("b#1", LONG)).await.unwrap() {
        Acquired::Held { owner, remaining } => {
            assert_eq!(owner, Owner::named("a#1"));
            assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
        }
        other => panic!("{other:?}"),
    }
}

async fn a_run_out_lease_goes_to_the_next_owner_who_learns_of_the_previous_one(fixture: &Fixture) {
    let mut first = Home::ask(&fixture.store, request("a#1", SHORT)).await;
    first.commit_one(live("ann", 0, 1)).await;
    let grant = until("the lease runs out", || async {
        match fixture.store.lease_acquire(request("b#1", LONG)).await.unwrap() {
            Acquired::Granted(grant) => Some(grant),
            Acquired::Held { owner, .. } if owner == first.owner => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert!(grant.epoch > first.grant.epoch);
    assert_eq!(grant.previous_owner, Some(first.owner.clone()));
    assert_eq!((grant.flush_seq, grant.generation), (first.acked, first.grant.generation));
    let fenced = first.try_commit(vec![live("ann", 1, 2)]).await.unwrap();
    assert_eq!(fenced, Committed::Fenced { epoch: grant.epoch });
    assert_eq!(first.body("ann").await, (1, "ann at 1".into()));
}

async fn a_poisoned_floor_is_refused(fixture: &Fixture) {
    let two_days_ms = 2 * 24 * 60 * 60 * 1000;
    let floor = Epoch::of(hearth::clock::now().unix_ms + two_days_ms);
    let asked = AcquireRequest { floor, ..request("a#1", LONG) };
    assert_eq!(fixture.store.lease_acquire(asked).await.unwrap(), Acquired::FloorPoisoned);
    let home = Home::take(fixture, "a#1").await;
    assert!(home.grant.epoch < floor);
}

async fn a_lease_far_ahead_is_cut_to_one_ttl(fixture: &Fixture) {
    // As if the store's clock had been set back since the grant.
    Home::ask(&fixture.store, request("a#1", LONG)).await;
    match fixture.store.lease_acquire(request("b#1", SHORT)).await.unwrap() {
        Acquired::Held { remaining, .. } => assert!(remaining <= SHORT, "{remaining:?}"),
        other => panic!("{other:?}"),
    }
    until("the cut lease runs out", || async {
        let answer = fixture.store.lease_acquire(request("b#1", LONG)).await.unwrap();
        matches!(answer, Acquired::Granted(_)).then_some(())
    })
    .await;
}

async fn many_leases_are_asked_for_and_extended_together(fixture: &Fixture) {
    let asked = |owner, numbers: [u16; 3]| {
        numbers.map(|number| AcquireRequest { shard: shard(number), ..request(owner, LONG) }).to_vec()
    };
    fixture.store.lease_acquire(AcquireRequest { shard: shard(2), ..request("b#1", LONG) }).await.unwrap();
    let answers = fixture.store.lease_acquire_all(asked("a#1", [1, 2, 3])).await;
    let mut leases = Vec::new();
    for (number, answer) in (1..).zip(answers) {
        match answer.unwrap() {
            Acquired::Granted(grant) if number != 2 => leases.push((shard(number), grant.epoch)),
            Acquired::Held { owner, .. } if number == 2 => assert_eq!(owner.as_str(), "b#1"),
            other => panic!("{number}: {other:?}"),
        }
    }
    leases.insert(1, (shard(2), Epoch::of(1)));
    let owner = Owner::named("a#1");
    let answers: Vec<_> = fixture.store.lease_renew_all(&owner, leases, LONG).await;
    let renewed: Vec<_> =
        answers.iter().map(|answer| matches!(answer, Ok(Renewed::Renewed { .. }))).collect();
    assert_eq!(renewed, [true, false, true], "{answers:?}");
    assert!(matches!(answers[1], Ok(Renewed::Fenced { .. })), "{answers:?}");
    assert!(fixture.store.lease_renew_all(&owner, Vec::new(), LONG).await.is_empty());
}

async fn who_holds_a_shard_is_seen_without_asking_for_it(fixture: &Fixture) {
    let home = Home::take(fixture, "a#1").await;
    fixture.store.lease_acquire(AcquireRequest { shard: shard(8), ..request("b#1", SHORT) }).await.unwrap();
    let shards = vec![shard(7), shard(9)];
    let seen = fixture.store.holders(shards.clone()).await.unwrap();
    assert_eq!(seen.len(), 2);
    let held = seen[0].clone().unwrap();
    assert!(held.owner.as_str() == "a#1" && held.remaining <= LONG && held.remaining > LONG / 2, "{held:?}");
    assert_eq!(seen[1], None, "nobody has ever asked for it");
    until("the short lease runs out, and is still seen", async || {
        let seen = fixture.store.holders(vec![shard(8)]).await.unwrap();
        let held = seen[0].clone().unwrap();
        assert_eq!(held.owner.as_str(), "b#1");
        held.remaining.is_zero().then_some(())
    })
    .await;
    fixture.store.lease_release(home.shard, &home.owner, home.grant.epoch).await.unwrap();
    assert_eq!(fixture.store.holders(shards).await.unwrap(), [None, None]);
}

async fn a_renewal_extends_the_lease(fixture: &Fixture) {
    let mut home = Home::ask(&fixture.store, request("a#1", LONG / 2)).await;
    home.commit_one(live("ann", 0, 1)).await;
    let renewed = fixture.store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG).await.unwrap();
    assert_eq!(renewed, Renewed::Renewed { flush_seq: home.acked, generation: home.grant.generation });
    match fixture.store.lease_acquire(request("b#1", LONG)).await.unwrap() {
        Acquired::Held { remaining, .. } => assert!(remaining > LONG / 2, "{remaining:?}"),
        other => panic!("{other:?}"),
    }
}

async fn a_run_out_lease_is_regranted_while_nobody_has_come(fixture: &Fixture) {
    let moment = Duration::from_millis(1);
    let home = Home::ask(&fixture.store, request("a#1", moment)).await;
    let (flush_seq, generation) = (home.grant.flush_seq, home.grant.generation);
    until("a renewal comes late", || async {
        match fixture.store.lease_renew(home.shard, &home.owner, home.grant.epoch, moment).await.unwrap() {
            Renewed::Renewed { .. } => None,
            regranted => {
                assert_eq!(regranted, Renewed::Regranted { flush_seq, generation });
                Some(())
            }
        }
    })
    .await;
}

async fn a_renewal_of_what_is_not_ours_is_fenced(fixture: &Fixture) {
    let old = Home::take(fixture, "a#1").await;
    let (shard, old_epoch, a) = (old.shard, old.grant.epoch, old.owner.clone());
    let new = old.succeeded_by("b#1").await;
    let fenced = Renewed::Fenced { epoch: new.grant.epoch };
    assert_eq!(fixture.store.lease_renew(shard, &a, old_epoch, LONG).await.unwrap(), fenced);
    assert_eq!(fixture.store.lease_renew(shard, &a, new.grant.epoch, LONG).await.unwrap(), fenced);
}

async fn a_renewal_above_what_is_stored_means_a_store_gone_back(fixture: &Fixture) {
    let home = Home::take(fixture, "a#1").await;
    let renew = |number, epoch| fixture.store.lease_renew(shard(number), &home.owner, epoch, LONG);
    assert_eq!(renew(7, home.grant.epoch.next()).await.unwrap(), Renewed::RolledBack);
    assert_eq!(renew(8, home.grant.epoch).await.unwrap(), Renewed::RolledBack, "never granted");
}

async fn a_released_shard_is_free_and_its_late_writes_are_fenced(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let (shard, epoch) = (home.shard, home.grant.epoch);
    let released = fixture.store.lease_release(shard, &home.owner, epoch).await.unwrap();
    assert_eq!(released, Released::Released);
    let late = fixture.store.lease_renew(shard, &home.owner, epoch, LONG).await.unwrap();
    assert_eq!(late, Renewed::Fenced { epoch });
    let late = home.try_commit(vec![live("ann", 0, 1)]).await.unwrap();
    assert_eq!(late, Committed::Fenced { epoch });
    assert_eq!(home.load("ann").await, None);
    let next = Home::take(fixture, "b#1").await;
    assert_eq!(next.grant.previous_owner, Some(home.owner));
}

async fn releasing_what_is_not_ours_changes_nothing(fixture: &Fixture) {
    let home = Home::take(fixture, "a#1").await;
    let release = |number, owner, epoch| fixture.store.lease_release(shard(number), owner, epoch);
    let b = Owner::named("b#1");
    assert_eq!(release(7, &b, home.grant.epoch).await.unwrap(), Released::NotMine);
    assert_eq!(release(7, &home.owner, home.grant.epoch.next()).await.unwrap(), Released::NotMine);
    assert_eq!(release(8, &home.owner, home.grant.epoch).await.unwrap(), Released::NotMine);
    let renewed = fixture.store.lease_renew(shard(7), &home.owner, home.grant.epoch, LONG).await.unwrap();
    assert!(matches!(renewed, Renewed::Renewed { .. }));
}

async fn a_run_out_lease_can_still_be_released(fixture: &Fixture) {
    let mut reads = 1;
    loop {
        let home = Home::ask(&fixture.store, request("a#1", Duration::from_millis(1))).await;
        // Reads, more each time, until they take longer than the lease.
        for _ in 0..reads {
            home.load("nobody").await;
        }
        match fixture.store.lease_release(home.shard, &home.owner, home.grant.epoch).await.unwrap() {
            Released::RunOut => break,
            Released::Released if reads < 10_000 => reads *= 2,
            other => panic!("{other:?}"),
        }
    }
    let next = Home::take(fixture, "b#1").await;
    assert_eq!(next.grant.previous_owner, Some(Owner::named("a#1")));
}

async fn a_commit_is_read_back_byte_for_byte(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let every_byte = Bytes::from_iter(0..=255_u8);
    for (name, body) in [("ann", every_byte), ("{x}.s1:p:Zoë", Bytes::new()), ("-", Bytes::from("00ff"))] {
        let record = CommitRecord { p: body.clone(), w: Some(Bytes::from("w\r\n\0")), ..live(name, 0, 9) };
        assert_eq!(home.commit_one(record).await, RecordStatus::Applied);
        let stored = home.load(name).await.unwrap();
        assert_eq!((stored.epoch, stored.version.number()), (home.grant.epoch, 9));
        assert_eq!((stored.p, stored.w), (body, Some(Bytes::from("w\r\n\0"))));
    }
}

async fn shards_share_nothing(fixture: &Fixture) {
    let mut seventh = Home::take(fixture, "a#1").await;
    let asked = AcquireRequest { shard: shard(8), ..request("b#1", LONG) };
    let mut eighth = Home::ask(&fixture.store, asked).await;
    assert_ne!(seventh.grant.generation, eighth.grant.generation);
    seventh.commit_one(live("ann", 0, 1)).await;
    assert_eq!(eighth.load("ann").await, None);
    assert_eq!(eighth.live_players(10).await, (vec![], 0));
    assert_eq!(eighth.commit_one(live("ann", 0, 5)).await, RecordStatus::Applied);
    assert_eq!(seventh.body("ann").await.0, 1);
}

async fn a_batch_that_comes_late_does_nothing(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let late = home.batch(vec![live("ann", 0, 1), live("bob", 0, 1)]);
    let again = late.clone();
    home.commit_one(live("ann", 0, 2)).await;
    let stale = Committed::Stale { flush_seq: home.acked };
    assert_eq!(fixture.store.commit(late).await.unwrap(), stale);
    assert_eq!(home.body("ann").await, (2, "ann at 2".into()));
    assert_eq!(home.load("bob").await, None);
    assert_eq!(fixture.store.commit(again).await.unwrap(), stale);
    assert_eq!(home.live_players(10).await, (vec!["ann".into()], 0));
}

async fn a_gap_in_the_numbers_is_no_fault(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    for _ in 0..3 {
        home.batch(vec![]);
    }
    assert_eq!(home.commit_one(live("ann", 0, 1)).await, RecordStatus::Applied);
    let renewed = fixture.store.lease_renew(home.shard, &home.owner, home.grant.epoch, LONG).await.unwrap();
    let flush_seq = FlushSeq::of(home.grant.flush_seq.number() + 4);
    assert_eq!(renewed, Renewed::Renewed { flush_seq, generation: home.grant.generation });
}

async fn a_fenced_batch_changes_nothing(fixture: &Fixture) {
    let mut old = Home::take(fixture, "a#1").await;
    old.commit_one(live("ann", 0, 1)).await;
    let zombie: Vec<Commit> = vec![
        old.batch(vec![live("ann", 1, 2)]),
        old.batch(vec![remainder("ann", 1, 2)]),
        old.batch(vec![restoring(live("bob", 4, 5))]),
    ];
    let mut new = old.succeeded_by("b#1").await;
    for batch in zombie {
        let other_owner = Commit { epoch: new.grant.epoch, ..batch.clone() };
        for batch in [batch, other_owner] {
            let fenced = fixture.store.commit(batch).await.unwrap();
            assert_eq!(fenced, Committed::Fenced { epoch: new.grant.epoch });
        }
    }
    assert_eq!(new.body("ann").await, (1, "ann at 1".into()));
    assert_eq!(new.load("bob").await, None);
    assert_eq!(new.live_players(10).await, (vec!["ann".into()], 0));
    assert_eq!(new.commit_one(live("ann", 1, 2)).await, RecordStatus::Applied, "the number was not used up");
}

async fn a_batch_of_another_generation_finds_the_store_lost(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let batch = home.batch(vec![live("ann", 0, 1)]);
    let generation = Generation::of(home.grant.generation.number() ^ 1);
    let lost = fixture.store.commit(Commit { generation, ..batch.clone() }).await.unwrap();
    assert_eq!(lost, Committed::Lost);
    let lost = fixture.store.commit(Commit { shard: shard(8), ..batch }).await.unwrap();
    assert_eq!(lost, Committed::Lost, "a shard without meta");
    assert_eq!(home.load("ann").await, None);
}

async fn a_batch_ahead_of_the_store_finds_it_rolled_back(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit_one(live("ann", 0, 1)).await;
    let batch = home.batch(vec![live("ann", 1, 2)]);
    let acked_more =
        Commit { flush_seq_acked: home.acked.next(), flush_seq: FlushSeq::of(9), ..batch.clone() };
    assert_eq!(fixture.store.commit(acked_more).await.unwrap(), Committed::RolledBack);
    let later_epoch = Commit { epoch: home.grant.epoch.next(), ..batch.clone() };
    assert_eq!(fixture.store.commit(later_epoch.clone()).await.unwrap(), Committed::RolledBack);
    // Whoever the older epoch belongs to: a later home can repair, so it is not sent away as fenced.
    let other_owner = Commit { owner: Owner::named("b#1"), ..later_epoch };
    assert_eq!(fixture.store.commit(other_owner).await.unwrap(), Committed::RolledBack);
    assert_eq!(home.body("ann").await, (1, "ann at 1".into()));
}

async fn a_first_record_over_an_older_epochs_is_returned_for_merging(fixture: &Fixture) {
    let mut old = Home::take(fixture, "a#1").await;
    old.commit_one(CommitRecord { w: Some(Bytes::from("friends")), ..live("ann", 0, 4) }).await;
    old.commit_one(live("bob", 0, 5)).await;
    let epoch = old.grant.epoch;
    let mut new = old.succeeded_by("b#1").await;
    let records = vec![live("ann", 0, 9), restoring(live("bob", 0, 9)), live("cat", 0, 9)];
    let statuses = new.commit(records).await;
    match &statuses[..] {
        [RecordStatus::Exists(ann), RecordStatus::Exists(bob), RecordStatus::Applied] => {
            assert_eq!((ann.epoch, ann.version.number(), &ann.p[..]), (epoch, 4, &b"ann at 4"[..]));
            assert_eq!(ann.w.as_deref(), Some(&b"friends"[..]));
            assert_eq!((bob.epoch, bob.version.number(), bob.w.clone()), (epoch, 5, None));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(new.body("ann").await, (4, "ann at 4".into()));
    // Merged: above both, on the stored version.
    assert_eq!(new.commit_one(live("ann", 4, 10)).await, RecordStatus::Applied);
}

async fn a_record_is_judged_by_what_is_stored(fixture: &Fixture) {
    // Stored under the older epoch at 5 or under ours at 5; what a record with this base and version becomes.
    let table = [
        ("older", 5, 6, "applied", "applied"),
        ("older", 5, 5, "same", "same"),
        ("older", 4, 5, "same", "same"),
        ("older", 4, 6, "exists", "applied"),
        ("older", 6, 7, "gone", "repaired"),
        ("older", 3, 4, "exists", "exists"),
        ("ours", 0, 6, "applied", "applied"),
        ("ours", 0, 5, "same", "same"),
        ("ours", 4, 6, "applied", "applied"),
        ("ours", 5, 6, "applied", "applied"),
        ("ours", 6, 7, "gone", "repaired"),
        ("ours", 3, 4, "exists", "exists"),
        ("none", 0, 1, "applied", "applied"),
        ("none", 5, 6, "gone", "restored"),
        ("none", 5, 5, "gone", "restored"),
    ];
    let names: Vec<_> = (0..table.len()).map(|n| (format!("plain-{n}"), format!("restoring-{n}"))).collect();
    let mut old = Home::take(fixture, "a#1").await;
    for ((stored, ..), (plain, restore)) in table.iter().zip(&names) {
        if *stored == "older" {
            old.commit(vec![live(plain, 0, 5), live(restore, 0, 5)]).await;
        }
    }
    let mut home = old.succeeded_by("b#1").await;
    for ((stored, base, version, as_plain, as_restore), (plain, restore)) in table.iter().zip(&names) {
        if *stored == "ours" {
            home.commit(vec![live(plain, 0, 5), live(restore, 0, 5)]).await;
        }
        let row = format!("{stored}, base {base}, version {version}");
        let before = [home.load(plain).await, home.load(restore).await];
        let records = vec![live(plain, *base, *version), restoring(live(restore, *base, *version))];
        let statuses = home.commit(records).await;
        for (at, expected) in [as_plain, as_restore].into_iter().enumerate() {
            assert_eq!(name_of(&statuses[at]), *expected, "{row}, restore: {}", at == 1);
            let name = if at == 0 { plain } else { restore };
            match *expected {
                "gone" | "exists" => assert_eq!(home.load(name).await, before[at], "{row}"),
                _ => {
                    let stored = home.load(name).await.unwrap();
                    assert_eq!(
                        (stored.epoch, stored.version.number()),
                        (home.grant.epoch, *version),
                        "{row}"
                    );
                }
            }
        }
    }
}

fn name_of(status: &RecordStatus) -> &'static str {
    match status {
        RecordStatus::Applied => "applied",
        RecordStatus::Same => "same",
        RecordStatus::Repaired => "repaired",
        RecordStatus::Restored => "restored",
        RecordStatus::Gone => "gone",
        RecordStatus::Exists(_) => "exists",
    }
}

async fn our_own_timed_out_batch_is_written_over(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let timed_out = home.batch(vec![live("ann", 0, 3)]);
    fixture.store.commit(timed_out).await.unwrap();
    // Its answer never came: the base is still zero, and so is what was acknowledged.
    assert_eq!(home.commit_one(live("ann", 0, 4)).await, RecordStatus::Applied);
    assert_eq!(home.body("ann").await, (4, "ann at 4".into()));
}

async fn a_touch_writes_again_and_moves_the_expiry(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let at = |name: &str, score| CommitRecord {
        keep: Keep::Live { expires_at_unix_ms: score },
        ..live(name, 1, 1)
    };
    let first = |record: CommitRecord| CommitRecord { base: Version::ZERO, ..record };
    home.commit(vec![first(at("ann", 100)), first(at("bob", 200))]).await;
    assert_eq!(home.live_players(10).await.0, ["ann", "bob"]);
    assert_eq!(home.commit_one(at("ann", 300)).await, RecordStatus::Same);
    assert_eq!(home.live_players(10).await, (vec!["bob".into(), "ann".into()], 0));
    let mut next = home.succeeded_by("b#1").await;
    assert_eq!(next.commit_one(at("ann", 400)).await, RecordStatus::Same);
    assert_eq!(next.load("ann").await.unwrap().epoch, next.grant.epoch);
}

fn unmoved(name: &str, base: u64, version: u64) -> CommitRecord {
    CommitRecord { keep: Keep::Unmoved, known: false, ..live(name, base, version) }
}

async fn an_unmoved_record_changes_and_nothing_else_does(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let at = |name: &str, score| CommitRecord {
        keep: Keep::Live { expires_at_unix_ms: score },
        w: Some(Bytes::from("friends")),
        ..live(name, 0, 1)
    };
    home.commit(vec![at("ann", 100), at("bob", 200)]).await;
    let sent = CommitRecord { w: Some(Bytes::from("others")), ..unmoved("bob", 1, 2) };
    let among_others = vec![live("cat", 0, 1), sent, live("ann", 1, 2)];
    assert_eq!(home.commit(among_others).await, vec![RecordStatus::Applied; 3]);
    assert_eq!(home.commit_one(unmoved("cat", 1, 1)).await, RecordStatus::Same);
    assert_eq!(home.body("bob").await, (2, "bob at 2".into()));
    assert_eq!(home.body("ann").await, (2, "ann at 2".into()));
    assert_eq!(home.load("bob").await.unwrap().w.as_deref(), Some(&b"friends"[..]));
    assert_eq!(home.live_players(10).await, (vec!["bob".into(), "cat".into(), "ann".into()], 0));
    let last = home.succeeded_by("b#1").await;
    assert_eq!(last.grant.version_max, Version::ZERO, "nobody ended");
}

async fn an_unmoved_record_lives_as_long_as_before(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit(vec![CommitRecord { ttl: SHORT, ..live("ann", 0, 1) }, live("bob", 0, 1)]).await;
    home.commit(vec![unmoved("ann", 1, 2), CommitRecord { ttl: SHORT, ..unmoved("bob", 1, 2) }]).await;
    until("ann is forgotten", || async { home.load("ann").await.is_none().then_some(()) }).await;
    assert_eq!(home.body("bob").await, (2, "bob at 2".into()));
}

async fn an_unmoved_record_that_this_epoch_did_not_leave_so_is_gone(fixture: &Fixture) {
    let mut old = Home::take(fixture, "a#1").await;
    old.commit(vec![live("ann", 0, 5), live("bob", 0, 5), live("cat", 0, 5)]).await;
    let mut home = old.succeeded_by("b#1").await;
    home.commit(vec![live("bob", 5, 6), live("cat", 5, 6)]).await;
    let sent = vec![
        unmoved("ann", 5, 6),
        unmoved("bob", 7, 8),
        unmoved("cat", 4, 5),
        restoring(unmoved("dan", 1, 2)),
        unmoved("eve", 0, 1),
    ];
    assert_eq!(home.commit(sent).await, vec![RecordStatus::Gone; 5]);
    assert_eq!(home.body("ann").await, (5, "ann at 5".into()));
    assert_eq!(home.body("bob").await, (6, "bob at 6".into()));
    assert_eq!(home.body("cat").await, (6, "cat at 6".into()));
    assert_eq!(home.live_players(10).await.0, ["ann", "bob", "cat"]);
    // Sent again to be restored, it is judged as any other.
    let again =
        vec![restoring(live("ann", 5, 6)), restoring(live("bob", 7, 8)), restoring(live("cat", 4, 5))];
    let statuses = home.commit(again).await;
    assert_eq!(statuses.iter().map(name_of).collect::<Vec<_>>(), ["applied", "repaired", "exists"]);
}

async fn a_lost_record_is_gone_until_it_is_restored(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    assert_eq!(home.commit_one(live("ann", 3, 4)).await, RecordStatus::Gone);
    assert_eq!(home.load("ann").await, None);
    assert_eq!(home.live_players(10).await, (vec![], 0));
    assert_eq!(home.commit_one(restoring(live("ann", 3, 4))).await, RecordStatus::Restored);
    assert_eq!(home.body("ann").await, (4, "ann at 4".into()));
    assert_eq!(home.live_players(10).await, (vec!["ann".into()], 0));
}

async fn watches_stay_until_they_are_replaced_or_removed(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let steps =
        [(Some("one"), Some("one")), (None, Some("one")), (Some("two"), Some("two")), (Some(""), None)];
    for (version, (sent, stored)) in (1..).zip(steps) {
        let w = sent.map(Bytes::from);
        home.commit_one(CommitRecord { w, ..live("ann", version - 1, version) }).await;
        assert_eq!(home.load("ann").await.unwrap().w.as_deref(), stored.map(str::as_bytes), "{sent:?}");
    }
    home.commit_one(CommitRecord { w: Some(Bytes::from("three")), ..live("ann", 4, 5) }).await;
    home.commit_one(CommitRecord { w: Some(Bytes::from("four")), ..remainder("ann", 5, 6) }).await;
    assert_eq!(home.load("ann").await.unwrap().w, None, "a remainder has none");
}

async fn watches_live_as_long_as_their_record(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let short = |name| CommitRecord { ttl: SHORT, w: Some(Bytes::from("w")), ..live(name, 0, 1) };
    home.commit(vec![short("ann"), short("bob")]).await;
    assert_eq!(home.commit_one(live("ann", 1, 1)).await, RecordStatus::Same);
    until("bob is forgotten", || async { home.load("bob").await.is_none().then_some(()) }).await;
    assert_eq!(home.load("ann").await.unwrap().w, Some(Bytes::from("w")));
    // What is forgotten does not come back with a restored record.
    home.commit_one(restoring(live("bob", 1, 2))).await;
    assert_eq!(home.load("bob").await.unwrap().w, None);
}

async fn the_store_forgets_what_has_run_out(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit_one(CommitRecord { ttl: SHORT, ..live("ann", 0, 1) }).await;
    home.commit_one(CommitRecord { ttl: SHORT, ..remainder("bob", 0, 2) }).await;
    until("both are forgotten", || async {
        (home.load("ann").await.is_none() && home.load("bob").await.is_none()).then_some(())
    })
    .await;
    assert_eq!(home.commit_one(live("ann", 1, 2)).await, RecordStatus::Gone);
    assert_eq!(home.commit_one(live("bob", 0, 3)).await, RecordStatus::Applied);
}

async fn a_remainder_leaves_the_index_and_raises_the_highest_ended_version(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit(vec![live("ann", 0, 5), live("bob", 0, 9)]).await;
    assert_eq!(home.commit_one(remainder("ann", 5, 6)).await, RecordStatus::Applied);
    assert_eq!(home.live_players(10).await, (vec!["bob".into()], 0));
    assert_eq!(home.body("ann").await, (6, "ann at 6".into()));
    let mut next = home.succeeded_by("b#1").await;
    assert_eq!(next.grant.version_max, Version::of(6));
    next.commit_one(remainder("cat", 0, 3)).await;
    let last = next.succeeded_by("c#1").await;
    assert_eq!(last.grant.version_max, Version::of(6), "it never falls");
}

async fn an_erased_record_leaves_nothing(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit_one(CommitRecord { w: Some(Bytes::from("w")), ..live("ann", 0, 5) }).await;
    let erased = CommitRecord { keep: Keep::Erase, p: Bytes::new(), ..live("ann", 5, 6) };
    assert_eq!(home.commit_one(erased.clone()).await, RecordStatus::Applied);
    assert_eq!(home.load("ann").await, None);
    assert_eq!(home.live_players(10).await, (vec![], 0));
    // Sent again after a timeout: it is gone already, and stays so.
    assert_eq!(home.commit_one(erased.clone()).await, RecordStatus::Gone);
    assert_eq!(home.commit_one(restoring(erased)).await, RecordStatus::Restored);
    assert_eq!(home.load("ann").await, None);
    assert_eq!(home.succeeded_by("b#1").await.grant.version_max, Version::of(6));
}

async fn live_players_come_in_pages_by_expiry(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let mut expected = Vec::new();
    for group in 0..3_u64 {
        let records = (0..40_u64).map(|n| {
            let score = 1_790_000_000_000 + (group * 40 + n) * 7;
            expected.push(format!("player-{}", (group * 40 + n) * 997 % 120));
            CommitRecord {
                player: player(expected.last().unwrap()),
                keep: Keep::Live { expires_at_unix_ms: score },
                ..live("x", 0, 1)
            }
        });
        let records = records.collect();
        home.commit(records).await;
    }
    for page_size in [1, 7, 119, 120, 121, 1000] {
        assert_eq!(home.live_players(page_size).await, (expected.clone(), 0), "pages of {page_size}");
    }
}

async fn pages_go_on_within_one_score(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let mut names: Vec<_> = (0..60).map(|n| format!("p{n:02}")).collect();
    names.push("Zoë".into());
    names.push("é".into());
    let keep = Keep::Live { expires_at_unix_ms: 5_000 };
    home.commit(names.iter().map(|name| CommitRecord { keep, ..live(name, 0, 1) }).collect()).await;
    home.commit_one(CommitRecord { keep: Keep::Live { expires_at_unix_ms: 4_999 }, ..live("zz", 0, 1) })
        .await;
    home.commit_one(CommitRecord { keep: Keep::Live { expires_at_unix_ms: 5_001 }, ..live("aa", 0, 1) })
        .await;
    names.sort_unstable();
    names.insert(0, "zz".into());
    names.push("aa".into());
    for page_size in [1, 2, 9, 62, 63, 64, 65] {
        assert_eq!(home.live_players(page_size).await, (names.clone(), 0), "pages of {page_size}");
    }
}

async fn a_name_without_a_record_is_counted(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit(vec![live("ann", 0, 1), CommitRecord { ttl: SHORT, ..live("bob", 0, 2) }]).await;
    until("bob's string is forgotten", || async { home.load("bob").await.is_none().then_some(()) }).await;
    assert_eq!(home.live_players(1).await, (vec!["ann".into()], 1));
}

async fn players_are_loaded_in_the_order_asked(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit(vec![live("ann", 0, 1), live("bob", 0, 2)]).await;
    let asked = ["bob", "nobody", "ann", "bob"].map(player).to_vec();
    let loaded = fixture.store.load_players(home.shard, asked).await.unwrap();
    let versions: Vec<_> = loaded.iter().map(|r| r.as_ref().map(|r| r.version.number())).collect();
    assert_eq!(versions, [Some(2), None, Some(1), Some(2)]);
    assert_eq!(fixture.store.load_players(home.shard, vec![]).await.unwrap(), []);
    let crowd = |count: usize| (0..count).map(|n| player(&format!("p{n}"))).collect::<Vec<_>>();
    let most = fixture.store.load_players(home.shard, crowd(LOAD_PLAYERS_MAX)).await.unwrap();
    assert_eq!(most.len(), LOAD_PLAYERS_MAX);
    let refused = fixture.store.load_players(home.shard, crowd(LOAD_PLAYERS_MAX + 1)).await;
    assert!(matches!(refused, Err(StoreError::Refused(_))));
}

async fn a_batch_has_its_limits(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let crowd = |count: usize| (0..count).map(|n| live(&format!("p{n}"), 0, 1)).collect::<Vec<_>>();
    let too_many = home.try_commit(crowd(COMMIT_RECORDS_MAX + 1)).await;
    assert!(matches!(too_many, Err(StoreError::Refused(_))), "{too_many:?}");
    assert_eq!(home.load("p0").await, None);
    let statuses = home.commit(crowd(COMMIT_RECORDS_MAX)).await;
    assert_eq!(statuses, vec![RecordStatus::Applied; COMMIT_RECORDS_MAX]);

    let big = |name, bytes: usize| CommitRecord { p: Bytes::from(vec![7; bytes]), ..live(name, 0, 1) };
    let too_big =
        home.try_commit(vec![big("big", COMMIT_BYTES_MAX / 2 + 1), big("big2", COMMIT_BYTES_MAX / 2)]).await;
    assert!(matches!(too_big, Err(StoreError::Refused(_))), "{too_big:?}");
    let alone = home.commit_one(big("big", COMMIT_BYTES_MAX + 1)).await;
    assert_eq!(alone, RecordStatus::Applied, "one alone may pass it, or it could never be written");

    let twice = home.try_commit(vec![live("ann", 0, 1), live("bea", 0, 1), live("ann", 1, 2)]).await;
    assert!(matches!(twice, Err(StoreError::Refused(_))), "{twice:?}");
    assert_eq!(home.load("ann").await, None);
}

async fn batches_sent_together_are_answered_each_by_its_own(fixture: &Fixture) {
    let mut homes = Vec::new();
    for number in 20..24 {
        homes.push(
            Home::ask(&fixture.store, AcquireRequest { shard: shard(number), ..request("a#1", LONG) }).await,
        );
    }
    let [good, twice, fenced, other] = homes.try_into().unwrap_or_else(|_| panic!("four"));
    let (mut good, mut twice, mut fenced, mut other) = (good, twice, fenced, other);
    let lost = fenced.batch(vec![live("cat", 0, 1)]);
    let heir = fenced.succeeded_by("b#1").await;
    let together = vec![
        good.batch(vec![live("ann", 0, 1), live("amy", 0, 1)]),
        twice.batch(vec![live("bob", 0, 1), live("bob", 0, 2)]),
        lost,
        other.batch(vec![live("dan", 3, 4)]),
    ];
    let answers = fixture.store.commit_all(together).await;
    let applied = |count| Committed::Done(vec![RecordStatus::Applied; count]);
    assert_eq!(answers.len(), 4);
    assert_eq!(answers[0].as_ref().unwrap(), &applied(2));
    assert!(matches!(answers[1], Err(StoreError::Refused(_))), "{:?}", answers[1]);
    assert_eq!(answers[2].as_ref().unwrap(), &Committed::Fenced { epoch: heir.grant.epoch });
    assert_eq!(answers[3].as_ref().unwrap(), &Committed::Done(vec![RecordStatus::Gone]));
    assert!(fixture.store.commit_all(Vec::new()).await.is_empty());
}

async fn many_shards_commit_at_once(fixture: &Fixture) {
    let homes = (0..64).map(|number| {
        let asked = AcquireRequest { shard: shard(number), ..request("a#1", LONG) };
        Home::ask(&fixture.store, asked)
    });
    let homes = futures_util::future::join_all(homes).await;
    let work = homes.into_iter().map(|mut home| async move {
        for version in 1..=20 {
            assert_eq!(home.commit_one(live("ann", version - 1, version)).await, RecordStatus::Applied);
        }
        home.body("ann").await.0
    });
    assert_eq!(futures_util::future::join_all(work).await, vec![20; 64]);
}

async fn the_first_configuration_wins(fixture: &Fixture) {
    let proposal = |shards, secret: &[u8]| ClusterConfig {
        shards,
        format_min: 1,
        format_max: 2,
        ticket_secret: secret.to_vec(),
    };
    let proposals = [proposal(256, &[0, 255, 13, 10]), proposal(64, b"b"), proposal(128, b"c")];
    let agreed = futures_util::future::join_all(
        proposals
            .iter()
            .map(|proposal| fixture.store.agree_config(proposal.clone(), Stance::Founds, Duration::ZERO)),
    )
    .await;
    let agreed: Vec<_> = agreed.into_iter().map(|agreed| agreed.unwrap().config).collect();
    assert!(proposals.contains(&agreed[0]), "whole, not mixed: {agreed:?}");
    assert!(agreed.iter().all(|config| *config == agreed[0]), "{agreed:?}");
    assert_eq!(
        fixture.store.agree_config(proposal(32, b"d"), Stance::Founds, Duration::ZERO).await.unwrap().config,
        agreed[0]
    );
}

async fn what_operators_said_stands_beside_the_configuration(fixture: &Fixture) {
    assert_eq!(fixture.store.notice().await.unwrap(), None);
    fixture.store.set_notice(None).await.unwrap();
    for said in [&b"\x00\xff\r\n"[..], b"closed"] {
        fixture.store.set_notice(Some(Bytes::from_static(said))).await.unwrap();
        assert_eq!(fixture.store.notice().await.unwrap().as_deref(), Some(said));
    }
    let proposal = ClusterConfig { shards: 16, format_min: 1, format_max: 1, ticket_secret: vec![7] };
    assert_eq!(
        fixture.store.agree_config(proposal.clone(), Stance::Founds, Duration::ZERO).await.unwrap().config,
        proposal
    );
    assert_eq!(fixture.store.notice().await.unwrap().as_deref(), Some(&b"closed"[..]));
    fixture.store.set_notice(None).await.unwrap();
    assert_eq!(fixture.store.notice().await.unwrap(), None);
}

async fn the_probe_writes_and_reads(fixture: &Fixture) {
    let took = fixture.store.probe().await.unwrap();
    assert!(took > Duration::ZERO && took < Duration::from_secs(5), "{took:?}");
}

fn bodies(entries: &[Bytes]) -> Vec<&str> {
    entries.iter().map(|body| std::str::from_utf8(body).unwrap()).collect()
}

async fn timeline(fixture: &Fixture, name: &str) -> Vec<Bytes> {
    fixture.store.timeline(shard(7), player(name)).await.unwrap()
}

/// All events of shard 7 behind a place.
async fn events(fixture: &Fixture, after: EventPlace) -> Vec<StoredEvent> {
    let (mut found, mut after) = (Vec::new(), after);
    loop {
        let mut shards = fixture.store.events_after(vec![(shard(7), after)]).await.unwrap().found;
        let Some(ShardEvents { shard: of, events }) = shards.pop() else { return found };
        assert_eq!(of, shard(7));
        assert!(events.len() <= EVENTS_PER_SHARD_MAX);
        after = events.last().unwrap().place;
        found.extend(events);
    }
}

async fn entries_go_with_their_record_and_where_they_are_to(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let ann = telling(live("ann", 0, 1), Goes::Both, "ann both");
    let ann = telling(telling(ann, Goes::Events, "ann event"), Goes::Timeline, "ann timeline");
    let gone = telling(live("bob", 4, 5), Goes::Both, "bob is gone");
    home.commit(vec![ann, gone, telling(live("dée", 0, 1), Goes::Both, "dée\0\r\n")]).await;
    assert_eq!(bodies(&timeline(fixture, "ann").await), ["ann both", "ann timeline"]);
    assert_eq!(timeline(fixture, "bob").await, Vec::<Bytes>::new());
    let told = events(fixture, EventPlace::START).await;
    let told: Vec<_> =
        told.iter().map(|event| (event.player.as_str(), std::str::from_utf8(&event.body).unwrap())).collect();
    assert_eq!(told, [("ann", "ann both"), ("ann", "ann event"), ("dée", "dée\0\r\n")]);
    // What is to be forgotten is, and what follows is not.
    let erased = telling(remainder("ann", 1, 2), Goes::Events, "ann left");
    home.commit_one(telling(erased, Goes::Forget, "")).await;
    assert_eq!(timeline(fixture, "ann").await, Vec::<Bytes>::new());
    home.commit_one(telling(live("ann", 2, 3), Goes::Both, "ann again")).await;
    assert_eq!(bodies(&timeline(fixture, "ann").await), ["ann again"]);
    assert_eq!(events(fixture, EventPlace::START).await.len(), 5);
}

async fn a_batch_that_comes_again_writes_no_entry_twice(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    home.commit_one(telling(live("ann", 0, 1), Goes::Both, "1")).await;
    // Its answer was lost: the same goes out under the next number, and then with what has happened since.
    home.commit_one(telling(live("ann", 0, 1), Goes::Both, "1")).await;
    let mut again = telling(live("ann", 0, 3), Goes::Both, "3");
    again.entries.insert(0, Entry { version: Version::of(1), goes: Goes::Both, body: Bytes::from("1") });
    assert_eq!(home.commit_one(again).await, RecordStatus::Applied);
    let forgets = |record| telling(telling(record, Goes::Forget, ""), Goes::Timeline, "4");
    home.commit_one(forgets(live("ann", 3, 4))).await;
    home.commit_one(forgets(live("ann", 3, 4))).await;
    assert_eq!(bodies(&timeline(fixture, "ann").await), ["4"]);
    let told = events(fixture, EventPlace::START).await;
    assert_eq!(told.iter().map(|event| &event.body[..]).collect::<Vec<_>>(), [b"1", b"3"]);
    // What a fence refuses writes nothing.
    let late = home.batch(vec![telling(live("ann", 4, 5), Goes::Both, "5")]);
    let mut next = home.succeeded_by("b#1").await;
    assert!(matches!(fixture.store.commit(late).await.unwrap(), Committed::Fenced { .. }));
    next.commit_one(telling(live("ann", 4, 6), Goes::Both, "6")).await;
    assert_eq!(bodies(&timeline(fixture, "ann").await), ["4", "6"]);
}

async fn a_timeline_keeps_its_last_fifty_entries(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    for version in 1..=TIMELINE_MAX as u64 + 9 {
        home.commit_one(telling(live("ann", version - 1, version), Goes::Timeline, &version.to_string()))
            .await;
    }
    let kept = timeline(fixture, "ann").await;
    let expected: Vec<_> = (10..=TIMELINE_MAX + 9).map(|version| version.to_string()).collect();
    assert_eq!(bodies(&kept), expected);
    assert_eq!(events(fixture, EventPlace::START).await, []);
}

async fn a_timeline_is_forgotten_in_its_time(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    let batch = home.batch(vec![telling(live("ann", 0, 1), Goes::Timeline, "1")]);
    home.store_commit(Commit { remember: SHORT, ..batch }).await;
    until("the timeline is forgotten", async || timeline(fixture, "ann").await.is_empty().then_some(()))
        .await;
    assert!(home.load("ann").await.is_some(), "the record stays");
}

async fn events_are_read_behind_their_places_and_leave_no_number_out(fixture: &Fixture) {
    let mut home = Home::take(fixture, "a#1").await;
    for version in 1..=40 {
        home.commit_one(telling(live("ann", version - 1, version), Goes::Events, &version.to_string())).await;
    }
    let first = home.grant.epoch.number();
    let mut home = home.succeeded_by("b#1").await;
    let second = home.grant.epoch.number();
    home.commit_one(telling(live("ann", 40, 41), Goes::Events, "41")).await;
    let all = events(fixture, EventPlace::START).await;
    let places: Vec<_> = all.iter().map(|event| (event.place.epoch, event.place.number)).collect();
    let expected = (1..=40).map(|number| (first, number)).chain([(second, 41)]);
    assert_eq!(places, expected.collect::<Vec<_>>());
    assert_eq!(events(fixture, all[38].place).await, all[39..]);
    // A place that nothing has is as good as any.
    assert_eq!(events(fixture, EventPlace { epoch: first, number: 900 }).await, all[40..]);
    assert_eq!(events(fixture, all[40].place).await, []);
    let mut other =
        Home::ask(&fixture.store, AcquireRequest { shard: shard(9), ..request("a#1", LONG) }).await;
    other.commit_one(telling(live("bob", 0, 1), Goes::Events, "bob")).await;
    let after = [7, 8, 9].map(|number| (shard(number), EventPlace::START));
    let mut found = fixture.store.events_after(after.to_vec()).await.unwrap().found;
    found.sort_by_key(|found| found.shard);
    assert_eq!(found.iter().map(|found| found.shard).collect::<Vec<_>>(), [shard(7), shard(9)]);
    let last = fixture.store.events_last([9, 8, 7].map(shard).to_vec()).await.unwrap();
    let bob = EventPlace { epoch: other.grant.epoch.number(), number: 1 };
    assert_eq!(last, [bob, EventPlace::START, all[40].place].map(Some));
}

async fn no_more_shards_are_read_together_than_may_be(fixture: &Fixture) {
    let shards = |count: usize| (0..count as u16).map(shard).collect::<Vec<_>>();
    let places = |count| shards(count).into_iter().map(|shard| (shard, EventPlace::START)).collect();
    assert_eq!(fixture.store.events_after(places(EVENT_SHARDS_MAX)).await.unwrap(), EventsRead::default());
    assert_eq!(fixture.store.events_last(shards(EVENT_SHARDS_MAX)).await.unwrap().len(), EVENT_SHARDS_MAX);
    let refused = fixture.store.events_after(places(EVENT_SHARDS_MAX + 1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
    let refused = fixture.store.events_last(shards(EVENT_SHARDS_MAX + 1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
}
