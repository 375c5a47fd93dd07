use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::*;
use crate::connect::{CallContext, Progress};
use crate::error::{ErrorKind, Outcome};
use crate::event::{EventKind, Next};
use crate::health::{HealthState, Status};
use crate::machina::Machina;
use crate::memory::MemoryStore;
use crate::model::{Instance, ServiceSpec, ToolCall, ToolResult};
use crate::replies::MemoryReplies;
use crate::route::{CallOptions, CallReport};
use crate::store::Backend;
use crate::testing::registry_suite::call;
use crate::testing::{Behaviour, SimConnector};

type Arguments = Map<String, Value>;

/// Counts executions, and whether they were dropped before their end.
#[derive(Debug, Clone, Default)]
struct Counter(Arc<(AtomicUsize, AtomicUsize)>);

impl Counter {
    fn begin(&self) -> Dropped {
        self.0.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Dropped(self.clone())
    }

    fn begun(&self) -> usize {
        self.0.0.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn over(&self) -> usize {
        self.0.1.load(std::sync::atomic::Ordering::SeqCst)
    }
}

struct Dropped(Counter);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.0.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

fn add() -> NativeTool {
    let schema = json!({"type": "object", "required": ["a", "b"],
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}});
    #[derive(serde::Deserialize)]
    struct Add {
        a: i64,
        b: i64,
    }
    NativeTool::new("add", schema, |Add { a, b }: Add, _: CallContext| async move {
        if a == 13 { Err("13 brings bad luck") } else { Ok(json!({"sum": a + b})) }
    })
    .description("Adds two numbers.")
    .title("Add")
    .output_schema(json!({"type": "object"}))
    .read_only()
    .idempotent()
}

/// A tool that never answers.
fn stuck(counter: &Counter) -> NativeTool {
    let counter = counter.clone();
    NativeTool::new("stuck", json!({"type": "object"}), move |_: Arguments, _: CallContext| {
        let running = counter.begin();
        async move {
            std::future::pending::<()>().await;
            drop(running);
            Ok::<_, String>(())
        }
    })
}

fn panics() -> NativeTool {
    NativeTool::new("panics", json!({"type": "object"}), |arguments: Arguments, _: CallContext| async move {
        assert!(arguments.is_empty(), "the reason, with canary-7f3a in it");
        Ok::<_, String>(json!("fine"))
    })
}

async fn offering(tools: impl IntoIterator<Item = NativeTool>) -> (Machina, NativeService) {
    let machina = Machina::builder().open().await.unwrap();
    let native = machina.native("math").unwrap();
    tools.into_iter().for_each(|tool| native.put(tool).unwrap());
    native.register().await.unwrap();
    (machina, native)
}

async fn ask(machina: &Machina, tool: &str, arguments: Value) -> Result<CallReport> {
    machina.call(&call("math", tool, arguments), &CallOptions::default()).await
}

fn within(millis: u64) -> CallOptions {
    CallOptions { timeout: Some(Duration::from_millis(millis)), ..CallOptions::default() }
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn state(machina: &Machina) -> HealthState {
    machina.get("math").unwrap().instances().next().unwrap().1.health.state
}

fn reason(machina: &Machina) -> Reason {
    machina.get("math").unwrap().instances().next().unwrap().1.health.reason.clone()
}

mod running;

#[tokio::test]
async fn a_function_is_a_tool_like_any_other() {
    let (machina, native) = offering([add()]).await;
    let view = machina.get("math").unwrap();
    assert_eq!((view.status(), state(&machina)), (Status::Healthy, HealthState::Healthy));
    let tool = &view.tool("add").unwrap().tool;
    assert_eq!((tool.title(), tool.description()), (Some("Add"), "Adds two numbers."));
    assert!(tool.hints().read_only && tool.hints().idempotent && tool.definition()["outputSchema"].is_object());
    assert_eq!(native.tools()[0].hash(), tool.hash());
    assert_eq!(machina.find_tools("adds numbers", 1).await.unwrap()[0].service.as_str(), "math");

    let report = ask(&machina, "add", json!({"a": 2, "b": 3})).await.unwrap();
    assert_eq!(report.result.0["structuredContent"], json!({"sum": 5}));
    assert_eq!((report.attempts.len(), report.result.is_error()), (1, false));

    let wrong = ask(&machina, "add", json!({"a": "x", "b": 3})).await.unwrap_err();
    assert_eq!((wrong.kind(), wrong.context().outcome), (ErrorKind::Invalid, Some(Outcome::NotExecuted)));
    assert_eq!(wrong.context().problems[0].field, "arguments.a");
    let missing = ask(&machina, "subtract", json!({})).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);

    let failed = ask(&machina, "add", json!({"a": 13, "b": 0})).await.unwrap();
    assert!(failed.result.is_error() && failed.result.text() == "13 brings bad luck", "{failed:?}");

    let counted = machina.get("math").unwrap().statistics();
    assert_eq!((counted.calls.count, counted.calls.tool_errors), (3, 1), "{counted:?}");
    machina.close().await;
}

