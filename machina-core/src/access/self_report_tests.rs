use std::sync::Arc;
use std::time::Duration;

use crate::access::{Principal, Role};
use crate::error::ErrorKind;
use crate::health::{HealthState, Status};
use crate::machina::Machina;
use crate::model::{Instance, ServiceSpec};
use crate::testing::{Behaviour, SimConnector};

/// A registry with the service `web`, whose instances are these, and the clock running.
async fn registry(sim: &SimConnector, instances: Vec<Instance>) -> Machina {
    let machina = Machina::builder().connector(Arc::new(sim.clone())).open().await.unwrap();
    let mut spec = ServiceSpec::new("web").unwrap();
    spec.instances = instances;
    machina.register(spec).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    machina
}

fn state(machina: &Machina) -> HealthState {
    machina.get("web").unwrap().instances().next().unwrap().1.health.state
}

#[tokio::test(start_paused = true)]
async fn a_reported_failure_is_evidence_and_a_passing_probe_outweighs_it() {
    let sim = SimConnector::default();
    let machina = registry(&sim, vec![sim.instance("a")]).await;
    assert_eq!(state(&machina), HealthState::Healthy);
    let heartbeat = machina.system().report_health("web", None, Some("the disk is full")).unwrap();
    assert_eq!((heartbeat.health, heartbeat.lease), (Some(HealthState::Suspect), None));
    let reason = machina.get("web").unwrap().instances().next().unwrap().1.health.reason.message.clone();
    assert_eq!(reason, "it reports: the disk is full");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(state(&machina), HealthState::Healthy, "it answers");
}

#[tokio::test(start_paused = true)]
async fn that_all_is_well_is_for_the_probes_to_find_out() {
    let sim = SimConnector::default();
    let instance = sim.instance("a");
    sim.set(&instance, Behaviour::Refuse);
    let machina = registry(&sim, vec![instance]).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(state(&machina), HealthState::Unhealthy);
    for _ in 0..10 {
        machina.system().report_health("web", None, None).unwrap();
    }
    assert_eq!(state(&machina), HealthState::Unhealthy);
    assert_eq!(machina.get("web").unwrap().status(), Status::Unhealthy);
}

#[tokio::test(start_paused = true)]
async fn a_report_renews_the_lease() {
    let sim = SimConnector::default();
    let mut instance = sim.instance("a");
    instance.lease_ttl = Some(Duration::from_secs(90));
    let machina = registry(&sim, vec![instance]).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let heartbeat = machina.system().report_health("web", None, None).unwrap();
        assert_eq!(heartbeat.lease.unwrap().ttl_ms, 90_000);
    }
    assert_eq!(state(&machina), HealthState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_meant_is_refused() {
    let sim = SimConnector::default();
    let machina = registry(&sim, vec![sim.instance("a"), sim.instance("b")]).await;
    let system = machina.system();
    let refused = system.report_health("web", None, Some("x")).unwrap_err();
    assert_eq!((refused.kind(), &*refused.context().problems[0].field), (ErrorKind::Invalid, "instance"));
    let refused = system.report_health("web", None, Some(&"x".repeat(501))).unwrap_err();
    assert_eq!((refused.kind(), &*refused.context().problems[0].field), (ErrorKind::Invalid, "message"));
    assert_eq!(system.report_health("x", None, None).unwrap_err().kind(), ErrorKind::NotFound);
    let viewer = machina.scoped(Principal::new("v", Role::Viewer));
    assert_eq!(viewer.report_health("web", None, None).unwrap_err().kind(), ErrorKind::Forbidden);
}
