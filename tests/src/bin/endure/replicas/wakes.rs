//! T21: every replica loses 30 of 100 wake-ups, and PostgreSQL is killed and
//! started again: whatever was acknowledged is seen everywhere.

use std::time::Duration;

use machina_tests::wait_until;
use tokio::time::{Instant, sleep};

use super::{REPLICAS, Rig};
use crate::Scale;
use crate::report::{Row, spread};

const TARGET: &str = "nothing missed, ≤ 2 s";
const SEEN_MAX: Duration = Duration::from_secs(2);

/// How often something is registered.
const EVERY: Duration = Duration::from_millis(100);

/// How long a replica may need to find the store again.
const RECOVERY: Duration = Duration::from_secs(30);

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let lasting = scale.lasting.unwrap_or(Duration::from_secs(if scale.short { 15 } else { 300 }));
    let mut rig = Rig::start(3).await;
    rig.wires.iter().for_each(|wire| wire.lose(30));
    let mut acknowledged: Vec<String> = Vec::new();
    let mut times = Vec::new();
    for half in 0..2 {
        let begun = Instant::now();
        while begun.elapsed() < lasting / 2 {
            let (writer, name) = (acknowledged.len() % REPLICAS, format!("n{half}-{}", acknowledged.len()));
            if rig.register(writer, &name).await {
                times.push(seen_by_all(&rig, &name).await);
                acknowledged.push(name);
            }
            sleep(EVERY).await;
        }
        if half == 0 {
            rig.postgres.order("kill");
            assert!(!rig.register(0, "while-down").await, "a write without the store was acknowledged");
            rig.postgres.order("start");
            wait_until(RECOVERY, "all replicas take writes again", async || {
                for replica in 0..REPLICAS {
                    if !rig.register(replica, &format!("back-{replica}")).await {
                        return Err(format!("replica {replica} refuses"));
                    }
                }
                Ok(())
            })
            .await;
        }
    }
    let mut missed = Vec::new();
    for name in &acknowledged {
        for replica in 0..REPLICAS {
            if rig.replica(replica).get(&format!("/api/v1/services/{name}")).await.status != 200 {
                missed.push(format!("{name} at replica {replica}"));
            }
        }
    }
    let (came, lost) = rig.wires.iter().map(super::Wire::notifications).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    let slowest = times.iter().max().copied().unwrap_or_default();
    Row {
        name: "T21",
        figure: format!("{} changes, {} missed; seen by all {}", acknowledged.len(), missed.len(), spread(times)),
        target: TARGET,
        met: missed.is_empty() && slowest <= SEEN_MAX,
        broken: missed,
        details: vec![format!("{lost} of {came} wake-ups lost; PostgreSQL killed and started half-way")],
    }
}

/// How long after its acknowledgement every replica shows a service.
async fn seen_by_all(rig: &Rig, name: &str) -> Duration {
    let begun = Instant::now();
    let path = format!("/api/v1/services/{name}");
    wait_until(RECOVERY, "all replicas show it", async || {
        for replica in 0..REPLICAS {
            if rig.replica(replica).get(&path).await.status != 200 {
                return Err(format!("replica {replica} does not show {name}"));
            }
        }
        Ok(())
    })
    .await;
    begun.elapsed()
}
