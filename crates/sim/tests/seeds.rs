//! The simulation: random runs of whole servers, each of which follows from its seed. See
//! docs/simulation.md.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use exeunt_sim::{Run, simulate};

/// Seeds of the plain test.
const SEEDS: u64 = 50;

fn run(seed: u64) -> Run {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed))
}

/// What servers and network do, between the steps; `EXEUNT_LOG` filters.
fn log() {
    let filter = env::var("EXEUNT_LOG").unwrap_or_else(|_| "info".to_owned());
    let log = tracing_subscriber::fmt().without_time().with_ansi(false);
    // Set by another test of this process otherwise, which is as well.
    drop(log.with_env_filter(filter).with_test_writer().try_init());
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// `EXEUNT_SIM_SEED=n` replays one, `EXEUNT_SIM_SEEDS=n` runs more of them, `EXEUNT_SIM_FROM=n`
/// begins with that one.
#[test]
fn seeds() {
    if let Some(seed) = number("EXEUNT_SIM_SEED") {
        log();
        let run = run(seed);
        assert!(run.failures.is_empty(), "{}", run.report());
        return;
    }
    let seeds = number("EXEUNT_SIM_SEEDS").unwrap_or(SEEDS);
    let first = number("EXEUNT_SIM_FROM").unwrap_or(0);
    let next = AtomicU64::new(first);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= first + seeds {
                return failed;
            }
            let run = run(seed);
            if !run.failures.is_empty() {
                failed.push(run);
            }
        }
    };
    let mut failed: Vec<Run> = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    failed.sort_by_key(|run| run.seed);
    for run in &failed {
        eprintln!("seed {}: {}", run.seed, run.failures.join("; "));
    }
    if let Some(first) = failed.first() {
        panic!("{} of {seeds} seeds fail. {}", failed.len(), first.report());
    }
}

/// A seed says everything: what happens, when, and every request.
#[test]
fn a_seed_is_a_run() {
    for seed in [1, 2, 3] {
        let (first, again) = (run(seed), run(seed));
        for (one, other) in first.steps.iter().zip(&again.steps) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first.hash, again.hash, "seed {seed}");
    }
    assert_ne!(run(1).hash, run(2).hash);
}
