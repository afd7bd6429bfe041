//! House rules as checks, generated references, and the record of Complement. `cargo xtask help`
//! lists the commands.

pub mod complement;
pub mod reference;
pub mod tidy;

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace").into()
}
