//! What a function may do wrong, and what that does to others.

use super::*;
use crate::write::Mutation;

#[tokio::test]
async fn a_panic_harms_no_other_call() {
    let (machina, _) = offering([add(), panics()]).await;
    for _ in 0..3 {
        let error = ask(&machina, "panics", json!({"x": 1})).await.unwrap_err();
        assert_eq!((error.kind(), error.context().outcome), (ErrorKind::Internal, Some(Outcome::Unknown)));
        assert!(error.message().contains("`panics` panicked") && !error.message().contains("canary"), "{error}");
    }
    assert_eq!(ask(&machina, "panics", json!({})).await.unwrap().result.text(), "fine");
    assert!(ask(&machina, "add", json!({"a": 1, "b": 1})).await.is_ok());
    assert_eq!(state(&machina), HealthState::Healthy);
    machina.close().await;
}

#[tokio::test]
async fn a_blocking_function_may_panic_too() {
    let blocking = NativeTool::blocking("blocks", json!({"type": "object"}), |arguments: Arguments, _| {
        assert!(arguments.is_empty(), "not empty");
        Ok::<_, String>("done")
    });
    let (machina, _) = offering([blocking.executions_max(1)]).await;
    let error = ask(&machina, "blocks", json!({"x": 1})).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    assert_eq!(ask(&machina, "blocks", json!({})).await.unwrap().result.text(), "done");
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_function_that_never_answers_is_given_up_and_dropped() {
    let counter = Counter::default();
    let (machina, _) = offering([stuck(&counter).executions_max(1), add()]).await;
    for round in 1..=3 {
        let began = Instant::now();
        let error = machina.call(&call("math", "stuck", json!({})), &within(200)).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Timeout, Duration::from_millis(200)), "{error}");
        tokio::task::yield_now().await;
        assert_eq!((counter.begun(), counter.over()), (round, round));
    }
    assert!(ask(&machina, "add", json!({"a": 1, "b": 1})).await.is_ok());
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn so_many_run_at_once_and_the_others_wait() {
    let counter = Counter::default();
    let (machina, _) = offering([stuck(&counter).executions_max(2)]).await;
    let calls = (0..3).map(|_| {
        let machina = machina.clone();
        async move { machina.call(&call("math", "stuck", json!({})), &within(1000)).await.unwrap_err() }
    });
    let mut calls = tokio::task::JoinSet::from_iter(calls);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(counter.begun(), 2);
    machina.check("math").await.unwrap();
    let seen = reason(&machina);
    assert_eq!(seen.code, ReasonCode::Degraded);
    assert!(seen.message.contains("2 executions of `stuck` run"), "{seen:?}");
    let mut kinds = Vec::new();
    while let Some(error) = calls.join_next().await {
        kinds.push(error.unwrap().kind());
    }
    kinds.sort_by_key(|kind| kind.code());
    assert!(counter.begun() <= 3 && counter.over() == counter.begun(), "{counter:?}");
    assert!(kinds.contains(&ErrorKind::Timeout), "{kinds:?}");
    machina.close().await;
}

