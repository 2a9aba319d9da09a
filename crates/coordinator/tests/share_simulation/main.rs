//! Seeded simulation of share groups (KIP-932) in a hostile world, with a held clock.
//!
//! Every seed is one life of a group: members that join, leave, pause and crash; replies that are lost, requests that are
//! repeated or late; topics that come, grow and go; states that are initialized late, not at all or with an error; offsets
//! that are deleted; a coordinator that crashes and is loaded from what was stored. After each step nothing may be assigned
//! whose state was not initialized; at the end the group has to come to rest, with every partition read by somebody.
//!
//! `MILENA_SEEDS=50000 cargo test --release -p milena-coordinator --test share_simulation` runs more;
//! `MILENA_SEED=17` runs one that failed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mutant;
#[path = "../simulation/random.rs"]
mod random;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use mutant::Mutant;
use world::World;

const SEEDS: u64 = 200;
const SEEDS_TO_FIND_A_MUTANT: u64 = 500;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_only_what_is_initialized_is_assigned_and_the_group_comes_to_rest() {
    if let Some(seed) = from_environment("MILENA_SEED") {
        World::new(seed, Mutant::None).run();
        return;
    }
    let (mut fenced, mut restarts, mut initialized, mut deleted) = (0, 0, 0, 0);
    for seed in 0..from_environment("MILENA_SEEDS").unwrap_or(SEEDS) {
        let mut world = World::new(seed, Mutant::None);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
            eprintln!("seed {seed} failed; MILENA_SEED={seed} runs it alone");
            std::panic::resume_unwind(panic);
        }
        fenced += world.fenced;
        restarts += world.restarts;
        initialized += world.initialized;
        deleted += world.deleted;
    }
    // A simulation in which nothing happens proves nothing.
    assert!(
        fenced > 0 && restarts > 0 && initialized > 0 && deleted > 0,
        "{fenced} fenced, {restarts} restarts, {initialized} initializations, {deleted} deletions"
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
