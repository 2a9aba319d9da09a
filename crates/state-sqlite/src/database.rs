//! The SQLite file: its tables, its settings, and the statements on it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use milena_state::{Change, Lease, Row, Shard, StateError};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::OpenError;
use crate::reserve::Reserve;

/// Grows when the tables change; a file of a later format is refused.
const FORMAT_VERSION: i64 = 1;

/// Marks the file as Milena's (`MLNA`).
const APPLICATION_ID: i64 = 0x4d4c_4e41;

/// The file's few pages that are read often; facts are read once, at start.
const CACHE_KIB: i64 = 512;

/// Pages of write-ahead log after which they move into the file.
const CHECKPOINT_PAGES: i64 = 256;

/// What the write-ahead log may keep of the disk after a burst.
const JOURNAL_LIMIT_BYTES: i64 = 4 << 20;

const STATEMENTS: usize = 16;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS facts (
        shard TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (shard, key)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS leases (shard TEXT NOT NULL PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
";

#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    pub(crate) reserve: Reserve,
}

impl Database {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let mut reserve = Reserve::beside(path);
        let connection = match connect(path) {
            // Room for the write-ahead log is all that opening needs.
            Err(OpenError::Failed { .. }) if reserve.give_up() => connect(path)?,
            other => other?,
        };
        Ok(Self { connection, reserve })
    }

    pub(crate) fn begin(&self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("BEGIN")?.execute([]).map(drop)
    }

    pub(crate) fn commit(&self) -> rusqlite::Result<()> {
        self.connection.prepare_cached("COMMIT")?.execute([]).map(drop)
    }

    /// Ends a transaction that failed, if SQLite has not ended it already.
    pub(crate) fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the fact store could not undo a transaction");
        }
    }

    pub(crate) fn acquire(&self, shard: &Shard) -> rusqlite::Result<Lease> {
        let mut statement = self.connection.prepare_cached(
            "INSERT INTO leases (shard, epoch) VALUES (?1, 1)
             ON CONFLICT (shard) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
        )?;
        let epoch = statement.query_row([&shard.0], |row| row.get::<_, i64>(0))?;
        Ok(Lease {
            shard: shard.clone(),
            epoch: epoch.cast_unsigned(),
        })
    }

    pub(crate) fn scan(&self, shard: &Shard, prefix: &[u8]) -> rusqlite::Result<Vec<Row>> {
        let read = |row: &rusqlite::Row<'_>| Ok((bytes(row, 0)?, bytes(row, 1)?));
        match after_prefix(prefix) {
            Some(end) => self
                .connection
                .prepare_cached(
                    "SELECT key, value FROM facts WHERE shard = ?1 AND key >= ?2 AND key < ?3 ORDER BY key",
                )?
                .query_map(params![shard.0, prefix, end], read)?
                .collect(),
            None => self
                .connection
                .prepare_cached("SELECT key, value FROM facts WHERE shard = ?1 AND key >= ?2 ORDER BY key")?
                .query_map(params![shard.0, prefix], read)?
                .collect(),
        }
    }

    /// The outer error is the engine's; the inner one says that the lease is no longer the shard's.
    pub(crate) fn write(
        &self,
        lease: &Lease,
        changes: &[Change],
    ) -> rusqlite::Result<Result<(), StateError>> {
        let current = self
            .connection
            .prepare_cached("SELECT epoch FROM leases WHERE shard = ?1")?
            .query_row([&lease.shard.0], |row| row.get::<_, i64>(0))
            .optional()?
            .map_or(0, i64::cast_unsigned);
        // Epoch 0 is no lease: the first one given has epoch 1.
        if current != lease.epoch || current == 0 {
            let (shard, held) = (lease.shard.clone(), lease.epoch);
            return Ok(Err(StateError::Fenced { shard, held, current }));
        }
        for Change { key, value } in changes {
            match value {
                Some(value) => self
                    .connection
                    .prepare_cached("INSERT OR REPLACE INTO facts (shard, key, value) VALUES (?1, ?2, ?3)")?
                    .execute(params![lease.shard.0, &**key, &**value])?,
                None => self
                    .connection
                    .prepare_cached("DELETE FROM facts WHERE shard = ?1 AND key = ?2")?
                    .execute(params![lease.shard.0, &**key])?,
            };
        }
        Ok(Ok(()))
    }

    /// Makes the disk look full to SQLite beyond so many pages.
    #[cfg(test)]
    pub(crate) fn limit_pages(&self, pages: i64) {
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .unwrap();
    }

    pub(crate) fn close(self) -> Result<(), StateError> {
        self.connection
            .close()
            .map_err(|(_, error)| StateError::Unavailable(format!("the fact store did not close: {error}")))
    }
}

pub(crate) fn is_disk_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

fn bytes(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    row.get::<_, Vec<u8>>(column).map(Bytes::from)
}

/// The first key after all keys with the prefix, if there is one.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix.get(..=kept)?.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Some(end)
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse {
            path: path.to_owned(),
        },
        Some(ErrorCode::NotADatabase) => OpenError::Foreign {
            path: path.to_owned(),
        },
        _ => OpenError::Failed {
            path: path.to_owned(),
            error: error.to_string(),
        },
    };
    let connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(Duration::ZERO).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Exclusive before anything is read, so that a second process is refused and no file of shared
    // memory is made.
    connection
        .pragma_update(None, "locking_mode", "EXCLUSIVE")
        .map_err(failed)?;
    check_format(&connection, path, &failed)?;
    let journal_mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed)?;
    if !journal_mode.eq_ignore_ascii_case("wal") {
        let error = format!("no write-ahead log is possible here (journal mode {journal_mode})");
        return Err(OpenError::Failed {
            path: path.to_owned(),
            error,
        });
    }
    for (name, value) in [
        ("synchronous", 2), // FULL
        ("cache_size", -CACHE_KIB),
        ("wal_autocheckpoint", CHECKPOINT_PAGES),
        ("journal_size_limit", JOURNAL_LIMIT_BYTES),
        ("temp_store", 2), // MEMORY
        ("mmap_size", 0),
    ] {
        connection.pragma_update(None, name, value).map_err(failed)?;
    }
    if format_version(&connection).map_err(failed)? == 0 {
        let create = format!(
            "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}; COMMIT;"
        );
        connection.execute_batch(&create).map_err(failed)?;
    }
    Ok(connection)
}

fn format_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Touches nothing of a file that this version must not write to.
fn check_format(
    connection: &Connection,
    path: &Path,
    failed: &dyn Fn(rusqlite::Error) -> OpenError,
) -> Result<(), OpenError> {
    let found = format_version(connection).map_err(failed)?;
    let application_id: i64 = connection
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(failed)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    let is_empty = tables == 0 && found == 0;
    if application_id != APPLICATION_ID && !is_empty {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
        });
    }
    if found > FORMAT_VERSION {
        return Err(OpenError::TooNew {
            path: path.to_owned(),
            found,
            known: FORMAT_VERSION,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }
}
