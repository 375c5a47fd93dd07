//! How a registry must behave, near or far: one function for each point. Run on
//! [`Machina`](crate::Machina), on [`Scoped`](crate::Scoped) and on the HTTP
//! client. [`registry_suite!`](crate::registry_suite) makes a test of each.
//!
//! Every function expects a [`Subject`]: an empty registry whose instances are
//! those of a [`SimConnector`].

use std::time::Duration;

use serde_json::{Value, json};

use super::sim::{Behaviour, SimConnector};
use crate::error::{ErrorKind, Outcome};
use crate::health::Status;
use crate::machina::{Registry, Router, ToolQuery};
use crate::model::{GroupSpec, Instance, ServiceName, ServiceSpec, ToolCall, ToolName};
use crate::query::Query;
use crate::route::CallOptions;
use crate::write::Mutation;

pub use super::watch_suite::{
    changes_are_told_as_they_happen, what_happened_since_is_replayed, who_knows_another_registry_is_told_to_resync,
};

/// An empty registry and the instances that it can reach.
#[derive(Debug)]
pub struct Subject<R> {
    /// The registry.
    pub registry: R,
    /// Its instances.
    pub sim: SimConnector,
}

/// Stamps one `#[tokio::test]` for each behaviour of a registry. The expression
/// makes a [`Subject`](crate::testing::registry_suite::Subject); it may `.await`.
#[macro_export]
macro_rules! registry_suite {
    ($make:expr) => {
        $crate::registry_suite! { @ $make =>
            what_is_registered_is_read, a_name_is_taken_once, bad_records_name_the_field, pages_are_complete,
            filters_apply, an_update_keeps_identity_and_secrets, a_stale_update_is_a_conflict,
            all_or_nothing, what_is_deregistered_is_gone, unknown_services_and_tools_are_not_found,
            tools_are_listed_and_found, a_call_reaches_an_instance, a_tool_error_is_an_answer,
            a_refusing_instance_is_passed_over, an_unknown_outcome_is_said_and_not_repeated,
            explain_names_every_instance, health_is_told_per_instance, groups_are_made_read_and_removed,
            changes_are_told_as_they_happen, what_happened_since_is_replayed,
            who_knows_another_registry_is_told_to_resync,
        }
    };
    (@ $make:expr => $($behaviour:ident,)*) => {
        $(
            #[::tokio::test]
            async fn $behaviour() {
                let subject = $make;
                $crate::testing::registry_suite::$behaviour(&subject).await;
            }
        )*
    };
}

/// A service of this name at these instances.
///
/// # Panics
/// When `name` is not a service name.
#[must_use]
pub fn service(name: &str, instances: &[&Instance]) -> ServiceSpec {
    let spec = ServiceSpec::new(name).expect("a valid name");
    instances.iter().fold(spec, |spec, instance| spec.instance((*instance).clone()))
}

/// A call of `tool` with `arguments`.
///
/// # Panics
/// When a name is malformed.
#[must_use]
pub fn call(service: &str, tool: &str, arguments: Value) -> ToolCall {
    ToolCall {
        service: ServiceName::new(service).expect("a valid name"),
        tool: ToolName::new(tool).expect("a valid name"),
        arguments: arguments.as_object().cloned().unwrap_or_default(),
    }
}

fn name(name: &str) -> ServiceName {
    ServiceName::new(name).expect("a valid name")
}

async fn register<R: Registry>(subject: &Subject<R>, spec: ServiceSpec) {
    subject.registry.apply(vec![Mutation::Register(spec)]).await.expect("registers");
}

