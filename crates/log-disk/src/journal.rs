//! The journal of a log directory: one file that takes the little that was appended to any number of
//! logs since the last round, so that one `fdatasync` makes all of it durable. Without it a round costs
//! one for each log, and each of those waits for the log's inode too, because the file has grown.
//!
//! What is in the journal is in the segments as well, in the page cache. A power cut may take it from
//! there; the next start then writes it to the same places again ([`replay`]). That is harmless however
//! often it is done: a segment only ever grows at its end, and those that compaction changed lie below
//! the recovery point, where nothing is replayed.
//!
//! The file is as large as it gets from the first use on, and filled with zeros then, so that a round
//! changes no metadata. When it is full, the segments are synced that it speaks of, and it starts again
//! from its beginning with the next generation.
//!
//! Whole blocks are written: a round writes the block again that the last one ended in, with what that
//! has of it already, and zeros behind the end. So the kernel can do it by itself ([`crate::ring`]).
//!
//! An entry: length of what follows the CRC (4 bytes), CRC-32C of that (4), generation (8), topic id
//! (16), base offset of the segment (8), offset after the last record (8), position in the segment (4),
//! length of the folder's name (2), the name, the bytes. Big endian. Entries of one generation follow
//! each other from the start of the file; the first that is not whole, or of another one, ends them.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use milena_protocol::Uuid;

use crate::disk::{Disk, DiskFile};
use crate::files;
use crate::log::is_out_of_room;
use crate::ring::{BLOCK_BYTES, MOST_BYTES, Ring};
use crate::segment::Segment;

const NAME: &str = ".milena-journal";
const HEADER_BYTES: usize = 54;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// More segments than this are synced by one sync of the file system.
const MOST_SYNCED_ONE_BY_ONE: usize = 64;

/// A part of a segment that is to be made durable.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) folder: &'a str,
    pub(crate) topic_id: Uuid,
    pub(crate) segment: &'a Arc<Segment>,
    /// The offset after its last record.
    pub(crate) end: i64,
    pub(crate) from: u32,
    pub(crate) to: u32,
}

impl Part<'_> {
    fn entry_bytes(&self) -> usize {
        HEADER_BYTES + self.folder.len() + (self.to - self.from) as usize
    }
}

#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    disk: Disk,
    capacity: usize,
    /// From the first use on.
    file: Option<DiskFile>,
    /// There was no room for the file: this run does without.
    given_up: bool,
    generation: u64,
    position: usize,
    /// The segments that entries of this generation speak of.
    touched: Vec<Weak<Segment>>,
    /// The part of the last block that is written; behind it, what is about to be.
    buffer: Vec<u8>,
    /// If the kernel is to write what can be left to it.
    ring: Option<Ring>,
    /// What it writes now: up to where of each segment, and the bytes of the entries.
    under_way: (Vec<(Arc<Segment>, u32)>, usize),
}

/// How a round ended that was left to the kernel.
#[derive(Debug)]
pub(crate) enum Ended {
    Durable,
    /// The file system has no such writes, or no room: [`Journal::commit`] has to do it.
    Refused,
}

