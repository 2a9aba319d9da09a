//! What every engine of the fact store must do, as checks that an engine's tests run.
//!
//! [`run`] takes a [`Bench`] that opens the engine, closes it and opens it again over the same
//! facts. Each check opens an empty store of its own. A check that fails panics with a sentence.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;

use crate::{Change, Lease, Shard, StateError, StateStore};

/// Opens stores for the suite.
pub trait Bench {
    /// An empty store.
    fn create(&mut self) -> Arc<dyn StateStore>;
    /// The store that `create` gave last, closed by the suite, over the same facts.
    fn reopen(&mut self) -> Arc<dyn StateStore>;
}

/// Runs every check.
pub fn run(bench: &mut dyn Bench) {
    a_scan_gives_the_rows_of_its_prefix_in_key_order(&*bench.create());
    a_batch_is_written_whole_and_its_last_change_of_a_key_wins(&*bench.create());
    shards_do_not_see_each_other(&*bench.create());
    a_new_lease_fences_the_old_one_and_nothing_of_the_fenced_batch_is_written(&*bench.create());
    a_lease_that_nobody_gave_writes_nothing(&*bench.create());
    calls_take_effect_in_the_order_in_which_they_are_made(&*bench.create());
    a_future_that_is_dropped_does_not_undo_its_call(&*bench.create());
    a_fenced_commit_fails_alone_among_its_neighbours(&*bench.create());
    keys_and_values_may_be_any_bytes(&*bench.create());
    many_threads_commit_at_once(&bench.create());
    random_batches_agree_with_a_model(&*bench.create());
    facts_and_epochs_outlive_the_store(bench);
    calls_after_close_fail(&*bench.create());
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread: engines must not need a particular runtime.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

fn shard(name: &str) -> Shard {
    Shard(name.to_owned())
}

fn put(key: &str, value: &str) -> Change {
    Change {
        key: Bytes::from(key.to_owned()),
        value: Some(Bytes::from(value.to_owned())),
    }
}

fn remove(key: &str) -> Change {
    Change {
        key: Bytes::from(key.to_owned()),
        value: None,
    }
}

fn acquire(store: &dyn StateStore, name: &str) -> Lease {
    ok(wait(store.acquire(shard(name))))
}

fn ok<T>(result: Result<T, StateError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("the store failed: {error}"),
    }
}

fn rows(store: &dyn StateStore, name: &str, prefix: &str) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let found = ok(wait(store.scan(shard(name), Bytes::from(prefix.to_owned()))));
    found
        .iter()
        .map(|(key, value)| (text(key), text(value)))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn a_scan_gives_the_rows_of_its_prefix_in_key_order(store: &dyn StateStore) {
    assert_eq!(rows(store, "never-acquired", ""), pairs(&[]));
    let lease = acquire(store, "s");
    ok(wait(store.commit(
        &lease,
        vec![put("b/2", "2"), put("a", "0"), put("b/1", "1"), put("c", "3")],
    )));
    assert_eq!(rows(store, "s", "b/"), pairs(&[("b/1", "1"), ("b/2", "2")]));
    assert_eq!(
        rows(store, "s", ""),
        pairs(&[("a", "0"), ("b/1", "1"), ("b/2", "2"), ("c", "3")])
    );
    assert_eq!(rows(store, "s", "d"), pairs(&[]));
}

fn a_batch_is_written_whole_and_its_last_change_of_a_key_wins(store: &dyn StateStore) {
    let lease = acquire(store, "s");
    ok(wait(store.commit(
        &lease,
        vec![put("k", "1"), put("k", "2"), put("gone", "x"), remove("gone")],
    )));
    assert_eq!(rows(store, "s", ""), pairs(&[("k", "2")]));
    ok(wait(store.commit(
        &lease,
        vec![remove("k"), remove("never-there"), put("n", "1")],
    )));
    assert_eq!(rows(store, "s", ""), pairs(&[("n", "1")]));
    ok(wait(store.commit(&lease, Vec::new())));
    assert_eq!(rows(store, "s", ""), pairs(&[("n", "1")]));
}

fn shards_do_not_see_each_other(store: &dyn StateStore) {
    let (one, two) = (acquire(store, "one"), acquire(store, "two"));
    ok(wait(store.commit(&one, vec![put("k", "1")])));
    ok(wait(store.commit(&two, vec![put("k", "2"), remove("j")])));
    assert_eq!(rows(store, "one", ""), pairs(&[("k", "1")]));
    assert_eq!(rows(store, "two", ""), pairs(&[("k", "2")]));
}

