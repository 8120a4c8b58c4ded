//! `cargo sim`: plays histories until one breaks a promise.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for a terminal")]

mod watchdog;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use scheduler_sim::{Changes, Coverage, History, kept, play, regressions, shrink};

use self::watchdog::Watchdog;

/// Plays simulated histories of a whole cluster, one a seed, until one breaks a promise.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them. Without it: one that depends on the time.
    #[arg(long)]
    from: Option<u64>,
    /// Go on for so many minutes, however many seeds that are.
    #[arg(long)]
    minutes: Option<f64>,
    /// This seed alone.
    #[arg(long, conflicts_with_all = ["from", "minutes"])]
    seed: Option<u64>,
    /// Print everything that happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Play every seed twice and compare.
    #[arg(long)]
    check_determinism: bool,
    /// Go on after a violation, up to so many of them.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// How many threads. Default: one a core.
    #[arg(long)]
    threads: Option<usize>,
    /// Print how often each branch of interest was reached; one that never was is a failure.
    #[arg(long)]
    coverage: bool,
    /// Numbers of the plan that are other than drawn, as `name=value,...`: what a shrunk history is repeated by.
    #[arg(long, default_value = "")]
    plan: Changes,
    /// Look for a smaller history that breaks the same promise for so many seconds; 0: do not.
    #[arg(long, default_value_t = 20)]
    shrink: u64,
    /// Keep what breaks a promise, as small as it was found, in scheduler-sim/regressions.txt.
    #[arg(long, conflicts_with = "regressions")]
    keep: bool,
    /// Play the histories that broke a promise once, and no others.
    #[arg(long, conflicts_with_all = ["from", "minutes", "seed"])]
    regressions: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic in a machine is a violation like any other, and is told as one.
    std::panic::set_hook(Box::new(|_| ()));
    match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None if arguments.regressions => again(),
        None => many(&arguments),
    }
}

