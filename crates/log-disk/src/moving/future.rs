//! A replica that is being filled: segments that are copied from the current one, in a folder of their own
//! that no start takes for a log.
//!
//! A copied segment begins where the source's does, or, where compaction changed the source meanwhile, at
//! the next offset. What the source has dropped is dropped here too; what it compacted later may stay,
//! until it is compacted here.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use milena_log::PartitionId;
use milena_protocol::records::{BatchHeader, HEADER_BYTES};

use super::Failure;
use crate::commit::Committer;
use crate::directory::{Directory, lock};
use crate::disk::Folder;
use crate::files;
use crate::log::{DiskLog, View};
use crate::segment::Segment;

/// What a batch's CRC covers begins here.
const CRC_COVERS_FROM: usize = 21;

#[derive(Debug)]
pub(crate) struct Future {
    pub(crate) id: PartitionId,
    pub(crate) directory: Arc<Directory>,
    pub(super) committer: Arc<Committer>,
    pub(super) folder: Arc<Folder>,
    /// Stands in the names of its folder and of the marker of its move.
    pub(super) unique: String,
    /// Up to where the source was compacted when the copying began.
    pub(super) first_dirty: Option<i64>,
    pub(super) filled: Mutex<Filled>,
    is_cancelled: AtomicBool,
    size_bytes: AtomicU64,
    next: AtomicI64,
}

/// How far it is.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) segments: Vec<Arc<Segment>>,
    /// What the last of the segments is copied from, and up to which position.
    source: Option<(Arc<Segment>, u32)>,
    /// The next offset that is wanted; before the first copy less than any.
    pub(super) next: i64,
}

/// What one piece of work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) bytes: usize,
    /// Everything was copied that was there.
    pub(super) is_all: bool,
}

impl Future {
    /// Makes the folder. What its directory still knows of an earlier stay of the partition is forgotten.
    pub(super) fn create(
        log: &DiskLog,
        directory: &Arc<Directory>,
        committer: &Arc<Committer>,
    ) -> io::Result<Self> {
        let unique = files::unique()?;
        let id = log.id.clone();
        let suffix = files::FUTURE_FOLDER_SUFFIX;
        let name = files::renamed_folder(&id.topic, id.partition, &unique, suffix);
        if files::parse_renamed(&name, suffix).is_none_or(|(folder, _)| folder != log.folder) {
            return Err(io::Error::other(
                "the topic name is too long for a future replica's folder",
            ));
        }
        directory.forget(&log.folder)?;
        let folder = directory.folder(&name);
        directory.disk.create_folder(&folder)?;
        files::write_partition_metadata(&directory.disk, &folder, id.topic_id)?;
        Ok(Self {
            first_dirty: log.directory.first_dirty(&log.folder),
            id,
            directory: Arc::clone(directory),
            committer: Arc::clone(committer),
            folder,
            unique,
            filled: Mutex::new(Filled {
                segments: Vec::new(),
                source: None,
                next: i64::MIN,
            }),
            is_cancelled: AtomicBool::new(false),
            size_bytes: AtomicU64::new(0),
            next: AtomicI64::new(-1),
        })
    }

    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// Where it ends now; 0 when nothing was copied yet.
    pub(crate) fn log_end(&self) -> i64 {
        self.next.load(Ordering::Acquire).max(0)
    }

    /// Copies about `most` bytes at most.
    pub(super) fn copy(&self, log: &DiskLog, most: usize) -> Result<Copied, Failure> {
        let mut filled = lock(&self.filled);
        let view = log.view(filled.next).map_err(|_| Failure::Gone)?;
        self.copy_view(&mut filled, &view, most)
    }

    /// The same of what was looked up before.
    pub(super) fn copy_view(&self, filled: &mut Filled, view: &View, most: usize) -> Result<Copied, Failure> {
        let copied = filled.copy(&self.folder, view, most);
        let sizes = filled.segments.iter().map(|segment| u64::from(segment.size()));
        self.size_bytes.store(sizes.sum(), Ordering::Release);
        self.next.store(filled.next, Ordering::Release);
        copied
    }

    /// Makes all of it durable, names and indexes too. Holds the lock of the copying alone.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        let filled = lock(&self.filled);
        filled.sync().map_err(Failure::Destination)?;
        files::sync_partition(&self.folder).map_err(Failure::Destination)
    }
}

/// The whole batches that `bytes` begins with, and how many bytes they are.
fn whole_batches(bytes: &[u8]) -> io::Result<(Vec<BatchHeader>, usize)> {
    let (mut headers, mut at) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let header = BatchHeader::parse(rest).map_err(|error| invalid(error.to_string()))?;
        let Some(batch) = rest.get(..header.size_bytes()) else {
            break;
        };
        if crc32c::crc32c(&batch[CRC_COVERS_FROM..]) != header.crc {
            return Err(invalid(format!(
                "the batch at offset {} has a wrong CRC",
                header.base_offset
            )));
        }
        at += header.size_bytes();
        headers.push(header);
    }
    Ok((headers, at))
}

