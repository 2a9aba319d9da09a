//! Room that is kept for the day when the disk is full. Starting needs a few pages (a new lease, the
//! write-ahead log), and so does deleting a topic, which is what frees the disk again.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Enough for some hundred small transactions.
const RESERVE_BYTES: usize = 1 << 20;

/// Transactions between two tries to keep the room again: while the disk stays full, each try writes
/// for nothing.
const RETRY_TRANSACTIONS: u32 = 64;

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// True while the room is kept.
    kept: bool,
    /// Transactions until the next try.
    retry_in: u32,
}

impl Reserve {
    /// Beside the database. What an earlier process kept is kept; a new reserve is made after the first
    /// transaction, when nobody waits for it.
    pub(crate) fn beside(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-reserve");
        let mut reserve = Self {
            path: PathBuf::from(path),
            kept: false,
            retry_in: 0,
        };
        reserve.kept = reserve.is_whole();
        reserve
    }

    fn is_whole(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| usize::try_from(metadata.len()) == Ok(RESERVE_BYTES))
    }

    /// Takes the room if it is not taken; asked after every transaction, tried now and then.
    pub(crate) fn keep(&mut self) {
        if self.kept {
            return;
        }
        if self.retry_in > 0 {
            self.retry_in -= 1;
            return;
        }
        self.retry_in = RETRY_TRANSACTIONS;
        self.kept = self.fill().is_ok();
        if !self.kept {
            // A part of it may be there; it must not count as the whole.
            let _ = fs::remove_file(&self.path);
        }
    }

    fn fill(&self) -> io::Result<()> {
        // Written, not only set to a length: a file of holes reserves nothing.
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&self.path)?;
        let chunk = [0_u8; 64 << 10];
        for _ in 0..RESERVE_BYTES / chunk.len() {
            file.write_all(&chunk)?;
        }
        Ok(())
    }

    /// Gives the room back to the disk. False when there was none to give.
    pub(crate) fn give_up(&mut self) -> bool {
        let was_kept = std::mem::replace(&mut self.kept, false);
        self.retry_in = RETRY_TRANSACTIONS;
        was_kept && fs::remove_file(&self.path).is_ok()
    }
}
