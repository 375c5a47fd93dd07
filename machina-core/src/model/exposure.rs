//! How the tools of services appear to an MCP host: plain words of a record.

use serde::{Deserialize, Serialize};

/// Which tools a host sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ToolMode {
    /// A few tools that reach every other: few tokens, however many there are.
    #[default]
    Meta,
    /// Every tool of every service by itself.
    Flat,
}

/// When the name of a tool is preceded by that of its service, in flat mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ToolPrefix {
    /// Always: `service__tool`.
    #[default]
    Always,
    /// Where two services offer a tool of the same name.
    OnCollision,
    /// Never: tools of the same name are told apart by a suffix.
    None,
}
