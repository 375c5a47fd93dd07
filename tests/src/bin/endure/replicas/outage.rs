//! T23: the store is gone for a while. What is known is routed all the same, and
//! whatever would have to be written is refused.

use std::time::Duration;

use machina_tests::wait_until;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{NAMES, REPLICAS, Rig};
use crate::Scale;
use crate::report::{Row, shown};

const TARGET: &str = "routing 100 % for what is known; mutations refused";

/// How often each replica is called.
const EVERY: Duration = Duration::from_millis(50);

/// After how long a replica says that what it shows may be old.
const STALE: Duration = Duration::from_secs(6);

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let lasting = scale.lasting.unwrap_or(Duration::from_secs(if scale.short { 20 } else { 600 }));
    let servers = scale.services.unwrap_or(10);
    let mut rig = Rig::start(servers).await;
    rig.postgres.order("kill");
    let (down, mut calls, mut failed, mut broken) = (Instant::now(), 0_u64, Vec::new(), Vec::new());
    let mut refused = 0_u64;
    let mut flagged = [false; REPLICAS];
    while down.elapsed() < lasting {
        for (replica, name) in NAMES.iter().enumerate() {
            let server = usize::try_from(calls).unwrap_or_default() % servers;
            let path = format!("/api/v1/services/s{server}/call");
            let answer = rig.replica(replica).post(&path, &json!({"tool": "look", "arguments": {}})).await;
            calls += 1;
            if answer.status != 200 {
                failed.push(format!("s{server} at {name}: {answer:?}"));
            }
        }
        if calls.is_multiple_of(60) {
            let name = format!("late-{calls}");
            match rig.register(usize::try_from(calls / 60).unwrap_or_default() % REPLICAS, &name).await {
                true => broken.push(format!("{name} was acknowledged without a store")),
                false => refused += 1,
            }
        }
        if down.elapsed() > STALE {
            for (replica, flagged) in flagged.iter_mut().enumerate() {
                let ready = rig.replica(replica).get("/readyz?verbose").await;
                *flagged |= ready.status == 200 && ready.body["checks"]["store"] == "stale";
            }
        }
        sleep(EVERY).await;
    }
    if flagged.contains(&false) {
        broken.push("a replica never said that what it shows may be old".to_owned());
    }
    rig.postgres.order("start");
    let back = Instant::now();
    wait_until(Duration::from_secs(60), "writes are taken again", async || {
        if rig.register(0, "back").await { Ok(()) } else { Err("refused".to_owned()) }
    })
    .await;
    let writes = back.elapsed();
    let converged = rig.converge().await;
    for name in rig.replica(1).get("/api/v1/services?limit=200&name=late-*").await.body["items"]
        .as_array()
        .into_iter()
        .flatten()
    {
        broken.push(format!("{} was refused, and is there", name["name"]));
    }
    let lost = failed.len();
    broken.extend(failed.into_iter().take(10));
    Row {
        name: "T23",
        figure: format!(
            "{calls} calls, {lost} failed; {refused} mutations refused, none taken; writes again after {}",
            shown(writes)
        ),
        target: TARGET,
        met: lost == 0 && broken.is_empty(),
        broken,
        details: vec![format!(
            "PostgreSQL killed for {lasting:?} under 3 replicas and {servers} services; all agree {} after it takes writes",
            shown(converged)
        )],
    }
}
