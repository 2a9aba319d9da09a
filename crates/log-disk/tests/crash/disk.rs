//! A model of a disk under the real files: what was written, what has reached the disk, and what a
//! power cut at a given moment could leave of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use milena_log_disk::{Change, Watch};

use super::file::{Node, Pending};
use super::names::{Entry, NameChange, Names};
use super::random::Random;

/// Syncs that a broken disk, or a broken program, would leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Ignored {
    #[default]
    Nothing,
    SyncsOfLogs,
    SyncsOfJournal,
    SyncsOfFolders,
    /// What compaction wrote is put in its place before it is on the disk.
    SyncsOfCleaned,
    /// The recovery point passes aborted transactions that are not on the disk.
    SyncsOfTransactionIndexes,
}

/// What happens at the change at which something happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Event {
    PowerCut,
    /// The change fails: the disk is broken, or full.
    Fails(io::ErrorKind),
}

#[derive(Debug)]
struct State {
    root: PathBuf,
    nodes: Vec<Node>,
    names: Names,
    durable: Names,
    journal: Vec<NameChange>,
    changes: u64,
    event: Option<(u64, Event)>,
    happened: bool,
    ignored: Ignored,
}

#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// Everything that is below `root` now has reached the disk.
    pub(crate) fn load(root: &Path, event: Option<(u64, Event)>, ignored: Ignored) -> Self {
        let mut state = State {
            root: root.to_owned(),
            nodes: Vec::new(),
            names: Names::new(),
            durable: Names::new(),
            journal: Vec::new(),
            changes: 0,
            event,
            happened: false,
            ignored,
        };
        state.load(root);
        state.durable = state.names.clone();
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn happened(&self) -> bool {
        self.0.lock().unwrap().happened
    }

    /// How many changes there were.
    pub(crate) fn changes(&self) -> u64 {
        self.0.lock().unwrap().changes
    }

    /// Writes to `into` what a power cut leaves.
    pub(crate) fn survive(&self, into: &Path, random: &mut Random) {
        self.0.lock().unwrap().survive(into, random);
    }
}

impl State {
    fn load(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&self.root).unwrap().to_owned();
            if path.is_dir() {
                self.names.insert(name, Entry::Folder);
                self.load(&path);
            } else {
                let durable = std::fs::read(&path).unwrap();
                self.names.insert(name, Entry::File(self.nodes.len()));
                self.nodes.push(Node {
                    durable,
                    pending: Vec::new(),
                });
            }
        }
    }

    fn name(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }

    fn node(&mut self, path: &Path) -> Option<&mut Node> {
        match self.names.get(&self.name(path)) {
            Some(Entry::File(at)) => self.nodes.get_mut(*at),
            _ => None,
        }
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.journal.push(change);
    }

    /// Names reach the disk in the order of their changes, as in a file system with a journal.
    fn sync_names(&mut self, count: usize) {
        for change in self.journal.drain(..count) {
            change.apply(&mut self.durable);
        }
    }

    fn note(&mut self, change: Change<'_>) {
        match change {
            Change::CreateFolder(path) => {
                let name = self.name(path);
                self.rename(NameChange::Add(name, Entry::Folder));
            }
            Change::CreateFile(path) => {
                let name = self.name(path);
                self.nodes.push(Node::default());
                self.rename(NameChange::Add(name, Entry::File(self.nodes.len() - 1)));
            }
            Change::Write { path, at, parts } => {
                if let Some(node) = self.node(path) {
                    node.pending.push(Pending::Write {
                        at: usize::try_from(at).unwrap(),
                        bytes: parts.concat(),
                    });
                }
            }
            Change::SetLength { path, length } => {
                if let Some(node) = self.node(path) {
                    node.pending
                        .push(Pending::Length(usize::try_from(length).unwrap()));
                }
            }
            Change::Sync(path) => {
                let ignored = match self.ignored {
                    Ignored::SyncsOfLogs => ".log",
                    Ignored::SyncsOfJournal => ".milena-journal",
                    Ignored::SyncsOfCleaned => ".cleaned",
                    Ignored::SyncsOfTransactionIndexes => ".txnindex",
                    Ignored::Nothing | Ignored::SyncsOfFolders => "/",
                };
                if path.to_string_lossy().ends_with(ignored) {
                    return;
                }
                if let Some(node) = self.node(path) {
                    node.sync();
                }
            }
            Change::SyncFolder(path) => {
                let folder = self.name(path);
                if self.ignored != Ignored::SyncsOfFolders {
                    let last = self
                        .journal
                        .iter()
                        .rposition(|change| change.folder() == Some(&folder));
                    self.sync_names(last.map_or(0, |last| last + 1));
                }
            }
            Change::SyncAll(_) => {
                self.sync_names(self.journal.len());
                self.nodes.iter_mut().for_each(Node::sync);
            }
            Change::Rename { from, to } => {
                let (from, to) = (self.name(from), self.name(to));
                if self.names.contains_key(&from) {
                    self.rename(NameChange::Rename(from, to));
                }
            }
            Change::RemoveFile(path) | Change::RemoveFolder(path) => {
                let name = self.name(path);
                if self.names.contains_key(&name) {
                    self.rename(NameChange::Remove(name));
                }
            }
        }
    }

    fn survive(&self, into: &Path, random: &mut Random) {
        let mut names = self.durable.clone();
        let journal = random.below(self.journal.len() + 1);
        for change in &self.journal[..journal] {
            change.apply(&mut names);
        }
        let kept_in_hundred = [0, 50, 100, random.below(101)][random.below(4)];
        for (name, entry) in &names {
            let path = into.join(name);
            // A name in a folder whose own name is gone is gone too.
            if !path.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match entry {
                Entry::Folder => std::fs::create_dir(&path).unwrap(),
                Entry::File(at) => {
                    std::fs::write(&path, self.nodes[*at].survive(kept_in_hundred, random)).unwrap();
                }
            }
        }
    }
}

impl Watch for Disk {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.changes += 1;
        match state.event {
            Some((at, Event::PowerCut)) if state.changes >= at => state.happened = true,
            Some((at, Event::Fails(kind))) if state.changes == at => {
                state.happened = true;
                return Err(kind.into());
            }
            _ => state.note(change),
        }
        Ok(())
    }
}
