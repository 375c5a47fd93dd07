use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::health::{Observation, ProbeOutcome};
use crate::model::{HttpEndpoint, ServiceSpec};

fn service(name: &str, json: serde_json::Value, instances: usize) -> Arc<Service> {
    let mut value = json;
    value["name"] = name.into();
    let mut spec = ServiceSpec::from_value(value).unwrap();
    for number in 0..instances {
        let mut instance = Instance::new(HttpEndpoint::new(format!("http://{name}-{number}.sim/")));
        instance.region = Some(format!("r{number}"));
        spec.instances.push(instance);
    }
    let now = clock::now();
    let id = ServiceId::generate();
    let revision = Revision(1);
    Arc::new(Service { id, spec, revision, created_at: now, updated_at: now, updated_by: "test".into() })
}

fn put(view: &View, service: &Arc<Service>) -> View {
    view.next(view.revision().next(), &[Delta::Put(Arc::clone(service))], &Config::default())
}

fn observe(view: &View, service: &Service, index: usize, outcome: ProbeOutcome) -> View {
    let instance = service.spec.instances[index].id;
    let cell = &view.by_id(service.id).unwrap().instance(instance).unwrap().1.cell;
    cell.record(cell.ticket(), Observation::new(outcome, ""), crate::cell::Circumstances::default());
    let delta = Delta::Health { service: service.id, instance };
    view.next(view.revision(), &[delta], &Config::default())
}

const DOWN: ProbeOutcome = ProbeOutcome::Fail { hard: true };

#[tokio::test(start_paused = true)]
async fn the_status_of_a_service_follows_its_instances() {
    let service = service("a", serde_json::json!({}), 2);
    let mut view = put(&View::default(), &service);
    let mut statuses = vec![view.get("a").unwrap().status()];
    for (index, outcome) in
        [(0, ProbeOutcome::Pass), (1, ProbeOutcome::Pass), (0, DOWN), (1, DOWN), (0, ProbeOutcome::AuthRequired)]
    {
        view = observe(&view, &service, index, outcome);
        statuses.push(view.get("a").unwrap().status());
    }
    use Status::{Degraded, Healthy, Unhealthy, Unknown};
    assert_eq!(statuses, [Unknown, Degraded, Healthy, Degraded, Unhealthy, Degraded]);
}

