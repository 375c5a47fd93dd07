//! T18: `machina serve` with many children is killed with SIGKILL; nothing of
//! them may be left two seconds later.

use std::time::Duration;

use machina_tests::{MachinaProcess, Process, wait_until};
use rustix::process::Signal;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::Scale;
use crate::children::Children;
use crate::report::{Row, shown};

/// How long all children may take to start.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long they may survive.
const SURVIVAL: Duration = Duration::from_secs(2);
/// When those that are still there are there for good.
const LONG_AFTER: Duration = Duration::from_secs(30);
/// How many processes each child is.
const PER_TREE: usize = 2;

/// What became of the processes.
struct Survived {
    processes: usize,
    helpers: usize,
    survivors: usize,
    took: Duration,
    /// Those that were there long after.
    stayed: usize,
}

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let trees = scale.services.unwrap_or(if scale.short { 20 } else { 200 });
    let mut children = Children::of("T18", !scale.short);
    let mut survived = kill(&children, trees).await;
    // A machine that has other things to do may stand still, and not each time.
    if scale.short && survived.survivors > 0 && survived.stayed == 0 {
        children = Children::of("T18-again", false);
        survived = kill(&children, trees).await;
    }
    row(&survived, trees, children.leaf())
}

async fn kill(children: &Children, trees: usize) -> Survived {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let import = directory.path().join("mcp.json");
    let servers: Map<String, Value> = (0..trees).map(|tree| (format!("tree-{tree}"), children.entry())).collect();
    std::fs::write(&import, json!({"mcpServers": servers}).to_string()).expect("a file can be written");
    let machina = MachinaProcess::serve(&["--import", &import.to_string_lossy()]).await;
    let family = wait_until(PATIENCE, "all children have started", async || {
        let family = children.alive();
        if family.len() == trees * PER_TREE { Ok(family) } else { Err(format!("{} processes", family.len())) }
    })
    .await;
    let helpers = machina.process().descendants().len().saturating_sub(family.len());
    let killed = Instant::now();
    machina.signal(Signal::KILL);
    let alive = |family: &[Process]| family.iter().filter(|process| process.is_alive()).count();
    while alive(&family) > 0 && killed.elapsed() < SURVIVAL {
        sleep(Duration::from_millis(5)).await;
    }
    let (survivors, took) = (alive(&family), killed.elapsed());
    while alive(&family) > 0 && killed.elapsed() < LONG_AFTER {
        sleep(Duration::from_millis(100)).await;
    }
    Survived { processes: family.len(), helpers, survivors, took, stayed: alive(&family) }
}

fn row(survived: &Survived, trees: usize, leaf: &str) -> Row {
    let Survived { processes, helpers, survivors, took, stayed } = *survived;
    let gone = if survivors == 0 { format!("all gone after {}", shown(took)) } else { "not all gone".to_owned() };
    Row {
        name: "T18",
        figure: format!("{trees} children, {processes} processes: {survivors} survivors after {SURVIVAL:?}, {gone}"),
        target: "0 survivors in 2 s",
        met: survivors == 0,
        broken: if survivors == 0 {
            Vec::new()
        } else {
            vec![format!("{survivors} processes survived, {stayed} for good")]
        },
        details: vec![format!(
            "machina serve, {trees} trees (sh → {leaf}), {helpers} processes of Machina's own beside them"
        )],
    }
}
