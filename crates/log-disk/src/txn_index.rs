//! The aborted transactions of a segment, in Kafka's format (`.txnindex`): those whose markers are in
//! it, in the markers' order. There is no file while there is none of them.
//!
//! An entry: version (2 bytes, 0), producer id (8), first offset (8), offset of the marker (8), last
//! stable offset when the marker was written (8). Big endian.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use milena_log::EndedTransaction;

use crate::disk::Folder;
use crate::handle::Handle;
use crate::index::EntryFile;
use crate::segment::Segment;

const ENTRY_BYTES: usize = 34;
const VERSION: i16 = 0;
/// So many entries are read at a time.
const READ_ENTRIES: usize = 256;

type Entry = [u8; ENTRY_BYTES];

fn to_entry(ended: &EndedTransaction) -> Entry {
    let mut entry = [0; ENTRY_BYTES];
    entry[..2].copy_from_slice(&VERSION.to_be_bytes());
    entry[2..10].copy_from_slice(&ended.producer_id.to_be_bytes());
    entry[10..18].copy_from_slice(&ended.first_offset.to_be_bytes());
    entry[18..26].copy_from_slice(&ended.last_offset.to_be_bytes());
    entry[26..].copy_from_slice(&ended.last_stable_offset.to_be_bytes());
    entry
}

fn number(entry: &Entry, at: usize) -> i64 {
    let mut out = [0; 8];
    out.copy_from_slice(&entry[at..at + 8]);
    i64::from_be_bytes(out)
}

fn last_offset(entry: &Entry) -> i64 {
    number(entry, 18)
}

fn from_entry(entry: &Entry) -> EndedTransaction {
    EndedTransaction {
        producer_id: number(entry, 2),
        first_offset: number(entry, 10),
        last_offset: last_offset(entry),
        last_stable_offset: number(entry, 26),
    }
}

#[derive(Debug)]
pub(crate) struct TransactionIndex {
    folder: Arc<Folder>,
    entries: EntryFile<ENTRY_BYTES>,
    /// Whether the file's name outlasts a power cut, if there is a file.
    named: AtomicBool,
    /// Whether the file ended within an entry.
    torn: bool,
}

impl TransactionIndex {
    pub(crate) fn load(folder: &Arc<Folder>, base_offset: i64) -> io::Result<Self> {
        Self::load_named(folder, base_offset, "txnindex")
    }