#[tokio::test]
async fn arguments_are_checked_also_where_the_service_does_not_ask_for_it() {
    let (machina, native) = offering([add()]).await;
    let spec = r#"{"name": "math", "routing_policy": {"validate_arguments": false}}"#;
    native.register_as(ServiceSpec::parse(spec).unwrap()).await.unwrap();
    let wrong = ask(&machina, "add", json!({"a": 1})).await.unwrap_err();
    assert_eq!((wrong.kind(), wrong.context().problems[0].field.as_str()), (ErrorKind::Invalid, "arguments.b"));
    machina.close().await;
}

#[tokio::test]
async fn arguments_that_do_not_fit_the_type_are_named() {
    let loose =
        NativeTool::new("loose", json!({"type": "object"}), |(): (), _: CallContext| async { Ok::<_, String>(()) });
    let (machina, _) = offering([loose]).await;
    let report = ask(&machina, "loose", json!({"a": 1})).await.unwrap();
    assert!(report.result.is_error() && report.result.text().starts_with("arguments: invalid type"), "{report:?}");
    machina.close().await;
}

#[tokio::test]
async fn tools_come_and_go_while_it_runs() {
    let (machina, native) = offering([add()]).await;
    let mut events = machina.watch();
    native.put(panics()).unwrap();
    until("the new tool is known", || machina.get("math").unwrap().tool("panics").is_some()).await;
    assert!(native.remove("add") && !native.remove("add"));
    until("the old tool is gone", || machina.get("math").unwrap().tool("add").is_none()).await;
    let mut told = Vec::new();
    while let Some(next) = events.try_next() {
        let Next::Event(event) = next else { panic!("a gap") };
        if let EventKind::DefinitionsChanged { added, removed, .. } = &event.kind {
            told.extend(
                added.iter().map(|name| format!("+{name}")).chain(removed.iter().map(|name| format!("-{name}"))),
            );
        }
    }
    assert_eq!(told, ["+panics", "-add"]);
    // Another function under the same name takes the place of the first.
    let other =
        NativeTool::new("panics", json!({"type": "object"}), |_: Arguments, _| async { Ok::<_, String>("no more") });
    native.put(other.description("Does not.")).unwrap();
    native.register().await.unwrap();
    assert_eq!(ask(&machina, "panics", json!({"x": 1})).await.unwrap().result.text(), "no more");
    assert_eq!(machina.get("math").unwrap().tool("panics").unwrap().tool.description(), "Does not.");
    machina.close().await;
}

#[tokio::test]
async fn what_is_no_tool_is_refused_with_the_field() {
    let machina = Machina::builder().open().await.unwrap();
    let native = machina.native("math").unwrap();
    let nothing = |name: &str, schema| NativeTool::new(name, schema, |_: Arguments, _| async { Ok::<_, String>(()) });
    for (tool, field) in [
        (nothing("", json!({})), "tool"),
        (nothing("t", json!("x")), "inputSchema"),
        (nothing("t", json!({})).output_schema(json!(1)), "outputSchema"),
        (nothing("t", json!({})).executions_max(0), "executions_max"),
        (nothing("t", json!({})).executions_max(10_001), "executions_max"),
    ] {
        let error = native.put(tool).unwrap_err();
        assert_eq!((error.kind(), error.context().problems[0].field.as_str()), (ErrorKind::Invalid, field));
    }
    assert_eq!(machina.native("Not a name").unwrap_err().kind(), ErrorKind::Invalid);
    for number in 0..1000 {
        native.put(nothing(&format!("t{number}"), json!({"type": "object"}))).unwrap();
    }
    let full = native.put(nothing("more", json!({"type": "object"}))).unwrap_err();
    assert_eq!((full.kind(), native.tools().len()), (ErrorKind::Overloaded, 1000));
    native.put(nothing("t7", json!({"type": "object"}))).unwrap();
    let wrong = native.register_as(ServiceSpec::new("other").unwrap()).await.unwrap_err();
    assert_eq!(wrong.context().problems[0].field, "name");
    machina.close().await;
}

