//! Seeded simulation of streams groups (KIP-1071) in a hostile world, with a held clock.
//!
//! Every seed is one life of a group: members of several processes that join, leave, pause and crash, with topologies of
//! two epochs; replies that are lost, requests that are repeated or late; source topics that come, grow and go, internal
//! topics that are created late; standby replicas that change; a coordinator that crashes and is loaded from what was
//! stored. After each step no task may be active at two members that the coordinator knows, nor be there twice in one
//! process; at the end the group has to come to rest, with every task active once and as many standbys as there can be.
//!
//! `MILENA_SEEDS=50000 cargo test --release -p milena-coordinator --test streams_simulation` runs more;
//! `MILENA_SEED=17` runs one that failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod client;
mod mutant;
#[path = "../simulation/random.rs"]
mod random;
#[path = "../simulation/seeds.rs"]
mod seeds;
mod world;

use mutant::Mutant;
use world::World;

const SEEDS: u64 = 200;
const SEEDS_TO_FIND_A_MUTANT: u64 = 500;

#[test]
fn whatever_happens_a_task_is_active_once_and_the_group_comes_to_rest() {
    let (mut fenced, mut restarts, mut created) = (0, 0, 0);
    let all = seeds::run(SEEDS, |seed| {
        let mut world = World::new(seed, Mutant::None);
        world.run();
        fenced += world.fenced;
        restarts += world.restarts;
        created += world.created;
    });
    // A simulation in which nothing happens proves nothing.
    assert!(
        !all || (fenced > 0 && restarts > 0 && created > 0),
        "{fenced} fenced, {restarts} restarts, {created} internal topics created"
    );
}

#[test]
fn the_checker_finds_planted_bugs() {
    let survivors = seeds::not_found(Mutant::ALL, SEEDS_TO_FIND_A_MUTANT, |seed, mutant| {
        World::new(seed, mutant).run();
    });
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
