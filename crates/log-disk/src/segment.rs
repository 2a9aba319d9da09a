//! One segment: a file of batches, its two indexes, and the index of its aborted transactions.
//!
//! Bytes are only ever added at the end, by the one who holds the log's lock; [`Segment::size`] is
//! what readers, who hold no lock, may see. The file is opened when it is first needed.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use bytes::Bytes;
use milena_log::Prepared;
use milena_protocol::records::{Batch, BatchHeader, EndTransactionMarker, HEADER_BYTES};

use crate::disk::{DiskFile, Folder};
use crate::files;
use crate::handle::Handle;
use crate::index::{OffsetIndex, TimeEntry, TimeIndex};
use crate::log::unless_full;
use crate::txn_index::TransactionIndex;

const NO_TIMESTAMP: i64 = -1;

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: i64,
    log: Handle,
    size: AtomicU32,
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
    pub(crate) aborted: TransactionIndex,
    /// Largest timestamp so far, and the last offset of the batch that has it.
    max_timestamp_ms: AtomicI64,
    max_timestamp_offset: AtomicI64,
    /// Timestamp of the first batch, by which `segment.ms` counts; -1 while there is none.
    first_timestamp_ms: AtomicI64,
    bytes_since_index: AtomicU32,
    pub(crate) created_ms: i64,
    /// Bytes that have reached the disk; the indexes may not.
    synced: AtomicU32,
    /// Bytes that outlast a power cut because the journal has them.
    journaled: AtomicU32,
    /// Whether the journal speaks of it.
    in_journal: AtomicBool,
    /// Whether the names of its files have.
    named: AtomicBool,
    folder: Arc<Folder>,
}

