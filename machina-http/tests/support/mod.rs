//! A real server on a socket of this machine, and real requests to it.

#![allow(dead_code, reason = "each test binary uses a part of this")]

pub(crate) mod ports;

use axum::Router;
use machina_core::testing::SimConnector;
use machina_core::testing::registry_suite::settle;
use machina_core::{Config, EgressConfig, Instance, Machina, ServiceSpec, Status, Tasks};
use machina_http::{Client, Extensions, ServerConfig, router_with, serve};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A server with a registry in memory whose instances are simulated.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) machina: Machina,
    pub(crate) sim: SimConnector,
    http: reqwest::Client,
    tasks: Tasks,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

/// Lets services be in these networks that are registered over REST.
pub(crate) fn reaching(networks: &[&str]) -> Config {
    let allow = networks.iter().map(|network| network.parse().unwrap()).collect();
    Config { egress: EgressConfig { allow }, ..Config::default() }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(ServerConfig::default(), Config::default(), Router::new()).await
    }

    pub(crate) async fn with(config: ServerConfig, core: Config, extra: impl Into<Extensions>) -> Self {
        let sim = SimConnector::default();
        let machina = Machina::builder().config(core).connector(std::sync::Arc::new(sim.clone())).open().await.unwrap();
        Self::of(machina, sim, config, extra).await
    }

    /// A server of this registry, whose instances are those of `sim`.
    pub(crate) async fn of(
        machina: Machina,
        sim: SimConnector,
        config: ServerConfig,
        extra: impl Into<Extensions>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = router_with(machina.clone(), &config, extra);
        let tasks = Tasks::new();
        let serving = serve(listener, router, &config, std::future::pending());
        drop(tasks.spawn("serve", async move { serving.await.unwrap() }));
        Self { url, machina, sim, http: reqwest::Client::new(), tasks }
    }

    /// A server with the healthy service `clock`, and its instances.
    pub(crate) async fn with_clock<const N: usize>(instances: [&str; N]) -> (Self, [Instance; N]) {
        let server = Self::start().await;
        let instances = instances.map(|name| server.sim.instance(name));
        server.register(json!({"name": "clock", "tags": ["time"], "instances": instances.as_slice()})).await;
        settle(&server.machina, "clock", Status::Healthy).await;
        (server, instances)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url).unwrap()
    }

    /// Registers a service as the program itself would.
    pub(crate) async fn register(&self, spec: Value) {
        self.machina.register(ServiceSpec::from_value(spec).unwrap()).await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, &[], Some(&body.to_string())).await
    }

    /// Sends a request; a body is said to be JSON unless the headers say otherwise.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.body(body.to_owned());
            if !headers.iter().any(|(name, _)| *name == "content-type") {
                request = request.header("content-type", "application/json");
            }
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { status, headers, text, body }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The field that the first entry of `errors` names; empty where there is none.
    pub(crate) fn field(&self) -> &str {
        let first = &self.body["errors"][0];
        ["pointer", "parameter", "header"].iter().find_map(|key| first[*key].as_str()).unwrap_or_default()
    }

    /// Checks that this is a problem document that agrees with its status line.
    pub(crate) fn assert_problem(&self, what: &str, status: u16, code: &str) {
        assert_eq!(self.status, status, "{what}: {}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json", "{what}: {}", self.text);
        assert_eq!(self.body["status"], status, "{what}");
        assert_eq!(self.body["code"], code, "{what}: {}", self.text);
        assert_eq!(self.body["instance"], self.header("x-request-id"), "{what}");
        assert!(self.body["type"].as_str().unwrap().ends_with(&format!("errors.md#{code}")), "{what}");
        assert!(!self.body["title"].as_str().unwrap().is_empty(), "{what}");
        assert!(!self.body["detail"].as_str().unwrap().is_empty(), "{what}");
    }
}
