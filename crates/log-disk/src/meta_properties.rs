//! `meta.properties`: whose a log directory is, in Kafka's words (KIP-858). It keeps the data of one
//! cluster's node from being served by another, and entries of others as they are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use milena_protocol::Uuid;

use crate::disk::Disk;
use crate::files;

const FILE: &str = "meta.properties";
const CLUSTER_ID: &str = "cluster.id";
const DIRECTORY_ID: &str = "directory.id";
const NODE_ID: &str = "node.id";
const VERSION: &str = "version";
/// The version whose names are the ones above; 0 has `broker.id` for the node.
const KNOWN_VERSION: &str = "1";
/// The format of what Milena keeps beside Kafka's own files. Grows when a release that does not know it would
/// lose or misread something; a directory of a later format is refused. None is said before 1, which has the journal.
const FORMAT: &str = "milena.format";
const KNOWN_FORMAT: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MetaProperties(BTreeMap<String, String>);

impl MetaProperties {
    /// What the directory says of itself; nothing, if it is new.
    pub(crate) fn read(directory: &Path) -> io::Result<Self> {
        let text = files::read_optional(&directory.join(FILE))?.unwrap_or_default();
        let found = Self(
            text.lines()
                .map(str::trim)
                .filter(|line| !line.starts_with(['#', '!']))
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
                .collect(),
        );
        if let Some(other) = found.0.get(VERSION)
            && other != KNOWN_VERSION
        {
            return Err(io::Error::other(format!(
                "{} has version {other}, and only version {KNOWN_VERSION} is understood: this directory was \
                 made by another release of Kafka; set log.dirs to another directory",
                directory.join(FILE).display()
            )));
        }
        if let Some(format) = found.0.get(FORMAT)
            && format.parse().map_or(true, |format: u32| format > KNOWN_FORMAT)
        {
            return Err(io::Error::other(format!(
                "{} was written by a newer version of Milena (format {format}, this version knows {KNOWN_FORMAT}): \
                 start that version, or set log.dirs to another directory",
                directory.join(FILE).display()
            )));
        }
        Ok(found)
    }

    pub(crate) fn cluster_id(&self) -> Option<&str> {
        self.0.get(CLUSTER_ID).map(String::as_str)
    }

    /// Why a node must not use the directory, if so.
    pub(crate) fn refusal(&self, directory: &Path, cluster_id: &str, node_id: i32) -> Option<String> {
        let file = directory.join(FILE);
        let other = |name: &str, own: &str| {
            let found = self.0.get(name).filter(|found| found.as_str() != own)?;
            Some(found.clone())
        };
        if let Some(found) = other(CLUSTER_ID, cluster_id) {
            return Some(format!(
                "{} belongs to cluster {found}, and this is cluster {cluster_id}: these data are another \
                 cluster's. Set log.dirs to another directory, or bring the data together that belong together",
                file.display()
            ));
        }
        let found = other(NODE_ID, &node_id.to_string())?;
        Some(format!(
            "Stored node id {found} doesn't match previous node id {node_id} in {}. If you moved your data, make \
             sure your configured node id matches. If you intend to create a new node, you should remove all data \
             in your data directories.",
            file.display()
        ))
    }

    /// Writes down whose the directory is, unless it says so already. Returns when that outlasts a
    /// power cut.
    pub(crate) fn claim(
        &mut self,
        disk: &Disk,
        directory: &Path,
        cluster_id: &str,
        node_id: i32,
    ) -> io::Result<()> {
        let mut claimed = self.clone();
        let entries = &mut claimed.0;
        entries.insert(VERSION.to_owned(), KNOWN_VERSION.to_owned());
        entries.insert(CLUSTER_ID.to_owned(), cluster_id.to_owned());
        entries.insert(NODE_ID.to_owned(), node_id.to_string());
        entries.insert(FORMAT.to_owned(), KNOWN_FORMAT.to_string());
        if !entries.contains_key(DIRECTORY_ID) {
            entries.insert(DIRECTORY_ID.to_owned(), new_directory_id()?.to_string());
        }
        if claimed == *self {
            return Ok(());
        }
        let mut text = String::from("#\n");
        for (name, value) in &claimed.0 {
            let _ = writeln!(text, "{name}={value}");
        }
        disk.replace(&directory.join(FILE), text.as_bytes(), true)?;
        *self = claimed;
        Ok(())
    }
}

fn new_directory_id() -> io::Result<Uuid> {
    loop {
        let id = files::random_uuid()?;
        // Kafka's tools take a leading dash for a flag.
        if !id.to_string().starts_with('-') {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(directory: &Path, cluster_id: &str, node_id: i32) -> Result<(), String> {
        let mut found = MetaProperties::read(directory).unwrap();
        if let Some(refusal) = found.refusal(directory, cluster_id, node_id) {
            return Err(refusal);
        }
        found
            .claim(&Disk::default(), directory, cluster_id, node_id)
            .unwrap();
        Ok(())
    }

    fn text(directory: &Path) -> String {
        std::fs::read_to_string(directory.join(FILE)).unwrap()
    }

    #[test]
    fn a_directory_is_claimed_once_and_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path(), "one", 3).unwrap();
        let first = text(dir.path());
        assert!(
            first.contains("cluster.id=one\n") && first.contains("node.id=3\n"),
            "{first}"
        );
        assert!(
            first.contains("directory.id=") && first.contains("version=1\n"),
            "{first}"
        );
        claim(dir.path(), "one", 3).unwrap();
        assert_eq!(text(dir.path()), first);
    }

    #[test]
    fn a_directory_of_an_older_format_is_taken_over_and_one_of_a_newer_refused() {
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path(), "one", 3).unwrap();
        let now = text(dir.path());
        std::fs::write(dir.path().join(FILE), now.replace("milena.format=1\n", "")).unwrap();
        claim(dir.path(), "one", 3).unwrap();
        assert_eq!(text(dir.path()), now);
        for other in ["2", "x"] {
            let newer = now.replace("milena.format=1", &format!("milena.format={other}"));
            std::fs::write(dir.path().join(FILE), &newer).unwrap();
            let error = MetaProperties::read(dir.path()).unwrap_err().to_string();
            assert!(error.contains("written by a newer version of Milena"), "{error}");
            assert_eq!(text(dir.path()), newer);
        }
    }

    #[test]
    fn a_directory_of_another_cluster_or_node_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path(), "one", 3).unwrap();
        let before = text(dir.path());
        assert!(
            claim(dir.path(), "two", 3)
                .unwrap_err()
                .contains("belongs to cluster one")
        );
        assert!(
            claim(dir.path(), "one", 4)
                .unwrap_err()
                .contains("Stored node id 3")
        );
        assert_eq!(text(dir.path()), before);
    }

    #[test]
    fn what_kafka_formatted_is_taken_over_with_the_entries_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let formatted =
            "#\n#Mon Nov 23 07:00:00 UTC 2026\ncluster.id=one\nversion=1\ndirectory.id=abc\nmore=x\n";
        std::fs::write(dir.path().join(FILE), formatted).unwrap();
        assert_eq!(
            MetaProperties::read(dir.path()).unwrap().cluster_id(),
            Some("one")
        );
        claim(dir.path(), "one", 1).unwrap();
        let claimed = text(dir.path());
        assert!(
            claimed.contains("directory.id=abc\n") && claimed.contains("more=x\n"),
            "{claimed}"
        );
        std::fs::write(dir.path().join(FILE), "version=0\nbroker.id=1\n").unwrap();
        let error = MetaProperties::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("has version 0"), "{error}");
    }
}
