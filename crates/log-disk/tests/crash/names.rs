//! The names of files and folders, and changes of them that have not reached the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Entry {
    File(usize),
    Folder,
}

#[derive(Debug, Clone)]
pub(crate) enum NameChange {
    Add(PathBuf, Entry),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

pub(crate) type Names = BTreeMap<PathBuf, Entry>;

impl NameChange {
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Add(path, _) | Self::Rename(path, _) | Self::Remove(path) => path.parent(),
        }
    }

    pub(crate) fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(path, entry) => {
                names.insert(path.clone(), *entry);
            }
            Self::Rename(from, to) => match names.remove(from) {
                Some(Entry::Folder) => {
                    names.insert(to.clone(), Entry::Folder);
                    for path in below(names, from) {
                        let rest = path.strip_prefix(from).unwrap();
                        let entry = names.remove(&path).unwrap();
                        names.insert(to.join(rest), entry);
                    }
                }
                Some(file) => {
                    names.insert(to.clone(), file);
                }
                None => {}
            },
            Self::Remove(path) => {
                if names.remove(path) == Some(Entry::Folder) {
                    for path in below(names, path) {
                        names.remove(&path);
                    }
                }
            }
        }
    }
}

fn below(names: &Names, folder: &Path) -> Vec<PathBuf> {
    names
        .range(folder.to_owned()..)
        .map(|(path, _)| path)
        .take_while(|path| path.starts_with(folder))
        .cloned()
        .collect()
}