#[tokio::test]
async fn a_blocking_function_that_never_returns_holds_its_place_and_nothing_else() {
    let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
    let held = Mutex::new(held);
    let blocking = NativeTool::blocking("blocks", json!({"type": "object"}), move |_: Arguments, context| {
        // An error means that the test is over.
        let _ = held.lock().unwrap().recv();
        Ok::<_, String>(json!(context.cancelled.is_cancelled()))
    });
    let (machina, _) = offering([blocking.executions_max(1), add()]).await;
    let asked = call("math", "blocks", json!({}));
    assert_eq!(machina.call(&asked, &within(100)).await.unwrap_err().kind(), ErrorKind::Timeout);
    let busy = machina.call(&asked, &within(100)).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Overloaded, "{busy}");
    assert_eq!(busy.context().outcome, Some(Outcome::NotExecuted));
    assert!(ask(&machina, "add", json!({"a": 1, "b": 1})).await.is_ok());
    drop(release);
    let answered = machina.call(&asked, &within(10_000)).await.unwrap();
    assert_eq!(answered.result.text(), "false");
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_on_elsewhere_keeps_its_place_until_it_is_over() {
    struct Elsewhere(Mutex<Vec<Place>>);
    #[async_trait::async_trait]
    impl NativeFunction for Arc<Elsewhere> {
        async fn call(&self, _: Arguments, _: CallContext, place: Place) -> Result<ToolResult> {
            self.0.lock().unwrap().push(place);
            std::future::pending().await
        }
    }
    let elsewhere = Arc::new(Elsewhere(Mutex::default()));
    let definition = json!({"name": "elsewhere", "inputSchema": {"type": "object"}});
    let tool = NativeTool::from_definition(definition, Arc::new(Arc::clone(&elsewhere)));
    let (machina, _) = offering([tool.executions_max(1), add()]).await;
    let asked = call("math", "elsewhere", json!({}));
    assert_eq!(machina.call(&asked, &within(200)).await.unwrap_err().kind(), ErrorKind::Timeout);
    let busy = machina.call(&asked, &within(200)).await.unwrap_err();
    assert_eq!((busy.kind(), busy.context().outcome), (ErrorKind::Overloaded, Some(Outcome::NotExecuted)), "{busy}");
    assert!(ask(&machina, "add", json!({"a": 1, "b": 1})).await.is_ok());
    elsewhere.0.lock().unwrap().clear();
    assert_eq!(machina.call(&asked, &within(200)).await.unwrap_err().kind(), ErrorKind::Timeout);
    machina.close().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_execution() {
    let counter = Counter::default();
    let (machina, _) = offering([stuck(&counter)]).await;
    let options = CallOptions::default();
    let asked = call("math", "stuck", json!({}));
    let gone = tokio::time::timeout(Duration::from_millis(50), machina.call(&asked, &options)).await;
    assert!(gone.is_err());
    until("the future is dropped", || counter.over() == 1).await;

    let cancelled = options.cancelled.clone();
    let (outcome, ()) = tokio::join!(machina.call(&asked, &options), async {
        until("it runs", || counter.begun() == 2).await;
        cancelled.cancel();
    });
    assert_eq!(outcome.unwrap_err().message(), "the caller cancelled the call");
    until("the future is dropped", || counter.over() == 2).await;
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_and_silence_is_noticed() {
    let slow = NativeTool::new("slow", json!({"type": "object"}), |_: Arguments, context: CallContext| async move {
        let tell = context.progress.unwrap();
        for step in 1..=3 {
            tokio::time::sleep(Duration::from_secs(4)).await;
            tell(Progress { progress: f64::from(step), total: Some(3.0), message: None });
        }
        tokio::time::sleep(Duration::from_secs(100)).await;
        Ok::<_, String>(())
    });
    let (machina, native) = offering([slow]).await;
    let spec = r#"{"name": "math", "routing_policy": {"idle_timeout": "5s", "timeout": "50s"}}"#;
    native.register_as(ServiceSpec::parse(spec).unwrap()).await.unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&told);
    let options = CallOptions {
        progress: Some(Arc::new(move |progress: Progress| {
            heard.store(progress.progress.to_bits(), std::sync::atomic::Ordering::SeqCst);
        })),
        ..CallOptions::default()
    };
    let began = Instant::now();
    let error = machina.call(&call("math", "slow", json!({})), &options).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Timeout, "no sign of progress"));
    assert_eq!(began.elapsed(), Duration::from_secs(17));
    assert_eq!(f64::from_bits(told.load(std::sync::atomic::Ordering::SeqCst)), 3.0);
    machina.close().await;
}

#[tokio::test]
async fn calls_that_run_may_end_when_functions_are_withdrawn() {
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    let tool = NativeTool::new("waits", json!({"type": "object"}), move |_: Arguments, _| {
        let waits = Arc::clone(&waits);
        async move {
            waits.notified().await;
            Ok::<_, String>("done")
        }
    });
    let (machina, native) = offering([tool]).await;
    let (asked, options) = (call("math", "waits", json!({})), CallOptions::default());
    let (answer, ()) = tokio::join!(machina.call(&asked, &options), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        native.withdraw().await;
        go.notify_one();
    });
    assert_eq!(answer.unwrap().result.text(), "done");
    machina.close().await;
}

