//! Seeded simulation of share partitions (KIP-932) in a hostile world, with a held clock.
//!
//! Every seed is one life of a share partition: members that fetch, acknowledge in all ways, come back late or never; replies
//! that are lost, requests that are repeated; a log that grows, loses its beginning and gets holes, with aborted
//! transactions in it; a coordinator that crashes at any moment and is loaded from what was stored. No record may be acquired by
//! two members at a time; what was acknowledged may not come again; at the end everything must have been delivered.
//!
//! `MILENA_SEEDS=50000 cargo test --release -p milena-coordinator --test share_partition_simulation` runs more;
//! `MILENA_SEED=17` runs one that failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

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
fn whatever_happens_a_record_has_one_owner_and_is_delivered_until_it_is_done() {
    let (mut crashes, mut timeouts, mut exhausted) = (0, 0, 0);
    let all = seeds::run(SEEDS, |seed| {
        let mut world = World::new(seed, Mutant::None);
        world.run();
        crashes += world.crashes;
        timeouts += world.timeouts;
        exhausted += world.last_deliveries;
    });
    // A simulation in which nothing happens proves nothing.
    assert!(
        !all || (crashes > 0 && timeouts > 0 && exhausted > 0),
        "{crashes} crashes, {timeouts} locks that ended, {exhausted} last deliveries"
    );
}

#[test]
fn the_checker_finds_planted_bugs() {
    let survivors = seeds::not_found(Mutant::ALL, SEEDS_TO_FIND_A_MUTANT, |seed, mutant| {
        World::new(seed, mutant).run();
    });
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
