//! What a probe looks at, in the whole core: tools, the canary, what a service
//! declares besides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::ward::Ward;
use crate::config::Config;
use crate::health::HealthState;
use crate::model::{Canary, HealthEndpoint, HealthLevel, HealthParameters, ToolName};
use crate::report::HealthReport;
use crate::testing::simulation::bounds;
use crate::testing::{Contact, Deed, Onlooker, add_tool, echo_tool};

async fn probed_with_canary(tools: Vec<serde_json::Value>, tool: &str) -> (Ward, HealthReport) {
    let ward = Ward::http(Config::default(), 1).await;
    ward.sim.set_tools(&ward.instances[0], tools);
    let mut spec = ward.machina.get("s0").unwrap().service().spec.clone();
    spec.health_policy.level = Some(HealthLevel::Canary);
    spec.health_policy.canary = Some(Canary { tool: ToolName::new(tool).unwrap(), arguments: serde_json::Map::new() });
    ward.machina.update("s0", spec, None).await.unwrap();
    // Once to list the tools, once to call one.
    for _ in 0..2 {
        ward.machina.check("s0").await.unwrap();
    }
    let health = ward.health(0);
    (ward, health)
}

#[tokio::test(start_paused = true)]
async fn a_canary_is_called_if_it_is_known_to_be_read_only_and_counted_apart() {
    let (ward, health) = probed_with_canary(vec![echo_tool(), add_tool()], "echo").await;
    assert_eq!((health.state, health.reason.message.as_str()), (HealthState::Healthy, ""));
    let view = ward.machina.get("s0").unwrap();
    let counted = view.instances().next().unwrap().1.statistics();
    assert!(counted.canary_passes >= 1 && counted.canary_failures == 0, "{counted:?}");
    assert_eq!((counted.attempts.count, view.statistics().calls.count), (0, 0), "users' calls are another thing");
    assert_eq!(ward.sim.executions(&ward.instances[0]), counted.canary_passes);
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_may_change_something_is_not_called() {
    for (tools, tool, why) in [
        (vec![echo_tool(), add_tool()], "add", "does not say that the tool is read-only"),
        (vec![echo_tool()], "gone", "has no such tool"),
    ] {
        let (ward, health) = probed_with_canary(tools, tool).await;
        assert_eq!(health.state, HealthState::Healthy);
        assert!(health.reason.message.contains(why), "{:?}", health.reason);
        assert_eq!(ward.sim.executions(&ward.instances[0]), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_level_ping_the_tools_are_listed_when_they_change_and_else_never() {
    #[derive(Debug, Default)]
    struct Lists(AtomicU64);

    impl Onlooker for Lists {
        fn saw(&self, _: &str, deed: Deed<'_>) {
            if matches!(deed, Deed::Began(Contact::List)) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    for (level, least, most) in [(HealthLevel::Ping, 1, 1), (HealthLevel::Tools, 4, 6)] {
        let mut config = Config::default();
        config.health.level = level;
        let ward = Ward::of(config, 1, |sim, _| sim.instance("one")).await;
        let lists = Arc::new(Lists::default());
        ward.sim.watch(lists.clone());
        // About fifty probes.
        tokio::time::sleep(Duration::from_secs(1_450)).await;
        ward.sim.set_tools(&ward.instances[0], vec![echo_tool()]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let listed = lists.0.load(Ordering::Relaxed);
        assert!((least..=most).contains(&listed), "{level:?}: {listed}");
        assert_eq!(ward.machina.get("s0").unwrap().tools().len(), 1, "the change is seen");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_service_declares_is_looked_at() {
    let mut ward = Ward::http(Config::default(), 1).await;
    ward.sim.set_status("/healthz", 200);
    let mut spec = ward.machina.get("s0").unwrap().service().spec.clone();
    spec.health_policy.endpoints = vec![HealthEndpoint::parse("/healthz").unwrap()];
    ward.machina.update("s0", spec, None).await.unwrap();
    ward.machina.check("s0").await.unwrap();
    assert_eq!(ward.health(0).state, HealthState::Healthy);
    ward.sim.set_status("/healthz", 503);
    let took = ward.until(0, HealthState::Unhealthy).await;
    assert!(took <= bounds::black_hole(&HealthParameters::default()), "{took:?}");
    assert_eq!(ward.health(0).reason.message, "/healthz: answered with HTTP status 503");
}
