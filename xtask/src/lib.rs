//! House rules as checks, generated references, and the record of Complement. `cargo xtask help`
//! lists the commands.

pub mod complement;
pub mod reference;
pub mod tidy;

use std::path::{Path, PathBuf};

/// The root of the workspace. Cargo names it when it runs us: what was compiled in may be another
/// checkout that shares the target folder.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR");
    let manifest = manifest.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().expect("xtask is in the workspace").into()
}
