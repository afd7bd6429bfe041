//! The example configuration, printed by the server itself.

use std::{fs, path::Path, process::Command};

use crate::tidy::Finding;

/// Where the example is kept.
pub const EXAMPLE: &str = "deploy/exeunt.example.toml";

/// Writes the example from the code.
pub fn write(root: &Path) -> Result<(), String> {
    let text = generate(root)?;
    fs::write(root.join(EXAMPLE), text).map_err(|e| format!("{EXAMPLE}: cannot be written: {e}"))
}

/// Compares the kept example with the code.
pub fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let kept = fs::read_to_string(root.join(EXAMPLE))
        .map_err(|e| format!("{EXAMPLE}: {e}; run `cargo xtask config-reference`"))?;
    let current = generate(root)?;
    if kept == current {
        return Ok(Vec::new());
    }
    let same = kept.lines().zip(current.lines()).take_while(|(a, b)| a == b).count();
    let text = "differs from the code; run `cargo xtask config-reference`";
    Ok(vec![Finding::new(EXAMPLE, same + 1, text)])
}

fn generate(root: &Path) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "-q", "-p", "exeunt-server", "--", "config", "example"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("cargo does not start: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    String::from_utf8(output.stdout).map_err(|_| "the example is not UTF-8".to_owned())
}
