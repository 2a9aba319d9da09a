//! The writer's thread: takes what waits, writes it in one transaction, answers when it is durable.

use milena_state::{Lease, Row, StateError};

use crate::database::{Database, is_disk_full};
use crate::queue::{Job, Queue};

/// Shuts the queue however the thread ends, so that nobody waits for a writer that is gone.
struct ShutOnExit<'a>(&'a Queue);

impl Drop for ShutOnExit<'_> {
    fn drop(&mut self) {
        self.0.shut();
    }
}

pub(crate) fn run(mut database: Database, queue: &Queue) {
    let _shut = ShutOnExit(queue);
    loop {
        let mut jobs = queue.take();
        let close = match jobs.last() {
            Some(Job::Close { .. }) => jobs.pop(),
            _ => None,
        };
        carry_out(&mut database, jobs);
        if let Some(Job::Close { reply }) = close {
            let closed = database.close();
            if let Err(error) = &closed {
                tracing::error!(%error, "closing the fact store");
            }
            queue.shut();
            if let Some(reply) = reply {
                reply.give(closed);
            }
            return;
        }
    }
}

/// What a job came to, kept until its transaction is durable.
enum Done {
    Acquired(Lease),
    Scanned(Vec<Row>),
    Committed(Result<(), StateError>),
}

/// How far a transaction came that failed.
enum Failure {
    /// Before its end: nothing of it is there, it may be tried again.
    Undone(rusqlite::Error),
    /// While it became durable: it is unknown what is there.
    Unknown(rusqlite::Error),
}

fn carry_out(database: &mut Database, jobs: Vec<Job>) {
    if jobs.is_empty() {
        return;
    }
    match transaction(database, &jobs) {
        Ok(done) => {
            for (job, done) in jobs.into_iter().zip(done) {
                answer(job, Ok(done));
            }
            database.reserve.keep();
        }
        Err(failure) => retry(database, jobs, failure),
    }
}

/// One job can spoil its neighbours' transaction, so each gets one of its own; on a full disk, after
/// the reserve was given up.
fn retry(database: &mut Database, jobs: Vec<Job>, failure: Failure) {
    let (error, may_retry) = match failure {
        Failure::Undone(error) => {
            let room_made = is_disk_full(&error) && database.reserve.give_up();
            (error, jobs.len() > 1 || room_made)
        }
        Failure::Unknown(error) => (error, false),
    };
    tracing::error!(%error, jobs = jobs.len(), "a transaction of the fact store failed");
    if !may_retry {
        let sentence = sentence(&error);
        for job in jobs {
            answer(job, Err(StateError::Unavailable(sentence.clone())));
        }
        return;
    }
    for job in jobs {
        let alone = std::slice::from_ref(&job);
        let done = match transaction(database, alone) {
            Err(Failure::Undone(error)) if is_disk_full(&error) && database.reserve.give_up() => {
                transaction(database, alone)
            }
            other => other,
        };
        let done = done.map_err(|failure| match failure {
            Failure::Undone(error) | Failure::Unknown(error) => StateError::Unavailable(sentence(&error)),
        });
        answer(job, done.and_then(|mut done| done.pop().ok_or_else(lost)));
    }
}

fn lost() -> StateError {
    StateError::Unavailable("the store lost the call's outcome".to_owned())
}

fn sentence(error: &rusqlite::Error) -> String {
    match is_disk_full(error) {
        true => format!("the disk is full ({error}): free some room"),
        false => error.to_string(),
    }
}

fn transaction(database: &Database, jobs: &[Job]) -> Result<Vec<Done>, Failure> {
    let written = database
        .begin()
        .and_then(|()| jobs.iter().map(|job| do_one(database, job)).collect());
    match written {
        Ok(done) => match database.commit() {
            Ok(()) => Ok(done),
            Err(error) => {
                database.roll_back();
                // No room for the last frame of the write-ahead log: without it the rest does not count.
                Err(if is_disk_full(&error) {
                    Failure::Undone(error)
                } else {
                    Failure::Unknown(error)
                })
            }
        },
        Err(error) => {
            database.roll_back();
            Err(Failure::Undone(error))
        }
    }
}

fn do_one(database: &Database, job: &Job) -> rusqlite::Result<Done> {
    Ok(match job {
        Job::Acquire { shard, .. } => Done::Acquired(database.acquire(shard)?),
        Job::Scan { shard, prefix, .. } => Done::Scanned(database.scan(shard, prefix)?),
        Job::Commit { lease, changes, .. } => Done::Committed(database.write(lease, changes)?),
        // The queue accepts nothing after a close, so it is last and was taken off.
        Job::Close { .. } => Done::Committed(Ok(())),
    })
}

