//! Writes that are durable when the kernel says that they are done (io_uring(7)): nobody waits for the
//! disk, and no thread sleeps and wakes for it, which costs the processor more than the write.
//!
//! One write at a time, of whole blocks and past the page cache (`O_DIRECT`): only such a write is
//! carried out without a thread of the kernel's. `RWF_DSYNC` makes it as durable as `fdatasync` would.
#![allow(
    unsafe_code,
    reason = "an entry of the ring points to memory that must outlive it, and a ring lends its descriptor"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use io_uring::{IoUring, opcode, types};
use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;

/// Writes start at a multiple of this, and are as long as one.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// The longest write; what is longer takes its time on the disk anyway.
pub(crate) const MOST_BYTES: usize = 16 * BLOCK_BYTES;
const ENTRIES: u32 = 2;

pub(crate) struct Ring {
    ring: IoUring,
    file: Option<File>,
    /// What the kernel reads while a write is under way. Neither changed nor freed before that ends:
    /// see [`Ring::start`] and [`Drop`].
    memory: Vec<u8>,
    /// Length of the write that is under way.
    under_way: Option<usize>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("under_way", &self.under_way)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// # Errors
    /// When the kernel has no such thing, or a sandbox forbids it.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            ring: IoUring::new(ENTRIES)?,
            file: None,
            memory: vec![0; MOST_BYTES + BLOCK_BYTES],
            under_way: None,
        })
    }

    /// Readable when a write has ended.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        // SAFETY: the ring is open, and is borrowed for this call alone.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        ring.try_clone_to_owned()
    }

    /// Takes the file that is written to from now on.
    ///
    /// # Errors
    /// When it is on a file system that has no writes past the page cache.
    pub(crate) fn open(&mut self, path: &Path) -> io::Result<()> {
        let mut options = File::options();
        let direct = OFlags::DIRECT.bits().cast_signed();
        self.file = Some(options.write(true).custom_flags(direct).open(path)?);
        Ok(())
    }

    /// Whether a write may begin.
    pub(crate) fn is_ready(&self) -> bool {
        self.file.is_some() && self.under_way.is_none()
    }

    /// Begins to write whole blocks. `false`: nothing was begun, and somebody else has to write them.
    pub(crate) fn start(&mut self, bytes: &[u8], at: u64) -> bool {
        let Some(file) = self.file.as_ref().filter(|_| self.under_way.is_none()) else {
            return false;
        };
        let Ok(length) = u32::try_from(bytes.len()) else {
            return false;
        };
        let aligned = self.memory.as_ptr().align_offset(BLOCK_BYTES);
        let Some(target) = self.memory.get_mut(aligned..aligned.saturating_add(bytes.len())) else {
            return false;
        };
        target.copy_from_slice(bytes);
        let flags = ReadWriteFlags::DSYNC.bits().cast_signed();
        let write = opcode::Write::new(types::Fd(file.as_raw_fd()), target.as_ptr(), length)
            .offset(at)
            .rw_flags(flags)
            .build();
        // SAFETY: the entry points into `memory`, which stays where it is. Nothing writes to it while
        // `under_way` is set, which `finish` resets when the kernel is done; `drop` waits for that.
        // The file is open now, and the kernel keeps it from the submission on.
        let is_queued = unsafe { self.ring.submission().push(&write) }.is_ok();
        if !is_queued {
            return false;
        }
        self.under_way = Some(bytes.len());
        loop {
            match self.ring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel did not take the entry, and may with a later one: none must follow.
                Err(error) => {
                    tracing::warn!(%error, "the kernel takes no more writes; a thread makes them from now on");
                    self.file = None;
                    self.under_way = None;
                    return false;
                }
                Ok(_) => return true,
            }
        }
    }

    /// How the write ended, if one did.
    pub(crate) fn finish(&mut self) -> Option<io::Result<()>> {
        let length = self.under_way?;
        let entry = self.ring.completion().next()?;
        self.under_way = None;
        Some(match usize::try_from(entry.result()) {
            Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
            Ok(written) if written < length => Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => Ok(()),
        })
    }

    /// Waits for the write that is under way, if one is.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        while self.under_way.is_some() && self.ring.completion().is_empty() {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Err(error) = self.wait() {
            tracing::error!(%error, "cannot wait for the kernel, which may read from this memory still");
            std::mem::forget(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// A ring, unless this machine forbids it.
    fn ring() -> Option<Ring> {
        Ring::new()
            .inspect_err(|error| eprintln!("no io_uring here: {error}"))
            .ok()
    }

    #[test]
    fn one_write_at_a_time_is_on_the_disk_when_it_has_ended() {
        let Some(mut ring) = ring() else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![0; 4 * BLOCK_BYTES]).unwrap();
        let bytes = |value: u8| vec![value; BLOCK_BYTES];
        assert!(!ring.start(&bytes(1), 0), "without a file");
        ring.open(&path).unwrap();
        assert!(ring.finish().is_none());
        for (value, block) in [(1, 0), (2, 3), (3, 0)] {
            assert!(ring.start(&bytes(value), (block * BLOCK_BYTES) as u64));
            assert!(!ring.start(&bytes(9), 0), "while one is under way");
            ring.wait().unwrap();
            ring.finish().unwrap().unwrap();
            assert!(ring.finish().is_none());
            let found = std::fs::read(&path).unwrap();
            assert_eq!(found[block * BLOCK_BYTES..][..BLOCK_BYTES], bytes(value));
        }
        assert!(!ring.start(&vec![1; MOST_BYTES + 2 * BLOCK_BYTES], 0), "too long");
        assert!(ring.start(&vec![4; MOST_BYTES], 0));
        drop(ring);
        assert_eq!(std::fs::read(&path).unwrap(), vec![4; MOST_BYTES]);
    }

    #[test]
    fn a_write_that_the_file_does_not_take_says_why() {
        let Some(mut ring) = ring() else { return };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![0; 2 * BLOCK_BYTES]).unwrap();
        ring.open(&path).unwrap();
        // Not at the start of a block.
        assert!(ring.start(&[1; BLOCK_BYTES], 100));
        ring.wait().unwrap();
        let error = ring.finish().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), vec![0; 2 * BLOCK_BYTES]);
    }
}