impl Journal {
    pub(crate) fn new(directory: &Path, disk: &Disk, capacity: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            disk: disk.clone(),
            capacity: capacity.next_multiple_of(BLOCK_BYTES),
            file: None,
            given_up: false,
            generation: 1,
            position: 0,
            touched: Vec::new(),
            buffer: Vec::new(),
            ring: None,
            under_way: (Vec::new(), 0),
        }
    }

    /// Leaves rounds to the kernel from now on, if it can; gives what is readable when one has ended.
    pub(crate) fn use_ring(&mut self) -> io::Result<OwnedFd> {
        if self.disk.is_watched() {
            return Err(io::Error::other("every change is watched"));
        }
        let ring = Ring::new()?;
        let descriptor = ring.descriptor()?;
        self.ring = Some(ring);
        Ok(descriptor)
    }

    /// Makes all parts durable by one sync. `false`: they do not fit, or there is no room on the disk;
    /// then nothing was done.
    ///
    /// # Errors
    /// When a write or a sync failed, after which nobody knows what is on the disk.
    pub(crate) fn commit(&mut self, parts: &[Part<'_>]) -> io::Result<bool> {
        let bytes: usize = parts.iter().map(Part::entry_bytes).sum();
        if bytes > self.capacity || self.given_up {
            return Ok(false);
        }
        if parts.is_empty() {
            return Ok(true);
        }
        if self.position + bytes > self.capacity {
            self.start_again()?;
        }
        let written = self.fill(parts).and_then(|()| self.write());
        if written.as_ref().is_err_and(is_out_of_room) {
            self.given_up = true;
            return Ok(false);
        }
        written?;
        self.advance(parts.iter().map(|part| (part.segment, part.to)), bytes);
        Ok(true)
    }

    /// Begins to make all parts durable, without waiting for it. `false`: nothing was begun, and
    /// [`Self::commit`] has to do it.
    pub(crate) fn start(&mut self, parts: &[Part<'_>]) -> bool {
        let bytes: usize = parts.iter().map(Part::entry_bytes).sum();
        if parts.is_empty() || bytes > MOST_BYTES || self.position + bytes > self.capacity {
            return false;
        }
        // Before the parts are read for nothing.
        let is_ready = self.ring.as_ref().is_some_and(Ring::is_ready);
        if !is_ready || self.given_up || self.fill(parts).is_err() {
            return false;
        }
        let at = self.block_start();
        let begun = self
            .ring
            .as_mut()
            .is_some_and(|ring| ring.start(&self.buffer, at));
        if begun {
            let parts = parts.iter().map(|part| (Arc::clone(part.segment), part.to));
            self.under_way = (parts.collect(), bytes);
        }
        begun
    }

    /// How the round ended that was begun last, if it has.
    pub(crate) fn finish(&mut self) -> Option<io::Result<Ended>> {
        let ended = self.ring.as_mut()?.finish()?;
        let (parts, bytes) = std::mem::take(&mut self.under_way);
        Some(match ended {
            Ok(()) => {
                self.advance(parts.iter().map(|(segment, to)| (segment, *to)), bytes);
                Ok(Ended::Durable)
            }
            Err(error) if is_refusal(&error) || is_out_of_room(&error) => {
                tracing::info!(directory = %self.directory.display(), %error, "the file system leaves no durable writes to the kernel; a thread makes them");
                self.ring = None;
                Ok(Ended::Refused)
            }
            Err(error) => Err(error),
        })
    }

    /// Waits for the end of what was begun, and leaves no more to the kernel.
    pub(crate) fn finish_last(&mut self) -> Option<io::Result<Ended>> {
        let waited = self.ring.as_mut()?.wait();
        let ended = match waited {
            Ok(()) => self.finish(),
            Err(error) => Some(Err(error)),
        };
        self.ring = None;
        ended
    }

    /// Puts the entries behind what the last block has, in whole blocks.
    fn fill(&mut self, parts: &[Part<'_>]) -> io::Result<()> {
        self.buffer.truncate(self.position % BLOCK_BYTES);
        for part in parts {
            encode(&mut self.buffer, self.generation, part)?;
        }
        let whole = self.buffer.len().next_multiple_of(BLOCK_BYTES);
        self.buffer.resize(whole, 0);
        Ok(())
    }

    /// Where the buffer belongs.
    fn block_start(&self) -> u64 {
        (self.position - self.position % BLOCK_BYTES) as u64
    }

    fn write(&mut self) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.create().inspect_err(|_| self.remove())?,
        };
        let written = file
            .write_at([&self.buffer], self.block_start())
            .and_then(|()| file.sync());
        self.file = Some(file);
        written
    }

    /// Takes it that the buffer is on the disk, with so many bytes of entries.
    fn advance<'a>(&mut self, parts: impl Iterator<Item = (&'a Arc<Segment>, u32)>, bytes: usize) {
        let end = self.position % BLOCK_BYTES + bytes;
        self.position += bytes;
        let block = end - self.position % BLOCK_BYTES;
        self.buffer.copy_within(block..end, 0);
        self.buffer.truncate(end - block);
        for (segment, to) in parts {
            if segment.note_journaled(to) {
                self.touched.push(Arc::downgrade(segment));
            }
        }
    }

    /// The file, with nothing in it of an earlier run.
    fn create(&mut self) -> io::Result<DiskFile> {
        let file = self.disk.open(&self.directory.join(NAME), true)?;
        let mut at = 0;
        while at < self.capacity {
            let length = ZEROS.len().min(self.capacity - at);
            file.write_at([&ZEROS[..length]], at as u64)?;
            at += length;
        }
        file.set_len(self.capacity as u64)?;
        file.sync()?;
        self.disk.sync_folder(&self.directory)?;
        if let Some(ring) = &mut self.ring
            && let Err(error) = ring.open(&self.directory.join(NAME))
        {
            tracing::info!(directory = %self.directory.display(), %error, "a thread makes the journal durable, not the kernel by itself");
            self.ring = None;
        }
        Ok(file)
    }

    /// Gives back what a file took that found no room to be whole.
    fn remove(&self) {
        if let Err(error) = self.disk.remove(&self.directory.join(NAME)) {
            tracing::warn!(directory = %self.directory.display(), %error, "cannot remove an unfinished journal");
        }
    }

    /// Makes what the entries speak of durable in its own place, after which they are not needed.
    fn start_again(&mut self) -> io::Result<()> {
        let touched: Vec<Arc<Segment>> = self.touched.drain(..).filter_map(|it| it.upgrade()).collect();
        let waiting: Vec<(u32, &Arc<Segment>)> = touched
            .iter()
            .inspect(|segment| segment.leave_journal())
            .filter(|segment| !segment.is_synced())
            .map(|segment| (segment.size(), segment))
            .collect();
        if waiting.len() > MOST_SYNCED_ONE_BY_ONE {
            self.disk.sync_all(&self.directory)?;
            waiting
                .iter()
                .for_each(|(size, segment)| segment.mark_synced_to(*size));
        } else {
            for (_, segment) in waiting {
                match segment.sync() {
                    // It was deleted meanwhile, and its file closed before.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        self.generation += 1;
        self.position = 0;
        Ok(())
    }
}

/// Whether the kernel says that it does not do such writes here, and has not tried.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}

fn encode(buffer: &mut Vec<u8>, generation: u64, part: &Part<'_>) -> io::Result<()> {
    let start = buffer.len();
    let length = u32::try_from(part.entry_bytes() - 8).map_err(io::Error::other)?;
    let name_length = u16::try_from(part.folder.len()).map_err(io::Error::other)?;
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&generation.to_be_bytes());
    buffer.extend_from_slice(part.topic_id.as_bytes());
    buffer.extend_from_slice(&part.segment.base_offset.to_be_bytes());
    buffer.extend_from_slice(&part.end.to_be_bytes());
    buffer.extend_from_slice(&part.from.to_be_bytes());
    buffer.extend_from_slice(&name_length.to_be_bytes());
    buffer.extend_from_slice(part.folder.as_bytes());
    part.segment.read_into(buffer, part.from, part.to)?;
    let crc = crc32c::crc32c(&buffer[start + 8..]);
    buffer[start + 4..start + 8].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// One entry as it was found.
#[derive(Debug)]
struct Entry {
    generation: u64,
    topic_id: Uuid,
    base_offset: i64,
    end: i64,
    position: u32,
    folder: String,
    bytes: Vec<u8>,
}

/// The next entry, or `None` where nothing whole follows.
fn next_entry(reader: &mut impl Read, left: &mut u64) -> io::Result<Option<Entry>> {
    let mut start = [0; 8];
    if *left < HEADER_BYTES as u64 {
        return Ok(None);
    }
    reader.read_exact(&mut start)?;
    let (length, crc) = start.split_at(4);
    let (length, crc) = (be_u32(length), be_u32(crc));
    let (least, most) = (HEADER_BYTES as u64 - 8, *left - 8);
    if !(least..=most).contains(&u64::from(length)) {
        return Ok(None);
    }
    let mut body = vec![0; length as usize];
    reader.read_exact(&mut body)?;
    *left -= 8 + u64::from(length);
    if crc32c::crc32c(&body) != crc {
        return Ok(None);
    }
    Ok(decode(&body))
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn decode(body: &[u8]) -> Option<Entry> {
    let (generation, rest) = body.split_first_chunk()?;
    let (topic_id, rest) = rest.split_first_chunk()?;
    let (base_offset, rest) = rest.split_first_chunk()?;
    let (end, rest) = rest.split_first_chunk()?;
    let (position, rest) = rest.split_first_chunk()?;
    let (name_length, rest) = rest.split_first_chunk()?;
    let (folder, bytes) = rest.split_at_checked(usize::from(u16::from_be_bytes(*name_length)))?;
    Some(Entry {
        generation: u64::from_be_bytes(*generation),
        topic_id: Uuid::from_bytes(*topic_id),
        base_offset: i64::from_be_bytes(*base_offset),
        end: i64::from_be_bytes(*end),
        position: u32::from_be_bytes(*position),
        folder: String::from_utf8(folder.to_vec()).ok()?,
        bytes: bytes.to_vec(),
    })
}

/// Writes to the segments what the journal has of them behind the recovery points, and syncs them.
/// Before any log is opened.
///
/// # Errors
/// When that cannot be done: then records would be missing that were acknowledged.
pub(crate) fn replay(directory: &Path, disk: &Disk, recovery_point: impl Fn(&str) -> i64) -> io::Result<()> {
    let file = match File::open(directory.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut left = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(ZEROS.len(), file);
    let mut generation = None;
    let mut topics: HashMap<String, Option<Uuid>> = HashMap::new();
    let mut written: BTreeSet<PathBuf> = BTreeSet::new();
    while let Some(entry) = next_entry(&mut reader, &mut left)? {
        if *generation.get_or_insert(entry.generation) != entry.generation {
            break;
        }
        if files::topic_partition(&entry.folder).is_none() {
            break;
        }
        let folder = directory.join(&entry.folder);
        let topic_id = match topics.get(&entry.folder) {
            Some(known) => *known,
            None => {
                let found = files::read_partition_metadata(&folder)?;
                topics.insert(entry.folder.clone(), found);
                found
            }
        };
        // Of a topic that was deleted, or synced in its own place, or dropped by retention since.
        let path = files::segment_file(&folder, entry.base_offset, "log");
        if topic_id != Some(entry.topic_id) || entry.end <= recovery_point(&entry.folder) || !path.exists() {
            continue;
        }
        let segment = disk.open(&path, false)?;
        segment.write_at([&entry.bytes], u64::from(entry.position))?;
        written.insert(path);
    }
    if written.len() > MOST_SYNCED_ONE_BY_ONE {
        return disk.sync_all(directory);
    }
    written.iter().try_for_each(|path| disk.open(path, false)?.sync())
}
