//! A Machina whose one service answers exactly what a test wants answered, and
//! which notes what reaches it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use machina_core::{
    CallContext, Connector, Definitions, Endpoint, Error, Instance, Machina, Notice, Phase, Principal, Progress,
    Result, Role, Scoped, ServiceSpec, Session, Target, Tool, ToolResult, now,
};
use serde_json::{Map, Value, json};

/// How long anything in these tests may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What reached the upstream.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Calls that began.
    pub(crate) begun: AtomicU32,
    /// Calls that were cancelled before their end.
    pub(crate) cancelled: AtomicU32,
}

impl Seen {
    pub(crate) async fn until_begun(&self, count: u32) {
        until(&self.begun, count, "begun").await;
    }

    pub(crate) async fn until_cancelled(&self, count: u32) {
        until(&self.cancelled, count, "cancelled").await;
    }
}

async fn until(counter: &AtomicU32, count: u32, what: &str) {
    let reached = async {
        while counter.load(Ordering::SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "{} of {count} calls were {what}", counter.load(Ordering::SeqCst));
}

#[derive(Debug)]
struct Upstream(Arc<Seen>);

#[derive(Debug)]
struct Link(Arc<Seen>);

#[async_trait]
impl Connector for Upstream {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::InProcess)
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        if target.service.as_str() == "down" {
            return Err(Error::unreachable("connection refused")
                .at(Phase::NotSent)
                .with(|context| context.hard = true));
        }
        Ok(Arc::new(Link(Arc::clone(&self.0))))
    }
}

/// What the tools of the service `fixture` look like.
pub(crate) fn tools() -> Vec<Value> {
    let tool = |name: &str, description: &str| {
        json!({"name": name, "description": description, "x-unknown": {"z": 1, "a": 2},
            "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}})
    };
    vec![
        tool("echo", "Gives a text back.\nWord for word."),
        tool("fail", "Says that it failed."),
        tool("wait_forever", "Reports progress, then waits for ever."),
        tool("reject", "Answers with a protocol error."),
        tool("break_off", "Loses the connection in the middle."),
        tool("ask", "Asks the caller for input."),
    ]
}

/// What `echo` answers: with fields that MCP does not know, and a `_meta`; to
/// `exotic`, with a kind of content that no one knows.
pub(crate) fn echoed(text: &str) -> Value {
    let mut result = json!({
        "resultType": "complete",
        "x-more": {"z": 1, "a": [null]},
        "content": [{"type": "text", "text": text, "x-block": true}],
        "structuredContent": {"b": 1, "a": 2},
        "_meta": {"trace": "t-1", "io.modelcontextprotocol/serverInfo": {"name": "upstream", "version": "1"}},
    });
    if text == "exotic" {
        result["content"] = json!([{"type": "hologram", "data": "…"}]);
    }
    result
}

#[async_trait]
impl Session for Link {
    fn protocol_version(&self) -> &'static str {
        "2025-11-25"
    }

    async fn definitions(&self) -> Result<Definitions> {
        Ok(Definitions {
            protocol_version: self.protocol_version().to_owned(),
            server_info: json!({"name": "upstream"}),
            instructions: None,
            capabilities: json!({"tools": {}}),
            tools: tools().into_iter().map(|tool| Arc::new(Tool::parse(tool).unwrap())).collect(),
            rejected: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            resource_templates: Vec::new(),
            listed_at: now(),
        })
    }

    async fn call(&self, tool: &str, arguments: &Map<String, Value>, context: &CallContext) -> Result<ToolResult> {
        self.0.begun.fetch_add(1, Ordering::SeqCst);
        let text = arguments.get("text").and_then(Value::as_str).unwrap_or_default();
        let result = match tool {
            "echo" => echoed(text),
            "fail" => json!({"content": [{"type": "text", "text": "no luck"}], "isError": true}),
            "ask" => json!({"resultType": "input_required", "inputRequests": {}, "requestState": "s"}),
            "reject" => return Err(Error::rejected("-32602: bad argument").at(Phase::Answered)),
            "break_off" => return Err(Error::lost("connection reset").at(Phase::MaybeExecuted)),
            _ => return self.wait_forever(context).await,
        };
        Ok(ToolResult(result.as_object().unwrap().clone()))
    }

    async fn request(&self, _: &str, _: Value, _: &CallContext) -> Result<Value> {
        Err(Error::unsupported("the tests need none").at(Phase::NotSent))
    }

    async fn probe(&self, _: Duration) -> Result<()> {
        Ok(())
    }

    async fn notice(&self) -> Notice {
        std::future::pending().await
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }

    async fn close(&self) {}
}

impl Link {
    /// Waits until the caller loses interest, be it by the token or by dropping this.
    async fn wait_forever(&self, context: &CallContext) -> Result<ToolResult> {
        struct Noted<'a>(&'a AtomicU32);
        impl Drop for Noted<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let _noted = Noted(&self.0.cancelled);
        if let Some(sink) = &context.progress {
            for step in 1..=2 {
                let message = Some(format!("step {step}"));
                sink(Progress { progress: f64::from(step), total: Some(2.0), message });
            }
        }
        context.cancelled.cancelled().await;
        Err(Error::timeout("cancelled by its caller").at(Phase::MaybeExecuted))
    }
}

/// A registry with the services `fixture`, which works, and `down`, which does not.
pub(crate) struct Registered {
    pub(crate) machina: Machina,
    pub(crate) seen: Arc<Seen>,
}

impl Registered {
    pub(crate) async fn open() -> Self {
        let seen = Arc::<Seen>::default();
        let machina = Machina::builder().connector(Arc::new(Upstream(Arc::clone(&seen)))).open().await.unwrap();
        let described = json!({"name": "fixture", "title": "The fixture", "tags": ["test"],
            "description": "Answers what tests want.\nNothing else.", "env": {"TOKEN": "hunter2"}});
        for spec in [described, json!({"name": "down"})] {
            let spec = ServiceSpec::parse(&spec.to_string()).unwrap();
            machina.register(spec.instance(Instance::new(Endpoint::InProcess))).await.unwrap();
        }
        let settled = async {
            let known = || machina.get("fixture").is_some_and(|view| view.tools().len() == tools().len());
            let down = || machina.get("down").is_some_and(|view| view.status().as_str() == "unhealthy");
            while !known() || !down() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.expect("the services settle");
        Self { machina, seen }
    }

    pub(crate) fn scoped(&self) -> Scoped {
        self.machina.scoped(Principal::new("mcp", Role::Developer))
    }

    pub(crate) fn viewer(&self) -> Scoped {
        self.machina.scoped(Principal::new("reader", Role::Viewer))
    }
}
