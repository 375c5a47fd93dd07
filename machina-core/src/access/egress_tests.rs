use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::access::{Principal, Role, Scoped};
use crate::config::Config;
use crate::egress::EgressConfig;
use crate::error::{Error, ErrorKind};
use crate::machina::{Machina, Registry};
use crate::model::{AdminState, ServiceName, ServiceSpec};
use crate::testing::{Behaviour, SimConnector};
use crate::write::Mutation;

async fn registry(allow: &[&str]) -> Machina {
    let allow = allow.iter().map(|network| network.parse().unwrap()).collect();
    let config = Config { egress: EgressConfig { allow }, ..Config::default() };
    Machina::builder().config(config).without_monitor().open().await.unwrap()
}

fn outside(machina: &Machina) -> Scoped {
    machina.scoped(Principal::new("someone", Role::Admin).remote())
}

async fn put(scoped: &Scoped, spec: Value) -> Result<(), Error> {
    scoped.apply(vec![Mutation::Put(ServiceSpec::from_value(spec)?)]).await.map(drop)
}

/// Of each instance of `web`, whether it is taken to come from outside.
fn marks(machina: &Machina) -> Vec<bool> {
    machina.get("web").unwrap().instances().map(|(instance, _)| instance.from_outside).collect()
}

async fn record(machina: &Machina) -> Value {
    serde_json::to_value(machina.system().get("web").await.unwrap()).unwrap()
}

fn web(instances: Value) -> Value {
    json!({"name": "web", "instances": instances})
}

#[tokio::test]
async fn an_address_of_this_machine_is_refused_from_outside_with_its_field_and_what_would_allow_it() {
    for (instance, field) in [
        (json!({"http": {"url": "http://127.0.0.1:9000/mcp"}}), "instances[1].http.url"),
        (json!({"http": {"url": "http://2130706433/mcp"}}), "instances[1].http.url"),
        (json!({"sse": {"url": format!("http://{}/sse", "10.0.0.1")}}), "instances[1].sse.url"),
        (json!({"websocket": {"url": "ws://[::ffff:192.168.0.1]/"}}), "instances[1].websocket.url"),
        (json!({"openapi": {"document": "a.json", "base_url": "http://localhost/"}}), "instances[1].openapi.base_url"),
    ] {
        let spec = web(json!([{"http": {"url": "https://a.example/mcp"}}, instance]));
        let machina = registry(&[]).await;
        let refused = put(&outside(&machina), spec.clone()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden, "{refused}");
        assert_eq!(refused.context().problems[0].field, field);
        assert!(refused.message().contains(field) && refused.message().contains("egress.allow"), "{refused}");
        assert_eq!(refused.context().service.as_deref(), Some("web"));
        assert!(machina.view().is_empty());
        put(machina.system(), spec.clone()).await.unwrap();
        assert_eq!(marks(&machina), [false, false]);

        let machina = registry(&["127.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16"]).await;
        put(&outside(&machina), spec).await.unwrap();
        assert_eq!(marks(&machina), [true, true]);
    }
}

#[tokio::test]
async fn metadata_is_refused_for_everyone_and_every_wrong_field_is_named() {
    let machina = registry(&["0.0.0.0/0", "::/0"]).await;
    let spec = web(json!([{"http": {"url": "http://169.254.169.254/"}}, {"http": {"url": "http://[fe80::1]/"}}]));
    for scoped in [machina.system().clone(), outside(&machina)] {
        let refused = put(&scoped, spec.clone()).await.unwrap_err();
        let fields: Vec<_> = refused.context().problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["instances[0].http.url", "instances[1].http.url"], "{refused}");
        assert!(!refused.message().contains("egress.allow"), "{refused}");
    }
}

