//! The store under power cuts and failing disks: seeded runs against a model of a disk that loses what
//! was not synced, in any order and torn. `MILENA_SEEDS` says how many seeds to try, `MILENA_SEED` runs
//! one alone.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/random.rs"]
mod random;
#[path = "crash/run.rs"]
mod run;

use disk::Ignored;
use run::Run;

const SEEDS: u64 = 2_000;
/// A program with a planted bug is found out by one of so many seeds.
const SEEDS_PER_BUG: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn fails(seed: u64, ignored: Ignored) -> Option<String> {
    let run = std::panic::catch_unwind(|| Run::new(seed, ignored).run());
    run.err().map(|panic| {
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    })
}

#[test]
fn nothing_that_was_acknowledged_is_lost_by_a_power_cut_at_any_moment() {
    if let Some(seed) = number("MILENA_SEED") {
        Run::new(seed, Ignored::Nothing).run();
        return;
    }
    for seed in 0..number("MILENA_SEEDS").unwrap_or(SEEDS) {
        if let Some(why) = fails(seed, Ignored::Nothing) {
            panic!("MILENA_SEED={seed}: {why}");
        }
    }
}

#[test]
fn records_that_are_acknowledged_before_their_sync_are_found_out() {
    assert!((0..SEEDS_PER_BUG).any(|seed| fails(seed, Ignored::SyncsOfLogs).is_some()));
}

#[test]
fn names_that_are_not_synced_are_found_out() {
    assert!((0..SEEDS_PER_BUG).any(|seed| fails(seed, Ignored::SyncsOfFolders).is_some()));
}
