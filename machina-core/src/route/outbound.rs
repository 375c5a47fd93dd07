//! What the routing loop carries: a call of a tool, or a request for something
//! else that an instance publishes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::eligible::repeatable;
use crate::config::RoutingConfig;
use crate::connect::{CallContext, Session};
use crate::error::{Error, Result};
use crate::model::{ToolCall, ToolResult};
use crate::view::ServiceView;

/// One thing to be carried to an instance, perhaps more than once.
pub(crate) trait Outbound: Sync {
    /// What the instance answers.
    type Answer: Send;

    /// The tool that the instance must offer.
    fn tool(&self) -> Option<&str>;

    /// Whether it does no harm twice.
    fn is_repeatable(&self, view: &ServiceView, config: &RoutingConfig) -> bool;

    /// Sends it once.
    fn send(&self, session: &dyn Session, context: &CallContext) -> impl Future<Output = Result<Self::Answer>> + Send;
}

impl Outbound for ToolCall {
    type Answer = ToolResult;

    fn tool(&self) -> Option<&str> {
        Some(self.tool.as_str())
    }

    fn is_repeatable(&self, view: &ServiceView, config: &RoutingConfig) -> bool {
        repeatable(view, self.tool.as_str(), config).0
    }

    async fn send(&self, session: &dyn Session, context: &CallContext) -> Result<ToolResult> {
        session.call(self.tool.as_str(), &self.arguments, context).await
    }
}

/// A request for something that an instance publishes besides tools. All of
/// them read, so they may be repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpstreamRequest {
    /// One of [`UpstreamRequest::METHODS`].
    pub method: String,
    /// Its parameters, word for word, without `_meta`.
    pub params: Map<String, Value>,
}

impl UpstreamRequest {
    /// The methods that are passed on.
    pub const METHODS: [&str; 3] = ["prompts/get", "resources/read", "completion/complete"];

    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for any other method.
    pub(crate) fn validate(&self) -> Result<()> {
        if Self::METHODS.contains(&self.method.as_str()) {
            return Ok(());
        }
        let (method, known) = (self.method.escape_debug(), Self::METHODS.join(", "));
        Err(Error::unsupported(format!("`{method}` is not passed on to services; {known} are")))
    }
}

impl Outbound for UpstreamRequest {
    type Answer = Value;

    fn tool(&self) -> Option<&str> {
        None
    }

    fn is_repeatable(&self, _: &ServiceView, _: &RoutingConfig) -> bool {
        true
    }

    async fn send(&self, session: &dyn Session, context: &CallContext) -> Result<Value> {
        session.request(&self.method, Value::Object(self.params.clone()), context).await
    }
}
