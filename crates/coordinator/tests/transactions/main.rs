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
#[path = "../simulation/seeds.rs"]
mod seeds;
mod world;

use mutant::Mutant;
use world::World;

const SEEDS: u64 = 1_000;
const SEEDS_TO_FIND_A_MUTANT: u64 = 1_000;

#[test]
fn whatever_happens_transactions_are_whole_or_not_there() {
    let (mut commits, mut crashes, mut fenced) = (0, 0, 0);
    let all = seeds::run(SEEDS, |seed| {
        let mut world = World::new(seed, Mutant::None);
        world.run();
        commits += world.commits();
        crashes += world.crashes;
        fenced += world.fenced;
    });
    // A simulation in which nothing happens proves nothing.
    assert!(
        !all || (commits > 0 && crashes > 0 && fenced > 0),
        "{commits} commits, {crashes} crashes, {fenced} fenced"
    );
}

#[test]
fn the_checker_finds_planted_bugs() {
    let survivors = seeds::not_found(Mutant::ALL, SEEDS_TO_FIND_A_MUTANT, |seed, mutant| {
        World::new(seed, mutant).run();
    });
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