impl Segment {
    /// Starts an empty segment.
    pub(crate) fn create(
        folder: &Arc<Folder>,
        base_offset: i64,
        now_ms: i64,
        preallocate: Option<u64>,
    ) -> io::Result<Self> {
        let path = files::segment_file(folder, base_offset, "log");
        let file = folder.disk.open(&path, true)?;
        file.set_len(0)?;
        if let Some(bytes) = preallocate {
            // Kept apart from the file's size, so that the end of the file stays the end of the log.
            let file = file.file();
            match rustix::fs::fallocate(file.as_fd(), rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes) {
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                    tracing::warn!(folder = %folder.display(), "preallocate=true: this file system cannot");
                }
                other => other?,
            }
        }
        let segment = Self::open(folder, base_offset, 0, now_ms)?;
        segment.offsets.clear()?;
        segment.times.clear()?;
        segment.aborted.clear()?;
        segment.named.store(false, Ordering::Release);
        Ok(segment)
    }

    /// A segment whose file has `size` bytes of good batches. Its times are what the index says.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when an index is not plausible and must be made anew.
    pub(crate) fn open(
        folder: &Arc<Folder>,
        base_offset: i64,
        size: u32,
        created_ms: i64,
    ) -> io::Result<Self> {
        let offsets = OffsetIndex::load(folder, base_offset)?;
        let times = TimeIndex::load(folder, base_offset)?;
        if !offsets.is_plausible(size)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the offset index points behind the log",
            ));
        }
        Self::with_indexes(folder, base_offset, size, created_ms, offsets, times)
    }

    /// A segment whose indexes nobody has looked at yet.
    pub(crate) fn with_indexes(
        folder: &Arc<Folder>,
        base_offset: i64,
        size: u32,
        created_ms: i64,
        offsets: OffsetIndex,
        times: TimeIndex,
    ) -> io::Result<Self> {
        let last = times.last()?;
        Ok(Self {
            base_offset,
            log: Handle::new(folder, base_offset, "log"),
            size: AtomicU32::new(size),
            offsets,
            times,
            aborted: TransactionIndex::load(folder, base_offset)?,
            max_timestamp_ms: AtomicI64::new(last.map_or(NO_TIMESTAMP, |entry| entry.timestamp_ms)),
            max_timestamp_offset: AtomicI64::new(last.map_or(base_offset, |entry| entry.offset)),
            first_timestamp_ms: AtomicI64::new(NO_TIMESTAMP),
            bytes_since_index: AtomicU32::new(0),
            created_ms,
            synced: AtomicU32::new(0),
            journaled: AtomicU32::new(0),
            in_journal: AtomicBool::new(false),
            named: AtomicBool::new(true),
            folder: Arc::clone(folder),
        })
    }

    /// Starts the segment that compaction writes, in files of their own until it is swapped in.
    pub(crate) fn create_cleaned(
        folder: &Arc<Folder>,
        base_offset: i64,
        created_ms: i64,
    ) -> io::Result<Self> {
        let [log, index, times, aborted] = files::CLEANED;
        for extension in files::CLEANED {
            folder
                .disk
                .remove(&files::segment_file(folder, base_offset, extension))?;
        }
        let offsets = OffsetIndex::load_named(folder, base_offset, index)?;
        let times = TimeIndex::load_named(folder, base_offset, times)?;
        let mut segment = Self::with_indexes(folder, base_offset, 0, created_ms, offsets, times)?;
        segment.log = Handle::new(folder, base_offset, log);
        segment.aborted = TransactionIndex::load_named(folder, base_offset, aborted)?;
        segment.log.open_or_create()?;
        segment.offsets.open()?;
        segment.times.open()?;
        Ok(segment)
    }

    /// Writes whole batches at the end in one go.
    pub(crate) fn append_run(
        &self,
        bytes: &[u8],
        headers: &[BatchHeader],
        index_interval_bytes: i32,
    ) -> io::Result<()> {
        let mut position = self.size();
        let end = u32::try_from(bytes.len())
            .ok()
            .and_then(|length| position.checked_add(length))
            .ok_or_else(|| io::Error::other("the segment is full"))?;
        self.disk_file()?.write_at([bytes], u64::from(position))?;
        for header in headers {
            self.note(header, position, index_interval_bytes)?;
            position = position.saturating_add(u32::try_from(header.size_bytes()).unwrap_or(u32::MAX));
        }
        self.size.store(end, Ordering::Release);
        Ok(())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.log.path()
    }

    fn disk_file(&self) -> io::Result<Arc<DiskFile>> {
        self.log.open()
    }

    pub(crate) fn file(&self) -> io::Result<Arc<File>> {
        Ok(Arc::clone(self.disk_file()?.file()))
    }

    /// Closes the files that nobody used since the last call.
    pub(crate) fn close_if_idle(&self) {
        self.log.close_if_idle();
        self.offsets.close_if_idle();
        self.times.close_if_idle();
        self.aborted.close_if_idle();
    }

    pub(crate) fn close(&self) {
        self.log.close();
        self.offsets.close();
        self.times.close();
        self.aborted.close();
    }

    /// Gives back what was reserved behind the end.
    pub(crate) fn release_preallocated(&self) -> io::Result<()> {
        self.disk_file()?.set_len(u64::from(self.size()))
    }

    /// Goes back to the newest time that the index has.
    pub(crate) fn forget_times(&self) -> io::Result<()> {
        let last = self.times.last()?;
        self.max_timestamp_ms.store(
            last.map_or(NO_TIMESTAMP, |entry| entry.timestamp_ms),
            Ordering::Release,
        );
        self.max_timestamp_offset.store(
            last.map_or(self.base_offset, |entry| entry.offset),
            Ordering::Release,
        );
        Ok(())
    }

    /// Says that the file was cut, or is to be seen only up to here.
    pub(crate) fn cut_to(&self, size: u32) {
        self.size.store(size, Ordering::Release);
    }

    /// Whether every record in it has reached the disk.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire) == self.size()
    }

    /// Says that everything in it was synced by an earlier run.
    pub(crate) fn mark_synced(&self) {
        self.synced.store(self.size(), Ordering::Release);
    }

    /// Says that the first `size` bytes, and the file's name, have reached the disk.
    pub(crate) fn mark_synced_to(&self, size: u32) {
        self.synced.fetch_max(size, Ordering::AcqRel);
        self.named.store(true, Ordering::Release);
    }

    /// Says that the journal has the first `size` bytes; whether it did not speak of the segment before.
    pub(crate) fn note_journaled(&self, size: u32) -> bool {
        self.journaled.fetch_max(size, Ordering::AcqRel);
        !self.in_journal.swap(true, Ordering::AcqRel)
    }

    /// Says that the journal speaks of it no more.
    pub(crate) fn leave_journal(&self) {
        self.in_journal.store(false, Ordering::Release);
    }

    /// Bytes that outlast a power cut, if its name does.
    pub(crate) fn durable(&self) -> u32 {
        let synced = self.synced.load(Ordering::Acquire);
        synced.max(self.journaled.load(Ordering::Acquire))
    }

    /// Whether some of it outlasts a power cut only because the journal has it.
    pub(crate) fn is_journaled(&self) -> bool {
        self.durable() > self.synced.load(Ordering::Acquire)
    }

    /// Whether its files' names outlast a power cut.
    pub(crate) fn is_named(&self) -> bool {
        self.named.load(Ordering::Acquire)
    }

    /// Bytes that readers may see.
    pub(crate) fn size(&self) -> u32 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn max_timestamp(&self) -> Option<TimeEntry> {
        let timestamp_ms = self.max_timestamp_ms.load(Ordering::Acquire);
        let offset = self.max_timestamp_offset.load(Ordering::Acquire);
        (timestamp_ms != NO_TIMESTAMP).then_some(TimeEntry { timestamp_ms, offset })
    }

    /// Timestamp of the segment's first batch, read from the file if it was written by an earlier run.
    pub(crate) fn first_timestamp_ms(&self) -> io::Result<Option<i64>> {
        let known = self.first_timestamp_ms.load(Ordering::Acquire);
        if known >= 0 {
            return Ok(Some(known));
        }
        let Some(header) = self.header_at(0)? else {
            return Ok(None);
        };
        self.first_timestamp_ms
            .store(header.max_timestamp, Ordering::Release);
        Ok((header.max_timestamp >= 0).then_some(header.max_timestamp))
    }

    /// Writes a batch at the end. Header and records go down in one call; nothing is copied.
    ///
    /// # Errors
    /// When the disk does not take it; then the segment is as before, its file cut back.
    pub(crate) fn append(&self, batch: &Prepared, index_interval_bytes: i32) -> io::Result<()> {
        let position = self.size();
        let header = batch.header.to_bytes();
        let size = u32::try_from(batch.size_bytes()).map_err(io::Error::other)?;
        let end = position
            .checked_add(size)
            .ok_or_else(|| io::Error::other("the segment is full"))?;
        let file = self.disk_file()?;
        if let Err(error) = file.write_at([&header, &batch.payload], u64::from(position)) {
            // The bytes behind the end are not part of the log; recovery would cut them too.
            let _ = file.set_len(u64::from(position));
            return Err(error);
        }
        let last_offset = batch.header.last_offset();
        if position == 0 {
            self.first_timestamp_ms
                .store(batch.max_timestamp_ms, Ordering::Release);
        }
        self.note(&batch.header, position, index_interval_bytes).or_else(|error| {
            // Indexes are made anew on the next start; a full disk must not lose a written batch.
            tracing::warn!(segment = %self.path().display(), offset = last_offset, %error, "cannot write to the index");
            Ok::<(), io::Error>(())
        })?;
        self.size.store(end, Ordering::Release);
        Ok(())
    }

    /// Brings times and indexes up to date with a batch at `position`.
    pub(crate) fn note(
        &self,
        header: &BatchHeader,
        position: u32,
        index_interval_bytes: i32,
    ) -> io::Result<()> {
        let last_offset = header.last_offset();
        if header.max_timestamp > self.max_timestamp_ms.load(Ordering::Acquire) {
            self.max_timestamp_offset.store(last_offset, Ordering::Release);
            self.max_timestamp_ms
                .store(header.max_timestamp, Ordering::Release);
        }
        let since = self.bytes_since_index.load(Ordering::Acquire);
        if i64::from(since) > i64::from(index_interval_bytes) {
            self.offsets.push(last_offset, position)?;
            self.finish_times()?;
            self.bytes_since_index.store(0, Ordering::Release);
        }
        let size = u32::try_from(header.size_bytes()).unwrap_or(u32::MAX);
        let since = self.bytes_since_index.load(Ordering::Acquire);
        self.bytes_since_index
            .store(since.saturating_add(size), Ordering::Release);
        Ok(())
    }

    /// Puts the largest time into the index, so that it outlasts this run.
    pub(crate) fn finish_times(&self) -> io::Result<()> {
        match self.max_timestamp() {
            Some(entry) => {
                // Kafka's tools take it that an index of times has one of offsets beside it, if only an empty one.
                self.offsets.open()?;
                self.times.push(entry)
            }
            None => Ok(()),
        }
    }

    /// The header of the batch at `position`; `None` at the end.
    pub(crate) fn header_at(&self, position: u32) -> io::Result<Option<BatchHeader>> {
        if position >= self.size() {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_BYTES];
        self.file()?.read_exact_at(&mut bytes, u64::from(position))?;
        BatchHeader::parse(&bytes).map(Some).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} at {position}: {error}", self.path().display()),
            )
        })
    }

    /// What is in the control batch at `position`, if it ends a transaction.
    pub(crate) fn marker_at(
        &self,
        position: u32,
        header: &BatchHeader,
    ) -> io::Result<Option<EndTransactionMarker>> {
        if !header.is_control() {
            return Ok(None);
        }
        let bytes = Bytes::from(self.read(position, header.size_bytes())?);
        let marker = Batch::parse(&bytes).and_then(|batch| EndTransactionMarker::of(&batch));
        marker.map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} at {position}: {error}", self.path().display()),
            )
        })
    }

    /// Position and header of the first batch whose last record is at or after `offset`.
    pub(crate) fn find(&self, offset: i64) -> io::Result<Option<(u32, BatchHeader)>> {
        let mut position = self.offsets.position(offset)?;
        while let Some(header) = self.header_at(position)? {
            if header.last_offset() >= offset {
                return Ok(Some((position, header)));
            }
            position = position.saturating_add(u32::try_from(header.size_bytes()).unwrap_or(u32::MAX));
        }
        Ok(None)
    }

    /// Up to `length` bytes from `position` on.
    pub(crate) fn read(&self, position: u32, length: usize) -> io::Result<Vec<u8>> {
        let there = (self.size() - position.min(self.size())) as usize;
        let length = length.min(there);
        let mut bytes = Vec::with_capacity(length);
        let file = self.file()?;
        while bytes.len() < length {
            let at = u64::from(position) + bytes.len() as u64;
            // Reads into what the vector has reserved, which may be a little more than asked for.
            let read = rustix::io::pread(file.as_fd(), rustix::buffer::spare_capacity(&mut bytes), at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Adds the bytes between two positions to `buffer`.
    pub(crate) fn read_into(&self, buffer: &mut Vec<u8>, from: u32, to: u32) -> io::Result<()> {
        let start = buffer.len();
        buffer.resize(start + (to - from) as usize, 0);
        self.file()?.read_exact_at(&mut buffer[start..], u64::from(from))
    }

    /// Makes the records durable that were there when it was called.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let size = self.size();
        if self.synced.load(Ordering::Acquire) < size {
            self.disk_file()?.sync()?;
            self.synced.fetch_max(size, Ordering::AcqRel);
        }
        if !self.named.load(Ordering::Acquire) {
            self.folder.disk.sync_folder(&self.folder)?;
            self.named.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Makes the indexes durable. The next start then trusts them.
    pub(crate) fn sync_indexes(&self) -> io::Result<()> {
        self.offsets.sync()?;
        self.times.sync()?;
        self.aborted.sync()
    }

    /// Writes what the indexes hold back.
    pub(crate) fn flush_indexes(&self) -> io::Result<()> {
        self.offsets.flush()?;
        self.times.flush()?;
        self.aborted.flush()
    }

    /// Removes the segment's files.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.close();
        files::SEGMENT.iter().try_for_each(|extension| {
            let path = files::segment_file(&self.folder, self.base_offset, extension);
            self.folder.disk.remove(&path)
        })
    }

    /// Renames the segment's files to `.deleted`, and gives the new names.
    pub(crate) fn retire(&self) -> io::Result<Vec<PathBuf>> {
        // A reader that still holds the segment reads on from the open files.
        if self.size() > 0 {
            self.file()?;
            // An index that was not written yet may find no room now; then it has nothing to read.
            unless_full(self.offsets.open())?;
            unless_full(self.times.open())?;
            if !self.aborted.is_empty() {
                unless_full(self.aborted.open())?;
            }
        }
        retire(&self.folder, self.base_offset)
    }
}

/// Renames a segment's files to `.deleted`, whatever is in them, and gives the new names.
pub(crate) fn retire(folder: &Folder, base_offset: i64) -> io::Result<Vec<PathBuf>> {
    let mut retired = Vec::new();
    for extension in files::SEGMENT {
        let path = files::segment_file(folder, base_offset, extension);
        let mut new = path.as_os_str().to_owned();
        new.push(files::DELETED_SUFFIX);
        let new = PathBuf::from(new);
        match folder.disk.rename(&path, &new) {
            Ok(()) => retired.push(new),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(retired)
}
