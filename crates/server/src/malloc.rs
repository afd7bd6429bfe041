//! Settings of the C library's `malloc`, which is RocksDB's alone (decision 0043).

use std::{env, os::unix::process::CommandExt as _, process::Command};

/// What glibc reads before anything else runs, and from the environment alone. As it stands, it has
/// eight arenas for each core, of which each keeps what it once needed; and once a memtable was freed it
/// takes the next one from such an arena, not from the system, to which it would go back.
const SETTINGS: [(&str, &str); 2] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072")];

/// Begins the process anew with the settings, unless the environment has some. Returns if it has, or if
/// that does not work: then the server takes more memory.
pub fn settle() {
    if SETTINGS.iter().any(|(name, _)| env::var_os(name).is_some()) {
        return;
    }
    let mut args = env::args_os();
    let (Ok(program), Some(name)) = (env::current_exe(), args.next()) else { return };
    let error = Command::new(program).arg0(name).args(args).envs(SETTINGS).exec();
    eprintln!("the settings of malloc have no effect: {error}");
}
