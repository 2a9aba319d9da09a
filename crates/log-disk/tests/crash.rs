//! The store under power cuts and failing disks: seeded runs against a model of a disk that loses what
//! was not synced, in any order and torn. `MILENA_SEEDS` says how many seeds to try, `MILENA_SEED` runs
//! one alone.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "crash/cleaned.rs"]
mod cleaned;
mod common;
#[path = "common/compacted.rs"]
mod compacted;
#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/file.rs"]
mod file;
#[path = "crash/names.rs"]
mod names;
#[path = "crash/random.rs"]
mod random;
#[path = "crash/run.rs"]
mod run;
#[path = "crash/transactions.rs"]
mod transactions;

use disk::Ignored;
use run::Run;

const SEEDS: u64 = 2_000;
const SEEDS_OF_MOVES: u64 = 800;
const SEEDS_OF_COMPACTION: u64 = 500;
const SEEDS_OF_TRANSACTIONS: u64 = 500;
/// Runs whose first life is ended at each of its changes in turn.
const SEEDS_AT_EVERY_CHANGE: u64 = 4;
/// A program with a planted bug is found out by one of so many seeds.
const SEEDS_PER_BUG: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn why_it_fails(run: impl FnOnce() + std::panic::UnwindSafe) -> Option<String> {
    std::panic::catch_unwind(run).err().map(|panic| {
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    })
}

/// Runs all seeds, or the one that is asked for.
fn with_seeds(seeds: u64, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    if let Some(seed) = number("MILENA_SEED") {
        run(seed);
        return;
    }
    for seed in 0..number("MILENA_SEEDS").unwrap_or(seeds) {
        if let Some(why) = why_it_fails(|| run(seed)) {
            panic!("MILENA_SEED={seed}: {why}");
        }
    }
}

fn is_found_out(run: impl Fn(u64) + std::panic::RefUnwindSafe) -> bool {
    (0..SEEDS_PER_BUG).any(|seed| why_it_fails(|| run(seed)).is_some())
}

#[test]
fn nothing_that_was_acknowledged_is_lost_by_a_power_cut_at_any_moment() {
    with_seeds(SEEDS, |seed| {
        Run::new(seed, Ignored::Nothing).run();
    });
}

#[test]
fn nothing_is_lost_by_a_power_cut_at_any_change_of_a_run() {
    let mut tried = 0;
    for seed in 0..SEEDS_AT_EVERY_CHANGE {
        let changes = Run::count_changes(seed);
        tried += changes;
        for change in 1..=changes {
            if let Some(why) = why_it_fails(|| {
                Run::cut_at(seed, change).run();
            }) {
                panic!("seed {seed}, cut at change {change}: {why}");
            }
        }
    }
    assert!(tried > 200, "there were changes to cut at: {tried}");
}

#[test]
fn a_replica_that_moves_loses_nothing_by_a_power_cut_at_any_moment() {
    let moved = std::sync::atomic::AtomicU64::new(0);
    with_seeds(SEEDS_OF_MOVES, |seed| {
        let mut run = Run::moving(seed, Ignored::Nothing);
        run.run();
        moved.fetch_add(run.moved, std::sync::atomic::Ordering::Relaxed);
    });
    let moved = moved.into_inner();
    assert!(moved > 0, "replicas moved: {moved}");
}

#[test]
fn a_replica_that_moves_loses_nothing_by_a_power_cut_at_any_change_of_a_run() {
    for seed in 0..SEEDS_AT_EVERY_CHANGE {
        for change in 1..=Run::moving_cut_at(seed, None).run() {
            if let Some(why) = why_it_fails(|| {
                Run::moving_cut_at(seed, Some(change)).run();
            }) {
                panic!("seed {seed}, cut at change {change}: {why}");
            }
        }
    }
}

#[test]
fn a_move_whose_names_are_not_synced_is_found_out() {
    assert!(is_found_out(|seed| {
        Run::moving(seed, Ignored::SyncsOfFolders).run();
    }));
}

#[test]
fn the_newest_value_of_every_key_outlasts_a_power_cut_at_any_moment() {
    with_seeds(SEEDS_OF_COMPACTION, |seed| {
        cleaned::Run::new(seed, Ignored::Nothing).run();
    });
}

#[test]
fn transactions_are_what_the_surviving_batches_say_after_a_power_cut_at_any_moment() {
    with_seeds(SEEDS_OF_TRANSACTIONS, |seed| {
        transactions::Run::new(seed, Ignored::Nothing).run();
    });
}

#[test]
fn transactions_of_a_compacted_log_are_what_they_were_after_a_power_cut_at_any_moment() {
    with_seeds(SEEDS_OF_TRANSACTIONS, |seed| {
        transactions::Run::compacted(seed, Ignored::Nothing).run();
    });
}

#[test]
fn aborted_transactions_that_are_not_synced_are_found_out() {
    assert!(is_found_out(|seed| {
        transactions::Run::new(seed, Ignored::SyncsOfTransactionIndexes).run();
    }));
}

#[test]
fn records_that_are_acknowledged_before_their_sync_are_found_out() {
    assert!(is_found_out(|seed| {
        Run::new(seed, Ignored::SyncsOfLogs).run();
    }));
}

#[test]
fn a_journal_that_is_not_synced_is_found_out() {
    assert!(is_found_out(|seed| {
        Run::new(seed, Ignored::SyncsOfJournal).run();
    }));
}

#[test]
fn names_that_are_not_synced_are_found_out() {
    assert!(is_found_out(|seed| {
        Run::new(seed, Ignored::SyncsOfFolders).run();
    }));
}

#[test]
fn compacted_segments_that_are_not_synced_are_found_out() {
    assert!(is_found_out(|seed| {
        cleaned::Run::new(seed, Ignored::SyncsOfCleaned).run();
    }));
}
