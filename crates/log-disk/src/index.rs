//! The sparse indexes of a segment, in Kafka's formats, kept in files alone: a lookup is a binary
//! search by reads of a few bytes, which the page cache answers, and costs no memory per entry.
//!
//! - offset index: relative offset (4 bytes) of a batch's last record, position (4 bytes) of the batch;
//! - time index: timestamp in ms (8), relative offset (4) of the last record of the batch that has it.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::directory::lock;
use crate::disk::{DiskFile, Folder};
use crate::handle::Handle;

/// Entries that are held back, so that not every batch costs a write to its indexes. A start after a
/// crash makes them anew.
const MOST_HELD_ENTRIES: usize = 64;

/// A file of entries of one size, ascending. Created when its first entries are written.
#[derive(Debug)]
pub(crate) struct EntryFile<const BYTES: usize> {
    pub(crate) handle: Handle,
    /// Entries in the file.
    entries: AtomicUsize,
    /// The entries behind those of the file.
    held: Mutex<Vec<[u8; BYTES]>>,
    /// Whether the file was written since it was last synced.
    dirty: AtomicBool,
}

impl<const BYTES: usize> EntryFile<BYTES> {
    fn new(handle: Handle) -> io::Result<Self> {
        let (file, torn) = Self::whole_entries(handle)?;
        if torn {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the index does not end with a whole entry",
            ));
        }
        Ok(file)
    }

    /// Also says whether the file ends within an entry.
    pub(crate) fn whole_entries(handle: Handle) -> io::Result<(Self, bool)> {
        let length = match handle.path().metadata() {
            Ok(metadata) => usize::try_from(metadata.len()).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let file = Self {
            handle,
            entries: AtomicUsize::new(length / BYTES),
            held: Mutex::new(Vec::new()),
            dirty: AtomicBool::new(false),
        };
        Ok((file, !length.is_multiple_of(BYTES)))
    }

    pub(crate) fn file(&self) -> io::Result<Arc<DiskFile>> {
        self.handle.open_or_create()
    }

    pub(crate) fn len(&self) -> usize {
        // Under the lock, as a flush moves entries from one to the other.
        let held = lock(&self.held);
        self.entries.load(Ordering::Acquire) + held.len()
    }

    fn get(&self, at: usize) -> io::Result<[u8; BYTES]> {
        {
            let held = lock(&self.held);
            let written = self.entries.load(Ordering::Acquire);
            if let Some(entry) = at.checked_sub(written).and_then(|at| held.get(at)) {
                return Ok(*entry);
            }
        }
        let mut entry = [0; BYTES];
        self.file()?
            .file()
            .read_exact_at(&mut entry, (at * BYTES) as u64)?;
        Ok(entry)
    }

    /// Up to `most` entries from the one at `at` on; none only behind the last one.
    pub(crate) fn range(&self, at: usize, most: usize) -> io::Result<Vec<[u8; BYTES]>> {
        let count = {
            let held = lock(&self.held);
            let written = self.entries.load(Ordering::Acquire);
            if let Some(from) = at.checked_sub(written) {
                let there = held.get(from..).unwrap_or_default();
                return Ok(there[..there.len().min(most)].to_vec());
            }
            (written - at).min(most)
        };
        let mut entries = vec![[0; BYTES]; count];
        self.file()?
            .file()
            .read_exact_at(entries.as_flattened_mut(), (at * BYTES) as u64)?;
        Ok(entries)
    }

    pub(crate) fn push(&self, entry: [u8; BYTES]) -> io::Result<()> {
        let mut held = lock(&self.held);
        held.push(entry);
        if held.len() >= MOST_HELD_ENTRIES {
            self.write(&mut held)
        } else {
            Ok(())
        }
    }

    fn write(&self, held: &mut Vec<[u8; BYTES]>) -> io::Result<()> {
        if held.is_empty() {
            return Ok(());
        }
        let written = self.entries.load(Ordering::Acquire);
        self.dirty.store(true, Ordering::Release);
        // What cannot be written now is held on: the last entry of a segment's times says how old it is.
        self.file()?
            .write_at([held.as_flattened()], (written * BYTES) as u64)?;
        self.entries.store(written + held.len(), Ordering::Release);
        *held = Vec::new();
        Ok(())
    }

    /// Writes what is held back.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.write(&mut lock(&self.held))
    }

    /// Says that nobody knows whether the file has reached the disk.
    pub(crate) fn mark_unsynced(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    /// As [`Self::truncate_to`], of entries that ascend: what a power cut left of one may be zeros, which point
    /// to the first batch and follow nothing.
    fn truncate_ascending_to(&self, is_good: impl Fn(&[u8; BYTES]) -> io::Result<bool>) -> io::Result<()> {
        // Big endian, and never negative.
        let follows = |at: usize, entry: &[u8; BYTES]| -> io::Result<bool> {
            at.checked_sub(1)
                .map_or(Ok(true), |before| Ok(self.get(before)? < *entry))
        };
        self.truncate_to(|at, entry| Ok(follows(at, entry)? && is_good(entry)?))
    }

    /// Cuts the file behind the last entry that is good; it is told with its place.
    pub(crate) fn truncate_to(
        &self,
        is_good: impl Fn(usize, &[u8; BYTES]) -> io::Result<bool>,
    ) -> io::Result<()> {
        let entries = self.entries.load(Ordering::Acquire);
        let mut count = entries;
        while let Some(last) = count.checked_sub(1) {
            if is_good(last, &self.get(last)?)? {
                break;
            }
            count = last;
        }
        if count < entries {
            self.dirty.store(true, Ordering::Release);
            self.file()?.set_len((count * BYTES) as u64)?;
            self.entries.store(count, Ordering::Release);
        }
        Ok(())
    }

    /// The last entry for which `before` holds; it holds for a prefix.
    fn floor(&self, before: impl Fn(&[u8; BYTES]) -> bool) -> io::Result<Option<[u8; BYTES]>> {
        let behind = self.partition_point(before)?;
        behind.checked_sub(1).map(|at| self.get(at)).transpose()
    }

    /// How many entries there are for which `before` holds; it holds for a prefix.
    pub(crate) fn partition_point(&self, before: impl Fn(&[u8; BYTES]) -> bool) -> io::Result<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if before(&self.get(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        lock(&self.held).clear();
        if self.entries.load(Ordering::Acquire) > 0 || self.handle.path().exists() {
            self.file()?.set_len(0)?;
        }
        self.entries.store(0, Ordering::Release);
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.flush()?;
        if self.dirty.swap(false, Ordering::AcqRel) && self.handle.path().exists() {
            // What a sync loses does not come back when there is room again, as what a write refuses does.
            self.file()?.sync().map_err(io::Error::other)?;
        }
        Ok(())
    }
}

fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

/// Finds the batch that an offset is in.
#[derive(Debug)]
pub(crate) struct OffsetIndex {
    base_offset: i64,
    entries: EntryFile<8>,
}

impl OffsetIndex {
    pub(crate) fn load(folder: &Arc<Folder>, base_offset: i64) -> io::Result<Self> {
        Self::load_named(folder, base_offset, "index")
    }

    pub(crate) fn load_named(
        folder: &Arc<Folder>,
        base_offset: i64,
        extension: &'static str,
    ) -> io::Result<Self> {
        Ok(Self {
            base_offset,
            entries: EntryFile::new(Handle::new(folder, base_offset, extension))?,
        })
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.entries.len() * 8
    }

    /// Opens the file, making it also when it has no entries.
    pub(crate) fn open(&self) -> io::Result<()> {
        self.entries.file().map(drop)
    }

    pub(crate) fn close_if_idle(&self) {
        self.entries.handle.close_if_idle();
    }

    pub(crate) fn close(&self) {
        self.entries.handle.close();
    }

    /// Whether there is a file.
    pub(crate) fn is_there(&self) -> bool {
        self.entries.handle.path().exists()
    }

    /// The batch at `position` ends with the record `last_offset`.
    pub(crate) fn push(&self, last_offset: i64, position: u32) -> io::Result<()> {
        let relative = i32::try_from(last_offset - self.base_offset).map_err(io::Error::other)?;
        let mut entry = [0; 8];
        entry[..4].copy_from_slice(&relative.to_be_bytes());
        entry[4..].copy_from_slice(&position.to_be_bytes());
        self.entries.push(entry)
    }

    /// Where to start to look for `offset`: at or before its batch.
    pub(crate) fn position(&self, offset: i64) -> io::Result<u32> {
        let relative = offset - self.base_offset;
        let floor = self
            .entries
            .floor(|entry| i64::from(i32::from_be_bytes(number(entry))) <= relative)?;
        Ok(floor.map_or(0, |entry| u32::from_be_bytes(number(&entry[4..]))))
    }

    /// An offset that no batch reaches which starts before `position`, if the index tells one.
    pub(crate) fn offset_behind(&self, position: u32) -> io::Result<Option<i64>> {
        let at = self
            .entries
            .partition_point(|entry| u32::from_be_bytes(number(&entry[4..])) < position)?;
        let entry = self.entries.range(at, 1)?;
        Ok(entry
            .first()
            .map(|entry| self.base_offset + i64::from(i32::from_be_bytes(number(entry)))))
    }

    /// Cuts the index behind the last entry for whose offset and position `is_good` holds.
    pub(crate) fn truncate_to(&self, is_good: impl Fn(i64, u32) -> io::Result<bool>) -> io::Result<()> {
        self.entries.truncate_ascending_to(|entry| {
            let relative = i32::from_be_bytes(number(entry));
            is_good(
                self.base_offset + i64::from(relative),
                u32::from_be_bytes(number(&entry[4..])),
            )
        })
    }

    /// Whether the last entry points into the first `size` bytes, and the entries ascend there.
    pub(crate) fn is_plausible(&self, size: u32) -> io::Result<bool> {
        let Some(last) = self.entries.len().checked_sub(1) else {
            return Ok(true);
        };
        let entry = self.entries.get(last)?;
        let relative = i32::from_be_bytes(number(&entry));
        Ok(relative >= 0 && u32::from_be_bytes(number(&entry[4..])) < size)
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        self.entries.clear()
    }

    /// See [`EntryFile::mark_unsynced`].
    pub(crate) fn mark_unsynced(&self) {
        self.entries.mark_unsynced();
    }

    /// Writes what is held back.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.entries.flush()
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.entries.sync()
    }
}

