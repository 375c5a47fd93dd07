//! T3 and T4: Machina's own network is gone, or Machina itself stands still.

use std::time::Duration;

use super::super::fleet::{Fleet, config};
use super::super::{Row, paused};
use super::{Size, seconds};

/// How long the network is gone, and how long Machina stands still.
const OUTAGE: Duration = Duration::from_secs(60);
const STALL: Duration = Duration::from_secs(20);

/// How often it stands still.
const STALLS: usize = 5;

/// How many services have a candidate that would be picked.
async fn routed(fleet: &Fleet, services: usize) -> usize {
    let mut routed = 0;
    for service in 0..services {
        let explained = fleet.machina.explain(&format!("s{service}"), None).await.expect("is registered");
        let up = explained.candidates.iter().filter(|one| one.standing == machina_core::Standing::Up).count();
        routed += usize::from(up == explained.candidates.len() && explained.candidates.iter().any(|one| one.picked));
    }
    routed
}

/// Nothing that Machina sends arrives for a minute.
pub(super) fn outage(seed: u64, size: Size) -> Vec<Row> {
    let services = size.of(40, 1000);
    paused(async {
        let fleet = Fleet::open(seed, services, 5, config(), |_| {}).await;
        fleet.forget();
        fleet.instances.iter().for_each(|instance| fleet.sims.set_loss(instance, 1.0));
        tokio::time::sleep(OUTAGE).await;
        let during = routed(&fleet, services).await;
        fleet.instances.iter().for_each(|instance| fleet.sims.set_loss(instance, 0.0));
        tokio::time::sleep(3 * fleet.parameters.interval).await;
        let ejections = fleet.seen(|seen| seen.changes.iter().filter(|change| change.is_soft_ejection()).count());
        let alarms = fleet.seen(|seen| seen.alarms.clone());
        let well = fleet.states().iter().filter(|state| state.is_up()).count();
        let (began, ended) = (alarms.first().is_some_and(|a| a.1), alarms.last().is_some_and(|a| !a.1));
        let instances = fleet.instances.len();
        fleet.close().await;
        vec![Row {
            name: "T3",
            figure: format!(
                "{ejections} soft ejections of {instances}; alarm raised: {began}, cleared: {ended}; \
                 {during} of {services} services routed as before; {well} up afterwards"
            ),
            target: "0 soft ejections, alarm, routing unchanged".to_owned(),
            met: ejections == 0 && began && ended && during == services && well == instances,
            how: format!("seed {seed}, whole registry, all attempts lost for {}", seconds(OUTAGE)),
        }]
    })
}

/// Machina does nothing for twenty seconds, and its timers are late.
pub(super) fn stall(seed: u64, size: Size) -> Vec<Row> {
    let services = size.of(40, 1000);
    paused(async {
        let fleet = Fleet::open(seed, services, 5, config(), |_| {}).await;
        // Some are just being asked when it happens, and answer meanwhile.
        fleet.instances.iter().for_each(|instance| fleet.sims.set_latency(instance, Duration::from_millis(400)));
        tokio::time::sleep(fleet.parameters.interval).await;
        fleet.forget();
        let mut during = services;
        for _ in 0..STALLS {
            tokio::time::advance(STALL).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            during = during.min(routed(&fleet, services).await);
            tokio::time::sleep(Duration::from_secs(47)).await;
        }
        let worse = fleet.seen(|seen| seen.changes.iter().filter(|change| change.is_soft_ejection()).count());
        let changes = fleet.seen(|seen| seen.changes.len());
        let raised = fleet.seen(|seen| seen.alarms.iter().filter(|alarm| alarm.1).count());
        let cleared = fleet.seen(|seen| seen.alarms.iter().filter(|alarm| !alarm.1).count());
        fleet.close().await;
        vec![Row {
            name: "T4",
            figure: format!(
                "{worse} soft ejections, {changes} changes of health; alarm raised {raised} times, cleared {cleared}; \
                 {during} of {services} services routed as before"
            ),
            target: "0 soft ejections, alarm, routing unchanged".to_owned(),
            met: worse == 0 && raised == STALLS && cleared == STALLS && during == services,
            how: format!("seed {seed}, whole registry, its clock jumps by {} {STALLS} times", seconds(STALL)),
        }]
    })
}
