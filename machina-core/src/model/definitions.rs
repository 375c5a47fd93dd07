//! What one instance publishes: its tools, prompts and resources, as last seen.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tool::Tool;

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

    /// The tool of this name.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&Arc<Tool>> {
        self.tools.iter().find(|tool| tool.name().as_str() == name)
    }
}