impl Filled {
    fn copy(&mut self, folder: &Arc<Folder>, view: &View, most: usize) -> Result<Copied, Failure> {
        let nothing = |is_all| Ok(Copied { bytes: 0, is_all });
        if self.next < view.first {
            self.begin_at(view.first).map_err(Failure::Destination)?;
        }
        let position = match &self.source {
            Some((source, position)) if Arc::ptr_eq(source, &view.segment) => *position,
            _ => {
                let found = view.segment.find(self.next).map_err(Failure::Source)?;
                self.source = None;
                found.map_or(view.size, |(position, _)| position)
            }
        };
        if position >= view.size {
            // Where compaction took the last records of a segment, the next one has the next of them.
            self.next = self.next.max(view.after.unwrap_or(view.log_end));
            return nothing(view.after.is_none());
        }
        let left = (view.size - position) as usize;
        let mut bytes = view
            .segment
            .read(
                position,
                most.clamp(HEADER_BYTES, left.max(HEADER_BYTES)).min(left),
            )
            .map_err(Failure::Source)?;
        let (mut headers, mut length) = whole_batches(&bytes).map_err(Failure::Source)?;
        if headers.is_empty() {
            let first = BatchHeader::parse(&bytes)
                .map_err(|error| Failure::Source(io::Error::new(io::ErrorKind::InvalidData, error)))?;
            let size = first.size_bytes().min(left);
            bytes = view.segment.read(position, size).map_err(Failure::Source)?;
            (headers, length) = whole_batches(&bytes).map_err(Failure::Source)?;
        }
        let (Some(first), Some(last)) = (headers.first(), headers.last()) else {
            let why = format!("{} ends within a batch", view.segment.path().display());
            return Err(Failure::Source(io::Error::new(io::ErrorKind::InvalidData, why)));
        };
        let (from, next) = (first.base_offset, last.next_offset());
        if self.source.is_none() {
            self.begin_segment(folder, view.segment.created_ms)
                .map_err(Failure::Destination)?;
        }
        let aborted = view
            .segment
            .aborted
            .between(from, next)
            .map_err(Failure::Source)?;
        let segment = self.last().map_err(Failure::Destination)?;
        segment
            .append_run(&bytes[..length], &headers, view.index_interval_bytes)
            .and_then(|()| aborted.iter().try_for_each(|ended| segment.aborted.push(ended)))
            .map_err(Failure::Destination)?;
        let position = position.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        self.source = Some((Arc::clone(&view.segment), position));
        self.next = next;
        Ok(Copied {
            bytes: length,
            is_all: view.after.is_none() && position >= view.size,
        })
    }

    fn last(&self) -> io::Result<&Arc<Segment>> {
        let last = self.segments.last();
        last.ok_or_else(|| io::Error::other("the future replica has no segment"))
    }

    /// Begins at a later offset, as the source does now.
    fn begin_at(&mut self, offset: i64) -> io::Result<()> {
        while let Some(segment) = self.segments.pop() {
            segment.remove()?;
        }
        (self.source, self.next) = (None, offset);
        Ok(())
    }

    /// Ends the last segment and begins one at the next offset.
    fn begin_segment(&mut self, folder: &Arc<Folder>, created_ms: i64) -> io::Result<()> {
        match self.segments.last() {
            Some(last) if last.base_offset == self.next => {
                last.remove()?;
                self.segments.pop();
            }
            Some(last) => {
                last.finish_times()?;
                // Kafka keeps the time, by which segments without timestamps age.
                let age = Duration::from_millis(u64::try_from(last.created_ms).unwrap_or(0));
                last.sync()?;
                last.sync_indexes()?;
                last.file()?.set_modified(UNIX_EPOCH + age)?;
                last.close();
            }
            None => {}
        }
        let segment = Segment::create(folder, self.next, created_ms, None)?;
        self.segments.push(Arc::new(segment));
        Ok(())
    }

    /// Has an empty segment where the source's active one is empty, whose base alone tells the log's end.
    pub(super) fn mirror_empty(
        &mut self,
        folder: &Arc<Folder>,
        active: Option<&Arc<Segment>>,
    ) -> io::Result<()> {
        let Some(active) = active else { return Ok(()) };
        if self
            .segments
            .last()
            .is_none_or(|last| last.base_offset != active.base_offset)
        {
            self.next = active.base_offset;
            self.begin_segment(folder, active.created_ms)?;
        }
        Ok(())
    }

    /// Forgets the last segment, of which nobody knows how much was written, to copy it again.
    pub(super) fn discard_last(&mut self) -> io::Result<()> {
        self.source = None;
        if let Some(last) = self.segments.pop() {
            self.next = last.base_offset;
            last.remove()?;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(last) = self.segments.last() {
            last.finish_times()?;
        }
        self.segments.iter().try_for_each(|segment| {
            segment.sync()?;
            segment.sync_indexes()
        })
    }
}
