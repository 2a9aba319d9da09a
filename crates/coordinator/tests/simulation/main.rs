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
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use mutant::Mutant;
use world::World;

const SEEDS: u64 = 2_000;
const SEEDS_TO_FIND_A_MUTANT: u64 = 300;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_to_a_group_its_invariants_hold_and_it_comes_to_rest() {
    if let Some(seed) = from_environment("MILENA_SEED") {
        return World::new(seed, Mutant::None).run();
    }
    let (mut commits, mut restarts) = (0, 0);
    for seed in 0..from_environment("MILENA_SEEDS").unwrap_or(SEEDS) {
        let mut world = World::new(seed, Mutant::None);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.run())) {
            eprintln!("seed {seed} failed; MILENA_SEED={seed} runs it alone");
            std::panic::resume_unwind(panic);
        }
        commits += world.commits;
        restarts += world.restarts;
    }
    // A simulation in which nothing happens proves nothing.
    assert!(
        commits > 0 && restarts > 0,
        "{commits} commits, {restarts} restarts"
    );
}

#[test]
fn the_simulation_finds_planted_bugs() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let survivors: Vec<Mutant> = Mutant::ALL
        .into_iter()
        .filter(|mutant| {
            (0..SEEDS_TO_FIND_A_MUTANT).all(|seed| catch_unwind(|| World::new(seed, *mutant).run()).is_ok())
        })
        .collect();
    std::panic::set_hook(hook);
    assert!(survivors.is_empty(), "the simulation did not find {survivors:?}");
}