#[tokio::test]
async fn nothing_runs_after_the_registry_was_closed() {
    let counter = Counter::default();
    let (machina, _) = offering([stuck(&counter)]).await;
    let (asked, options) = (call("math", "stuck", json!({})), within(60_000));
    let began = Instant::now();
    let (outcome, ()) = tokio::join!(machina.call(&asked, &options), async {
        until("it runs", || counter.begun() == 1).await;
        machina.close().await;
    });
    assert!(matches!(outcome.unwrap_err().kind(), ErrorKind::Lost | ErrorKind::Unavailable));
    assert_eq!(counter.over(), 1);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_close_answers_callers_of_a_thread_that_runs_on_and_those_who_wait_for_its_place() {
    let counter = Counter::default();
    let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
    let (held, running) = (Mutex::new(held), counter.clone());
    let blocking = NativeTool::blocking("blocks", json!({"type": "object"}), move |_: Arguments, context| {
        let _running = running.begin();
        // An error means that the test is over.
        let _ = held.lock().unwrap().recv();
        assert!(context.cancelled.is_cancelled(), "it is told");
        Ok::<_, String>(())
    });
    let (machina, _) = offering([blocking.executions_max(1)]).await;
    let (asked, options) = (call("math", "blocks", json!({})), within(60_000));
    let began = Instant::now();
    let waits = async {
        until("the place is taken", || counter.begun() == 1).await;
        machina.call(&asked, &options).await
    };
    let (ran, waited, ()) = tokio::join!(machina.call(&asked, &options), waits, async {
        until("the place is taken", || counter.begun() == 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        machina.close().await;
    });
    let (ran, waited) = (ran.unwrap_err(), waited.unwrap_err());
    assert_eq!((ran.kind(), ran.context().outcome), (ErrorKind::Lost, Some(Outcome::Unknown)), "{ran}");
    assert_eq!((waited.kind(), waited.context().outcome), (ErrorKind::Unavailable, Some(Outcome::NotExecuted)));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!((counter.begun(), counter.over()), (1, 0), "the thread cannot be stopped");
    drop(release);
    until("the thread ends by itself", || counter.over() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_place_goes_elsewhere_when_its_instance_is_removed() {
    let (sim, counter) = (SimConnector::default(), Counter::default());
    let machina = Machina::builder().connector(Arc::new(sim.clone())).open().await.unwrap();
    let native = machina.native("math").unwrap();
    native.put(stuck(&counter).with("name", json!("echo")).executions_max(1)).unwrap();
    let far = sim.instance("far");
    sim.set(&far, Behaviour::Killed);
    native.register_as(ServiceSpec::new("math").unwrap().instance(far.clone())).await.unwrap();
    let (asked, options) = (call("math", "echo", json!({})), within(60_000));
    let waits = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        machina.call(&asked, &options).await
    };
    let (ran, waited, ()) = tokio::join!(machina.call(&asked, &options), waits, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(counter.begun(), 1);
        sim.set(&far, Behaviour::Up);
        let alone = ServiceSpec::new("math").unwrap().instance(far.clone());
        machina.apply(vec![Mutation::Put(alone)]).await.unwrap();
    });
    assert_eq!(ran.unwrap_err().kind(), ErrorKind::Lost);
    assert!(is_remote(&machina, &waited.unwrap()));
    assert_eq!((counter.begun(), counter.over()), (1, 1), "it never began here");
    machina.close().await;
}

/// Hands each call over to nobody: says whether it runs in a task, panics, declines,
/// fails, or waits.
struct Handing {
    over: bool,
    counter: Counter,
}

#[async_trait::async_trait]
impl NativeFunction for Handing {
    async fn call(&self, arguments: Arguments, _: CallContext, _: Place) -> Result<ToolResult> {
        let _running = self.counter.begin();
        match arguments.get("how").and_then(Value::as_str) {
            Some("waits") => std::future::pending().await,
            Some("panics") => panic!("canary"),
            Some("declines") => Err(Error::overloaded("too far behind").at(Phase::Refused)),
            Some("fails") => Err(Error::unavailable("no such account")),
            _ => Ok(json!(tokio::task::try_id().is_some()).into()),
        }
    }

    fn hands_over(&self) -> bool {
        self.over
    }
}

#[tokio::test]
async fn what_hands_over_needs_no_task_and_ends_as_if_it_had_one() {
    for over in [true, false] {
        let (counter, definition) = (Counter::default(), json!({"name": "own", "inputSchema": {"type": "object"}}));
        let function = Arc::new(Handing { over, counter: counter.clone() });
        let (machina, _) = offering([NativeTool::from_definition(definition, function)]).await;
        assert_eq!(ask(&machina, "own", json!({})).await.unwrap().result.text(), if over { "false" } else { "true" });
        let panicked = ask(&machina, "own", json!({"how": "panics"})).await.unwrap_err();
        assert_eq!(panicked.kind(), ErrorKind::Internal, "{panicked}");
        assert!(panicked.message().contains("`own` panicked"), "{panicked}");
        let waits = call("math", "own", json!({"how": "waits"}));
        assert_eq!(machina.call(&waits, &within(50)).await.unwrap_err().kind(), ErrorKind::Timeout);
        until("the future is dropped", || counter.over() == 3).await;
        let options = within(60_000);
        let (outcome, ()) = tokio::join!(machina.call(&waits, &options), async {
            until("it runs", || counter.begun() == 4).await;
            machina.close().await;
        });
        assert!(matches!(outcome.unwrap_err().kind(), ErrorKind::Lost | ErrorKind::Unavailable));
        assert_eq!(counter.over(), 4);
    }
}

/// Whether another instance than that of the functions answered.
fn is_remote(machina: &Machina, report: &CallReport) -> bool {
    let view = machina.get("math").unwrap();
    view.instances().any(|(instance, _)| instance.id == report.instance && instance.endpoint != Endpoint::InProcess)
}

/// An `echo` that is handed over, or is not, beside no other instance.
async fn echoing(sim: &SimConnector, over: bool) -> (Machina, NativeService) {
    let machina = Machina::builder().connector(Arc::new(sim.clone())).open().await.unwrap();
    let native = machina.native("math").unwrap();
    let function = Arc::new(Handing { over, counter: Counter::default() });
    native.put(NativeTool::from_definition(json!({"name": "echo", "inputSchema": {}}), function)).unwrap();
    native.register().await.unwrap();
    (machina, native)
}

#[tokio::test]
async fn what_keeps_a_call_from_being_handed_over_is_no_answer() {
    for over in [true, false] {
        let (machina, _) = echoing(&SimConnector::default(), over).await;
        let own = ask(&machina, "echo", json!({"how": "fails"})).await.unwrap().result;
        assert!(own.is_error() && own.text() == "no such account", "{own:?}");
        match ask(&machina, "echo", json!({"how": "declines"})).await {
            Err(declined) => {
                assert_eq!((declined.kind(), declined.message()), (ErrorKind::Overloaded, "too far behind"));
                assert_eq!((declined.context().outcome, over), (Some(Outcome::NotExecuted), true));
            }
            Ok(own) => {
                assert_eq!((own.result.text().as_str(), own.result.is_error()), ("too far behind", true));
                assert!(!over, "what runs in a task speaks for itself");
            }
        }
        machina.close().await;
    }
}

#[tokio::test]
async fn what_was_not_handed_over_goes_to_another_instance() {
    let sim = SimConnector::default();
    let (machina, native) = echoing(&sim, true).await;
    let spec = ServiceSpec::parse(r#"{"name": "math", "routing_policy": {"balancer": "round_robin"}}"#).unwrap();
    native.register_as(spec.instance(sim.instance("far"))).await.unwrap();
    until("both are up", || machina.get("math").unwrap().status() == Status::Healthy).await;
    let mut attempts = 0;
    for _ in 0..4 {
        let report = ask(&machina, "echo", json!({"how": "declines"})).await.unwrap();
        assert!(is_remote(&machina, &report), "{report:?}");
        attempts += report.attempts.len();
    }
    assert!(attempts > 4, "none was for the function at first");
    machina.close().await;
}
