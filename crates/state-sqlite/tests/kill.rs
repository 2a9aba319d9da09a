//! What was answered is there after `kill -9`: a child commits and says so, and is killed again and
//! again in the middle of it.

#![allow(clippy::unwrap_used)] // a test's helpers, too, may stop it

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use milena_state::conformance::wait;
use milena_state::{Change, Shard, StateStore};
use milena_state_sqlite::SqliteStore;

const DIRECTORY: &str = "MILENA_TEST_KILLED_CHILD";
const KILLS: usize = 25;
/// Two keys that one batch always writes together.
const KEYS: [&str; 2] = ["left", "right"];

fn shard() -> Shard {
    Shard("s".to_owned())
}

fn number(bytes: &[u8]) -> u64 {
    String::from_utf8_lossy(bytes).parse().unwrap()
}

/// The last number written, the same under both keys.
fn stored(store: &SqliteStore) -> u64 {
    let rows = wait(store.scan(shard(), Bytes::new())).unwrap();
    let numbers: Vec<u64> = rows.iter().map(|(_, value)| number(value)).collect();
    match numbers.as_slice() {
        [] => 0,
        [left, right] => {
            assert_eq!(left, right, "half a batch was written");
            *left
        }
        other => panic!("unexpected rows: {other:?}"),
    }
}

/// Not a test of its own: the process that the test below kills.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let store = SqliteStore::open(&Path::new(&directory).join("facts.sqlite")).unwrap();
    let lease = wait(store.acquire(shard())).unwrap();
    for n in stored(&store) + 1.. {
        let value = Bytes::from(n.to_string());
        let changes = KEYS.map(|key| Change {
            key: Bytes::from(key),
            value: Some(value.clone()),
        });
        wait(store.commit(&lease, changes.to_vec())).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "committed {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn every_commit_that_was_answered_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_commits_until_it_is_killed", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answered = lines.map_while(Result::ok).filter_map(|line| {
            line.split_once("committed ")
                .map(|(_, n)| n.trim().parse::<u64>().unwrap())
        });
        for _ in 0..=round {
            seen = answered.next().expect("the child commits until it is killed");
        }
        child.kill().unwrap();
        // Answers that were on their way when it died count too.
        seen = answered.last().unwrap_or(seen);
        child.wait().unwrap();
        let store = SqliteStore::open(&directory.path().join("facts.sqlite")).unwrap();
        let found = stored(&store);
        assert!(
            found >= seen,
            "round {round}: {seen} was answered, {found} is stored"
        );
        seen = found;
        let lease = wait(store.acquire(shard())).unwrap();
        assert_eq!(lease.epoch, 2 * (round as u64 + 1), "no acquisition was lost");
    }
    assert!(seen >= KILLS as u64);
}
