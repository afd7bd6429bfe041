use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Gives memory back after a peak, as the C library's does not (decision 0043). `.cargo/config.toml`
/// has its settings.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    exeunt_server::cli::run()
}
