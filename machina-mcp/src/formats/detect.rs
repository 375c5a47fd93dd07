//! Which format a document is in, told by the keys that only one format has.

use std::fmt;

use machina_core::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value};

/// A format that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub enum Format {
    /// `mcpServers`: Claude Desktop, Claude Code, Cursor, Gemini CLI, Windsurf and others.
    #[serde(rename = "mcpServers")]
    McpServers,
    /// `servers` and `inputs`, or `mcp.servers` in the settings, of VS Code.
    #[serde(rename = "vscode")]
    VsCode,
    /// `context_servers` in the settings of Zed.
    #[serde(rename = "zed")]
    Zed,
    /// `[mcp_servers.…]` in the TOML configuration of Codex.
    #[serde(rename = "codex")]
    Codex,
    /// `mcp` in the configuration of opencode.
    #[serde(rename = "opencode")]
    OpenCode,
    /// `server.json` of the official registry, or a list of them.
    #[serde(rename = "server.json")]
    ServerJson,
    /// The manifest of an MCP bundle.
    #[serde(rename = "mcpb")]
    Mcpb,
    /// Machina's own records.
    #[serde(rename = "machina")]
    Machina,
}

impl Format {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::McpServers => "mcpServers",
            Self::VsCode => "vscode",
            Self::Zed => "zed",
            Self::Codex => "codex",
            Self::OpenCode => "opencode",
            Self::ServerJson => "server.json",
            Self::Mcpb => "mcpb",
            Self::Machina => "machina",
        }
    }

    pub(super) fn of(root: &Value) -> Result<Self> {
        let found = match root {
            Value::Array(_) => Some(Self::Machina),
            Value::Object(object) => of_object(object),
            _ => None,
        };
        found.ok_or_else(|| Error::invalid_field("text", unknown(root)))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn of_object(root: &Map<String, Value>) -> Option<Format> {
    let has = |key: &str| root.contains_key(key);
    let object = |key: &str| root.get(key).and_then(Value::as_object);
    let array = |key: &str| root.get(key).is_some_and(Value::is_array);
    if has("mcpServers") {
        return Some(Format::McpServers);
    }
    if has("context_servers") {
        return Some(Format::Zed);
    }
    if has("mcp_servers") {
        return Some(Format::Codex);
    }
    if array("services") {
        return Some(Format::Machina);
    }
    if has("servers") {
        return Some(if array("servers") { Format::ServerJson } else { Format::VsCode });
    }
    if (has("manifest_version") || has("dxt_version")) && has("server") {
        return Some(Format::Mcpb);
    }
    if is_server_json(root) || object("server").is_some_and(is_server_json) {
        return Some(Format::ServerJson);
    }
    if let Some(mcp) = object("mcp") {
        let servers = mcp.get("servers").and_then(Value::as_object);
        let vscode = servers.is_some() && !servers.is_some_and(|servers| servers.values().any(of_opencode));
        return Some(if vscode && !schema(root).contains("opencode") { Format::VsCode } else { Format::OpenCode });
    }
    if root.get("name").is_some_and(Value::is_string) && !has("command") && !has("url") {
        return Some(Format::Machina);
    }
    let bare = !root.is_empty() && root.values().all(|value| value.as_object().is_some_and(reaches_a_server));
    bare.then_some(Format::McpServers)
}

fn schema(root: &Map<String, Value>) -> &str {
    root.get("$schema").and_then(Value::as_str).unwrap_or_default()
}

fn is_server_json(root: &Map<String, Value>) -> bool {
    let list = |key: &str| root.get(key).is_some_and(Value::is_array);
    schema(root).ends_with("server.schema.json") || (root.contains_key("name") && (list("packages") || list("remotes")))
}

fn of_opencode(entry: &Value) -> bool {
    matches!(entry["type"].as_str(), Some("local" | "remote")) || entry["command"].is_array()
}

fn reaches_a_server(entry: &Map<String, Value>) -> bool {
    ["command", "url", "httpUrl", "serverUrl"].iter().any(|key| entry.contains_key(*key))
}

fn unknown(root: &Value) -> String {
    let known = "known are objects with `mcpServers`, `servers`, `context_servers`, `mcp`, `services`, a server.json, \
                 an MCPB manifest, a service record, and TOML with `[mcp_servers.NAME]`";
    match root {
        Value::Object(object) if object.contains_key("command") || object.contains_key("url") => {
            format!("is a server without a name: put it into {{\"mcpServers\": {{\"NAME\": …}}}}; {known}")
        }
        Value::Object(object) if object.is_empty() => format!("holds nothing; {known}"),
        Value::Object(object) => {
            let keys: Vec<_> = object.keys().take(5).map(|key| format!("`{}`", key.escape_debug())).collect();
            format!("is in no known format: its keys are {}; {known}", keys.join(", "))
        }
        _ => format!("is in no known format; {known}"),
    }
}
