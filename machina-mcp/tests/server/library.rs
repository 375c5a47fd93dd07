//! Services that publish prompts, resources and templates, and say what they were
//! asked for: the parameters and the `_meta` that reached them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use machina_core::{
    CallContext, Connector, Definitions, Endpoint, Error, Instance, Machina, Notice, Phase, Principal, Result, Role,
    Scoped, ServiceSpec, Session, Target, Tasks, Tool, ToolResult, now,
};
use machina_mcp::server::{Exposure, ToolMode, ToolPrefix, serve_io};
use serde_json::{Map, Value, json};
use tokio::io::DuplexStream;
use tokio::sync::Notify;

use crate::host::{Bare, meta};
use crate::upstream::PATIENCE;

/// What a service publishes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf {
    pub(crate) tools: Vec<Value>,
    pub(crate) prompts: Vec<Value>,
    pub(crate) resources: Vec<Value>,
    pub(crate) templates: Vec<Value>,
    pub(crate) completes: bool,
}

pub(crate) fn tool(name: &str) -> Value {
    json!({"name": name, "description": format!("Does {name}."), "inputSchema": {"type": "object"}})
}

/// A prompt, with members that MCP does not know before and after its name.
pub(crate) fn prompt(name: &str) -> Value {
    json!({"x-first": {"z": 1, "a": 2}, "name": name, "description": "Asks.",
        "arguments": [{"name": "language", "required": true}], "x-last": true})
}

pub(crate) fn resource(uri: &str) -> Value {
    json!({"x-first": 1, "uri": uri, "name": "thing", "mimeType": "text/plain", "x-last": [true]})
}

pub(crate) fn template(uri: &str) -> Value {
    json!({"uriTemplate": uri, "name": "things", "x-last": null})
}

#[derive(Debug, Default)]
struct Shelves {
    published: Mutex<std::collections::HashMap<String, Shelf>>,
    changed: Notify,
    /// Nobody is let in yet.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Librarian(Arc<Shelves>);

#[derive(Debug)]
struct Desk {
    service: String,
    shelves: Arc<Shelves>,
}

#[async_trait]
impl Connector for Librarian {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::InProcess)
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        while self.0.closed.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Arc::new(Desk { service: target.service.to_string(), shelves: Arc::clone(&self.0) }))
    }
}

impl Desk {
    fn seen(&self, params: Value, context: &CallContext) -> Value {
        json!({"service": self.service, "params": params, "meta": context.meta})
    }
}

#[async_trait]
impl Session for Desk {
    fn protocol_version(&self) -> &'static str {
        "2025-11-25"
    }

    async fn definitions(&self) -> Result<Definitions> {
        let Shelf { tools, prompts, resources, templates, completes } =
            self.shelves.published.lock().unwrap().get(&self.service).cloned().unwrap_or_default();
        let capabilities =
            if completes { json!({"tools": {}, "completions": {}}) } else { json!({"tools": {}, "prompts": {}}) };
        Ok(Definitions {
            protocol_version: self.protocol_version().to_owned(),
            server_info: json!({"name": self.service}),
            instructions: None,
            capabilities,
            tools: tools.into_iter().map(|tool| Arc::new(Tool::parse(tool).unwrap())).collect(),
            rejected: Vec::new(),
            prompts,
            resources,
            resource_templates: templates,
            listed_at: now(),
        })
    }

    async fn call(&self, tool: &str, arguments: &Map<String, Value>, context: &CallContext) -> Result<ToolResult> {
        let result = match tool {
            "ask" => json!({"resultType": "input_required", "inputRequests": {}, "requestState": "s"}),
            "begin" => json!({"resultType": "task", "taskId": "t"}),
            "begin_older" => json!({"task": {"taskId": "t", "status": "working", "ttl": 1}}),
            "log" => {
                for (level, logger) in [("debug", "io"), ("warning", "io"), ("error", "disk")] {
                    let line = json!({"level": level, "logger": logger, "data": {"z": 1, "a": 2}});
                    context.log.iter().for_each(|sink| sink(line.clone()));
                }
                json!({"content": [], "structuredContent": {"wanted": context.log.is_some(), "meta": context.meta}})
            }
            "lacking" => return Err(lacking()),
            "only_as_task" => {
                let error = Error::rejected("-32601: Task augmentation required").at(Phase::Refused);
                return Err(error.with(|context| context.upstream_code = Some(-32601)));
            }
            _ => json!({"content": [], "structuredContent": self.seen(json!(arguments), context)}),
        };
        Ok(ToolResult(result.as_object().unwrap().clone()))
    }

    async fn request(&self, method: &str, params: Value, context: &CallContext) -> Result<Value> {
        let meta = json!({"io.modelcontextprotocol/serverInfo": {"name": "upstream"}, "seen": self.seen(params.clone(), context)});
        let refused =
            |code: i64| Error::rejected("not here").at(Phase::Answered).with(|c| c.upstream_code = Some(code));
        match (method, params["name"].as_str().or(params["uri"].as_str()).unwrap_or_default()) {
            ("prompts/get", "asking") | ("resources/read", "test://asking") => {
                Ok(json!({"resultType": "input_required", "requestState": "s"}))
            }
            ("prompts/get", "lacking") | ("resources/read", "test://lacking") => Err(lacking()),
            ("prompts/get", "missing") => Err(refused(-32602)),
            ("resources/read", "test://gone") => Err(refused(-32002)),
            ("prompts/get", name) => {
                Ok(json!({"resultType": "complete", "description": name, "x-more": {"z": 1, "a": 2},
                "messages": [{"role": "user", "content": {"type": "text", "text": name}}], "_meta": meta}))
            }
            ("resources/read", uri) => {
                Ok(json!({"contents": [{"uri": uri, "text": format!("from {}", self.service)}], "_meta": meta}))
            }
            ("completion/complete", _) => Ok(json!({"completion": {"values": [self.service]}, "_meta": meta})),
            _ => Err(Error::internal(format!("{method} should not come here")).at(Phase::NotSent)),
        }
    }

    async fn probe(&self, _: Duration) -> Result<()> {
        Ok(())
    }

    async fn notice(&self) -> Notice {
        self.shelves.changed.notified().await;
        Notice::DefinitionsChanged
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }

    async fn close(&self) {}
}