#[tokio::test]
async fn nobody_outside_can_say_that_an_instance_is_from_inside() {
    let machina = registry(&[]).await;
    let outside = outside(&machina);
    put(machina.system(), web(json!([{"http": {"url": "http://127.0.0.1:1/"}}]))).await.unwrap();
    let mut seen = record(&machina).await;
    assert!(seen["instances"][0].get("from_outside").is_none());

    // What is as it was stays what it was, whatever is said about it.
    seen["instances"][0]["weight"] = json!(7);
    seen["instances"][0]["from_outside"] = json!(true);
    put(&outside, seen.clone()).await.unwrap();
    assert_eq!(marks(&machina), [false]);
    let name = ServiceName::new("web").unwrap();
    let drain = Mutation::SetAdminState { name, instance: None, admin_state: AdminState::Draining, reason: None };
    outside.apply(vec![drain]).await.unwrap();
    assert_eq!(marks(&machina), [false]);

    // What is added or moved is from outside, whatever is said about it.
    let mut moved = record(&machina).await;
    moved["instances"][0]["http"]["url"] = json!("http://127.0.0.1:2/");
    moved["instances"][0]["from_outside"] = json!(false);
    assert_eq!(put(&outside, moved.clone()).await.unwrap_err().kind(), ErrorKind::Forbidden);
    moved["instances"][0]["http"]["url"] = json!("https://b.example/");
    put(&outside, moved).await.unwrap();
    assert_eq!(marks(&machina), [true]);
    let added = json!({"http": {"url": "https://c.example/"}, "from_outside": false});
    outside.add_instance("web", &added, None).await.unwrap();
    assert_eq!(marks(&machina), [true, true]);
    outside.patch("web", &json!({"description": "x"}), None).await.unwrap();
    assert_eq!(marks(&machina), [true, true]);
}

#[tokio::test]
async fn the_mark_is_kept_by_those_inside_until_they_declare_the_instance_themselves() {
    let machina = registry(&[]).await;
    put(&outside(&machina), web(json!([{"http": {"url": "https://a.example/"}}]))).await.unwrap();
    assert_eq!(record(&machina).await["instances"][0]["from_outside"], json!(true));
    machina.system().set_maintenance("web", true, None).await.unwrap();
    machina.system().patch("web", &json!({"description": "x"}), None).await.unwrap();
    assert_eq!(marks(&machina), [true]);
    put(machina.system(), web(json!([{"http": {"url": "https://a.example/"}}]))).await.unwrap();
    assert_eq!(marks(&machina), [false]);
    // A copy of another registry is declared inside, as what it is.
    let copied = json!([{"http": {"url": "http://127.0.0.1/"}, "from_outside": true}]);
    assert_eq!(put(machina.system(), web(copied)).await.unwrap_err().kind(), ErrorKind::Forbidden);
}

#[tokio::test]
async fn from_outside_only_the_instances_themselves_may_be_looked_at() {
    let machina = registry(&[]).await;
    let outside = outside(&machina);
    let looking = |endpoints: Value| {
        let instances = json!([{"http": {"url": "http://a.example:81/mcp"}}]);
        json!({"name": "web", "instances": instances, "health_policy": {"endpoints": endpoints}})
    };
    put(&outside, looking(json!(["/healthz"]))).await.unwrap();
    for bad in ["http://a.example:81/x", "https://b.example/x", "tcp://127.0.0.1:5432", "tcp://a.example:81"] {
        let spec = looking(json!(["/healthz", bad]));
        let refused = put(&outside, spec.clone()).await.unwrap_err();
        assert_eq!(refused.context().problems[0].field, "health_policy.endpoints[1]", "{bad}: {refused}");
        put(machina.system(), spec).await.unwrap();
        // What was declared inside stays when the rest is described anew.
        let mut seen = record(&machina).await;
        seen["description"] = json!(bad);
        put(&outside, seen).await.unwrap();
        machina.deregister("web").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn how_soon_something_answers_is_told_of_what_speaks_mcp_only() {
    let sim = SimConnector::default();
    let machina = Machina::builder().connector(Arc::new(sim.clone())).without_monitor().open().await.unwrap();
    let outside = outside(&machina);
    let check = async || {
        let begun = Instant::now();
        let health = outside.check("web").await.unwrap();
        (begun.elapsed(), health.instances[0].health.response_time_ms)
    };
    let there = sim.instance("there");
    let spec = web(serde_json::to_value([&there]).unwrap());
    put(&outside, spec.clone()).await.unwrap();
    assert_eq!(marks(&machina), [true]);
    sim.set(&there, Behaviour::Refuse);
    for latency in [1, 7, 130, 333] {
        sim.set_latency(&there, Duration::from_millis(latency));
        let (took, response_time) = check().await;
        assert_eq!((took.as_millis() % 500, response_time), (0, None), "{took:?}");
    }
    // One that was declared inside is told of as soon as it answers.
    machina.deregister("web").await.unwrap();
    put(machina.system(), spec.clone()).await.unwrap();
    assert_ne!(check().await.0.as_millis() % 500, 0);
    machina.deregister("web").await.unwrap();
    // And so is one that speaks MCP.
    put(&outside, spec).await.unwrap();
    sim.set(&there, Behaviour::Up);
    assert!(check().await.1.is_some());
    sim.set(&there, Behaviour::Refuse);
    assert_ne!(check().await.0.as_millis() % 500, 0);
}