#[tokio::test(start_paused = true)]
async fn a_service_has_settled_when_every_instance_is_decided_or_left_alone() {
    let (eager, lazy) = (StartPolicy::Eager, StartPolicy::Lazy);
    let undecided = service("a", serde_json::json!({}), 2);
    let mut view = put(&View::default(), &undecided);
    assert!(!view.get("a").unwrap().is_settled(eager));
    view = observe(&view, &undecided, 0, ProbeOutcome::Pass);
    assert!(!view.get("a").unwrap().is_settled(lazy), "an HTTP server is asked, however lazy");
    view = observe(&view, &undecided, 1, DOWN);
    assert!(view.get("a").unwrap().is_settled(eager));
    let off = service("b", serde_json::json!({"admin_state": "disabled"}), 1);
    assert!(put(&view, &off).get("b").unwrap().is_settled(eager));
    let none = service("c", serde_json::json!({}), 0);
    assert!(put(&view, &none).get("c").unwrap().is_settled(eager));
    let command = service("d", serde_json::json!({"instances": [{"stdio": {"command": "x"}}]}), 0);
    view = put(&view, &command);
    assert!(!view.get("d").unwrap().is_settled(lazy), "its tools are not known yet");
    let definitions = Arc::new(Definitions {
        protocol_version: "2025-11-25".to_owned(),
        server_info: serde_json::Value::Null,
        instructions: None,
        capabilities: serde_json::Value::Null,
        tools: Vec::new(),
        rejected: Vec::new(),
        prompts: Vec::new(),
        resources: Vec::new(),
        resource_templates: Vec::new(),
        listed_at: clock::now(),
    });
    let instance = command.spec.instances[0].id;
    let seen = Delta::Definitions { service: command.id, instance, definitions };
    view = view.next(view.revision(), &[seen], &Config::default());
    assert_eq!([lazy, eager].map(|start| view.get("d").unwrap().is_settled(start)), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn a_view_never_changes() {
    let service = service("a", serde_json::json!({}), 1);
    let before = put(&View::default(), &service);
    let after = observe(&before, &service, 0, ProbeOutcome::Pass);
    assert_eq!(before.get("a").unwrap().status(), Status::Unknown);
    assert_eq!(after.get("a").unwrap().status(), Status::Healthy);
}

#[tokio::test(start_paused = true)]
async fn an_update_keeps_what_is_known_of_instances_that_stay() {
    let first = service("a", serde_json::json!({}), 2);
    let view = observe(&put(&View::default(), &first), &first, 0, ProbeOutcome::Pass);
    let mut second = Service::clone(&first);
    second.spec.instances.remove(1);
    second.spec.title = Some("A".into());
    let view = put(&view, &Arc::new(second));
    let entry = view.get("a").unwrap();
    assert_eq!((entry.status(), entry.instances().len()), (Status::Healthy, 1));
    assert!(view.owner(first.spec.instances[1].id).is_none());
}

#[tokio::test(start_paused = true)]
async fn another_endpoint_under_the_same_identity_starts_anew() {
    let first = service("a", serde_json::json!({}), 1);
    let view = observe(&put(&View::default(), &first), &first, 0, ProbeOutcome::Pass);
    let mut second = Service::clone(&first);
    second.spec.instances[0].endpoint = HttpEndpoint::new("http://elsewhere.sim/").into();
    let view = put(&view, &Arc::new(second));
    assert_eq!(view.get("a").unwrap().status(), Status::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_rename_leaves_nothing_under_the_old_name() {
    let first = service("a", serde_json::json!({"tags": ["x"]}), 1);
    let mut second = Service::clone(&first);
    second.spec.name = crate::model::ServiceName::new("b").unwrap();
    let view = put(&put(&View::default(), &first), &Arc::new(second));
    assert!(view.get("a").is_none());
    assert_eq!(view.len(), 1);
    let tagged = view.find(&Query::from_pairs([("tag", "x")]).unwrap()).unwrap();
    assert_eq!(tagged.items[0].service().name().as_str(), "b");
}

#[derive(Debug, Clone)]
enum Step {
    Put { number: usize, tag: u8, build_type: u8, instances: usize },
    Delete(usize),
    Observe { number: usize, good: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..12usize, 0..3u8, 0..3u8, 0..3usize)
            .prop_map(|(number, tag, build_type, instances)| Step::Put { number, tag, build_type, instances }),
        1 => (0..12usize).prop_map(Step::Delete),
        3 => (0..12usize, any::<bool>()).prop_map(|(number, good)| Step::Observe { number, good }),
    ];
    prop::collection::vec(step, 1..60)
}

fn run(steps: &[Step]) -> View {
    let mut view = View::default();
    for step in steps {
        let existing = |number: &usize| view.get(&format!("s{number}")).map(|view| Arc::clone(view.service()));
        view = match step {
            Step::Put { number, tag, build_type, instances } => {
                let word = ["fastmcp", "fastapi", "external"][usize::from(*build_type)];
                let json = serde_json::json!({"tags": [format!("t{tag}")], "build_type": word});
                let mut new = Service::clone(&service(&format!("s{number}"), json, *instances));
                if let Some(old) = existing(number) {
                    new.id = old.id;
                }
                put(&view, &Arc::new(new))
            }
            Step::Delete(number) => match existing(number) {
                Some(old) => view.next(view.revision().next(), &[Delta::Delete(old.id)], &Config::default()),
                None => view,
            },
            Step::Observe { number, good } => match existing(number) {
                Some(old) if !old.spec.instances.is_empty() => {
                    observe(&view, &old, 0, if *good { ProbeOutcome::Pass } else { DOWN })
                }
                _ => view,
            },
        };
    }
    view
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The indexes agree with a plain search through everything.
    #[test]
    fn find_is_what_a_full_scan_would_find(steps in steps(), tag in 0..3u8, status in 0..4usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let view = run(&steps);
        let status = Status::ALL[status].as_str();
        let tag = format!("t{tag}");
        let queries: [&[(&str, &str)]; 7] = [
            &[], &[("tag", &tag)], &[("status", status)], &[("tag", &tag), ("status", status)],
            &[("region", "r1")], &[("build_type", "fastapi"), ("order", "-status")],
            &[("tag", &tag), ("build_type", "external"), ("order", "-name")],
        ];
        for pairs in queries {
            let query = Query::from_pairs(pairs.iter().copied().chain([("limit", "3")])).unwrap();
            let mut found: Vec<String> = Vec::new();
            let mut next = query.clone();
            loop {
                let page = view.find(&next).unwrap();
                found.extend(page.items.iter().map(|view| view.service().name().to_string()));
                next.cursor = page.next_cursor;
                if next.cursor.is_none() { break; }
            }
            let mut expected: Vec<_> = view.services().filter(|view| query.matches(view)).collect();
            expected.sort_by_key(|view| query.sort_key(view));
            if query.descending { expected.reverse(); }
            let expected: Vec<_> = expected.iter().map(|view| view.service().name().to_string()).collect();
            prop_assert_eq!(found, expected, "{:?}", pairs);
        }
    }
}

/// A health change and a commit touch only what changed: everything else is the
/// very same allocation.
#[tokio::test(start_paused = true)]
async fn what_did_not_change_is_shared() {
    let services: Vec<_> = (0..100).map(|n| service(&format!("s{n}"), serde_json::json!({}), 1)).collect();
    let deltas: Vec<_> = services.iter().cloned().map(Delta::Put).collect();
    let before = View::default().next(Revision(1), &deltas, &Config::default());
    let after = observe(&before, &services[7], 0, ProbeOutcome::Pass);
    let same = before.services().zip(after.services()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
    assert_eq!(same, 99);
}
