//! What every simulation is run by: many seeds, each a life of its own, and planted bugs that some seed must find.

use std::panic::{AssertUnwindSafe, catch_unwind};

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs as many seeds as `MILENA_SEEDS` asks for, or only the one of `MILENA_SEED`; whether it was all of them, so that what
/// was seen in them counts.
pub(crate) fn run(most: u64, mut life: impl FnMut(u64)) -> bool {
    if let Some(seed) = from_environment("MILENA_SEED") {
        life(seed);
        return false;
    }
    for seed in 0..from_environment("MILENA_SEEDS").unwrap_or(most) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| life(seed))) {
            eprintln!("seed {seed} failed; MILENA_SEED={seed} runs it alone");
            std::panic::resume_unwind(panic);
        }
    }
    true
}

/// The mutants under which every one of so many lives goes well.
pub(crate) fn not_found<M: Copy>(
    mutants: impl IntoIterator<Item = M>,
    seeds: u64,
    life: impl Fn(u64, M),
) -> Vec<M> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let survives =
        |mutant: &M| (0..seeds).all(|seed| catch_unwind(AssertUnwindSafe(|| life(seed, *mutant))).is_ok());
    let survivors = mutants.into_iter().filter(survives).collect();
    std::panic::set_hook(hook);
    survivors
}
