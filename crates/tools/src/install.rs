//! Puts the commands on a path: links with Kafka's names, with and without `.sh`, to this binary.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("cannot find the running binary: {0}")]
    Binary(io::Error),
    #[error("cannot create {}: {error}", path.display())]
    Create { path: PathBuf, error: io::Error },
    #[error("{} is there and is no link; remove it, or choose another directory", .0.display())]
    Occupied(PathBuf),
}

/// Creates a link for every command in the directory; replaces links that are there.
///
/// # Errors
/// When the directory cannot be written, or something that is no link has the name of a command.
pub fn install_tools(dir: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let binary = std::env::current_exe().map_err(InstallError::Binary)?;
    let create = |path: &Path| {
        let path = path.to_owned();
        move |error| InstallError::Create { path, error }
    };
    fs::create_dir_all(dir).map_err(create(dir))?;
    let mut links = Vec::new();
    for name in crate::names().flat_map(|name| [name.to_owned(), format!("{name}.sh")]) {
        let link = dir.join(name);
        match link.symlink_metadata() {
            Ok(metadata) if metadata.file_type().is_symlink() => {
                fs::remove_file(&link).map_err(create(&link))?
            }
            Ok(_) => return Err(InstallError::Occupied(link)),
            Err(_) => {}
        }
        symlink(&binary, &link).map_err(create(&link))?;
        links.push(link);
    }
    Ok(links)
}
