//! A file of a segment that is opened when it is needed and closed again when it is not, so that the
//! number of open files follows what is read and written, not what is stored.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::directory::lock;
use crate::disk::{DiskFile, Folder};
use crate::files;

#[derive(Debug)]
pub(crate) struct Handle {
    folder: Arc<Folder>,
    base_offset: i64,
    extension: &'static str,
    file: Mutex<Option<Arc<DiskFile>>>,
    used: AtomicBool,
}

impl Handle {
    /// Opens nothing yet.
    pub(crate) fn new(folder: &Arc<Folder>, base_offset: i64, extension: &'static str) -> Self {
        Self {
            folder: Arc::clone(folder),
            base_offset,
            extension,
            file: Mutex::new(None),
            used: AtomicBool::new(false),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        files::segment_file(&self.folder, self.base_offset, self.extension)
    }

    /// The file, which must exist.
    pub(crate) fn open(&self) -> io::Result<Arc<DiskFile>> {
        self.get(false)
    }

    /// The file, made if it does not exist.
    pub(crate) fn open_or_create(&self) -> io::Result<Arc<DiskFile>> {
        self.get(true)
    }

    fn get(&self, create: bool) -> io::Result<Arc<DiskFile>> {
        self.used.store(true, Ordering::Relaxed);
        let mut held = lock(&self.file);
        if let Some(file) = &*held {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(self.folder.disk.open(&self.path(), create)?);
        *held = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Closes the file. It is opened again when it is needed; whoever holds it keeps it.
    pub(crate) fn close(&self) {
        lock(&self.file).take();
    }

    /// Closes the file if nobody asked for it since the last call. Whoever holds it keeps it.
    pub(crate) fn close_if_idle(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            self.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;

    fn is_open(handle: &Handle) -> bool {
        lock(&handle.file).is_some()
    }

    #[test]
    fn a_file_that_nobody_uses_is_closed_and_opened_again_when_needed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path().to_owned(), Disk::default());
        let handle = Handle::new(&folder, 0, "index");
        assert!(handle.open().is_err(), "it does not exist yet");
        handle.open_or_create().unwrap();
        handle.close_if_idle();
        assert!(is_open(&handle), "it was used since the last call");
        handle.close_if_idle();
        assert!(!is_open(&handle));
        handle.open().unwrap();
        assert!(is_open(&handle));
    }
}
