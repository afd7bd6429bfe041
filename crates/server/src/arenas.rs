//! How often the C library's `malloc`, which is RocksDB's alone (decision 0043), keeps what is freed.

use std::{env, os::unix::process::CommandExt as _, process::Command};

/// What glibc reads before anything else runs, and from the environment alone.
const NAME: &str = "MALLOC_ARENA_MAX";
/// As it stands, glibc has eight arenas for each core, and each keeps what it once needed.
const ARENAS: &str = "1";

/// Begins the process anew with one arena, unless the environment says how many there are. Returns if
/// that is so, or does not work: then there are more.
pub fn limit() {
    if env::var_os(NAME).is_some() {
        return;
    }
    let mut args = env::args_os();
    let (Ok(program), Some(name)) = (env::current_exe(), args.next()) else { return };
    let error = Command::new(program).arg0(name).args(args).env(NAME, ARENAS).exec();
    eprintln!("cannot set {NAME}, the server will take more memory: {error}");
}
