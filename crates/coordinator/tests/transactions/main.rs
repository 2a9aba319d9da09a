//! Seeded simulation of transactions in a hostile world, with a held clock and an independent checker
//! of the history, in the manner of Jepsen's tests of Kafka.
//!
//! Every seed is one life: producers that consume, transform and produce in transactions, and zombies of
//! them that do not know that they were replaced; requests that are late, repeated, overtaken or lost;
//! replies that are lost; timeouts; a coordinator that crashes with decisions not stored and markers not
//! written. At the end everything is ended, and [`check`] looks at what was told and what can be read.
//!
//! `MILENA_SEEDS=50000 cargo test --release -p milena-coordinator --test transactions` runs more;
//! `MILENA_SEED=17` runs one that failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod check;
mod group;
mod log;
mod mutant;
mod producer;
#[path = "../simulation/random.rs"]
mod random;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use mutant::Mutant;
use world::World;

const SEEDS: u64 = 1_000;
const SEEDS_TO_FIND_A_MUTANT: u64 = 1_000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_transactions_are_whole_or_not_there() {
    if let Some(seed) = from_environment("MILENA_SEED") {
        World::new(seed, Mutant::None).run();
        return;
    }
    let (mut commits, mut crashes, mut fenced) = (0, 0, 0);
    for seed in 0..from_environment("MILENA_SEEDS").unwrap_or(SEEDS) {
        let mut world = World::new(seed, Mutant::None);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
            eprintln!("seed {seed} failed; MILENA_SEED={seed} runs it alone");
            std::panic::resume_unwind(panic);
        }
        commits += world.commits();
        crashes += world.crashes;
        fenced += world.fenced;
    }
    // A simulation in which nothing happens proves nothing.
    assert!(
        commits > 0 && crashes > 0 && fenced > 0,
        "{commits} commits, {crashes} crashes, {fenced} fenced"
    );
}

#[test]
fn the_checker_finds_planted_bugs() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let survivors: Vec<Mutant> = Mutant::ALL
        .into_iter()
        .filter(|mutant| {
            (0..SEEDS_TO_FIND_A_MUTANT).all(|seed| catch_unwind(|| World::new(seed, *mutant).run()).is_ok())
        })
        .collect();
    std::panic::set_hook(hook);
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
