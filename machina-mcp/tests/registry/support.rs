//! A registry that is served, and a hand-made one that says what a test wants.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;
use machina_core::{Error, Machina, Principal, Role, ServiceSpec, Tasks};
use machina_mcp::registry::{RegistryConfig, registry_api};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(crate) const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";

/// A server at an address of its own.
pub(crate) struct Served {
    pub(crate) url: String,
    tasks: Tasks,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

pub(crate) async fn serve(router: Router) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let tasks = Tasks::new();
    tasks.spawn("serve", async move { axum::serve(listener, router).await.unwrap() });
    Served { url, tasks }
}

pub(crate) async fn machina() -> Machina {
    Machina::builder().without_monitor().open().await.unwrap()
}

/// `machina` behind the registry API; the header `x-tenant` says who asks.
pub(crate) async fn registry(machina: &Machina, config: RegistryConfig) -> Served {
    let machina = machina.clone();
    let admit = move |parts: &http::request::Parts| match parts.headers.get("x-tenant").map(|tenant| tenant.to_str()) {
        None => Ok(machina.scoped(Principal::new("registry", Role::Viewer).remote())),
        Some(Ok("nobody")) => Err(Error::unauthenticated("say who you are")),
        Some(tenant) => Ok(machina.scoped(Principal::new("registry", Role::Viewer).of_tenant(tenant.unwrap()))),
    };
    let api = registry_api(admit, config);
    serve(Router::new().route_service("/v0.1/{*path}", api.clone()).route_service("/v0/{*path}", api)).await
}

pub(crate) async fn put(machina: &Machina, record: Value) {
    let spec = ServiceSpec::from_value(record).unwrap();
    machina.apply(vec![machina_core::Mutation::Put(spec)]).await.unwrap();
}

pub(crate) fn remote(name: &str, path: &str) -> Value {
    json!({"name": name, "description": "d", "version": "1.0.0",
           "instances": [{"http": {"url": format!("https://mcp.example/{path}")}}]})
}

/// An entry as a registry has it.
pub(crate) fn entry(name: &str, status: &str, updated_at: &str, rest: Value) -> Value {
    let mut server = json!({"name": name, "description": "d", "version": "1.0.0"});
    server.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    json!({"server": server, "_meta": {OFFICIAL: {"status": status, "updatedAt": updated_at, "isLatest": true}}})
}

/// The answers of a hand-made registry, each to one request, and what was asked.
#[derive(Clone, Default)]
pub(crate) struct Script(Arc<Mutex<(Vec<Response>, Vec<String>)>>);

impl Script {
    pub(crate) fn page(self, entries: Value, next: Option<&str>) -> Self {
        let page = json!({"servers": entries, "metadata": {"nextCursor": next, "count": 0}});
        self.answer(200, &[("content-type", "application/json")], page.to_string())
    }

    pub(crate) fn answer(self, status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Self {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        self.0.lock().unwrap().0.push(response.body(body.into()).unwrap());
        self
    }

    /// The queries that came.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }

    pub(crate) async fn serve(&self) -> Served {
        let script = self.clone();
        let answer = async move |request: Request| {
            let mut state = script.0.lock().unwrap();
            state.1.push(request.uri().query().unwrap_or_default().to_owned());
            if state.0.is_empty() {
                Response::builder().status(500).body(Body::empty()).unwrap()
            } else {
                state.0.remove(0)
            }
        };
        serve(Router::new().fallback(any(answer))).await
    }
}
