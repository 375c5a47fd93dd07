//! The records: validated values that are parsed once and then trusted.

mod arguments;
mod definitions;
mod endpoint;
mod exposure;
mod group;
mod instance;
mod name;
#[cfg(feature = "openapi")]
mod openapi;
mod policy;
mod sensitive;
mod service;
mod suspicious;
mod tool;
mod tool_text;

pub use definitions::{Definitions, RejectedTool};
pub use endpoint::{Endpoint, HttpEndpoint, OpenApiEndpoint, StdioEndpoint, UrlEndpoint};
pub use exposure::{ToolMode, ToolPrefix};
pub use group::{Group, GroupMember, GroupSpec, ToolPattern};
pub use instance::{AdminState, Instance};
pub use name::{GroupName, InstanceId, Revision, ServiceId, ServiceName, Tag, ToolName};
pub(crate) use policy::length;
pub use policy::{
    AlertLevel, AlertPolicy, BalancerKind, Canary, HealthConfig, HealthEndpoint, HealthLevel, HealthParameters,
    HealthPolicy, Pinning, RoutingConfig, RoutingParameters, RoutingPolicy, SessionParameters, SessionPolicy,
    SessionsConfig, StartPolicy, TimeLimit,
};
pub use sensitive::{Sensitive, SensitiveMap};
pub(crate) use service::from_json;
pub use service::{AccessLevel, BuildPriority, BuildType, Origin, Service, ServiceSpec};
pub use tool::{Tool, ToolCall, ToolHints, ToolResult};
