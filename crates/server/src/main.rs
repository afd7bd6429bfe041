use std::process::ExitCode;

fn main() -> ExitCode {
    exeunt_server::cli::run()
}
