//! T28: the load of T10 and the trees of T17 in one registry's process for as long
//! as one likes; nothing may grow.

use std::time::Duration;

use machina_tests::settled;

use crate::Scale;
use crate::children::Children;
use crate::failover;
use crate::report::{Row, megabytes};
use crate::samples::slope;
use crate::trees;

/// How long the trees may take to start.
const PATIENCE: Duration = Duration::from_secs(240);
/// The sizes of a soak that is asked for nothing else.
const SERVICES: usize = 300;
/// How many services there are for each tree.
const SERVICES_PER_TREE: usize = 5;
/// How many entries of each kind the journal in memory keeps: it is full soon, and
/// what grows afterwards is something else.
const JOURNAL_ENTRIES: u64 = 5_000;
const RATE: u32 = 150;
const MINUTES: u64 = 10;
/// How long a short one lasts: as long as the short T17, with the load of the short T10.
const SHORT: Duration = Duration::from_secs(21);
/// How fast memory may grow, in MB per hour.
const SLOPE_MAX: f64 = 1.0;

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let (size, forest) = sizes(scale);
    let children = Children::of("T28", forest.node);
    let fleet = failover::start(&size).await;
    let names = trees::register(&fleet.machina, &children, forest.trees).await;
    settled(&fleet.machina, PATIENCE).await;
    let both = async {
        tokio::join!(
            Box::pin(failover::endure(&fleet, &size, scale.seed)),
            Box::pin(trees::endure(&fleet.machina, &children, &names, &forest, scale.seed)),
        )
    };
    let (outcomes, seen) = both.await;
    fleet.machina.close().await;
    let (mut of_load, of_trees) = (outcomes.row(), seen.details());
    // The first third is the warm-up: pools, tables and rings fill.
    let settled = &seen.samples[seen.samples.len() / 3..];
    let rising = slope(settled);
    let mut broken = if scale.short { outcomes.never() } else { std::mem::take(&mut of_load.broken) };
    broken.extend(seen.broken());
    if scale.short && !seen.was_disturbed() {
        broken.push("nothing happened to any tree: this run shows nothing".to_owned());
    }
    let repeatable = outcomes.repeatable_percent();
    let mut details = of_load.details;
    details.extend(of_trees);
    Row {
        name: "T28",
        figure: format!(
            "{:?}: all {:.4} %, repeatable {repeatable:.4} %, RSS {:.1} → {:.1} MB ({rising:+.1} MB/h), fds {} → \
             {}, children {} → {}, zombies {}, orphans {}",
            size.lasting,
            outcomes.answered_percent(),
            megabytes(seen.before.resident),
            megabytes(seen.after.resident),
            seen.before.files,
            seen.after.files,
            seen.before.children,
            seen.after.children,
            seen.zombies,
            seen.orphans,
        ),
        target: "99.9 % / 99.99 % repeatable, RSS < 1 MB/h",
        met: broken.is_empty() && outcomes.answered_percent() >= 99.9 && repeatable >= 99.99 && rising < SLOPE_MAX,
        broken,
        details,
    }
}

/// How large the load and the forest are.
fn sizes(scale: &Scale) -> (failover::Size, trees::Size) {
    let lasting = if scale.short { SHORT } else { Duration::from_secs(60 * MINUTES) };
    let mut scaled = Scale { lasting: scale.lasting.or(Some(lasting)), ..scale.clone() };
    if !scale.short {
        scaled.services.get_or_insert(SERVICES);
        scaled.rate.get_or_insert(RATE);
    }
    let (mut size, mut forest) = (failover::Size::of(&scaled), trees::Size::of(&scaled));
    size.config.journal.entries_max = JOURNAL_ENTRIES;
    size.config.health.self_preservation_percentage = forest.config.health.self_preservation_percentage;
    forest.trees = size.services.div_ceil(SERVICES_PER_TREE);
    (size, forest)
}
