//! What one instance publishes: its tools, prompts and resources, as last seen.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tool::Tool;
use crate::error::{Error, Result};

/// How many tools, prompts, resources and templates one instance may publish, each.
const ENTRIES_MAX: usize = 1_000;

/// How long one of them may be, in bytes of JSON.
const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// A tool definition that was not accepted, with the reason. Its siblings are
/// not affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedTool {
    /// The name it claims, where it has one.
    pub name: Option<String>,
    /// Why it was not accepted.
    pub reason: String,
}

/// What one instance publishes, as last listed. Kept when the instance is away:
/// readers get the last known good lists with their age.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Definitions {
    /// The revision of MCP that was spoken, such as `2025-11-25`.
    pub protocol_version: String,
    /// What the server calls itself (`serverInfo`); no identity, only a label.
    pub server_info: Value,
    /// What the server says about its use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The server's capabilities, word for word.
    pub capabilities: Value,
    /// Its tools, in its order.
    pub tools: Vec<Arc<Tool>>,
    /// Tools that were not accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedTool>,
    /// Its prompts, word for word.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<Value>,
    /// Its resources, word for word.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Value>,
    /// Its resource templates, word for word.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_templates: Vec<Value>,
    /// When they were listed.
    pub listed_at: Timestamp,
}

impl Definitions {
    /// Whether `other` publishes the same, whenever it was listed.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let listed_at = self.listed_at;
        *self == Self { listed_at, ..other.clone() }
    }

    /// Checks that nothing in it is larger than what an instance may publish.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the first thing that is.
    pub fn validate(&self) -> Result<()> {
        let too_long = |field: String, value: &Value| {
            let bytes = value.to_string().len();
            let detail = format!("must have at most {ENTRY_BYTES_MAX} bytes of JSON, has {bytes}");
            if bytes > ENTRY_BYTES_MAX { Err(Error::invalid_field(field, detail)) } else { Ok(()) }
        };
        let lists = [
            ("prompts", &self.prompts),
            ("resources", &self.resources),
            ("resource_templates", &self.resource_templates),
        ];
        let counts = lists.iter().map(|(field, list)| (*field, list.len()));
        for (field, count) in counts.chain([("tools", self.tools.len()), ("rejected", self.rejected.len())]) {
            if count > ENTRIES_MAX {
                return Err(Error::invalid_field(field, format!("must be at most {ENTRIES_MAX}, are {count}")));
            }
        }
        for (field, list) in lists {
            for (index, entry) in list.iter().enumerate() {
                too_long(format!("{field}[{index}]"), entry)?;
            }
        }
        let rejected = self.rejected.iter().map(|tool| format!("{:?}{}", tool.name, tool.reason).into());
        for (index, tool) in rejected.enumerate() {
            too_long(format!("rejected[{index}]"), &tool)?;
        }
        for (field, text) in
            [("protocol_version", Some(&self.protocol_version)), ("instructions", self.instructions.as_ref())]
        {
            if let Some(text) = text {
                too_long(field.to_owned(), &Value::from(text.as_str()))?;
            }
        }
        too_long("server_info".to_owned(), &self.server_info)?;
        too_long("capabilities".to_owned(), &self.capabilities)
    }

    /// The same, with `known` tools in the place of those that say the same word for
    /// word: the instances of a service publish the same as a rule, and it is kept once.
    pub(crate) fn sharing<'a>(self: &Arc<Self>, known: impl Fn(&str) -> Option<&'a Arc<Tool>>) -> Arc<Self> {
        let shared = |tool: &Arc<Tool>| {
            let known = known(tool.name().as_str());
            Arc::clone(known.filter(|known| known.definition_text() == tool.definition_text()).unwrap_or(tool))
        };
        let tools: Vec<_> = self.tools.iter().map(shared).collect();
        if tools.iter().zip(&self.tools).all(|(one, other)| Arc::ptr_eq(one, other)) {
            return Arc::clone(self);
        }
        Arc::new(Self { tools, ..Self::clone(self) })
    }

    /// The tool of this name.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&Arc<Tool>> {
        self.tools.iter().find(|tool| tool.name().as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(definition: Value) -> Arc<Tool> {
        Arc::new(Tool::parse(definition).unwrap())
    }

    #[test]
    fn only_what_is_equal_word_for_word_is_kept_once() {
        let schema = json!({"type": "object", "x": 1});
        let known =
            [tool(json!({"name": "a", "inputSchema": schema})), tool(json!({"name": "b", "inputSchema": schema}))];
        let reordered = json!({"x": 1, "type": "object"});
        let tools = vec![
            tool(json!({"name": "a", "inputSchema": schema})),
            tool(json!({"name": "b", "inputSchema": reordered})),
            tool(json!({"name": "c", "inputSchema": schema})),
        ];
        let (protocol_version, server_info, capabilities) = (String::new(), Value::Null, Value::Null);
        let (rejected, prompts, resources) = (Vec::new(), Vec::new(), Vec::new());
        let (instructions, resource_templates, listed_at) = (None, Vec::new(), Timestamp::UNIX_EPOCH);
        let definitions = Arc::new(Definitions {
            protocol_version,
            server_info,
            instructions,
            capabilities,
            tools,
            rejected,
            prompts,
            resources,
            resource_templates,
            listed_at,
        });
        let shared = definitions.sharing(|name| known.iter().find(|tool| tool.name().as_str() == name));
        assert!(shared.same_as(&definitions));
        assert!(Arc::ptr_eq(&shared.tools[0], &known[0]));
        assert!(Arc::ptr_eq(&shared.tools[1], &definitions.tools[1]) && shared.tools[1] == known[1]);
        assert!(Arc::ptr_eq(&shared.tools[2], &definitions.tools[2]));
        assert!(Arc::ptr_eq(&definitions.sharing(|_| None), &definitions));
    }
}