fn a_new_lease_fences_the_old_one_and_nothing_of_the_fenced_batch_is_written(store: &dyn StateStore) {
    let old = acquire(store, "s");
    ok(wait(store.commit(&old, vec![put("k", "old")])));
    let new = acquire(store, "s");
    assert_eq!(new.epoch, old.epoch + 1, "an epoch grows by one");
    match wait(store.commit(&old, vec![put("k", "late"), put("other", "late")])) {
        Err(StateError::Fenced { held, current, .. }) => assert_eq!((held, current), (old.epoch, new.epoch)),
        other => panic!("a fenced commit was answered {other:?}"),
    }
    assert_eq!(rows(store, "s", ""), pairs(&[("k", "old")]));
    assert!(
        matches!(
            wait(store.commit(&old, Vec::new())),
            Err(StateError::Fenced { .. })
        ),
        "an empty batch tells the holder too that it is fenced"
    );
    ok(wait(store.commit(&new, vec![put("k", "new")])));
    assert_eq!(rows(store, "s", ""), pairs(&[("k", "new")]));
}

fn a_lease_that_nobody_gave_writes_nothing(store: &dyn StateStore) {
    for epoch in [0, 1, u64::MAX] {
        let forged = Lease {
            shard: shard("s"),
            epoch,
        };
        assert!(
            matches!(
                wait(store.commit(&forged, vec![put("k", "1")])),
                Err(StateError::Fenced { .. })
            ),
            "a lease of epoch {epoch} that was never given must be fenced"
        );
    }
    assert_eq!(rows(store, "s", ""), pairs(&[]));
}

fn calls_take_effect_in_the_order_in_which_they_are_made(store: &dyn StateStore) {
    let lease = acquire(store, "s");
    let commits: Vec<_> = (0..100)
        .map(|n| store.commit(&lease, vec![put("k", &n.to_string())]))
        .collect();
    let scan = store.scan(shard("s"), Bytes::new());
    let taken_over = store.acquire(shard("s"));
    let late = store.commit(&lease, vec![put("k", "late")]);
    // Polled in the opposite order.
    assert!(matches!(wait(late), Err(StateError::Fenced { .. })));
    assert_eq!(ok(wait(taken_over)).epoch, lease.epoch + 1);
    assert_eq!(ok(wait(scan)), vec![(Bytes::from("k"), Bytes::from("99"))]);
    for commit in commits.into_iter().rev() {
        ok(wait(commit));
    }
}

fn a_future_that_is_dropped_does_not_undo_its_call(store: &dyn StateStore) {
    let lease = acquire(store, "s");
    drop(store.commit(&lease, vec![put("k", "1")]));
    assert_eq!(rows(store, "s", ""), pairs(&[("k", "1")]));
}

fn a_fenced_commit_fails_alone_among_its_neighbours(store: &dyn StateStore) {
    let (fenced, _) = (acquire(store, "a"), acquire(store, "a"));
    let other = acquire(store, "b");
    let before = store.commit(&other, vec![put("before", "1")]);
    let refused = store.commit(&fenced, vec![put("k", "1")]);
    let after = store.commit(&other, vec![put("after", "1")]);
    assert!(matches!(wait(refused), Err(StateError::Fenced { .. })));
    ok(wait(before));
    ok(wait(after));
    assert_eq!(rows(store, "a", ""), pairs(&[]));
    assert_eq!(rows(store, "b", ""), pairs(&[("after", "1"), ("before", "1")]));
}

