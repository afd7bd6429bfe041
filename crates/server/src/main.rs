use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Gives freed memory back: the C library keeps the 19 MiB of every password hash in its arenas.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    exeunt_server::cli::run()
}
