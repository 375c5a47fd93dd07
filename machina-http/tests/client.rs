//! The client behaves as the registry itself does, and says what went wrong on
//! the way there and back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use machina_core::testing::Behaviour;
use machina_core::testing::registry_suite::{Subject, call, service, settle};
use machina_core::{
    CallOptions, Endpoint, Error, ErrorKind, Mutation, Outcome, Phase, Query, Registry as _, Router as _, Status,
};
use machina_http::Client;
use serde_json::json;
use support::{Server, ports};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A client, and the server that it talks to.
#[derive(Debug)]
struct Remote {
    client: Client,
    _server: Server,
}

mod behaves_as_the_registry_does {
    use async_trait::async_trait;
    use machina_core::{
        Applied, CallOptions, CallReport, EventStream, Explanation, GroupReport, GroupSpec, Mutation, Page, Query,
        Registry, Result, Revision, Router, ServiceHealth, ServiceReport, ToolCall, ToolPage, ToolQuery, ToolReport,
    };

    use super::{Remote, Server, Subject};

    #[async_trait]
    impl Registry for Remote {
        async fn apply(&self, mutations: Vec<Mutation>) -> Result<Applied> {
            self.client.apply(mutations).await
        }
        async fn get(&self, name: &str) -> Result<ServiceReport> {
            self.client.get(name).await
        }
        async fn find(&self, query: &Query) -> Result<Page<ServiceReport>> {
            self.client.find(query).await
        }
        async fn tools(&self, query: &ToolQuery) -> Result<ToolPage> {
            self.client.tools(query).await
        }
        async fn tool(&self, service: &str, tool: &str) -> Result<ToolReport> {
            self.client.tool(service, tool).await
        }
        async fn find_tools(&self, text: &str, limit: usize) -> Result<Vec<ToolReport>> {
            self.client.find_tools(text, limit).await
        }
        async fn health(&self, name: &str) -> Result<ServiceHealth> {
            self.client.health(name).await
        }
        async fn watch(&self, since: Option<Revision>) -> Result<EventStream> {
            self.client.watch(since).await
        }
        async fn groups(&self) -> Result<Vec<GroupReport>> {
            self.client.groups().await
        }
        async fn group(&self, name: &str) -> Result<GroupReport> {
            self.client.group(name).await
        }
        async fn put_group(&self, spec: GroupSpec, at: Option<Revision>, create_only: bool) -> Result<GroupReport> {
            self.client.put_group(spec, at, create_only).await
        }
        async fn remove_group(&self, name: &str, expected: Option<Revision>) -> Result<Revision> {
            self.client.remove_group(name, expected).await
        }
    }

    #[async_trait]
    impl Router for Remote {
        async fn explain(&self, service: &str, tool: Option<&str>) -> Result<Explanation> {
            self.client.explain(service, tool).await
        }
        async fn call(&self, call: &ToolCall, options: &CallOptions) -> Result<CallReport> {
            self.client.call(call, options).await
        }
    }

    machina_core::registry_suite!({
        let server = Server::start().await;
        Subject { sim: server.sim.clone(), registry: Remote { client: server.client(), _server: server } }
    });
}

#[tokio::test]
async fn secrets_reach_the_server_and_do_not_come_back() {
    let server = Server::start().await;
    let mut spec = service("a", &[&server.sim.instance("one")]);
    let Endpoint::Http(http) = &mut spec.instances[0].endpoint else { panic!("simulated instances are HTTP") };
    http.headers.insert("Authorization".into(), machina_core::Sensitive::secret("Bearer hunter2"));
    let applied = server.client().apply(vec![Mutation::Put(spec)]).await.unwrap();
    assert!(!serde_json::to_string(&applied.services).unwrap().contains("hunter2"));
    let view = server.machina.get("a").unwrap();
    let Endpoint::Http(http) = &view.service().spec.instances[0].endpoint else { panic!("it was HTTP") };
    assert_eq!(http.headers["Authorization"].expose(), "Bearer hunter2");
}