fn keys_and_values_may_be_any_bytes(store: &dyn StateStore) {
    let lease = acquire(store, "s");
    let keys: [&'static [u8]; 6] = [b"", b"\0", b"\0\0", b"a\xff", b"\xff", b"\xff\xff"];
    let value = |key: &'static [u8]| Bytes::from([key, b"\0\xfe"].concat());
    let changes = keys.map(|key| Change {
        key: Bytes::from_static(key),
        value: Some(value(key)),
    });
    ok(wait(store.commit(&lease, changes.to_vec())));
    let found = |prefix: &'static [u8]| -> Vec<Bytes> {
        let rows = ok(wait(store.scan(shard("s"), Bytes::from_static(prefix))));
        rows.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(found(b""), keys.map(Bytes::from_static));
    assert_eq!(
        found(b"\xff"),
        [b"\xff".as_slice(), b"\xff\xff"],
        "there is no key after the prefix's last"
    );
    assert_eq!(found(b"a"), [b"a\xff".as_slice()]);
    let large = Bytes::from(vec![7_u8; 3 << 20]);
    let change = Change {
        key: Bytes::from("large"),
        value: Some(large.clone()),
    };
    ok(wait(store.commit(&lease, vec![change])));
    assert_eq!(
        ok(wait(store.scan(shard("s"), Bytes::from("large")))),
        vec![(Bytes::from("large"), large)]
    );
}

fn many_threads_commit_at_once(store: &Arc<dyn StateStore>) {
    const THREADS: usize = 8;
    const COMMITS: usize = 50;
    let lease = acquire(&**store, "s");
    thread::scope(|scope| {
        for writer in 0..THREADS {
            let (store, lease) = (&store, &lease);
            scope.spawn(move || {
                for n in 0..COMMITS {
                    let key = format!("{writer}/{n:03}");
                    ok(wait(store.commit(lease, vec![put(&key, "x")])));
                    let written = rows(&***store, "s", &key);
                    assert_eq!(written.len(), 1, "a resolved commit is seen by the next scan");
                }
            });
        }
    });
    assert_eq!(rows(&**store, "s", "").len(), THREADS * COMMITS);
}

/// xorshift: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn random_batches_agree_with_a_model(store: &dyn StateStore) {
    let mut numbers = Numbers(0x5eed);
    let mut model: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut leases: Vec<Lease> = Vec::new();
    for step in 0..300 {
        let name = format!("s{}", numbers.below(3));
        if numbers.below(10) == 0 {
            leases.push(acquire(store, &name));
            continue;
        }
        let Some(at) = numbers.below(leases.len() as u64 + 1).checked_sub(1) else {
            continue;
        };
        let lease = leases[usize::try_from(at).unwrap_or_default()].clone();
        let newest = leases
            .iter()
            .filter(|other| other.shard == lease.shard)
            .all(|other| other.epoch <= lease.epoch);
        let changes: Vec<Change> = (0..numbers.below(5))
            .map(|_| {
                let key = format!("k{}", numbers.below(8));
                if numbers.below(3) == 0 {
                    remove(&key)
                } else {
                    put(&key, &step.to_string())
                }
            })
            .collect();
        match wait(store.commit(&lease, changes.clone())) {
            Ok(()) => assert!(newest, "step {step}: a fenced lease wrote"),
            Err(StateError::Fenced { .. }) => {
                assert!(!newest, "step {step}: the newest lease was fenced");
                continue;
            }
            Err(error) => panic!("step {step}: {error}"),
        }
        for Change { key, value } in changes {
            let key = (lease.shard.0.clone(), String::from_utf8_lossy(&key).into_owned());
            match value {
                Some(value) => model.insert(key, String::from_utf8_lossy(&value).into_owned()),
                None => model.remove(&key),
            };
        }
        let expected: Vec<(String, String)> = model
            .iter()
            .filter(|((shard, _), _)| *shard == lease.shard.0)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(rows(store, &lease.shard.0, ""), expected, "step {step}");
    }
}

fn facts_and_epochs_outlive_the_store(bench: &mut dyn Bench) {
    let store = bench.create();
    let old = acquire(&*store, "s");
    ok(wait(store.commit(&old, vec![put("k", "1"), put("j", "2")])));
    ok(wait(store.commit(&old, vec![remove("j")])));
    ok(wait(store.close()));
    drop(store);
    let store = bench.reopen();
    assert_eq!(rows(&*store, "s", ""), pairs(&[("k", "1")]));
    ok(wait(store.commit(&old, vec![put("k", "2")])));
    let new = acquire(&*store, "s");
    assert_eq!(new.epoch, old.epoch + 1, "epochs go on across restarts");
    assert!(matches!(
        wait(store.commit(&old, vec![put("k", "3")])),
        Err(StateError::Fenced { .. })
    ));
    assert_eq!(rows(&*store, "s", ""), pairs(&[("k", "2")]));
    ok(wait(store.close()));
}

fn calls_after_close_fail(store: &dyn StateStore) {
    let lease = acquire(store, "s");
    let accepted = store.commit(&lease, vec![put("k", "1")]);
    ok(wait(store.close()));
    ok(wait(accepted));
    assert!(matches!(
        wait(store.acquire(shard("s"))),
        Err(StateError::Unavailable(_))
    ));
    assert!(matches!(
        wait(store.scan(shard("s"), Bytes::new())),
        Err(StateError::Unavailable(_))
    ));
    assert!(matches!(
        wait(store.commit(&lease, vec![put("k", "2")])),
        Err(StateError::Unavailable(_))
    ));
    assert!(matches!(wait(store.close()), Err(StateError::Unavailable(_))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryStore;

    #[derive(Default)]
    struct InMemory(Arc<MemoryStore>);

    impl Bench for InMemory {
        fn create(&mut self) -> Arc<dyn StateStore> {
            self.0 = Arc::new(MemoryStore::new());
            Arc::clone(&self.0) as _
        }

        fn reopen(&mut self) -> Arc<dyn StateStore> {
            self.0 = Arc::new(self.0.reopen());
            Arc::clone(&self.0) as _
        }
    }

    #[test]
    fn the_memory_engine_conforms() {
        run(&mut InMemory::default());
    }
}