/// What a server says that wants a capability which nobody declared.
fn lacking() -> Error {
    Error::rejected("no sampling").at(Phase::Refused).with(|context| {
        context.upstream_code = Some(-32021);
        context.upstream_data = Some(json!({"requiredCapabilities": {"sampling": {}}}));
    })
}

/// A registry of such services.
pub(crate) struct Library {
    pub(crate) machina: Machina,
    shelves: Arc<Shelves>,
}

impl Library {
    pub(crate) async fn open(services: &[(&str, Shelf)]) -> Self {
        let library = Self::closed(services).await;
        library.unlock(true);
        library.until(|machina| services.iter().all(|(name, _)| machina.get(name).unwrap().has_definitions())).await;
        library
    }

    /// The same while all of them are still starting.
    pub(crate) async fn closed(services: &[(&str, Shelf)]) -> Self {
        let shelves = Arc::<Shelves>::default();
        shelves.closed.store(true, Ordering::SeqCst);
        for (name, shelf) in services {
            shelves.published.lock().unwrap().insert((*name).to_owned(), shelf.clone());
        }
        let machina = Machina::builder().connector(Arc::new(Librarian(Arc::clone(&shelves)))).open().await.unwrap();
        for (name, _) in services {
            let spec = ServiceSpec::parse(&json!({"name": name, "description": format!("About {name}.")}).to_string());
            machina.register(spec.unwrap().instance(Instance::new(Endpoint::InProcess))).await.unwrap();
        }
        Self { machina, shelves }
    }

    /// Lets services start, or not.
    pub(crate) fn unlock(&self, open: bool) {
        self.shelves.closed.store(!open, Ordering::SeqCst);
    }

    /// Publishes something else.
    pub(crate) fn publish(&self, service: &str, shelf: Shelf) {
        self.shelves.published.lock().unwrap().insert(service.to_owned(), shelf);
        self.shelves.changed.notify_waiters();
    }

    pub(crate) async fn until(&self, reached: impl Fn(&Machina) -> bool) {
        let waiting = async {
            while !reached(&self.machina) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the registry comes to it");
    }

    pub(crate) fn scoped(&self) -> Scoped {
        self.machina.scoped(Principal::new("mcp", Role::Developer))
    }

    pub(crate) fn admin(&self) -> Scoped {
        self.machina.scoped(Principal::new("admin", Role::Admin))
    }
}

/// Flat mode with this prefix.
pub(crate) fn flat(prefix: ToolPrefix) -> Exposure {
    Exposure { mode: ToolMode::Flat, prefix, ..Exposure::default() }
}

/// A host's end of a pipe.
pub(crate) fn served(library: &Library, tasks: &Tasks, exposure: Exposure) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let scoped = library.scoped();
    tasks.spawn("serve", async move {
        let (reader, writer) = tokio::io::split(far);
        serve_io(scoped, exposure, reader, writer).await.unwrap();
    });
    near
}

/// Requests of the stateless era.
pub(crate) struct Asking(Bare);

impl Asking {
    pub(crate) fn new(library: &Library, tasks: &Tasks, exposure: Exposure) -> Self {
        Self(Bare::new(served(library, tasks, exposure)))
    }

    pub(crate) async fn ask(&mut self, method: &str, mut params: Value) -> Value {
        params["_meta"] = meta();
        self.0.request(json!(1), method, params).await
    }

    pub(crate) async fn result(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params.clone()).await;
        assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
        answer["result"].take()
    }

    pub(crate) async fn code(&mut self, method: &str, params: Value) -> i64 {
        self.ask(method, params).await["error"]["code"].as_i64().unwrap()
    }

    pub(crate) async fn keys(&mut self, method: &str, field: &str, key: &str) -> Vec<String> {
        let result = self.result(method, json!({})).await;
        result[field].as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn uris(&mut self) -> Vec<String> {
        self.keys("resources/list", "resources", "uri").await
    }
}

/// The uri of a resource that says which service has it.
pub(crate) fn of_service(service: &str, uri: &str) -> String {
    format!("machina://services/{service}/resources/{uri}")
}