/// Waits until the status of a service is `status`.
///
/// # Panics
/// When that does not come about within half a minute: as long as a few probes at
/// the fast interval take, each of them confirmed.
pub async fn settle<R: Registry>(registry: &R, service: &str, status: Status) {
    for _ in 0..3000 {
        if registry.get(service).await.expect("exists").status == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{service} did not become {status:?}: {:?}", registry.health(service).await);
}

type Pairs = &'static [(&'static str, &'static str)];

macro_rules! behaviours {
    ($($(#[$doc:meta])* $name:ident($subject:ident) $body:block)*) => {
        $($(#[$doc])* pub async fn $name<R: Registry + Router>($subject: &Subject<R>) $body)*
    };
}

behaviours! {
    /// What was registered is read back, by name and by identity.
    what_is_registered_is_read(subject) {
        let spec = ServiceSpec::parse(r#"{"name": "io.github.a/b", "title": "B", "tags": ["x"]}"#).expect("valid");
        register(subject, spec).await;
        let report = subject.registry.get("io.github.a/b").await.expect("found");
        assert_eq!(report.declared["title"], "B");
        assert_eq!(report.status, Status::Unknown);
        let by_id = subject.registry.get(&report.id.to_string()).await.expect("found");
        assert_eq!(by_id.name(), "io.github.a/b");
    }

    /// The name of a service is unique.
    a_name_is_taken_once(subject) {
        register(subject, service("a", &[])).await;
        let again = subject.registry.apply(vec![Mutation::Register(service("a", &[]))]).await;
        assert_eq!(again.expect_err("taken").kind(), ErrorKind::Conflict);
    }

    /// A malformed record is refused and the field is named.
    bad_records_name_the_field(subject) {
        let mut spec = service("a", &[]);
        spec.routing_policy.attempts_max = Some(11);
        let error = subject.registry.apply(vec![Mutation::Register(spec)]).await.expect_err("invalid");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.context().problems[0].field, "routing_policy.attempts_max");
    }

    /// Pages together hold every service once, in order.
    pages_are_complete(subject) {
        let names: Vec<String> = (0..25).map(|number| format!("s{number:02}")).collect();
        let mutations = names.iter().map(|name| Mutation::Register(service(name, &[]))).collect();
        subject.registry.apply(mutations).await.expect("registers");
        for order in ["name", "-name", "created_at"] {
            let mut query = Query::from_pairs([("limit", "10"), ("order", order)]).expect("valid");
            let mut seen = Vec::new();
            loop {
                let page = subject.registry.find(&query).await.expect("a page");
                seen.extend(page.items.iter().map(|report| report.name().to_owned()));
                query.cursor = page.next_cursor;
                if query.cursor.is_none() {
                    break;
                }
            }
            if order == "-name" {
                seen.reverse();
            }
            assert_eq!(seen, names, "{order}");
        }
        let foreign = Query { cursor: Some("bm9uc2Vuc2U".into()), ..Query::default() };
        assert_eq!(subject.registry.find(&foreign).await.expect_err("no cursor").kind(), ErrorKind::Invalid);
    }

    /// Filters narrow the answer.
    filters_apply(subject) {
        let parse = |json| ServiceSpec::parse(json).expect("valid");
        register(subject, parse(r#"{"name": "a", "tags": ["x", "y"], "build_type": "fastmcp", "required": true}"#)).await;
        register(subject, parse(r#"{"name": "b", "tags": ["x"], "description": "Reads Files"}"#)).await;
        register(subject, parse(r#"{"name": "c", "enabled": false}"#)).await;
        let cases: [(Pairs, &[&str]); 8] = [
            (&[("tag", "x")], &["a", "b"]),
            (&[("tags", "x,y")], &["a"]),
            (&[("build_type", "fastmcp,external")], &["a"]),
            (&[("required", "false")], &["b", "c"]),
            (&[("enabled", "false")], &["c"]),
            (&[("status", "disabled")], &["c"]),
            (&[("text", "files READS")], &["b"]),
            (&[("tag", "z")], &[]),
        ];
        for (pairs, expected) in cases {
            let query = Query::from_pairs(pairs.iter().copied()).expect("valid");
            let page = subject.registry.find(&query).await.expect("a page");
            let found: Vec<&str> = page.items.iter().map(crate::ServiceReport::name).collect();
            assert_eq!(found, expected, "{pairs:?}");
        }
    }

    /// A reader's own record, sent back, changes nothing; a changed one keeps
    /// identities and the secrets that the reader was not shown.
    an_update_keeps_identity_and_secrets(subject) {
        let mut spec = service("a", &[&subject.sim.instance("one")]);
        spec.env.insert("TOKEN".into(), crate::Sensitive::secret("hunter2"));
        register(subject, spec).await;
        let before = subject.registry.get("a").await.expect("found");
        let text = serde_json::to_value(&before).expect("serialises");
        assert!(!text.to_string().contains("hunter2"), "a secret was shown");
        let same = ServiceSpec::from_value(text.clone()).expect("reads back");
        subject.registry.apply(vec![Mutation::Put(same)]).await.expect("no change");
        assert_eq!(subject.registry.get("a").await.expect("found").revision, before.revision);
        let mut changed = text;
        changed["title"] = "A".into();
        let changed = ServiceSpec::from_value(changed).expect("reads back");
        let update = Mutation::Update { name: name("a"), spec: changed, expected: Some(before.revision) };
        subject.registry.apply(vec![update]).await.expect("updates");
        let after = subject.registry.get("a").await.expect("found");
        assert_eq!(after.id, before.id);
        assert_eq!(after.declared["instances"][0]["id"], before.declared["instances"][0]["id"]);
        assert_eq!(after.declared["env"]["TOKEN"], crate::Sensitive::MASK);
    }

    /// An update from an older revision is refused.
    a_stale_update_is_a_conflict(subject) {
        register(subject, service("a", &[])).await;
        let seen = subject.registry.get("a").await.expect("found").revision;
        let mut other = service("a", &[]);
        other.title = Some("other".into());
        subject.registry.apply(vec![Mutation::Put(other)]).await.expect("updates");
        let stale = Mutation::Update { name: name("a"), spec: service("a", &[]), expected: Some(seen) };
        assert_eq!(subject.registry.apply(vec![stale]).await.expect_err("stale").kind(), ErrorKind::Conflict);
    }

    /// Of mutations together, all are applied or none.
    all_or_nothing(subject) {
        let mutations = vec![
            Mutation::Register(service("a", &[])),
            Mutation::Deregister { name: name("missing"), expected: None },
        ];
        let error = subject.registry.apply(mutations).await.expect_err("one cannot be");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(subject.registry.get("a").await.expect_err("not there").kind(), ErrorKind::NotFound);
    }

    /// What was deregistered cannot be read, found or called.
    what_is_deregistered_is_gone(subject) {
        register(subject, service("a", &[&subject.sim.instance("one")])).await;
        settle(&subject.registry, "a", Status::Healthy).await;
        subject.registry.apply(vec![Mutation::Deregister { name: name("a"), expected: None }]).await.expect("goes");
        assert_eq!(subject.registry.get("a").await.expect_err("gone").kind(), ErrorKind::NotFound);
        assert!(subject.registry.find_tools("echo", 5).await.expect("searches").is_empty());
        let called = subject.registry.call(&call("a", "echo", json!({})), &CallOptions::default()).await;
        assert_eq!(called.expect_err("gone").kind(), ErrorKind::NotFound);
    }

    /// What does not exist is not found, and a near miss is pointed out.
    unknown_services_and_tools_are_not_found(subject) {
        let instance = subject.sim.instance("one");
        register(subject, service("a", &[&instance])).await;
        settle(&subject.registry, "a", Status::Healthy).await;
        let options = CallOptions::default();
        let error = subject.registry.call(&call("b", "echo", json!({})), &options).await.expect_err("no service");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = subject.registry.call(&call("a", "ech", json!({})), &options).await.expect_err("no tool");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("did you mean echo"), "{error}");
        assert_eq!(subject.sim.executions(&instance), 0);
        assert_eq!(subject.registry.tool("a", "ech").await.expect_err("no tool").kind(), ErrorKind::NotFound);
    }

    /// Tools are listed with their whole definition, in pages, and found by words.
    tools_are_listed_and_found(subject) {
        for service_name in ["a", "b"] {
            register(subject, service(service_name, &[&subject.sim.instance(service_name)])).await;
            settle(&subject.registry, service_name, Status::Healthy).await;
        }
        let mut query = ToolQuery { limit: Some(3), ..ToolQuery::default() };
        let first = subject.registry.tools(&query).await.expect("a page");
        query.cursor = first.next_cursor.clone();
        let second = subject.registry.tools(&query).await.expect("a page");
        let tools: Vec<_> = first.items.iter().chain(&second.items).collect();
        let names: Vec<_> = tools.iter().map(|tool| format!("{}/{}", tool.service, tool.definition["name"])).collect();
        assert_eq!(names, [r#"a/"echo""#, r#"a/"add""#, r#"b/"echo""#, r#"b/"add""#]);
        assert_eq!(tools[0].definition["x-unknown"].to_string(), r#"{"b":1,"a":2}"#, "word for word");
        assert!(second.next_cursor.is_none());
        let found = subject.registry.find_tools("repeat a text", 1).await.expect("searches");
        assert_eq!(found[0].definition["name"], "echo");
        assert_eq!(subject.registry.find_tools(" ", 1).await.expect_err("empty").kind(), ErrorKind::Invalid);
    }

    /// A call is carried out, once, and the answer comes back word for word.
    a_call_reaches_an_instance(subject) {
        let instance = subject.sim.instance("one");
        register(subject, service("a", &[&instance])).await;
        settle(&subject.registry, "a", Status::Healthy).await;
        let report = subject.registry.call(&call("a", "echo", json!({"text": "hi"})), &CallOptions::default()).await;
        let report = report.expect("answers");
        assert!(report.result.text().contains("\"hi\""));
        assert_eq!(report.result.0["x-unknown"], 1);
        assert_eq!(subject.sim.executions(&instance), 1);
    }

    /// A tool that says it failed has answered.
    a_tool_error_is_an_answer(subject) {
        let instance = subject.sim.instance("one");
        register(subject, service("a", &[&instance])).await;
        settle(&subject.registry, "a", Status::Healthy).await;
        let report = subject.registry.call(&call("a", "add", json!({"fail": true})), &CallOptions::default()).await;
        assert!(report.expect("answers").result.is_error());
        assert_eq!(subject.sim.executions(&instance), 1);
    }

    /// What was never sent goes to the next instance, whatever the tool.
    a_refusing_instance_is_passed_over(subject) {
        let (dead, alive) = (subject.sim.instance("dead"), subject.sim.instance("alive"));
        register(subject, service("a", &[&dead, &alive])).await;
        settle(&subject.registry, "a", Status::Healthy).await;
        subject.sim.set(&dead, Behaviour::Refuse);
        for _ in 0..4 {
            let report = subject.registry.call(&call("a", "add", json!({})), &CallOptions::default()).await;
            assert!(report.expect("answers").result.text().contains("alive"));
        }
        assert_eq!(subject.sim.executions(&alive), 4);
    }

    /// A call that may have been executed is not repeated, and that is said.
    an_unknown_outcome_is_said_and_not_repeated(subject) {
        let instances = [subject.sim.instance("one"), subject.sim.instance("two")];
        register(subject, service("a", &[&instances[0], &instances[1]])).await;
        settle(&subject.registry, "a", Status::Healthy).await;
        instances.iter().for_each(|instance| subject.sim.set(instance, Behaviour::LoseAnswers));
        let error = subject.registry.call(&call("a", "add", json!({})), &CallOptions::default()).await;
        let error = error.expect_err("lost");
        assert_eq!(error.kind(), ErrorKind::Lost);
        assert_eq!(error.context().outcome, Some(Outcome::Unknown));
        assert_eq!(error.context().attempts, Some(1));
        assert_eq!(instances.iter().map(|instance| subject.sim.executions(instance)).sum::<u64>(), 1);
    }

    /// Every instance is explained, and one would be picked.
    explain_names_every_instance(subject) {
        let instances = [subject.sim.instance("one"), subject.sim.instance("two")];
        register(subject, service("a", &[&instances[0], &instances[1]])).await;
        settle(&subject.registry, "a", Status::Healthy).await;
        let explanation = subject.registry.explain("a", Some("echo")).await.expect("explains");
        assert_eq!(explanation.candidates.len(), 2);
        assert_eq!(explanation.candidates.iter().filter(|candidate| candidate.picked).count(), 1);
        assert!(!explanation.repeatable && explanation.repeatable_reason.contains("trust_annotations"));
        assert_eq!(subject.registry.explain("b", None).await.expect_err("none").kind(), ErrorKind::NotFound);
    }

    /// A group is made once, read back with what it selects, replaced and removed.
    groups_are_made_read_and_removed(subject) {
        let registry = &subject.registry;
        register(subject, service("a", &[&subject.sim.instance("one")])).await;
        settle(registry, "a", Status::Healthy).await;
        let spec = |value| GroupSpec::from_value(value).expect("valid");
        let members = json!([{"service": "a", "tools": ["ec*"]}, {"service": "b"}]);
        let made = registry.put_group(spec(json!({"name": "g", "members": members})), None, true).await.expect("made");
        assert_eq!((made.missing.as_slice(), made.tool_count), ([name("b")].as_slice(), 1));
        let again = registry.put_group(spec(json!({"name": "g"})), None, true).await;
        assert_eq!(again.expect_err("taken").kind(), ErrorKind::Conflict);
        let titled = json!({"name": "g", "title": "G", "members": members});
        let put = registry.put_group(spec(titled), Some(made.revision), false).await.expect("replaced");
        assert_eq!((&put.declared.title, put.created_at), (&Some("G".to_owned()), made.created_at));
        let stale = registry.put_group(spec(json!({"name": "g"})), Some(made.revision), false).await;
        assert_eq!(stale.expect_err("stale").kind(), ErrorKind::Conflict);
        let mut wrong = spec(json!({"name": "h"}));
        wrong.title = Some("x".repeat(201));
        let error = registry.put_group(wrong, None, false).await.expect_err("invalid");
        assert_eq!(error.context().problems[0].field, "title");
        registry.put_group(spec(json!({"name": "h"})), None, false).await.expect("made");
        let names: Vec<_> = registry.groups().await.expect("listed").into_iter().map(|group| group.declared.name).collect();
        assert_eq!(names.iter().map(crate::GroupName::as_str).collect::<Vec<_>>(), ["g", "h"]);
        assert_eq!(registry.group("g").await.expect("found"), put);
        let stale = registry.remove_group("g", Some(made.revision)).await;
        assert_eq!(stale.expect_err("stale").kind(), ErrorKind::Conflict);
        let gone = registry.remove_group("g", Some(put.revision)).await.expect("removed");
        assert!(gone > put.revision);
        assert_eq!(registry.group("g").await.expect_err("gone").kind(), ErrorKind::NotFound);
        assert_eq!(registry.remove_group("g", None).await.expect_err("gone").kind(), ErrorKind::NotFound);
    }

    /// The health of each instance is told, with a reason.
    health_is_told_per_instance(subject) {
        let (good, bad) = (subject.sim.instance("good"), subject.sim.instance("bad"));
        subject.sim.set(&bad, Behaviour::Unauthorised);
        register(subject, service("a", &[&good, &bad])).await;
        settle(&subject.registry, "a", Status::Degraded).await;
        let mut health = subject.registry.health("a").await.expect("told");
        // One answer is enough to make the whole degraded: the other may be yet to come.
        for _ in 0..1000 {
            if health.instances.iter().all(|instance| instance.status != Status::Unknown) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            health = subject.registry.health("a").await.expect("told");
        }
        assert_eq!(health.instances[0].status, Status::Healthy);
        assert_eq!(health.instances[1].status, Status::Degraded, "alive, and wants credentials");
        assert!(health.instances[1].health.reason.message.contains("credentials"));
    }
}
