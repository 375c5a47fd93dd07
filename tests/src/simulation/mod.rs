//! Simulations of the whole registry under paused time, and the figures that
//! they give for the table of `docs/reliability.md`. Every figure is held against
//! a formula of the configured values, never against a number of its own.

pub mod calls;
pub mod fleet;
pub mod rows;

use std::fmt;
use std::future::Future;

use machina_core::testing::simulation::{Run, run};

/// Carries `future` out on one thread, where time passes only while everything
/// waits for it.
///
/// # Panics
/// When no runtime can be made.
pub fn paused<F: Future>(future: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime of one thread can be made");
    runtime.block_on(future)
}

/// The run of a seed.
///
/// # Panics
/// When the registry does not open.
#[must_use]
pub fn replay(seed: u64, steps: u32) -> Run {
    paused(run(seed, steps, tokio::time::advance)).expect("a registry in memory opens")
}

/// The command that replays a run.
#[must_use]
pub fn command(seed: u64, steps: u32) -> String {
    format!("cargo run --release -p machina-tests --bin simulate -- --seed {seed} --steps {steps} --trace")
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its name there, such as `T1`.
    pub name: &'static str,
    /// What was measured.
    pub figure: String,
    /// What it is to be.
    pub target: String,
    /// Whether it is.
    pub met: bool,
    /// How it was measured.
    pub how: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, figure, target, met, how } = self;
        let verdict = if *met { "met" } else { "missed" };
        write!(f, "{name}  {figure}  {target}  {verdict}  ({how})")
    }
}
