//! How upstream tools appear to a host: plain data with sensible defaults.

pub use machina_core::{ToolMode, ToolPrefix};

/// How upstream tools appear to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposure {
    /// Which tools it sees.
    pub mode: ToolMode,
    /// How they are named in flat mode.
    pub prefix: ToolPrefix,
    /// Whether the names of earlier gateways are listed too: `list_available_services`,
    /// `list_available_tools` and `call_service_tool` in meta mode, and the resource
    /// template `service_documentation`. They are understood in any case.
    pub aliases: bool,
}

impl Default for Exposure {
    fn default() -> Self {
        Self { mode: ToolMode::default(), prefix: ToolPrefix::default(), aliases: true }
    }
}
