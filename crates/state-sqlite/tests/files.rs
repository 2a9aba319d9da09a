//! What opening a file promises.

use bytes::Bytes;
use milena_state::conformance::wait;
use milena_state::{Change, Shard, StateStore};
use milena_state_sqlite::{OpenError, SqliteStore};

fn shard() -> Shard {
    Shard("s".to_owned())
}

fn put(key: &str) -> Change {
    Change {
        key: Bytes::from(key.to_owned()),
        value: Some(Bytes::from_static(b"v")),
    }
}

#[test]
fn a_file_of_a_newer_format_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("facts.sqlite");
    drop(SqliteStore::open(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(
        error,
        OpenError::TooNew {
            found: 2,
            known: 1,
            ..
        }
    ));
    assert!(
        error.to_string().contains("written by a newer version of Milena"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn another_programs_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("facts.sqlite");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE theirs (x)")
        .unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(OpenError::Foreign { .. })));
    std::fs::write(&path, "this is no database, but long enough to be read as one").unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(OpenError::Foreign { .. })));
}

#[test]
fn a_second_store_on_one_file_is_refused_until_the_first_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("facts.sqlite");
    let first = SqliteStore::open(&path).unwrap();
    let error = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    wait(first.close()).unwrap();
    SqliteStore::open(&path).unwrap();
}

#[test]
fn a_directory_that_does_not_exist_is_an_error_with_its_path() {
    let error = SqliteStore::open("/nonexistent/facts.sqlite".as_ref()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/facts.sqlite"), "{error}");
}

#[test]
fn the_write_ahead_log_stays_small() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("facts.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    let lease = wait(store.acquire(shard())).unwrap();
    let value = Bytes::from(vec![1_u8; 100_000]);
    for n in 0..200 {
        let key = Bytes::from(format!("{}", n % 10));
        wait(store.commit(
            &lease,
            vec![Change {
                key,
                value: Some(value.clone()),
            }],
        ))
        .unwrap();
    }
    let journal = std::fs::metadata(directory.path().join("facts.sqlite-wal"))
        .unwrap()
        .len();
    assert!(
        journal <= 5 << 20,
        "20 MB were written, the log has {journal} bytes"
    );
}

#[test]
fn dropping_the_store_finishes_what_it_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("facts.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    let lease = wait(store.acquire(shard())).unwrap();
    for n in 0..100 {
        drop(store.commit(&lease, vec![put(&n.to_string())]));
    }
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(wait(store.scan(shard(), Bytes::new())).unwrap().len(), 100);
}
