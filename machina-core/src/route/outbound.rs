//! What the routing loop carries: a call of a tool, or a request for something
//! else that an instance publishes. Refuses an answer that is not the result which
//! was asked for: Machina tells instances that it can neither ask a person nor
//! follow a task, so one that does not care breaks the protocol.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::affinity::key_of;
use super::eligible::repeatable;
use crate::connect::{CallContext, Session};
use crate::error::{Error, Outcome, Phase, Result};
use crate::model::{ToolCall, ToolResult};
use crate::view::ServiceView;

/// One thing to be carried to an instance, perhaps more than once.
pub(crate) trait Outbound: Sync {
    /// What the instance answers.
    type Answer: Send;

    /// The tool that the instance must offer.
    fn tool(&self) -> Option<&str>;

    /// Whether it does no harm twice.
    fn is_repeatable(&self, view: &ServiceView) -> bool;

    /// The value of the argument `name` as a key, where it has one.
    fn argument_key(&self, name: &str) -> Option<Cow<'_, str>>;

    /// Sends it once.
    fn send(&self, session: &dyn Session, context: &CallContext) -> impl Future<Output = Result<Self::Answer>> + Send;
}

impl Outbound for ToolCall {
    type Answer = ToolResult;

    fn tool(&self) -> Option<&str> {
        Some(self.tool.as_str())
    }

    fn is_repeatable(&self, view: &ServiceView) -> bool {
        repeatable(view, self.tool.as_str()).0
    }

    fn argument_key(&self, name: &str) -> Option<Cow<'_, str>> {
        key_of(&self.arguments, name)
    }

    async fn send(&self, session: &dyn Session, context: &CallContext) -> Result<ToolResult> {
        let ToolResult(result) = session.call(self.tool.as_str(), &self.arguments, context).await?;
        complete(result, self.tool.as_str()).map(ToolResult)
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
    type Answer = Map<String, Value>;

    fn tool(&self) -> Option<&str> {
        None
    }

    fn is_repeatable(&self, _: &ServiceView) -> bool {
        true
    }

    fn argument_key(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }

    async fn send(&self, session: &dyn Session, context: &CallContext) -> Result<Self::Answer> {
        match session.request(&self.method, Value::Object(self.params.clone()), context).await? {
            Value::Object(result) => complete(result, &self.method),
            _ => {
                let message = format!("the answer to {} is not an object", self.method);
                Err(Error::rejected(message).at(Phase::Answered))
            }
        }
    }
}

/// `result`, unless it is something else than the result of `what`.
fn complete(result: Map<String, Value>, what: &str) -> Result<Map<String, Value>> {
    const TASK: &str = "began a task, which Machina told it that it cannot follow";
    let instead = match result.get("resultType").and_then(Value::as_str) {
        Some("complete") => return Ok(result),
        Some("input_required") => {
            "asks for input (`input_required`), which Machina told it that it cannot give".to_owned()
        }
        Some("task") => TASK.to_owned(),
        Some(other) => {
            format!("is of the type `{:.80}`, which Machina does not know", other.escape_debug().to_string())
        }
        // The older era has no types; a task is told by its handle.
        None if result.contains_key("content")
            || !result.get("task").is_some_and(|task| task["taskId"].is_string()) =>
        {
            return Ok(result);
        }
        None => TASK.to_owned(),
    };
    let error = Error::rejected(format!("the answer to `{}` is no result: it {instead}", what.escape_debug()));
    // It was sent and taken; what has been done, and what still will be, nobody says.
    Err(error.at(Phase::Answered).with(|context| context.outcome = Some(Outcome::Unknown)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;

    fn of(result: &Value) -> Result<Map<String, Value>> {
        complete(result.as_object().cloned().unwrap(), "t")
    }

    #[test]
    fn only_a_result_passes_for_one() {
        for result in [
            json!({"content": []}),
            json!({"resultType": "complete"}),
            json!({"messages": []}),
            json!({"content": [], "task": {"taskId": "a word of the tool"}}),
            json!({"task": "a word of the server"}),
        ] {
            assert_eq!(Value::Object(of(&result).unwrap()), result);
        }
        let long = "h".repeat(10_000);
        for (result, said) in [
            (json!({"resultType": "input_required", "inputRequests": {}, "requestState": "s"}), "asks for input"),
            (json!({"resultType": "task", "taskId": "1"}), "began a task"),
            (json!({"resultType": "hologram", "content": []}), "`hologram`"),
            (json!({"resultType": long, "content": []}), "does not know"),
            (json!({"task": {"taskId": "1", "status": "working"}}), "began a task"),
        ] {
            let error = of(&result).unwrap_err();
            let context = error.context();
            assert_eq!((error.kind(), context.phase), (ErrorKind::Rejected, Some(Phase::Answered)));
            assert_eq!(context.outcome, Some(Outcome::Unknown));
            assert!(error.message().contains(said) && error.message().len() < 300, "{error}");
        }
    }
}