/// A timestamp and the last offset of the batch that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp_ms: i64,
    pub(crate) offset: i64,
}

/// Finds where a time is reached.
#[derive(Debug)]
pub(crate) struct TimeIndex {
    base_offset: i64,
    entries: EntryFile<12>,
}

impl TimeIndex {
    pub(crate) fn load(folder: &Arc<Folder>, base_offset: i64) -> io::Result<Self> {
        Self::load_named(folder, base_offset, "timeindex")
    }

    pub(crate) fn load_named(
        folder: &Arc<Folder>,
        base_offset: i64,
        extension: &'static str,
    ) -> io::Result<Self> {
        Ok(Self {
            base_offset,
            entries: EntryFile::new(Handle::new(folder, base_offset, extension))?,
        })
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.entries.len() * 12
    }

    /// Opens the file, making it also when it has no entries.
    pub(crate) fn open(&self) -> io::Result<()> {
        self.entries.file().map(drop)
    }

    pub(crate) fn close_if_idle(&self) {
        self.entries.handle.close_if_idle();
    }

    pub(crate) fn close(&self) {
        self.entries.handle.close();
    }

    fn entry(&self, bytes: &[u8; 12]) -> TimeEntry {
        TimeEntry {
            timestamp_ms: i64::from_be_bytes(number(bytes)),
            offset: self.base_offset + i64::from(i32::from_be_bytes(number(&bytes[8..]))),
        }
    }