fn answer(job: Job, done: Result<Done, StateError>) {
    match (job, done) {
        (Job::Acquire { reply, .. }, Ok(Done::Acquired(lease))) => reply.give(Ok(lease)),
        (Job::Scan { reply, .. }, Ok(Done::Scanned(rows))) => reply.give(Ok(rows)),
        (Job::Commit { reply, .. }, Ok(Done::Committed(outcome))) => reply.give(outcome),
        (Job::Acquire { reply, .. }, done) => reply.give(Err(failed(done))),
        (Job::Scan { reply, .. }, done) => reply.give(Err(failed(done))),
        (Job::Commit { reply, .. }, done) => reply.give(Err(failed(done))),
        (Job::Close { reply }, done) => drop((reply, done)),
    }
}

fn failed(done: Result<Done, StateError>) -> StateError {
    done.err().unwrap_or_else(lost)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use milena_state::conformance::wait;
    use milena_state::{Change, Shard};

    use super::*;
    use crate::reply::{Answer, reply};

    fn shard() -> Shard {
        Shard("s".to_owned())
    }

    fn put(lease: &Lease, key: &str, size_bytes: usize) -> (Job, Answer<()>) {
        let (reply, answer) = reply();
        let change = Change {
            key: Bytes::from(key.to_owned()),
            value: Some(Bytes::from(vec![7; size_bytes])),
        };
        (
            Job::Commit {
                lease: lease.clone(),
                changes: vec![change],
                reply,
            },
            answer,
        )
    }

    fn acquired(database: &mut Database) -> Lease {
        let (reply, answer) = reply();
        carry_out(
            database,
            vec![Job::Acquire {
                shard: shard(),
                reply,
            }],
        );
        wait(answer).unwrap()
    }

    fn keys(database: &Database) -> Vec<Bytes> {
        database
            .scan(&shard(), b"")
            .unwrap()
            .into_iter()
            .map(|(key, _)| key)
            .collect()
    }

    #[test]
    fn on_a_full_disk_only_the_call_that_found_no_room_fails_and_later_ones_work_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut database = Database::open(&directory.path().join("facts.sqlite")).unwrap();
        let lease = acquired(&mut database);
        database.limit_pages(16);
        let (before, before_answer) = put(&lease, "before", 10);
        let (large, large_answer) = put(&lease, "large", 1 << 20);
        let (after, after_answer) = put(&lease, "after", 10);
        carry_out(&mut database, vec![before, large, after]);
        assert_eq!(wait(before_answer).err().map(|error| error.to_string()), None);
        assert!(
            wait(large_answer)
                .unwrap_err()
                .to_string()
                .contains("the disk is full")
        );
        assert_eq!(wait(after_answer).err().map(|error| error.to_string()), None);
        assert_eq!(keys(&database), ["after", "before"]);
        database.limit_pages(1 << 20);
        let (large, large_answer) = put(&lease, "large", 1 << 20);
        carry_out(&mut database, vec![large]);
        wait(large_answer).unwrap();
        assert_eq!(keys(&database), ["after", "before", "large"]);
    }

    #[test]
    fn the_reserve_is_given_up_when_the_disk_is_full_and_kept_again_when_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = directory.path().join("facts.sqlite-reserve");
        let mut database = Database::open(&directory.path().join("facts.sqlite")).unwrap();
        let lease = acquired(&mut database);
        assert!(reserve.exists());
        database.limit_pages(16);
        let (large, answer) = put(&lease, "large", 1 << 20);
        carry_out(&mut database, vec![large]);
        wait(answer).unwrap_err();
        assert!(!reserve.exists());
        for n in 0..100 {
            let (small, answer) = put(&lease, &format!("{n}"), 10);
            carry_out(&mut database, vec![small]);
            wait(answer).unwrap();
        }
        assert!(reserve.exists());
    }

    #[test]
    fn a_scan_between_commits_of_one_transaction_sees_those_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut database = Database::open(&directory.path().join("facts.sqlite")).unwrap();
        let lease = acquired(&mut database);
        let (first, _first_answer) = put(&lease, "a", 1);
        let (reply, scanned) = reply();
        let (second, _second_answer) = put(&lease, "b", 1);
        carry_out(
            &mut database,
            vec![
                first,
                Job::Scan {
                    shard: shard(),
                    prefix: Bytes::new(),
                    reply,
                },
                second,
            ],
        );
        assert_eq!(wait(scanned).unwrap().len(), 1);
    }
}
