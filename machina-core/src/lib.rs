//! Machina's domain: the registry of MCP servers, their health, the routing of
//! calls, and the traits that stores and connectors implement.
//!
//! This crate holds every rule and no I/O: no SQL, no HTTP, no MCP SDK. What
//! reaches the outside world comes in as a trait object: a [`Store`] keeps what
//! operators declared, a [`Connector`] opens [`Session`]s to instances.
//! [`Machina`] is the facade over all of it; adapters (REST, MCP, language
//! bindings) translate to it and decide nothing.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use machina_core::{Machina, Query, ServiceSpec};
//!
//! let machina = Machina::builder().open().await?;
//! machina.register(ServiceSpec::parse(r#"{"name": "time", "tags": ["clock"]}"#)?).await?;
//! assert!(machina.get("time").is_some());
//! assert_eq!(machina.find(&Query::from_pairs([("tag", "clock")])?)?.items.len(), 1);
//! machina.close().await;
//! # Ok::<(), machina_core::Error>(()) }).unwrap();
//! ```

mod access;
mod builder;
mod catalog;
mod cell;
mod change_log;
mod clock;
mod config;
mod connect;
mod core;
mod error;
mod event;
mod health;
mod history;
pub mod json;
mod lease;
mod machina;
mod memory;
mod model;
mod query;
mod quiet;
mod recorder;
mod replies;
mod report;
mod route;
mod sessions;
mod statistics;
mod store;
mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tool_index;
mod view;
mod write;

pub use access::{Departed, Discovered, GroupReport, Measured, Principal, Reachable, Role, Scoped};
pub use builder::Builder;
pub use change_log::ChangeLog;
pub use clock::now;
pub use config::{
    AccessConfig, Config, HealthConfig, JournalConfig, LimitsConfig, RoutingConfig, SessionsConfig, StartPolicy,
};
pub use connect::{CallContext, Connector, Era, LOG_LEVEL, LogSink, Notice, Progress, ProgressSink, Session, Target};
pub use error::{Error, ErrorContext, ErrorKind, Outcome, Phase, Problem, Result};
pub use event::{Event, EventCursor, EventFeed, EventKind, EventStream, Next};
pub use health::{
    Evidence, Health, HealthParameters, HealthState, Observation, ProbeOutcome, Prober, Reason, ReasonCode, Status,
};
pub use history::{HealthSlot, HealthSlots};
pub use jiff::Timestamp;
pub use lease::{Heartbeat, Lease};
pub use machina::{Applied, Machina, Registry, Router, ToolPage, ToolQuery};
pub use memory::MemoryStore;
pub use model::{
    AccessLevel, AdminState, BalancerKind, BuildPriority, BuildType, Definitions, Endpoint, Group, GroupMember,
    GroupName, GroupSpec, HealthPolicy, HttpEndpoint, Instance, InstanceId, OpenApiEndpoint, Origin, RejectedTool,
    Revision, RoutingPolicy, Sensitive, SensitiveMap, Service, ServiceId, ServiceName, ServiceSpec, StdioEndpoint, Tag,
    Tool, ToolCall, ToolHints, ToolMode, ToolName, ToolPattern, ToolPrefix, ToolResult, UrlEndpoint,
};
pub use query::{Order, Page, Query};
pub use quiet::quietly;
pub use replies::{
    Answer, Begun, Claim, Keep, MemoryReplies, Replied, Replies, Reply, ReplyKey, ReplyProgress, RequestHash,
};
pub use report::{HealthReport, InstanceHealth, Overview, ServiceHealth, ServiceReport, ToolReport};
pub use route::{
    Attempt, Balancer, CallKey, CallOptions, CallReport, Candidacy, Candidate, Decision, Explanation, Failure,
    PeakEwma, RoundRobin, Standing, UpstreamRequest, decide,
};
pub use statistics::{CallStatistics, DURATION_BOUNDS, InstanceStatistics, ServiceStatistics};
pub use store::{
    Backend, Batch, Change, Changes, Entry, EntryKind, Image, Journal, JournalPage, JournalQuery, Precondition,
    Retention, Store, What,
};
pub use tasks::{Attached, Tasks};
pub use tool_index::{Hit, LexicalIndex, ToolIndex};
pub use view::{InstanceView, OfferedTool, ServiceView, View};
pub use write::Mutation;
