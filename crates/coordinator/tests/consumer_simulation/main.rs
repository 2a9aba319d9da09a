//! Seeded simulation of consumer groups (KIP-848) in a hostile world, with a held clock.
//!
//! Every seed is one life of a group: members of the new protocol and of the classic one, static members and
//! patterns; members that join, leave, pause and crash; replies that are lost, requests that are repeated or late; topics
//! that come, grow and go; a coordinator that crashes and is loaded from what was stored. After each step no
//! partition may be used by two members that the coordinator knows; at the end the group has to come to rest, with every
//! partition used once.
//!
//! `MILENA_SEEDS=50000 cargo test --release -p milena-coordinator --test consumer_simulation` runs more;
//! `MILENA_SEED=17` runs one that failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod embedded;
mod mutant;
#[path = "../simulation/random.rs"]
mod random;
#[path = "../simulation/seeds.rs"]
mod seeds;
mod world;

use mutant::Mutant;
use world::World;

const SEEDS: u64 = 400;
const SEEDS_TO_FIND_A_MUTANT: u64 = 500;

#[test]
fn whatever_happens_a_partition_has_one_owner_and_the_group_comes_to_rest() {
    let (mut fenced, mut restarts, mut changes) = (0, 0, 0);
    let all = seeds::run(SEEDS, |seed| {
        let mut world = World::new(seed, Mutant::None);
        world.run();
        fenced += world.fenced;
        restarts += world.restarts;
        changes += world.changes_of_type;
    });
    // A simulation in which nothing happens proves nothing.
    assert!(
        !all || (fenced > 0 && restarts > 0 && changes > 0),
        "{fenced} fenced, {restarts} restarts, {changes} changes of type"
    );
}

#[test]
fn the_checker_finds_planted_bugs() {
    let survivors = seeds::not_found(Mutant::ALL, SEEDS_TO_FIND_A_MUTANT, |seed, mutant| {
        World::new(seed, mutant).run();
    });
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
