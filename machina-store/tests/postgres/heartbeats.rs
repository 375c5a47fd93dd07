//! Instances that registered themselves at one registry and are heard of by another.

use std::sync::Arc;
use std::time::Duration;

use machina_core::testing::SimConnector;
use machina_core::testing::registry_suite::{service, settle};
use machina_core::{HealthState, Machina, Status};
use tokio::time::{Instant, sleep};

use super::schema::Schema;

/// How many there are, so that each registry looks after some of them.
const INSTANCES: usize = 12;
const TTL: Duration = Duration::from_secs(6);
const LONG: Duration = Duration::from_secs(60);

async fn machina(schema: &Schema, sim: &SimConnector) -> Machina {
    Machina::builder().backend(schema.open().await).connector(Arc::new(sim.clone())).open().await.unwrap()
}

fn name(index: usize) -> String {
    format!("s{index}")
}

/// The health of every instance, in the eyes of one registry.
fn states(machina: &Machina) -> Vec<HealthState> {
    let state = |index| machina.get(&name(index)).unwrap().instances().next().unwrap().1.health.state;
    (0..INSTANCES).map(state).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_at_another_registry_keep_instances_alive_in_both() {
    let (schema, sim) = (Schema::new(), SimConnector::seeded(7));
    let (here, there) = (machina(&schema, &sim).await, machina(&schema, &sim).await);
    for index in 0..INSTANCES {
        let mut instance = sim.instance(&name(index));
        instance.lease_ttl = Some(TTL);
        here.register(service(&name(index), &[&instance])).await.unwrap();
    }
    let shown = Instant::now() + LONG;
    while there.view().len() < INSTANCES {
        assert!(Instant::now() < shown, "the other registry does not show them");
        sleep(Duration::from_millis(10)).await;
    }
    let beat = || (0..INSTANCES).for_each(|index| drop(there.system().heartbeat(&name(index), None).unwrap()));
    for index in 0..INSTANCES {
        beat();
        settle(&here, &name(index), Status::Healthy).await;
        settle(&there, &name(index), Status::Healthy).await;
    }

    let begun = Instant::now();
    while begun.elapsed() < TTL * 2 {
        beat();
        sleep(Duration::from_millis(500)).await;
        for (registry, machina) in [("here", &here), ("there", &there)] {
            let states = states(machina);
            let healthy = states.iter().all(|state| *state == HealthState::Healthy);
            assert!(healthy, "{registry}, after {:?}: {states:?}", begun.elapsed());
        }
    }

    let stopped = Instant::now();
    while [&here, &there].into_iter().flat_map(states).any(|state| state != HealthState::Expired) {
        let (a, b) = (states(&here), states(&there));
        assert!(stopped.elapsed() < LONG, "{:?} after the last heartbeat: {a:?}, {b:?}", stopped.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    eprintln!("expired in both {:?} after the last heartbeat, with a lease of {TTL:?}", stopped.elapsed());
    for machina in [here, there] {
        machina.close().await;
    }
}
