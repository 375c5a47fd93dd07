//! The whole registry (monitor, router, sessions, store in memory) on simulated
//! instances under paused time: a seed makes a schedule of what goes wrong, and
//! after each step all that must always hold is looked at. The same seed gives
//! the same run, to the letter of its log.
//!
//! Needs a runtime of one thread whose time is paused from its start.

mod book;
pub mod bounds;
mod check;
mod plan;
mod pure;
mod truth;
mod world;

use std::time::Duration;

use plan::{Plan, Step};
pub use pure::{Losses, bursts, losses};
use world::World;

use crate::error::Result;

/// How long everything may take to be well again after the last fault: a process
/// in a crash loop is started every five minutes.
const SETTLING: Duration = Duration::from_secs(8 * 60);

/// What came of a simulation.
#[derive(Debug)]
pub struct Run {
    /// The seed that it was made of.
    pub seed: u64,
    /// What happened, one line for each thing, with the virtual time in seconds.
    pub log: String,
    /// What was not as it must be; the run ended with the first step at which
    /// something was.
    pub wrong: Vec<String>,
    /// How many steps were taken.
    pub steps: u32,
    /// How many calls were answered.
    pub answered: u64,
    /// How many calls failed.
    pub failed: u64,
    /// How many events the registry published.
    pub events: u64,
    /// How much virtual time passed.
    pub time: Duration,
}

/// Carries out the schedule of `seed`, `steps` long. `stall` lets the time pass
/// by that it is given, while nothing runs (`tokio::time::advance`).
///
/// # Errors
/// When the registry cannot be opened.
///
/// # Panics
/// Outside of a runtime of tokio.
pub async fn run<F>(seed: u64, steps: u32, stall: impl Fn(Duration) -> F) -> Result<Run>
where
    F: Future<Output = ()>,
{
    let plan = Plan::new(seed);
    let mut world = World::new(seed, &plan).await?;
    for site in 0..plan.sites.len() {
        world.carry_out(Step::Register(site), &stall).await;
    }
    let mut taken = 0;
    while taken < steps && world.book.pages().wrong.is_empty() {
        taken += 1;
        world.carry_out(plan.next(&world.faulty()), &stall).await;
        world.check().await;
        tokio::time::sleep(plan.pause()).await;
        world.end_outage();
        world.check().await;
    }
    if world.book.pages().wrong.is_empty() {
        world.heal().await;
        tokio::time::sleep(SETTLING).await;
        world.check_settled().await?;
    }
    world.close().await;
    world.check_closed();
    let pages = world.book.pages();
    Ok(Run {
        seed,
        log: pages.log.clone(),
        wrong: pages.wrong.clone(),
        steps: taken,
        answered: pages.answered,
        failed: pages.failed,
        events: pages.events,
        time: pages.time(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(seed: u64) -> Run {
        let run = run(seed, 30, tokio::time::advance).await.unwrap();
        assert!(run.wrong.is_empty(), "seed {seed}: {:#?}\n{}", run.wrong, run.log);
        run
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_wrong_in_a_few_runs() {
        let mut calls = 0;
        for seed in 0..10 {
            let run = of(seed).await;
            calls += run.answered;
        }
        assert!(calls > 100, "{calls}");
    }
}
