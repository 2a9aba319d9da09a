//! A model of a disk under the real files: what was written, what has reached the disk, and what a
//! power cut at a given moment could leave of it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use milena_log_disk::{Change, Watch};

use super::random::Random;

/// What a disk writes at once, or not.
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Pending {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Pending {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length, 0),
        }
    }
}

/// A file: its content on the disk, and the changes since its last sync.
#[derive(Debug, Clone, Default)]
struct Node {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Entry {
    File(usize),
    Folder,
}

#[derive(Debug, Clone)]
enum NameChange {
    Add(PathBuf, Entry),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

type Names = BTreeMap<PathBuf, Entry>;

impl NameChange {
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Add(path, _) | Self::Rename(path, _) | Self::Remove(path) => path.parent(),
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(path, entry) => {
                names.insert(path.clone(), *entry);
            }
            Self::Rename(from, to) => {
                let below: Vec<PathBuf> = names.keys().filter(|it| it.starts_with(from)).cloned().collect();
                for path in below {
                    let rest = path.strip_prefix(from).unwrap();
                    let new = if rest.as_os_str().is_empty() {
                        to.clone()
                    } else {
                        to.join(rest)
                    };
                    if let Some(entry) = names.remove(&path) {
                        names.insert(new, entry);
                    }
                }
            }
            Self::Remove(path) => names.retain(|it, _| !it.starts_with(path)),
        }
    }
}

/// Syncs that a broken disk, or a broken program, would leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Ignored {
    #[default]
    Nothing,
    SyncsOfLogs,
    SyncsOfFolders,
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
                let is_log = path.extension().is_some_and(|extension| extension == "log");
                if self.ignored == Ignored::SyncsOfLogs && is_log {
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

impl Node {
    fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            pending.apply(&mut self.durable);
        }
    }

    /// The content with some of the sectors that were written since the last sync, and a length that
    /// it had since then, or one on the way there.
    fn survive(&self, kept_in_hundred: usize, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        let mut lengths = vec![content.len()];
        let mut latest = content.clone();
        for pending in &self.pending {
            pending.apply(&mut latest);
            lengths.push(latest.len());
            match pending {
                Pending::Length(length) if random.below(100) < kept_in_hundred => {
                    content.resize(*length, 0);
                }
                Pending::Length(_) => {}
                Pending::Write { at, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let to = bytes.len().min(from + SECTOR - (at + from) % SECTOR);
                        if random.below(100) < kept_in_hundred {
                            let sector = Pending::Write {
                                at: at + from,
                                bytes: bytes[from..to].to_vec(),
                            };
                            sector.apply(&mut content);
                        }
                        from = to;
                    }
                }
            }
        }
        let length = lengths[random.below(lengths.len())];
        let (least, most) = (length.min(latest.len()), length.max(latest.len()));
        let length = match random.below(3) {
            0 => least,
            1 => most,
            _ => least + random.below(most - least + 1),
        };
        // Nothing that was synced is lost, unless it was cut off.
        let cut = self
            .pending
            .iter()
            .any(|pending| matches!(pending, Pending::Length(_)));
        content.resize(
            if cut {
                length
            } else {
                length.max(self.durable.len())
            },
            0,
        );
        content
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
