//! The small text files that Kafka calls checkpoints: a version, a count, then one entry a line.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use milena_log::{EpochStart, LeaderEpochs};

use crate::disk::{Disk, Folder};
use crate::files;

pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
pub(crate) const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
pub(crate) const CLEANED_OFFSETS: &str = "cleaner-offset-checkpoint";
pub(crate) const LOG_STARTS: &str = "log-start-offset-checkpoint";

/// The entries of a checkpoint, split at spaces; `None` when there is no file or it is not whole.
fn entries(path: &Path) -> io::Result<Option<Vec<Vec<String>>>> {
    let Some(text) = files::read_optional(path)? else {
        return Ok(None);
    };
    let mut lines = text.lines();
    let version = lines.next().map(str::trim);
    let count = lines.next().and_then(|line| line.trim().parse::<usize>().ok());
    let rows: Vec<Vec<String>> = lines
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .collect();
    Ok((version == Some("0") && count == Some(rows.len())).then_some(rows))
}

fn write(disk: &Disk, path: &Path, rows: &[String], durable: bool) -> io::Result<()> {
    let mut text = format!("0\n{}\n", rows.len());
    for row in rows {
        text.push_str(row);
        text.push('\n');
    }
    disk.replace(path, text.as_bytes(), durable)
}

/// Leader epochs of one partition; `None` when they must be read from the batches instead.
pub(crate) fn read_epochs(folder: &Path) -> io::Result<Option<LeaderEpochs>> {
    let Some(rows) = entries(&folder.join(LEADER_EPOCHS))? else {
        return Ok(None);
    };
    let parsed: Option<Vec<EpochStart>> = rows
        .iter()
        .map(|row| match row.as_slice() {
            [epoch, offset] => Some(EpochStart {
                leader_epoch: epoch.parse().ok()?,
                start_offset: offset.parse().ok()?,
            }),
            _ => None,
        })
        .collect();
    Ok(parsed.map(LeaderEpochs::new))
}

/// Not made durable on its own: after a power cut it is made again from the batches.
pub(crate) fn write_epochs(folder: &Folder, epochs: &LeaderEpochs) -> io::Result<()> {
    let rows: Vec<String> = epochs
        .entries()
        .iter()
        .map(|entry| format!("{} {}", entry.leader_epoch, entry.start_offset))
        .collect();
    write(&folder.disk, &folder.join(LEADER_EPOCHS), &rows, false)
}

/// Offsets of many partitions, by the name of their folder.
pub(crate) type Offsets = BTreeMap<String, i64>;

pub(crate) fn read_offsets(dir: &Path, name: &str) -> io::Result<Offsets> {
    let rows = entries(&dir.join(name))?.unwrap_or_default();
    Ok(rows
        .iter()
        .filter_map(|row| match row.as_slice() {
            [topic, partition, offset] => Some((format!("{topic}-{partition}"), offset.parse().ok()?)),
            _ => None,
        })
        .collect())
}

pub(crate) fn write_offsets(disk: &Disk, dir: &Path, name: &str, offsets: &Offsets) -> io::Result<()> {
    let rows: Vec<String> = offsets
        .iter()
        .filter_map(|(folder, offset)| {
            let (topic, partition) = folder.rsplit_once('-')?;
            Some(format!("{topic} {partition} {offset}"))
        })
        .collect();
    write(disk, &dir.join(name), &rows, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_epochs_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = Offsets::from([("a-b-0".to_owned(), 5), ("a-b-1".to_owned(), 7)]);
        let folder = Folder::new(dir.path().to_owned(), Disk::default());
        write_offsets(&folder.disk, dir.path(), LOG_STARTS, &offsets).unwrap();
        assert_eq!(read_offsets(dir.path(), LOG_STARTS).unwrap(), offsets);
        let epochs = LeaderEpochs::new([EpochStart {
            leader_epoch: 3,
            start_offset: 9,
        }]);
        write_epochs(&folder, &epochs).unwrap();
        assert_eq!(read_epochs(dir.path()).unwrap(), Some(epochs));
    }

    #[test]
    fn a_cut_checkpoint_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LEADER_EPOCHS), "0\n2\n0 0\n").unwrap();
        assert_eq!(read_epochs(dir.path()).unwrap(), None);
    }
}
