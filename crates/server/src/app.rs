//! The composition root: everything is made here, once, and handed to whom needs it.

use std::path::{Path, PathBuf};

/// The database's folder in the data folder.
pub fn database(folder: &Path) -> PathBuf {
    folder.join("db")
}
