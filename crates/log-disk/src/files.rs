//! Names of files and folders, and the few operations on them that must be done with care.
//!
//! The layout is Kafka's: `<log dir>/<topic>-<partition>/00000000000000000000.log` and beside it
//! `.index`, `.timeindex`, `.txnindex` and `.snapshot`. What is to be deleted is renamed first (`.deleted` for
//! files, `-delete` for folders), so that it is gone at once and freed later.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use milena_protocol::{Str, Uuid};

use crate::disk::{Disk, Folder};

pub(crate) const DELETED_SUFFIX: &str = ".deleted";
/// The files of a segment: log, offset index, time index, and the aborted transactions, if there are any.
pub(crate) const SEGMENT: [&str; 4] = ["log", "index", "timeindex", "txnindex"];
/// The same of one that compaction writes and has not finished.
pub(crate) const CLEANED: [&str; 4] = [
    "log.cleaned",
    "index.cleaned",
    "timeindex.cleaned",
    "txnindex.cleaned",
];
/// The same when they are whole and wait to take the place of other segments.
pub(crate) const SWAP: [&str; 4] = ["log.swap", "index.swap", "timeindex.swap", "txnindex.swap"];
pub(crate) const DELETED_FOLDER_SUFFIX: &str = "-delete";
pub(crate) const STRAY_FOLDER_SUFFIX: &str = "-stray";
/// A replica that is being filled in another log directory.
pub(crate) const FUTURE_FOLDER_SUFFIX: &str = "-future";
/// A file beside a replica that moved to its directory, as long as another one may be left elsewhere.
pub(crate) const MOVED_SUFFIX: &str = "-moved";
const PARTITION_METADATA: &str = "partition.metadata";
const MOST_NAME_BYTES: usize = 255;

/// `00000000000000000042.log`
pub(crate) fn segment_file(folder: &Path, base_offset: i64, extension: &str) -> PathBuf {
    folder.join(format!("{base_offset:020}.{extension}"))
}

/// The offset in a file's name, if it has this extension.
pub(crate) fn offset_of(path: &Path, extension: &str) -> Option<i64> {
    if path.extension()? != extension {
        return None;
    }
    path.file_stem()?
        .to_str()?
        .parse()
        .ok()
        .filter(|offset| *offset >= 0)
}

/// Topic and partition of a folder named `<topic>-<partition>`.
pub(crate) fn topic_partition(folder: &str) -> Option<(Str, i32)> {
    if folder.ends_with(DELETED_FOLDER_SUFFIX) || folder.ends_with(STRAY_FOLDER_SUFFIX) {
        return None;
    }
    let (topic, partition) = folder.rsplit_once('-')?;
    let partition = partition.parse().ok().filter(|partition| *partition >= 0)?;
    (!topic.is_empty()).then(|| (Str::from(topic.to_owned()), partition))
}

/// `<topic>-<partition>.<id><suffix>`, cut so that it is a legal name.
pub(crate) fn renamed_folder(topic: &str, partition: i32, unique: &str, suffix: &str) -> String {
    let tail = format!("-{partition}.{unique}{suffix}");
    let mut length = topic.len().min(MOST_NAME_BYTES.saturating_sub(tail.len()));
    while !topic.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}{tail}", &topic[..length])
}

/// What a name of [`renamed_folder`] with this suffix is made of, if it was not cut: `<topic>-<partition>`
/// and the id.
pub(crate) fn parse_renamed<'a>(name: &'a str, suffix: &str) -> Option<(&'a str, &'a str)> {
    let (folder, unique) = name.strip_suffix(suffix)?.rsplit_once('.')?;
    topic_partition(folder).map(|_| (folder, unique))
}

/// 32 hexadecimal digits that nobody else has.
pub(crate) fn unique() -> io::Result<String> {
    let id = random_uuid()?;
    Ok(id.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The names of what lies in a folder.
pub(crate) fn names(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// A file's text, or `None` if there is no such file.
pub(crate) fn read_optional(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes which topic the folder belongs to.
pub(crate) fn write_partition_metadata(disk: &Disk, folder: &Path, topic_id: Uuid) -> io::Result<()> {
    disk.replace(
        &folder.join(PARTITION_METADATA),
        format!("version: 0\ntopic_id: {topic_id}").as_bytes(),
        false,
    )
}

/// Makes the folder itself durable: its name, its topic, and the names of its files.
pub(crate) fn sync_partition(folder: &Folder) -> io::Result<()> {
    folder
        .disk
        .open(&folder.join(PARTITION_METADATA), false)?
        .sync()?;
    folder.disk.sync_folder(folder)?;
    folder
        .parent()
        .map_or(Ok(()), |parent| folder.disk.sync_folder(parent))
}

/// The topic that the folder belongs to; `None` where that is not written, or not readable.
pub(crate) fn read_partition_metadata(folder: &Path) -> io::Result<Option<Uuid>> {
    let text = read_optional(&folder.join(PARTITION_METADATA))?;
    Ok(text.and_then(|text| {
        text.lines().find_map(|line| {
            line.strip_prefix("topic_id:")
                .and_then(|id| id.trim().parse().ok())
        })
    }))
}

/// Takes the directory for this process alone, as long as the file is open.
pub(crate) fn lock_directory(dir: &Path) -> io::Result<File> {
    let path = dir.join(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)?;
    rustix::fs::flock(file.as_fd(), rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        io::Error::other(format!(
            "{} is locked: another broker uses this log directory; stop it, or give this one other log.dirs",
            path.display()
        ))
    })?;
    Ok(file)
}

/// 16 bytes that nobody else has.
pub(crate) fn random_uuid() -> io::Result<Uuid> {
    let mut bytes = [0; 16];
    let mut source = File::open("/dev/urandom")?;
    io::Read::read_exact(&mut source, &mut bytes)?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Ok(Uuid::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_names_its_topic_and_partition() {
        let parse = |name| topic_partition(name).map(|(topic, partition)| (topic.to_string(), partition));
        assert_eq!(parse("ml-events-5"), Some(("ml-events".into(), 5)));
        assert_eq!(parse("plain"), None);
        assert_eq!(parse("a-x"), None);
        assert_eq!(parse("t-1.abc-delete"), None);
        assert_eq!(parse("t-1.abc-stray"), None);
    }

    #[test]
    fn the_name_of_a_future_replica_tells_its_partition() {
        let name = renamed_folder("a.b-c", 7, "00ff", FUTURE_FOLDER_SUFFIX);
        assert_eq!(name, "a.b-c-7.00ff-future");
        assert_eq!(
            parse_renamed(&name, FUTURE_FOLDER_SUFFIX),
            Some(("a.b-c-7", "00ff"))
        );
        assert_eq!(parse_renamed(&name, MOVED_SUFFIX), None);
        assert_eq!(topic_partition(&name), None);
    }

    #[test]
    fn the_name_of_a_renamed_folder_is_legal_for_the_longest_topic() {
        for suffix in [DELETED_FOLDER_SUFFIX, STRAY_FOLDER_SUFFIX] {
            let name = renamed_folder(&"t".repeat(249), 12345, &Uuid::ZERO.to_string(), suffix);
            assert!(name.len() <= 255 && name.ends_with(suffix), "{name}");
        }
    }
}