    pub(crate) fn load_named(
        folder: &Arc<Folder>,
        base_offset: i64,
        extension: &'static str,
    ) -> io::Result<Self> {
        let handle = Handle::new(folder, base_offset, extension);
        let is_there = handle.path().exists();
        let (entries, torn) = EntryFile::whole_entries(handle)?;
        Ok(Self {
            folder: Arc::clone(folder),
            entries,
            named: AtomicBool::new(is_there),
            torn,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// Whether there is a file.
    pub(crate) fn is_there(&self) -> bool {
        self.entries.handle.path().exists()
    }

    /// Opens the file, making it also when it has no entries.
    pub(crate) fn open(&self) -> io::Result<()> {
        self.entries.file().map(drop)
    }

    /// Notes an aborted transaction whose marker was written to the segment.
    pub(crate) fn push(&self, ended: &EndedTransaction) -> io::Result<()> {
        self.entries.push(to_entry(ended))
    }

    /// Gives `each` the transactions whose markers are at or behind `from`, until it says that it has
    /// enough; whether it did.
    fn for_each_behind(&self, from: i64, mut each: impl FnMut(EndedTransaction) -> bool) -> io::Result<bool> {
        let mut at = self.entries.partition_point(|entry| last_offset(entry) < from)?;
        loop {
            let entries = self.entries.range(at, READ_ENTRIES)?;
            if entries.is_empty() {
                return Ok(false);
            }
            at += entries.len();
            for entry in &entries {
                if each(from_entry(entry)) {
                    return Ok(true);
                }
            }
        }
    }

    /// The transactions whose markers are at offsets from `from` and below `to`.
    pub(crate) fn between(&self, from: i64, to: i64) -> io::Result<Vec<EndedTransaction>> {
        let mut found = Vec::new();
        self.for_each_behind(from, |ended| {
            let is_behind = ended.last_offset >= to;
            if !is_behind {
                found.push(ended);
            }
            is_behind
        })?;
        Ok(found)
    }

    /// Whether the entries can be those of a segment with these offsets.
    pub(crate) fn is_plausible(&self, base: i64, end: i64) -> io::Result<bool> {
        let mut at = 0;
        let mut least = base;
        loop {
            let entries = self.entries.range(at, READ_ENTRIES)?;
            if entries.is_empty() {
                return Ok(!self.torn);
            }
            at += entries.len();
            for entry in &entries {
                let ended = from_entry(entry);
                let good = entry[..2] == VERSION.to_be_bytes()
                    && ended.producer_id >= 0
                    && (least..end).contains(&ended.last_offset)
                    && (0..ended.last_offset).contains(&ended.first_offset)
                    && (0..=ended.last_offset + 1).contains(&ended.last_stable_offset);
                if !good {
                    return Ok(false);
                }
                least = ended.last_offset + 1;
            }
        }
    }

    /// Forgets the transactions whose markers are at or behind `offset`.
    pub(crate) fn truncate(&self, offset: i64) -> io::Result<()> {
        self.entries
            .truncate_to(|_, entry| Ok(last_offset(entry) < offset))
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) -> io::Result<()> {
        self.entries.clear()
    }

    /// Removes the file if nothing is in it.
    pub(crate) fn remove_if_empty(&self) -> io::Result<()> {
        if self.is_empty() && self.is_there() {
            self.entries.handle.close();
            self.folder.disk.remove(&self.entries.handle.path())?;
        }
        Ok(())
    }

    pub(crate) fn close_if_idle(&self) {
        self.entries.handle.close_if_idle();
    }

    pub(crate) fn close(&self) {
        self.entries.handle.close();
    }

    /// Says that nobody knows whether the file, or its name, has reached the disk.
    pub(crate) fn mark_unsynced(&self) {
        self.entries.mark_unsynced();
        self.named.store(false, Ordering::Release);
    }

    /// Writes what is held back.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.entries.flush()
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.entries.sync()?;
        // A missing file would not be missed: it says that nothing was aborted.
        if !self.is_empty() && !self.named.load(Ordering::Acquire) {
            self.folder.disk.sync_folder(&self.folder)?;
            self.named.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// The aborted transactions that a read of these offsets meets. `segments` are those from the one that
/// has `from` on: what begins in one may end in a later one.
pub(crate) fn aborted_in(segments: &[Arc<Segment>], from: i64, to: i64) -> io::Result<Vec<EndedTransaction>> {
    let mut met = Vec::new();
    for segment in segments {
        let enough = segment.aborted.for_each_behind(from, |ended| {
            if ended.overlaps(from, to) {
                met.push(ended);
            }
            // Everything that began before it had ended by then.
            ended.last_stable_offset >= to
        })?;
        if enough {
            break;
        }
    }
    Ok(met)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;

    fn ended(first_offset: i64, last_offset: i64, last_stable_offset: i64) -> EndedTransaction {
        EndedTransaction {
            producer_id: 7,
            first_offset,
            last_offset,
            last_stable_offset,
        }
    }

    fn folder(dir: &std::path::Path) -> Arc<Folder> {
        Folder::new(dir.to_owned(), Disk::default())
    }

    #[test]
    fn entries_are_written_as_kafka_writes_them_and_no_file_is_made_without_any() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        let index = TransactionIndex::load(&folder, 100).unwrap();
        index.sync().unwrap();
        assert!(!index.is_there());
        index.push(&ended(103, 110, 105)).unwrap();
        index.sync().unwrap();
        let path = crate::files::segment_file(dir.path(), 100, "txnindex");
        let mut bytes = vec![0, 0];
        for number in [7i64, 103, 110, 105] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        assert_eq!(std::fs::read(path).unwrap(), bytes);
        let again = TransactionIndex::load(&folder, 100).unwrap();
        assert!(again.is_plausible(100, 111).unwrap());
        assert!(!again.is_plausible(100, 110).unwrap(), "behind the segment's end");
        assert!(!again.is_plausible(111, 120).unwrap(), "before its start");
    }

    #[test]
    fn a_file_that_ends_within_an_entry_is_not_plausible() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        let index = TransactionIndex::load(&folder, 0).unwrap();
        index.push(&ended(0, 1, 2)).unwrap();
        index.flush().unwrap();
        let path = crate::files::segment_file(dir.path(), 0, "txnindex");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[..5]].concat()).unwrap();
        let torn = TransactionIndex::load(&folder, 0).unwrap();
        assert!(!torn.is_plausible(0, 10).unwrap());
    }

    #[test]
    fn entries_are_found_whether_they_are_written_or_held_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        let index = TransactionIndex::load(&folder, 0).unwrap();
        for at in 0..700 {
            index.push(&ended(at * 2, at * 2 + 1, at * 2 + 2)).unwrap();
        }
        for from in [0, 1, 600, 601, 1_398, 1_399] {
            let mut first = None;
            index
                .for_each_behind(from, |ended| {
                    first = Some(ended.last_offset);
                    true
                })
                .unwrap();
            assert_eq!(first, Some(from | 1));
        }
        let mut count = 0;
        let enough = index.for_each_behind(1, |_| {
            count += 1;
            false
        });
        assert_eq!((enough.unwrap(), count), (false, 700));
    }
}
