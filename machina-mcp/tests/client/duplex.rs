//! The connectors over WebSockets and HTTP + SSE: against our own server, and
//! against bare ones that misbehave.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use machina_core::testing::SimConnector;
use machina_core::{
    CallContext, Connector, Endpoint, Era, ErrorKind, HttpEndpoint, Instance, Machina, Notice, Principal, Reach,
    Result, Role, ServiceSpec, Session, Target, Tasks,
};
use machina_mcp::client::{Environment, HttpConfig, SseConnector, WebSocketConnector};
use machina_mcp::server::{HttpServerConfig, StreamableHttp, ToolMode, streamable_http};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

use crate::ports;

const PATIENCE: Duration = Duration::from_secs(10);

fn environment() -> Environment {
    Environment::new([("TOKEN".to_owned(), "hunter2".to_owned())])
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn target(instance: Instance, era: Option<Era>) -> Target {
    let service = "fixture".parse().unwrap();
    let (timeout, reach) = (Duration::from_secs(5), Reach::inside());
    Target { service, instance, env: BTreeMap::new(), era, timeout, reach }
}

async fn over_websocket(url: &str, era: Option<Era>) -> Result<Arc<dyn Session>> {
    let spec = json!({"name": "x", "instances": [{"websocket": {"url": url}}]});
    let instance = ServiceSpec::parse(&spec.to_string()).unwrap().instances.remove(0);
    WebSocketConnector::new(HttpConfig::default(), environment()).unwrap().connect(&target(instance, era)).await
}

async fn over_sse(url: &str) -> Result<Arc<dyn Session>> {
    let instance = Instance::new(Endpoint::Sse(HttpEndpoint::new(url)));
    SseConnector::new(HttpConfig::default(), environment()).unwrap().connect(&target(instance, None)).await
}

async fn call(session: &Arc<dyn Session>, tool: &str) -> Result<Value> {
    let arguments = Map::from_iter([("text".to_owned(), json!("hi"))]);
    let result = session.call(tool, &arguments, &CallContext::within(Duration::from_secs(5))).await?;
    Ok(Value::Object(result.0))
}

async fn notice(session: &Arc<dyn Session>) -> Notice {
    timeout(PATIENCE, session.notice()).await.expect("the session gives notice")
}

/// Our own server in front of one simulated service.
struct Served {
    endpoint: StreamableHttp,
    sims: SimConnector,
    instance: Instance,
    url: String,
    tasks: Tasks,
}

impl Served {
    async fn open() -> Self {
        let sims = SimConnector::default();
        let machina = Machina::builder().connector(Arc::new(sims.clone())).open().await.unwrap();
        let instance = sims.instance("sim");
        let spec = ServiceSpec::parse(r#"{"name": "sim"}"#).unwrap();
        machina.register(spec.instance(instance.clone())).await.unwrap();
        let known = async {
            while machina.get("sim").unwrap().tools().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, known).await.unwrap();
        let config = HttpServerConfig { mode: ToolMode::Flat, ..HttpServerConfig::default() };
        let endpoint = streamable_http(move |_| Ok(machina.scoped(Principal::new("p", Role::Developer))), config);
        let router = axum::Router::new().route_service("/mcp/ws", endpoint.web_socket());
        let (listener, address) = listener().await;
        let tasks = Tasks::new();
        tasks.spawn("serve", async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, sims, instance, url: format!("ws://{address}/mcp/ws"), tasks }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

#[tokio::test]
async fn our_own_server_is_reached_in_both_eras_tells_of_changes_and_of_its_end() {
    let served = Served::open().await;
    for (era, version) in [(None, "2026-07-28"), (Some(Era::Modern), "2026-07-28"), (Some(Era::Legacy), "2025-11-25")] {
        let session = over_websocket(&served.url, era).await.unwrap();
        assert_eq!(session.protocol_version(), version);
        let definitions = session.definitions().await.unwrap();
        let name = definitions.tools[0].name().to_string();
        assert!(name.starts_with("sim__"), "{name}");
        assert!(call(&session, &name).await.unwrap()["content"].is_array());
        assert_eq!(call(&session, "gone").await.unwrap_err().kind(), ErrorKind::Rejected);
        session.probe(Duration::from_secs(5)).await.unwrap();
        session.close().await;
        assert!(session.is_closed());
        assert_eq!(call(&session, &name).await.unwrap_err().kind(), ErrorKind::Unreachable);
    }
    let session = over_websocket(&served.url, None).await.unwrap();
    // Once subscribed, a change is told.
    let told = async {
        for round in 0.. {
            let tool = json!({"name": format!("t-{round}"), "inputSchema": {"type": "object"}});
            served.sims.set_tools(&served.instance, vec![tool]);
            if let Ok(notice) = timeout(Duration::from_millis(500), session.notice()).await {
                return notice;
            }
        }
        unreachable!()
    };
    assert!(matches!(timeout(PATIENCE, told).await.unwrap(), Notice::DefinitionsChanged));
    assert!(served.endpoint.drain(Duration::from_secs(5)).await);
    let closed = async {
        loop {
            if let Notice::Closed(error) = notice(&session).await {
                return error;
            }
        }
    };
    let error = timeout(PATIENCE, closed).await.unwrap();
    assert!(error.message().contains("1012") && error.context().hard, "it says that it is about to be gone: {error}");
}

#[tokio::test]
async fn a_websocket_that_cannot_be_opened_says_why() {
    let (_port, address) = ports::closed().await;
    let error = over_websocket(&format!("ws://{address}/"), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    let (listener, address) = listener().await;
    let tasks = Tasks::new();
    tasks.spawn("serve", async move { axum::serve(listener, axum::Router::new()).await.unwrap() });
    let error = over_websocket(&format!("ws://{address}/"), None).await.unwrap_err();
    assert_eq!((error.kind(), error.context().upstream_status), (ErrorKind::Rejected, Some(404)), "{error}");
    tasks.cancel();
}

/// A WebSocket server of the older era that hangs up at a question it does not
/// know, and in the middle of the tool `break_off`.
async fn choosy(tasks: &Tasks) -> String {
    let (listener, address) = listener().await;
    tasks.spawn("serve", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = accept_async(stream).await.unwrap();
            while let Some(Ok(Message::Text(text))) = socket.next().await {
                let request: Value = serde_json::from_str(&text).unwrap();
                let result = match request["method"].as_str().unwrap() {
                    "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}),
                    "tools/call" if request["params"]["name"] == "echo" => json!({"content": []}),
                    method if method.starts_with("notifications/") => continue,
                    _ => break,
                };
                let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
                let news = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
                socket.send(Message::text(news.to_string())).await.unwrap();
                socket.send(Message::text(answer.to_string())).await.unwrap();
            }
        }
    });
    format!("ws://{address}/")
}

#[tokio::test]
async fn a_server_that_hangs_up_at_the_question_for_its_era_is_asked_the_older_way() {
    let tasks = Tasks::new();
    let session = over_websocket(&choosy(&tasks).await, None).await.unwrap();
    assert_eq!(session.protocol_version(), "2025-11-25");
    assert_eq!(call(&session, "echo").await.unwrap()["content"], json!([]));
    let error = call(&session, "break_off").await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Lost, Some(machina_core::Phase::MaybeExecuted)));
    assert_eq!(call(&session, "echo").await.unwrap_err().kind(), ErrorKind::Unreachable, "nothing was sent");
    tasks.cancel();
}

type Lines = Arc<std::sync::Mutex<Option<mpsc::Sender<String>>>>;

/// A server of HTTP + SSE that names `post_to` as its address.
async fn of_2024(tasks: &Tasks, post_to: &'static str) -> String {
    let lines = Lines::default();
    let stream = async move |State(lines): State<Lines>| {
        let (sender, receiver) = mpsc::channel::<String>(16);
        sender.send(format!("event: endpoint\ndata: {post_to}\n\n")).await.unwrap();
        *lines.lock().unwrap() = Some(sender);
        let events = futures_util::stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|event| (Ok::<_, Infallible>(event), receiver))
        });
        Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(events)).unwrap()
    };
    let post = async |State(lines): State<Lines>, body: Bytes| {
        let status = |status: u16| Response::builder().status(status).body(Body::empty()).unwrap();
        let request: Value = serde_json::from_slice(&body).unwrap();
        let result = match (request["method"].as_str().unwrap(), request["params"]["name"].as_str()) {
            ("initialize", _) => json!({"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}}),
            ("tools/list", _) => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
            ("tools/call", Some("refuse")) => return status(429),
            ("tools/call", Some("end")) => {
                lines.lock().unwrap().take();
                return status(202);
            }
            ("tools/call", _) => json!({"content": [], "x-more": 1}),
            _ => return status(202),
        };
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        let sender = lines.lock().unwrap().clone().unwrap();
        sender.send(format!("event: message\ndata: {answer}\n\n")).await.unwrap();
        status(202)
    };
    let router = axum::Router::new().route("/sse", get(stream).post(post)).with_state(lines);
    let (listener, address) = listener().await;
    tasks.spawn("serve", async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/sse")
}

#[tokio::test]
async fn a_server_of_2024_is_reached_and_its_failures_are_told_for_what_they_are() {
    let tasks = Tasks::new();
    let session = over_sse(&of_2024(&tasks, "/sse?session=1").await).await.unwrap();
    assert_eq!(session.protocol_version(), "2024-11-05");
    assert_eq!(session.definitions().await.unwrap().tools[0].name().as_str(), "echo");
    assert_eq!(call(&session, "echo").await.unwrap()["x-more"], 1);
    let error = call(&session, "refuse").await.unwrap_err();
    assert_eq!((error.kind(), error.context().upstream_status), (ErrorKind::Overloaded, Some(429)), "{error}");
    let error = call(&session, "end").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lost, "{error}");
    assert!(matches!(notice(&session).await, Notice::Closed(_)));
    tasks.cancel();
}

#[tokio::test]
async fn an_address_elsewhere_is_not_posted_to() {
    let tasks = Tasks::new();
    for post_to in ["http://evil.example/sse", "//evil.example/", "http://"] {
        let error = over_sse(&of_2024(&tasks, post_to).await).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{post_to}: {error}");
    }
    let url = of_2024(&tasks, "/sse").await.replace("/sse", "/none");
    let error = over_sse(&url).await.unwrap_err();
    assert_eq!((error.kind(), error.context().upstream_status), (ErrorKind::Rejected, Some(404)), "{error}");
    tasks.cancel();
}