/// Plays what broke a promise once.
fn again() -> ExitCode {
    let all = match regressions() {
        Ok(all) => all,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    let broken: Vec<String> = all
        .iter()
        .filter_map(|(seed, changes)| broken(&play(*seed, changes, false), changes))
        .collect();
    println!("{} regressions: {} broken", all.len(), broken.len());
    for text in &broken {
        println!("{text}");
    }
    if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Histories that broke a promise once.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions.txt");

/// Looks for a smaller history that breaks the same promise, says how to repeat it, and keeps it if that is wanted.
fn follow_up(history: &History, arguments: &Arguments) {
    if history.violation.is_none() {
        return;
    }
    let budget = Duration::from_secs(arguments.shrink);
    let smaller = shrink(history, &arguments.plan, budget);
    let seed = history.seed;
    if smaller != arguments.plan {
        println!("  smaller: cargo sim --seed {seed} --trace --plan {smaller}");
    }
    if !arguments.keep {
        println!("  to keep it in scheduler-sim/regressions.txt, the same again with --keep");
        return;
    }
    match keep(history, &smaller) {
        Ok(true) => println!("  kept in {REGRESSIONS}"),
        Ok(false) => println!("  it is in {REGRESSIONS} already"),
        Err(problem) => eprintln!("  not kept: {problem}"),
    }
}

/// Keeps a history; answers whether it is new.
fn keep(history: &History, changes: &Changes) -> Result<bool, String> {
    let cannot = |error: std::io::Error| format!("{REGRESSIONS}: {error}");
    let text = std::fs::read_to_string(REGRESSIONS).map_err(cannot)?;
    let Some(text) = kept(&text, history, changes)? else {
        return Ok(false);
    };
    std::fs::write(REGRESSIONS, text).map_err(cannot)?;
    Ok(true)
}

fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    let history = play(seed, &arguments.plan, arguments.trace);
    if let Some(trace) = &history.trace {
        println!("{trace}");
    }
    println!(
        "seed {seed}: {} steps, {} s simulated, hash {:016x}",
        history.steps,
        history.simulated_ms / 1_000,
        history.hash
    );
    let broken = broken(&history, &arguments.plan).or_else(|| differs(&history, arguments));
    broken.map_or(ExitCode::SUCCESS, |broken| {
        println!("{broken}");
        follow_up(&history, arguments);
        ExitCode::FAILURE
    })
}

/// What is wrong with a history, and how to see it again.
fn broken(history: &History, changes: &Changes) -> Option<String> {
    let violation = history.violation.as_ref()?;
    Some(format!(
        "seed {} violates {}: at {} ms: {}\n{}",
        history.seed,
        violation.promise,
        violation.at_ms,
        violation.what,
        again_by(history.seed, changes)
    ))
}

/// What to say of a history that does not end.
fn hung(seed: u64, changes: &Changes) -> String {
    format!(
        "seed {seed} violates hang: it does not end\n{}",
        again_by(seed, changes)
    )
}

/// The command that repeats a history.
fn again_by(seed: u64, changes: &Changes) -> String {
    let plan = if changes.is_empty() {
        String::new()
    } else {
        format!(" --plan {changes}")
    };
    format!("  cargo sim --seed {seed} --trace{plan}")
}

fn differs(history: &History, arguments: &Arguments) -> Option<String> {
    let again = arguments
        .check_determinism
        .then(|| play(history.seed, &arguments.plan, false))?;
    (again.hash != history.hash).then(|| {
        format!(
            "seed {} violates determinism: two runs of it differ",
            history.seed
        )
    })
}

#[derive(Default)]
struct Sum {
    coverage: Coverage,
    simulated_ms: u64,
    steps: u64,
    broken: Vec<History>,
}

fn many(arguments: &Arguments) -> ExitCode {
    let from = arguments.from.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or_default() << 20
    });
    let seeds = if arguments.minutes.is_some() {
        u64::MAX - from
    } else {
        arguments.seeds
    };
    let over = arguments
        .minutes
        .map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    let watchdog = Watchdog::default();
    let (playing, silence) = mpsc::channel();
    std::thread::scope(|scope| {
        let watchdog = &watchdog;
        scope.spawn(move || {
            if let Some(seed) = watchdog.watch(&silence) {
                println!("{}", hung(seed, &arguments.plan));
                // Whoever plays it cannot be stopped otherwise.
                std::process::exit(1);
            }
        });
        for _ in 0..arguments.threads.unwrap_or(cores).max(1) {
            let playing = playing.clone();
            let (next, stop, sum) = (&next, &stop, &sum);
            scope.spawn(move || {
                let _playing = playing;
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= seeds
                        || stop.load(Ordering::Relaxed)
                        || over.is_some_and(|over| Instant::now() >= over)
                    {
                        next.fetch_sub(1, Ordering::Relaxed);
                        return;
                    }
                    watchdog.begins(from + index);
                    let history = play(from + index, &arguments.plan, false);
                    watchdog.ends(from + index);
                    let broken = broken(&history, &arguments.plan).or_else(|| differs(&history, arguments));
                    let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    sum.coverage.add(&history.coverage);
                    sum.simulated_ms += history.simulated_ms;
                    sum.steps += history.steps;
                    if let Some(broken) = broken {
                        println!("{broken}");
                        sum.broken.push(history);
                        stop.store(sum.broken.len() >= arguments.failures, Ordering::Relaxed);
                    }
                }
            });
        }
        drop(playing);
    });
    let sum = sum
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    report(&sum, from, next.into_inner(), started.elapsed(), arguments);
    let followed = if arguments.keep { sum.broken.len() } else { 1 };
    for history in sum.broken.iter().take(followed) {
        follow_up(history, arguments);
    }
    let is_covered = !arguments.coverage || sum.coverage.missed().is_empty();
    if sum.broken.is_empty() && is_covered {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(sum: &Sum, from: u64, seeds: u64, took: Duration, arguments: &Arguments) {
    let seconds = took.as_secs_f64().max(1e-3);
    println!(
        "{seeds} seeds from {from} in {seconds:.1} s: {:.0} seeds/s, {:.1} simulated hours/s, {:.2} M steps/s; {} broken",
        seeds as f64 / seconds,
        sum.simulated_ms as f64 / 3.6e6 / seconds,
        sum.steps as f64 / 1e6 / seconds,
        sum.broken.len()
    );
    if arguments.coverage {
        for (text, count) in sum.coverage.counts() {
            println!("{count:>12}  {text}");
        }
    }
    for text in sum.coverage.missed() {
        eprintln!("never reached: {text}");
    }
}