#[tokio::test]
async fn the_report_of_a_call_comes_over_whole() {
    let server = Server::start().await;
    let (dead, alive) = (server.sim.instance("dead"), server.sim.instance("alive"));
    let client = server.client();
    client.apply(vec![Mutation::Register(service("a", &[&dead, &alive]))]).await.unwrap();
    settle(&client, "a", Status::Healthy).await;
    server.sim.set(&dead, Behaviour::Refuse);
    let mut failed_over = false;
    for _ in 0..8 {
        let report = client.call(&call("a", "add", json!({})), &CallOptions::default()).await.unwrap();
        assert!(!report.result.0.contains_key("_meta"), "the result is the instance's own");
        assert_eq!(report.attempts.last().unwrap().instance, report.instance);
        assert!(report.duration_ms > 0.0);
        if let [first, _] = report.attempts.as_slice() {
            assert_eq!((first.error, first.phase), (Some(ErrorKind::Unreachable), Some(Phase::NotSent)));
            failed_over = true;
        }
    }
    assert!(failed_over, "no call met the dead instance");
}

#[tokio::test]
async fn errors_keep_their_context() {
    let server = Server::start().await;
    let client = server.client();
    let cases = [
        (Behaviour::Busy, ErrorKind::Overloaded, Outcome::NotExecuted),
        (Behaviour::Reject, ErrorKind::Rejected, Outcome::Executed),
        (Behaviour::LoseAnswers, ErrorKind::Lost, Outcome::Unknown),
        (Behaviour::Refuse, ErrorKind::Unreachable, Outcome::NotExecuted),
    ];
    for (number, (behaviour, kind, outcome)) in cases.into_iter().enumerate() {
        let name = format!("s{number}");
        let instance = server.sim.instance(&name);
        client.apply(vec![Mutation::Register(service(&name, &[&instance]))]).await.unwrap();
        settle(&client, &name, Status::Healthy).await;
        server.sim.set(&instance, behaviour);
        let options = CallOptions::default();
        let here = server.machina.call(&call(&name, "add", json!({})), &options).await.unwrap_err();
        let there = client.call(&call(&name, "add", json!({})), &options).await.unwrap_err();
        assert_eq!((there.kind(), there.context().outcome), (kind, Some(outcome)), "{there:?}");
        assert_eq!(there.message(), here.message());
        // The attempts go into the journal, and into no answer.
        assert!(there.context().tried.is_empty() && !here.context().tried.is_empty(), "{here:?}");
        let plain = |error: &Error| {
            let mut context = error.context().clone();
            context.instance = None;
            context.tried.clear();
            context
        };
        assert_eq!(plain(&there), plain(&here), "{behaviour:?}");
    }
}

#[tokio::test]
async fn calls_of_one_affinity_go_to_one_instance() {
    let server = Server::start().await;
    let instances: Vec<_> = (0..4).map(|number| server.sim.instance(&format!("i{number}"))).collect();
    let client = server.client();
    client.apply(vec![Mutation::Register(service("a", &instances.iter().collect::<Vec<_>>()))]).await.unwrap();
    settle(&client, "a", Status::Healthy).await;
    let answering = async |key: &str| {
        let options = CallOptions { affinity_key: Some(key.to_owned()), ..CallOptions::default() };
        client.call(&call("a", "echo", json!({"text": "x"})), &options).await.map(|report| report.instance)
    };
    let mut all = std::collections::BTreeSet::new();
    for key in 0..20 {
        let home = answering(&format!("session {key}")).await.unwrap();
        for _ in 0..3 {
            assert_eq!(answering(&format!("session {key}")).await.unwrap(), home);
        }
        all.insert(home);
    }
    assert!(all.len() > 1, "keys are spread");
    let wrong = answering("").await.unwrap_err();
    assert_eq!((wrong.kind(), wrong.context().problems[0].field.as_str()), (ErrorKind::Invalid, "affinity_key"));
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_instance() {
    let server = Server::start().await;
    let instance = server.sim.instance("slow");
    let client = server.client();
    client.apply(vec![Mutation::Register(service("a", &[&instance]))]).await.unwrap();
    settle(&client, "a", Status::Healthy).await;
    server.sim.set_latency(&instance, Duration::from_secs(60));
    let options = CallOptions::default();
    let cancelled = options.cancelled.clone();
    let request = call("a", "add", json!({}));
    let cancel = async {
        while server.sim.executions(&instance) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancelled.cancel();
    };
    let (outcome, ()) = tokio::join!(client.call(&request, &options), cancel);
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), error.context().outcome), (ErrorKind::Timeout, Some(Outcome::Unknown)));
    for _ in 0..500 {
        if server.sim.cancellations(&instance) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the instance was not told that the call was cancelled");
}

