//! The one door through which this crate changes files, so that a test can watch every change in
//! order, refuse any of them, and work out what a power cut at any moment would leave.
//!
//! Reading needs no door: the files are real ones.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A change that is about to be made.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    CreateFolder(&'a Path),
    /// Opens a file for writing, making it if there is none; its content stays.
    CreateFile(&'a Path),
    Write {
        path: &'a Path,
        at: u64,
        parts: &'a [&'a [u8]],
    },
    SetLength {
        path: &'a Path,
        length: u64,
    },
    /// What was written to the file is on the disk after this; its name need not be.
    Sync(&'a Path),
    /// The names in the folder are on the disk after this.
    SyncFolder(&'a Path),
    /// Everything below the folder is on the disk after this.
    SyncAll(&'a Path),
    Rename {
        from: &'a Path,
        to: &'a Path,
    },
    RemoveFile(&'a Path),
    RemoveFolder(&'a Path),
}

/// Watches changes, and may refuse them. For tests.
pub trait Watch: Send + Sync + fmt::Debug {
    /// # Errors
    /// The change is not made then, and whoever wanted it gets the error.
    fn before(&self, change: Change<'_>) -> io::Result<()>;
}

/// The file system as this crate writes to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    watch: Option<Arc<dyn Watch>>,
}

impl Disk {
    pub(crate) fn new(watch: Option<Arc<dyn Watch>>) -> Self {
        Self { watch }
    }

    /// Whether every change has to come through here.
    pub(crate) fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    fn before(&self, change: Change<'_>) -> io::Result<()> {
        self.watch.as_ref().map_or(Ok(()), |watch| watch.before(change))
    }

    /// Opens a file to be read and changed.
    pub(crate) fn open(&self, path: &Path, create: bool) -> io::Result<DiskFile> {
        let file = match File::options().read(true).write(true).open(path) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                self.before(Change::CreateFile(path))?;
                let mut options = File::options();
                options.read(true).write(true).create(true).truncate(false);
                options.open(path)?
            }
            other => other?,
        };
        Ok(DiskFile {
            file: Arc::new(file),
            watched: self
                .watch
                .clone()
                .map(|watch| (Self { watch: Some(watch) }, path.to_owned())),
        })
    }

    pub(crate) fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.before(Change::CreateFolder(path))?;
        fs::create_dir(path)
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Change::Rename { from, to })?;
        fs::rename(from, to)
    }

    /// Removes a file, or a folder with all that is in it, if it is there.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = if path.is_dir() {
            self.before(Change::RemoveFolder(path))?;
            fs::remove_dir_all(path)
        } else {
            self.before(Change::RemoveFile(path))?;
            fs::remove_file(path)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.before(Change::SyncFolder(path))?;
        File::open(path)?.sync_all()
    }

    /// Makes everything on the folder's file system durable.
    pub(crate) fn sync_all(&self, path: &Path) -> io::Result<()> {
        self.before(Change::SyncAll(path))?;
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }

    /// Replaces a file so that a reader, also after a crash of the process, sees the old content or
    /// the new one. `durable` also outlasts a power cut.
    pub(crate) fn replace(&self, path: &Path, content: &[u8], durable: bool) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = self.open(&temporary, true)?;
        file.set_len(0)?;
        file.write_at([content], 0)?;
        if durable {
            file.sync()?;
        }
        self.rename(&temporary, path)?;
        if durable && let Some(folder) = path.parent() {
            self.sync_folder(folder)?;
        }
        Ok(())
    }
}

/// A file that is open for reading and changing.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: Arc<File>,
    watched: Option<(Disk, PathBuf)>,
}

impl DiskFile {
    /// For readers alone.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    fn before<'a>(&'a self, change: impl FnOnce(&'a Path) -> Change<'a>) -> io::Result<()> {
        match &self.watched {
            Some((disk, path)) => disk.before(change(path)),
            None => Ok(()),
        }
    }

    /// Writes the parts one behind the other, in one call as far as the system takes them.
    pub(crate) fn write_at<const PARTS: usize>(&self, parts: [&[u8]; PARTS], at: u64) -> io::Result<()> {
        if let Some((disk, path)) = &self.watched {
            let parts = &parts;
            disk.before(Change::Write { path, at, parts })?;
        }
        let mut slices = parts.map(IoSlice::new);
        let mut left = slices.as_mut_slice();
        let mut at = at;
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev(self.file.as_fd(), left, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(crate) fn set_len(&self, length: u64) -> io::Result<()> {
        self.before(|path| Change::SetLength { path, length })?;
        self.file.set_len(length)
    }

    /// Makes the content durable, and the length with it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.before(Change::Sync)?;
        self.file.sync_data()
    }
}

/// The folder of one partition. It gets another name when its replica has moved to it, and one more when
/// that moves away again.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    renamed: [OnceLock<PathBuf>; 2],
    pub(crate) disk: Disk,
}

impl Folder {
    pub(crate) fn new(path: PathBuf, disk: Disk) -> Arc<Self> {
        let renamed = Default::default();
        Arc::new(Self { path, renamed, disk })
    }

    /// Gives the folder another name. Its files are found there from then on.
    pub(crate) fn rename(&self, to: PathBuf) -> io::Result<()> {
        let free = self.renamed.iter().find(|name| name.get().is_none());
        let free = free.ok_or_else(|| io::Error::other("the folder was renamed before"))?;
        self.disk.rename(self, &to)?;
        free.set(to)
            .map_err(|_| io::Error::other("two rename the folder at once"))
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        let newest = self.renamed.iter().rev().find_map(OnceLock::get);
        newest.unwrap_or(&self.path)
    }
}
