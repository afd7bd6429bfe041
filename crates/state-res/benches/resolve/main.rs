//! A fork of a large room, resolved by us and by ruma-state-res on the same input.
//!
//! What is timed: from the states as their holder keeps them to the resolved entries.
//!
//! - Ours: two states that share a base and have their changes since on top, as persistent trees
//!   share all but what differs. The conflict is built from the changes, within the timing; events,
//!   generations and citations are looked up in maps in memory.
//! - ruma's: full state maps and auth chains are its arguments, so its caller's work to build them is
//!   timed with it, in version 12 the conflicted state subgraph, too. "resolve alone" has maps and
//!   chains ready. Events are prepared and shared.
//!
//! After criterion's own figures both are measured once more in CPU time, and the ratios are held
//! against their targets: the bench fails when one is missed.

mod fork;
mod ruma_side;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion};
use fork::Fork;
use ruma_side::RumaSide;
use rustix::time::{ClockId, clock_gettime};

/// Of state resolution v2 and v2.1.
const VERSIONS: [&str; 2] = ["10", "12"];
const MEMBERS: [usize; 2] = [10_000, 50_000];
const KEYS: [usize; 2] = [10, 1_000];
/// At that many keys, so many times faster than ruma in a room of 10,000 members.
const FASTER: [(usize, f64); 2] = [(10, 30.0), (1_000, 3.0)];
/// At 10 keys, 50,000 members take at most so many times what 10,000 take.
const GROWTH: f64 = 2.0;
/// Runs of each, at least, and for how long, at least.
const RUNS: usize = 7;
const SPAN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(250))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut rows = Vec::new();
    for version in VERSIONS {
        for members in MEMBERS {
            for keys in KEYS {
                let fork = Fork::new(version, members, keys);
                let ruma = RumaSide::new(&fork);
                assert_eq!(fork.resolve_whole(), ruma.resolve(ruma.input()), "both agree");
                bench(&mut criterion, &fork, &ruma);
                rows.push(measure(version, &fork, &ruma));
            }
        }
    }
    criterion.final_summary();
    println!(
        "\n{:>7} {:>8} {:>6} {:>12} {:>12} {:>8} {:>14}",
        "version", "members", "keys", "ours", "ruma", "ratio", "resolve alone"
    );
    rows.iter().for_each(Row::print);
    if meets_targets(&rows) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints what was found beside what is wanted.
fn meets_targets(rows: &[Row]) -> bool {
    println!("\n{:>7} {:<44} {:>8} {:>9}", "version", "", "found", "wanted");
    let mut all_met = true;
    let mut target = |version: &str, what: &str, found: f64, wanted: String, met: bool| {
        let missed = if met { "" } else { "  missed" };
        println!("{version:>7} {what:<44} {found:>8.2} {wanted:>9}{missed}");
        all_met &= met;
    };
    for version in VERSIONS {
        let row = |members, keys| {
            let is = |row: &&Row| (row.version, row.members, row.keys) == (version, members, keys);
            rows.iter().find(is).expect("measured")
        };
        for (keys, wanted) in FASTER {
            let found = ratio(row(10_000, keys).ruma, row(10_000, keys).ours);
            let what = format!("10,000 members, {keys} keys: ruma to ours");
            target(version, &what, found, format!(">= {wanted}"), found >= wanted);
        }
        let found = ratio(row(50_000, 10).ours, row(10_000, 10).ours);
        let what = "ours, 10 keys: 50,000 to 10,000 members";
        target(version, what, found, format!("<= {GROWTH}"), found <= GROWTH);
    }
    all_met
}

fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}

fn bench(criterion: &mut Criterion, fork: &Fork, ruma: &RumaSide<'_>) {
    let name = format!("version {}, {} members, {} keys", fork.version, fork.members, fork.keys);
    let mut group = criterion.benchmark_group("resolve");
    group.bench_function(BenchmarkId::new("ours", &name), |b| b.iter(|| black_box(fork.resolve())));
    group.bench_function(BenchmarkId::new("ruma", &name), |b| {
        b.iter(|| black_box(ruma.resolve(ruma.input())));
    });
    group.bench_function(BenchmarkId::new("ruma, resolve alone", &name), |b| {
        b.iter_batched(
            || ruma.input(),
            |input| black_box(ruma.resolve(input)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Medians, CPU time of this thread.
struct Row {
    version: &'static str,
    members: usize,
    keys: usize,
    ours: Duration,
    ruma: Duration,
    ruma_alone: Duration,
}

fn measure(version: &'static str, fork: &Fork, ruma: &RumaSide<'_>) -> Row {
    Row {
        version,
        members: fork.members,
        keys: fork.keys,
        ours: median(|| (), |()| drop(black_box(fork.resolve()))),
        ruma: median(|| (), |()| drop(black_box(ruma.resolve(ruma.input())))),
        ruma_alone: median(|| ruma.input(), |input| drop(black_box(ruma.resolve(input)))),
    }
}

/// Of many runs in a row: the first few also pay for what ran before them (caches, freed memory).
fn median<I>(mut input: impl FnMut() -> I, mut run: impl FnMut(I)) -> Duration {
    let mut times = Vec::new();
    let begin = cpu();
    while times.len() < RUNS || cpu() - begin < SPAN {
        let input = input();
        let start = cpu();
        run(input);
        times.push(cpu() - start);
    }
    let middle = times.len() / 2;
    *times.select_nth_unstable(middle).1
}

/// CPU time of this thread so far.
fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("not before 0")
}

impl Row {
    fn print(&self) {
        let Self { version, members, keys, ours, ruma, ruma_alone } = self;
        println!(
            "{version:>7} {members:>8} {keys:>6} {ours:>12.2?} {ruma:>12.2?} {:>7.1}x {:>13.1}x",
            ratio(*ruma, *ours),
            ratio(*ruma_alone, *ours)
        );
    }
}