#[tokio::test]
async fn a_deadline_is_kept_by_the_server() {
    let server = Server::start().await;
    let instance = server.sim.instance("slow");
    let client = server.client();
    client.apply(vec![Mutation::Register(service("a", &[&instance]))]).await.unwrap();
    settle(&client, "a", Status::Healthy).await;
    server.sim.set_latency(&instance, Duration::from_secs(60));
    let options = CallOptions { timeout: Some(Duration::from_millis(80)), ..CallOptions::default() };
    let error = client.call(&call("a", "add", json!({})), &options).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Timeout, Some(Phase::MaybeExecuted)));
    assert_eq!(server.sim.cancellations(&instance), 1);
}

#[tokio::test]
async fn an_absent_server_is_unreachable() {
    let closed = ports::closed();
    let url = format!("http://{}", closed.local_addr().unwrap());
    let error = Client::new(&url).unwrap().get("a").await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Unreachable, Some(Phase::NotSent)));
    assert!(error.message().contains(&url), "{error}");
}

/// A server that answers every connection with this text and hangs up.
async fn answering(text: &'static str) -> (Client, machina_core::Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let tasks = machina_core::Tasks::new();
    let answer = async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(text.as_bytes()).await;
        }
    };
    drop(tasks.spawn("answer", answer));
    (client, tasks)
}

#[tokio::test]
async fn what_is_no_answer_of_machina_is_said_to_be_none() {
    let cases = [
        ("", ErrorKind::Lost, Phase::MaybeExecuted, None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", ErrorKind::Lost, Phase::MaybeExecuted, None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", ErrorKind::Rejected, Phase::Answered, Some(200)),
        ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nhi", ErrorKind::Rejected, Phase::Answered, Some(502)),
        (
            "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            ErrorKind::Rejected,
            Phase::Answered,
            Some(302),
        ),
    ];
    for (text, kind, phase, status) in cases {
        let (client, _tasks) = answering(text).await;
        let error = client.call(&call("a", "b", json!({})), &CallOptions::default()).await.unwrap_err();
        let context = error.context();
        assert_eq!((error.kind(), context.phase, context.upstream_status), (kind, Some(phase), status), "{text}");
        assert_eq!(context.service.as_deref(), Some("a"));
    }
}

#[tokio::test]
async fn names_are_never_taken_for_paths() {
    let server = Server::start().await;
    let client = server.client();
    server.register(json!({"name": "known"})).await;
    for name in ["", ".", "..", "known/health", "known?x", "a b", "ä", "%2e%2e", "known#x"] {
        assert_eq!(client.get(name).await.unwrap_err().kind(), ErrorKind::NotFound, "{name}");
    }
}

#[tokio::test]
async fn a_nested_api_is_reached_through_its_path() {
    use machina_http::{ServerConfig, router, serve};
    let machina = machina_core::Machina::builder().open().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let nested = axum::Router::new().nest("/registry", router(machina.clone(), &ServerConfig::default()));
    let tasks = machina_core::Tasks::new();
    drop(tasks.spawn("serve", async move {
        serve(listener, nested, &ServerConfig::default(), std::future::pending()).await.unwrap()
    }));
    for base in [format!("http://{address}/registry"), format!("http://{address}/registry/")] {
        let client = Client::new(&base).unwrap();
        client.apply(vec![Mutation::Put(service("a", &[]))]).await.unwrap();
        assert_eq!(client.find(&Query::default()).await.unwrap().items.len(), 1);
        assert_eq!(client.overview().await.unwrap().services, 1);
    }
    tasks.cancel();
    machina.close().await;
}
