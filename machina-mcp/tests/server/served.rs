//! An endpoint as an HTTP server mounts it, and what a host that sees every header
//! sends to it.

use std::ops::Deref;
use std::time::Duration;

use crate::host::{Client, Host};
use crate::upstream::{PATIENCE, Registered, tools};
use machina_core::{Endpoint, Error, Instance, Machina, Principal, Role, ServiceSpec, Tasks};
use machina_mcp::server::{HttpServerConfig, StreamableHttp, streamable_http};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
use rmcp::transport::StreamableHttpClientTransport;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// An endpoint at `/mcp` of an axum server.
pub(crate) struct Mounted {
    pub(crate) endpoint: StreamableHttp,
    pub(crate) address: String,
    tasks: Tasks,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

/// The same in front of the fixture.
pub(crate) struct Served {
    pub(crate) registered: Registered,
    mounted: Mounted,
}

impl Deref for Served {
    type Target = Mounted;

    fn deref(&self) -> &Mounted {
        &self.mounted
    }
}

pub(crate) async fn serve(config: HttpServerConfig) -> Served {
    let registered = Registered::open().await;
    let mounted = mount(registered.machina.clone(), config).await;
    Served { registered, mounted }
}

pub(crate) async fn mount(machina: Machina, config: HttpServerConfig) -> Mounted {
    let admit = move |parts: &http::request::Parts| match parts.headers.get("x-user").map(|user| user.to_str()) {
        None => Ok(machina.scoped(Principal::new("mcp", Role::Developer))),
        Some(Ok("nobody")) => Err(Error::unauthenticated("say who you are")),
        Some(Ok("acme")) => Ok(machina.scoped(Principal::new("acme", Role::Developer).of_tenant("acme"))),
        Some(user) => Ok(machina.scoped(Principal::new(user.unwrap(), Role::Developer))),
    };
    let endpoint = streamable_http(admit, config);
    let groups = endpoint.of_groups();
    let router = axum::Router::new()
        .route_service("/mcp", endpoint.clone())
        .route_service("/mcp/ws", endpoint.web_socket())
        .route_service("/mcp/{group}/ws", groups.web_socket())
        .route_service("/mcp/{group}", groups);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tasks = Tasks::new();
    tasks.spawn("serve", async move { axum::serve(listener, router).await.unwrap() });
    Mounted { endpoint, address, tasks }
}

impl Served {
    /// Registers one more service with the tools of the fixture.
    pub(crate) async fn register(&self, name: &str) {
        let spec = ServiceSpec::parse(&json!({"name": name}).to_string()).unwrap();
        self.registered.machina.register(spec.instance(Instance::new(Endpoint::InProcess))).await.unwrap();
    }

    /// Waits until the tools of this service are known.
    pub(crate) async fn until_known(&self, name: &str) {
        let known = async {
            while self.registered.machina.get(name).unwrap().tools().len() < tools().len() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, known).await.expect("its tools are known");
    }
}

impl Mounted {
    pub(crate) async fn client(&self, mode: ClientLifecycleMode) -> Client {
        let transport = StreamableHttpClientTransport::from_uri(format!("http://{}/mcp", self.address));
        timeout(PATIENCE, Host::default().serve_with_lifecycle(transport, mode)).await.unwrap().unwrap()
    }

    /// The stream of a session.
    pub(crate) async fn stream(&self, headers: &[(&str, &str)]) -> Stream {
        let mut request = reqwest::Client::new().get(format!("http://{}/mcp", self.address));
        if headers.iter().all(|(name, _)| *name != "accept") {
            request = request.header("accept", "text/event-stream");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Stream::new(timeout(PATIENCE, request.send()).await.unwrap().unwrap())
    }

    /// A POST with these headers beside the usual ones.
    pub(crate) async fn post(&self, headers: &[(&str, &str)], body: &Value) -> reqwest::Response {
        let usual = [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        let mut all = http::HeaderMap::new();
        for (name, value) in usual.iter().chain(headers) {
            all.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let request = reqwest::Client::new().post(format!("http://{}/mcp", self.address)).headers(all);
        timeout(PATIENCE, request.body(body.to_string()).send()).await.unwrap().unwrap()
    }

    pub(crate) async fn status(&self, headers: &[(&str, &str)], body: &Value) -> u16 {
        self.post(headers, body).await.status().as_u16()
    }

    /// A session of the older era.
    pub(crate) async fn session(&self, user: &str) -> String {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bare"}});
        let response = self.post(&[("x-user", user)], &request("initialize", params)).await;
        assert_eq!(response.status(), 200);
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }
}

pub(crate) fn request(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

pub(crate) fn calling(tool: &str, more: Value) -> Value {
    let mut params = json!({"name": "call_tool", "arguments": {"service": "fixture", "tool": tool}});
    for (key, value) in more.as_object().unwrap() {
        params[key] = value.clone();
    }
    request("tools/call", params)
}

pub(crate) const MODERN: [(&str, &str); 3] =
    [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "call_tool")];

/// The messages of a finished stream of events.
pub(crate) fn events(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

/// A stream of events that is read one by one.
pub(crate) struct Stream {
    pub(crate) response: reqwest::Response,
    text: String,
}

impl Stream {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        Self { response, text: String::new() }
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The next message; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let message = events(event).pop();
                self.text = rest.to_owned();
                if message.is_some() {
                    return message;
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("the stream says something").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The method of the next message.
    pub(crate) async fn method(&mut self) -> String {
        self.next().await.expect("the stream goes on")["method"].as_str().unwrap().to_owned()
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        timeout(Duration::from_millis(400), self.next()).await.is_err()
    }
}
