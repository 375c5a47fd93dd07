//! The long rows of the table of what must be shown, on real processes and real
//! sockets, each by its name:
//!
//! ```text
//! cargo run --release -p machina-tests --bin endure -- T10 --seconds 600 --services 1000 --seed 7
//! cargo run --release -p machina-tests --bin endure -- all
//! ```
//!
//! Prints what each figure rests on, and at the end one line per row. Exits with 1
//! if something happened that must never happen, with 2 if a target was missed.
#![allow(clippy::print_stdout, reason = "it is there to print")]

mod children;
mod cut;
mod failover;
mod faults;
mod fleet;
mod histogram;
mod isolation;
mod load;
mod random;
mod replicas;
mod report;
mod samples;
mod soak;
mod survivors;
mod trees;
mod wedged;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use report::Row;

/// Shows, at length, what short tests cannot.
#[derive(Debug, Parser)]
#[command(name = "endure")]
struct Cli {
    /// Which rows; `all` for each of them.
    #[arg(required = true, ignore_case = true)]
    rows: Vec<Which>,
    /// As large as a test in CI, and missed targets are no failure.
    #[arg(long)]
    short: bool,
    /// How long the load or the faults last.
    #[arg(long)]
    seconds: Option<u64>,
    /// The same in minutes.
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// How many services, children or trees.
    #[arg(long)]
    services: Option<usize>,
    /// How many calls a second.
    #[arg(long)]
    rate: Option<u32>,
    /// What all chance follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Use the farm that is there, however old.
    #[arg(long)]
    no_build: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    All,
    #[value(name = "T7")]
    T7,
    #[value(name = "T10")]
    T10,
    #[value(name = "T17")]
    T17,
    #[value(name = "T18")]
    T18,
    #[value(name = "T19")]
    T19,
    #[value(name = "T20")]
    T20,
    #[value(name = "T21")]
    T21,
    #[value(name = "T22")]
    T22,
    #[value(name = "T23")]
    T23,
    #[value(name = "T27")]
    T27,
    #[value(name = "T28")]
    T28,
}

/// The rows that `all` stands for.
const ROWS: [Which; 11] = [
    Which::T7,
    Which::T10,
    Which::T17,
    Which::T18,
    Which::T19,
    Which::T20,
    Which::T21,
    Which::T22,
    Which::T23,
    Which::T27,
    Which::T28,
];

/// How large a run is to be, where it is not to be as large as the table says.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    pub(crate) short: bool,
    pub(crate) lasting: Option<Duration>,
    pub(crate) services: Option<usize>,
    pub(crate) rate: Option<u32>,
    pub(crate) seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    allow_many_files();
    if !cli.no_build {
        machina_tests::build_farm();
    }
    let lasting = cli.seconds.or(cli.minutes.map(|minutes| minutes * 60)).map(Duration::from_secs);
    let Cli { short, services, rate, seed, .. } = cli;
    let scale = Scale { short, lasting, services, rate, seed };
    let wanted = if cli.rows.contains(&Which::All) { ROWS.to_vec() } else { cli.rows };
    let mut rows = Vec::new();
    for which in wanted {
        let row = run(which, &scale).await;
        println!("\n{}", row.name);
        for detail in &row.details {
            println!("     {detail}");
        }
        rows.push(row);
    }
    println!();
    for row in &rows {
        println!("{row}");
    }
    match rows {
        rows if rows.iter().any(|row| !row.broken.is_empty()) => ExitCode::FAILURE,
        rows if !short && rows.iter().any(|row| !row.met) => ExitCode::from(2),
        _ => ExitCode::SUCCESS,
    }
}

async fn run(which: Which, scale: &Scale) -> Row {
    match which {
        Which::T7 => Box::pin(wedged::run(scale)).await,
        Which::T10 => Box::pin(failover::run(scale)).await,
        Which::T17 => Box::pin(trees::run(scale)).await,
        Which::T18 => Box::pin(survivors::run(scale)).await,
        Which::T19 => Box::pin(isolation::run(scale)).await,
        Which::T20 => Box::pin(replicas::partition(scale)).await,
        Which::T21 => Box::pin(replicas::wakes(scale)).await,
        Which::T22 => Box::pin(replicas::latency(scale)).await,
        Which::T23 => Box::pin(replicas::outage(scale)).await,
        Which::T27 => Box::pin(cut::run(scale)).await,
        // `all` was taken apart before.
        Which::T28 | Which::All => Box::pin(soak::run(scale)).await,
    }
}

/// As many open files as this process may have.
fn allow_many_files() {
    let most = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }) {
        println!("the limit of open files stays as it is: {error}");
    }
}