#[tokio::test]
async fn what_was_declared_stays_and_what_is_said_anew_counts() {
    let machina = Machina::builder().open().await.unwrap();
    let spec = r#"{"name": "math", "description": "Of the operator.", "tags": ["kept"],
        "instances": [{"http": {"url": "http://127.0.0.1:9/mcp"}}]}"#;
    machina.register(ServiceSpec::parse(spec).unwrap()).await.unwrap();
    let native = machina.native("math").unwrap();
    native.put(add()).unwrap();
    let view = native.register().await.unwrap();
    assert_eq!(view.service().spec.description, "Of the operator.");
    let kinds: Vec<_> = view.instances().map(|(instance, _)| instance.endpoint.kind()).collect();
    assert_eq!(kinds, ["http", "in_process"]);
    let again = native.register().await.unwrap();
    assert_eq!(again.service().revision, view.service().revision, "nothing changed");

    let spec = r#"{"name": "math", "description": "Of the program."}"#;
    let view = native.register_as(ServiceSpec::parse(spec).unwrap()).await.unwrap();
    assert_eq!((view.service().spec.description.as_str(), view.instances().len()), ("Of the program.", 1));
    assert!(ask(&machina, "add", json!({"a": 1, "b": 1})).await.is_ok());
    machina.close().await;
}

#[tokio::test]
async fn functions_that_are_not_here_are_said_to_be_elsewhere() {
    let machina = Machina::builder().open().await.unwrap();
    machina.register(ServiceSpec::new("math").unwrap().instance(Instance::new(Endpoint::InProcess))).await.unwrap();
    until("it was looked for", || reason(&machina).code == ReasonCode::Elsewhere).await;
    assert_eq!((state(&machina), machina.get("math").unwrap().status()), (HealthState::Unknown, Status::Unknown));
    assert!(reason(&machina).message.contains("native(\"math\")"), "{:?}", reason(&machina));
    assert!(machina.get("math").unwrap().is_settled(crate::model::StartPolicy::Eager));

    let began = Instant::now();
    let error = ask(&machina, "add", json!({})).await.unwrap_err();
    assert_eq!((error.kind(), error.context().outcome), (ErrorKind::Unavailable, Some(Outcome::NotExecuted)));
    assert!(error.message().contains("native(\"math\")") && began.elapsed() < Duration::from_secs(2), "{error}");
    let explained = machina.explain("math", None).await.unwrap();
    assert!(explained.candidates[0].reason.contains("are functions of a program"), "{explained:?}");

    // Attached later, without a word to the registry.
    let native = machina.native("math").unwrap();
    native.put(add()).unwrap();
    until("it is found", || state(&machina) == HealthState::Healthy).await;
    until("its tools are known", || machina.get("math").unwrap().tool("add").is_some()).await;
    assert!(ask(&machina, "add", json!({"a": 1, "b": 1})).await.is_ok());

    native.withdraw().await;
    assert_eq!((state(&machina), reason(&machina).code), (HealthState::Unknown, ReasonCode::Elsewhere));
    assert!(machina.get("math").unwrap().tool("add").is_some(), "the last that is known stays");
    let error = ask(&machina, "add", json!({"a": 1, "b": 1})).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(native.tools().is_empty());
    native.put(add()).unwrap();
    native.register().await.unwrap();
    assert!(ask(&machina, "add", json!({"a": 1, "b": 1})).await.is_ok());
    machina.close().await;
}

