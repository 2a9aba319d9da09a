//! Seeded simulation of a group in a hostile world, with a held clock.
//!
//! Every seed is one life: up to five consumers (static and dynamic, eager and cooperative, old
//! and new versions) that crash, pause, leave and come back; messages that are late, repeated or
//! lost; a broker that restarts and sometimes fails to store. After every step the invariants of
//! [`oracle`] must hold; when the faults stop, the group must come to rest.
//!
//! `MILENA_SEEDS=50000 cargo test --release -p milena-coordinator --test simulation` runs more;
//! `MILENA_SEED=17` runs one that failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod consumer;
mod mutant;
mod oracle;
mod random;
mod seeds;
mod world;

use mutant::Mutant;
use world::World;

const SEEDS: u64 = 2_000;
const SEEDS_TO_FIND_A_MUTANT: u64 = 300;

#[test]
fn whatever_happens_to_a_group_its_invariants_hold_and_it_comes_to_rest() {
    let (mut commits, mut restarts) = (0, 0);
    let all = seeds::run(SEEDS, |seed| {
        let mut world = World::new(seed, Mutant::None);
        world.run();
        commits += world.commits;
        restarts += world.restarts;
    });
    // A simulation in which nothing happens proves nothing.
    assert!(
        !all || (commits > 0 && restarts > 0),
        "{commits} commits, {restarts} restarts"
    );
}

#[test]
fn the_simulation_finds_planted_bugs() {
    let survivors = seeds::not_found(Mutant::ALL, SEEDS_TO_FIND_A_MUTANT, |seed, mutant| {
        World::new(seed, mutant).run();
    });
    assert!(survivors.is_empty(), "the simulation did not find {survivors:?}");
}
