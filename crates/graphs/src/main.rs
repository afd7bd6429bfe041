//! Prints random rooms, for programs that compare: `exeunt-graphs [--seed S] [--rooms N]
//! [--version V]`, one JSON object per line.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use exeunt_graphs::{Room, VERSIONS, report, version_of};
use exeunt_state_res::RoomVersion;
use thiserror::Error;

const DEFAULT_ROOMS: u64 = 12;

#[derive(Debug, Error)]
enum Failure {
    #[error("usage: exeunt-graphs [--seed S] [--rooms N] [--version V]")]
    Usage,
    #[error("no room version of {0:?} is usable")]
    NoVersion(Option<String>),
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Rooms of the seeds from `seed` on, until there are `rooms`; of one version, if it is named.
struct Options {
    seed: u64,
    rooms: u64,
    version: Option<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self { seed: 0, rooms: DEFAULT_ROOMS, version: None };
        while let Some(word) = words.next() {
            let value = words.next().ok_or(Failure::Usage)?;
            let number = || value.parse().map_err(|_| Failure::Usage);
            match word.as_str() {
                "--seed" => options.seed = number()?,
                "--rooms" => options.rooms = number()?,
                "--version" => options.version = Some(value),
                _ => return Err(Failure::Usage),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| print(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn print(options: &Options) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let is_wanted = |version: &str| options.version.as_ref().is_none_or(|only| only == version);
    let mut usable = BTreeSet::new();
    for version in VERSIONS.into_iter().filter(|version| is_wanted(version)) {
        if RoomVersion::parse(version).is_ok() {
            usable.insert(version);
        } else {
            writeln!(out, "{}", report::skipped(version))?;
        }
    }
    if usable.is_empty() {
        return Err(Failure::NoVersion(options.version.clone()));
    }
    let mut rooms = 0;
    let seeds = (options.seed..).filter(|seed| usable.contains(version_of(*seed)));
    for seed in seeds.take(options.rooms as usize) {
        let Ok(version) = RoomVersion::parse(version_of(seed)) else { continue };
        writeln!(out, "{}", report::room(&Room::generate(version, seed)))?;
        rooms += 1;
    }
    writeln!(out, "{}", report::end(rooms))?;
    Ok(out.flush()?)
}