    pub(crate) fn last(&self) -> io::Result<Option<TimeEntry>> {
        match self.entries.len().checked_sub(1) {
            None => Ok(None),
            Some(last) => Ok(Some(self.entry(&self.entries.get(last)?))),
        }
    }

    /// Adds an entry if it is later than the last one.
    pub(crate) fn push(&self, entry: TimeEntry) -> io::Result<()> {
        if self
            .last()?
            .is_some_and(|last| last.timestamp_ms >= entry.timestamp_ms || last.offset >= entry.offset)
        {
            return Ok(());
        }
        let relative = i32::try_from(entry.offset - self.base_offset).map_err(io::Error::other)?;
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&entry.timestamp_ms.to_be_bytes());
        bytes[8..].copy_from_slice(&relative.to_be_bytes());
        self.entries.push(bytes)
    }

    /// Cuts the index behind the last entry for which `is_good` holds.
    pub(crate) fn truncate_to(&self, is_good: impl Fn(TimeEntry) -> io::Result<bool>) -> io::Result<()> {
        self.entries
            .truncate_ascending_to(|bytes| is_good(self.entry(bytes)))
    }

    /// An offset at which every earlier record is older than `timestamp_ms`.
    pub(crate) fn offset_before(&self, timestamp_ms: i64) -> io::Result<i64> {
        let floor = self
            .entries
            .floor(|entry| i64::from_be_bytes(number(entry)) < timestamp_ms)?;
        Ok(floor.map_or(self.base_offset, |bytes| self.entry(&bytes).offset))
    }

    pub(crate) fn clear(&self) -> io::Result<()> {
        self.entries.clear()
    }

    /// See [`EntryFile::mark_unsynced`].
    pub(crate) fn mark_unsynced(&self) {
        self.entries.mark_unsynced();
    }

    /// Writes what is held back.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.entries.flush()
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.entries.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::files;

    #[test]
    fn an_offset_is_found_at_or_before_its_batch() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), Disk::default());
        let index = OffsetIndex::load(&folder, 100).unwrap();
        assert_eq!(index.position(100).unwrap(), 0);
        for (offset, position) in [(110, 1000), (120, 2000), (130, 3000)] {
            index.push(offset, position).unwrap();
        }
        let found: Vec<u32> = [100, 110, 119, 120, 500]
            .map(|offset| index.position(offset).unwrap())
            .into();
        assert_eq!(found, [0, 1000, 1000, 2000, 3000]);
        index.flush().unwrap();
        let again = OffsetIndex::load(&folder, 100).unwrap();
        assert_eq!(again.position(125).unwrap(), 2000);
    }

    #[test]
    fn zeros_behind_entries_that_are_cut_do_not_count_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), Disk::default());
        let index = OffsetIndex::load(&folder, 100).unwrap();
        for (offset, position) in [(110, 1000), (120, 2000), (130, 3000)] {
            index.push(offset, position).unwrap();
        }
        index.flush().unwrap();
        let path = files::segment_file(dir.path(), 100, "index");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.resize(bytes.len() + 16, 0);
        std::fs::write(&path, bytes).unwrap();
        let again = OffsetIndex::load(&folder, 100).unwrap();
        // Offset 100 is in the batch at 0, as the zeros say: only their place tells that they are no entry.
        again.truncate_to(|offset, _| Ok(offset < 120)).unwrap();
        assert_eq!((again.size_bytes(), again.position(500).unwrap()), (8, 1000));
    }

    #[test]
    fn time_entries_only_grow() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), Disk::default());
        let index = TimeIndex::load(&folder, 0).unwrap();
        for (timestamp_ms, offset) in [(10, 1), (10, 2), (9, 3), (20, 4)] {
            index.push(TimeEntry { timestamp_ms, offset }).unwrap();
        }
        assert_eq!(index.size_bytes(), 24);
        assert_eq!(
            index.last().unwrap(),
            Some(TimeEntry {
                timestamp_ms: 20,
                offset: 4
            })
        );
        assert_eq!(
            (index.offset_before(10).unwrap(), index.offset_before(11).unwrap()),
            (0, 1)
        );
    }

    #[test]
    fn an_index_that_ends_in_the_middle_of_an_entry_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), Disk::default());
        std::fs::write(files::segment_file(dir.path(), 0, "index"), [0; 12]).unwrap();
        assert!(OffsetIndex::load(&folder, 0).is_err());
    }
}