#[tokio::test]
async fn another_process_on_the_same_store_knows_the_tools_and_holds_no_one_for_dead() {
    let store = Backend::of(MemoryStore::new());
    let open = || async { Machina::builder().backend(store.clone()).open().await.unwrap() };
    let (here, there) = (open().await, open().await);
    let native = here.native("math").unwrap();
    native.put(add()).unwrap();
    native.register().await.unwrap();
    until("the other knows of it", || there.get("math").is_some_and(|view| view.tool("add").is_some())).await;
    there.check("math").await.unwrap();
    assert_eq!((state(&there), reason(&there).code), (HealthState::Unknown, ReasonCode::Elsewhere));
    assert_eq!(state(&here), HealthState::Healthy);
    assert_eq!(ask(&there, "add", json!({"a": 1, "b": 1})).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(ask(&here, "add", json!({"a": 1, "b": 1})).await.is_ok());
    // The same program, started once more.
    let again = there.native("math").unwrap();
    again.put(add()).unwrap();
    again.register().await.unwrap();
    assert!(ask(&there, "add", json!({"a": 1, "b": 1})).await.is_ok());
    assert_eq!(there.get("math").unwrap().instances().len(), 1);
    there.close().await;
    here.close().await;
}

#[tokio::test(start_paused = true)]
async fn replicas_that_share_leases_each_judge_their_own_functions() {
    let store = Arc::new(MemoryStore::new());
    let backend = Backend {
        store: store.clone(),
        journal: store.clone(),
        replies: Arc::new(MemoryReplies::new()),
        leases: Some(store),
        scratch: None,
    };
    let open = || async { Machina::builder().backend(backend.clone()).open().await.unwrap() };
    let replicas = [open().await, open().await];
    let functions = replicas[0].native("math").unwrap();
    functions.put(add()).unwrap();
    functions.register().await.unwrap();
    // Far beyond what it takes to hand shards over, and to tell others of health.
    tokio::time::sleep(Duration::from_secs(200)).await;
    let seen = |replica: &Machina| (state(replica), reason(replica).code);
    assert_eq!(seen(&replicas[0]), (HealthState::Healthy, ReasonCode::Passed));
    assert_eq!(seen(&replicas[1]), (HealthState::Unknown, ReasonCode::Elsewhere));
    assert!(replicas[1].get("math").unwrap().tool("add").is_some());

    let functions = replicas[1].native("math").unwrap();
    functions.put(add()).unwrap();
    replicas[0].native("math").unwrap().withdraw().await;
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(seen(&replicas[0]), (HealthState::Unknown, ReasonCode::Elsewhere));
    assert_eq!(seen(&replicas[1]), (HealthState::Healthy, ReasonCode::Passed));
    assert!(ask(&replicas[1], "add", json!({"a": 1, "b": 1})).await.is_ok());
    replicas[0].close().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(seen(&replicas[1]), (HealthState::Healthy, ReasonCode::Passed));
    replicas[1].close().await;
}

#[tokio::test]
async fn a_native_instance_is_one_of_several() {
    let sim = SimConnector::default();
    let machina = Machina::builder().connector(Arc::new(sim.clone())).open().await.unwrap();
    let native = machina.native("math").unwrap();
    let echo =
        NativeTool::new("echo", json!({"type": "object"}), |_: Arguments, _| async { Ok::<_, String>("native") });
    native.put(echo).unwrap();
    let remote = sim.instance("far");
    let spec = ServiceSpec::parse(r#"{"name": "math", "routing_policy": {"balancer": "round_robin"}}"#).unwrap();
    native.register_as(spec.instance(remote.clone())).await.unwrap();
    until("both are up", || machina.get("math").unwrap().status() == Status::Healthy).await;
    let natively = || async {
        let mut natively = 0;
        for _ in 0..10 {
            natively += usize::from(ask(&machina, "echo", json!({})).await.unwrap().result.text() == "native");
        }
        natively
    };
    assert!((3..=7).contains(&natively().await), "{}", natively().await);
    sim.set(&remote, Behaviour::Killed);
    assert_eq!(natively().await, 10);
    sim.set(&remote, Behaviour::Up);
    native.withdraw().await;
    assert_eq!(natively().await, 0);
    machina.close().await;
}

#[tokio::test]
async fn a_connector_of_the_programs_own_comes_first() {
    #[derive(Debug)]
    struct Own;
    #[async_trait::async_trait]
    impl crate::Connector for Own {
        fn handles(&self, endpoint: &Endpoint) -> bool {
            matches!(endpoint, Endpoint::InProcess)
        }
        async fn connect(&self, _: &crate::Target) -> Result<Arc<dyn crate::Session>> {
            Err(Error::unreachable("its own").at(Phase::NotSent))
        }
    }
    let machina = Machina::builder().connector(Arc::new(Own)).open().await.unwrap();
    machina.register(ServiceSpec::new("math").unwrap().instance(Instance::new(Endpoint::InProcess))).await.unwrap();
    let asked: ToolCall = call("math", "add", json!({}));
    assert_eq!(machina.call(&asked, &within(300)).await.unwrap_err().message(), "its own");
    let refused = machina.native("math").unwrap().put(add()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    machina.close().await;
}

#[tokio::test]
async fn hosts_of_other_languages_bring_whole_definitions() {
    struct Host;
    #[async_trait::async_trait]
    impl NativeFunction for Host {
        async fn call(&self, arguments: Arguments, _: CallContext, _: Place) -> Result<ToolResult> {
            match arguments.get("word").and_then(Value::as_str) {
                Some(word) => Ok(ToolResult::of_text(word.to_uppercase())),
                None => Err(Error::invalid("there is no word")),
            }
        }
    }
    let definition = json!({"name": "shout", "inputSchema": {"type": "object"}, "_meta": {"x": 1}});
    let (machina, _) = offering([NativeTool::from_definition(definition.clone(), Arc::new(Host))]).await;
    assert_eq!(machina.get("math").unwrap().tool("shout").unwrap().tool.definition(), definition);
    assert_eq!(ask(&machina, "shout", json!({"word": "ho"})).await.unwrap().result.text(), "HO");
    let failed = ask(&machina, "shout", json!({})).await.unwrap().result;
    assert!(failed.is_error() && failed.text() == "there is no word", "{failed:?}");
    machina.close().await;
}
