//! What the last run left of moves.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::Arc;

use milena_protocol::Uuid;

use crate::directory::Directory;
use crate::files;

/// Moves that a start begins anew: a partition's folder and topic, and the index of the directory.
pub(crate) type Resumable = BTreeMap<(String, Uuid), usize>;

/// What a directory has of moves.
#[derive(Debug, Default)]
struct Found {
    /// The folders of partitions.
    current: Vec<String>,
    /// Whole names of futures, with their partitions' folders and ids.
    futures: Vec<(String, String, String)>,
    /// The same of markers.
    markers: Vec<(String, String, String)>,
}

fn find(directory: &Directory) -> io::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir(&directory.path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let named = |(folder, unique): (&str, &str)| (name.clone(), folder.to_owned(), unique.to_owned());
        if let Some(future) = files::parse_renamed(&name, files::FUTURE_FOLDER_SUFFIX) {
            found.futures.push(named(future));
        } else if let Some(marker) = files::parse_renamed(&name, files::MOVED_SUFFIX) {
            found.markers.push(named(marker));
        } else if files::topic_partition(&name).is_some() && entry.file_type()?.is_dir() {
            found.current.push(name);
        }
    }
    found.current.sort();
    found.futures.sort();
    found.markers.sort();
    Ok(found)
}

fn topic_id(directory: &Directory, folder: &str) -> io::Result<Option<Uuid>> {
    files::read_partition_metadata(&directory.path.join(folder))
}

/// Finishes what was as good as done and removes what is left over; gives the moves to be begun anew.
/// Before any log is opened.
///
/// # Errors
/// When a folder cannot be renamed or removed; when two directories have the partition and nothing says
/// which is the right one.
pub(crate) fn settle(directories: &[Arc<Directory>]) -> io::Result<Resumable> {
    let mut found: Vec<Found> = directories
        .iter()
        .map(|directory| find(directory))
        .collect::<io::Result<_>>()?;
    for (at, directory) in directories.iter().enumerate() {
        let markers = std::mem::take(&mut found[at].markers);
        for (name, folder, unique) in &markers {
            settle_marker(directories, &mut found, at, folder, unique)?;
            directory.disk.remove(&directory.path.join(name))?;
        }
        if !markers.is_empty() {
            directory.disk.sync_folder(&directory.path)?;
        }
    }
    let mut resumable = Resumable::new();
    for (at, directory) in directories.iter().enumerate() {
        for (name, folder, unique) in &found[at].futures {
            let own = topic_id(directory, name)?;
            let mut is_wanted = false;
            for (other, found) in directories.iter().zip(&found) {
                is_wanted |=
                    found.current.contains(folder) && own.is_some() && topic_id(other, folder)? == own;
            }
            let path = directory.path.join(name);
            if let (true, Some(own)) = (is_wanted, own) {
                resumable.insert((folder.clone(), own), at);
                directory.disk.remove(&path)?;
            } else {
                // What it was copied from is gone: a person may want what there is.
                let stray = format!("{folder}.{unique}{}", files::STRAY_FOLDER_SUFFIX);
                tracing::warn!(folder = %path.display(), kept_as = stray, "an unfinished future replica has no current one: it is kept, and used by nobody");
                directory.disk.rename(&path, &directory.path.join(stray))?;
            }
        }
    }
    refuse_duplicates(directories, &found)?;
    Ok(resumable)
}

/// Sees to it that the replica beside the marker counts, or is an unfinished one.
fn settle_marker(
    directories: &[Arc<Directory>],
    found: &mut [Found],
    at: usize,
    folder: &str,
    unique: &str,
) -> io::Result<()> {
    let directory = &directories[at];
    let is_future = |future: &(String, String, String)| future.1 == folder && future.2 == unique;
    let future = found[at].futures.iter().position(is_future);
    let name = match future {
        Some(future) => found[at].futures[future].0.clone(),
        None => folder.to_owned(),
    };
    let Some(own) = topic_id(directory, &name)? else {
        return Ok(());
    };
    let mut others = Vec::new();
    for (other, it) in found.iter().enumerate() {
        if other != at
            && it.current.iter().any(|current| current == folder)
            && topic_id(&directories[other], folder)? == Some(own)
        {
            others.push(other);
        }
    }
    match future {
        // The current one is where it was, and may have more.
        Some(_) if !others.is_empty() => {}
        Some(future) => {
            found[at].futures.remove(future);
            tracing::warn!(
                folder,
                directory = %directory.path.display(),
                "a replica that had moved gets its name"
            );
            directory
                .disk
                .rename(&directory.path.join(name), &directory.path.join(folder))?;
            found[at].current.push(folder.to_owned());
            directory.disk.sync_folder(&directory.path)?;
        }
        None => {
            // Before what it was moved from is gone.
            directory.disk.sync_folder(&directory.path)?;
            for other in others {
                tracing::warn!(
                    folder,
                    directory = %directories[other].path.display(),
                    "what is left of a replica that has moved is removed"
                );
                remove(&directories[other], folder)?;
                found[other].current.retain(|current| current != folder);
            }
        }
    }
    Ok(())
}

/// Removes a folder so that no crash leaves a part of it under its name.
fn remove(directory: &Directory, folder: &str) -> io::Result<()> {
    directory.forget(folder)?;
    let deleted = format!("{}{}", files::unique()?, files::DELETED_FOLDER_SUFFIX);
    let deleted = directory.path.join(deleted);
    directory.disk.rename(&directory.path.join(folder), &deleted)?;
    directory.disk.sync_folder(&directory.path)?;
    directory.disk.remove(&deleted)
}

fn refuse_duplicates(directories: &[Arc<Directory>], found: &[Found]) -> io::Result<()> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, found) in found.iter().enumerate() {
        for folder in &found.current {
            let Some(before) = seen.insert(folder, at) else {
                continue;
            };
            let (one, other) = (&directories[before], &directories[at]);
            let own = topic_id(one, folder)?;
            if own.is_some() && own == topic_id(other, folder)? {
                return Err(io::Error::other(format!(
                    "Duplicate log directories for {folder} are found in both {} and {}. It is likely because log \
                     directory failure happened while broker was replacing current replica with future replica. \
                     Recover broker from this failure by manually deleting one of the two directories for this \
                     partition. It is recommended to delete the partition in the log directory that is known to have \
                     failed recently.",
                    one.path.join(folder).display(),
                    other.path.join(folder).display()
                )));
            }
        }
    }
    Ok(())
}
