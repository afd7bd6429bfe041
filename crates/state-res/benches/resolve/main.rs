//! A fork of a large room, resolved by us and by ruma-state-res on the same input.
//!
//! What is timed: from the states as their holder keeps them to the resolved entries.
//!
//! - Ours: two states that share a base and have their changes since on top, as persistent trees
//!   share all but what differs. The conflict is built from the changes, within the timing; events,
//!   generations and citations are looked up in maps in memory.
//! - ruma's: full state maps and auth chains are its arguments, so its caller's work to build them is
//!   timed with it. "resolve alone" has them ready. Events are prepared and shared.

mod fork;
mod ruma_side;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion};
use fork::Fork;
use ruma_side::RumaSide;

const MEMBERS: [usize; 2] = [10_000, 50_000];
const KEYS: [usize; 2] = [10, 1_000];
const RUNS: usize = 7;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut summary = Vec::new();
    for members in MEMBERS {
        for keys in KEYS {
            let fork = Fork::new(members, keys);
            let ruma = RumaSide::new(&fork);
            assert_eq!(fork.resolve_whole(), ruma.resolve(ruma.input()), "both agree");
            bench(&mut criterion, &fork, &ruma);
            summary.push(measure(&fork, &ruma));
        }
    }
    criterion.final_summary();
    println!(
        "\n{:>8} {:>6} {:>12} {:>12} {:>8} {:>14}",
        "members", "keys", "ours", "ruma", "ratio", "resolve alone"
    );
    for row in &summary {
        row.print();
    }
    let grown = summary[2].ours.as_secs_f64() / summary[0].ours.as_secs_f64();
    println!("ours, 10 keys: 50,000 members take {grown:.2} times what 10,000 take");
}

fn bench(criterion: &mut Criterion, fork: &Fork, ruma: &RumaSide<'_>) {
    let name = format!("{} members, {} keys", fork.members, fork.keys);
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

struct Row {
    members: usize,
    keys: usize,
    ours: Duration,
    ruma: Duration,
    ruma_alone: Duration,
}

fn measure(fork: &Fork, ruma: &RumaSide<'_>) -> Row {
    Row {
        members: fork.members,
        keys: fork.keys,
        ours: median(|| (), |()| drop(black_box(fork.resolve()))),
        ruma: median(|| (), |()| drop(black_box(ruma.resolve(ruma.input())))),
        ruma_alone: median(|| ruma.input(), |input| drop(black_box(ruma.resolve(input)))),
    }
}

fn median<I>(mut input: impl FnMut() -> I, mut run: impl FnMut(I)) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let input = input();
            let start = Instant::now();
            run(input);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[RUNS / 2]
}

impl Row {
    fn print(&self) {
        let Self { members, keys, ours, ruma, ruma_alone } = self;
        let ratio = |theirs: &Duration| theirs.as_secs_f64() / ours.as_secs_f64();
        println!(
            "{members:>8} {keys:>6} {ours:>12.2?} {ruma:>12.2?} {:>7.1}x {:>13.1}x",
            ratio(ruma),
            ratio(ruma_alone)
        );
    }
}
