use std::process::ExitCode;

use xtask::{
    complement::{check, record},
    reference, root, tidy,
    tidy::Finding,
};

const HELP: &str = "\
cargo xtask tidy                        check the house rules
cargo xtask config-reference [--check]  write (or compare) deploy/exeunt.example.toml
cargo xtask complement-record FILE      record what `go test -json` printed (tests/complement)
    [--version V] [--setting KEY=VALUE]… [--complement-commit C] [--dirty]
cargo xtask complement-check            check that no recorded test got worse";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["tidy"] => tidy::run(&root()),
        ["config-reference"] => reference::write(&root()).map(|()| Vec::new()),
        ["config-reference", "--check"] => reference::check(&root()),
        ["complement-record", words @ ..] => complement_record(words),
        ["complement-check"] => complement_check(),
        ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            findings.iter().for_each(|finding| println!("{finding}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Records a run, then says what it made worse.
fn complement_record(words: &[&str]) -> Result<Vec<Finding>, String> {
    let options = record::Options::parse(words)?;
    println!("{}", record::run(&root(), &options)?);
    complement_check()
}

fn complement_check() -> Result<Vec<Finding>, String> {
    let report = check::run(&root())?;
    report.notes.iter().for_each(|note| eprintln!("complement-check: {note}"));
    Ok(report.findings)
}
