//! Reaches the functions of this process as any instance is reached: through a
//! connector and a session. Decides nothing about health or retries.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::attached::Functions;
use super::run::{busy, run};
use super::{Natives, not_here};
use crate::clock;
use crate::connect::{CallContext, Connector, Notice, Session, Target};
use crate::error::{Error, Outcome, Phase, Result};
use crate::model::{Definitions, Endpoint, ToolResult};
use crate::tasks::Tasks;

/// How long functions may take to end that are told to.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Opens sessions with the functions of this process.
#[derive(Debug)]
pub(crate) struct NativeConnector(pub(crate) Natives);

#[async_trait]
impl Connector for NativeConnector {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::InProcess)
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        let functions = self.0.find(&target.service).ok_or_else(|| not_here(&target.service))?;
        Ok(Arc::new(NativeSession { functions, tasks: Tasks::new(), closed: CancellationToken::new() }))
    }
}

/// A session with the functions for one service.
#[derive(Debug)]
struct NativeSession {
    functions: Arc<Functions>,
    /// The executions under way.
    tasks: Tasks,
    closed: CancellationToken,
}

impl Drop for NativeSession {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

#[async_trait]
impl Session for NativeSession {
    fn protocol_version(&self) -> &'static str {
        "2025-11-25"
    }

    async fn definitions(&self) -> Result<Definitions> {
        Ok(Definitions {
            protocol_version: self.protocol_version().to_owned(),
            server_info: json!({"name": self.functions.service, "version": env!("CARGO_PKG_VERSION")}),
            instructions: None,
            capabilities: json!({"tools": {"listChanged": true}}),
            tools: self.functions.tools(),
            rejected: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            resource_templates: Vec::new(),
            listed_at: clock::now(),
        })
    }

    async fn call(&self, tool: &str, arguments: &Map<String, Value>, context: &CallContext) -> Result<ToolResult> {
        if self.is_closed() {
            return Err(not_here(&self.functions.service));
        }
        let function = self.functions.get(tool).ok_or_else(|| {
            let message = format!("`{}` has no function named `{}`", self.functions.service, tool.escape_debug());
            declined(message, INVALID_PARAMS)
        })?;
        // The router may know an older definition, or none yet.
        function.tool.check_arguments(arguments)?;
        run(&function, &self.tasks, arguments.clone(), context).await
    }

    async fn request(&self, method: &str, _: Value, _: &CallContext) -> Result<Value> {
        let message = format!("`{}` has functions and nothing else, so not {method}", self.functions.service);
        Err(declined(message, METHOD_NOT_FOUND))
    }

    async fn probe(&self, _: Duration) -> Result<()> {
        match (self.is_closed(), self.functions.busy()) {
            (true, _) => Err(not_here(&self.functions.service)),
            (false, Some(function)) => Err(busy(&function)),
            (false, None) => Ok(()),
        }
    }

    async fn notice(&self) -> Notice {
        self.closed.cancelled().await;
        Notice::Closed(not_here(&self.functions.service))
    }

    fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || self.functions.is_withdrawn()
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }

    async fn close(&self) {
        self.closed.cancel();
        if !self.tasks.close(CLOSE_PATIENCE).await {
            tracing::warn!(service = %self.functions.service, "a function does not end though it was told to");
        }
    }
}

const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;

/// An answer, with certainty that nothing was done.
fn declined(message: String, code: i64) -> Error {
    Error::rejected(message).at(Phase::Answered).with(|context| {
        context.upstream_code = Some(code);
        context.outcome = Some(Outcome::NotExecuted);
    })
}
