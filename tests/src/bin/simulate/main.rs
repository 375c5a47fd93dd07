//! Simulates the registry: many seeds, one seed with its log, or the rows of the
//! table of reliability that a simulation can give. Ends with 1 when something
//! was not as it must be.
#![allow(clippy::print_stdout, reason = "it is a command")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Parser;
use machina_core::testing::simulation::Run;
use machina_tests::simulation::rows::{ROWS, Size};
use machina_tests::simulation::{command, replay};

/// Simulates the registry under paused time.
#[derive(Debug, Parser)]
struct Options {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many steps each run has.
    #[arg(long, default_value_t = 60)]
    steps: u32,
    /// Runs this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Makes the rows short enough for a test.
    #[arg(long)]
    short: bool,
    /// Measures these rows of the table, such as T1 or T9-P4; `rows` for all.
    #[arg(conflicts_with_all = ["seeds", "first", "steps", "trace"])]
    rows: Vec<String>,
    /// Prints the log of the run.
    #[arg(long, requires = "seed")]
    trace: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.rows.is_empty() {
        return table(&options);
    }
    match options.seed {
        Some(seed) => one(seed, &options),
        None => many(&options),
    }
}

/// Measures rows of the table.
fn table(options: &Options) -> ExitCode {
    let all = options.rows.iter().any(|row| row == "rows");
    let is = |row: &str, name: &str| row == name || name.split('-').next() == Some(row);
    let wanted = |name: &str| all || options.rows.iter().any(|row| is(row, name));
    if let Some(unknown) = options.rows.iter().find(|row| *row != "rows" && !ROWS.iter().any(|(name, _)| is(row, name)))
    {
        let known = ROWS.map(|(name, _)| name).join(", ");
        eprintln!("there is no row {unknown}; there are {known}, and `rows` for all of them");
        return ExitCode::from(2);
    }
    let size = if options.short { Size::Short } else { Size::Long };
    let mut missed = 0;
    for (_, measure) in ROWS.iter().filter(|(name, _)| wanted(name)) {
        for row in measure(options.seed.unwrap_or(1), size) {
            println!("{row}");
            missed += u32::from(!row.met);
        }
    }
    ExitCode::from(u8::from(missed > 0))
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let run = replay(seed, options.steps);
    if options.trace {
        print!("{}", run.log);
    }
    println!(
        "seed {seed}: {} steps, {} calls answered, {} failed, {} events, {:?} of virtual time",
        run.steps, run.answered, run.failed, run.events, run.time
    );
    verdict(&run, options)
}

/// Says what was wrong with a run.
fn verdict(run: &Run, options: &Options) -> ExitCode {
    if run.wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    for wrong in &run.wrong {
        println!("seed {}: {wrong}", run.seed);
    }
    println!("    {}", command(run.seed, options.steps));
    ExitCode::FAILURE
}

/// Runs the seeds on every processor.
fn many(options: &Options) -> ExitCode {
    let (next, wrong) = (AtomicU64::new(options.first), AtomicU64::new(0));
    let [steps, answered, failed, events, seconds] = [const { AtomicU64::new(0) }; 5];
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= options.first + options.seeds {
                return;
            }
            let run = replay(seed, options.steps);
            steps.fetch_add(u64::from(run.steps), Ordering::Relaxed);
            answered.fetch_add(run.answered, Ordering::Relaxed);
            failed.fetch_add(run.failed, Ordering::Relaxed);
            events.fetch_add(run.events, Ordering::Relaxed);
            seconds.fetch_add(run.time.as_secs(), Ordering::Relaxed);
            if !run.wrong.is_empty() {
                wrong.fetch_add(1, Ordering::Relaxed);
                verdict(&run, options);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    println!(
        "{} seeds, {} wrong: {} steps, {} calls answered, {} failed, {} events, {} h of virtual time",
        options.seeds,
        wrong.load(Ordering::Relaxed),
        steps.load(Ordering::Relaxed),
        answered.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed),
        events.load(Ordering::Relaxed),
        seconds.load(Ordering::Relaxed) / 3600,
    );
    ExitCode::from(u8::from(wrong.load(Ordering::Relaxed) > 0))
}
